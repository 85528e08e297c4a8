//! Tests of the lifecycle: the complete tables of `apply` and `next`, sequences of facts, and property tests.

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::line::tests::line;
use crate::{ActivationId, EmailAddress, Iccid, Line, Requested};

const DEADLINES: Deadlines = Deadlines {
    lease: SignedDuration::from_secs(60),
    retry_after: SignedDuration::from_secs(10),
    poll_after: SignedDuration::from_mins(5),
    poll_at_most: SignedDuration::from_hours(1),
    order_within: SignedDuration::from_hours(24),
    install_within: SignedDuration::from_hours(14 * 24),
    remind_before: SignedDuration::from_hours(24),
    settle_within: SignedDuration::from_hours(7 * 24),
    call_lifetime: SignedDuration::from_mins(10),
    sim_cooldown: SignedDuration::from_hours(24),
    code_kept: SignedDuration::from_hours(30 * 24),
    records_kept: SignedDuration::from_hours(3 * 365 * 24),
};

/// The names of all facts in these tests. A fact `old-…` is dated over an hour before the swap was requested.
const FACTS: [&str; 52] = [
    "claimed",
    "ordered",
    "try-failed",
    "refused",
    "unavailable",
    "expired",
    "internal",
    "cancel",
    "downloaded",
    "installed",
    "profile-failed",
    "wrong-code",
    "old-downloaded",
    "old-installed",
    "old-profile-failed",
    "old-wrong-code",
    "placed",
    "started",
    "completed",
    "ended",
    "unclear",
    "asked",
    "profile-settled",
    "on-phone",
    "finished",
    "resend",
    "postponed",
    "erased",
    "smdp-failed",
    "not-tried",
    "cut-off",
    "rejected",
    "taken",
    "found",
    "missing",
    "ask-failed",
    "disputed",
    "turned-away",
    "unseen",
    "anonymised",
    "blocked",
    "renew",
    "code-dead",
    "renewed",
    "not-renewed",
    "found-on-phone",
    "report",
    "report-checked",
    "reminded",
    "eid",
    "enabled",
    "deleted",
];

/// The facts that peers report on their own, any number of times.
const PEER_FACTS: std::ops::Range<usize> = 8..21;

fn requested_at() -> Timestamp {
    "2026-03-01T12:00:00.5Z".parse().unwrap()
}

fn order_number() -> String {
    "N-1".to_owned()
}

fn fact(name: &str, at: Timestamp) -> Fact {
    let dated = match name.strip_prefix("old-") {
        Some(_) => requested_at() - SignedDuration::from_secs(3601),
        None => at,
    };
    match name.strip_prefix("old-").unwrap_or(name) {
        "claimed" => Fact::Claimed(Claim {
            token: at.to_string(),
            until: at + DEADLINES.lease,
        }),
        "ordered" => Fact::Ordered {
            order_number: order_number(),
            smdp: Some(SmDpAddress::parse("smdp.example.test").unwrap()),
        },
        "try-failed" => Fact::TryFailed(Some(FailedCall {
            doubtful: true,
            ..FailedCall::new(Peer::Network, "503")
        })),
        "smdp-failed" => Fact::TryFailed(Some(FailedCall {
            doubtful: true,
            ..FailedCall::new(Peer::Smdp, "no answer")
        })),
        "turned-away" => Fact::TryFailed(Some(FailedCall::new(Peer::Network, "401"))),
        "unseen" => Fact::NetworkUnseen,
        "not-tried" => Fact::TryFailed(None),
        "cut-off" => Fact::Interrupted,
        "refused" => Fact::OrderRejected {
            failure: FailureCode::ProfileRefused,
            call: FailedCall::new(Peer::Smdp, "8.2.1/3.9"),
        },
        "rejected" => Fact::OrderRejected {
            failure: FailureCode::NetworkRejected,
            call: FailedCall::new(Peer::Network, "400"),
        },
        "taken" => Fact::ProfileTaken,
        "found" => Fact::OrderFound {
            order_number: order_number(),
        },
        "missing" => Fact::NetworkMissing,
        "ask-failed" => Fact::Polled(vec![FailedCall {
            retry_after: Some(SignedDuration::from_hours(2)),
            ..FailedCall::new(Peer::Network, "429")
        }]),
        "disputed" => Fact::Disputed,
        "unsettled" => Fact::GivenUp(FailureCode::Unsettled),
        "unavailable" => Fact::GivenUp(FailureCode::Unavailable),
        "expired" => Fact::GivenUp(FailureCode::Expired),
        "internal" => Fact::GivenUp(FailureCode::Internal),
        "cancel" => Fact::CancelWanted {
            by: "OWNER anna".to_owned(),
        },
        "resend" => Fact::ResendWanted {
            by: "OWNER anna".to_owned(),
        },
        "postponed" => Fact::Postponed,
        "erased" => Fact::Erased,
        "anonymised" => Fact::Anonymised,
        "blocked" => Fact::LineBlocked(SwapBlocker::Locked),
        "downloaded" => Fact::Downloaded { dated },
        "installed" => Fact::Installed { dated },
        "profile-failed" => Fact::ProfileFailed {
            dated,
            failure: FailureCode::NoRoom,
            codes: "8.1/4.8".to_owned(),
        },
        "renew" => Fact::RenewWanted {
            by: "OWNER anna".to_owned(),
            to: EmailAddress::parse("anna@example.com").unwrap(),
        },
        "code-dead" => Fact::CodeCancelled,
        "renewed" => Fact::Renewed { smdp: None, dated: at },
        "not-renewed" => Fact::RenewalRefused { on_phone: false },
        "found-on-phone" => Fact::RenewalRefused { on_phone: true },
        "report" => report(ReportTrust::Full),
        "report-if-downloaded" => report(ReportTrust::AfterDownload),
        "report-of-agent" => report(ReportTrust::Vouched),
        "report-to-check" => report(ReportTrust::Checked),
        "report-checked" => Fact::ReportChecked { on_phone: true },
        "report-denied" => Fact::ReportChecked { on_phone: false },
        "reminded" => Fact::Reminded,
        "eid" => Fact::EidKnown { end: "1235".to_owned() },
        "enabled" => Fact::PhoneChanged {
            state: PhoneState::Enabled,
            dated,
        },
        "deleted" => Fact::PhoneChanged {
            state: PhoneState::Deleted,
            dated,
        },
        "wrong-code" => Fact::WrongCode { dated },
        "placed" => Fact::NetworkPlaced,
        "started" => Fact::NetworkStarted,
        "completed" => Fact::NetworkCompleted {
            since: at,
            order_number: order_number(),
        },
        "ended" => Fact::NetworkEnded(FailureCode::NetworkFailed),
        "unclear" => Fact::NetworkUnclear {
            order_number: "N-9".to_owned(),
        },
        "asked" => Fact::Polled(Vec::new()),
        "profile-settled" => Fact::ProfileSettled { on_phone: false },
        "on-phone" => Fact::ProfileSettled { on_phone: true },
        "finished" => Fact::Finished { tell: false },
        "finished-told" => Fact::Finished { tell: true },
        _ => panic!("no fact is named {name}"),
    }
}

fn report(trust: ReportTrust) -> Fact {
    Fact::ReportWanted {
        by: "ADMIN desk".to_owned(),
        witness: Witness::Agent,
        note: "called twice".to_owned(),
        trust,
    }
}

fn new_swap(kind: SwapKind) -> Activation {
    new_swap_of(&line(), kind, Requested::default())
}

fn new_swap_of(line: &Line, kind: SwapKind, requested: Requested) -> Activation {
    Activation::accept(
        ActivationId::from_random(requested_at(), 7),
        line,
        kind,
        Iccid::parse("8931086000000002019").unwrap(),
        requested,
        "OWNER anna",
        DEADLINES.lease,
        requested_at(),
    )
}

/// A short name for each rejection, for the tables.
fn rejection_name(rejected: Rejected) -> &'static str {
    match rejected {
        Rejected::AlreadyApplied => "known",
        Rejected::Ended => "over",
        Rejected::StaleCallback => "earlier",
        Rejected::ClaimedByOther => "held",
        Rejected::TooLate => "late",
        Rejected::NotPossible => "never",
        Rejected::TooEarly => "early",
        Rejected::NotBelieved => "doubted",
        Rejected::TooOften(_) => "often",
        Rejected::NoCode => "no-code",
    }
}

/// Reads a duration: `5s`, `5m`, `5h` or `5d`.
fn duration(text: &str) -> SignedDuration {
    let (count, unit) = text.split_at(text.len() - 1);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => panic!("no unit in {text}"),
    };
    SignedDuration::from_secs(count.parse::<i64>().unwrap() * seconds)
}

/// Applies a story to a new swap. A story consists of facts that have to change something, facts with the expected
/// rejection (`cancel!late`), and time that passes (`+5m`).
fn play(kind: SwapKind, story: &str) -> (Activation, Timestamp) {
    let (mut a, mut at) = (new_swap(kind), requested_at());
    for word in story.split_whitespace() {
        if let Some(time) = word.strip_prefix('+') {
            at += duration(time);
        } else if let Some((name, rejection)) = word.split_once('!') {
            let found = apply(&a, &fact(name, at), &DEADLINES, at).map_err(rejection_name);
            assert_eq!(found.map(|a| a.phase), Err(rejection), "{word} of: {story}");
        } else {
            let after = apply(&a, &fact(word, at), &DEADLINES, at)
                .unwrap_or_else(|rejected| panic!("{word} of: {story}: {rejected}"));
            assert_eq!(after.version, a.version + 1, "{word} of: {story}");
            a = after;
        }
    }
    (a, at)
}

