//! How the SM-DP+, the network and SES behave in one run where real ones differ from the standards' examples: what they
//! show, how they spell it, and what they never do. Faults of single calls are in `faults`.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use serde_json::{Value, json};

use crate::transport::{Call, Peer, Reply};

/// How the peers behave, from the start of a run to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Quirks {
    /// What the network's search shows.
    pub(crate) search: Search,
    /// How long a reply of the SM-DP+, the network and SES takes, in milliseconds.
    pub(crate) latencies: [u64; 3],
    /// The probability, in thousandths, that a reply or a callback is spelled in another way that means the same.
    pub(crate) spelling: u32,
    /// Whether the network's ids are numbers.
    pub(crate) numeric_ids: bool,
    /// The probability, in thousandths, that an event of the network does not name the swap.
    pub(crate) unnamed_events: u32,
    /// By how many seconds the clocks of the SM-DP+ and the network are ahead of ours.
    pub(crate) clock_skews: [i64; 2],
    /// When the network settles a cancel.
    pub(crate) cancel: CancelSettlement,
    /// The codes with which the SM-DP+ rejects every cancelOrder.
    pub(crate) rejects_cancel: Option<(&'static str, &'static str)>,
    /// Whether the SM-DP+ rejects the cancellation of an order that is cancelled already.
    pub(crate) rejects_repeated_cancel: bool,
    /// Whether the network rejects every start of an order with 409.
    pub(crate) rejects_starts: bool,
    /// Whether the network starts a held order without our request.
    pub(crate) early_start: EarlyStart,
    /// How long the network works on an order.
    pub(crate) work_time: WorkTime,
    /// The probability, in thousandths, that SES reports a transient bounce of a delivered mail.
    pub(crate) soft_bounces: u32,
    /// Whether SES is configured to publish events, and publishes none.
    pub(crate) ses_silent: bool,
}

/// What the network's search by `externalId` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Search {
    /// Every order.
    All,
    /// An order appears at most this many milliseconds after it was placed.
    Lags(u64),
    /// None: `[]`.
    Nothing,
    /// None: 404.
    NotFound,
}

/// When the network settles a cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CancelSettlement {
    AtOnce,
    /// After this many milliseconds; until then the order is in this state.
    After(u64, &'static str),
    /// Never: the order stays in this state.
    Never(&'static str),
}

/// Whether a held order starts before we request it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EarlyStart {
    Never,
    /// The network shows `inProgress` for an order that it holds.
    Shown,
    /// The network starts it.
    Started,
}

/// How long the network works on an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WorkTime {
    /// Up to twenty minutes.
    Minutes,
    /// This many milliseconds.
    For(u64),
    /// Without end.
    Endless,
}

const SETTLING: [&str; 2] = ["assessingCancellation", "pendingCancellation"];

impl Quirks {
    pub(crate) const NONE: Self = Self {
        search: Search::All,
        latencies: [0; 3],
        spelling: 0,
        numeric_ids: false,
        unnamed_events: 0,
        clock_skews: [0; 2],
        cancel: CancelSettlement::AtOnce,
        rejects_cancel: None,
        rejects_repeated_cancel: false,
        rejects_starts: false,
        early_start: EarlyStart::Never,
        work_time: WorkTime::Minutes,
        soft_bounces: 0,
        ses_silent: false,
    };

    /// Draws the quirks; most are rare.
    pub(crate) fn random(rng: &mut Rng) -> Self {
        let mut quirks = Self::NONE;
        let one_in_five = |rng: &mut Rng| rng.u8(..5) == 0;
        if one_in_five(rng) {
            quirks.search = [
                Search::Lags(5_000),
                Search::Lags(240_000),
                Search::Nothing,
                Search::NotFound,
            ][rng.usize(..4)];
        }
        if one_in_five(rng) {
            quirks.latencies = [(); 3].map(|()| [0, 4_000, 11_000, 25_000][rng.usize(..4)]);
        }
        if one_in_five(rng) {
            quirks.spelling = [100, 500, 900][rng.usize(..3)];
        }
        quirks.numeric_ids = rng.u8(..8) == 0;
        if one_in_five(rng) {
            quirks.unnamed_events = [200, 1000][rng.usize(..2)];
        }
        if one_in_five(rng) {
            quirks.clock_skews = [(); 2].map(|()| rng.i64(-3_600..=3_600));
        }
        if rng.u8(..8) == 0 {
            let state = SETTLING[rng.usize(..2)];
            quirks.cancel = if rng.bool() {
                CancelSettlement::Never(state)
            } else {
                CancelSettlement::After(rng.u64(1_000..7_200_000), state)
            };
        }
        if rng.u8(..12) == 0 {
            quirks.rejects_cancel = Some([("8.2.6", "3.10"), ("8.8.5", "4.10")][rng.usize(..2)]);
        }
        quirks.rejects_repeated_cancel = rng.u8(..4) == 0;
        quirks.rejects_starts = rng.u8(..24) == 0;
        if rng.u8(..8) == 0 {
            quirks.early_start = [EarlyStart::Shown, EarlyStart::Started][rng.usize(..2)];
        }
        if rng.u8(..8) == 0 {
            quirks.work_time = if rng.bool() {
                WorkTime::Endless
            } else {
                WorkTime::For(rng.u64(1..=60) * 3_600_000)
            };
        }
        if one_in_five(rng) {
            quirks.soft_bounces = [200, 1000][rng.usize(..2)];
        }
        quirks.ses_silent = rng.u8(..8) == 0;
        quirks
    }

