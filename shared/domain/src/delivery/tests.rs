//! The two tables of a mail, and how many mails can arrive whatever happens.

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::line::tests::line;
use crate::{Iccid, Requested, SwapKind};

const DEADLINES: MailDeadlines = MailDeadlines {
    doubt: SignedDuration::from_mins(15),
    refusal: SignedDuration::from_mins(1),
    lease: SignedDuration::from_secs(60),
    silence: None,
};

/// Where SES reports to us.
const LISTENING: MailDeadlines = MailDeadlines {
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

fn new() -> (Delivery, Timestamp) {
    let (swap, at) = swap();
    let to = EmailAddress::parse("anna@example.com").unwrap();
    (Delivery::new(&swap, 1, to, DEADLINES.lease, at), at)
}

/// Facts by name. A claim's token is its number; an outcome is of the claim `token`.
fn fact(name: &str, token: u32, at: Timestamp) -> DeliveryFact {
    let outcome = match name {
        "claimed" => {
            return DeliveryFact::Claimed {
                token: token.to_string(),
                deadline: at + DEADLINES.lease,
            };
        }
        "lapsed" => return DeliveryFact::Lapsed,
        "unheard" => return DeliveryFact::Unheard,
        "void" => return DeliveryFact::Void,
        "postponed" => return DeliveryFact::Postponed,
        "accepted" => return reported(MailReport::Accepted),
        "delivered" => return reported(MailReport::Delivered),
        "complained" => return reported(MailReport::Complained),
        "bounced" => return reported(MailReport::Bounced),
        "bounced-for-now" => return reported(MailReport::BouncedForNow),
        "sent" => SendOutcome::Sent("ses-1".to_owned()),
        "throttled" => SendOutcome::Held(HoldReason::Throttled),
        "quota" => SendOutcome::Held(HoldReason::Quota),
        "released" => SendOutcome::Released,
        "refused" => SendOutcome::Refused,
        "lost" => SendOutcome::Lost,
        _ => panic!("no fact is named {name}"),
    };
    DeliveryFact::Ended {
        token: token.to_string(),
        outcome,
    }
}

fn reported(report: MailReport) -> DeliveryFact {
    DeliveryFact::Reported {
        message_id: "ses-1".to_owned(),
        report,
    }
}

/// Plays a story: facts, of the newest claim unless they name one (`sent#1`), `!` after those that change nothing, and
/// minutes that go by (`+15`).
fn play(story: &str, patience: &MailDeadlines) -> (Delivery, Timestamp, u32) {
    let ((mut d, mut at), mut claims) = (new(), 0);
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
        let found = apply_delivery(&d, &fact(name, token, at), patience, at);
        assert_eq!(found.is_none(), word.ends_with('!'), "{word} of: {story}");
        if let Some(after) = found {
            assert_eq!(after.version, d.version + 1);
            assert_eq!(after.modified_at == at, name != "postponed" || d.modified_at == at);
            let lines = |mail: &Delivery| mail.timeline.iter().map(|line| line.what.clone()).collect::<Vec<_>>();
            assert!(lines(&after).starts_with(&lines(&d)));
            claims += u32::from(name == "claimed");
            d = after;
        }
    }
    (d, at, claims)
}

/// A step in a word; a time is what is left until it, in seconds.
fn step(d: &Delivery, now: Timestamp) -> String {
    match next_delivery(d, now) {
        DeliveryStep::Send => "send".to_owned(),
        DeliveryStep::Doubt => "doubt".to_owned(),
        DeliveryStep::Unheard => "unheard".to_owned(),
        DeliveryStep::WaitUntil(until) => format!("wait:{}", until.duration_since(now).as_secs()),
        DeliveryStep::Rest => "rest".to_owned(),
    }
}