/// A step as a word. A time is shown as the number of seconds until then.
fn describe_step(step: Step, now: Timestamp) -> String {
    let left = |until: Timestamp| until.duration_since(now).as_secs();
    match step {
        Step::Call(PeerCall::Order) => "order".to_owned(),
        Step::Call(PeerCall::Start) => "start".to_owned(),
        Step::Call(PeerCall::Poll) => "ask".to_owned(),
        Step::Call(PeerCall::Cancel) => "cancel".to_owned(),
        Step::Call(PeerCall::Request) => "request".to_owned(),
        Step::Remind => "remind".to_owned(),
        Step::GiveUp(failure) => format!("give-up:{}", failure.as_str()),
        Step::Finish => "finish".to_owned(),
        Step::Erase => "erase".to_owned(),
        Step::Anonymise => "anonymise".to_owned(),
        Step::WaitUntil(until) if left(until) >= DEADLINES.code_kept.as_secs() => "kept".to_owned(),
        Step::WaitUntil(until) => format!("wait:{}", left(until)),
        Step::Nothing => "rest".to_owned(),
    }
}

/// Checks the phase and the step after a story.
fn check(kind: SwapKind, story: &str, expected: &str) {
    let (a, now) = play(kind, story);
    let found = format!("{} {}", a.phase.as_str(), describe_step(next(&a, &DEADLINES, now), now));
    assert_eq!(found, expected, "{kind:?}: {story}");
}

/// The cells of a table. Each line is a row, and `#` begins a comment.
fn rows(table: &str) -> Vec<Vec<&str>> {
    table
        .lines()
        .map(|line| line.split('#').next().unwrap_or(line))
        .map(|line| line.split_whitespace().collect())
        .filter(|row: &Vec<&str>| !row.is_empty())
        .collect()
}

/// Checks a table of facts and phases. The first row has the phases, and each phase is reached by its story. A cell has
/// the phase after the fact, `.` if it is the same phase, or the rejection.
fn check_apply(kind: SwapKind, stories: &[&str], table: &str) {
    let rows = rows(table);
    let (phases, rows) = rows.split_first().unwrap();
    assert!(rows.iter().map(|row| row[0]).eq(FACTS), "each fact has a row");
    for row in rows {
        assert_eq!((row.len(), stories.len()), (phases.len() + 1, phases.len()), "{row:?}");
        for ((cell, story), phase) in row[1..].iter().zip(stories).zip(phases) {
            let (before, at) = play(kind, story);
            assert_eq!(before.phase.as_str(), *phase, "{story}");
            let found = match apply(&before, &fact(row[0], at), &DEADLINES, at) {
                Ok(after) if after.phase == before.phase => ".",
                Ok(after) => after.phase.as_str(),
                Err(rejected) => rejection_name(rejected),
            };
            assert_eq!(found, *cell, "{} while {phase}, {kind:?}", row[0]);
        }
    }
}

#[test]
fn every_fact_in_every_phase_of_an_esim_swap() {
    check_apply(
        SwapKind::Esim,
        &[
            "",
            "claimed +61s",
            "claimed ordered +5m",
            "claimed ordered installed claimed started +5m",
            "claimed ordered cancel",
            "claimed ordered installed claimed started completed finished",
            "claimed ordered cancel profile-settled ended finished",
        ],
        "
                            accepted  ordering  ordered  started  ending  done  error
        claimed             ordering  .         .        .        .       over  over
        ordered             never     ordered   known    known    .       over  over
        try-failed          known     .         known    known    known   over  over
        refused             ending    ending    ending   ending   .       over  over
        unavailable         never     never     never    never    never   over  over   # not due yet
        expired             never     never     never    never    never   over  over   # not due yet
        internal            never     never     never    never    never   over  over   # not due yet
        cancel              ending    ending    ending   late     known   late  known
        downloaded          earlier   .         .        known    .       over  over
        installed           earlier   .         .        known    .       over  over
        profile-failed      earlier   .         .        known    known   over  over
        wrong-code          earlier   .         .        .        .       over  over
        old-downloaded      earlier   earlier   earlier  earlier  earlier over  over
        old-installed       earlier   earlier   earlier  earlier  earlier over  over
        old-profile-failed  earlier   earlier   earlier  earlier  earlier over  over
        old-wrong-code      earlier   earlier   earlier  earlier  earlier over  over
        placed              never     .         known    known    known   over  over
        started             never     .         started  known    .       over  over
        completed           never     .         .        .        .       over  .      # the number has moved
        ended               never     ending    ending   ending   .       over  over
        unclear             never     .         known    known    known   over  over
        asked               known     .         known    known    known   over  over
        profile-settled     never     never     never    never    .       over  over
        on-phone            never     never     never    never    .       over  over
        finished            never     never     never    never    never   over  over
        resend              never     never     .        late     late    late  late
        postponed           known     known     known    known    known   over  over
        erased              never     never     never    never    never   over  over
        smdp-failed         known     .         known    known    known   over  over
        not-tried           known     .         known    known    known   over  over
        cut-off             known     .         known    known    known   over  over
        rejected            ending    ending    ending   ending   .       over  over
        taken               ending    ending    never    never    never   over  over
        found               known     known     known    known    known   over  over
        missing             never     .         .        .        .       over  over
        ask-failed          known     .         known    known    known   over  over
        disputed            never     never     never    never    never   over  over
        turned-away         known     .         known    known    known   over  over
        unseen              never     never     never    never    never   over  over
        anonymised          never     never     never    never    never   over  over
        blocked             ending    ending    ending   late     known   over  over
        renew               early     early     .        late     late    late  late
        code-dead           never     never     never    never    never   over  over
        renewed             never     never     never    never    never   over  over
        not-renewed         never     never     never    never    never   over  over
        found-on-phone      never     never     never    never    never   over  over
        report              early     early     .        known    late    known late
        report-checked      never     never     never    never    never   over  over
        reminded            never     never     never    never    never   over  over   # not due yet
        eid                 .         .         .        .        .       over  over
        enabled             earlier   .         .        .        .       .     over   # the phone has the profile
        deleted             earlier   .         .        .        .       .     over
        ",
    );
}

#[test]
fn every_fact_in_every_phase_of_a_physical_swap() {
    check_apply(
        SwapKind::Physical,
        &[
            "",
            "claimed +61s",
            "claimed ordered +5m",
            "claimed refused",
            "claimed ordered completed finished",
            "claimed refused ended finished",
        ],
        "
                            accepted  ordering  started  ending  done  error
        claimed             ordering  .         .        .       over  over
        ordered             never     started   known    .       over  over
        try-failed          known     .         known    known   over  over
        refused             ending    ending    ending   .       over  over
        unavailable         never     never     never    never   over  over
        expired             never     never     never    never   over  over
        internal            never     never     never    never   over  over
        cancel              ending    late      late     late    late  late
        downloaded          never     never     never    never   over  over
        installed           never     never     never    never   over  over
        profile-failed      never     never     never    never   over  over
        wrong-code          never     never     never    never   over  over
        old-downloaded      never     never     never    never   over  over
        old-installed       never     never     never    never   over  over
        old-profile-failed  never     never     never    never   over  over
        old-wrong-code      never     never     never    never   over  over
        placed              never     .         known    .       over  over
        started             never     .         known    .       over  over
        completed           never     .         .        .       over  .
        ended               never     ending    ending   .       over  over
        unclear             never     .         known    .       over  .      # the order may be ours: poll
        asked               known     .         known    known   over  over
        profile-settled     never     never     never    never   over  over
        on-phone            never     never     never    never   over  over
        finished            never     never     never    never   over  over
        resend              never     never     never    never   late  late
        postponed           known     known     known    known   over  over
        erased              never     never     never    never   over  over
        smdp-failed         known     .         known    known   over  over
        not-tried           known     .         known    known   over  over
        cut-off             known     .         known    known   over  over
        rejected            ending    ending    ending   .       over  over
        taken               never     never     never    never   over  over
        found               known     known     known    .       over  over
        missing             never     .         .        .       over  over
        ask-failed          known     .         known    known   over  over
        disputed            never     never     never    never   over  over
        turned-away         known     .         known    known   over  over
        unseen              never     never     never    .       over  over
        anonymised          never     never     never    never   over  over
        blocked             ending    late      late     known   over  over
        renew               never     never     never    never   late  late
        code-dead           never     never     never    never   over  over
        renewed             never     never     never    never   over  over
        not-renewed         never     never     never    never   over  over
        found-on-phone      never     never     never    never   over  over
        report              never     never     never    never   known late
        report-checked      never     never     never    never   over  over
        reminded            never     never     never    never   over  over
        eid                 never     never     never    never   over  over
        enabled             never     never     never    never   never over
        deleted             never     never     never    never   never over
        ",
    );
}

/// The fields that `next` reads, with all values that make a difference. Times are at their limits: `due` and `past`
/// mean this very moment. At `week`, `day` and `fortnight`, the time to settle, to order and to install has just
/// passed.
const COLUMNS: [(&str, &[&str]); 9] = [
    (
        "phase",
        &["accepted", "ordering", "ordered", "started", "ending", "done", "error"],
    ),
    ("claimed-once", &["no", "yes"]),
    ("kind", &["esim", "physical"]),
    ("profile", &["none", "placed", "installed", "settled", "taken"]),
    ("network", &["none", "placed", "started", "settled", "completed"]),
    ("claim", &["none", "past", "live"]),
    ("wake", &["none", "due", "later"]),
    ("moved", &["now", "week"]),
    ("age", &["hour", "day", "fortnight"]),
];

