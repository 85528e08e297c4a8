//! What must be true of activation codes during a run: which one is alive at the SM-DP+, which mail brings it, what
//! callers report about it, and when the number may move to its profile.

use std::collections::{BTreeMap, BTreeSet};

use domain::Iccid;
use serde_json::Value;
use simulators::ProfileState;

use super::monitor::{Monitor, RowState};
use super::{json_number, json_string, row};
use crate::fakes::{Fakes, Mail};
use crate::sandbox::Policy;
use crate::transport::Call;
use crate::workload::Request;

/// A repeat without an idempotency key changes nothing within this time, in milliseconds.
const REPEAT_WITHIN: u64 = 60_000;
/// `deliver-esim` may claim a mail this long after it read the swap, in milliseconds: meanwhile it reads the brand and
/// decrypts the matching id, and each of its calls may take 10 s.
const DECISION_TO_CLAIM: u64 = 40_000;
/// An idempotency record lives for at least this long, in milliseconds, less what a call may take.
const KEY_LIFETIME: u64 = 24 * 3_600_000 - 120_000;

/// What is known about the activation codes of all swaps.
#[derive(Debug)]
pub(crate) struct Profiles {
    policy: Policy,
    /// Whether the dates of callbacks may be unreadable.
    dates_unreadable: bool,
    /// The orders that were sent to the SM-DP+, by matching id.
    orders: BTreeMap<String, Order>,
    /// The confirmation code of each swap that callers have given for its current activation code.
    codes: BTreeMap<String, Option<String>>,
    /// The confirmation code that a caller gave with a renewal, by swap and number of the renewal.
    new_codes: BTreeMap<(String, u64), Option<String>>,
    /// The number of the last renewal that was completed, by swap.
    renewed: BTreeMap<String, u64>,
    /// When the last renewal of each swap began, in milliseconds since the run began.
    renewing_since: BTreeMap<String, u64>,
    /// Swaps whose profile is installed according to somebody who answers for it.
    vouched: BTreeSet<String>,
    /// The swap and the time of the first request with an idempotency key that changed a swap.
    keyed: BTreeMap<String, u64>,
    /// Swaps with a reminder.
    reminded: BTreeSet<String>,
    /// When a phone installed the profile of a swap, in milliseconds since the run began.
    pub(super) installed: BTreeMap<String, u64>,
}

/// An order at the SM-DP+.
#[derive(Debug)]
struct Order {
    swap: String,
    /// 0 for the first order of a swap.
    renewal: u64,
    code: Option<String>,
    is_downloaded: bool,
    has_failed: bool,
}

/// What a swap's row says about its profile.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct ProfileRow {
    phase: String,
    profile: String,
    failure: String,
    /// Whether no activation code is known to work.
    code_dead: bool,
    /// The kind and the state of the request about the profile.
    request: (String, String),
    renewals: u64,
    witness: String,
    /// The last requests, and when they changed the swap.
    asked: Vec<(String, u64)>,
    /// Whether the code could be used before the last change.
    was_usable: bool,
}

impl ProfileRow {
    pub(super) fn of(item: &Value, before: Option<&Self>) -> Self {
        let text = |name| json_string(item, name);
        Self {
            phase: text("phase"),
            profile: text("profile"),
            failure: text("profileFailure"),
            code_dead: item.get("codeDead").is_some(),
            request: (text("wanted"), text("wantedState")),
            renewals: item["renewals"]["L"].as_array().map_or(0, Vec::len) as u64,
            witness: text("witness"),
            asked: item["asked"]["L"]
                .as_array()
                .into_iter()
                .flatten()
                .map(read_request)
                .collect(),
            was_usable: before.is_some_and(Self::is_usable),
        }
    }

    fn is_renewing(&self) -> bool {
        self.request.0 == "renew" && ["pending", "cancelled"].contains(&self.request.1.as_str())
    }

    fn is_usable(&self) -> bool {
        self.profile == "released" && self.failure.is_empty() && !self.is_renewing()
    }

    fn waits_for_phone(&self) -> bool {
        ["ordered", "started"].contains(&self.phase.as_str())
    }
}

impl Profiles {
    pub(super) fn new(policy: Policy, dates_unreadable: bool) -> Self {
        Self {
            policy,
            dates_unreadable,
            orders: BTreeMap::new(),
            codes: BTreeMap::new(),
            new_codes: BTreeMap::new(),
            renewed: BTreeMap::new(),
            renewing_since: BTreeMap::new(),
            vouched: BTreeSet::new(),
            keyed: BTreeMap::new(),
            reminded: BTreeSet::new(),
            installed: BTreeMap::new(),
        }
    }

