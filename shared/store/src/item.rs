//! Rows: their keys, and how each becomes a domain value and back.

use std::collections::HashMap;
use std::str::FromStr;

use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_dynamodb::types::AttributeValue::{B, Bool, L, N, S};
use domain::{
    Activation, ActivationId, Attempt, Claim, Delivery, EmailAddress, Holder, Iccid, Imsi, KeptSim, Line, Msisdn,
    NetworkName, Requested, Sim, SmDpAddress, StartCall, SubscriptionId, SwapKind, TimelineEntry,
};
use jiff::Timestamp;

use crate::{Sealed, StoreError};

pub(crate) type Item = HashMap<String, AttributeValue>;

/// Sort keys: one a kind of row, so that a stream filter needs no more.
pub(crate) const ACTIVATION: &str = "activation";
const DELIVERY: &str = "delivery#";
const LINE: &str = "line";
const PHONE: &str = "phone";
const SIM: &str = "sim";
const IDEMPOTENCY: &str = "idempotency";

/// `type` of a swap's row, as the dialect writes it, and of a mail's.
pub(crate) const SWAPS: &str = "SIMSWAP";
pub(crate) const MAILS: &str = "MAIL";

/// The hash key of all data keys, so that the newest is found.
pub(crate) const DATA_KEYS: &str = "K#";

/// The hash key of all pools of free SIMs, so that they are listed by one query.
pub(crate) const POOLS: &str = "F#";
/// What the sort key of a pool begins with; its shelf follows.
pub(crate) const POOL: &str = "pool#";

/// Hash keys.
pub(crate) fn activation_pk(id: &ActivationId) -> String {
    format!("A#{id}")
}

pub(crate) fn sim_pk(iccid: &Iccid) -> String {
    format!("S#{iccid}")
}

fn key(pk: String, sk: &str) -> Item {
    HashMap::from([("pk".to_owned(), S(pk)), ("sk".to_owned(), S(sk.to_owned()))])
}

pub(crate) fn activation_key(id: &ActivationId) -> Item {
    key(activation_pk(id), ACTIVATION)
}

pub(crate) fn delivery_key(id: &ActivationId, number: u32) -> Item {
    // Padded, so that the tenth mail sorts after the ninth.
    key(activation_pk(id), &format!("{DELIVERY}{number:04}"))
}

/// The number of a mail, by its sort key.
pub(crate) fn delivery_number(sk: &str) -> Option<u32> {
    sk.strip_prefix(DELIVERY)?.parse().ok()
}

pub(crate) fn line_key(id: &SubscriptionId) -> Item {
    key(format!("L#{id}"), LINE)
}

pub(crate) fn phone_key(phone: &Msisdn) -> Item {
    key(format!("P#{}", phone.as_e164()), PHONE)
}

pub(crate) fn sim_key(iccid: &Iccid) -> Item {
    key(sim_pk(iccid), SIM)
}

/// `digest` is of the caller and the key together: neither can be read from the table.
pub(crate) fn idempotency_key(digest: &str) -> Item {
    key(format!("I#{digest}"), IDEMPOTENCY)
}

pub(crate) fn data_key(number: u32) -> Item {
    key(DATA_KEYS.to_owned(), &format!("key#{number:010}"))
}

pub(crate) fn pool_key(shelf: &str) -> Item {
    key(POOLS.to_owned(), &format!("{POOL}{shelf}"))
}

pub(crate) fn data_key_number(item: &Item) -> Result<u32, StoreError> {
    let sk = Row(item).text("sk")?;
    sk.strip_prefix("key#")
        .and_then(|number| number.parse().ok())
        .ok_or(StoreError::Corrupt("sk"))
}

/// A row that a stream tells of, by its keys alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangedRow {
    /// A swap.
    Swap(ActivationId),
    /// A mail of a swap, by its number.
    Delivery(ActivationId, u32),
    /// Any other.
    Other,
}

