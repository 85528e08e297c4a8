//! The HTTPS connector under every client, of AWS and of the peers: hyper's client, with rustls and ring.

use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector as Tcp;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use rustls::client::WantsClientCert;
use rustls::{ConfigBuilder, RootCertStore};

/// Time limit for the TCP connection, before TLS.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);

type HttpsClient = Client<hyper_rustls::HttpsConnector<Tcp>, SdkBody>;

/// Makes calls over HTTP/1.1, with TLS if the URL says so, and pools the connections.
pub struct HttpsConnector {
    client: LazyLock<HttpsClient, Box<dyn FnOnce() -> HttpsClient + Send>>,
}

impl HttpsConnector {
    /// `tls` is called at the first call, because reading root certificates is most of the cost of a connector.
    pub fn new(tls: impl FnOnce() -> ClientConfig + Send + 'static) -> Self {
        Self {
            client: LazyLock::new(Box::new(|| client(tls()))),
        }
    }
}

/// The start of a TLS configuration that trusts these authorities. The caller adds the client's certificate.
pub fn tls(roots: impl Into<Arc<RootCertStore>>) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has the suites of the default versions")
        .with_root_certificates(roots)
}

fn client(tls: ClientConfig) -> HttpsClient {
    let mut tcp = Tcp::new();
    tcp.set_connect_timeout(Some(CONNECT_WITHIN));
    tcp.set_nodelay(true);
    // The URL decides whether TLS is used. Only local and simulated services have none.
    tcp.enforce_http(false);
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp);
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .build(connector)
}

impl fmt::Debug for HttpsConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HttpsConnector")
    }
}

impl HttpConnector for HttpsConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let client = self.client.clone();
        HttpConnectorFuture::new(async move {
            let user = |error| ConnectorError::user(Box::new(error));
            let request = request.try_into_http1x().map_err(user)?;
            let response = client.request(request).await;
            let response = response.map_err(|error| ConnectorError::io(error.into()))?;
            HttpResponse::try_from(response.map(SdkBody::from_body_1_x)).map_err(user)
        })
    }
}
