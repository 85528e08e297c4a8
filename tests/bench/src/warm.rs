//! Warm calls: one sandbox of each program, one call after another, the programs in turn.

use std::time::{Duration, Instant};

use serde_json::{Map, json};

use crate::BenchError;
use crate::fixture::{Fixture, check};
use crate::programs::{COMPARED, Language, Programs, environment};
use crate::report::{self, Table, megabytes, millis, quantile, short};
use crate::sandbox::Sandbox;

/// How many calls are made before the measurement.
const WARM_UP: usize = 100;

struct Program {
    language: Language,
    function: &'static str,
    sandbox: Sandbox,
    times: Vec<Duration>,
}

/// Measures and publishes.
pub(crate) async fn run(programs: &Programs, calls: usize) -> Result<(), BenchError> {
    programs.others()?;
    let fixture = Fixture::new(6 * (WARM_UP + calls)).await?;
    let mut all = Vec::new();
    for language in Language::ALL {
        for function in COMPARED {
            let command = programs.command(language, function);
            let environment = environment(&fixture, language);
            let mut sandbox = Sandbox::start(&command, &environment, fixture.call(function)?).await?;
            check(function, &sandbox.response().await?)?;
            all.push(Program {
                language,
                function,
                sandbox,
                times: Vec::new(),
            });
        }
    }
    for number in 1..WARM_UP + calls {
        for program in &mut all {
            let event = fixture.call(program.function)?;
            let asked = Instant::now();
            let response = program.sandbox.invoke(event).await?;
            let took = asked.elapsed();
            check(program.function, &response)?;
            if number >= WARM_UP {
                program.times.push(took);
            }
        }
    }

    let mut figures = Map::new();
    let mut table = Table::new(&["", "", "calls/s", "ms, p50", "ms, p99", "memory, MB"]);
    for function in COMPARED {
        for program in all.iter().filter(|program| program.function == function) {
            let times = &program.times;
            let total: Duration = times.iter().sum();
            let rate = times.len() as f64 / total.as_secs_f64();
            let (p50, p99) = (millis(quantile(times, 0.5)), millis(quantile(times, 0.99)));
            let memory = program.sandbox.resident()?;
            let name = program.language.name();
            figures.entry(function).or_insert_with(|| json!({}))[name] =
                json!({"rate": rate, "p50": p50, "p99": p99, "memory": memory});
            let mut row = vec![function.to_owned(), name.to_owned()];
            row.extend([rate, p50, p99, megabytes(memory)].map(short));
            table.row(&row);
        }
    }
    table.publish("warm")?;
    report::record("warm", figures.into())
}
