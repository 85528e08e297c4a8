//! Known mistakes, put in on the wire: each makes the service behave as if its code had the mistake. They are here to
//! show that the simulation would see them.

use edge::Ambient;
use peers::Callback;
use serde_json::{Value, json};

use crate::ground::Ground;
use crate::invariants::row;
use crate::wire::{Call, Peer, Reply};

/// A mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mistake {
    /// The line is taken for free because it was when it was read.
    LineNotLocked,
    /// The SIM is taken for free because the index said so.
    SimNotConditioned,
    /// The new SIM is not reserved at all.
    SimNotReserved,
    /// The answer to a key is not kept.
    KeyNotKept,
    /// A peer is called by whoever wants, claimed or not.
    CalledWithoutClaim,
    /// A mail is marked as sent before it is.
    MailMarkedBefore,
    /// A mail is marked as sent after it is, and not claimed before.
    MailMarkedAfter,
    /// A send is tried again when its answer is lost.
    MailRetried,
    /// A callback is written over whatever was written meanwhile.
    CallbackNotConditioned,
    /// An outcome is written over whatever was written meanwhile.
    OutcomeNotConditioned,
    /// An end is written whoever wrote it before: the SIM is freed twice, and the lock let go by one who does not have it.
    EndNotConditioned,
    /// The old SIM stays with the line.
    OldSimForgotten,
    /// The failed swap's SIM stays with it.
    NewSimForgotten,
    /// The line keeps the lock.
    LockForgotten,
    /// The order is taken for cancelled before the network says so.
    CancelNotAwaited,
    /// The profile is not cancelled.
    ProfileNotCancelled,
    /// The network's start is taken for the end.
    StartTakenForEnd,
    /// An order is placed again under another name.
    OrderRenamed,
    /// A callback of an earlier life of that SIM is acted on.
    EarlierLifeActedOn,
    /// The event of another order is acted on.
    OtherOrderActedOn,
    /// Bodies of calls are logged.
    BodiesLogged,
    /// A confirmation code stands in clear in the table.
    CodeInClear,
}

impl Mistake {
    pub(crate) const ALL: [Self; 22] = [
        Self::LineNotLocked,
        Self::SimNotConditioned,
        Self::SimNotReserved,
        Self::KeyNotKept,
        Self::CalledWithoutClaim,
        Self::MailMarkedBefore,
        Self::MailMarkedAfter,
        Self::MailRetried,
        Self::CallbackNotConditioned,
        Self::OutcomeNotConditioned,
        Self::EndNotConditioned,
        Self::OldSimForgotten,
        Self::NewSimForgotten,
        Self::LockForgotten,
        Self::CancelNotAwaited,
        Self::ProfileNotCancelled,
        Self::StartTakenForEnd,
        Self::OrderRenamed,
        Self::EarlierLifeActedOn,
        Self::OtherOrderActedOn,
        Self::BodiesLogged,
        Self::CodeInClear,
    ];

    /// Some that are seen soon.
    pub(crate) const FEW: [Self; 4] = [
        Self::LineNotLocked,
        Self::MailMarkedBefore,
        Self::LockForgotten,
        Self::BodiesLogged,
    ];

