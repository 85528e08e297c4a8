//! What must be true of every call, every write and every response during a run. What must be true at the end is in the
//! modules beside this one.

use std::collections::BTreeMap;

use domain::{Iccid, Msisdn};
use edge::ClockAndRng;
use memchr::memmem;
use peers::OrderState;
use serde_json::Value;
use simulators::ProfileState;

use super::monitor::{Monitor, RowState};
use super::profiles::ProfileRow;
use super::secrets::canary_secrets;
use super::{Key, activation_of_mail, json_number, json_string, row, swap_of_call};
use crate::fakes::Fakes;
use crate::sandbox::{INSTALL_WITHIN, ORDER_WITHIN, SETTLE_WITHIN};
use crate::stock::LINES;
use crate::transport::{Call, Peer};
use crate::workload::Request;

/// A swap ends within this time after its request, in milliseconds, whatever its peers do.
const MAX_SWAP_TIME: u64 = {
    let deadlines = ORDER_WITHIN.as_secs() + INSTALL_WITHIN.as_secs() + 2 * SETTLE_WITHIN.as_secs();
    // The rest allows for faults on our own side, which last four hours at most, and for pauses between attempts.
    (deadlines + 8 * 3_600) * 1_000
};

/// The writes in a request to the table.
pub(crate) struct WriteRequest {
    /// Of a transaction, each of its parts.
    pub(super) writes: Vec<Value>,
    /// The token of a transaction.
    token: Option<String>,
    /// A secret that the request contains unencrypted.
    in_clear: Option<&'static str>,
}

impl WriteRequest {
    /// Empty for a request that does not write.
    pub(crate) fn parse(call: &Call) -> Self {
        let transaction = call.operation == "TransactWriteItems";
        if call.peer != Peer::DynamoDb || !transaction && !["PutItem", "UpdateItem"].contains(&call.operation.as_str())
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
        let in_clear = canary_secrets().find(|canary| memmem::find(&call.body, canary.as_bytes()).is_some());
        Self {
            writes,
            token,
            in_clear,
        }
    }
}

impl Monitor {
    /// Checks a call before the peer executes it.
    pub(crate) fn check_call(
        &mut self,
        fakes: &Fakes,
        call: &Call,
        request: &WriteRequest,
        since_start: u64,
        clock: &ClockAndRng,
    ) -> Vec<String> {
        let mut violations = Vec::new();
        let now = clock.now().as_millisecond().unsigned_abs();
        match call.peer {
            Peer::DynamoDb => {
                for write in &request.writes {
                    if write.get("ConditionExpression").is_none() {
                        violations.push("a write has no condition".to_owned());
                    }
                }
            }
            Peer::Kms | Peer::Lambda => {}
            Peer::Ses => {
                let id = activation_of_mail(call).unwrap_or_default();
                let mails = self
                    .rows
                    .iter()
                    .filter(|((pk, sk), _)| *pk == format!("A#{id}") && sk.starts_with("delivery#"));
                if !mails.into_iter().any(|(_, state)| state.claimed_until >= now) {
                    violations.push(format!("a mail of {id} is sent without a claim"));
                }
            }
            Peer::Smdp | Peer::Network => {
                let id = swap_of_call(fakes, call);
                let state = id
                    .as_ref()
                    .and_then(|id| self.rows.get(&(format!("A#{id}"), "activation".to_owned())));
                if call.method != "GET" && state.is_none_or(|state| state.claimed_until < now) {
                    let path = &call.path;
                    violations.push(format!("{path} for {id:?} is called without a claim"));
                }
                let Some(id) = id else {
                    return violations;
                };
                let places_order = call.method == "POST" && call.path.ends_with("/serviceOrder");
                if places_order {
                    self.orders_requested.insert(id.clone(), since_start);
                }
                let held = memmem::find(&call.body, b"startOn").is_some();
                let moves_number = call.method == "PATCH" || places_order && !held;
                if call.method == "PATCH" {
                    violations.extend(self.profiles.check_move(fakes, &id));
                }
                if call.path.ends_with("confirmOrder") {
                    violations.extend(self.profiles.check_confirmation(fakes, call));
                }
                if moves_number && self.stopped.contains(&id) {
                    violations.push(format!("{id} is started, although it was stopped"));
                }
                let shown = self.states_shown.get(&id).map_or("", String::as_str);
                if call.path.ends_with("/cancelServiceOrder") && shown.ends_with("Cancellation") {
                    violations.push(format!("{id} is cancelled again in the state {shown}"));
                }
                let retry_after = self.retry_after.get(&(id.clone(), call.peer));
                if let Some(until) = retry_after.filter(|until| since_start + 1_000 < **until) {
                    let (peer, early) = (call.peer, until - since_start);
                    violations.push(format!(
                        "{peer:?} is called for {id} {early} ms before its Retry-After has passed"
                    ));
                }
            }
        }
        violations
    }

