//! Each record as a row: its attributes, and how it is written to and read from a DynamoDB item. Keys are in `keys`,
//! the encoding of single attributes in `attributes`.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_dynamodb::types::AttributeValue::{Bool, L, S};
use domain::{
    Activation, ActivationId, Attempt, Claim, Delivery, EmailAddress, Iccid, Imsi, KeptSim, Line, MailKind, Msisdn,
    NetworkName, ProfileRequest, ProfileRequestState, Requested, Sim, SmDpAddress, StartCall, SubscriptionId, SwapKind,
};
use jiff::{SignedDuration, Timestamp};

use aws::base64;

use crate::attributes::{Item, Row, RowBuilder, from_sortable, millis, sortable};
use crate::form::{self, Form};
use crate::idempotency::CALLER_DIGEST_LEN;
use crate::keys::{self, Shard, activation_key, delivery_key, delivery_number, line_key, phone_key, pool_of, sim_key};
use crate::{Fingerprint, Sealed, StoreError};

/// A swap as it is stored, its secrets encrypted.
#[derive(Debug, Clone)]
pub struct StoredSwap {
    /// The activation.
    pub activation: Activation,
    /// [Digest](crate::caller_digest) of the caller who requested the swap. Empty once the swap is anonymous.
    pub caller: String,
    /// Digest of the caller who gave the confirmation code, if that is another caller.
    pub code_by: Option<String>,
    /// The swap's secrets.
    pub secrets: SwapSecrets,
    /// The new activation code, while it is being ordered.
    pub renewal: Option<Renewal>,
    /// The last requests of callers that changed the swap.
    pub last_requests: Vec<LastRequest>,
    /// The swap's mails, oldest first. Empty if only the swap's own row was read.
    pub deliveries: Vec<Delivery>,
    /// Attributes that a later release has added, and that this one writes back.
    pub unknown: HashMap<String, AttributeValue>,
}

/// A request that changed a swap, as far as a repeat is recognised by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastRequest {
    /// The first 8 bytes of a SHA-256 of the request's fingerprint, in hexadecimal.
    pub(crate) digest: String,
    /// When it was accepted.
    pub(crate) at: Timestamp,
    /// Its confirmation code, if the fingerprint leaves it out.
    pub(crate) code: Option<Sealed>,
}

impl StoredSwap {
    /// How long the same request of the same caller counts as a repeat, without an idempotency key.
    const REPEAT_WITHIN: SignedDuration = SignedDuration::from_mins(1);

    /// The requests with this fingerprint that have just changed the swap.
    pub(crate) fn repeats(&self, request: &Fingerprint, now: Timestamp) -> impl Iterator<Item = &LastRequest> {
        let digest = request.short();
        let requests = self.last_requests.iter();
        requests.filter(move |last| last.digest == digest && last.at >= now - Self::REPEAT_WITHIN)
    }

    /// The swap with this request among its last ones.
    pub(crate) fn with_request(&self, request: &Fingerprint, code: Option<&Sealed>, at: Timestamp) -> Self {
        let mut next = self.clone();
        next.last_requests.retain(|last| last.at >= at - Self::REPEAT_WITHIN);
        next.last_requests.push(LastRequest {
            digest: request.short(),
            at,
            code: code.cloned(),
        });
        next
    }

    /// A swap without secrets and mails that the caller with this digest requested.
    pub fn new(activation: Activation, caller: impl Into<String>) -> Self {
        Self {
            activation,
            caller: caller.into(),
            code_by: None,
            secrets: SwapSecrets::default(),
            renewal: None,
            last_requests: Vec::new(),
            deliveries: Vec::new(),
            unknown: HashMap::new(),
        }
    }

    /// The swap after a step that made its activation `after`. A renewal that is complete has replaced the secrets.
    pub fn advanced(&self, after: Activation) -> Self {
        let mut next = self.clone();
        if !after.is_renewing()
            && let Some(renewal) = next.renewal.take()
            && after
                .request
                .is_some_and(|request| request.state == ProfileRequestState::Done)
        {
            next.secrets.matching_id = Some(renewal.matching_id);
            if let Some((code, by)) = renewal.code {
                next.secrets.code = Some(code);
                next.code_by = Some(by);
            }
        }
        next.activation = after;
        next
    }
}

/// The new activation code of a swap, encrypted like the secrets that it replaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewal {
    /// The new matching id.
    pub matching_id: Sealed,
    /// The new confirmation code and the digest of the caller who gave it. `None` if the code stays the same.
    pub code: Option<(Sealed, String)>,
}

/// The encrypted secrets of a swap.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SwapSecrets {
    /// The confirmation code, until it is erased.
    pub code: Option<Sealed>,
    /// The matching id of an eSIM swap (GSMA SGP.22 section 4.1), until it is erased.
    pub matching_id: Option<Sealed>,
}

/// A swap's status at its end, `DONE` or `ERROR`. Absent while the swap is open.
pub(crate) const OUTCOME: &str = "outcome";

/// The network's number for a swap's order, which is also the hash key of the index `byOrder`.
pub(crate) const ORDER_NUMBER: &str = "orderNumber";

/// On a swap: whether the network moved the number after the swap had ended in ERROR. On a line: the id of that swap.
pub(crate) const DISPUTED: &str = "disputed";

