//! A meter before the table: passes each call on, asks what it consumed, and adds that up. What it may cost is in the journeys.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_LENGTH, HOST};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// What some calls cost.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Bill {
    /// The operations, in the order in which they were answered.
    pub calls: Vec<String>,
    /// Where each of them arrived: the path below the meter's `url`, by which callers can be told apart.
    pub paths: Vec<String>,
    /// Read units.
    pub reads: f64,
    /// Write units, those of indexes too.
    pub writes: f64,
}

/// Listens at `url` and passes on to a DynamoDB endpoint.
#[derive(Clone)]
pub struct MeteringProxy {
    /// Where the functions are to call.
    pub url: String,
    state: Arc<Mutex<State>>,
    client: Client<HttpConnector, Full<Bytes>>,
}

#[derive(Default)]
struct State {
    table: String,
    bill: Bill,
}

/// Why a call was not passed on: the connection ends.
type ProxyError = Box<dyn std::error::Error + Send + Sync>;

impl MeteringProxy {
    /// A meter that leads nowhere yet.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it listens");
        let meter = Self {
            url: format!("http://{address}"),
            state: Arc::default(),
            client: Client::builder(TokioExecutor::new()).build_http(),
        };
        tokio::spawn(meter.clone().serve(listener));
        meter
    }

    /// From now on calls arrive at the table with this base URL.
    pub fn connect(&self, table: &str) {
        table.clone_into(&mut self.state().table);
    }

    /// The bill since the last one.
    pub fn bill(&self) -> Bill {
        std::mem::take(&mut self.state().bill)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn serve(self, listener: TcpListener) -> Infallible {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                continue;
            };
            let meter = self.clone();
            tokio::spawn(async move {
                let pass = service_fn(|request| meter.pass(request));
                // The SDK sees a connection that ends, and tries again.
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), pass).await;
            });
        }
    }

    async fn pass(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, ProxyError> {
        let (mut parts, body) = request.into_parts();
        let target = parts.headers.get("x-amz-target").ok_or("no operation")?;
        let (_, operation) = target.to_str()?.split_once('.').ok_or("no operation")?;
        let operation = operation.to_owned();
        let path = parts.uri.path().to_owned();
        let mut call: Value = serde_json::from_slice(&body.collect().await?.to_bytes())?;
        call["ReturnConsumedCapacity"] = json!("TOTAL");
        parts.uri = self.state().table.parse()?;
        parts.headers.remove(HOST);
        parts.headers.remove(CONTENT_LENGTH);
        let body = Full::from(call.to_string());
        let sent = self.client.request(Request::from_parts(parts, body));
        let (parts, body) = sent.await?.into_parts();
        let body = body.collect().await?.to_bytes();
        self.note(operation, path, &serde_json::from_slice(&body)?);
        Ok(Response::from_parts(parts, Full::new(body)))
    }

    /// A batch and a transaction answer a list, the others one. What is refused answers none.
    fn note(&self, operation: String, path: String, answer: &Value) {
        let consumed = &answer["ConsumedCapacity"];
        let units: f64 = std::slice::from_ref(consumed)
            .iter()
            .chain(consumed.as_array().into_iter().flatten())
            .filter_map(|one| one["CapacityUnits"].as_f64())
            .sum();
        let reads = ["GetItem", "BatchGetItem", "Query", "Scan"].contains(&operation.as_str());
        let bill = &mut self.state().bill;
        if reads {
            bill.reads += units;
        } else {
            bill.writes += units;
        }
        bill.calls.push(operation);
        bill.paths.push(path);
    }
}
