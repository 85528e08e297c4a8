//! The timeline of a swap or a mail: its entries, how entries are added, and how their texts are split for display. Who
//! adds which entry is not here.

use std::borrow::Cow;

use jiff::Timestamp;

use crate::{Activation, Caller, Delivery, FailureCode, HoldReason, Scope};

/// Maximum number of entries in the timeline of a swap. Later entries are dropped, except those that say why and how
/// the swap ended.
pub const TIMELINE_CAP: usize = 40;

/// One entry of a timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineEntry {
    /// When it happened for the first time.
    pub at: Timestamp,
    /// Who did what, in our own words, never in a peer's: `smdp: downloaded`.
    pub what: String,
    /// How many times it happened: attempts that failed in the same way share one entry.
    pub count: u32,
    /// When it happened for the last time.
    pub last: Timestamp,
}

impl TimelineEntry {
    /// An entry for something that has happened once.
    pub fn new(at: Timestamp, what: impl Into<String>) -> Self {
        Self {
            at,
            what: what.into(),
            count: 1,
            last: at,
        }
    }
}

/// Counts up the entry with the same text, or adds a new one unless the timeline is full.
pub(crate) fn count_or_add(timeline: &mut Vec<TimelineEntry>, at: Timestamp, what: &str) {
    if let Some(entry) = timeline.iter_mut().find(|entry| entry.what == what) {
        entry.count += 1;
        entry.last = at;
    } else if timeline.len() < TIMELINE_CAP {
        timeline.push(TimelineEntry::new(at, what));
    }
}

/// The text of a timeline entry, split for display.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineParts<'a> {
    /// Who acted: `smdp`, `network`, `SES`, `simswap` (this service) or the label of a caller.
    pub by: &'a str,
    /// What happened: a fixed word, in camel case. `other` for a text that this version does not write.
    pub what: &'static str,
    /// A peer's status or codes, an order's number, a failure code, a mail's number or a caller's note. Often empty.
    pub detail: Cow<'a, str>,
}

/// The texts that never vary, each with its word.
const FIXED_TEXTS: [(&str, &str); 39] = [
    ("ordering", "ordering"),
    ("cut off", "interrupted"),
    ("the line is locked", "lineLocked"),
    ("the line is not active", "lineBlocked"),
    ("the number is being ported", "linePorting"),
    ("renewal refused", "renewRefused"),
    ("report believed", "reportBelieved"),
    ("report refused", "reportRefused"),
    ("reminder", "reminder"),
    ("notice of the end", "endNotice"),
    ("done", "done"),
    ("error", "error"),
    ("sent", "mailSent"),
    ("not needed any more", "mailUnneeded"),
    ("smdp: the ICCID is taken", "iccidTaken"),
    ("smdp: downloaded", "downloaded"),
    ("smdp: installed", "installed"),
    ("smdp: enabled", "enabled"),
    ("smdp: disabled", "disabled"),
    ("smdp: deleted", "deleted"),
    ("smdp: wrong confirmation code", "wrongCode"),
    ("smdp: profile failed", "profileFailed"),
    ("smdp: on a phone", "onPhone"),
    ("smdp: cancelled", "profileCancelled"),
    ("smdp: old code cancelled", "oldCodeCancelled"),
    ("smdp: renewed", "renewed"),
    ("network: started", "started"),
    ("network: completed", "completed"),
    ("network: completed, disputed", "disputed"),
    ("network: no order", "noOrder"),
    ("network: does not know the order", "orderUnknown"),
    ("SES: accepted", "mailAccepted"),
    ("SES: delivered", "mailDelivered"),
    ("SES: bounced", "mailBounced"),
    ("SES: bounced for now", "mailBouncedForNow"),
    ("SES: complaint", "mailComplaint"),
    ("SES: refused", "mailRefused"),
    ("SES: no answer", "mailUnanswered"),
    ("SES: never heard of it", "mailUnknown"),
];

