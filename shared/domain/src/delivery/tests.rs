//! Tests of the lifecycle of a mail: the complete tables of facts and steps, sequences of facts, and property tests.

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::line::tests::line;
use crate::{Iccid, Requested, SwapKind};
use crate::{ProfileRequest, ProfileRequestKind, ProfileRequestState};

const DEADLINES: MailDeadlines = MailDeadlines {
    doubt: SignedDuration::from_mins(15),
    refusal: SignedDuration::from_mins(1),
    lease: SignedDuration::from_secs(60),
    silence: None,
};

/// With reports from SES.
const WITH_REPORTS: MailDeadlines = MailDeadlines {
    silence: Some(SignedDuration::from_hours(1)),
    ..DEADLINES
};

fn swap() -> (Activation, Timestamp) {
    let at = "2026-03-01T12:00:00Z".parse().unwrap();
    let swap = Activation::accept(
        ActivationId::from_random(at, 7),
        &line(),
        SwapKind::Esim,
        Iccid::parse("8931086000000002019").unwrap(),
        Requested::default(),
        "OWNER anna",
        DEADLINES.lease,
        at,
    );
    (swap, at)
}

fn new_mail() -> (Delivery, Timestamp) {
    let (swap, at) = swap();
    let to = EmailAddress::parse("anna@example.com").unwrap();
    (Delivery::new(&swap, 1, to, DEADLINES.lease, at), at)
}

/// The fact with this name. `token` is the number of the claim that the fact begins or ends.
fn fact(name: &str, token: u32, at: Timestamp) -> DeliveryFact {
    let outcome = match name {
        "claimed" => {
            return DeliveryFact::Claimed {
                token: token.to_string(),
                deadline: at + DEADLINES.lease,
            };
        }
        "expired" => return DeliveryFact::Expired,
        "unheard" => return DeliveryFact::Unheard,
        "void" => return DeliveryFact::Void,
        "postponed" => return DeliveryFact::Postponed,
        "accepted" => return report_fact(MailReport::Accepted),
        "delivered" => return report_fact(MailReport::Delivered),
        "complained" => return report_fact(MailReport::Complained),
        "bounced" => return report_fact(MailReport::Bounced),
        "bounced-for-now" => return report_fact(MailReport::BouncedForNow),
        "sent" => SendOutcome::Sent("ses-1".to_owned()),
        "throttled" => SendOutcome::Held(HoldReason::Throttled),
        "quota" => SendOutcome::Held(HoldReason::Quota),
        "released" => SendOutcome::RejectedForNow,
        "refused" => SendOutcome::Refused,
        "lost" => SendOutcome::Lost,
        _ => panic!("no fact is named {name}"),
    };
    DeliveryFact::Ended {
        token: token.to_string(),
        outcome,
    }
}

fn report_fact(report: MailReport) -> DeliveryFact {
    DeliveryFact::Reported {
        message_id: "ses-1".to_owned(),
        report,
    }
}

/// Applies a story to a new mail. A story consists of facts and minutes that pass (`+15`). A fact belongs to the newest
/// claim unless it names another one (`sent#1`). A fact with `!` has to change nothing; all others have to change
/// something.
fn play(story: &str, deadlines: &MailDeadlines) -> (Delivery, Timestamp, u32) {
    let ((mut d, mut at), mut claims) = (new_mail(), 0);
    for word in story.split_whitespace() {
        if let Some(minutes) = word.strip_prefix('+') {
            at += SignedDuration::from_mins(minutes.parse().unwrap());
            continue;
        }
        let name = word.trim_end_matches('!');
        let (name, token) = match name.split_once('#') {
            Some((name, token)) => (name, token.parse().unwrap()),
            None => (name, claims + u32::from(name == "claimed")),
        };
        let found = apply_delivery(&d, &fact(name, token, at), deadlines, at);
        assert_eq!(found.is_none(), word.ends_with('!'), "{word} of: {story}");
        if let Some(after) = found {
            assert_eq!(after.version, d.version + 1);
            assert_eq!(after.modified_at == at, name != "postponed" || d.modified_at == at);
            let entries = |mail: &Delivery| mail.timeline.iter().map(|entry| entry.what.clone()).collect::<Vec<_>>();
            assert!(entries(&after).starts_with(&entries(&d)));
            claims += u32::from(name == "claimed");
            d = after;
        }
    }
    (d, at, claims)
}

/// A step as a word. A time is shown as the number of seconds until then.
fn describe_next_step(d: &Delivery, now: Timestamp) -> String {
    match next_delivery(d, now) {
        DeliveryStep::Send => "send".to_owned(),
        DeliveryStep::Expire => "expire".to_owned(),
        DeliveryStep::Unheard => "unheard".to_owned(),
        DeliveryStep::WaitUntil(until) => format!("wait:{}", until.duration_since(now).as_secs()),
        DeliveryStep::Nothing => "rest".to_owned(),
    }
}

/// The cells of a table. Each line is a row.
fn rows(table: &str) -> Vec<Vec<&str>> {
    table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .filter(|row: &Vec<&str>| !row.is_empty())
        .collect()
}

