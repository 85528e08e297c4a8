//! What has happened in a run so far, as the checks need it. The checks themselves are in the modules beside this one.

use std::collections::{BTreeMap, BTreeSet};

use domain::ActivationId;
use local::dynoxide::Item;
use peers::OrderState;
use serde_json::Value;

use super::checks::WriteRequest;
use super::mails::times_sent;
use super::profiles::{ProfileRow, Profiles, is_renewal};
use super::{Fate, Key, activation_of_mail, json_string, mail_of_call, row, string_attribute, swap_of_call};
use crate::fakes::{Fakes, Mail};
use crate::scheduler::{Meaning, Plan};
use crate::transport::{Call, Peer, Reply};
use crate::workload::{Block, Request};

/// The row of a swap or a mail, as last written.
pub(super) struct RowState {
    pub(super) version: u64,
    /// When it was first written, in milliseconds since the run began.
    pub(super) first_written: u64,
    /// The phase of a swap, or the state of a mail.
    pub(super) phase: String,
    /// When the swap first ended.
    pub(super) ended_at: Option<u64>,
    /// Whether the swap has ended, or the fate of the mail is known.
    pub(super) ended: bool,
    /// When it is due for the sweeper, in milliseconds since 1970.
    pub(super) due_at: Option<u64>,
    /// When it was last written with a claim, in milliseconds since the run began.
    pub(super) claimed_at: u64,
    /// When the last claim on it expires.
    pub(super) claimed_until: u64,
    /// The line of a swap; empty for a mail.
    pub(super) line: String,
    /// The new SIM of a swap; empty for a mail.
    pub(super) new_sim: String,
    /// What the row of a swap says about its profile.
    pub(super) profile: ProfileRow,
}

