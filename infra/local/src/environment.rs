//! The settings that the functions receive as environment variables, and the file that stores them. What each setting
//! means is in `infra/README.md`.

use std::collections::BTreeMap;
use std::path::Path;

use simulators::SMDP_ADDRESS;
use store::SealingKey;

use crate::endpoints::Endpoints;
use crate::mtls::Mtls;
use crate::{StartError, data_dir, kms};

/// The name of the secret with the certificate that the service presents to both peers.
pub(crate) const SERVICE_CERTIFICATE: &str = "simswap/peers";
/// The file in the data directory that stores the settings, for `cargo lambda watch --env-file`.
const FILE: &str = "functions.env";

/// The settings of a local stack, by name. Its deadlines are short.
pub(crate) fn settings(
    endpoints: &Endpoints,
    secrets_url: &str,
    sqs_url: &str,
    mtls: Option<&Mtls>,
    sealing_key: &SealingKey,
) -> Result<BTreeMap<String, String>, StartError> {
    let sealing_key = sealing_key.to_string();
    let mut settings = BTreeMap::from([
        ("ALLOW_UNAUTHENTICATED_CALLBACKS", "true"),
        ("ASK_AFTER", "2s"),
        ("CALL_REST", "5s"),
        ("ASK_AT_MOST", "30s"),
        ("AWS_ACCESS_KEY_ID", "local"),
        ("AWS_ENDPOINT_URL_DYNAMODB", &endpoints.dynamodb),
        ("AWS_ENDPOINT_URL_KMS", &endpoints.kms),
        ("AWS_ENDPOINT_URL_LAMBDA", &endpoints.lambda),
        ("AWS_ENDPOINT_URL_SECRETS_MANAGER", secrets_url),
        ("AWS_ENDPOINT_URL_SES", &endpoints.ses),
        // Not for the functions, but for `replay`.
        ("AWS_ENDPOINT_URL_SQS", sqs_url),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_SECRET_ACCESS_KEY", "local"),
        ("BRAND", "Simswap"),
        ("DELIVER_ESIM", "deliver-esim"),
        ("FULFIL_SWAP", "fulfil-swap"),
        ("KMS_KEY_ID", kms::ALIAS),
        ("LEASE", "5s"),
        ("MAIL_CONFIGURATION_SET", "simswap"),
        ("MAIL_DOUBT", "5s"),
        ("MAIL_FROM", "Simswap <esim@simswap.example>"),
        ("MAIL_REPLY_TO", "help@simswap.example"),
        ("MAIL_RETRY_AFTER", "1s"),
        ("NETWORK_URL", &endpoints.network),
        ("RETRY_AFTER", "250ms"),
        ("SEALING_KEY", &sealing_key),
        ("SETTLE_WITHIN", "30s"),
        ("SMDP_ADDRESS", SMDP_ADDRESS),
        ("SMDP_REQUESTER_ID", "1.3.6.1.4.1.99999.1"),
        ("SMDP_URL", &endpoints.smdp),
        ("STOCK_LOW", "5"),
        ("SUPPORT_CONTACT", "+31 20 123 4567 https://simswap.example/help"),
        ("TABLE", &endpoints.table),
    ]);
    let subjects = match mtls {
        None => None,
        Some(mtls) => Some((mtls.network.subject()?, mtls.smdp.subject()?)),
    };
    if let Some((network, smdp)) = &subjects {
        settings.extend([
            ("ALLOW_UNAUTHENTICATED_CALLBACKS", "false"),
            ("NETWORK_CLIENT_CERT", SERVICE_CERTIFICATE),
            ("NETWORK_SUBJECT", network),
            ("SMDP_CLIENT_CERT", SERVICE_CERTIFICATE),
            ("SMDP_SUBJECT", smdp),
        ]);
    }
    let owned = settings.into_iter();
    Ok(owned.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

/// Writes the settings to the data directory.
pub(crate) fn write(data_dir: &Path, settings: &BTreeMap<String, String>) -> Result<(), StartError> {
    // Quoted, because an unquoted value would end at a space.
    let text: String = settings
        .iter()
        .map(|(name, value)| format!("{name}={value:?}\n"))
        .collect();
    let file = data_dir.join(FILE);
    std::fs::write(&file, text).map_err(|error| data_dir::unusable(&file, &error))
}

/// Reads the settings that the stack of this data directory wrote at its last start, without the quotes.
pub(crate) fn read(data_dir: &Path) -> Result<BTreeMap<String, String>, StartError> {
    let file = data_dir.join(FILE);
    let text = std::fs::read_to_string(&file).map_err(|error| data_dir::unusable(&file, &error))?;
    let settings = text.lines().filter_map(|line| line.split_once('='));
    let settings = settings.map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned()));
    Ok(settings.collect())
}