/// The cells of a table: one line a row.
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
        ("doubted", "claimed lost"),
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
    // The state that follows; `-` if nothing changes.
    let table = rows(
        "
                         pending    waiting    claimed    overdue    doubted    second     spent      third      mute       silent     sent       failed     held       delivered  soft       bounced
        claimed          claimed    -          -          -          -          -          -          -          -          -          -          -          -          -          -          -
        sent             -          -          sent       sent       sent       sent       sent       sent       sent       sent       -          -          -          -          -          -
        throttled        -          -          pending    pending    pending    ambiguous  ambiguous  ambiguous  ambiguous  ambiguous  -          -          -          -          -          -
        released         -          -          pending    pending    pending    ambiguous  ambiguous  ambiguous  ambiguous  ambiguous  -          -          -          -          -          -
        refused          -          -          failed     failed     failed     ambiguous  ambiguous  ambiguous  ambiguous  ambiguous  -          -          -          -          -          -
        lost             -          -          ambiguous  ambiguous  -          ambiguous  -          ambiguous  -          -          -          -          -          -          -          -
        lapsed           -          -          -          ambiguous  -          -          -          -          -          -          -          -          -          -          -          -
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
            let (d, at, claims) = play(story, &LISTENING);
            let token = claims + u32::from(row[0] == "claimed");
            let found = apply_delivery(&d, &fact(row[0], token, at), &LISTENING, at);
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

/// What `next_delivery` looks at. `over` and `due` are this very moment.
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
    // The first row that fits says what is next; `*` fits all, `a|b` either.
    let table = rows(
        "
        state              attempt  doubts  refusals  wake   step
        claimed            running  *       *         *      wait:30
        claimed            *        *       *         *      doubt
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
    let (mut d, now) = new();
    for index in 0..COLUMNS.iter().map(|column| column.1.len()).product() {
        let mut rest: usize = index;
        let values = COLUMNS.map(|(_, values)| {
            let value = values[rest % values.len()];
            rest /= values.len();
            value
        });
        let fits = |(cell, value): (&&str, &str)| *cell == "*" || cell.split('|').any(|one| one == value);
        let row = rows.iter().find(|row| row.iter().zip(values).all(fits)).unwrap();

        let [state, attempt, doubts, refusals, wake] = values;
        d.state = state.parse().unwrap();
        d.attempt = (attempt != "none").then(|| Attempt {
            number: 1,
            token: String::new(),
            deadline: now + SignedDuration::from_secs(if attempt == "running" { 30 } else { 0 }),
        });
        d.doubts = doubts.parse().unwrap();
        d.refusals = refusals.parse().unwrap();
        d.wake_at = (wake != "none").then(|| now + SignedDuration::from_secs(if wake == "later" { 60 } else { 0 }));
        assert_eq!(step(&d, now), row[5], "{values:?}");
    }
}

#[test]
fn stories() {
    let table = "
        # An answer that is known.
        claimed sent => sent rest
        claimed sent sent! => sent rest
        claimed refused => failed rest
        # Rejected for now: 1, 2, 4, 8, 16 minutes, the sixth is the last.
        claimed released => pending wait:60
        claimed released released! => pending wait:60
        claimed released +1 claimed released => pending wait:120
        claimed released +1 claimed released +2 claimed released +4 claimed released +8 claimed released => pending wait:960
        claimed released +1 claimed released +2 claimed released +4 claimed released +8 claimed released +16 claimed released => failed rest
        # Held: it doubles up to an hour, and counts for nothing else. Tokens so small add next to nothing to the half.
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
        # A lost answer: one second attempt, 15 minutes later.
        claimed lost => ambiguous wait:900
        claimed +1 => claimed doubt
        claimed +1 lapsed => ambiguous wait:900
        claimed +1 lapsed lapsed! lost! => ambiguous wait:900
        claimed lost +15 claimed sent => sent rest
        claimed lost +15 claimed lost => ambiguous rest
        claimed lost +15 claimed released => ambiguous wait:60
        claimed lost +15 claimed released released! +1 claimed lost => ambiguous rest
        claimed lost +15 claimed refused => ambiguous rest
        # Late answers, as long as no later attempt began.
        claimed +1 lapsed sent => sent rest
        claimed +1 lapsed released => pending wait:60
        claimed +1 lapsed refused => failed rest
        claimed +1 lapsed +15 claimed sent#1! released#1! => claimed wait:60
        claimed lost +15 claimed lost sent => sent rest
        claimed lost +15 claimed lost released released! => ambiguous wait:60
        claimed lost +15 claimed lost refused => ambiguous rest
        # The swap ended: no further attempt, but the one under way still tells how it went.
        void void! => failed rest
        claimed released void => failed rest
        claimed void void! sent => sent rest
        claimed void released => failed rest
        claimed void lost => ambiguous rest
        claimed void +1 lapsed void! => ambiguous rest
        claimed lost void released => failed rest
        claimed lost void sent => sent rest
        claimed lost +15 claimed lost void released => ambiguous rest
        ";
    check(table, &DEADLINES);
    let table = "
        # SES's reports, in any order, before its answer, instead of it, and again.
        claimed accepted accepted! sent! => sent rest
        claimed sent accepted! delivered delivered! => delivered rest
        claimed sent delivered bounced => bounced rest
        claimed sent bounced delivered! accepted! => bounced rest
        claimed sent complained delivered! => delivered rest
        claimed sent delivered complained complained! => delivered rest
        claimed lost delivered accepted! => delivered rest
        claimed +1 lapsed accepted => sent rest
        claimed lost +15 claimed accepted sent! => sent rest
        claimed lost +15 claimed lost delivered => delivered rest
        # For now is not for good: a delivery counts for more, whichever comes first.
        claimed sent delivered bounced-for-now! bounced-for-now! => delivered rest
        claimed sent bounced-for-now bounced-for-now! accepted! => bounced rest
        claimed sent bounced-for-now delivered delivered! bounced-for-now! => delivered rest
        claimed sent bounced-for-now delivered bounced bounced! => bounced rest
        claimed sent bounced-for-now bounced delivered! => bounced rest
        claimed sent bounced bounced-for-now! delivered! complained complained! => bounced rest
        claimed sent bounced-for-now complained bounced-for-now! => delivered rest
        claimed lost bounced-for-now => bounced rest
        claimed throttled accepted => sent rest
        # Two attempts in doubt, and no report for an hour: a third, and no more.
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
    check(table, &LISTENING);
}

fn check(table: &str, patience: &MailDeadlines) {
    for line in table.lines().map(str::trim) {
        if line.is_empty() || line.starts_with("# ") {
            continue;
        }
        let (story, expected) = line.split_once(" => ").unwrap();
        let (d, now, _) = play(story, patience);
        let found = format!("{} {}", d.state.as_str(), step(&d, now));
        assert_eq!(found, expected, "{story}");
    }
}

#[test]
fn when_the_sweeper_looks() {
    // In seconds from the end of the story; `-` never. It moves only if it is too late or past.
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
fn which_mail_is_still_needed() {
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
        // The network began early.
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
        assert_eq!(mail.is_needed(&swap), needed, "{phase:?} {profile:?} {story}");
    }
}

#[test]
fn mails_that_callers_ask() {
    let (swap, at) = swap();
    let other = EmailAddress::parse("anna@example.net").unwrap();
    let ask = |last, to, at| resend(&swap, last, to, DEADLINES.lease, at);
    let minute = SignedDuration::from_mins(1);

    let (first, _) = new();
    assert_eq!(ask(None, None, at), Err(ResendRefused::TooEarly));
    let second = ask(Some(&first), Some(other.clone()), at).unwrap();
    assert_eq!((second.number, &second.to), (2, &other));
    let soon = Err(ResendRefused::TooSoon(at + minute));
    assert_eq!(ask(Some(&second), None, at), soon);
    let third = ask(Some(&second), None, at + minute).unwrap();
    assert_eq!((third.number, &third.to), (3, &other), "the last address counts");
    let fourth = ask(Some(&third), None, at + minute * 2).unwrap();
    let many = Err(ResendRefused::TooMany);
    assert_eq!(ask(Some(&fourth), None, at + minute * 9), many);
}

#[test]
fn attempts_are_numbered_through() {
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
fn held_mails_are_not_sent_together() {
    let hours = SignedDuration::from_hours;
    // The token decides of the second half.
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
        let patience = MailDeadlines { refusal, ..DEADLINES };
        let (d, at) = new();
        let claimed = DeliveryFact::Claimed {
            token: token.to_owned(),
            deadline: at + DEADLINES.lease,
        };
        let d = apply_delivery(&d, &claimed, &patience, at).unwrap();
        let held = DeliveryFact::Ended {
            token: token.to_owned(),
            outcome: SendOutcome::Held(HoldReason::Throttled),
        };
        let d = apply_delivery(&d, &held, &patience, at).unwrap();
        let waits = d.wake_at.unwrap().duration_since(at);
        assert_eq!(waits.as_millis(), expected, "{token} {refusal:?}");
    }
}

#[test]
fn a_mail_is_held_for_weeks() {
    let (mut d, mut at) = new();
    for token in 1..=500 {
        d = apply_delivery(&d, &fact("claimed", token, at), &LISTENING, at).unwrap();
        d = apply_delivery(&d, &fact("quota", token, at), &LISTENING, at).unwrap();
        match next_delivery(&d, at) {
            DeliveryStep::WaitUntil(until) if until <= at + Delivery::HOLD_AT_MOST => at = until,
            step => panic!("{step:?} after {token} holds"),
        }
    }
    assert_eq!((d.holds, d.refusals, d.doubts), (500, 0, 0));
    assert_eq!((d.timeline.len(), d.timeline[0].count), (1, 500));
    d = apply_delivery(&d, &fact("claimed", 501, at), &LISTENING, at).unwrap();
    d = apply_delivery(&d, &fact("sent", 501, at), &LISTENING, at).unwrap();
    assert_eq!(d.state, DeliveryState::Sent);
}

#[test]
fn the_timeline_tells_what_was_tried() {
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
        let (d, at, _) = play(story, &LISTENING);
        let noted = d.timeline.iter().map(|event| match event.count {
            1 => event.what.clone(),
            count => format!("{} x{count}", event.what),
        });
        let noted: Vec<_> = noted.collect();
        assert_eq!(noted.join("; "), expected, "{story}");
        assert!(d.timeline.iter().all(|event| event.at <= at), "{:?}", d.timeline);
        assert!(d.timeline.is_sorted_by_key(|event| event.at));
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
fn what_happens_again_and_again_is_one_line() {
    let (mut d, mut at) = new();
    let mut token = 0;
    for name in ["throttled", "quota"].into_iter().cycle().take(60) {
        token += 1;
        d = apply_delivery(&d, &fact("claimed", token, at), &LISTENING, at).unwrap();
        d = apply_delivery(&d, &fact(name, token, at), &LISTENING, at).unwrap();
        at = d.wake_at.unwrap();
    }
    let counts: Vec<_> = d.timeline.iter().map(|event| event.count).collect();
    assert_eq!(counts, [30, 30]);
    assert!(d.timeline.iter().all(|event| event.at < event.last));
    for (told, name) in ["accepted", "bounced-for-now", "delivered", "complained", "bounced"]
        .into_iter()
        .enumerate()
    {
        d = apply_delivery(&d, &fact(name, token, at), &LISTENING, at).unwrap();
        assert_eq!(d.timeline.len(), told + 3);
        let again = apply_delivery(&d, &fact(name, token, at), &LISTENING, at);
        assert_eq!(again, None, "{name}");
    }
}

#[test]
fn ses_names_a_mail_once() {
    for (story, expected) in [
        ("claimed", None),
        ("claimed sent", Some("ses-1")),
        ("claimed accepted", Some("ses-1")),
    ] {
        let (d, at, _) = play(story, &LISTENING);
        assert_eq!(d.message_id.as_deref(), expected, "{story}");
        let told = DeliveryFact::Reported {
            message_id: "ses-2".to_owned(),
            report: MailReport::Delivered,
        };
        let d = apply_delivery(&d, &told, &LISTENING, at).unwrap();
        let name = d.message_id.unwrap();
        assert_eq!(name, expected.unwrap_or("ses-2"), "{story}");
    }
}

#[test]
fn reasons_by_name() {
    use HoldReason::{Paused, Quota, Throttled, Unreachable, Unverified};
    let names = [Throttled, Quota, Paused, Unverified, Unreachable].map(HoldReason::as_str);
    let expected = ["throttled", "quota", "paused", "unverified", "unreachable"];
    assert_eq!(names, expected);
}

#[test]
fn a_claim_is_our_own_business() {
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

/// How one attempt goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fate {
    /// Whether SES takes the mail.
    taken: bool,
    /// When its answer comes, in steps: 0 at once, as it should; `None` never.
    answered: Option<u8>,
    /// What SES says if it does not take the mail.
    refused: &'static str,
}

impl Fate {
    const FINE: Self = Self {
        taken: true,
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
    (any::<bool>(), answered, refused).prop_map(|(taken, answered, refused)| Fate {
        taken,
        answered,
        refused,
    })
}

/// Does what `next_delivery` says while attempts go as `fates` say, then well, until nothing is next. Answers come twice.
/// Returns the mail as it ends, and how many SES took.
fn run(fates: &[Fate], patience: &MailDeadlines) -> (Delivery, u32) {
    let (mut d, mut at) = new();
    let mut fates = fates.iter().copied();
    let (mut taken, mut token) = (0, 0);
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
            DeliveryStep::Rest if answers.is_empty() && now.is_empty() => return (d, taken),
            DeliveryStep::Rest => {}
            DeliveryStep::Unheard => {
                assert!(patience.silence.is_some(), "nobody listens");
                now.push(DeliveryFact::Unheard);
            }
            DeliveryStep::WaitUntil(until) => {
                assert!(
                    until > at && until <= at + patience.silence.unwrap_or(SignedDuration::from_mins(16)),
                    "sleeps too long: {d:?}"
                );
                at = until;
            }
            DeliveryStep::Doubt => now.push(DeliveryFact::Lapsed),
            DeliveryStep::Send => {
                token += 1;
                d = apply_delivery(&d, &fact("claimed", token, at), patience, at).unwrap();
                let fate = fates.next().unwrap_or(Fate::FINE);
                taken += u32::from(fate.taken);
                let answer = fact(if fate.taken { "sent" } else { fate.refused }, token, at);
                match fate.answered {
                    Some(0) => now.push(answer),
                    Some(steps) => answers.push((steps, answer)),
                    // Some of those who get no answer live to tell.
                    None if token % 2 == 0 => now.push(fact("lost", token, at)),
                    None => {}
                }
            }
        }
        for fact in now {
            if let Some(after) = apply_delivery(&d, &fact, patience, at) {
                assert_eq!(after.version, d.version + 1);
                d = after;
            }
        }
    }
    panic!("never ends: {d:?}")
}

proptest! {
    #[test]
    fn one_mail_when_its_fate_is_known_and_two_at_most(fates in prop::collection::vec(fate(), 0..10)) {
        let (d, taken) = run(&fates, &DEADLINES);
        prop_assert!(taken <= 2, "{taken} mails");
        let all_known = fates.iter().all(|fate| fate.answered == Some(0));
        match d.state {
            DeliveryState::Sent => prop_assert!(taken >= 1),
            DeliveryState::Failed => prop_assert_eq!(taken, 0),
            DeliveryState::Ambiguous => prop_assert!(!all_known),
            state => prop_assert!(false, "ends {state:?}"),
        }
        if all_known {
            prop_assert!(taken <= 1, "{taken} mails");
        }
        let doubtful = fates.iter().filter(|fate| fate.answered != Some(0)).count();
        let held = |fate: &&Fate| fate.refused == "throttled";
        let turned_down = fates.iter().filter(|fate| !fate.taken && !held(fate)).count();
        let never = fates.iter().any(|fate| !fate.taken && fate.refused == "refused");
        if doubtful < 2 && turned_down < 6 && !never {
            prop_assert!(taken >= 1, "the mail is lost: {d:?}");
        }
    }

    #[test]
    fn three_at_most_where_ses_reports(fates in prop::collection::vec(fate(), 0..10)) {
        let (d, taken) = run(&fates, &LISTENING);
        prop_assert!(taken <= 3, "{taken} mails");
        let all_known = fates.iter().all(|fate| fate.answered == Some(0));
        match d.state {
            DeliveryState::Sent => prop_assert!(taken >= 1),
            DeliveryState::Failed if all_known => prop_assert_eq!(taken, 0),
            DeliveryState::Failed | DeliveryState::Ambiguous => {}
            state => prop_assert!(false, "ends {state:?}"),
        }
        if all_known {
            prop_assert!(taken <= 1, "{taken} mails");
        }
    }

    #[test]
    fn nothing_is_sent_after_the_swap_ended(
        before in prop::collection::vec(any_fact(), 0..12),
        after in prop::collection::vec(any_fact(), 0..12),
    ) {
        let (mut d, mut at) = new();
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
        "lapsed",
        "void",
    ];
    let minutes = prop::sample::select(vec![0, 1, 15]);
    (prop::sample::select(names), 1..4u32, minutes)
}

#[test]
fn an_anonymised_mail_keeps_all_but_its_recipient() {
    let (mail, _) = new();
    let anonymised = mail.anonymised();
    let expected = Delivery {
        to: EmailAddress::erased(),
        version: mail.version + 1,
        ..mail.clone()
    };
    assert_eq!(anonymised, expected);
    assert_ne!(anonymised.to, mail.to);
}
