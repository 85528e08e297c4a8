//! The simulation: the whole service in one process under a seeded scheduler. The functions, the store, the AWS SDK and
//! the peers' clients are real; the table is embedded, the peers are simulated, the clock is virtual, and faults are
//! injected into calls. `tests/README.md` says how to run it.

#![allow(
    clippy::print_stdout,
    reason = "the tests print what they ran, and the trace of a failure"
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
use simulators::InstallFault;

use crate::faults::FaultPlan;
use crate::invariants::Fate;
use crate::mutants::Mutant;
use crate::sandbox::Policy;
use crate::scheduler::{Interruption, Plan, Rival, Run, run};
use crate::stock::{FREE, LINES, StockLine};
use crate::workload::{Block, PhoneAct, Request};

/// Requests, and the times in milliseconds at which each is sent.
type TimedRequests = Vec<(Request, Vec<u64>)>;

/// The system allocator would take a fifth of a run's time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A plan in which everything is drawn at random.
fn random_plan(seed: u64) -> Plan {
    let mut rng = Rng::with_seed(!seed);
    let faults = FaultPlan::random(&mut rng);
    let count = rng.usize(1..=3);
    let mut requests: Vec<_> = (0..count)
        .map(|n| {
            // Some requests come after the SIM of an earlier swap has cooled down.
            let day = u64::from(rng.u8(..6) == 0) * 27 * 3_600_000;
            let first = day + rng.u64(1..1_200_000);
            let mut times = vec![first];
            while rng.u8(..3) == 0 {
                let within = [50, 20_000, 4_000_000, 30 * 3_600_000][rng.usize(..4)];
                times.push(first + rng.u64(..within));
            }
            (Request::random(&mut rng, n), times)
        })
        .collect();
    // In half of the runs, callers renew the codes of eSIMs and report their installation.
    let policy = Policy::random(&mut rng);
    let lines: Vec<_> = (0..count)
        .filter_map(|n| Some((requests[n].0.esim_line()?, requests[n].1[0])))
        .collect();
    for (line, first) in lines {
        if rng.bool() {
            continue;
        }
        let n = requests.len();
        requests.extend(requests_about_profile(&mut rng, line, first, n));
    }
    let mut phone_acts = None;
    if rng.u8(..6) == 0 {
        (requests, phone_acts) = renewed_requests(&mut rng);
    }
    // Each import that blocks a line is followed by one that lifts the block.
    for (request, times) in requests.clone() {
        let line = request
            .block
            .and_then(|(id, _)| LINES.iter().find(|line| line.id == id));
        if let Some(line) = line {
            let last = times.iter().max().copied().unwrap_or(0);
            let within = [60_000, 30 * 3_600_000][rng.usize(..2)];
            let lifted = last + rng.u64(1..within);
            requests.push((Request::block(line, Block::Lifted), vec![lifted]));
        }
    }
    Plan {
        seed,
        faults,
        requests,
        policy,
        phone_acts,
        mutant: None,
        interruption: None,
        traced: false,
    }
}

/// Requests about the profile of a swap that is requested at the time `first`. The first of them has the index `n` in
/// the run.
fn requests_about_profile(rng: &mut Rng, line: &StockLine, first: u64, n: usize) -> TimedRequests {
    const HOURS: u64 = 3_600_000;
    let count = rng.usize(1..=5);
    (n..n + count)
        .map(|n| {
            let within = [600_000, HOURS, 4 * HOURS][rng.usize(..3)];
            let mut times = vec![first + rng.u64(1_000..within)];
            while rng.bool() {
                let within = [1_000, 40_000, HOURS][rng.usize(..3)];
                times.push(times[0] + rng.u64(1..within));
            }
            (Request::about_profile(line, rng, n), times)
        })
        .collect()
}

/// The roughest plan: several callers compete for the same line and the same SIMs, and every kind of fault is frequent.
fn rough_plan(seed: u64) -> Plan {
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
        faults: FaultPlan::ROUGH,
        requests,
        ..random_plan(seed)
    }
}

/// A rough plan in which operators block lines, and an attacker has the customer's token.
fn attacked_plan(seed: u64) -> Plan {
    let mut rng = Rng::with_seed(seed ^ 0x7e1e);
    let mut plan = rough_plan(seed);
    for line in &LINES[..2] {
        let at = [200, 120_000, 3_600_000][rng.usize(..3)];
        let block = Block::ALL[rng.usize(..3)];
        plan.requests.extend([
            (Request::block(line, block), vec![1 + rng.u64(..at)]),
            (Request::block(line, Block::LockOmitted), vec![1 + rng.u64(..at)]),
            (Request::block(line, Block::Lifted), vec![20 * 3_600_000]),
            (Request::card(line, FREE[4].0), vec![rng.u64(1..10_000_000)]),
            (Request::query(line), vec![rng.u64(60_000..600_000)]),
        ]);
        for kind in 0..4 {
            let times = (0..3).map(|_| rng.u64(60_000..8_000_000)).collect();
            plan.requests.push((Request::from_attacker(line, kind), times));
        }
        // Further callers come after a swap has failed.
        for n in [7, 8] {
            let esim = Request::esim(line, false, n);
            plan.requests.push((esim, vec![rng.u64(30..40) * 3_600_000]));
        }
    }
    plan
}