/// Records what happens in a run.
pub(crate) struct Monitor {
    pub(crate) violations: Vec<String>,
    pub(super) rows: BTreeMap<Key, RowState>,
    /// Swaps with a mail whose outcome may be unknown to the service.
    pub(super) unknown_outcomes: BTreeSet<String>,
    /// Tokens of executed transactions: DynamoDB does not execute a second transaction with the same token.
    pub(super) transaction_tokens: BTreeSet<String>,
    /// The matching ids of all orders.
    pub(super) matching_ids: BTreeSet<String>,
    /// The first response to each request with an idempotency key, and when it was sent.
    pub(super) first_responses: BTreeMap<String, (String, u64)>,
    /// Whether the network's search never shows an order.
    pub(super) search_blind: bool,
    /// Calls whose callers gave up and that their peers will execute.
    pub(crate) belated_calls: Vec<BelatedCall>,
    /// When the order of a swap was last requested from the network.
    pub(super) orders_requested: BTreeMap<String, u64>,
    /// Swaps that a caller requested to cancel.
    pub(super) cancels_requested: BTreeSet<String>,
    /// Swaps whose order the network rejected.
    pub(super) orders_rejected: BTreeSet<String>,
    /// The states in which the network ended the order of a swap by itself.
    pub(super) orders_abandoned: BTreeMap<String, Vec<OrderState>>,
    /// Swaps whose profile the SM-DP+ rejected permanently.
    pub(super) profiles_rejected: BTreeSet<String>,
    /// Why profiles failed, by ICCID.
    pub(super) profiles_failed: BTreeMap<String, BTreeSet<&'static str>>,
    pub(super) profiles: Profiles,
    /// Swaps whose order was completed and whose event was lost.
    pub(super) completions_lost: BTreeSet<String>,
    /// Swaps whose order was completed, and whose event we accepted when we knew the order's number.
    pub(super) completions_heard: BTreeSet<String>,
    /// When we accepted callbacks that report the installation of a profile, by ICCID.
    pub(super) installed_at: BTreeMap<String, Vec<u64>>,
    /// When we accepted the first event that reports the completion of the order of a swap.
    pub(super) completed_at: BTreeMap<String, u64>,
    /// Mails that SES rejects permanently: swap and number.
    pub(super) mails_rejected: BTreeSet<(String, u32)>,
    /// What SES has published about a mail: whether it was delivered, and whether it bounced permanently.
    pub(super) ses_events: BTreeMap<(String, u32), (bool, bool)>,
    /// When SES first accepted each mail.
    pub(super) mailed_at: BTreeMap<(String, u32), u64>,
    /// The state in which the network last showed the order of a swap.
    pub(super) states_shown: BTreeMap<String, String>,
    /// Until when a peer must not be called again for a swap, because of `Retry-After`.
    pub(super) retry_after: BTreeMap<(String, Peer), u64>,
    /// The same, while the invocation that received the header has not written it.
    pub(super) unwritten_retry_after: BTreeMap<u64, (String, Peer, u64)>,
    /// When a function other than `fulfil-swap` last wrote a swap.
    pub(super) written_by_others: BTreeMap<String, u64>,
    /// The caller who chose each confirmation code.
    pub(super) code_owners: BTreeMap<String, &'static str>,
    /// Lines that are certainly blocked, since when, and how.
    pub(super) blocked_lines: BTreeMap<String, (u64, Block)>,
    /// When an operator last started an import that sets or lifts this block of a line.
    pub(super) last_imports: BTreeMap<(&'static str, Block), u64>,
    /// Swaps for which a call that lets the network move the number may have been made.
    pub(super) maybe_moving: BTreeSet<String>,
    /// Lines that any import has blocked.
    pub(super) ever_blocked: BTreeSet<String>,
    /// Swaps without a confirmation code.
    pub(super) without_code: BTreeSet<String>,
    /// Swaps that an import has reported as stopped.
    pub(super) stopped: BTreeSet<String>,
    /// When each request was last sent.
    pub(super) requested_at: BTreeMap<usize, u64>,
    /// The line for which a caller was shown the codes of a SIM that the service chose, by SIM.
    pub(super) codes_shown_for: BTreeMap<String, String>,
}

/// A call whose caller gave up and that its peer will execute.
pub(crate) struct BelatedCall {
    /// When the peer executes it, in milliseconds since the run began.
    pub(crate) at: u64,
    pub(super) swap: String,
    pub(super) path: String,
}

/// After this time an import has ended, with all calls of its process, in milliseconds.
const MAX_IMPORT_TIME: u64 = 300_000;

/// After another function has written a swap, `fulfil-swap` may call its peers for so long in spite of `Retry-After`,
/// in milliseconds.
const RETRY_AFTER_VOID: u64 = 180_000;

impl Monitor {
    pub(crate) fn new(plan: &Plan) -> Self {
        let quirks = &plan.faults.quirks;
        Self {
            search_blind: quirks.is_blind(),
            profiles: Profiles::new(plan.policy, quirks.spelling > 0),
            violations: Vec::new(),
            rows: BTreeMap::new(),
            unknown_outcomes: BTreeSet::new(),
            transaction_tokens: BTreeSet::new(),
            matching_ids: BTreeSet::new(),
            first_responses: BTreeMap::new(),
            belated_calls: Vec::new(),
            orders_requested: BTreeMap::new(),
            cancels_requested: BTreeSet::new(),
            orders_rejected: BTreeSet::new(),
            orders_abandoned: BTreeMap::new(),
            profiles_rejected: BTreeSet::new(),
            profiles_failed: BTreeMap::new(),
            completions_lost: BTreeSet::new(),
            completions_heard: BTreeSet::new(),
            installed_at: BTreeMap::new(),
            completed_at: BTreeMap::new(),
            mails_rejected: BTreeSet::new(),
            ses_events: BTreeMap::new(),
            mailed_at: BTreeMap::new(),
            states_shown: BTreeMap::new(),
            retry_after: BTreeMap::new(),
            unwritten_retry_after: BTreeMap::new(),
            written_by_others: BTreeMap::new(),
            code_owners: BTreeMap::new(),
            blocked_lines: BTreeMap::new(),
            last_imports: BTreeMap::new(),
            maybe_moving: BTreeSet::new(),
            ever_blocked: BTreeSet::new(),
            without_code: BTreeSet::new(),
            stopped: BTreeSet::new(),
            requested_at: BTreeMap::new(),
            codes_shown_for: BTreeMap::new(),
        }
    }