/// On a line: its last swap that ended in DONE, which tells a repeated request.
pub(crate) const LAST_SWAP: [&str; 4] = ["lastSwap", "lastCaller", "lastRequest", "lastDoneAt"];

/// The confirmation code of a swap, encrypted.
pub(crate) const CODE: &str = "code";

/// The matching id of a swap, encrypted.
pub(crate) const MATCHING_ID: &str = "matchingId";

/// The secrets that a renewal brings. They are bound to the attributes that they replace.
const NEW_CODE: &str = "newCode";
const NEW_MATCHING_ID: &str = "newMatchingId";

/// The row of a swap in this form.
pub(crate) fn from_swap(form: Form, swap: &StoredSwap) -> Item {
    let a = &swap.activation;
    let r = &a.requested;
    let kind = match a.kind {
        SwapKind::Esim => "esim",
        SwapKind::Physical => "physical",
    };
    let phone = (!a.is_anonymous()).then(|| a.phone.as_e164());
    let outcome = (!a.phase.is_open()).then(|| a.status().as_str());
    let reseller_shard = a
        .reseller
        .as_deref()
        .map(|reseller| Shard::of(&a.id).reseller_key(reseller));
    let mut build = RowBuilder::new(activation_key(&a.id))
        .text(keys::SWAP_ID, a.id.as_str())
        .text(keys::SHARD, Shard::of(&a.id).key())
        .maybe_text(keys::RESELLER_SHARD, reseller_shard.as_deref())
        .maybe_text(OUTCOME, outcome)
        .text("line", a.subscription.as_str())
        .maybe_text("phone", phone)
        .text("customer", &a.customer)
        .maybe_text("reseller", a.reseller.as_deref())
        .text("caller", &swap.caller)
        .text("network", a.network.as_str())
        .text("language", a.language.as_str())
        .text("kind", kind)
        .maybe_text("email", r.email.as_ref().map(EmailAddress::as_str))
        .maybe_text("contact", a.contact.as_ref().map(EmailAddress::as_str))
        .maybe_text("newSimGiven", r.new_sim.as_ref().map(Iccid::as_str))
        .text("oldSim", a.old_sim.as_str())
        .text("newSim", a.new_sim.as_str())
        .time("createdAt", a.created_at)
        .time("modifiedAt", a.modified_at)
        .maybe_time("activatedAt", a.activated_at)
        .maybe_time("endedAt", a.ended_at)
        .text("phase", a.phase.as_str())
        .maybe_text("failure", a.failure.map(|failure| failure.as_str()))
        .number("version", a.version)
        .maybe_text("token", a.claim.as_ref().map(|claim| claim.token.as_str()))
        .maybe_time("until", a.claim.as_ref().map(|claim| claim.until))
        .count("tries", a.tries)
        .maybe_time("wakeAt", a.wake_at)
        .maybe_text("dueAt", a.due_at.map(sortable).as_deref())
        .maybe_time("since", a.ordering_since)
        .time("movedAt", a.progressed_at)
        .text("smdpOrder", a.profile_order.as_str())
        .maybe_time("smdpDoubt", a.profile_unknown_until)
        .maybe_text("profile", a.profile.map(|profile| profile.as_str()))
        .maybe_text("smdp", a.smdp.as_ref().map(SmDpAddress::as_str))
        .text("order", a.network_order.as_str())
        .maybe_text(ORDER_NUMBER, a.order_number.as_deref())
        .maybe_time("orderDoubt", a.network_unknown_until)
        .maybe_text("heardNumber", a.unconfirmed_order_number.as_deref())
        .maybe_time("missingSince", a.missing_since)
        .count("mails", a.mails)
        .count("resends", a.resends)
        .count("reports", a.reports)
        .maybe_text("profileFailure", a.profile_failure.map(|failure| failure.as_str()))
        .maybe_text("phoneState", a.phone_state.map(|state| state.as_str()))
        .maybe_text("eid", a.eid_end.as_deref())
        .maybe_text("witness", a.witness.map(|witness| witness.as_str()))
        .maybe_text("wanted", a.request.map(|request| request.kind.as_str()))
        .maybe_text("wantedState", a.request.map(|request| request.state.as_str()))
        .maybe_text("renewTo", a.renew_to.as_ref().map(EmailAddress::as_str))
        .maybe_time("renewedAt", a.renewed_at)
        .maybe_text("codeBy", swap.code_by.as_deref())
        .timeline(form, a.created_at, &a.timeline)
        .maybe_sealed(CODE, swap.secrets.code.as_ref())
        .maybe_sealed(MATCHING_ID, swap.secrets.matching_id.as_ref());
    if !r.reference.is_empty() {
        build = build.text("reference", &r.reference);
    }
    if let Some(given) = r.e_sim {
        build = build.put("eSim", Bool(given));
    }
    if r.has_code {
        build = build.put("hasCode", Bool(true));
    }
    if a.codes_shown {
        build = build.put("codesShown", Bool(true));
    }
    if a.start != StartCall::None {
        build = build.text("startCall", a.start.as_str());
    }
    if a.disputed {
        build = build.put(DISPUTED, Bool(true));
    }
    if a.renewal_unknown {
        build = build.put("renewalDoubt", Bool(true));
    }
    if a.code_dead {
        build = build.put("codeDead", Bool(true));
    }
    if a.reminded {
        build = build.put("reminded", Bool(true));
    }
    if !a.renewals.is_empty() {
        build = build.put("renewals", L(a.renewals.iter().copied().map(millis).collect()));
    }
    if let Some(renewal) = &swap.renewal {
        build = build.maybe_sealed(NEW_MATCHING_ID, Some(&renewal.matching_id));
        if let Some((code, by)) = &renewal.code {
            build = build.maybe_sealed(NEW_CODE, Some(code)).text("newCodeBy", by);
        }
    }
    if !swap.last_requests.is_empty() {
        let texts = swap.last_requests.iter().map(|last| {
            let (at, code) = (last.at.as_millisecond(), last.code.as_ref());
            let code = code.map_or_else(String::new, |code| format!(" {}", base64::encode(&code.0)));
            S(format!("{at} {}{code}", last.digest))
        });
        build = build.put("asked", L(texts.collect()));
    }
    if form == Form::Earlier {
        build = build
            .text(form::TYPE, form::SWAP_TYPE)
            .text(form::LISTED, form::listed(a));
        build.0.remove(form::ATTRIBUTE);
    }
    build.0.extend(swap.unknown.clone());
    build.0
}

