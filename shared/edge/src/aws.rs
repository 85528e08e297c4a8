//! The ground of every AWS client: credentials and region from the environment, one HTTP client for all.

use std::time::Duration;

use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;

/// How long a call to AWS may take, its retries included, so that a caller gets our answer and not the gateway's. SES
/// has its own bound, in its one user.
pub fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder()
        .operation_attempt_timeout(Duration::from_secs(3))
        .operation_timeout(Duration::from_secs(10))
        .build()
}

/// Reads the SDK's usual environment, `AWS_ENDPOINT_URL_*` included. Ring does the TLS: it needs no C toolchain beyond
/// the compiler and gathers no entropy at the first random number.
pub async fn sdk_config() -> SdkConfig {
    let http = Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .build_https();
    aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(http)
        .timeout_config(timeouts())
        .load()
        .await
}
