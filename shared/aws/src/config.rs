//! The configuration that all AWS clients share: credentials and region from the environment, timeouts, and one HTTP
//! client.

use std::time::Duration;
use std::{env, fs, io};

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_async::rt::sleep::{SharedAsyncSleep, TokioSleep};
use aws_smithy_runtime_api::client::behavior_version::BehaviorVersion;
use aws_smithy_runtime_api::client::http::{HttpClient, HttpConnectorSettings, SharedHttpConnector};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::timeout::TimeoutConfig;
use aws_types::SdkConfig;
use aws_types::region::Region;
use aws_types::service_config::{LoadServiceConfig, ServiceConfigKey};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::https::{HttpsConnector, tls};

/// The root certificates of all AWS endpoints, from <https://www.amazontrust.com/repository/>. The system's store has
/// 30 times as many, and reading those is most of the cost of building a client.
const AWS_ROOTS: &str = include_str!("aws-roots.pem");

/// How long connecting to AWS may take, with the TLS handshake.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);

/// How long a call to AWS may take: 3 s for each attempt and 10 s with all retries, so that a caller gets the
/// function's response before API Gateway times out. `deliver-esim` sets its own timeouts for SES.
pub fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder()
        .operation_attempt_timeout(Duration::from_secs(3))
        .operation_timeout(Duration::from_secs(10))
        .build()
}

/// The configuration of an AWS client, from the environment variables that Lambda sets. It does not use the SDK's own
/// loader, which also looks for profiles, files and metadata services, none of which a function has.
///
/// # Errors
/// Fails if `AWS_CA_BUNDLE` names a file that cannot be read, or that is no PEM file of certificates.
pub fn sdk_config() -> io::Result<SdkConfig> {
    let bundle = variable("AWS_CA_BUNDLE").map(|path| {
        let read = fs::read(path).map_err(|error| error.to_string());
        let roots = read.and_then(|pem| roots(&pem));
        roots.map_err(|error| io::Error::other(format!("AWS_CA_BUNDLE: {error}")))
    });
    let bundle = bundle.transpose()?;
    let mut config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .http_client(http_client(bundle))
        .service_config(Environment)
        .sleep_impl(SharedAsyncSleep::new(TokioSleep::new()))
        .timeout_config(timeouts());
    config.set_endpoint_url(variable("AWS_ENDPOINT_URL"));
    config.set_region(
        variable("AWS_REGION")
            .or_else(|| variable("AWS_DEFAULT_REGION"))
            .map(Region::new),
    );
    config.set_credentials_provider(credentials().map(SharedCredentialsProvider::new));
    Ok(config.build())
}

/// The HTTP client of AWS clients, which trusts the authorities in `bundle`, or AWS's own.
pub fn http_client(bundle: Option<RootCertStore>) -> impl HttpClient + Clone + 'static {
    AwsHttpClient(SharedHttpConnector::new(HttpsConnector::new(CONNECT_WITHIN, || {
        let own = || roots(AWS_ROOTS.as_bytes()).expect("the roots are PEM");
        tls(bundle.unwrap_or_else(own)).with_no_client_auth()
    })))
}

/// Gives all clients the same connector, and so the same pool of connections.
#[derive(Debug, Clone)]
struct AwsHttpClient(SharedHttpConnector);

impl HttpClient for AwsHttpClient {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        self.0.clone()
    }
}

/// The authorities in a PEM file.
fn roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| format!("not a PEM file: {error}"))?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    match roots.is_empty() {
        true => Err("no certificate in PEM".to_owned()),
        false => Ok(roots),
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
