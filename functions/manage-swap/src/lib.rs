//! What a caller can do with an open swap: cancel it, resend or renew its QR code, report that the eSIM is installed. It
//! uses the table only; fulfil-swap and deliver-esim carry out the rest. Parsing requests is in `request.rs`.

mod request;

use std::time::Duration;

use domain::{
    Activation, ActivationId, Caller, Deadlines, Delivery, EmailAddress, Fact, MatchingId, Phase, ProfileState,
    Rejected, ReportTrust, ResendRefused, Scope, SwapKind, Witness, apply, resend,
};
use edge::{
    ApiError, ClockAndRng, ErrorResponse, FieldError, Presenter, SettingError, Settings, caller, json_response,
    mark_replayed, no_such_route, record_activation, route, span_of_call,
};
use jiff::{SignedDuration, Timestamp};
use lambda_http::http::StatusCode;
use lambda_http::{Body, Request, Response};
use store::{CanonicalRequest, IdempotencyKey, Saved, Store, StoreError, StoredSwap, caller_digest, retry_on_conflict};
use tracing::Instrument;

use crate::request::{ManageRequest, Operation, Wish};

/// The handler with its clients and settings. Built once per process.
#[derive(Debug)]
pub struct ManageSwap {
    store: Store,
    clock: ClockAndRng,
    presenter: Presenter,
    deadlines: Deadlines,
    /// How long a request waits for what other functions do about it.
    wait: SignedDuration,
    reports: ReportPolicy,
    /// Whether the SM-DP+ can be asked for the state of a profile.
    smdp_has_status: bool,
}

/// `REPORT_INSTALLED`: how far callers are believed who report that an eSIM is installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReportPolicy {
    /// If the SM-DP+ confirms it, as far as it can.
    Check,
    /// As they are.
    Trust,
    /// Not at all.
    Off,
}

/// How a swap changes at a caller's request.
struct Change {
    /// The swap before it, with the new activation code if there is one.
    before: StoredSwap,
    after: Activation,
    mail: Option<Delivery>,
}

/// What becomes of a request.
enum Outcome {
    /// The swap is changed.
    Changed(Box<StoredSwap>),
    /// There is nothing to change.
    Unchanged,
    /// The request is a repeat.
    Repeated,
}

/// Time between two reads of a swap that other functions are changing.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

const NO_CODE: &str = "The QR code no longer works, because a renewal of it was not completed. Renew it again.";
const FIRST_MAIL: &str = "The first e-mail is on its way. Try again when it has been sent.";
const IN_PROGRESS: &str = "Another request about this eSIM is in progress. Try again when it is done.";

impl ManageSwap {
    /// Reads the deadlines, the settings of the presenter, `CANCEL_WAIT`, `REPORT_INSTALLED` and `SMDP_STATUS`.
    pub fn new(store: Store, clock: ClockAndRng, settings: &Settings) -> Result<Self, SettingError> {
        let reports = match settings.text_or("REPORT_INSTALLED", "check").as_str() {
            "check" => ReportPolicy::Check,
            "trust" => ReportPolicy::Trust,
            "off" => ReportPolicy::Off,
            _ => return Err(SettingError::new("REPORT_INSTALLED", "must be check, trust or off")),
        };
        Ok(Self {
            store,
            clock,
            presenter: settings.presenter()?,
            deadlines: settings.deadlines()?,
            wait: settings.duration_or("CANCEL_WAIT", SignedDuration::from_secs(5))?,
            reports,
            smdp_has_status: settings.smdp_has_status()?,
        })
    }

    /// Handles one request. Every error becomes a response.
    pub async fn handle(&self, request: Request) -> Response<Body> {
        let response = async {
            let Some(operation) = Operation::at(route(&request)) else {
                return no_such_route();
            };
            let result = self.manage(&request, operation).await;
            result.unwrap_or_else(|error| error.into_response("managing a swap failed"))
        };
        response.instrument(span_of_call(&request)).await
    }