    /// Whether the network's search never shows an order.
    pub(crate) fn is_blind(&self) -> bool {
        matches!(self.search, Search::Nothing | Search::NotFound)
    }

    /// Whether the peers do everything that we request, within hours.
    pub(crate) fn lets_everything_settle(&self) -> bool {
        let cancels = !matches!(self.cancel, CancelSettlement::Never(_));
        cancels
            && !self.is_blind()
            && self.rejects_cancel.is_none()
            && !self.rejects_starts
            && self.early_start != EarlyStart::Shown
            && self.work_time == WorkTime::Minutes
    }

    /// How long the reply to a call takes, in milliseconds.
    pub(crate) fn latency(&self, peer: Peer) -> u64 {
        match peer {
            Peer::Smdp => self.latencies[0],
            Peer::Network => self.latencies[1],
            Peer::Ses => self.latencies[2],
            Peer::DynamoDb | Peer::Kms | Peer::Lambda => 0,
        }
    }
}

/// How the orders that the network shows differ from those in its database.
#[derive(Debug, Default)]
pub(crate) struct NetworkView {
    /// When the search begins to show an order, by `externalId`, in milliseconds.
    visible_from: BTreeMap<String, u64>,
    /// The ids of orders whose cancel has not settled.
    settling: BTreeSet<String>,
}

impl NetworkView {
    /// An order was placed; the search shows it from this time.
    pub(crate) fn record_order(&mut self, external_id: &str, from: u64) {
        self.visible_from.entry(external_id.to_owned()).or_insert(from);
    }

    /// A cancel arrived that does not settle at once. Returns whether it is the first one of its order.
    pub(crate) fn record_cancel(&mut self, id: &str) -> bool {
        self.settling.insert(id.to_owned())
    }

    /// A cancel has settled.
    pub(crate) fn record_settlement(&mut self, id: &str) {
        self.settling.remove(id);
    }

