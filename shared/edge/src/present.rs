//! An activation in the responses of the subscription dialect. Its fields have the order of the subscription API.

use domain::{Activation, Caller, ConfirmationCode, Delivery, EsimState, Phase, merge_timelines, named_enum};
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
    /// How long an eSIM can be installed, from the request.
    pub install_within: SignedDuration,
}

named_enum! {
    /// A field of an activation in a response.
    pub enum ActivationField {
        /// Its id.
        Id = "id",
        /// When it was requested.
        CreatedAt = "createdAt",
        /// When it changed last.
        ModifiedAt = "modifiedAt",
        /// Its status.
        Status = "status",
        /// Always `SIMSWAP`.
        ActivationType = "activationType",
        /// The caller's reference.
        ReferenceNumber = "referenceNumber",
        /// The line.
        SubscriptionId = "subscriptionId",
        /// The network's order.
        ProviderOrderNumber = "providerOrderNumber",
        /// The line's number.
        PhoneNumber = "phoneNumber",
        /// When the number moved.
        ActivatedDate = "activatedDate",
        /// The request, and what has become of it.
        Info = "info",
    }
    FromStr { compare: str::eq_ignore_ascii_case, error: "must be names of an activation's fields, separated by commas" }
}

/// An activation as JSON. It may contain a confirmation code, so it has no `Debug`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ActivationView {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    modified_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    activation_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference_number: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscription_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider_order_number: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    phone_number: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    activated_date: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<InfoView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeline: Option<Vec<TimelineView>>,
}

