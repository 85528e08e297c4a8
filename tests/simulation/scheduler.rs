//! The scheduler of one run: the virtual clock, the queue of events, and the decisions drawn from the seed. Its parts
//! decide what happens to calls (`calls`), run the functions (`invocations`), and act for everybody outside the service
//! (`actors`). The invariants are in `invariants`.

mod actors;
mod calls;
mod invocations;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::Iccid;
use edge::ClockAndRng;
use fastrand::Rng;
use jiff::{SignedDuration, Timestamp};
use local::functions::Handler;
use peers::OrderState;
use serde_json::{Value, json};
use store::Store;
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use self::actors::{MailedCode, SentCallback};
use self::calls::describe;
use self::invocations::{Cause, Consumer, Record, Running};
use crate::fakes::Fakes;
use crate::faults::{Fault, FaultPlan};
use crate::invariants::{Fate, Monitor, WriteRequest};
use crate::logs;
use crate::mutants::Mutant;
use crate::quirks::{NetworkView, Quirks, WorkTime};
use crate::sandbox::{self, Policy, Sandbox};
use crate::stock;
use crate::transport::{Call, CallResult, Exchange, PendingCalls, Transport};
use crate::workload::{PhoneAct, Request};

pub(crate) use self::actors::Meaning;

/// Everything that determines a run.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) faults: FaultPlan,
    pub(crate) policy: Policy,
    /// Each request, and the times in milliseconds at which it is sent.
    pub(crate) requests: Vec<(Request, Vec<u64>)>,
    /// What each customer's phone does, in milliseconds after the mail arrives. `None`: drawn at random.
    pub(crate) phone_acts: Option<Vec<(u64, PhoneAct)>>,
    /// The planted bug.
    pub(crate) mutant: Option<Mutant>,
    /// Interrupts the exchange with this number, counted from 0.
    pub(crate) interruption: Option<(u64, Interruption)>,
    /// Whether to record a trace.
    pub(crate) traced: bool,
}

/// What happens at one exchange, which is a call and its reply.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Interruption {
    /// The process dies before the call is sent.
    KillBefore,
    /// The process dies after the peer has executed the call.
    KillAfter,
    /// The rival runs to completion before the peer executes the call.
    RivalBefore(Rival),
    /// The rival runs to completion after the peer has executed the call and before the reply arrives.
    RivalAfter(Rival),
}

/// Something else that works on the same swap.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Rival {
    /// Further invocations of `fulfil-swap` and `deliver-esim`, woken for every row.
    Wake,
    /// Every callback sent so far, again.
    Callbacks,
    /// Every event that SES has published so far, again.
    SesEvents,
    /// The sweeper.
    Sweep,
    /// A caller with this request.
    Caller(Box<Request>),
}

/// The result of a run.
pub(crate) struct Run {
    pub(crate) violations: Vec<String>,
    pub(crate) trace: Vec<String>,
    /// How many calls the functions made.
    pub(crate) exchanges: u64,
    /// How many swaps were accepted, by kind and end.
    pub(crate) swaps: BTreeMap<String, usize>,
    /// The fate of each mail, and how often SES accepted it.
    pub(crate) mails: Vec<(Fate, usize)>,
    /// The function whose call was interrupted.
    pub(crate) interrupted: Option<&'static str>,
    /// The functions that were invoked while that function waited.
    pub(crate) concurrent: BTreeSet<&'static str>,
}

/// Something that happens at a scheduled time.
enum Event {
    SendRequest(usize),
    /// A call reaches its peer: the call, its fault, and its number.
    CallArrives(Box<Exchange>, Fault, u64),
    ReplyArrives(oneshot::Sender<CallResult>, CallResult),
    Kill(u64),
    AppendRecord(Consumer, Record),
    PollStream(Consumer),
    SendCallback(SentCallback, u32),
    UsePhone(MailedCode, PhoneAct),
    /// The SM-DP+ reports one of its own steps of a profile.
    ReportPoint(Iccid, u32),
    AdvanceNetwork,
    AbandonOrder(String, OrderState),
    /// The network starts a held order without our request.
    StartOrder(Box<Call>),
    /// A peer executes a call after its caller gave up.
    ExecuteBelated(Box<Call>),
    /// The network settles a cancel: the call, and the order's id.
    SettleCancel(Box<Call>, String),
    PublishMailReport(Value, u32),
    /// The sweeper's schedule fires in this minute.
    Sweep(u64),
    Wake(Consumer, Value, u32),
}

