//! Swaps with a foreign SM-DP+ and a foreign network that misbehave. Each row of a table uses a line and SIMs of its
//! own.

use std::any::Any;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use domain::{Activation, ActivationId, FormFactor, Iccid, Msisdn, Phase, ProfileState, Sim};
use futures_util::{StreamExt, stream};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use local::dynoxide::AttributeValue;
use local::stack::Options;
use operator::commands::{remove_line, remove_sim, set_line};
use operator::line::LineChange;
use serde_json::{Value, json};
use tests::foreign::{Act, Behaviour, Call, ForeignNetwork, ForeignSmdp, Reply, failed};
use tests::stock::{
    CUSTOMER, SEPARATE_CARDS, iccid, line_id, load_lines, load_separate, load_sims, phone, separate_card,
};
use tests::{FREE_CARD, TestStack, activation_code, card, line};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// Waits that keep a test short. The lease outlasts any delay of a slow machine.
const QUICK: [(&str, &str); 5] = [
    ("RETRY_AFTER", "10ms"),
    ("ASK_AFTER", "100ms"),
    ("ASK_AT_MOST", "300ms"),
    ("LEASE", "20s"),
    ("CANCEL_WAIT", "1ms"),
];
/// The functions never poll: they learn of an event by a callback, or not at all.
const EVENTS_ONLY: [(&str, &str); 2] = [("ASK_AFTER", "1h"), ("ASK_AT_MOST", "1h")];
/// Peers get this long to settle.
const SHORT_SETTLE: [(&str, &str); 1] = [("SETTLE_WITHIN", "3s")];
/// The time to order, for peers that never accept an order.
const SHORT_ORDER: [(&str, &str); 1] = [("ORDER_WITHIN", "4s")];
/// How long SIMs cool down, for each of the two reasons; below in hours.
const COOLDOWNS: [(&str, &str); 2] = [("CALL_REST", "3h"), ("SIM_REST", "24h")];
const CALL_REST: i64 = 3;
const SIM_REST: i64 = 24;
const CODE: &str = "8E9!#";
/// The limit for what should happen soon.
const SOON: Duration = Duration::from_secs(30);
/// How many rows of a table run at the same time.
const CONCURRENCY: usize = 6;

/// A service between two foreign peers.
struct Scene {
    service: TestStack,
    network: ForeignNetwork,
    smdp: ForeignSmdp,
    next: AtomicUsize,
}

impl Scene {
    async fn new(lines: usize, settings: &[&[(&str, &str)]]) -> Arc<Self> {
        Self::start(lines, TestStack::options_with(&settings.concat())).await
    }

    async fn start(lines: usize, options: Options) -> Arc<Self> {
        let (network, smdp) = (ForeignNetwork::start().await, ForeignSmdp::start().await);
        let service = TestStack::start(Options {
            smdp_url: Some(smdp.url().to_owned()),
            network_url: Some(network.url().to_owned()),
            ..options
        })
        .await;
        smdp.connect(&service.stack.endpoints.callbacks);
        load_separate(&service, lines).await;
        Arc::new(Self {
            service,
            network,
            smdp,
            next: AtomicUsize::new(0),
        })
    }

    /// A line that no other row uses.
    fn case(self: &Arc<Self>) -> Case {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let cards = std::array::from_fn(|card| separate_card(number, card).to_string());
        Case {
            line: line_id(number),
            phone: phone(number),
            esim: iccid(FormFactor::Esim, number).to_string(),
            email: format!("c{number}@example.com"),
            cards,
            scene: self.clone(),
        }
    }

    /// Asserts that every request to the peers complied with its standard.
    fn assert_compliant(&self) {
        let faults = [self.network.violations(), self.smdp.violations()].concat();
        assert!(faults.is_empty(), "{faults:#?}");
    }
}

/// A line with its eSIM and its cards, and the part of both peers that serves it.
#[derive(Clone)]
struct Case {
    scene: Arc<Scene>,
    line: String,
    phone: String,
    esim: String,
    email: String,
    cards: [String; SEPARATE_CARDS],
}

impl Case {
    fn service(&self) -> &TestStack {
        &self.scene.service
    }

    fn network(&self) -> &ForeignNetwork {
        &self.scene.network
    }

    fn smdp(&self) -> &ForeignSmdp {
        &self.scene.smdp
    }

    /// Sets how both peers treat the calls about this line.
    fn rule(&self, rule: impl Fn(&Call) -> Act + Clone + Send + Sync + 'static) {
        self.network().rule(&self.phone, rule.clone());
        self.smdp().rule(&self.esim, rule);
    }

    fn behaviour(&self, change: impl FnOnce(&mut Behaviour)) {
        let mut behaviour = Behaviour::default();
        change(&mut behaviour);
        self.network().behave(&self.phone, behaviour);
    }

    /// Both peers comply from here on.
    fn comply(&self) {
        self.network().comply(&self.phone);
        self.smdp().comply(&self.esim);
    }

    async fn start_card_swap(&self, number: usize) -> String {
        let card = card(&self.line, &self.cards[number]);
        self.service().start_swap(&card).await
    }

    async fn start_esim_swap(&self) -> String {
        let body = json!({"subscriptionId": self.line, "eSim": true, "email": self.email, "confirmationCode": CODE});
        self.service().start_swap(&body).await
    }

    /// Starts an eSIM swap and waits for its mail.
    async fn start_mailed_swap(&self) -> String {
        let id = self.start_esim_swap().await;
        self.await_mail(&id).await;
        id
    }

    /// The first mail of a swap, as soon as there is one.
    async fn await_mail(&self, id: &str) -> Vec<u8> {
        let mail = until(|| async { self.service().mails(id).pop() }).await;
        match mail {
            Some(mail) => mail,
            None => panic!("no mail: {}", self.describe(id).await),
        }
    }

    async fn install(&self) {
        self.smdp().install(&self.esim).await;
    }

    async fn cancel(&self, id: &str) {
        let service = self.service();
        let response = service.manage(&service.admin(), "CancelActivation", id, "").await;
        assert_eq!(response.status, 200, "{response:?}");
    }

    /// The state of a swap for a panic message.
    async fn describe(&self, id: &str) -> String {
        let a = self.service().record(id).await;
        let happened: Vec<_> = a.timeline.iter().map(|event| event.what.as_str()).collect();
        let (phase, failure) = (a.phase, a.failure.map(|failure| failure.as_str()));
        let order = self.network().state(id);
        format!("{phase:?} {failure:?} {happened:?}, order {order:?}")
    }

    /// The swap's record as soon as it satisfies `fits`.
    async fn record(&self, id: &str, fits: impl Fn(&Activation) -> bool) -> Activation {
        let record = until(|| async {
            let record = self.service().record(id).await;
            fits(&record).then_some(record)
        })
        .await;
        match record {
            Some(record) => record,
            None => panic!("the swap stays {}", self.describe(id).await),
        }
    }

    async fn await_end(&self, id: &str) -> Activation {
        self.record(id, |record| !record.phase.is_open()).await
    }

    /// Waits until the network has an order with this external id.
    async fn await_order(&self, id: &str) {
        let found = until(|| async { (!self.network().state(id).is_empty()).then_some(()) }).await;
        assert!(found.is_some(), "no order: {}", self.describe(id).await);
    }

    /// Asserts that the swap ends in DONE without ever being in ERROR, and that the table and the peers agree.
    async fn await_done(&self, id: &str) -> Activation {
        let record = self.await_end(id).await;
        assert_eq!(record.phase, Phase::Done, "{}", self.describe(id).await);
        assert!(record.failure.is_none(), "{}", self.describe(id).await);
        assert_eq!(self.network().orders(id).len(), 1);
        let new = record.new_sim.as_str();
        self.assert_moved_to(new).await;
        let sim_there = self.network().sim_of(&self.phone);
        assert_eq!(sim_there.as_deref(), Some(new));
        let since = record.activated_at.unwrap();
        let sane = record.created_at..=Timestamp::now();
        assert!(sane.contains(&since), "{since} is not in {sane:?}");
        record
    }

    async fn assert_moved_to(&self, sim: &str) {
        let line = self.service().line(&self.line).await;
        assert_eq!((line.open_swap, line.current_sim.as_str()), (None, sim));
        let sim = self.service().sim(sim).await;
        assert_eq!(sim.state.as_str(), "ACTIVATED");
    }

    /// Brings a card swap to DONE.
    async fn card_to_done(&self) {
        let id = self.start_card_swap(0).await;
        self.await_done(&id).await;
        assert!(self.service().mails(&id).is_empty());
    }

    /// Brings an eSIM swap to DONE, with one mail.
    async fn esim_to_done(&self) -> String {
        let id = self.start_mailed_swap().await;
        self.install().await;
        self.await_done(&id).await;
        assert_eq!(self.service().mails(&id).len(), 1);
        assert_eq!(self.smdp().state(&self.esim), "Installed");
        id
    }

    async fn to_done(&self, esim: bool) {
        if esim {
            self.esim_to_done().await;
        } else {
            self.card_to_done().await;
        }
    }

    /// Asserts that the swap ends in ERROR with this code and that the line is free on its old SIM. Returns the new
    /// SIM.
    async fn await_error(&self, id: &str, code: &str) -> Sim {
        let record = self.await_end(id).await;
        let seen = record.failure.map(|failure| failure.as_str());
        assert_eq!(
            (record.phase, seen),
            (Phase::Error, Some(code)),
            "{}",
            self.describe(id).await
        );
        self.assert_moved_to(record.old_sim.as_str()).await;
        self.service().sim(record.new_sim.as_str()).await
    }

    /// Asserts that the peers did not settle the swap: the SIM is disabled, and the line gets another.
    async fn assert_unsettled(&self, id: &str) {
        let sim = self.await_error(id, "unsettled").await;
        assert_eq!(sim.state.as_str(), "DISABLED");
        self.comply();
        let next = self.start_card_swap(SEPARATE_CARDS - 1).await;
        self.await_done(&next).await;
    }

    fn calls(&self, what: &str) -> Vec<Call> {
        let of = match what {
            "downloadOrder" | "confirmOrder" | "cancelOrder" => {
                return self.smdp().calls(what, &self.esim);
            }
            _ => &self.phone,
        };
        self.network().calls(what, of)
    }
}

/// The result of `look`, if there is one soon.
async fn until<T, F: Future<Output = Option<T>>>(look: impl Fn() -> F) -> Option<T> {
    within(SOON, look).await
}

