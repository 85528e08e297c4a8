//! What must hold: after every write and call while a world goes on, and of everything when it has come to rest.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use domain::{
    Activation, ActivationId, Delivery, DeliveryState, Iccid, Kind, Msisdn, Phase, SubscriptionId,
};
use edge::Ambient;
use local::dynoxide::actions::get_item::GetItemRequest;
use local::dynoxide::{AttributeValue, Item};
use memchr::memmem;
use network::{Order, OrderState};
use peers::ProfileState;
use serde_json::{Value, json};

use crate::ground::Ground;
use crate::people::Request;
use crate::sandbox::TABLE;
use crate::stock::{self, FREE, LINES, SECRETS};
use crate::wire::{Call, Peer};
use crate::world::World;

/// A row's keys.
type Key = (String, String);

/// A row of a swap or a mail, as it was last written.
struct Seen {
    version: u64,
    /// Whether the swap has ended, or the mail's fate is known.
    ended: bool,
    /// When the sweeper is to look, in milliseconds since 1970.
    due: Option<u64>,
    /// Until when the last claim on it was given.
    claimed_until: u64,
    /// A swap's line; empty for a mail.
    line: String,
    /// A swap's new SIM; empty for a mail.
    new_sim: String,
}

/// What is known of a mail when the world has come to rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fate {
    /// SES's answer to each attempt was known.
    Known,
    /// An answer was lost.
    Doubtful,
    /// SES refused it to the end, or the swap ended before it was sent.
    GivenUp,
    /// Answers were lost, and SES reports nothing.
    Unheard,
}

/// What was seen so far.
#[derive(Default)]
pub(crate) struct Watch {
    pub(crate) violations: Vec<String>,
    rows: BTreeMap<Key, Seen>,
    /// Swaps of whose mails SES's answer, or what came of it, was not surely known.
    doubtful: BTreeSet<String>,
    /// Tokens of transactions that were carried out: with the same one nothing is carried out again.
    tokens: BTreeSet<String>,
    /// Matching ids of all orders.
    matching_ids: BTreeSet<String>,
    /// First answers to requests with a key.
    kept: BTreeMap<String, String>,
}

impl Watch {
    /// SES's answer to this call will not be known.
    pub(crate) fn doubt(&mut self, call: &Call) {
        if let Some(id) = activation_of_mail(call) {
            self.doubtful.insert(id);
        }
    }

    /// What comes of the mails of this row's swap is not surely known.
    pub(crate) fn doubt_of(&mut self, pk: &str) {
        self.doubtful.insert(pk.trim_start_matches("A#").to_owned());
    }

    /// Whether a row was written once.
    pub(crate) fn is_new(&self, row: &Key) -> bool {
        self.rows.get(row).is_some_and(|seen| seen.version == 1)
    }

    /// When the sweeper is to look at a row.
    pub(crate) fn due(&self, row: &Key) -> Option<u64> {
        self.rows.get(row)?.due
    }

    /// Whether the sweeper has something to look at.
    pub(crate) fn is_due(&self, now: u64) -> bool {
        let mut due = self.rows.values().filter_map(|seen| seen.due);
        due.any(|due| due <= now)
    }

    /// The newest swap of a line: ids begin with the time.
    pub(crate) fn newest_swap(&self, line: &str) -> Option<String> {
        let of_line = self.rows.iter().filter(|(_, seen)| seen.line == line);
        let newest = of_line.map(|((pk, _), _)| pk).max()?;
        Some(newest.trim_start_matches("A#").to_owned())
    }

    /// A call to the SM-DP+ was carried out: its matching id is a secret from now on.
    pub(crate) fn ordered(&mut self, call: &Call) {
        let order: Value = serde_json::from_slice(&call.body).unwrap_or_default();
        if let Some(id) = order["matchingId"].as_str() {
            self.matching_ids.insert(id.to_owned());
        }
    }

    /// Rows of swaps and mails.
    pub(crate) fn rows(&self) -> Vec<Key> {
        self.rows.keys().cloned().collect()
    }

