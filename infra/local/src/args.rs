//! The command line: options of the stack, and commands. Running them is in `stack.rs` and `commands.rs`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use axum::http::Uri;
use axum::http::uri::Authority;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use domain::{EmailAddress, Language, LineState, Msisdn, NetworkName, SimState, Status, is_plain};
use edge::Settings;
use jiff::tz::TimeZone;
use operator::line::LineChange;
use store::Pool;

use crate::StartError;

use crate::failures::PeerFailures;

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
    /// How the simulated peers fail.
    #[command(flatten)]
    pub failures: PeerFailures,
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
    /// Import SIMs, lines or brands from a CSV file
    #[command(subcommand)]
    Import(Import),
    /// Print one record, with its secrets masked
    #[command(subcommand)]
    Show(Show),
    /// List records in columns, without secrets
    #[command(subcommand)]
    List(List),
    /// Change or remove a line
    #[command(subcommand)]
    Line(LineCommand),
    /// Change or remove a SIM
    #[command(subcommand)]
    Sim(Sim),
    /// Add a data key, and print its public key
    RotateKey(Target),
    /// Print the public key that encrypts secret fields, for the setting SEALING_KEY
    SealingKey(Target),
    /// Wrap the data keys with another master key of KMS, while swaps go on
    RewrapKeys(RewrapKeys),
    /// Bring a table of an earlier release to the form of this one, while swaps go on
    Migrate(Migrate),
    /// Replay the messages of the dead-letter queue
    Replay(Replay),
}

/// A change of the master key. It can be interrupted and repeated.
#[derive(Debug, clap::Args)]
pub struct RewrapKeys {
    /// Id, alias or ARN of the new master key
    #[arg(long, value_name = "KEY")]
    pub to: String,
    /// Remove what the earlier master key has wrapped; functions that still have that key fail from then on
    #[arg(long)]
    pub finish: bool,
    /// The table
    #[command(flatten)]
    pub target: Target,
}

/// A migration. It can be interrupted and repeated.
#[derive(Debug, clap::Args)]
pub struct Migrate {
    /// Also delete the indexes and attributes that only earlier releases read; their functions fail from then on
    #[arg(long)]
    pub finish: bool,
    /// The table
    #[command(flatten)]
    pub target: Target,
}

/// The dead-letter queue: that of the running local stack, unless a URL is given.
#[derive(Debug, clap::Args)]
pub struct Replay {
    /// URL of a deployment's queue, used with the usual AWS credentials
    #[arg(long, value_name = "URL", requires = "mail_events")]
    pub queue_url: Option<String>,
    /// Name of the deployment's function mail-events
    #[arg(long, value_name = "NAME", requires = "queue_url")]
    pub mail_events: Option<String>,
    /// Data directory of the local stack
    #[arg(long, value_name = "DIR", default_value = ".simswap")]
    pub data_dir: PathBuf,
}

/// What to list.
#[derive(Debug, Subcommand)]
pub enum List {
    /// Lines; reads the whole table
    Lines(ListLines),
    /// SIMs; reads the whole table, unless a pool is given
    Sims(ListSims),
    /// Swaps, newest first
    Swaps(ListSwaps),
}

/// Which lines to list.
#[derive(Debug, clap::Args)]
pub struct ListLines {
    /// ACTIVE, CREATING, DELETING or BLOCKED
    #[arg(long)]
    pub state: Option<LineState>,
    /// Lines of this network
    #[arg(long, value_parser = NetworkName::parse)]
    pub network: Option<NetworkName>,
    /// Lines of this customer
    #[arg(long)]
    pub customer: Option<String>,
    /// Lines of this reseller
    #[arg(long)]
    pub reseller: Option<String>,
    /// How to list them.
    #[command(flatten)]
    pub display: Display,
}

