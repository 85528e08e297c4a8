//! The local stack: the functions, the AWS services around them and the simulated peers, in one process. The functions
//! themselves are in `functions`, the simulated peers in `infra/simulators`, and the operator's commands in
//! `infra/operator`.

use std::fmt::Display;

pub use dynoxide;

pub mod args;
pub mod commands;
pub mod data_dir;
pub mod endpoints;
pub mod event_source;
pub mod failures;
pub mod filter;
pub mod functions;
pub mod gateway;
pub mod in_process;
pub mod kms;
pub mod mailbox;
pub mod stack;
pub mod tokens;

mod backend;
mod clients;
mod docs;
mod durable;
mod environment;
mod guard;
mod http_client;
mod lambda;
mod mtls;
mod page;
mod queue;
mod request_id;
mod rs256;
mod sample;
mod schedule;
mod secrets;
mod serving;
mod ses_events;
mod simulated_peers;

/// Why the stack cannot start, or a command failed: one line that the reader can act on, without secrets.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(pub String);

impl StartError {
    /// Converts an error of the named part of the stack into `{part}: {error}`.
    fn context<E: Display>(part: &'static str) -> impl Fn(E) -> Self {
        move |error| Self(format!("{part}: {error}"))
    }
}

impl From<operator::CommandError> for StartError {
    fn from(error: operator::CommandError) -> Self {
        Self(error.0)
    }
}
