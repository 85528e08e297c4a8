//! What happens to the calls of the functions: their faults, their execution by the fakes, and what follows from it.
//! Which faults and quirks exist is in `faults` and `quirks`.

use domain::Iccid;
use peers::OrderState;
use serde_json::{Value, json};
use simulators::ProfileState;
use store::Shard;

use super::actors::MailedCode;
use super::invocations::Consumer;
use super::{CallResult, EARLIER_LIFE, Event, Interruption, Scheduler, shorten};
use crate::fakes::http_date;
use crate::faults::{BELATED_AT_MOST, Fault, Outage, es2plus_failure};
use crate::invariants::WriteRequest;
use crate::quirks::{CancelSettlement, EarlyStart, Search, order_state_shown, restore_order_ids};
use crate::transport::{Call, ConnectionFailure, Exchange, Peer, Reply};
use crate::workload::phone_acts;

/// How long a client waits for the SM-DP+ or the network, in milliseconds.
const CALL_TIMEOUT: u64 = 30_000;

impl Scheduler {
    /// Draws the fault of a call, and schedules its arrival at the peer.
    pub(super) fn decide_fault(&mut self, exchange: Exchange) {
        if let Some(reply) = self.quiet_shard(&exchange.call) {
            let _ = exchange.reply_to.send(Ok(reply));
            return;
        }
        let number = self.exchanges;
        self.exchanges += 1;
        let invocation = exchange.invocation;
        if exchange.call.peer == Peer::Ses
            && let Some(running) = self.running.get_mut(&invocation)
        {
            running.called_ses = true;
        }
        let now = self.now();
        let (call, faults) = (&exchange.call, &self.plan.faults);
        let mut fault = faults.draw_fault(&mut self.rng, call, now);
        if self.plan.mutant.is_some_and(|mutant| mutant.loses_response(call)) {
            fault = Fault::ResponseLost;
        }
        let latency = self.rng.u64(1..=15);
        if let Some((at, interruption)) = self.plan.interruption.clone()
            && at == number
        {
            let running = self.running.get(&invocation);
            self.interrupted = running.map(|running| (invocation, running.function));
            match interruption {
                Interruption::KillBefore => {
                    self.trace(|| format!("#{invocation} is killed before exchange {number}"));
                    self.kill(invocation);
                    return;
                }
                Interruption::KillAfter => fault = Fault::ResponseTimesOut,
                Interruption::RivalBefore(rival) => {
                    fault = Fault::Delayed(2_000);
                    self.start_rival(rival);
                }
                // `perform_call` starts the rival.
                Interruption::RivalAfter(_) => {}
            }
        }
        let claim_expiry = match exchange.call.peer {
            Peer::Smdp | Peer::Network => self.plan.faults.claim_expiry,
            _ => 0,
        };
        if self.chance(self.plan.faults.kill) || self.chance(claim_expiry) {
            let within = self.rng.u64(1..40);
            self.schedule_in(within, Event::Kill(invocation));
        }
        let extra_delay = match fault {
            Fault::Delayed(millis) => millis,
            _ => 0,
        };
        self.schedule_in(
            latency + extra_delay,
            Event::CallArrives(Box::new(exchange), fault, number),
        );
    }

