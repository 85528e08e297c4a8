//! One swap, cut at every call of every function in turn: by a kill, or by everybody else who may work on it then.

use std::collections::{BTreeMap, BTreeSet};

use crate::faults::FaultPlan;
use crate::invariants::Fate;
use crate::scheduler::{Cut, Plan, Rival, Run, run};
use crate::stock::{FREE, LINES};
use crate::workload::{Act, Bar, Request};

/// How a swap that nobody disturbs ends.
struct Story {
    request: Request,
    /// Asked at 80 s, and again at 90.
    then: Option<Request>,
    acts: Vec<(u64, Act)>,
    end: &'static str,
}

fn stories() -> [Story; 6] {
    let installs = vec![(60_000, Act::Install)];
    [
        Story {
            request: Request::esim(&LINES[0], false, 0),
            then: None,
            acts: installs.clone(),
            end: "esim done",
        },
        Story {
            request: Request::change(&LINES[0], "eSim"),
            then: Some(Request::query(&LINES[0])),
            acts: installs,
            end: "esim done",
        },
        Story {
            request: Request::card(&LINES[0], FREE[3].0),
            then: None,
            acts: Vec::new(),
            end: "physical done",
        },
        Story {
            request: Request::esim(&LINES[0], true, 0),
            then: Some(Request::manage(&LINES[0], "ResendEsim")),
            acts: vec![(30_000, Act::Fetch)],
            end: "esim expired",
        },
        Story {
            request: Request::esim(&LINES[0], true, 0),
            then: Some(Request::manage(&LINES[0], "CancelActivation")),
            acts: Vec::new(),
            end: "esim cancelled",
        },
        Story {
            request: Request::change(&LINES[0], "eSim"),
            then: Some(Request::bar(&LINES[0], Bar::Locked)),
            acts: Vec::new(),
            end: "esim stopped",
        },
    ]
}

impl Story {
    /// The caller asks three times, under one key: each call may die.
    fn plan(&self, at: Option<(u64, Cut)>) -> Plan {
        Plan {
            seed: 1,
            weather: FaultPlan::CALM,
            requests: [(self.request.clone().with_key("one"), vec![1, 10_000, 100_000])]
                .into_iter()
                .chain(self.then.clone().map(|then| (then, vec![80_000, 90_000])))
                .collect(),
            acts: Some(self.acts.clone()),
            mistake: None,
            at,
            told: false,
        }
    }
}

/// All stories, cut at every exchange by each of these. Gives the plans.
fn cuts(of: impl Fn(&Request) -> Vec<Cut>) -> Vec<(Plan, &'static str)> {
    crate::logs::keep();
    let mut plans = Vec::new();
    for story in stories() {
        let whole = run(story.plan(None));
        assert_eq!(whole.violations, [""; 0], "undisturbed");
        assert_eq!(whole.swaps.keys().collect::<Vec<_>>(), [story.end]);
        for exchange in 0..whole.exchanges {
            for cut in of(&story.request) {
                plans.push((story.plan(Some((exchange, cut))), story.end));
            }
        }
    }
    plans
}

/// The functions that the swaps of the stories need between them: all that there are, and an operator's import.
const FUNCTIONS: [&str; 10] = [
    "change-sim",
    "deliver-esim",
    "fulfil-swap",
    "import",
    "mail-events",
    "manage-swap",
    "network-events",
    "query-activation",
    "submit-swap",
    "sweep-swaps",
];

