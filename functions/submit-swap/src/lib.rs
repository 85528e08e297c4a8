//! `POST /api/SimSwapSubscription`: takes a swap, or says why not. It touches the table and nothing else.

mod request;

use domain::{Activation, ActivationId, Caller, ConfirmationCode, Kind};
use edge::{
    Ambient, Fault, Presenter, Refusal, SettingError, Settings, answer, caller, log_cause,
    read_body,
};
use jiff::Timestamp;
use lambda_http::http::{HeaderValue, StatusCode};
use lambda_http::{Body, Request, Response};
use store::{
    Ask, Begun, IdempotencyKey, KeptAnswer, PhoneEntry, Store, StoreError, StoredLine, StoredSwap,
};

use crate::request::{Swap, Target};

/// The function with all it needs, built once a process.
#[derive(Debug)]
pub struct SubmitSwap {
    store: Store,
    ambient: Ambient,
    presenter: Presenter,
}

/// Why there is no 200.
enum Failure {
    Refused(Refusal),
    Store(StoreError),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// How often a submit decides anew because the line changed under it.
const ROUNDS: usize = 3;

impl SubmitSwap {
    /// Reads `TIME_ZONE`, `CONFIRMATION_CODE_ECHO` and `CODE_KEPT`.
    pub fn new(store: Store, ambient: Ambient, settings: &Settings) -> Result<Self, SettingError> {
        let presenter = settings.presenter()?;
        Ok(Self {
            store,
            ambient,
            presenter,
        })
    }

    /// Answers one call; never fails.
    pub async fn handle(&self, request: Request) -> Response<Body> {
        match self.submit(&request).await {
            Ok(response) => response,
            Err(Failure::Refused(refusal)) => refusal.into_response(),
            Err(Failure::Store(error)) => {
                log_cause("submit failed", &error);
                match error {
                    StoreError::Unavailable(_) => Refusal::unavailable().into_response(),
                    _ => Refusal::internal().into_response(),
                }
            }
        }
    }

    async fn submit(&self, request: &Request) -> Result<Response<Body>, Failure> {
        let caller = caller(request).map_err(|_| Refusal::forbidden())?;
        let (swap, key) = request::parse(read_body(request)?, request.headers())?;
        let key = key.map(|key| IdempotencyKey::new(&caller, &key));
        let now = self.ambient.now();

        let (mut found, kept) = self
            .find_line(&caller, &swap.target, key.as_ref(), now)
            .await?;
        let asked = swap.canonical(&found.line.id);
        if let Some(kept) = kept {
            return self.replay_first(&kept, &asked, now).await;
        }
        for _ in 0..ROUNDS {
            if key.is_none()
                && let Some(open) = &found.open
                && self.store.is_same_caller(open, &caller)
                && self.store.is_same_request(&open.request, &asked).await?
            {
                return self.replay_open(&open.id, now).await;
            }
            if let Some(barrier) = found.line.barrier() {
                return Err(Refusal::barrier(&barrier).into());
            }
            let ask = Ask {
                caller: &caller,
                line: &found.line,
                kind: swap.kind,
                sim: match swap.kind {
                    Kind::Esim => None,
                    Kind::Physical => swap.requested.new_sim.as_ref(),
                },
                requested: &swap.requested,
                code: swap.code.as_ref(),
                request: &asked,
                key: key.as_ref(),
                at: now,
            };
            match self.store.begin(&ask, || self.ambient.random()).await? {
                Begun::Accepted(activation) => return Ok(self.accepted(&activation, &swap, now)),
                Begun::Kept(kept) => return self.replay_first(&kept, &asked, now).await,
                Begun::NoSim => {
                    // The last SIM may have gone to this very request, sent twice.
                    let (line, kept) = self
                        .find_line(&caller, &swap.target, key.as_ref(), now)
                        .await?;
                    if let Some(kept) = kept {
                        return self.replay_first(&kept, &asked, now).await;
                    }
                    if line.open.is_none() {
                        return Err(Refusal::not_found(swap.sim_field()).into());
                    }
                    found = line;
                }
                Begun::LineChanged(Some(line)) if caller.may_see_line(&line.line) => found = *line,
                Begun::LineChanged(_) => {
                    return Err(Refusal::not_found(swap.target.field()).into());
                }
            }
        }
        Err(Refusal::unavailable().into())
    }