/// All attributes of a swap that this release knows.
const SWAP_ATTRIBUTES: [&str; 74] = [
    "activatedAt",
    "asked",
    "caller",
    "codeBy",
    "codeDead",
    "codesShown",
    "contact",
    "createdAt",
    "customer",
    "dueAt",
    "eSim",
    "eid",
    "email",
    "endedAt",
    "failure",
    "hasCode",
    "heardNumber",
    "kind",
    "language",
    "line",
    "mails",
    "missingSince",
    "modifiedAt",
    "movedAt",
    "network",
    "newCodeBy",
    "newSim",
    "newSimGiven",
    "oldSim",
    "order",
    "orderDoubt",
    "phase",
    "phone",
    "phoneState",
    "pk",
    "profile",
    "profileFailure",
    "reference",
    "reminded",
    "renewTo",
    "renewalDoubt",
    "renewals",
    "renewedAt",
    "reports",
    "reseller",
    "resends",
    "since",
    "sk",
    "smdp",
    "smdpDoubt",
    "smdpOrder",
    "startCall",
    "timeline",
    "token",
    "tries",
    "until",
    "version",
    "wakeAt",
    "wanted",
    "wantedState",
    "witness",
    keys::SWAP_ID,
    keys::SHARD,
    keys::RESELLER_SHARD,
    OUTCOME,
    ORDER_NUMBER,
    DISPUTED,
    CODE,
    MATCHING_ID,
    NEW_CODE,
    NEW_MATCHING_ID,
    form::ATTRIBUTE,
    form::TYPE,
    form::LISTED,
];

