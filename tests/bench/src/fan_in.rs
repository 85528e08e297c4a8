//! Many swaps, submitted as fast as the API accepts them, until all mails are sent: the release binaries behind the
//! local stack.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::FormFactor;
use futures_util::{StreamExt, stream};
use jiff::Timestamp;
use local::stack::Options;
use serde_json::json;
use tests::TestStack;
use tests::stock::{CUSTOMER, line_id, load_lines, load_stock};

use crate::BenchError;
use crate::lambda::Lambda;
use crate::programs::{FUNCTIONS, Programs};
use crate::report::{self, Table, millis, quantile, short, thousands};
use crate::sandbox::processor;

/// How many submits are sent at the same time.
const AT_ONCE: usize = 16;

/// A directory in memory: the stream has its index only in files, and the time of their syncs is not what is measured.
const MEMORY: &str = "/dev/shm";

/// Measures and publishes.
pub(crate) async fn run(programs: &Arc<Programs>, swaps: usize) -> Result<(), BenchError> {
    let directory = tempfile::tempdir_in(MEMORY)?;
    let lambda = Lambda::new(programs.clone()).await?;
    let patient = ["LEASE", "ASK_AFTER", "ASK_AT_MOST", "MAIL_DOUBT"];
    let service = TestStack::start(Options {
        data_dir: Some(directory.path().to_owned()),
        functions_url: Some(lambda.url.clone()),
        sweep_every: Duration::from_secs(24 * 3600),
        settings: patient.map(|name| (name.to_owned(), "4h".to_owned())).into(),
        ..TestStack::options()
    })
    .await;
    lambda.configure(&service.stack.settings);
    load_lines(&service, swaps).await;
    load_stock(&service, FormFactor::Esim, swaps).await;
    lambda.invoked();
    let token = service.owner(CUSTOMER);
    let ours_before = processor("self")?;

    let began = Instant::now();
    let submitted: Vec<_> = stream::iter(0..swaps)
        .map(|line| {
            let (service, token) = (&service, &token);
            async move {
                let asked = Timestamp::now();
                let response = service.submit(token, &tests::esim(&line_id(line))).await;
                let id = response.json()["id"].as_str().map(str::to_owned);
                id.map(|id| (id, asked)).ok_or(format!("{response:?}"))
            }
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let submitted: HashMap<String, Timestamp> = submitted.into_iter().collect::<Result<_, _>>()?;
    let all_submitted = began.elapsed();
    let mails = loop {
        let mails = service.stack.mailbox.list();
        if mails.len() >= swaps {
            break mails;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let all_mailed = began.elapsed();
    if mails.len() > swaps {
        return Err(format!("{} mails for {swaps} swaps", mails.len()).into());
    }
    let waits: Result<Vec<Duration>, BenchError> = mails
        .iter()
        .map(|mail| {
            let id = mail.activation_id.as_ref().ok_or("a mail of no swap")?;
            let asked = submitted.get(id).ok_or("a mail of another swap")?;
            let sent: Timestamp = mail.sent_at.parse()?;
            Ok(Duration::try_from(sent - *asked).unwrap_or_default())
        })
        .collect();
    let waits = waits?;

    let seconds = all_mailed.as_secs_f64();
    let mut table = Table::new(&[&format!("{} eSIM swaps at once", thousands(&swaps.to_string())), ""]);
    let (p50, p99) = (quantile(&waits, 0.5), quantile(&waits, 0.99));
    for (what, value) in [
        ("submits a second", swaps as f64 / all_submitted.as_secs_f64()),
        ("mails a second", swaps as f64 / seconds),
        ("seconds until all mails are out", seconds),
        ("seconds from submit to mail, p50", p50.as_secs_f64()),
        ("seconds from submit to mail, p99", p99.as_secs_f64()),
    ] {
        table.row(&[what.to_owned(), short(value)]);
    }
    let invoked = lambda.invoked();
    let mut of_functions = 0.0;
    for function in FUNCTIONS {
        let Some(times) = invoked.get(function) else {
            continue;
        };
        let took = lambda.processor(function);
        of_functions += took;
        let mean = times.iter().sum::<Duration>() / u32::try_from(times.len())?;
        table.row(&[
            format!("{function}: {} invocations", thousands(&times.len().to_string())),
            format!("{} ms each, {} s of the processor", short(millis(mean)), short(took)),
        ]);
    }
    lambda.end();
    let ours = processor("self")? - ours_before;
    table.row(&[
        "table, gateway, peers and SES, in one process".to_owned(),
        format!("{} s of the processor", short(ours)),
    ]);
    table.publish("fan-in")?;
    report::record(
        "fan-in",
        json!({"swaps": swaps, "seconds": seconds, "p50": p50.as_secs_f64(), "p99": p99.as_secs_f64(), "functions": of_functions, "stack": ours}),
    )
}