/// Runs them on all cores, or every `stride`th of them unless all are wanted; then each function was cut, and each of
/// `others` came in while it waited.
fn check(
    plans: &[(Plan, &'static str)],
    stride: usize,
    others: &[&'static str],
    fits: impl Fn(&Run, &str) -> bool + Sync,
) {
    let stride = if crate::whole() { 1 } else { stride };
    let chosen: Vec<_> = plans.iter().step_by(stride).collect();
    let totals = crate::run_all(0..chosen.len() as u64, |n| chosen[n as usize].0.clone());
    if let Some((n, what)) = totals.failed.iter().min() {
        let plan = &chosen[*n as usize].0;
        let told = crate::tell(plan.clone());
        println!("{}", told.trace.join("\n"));
        panic!("{:?}: {what} ({} such)", plan.at, totals.failed.len());
    }
    let mut odd = totals.runs.iter().filter(|(n, run)| !fits(run, chosen[*n as usize].1));
    if let Some((n, run)) = odd.next() {
        let plan = &chosen[*n as usize].0;
        println!("{}", crate::tell(plan.clone()).trace.join("\n"));
        panic!("{:?}: it ended as {:?}, with mails {:?}", plan.at, run.swaps, run.mails);
    }
    let mut cut: BTreeMap<&str, usize> = BTreeMap::new();
    let mut pairs = BTreeSet::new();
    for (_, run) in &totals.runs {
        let function = run.cut.expect("the exchange comes in every run");
        *cut.entry(function).or_default() += 1;
        pairs.extend(run.met.iter().map(|other| (function, *other)));
    }
    println!("{} of {} cuts: {cut:?}", chosen.len(), plans.len());
    if !others.is_empty() {
        println!("{} pairs of functions met", pairs.len());
    }
    if crate::whole() {
        assert_eq!(cut.into_keys().collect::<Vec<_>>(), FUNCTIONS);
        for function in FUNCTIONS {
            for other in others {
                assert!(
                    pairs.contains(&(function, *other)),
                    "{other} never came in while {function} waited"
                );
            }
        }
    }
}

/// A function waits for nothing but its calls, and for time to pass between two of them: whoever is dropped there has
/// done what he had done before the later one.
#[test]
fn a_process_may_die_at_every_await() {
    let plans = cuts(|_| vec![Cut::KilledBefore, Cut::KilledAfter]);
    check(&plans, 101, &[], |run, end| {
        run.swaps.len() == 1
            && run.swaps.get(end) == Some(&1)
            // A mail that was cut off is not needed when another one was asked, or the swap cancelled.
            && run.mails.iter().all(|(_, sent)| *sent <= 2)
            && (end != "esim done" || matches!(run.mails[..], [(_, 1 | 2)]))
    });
}

#[test]
fn everybody_may_come_in_at_every_await() {
    let plans = cuts(|_| {
        [Rival::Woken, Rival::Callbacks, Rival::Reports, Rival::Sweep]
            .into_iter()
            .flat_map(|rival| [Cut::OvertakenBefore(rival.clone()), Cut::OvertakenAfter(rival)])
            .collect()
    });
    let others = [
        "deliver-esim",
        "fulfil-swap",
        "mail-events",
        "network-events",
        "sweep-swaps",
    ];
    check(&plans, 401, &others, |run, end| {
        run.swaps.len() == 1 && run.swaps.get(end) == Some(&1) && run.mails.iter().all(|(_, sent)| *sent == 1)
    });
}

#[test]
fn callers_may_come_in_at_every_await() {
    let plans = cuts(|request| {
        let line = &LINES[0];
        [
            request.clone().with_key("one"),
            request.clone(),
            Request::esim(line, false, 0),
            Request::change(line, "eSim"),
            Request::card(line, FREE[4].0),
            Request::query(line),
            Request::manage(line, "CancelActivation"),
            Request::manage(line, "ResendEsim"),
            Request::bar(line, Bar::Locked),
            Request::bar(line, Bar::Blocked),
            Request::bar(line, Bar::Porting),
            Request::of_thief(line, 0),
            Request::of_thief(line, 1),
        ]
        .into_iter()
        .flat_map(|caller| {
            let rival = Rival::Caller(Box::new(caller));
            [Cut::OvertakenBefore(rival.clone()), Cut::OvertakenAfter(rival)]
        })
        .collect()
    });
    let others = ["change-sim", "import", "manage-swap", "query-activation", "submit-swap"];
    check(&plans, 901, &others, |run, _| {
        // A cancel may come before the mail is sent.
        let fits = |mail: &(Fate, usize)| matches!(mail, (_, 1) | (Fate::GivenUp, 0));
        run.mails.iter().all(fits)
    });
}