impl ChangedRow {
    /// Reads the keys.
    pub fn from_keys(pk: &str, sk: &str) -> Self {
        let Some(id) = pk.strip_prefix("A#").and_then(|id| ActivationId::parse(id).ok()) else {
            return Self::Other;
        };
        match delivery_number(sk) {
            Some(number) => Self::Delivery(id, number),
            None if sk == ACTIVATION => Self::Swap(id),
            None => Self::Other,
        }
    }
}

/// Reads attributes; each error names the attribute.
pub(crate) struct Row<'a>(pub(crate) &'a Item);

impl<'a> Row<'a> {
    pub(crate) fn text(&self, name: &'static str) -> Result<&'a str, StoreError> {
        self.maybe_text(name).ok_or(StoreError::Corrupt(name))
    }

    pub(crate) fn maybe_text(&self, name: &str) -> Option<&'a str> {
        self.0.get(name)?.as_s().ok().map(String::as_str)
    }

    fn owned(&self, name: &str) -> Option<String> {
        self.maybe_text(name).map(str::to_owned)
    }

    fn flag(&self, name: &str) -> bool {
        self.0
            .get(name)
            .and_then(|v| v.as_bool().ok())
            .copied()
            .unwrap_or(false)
    }

    fn maybe_flag(&self, name: &str) -> Option<bool> {
        self.0.get(name)?.as_bool().ok().copied()
    }

    pub(crate) fn number<T: FromStr>(&self, name: &'static str) -> Result<T, StoreError> {
        self.maybe_number(name).ok_or(StoreError::Corrupt(name))
    }

    fn maybe_number<T: FromStr>(&self, name: &str) -> Option<T> {
        self.0.get(name)?.as_n().ok()?.parse().ok()
    }

    pub(crate) fn bytes(&self, name: &'static str) -> Result<Vec<u8>, StoreError> {
        self.sealed(name)
            .map(|sealed| sealed.0)
            .ok_or(StoreError::Corrupt(name))
    }

    pub(crate) fn sealed(&self, name: &str) -> Option<Sealed> {
        let bytes = self.0.get(name)?.as_b().ok()?;
        Some(Sealed(bytes.as_ref().to_vec()))
    }

    fn time(&self, name: &'static str) -> Result<Timestamp, StoreError> {
        self.maybe_time(name).ok_or(StoreError::Corrupt(name))
    }

    fn maybe_time(&self, name: &str) -> Option<Timestamp> {
        Timestamp::from_millisecond(self.maybe_number(name)?).ok()
    }

    pub(crate) fn parsed<T, E>(
        &self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Result<T, StoreError> {
        parse(self.text(name)?).map_err(|_| StoreError::Corrupt(name))
    }

    fn maybe_parsed<T, E>(
        &self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Result<Option<T>, StoreError> {
        self.maybe_text(name)
            .map(|text| parse(text).map_err(|_| StoreError::Corrupt(name)))
            .transpose()
    }

    /// The rest of the hash key after its prefix.
    fn name(&self, prefix: &str) -> Result<&'a str, StoreError> {
        self.text("pk")?.strip_prefix(prefix).ok_or(StoreError::Corrupt("pk"))
    }
}

/// Builds a row; what is absent leaves no attribute.
struct Build(Item);

impl Build {
    fn put(mut self, name: &str, value: AttributeValue) -> Self {
        self.0.insert(name.to_owned(), value);
        self
    }

    fn text(self, name: &str, text: impl Into<String>) -> Self {
        self.put(name, S(text.into()))
    }

    fn maybe_text(self, name: &str, text: Option<&str>) -> Self {
        match text {
            Some(text) => self.text(name, text),
            None => self,
        }
    }

    fn number(self, name: &str, number: impl ToString) -> Self {
        self.put(name, N(number.to_string()))
    }

    /// A counter: zero leaves no attribute.
    fn count(self, name: &str, count: u32) -> Self {
        match count {
            0 => self,
            _ => self.number(name, count),
        }
    }

