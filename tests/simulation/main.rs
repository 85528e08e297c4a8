//! The whole service in one process under a seeded scheduler: real functions, store, SDK and clients; an embedded table,
//! simulated peers, a virtual clock, and faults on the wire.

#![allow(
    clippy::print_stdout,
    reason = "what was run, and the trace of what failed, are for a person"
)]

mod exhaustive;
mod fakes;
mod faults;
mod invariants;
mod logs;
mod mutants;
mod quirks;
mod sandbox;
mod scheduler;
mod stock;
mod transport;
mod workload;

use std::collections::BTreeMap;
use std::env;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use fastrand::Rng;

use crate::faults::FaultPlan;
use crate::invariants::Fate;
use crate::mutants::Mutant;
use crate::scheduler::{Cut, Plan, Rival, Run, run};
use crate::stock::{FREE, LINES};
use crate::workload::{Bar, Request};

/// A fifth of a world's time is taking memory and giving it back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A world that is all chance.
fn any(seed: u64) -> Plan {
    let mut rng = Rng::with_seed(!seed);
    let weather = FaultPlan::any(&mut rng);
    let asked = rng.usize(1..=3);
    let mut requests: Vec<_> = (0..asked)
        .map(|n| {
            // Now and then when a SIM of an earlier swap has rested.
            let day = u64::from(rng.u8(..6) == 0) * 27 * 3_600_000;
            let first = day + rng.u64(1..1_200_000);
            let mut times = vec![first];
            while rng.u8(..3) == 0 {
                let within = [50, 20_000, 4_000_000, 30 * 3_600_000][rng.usize(..4)];
                times.push(first + rng.u64(..within));
            }
            (Request::any(&mut rng, n), times)
        })
        .collect();
    // In time the line may be swapped again.
    for (request, times) in requests.clone() {
        let line = request.bar.and_then(|(id, _)| LINES.iter().find(|line| line.id == id));
        if let Some(line) = line {
            let last = times.iter().max().copied().unwrap_or(0);
            let within = [60_000, 30 * 3_600_000][rng.usize(..2)];
            let lifted = last + rng.u64(1..within);
            requests.push((Request::bar(line, Bar::Lifted), vec![lifted]));
        }
    }
    Plan {
        seed,
        weather,
        requests,
        acts: None,
        mistake: None,
        at: None,
        told: false,
    }
}

/// A world that is as rough as can be: three callers want what only one can have, and nothing goes smoothly.
fn rough(seed: u64) -> Plan {
    let mut rng = Rng::with_seed(!seed);
    let line = &LINES[0];
    let first = rng.u64(1..60_000);
    let soon = |rng: &mut Rng| first + rng.u64(..200);
    let requests = vec![
        (
            Request::esim(line, rng.bool(), 0).with_key("one"),
            vec![first, soon(&mut rng), first + 30_000_000],
        ),
        (Request::change(line, "eSim"), vec![soon(&mut rng)]),
        (Request::esim(&LINES[1], rng.bool(), 2), vec![soon(&mut rng)]),
        (Request::card(&LINES[2], FREE[5].0), vec![soon(&mut rng)]),
    ];
    Plan {
        weather: FaultPlan::ROUGH,
        requests,
        ..any(seed)
    }
}

/// A rough world in which operators bar lines, and a thief has a token of the customer's.
fn robbed(seed: u64) -> Plan {
    let mut rng = Rng::with_seed(seed ^ 0x7e1e);
    let mut plan = rough(seed);
    for line in &LINES[..2] {
        let at = [200, 120_000, 3_600_000][rng.usize(..3)];
        let bar = Bar::ALL[rng.usize(..3)];
        plan.requests.extend([
            (Request::bar(line, bar), vec![1 + rng.u64(..at)]),
            (Request::bar(line, Bar::Other), vec![1 + rng.u64(..at)]),
            (Request::bar(line, Bar::Lifted), vec![20 * 3_600_000]),
            (Request::card(line, FREE[4].0), vec![rng.u64(1..10_000_000)]),
            (Request::query(line), vec![rng.u64(60_000..600_000)]),
        ]);
        for what in 0..4 {
            let times = (0..3).map(|_| rng.u64(60_000..8_000_000)).collect();
            plan.requests.push((Request::of_thief(line, what), times));
        }
        // Whoever else comes after a swap that failed.
        for n in [7, 8] {
            let esim = Request::esim(line, false, n);
            plan.requests.push((esim, vec![rng.u64(30..40) * 3_600_000]));
        }
    }
    plan
}