pub(crate) fn to_swap(item: &Item) -> Result<StoredSwap, StoreError> {
    let row = Row::read(item)?;
    let kind = row.parsed("kind", |text| match text {
        "esim" => Ok(SwapKind::Esim),
        "physical" => Ok(SwapKind::Physical),
        _ => Err(()),
    })?;
    let claim = row
        .maybe_string("token")
        .map(|token| row.time("until").map(|until| Claim { token, until }))
        .transpose()?;
    let wanted = row.maybe_parsed("wanted", str::parse)?;
    let request = wanted.zip(row.maybe_parsed("wantedState", str::parse)?);
    let request = request.map(|(kind, state)| ProfileRequest { kind, state });
    let activation = Activation {
        id: row.parsed_pk("A#", ActivationId::parse)?,
        subscription: row.parsed("line", SubscriptionId::parse)?,
        phone: row.maybe_parsed("phone", Msisdn::parse)?.unwrap_or_else(Msisdn::erased),
        customer: row.text("customer")?.to_owned(),
        reseller: row.maybe_string("reseller"),
        network: row.parsed("network", NetworkName::parse)?,
        language: row.parsed("language", str::parse)?,
        kind,
        requested: Requested {
            reference: row.maybe_string("reference").unwrap_or_default(),
            e_sim: row.maybe_flag("eSim"),
            email: row.maybe_parsed("email", EmailAddress::parse)?,
            has_code: row.flag("hasCode"),
            new_sim: row.maybe_parsed("newSimGiven", Iccid::parse)?,
        },
        contact: row.maybe_parsed("contact", EmailAddress::parse)?,
        old_sim: row.parsed("oldSim", Iccid::parse)?,
        new_sim: row.parsed("newSim", Iccid::parse)?,
        codes_shown: row.flag("codesShown"),
        created_at: row.time("createdAt")?,
        modified_at: row.time("modifiedAt")?,
        activated_at: row.maybe_time("activatedAt"),
        ended_at: row.maybe_time("endedAt"),
        phase: row.parsed("phase", str::parse)?,
        failure: row.maybe_parsed("failure", str::parse)?,
        version: row.number("version")?,
        claim,
        start: row.maybe_parsed("startCall", str::parse)?.unwrap_or(StartCall::None),
        tries: row.maybe_number("tries").unwrap_or(0),
        wake_at: row.maybe_time("wakeAt"),
        due_at: row.maybe_parsed("dueAt", from_sortable)?,
        ordering_since: row.maybe_time("since"),
        progressed_at: match row.maybe_time("movedAt") {
            Some(at) => at,
            // Rows of the earlier form lack it.
            None => row.time("modifiedAt")?,
        },
        profile_order: row.parsed("smdpOrder", str::parse)?,
        profile_unknown_until: row.maybe_time("smdpDoubt"),
        profile: row.maybe_parsed("profile", str::parse)?,
        smdp: row.maybe_parsed("smdp", SmDpAddress::parse)?,
        network_order: row.parsed("order", str::parse)?,
        order_number: row.maybe_string(ORDER_NUMBER),
        network_unknown_until: row.maybe_time("orderDoubt"),
        unconfirmed_order_number: row.maybe_string("heardNumber"),
        missing_since: row.maybe_time("missingSince"),
        disputed: row.flag(DISPUTED),
        mails: row.maybe_number("mails").unwrap_or(0),
        resends: match row.maybe_number("resends") {
            Some(resends) => resends,
            // Until there were renewals and reminders, callers had requested all mails but the first.
            None if row.flag("reminded") || !row.times("renewals")?.is_empty() => 0,
            None => row.maybe_number::<u32>("mails").unwrap_or(0).saturating_sub(1),
        },
        reports: row.maybe_number("reports").unwrap_or(0),
        code_dead: row.flag("codeDead"),
        profile_failure: row.maybe_parsed("profileFailure", str::parse)?,
        phone_state: row.maybe_parsed("phoneState", str::parse)?,
        eid_end: row.maybe_string("eid"),
        witness: row.maybe_parsed("witness", str::parse)?,
        request,
        renewals: row.times("renewals")?,
        renew_to: row.maybe_parsed("renewTo", EmailAddress::parse)?,
        renewal_unknown: row.flag("renewalDoubt"),
        renewed_at: row.maybe_time("renewedAt"),
        reminded: row.flag("reminded"),
        timeline: row.timeline()?,
    };
    let new_code = row.sealed(NEW_CODE).zip(row.maybe_string("newCodeBy"));
    let renewal = row.sealed(NEW_MATCHING_ID).map(|matching_id| Renewal {
        matching_id,
        code: new_code,
    });
    Ok(StoredSwap {
        activation,
        caller: row.maybe_string("caller").unwrap_or_default(),
        code_by: row.maybe_string("codeBy"),
        secrets: SwapSecrets {
            code: row.sealed(CODE),
            matching_id: row.sealed(MATCHING_ID),
        },
        renewal,
        last_requests: row.parsed_list("asked", |text| {
            let mut parts = text.split(' ');
            Some(LastRequest {
                at: Timestamp::from_millisecond(parts.next()?.parse().ok()?).ok()?,
                digest: parts.next()?.to_owned(),
                code: match parts.next() {
                    Some(code) => Some(Sealed(base64::decode(code).ok()?)),
                    None => None,
                },
            })
        })?,
        deliveries: Vec::new(),
        unknown: item
            .iter()
            .filter(|(name, _)| !SWAP_ATTRIBUTES.contains(&name.as_str()))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
    })
}

/// The row of a mail in this form.
pub(crate) fn from_delivery(form: Form, d: &Delivery) -> Item {
    let mut row = RowBuilder::new(delivery_key(&d.activation, d.number))
        .text(keys::SHARD, Shard::of(&d.activation).key())
        .text("to", d.to.as_str())
        .text("language", d.language.as_str())
        .maybe_text("kind", (d.kind != MailKind::Code).then_some(d.kind.as_str()))
        .text("state", d.state.as_str())
        .maybe_text("token", d.attempt.as_ref().map(|attempt| attempt.token.as_str()))
        .maybe_time("until", d.attempt.as_ref().map(|attempt| attempt.deadline))
        .count("attempt", d.attempt.as_ref().map_or(0, |attempt| attempt.number))
        .count("doubts", d.unknown_attempts)
        .count("refusals", d.rejected_attempts)
        .count("holds", d.holds)
        .maybe_time("wakeAt", d.wake_at)
        .maybe_text("dueAt", d.due_at.map(sortable).as_deref())
        .maybe_text("messageId", d.message_id.as_deref())
        .time("createdAt", d.created_at)
        .time("modifiedAt", d.modified_at)
        .number("version", d.version)
        .timeline(form, d.created_at, &d.timeline);
    if form == Form::Earlier {
        row = row.text(form::TYPE, form::MAIL_TYPE);
        row.0.remove(form::ATTRIBUTE);
    }
    row.0
}

