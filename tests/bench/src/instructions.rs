//! Instructions to the first response and of a warm call, counted by callgrind.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::BenchError;
use crate::fixture::{self, Fixture, check};
use crate::programs::{COMPARED, FUNCTIONS, GATED, Language, Programs, environment};
use crate::report::{self, Table, thousands};
use crate::sandbox::Sandbox;

/// How many warm calls are averaged.
const CALLS: u64 = 20;

/// What the gate allows above the recorded count, for changes of the compiler and the order of hash maps.
const ROOM: f64 = 1.03;

/// The most instructions to the first response: with one connection, or with two and the data key.
const AT_MOST: [(&str, u64); 2] = [("query-activation", 5_000_000), ("submit-swap", 10_000_000)];

/// The counts of a function: to its first response, and of a warm call.
type Counts = BTreeMap<&'static str, (u64, Option<u64>)>;

/// The instructions of a process that responds to these events and is ended. `keep` is a directory for callgrind's
/// output.
async fn count(
    fixture: &Fixture,
    programs: &Programs,
    keep: Option<&Path>,
    function: &str,
    events: Vec<String>,
) -> Result<u64, BenchError> {
    let directory = tempfile::tempdir()?;
    let out = match keep {
        Some(keep) => keep.join(format!("{function}-{}.out", events.len())),
        None => directory.path().join("callgrind.out"),
    };
    let mut command = vec![
        "valgrind".to_owned(),
        "--quiet".to_owned(),
        "--tool=callgrind".to_owned(),
        format!("--callgrind-out-file={}", out.display()),
    ];
    command.extend(programs.command(Language::Rust, function));
    let environment = environment(fixture, Language::Rust);
    let mut events = events.into_iter();
    let first = events.next().ok_or("there is no event")?;
    let mut sandbox = Sandbox::start(&command, &environment, first).await?;
    check(function, &sandbox.response().await?)?;
    for event in events {
        check(function, &sandbox.invoke(event).await?)?;
    }
    sandbox.end().await?;
    let text = fs::read_to_string(&out)?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    Ok(total.ok_or("callgrind wrote no totals")?.trim().parse()?)
}

/// One swap through these functions, then warm calls.
async fn measure(programs: &Programs, functions: &[&'static str], keep: Option<&Path>) -> Result<Counts, BenchError> {
    let fixture = &Fixture::new(100).await?;
    let line = fixture.line()?;
    let mut counts = Counts::new();
    let (mut swap, mut card) = (String::new(), String::new());
    for &function in functions {
        let event = match function {
            "submit-swap" => fixture::submit(&line),
            "fulfil-swap" => fixture::changed(&swap, "activation"),
            "deliver-esim" => fixture::changed(&swap, "delivery#1"),
            "mail-events" => fixture::delivered(&swap),
            "network-events" => fixture.installed(&swap).await?,
            "change-sim" => {
                card = fixture.line()?;
                fixture::change(&card)
            }
            "manage-swap" => fixture::cancel(&fixture.swap_of(&card).await?),
            "sweep-swaps" => fixture::minute(),
            _ => fixture.call(function)?,
        };
        let first = count(fixture, programs, keep, function, vec![event]).await?;
        if function == "submit-swap" {
            swap = fixture.swap_of(&line).await?;
        }
        counts.insert(function, (first, None));
    }
    for &function in functions.iter().filter(|name| COMPARED.contains(name)) {
        let first = vec![fixture.call(function)?];
        let one = count(fixture, programs, None, function, first).await?;
        let events: Result<Vec<_>, _> = (0..=CALLS).map(|_| fixture.call(function)).collect();
        let many = count(fixture, programs, keep, function, events?).await?;
        let warm = many.saturating_sub(one) / CALLS;
        counts.entry(function).or_default().1 = Some(warm);
    }
    Ok(counts)
}

/// Measures and publishes.
pub(crate) async fn run(programs: &Programs, keep: Option<&Path>) -> Result<(), BenchError> {
    let counts = measure(programs, &FUNCTIONS, keep).await?;
    let mut table = Table::new(&["instructions", "to the first answer", "of a warm call"]);
    let mut figures = json!({});
    for function in FUNCTIONS {
        let (first, warm) = counts[function];
        figures[function] = json!({"first": first, "warm": warm});
        let warm = warm.map(|warm| thousands(&warm.to_string())).unwrap_or_default();
        table.row(&[function.to_owned(), thousands(&first.to_string()), warm]);
    }
    table.publish("instructions")?;
    report::record("instructions", figures)
}

/// The counts above what is recorded or allowed. On an overloaded machine, a call may time out and be retried, so a
/// count above the limit is repeated up to twice.
pub(crate) async fn gate(programs: &Programs) -> Result<Vec<String>, BenchError> {
    let kept = report::recorded("instructions")?;
    let mut faults = over(&kept, measure(programs, &GATED, None).await?);
    for _ in 0..2 {
        if !faults.is_empty() {
            faults = over(&kept, measure(programs, &GATED, None).await?);
        }
    }
    Ok(faults)
}

fn over(kept: &Value, counts: Counts) -> Vec<String> {
    let mut faults = Vec::new();
    for (function, (first, warm)) in counts {
        let mut hold = |what: &str, now: u64, kept: &Value| {
            let at_most = kept.as_f64().unwrap_or_default() * ROOM;
            report::print(&format!("{function}, {what}: {now} instructions, at most {at_most:.0}"));
            if now as f64 > at_most {
                faults.push(format!("{function}, {what}: {now} instructions, {kept} were recorded"));
            }
        };
        hold("first answer", first, &kept[function]["first"]);
        if let Some(warm) = warm {
            hold("warm call", warm, &kept[function]["warm"]);
        }
        let over = |(name, most): &(&str, u64)| *name == function && first > *most;
        if AT_MOST.iter().any(over) {
            faults.push(format!("{function}: {first} instructions are not allowed"));
        }
    }
    faults
}