    /// A reply as the network shows it, from the reply that its database gives.
    pub(crate) fn render_reply(&self, quirks: &Quirks, call: &Call, reply: &Reply, now: u64) -> Reply {
        if !(200..300).contains(&reply.status) {
            return reply.clone();
        }
        let Ok(mut body) = serde_json::from_slice::<Value>(&reply.body) else {
            return reply.clone();
        };
        if call.method == "GET" && call.path.contains("externalId=") {
            match quirks.search {
                Search::All => {}
                Search::Nothing => body = json!([]),
                Search::NotFound => {
                    return Reply::new(404, r#"{"code":"404","reason":"not found"}"#);
                }
                Search::Lags(_) => {
                    if let Some(orders) = body.as_array_mut() {
                        orders.retain(|order| {
                            let id = order["externalId"].as_str().unwrap_or_default();
                            self.visible_from.get(id).is_none_or(|from| *from <= now)
                        });
                    }
                }
            }
        }
        for order in orders_in(&mut body) {
            self.render_order(quirks, order);
        }
        Reply {
            body: body.to_string().into_bytes(),
            ..reply.clone()
        }
    }

    fn render_order(&self, quirks: &Quirks, order: &mut Value) {
        let id = order["id"].as_str().unwrap_or_default();
        let settling = self.settling.contains(id);
        match quirks.cancel {
            CancelSettlement::After(_, state) | CancelSettlement::Never(state)
                if settling && order["state"] == "held" =>
            {
                order["state"] = state.into();
            }
            _ if quirks.early_start == EarlyStart::Shown && order["state"] == "held" => {
                order["state"] = "inProgress".into();
            }
            _ => {}
        }
    }
}

/// The orders in a reply or an event.
fn orders_in(body: &mut Value) -> Vec<&mut Value> {
    match body {
        Value::Array(list) => list.iter_mut().collect(),
        Value::Object(map) if map.contains_key("event") => vec![&mut body["event"]["serviceOrder"]],
        Value::Object(map) if map.contains_key("serviceOrderItem") => vec![body],
        _ => Vec::new(),
    }
}

/// The state of the order in a reply, or of the first one in a list.
pub(crate) fn order_state_shown(reply: &Reply) -> Option<String> {
    let body: Value = serde_json::from_slice(&reply.body).ok()?;
    let order = match &body {
        Value::Array(list) => list.first()?,
        order => order,
    };
    order["state"].as_str().map(str::to_owned)
}

/// Replaces the numeric ids in a call with the ids in the network's database.
pub(crate) fn restore_order_ids(call: &mut Call) {
    let id = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| format!("0{text}-2026"))
    };
    if let Some((before, last)) = call.path.rsplit_once("/serviceOrder/")
        && let Some(id) = id(last)
    {
        call.path = format!("{before}/serviceOrder/{id}");
    } else if call.path.ends_with("/cancelServiceOrder") {
        let mut body: Value = serde_json::from_slice(&call.body).unwrap_or_default();
        let named = &body["serviceOrder"]["id"];
        let text = named.as_str().map_or_else(|| named.to_string(), str::to_owned);
        if let Some(id) = id(&text) {
            body["serviceOrder"]["id"] = id.into();
            call.body = body.to_string().into_bytes();
        }
    }
}

/// An id of the network's database as a number, or as a string of digits.
fn numeric_id(rng: &mut Rng, id: &Value) -> Option<Value> {
    let (number, _) = id.as_str()?.split_once('-')?;
    let number: u64 = number.parse().ok()?;
    Some(if rng.bool() {
        number.into()
    } else {
        number.to_string().into()
    })
}

impl Quirks {
    /// A reply with the peer's spelling.
    pub(crate) fn spell_reply(&self, rng: &mut Rng, call: &Call, reply: Reply) -> Reply {
        if !matches!(call.peer, Peer::Smdp | Peer::Network) {
            return reply;
        }
        let respelled = self.spelling > 0 && rng.u32(..1000) < self.spelling;
        if !respelled && !self.numeric_ids || !(200..300).contains(&reply.status) {
            return reply;
        }
        let Ok(mut body) = serde_json::from_slice::<Value>(&reply.body) else {
            return reply;
        };
        match call.peer {
            Peer::Network => {
                for order in orders_in(&mut body) {
                    self.spell_order(rng, respelled, order);
                }
                if respelled && let Some(list) = body.as_array_mut() {
                    add_foreign_orders(rng, list);
                }
            }
            Peer::Smdp if respelled => spell_response(rng, &mut body),
            _ => {}
        }
        Reply {
            body: to_text(rng, respelled, &body).into_bytes(),
            ..reply
        }
    }

    /// A callback with the peer's spelling.
    pub(crate) fn spell_callback(&self, rng: &mut Rng, body: &mut Value) -> String {
        let respelled = self.spelling > 0 && rng.u32(..1000) < self.spelling;
        if body.get("event").is_some() {
            let order = &mut body["event"]["serviceOrder"];
            self.spell_order(rng, respelled, order);
            if self.unnamed_events > 0 && rng.u32(..1000) < self.unnamed_events {
                if rng.bool() {
                    order["externalId"] = Value::Null;
                } else {
                    remove(order, "externalId");
                }
            }
            if respelled {
                spell_date(rng, &mut body["eventTime"]);
                body["domain"] = Value::Null;
            }
        } else if respelled {
            spell_progress_callback(rng, body);
        }
        to_text(rng, respelled, body)
    }

    fn spell_order(&self, rng: &mut Rng, respelled: bool, order: &mut Value) {
        if self.numeric_ids
            && let Some(number) = numeric_id(rng, &order["id"])
        {
            order["id"] = number;
        }
        if !respelled {
            return;
        }
        change_case(rng, &mut order["state"]);
        for name in ["note", "relatedParty", "requestedStartDate", "@type"] {
            order[name] = Value::Null;
        }
        for name in ["orderDate", "startDate", "completionDate", "cancellationDate"] {
            match order.get_mut(name) {
                Some(date) => spell_date(rng, date),
                None => order[name] = Value::Null,
            }
        }
        match rng.u8(..4) {
            0 => order["serviceOrderItem"] = Value::Null,
            1 => order["href"] = Value::Null,
            2 => order["category"] = Value::Null,
            _ => {
                for item in order["serviceOrderItem"].as_array_mut().into_iter().flatten() {
                    item["state"] = Value::Null;
                    item["service"]["serviceCharacteristic"] = Value::Null;
                }
            }
        }
    }
}

