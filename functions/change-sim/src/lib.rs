//! `GET` and `POST /mvno/{accountId}/changesim/{newSim}`: swaps the SIM of an account and answers the new one with its PINs
//! and PUKs. It touches the table and nothing else.

mod error_code;

use domain::{ActivationId, Caller, Holder, Iccid, Requested, Secret, Sim, SubscriptionId, SwapKind};
use edge::{
    AUDIT, ClockAndRng, Metric, SettingError, Settings, caller, idempotency_key, json_response, log_cause,
    record_activation, span_of_call,
};
use jiff::{SignedDuration, Timestamp};
use lambda_http::http::{HeaderMap, HeaderValue, StatusCode};
use lambda_http::{Body, Request, RequestExt, Response};
use serde::Serialize;
use serde_json::json;
use store::{
    Begun, IdempotencyKey, IdempotencyRecord, RequestedSwap, Store, StoreError, StoredLine, SwapRequest, caller_digest,
};
use tracing::Instrument;

use crate::error_code::ErrorCode;

/// The function with all it needs, built once a process.
#[derive(Debug)]
pub struct ChangeSim {
    store: Store,
    ambient: ClockAndRng,
    repeat_within: SignedDuration,
    lease: SignedDuration,
}

/// Why there is no 200.
enum ChangeSimError {
    Refused(ErrorCode),
    Store(StoreError),
}

impl From<ErrorCode> for ChangeSimError {
    fn from(refusal: ErrorCode) -> Self {
        Self::Refused(refusal)
    }
}

impl From<StoreError> for ChangeSimError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// The SIM that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    /// This card.
    Card(Iccid),
    /// A free eSIM.
    Esim,
    /// A free card that is marked for auto-assignment.
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

/// How often a request decides anew because the account changed under it.
const ROUNDS: usize = 3;

impl ChangeSim {
    /// Reads `REPEAT_WITHIN` and `LEASE`.
    pub fn new(store: Store, ambient: ClockAndRng, settings: &Settings) -> Result<Self, SettingError> {
        Ok(Self {
            store,
            ambient,
            repeat_within: settings.repeat_within()?,
            lease: settings.lease()?,
        })
    }

    /// Answers one call; never fails.
    pub async fn handle(&self, request: Request) -> Response<Body> {
        let answered = async {
            match self.change(&request).await {
                Ok(response) => response,
                Err(ChangeSimError::Refused(refusal)) => refusal.into_response(),
                Err(ChangeSimError::Store(error)) => {
                    log_cause("change of SIM failed", &error);
                    ErrorCode::Internal.into_response()
                }
            }
        };
        answered.instrument(span_of_call(&request)).await
    }

    async fn change(&self, request: &Request) -> Result<Response<Body>, ChangeSimError> {
        let caller = caller(request).map_err(|_| ErrorCode::Role)?;
        if is_prefetch(request.headers()) {
            return Err(ErrorCode::State.into());
        }
        let parameters = request.path_parameters();
        let account = parameters
            .first("accountId")
            .and_then(account)
            .ok_or(ErrorCode::Account)?;
        let key = idempotency_key(request.headers()).map_err(|_| ErrorCode::Key)?;
        let key = key.map(|key| IdempotencyKey::new(&caller, &key));
        let now = self.ambient.now();

        let (mut found, kept) = self.find_account(&caller, &account, key.as_ref(), now).await?;
        // Before anything else is told of the account: whoever has its owner's token may not be its owner.
        refuse_barred(&found)?;
        let wanted = parameters
            .first("newSim")
            .and_then(Wanted::parse)
            .ok_or(ErrorCode::Sim)?;
        let asked = wanted.canonical(&account);
        if let Some(kept) = &kept {
            return self.replay(&caller, &found, kept, &asked).await;
        }
        for _ in 0..ROUNDS {
            refuse_barred(&found)?;
            let barrier = found.line.barrier();
            if barrier.is_none() && wanted == Wanted::Card(found.line.current_sim.clone()) {
                let current = &found.line.current_sim;
                return self.show(&caller, current, &found, None).await;
            }
            if key.is_none()
                && let Some(earlier) = self.repeated(&found, &caller, &asked, now).await?
            {
                let swap = self.store.swap(&earlier.id).await?;
                let swap = swap.ok_or(StoreError::Corrupt("swap"))?.activation;
                let shown = self.show(&caller, &swap.new_sim, &found, Some(&swap.id));
                return Ok(replayed(shown.await?));
            }
            if let Some(barrier) = barrier {
                return Err(ErrorCode::of(&barrier).into());
            }
            if wanted == Wanted::Esim && found.line.email.is_none() {
                return Err(ErrorCode::State.into());
            }
            let ask = SwapRequest {
                caller: &caller,
                line: &found.line,
                kind: wanted.kind(),
                sim: wanted.card(),
                shows_codes: true,
                requested: &wanted.requested(),
                code: None,
                request: &asked,
                key: key.as_ref(),
                lease: self.lease,
                at: now,
            };
            match self.store.begin(&ask, || self.ambient.random()).await? {
                Begun::Accepted(activation) => {
                    record_activation(&activation.id);
                    tracing::info!(kind = ?activation.kind, "swap accepted");
                    Metric::SwapAccepted.record();
                    let sim = self.store.sim_with_secrets(&activation.new_sim).await?;
                    let sim = sim.ok_or(StoreError::Corrupt("newSim"))?;
                    return Ok(shown(&caller, &account, &sim));
                }
                Begun::Replayed(kept) => {
                    let (line, _) = self.find_account(&caller, &account, None, now).await?;
                    refuse_barred(&line)?;
                    return self.replay(&caller, &line, &kept, &asked).await;
                }
                Begun::LineChanged(Some(line)) if caller.may_see_line(&line.line) => found = *line,
                Begun::LineChanged(_) => return Err(ErrorCode::Account.into()),
                Begun::NoSim => {
                    // The last SIM may have gone to this very request, sent twice.
                    let (line, kept) = self.find_account(&caller, &account, key.as_ref(), now).await?;
                    if let Some(kept) = kept {
                        refuse_barred(&line)?;
                        return self.replay(&caller, &line, &kept, &asked).await;
                    }
                    if line.open.is_none() {
                        return Err(ErrorCode::Sim.into());
                    }
                    found = line;
                }
            }
        }
        Err(ErrorCode::Internal.into())
    }

