//! Invocations of the functions: why each function runs, what follows when it ends or is killed, and the stream and the
//! sweeper that wake it. What its calls do is in `calls`.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tokio::task::AbortHandle;

use super::actors::SentCallback;
use super::{Event, Scheduler, shorten};
use crate::mutants::Mutant;
use crate::sandbox;
use crate::transport::INVOCATION;

/// A record that has failed this often leaves the stream.
const MAX_ATTEMPTS: u32 = 5;

/// A function that consumes the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Consumer {
    Fulfil,
    Deliver,
}

impl Consumer {
    pub(super) fn function(self) -> &'static str {
        match self {
            Self::Fulfil => "fulfil-swap",
            Self::Deliver => "deliver-esim",
        }
    }

    /// The consumer of this row's change records, as the filters of the event source mappings say. Of a mail it gets
    /// the first record only.
    pub(super) fn for_row(sk: &str) -> Option<Self> {
        match sk {
            "activation" => Some(Self::Fulfil),
            _ => sk.starts_with("delivery#").then_some(Self::Deliver),
        }
    }
}

/// A change record of the stream.
#[derive(Debug, Clone)]
pub(super) struct Record {
    number: u64,
    row: (String, String),
    attempts: u32,
}

/// Why a function was invoked.
pub(super) enum Cause {
    Request(usize),
    Records(Consumer, Vec<Record>),
    Callback(SentCallback, u32),
    /// SES published an event about a mail.
    SesEvent(Value, u32),
    Sweep,
    /// The sweeper woke the function with this event.
    Wake(Consumer, Value, u32),
}