impl ActivationView {
    /// The view with these fields only, and its timeline if it has one.
    #[must_use]
    pub fn with_only(self, fields: &[ActivationField]) -> Self {
        use ActivationField as Field;
        let has = |field| fields.contains(&field);
        Self {
            id: self.id.filter(|_| has(Field::Id)),
            created_at: self.created_at.filter(|_| has(Field::CreatedAt)),
            modified_at: self.modified_at.filter(|_| has(Field::ModifiedAt)),
            status: self.status.filter(|_| has(Field::Status)),
            activation_type: self.activation_type.filter(|_| has(Field::ActivationType)),
            reference_number: self.reference_number.filter(|_| has(Field::ReferenceNumber)),
            subscription_id: self.subscription_id.filter(|_| has(Field::SubscriptionId)),
            provider_order_number: self.provider_order_number.filter(|_| has(Field::ProviderOrderNumber)),
            phone_number: self.phone_number.filter(|_| has(Field::PhoneNumber)),
            activated_date: self.activated_date.filter(|_| has(Field::ActivatedDate)),
            info: self.info.filter(|_| has(Field::Info)),
            timeline: self.timeline,
        }
    }
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
    #[serde(skip_serializing_if = "Option::is_none")]
    esim: Option<EsimView>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EsimView {
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_at: Option<String>,
    /// The last four digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    eid: Option<String>,
    wrong_codes: u32,
    downloads: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<&'static str>,
}

#[derive(Serialize)]
struct FailureView {
    code: &'static str,
    message: &'static str,
}

#[derive(Serialize)]
struct TimelineView {
    at: String,
    by: String,
    what: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<String>,
}

impl Presenter {
    /// The current view of a swap for this caller. `swap` must have been read with its last mail.
    pub async fn show(
        &self,
        store: &Store,
        swap: &StoredSwap,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<ActivationView, StoreError> {
        let code = self.code_to_show(store, swap, caller, now).await?;
        let esim = self.esim_view(&swap.activation, swap.deliveries.last(), now);
        Ok(self.view(&swap.activation, swap.deliveries.last(), code.as_ref(), esim))
    }

    /// The same view, with the timeline. `swap` must have been read with all its mails.
    pub async fn show_with_timeline(
        &self,
        store: &Store,
        swap: &StoredSwap,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<ActivationView, StoreError> {
        let view = self.show(store, swap, caller, now).await?;
        Ok(ActivationView {
            timeline: Some(self.timeline(swap, caller)),
            ..view
        })
    }

    /// The timelines of the swap and its mails as one, as this caller may see it.
    fn timeline(&self, swap: &StoredSwap, caller: &Caller) -> Vec<TimelineView> {
        let entries = merge_timelines(&swap.activation, &swap.deliveries);
        let views = entries.into_iter().map(|(entry, parts)| {
            let is_repeated = entry.count > 1;
            TimelineView {
                at: self.time(entry.at),
                by: parts.by_for(caller).to_owned(),
                what: parts.what,
                detail: parts.detail.into_owned(),
                count: is_repeated.then_some(entry.count),
                last: is_repeated.then(|| self.time(entry.last)),
            }
        });
        views.collect()
    }

    /// The view that the first response to the swap's request contained.
    pub async fn show_first(
        &self,
        store: &Store,
        swap: &StoredSwap,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<ActivationView, StoreError> {
        // A code that another caller has given since was not in the first response.
        let code = match swap.code_by {
            None => self.code_to_show(store, swap, caller, now).await?,
            Some(_) => None,
        };
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
        if store.is_code_of(swap, caller) && self.echoes_code(&swap.activation, now) {
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

    /// The view of an activation, its last mail and its eSIM. If the request had a confirmation code, the view shows `code`, or a
    /// mask in its place.
    fn view(
        &self,
        activation: &Activation,
        mail: Option<&Delivery>,
        code: Option<&ConfirmationCode>,
        esim: Option<EsimView>,
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
            id: Some(a.id.to_string()),
            created_at: Some(self.time(a.created_at)),
            modified_at: Some(self.time(modified_at)),
            status: Some(a.status().as_str()),
            activation_type: Some("SIMSWAP"),
            reference_number: Some(r.reference.clone()),
            subscription_id: Some(a.subscription.to_string()),
            provider_order_number: a.order_number.clone(),
            phone_number: (!a.is_anonymous()).then(|| a.phone.to_string()),
            activated_date: a.ended_at.and(a.activated_at).map(|at| self.time(at)),
            info: Some(InfoView {
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
                esim,
            }),
            timeline: None,
        }
    }

    /// The state of the eSIM, once it is ordered.
    fn esim_view(&self, a: &Activation, mail: Option<&Delivery>, now: Timestamp) -> Option<EsimView> {
        a.profile?;
        let mailed_at = mail.filter(|mail| mail.is_out()).map(|mail| mail.created_at);
        let (state, state_at) = a.esim_state(mailed_at, now);
        let is_waiting = a.phase.is_open() && state != EsimState::Installed;
        let expires_at = a.expires_at(self.install_within);
        Some(EsimView {
            state: state.as_str(),
            state_at: state_at.map(|at| self.time(at)),
            eid: a.eid_end.as_ref().map(|end| format!("…{end}")),
            wrong_codes: a.wrong_codes(),
            downloads: a.downloads(),
            expires_at: is_waiting.then(|| self.time(expires_at)),
            request: a.request.map(|request| request.state.shown()),
        })
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
        self.view(&first, None, code, None)
    }

    fn time(&self, at: Timestamp) -> String {
        format_time(at, &self.zone)
    }
}

/// A time as in RFC 3339, with milliseconds and the offset of the time zone.
pub fn format_time(at: Timestamp, zone: &TimeZone) -> String {
    at.to_zoned(zone.clone()).strftime("%FT%T%.3f%:z").to_string()
}

#[cfg(test)]
mod tests {
    use domain::{
        ActivationId, EmailAddress, Iccid, Language, Line, LineState, Msisdn, NetworkName, Requested, Scope,
        SubscriptionId, SwapKind, TimelineEntry,
    };
    use serde_json::json;

    use super::*;

    #[test]
    fn a_timeline_merges_the_entries_of_all_mails() {
        let at = |seconds| Timestamp::from_second(1_738_589_930 + seconds).unwrap();
        let iccid = || Iccid::parse("8931086000000000013").unwrap();
        let email = || EmailAddress::parse("customer@example.com").unwrap();
        let lease = SignedDuration::from_mins(1);
        let line = Line {
            id: SubscriptionId::parse("line-1").unwrap(),
            phone: Msisdn::parse("0612345601").unwrap(),
            customer: "C-100".to_owned(),
            reseller: None,
            network: NetworkName::parse("KPN").unwrap(),
            current_sim: iccid(),
            email: None,
            language: Language::Nl,
            state: LineState::Active,
            porting: false,
            locked: false,
            open_swap: None,
            kept_card: None,
            kept_esim: None,
        };
        let id = ActivationId::parse("01JD").unwrap();
        let requested = Requested::default();
        let who = "ADMIN eva";
        let mut activation = Activation::accept(id, &line, SwapKind::Esim, iccid(), requested, who, lease, at(0));
        activation.timeline.push(TimelineEntry {
            count: 3,
            last: at(9),
            ..TimelineEntry::new(at(1), "network: 503")
        });
        let note = "OWNER anna reports: customer: it works";
        activation.timeline.push(TimelineEntry::new(at(8), note));
        let mail = |number, entries: &[(i64, &str)]| {
            let mut mail = Delivery::new(&activation, number, email(), lease, at(0));
            let entries = entries
                .iter()
                .map(|(seconds, what)| TimelineEntry::new(at(*seconds), *what));
            mail.timeline.extend(entries);
            mail
        };
        let deliveries = vec![
            mail(1, &[(2, "SES: throttled"), (7, "sent")]),
            mail(2, &[(6, "SES: bounced")]),
        ];
        let swap = StoredSwap {
            deliveries,
            ..StoredSwap::new(activation, "")
        };
        let presenter = Presenter {
            zone: TimeZone::get("Europe/Amsterdam").unwrap(),
            echo: CodeEcho::Masked,
            code_kept: lease,
            install_within: lease,
        };
        let customer = "C-100".to_owned();
        for (scope, first, last) in [
            (Scope::Admin, "ADMIN eva", "OWNER anna"),
            (Scope::Owner { customer }, "ADMIN", "OWNER"),
        ] {
            let subject = "viewer".to_owned();
            let shown = presenter.timeline(&swap, &Caller { subject, scope });
            let time = |second: &str| format!("2025-02-03T14:38:{second}.000+01:00");
            assert_eq!(
                serde_json::to_value(&shown).unwrap(),
                json!([
                    {"at": time("50"), "by": first, "what": "requested"},
                    {
                        "at": time("51"), "by": "network", "what": "callFailed", "detail": "503",
                        "count": 3, "last": time("59"),
                    },
                    {"at": time("52"), "by": "SES", "what": "mailHeld", "detail": "mail 1, throttled"},
                    {"at": time("56"), "by": "SES", "what": "mailBounced", "detail": "mail 2"},
                    {"at": time("57"), "by": "simswap", "what": "mailSent", "detail": "mail 1"},
                    {"at": time("58"), "by": last, "what": "installReported", "detail": "customer: it works"},
                ])
            );
        }
    }
}
