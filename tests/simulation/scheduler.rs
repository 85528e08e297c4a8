//! One world: its actors, its clock, and the scheduler that decides who is answered next. All that it decides comes from
//! its seed. What must hold is in `invariants`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use edge::ClockAndRng;
use fastrand::Rng;
use jiff::Timestamp;
use peers::OrderState;
use serde_json::{Value, json};
use simulators::Callback;
use store::Store;
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

use crate::fakes::{Fakes, Mail};
use crate::faults::{Answers, BELATED_AT_MOST, Fault, FaultPlan, refused};
use crate::invariants::{Fate, Watch, Written};
use crate::logs;
use crate::mutants::Mutant;
use crate::quirks::{Cancelling, Early, Quirks, Search, Shown, Work, shown_state, with_ids_of_book};
use crate::sandbox::{self, Sandbox};
use crate::stock;
use crate::transport::{Answer, Broken, Call, Desk, Exchange, INVOCATION, Peer, Reply, Transport};
use crate::workload::{Act, Request, acts, http_event};

/// What a world is made of, besides chance.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) weather: FaultPlan,
    /// Requests, and the milliseconds at which each is sent.
    pub(crate) requests: Vec<(Request, Vec<u64>)>,
    /// What each phone does, by the number of its mail; by chance if there is none.
    pub(crate) acts: Option<Vec<(u64, Act)>>,
    /// A known mistake that is put in.
    pub(crate) mistake: Option<Mutant>,
    /// What is done at one exchange, counted from 0.
    pub(crate) at: Option<(u64, Cut)>,
    /// Whether the trace is kept.
    pub(crate) told: bool,
}

/// What is done at one exchange.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cut {
    /// The process dies before the call leaves.
    KilledBefore,
    /// The process dies after the call was carried out.
    KilledAfter,
    /// Before it is carried out, another one runs to its end.
    OvertakenBefore(Rival),
    /// After it was carried out and before it is answered, another one runs to its end.
    OvertakenAfter(Rival),
}

/// Who else works on the same swap.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Rival {
    /// Another `fulfil-swap`, and another `deliver-esim`, woken for every row that there is.
    Woken,
    /// Every callback that there was, again.
    Callbacks,
    /// All that SES told of mails, again.
    Reports,
    /// A sweeper.
    Sweep,
    /// A caller with this request.
    Caller(Box<Request>),
}

/// What a world came to.
pub(crate) struct Run {
    pub(crate) violations: Vec<String>,
    pub(crate) trace: Vec<String>,
    /// Calls that the functions made.
    pub(crate) exchanges: u64,
    /// Swaps that were accepted, and how they ended.
    pub(crate) swaps: BTreeMap<String, usize>,
    /// What became of each mail that was to be sent, and how often SES took it.
    pub(crate) mails: Vec<(Fate, usize)>,
    /// The function that made the call at which the plan cuts.
    pub(crate) cut: Option<&'static str>,
    /// The functions that were invoked while that one waited.
    pub(crate) met: BTreeSet<&'static str>,
}

/// The two functions behind the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Consumer {
    Fulfil,
    Deliver,
}

impl Consumer {
    fn function(self) -> &'static str {
        match self {
            Self::Fulfil => "fulfil-swap",
            Self::Deliver => "deliver-esim",
        }
    }

    /// Who takes records of this row, as the filters of the mappings say; of a mail only the first.
    fn of(sk: &str) -> Option<Self> {
        match sk {
            "activation" => Some(Self::Fulfil),
            _ => sk.starts_with("delivery#").then_some(Self::Deliver),
        }
    }
}

/// A record of the stream.
#[derive(Debug, Clone)]
struct Record {
    number: u64,
    row: (String, String),
    tries: u32,
}

/// Why a function was invoked.
enum Cause {
    Asked(usize),
    Records(Consumer, Vec<Record>),
    Callback(Letter, u32),
    /// SES tells of a mail.
    Report(Value, u32),
    Sweep,
    /// The sweeper woke it: the event.
    Woken(Consumer, Value, u32),
}