    /// Checks and records an executed write. Returns the keys of the rows that changed, and the violations.
    pub(crate) fn check_write(&mut self, fakes: &Fakes, request: &WriteRequest, now: u64) -> (Vec<Key>, Vec<String>) {
        let mut changed = Vec::new();
        let mut violations = Vec::new();
        let mut swap = None;
        if let Some(token) = &request.token
            && !self.transaction_tokens.insert(token.clone())
        {
            return (changed, violations);
        }
        if let Some(canary) = request.in_clear {
            violations.push(format!("{canary} is written unencrypted"));
        }
        for write in &request.writes {
            let item = write.get("Item");
            let Some(keys) = item.or_else(|| write.get("Key")) else {
                continue;
            };
            let key = (json_string(keys, "pk"), json_string(keys, "sk"));
            if let Some(item) = item.filter(|_| key.0.starts_with("A#")) {
                if key.1 == "activation" {
                    swap = key.0.strip_prefix("A#").map(str::to_owned);
                }
                violations.extend(self.record_row(fakes, &key, item, now));
            }
            if let Some(iccid) = key.0.strip_prefix("S#") {
                violations.extend(self.check_freed_sim(fakes, iccid, swap.as_deref()));
            }
            if key.0.starts_with("L#") {
                violations.extend(self.check_line(fakes, &key));
            }
            changed.push(key);
        }
        if changed.iter().any(|key| key.1 == "activation") {
            violations.extend(self.check_shared_resources());
        }
        (changed, violations)
    }

    /// Open swaps must not share a line or a SIM.
    fn check_shared_resources(&self) -> Vec<String> {
        let mut lines = BTreeMap::new();
        let mut sims = BTreeMap::new();
        let mut shared = Vec::new();
        for (key, state) in &self.rows {
            if key.1 != "activation" || state.ended {
                continue;
            }
            if let Some(other) = lines.insert(&state.line, &key.0) {
                let line = &state.line;
                shared.push(format!("line {line} has two open swaps: {other} and {}", key.0));
            }
            if let Some(other) = sims.insert(&state.new_sim, &key.0) {
                let sim = &state.new_sim;
                shared.push(format!("SIM {sim} has two open swaps: {other} and {}", key.0));
            }
        }
        shared
    }

    /// Records a written row of a swap or a mail, and checks it against what was written before.
    fn record_row(&mut self, fakes: &Fakes, key: &Key, item: &Value, now: u64) -> Vec<String> {
        let swap = key.0.trim_start_matches("A#").to_owned();
        let before = self.rows.get(key).map(|state| state.profile.clone());
        let first = before.is_none();
        let mut violations: Vec<_> = self.record_version(key, item, now).into_iter().collect();
        if key.1 == "activation" {
            let after = ProfileRow::of(item, before.as_ref());
            let iccid = json_string(item, "newSim");
            if json_string(item, "kind") == "esim" {
                violations.extend(
                    self.profiles
                        .check_row(fakes, &swap, &iccid, before.as_ref(), &after, now),
                );
            }
            if let Some(state) = self.rows.get_mut(key) {
                state.profile = after;
            }
        } else if first {
            violations.extend(self.check_new_mail(&swap, item));
        }
        violations
    }

