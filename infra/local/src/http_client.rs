//! The HTTP client of the stack itself, for functions in other processes and for the SM-DP+. The functions have their
//! own clients.

use std::time::Duration;

use aws_smithy_runtime_api::client::http::{HttpConnector, SharedHttpConnector};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::body::SdkBody;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::{HeaderMap, StatusCode};
use operator::with_causes;
use peers::Access;

/// The largest response body, in bytes; larger than any response that is expected.
const RESPONSE_BYTES: usize = 16 * 1024 * 1024;

/// The longest time that Lambda lets a function run. `cargo lambda watch` also compiles it at the first call.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(900);

#[derive(Debug, Clone)]
pub(crate) struct HttpClient(SharedHttpConnector);

/// A response, with any status code.
pub(crate) struct HttpResponse {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl HttpClient {
    /// A client that presents the certificate of `access`.
    pub(crate) fn with(access: Access) -> Self {
        Self(access.connector())
    }

    pub(crate) fn new() -> Self {
        Self::with(Access::default())
    }

    /// Posts JSON. The error is the reason why there was no response.
    pub(crate) async fn post_json(&self, url: &str, json: impl Into<Bytes>) -> Result<HttpResponse, String> {
        let mut request = HttpRequest::new(SdkBody::from(json.into()));
        request.set_uri(url).map_err(|error| with_causes(&error))?;
        request.set_method("POST").map_err(|error| with_causes(&error))?;
        request.headers_mut().insert("content-type", "application/json");
        let response = tokio::time::timeout(RESPONSE_TIMEOUT, self.0.call(request)).await;
        let response = response.map_err(|_| "no response in time".to_owned())?;
        let response = response.map_err(|error| with_causes(&error))?;
        let (parts, body) = response
            .try_into_http1x()
            .map_err(|error| with_causes(&error))?
            .into_parts();
        let body = to_bytes(Body::new(body), RESPONSE_BYTES)
            .await
            .map_err(|error| with_causes(&error))?;
        Ok(HttpResponse {
            status: parts.status,
            headers: parts.headers,
            body,
        })
    }
}
