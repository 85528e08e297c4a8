//! A foreign SM-DP+ and a foreign network: small servers that share no type with the product. Each complies with its
//! standard unless a test sets a rule, and records every call. The journeys say what the product must do.

mod network;
mod smdp;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::http::request::Parts;
use hyper::{Request, Response};
use jiff::Timestamp;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::http::{self, BoxError, Client};
pub use network::{Behaviour, ForeignNetwork};
pub use smdp::{ForeignSmdp, failed};

/// A call that a peer received.
#[derive(Debug, Clone)]
pub struct Call {
    /// The operation: `place`, `search`, `get`, `start`, `cancel` or `hub` at the network; the name of the ES2+
    /// function at the SM-DP+.
    pub operation: &'static str,
    /// The phone number at the network, the ICCID at the SM-DP+; `""` if it is unknown.
    pub subject: String,
    /// The number of this call among the calls of this operation about this subject, from 1.
    pub nth: usize,
    /// When the call arrived.
    pub at: Instant,
    /// The path and query below the standard's base path.
    pub target: String,
    /// The `Authorization` header.
    pub authorization: Option<String>,
    /// The body as JSON; `null` if it is not JSON.
    pub body: Value,
}

/// An HTTP response of a peer.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status code.
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

    /// Text with this status.
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

/// How a peer treats a call.
#[derive(Clone)]
pub enum Act {
    /// Executes the call and responds.
    Comply,
    /// Does not execute the call, and sends this response.
    Respond(Reply),
    /// Executes the call and sends this response.
    Replace(Reply),
    /// Executes the call and changes the text of its response.
    Edit(Edit<String>),
    /// Executes the call after this time, and responds then.
    Late(Duration),
    /// Executes the call at once, and responds after this time.
    RespondLate(Duration),
    /// Closes the connection and does not execute the call.
    Close,
    /// Executes the call and closes the connection.
    LoseResponse,
    /// Closes the connection after the first time and executes the call after the second, both counted from the call.
    ExecuteLater(Duration, Duration),
}

impl Act {
    /// Does not execute the call: a status without a body.
    pub fn status(status: u16) -> Self {
        Self::Respond(Reply::text(status, ""))
    }

    /// Does not execute the call: a JSON response.
    pub fn json(status: u16, body: &Value) -> Self {
        Self::Respond(Reply::json(status, body))
    }

    /// Executes the call and changes the text of the response.
    pub fn edit(edit: impl Fn(&mut String) + Send + Sync + 'static) -> Self {
        Self::Edit(Arc::new(edit))
    }
}

/// Chooses how a peer treats a call.
pub type Rule = Arc<dyn Fn(&Call) -> Act + Send + Sync>;

/// Closes the connection without a response.
#[derive(Debug, thiserror::Error)]
#[error("the peer closes the connection")]
struct Closed;

/// The state that both peers have: the address, the rules, and the received calls.
struct PeerServer {
    url: String,
    rules: Mutex<HashMap<String, Rule>>,
    calls: Mutex<Vec<Call>>,
    /// The requests that violated the standard.
    violations: Mutex<Vec<String>>,
    client: Client,
}

/// A peer's side of a standard.
trait Peer: Send + Sync + 'static {
    /// The standard's base path.
    const PATH: &'static str;

    fn server(&self) -> &PeerServer;

    /// The operation and the subject of a request; `None` if the standard has no such operation.
    fn read(&self, method: &str, target: &str, body: &Value) -> Option<(&'static str, String)>;

    fn execute(self: &Arc<Self>, call: &Call) -> Reply;
}

impl PeerServer {
    async fn listen() -> (TcpListener, Self) {
        let (listener, url) = http::listen().await;
        let server = Self {
            url,
            rules: Mutex::default(),
            calls: Mutex::default(),
            violations: Mutex::default(),
            client: Client::new(),
        };
        (listener, server)
    }

