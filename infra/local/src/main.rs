//! The `simswap` command: reads its arguments and runs what they say.

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
    let ended = match args.command {
        None => {
            start_logging();
            local::stack::run(args.start).await
        }
        Some(Command::Token(token)) => print_token(&token),
        Some(Command::Import(import)) => local::operator::import(&import).await,
        Some(Command::Show(show)) => local::operator::show(&show).await,
        Some(Command::Sim(Sim::Release(sim))) => local::operator::release(&sim).await,
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell when standard error is gone too.
            let _ = writeln!(std::io::stderr(), "simswap: {error}");
            ExitCode::FAILURE
        }
    }
}

/// For people, on standard error: what the functions log, and what goes wrong around them.
fn start_logging() {
    let ours = [
        "change_sim",
        "deliver_esim",
        "fulfil_swap",
        "network_events",
        "submit_swap",
    ];
    let filter = Targets::new()
        .with_default(LevelFilter::WARN)
        // It warns of each condition that fails, which is how races are decided.
        .with_target("dynoxide", LevelFilter::ERROR)
        .with_target(edge::AUDIT, LevelFilter::INFO)
        .with_targets(ours.map(|function| (function, LevelFilter::INFO)));
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
