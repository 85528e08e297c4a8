//! What must hold: after every write and call while a world goes on, and of everything when it has come to rest.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use domain::{Activation, ActivationId, Delivery, DeliveryState, Iccid, Msisdn, Phase, SubscriptionId, SwapKind};
use edge::ClockAndRng;
use local::dynoxide::actions::get_item::GetItemRequest;
use local::dynoxide::{AttributeValue, Item};
use memchr::memmem;
use peers::{Order, OrderState};
use serde_json::{Value, json};
use simulators::ProfileState;

use crate::fakes::{Fakes, Mail};
use crate::quirks::Early;
use crate::sandbox::{INSTALL_WITHIN, ORDER_WITHIN, SETTLE_WITHIN, TABLE};
use crate::scheduler::{Meant, Scheduler};
use crate::stock::{self, FREE, LINES, SECRETS};
use crate::transport::{Call, Peer, Reply};
use crate::workload::{Bar, Request, THIEF};

/// Within so many milliseconds after it was asked a swap has ended, whatever its peers do.
const BOUND: u64 = {
    let deadlines = ORDER_WITHIN.as_secs() + INSTALL_WITHIN.as_secs() + 2 * SETTLE_WITHIN.as_secs();
    // The rest is for faults of our own side, which last four hours at most, and for pauses between tries.
    (deadlines + 8 * 3_600) * 1_000
};

/// A row's keys.
type Key = (String, String);

/// A row of a swap or a mail, as it was last written.
struct Seen {
    version: u64,
    /// When it was first written, in milliseconds since the beginning.
    first: u64,
    /// A swap's phase, or a mail's state.
    phase: String,
    /// When a swap first had ended.
    ended_at: Option<u64>,
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
    kept: BTreeMap<String, (String, u64)>,
    /// Whether the network's search never shows an order.
    blind: bool,
    /// Calls that were given up and will be carried out.
    pub(crate) pending: Vec<Pending>,
    /// When the network's order of a swap was last asked.
    ordered: BTreeMap<String, u64>,
    /// Swaps that a caller asked to cancel.
    cancels: BTreeSet<String>,
    /// Swaps whose order the network refused.
    rejected: BTreeSet<String>,
    /// What the network made by itself of the order of a swap.
    given_up: BTreeMap<String, Vec<OrderState>>,
    /// Swaps whose profile the SM-DP+ refused for good.
    refused: BTreeSet<String>,
    /// Profiles that the SM-DP+ gave up.
    failed_profiles: BTreeSet<String>,
    /// Swaps whose completion was told and lost for ever.
    completion_lost: BTreeSet<String>,
    /// When we took a callback that a profile is installed.
    installed: BTreeMap<String, Vec<u64>>,
    /// When we took the first event that the order of a swap is completed.
    completed: BTreeMap<String, u64>,
    /// Mails that SES refuses for good: swap and number.
    bad_mails: BTreeSet<(String, u32)>,
    /// What SES reports of a mail: whether it was delivered, and whether it bounced for good.
    reports: BTreeMap<(String, u32), (bool, bool)>,
    /// The state in which the network last showed the order of a swap.
    shown: BTreeMap<String, String>,
    /// Until when a peer is not to be called for a swap again, as it asked.
    later: BTreeMap<(String, Peer), u64>,
    /// The same, as long as the invocation that was told has not written it.
    told_later: BTreeMap<u64, (String, Peer, u64)>,
    /// When anyone but the function that calls last wrote a swap.
    others: BTreeMap<String, u64>,
    /// Who gave a confirmation code.
    givers: BTreeMap<String, &'static str>,
    /// Lines that are surely kept on their SIM, and since when we know.
    barred: BTreeMap<String, (u64, Bar)>,
    /// When an operator last began an import that speaks of such a bar of a line.
    imported: BTreeMap<(&'static str, Bar), u64>,
    /// Swaps of which a call may have been made that lets the network move the number, or was about to be.
    moving: BTreeSet<String>,
    /// Lines that an operator ever wanted to be barred.
    bars: BTreeSet<String>,
    /// Swaps without a confirmation code.
    codeless: BTreeSet<String>,
    /// Swaps that an operator was told to be stopped.
    stopped: BTreeSet<String>,
    /// When a request was last sent.
    asked: BTreeMap<usize, u64>,
    /// The line for which a caller saw the codes of a SIM that the service chose.
    shown_for: BTreeMap<String, String>,
}

/// A call that was given up and will be carried out.
pub(crate) struct Pending {
    /// When, in milliseconds since the beginning.
    pub(crate) at: u64,
    swap: String,
    path: String,
}

/// An import is over after so many milliseconds, with all that its process left on the wire.
const IMPORT_LASTS: u64 = 300_000;

/// For so long after a fact came a swap may be taken further before its time, in milliseconds.
const AWAKE: u64 = 180_000;

impl Watch {
    /// `blind`: the network's search never shows an order.
    pub(crate) fn new(blind: bool) -> Self {
        Self {
            blind,
            ..Self::default()
        }
    }