    /// The reply to the sweeper's query of a shard that has never had a row that was due. Such queries are most of all
    /// calls, and their faults change nothing.
    fn quiet_shard(&self, call: &Call) -> Option<Reply> {
        let is_of_shard = call.is_index_query() && index_key(call).starts_with("\"due1\"");
        if !is_of_shard || self.index_replies.contains_key(&index_key(call)) {
            return None;
        }
        let request: Value = serde_json::from_slice(&call.body).unwrap_or_default();
        let shard = &request["ExpressionAttributeValues"][":shard"]["S"];
        if !self.monitor.swaps().any(|id| *shard == Shard::of(&id).key()) {
            return Some(Reply::new(200, r#"{"Count":0,"Items":[],"ScannedCount":0}"#));
        }
        let reply = self.fakes.perform(call);
        let rows: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        (rows["Count"] == 0).then_some(reply)
    }

    /// Performs a call that has reached its peer, as its fault and the mutant allow, and schedules the reply.
    pub(super) fn perform_call(&mut self, exchange: Exchange, fault: Fault, number: u64) {
        let Exchange {
            invocation,
            mut call,
            reply_to,
        } = exchange;
        let timeout = match call.peer {
            Peer::Smdp | Peer::Network => CALL_TIMEOUT,
            Peer::DynamoDb | Peer::Kms | Peer::Ses | Peer::Lambda => 40_000,
        };
        let now = self.now();
        let outage = self.plan.faults.outage_at(call.peer, now);
        if call.peer == Peer::Ses
            && outage.is_none()
            && !matches!(fault, Fault::None | Fault::NotSent | Fault::Rejected(_))
        {
            self.monitor.mark_outcome_unknown(&call);
        }
        let description = if self.plan.traced {
            describe(&call)
        } else {
            String::new()
        };
        if call.peer == Peer::Network {
            restore_order_ids(&mut call);
        }
        let mut latency = self.plan.faults.quirks.latency(call.peer);
        let is_executed = !matches!(
            fault,
            Fault::NotSent | Fault::RequestLost | Fault::Rejected(_) | Fault::Belated(_)
        );
        let (result, delay): (CallResult, u64) = match fault {
            Fault::NotSent => (Err(ConnectionFailure::NotConnected), 0),
            Fault::RequestLost => (Err(ConnectionFailure::TimedOut), timeout),
            Fault::Belated(after) => {
                let at = now + timeout + after;
                self.monitor.record_belated_call(&self.fakes, &call, now, at);
                self.schedule_at(at, Event::ExecuteBelated(Box::new(call.clone())));
                (Err(ConnectionFailure::TimedOut), timeout)
            }
            Fault::Rejected(ref reply) => (Ok(reply.clone()), 0),
            Fault::Stale if self.index_replies.contains_key(&index_key(&call)) => {
                let earlier = self.index_replies[&index_key(&call)].clone();
                (Ok(Reply::new(200, earlier)), 0)
            }
            _ => {
                let mut request = WriteRequest::parse(&call);
                let violations = self.monitor.check_call(&self.fakes, &call, &request, now, &self.clock);
                let mutant = self.plan.mutant;
                let function = self.running.get(&invocation).map_or("", |running| running.function);
                let response_lost = matches!(fault, Fault::ResponseLost | Fault::ResponseTimesOut | Fault::Garbled(_));
                let replacement =
                    mutant.and_then(|mutant| mutant.alter(&self.fakes, function, response_lost, &mut call));
                for violation in violations {
                    self.violate(violation);
                }
                if mutant.is_some() {
                    request = WriteRequest::parse(&call);
                }
                let shown = match (replacement, outage) {
                    (Some(reply), _) => {
                        self.apply_effects(&call, &request, &reply);
                        reply
                    }
                    (None, Some(outage)) => {
                        let now = self.clock.now();
                        outage.reply(&mut self.rng, |seconds| {
                            http_date(now + std::time::Duration::from_secs(seconds))
                        })
                    }
                    (None, None) => {
                        let (raw, shown) = self.perform_at_peer(&call);
                        if raw.status == 200 {
                            let caller = self.requests_handled.get(&invocation);
                            let caller = caller.map(|n| &self.plan.requests[*n].0);
                            let violations = self.monitor.record_write(invocation, function, caller, &request, now);
                            for violation in violations {
                                self.violate(violation);
                            }
                        }
                        self.apply_effects(&call, &request, &raw);
                        shown
                    }
                };
                match fault {
                    Fault::ResponseLost => (Err(ConnectionFailure::Reset), 0),
                    Fault::ResponseTimesOut => (Err(ConnectionFailure::TimedOut), timeout),
                    Fault::Garbled(ref garbled) => (Ok(garbled.clone()), 0),
                    _ => (Ok(shown), 0),
                }
            }
        };
        if !is_executed || delay > 0 {
            latency = 0;
        }
        // A caller gives up a slow response without reading it.
        let is_read = is_executed && latency < 5_000 && !matches!(fault, Fault::Garbled(_));
        let wait = match outage {
            Some(Outage::Throttled(seconds)) if is_read => Some(now + seconds * 1_000),
            _ => None,
        };
        if let Ok(reply) = &result {
            // Nobody receives the response to a call of an invocation that was killed.
            let is_received = call.method == "GET" && self.running.contains_key(&invocation);
            let state = order_state_shown(reply).filter(|_| is_received);
            self.monitor
                .record_reply(&self.fakes, invocation, &call, reply, state, wait);
        }
        let reply = result.map(|reply| {
            let mutant = self.plan.mutant;
            let altered = mutant.and_then(|mutant| mutant.alter_reply(&self.fakes, &call, &reply));
            let quirks = &self.plan.faults.quirks;
            let spelled = quirks.spell_reply(&mut self.rng, &call, altered.unwrap_or(reply));
            let is_unreadable = mutant.is_some_and(|mutant| mutant.cannot_read(&spelled));
            if is_unreadable {
                Reply::new(200, "<html>it works</html>")
            } else {
                spelled
            }
        });
        self.trace(|| {
            let status = reply.as_ref().map_or("-".to_owned(), |reply| reply.status.to_string());
            let body = reply.as_ref().map_or(String::new(), |reply| shorten(&reply.body));
            let fault = match fault {
                Fault::None => String::new(),
                fault => format!(" [{}]", shorten(format!("{fault:?}").as_bytes())),
            };
            format!("#{invocation} {description} -> {status}{fault} {body}")
        });
        let mut delay_back = self.rng.u64(1..=15) + delay + latency;
        if let Some((at, interruption)) = self.plan.interruption.clone()
            && at == number
        {
            match interruption {
                Interruption::KillAfter => {
                    self.trace(|| format!("#{invocation} is killed after exchange {at}"));
                    self.kill(invocation);
                }
                Interruption::RivalAfter(rival) => {
                    delay_back = 2_000;
                    self.start_rival(rival);
                }
                Interruption::KillBefore | Interruption::RivalBefore(_) => {}
            }
        }
        self.schedule_in(delay_back, Event::ReplyArrives(reply_to, reply));
    }

    /// Lets a peer execute a call. Returns the reply that its database gives, and the reply that it shows.
    pub(super) fn perform_at_peer(&mut self, call: &Call) -> (Reply, Reply) {
        let quirks = self.plan.faults.quirks.clone();
        let rejection = match call.peer {
            Peer::Smdp if call.path.ends_with("cancelOrder") => quirks
                .rejects_cancel
                .or(self.rejects_repeated_cancel(call).then_some(("8.2.1", "3.3")))
                .map(|(subject, reason)| es2plus_failure(subject, reason)),
            Peer::Network if call.method == "PATCH" && quirks.rejects_starts => {
                Some(Reply::new(409, r#"{"code":"409","reason":"no"}"#))
            }
            _ => None,
        };
        if let Some(rejection) = rejection {
            return (rejection.clone(), rejection);
        }
        if call.peer != Peer::Network {
            let reply = self.fakes.perform(call);
            return (reply.clone(), reply);
        }
        if call.path.ends_with("/cancelServiceOrder") && quirks.cancel != CancelSettlement::AtOnce {
            let request: Value = serde_json::from_slice(&call.body).unwrap_or_default();
            let id = request["serviceOrder"]["id"].as_str().unwrap_or_default();
            if self.fakes.order(id)["state"] == "held" {
                if self.network_view.record_cancel(id)
                    && let CancelSettlement::After(millis, _) = quirks.cancel
                {
                    self.schedule_in(millis, Event::SettleCancel(Box::new(call.clone()), id.to_owned()));
                }
                let task = json!({"id": "1", "state": "accepted", "serviceOrder": {"id": id}});
                let reply = Reply::new(201, task.to_string());
                return (reply.clone(), reply);
            }
        }
        let mut raw = self.fakes.perform(call);
        let places_order = call.method == "POST" && call.path.ends_with("/serviceOrder");
        if places_order && raw.status == 201 {
            let order: Value = serde_json::from_slice(&raw.body).unwrap_or_default();
            let external_id = order["externalId"].as_str().unwrap_or_default();
            if let Search::Lags(most) = quirks.search {
                // An order from a call that the caller gave up becomes visible within the time in which such a call may
                // still be executed.
                let ordered = self.monitor.order_requested_at(external_id);
                let at_most = (ordered + CALL_TIMEOUT + BELATED_AT_MOST).max(self.now());
                let from = self.now() + self.rng.u64(1..most);
                self.network_view.record_order(external_id, from.min(at_most));
            }
            if quirks.early_start == EarlyStart::Started && order["state"] == "held" {
                let id = order["id"].as_str().unwrap_or_default();
                let start = Call {
                    method: "PATCH".to_owned(),
                    path: format!("{}/serviceOrder/{id}", peers::tmf641::PATH),
                    body: br#"{"state":"inProgress"}"#.to_vec(),
                    ..call.clone()
                };
                if self.rng.bool() {
                    let started = self.fakes.perform(&start);
                    raw = Reply { status: 201, ..started };
                } else {
                    let after = self.rng.u64(1..3_600_000);
                    self.schedule_in(after, Event::StartOrder(Box::new(start)));
                }
            }
        }
        let shown = self.network_view.render_reply(&quirks, call, &raw, self.now());
        (raw, shown)
    }

    /// Whether the SM-DP+ rejects the cancellation of an order that is cancelled already, as if its profile were in use.
    fn rejects_repeated_cancel(&self, call: &Call) -> bool {
        let body: Value = serde_json::from_slice(&call.body).unwrap_or_default();
        let iccid = body["iccid"].as_str().unwrap_or_default().trim_end_matches('F');
        let iccid = Iccid::parse(iccid).expect("an ICCID");
        let state = self.fakes.smdp.profile_state(&iccid).expect("the database");
        let ordered = self.fakes.smdp.orders_of(&iccid).expect("the database") > 0;
        self.plan.faults.quirks.rejects_repeated_cancel && ordered && state == ProfileState::Available
    }

    /// Schedules what follows from an executed call, and checks its writes.
    pub(super) fn apply_effects(&mut self, call: &Call, request: &WriteRequest, reply: &Reply) {
        match call.peer {
            Peer::DynamoDb if reply.status == 200 => {
                if call.is_index_query() {
                    self.index_replies.insert(index_key(call), reply.body.clone());
                }
                let now = self.now();
                let (rows, violations) = self.monitor.check_write(&self.fakes, request, now);
                for violation in violations {
                    self.violate(violation);
                }
                for row in rows {
                    self.publish_change(row);
                }
            }
            Peer::DynamoDb | Peer::Kms => {}
            Peer::Lambda => {
                let consumer = if call.path.contains("/fulfil-swap/") {
                    Consumer::Fulfil
                } else {
                    Consumer::Deliver
                };
                let event: Value = serde_json::from_slice(&call.body).unwrap_or_default();
                let soon = self.rng.u64(1..200);
                self.schedule_in(soon, Event::Wake(consumer, event, 0));
            }
            Peer::Ses => {
                let mail = self.fakes.mails().last().cloned();
                let Some(mail) = mail.filter(|_| reply.status == 200) else {
                    return;
                };
                let now = self.now();
                self.monitor.record_mail(&mail, now);
                if let Some(mailed) = MailedCode::of(&mail) {
                    let violation = self.monitor.check_mailed_code(&self.fakes, &mail, mailed.matching_id());
                    if let Some(violation) = violation {
                        self.violate(violation);
                    }
                    let planned = self.plan.phone_acts.clone();
                    for (after, act) in planned.unwrap_or_else(|| phone_acts(&mut self.rng)) {
                        self.schedule_in(after, Event::UsePhone(mailed.clone(), act));
                    }
                }
                if self.ses_reports && !self.plan.faults.quirks.ses_silent {
                    self.send_ses_events(&mail);
                }
            }
            Peer::Smdp => {
                self.monitor.record_matching_id(call);
                if call.path.ends_with("confirmOrder") && self.chance(self.plan.faults.corruption) {
                    let order: Value = serde_json::from_slice(&call.body).unwrap_or_default();
                    let body = json!({
                        "header": {"functionRequesterIdentifier": "x", "functionCallIdentifier": "x"},
                        "iccid": order["iccid"], "profileType": "x", "timestamp": EARLIER_LIFE,
                        "notificationPointId": 4,
                        "notificationPointStatus": {"status": "Executed-Success"}
                    });
                    // From an earlier life of this ICCID.
                    self.send_forged_callback("/gsma/rsp2/es2plus/handleDownloadProgressInfo", &body);
                }
                self.send_callbacks();
            }
            Peer::Network => {
                if call.method == "POST" && call.path.ends_with("/serviceOrder") && reply.status == 201 {
                    let order: Value = serde_json::from_slice(&call.body).unwrap_or_default();
                    let id = order["externalId"].as_str().unwrap_or_default().to_owned();
                    if self.chance(self.plan.faults.corruption) {
                        let order = json!({"id": "9999", "externalId": id, "state": "completed"});
                        let body = json!({"eventId": "x", "event": {"serviceOrder": order}});
                        // About an order that does not belong to this swap.
                        let listener = peers::tmf641::LISTENER;
                        self.send_forged_callback(&format!("{}{listener}", peers::tmf641::PATH), &body);
                    }
                    if self.plan.faults.quirks.early_start == EarlyStart::Shown {
                        self.announce_early_start(reply);
                    }
                    if self.chance(self.plan.faults.abandonment) {
                        let states = [OrderState::Failed, OrderState::Rejected, OrderState::Cancelled];
                        let state = states[self.rng.usize(..3)];
                        let after = self.rng.u64(1..3_600_000);
                        self.schedule_in(after, Event::AbandonOrder(id, state));
                    }
                }
                let soon = self.rng.u64(1..2_000);
                self.schedule_in(soon, Event::AdvanceNetwork);
            }
        }
    }
}

/// A key that two index queries share if a stale reply to one may be a reply to the other.
fn index_key(call: &Call) -> String {
    let request: Value = serde_json::from_slice(&call.body).unwrap_or_default();
    let values = &request["ExpressionAttributeValues"];
    let value = [":shelf", ":shard", ":hash"]
        .iter()
        .find_map(|name| values[*name]["S"].as_str());
    format!("{} {}", request["IndexName"], value.unwrap_or_default())
}

/// A call in one line, for the trace.
pub(super) fn describe(call: &Call) -> String {
    if call.peer == Peer::Ses {
        return "SendRawEmail".to_owned();
    }
    let operation = match call.operation.as_str() {
        "" => format!("{} {}", call.method, call.path),
        operation => operation.to_owned(),
    };
    format!("{:?} {operation} {}", call.peer, shorten(&call.body))
}