    async fn manage(&self, request: &Request, operation: Operation) -> Result<Response<Body>, ApiError> {
        let caller = caller(request).map_err(|_| ErrorResponse::forbidden())?;
        let request = ManageRequest::read(request, operation)?;
        let outcome = self.change_swap(&caller, &request).await?;
        let is_repeat = matches!(outcome, Outcome::Repeated);
        let swap = match outcome {
            // Nothing else has to be done before the response to a resend.
            Outcome::Changed(swap) if operation == Operation::Resend => *swap,
            _ => self.wait_for(&request.id, operation).await?,
        };
        if operation == Operation::Cancel && swap.activation.phase == Phase::Done {
            return Err(too_late(&swap.activation).into());
        }
        let view = self.presenter.show(&self.store, &swap, &caller, self.clock.now());
        let response = json_response(StatusCode::OK, &view.await?);
        Ok(if is_repeat { mark_replayed(response) } else { response })
    }

    /// Changes the swap as requested, once.
    async fn change_swap(&self, caller: &Caller, request: &ManageRequest) -> Result<Outcome, ApiError> {
        let key = request.key.as_ref().map(|key| IdempotencyKey::new(caller, key));
        let canonical = request.canonical(caller);
        let canonical = CanonicalRequest {
            text: &canonical,
            code: request.code(),
        };
        retry_on_conflict(|| async {
            let now = self.clock.now();
            // Both reads end, so that a swap that the caller may not see costs the same as one that does not exist.
            let record = self.store.idempotency_record(key.as_ref(), now);
            let (swap, record) = tokio::join!(self.find(caller, &request.id), record);
            let (swap, record) = (swap?, record?);
            // Only now, so that a swap that the caller may not see costs no data key.
            let fingerprint = self.store.fingerprint(canonical).await?;
            if let Some(record) = record {
                return match self.store.is_same_change(&record, &request.id, canonical).await? {
                    true => Ok(Some(Outcome::Repeated)),
                    false => Err(ErrorResponse::idempotency_mismatch().into()),
                };
            }
            if key.is_none() && self.store.has_just_changed(&swap, &fingerprint, canonical, now).await? {
                return Ok(Some(Outcome::Repeated));
            }
            let Some(change) = self.change(caller, swap, &request.wish, now).await? else {
                let saved = match &key {
                    None => Saved::Written,
                    Some(key) => self.store.save_record(&request.id, key, &fingerprint, now).await?,
                };
                return Ok((saved == Saved::Written).then_some(Outcome::Unchanged));
            };
            let Change { before, after, mail } = change;
            let saved = self
                .store
                .save_request(&before, &after, mail.as_ref(), key.as_ref(), &fingerprint);
            if saved.await? != Saved::Written {
                return Ok(None);
            }
            let (role, caller_id) = (caller.role(), caller_digest(caller));
            let mail_number = mail.as_ref().map(|mail| mail.number);
            match request.wish {
                Wish::Cancel => tracing::info!(role, caller = caller_id, "cancel accepted"),
                Wish::Resend { .. } => {
                    tracing::info!(role, caller = caller_id, mail = mail_number, "resend accepted");
                }
                Wish::Renew { .. } => tracing::info!(role, caller = caller_id, "renewal accepted"),
                Wish::Report { witness, .. } => {
                    let witness = witness.as_str();
                    tracing::info!(role, caller = caller_id, witness, "report of an installation accepted");
                }
            }
            let mut changed = before.advanced(after);
            changed.deliveries.extend(mail);
            Ok(Some(Outcome::Changed(Box::new(changed))))
        })
        .await
    }