    /// A request is sent.
    pub(crate) fn asks(&mut self, n: usize, request: &Request, now: u64) {
        self.asked.insert(n, now);
        if let Some(code) = &request.code {
            self.givers.insert(code.clone(), request.caller());
        }
        if let Some((line, bar)) = request.bar {
            // One that does not speak of the lock leaves it alone, whenever it comes.
            let speaks_of = |other: Bar| bar != Bar::Other || other != Bar::Locked;
            self.barred.retain(|of, (_, other)| of != line || !speaks_of(*other));
            for other in Bar::ALL.into_iter().filter(|other| speaks_of(*other)) {
                let before = self.imported.insert((line, other), now);
                // Of two imports under way nobody knows which is the last.
                if before.is_some_and(|before| now < before + IMPORT_LASTS) {
                    self.imported.insert((line, other), now + IMPORT_LASTS);
                }
            }
            if Bar::ALL.contains(&bar) {
                self.bars.insert(line.to_owned());
            }
        }
    }

    /// An operator was answered.
    fn imported(&mut self, n: usize, line: &'static str, bar: Bar, body: &str, now: u64) -> Option<String> {
        let body: Value = serde_json::from_str(body).unwrap_or_default();
        if let Some(swap) = body["stopped"].as_str() {
            self.stopped.insert(swap.to_owned());
        }
        let last = self.imported.get(&(line, bar));
        if last.is_some() && last == self.asked.get(&n) {
            self.barred.insert(line.to_owned(), (now, bar));
        }
        let goes_on = body["goesOn"].as_str()?;
        let begun = self.moving.contains(goes_on) || self.ended(goes_on);
        (!begun).then(|| format!("{goes_on} is not stopped, and had not begun to move"))
    }

    /// A caller asks to cancel a swap.
    pub(crate) fn asked_to_cancel(&mut self, swap: &str) {
        self.cancels.insert(swap.to_owned());
    }

    /// The network gave up an order by itself.
    pub(crate) fn gave_up(&mut self, swap: &str, state: OrderState) {
        let states = self.given_up.entry(swap.to_owned()).or_default();
        states.push(state);
    }

    /// A callback is lost for ever.
    pub(crate) fn lost(&mut self, meant: &Meant) {
        match meant {
            Meant::Completed(swap) => {
                self.completion_lost.insert(swap.clone());
            }
            Meant::ProfileFailed(iccid) => {
                self.failed_profiles.insert(iccid.clone());
            }
            Meant::Installed(_) | Meant::Other => {}
        }
    }

    /// We took a callback.
    pub(crate) fn acknowledged(&mut self, meant: Option<&Meant>, now: u64) {
        match meant {
            Some(Meant::Completed(swap)) => {
                self.completed.entry(swap.clone()).or_insert(now);
            }
            Some(Meant::Installed(iccid)) => {
                self.installed.entry(iccid.clone()).or_default().push(now);
            }
            Some(Meant::ProfileFailed(iccid)) => {
                self.failed_profiles.insert(iccid.clone());
            }
            Some(Meant::Other) | None => {}
        }
    }

    /// What SES reports of a mail.
    pub(crate) fn reported(&mut self, mail: &Mail, kinds: &[(&str, &str)]) {
        let number = mail.attempt.split('-').next().unwrap_or_default();
        let key = (mail.activation.clone(), number.parse().unwrap_or(0));
        let (delivered, bounced) = self.reports.entry(key).or_default();
        *delivered |= kinds.contains(&("Delivery", ""));
        *bounced |= kinds.contains(&("Bounce", "Permanent"));
    }

    /// A call is given up now and will be carried out.
    pub(crate) fn belated(&mut self, ground: &Fakes, call: &Call, now: u64, at: u64) {
        let Some(swap) = swap_of_call(ground, call).filter(|_| call.method != "GET") else {
            return;
        };
        if call.path.ends_with("/serviceOrder") {
            self.ordered.insert(swap.clone(), now);
        }
        self.pending.push(Pending {
            at,
            swap,
            path: call.path.clone(),
        });
    }

    /// When the network's order of a swap was last asked.
    pub(crate) fn last_ordered(&self, swap: &str) -> u64 {
        self.ordered.get(swap).copied().unwrap_or(0)
    }

    /// A function wrote rows.
    pub(crate) fn wrote(&mut self, invocation: u64, function: &str, request: &Written, now: u64) {
        for write in &request.writes {
            let Some(item) = write.get("Item").filter(|item| text(item, "sk") == "activation") else {
                continue;
            };
            let key = (text(item, "pk"), text(item, "sk"));
            let swap = key.0.trim_start_matches("A#").to_owned();
            let moved = self
                .rows
                .get(&key)
                .is_some_and(|seen| seen.phase != text(item, "phase"));
            // An invocation may have several swaps at hand.
            let told = self.told_later.get(&invocation);
            let told = match told.is_some_and(|(of, ..)| *of == swap) {
                true => self.told_later.remove(&invocation),
                false => None,
            };
            if function != "fulfil-swap" {
                self.others.insert(swap.clone(), now);
            }
            let others = self.others.get(&swap).copied();
            if moved || others.is_some_and(|at| now < at + AWAKE) {
                self.later.retain(|(of, _), _| *of != swap);
            } else if let Some((_, peer, until)) = told {
                self.later.insert((swap, peer), until);
            }
        }
    }