    /// A caller or an operator sends a request.
    pub(crate) fn record_request(&mut self, n: usize, request: &Request, now: u64) {
        self.requested_at.insert(n, now);
        if let Some(code) = &request.code {
            self.code_owners.insert(code.clone(), request.caller());
        }
        if let Some((line, block)) = request.block {
            // An import that does not mention the lock never changes it.
            let mentions = |other: Block| block != Block::LockOmitted || other != Block::Locked;
            self.blocked_lines
                .retain(|of, (_, other)| of != line || !mentions(*other));
            for other in Block::ALL.into_iter().filter(|other| mentions(*other)) {
                let before = self.last_imports.insert((line, other), now);
                // If two imports run at the same time, either may be the last to write.
                if before.is_some_and(|before| now < before + MAX_IMPORT_TIME) {
                    self.last_imports.insert((line, other), now + MAX_IMPORT_TIME);
                }
            }
            if Block::ALL.contains(&block) {
                self.ever_blocked.insert(line.to_owned());
            }
        }
    }

    /// Checks and records the result of an import.
    pub(super) fn check_import(
        &mut self,
        n: usize,
        line: &'static str,
        block: Block,
        body: &str,
        now: u64,
    ) -> Option<String> {
        let body: Value = serde_json::from_str(body).unwrap_or_default();
        if let Some(swap) = body["stopped"].as_str() {
            self.stopped.insert(swap.to_owned());
        }
        let last = self.last_imports.get(&(line, block));
        if last.is_some() && last == self.requested_at.get(&n) {
            self.blocked_lines.insert(line.to_owned(), (now, block));
        }
        let continuing = body["goesOn"].as_str()?;
        let may_move = self.maybe_moving.contains(continuing) || self.is_ended_or_ending(continuing);
        (!may_move).then(|| format!("{continuing} is not stopped, although its number could not have moved"))
    }

    /// A caller requests to cancel a swap.
    pub(crate) fn record_cancel_request(&mut self, swap: &str) {
        self.cancels_requested.insert(swap.to_owned());
    }

    /// The network ends an order by itself.
    pub(crate) fn record_abandoned_order(&mut self, swap: &str, state: OrderState) {
        let states = self.orders_abandoned.entry(swap.to_owned()).or_default();
        states.push(state);
    }

    /// A callback is lost.
    pub(crate) fn record_lost_callback(&mut self, meaning: &Meaning) {
        match meaning {
            Meaning::Completed(swap) => {
                self.completions_lost.insert(swap.clone());
            }
            Meaning::ProfileFailed(iccid, failure) => {
                self.profiles_failed.entry(iccid.clone()).or_default().insert(failure);
            }
            Meaning::Installed(_) | Meaning::Other => {}
        }
    }

    /// We accept a callback.
    pub(crate) fn record_accepted_callback(&mut self, fakes: &Fakes, meaning: Option<&Meaning>, now: u64) {
        match meaning {
            Some(Meaning::Completed(swap)) => {
                let found = row(fakes, &format!("A#{swap}"), "activation");
                if found.is_some_and(|swap| swap.get("orderNumber").is_some()) {
                    self.completions_heard.insert(swap.clone());
                }
                self.completed_at.entry(swap.clone()).or_insert(now);
            }
            Some(Meaning::Installed(iccid)) => {
                self.installed_at.entry(iccid.clone()).or_default().push(now);
            }
            Some(Meaning::ProfileFailed(iccid, failure)) => {
                self.profiles_failed.entry(iccid.clone()).or_default().insert(failure);
            }
            Some(Meaning::Other) | None => {}
        }
    }

    /// SES has accepted a mail.
    pub(crate) fn record_mail(&mut self, mail: &Mail, now: u64) {
        self.mailed_at.entry(key_of(mail)).or_insert(now);
    }

    /// SES publishes events about a mail.
    pub(crate) fn record_ses_events(&mut self, mail: &Mail, kinds: &[(&str, &str)]) {
        let (delivered, bounced) = self.ses_events.entry(key_of(mail)).or_default();
        *delivered |= kinds.contains(&("Delivery", ""));
        *bounced |= kinds.contains(&("Bounce", "Permanent"));
    }

    /// A caller gives up a call that its peer will execute.
    pub(crate) fn record_belated_call(&mut self, fakes: &Fakes, call: &Call, now: u64, at: u64) {
        let Some(swap) = swap_of_call(fakes, call).filter(|_| call.method != "GET") else {
            return;
        };
        if call.path.ends_with("/serviceOrder") {
            self.orders_requested.insert(swap.clone(), now);
        }
        self.belated_calls.push(BelatedCall {
            at,
            swap,
            path: call.path.clone(),
        });
    }

    /// When the order of a swap was last requested from the network.
    pub(crate) fn order_requested_at(&self, swap: &str) -> u64 {
        self.orders_requested.get(swap).copied().unwrap_or(0)
    }