#[test]
fn every_fact_in_every_state() {
    let stories = [
        ("pending", ""),
        ("waiting", "claimed released"),
        ("claimed", "claimed"),
        ("overdue", "claimed +1"),
        ("unknown", "claimed lost"),
        ("second", "claimed lost +15 claimed"),
        ("spent", "claimed lost +15 claimed lost"),
        ("third", "claimed lost +15 claimed lost +60 claimed"),
        ("mute", "claimed lost +15 claimed lost +60 claimed lost +59"),
        ("silent", "claimed lost +15 claimed lost +60 claimed lost +60"),
        ("sent", "claimed sent"),
        ("failed", "claimed refused"),
        ("held", "claimed throttled"),
        ("delivered", "claimed sent delivered"),
        ("soft", "claimed sent bounced-for-now"),
        ("bounced", "claimed sent bounced"),
    ];
    // A cell has the state after the fact, or `-` if nothing changes.
    let table = rows(
        "
                         pending    waiting    claimed    overdue    unknown    second     spent      third      mute       silent     sent       failed     held       delivered  soft       bounced
        claimed          claimed    -          -          -          -          -          -          -          -          -          -          -          -          -          -          -
        sent             -          -          sent       sent       sent       sent       sent       sent       sent       sent       -          -          -          -          -          -
        throttled        -          -          pending    pending    pending    ambiguous  ambiguous  ambiguous  ambiguous  ambiguous  -          -          -          -          -          -
        released         -          -          pending    pending    pending    ambiguous  ambiguous  ambiguous  ambiguous  ambiguous  -          -          -          -          -          -
        refused          -          -          failed     failed     failed     ambiguous  ambiguous  ambiguous  ambiguous  ambiguous  -          -          -          -          -          -
        lost             -          -          ambiguous  ambiguous  -          ambiguous  -          ambiguous  -          -          -          -          -          -          -          -
        expired          -          -          -          ambiguous  -          -          -          -          -          -          -          -          -          -          -          -
        unheard          -          -          -          -          -          -          -          -          -          failed     -          -          -          -          -          -
        accepted         sent       sent       sent       sent       sent       sent       sent       sent       sent       sent       -          sent       sent       -          -          -
        delivered        delivered  delivered  delivered  delivered  delivered  delivered  delivered  delivered  delivered  delivered  delivered  delivered  delivered  -          delivered  -
        complained       delivered  delivered  delivered  delivered  delivered  delivered  delivered  delivered  delivered  delivered  delivered  delivered  delivered  delivered  delivered  bounced
        bounced-for-now  bounced    bounced    bounced    bounced    bounced    bounced    bounced    bounced    bounced    bounced    bounced    bounced    bounced    -          -          -
        bounced          bounced    bounced    bounced    bounced    bounced    bounced    bounced    bounced    bounced    bounced    bounced    bounced    bounced    bounced    bounced    -
        void             failed     failed     claimed    claimed    ambiguous  claimed    ambiguous  claimed    ambiguous  ambiguous  -          -          failed     -          -          -
        postponed        -          -          -          -          -          -          -          -          ambiguous  -          -          -          -          -          -          -
        ",
    );
    assert!(table[0].iter().eq(stories.iter().map(|(name, _)| name)));
    for row in &table[1..] {
        assert_eq!(row.len(), stories.len() + 1, "{row:?}");
        for (cell, (state, story)) in row[1..].iter().zip(stories) {
            let (d, at, claims) = play(story, &WITH_REPORTS);
            let token = claims + u32::from(row[0] == "claimed");
            let found = apply_delivery(&d, &fact(row[0], token, at), &WITH_REPORTS, at);
            assert_eq!(
                found.map_or("-", |d| d.state.as_str()),
                *cell,
                "{} while {state}",
                row[0]
            );
            let stranger = fact("sent", 99, at);
            assert_eq!(apply_delivery(&d, &stranger, &DEADLINES, at), None);
        }
    }
}

/// The fields that `next_delivery` reads. `over` and `due` mean this very moment.
const COLUMNS: [(&str, &[&str]); 5] = [
    (
        "state",
        &[
            "pending",
            "claimed",
            "sent",
            "delivered",
            "bounced",
            "ambiguous",
            "failed",
        ],
    ),
    ("attempt", &["none", "over", "running"]),
    ("doubts", &["0", "1", "2", "3"]),
    ("refusals", &["0", "5", "6"]),
    ("wake", &["none", "due", "later"]),
];

#[test]
fn the_next_step_of_every_state() {
    // The first row that matches has the next step. `*` matches all values, `a|b` both.
    let table = rows(
        "
        state              attempt  doubts  refusals  wake   step
        claimed            running  *       *         *      wait:30
        claimed            *        *       *         *      expire
        pending|ambiguous  *        *       6         *      rest
        ambiguous          *        2|3     *         none   rest
        pending|ambiguous  *        *       *         later  wait:60
        pending|ambiguous  *        3       *         *      unheard
        pending|ambiguous  *        *       *         *      send
        *                  *        *       *         *      rest
        ",
    );
    let (names, rows) = table.split_first().unwrap();
    assert!(COLUMNS.iter().map(|column| column.0).eq(names[..5].iter().copied()));
    let (mut d, now) = new_mail();
    for index in 0..COLUMNS.iter().map(|column| column.1.len()).product() {
        let mut rest: usize = index;
        let values = COLUMNS.map(|(_, values)| {
            let value = values[rest % values.len()];
            rest /= values.len();
            value
        });
        let matches = |(cell, value): (&&str, &str)| *cell == "*" || cell.split('|').any(|one| one == value);
        let row = rows.iter().find(|row| row.iter().zip(values).all(matches)).unwrap();

        let [state, attempt, doubts, refusals, wake] = values;
        d.state = state.parse().unwrap();
        d.attempt = (attempt != "none").then(|| Attempt {
            number: 1,
            token: String::new(),
            deadline: now + SignedDuration::from_secs(if attempt == "running" { 30 } else { 0 }),
        });
        d.unknown_attempts = doubts.parse().unwrap();
        d.rejected_attempts = refusals.parse().unwrap();
        d.wake_at = (wake != "none").then(|| now + SignedDuration::from_secs(if wake == "later" { 60 } else { 0 }));
        assert_eq!(describe_next_step(&d, now), row[5], "{values:?}");
    }
}

