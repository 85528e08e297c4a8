//! The workload: what callers and operators request, as API Gateway would pass it on, and what customers' phones do.
//! The plan of a run says when.

use fastrand::Rng;
use serde_json::{Map, Value, json};
use simulators::InstallFault;

use crate::stock::{FREE, LINES, StockLine};

/// A request, which may be sent several times.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Request {
    /// The function that handles it.
    pub(crate) function: &'static str,
    /// The caller: role, subject, customer or reseller.
    caller: (&'static str, &'static str, &'static str),
    method: &'static str,
    path: String,
    query: String,
    /// `accountId` and `newSim` of the account dialect.
    parameters: Option<[String; 2]>,
    body: Option<Value>,
    pub(crate) key: Option<String>,
    /// The confirmation code in the body.
    pub(crate) code: Option<String>,
    /// The request is about the newest swap that this line has when the request is sent.
    pub(crate) target_line: Option<&'static str>,
    /// An operator's import: the line, and its new state.
    pub(crate) block: Option<(&'static str, Block)>,
}

/// How an import blocks a line, or lifts the block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Block {
    Locked,
    Blocked,
    Porting,
    /// The line is not blocked in any way.
    Lifted,
    /// The line is ACTIVE and not porting, and the import does not mention the lock.
    LockOmitted,
}

impl Block {
    pub(crate) const ALL: [Self; 3] = [Self::Locked, Self::Blocked, Self::Porting];
}

/// Where an attacker wants the QR code sent.
pub(crate) const ATTACKER_EMAIL: &str = "attacker@mail.example";

const CALLERS: [(&str, &str, &str); 6] = [
    ("OWNER", "anna", "C-100"),
    ("OWNER", "dorte", "C-300"),
    ("RESELLER", "shop", "R-10"),
    ("ADMIN", "desk", ""),
    ("OWNER", "stranger", "C-999"),
    // The attacker has a token of the customer of the first two lines.
    ("OWNER", "attacker", "C-100"),
];

/// The confirmation code in request `n`: a string that nothing else contains, so that it can be searched for.
pub(crate) fn confirmation_code(n: usize) -> String {
    format!("Zq7KwV{n:04}")
}

impl Request {
    /// The request with index `n` of a run, of a random kind.
    pub(crate) fn random(rng: &mut Rng, n: usize) -> Self {
        let line = &LINES[rng.usize(..LINES.len())];
        let caller = match rng.u8(..10) {
            0..6 => CALLERS[usize::from(line.customer == "C-300")],
            6 => CALLERS[2],
            7 | 8 => CALLERS[3],
            _ => CALLERS[4],
        };
        let key = rng.bool().then(|| format!("key-{}", rng.u8(..3)));
        let request = match rng.u8(..21) {
            10 | 11 => Self::manage(line, "CancelActivation"),
            12 => Self::manage(line, "ResendEsim"),
            17 | 18 => Self::random_renewal(line, rng, n),
            19 | 20 => Self::random_report(line, rng),
            13 => return Self::block(line, Block::ALL[rng.usize(..3)]),
            14 => return Self::block(line, Block::LockOmitted),
            15 | 16 => return Self::from_attacker(&LINES[rng.usize(..2)], rng.usize(..4)),
            0..5 => Self::esim(line, rng.bool(), n),
            5 | 6 => Self::card(line, FREE[rng.usize(..FREE.len())].0),
            7 | 8 => {
                let new_sims = ["eSim", "autoAssign", FREE[rng.usize(..FREE.len())].0];
                Self::change(line, new_sims[rng.usize(..3)])
            }
            _ => Self::query(line),
        };
        Self { caller, key, ..request }
    }

    /// An eSIM swap in the subscription dialect.
    pub(crate) fn esim(line: &StockLine, by_phone: bool, n: usize) -> Self {
        let (name, value) = if by_phone {
            ("phoneNumber", line.phone)
        } else {
            ("subscriptionId", line.id)
        };
        let code = confirmation_code(n);
        let email = format!("mail{n}@customer.example");
        let body = json!({name: value, "eSim": true, "email": email, "confirmationCode": code});
        Self::submit(line, body, Some(code))
    }