    fn time(self, name: &str, at: Timestamp) -> Self {
        self.number(name, at.as_millisecond())
    }

    fn maybe_time(self, name: &str, at: Option<Timestamp>) -> Self {
        match at {
            Some(at) => self.time(name, at),
            None => self,
        }
    }

    /// Times count in milliseconds from the row's beginning, and a line that stands for several from its own:
    /// `5230 smdp: installed`, `5230+60000x3 network: 503`.
    fn timeline(self, began: Timestamp, timeline: &[TimelineEntry]) -> Self {
        let between = |from: Timestamp, to: Timestamp| to.as_millisecond() - from.as_millisecond();
        let lines = timeline
            .iter()
            .map(|line| {
                let at = between(began, line.at);
                S(match line.count {
                    1 => format!("{at} {}", line.what),
                    count => {
                        let last = between(line.at, line.last);
                        format!("{at}+{last}x{count} {}", line.what)
                    }
                })
            })
            .collect();
        self.put("timeline", L(lines))
    }

    fn maybe_sealed(self, name: &str, sealed: Option<&Sealed>) -> Self {
        match sealed {
            Some(sealed) => self.put(name, B(sealed.0.clone().into())),
            None => self,
        }
    }
}

/// A swap's row: the activation, and its secrets still sealed.
#[derive(Debug, Clone)]
pub struct StoredSwap {
    /// The activation.
    pub activation: Activation,
    /// Digest of the identity of who asked.
    pub caller: String,
    /// Its secrets.
    pub secrets: SwapSecrets,
    /// Its e-mails, oldest first; empty where only the swap was read.
    pub deliveries: Vec<Delivery>,
}

/// The secrets of a swap, sealed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SwapSecrets {
    /// The confirmation code, until it is erased.
    pub code: Option<Sealed>,
    /// The matching id of an eSIM swap.
    pub matching_id: Option<Sealed>,
}

/// How a swap ended, as the dialect writes it; absent while it is open.
pub(crate) const OUTCOME: &str = "outcome";

/// The network's name for a swap's order: also the hash key of an index.
pub(crate) const ORDER_NUMBER: &str = "orderNumber";

/// On a swap's row, that the network moved its number after it had ended in ERROR; on a line's, by which swap.
pub(crate) const DISPUTED: &str = "disputed";

/// Field names under which a swap's secrets are sealed.
pub(crate) const CODE: &str = "code";
pub(crate) const MATCHING_ID: &str = "matchingId";

/// Where the listings find a swap: its time, then its id.
pub(crate) fn listed(activation: &Activation) -> String {
    format!("{}#{}", listed_from(activation.created_at), activation.id)
}

/// The first possible place of a swap asked at `at`.
pub(crate) fn listed_from(at: Timestamp) -> String {
    format!("{at:.3}")
}

pub(crate) fn from_swap(swap: &StoredSwap) -> Item {
    let a = &swap.activation;
    let r = &a.requested;
    let kind = match a.kind {
        SwapKind::Esim => "esim",
        SwapKind::Physical => "physical",
    };
    let phone = (!a.is_anonymous()).then(|| a.phone.as_e164());
    let outcome = (!a.phase.is_open()).then(|| a.status().as_str());
    let mut build = Build(activation_key(&a.id))
        .text("type", SWAPS)
        .text("listed", listed(a))
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
        .maybe_text("failure", a.failure.map(|failure| failure.code()))
        .number("version", a.version)
        .maybe_text("token", a.claim.as_ref().map(|claim| claim.token.as_str()))
        .maybe_time("until", a.claim.as_ref().map(|claim| claim.until))
        .count("tries", a.tries)
        .maybe_time("wakeAt", a.wake_at)
        .maybe_text("dueAt", a.due_at.map(sortable).as_deref())
        .maybe_time("since", a.ordering_since)
        .time("movedAt", a.moved_at)
        .text("smdpOrder", a.profile_order.as_str())
        .maybe_time("smdpDoubt", a.profile_doubt)
        .maybe_text("profile", a.profile.map(|profile| profile.as_str()))
        .maybe_text("smdp", a.smdp.as_ref().map(SmDpAddress::as_str))
        .text("order", a.network_order.as_str())
        .maybe_text(ORDER_NUMBER, a.order_number.as_deref())
        .maybe_time("orderDoubt", a.network_doubt)
        .maybe_text("heardNumber", a.heard_number.as_deref())
        .maybe_time("missingSince", a.missing_since)
        .count("mails", a.mails)
        .timeline(a.created_at, &a.timeline)
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
    build.0
}

