//! A proxy before the table that adds up the capacity units that the calls consume. The journeys and the benchmark say
//! how much the calls may consume.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hyper::Response;
use hyper::body::Bytes;
use hyper::http::request::Parts;
use serde_json::{Value, json};

use crate::http::{self, BoxError, Client};

/// The capacity units of some calls.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Bill {
    /// The operations, in the order of their responses.
    pub calls: Vec<String>,
    /// The path below the proxy's `url` of each call. Callers that use different paths can be told apart.
    pub paths: Vec<String>,
    /// Read units.
    pub reads: f64,
    /// Write units, including those of the indexes.
    pub writes: f64,
    /// Write units of each index.
    pub index_writes: BTreeMap<String, f64>,
    /// Writes of rows by their hash key. In a transaction, a write counts twice, as DynamoDB counts it.
    pub row_writes: BTreeMap<String, f64>,
}

/// Listens at `url` and forwards each request to a DynamoDB endpoint.
#[derive(Clone)]
pub struct MeteringProxy {
    /// The base URL for the functions' settings.
    pub url: String,
    state: Arc<Mutex<State>>,
    client: Client,
}

#[derive(Default)]
struct State {
    table: String,
    bill: Bill,
}

impl MeteringProxy {
    /// A proxy without an endpoint: until it is connected, no call arrives.
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

    /// Forwards calls to the endpoint with this URL from here on.
    pub fn connect(&self, table: &str) {
        table.clone_into(&mut self.state().table);
    }

    /// The bill since the last call of this function.
    pub fn bill(&self) -> Bill {
        std::mem::take(&mut self.state().bill)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn forward(&self, parts: Parts, body: Bytes) -> Result<Response<Bytes>, BoxError> {
        let target = parts.headers.get("x-amz-target").ok_or("no operation")?;
        let (_, operation) = target.to_str()?.split_once('.').ok_or("no operation")?;
        let operation = operation.to_owned();
        let path = parts.uri.path().to_owned();
        let mut call: Value = serde_json::from_slice(&body)?;
        call["ReturnConsumedCapacity"] = json!("INDEXES");
        let uri = self.state().table.parse()?;
        let response = self.client.forward(parts, call.to_string().into(), uri).await?;
        if response.status().is_success() {
            self.add_rows(&operation, &call);
        }
        self.add(operation, path, &serde_json::from_slice(response.body())?);
        Ok(response)
    }

    /// Adds the rows that a call has written to the bill.
    fn add_rows(&self, operation: &str, call: &Value) {
        let (writes, weight) = match operation {
            "TransactWriteItems" => (call["TransactItems"].as_array().cloned().unwrap_or_default(), 2.0),
            "PutItem" | "UpdateItem" | "DeleteItem" => (vec![json!({"write": call})], 1.0),
            _ => return,
        };
        let bill = &mut self.state().bill;
        for write in writes.iter().filter_map(|write| write.as_object()?.values().next()) {
            let row = write.get("Item").or(write.get("Key"));
            if let Some(pk) = row.and_then(|row| row["pk"]["S"].as_str()) {
                *bill.row_writes.entry(pk.to_owned()).or_default() += weight;
            }
        }
    }

    /// Adds a response to the bill. Batches and transactions report a list of capacities, other calls report one, and
    /// rejected calls report none.
    fn add(&self, operation: String, path: String, response: &Value) {
        let consumed = &response["ConsumedCapacity"];
        let all: Vec<&Value> = std::slice::from_ref(consumed)
            .iter()
            .chain(consumed.as_array().into_iter().flatten())
            .collect();
        let units: f64 = all.iter().filter_map(|one| one["CapacityUnits"].as_f64()).sum();
        let reads = ["GetItem", "BatchGetItem", "Query", "Scan"].contains(&operation.as_str());
        let bill = &mut self.state().bill;
        if reads {
            bill.reads += units;
        } else {
            bill.writes += units;
            let indexes = all.iter().filter_map(|one| one["GlobalSecondaryIndexes"].as_object());
            for (name, units) in indexes.flatten() {
                *bill.index_writes.entry(name.clone()).or_default() += units["CapacityUnits"].as_f64().unwrap_or(0.0);
            }
        }
        bill.calls.push(operation);
        bill.paths.push(path);
    }
}