    /// A card swap in the subscription dialect.
    pub(crate) fn card(line: &StockLine, iccid: &str) -> Self {
        let body = json!({"subscriptionId": line.id, "newSimCardNumber": iccid});
        Self::submit(line, body, None)
    }

    fn submit(line: &StockLine, body: Value, code: Option<String>) -> Self {
        Self {
            function: "submit-swap",
            caller: CALLERS[usize::from(line.customer == "C-300")],
            method: "POST",
            path: "/api/SimSwapSubscription".to_owned(),
            query: String::new(),
            parameters: None,
            body: Some(body),
            key: None,
            code,
            target_line: None,
            block: None,
        }
    }

    /// A swap in the account dialect.
    pub(crate) fn change(line: &StockLine, new_sim: &str) -> Self {
        Self {
            function: "change-sim",
            caller: CALLERS[usize::from(line.customer == "C-300")],
            method: "POST",
            path: format!("/mvno/{}/changesim/{new_sim}", line.id),
            query: String::new(),
            parameters: Some([line.id.to_owned(), new_sim.to_owned()]),
            body: None,
            key: None,
            code: None,
            target_line: None,
            block: None,
        }
    }

    /// `CancelActivation` or `ResendEsim` for the newest swap of a line.
    pub(crate) fn manage(line: &StockLine, action: &str) -> Self {
        Self {
            function: "manage-swap",
            caller: CALLERS[usize::from(line.customer == "C-300")],
            method: "POST",
            path: format!("/api/{action}"),
            query: String::new(),
            parameters: None,
            body: None,
            key: None,
            code: None,
            target_line: Some(line.id),
            block: None,
        }
    }

    /// `RenewEsim` for the newest swap of a line, perhaps with another address and another confirmation code.
    pub(crate) fn renew(line: &StockLine, email: Option<String>, code: Option<String>) -> Self {
        let mut body = json!({});
        for (name, value) in [("email", email), ("confirmationCode", code.clone())] {
            if let Some(value) = value {
                body[name] = value.into();
            }
        }
        Self {
            body: Some(body),
            code,
            ..Self::manage(line, "RenewEsim")
        }
    }

    /// The request to renew with the index `n` of a run.
    pub(crate) fn random_renewal(line: &StockLine, rng: &mut Rng, n: usize) -> Self {
        let email = rng.bool().then(|| format!("mail{n}@customer.example"));
        let code = rng.bool().then(|| confirmation_code(n));
        Self::renew(line, email, code)
    }

    /// `ReportInstalled` for the newest swap of a line.
    pub(crate) fn report(line: &StockLine, witness: &str) -> Self {
        Self {
            body: Some(json!({"witness": witness, "note": "It works."})),
            ..Self::manage(line, "ReportInstalled")
        }
    }

    pub(crate) fn random_report(line: &StockLine, rng: &mut Rng) -> Self {
        Self::report(line, ["customer", "agent", "app"][rng.usize(..3)])
    }

    /// The same request, by the desk.
    pub(crate) fn by_desk(self) -> Self {
        Self {
            caller: CALLERS[3],
            ..self
        }
    }

    /// A random request about the profile of the newest swap of a line, by the customer, the reseller or the desk.
    pub(crate) fn about_profile(line: &StockLine, rng: &mut Rng, n: usize) -> Self {
        let request = match rng.u8(..5) {
            0..2 => Self::random_renewal(line, rng, n),
            2..4 => Self::random_report(line, rng),
            _ => Self::manage(line, "ResendEsim"),
        };
        let is_of_shop = line.reseller() == CALLERS[2].2;
        let caller = match rng.u8(..4) {
            0 if is_of_shop => CALLERS[2],
            1 => CALLERS[3],
            _ => request.caller,
        };
        let key = rng.bool().then(|| format!("profile-{n}"));
        Self { caller, key, ..request }
    }

    /// Whether the request answers for what it reports: it is that of an agent of a reseller or of the desk.
    pub(crate) fn is_vouched_for(&self) -> bool {
        let witness = self.body.as_ref().map(|body| &body["witness"]);
        witness.is_some_and(|witness| witness == "agent") && self.caller.0 != "OWNER"
    }