async fn within<T, F: Future<Output = Option<T>>>(limit: Duration, look: impl Fn() -> F) -> Option<T> {
    let begun = Instant::now();
    while begun.elapsed() < limit {
        if let Some(found) = look().await {
            return Some(found);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    None
}

/// Rows that run at the same time on one service.
struct Table {
    scene: Arc<Scene>,
    rows: Vec<(String, JoinHandle<()>)>,
    running: Arc<Semaphore>,
}

impl Table {
    fn new(scene: Arc<Scene>) -> Self {
        Self {
            scene,
            rows: Vec::new(),
            running: Arc::new(Semaphore::new(CONCURRENCY)),
        }
    }

    fn row<F: Future<Output = ()> + Send + 'static>(
        &mut self,
        name: impl Into<String>,
        story: impl FnOnce(Case) -> F + Send + 'static,
    ) {
        let (case, running) = (self.scene.case(), self.running.clone());
        let row = tokio::spawn(async move {
            let _running = running.acquire_owned().await.unwrap();
            story(case).await;
        });
        self.rows.push((name.into(), row));
    }

    /// Waits for all rows, and fails if one failed.
    async fn finish(self) {
        let mut broken = Vec::new();
        for (name, row) in self.rows {
            if let Err(error) = row.await {
                broken.push(format!("{name}: {}", message(&*error.into_panic())));
            }
        }
        assert!(broken.is_empty(), "{broken:#?}");
        self.scene.assert_compliant();
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_default()
}

/// The peer does `act` in the first `times` calls of these operations, and complies otherwise.
fn at_first(
    what: &'static [&'static str],
    times: usize,
    act: Act,
) -> impl Fn(&Call) -> Act + Clone + Send + Sync + 'static {
    move |call| {
        if what.contains(&call.operation) && call.nth <= times {
            act.clone()
        } else {
            Act::Comply
        }
    }
}

fn always(what: &'static [&'static str], act: Act) -> impl Fn(&Call) -> Act + Clone + Send + Sync + 'static {
    at_first(what, usize::MAX, act)
}

fn retry_after(status: u16, value: &str) -> Act {
    let mut reply = Reply::text(status, "later");
    reply.headers = vec![("Retry-After", value.to_owned())];
    Act::Respond(reply)
}

fn rejection(subject: &str, reason: &str) -> Act {
    Act::json(200, &failed(subject, reason))
}