    /// A call is about to be carried out.
    pub(crate) fn before(
        &self,
        ground: &Ground,
        call: &Call,
        request: &Written,
        ambient: &Ambient,
    ) -> Vec<String> {
        let mut violations = Vec::new();
        let now = ambient.now().as_millisecond().unsigned_abs();
        match call.peer {
            Peer::Table => {
                for write in &request.writes {
                    if write.get("ConditionExpression").is_none() {
                        violations.push("a write has no condition".to_owned());
                    }
                }
            }
            Peer::Keys | Peer::Lambda => {}
            Peer::Post => {
                let id = activation_of_mail(call).unwrap_or_default();
                let mails = self.rows.iter().filter(|((pk, sk), _)| {
                    *pk == format!("A#{id}") && sk.starts_with("delivery#")
                });
                if !mails.into_iter().any(|(_, seen)| seen.claimed_until >= now) {
                    violations.push(format!("a mail of {id} is sent without a claim"));
                }
            }
            Peer::Smdp | Peer::Network => {
                let id = swap_of_call(ground, call);
                let seen = id
                    .as_ref()
                    .and_then(|id| self.rows.get(&(format!("A#{id}"), "activation".to_owned())));
                if call.method != "GET" && seen.is_none_or(|seen| seen.claimed_until < now) {
                    let path = &call.path;
                    violations.push(format!("{path} for {id:?} is called without a claim"));
                }
            }
        }
        violations
    }

    /// A write was carried out. Gives the rows that changed, and what is wrong with them.
    pub(crate) fn written(
        &mut self,
        ground: &Ground,
        request: &Written,
    ) -> (Vec<Key>, Vec<String>) {
        let mut changed = Vec::new();
        let mut violations = Vec::new();
        let mut swap = None;
        if let Some(token) = &request.token
            && !self.tokens.insert(token.clone())
        {
            return (changed, violations);
        }
        if let Some(canary) = request.in_clear {
            violations.push(format!("{canary} is written in clear"));
        }
        for write in &request.writes {
            let item = write.get("Item");
            let Some(keys) = item.or_else(|| write.get("Key")) else {
                continue;
            };
            let key = (text(keys, "pk"), text(keys, "sk"));
            if let Some(item) = item.filter(|_| key.0.starts_with("A#")) {
                if key.1 == "activation" {
                    swap = key.0.strip_prefix("A#").map(str::to_owned);
                }
                violations.extend(self.note(&key, item));
            }
            if let Some(iccid) = key.0.strip_prefix("S#") {
                violations.extend(check_freed(ground, iccid, swap.as_deref()));
            }
            if key.0.starts_with("L#") {
                violations.extend(check_line(ground, &key));
            }
            changed.push(key);
        }
        if changed.iter().any(|key| key.1 == "activation") {
            violations.extend(self.sharing());
        }
        (changed, violations)
    }

    /// What two open swaps have in common and must not.
    fn sharing(&self) -> Vec<String> {
        let mut lines = BTreeMap::new();
        let mut sims = BTreeMap::new();
        let mut shared = Vec::new();
        for (key, seen) in &self.rows {
            if key.1 != "activation" || seen.ended {
                continue;
            }
            if let Some(other) = lines.insert(&seen.line, &key.0) {
                let line = &seen.line;
                shared.push(format!(
                    "line {line} has two open swaps: {other} and {}",
                    key.0
                ));
            }
            if let Some(other) = sims.insert(&seen.new_sim, &key.0) {
                let sim = &seen.new_sim;
                shared.push(format!(
                    "SIM {sim} has two open swaps: {other} and {}",
                    key.0
                ));
            }
        }
        shared
    }