#[test]
fn the_sweeper_reads_a_swap_in_time() {
    // In seconds from the end of the story. The time changes only if it is too late or has passed.
    let check = |kind, story, expected| {
        let (a, now) = play(kind, story);
        let due = a.due_at.expect("a step or an erasure is left");
        let left = due.duration_since(now).as_secs().to_string();
        assert_eq!(left, expected, "{story}");
    };
    check(SwapKind::Esim, "", "60");
    check(SwapKind::Esim, "+30s claimed", "30");
    check(SwapKind::Esim, "+30s claimed try-failed", "10");
    check(SwapKind::Esim, "claimed ordered", "60");
    check(SwapKind::Esim, "claimed ordered +60s postponed postponed!known", "240");
    check(SwapKind::Esim, "claimed ordered +60s installed", "60");
    check(SwapKind::Esim, "claimed ordered installed claimed started", "60");
    check(
        SwapKind::Esim,
        "claimed ordered installed claimed started completed finished",
        "2592000",
    );
    check(SwapKind::Esim, "cancel finished", "2592000");
    check(SwapKind::Physical, "cancel finished", "94608000");
    check(
        SwapKind::Physical,
        "claimed rejected finished unclear +30s claimed postponed!over +30s postponed postponed!over",
        "30",
    );
    check(
        SwapKind::Physical,
        "claimed rejected finished unclear +60s postponed!over",
        "0",
    );
    check(SwapKind::Physical, "claimed ordered +5m claimed asked", "60");
}

#[test]
fn secrets_are_erased_in_time_and_then_the_personal_data() {
    for (kind, story) in [
        (
            SwapKind::Esim,
            "claimed ordered installed claimed started completed finished",
        ),
        (SwapKind::Esim, "cancel finished"),
        (SwapKind::Esim, "claimed ordered cancel profile-settled ended finished"),
        (SwapKind::Physical, "claimed ordered completed finished"),
    ] {
        let (mut ended, at) = play(kind, story);
        ended.requested.reference = "Anna".to_owned();
        let (secrets, records) = (at + DEADLINES.code_kept, at + DEADLINES.records_kept);
        let mut left = ended.clone();
        if kind == SwapKind::Esim {
            assert_eq!(ended.due_at, Some(secrets));
            assert_eq!(describe_step(next(&ended, &DEADLINES, at), at), "kept");
            assert_eq!(describe_step(next(&ended, &DEADLINES, secrets), secrets), "erase");
            assert_eq!(apply(&ended, &Fact::Erased, &DEADLINES, at), Err(Rejected::Ended));
            left = apply(&ended, &Fact::Erased, &DEADLINES, secrets).unwrap();
            assert_eq!(left.modified_at, ended.modified_at);
            assert_eq!(left.version, ended.version + 1);
            assert!(
                left.code_dead && !ended.code_dead,
                "no mail can bring the code any more"
            );
        }
        assert_eq!(left.due_at, Some(records), "{story}");
        assert_eq!(describe_step(next(&left, &DEADLINES, records), records), "anonymise");
        let early = records - SignedDuration::from_secs(1);
        assert_eq!(apply(&left, &Fact::Anonymised, &DEADLINES, early), Err(Rejected::Ended));
        // A row that was not erased for so long loses both at once.
        assert_eq!(describe_step(next(&ended, &DEADLINES, records), records), "anonymise");
        let bare = apply(&ended, &Fact::Anonymised, &DEADLINES, records).unwrap();
        assert!(bare.is_anonymous() && !ended.is_anonymous());
        assert_eq!((bare.due_at, bare.modified_at), (None, ended.modified_at));
        assert_eq!(bare.code_dead, kind == SwapKind::Esim);
        assert_eq!(bare.version, ended.version + 1);
        assert_eq!(
            bare.requested,
            Requested {
                e_sim: ended.requested.e_sim,
                ..Requested::default()
            }
        );
        assert_eq!((&bare.contact, &bare.timeline[..]), (&None, &[][..]));
        assert_eq!(describe_step(next(&bare, &DEADLINES, records), records), "rest");
        // The swap cannot be corrected any more, whatever the network reports.
        let late = apply(&bare, &fact("completed", records), &DEADLINES, records);
        assert_eq!(late, Err(Rejected::Ended), "{story}");
    }
}

#[test]
fn the_end_brings_a_mail_only_if_it_is_an_error() {
    for (story, mails) in [
        ("claimed ordered ended claimed profile-settled finished", 1),
        ("claimed ordered ended claimed profile-settled finished-told", 2),
        ("claimed ordered installed claimed started completed finished-told", 1),
    ] {
        let (a, _) = play(SwapKind::Esim, story);
        assert_eq!(a.mails, mails, "{story}");
        let notes = a.timeline.iter().filter(|entry| entry.what == "notice of the end");
        assert_eq!(notes.count(), mails as usize - 1, "{story}");
    }
}

#[test]
fn a_number_that_moves_after_a_stop_needs_the_operator() {
    let (a, at) = play(
        SwapKind::Esim,
        "claimed ordered blocked claimed profile-settled ended finished completed",
    );
    assert_eq!(a.failure, Some(FailureCode::Stopped));
    assert_eq!(describe_step(next(&a, &DEADLINES, at), at), "finish");
    assert_eq!(
        apply(&a, &fact("finished", at), &DEADLINES, at),
        Err(Rejected::NotPossible)
    );
    let disputed = apply(&a, &Fact::Disputed, &DEADLINES, at).unwrap();
    assert!(disputed.disputed && disputed.phase == Phase::Error);
}

#[test]
fn the_next_step_of_every_state() {
    // The first row that matches has the next step. `*` matches all values, `a|b` both, `!a` all but `a`.
    let table = rows(
        "
        phase             claimed-once kind     profile   network   claim  wake  moved age        step
        error             *            *        *         completed *      *     *     *          finish
        done|error        *            *        *         *         *      *     *     *          rest
        ordering          *            *        *         completed live   *     *     *          wait:30
        *                 *            *        *         completed *      *     *     *          finish
        ending            no           *        *         *         *      *     *     *          finish
        ending            *            physical *         settled   *      *     *     *          finish
        ending            *            *        settled|taken settled *    *     *     *          finish
        *                 *            *        *         *         live   *     *     *          wait:30
        accepted|ordering *            *        *         *         past   *     *     !hour      give-up:internal
        accepted|ordering *            *        *         *         *      *     *     !hour      give-up:unavailable
        accepted|ordering *            *        *         *         *      later *     *          wait:60
        accepted|ordering *            *        *         *         *      *     *     *          order
        ordered           *            *        installed *         *      *     week  *          give-up:unsettled
        ordered           *            *        installed *         *      later *     *          wait:60
        ordered           *            *        installed *         *      *     *     *          start
        ordered           *            *        *         *         *      *     *     fortnight  give-up:expired
        ordered           *            *        *         *         *      later *     *          wait:60
        ordered           *            *        *         *         *      *     *     *          ask
        started|ending    *            *        *         *         *      *     week  *          give-up:unsettled
        started           *            *        *         *         *      later *     *          wait:60
        started           *            *        *         *         *      *     *     *          ask
        ending            *            *        *         *         *      later *     *          wait:60
        ending            *            *        *         *         *      *     *     *          cancel
        ",
    );
    let (names, rows) = table.split_first().unwrap();
    assert!(COLUMNS.iter().map(|column| column.0).eq(names[..9].iter().copied()));
    let matches = |cell: &str, value: &str| match cell.strip_prefix('!') {
        Some(other) => value != other,
        None => cell == "*" || cell.split('|').any(|one| one == value),
    };
    let mut used = vec![false; rows.len()];
    let mut a = new_swap(SwapKind::Esim);
    for index in 0..COLUMNS.iter().map(|column| column.1.len()).product() {
        let mut rest: usize = index;
        let state = COLUMNS.map(|(_, values)| {
            let value = values[rest % values.len()];
            rest /= values.len();
            value
        });
        let row = rows
            .iter()
            .position(|row| row.iter().zip(state).all(|(cell, value)| matches(cell, value)))
            .unwrap_or_else(|| panic!("no row matches {state:?}"));
        used[row] = true;

        let [phase, claimed_once, kind, profile, network, claim, wake, moved, age] = state;
        let now = requested_at()
            + match age {
                "hour" => SignedDuration::from_hours(1),
                "day" => DEADLINES.order_within,
                _ => DEADLINES.install_within,
            };
        a.phase = phase.parse().unwrap();
        a.due_at = None;
        a.ordering_since = (claimed_once == "yes").then(requested_at);
        a.kind = if kind == "esim" {
            SwapKind::Esim
        } else {
            SwapKind::Physical
        };
        a.profile = (profile == "installed").then_some(ProfileState::Installed);
        a.profile_order = match profile {
            "none" => ProfileOrder::None,
            "settled" => ProfileOrder::Settled,
            "taken" => ProfileOrder::Taken,
            _ => ProfileOrder::Placed,
        };
        a.network_order = network.parse().unwrap();
        a.claim = (claim != "none").then(|| Claim {
            token: String::new(),
            until: now + SignedDuration::from_secs(if claim == "live" { 30 } else { 0 }),
        });
        a.wake_at = (wake != "none").then(|| now + SignedDuration::from_secs(if wake == "later" { 60 } else { 0 }));
        a.progressed_at = match moved {
            "week" => now - DEADLINES.settle_within,
            _ => now,
        };
        assert_eq!(describe_step(next(&a, &DEADLINES, now), now), rows[row][9], "{state:?}");
    }
    let unused: Vec<_> = rows.iter().zip(used).filter(|(_, used)| !used).collect();
    assert!(unused.is_empty(), "{unused:?}");
}