/// When every run begins.
pub(crate) const START_TIME: &str = "2026-11-22T12:00:00Z";
/// A date in the earlier life of a SIM: further back than the peers' clocks are wrong.
pub(crate) const EARLIER_LIFE: &str = "2026-11-21T10:00:00Z";
const MAX_EVENTS: u64 = 60_000;

pub(crate) struct Scheduler {
    plan: Plan,
    rng: Rng,
    start: Instant,
    pub(crate) fakes: Arc<Fakes>,
    /// Reads the table directly, without the scheduler.
    pub(crate) observer: Store,
    transport: Transport,
    clock: ClockAndRng,
    sandboxes: Vec<Sandbox>,
    /// By time in milliseconds, then in random order.
    queue: BTreeMap<(u64, u32, u64), Event>,
    last_number: u64,
    running: BTreeMap<u64, Running>,
    /// The requests by the invocations that handle them. A call of a killed invocation may still be executed.
    requests_handled: BTreeMap<u64, usize>,
    finished: mpsc::UnboundedReceiver<(u64, Result<String, String>)>,
    finish: mpsc::UnboundedSender<(u64, Result<String, String>)>,
    /// Change records that their consumer has not read.
    unread_records: BTreeMap<Consumer, Vec<Record>>,
    /// The consumers for which a poll of the stream is scheduled.
    scheduled_polls: BTreeSet<Consumer>,
    /// The last reply to each index query, by index and key.
    index_replies: BTreeMap<String, Vec<u8>>,
    /// The minutes for which a sweep is scheduled.
    scheduled_sweeps: BTreeSet<u64>,
    /// Whether SES is configured to publish events about mails.
    pub(crate) ses_reports: bool,
    /// How the orders that the network shows differ from those in its database.
    network_view: NetworkView,
    /// All callbacks that the peers have sent.
    sent_callbacks: Vec<SentCallback>,
    /// All events that SES has published.
    ses_events: Vec<Value>,
    exchanges: u64,
    /// The invocation that the plan interrupts, and its function.
    interrupted: Option<(u64, &'static str)>,
    concurrent: BTreeSet<&'static str>,
    pub(crate) monitor: Monitor,
    trace: Vec<String>,
}

/// Executes a plan until nothing is left to do, and checks the invariants.
pub(crate) fn run(plan: Plan) -> Run {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    fastrand::seed(plan.seed);
    logs::take();
    runtime.expect("a runtime").block_on(async {
        let mut scheduler = Scheduler::new(plan).await;
        scheduler.run_until_idle().await;
        let logs = logs::take();
        scheduler.check_final_state(&logs).await
    })
}

impl Scheduler {
    async fn new(plan: Plan) -> Self {
        let mut rng = Rng::with_seed(plan.seed);
        let start = Instant::now();
        let begin: Timestamp = START_TIME.parse().expect("a valid time");
        let bits = Mutex::new(rng.fork());
        let clock = ClockAndRng::new(
            move || begin + start.elapsed(),
            move || bits.lock().unwrap_or_else(PoisonError::into_inner).u128(..),
        );
        let minutes = if rng.bool() { 200 } else { rng.u64(..1_200_000) };
        let delay = Duration::from_millis(match plan.faults.quirks.work_time {
            WorkTime::Minutes => minutes,
            WorkTime::For(millis) => millis,
            WorkTime::Endless => 10 * 365 * 86_400_000,
        });
        let [smdp_ahead, _] = plan.faults.quirks.clock_skews;
        let fakes = Arc::new(Fakes::new(&clock, delay, SignedDuration::from_secs(smdp_ahead)));
        stock::load(&fakes);
        let observer = stock::observer(&fakes);
        let direct = fakes.clone();
        let transport = Transport {
            pending: Arc::new(PendingCalls::default()),
            direct: Arc::new(move |call| direct.perform(call)),
        };
        let ses_reports = rng.bool() || plan.faults.quirks.ses_silent;
        let overridden = plan.mutant.and_then(Mutant::setting);
        let sandboxes = (0..2)
            .map(|_| sandbox::start(&transport, &clock, ses_reports, plan.policy, overridden))
            .collect();
        let (finish, finished) = mpsc::unbounded_channel();
        let mut scheduler = Self {
            rng,
            start,
            fakes,
            observer,
            transport,
            clock,
            sandboxes,
            queue: BTreeMap::new(),
            last_number: 0,
            running: BTreeMap::new(),
            requests_handled: BTreeMap::new(),
            finished,
            finish,
            unread_records: BTreeMap::new(),
            scheduled_polls: BTreeSet::new(),
            index_replies: BTreeMap::new(),
            scheduled_sweeps: BTreeSet::new(),
            ses_reports,
            network_view: NetworkView::default(),
            sent_callbacks: Vec::new(),
            ses_events: Vec::new(),
            exchanges: 0,
            interrupted: None,
            concurrent: BTreeSet::new(),
            monitor: Monitor::new(&plan),
            trace: Vec::new(),
            plan,
        };
        for (n, (_, times)) in scheduler.plan.requests.clone().iter().enumerate() {
            for at in times {
                scheduler.schedule_at(*at, Event::SendRequest(n));
            }
        }
        scheduler
    }

