//! What must be true of each swap at the end of a run: it has ended, the peers agree with it, and it failed only for a
//! reason that occurred.

use domain::{Activation, Phase, PhoneState, SwapKind};
use jiff::Timestamp;
use peers::OrderState;
use simulators::ProfileState;

use crate::quirks::EarlyStart;
use crate::sandbox::{INSTALL_WITHIN, ORDER_WITHIN, SETTLE_WITHIN};
use crate::scheduler::{START_TIME, Scheduler};

pub(super) fn check_swap(scheduler: &Scheduler, swap: &Activation, disputed: bool) -> Vec<String> {
    let (fakes, monitor) = (&scheduler.fakes, &scheduler.monitor);
    let id = &swap.id;
    let mut violations = Vec::new();
    let orders = fakes.network.orders_of(id.as_str()).expect("the database");
    if orders > 1 {
        violations.push(format!("the network has {orders} orders of {id}"));
    }
    let order = fakes.network.order_state(id.as_str()).expect("the database");
    let unsettled = swap.failure.is_some_and(|failure| failure.as_str() == "unsettled");
    let excused = disputed || monitor.is_end_unknowable(fakes, id.as_str());
    match (swap.phase, order) {
        (Phase::Done, Some(OrderState::Completed)) => {}
        (Phase::Done, order) => {
            violations.push(format!("{id} is done, and the network's order is {order:?}"));
        }
        (Phase::Error, Some(OrderState::Completed)) if !excused => {
            violations.push(format!("{id} failed, and the network's order is completed"));
        }
        (Phase::Error, Some(OrderState::Held | OrderState::InProgress)) if !unsettled && !excused => {
            violations.push(format!("{id} failed, and the network's order is {order:?}"));
        }
        (Phase::Error, _) => {}
        (open, _) => violations.push(format!("{id} stays {open:?}: {:?}", swap.timeline)),
    }
    // The number of a swap with a witness may have moved without the report of an installation.
    if swap.phase == Phase::Done
        && swap.kind == SwapKind::Esim
        && swap.witness.is_none()
        && scheduler.quirks().early_start != EarlyStart::Started
    {
        let profile = fakes.smdp.profile_state(&swap.new_sim).expect("the database");
        if profile != ProfileState::Installed {
            violations.push(format!("{id} is done, and its profile is {profile:?}"));
        }
    }
    let waited_in_vain = swap.failure.is_some_and(|failure| {
        let waits = [
            "expired",
            "codesUsedUp",
            "downloadsUsedUp",
            "wrongDevice",
            "noRoom",
            "profileFailed",
        ];
        swap.phase == Phase::Error && waits.contains(&failure.as_str())
    });
    if waited_in_vain && swap.phone_state != Some(PhoneState::Deleted) {
        if swap.witness.is_some() {
            violations.push(format!(
                "{id} failed, although it was believed that the profile is installed"
            ));
        }
        violations.extend(check_lost_report(scheduler, swap));
    }
    if swap.claim.is_some() {
        violations.push(format!("{id} has ended, and still has a claim"));
    }
    let stopped = monitor.stopped.contains(id.as_str());
    if stopped && swap.phase == Phase::Done && scheduler.quirks().early_start != EarlyStart::Started {
        violations.push(format!("{id} is done, although it was stopped"));
    }
    if !swap.is_anonymous() {
        violations.push(format!("{id} still contains personal data"));
    }
    violations.extend(check_failure(scheduler, swap));
    if let Some(completed) = monitor.completed_at.get(id.as_str())
        && scheduler.is_prompt()
        && let Some(row) = monitor.swap_row(id)
        && let Some(ended) = row.ended_at
        && swap.phase == Phase::Done
        && ended > completed + MAX_COMPLETION_TIME
    {
        let late = (ended - completed) / 1_000;
        violations.push(format!(
            "{id} is done {late} s after we accepted the event of its completion"
        ));
    }
    violations
}