/// A plan in which a line is locked while its swap is submitted, at the call with the number `seed`.
fn locked_plan(seed: u64) -> Plan {
    let line = &LINES[0];
    let lock = Rival::Caller(Box::new(Request::block(line, Block::Locked)));
    Plan {
        faults: FaultPlan::CALM,
        requests: vec![(Request::esim(line, false, 0), vec![1])],
        phone_acts: Some(Vec::new()),
        interruption: Some((seed, Interruption::RivalBefore(lock))),
        ..random_plan(seed)
    }
}

/// A rough plan with these faults, in which a caller cancels a swap and two lines are swapped again half a day later.
fn rough_plan_with(seed: u64, faults: FaultPlan) -> Plan {
    const HOURS: u64 = 3_600_000;
    let mut rng = Rng::with_seed(seed);
    let mut plan = rough_plan(seed);
    let cancel = Request::manage(&LINES[rng.usize(..3)], "CancelActivation");
    let within = [200_000, 2 * HOURS][rng.usize(..2)];
    plan.requests
        .extend(requests_about_profile(&mut rng, &LINES[0], 30_000, 20));
    plan.requests.extend([
        (cancel, vec![rng.u64(60_000..within)]),
        (Request::card(&LINES[1], FREE[4].0), vec![12 * HOURS]),
        (Request::esim(&LINES[0], rng.bool(), 6), vec![13 * HOURS]),
    ]);
    Plan { faults, ..plan }
}

/// Requests for two eSIMs, whose codes are renewed, with repeats, and whose installation is reported, perhaps wrongly;
/// and what the phones do.
fn renewed_requests(rng: &mut Rng) -> (TimedRequests, Option<Vec<(u64, PhoneAct)>>) {
    let mut requests = vec![
        (Request::esim(&LINES[0], false, 0), vec![rng.u64(1..10_000)]),
        (Request::change(&LINES[1], "eSim"), vec![rng.u64(1..10_000)]),
    ];
    for line in &LINES[..2] {
        let resent = rng.u64(60_000..1_200_000);
        requests.push((Request::manage(line, "ResendEsim"), vec![resent]));
        for first in [resent + rng.u64(1..200), rng.u64(600_000..7_200_000)] {
            let n = requests.len();
            let times = vec![first, first + rng.u64(1..90_000), first + rng.u64(1..3_600_000)];
            requests.push((Request::random_renewal(line, rng, n), times));
        }
        for _ in 0..2 {
            let at = rng.u64(60_000..13_000_000);
            requests.push((Request::random_report(line, rng), vec![at]));
        }
    }
    let after = rng.u64(60_000..2_400_000);
    let acts = [
        vec![(after, PhoneAct::Fail(InstallFault::NoRoom))],
        vec![(after, PhoneAct::Fail(InstallFault::WrongDevice))],
        vec![(after, PhoneAct::FetchUnreported)],
        Vec::new(),
    ];
    (requests, acts.get(rng.usize(..5)).cloned())
}

/// A plan in which callers renew the codes of eSIMs and report their installation, while callbacks are often late.
fn renewed_plan(seed: u64) -> Plan {
    let (requests, phone_acts) = renewed_requests(&mut Rng::with_seed(seed ^ 0x1e4e));
    Plan {
        faults: FaultPlan {
            late: 300,
            fault: 30,
            until: 3 * 3_600_000,
            ..FaultPlan::ROUGH
        },
        policy: Policy::DEFAULT,
        requests,
        phone_acts,
        ..random_plan(seed)
    }
}

fn env_number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// `None` if a few cases of each kind are enough. `Some(n)` for every case, but only every n-th of those in which another
/// caller comes in. There are 32 of these at each call, so n is odd, to select each kind in turn.
fn whole() -> Option<usize> {
    env_number("WHOLE").map(|every| every.max(1) as usize)
}

#[derive(Default)]
struct Totals {
    exchanges: u64,
    swaps: BTreeMap<String, usize>,
    /// The number of mails by fate, and by how often SES accepted the mail.
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

/// Runs the seeds on all cores.
fn run_all(seeds: std::ops::Range<u64>, plan: impl Fn(u64) -> Plan + Sync) -> Totals {
    let totals = Mutex::new(Totals::default());
    let next = AtomicU64::new(seeds.start);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                logs::capture();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        break;
                    }
                    let run = run(plan(seed));
                    totals
                        .lock()
                        .expect("no thread panics while it holds the lock")
                        .add(seed, run);
                }
            });
        }
    });
    totals.into_inner().expect("no thread panics while it holds the lock")
}