    /// Milliseconds since the run began.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// When the run began, in milliseconds since 1970.
    fn start_unix_millis(&self) -> u64 {
        let begin: Timestamp = START_TIME.parse().expect("a valid time");
        begin.as_millisecond().unsigned_abs()
    }

    fn unix_millis(&self) -> u64 {
        self.start_unix_millis() + self.now()
    }

    fn faults_are_over(&self) -> bool {
        self.now() >= self.plan.faults.until
    }

    /// Draws whether something with this probability, in thousandths, happens. Nothing does after the faults have
    /// ended.
    fn chance(&mut self, chance: u32) -> bool {
        chance > 0 && !self.faults_are_over() && self.rng.u32(..1000) < chance
    }

    fn schedule_at(&mut self, at: u64, event: Event) {
        self.last_number += 1;
        let key = (at, self.rng.u32(..), self.last_number);
        self.queue.insert(key, event);
    }

    fn schedule_in(&mut self, millis: u64, event: Event) {
        self.schedule_at(self.now() + millis.max(1), event);
    }

    fn trace(&mut self, message: impl FnOnce() -> String) {
        if self.plan.traced {
            let (seconds, millis) = (self.now() / 1000, self.now() % 1000);
            self.trace.push(format!("{seconds:>6}.{millis:03} {}", message()));
        }
    }

    pub(crate) fn violate(&mut self, violation: String) {
        self.trace(|| format!("VIOLATED: {violation}"));
        self.monitor.violations.push(violation);
    }

    /// Handles events until the queue is empty and no function runs.
    async fn run_until_idle(&mut self) {
        let pending = self.transport.pending.clone();
        let mut events = 0;
        loop {
            self.collect_work();
            let Some((&(at, ..), _)) = self.queue.first_key_value() else {
                if self.running.is_empty() {
                    break;
                }
                // A handler sleeps, or is about to respond.
                let notified = tokio::time::timeout(Duration::from_secs(3600), pending.notify.notified());
                if notified.await.is_err() {
                    self.violate("a handler waits although no call is pending".to_owned());
                    break;
                }
                continue;
            };
            tokio::select! {
                biased;
                () = pending.notify.notified() => continue,
                () = sleep_until(self.start + Duration::from_millis(at)) => {}
            }
            // Another event may have been scheduled earlier meanwhile.
            let Some((_, event)) = self.queue.pop_first() else {
                continue;
            };
            self.handle(event);
            events += 1;
            if events > MAX_EVENTS || !self.monitor.violations.is_empty() {
                if self.monitor.violations.is_empty() {
                    self.violate("the run does not end".to_owned());
                }
                break;
            }
        }
    }

