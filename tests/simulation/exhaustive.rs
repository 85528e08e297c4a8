//! One swap of each kind, interrupted at every call of every function in turn: by a kill, or by something else that
//! works on the same swap.

use std::collections::{BTreeMap, BTreeSet};

use crate::faults::FaultPlan;
use crate::invariants::Fate;
use crate::sandbox::Policy;
use crate::scheduler::{Interruption, Plan, Rival, Run, run};
use crate::stock::{FREE, LINES};
use crate::workload::{Block, PhoneAct, Request, confirmation_code};

/// A swap, and how it ends if nothing interrupts it.
struct Scenario {
    request: Request,
    follow_up: Option<Request>,
    /// When the follow-up is sent, in milliseconds since the run began.
    follow_up_at: [u64; 2],
    phone_acts: Vec<(u64, PhoneAct)>,
    end: &'static str,
}

fn scenarios() -> [Scenario; 8] {
    const SOON: [u64; 2] = [80_000, 90_000];
    let installs = vec![(60_000, PhoneAct::Install)];
    [
        Scenario {
            request: Request::esim(&LINES[0], false, 0),
            follow_up: None,
            follow_up_at: SOON,
            phone_acts: installs.clone(),
            end: "esim done",
        },
        Scenario {
            request: Request::change(&LINES[0], "eSim"),
            follow_up: Some(Request::query(&LINES[0])),
            follow_up_at: SOON,
            phone_acts: installs,
            end: "esim done",
        },
        Scenario {
            request: Request::card(&LINES[0], FREE[3].0),
            follow_up: None,
            follow_up_at: SOON,
            phone_acts: Vec::new(),
            end: "physical done",
        },
        Scenario {
            request: Request::esim(&LINES[0], true, 0),
            follow_up: Some(Request::manage(&LINES[0], "ResendEsim")),
            follow_up_at: SOON,
            phone_acts: vec![(30_000, PhoneAct::Fetch)],
            end: "esim expired",
        },
        Scenario {
            request: Request::esim(&LINES[0], true, 0),
            follow_up: Some(Request::manage(&LINES[0], "CancelActivation")),
            follow_up_at: SOON,
            phone_acts: Vec::new(),
            end: "esim cancelled",
        },
        // The code of the first mail is dead when the phone uses the second one, even if the renewal had to wait for an
        // abandoned call.
        Scenario {
            request: Request::esim(&LINES[0], false, 0),
            follow_up: Some(Request::renew(
                &LINES[0],
                Some("mail1@customer.example".to_owned()),
                Some(confirmation_code(1)),
            )),
            follow_up_at: SOON,
            phone_acts: vec![(1_500_000, PhoneAct::Install)],
            end: "esim done",
        },
        Scenario {
            request: Request::esim(&LINES[0], false, 0),
            follow_up: Some(Request::report(&LINES[0], "agent").by_desk()),
            // Even a mail that has to be sent again is out by then.
            follow_up_at: [1_500_000, 1_510_000],
            phone_acts: Vec::new(),
            end: "esim done",
        },
        Scenario {
            request: Request::change(&LINES[0], "eSim"),
            follow_up: Some(Request::block(&LINES[0], Block::Locked)),
            follow_up_at: SOON,
            phone_acts: Vec::new(),
            end: "esim stopped",
        },
    ]
}

impl Scenario {
    /// The caller sends the request three times with one idempotency key, because each attempt may be interrupted.
    fn plan(&self, interruption: Option<(u64, Interruption)>) -> Plan {
        Plan {
            seed: 1,
            faults: FaultPlan::CALM,
            requests: [(self.request.clone().with_key("one"), vec![1, 10_000, 100_000])]
                .into_iter()
                .chain(
                    self.follow_up
                        .clone()
                        .map(|request| (request, self.follow_up_at.to_vec())),
                )
                .collect(),
            policy: Policy::DEFAULT,
            phone_acts: Some(self.phone_acts.clone()),
            mutant: None,
            interruption,
            traced: false,
        }
    }
}

/// The plans that interrupt every exchange of every scenario in each of these ways, with the end that each should have.
fn interruptions(kinds: impl Fn(&Request) -> Vec<Interruption>) -> Vec<(Plan, &'static str)> {
    crate::logs::capture();
    let mut plans = Vec::new();
    for scenario in scenarios() {
        let undisturbed = run(scenario.plan(None));
        assert_eq!(undisturbed.violations, [""; 0], "violations without an interruption");
        assert_eq!(undisturbed.swaps.keys().collect::<Vec<_>>(), [scenario.end]);
        for exchange in 0..undisturbed.exchanges {
            for interruption in kinds(&scenario.request) {
                plans.push((scenario.plan(Some((exchange, interruption))), scenario.end));
            }
        }
    }
    plans
}