    fn receive(&self, operation: &'static str, subject: String, target: &str, request: Received) -> (Call, Act) {
        let mut calls = lock(&self.calls);
        let earlier = calls
            .iter()
            .filter(|c| c.operation == operation && c.subject == subject);
        let call = Call {
            operation,
            nth: earlier.count() + 1,
            subject,
            at: Instant::now(),
            target: target.to_owned(),
            authorization: request.authorization,
            body: request.body,
        };
        calls.push(call.clone());
        drop(calls);
        let rule = lock(&self.rules).get(&call.subject).cloned();
        let act = rule.map_or(Act::Comply, |rule| rule(&call));
        (call, act)
    }

    fn report_violation(&self, violation: impl fmt::Display) {
        lock(&self.violations).push(violation.to_string());
    }

    fn calls(&self, operation: &str, subject: &str) -> Vec<Call> {
        let calls = lock(&self.calls);
        let about = calls
            .iter()
            .filter(|c| c.operation == operation && c.subject == subject);
        about.cloned().collect()
    }

    /// Sends a callback, up to 20 times while it gets no response or 503. Returns the last status code, or 0 if there
    /// was no response.
    async fn send(&self, url: &str, body: Vec<u8>) -> u16 {
        let mut status = 0;
        for _ in 0..20 {
            let request = Request::post(url)
                .header("content-type", "application/json")
                .body(Full::from(body.clone()))
                .expect("the request is well-formed");
            let sent = self.client.send(request).await;
            status = sent.map_or(0, |response| response.status().as_u16());
            if ![0, 503].contains(&status) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        status
    }
}

/// The parts of a request that a call records.
struct Received {
    authorization: Option<String>,
    body: Value,
}

async fn serve<P: Peer>(listener: TcpListener, peer: Arc<P>) {
    http::serve(listener, move |parts, body| respond(peer.clone(), parts, body)).await;
}

async fn respond<P: Peer>(peer: Arc<P>, parts: Parts, body: Bytes) -> Result<Response<Bytes>, BoxError> {
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let target = parts.uri.path_and_query().map_or("/", |t| t.as_str());
    let authorization = parts.headers.get("authorization");
    let authorization = authorization.and_then(|value| value.to_str().ok().map(str::to_owned));
    let known = target.strip_prefix(P::PATH).and_then(|target| {
        let (operation, subject) = peer.read(parts.method.as_str(), target, &body)?;
        Some((operation, subject, target))
    });
    let reply = match known {
        None => {
            let line = format!("{} {target}", parts.method);
            peer.server()
                .report_violation(format!("there is no such operation: {line}"));
            Reply::text(404, "<html>no such page</html>")
        }
        Some((operation, subject, target)) => {
            let received = Received { authorization, body };
            let (call, act) = peer.server().receive(operation, subject, target, received);
            // A caller that closes the connection does not stop the call.
            let replied = tokio::spawn(async move { perform(&peer, &call, act).await });
            replied.await.map_err(|_| Closed)??
        }
    };
    let mut response = Response::builder()
        .status(reply.status)
        .header("content-type", "application/json;charset=UTF-8");
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    Ok(response.body(reply.body.into())?)
}

async fn perform<P: Peer>(peer: &Arc<P>, call: &Call, act: Act) -> Result<Reply, Closed> {
    match act {
        Act::Comply => Ok(peer.execute(call)),
        Act::Respond(reply) => Ok(reply),
        Act::Replace(reply) => {
            peer.execute(call);
            Ok(reply)
        }
        Act::Edit(edit) => {
            let mut reply = peer.execute(call);
            edit(&mut reply.body);
            Ok(reply)
        }
        Act::Late(after) => {
            tokio::time::sleep(after).await;
            Ok(peer.execute(call))
        }
        Act::RespondLate(after) => {
            let reply = peer.execute(call);
            tokio::time::sleep(after).await;
            Ok(reply)
        }
        Act::Close => Err(Closed),
        Act::LoseResponse => {
            peer.execute(call);
            Err(Closed)
        }
        Act::ExecuteLater(closed, carried_out) => {
            let (peer, call) = (peer.clone(), call.clone());
            tokio::spawn(async move {
                tokio::time::sleep(carried_out).await;
                peer.execute(&call);
            });
            tokio::time::sleep(closed).await;
            Err(Closed)
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A date in the format of the standards' examples.
fn date(at: Timestamp) -> String {
    format!("{at:.3}")
}
