//! The AWS clients of the functions, configured for the parts of this stack.

use aws::{SdkConfig, Service, ServiceClient};
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region, SharedCredentialsProvider};
use aws_smithy_async::rt::sleep::{SharedAsyncSleep, TokioSleep};

/// Creates clients.
pub(crate) struct Clients {
    sdk: SdkConfig,
    kms: String,
}

impl Clients {
    /// `kms` is the URL of the KMS. The clients need no root certificates, because the parts speak plain HTTP.
    pub(crate) fn of(kms: &str) -> Self {
        let sdk = sdk().into_builder().timeout_config(aws::timeouts()).build();
        let kms = kms.to_owned();
        Self { sdk, kms }
    }

    pub(crate) fn dynamodb(&self, url: &str) -> aws_sdk_dynamodb::Client {
        let config = aws_sdk_dynamodb::config::Builder::from(&self.sdk);
        aws_sdk_dynamodb::Client::from_conf(config.endpoint_url(url).build())
    }

    pub(crate) fn kms(&self) -> ServiceClient {
        ServiceClient::with_endpoint(&self.sdk, Service::Kms, &self.kms)
    }

    pub(crate) fn lambda(&self, url: &str) -> ServiceClient {
        ServiceClient::with_endpoint(&self.sdk, Service::Lambda, url)
    }

    pub(crate) fn secrets(&self, url: &str) -> ServiceClient {
        ServiceClient::with_endpoint(&self.sdk, Service::SecretsManager, url)
    }

    pub(crate) fn sqs(&self, url: &str) -> ServiceClient {
        ServiceClient::with_endpoint(&self.sdk, Service::Sqs, url)
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
        .http_client(aws::http_client(None))
        .build()
}