/// What callers do, as the end of the text, each with its word.
const REQUESTS: [(&str, &str); 4] = [
    (" asked", "requested"),
    (" cancels", "cancelRequested"),
    (" asks for another mail", "resendRequested"),
    (" renews", "renewRequested"),
];

impl<'a> TimelineParts<'a> {
    /// Splits the text of an entry. Only known parts of a text become `by` and `detail`, so that nothing unexpected is
    /// shown.
    pub fn parse(text: &'a str) -> Self {
        let (by, (what, detail)) = match text.split_once(' ') {
            Some((role @ ("OWNER" | "RESELLER" | "ADMIN"), _)) => split_request(text).unwrap_or((role, UNKNOWN_TEXT)),
            _ => {
                let by = match text.split_once(": ") {
                    Some((by @ ("smdp" | "network" | "SES"), _)) => by,
                    _ => "simswap",
                };
                (by, classify(text).unwrap_or(UNKNOWN_TEXT))
            }
        };
        let detail = Cow::Borrowed(detail);
        Self { by, what, detail }
    }

    /// Who acted, as `viewer` may see it: an OWNER sees only the role of a caller, whose subject may name an employee.
    pub fn by_for(&self, viewer: &Caller) -> &'a str {
        match viewer.scope {
            Scope::Owner { .. } => self.by.split_once(' ').map_or(self.by, |(role, _)| role),
            _ => self.by,
        }
    }
}

/// Word and detail of a text that is not known.
const UNKNOWN_TEXT: (&str, &str) = ("other", "");

/// Word and detail of an entry that is no request of a caller.
fn classify(text: &str) -> Option<(&'static str, &str)> {
    if let Some((_, what)) = FIXED_TEXTS.iter().find(|(fixed, _)| *fixed == text) {
        return Some((what, ""));
    }
    if let Some(number) = text.strip_prefix("ordered as ") {
        let late = number.strip_suffix(", to be cancelled");
        return Some(late.map_or(("ordered", number), |number| ("orderedLate", number)));
    }
    if let Some(codes) = text.strip_prefix("smdp: profile failed ") {
        return is_code(codes).then_some(("profileFailed", codes));
    }
    let (by, detail) = text.split_once(": ")?;
    let is_failure_code = || detail.parse::<FailureCode>().is_ok();
    let what = match by {
        "ending" if is_failure_code() => "ending",
        "network" if is_failure_code() => "orderEnded",
        "network" if is_order_state(detail) => "unexpectedState",
        "smdp" | "network" if is_failed_call(detail) => "callFailed",
        "SES" if HoldReason::ALL.iter().any(|reason| reason.as_str() == detail) => "mailHeld",
        _ => return None,
    };
    Some((what, detail))
}

/// Whether this is a status code, or a pair of codes of the SM-DP+.
fn is_code(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.' || b == b'/')
}

/// Whether this is the detail of a [`FailedCall`](crate::FailedCall).
fn is_failed_call(detail: &str) -> bool {
    is_code(detail) || matches!(detail, "no answer" | "unreadable" | "no code" | "no address")
}

/// Whether this is a state of a TMF641 order in which it cannot be started, and which decides nothing.
fn is_order_state(text: &str) -> bool {
    matches!(
        text,
        "Partial" | "AssessingCancellation" | "PendingCancellation" | "Unknown"
    )
}

