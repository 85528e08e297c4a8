//! The ground of every AWS client: credentials and region from the environment, one HTTP client for all.

use aws_config::{BehaviorVersion, SdkConfig};
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;

/// Reads the SDK's usual environment, `AWS_ENDPOINT_URL_*` included. Ring does the TLS: it needs no C toolchain beyond
/// the compiler and gathers no entropy at the first random number.
pub async fn sdk_config() -> SdkConfig {
    let http = Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .build_https();
    aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(http)
        .load()
        .await
}
