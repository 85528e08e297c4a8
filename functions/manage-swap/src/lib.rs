//! `POST /api/CancelActivation` and `POST /api/ResendEsim`: what a caller wants of a swap that stands. It touches the table
//! and nothing else.

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
use store::{Saved, Store, StoreError, StoredSwap, caller_digest};
use tracing::Instrument;

/// The function with all it needs, built once a process.
#[derive(Debug)]
pub struct ManageSwap {
    store: Store,
    ambient: ClockAndRng,
    presenter: Presenter,
    deadlines: Deadlines,
    cancel_wait: SignedDuration,
}

/// How often a wish is written anew because the row changed under it.
const ROUNDS: usize = 8;
/// Between two looks at a swap that is being cancelled.
const LOOK_AFTER: Duration = Duration::from_millis(100);

const CANCEL_TOO_LATE: &str = "The swap cannot be cancelled any more.";
const RESEND_TOO_LATE: &str = "The eSIM is installed, or the swap ends.";

impl ManageSwap {
    /// Reads the deadlines, how activations are shown, and `CANCEL_WAIT`.
    pub fn new(store: Store, ambient: ClockAndRng, settings: &Settings) -> Result<Self, SettingError> {
        Ok(Self {
            store,
            ambient,
            presenter: settings.presenter()?,
            deadlines: settings.deadlines()?,
            cancel_wait: settings.cancel_wait()?,
        })
    }

    /// Answers one call; never fails.
    pub async fn handle(&self, request: Request) -> Response<Body> {
        let answered = async {
            let (done, failed) = match route(&request) {
                "/api/CancelActivation" => (self.cancel(&request).await, "cancel failed"),
                "/api/ResendEsim" => (self.resend(&request).await, "resend failed"),
                _ => return no_such_route(),
            };
            done.unwrap_or_else(|failure| failure.into_response(failed))
        };
        answered.instrument(span_of_call(&request)).await
    }

    async fn cancel(&self, request: &Request) -> Result<Response<Body>, ApiError> {
        let caller = caller(request).map_err(|_| ErrorResponse::forbidden())?;
        let id = id(request).map_err(ErrorResponse::invalid)?;
        let by = caller.named();
        for _ in 0..ROUNDS {
            let swap = self.find(&caller, &id).await?;
            let fact = Fact::CancelWanted { by: by.clone() };
            match apply(&swap.activation, &fact, &self.deadlines, self.ambient.now()) {
                Ok(after) if self.store.save(&swap, &after).await? == Saved::Written => {
                    let (role, caller_id) = (caller.role(), caller_digest(&caller));
                    tracing::info!(role, caller = caller_id, "a cancel is taken");
                    return self.cancelled(&caller, &id).await;
                }
                Ok(_) => {}
                Err(Rejected::AlreadyApplied) => return self.cancelled(&caller, &id).await,
                Err(_) => return Err(ErrorResponse::too_late(CANCEL_TOO_LATE).into()),
            }
        }
        Err(ErrorResponse::unavailable().into())
    }

    /// Waits for the end that others bring about, and answers it. A swap that is still on its way then is shown as it
    /// is: its failure says that it is cancelled.
    async fn cancelled(&self, caller: &Caller, id: &ActivationId) -> Result<Response<Body>, ApiError> {
        let until = self.ambient.now() + self.cancel_wait;
        loop {
            let swap = self.store.swap_with_deliveries(id).await?;
            let swap = swap.ok_or(StoreError::Corrupt("swap"))?;
            let now = self.ambient.now();
            if swap.activation.phase == Phase::Done {
                return Err(ErrorResponse::too_late(CANCEL_TOO_LATE).into());
            }
            if !swap.activation.phase.is_open() || now >= until {
                let view = self.presenter.show(&self.store, &swap, caller, now);
                return Ok(json_response(StatusCode::OK, &view.await?));
            }
            let left = Duration::try_from(until.duration_since(now)).unwrap_or(Duration::ZERO);
            tokio::time::sleep(left.min(LOOK_AFTER)).await;
        }
    }

    async fn resend(&self, request: &Request) -> Result<Response<Body>, ApiError> {
        let caller = caller(request).map_err(|_| ErrorResponse::forbidden())?;
        let mut fields = read_optional_body(request)?;
        let id = id(request);
        for fault in id.as_ref().err().into_iter().flatten() {
            fields.fault(fault.clone());
        }
        let max = EmailAddress::MAX_LENGTH;
        let to = fields.bounded("email", 1, max, EmailAddress::parse);
        fields.finish()?;
        let id = id.map_err(ErrorResponse::invalid)?;
        let by = caller.named();
        for _ in 0..ROUNDS {
            let mut swap = self.find(&caller, &id).await?;
            if swap.activation.kind == SwapKind::Physical {
                let fault = FieldError::invalid("id", "must be of an eSIM swap");
                return Err(ErrorResponse::invalid(vec![fault]).into());
            }
            let (a, now) = (&swap.activation, self.ambient.now());
            let fact = Fact::ResendWanted { by: by.clone() };
            let after = apply(a, &fact, &self.deadlines, now);
            if !matches!(after, Ok(_) | Err(Rejected::NotPossible)) {
                return Err(ErrorResponse::too_late(RESEND_TOO_LATE).into());
            }
            let line = self.store.line(&a.subscription).await?;
            if let Some(bar) = line.and_then(|line| line.line.bar()) {
                return Err(ErrorResponse::barrier(&bar).into());
            }
            let to = to.as_ref().map(|to| address(a, to)).transpose()?;
            let after = after.map_err(|_| not_again(ResendRefused::TooEarly, now))?;
            let (last, lease) = (swap.deliveries.last(), self.deadlines.lease);
            let mail = resend(a, last, to, lease, now).map_err(|refused| not_again(refused, now))?;
            let saved = self.store.save_with_mail(&swap, &after, &mail).await?;
            if saved == Saved::Written {
                let (role, caller_id) = (caller.role(), caller_digest(&caller));
                tracing::info!(
                    role,
                    caller = caller_id,
                    mail = mail.number,
                    "a mail is to be sent again"
                );
                swap.activation = after;
                swap.deliveries.push(mail);
                let view = self.presenter.show(&self.store, &swap, &caller, now);
                return Ok(json_response(StatusCode::OK, &view.await?));
            }
        }
        Err(ErrorResponse::unavailable().into())
    }

    /// The swap with its mails, as far as it exists for the caller.
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

/// Where a QR code goes that is asked for at `to`. Without a confirmation code it is as good as the number itself.
fn address(a: &Activation, to: &EmailAddress) -> Result<EmailAddress, ErrorResponse> {
    if a.requested.has_code {
        return Ok(to.clone());
    }
    let on_file = a.contact.as_ref();
    let same = |contact: &&EmailAddress| contact.as_str().eq_ignore_ascii_case(to.as_str());
    on_file.filter(same).cloned().ok_or_else(ErrorResponse::other_address)
}

fn not_again(refused: ResendRefused, now: Timestamp) -> ErrorResponse {
    match refused {
        ResendRefused::TooEarly => ErrorResponse::too_many("The first mail is on its way.", Some(1)),
        ResendRefused::TooSoon(from) => {
            let left = from.duration_since(now).as_secs() + 1;
            let message = "Another mail was asked less than a minute ago.";
            ErrorResponse::too_many(message, u32::try_from(left).ok())
        }
        ResendRefused::TooMany => ErrorResponse::too_many("Three more mails were asked already.", None),
    }
}

/// The only parameter; its name in any case.
fn id(request: &Request) -> Result<ActivationId, Vec<FieldError>> {
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
