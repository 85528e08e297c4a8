//! What must be true of the mails of a swap at the end of a run. What mails may contain is in `secrets`.

use domain::{Activation, Delivery, DeliveryState, FailureCode, MailKind, Phase, SwapKind};
use jiff::SignedDuration;

use crate::fakes::Fakes;
use crate::quirks::EarlyStart;
use crate::sandbox::INSTALL_WITHIN;
use crate::scheduler::Scheduler;

/// How often SES accepted this mail of a swap.
pub(super) fn times_sent(fakes: &Fakes, id: &str, number: u32) -> usize {
    let of_number = format!("{number}-");
    let mails = fakes.mails();
    let sent = mails
        .iter()
        .filter(|mail| mail.activation == id && mail.attempt.starts_with(&of_number));
    sent.count()
}

pub(super) fn check_mails(scheduler: &Scheduler, swap: &Activation, mails: &[Delivery]) -> Vec<String> {
    let id = swap.id.as_str();
    let mut violations = Vec::new();
    let all = scheduler.fakes.mails();
    let of_swap = all.iter().filter(|mail| mail.activation == id).count();
    drop(all);
    let known = !scheduler.monitor.unknown_outcomes.contains(id);
    let mut of_rows = 0;
    for mail in mails {
        let sent = times_sent(&scheduler.fakes, id, mail.number);
        of_rows += sent;
        let name = format!("mail {} of {id}", mail.number);
        let open = matches!(mail.state, DeliveryState::Pending | DeliveryState::Claimed);
        if open || mail.due_at.is_some() || swap.kind == SwapKind::Physical {
            violations.push(format!("{name} stays {:?}", mail.state));
        }
        let silent = scheduler.ses_reports && scheduler.quirks().ses_silent;
        let max_sent = match (known, silent) {
            (true, _) => 1,
            (false, false) => 2,
            (false, true) => 3,
        };
        if sent > max_sent {
            violations.push(format!("{name} was sent {sent} times; outcomes known: {known}"));
        }
        // SES rejected the mail, or the swap ended first. Without SES's events, a fate may stay unknown.
        let given_up = mail.state == DeliveryState::Failed || mail.rejected_attempts >= Delivery::REJECTED_AT_MOST;
        let unknown =
            (!scheduler.ses_reports || silent) && mail.unknown_attempts > 0 && mail.state == DeliveryState::Ambiguous;
        if sent == 0 && !given_up && !unknown {
            violations.push(format!("{name} was not sent, and is {:?}", mail.state));
        }
        let key = (id.to_owned(), mail.number);
        let is_rejected = scheduler.monitor.mails_rejected.contains(&key);
        // If a process dies after it claimed a mail and before it calls SES, that counts as an attempt of unknown
        // outcome too.
        let used_up =
            (!scheduler.ses_reports || silent) && mail.unknown_attempts >= Delivery::UNKNOWN_AT_MOST_UNREPORTED;
        if sent == 0 && !is_rejected && !used_up && known && would_have_been_sent(scheduler, swap, mail) {
            violations.push(format!("{name} was never sent, although the swap waited for it"));
        }
        let (delivered, bounced) = scheduler.monitor.ses_events.get(&key).copied().unwrap_or_default();
        if mail.state == DeliveryState::Bounced && delivered && !bounced {
            violations.push(format!("{name} was delivered, and is bounced"));
        }
    }
    if of_swap != of_rows {
        violations.push(format!("{of_swap} mails of {id}, but {of_rows} according to its rows"));
    }
    violations.extend(check_mail_of_end(scheduler, swap, mails));
    // A network that starts an order without our request may complete it before we have written the order.
    let early = scheduler.quirks().early_start == EarlyStart::Started;
    if swap.kind == SwapKind::Esim && swap.phase == Phase::Done && mails.is_empty() && !early {
        violations.push(format!("{id} is done without a mail"));
    }
    violations
}

