//! Logs: JSON lines of our own words. What could hold an event, a body or a header is silenced in code, not by a setting.

use tracing::Subscriber;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The runtime logs raw events at debug level, and the clients below us headers and bodies.
const SILENCED: [&str; 8] = [
    "lambda_runtime",
    "lambda_http",
    "aws_config",
    "aws_smithy",
    "aws_sdk",
    "hyper",
    "rustls",
    "h2",
];

/// Starts logging at the level of `LOG_LEVEL` (`error`, `warn`, `info`, `debug`; default `info`).
pub fn start_logging(level: &str) {
    logs(level, std::io::stdout).init();
}

/// What [`start_logging`] starts, with its lines going elsewhere.
pub fn logs<W>(level: &str, to: W) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let level = level
        .parse()
        .unwrap_or(LevelFilter::INFO)
        .min(LevelFilter::DEBUG);
    let silenced = SILENCED.map(|target| (target, level.min(LevelFilter::WARN)));
    let filter = Targets::new().with_default(level).with_targets(silenced);
    let lines = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_writer(to);
    tracing_subscriber::registry().with(lines).with(filter)
}
