//! The simulated network over HTTP, with the operator's own client.

use domain::{ActivationId, Iccid, Msisdn};
use peers::tmf641::SETTLED;
use peers::{NewOrder, OrderingError, ServiceOrdering};
use serde_json::json;

use super::*;
use crate::callback_receiver::{CallbackReceiver, call, listen};

/// Longer than any test.
const NEVER: Duration = Duration::from_secs(3600);

struct Fixture {
    carrier: Arc<MobileNetwork>,
    url: String,
    client: ServiceOrdering,
    task: JoinHandle<()>,
}

async fn world(path: Option<&Path>, delay: Duration) -> Fixture {
    let carrier = Arc::new(MobileNetwork::open(path, delay, ClockAndRng::real()).unwrap());
    let (url, listener) = listen().await;
    Fixture {
        client: ServiceOrdering::new(peers::connector(), &url),
        task: carrier.clone().serve(listener, peers::connector()),
        carrier,
        url: format!("{url}{PATH}"),
    }
}

fn id() -> ActivationId {
    ActivationId::parse("A-1").unwrap()
}

fn msisdn() -> Msisdn {
    Msisdn::parse("+31612345601").unwrap()
}

fn new_sim() -> Iccid {
    Iccid::parse("8931086000000002019").unwrap()
}

impl Fixture {
    async fn place(&self, hold: bool) -> Result<Order, OrderingError> {
        self.client
            .place(NewOrder {
                external_id: &id(),
                msisdn: &msisdn(),
                old_iccid: &Iccid::parse("8931086000000000013").unwrap(),
                new_iccid: &new_sim(),
                new_imsi: None,
                hold,
            })
            .await
    }

    /// The outcome of the cancel, whenever it comes.
    async fn cancelled(&self, task: &str) -> Value {
        let mut changes = self.carrier.book.changes();
        loop {
            let url = format!("{}/cancelServiceOrder/{task}", self.url);
            let (_, body) = call("GET", &url, "").await;
            if body["state"] != "accepted" {
                return body["state"].clone();
            }
            changes.changed().await.unwrap();
        }
    }
}

impl CallbackReceiver {
    async fn event(&mut self) -> Order {
        let (path, body) = self.next().await;
        let listener = "/tmf-api/serviceOrdering/v4/listener/serviceOrderStateChangeEvent";
        assert_eq!(path, listener);
        let event: ServiceOrderStateChangeEvent = serde_json::from_value(body).unwrap();
        event.event.service_order
    }
}

