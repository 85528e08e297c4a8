//! The operator's commands: import, show, list, line, sim, migrate, rotate-key, rewrap-keys, sealing-key, replay. They
//! work on a [`store::Store`]; parsing arguments and opening the files of a stopped local stack are in `infra/local`.

pub mod commands;
pub mod import;
pub mod line;
pub mod list;
pub mod replay;
pub mod show;
pub mod table;

mod aws_cli;
mod columns;
mod consent;
mod progress;

/// Why a command failed: one line that the operator can act on, without secrets.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CommandError(pub String);

impl CommandError {
    /// The error together with its causes, because the operator has no other log.
    fn with_causes(error: &dyn std::error::Error) -> Self {
        Self(with_causes(error))
    }

    fn unknown_line(name: &str) -> Self {
        Self(format!("there is no line {}", domain::escaped(name)))
    }

    fn unknown_sim(name: &str) -> Self {
        Self(format!("there is no SIM {}", domain::escaped(name)))
    }
}

/// The text of the error, followed by that of each cause, separated by `: `.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
