//! The local stack: plays what AWS plays around the functions, in one process. The functions themselves are elsewhere, and do not know it.

pub use dynoxide;

pub mod args;
pub mod data_dir;
pub mod endpoints;
pub mod event_source;
pub mod filter;
pub mod functions;
pub mod gateway;
pub mod import;
pub mod kms;
pub mod mailbox;
pub mod operator;
pub mod show;
pub mod stack;
pub mod tokens;

mod backend;
mod clients;
mod docs;
mod durable;
mod guard;
mod http_client;
mod lambda;
mod mtls;
mod request_id;
mod sample;
mod schedule;
mod secrets;
mod ses_events;

/// Why the stack or a command cannot go on: one line that a person can act on, without secrets.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(pub String);