#[tokio::test]
async fn an_order_that_is_not_held_completes_by_itself() {
    let mut operator = CallbackReceiver::start(&[]).await;
    let w = world(None, Duration::ZERO).await;
    w.client.register(&operator.url, None).await.unwrap();
    assert_eq!(w.client.find(&id()).await.unwrap(), None);
    assert_eq!(w.carrier.sim_of(&msisdn()).unwrap(), None);

    let placed = w.place(false).await.unwrap();
    assert_eq!(placed.state, OrderState::InProgress);
    assert!(placed.id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'));
    let event = operator.event().await;
    assert_eq!((event.state, &event.id), (OrderState::Completed, &placed.id));
    assert_eq!(event.item_states().collect::<Vec<_>>(), [OrderState::Completed]);
    assert!(event.completion_date.is_some());
    assert_eq!(w.carrier.sim_of(&msisdn()).unwrap(), Some(new_sim()));

    assert_eq!(w.client.find(&id()).await.unwrap(), Some(event.clone()));
    assert_eq!(w.client.get(&placed.id).await.unwrap(), event);
    let again = w.place(true).await;
    assert_eq!(again, Err(OrderingError::Conflict));
    assert_eq!(w.carrier.orders_of("A-1").unwrap(), 1);
    assert_eq!(w.carrier.orders_of("A-2").unwrap(), 0);
}

#[tokio::test]
async fn a_held_order_waits_and_a_started_one_is_not_cancelled() {
    // The refused event is sent again before the next one of its order.
    let mut operator = CallbackReceiver::start(&[500]).await;
    let w = world(None, Duration::from_millis(1)).await;
    w.client.register(&operator.url, None).await.unwrap();
    let placed = w.place(true).await.unwrap();
    assert_eq!(placed.state, OrderState::Held);

    let started = w.client.start(&placed.id).await.unwrap();
    assert_eq!(started.state, OrderState::InProgress);
    for expected in [OrderState::InProgress, OrderState::InProgress, OrderState::Completed] {
        assert_eq!(operator.event().await.state, expected);
    }
    let again = w.client.start(&placed.id).await.unwrap();
    assert_eq!(again.state, OrderState::Completed);
    w.client.cancel(&placed.id).await.unwrap();
    assert_eq!(w.cancelled("1").await, "terminatedWithError");
    assert_eq!(w.client.get(&placed.id).await.unwrap(), again);
    assert!(!operator.has_more());
}

#[tokio::test]
async fn who_asks_for_the_end_is_told_of_nothing_else() {
    let mut operator = CallbackReceiver::start(&[]).await;
    let w = world(None, Duration::from_millis(1)).await;
    for query in [None, Some(SETTLED)] {
        w.client.register(&operator.url, query).await.unwrap();
    }
    let placed = w.place(true).await.unwrap();
    w.client.start(&placed.id).await.unwrap();
    assert_eq!(operator.event().await.state, OrderState::Completed);
    assert!(!operator.has_more());
}

#[tokio::test]
async fn a_held_order_is_cancelled_once() {
    let mut operator = CallbackReceiver::start(&[]).await;
    let w = world(None, NEVER).await;
    w.client.register(&operator.url, None).await.unwrap();
    let placed = w.place(true).await.unwrap();
    for task in ["1", "2"] {
        w.client.cancel(&placed.id).await.unwrap();
        assert_eq!(w.cancelled(task).await, "done");
    }
    let event = operator.event().await;
    assert_eq!(event.state, OrderState::Cancelled);
    assert_eq!(event.external_id.as_deref(), Some("A-1"));
    let start = w.client.start(&placed.id).await;
    assert_eq!(start, Err(OrderingError::Conflict));
    assert_eq!(w.carrier.sim_of(&msisdn()).unwrap(), None);
    assert!(!operator.has_more());
}

#[tokio::test]
async fn an_order_in_progress_is_not_cancelled_either() {
    let w = world(None, NEVER).await;
    let placed = w.place(false).await.unwrap();
    w.client.cancel(&placed.id).await.unwrap();
    assert_eq!(w.cancelled("1").await, "terminatedWithError");
    let state = w.client.get(&placed.id).await.unwrap().state;
    assert_eq!(state, OrderState::InProgress);
}

#[tokio::test]
async fn registering_twice_is_registering_once() {
    let mut operator = CallbackReceiver::start(&[]).await;
    let w = world(None, Duration::ZERO).await;
    let hub = format!("{}/hub", w.url);
    let callback = json!({"callback": operator.url}).to_string();
    for _ in 0..2 {
        let (status, body) = call("POST", &hub, &callback).await;
        assert_eq!((status, &body["id"]), (201, &json!("1")));
    }
    w.place(false).await.unwrap();
    assert_eq!(operator.event().await.state, OrderState::Completed);
    assert!(!operator.has_more());

    let registration = format!("{hub}/1");
    assert_eq!(call("DELETE", &registration, "").await.0, 204);
    assert_eq!(call("DELETE", &registration, "").await.0, 404);
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let w = world(None, NEVER).await;
    let orders = format!("{}/serviceOrder", w.url);
    let whole = json!({
        "externalId": "A-1",
        "category": "SIMSWAP",
        "serviceOrderItem": [{"id": "1", "action": "modify", "service": {"serviceCharacteristic": [
            {"name": "msisdn", "value": "+31612345601"},
            {"name": "oldIccid", "value": "8931086000000000013"},
            {"name": "newIccid", "value": "8931086000000002019"},
        ]}}],
    });
    let characteristics = "/serviceOrderItem/0/service/serviceCharacteristic";
    for (pointer, value, missing) in [
        ("/externalId", Value::Null, "externalId"),
        ("/category", json!("OTHER"), "category"),
        ("/serviceOrderItem/0/action", json!("add"), "serviceOrderItem.action"),
        (characteristics, json!([]), "msisdn, oldIccid, newIccid"),
    ] {
        let mut order = whole.clone();
        *order.pointer_mut(pointer).unwrap() = value;
        let (status, body) = call("POST", &orders, &order.to_string()).await;
        let reason = format!("missing or malformed: {missing}");
        assert_eq!((status, &body["reason"]), (400, &json!(reason)));
    }
    for (method, url, body, status) in [
        ("POST", orders.clone(), "<html>", 400),
        ("GET", format!("{orders}/7"), "", 404),
        ("PATCH", format!("{orders}/7"), r#"{"state":"inProgress"}"#, 404),
        ("PATCH", format!("{orders}/7"), r#"{"state":"completed"}"#, 400),
        (
            "POST",
            format!("{}/cancelServiceOrder", w.url),
            r#"{"serviceOrder":{"id":"7"}}"#,
            400,
        ),
        ("POST", format!("{}/hub", w.url), "{}", 400),
    ] {
        assert_eq!(call(method, &url, body).await.0, status, "{method} {url}");
    }
    assert_eq!(call("POST", &orders, &whole.to_string()).await.0, 201);
    assert_eq!(call("GET", &orders, "").await.1.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn timers_and_events_survive_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("network.db");
    let mut operator = CallbackReceiver::start(&[]).await;
    let before = world(Some(&path), Duration::from_millis(300)).await;
    before.client.register(&operator.url, None).await.unwrap();
    let placed = before.place(true).await.unwrap();
    before.client.start(&placed.id).await.unwrap();
    before.task.abort();
    assert!(before.task.await.unwrap_err().is_cancelled());
    assert!(before.client.get(&placed.id).await.is_err());

    let after = world(Some(&path), NEVER).await;
    loop {
        match operator.event().await.state {
            OrderState::InProgress => {}
            state => break assert_eq!(state, OrderState::Completed),
        }
    }
    assert_eq!(after.carrier.sim_of(&msisdn()).unwrap(), Some(new_sim()));
    assert_eq!(after.carrier.orders_of("A-1").unwrap(), 1);
}

#[tokio::test]
async fn an_operator_that_moved_gets_what_it_missed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("network.db");
    let before = world(Some(&path), NEVER).await;
    for gone in ["http://127.0.0.1:1", "http://127.0.0.1:2/"] {
        before.client.register(gone, None).await.unwrap();
    }
    let placed = before.place(true).await.unwrap();
    before.client.start(&placed.id).await.unwrap();
    before.task.abort();
    assert!(before.task.await.unwrap_err().is_cancelled());

    let mut operator = CallbackReceiver::start(&[]).await;
    let carrier = Arc::new(MobileNetwork::open(Some(&path), NEVER, ClockAndRng::real()).unwrap());
    carrier.move_operator(&operator.url).unwrap();
    let (url, listener) = listen().await;
    let task = carrier.clone().serve(listener, peers::connector());
    // One event for each of the two registrations.
    for _ in 0..2 {
        assert_eq!(operator.event().await.state, OrderState::InProgress);
    }
    let client = ServiceOrdering::new(peers::connector(), &url);
    client.register(&operator.url, None).await.unwrap();
    let hubs = carrier
        .book
        .read(|book| book.query_row("SELECT COUNT(*) FROM hubs", (), |row| row.get::<_, i64>(0)));
    assert_eq!(hubs.unwrap(), 1);
    task.abort();
}