#[test]
fn stories() {
    let table = "
        # The outcome is known.
        claimed sent => sent rest
        claimed sent sent! => sent rest
        claimed refused => failed rest
        # SES rejects the mail for now: pauses of 1, 2, 4, 8 and 16 minutes; the sixth attempt is the last.
        claimed released => pending wait:60
        claimed released released! => pending wait:60
        claimed released +1 claimed released => pending wait:120
        claimed released +1 claimed released +2 claimed released +4 claimed released +8 claimed released => pending wait:960
        claimed released +1 claimed released +2 claimed released +4 claimed released +8 claimed released +16 claimed released => failed rest
        # SES does not process the mail: the pause doubles up to an hour. Small tokens add little to half a pause.
        claimed throttled => pending wait:30
        claimed throttled throttled! => pending wait:30
        claimed throttled +1 claimed quota => pending wait:60
        claimed throttled +1 claimed throttled +2 claimed throttled +4 claimed throttled +8 claimed throttled +16 claimed throttled => pending wait:965
        claimed throttled +1 claimed throttled +2 claimed throttled +4 claimed throttled +8 claimed throttled +16 claimed throttled +32 claimed throttled => pending wait:1812
        claimed throttled +1 claimed throttled +2 claimed throttled +4 claimed throttled +8 claimed throttled +16 claimed throttled +32 claimed throttled +60 claimed throttled +60 claimed throttled => pending wait:1816
        claimed throttled +1 claimed released => pending wait:60
        claimed throttled +1 claimed lost => ambiguous wait:900
        claimed throttled +1 claimed sent => sent rest
        claimed released +1 claimed throttled => pending wait:30
        claimed lost throttled => pending wait:30
        claimed lost +15 claimed throttled => ambiguous wait:30
        claimed lost +15 claimed throttled +1 claimed lost => ambiguous rest
        claimed lost +15 claimed lost throttled => ambiguous wait:30
        claimed throttled void => failed rest
        claimed void throttled => failed rest
        claimed lost +15 claimed void throttled => ambiguous rest
        # An unknown outcome: one more attempt, 15 minutes later.
        claimed lost => ambiguous wait:900
        claimed +1 => claimed expire
        claimed +1 expired => ambiguous wait:900
        claimed +1 expired expired! lost! => ambiguous wait:900
        claimed lost +15 claimed sent => sent rest
        claimed lost +15 claimed lost => ambiguous rest
        claimed lost +15 claimed released => ambiguous wait:60
        claimed lost +15 claimed released released! +1 claimed lost => ambiguous rest
        claimed lost +15 claimed refused => ambiguous rest
        # Late responses count, as long as no later attempt has begun.
        claimed +1 expired sent => sent rest
        claimed +1 expired released => pending wait:60
        claimed +1 expired refused => failed rest
        claimed +1 expired +15 claimed sent#1! released#1! => claimed wait:60
        claimed lost +15 claimed lost sent => sent rest
        claimed lost +15 claimed lost released released! => ambiguous wait:60
        claimed lost +15 claimed lost refused => ambiguous rest
        # The swap ended: no further attempt, but the outcome of the current one still counts.
        void void! => failed rest
        claimed released void => failed rest
        claimed void void! sent => sent rest
        claimed void released => failed rest
        claimed void lost => ambiguous rest
        claimed void +1 expired void! => ambiguous rest
        claimed lost void released => failed rest
        claimed lost void sent => sent rest
        claimed lost +15 claimed lost void released => ambiguous rest
        ";
    check(table, &DEADLINES);
    let table = "
        # Reports in any order: before the response, instead of the response, and repeated.
        claimed accepted accepted! sent! => sent rest
        claimed sent accepted! delivered delivered! => delivered rest
        claimed sent delivered bounced => bounced rest
        claimed sent bounced delivered! accepted! => bounced rest
        claimed sent complained delivered! => delivered rest
        claimed sent delivered complained complained! => delivered rest
        claimed lost delivered accepted! => delivered rest
        claimed +1 expired accepted => sent rest
        claimed lost +15 claimed accepted sent! => sent rest
        claimed lost +15 claimed lost delivered => delivered rest
        # A delivery counts for more than a temporary bounce, in either order.
        claimed sent delivered bounced-for-now! bounced-for-now! => delivered rest
        claimed sent bounced-for-now bounced-for-now! accepted! => bounced rest
        claimed sent bounced-for-now delivered delivered! bounced-for-now! => delivered rest
        claimed sent bounced-for-now delivered bounced bounced! => bounced rest
        claimed sent bounced-for-now bounced delivered! => bounced rest
        claimed sent bounced bounced-for-now! delivered! complained complained! => bounced rest
        claimed sent bounced-for-now complained bounced-for-now! => delivered rest
        claimed lost bounced-for-now => bounced rest
        claimed throttled accepted => sent rest
        # Two attempts with an unknown outcome and no report for an hour: a third attempt, and no more.
        claimed lost +15 claimed lost => ambiguous wait:3600
        claimed lost +15 claimed lost +59 claimed! unheard! => ambiguous wait:60
        claimed lost +15 claimed lost +60 unheard! => ambiguous send
        claimed lost +15 claimed lost +60 claimed sent => sent rest
        claimed lost +15 claimed lost +60 claimed released => ambiguous wait:60
        claimed lost +15 claimed lost +60 claimed throttled => ambiguous wait:30
        claimed lost +15 claimed lost +60 claimed throttled +1 claimed lost => ambiguous wait:3600
        claimed lost +15 claimed lost +60 claimed refused => ambiguous rest
        claimed lost +15 claimed lost +60 claimed lost => ambiguous wait:3600
        claimed lost +15 claimed lost +60 claimed lost +59 claimed! unheard! => ambiguous wait:60
        claimed lost +15 claimed lost +60 claimed lost +60 claimed! => ambiguous unheard
        claimed lost +15 claimed lost +60 claimed lost +60 unheard unheard! sent! claimed! => failed rest
        claimed lost +15 claimed lost +60 claimed lost +60 unheard delivered => delivered rest
        claimed lost +15 claimed lost +60 claimed lost throttled => ambiguous wait:30
        claimed lost +15 claimed lost void +60 unheard! claimed! => ambiguous rest
        ";
    check(table, &WITH_REPORTS);
}

