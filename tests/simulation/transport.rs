//! The transport under all clients of the functions: an HTTP connector that passes each call to the scheduler and waits
//! for its reply. What happens to a call is decided in `scheduler`.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use tokio::sync::{Notify, oneshot};

tokio::task_local! {
    /// The number of the calling invocation. Without it the caller is the observer, which receives its reply at once.
    pub(crate) static INVOCATION: u64;
}

/// Whom the functions call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Peer {
    DynamoDb,
    Kms,
    Ses,
    Smdp,
    Network,
    /// Lambda, for the sweeper, which invokes other functions.
    Lambda,
}

impl Peer {
    const ALL: [Self; 6] = [
        Self::DynamoDb,
        Self::Kms,
        Self::Ses,
        Self::Smdp,
        Self::Network,
        Self::Lambda,
    ];

    /// The base URL that the functions are configured with.
    pub(crate) fn url(self) -> &'static str {
        match self {
            Self::DynamoDb => "http://dynamodb",
            Self::Kms => "http://kms",
            Self::Ses => "http://ses",
            Self::Smdp => "http://smdp",
            Self::Network => "http://network",
            Self::Lambda => "http://lambda",
        }
    }
}

/// A call as an HTTP request.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) peer: Peer,
    pub(crate) method: String,
    /// Path and query.
    pub(crate) path: String,
    /// The operation of an AWS service that names it in a header, without the service's prefix: `PutItem`.
    pub(crate) operation: String,
    pub(crate) body: Vec<u8>,
}

/// A reply as an HTTP response.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
        }
    }

    pub(crate) fn with_header(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }
}

/// Why there is no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConnectionFailure {
    /// The connection could not be opened.
    NotConnected,
    /// The connection broke.
    Reset,
    /// No reply came in time.
    TimedOut,
}

impl From<ConnectionFailure> for ConnectorError {
    fn from(failure: ConnectionFailure) -> Self {
        let kind = match failure {
            ConnectionFailure::NotConnected => std::io::ErrorKind::ConnectionRefused,
            ConnectionFailure::Reset => std::io::ErrorKind::ConnectionReset,
            ConnectionFailure::TimedOut => std::io::ErrorKind::TimedOut,
        };
        let cause = Box::new(std::io::Error::from(kind));
        match failure {
            ConnectionFailure::TimedOut => Self::timeout(cause),
            ConnectionFailure::NotConnected | ConnectionFailure::Reset => Self::io(cause),
        }
    }
}

pub(crate) type CallResult = Result<Reply, ConnectionFailure>;

/// A call whose invocation waits for the reply.
pub(crate) struct Exchange {
    pub(crate) invocation: u64,
    pub(crate) call: Call,
    pub(crate) reply_to: oneshot::Sender<CallResult>,
}

/// Calls that the scheduler has not collected.
#[derive(Default)]
pub(crate) struct PendingCalls {
    calls: Mutex<Vec<Exchange>>,
    /// Notified when there is a call to collect, or when an invocation has ended.
    pub(crate) notify: Notify,
}

impl PendingCalls {
    pub(crate) fn take(&self) -> Vec<Exchange> {
        std::mem::take(&mut self.calls.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Replies to the observer's calls, without the scheduler, its faults and its clock.
pub(crate) type DirectHandler = Arc<dyn Fn(&Call) -> Reply + Send + Sync>;

/// The HTTP connector.
#[derive(Clone)]
pub(crate) struct Transport {
    pub(crate) pending: Arc<PendingCalls>,
    pub(crate) direct: DirectHandler,
}

impl Transport {
    pub(crate) fn connector(&self) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Transport {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let call = read(&request);
        let Ok(invocation) = INVOCATION.try_with(|number| *number) else {
            return HttpConnectorFuture::ready(Ok(response((self.direct)(&call))));
        };
        let (reply_to, reply) = oneshot::channel();
        let exchange = Exchange {
            invocation,
            call,
            reply_to,
        };
        let mut calls = self.pending.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.push(exchange);
        self.pending.notify.notify_one();
        HttpConnectorFuture::new(async {
            match reply.await {
                Ok(Ok(reply)) => Ok(response(reply)),
                Ok(Err(failure)) => Err(failure.into()),
                Err(_) => Err(ConnectionFailure::Reset.into()),
            }
        })
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Transport")
    }
}

fn read(request: &HttpRequest) -> Call {
    let url = request.uri();
    let peer = Peer::ALL.into_iter().find(|peer| {
        let rest = url.strip_prefix(peer.url());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    });
    let peer = peer.expect("the functions know no other peers");
    let target = request.headers().get("x-amz-target").unwrap_or_default();
    let operation = target.rsplit('.').next().unwrap_or_default();
    Call {
        peer,
        method: request.method().to_owned(),
        path: match &url[peer.url().len()..] {
            "" => "/".to_owned(),
            path => path.to_owned(),
        },
        operation: operation.to_owned(),
        body: request.body().bytes().unwrap_or_default().to_vec(),
    }
}

fn response(reply: Reply) -> HttpResponse {
    let status = reply.status.try_into().expect("peers answer with a status");
    let mut response = HttpResponse::new(status, SdkBody::from(reply.body));
    for (name, value) in reply.headers {
        response.headers_mut().insert(name, value);
    }
    response
}
