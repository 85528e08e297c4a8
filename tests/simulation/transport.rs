//! The wire under every client of the functions: an HTTP connector that hands each call to the scheduler and waits for
//! its reply. What becomes of a call is decided in `world`.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use tokio::sync::{Notify, oneshot};

tokio::task_local! {
    /// Who calls: the number of the invocation. Without one the caller is the observer, who is answered at once.
    pub(crate) static INVOCATION: u64;
}

/// Who is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Peer {
    /// DynamoDB.
    Table,
    /// KMS.
    Keys,
    /// SES.
    Post,
    /// The SM-DP+.
    Smdp,
    /// The network.
    Network,
    /// Lambda, for the function that invokes others.
    Lambda,
}

impl Peer {
    const ALL: [Self; 6] = [
        Self::Table,
        Self::Keys,
        Self::Post,
        Self::Smdp,
        Self::Network,
        Self::Lambda,
    ];

    /// The base URL under which the functions know it.
    pub(crate) fn url(self) -> &'static str {
        match self {
            Self::Table => "http://table",
            Self::Keys => "http://keys",
            Self::Post => "http://post",
            Self::Smdp => "http://smdp",
            Self::Network => "http://network",
            Self::Lambda => "http://lambda",
        }
    }
}

/// A call as it is on the wire.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) peer: Peer,
    pub(crate) method: String,
    /// Path and query.
    pub(crate) path: String,
    /// The operation of an AWS service that names it in a header, without the service: `PutItem`.
    pub(crate) operation: String,
    pub(crate) body: Vec<u8>,
}

/// A reply as it is on the wire.
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
pub(crate) enum Broken {
    /// No connection stood.
    Refused,
    /// The connection broke off.
    Reset,
    /// Nothing came in time.
    TimedOut,
}

impl From<Broken> for ConnectorError {
    fn from(broken: Broken) -> Self {
        let kind = match broken {
            Broken::Refused => std::io::ErrorKind::ConnectionRefused,
            Broken::Reset => std::io::ErrorKind::ConnectionReset,
            Broken::TimedOut => std::io::ErrorKind::TimedOut,
        };
        let cause = Box::new(std::io::Error::from(kind));
        match broken {
            Broken::TimedOut => Self::timeout(cause),
            Broken::Refused | Broken::Reset => Self::io(cause),
        }
    }
}

pub(crate) type Answer = Result<Reply, Broken>;

/// A call that an invocation waits for.
pub(crate) struct Exchange {
    pub(crate) invocation: u64,
    pub(crate) call: Call,
    pub(crate) answer: oneshot::Sender<Answer>,
}

/// Where calls lie until the scheduler looks.
#[derive(Default)]
pub(crate) struct Desk {
    calls: Mutex<Vec<Exchange>>,
    /// Rings when there is something to look at.
    pub(crate) bell: Notify,
}

impl Desk {
    pub(crate) fn take(&self) -> Vec<Exchange> {
        std::mem::take(&mut self.calls.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The observer's way: it sees the peers without the scheduler, its faults and its clock.
pub(crate) type Direct = Arc<dyn Fn(&Call) -> Reply + Send + Sync>;

/// The connector.
#[derive(Clone)]
pub(crate) struct Transport {
    pub(crate) desk: Arc<Desk>,
    pub(crate) direct: Direct,
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
        let (answer, answered) = oneshot::channel();
        let exchange = Exchange {
            invocation,
            call,
            answer,
        };
        let mut calls = self.desk.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.push(exchange);
        self.desk.bell.notify_one();
        HttpConnectorFuture::new(async {
            match answered.await {
                Ok(Ok(reply)) => Ok(response(reply)),
                Ok(Err(broken)) => Err(broken.into()),
                Err(_) => Err(Broken::Reset.into()),
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
