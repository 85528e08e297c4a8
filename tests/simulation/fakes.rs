//! Everything that the functions call: the table's engine, KMS, SES, the SM-DP+ and the network, all in this process,
//! with immediate replies. Faults are injected in `scheduler`.

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
use jiff::fmt::rfc2822;
use jiff::{SignedDuration, Timestamp};
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

/// The master key, shared by all runs: what one run has encrypted, another can decrypt, so the initial rows are
/// encrypted once.
static KMS: LazyLock<Kms> = LazyLock::new(|| Kms::open(None).expect("a key in memory"));

/// A mail that SES accepted.
#[derive(Debug, Clone)]
pub(crate) struct Mail {
    /// The tag `activation`.
    pub(crate) activation: String,
    /// The tag `attempt`: the numbers of the mail and of the attempt.
    pub(crate) attempt: String,
    /// The recipient.
    pub(crate) to: String,
    /// The message as sent.
    pub(crate) raw: Vec<u8>,
}

/// The fakes of one run.
pub(crate) struct Fakes {
    pub(crate) database: Database,
    pub(crate) smdp: Arc<Smdp>,
    pub(crate) network: Arc<MobileNetwork>,
    smdp_router: Router,
    network_router: Router,
    kms: Router,
    mails: Mutex<Vec<Mail>>,
    /// By how much the clock of the SM-DP+ is ahead of ours.
    smdp_ahead: SignedDuration,
}

impl Fakes {
    /// An empty table engine, and peers without orders. The network completes an order `delay` after its start. The
    /// clock of the SM-DP+ is `smdp_ahead` of ours.
    pub(crate) fn new(clock: &ClockAndRng, delay: Duration, smdp_ahead: SignedDuration) -> Self {
        let address = SmDpAddress::parse(SMDP_ADDRESS).expect("it is a host name");
        let smdp = Smdp::open(None, address, "http://callbacks", clock.clone());
        let smdp = Arc::new(smdp.expect("a database in memory"));
        let network = MobileNetwork::open(None, delay, clock.clone());
        let network = Arc::new(network.expect("a database in memory"));
        let fakes = Self {
            database: Database::memory().expect("an engine in memory"),
            smdp_router: smdp.clone().router(),
            network_router: network.clone().router(),
            kms: KMS.clone().router(),
            smdp,
            network,
            mails: Mutex::default(),
            smdp_ahead,
        };
        let registered = fakes.perform(&Call {
            peer: Peer::Network,
            method: "POST".to_owned(),
            path: format!("{}/hub", peers::tmf641::PATH),
            operation: String::new(),
            body: br#"{"callback":"http://callbacks"}"#.to_vec(),
        });
        assert_eq!(registered.status, 201, "the network accepts a registration");
        fakes
    }

    /// Executes a call.
    pub(crate) fn perform(&self, call: &Call) -> Reply {
        match call.peer {
            Peer::DynamoDb => self
                .dynamodb(call)
                .unwrap_or_else(|error| Reply::new(error.status_code(), error.to_json())),
            Peer::Kms => route(&self.kms, call),
            Peer::Ses => self.send_raw_email(call),
            Peer::Smdp => self.with_date_of_smdp(route(&self.smdp_router, call)),
            Peer::Network => route(&self.network_router, call),
            // The invocation is asynchronous: the scheduler starts the function later.
            Peer::Lambda => Reply::new(202, ""),
        }
    }

    /// A reply of the SM-DP+ with the date of its own clock.
    fn with_date_of_smdp(&self, mut reply: Reply) -> Reply {
        for (name, value) in &mut reply.headers {
            if *name == "date" {
                let date = rfc2822::parse(value).expect("the simulated SM-DP+ sends a valid date");
                *value = http_date(date.timestamp() + self.smdp_ahead);
            }
        }
        reply
    }

    /// An order in the network's database; null if there is none with this id.
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

    /// The mails that SES accepted, oldest first.
    pub(crate) fn mails(&self) -> MutexGuard<'_, Vec<Mail>> {
        self.mails.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn dynamodb(&self, call: &Call) -> Result<Reply, DynoxideError> {
        let body = &call.body;
        let db = &self.database;
        match call.operation.as_str() {
            "GetItem" => json_reply(&db.get_item(parse(body)?)?),
            "PutItem" => json_reply(&db.put_item(parse(body)?)?),
            "UpdateItem" => json_reply(&db.update_item(parse(body)?)?),
            "Query" => json_reply(&db.query(parse(body)?)?),
            "BatchGetItem" => json_reply(&db.batch_get_item(parse(body)?)?),
            "TransactWriteItems" => json_reply(&db.transact_write_items(parse(body)?)?),
            "CreateTable" => json_reply(&db.create_table(parse(body)?)?),
            "UpdateTimeToLive" => json_reply(&db.update_time_to_live(parse(body)?)?),
            other => unreachable!("the functions do not call {other}"),
        }
    }

    /// `SendRawEmail`.
    fn send_raw_email(&self, call: &Call) -> Reply {
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

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, DynoxideError> {
    serde_json::from_slice(body).map_err(|error| DynoxideError::SerializationException(error.to_string()))
}

fn json_reply(response: &impl Serialize) -> Result<Reply, DynoxideError> {
    let body = serde_json::to_vec(response).expect("the engine answers JSON");
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
    let reply = async {
        let response = router.clone().call(request).await;
        let (parts, body) = response.unwrap_or_else(|never| match never {}).into_parts();
        let body = to_bytes(body, usize::MAX).await.expect("a body in memory");
        let reply = Reply::new(parts.status.as_u16(), body);
        match parts.headers.get("date").and_then(|date| date.to_str().ok()) {
            Some(date) => reply.with_header("date", date.to_owned()),
            None => reply,
        }
    };
    reply.now_or_never().expect("a simulated peer does not wait")
}

/// A date as an HTTP header spells it (RFC 9110, section 5.6.7).
pub(crate) fn http_date(time: Timestamp) -> String {
    time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}
