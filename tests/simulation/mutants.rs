//! Known mistakes, put in on the wire: each makes the service behave as if its code had the mistake. They are here to
//! show that the simulation would see them.

use edge::ClockAndRng;
use memchr::memmem;
use serde_json::{Value, json};
use simulators::Callback;

use crate::fakes::Fakes;
use crate::faults::FaultPlan;
use crate::invariants::{row, swap_of_call};
use crate::scheduler::EARLIER;
use crate::transport::{Call, Peer, Reply};

/// A mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutant {
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
    /// 401 to an order is taken for a refusal of the order.
    UnauthorizedOrderRefused,
    /// 401 to a start is taken for a refusal of the order.
    UnauthorizedStartRefused,
    /// 409 to a start is taken for a refusal of the order.
    ConflictTakenForRefusal,
    /// A search that shows nothing ends a swap that the network has started.
    EmptySearchEnds,
    /// So does one that is answered 404.
    NotFoundEnds,
    /// An order that comes after its call was given up is not looked for.
    LateOrderForgotten,
    /// A peer that does not settle is asked for ever.
    NeverSettled,
    /// A refused cancelOrder is taken for done.
    RefusedCancelTaken,
    /// Ordering is given up after two hours.
    OrderingGivenUpEarly,
    /// Ordering is given up after eight claims that lapsed or failed.
    EightTries,
    /// JSON null makes an answer unreadable.
    NullUnreadable,
    /// So do capitals.
    CapitalsUnreadable,
    /// So do ids that are numbers.
    NumbersUnreadable,
    /// A foreign order in a list is taken for ours.
    ForeignOrderTaken,
    /// An event that does not name the swap is dropped.
    UnnamedEventDropped,
    /// An event that comes before the answer to the order is forgotten.
    OvertakingEventForgotten,
    /// `completed` after ERROR is ignored.
    LateCompletionIgnored,
    /// That the network and the table disagree is not flagged.
    DisputeNotFlagged,
    /// The network is asked to cancel again while it assesses a cancel.
    CancelledAgain,
    /// `inProgress` before the installation voids the mail.
    EarlyStartVoidsMail,
    /// A callback of the first order that is dated before it is refused.
    EarlyClockRefused,
    /// A callback whose date cannot be read is refused.
    UnreadableDateRefused,
    /// `Retry-After` is ignored.
    RetryAfterIgnored,
    /// A card is free at once though its order may still be carried out.
    CardFreedAtOnce,
    /// An eSIM that is on a phone is free.
    PhoneProfileFreed,
    /// Throttling counts as a refusal of the mail.
    ThrottlingCounted,
    /// A mail is sent as often as SES does not answer.
    FourthMail,
    /// A transient bounce after the delivery is shown.
    SoftBounceShown,
    /// A line is barred, and its open swap goes on.
    SwapNotStopped,
    /// A swap is stopped over whatever was written meanwhile.
    StopNotConditioned,
    /// A swap is begun on a line that was locked after it was read.
    LockNotConditioned,
    /// A swap that was stopped is written as one that its caller cancelled.
    StopForgotten,
    /// A QR code that is enough goes wherever a caller wants.
    QrCodeElsewhere,
    /// A SIM whose codes were shown is free for everybody.
    ShownSimFreed,
    /// A confirmation code is shown to whoever looks.
    CodeShownToAll,
    /// The codes of a barred account are shown.
    BarredCodesShown,
    /// The matching id stays when the confirmation code is erased.
    MatchingIdKept,
    /// An import sets the lock back to what it read.
    LockSetBack,
}

impl Mutant {
    pub(crate) const ALL: [Self; 60] = [
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
        Self::UnauthorizedOrderRefused,
        Self::UnauthorizedStartRefused,
        Self::ConflictTakenForRefusal,
        Self::EmptySearchEnds,
        Self::NotFoundEnds,
        Self::LateOrderForgotten,
        Self::NeverSettled,
        Self::RefusedCancelTaken,
        Self::OrderingGivenUpEarly,
        Self::EightTries,
        Self::NullUnreadable,
        Self::CapitalsUnreadable,
        Self::NumbersUnreadable,
        Self::ForeignOrderTaken,
        Self::UnnamedEventDropped,
        Self::OvertakingEventForgotten,
        Self::LateCompletionIgnored,
        Self::DisputeNotFlagged,
        Self::CancelledAgain,
        Self::EarlyStartVoidsMail,
        Self::EarlyClockRefused,
        Self::UnreadableDateRefused,
        Self::RetryAfterIgnored,
        Self::CardFreedAtOnce,
        Self::PhoneProfileFreed,
        Self::ThrottlingCounted,
        Self::FourthMail,
        Self::SoftBounceShown,
        Self::SwapNotStopped,
        Self::StopNotConditioned,
        Self::LockNotConditioned,
        Self::StopForgotten,
        Self::QrCodeElsewhere,
        Self::ShownSimFreed,
        Self::CodeShownToAll,
        Self::BarredCodesShown,
        Self::MatchingIdKept,
        Self::LockSetBack,
    ];