fn check(table: &str, deadlines: &MailDeadlines) {
    for line in table.lines().map(str::trim) {
        if line.is_empty() || line.starts_with("# ") {
            continue;
        }
        let (story, expected) = line.split_once(" => ").unwrap();
        let (d, now, _) = play(story, deadlines);
        let found = format!("{} {}", d.state.as_str(), describe_next_step(&d, now));
        assert_eq!(found, expected, "{story}");
    }
}

#[test]
fn the_sweeper_reads_a_mail_in_time() {
    // In seconds from the end of the story; `-` means never. The time changes only if it is too late or has passed.
    for (story, expected) in [
        ("", "60"),
        ("claimed", "60"),
        ("claimed lost", "60"),
        ("claimed lost +1", "0"),
        ("claimed lost +1 postponed postponed!", "840"),
        ("claimed released", "60"),
        ("claimed throttled", "30"),
        ("claimed +1 void", "60"),
        ("claimed throttled +1 claimed throttled", "60"),
        ("+1 claimed released", "60"),
        ("claimed sent", "-"),
        ("claimed lost +15 claimed lost", "-"),
        ("claimed lost delivered", "-"),
        ("claimed refused", "-"),
        ("void", "-"),
    ] {
        let (d, now, _) = play(story, &DEADLINES);
        let found = d
            .due_at
            .map_or("-".to_owned(), |due| due.duration_since(now).as_secs().to_string());
        assert_eq!(found, expected, "{story}");
    }
}

#[test]
fn only_the_newest_mail_is_needed_until_the_profile_is_installed() {
    let cases = [
        // phase, profile, state, newest: needed
        (Phase::Ordered, ProfileState::Released, "", 1, true),
        (Phase::Ordered, ProfileState::Released, "claimed lost", 1, true),
        (Phase::Ordered, ProfileState::Released, "", 2, false),
        (Phase::Ordered, ProfileState::Downloaded, "", 1, true),
        (Phase::Ordered, ProfileState::Downloaded, "claimed lost", 1, false),
        (Phase::Ordered, ProfileState::Installed, "", 1, false),
        (Phase::Accepted, ProfileState::Released, "", 1, false),
        (Phase::Ordering, ProfileState::Released, "", 1, true),
        // The network has started early.
        (Phase::Started, ProfileState::Released, "", 1, true),
        (Phase::Started, ProfileState::Released, "", 2, false),
        (Phase::Started, ProfileState::Downloaded, "", 1, true),
        (Phase::Started, ProfileState::Downloaded, "claimed lost", 1, false),
        (Phase::Started, ProfileState::Installed, "", 1, false),
        (Phase::Ending, ProfileState::Released, "", 1, false),
        (Phase::Error, ProfileState::Released, "", 1, false),
        (Phase::Done, ProfileState::Released, "", 1, false),
    ];
    for (phase, profile, story, newest, needed) in cases {
        let (mut swap, _) = swap();
        swap.phase = phase;
        swap.profile = Some(profile);
        swap.mails = newest;
        let (mail, ..) = play(story, &DEADLINES);
        assert_eq!(
            mail.is_needed(&swap, mail.created_at),
            needed,
            "{phase:?} {profile:?} {story}"
        );
    }
}

#[test]
fn callers_can_request_three_more_mails_a_minute_apart() {
    let (swap, at) = swap();
    let other = EmailAddress::parse("anna@example.net").unwrap();
    let request = |resends, last, to, at| {
        let swap = Activation {
            resends,
            ..swap.clone()
        };
        resend(&swap, last, to, DEADLINES.lease, at)
    };
    let minute = SignedDuration::from_mins(1);

    let (first, _) = new_mail();
    assert_eq!(request(0, None, None, at), Err(ResendRefused::TooEarly));
    let second = request(0, Some(&first), Some(other.clone()), at).unwrap();
    assert_eq!((second.number, &second.to), (2, &other));
    let soon = Err(ResendRefused::TooSoon(at + minute));
    assert_eq!(request(1, Some(&second), None, at), soon);
    let third = request(1, Some(&second), None, at + minute).unwrap();
    assert_eq!(
        (third.number, &third.to),
        (3, &other),
        "the mail goes to the last address"
    );
    let fourth = request(2, Some(&third), None, at + minute * 2).unwrap();
    let many = Err(ResendRefused::TooMany);
    assert_eq!(request(3, Some(&fourth), None, at + minute * 9), many);
    // Mails that no resend requested do not count.
    let ninth = Delivery {
        number: 9,
        ..fourth.clone()
    };
    assert_eq!(request(2, Some(&ninth), None, at + minute * 9).unwrap().number, 10);
}

