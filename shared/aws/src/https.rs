//! The HTTPS connector under every client, of AWS and of the peers: hyper's client, with rustls and ring.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Duration;

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::connection::{CaptureSmithyConnection, ConnectionMetadata};
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use http::Uri;
use hyper_rustls::{HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{CaptureConnection, HttpConnector as Tcp, capture_connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::client::WantsClientCert;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};
use tokio::net::TcpStream;
use tower_service::Service;

type HttpsClient = Client<Connect, SdkBody>;

/// Makes calls over HTTP/1.1, with TLS if the URL says so, and pools the connections.
pub struct HttpsConnector {
    client: LazyLock<HttpsClient, Box<dyn FnOnce() -> HttpsClient + Send>>,
}

impl HttpsConnector {
    /// A connection with its TLS handshake has to be established `within` this time. `tls` is called at the first call,
    /// because reading root certificates is most of the cost of a connector.
    pub fn new(within: Duration, tls: impl FnOnce() -> ClientConfig + Send + 'static) -> Self {
        Self {
            client: LazyLock::new(Box::new(move || client(within, tls()))),
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

fn client(within: Duration, tls: ClientConfig) -> HttpsClient {
    let mut tcp = Tcp::new();
    // Divided among the addresses of the host.
    tcp.set_connect_timeout(Some(within));
    tcp.set_nodelay(true);
    // The URL decides whether TLS is used. Only local and simulated services have none.
    tcp.enforce_http(false);
    let https = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp);
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .build(Connect { https, within })
}

/// Establishes connections: resolves the name, connects and shakes hands, all within one time limit. A call that fails
/// here has certainly not been made, unlike one that times out later.
#[derive(Clone)]
struct Connect {
    https: hyper_rustls::HttpsConnector<Tcp>,
    within: Duration,
}

type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;

impl Service<Uri> for Connect {
    type Response = Stream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.https.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connected = tokio::time::timeout(self.within, self.https.call(uri));
        Box::pin(async { connected.await.map_err(|_| "no connection in time")? })
    }
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
            let mut request = request.try_into_http1x().map_err(user)?;
            let connection = capture_connection(&mut request);
            if let Some(capture) = request.extensions().get::<CaptureSmithyConnection>() {
                capture.set_connection_retriever(move || Some(metadata(&connection)));
            }
            let response = client.request(request).await;
            let response = response.map_err(|error| ConnectorError::io(error.into()))?;
            HttpResponse::try_from(response.map(SdkBody::from_body_1_x)).map_err(user)
        })
    }
}

/// What lets the SDK close the connection of a response that was a server's error, so that its retry uses another.
fn metadata(connection: &CaptureConnection) -> ConnectionMetadata {
    let connection = connection.clone();
    let close = move || {
        if let Some(connected) = connection.connection_metadata().as_ref() {
            connected.poison();
        }
    };
    ConnectionMetadata::builder().proxied(false).poison_fn(close).build()
}

#[cfg(test)]
mod tests {
    use std::error::Error;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn connector() -> HttpsConnector {
        HttpsConnector::new(Duration::from_millis(100), || {
            tls(RootCertStore::empty()).with_no_client_auth()
        })
    }

    fn get(url: &str) -> HttpRequest {
        let mut request = HttpRequest::empty();
        request.set_uri(url).unwrap();
        request
    }

    #[tokio::test]
    async fn a_connection_is_used_again_until_the_sdk_closes_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let connections = Arc::new(AtomicUsize::new(0));
        let accepted = connections.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(async move {
                    while stream.read(&mut [0; 1024]).await.is_ok_and(|read| read > 0) {
                        let response = b"HTTP/1.1 500 Error\r\ncontent-length: 0\r\n\r\n";
                        stream.write_all(response).await.unwrap();
                    }
                });
            }
        });

        let connector = connector();
        let capture = CaptureSmithyConnection::new();
        for _ in 0..2 {
            let mut request = get(&url);
            request.add_extension(capture.clone());
            assert_eq!(connector.call(request).await.unwrap().status().as_u16(), 500);
        }
        assert_eq!(connections.load(Ordering::Relaxed), 1);

        capture.get().expect("a connection").poison();
        connector.call(get(&url)).await.unwrap();
        assert_eq!(connections.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn a_handshake_that_stalls_is_a_failed_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let error = connector().call(get(&url)).await.unwrap_err();
        let cause = error.source().and_then(|cause| cause.downcast_ref());
        assert!(
            cause.is_some_and(hyper_util::client::legacy::Error::is_connect),
            "{error:?}"
        );
    }
}
