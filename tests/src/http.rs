//! HTTP of the tests: the one client, and the server that the proxies and the foreign peers share.

use std::convert::Infallible;
use std::error::Error;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_LENGTH, HOST};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, Uri};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

/// Why a request was not served. The server then closes the connection without a response.
pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// The same as a type of its own, because hyper's futures are not `Send` with a boxed error.
#[derive(Debug, thiserror::Error)]
#[error("the request was not served: {0}")]
struct NotServed(BoxError);

/// A client with its own pool of connections.
#[derive(Clone)]
pub(crate) struct Client(hyper_util::client::legacy::Client<HttpConnector, Full<Bytes>>);

impl Client {
    pub(crate) fn new() -> Self {
        Self(hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http())
    }

    /// Sends `request` and reads the whole response.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, BoxError> {
        let (parts, body) = self.0.request(request).await?.into_parts();
        Ok(Response::from_parts(parts, body.collect().await?.to_bytes()))
    }

    /// Forwards a request with `body` to `uri`.
    pub(crate) async fn forward(&self, mut parts: Parts, body: Bytes, uri: Uri) -> Result<Response<Bytes>, BoxError> {
        parts.uri = uri;
        parts.headers.remove(HOST);
        parts.headers.remove(CONTENT_LENGTH);
        self.send(Request::from_parts(parts, Full::new(body))).await
    }
}

/// A listener on a free port of the loopback address, and its base URL.
///
/// # Panics
/// When there is no free port.
pub(crate) async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("the listener has an address");
    (listener, format!("http://{address}"))
}

/// Serves every request with `handle`, which gets the whole body.
pub(crate) async fn serve<H, F>(listener: TcpListener, handle: H) -> Infallible
where
    H: Fn(Parts, Bytes) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Response<Bytes>, BoxError>> + Send,
{
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let handle = handle.clone();
        tokio::spawn(async move {
            let service = service_fn(|request: Request<Incoming>| async {
                let (parts, body) = request.into_parts();
                let body = match body.collect().await {
                    Ok(body) => body.to_bytes(),
                    Err(error) => return Err(NotServed(error.into())),
                };
                let response = handle(parts, body).await;
                response.map(|response| response.map(Full::new)).map_err(NotServed)
            });
            // An error means that the connection ended, which is what the tests plan.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}
