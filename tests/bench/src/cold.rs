//! Cold starts: the time from the spawn of a process to its first response, with all its clients built. Also sizes and
//! memory.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::BenchError;
use crate::fixture::{self, Fixture, check};
use crate::programs::{COMPARED, FUNCTIONS, Language, Programs, environment};
use crate::report::{self, Table, megabytes, millis, quantile, short, thousands};
use crate::sandbox::Sandbox;

/// The times of each program: a language and a function.
type Times = BTreeMap<(&'static str, &'static str), Vec<Duration>>;

struct Cold<'a> {
    fixture: &'a Fixture,
    programs: &'a Programs,
    times: Times,
    /// For how much of these times the local stack worked on the calls.
    stack: Times,
}

impl Cold<'_> {
    /// Starts a program with an event, and ends it after its response.
    async fn start(&mut self, language: Language, function: &'static str, event: String) -> Result<(), BenchError> {
        let command = self.programs.command(language, function);
        let environment = environment(self.fixture, language);
        self.fixture.tls.take_worked();
        let spawned = Instant::now();
        let mut sandbox = Sandbox::start(&command, &environment, event).await?;
        let response = sandbox.response().await?;
        let took = spawned.elapsed();
        let stack = self.fixture.tls.take_worked();
        sandbox.kill().await?;
        if function != "hello" {
            check(function, &response)?;
        }
        let program = (language.name(), function);
        self.times.entry(program).or_default().push(took);
        self.stack.entry(program).or_default().push(stack);
        Ok(())
    }

    /// One swap through all nine binaries, each of them cold; then the other languages.
    async fn round(&mut self) -> Result<(), BenchError> {
        let fixture = self.fixture;
        let line = fixture.line()?;
        self.start(Language::Rust, "submit-swap", fixture::submit(&line))
            .await?;
        let swap = fixture.swap_of(&line).await?;
        self.start(Language::Rust, "fulfil-swap", fixture::changed(&swap, "activation"))
            .await?;
        self.start(Language::Rust, "deliver-esim", fixture::changed(&swap, "delivery#1"))
            .await?;
        self.start(Language::Rust, "mail-events", fixture::delivered(&swap))
            .await?;
        let installed = fixture.installed(&swap).await?;
        self.start(Language::Rust, "network-events", installed).await?;
        let query = fixture.call("query-activation")?;
        self.start(Language::Rust, "query-activation", query).await?;
        let line = fixture.line()?;
        self.start(Language::Rust, "change-sim", fixture::change(&line)).await?;
        let cancel = fixture::cancel(&fixture.swap_of(&line).await?);
        self.start(Language::Rust, "manage-swap", cancel).await?;
        self.start(Language::Rust, "sweep-swaps", fixture::minute()).await?;
        self.start(Language::Rust, "hello", fixture.call("query-activation")?)
            .await?;
        for language in [Language::Node, Language::Python] {
            for function in COMPARED {
                self.start(language, function, fixture.call(function)?).await?;
            }
        }
        Ok(())
    }
}

/// The median of a program's times, in milliseconds.
fn median(times: &Times, language: Language, function: &'static str) -> f64 {
    millis(quantile(&times[&(language.name(), function)], 0.5))
}

/// The bytes in memory after many calls. A step that a function does once happens once; the other calls are repeats.
async fn resident(fixture: &Fixture, programs: &Programs, function: &str, calls: usize) -> Result<u64, BenchError> {
    let line = fixture.line()?;
    let event = match function {
        "fulfil-swap" | "deliver-esim" | "mail-events" | "network-events" | "manage-swap" => {
            fixture.service.start_swap(&tests::esim(&line)).await
        }
        _ => String::new(),
    };
    let event = match function {
        "fulfil-swap" => fixture::changed(&event, "activation"),
        "deliver-esim" => fixture::changed(&event, "delivery#1"),
        "mail-events" => fixture::delivered(&event),
        "network-events" => fixture.installed(&event).await?,
        "manage-swap" => fixture::cancel(&event),
        "sweep-swaps" => fixture::minute(),
        _ => fixture.call("query-activation")?,
    };
    let command = programs.command(Language::Rust, function);
    let environment = environment(fixture, Language::Rust);
    let call = |function: &str| match function {
        "submit-swap" | "change-sim" => fixture.call(function),
        _ => Ok(event.clone()),
    };
    let mut sandbox = Sandbox::start(&command, &environment, call(function)?).await?;
    sandbox.response().await?;
    for _ in 1..calls {
        sandbox.invoke(call(function)?).await?;
    }
    sandbox.resident()
}

/// Measures and publishes.
pub(crate) async fn run(programs: &Programs, runs: usize, calls: usize) -> Result<(), BenchError> {
    programs.others()?;
    let fixture = &Fixture::new(3 * calls + 8 * (runs + 1)).await?;
    let mut cold = Cold {
        fixture,
        programs,
        times: Times::new(),
        stack: Times::new(),
    };
    // The first round fills the machine's file cache.
    cold.round().await?;
    cold.times.clear();
    cold.stack.clear();
    for _ in 0..runs {
        cold.round().await?;
    }

    let mut figures = json!({"runs": runs});
    let mut table = Table::new(&[
        "",
        "ms, median",
        "ms, p95",
        "of which the local stack, median",
        "binary, MB",
        "zip, MB",
        &format!("memory after {} calls, MB", thousands(&calls.to_string())),
    ]);
    for function in FUNCTIONS.iter().chain(&["hello"]) {
        let times = &cold.times[&(Language::Rust.name(), *function)];
        let (binary, zip) = programs.sizes(function)?;
        let memory = resident(fixture, programs, function, calls).await?;
        let took = median(&cold.times, Language::Rust, function);
        let stack = median(&cold.stack, Language::Rust, function);
        figures["rust"][function] = json!({"ms": took, "stack": stack, "binary": binary, "zip": zip, "memory": memory});
        let cells = [
            took,
            millis(quantile(times, 0.95)),
            stack,
            megabytes(binary),
            megabytes(zip),
            megabytes(memory),
        ];
        let mut row = vec![match *function {
            "hello" => "a bare `lambda_http` function".to_owned(),
            function => function.to_owned(),
        }];
        row.extend(cells.map(short));
        table.row(&row);
    }
    table.publish("functions")?;

    let mut table = Table::new(&["ms, median", "submit", "query", "change SIM"]);
    for language in Language::ALL {
        let mut row = vec![language.name().to_owned()];
        for function in COMPARED {
            let ours = median(&cold.times, Language::Rust, function);
            let took = median(&cold.times, language, function);
            figures["compared"][language.name()][function] = json!(took);
            row.push(match language {
                Language::Rust => short(took),
                _ => format!("{} ({} ×)", short(took), short(took / ours)),
            });
        }
        table.row(&row);
    }
    table.publish("cold")?;
    report::record("cold", figures)
}
