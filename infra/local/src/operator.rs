//! The operator's commands: finds the table they speak to, runs them, and shows their progress. What they do is in `import.rs` and `show.rs`.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use aws_config::BehaviorVersion;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use domain::{Iccid, escaped};
use indicatif::{ProgressBar, ProgressStyle};
use store::{Released, Store};
use tokio::sync::watch;

use crate::args::{Import, ImportFile, Show, Shown, Target};
use crate::backend::{Backend, TABLE};
use crate::clients::Clients;
use crate::data_dir::{self, DataDir};
use crate::import::{self, Kind, Report};
use crate::{StartError, kms, show, stack};

/// The table that a command speaks to.
struct Opened {
    store: Store,
    /// The files of a data directory on which no stack runs, for as long as the command runs.
    _files: Option<(DataDir, Backend)>,
}

/// Loads a file, tells what is wrong with it on standard error, and what came of it on standard output.
///
/// # Errors
/// When the table or the file cannot be used, a line is faulty and not skipped, or the table refused one.
pub async fn import(asked: &Import) -> Result<(), StartError> {
    let (
        kind,
        ImportFile {
            file,
            skip_faulty,
            target,
        },
    ) = match asked {
        Import::Sims(file) => (Kind::Sims, file),
        Import::Subscriptions(file) => (Kind::Subscriptions, file),
    };
    if target.is_local() {
        data_dir::create(&target.data_dir)?;
    }
    let opened = open(target).await?;
    let mut progress = Progress::new();
    let name = file.display();
    let counts = import::import(kind, file, *skip_faulty, &opened.store, &mut |report| match report {
        Report::Checked(bytes, of) => progress.show("checked", bytes, of),
        Report::Written(rows, of) => progress.show("written", rows, of),
        Report::Faulty(line, reason) | Report::Swap(line, reason) | Report::Refused(line, reason) => {
            progress.say(&format!("{name}:{line}: {reason}"));
        }
    })
    .await?;
    progress.end();
    let refused = counts.refused + counts.left;
    if counts.faulty > 0 && !skip_faulty {
        return Err(StartError(format!(
            "nothing is written: faulty lines in {name}: {}; correct them, or leave them out with --skip-faulty",
            counts.faulty
        )));
    }
    let skipped = match counts.faulty {
        0 => String::new(),
        faulty => format!(", {faulty} faulty skipped"),
    };
    print(&format!(
        "{} added, {} updated, {} unchanged, {} refused{skipped}\n",
        counts.added, counts.updated, counts.unchanged, counts.refused
    ))?;
    match (refused, counts.left) {
        (0, _) => Ok(()),
        (_, 0) => Err(StartError(format!("lines of {name} refused: {refused}"))),
        (_, left) => Err(StartError(format!(
            "the table fails; lines of {name} left: {left}; start again when it answers"
        ))),
    }
}

/// Prints one row of the table.
///
/// # Errors
/// When the table cannot be used, or there is no such row.
pub async fn show(asked: &Show) -> Result<(), StartError> {
    let (Show::Swap(one) | Show::Line(one) | Show::Sim(one)) = asked;
    let opened = open(&one.target).await?;
    let text = match asked {
        Show::Swap(_) => show::swap(&opened.store, &one.name).await?,
        Show::Line(_) => show::line(&opened.store, &one.name).await?,
        Show::Sim(_) => show::sim(&opened.store, &one.name).await?,
    };
    print(&text)
}

/// Gives a free SIM whose codes were shown back to stock, for everybody.
///
/// # Errors
/// When the table cannot be used, or the SIM is not free.
pub async fn release(asked: &Shown) -> Result<(), StartError> {
    let opened = open(&asked.target).await?;
    let name = &asked.name;
    let unknown = || StartError(format!("there is no SIM {}", escaped(name)));
    let iccid = Iccid::parse(name).map_err(|_| unknown())?;
    let released = opened.store.release_sim(&iccid).await;
    match released.map_err(|error| StartError(import::with_causes(&error)))? {
        Released::Free => print(&format!("{iccid} is free for everybody\n")),
        Released::NotFree(sim) => Err(StartError(format!(
            "{iccid} is {}, and not free to be released",
            sim.state.as_str()
        ))),
        Released::Unknown => Err(unknown()),
    }
}

fn print(text: &str) -> Result<(), StartError> {
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(stack::failed("standard output"))
}

async fn open(target: &Target) -> Result<Opened, StartError> {
    if !target.is_local() {
        return deployed(target).await;
    }
    let data_dir = target.data_dir.as_path();
    if !data_dir.is_dir() {
        return Err(StartError(format!("there is no data directory {}", data_dir.display())));
    }
    match DataDir::own(data_dir) {
        Ok(owned) => {
            let (_, closing) = watch::channel(false);
            let ground = Backend::open(Some(data_dir), &closing).await?;
            Ok(Opened {
                store: ground.store.clone(),
                _files: Some((owned, ground)),
            })
        }
        // Somebody has it: a stack, which wrote down where its parts listen, or another command.
        Err(taken) => match running(data_dir) {
            Some(store) if store.reach().await.is_ok() => Ok(Opened { store, _files: None }),
            _ => Err(taken),
        },
    }
}