pub(crate) fn to_delivery(item: &Item) -> Result<Delivery, StoreError> {
    let row = Row::read(item)?;
    let number = delivery_number(row.text("sk")?).ok_or(StoreError::Corrupt("sk"))?;
    let attempt = row
        .maybe_string("token")
        .map(|token| {
            Ok::<_, StoreError>(Attempt {
                number: row.number("attempt")?,
                token,
                deadline: row.time("until")?,
            })
        })
        .transpose()?;
    Ok(Delivery {
        activation: row.parsed_pk("A#", ActivationId::parse)?,
        number,
        to: row.parsed("to", EmailAddress::parse)?,
        language: row.parsed("language", str::parse)?,
        kind: row.maybe_parsed("kind", str::parse)?.unwrap_or(MailKind::Code),
        state: row.parsed("state", str::parse)?,
        attempt,
        unknown_attempts: row.maybe_number("doubts").unwrap_or(0),
        rejected_attempts: row.maybe_number("refusals").unwrap_or(0),
        holds: row.maybe_number("holds").unwrap_or(0),
        wake_at: row.maybe_time("wakeAt"),
        due_at: row.maybe_parsed("dueAt", from_sortable)?,
        message_id: row.maybe_string("messageId"),
        created_at: row.time("createdAt")?,
        modified_at: row.time("modifiedAt")?,
        version: row.number("version")?,
        timeline: row.timeline()?,
    })
}

/// A swap of a line, with what identifies a repeat of its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestedSwap {
    /// The swap's id.
    pub id: ActivationId,
    /// [Digest](crate::caller_digest) of the caller who requested the swap.
    pub caller: String,
    /// Fingerprint of the request.
    pub request: Fingerprint,
}

/// A line as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredLine {
    /// The line.
    pub line: Line,
    /// The open swap, whose id is also in `line.open_swap`.
    pub open: Option<RequestedSwap>,
    /// The last swap that ended in DONE, and when it ended.
    pub last: Option<(RequestedSwap, Timestamp)>,
    /// A swap that had ended in ERROR when the network moved the line's number.
    pub disputed_by: Option<ActivationId>,
}

/// The row of a new line. Only `begin` writes the attributes of an open swap.
pub(crate) fn from_line(line: &Line) -> Item {
    RowBuilder::new(line_key(&line.id))
        .text("phone", line.phone.as_e164())
        .text("customer", &line.customer)
        .maybe_text("reseller", line.reseller.as_deref())
        .text("network", line.network.as_str())
        .text("sim", line.current_sim.as_str())
        .maybe_text("email", line.email.as_ref().map(EmailAddress::as_str))
        .text("language", line.language.as_str())
        .text("state", line.state.as_str())
        .put("porting", Bool(line.porting))
        .put("locked", Bool(line.locked))
        .0
}

/// The attributes of a line for the SIM of this kind that is kept for the line: its ICCID, and the time from which it
/// may be used.
pub(crate) fn kept_sim_attributes(kind: SwapKind) -> [&'static str; 2] {
    match kind {
        SwapKind::Esim => ["keptEsim", "keptEsimFrom"],
        SwapKind::Physical => ["keptCard", "keptCardFrom"],
    }
}

pub(crate) fn to_line(item: &Item) -> Result<StoredLine, StoreError> {
    let row = Row::read(item)?;
    let requested_swap = |swap, caller, request| {
        row.maybe_parsed(swap, ActivationId::parse)?
            .map(|id| {
                // The digests of the earlier form are twice as long.
                let caller = row.text(caller)?;
                Ok::<_, StoreError>(RequestedSwap {
                    id,
                    caller: caller.get(..CALLER_DIGEST_LEN).unwrap_or(caller).to_owned(),
                    request: Fingerprint(row.text(request)?.to_owned()),
                })
            })
            .transpose()
    };
    let open = requested_swap("swap", "swapCaller", "swapRequest")?;
    let last = requested_swap("lastSwap", "lastCaller", "lastRequest")?;
    // The first release writes only the time at which the network activated the SIM.
    let last = last.zip(row.maybe_time("lastDoneAt").max(row.maybe_time("simSince")));
    let disputed_by = row.maybe_parsed(DISPUTED, ActivationId::parse)?;
    let kept = |kind| {
        let [iccid, from] = kept_sim_attributes(kind);
        let kept = row.maybe_parsed(iccid, Iccid::parse)?;
        let kept = kept.map(|iccid| row.time(from).map(|from| KeptSim { iccid, from }));
        kept.transpose()
    };
    let line = Line {
        id: row.parsed_pk("L#", SubscriptionId::parse)?,
        phone: row.parsed("phone", Msisdn::parse)?,
        customer: row.text("customer")?.to_owned(),
        reseller: row.maybe_string("reseller"),
        network: row.parsed("network", NetworkName::parse)?,
        current_sim: row.parsed("sim", Iccid::parse)?,
        email: row.maybe_parsed("email", EmailAddress::parse)?,
        language: row.parsed("language", str::parse)?,
        state: row.parsed("state", str::parse)?,
        porting: row.flag("porting"),
        locked: row.flag("locked"),
        open_swap: open.as_ref().map(|open| open.id.clone()),
        kept_card: kept(SwapKind::Physical)?,
        kept_esim: kept(SwapKind::Esim)?,
    };
    Ok(StoredLine {
        line,
        open,
        last,
        disputed_by,
    })
}

/// A phone number as it is stored: its line, and what decides whether a caller may access it without reading the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhoneEntry {
    /// The id of the line that has the number.
    pub subscription: SubscriptionId,
    /// The line's customer.
    pub customer: String,
    /// The line's reseller.
    pub reseller: Option<String>,
}

