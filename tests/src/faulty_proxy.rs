//! A wire between the functions and a part that they call, which can be made to fail. It knows nothing of what is said on it.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

/// What becomes of one request.
#[derive(Debug, Clone)]
pub enum ProxyFault {
    /// It does not arrive.
    LoseRequest,
    /// It arrives and is carried out; its answer is lost.
    LoseAnswer,
    /// It arrives and is carried out; its answer takes so much longer.
    Late(Duration),
    /// It does not arrive; this status and body are the answer.
    Answer(u16, String),
}

/// Listens at `url` and passes on to a peer, with the faults that are planned.
#[derive(Clone)]
pub struct FaultyProxy {
    /// Where the functions are to call.
    pub url: String,
    state: Arc<Mutex<State>>,
    client: Client<HttpConnector, Full<Bytes>>,
}

#[derive(Default)]
struct State {
    peer: Option<String>,
    planned: Vec<(String, ProxyFault)>,
    /// Request lines that came, `GET /path?query`.
    seen: Vec<String>,
}

/// Ends a connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the wire is cut")]
struct Cut;

impl FaultyProxy {
    /// A wire that leads nowhere yet: until it is connected, requests do not arrive.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it listens");
        let wire = Self {
            url: format!("http://{address}"),
            state: Arc::default(),
            client: Client::builder(TokioExecutor::new()).build_http(),
        };
        tokio::spawn(wire.clone().serve(listener));
        wire
    }

    /// From now on requests arrive at the peer with this base URL.
    pub fn connect(&self, peer: &str) {
        self.state().peer = Some(peer.to_owned());
    }

    /// From now on requests do not arrive.
    pub fn cut(&self) {
        self.state().peer = None;
    }

    /// Plans a fault for one request: the next whose line, `POST /path?query`, holds `text`.
    pub fn plan(&self, text: &str, fault: ProxyFault) {
        self.state().planned.push((text.to_owned(), fault));
    }

    /// Whether all planned faults have happened.
    pub fn is_spent(&self) -> bool {
        self.state().planned.is_empty()
    }

    /// How many requests came whose line holds `text`.
    pub fn count(&self, text: &str) -> usize {
        let state = self.state();
        state.seen.iter().filter(|line| line.contains(text)).count()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn serve(self, listener: TcpListener) -> Infallible {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                continue;
            };
            let wire = self.clone();
            tokio::spawn(async move {
                let pass = service_fn(|request| wire.pass(request));
                // A connection that is cut ends in an error, which is the purpose.
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), pass).await;
            });
        }
    }

    async fn pass(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Cut> {
        let target = request.uri().path_and_query();
        let target = target.map_or("/", |target| target.as_str()).to_owned();
        let (peer, fault) = self.take(format!("{} {target}", request.method()));
        match &fault {
            Some(ProxyFault::LoseRequest) => return Err(Cut),
            Some(ProxyFault::Answer(status, body)) => {
                let mut answer = Response::new(Full::from(body.clone()));
                *answer.status_mut() = StatusCode::from_u16(*status).expect("a status");
                return Ok(answer);
            }
            Some(ProxyFault::LoseAnswer | ProxyFault::Late(_)) | None => {}
        }
        let (mut parts, body) = request.into_parts();
        let url = format!("{}{target}", peer.ok_or(Cut)?);
        parts.uri = url.parse().map_err(|_| Cut)?;
        parts.headers.remove("host");
        let body = whole(body).await?;
        let sent = self.client.request(Request::from_parts(parts, body));
        let (parts, body) = sent.await.map_err(|_| Cut)?.into_parts();
        let body = whole(body).await?;
        if let Some(ProxyFault::Late(by)) = fault {
            tokio::time::sleep(by).await;
        }
        match fault {
            None | Some(ProxyFault::Late(_)) => Ok(Response::from_parts(parts, body)),
            Some(_) => Err(Cut),
        }
    }

    /// Notes a request; gives where it goes and what becomes of it.
    fn take(&self, line: String) -> (Option<String>, Option<ProxyFault>) {
        let mut state = self.state();
        let place = state.planned.iter().position(|(text, _)| line.contains(text));
        let fault = place.map(|place| state.planned.remove(place).1);
        state.seen.push(line);
        (state.peer.clone(), fault)
    }
}

async fn whole(body: Incoming) -> Result<Full<Bytes>, Cut> {
    let body = body.collect().await.map_err(|_| Cut)?;
    Ok(Full::new(body.to_bytes()))
}