impl Cause {
    /// The swaps whose mails an invocation may send.
    fn mailed(&self) -> Vec<String> {
        match self {
            Self::Records(Consumer::Deliver, records) => records.iter().map(|record| record.row.0.clone()).collect(),
            Self::Woken(Consumer::Deliver, event, _) => {
                let records = event["Records"].as_array().into_iter().flatten();
                let pk = |record: &Value| record["dynamodb"]["Keys"]["pk"]["S"].as_str().map(str::to_owned);
                records.filter_map(pk).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// A callback on its way.
#[derive(Debug, Clone)]
struct Letter {
    callback: Callback,
    /// `None` of one that no peer means.
    meant: Option<Meant>,
}

/// What a peer means by a callback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Meant {
    /// The profile with this ICCID is installed.
    Installed(String),
    /// The SM-DP+ gave the profile with this ICCID up.
    ProfileFailed(String),
    /// The order of this swap is completed.
    Completed(String),
    /// Anything else.
    Other,
}

impl Meant {
    fn by(callback: &Callback) -> Self {
        let body: Value = serde_json::from_str(&callback.body).unwrap_or_default();
        let order = &body["event"]["serviceOrder"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        if order["state"] == "completed" {
            return Self::Completed(text(&order["externalId"]));
        }
        let iccid = text(&body["iccid"]).trim_end_matches('F').to_owned();
        let status = &body["notificationPointStatus"];
        match (body["notificationPointId"].as_u64(), text(&status["status"])) {
            (Some(4), status) if status.starts_with("Executed") => Self::Installed(iccid),
            (Some(2), _) if status["statusCodeData"]["reasonCode"] == "6.4" => Self::ProfileFailed(iccid),
            _ => Self::Other,
        }
    }
}

/// An invocation that runs.
struct Running {
    function: &'static str,
    cause: Cause,
    /// Whether it has called SES.
    sent: bool,
    /// Index of its sandbox.
    sandbox: usize,
    task: AbortHandle,
}

/// What happens next, and when.
enum Event {
    Ask(usize),
    /// The call, what becomes of it, and its number.
    Arrive(Box<Exchange>, Fault, u64),
    Answer(oneshot::Sender<Answer>, Answer),
    Kill(u64),
    Put(Consumer, Record),
    Feed(Consumer),
    Call(Letter, u32),
    Phone(String, Act),
    NetworkWorks,
    NetworkGivesUp(String, OrderState),
    /// The network starts an order that it holds, by itself.
    NetworkStarts(Box<Call>),
    /// A call is carried out that its caller gave up.
    Belated(Box<Call>),
    /// The network settles a cancel: the call, and the order's id.
    Settles(Box<Call>, String),
    Report(Value, u32),
    /// The sweeper's minute has come.
    Sweep(u64),
    Woken(Consumer, Value, u32),
}

/// When worlds begin, and how long one may go on.
pub(crate) const BEGIN: &str = "2026-11-22T12:00:00Z";
/// When a SIM's earlier life was: longer ago than clocks differ.
pub(crate) const EARLIER: &str = "2026-11-21T10:00:00Z";
const EVENTS_AT_MOST: u64 = 60_000;
/// How long an answer of the SM-DP+ and the network is waited for, in milliseconds.
const PATIENCE: u64 = 30_000;
/// What the network does later than this is not waited for.
const DAYS_30: u64 = 30 * 86_400_000;

/// A record that fails so often is gone from the stream.
const TRIES: u32 = 5;

pub(crate) struct Scheduler {
    plan: Plan,
    rng: Rng,
    start: Instant,
    pub(crate) ground: Arc<Fakes>,
    /// Sees the table as it is.
    pub(crate) observer: Store,
    wire: Transport,
    ambient: ClockAndRng,
    sandboxes: Vec<Sandbox>,
    /// By time in milliseconds; those of one time in an order of chance.
    agenda: BTreeMap<(u64, u32, u64), Event>,
    numbers: u64,
    running: BTreeMap<u64, Running>,
    finished: mpsc::UnboundedReceiver<(u64, Result<String, String>)>,
    finish: mpsc::UnboundedSender<(u64, Result<String, String>)>,
    /// Records that wait for their consumer.
    waiting: BTreeMap<Consumer, Vec<Record>>,
    /// For whom the stream will be looked at.
    feeds: BTreeSet<Consumer>,
    /// Answers of index queries, by index and key.
    seen: BTreeMap<String, Vec<u8>>,
    /// Minutes at which the sweeper is due.
    sweeps: BTreeSet<u64>,
    /// Whether SES is configured to tell of mails.
    pub(crate) reports: bool,
    /// What the network shows, apart from its book.
    shown: Shown,
    /// All callbacks that the peers ever sent.
    callbacks: Vec<Letter>,
    /// All that SES ever told.
    told_of_mails: Vec<Value>,
    exchanges: u64,
    /// The invocation that the plan cuts, and its function.
    cut: Option<(u64, &'static str)>,
    met: BTreeSet<&'static str>,
    pub(crate) watch: Watch,
    trace: Vec<String>,
}

/// Lives a world from its beginning until nothing is left to happen, and judges it.
pub(crate) fn run(plan: Plan) -> Run {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    fastrand::seed(plan.seed);
    logs::take();
    runtime.expect("a runtime").block_on(async {
        let mut world = Scheduler::new(plan).await;
        world.live().await;
        let logs = logs::take();
        world.judge(&logs).await
    })
}

impl Scheduler {
    async fn new(plan: Plan) -> Self {
        let mut rng = Rng::with_seed(plan.seed);
        let start = Instant::now();
        let begin: Timestamp = BEGIN.parse().expect("it is a time");
        let bits = Mutex::new(rng.fork());
        let ambient = ClockAndRng::new(
            move || begin + start.elapsed(),
            move || bits.lock().unwrap_or_else(PoisonError::into_inner).u128(..),
        );
        let minutes = if rng.bool() { 200 } else { rng.u64(..1_200_000) };
        let delay = Duration::from_millis(match plan.weather.quirks.work {
            Work::Minutes => minutes,
            Work::For(millis) => millis,
            Work::Endless => 10 * 365 * 86_400_000,
        });
        let ground = Arc::new(Fakes::new(&ambient, delay));
        stock::lay(&ground);
        let observer = stock::observer(&ground);
        let direct = ground.clone();
        let wire = Transport {
            desk: Arc::new(Desk::default()),
            direct: Arc::new(move |call| direct.perform(call)),
        };
        let reports = rng.bool() || plan.weather.quirks.silent;
        let other = plan.mistake.and_then(Mutant::setting);
        let sandboxes = (0..2)
            .map(|_| sandbox::start(&wire, &ambient, reports, other))
            .collect();
        let (finish, finished) = mpsc::unbounded_channel();
        let mut world = Self {
            rng,
            start,
            ground,
            observer,
            wire,
            ambient,
            sandboxes,
            agenda: BTreeMap::new(),
            numbers: 0,
            running: BTreeMap::new(),
            finished,
            finish,
            waiting: BTreeMap::new(),
            feeds: BTreeSet::new(),
            seen: BTreeMap::new(),
            sweeps: BTreeSet::new(),
            reports,
            shown: Shown::default(),
            callbacks: Vec::new(),
            told_of_mails: Vec::new(),
            exchanges: 0,
            cut: None,
            met: BTreeSet::new(),
            watch: Watch::new(plan.weather.quirks.is_blind()),
            trace: Vec::new(),
            plan,
        };
        for (n, (_, times)) in world.plan.requests.clone().iter().enumerate() {
            for at in times {
                world.plan_at(*at, Event::Ask(n));
            }
        }
        world
    }

    /// Milliseconds since the beginning.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// When the world began, and now, in milliseconds since 1970.
    fn begin(&self) -> u64 {
        let begin: Timestamp = BEGIN.parse().expect("it is a time");
        begin.as_millisecond().unsigned_abs()
    }

    fn millis(&self) -> u64 {
        self.begin() + self.now()
    }

    fn calm(&self) -> bool {
        self.now() >= self.plan.weather.until
    }

    /// Whether something of this chance, in thousandths, happens; nothing does when it is calm.
    fn chance(&mut self, chance: u32) -> bool {
        chance > 0 && !self.calm() && self.rng.u32(..1000) < chance
    }

    fn plan_at(&mut self, at: u64, event: Event) {
        self.numbers += 1;
        let key = (at, self.rng.u32(..), self.numbers);
        self.agenda.insert(key, event);
    }

    fn plan_in(&mut self, millis: u64, event: Event) {
        self.plan_at(self.now() + millis.max(1), event);
    }

    fn tell(&mut self, words: impl FnOnce() -> String) {
        if self.plan.told {
            let (seconds, millis) = (self.now() / 1000, self.now() % 1000);
            self.trace.push(format!("{seconds:>6}.{millis:03} {}", words()));
        }
    }

    pub(crate) fn violate(&mut self, what: String) {
        self.tell(|| format!("VIOLATED: {what}"));
        self.watch.violations.push(what);
    }

    /// Until the agenda is empty and nobody works.
    async fn live(&mut self) {
        let desk = self.wire.desk.clone();
        let mut events = 0;
        loop {
            self.look();
            let Some((&(at, ..), _)) = self.agenda.first_key_value() else {
                if self.running.is_empty() {
                    break;
                }
                // A handler sleeps, or is about to answer.
                let rung = tokio::time::timeout(Duration::from_secs(3600), desk.bell.notified());
                if rung.await.is_err() {
                    self.violate("a handler waits for nothing".to_owned());
                    break;
                }
                continue;
            };
            tokio::select! {
                biased;
                () = desk.bell.notified() => continue,
                () = sleep_until(self.start + Duration::from_millis(at)) => {}
            }
            // Something may have been put before it meanwhile.
            let Some((_, event)) = self.agenda.pop_first() else {
                continue;
            };
            self.happen(event);
            events += 1;
            if events > EVENTS_AT_MOST || !self.watch.violations.is_empty() {
                if self.watch.violations.is_empty() {
                    self.violate("the world does not come to rest".to_owned());
                }
                break;
            }
        }
    }

    /// Takes in what the handlers did.
    fn look(&mut self) {
        for exchange in self.wire.desk.take() {
            self.take_on(exchange);
        }
        while let Ok((number, answer)) = self.finished.try_recv() {
            if let Some(running) = self.running.remove(&number) {
                self.tell(|| format!("#{number} ends"));
                // What SES said may not have been written.
                if running.sent && !answer.as_ref().is_ok_and(|text| text.contains("[]")) {
                    for swap in running.cause.mailed() {
                        self.watch.doubt_of(&swap);
                    }
                }
                self.conclude(running.cause, answer);
            }
        }
    }

    /// Decides what becomes of a call.
    fn take_on(&mut self, exchange: Exchange) {
        let number = self.exchanges;
        self.exchanges += 1;
        let invocation = exchange.invocation;
        if exchange.call.peer == Peer::Post
            && let Some(running) = self.running.get_mut(&invocation)
        {
            running.sent = true;
        }
        let now = self.now();
        let (call, weather) = (&exchange.call, &self.plan.weather);
        let mut fault = weather.fault(&mut self.rng, call, now);
        if self.plan.mistake.is_some_and(|mistake| mistake.loses(call)) {
            fault = Fault::AnswerLost;
        }
        let latency = self.rng.u64(1..=15);
        if let Some((at, cut)) = self.plan.at.clone()
            && at == number
        {
            let running = self.running.get(&invocation);
            self.cut = running.map(|running| (invocation, running.function));
            match cut {
                Cut::KilledBefore => {
                    self.tell(|| format!("#{invocation} is killed before exchange {number}"));
                    self.kill(invocation);
                    return;
                }
                Cut::KilledAfter => fault = Fault::Silence,
                Cut::OvertakenBefore(rival) => {
                    fault = Fault::Late(2_000);
                    self.overtake(rival);
                }
                // Its answer takes so long.
                Cut::OvertakenAfter(_) => {}
            }
        }
        let lapse = match exchange.call.peer {
            Peer::Smdp | Peer::Network => self.plan.weather.lapse,
            _ => 0,
        };
        if self.chance(self.plan.weather.kill) || self.chance(lapse) {
            let within = self.rng.u64(1..40);
            self.plan_in(within, Event::Kill(invocation));
        }
        let late = match fault {
            Fault::Late(millis) => millis,
            _ => 0,
        };
        self.plan_in(latency + late, Event::Arrive(Box::new(exchange), fault, number));
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Ask(n) => {
                let mut request = self.plan.requests[n].0.clone();
                if let Some(line) = request.about {
                    let newest = self.watch.newest_swap(line);
                    request = request.about(&newest.unwrap_or_else(|| "NONE".to_owned()));
                }
                if let Some(swap) = request.cancels() {
                    self.watch.asked_to_cancel(swap);
                }
                let (function, event) = (request.function, request.event());
                let told = request.told();
                let now = self.now();
                self.watch.asks(n, &request, now);
                self.invoke(function, event, Cause::Asked(n), &told);
            }
            Event::Arrive(exchange, fault, number) => self.arrive(*exchange, fault, number),
            Event::Answer(to, answer) => {
                // Nobody may wait any more.
                let _ = to.send(answer);
            }
            Event::Kill(invocation) => {
                if self.running.contains_key(&invocation) {
                    self.tell(|| format!("#{invocation} is killed"));
                    self.kill(invocation);
                }
            }
            Event::Put(consumer, record) => {
                self.waiting.entry(consumer).or_default().push(record);
                self.feed_soon(consumer);
            }
            Event::Feed(consumer) => self.feed(consumer),
            Event::Call(callback, tries) => self.call_back(callback, tries),
            Event::Phone(mail, act) => self.phone(&mail, act),
            Event::NetworkWorks => self.network_works(),
            Event::NetworkStarts(call) => {
                let reply = self.ground.perform(&call);
                self.tell(|| format!("the network starts {}: {}", call.path, reply.status));
                self.plan_in(1, Event::NetworkWorks);
                self.post();
            }
            Event::Belated(call) => {
                let now = self.now();
                self.watch.pending.retain(|pending| pending.at > now);
                let reply = match self.plan.weather.answers(call.peer, self.now()) {
                    Some(_) => None,
                    None => Some(self.at_peer(&call).0),
                };
                self.tell(|| {
                    let status = reply.as_ref().map(|reply| reply.status);
                    format!("belated {} -> {status:?}", describe(&call))
                });
                if let Some(reply) = reply {
                    self.happened(&call, &Written::of(&call), &reply);
                }
            }
            Event::Settles(call, id) => {
                self.shown.settled(&id);
                let reply = self.ground.perform(&call);
                self.tell(|| format!("the network cancels {id}: {}", reply.status));
                self.plan_in(1, Event::NetworkWorks);
                self.post();
            }
            Event::NetworkGivesUp(id, state) => {
                let given = self.ground.carrier.give_up(&id, state).expect("the book");
                if given {
                    self.watch.gave_up(&id, state);
                }
                self.tell(|| format!("the network gives up {id}: {state:?}, {given}"));
                self.post();
            }
            Event::Report(mut event, tries) => {
                if let Some(mistake) = self.plan.mistake {
                    mistake.alter_report(&mut event);
                }
                let told = short(event.to_string().as_bytes());
                self.invoke("mail-events", event.clone(), Cause::Report(event, tries), &told);
            }
            Event::Sweep(minute) => {
                self.sweeps.remove(&minute);
                // A sweep that finds nothing changes nothing: it is left out.
                if self.watch.is_due(self.millis()) {
                    self.invoke("sweep-swaps", json!({}), Cause::Sweep, "");
                }
            }
            Event::Woken(consumer, event, tries) => {
                let told = short(event.to_string().as_bytes());
                let cause = Cause::Woken(consumer, event.clone(), tries);
                self.invoke(consumer.function(), event, cause, &told);
            }
        }
    }

    /// A call is at its peer.
    fn arrive(&mut self, exchange: Exchange, fault: Fault, number: u64) {
        let Exchange {
            invocation,
            mut call,
            answer,
        } = exchange;
        let patience = match call.peer {
            Peer::Smdp | Peer::Network => PATIENCE,
            Peer::Table | Peer::Keys | Peer::Post | Peer::Lambda => 40_000,
        };
        let now = self.now();
        let answers = self.plan.weather.answers(call.peer, now);
        if call.peer == Peer::Post
            && answers.is_none()
            && !matches!(fault, Fault::None | Fault::NotSent | Fault::Refused(_))
        {
            self.watch.doubt(&call);
        }
        let told = if self.plan.told { describe(&call) } else { String::new() };
        if call.peer == Peer::Network {
            with_ids_of_book(&mut call);
        }
        let mut slow = self.plan.weather.quirks.slowness(call.peer);
        let carried_out = !matches!(
            fault,
            Fault::NotSent | Fault::Vanishes | Fault::Refused(_) | Fault::Belated(_)
        );
        let (truth, delay): (Answer, u64) = match fault {
            Fault::NotSent => (Err(Broken::Refused), 0),
            Fault::Vanishes => (Err(Broken::TimedOut), patience),
            Fault::Belated(after) => {
                let at = now + patience + after;
                self.watch.belated(&self.ground, &call, now, at);
                self.plan_at(at, Event::Belated(Box::new(call.clone())));
                (Err(Broken::TimedOut), patience)
            }
            Fault::Refused(ref reply) => (Ok(reply.clone()), 0),
            Fault::Stale if self.seen.contains_key(&index_key(&call)) => {
                let seen = self.seen[&index_key(&call)].clone();
                (Ok(Reply::new(200, seen)), 0)
            }
            _ => {
                let mut request = Written::of(&call);
                let violations = self.watch.before(&self.ground, &call, &request, now, &self.ambient);
                let mistake = self.plan.mistake;
                let function = self.running.get(&invocation).map_or("", |running| running.function);
                let lost = matches!(fault, Fault::AnswerLost | Fault::Silence | Fault::Garbled(_));
                let instead = mistake.and_then(|mistake| mistake.alter(&self.ground, function, lost, &mut call));
                for violation in violations {
                    self.violate(violation);
                }
                if mistake.is_some() {
                    request = Written::of(&call);
                }
                let shown = match (instead, answers) {
                    (Some(reply), _) => {
                        self.happened(&call, &request, &reply);
                        reply
                    }
                    (None, Some(answers)) => {
                        let begin = self.begin();
                        answers.reply(&mut self.rng, |seconds| http_date(begin + now + seconds * 1_000))
                    }
                    (None, None) => {
                        let (raw, shown) = self.at_peer(&call);
                        if raw.status == 200 {
                            self.watch.wrote(invocation, function, &request, now);
                        }
                        self.happened(&call, &request, &raw);
                        shown
                    }
                };
                match fault {
                    Fault::AnswerLost => (Err(Broken::Reset), 0),
                    Fault::Silence => (Err(Broken::TimedOut), patience),
                    Fault::Garbled(ref garbled) => (Ok(garbled.clone()), 0),
                    _ => (Ok(shown), 0),
                }
            }
        };
        if !carried_out || delay > 0 {
            slow = 0;
        }
        let wait = match answers {
            // The caller may have given a slow answer up.
            Some(Answers::Throttled(seconds)) if carried_out && slow < 5_000 => Some(now + seconds * 1_000),
            _ => None,
        };
        if let Ok(reply) = &truth {
            let state = shown_state(reply).filter(|_| call.method == "GET");
            self.watch.heard(&self.ground, invocation, &call, reply, state, wait);
        }
        let reply = truth.map(|reply| {
            let mistake = self.plan.mistake;
            let other = mistake.and_then(|mistake| mistake.alter_reply(&self.ground, &call, &reply));
            let quirks = &self.plan.weather.quirks;
            let spelled = quirks.spell_reply(&mut self.rng, &call, other.unwrap_or(reply));
            let unread = mistake.is_some_and(|mistake| mistake.cannot_read(&spelled));
            if unread {
                Reply::new(200, "<html>it works</html>")
            } else {
                spelled
            }
        });
        self.tell(|| {
            let status = reply.as_ref().map_or("-".to_owned(), |reply| reply.status.to_string());
            let body = reply.as_ref().map_or(String::new(), |reply| short(&reply.body));
            let fault = match fault {
                Fault::None => String::new(),
                fault => format!(" [{}]", short(format!("{fault:?}").as_bytes())),
            };
            format!("#{invocation} {told} -> {status}{fault} {body}")
        });
        let mut back = self.rng.u64(1..=15) + delay + slow;
        if let Some((at, cut)) = self.plan.at.clone()
            && at == number
        {
            match cut {
                Cut::KilledAfter => {
                    self.tell(|| format!("#{invocation} is killed after exchange {at}"));
                    self.kill(invocation);
                }
                Cut::OvertakenAfter(rival) => {
                    back = 2_000;
                    self.overtake(rival);
                }
                Cut::KilledBefore | Cut::OvertakenBefore(_) => {}
            }
        }
        self.plan_in(back, Event::Answer(answer, reply));
    }

    /// A call is carried out: what the peer's book says, and what the peer answers.
    fn at_peer(&mut self, call: &Call) -> (Reply, Reply) {
        let quirks = self.plan.weather.quirks.clone();
        let refusal = match call.peer {
            Peer::Smdp if call.path.ends_with("cancelOrder") => {
                quirks.keeps.map(|(subject, reason)| refused(subject, reason))
            }
            Peer::Network if call.method == "PATCH" && quirks.unstartable => {
                Some(Reply::new(409, r#"{"code":"409","reason":"no"}"#))
            }
            _ => None,
        };
        if let Some(refusal) = refusal {
            return (refusal.clone(), refusal);
        }
        if call.peer != Peer::Network {
            let reply = self.ground.perform(call);
            return (reply.clone(), reply);
        }
        if call.path.ends_with("/cancelServiceOrder") && quirks.cancel != Cancelling::AtOnce {
            let request: Value = serde_json::from_slice(&call.body).unwrap_or_default();
            let id = request["serviceOrder"]["id"].as_str().unwrap_or_default();
            if self.ground.order(id)["state"] == "held" {
                if self.shown.cancels(id)
                    && let Cancelling::After(millis, _) = quirks.cancel
                {
                    self.plan_in(millis, Event::Settles(Box::new(call.clone()), id.to_owned()));
                }
                let task = json!({"id": "1", "state": "accepted", "serviceOrder": {"id": id}});
                let reply = Reply::new(201, task.to_string());
                return (reply.clone(), reply);
            }
        }
        let mut raw = self.ground.perform(call);
        let places = call.method == "POST" && call.path.ends_with("/serviceOrder");
        if places && raw.status == 201 {
            let order: Value = serde_json::from_slice(&raw.body).unwrap_or_default();
            let external_id = order["externalId"].as_str().unwrap_or_default();
            if let Search::Lags(most) = quirks.search {
                // What a given-up call brings shows within the time in which such a call may still be carried out.
                let ordered = self.watch.last_ordered(external_id);
                let at_most = (ordered + PATIENCE + BELATED_AT_MOST).max(self.now());
                let from = self.now() + self.rng.u64(1..most);
                self.shown.placed(external_id, from.min(at_most));
            }
            if quirks.early == Early::Started && order["state"] == "held" {
                let id = order["id"].as_str().unwrap_or_default();
                let start = Call {
                    method: "PATCH".to_owned(),
                    path: format!("{}/serviceOrder/{id}", peers::tmf641::PATH),
                    body: br#"{"state":"inProgress"}"#.to_vec(),
                    ..call.clone()
                };
                if self.rng.bool() {
                    let started = self.ground.perform(&start);
                    raw = Reply { status: 201, ..started };
                } else {
                    let after = self.rng.u64(1..3_600_000);
                    self.plan_in(after, Event::NetworkStarts(Box::new(start)));
                }
            }
        }
        let shown = self.shown.reply(&quirks, call, &raw, self.now());
        (raw, shown)
    }

    /// What follows from a call that was carried out.
    fn happened(&mut self, call: &Call, request: &Written, reply: &Reply) {
        match call.peer {
            Peer::Table if reply.status == 200 => {
                if call.is_index_query() {
                    self.seen.insert(index_key(call), reply.body.clone());
                }
                let now = self.now();
                let (rows, violations) = self.watch.written(&self.ground, request, now);
                for violation in violations {
                    self.violate(violation);
                }
                for row in rows {
                    self.changed(row);
                }
            }
            Peer::Table | Peer::Keys => {}
            Peer::Lambda => {
                let consumer = if call.path.contains("/fulfil-swap/") {
                    Consumer::Fulfil
                } else {
                    Consumer::Deliver
                };
                let event: Value = serde_json::from_slice(&call.body).unwrap_or_default();
                let soon = self.rng.u64(1..200);
                self.plan_in(soon, Event::Woken(consumer, event, 0));
            }
            Peer::Post => {
                let mail = self.ground.mails().last().cloned();
                let Some(mail) = mail.filter(|_| reply.status == 200) else {
                    return;
                };
                let code = String::from_utf8_lossy(&mail.raw)
                    .replace("=\r\n", "")
                    .replace("=24", "$");
                let start = code.find("LPA:1$").expect("a mail holds an activation code");
                let code: String = code[start..]
                    .chars()
                    .take_while(|c| c.is_ascii_alphanumeric() || ":$.-".contains(*c))
                    .collect();
                let planned = self.plan.acts.clone();
                for (after, act) in planned.unwrap_or_else(|| acts(&mut self.rng)) {
                    self.plan_in(after, Event::Phone(format!("{} {code}", mail.to), act));
                }
                if self.reports && !self.plan.weather.quirks.silent {
                    self.report(&mail);
                }
            }
            Peer::Smdp => {
                self.watch.ordered(call);
                if call.path.ends_with("confirmOrder") && self.chance(self.plan.weather.nonsense) {
                    let order: Value = serde_json::from_slice(&call.body).unwrap_or_default();
                    let body = json!({
                        "header": {"functionRequesterIdentifier": "x", "functionCallIdentifier": "x"},
                        "iccid": order["iccid"], "profileType": "x", "timestamp": EARLIER,
                        "notificationPointId": 4,
                        "notificationPointStatus": {"status": "Executed-Success"}
                    });
                    // Of an earlier life of that ICCID.
                    self.forge("/gsma/rsp2/es2plus/handleDownloadProgressInfo", &body);
                }
                self.post();
            }
            Peer::Network => {
                if call.method == "POST" && call.path.ends_with("/serviceOrder") && reply.status == 201 {
                    let order: Value = serde_json::from_slice(&call.body).unwrap_or_default();
                    let id = order["externalId"].as_str().unwrap_or_default().to_owned();
                    if self.chance(self.plan.weather.nonsense) {
                        let order = json!({"id": "9999", "externalId": id, "state": "completed"});
                        let body = json!({"eventId": "x", "event": {"serviceOrder": order}});
                        // Of another order than this swap's.
                        let listener = peers::tmf641::LISTENER;
                        self.forge(&format!("{}{listener}", peers::tmf641::PATH), &body);
                    }
                    if self.plan.weather.quirks.early == Early::Shown {
                        self.say_started(reply);
                    }
                    if self.chance(self.plan.weather.giving_up) {
                        let states = [OrderState::Failed, OrderState::Rejected, OrderState::Cancelled];
                        let state = states[self.rng.usize(..3)];
                        let after = self.rng.u64(1..3_600_000);
                        self.plan_in(after, Event::NetworkGivesUp(id, state));
                    }
                }
                let soon = self.rng.u64(1..2_000);
                self.plan_in(soon, Event::NetworkWorks);
            }
        }
    }

    /// A row changed: the stream tells of it, and the sweeper finds it if nobody listens.
    fn changed(&mut self, row: (String, String)) {
        let Some(consumer) = Consumer::of(&row.1) else {
            return;
        };
        let wakes = consumer == Consumer::Fulfil || self.watch.is_new(&row);
        if self.plan.weather.stream && wakes {
            let record = self.record(row.clone());
            let delay = self.delay();
            self.plan_in(delay, Event::Put(consumer, record));
        }
        if let Some(due) = self.watch.due(&row) {
            self.sweep_at(due);
        }
    }

    /// The sweeper comes in the first minute in which something is due.
    fn sweep_at(&mut self, due: u64) {
        let begin = self.begin();
        let minute = due.saturating_sub(begin).max(self.now()) / 60_000 + 1;
        if self.sweeps.insert(minute) {
            self.plan_at(minute * 60_000, Event::Sweep(minute));
        }
    }

    /// What SES tells of a mail that it took: in any order, and perhaps before its own answer.
    fn report(&mut self, mail: &Mail) {
        let id = format!("mail-{}", self.ground.mails().len());
        let soft = self.plan.weather.quirks.soft;
        let soft = soft > 0 && self.rng.u32(..1000) < soft;
        let kinds: &[(&str, &str)] = match self.rng.u8(..8) {
            0 => &[("Send", ""), ("Bounce", "Permanent")],
            1 => &[("Send", ""), ("Delivery", ""), ("Complaint", "")],
            _ if soft => &[("Send", ""), ("Delivery", ""), ("Bounce", "Transient")],
            _ => &[("Send", ""), ("Delivery", "")],
        };
        self.watch.reported(mail, kinds);
        for (kind, bounce) in kinds {
            let tags = json!({"activation": [mail.activation], "attempt": [mail.attempt]});
            let mut told = json!({"eventType": kind, "mail": {"messageId": id, "tags": tags}});
            if !bounce.is_empty() {
                told["bounce"] = json!({"bounceType": bounce, "bounceSubType": "General"});
            }
            let event = json!({"Records": [{"Sns": {"Message": told.to_string()}}]});
            self.told_of_mails.push(event.clone());
            loop {
                let within = [20, 2_000, 300_000][self.rng.usize(..3)];
                let delay = self.rng.u64(1..within);
                self.plan_in(delay, Event::Report(event.clone(), 0));
                if !self.chance(self.plan.weather.repeat) {
                    break;
                }
            }
        }
    }

    fn record(&mut self, row: (String, String)) -> Record {
        self.numbers += 1;
        Record {
            number: self.numbers,
            row,
            tries: 0,
        }
    }

    /// How long something is on its way: mostly a moment.
    fn delay(&mut self) -> u64 {
        if self.chance(self.plan.weather.late) {
            self.rng.u64(1_000..3_600_000)
        } else {
            self.rng.u64(1..200)
        }
    }

    fn delay_of_callback(&mut self) -> u64 {
        if self.chance(self.plan.weather.overdue) {
            self.rng.u64(3_600_000..86_400_000)
        } else {
            self.delay()
        }
    }

    /// A consumer gets its next batch when the stream is looked at again.
    fn feed_soon(&mut self, consumer: Consumer) {
        if self.feeds.insert(consumer) {
            let delay = self.rng.u64(1..=self.plan.weather.poll);
            self.plan_in(delay, Event::Feed(consumer));
        }
    }

    /// A consumer gets a batch: some of what waits, in any order. As Lambda does, it gets nothing of a row that an earlier
    /// batch of it still works on.
    fn feed(&mut self, consumer: Consumer) {
        self.feeds.remove(&consumer);
        let causes = self.running.values().map(|running| &running.cause);
        let at_work = causes.flat_map(|cause| match cause {
            Cause::Records(of, records) if *of == consumer => records.as_slice(),
            _ => &[],
        });
        let busy: BTreeSet<_> = at_work.map(|record| record.row.clone()).collect();
        let waiting = self.waiting.remove(&consumer).unwrap_or_default();
        let (held, mut free): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|record| busy.contains(&record.row));
        self.rng.shuffle(&mut free);
        let most = self.rng.usize(1..=10);
        let batch = free.split_off(free.len().saturating_sub(most));
        if !free.is_empty() {
            self.feed_soon(consumer);
        }
        free.extend(held);
        self.waiting.insert(consumer, free);
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
        let told = format!("{:?}", batch.iter().map(|r| &r.row).collect::<Vec<_>>());
        let function = consumer.function();
        self.invoke(
            function,
            json!({"Records": records}),
            Cause::Records(consumer, batch),
            &told,
        );
    }

    fn call_back(&mut self, mut letter: Letter, tries: u32) {
        let callback = &mut letter.callback;
        let taken = self
            .plan
            .mistake
            .is_some_and(|mistake| mistake.alter_callback(&self.ground, callback, &self.ambient));
        if taken {
            self.tell(|| format!("forgotten: {}", short(callback.body.as_bytes())));
            let now = self.now();
            self.watch.acknowledged(letter.meant.as_ref(), now);
            return;
        }
        let path = callback.url.strip_prefix("http://callbacks");
        let path = path.expect("callbacks come to us").to_owned();
        let told = short(callback.body.as_bytes());
        let mut event = http_event("POST", &path, None);
        event["body"] = callback.body.clone().into();
        let cause = Cause::Callback(letter, tries);
        self.invoke("network-events", event, cause, &told);
    }

    fn phone(&mut self, mail: &str, act: Act) {
        let (to, code) = mail.split_once(' ').expect("an address and a code");
        let asked = self.plan.requests.iter().enumerate();
        let mut asked = asked.filter(|(n, _)| to == format!("mail{n}@asked.example"));
        let right = asked.next().and_then(|(_, (request, _))| request.code.clone());
        let smdp = &self.ground.smdp;
        let outcome = match act {
            Act::Install => smdp.install(code, right.as_deref()),
            Act::Fetch => smdp.download(code, right.as_deref()),
            Act::Mistype => smdp.install(code, Some("wrong")),
        };
        self.tell(|| format!("the phone of {to}: {act:?}: {outcome:?}"));
        self.post();
    }

    fn network_works(&mut self) {
        let next = self.ground.carrier.work_now().expect("the book");
        if let Some(due) = next {
            let begin: Timestamp = BEGIN.parse().expect("it is a time");
            let at = due.duration_since(begin).as_millis();
            let at = u64::try_from(at).unwrap_or(0).max(self.now() + 1);
            if at < self.now() + DAYS_30 {
                self.plan_at(at, Event::NetworkWorks);
            }
        }
        self.post();
    }

    /// What the peers have to tell leaves them.
    fn post(&mut self) {
        let of_smdp = self.ground.smdp.take_callbacks().expect("the book");
        let of_network = self.ground.carrier.take_callbacks().expect("the book");
        let [smdp, network] = self.plan.weather.quirks.clocks;
        let of_smdp = of_smdp.into_iter().map(|callback| (callback, smdp));
        let of_network = of_network.into_iter().map(|callback| (callback, network));
        for (callback, ahead) in of_smdp.chain(of_network).collect::<Vec<_>>() {
            let meant = Meant::by(&callback);
            if self.chance(self.plan.weather.lost) {
                self.tell(|| format!("lost for ever: {}", short(callback.body.as_bytes())));
                self.watch.lost(&meant);
                continue;
            }
            let mut body: Value = serde_json::from_str(&callback.body).unwrap_or_default();
            set_clock(&mut body, ahead);
            let as_meant = Letter {
                callback: Callback {
                    url: callback.url.clone(),
                    body: body.to_string(),
                },
                meant: Some(meant),
            };
            self.callbacks.push(as_meant.clone());
            loop {
                let letter = self.spell(&as_meant);
                let delay = self.delay_of_callback();
                self.plan_in(delay, Event::Call(letter, 0));
                if !self.chance(self.plan.weather.repeat) {
                    break;
                }
            }
            if self.chance(self.plan.weather.nonsense) {
                let callback = self.nonsense(&callback);
                let letter = Letter { callback, meant: None };
                let delay = self.delay();
                self.plan_in(delay, Event::Call(letter, 0));
            }
        }
    }

    /// A callback as its peer spells it.
    fn spell(&mut self, letter: &Letter) -> Letter {
        let mut body: Value = serde_json::from_str(&letter.callback.body).unwrap_or_default();
        let quirks = &self.plan.weather.quirks;
        let text = quirks.spell_callback(&mut self.rng, &mut body);
        Letter {
            callback: Callback {
                url: letter.callback.url.clone(),
                body: text,
            },
            meant: letter.meant.clone(),
        }
    }

    /// The network tells that it has started an order that it holds.
    fn say_started(&mut self, reply: &Reply) {
        let mut order: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        if order["state"] != "held" {
            return;
        }
        order["state"] = "inProgress".into();
        let body = json!({
            "eventId": "early", "eventType": "ServiceOrderStateChangeEvent",
            "event": {"serviceOrder": order}
        });
        let listener = peers::tmf641::LISTENER;
        let letter = Letter {
            callback: Callback {
                url: format!("http://callbacks{}{listener}", peers::tmf641::PATH),
                body: body.to_string(),
            },
            meant: Some(Meant::Other),
        };
        let letter = self.spell(&letter);
        let delay = self.delay_of_callback();
        self.plan_in(delay, Event::Call(letter, 0));
    }

    /// A callback comes that no peer sent for this swap.
    fn forge(&mut self, path: &str, body: &Value) {
        let callback = Callback {
            url: format!("http://callbacks{path}"),
            body: body.to_string(),
        };
        let delay = self.rng.u64(100..600_000);
        let letter = Letter { callback, meant: None };
        self.plan_in(delay, Event::Call(letter, 0));
    }

    /// A callback that no peer means.
    fn nonsense(&mut self, letter: &Callback) -> Callback {
        let mut body: Value = serde_json::from_str(&letter.body).unwrap_or_default();
        let order = &mut body["event"]["serviceOrder"];
        if order.is_object() {
            match self.rng.u8(..4) {
                // Another order, which this swap has not.
                0 => {
                    order["id"] = "9999".into();
                    order["state"] = "completed".into();
                }
                1 => order["externalId"] = "01NOBODYKNOWSTHISONE000000".into(),
                2 => order["state"] = "flying".into(),
                _ => order["state"] = "pending".into(),
            }
        } else {
            match self.rng.u8(..4) {
                0 => body["iccid"] = "8931086000000009999F".into(),
                // An earlier life of that ICCID.
                1 => body["timestamp"] = EARLIER.into(),
                2 => body["notificationPointId"] = 7.into(),
                _ => body["notificationPointId"] = "four".into(),
            }
        }
        Callback {
            url: letter.url.clone(),
            body: body.to_string(),
        }
    }

    /// Others come in between.
    fn overtake(&mut self, rival: Rival) {
        self.tell(|| format!("overtaken by {rival:?}"));
        match rival {
            Rival::Woken => {
                for (pk, sk) in self.watch.rows() {
                    if let Some(consumer) = Consumer::of(&sk) {
                        let event = edge::records_of([(pk.as_str(), sk.as_str())]);
                        let event = serde_json::from_str(&event).expect("it is JSON");
                        self.plan_in(1, Event::Woken(consumer, event, 0));
                    }
                }
            }
            Rival::Callbacks => {
                for callback in self.callbacks.clone() {
                    self.plan_in(1, Event::Call(callback, 0));
                }
            }
            Rival::Reports => {
                for event in self.told_of_mails.clone() {
                    self.plan_in(1, Event::Report(event, 0));
                }
            }
            Rival::Sweep => self.invoke("sweep-swaps", json!({}), Cause::Sweep, ""),
            Rival::Caller(request) => {
                self.plan.requests.push((*request, Vec::new()));
                let n = self.plan.requests.len() - 1;
                self.plan_in(1, Event::Ask(n));
            }
        }
    }

    fn invoke(&mut self, function: &'static str, event: Value, cause: Cause, told: &str) {
        self.numbers += 1;
        let number = self.numbers;
        self.tell(|| format!("#{number} {function}: {told}"));
        if let Some((waiting, _)) = self.cut
            && self.running.contains_key(&waiting)
        {
            self.met.insert(function);
        }
        let sandbox = self.rng.usize(..self.sandboxes.len());
        let handler = self.sandboxes[sandbox][function].clone();
        let (finish, desk) = (self.finish.clone(), self.wire.desk.clone());
        let task = tokio::spawn(INVOCATION.scope(number, async move {
            let answer = handler(event.to_string()).await;
            // The world may have ended.
            let _ = finish.send((number, answer));
            desk.bell.notify_one();
        }));
        let running = Running {
            function,
            cause,
            sent: false,
            sandbox,
            task: task.abort_handle(),
        };
        self.running.insert(number, running);
    }

    /// A process dies: its invocation fails, and the next one starts anew.
    fn kill(&mut self, invocation: u64) {
        let Some(running) = self.running.remove(&invocation) else {
            return;
        };
        running.task.abort();
        let other = self.plan.mistake.and_then(Mutant::setting);
        self.sandboxes[running.sandbox] = sandbox::start(&self.wire, &self.ambient, self.reports, other);
        for swap in running.cause.mailed() {
            self.watch.doubt_of(&swap);
        }
        self.conclude(running.cause, Err("killed".to_owned()));
    }

    /// What follows from the end of an invocation.
    fn conclude(&mut self, cause: Cause, answer: Result<String, String>) {
        match cause {
            Cause::Asked(n) => {
                let answer: Value = answer.map_or(Value::Null, |text| serde_json::from_str(&text).unwrap_or_default());
                self.tell(|| format!("   answer {}", short(answer.to_string().as_bytes())));
                let request = self.plan.requests[n].0.clone();
                let now = self.now();
                let answered = self.watch.answered(n, &request, &answer, now);
                for violation in answered {
                    self.violate(violation);
                }
                let weather = &self.plan.weather;
                let undisturbed = weather.fault + weather.kill + weather.lapse == 0 && self.plan.at.is_none();
                if undisturbed && answer["statusCode"].as_u64().is_none_or(|status| status >= 500) {
                    let told = request.told();
                    self.violate(format!("{told} is answered {answer} though nothing went wrong"));
                }
            }
            Cause::Records(consumer, records) => {
                self.redeliver(consumer, records, answer);
                // Some may have waited for this batch.
                self.feed_soon(consumer);
            }
            Cause::Report(event, tries) => {
                if answer.is_err() {
                    let wait = 1_000 << tries.min(8);
                    self.plan_in(wait, Event::Report(event, tries + 1));
                }
            }
            // What it did not wake, or woke in vain, is still due.
            Cause::Sweep => self.sweep_at(self.millis()),
            Cause::Woken(consumer, event, tries) => {
                if answer.is_err() && tries < 2 {
                    self.plan_in(60_000, Event::Woken(consumer, event, tries + 1));
                }
                self.sweep_at(self.millis());
            }
            Cause::Callback(letter, tries) => {
                let status = answer.ok().and_then(|text| {
                    let answer: Value = serde_json::from_str(&text).ok()?;
                    answer["statusCode"].as_u64()
                });
                let now = self.now();
                match status {
                    Some(200..300) => self.watch.acknowledged(letter.meant.as_ref(), now),
                    // Nonsense is refused as such, and not sent again.
                    Some(status @ ..500) if letter.meant.is_some() => {
                        let body = &letter.callback.body;
                        self.violate(format!("a callback is refused by {status}: {body}"));
                    }
                    Some(..500) => {}
                    _ => {
                        let wait = 250 << tries.min(9);
                        self.plan_in(wait, Event::Call(letter, tries + 1));
                    }
                }
            }
        }
    }

    /// Records that failed come again, a few times; now and then others do too.
    fn redeliver(&mut self, consumer: Consumer, records: Vec<Record>, answer: Result<String, String>) {
        let failed: Option<Vec<u64>> = answer.ok().map(|text| {
            let answer: Value = serde_json::from_str(&text).unwrap_or_default();
            let failures = answer["batchItemFailures"].as_array().cloned();
            let numbers = failures.unwrap_or_default();
            let numbers = numbers
                .iter()
                .filter_map(|f| f["itemIdentifier"].as_str()?.parse().ok());
            numbers.collect()
        });
        for mut record in records {
            let again = failed.as_ref().is_none_or(|failed| failed.contains(&record.number));
            if again {
                record.tries += 1;
                if record.tries < TRIES {
                    let wait = 1_000 << (2 * record.tries);
                    self.plan_in(wait, Event::Put(consumer, record));
                }
            } else if self.chance(self.plan.weather.repeat) {
                let delay = self.delay();
                self.plan_in(delay, Event::Put(consumer, record));
            }
        }
    }

    pub(crate) fn quirks(&self) -> &Quirks {
        &self.plan.weather.quirks
    }

    pub(crate) fn lets_all_end(&self) -> bool {
        self.plan.weather.lets_all_end()
    }

    pub(crate) fn is_prompt(&self) -> bool {
        self.plan.weather.is_prompt() && self.plan.at.is_none()
    }

    pub(crate) fn mails_from(&self) -> Option<u64> {
        self.plan.weather.mails_from()
    }

    async fn judge(mut self, logs: &str) -> Run {
        let rows = stock::rows(&self.ground);
        if self.watch.violations.is_empty() {
            let judged = crate::invariants::judge(&self, &rows, logs).await;
            for violation in judged {
                self.violate(violation);
            }
        }
        let (swaps, mails) = self.watch.summary(&self.ground, &rows);
        Run {
            violations: self.watch.violations,
            trace: self.trace,
            exchanges: self.exchanges,
            swaps,
            mails,
            cut: self.cut.map(|(_, function)| function),
            met: self.met,
        }
    }
}

/// A peer's clock is ahead of ours by so many seconds.
fn set_clock(body: &mut Value, ahead: i64) {
    if ahead == 0 {
        return;
    }
    let shift = |date: &mut Value| {
        let time: Option<Timestamp> = date.as_str().and_then(|text| text.parse().ok());
        if let Some(time) = time {
            *date = (time + jiff::SignedDuration::from_secs(ahead)).to_string().into();
        }
    };
    match body.get_mut("timestamp") {
        Some(date) => shift(date),
        None => {
            for name in ["orderDate", "startDate", "completionDate", "cancellationDate"] {
                if let Some(date) = body["event"]["serviceOrder"].get_mut(name) {
                    shift(date);
                }
            }
        }
    }
}

/// As it stands in a header: RFC 9110, section 5.6.7.
fn http_date(millis: u64) -> String {
    let time = Timestamp::from_millisecond(i64::try_from(millis).expect("it is soon"));
    let time = time.expect("it is soon");
    time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// What two queries of an index have in common whose answers may be mistaken for each other.
fn index_key(call: &Call) -> String {
    let request: Value = serde_json::from_slice(&call.body).unwrap_or_default();
    let values = &request["ExpressionAttributeValues"];
    let shelf = [":shelf", ":type", ":line"]
        .iter()
        .find_map(|name| values[*name]["S"].as_str());
    format!("{} {}", request["IndexName"], shelf.unwrap_or_default())
}

/// A call in one line.
fn describe(call: &Call) -> String {
    if call.peer == Peer::Post {
        return "SendRawEmail".to_owned();
    }
    let what = match call.operation.as_str() {
        "" => format!("{} {}", call.method, call.path),
        operation => operation.to_owned(),
    };
    format!("{:?} {what} {}", call.peer, short(&call.body))
}

fn short(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let text: String = text.chars().take(700).collect();
    text.replace('\n', " ")
}
