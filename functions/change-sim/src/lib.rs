//! `GET` and `POST /mvno/{accountId}/changesim/{newSim}`: begins a swap of an account's SIM and responds with the new
//! SIM, its PINs and PUKs. It uses the table only; fulfil-swap calls the peers.

mod error_code;

use domain::{ActivationId, Caller, Holder, Iccid, Requested, Secret, Sim, SubscriptionId, SwapKind};
use edge::{
    AUDIT, ClockAndRng, Metric, SettingError, Settings, caller, idempotency_key, json_response, log_cause,
    mark_replayed, record_activation, span_of_call,
};
use jiff::{SignedDuration, Timestamp};
use lambda_http::http::{HeaderMap, StatusCode};
use lambda_http::{Body, Request, RequestExt, Response};
use serde::Serialize;
use serde_json::json;
use store::{
    Begun, CanonicalRequest, IdempotencyKey, IdempotencyRecord, RequestedSwap, Store, StoreError, StoredLine,
    SwapRequest, caller_digest,
};
use tracing::Instrument;

use crate::error_code::ErrorCode;

/// The handler with its clients and settings. Built once per process.
#[derive(Debug)]
pub struct ChangeSim {
    store: Store,
    clock: ClockAndRng,
    repeat_within: SignedDuration,
    lease: SignedDuration,
}

/// Why the response is not a 200.
enum ChangeSimError {
    Rejected(ErrorCode),
    Store(StoreError),
}

impl From<ErrorCode> for ChangeSimError {
    fn from(code: ErrorCode) -> Self {
        Self::Rejected(code)
    }
}

impl From<StoreError> for ChangeSimError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// The value of `{newSim}`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum RequestedSim {
    /// The card with this number.
    Card(Iccid),
    /// A free eSIM.
    Esim,
    /// A free card that is marked for automatic assignment.
    AutoAssign,
}

/// A SIM in JSON. It holds secrets, so it has no `Debug`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SimView<'a> {
    sim_number: &'a str,
    imsi: &'a str,
    network: &'a str,
    puk1: &'a str,
    puk2: &'a str,
    pin1: &'a str,
    pin2: &'a str,
    form_factor: &'a str,
}

/// Attempts at most to begin a swap, each after another writer changed the account.
const ROUNDS: usize = 3;

impl ChangeSim {
    /// Reads `REPEAT_WITHIN` and `LEASE`.
    pub fn new(store: Store, clock: ClockAndRng, settings: &Settings) -> Result<Self, SettingError> {
        Ok(Self {
            store,
            clock,
            repeat_within: settings.duration_or("REPEAT_WITHIN", SignedDuration::from_mins(10))?,
            lease: settings.lease()?,
        })
    }

    /// Handles one request. Every error becomes a response.
    pub async fn handle(&self, request: Request) -> Response<Body> {
        let response = async {
            match self.change_sim(&request).await {
                Ok(response) => response,
                Err(ChangeSimError::Rejected(code)) => code.into_response(),
                Err(ChangeSimError::Store(error)) => {
                    log_cause("change of SIM failed", &error);
                    ErrorCode::Internal.into_response()
                }
            }
        };
        response.instrument(span_of_call(&request)).await
    }