fn run_traced(plan: Plan) -> Run {
    logs::capture();
    run(Plan { traced: true, ..plan })
}

#[test]
fn whatever_happens_nothing_is_lost_and_nothing_happens_twice() {
    if let Some(seed) = env_number("SEED") {
        let run = run_traced(random_plan(seed));
        println!("{}", run.trace.join("\n"));
        println!("{:?} {:?}", run.swaps, run.mails);
        assert!(run.violations.is_empty(), "seed {seed}: {:#?}", run.violations);
        return;
    }
    let from = env_number("FROM").unwrap_or(0);
    let seeds = env_number("SEEDS").unwrap_or(12);
    let began = std::time::Instant::now();
    let mut totals = run_all(from..from + seeds, random_plan);
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
    for (seed, violation) in &totals.failed {
        println!("seed {seed}: {violation}");
    }
    if let Some((seed, _)) = totals.failed.first() {
        let run = run_traced(random_plan(*seed));
        println!("{}", run.trace.join("\n"));
        panic!(
            "seed {seed}: {:?}; run it again with SEED={seed} cargo test -p tests --test simulation whatever",
            run.violations
        );
    }
}

/// `MUTANTS` selects mutants: `LockForgotten,BodiesLogged`.
#[test]
fn every_known_mutant_is_killed() {
    let most = env_number("MUTANT_SEEDS").unwrap_or(1000);
    let mut missed = Vec::new();
    let only = env::var("MUTANTS").ok();
    let mutants: Vec<Mutant> = match &only {
        Some(names) => {
            let named = |mutant: &Mutant| names.split(',').any(|n| n == format!("{mutant:?}"));
            Mutant::ALL.into_iter().filter(named).collect()
        }
        None if whole().is_some() => Mutant::ALL.to_vec(),
        None => Mutant::FEW.to_vec(),
    };
    for plan in [rough_plan, attacked_plan, locked_plan, renewed_plan] {
        let without = run_all(0..mutants.len() as u64, plan);
        assert_eq!(without.failed, [], "violations without a mutant");
    }
    for mutant in mutants {
        let planted = |seed| Plan {
            mutant: Some(mutant),
            ..match mutant.fault_plan() {
                Some(faults) if mutant.needs_renewals() => Plan {
                    faults,
                    ..renewed_plan(seed)
                },
                None if mutant.needs_renewals() => renewed_plan(seed),
                Some(faults) => rough_plan_with(seed, faults),
                None if mutant == Mutant::LockNotConditioned => locked_plan(seed),
                None if mutant.needs_attacker() => attacked_plan(seed),
                None => rough_plan(seed),
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
            Some((seed, violation)) => println!("{mutant:?}: detected after {} seeds: {violation}", seed + 1),
            None => missed.push(mutant),
        }
    }
    assert!(missed.is_empty(), "not detected within {most} seeds: {missed:?}");
}

/// `FAULT` selects one fault; `FAULT_SEEDS` is the number of seeds for each.
#[test]
fn each_fault_of_the_peers_alone_is_survived() {
    let few = if whole().is_some() { 30 } else { 1 };
    let seeds = env_number("FAULT_SEEDS").unwrap_or(few);
    let only = env::var("FAULT").ok();
    let mut failed = Vec::new();
    for (name, faults) in FaultPlan::each_fault() {
        if only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        let plan = |seed| rough_plan_with(seed, faults.clone());
        if let Some(seed) = env_number("SEED") {
            println!("{}", run_traced(plan(seed)).trace.join("\n"));
        }
        let totals = run_all(0..seeds, plan);
        println!("{name}: {} calls; {:?}", totals.exchanges, totals.swaps);
        let count = totals.failed.len();
        if let Some((seed, violation)) = totals.failed.into_iter().min() {
            println!("VIOLATED in {count} of {seeds}, first in seed {seed}: {violation}");
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}

/// A trace without what differs between two runs of a seed: encrypted bytes, and the order of a row's attributes.
fn steps(run: &Run) -> Vec<&str> {
    run.trace
        .iter()
        .map(|line| line.split('{').next().unwrap_or_default())
        .collect()
}

#[test]
fn a_seed_is_the_same_run_every_time() {
    for seed in 0..3 {
        let (first, second) = (run_traced(random_plan(seed)), run_traced(random_plan(seed)));
        assert_eq!(steps(&first), steps(&second), "seed {seed}");
    }
}
