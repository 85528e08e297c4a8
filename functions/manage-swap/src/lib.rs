//! `POST /api/CancelActivation` and `POST /api/ResendEsim`: cancels a swap, or resends its QR code. It uses the table
//! only; fulfil-swap and deliver-esim carry out the rest.

use std::time::Duration;

use domain::{
    Activation, ActivationId, Caller, Deadlines, EmailAddress, Fact, Phase, Rejected, ResendRefused, SwapKind, apply,
    resend,
};
use edge::{
    ApiError, ClockAndRng, ErrorResponse, FieldError, Presenter, SettingError, Settings, caller, json_response,
    no_such_route, read_optional_body, record_activation, route, span_of_call,
};
use jiff::{SignedDuration, Timestamp};
use lambda_http::http::StatusCode;
use lambda_http::{Body, Request, RequestExt, Response};
use store::{Saved, Store, StoreError, StoredSwap, caller_digest, retry_on_conflict};
use tracing::Instrument;

/// The handler with its clients and settings. Built once per process.
#[derive(Debug)]
pub struct ManageSwap {
    store: Store,
    clock: ClockAndRng,
    presenter: Presenter,
    deadlines: Deadlines,
    cancel_wait: SignedDuration,
}

/// Time between two reads of a swap that is being cancelled.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

const CANCEL_TOO_LATE: &str = "The swap cannot be cancelled any more.";
const RESEND_TOO_LATE: &str = "The eSIM is installed, or the swap ends.";

impl ManageSwap {
    /// Reads the deadlines, the settings of the presenter, and `CANCEL_WAIT`.
    pub fn new(store: Store, clock: ClockAndRng, settings: &Settings) -> Result<Self, SettingError> {
        Ok(Self {
            store,
            clock,
            presenter: settings.presenter()?,
            deadlines: settings.deadlines()?,
            cancel_wait: settings.duration_or("CANCEL_WAIT", SignedDuration::from_secs(5))?,
        })
    }

    /// Handles one request. Every error becomes a response.
    pub async fn handle(&self, request: Request) -> Response<Body> {
        let response = async {
            let (result, failure) = match route(&request) {
                "/api/CancelActivation" => (self.cancel(&request).await, "cancel failed"),
                "/api/ResendEsim" => (self.resend(&request).await, "resend failed"),
                _ => return no_such_route(),
            };
            result.unwrap_or_else(|error| error.into_response(failure))
        };
        response.instrument(span_of_call(&request)).await
    }

    async fn cancel(&self, request: &Request) -> Result<Response<Body>, ApiError> {
        let caller = caller(request).map_err(|_| ErrorResponse::forbidden())?;
        let id = id_parameter(request).map_err(ErrorResponse::invalid)?;
        let by = caller.label();
        retry_on_conflict::<_, ApiError, _>(|| async {
            let swap = self.find(&caller, &id).await?;
            let fact = Fact::CancelWanted { by: by.clone() };
            match apply(&swap.activation, &fact, &self.deadlines, self.clock.now()) {
                Ok(after) if self.store.save(&swap, &after).await? == Saved::Written => {
                    let (role, caller_id) = (caller.role(), caller_digest(&caller));
                    tracing::info!(role, caller = caller_id, "cancel accepted");
                    Ok(Some(()))
                }
                Ok(_) => Ok(None),
                Err(Rejected::AlreadyApplied) => Ok(Some(())),
                Err(_) => Err(ErrorResponse::too_late(CANCEL_TOO_LATE).into()),
            }
        })
        .await?;
        self.wait_for_end(&caller, &id).await
    }

    /// Waits until fulfil-swap has ended the swap, for at most `CANCEL_WAIT`, and responds with the swap. A swap that
    /// is still open then is shown with the failure code `cancelled`.
    async fn wait_for_end(&self, caller: &Caller, id: &ActivationId) -> Result<Response<Body>, ApiError> {
        let until = self.clock.now() + self.cancel_wait;
        loop {
            let swap = self.store.swap_with_deliveries(id).await?;
            let swap = swap.ok_or(StoreError::Corrupt("swap"))?;
            let now = self.clock.now();
            if swap.activation.phase == Phase::Done {
                return Err(ErrorResponse::too_late(CANCEL_TOO_LATE).into());
            }
            if !swap.activation.phase.is_open() || now >= until {
                let view = self.presenter.show(&self.store, &swap, caller, now);
                return Ok(json_response(StatusCode::OK, &view.await?));
            }
            let left = Duration::try_from(until.duration_since(now)).unwrap_or(Duration::ZERO);
            tokio::time::sleep(left.min(POLL_INTERVAL)).await;
        }
    }