/// A line is locked at one call of the submit of its swap, the `seed`th.
fn locked_meanwhile(seed: u64) -> Plan {
    let line = &LINES[0];
    let lock = Rival::Caller(Box::new(Request::bar(line, Bar::Locked)));
    Plan {
        weather: FaultPlan::CALM,
        requests: vec![(Request::esim(line, false, 0), vec![1])],
        acts: Some(Vec::new()),
        at: Some((seed, Cut::OvertakenBefore(lock))),
        ..any(seed)
    }
}

/// The same with other faults; callers change their minds, and one line is swapped again half a day later.
fn rough_with(seed: u64, weather: FaultPlan) -> Plan {
    const HOURS: u64 = 3_600_000;
    let mut rng = Rng::with_seed(seed);
    let mut plan = rough(seed);
    let cancel = Request::manage(&LINES[rng.usize(..3)], "CancelActivation");
    let within = [200_000, 2 * HOURS][rng.usize(..2)];
    plan.requests.extend([
        (cancel, vec![rng.u64(60_000..within)]),
        (Request::card(&LINES[1], FREE[4].0), vec![12 * HOURS]),
        (Request::esim(&LINES[0], rng.bool(), 6), vec![13 * HOURS]),
    ]);
    Plan { weather, ..plan }
}

fn setting(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// Whether all is wanted that there is, and not a few of each.
fn whole() -> bool {
    setting("WHOLE").is_some()
}

#[derive(Default)]
struct Totals {
    exchanges: u64,
    swaps: BTreeMap<String, usize>,
    /// By what is known of them, and how often SES took them.
    mails: BTreeMap<(Fate, usize), usize>,
    failed: Vec<(u64, String)>,
    runs: Vec<(u64, Run)>,
}

impl Totals {
    fn add(&mut self, seed: u64, run: Run) {
        self.exchanges += run.exchanges;
        for (end, count) in &run.swaps {
            *self.swaps.entry(end.clone()).or_default() += count;
        }
        for mails in &run.mails {
            *self.mails.entry(*mails).or_default() += 1;
        }
        if let Some(first) = run.violations.first() {
            self.failed.push((seed, first.clone()));
        }
        self.runs.push((seed, run));
    }
}

/// Runs seeds on all cores.
fn run_all(seeds: std::ops::Range<u64>, plan: impl Fn(u64) -> Plan + Sync) -> Totals {
    let totals = Mutex::new(Totals::default());
    let next = AtomicU64::new(seeds.start);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                logs::keep();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        break;
                    }
                    let run = run(plan(seed));
                    totals.lock().expect("no thread panics with it").add(seed, run);
                }
            });
        }
    });
    totals.into_inner().expect("no thread panics with it")
}

fn tell(plan: Plan) -> Run {
    logs::keep();
    run(Plan { told: true, ..plan })
}