    async fn change_sim(&self, request: &Request) -> Result<Response<Body>, ChangeSimError> {
        let caller = caller(request).map_err(|_| ErrorCode::Role)?;
        if is_prefetch(request.headers()) {
            return Err(ErrorCode::State.into());
        }
        let parameters = request.path_parameters();
        let account = parameters
            .first("accountId")
            .and_then(parse_account_id)
            .ok_or(ErrorCode::Account)?;
        let key = idempotency_key(request.headers()).map_err(|_| ErrorCode::Key)?;
        let key = key.map(|key| IdempotencyKey::new(&caller, &key));
        let now = self.clock.now();

        let (mut found, record) = self.find_account(&caller, &account, key.as_ref(), now).await?;
        // Comes before every check that depends on the account's SIM: the token may be in an attacker's hands.
        require_swappable(&found)?;
        let new_sim = parameters
            .first("newSim")
            .and_then(RequestedSim::parse)
            .ok_or(ErrorCode::Sim)?;
        let canonical = new_sim.canonical(&account);
        let canonical = CanonicalRequest {
            text: &canonical,
            code: None,
        };
        if let Some(record) = &record {
            return self.replay(&caller, &found, record, canonical).await;
        }
        for _ in 0..ROUNDS {
            require_swappable(&found)?;
            let blocker = found.line.swap_blocker();
            if blocker.is_none() && new_sim == RequestedSim::Card(found.line.current_sim.clone()) {
                let current = &found.line.current_sim;
                return self.held_sim_response(&caller, current, &found, None).await;
            }
            if key.is_none()
                && let Some(earlier) = self.find_repeated(&found, &caller, canonical, now).await?
            {
                let swap = self.store.swap(&earlier.id).await?;
                let swap = swap.ok_or(StoreError::Corrupt("swap"))?.activation;
                let response = self.held_sim_response(&caller, &swap.new_sim, &found, Some(&swap.id));
                return Ok(mark_replayed(response.await?));
            }
            if let Some(blocker) = blocker {
                return Err(ErrorCode::of(&blocker).into());
            }
            if new_sim == RequestedSim::Esim && found.line.email.is_none() {
                return Err(ErrorCode::State.into());
            }
            let swap_request = SwapRequest {
                caller: &caller,
                line: &found.line,
                kind: new_sim.kind(),
                sim: new_sim.card(),
                shows_codes: true,
                requested: &new_sim.requested(),
                request: canonical,
                key: key.as_ref(),
                lease: self.lease,
                at: now,
            };
            match self.store.begin(&swap_request, || self.clock.random()).await? {
                Begun::Accepted(activation) => {
                    record_activation(&activation.id);
                    tracing::info!(kind = ?activation.kind, "swap accepted");
                    Metric::SwapAccepted.record();
                    let sim = self.store.sim_with_secrets(&activation.new_sim).await?;
                    let sim = sim.ok_or(StoreError::Corrupt("newSim"))?;
                    return Ok(sim_response(&caller, &account, &sim));
                }
                Begun::Replayed(record) => {
                    let (line, _) = self.find_account(&caller, &account, None, now).await?;
                    require_swappable(&line)?;
                    return self.replay(&caller, &line, &record, canonical).await;
                }
                Begun::LineChanged(Some(line)) if caller.may_see_line(&line.line) => found = *line,
                Begun::LineChanged(_) => return Err(ErrorCode::Account.into()),
                Begun::NoSim => return Err(ErrorCode::Sim.into()),
            }
        }
        Err(ErrorCode::Internal.into())
    }

    /// Reads the account and the record of the idempotency key. An account that the caller may not see counts as
    /// missing.
    async fn find_account(
        &self,
        caller: &Caller,
        account: &SubscriptionId,
        key: Option<&IdempotencyKey>,
        now: Timestamp,
    ) -> Result<(StoredLine, Option<IdempotencyRecord>), ChangeSimError> {
        let record = self.store.idempotency_record(key, now);
        let (line, record) = tokio::try_join!(self.store.line(account), record)?;
        let line = line
            .filter(|line| caller.may_see_line(&line.line))
            .ok_or(ErrorCode::Account)?;
        let record = self.store.idempotency_record_for_line(&line, record, key, now).await?;
        Ok((line, record))
    }

    /// Finds the swap that this request repeats: the open one, or one that became DONE less than `REPEAT_WITHIN` ago.
    async fn find_repeated<'a>(
        &self,
        found: &'a StoredLine,
        caller: &Caller,
        canonical: CanonicalRequest<'_>,
        now: Timestamp,
    ) -> Result<Option<&'a RequestedSwap>, StoreError> {
        let recent = found
            .last
            .as_ref()
            .filter(|(_, since)| found.open.is_none() && *since + self.repeat_within > now);
        for earlier in found.open.iter().chain(recent.map(|(swap, _)| swap)) {
            if self.store.is_same_caller(earlier, caller)
                && self
                    .store
                    .is_same_request(&earlier.request, &earlier.id, canonical)
                    .await?
            {
                return Ok(Some(earlier));
            }
        }
        Ok(None)
    }

    /// Responds to a repeated request with the SIM of the swap that its idempotency key began.
    async fn replay(
        &self,
        caller: &Caller,
        found: &StoredLine,
        record: &IdempotencyRecord,
        canonical: CanonicalRequest<'_>,
    ) -> Result<Response<Body>, ChangeSimError> {
        let is_same = self
            .store
            .is_same_request(&record.request, &record.activation, canonical);
        if !is_same.await? {
            return Err(ErrorCode::OtherRequest.into());
        }
        let swap = self.store.swap(&record.activation).await?;
        let swap = swap.ok_or(StoreError::Corrupt("swap"))?.activation;
        let response = self.held_sim_response(caller, &swap.new_sim, found, Some(&swap.id));
        Ok(mark_replayed(response.await?))
    }

    /// Responds with a SIM and its codes, if the swap or the account still holds that SIM. Otherwise it may be another
    /// customer's.
    async fn held_sim_response(
        &self,
        caller: &Caller,
        iccid: &Iccid,
        found: &StoredLine,
        swap: Option<&ActivationId>,
    ) -> Result<Response<Body>, ChangeSimError> {
        let sim = self.store.sim_with_secrets(iccid).await?.ok_or(ErrorCode::Sim)?;
        let held = match &sim.holder {
            Some(Holder::Swap(id)) => swap == Some(id),
            Some(Holder::Line(id)) => *id == found.line.id,
            None => false,
        };
        if held {
            Ok(sim_response(caller, &found.line.id, &sim))
        } else {
            Err(ErrorCode::Sim.into())
        }
    }
}