    /// Collects the calls that the functions made and the invocations that ended.
    fn collect_work(&mut self) {
        for exchange in self.transport.pending.take() {
            self.decide_fault(exchange);
        }
        while let Ok((number, response)) = self.finished.try_recv() {
            if let Some(running) = self.running.remove(&number) {
                self.trace(|| format!("#{number} ends"));
                // The function may have failed to write SES's response.
                if running.called_ses && !response.as_ref().is_ok_and(|text| text.contains("[]")) {
                    for swap in running.cause.swaps_with_mails() {
                        self.monitor.mark_swap_outcome_unknown(&swap);
                    }
                }
                self.finish_invocation(running.cause, response);
            }
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::SendRequest(n) => {
                let mut request = self.plan.requests[n].0.clone();
                if let Some(line) = request.target_line {
                    let newest = self.monitor.newest_swap(line);
                    request = request.for_swap(&newest.unwrap_or_else(|| "NONE".to_owned()));
                }
                if let Some(swap) = request.cancelled_swap() {
                    self.monitor.record_cancel_request(swap);
                }
                let (function, event) = (request.function, request.event());
                let description = request.describe();
                let now = self.now();
                self.monitor.record_request(n, &request, now);
                self.invoke(function, event, Cause::Request(n), &description);
            }
            Event::CallArrives(exchange, fault, number) => self.perform_call(*exchange, fault, number),
            Event::ReplyArrives(to, response) => {
                // The invocation may have been killed.
                let _ = to.send(response);
            }
            Event::Kill(invocation) => {
                if self.running.contains_key(&invocation) {
                    self.trace(|| format!("#{invocation} is killed"));
                    self.kill(invocation);
                }
            }
            Event::AppendRecord(consumer, record) => {
                self.unread_records.entry(consumer).or_default().push(record);
                self.schedule_poll(consumer);
            }
            Event::PollStream(consumer) => self.poll_stream(consumer),
            Event::SendCallback(callback, attempts) => self.deliver_callback(callback, attempts),
            Event::UsePhone(mail, act) => self.use_phone(&mail, act),
            Event::ReportPoint(iccid, point) => self.report_point(&iccid, point),
            Event::AdvanceNetwork => self.advance_network(),
            Event::StartOrder(call) => {
                let reply = self.fakes.perform(&call);
                self.trace(|| format!("the network starts {}: {}", call.path, reply.status));
                self.schedule_in(1, Event::AdvanceNetwork);
                self.send_callbacks();
            }
            Event::ExecuteBelated(call) => {
                let now = self.now();
                self.monitor.belated_calls.retain(|pending| pending.at > now);
                let reply = match self.plan.faults.outage_at(call.peer, self.now()) {
                    Some(_) => None,
                    None => Some(self.perform_at_peer(&call).0),
                };
                self.trace(|| {
                    let status = reply.as_ref().map(|reply| reply.status);
                    format!("executed belatedly: {} -> {status:?}", describe(&call))
                });
                if let Some(reply) = reply {
                    self.apply_effects(&call, &WriteRequest::parse(&call), &reply);
                }
            }
            Event::SettleCancel(call, id) => {
                self.network_view.record_settlement(&id);
                let reply = self.fakes.perform(&call);
                self.trace(|| format!("the network cancels {id}: {}", reply.status));
                self.schedule_in(1, Event::AdvanceNetwork);
                self.send_callbacks();
            }
            Event::AbandonOrder(id, state) => {
                let ended = self.fakes.network.give_up(&id, state).expect("the database");
                if ended {
                    self.monitor.record_abandoned_order(&id, state);
                }
                self.trace(|| format!("the network gives up {id}: {state:?}, {ended}"));
                self.send_callbacks();
            }
            Event::PublishMailReport(mut event, attempts) => {
                if let Some(mutant) = self.plan.mutant {
                    mutant.alter_ses_event(&mut event);
                }
                let description = shorten(event.to_string().as_bytes());
                self.invoke(
                    "mail-events",
                    event.clone(),
                    Cause::SesEvent(event, attempts),
                    &description,
                );
            }
            Event::Sweep(minute) => {
                self.scheduled_sweeps.remove(&minute);
                // A sweep that finds nothing changes nothing, so skip it.
                if self.monitor.is_anything_due(self.unix_millis()) {
                    self.invoke("sweep-swaps", json!({}), Cause::Sweep, "");
                }
            }
            Event::Wake(consumer, event, attempts) => {
                let description = shorten(event.to_string().as_bytes());
                let cause = Cause::Wake(consumer, event.clone(), attempts);
                self.invoke(consumer.function(), event, cause, &description);
            }
        }
    }