#[test]
fn whatever_happens_nothing_is_lost_and_nothing_happens_twice() {
    if let Some(seed) = setting("SEED") {
        let run = tell(any(seed));
        println!("{}", run.trace.join("\n"));
        println!("{:?} {:?}", run.swaps, run.mails);
        assert!(run.violations.is_empty(), "seed {seed}: {:#?}", run.violations);
        return;
    }
    let from = setting("FROM").unwrap_or(0);
    let seeds = setting("SEEDS").unwrap_or(12);
    let began = std::time::Instant::now();
    let mut totals = run_all(from..from + seeds, any);
    println!(
        "{seeds} seeds, {} calls, {:?}; swaps: {:?}",
        totals.exchanges,
        began.elapsed(),
        totals.swaps,
    );
    for ((fate, sent), mails) in &totals.mails {
        println!("{mails} mails, {fate:?}: sent {sent} times");
    }
    totals.failed.sort();
    for (seed, what) in &totals.failed {
        println!("seed {seed}: {what}");
    }
    if let Some((seed, _)) = totals.failed.first() {
        let run = tell(any(*seed));
        println!("{}", run.trace.join("\n"));
        panic!(
            "seed {seed}: {:?}; again: SEED={seed} cargo test -p tests --test simulation",
            run.violations
        );
    }
}

/// `MISTAKES` names some, `LockForgotten,BodiesLogged`.
#[test]
fn every_known_mistake_is_seen() {
    let most = setting("MUTANT_SEEDS").unwrap_or(1000);
    let mut missed = Vec::new();
    let only = env::var("MUTANTS").ok();
    let mistakes: Vec<Mutant> = match &only {
        Some(names) => {
            let named = |mistake: &Mutant| names.split(',').any(|n| n == format!("{mistake:?}"));
            Mutant::ALL.into_iter().filter(named).collect()
        }
        None if whole() => Mutant::ALL.to_vec(),
        None => Mutant::FEW.to_vec(),
    };
    for plan in [rough, robbed, locked_meanwhile] {
        let without = run_all(0..mistakes.len() as u64, plan);
        assert_eq!(without.failed, [], "without a mistake");
    }
    for mistake in mistakes {
        let planted = |seed| Plan {
            mistake: Some(mistake),
            ..match mistake.weather() {
                Some(weather) => rough_with(seed, weather),
                None if mistake == Mutant::LockNotConditioned => locked_meanwhile(seed),
                None if mistake.robs() => robbed(seed),
                None => rough(seed),
            }
        };
        let mut seeds = 0;
        let seen = loop {
            let step = 2.min(most - seeds);
            if step == 0 {
                break None;
            }
            let mut totals = run_all(seeds..seeds + step, planted);
            seeds += step;
            totals.failed.sort();
            if let Some(first) = totals.failed.into_iter().next() {
                break Some(first);
            }
        };
        match seen {
            Some((seed, what)) => println!("{mistake:?}: after {} seeds: {what}", seed + 1),
            None => missed.push(mistake),
        }
    }
    assert!(missed.is_empty(), "not seen in {most} seeds: {missed:?}");
}

/// `FAULT` names one; `FAULT_SEEDS` are for each.
#[test]
fn each_fault_of_the_peers_alone_is_survived() {
    let few = if whole() { 30 } else { 1 };
    let seeds = setting("FAULT_SEEDS").unwrap_or(few);
    let only = env::var("FAULT").ok();
    let mut failed = Vec::new();
    for (name, weather) in FaultPlan::each_alone() {
        if only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        let plan = |seed| rough_with(seed, weather.clone());
        if let Some(seed) = setting("SEED") {
            println!("{}", tell(plan(seed)).trace.join("\n"));
        }
        let totals = run_all(0..seeds, plan);
        println!("{name}: {} calls; {:?}", totals.exchanges, totals.swaps);
        let count = totals.failed.len();
        if let Some((seed, what)) = totals.failed.into_iter().min() {
            println!("VIOLATED in {count} of {seeds}, first in seed {seed}: {what}");
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}

/// A trace without what differs from run to run: sealed bytes, and the order of a row's attributes.
fn steps(run: &Run) -> Vec<&str> {
    run.trace
        .iter()
        .map(|line| line.split('{').next().unwrap_or_default())
        .collect()
}

#[test]
fn a_seed_is_the_same_world_every_time() {
    for seed in 0..3 {
        let (first, second) = (tell(any(seed)), tell(any(seed)));
        assert_eq!(steps(&first), steps(&second), "seed {seed}");
    }
}