    /// The line, as far as it exists for the caller, and what the key was used for. What is a stranger's and what is
    /// not there take the same reads and get the same answer.
    async fn find_line(
        &self,
        caller: &Caller,
        target: &Target,
        key: Option<&IdempotencyKey>,
        now: Timestamp,
    ) -> Result<(StoredLine, Option<KeptAnswer>), Failure> {
        let kept = self.store.kept_answer(key, now);
        let visible_line = |line: Option<StoredLine>, field| {
            line.filter(|line| caller.may_see_line(&line.line))
                .ok_or(Refusal::not_found(field))
        };
        let visible_entry = |entry: Option<PhoneEntry>| {
            entry
                .filter(|entry| caller.may_see(&entry.customer, entry.reseller.as_deref()))
                .ok_or(Refusal::not_found("phoneNumber"))
        };
        let (line, kept) = match target {
            Target::Id(id) => {
                let (line, kept) = tokio::try_join!(self.store.line(id), kept)?;
                (visible_line(line, "subscriptionId")?, kept)
            }
            Target::Phone(phone) => {
                let (entry, kept) = tokio::try_join!(self.store.phone(phone), kept)?;
                let line = self.store.line(&visible_entry(entry)?.subscription).await?;
                (visible_line(line, "phoneNumber")?, kept)
            }
            Target::Both(id, phone) => {
                let (line, entry, kept) =
                    tokio::try_join!(self.store.line(id), self.store.phone(phone), kept)?;
                let line = visible_line(line, "subscriptionId")?;
                if visible_entry(entry)?.subscription != line.line.id {
                    let fault =
                        Fault::invalid("phoneNumber", "must be the number of 'subscriptionId'");
                    return Err(Refusal::invalid(vec![fault]).into());
                }
                (line, kept)
            }
        };
        let kept = self.store.kept_answer_beside(&line, kept, key, now).await?;
        Ok((line, kept))
    }

    fn accepted(&self, activation: &Activation, swap: &Swap, now: Timestamp) -> Response<Body> {
        tracing::info!(activation = %activation.id, kind = ?activation.kind, "swap accepted");
        let code = swap
            .code
            .as_ref()
            .filter(|_| self.presenter.reveals_code(activation, now));
        answer(StatusCode::OK, &self.presenter.first_view(activation, code))
    }

    /// The first answer again, byte for byte.
    async fn replay_first(
        &self,
        kept: &KeptAnswer,
        asked: &str,
        now: Timestamp,
    ) -> Result<Response<Body>, Failure> {
        if !self.store.is_same_request(&kept.request, asked).await? {
            return Err(Refusal::idempotency_mismatch().into());
        }
        let stored = self.store.swap(&kept.activation).await?;
        let stored = stored.ok_or(StoreError::Corrupt("swap"))?;
        let code = self.code_to_show(&stored, now).await?;
        Ok(replayed(answer(
            StatusCode::OK,
            &self.presenter.first_view(&stored.activation, code.as_ref()),
        )))
    }

    /// The open swap as it is now.
    async fn replay_open(
        &self,
        open: &ActivationId,
        now: Timestamp,
    ) -> Result<Response<Body>, Failure> {
        let stored = self.store.swap_with_deliveries(open).await?;
        let stored = stored.ok_or(StoreError::Corrupt("swap"))?;
        let code = self.code_to_show(&stored, now).await?;
        let view = self
            .presenter
            .view(&stored.activation, stored.deliveries.last(), code.as_ref());
        Ok(replayed(answer(StatusCode::OK, &view)))
    }

    async fn code_to_show(
        &self,
        stored: &StoredSwap,
        now: Timestamp,
    ) -> Result<Option<ConfirmationCode>, StoreError> {
        if self.presenter.reveals_code(&stored.activation, now) {
            self.store.confirmation_code(stored).await
        } else {
            Ok(None)
        }
    }
}

impl Target {
    /// The field to blame when there is no such line.
    fn field(&self) -> &'static str {
        match self {
            Self::Phone(_) => "phoneNumber",
            Self::Id(_) | Self::Both(..) => "subscriptionId",
        }
    }
}

fn replayed(mut response: Response<Body>) -> Response<Body> {
    response
        .headers_mut()
        .insert("Idempotency-Replayed", HeaderValue::from_static("true"));
    response
}