    /// The confirmation code that belongs to a renewal of a swap, or to its first order.
    fn code_for(&self, swap: &str, renewal: u64) -> Option<String> {
        let given = self.new_codes.get(&(swap.to_owned(), renewal)).cloned().flatten();
        given.or_else(|| self.codes.get(swap).cloned().flatten())
    }

    fn current_renewal(&self, swap: &str) -> u64 {
        self.renewed.get(swap).copied().unwrap_or(0)
    }

    /// Whether an order of this swap fits: that of the current activation code, or any order if it cannot be known to
    /// which code the report of the SM-DP+ belongs.
    fn has_order(&self, swap: &str, is_any: bool, fits: impl Fn(&Order) -> bool) -> bool {
        let current = self.current_renewal(swap);
        let is_any = is_any || self.dates_unreadable;
        let mut orders = self.orders.values();
        orders.any(|order| order.swap == swap && (is_any || order.renewal == current) && fits(order))
    }

    /// Checks the confirmation of an order. The call is about to be executed.
    pub(super) fn check_confirmation(&self, fakes: &Fakes, call: &Call) -> Option<String> {
        let order: Value = serde_json::from_slice(&call.body).unwrap_or_default();
        let (swap, renewal) = order_of(&order)?;
        let matching_id = order["matchingId"].as_str().unwrap_or_default();
        let expected = self.code_for(&swap, renewal);
        let given = order["confirmationCode"].as_str();
        if given != expected.as_deref() {
            return Some(format!(
                "the profile of {swap} is confirmed with a code that no caller gave"
            ));
        }
        let alive = matching_id_at_smdp(fakes, &iccid_of(&order)?);
        let is_other = alive.as_ref().is_some_and(|alive| alive != matching_id);
        // An order of another swap with the same profile is rejected.
        let is_own = alive
            .and_then(|alive| self.orders.get(&alive))
            .is_some_and(|order| order.swap == swap && order.renewal < renewal);
        (is_other && is_own).then(|| format!("{swap} gets another activation code while its old one is alive"))
    }

    /// The SM-DP+ receives a confirmation.
    pub(super) fn record_confirmation(&mut self, call: &Call) {
        let body: Value = serde_json::from_slice(&call.body).unwrap_or_default();
        let Some(((swap, renewal), matching_id)) = order_of(&body).zip(body["matchingId"].as_str()) else {
            return;
        };
        let code = self.code_for(&swap, renewal);
        self.orders.entry(matching_id.to_owned()).or_insert(Order {
            swap,
            renewal,
            code,
            is_downloaded: false,
            has_failed: false,
        });
    }

    /// Checks and records a request of a caller that changes a swap from `before` to `after`.
    fn check_request(
        &mut self,
        swap: &str,
        before: &ProfileRow,
        after: &ProfileRow,
        request: &Request,
        now: u64,
    ) -> Option<String> {
        let mut violation = None;
        match request.identity() {
            Some(identity) => {
                let first = *self.keyed.entry(identity.clone()).or_insert(now);
                if first < now && now < first + KEY_LIFETIME {
                    violation = Some(format!("a repeat with the key {identity} changes {swap}"));
                } else {
                    self.keyed.insert(identity, now);
                }
            }
            None => {
                let last = after.asked.last();
                let is_repeat = |(request, at): &(String, u64)| {
                    last.is_some_and(|(again, now)| again == request && *now < at + REPEAT_WITHIN)
                };
                if before.asked.iter().any(is_repeat) {
                    violation = Some(format!("a repeat of a request changes {swap}"));
                }
            }
        }
        if after.renewals > before.renewals {
            self.new_codes
                .insert((swap.to_owned(), after.renewals), request.code.clone());
        }
        if !after.witness.is_empty() && before.witness.is_empty() {
            if self.policy.reports == "trust" || request.is_vouched_for() {
                self.vouched.insert(swap.to_owned());
            }
            if self.policy.reports == "off" {
                violation = Some(format!("a report about {swap} is believed"));
            }
        }
        violation
    }

