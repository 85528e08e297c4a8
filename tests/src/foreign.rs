//! A foreign SM-DP+ and a foreign network: small servers that share no type with the product. Each complies with its standard unless a test tells it otherwise, and records every call. What is expected of the product is in the journeys.

mod network;
mod smdp;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use jiff::Timestamp;
use serde_json::Value;
use tokio::net::TcpListener;

pub use network::{ForeignNetwork, Manners};
pub use smdp::{ForeignSmdp, failed};

/// A call that a peer got.
#[derive(Debug, Clone)]
pub struct Call {
    /// The operation, by a name of its own: `place`, `search`, `get`, `start`, `cancel`, `hub` at the network; the names of
    /// ES2+ at the SM-DP+.
    pub what: &'static str,
    /// What it is about: a phone number at the network, an ICCID at the SM-DP+; `""` if that is not known.
    pub of: String,
    /// Counts the calls of this operation about this subject, from 1.
    pub nth: usize,
    /// When it came.
    pub at: Instant,
    /// Path and query, below the standard's base path.
    pub target: String,
    /// The `Authorization` header.
    pub authorization: Option<String>,
    /// The body as JSON; `null` if it is none.
    pub body: Value,
}

/// An answer over HTTP.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Headers besides the content type.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: String,
}

impl Reply {
    /// JSON with this status.
    pub fn json(status: u16, body: &Value) -> Self {
        Self::text(status, &body.to_string())
    }

    /// Any text with this status.
    pub fn text(status: u16, body: &str) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.to_owned(),
        }
    }
}

/// Changes a body.
pub type Edit<T> = Arc<dyn Fn(&mut T) + Send + Sync>;

/// What a peer does with a call.
#[derive(Clone)]
pub enum Act {
    /// It carries it out and answers.
    Comply,
    /// It does not carry it out and answers this.
    Answer(Reply),
    /// It carries it out and answers this.
    Replace(Reply),
    /// It carries it out and changes the text of its answer.
    Edit(Edit<String>),
    /// It carries it out after this time, and answers then.
    Late(Duration),
    /// It carries it out at once, and answers after this time.
    AnswerLate(Duration),
    /// It closes the connection and does not carry it out.
    Close,
    /// It carries it out and closes the connection.
    LoseAnswer,
    /// It closes the connection after the first time and carries it out after the second, counted from the call.
    CarryOutLater(Duration, Duration),
}

impl Act {
    /// Not carried out: a bare status.
    pub fn status(status: u16) -> Self {
        Self::Answer(Reply::text(status, ""))
    }

    /// Not carried out: JSON.
    pub fn json(status: u16, body: &Value) -> Self {
        Self::Answer(Reply::json(status, body))
    }

    /// Carried out, and the text of the answer changed.
    pub fn edit(edit: impl Fn(&mut String) + Send + Sync + 'static) -> Self {
        Self::Edit(Arc::new(edit))
    }
}

/// Says what a peer does with a call.
pub type Rule = Arc<dyn Fn(&Call) -> Act + Send + Sync>;

/// Ends a connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the peer closes the connection")]
struct Closed;

/// What both peers have: their address, their rules, and the calls that came.
struct Front {
    url: String,
    rules: Mutex<HashMap<String, Rule>>,
    calls: Mutex<Vec<Call>>,
    /// Where requests broke the standard.
    faults: Mutex<Vec<String>>,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// One side of a standard.
trait Peer: Send + Sync + 'static {
    /// The standard's base path.
    const PATH: &'static str;

    fn front(&self) -> &Front;

    /// Which operation it is, and about what; `None` if the standard has no such operation.
    fn read(&self, method: &str, target: &str, body: &Value) -> Option<(&'static str, String)>;

    fn carry_out(self: &Arc<Self>, call: &Call) -> Reply;
}

impl Front {
    async fn listen() -> (TcpListener, Self) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it listens");
        let front = Self {
            url: format!("http://{address}"),
            rules: Mutex::default(),
            calls: Mutex::default(),
            faults: Mutex::default(),
            client: Client::builder(TokioExecutor::new()).build_http(),
        };
        (listener, front)
    }

