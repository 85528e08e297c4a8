//! The options that make the simulated peers and the mailbox fail. How they fail is in `infra/simulators` and in
//! `mailbox/scenario.rs`.

use std::fmt::Write;

use serde::Serialize;
use simulators::{FailureMode, FailurePace, NetworkScenario, Scenario, SmdpScenario};

use crate::mailbox::MailScenario;

/// How the simulated peers and the mailbox fail.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct PeerFailures {
    /// Make the simulated SM-DP+ fail
    #[arg(
        long = "smdp-failures",
        value_name = "RATE|SCENARIO",
        conflicts_with = "smdp_url",
        long_help = long_help::<SmdpScenario>("Make the simulated SM-DP+ fail")
    )]
    pub smdp: Option<FailureMode<SmdpScenario>>,
    /// Make the simulated network fail
    #[arg(
        long = "network-failures",
        value_name = "RATE|SCENARIO",
        conflicts_with = "network_url",
        long_help = long_help::<NetworkScenario>("Make the simulated network fail")
    )]
    pub network: Option<FailureMode<NetworkScenario>>,
    /// Make e-mails fail
    #[arg(
        long = "mail-failures",
        value_name = "RATE|SCENARIO",
        long_help = long_help::<MailScenario>("Make e-mails fail")
    )]
    pub mail: Option<FailureMode<MailScenario>>,
    /// The times and the randomness of all these failures.
    #[arg(skip)]
    pub pace: FailurePace,
}

/// An option that is on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FailureOption {
    /// The option, such as `--smdp-failures`.
    pub option: &'static str,
    /// A rate or the word of a scenario.
    pub value: String,
    /// What a client of the service sees.
    pub what: &'static str,
}

impl PeerFailures {
    /// The options that are on.
    pub fn list(&self) -> Vec<FailureOption> {
        let smdp = self.smdp.map(|mode| listed("--smdp-failures", mode));
        let network = self.network.map(|mode| listed("--network-failures", mode));
        let mail = self.mail.map(|mode| listed("--mail-failures", mode));
        [smdp, network, mail].into_iter().flatten().collect()
    }
}

fn listed<S: Scenario>(option: &'static str, mode: FailureMode<S>) -> FailureOption {
    FailureOption {
        option,
        value: mode.to_string(),
        what: mode.what(),
    }
}

/// The help of an option: its purpose, and all its values.
fn long_help<S: Scenario>(purpose: &str) -> String {
    let mut help = format!("{purpose}\n  0.2 or 20%: {}", S::AT_A_RATE);
    for (_, word, what) in S::ALL {
        let _ = write!(help, "\n  {word}: {what}");
    }
    help
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Args, Start};
    use clap::{CommandFactory, Parser};

    fn start(options: &str) -> Result<Start, String> {
        let args = Args::try_parse_from(std::iter::once("simswap").chain(options.split_whitespace()));
        args.map(|args| args.start).map_err(|error| error.to_string())
    }

    #[test]
    fn the_options_that_are_on_are_listed() {
        assert_eq!(start("").unwrap().failures.list(), []);
        let failures = start("--mail-failures 20% --smdp-failures refuses").unwrap().failures;
        assert_eq!(
            serde_json::to_value(failures.list()).unwrap(),
            serde_json::json!([
                {
                    "option": "--smdp-failures",
                    "value": "refuses",
                    "what": "The SM-DP+ refuses every order: the swap ends in ERROR with profileRefused, and no e-mail is sent.",
                },
                {"option": "--mail-failures", "value": "0.2", "what": MailScenario::AT_A_RATE},
            ])
        );
    }

    #[test]
    fn a_wrong_word_is_rejected_with_the_list_of_words() {
        for (options, words) in [
            (
                "--smdp-failures bounces",
                "refuses, hangs, loses-callbacks, used-up, no-room, wrong-device",
            ),
            ("--network-failures 2", "refuses, hangs, early, forgets, unauthorized"),
            ("--mail-failures refuses", "bounces, soft-bounces, throttles, hangs"),
        ] {
            let error = start(options).unwrap_err();
            let expected = format!("must be a rate such as 0.2 or 20%, or one of: {words}");
            assert!(error.contains(&expected), "{error}");
        }
        for other_peer in [
            "--smdp-failures hangs --smdp-url http://127.0.0.1:1",
            "--network-failures hangs --network-url http://127.0.0.1:1",
        ] {
            assert!(
                start(other_peer).unwrap_err().contains("cannot be used with"),
                "{other_peer}"
            );
        }
    }

    #[test]
    fn the_help_and_the_readme_say_what_a_client_sees() {
        fn check<S: Scenario>(option: &str) {
            let readme = include_str!("../README.md");
            let help = Args::command().render_long_help().to_string();
            let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
            let values = S::ALL.iter().map(|(_, word, what)| (*word, *what));
            for (value, what) in values.chain([("20%", S::AT_A_RATE)]) {
                let row = format!("| `{option} {value}` | {what} |\n");
                assert!(readme.contains(&row), "{row}");
                assert!(help.contains(&format!("{value}: {what}")), "{help}");
            }
        }
        check::<SmdpScenario>("--smdp-failures");
        check::<NetworkScenario>("--network-failures");
        check::<MailScenario>("--mail-failures");
    }
}
