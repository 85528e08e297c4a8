//! What must be true of lines and SIMs at the end of a run: the table agrees with the network and the SM-DP+, and no
//! SIM is lost.

use std::collections::BTreeMap;

use domain::{Activation, Delivery, Iccid, Msisdn, Phase};
use local::dynoxide::{AttributeValue, Item};
use simulators::ProfileState;

use super::string_attribute;
use crate::quirks::EarlyStart;
use crate::scheduler::Scheduler;
use crate::stock::{FREE, LINES};

/// Rows by partition key and sort key.
type Rows<'a> = BTreeMap<(&'a str, &'a str), &'a Item>;

/// A swap with its mails.
type SwapAndMails = (Activation, Vec<Delivery>);

pub(super) fn check_lines_and_sims(scheduler: &Scheduler, rows: &Rows<'_>, swaps: &[SwapAndMails]) -> Vec<String> {
    let mut violations = check_lines(scheduler, rows, swaps);
    violations.extend(check_unsettled_sims(rows, swaps));
    violations.extend(check_sims(scheduler, rows, swaps));
    violations
}

/// Each line is on one SIM: the same in the table, in the network and according to its last swap.
fn check_lines(scheduler: &Scheduler, rows: &Rows<'_>, swaps: &[SwapAndMails]) -> Vec<String> {
    let mut violations = Vec::new();
    let fakes = &scheduler.fakes;
    for stock in &LINES {
        let id = stock.id;
        let key = format!("L#{id}");
        let line = rows.get(&(key.as_str(), "line")).expect("no line is lost");
        let current_sim = string_attribute(line, "sim");
        if line.contains_key("swap") {
            let open = string_attribute(line, "swap");
            violations.push(format!("line {id} is still reserved by {open}"));
        }
        let phone = Msisdn::parse(string_attribute(line, "phone")).expect("a number");
        let network = fakes.network.sim_of(&phone).expect("the database");
        let network = network.as_ref().map_or(stock.sim, Iccid::as_str);
        let mut of_line = scheduler.monitor.swaps_of(id);
        let unknowable = of_line.any(|swap| scheduler.monitor.is_end_unknowable(fakes, swap));
        let excused = line.contains_key("disputed") || unknowable;
        if current_sim != network && !excused {
            violations.push(format!(
                "line {id} is on {current_sim}, and on {network} in the network"
            ));
        }
        for kept in ["keptCard", "keptEsim"].map(|name| string_attribute(line, name)) {
            let sim = format!("S#{kept}");
            let sim = rows.get(&(sim.as_str(), "sim"));
            let state = sim.map(|sim| (string_attribute(sim, "state"), string_attribute(sim, "holder")));
            if !kept.is_empty() && state != Some(("FREE", key.as_str())) {
                violations.push(format!("line {id} has the kept SIM {kept}, which is {state:?}"));
            }
        }
        let sim = format!("S#{current_sim}");
        let sim = rows.get(&(sim.as_str(), "sim")).expect("no SIM is lost");
        let (state, holder) = (string_attribute(sim, "state"), string_attribute(sim, "holder"));
        if (state, holder) != ("ACTIVATED", &key) {
            violations.push(format!("line {id} is on {current_sim}, which is {state} of {holder}"));
        }
        let done = swaps.iter().map(|(swap, _)| swap);
        let done = done.filter(|swap| swap.subscription.as_str() == id && swap.phase == Phase::Done);
        let last = done.max_by_key(|swap| swap.ended_at);
        let expected = last.map_or(stock.sim, |swap| swap.new_sim.as_str());
        let used_there = format!("S#{network}");
        let used_there = rows.get(&(used_there.as_str(), "sim"));
        if used_there.is_some_and(|sim| string_attribute(sim, "state") == "FREE") && !unknowable {
            violations.push(format!(
                "SIM {network} is free, although the network has line {id} on it"
            ));
        }
        if current_sim != expected {
            violations.push(format!(
                "line {id} is on {current_sim}, and should be on {expected} after its last swap"
            ));
        }
    }
    violations
}

/// The SIM of an unsettled swap is not used again.
fn check_unsettled_sims(rows: &Rows<'_>, swaps: &[SwapAndMails]) -> Vec<String> {
    let mut violations = Vec::new();
    for (swap, _) in swaps {
        let unsettled = swap.failure.is_some_and(|failure| failure.as_str() == "unsettled");
        let key = format!("S#{}", swap.new_sim);
        let sim = rows.get(&(key.as_str(), "sim")).expect("no SIM is lost");
        let state = string_attribute(sim, "state");
        if unsettled && state != "DISABLED" {
            let id = &swap.id;
            violations.push(format!("{id} is unsettled, and its SIM is {state}"));
        }
    }
    violations
}

/// The state of each SIM fits the lines, the swaps and its profile in the SM-DP+.
fn check_sims(scheduler: &Scheduler, rows: &Rows<'_>, swaps: &[SwapAndMails]) -> Vec<String> {
    let mut violations = Vec::new();
    let fakes = &scheduler.fakes;
    let numbers = FREE.iter().map(|free| free.0).chain(LINES.iter().map(|line| line.sim));
    for number in numbers {
        let key = format!("S#{number}");
        let sim = rows.get(&(key.as_str(), "sim")).expect("no SIM is lost");
        let (state, holder) = (string_attribute(sim, "state"), string_attribute(sim, "holder"));
        let in_pool = sim.contains_key("shelf");
        let used = swaps
            .iter()
            .any(|(swap, _)| swap.old_sim.as_str() == number && swap.phase == Phase::Done);
        let is_consistent = match (state, holder) {
            // A SIM whose codes a caller was shown is not assigned to anybody else.
            ("FREE", "") => {
                let shown = sim.get("codesShown") == Some(&AttributeValue::BOOL(true));
                in_pool != shown && !used && !scheduler.monitor.codes_shown_for.contains_key(number)
            }
            ("FREE", holder) => {
                let kept = ["keptCard", "keptEsim"];
                let line = rows.get(&(holder, "line"));
                let keeps = line.is_some_and(|line| kept.iter().any(|n| string_attribute(line, n) == number));
                !in_pool && !used && keeps
            }
            ("DISABLED", "") => !in_pool,
            ("ACTIVATED", holder) => {
                let line = rows.get(&(holder, "line"));
                !in_pool && line.is_some_and(|line| string_attribute(line, "sim") == number)
            }
            _ => false,
        };
        if !is_consistent {
            violations.push(format!(
                "SIM {number} is {state} of {holder:?}, in the pool: {in_pool}, was used: {used}"
            ));
        }
        let iccid = Iccid::parse(number).expect("an ICCID");
        let profile = fakes.smdp.profile_state(&iccid).expect("the database");
        // The SM-DP+ cannot cancel a profile that a phone downloaded and then failed to install.
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
            let unsettled = swap.failure.is_some_and(|failure| failure.as_str() == "unsettled");
            let early = swap.phase == Phase::Done && scheduler.quirks().early_start == EarlyStart::Started;
            // Somebody said that the profile is installed.
            let believed = swap.phase == Phase::Done && swap.witness.is_some();
            // Its rejection of a repeated call reads as if a phone had the profile.
            let misled = scheduler.quirks().rejects_repeated_cancel;
            unsettled || early || believed || misled
        });
        if live && !(given_up && state != "FREE") {
            violations.push(format!("the SM-DP+ still has {number} as {profile:?}"));
        }
        let on_phone = matches!(profile, ProfileState::Downloaded | ProfileState::Installed);
        if on_phone && state == "FREE" {
            violations.push(format!("SIM {number} is free, although it is on a phone"));
        }
    }
    violations
}