    /// A request of an attacker who has the customer's token: for the QR code at another address, for the codes of the
    /// SIM in use or of a new one, or for what others have entered.
    pub(crate) fn from_attacker(line: &StockLine, kind: usize) -> Self {
        let request = match kind {
            0 => Self {
                body: Some(json!({"email": ATTACKER_EMAIL})),
                ..Self::manage(line, "ResendEsim")
            },
            1 => Self::change(line, line.sim),
            2 => Self::change(line, "eSim"),
            _ => Self::query(line),
        };
        Self {
            caller: CALLERS[5],
            ..request
        }
    }

    /// An operator's import that sets this state of the line.
    pub(crate) fn block(line: &StockLine, block: Block) -> Self {
        Self {
            function: "import",
            block: Some((line.id, block)),
            ..Self::query(line)
        }
    }

    /// The line that the request would move to an eSIM.
    pub(crate) fn esim_line(&self) -> Option<&'static StockLine> {
        let esim = match &self.parameters {
            Some([_, new_sim]) => new_sim == "eSim",
            None => self.function == "submit-swap" && self.code.is_some(),
        };
        let text = match &self.parameters {
            Some([account, _]) => account.clone(),
            None => self.body.as_ref()?.to_string(),
        };
        let named = |line: &&StockLine| text.contains(line.id) || text.contains(line.phone);
        LINES.iter().find(named).filter(|_| esim)
    }

    /// The subject of the caller's token.
    pub(crate) fn caller(&self) -> &'static str {
        self.caller.1
    }

    /// The account whose codes the response would show, and whether the service chooses the SIM.
    pub(crate) fn requested_codes(&self) -> Option<(&str, bool)> {
        let [account, new_sim] = self.parameters.as_ref()?;
        Some((account, ["eSim", "autoAssign"].contains(&new_sim.as_str())))
    }

    /// The swap that the request would cancel.
    pub(crate) fn cancelled_swap(&self) -> Option<&str> {
        let is_cancel = self.path.ends_with("/CancelActivation");
        self.query.strip_prefix("id=").filter(|_| is_cancel)
    }

    /// The same request, about this swap.
    pub(crate) fn for_swap(&self, swap: &str) -> Self {
        Self {
            query: format!("id={swap}"),
            ..self.clone()
        }
    }

    /// A query of a line's swaps.
    pub(crate) fn query(line: &StockLine) -> Self {
        Self {
            function: "query-activation",
            caller: CALLERS[3],
            method: "GET",
            path: "/api/QueryActivation".to_owned(),
            query: format!("subscriptionId={}", line.id),
            parameters: None,
            body: None,
            key: None,
            code: None,
            target_line: None,
            block: None,
        }
    }

    /// A query of the swaps that the desk or the reseller of the first lines may see.
    pub(crate) fn listing(by_desk: bool, query: String) -> Self {
        Self {
            caller: CALLERS[if by_desk { 3 } else { 2 }],
            query,
            ..Self::query(&LINES[0])
        }
    }

    /// The same request, with an idempotency key.
    pub(crate) fn with_key(self, key: &str) -> Self {
        Self {
            key: Some(key.to_owned()),
            ..self
        }
    }

    /// Requests with the same identity are repeats of each other: the caller and the idempotency key.
    pub(crate) fn identity(&self) -> Option<String> {
        let key = self.key.as_ref()?;
        Some(format!("{:?} {key}", self.caller))
    }

    /// Whether the caller may see none of the lines.
    pub(crate) fn is_from_stranger(&self) -> bool {
        self.caller == CALLERS[4]
    }

    /// The Lambda event.
    pub(crate) fn event(&self) -> Value {
        if let Some((line, block)) = self.block {
            return json!({
                "line": line,
                "state": if block == Block::Blocked { "BLOCKED" } else { "ACTIVE" },
                "porting": block == Block::Porting,
                "locked": (block != Block::LockOmitted).then_some(block == Block::Locked),
            });
        }
        let (role, subject, claim) = self.caller;
        let mut claims = json!({"sub": subject, "role": role});
        match role {
            "OWNER" => claims["customer"] = claim.into(),
            "RESELLER" => claims["reseller"] = claim.into(),
            _ => {}
        }
        let mut event = http_event(self.method, &self.path, self.body.as_ref());
        event["rawQueryString"] = self.query.clone().into();
        event["requestContext"]["authorizer"] = json!({"jwt": {"claims": claims, "scopes": null}});
        if let Some(key) = &self.key {
            event["headers"]["idempotency-key"] = key.clone().into();
        }
        if let Some([account, new_sim]) = &self.parameters {
            event["pathParameters"] = json!({"accountId": account, "newSim": new_sim});
        }
        let parameters = self.query.split('&').filter_map(|pair| pair.split_once('='));
        let parameters: Map<_, _> = parameters
            .map(|(name, value)| (name.to_owned(), value.into()))
            .collect();
        if !parameters.is_empty() {
            event["queryStringParameters"] = parameters.into();
        }
        event
    }

    /// A short description for the trace.
    pub(crate) fn describe(&self) -> String {
        if let Some((line, block)) = self.block {
            return format!("import {line} {block:?}");
        }
        let body = self.body.as_ref().map(Value::to_string);
        let key = self.key.as_deref().unwrap_or("no key");
        format!(
            "{} {} {}{} {} ({key})",
            self.caller.1,
            self.method,
            self.path,
            self.query,
            body.unwrap_or_default()
        )
    }
}