    /// Checks a new state of a swap's row.
    pub(super) fn check_row(
        &mut self,
        fakes: &Fakes,
        swap: &str,
        iccid: &str,
        before: Option<&ProfileRow>,
        after: &ProfileRow,
        now: u64,
    ) -> Vec<String> {
        let mut violations = Vec::new();
        let none = ProfileRow::default();
        let before = before.unwrap_or(&none);
        if after.witness.is_empty() {
            self.vouched.remove(swap);
        }
        if after.renewals > before.renewals {
            self.renewing_since.insert(swap.to_owned(), now);
        }
        if after.request.0 == "renew" && after.request.1 == "done" && before.is_renewing() {
            let code = self.code_for(swap, after.renewals);
            self.codes.insert(swap.to_owned(), code);
            self.renewed.insert(swap.to_owned(), after.renewals);
        }
        let iccid = Iccid::parse(iccid).expect("an ICCID");
        let state = fakes.smdp.profile_state(&iccid).expect("the database");
        let is_at_smdp = |states: &[ProfileState]| states.contains(&state);
        if after.profile == "installed" && before.profile != "installed" && !is_at_smdp(&[ProfileState::Installed]) {
            violations.push(format!("{swap} has its profile as installed, which is {state:?}"));
        }
        if after.profile == "downloaded"
            && before.profile != "downloaded"
            && after.phase != "ending"
            && !self.has_order(swap, after.is_renewing(), |order| order.is_downloaded)
        {
            violations.push(format!("{swap} has its profile as downloaded, which is {state:?}"));
        }
        if !["", "profileRefused", &before.failure].contains(&after.failure.as_str())
            && !self.has_order(swap, after.is_renewing(), |order| order.has_failed)
        {
            let failure = &after.failure;
            violations.push(format!("{swap} has failed as {failure}, and its profile is {state:?}"));
        }
        if after.waits_for_phone() {
            violations.extend(self.check_alive(fakes, swap, &iccid, after));
        }
        violations
    }

    /// At most one activation code is alive, and it is that of the row or of its renewal in progress.
    fn check_alive(&self, fakes: &Fakes, swap: &str, iccid: &Iccid, after: &ProfileRow) -> Option<String> {
        let current = self.current_renewal(swap);
        let alive = matching_id_at_smdp(fakes, iccid);
        let alive = alive.and_then(|alive| self.orders.get(&alive));
        match alive {
            Some(order) if order.swap != swap => None,
            Some(order) => {
                let is_new = match after.code_dead && after.request.1 != "cancelled" {
                    // A renewal that was refused may have left a code.
                    true => order.renewal > current,
                    false => order.renewal == after.renewals && after.is_renewing(),
                };
                let is_old = order.renewal == current && after.request.1 != "cancelled";
                (!is_new && !is_old).then(|| {
                    let renewal = order.renewal;
                    format!("{swap} has the activation code of renewal {current}, and that of {renewal} is alive")
                })
            }
            None => after
                .is_usable()
                .then(|| format!("{swap} waits for a phone, and its activation code is dead")),
        }
    }

    /// Checks that the number may move to the profile of this swap.
    pub(super) fn check_move(&self, fakes: &Fakes, swap: &str) -> Option<String> {
        let found = row(fakes, &format!("A#{swap}"), "activation")?;
        if json_string(&found, "kind") != "esim" {
            return None;
        }
        let iccid = Iccid::parse(&json_string(&found, "newSim")).expect("an ICCID");
        let state = fakes.smdp.profile_state(&iccid).expect("the database");
        let is_on_phone = state == ProfileState::Installed || self.has_order(swap, false, |order| order.is_downloaded);
        (!is_on_phone && !self.vouched.contains(swap))
            .then(|| format!("the number of {swap} moves to its profile, which is {state:?}"))
    }
}

impl Monitor {
    /// The confirmation code of the order with this matching id.
    pub(crate) fn confirmation_code(&self, matching_id: &str) -> Option<String> {
        self.profiles.orders.get(matching_id)?.code.clone()
    }

    /// A phone has used the activation code with this matching id.
    pub(crate) fn record_phone(&mut self, fakes: &Fakes, swap: &str, matching_id: &str, now: u64) {
        let Some(found) = row(fakes, &format!("A#{swap}"), "activation") else {
            return;
        };
        let iccid = Iccid::parse(&json_string(&found, "newSim")).expect("an ICCID");
        let is_alive = matching_id_at_smdp(fakes, &iccid).as_deref() == Some(matching_id);
        let Some(order) = self.profiles.orders.get_mut(matching_id).filter(|_| is_alive) else {
            return;
        };
        let state = fakes.smdp.profile_state(&iccid).expect("the database");
        order.is_downloaded |= matches!(state, ProfileState::Downloaded | ProfileState::Installed);
        // A phone may have downloaded a profile before it failed to install it.
        order.is_downloaded |= state == ProfileState::Error && fakes.smdp.has_phone(&iccid).expect("the database");
        order.has_failed |= state == ProfileState::Error;
        if state == ProfileState::Installed {
            self.profiles.installed.entry(swap.to_owned()).or_insert(now);
        }
    }