    /// A random delay of a message: mostly short.
    fn random_delay(&mut self) -> u64 {
        if self.chance(self.plan.faults.late) {
            self.rng.u64(1_000..3_600_000)
        } else {
            self.rng.u64(1..200)
        }
    }

    fn random_callback_delay(&mut self) -> u64 {
        if self.chance(self.plan.faults.overdue) {
            self.rng.u64(3_600_000..86_400_000)
        } else {
            self.random_delay()
        }
    }

    pub(crate) fn quirks(&self) -> &Quirks {
        &self.plan.faults.quirks
    }

    pub(crate) fn policy(&self) -> Policy {
        self.plan.policy
    }

    pub(crate) fn faults(&self) -> &FaultPlan {
        &self.plan.faults
    }

    pub(crate) fn lets_everything_settle(&self) -> bool {
        self.plan.faults.lets_everything_settle()
    }

    /// The function `query-activation` of a new process, whose calls get their replies at once. `None` if this run does not
    /// check listings: every sixteenth does, because that takes as long as the rest of a run.
    pub(crate) fn unscheduled_query(&self) -> Option<Handler> {
        let mutant = self.plan.mutant;
        let checks_listings = match mutant {
            Some(mutant) => mutant == Mutant::CursorSkips,
            None => self.plan.seed.is_multiple_of(16),
        };
        if !checks_listings {
            return None;
        }
        let fakes = self.fakes.clone();
        let transport = stock::direct_transport(move |call| {
            let mut call = call.clone();
            let reply = mutant.and_then(|mutant| mutant.alter(&fakes, "query-activation", false, &mut call));
            reply.unwrap_or_else(|| fakes.perform(&call))
        });
        let sandbox = sandbox::start(&transport, &self.clock, self.ses_reports, self.plan.policy, None);
        Some(sandbox["query-activation"].clone())
    }

    pub(crate) fn is_prompt(&self) -> bool {
        self.plan.faults.is_prompt() && self.plan.interruption.is_none()
    }

    pub(crate) fn ses_accepts_from(&self) -> Option<u64> {
        self.plan.faults.ses_accepts_from()
    }

    async fn check_final_state(mut self, logs: &str) -> Run {
        let rows = stock::scan(&self.fakes);
        if self.monitor.violations.is_empty() {
            let violations = crate::invariants::check_final_state(&self, &rows, logs).await;
            for violation in violations {
                self.violate(violation);
            }
        }
        let (swaps, mails) = self.monitor.summarize(&self.fakes, &rows);
        Run {
            violations: self.monitor.violations,
            trace: self.trace,
            exchanges: self.exchanges,
            swaps,
            mails,
            interrupted: self.interrupted.map(|(_, function)| function),
            concurrent: self.concurrent,
        }
    }
}

fn shorten(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let text: String = text.chars().take(700).collect();
    text.replace('\n', " ")
}
