//! `POST /api/SimSwapSubscription`: takes a swap, or says why not. It touches the table and nothing else.

mod request;

use domain::{Activation, ActivationId, Caller, SwapKind};
use edge::{
    ApiError, ClockAndRng, ErrorResponse, FieldError, Metric, Presenter, SettingError, Settings, caller, json_response,
    read_body, record_activation, span_of_call,
};
use jiff::{SignedDuration, Timestamp};
use lambda_http::http::{HeaderValue, StatusCode};
use lambda_http::{Body, Request, Response};
use store::{Begun, IdempotencyKey, IdempotencyRecord, PhoneEntry, Store, StoreError, StoredLine, SwapRequest};
use tracing::Instrument;

use crate::request::{Swap, Target};

/// The function with all it needs, built once a process.
#[derive(Debug)]
pub struct SubmitSwap {
    store: Store,
    ambient: ClockAndRng,
    presenter: Presenter,
    lease: SignedDuration,
}

/// How often a submit decides anew because the line changed under it.
const ROUNDS: usize = 3;

impl SubmitSwap {
    /// Reads `TIME_ZONE`, `CONFIRMATION_CODE_ECHO`, `CODE_KEPT` and `LEASE`.
    pub fn new(store: Store, ambient: ClockAndRng, settings: &Settings) -> Result<Self, SettingError> {
        Ok(Self {
            store,
            ambient,
            presenter: settings.presenter()?,
            lease: settings.lease()?,
        })
    }

    /// Answers one call; never fails.
    pub async fn handle(&self, request: Request) -> Response<Body> {
        let answered = async {
            let submitted = self.submit(&request).await;
            submitted.unwrap_or_else(|failure| failure.into_response("submit failed"))
        };
        answered.instrument(span_of_call(&request)).await
    }

    async fn submit(&self, request: &Request) -> Result<Response<Body>, ApiError> {
        let caller = caller(request).map_err(|_| ErrorResponse::forbidden())?;
        let (swap, key) = request::parse(read_body(request)?, request.headers())?;
        let key = key.map(|key| IdempotencyKey::new(&caller, &key));
        let now = self.ambient.now();

        let (mut found, kept) = self.find_line(&caller, &swap.target, key.as_ref(), now).await?;
        let asked = swap.canonical(&found.line.id);
        if let Some(kept) = kept {
            return self.replay_first(&caller, &kept, &asked, now).await;
        }
        for _ in 0..ROUNDS {
            if key.is_none()
                && let Some(open) = &found.open
                && self.store.is_same_caller(open, &caller)
                && self.store.is_same_request(&open.request, &asked).await?
            {
                return self.replay_open(&caller, &open.id, now).await;
            }
            if let Some(barrier) = found.line.barrier() {
                return Err(ErrorResponse::barrier(&barrier).into());
            }
            let ask = SwapRequest {
                caller: &caller,
                line: &found.line,
                kind: swap.kind,
                sim: match swap.kind {
                    SwapKind::Esim => None,
                    SwapKind::Physical => swap.requested.new_sim.as_ref(),
                },
                shows_codes: false,
                requested: &swap.requested,
                code: swap.code.as_ref(),
                request: &asked,
                key: key.as_ref(),
                lease: self.lease,
                at: now,
            };
            match self.store.begin(&ask, || self.ambient.random()).await? {
                Begun::Accepted(activation) => return Ok(self.accepted(&activation, &swap, now)),
                Begun::Replayed(kept) => {
                    return self.replay_first(&caller, &kept, &asked, now).await;
                }
                Begun::NoSim => {
                    // The last SIM may have gone to this very request, sent twice.
                    let (line, kept) = self.find_line(&caller, &swap.target, key.as_ref(), now).await?;
                    if let Some(kept) = kept {
                        return self.replay_first(&caller, &kept, &asked, now).await;
                    }
                    if line.open.is_none() {
                        return Err(ErrorResponse::not_found(swap.sim_field()).into());
                    }
                    found = line;
                }
                Begun::LineChanged(Some(line)) if caller.may_see_line(&line.line) => found = *line,
                Begun::LineChanged(_) => {
                    return Err(ErrorResponse::not_found(swap.target.field()).into());
                }
            }
        }
        Err(ErrorResponse::unavailable().into())
    }

    /// The line, as far as it exists for the caller, and what the key was used for. What is a stranger's and what is
    /// not there take the same reads and get the same answer.
    async fn find_line(
        &self,
        caller: &Caller,
        target: &Target,
        key: Option<&IdempotencyKey>,
        now: Timestamp,
    ) -> Result<(StoredLine, Option<IdempotencyRecord>), ApiError> {
        let kept = self.store.kept_answer(key, now);
        let visible_line = |line: Option<StoredLine>, field| {
            line.filter(|line| caller.may_see_line(&line.line))
                .ok_or(ErrorResponse::not_found(field))
        };
        let visible_entry = |entry: Option<PhoneEntry>| {
            entry
                .filter(|entry| caller.may_see(&entry.customer, entry.reseller.as_deref()))
                .ok_or(ErrorResponse::not_found("phoneNumber"))
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
                let (line, entry, kept) = tokio::try_join!(self.store.line(id), self.store.phone(phone), kept)?;
                let line = visible_line(line, "subscriptionId")?;
                if visible_entry(entry)?.subscription != line.line.id {
                    let fault = FieldError::invalid("phoneNumber", "must be the number of 'subscriptionId'");
                    return Err(ErrorResponse::invalid(vec![fault]).into());
                }
                (line, kept)
            }
        };
        let kept = self.store.kept_answer_beside(&line, kept, key, now).await?;
        Ok((line, kept))
    }

    fn accepted(&self, activation: &Activation, swap: &Swap, now: Timestamp) -> Response<Body> {
        record_activation(&activation.id);
        tracing::info!(kind = ?activation.kind, "swap accepted");
        Metric::SwapAccepted.record();
        let code = swap
            .code
            .as_ref()
            .filter(|_| self.presenter.echoes_code(activation, now));
        json_response(StatusCode::OK, &self.presenter.first_view(activation, code))
    }

    /// The first answer again, byte for byte.
    async fn replay_first(
        &self,
        caller: &Caller,
        kept: &IdempotencyRecord,
        asked: &str,
        now: Timestamp,
    ) -> Result<Response<Body>, ApiError> {
        if !self.store.is_same_request(&kept.request, asked).await? {
            return Err(ErrorResponse::idempotency_mismatch().into());
        }
        record_activation(&kept.activation);
        let stored = self.store.swap(&kept.activation).await?;
        let stored = stored.ok_or(StoreError::Corrupt("swap"))?;
        let view = self.presenter.show_first(&self.store, &stored, caller, now);
        let view = view.await?;
        Ok(replayed(json_response(StatusCode::OK, &view)))
    }

    /// The open swap as it is now.
    async fn replay_open(
        &self,
        caller: &Caller,
        open: &ActivationId,
        now: Timestamp,
    ) -> Result<Response<Body>, ApiError> {
        record_activation(open);
        let stored = self.store.swap_with_deliveries(open).await?;
        let stored = stored.ok_or(StoreError::Corrupt("swap"))?;
        let view = self.presenter.show(&self.store, &stored, caller, now);
        let view = view.await?;
        Ok(replayed(json_response(StatusCode::OK, &view)))
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
