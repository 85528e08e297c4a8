//! The configuration that all AWS clients share: credentials and region from the environment, timeouts, and one HTTP
//! client.

use std::time::Duration;
use std::{env, fs, io};

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_async::rt::sleep::{SharedAsyncSleep, TokioSleep};
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_runtime_api::client::behavior_version::BehaviorVersion;
use aws_smithy_runtime_api::client::connector_metadata::ConnectorMetadata;
use aws_smithy_runtime_api::client::http::{HttpClient, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::timeout::TimeoutConfig;
use aws_types::SdkConfig;
use aws_types::region::Region;
use aws_types::service_config::{LoadServiceConfig, ServiceConfigKey};

/// The root certificates of all AWS endpoints, from <https://www.amazontrust.com/repository/>. The system's store has
/// 30 times as many, and reading those is most of the cost of building a client.
const AWS_ROOTS: &str = include_str!("aws-roots.pem");

/// How long a call to AWS may take: 3 s for each attempt and 10 s with all retries, so that a caller gets the
/// function's response before API Gateway times out. `deliver-esim` sets its own timeouts for SES.
pub fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder()
        .operation_attempt_timeout(Duration::from_secs(3))
        .operation_timeout(Duration::from_secs(10))
        .build()
}

/// The configuration of an AWS client, from the environment variables that Lambda sets. It does not use the SDK's own
/// loader, which also looks for profiles, files and metadata services, none of which a function has. Ring does the TLS:
/// it needs no C toolchain beyond the compiler, and does not gather entropy at the first random number.
///
/// # Errors
/// Fails if `AWS_CA_BUNDLE` names a file that cannot be read.
pub fn sdk_config() -> io::Result<SdkConfig> {
    let roots = match variable("AWS_CA_BUNDLE") {
        Some(path) => fs::read(path).map_err(|error| io::Error::other(format!("AWS_CA_BUNDLE: {error}")))?,
        None => AWS_ROOTS.into(),
    };
    let trusted = TrustStore::empty().with_pem_certificate(roots);
    let tls = TlsContext::builder().with_trust_store(trusted).build();
    let http = Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .tls_context(tls.map_err(io::Error::other)?)
        .build_https();
    let mut config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .http_client(LazyHttpClient(http))
        .service_config(Environment)
        .sleep_impl(SharedAsyncSleep::new(TokioSleep::new()))
        .timeout_config(timeouts());
    config.set_endpoint_url(variable("AWS_ENDPOINT_URL"));
    config.set_region(variable("AWS_REGION").map(Region::new));
    config.set_credentials_provider(credentials().map(SharedCredentialsProvider::new));
    Ok(config.build())
}

/// The SDK's HTTP client, without its check that a connector can be built: the SDK makes that check for each client of
/// a service. The connector is built at the first call.
#[derive(Debug)]
struct LazyHttpClient(SharedHttpClient);

impl HttpClient for LazyHttpClient {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        self.0.http_connector(settings, components)
    }

    fn connector_metadata(&self) -> Option<ConnectorMetadata> {
        self.0.connector_metadata()
    }
}

/// The credentials of the function's role. They need no refresh: Lambda ends a sandbox before they expire.
fn credentials() -> Option<Credentials> {
    let (id, secret) = (variable("AWS_ACCESS_KEY_ID")?, variable("AWS_SECRET_ACCESS_KEY")?);
    let token = variable("AWS_SESSION_TOKEN");
    Some(Credentials::new(id, secret, token, None, "environment"))
}

/// The settings of single services, for example `AWS_ENDPOINT_URL_DYNAMODB`.
#[derive(Debug)]
struct Environment;

impl LoadServiceConfig for Environment {
    fn load_config(&self, key: ServiceConfigKey<'_>) -> Option<String> {
        let service = key.service_id().replace(' ', "_").to_uppercase();
        variable(&format!("{}_{service}", key.env()))
    }
}

/// An environment variable. An empty one counts as absent.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}