/// Responses that cannot be parsed, whether the call was executed or not.
fn unreadable() -> Vec<(&'static str, Act)> {
    let text = |status, body| Act::Respond(Reply::text(status, body));
    vec![
        ("HTML with 200", text(200, "<html>Please log in</html>")),
        ("half of a body", text(200, r#"{"id": "70000"#)),
        ("another object with 200", text(200, r#"{"ok": true}"#)),
        ("a redirect", text(302, "")),
        ("closed", Act::Close),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_about_our_own_failure_is_retried() {
    let mut table = Table::new(Scene::new(90, &[&QUICK]).await);
    let statuses = [401, 403, 404, 405, 407, 408, 415, 429, 500, 503];
    let mut acts: Vec<_> = statuses.map(|status| (status.to_string(), Act::status(status))).into();
    let html = Reply::text(401, "<html>401</html>");
    acts.push(("HTML with 401".to_owned(), Act::Respond(html)));
    acts.push(("429 with Retry-After".to_owned(), retry_after(429, "0")));
    acts.extend(unreadable().into_iter().map(|(name, act)| (name.to_owned(), act)));
    for (name, act) in acts {
        for esim in [false, true] {
            let act = act.clone();
            table.row(format!("network: {name}, eSIM {esim}"), move |case| async move {
                let looks = at_first(&["get"], 1, act.clone());
                let works = at_first(&["place", "search", "start"], 2, act);
                case.network().rule(&case.phone, move |call| {
                    if call.operation == "get" {
                        looks(call)
                    } else {
                        works(call)
                    }
                });
                case.to_done(esim).await;
            });
        }
        table.row(format!("SM-DP+: {name}"), move |case| async move {
            case.smdp()
                .rule(&case.esim, at_first(&["downloadOrder", "confirmOrder"], 2, act));
            case.esim_to_done().await;
        });
    }
    // ES2+ has only one status code for calls that it executed.
    let success = json!({"header": {"functionExecutionStatus": {"status": "Executed-Success"}}});
    for status in [201, 202, 400, 404, 409, 422] {
        let act = Act::json(status, &success);
        table.row(format!("SM-DP+: success with {status}"), move |case| async move {
            case.smdp()
                .rule(&case.esim, at_first(&["downloadOrder", "confirmOrder"], 2, act));
            case.esim_to_done().await;
        });
    }
    table.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_that_rejects_the_order_ends_the_swap() {
    let mut table = Table::new(Scene::new(20, &[&QUICK]).await);
    for status in [400, 422] {
        for esim in [false, true] {
            table.row(format!("{status}, eSIM {esim}"), move |case| async move {
                case.rule(always(&["place"], Act::status(status)));
                let id = match esim {
                    true => case.start_esim_swap().await,
                    false => case.start_card_swap(0).await,
                };
                case.await_error(&id, "networkRejected").await;
                assert_eq!(case.calls("place").len(), 1);
                assert!(case.service().mails(&id).is_empty());
                assert_eq!(case.smdp().state(&case.esim), "Available");
            });
        }
    }
    for (state, code) in [
        ("rejected", "networkRejected"),
        ("failed", "networkFailed"),
        ("cancelled", "networkCancelled"),
    ] {
        // The response to the order rejects it, or a later response to a search does.
        for at_once in [true, false] {
            table.row(format!("{state}, at once {at_once}"), move |case| async move {
                case.behaviour(|behaviour| {
                    behaviour.completes_after = None;
                    behaviour.sends_events = false;
                    if at_once {
                        behaviour.edit_order = Arc::new(move |order| order["state"] = json!(state));
                    }
                });
                let id = case.start_card_swap(0).await;
                case.await_order(&id).await;
                case.network().set(&id, state);
                case.await_error(&id, code).await;
            });
        }
    }
    table.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retry_after_is_honoured() {
    let mut table = Table::new(Scene::new(10, &[&QUICK]).await);
    let in_two_seconds = || {
        let then = Timestamp::now() + SignedDuration::from_secs(2);
        then.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
    };
    for what in ["place", "start", "downloadOrder", "confirmOrder"] {
        for status in [429, 503] {
            table.row(format!("{what}: {status}"), move |case| async move {
                let esim = what != "place";
                case.rule(move |call| match call.operation == what && call.nth == 1 {
                    true => retry_after(status, "1"),
                    false => Act::Comply,
                });
                case.to_done(esim).await;
                let calls = case.calls(what);
                let waited = calls[1].at - calls[0].at;
                // The table stores milliseconds.
                assert!(waited >= Duration::from_millis(990), "{waited:?}");
            });
        }
    }
    table.row("a date", move |case| async move {
        case.rule(move |call| match call.operation == "place" && call.nth == 1 {
            true => retry_after(503, &in_two_seconds()),
            false => Act::Comply,
        });
        case.card_to_done().await;
        let calls = case.calls("place");
        let waited = calls[1].at - calls[0].at;
        // The header has whole seconds.
        assert!(waited >= Duration::from_millis(990), "{waited:?}");
    });
    table.row("nonsense", move |case| async move {
        case.rule(at_first(&["place"], 1, retry_after(429, "soon")));
        case.card_to_done().await;
    });
    table.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_token_is_read_again() {
    let token = Arc::new(Mutex::new("old".to_owned()));
    let given = token.clone();
    let secrets = axum::Router::new().fallback(async move || {
        let token = given.lock().unwrap().clone();
        axum::Json(json!({"Name": "simswap/network", "SecretString": token}))
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, secrets).await });
    let settings = [
        ("AWS_ENDPOINT_URL_SECRETS_MANAGER", url.as_str()),
        ("NETWORK_TOKEN", "simswap/network"),
    ];
    let scene = Scene::new(3, &[&QUICK, &settings]).await;
    for (status, esim, before, after) in [
        (401, false, "old", "new"),
        (403, false, "new", "newer"),
        // The token changes while the eSIM waits for its phone.
        (401, true, "newer", "newest"),
    ] {
        let case = scene.case();
        let wanted = Arc::new(Mutex::new(format!("Bearer {before}")));
        let seen = wanted.clone();
        case.network().rule(&case.phone, move |call| {
            match call.authorization.as_ref() == Some(&*seen.lock().unwrap()) {
                true => Act::Comply,
                false => Act::status(status),
            }
        });
        let change = || {
            *wanted.lock().unwrap() = format!("Bearer {after}");
            after.clone_into(&mut token.lock().unwrap());
        };
        let id = if esim {
            let id = case.start_mailed_swap().await;
            change();
            case.install().await;
            id
        } else {
            change();
            case.start_card_swap(0).await
        };
        case.await_done(&id).await;
    }
    scene.assert_compliant();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_missing_in_searches_is_looked_up_by_its_id() {
    let mut table = Table::new(Scene::new(40, &[&QUICK]).await);
    let foreign = json!([{"id": "1", "externalId": "of-another", "state": "completed"}]);
    for (name, act) in [
        ("[]", Act::json(200, &json!([]))),
        ("404", Act::status(404)),
        (
            "404 with an Error",
            Act::json(404, &json!({"code": "60", "reason": "none"})),
        ),
        ("405", Act::status(405)),
        ("500", Act::status(500)),
        ("a foreign order", Act::json(200, &foreign)),
    ] {
        for esim in [false, true] {
            let act = act.clone();
            table.row(format!("events lost; {name}, eSIM {esim}"), move |case| async move {
                case.behaviour(|behaviour| {
                    behaviour.sends_events = false;
                    behaviour.completes_after = Some(Duration::from_millis(300));
                });
                case.rule(always(&["search"], act));
                case.to_done(esim).await;
            });
        }
    }
    for (name, act) in [("[]", Act::json(200, &json!([]))), ("404", Act::status(404))] {
        for esim in [false, true] {
            // The network has the order, and reports it with status code 409.
            let act = act.clone();
            table.row(
                format!("response lost; at first {name}, eSIM {esim}"),
                move |case| async move {
                    case.rule(move |call| match (call.operation, call.nth) {
                        ("place", 1) => Act::LoseResponse,
                        ("search", 1..=3) => act.clone(),
                        _ => Act::Comply,
                    });
                    case.to_done(esim).await;
                },
            );
        }
        for status in [400, 422] {
            let act = act.clone();
            table.row(
                format!("a card; response lost; {name}; its repeat rejected with {status}"),
                move |case| async move {
                    case.behaviour(|behaviour| {
                        behaviour.sends_events = false;
                        behaviour.completes_after = Some(Duration::from_millis(300));
                    });
                    case.rule(move |call| match (call.operation, call.nth) {
                        ("place", 1) => Act::LoseResponse,
                        ("place", _) => Act::status(status),
                        ("search", 1..=6) => act.clone(),
                        _ => Act::Comply,
                    });
                    case.card_to_done().await;
                },
            );
        }
        table.row(format!("response lost; {name}; an event"), move |case| async move {
            case.behaviour(|behaviour| behaviour.completes_after = Some(Duration::from_millis(500)));
            case.rule(move |call| match (call.operation, call.nth) {
                ("place", 1) => Act::LoseResponse,
                ("search", _) => act.clone(),
                _ => Act::Comply,
            });
            case.card_to_done().await;
        });
    }
    for (name, waits) in [
        ("a card", None),
        ("an eSIM that waits", Some(false)),
        ("an installed eSIM", Some(true)),
    ] {
        table.row(format!("{name}: 404 once"), move |case| async move {
            case.behaviour(|behaviour| {
                behaviour.sends_events = false;
                behaviour.completes_after = Some(Duration::from_millis(300));
            });
            case.rule(move |call| match (call.operation, call.nth) {
                ("search", _) => Act::json(200, &json!([])),
                ("get", 1) => Act::status(404),
                _ => Act::Comply,
            });
            case.to_done(waits.is_some()).await;
        });
        table.row(format!("{name}: the order is gone"), move |case| async move {
            case.behaviour(|behaviour| {
                behaviour.sends_events = false;
                behaviour.completes_after = None;
            });
            let id = match waits {
                None => case.start_card_swap(0).await,
                Some(_) => case.start_mailed_swap().await,
            };
            case.record(&id, |record| record.order_number.is_some()).await;
            if waits == Some(true) {
                case.install().await;
                case.record(&id, |record| record.phase == Phase::Started).await;
            }
            case.network().forget(&id);
            let sim = case.await_error(&id, "networkFailed").await;
            let on_phone = waits == Some(true);
            assert_eq!(sim.state.as_str() == "DISABLED", on_phone);
            // One failed lookup is not enough.
            assert!(case.calls("get").len() >= 2);
        });
    }
    table.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swap_does_not_wait_for_ever() {
    let mut table = Table::new(Scene::new(30, &[&QUICK, &SHORT_SETTLE]).await);
    for (subject, reason) in [("8.2.6", "3.10"), ("8.8.5", "4.10"), ("8.2.1", "1.2"), ("9.9", "9.9")] {
        table.row(format!("cancelOrder: {subject}/{reason}"), move |case| async move {
            case.rule(always(&["cancelOrder"], rejection(subject, reason)));
            let id = case.start_mailed_swap().await;
            case.cancel(&id).await;
            case.assert_unsettled(&id).await;
            assert_eq!(case.network().state(&id), "cancelled");
        });
    }
    for (name, act) in [
        ("503", Act::status(503)),
        ("silence", Act::Close),
        ("401", Act::status(401)),
    ] {
        let there = act.clone();
        table.row(format!("cancelOrder: {name}"), move |case| async move {
            case.rule(always(&["cancelOrder"], act));
            let id = case.start_mailed_swap().await;
            case.cancel(&id).await;
            case.assert_unsettled(&id).await;
        });
        table.row(
            format!("the network after the install: {name}"),
            move |case| async move {
                let id = case.start_mailed_swap().await;
                case.rule(always(&["start", "get", "search", "cancel"], there));
                case.install().await;
                case.assert_unsettled(&id).await;
            },
        );
    }
    for status in [409, 422, 400, 404] {
        table.row(format!("PATCH: {status}"), move |case| async move {
            case.rule(always(&["start"], Act::status(status)));
            // This network does not cancel an order either.
            case.behaviour(|behaviour| behaviour.cancel_to = "held");
            let id = case.start_mailed_swap().await;
            case.install().await;
            let ended = case.await_end(&id).await;
            let code = ended.failure.map_or("", |failure| failure.as_str());
            match status {
                409 | 404 => case.assert_unsettled(&id).await,
                // The swap ends, whether the response rejects the start or a failure is ours.
                _ => assert!(["unsettled", "networkRejected"].contains(&code), "{code}"),
            }
            assert_eq!(case.service().sim(&case.esim).await.state.as_str(), "DISABLED");
        });
    }
    table.row("cancelServiceOrder: 409", move |case| async move {
        case.rule(always(&["cancel"], Act::status(409)));
        let id = case.start_mailed_swap().await;
        case.cancel(&id).await;
        case.assert_unsettled(&id).await;
    });
    for state in ["assessingCancellation", "pendingCancellation"] {
        table.row(state, move |case| async move {
            case.behaviour(|behaviour| behaviour.cancel_to = state);
            let id = case.start_mailed_swap().await;
            case.cancel(&id).await;
            case.assert_unsettled(&id).await;
            assert_eq!(case.calls("cancel").len(), 1, "one cancel is enough");
        });
    }
    for (name, shown) in [("inProgress for ever", None), ("an unknown state", Some("parked"))] {
        for esim in [false, true] {
            table.row(format!("{name}, eSIM {esim}"), move |case| async move {
                case.behaviour(|behaviour| {
                    behaviour.completes_after = None;
                    behaviour.edit_order = Arc::new(move |order| {
                        if let Some(shown) = shown.filter(|_| order["state"] == "inProgress") {
                            order["state"] = json!(shown);
                        }
                    });
                });
                let id = if esim {
                    let id = case.start_mailed_swap().await;
                    case.install().await;
                    id
                } else {
                    case.start_card_swap(0).await
                };
                case.assert_unsettled(&id).await;
                assert_eq!(case.network().orders(&id).len(), 1);
            });
        }
    }
    table.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pending_cancel_at_the_network_is_awaited() {
    let mut table = Table::new(Scene::new(4, &[&QUICK]).await);
    for state in ["assessingCancellation", "pendingCancellation"] {
        for to in ["cancelled", "held"] {
            table.row(format!("{state}, then {to}"), move |case| async move {
                case.behaviour(|behaviour| behaviour.cancel_to = state);
                let id = case.start_mailed_swap().await;
                case.cancel(&id).await;
                let looked = || async { (case.calls("get").len() + case.calls("search").len() > 4).then_some(()) };
                assert!(until(looked).await.is_some(), "{}", case.describe(&id).await);
                assert_eq!(case.calls("cancel").len(), 1, "one cancel is enough");
                case.comply();
                // The network did not cancel the order after all, so the function sends another cancel.
                case.network().set(&id, to);
                case.await_error(&id, "cancelled").await;
                assert_eq!(case.network().state(&id), "cancelled");
                let asked = if to == "held" { 2 } else { 1 };
                assert_eq!(case.calls("cancel").len(), asked);
            });
        }
    }
    table.finish().await;
}

/// Rewrites an order in an equivalent spelling.
type Spelling = Arc<dyn Fn(&mut Value) + Send + Sync>;

fn spellings() -> Vec<(&'static str, Spelling)> {
    type Change = Arc<dyn Fn(&mut Value) + Send + Sync>;
    fn states(spell: fn(&str) -> String) -> Change {
        Arc::new(move |order| {
            order["state"] = json!(spell(order["state"].as_str().unwrap()));
            let item = &mut order["serviceOrderItem"][0]["state"];
            *item = json!(spell(item.as_str().unwrap()));
        })
    }
    fn dates(spell: fn(Timestamp) -> Value) -> Change {
        Arc::new(move |order| {
            for name in ["orderDate", "startDate", "completionDate", "cancellationDate"] {
                if let Some(date) = order[name].as_str() {
                    order[name] = spell(date.parse().unwrap());
                }
            }
            order
                .as_object_mut()
                .unwrap()
                .retain(|name, value| !name.ends_with("Date") || !value.is_null());
        })
    }
    fn titled(state: &str) -> String {
        state[..1].to_uppercase() + &state[1..]
    }
    let nulls: Change = Arc::new(|order| {
        let shown = ["id", "state", "externalId"];
        for (name, value) in order.as_object_mut().unwrap() {
            if !shown.contains(&name.as_str()) {
                *value = Value::Null;
            }
        }
        for name in ["completionDate", "note", "relatedParty", "milestone", "errorMessage"] {
            order[name] = Value::Null;
        }
    });
    let inner_nulls: Change = Arc::new(|order| {
        let item = &mut order["serviceOrderItem"][0];
        for name in ["id", "action", "state", "service", "quantity", "@type"] {
            item[name] = Value::Null;
        }
    });
    let service_nulls: Change = Arc::new(|order| {
        let service = &mut order["serviceOrderItem"][0]["service"];
        service["serviceCharacteristic"] = json!([null, {"name": null, "value": null, "valueType": null}]);
        service["serviceType"] = Value::Null;
    });
    let numbers: Change = Arc::new(|order| {
        order["id"] = json!(order["id"].as_str().unwrap().parse::<u64>().unwrap());
        order["serviceOrderItem"][0]["id"] = json!(1);
        order["priority"] = json!(4);
    });
    let unknown: Change = Arc::new(|order| {
        order["vendor"] = json!({"deep": [{"id": 1, "state": "failed"}]});
        order["serviceOrderItem"][0]["vendor"] = json!([[]]);
        order["serviceOrderItem"][0]["service"]["vendor"] = json!("x");
    });
    let no_external_id: Change = Arc::new(|order| {
        order.as_object_mut().unwrap().remove("externalId");
    });
    let bare: Change = Arc::new(|order| {
        let kept = ["id", "state", "externalId"];
        order
            .as_object_mut()
            .unwrap()
            .retain(|name, _| kept.contains(&name.as_str()));
    });
    let foreign_types: Change = Arc::new(|order| {
        order["href"] = json!(7);
        order["category"] = json!(["SIMSWAP"]);
        order["serviceOrderItem"] = json!("one");
    });
    vec![
        ("plain", Arc::new(|_: &mut Value| {}) as Change),
        ("nulls", nulls),
        ("nulls in the item", inner_nulls),
        ("nulls in the service", service_nulls),
        ("numbers for ids", numbers),
        ("unknown fields", unknown),
        ("no externalId", no_external_id),
        ("without the optional fields", bare),
        ("other types in unused fields", foreign_types),
        ("Completed", states(titled)),
        ("COMPLETED", states(str::to_uppercase)),
        ("spaces around the state", states(|state| format!(" {state} "))),
        ("milliseconds", dates(|at| json!(at.as_millisecond()))),
        (
            "milliseconds in digits",
            dates(|at| json!(at.as_millisecond().to_string())),
        ),
        ("seconds", dates(|at| json!(at.as_second()))),
        (
            "no zone",
            dates(|at| json!(at.strftime("%Y-%m-%dT%H:%M:%S").to_string())),
        ),
        (
            "a space for the T",
            dates(|at| json!(at.strftime("%Y-%m-%d %H:%M:%SZ").to_string())),
        ),
        (
            "an offset without colon",
            dates(|at| json!(at.strftime("%Y-%m-%dT%H:%M:%S+0000").to_string())),
        ),
        ("a day", dates(|at| json!(at.strftime("%Y-%m-%d").to_string()))),
        (
            "a date of Java",
            dates(|at| json!(at.strftime("%a %b %d %H:%M:%S UTC %Y").to_string())),
        ),
        ("nonsense", dates(|_| json!("soon"))),
        ("an object for a date", dates(|_| json!({"epoch": 1}))),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_in_a_response_is_read_in_every_spelling() {
    let mut table = Table::new(Scene::new(60, &[&QUICK]).await);
    for (name, change) in spellings() {
        for esim in [false, true] {
            let dress = change.clone();
            table.row(format!("{name}, eSIM {esim}"), move |case| async move {
                case.behaviour(|behaviour| {
                    behaviour.sends_events = false;
                    behaviour.completes_after = Some(Duration::from_millis(200));
                    behaviour.edit_order = dress;
                });
                case.to_done(esim).await;
            });
        }
    }
    // The first response is lost, so the function has to find the order in a list.
    type EditText = fn(&mut String);
    let lists: [(&str, EditText); 5] = [
        ("a byte order mark", |list| list.insert(0, '\u{feff}')),
        ("foreign orders that cannot be parsed", |list| {
            let foreign = r#"[{"id":null,"state":7,"serviceOrderItem":"x"},{"id":{"a":1}},{"externalId":5},"#;
            list.replace_range(..1, foreign);
        }),
        ("other things", |list| list.replace_range(..1, r#"[null,7,"x",[],{},"#)),
        ("white space", |list| *list = format!("\r\n {list} \n")),
        ("our order twice", |list| {
            let order = list[1..list.len() - 1].to_owned();
            if !order.is_empty() {
                *list = format!("[{order},{order}]");
            }
        }),
    ];
    for (name, edit) in lists {
        table.row(format!("a list with {name}"), move |case| async move {
            case.rule(move |call| match (call.operation, call.nth) {
                ("place", 1) => Act::LoseResponse,
                ("search", _) => Act::edit(edit),
                _ => Act::Comply,
            });
            case.card_to_done().await;
        });
    }
    table.row("a byte order mark before every response", move |case| async move {
        case.rule(|_| Act::edit(|body| body.insert(0, '\u{feff}')));
        case.esim_to_done().await;
    });
    table.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_in_an_event_is_read_in_every_spelling() {
    let mut table = Table::new(Scene::new(60, &[&QUICK, &EVENTS_ONLY]).await);
    for (name, change) in spellings() {
        for esim in [false, true] {
            let dress = change.clone();
            table.row(format!("{name}, eSIM {esim}"), move |case| async move {
                case.behaviour(|behaviour| {
                    // Late enough not to overtake the response.
                    behaviour.completes_after = Some(Duration::from_millis(700));
                    behaviour.edit_order = dress;
                });
                case.to_done(esim).await;
            });
        }
    }
    table.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_is_read_in_every_shape() {
    type Shape = fn(Value) -> String;
    fn order(event: &Value) -> &Value {
        &event["event"]["serviceOrder"]
    }
    fn without(mut event: Value, names: &[&str]) -> Value {
        event
            .as_object_mut()
            .unwrap()
            .retain(|name, _| !names.contains(&name.as_str()));
        event
    }
    let shapes: [(&str, Shape); 19] = [
        ("plain", |event| event.to_string()),
        ("a byte order mark", |event| format!("\u{feff}{event}")),
        ("no externalId", |mut event| {
            event["event"]["serviceOrder"]
                .as_object_mut()
                .unwrap()
                .remove("externalId");
            event.to_string()
        }),
        ("externalId null", |mut event| {
            event["event"]["serviceOrder"]["externalId"] = Value::Null;
            event.to_string()
        }),
        ("only id and state", |event| {
            let order = order(&event);
            json!({"event": {"serviceOrder": {"id": order["id"], "state": order["state"]}}}).to_string()
        }),
        ("the order at the event's top", |event| {
            json!({"eventId": "1", "eventType": "ServiceOrderStateChangeEvent", "event": order(&event)}).to_string()
        }),
        ("the order at the body's top", |event| {
            json!({"eventId": "1", "eventType": "ServiceOrderStateChangeEvent", "serviceOrder": order(&event)})
                .to_string()
        }),
        ("the order as the body", |event| order(&event).to_string()),
        ("the order in a resource", |event| {
            let mut shaped = without(event.clone(), &["event"]);
            shaped["event"] = json!({"resource": order(&event), "serviceOrder": order(&event)});
            shaped.to_string()
        }),
        ("only an id in an object", |event| {
            json!({"eventId": "1", "event": {"serviceOrder": {"id": order(&event)["id"]}}}).to_string()
        }),
        ("only an id", |event| {
            json!({"eventId": "1", "event": {"serviceOrder": order(&event)["id"]}}).to_string()
        }),
        ("only an id, as a number", |event| {
            let id: u64 = order(&event)["id"].as_str().unwrap().parse().unwrap();
            json!({"eventId": 1, "event": {"serviceOrder": id}}).to_string()
        }),
        ("an id and an href", |event| {
            let order = order(&event);
            json!({"eventId": "1", "event": {"serviceOrder": {"id": order["id"], "href": order["href"]}}}).to_string()
        }),
        ("ids as numbers", |mut event| {
            let id: u64 = order(&event)["id"].as_str().unwrap().parse().unwrap();
            event["event"]["serviceOrder"]["id"] = json!(id);
            event["eventId"] = json!(77);
            event.to_string()
        }),
        ("nulls around", |mut event| {
            for (name, value) in event.as_object_mut().unwrap() {
                if name != "event" {
                    *value = Value::Null;
                }
            }
            event.to_string()
        }),
        ("nothing around", |event| json!({"event": event["event"]}).to_string()),
        ("eventTime nonsense", |mut event| {
            event["eventTime"] = json!("soon");
            event["timeOcurred"] = json!(1);
            event.to_string()
        }),
        ("capitals", |mut event| {
            event["event"]["serviceOrder"]["state"] = json!("COMPLETED");
            event.to_string()
        }),
        ("partial with one item", |mut event| {
            event["event"]["serviceOrder"]["state"] = json!("Partial");
            event.to_string()
        }),
    ];
    let mut table = Table::new(Scene::new(22, &[&QUICK, &EVENTS_ONLY]).await);
    for (name, shape) in shapes {
        table.row(name, move |case| async move {
            case.behaviour(|behaviour| {
                behaviour.sends_events = false;
                behaviour.completes_after = None;
            });
            let id = case.start_card_swap(0).await;
            case.record(&id, |record| record.order_number.is_some()).await;
            case.network().set(&id, "completed");
            let event = case.network().event(&id);
            let status = case.network().notify_order(&shape(event)).await;
            assert_eq!(status, 201);
            case.await_done(&id).await;
        });
    }
    table.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_of_the_smdp_is_read_in_every_spelling() {
    const STATUS: &str = "/header/functionExecutionStatus";
    type Change = fn(&mut Value);
    let changes: [(&str, Change); 13] = [
        ("plain", |_| {}),
        ("executed-success", |body| {
            body.pointer_mut(STATUS).unwrap()["status"] = json!("executed-success");
        }),
        ("EXECUTED-SUCCESS", |body| {
            body.pointer_mut(STATUS).unwrap()["status"] = json!("EXECUTED-SUCCESS");
        }),
        ("a warning", |body| {
            *body.pointer_mut(STATUS).unwrap() = json!({
                "status": "Executed-WithWarning",
                "statusCodeData": {"subjectCode": "8.2.9", "reasonCode": "4.3", "message": "noted"},
            });
        }),
        ("statusCodeData {}", |body| {
            body.pointer_mut(STATUS).unwrap()["statusCodeData"] = json!({});
        }),
        ("statusCodeData null", |body| {
            body.pointer_mut(STATUS).unwrap()["statusCodeData"] = Value::Null;
        }),
        ("statusCodeData of nulls", |body| {
            body.pointer_mut(STATUS).unwrap()["statusCodeData"] =
                json!({"subjectCode": null, "reasonCode": null, "subjectIdentifier": null, "message": null});
        }),
        ("statusCodeData partial", |body| {
            body.pointer_mut(STATUS).unwrap()["statusCodeData"] = json!({"message": "fine"});
        }),
        ("nulls", |body| {
            for name in ["eid", "iccid", "matchingId", "smdpAddress", "smdsAddress"] {
                body[name] = Value::Null;
            }
        }),
        ("without the optional fields", |body| {
            body.as_object_mut().unwrap().retain(|name, _| name == "header");
        }),
        ("unknown fields", |body| {
            body["header"]["functionExecutionStatus"]["vendor"] = json!([1]);
            body["vendor"] = json!({"status": "Failed"});
        }),
        ("numbers", |body| {
            let number = body["iccid"]
                .as_str()
                .map(|iccid| iccid.trim_end_matches('F').parse::<u64>().unwrap());
            if let Some(number) = number {
                body["iccid"] = json!(number);
            }
        }),
        ("a lower case filler", |body| {
            if let Some(iccid) = body["iccid"].as_str() {
                body["iccid"] = json!(iccid.to_lowercase());
            }
        }),
    ];
    let mut table = Table::new(Scene::new(20, &[&QUICK]).await);
    for (name, change) in changes {
        table.row(name, move |case| async move {
            case.smdp().edit_responses(&case.esim, Arc::new(change));
            case.esim_to_done().await;
            assert_eq!(case.calls("downloadOrder").len(), 1);
            assert_eq!(case.calls("confirmOrder").len(), 1);
        });
    }
    // A rejection without a known code is transient.
    for (name, data) in [
        ("none", None),
        ("{}", Some(json!({}))),
        ("null", Some(Value::Null)),
        ("nulls", Some(json!({"subjectCode": null, "reasonCode": null}))),
        ("a subject alone", Some(json!({"subjectCode": "8.2.1"}))),
    ] {
        table.row(format!("Failed with statusCodeData {name}"), move |case| async move {
            let mut body = json!({"header": {"functionExecutionStatus": {"status": "FAILED"}}});
            if let Some(data) = data {
                body["header"]["functionExecutionStatus"]["statusCodeData"] = data;
            }
            let act = Act::json(200, &body);
            case.rule(at_first(&["downloadOrder", "confirmOrder"], 1, act));
            case.esim_to_done().await;
        });
    }
    table.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_of_the_smdp_is_read_in_every_spelling() {
    type Change = fn(&mut Value);
    fn dated(body: &mut Value, spell: fn(Timestamp) -> Value) {
        body["timestamp"] = spell(Timestamp::now());
    }
    fn without(body: &mut Value, name: &str) {
        body.as_object_mut().unwrap().remove(name);
    }
    let changes: [(&str, Change); 30] = [
        ("plain", |_| {}),
        ("no header", |body| without(body, "header")),
        ("header null", |body| body["header"] = Value::Null),
        ("header {}", |body| body["header"] = json!({})),
        ("header of nulls", |body| {
            body["header"] = json!({"functionRequesterIdentifier": null, "functionCallIdentifier": null});
        }),
        ("no profileType", |body| without(body, "profileType")),
        ("profileType null", |body| body["profileType"] = Value::Null),
        ("no eid", |body| without(body, "eid")),
        ("eid null", |body| body["eid"] = Value::Null),
        ("resultData null", |body| body["resultData"] = Value::Null),
        ("no timestamp", |body| without(body, "timestamp")),
        ("timestamp null", |body| body["timestamp"] = Value::Null),
        ("milliseconds", |body| dated(body, |at| json!(at.as_millisecond()))),
        ("milliseconds in digits", |body| {
            dated(body, |at| json!(at.as_millisecond().to_string()))
        }),
        ("seconds", |body| dated(body, |at| json!(at.as_second()))),
        ("seconds with a fraction", |body| {
            dated(body, |at| json!(at.as_millisecond() as f64 / 1000.0))
        }),
        ("no zone", |body| {
            dated(body, |at| json!(at.strftime("%Y-%m-%dT%H:%M:%S").to_string()))
        }),
        ("a space for the T", |body| {
            dated(body, |at| json!(at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()))
        }),
        ("a space and no zone", |body| {
            dated(body, |at| json!(at.strftime("%Y-%m-%d %H:%M:%S").to_string()))
        }),
        ("an offset without colon", |body| {
            dated(body, |at| json!(at.strftime("%Y-%m-%dT%H:%M:%S+0000").to_string()));
        }),
        ("pySim's date", |body| {
            dated(body, |at| json!(at.strftime("%Y-%m-%dT%H:%M:%S.%6f+00:00").to_string()))
        }),
        ("nonsense", |body| dated(body, |_| json!("soon"))),
        ("an object for a date", |body| dated(body, |_| json!({"epoch": 1}))),
        ("timeStamp", |body| {
            without(body, "timestamp");
            body["timeStamp"] = json!(Timestamp::now().as_millisecond());
        }),
        ("point in digits", |body| body["notificationPointId"] = json!("4")),
        ("executed-success", |body| {
            body["notificationPointStatus"]["status"] = json!("executed-success");
        }),
        ("statusCodeData {}", |body| {
            body["notificationPointStatus"]["statusCodeData"] = json!({});
        }),
        ("statusCodeData null", |body| {
            body["notificationPointStatus"]["statusCodeData"] = Value::Null;
        }),
        ("iccid a number", |body| {
            let iccid = body["iccid"].as_str().unwrap().trim_end_matches('F');
            body["iccid"] = json!(iccid.parse::<u64>().unwrap());
        }),
        ("unknown fields", |body| {
            body["tac"] = json!("35000000");
            body["checkPoint"] = json!(null);
            body["notificationPointStatus"]["vendor"] = json!({});
        }),
    ];
    let mut table = Table::new(Scene::new(40, &[&QUICK]).await);
    for (name, change) in changes {
        table.row(name, move |case| async move {
            let id = case.start_mailed_swap().await;
            case.smdp().set(&case.esim, "Installed");
            let status = case.smdp().notify_progress(&case.esim, 4, change).await;
            assert_eq!(status, 204);
            case.await_done(&id).await;
        });
    }
    type Text = fn(String) -> String;
    let texts: [(&str, Text); 2] = [
        ("a byte order mark", |body| format!("\u{feff}{body}")),
        ("white space", |body| format!("\r\n{body}\n")),
    ];
    for (name, text) in texts {
        table.row(name, move |case| async move {
            let id = case.start_mailed_swap().await;
            case.smdp().set(&case.esim, "Installed");
            let body = text(case.smdp().progress(&case.esim, 4).to_string());
            let status = case.smdp().notify("handleDownloadProgressInfo", &body).await;
            assert_eq!(status, 204);
            case.await_done(&id).await;
        });
    }
    table.row(
        "a failure with statusCodeData {} is none that we know",
        move |case| async move {
            let id = case.start_mailed_swap().await;
            let failure = |body: &mut Value| {
                body["notificationPointStatus"] = json!({"status": "Failed", "statusCodeData": {}});
            };
            assert_eq!(case.smdp().notify_progress(&case.esim, 2, failure).await, 204);
            case.install().await;
            case.await_done(&id).await;
        },
    );
    table.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_address_of_the_smdp_is_the_one_in_the_code() {
    let mut table = Table::new(Scene::new(30, &[&QUICK]).await);
    for (given, expected) in [
        (json!("smdp.foreign.example"), "smdp.foreign.example"),
        (json!("smdp.foreign.example:8443"), "smdp.foreign.example:8443"),
        (json!("SMDP.FOREIGN.EXAMPLE"), "smdp.foreign.example"),
        (json!("Smdp.Foreign.Example:8443"), "smdp.foreign.example:8443"),
        (json!(" smdp.foreign.example "), "smdp.foreign.example"),
        (json!("smdp.foreign.example\r\n"), "smdp.foreign.example"),
        (json!("https://smdp.foreign.example"), "smdp.foreign.example"),
        (json!("https://smdp.foreign.example/"), "smdp.foreign.example"),
        (
            json!("HTTPS://smdp.foreign.example:8443/gsma/rsp2"),
            "smdp.foreign.example:8443",
        ),
        (json!(null), "smdp.example.test"),
    ] {
        table.row(format!("{given}"), move |case| async move {
            case.smdp().edit_responses(
                &case.esim,
                Arc::new(move |body| {
                    if body.get("smdpAddress").is_some() {
                        body["smdpAddress"] = given.clone();
                    }
                }),
            );
            let id = case.start_esim_swap().await;
            let code = activation_code(&case.await_mail(&id).await).to_lowercase();
            assert_eq!(code.split('$').nth(1), Some(expected), "{code}");
        });
    }
    for given in [
        "not an address",
        "smdp$evil.example",
        "smdp.foreign.example$1",
        "smdp.foreign.example:99999",
        "smdp.foreign.example:port",
        "https://",
        "smdp..example",
        "-",
        "smdp_foreign.example/with/a path",
    ] {
        table.row(format!("{given:?} is none"), move |case| async move {
            case.smdp().edit_responses(
                &case.esim,
                Arc::new(move |body| {
                    if body.get("smdpAddress").is_some() {
                        body["smdpAddress"] = json!(given);
                    }
                }),
            );
            let id = case.start_esim_swap().await;
            case.await_error(&id, "profileRefused").await;
            assert!(case.service().mails(&id).is_empty());
            assert_eq!(case.smdp().state(&case.esim), "Available");
        });
    }
    table.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_waits_for_an_interrupted_call() {
    let settings = [("LEASE", "2s")];
    let mut table = Table::new(Scene::new(8, &[&QUICK, &settings]).await);
    let (closed, hangs) = (Duration::from_millis(1300), Duration::from_secs(3));
    for (name, what, act) in [
        ("the order", "place", Act::Late(hangs)),
        ("the response to the order", "place", Act::RespondLate(hangs)),
        (
            "the order, and the connection is closed",
            "place",
            Act::ExecuteLater(closed, hangs),
        ),
        ("downloadOrder", "downloadOrder", Act::Late(hangs)),
        ("confirmOrder", "confirmOrder", Act::Late(hangs)),
    ] {
        table.row(name, move |case| async move {
            case.rule(move |call| match call.operation == what && call.nth == 1 {
                true => act.clone(),
                false => Act::Comply,
            });
            let id = case.start_esim_swap().await;
            let received = || async { case.calls(what).pop() };
            let received = until(received).await.expect("the call arrives");
            case.cancel(&id).await;
            case.await_error(&id, "cancelled").await;
            // The abandoned call is executed by this time.
            tokio::time::sleep((hangs * 2).saturating_sub(received.at.elapsed())).await;
            let settled = || async {
                let ordered = ["", "cancelled"].contains(&case.network().state(&id).as_str());
                let taken_back = case.smdp().state(&case.esim) == "Available";
                (ordered && taken_back).then_some(())
            };
            let leftover = (case.network().state(&id), case.smdp().state(&case.esim));
            assert!(until(settled).await.is_some(), "remains at the peers: {leftover:?}");
            assert!(case.service().mails(&id).is_empty());
        });
    }
    table.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_starts_early_keeps_the_mail() {
    let mut table = Table::new(Scene::new(3, &[&QUICK]).await);
    for with_event in [false, true] {
        table.row(format!("with an event: {with_event}"), move |case| async move {
            if !with_event {
                let starts = |body: &mut String| *body = body.replace("held", "inProgress");
                case.rule(always(&["place"], Act::edit(starts)));
            }
            let id = case.start_esim_swap().await;
            case.await_order(&id).await;
            case.network().set(&id, "inProgress");
            if with_event {
                case.record(&id, |record| record.order_number.is_some()).await;
                let event = case.network().event(&id).to_string();
                assert_eq!(case.network().notify_order(&event).await, 201);
            }
            case.await_mail(&id).await;
            let service = case.service();
            // The resend gets 429 while the first mail is on its way.
            let resent = || async {
                let response = service.manage(&service.admin(), "ResendEsim", &id, "").await;
                (response.status != 429).then_some(response)
            };
            let response = until(resent).await.expect("the first mail is sent");
            assert_eq!(response.status, 200, "{response:?}");
            case.install().await;
            assert_eq!(case.network().set_and_notify(&id, "completed").await, 201);
            case.await_done(&id).await;
            assert_eq!(service.mails(&id).len(), 2);
            // The same request again would count as a repeat of the first.
            let other = r#"{"email":"other@example.com"}"#;
            let late = service.manage(&service.admin(), "ResendEsim", &id, other).await;
            assert_eq!(late.status, 409, "{late:?}");
        });
    }
    table.row(
        "the response says inProgress, and the order is held",
        move |case| async move {
            let starts = |body: &mut String| *body = body.replace("held", "inProgress");
            case.rule(always(&["place"], Act::edit(starts)));
            let id = case.start_esim_swap().await;
            case.await_order(&id).await;
            case.await_mail(&id).await;
            case.install().await;
            case.await_done(&id).await;
            assert_eq!(case.calls("start").len(), 1);
        },
    );
    table.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_overtakes_the_response_counts() {
    let mut table = Table::new(Scene::new(8, &[&QUICK, &EVENTS_ONLY]).await);
    let late = Duration::from_millis(800);
    for (what, esim) in [("place", false), ("start", true)] {
        table.row(
            format!("completed before the response to {what}"),
            move |case| async move {
                case.rule(always(
                    if esim { &["start"] } else { &["place"] },
                    Act::RespondLate(late),
                ));
                case.to_done(esim).await;
            },
        );
    }
    for (state, esim, code) in [
        ("failed", false, "networkFailed"),
        ("rejected", false, "networkRejected"),
        ("cancelled", true, "networkCancelled"),
        ("failed", true, "networkFailed"),
    ] {
        table.row(
            format!("{state} before the response to the order, eSIM {esim}"),
            move |case| async move {
                case.rule(always(&["place"], Act::RespondLate(late)));
                case.behaviour(|behaviour| {
                    behaviour.completes_after = None;
                    // The response has the order's state at the time when the network accepted it.
                    behaviour.edit_order =
                        Arc::new(move |order| order["state"] = json!(if esim { "held" } else { "inProgress" }));
                });
                let id = match esim {
                    true => case.start_esim_swap().await,
                    false => case.start_card_swap(0).await,
                };
                case.await_order(&id).await;
                case.network().set(&id, state);
                let mut event = case.network().event(&id);
                event["event"]["serviceOrder"]["state"] = json!(state);
                assert_eq!(case.network().notify_order(&event.to_string()).await, 201);
                // Later lookups return the current state.
                case.behaviour(|behaviour| behaviour.completes_after = None);
                case.await_error(&id, code).await;
            },
        );
    }
    table.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_number_of_failed_attempts_is_allowed() {
    let mut table = Table::new(Scene::new(30, &[&QUICK]).await);
    for times in [9, 20] {
        for what in ["place", "start", "downloadOrder", "confirmOrder"] {
            for (name, act) in [
                ("503", Act::status(503)),
                ("401", Act::status(401)),
                ("silence", Act::Close),
            ] {
                table.row(format!("{what}: {times} times {name}"), move |case| async move {
                    case.rule(move |call| match call.operation == what && call.nth <= times {
                        true => act.clone(),
                        false => Act::Comply,
                    });
                    case.to_done(what != "place").await;
                    assert!(case.calls(what).len() > times);
                });
            }
        }
    }
    table.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swap_that_cannot_be_ordered_in_time_is_unavailable() {
    let settings = [("CALL_REST", "1s")];
    let mut table = Table::new(Scene::new(10, &[&QUICK, &SHORT_ORDER, &settings]).await);
    for (what, name, act) in [
        ("place", "503", Act::status(503)),
        ("place", "401", Act::status(401)),
        ("place", "404", Act::status(404)),
        ("downloadOrder", "503", Act::status(503)),
        ("confirmOrder", "403", Act::status(403)),
        ("confirmOrder", "8.9/5.1", rejection("8.9", "5.1")),
    ] {
        table.row(format!("{what}: {name} for ever"), move |case| async move {
            case.rule(move |call| match call.operation == what {
                true => act.clone(),
                false => Act::Comply,
            });
            let id = case.start_esim_swap().await;
            assert_leaves(&case, &id, "unavailable", Left::Rests(SIM_REST)).await;
            assert!(case.service().mails(&id).is_empty());
        });
    }
    table.finish().await;
}

/// Asserts that the swap and the line show that the network and the table disagree.
async fn assert_disputed(case: &Case, id: &str, line: &str) {
    let flagged = || async {
        let rows = case.service().rows();
        let row = |pk: String, sk: &str| {
            let key = [pk, sk.to_owned()].map(AttributeValue::S);
            rows.iter().find(|row| row["pk"] == key[0] && row["sk"] == key[1])
        };
        let swap = row(format!("A#{id}"), "activation")?;
        let line = row(format!("L#{line}"), "line")?;
        let both = swap.get("disputed") == Some(&AttributeValue::BOOL(true))
            && line.get("disputed") == Some(&AttributeValue::S(id.to_owned()));
        both.then_some(())
    };
    let flagged = until(flagged).await;
    assert!(flagged.is_some(), "not disputed: {}", case.describe(id).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_completion_after_the_end_counts() {
    async fn to_error(case: &Case, number: usize) -> String {
        case.behaviour(|behaviour| behaviour.completes_after = None);
        let id = case.start_card_swap(number).await;
        case.record(&id, |record| record.order_number.is_some()).await;
        assert_eq!(case.network().set_and_notify(&id, "failed").await, 201);
        case.await_error(&id, "networkFailed").await;
        case.comply();
        id
    }
    async fn complete(case: &Case, id: &str) {
        assert_eq!(case.network().set_and_notify(id, "completed").await, 201);
    }
    async fn becomes_done(case: &Case, id: &str) {
        let record = case.record(id, |record| record.phase == Phase::Done).await;
        case.await_done(id).await;
        let seen = case.service().activation(id).await;
        assert_eq!(seen["status"], "DONE", "{seen}");
        assert!(seen["info"].get("failure").is_none(), "{seen}");
        assert!(seen["activatedDate"].is_string(), "{seen}");
        // The old SIM is in the same state as after any other swap.
        let old = case.service().sim(record.old_sim.as_str()).await;
        assert_eq!(old.state.as_str(), "DISABLED");
    }
    let mut table = Table::new(Scene::new(10, &[&QUICK, &SHORT_SETTLE]).await);
    table.row("failed, then completed", |case| async move {
        let id = to_error(&case, 0).await;
        complete(&case, &id).await;
        becomes_done(&case, &id).await;
        // A repeated event changes nothing, and the line can be swapped again.
        complete(&case, &id).await;
        becomes_done(&case, &id).await;
        let next = case.start_card_swap(1).await;
        case.await_done(&next).await;
    });
    table.row("without externalId", |case| async move {
        let id = to_error(&case, 0).await;
        case.network().set(&id, "completed");
        let mut event = case.network().event(&id);
        event["event"]["serviceOrder"]
            .as_object_mut()
            .unwrap()
            .remove("externalId");
        assert_eq!(case.network().notify_order(&event.to_string()).await, 201);
        becomes_done(&case, &id).await;
    });
    table.row("unsettled, then completed", |case| async move {
        case.behaviour(|behaviour| behaviour.completes_after = None);
        let id = case.start_card_swap(0).await;
        case.await_error(&id, "unsettled").await;
        complete(&case, &id).await;
        becomes_done(&case, &id).await;
    });
    table.row("an installed eSIM, unsettled, then completed", |case| async move {
        case.behaviour(|behaviour| behaviour.completes_after = None);
        let id = case.start_mailed_swap().await;
        case.install().await;
        case.await_error(&id, "unsettled").await;
        complete(&case, &id).await;
        becomes_done(&case, &id).await;
    });
    table.row("cancelled, then completed", |case| async move {
        let id = case.start_mailed_swap().await;
        case.cancel(&id).await;
        case.await_error(&id, "cancelled").await;
        complete(&case, &id).await;
        becomes_done(&case, &id).await;
    });
    table.row("the line has another SIM", |case| async move {
        let id = to_error(&case, 0).await;
        let next = case.start_card_swap(1).await;
        case.await_done(&next).await;
        complete(&case, &id).await;
        assert_disputed(&case, &id, &case.line).await;
        case.assert_moved_to(&case.cards[1]).await;
        let sim = case.service().sim(&case.cards[0]).await;
        assert!(sim.state.as_str() != "ACTIVATED" && sim.holder.is_none(), "{sim:?}");
        assert_eq!(case.service().record(&id).await.phase, Phase::Error);
    });
    table.row("the line has another swap", |case| async move {
        let id = to_error(&case, 0).await;
        case.behaviour(|behaviour| behaviour.completes_after = None);
        let next = case.start_card_swap(1).await;
        case.record(&next, |record| record.order_number.is_some()).await;
        complete(&case, &id).await;
        assert_disputed(&case, &id, &case.line).await;
        let line = case.service().line(&case.line).await;
        assert_eq!(line.open_swap.unwrap().as_str(), next);
        assert_eq!(case.service().record(&id).await.phase, Phase::Error);
    });
    table.row("the line has another number", |case| async move {
        let id = to_error(&case, 0).await;
        let before = case.service().line(&case.line).await;
        let change = LineChange {
            phone: Msisdn::parse("+31612349900").ok(),
            ..LineChange::default()
        };
        let store = &case.service().stack.store;
        set_line(store, &case.line, &change, true).await.unwrap();
        complete(&case, &id).await;
        assert_disputed(&case, &id, &case.line).await;
        assert_eq!(case.service().line(&case.line).await.current_sim, before.current_sim);
        assert_eq!(case.service().record(&id).await.phase, Phase::Error);
    });
    table.row("the line and the new SIM are removed", |case| async move {
        let id = to_error(&case, 0).await;
        let store = &case.service().stack.store;
        remove_line(store, &case.line, true).await.unwrap();
        remove_sim(store, case.cards[0].as_str(), true).await.unwrap();
        complete(&case, &id).await;
        let record = case.record(&id, |record| record.disputed).await;
        assert_eq!(record.phase, Phase::Error);
    });
    table.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_completion_for_a_card_of_another_line_is_disputed() {
    let scene = Scene::new(1, &[&QUICK]).await;
    let mut case = scene.case();
    let service = case.service();
    let (anna, bram) = (service.line(line::ANNA).await, service.line(line::BRAM).await);
    for phone in [anna.phone.as_e164(), bram.phone.as_e164()] {
        let never = Behaviour {
            completes_after: None,
            ..Behaviour::default()
        };
        scene.network.behave(phone, never);
    }
    let id = scene.service.start_swap(&card(line::ANNA, FREE_CARD)).await;
    case.record(&id, |record| record.order_number.is_some()).await;
    assert_eq!(scene.network.set_and_notify(&id, "failed").await, 201);
    let ended = case.await_end(&id).await;
    assert_eq!(ended.phase, Phase::Error);
    let taken = scene.service.start_swap(&card(line::BRAM, FREE_CARD)).await;
    assert_eq!(scene.network.set_and_notify(&id, "completed").await, 201);
    case.line = line::ANNA.to_owned();
    assert_disputed(&case, &id, line::ANNA).await;
    let holder = scene.service.sim(FREE_CARD).await.holder;
    let of_bram = ActivationId::parse(&taken).unwrap();
    assert_eq!(holder, Some(domain::Holder::Swap(of_bram)));
    assert_eq!(scene.service.line(line::ANNA).await.current_sim, anna.current_sim);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_is_executed_after_the_end_counts() {
    let settings = [("CALL_REST", "500ms")];
    let scene = Scene::new(1, &[&QUICK, &SHORT_ORDER, &settings]).await;
    let case = scene.case();
    // The network does not respond until it executes what it received first.
    let carried_out = Duration::from_secs(9);
    case.rule(move |call| match (call.operation, call.nth) {
        ("place", 1) => Act::ExecuteLater(Duration::ZERO, carried_out),
        ("place", _) => Act::Close,
        _ => Act::Comply,
    });
    let id = case.start_card_swap(0).await;
    case.await_error(&id, "unavailable").await;
    assert_eq!(case.network().state(&id), "", "the test was too slow");
    case.record(&id, |record| record.phase == Phase::Done).await;
    case.await_done(&id).await;
}

/// The state of the new SIM after a swap that failed.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Left {
    /// Free at once.
    Free,
    /// Free after this many hours.
    Rests(i64),
    /// Disabled.
    Disabled,
}

fn leftover(sim: &Sim, ended: Timestamp) -> Left {
    let rest = sim.free_from.duration_since(ended);
    assert_eq!(sim.holder, None, "{sim:?}");
    match sim.state.as_str() {
        "DISABLED" => Left::Disabled,
        "FREE" if rest <= SignedDuration::ZERO => Left::Free,
        "FREE" => Left::Rests((rest.as_secs() + 1800) / 3600),
        other => panic!("the SIM is {other}"),
    }
}

/// Asserts that a failed swap leaves its new SIM in this state.
async fn assert_leaves(case: &Case, id: &str, code: &str, expected: Left) {
    let sim = case.await_error(id, code).await;
    let ended = case.service().record(id).await.ended_at.unwrap();
    assert_eq!(leftover(&sim, ended), expected, "{}", case.describe(id).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_state_of_the_new_sim_after_a_failure() {
    let mut table = Table::new(Scene::new(30, &[&QUICK, &SHORT_SETTLE, &COOLDOWNS]).await);
    for status in [400, 422] {
        table.row(
            format!("a card whose order is rejected with {status}"),
            move |case| async move {
                case.rule(always(&["place"], Act::status(status)));
                let id = case.start_card_swap(0).await;
                assert_leaves(&case, &id, "networkRejected", Left::Free).await;
            },
        );
    }
    for (state, code) in [
        ("failed", "networkFailed"),
        ("rejected", "networkRejected"),
        ("cancelled", "networkCancelled"),
    ] {
        table.row(format!("a card whose order {state}"), move |case| async move {
            case.behaviour(|behaviour| behaviour.completes_after = None);
            let id = case.start_card_swap(0).await;
            case.record(&id, |record| record.order_number.is_some()).await;
            assert_eq!(case.network().set_and_notify(&id, state).await, 201);
            assert_leaves(&case, &id, code, Left::Free).await;
            // The SIM is free: another swap gets it.
            case.comply();
            let next = case.start_card_swap(0).await;
            case.await_done(&next).await;
        });
    }
    table.row("a card whose order is gone", move |case| async move {
        case.behaviour(|behaviour| behaviour.completes_after = None);
        let id = case.start_card_swap(0).await;
        case.record(&id, |record| record.order_number.is_some()).await;
        case.network().forget(&id);
        assert_leaves(&case, &id, "networkFailed", Left::Rests(CALL_REST)).await;
    });
    table.row("a card, unsettled", move |case| async move {
        case.behaviour(|behaviour| behaviour.completes_after = None);
        let id = case.start_card_swap(0).await;
        assert_leaves(&case, &id, "unsettled", Left::Disabled).await;
    });
    table.row("an eSIM that is cancelled", move |case| async move {
        let id = case.start_mailed_swap().await;
        case.cancel(&id).await;
        assert_leaves(&case, &id, "cancelled", Left::Rests(SIM_REST)).await;
    });
    table.row("an eSIM whose order is rejected", move |case| async move {
        case.rule(always(&["place"], Act::status(400)));
        let id = case.start_esim_swap().await;
        assert_leaves(&case, &id, "networkRejected", Left::Rests(SIM_REST)).await;
    });
    table.row("an eSIM whose order ended while it waited", move |case| async move {
        let id = case.start_mailed_swap().await;
        assert_eq!(case.network().set_and_notify(&id, "failed").await, 201);
        assert_leaves(&case, &id, "networkFailed", Left::Rests(SIM_REST)).await;
    });
    table.row("an eSIM that cannot be confirmed", move |case| async move {
        case.rule(always(&["confirmOrder"], rejection("8.2.6", "3.10")));
        let id = case.start_esim_swap().await;
        assert_leaves(&case, &id, "profileRefused", Left::Rests(SIM_REST)).await;
        assert_eq!(case.smdp().state(&case.esim), "Available");
    });
    table.row("an eSIM with another owner at the SM-DP+", move |case| async move {
        case.rule(always(&["downloadOrder"], rejection("8.2.1", "3.3")));
        let id = case.start_esim_swap().await;
        assert_leaves(&case, &id, "profileRefused", Left::Disabled).await;
    });
    table.row("an eSIM that a phone may have", move |case| async move {
        let id = case.start_mailed_swap().await;
        // The report is lost; the SM-DP+ rejects the cancel with 8.2.1/3.3.
        case.smdp().set(&case.esim, "Downloaded");
        case.cancel(&id).await;
        assert_leaves(&case, &id, "cancelled", Left::Disabled).await;
    });
    table.row("an eSIM that a phone has downloaded", move |case| async move {
        let id = case.start_mailed_swap().await;
        case.smdp().set(&case.esim, "Downloaded");
        assert_eq!(case.smdp().notify_progress(&case.esim, 3, |_| {}).await, 204);
        case.cancel(&id).await;
        assert_leaves(&case, &id, "cancelled", Left::Disabled).await;
    });
    table.row("an eSIM that a phone has installed", move |case| async move {
        case.behaviour(|behaviour| behaviour.completes_after = None);
        let id = case.start_mailed_swap().await;
        case.install().await;
        case.record(&id, |record| record.phase == Phase::Started).await;
        assert_eq!(case.network().set_and_notify(&id, "failed").await, 201);
        assert_leaves(&case, &id, "networkFailed", Left::Disabled).await;
    });
    table.row("an eSIM that the SM-DP+ does not release", move |case| async move {
        case.rule(always(&["cancelOrder"], rejection("8.2.6", "3.10")));
        let id = case.start_mailed_swap().await;
        case.cancel(&id).await;
        assert_leaves(&case, &id, "unsettled", Left::Disabled).await;
    });
    table.row("an eSIM that the SM-DP+ does not know", move |case| async move {
        case.rule(always(&["cancelOrder"], rejection("8.2.1", "3.9")));
        let id = case.start_mailed_swap().await;
        case.cancel(&id).await;
        assert_leaves(&case, &id, "cancelled", Left::Rests(SIM_REST)).await;
    });
    table.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_state_of_a_sim_that_could_not_be_ordered() {
    let settings = [("CALL_REST", "4s")];
    let mut table = Table::new(Scene::new(10, &[&QUICK, &SHORT_ORDER, &settings]).await);
    for (name, act) in [
        ("503", Act::status(503)),
        ("401", Act::status(401)),
        ("silence", Act::Close),
    ] {
        table.row(
            format!("a card whose order always meets {name}"),
            move |case| async move {
                case.rule(always(&["place"], act));
                let id = case.start_card_swap(0).await;
                let sim = case.await_error(&id, "unavailable").await;
                let ended = case.service().record(&id).await.ended_at.unwrap();
                let rest = sim.free_from.duration_since(ended);
                assert_eq!((sim.state.as_str(), rest), ("FREE", SignedDuration::from_secs(4)));
                let again = case
                    .service()
                    .submit(&case.service().admin(), &card(&case.line, &case.cards[0]))
                    .await;
                assert_eq!(again.status, 404, "{again:?}");
            },
        );
    }
    table.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_state_of_a_sim_that_was_never_ordered() {
    // The sweeper is the first to wake the swaps, and they are cancelled by then.
    let settings = [("LEASE", "1s"), ("CANCEL_WAIT", "1ms"), ("CALL_REST", "3h")];
    let options = Options {
        stream_batch: None,
        ..TestStack::options_with(&settings)
    };
    let mut table = Table::new(Scene::start(2, options).await);
    for esim in [false, true] {
        table.row(format!("never tried, eSIM {esim}"), move |case| async move {
            let id = match esim {
                true => case.start_esim_swap().await,
                false => case.start_card_swap(0).await,
            };
            case.cancel(&id).await;
            assert_leaves(&case, &id, "cancelled", Left::Free).await;
            let calls = case.calls("place").len() + case.calls("downloadOrder").len();
            assert_eq!(calls, 0);
        });
    }
    table.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_card_is_free_again_after_its_cooldown() {
    let settings = [("CALL_REST", "1s")];
    let scene = Scene::new(1, &[&QUICK, &SHORT_ORDER, &settings]).await;
    let case = scene.case();
    case.rule(always(&["place"], Act::status(503)));
    let id = case.start_card_swap(0).await;
    case.await_error(&id, "unavailable").await;
    case.comply();
    let service = case.service();
    let taken = until(|| async {
        let response = service
            .submit(&service.admin(), &card(&case.line, &case.cards[0]))
            .await;
        (response.status == 200).then(|| response.json()["id"].as_str().unwrap().to_owned())
    })
    .await;
    case.await_done(&taken.expect("the card is free again")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_repeat_window_starts_at_done() {
    let settings = [("REPEAT_WITHIN", "3s")];
    let mut table = Table::new(Scene::new(2, &[&QUICK, &EVENTS_ONLY, &settings]).await);
    for (word, esim) in [("autoAssign", false), ("eSim", true)] {
        table.row(word, move |case| async move {
            let service = case.service();
            let token = service.owner(CUSTOMER);
            let change = || async {
                let bearer = format!("Bearer {token}");
                let path = format!("/mvno/{}/changesim/{word}", case.line);
                let response = service.send("POST", &path, &[("authorization", &bearer)], "").await;
                assert_eq!(response.status, 200, "{response:?}");
                response.json()["mvnoSim"]["simNumber"].as_str().unwrap().to_owned()
            };
            let swaps = || async {
                let page = service
                    .query(&token, &format!("subscriptionId={}", case.line))
                    .await
                    .json();
                page["results"].as_array().unwrap().clone()
            };
            case.behaviour(|behaviour| behaviour.completes_after = None);
            let sim = change().await;
            let id = swaps().await[0]["id"].as_str().unwrap().to_owned();
            if esim {
                case.await_mail(&id).await;
                case.install().await;
                case.record(&id, |record| record.phase == Phase::Started).await;
            } else {
                case.record(&id, |record| record.order_number.is_some()).await;
            }
            let completed = Timestamp::now();
            // The network sends the event when a repeat window from its own date would be over.
            tokio::time::sleep(Duration::from_secs(4)).await;
            case.network().set_since(&id, "completed", completed);
            let event = case.network().event(&id);
            assert_eq!(case.network().notify_order(&event.to_string()).await, 201);
            case.await_done(&id).await;
            assert_eq!(change().await, sim);
            assert_eq!(swaps().await.len(), 1);
        });
    }
    table.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_meaning_of_the_codes_of_the_smdp() {
    let mut table = Table::new(Scene::new(60, &[&QUICK]).await);
    // The profile is already ours.
    for what in ["downloadOrder", "confirmOrder"] {
        for (name, act) in [
            ("its response is lost", Act::LoseResponse),
            ("503 although it is executed", Act::Replace(Reply::text(503, ""))),
        ] {
            table.row(format!("a repeated {what}: {name}"), move |case| async move {
                case.rule(move |call| match call.operation == what && call.nth == 1 {
                    true => act.clone(),
                    false => Act::Comply,
                });
                case.esim_to_done().await;
                assert!(
                    case.calls("cancelOrder").is_empty(),
                    "the profile is ordered again instead"
                );
                assert_eq!(case.calls(what).len(), 2);
            });
        }
    }
    // Transient.
    for (subject, reason) in [
        ("8.2.5", "3.7"),
        ("8.9", "5.1"),
        ("8.9", "4.2"),
        ("8.9", "9.9"),
        ("9.9", "9.9"),
        ("8.2.1", "9.9"),
        ("", ""),
    ] {
        for what in ["downloadOrder", "confirmOrder"] {
            table.row(format!("{what}: {subject}/{reason} for now"), move |case| async move {
                case.rule(move |call| match call.operation == what && call.nth <= 3 {
                    true => rejection(subject, reason),
                    false => Act::Comply,
                });
                case.esim_to_done().await;
            });
        }
    }
    // Final.
    for (what, subject, reason) in [
        ("downloadOrder", "8.2.1", "3.3"),
        ("downloadOrder", "8.2.1", "1.2"),
        ("downloadOrder", "8.2.1", "3.9"),
        ("downloadOrder", "8.1.1", "3.10"),
        ("downloadOrder", "8.2.5", "3.8"),
        ("confirmOrder", "8.2.6", "3.3"),
        ("confirmOrder", "8.2.6", "3.10"),
        ("confirmOrder", "8.2.1", "3.5"),
        ("confirmOrder", "8.8.5", "4.10"),
    ] {
        table.row(
            format!("{what}: {subject}/{reason} at first is final"),
            move |case| async move {
                case.rule(always(
                    if what == "downloadOrder" {
                        &["downloadOrder"]
                    } else {
                        &["confirmOrder"]
                    },
                    rejection(subject, reason),
                ));
                let id = case.start_esim_swap().await;
                let sim = case.await_error(&id, "profileRefused").await;
                assert_eq!(
                    sim.state.as_str() == "DISABLED",
                    (what, reason) == ("downloadOrder", "3.3")
                );
                assert!(case.calls("place").is_empty());
                assert!(case.service().mails(&id).is_empty());
            },
        );
    }
    // A profile or a matching id that is not the one that was ordered.
    for (name, field, value) in [
        ("another ICCID", "iccid", "8931086000000009999F"),
        ("another matching id", "matchingId", "AAAAA-BBBBB-CCCCC"),
    ] {
        table.row(format!("{name} in a response"), move |case| async move {
            case.smdp().edit_responses(
                &case.esim,
                Arc::new(move |body| {
                    if body.get(field).is_some() {
                        body[field] = json!(value);
                    }
                }),
            );
            let id = case.start_esim_swap().await;
            case.await_error(&id, "profileRefused").await;
            assert!(case.service().mails(&id).is_empty());
        });
    }
    table.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_from_a_clock_an_hour_slow_counts() {
    let mut table = Table::new(Scene::new(6, &[&QUICK]).await);
    for (minutes, counts) in [(59, true), (61, false), (-59, true), (-600, true)] {
        table.row(format!("{minutes} min before"), move |case| async move {
            let id = case.start_mailed_swap().await;
            let since = case.service().record(&id).await.ordering_since.unwrap();
            let dated = since - SignedDuration::from_mins(minutes);
            let dated = move |body: &mut Value| body["timestamp"] = json!(format!("{dated:.0}"));
            case.smdp().set(&case.esim, "Installed");
            assert_eq!(case.smdp().notify_progress(&case.esim, 4, dated).await, 204);
            if !counts {
                assert_eq!(case.service().record(&id).await.profile, Some(ProfileState::Released));
                assert_eq!(case.smdp().notify_progress(&case.esim, 4, |_| {}).await, 204);
            }
            case.await_done(&id).await;
        });
    }
    table.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_attempt_is_in_the_timeline_once() {
    let scene = Scene::new(3, &[&QUICK]).await;
    for (what, esim) in [("place", false), ("start", true), ("downloadOrder", true)] {
        let case = scene.case();
        case.rule(move |call| match call.operation == what && call.nth <= 5 {
            true => Act::status(503),
            false => Act::Comply,
        });
        let id = if esim {
            case.esim_to_done().await
        } else {
            let id = case.start_card_swap(0).await;
            case.await_done(&id).await;
            id
        };
        let shown = operator::show::swap(&case.service().stack.store, &TimeZone::UTC, &id)
            .await
            .unwrap();
        // Whole words, because "503" can also be part of a time.
        let times = shown.split_whitespace().filter(|word| *word == "503").count();
        assert_eq!(times, 1, "{what}: {shown}");
    }
}

/// A service with the settings and sweeps of the local stack.
async fn local_stack(lines: usize) -> Arc<Scene> {
    let options = Options {
        sweep_every: Duration::from_secs(1),
        ..TestStack::options()
    };
    Scene::start(lines, options).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_the_local_stack_a_bad_network_delays_swaps_but_never_corrupts_them() {
    async fn to_done(case: &Case, esim: bool) {
        let limit = Duration::from_secs(120);
        let id = match esim {
            true => case.start_esim_swap().await,
            false => case.start_card_swap(0).await,
        };
        if esim {
            let mail = within(limit, || async { case.service().mails(&id).pop() }).await;
            assert!(mail.is_some(), "no mail: {}", case.describe(&id).await);
            case.install().await;
        }
        let ended = within(limit, || async {
            let record = case.service().record(&id).await;
            (!record.phase.is_open()).then_some(())
        })
        .await;
        assert!(ended.is_some(), "the swap stays {}", case.describe(&id).await);
        case.await_done(&id).await;
        assert_eq!(case.service().mails(&id).len(), usize::from(esim));
    }
    let mut table = Table::new(local_stack(12).await);
    for esim in [false, true] {
        for status in [401, 403] {
            table.row(
                format!("credentials are rejected for a while: {status}, eSIM {esim}"),
                move |case| async move {
                    let begun = Instant::now();
                    let at_start = Mutex::new(None);
                    case.network().rule(&case.phone, move |call| {
                        let a_while = Duration::from_secs(12);
                        let mut wrong = begun.elapsed() < a_while;
                        if call.operation == "start" {
                            let first = *at_start.lock().unwrap().get_or_insert(call.at);
                            wrong = first.elapsed() < a_while;
                        }
                        if wrong { Act::status(status) } else { Act::Comply }
                    });
                    to_done(&case, esim).await;
                },
            );
        }
        table.row(
            format!("the search finds nothing, and events are lost, eSIM {esim}"),
            move |case| async move {
                case.behaviour(|behaviour| {
                    behaviour.sends_events = false;
                    behaviour.completes_after = Some(Duration::from_secs(3));
                });
                case.rule(always(&["search"], Act::json(200, &json!([]))));
                to_done(&case, esim).await;
            },
        );
        let late = Duration::from_secs(11);
        for (name, act) in [
            ("executed at once", Act::RespondLate(late)),
            ("executed late", Act::Late(late)),
        ] {
            table.row(
                format!("every response is 11 s late, {name}, eSIM {esim}"),
                move |case| async move {
                    case.network().rule(&case.phone, move |_| act.clone());
                    to_done(&case, esim).await;
                },
            );
        }
    }
    table.row("the SM-DP+ responds 11 s late", |case| async move {
        let late = Act::RespondLate(Duration::from_secs(11));
        case.smdp().rule(&case.esim, move |_| late.clone());
        to_done(&case, true).await;
    });
    table.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stdout, reason = "the test reports how long it takes")]
async fn four_hundred_submits_are_all_ordered() {
    const SWAPS: usize = 400;
    // With files, like the local stack: the engine in memory slows down with every write.
    let data = tempfile::tempdir().unwrap();
    let service = TestStack::start(Options {
        data_dir: Some(data.path().to_owned()),
        sweep_every: Duration::from_secs(1),
        // As deployed: a slow call is not cut short, and an SES event settles a mail whose sender was too slow.
        ..TestStack::options_with(&[("LEASE", "60s"), ("MAIL_DOUBT", "10m")])
    })
    .await;
    load_lines(&service, SWAPS).await;
    load_sims(&service, FormFactor::Esim, SWAPS).await;
    let token = service.owner(CUSTOMER);
    let again = AtomicUsize::new(0);
    let begun = Instant::now();
    let ids: Vec<_> = stream::iter(0..SWAPS)
        .map(|number| {
            let (service, token, again) = (&service, &token, &again);
            async move {
                let body = json!({
                    "subscriptionId": line_id(number), "eSim": true,
                    "email": format!("c{number}@example.com"), "confirmationCode": CODE,
                });
                loop {
                    let response = service.submit(token, &body).await;
                    if response.status == 200 {
                        return response.json()["id"].as_str().unwrap().to_owned();
                    }
                    // A client sends a request again when the API responds that it is overloaded.
                    assert_eq!(response.status, 503, "{response:?}");
                    again.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        })
        .buffer_unordered(48)
        .collect()
        .await;
    let submitted = begun.elapsed();
    let mut unmailed: Vec<_> = ids.iter().collect();
    while !unmailed.is_empty() {
        let waited = begun.elapsed();
        let leftover = unmailed.len();
        assert!(waited < Duration::from_secs(1800), "{leftover} wait");
        tokio::time::sleep(Duration::from_secs(1)).await;
        unmailed.retain(|id| service.mails(id).is_empty());
        // A swap that failed sends no mail.
        if let Some(id) = unmailed.first() {
            let read = ActivationId::parse(id).unwrap();
            if let Ok(Some(swap)) = service.stack.store.swap(&read).await {
                let failure = swap.activation.failure;
                assert_eq!(failure, None, "{id}, and {leftover} wait");
            }
        }
    }
    println!(
        "{SWAPS} swaps: submitted in {submitted:?} ({again:?} times again), ordered and mailed in {:?}",
        begun.elapsed()
    );
    let (smdp, network) = (
        service.stack.smdp.as_ref().unwrap(),
        service.stack.network.as_ref().unwrap(),
    );
    for id in &ids {
        assert_eq!(service.mails(id).len(), 1, "{id}");
        assert_eq!(network.orders_of(id).unwrap(), 1, "{id}");
        let record = service.record(id).await;
        assert_eq!((record.phase, record.failure), (Phase::Ordered, None), "{id}");
        let esim: Iccid = record.new_sim;
        assert_eq!(smdp.orders_of(&esim).unwrap(), 1, "{id}");
    }
}
