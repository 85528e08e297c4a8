//! The two tables of a mail, and how many mails can arrive whatever happens.

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::*;

const PATIENCE: Patience = Patience {
    doubt: SignedDuration::from_mins(15),
    refusal: SignedDuration::from_mins(1),
};

/// An attempt has a minute.
const TO_SEND: SignedDuration = SignedDuration::from_secs(60);

fn new() -> (Delivery, Timestamp) {
    let at = "2026-03-01T12:00:00Z".parse().unwrap();
    let to = EmailAddress::parse("anna@example.com").unwrap();
    let swap = ActivationId::from_random(at, 7);
    (Delivery::new(swap, 1, to, Language::Nl, at), at)
}

/// Facts by name. A claim's token is its number; an outcome is of the claim `token`.
fn fact(name: &str, token: u32, at: Timestamp) -> DeliveryFact {
    let outcome = match name {
        "claimed" => {
            return DeliveryFact::Claimed {
                token: token.to_string(),
                deadline: at + TO_SEND,
            };
        }
        "lapsed" => return DeliveryFact::Lapsed,
        "void" => return DeliveryFact::Void,
        "sent" => Outcome::Sent("ses-1".to_owned()),
        "released" => Outcome::Released,
        "refused" => Outcome::Refused,
        "lost" => Outcome::Lost,
        _ => panic!("no fact is named {name}"),
    };
    DeliveryFact::Ended {
        token: token.to_string(),
        outcome,
    }
}

