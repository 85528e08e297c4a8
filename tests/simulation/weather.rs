//! Faults: what can become of a call on its way, and how often. Which calls there are is not here.

use fastrand::Rng;
use serde_json::{Value, json};

use crate::wire::{Call, Peer, Reply};

/// What becomes of one call.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fault {
    /// Nothing: it is carried out and answered.
    None,
    /// No connection stands.
    NotSent,
    /// It vanishes; the caller waits in vain.
    Vanishes,
    /// It is carried out; the connection breaks off before the answer.
    AnswerLost,
    /// It is carried out; the caller waits in vain.
    Silence,
    /// It is not carried out; this is the answer.
    Refused(Reply),
    /// It is carried out; this is the answer all the same.
    Garbled(Reply),
    /// It is carried out so many milliseconds later.
    Late(u64),
    /// A query of an index is answered as it was answered before.
    Stale,
}

/// How bad things are in one world. Chances are in thousandths.
#[derive(Debug, Clone)]
pub(crate) struct Weather {
    /// That a call meets a fault.
    pub(crate) fault: u32,
    /// That the process is killed near a call.
    pub(crate) kill: u32,
    /// That a callback or a stream record comes again.
    pub(crate) repeat: u32,
    /// That a callback or a stream record comes late, by up to an hour.
    pub(crate) late: u32,
    /// That a peer's callback is one that says nonsense.
    pub(crate) nonsense: u32,
    /// That the network gives up an order by itself.
    pub(crate) giving_up: u32,
    /// Whether the stream delivers at all.
    pub(crate) stream: bool,
    /// Between two looks at the stream at most, in milliseconds. Lambda's are 250.
    pub(crate) poll: u64,
    /// When all of that stops, in milliseconds.
    pub(crate) until: u64,
}

impl Weather {
    /// Nothing goes wrong.
    pub(crate) const CALM: Self = Self {
        fault: 0,
        kill: 0,
        repeat: 0,
        late: 0,
        nonsense: 0,
        giving_up: 0,
        stream: true,
        poll: 60,
        until: 0,
    };

    /// Everything goes wrong for an hour.
    pub(crate) const ROUGH: Self = Self {
        fault: 100,
        kill: 5,
        repeat: 400,
        late: 50,
        nonsense: 400,
        giving_up: 0,
        stream: true,
        poll: 60,
        until: 3_600_000,
    };

    /// Anything between calm and storm.
    pub(crate) fn any(rng: &mut Rng) -> Self {
        let one_of = |rng: &mut Rng, chances: [u32; 4]| chances[rng.usize(..4)];
        Self {
            fault: one_of(rng, [0, 10, 40, 150]),
            kill: one_of(rng, [0, 0, 5, 30]),
            repeat: one_of(rng, [0, 50, 200, 400]),
            late: one_of(rng, [0, 0, 50, 200]),
            nonsense: one_of(rng, [0, 0, 30, 100]),
            giving_up: one_of(rng, [0, 0, 0, 200]),
            stream: rng.u8(..8) > 0,
            poll: [60, 250, 1_000, 1_000][rng.usize(..4)],
            until: rng.u64(1..=120) * 60_000,
        }
    }

    /// What becomes of this call.
    pub(crate) fn fault(&self, rng: &mut Rng, call: &Call, now: u64) -> Fault {
        if now >= self.until || rng.u32(..1000) >= self.fault {
            return Fault::None;
        }
        match rng.u8(..8) {
            0 => Fault::NotSent,
            1 => Fault::Vanishes,
            2 => Fault::AnswerLost,
            3 => Fault::Silence,
            4 => Fault::Late(rng.u64(20..8_000)),
            5 => Fault::Garbled(garbled(rng, call.peer)),
            _ => of_peer(rng, call),
        }
    }
}

fn garbled(rng: &mut Rng, peer: Peer) -> Reply {
    match (peer, rng.bool()) {
        (Peer::Smdp | Peer::Network, true) => Reply::new(200, "<html>it works</html>"),
        _ => Reply::new(500, "<html>it does not work</html>"),
    }
}

/// A refusal in the peer's own words.
fn of_peer(rng: &mut Rng, call: &Call) -> Fault {
    let aws = |kind: &str| json!({"__type": format!("com.amazonaws#{kind}"), "message": "no"});
    Fault::Refused(match call.peer {
        Peer::Table => match (call.operation.as_str(), rng.u8(..4)) {
            ("Query", 0..3) if call.is_index_query() => return Fault::Stale,
            ("TransactWriteItems", 0..2) => conflict(rng, call),
            ("PutItem" | "UpdateItem", 0) => answer(400, &aws("TransactionConflictException")),
            (_, 1) => answer(400, &aws("ThrottlingException")),
            (_, 2) => answer(400, &aws("ProvisionedThroughputExceededException")),
            _ => answer(500, &aws("InternalServerError")),
        },
        Peer::Keys => answer(400, &aws("ThrottlingException")),
        Peer::Lambda => answer(429, &aws("TooManyRequestsException")),
        Peer::Post => {
            let code =
                ["Throttling", "Throttling", "Throttling", "MessageRejected"][rng.usize(..4)];
            let body = format!(
                "<ErrorResponse xmlns=\"http://ses.amazonaws.com/doc/2010-12-01/\"><Error><Type>Sender</Type>\
                 <Code>{code}</Code><Message>no</Message></Error></ErrorResponse>"
            );
            Reply::new(400, body)
        }
        Peer::Smdp => match rng.u8(..3) {
            0 => Reply::new(503, ""),
            // None of the type is left: more may come.
            1 if call.path.ends_with("downloadOrder") => refused("8.2.5", "3.7"),
            2 if call.path.ends_with("confirmOrder") => refused("8.2.6", "3.8"),
            _ => Reply::new(500, ""),
        },
        Peer::Network => match rng.u8(..3) {
            0 => Reply::new(503, ""),
            1 => Reply::new(429, ""),
            _ => Reply::new(400, r#"{"code":"1","reason":"no"}"#),
        },
    })
}

fn conflict(rng: &mut Rng, call: &Call) -> Reply {
    let request: Value = serde_json::from_slice(&call.body).unwrap_or_default();
    let writes = request["TransactItems"].as_array().map_or(1, Vec::len);
    let one = rng.usize(..writes);
    let reasons: Vec<_> = (0..writes)
        .map(|n| json!({"Code": if n == one { "TransactionConflict" } else { "None" }}))
        .collect();
    let body = json!({
        "__type": "com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
        "Message": "no",
        "CancellationReasons": reasons,
    });
    answer(400, &body)
}

fn refused(subject: &str, reason: &str) -> Reply {
    let data = json!({"subjectCode": subject, "reasonCode": reason, "message": "no"});
    let status = json!({"status": "Failed", "statusCodeData": data});
    answer(200, &json!({"header": {"functionExecutionStatus": status}}))
}

fn answer(status: u16, body: &Value) -> Reply {
    Reply::new(status, body.to_string())
}

impl Call {
    /// Whether it reads an index.
    pub(crate) fn is_index_query(&self) -> bool {
        self.operation == "Query" && self.body.windows(11).any(|part| part == b"\"IndexName\"")
    }
}