    /// Some that are seen soon.
    pub(crate) const FEW: [Self; 4] = [
        Self::LineNotLocked,
        Self::MailMarkedBefore,
        Self::LockForgotten,
        Self::BodiesLogged,
    ];

    /// The faults in which it shows; `None` if those of any rough simulation do.
    pub(crate) fn weather(self) -> Option<FaultPlan> {
        let fault = match self {
            Self::UnauthorizedOrderRefused => "401 to orders",
            Self::UnauthorizedStartRefused => "401 to starts",
            Self::ConflictTakenForRefusal => "409 to every start",
            Self::EmptySearchEnds => "search empty",
            Self::NotFoundEnds => "search 404",
            Self::LateOrderForgotten | Self::CardFreedAtOnce => "belated, refused",
            Self::NeverSettled | Self::RefusedCancelTaken => "cancelOrder refused 8.2.6",
            Self::OrderingGivenUpEarly => "HTML",
            Self::EightTries => "overload",
            Self::NullUnreadable | Self::CapitalsUnreadable | Self::UnreadableDateRefused => "spelling",
            Self::NumbersUnreadable => "numbers",
            Self::UnnamedEventDropped => "unnamed events",
            Self::OvertakingEventForgotten => "slow, so that events overtake",
            Self::LateCompletionIgnored | Self::DisputeNotFlagged => "completed after a day",
            Self::CancelledAgain => "cancel settled late",
            Self::EarlyStartVoidsMail => "inProgress shown early",
            Self::EarlyClockRefused => "clocks behind",
            Self::RetryAfterIgnored => "429",
            Self::ThrottlingCounted => "SES throttles",
            Self::FourthMail => "SES silent",
            Self::SoftBounceShown => "soft bounces",
            _ => return None,
        };
        let mut faults = FaultPlan::each_alone().into_iter();
        let found = faults.find(|(name, _)| *name == fault);
        Some(found.expect("there is such a fault").1)
    }

    /// Whether it shows where operators bar lines and a thief has a token.
    pub(crate) fn robs(self) -> bool {
        matches!(
            self,
            Self::SwapNotStopped
                | Self::StopNotConditioned
                | Self::StopForgotten
                | Self::QrCodeElsewhere
                | Self::ShownSimFreed
                | Self::CodeShownToAll
                | Self::BarredCodesShown
                | Self::LockSetBack
        )
    }

