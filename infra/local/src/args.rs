//! What can be typed after `cargo run --`. What it does is elsewhere.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

/// Swaps SIMs on this machine: without a command it starts the local stack.
#[derive(Debug, Parser)]
#[command(name = "simswap", version, args_conflicts_with_subcommands = true)]
pub struct Args {
    /// A command other than starting.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to start.
    #[command(flatten)]
    pub start: Start,
}

/// How the local stack starts.
#[derive(Debug, Clone, clap::Args)]
pub struct Start {
    /// Where the API listens on 127.0.0.1; 0 takes a free port
    #[arg(long, default_value_t = 9000)]
    pub port: u16,
    /// Where data is kept
    #[arg(long, value_name = "DIR", default_value = ".simswap")]
    pub data_dir: PathBuf,
    /// Forget the data of earlier runs
    #[arg(long)]
    pub fresh: bool,
    /// Use this SM-DP+ instead of the simulated one
    #[arg(long, value_name = "URL", value_parser = base_url)]
    pub smdp_url: Option<String>,
    /// Use this network instead of the simulated one
    #[arg(long, value_name = "URL", value_parser = base_url)]
    pub network_url: Option<String>,
    /// How long the simulated network takes for an order
    #[arg(long, value_name = "TIME", default_value = "200ms", value_parser = duration)]
    pub network_delay: Duration,
    /// Invoke the functions through this Lambda endpoint instead of running them in this process
    #[arg(long, value_name = "URL", value_parser = base_url)]
    pub functions_url: Option<String>,
}

/// Something other than starting.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print a token that the stack with this data directory accepts
    Token(Token),
}

/// Whose token.
#[derive(Debug, clap::Args)]
pub struct Token {
    /// OWNER, RESELLER or ADMIN; any other is signed too, and refused by the API
    pub role: String,
    /// The customer of an OWNER
    #[arg(long)]
    pub customer: Option<String>,
    /// The reseller of a RESELLER
    #[arg(long)]
    pub reseller: Option<String>,
    /// Seconds from now; a negative number makes an expired token
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 3600,
        allow_negative_numbers = true
    )]
    pub expires_in: i64,
    /// Where the stack keeps its data
    #[arg(long, value_name = "DIR", default_value = ".simswap")]
    pub data_dir: PathBuf,
}

/// An `http` or `https` URL, without the slash at its end, so that a path can be appended.
fn base_url(text: &str) -> Result<String, String> {
    let known = ["http://", "https://"].iter().any(|scheme| {
        text.strip_prefix(scheme)
            .is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'))
    });
    match known && text.parse::<axum::http::Uri>().is_ok() {
        true => Ok(text.trim_end_matches('/').to_owned()),
        false => Err("must be a URL such as http://127.0.0.1:9100".to_owned()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    text.parse::<jiff::SignedDuration>()
        .ok()
        .and_then(|length| Duration::try_from(length).ok())
        .ok_or_else(|| "must be a time such as 200ms or 2s".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Args::try_parse_from(std::iter::once("simswap").chain(line.split_whitespace()))
    }

    #[test]
    fn defaults_are_the_contracts() {
        let start = parse("").unwrap().start;
        assert_eq!(start.port, 9000);
        assert_eq!(start.data_dir, PathBuf::from(".simswap"));
        assert_eq!(start.network_delay, Duration::from_millis(200));
        assert!(!start.fresh && start.functions_url.is_none());
    }

    #[test]
    fn a_token_may_be_expired() {
        let args = parse("token OWNER --customer C-100 --expires-in -5").unwrap();
        let Some(Command::Token(token)) = args.command else {
            panic!("{args:?}");
        };
        assert_eq!((token.role.as_str(), token.expires_in), ("OWNER", -5));
        assert_eq!(token.customer.as_deref(), Some("C-100"));
    }

    #[test]
    fn what_is_refused() {
        for (line, fits) in [
            ("--port 0 --fresh --network-delay 1s500ms", true),
            (
                "--smdp-url http://127.0.0.1:9100/ --network-url https://n.example/base",
                true,
            ),
            ("--functions-url http://127.0.0.1:9001", true),
            ("--port 70000", false),
            ("--network-delay soon", false),
            ("--network-delay -1s", false),
            ("--smdp-url 127.0.0.1:9100", false),
            ("--smdp-url http://", false),
            ("token", false),
            ("stop", false),
        ] {
            assert_eq!(parse(line).is_ok(), fits, "{line}");
        }
        assert_eq!(base_url("http://a/").unwrap(), "http://a");
    }
}
