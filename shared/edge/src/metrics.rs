//! Metrics, written to the log in CloudWatch's embedded metric format. The alarms on them are in `infra/template.yaml`.

use std::fmt;
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use domain::{Delivery, DeliveryState, FailureCode, HoldReason};
use jiff::SignedDuration;
use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::Context;

/// The target of tracing events that are metrics.
pub(crate) const METRICS: &str = "simswap::metrics";

/// A value to record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// A request began a swap.
    SwapAccepted,
    /// A swap is DONE, this long after its request.
    SwapDone(SignedDuration),
    /// A swap is in ERROR.
    SwapFailed(FailureCode),
    /// A mail changed to this state.
    Mail(DeliveryState),
    /// SES did not process a mail, for a reason that is in our account or settings.
    MailHeld(HoldReason),
    /// SES accepted a swap's first mail, this long after the request.
    FirstMail(SignedDuration),
    /// The number of swaps and mails that have been due for too long.
    Overdue(i64),
    /// A callback was accepted although its sender did not authenticate.
    CallbackUnauthenticated,
    /// A call to a peer failed.
    PeerCallFailed {
        /// The peer: `smdp` or `network`.
        peer: &'static str,
        /// The class of the failure.
        class: &'static str,
    },
    /// A swap, open or ending, has waited for a peer for over an hour.
    SwapStuck,
    /// The network and the table disagree about a swap.
    SwapDisputed,
    /// The number of pools in which few SIMs are free.
    PoolsLow(i64),
}

impl Metric {
    /// Writes the metric to the log.
    pub fn record(self) {
        match self {
            Self::SwapAccepted => tracing::info!(target: METRICS, SwapsAccepted = 1),
            Self::SwapDone(after) => tracing::info!(
                target: METRICS, SwapsDone = 1, SubmitToDone = milliseconds(after)
            ),
            Self::SwapFailed(failure) => tracing::info!(
                target: METRICS, SwapsFailed = 1, Code = failure.as_str()
            ),
            Self::Mail(state) => tracing::info!(
                target: METRICS, MailsByState = 1, State = state.as_str()
            ),
            Self::MailHeld(reason) => tracing::info!(
                target: METRICS, MailsHeld = 1, Reason = reason.as_str()
            ),
            Self::FirstMail(after) => {
                tracing::info!(target: METRICS, SubmitToMail = milliseconds(after));
            }
            Self::Overdue(count) => tracing::info!(target: METRICS, OverdueSwaps = count),
            Self::CallbackUnauthenticated => {
                tracing::info!(target: METRICS, CallbacksUnauthenticated = 1);
            }
            Self::PeerCallFailed { peer, class } => tracing::info!(
                target: METRICS, PeerCallsFailed = 1, Peer = peer, Class = class
            ),
            Self::SwapStuck => tracing::info!(target: METRICS, SwapsStuck = 1),
            Self::SwapDisputed => tracing::info!(target: METRICS, SwapsDisputed = 1),
            Self::PoolsLow(count) => tracing::info!(target: METRICS, PoolsLow = count),
        }
    }

    /// The metric of a mail's new state. `None` if the state is the same, or does not concern an operator.
    pub fn of_mail(before: &Delivery, after: &Delivery) -> Option<Self> {
        let counted = match after.state {
            DeliveryState::Pending | DeliveryState::Claimed => false,
            DeliveryState::Failed => !after.is_unneeded(),
            _ => true,
        };
        (counted && before.state != after.state).then_some(Self::Mail(after.state))
    }
}