    /// A setting that makes it.
    pub(crate) fn setting(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::LateOrderForgotten => Some(("CALL_REST", "1ms")),
            Self::NeverSettled => Some(("SETTLE_WITHIN", "10000h")),
            Self::OrderingGivenUpEarly => Some(("ORDER_WITHIN", "2h")),
            _ => None,
        }
    }

    /// Whether the answer to such a call is always lost, so that it shows.
    pub(crate) fn loses(self, call: &Call) -> bool {
        self == Self::FourthMail && call.peer == Peer::Post
    }

    /// What becomes of a call of this function, whose answer will be `lost` or not: it is altered, or this is the answer
    /// instead.
    pub(crate) fn alter(self, ground: &Fakes, function: &str, lost: bool, call: &mut Call) -> Option<Reply> {
        let transaction = call.operation == "TransactWriteItems";
        let put = call.operation == "PutItem";
        let request: Value = serde_json::from_slice(&call.body).unwrap_or_default();
        let item = |name: &str| request["Item"][name]["S"].as_str().unwrap_or_default();
        let submits = transaction && ["submit-swap", "change-sim"].contains(&function);
        let text = request.to_string();
        let ends = ["REMOVE swap", "REMOVE disputed, swap"];
        let ends = transaction && ends.iter().any(|end| text.contains(end));
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
                let id = swap_of_call(ground, call)?;
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
            Self::EightTries if put && function == "fulfil-swap" => {
                let tries = request["Item"]["tries"]["N"].as_str();
                let tries: u32 = tries.and_then(|tries| tries.parse().ok()).unwrap_or(0);
                // Claims that lapsed are one line of the timeline: `1000+60000x9 cut off`.
                let lapsed = request["Item"]["timeline"]["L"].as_array().into_iter().flatten();
                let mut lapsed = lapsed.filter_map(|line| {
                    let times = line["S"].as_str()?.strip_suffix(" cut off")?;
                    let count = times.rsplit_once('x').map_or("1", |(_, count)| count);
                    count.parse::<u32>().ok()
                });
                let tried = tries + lapsed.next().unwrap_or(0);
                if item("phase") == "ordering" && tried >= 8 {
                    let mut request = request;
                    request["Item"]["phase"] = json!({"S": "ending"});
                    request["Item"]["failure"] = json!({"S": "internal"});
                    call.body = request.to_string().into_bytes();
                }
            }
            Self::DisputeNotFlagged if transaction || put => {
                let body = String::from_utf8_lossy(&call.body);
                call.body = body.replace("disputed", "other").into_bytes();
            }
            Self::CardFreedAtOnce if ends => each(call, |write| {
                if of(write, "S#") && write["ExpressionAttributeValues"].get(":from").is_some() {
                    write["ExpressionAttributeValues"][":from"] = json!({"S": "00000000000000"});
                }
            }),
            Self::PhoneProfileFreed if ends => each(call, |write| {
                let values = &mut write["ExpressionAttributeValues"];
                if values.get(":disabled").is_some() && values.get(":swap").is_some() {
                    values[":disabled"] = json!({"S": "FREE"});
                }
            }),
            Self::FourthMail if put && function == "deliver-esim" => {
                let mut request = request;
                if let Some(item) = request["Item"].as_object_mut() {
                    item.remove("doubts");
                }
                call.body = request.to_string().into_bytes();
            }
            Self::EarlyStartVoidsMail if call.operation == "Query" && function == "deliver-esim" => {
                let reply = ground.perform(call);
                let mut found: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
                for item in found["Items"].as_array_mut().into_iter().flatten() {
                    if item["phase"]["S"] == "started" && item["profile"]["S"] == "released" {
                        item["phase"] = json!({"S": "error"});
                    }
                }
                return Some(Reply::new(reply.status, found.to_string()));
            }
            Self::SwapNotStopped if function == "import" => omit(call, "A#", ""),
            Self::StopNotConditioned if function == "import" => each(call, relax),
            Self::LockSetBack if function == "import" => each(call, |write| {
                let condition = write["ConditionExpression"].as_str().unwrap_or_default();
                let always = "(locked = :kept OR attribute_exists(locked))";
                write["ConditionExpression"] = condition.replace("locked = :kept", always).into();
            }),
            Self::LockNotConditioned if submits => each(call, |write| {
                if of(write, "L#") {
                    let condition = write["ConditionExpression"].as_str().unwrap_or_default();
                    write["ConditionExpression"] = condition.replace(" AND locked = :no", "").into();
                }
            }),
            Self::StopForgotten => {
                let body = String::from_utf8_lossy(&call.body);
                let body = body.replace(r#"{"S":"stopped"}"#, r#"{"S":"cancelled"}"#);
                call.body = body.into_bytes();
            }
            Self::QrCodeElsewhere if call.operation == "Query" && function == "manage-swap" => {
                return Some(altered(ground.perform(call), |row| {
                    row["hasCode"] = json!({"BOOL": true});
                }));
            }
            Self::ShownSimFreed if ends => each(call, |write| {
                let kept = write["UpdateExpression"].as_str().unwrap_or_default();
                if of(write, "S#") && kept.ends_with(", holder = :line") {
                    let pk = write["Key"]["pk"]["S"].as_str().unwrap_or_default().to_owned();
                    let Some(sim) = row(ground, &pk, "sim") else {
                        return;
                    };
                    let text = |name: &str| sim[name]["S"].as_str().unwrap_or_default().to_owned();
                    let kind = if text("form") == "eSIM" { "esim" } else { "card" };
                    let shelf = format!("{}#{}#{kind}", text("network"), text("reseller"));
                    let freed = kept.replace("holder = :line", "shelf = :line REMOVE holder");
                    write["UpdateExpression"] = freed.into();
                    write["ExpressionAttributeValues"][":line"] = json!({"S": shelf});
                }
            }),
            Self::CodeShownToAll if function == "query-activation" => {
                let reads = ["Query", "GetItem", "BatchGetItem"];
                if reads.contains(&&*call.operation) && request.get("IndexName").is_none() {
                    let desk = domain::Caller {
                        subject: "desk".to_owned(),
                        scope: domain::Scope::Admin,
                    };
                    let desk = json!({"S": store::caller_digest(&desk)});
                    return Some(altered(ground.perform(call), |row| row["caller"] = desk.clone()));
                }
            }
            Self::BarredCodesShown if function == "change-sim" && call.operation == "GetItem" && of(&request, "L#") => {
                return Some(altered(ground.perform(call), |row| {
                    row["state"] = json!({"S": "ACTIVE"});
                    row["locked"] = json!({"BOOL": false});
                    row["porting"] = json!({"BOOL": false});
                }));
            }
            Self::MatchingIdKept if function == "fulfil-swap" => {
                let keep = |write: &mut Value| {
                    let text = |name: &str| write["Item"][name]["S"].as_str().unwrap_or_default();
                    if !ended(text("phase")) {
                        return;
                    }
                    let before = row(ground, text("pk"), "activation");
                    let kept = before.and_then(|before| before.get("matchingId").cloned());
                    if let Some(kept) = kept {
                        write["Item"]["matchingId"] = kept;
                    }
                };
                if transaction {
                    each(call, keep);
                } else if put {
                    let mut request = request;
                    keep(&mut request);
                    call.body = request.to_string().into_bytes();
                }
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

    /// The reply to a call that the functions hear instead of this one.
    pub(crate) fn alter_reply(self, ground: &Fakes, call: &Call, reply: &Reply) -> Option<Reply> {
        let network = call.peer == Peer::Network;
        let asks = network && call.method == "GET";
        let starts = network && call.method == "PATCH";
        let places = network && call.method == "POST" && call.path.ends_with("/serviceOrder");
        match (self, reply.status) {
            (Self::UnauthorizedOrderRefused, 401) if places => Some(Reply::new(400, "{}")),
            // The order is looked up before it is started.
            (Self::UnauthorizedStartRefused, 401) if network => {
                let swap = swap_of_call(ground, call)?;
                let swap = row(ground, &format!("A#{swap}"), "activation")?;
                let number = swap["orderNumber"]["S"].as_str()?;
                let starts = swap["phase"]["S"] == "ordered" && swap["profile"]["S"] == "installed";
                starts.then(|| rejected(ground.order(number)))
            }
            (Self::ConflictTakenForRefusal, 409) if starts => {
                let id = call.path.rsplit('/').next()?;
                Some(rejected(ground.order(&id.replace("%2D", "-"))))
            }
            (Self::EmptySearchEnds | Self::NotFoundEnds, _) if asks => {
                let swap = swap_of_call(ground, call)?;
                let swap = row(ground, &format!("A#{swap}"), "activation")?;
                let number = swap["orderNumber"]["S"].as_str()?;
                (swap["phase"]["S"] == "started").then(|| rejected(ground.order(number)))
            }
            (Self::RefusedCancelTaken, _) if call.path.ends_with("cancelOrder") => {
                let status = json!({"status": "Executed-Success"});
                let body = json!({"header": {"functionExecutionStatus": status}});
                Some(Reply::new(200, body.to_string()))
            }
            (Self::CancelledAgain, _) if asks => {
                let body = String::from_utf8_lossy(&reply.body);
                let body = body.replace("\"pendingCancellation\"", "\"held\"");
                Some(Reply::new(reply.status, body))
            }
            (Self::ForeignOrderTaken, 200) if asks => {
                let (_, id) = call.path.split_once("externalId=")?;
                let foreign = json!([{"id": "777", "externalId": id, "state": "completed"}]);
                Some(Reply::new(200, foreign.to_string()))
            }
            (Self::RetryAfterIgnored, 429) => Some(Reply::new(429, "")),
            (Self::ThrottlingCounted, 400) if call.peer == Peer::Post => {
                let body = String::from_utf8_lossy(&reply.body);
                let body = body.replace(">Throttling<", ">MessageRejected<");
                let body = body.replace("Maximum sending rate exceeded.", "No.");
                Some(Reply::new(400, body))
            }
            _ => None,
        }
    }

    /// Whether a reply, as it is spelled, is unreadable for the functions.
    pub(crate) fn cannot_read(self, reply: &Reply) -> bool {
        let has = |what: &str| memmem::find(&reply.body, what.as_bytes()).is_some();
        let state = |word: &str| has(&format!("\"state\":\"{word}\""));
        match self {
            Self::NullUnreadable => has(":null"),
            Self::CapitalsUnreadable => ["Held", "HELD", "InProgress", "INPROGRESS", "Completed", "COMPLETED"]
                .into_iter()
                .any(state),
            Self::NumbersUnreadable => has("\"id\":3"),
            _ => false,
        }
    }

    /// What SES reports of a mail, as the functions read it.
    pub(crate) fn alter_report(self, event: &mut Value) {
        let message = &mut event["Records"][0]["Sns"]["Message"];
        if self == Self::SoftBounceShown
            && let Some(text) = message.as_str()
        {
            *message = text.replace("Transient", "Permanent").into();
        }
    }

    /// What a callback says when it comes to the functions. Tells whether it is answered and forgotten instead.
    pub(crate) fn alter_callback(self, ground: &Fakes, callback: &mut Callback, ambient: &ClockAndRng) -> bool {
        let text = callback.body.trim_start_matches('\u{feff}');
        let mut body: Value = serde_json::from_str(text).unwrap_or_default();
        let order = &body["event"]["serviceOrder"];
        let id = order["externalId"].as_str().unwrap_or_default();
        let swap = row(ground, &format!("A#{id}"), "activation");
        let is_event = order.is_object();
        let dated = body["timestamp"].as_str();
        let dated = dated.and_then(|text| text.parse::<jiff::Timestamp>().ok());
        match self {
            Self::UnnamedEventDropped => return is_event && id.is_empty(),
            Self::OvertakingEventForgotten => {
                return swap.is_some_and(|swap| swap.get("orderNumber").is_none());
            }
            Self::LateCompletionIgnored => {
                return order["state"] == "completed" && swap.is_some_and(|swap| swap["phase"]["S"] == "error");
            }
            Self::UnreadableDateRefused if !is_event && dated.is_none() => body = json!({}),
            Self::EarlyClockRefused if dated.is_some_and(|dated| dated < ambient.now()) => {
                body["timestamp"] = EARLIER.into();
            }
            Self::EarlierLifeActedOn if body.get("timestamp").is_some() => {
                body["timestamp"] = ambient.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into();
            }
            Self::OtherOrderActedOn => {
                if let Some(swap) = swap {
                    body["event"]["serviceOrder"]["id"] = swap["orderNumber"]["S"].clone();
                }
            }
            _ => return false,
        }
        callback.body = body.to_string();
        false
    }
}

/// A reply of the table in which rows are other than they are.
fn altered(reply: Reply, alter: impl Fn(&mut Value)) -> Reply {
    let mut body: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    if body["Item"].is_object() {
        alter(&mut body["Item"]);
    }
    let responses = body["Responses"].as_object_mut().into_iter().flatten();
    let mut lists: Vec<&mut Value> = responses.map(|(_, rows)| rows).collect();
    for rows in lists.iter_mut().filter_map(|rows| rows.as_array_mut()) {
        rows.iter_mut().for_each(&alter);
    }
    if let Some(rows) = body["Items"].as_array_mut() {
        rows.iter_mut().for_each(&alter);
    }
    Reply::new(reply.status, body.to_string())
}

fn ended(phase: &str) -> bool {
    ["done", "error"].contains(&phase)
}

/// An order as the network would answer it after it rejected it.
fn rejected(mut order: Value) -> Reply {
    order["state"] = "rejected".into();
    Reply::new(200, order.to_string())
}

/// Alters each part of a transaction.
fn each(call: &mut Call, alter: impl Fn(&mut Value)) {
    let mut request: Value = serde_json::from_slice(&call.body).unwrap_or_default();
    for part in request["TransactItems"].as_array_mut().into_iter().flatten() {
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
    [&write["Item"], &write["Key"]]
        .iter()
        .any(|keys| keys["pk"]["S"].as_str().is_some_and(|pk| pk.starts_with(prefix)))
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
        write["Item"]["note"] = json!({"S": crate::workload::code(0)});
    }
}