    fn note(&mut self, key: &Key, item: &Value) -> Option<String> {
        let before = self.rows.get(key);
        let version = number(item, "version");
        let least = before.map_or(1, |seen| seen.version + 1);
        let swap = key.1 == "activation";
        let claimed = if swap {
            item.get("until").is_some()
        } else {
            text(item, "state") == "claimed"
        };
        let ended = if swap {
            ["done", "error"].contains(&text(item, "phase").as_str())
        } else {
            ["sent", "delivered", "bounced", "failed"].contains(&text(item, "state").as_str())
        };
        let until = if claimed { number(item, "until") } else { 0 };
        let seen = Seen {
            version,
            ended,
            due: text(item, "dueAt").parse().ok(),
            claimed_until: until.max(before.map_or(0, |seen| seen.claimed_until)),
            line: text(item, "line"),
            new_sim: text(item, "newSim"),
        };
        let reopened = !ended && before.is_some_and(|seen| seen.ended);
        self.rows.insert(key.clone(), seen);
        if version < least {
            return Some(format!(
                "{key:?} goes to version {version}, and was at {}",
                least - 1
            ));
        }
        reopened.then(|| format!("{key:?} had ended, and is open again"))
    }

    /// A caller was answered.
    pub(crate) fn answered(&mut self, request: &Request, answer: &Value) -> Vec<String> {
        let status = answer["statusCode"].as_u64().unwrap_or(0);
        let body = answer["body"].as_str().unwrap_or_default();
        let mut violations = Vec::new();
        if status == 200 {
            if request.is_of_stranger()
                && !body.starts_with(r#"{"offset":0,"total":0,"results":[]"#)
            {
                violations.push(format!("a stranger is answered {body}"));
            }
            if let Some(identity) = request.identity()
                && ["submit-swap", "change-sim"].contains(&request.function)
            {
                let first = self.kept.entry(identity).or_insert_with(|| body.to_owned());
                // In time the confirmation code is erased, and masked here.
                let code = request.code.as_deref().unwrap_or("no code");
                if first != body && first.replace(code, "##########") != body {
                    violations.push(format!("a key is answered {first} first, then {body}"));
                }
            }
        } else if canaries().any(|canary| body.contains(canary)) {
            violations.push(format!("a refusal holds a secret: {body}"));
        }
        violations
    }

    /// How the swaps ended, and what became of each mail.
    pub(crate) fn summary(
        &self,
        ground: &Ground,
        rows: &[Item],
    ) -> (BTreeMap<String, usize>, Vec<(Fate, usize)>) {
        let mut swaps: BTreeMap<String, usize> = BTreeMap::new();
        let mut mails = Vec::new();
        for row in rows {
            let text = |name| text_of(row, name);
            if text("sk") == "activation" {
                let failure = text("failure");
                let end = if failure.is_empty() {
                    text("phase")
                } else {
                    failure
                };
                *swaps.entry(format!("{} {end}", text("kind"))).or_default() += 1;
            } else if text("sk").starts_with("delivery#") {
                let id = text("pk").trim_start_matches("A#");
                let number = text("sk").trim_start_matches("delivery#");
                let sent = sent(ground, id, number);
                let given_up = row.get("refusals")
                    == Some(&AttributeValue::N(Delivery::REFUSALS_AT_MOST.to_string()));
                let fate = match (sent, self.doubtful.contains(id)) {
                    (0, _) if given_up => Fate::GivenUp,
                    (0, true) => Fate::Unheard,
                    (_, true) => Fate::Doubtful,
                    (_, false) => Fate::Known,
                };
                mails.push((fate, sent));
            }
        }
        (swaps, mails)
    }
}

/// How often SES took this mail of a swap.
fn sent(ground: &Ground, id: &str, number: &str) -> usize {
    let of_number = format!("{number}-");
    let mails = ground.mails();
    let sent = mails
        .iter()
        .filter(|mail| mail.activation == id && mail.attempt.starts_with(&of_number));
    sent.count()
}

/// A request to the table, as far as it writes.
pub(crate) struct Written {
    /// Of a transaction each of its parts.
    writes: Vec<Value>,
    /// A transaction's.
    token: Option<String>,
    /// What must not be seen and is.
    in_clear: Option<&'static str>,
}

impl Written {
    /// Nothing for a request that does not write.
    pub(crate) fn of(call: &Call) -> Self {
        let transaction = call.operation == "TransactWriteItems";
        if call.peer != Peer::Table
            || !transaction && !["PutItem", "UpdateItem"].contains(&call.operation.as_str())
        {
            return Self {
                writes: Vec::new(),
                token: None,
                in_clear: None,
            };
        }
        let mut request: Value = serde_json::from_slice(&call.body).unwrap_or_default();
        let token = request["ClientRequestToken"].as_str().map(str::to_owned);
        let writes = match request["TransactItems"].take() {
            Value::Array(parts) => {
                let part = |part| match part {
                    Value::Object(part) => part.into_iter().next().map(|(_, write)| write),
                    _ => None,
                };
                parts.into_iter().filter_map(part).collect()
            }
            _ => vec![request],
        };
        let in_clear =
            canaries().find(|canary| memmem::find(&call.body, canary.as_bytes()).is_some());
        Self {
            writes,
            token,
            in_clear,
        }
    }
}

fn text(item: &Value, name: &str) -> String {
    item[name]["S"].as_str().unwrap_or_default().to_owned()
}

fn number(item: &Value, name: &str) -> u64 {
    let digits = item[name]["N"].as_str().unwrap_or("0");
    digits.parse().unwrap_or(0)
}

fn activation_of_mail(call: &Call) -> Option<String> {
    let form = String::from_utf8_lossy(&call.body).into_owned();
    let value = form
        .split('&')
        .find_map(|pair| pair.strip_prefix("Tags.member.1.Value="))?;
    Some(value.to_owned())
}

/// The swap that a call to the SM-DP+ or the network is made for.
fn swap_of_call(ground: &Ground, call: &Call) -> Option<String> {
    let body: Value = serde_json::from_slice(&call.body).unwrap_or_default();
    if let Some(name) = body["header"]["functionCallIdentifier"].as_str() {
        return Some(name.rsplit_once('-')?.0.to_owned());
    }
    if let Some(id) = body["externalId"].as_str() {
        return Some(id.to_owned());
    }
    let order = match body["serviceOrder"]["id"].as_str() {
        Some(order) => order,
        None => call.path.rsplit('/').next()?,
    };
    let look = Call {
        method: "GET".to_owned(),
        path: format!("{}/serviceOrder/{order}", network::tmf641::PATH),
        body: Vec::new(),
        ..call.clone()
    };
    let found: Value = serde_json::from_slice(&ground.perform(&look).body).ok()?;
    found["externalId"].as_str().map(str::to_owned)
}

/// A row as JSON.
pub(crate) fn row(ground: &Ground, pk: &str, sk: &str) -> Option<Value> {
    let key = json!({"pk": {"S": pk}, "sk": {"S": sk}});
    let request: GetItemRequest =
        serde_json::from_value(json!({"TableName": TABLE, "Key": key, "ConsistentRead": true}))
            .ok()?;
    let found = ground.database.get_item(request).ok()?;
    serde_json::to_value(found.item?).ok()
}

/// A SIM that a swap lets go of is nothing that a peer still means to use for it.
fn check_freed(ground: &Ground, iccid: &str, swap: Option<&str>) -> Option<String> {
    let sim = row(ground, &format!("S#{iccid}"), "sim")?;
    let free = text(&sim, "state") == "FREE";
    let swap = swap.filter(|_| free)?;
    let order = ground.carrier.order_state(swap).expect("the book");
    let settled = [
        None,
        Some(OrderState::Cancelled),
        Some(OrderState::Failed),
        Some(OrderState::Rejected),
    ];
    if !settled.contains(&order) {
        return Some(format!(
            "SIM {iccid} of {swap} is free while the network's order is {order:?}"
        ));
    }
    if text(&sim, "form") != "eSIM" {
        return None;
    }
    let number = Iccid::parse(iccid).expect("an ICCID");
    let profile = ground.smdp.profile_state(&number).expect("the book");
    let away = [ProfileState::Available, ProfileState::Unavailable];
    (!away.contains(&profile))
        .then(|| format!("SIM {iccid} of {swap} is free while its profile is {profile:?}"))
}

/// A line is on the SIM that the network has its number on.
fn check_line(ground: &Ground, key: &Key) -> Option<String> {
    let line = row(ground, &key.0, &key.1)?;
    let phone = Msisdn::parse(&text(&line, "phone")).expect("a number");
    let network = ground.carrier.sim_of(&phone).expect("the book");
    let stock = LINES
        .iter()
        .find(|stock| key.0 == format!("L#{}", stock.id))?;
    let network = network.as_ref().map_or(stock.sim, Iccid::as_str);
    let ours = text(&line, "sim");
    let open = line.get("swap").is_some();
    // While a swap is open the network may be ahead of us, but never behind.
    (ours != network && !open).then(|| {
        format!(
            "line {} is on {ours}, and the network has it on {network}",
            stock.id
        )
    })
}

/// Everything that must not be seen in clear. Every confirmation code begins like the last one.
fn canaries<'a>() -> impl Iterator<Item = &'a str> {
    SECRETS.into_iter().chain(["Zq7KwV"])
}

/// What is wrong with a world that has come to rest.
pub(crate) async fn judge(world: &World, rows: &[Item], logs: &str) -> Vec<String> {
    let ground = &world.ground;
    let mut wrong = Vec::new();
    let mut swaps = Vec::new();
    for row in rows.iter().filter(|row| !stock::is_as_laid(row)) {
        let (kind, name) = text_of(row, "pk").split_at(2);
        match (kind, text_of(row, "sk")) {
            ("A#", "activation") => {
                let id = ActivationId::parse(name).expect("an id");
                let stored = world.observer.swap_with_deliveries(&id).await;
                let stored = stored.expect("the table answers").expect("it is there");
                if row.contains_key("code") {
                    wrong.push(format!("the confirmation code of {id} is not erased"));
                }
                swaps.push((stored.activation, stored.deliveries));
            }
            ("L#", "line") => {
                let id = SubscriptionId::parse(name).expect("an id");
                let line = world.observer.line(&id).await;
                line.expect("a line can be read").expect("it is there");
            }
            ("S#", "sim") => {
                let iccid = Iccid::parse(name).expect("an ICCID");
                let sim = world.observer.sim(&iccid).await;
                sim.expect("a SIM can be read").expect("it is there");
            }
            _ => {}
        }
    }
    for (swap, mails) in &swaps {
        wrong.extend(judge_swap(world, swap));
        wrong.extend(judge_mails(world, swap, mails));
    }
    let by_key = rows
        .iter()
        .map(|row| ((text_of(row, "pk"), text_of(row, "sk")), row));
    wrong.extend(judge_lines_and_sims(world, &by_key.collect(), &swaps));
    let all = Call {
        peer: Peer::Network,
        method: "GET".to_owned(),
        path: format!("{}/serviceOrder", network::tmf641::PATH),
        operation: String::new(),
        body: Vec::new(),
    };
    let orders: Vec<Order> = serde_json::from_slice(&ground.perform(&all).body).unwrap_or_default();
    for order in orders {
        let id = order.external_id.unwrap_or_default();
        if !swaps.iter().any(|(swap, _)| swap.id.as_str() == id) {
            wrong.push(format!(
                "the network has an order of {id}, which is no swap"
            ));
        }
    }
    let matching_ids = world.watch.matching_ids.iter().map(String::as_str);
    let secrets: Vec<_> = canaries().chain(matching_ids).collect();
    let searched: Vec<_> = rows.iter().map(|row| (row, bytes_of(row))).collect();
    for secret in secrets {
        if logs.contains(secret) {
            wrong.push(format!("{secret} is in the log"));
        }
        for (row, bytes) in &searched {
            if memmem::find(bytes, secret.as_bytes()).is_some() {
                wrong.push(format!(
                    "{secret} is in the table: {:?} {:?}",
                    row["pk"], row["sk"]
                ));
            }
        }
    }
    for mail in ground.mails().iter() {
        let raw = String::from_utf8_lossy(&mail.raw);
        for secret in canaries().filter(|secret| raw.contains(secret)) {
            wrong.push(format!("{secret} is in a mail"));
        }
    }
    for sign in [
        "is not what it should be",
        "too many steps",
        "made us panic",
        "refused the call",
        "could not be used",
    ] {
        if let Some(line) = logs.lines().find(|line| line.contains(sign)) {
            wrong.push(format!("logged: {line}"));
        }
    }
    wrong
}

fn judge_swap(world: &World, swap: &Activation) -> Vec<String> {
    let ground = &world.ground;
    let id = &swap.id;
    let mut wrong = Vec::new();
    let orders = ground.carrier.orders_of(id.as_str()).expect("the book");
    if orders > 1 {
        wrong.push(format!("the network has {orders} orders of {id}"));
    }
    let order = ground.carrier.order_state(id.as_str()).expect("the book");
    let live = |state| matches!(state, OrderState::Held | OrderState::InProgress);
    match swap.phase {
        Phase::Done if order != Some(OrderState::Completed) => {
            wrong.push(format!(
                "{id} is done, and the network's order is {order:?}"
            ));
        }
        Phase::Error if order.is_some_and(live) || order == Some(OrderState::Completed) => {
            wrong.push(format!("{id} failed, and the network's order is {order:?}"));
        }
        Phase::Done if swap.kind == Kind::Esim => {
            let profile = ground.smdp.profile_state(&swap.new_sim).expect("the book");
            if profile != ProfileState::Installed {
                wrong.push(format!("{id} is done, and its profile is {profile:?}"));
            }
        }
        Phase::Done | Phase::Error => {}
        open => wrong.push(format!("{id} stays {open:?}: {:?}", swap.timeline)),
    }
    if swap.claim.is_some() {
        wrong.push(format!("{id} has ended, and is claimed"));
    }
    wrong
}

fn judge_mails(world: &World, swap: &Activation, mails: &[Delivery]) -> Vec<String> {
    let id = swap.id.as_str();
    let mut wrong = Vec::new();
    let all = world.ground.mails();
    let of_swap = all.iter().filter(|mail| mail.activation == id).count();
    drop(all);
    let known = !world.watch.doubtful.contains(id);
    let mut of_rows = 0;
    for mail in mails {
        let sent = sent(&world.ground, id, &mail.number.to_string());
        of_rows += sent;
        let of = format!("mail {} of {id}", mail.number);
        let open = matches!(mail.state, DeliveryState::Pending | DeliveryState::Claimed);
        if open || mail.due_at.is_some() || swap.kind == Kind::Physical {
            wrong.push(format!("{of} stays {:?}", mail.state));
        }
        if sent > 2 || sent > 1 && known {
            wrong.push(format!(
                "{of} was sent {sent} times, SES's answer known: {known}"
            ));
        }
        // SES refused it, or the swap ended first. Without SES's reports a fate may stay unknown.
        let given_up = mail.refusals >= Delivery::REFUSALS_AT_MOST;
        let unknown = !world.reports && !known && mail.state == DeliveryState::Ambiguous;
        if sent == 0 && !given_up && !unknown {
            wrong.push(format!("{of} was not sent, and is {:?}", mail.state));
        }
    }
    if of_swap != of_rows {
        wrong.push(format!(
            "{of_swap} mails of {id}, and {of_rows} of its rows"
        ));
    }
    if swap.kind == Kind::Esim && swap.phase == Phase::Done && mails.is_empty() {
        wrong.push(format!("{id} is done without a mail"));
    }
    wrong
}

fn judge_lines_and_sims(
    world: &World,
    rows: &BTreeMap<(&str, &str), &Item>,
    swaps: &[(Activation, Vec<Delivery>)],
) -> Vec<String> {
    let mut wrong = Vec::new();
    let ground = &world.ground;
    for stock in &LINES {
        let id = stock.id;
        let key = format!("L#{id}");
        let line = rows.get(&(key.as_str(), "line")).expect("no line is lost");
        let current_sim = text_of(line, "sim");
        if line.contains_key("swap") {
            let open = text_of(line, "swap");
            wrong.push(format!("line {id} is still marked by {open}"));
        }
        let phone = Msisdn::parse(text_of(line, "phone")).expect("a number");
        let network = ground.carrier.sim_of(&phone).expect("the book");
        let network = network.as_ref().map_or(stock.sim, Iccid::as_str);
        if current_sim != network {
            wrong.push(format!(
                "line {id} is on {current_sim}, the network says {network}"
            ));
        }
        let sim = format!("S#{current_sim}");
        let sim = rows.get(&(sim.as_str(), "sim")).expect("no SIM is lost");
        let (state, holder) = (text_of(sim, "state"), text_of(sim, "holder"));
        if (state, holder) != ("ACTIVATED", &key) {
            wrong.push(format!(
                "line {id} is on {current_sim}, which is {state} of {holder}"
            ));
        }
        let done = swaps.iter().map(|(swap, _)| swap);
        let done =
            done.filter(|swap| swap.subscription.as_str() == id && swap.phase == Phase::Done);
        let last = done.max_by_key(|swap| swap.ended_at);
        let expected = last.map_or(stock.sim, |swap| swap.new_sim.as_str());
        if current_sim != expected {
            wrong.push(format!(
                "line {id} is on {current_sim}, its last swap says {expected}"
            ));
        }
    }
    let numbers = FREE
        .iter()
        .map(|free| free.0)
        .chain(LINES.iter().map(|line| line.sim));
    for number in numbers {
        let key = format!("S#{number}");
        let sim = rows.get(&(key.as_str(), "sim")).expect("no SIM is lost");
        let (state, holder) = (text_of(sim, "state"), text_of(sim, "holder"));
        let on_shelf = sim.contains_key("shelf");
        let used = swaps
            .iter()
            .any(|(swap, _)| swap.old_sim.as_str() == number && swap.phase == Phase::Done);
        let fits = match (state, holder) {
            ("FREE", "") => on_shelf && !used,
            ("DISABLED", "") => !on_shelf,
            ("ACTIVATED", holder) => {
                let line = rows.get(&(holder, "line"));
                !on_shelf && line.is_some_and(|line| text_of(line, "sim") == number)
            }
            _ => false,
        };
        if !fits {
            wrong.push(format!(
                "SIM {number} is {state} of {holder:?}, on the shelf: {on_shelf}, was used: {used}"
            ));
        }
        let iccid = Iccid::parse(number).expect("an ICCID");
        let profile = ground.smdp.profile_state(&iccid).expect("the book");
        let live = matches!(
            profile,
            ProfileState::Allocated
                | ProfileState::Linked
                | ProfileState::Confirmed
                | ProfileState::Released
                | ProfileState::Error
        );
        if live {
            wrong.push(format!("the SM-DP+ still has {number} as {profile:?}"));
        }
        let on_phone = matches!(profile, ProfileState::Downloaded | ProfileState::Installed);
        if on_phone && state == "FREE" {
            wrong.push(format!("SIM {number} is free, and on a phone"));
        }
    }
    wrong
}

/// An attribute that is a text; empty for one that is not there.
fn text_of<'a>(row: &'a Item, name: &str) -> &'a str {
    match row.get(name) {
        Some(AttributeValue::S(text)) => text,
        _ => "",
    }
}

/// All texts and bytes of a row, in whatever they nest.
fn bytes_of(row: &Item) -> Vec<u8> {
    let mut bytes = Vec::new();
    for value in row.values() {
        gather(&serde_json::to_value(value).unwrap_or_default(), &mut bytes);
    }
    bytes
}

fn gather(value: &Value, bytes: &mut Vec<u8>) {
    match value {
        Value::String(text) => {
            bytes.extend_from_slice(text.as_bytes());
            bytes.push(0);
            bytes.extend(STANDARD.decode(text).unwrap_or_default());
            bytes.push(0);
        }
        Value::Array(list) => list.iter().for_each(|value| gather(value, bytes)),
        Value::Object(map) => map.values().for_each(|value| gather(value, bytes)),
        _ => {}
    }
}
