//! Connects to a deployment, with the usual AWS credentials: to its table, and to its dead-letter queue.

use aws::{SdkConfig, Service, ServiceClient};
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use store::Store;

use crate::aws_cli::AwsCli;
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
    store
        .check_form()
        .await
        .map_err(|error| CommandError::with_causes(&error))?;
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

/// The credentials and the region that the environment variables name, or else those that the AWS CLI uses.
async fn load() -> Result<SdkConfig, CommandError> {
    let sdk = aws::sdk_config().map_err(|error| CommandError::with_causes(&error))?;
    complete(sdk, AwsCli::new("aws")).await
}

/// Adds what the environment variables do not name, and checks what every call needs, because the error of a call would
/// name neither the setting nor the way out.
async fn complete(mut sdk: SdkConfig, cli: AwsCli) -> Result<SdkConfig, CommandError> {
    if sdk.region().is_none() {
        let region = cli.region().await.map_err(|error| {
            CommandError(format!(
                "no AWS region is set ({error}); set AWS_REGION, or the region of your profile"
            ))
        })?;
        sdk = sdk.into_builder().region(region).build();
    }
    if sdk.credentials_provider().is_none() {
        cli.provide_credentials().await.map_err(|error| {
            CommandError(format!(
                "no AWS credentials can be used ({}); sign in, for example with 'aws sso login', or set AWS_PROFILE, \
                 or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
                with_causes(&error)
            ))
        })?;
        let provider = SharedCredentialsProvider::new(cli);
        sdk = sdk.into_builder().credentials_provider(provider).build();
    }
    Ok(sdk)
}

#[cfg(test)]
mod tests {
    use aws_credential_types::Credentials;
    use aws_sdk_dynamodb::config::Region;

    use super::*;
    use crate::aws_cli::script;

    const SIGNED_IN: &str = r#"case "$*" in
        "configure get region") echo eu-west-1 ;;
        "configure export-credentials --format process")
            echo '{"Version": 1, "AccessKeyId": "id of the CLI", "SecretAccessKey": "secret"}' ;;
        esac"#;

    async fn access_key(sdk: &SdkConfig) -> String {
        let provider = sdk.credentials_provider().expect("a provider");
        let credentials = provider.provide_credentials().await.expect("credentials");
        credentials.access_key_id().to_owned()
    }

    #[tokio::test]
    async fn the_cli_supplies_what_the_environment_does_not_name() {
        let directory = tempfile::tempdir().expect("a directory");
        let cli = || AwsCli::new(script(&directory, SIGNED_IN));

        let sdk = complete(SdkConfig::builder().build(), cli()).await.expect("complete");
        assert_eq!(sdk.region().map(AsRef::as_ref), Some("eu-west-1"));
        assert_eq!(access_key(&sdk).await, "id of the CLI");

        let named = SdkConfig::builder()
            .region(Region::from_static("eu-central-1"))
            .credentials_provider(SharedCredentialsProvider::new(Credentials::new(
                "id", "secret", None, None, "test",
            )));
        let sdk = complete(named.build(), cli()).await.expect("complete");
        assert_eq!(sdk.region().map(AsRef::as_ref), Some("eu-central-1"));
        assert_eq!(access_key(&sdk).await, "id");
    }

    #[tokio::test]
    async fn a_missing_region_or_credentials_are_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let region = || SdkConfig::builder().region(Region::from_static("eu-central-1"));
        let expired = "echo 'The SSO session has expired.' >&2; exit 255";
        for (sdk, cli, named) in [
            (SdkConfig::builder(), script(&directory, "exit 1"), "AWS_REGION"),
            (
                SdkConfig::builder(),
                script(&directory, "echo 'No profile x.' >&2; exit 255"),
                "No profile x.",
            ),
            (region(), script(&directory, expired), "The SSO session has expired."),
            (region(), script(&directory, "echo no JSON"), "AWS_PROFILE"),
            (region(), directory.path().join("missing"), "AWS_ACCESS_KEY_ID"),
        ] {
            let error = complete(sdk.build(), AwsCli::new(cli)).await.expect_err("not complete");
            assert!(error.to_string().contains(named), "{error}");
        }
    }
}
