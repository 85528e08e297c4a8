//! The functions' AWS clients, pointed at the parts of this stack. What they are used for is the functions' affair.

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::config::Credentials;
use aws_smithy_async::rt::sleep::{SharedAsyncSleep, TokioSleep};

/// Makes clients.
pub(crate) struct Clients {
    sdk: SdkConfig,
    kms: String,
}

impl Clients {
    /// `kms` is where the KMS listens. The parts speak HTTP, so that these clients need no certificates.
    pub(crate) fn of(kms: &str) -> Self {
        let sdk = SdkConfig::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::from_static("eu-central-1"))
            .credentials_provider(aws_sdk_dynamodb::config::SharedCredentialsProvider::new(
                Credentials::new("local", "local", None, None, "local"),
            ))
            .sleep_impl(SharedAsyncSleep::new(TokioSleep::new()))
            .timeout_config(edge::timeouts())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .build();
        let kms = kms.to_owned();
        Self { sdk, kms }
    }

    pub(crate) fn dynamodb(&self, url: &str) -> aws_sdk_dynamodb::Client {
        let config = aws_sdk_dynamodb::config::Builder::from(&self.sdk);
        aws_sdk_dynamodb::Client::from_conf(config.endpoint_url(url).build())
    }

    /// KMS's configuration: its client is the store's own.
    pub(crate) fn kms(&self) -> aws_sdk_kms::Config {
        aws_sdk_kms::config::Builder::from(&self.sdk)
            .endpoint_url(&self.kms)
            .build()
    }

    pub(crate) fn lambda(&self, url: &str) -> aws_sdk_lambda::Client {
        let config = aws_sdk_lambda::config::Builder::from(&self.sdk);
        aws_sdk_lambda::Client::from_conf(config.endpoint_url(url).build())
    }

    /// Secrets Manager's configuration: its client is made by who needs a secret.
    pub(crate) fn secrets(&self, url: &str) -> aws_sdk_secretsmanager::Config {
        aws_sdk_secretsmanager::config::Builder::from(&self.sdk)
            .endpoint_url(url)
            .build()
    }

    /// SES's configuration: its client is the sender's own.
    pub(crate) fn ses(&self, url: &str) -> aws_sdk_ses::Config {
        aws_sdk_ses::config::Builder::from(&self.sdk).endpoint_url(url).build()
    }
}