pub(crate) fn from_phone(line: &Line) -> Item {
    RowBuilder::new(phone_key(&line.phone))
        .text("line", line.id.as_str())
        .text("customer", &line.customer)
        .maybe_text("reseller", line.reseller.as_deref())
        .0
}

pub(crate) fn to_phone(item: &Item) -> Result<PhoneEntry, StoreError> {
    let row = Row::read(item)?;
    Ok(PhoneEntry {
        subscription: row.parsed("line", SubscriptionId::parse)?,
        customer: row.text("customer")?.to_owned(),
        reseller: row.maybe_string("reseller"),
    })
}

/// The attributes of a SIM that are encrypted.
pub(crate) const SIM_SECRETS: [&str; 5] = ["pin1", "pin2", "puk1", "puk2", "supplierCode"];

/// `sealed` are the encrypted secrets by their attributes.
pub(crate) fn from_sim(sim: &Sim, sealed: &[(&'static str, Sealed)]) -> Item {
    let mut build = RowBuilder::new(sim_key(&sim.iccid))
        .text("network", sim.network.as_str())
        .text("form", sim.form_factor.as_str())
        .text("state", sim.state.as_str())
        .text("freeFrom", sortable(sim.free_from))
        .put("auto", Bool(sim.auto_assign))
        .maybe_text("imsi", sim.imsi.as_ref().map(Imsi::as_str))
        .maybe_text("reseller", sim.reseller.as_deref())
        .maybe_text("tag", sim.tag.as_deref())
        .maybe_text("holder", sim.holder.as_ref().map(keys::holder).as_deref());
    if sim.state == domain::SimState::Free {
        // The name of the SIM's pool. The attribute keeps its stored name, `shelf`.
        build = build.maybe_text("shelf", pool_of(sim).as_deref());
    }
    for (field, value) in sealed {
        build = build.maybe_sealed(field, Some(value));
    }
    build.0
}

/// The SIM without its secrets.
pub(crate) fn to_sim(item: &Item) -> Result<Sim, StoreError> {
    let row = Row::read(item)?;
    Ok(Sim {
        iccid: row.parsed_pk("S#", Iccid::parse)?,
        imsi: row.maybe_parsed("imsi", Imsi::parse)?,
        network: row.parsed("network", NetworkName::parse)?,
        reseller: row.maybe_string("reseller"),
        form_factor: row.parsed("form", str::parse)?,
        auto_assign: row.flag("auto"),
        state: row.parsed("state", str::parse)?,
        free_from: row.parsed("freeFrom", from_sortable)?,
        holder: row.maybe_parsed("holder", keys::parse_holder)?,
        pin1: None,
        pin2: None,
        puk1: None,
        puk2: None,
        supplier_code: None,
        tag: row.maybe_string("tag"),
        codes_shown: row.flag("codesShown"),
    })
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::types::AttributeValue::{B, L, N, S};
    use domain::{
        DeliveryState, FailureCode, FormFactor, Holder, Language, LineState, NetworkOrder, Phase, PhoneState,
        ProfileOrder, ProfileRequestKind, ProfileRequestState, ProfileState, SimState, TimelineEntry, Witness,
    };

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn line() -> Line {
        Line {
            id: SubscriptionId::parse("65a1b2c3d4e5f60718293a01").unwrap(),
            phone: Msisdn::parse("+31612345601").unwrap(),
            customer: "C-100".into(),
            reseller: Some("R-10".into()),
            network: NetworkName::parse("KPN").unwrap(),
            current_sim: Iccid::parse("8931086000000000013").unwrap(),
            email: Some(EmailAddress::parse("anna@example.com").unwrap()),
            language: Language::Nl,
            state: LineState::Active,
            porting: false,
            locked: false,
            open_swap: None,
            kept_card: None,
            kept_esim: None,
        }
    }

    /// A swap with every attribute that a usual swap has, and one with as few as possible.
    fn swaps() -> [StoredSwap; 2] {
        let esim = Requested {
            reference: "123456789012345".into(),
            e_sim: Some(true),
            email: Some(EmailAddress::parse("anna.jansen@example.com").unwrap()),
            has_code: true,
            new_sim: Some(Iccid::parse("8931086000000001011").unwrap()),
        };
        let accept = |kind, requested| {
            Activation::accept(
                ActivationId::parse("01J9Z7K3N5Q8R2T4V6W8X0Y1Z3").unwrap(),
                &line(),
                kind,
                Iccid::parse("8931086000000002019").unwrap(),
                requested,
                "OWNER anna",
                jiff::SignedDuration::from_secs(60),
                at("2026-11-22T14:05:10.707Z"),
            )
        };
        let mut full = accept(SwapKind::Esim, esim);
        full.phase = Phase::Done;
        full.failure = Some(FailureCode::NetworkFailed);
        full.version = 9;
        full.claim = Some(Claim {
            token: "0123456789abcdef".into(),
            until: at("2026-11-22T14:06:10Z"),
        });
        full.tries = 3;
        full.wake_at = Some(at("2026-11-22T14:07:00Z"));
        full.ordering_since = Some(at("2026-11-22T14:05:11Z"));
        full.profile_order = ProfileOrder::Placed;
        full.profile = Some(ProfileState::Installed);
        full.smdp = Some(SmDpAddress::parse("smdp.example.test").unwrap());
        full.network_order = NetworkOrder::Completed;
        full.order_number = Some("0300010-2026".into());
        full.progressed_at = at("2026-11-22T15:05:11.123Z");
        full.mails = 1;
        full.eid_end = Some("1235".into());
        full.activated_at = Some(at("2026-11-22T15:05:10Z"));
        full.ended_at = Some(at("2026-11-22T15:05:11Z"));
        for what in [
            "ordering",
            "ordered as 0300010-2026",
            "smdp: downloaded",
            "smdp: installed",
            "network: started",
            "network: completed",
            "done",
        ] {
            full.timeline
                .push(TimelineEntry::new(at("2026-11-22T15:05:11.123Z"), what));
        }
        let full = StoredSwap {
            secrets: SwapSecrets {
                code: Some(Sealed(vec![7; 4 + 32 + 10 + 16])),
                matching_id: Some(Sealed(vec![8; 4 + 32 + 17 + 16])),
            },
            ..StoredSwap::new(full, "0123456789abcdef0123456789abcdef")
        };
        let bare = Activation {
            reseller: None,
            ..accept(SwapKind::Physical, Requested::default())
        };
        [full, StoredSwap::new(bare, "0123456789abcdef0123456789abcdef")]
    }

    /// The size of a row in bytes, nearly as DynamoDB counts: names, values, and one byte for each element of a list.
    fn size(item: &Item) -> usize {
        fn value(of: &AttributeValue) -> usize {
            match of {
                S(text) => text.len(),
                N(digits) => digits.len().div_ceil(2) + 1,
                B(bytes) => bytes.as_ref().len(),
                L(list) => 3 + list.iter().map(|element| 1 + value(element)).sum::<usize>(),
                _ => 1,
            }
        }
        item.iter().map(|(name, v)| name.len() + value(v)).sum()
    }

    #[test]
    fn rare_attributes_of_a_swap_round_trip() {
        let [mut swap, _] = swaps();
        let a = &mut swap.activation;
        a.profile_order = ProfileOrder::Taken;
        a.profile_unknown_until = Some(at("2026-11-22T14:15:11Z"));
        a.network_unknown_until = Some(at("2026-11-22T14:16:11Z"));
        a.unconfirmed_order_number = Some("0300011-2026".into());
        a.missing_since = Some(at("2026-11-22T14:17:11Z"));
        a.disputed = true;
        a.resends = 2;
        a.profile_failure = Some(FailureCode::NoRoom);
        a.phone_state = Some(PhoneState::Disabled);
        a.witness = Some(Witness::App);
        a.request = Some(ProfileRequest {
            kind: ProfileRequestKind::Renew,
            state: ProfileRequestState::Cancelled,
        });
        a.renewals = vec![at("2026-11-22T14:18:11Z"), at("2026-11-22T14:19:11.5Z")];
        a.renew_to = Some(EmailAddress::parse("b@example.com").unwrap());
        a.renewal_unknown = true;
        a.renewed_at = Some(at("2026-11-22T14:20:11Z"));
        a.reminded = true;
        swap.code_by = Some("fedc".into());
        a.reports = 3;
        a.code_dead = true;
        swap.last_requests = [None, Some(Sealed(vec![3; 50]))]
            .map(|code| LastRequest {
                digest: "ab".into(),
                at: at("2026-11-22T14:21:12.5Z"),
                code,
            })
            .to_vec();
        for code in [None, Some((Sealed(vec![1]), "abcd".to_owned()))] {
            swap.renewal = Some(Renewal {
                matching_id: Sealed(vec![2]),
                code,
            });
            let back = to_swap(&from_swap(Form::One, &swap)).unwrap();
            assert_eq!(back.activation, swap.activation);
            assert_eq!(
                (back.renewal, back.code_by),
                (swap.renewal.clone(), swap.code_by.clone())
            );
            assert_eq!(back.last_requests, swap.last_requests);
            assert_eq!(back.unknown, HashMap::new());
        }
    }

    #[test]
    fn a_complete_renewal_replaces_the_secrets() {
        let [mut swap, _] = swaps();
        let renewal = |code: Option<(Sealed, String)>| Renewal {
            matching_id: Sealed(vec![2]),
            code,
        };
        let renewing = Some(ProfileRequest {
            kind: ProfileRequestKind::Renew,
            state: ProfileRequestState::Cancelled,
        });
        swap.activation.request = renewing;
        let (old_code, new_code) = (swap.secrets.code.clone(), Some((Sealed(vec![3]), "by".to_owned())));
        for (state, renewed_at, code, expected) in [
            // In progress, refused, and complete with the same code and with another one.
            (
                ProfileRequestState::Cancelled,
                None,
                new_code.clone(),
                (true, false, old_code.clone(), None),
            ),
            (
                ProfileRequestState::Refused,
                None,
                new_code.clone(),
                (false, false, old_code.clone(), None),
            ),
            (
                ProfileRequestState::Done,
                Some(at("2026-11-22T14:20:11Z")),
                None,
                (false, true, old_code.clone(), None),
            ),
            (
                ProfileRequestState::Done,
                Some(at("2026-11-22T14:20:11Z")),
                new_code.clone(),
                (false, true, Some(Sealed(vec![3])), Some("by".to_owned())),
            ),
        ] {
            swap.renewal = Some(renewal(code));
            let mut after = swap.activation.clone();
            after.request = renewing.map(|request| ProfileRequest { state, ..request });
            after.renewed_at = renewed_at;
            let next = swap.advanced(after);
            let is_new = next.secrets.matching_id == Some(Sealed(vec![2]));
            assert_eq!(
                (next.renewal.is_some(), is_new, next.secrets.code, next.code_by),
                expected
            );
        }
    }

    #[test]
    fn swaps_round_trip() {
        for swap in swaps() {
            let back = to_swap(&from_swap(Form::One, &swap)).unwrap();
            assert_eq!(back.activation, swap.activation);
            assert_eq!(back.secrets, swap.secrets);
            assert_eq!(back.unknown, HashMap::new());
        }
    }

    #[test]
    fn the_row_of_a_swap_fits_in_one_write_unit() {
        // Room for a hold, the state of two notices and a reason. Anything longer gets a row of its own.
        const ROOM: usize = "holdUntil".len() + 8 + "notices".len() + 8 + "reason".len() + 12;
        // A swap that is done has no claim, nothing to try again, and no failure.
        let [mut swap, _] = swaps();
        let a = &mut swap.activation;
        (a.claim, a.wake_at, a.tries, a.failure) = (None, None, 0, None);
        let size = size(&from_swap(Form::One, &swap));
        assert!(size + ROOM <= 1024, "{size} bytes");
    }

    #[test]
    fn attributes_of_a_later_release_are_written_back() {
        let [mut swap, _] = swaps();
        swap.unknown
            .insert("holdUntil".into(), millis(at("2026-11-22T14:20:11Z")));
        let row = from_swap(Form::One, &swap);
        let back = to_swap(&row).unwrap();
        assert_eq!(back.unknown, swap.unknown);
        assert_eq!(from_swap(Form::One, &back.advanced(back.activation.clone())), row);
    }

    #[test]
    fn mails_round_trip() {
        let to = EmailAddress::parse("anna@example.com").unwrap();
        let lease = jiff::SignedDuration::from_secs(60);
        let requested_at = at("2026-11-22T14:05:10.707Z");
        let new = Delivery::new(&swaps()[0].activation, 2, to, lease, requested_at);
        let full = Delivery {
            state: DeliveryState::Claimed,
            attempt: Some(Attempt {
                number: 3,
                token: "t".into(),
                deadline: at("2026-11-22T14:06:10Z"),
            }),
            unknown_attempts: 1,
            rejected_attempts: 2,
            holds: 3,
            kind: MailKind::Reminder,
            wake_at: Some(at("2026-11-22T14:07:10Z")),
            message_id: Some("m-1".into()),
            timeline: vec![
                TimelineEntry::new(requested_at - jiff::SignedDuration::from_secs(3), "SES: refused"),
                TimelineEntry {
                    count: 3,
                    last: at("2026-11-22T14:07:10.001Z"),
                    ..TimelineEntry::new(requested_at, "SES: no answer")
                },
            ],
            version: 4,
            ..new.clone()
        };
        for mail in [new, full] {
            assert_eq!(to_delivery(&from_delivery(Form::One, &mail)).unwrap(), mail);
        }
    }

    #[test]
    fn lines_and_sims_round_trip() {
        let bare = Line {
            reseller: None,
            email: None,
            locked: true,
            porting: true,
            ..line()
        };
        for line in [line(), bare] {
            let back = to_line(&from_line(&line)).unwrap();
            assert_eq!((back.line, back.open), (line.clone(), None));
            let entry = to_phone(&from_phone(&line)).unwrap();
            assert_eq!((entry.subscription, entry.reseller), (line.id, line.reseller));
        }
        let iccid = Iccid::parse("8931086000000002019").unwrap();
        let sim = Sim {
            imsi: Some(Imsi::parse("204080000000201").unwrap()),
            reseller: Some("R-10".into()),
            auto_assign: true,
            free_from: at("2026-11-22T14:05:10.707Z"),
            tag: Some("batch 7".into()),
            ..Sim::free(iccid, NetworkName::parse("KPN").unwrap(), FormFactor::Esim)
        };
        let row = from_sim(&sim, &[("pin1", Sealed(vec![1]))]);
        assert_eq!(row["shelf"], S("KPN#R-10#esim".into()));
        assert_eq!(to_sim(&row).unwrap(), sim);
        let held = Sim {
            state: SimState::Busy,
            holder: Some(Holder::Swap(ActivationId::parse("X").unwrap())),
            ..sim
        };
        let row = from_sim(&held, &[]);
        assert!(!row.contains_key("shelf"));
        assert_eq!(to_sim(&row).unwrap(), held);
    }

    #[test]
    fn an_error_names_the_malformed_attribute() {
        let mut row = from_swap(Form::One, &swaps()[0]);
        row.insert("phase".into(), S("flying".into()));
        assert!(matches!(to_swap(&row), Err(StoreError::Corrupt("phase"))));
        row.remove("oldSim");
        assert!(to_swap(&row).is_err());
    }
}
