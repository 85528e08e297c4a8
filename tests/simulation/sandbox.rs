//! A sandbox: the functions of one process, assembled as their `main.rs` assembles them, but with the simulated
//! transport, clock and randomness. When each is invoked is in `scheduler`.

use std::collections::BTreeMap;
use std::time::Duration;

use aws::SdkConfig;
use aws::{Service, ServiceClient};
use aws_sdk_dynamodb::config::retry::{RetryPartition, TokenBucket};
use aws_sdk_dynamodb::config::{BehaviorVersion, Region};
use aws_smithy_async::rt::sleep::{SharedAsyncSleep, TokioSleep};
use aws_smithy_runtime_api::client::auth::AuthSchemeId;
use aws_smithy_runtime_api::client::http::http_client_fn;
use domain::{Deadlines, Line, SubscriptionId};
use edge::{ClockAndRng, Settings};
use fastrand::Rng;
use fulfil_swap::Peers;
use lambda_runtime::LambdaEvent;
use local::functions::{Handler, events};
use local::in_process::FunctionSet;
use serde_json::{Value, json};
use store::{OpenSwap, Store, StoreError};

use crate::fakes::SMDP_ADDRESS;
use crate::stock;
use crate::transport::{Peer, Transport};

/// The table's name.
pub(crate) const TABLE: &str = "simswap";

/// The functions of one process, by name.
pub(crate) type Sandbox = BTreeMap<&'static str, Handler>;

/// The configuration of the AWS clients of one process.
pub(crate) fn aws_config(transport: &Transport) -> SdkConfig {
    let connector = transport.connector();
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::from_static("eu-central-1"))
        // Nothing here checks a signature, and signing is a fifth of a call's cost.
        .auth_scheme_preference([AuthSchemeId::from("noAuth")])
        .sleep_impl(SharedAsyncSleep::new(TokioSleep::new()))
        .timeout_config(aws::timeouts())
        .http_client(http_client_fn(move |_, _| connector.clone()))
        .build()
}

/// The default token bucket of retries would be shared by all runs of this process.
fn retry_partition() -> RetryPartition {
    RetryPartition::custom("simulation")
        .token_bucket(TokenBucket::default())
        .build()
}

/// The store of one process.
pub(crate) fn store(aws: &SdkConfig) -> Store {
    let dynamodb = aws_sdk_dynamodb::config::Builder::from(aws)
        .endpoint_url(Peer::DynamoDb.url())
        .allow_no_auth()
        .retry_partition(retry_partition())
        .build();
    Store::new(
        aws_sdk_dynamodb::Client::from_conf(dynamodb),
        ServiceClient::with_endpoint(aws, Service::Kms, Peer::Kms.url()),
        TABLE,
        local::kms::ALIAS,
    )
}

/// When a swap that waits for the peers fails.
pub(crate) const ORDER_WITHIN: Duration = Duration::from_secs(24 * 3600);
/// When an eSIM that is not installed expires.
pub(crate) const INSTALL_WITHIN: Duration = Duration::from_secs(4 * 3600);
/// When a peer that does not settle is given up.
pub(crate) const SETTLE_WITHIN: Duration = Duration::from_secs(6 * 3600);

/// The settings that differ between runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Policy {
    /// Whether the SM-DP+ can be asked for the state of a profile.
    pub(crate) smdp_has_status: bool,
    /// `REPORT_INSTALLED`.
    pub(crate) reports: &'static str,
    /// Whether the SM-DP+'s own steps have a meaning.
    pub(crate) has_points: bool,
}

impl Policy {
    /// The defaults of a deployment.
    pub(crate) const DEFAULT: Self = Self {
        smdp_has_status: false,
        reports: "check",
        has_points: false,
    };

    pub(crate) fn random(rng: &mut Rng) -> Self {
        Self {
            smdp_has_status: rng.bool(),
            reports: match rng.u8(..8) {
                0 => "trust",
                1 => "off",
                _ => "check",
            },
            has_points: rng.bool(),
        }
    }
}

/// The SM-DP+'s own steps: a profile is deleted, enabled or disabled.
pub(crate) const POINTS: [u32; 3] = [5, 6, 7];