/// Which SIMs to list.
#[derive(Debug, clap::Args)]
pub struct ListSims {
    /// FREE, BUSY, ACTIVATED or DISABLED
    #[arg(long)]
    pub state: Option<SimState>,
    /// SIMs of this network
    #[arg(long, value_parser = NetworkName::parse)]
    pub network: Option<NetworkName>,
    /// SIMs of this reseller
    #[arg(long)]
    pub reseller: Option<String>,
    /// Free SIMs of this pool, for example 'KPN#R-10#esim' or 'KPN##card'
    #[arg(long, value_parser = Pool::parse)]
    pub pool: Option<Pool>,
    /// How to list them.
    #[command(flatten)]
    pub display: Display,
}

/// Which swaps to list.
#[derive(Debug, clap::Args)]
pub struct ListSwaps {
    /// INIT, BUSY, DONE or ERROR
    #[arg(long)]
    pub status: Option<Status>,
    /// Swaps of this network
    #[arg(long, value_parser = NetworkName::parse)]
    pub network: Option<NetworkName>,
    /// Swaps of this customer's lines
    #[arg(long)]
    pub customer: Option<String>,
    /// Swaps of the lines of this reseller's customers
    #[arg(long)]
    pub reseller: Option<String>,
    /// Swaps of the line with this id or phone number
    #[arg(long)]
    pub line: Option<String>,
    /// How to list them.
    #[command(flatten)]
    pub display: Display,
}

/// How to list records.
#[derive(Debug, clap::Args)]
pub struct Display {
    /// Maximum number of records
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub limit: usize,
    /// The zone of times.
    #[command(flatten)]
    pub zone: Zone,
    /// The table.
    #[command(flatten)]
    pub target: Target,
}

/// The time zone in which a command prints times.
#[derive(Debug, clap::Args)]
pub struct Zone {
    /// Time zone of the printed times; by default that of the setting TIME_ZONE, or Europe/Amsterdam
    #[arg(long, value_name = "ZONE", value_parser = time_zone)]
    pub zone: Option<TimeZone>,
}

/// A change to a line.
#[derive(Debug, Subcommand)]
pub enum LineCommand {
    /// Change values of a line; its network and its SIM do not change
    Set(SetLine),
    /// Remove a line that has no open swap; its SIM is disabled
    Remove(Removed),
}

/// The new values of a line.
#[derive(Debug, clap::Args)]
pub struct SetLine {
    /// Id or phone number
    #[arg(value_name = "ID")]
    pub name: String,
    /// New phone number
    #[arg(long, value_parser = Msisdn::parse)]
    pub phone: Option<Msisdn>,
    /// New customer; deletes what concerns the previous one, such as the e-mail address
    #[arg(long, value_parser = plain_text)]
    pub customer: Option<String>,
    /// New reseller of the customer
    #[arg(long, value_parser = plain_text)]
    pub reseller: Option<String>,
    /// The customer has no reseller
    #[arg(long, conflicts_with = "reseller")]
    pub no_reseller: bool,
    /// New contact address
    #[arg(long, value_parser = EmailAddress::parse)]
    pub email: Option<EmailAddress>,
    /// Delete the contact address
    #[arg(long, conflicts_with = "email")]
    pub no_email: bool,
    /// nl, da, de, fr or en
    #[arg(long)]
    pub language: Option<Language>,
    /// ACTIVE, CREATING, DELETING or BLOCKED
    #[arg(long)]
    pub state: Option<LineState>,
    /// Whether the number is being ported
    #[arg(long, value_name = "true|false")]
    pub porting: Option<bool>,
    /// Whether the line is locked against swaps
    #[arg(long, value_name = "true|false")]
    pub lock: Option<bool>,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// The table.
    #[command(flatten)]
    pub target: Target,
}

/// A change to a SIM.
#[derive(Debug, Subcommand)]
pub enum Sim {
    /// Make a free SIM available to every line again, although a caller has seen its PINs and PUKs
    Release(Named),
    /// Remove a SIM that no line and no open swap has
    Remove(Removed),
}

/// A record to remove.
#[derive(Debug, clap::Args)]
pub struct Removed {
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// The record.
    #[command(flatten)]
    pub record: Named,
}