#[test]
fn attempts_are_numbered_consecutively() {
    for (story, expected) in [
        ("claimed", 1),
        ("claimed released +1 claimed", 2),
        ("claimed lost +15 claimed", 2),
        ("claimed lost released +15 claimed", 2),
        ("claimed released +1 claimed lost +15 claimed", 3),
        ("claimed throttled +1 claimed", 2),
        ("claimed throttled +1 claimed quota +2 claimed", 3),
        ("claimed lost throttled +15 claimed", 2),
        ("claimed released +1 claimed throttled +1 claimed lost +15 claimed", 4),
    ] {
        let (d, ..) = play(story, &DEADLINES);
        assert_eq!(d.attempt.map(|attempt| attempt.number), Some(expected), "{story}");
    }
}

#[test]
fn mails_that_were_held_together_are_not_sent_together() {
    let hours = SignedDuration::from_hours;
    // The token scales the second half of the pause.
    for (token, refusal, expected) in [
        ("0", DEADLINES.refusal, 30_000),
        ("1", DEADLINES.refusal, 30_030),
        ("1f4", DEADLINES.refusal, 45_000),
        ("3e7", DEADLINES.refusal, 59_970),
        ("3e8", DEADLINES.refusal, 30_000),
        ("ffffffffffffffff", DEADLINES.refusal, 48_450),
        ("no number", DEADLINES.refusal, 30_000),
        ("1f4", hours(1), 2_700_000),
        ("1f4", hours(2), 2_700_000),
        ("1f4", SignedDuration::MAX, 2_700_000),
    ] {
        let deadlines = MailDeadlines { refusal, ..DEADLINES };
        let (d, at) = new_mail();
        let claimed = DeliveryFact::Claimed {
            token: token.to_owned(),
            deadline: at + DEADLINES.lease,
        };
        let d = apply_delivery(&d, &claimed, &deadlines, at).unwrap();
        let held = DeliveryFact::Ended {
            token: token.to_owned(),
            outcome: SendOutcome::Held(HoldReason::Throttled),
        };
        let d = apply_delivery(&d, &held, &deadlines, at).unwrap();
        let waits = d.wake_at.unwrap().duration_since(at);
        assert_eq!(waits.as_millis(), expected, "{token} {refusal:?}");
    }
}

#[test]
fn a_mail_can_be_held_for_weeks() {
    let (mut d, mut at) = new_mail();
    for token in 1..=500 {
        d = apply_delivery(&d, &fact("claimed", token, at), &WITH_REPORTS, at).unwrap();
        d = apply_delivery(&d, &fact("quota", token, at), &WITH_REPORTS, at).unwrap();
        match next_delivery(&d, at) {
            DeliveryStep::WaitUntil(until) if until <= at + Delivery::HOLD_AT_MOST => at = until,
            step => panic!("{step:?} after {token} holds"),
        }
    }
    assert_eq!((d.holds, d.rejected_attempts, d.unknown_attempts), (500, 0, 0));
    assert_eq!((d.timeline.len(), d.timeline[0].count), (1, 500));
    d = apply_delivery(&d, &fact("claimed", 501, at), &WITH_REPORTS, at).unwrap();
    d = apply_delivery(&d, &fact("sent", 501, at), &WITH_REPORTS, at).unwrap();
    assert_eq!(d.state, DeliveryState::Sent);
}

#[test]
fn the_timeline_has_every_outcome() {
    for (story, expected) in [
        ("claimed sent", "sent"),
        (
            "claimed released +1 claimed lost +15 claimed sent",
            "SES: refused; SES: no answer; sent",
        ),
        ("claimed throttled", "SES: throttled"),
        ("claimed throttled +1 claimed throttled", "SES: throttled x2"),
        (
            "claimed throttled +1 claimed throttled +2 claimed throttled +4 claimed quota +8 claimed quota +16 claimed sent",
            "SES: throttled x3; SES: quota x2; sent",
        ),
        (
            "claimed throttled +1 claimed released +1 claimed throttled",
            "SES: throttled x2; SES: refused",
        ),
        (
            "claimed accepted delivered complained bounced",
            "SES: accepted; SES: delivered; SES: complaint; SES: bounced",
        ),
        (
            "claimed sent bounced-for-now delivered",
            "sent; SES: bounced for now; SES: delivered",
        ),
        (
            "claimed lost +15 claimed lost +60 claimed lost +60 unheard",
            "SES: no answer x3; SES: never heard of it",
        ),
        ("void", "not needed any more"),
    ] {
        let (d, at, _) = play(story, &WITH_REPORTS);
        let noted = d.timeline.iter().map(|entry| match entry.count {
            1 => entry.what.clone(),
            count => format!("{} x{count}", entry.what),
        });
        let noted: Vec<_> = noted.collect();
        assert_eq!(noted.join("; "), expected, "{story}");
        assert!(d.timeline.iter().all(|entry| entry.at <= at), "{:?}", d.timeline);
        assert!(d.timeline.is_sorted_by_key(|entry| entry.at));
    }
    for (story, unneeded) in [
        ("claimed refused", false),
        ("void", true),
        ("claimed throttled void", true),
        ("claimed void released", true),
    ] {
        let (d, ..) = play(story, &DEADLINES);
        assert_eq!(d.state, DeliveryState::Failed);
        assert_eq!(d.is_unneeded(), unneeded, "{story}");
    }
}