#[test]
fn stories() {
    let table = "
        # Swaps without failures.
        esim      => accepted order
        esim      claimed => ordering wait:60
        esim      claimed ordered => ordered wait:300
        esim      claimed ordered downloaded installed => ordered start
        esim      claimed ordered installed claimed started => started wait:300
        esim      claimed ordered installed claimed started completed => started finish
        physical  claimed ordered => started wait:300
        physical  claimed ordered completed finished => done kept
        # Claims: one holder at a time, a repeated claim is recognised, and no claim when no step is due.
        esim      claimed claimed!known +59s claimed!held => ordering wait:1
        esim      claimed +60s => ordering order
        esim      claimed ordered claimed!held => ordered wait:300
        esim      claimed ordered +5m claimed asked claimed!held => ordered wait:600
        # Polls without reports: after 5 minutes, doubling up to an hour.
        esim      claimed ordered +5m => ordered ask
        esim      claimed ordered +5m claimed asked +10m claimed asked => ordered wait:1200
        physical  claimed ordered +5m claimed asked +10m claimed asked +20m claimed asked +40m claimed asked => started wait:3600
        physical  claimed ordered +5m claimed asked +10m claimed asked +20m claimed asked +40m claimed asked +1h claimed asked => started wait:3600
        physical  claimed ordered unclear unclear!known => started ask
        # Retries: after 10 seconds, doubling. Each phase starts anew, and an interrupted call does not count.
        esim      claimed try-failed => ordering wait:10
        esim      claimed try-failed +10s claimed try-failed => ordering wait:20
        esim      claimed try-failed +10s claimed +60s claimed try-failed => ordering wait:20
        esim      claimed cut-off +10s claimed not-tried => ordering wait:20
        esim      claimed try-failed +10s claimed try-failed +20s claimed ordered installed claimed try-failed => ordered wait:10
        # A blocked line: its swap is stopped as long as the network has certainly not been requested to start.
        esim      blocked => ending finish
        esim      claimed blocked => ending wait:60
        esim      claimed ordered blocked => ending cancel
        esim      claimed ordered downloaded blocked => ending cancel
        esim      claimed ordered installed blocked => ending cancel
        esim      claimed ordered +5m claimed installed blocked => ending wait:60
        esim      claimed ordered +5m claimed installed asked blocked => ending cancel
        esim      claimed ordered installed claimed blocked!late => ordered wait:60
        esim      claimed ordered installed claimed turned-away blocked => ending cancel
        esim      claimed ordered installed claimed not-tried blocked => ending cancel
        esim      claimed ordered installed claimed try-failed blocked!late => ordered wait:10
        esim      claimed ordered installed claimed try-failed +10s claimed turned-away blocked!late => ordered wait:20
        esim      claimed ordered installed claimed +60s claimed turned-away blocked!late => ordered wait:10
        esim      claimed ordered installed claimed cut-off blocked!late => ordered wait:10
        esim      claimed ordered installed claimed asked blocked!late => ordered wait:300
        physical  claimed turned-away blocked => ending cancel
        physical  claimed try-failed blocked!late => ordering wait:10
        physical  claimed turned-away cancel => ending cancel
        esim      claimed ordered installed claimed +60s blocked!late => ordered start
        esim      claimed ordered started blocked!late => started wait:300
        esim      claimed ordered cancel blocked!known => ending cancel
        physical  blocked => ending finish
        physical  claimed blocked!late => ordering wait:60
        physical  claimed ordered blocked!late => started wait:300
        # Giving up: after a day, whatever the number of attempts. If the last attempt left its claim, it is our fault.
        esim      claimed try-failed +1h claimed try-failed +1h claimed try-failed +1h claimed try-failed +1h claimed try-failed +1h claimed try-failed +1h claimed try-failed +1h claimed try-failed +1h claimed try-failed +1h => ordering order
        esim      claimed +1m claimed +1m claimed +1m claimed +1m claimed +1m claimed +1m claimed +1m claimed +1m claimed +1m => ordering order
        esim      claimed +24h => ordering give-up:internal
        esim      claimed +24h internal => ending cancel
        esim      claimed try-failed +24h => ordering give-up:unavailable
        esim      +86390s claimed try-failed => ordering wait:10
        esim      +86395s claimed try-failed => ordering wait:5
        esim      +24h unavailable => ending finish
        esim      claimed try-failed +24h unavailable => ending cancel
        physical  claimed try-failed +24h unavailable claimed started => ending wait:60
        physical  claimed try-failed +24h unavailable claimed completed finished => done kept
        esim      claimed +24h claimed!held => ordering give-up:internal
        # The time to settle an order, from its last change.
        esim      claimed ordered installed +7d => ordered give-up:unsettled
        esim      claimed ordered installed +7d unsettled => ending finish
        esim      claimed ordered installed +7d unsettled finished => error kept
        esim      claimed ordered +6d installed +604799s => ordered start
        esim      claimed ordered +6d installed claimed try-failed +604799s claimed try-failed => ordered wait:1
        esim      claimed ordered installed claimed started +7d => started give-up:unsettled
        esim      claimed ordered installed claimed started +7d unsettled finished completed => error finish
        physical  claimed ordered +604799s claimed asked => started wait:1
        physical  claimed ordered +7d unsettled finished => error kept
        esim      claimed ordered cancel claimed profile-settled asked +7d => ending give-up:unsettled
        esim      claimed ordered cancel +6d claimed profile-settled asked +7d unsettled finished => error kept
        # A peer can request a pause.
        physical  claimed ordered +5m claimed ask-failed => started wait:7200
        # The time to install.
        esim      claimed ordered +14d expired => ending cancel
        esim      claimed ordered +13d reminded +86399s claimed asked => ordered wait:1
        # The reminder comes once, a day before, unless the code was used or has failed.
        esim      claimed ordered +1123199s => ordered ask
        esim      claimed ordered +1123199s claimed asked => ordered wait:1
        esim      claimed ordered +13d => ordered remind
        esim      claimed ordered +13d claimed!held reminded reminded!never => ordered ask
        esim      claimed ordered downloaded +13d => ordered ask
        esim      claimed ordered profile-failed +13d => ordered ask
        # A profile that failed can be renewed until it expires.
        esim      claimed ordered profile-failed => ordered wait:300
        esim      claimed ordered profile-failed +14d => ordered give-up:noRoom
        esim      claimed ordered profile-failed +1s downloaded installed => ordered start
        esim      claimed ordered profile-failed renew claimed code-dead claimed renewed +14d => ordered give-up:expired
        # Renewals: the old code dies first, and an installed profile is not renewed.
        esim      claimed ordered renew => ordered request
        esim      claimed ordered renew renew!early report!early resend!early => ordered request
        esim      claimed ordered renew claimed => ordered wait:60
        esim      claimed ordered renew claimed code-dead => ordered request
        esim      claimed ordered renew claimed code-dead claimed renewed => ordered wait:300
        esim      claimed ordered renew claimed code-dead claimed not-renewed => ordered wait:300
        esim      claimed ordered renew claimed found-on-phone => ordered wait:300
        esim      claimed ordered renew claimed smdp-failed => ordered wait:10
        esim      claimed ordered renew installed renew!late => ordered start
        esim      claimed ordered renew cancel renewed!never => ending cancel
        esim      claimed ordered renew +14d => ordered give-up:expired
        esim      claimed ordered started renew => started request
        esim      claimed ordered started renew claimed code-dead claimed renewed => started wait:300
        # A number that moved meanwhile needs the new code.
        esim      claimed ordered started renew claimed code-dead completed => started request
        esim      claimed ordered started renew claimed code-dead completed claimed => started wait:60
        esim      claimed ordered started renew claimed code-dead completed claimed renewed => started finish
        esim      claimed ordered started renew claimed code-dead completed +8d => started finish
        esim      claimed ordered started renew claimed completed => started wait:60
        esim      claimed ordered started renew completed => started finish
        esim      claimed ordered renew claimed started code-dead => started request
        esim      claimed ordered renew claimed ended renewed!never => ending wait:60
        # No code works after a renewal that was refused in the middle. The next one is not told by a rejection alone.
        esim      claimed ordered renew claimed code-dead claimed not-renewed resend!no-code renew => ordered request
        esim      claimed ordered renew claimed smdp-failed +10s claimed not-renewed resend!no-code => ordered wait:300
        esim      claimed ordered renew claimed not-renewed resend => ordered wait:300
        # What a phone did with the eSIM before the renewal does not concern the new one.
        esim      claimed ordered deleted renew claimed code-dead claimed renewed +1s enabled => ordered start
        # A call of an earlier renewal must not be carried out in the middle of the next one.
        esim      claimed ordered renew claimed smdp-failed +10s claimed not-renewed renew => ordered wait:590
        esim      claimed ordered renew claimed +61s claimed not-renewed renew => ordered wait:599
        # Three renewals a day, ten in all.
        esim      claimed ordered renew claimed not-renewed renew claimed not-renewed renew claimed not-renewed renew!often +1d renew => ordered request
        # Reports: believed as they are, after a download, from an agent, or once the SM-DP+ was asked.
        esim      claimed ordered report report!known => ordered start
        esim      claimed ordered report-if-downloaded!doubted report-of-agent => ordered start
        esim      claimed ordered downloaded report-if-downloaded!early report-of-agent!early +15m report-if-downloaded => ordered start
        esim      claimed ordered downloaded +15m profile-failed report-if-downloaded!doubted => ordered ask
        esim      claimed ordered report-to-check => ordered request
        esim      claimed ordered report-to-check claimed report-checked => ordered wait:300
        esim      claimed ordered report-to-check claimed downloaded report-checked => ordered wait:300
        esim      claimed ordered downloaded +15m report-to-check claimed report-checked => ordered start
        esim      claimed ordered report-to-check installed => ordered start
        esim      claimed ordered downloaded +15m report-to-check claimed report-denied => ordered wait:300
        esim      claimed ordered report-to-check claimed smdp-failed +10s claimed smdp-failed +20s claimed smdp-failed +40s claimed smdp-failed +80s claimed smdp-failed renew => ordered request
        esim      claimed ordered deleted report!doubted => ordered wait:300
        esim      claimed ordered report renew => ordered request
        esim      claimed ordered report claimed started completed finished => done kept
        # A deleted eSIM must not get the number.
        esim      claimed ordered installed deleted => ordered ask
        esim      claimed ordered installed claimed +61s deleted => ordered start
        esim      claimed ordered enabled => ordered start
        esim      claimed ordered +14d claimed!held => ordered give-up:expired
        esim      claimed ordered +14d installed expired!never => ordered start
        # Facts that arrive before the response to the order is written.
        esim      claimed installed ordered => ordered start
        esim      claimed installed downloaded!known ordered installed!known => ordered start
        esim      claimed placed ordered => ordered wait:300
        esim      claimed started cancel!late ordered => started wait:300
        esim      claimed completed => ordering wait:60
        esim      claimed completed ordered => started finish
        physical  claimed completed => ordering wait:60
        physical  claimed completed ordered finished => done kept
        physical  claimed completed +60s finished => done kept
        physical  claimed started ordered => started wait:300
        physical  claimed ended => ending finish
        esim      claimed ended => ending wait:60
        esim      claimed ended refused => ending cancel
        # An event that arrives before the response to the order causes a poll at once.
        physical  claimed unclear ordered => started ask
        esim      claimed unclear ordered => ordered ask
        esim      claimed unclear unclear!known => ordering wait:60
        # The mail stays available if the number moves early.
        esim      claimed ordered started resend => started wait:300
        esim      claimed ordered started installed resend!late => started ask
        # An order that the network does not know any more: reported twice, a deadline apart.
        physical  claimed ordered +5m claimed missing asked => started wait:600
        physical  claimed ordered +5m claimed missing asked +299s missing => started wait:301
        physical  claimed ordered +5m claimed missing asked +300s missing => ending finish
        esim      claimed ordered missing +300s missing => ending cancel
        physical  claimed ordered missing started +299s missing => started wait:1
        esim      claimed ordered missing placed +299s missing => ordered wait:1
        physical  claimed ordered missing +300s missing finished => error kept
        # A fact that arrives during a call is processed without a pause.
        esim      claimed ordered +5m claimed installed asked => ordered start
        esim      claimed ordered +5m claimed installed try-failed => ordered start
        esim      claimed ordered +5m claimed installed asked claimed try-failed => ordered wait:20
        esim      claimed ordered +5m claimed cancel => ending wait:60
        esim      claimed ordered +5m claimed cancel asked => ending cancel
        esim      claimed cancel try-failed => ending cancel
        physical  claimed ordered +5m claimed unclear asked => started ask
        physical  claimed ordered +5m claimed unclear asked claimed asked => started wait:1200
        physical  claimed ordered +5m claimed completed => started finish
        esim      claimed ordered +5m claimed ended => ending cancel
        esim      claimed ordered installed profile-failed!known => ordered start
        esim      claimed installed profile-failed!known ordered => ordered start
        # Cancellation: while the network has certainly not started.
        esim      cancel finished => error kept
        physical  cancel finished cancel!known => error kept
        physical  claimed cancel!late => ordering wait:60
        esim      claimed ordered installed cancel => ending cancel
        esim      claimed ordered installed claimed cancel!late +60s cancel!late => ordered start
        esim      claimed ordered installed claimed try-failed cancel!late => ordered wait:10
        esim      claimed ordered completed cancel!late => ordered finish
        esim      claimed ordered expired!never +14d expired cancel!late => ending cancel
        # Ending: both peers in either order, until each order is settled.
        esim      claimed ordered cancel claimed profile-settled => ending wait:60
        esim      claimed ordered cancel claimed profile-settled asked => ending wait:300
        esim      claimed ordered cancel claimed profile-settled asked ended => ending finish
        esim      claimed ordered cancel claimed ended profile-settled => ending finish
        esim      claimed ordered cancel claimed try-failed => ending wait:10
        esim      claimed ordered cancel claimed refused => ending cancel
        # An abandoned call may still be carried out: the end waits for it.
        esim      claimed smdp-failed cancel claimed profile-settled!never asked => ending wait:300
        esim      claimed smdp-failed cancel +9m claimed asked => ending wait:60
        esim      claimed smdp-failed cancel +10m claimed asked => ending wait:300
        esim      claimed smdp-failed cancel claimed ask-failed => ending wait:7200
        esim      claimed smdp-failed cancel +10m claimed profile-settled ended => ending finish
        esim      claimed try-failed cancel claimed profile-settled asked => ending wait:300
        esim      claimed try-failed cancel claimed profile-settled found => ending wait:60
        esim      claimed try-failed cancel claimed profile-settled found asked => ending cancel
        esim      claimed try-failed rejected => ending cancel
        esim      claimed turned-away cancel claimed profile-settled unseen => ending finish
        esim      claimed rejected claimed profile-settled => ending finish
        physical  claimed rejected => ending finish
        physical  claimed try-failed +10s claimed rejected => ending cancel
        physical  claimed not-tried +10s claimed rejected => ending finish
        physical  claimed +60s claimed rejected => ending cancel
        esim      claimed taken => ending cancel
        esim      claimed taken claimed ended => ending finish
        esim      claimed cancel taken => ending cancel
        esim      claimed ordered cancel claimed on-phone on-phone!known ended => ending finish
        esim      claimed ordered cancel profile-settled ended finished => error kept
        # Only the end waits for an abandoned call, and an abandoned poll places no order.
        esim      claimed try-failed +10s claimed ordered +5m claimed asked => ordered wait:600
        esim      claimed ordered +5m claimed cut-off cancel claimed profile-settled ended => ending finish
        # The network ends the order on its own, or completes it after all.
        esim      claimed ordered ended ended!known => ending cancel
        physical  claimed ordered ended finished => error kept
        physical  claimed ordered ended completed ended!known finished => done kept
        esim      claimed ordered cancel completed finished cancel!late => done kept
        esim      claimed ordered cancel profile-settled ended completed finished => done kept
        # A completion after the end: the swap is done or disputed. The network is polled for an unknown order first.
        esim      claimed ordered cancel profile-settled ended finished completed => error finish
        esim      claimed ordered cancel profile-settled ended finished completed completed!known finished => done kept
        esim      claimed ordered cancel profile-settled ended finished completed disputed => error kept
        esim      claimed ordered cancel profile-settled ended finished completed disputed completed!known => error kept
        physical  claimed rejected finished unclear => error ask
        physical  claimed rejected finished unclear unclear!over claimed => error wait:60
        physical  claimed rejected finished unclear claimed asked => error kept
        physical  claimed rejected finished unclear claimed ask-failed => error wait:7200
        physical  claimed rejected finished unclear +7d claimed ask-failed => error kept
        physical  claimed rejected finished unclear claimed completed asked finished => done kept
        physical  finished!never cancel finished completed!over => error kept
        # An order that is written while the swap ends is settled again, whatever was settled before.
        esim      claimed cancel ordered => ending cancel
        esim      claimed cancel +11m claimed profile-settled ended ordered => ending cancel
        esim      claimed cancel +11m claimed profile-settled asked ordered => ending cancel
        physical  claimed refused ended ordered => ending cancel
        esim      claimed cancel ordered completed ordered => ending finish
        ";
    for line in table.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (kind, rest) = line.split_once(' ').unwrap();
        let (story, expected) = rest.split_once("=> ").unwrap();
        let kind = match kind {
            "esim" => SwapKind::Esim,
            "physical" => SwapKind::Physical,
            _ => panic!("no kind is named {kind}"),
        };
        check(kind, story, expected);
    }
}

