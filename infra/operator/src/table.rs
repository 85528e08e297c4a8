//! Connects to a deployed table, with the usual AWS credentials.

use aws_config::BehaviorVersion;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use store::Store;

use crate::CommandError;

/// Opens a table with the credentials and the region that the SDK finds in the environment and in the AWS configuration
/// files. `endpoint` is the URL of a DynamoDB other than AWS's own; `kms_key` is the id, ARN or alias of the key that
/// wraps the table's data keys.
///
/// # Errors
/// When the table cannot be reached.
pub async fn connect(endpoint: Option<&str>, table: &str, kms_key: String) -> Result<Store, CommandError> {
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .build_https();
    let sdk = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(http)
        .timeout_config(edge::timeouts())
        .load()
        .await;
    let mut dynamodb = aws_sdk_dynamodb::config::Builder::from(&sdk);
    if let Some(endpoint) = endpoint {
        dynamodb = dynamodb.endpoint_url(endpoint);
    }
    let store = Store::new(
        aws_sdk_dynamodb::Client::from_conf(dynamodb.build()),
        aws_sdk_kms::Config::new(&sdk),
        table,
        kms_key,
    );
    store.reach().await.map_err(|error| CommandError::with_causes(&error))?;
    Ok(store)
}
