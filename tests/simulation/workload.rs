//! Callers and customers: what they ask, as API Gateway hands it on, and what their phones do. When they do it is in
//! `world`.

use fastrand::Rng;
use serde_json::{Value, json};

use crate::stock::{FREE, LINES, StockLine};

/// One request, which may be sent several times.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Request {
    /// The function.
    pub(crate) function: &'static str,
    /// The caller: role, subject, customer or reseller.
    caller: (&'static str, &'static str, &'static str),
    method: &'static str,
    path: String,
    query: String,
    /// `accountId` and `newSim` of the "account" dialect.
    parameters: Option<[String; 2]>,
    body: Option<Value>,
    pub(crate) key: Option<String>,
    /// The confirmation code in it.
    pub(crate) code: Option<String>,
    /// The line whose newest swap it is about, whichever that is when it is sent.
    pub(crate) about: Option<&'static str>,
    /// What an operator makes of a line.
    pub(crate) bar: Option<(&'static str, Bar)>,
}

/// How a line is kept on its SIM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Bar {
    Locked,
    Blocked,
    Porting,
    /// Not at all.
    Lifted,
    /// Nor by state or porting; the lock is not spoken of.
    Other,
}

impl Bar {
    pub(crate) const ALL: [Self; 3] = [Self::Locked, Self::Blocked, Self::Porting];
}

/// Where a thief wants the QR code.
pub(crate) const THIEF: &str = "thief@mail.example";

const CALLERS: [(&str, &str, &str); 6] = [
    ("OWNER", "anna", "C-100"),
    ("OWNER", "dorte", "C-300"),
    ("RESELLER", "shop", "R-10"),
    ("ADMIN", "desk", ""),
    ("OWNER", "stranger", "C-999"),
    // Has a token of the customer of the first two lines.
    ("OWNER", "thief", "C-100"),
];

/// What makes a confirmation code findable: the code of request `n`, which nothing else looks like.
pub(crate) fn code(n: usize) -> String {
    format!("Zq7KwV{n:04}")
}

impl Request {
    /// A request of any kind, the `n`th of its world.
    pub(crate) fn any(rng: &mut Rng, n: usize) -> Self {
        let line = &LINES[rng.usize(..LINES.len())];
        let caller = match rng.u8(..10) {
            0..6 => CALLERS[usize::from(line.customer == "C-300")],
            6 => CALLERS[2],
            7 | 8 => CALLERS[3],
            _ => CALLERS[4],
        };
        let key = rng.bool().then(|| format!("key-{}", rng.u8(..3)));
        let made = match rng.u8(..17) {
            10 | 11 => Self::manage(line, "CancelActivation"),
            12 => Self::manage(line, "ResendEsim"),
            13 => return Self::bar(line, Bar::ALL[rng.usize(..3)]),
            14 => return Self::bar(line, Bar::Other),
            15 | 16 => return Self::of_thief(&LINES[rng.usize(..2)], rng.usize(..4)),
            0..5 => Self::esim(line, rng.bool(), n),
            5 | 6 => Self::card(line, FREE[rng.usize(..FREE.len())].0),
            7 | 8 => {
                let wanted = ["eSim", "autoAssign", FREE[rng.usize(..FREE.len())].0];
                Self::change(line, wanted[rng.usize(..3)])
            }
            _ => Self::query(line),
        };
        Self { caller, key, ..made }
    }

    /// An eSIM swap in the "subscription" dialect.
    pub(crate) fn esim(line: &StockLine, by_phone: bool, n: usize) -> Self {
        let (name, value) = if by_phone {
            ("phoneNumber", line.phone)
        } else {
            ("subscriptionId", line.id)
        };
        let code = code(n);
        let email = format!("mail{n}@asked.example");
        let body = json!({name: value, "eSim": true, "email": email, "confirmationCode": code});
        Self::submit(line, body, Some(code))
    }