pub(crate) fn to_swap(item: &Item) -> Result<StoredSwap, StoreError> {
    let row = Row(item);
    let kind = row.parsed("kind", |text| match text {
        "esim" => Ok(SwapKind::Esim),
        "physical" => Ok(SwapKind::Physical),
        _ => Err(()),
    })?;
    let claim = row
        .owned("token")
        .map(|token| row.time("until").map(|until| Claim { token, until }))
        .transpose()?;
    let activation = Activation {
        id: ActivationId::parse(row.name("A#")?).map_err(|_| StoreError::Corrupt("pk"))?,
        subscription: row.parsed("line", SubscriptionId::parse)?,
        phone: row.maybe_parsed("phone", Msisdn::parse)?.unwrap_or_else(Msisdn::erased),
        customer: row.text("customer")?.to_owned(),
        reseller: row.owned("reseller"),
        network: row.parsed("network", NetworkName::parse)?,
        language: row.parsed("language", str::parse)?,
        kind,
        requested: Requested {
            reference: row.owned("reference").unwrap_or_default(),
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
        moved_at: row.time("movedAt")?,
        profile_order: row.parsed("smdpOrder", str::parse)?,
        profile_doubt: row.maybe_time("smdpDoubt"),
        profile: row.maybe_parsed("profile", str::parse)?,
        smdp: row.maybe_parsed("smdp", SmDpAddress::parse)?,
        network_order: row.parsed("order", str::parse)?,
        order_number: row.owned(ORDER_NUMBER),
        network_doubt: row.maybe_time("orderDoubt"),
        heard_number: row.owned("heardNumber"),
        missing_since: row.maybe_time("missingSince"),
        disputed: row.flag(DISPUTED),
        mails: row.maybe_number("mails").unwrap_or(0),
        timeline: timeline(item)?,
    };
    Ok(StoredSwap {
        activation,
        caller: row.owned("caller").unwrap_or_default(),
        secrets: SwapSecrets {
            code: row.sealed(CODE),
            matching_id: row.sealed(MATCHING_ID),
        },
        deliveries: Vec::new(),
    })
}

fn timeline(item: &Item) -> Result<Vec<TimelineEntry>, StoreError> {
    const WHAT: StoreError = StoreError::Corrupt("timeline");
    let list = item.get("timeline").and_then(|v| v.as_l().ok()).ok_or(WHAT)?;
    let began = Row(item).time("createdAt")?;
    list.iter()
        .map(|entry| {
            let text = entry.as_s().map_err(|_| WHAT)?;
            timeline_line(began, text).ok_or(WHAT)
        })
        .collect()
}

fn timeline_line(began: Timestamp, text: &str) -> Option<TimelineEntry> {
    let after = |from: Timestamp, millis: &str| {
        let millis = from.as_millisecond().checked_add(millis.parse().ok()?)?;
        Timestamp::from_millisecond(millis).ok()
    };
    let (times, what) = text.split_once(' ')?;
    let Some((first, again)) = times.split_once('+') else {
        return Some(TimelineEntry::new(after(began, times)?, what));
    };
    let at = after(began, first)?;
    let (last, count) = again.split_once('x')?;
    Some(TimelineEntry {
        count: count.parse().ok()?,
        last: after(at, last)?,
        ..TimelineEntry::new(at, what)
    })
}

pub(crate) fn from_delivery(d: &Delivery) -> Item {
    Build(delivery_key(&d.activation, d.number))
        .text("type", MAILS)
        .text("to", d.to.as_str())
        .text("language", d.language.as_str())
        .text("state", d.state.as_str())
        .maybe_text("token", d.attempt.as_ref().map(|attempt| attempt.token.as_str()))
        .maybe_time("until", d.attempt.as_ref().map(|attempt| attempt.deadline))
        .count("attempt", d.attempt.as_ref().map_or(0, |attempt| attempt.number))
        .count("doubts", d.doubts)
        .count("refusals", d.refusals)
        .count("holds", d.holds)
        .maybe_time("wakeAt", d.wake_at)
        .maybe_text("dueAt", d.due_at.map(sortable).as_deref())
        .maybe_text("messageId", d.message_id.as_deref())
        .time("createdAt", d.created_at)
        .time("modifiedAt", d.modified_at)
        .number("version", d.version)
        .timeline(d.created_at, &d.timeline)
        .0
}

pub(crate) fn to_delivery(item: &Item) -> Result<Delivery, StoreError> {
    let row = Row(item);
    let number = delivery_number(row.text("sk")?).ok_or(StoreError::Corrupt("sk"))?;
    let attempt = row
        .owned("token")
        .map(|token| {
            Ok::<_, StoreError>(Attempt {
                number: row.number("attempt")?,
                token,
                deadline: row.time("until")?,
            })
        })
        .transpose()?;
    Ok(Delivery {
        activation: ActivationId::parse(row.name("A#")?).map_err(|_| StoreError::Corrupt("pk"))?,
        number,
        to: row.parsed("to", EmailAddress::parse)?,
        language: row.parsed("language", str::parse)?,
        state: row.parsed("state", str::parse)?,
        attempt,
        doubts: row.maybe_number("doubts").unwrap_or(0),
        refusals: row.maybe_number("refusals").unwrap_or(0),
        holds: row.maybe_number("holds").unwrap_or(0),
        wake_at: row.maybe_time("wakeAt"),
        due_at: row.maybe_parsed("dueAt", from_sortable)?,
        message_id: row.owned("messageId"),
        created_at: row.time("createdAt")?,
        modified_at: row.time("modifiedAt")?,
        version: row.number("version")?,
        timeline: timeline(item)?,
    })
}

/// What makes two requests the same request. Of a request with a confirmation code it is signed with a data key, so
/// that nobody who reads the table can try codes against it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint(pub(crate) String);

/// A swap of a line: who asked it, and what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestedSwap {
    /// The swap.
    pub id: ActivationId,
    /// Digest of the caller's identity.
    pub caller: String,
    /// The request.
    pub request: Fingerprint,
}