fn running(data_dir: &std::path::Path) -> Option<Store> {
    let settings = stack::read_settings(data_dir).ok()?;
    let clients = Clients::of(settings.get("AWS_ENDPOINT_URL_KMS")?);
    let dynamodb = clients.dynamodb(settings.get("AWS_ENDPOINT_URL_DYNAMODB")?);
    let table = settings.get("TABLE")?;
    Some(Store::new(dynamodb, clients.kms(), table, kms::ALIAS))
}

/// A table anywhere, with what the SDK finds in the environment and in the files of the AWS command line.
async fn deployed(target: &Target) -> Result<Opened, StartError> {
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .build_https();
    let sdk = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(http)
        .timeout_config(edge::timeouts())
        .load()
        .await;
    let mut dynamodb = aws_sdk_dynamodb::config::Builder::from(&sdk);
    if let Some(endpoint) = &target.endpoint {
        dynamodb = dynamodb.endpoint_url(endpoint);
    }
    let store = Store::new(
        aws_sdk_dynamodb::Client::from_conf(dynamodb.build()),
        aws_sdk_kms::Config::new(&sdk),
        target.table.as_deref().unwrap_or(TABLE),
        std::env::var("KMS_KEY_ID").unwrap_or_else(|_| kms::ALIAS.to_owned()),
    );
    store
        .reach()
        .await
        .map_err(|error| StartError(import::with_causes(&error)))?;
    Ok(Opened { store, _files: None })
}

/// Progress on standard error: a bar on a terminal, a line now and then elsewhere.
struct Progress {
    bar: Option<ProgressBar>,
    step: &'static str,
    began: Instant,
    shown: Instant,
}

impl Progress {
    const BETWEEN_LINES: Duration = Duration::from_secs(2);

    fn new() -> Self {
        let now = Instant::now();
        Self {
            bar: std::io::stderr().is_terminal().then(|| ProgressBar::new(0)),
            step: "",
            began: now,
            shown: now,
        }
    }

    fn show(&mut self, step: &'static str, done: u64, of: u64) {
        if self.step != step {
            self.step = step;
            self.began = Instant::now();
            self.shown = self.began;
            if let Some(bar) = &self.bar {
                bar.reset();
                bar.set_length(of);
                bar.set_message(step);
                bar.set_style(style(step));
            }
        }
        match &self.bar {
            Some(bar) => bar.set_position(done),
            None if self.shown.elapsed() >= Self::BETWEEN_LINES => {
                self.shown = Instant::now();
                let line = line(step, done, of, self.began.elapsed());
                let _ = writeln!(std::io::stderr(), "{line}");
            }
            None => {}
        }
    }

    /// A line that stays.
    fn say(&self, text: &str) {
        // Nobody is left to tell when standard error is gone.
        let write = || drop(writeln!(std::io::stderr(), "{text}"));
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn style(step: &str) -> ProgressStyle {
    let template = match step {
        "checked" => "{msg} {wide_bar} {bytes} of {total_bytes}, {eta} left",
        _ => "{msg} {wide_bar} {human_pos} of {human_len}, {per_sec}, {eta} left",
    };
    ProgressStyle::with_template(template).expect("the templates above are templates")
}

fn line(step: &str, done: u64, of: u64, took: Duration) -> String {
    let rate = done as f64 / took.as_secs_f64().max(0.001);
    let left = of.saturating_sub(done) as f64 / rate.max(0.001);
    let unit = if step == "checked" { " bytes" } else { "" };
    format!("{step} {done} of {of}{unit}, {rate:.0} a second, {left:.0} s left")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_rate_and_remaining_time() {
        assert_eq!(
            line("written", 30_000, 100_000, Duration::from_secs(3)),
            "written 30000 of 100000, 10000 a second, 7 s left"
        );
        assert_eq!(
            line("checked", 0, 0, Duration::ZERO),
            "checked 0 of 0 bytes, 0 a second, 0 s left"
        );
        for step in ["checked", "written"] {
            style(step);
        }
    }

    #[tokio::test]
    async fn a_directory_without_a_stack_opens_its_files_and_one_with_a_stack_asks_it() {
        let directory = tempfile::tempdir().unwrap();
        let target = Target {
            endpoint: None,
            table: None,
            data_dir: directory.path().join("none"),
        };
        assert!(open(&target).await.is_err(), "nothing is made");
        let target = Target {
            data_dir: directory.path().to_owned(),
            ..target
        };
        let files = open(&target).await.unwrap();
        assert!(files._files.is_some());
        assert!(open(&target).await.is_err(), "another command has it");
        drop(files);
        assert!(directory.path().join(data_dir::TABLES).exists());
    }
}