    /// How the swap changes; `None` if it already is as requested.
    async fn change(
        &self,
        caller: &Caller,
        swap: StoredSwap,
        wish: &Wish,
        now: Timestamp,
    ) -> Result<Option<Change>, ApiError> {
        let by = caller.label();
        let a = &swap.activation;
        if a.kind == SwapKind::Physical && !matches!(wish, Wish::Cancel) {
            let fault = FieldError::invalid("id", "must be of an eSIM swap");
            return Err(ErrorResponse::invalid(vec![fault]).into());
        }
        let applied = |fact: &Fact| apply(a, fact, &self.deadlines, now);
        let (after, mail) = match wish {
            Wish::Cancel => match applied(&Fact::CancelWanted { by }) {
                Ok(after) => (after, None),
                Err(Rejected::AlreadyApplied) => return Ok(None),
                Err(_) => return Err(too_late(a).into()),
            },
            Wish::Resend { to } => {
                let after = applied(&Fact::ResendWanted { by });
                match after {
                    Ok(_) | Err(Rejected::NotPossible | Rejected::TooEarly) => {}
                    Err(Rejected::NoCode) => return Err(ErrorResponse::too_late(NO_CODE).into()),
                    Err(_) => return Err(too_late(a).into()),
                }
                self.check_line(a).await?;
                let to = to.as_ref().map(|to| allowed_address(a, to)).transpose()?;
                let after = after.map_err(|_| ErrorResponse::too_many(too_early(a), Some(1)))?;
                let mail = resend(a, swap.deliveries.last(), to, self.deadlines.lease, now);
                (after, Some(mail.map_err(|reason| resend_error(reason, now))?))
            }
            Wish::Renew { to, code } => {
                let to_last = || swap.deliveries.last().map(|mail| mail.to.clone());
                let allowed = to.as_ref().map(|to| allowed_address(a, to)).transpose();
                let fact = |to| Fact::RenewWanted { by: by.clone(), to };
                let checked = applied(&fact(EmailAddress::erased()));
                if checked == Err(Rejected::TooLate) {
                    return Err(too_late(a).into());
                }
                self.check_line(a).await?;
                let to = allowed?;
                if code.is_some() && !a.requested.has_code {
                    let fault = FieldError::invalid("confirmationCode", "must be absent: the swap has none");
                    return Err(ErrorResponse::invalid(vec![fault]).into());
                }
                checked.map_err(|rejected| renew_error(a, rejected, now))?;
                let Some(to) = to.or_else(to_last) else {
                    return Err(ErrorResponse::too_many(FIRST_MAIL, Some(1)).into());
                };
                let after = applied(&fact(to)).map_err(|rejected| renew_error(a, rejected, now))?;
                let matching_id = MatchingId::from_random(self.clock.random());
                let renewal = self.store.seal_renewal(&a.id, &matching_id, code.as_ref(), caller);
                let before = StoredSwap {
                    renewal: Some(renewal.await?),
                    ..swap
                };
                return Ok(Some(Change {
                    before,
                    after,
                    mail: None,
                }));
            }
            Wish::Report { witness, note } => {
                let trust = self.trust(caller, *witness).ok_or_else(ErrorResponse::reports_off)?;
                let fact = Fact::ReportWanted {
                    by,
                    witness: *witness,
                    note: note.clone(),
                    trust,
                };
                match applied(&fact) {
                    Ok(after) => (after, None),
                    Err(Rejected::AlreadyApplied) => return Ok(None),
                    Err(Rejected::NotBelieved) => return Err(ErrorResponse::not_believed().into()),
                    Err(Rejected::TooLate) => return Err(too_late(a).into()),
                    Err(Rejected::TooOften(_)) => {
                        let message = "An installation can be reported at most ten times. Wait for the report of the phone, or renew the QR code.";
                        return Err(ErrorResponse::too_many(message, None).into());
                    }
                    Err(_) => return Err(ErrorResponse::too_early(report_too_early(a)).into()),
                }
            }
        };
        Ok(Some(Change {
            before: swap,
            after,
            mail,
        }))
    }

    /// How far a report of this caller is believed; `None` if no reports are accepted.
    fn trust(&self, caller: &Caller, witness: Witness) -> Option<ReportTrust> {
        let answers_for_it = witness == Witness::Agent && !matches!(caller.scope, Scope::Owner { .. });
        match self.reports {
            ReportPolicy::Off => None,
            ReportPolicy::Trust => Some(ReportTrust::Full),
            ReportPolicy::Check if self.smdp_has_status => Some(ReportTrust::Checked),
            ReportPolicy::Check if answers_for_it => Some(ReportTrust::Vouched),
            ReportPolicy::Check => Some(ReportTrust::AfterDownload),
        }
    }

    /// Checks that the swap's line is not blocked.
    async fn check_line(&self, a: &Activation) -> Result<(), ApiError> {
        let line = self.store.line(&a.subscription).await?;
        match line.and_then(|line| line.line.line_blocker()) {
            Some(blocker) => Err(ErrorResponse::swap_blocked(&blocker).into()),
            None => Ok(()),
        }
    }