    /// A caller hears this reply, or something that means the same. `state`: in which the order is shown; `wait`: until
    /// when the peer asks us to wait.
    pub(crate) fn heard(
        &mut self,
        ground: &Fakes,
        invocation: u64,
        call: &Call,
        reply: &Reply,
        state: Option<String>,
        wait: Option<u64>,
    ) {
        let orders = call.method == "PATCH" || call.method == "POST" && call.path.ends_with("/serviceOrder");
        match call.peer {
            Peer::Network => {
                let Some(swap) = swap_of_call(ground, call) else {
                    return;
                };
                if orders && [400, 422].contains(&reply.status) {
                    self.rejected.insert(swap.clone());
                }
                if let Some(state) = state {
                    self.shown.insert(swap.clone(), state);
                }
                if let Some(until) = wait {
                    self.told_later.insert(invocation, (swap, call.peer, until));
                }
            }
            Peer::Smdp => {
                let Some(swap) = swap_of_call(ground, call) else {
                    return;
                };
                let body: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
                let status = &body["header"]["functionExecutionStatus"];
                let code = |name: &str| status["statusCodeData"][name].as_str().unwrap_or_default();
                let for_now = matches!(
                    (code("subjectCode"), code("reasonCode")),
                    ("8.2.5", "3.7") | ("8.2.1" | "8.2.6", "3.3") | ("8.9", _)
                );
                let orders = ["downloadOrder", "confirmOrder"];
                let orders = orders.iter().any(|name| call.path.ends_with(name));
                if orders && reply.status == 200 && status["status"] == "Failed" && !for_now {
                    self.refused.insert(swap.clone());
                }
                if let Some(until) = wait {
                    self.told_later.insert(invocation, (swap, call.peer, until));
                }
            }
            Peer::Post => {
                let text = String::from_utf8_lossy(&reply.body);
                let bad = text.contains("MessageRejected") && !text.contains("not verified");
                if bad && let Some(mail) = mail_of_call(call) {
                    self.bad_mails.insert(mail);
                }
            }
            Peer::Table | Peer::Keys | Peer::Lambda => {}
        }
    }

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

    /// When a mail was first written.
    fn written_at(&self, swap: &ActivationId, number: u32) -> Option<u64> {
        let pk = format!("A#{swap}");
        let mut mails = self.rows.iter().filter(|((of, sk), _)| {
            let of_number = sk.strip_prefix("delivery#");
            *of == pk && of_number.and_then(|text| text.parse().ok()) == Some(number)
        });
        mails.next().map(|(_, seen)| seen.first)
    }

    /// Whether a swap has ended, or is on its way to ERROR.
    fn ended(&self, swap: &str) -> bool {
        let seen = self.rows.get(&(format!("A#{swap}"), "activation".to_owned()));
        seen.is_some_and(|seen| seen.ended || seen.phase == "ending")
    }