#[test]
fn the_new_sim_becomes_free_or_is_disabled() {
    // In hours from the end; `-` means never.
    for (kind, story, expected) in [
        (SwapKind::Esim, "cancel finished", "0"),
        (SwapKind::Physical, "cancel finished", "0"),
        (
            SwapKind::Esim,
            "claimed ordered cancel profile-settled ended finished",
            "24",
        ),
        (SwapKind::Esim, "claimed ordered cancel on-phone ended finished", "-"),
        (
            SwapKind::Esim,
            "claimed ordered downloaded cancel profile-settled ended finished",
            "-",
        ),
        (SwapKind::Esim, "claimed taken claimed unseen finished", "-"),
        (SwapKind::Esim, "claimed ordered cancel +7d unsettled finished", "-"),
        (SwapKind::Physical, "claimed rejected finished", "0"),
        (SwapKind::Physical, "claimed ordered ended finished", "0"),
        (
            SwapKind::Physical,
            "claimed try-failed +10s claimed ordered ended finished",
            "0",
        ),
        (
            SwapKind::Physical,
            "claimed turned-away +24h unavailable claimed unseen finished",
            "0.2",
        ),
        (
            SwapKind::Physical,
            "claimed try-failed +24h unavailable claimed unseen finished",
            "0.2",
        ),
        (
            SwapKind::Physical,
            "claimed ordered missing +5m missing finished",
            "0.2",
        ),
        (SwapKind::Physical, "claimed ordered +7d unsettled finished", "-"),
    ] {
        let (a, at) = play(kind, story);
        assert_eq!(a.phase, Phase::Error, "{story}");
        let fate = a.fate_of_new_sim(false, false, &DEADLINES, at);
        let shown = |named| {
            let mut shown = Activation {
                codes_shown: true,
                ..a.clone()
            };
            shown.requested.new_sim = Some(shown.new_sim.clone()).filter(|_| named);
            shown
        };
        let fates = [
            a.fate_of_new_sim(true, false, &DEADLINES, at),
            shown(true).fate_of_new_sim(false, true, &DEADLINES, at),
            shown(false).fate_of_new_sim(false, false, &DEADLINES, at),
            shown(false).fate_of_new_sim(true, true, &DEADLINES, at),
        ];
        let expected_fates = match fate {
            SimFate::FreeFrom(then) => [
                SimFate::NamedFrom(then),
                SimFate::NamedFrom(then),
                SimFate::KeptFrom(then),
                SimFate::Disabled,
            ],
            _ => [SimFate::Disabled; 4],
        };
        assert_eq!(fates, expected_fates, "{story}");
        let found = match fate {
            SimFate::Disabled => "-".to_owned(),
            SimFate::NamedFrom(_) | SimFate::KeptFrom(_) => panic!("nobody has seen its codes"),
            SimFate::FreeFrom(then) => {
                let minutes = then.duration_since(at).as_mins();
                match minutes {
                    10 => "0.2".to_owned(),
                    minutes => (minutes / 60).to_string(),
                }
            }
        };
        assert_eq!(found, expected, "{kind:?}: {story}");
    }
}