/// Plays a story: facts, of the newest claim unless they name one (`sent#1`), `!` after those that change nothing, and
/// minutes that go by (`+15`). `delivered` and `bounced` are as if SES had told.
fn play(story: &str) -> (Delivery, Timestamp, u32) {
    let ((mut d, mut at), mut claims) = (new(), 0);
    for word in story.split_whitespace() {
        if let Some(minutes) = word.strip_prefix('+') {
            at += SignedDuration::from_mins(minutes.parse().unwrap());
            continue;
        }
        if let Ok(told @ (DeliveryState::Delivered | DeliveryState::Bounced)) = word.parse() {
            d.state = told;
            continue;
        }
        let name = word.trim_end_matches('!');
        let (name, token) = match name.split_once('#') {
            Some((name, token)) => (name, token.parse().unwrap()),
            None => (name, claims + u32::from(name == "claimed")),
        };
        let found = apply_delivery(&d, &fact(name, token, at), &PATIENCE, at);
        assert_eq!(found.is_none(), word.ends_with('!'), "{word} of: {story}");
        if let Some(after) = found {
            assert_eq!((after.version, after.modified_at), (d.version + 1, at));
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
        DeliveryStep::RetryAt(until) => format!("retry:{}", until.duration_since(now).as_secs()),
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
        ("sent", "claimed sent"),
        ("failed", "claimed refused"),
        ("delivered", "claimed sent delivered"),
        ("bounced", "claimed sent bounced"),
    ];
    // The state that follows; `-` if nothing changes.
    let table = rows(
        "
                  pending  waiting  claimed    overdue    doubted    second     spent      sent  failed  delivered  bounced
        claimed   claimed  -        -          -          -          -          -          -     -       -          -
        sent      -        -        sent       sent       sent       sent       sent       -     -       -          -
        released  -        -        pending    pending    pending    ambiguous  ambiguous  -     -       -          -
        refused   -        -        failed     failed     failed     ambiguous  ambiguous  -     -       -          -
        lost      -        -        ambiguous  ambiguous  -          ambiguous  -          -     -       -          -
        lapsed    -        -        -          ambiguous  -          -          -          -     -       -          -
        void      failed   failed   claimed    claimed    ambiguous  claimed    ambiguous  -     -       -          -
        ",
    );
    assert!(table[0].iter().eq(stories.iter().map(|(name, _)| name)));
    for row in &table[1..] {
        assert_eq!(row.len(), 12, "{row:?}");
        for (cell, (state, story)) in row[1..].iter().zip(stories) {
            let (d, at, claims) = play(story);
            let token = claims + u32::from(row[0] == "claimed");
            let found = apply_delivery(&d, &fact(row[0], token, at), &PATIENCE, at);
            assert_eq!(
                found.map_or("-", |d| d.state.as_str()),
                *cell,
                "{} while {state}",
                row[0]
            );
            let stranger = fact("sent", 99, at);
            assert_eq!(apply_delivery(&d, &stranger, &PATIENCE, at), None);
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
    ("doubts", &["0", "1", "2"]),
    ("refusals", &["0", "5", "6"]),
    ("wake", &["none", "due", "later"]),
];

#[test]
fn the_next_step_of_every_state() {
    // The first row that fits says what is next; `*` fits all, `a|b` either.
    let table = rows(
        "
        state              attempt  doubts  refusals  wake   step
        claimed            running  *       *         *      retry:30
        claimed            *        *       *         *      doubt
        pending|ambiguous  *        2       *         *      rest
        pending|ambiguous  *        *       6         *      rest
        pending|ambiguous  *        *       *         later  retry:60
        pending|ambiguous  *        *       *         *      send
        *                  *        *       *         *      rest
        ",
    );
    let (names, rows) = table.split_first().unwrap();
    assert!(
        COLUMNS
            .iter()
            .map(|column| column.0)
            .eq(names[..5].iter().copied())
    );
    let (mut d, now) = new();
    for index in 0..COLUMNS.iter().map(|column| column.1.len()).product() {
        let mut rest: usize = index;
        let values = COLUMNS.map(|(_, values)| {
            let value = values[rest % values.len()];
            rest /= values.len();
            value
        });
        let fits =
            |(cell, value): (&&str, &str)| *cell == "*" || cell.split('|').any(|one| one == value);
        let row = rows
            .iter()
            .find(|row| row.iter().zip(values).all(fits))
            .unwrap();

        let [state, attempt, doubts, refusals, wake] = values;
        d.state = state.parse().unwrap();
        d.attempt = (attempt != "none").then(|| Attempt {
            number: 1,
            token: String::new(),
            deadline: now + SignedDuration::from_secs(if attempt == "running" { 30 } else { 0 }),
        });
        d.doubts = doubts.parse().unwrap();
        d.refusals = refusals.parse().unwrap();
        d.wake_at = (wake != "none")
            .then(|| now + SignedDuration::from_secs(if wake == "later" { 60 } else { 0 }));
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
        # Refused for now: 1, 2, 4, 8, 16 minutes, the sixth is the last.
        claimed released => pending retry:60
        claimed released released! => pending retry:60
        claimed released +1 claimed released => pending retry:120
        claimed released +1 claimed released +2 claimed released +4 claimed released +8 claimed released => pending retry:960
        claimed released +1 claimed released +2 claimed released +4 claimed released +8 claimed released +16 claimed released => failed rest
        # A lost answer: one second attempt, 15 minutes later.
        claimed lost => ambiguous retry:900
        claimed +1 => claimed doubt
        claimed +1 lapsed => ambiguous retry:900
        claimed +1 lapsed lapsed! lost! => ambiguous retry:900
        claimed lost +15 claimed sent => sent rest
        claimed lost +15 claimed lost => ambiguous rest
        claimed lost +15 claimed released => ambiguous retry:60
        claimed lost +15 claimed released released! +1 claimed lost => ambiguous rest
        claimed lost +15 claimed refused => ambiguous rest
        # Late answers, as long as no later attempt began.
        claimed +1 lapsed sent => sent rest
        claimed +1 lapsed released => pending retry:60
        claimed +1 lapsed refused => failed rest
        claimed +1 lapsed +15 claimed sent#1! released#1! => claimed retry:60
        claimed lost +15 claimed lost sent => sent rest
        claimed lost +15 claimed lost released released! => ambiguous retry:60
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
    for line in table.lines().map(str::trim) {
        if line.is_empty() || line.starts_with("# ") {
            continue;
        }
        let (story, expected) = line.split_once(" => ").unwrap();
        let (d, now, _) = play(story);
        let found = format!("{} {}", d.state.as_str(), step(&d, now));
        assert_eq!(found, expected, "{story}");
    }
}

#[test]
fn attempts_are_numbered_through() {
    for (story, expected) in [
        ("claimed", 1),
        ("claimed released +1 claimed", 2),
        ("claimed lost +15 claimed", 2),
        ("claimed lost released +15 claimed", 2),
        ("claimed released +1 claimed lost +15 claimed", 3),
    ] {
        let (d, ..) = play(story);
        assert_eq!(
            d.attempt.map(|attempt| attempt.number),
            Some(expected),
            "{story}"
        );
    }
}

#[test]
fn a_claim_is_our_own_business() {
    for (state, shown) in [
        ("pending", "pending"),
        ("claimed", "pending"),
        ("sent", "sent"),
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
    let answered = prop::sample::select(vec![
        Some(0),
        Some(0),
        Some(1),
        Some(2),
        Some(3),
        Some(4),
        None,
    ]);
    let refused = prop::sample::select(vec!["released", "released", "released", "refused"]);
    (any::<bool>(), answered, refused).prop_map(|(taken, answered, refused)| Fate {
        taken,
        answered,
        refused,
    })
}

/// Does what `next_delivery` says while attempts go as `fates` say, then well, until nothing is next. Answers come twice.
/// Returns the mail as it ends, and how many SES took.
fn run(fates: &[Fate]) -> (Delivery, u32) {
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
            DeliveryStep::RetryAt(until) => {
                assert!(
                    until > at && until <= at + SignedDuration::from_mins(16),
                    "sleeps too long: {d:?}"
                );
                at = until;
            }
            DeliveryStep::Doubt => now.push(DeliveryFact::Lapsed),
            DeliveryStep::Send => {
                token += 1;
                d = apply_delivery(&d, &fact("claimed", token, at), &PATIENCE, at).unwrap();
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
            if let Some(after) = apply_delivery(&d, &fact, &PATIENCE, at) {
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
        let (d, taken) = run(&fates);
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
        let turned_down = fates.iter().filter(|fate| !fate.taken).count();
        let never = fates.iter().any(|fate| !fate.taken && fate.refused == "refused");
        if doubtful < 2 && turned_down < 6 && !never {
            prop_assert!(taken >= 1, "the mail is lost: {d:?}");
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
            d = apply_delivery(&d, &fact(name, token, at), &PATIENCE, at).unwrap_or(d);
        }
        d = apply_delivery(&d, &DeliveryFact::Void, &PATIENCE, at).unwrap_or(d);
        for (name, token, minutes) in after {
            at += SignedDuration::from_mins(minutes);
            prop_assert_ne!(next_delivery(&d, at), DeliveryStep::Send);
            d = apply_delivery(&d, &fact(name, token, at), &PATIENCE, at).unwrap_or(d);
        }
    }
}

fn any_fact() -> impl Strategy<Value = (&'static str, u32, i64)> {
    let names = vec![
        "claimed", "claimed", "sent", "released", "refused", "lost", "lapsed", "void",
    ];
    let minutes = prop::sample::select(vec![0, 1, 15]);
    (prop::sample::select(names), 1..4u32, minutes)
}
