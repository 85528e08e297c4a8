//! What the functions share in dealing with Lambda and HTTP: callers, the bodies and responses of the subscription
//! dialect, stream events, settings, logs, metrics, and the configuration of AWS clients. The responses of the account
//! dialect are in `change-sim`.

mod api_error;
mod body;
mod caller;
#[cfg(test)]
mod captured_log;
mod clock_and_rng;
mod error_response;
mod fatal_error;
mod metrics;
mod present;
mod settings;
mod stream;
mod telemetry;

pub use api_error::ApiError;
pub use body::{Fields, idempotency_key, read_body, read_optional_body};
pub use caller::{Unauthenticated, caller, is_ignored_parameter, route};
pub use clock_and_rng::ClockAndRng;
pub use error_response::{ErrorResponse, FieldError, json_response, log_cause, mark_replayed, no_such_route};
pub use fatal_error::FatalError;
pub use metrics::Metric;
pub use present::{ActivationField, ActivationView, CodeEcho, Presenter, format_time};
pub use settings::{SettingError, Settings};
pub use stream::{for_each_row, records_of};
pub use telemetry::{AUDIT, logs, record_activation, span_of_call, span_of_event, start_logging};