#[test]
fn a_swap_that_waits_for_a_peer_for_over_an_hour_is_stuck() {
    for (kind, story, stuck) in [
        (SwapKind::Esim, "+1h", false),
        (SwapKind::Esim, "+3601s", true),
        (SwapKind::Esim, "claimed ordered +3601s", false),
        (SwapKind::Esim, "claimed ordered downloaded +3601s", false),
        (SwapKind::Esim, "claimed ordered +3601s installed +1h", false),
        (
            SwapKind::Esim,
            "claimed ordered +3601s installed claimed try-failed +3601s",
            true,
        ),
        (SwapKind::Physical, "claimed ordered +3601s", true),
        (SwapKind::Physical, "claimed ordered +1h claimed asked +10s", true),
        (SwapKind::Esim, "claimed ordered cancel +3601s", true),
        (SwapKind::Esim, "claimed ordered cancel +1h profile-settled +1h", false),
        (SwapKind::Physical, "claimed ordered completed finished +2h", false),
    ] {
        let (a, at) = play(kind, story);
        assert_eq!(a.is_stuck(at), stuck, "{kind:?}: {story}");
    }
}

#[test]
fn the_qr_code_goes_to_the_requested_address_or_else_to_the_contact() {
    let contact = EmailAddress::parse("anna@example.com").unwrap();
    let other = EmailAddress::parse("anna@example.net").unwrap();
    for (kind, given, expected) in [
        (SwapKind::Esim, None, Some(&contact)),
        (SwapKind::Esim, Some(&other), Some(&other)),
        (SwapKind::Physical, None, None),
    ] {
        let mut line = line();
        line.email = Some(contact.clone());
        let requested = Requested {
            email: given.cloned(),
            ..Requested::default()
        };
        let a = new_swap_of(&line, kind, requested);
        assert_eq!(a.mail_to(), expected, "{kind:?} {given:?}");
    }
}

#[test]
fn the_network_may_have_an_order_after_a_call_with_an_unknown_outcome() {
    for (kind, story, expected) in [
        (SwapKind::Esim, "claimed", false),
        (SwapKind::Esim, "claimed turned-away", false),
        (SwapKind::Esim, "claimed smdp-failed", false),
        (SwapKind::Esim, "claimed not-tried", false),
        (SwapKind::Esim, "claimed try-failed", true),
        (SwapKind::Esim, "claimed cut-off", true),
        (SwapKind::Physical, "claimed cut-off", true),
        (SwapKind::Esim, "claimed +1m claimed", true),
        (SwapKind::Esim, "claimed ordered", true),
        (SwapKind::Esim, "claimed placed", true),
    ] {
        assert_eq!(play(kind, story).0.may_be_ordered(), expected, "{kind:?}: {story}");
    }
}

#[test]
fn the_mails_of_a_swap_are_counted() {
    for (kind, story, expected) in [
        (SwapKind::Esim, "claimed", 0),
        (SwapKind::Esim, "claimed ordered", 1),
        (SwapKind::Esim, "claimed ordered resend resend", 3),
        (SwapKind::Physical, "claimed ordered", 0),
    ] {
        assert_eq!(play(kind, story).0.mails, expected, "{kind:?}: {story}");
    }
}

#[test]
fn the_start_of_the_network_is_in_the_timeline_once() {
    for (kind, story, expected) in [
        (SwapKind::Esim, "claimed ordered started missing started", 1),
        (SwapKind::Physical, "claimed ordered missing started", 0),
    ] {
        let (a, _) = play(kind, story);
        let starts = |line: &&TimelineEntry| line.what == "network: started";
        let count = a.timeline.iter().filter(starts).count();
        assert_eq!(count, expected, "{kind:?}: {story}");
    }
}

#[test]
fn attempts_that_failed_in_the_same_way_share_one_entry() {
    let (a, at) = play(
        SwapKind::Esim,
        "claimed try-failed +10s claimed smdp-failed +20s claimed try-failed +40s claimed cut-off +80s claimed +60s claimed",
    );
    let lines: Vec<_> = a
        .timeline
        .iter()
        .map(|line| format!("{} x{}", line.what, line.count))
        .collect();
    assert_eq!(
        lines,
        [
            "OWNER anna asked x1",
            "ordering x1",
            "network: 503 x2",
            "smdp: no answer x1",
            "cut off x2"
        ]
    );
    assert_eq!(a.timeline[4].last, at);
    assert_eq!(a.timeline[2].last.duration_since(a.timeline[2].at).as_secs(), 30);
}

#[test]
fn only_its_holder_renews_a_claim() {
    let (a, at) = play(SwapKind::Esim, "claimed");
    let held = a.claim.clone().unwrap();
    let claim = |token: &str, seconds| {
        Fact::Claimed(Claim {
            token: token.to_owned(),
            until: held.until + SignedDuration::from_secs(seconds),
        })
    };
    let later = at + SignedDuration::from_secs(30);
    let renewed = apply(&a, &claim(&held.token, 30), &DEADLINES, later).unwrap();
    assert_eq!(renewed.claim.unwrap().until, held.until + SignedDuration::from_secs(30));
    assert_eq!((renewed.version, renewed.modified_at), (a.version + 1, a.modified_at));
    for (token, seconds, expected) in [
        (held.token.as_str(), 0, Rejected::AlreadyApplied),
        (held.token.as_str(), -1, Rejected::AlreadyApplied),
        ("another", 30, Rejected::ClaimedByOther),
    ] {
        let found = apply(&a, &claim(token, seconds), &DEADLINES, later);
        assert_eq!(found, Err(expected), "{token} {seconds}");
    }
}

#[test]
fn clocks_may_differ_by_an_hour() {
    let (a, at) = play(SwapKind::Esim, "claimed");
    for (back, expected) in [(3_600_500, None), (3_600_501, Some("earlier"))] {
        let dated = requested_at() - SignedDuration::from_millis(back);
        let found = apply(&a, &Fact::Installed { dated }, &DEADLINES, at);
        assert_eq!(found.err().map(rejection_name), expected, "{dated}");
    }
}

#[test]
fn the_activation_has_the_networks_date_if_it_is_plausible() {
    let (a, at) = play(SwapKind::Physical, "claimed ordered +1h");
    for (since, expected) in [
        (requested_at(), requested_at()),
        (at, at),
        (at - SignedDuration::from_secs(5), at - SignedDuration::from_secs(5)),
        (requested_at() - SignedDuration::from_secs(1), at),
        (at + SignedDuration::from_secs(1), at),
    ] {
        let order_number = order_number();
        let fact = Fact::NetworkCompleted { since, order_number };
        let found = apply(&a, &fact, &DEADLINES, at).unwrap();
        assert_eq!(found.activated_at, Some(expected), "{since}");
    }
}

#[test]
fn a_wrong_code_is_written_once_and_the_end_is_never_dropped() {
    let (mut a, at) = play(SwapKind::Esim, "claimed ordered");
    let wrong = |dated| Fact::WrongCode { dated };
    let repeated = at + SignedDuration::from_micros(123_456);
    a = apply(&a, &wrong(repeated), &DEADLINES, at).unwrap();
    // The table stores milliseconds.
    a.timeline.last_mut().unwrap().at = Timestamp::from_millisecond(repeated.as_millisecond()).unwrap();
    assert_eq!(
        apply(&a, &wrong(repeated), &DEADLINES, at),
        Err(Rejected::AlreadyApplied)
    );
    for second in 1..100 {
        let dated = at + SignedDuration::from_secs(second);
        match apply(&a, &wrong(dated), &DEADLINES, at) {
            Ok(next) => a = next,
            Err(rejected) => assert_eq!((rejected, a.timeline.len()), (Rejected::AlreadyApplied, TIMELINE_CAP)),
        }
    }
    for name in ["missing", "cancel", "profile-settled", "ended", "finished"] {
        a = apply(&a, &fact(name, at), &DEADLINES, at).unwrap();
    }
    let ending: Vec<_> = a.timeline[TIMELINE_CAP..]
        .iter()
        .map(|line| line.what.as_str())
        .collect();
    assert_eq!(ending, ["ending: cancelled", "error"]);
}