    /// A function has written rows, at the request of this caller. Returns the violations.
    pub(crate) fn record_write(
        &mut self,
        invocation: u64,
        function: &str,
        caller: Option<&Request>,
        request: &WriteRequest,
        now: u64,
    ) -> Vec<String> {
        let mut violations = Vec::new();
        for write in &request.writes {
            let Some(item) = write.get("Item").filter(|item| json_string(item, "sk") == "activation") else {
                continue;
            };
            let key = (json_string(item, "pk"), json_string(item, "sk"));
            let swap = key.0.trim_start_matches("A#").to_owned();
            if let Some(caller) = caller {
                violations.extend(self.check_request(&swap, item, caller, now));
            }
            let changed_phase = self
                .rows
                .get(&key)
                .is_some_and(|state| state.phase != json_string(item, "phase"));
            // An invocation may work on several swaps.
            let retry_after = self.unwritten_retry_after.get(&invocation);
            let retry_after = match retry_after.is_some_and(|(of, ..)| *of == swap) {
                true => self.unwritten_retry_after.remove(&invocation),
                false => None,
            };
            if function != "fulfil-swap" {
                self.written_by_others.insert(swap.clone(), now);
            }
            let others = self.written_by_others.get(&swap).copied();
            if changed_phase || others.is_some_and(|at| now < at + RETRY_AFTER_VOID) {
                self.retry_after.retain(|(of, _), _| *of != swap);
            } else if let Some((_, peer, until)) = retry_after {
                self.retry_after.insert((swap, peer), until);
            }
        }
        violations
    }

    /// The function receives this reply, or an equivalent one. `state` is the order's state in the reply; `wait` is
    /// until when the peer asks us to wait.
    pub(crate) fn record_reply(
        &mut self,
        fakes: &Fakes,
        invocation: u64,
        call: &Call,
        reply: &Reply,
        state: Option<String>,
        wait: Option<u64>,
    ) {
        let is_order = call.method == "PATCH" || call.method == "POST" && call.path.ends_with("/serviceOrder");
        match call.peer {
            Peer::Network => {
                let Some(swap) = swap_of_call(fakes, call) else {
                    return;
                };
                if is_order && [400, 422].contains(&reply.status) {
                    self.orders_rejected.insert(swap.clone());
                }
                if let Some(state) = state {
                    self.states_shown.insert(swap.clone(), state);
                }
                if let Some(until) = wait {
                    self.unwritten_retry_after.insert(invocation, (swap, call.peer, until));
                }
            }
            Peer::Smdp => {
                let Some(swap) = swap_of_call(fakes, call) else {
                    return;
                };
                let body: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
                let status = &body["header"]["functionExecutionStatus"];
                let code = |name: &str| status["statusCodeData"][name].as_str().unwrap_or_default();
                let is_transient = matches!(
                    (code("subjectCode"), code("reasonCode")),
                    ("8.2.5", "3.7") | ("8.2.1" | "8.2.6", "3.3") | ("8.9", _)
                );
                let calls = ["downloadOrder", "confirmOrder"];
                let is_order = calls.iter().any(|name| call.path.ends_with(name));
                // A renewal does not take another SIM, so it is refused where an order would be retried with one.
                let is_final = !is_transient || is_renewal(&call.body);
                if is_order && reply.status == 200 && status["status"] == "Failed" && is_final {
                    self.profiles_rejected.insert(swap.clone());
                }
                if let Some(until) = wait {
                    self.unwritten_retry_after.insert(invocation, (swap, call.peer, until));
                }
            }
            Peer::Ses => {
                let text = String::from_utf8_lossy(&reply.body);
                let is_permanent = text.contains("MessageRejected") && !text.contains("not verified");
                if is_permanent && let Some(mail) = mail_of_call(call) {
                    self.mails_rejected.insert(mail);
                }
            }
            Peer::DynamoDb | Peer::Kms | Peer::Lambda => {}
        }
    }

    /// The service cannot know the outcome of this call to SES.
    pub(crate) fn mark_outcome_unknown(&mut self, call: &Call) {
        if let Some(id) = activation_of_mail(call) {
            self.unknown_outcomes.insert(id);
        }
    }

    /// The service may not know the outcome of the mails of this row's swap.
    pub(crate) fn mark_swap_outcome_unknown(&mut self, pk: &str) {
        self.unknown_outcomes.insert(pk.trim_start_matches("A#").to_owned());
    }