fn to_text(rng: &mut Rng, respelled: bool, body: &Value) -> String {
    let mark = if respelled && rng.u8(..4) == 0 { "\u{feff}" } else { "" };
    format!("{mark}{body}")
}

fn remove(object: &mut Value, name: &str) {
    if let Some(object) = object.as_object_mut() {
        object.remove(name);
    }
}

/// Adds orders that are not ours, and values that are not orders.
fn add_foreign_orders(rng: &mut Rng, list: &mut Vec<Value>) {
    let foreign = [
        json!({"id": "777", "externalId": "SOMEBODY-ELSE", "state": "completed"}),
        json!({"id": {"number": 7}, "externalId": 7, "state": ["completed"]}),
        json!({"id": "778", "externalId": null, "state": "failed", "serviceOrderItem": "none"}),
        json!("not an order"),
        Value::Null,
    ];
    for _ in 0..rng.usize(1..=3) {
        let at = rng.usize(..=list.len());
        list.insert(at, foreign[rng.usize(..foreign.len())].clone());
    }
}

/// `completed` as `Completed` or `COMPLETED`.
fn change_case(rng: &mut Rng, word: &mut Value) {
    let Some(letters) = word.as_str() else {
        return;
    };
    *word = match rng.u8(..3) {
        0 => letters.to_uppercase().into(),
        1 => letters.to_lowercase().into(),
        _ => {
            let (first, rest) = letters.split_at(1.min(letters.len()));
            format!("{}{rest}", first.to_uppercase()).into()
        }
    };
}

/// Another form of a date, or one that cannot be parsed.
fn spell_date(rng: &mut Rng, date: &mut Value) {
    let Some(text) = date.as_str() else {
        return;
    };
    let Ok(time) = text.parse::<jiff::Timestamp>() else {
        return;
    };
    *date = match rng.u8(..6) {
        0 => time.as_millisecond().into(),
        1 => time.strftime("%Y-%m-%dT%H:%M:%S").to_string().into(),
        2 => time.strftime("%Y-%m-%d %H:%M:%SZ").to_string().into(),
        3 => time.strftime("%d %B").to_string().into(),
        4 => Value::Null,
        _ => time.strftime("%Y-%m-%dT%H:%M:%S%.3f+00:00").to_string().into(),
    };
}

/// A response of the SM-DP+.
fn spell_response(rng: &mut Rng, body: &mut Value) {
    let status = &mut body["header"]["functionExecutionStatus"];
    change_case(rng, &mut status["status"]);
    if status.get("statusCodeData").is_none() {
        status["statusCodeData"] = empty_codes(rng);
    }
    for name in ["eid", "tacList", "iccid"] {
        if rng.bool() {
            body[name] = Value::Null;
        }
    }
    if let Some(address) = body["smdpAddress"].as_str() {
        body["smdpAddress"] = match rng.u8(..4) {
            0 => address.to_uppercase(),
            1 => format!(" {address} "),
            2 => format!("https://{address}"),
            _ => format!("https://{address}/"),
        }
        .into();
    }
}

/// `statusCodeData` without codes.
fn empty_codes(rng: &mut Rng) -> Value {
    match rng.u8(..3) {
        0 => Value::Null,
        1 => json!({}),
        _ => json!({"subjectCode": null, "message": ""}),
    }
}

/// A callback of the SM-DP+.
fn spell_progress_callback(rng: &mut Rng, body: &mut Value) {
    match rng.u8(..3) {
        0 => remove(body, "header"),
        1 => body["header"] = Value::Null,
        _ => remove(&mut body["header"], "functionCallIdentifier"),
    }
    if rng.bool() {
        remove(body, "profileType");
    }
    body["eid"] = Value::Null;
    if rng.bool() {
        body["notificationPointId"] = body["notificationPointId"].to_string().into();
    }
    spell_date(rng, &mut body["timestamp"]);
    let status = &mut body["notificationPointStatus"];
    change_case(rng, &mut status["status"]);
    if status.get("statusCodeData").is_none() {
        status["statusCodeData"] = empty_codes(rng);
    }
}