/// A line's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredLine {
    /// The line.
    pub line: Line,
    /// Its open swap, the same that `line.open_swap` names.
    pub open: Option<RequestedSwap>,
    /// Its last swap that was DONE, and when that was.
    pub last: Option<(RequestedSwap, Timestamp)>,
    /// A swap by which the network moved its number though it had ended in ERROR.
    pub disputed_by: Option<ActivationId>,
}

/// A new line's row. Its open swap is written by `submit` alone.
pub(crate) fn from_line(line: &Line) -> Item {
    Build(line_key(&line.id))
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

/// Attributes of a line's row for the SIM of this kind that is kept for it, and for when that may be used.
pub(crate) fn kept_names(kind: SwapKind) -> [&'static str; 2] {
    match kind {
        SwapKind::Esim => ["keptEsim", "keptEsimFrom"],
        SwapKind::Physical => ["keptCard", "keptCardFrom"],
    }
}

pub(crate) fn to_line(item: &Item) -> Result<StoredLine, StoreError> {
    let row = Row(item);
    let asked = |swap, caller, request| {
        row.maybe_parsed(swap, ActivationId::parse)?
            .map(|id| {
                Ok::<_, StoreError>(RequestedSwap {
                    id,
                    caller: row.text(caller)?.to_owned(),
                    request: Fingerprint(row.text(request)?.to_owned()),
                })
            })
            .transpose()
    };
    let open = asked("swap", "swapCaller", "swapRequest")?;
    let last = asked("lastSwap", "lastCaller", "lastRequest")?.zip(row.maybe_time("lastDoneAt"));
    let disputed_by = row.maybe_parsed(DISPUTED, ActivationId::parse)?;
    let kept = |kind| {
        let [iccid, from] = kept_names(kind);
        let kept = row.maybe_parsed(iccid, Iccid::parse)?;
        let kept = kept.map(|iccid| row.time(from).map(|from| KeptSim { iccid, from }));
        kept.transpose()
    };
    let line = Line {
        id: SubscriptionId::parse(row.name("L#")?).map_err(|_| StoreError::Corrupt("pk"))?,
        phone: row.parsed("phone", Msisdn::parse)?,
        customer: row.text("customer")?.to_owned(),
        reseller: row.owned("reseller"),
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

/// A phone number's row: which line has it, and enough to refuse a stranger without reading the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhoneEntry {
    /// The line.
    pub subscription: SubscriptionId,
    /// The line's customer.
    pub customer: String,
    /// The line's reseller.
    pub reseller: Option<String>,
}

pub(crate) fn from_phone(line: &Line) -> Item {
    Build(phone_key(&line.phone))
        .text("line", line.id.as_str())
        .text("customer", &line.customer)
        .maybe_text("reseller", line.reseller.as_deref())
        .0
}

pub(crate) fn to_phone(item: &Item) -> Result<PhoneEntry, StoreError> {
    let row = Row(item);
    Ok(PhoneEntry {
        subscription: row.parsed("line", SubscriptionId::parse)?,
        customer: row.text("customer")?.to_owned(),
        reseller: row.owned("reseller"),
    })
}

/// Fields under which a SIM's secrets are sealed.
pub(crate) const SIM_SECRETS: [&str; 5] = ["pin1", "pin2", "puk1", "puk2", "supplierCode"];

/// Where a free SIM waits to be assigned; `None` for a card that only its number assigns.
pub(crate) fn free_shelf(sim: &Sim) -> Option<String> {
    let kind = sim.kind();
    (kind == SwapKind::Esim || sim.auto_assign).then(|| shelf(&sim.network, sim.reseller.as_deref(), kind))
}

pub(crate) fn shelf(network: &NetworkName, reseller: Option<&str>, kind: SwapKind) -> String {
    let kind = match kind {
        SwapKind::Esim => "esim",
        SwapKind::Physical => "card",
    };
    format!("{}#{}#{kind}", network.as_str(), reseller.unwrap_or(""))
}

/// A time in an order that text has too.
pub(crate) fn sortable(at: Timestamp) -> String {
    format!("{:014}", at.as_millisecond().max(0))
}

pub(crate) fn from_sortable(text: &str) -> Result<Timestamp, StoreError> {
    let millis = text.parse().ok();
    millis
        .and_then(|millis| Timestamp::from_millisecond(millis).ok())
        .ok_or(StoreError::Corrupt("time"))
}

pub(crate) fn holder(holder: &Holder) -> String {
    match holder {
        Holder::Swap(id) => activation_pk(id),
        Holder::Line(id) => line_holder(id),
    }
}

pub(crate) fn line_holder(id: &SubscriptionId) -> String {
    format!("L#{id}")
}

/// `sealed` are its secrets, by field name.
pub(crate) fn from_sim(sim: &Sim, sealed: &[(&'static str, Sealed)]) -> Item {
    let mut build = Build(sim_key(&sim.iccid))
        .text("network", sim.network.as_str())
        .text("form", sim.form_factor.as_str())
        .text("state", sim.state.as_str())
        .text("freeFrom", sortable(sim.free_from))
        .put("auto", Bool(sim.auto_assign))
        .maybe_text("imsi", sim.imsi.as_ref().map(Imsi::as_str))
        .maybe_text("reseller", sim.reseller.as_deref())
        .maybe_text("tag", sim.tag.as_deref())
        .maybe_text("holder", sim.holder.as_ref().map(holder).as_deref());
    if sim.state == domain::SimState::Free {
        build = build.maybe_text("shelf", free_shelf(sim).as_deref());
    }
    for (field, value) in sealed {
        build = build.maybe_sealed(field, Some(value));
    }
    build.0
}

/// The SIM without its secrets, which stay sealed.
pub(crate) fn to_sim(item: &Item) -> Result<Sim, StoreError> {
    let row = Row(item);
    let holder = row.maybe_parsed("holder", |text| {
        let (prefix, name) = text.split_at_checked(2).ok_or(domain::Malformed("holder"))?;
        match prefix {
            "A#" => ActivationId::parse(name).map(Holder::Swap),
            _ => SubscriptionId::parse(name).map(Holder::Line),
        }
    })?;
    let free_from = row.parsed("freeFrom", from_sortable)?;
    Ok(Sim {
        iccid: Iccid::parse(row.name("S#")?).map_err(|_| StoreError::Corrupt("pk"))?,
        imsi: row.maybe_parsed("imsi", Imsi::parse)?,
        network: row.parsed("network", NetworkName::parse)?,
        reseller: row.owned("reseller"),
        form_factor: row.parsed("form", str::parse)?,
        auto_assign: row.flag("auto"),
        state: row.parsed("state", str::parse)?,
        free_from,
        holder,
        pin1: None,
        pin2: None,
        puk1: None,
        puk2: None,
        supplier_code: None,
        tag: row.owned("tag"),
        codes_shown: row.flag("codesShown"),
    })
}

#[cfg(test)]
mod tests {
    use domain::{
        DeliveryState, FailureCode, FormFactor, Language, LineState, NetworkOrder, Phase, ProfileOrder, ProfileState,
        SimState,
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

    /// A swap with everything that a row can hold, and one with as little as it can.
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
        full.moved_at = at("2026-11-22T15:05:11.123Z");
        full.mails = 1;
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
            activation: full,
            caller: "0123456789abcdef0123456789abcdef".into(),
            secrets: SwapSecrets {
                code: Some(Sealed(vec![7; 4 + 12 + 10 + 16])),
                matching_id: Some(Sealed(vec![8; 4 + 12 + 17 + 16])),
            },
            deliveries: Vec::new(),
        };
        let bare = StoredSwap {
            activation: Activation {
                reseller: None,
                ..accept(SwapKind::Physical, Requested::default())
            },
            caller: "0123456789abcdef0123456789abcdef".into(),
            secrets: SwapSecrets::default(),
            deliveries: Vec::new(),
        };
        [full, bare]
    }

    /// Bytes as DynamoDB counts them, near enough: names, values, and a byte an element of a list.
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
    fn what_only_a_bad_day_writes_round_trips() {
        let [mut swap, _] = swaps();
        let a = &mut swap.activation;
        a.profile_order = ProfileOrder::Taken;
        a.profile_doubt = Some(at("2026-11-22T14:15:11Z"));
        a.network_doubt = Some(at("2026-11-22T14:16:11Z"));
        a.heard_number = Some("0300011-2026".into());
        a.missing_since = Some(at("2026-11-22T14:17:11Z"));
        a.disputed = true;
        let back = to_swap(&from_swap(&swap)).unwrap();
        assert_eq!(back.activation, swap.activation);
    }

    #[test]
    fn a_line_of_the_timeline_that_is_not_ours_is_refused() {
        let began = at("2026-11-22T14:05:10.707Z");
        for text in ["", "5", "x what", "5+ what", "5+6 what", "5+6xy what", "+6x2 what"] {
            assert_eq!(timeline_line(began, text), None, "{text:?}");
        }
    }

    #[test]
    fn mails_sort_by_their_number() {
        let id = ActivationId::parse("X").unwrap();
        let sk = |number| delivery_key(&id, number)["sk"].as_s().unwrap().clone();
        assert_eq!(sk(2), "delivery#0002");
        assert!(sk(9) < sk(10));
        for number in [1, 10, 12345] {
            assert_eq!(delivery_number(&sk(number)), Some(number));
        }
    }

    #[test]
    fn swaps_round_trip() {
        for swap in swaps() {
            let back = to_swap(&from_swap(&swap)).unwrap();
            assert_eq!(back.activation, swap.activation);
            assert_eq!(back.secrets, swap.secrets);
        }
    }

    #[test]
    fn a_whole_swap_s_row_is_one_write_unit() {
        let size = size(&from_swap(&swaps()[0]));
        assert!(size <= 1024, "{size} bytes");
    }

    #[test]
    fn mails_round_trip() {
        let to = EmailAddress::parse("anna@example.com").unwrap();
        let lease = jiff::SignedDuration::from_secs(60);
        let asked = at("2026-11-22T14:05:10.707Z");
        let new = Delivery::new(&swaps()[0].activation, 2, to, lease, asked);
        let full = Delivery {
            state: DeliveryState::Claimed,
            attempt: Some(Attempt {
                number: 3,
                token: "t".into(),
                deadline: at("2026-11-22T14:06:10Z"),
            }),
            doubts: 1,
            refusals: 2,
            holds: 3,
            wake_at: Some(at("2026-11-22T14:07:10Z")),
            message_id: Some("m-1".into()),
            timeline: vec![
                TimelineEntry::new(asked - jiff::SignedDuration::from_secs(3), "SES: refused"),
                TimelineEntry {
                    count: 3,
                    last: at("2026-11-22T14:07:10.001Z"),
                    ..TimelineEntry::new(asked, "SES: no answer")
                },
            ],
            version: 4,
            ..new.clone()
        };
        for mail in [new, full] {
            assert_eq!(to_delivery(&from_delivery(&mail)).unwrap(), mail);
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
        let sim = Sim {
            iccid: Iccid::parse("8931086000000002019").unwrap(),
            imsi: Some(Imsi::parse("204080000000201").unwrap()),
            network: NetworkName::parse("KPN").unwrap(),
            reseller: Some("R-10".into()),
            form_factor: FormFactor::Esim,
            auto_assign: true,
            state: SimState::Free,
            free_from: at("2026-11-22T14:05:10.707Z"),
            holder: None,
            pin1: None,
            pin2: None,
            puk1: None,
            puk2: None,
            supplier_code: None,
            tag: Some("batch 7".into()),
            codes_shown: false,
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
    fn a_row_that_is_not_ours_is_named_by_its_attribute() {
        let mut row = from_swap(&swaps()[0]);
        row.insert("phase".into(), S("flying".into()));
        assert!(matches!(to_swap(&row), Err(StoreError::Corrupt("phase"))));
        row.remove("oldSim");
        assert!(to_swap(&row).is_err());
        assert_eq!(
            ChangedRow::from_keys("A#X", "activation"),
            ChangedRow::Swap(ActivationId::parse("X").unwrap())
        );
        assert_eq!(
            ChangedRow::from_keys("A#X", "delivery#2"),
            ChangedRow::Delivery(ActivationId::parse("X").unwrap(), 2)
        );
        for (pk, sk) in [
            ("L#X", "line"),
            ("A#", "activation"),
            ("A#X", "delivery#x"),
            ("A#X", "other"),
        ] {
            assert_eq!(ChangedRow::from_keys(pk, sk), ChangedRow::Other);
        }
    }
}
