//! What stands around the functions: the table's engine, KMS, SES, the SM-DP+ and the network, all in this process and
//! answering at once. Faults are not here.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use domain::SmDpAddress;
use edge::ClockAndRng;
use futures_util::FutureExt;
use lambda_http::Service;
use local::dynoxide::{Database, DynoxideError};
use local::kms::Kms;
use percent_encoding::percent_decode_str;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use simulators::{MobileNetwork, Smdp};

use crate::transport::{Call, Peer, Reply};

/// The host name in activation codes.
pub(crate) const SMDP_ADDRESS: &str = "smdp.example.test";

/// The one master key: what is sealed in one world can be opened in another, so that a stock is sealed once.
static KMS: LazyLock<Kms> = LazyLock::new(|| Kms::open(None).expect("a key in memory"));

/// A mail that SES took.
#[derive(Debug, Clone)]
pub(crate) struct Mail {
    /// The tag `activation`.
    pub(crate) activation: String,
    /// The tag `attempt`: the mail's number, and the attempt's.
    pub(crate) attempt: String,
    /// The recipient.
    pub(crate) to: String,
    /// The message.
    pub(crate) raw: Vec<u8>,
}

/// All of it.
pub(crate) struct Fakes {
    pub(crate) database: Database,
    pub(crate) smdp: Arc<Smdp>,
    pub(crate) carrier: Arc<MobileNetwork>,
    smdp_router: Router,
    carrier_router: Router,
    kms: Router,
    mails: Mutex<Vec<Mail>>,
}

impl Fakes {
    /// An empty table engine, and peers without orders. An order completes `delay` after its start.
    pub(crate) fn new(ambient: &ClockAndRng, delay: Duration) -> Self {
        let address = SmDpAddress::parse(SMDP_ADDRESS).expect("it is a host name");
        let smdp = Smdp::open(None, address, "http://callbacks", ambient.clone());
        let smdp = Arc::new(smdp.expect("a book in memory"));
        let carrier = MobileNetwork::open(None, delay, ambient.clone());
        let carrier = Arc::new(carrier.expect("a book in memory"));
        let ground = Self {
            database: Database::memory().expect("an engine in memory"),
            smdp_router: smdp.clone().router(),
            carrier_router: carrier.clone().router(),
            kms: KMS.clone().router(),
            smdp,
            carrier,
            mails: Mutex::default(),
        };
        let registered = ground.perform(&Call {
            peer: Peer::Network,
            method: "POST".to_owned(),
            path: format!("{}/hub", peers::tmf641::PATH),
            operation: String::new(),
            body: br#"{"callback":"http://callbacks"}"#.to_vec(),
        });
        assert_eq!(registered.status, 201, "the network takes a registration");
        ground
    }

    /// Carries a call out.
    pub(crate) fn perform(&self, call: &Call) -> Reply {
        match call.peer {
            Peer::Table => self
                .table(call)
                .unwrap_or_else(|error| Reply::new(error.status_code(), error.to_json())),
            Peer::Keys => route(&self.kms, call),
            Peer::Post => self.post(call),
            Peer::Smdp => route(&self.smdp_router, call),
            Peer::Network => route(&self.carrier_router, call),
            // Whoever is invoked runs later: nobody waits for it.
            Peer::Lambda => Reply::new(202, ""),
        }
    }

    /// An order as the network's book has it; null if there is none with this id.
    pub(crate) fn order(&self, id: &str) -> Value {
        let reply = self.perform(&Call {
            peer: Peer::Network,
            method: "GET".to_owned(),
            path: format!("{}/serviceOrder/{id}", peers::tmf641::PATH),
            operation: String::new(),
            body: Vec::new(),
        });
        match reply.status {
            200 => serde_json::from_slice(&reply.body).unwrap_or_default(),
            _ => Value::Null,
        }
    }

    /// The mails that SES took, oldest first.
    pub(crate) fn mails(&self) -> MutexGuard<'_, Vec<Mail>> {
        self.mails.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn table(&self, call: &Call) -> Result<Reply, DynoxideError> {
        let body = &call.body;
        let db = &self.database;
        match call.operation.as_str() {
            "GetItem" => write(&db.get_item(read(body)?)?),
            "PutItem" => write(&db.put_item(read(body)?)?),
            "UpdateItem" => write(&db.update_item(read(body)?)?),
            "Query" => write(&db.query(read(body)?)?),
            "BatchGetItem" => write(&db.batch_get_item(read(body)?)?),
            "TransactWriteItems" => write(&db.transact_write_items(read(body)?)?),
            "CreateTable" => write(&db.create_table(read(body)?)?),
            "UpdateTimeToLive" => write(&db.update_time_to_live(read(body)?)?),
            other => unreachable!("the functions do not call {other}"),
        }
    }

    /// `SendRawEmail`.
    fn post(&self, call: &Call) -> Reply {
        let form = String::from_utf8_lossy(&call.body).replace('+', " ");
        let form: BTreeMap<_, _> = form
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| [name, value].map(|text| percent_decode_str(text).decode_utf8_lossy().into_owned()))
            .map(|[name, value]| (name, value))
            .collect();
        assert_eq!(form["Action"], "SendRawEmail");
        assert_eq!(form["Tags.member.1.Name"], "activation");
        let raw = STANDARD.decode(&form["RawMessage.Data"]);
        let mut mails = self.mails();
        mails.push(Mail {
            activation: form["Tags.member.1.Value"].clone(),
            attempt: form["Tags.member.2.Value"].clone(),
            to: form["Destinations.member.1"].clone(),
            raw: raw.expect("a message in base64"),
        });
        let id = format!("mail-{}", mails.len());
        let body = format!(
            "<SendRawEmailResponse xmlns=\"http://ses.amazonaws.com/doc/2010-12-01/\"><SendRawEmailResult>\
             <MessageId>{id}</MessageId></SendRawEmailResult></SendRawEmailResponse>"
        );
        Reply::new(200, body)
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, DynoxideError> {
    serde_json::from_slice(body).map_err(|error| DynoxideError::SerializationException(error.to_string()))
}

fn write(answer: &impl Serialize) -> Result<Reply, DynoxideError> {
    let body = serde_json::to_vec(answer).expect("the engine answers JSON");
    Ok(Reply::new(200, body))
}

fn route(router: &Router, call: &Call) -> Reply {
    let request = Request::builder()
        .method(call.method.as_str())
        .uri(&call.path)
        .header("content-type", "application/json")
        .header("x-amz-target", format!("TrentService.{}", call.operation))
        .body(Body::from(call.body.clone()))
        .expect("it is a request");
    let answered = async {
        let response = router.clone().call(request).await;
        let (parts, body) = response.unwrap_or_else(|never| match never {}).into_parts();
        let body = to_bytes(body, usize::MAX).await.expect("a body in memory");
        Reply::new(parts.status.as_u16(), body)
    };
    answered.now_or_never().expect("a simulated peer does not wait")
}