    /// Waits until other functions have done what was requested, for at most `CANCEL_WAIT`, and reads the swap.
    async fn wait_for(&self, id: &ActivationId, operation: Operation) -> Result<StoredSwap, ApiError> {
        let until = self.clock.now() + self.wait;
        loop {
            let swap = self.store.swap_with_deliveries(id).await?;
            let swap = swap.ok_or(StoreError::Corrupt("swap"))?;
            let a = &swap.activation;
            let is_settled = match operation {
                Operation::Cancel => !a.phase.is_open(),
                _ => !a.has_open_request(),
            };
            let now = self.clock.now();
            if is_settled || now >= until {
                return Ok(swap);
            }
            let left = Duration::try_from(until.duration_since(now)).unwrap_or(Duration::ZERO);
            tokio::time::sleep(left.min(POLL_INTERVAL)).await;
        }
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

/// The address for a QR code, if the caller requests `to`. If the swap has no confirmation code, the QR code goes to the
/// contact on file only, because whoever has it can take over the number.
fn allowed_address(a: &Activation, to: &EmailAddress) -> Result<EmailAddress, ErrorResponse> {
    if a.requested.has_code {
        return Ok(to.clone());
    }
    let on_file = a.contact.as_ref();
    let same = |contact: &&EmailAddress| contact.as_str().eq_ignore_ascii_case(to.as_str());
    on_file.filter(same).cloned().ok_or_else(ErrorResponse::other_address)
}

/// 409: the swap has proceeded too far, and what the caller can do instead.
fn too_late(a: &Activation) -> ErrorResponse {
    ErrorResponse::too_late(match a.phase {
        Phase::Done => "The swap is done.",
        Phase::Error => "The swap has ended in an error. Submit a new one.",
        Phase::Ending => "The swap is ending. Submit a new one when it has ended.",
        _ if a.profile == Some(ProfileState::Installed) => {
            "The eSIM is installed, and the number is moving to it. Wait until the swap is done."
        }
        _ => "The network may be moving the number already. Wait for the outcome, or try again in a minute.",
    })
}

fn too_early(a: &Activation) -> &'static str {
    match a.has_open_request() {
        true => IN_PROGRESS,
        false => FIRST_MAIL,
    }
}

fn report_too_early(a: &Activation) -> &'static str {
    match a.phase {
        _ if a.has_open_request() => IN_PROGRESS,
        Phase::Accepted | Phase::Ordering => "The QR code has not been sent yet. Wait for it.",
        _ => "The eSIM was downloaded less than 15 minutes ago. Wait for the report of the phone.",
    }
}

fn resend_error(reason: ResendRefused, now: Timestamp) -> ErrorResponse {
    match reason {
        ResendRefused::TooEarly => ErrorResponse::too_many(FIRST_MAIL, Some(1)),
        ResendRefused::TooSoon(from) => {
            let message = "The last e-mail was requested less than a minute ago. Wait a minute.";
            ErrorResponse::too_many(message, Some(seconds_until(from, now)))
        }
        ResendRefused::TooMany => ErrorResponse::too_many(
            "The QR code can be resent at most three times. If it does not work, renew it.",
            None,
        ),
    }
}

fn renew_error(a: &Activation, rejected: Rejected, now: Timestamp) -> ErrorResponse {
    match rejected {
        Rejected::TooOften(Some(from)) => {
            let message = "The QR code can be renewed at most three times a day. Renew it tomorrow.";
            ErrorResponse::too_many(message, Some(seconds_until(from, now)))
        }
        Rejected::TooOften(None) => ErrorResponse::too_many(
            "The QR code can be renewed at most ten times. Cancel the swap and begin another.",
            None,
        ),
        Rejected::TooLate => too_late(a),
        _ => ErrorResponse::too_many(too_early(a), Some(1)),
    }
}

fn seconds_until(from: Timestamp, now: Timestamp) -> u32 {
    u32::try_from(from.duration_since(now).as_secs() + 1).unwrap_or(1)
}
