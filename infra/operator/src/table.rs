//! Connects to a deployment, with the usual AWS credentials: to its table, and to its dead-letter queue.

use aws::{Service, ServiceClient};
use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_dynamodb::config::ProvideCredentials;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use store::Store;

use crate::replay::DeadLetterQueue;
use crate::{CommandError, with_causes};

/// Opens a table. `endpoint` is the URL of a DynamoDB other than AWS's own; `kms_key` is the id, ARN or alias of the key
/// that wraps the table's data keys; `installation` is as for [`Store::of_installation`].
///
/// # Errors
/// When there are no credentials, or the table cannot be reached.
pub async fn connect(
    endpoint: Option<&str>,
    table: &str,
    kms_key: String,
    installation: String,
) -> Result<Store, CommandError> {
    let sdk = load().await?;
    let mut dynamodb = aws_sdk_dynamodb::config::Builder::from(&sdk);
    if let Some(endpoint) = endpoint {
        dynamodb = dynamodb.endpoint_url(endpoint);
    }
    let store = Store::new(
        aws_sdk_dynamodb::Client::from_conf(dynamodb.build()),
        ServiceClient::new(&sdk, Service::Kms),
        table,
        kms_key,
    )
    .of_installation(installation);
    store.reach().await.map_err(|error| CommandError::with_causes(&error))?;
    Ok(store)
}

/// The dead-letter queue of a deployment, by its URL. `mail_events` is the name of that function.
///
/// # Errors
/// When there are no credentials.
pub async fn dead_letter_queue(url: String, mail_events: String) -> Result<DeadLetterQueue, CommandError> {
    let sdk = load().await?;
    Ok(DeadLetterQueue {
        sqs: ServiceClient::new(&sdk, Service::Sqs),
        lambda: ServiceClient::new(&sdk, Service::Lambda),
        url,
        mail_events,
    })
}

/// The credentials and the region that the SDK finds in the environment and in the AWS configuration files.
async fn load() -> Result<SdkConfig, CommandError> {
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .build_https();
    let sdk = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(http)
        .timeout_config(aws::timeouts())
        .load()
        .await;
    check(&sdk).await?;
    Ok(sdk)
}

/// Checks what every call needs, because the error of a call would name neither the setting nor the way out.
async fn check(sdk: &SdkConfig) -> Result<(), CommandError> {
    if sdk.region().is_none() {
        return Err(CommandError(
            "no AWS region is set; set AWS_REGION, or the region of your profile".to_owned(),
        ));
    }
    let cause = match sdk.credentials_provider() {
        Some(provider) => match provider.provide_credentials().await {
            Ok(_) => return Ok(()),
            Err(error) => with_causes(&error),
        },
        None => "there is no provider".to_owned(),
    };
    Err(CommandError(format!(
        "no AWS credentials can be used ({cause}); sign in, for example with 'aws sso login', or set AWS_PROFILE, or \
         AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    )))
}

#[cfg(test)]
mod tests {
    use aws_config::Region;
    use aws_sdk_dynamodb::config::{Credentials, SharedCredentialsProvider};

    use super::*;

    #[tokio::test]
    async fn a_missing_region_or_credentials_are_named() {
        let region = || SdkConfig::builder().region(Region::from_static("eu-central-1"));
        let credentials = SharedCredentialsProvider::new(Credentials::new("id", "secret", None, None, "test"));
        for (sdk, fault) in [
            (SdkConfig::builder(), Some("AWS_REGION")),
            (region(), Some("AWS_PROFILE")),
            (region().credentials_provider(credentials), None),
        ] {
            let checked = check(&sdk.build()).await.map_err(|error| error.to_string());
            match (checked, fault) {
                (Ok(()), None) => {}
                (Err(error), Some(setting)) => assert!(error.contains(setting), "{error}"),
                (checked, _) => panic!("{checked:?}"),
            }
        }
    }
}