fn milliseconds(time: SignedDuration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// Writes each event as one line. A field with a number is a metric, a field with a text a dimension. All dimensions of
/// an event form one set.
pub(crate) struct MetricLines<W> {
    namespace: String,
    writer: W,
}

impl<W> MetricLines<W> {
    pub(crate) fn new(namespace: String, writer: W) -> Self {
        Self { namespace, writer }
    }
}

impl<S, W> Layer<S> for MetricLines<W>
where
    S: Subscriber,
    W: for<'a> MakeWriter<'a> + 'static,
{
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut recorded = Recorded::default();
        event.record(&mut recorded);
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        let mut line = recorded.values;
        line.insert(
            "_aws".to_owned(),
            json!({
                "Timestamp": since_1970.map_or(0, |time| time.as_millis() as u64),
                "CloudWatchMetrics": [{
                    "Namespace": self.namespace,
                    "Dimensions": [recorded.dimensions],
                    "Metrics": recorded.metrics,
                }],
            }),
        );
        // A metric that cannot be written is no reason to fail.
        let _ = self
            .writer
            .make_writer()
            .write_all(format!("{}\n", Value::Object(line)).as_bytes());
    }
}

/// The fields of one event.
#[derive(Default)]
struct Recorded {
    values: Map<String, Value>,
    dimensions: Vec<&'static str>,
    metrics: Vec<Value>,
}

impl Visit for Recorded {
    fn record_i64(&mut self, field: &Field, value: i64) {
        let unit = match field.name().starts_with("SubmitTo") {
            true => "Milliseconds",
            false => "Count",
        };
        self.metrics.push(json!({"Name": field.name(), "Unit": unit}));
        self.values.insert(field.name().to_owned(), value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.dimensions.push(field.name());
        self.values.insert(field.name().to_owned(), value.into());
    }

    /// Metrics have no such fields.
    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::captured_log::captured_log;

    #[test]
    fn metrics_are_logged_in_the_embedded_metric_format_at_every_level() {
        let text = captured_log("error", || {
            Metric::SwapAccepted.record();
            Metric::SwapDone(SignedDuration::from_millis(1500)).record();
            Metric::SwapFailed(FailureCode::Expired).record();
            Metric::Overdue(0).record();
            let (peer, class) = ("smdp", "unauthorized");
            Metric::PeerCallFailed { peer, class }.record();
            Metric::SwapStuck.record();
            Metric::SwapDisputed.record();
            Metric::MailHeld(HoldReason::Quota).record();
            Metric::PoolsLow(3).record();
            tracing::info!("not at this level");
        });
        let lines: Vec<_> = text
            .lines()
            .map(|line| {
                let mut line: Value = serde_json::from_str(line).unwrap();
                let meta = line["_aws"]["CloudWatchMetrics"][0].take();
                assert!(line["_aws"]["Timestamp"].as_u64() > Some(1_700_000_000_000));
                assert_eq!(meta["Namespace"], "test");
                line.as_object_mut().unwrap().remove("_aws");
                (line, meta["Dimensions"].clone(), meta["Metrics"].clone())
            })
            .collect();
        let count = |name| json!({"Name": name, "Unit": "Count"});
        let expected = [
            (
                json!({"SwapsAccepted": 1}),
                json!([[]]),
                json!([count("SwapsAccepted")]),
            ),
            (
                json!({"SwapsDone": 1, "SubmitToDone": 1500}),
                json!([[]]),
                json!([count("SwapsDone"), {"Name": "SubmitToDone", "Unit": "Milliseconds"}]),
            ),
            (
                json!({"SwapsFailed": 1, "Code": "expired"}),
                json!([["Code"]]),
                json!([count("SwapsFailed")]),
            ),
            (json!({"OverdueSwaps": 0}), json!([[]]), json!([count("OverdueSwaps")])),
            (
                json!({"PeerCallsFailed": 1, "Peer": "smdp", "Class": "unauthorized"}),
                json!([["Peer", "Class"]]),
                json!([count("PeerCallsFailed")]),
            ),
            (json!({"SwapsStuck": 1}), json!([[]]), json!([count("SwapsStuck")])),
            (
                json!({"SwapsDisputed": 1}),
                json!([[]]),
                json!([count("SwapsDisputed")]),
            ),
            (
                json!({"MailsHeld": 1, "Reason": "quota"}),
                json!([["Reason"]]),
                json!([count("MailsHeld")]),
            ),
            (json!({"PoolsLow": 3}), json!([[]]), json!([count("PoolsLow")])),
        ];
        assert_eq!(lines, expected);
    }
}
