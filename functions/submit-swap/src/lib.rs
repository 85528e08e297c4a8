//! `POST /api/SimSwapSubscription`: begins a swap. It uses the table only; fulfil-swap calls the peers. Not here:
//! parsing the request (`request.rs`).

mod request;

use domain::{Activation, ActivationId, Caller, SwapKind};
use edge::{
    ApiError, ClockAndRng, ErrorResponse, FieldError, Metric, Presenter, SettingError, Settings, caller, json_response,
    mark_replayed, read_body, record_activation, span_of_call,
};
use jiff::{SignedDuration, Timestamp};
use lambda_http::http::StatusCode;
use lambda_http::{Body, Request, Response};
use store::{
    Begun, CanonicalRequest, IdempotencyKey, IdempotencyRecord, PhoneEntry, Store, StoreError, StoredLine, SwapRequest,
};
use tracing::Instrument;

use crate::request::{Swap, Target};

/// The handler with its clients and settings. Built once per process.
#[derive(Debug)]
pub struct SubmitSwap {
    store: Store,
    clock: ClockAndRng,
    presenter: Presenter,
    lease: SignedDuration,
}

/// Attempts at most to begin a swap, each after another writer changed the line.
const ROUNDS: usize = 3;

impl SubmitSwap {
    /// Reads `TIME_ZONE`, `CONFIRMATION_CODE_ECHO`, `CODE_KEPT` and `LEASE`.
    pub fn new(store: Store, clock: ClockAndRng, settings: &Settings) -> Result<Self, SettingError> {
        Ok(Self {
            store,
            clock,
            presenter: settings.presenter()?,
            lease: settings.lease()?,
        })
    }

    /// Handles one request. Every error becomes a response.
    pub async fn handle(&self, request: Request) -> Response<Body> {
        let response = async {
            let result = self.submit(&request).await;
            result.unwrap_or_else(|error| error.into_response("submit failed"))
        };
        response.instrument(span_of_call(&request)).await
    }

    async fn submit(&self, request: &Request) -> Result<Response<Body>, ApiError> {
        let caller = caller(request).map_err(|_| ErrorResponse::forbidden())?;
        let (swap, key) = request::parse(read_body(request)?, request.headers())?;
        let key = key.map(|key| IdempotencyKey::new(&caller, &key));
        let now = self.clock.now();

        let (mut found, record) = self.find_line(&caller, &swap.target, key.as_ref(), now).await?;
        let canonical = swap.canonical(&found.line.id);
        let canonical = CanonicalRequest {
            text: &canonical,
            code: swap.code.as_ref(),
        };
        if let Some(record) = record {
            return self.replay_first(&caller, &record, canonical, now).await;
        }
        for _ in 0..ROUNDS {
            if key.is_none()
                && let Some(open) = &found.open
                && self.store.is_same_caller(open, &caller)
                && self.store.is_same_request(&open.request, &open.id, canonical).await?
            {
                return self.replay_open(&caller, &open.id, now).await;
            }
            if let Some(blocker) = found.line.swap_blocker() {
                return Err(ErrorResponse::swap_blocked(&blocker).into());
            }
            let swap_request = SwapRequest {
                caller: &caller,
                line: &found.line,
                kind: swap.kind,
                sim: match swap.kind {
                    SwapKind::Esim => None,
                    SwapKind::Physical => swap.requested.new_sim.as_ref(),
                },
                shows_codes: false,
                requested: &swap.requested,
                request: canonical,
                key: key.as_ref(),
                lease: self.lease,
                at: now,
            };
            match self.store.begin(&swap_request, || self.clock.random()).await? {
                Begun::Accepted(activation) => return Ok(self.accepted(&activation, &swap, now)),
                Begun::Replayed(record) => {
                    return self.replay_first(&caller, &record, canonical, now).await;
                }
                Begun::NoSim => return Err(swap.no_sim().into()),
                Begun::LineChanged(Some(line)) if caller.may_see_line(&line.line) => found = *line,
                Begun::LineChanged(_) => {
                    return Err(ErrorResponse::not_found(swap.target.field()).into());
                }
            }
        }
        Err(ErrorResponse::unavailable().into())
    }

    /// Reads the line and the record of the idempotency key. A line that the caller may not see takes the same reads
    /// and gets the same response as one that does not exist.
    async fn find_line(
        &self,
        caller: &Caller,
        target: &Target,
        key: Option<&IdempotencyKey>,
        now: Timestamp,
    ) -> Result<(StoredLine, Option<IdempotencyRecord>), ApiError> {
        let record = self.store.idempotency_record(key, now);
        let visible_line = |line: Option<StoredLine>, field| {
            line.filter(|line| caller.may_see_line(&line.line))
                .ok_or(ErrorResponse::not_found(field))
        };
        let visible_entry = |entry: Option<PhoneEntry>| {
            entry
                .filter(|entry| caller.may_see(&entry.customer, entry.reseller.as_deref()))
                .ok_or(ErrorResponse::not_found("phoneNumber"))
        };
        let (line, record) = match target {
            Target::Id(id) => {
                let (line, record) = tokio::try_join!(self.store.line(id), record)?;
                (visible_line(line, "subscriptionId")?, record)
            }
            Target::Phone(phone) => {
                let (entry, record) = tokio::try_join!(self.store.phone(phone), record)?;
                let line = self.store.line(&visible_entry(entry)?.subscription).await?;
                (visible_line(line, "phoneNumber")?, record)
            }
            Target::Both(id, phone) => {
                let (line, entry, record) = tokio::try_join!(self.store.line(id), self.store.phone(phone), record)?;
                let line = visible_line(line, "subscriptionId")?;
                if visible_entry(entry)?.subscription != line.line.id {
                    let fault = FieldError::invalid("phoneNumber", "must be the number of 'subscriptionId'");
                    return Err(ErrorResponse::invalid(vec![fault]).into());
                }
                (line, record)
            }
        };
        let record = self.store.idempotency_record_for_line(&line, record, key, now).await?;
        Ok((line, record))
    }

    /// Logs and counts an accepted swap, and builds its response.
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

    /// Responds to a request with a used idempotency key. A repeat gets the first response again, byte for byte.
    async fn replay_first(
        &self,
        caller: &Caller,
        record: &IdempotencyRecord,
        canonical: CanonicalRequest<'_>,
        now: Timestamp,
    ) -> Result<Response<Body>, ApiError> {
        let is_same = self
            .store
            .is_same_request(&record.request, &record.activation, canonical);
        if !is_same.await? {
            return Err(ErrorResponse::idempotency_mismatch().into());
        }
        record_activation(&record.activation);
        let stored = self.store.swap(&record.activation).await?;
        let stored = stored.ok_or(StoreError::Corrupt("swap"))?;
        let view = self.presenter.show_first(&self.store, &stored, caller, now);
        let view = view.await?;
        Ok(mark_replayed(json_response(StatusCode::OK, &view)))
    }

    /// Responds to a repeat without an idempotency key with the open swap in its current state.
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
        Ok(mark_replayed(json_response(StatusCode::OK, &view)))
    }
}

impl Target {
    /// The field that the error names if there is no such line.
    fn field(&self) -> &'static str {
        match self {
            Self::Phone(_) => "phoneNumber",
            Self::Id(_) | Self::Both(..) => "subscriptionId",
        }
    }
}