    /// Whether a row was written exactly once.
    pub(crate) fn is_new(&self, row: &Key) -> bool {
        self.rows.get(row).is_some_and(|state| state.version == 1)
    }

    /// When a row is due for the sweeper.
    pub(crate) fn due_at(&self, row: &Key) -> Option<u64> {
        self.rows.get(row)?.due_at
    }

    /// Whether any row is due for the sweeper.
    pub(crate) fn is_anything_due(&self, now: u64) -> bool {
        let mut due = self.rows.values().filter_map(|state| state.due_at);
        due.any(|due| due <= now)
    }

    /// The row of a mail of a swap.
    pub(super) fn mail_row(&self, swap: &str, number: u32) -> Option<&RowState> {
        let pk = format!("A#{swap}");
        let mut mails = self.rows.iter().filter(|((of, sk), _)| {
            let of_number = sk.strip_prefix("delivery#");
            *of == pk && of_number.and_then(|text| text.parse().ok()) == Some(number)
        });
        mails.next().map(|(_, state)| state)
    }

    /// Whether a swap has ended, or is on its way to ERROR.
    pub(super) fn is_ended_or_ending(&self, swap: &str) -> bool {
        let state = self.rows.get(&(format!("A#{swap}"), "activation".to_owned()));
        state.is_some_and(|state| state.ended || state.phase == "ending")
    }

    pub(super) fn swap_row(&self, swap: &ActivationId) -> Option<&RowState> {
        self.rows.get(&(format!("A#{swap}"), "activation".to_owned()))
    }

    /// All swaps.
    pub(crate) fn swaps(&self) -> impl Iterator<Item = ActivationId> {
        let swaps = self.rows.keys().filter(|(_, sk)| sk == "activation");
        swaps.filter_map(|(pk, _)| ActivationId::parse(pk.strip_prefix("A#")?).ok())
    }

    /// The newest swap of a line: ids begin with the time.
    pub(crate) fn newest_swap(&self, line: &str) -> Option<String> {
        let of_line = self.rows.iter().filter(|(_, state)| state.line == line);
        let newest = of_line.map(|((pk, _), _)| pk).max()?;
        Some(newest.trim_start_matches("A#").to_owned())
    }

    /// The SM-DP+ has executed a call: its matching id is a secret from here on.
    pub(crate) fn record_matching_id(&mut self, call: &Call) {
        if call.path.ends_with("confirmOrder") {
            self.profiles.record_confirmation(call);
        }
        let order: Value = serde_json::from_slice(&call.body).unwrap_or_default();
        if let Some(id) = order["matchingId"].as_str() {
            self.matching_ids.insert(id.to_owned());
        }
    }

    /// The keys of all rows of swaps and mails.
    pub(crate) fn row_keys(&self) -> Vec<Key> {
        self.rows.keys().cloned().collect()
    }

    /// How the swaps ended, and the fate of each mail.
    pub(crate) fn summarize(&self, fakes: &Fakes, rows: &[Item]) -> (BTreeMap<String, usize>, Vec<(Fate, usize)>) {
        let mut swaps: BTreeMap<String, usize> = BTreeMap::new();
        let mut mails = Vec::new();
        for row in rows {
            let text = |name| string_attribute(row, name);
            if text("sk") == "activation" {
                let failure = text("failure");
                let end = if failure.is_empty() { text("phase") } else { failure };
                *swaps.entry(format!("{} {end}", text("kind"))).or_default() += 1;
            } else if text("sk").starts_with("delivery#") {
                let id = text("pk").trim_start_matches("A#");
                let number = text("sk").trim_start_matches("delivery#");
                let sent = times_sent(fakes, id, number.parse().expect("mails have numbers"));
                let given_up = text("state") == "failed";
                let fate = match (sent, self.unknown_outcomes.contains(id)) {
                    (0, _) if given_up => Fate::GivenUp,
                    (0, true) => Fate::Unknown,
                    (_, true) => Fate::Uncertain,
                    (_, false) => Fate::Known,
                };
                mails.push((fate, sent));
            }
        }
        (swaps, mails)
    }
}

/// The swap and the number of a mail.
fn key_of(mail: &Mail) -> (String, u32) {
    let number = mail.attempt.split('-').next().unwrap_or_default();
    (mail.activation.clone(), number.parse().unwrap_or(0))
}