impl Cause {
    /// The swaps whose mails the invocation may send, as partition keys.
    pub(super) fn swaps_with_mails(&self) -> Vec<String> {
        match self {
            Self::Records(Consumer::Deliver, records) => records.iter().map(|record| record.row.0.clone()).collect(),
            Self::Wake(Consumer::Deliver, event, _) => {
                let records = event["Records"].as_array().into_iter().flatten();
                let pk = |record: &Value| record["dynamodb"]["Keys"]["pk"]["S"].as_str().map(str::to_owned);
                records.filter_map(pk).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// A running invocation.
pub(super) struct Running {
    pub(super) function: &'static str,
    pub(super) cause: Cause,
    /// Whether the invocation has called SES.
    pub(super) called_ses: bool,
    /// The index of its sandbox.
    pub(super) sandbox: usize,
    pub(super) task: AbortHandle,
}

impl Scheduler {
    /// Appends a change record to the stream, and schedules the sweep that finds the row if no consumer handles it.
    pub(super) fn publish_change(&mut self, row: (String, String)) {
        let Some(consumer) = Consumer::for_row(&row.1) else {
            return;
        };
        let is_published = consumer == Consumer::Fulfil || self.monitor.is_new(&row);
        if self.plan.faults.stream && is_published {
            let record = self.new_record(row.clone());
            let delay = self.random_delay();
            self.schedule_in(delay, Event::AppendRecord(consumer, record));
        }
        if let Some(due) = self.monitor.due_at(&row) {
            self.schedule_sweep(due);
        }
    }

    /// Schedules the sweep of the first minute in which something is due.
    pub(super) fn schedule_sweep(&mut self, due: u64) {
        let begin = self.start_unix_millis();
        let minute = due.saturating_sub(begin).max(self.now()) / 60_000 + 1;
        if self.scheduled_sweeps.insert(minute) {
            self.schedule_at(minute * 60_000, Event::Sweep(minute));
        }
    }

    pub(super) fn new_record(&mut self, row: (String, String)) -> Record {
        self.last_number += 1;
        Record {
            number: self.last_number,
            row,
            attempts: 0,
        }
    }

    /// Schedules the next poll of the stream for a consumer.
    pub(super) fn schedule_poll(&mut self, consumer: Consumer) {
        if self.scheduled_polls.insert(consumer) {
            let delay = self.rng.u64(1..=self.plan.faults.poll);
            self.schedule_in(delay, Event::PollStream(consumer));
        }
    }

    /// Invokes a consumer with a batch of random size in random order. As with Lambda, a batch contains no record of a
    /// row that an earlier batch of the same consumer still works on.
    pub(super) fn poll_stream(&mut self, consumer: Consumer) {
        self.scheduled_polls.remove(&consumer);
        let causes = self.running.values().map(|running| &running.cause);
        let in_progress = causes.flat_map(|cause| match cause {
            Cause::Records(of, records) if *of == consumer => records.as_slice(),
            _ => &[],
        });
        let busy: BTreeSet<_> = in_progress.map(|record| record.row.clone()).collect();
        let waiting = self.unread_records.remove(&consumer).unwrap_or_default();
        let (held, mut free): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|record| busy.contains(&record.row));
        self.rng.shuffle(&mut free);
        let batch_size = self.rng.usize(1..=10);
        let batch = free.split_off(free.len().saturating_sub(batch_size));
        if !free.is_empty() {
            self.schedule_poll(consumer);
        }
        free.extend(held);
        self.unread_records.insert(consumer, free);
        if batch.is_empty() {
            return;
        }
        let records: Vec<_> = batch
            .iter()
            .map(|record| {
                let number = record.number.to_string();
                json!({
                    "awsRegion": "eu-central-1", "eventID": number, "eventName": "MODIFY",
                    "eventSource": "aws:dynamodb", "eventVersion": "1.1",
                    "dynamodb": {
                        "Keys": {"pk": {"S": record.row.0}, "sk": {"S": record.row.1}},
                        "SequenceNumber": number, "ApproximateCreationDateTime": 1_700_000_000,
                        "SizeBytes": 1, "StreamViewType": "KEYS_ONLY"
                    }
                })
            })
            .collect();
        let description = format!("{:?}", batch.iter().map(|r| &r.row).collect::<Vec<_>>());
        let function = consumer.function();
        self.invoke(
            function,
            json!({"Records": records}),
            Cause::Records(consumer, batch),
            &description,
        );
    }

    /// Starts a function in a random sandbox.
    pub(super) fn invoke(&mut self, function: &'static str, event: Value, cause: Cause, description: &str) {
        self.last_number += 1;
        let number = self.last_number;
        self.trace(|| format!("#{number} {function}: {description}"));
        if let Some((waiting, _)) = self.interrupted
            && self.running.contains_key(&waiting)
        {
            self.concurrent.insert(function);
        }
        if let Cause::Request(n) = cause {
            self.requests_handled.insert(number, n);
        }
        let sandbox = self.rng.usize(..self.sandboxes.len());
        let handler = self.sandboxes[sandbox][function].clone();
        let (finish, pending) = (self.finish.clone(), self.transport.pending.clone());
        let task = tokio::spawn(INVOCATION.scope(number, async move {
            let response = handler(event.to_string()).await;
            // The run may have ended.
            let _ = finish.send((number, response));
            pending.notify.notify_one();
        }));
        let running = Running {
            function,
            cause,
            called_ses: false,
            sandbox,
            task: task.abort_handle(),
        };
        self.running.insert(number, running);
    }

    /// Kills a process: its invocation fails, and the next invocation starts in a new process.
    pub(super) fn kill(&mut self, invocation: u64) {
        let Some(running) = self.running.remove(&invocation) else {
            return;
        };
        running.task.abort();
        let overridden = self.plan.mutant.and_then(Mutant::setting);
        self.sandboxes[running.sandbox] = sandbox::start(
            &self.transport,
            &self.clock,
            self.ses_reports,
            self.plan.policy,
            overridden,
        );
        for swap in running.cause.swaps_with_mails() {
            self.monitor.mark_swap_outcome_unknown(&swap);
        }
        self.finish_invocation(running.cause, Err("killed".to_owned()));
    }

    /// Handles the end of an invocation: checks its response and schedules retries.
    pub(super) fn finish_invocation(&mut self, cause: Cause, response: Result<String, String>) {
        match cause {
            Cause::Request(n) => {
                let response: Value =
                    response.map_or(Value::Null, |text| serde_json::from_str(&text).unwrap_or_default());
                self.trace(|| format!("   response {}", shorten(response.to_string().as_bytes())));
                let request = self.plan.requests[n].0.clone();
                let now = self.now();
                let violations = self.monitor.check_response(n, &request, &response, now);
                for violation in violations {
                    self.violate(violation);
                }
                let faults = &self.plan.faults;
                let undisturbed =
                    faults.fault + faults.kill + faults.claim_expiry == 0 && self.plan.interruption.is_none();
                if undisturbed && response["statusCode"].as_u64().is_none_or(|status| status >= 500) {
                    let description = request.describe();
                    self.violate(format!("{description} got {response} although no fault was injected"));
                }
            }
            Cause::Records(consumer, records) => {
                self.redeliver(consumer, records, response);
                // Records of the same rows may have waited for this batch.
                self.schedule_poll(consumer);
            }
            Cause::SesEvent(event, attempts) => {
                if response.is_err() {
                    let wait = 1_000 << attempts.min(8);
                    self.schedule_in(wait, Event::PublishMailReport(event, attempts + 1));
                }
            }
            // Whatever the sweeper did not wake, or woke in vain, is still due.
            Cause::Sweep => self.schedule_sweep(self.unix_millis()),
            Cause::Wake(consumer, event, attempts) => {
                if response.is_err() && attempts < 2 {
                    self.schedule_in(60_000, Event::Wake(consumer, event, attempts + 1));
                }
                self.schedule_sweep(self.unix_millis());
            }
            Cause::Callback(sent, attempts) => {
                let status = response.ok().and_then(|text| {
                    let response: Value = serde_json::from_str(&text).ok()?;
                    response["statusCode"].as_u64()
                });
                let now = self.now();
                match status {
                    Some(200..300) => self
                        .monitor
                        .record_accepted_callback(&self.fakes, sent.meaning.as_ref(), now),
                    // The function rejects a corrupted callback, and the peer does not send it again.
                    Some(status @ ..500) if sent.meaning.is_some() => {
                        let body = &sent.callback.body;
                        self.violate(format!("a callback is rejected with {status}: {body}"));
                    }
                    Some(..500) => {}
                    _ => {
                        let wait = 250 << attempts.min(9);
                        self.schedule_in(wait, Event::SendCallback(sent, attempts + 1));
                    }
                }
            }
        }
    }

    /// Schedules failed records again, up to `MAX_ATTEMPTS`, and repeats some of the others.
    pub(super) fn redeliver(&mut self, consumer: Consumer, records: Vec<Record>, response: Result<String, String>) {
        let failed: Option<Vec<u64>> = response.ok().map(|text| {
            let response: Value = serde_json::from_str(&text).unwrap_or_default();
            let failures = response["batchItemFailures"].as_array().cloned();
            let numbers = failures.unwrap_or_default();
            let numbers = numbers
                .iter()
                .filter_map(|f| f["itemIdentifier"].as_str()?.parse().ok());
            numbers.collect()
        });
        for mut record in records {
            let must_retry = failed.as_ref().is_none_or(|failed| failed.contains(&record.number));
            if must_retry {
                record.attempts += 1;
                if record.attempts < MAX_ATTEMPTS {
                    let wait = 1_000 << (2 * record.attempts);
                    self.schedule_in(wait, Event::AppendRecord(consumer, record));
                }
            } else if self.chance(self.plan.faults.repeat) {
                let delay = self.random_delay();
                self.schedule_in(delay, Event::AppendRecord(consumer, record));
            }
        }
    }
}
