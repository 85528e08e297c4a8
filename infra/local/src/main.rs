//! The `simswap` command: parses the arguments, and starts the stack or runs a command.

use std::io::Write;
use std::process::ExitCode;

use local::StartError;
use local::args::{Args, Command, Token};
use local::tokens::Tokens;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

#[tokio::main]
async fn main() -> ExitCode {
    let line: Vec<_> = std::env::args_os().collect();
    let args = Args::read(&line).unwrap_or_else(|error| error.exit());
    let result = match args.command {
        None => {
            start_logging();
            local::stack::run(args.start).await
        }
        Some(Command::Token(token)) => print_token(&token),
        Some(Command::Import(import)) => local::commands::import(&import).await,
        Some(Command::Show(show)) => local::commands::show(&show).await,
        Some(Command::List(list)) => local::commands::list(list).await,
        Some(Command::Line(line)) => local::commands::line(&line).await,
        Some(Command::Sim(sim)) => local::commands::sim(&sim).await,
        Some(Command::RotateKey(target)) => local::commands::rotate_key(&target).await,
        Some(Command::SealingKey(target)) => local::commands::sealing_key(&target).await,
        Some(Command::RewrapKeys(rewrap)) => local::commands::rewrap_keys(&rewrap).await,
        Some(Command::Migrate(migrate)) => local::commands::migrate(&migrate).await,
        Some(Command::Replay(replay)) => local::commands::replay(&replay).await,
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
    token.check()?;
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
