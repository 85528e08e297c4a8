//! Metrics: lines in CloudWatch's embedded metric format between those of the log. Which alarm looks at which is the
//! template's.

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

/// The target of the events that are metrics.
pub(crate) const METRICS: &str = "simswap::metrics";

/// What is counted and timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// A request began a swap.
    SwapAccepted,
    /// A swap is DONE, so long after its request.
    SwapDone(SignedDuration),
    /// A swap is in ERROR.
    SwapFailed(FailureCode),
    /// A mail came into a state.
    Mail(DeliveryState),
    /// SES did not look at a mail, for a reason that lies with us.
    MailHeld(HoldReason),
    /// SES took a swap's first mail, so long after the request.
    FirstMail(SignedDuration),
    /// So many swaps and mails wait for too long.
    Overdue(i64),
    /// A callback was taken from somebody who did not prove who they are.
    CallbackUnauthenticated,
    /// A call to a peer (`smdp`, `network`) failed, in which way.
    PeerCallFailed {
        /// Who was called.
        peer: &'static str,
        /// What came of it.
        class: &'static str,
    },
    /// A swap has waited for a peer for over an hour, open or ending.
    SwapStuck,
    /// The network and the table disagree about a swap.
    SwapDisputed,
    /// So many pools of free SIMs run low.
    PoolsLow(i64),
}

impl Metric {
    /// Writes it.
    pub fn record(self) {
        match self {
            Self::SwapAccepted => tracing::info!(target: METRICS, SwapsAccepted = 1),
            Self::SwapDone(after) => tracing::info!(
                target: METRICS, SwapsDone = 1, SubmitToDone = milliseconds(after)
            ),
            Self::SwapFailed(failure) => tracing::info!(
                target: METRICS, SwapsFailed = 1, Code = failure.code()
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

    /// What has become of a mail, where a change of it tells an operator something.
    pub fn of_mail(before: &Delivery, after: &Delivery) -> Option<Self> {
        let told = match after.state {
            DeliveryState::Pending | DeliveryState::Claimed => false,
            DeliveryState::Failed => !after.is_unneeded(),
            _ => true,
        };
        (told && before.state != after.state).then_some(Self::Mail(after.state))
    }
}

fn milliseconds(time: SignedDuration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// Writes what is recorded: a field that is a number is a metric, one that is a text a dimension. All texts of an event are
/// one set of dimensions.
pub(crate) struct Lines<W> {
    namespace: String,
    to: W,
}

impl<W> Lines<W> {
    pub(crate) fn new(namespace: String, to: W) -> Self {
        Self { namespace, to }
    }
}

impl<S, W> Layer<S> for Lines<W>
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
        // Where nobody can read it, a metric is not worth a failure.
        let _ = self
            .to
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

    /// No event of ours has such a field.
    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::{Arc, Mutex};
    use tracing::subscriber::with_default;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_are_in_the_embedded_metric_format_at_every_level() {
        let kept = Kept::default();
        let to = kept.clone();
        let logs = crate::logs("error", "test".to_owned(), move || to.clone());
        with_default(logs, || {
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
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
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