/// The functions that the scenarios invoke between them: all that exist, and an operator's import.
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

/// Runs every `stride`th plan on all cores. With `WHOLE`, also asserts that each function was interrupted, and that each
/// of `others` ran while it waited.
fn run_interrupted(
    plans: &[(Plan, &'static str)],
    stride: usize,
    others: &[&'static str],
    fits: impl Fn(&Run, &str) -> bool + Sync,
) {
    let chosen: Vec<_> = plans.iter().step_by(stride).collect();
    let totals = crate::run_all(0..chosen.len() as u64, |n| chosen[n as usize].0.clone());
    if let Some((n, violation)) = totals.failed.iter().min() {
        let plan = &chosen[*n as usize].0;
        let traced = crate::run_traced(plan.clone());
        println!("{}", traced.trace.join("\n"));
        panic!(
            "{:?}: {violation} ({} failures)",
            plan.interruption,
            totals.failed.len()
        );
    }
    let mut odd = totals.runs.iter().filter(|(n, run)| !fits(run, chosen[*n as usize].1));
    if let Some((n, run)) = odd.next() {
        let plan = &chosen[*n as usize].0;
        println!("{}", crate::run_traced(plan.clone()).trace.join("\n"));
        panic!(
            "{:?}: ended as {:?}, with mails {:?}",
            plan.interruption, run.swaps, run.mails
        );
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut pairs = BTreeSet::new();
    for (_, run) in &totals.runs {
        let function = run.interrupted.expect("the exchange comes in every run");
        *counts.entry(function).or_default() += 1;
        pairs.extend(run.concurrent.iter().map(|other| (function, *other)));
    }
    println!("{} of {} interruptions: {counts:?}", chosen.len(), plans.len());
    if !others.is_empty() {
        println!("{} pairs of functions ran concurrently", pairs.len());
    }
    if crate::whole().is_some() {
        assert_eq!(counts.into_keys().collect::<Vec<_>>(), FUNCTIONS);
        for function in FUNCTIONS {
            for other in others {
                assert!(
                    pairs.contains(&(function, *other)),
                    "{other} never ran while {function} waited"
                );
            }
        }
    }
}

/// A function awaits nothing but its calls and the pauses between them. A kill during a pause leaves the same state as
/// a kill before the next call.
#[test]
fn a_process_may_die_at_every_await() {
    let plans = interruptions(|_| vec![Interruption::KillBefore, Interruption::KillAfter]);
    run_interrupted(&plans, crate::whole().map_or(101, |_| 1), &[], |run, end| {
        run.swaps.len() == 1
            && run.swaps.get(end) == Some(&1)
            // An interrupted mail need not be sent if another mail replaces it, or if the swap is cancelled.
            && run.mails.iter().all(|(_, sent)| *sent <= 2)
            && (end != "esim done" || matches!(run.mails[..], [(_, 1 | 2)] | [_, (_, 1 | 2)]))
    });
}

#[test]
fn everybody_may_come_in_at_every_await() {
    let plans = interruptions(|_| {
        [Rival::Wake, Rival::Callbacks, Rival::SesEvents, Rival::Sweep]
            .into_iter()
            .flat_map(|rival| {
                [
                    Interruption::RivalBefore(rival.clone()),
                    Interruption::RivalAfter(rival),
                ]
            })
            .collect()
    });
    let others = [
        "deliver-esim",
        "fulfil-swap",
        "mail-events",
        "network-events",
        "sweep-swaps",
    ];
    run_interrupted(&plans, crate::whole().map_or(401, |_| 1), &others, |run, end| {
        run.swaps.len() == 1 && run.swaps.get(end) == Some(&1) && run.mails.iter().all(|(_, sent)| *sent == 1)
    });
}

#[test]
fn callers_may_come_in_at_every_await() {
    let plans = interruptions(|request| {
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
            Request::renew(line, None, None),
            Request::report(line, "customer"),
            Request::report(line, "agent").by_desk(),
            Request::block(line, Block::Locked),
            Request::block(line, Block::Blocked),
            Request::block(line, Block::Porting),
            Request::from_attacker(line, 0),
            Request::from_attacker(line, 1),
        ]
        .into_iter()
        .flat_map(|caller| {
            let rival = Rival::Caller(Box::new(caller));
            [
                Interruption::RivalBefore(rival.clone()),
                Interruption::RivalAfter(rival),
            ]
        })
        .collect()
    });
    let others = ["change-sim", "import", "manage-swap", "query-activation", "submit-swap"];
    run_interrupted(&plans, crate::whole().unwrap_or(901), &others, |run, _| {
        // The swap may be cancelled before the mail is sent.
        let fits = |mail: &(Fate, usize)| matches!(mail, (_, 1) | (Fate::GivenUp, 0));
        run.mails.iter().all(fits)
    });
}