    fn seen(&self, swap: &ActivationId) -> Option<&Seen> {
        self.rows.get(&(format!("A#{swap}"), "activation".to_owned()))
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
        &mut self,
        ground: &Fakes,
        call: &Call,
        request: &Written,
        since_begin: u64,
        ambient: &ClockAndRng,
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
                let mails = self
                    .rows
                    .iter()
                    .filter(|((pk, sk), _)| *pk == format!("A#{id}") && sk.starts_with("delivery#"));
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
                let Some(id) = id else {
                    return violations;
                };
                let places = call.method == "POST" && call.path.ends_with("/serviceOrder");
                if places {
                    self.ordered.insert(id.clone(), since_begin);
                }
                let held = memmem::find(&call.body, b"startOn").is_some();
                let moves = call.method == "PATCH" || places && !held;
                if moves && self.stopped.contains(&id) {
                    violations.push(format!("{id} is started, and was stopped"));
                }
                let shown = self.shown.get(&id).map_or("", String::as_str);
                if call.path.ends_with("/cancelServiceOrder") && shown.ends_with("Cancellation") {
                    violations.push(format!("{id} is cancelled again, and was {shown}"));
                }
                let later = self.later.get(&(id.clone(), call.peer));
                if let Some(later) = later.filter(|later| since_begin + 1_000 < **later) {
                    let (peer, early) = (call.peer, later - since_begin);
                    violations.push(format!(
                        "{peer:?} is called for {id}, {early} ms before the time it asked for"
                    ));
                }
            }
        }
        violations
    }

    /// A write was carried out. Gives the rows that changed, and what is wrong with them.
    pub(crate) fn written(&mut self, ground: &Fakes, request: &Written, now: u64) -> (Vec<Key>, Vec<String>) {
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
                violations.extend(self.note(&key, item, now));
            }
            if let Some(iccid) = key.0.strip_prefix("S#") {
                violations.extend(self.check_freed(ground, iccid, swap.as_deref()));
            }
            if key.0.starts_with("L#") {
                violations.extend(self.check_line(ground, &key));
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
                shared.push(format!("line {line} has two open swaps: {other} and {}", key.0));
            }
            if let Some(other) = sims.insert(&seen.new_sim, &key.0) {
                let sim = &seen.new_sim;
                shared.push(format!("SIM {sim} has two open swaps: {other} and {}", key.0));
            }
        }
        shared
    }

    fn note(&mut self, key: &Key, item: &Value, now: u64) -> Option<String> {
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
        let phase = text(item, if swap { "phase" } else { "state" });
        if swap {
            let card = text(item, "kind") == "physical";
            let installed = text(item, "profile") == "installed";
            let claims = claimed && (card && phase == "ordering" || installed && phase == "ordered");
            let started = ["started", "completed"].contains(&text(item, "order").as_str());
            if claims || started || phase == "started" {
                self.moving.insert(key.0.trim_start_matches("A#").to_owned());
            }
        }
        let first = before.map_or(now, |seen| seen.first);
        let ended_at = before.and_then(|seen| seen.ended_at).or(ended.then_some(now));
        let was = before.map_or(String::new(), |seen| seen.phase.clone());
        let seen = Seen {
            version,
            first,
            phase: phase.clone(),
            ended_at,
            ended,
            due: text(item, "dueAt").parse().ok(),
            claimed_until: until.max(before.map_or(0, |seen| seen.claimed_until)),
            line: text(item, "line"),
            new_sim: text(item, "newSim"),
        };
        let reopened = !ended && before.is_some_and(|seen| seen.ended);
        let (line, sim) = (seen.line.clone(), seen.new_sim.clone());
        let begun = swap && before.is_none();
        self.rows.insert(key.clone(), seen);
        if version < least {
            return Some(format!("{key:?} goes to version {version}, and was at {}", least - 1));
        }
        if swap && !ended && now > first + BOUND {
            return Some(format!("{key:?} is not ended in time, and is {phase}"));
        }
        // The network's word comes late now and then.
        let ends_otherwise = swap && was == "done" && phase != "done";
        if ends_otherwise {
            return Some(format!("{key:?} was done, and is {phase}"));
        }
        if begun && item.get("hasCode").is_none() {
            let swap = key.0.trim_start_matches("A#");
            self.codeless.insert(swap.to_owned());
        }
        if begun && self.barred.contains_key(&line) {
            return Some(format!("{key:?} begins on {line}, which is barred"));
        }
        if let Some(other) = self.shown_for.get(&sim).filter(|other| begun && **other != line) {
            return Some(format!("SIM {sim} is for {line}, and its codes were shown for {other}"));
        }
        reopened.then(|| format!("{key:?} had ended, and is open again"))
    }

    /// A caller was answered, so many milliseconds after the beginning.
    pub(crate) fn answered(&mut self, n: usize, request: &Request, answer: &Value, now: u64) -> Vec<String> {
        let status = answer["statusCode"].as_u64().unwrap_or(0);
        let body = answer["body"].as_str().unwrap_or_default();
        let mut violations = Vec::new();
        if let (200, Some((line, bar))) = (status, request.bar) {
            violations.extend(self.imported(n, line, bar, body, now));
            return violations;
        }
        for (code, giver) in &self.givers {
            if *giver != request.caller() && body.contains(code) {
                violations.push(format!("{} is shown the code of {giver}", request.caller()));
            }
        }
        if let (200, Some((account, chosen))) = (status, request.wants_codes()) {
            let asked = self.asked.get(&n).copied().unwrap_or(now);
            if self.barred.get(account).is_some_and(|(since, _)| *since < asked) {
                violations.push(format!("codes of {account} are shown, which is barred"));
            }
            let seen: Value = serde_json::from_str(body).unwrap_or_default();
            let sim = seen["mvnoSim"]["simNumber"].as_str().unwrap_or_default();
            if chosen {
                self.shown_for.insert(sim.to_owned(), account.to_owned());
            }
        }
        if status == 200 {
            if request.is_of_stranger() && !body.starts_with(r#"{"offset":0,"total":0,"results":[]"#) {
                violations.push(format!("a stranger is answered {body}"));
            }
            if let Some(identity) = request.identity()
                && ["submit-swap", "change-sim"].contains(&request.function)
            {
                // An answer is kept for a day at least, and for 25 hours at most. The answer may have been late.
                const DAY: u64 = 24 * 3_600_000;
                if self.kept.get(&identity).is_some_and(|(_, at)| now > at + DAY - 120_000) {
                    self.kept.remove(&identity);
                }
                let kept = self.kept.entry(identity);
                let (first, _) = kept.or_insert_with(|| (body.to_owned(), now));
                // In time the confirmation code is erased, and masked here.
                let code = request.code.as_deref().unwrap_or("no code");
                if *first != body && first.replace(code, "##########") != body {
                    violations.push(format!("a key is answered {first} first, then {body}"));
                }
            }
        } else if canaries().any(|canary| body.contains(canary)) {
            violations.push(format!("a refusal holds a secret: {body}"));
        }
        violations
    }

    /// How the swaps ended, and what became of each mail.
    pub(crate) fn summary(&self, ground: &Fakes, rows: &[Item]) -> (BTreeMap<String, usize>, Vec<(Fate, usize)>) {
        let mut swaps: BTreeMap<String, usize> = BTreeMap::new();
        let mut mails = Vec::new();
        for row in rows {
            let text = |name| text_of(row, name);
            if text("sk") == "activation" {
                let failure = text("failure");
                let end = if failure.is_empty() { text("phase") } else { failure };
                *swaps.entry(format!("{} {end}", text("kind"))).or_default() += 1;
            } else if text("sk").starts_with("delivery#") {
                let id = text("pk").trim_start_matches("A#");
                let number = text("sk").trim_start_matches("delivery#");
                let sent = sent(ground, id, number.parse().expect("mails have numbers"));
                let given_up = text("state") == "failed";
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
fn sent(ground: &Fakes, id: &str, number: u32) -> usize {
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
        if call.peer != Peer::Table || !transaction && !["PutItem", "UpdateItem"].contains(&call.operation.as_str()) {
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
        let in_clear = canaries().find(|canary| memmem::find(&call.body, canary.as_bytes()).is_some());
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

/// The swap and the number of a mail.
fn mail_of_call(call: &Call) -> Option<(String, u32)> {
    let form = String::from_utf8_lossy(&call.body).into_owned();
    let attempt = form
        .split('&')
        .find_map(|pair| pair.strip_prefix("Tags.member.2.Value="))?;
    let number = attempt.split(['-', '%']).next()?.parse().ok()?;
    Some((activation_of_mail(call)?, number))
}

/// The swap that a call to the SM-DP+ or the network is made for.
pub(crate) fn swap_of_call(ground: &Fakes, call: &Call) -> Option<String> {
    let body: Value = serde_json::from_slice(&call.body).unwrap_or_default();
    if let Some(name) = body["header"]["functionCallIdentifier"].as_str() {
        return Some(name.rsplit_once('-')?.0.to_owned());
    }
    if let Some(id) = body["externalId"].as_str() {
        return Some(id.to_owned());
    }
    if let Some((_, id)) = call.path.split_once("externalId=") {
        return Some(id.to_owned());
    }
    let order = match body["serviceOrder"]["id"].as_str() {
        Some(order) => order,
        None => call.path.rsplit('/').next()?,
    };
    let found = ground.order(order);
    found["externalId"].as_str().map(str::to_owned)
}

/// A row as JSON.
pub(crate) fn row(ground: &Fakes, pk: &str, sk: &str) -> Option<Value> {
    let key = json!({"pk": {"S": pk}, "sk": {"S": sk}});
    let request: GetItemRequest =
        serde_json::from_value(json!({"TableName": TABLE, "Key": key, "ConsistentRead": true})).ok()?;
    let found = ground.database.get_item(request).ok()?;
    serde_json::to_value(found.item?).ok()
}

impl Watch {
    /// A SIM that a swap lets go of is nothing that a peer still means to use for it.
    fn check_freed(&self, ground: &Fakes, iccid: &str, swap: Option<&str>) -> Option<String> {
        let sim = row(ground, &format!("S#{iccid}"), "sim")?;
        let free = text(&sim, "state") == "FREE";
        let swap = swap.filter(|_| free)?;
        let free_from: u64 = text(&sim, "freeFrom").parse().unwrap_or(0);
        let begin: jiff::Timestamp = crate::scheduler::BEGIN.parse().expect("it is a time");
        let free_from = free_from.saturating_sub(begin.as_millisecond().unsigned_abs());
        let order = ground.carrier.order_state(swap).expect("the book");
        let orders =
            |path: &str| path.ends_with("/serviceOrder") && order.is_none() || path.ends_with("/downloadOrder");
        let mut pending = self.pending.iter().filter(|one| orders(&one.path));
        if let Some(pending) = pending.find(|one| one.swap == swap && one.at > free_from) {
            let (path, at) = (&pending.path, pending.at);
            return Some(format!(
                "SIM {iccid} of {swap} is free from {free_from} on, and {path} is carried out at {at}"
            ));
        }
        let settled = [
            None,
            Some(OrderState::Cancelled),
            Some(OrderState::Failed),
            Some(OrderState::Rejected),
        ];
        if !settled.contains(&order) && !self.is_hidden(ground, swap) {
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
        (!away.contains(&profile)).then(|| format!("SIM {iccid} of {swap} is free while its profile is {profile:?}"))
    }

    /// Whether the network may have an order of this swap without any way for us to learn of it: its search never shows
    /// one, and neither an answer nor an event has told the order's id.
    fn is_hidden(&self, ground: &Fakes, swap: &str) -> bool {
        let unnamed = || {
            let swap = row(ground, &format!("A#{swap}"), "activation");
            swap.is_none_or(|swap| swap.get("orderNumber").is_none())
        };
        self.blind && unnamed()
    }

    /// Whether the network may have carried out a swap that failed without any way for us to learn of it.
    fn is_unknowable(&self, ground: &Fakes, swap: &str) -> bool {
        let given_up = || {
            let swap = row(ground, &format!("A#{swap}"), "activation");
            swap.is_some_and(|swap| text(&swap, "failure") == "unsettled")
        };
        self.is_hidden(ground, swap) || self.completion_lost.contains(swap) && given_up()
    }

    /// The swaps of a line.
    fn swaps_of<'a>(&'a self, line: &'a str) -> impl Iterator<Item = &'a str> {
        let of_line = self.rows.iter().filter(move |(_, seen)| seen.line == line);
        of_line.map(|((pk, _), _)| pk.trim_start_matches("A#"))
    }

    /// A line is on the SIM that the network has its number on.
    fn check_line(&self, ground: &Fakes, key: &Key) -> Option<String> {
        let line = row(ground, &key.0, &key.1)?;
        let phone = Msisdn::parse(&text(&line, "phone")).expect("a number");
        let network = ground.carrier.sim_of(&phone).expect("the book");
        let stock = LINES.iter().find(|stock| key.0 == format!("L#{}", stock.id))?;
        let network = network.as_ref().map_or(stock.sim, Iccid::as_str);
        let ours = text(&line, "sim");
        // While a swap is open the network may be ahead of us, but never behind.
        let excused = line.get("swap").is_some() || line.get("disputed").is_some();
        // One that was given up may be carried out, and the event is on its way.
        let mut swaps = self.swaps_of(stock.id);
        let given_up = |swap: &str| {
            let swap = row(ground, &format!("A#{swap}"), "activation");
            swap.is_some_and(|swap| text(&swap, "failure") == "unsettled")
        };
        (ours != network && !excused && !swaps.any(|swap| given_up(swap) || self.is_hidden(ground, swap)))
            .then(|| format!("line {} is on {ours}, and the network has it on {network}", stock.id))
    }
}

/// Everything that must not be seen in clear. Every confirmation code begins like the last one.
fn canaries<'a>() -> impl Iterator<Item = &'a str> {
    SECRETS.into_iter().chain(["Zq7KwV"])
}

/// What is wrong with a world that has come to rest.
pub(crate) async fn judge(world: &Scheduler, rows: &[Item], logs: &str) -> Vec<String> {
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
                for secret in ["code", "matchingId", "phone", "email", "contact"] {
                    if row.contains_key(secret) {
                        wrong.push(format!("the {secret} of {id} is not erased"));
                    }
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
    let disputed: BTreeSet<_> = rows
        .iter()
        .filter(|row| text_of(row, "sk") == "activation")
        .filter(|row| row.get("disputed") == Some(&AttributeValue::BOOL(true)))
        .map(|row| text_of(row, "pk").trim_start_matches("A#"))
        .collect();
    for (swap, mails) in &swaps {
        let disputed = disputed.contains(swap.id.as_str());
        wrong.extend(judge_swap(world, swap, disputed));
        wrong.extend(judge_mails(world, swap, mails));
    }
    let by_key = rows.iter().map(|row| ((text_of(row, "pk"), text_of(row, "sk")), row));
    wrong.extend(judge_lines_and_sims(world, &by_key.collect(), &swaps));
    let all = Call {
        peer: Peer::Network,
        method: "GET".to_owned(),
        path: format!("{}/serviceOrder", peers::tmf641::PATH),
        operation: String::new(),
        body: Vec::new(),
    };
    let orders: Vec<Order> = serde_json::from_slice(&ground.perform(&all).body).unwrap_or_default();
    for order in orders {
        let id = order.external_id.unwrap_or_default();
        if !swaps.iter().any(|(swap, _)| swap.id.as_str() == id) {
            wrong.push(format!("the network has an order of {id}, which is no swap"));
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
                wrong.push(format!("{secret} is in the table: {:?} {:?}", row["pk"], row["sk"]));
            }
        }
    }
    for mail in ground.mails().iter() {
        let raw = String::from_utf8_lossy(&mail.raw);
        for secret in canaries().filter(|secret| raw.contains(secret)) {
            wrong.push(format!("{secret} is in a mail"));
        }
        if mail.to == THIEF && world.watch.codeless.contains(&mail.activation) {
            wrong.push(format!("a code of {} that is enough goes to a thief", mail.activation));
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

fn judge_swap(world: &Scheduler, swap: &Activation, disputed: bool) -> Vec<String> {
    let (ground, watch) = (&world.ground, &world.watch);
    let id = &swap.id;
    let mut wrong = Vec::new();
    let orders = ground.carrier.orders_of(id.as_str()).expect("the book");
    if orders > 1 {
        wrong.push(format!("the network has {orders} orders of {id}"));
    }
    let order = ground.carrier.order_state(id.as_str()).expect("the book");
    let unsettled = swap.failure.is_some_and(|failure| failure.code() == "unsettled");
    let excused = disputed || watch.is_unknowable(ground, id.as_str());
    match (swap.phase, order) {
        (Phase::Done, Some(OrderState::Completed)) => {}
        (Phase::Done, order) => {
            wrong.push(format!("{id} is done, and the network's order is {order:?}"));
        }
        (Phase::Error, Some(OrderState::Completed)) if !excused => {
            wrong.push(format!("{id} failed, and the network's order is completed"));
        }
        (Phase::Error, Some(OrderState::Held | OrderState::InProgress)) if !unsettled && !excused => {
            wrong.push(format!("{id} failed, and the network's order is {order:?}"));
        }
        (Phase::Error, _) => {}
        (open, _) => wrong.push(format!("{id} stays {open:?}: {:?}", swap.timeline)),
    }
    if swap.phase == Phase::Done && swap.kind == SwapKind::Esim && world.quirks().early != Early::Started {
        let profile = ground.smdp.profile_state(&swap.new_sim).expect("the book");
        if profile != ProfileState::Installed {
            wrong.push(format!("{id} is done, and its profile is {profile:?}"));
        }
    }
    if swap.claim.is_some() {
        wrong.push(format!("{id} has ended, and is claimed"));
    }
    let stopped = watch.stopped.contains(id.as_str());
    if stopped && swap.phase == Phase::Done && world.quirks().early != Early::Started {
        wrong.push(format!("{id} is done, and was stopped"));
    }
    if !swap.is_anonymous() {
        wrong.push(format!("{id} is not anonymous in the end"));
    }
    wrong.extend(judge_failure(world, swap));
    if let Some(completed) = watch.completed.get(id.as_str())
        && world.is_prompt()
        && let Some(seen) = watch.seen(id)
        && let Some(ended) = seen.ended_at
        && swap.phase == Phase::Done
        && ended > completed + PROMPT
    {
        let late = (ended - completed) / 1_000;
        wrong.push(format!("{id} is done {late} s after we heard that it is"));
    }
    wrong
}

/// Within so many milliseconds after the network's word a swap is done, where nothing goes wrong but that all is slow.
const PROMPT: u64 = 240_000;

/// A swap fails only for a reason that there was.
fn judge_failure(world: &Scheduler, swap: &Activation) -> Option<String> {
    let watch = &world.watch;
    let id = swap.id.as_str();
    let failure = swap.failure.filter(|_| swap.phase == Phase::Error)?.code();
    let (first, ended) = {
        let seen = watch.seen(&swap.id)?;
        (seen.first, seen.ended_at?)
    };
    // A row is seen when its write arrives, some seconds after the time that stands in it.
    let lasted = ended - first + 10_000;
    let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(0);
    let given_up = watch.given_up.get(id);
    let given_up = |state| given_up.is_some_and(|states| states.contains(&state));
    let installed = watch.installed.get(swap.new_sim.as_str());
    let expiry = first + millis(INSTALL_WITHIN);
    let was_installed = installed.is_some_and(|times| times.iter().any(|at| *at > first && *at + 1_000 < expiry));
    let fits = match failure {
        "networkRejected" => watch.rejected.contains(id) || given_up(OrderState::Rejected),
        "networkFailed" => given_up(OrderState::Failed),
        "networkCancelled" => given_up(OrderState::Cancelled),
        "profileRefused" => watch.refused.contains(id),
        "profileFailed" => watch.failed_profiles.contains(swap.new_sim.as_str()),
        "unavailable" => lasted >= millis(ORDER_WITHIN) && !world.lets_all_end(),
        "expired" => lasted >= millis(INSTALL_WITHIN) && !was_installed,
        "unsettled" => lasted >= millis(SETTLE_WITHIN) && !world.lets_all_end(),
        "cancelled" => watch.cancels.contains(id),
        "stopped" => watch.bars.contains(swap.subscription.as_str()),
        _ => false,
    };
    let seconds = lasted / 1_000;
    (!fits).then(|| {
        format!(
            "{id} failed after {seconds} s for no reason: {failure}, installed in time: {was_installed}: {:?}",
            swap.timeline
        )
    })
}

fn judge_mails(world: &Scheduler, swap: &Activation, mails: &[Delivery]) -> Vec<String> {
    let id = swap.id.as_str();
    let mut wrong = Vec::new();
    let all = world.ground.mails();
    let of_swap = all.iter().filter(|mail| mail.activation == id).count();
    drop(all);
    let known = !world.watch.doubtful.contains(id);
    let mut of_rows = 0;
    for mail in mails {
        let sent = sent(&world.ground, id, mail.number);
        of_rows += sent;
        let of = format!("mail {} of {id}", mail.number);
        let open = matches!(mail.state, DeliveryState::Pending | DeliveryState::Claimed);
        if open || mail.due_at.is_some() || swap.kind == SwapKind::Physical {
            wrong.push(format!("{of} stays {:?}", mail.state));
        }
        let silent = world.reports && world.quirks().silent;
        let most = match (known, silent) {
            (true, _) => 1,
            (false, false) => 2,
            (false, true) => 3,
        };
        if sent > most {
            wrong.push(format!("{of} was sent {sent} times, SES's answer known: {known}"));
        }
        // SES refused it, or the swap ended first. Without SES's reports a fate may stay unknown.
        let given_up = mail.state == DeliveryState::Failed || mail.refusals >= Delivery::REFUSALS_AT_MOST;
        let unknown = (!world.reports || silent) && mail.doubts > 0 && mail.state == DeliveryState::Ambiguous;
        if sent == 0 && !given_up && !unknown {
            wrong.push(format!("{of} was not sent, and is {:?}", mail.state));
        }
        let key = (id.to_owned(), mail.number);
        let bad = world.watch.bad_mails.contains(&key);
        // A claim whose holder died before it called SES is an attempt of unknown fate too.
        let used_up = (!world.reports || silent) && mail.doubts >= Delivery::DOUBTS_UNREPORTED;
        if sent == 0 && !bad && !used_up && known && mail.number == swap.mails && was_waited_for(world, swap, mail) {
            wrong.push(format!("{of} was waited for and never sent"));
        }
        let (delivered, bounced) = world.watch.reports.get(&key).copied().unwrap_or_default();
        if mail.state == DeliveryState::Bounced && delivered && !bounced {
            wrong.push(format!("{of} was delivered, and is called bounced"));
        }
    }
    if of_swap != of_rows {
        wrong.push(format!("{of_swap} mails of {id}, and {of_rows} of its rows"));
    }
    // A network that starts by itself may complete before the order is written.
    let early = world.quirks().early == Early::Started;
    if swap.kind == SwapKind::Esim && swap.phase == Phase::Done && mails.is_empty() && !early {
        wrong.push(format!("{id} is done without a mail"));
    }
    wrong
}

/// Whether a swap waited for its installation to the end, and for so long with this mail while SES took mails that it would
/// have been sent.
fn was_waited_for(world: &Scheduler, swap: &Activation, mail: &Delivery) -> bool {
    const LONG_ENOUGH: u64 = 100 * 60_000;
    let waited = match swap.failure.map(|failure| failure.code()) {
        Some("expired") => true,
        // The network says that it has started, and waits for the phone as we do.
        Some("unsettled") => {
            world.quirks().early == Early::Shown
                && swap.profile < Some(domain::ProfileState::Downloaded)
                && !world.watch.cancels.contains(swap.id.as_str())
                && !world.watch.stopped.contains(swap.id.as_str())
        }
        _ => false,
    };
    let ended = world.watch.seen(&swap.id).and_then(|seen| seen.ended_at);
    let written = world.watch.written_at(&swap.id, mail.number);
    let (Some(ended), Some(from), Some(written)) = (ended, world.mails_from(), written) else {
        return false;
    };
    waited && ended > from.max(written) + LONG_ENOUGH
}

fn judge_lines_and_sims(
    world: &Scheduler,
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
        let mut of_line = world.watch.swaps_of(id);
        let unknowable = of_line.any(|swap| world.watch.is_unknowable(ground, swap));
        let excused = line.contains_key("disputed") || unknowable;
        if current_sim != network && !excused {
            wrong.push(format!("line {id} is on {current_sim}, the network says {network}"));
        }
        for kept in ["keptCard", "keptEsim"].map(|name| text_of(line, name)) {
            let sim = format!("S#{kept}");
            let sim = rows.get(&(sim.as_str(), "sim"));
            let state = sim.map(|sim| (text_of(sim, "state"), text_of(sim, "holder")));
            if !kept.is_empty() && state != Some(("FREE", key.as_str())) {
                wrong.push(format!("line {id} keeps {kept}, which is {state:?}"));
            }
        }
        let sim = format!("S#{current_sim}");
        let sim = rows.get(&(sim.as_str(), "sim")).expect("no SIM is lost");
        let (state, holder) = (text_of(sim, "state"), text_of(sim, "holder"));
        if (state, holder) != ("ACTIVATED", &key) {
            wrong.push(format!("line {id} is on {current_sim}, which is {state} of {holder}"));
        }
        let done = swaps.iter().map(|(swap, _)| swap);
        let done = done.filter(|swap| swap.subscription.as_str() == id && swap.phase == Phase::Done);
        let last = done.max_by_key(|swap| swap.ended_at);
        let expected = last.map_or(stock.sim, |swap| swap.new_sim.as_str());
        let used_there = format!("S#{network}");
        let used_there = rows.get(&(used_there.as_str(), "sim"));
        if used_there.is_some_and(|sim| text_of(sim, "state") == "FREE") && !unknowable {
            wrong.push(format!("SIM {network} is free, and the network has {id} on it"));
        }
        if current_sim != expected {
            wrong.push(format!("line {id} is on {current_sim}, its last swap says {expected}"));
        }
    }
    for (swap, _) in swaps {
        let unsettled = swap.failure.is_some_and(|failure| failure.code() == "unsettled");
        let key = format!("S#{}", swap.new_sim);
        let sim = rows.get(&(key.as_str(), "sim")).expect("no SIM is lost");
        let state = text_of(sim, "state");
        if unsettled && state != "DISABLED" {
            let id = &swap.id;
            wrong.push(format!("{id} is unsettled, and its SIM is {state}"));
        }
    }
    let numbers = FREE.iter().map(|free| free.0).chain(LINES.iter().map(|line| line.sim));
    for number in numbers {
        let key = format!("S#{number}");
        let sim = rows.get(&(key.as_str(), "sim")).expect("no SIM is lost");
        let (state, holder) = (text_of(sim, "state"), text_of(sim, "holder"));
        let on_shelf = sim.contains_key("shelf");
        let used = swaps
            .iter()
            .any(|(swap, _)| swap.old_sim.as_str() == number && swap.phase == Phase::Done);
        let fits = match (state, holder) {
            // One that a caller named and saw the codes of is assigned to nobody any more.
            ("FREE", "") => {
                let shown = sim.get("codesShown") == Some(&AttributeValue::BOOL(true));
                on_shelf != shown && !used && !world.watch.shown_for.contains_key(number)
            }
            ("FREE", holder) => {
                let kept = ["keptCard", "keptEsim"];
                let line = rows.get(&(holder, "line"));
                let keeps = line.is_some_and(|line| kept.iter().any(|n| text_of(line, n) == number));
                !on_shelf && !used && keeps
            }
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
        // A profile that a phone fetched and gave up later was none to be cancelled any more.
        let used_up = profile == ProfileState::Error && state == "DISABLED";
        let live = !used_up
            && matches!(
                profile,
                ProfileState::Allocated
                    | ProfileState::Linked
                    | ProfileState::Confirmed
                    | ProfileState::Released
                    | ProfileState::Error
            );
        let of_sim = swaps.iter().map(|(swap, _)| swap);
        let mut of_sim = of_sim.filter(|swap| swap.new_sim.as_str() == number);
        let given_up = of_sim.any(|swap| {
            let unsettled = swap.failure.is_some_and(|failure| failure.code() == "unsettled");
            let early = swap.phase == Phase::Done && world.quirks().early == Early::Started;
            unsettled || early
        });
        if live && !(given_up && state != "FREE") {
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
