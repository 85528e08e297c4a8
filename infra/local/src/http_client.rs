//! The HTTP client of the stack itself: it speaks to functions that run elsewhere and to the SM-DP+. The functions have their own.

use std::time::Duration;

use aws_smithy_async::rt::sleep::TokioSleep;
use aws_smithy_http_client::Connector;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorSettings, SharedHttpConnector};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::body::SdkBody;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::{HeaderMap, StatusCode};
use peers::Access;

/// More than any answer this client waits for.
const ANSWER_BYTES: usize = 16 * 1024 * 1024;

#[derive(Debug, Clone)]
pub(crate) struct HttpClient(SharedHttpConnector);

/// What came back, whatever its status.
pub(crate) struct HttpResponse {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl HttpClient {
    /// One that shows a certificate.
    pub(crate) fn with(access: Access) -> Self {
        Self(access.connector())
    }

    pub(crate) fn new() -> Self {
        let settings = HttpConnectorSettings::builder()
            .connect_timeout(Duration::from_secs(5))
            // The longest that a function may run; `cargo lambda watch` compiles it at the first call, too.
            .read_timeout(Duration::from_secs(900))
            .build();
        let connector = Connector::builder()
            .connector_settings(settings)
            .sleep_impl(TokioSleep::new())
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .build();
        Self(SharedHttpConnector::new(connector))
    }

    /// Posts JSON. The error says that there was no answer, and why.
    pub(crate) async fn post_json(&self, url: &str, json: impl Into<Bytes>) -> Result<HttpResponse, String> {
        let mut request = HttpRequest::new(SdkBody::from(json.into()));
        request.set_uri(url).map_err(|error| chain(&error))?;
        request.set_method("POST").map_err(|error| chain(&error))?;
        request.headers_mut().insert("content-type", "application/json");
        let response = self.0.call(request).await.map_err(|error| chain(&error))?;
        let (parts, body) = response.try_into_http1x().map_err(|error| chain(&error))?.into_parts();
        let body = to_bytes(Body::new(body), ANSWER_BYTES)
            .await
            .map_err(|error| chain(&error))?;
        Ok(HttpResponse {
            status: parts.status,
            headers: parts.headers,
            body,
        })
    }
}

/// An error with its causes, for those of this client name the cause only there.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
