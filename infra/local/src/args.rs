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
    /// Take callbacks by mutual TLS alone, and show certificates to the simulated peers
    #[arg(long, conflicts_with_all = ["smdp_url", "network_url"])]
    pub mtls: bool,
    /// Invoke the functions through this Lambda endpoint instead of running them in this process
    #[arg(long, value_name = "URL", value_parser = base_url)]
    pub functions_url: Option<String>,
}

/// Something other than starting.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print a token that the stack with this data directory accepts
    Token(Token),
    /// Load stock or lines from a CSV file
    #[command(subcommand)]
    Import(Import),
    /// Look at one row, its secrets masked
    #[command(subcommand)]
    Show(Show),
    /// Change one SIM
    #[command(subcommand)]
    Sim(Sim),
}

/// What is changed.
#[derive(Debug, Subcommand)]
pub enum Sim {
    /// Give a free SIM back to stock for everybody, though somebody has seen its codes
    Release(Shown),
}

/// What is loaded.
#[derive(Debug, Subcommand)]
pub enum Import {
    /// SIMs; one that exists is left as it is
    Sims(ImportFile),
    /// Lines with their phone numbers and SIMs; of one that exists state, porting, lock, e-mail and language change
    Subscriptions(ImportFile),
}

/// From which file into which table.
#[derive(Debug, clap::Args)]
pub struct ImportFile {
    /// CSV with `;` between columns and a header line
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Load the other lines when some are faulty
    #[arg(long)]
    pub skip_faulty: bool,
    /// Into which table.
    #[command(flatten)]
    pub target: Target,
}

/// What is looked at.
#[derive(Debug, Subcommand)]
pub enum Show {
    /// A swap, with its mails and its timeline
    Swap(Shown),
    /// A line, by its id or its phone number
    Line(Shown),
    /// A SIM, by its ICCID
    Sim(Shown),
}

/// Which one, in which table.
#[derive(Debug, clap::Args)]
pub struct Shown {
    /// Its id or number
    #[arg(value_name = "NAME")]
    pub name: String,
    /// In which table.
    #[command(flatten)]
    pub target: Target,
}

/// The table a command speaks to: that of the local stack, unless an endpoint or a table is named.
#[derive(Debug, Clone, clap::Args)]
pub struct Target {
    /// A DynamoDB endpoint, with the usual AWS credentials; its KMS key is in KMS_KEY_ID
    #[arg(long, value_name = "URL", value_parser = base_url)]
    pub endpoint: Option<String>,
    /// The table there; `simswap` if only an endpoint is given
    #[arg(long, value_name = "NAME")]
    pub table: Option<String>,
    /// Where the local stack keeps its data
    #[arg(long, value_name = "DIR", default_value = ".simswap")]
    pub data_dir: PathBuf,
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
    #[arg(long, value_name = "SECONDS", default_value_t = 3600, allow_negative_numbers = true)]
    pub expires_in: i64,
    /// Where the stack keeps its data
    #[arg(long, value_name = "DIR", default_value = ".simswap")]
    pub data_dir: PathBuf,
}

impl Target {
    /// Whether it is the local stack's.
    pub fn is_local(&self) -> bool {
        self.endpoint.is_none() && self.table.is_none()
    }
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
            assert_eq!(parse(line).is_ok(), fits, "{line}");
        }
        assert_eq!(base_url("http://a/").unwrap(), "http://a");
    }
}