impl RequestedSim {
    fn parse(text: &str) -> Option<Self> {
        if text.eq_ignore_ascii_case("eSim") {
            Some(Self::Esim)
        } else if text.eq_ignore_ascii_case("autoAssign") {
            Some(Self::AutoAssign)
        } else {
            Iccid::parse(text).ok().map(Self::Card)
        }
    }

    fn kind(&self) -> SwapKind {
        match self {
            Self::Esim => SwapKind::Esim,
            Self::Card(_) | Self::AutoAssign => SwapKind::Physical,
        }
    }

    fn card(&self) -> Option<&Iccid> {
        match self {
            Self::Card(iccid) => Some(iccid),
            Self::Esim | Self::AutoAssign => None,
        }
    }

    fn requested(&self) -> Requested {
        Requested {
            e_sim: (*self == Self::Esim).then_some(true),
            new_sim: self.card().cloned(),
            ..Requested::default()
        }
    }

    /// The canonical form of the request: that of a repeat is equal, whatever its method and letter case.
    fn canonical(&self, account: &SubscriptionId) -> String {
        let new_sim = match self {
            Self::Card(iccid) => iccid.as_str(),
            Self::Esim => "eSim",
            Self::AutoAssign => "autoAssign",
        };
        json!(["changesim", account.as_str(), new_sim]).to_string()
    }
}

/// Parses an account id: 24 hex digits in either case.
fn parse_account_id(text: &str) -> Option<SubscriptionId> {
    let hex = text.len() == 24 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    SubscriptionId::parse(text).ok().filter(|_| hex)
}

/// Whether a browser only prefetches the address. `GET` begins a swap too, and a prefetch must not.
fn is_prefetch(headers: &HeaderMap) -> bool {
    ["sec-purpose", "purpose"].iter().any(|name| {
        let value = headers.get(*name).and_then(|value| value.to_str().ok());
        value.is_some_and(|value| value.to_ascii_lowercase().contains("prefetch"))
    })
}

/// Rejects an account that cannot be swapped (locked, porting or not ACTIVE). Its SIM codes are not shown either.
fn require_swappable(found: &StoredLine) -> Result<(), ErrorCode> {
    found
        .line
        .line_blocker()
        .map_or(Ok(()), |blocker| Err(ErrorCode::of(&blocker)))
}

/// Builds the response with a SIM and its codes, and logs which caller was shown the codes of which SIM.
fn sim_response(caller: &Caller, account: &SubscriptionId, sim: &Sim) -> Response<Body> {
    tracing::info!(
        target: AUDIT,
        role = caller.role(),
        caller = caller_digest(caller),
        %account,
        iccid = %sim.iccid,
        "the codes of a SIM are shown"
    );
    let secret = |secret: &'_ Option<Secret>| secret.as_ref().map_or("", Secret::expose).to_owned();
    let [puk1, puk2, pin1, pin2] = [&sim.puk1, &sim.puk2, &sim.pin1, &sim.pin2].map(secret);
    let view = SimView {
        sim_number: sim.iccid.as_str(),
        imsi: sim.imsi.as_ref().map_or("", |imsi| imsi.as_str()),
        network: sim.network.as_str(),
        puk1: &puk1,
        puk2: &puk2,
        pin1: &pin1,
        pin2: &pin2,
        form_factor: sim.form_factor.as_str(),
    };
    json_response(
        StatusCode::OK,
        &ChangeSimResponse {
            success: true,
            mvno_sim: view,
        },
    )
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ChangeSimResponse<'a> {
    success: bool,
    mvno_sim: SimView<'a>,
}