/// What to import.
#[derive(Debug, Subcommand)]
pub enum Import {
    /// Import SIMs; a SIM that exists does not change
    Sims(ImportFile),
    /// Import lines; of a line that exists, only the e-mail address, language, state, porting and lock change
    Subscriptions(ImportFile),
    /// Import the brands of resellers, which e-mails to their customers show
    Brands(ImportFile),
}

/// A file to import, and the table.
#[derive(Debug, clap::Args)]
pub struct ImportFile {
    /// CSV file with `;` between the columns, and a header line; `-` is standard input
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
    /// A swap, with its e-mails and its timeline
    Swap(Shown),
    /// A line, by its id or its phone number
    Line(Shown),
    /// A SIM, by its ICCID
    Sim(Shown),
}

/// A record to print.
#[derive(Debug, clap::Args)]
pub struct Shown {
    /// The zone of times.
    #[command(flatten)]
    pub zone: Zone,
    /// The record.
    #[command(flatten)]
    pub record: Named,
}

/// The name of a record, and the table.
#[derive(Debug, clap::Args)]
pub struct Named {
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
    /// DynamoDB endpoint, used with the usual AWS credentials, the KMS key in KMS_KEY_ID and, if it is set, the
    /// INSTALLATION of the functions
    #[arg(long, value_name = "URL")]
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

impl Args {
    /// Parses a command line, which begins with the name of the program.
    ///
    /// # Errors
    /// When the arguments are not valid, or are a request for help. If an option precedes a command, the error says
    /// where it goes.
    pub fn read(line: &[OsString]) -> Result<Self, clap::Error> {
        Self::try_parse_from(line).map_err(|error| {
            let kind = error.kind();
            let may_be_misplaced = matches!(kind, ErrorKind::ArgumentConflict | ErrorKind::UnknownArgument);
            let begins_with_option = line
                .get(1)
                .is_some_and(|word| word.as_encoded_bytes().starts_with(b"-"));
            let mut later_words = line.iter().skip(2);
            let command = later_words.find(|word| Self::command().find_subcommand(word).is_some());
            let Some(command) = command.filter(|_| may_be_misplaced && begins_with_option) else {
                return error;
            };
            let command = command.to_string_lossy();
            let sentence = format!(
                "give the options of '{command}' after it, as in 'cargo run -- {command} … --data-dir DIR'; the \
                 options of the stack, such as --port, cannot be combined with a command\n"
            );
            clap::Error::raw(kind, sentence)
        })
    }
}

impl Zone {
    /// The time zone of the option or, without it, of the setting TIME_ZONE.
    ///
    /// # Errors
    /// When the setting names no time zone.
    pub fn get(&self) -> Result<TimeZone, StartError> {
        match &self.zone {
            Some(zone) => Ok(zone.clone()),
            None => Settings::from_environment()
                .time_zone()
                .map_err(|error| StartError(error.to_string())),
        }
    }
}

impl SetLine {
    /// The new values.
    pub fn change(&self) -> LineChange {
        LineChange {
            phone: self.phone.clone(),
            customer: self.customer.clone(),
            reseller: if self.no_reseller {
                Some(None)
            } else {
                self.reseller.clone().map(Some)
            },
            email: if self.no_email {
                Some(None)
            } else {
                self.email.clone().map(Some)
            },
            language: self.language,
            state: self.state,
            porting: self.porting,
            locked: self.lock,
        }
    }
}

impl Token {
    /// Checks what is easily overlooked, and makes the API reject the token.
    ///
    /// # Errors
    /// When the role is empty or not in capitals, the customer of an OWNER or the reseller of a RESELLER is missing, or
    /// the role does not use the customer or reseller.
    pub fn check(&self) -> Result<(), StartError> {
        const USUAL: [&str; 3] = ["OWNER --customer C-100", "RESELLER --reseller R-10", "ADMIN"];
        let role = self.role.to_ascii_uppercase();
        if role.is_empty() {
            return Err(StartError(format!(
                "the role is empty: cargo run -- token {}",
                USUAL[0]
            )));
        }
        let Some(usual) = USUAL.iter().find(|usual| usual.split(' ').next() == Some(&role)) else {
            return Ok(());
        };
        let is_given = |name: &Option<String>| name.as_deref().is_some_and(|name| !name.is_empty());
        let fault = match role.as_str() {
            _ if role != self.role => "a role is written in capitals",
            "OWNER" if !is_given(&self.customer) => "a token of an OWNER needs a customer",
            "RESELLER" if !is_given(&self.reseller) => "a token of a RESELLER needs a reseller",
            "OWNER" if self.reseller.is_some() => "a token of an OWNER has no reseller",
            "RESELLER" if self.customer.is_some() => "a token of a RESELLER has no customer",
            "ADMIN" if self.customer.is_some() || self.reseller.is_some() => {
                "a token of an ADMIN has no customer and no reseller"
            }
            _ => return Ok(()),
        };
        Err(StartError(format!("{fault}: cargo run -- token {usual}")))
    }
}

impl Target {
    /// Whether the table is that of the local stack.
    pub fn is_local(&self) -> bool {
        self.endpoint.is_none() && self.table.is_none()
    }
}

/// Parses an `http` or `https` URL, and removes the slash at the end, so that a path can be appended.
pub(crate) fn base_url(text: &str) -> Result<String, String> {
    let is_url = text.parse::<Uri>().is_ok_and(|url| {
        let known = matches!(url.scheme_str(), Some("http" | "https"));
        known && url.authority().is_some_and(is_host_and_port)
    });
    match is_url {
        true => Ok(text.trim_end_matches('/').to_owned()),
        false => Err("must be a URL such as http://127.0.0.1:9100".to_owned()),
    }
}

/// Whether this is a host with or without a port. The parser of URLs also accepts a port that is not a number.
fn is_host_and_port(authority: &Authority) -> bool {
    let host = authority.host();
    let whole = match authority.port_u16() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    !host.is_empty() && authority.as_str() == whole
}

fn time_zone(name: &str) -> Result<TimeZone, String> {
    TimeZone::get(name).map_err(|_| "must be a time zone such as Europe/Amsterdam or UTC".to_owned())
}

fn plain_text(text: &str) -> Result<String, String> {
    match !text.is_empty() && is_plain(text) {
        true => Ok(text.to_owned()),
        false => Err("must be a text without control characters".to_owned()),
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
        let words = std::iter::once("simswap").chain(line.split_whitespace());
        Args::read(&words.map(OsString::from).collect::<Vec<_>>())
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
    fn a_token_that_the_api_would_reject_by_oversight_is_not_printed() {
        let owner = "a token of an OWNER needs a customer: cargo run -- token OWNER --customer C-100";
        let reseller = "a token of a RESELLER needs a reseller: cargo run -- token RESELLER --reseller R-10";
        let no_reseller = "a token of an OWNER has no reseller: cargo run -- token OWNER --customer C-100";
        let no_customer = "a token of a RESELLER has no customer: cargo run -- token RESELLER --reseller R-10";
        let neither = "a token of an ADMIN has no customer and no reseller: cargo run -- token ADMIN";
        let capitals = "a role is written in capitals: cargo run -- token";
        for (line, fault) in [
            ("OWNER --customer C-100", None),
            ("RESELLER --reseller R-10", None),
            ("ADMIN", None),
            // For tests of how the API rejects it.
            ("GUEST", None),
            ("OWNER", Some(owner.to_owned())),
            ("OWNER --reseller R-10", Some(owner.to_owned())),
            ("OWNER --customer=", Some(owner.to_owned())),
            ("OWNER --customer C-100 --reseller R-10", Some(no_reseller.to_owned())),
            ("OWNER --customer C-100 --reseller=", Some(no_reseller.to_owned())),
            ("RESELLER --customer C-100", Some(reseller.to_owned())),
            ("RESELLER --reseller=", Some(reseller.to_owned())),
            (
                "RESELLER --reseller R-10 --customer C-100",
                Some(no_customer.to_owned()),
            ),
            ("ADMIN --customer C-100", Some(neither.to_owned())),
            ("ADMIN --reseller R-10", Some(neither.to_owned())),
            ("ADMIN --customer=", Some(neither.to_owned())),
            (
                "owner --customer C-100",
                Some(format!("{capitals} OWNER --customer C-100")),
            ),
            ("Reseller", Some(format!("{capitals} RESELLER --reseller R-10"))),
            ("admin", Some(format!("{capitals} ADMIN"))),
        ] {
            let Some(Command::Token(token)) = parse(&format!("token {line}")).unwrap().command else {
                panic!("{line}");
            };
            let seen = token.check().err().map(|error| error.to_string());
            assert_eq!(seen, fault, "{line}");
        }
        let Some(Command::Token(empty)) = Args::try_parse_from(["simswap", "token", ""]).unwrap().command else {
            panic!("not a token");
        };
        let error = empty.check().unwrap_err().to_string();
        assert_eq!(error, "the role is empty: cargo run -- token OWNER --customer C-100");
    }

    #[test]
    fn an_option_before_a_command_is_reported_with_its_place() {
        for (line, command) in [
            ("--data-dir d show swap 01J", Some("show")),
            ("--data-dir=d import sims f.csv", Some("import")),
            ("--port 9000 import sims f.csv", Some("import")),
            ("--fresh rotate-key", Some("rotate-key")),
            ("--table t line remove X", Some("line")),
            ("--customer C-100 token OWNER", Some("token")),
            // These have another fault.
            ("--port 9000 stop", None),
            ("--port 70000 --data-dir show", None),
            ("--tabel t", None),
            ("show swap 01J --tabel t", None),
        ] {
            let error = parse(line).unwrap_err().to_string();
            let sentence = command.map(|command| {
                format!(
                    "error: give the options of '{command}' after it, as in 'cargo run -- {command} … --data-dir DIR'; \
                     the options of the stack, such as --port, cannot be combined with a command\n"
                )
            });
            match sentence {
                Some(sentence) => assert_eq!(error, sentence, "{line}"),
                None => assert!(!error.contains("give the options"), "{line}: {error}"),
            }
        }
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
            ("import brands brands.csv --table t", true),
            ("import sims", false),
            ("import sims -", true),
            ("import cards f.csv", false),
            ("show swap 01J --table t", true),
            ("show line +31612345601", true),
            ("show sim", false),
            ("sim release 8931086000000002019 --table t", true),
            ("sim release", false),
            ("sim remove 8931086000000002019 --yes", true),
            (
                "line set X --phone 06-12345601 --customer C-1 --no-reseller --email a@example.com",
                true,
            ),
            (
                "line set X --state BLOCKED --porting true --lock false --language nl --no-email --yes",
                true,
            ),
            ("line set X --reseller R --no-reseller", false),
            ("line set X --phone 12", false),
            ("line set X --customer=", false),
            ("line remove X --table t", true),
            ("line remove", false),
            (
                "list lines --state BLOCKED --network KPN --reseller R-10 --limit 5",
                true,
            ),
            ("list sims --pool KPN##esim --zone UTC", true),
            ("list sims --pool KPN", false),
            ("list swaps --status done --line 06-12345601", true),
            ("list swaps --status FREE", false),
            ("list swaps --zone Mars/Base", false),
            ("show line X --zone Europe/Copenhagen", true),
            ("rotate-key --table t", true),
            ("sealing-key --table t", true),
            ("migrate --table t --finish", true),
            ("replay --data-dir d", true),
            (
                "replay --queue-url https://sqs.eu-central-1.amazonaws.com/1/q --mail-events s-mail-events",
                true,
            ),
            ("replay --queue-url https://sqs.eu-central-1.amazonaws.com/1/q", false),
            ("sim 8931086000000002019", false),
            ("stop", false),
        ] {
            assert_eq!(parse(line).is_ok(), valid, "{line}");
        }
        assert_eq!(base_url("http://a/").unwrap(), "http://a");
    }
}
