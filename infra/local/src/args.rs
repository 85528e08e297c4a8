//! The command line: options of the stack, and commands. Running them is in `stack.rs` and `commands.rs`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

/// Start the local stack of simswap, or run a command
#[derive(Debug, Parser)]
#[command(name = "simswap", version, args_conflicts_with_subcommands = true)]
pub struct Args {
    /// A command to run instead of starting the stack.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The options of the stack.
    #[command(flatten)]
    pub start: Start,
}

/// The options of the local stack.
#[derive(Debug, Clone, clap::Args)]
pub struct Start {
    /// Port of the API on 127.0.0.1; 0 picks a free port
    #[arg(long, default_value_t = 9000)]
    pub port: u16,
    /// Directory of the data
    #[arg(long, value_name = "DIR", default_value = ".simswap")]
    pub data_dir: PathBuf,
    /// Delete the data of earlier runs first
    #[arg(long)]
    pub fresh: bool,
    /// Use this SM-DP+ instead of the simulated one
    #[arg(long, value_name = "URL", value_parser = base_url)]
    pub smdp_url: Option<String>,
    /// Use this network instead of the simulated one
    #[arg(long, value_name = "URL", value_parser = base_url)]
    pub network_url: Option<String>,
    /// Time that the simulated network takes for an order
    #[arg(long, value_name = "TIME", default_value = "200ms", value_parser = duration)]
    pub network_delay: Duration,
    /// Use mutual TLS between the functions and the simulated peers
    #[arg(long, conflicts_with_all = ["smdp_url", "network_url"])]
    pub mtls: bool,
    /// Invoke the functions through this Lambda endpoint, instead of in this process
    #[arg(long, value_name = "URL", value_parser = base_url)]
    pub functions_url: Option<String>,
}

/// A command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print a token for the stack with this data directory
    Token(Token),
    /// Import SIMs or lines from a CSV file
    #[command(subcommand)]
    Import(Import),
    /// Print one record, with its secrets masked
    #[command(subcommand)]
    Show(Show),
    /// Change a SIM
    #[command(subcommand)]
    Sim(Sim),
}

/// A change to a SIM.
#[derive(Debug, Subcommand)]
pub enum Sim {
    /// Make a free SIM available to every line again, although a caller has seen its PINs and PUKs
    Release(Shown),
}

/// What to import.
#[derive(Debug, Subcommand)]
pub enum Import {
    /// Import SIMs; a SIM that exists does not change
    Sims(ImportFile),
    /// Import lines; of a line that exists, only the e-mail address, language, state, porting and lock change
    Subscriptions(ImportFile),
}

/// A file to import, and the table.
#[derive(Debug, clap::Args)]
pub struct ImportFile {
    /// CSV file with `;` between the columns, and a header line
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Leave out faulty lines, and import the others
    #[arg(long)]
    pub skip_faulty: bool,
    /// The table.
    #[command(flatten)]
    pub target: Target,
}

/// What to print.
#[derive(Debug, Subcommand)]
pub enum Show {
    /// A swap, with its mails and its timeline
    Swap(Shown),
    /// A line, by its id or its phone number
    Line(Shown),
    /// A SIM, by its ICCID
    Sim(Shown),
}

/// The name of a record, and the table.
#[derive(Debug, clap::Args)]
pub struct Shown {
    /// Id, phone number or ICCID
    #[arg(value_name = "NAME")]
    pub name: String,
    /// The table.
    #[command(flatten)]
    pub target: Target,
}

/// The table of a command: that of the local stack, unless an endpoint or a table is given.
#[derive(Debug, Clone, clap::Args)]
pub struct Target {
    /// DynamoDB endpoint, used with the usual AWS credentials and the KMS key in KMS_KEY_ID
    #[arg(long, value_name = "URL", value_parser = base_url)]
    pub endpoint: Option<String>,
    /// Name of the DynamoDB table; `simswap` if only an endpoint is given
    #[arg(long, value_name = "NAME")]
    pub table: Option<String>,
    /// Data directory of the local stack
    #[arg(long, value_name = "DIR", default_value = ".simswap")]
    pub data_dir: PathBuf,
}

/// The claims of a token.
#[derive(Debug, clap::Args)]
pub struct Token {
    /// OWNER, RESELLER or ADMIN; a token with another role is printed too, but the API rejects it
    pub role: String,
    /// Customer of an OWNER
    #[arg(long)]
    pub customer: Option<String>,
    /// Reseller of a RESELLER
    #[arg(long)]
    pub reseller: Option<String>,
    /// Seconds until the token expires; a negative number prints an expired token
    #[arg(long, value_name = "SECONDS", default_value_t = 3600, allow_negative_numbers = true)]
    pub expires_in: i64,
    /// Data directory of the stack
    #[arg(long, value_name = "DIR", default_value = ".simswap")]
    pub data_dir: PathBuf,
}

impl Target {
    /// Whether the table is that of the local stack.
    pub fn is_local(&self) -> bool {
        self.endpoint.is_none() && self.table.is_none()
    }
}

/// Parses an `http` or `https` URL, and removes the slash at the end, so that a path can be appended.
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
    fn the_defaults_are_the_documented_ones() {
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
    fn invalid_arguments_are_rejected() {
        for (line, valid) in [
            ("--port 0 --fresh --network-delay 1s500ms", true),
            (
                "--smdp-url http://127.0.0.1:9100/ --network-url https://n.example/base",
                true,
            ),
            ("--functions-url http://127.0.0.1:9001 --mtls", true),
            ("--mtls --smdp-url http://127.0.0.1:9100", false),
            ("--port 70000", false),
            ("--network-delay soon", false),
            ("--network-delay -1s", false),
            ("--smdp-url 127.0.0.1:9100", false),
            ("--smdp-url http://", false),
            ("token", false),
            ("import sims f.csv --skip-faulty --data-dir d", true),
            (
                "import subscriptions f.csv --endpoint http://127.0.0.1:8000 --table t",
                true,
            ),
            ("import sims", false),
            ("import cards f.csv", false),
            ("show swap 01J --table t", true),
            ("show line +31612345601", true),
            ("show sim", false),
            ("sim release 8931086000000002019 --table t", true),
            ("sim release", false),
            ("sim 8931086000000002019", false),
            ("stop", false),
        ] {
            assert_eq!(parse(line).is_ok(), valid, "{line}");
        }
        assert_eq!(base_url("http://a/").unwrap(), "http://a");
    }
}
