//! The `simswap` command: reads its arguments and runs what they say.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use local::StartError;
use local::args::{Args, Command, Token};
use local::tokens::Tokens;

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let ended = match args.command {
        None => local::stack::run(args.start).await,
        Some(Command::Token(token)) => print_token(&token),
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

fn print_token(token: &Token) -> Result<(), StartError> {
    let text = Tokens::open(Some(&token.data_dir))?.issue(
        &token.role,
        token.customer.as_deref(),
        token.reseller.as_deref(),
        "local",
        token.expires_in,
        jiff::Timestamp::now(),
    );
    writeln!(std::io::stdout(), "{text}")
        .map_err(|error| StartError(format!("cannot print the token: {error}")))
}