#[test]
fn repeated_outcomes_share_one_entry() {
    let (mut d, mut at) = new_mail();
    let mut token = 0;
    for name in ["throttled", "quota"].into_iter().cycle().take(60) {
        token += 1;
        d = apply_delivery(&d, &fact("claimed", token, at), &WITH_REPORTS, at).unwrap();
        d = apply_delivery(&d, &fact(name, token, at), &WITH_REPORTS, at).unwrap();
        at = d.wake_at.unwrap();
    }
    let counts: Vec<_> = d.timeline.iter().map(|entry| entry.count).collect();
    assert_eq!(counts, [30, 30]);
    assert!(d.timeline.iter().all(|entry| entry.at < entry.last));
    for (index, name) in ["accepted", "bounced-for-now", "delivered", "complained", "bounced"]
        .into_iter()
        .enumerate()
    {
        d = apply_delivery(&d, &fact(name, token, at), &WITH_REPORTS, at).unwrap();
        assert_eq!(d.timeline.len(), index + 3);
        let again = apply_delivery(&d, &fact(name, token, at), &WITH_REPORTS, at);
        assert_eq!(again, None, "{name}");
    }
}

#[test]
fn the_id_of_a_mail_at_ses_never_changes() {
    for (story, expected) in [
        ("claimed", None),
        ("claimed sent", Some("ses-1")),
        ("claimed accepted", Some("ses-1")),
    ] {
        let (d, at, _) = play(story, &WITH_REPORTS);
        assert_eq!(d.message_id.as_deref(), expected, "{story}");
        let report = DeliveryFact::Reported {
            message_id: "ses-2".to_owned(),
            report: MailReport::Delivered,
        };
        let d = apply_delivery(&d, &report, &WITH_REPORTS, at).unwrap();
        let name = d.message_id.unwrap();
        assert_eq!(name, expected.unwrap_or("ses-2"), "{story}");
    }
}

#[test]
fn hold_reasons_have_names() {
    use HoldReason::{Paused, Quota, Throttled, Unreachable, Unverified};
    let names = [Throttled, Quota, Paused, Unverified, Unreachable].map(HoldReason::as_str);
    let expected = ["throttled", "quota", "paused", "unverified", "unreachable"];
    assert_eq!(names, expected);
}

#[test]
fn a_claimed_mail_is_shown_as_pending() {
    for (state, shown) in [
        ("pending", "pending"),
        ("claimed", "pending"),
        ("sent", "sent"),
        ("delivered", "delivered"),
        ("bounced", "bounced"),
        ("failed", "failed"),
        ("ambiguous", "ambiguous"),
    ] {
        assert_eq!(state.parse::<DeliveryState>().unwrap().shown(), shown);
    }
    assert!("CLAIMED".parse::<DeliveryState>().is_err());
}

/// The course of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fate {
    /// Whether SES accepts the mail.
    accepted: bool,
    /// After how many steps the response arrives: 0 means at once; `None` means never.
    answered: Option<u8>,
    /// The outcome if SES does not accept the mail.
    refused: &'static str,
}

impl Fate {
    const FINE: Self = Self {
        accepted: true,
        answered: Some(0),
        refused: "released",
    };
}

fn fate() -> impl Strategy<Value = Fate> {
    let answered = prop::sample::select(vec![Some(0), Some(0), Some(1), Some(2), Some(3), Some(4), None]);
    let refused = prop::sample::select(vec![
        "released",
        "released",
        "released",
        "refused",
        "throttled",
        "throttled",
    ]);
    (any::<bool>(), answered, refused).prop_map(|(accepted, answered, refused)| Fate {
        accepted,
        answered,
        refused,
    })
}

/// Takes the steps of `next_delivery` until none is left. Attempts end as in `fates`, and the ones after that succeed.
/// Each response arrives twice. Returns the mail at the end, and how many mails SES accepted.
fn run(fates: &[Fate], deadlines: &MailDeadlines) -> (Delivery, u32) {
    let (mut d, mut at) = new_mail();
    let mut fates = fates.iter().copied();
    let (mut accepted, mut token) = (0, 0);
    let mut answers: Vec<(u8, DeliveryFact)> = Vec::new();
    for _ in 0..200 {
        let mut now: Vec<DeliveryFact> = Vec::new();
        answers.retain_mut(|(steps, answer)| {
            *steps = steps.saturating_sub(1);
            if *steps == 0 {
                now.extend([answer.clone(), answer.clone()]);
            }
            *steps > 0
        });
        match next_delivery(&d, at) {
            DeliveryStep::Nothing if answers.is_empty() && now.is_empty() => return (d, accepted),
            DeliveryStep::Nothing => {}
            DeliveryStep::Unheard => {
                assert!(deadlines.silence.is_some(), "SES does not report");
                now.push(DeliveryFact::Unheard);
            }
            DeliveryStep::WaitUntil(until) => {
                assert!(
                    until > at && until <= at + deadlines.silence.unwrap_or(SignedDuration::from_mins(16)),
                    "the pause is too long: {d:?}"
                );
                at = until;
            }
            DeliveryStep::Expire => now.push(DeliveryFact::Expired),
            DeliveryStep::Send => {
                token += 1;
                d = apply_delivery(&d, &fact("claimed", token, at), deadlines, at).unwrap();
                let fate = fates.next().unwrap_or(Fate::FINE);
                accepted += u32::from(fate.accepted);
                let answer = fact(if fate.accepted { "sent" } else { fate.refused }, token, at);
                match fate.answered {
                    Some(0) => now.push(answer),
                    Some(steps) => answers.push((steps, answer)),
                    // Some callers without a response survive to report it.
                    None if token % 2 == 0 => now.push(fact("lost", token, at)),
                    None => {}
                }
            }
        }
        for fact in now {
            if let Some(after) = apply_delivery(&d, &fact, deadlines, at) {
                assert_eq!(after.version, d.version + 1);
                d = after;
            }
        }
    }
    panic!("the mail never ends: {d:?}")
}

