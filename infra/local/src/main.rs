//! The `simswap` command: parses the arguments, and starts the stack or runs a command.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use local::StartError;
use local::args::{Args, Command, Sim, Token};
use local::tokens::Tokens;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let result = match args.command {
        None => {
            start_logging();
            local::stack::run(args.start).await
        }
        Some(Command::Token(token)) => print_token(&token),
        Some(Command::Import(import)) => local::commands::import(&import).await,
        Some(Command::Show(show)) => local::commands::show(&show).await,
        Some(Command::Sim(Sim::Release(sim))) => local::commands::release(&sim).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If standard error is closed too, there is no one to report to.
            let _ = writeln!(std::io::stderr(), "simswap: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Logs to standard error: what the functions log, and the warnings and errors of everything else.
fn start_logging() {
    let functions = [
        "change_sim",
        "deliver_esim",
        "fulfil_swap",
        "network_events",
        "submit_swap",
    ];
    let filter = Targets::new()
        .with_default(LevelFilter::WARN)
        // It logs a warning for each condition that fails, which is how concurrent writes are decided.
        .with_target("dynoxide", LevelFilter::ERROR)
        .with_target(edge::AUDIT, LevelFilter::INFO)
        .with_targets(functions.map(|function| (function, LevelFilter::INFO)));
    let lines = tracing_subscriber::fmt::layer().compact().with_writer(std::io::stderr);
    tracing_subscriber::registry().with(lines).with(filter).init();
}

fn print_token(token: &Token) -> Result<(), StartError> {
    let text = Tokens::open(Some(&token.data_dir))?.issue(
        &token.role,
        token.customer.as_deref(),
        token.reseller.as_deref(),
        "local",
        token.expires_in,
        jiff::Timestamp::now(),
    );
    writeln!(std::io::stdout(), "{text}").map_err(|error| StartError(format!("cannot print the token: {error}")))
}