#[test]
fn an_esim_that_is_not_heard_of_for_an_hour_is_unknown() {
    let minutes = SignedDuration::from_mins;
    let (ordered, at) = play(SwapKind::Esim, "claimed ordered");
    let since = Some(at);
    for (story, mailed, now, expected) in [
        ("claimed ordered", Some(at), minutes(59), EsimState::Released),
        ("claimed ordered", Some(at), minutes(60), EsimState::Unknown),
        // The customer has no mail yet.
        ("claimed ordered", None, minutes(60), EsimState::Released),
        ("claimed ordered wrong-code", Some(at), minutes(60), EsimState::Released),
        (
            "claimed ordered cancel profile-settled ended finished",
            Some(at),
            minutes(60),
            EsimState::Released,
        ),
    ] {
        let (a, _) = play(SwapKind::Esim, story);
        assert_eq!(a.esim_state(mailed, at + now), (expected, since), "{story} {now:?}");
    }
    for (name, expected) in [
        ("downloaded", EsimState::Downloaded),
        ("installed", EsimState::Installed),
        ("profile-failed", EsimState::Failed),
    ] {
        let reported = apply(&ordered, &fact(name, at), &DEADLINES, at).unwrap();
        let (state, since) = reported.esim_state(Some(at), at + minutes(60));
        assert_eq!((state, since.is_some()), (expected, true));
    }
}

#[test]
fn callers_see_four_statuses() {
    for (kind, story, expected) in [
        (SwapKind::Esim, "", "INIT"),
        (SwapKind::Esim, "claimed", "INIT"),
        (SwapKind::Esim, "claimed cancel", "INIT"),
        (SwapKind::Esim, "claimed ordered", "BUSY"),
        (SwapKind::Physical, "claimed ordered", "BUSY"),
        (SwapKind::Esim, "claimed ordered cancel", "BUSY"),
        (SwapKind::Physical, "claimed ordered completed", "BUSY"),
        (SwapKind::Physical, "claimed ordered completed finished", "DONE"),
        (SwapKind::Esim, "cancel finished", "ERROR"),
    ] {
        assert_eq!(play(kind, story).0.status().as_str(), expected, "{story}");
    }
}

/// Whether one fact may change the phase in this way.
fn may_follow(from: Phase, to: Phase) -> bool {
    from == to
        || match from {
            Phase::Accepted => matches!(to, Phase::Ordering | Phase::Ending),
            Phase::Ordering => matches!(to, Phase::Ordered | Phase::Started | Phase::Ending | Phase::Done),
            Phase::Ordered => matches!(to, Phase::Started | Phase::Ending | Phase::Done),
            Phase::Started => matches!(to, Phase::Ending | Phase::Done),
            Phase::Ending => matches!(to, Phase::Done | Phase::Error),
            Phase::Error => to == Phase::Done,
            Phase::Done => false,
        }
}

/// The pause that `ask-failed` requests.
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_hours(2);

