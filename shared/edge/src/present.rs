//! An activation in the responses of the subscription dialect. Its fields have the order of the subscription API.

use domain::{Activation, Caller, ConfirmationCode, Delivery, Phase};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use store::{Store, StoreError, StoredSwap};

/// Shown in place of a confirmation code.
const MASK: &str = "##########";

/// Whether responses echo the confirmation code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodeEcho {
    /// They echo it, to the caller who gave it, until it is erased.
    Given,
    /// They never do.
    Masked,
}

/// How activations are shown.
#[derive(Debug, Clone)]
pub struct Presenter {
    /// The time zone of all times.
    pub zone: TimeZone,
    /// Whether the confirmation code is echoed to the caller who gave it.
    pub echo: CodeEcho,
    /// How long after the swap's end it is echoed.
    pub code_kept: SignedDuration,
}

/// An activation as JSON. It may contain a confirmation code, so it has no `Debug`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ActivationView {
    id: String,
    created_at: String,
    modified_at: String,
    status: &'static str,
    activation_type: &'static str,
    reference_number: String,
    subscription_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider_order_number: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    phone_number: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    activated_date: Option<String>,
    info: InfoView,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InfoView {
    #[serde(skip_serializing_if = "Option::is_none")]
    e_sim: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    confirmation_code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    new_sim_card_number: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delivery: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<FailureView>,
}

#[derive(Serialize)]
struct FailureView {
    code: &'static str,
    message: &'static str,
}

impl Presenter {
    /// The current view of a swap for this caller. `swap` must have been read with its mails.
    pub async fn show(
        &self,
        store: &Store,
        swap: &StoredSwap,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<ActivationView, StoreError> {
        let code = self.code_to_show(store, swap, caller, now).await?;
        Ok(self.view(&swap.activation, swap.deliveries.last(), code.as_ref()))
    }

    /// The view that the first response to the swap's request contained.
    pub async fn show_first(
        &self,
        store: &Store,
        swap: &StoredSwap,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<ActivationView, StoreError> {
        let code = self.code_to_show(store, swap, caller, now).await?;
        Ok(self.first_view(&swap.activation, code.as_ref()))
    }

    /// The confirmation code, if `caller` is the one who gave it. It is decrypted for no other caller.
    async fn code_to_show(
        &self,
        store: &Store,
        swap: &StoredSwap,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<Option<ConfirmationCode>, StoreError> {
        if store.is_requested_by(swap, caller) && self.echoes_code(&swap.activation, now) {
            store.confirmation_code(swap).await
        } else {
            Ok(None)
        }
    }

    /// Whether the caller who gave this activation's confirmation code may see it.
    pub fn echoes_code(&self, activation: &Activation, now: Timestamp) -> bool {
        let erased = activation.ended_at.is_some_and(|ended| ended + self.code_kept <= now);
        activation.requested.has_code && self.echo == CodeEcho::Given && !erased
    }

    /// The view of an activation and its last mail. If the request had a confirmation code, the view shows `code`, or a
    /// mask in its place.
    fn view(
        &self,
        activation: &Activation,
        mail: Option<&Delivery>,
        code: Option<&ConfirmationCode>,
    ) -> ActivationView {
        let a = activation;
        let r = &a.requested;
        let modified_at = mail.map_or(a.modified_at, |mail| mail.modified_at.max(a.modified_at));
        let recipient = mail.filter(|_| !a.is_anonymous()).map(|mail| &mail.to);
        let email = recipient.or(r.email.as_ref());
        let code = r
            .has_code
            .then(|| code.map_or(MASK, ConfirmationCode::expose).to_owned());
        ActivationView {
            id: a.id.to_string(),
            created_at: self.time(a.created_at),
            modified_at: self.time(modified_at),
            status: a.status().as_str(),
            activation_type: "SIMSWAP",
            reference_number: r.reference.clone(),
            subscription_id: a.subscription.to_string(),
            provider_order_number: a.order_number.clone(),
            phone_number: (!a.is_anonymous()).then(|| a.phone.to_string()),
            activated_date: a.ended_at.and(a.activated_at).map(|at| self.time(at)),
            info: InfoView {
                e_sim: r.e_sim,
                email: email.map(|email| email.as_str().to_owned()),
                confirmation_code: code,
                new_sim_card_number: r.new_sim.as_ref().map(ToString::to_string),
                delivery: mail.map(|mail| mail.state.shown()),
                profile: a.profile.map(|profile| profile.as_str()),
                failure: a.failure.map(|failure| FailureView {
                    code: failure.as_str(),
                    message: failure.message(),
                }),
            },
        }
    }

    /// The view that the first response contained. Nothing that it shows ever changes, so the response need not be
    /// stored.
    pub fn first_view(&self, activation: &Activation, code: Option<&ConfirmationCode>) -> ActivationView {
        let first = Activation {
            phase: Phase::Accepted,
            modified_at: activation.created_at,
            activated_at: None,
            ended_at: None,
            failure: None,
            profile: None,
            order_number: None,
            ..activation.clone()
        };
        self.view(&first, None, code)
    }

    /// A time as in RFC 3339, with milliseconds and the offset of the time zone.
    fn time(&self, at: Timestamp) -> String {
        at.to_zoned(self.zone.clone()).strftime("%FT%T%.3f%:z").to_string()
    }
}