/// An event of API Gateway without a token.
pub(crate) fn http_event(method: &str, path: &str, body: Option<&Value>) -> Value {
    json!({
        "version": "2.0",
        "routeKey": format!("{method} {path}"),
        "rawPath": path,
        "rawQueryString": "",
        "headers": {"host": "api.example.com", "content-type": "application/json"},
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "a1b2c3d4e5",
            "domainName": "api.example.com",
            "domainPrefix": "api",
            "http": {
                "method": method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": "192.0.2.10",
                "userAgent": "simulation"
            },
            "requestId": "r",
            "routeKey": format!("{method} {path}"),
            "stage": "$default",
            "time": "22/Nov/2026:12:00:00 +0000",
            "timeEpoch": 1_795_348_800_000_i64
        },
        "body": body.map(Value::to_string),
        "isBase64Encoded": false
    })
}

/// What a customer does with a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PhoneAct {
    /// Installs the profile with the right confirmation code.
    Install,
    /// The same, and the SM-DP+ reports nothing.
    InstallUnreported,
    /// Downloads the profile without installing it.
    Fetch,
    /// The same, and the SM-DP+ reports nothing.
    FetchUnreported,
    /// Enters a wrong confirmation code.
    Mistype,
    /// The phone cannot install the profile.
    Fail(InstallFault),
}

/// Draws what a customer does with a mail, in milliseconds after it arrives.
pub(crate) fn phone_acts(rng: &mut Rng) -> Vec<(u64, PhoneAct)> {
    let minutes = |rng: &mut Rng, most: u64| rng.u64(1_000..=most * 60_000);
    match rng.u8(..16) {
        0..5 => vec![(minutes(rng, 30), PhoneAct::Install)],
        5 => vec![
            (minutes(rng, 2), PhoneAct::Mistype),
            (minutes(rng, 40) + 120_000, PhoneAct::Install),
        ],
        6 => (0..6).map(|_| (minutes(rng, 60), PhoneAct::Mistype)).collect(),
        7 => vec![
            (minutes(rng, 10), PhoneAct::Fetch),
            (minutes(rng, 120) + 600_000, PhoneAct::Install),
        ],
        8 => vec![(minutes(rng, 60), PhoneAct::Fetch)],
        // Shortly before or after the swap expires.
        9 => vec![(225 * 60_000 + minutes(rng, 30), PhoneAct::Install)],
        10 => vec![
            (minutes(rng, 3), PhoneAct::Install),
            (minutes(rng, 3), PhoneAct::Install),
        ],
        11 => vec![(minutes(rng, 60), PhoneAct::InstallUnreported)],
        12 => vec![(minutes(rng, 60), PhoneAct::FetchUnreported)],
        13 | 14 => {
            let fault = [
                InstallFault::WrongDevice,
                InstallFault::DownloadsUsedUp,
                InstallFault::NoRoom,
            ][rng.usize(..3)];
            vec![(minutes(rng, 60), PhoneAct::Fail(fault))]
        }
        _ => Vec::new(),
    }
}