/// Customers who received a mail of a swap that failed are told of the failure, once, and nobody else is.
fn check_mail_of_end(scheduler: &Scheduler, swap: &Activation, mails: &[Delivery]) -> Option<String> {
    const MEANWHILE: u64 = 10 * 60_000;
    let id = swap.id.as_str();
    let (of_end, earlier): (Vec<_>, Vec<_>) = mails.iter().partition(|mail| mail.kind == MailKind::End);
    let sent_at = |mail: &Delivery| {
        let key = (id.to_owned(), mail.number);
        scheduler.monitor.mailed_at.get(&key).copied()
    };
    // A mail that is being sent counts as sent, even if SES does not accept it.
    let is_tried = |mail: &&Delivery| {
        let mut entries = mail.timeline.iter();
        entries.any(|entry| entry.what == "sent" || entry.what.starts_with("SES: "))
    };
    if of_end.len() > 1 || !of_end.is_empty() && !earlier.iter().any(is_tried) {
        return Some(format!(
            "the customer is told {} times of the end of {id}",
            of_end.len()
        ));
    }
    let ended_at = swap.ended_at?;
    let is_told = swap.network_unknown_until.is_none_or(|until| until <= ended_at)
        && !matches!(
            swap.failure,
            Some(FailureCode::Cancelled | FailureCode::Stopped | FailureCode::Unsettled)
        );
    // A swap that the network completes after its end has no failure.
    if !of_end.is_empty() && swap.phase == Phase::Error && !is_told {
        return Some(format!("the customer is told of {:?} of {id}", swap.failure));
    }
    // SES may accept a mail, or report a bounce, while the end is being written.
    let ended = scheduler.monitor.swap_row(&swap.id)?.ended_at?;
    let has_arrived = |mail: &&Delivery| {
        let is_sure = !matches!(mail.state, DeliveryState::Failed | DeliveryState::Bounced);
        is_sure && sent_at(mail).is_some_and(|at| at + MEANWHILE < ended)
    };
    let may_bounce = scheduler.quirks().soft_bounces > 0;
    let is_missed = swap.phase == Phase::Error && is_told && of_end.is_empty() && !may_bounce;
    (is_missed && earlier.iter().any(has_arrived)).then(|| format!("nobody is told of the end of {id}"))
}

/// Whether the swap waited for the installation until it ended, and waited so long with this mail and no later one,
/// while SES accepted mails, that the mail must have been sent.
fn would_have_been_sent(scheduler: &Scheduler, swap: &Activation, mail: &Delivery) -> bool {
    const LONG_ENOUGH: u64 = 100 * 60_000;
    // While the activation code is renewed, the mail is not sent. The mail about the end is not waited for.
    let is_renewed = swap.is_renewing() || swap.renewals.iter().any(|renewal| *renewal >= mail.created_at);
    // A mail with an unknown outcome is not sent again once a phone has downloaded the profile.
    let is_done_with = mail.unknown_attempts > 0 && swap.profile >= Some(domain::ProfileState::Downloaded);
    if mail.kind == MailKind::End || is_renewed || is_done_with {
        return false;
    }
    let waited = match swap.failure.map(|failure| failure.as_str()) {
        // Ordering may take longer than an eSIM waits for its phone.
        Some("expired") => mail.created_at < swap.created_at + SignedDuration::try_from(INSTALL_WITHIN).expect("hours"),
        // The network reports a start, and waits for the installation as we do.
        Some("unsettled") => {
            scheduler.quirks().early_start == EarlyStart::Shown
                && swap.profile < Some(domain::ProfileState::Downloaded)
                && !scheduler.monitor.cancels_requested.contains(swap.id.as_str())
                && !scheduler.monitor.stopped.contains(swap.id.as_str())
                && !scheduler.monitor.orders_abandoned.contains_key(swap.id.as_str())
        }
        _ => false,
    };
    let ended = scheduler.monitor.swap_row(&swap.id).and_then(|row| row.ended_at);
    let written_at = |number| {
        let row = scheduler.monitor.mail_row(swap.id.as_str(), number);
        row.map(|row| row.first_written)
    };
    let written = written_at(mail.number);
    let first = scheduler.monitor.swap_row(&swap.id).map(|row| row.first_written);
    let (Some(ended), Some(from), Some(written), Some(first)) = (ended, scheduler.ses_accepts_from(), written, first)
    else {
        return false;
    };
    // The mail is not sent while the orders are cancelled after the expiry.
    let ended = match swap.failure.map(|failure| failure.as_str()) {
        Some("expired") => ended.min(first + u64::try_from(INSTALL_WITHIN.as_millis()).unwrap_or(0)),
        _ => ended,
    };
    // Neither a replaced mail nor one of an eSIM that is known to be installed is sent.
    let replaced = written_at(mail.number + 1);
    let installed = scheduler.monitor.profiles.installed.get(swap.id.as_str()).copied();
    let installed = installed.filter(|_| swap.profile == Some(domain::ProfileState::Installed));
    let needed_until = replaced.into_iter().chain(installed).fold(ended, u64::min);
    waited && needed_until > from.max(written) + LONG_ENOUGH
}