    /// Checks and records a caller's request that has changed a swap, before its row is recorded.
    pub(super) fn check_request(&mut self, swap: &str, item: &Value, request: &Request, now: u64) -> Option<String> {
        let key = (format!("A#{swap}"), "activation".to_owned());
        let before = self.rows.get(&key).map(|state| state.profile.clone());
        let after = ProfileRow::of(item, before.as_ref());
        match (before, request.function) {
            (None, _) => {
                self.profiles.codes.insert(swap.to_owned(), request.code.clone());
                None
            }
            // The write was executed before, and other requests may have changed the swap since.
            (Some(before), _) if after.asked.last().is_none_or(|last| before.asked.contains(last)) => None,
            (Some(before), "manage-swap") => self.profiles.check_request(swap, &before, &after, request, now),
            _ => None,
        }
    }

    /// Checks a mail that SES has accepted: its activation code is alive, unless the renewal of it began when the function
    /// had already decided to send the mail.
    pub(crate) fn check_mailed_code(&self, fakes: &Fakes, mail: &Mail, matching_id: &str) -> Option<String> {
        let swap = &mail.activation;
        let key = (format!("A#{swap}"), "activation".to_owned());
        let found = row(fakes, &key.0, &key.1)?;
        let after = ProfileRow::of(&found, None);
        let number: u32 = mail.attempt.split('-').next()?.parse().ok()?;
        let order = self.profiles.orders.get(matching_id);
        if order.is_none_or(|order| order.renewal > self.profiles.current_renewal(swap)) {
            return Some(format!(
                "mail {number} of {swap} has an activation code before its renewal is done"
            ));
        }
        if !after.waits_for_phone() || after.is_renewing() || u64::from(number) != json_number(&found, "mails") {
            return None;
        }
        let was_on_its_way = |since: &u64| {
            let row = self.mail_row(swap, number);
            row.is_some_and(|row| row.first_written < *since && row.claimed_at < since + DECISION_TO_CLAIM)
        };
        if self.profiles.renewing_since.get(swap).is_some_and(was_on_its_way) {
            return None;
        }
        let iccid = Iccid::parse(&json_string(&found, "newSim")).expect("an ICCID");
        let alive = matching_id_at_smdp(fakes, &iccid);
        (alive.as_deref() != Some(matching_id))
            .then(|| format!("mail {number} of {swap} has an activation code that is not alive"))
    }

    /// Checks a new mail: a reminder comes once, and for a code that can be used.
    pub(super) fn check_new_mail(&mut self, swap: &str, item: &Value) -> Option<String> {
        if json_string(item, "kind") != "reminder" {
            return None;
        }
        if !self.profiles.reminded.insert(swap.to_owned()) {
            return Some(format!("{swap} has two reminders"));
        }
        let state: Option<&RowState> = self.rows.get(&(format!("A#{swap}"), "activation".to_owned()));
        let was_usable = state.is_some_and(|state| state.profile.was_usable);
        (!was_usable).then(|| format!("{swap} has a reminder of a code that cannot be used"))
    }
}

/// A request that a swap's row lists, `<milliseconds> <digest>`: its digest and its time.
fn read_request(entry: &Value) -> (String, u64) {
    let (at, digest) = entry["S"]
        .as_str()
        .and_then(|text| text.split_once(' '))
        .expect("a request");
    (digest.to_owned(), at.parse().expect("a time"))
}

/// The swap and the number of the renewal of an order, from the identifier of its call: `<swap>-r<number>-<step>`, or
/// `<swap>-<step>` for the first order.
fn order_of(body: &Value) -> Option<(String, u64)> {
    let call = body["header"]["functionCallIdentifier"].as_str()?;
    let (swap, step) = call.split_once('-')?;
    let renewal = step.strip_prefix('r').and_then(|step| step.split_once('-'));
    let renewal = renewal.and_then(|(number, _)| number.parse().ok());
    Some((swap.to_owned(), renewal.unwrap_or(0)))
}

/// Whether a call to the SM-DP+ belongs to a renewal.
pub(super) fn is_renewal(body: &[u8]) -> bool {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    order_of(&body).is_some_and(|(_, renewal)| renewal > 0)
}

fn iccid_of(body: &Value) -> Option<Iccid> {
    Iccid::parse(body["iccid"].as_str()?.trim_end_matches('F')).ok()
}

fn matching_id_at_smdp(fakes: &Fakes, iccid: &Iccid) -> Option<String> {
    fakes.smdp.matching_id(iccid).expect("the database")
}