/// An installation that the SM-DP+ has not reported is found if the SM-DP+ can be asked.
fn check_lost_report(scheduler: &Scheduler, swap: &Activation) -> Option<String> {
    // The pauses between polls last up to an hour.
    const LONG_ENOUGH: u64 = 2 * 3_600_000;
    let id = &swap.id;
    let installed = *scheduler.monitor.profiles.installed.get(id.as_str())?;
    let first = scheduler.monitor.swap_row(id)?.first_written;
    let expiry = first + u64::try_from(INSTALL_WITHIN.as_millis()).unwrap_or(0);
    let faults = scheduler.faults();
    let can_ask = scheduler.policy().smdp_has_status && faults.episodes.is_empty();
    let from = installed.max(if faults.is_prompt() { 0 } else { faults.until });
    (can_ask && from + LONG_ENOUGH < expiry)
        .then(|| format!("{id} expired, although its profile was installed at {installed} ms"))
}

/// If nothing fails, a swap is done within this time after the network's report of its completion, in milliseconds.
const MAX_COMPLETION_TIME: u64 = 240_000;

/// A swap must not fail for a reason that did not occur.
fn check_failure(scheduler: &Scheduler, swap: &Activation) -> Option<String> {
    let monitor = &scheduler.monitor;
    let id = swap.id.as_str();
    let failure = swap.failure.filter(|_| swap.phase == Phase::Error)?.as_str();
    let (first, ended) = {
        let row = monitor.swap_row(&swap.id)?;
        (row.first_written, row.ended_at?)
    };
    // The deadlines count from the request; its write may reach the table long after.
    let begin: Timestamp = START_TIME.parse().expect("a valid time");
    let requested = swap.created_at.duration_since(begin).as_millis();
    let lasted = ended - u64::try_from(requested).unwrap_or(0);
    let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(0);
    let given_up = monitor.orders_abandoned.get(id);
    let given_up = |state| given_up.is_some_and(|states| states.contains(&state));
    let installed = monitor.installed_at.get(swap.new_sim.as_str());
    let expiry = first + millis(INSTALL_WITHIN);
    let was_installed = installed.is_some_and(|times| times.iter().any(|at| *at > first && *at + 1_000 < expiry));
    let failures = monitor.profiles_failed.get(swap.new_sim.as_str());
    let has_failed = |failure| failures.is_some_and(|failures| failures.contains(failure));
    let is_deleted = swap.phone_state == Some(PhoneState::Deleted);
    let has_reason = match failure {
        "networkRejected" => monitor.orders_rejected.contains(id) || given_up(OrderState::Rejected),
        "networkFailed" => given_up(OrderState::Failed),
        "networkCancelled" => given_up(OrderState::Cancelled),
        "profileRefused" => monitor.profiles_rejected.contains(id),
        "codesUsedUp" | "downloadsUsedUp" | "wrongDevice" | "noRoom" => {
            lasted >= millis(INSTALL_WITHIN) && has_failed(failure)
        }
        // The SM-DP+ was asked, and does not say why.
        "profileFailed" => {
            lasted >= millis(INSTALL_WITHIN)
                && scheduler.policy().smdp_has_status
                && monitor.profiles_failed.contains_key(swap.new_sim.as_str())
        }
        "unavailable" => lasted >= millis(ORDER_WITHIN) && !scheduler.lets_everything_settle(),
        "expired" => lasted >= millis(INSTALL_WITHIN) && (!was_installed || is_deleted),
        "unsettled" => lasted >= millis(SETTLE_WITHIN) && !scheduler.lets_everything_settle(),
        "cancelled" => monitor.cancels_requested.contains(id),
        "stopped" => monitor.ever_blocked.contains(swap.subscription.as_str()),
        _ => false,
    };
    let seconds = lasted / 1_000;
    (!has_reason).then(|| {
        format!(
            "{id} failed after {seconds} s for a reason that did not occur: {failure}, installed in time: \
             {was_installed}: {:?}",
            swap.timeline
        )
    })
}
