//! Logs: JSON lines, each with the ids of its invocation and its swap. Libraries that could log events, bodies or
//! headers are silenced in code, whatever the settings are. The format of metrics is in `metrics`.

use std::fmt::Display;

use lambda_http::{Context, Request, RequestExt};
use tracing::field::Empty;
use tracing::{Span, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::Settings;
use crate::metrics::{METRICS, MetricLines};

/// Libraries that log only errors and warnings. At lower levels, the Lambda runtime logs whole events, and the HTTP
/// clients log headers and bodies.
const SILENCED: [&str; 6] = [
    "lambda_runtime",
    "lambda_http",
    "aws_smithy",
    "aws_sdk",
    "hyper",
    "rustls",
];

/// The target of log lines about who was shown secrets, which are logged at every level.
pub const AUDIT: &str = "audit";

/// Starts logs and metrics on standard output: `LOG_LEVEL` (`error`, `warn`, `info`, `debug`; default `info`) and
/// `METRIC_NAMESPACE` (default `simswap`).
pub fn start_logging(settings: &Settings) {
    let namespace = settings.text_or("METRIC_NAMESPACE", "simswap");
    logs(&settings.text_or("LOG_LEVEL", "info"), namespace, std::io::stdout).init();
}

/// What [`start_logging`] starts, but with another level, namespace and writer.
pub fn logs<W>(level: &str, namespace: String, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Clone + Send + Sync + 'static,
{
    let level = level.parse().unwrap_or(LevelFilter::INFO).min(LevelFilter::DEBUG);
    let silenced = SILENCED.map(|target| (target, level.min(LevelFilter::WARN)));
    let logged = Targets::new()
        .with_default(level)
        .with_targets(silenced)
        .with_target(AUDIT, LevelFilter::INFO)
        .with_target(METRICS, LevelFilter::OFF);
    let measured = Targets::new().with_target(METRICS, LevelFilter::INFO);
    let lines = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_span_list(false)
        .with_writer(writer.clone());
    tracing_subscriber::registry()
        .with(lines.with_filter(logged))
        .with(MetricLines::new(namespace, writer).with_filter(measured))
}

/// The span of all log lines about an HTTP request.
pub fn span_of_call(request: &Request) -> Span {
    let context = request.lambda_context_ref();
    span(context.map_or("", |context| &context.request_id))
}

/// The span of all log lines about an event, or about one of its records.
pub fn span_of_event(context: &Context) -> Span {
    span(&context.request_id)
}

/// The span has the level `error`, so that lines have ids whatever the log level is.
fn span(request: &str) -> Span {
    tracing::error_span!("invocation", request, activation = Empty)
}

/// Adds the id of a swap to the current span: all later lines of this invocation or record are about that swap.
pub fn record_activation(activation: &impl Display) {
    Span::current().record("activation", tracing::field::display(activation));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::captured_log::captured_log;

    #[test]
    fn audit_lines_are_logged_at_every_level() {
        for level in ["error", "warn", "info", "debug"] {
            let text = captured_log(level, || tracing::info!(target: AUDIT, "shown"));
            assert_eq!(text.matches("shown").count(), 1, "{level}: {text}");
        }
    }
}