    fn hear(&self, what: &'static str, of: String, target: &str, request: Heard) -> (Call, Act) {
        let mut calls = lock(&self.calls);
        let earlier = calls.iter().filter(|c| c.what == what && c.of == of);
        let call = Call {
            what,
            nth: earlier.count() + 1,
            of,
            at: Instant::now(),
            target: target.to_owned(),
            authorization: request.authorization,
            body: request.body,
        };
        calls.push(call.clone());
        drop(calls);
        let rule = lock(&self.rules).get(&call.of).cloned();
        let act = rule.map_or(Act::Comply, |rule| rule(&call));
        (call, act)
    }

    fn fault(&self, what: impl fmt::Display) {
        lock(&self.faults).push(what.to_string());
    }

    fn calls(&self, what: &str, of: &str) -> Vec<Call> {
        let calls = lock(&self.calls);
        let about = calls.iter().filter(|c| c.what == what && c.of == of);
        about.cloned().collect()
    }

    /// Sends a callback, again as long as it is asked to; gives the status of the last answer, 0 if there was none.
    async fn send(&self, url: &str, body: Vec<u8>) -> u16 {
        let mut status = 0;
        for _ in 0..20 {
            let request = Request::post(url)
                .header("content-type", "application/json")
                .body(Full::from(body.clone()))
                .expect("the request is well-formed");
            let sent = self.client.request(request).await;
            status = sent.map_or(0, |response| response.status().as_u16());
            if ![0, 503].contains(&status) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        status
    }
}

/// What is kept of a request.
struct Heard {
    authorization: Option<String>,
    body: Value,
}

async fn serve<P: Peer>(listener: TcpListener, peer: Arc<P>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let peer = peer.clone();
        tokio::spawn(async move {
            let answers = service_fn(|request| answer(peer.clone(), request));
            // A connection that is closed ends in an error, which is the purpose.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answers)
                .await;
        });
    }
}

async fn answer<P: Peer>(peer: Arc<P>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Closed> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Closed)?.to_bytes();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let target = parts.uri.path_and_query().map_or("/", |t| t.as_str());
    let authorization = parts.headers.get("authorization");
    let authorization = authorization.and_then(|value| value.to_str().ok().map(str::to_owned));
    let known = target.strip_prefix(P::PATH).and_then(|target| {
        let (what, of) = peer.read(parts.method.as_str(), target, &body)?;
        Some((what, of, target))
    });
    let reply = match known {
        None => {
            let line = format!("{} {target}", parts.method);
            peer.front().fault(format!("there is no such operation: {line}"));
            Reply::text(404, "<html>no such page</html>")
        }
        Some((what, of, target)) => {
            let heard = Heard { authorization, body };
            let (call, act) = peer.front().hear(what, of, target, heard);
            // A caller who hangs up does not stop what was begun.
            let replied = tokio::spawn(async move { perform(&peer, &call, act).await });
            replied.await.map_err(|_| Closed)??
        }
    };
    let mut response = Response::builder()
        .status(StatusCode::from_u16(reply.status).map_err(|_| Closed)?)
        .header("content-type", "application/json;charset=UTF-8");
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    response.body(Full::from(reply.body)).map_err(|_| Closed)
}

async fn perform<P: Peer>(peer: &Arc<P>, call: &Call, act: Act) -> Result<Reply, Closed> {
    match act {
        Act::Comply => Ok(peer.carry_out(call)),
        Act::Answer(reply) => Ok(reply),
        Act::Replace(reply) => {
            peer.carry_out(call);
            Ok(reply)
        }
        Act::Edit(edit) => {
            let mut reply = peer.carry_out(call);
            edit(&mut reply.body);
            Ok(reply)
        }
        Act::Late(after) => {
            tokio::time::sleep(after).await;
            Ok(peer.carry_out(call))
        }
        Act::AnswerLate(after) => {
            let reply = peer.carry_out(call);
            tokio::time::sleep(after).await;
            Ok(reply)
        }
        Act::Close => Err(Closed),
        Act::LoseAnswer => {
            peer.carry_out(call);
            Err(Closed)
        }
        Act::CarryOutLater(closed, carried_out) => {
            let (peer, call) = (peer.clone(), call.clone());
            tokio::spawn(async move {
                tokio::time::sleep(carried_out).await;
                peer.carry_out(&call);
            });
            tokio::time::sleep(closed).await;
            Err(Closed)
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A date as the standards' examples have it.
fn date(at: Timestamp) -> String {
    format!("{at:.3}")
}