    /// Records a written row of a swap or a mail, and checks its version, its phase and what else it was before.
    fn record_version(&mut self, key: &Key, item: &Value, now: u64) -> Option<String> {
        let before = self.rows.get(key);
        let version = json_number(item, "version");
        let min_version = before.map_or(1, |state| state.version + 1);
        let swap = key.1 == "activation";
        let claimed = if swap {
            item.get("until").is_some()
        } else {
            json_string(item, "state") == "claimed"
        };
        let ended = if swap {
            ["done", "error"].contains(&json_string(item, "phase").as_str())
        } else {
            ["sent", "delivered", "bounced", "failed"].contains(&json_string(item, "state").as_str())
        };
        let until = if claimed { json_number(item, "until") } else { 0 };
        let phase = json_string(item, if swap { "phase" } else { "state" });
        if swap {
            let card = json_string(item, "kind") == "physical";
            let installed = json_string(item, "profile") == "installed";
            let claimed_to_start = claimed && (card && phase == "ordering" || installed && phase == "ordered");
            let started = ["started", "completed"].contains(&json_string(item, "order").as_str());
            let may_have_started = item.get("startCall").is_some();
            if claimed_to_start || may_have_started || started || phase == "started" {
                self.maybe_moving.insert(key.0.trim_start_matches("A#").to_owned());
            }
        }
        let first_written = before.map_or(now, |state| state.first_written);
        let ended_at = before.and_then(|state| state.ended_at).or(ended.then_some(now));
        let previous_phase = before.map_or(String::new(), |state| state.phase.clone());
        let state = RowState {
            version,
            first_written,
            phase: phase.clone(),
            ended_at,
            ended,
            due_at: json_string(item, "dueAt").parse().ok(),
            claimed_at: if claimed {
                now
            } else {
                before.map_or(0, |state| state.claimed_at)
            },
            claimed_until: until.max(before.map_or(0, |state| state.claimed_until)),
            line: json_string(item, "line"),
            new_sim: json_string(item, "newSim"),
            profile: before.map_or_else(ProfileRow::default, |state| state.profile.clone()),
        };
        let reopened = !ended && before.is_some_and(|state| state.ended);
        let (line, sim) = (state.line.clone(), state.new_sim.clone());
        let is_new_swap = swap && before.is_none();
        self.rows.insert(key.clone(), state);
        if version < min_version {
            return Some(format!(
                "{key:?} is written with version {version} after version {}",
                min_version - 1
            ));
        }
        if swap && !ended && now > first_written + MAX_SWAP_TIME {
            return Some(format!("{key:?} has not ended in time, and is {phase}"));
        }
        // A failed swap may still become done: the network's report of a completion may be late.
        if swap && previous_phase == "done" && phase != "done" {
            return Some(format!("{key:?} was done, and is {phase}"));
        }
        if is_new_swap && item.get("hasCode").is_none() {
            let swap = key.0.trim_start_matches("A#");
            self.without_code.insert(swap.to_owned());
        }
        if is_new_swap && self.blocked_lines.contains_key(&line) {
            return Some(format!("{key:?} begins on {line}, which is blocked"));
        }
        if let Some(other) = self
            .codes_shown_for
            .get(&sim)
            .filter(|other| is_new_swap && **other != line)
        {
            return Some(format!(
                "SIM {sim} is assigned to {line}, although its codes were shown for {other}"
            ));
        }
        reopened.then(|| format!("{key:?} had ended, and is open again"))
    }

    /// Checks the response to a caller. `now` is in milliseconds since the run began.
    pub(crate) fn check_response(&mut self, n: usize, request: &Request, response: &Value, now: u64) -> Vec<String> {
        let status = response["statusCode"].as_u64().unwrap_or(0);
        let body = response["body"].as_str().unwrap_or_default();
        let mut violations = Vec::new();
        if let (200, Some((line, block))) = (status, request.block) {
            violations.extend(self.check_import(n, line, block, body, now));
            return violations;
        }
        for (code, owner) in &self.code_owners {
            if *owner != request.caller() && body.contains(code) {
                violations.push(format!("{} is shown the code of {owner}", request.caller()));
            }
        }
        if let (200, Some((line, sim_chosen))) = (status, request.requested_codes()) {
            let requested_at = self.requested_at.get(&n).copied().unwrap_or(now);
            if self
                .blocked_lines
                .get(line)
                .is_some_and(|(since, _)| *since < requested_at)
            {
                violations.push(format!("codes of {line} are shown, which is blocked"));
            }
            let account: Value = serde_json::from_str(body).unwrap_or_default();
            let sim = account["mvnoSim"]["simNumber"].as_str().unwrap_or_default();
            if sim_chosen {
                self.codes_shown_for.insert(sim.to_owned(), line.to_owned());
            }
        }
        if status == 200 {
            if request.is_from_stranger() && !body.starts_with(r#"{"offset":0,"total":0,"results":[]"#) {
                violations.push(format!("a caller without lines gets {body}"));
            }
            if let Some(identity) = request.identity()
                && ["submit-swap", "change-sim"].contains(&request.function)
            {
                // An idempotency record lives for a day at least, and for 25 hours at most. The response may have been
                // late.
                const HOUR: u64 = 3_600_000;
                const LATE: u64 = 120_000;
                let age = self.first_responses.get(&identity).map(|(_, at)| now - at);
                if age.is_none_or(|age| age > 25 * HOUR + LATE) {
                    self.first_responses.insert(identity.clone(), (body.to_owned(), now));
                }
                let must_be_same = age.is_some_and(|age| age < 24 * HOUR - LATE);
                let (first, _) = &self.first_responses[&identity];
                // The stored response loses its confirmation code when the code is deleted.
                let code = request.code.as_deref().unwrap_or("no code");
                if must_be_same && first != body && first.replace(code, "##########") != body {
                    violations.push(format!("an idempotency key gets {first} first, then {body}"));
                }
            }
        } else if canary_secrets().any(|canary| body.contains(canary)) {
            violations.push(format!("an error response contains a secret: {body}"));
        }
        violations
    }