proptest! {
    #[test]
    fn at_most_one_mail_if_outcomes_are_known_else_two(fates in prop::collection::vec(fate(), 0..10)) {
        let (d, accepted) = run(&fates, &DEADLINES);
        prop_assert!(accepted <= 2, "{accepted} mails");
        let all_known = fates.iter().all(|fate| fate.answered == Some(0));
        match d.state {
            DeliveryState::Sent => prop_assert!(accepted >= 1),
            DeliveryState::Failed => prop_assert_eq!(accepted, 0),
            DeliveryState::Ambiguous => prop_assert!(!all_known),
            state => prop_assert!(false, "ends {state:?}"),
        }
        if all_known {
            prop_assert!(accepted <= 1, "{accepted} mails");
        }
        let doubtful = fates.iter().filter(|fate| fate.answered != Some(0)).count();
        let held = |fate: &&Fate| fate.refused == "throttled";
        let turned_down = fates.iter().filter(|fate| !fate.accepted && !held(fate)).count();
        let never = fates.iter().any(|fate| !fate.accepted && fate.refused == "refused");
        if doubtful < 2 && turned_down < 6 && !never {
            prop_assert!(accepted >= 1, "the mail is lost: {d:?}");
        }
    }

    #[test]
    fn at_most_three_mails_with_reports_from_ses(fates in prop::collection::vec(fate(), 0..10)) {
        let (d, accepted) = run(&fates, &WITH_REPORTS);
        prop_assert!(accepted <= 3, "{accepted} mails");
        let all_known = fates.iter().all(|fate| fate.answered == Some(0));
        match d.state {
            DeliveryState::Sent => prop_assert!(accepted >= 1),
            DeliveryState::Failed if all_known => prop_assert_eq!(accepted, 0),
            DeliveryState::Failed | DeliveryState::Ambiguous => {}
            state => prop_assert!(false, "ends {state:?}"),
        }
        if all_known {
            prop_assert!(accepted <= 1, "{accepted} mails");
        }
    }

    #[test]
    fn nothing_is_sent_after_the_swap_ended(
        before in prop::collection::vec(any_fact(), 0..12),
        after in prop::collection::vec(any_fact(), 0..12),
    ) {
        let (mut d, mut at) = new_mail();
        for (name, token, minutes) in before {
            at += SignedDuration::from_mins(minutes);
            d = apply_delivery(&d, &fact(name, token, at), &DEADLINES, at).unwrap_or(d);
        }
        d = apply_delivery(&d, &DeliveryFact::Void, &DEADLINES, at).unwrap_or(d);
        for (name, token, minutes) in after {
            at += SignedDuration::from_mins(minutes);
            prop_assert_ne!(next_delivery(&d, at), DeliveryStep::Send);
            d = apply_delivery(&d, &fact(name, token, at), &DEADLINES, at).unwrap_or(d);
        }
    }
}

fn any_fact() -> impl Strategy<Value = (&'static str, u32, i64)> {
    let names = vec![
        "claimed",
        "claimed",
        "sent",
        "throttled",
        "released",
        "refused",
        "lost",
        "expired",
        "void",
    ];
    let minutes = prop::sample::select(vec![0, 1, 15]);
    (prop::sample::select(names), 1..4u32, minutes)
}

#[test]
fn an_anonymised_mail_differs_only_in_its_recipient() {
    let (mail, _) = new_mail();
    let anonymised = mail.anonymised();
    let expected = Delivery {
        to: EmailAddress::erased(),
        version: mail.version + 1,
        ..mail.clone()
    };
    assert_eq!(anonymised, expected);
    assert_ne!(anonymised.to, mail.to);
}

#[test]
fn a_change_that_counts_a_mail_brings_it() {
    let (accepted, at) = swap();
    let address = |text| EmailAddress::parse(text).unwrap();
    let [contact, last, renewed] = ["a@example.com", "b@example.com", "c@example.com"].map(address);
    let (nobody, renew_to) = (None, Some(renewed.clone()));
    let swap = |mails, renew_to: &Option<EmailAddress>, reminded| Activation {
        mails,
        renew_to: renew_to.clone(),
        reminded,
        contact: Some(contact.clone()),
        ..accepted.clone()
    };
    let ended = Activation {
        phase: Phase::Error,
        ..swap(3, &nobody, true)
    };
    let (first, _) = new_mail();
    let mail_to = |to: &EmailAddress, state| Delivery {
        to: to.clone(),
        state,
        ..first.clone()
    };
    let mails = [
        mail_to(&contact, DeliveryState::Sent),
        mail_to(&renewed, DeliveryState::Bounced),
        mail_to(&last, DeliveryState::Pending),
    ];
    for (before, after, expected) in [
        (swap(0, &nobody, false), swap(0, &nobody, false), None),
        (swap(1, &nobody, false), swap(1, &nobody, false), None),
        (
            swap(0, &nobody, false),
            swap(1, &nobody, false),
            Some((1, &contact, MailKind::Code)),
        ),
        (
            swap(1, &renew_to, false),
            swap(2, &nobody, false),
            Some((2, &renewed, MailKind::Code)),
        ),
        (
            swap(2, &renew_to, true),
            swap(3, &nobody, true),
            Some((3, &renewed, MailKind::Code)),
        ),
        (
            swap(2, &nobody, false),
            swap(3, &nobody, true),
            Some((3, &last, MailKind::Reminder)),
        ),
        (
            swap(2, &nobody, true),
            ended.clone(),
            Some((3, &contact, MailKind::End)),
        ),
    ] {
        let mail = mail_of_change(&before, &after, &mails, DEADLINES.lease, at);
        let found = mail.as_ref().map(|mail| (mail.number, &mail.to, mail.kind));
        assert_eq!(found, expected, "{before:?}");
    }
}

