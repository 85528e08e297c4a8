//! What the functions share at their edge: the caller, bodies, answers of the "subscription" dialect, settings, logs, clients.

mod ambient;
mod aws;
mod body;
mod caller;
mod failure;
mod metrics;
mod present;
mod refusal;
mod settings;
mod stopped;
mod stream;
mod telemetry;

pub use ambient::Ambient;
pub use aws::{sdk_config, timeouts};
pub use body::{Fields, idempotency_key, read_body, read_optional_body};
pub use caller::{NoCaller, caller, route};
pub use failure::Failure;
pub use metrics::Metric;
pub use present::{ActivationView, Echo, Presenter};
pub use refusal::{Fault, Refusal, answer, log_cause, no_such_route};
pub use settings::{SettingError, Settings};
pub use stopped::Stopped;
pub use stream::{for_each_row, records_of};
pub use telemetry::{AUDIT, about, logs, span_of_call, span_of_event, start_logging};