    /// A SIM that a swap frees must not be one that a peer may still use for this swap.
    fn check_freed_sim(&self, fakes: &Fakes, iccid: &str, swap: Option<&str>) -> Option<String> {
        let sim = row(fakes, &format!("S#{iccid}"), "sim")?;
        let free = json_string(&sim, "state") == "FREE";
        let swap = swap.filter(|_| free)?;
        let free_from: u64 = json_string(&sim, "freeFrom").parse().unwrap_or(0);
        let begin: jiff::Timestamp = crate::scheduler::START_TIME.parse().expect("a valid time");
        let free_from = free_from.saturating_sub(begin.as_millisecond().unsigned_abs());
        let order = fakes.network.order_state(swap).expect("the database");
        let uses_sim =
            |path: &str| path.ends_with("/serviceOrder") && order.is_none() || path.ends_with("/downloadOrder");
        let mut belated = self.belated_calls.iter().filter(|call| uses_sim(&call.path));
        if let Some(call) = belated.find(|call| call.swap == swap && call.at > free_from) {
            let (path, at) = (&call.path, call.at);
            return Some(format!(
                "SIM {iccid} of {swap} is free from {free_from} on, and {path} is executed at {at}"
            ));
        }
        let settled = [
            None,
            Some(OrderState::Cancelled),
            Some(OrderState::Failed),
            Some(OrderState::Rejected),
        ];
        if !settled.contains(&order) && !self.is_order_hidden(fakes, swap) {
            return Some(format!(
                "SIM {iccid} of {swap} is free while the network's order is {order:?}"
            ));
        }
        if json_string(&sim, "form") != "eSIM" {
            return None;
        }
        let number = Iccid::parse(iccid).expect("an ICCID");
        let profile = fakes.smdp.profile_state(&number).expect("the database");
        let unused = [ProfileState::Available, ProfileState::Unavailable];
        (!unused.contains(&profile)).then(|| format!("SIM {iccid} of {swap} is free while its profile is {profile:?}"))
    }

    /// Whether the network may have an order of this swap that we cannot learn of: its search never shows the order,
    /// and neither a response nor an event has told us the order's id.
    fn is_order_hidden(&self, fakes: &Fakes, swap: &str) -> bool {
        let unnamed = || {
            let swap = row(fakes, &format!("A#{swap}"), "activation");
            swap.is_none_or(|swap| swap.get("orderNumber").is_none())
        };
        self.search_blind && unnamed()
    }

    /// Whether the network may have completed a failed swap without our being able to learn of it.
    pub(super) fn is_end_unknowable(&self, fakes: &Fakes, swap: &str) -> bool {
        let given_up = || {
            let swap = row(fakes, &format!("A#{swap}"), "activation");
            swap.is_some_and(|swap| json_string(&swap, "failure") == "unsettled")
        };
        let is_shown = self.states_shown.get(swap).is_some_and(|state| state == "completed");
        let is_known = is_shown || self.completions_heard.contains(swap);
        let unheard = !is_known || self.completions_lost.contains(swap);
        self.is_order_hidden(fakes, swap) || unheard && given_up()
    }

    /// The swaps of a line.
    pub(super) fn swaps_of<'a>(&'a self, line: &'a str) -> impl Iterator<Item = &'a str> {
        let of_line = self.rows.iter().filter(move |(_, state)| state.line == line);
        of_line.map(|((pk, _), _)| pk.trim_start_matches("A#"))
    }

    /// A line without an open swap must be on the SIM that the network has for its number.
    fn check_line(&self, fakes: &Fakes, key: &Key) -> Option<String> {
        let line = row(fakes, &key.0, &key.1)?;
        let phone = Msisdn::parse(&json_string(&line, "phone")).expect("a number");
        let network = fakes.network.sim_of(&phone).expect("the database");
        let stock = LINES.iter().find(|stock| key.0 == format!("L#{}", stock.id))?;
        let network = network.as_ref().map_or(stock.sim, Iccid::as_str);
        let ours = json_string(&line, "sim");
        // While a swap is open, the network may be ahead of us, but never behind.
        let excused = line.get("swap").is_some() || line.get("disputed").is_some();
        // The network may complete an order that we gave up, and its event may still be on the way.
        let mut swaps = self.swaps_of(stock.id);
        let given_up = |swap: &str| {
            let swap = row(fakes, &format!("A#{swap}"), "activation");
            swap.is_some_and(|swap| json_string(&swap, "failure") == "unsettled")
        };
        (ours != network && !excused && !swaps.any(|swap| given_up(swap) || self.is_order_hidden(fakes, swap)))
            .then(|| format!("line {} is on {ours}, and on {network} in the network", stock.id))
    }
}