#[test]
fn customers_are_told_of_failures_that_they_do_not_know() {
    let (mail, ..) = play("", &DEADLINES);
    let mut swap = swap().0;
    let told = |swap: &Activation, states: &[DeliveryState]| {
        let mails: Vec<_> = states
            .iter()
            .map(|state| Delivery {
                state: *state,
                ..mail.clone()
            })
            .collect();
        tells_of_end(swap, &mails, swap.created_at)
    };
    for failure in FailureCode::ALL {
        swap.failure = Some(failure);
        let expected = !matches!(
            failure,
            FailureCode::Cancelled | FailureCode::Stopped | FailureCode::Unsettled
        );
        assert_eq!(told(&swap, &[DeliveryState::Sent]), expected, "{failure:?}");
    }
    swap.failure = Some(FailureCode::Expired);
    assert!(!told(&swap, &[]), "the swap never got so far");
    for state in DeliveryState::ALL {
        let expected = match state {
            DeliveryState::Claimed | DeliveryState::Sent | DeliveryState::Delivered | DeliveryState::Ambiguous => true,
            DeliveryState::Pending | DeliveryState::Bounced | DeliveryState::Failed => false,
        };
        assert_eq!(told(&swap, &[state]), expected, "{state:?}");
        assert!(told(&swap, &[DeliveryState::Delivered, state]), "{state:?}");
    }
    // The network has not confirmed that its order has ended.
    for (until, expected) in [(SignedDuration::ZERO, true), (SignedDuration::from_secs(1), false)] {
        swap.network_unknown_until = Some(swap.created_at + until);
        assert_eq!(told(&swap, &[DeliveryState::Sent]), expected, "{until:?}");
    }
    // The network may move the number after all.
    let of_end = Delivery {
        kind: MailKind::End,
        number: 2,
        ..mail.clone()
    };
    for (phase, order) in [
        (Phase::Error, NetworkOrder::Settled),
        (Phase::Error, NetworkOrder::Completed),
        (Phase::Done, NetworkOrder::Completed),
    ] {
        (swap.phase, swap.network_order, swap.mails) = (phase, order, 2);
        let (in_time, late) = (mail.created_at, mail.created_at + Delivery::END_WITHIN);
        assert_eq!(
            of_end.is_needed(&swap, in_time),
            order == NetworkOrder::Settled,
            "{phase:?}"
        );
        assert!(!of_end.is_needed(&swap, late), "it is no news any more");
        assert!(!mail.is_needed(&swap, mail.created_at) && !of_end.is_held_by(&swap));
    }
}

#[test]
fn a_mail_waits_while_its_code_is_being_renewed() {
    let (mail, ..) = play("", &DEADLINES);
    let mut swap = swap().0;
    (swap.phase, swap.profile, swap.mails) = (Phase::Ordered, Some(ProfileState::Released), 1);
    for (kind, state, held) in [
        (ProfileRequestKind::Renew, ProfileRequestState::Pending, true),
        (ProfileRequestKind::Renew, ProfileRequestState::Cancelled, true),
        (ProfileRequestKind::Renew, ProfileRequestState::Refused, false),
        (ProfileRequestKind::Renew, ProfileRequestState::Done, false),
        (ProfileRequestKind::Report, ProfileRequestState::Pending, false),
    ] {
        swap.request = Some(ProfileRequest { kind, state });
        assert_eq!(mail.is_held_by(&swap), held, "{kind:?} {state:?}");
        assert!(
            mail.is_needed(&swap, mail.created_at),
            "a renewal that is refused leaves it needed"
        );
    }
    swap.mails = 2;
    swap.request = Some(ProfileRequest {
        kind: ProfileRequestKind::Renew,
        state: ProfileRequestState::Pending,
    });
    assert!(
        !mail.is_held_by(&swap) && !mail.is_needed(&swap, mail.created_at),
        "a later mail replaces it"
    );
    // Once the number has moved, only a renewed code can still be needed.
    (swap.mails, swap.request, swap.phase) = (1, None, Phase::Done);
    assert!(!mail.is_needed(&swap, mail.created_at));
    swap.renewed_at = Some(swap.created_at);
    assert!(mail.is_needed(&swap, mail.created_at));
    swap.profile = Some(ProfileState::Installed);
    assert!(!mail.is_needed(&swap, mail.created_at));
    (swap.phase, swap.profile, swap.code_dead) = (Phase::Ordered, Some(ProfileState::Released), true);
    assert!(!mail.is_needed(&swap, mail.created_at), "its code is dead");
}
