//! The AWS clients of the functions, configured for the parts of this stack.

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::config::{Credentials, SharedCredentialsProvider};
use aws_smithy_async::rt::sleep::{SharedAsyncSleep, TokioSleep};

/// Creates clients.
pub(crate) struct Clients {
    sdk: SdkConfig,
    kms: String,
}

impl Clients {
    /// `kms` is the URL of the KMS. The clients need no root certificates, because the parts speak plain HTTP.
    pub(crate) fn of(kms: &str) -> Self {
        let sdk = sdk().into_builder().timeout_config(edge::timeouts()).build();
        let kms = kms.to_owned();
        Self { sdk, kms }
    }

    pub(crate) fn dynamodb(&self, url: &str) -> aws_sdk_dynamodb::Client {
        let config = aws_sdk_dynamodb::config::Builder::from(&self.sdk);
        aws_sdk_dynamodb::Client::from_conf(config.endpoint_url(url).build())
    }

    /// The configuration of the KMS client, which the store creates.
    pub(crate) fn kms(&self) -> aws_sdk_kms::Config {
        aws_sdk_kms::config::Builder::from(&self.sdk)
            .endpoint_url(&self.kms)
            .build()
    }

    pub(crate) fn lambda(&self, url: &str) -> aws_sdk_lambda::Client {
        let config = aws_sdk_lambda::config::Builder::from(&self.sdk);
        aws_sdk_lambda::Client::from_conf(config.endpoint_url(url).build())
    }

    /// The configuration of the Secrets Manager client, which is created when a secret is needed.
    pub(crate) fn secrets(&self, url: &str) -> aws_sdk_secretsmanager::Config {
        aws_sdk_secretsmanager::config::Builder::from(&self.sdk)
            .endpoint_url(url)
            .build()
    }

    /// The configuration of the SES client, which deliver-esim creates.
    pub(crate) fn ses(&self, url: &str) -> aws_sdk_ses::Config {
        aws_sdk_ses::config::Builder::from(&self.sdk).endpoint_url(url).build()
    }
}

/// The configuration that all clients share, without timeouts.
pub(crate) fn sdk() -> SdkConfig {
    let credentials = Credentials::new("local", "local", None, None, "local");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::from_static("eu-central-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .sleep_impl(SharedAsyncSleep::new(TokioSleep::new()))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build()
}