    /// The account, as far as it exists for the caller, and what the key was used for.
    async fn find_account(
        &self,
        caller: &Caller,
        account: &SubscriptionId,
        key: Option<&IdempotencyKey>,
        now: Timestamp,
    ) -> Result<(StoredLine, Option<IdempotencyRecord>), ChangeSimError> {
        let kept = self.store.kept_answer(key, now);
        let (line, kept) = tokio::try_join!(self.store.line(account), kept)?;
        let line = line
            .filter(|line| caller.may_see_line(&line.line))
            .ok_or(ErrorCode::Account)?;
        let kept = self.store.kept_answer_beside(&line, kept, key, now).await?;
        Ok((line, kept))
    }

    /// The swap that this request is a repeat of: the open one, or one that is DONE since a moment.
    async fn repeated<'a>(
        &self,
        found: &'a StoredLine,
        caller: &Caller,
        asked: &str,
        now: Timestamp,
    ) -> Result<Option<&'a RequestedSwap>, StoreError> {
        let recent = found
            .last
            .as_ref()
            .filter(|(_, since)| found.open.is_none() && *since + self.repeat_within > now);
        for earlier in found.open.iter().chain(recent.map(|(swap, _)| swap)) {
            if self.store.is_same_caller(earlier, caller) && self.store.is_same_request(&earlier.request, asked).await?
            {
                return Ok(Some(earlier));
            }
        }
        Ok(None)
    }

    /// The answer to a key that was used before.
    async fn replay(
        &self,
        caller: &Caller,
        found: &StoredLine,
        kept: &IdempotencyRecord,
        asked: &str,
    ) -> Result<Response<Body>, ChangeSimError> {
        if !self.store.is_same_request(&kept.request, asked).await? {
            return Err(ErrorCode::OtherRequest.into());
        }
        let swap = self.store.swap(&kept.activation).await?;
        let swap = swap.ok_or(StoreError::Corrupt("swap"))?.activation;
        let shown = self.show(caller, &swap.new_sim, found, Some(&swap.id));
        Ok(replayed(shown.await?))
    }

    /// Answers a SIM that the swap or the account still holds: nobody is shown a stranger's PUK.
    async fn show(
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
            Ok(shown(caller, &found.line.id, &sim))
        } else {
            Err(ErrorCode::Sim.into())
        }
    }
}

impl Wanted {
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

    /// What makes two requests the same, whichever method and case they came in.
    fn canonical(&self, account: &SubscriptionId) -> String {
        let wanted = match self {
            Self::Card(iccid) => iccid.as_str(),
            Self::Esim => "eSim",
            Self::AutoAssign => "autoAssign",
        };
        json!(["changesim", account.as_str(), wanted]).to_string()
    }
}

/// 24 hex characters in either case.
fn account(text: &str) -> Option<SubscriptionId> {
    let hex = text.len() == 24 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    SubscriptionId::parse(text).ok().filter(|_| hex)
}

/// A browser that only looks ahead must not move a line.
fn is_prefetch(headers: &HeaderMap) -> bool {
    ["sec-purpose", "purpose"].iter().any(|name| {
        let value = headers.get(*name).and_then(|value| value.to_str().ok());
        value.is_some_and(|value| value.to_ascii_lowercase().contains("prefetch"))
    })
}

/// The codes of an account's SIMs are not to be had while it is locked, not active or in porting.
fn refuse_barred(found: &StoredLine) -> Result<(), ErrorCode> {
    found.line.bar().map_or(Ok(()), |bar| Err(ErrorCode::of(&bar)))
}

/// Answers a SIM with its codes, and leaves a line in the log of who was shown which.
fn shown(caller: &Caller, account: &SubscriptionId, sim: &Sim) -> Response<Body> {
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
        &Changed {
            success: true,
            mvno_sim: view,
        },
    )
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Changed<'a> {
    success: bool,
    mvno_sim: SimView<'a>,
}

fn replayed(mut response: Response<Body>) -> Response<Body> {
    response
        .headers_mut()
        .insert("Idempotency-Replayed", HeaderValue::from_static("true"));
    response
}