/// Any facts in any order, each with the seconds since the one before.
fn history() -> impl Strategy<Value = (SwapKind, Vec<(&'static str, i64)>)> {
    let kind = prop_oneof![Just(SwapKind::Esim), Just(SwapKind::Physical)];
    let pause = prop::sample::select(vec![0, 0, 0, 1, 10, 60, 300, 3600, 86_400, 1_209_600]);
    let named = (prop::sample::select(FACTS.to_vec()), pause);
    (kind, prop::collection::vec(named, 0..40))
}

/// Applies all facts of a history. Rejected facts change nothing.
fn apply_history((kind, facts): &(SwapKind, Vec<(&'static str, i64)>)) -> (Activation, Timestamp) {
    let (mut a, mut at) = (new_swap(*kind), requested_at());
    for (name, seconds) in facts {
        at += SignedDuration::from_secs(*seconds);
        if let Ok(after) = apply(&a, &fact(name, at), &DEADLINES, at) {
            a = after;
        }
    }
    (a, at)
}

/// What goes wrong with one call to a peer.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// The caller crashes.
    Crash,
    /// There is no response.
    Silence,
    /// The response decides nothing.
    Nothing,
}

fn faults(at_most: usize) -> impl Strategy<Value = Vec<Fault>> {
    let fault = prop::sample::select(vec![Fault::Crash, Fault::Silence, Fault::Nothing]);
    prop::collection::vec(fault, 0..at_most)
}

/// Takes the steps of `next` until none is left. The peers respond once the faults are used up. With `customer`, the
/// profile is installed. The network completes the orders that it has started with `network`, and fails them without.
fn run(mut a: Activation, mut at: Timestamp, mut faults: Vec<Fault>, customer: bool, network: bool) -> Activation {
    // Two weeks of one poll an hour have about 700 steps.
    for _ in 0..1_000 {
        let due = next(&a, &DEADLINES, at);
        let facts: &[&str] = match due {
            Step::Nothing => return a,
            Step::WaitUntil(until) => {
                let long = !a.phase.is_open() && !a.is_contradicted();
                assert!(
                    until > at && (long || until <= at + LONGEST_PAUSE),
                    "the pause is too long: {a:?}"
                );
                at = until;
                continue;
            }
            Step::GiveUp(FailureCode::Unavailable) => &["unavailable"],
            Step::GiveUp(FailureCode::Expired) => &["expired"],
            Step::GiveUp(FailureCode::Unsettled) => &["unsettled"],
            Step::GiveUp(_) => &["internal"],
            // A stopped swap whose order was completed after all.
            Step::Finish if a.phase == Phase::Error && a.failure == Some(FailureCode::Stopped) => &["disputed"],
            Step::Finish => &["finished"],
            Step::Remind => &["reminded"],
            Step::Erase => &["erased"],
            Step::Anonymise => &["anonymised"],
            Step::Call(call) => {
                a = apply(&a, &fact("claimed", at), &DEADLINES, at).unwrap();
                at += SignedDuration::from_millis(200);
                match (call, faults.pop()) {
                    (_, Some(Fault::Crash)) => &[],
                    (_, Some(Fault::Silence)) => &["try-failed"],
                    (_, Some(Fault::Nothing)) => &["asked"],
                    (PeerCall::Order, None) => &["ordered"],
                    (PeerCall::Start, None) => &["started"],
                    (PeerCall::Poll, None) if a.phase == Phase::Started && network => &["completed"],
                    (PeerCall::Poll, None) if a.phase == Phase::Started => &["ended"],
                    (PeerCall::Poll, None) if customer => &["asked", "installed"],
                    (PeerCall::Cancel, None) if a.network_order == NetworkOrder::Started && network => {
                        &["profile-settled", "completed", "asked"]
                    }
                    (PeerCall::Cancel, None) => &["profile-settled", "ended", "asked"],
                    _ => &["asked"],
                }
            }
        };
        for name in facts {
            match apply(&a, &fact(name, at), &DEADLINES, at) {
                Ok(after) => a = after,
                Err(Rejected::AlreadyApplied | Rejected::Ended) => {}
                Err(Rejected::NotPossible) if *name == "profile-settled" => {
                    assert!(a.kind == SwapKind::Physical || a.profile_unknown_until > Some(at))
                }
                Err(rejected) => panic!("{name}: {rejected}: {a:?}"),
            }
        }
    }
    panic!("the swap never ends: {a:?}")
}

proptest! {
    #[test]
    fn invariants_hold_for_any_facts((kind, facts) in history()) {
        let (mut a, mut at) = (new_swap(kind), requested_at());
        for (name, seconds) in facts {
            at += SignedDuration::from_secs(seconds);
            let fact = fact(name, at);
            let Ok(b) = apply(&a, &fact, &DEADLINES, at) else { continue };
            let contradicted = a.phase == Phase::Error && (name == "completed" || name == "unclear" || a.is_contradicted());
            let erased = name == "erased" || name == "anonymised";
            let phone = a.phase == Phase::Done && ["enabled", "deleted"].contains(&name);
            prop_assert!(a.phase.is_open() || contradicted || erased || phone, "only a report of a peer changes an ended swap");
            prop_assert!(may_follow(a.phase, b.phase), "{:?} to {:?}", a.phase, b.phase);
            prop_assert_eq!(b.version, a.version + 1);
            let unseen = erased || name == "postponed";
            prop_assert_eq!(b.modified_at, if unseen { a.modified_at } else { at });
            prop_assert_eq!(b.due_at.is_some(), !b.is_anonymous());
            prop_assert_eq!(b.ended_at.is_some(), !b.phase.is_open());
            let entries = |swap: &Activation| swap.timeline.iter().map(|entry| entry.what.clone()).collect::<Vec<_>>();
            prop_assert!(b.is_anonymous() || entries(&b).starts_with(&entries(&a)));
            prop_assert!(b.timeline.len() <= TIMELINE_CAP + 5);
            match b.phase {
                Phase::Done => prop_assert!(b.network_order == NetworkOrder::Completed && b.activated_at.is_some() && b.failure.is_none()),
                Phase::Error => prop_assert!(b.failure.is_some() && (b.is_settled() || b.network_order == NetworkOrder::Completed)),
                Phase::Ending => prop_assert!(b.failure.is_some()),
                _ => prop_assert!(b.failure.is_none()),
            }
            if b.phase.is_open() {
                match next(&b, &DEADLINES, at) {
                    Step::WaitUntil(until) => prop_assert!(until > at && until <= at + LONGEST_PAUSE),
                    step => prop_assert_ne!(step, Step::Nothing),
                }
            } else if !b.is_contradicted() {
                let kept = matches!(next(&b, &DEADLINES, at), Step::WaitUntil(_) | Step::Erase | Step::Anonymise);
                prop_assert_eq!(kept, !b.is_anonymous());
                prop_assert_eq!((&b.claim, b.wake_at), (&None, None));
            }
            if FACTS[PEER_FACTS].contains(&name) {
                for again in [at, at + SignedDuration::from_secs(1)] {
                    prop_assert!(apply(&b, &fact, &DEADLINES, again).is_err(), "{} reported twice", name);
                }
            }
            a = b;
        }
    }

    #[test]
    fn every_swap_ends_once_faults_stop(history in history(), faults in faults(12), customer: bool, network: bool) {
        let (a, at) = apply_history(&history);
        let ended = run(a, at, faults, customer, network);
        prop_assert!(!ended.phase.is_open() && ended.is_anonymous());
    }

    #[test]
    fn every_swap_is_done_if_faults_stop_in_time(history in history(), faults in faults(16)) {
        let ended = run(new_swap(history.0), requested_at(), faults, true, true);
        prop_assert_eq!(ended.phase, Phase::Done);
    }
}

#[test]
fn an_event_of_an_order_that_is_not_the_swaps_only_causes_a_poll() {
    let unclear = Fact::NetworkUnclear {
        order_number: "N-7".to_owned(),
    };
    for (story, named, reported, expected) in [
        ("claimed ordered", "N-1", "started", fact("started", requested_at())),
        ("claimed ordered", "N-7", "started", unclear.clone()),
        ("claimed", "N-7", "completed", unclear.clone()),
        ("cancel finished", "N-7", "completed", unclear),
        ("cancel finished", "N-7", "started", fact("started", requested_at())),
    ] {
        let (swap, _) = play(SwapKind::Esim, story);
        let reported_fact = fact(reported, requested_at());
        let found = fact_of_event(&swap, &reported_fact, named);
        assert_eq!(*found, expected, "{story}: {reported} of {named}");
    }
}

#[test]
fn the_confirmation_code_of_a_card_swap_is_erased_in_time_too() {
    let requested = Requested {
        has_code: true,
        ..Requested::default()
    };
    let at = requested_at();
    let mut swap = new_swap_of(&line(), SwapKind::Physical, requested);
    for name in ["claimed", "ordered", "completed", "finished"] {
        swap = apply(&swap, &fact(name, at), &DEADLINES, at).unwrap();
    }
    let (secrets, records) = (at + DEADLINES.code_kept, at + DEADLINES.records_kept);
    assert_eq!(swap.due_at, Some(secrets));
    let erased = apply(&swap, &Fact::Erased, &DEADLINES, secrets).unwrap();
    assert_eq!(erased.due_at, Some(records));
}

/// The profile, its failure and the number of reports in the timeline after facts of the SM-DP+ that are dated in
/// seconds from a renewal.
#[test]
fn reports_of_the_code_before_a_renewal_change_nothing() {
    let (renewed, at) = play(
        SwapKind::Esim,
        "claimed ordered +2h renew claimed code-dead claimed renewed +10s",
    );
    let dated = |seconds| at - SignedDuration::from_secs(10) + SignedDuration::from_secs(seconds);
    let failed = |dated| Fact::ProfileFailed {
        dated,
        failure: FailureCode::CodesUsedUp,
        codes: "8.2.7/6.4".to_owned(),
    };
    use ProfileState::{Downloaded, Installed, Released};
    for (fact, profile, failure) in [
        (Fact::Downloaded { dated: dated(-1) }, Released, None),
        (Fact::Downloaded { dated: dated(0) }, Released, None),
        (Fact::Downloaded { dated: dated(1) }, Downloaded, None),
        (failed(dated(-1)), Released, None),
        (failed(dated(0)), Released, None),
        (failed(dated(1)), Released, Some(FailureCode::CodesUsedUp)),
        (Fact::Installed { dated: dated(-60) }, Installed, None),
    ] {
        let after = apply(&renewed, &fact, &DEADLINES, at).unwrap();
        assert_eq!(
            (after.profile, after.profile_failure),
            (Some(profile), failure),
            "{fact:?}"
        );
        assert_eq!(after.timeline.len(), renewed.timeline.len() + 1, "{fact:?}");
        assert_eq!(after.phase, Phase::Ordered);
    }
}

#[test]
fn a_request_about_the_profile_is_settled_with_the_swap() {
    for (story, expected) in [
        ("claimed ordered renew", "pending"),
        ("claimed ordered renew claimed code-dead", "pending"),
        ("claimed ordered renew claimed code-dead claimed renewed", "done"),
        ("claimed ordered renew claimed code-dead claimed not-renewed", "refused"),
        ("claimed ordered renew claimed found-on-phone", "refused"),
        ("claimed ordered renew installed", "refused"),
        ("claimed ordered renew cancel", "refused"),
        ("claimed ordered renew completed finished", "refused"),
        ("claimed ordered report", "done"),
        ("claimed ordered report-to-check", "pending"),
        ("claimed ordered report-to-check installed", "done"),
        ("claimed ordered report-to-check claimed report-checked", "refused"),
        ("claimed ordered report-to-check cancel", "refused"),
        ("claimed ordered report-to-check completed finished", "done"),
    ] {
        let (a, _) = play(SwapKind::Esim, story);
        let state = a.request.unwrap().state;
        assert_eq!(state.shown(), expected, "{story}");
        let renews = story.contains("renew") && expected == "pending";
        assert_eq!((a.is_renewing(), a.renew_to.is_some()), (renews, renews), "{story}");
    }
    // A renewal whose old code is dead leaves a profile that nobody can install, until the next renewal.
    let (a, _) = play(
        SwapKind::Esim,
        "claimed ordered renew claimed code-dead claimed not-renewed",
    );
    assert_eq!(a.profile_failure, Some(FailureCode::ProfileRefused));
    let (a, _) = play(SwapKind::Esim, "claimed ordered renew claimed not-renewed");
    assert_eq!(a.profile_failure, None);
}

#[test]
fn a_lost_cancellation_is_remembered_until_one_is_certain() {
    for (story, unknown) in [
        ("claimed ordered renew claimed", false),
        ("claimed ordered renew claimed smdp-failed", true),
        ("claimed ordered renew claimed turned-away", false),
        ("claimed ordered renew claimed try-failed", false),
        ("claimed ordered renew claimed +61s claimed", true),
        ("claimed ordered renew claimed cut-off", true),
        (
            "claimed ordered renew claimed smdp-failed +10s claimed not-renewed renew",
            true,
        ),
        (
            "claimed ordered renew claimed smdp-failed +10s claimed code-dead",
            false,
        ),
        ("claimed ordered renew claimed code-dead claimed smdp-failed", false),
        ("claimed ordered renew claimed code-dead claimed +61s claimed", false),
    ] {
        let (a, _) = play(SwapKind::Esim, story);
        assert_eq!(a.renewal_unknown, unknown, "{story}");
    }
}

#[test]
fn ten_renewals_are_the_limit() {
    let (mut a, mut at) = play(SwapKind::Esim, "claimed ordered");
    for number in 1..=10 {
        a = apply(&a, &fact("renew", at), &DEADLINES, at).unwrap();
        a = apply(&a, &fact("not-renewed", at), &DEADLINES, at).unwrap();
        assert_eq!(a.renewals.len(), number);
        if number % 3 == 0 {
            let refused = apply(&a, &fact("renew", at), &DEADLINES, at);
            let first = a.renewals[number - 3];
            let from = first + SignedDuration::from_hours(24);
            assert_eq!(refused, Err(Rejected::TooOften(Some(from))));
        }
        at += SignedDuration::from_hours(8);
    }
    let refused = apply(&a, &fact("renew", at), &DEADLINES, at);
    assert_eq!(refused, Err(Rejected::TooOften(None)));
}

#[test]
fn what_a_phone_does_after_the_end_is_recorded_while_the_secrets_are_stored() {
    let done = "claimed ordered installed claimed started completed finished";
    let (a, at) = play(
        SwapKind::Esim,
        &format!("{done} enabled enabled!known deleted enabled!known"),
    );
    assert_eq!((a.phase, a.phone_state), (Phase::Done, Some(PhoneState::Deleted)));
    let late = at + DEADLINES.code_kept;
    let (a, _) = play(SwapKind::Esim, done);
    assert_eq!(
        apply(&a, &fact("enabled", late), &DEADLINES, late),
        Err(Rejected::Ended)
    );
}

#[test]
fn ten_reports_are_the_limit() {
    let (mut a, at) = play(SwapKind::Esim, "claimed ordered");
    for _ in 0..10 {
        a = apply(&a, &fact("report-to-check", at), &DEADLINES, at).unwrap();
        a = apply(&a, &fact("report-denied", at), &DEADLINES, at).unwrap();
    }
    let refused = apply(&a, &fact("report-to-check", at), &DEADLINES, at);
    assert_eq!(refused, Err(Rejected::TooOften(None)));
}