/// Starts a new process. With `ses_reports`, SES publishes events about mails; `overridden` replaces one setting.
pub(crate) fn start(
    transport: &Transport,
    clock: &ClockAndRng,
    ses_reports: bool,
    policy: Policy,
    overridden: Option<(&'static str, &'static str)>,
) -> Sandbox {
    let settings = Settings::new(move |name| {
        let value = match name {
            _ if overridden.is_some_and(|(other, _)| other == name) => overridden?.1,
            "SMDP_URL" => Peer::Smdp.url(),
            "NETWORK_URL" => Peer::Network.url(),
            "SMDP_ADDRESS" => SMDP_ADDRESS,
            "SMDP_REQUESTER_ID" => "1.2.3",
            "MAIL_FROM" => "Simswap <noreply@example.com>",
            "BRAND" => "Simswap",
            // The deadlines are the deployed ones, except for those that would only make runs longer.
            "INSTALL_WITHIN" => "4h",
            "REMIND_BEFORE" => "1h",
            "REPORT_INSTALLED" => policy.reports,
            "SMDP_STATUS" if policy.smdp_has_status => "getProfileStatus",
            "SMDP_POINTS" if policy.has_points => "5=deleted,6=enabled,7=disabled",
            "SEALING_KEY" => return Some(stock::sealing_key()),
            "SETTLE_WITHIN" => "6h",
            "ASK_AFTER" => "10m",
            "CALL_REST" => "10m",
            // An earlier life of an ICCID ends a day before the next one, however wrong the clocks are.
            "SIM_REST" => "26h",
            "CODE_KEPT" => "12h",
            "CANCEL_WAIT" => "1s",
            "ALLOW_UNAUTHENTICATED_CALLBACKS" => "true",
            "FULFIL_SWAP" => "fulfil-swap",
            "DELIVER_ESIM" => "deliver-esim",
            "MAIL_CONFIGURATION_SET" if ses_reports => "simswap",
            _ => return None,
        };
        Some(value.to_owned())
    });
    let aws = aws_config(transport);
    let sealing_key = settings.parsed("SEALING_KEY", str::parse);
    let store = store(&aws).sealing_with(Some(sealing_key.expect("a public key")));
    let ses = aws_sdk_ses::config::Builder::from(&aws)
        .endpoint_url(Peer::Ses.url())
        .allow_no_auth()
        .build();
    let peers = Peers {
        smdp: transport.connector(),
        network: transport.connector(),
    };
    let lambda = ServiceClient::with_endpoint(&aws, Service::Lambda, Peer::Lambda.url());
    let complete = "the settings are complete";
    let functions = FunctionSet::new(&store, peers, &ses, lambda, clock, &settings).expect(complete);
    let mut handlers = functions.into_handlers();
    // Not a function: the command that an operator runs.
    let (clock, deadlines) = (clock.clone(), settings.deadlines().expect(complete));
    let import = events(move |event: LambdaEvent<Value>| {
        let (store, clock, deadlines) = (store.clone(), clock.clone(), deadlines.clone());
        async move { import(&store, &clock, &deadlines, &event.payload).await }
    });
    handlers.insert("import", import);
    handlers
}

/// Imports an existing line, with a response like a function's.
async fn import(store: &Store, clock: &ClockAndRng, deadlines: &Deadlines, row: &Value) -> Result<Value, StoreError> {
    let id = SubscriptionId::parse(row["line"].as_str().unwrap_or_default());
    let line = store.line(&id.expect("an id")).await?;
    let line = Line {
        state: row["state"].as_str().unwrap_or_default().parse().expect("a state"),
        porting: row["porting"] == true,
        ..line.expect("there is such a line").line
    };
    // An import without this column does not change the lock.
    let locked = row["locked"].as_bool();
    let open = store.update_line(&line, locked, deadlines, || clock.now());
    let body = match open.await? {
        OpenSwap::Stopped(id) => json!({"stopped": id.as_str()}),
        OpenSwap::GoesOn(id) => json!({"goesOn": id.as_str()}),
        OpenSwap::Undisturbed => json!({}),
    };
    let body = body.to_string();
    Ok(json!({"statusCode": 200, "body": body}))
}
