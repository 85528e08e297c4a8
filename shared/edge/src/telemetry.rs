//! Logs: JSON lines of our own words, each with the ids of its invocation and its swap. What could hold an event, a body or
//! a header is silenced in code, not by a setting.

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
use crate::metrics::{Lines, METRICS};

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

/// The target of what is logged at every level: who was shown secrets.
pub const AUDIT: &str = "audit";

/// Starts logs and metrics on standard output: `LOG_LEVEL` (`error`, `warn`, `info`, `debug`; default `info`) and
/// `METRIC_NAMESPACE` (default `simswap`).
pub fn start_logging(settings: &Settings) {
    let namespace = settings.text_or("METRIC_NAMESPACE", "simswap");
    logs(&settings.text_or("LOG_LEVEL", "info"), namespace, std::io::stdout).init();
}

/// What [`start_logging`] starts, with its lines going elsewhere.
pub fn logs<W>(level: &str, namespace: String, to: W) -> impl Subscriber + Send + Sync
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
        .with_writer(to.clone());
    tracing_subscriber::registry()
        .with(lines.with_filter(logged))
        .with(Lines::new(namespace, to).with_filter(measured))
}

/// What all lines about a call over HTTP stand in.
pub fn span_of_call(request: &Request) -> Span {
    let context = request.lambda_context_ref();
    span(context.map_or("", |context| &context.request_id))
}

/// What all lines about an event, or about one record of it, stand in.
pub fn span_of_event(context: &Context) -> Span {
    span(&context.request_id)
}

/// Of the highest level: there is none at which lines have no ids.
fn span(request: &str) -> Span {
    tracing::error_span!("invocation", request, activation = Empty)
}

/// From here on, the lines of this invocation or record are about this swap.
pub fn record_activation(activation: &impl Display) {
    Span::current().record("activation", tracing::field::display(activation));
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn who_was_shown_secrets_is_logged_at_every_level() {
        for level in ["error", "warn", "info", "debug"] {
            let log = Log::default();
            let to = log.clone();
            let logs = logs(level, "simswap".to_owned(), move || to.clone());
            tracing::subscriber::with_default(logs, || {
                tracing::info!(target: AUDIT, "shown");
            });
            let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
            assert_eq!(text.matches("shown").count(), 1, "{level}: {text}");
        }
    }
}