    async fn resend(&self, request: &Request) -> Result<Response<Body>, ApiError> {
        let caller = caller(request).map_err(|_| ErrorResponse::forbidden())?;
        let mut fields = read_optional_body(request)?;
        let id = id_parameter(request);
        for fault in id.as_ref().err().into_iter().flatten() {
            fields.fault(fault.clone());
        }
        let max = EmailAddress::MAX_LENGTH;
        let to = fields.bounded("email", 1, max, EmailAddress::parse);
        fields.finish()?;
        let id = id.map_err(ErrorResponse::invalid)?;
        let by = caller.label();
        retry_on_conflict(|| async {
            let mut swap = self.find(&caller, &id).await?;
            if swap.activation.kind == SwapKind::Physical {
                let fault = FieldError::invalid("id", "must be of an eSIM swap");
                return Err(ErrorResponse::invalid(vec![fault]).into());
            }
            let (a, now) = (&swap.activation, self.clock.now());
            let fact = Fact::ResendWanted { by: by.clone() };
            let after = apply(a, &fact, &self.deadlines, now);
            if !matches!(after, Ok(_) | Err(Rejected::NotPossible)) {
                return Err(ErrorResponse::too_late(RESEND_TOO_LATE).into());
            }
            let line = self.store.line(&a.subscription).await?;
            if let Some(blocker) = line.and_then(|line| line.line.line_blocker()) {
                return Err(ErrorResponse::swap_blocked(&blocker).into());
            }
            let to = to.as_ref().map(|to| resend_address(a, to)).transpose()?;
            let after = after.map_err(|_| resend_error(ResendRefused::TooEarly, now))?;
            let (last, lease) = (swap.deliveries.last(), self.deadlines.lease);
            let mail = resend(a, last, to, lease, now).map_err(|reason| resend_error(reason, now))?;
            if self.store.save_with_mail(&swap, &after, &mail).await? != Saved::Written {
                return Ok(None);
            }
            let (role, caller_id) = (caller.role(), caller_digest(&caller));
            tracing::info!(role, caller = caller_id, mail = mail.number, "resend accepted");
            swap.activation = after;
            swap.deliveries.push(mail);
            let view = self.presenter.show(&self.store, &swap, &caller, now);
            Ok(Some(json_response(StatusCode::OK, &view.await?)))
        })
        .await
    }

    /// Reads the swap with its mails. A swap that the caller may not see counts as missing.
    async fn find(&self, caller: &Caller, id: &ActivationId) -> Result<StoredSwap, ApiError> {
        record_activation(id);
        let found = self.store.swap_with_deliveries(id).await?;
        let visible = found.filter(|swap| {
            let a = &swap.activation;
            caller.may_see(&a.customer, a.reseller.as_deref())
        });
        Ok(visible.ok_or(ErrorResponse::not_found("id"))?)
    }
}

/// The address of a resend, if the caller requests `to`. If the swap has no confirmation code, the QR code goes to the
/// contact on file only, because whoever has it can take over the number.
fn resend_address(a: &Activation, to: &EmailAddress) -> Result<EmailAddress, ErrorResponse> {
    if a.requested.has_code {
        return Ok(to.clone());
    }
    let on_file = a.contact.as_ref();
    let same = |contact: &&EmailAddress| contact.as_str().eq_ignore_ascii_case(to.as_str());
    on_file.filter(same).cloned().ok_or_else(ErrorResponse::other_address)
}

fn resend_error(reason: ResendRefused, now: Timestamp) -> ErrorResponse {
    match reason {
        ResendRefused::TooEarly => ErrorResponse::too_many("The first mail is on its way.", Some(1)),
        ResendRefused::TooSoon(from) => {
            let left = from.duration_since(now).as_secs() + 1;
            let message = "Another mail was asked less than a minute ago.";
            ErrorResponse::too_many(message, u32::try_from(left).ok())
        }
        ResendRefused::TooMany => ErrorResponse::too_many("The QR code can be resent at most three times.", None),
    }
}

/// Reads `id`, the only query parameter. Its name may be in any letter case.
fn id_parameter(request: &Request) -> Result<ActivationId, Vec<FieldError>> {
    let parameters = request.query_string_parameters();
    let mut faults = Vec::new();
    let mut ids = Vec::new();
    for (name, value) in parameters.iter() {
        if name.eq_ignore_ascii_case("id") {
            ids.push(value);
        } else {
            faults.push(FieldError::unknown(name));
        }
    }
    match ids[..] {
        [] | [""] => faults.insert(0, FieldError::not_empty("id")),
        [id] => match ActivationId::parse(id) {
            Ok(id) if faults.is_empty() => return Ok(id),
            Ok(_) => {}
            Err(malformed) => faults.insert(0, FieldError::invalid("id", malformed.0)),
        },
        _ => faults.insert(0, FieldError::invalid("id", "must be given once")),
    }
    Err(faults)
}
