//! A proxy between the functions and a peer or service that they call. It loses, delays or replaces single requests and
//! responses on demand. It does not interpret their bodies.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::body::Bytes;
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};

use crate::http::{self, BoxError, Client};

/// What happens to one request.
#[derive(Debug, Clone)]
pub enum ProxyFault {
    /// The request does not arrive.
    LoseRequest,
    /// The peer executes the request; the response is lost.
    LoseResponse,
    /// The peer executes the request; the response is delayed by this time.
    Late(Duration),
    /// The request does not arrive; the proxy responds with this status and body.
    Respond(u16, String),
}

/// Listens at `url` and forwards each request to a peer, apart from the planned faults.
#[derive(Clone)]
pub struct FaultyProxy {
    /// The base URL for the functions' settings.
    pub url: String,
    state: Arc<Mutex<State>>,
    client: Client,
}

#[derive(Default)]
struct State {
    peer: Option<String>,
    planned: Vec<(String, ProxyFault)>,
    /// The received request lines, `GET /path?query`.
    received: Vec<String>,
}

/// Closes a connection without a response.
#[derive(Debug, thiserror::Error)]
#[error("the proxy closes the connection")]
struct Closed;

impl FaultyProxy {
    /// A proxy without a peer: until it is connected, no request arrives.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn new() -> Self {
        let (listener, url) = http::listen().await;
        let proxy = Self {
            url,
            state: Arc::default(),
            client: Client::new(),
        };
        let server = proxy.clone();
        tokio::spawn(http::serve(listener, move |parts, body| {
            let server = server.clone();
            async move { server.forward(parts, body).await }
        }));
        proxy
    }

    /// Forwards requests to the peer with this base URL from here on.
    pub fn connect(&self, peer: &str) {
        self.state().peer = Some(peer.to_owned());
    }

    /// Loses all requests from here on.
    pub fn disconnect(&self) {
        self.state().peer = None;
    }

    /// Plans a fault for one request: the next whose line, `POST /path?query`, contains `text`.
    pub fn plan(&self, text: &str, fault: ProxyFault) {
        self.state().planned.push((text.to_owned(), fault));
    }

    /// Whether all planned faults have happened.
    pub fn is_spent(&self) -> bool {
        self.state().planned.is_empty()
    }

    /// The number of received requests whose line contains `text`.
    pub fn count(&self, text: &str) -> usize {
        let state = self.state();
        state.received.iter().filter(|line| line.contains(text)).count()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn forward(&self, parts: Parts, body: Bytes) -> Result<Response<Bytes>, BoxError> {
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
        let (peer, fault) = self.receive(format!("{} {target}", parts.method));
        match &fault {
            Some(ProxyFault::LoseRequest) => return Err(Closed.into()),
            Some(ProxyFault::Respond(status, body)) => {
                let mut response = Response::new(Bytes::from(body.clone()));
                *response.status_mut() = StatusCode::from_u16(*status)?;
                return Ok(response);
            }
            Some(ProxyFault::LoseResponse | ProxyFault::Late(_)) | None => {}
        }
        let uri = format!("{}{target}", peer.ok_or(Closed)?).parse()?;
        let response = self.client.forward(parts, body, uri).await?;
        match fault {
            None => Ok(response),
            Some(ProxyFault::Late(by)) => {
                tokio::time::sleep(by).await;
                Ok(response)
            }
            Some(_) => Err(Closed.into()),
        }
    }

    /// Records a request line. Returns the peer's base URL and the request's fault.
    fn receive(&self, line: String) -> (Option<String>, Option<ProxyFault>) {
        let mut state = self.state();
        let place = state.planned.iter().position(|(text, _)| line.contains(text));
        let fault = place.map(|place| state.planned.remove(place).1);
        state.received.push(line);
        (state.peer.clone(), fault)
    }
}