/// Splits a caller's request into the caller's label, the word and the detail. The label contains the subject of a
/// token, which may be any text.
fn split_request(text: &str) -> Option<(&str, (&'static str, &str))> {
    // A report comes first, because its note is free text and may end like a request.
    let report = text.match_indices(" reports: ").find_map(|(place, separator)| {
        let report = &text[place + separator.len()..];
        let witness = report.split_once(": ").map_or(report, |(witness, _)| witness);
        matches!(witness, "customer" | "agent" | "app").then_some((&text[..place], ("installReported", report)))
    });
    let request = || {
        REQUESTS
            .iter()
            .find_map(|(end, what)| Some((text.strip_suffix(end)?, (*what, ""))))
    };
    report.or_else(request)
}

/// The timelines of a swap and its mails as one, oldest first, each entry with its parts. The detail of a mail's entry
/// begins with the number of the mail: `mail 2`.
pub fn merge_timelines<'a>(swap: &'a Activation, mails: &'a [Delivery]) -> Vec<(&'a TimelineEntry, TimelineParts<'a>)> {
    let of_swap = swap
        .timeline
        .iter()
        .map(|entry| (entry, TimelineParts::parse(&entry.what)));
    let of_mails = mails.iter().flat_map(|mail| {
        mail.timeline.iter().map(|entry| {
            let parts = TimelineParts::parse(&entry.what);
            let detail = match &*parts.detail {
                "" => format!("mail {}", mail.number),
                detail => format!("mail {}, {detail}", mail.number),
            };
            let detail = detail.into();
            (entry, TimelineParts { detail, ..parts })
        })
    });
    let mut merged: Vec<_> = of_swap.chain(of_mails).collect();
    merged.sort_by_key(|(entry, _)| entry.at);
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SwapBlocker;

    #[track_caller]
    fn check(text: &str, by: &str, what: &str, detail: &str) {
        let parts = TimelineParts::parse(text);
        assert_eq!((parts.by, parts.what, &*parts.detail), (by, what, detail), "{text}");
    }

    #[test]
    fn every_text_has_its_parts() {
        for (text, by, what, detail) in [
            // Callers.
            ("OWNER anna asked", "OWNER anna", "requested", ""),
            ("ADMIN x cancels", "ADMIN x", "cancelRequested", ""),
            (
                "RESELLER shop 7 asks for another mail",
                "RESELLER shop 7",
                "resendRequested",
                "",
            ),
            ("OWNER anna renews", "OWNER anna", "renewRequested", ""),
            (
                "OWNER anna reports: customer",
                "OWNER anna",
                "installReported",
                "customer",
            ),
            ("ADMIN x reports: agent", "ADMIN x", "installReported", "agent"),
            ("OWNER anna reports: app", "OWNER anna", "installReported", "app"),
            (
                "OWNER anna reports: app: code: LPA reports: agent: he asked",
                "OWNER anna",
                "installReported",
                "app: code: LPA reports: agent: he asked",
            ),
            // The subject of a token may be any text.
            (
                "OWNER smdp: who asked cancels",
                "OWNER smdp: who asked",
                "cancelRequested",
                "",
            ),
            (
                "OWNER a reports: agent reports: customer",
                "OWNER a reports: agent",
                "installReported",
                "customer",
            ),
            // The service.
            ("ordering", "simswap", "ordering", ""),
            ("ordered as so-7", "simswap", "ordered", "so-7"),
            ("ordered as so-7, to be cancelled", "simswap", "orderedLate", "so-7"),
            ("cut off", "simswap", "interrupted", ""),
            ("renewal refused", "simswap", "renewRefused", ""),
            ("report believed", "simswap", "reportBelieved", ""),
            ("report refused", "simswap", "reportRefused", ""),
            ("reminder", "simswap", "reminder", ""),
            ("notice of the end", "simswap", "endNotice", ""),
            ("done", "simswap", "done", ""),
            ("error", "simswap", "error", ""),
            // The SM-DP+.
            ("smdp: the ICCID is taken", "smdp", "iccidTaken", ""),
            ("smdp: downloaded", "smdp", "downloaded", ""),
            ("smdp: installed", "smdp", "installed", ""),
            ("smdp: enabled", "smdp", "enabled", ""),
            ("smdp: disabled", "smdp", "disabled", ""),
            ("smdp: deleted", "smdp", "deleted", ""),
            ("smdp: wrong confirmation code", "smdp", "wrongCode", ""),
            ("smdp: profile failed", "smdp", "profileFailed", ""),
            ("smdp: profile failed 8.1/4.8", "smdp", "profileFailed", "8.1/4.8"),
            ("smdp: on a phone", "smdp", "onPhone", ""),
            ("smdp: cancelled", "smdp", "profileCancelled", ""),
            ("smdp: old code cancelled", "smdp", "oldCodeCancelled", ""),
            ("smdp: renewed", "smdp", "renewed", ""),
            ("smdp: 8.2.1/3.9", "smdp", "callFailed", "8.2.1/3.9"),
            ("smdp: no code", "smdp", "callFailed", "no code"),
            ("smdp: no address", "smdp", "callFailed", "no address"),
            // The network.
            ("network: started", "network", "started", ""),
            ("network: completed", "network", "completed", ""),
            ("network: completed, disputed", "network", "disputed", ""),
            ("network: no order", "network", "noOrder", ""),
            ("network: does not know the order", "network", "orderUnknown", ""),
            ("network: Partial", "network", "unexpectedState", "Partial"),
            (
                "network: AssessingCancellation",
                "network",
                "unexpectedState",
                "AssessingCancellation",
            ),
            (
                "network: PendingCancellation",
                "network",
                "unexpectedState",
                "PendingCancellation",
            ),
            ("network: Unknown", "network", "unexpectedState", "Unknown"),
            ("network: 503", "network", "callFailed", "503"),
            ("network: no answer", "network", "callFailed", "no answer"),
            ("network: unreadable", "network", "callFailed", "unreadable"),
            // Mails.
            ("sent", "simswap", "mailSent", ""),
            ("not needed any more", "simswap", "mailUnneeded", ""),
            ("SES: accepted", "SES", "mailAccepted", ""),
            ("SES: delivered", "SES", "mailDelivered", ""),
            ("SES: bounced", "SES", "mailBounced", ""),
            ("SES: bounced for now", "SES", "mailBouncedForNow", ""),
            ("SES: complaint", "SES", "mailComplaint", ""),
            ("SES: refused", "SES", "mailRefused", ""),
            ("SES: no answer", "SES", "mailUnanswered", ""),
            ("SES: never heard of it", "SES", "mailUnknown", ""),
            // Nothing of an unknown text is shown, except who acted.
            ("", "simswap", "other", ""),
            ("something new", "simswap", "other", ""),
            ("smdp: LPA:1$smdp.example$SECRET", "smdp", "other", ""),
            ("smdp: profile failed LPA:1$x", "smdp", "other", ""),
            ("network: Internal Server Error", "network", "other", ""),
            ("SES: too many", "SES", "other", ""),
            ("ending: somehow", "simswap", "other", ""),
            ("OWNER anna dances", "OWNER", "other", ""),
            ("OWNER anna reports: friend: hello", "OWNER", "other", ""),
        ] {
            check(text, by, what, detail);
        }
        for failure in FailureCode::ALL.map(FailureCode::as_str) {
            check(&format!("ending: {failure}"), "simswap", "ending", failure);
            check(&format!("network: {failure}"), "network", "orderEnded", failure);
        }
        for reason in HoldReason::ALL.map(HoldReason::as_str) {
            check(&format!("SES: {reason}"), "SES", "mailHeld", reason);
        }
        for (blocker, what) in [
            (SwapBlocker::Locked, "lineLocked"),
            (SwapBlocker::Blocked, "lineBlocked"),
            (SwapBlocker::Porting, "linePorting"),
        ] {
            check(blocker.as_str(), "simswap", what, "");
        }
    }

    #[test]
    fn an_owner_sees_only_the_role_of_a_caller() {
        let viewer = |scope| Caller {
            subject: "viewer".into(),
            scope,
        };
        let owner = viewer(Scope::Owner {
            customer: "C-100".into(),
        });
        let reseller = viewer(Scope::Reseller {
            reseller: "R-10".into(),
        });
        let admin = viewer(Scope::Admin);
        for (text, full, short) in [
            ("OWNER anna asked", "OWNER anna", "OWNER"),
            ("ADMIN a b cancels", "ADMIN a b", "ADMIN"),
            ("SES: delivered", "SES", "SES"),
            ("done", "simswap", "simswap"),
        ] {
            let parts = TimelineParts::parse(text);
            let seen = [&admin, &reseller, &owner].map(|viewer| parts.by_for(viewer));
            assert_eq!(seen, [full, full, short], "{text}");
        }
    }
}