    /// What becomes of a call of this function, whose answer will be `lost` or not: it is altered, or this is the answer
    /// instead.
    pub(crate) fn alter(
        self,
        ground: &Ground,
        function: &str,
        lost: bool,
        call: &mut Call,
    ) -> Option<Reply> {
        let transaction = call.operation == "TransactWriteItems";
        let put = call.operation == "PutItem";
        let request: Value = serde_json::from_slice(&call.body).unwrap_or_default();
        let item = |name: &str| request["Item"][name]["S"].as_str().unwrap_or_default();
        let submits = transaction && ["submit-swap", "change-sim"].contains(&function);
        let ends = transaction && request.to_string().contains("REMOVE swap");
        match self {
            Self::LineNotLocked if submits => each(call, |write| {
                if of(write, "L#") {
                    let condition = write["ConditionExpression"].as_str().unwrap_or_default();
                    let without = condition.replace("attribute_not_exists(swap) AND ", "");
                    write["ConditionExpression"] = without.into();
                }
            }),
            Self::SimNotConditioned if submits => each(call, |write| {
                if of(write, "S#") {
                    relax(write);
                }
            }),
            Self::SimNotReserved if submits => omit(call, "S#", ""),
            Self::KeyNotKept if submits => each(call, |write| {
                if of(write, "I#") {
                    let elsewhere = format!("I#{}", write["Item"]["swap"]["S"]);
                    write["Item"]["pk"] = json!({"S": elsewhere});
                }
            }),
            Self::CalledWithoutClaim if put && function == "fulfil-swap" => {
                if request["Item"].get("token").is_some() {
                    return Some(Reply::new(200, "{}"));
                }
                relax_request(call, request);
            }
            Self::MailMarkedBefore if put && item("state") == "claimed" => {
                let mut request = request;
                request["Item"]["state"] = json!({"S": "sent"});
                call.body = request.to_string().into_bytes();
            }
            Self::MailMarkedAfter if put && function == "deliver-esim" => {
                if item("state") == "claimed" {
                    return Some(Reply::new(200, "{}"));
                }
                relax_request(call, request);
            }
            Self::MailRetried if lost && call.peer == Peer::Post => {
                // The SDK makes three tries.
                ground.perform(call);
                ground.perform(call);
            }
            Self::CallbackNotConditioned if put && function == "network-events" => {
                relax_request(call, request);
            }
            Self::OutcomeNotConditioned if put && function == "fulfil-swap" => {
                relax_request(call, request);
            }
            Self::EndNotConditioned if ends => each(call, relax),
            Self::OldSimForgotten if ends => {
                omit(call, "S#", "\"ConditionExpression\":\"holder = :line\"");
            }
            Self::NewSimForgotten if ends => omit(call, "S#", ":from"),
            Self::LockForgotten if ends => omit(call, "L#", ""),
            Self::CancelNotAwaited if call.peer == Peer::Network && call.method == "GET" => {
                let id = call.path.rsplit('=').next().unwrap_or_default();
                let swap = row(ground, &format!("A#{id}"), "activation")?;
                if swap["phase"]["S"] == "ending" {
                    let reply = ground.perform(call);
                    let body = String::from_utf8_lossy(&reply.body);
                    let body = body.replace("\"held\"", "\"cancelled\"");
                    return Some(Reply::new(reply.status, body));
                }
            }
            Self::ProfileNotCancelled if call.path.ends_with("cancelOrder") => {
                let status = json!({"status": "Executed-Success"});
                let body = json!({"header": {"functionExecutionStatus": status}});
                return Some(Reply::new(200, body.to_string()));
            }
            Self::StartTakenForEnd if call.peer == Peer::Network => {
                let reply = ground.perform(call);
                let body = String::from_utf8_lossy(&reply.body);
                let body = body.replace("\"inProgress\"", "\"completed\"");
                return Some(Reply::new(reply.status, body));
            }
            Self::OrderRenamed if call.method == "POST" && call.path.ends_with("/serviceOrder") => {
                let mut request = request;
                let id = request["externalId"].as_str().unwrap_or_default();
                request["externalId"] = format!("{id}-again").into();
                ground.perform(&Call {
                    body: request.to_string().into_bytes(),
                    ..call.clone()
                });
            }
            Self::BodiesLogged if call.peer == Peer::Smdp => {
                tracing::info!(body = %request, "a call");
            }
            Self::CodeInClear if transaction => each(call, in_clear),
            Self::CodeInClear if put => {
                let mut request = request;
                in_clear(&mut request);
                call.body = request.to_string().into_bytes();
            }
            _ => {}
        }
        None
    }

    /// What a callback says when it comes to the functions.
    pub(crate) fn alter_callback(
        self,
        ground: &Ground,
        callback: &mut Callback,
        ambient: &Ambient,
    ) {
        let mut body: Value = serde_json::from_str(&callback.body).unwrap_or_default();
        match self {
            Self::EarlierLifeActedOn if body.get("timestamp").is_some() => {
                body["timestamp"] = ambient
                    .now()
                    .strftime("%Y-%m-%dT%H:%M:%SZ")
                    .to_string()
                    .into();
            }
            Self::OtherOrderActedOn => {
                let order = &mut body["event"]["serviceOrder"];
                let id = order["externalId"].as_str().unwrap_or_default();
                if let Some(swap) = row(ground, &format!("A#{id}"), "activation") {
                    order["id"] = swap["orderNumber"]["S"].clone();
                }
            }
            _ => return,
        }
        callback.body = body.to_string();
    }
}

/// Alters each part of a transaction.
fn each(call: &mut Call, alter: impl Fn(&mut Value)) {
    let mut request: Value = serde_json::from_slice(&call.body).unwrap_or_default();
    for part in request["TransactItems"]
        .as_array_mut()
        .into_iter()
        .flatten()
    {
        for (_, write) in part.as_object_mut().into_iter().flatten() {
            alter(write);
        }
    }
    call.body = request.to_string().into_bytes();
}

/// Leaves out the parts of a transaction that write to such a row and use such a value.
fn omit(call: &mut Call, prefix: &str, value: &str) {
    let mut request: Value = serde_json::from_slice(&call.body).unwrap_or_default();
    if let Some(parts) = request["TransactItems"].as_array_mut() {
        parts.retain(|part| {
            let write = part.as_object().and_then(|part| part.values().next());
            !write.is_some_and(|write| of(write, prefix) && write.to_string().contains(value))
        });
    }
    call.body = request.to_string().into_bytes();
}

/// Whether a write is to such a row.
fn of(write: &Value, prefix: &str) -> bool {
    [&write["Item"], &write["Key"]].iter().any(|keys| {
        keys["pk"]["S"]
            .as_str()
            .is_some_and(|pk| pk.starts_with(prefix))
    })
}

/// Makes a condition always true; the values in it stay used.
fn relax(write: &mut Value) {
    let condition = write["ConditionExpression"].as_str().unwrap_or_default();
    let always = format!("({condition}) OR attribute_exists(pk) OR attribute_not_exists(pk)");
    write["ConditionExpression"] = always.into();
}

fn relax_request(call: &mut Call, mut request: Value) {
    relax(&mut request);
    call.body = request.to_string().into_bytes();
}

/// A swap's row says what its sealed code is.
fn in_clear(write: &mut Value) {
    if write["Item"].get("code").is_some() {
        write["Item"]["note"] = json!({"S": crate::people::code(0)});
    }
}