    /// A card swap in the "subscription" dialect.
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
            about: None,
            bar: None,
        }
    }

    /// A swap in the "account" dialect.
    pub(crate) fn change(line: &StockLine, wanted: &str) -> Self {
        Self {
            function: "change-sim",
            caller: CALLERS[usize::from(line.customer == "C-300")],
            method: "POST",
            path: format!("/mvno/{}/changesim/{wanted}", line.id),
            query: String::new(),
            parameters: Some([line.id.to_owned(), wanted.to_owned()]),
            body: None,
            key: None,
            code: None,
            about: None,
            bar: None,
        }
    }

    /// A wish about the newest swap of a line: `CancelActivation` or `ResendEsim`.
    pub(crate) fn manage(line: &StockLine, wish: &str) -> Self {
        Self {
            function: "manage-swap",
            caller: CALLERS[usize::from(line.customer == "C-300")],
            method: "POST",
            path: format!("/api/{wish}"),
            query: String::new(),
            parameters: None,
            body: None,
            key: None,
            code: None,
            about: Some(line.id),
            bar: None,
        }
    }

    /// What a thief with the customer's token asks: the QR code elsewhere, the codes of the SIM in use or of a new one, a
    /// look at what others gave.
    pub(crate) fn of_thief(line: &StockLine, what: usize) -> Self {
        let made = match what {
            0 => Self {
                body: Some(json!({"email": THIEF})),
                ..Self::manage(line, "ResendEsim")
            },
            1 => Self::change(line, line.sim),
            2 => Self::change(line, "eSim"),
            _ => Self::query(line),
        };
        Self {
            caller: CALLERS[5],
            ..made
        }
    }

    /// An operator imports the line so.
    pub(crate) fn bar(line: &StockLine, bar: Bar) -> Self {
        Self {
            function: "import",
            bar: Some((line.id, bar)),
            ..Self::query(line)
        }
    }

    /// Who asks.
    pub(crate) fn caller(&self) -> &'static str {
        self.caller.1
    }

    /// The account whose codes it would see, and whether the service chooses the SIM.
    pub(crate) fn wants_codes(&self) -> Option<(&str, bool)> {
        let [account, wanted] = self.parameters.as_ref()?;
        Some((account, ["eSim", "autoAssign"].contains(&wanted.as_str())))
    }

    /// The swap that it would cancel.
    pub(crate) fn cancels(&self) -> Option<&str> {
        let cancels = self.path.ends_with("/CancelActivation");
        self.query.strip_prefix("id=").filter(|_| cancels)
    }

    /// The same about this swap.
    pub(crate) fn about(&self, swap: &str) -> Self {
        Self {
            query: format!("id={swap}"),
            ..self.clone()
        }
    }

    /// A look at a line's swaps.
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
            about: None,
            bar: None,
        }
    }

    /// The same with an idempotency key.
    pub(crate) fn with_key(self, key: &str) -> Self {
        Self {
            key: Some(key.to_owned()),
            ..self
        }
    }

    /// What makes two requests with a key one: the caller and the key.
    pub(crate) fn identity(&self) -> Option<String> {
        let key = self.key.as_ref()?;
        Some(format!("{:?} {key}", self.caller))
    }

    /// Whether its caller may see none of the lines.
    pub(crate) fn is_of_stranger(&self) -> bool {
        self.caller == CALLERS[4]
    }

    /// The event.
    pub(crate) fn event(&self) -> Value {
        if let Some((line, bar)) = self.bar {
            return json!({
                "line": line,
                "state": if bar == Bar::Blocked { "BLOCKED" } else { "ACTIVE" },
                "porting": bar == Bar::Porting,
                "locked": (bar != Bar::Other).then_some(bar == Bar::Locked),
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
        if let Some([account, wanted]) = &self.parameters {
            event["pathParameters"] = json!({"accountId": account, "newSim": wanted});
        }
        if let Some((name, value)) = self.query.split_once('=') {
            event["queryStringParameters"] = json!({name: value});
        }
        event
    }

    /// In a few words, for the trace.
    pub(crate) fn told(&self) -> String {
        if let Some((line, bar)) = self.bar {
            return format!("import {line} {bar:?}");
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

/// An event of API Gateway without a caller.
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

/// What a phone does when its customer has the mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// Installs with the right code.
    Install,
    /// Fetches the profile, and stops there.
    Fetch,
    /// Tries with a wrong code.
    Mistype,
}

/// A customer's acts with one mail, each so many milliseconds after it came.
pub(crate) fn acts(rng: &mut Rng) -> Vec<(u64, Act)> {
    let minutes = |rng: &mut Rng, most: u64| rng.u64(1_000..=most * 60_000);
    match rng.u8(..12) {
        0..5 => vec![(minutes(rng, 30), Act::Install)],
        5 => vec![
            (minutes(rng, 2), Act::Mistype),
            (minutes(rng, 40) + 120_000, Act::Install),
        ],
        6 => (0..6).map(|_| (minutes(rng, 60), Act::Mistype)).collect(),
        7 => vec![
            (minutes(rng, 10), Act::Fetch),
            (minutes(rng, 120) + 600_000, Act::Install),
        ],
        8 => vec![(minutes(rng, 60), Act::Fetch)],
        // Shortly before or after it expires.
        9 => vec![(225 * 60_000 + minutes(rng, 30), Act::Install)],
        10 => vec![(minutes(rng, 3), Act::Install), (minutes(rng, 3), Act::Install)],
        _ => Vec::new(),
    }
}
