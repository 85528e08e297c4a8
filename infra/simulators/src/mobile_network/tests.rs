//! Tests of the simulated network over HTTP, with the client of the service.

use domain::{ActivationId, Iccid, Msisdn};
use peers::tmf641::SETTLED;
use peers::{NewOrder, OrderingError, ServiceOrdering};
use serde_json::json;

use super::*;
use crate::callback_receiver::{CallbackReceiver, call, listen};

/// A delay that is longer than any test.
const NEVER: Duration = Duration::from_secs(3600);

struct Fixture {
    network: Arc<MobileNetwork>,
    url: String,
    client: ServiceOrdering,
    task: JoinHandle<()>,
}

async fn start(path: Option<&Path>, delay: Duration) -> Fixture {
    let network = Arc::new(MobileNetwork::open(path, delay, ClockAndRng::real()).unwrap());
    let (url, listener) = listen().await;
    Fixture {
        client: ServiceOrdering::new(peers::connector(), &url),
        task: network.clone().serve(listener, peers::connector()),
        network,
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

    /// Waits for the outcome of a cancellation, and returns its state.
    async fn await_cancellation(&self, task: &str) -> Value {
        let mut changes = self.network.db.changes();
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
async fn an_order_that_is_not_held_completes_automatically() {
    let mut receiver = CallbackReceiver::start(&[]).await;
    let fixture = start(None, Duration::ZERO).await;
    fixture.client.register(&receiver.url, None).await.unwrap();
    assert_eq!(fixture.client.find(&id()).await.unwrap(), None);
    assert_eq!(fixture.network.sim_of(&msisdn()).unwrap(), None);

    let placed = fixture.place(false).await.unwrap();
    assert_eq!(placed.state, OrderState::InProgress);
    assert!(placed.id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'));
    let event = receiver.event().await;
    assert_eq!((event.state, &event.id), (OrderState::Completed, &placed.id));
    assert_eq!(event.item_states().collect::<Vec<_>>(), [OrderState::Completed]);
    assert!(event.completion_date.is_some());
    assert_eq!(fixture.network.sim_of(&msisdn()).unwrap(), Some(new_sim()));

    assert_eq!(fixture.client.find(&id()).await.unwrap(), Some(event.clone()));
    assert_eq!(fixture.client.get(&placed.id).await.unwrap(), event);
    let again = fixture.place(true).await;
    assert_eq!(again, Err(OrderingError::Conflict));
    assert_eq!(fixture.network.orders_of("A-1").unwrap(), 1);
    assert_eq!(fixture.network.orders_of("A-2").unwrap(), 0);
}

#[tokio::test]
async fn a_held_order_waits_and_a_started_one_is_not_cancelled() {
    // An event that the receiver rejects is sent again before the next event of the same order.
    let mut receiver = CallbackReceiver::start(&[500]).await;
    let fixture = start(None, Duration::from_millis(1)).await;
    fixture.client.register(&receiver.url, None).await.unwrap();
    let placed = fixture.place(true).await.unwrap();
    assert_eq!(placed.state, OrderState::Held);

    let started = fixture.client.start(&placed.id).await.unwrap();
    assert_eq!(started.state, OrderState::InProgress);
    for expected in [OrderState::InProgress, OrderState::InProgress, OrderState::Completed] {
        assert_eq!(receiver.event().await.state, expected);
    }
    let again = fixture.client.start(&placed.id).await.unwrap();
    assert_eq!(again.state, OrderState::Completed);
    fixture.client.cancel(&placed.id).await.unwrap();
    assert_eq!(fixture.await_cancellation("1").await, "terminatedWithError");
    assert_eq!(fixture.client.get(&placed.id).await.unwrap(), again);
    assert!(!receiver.has_more());
}

#[tokio::test]
async fn a_registration_for_settled_states_receives_no_other_events() {
    let mut receiver = CallbackReceiver::start(&[]).await;
    let fixture = start(None, Duration::from_millis(1)).await;
    for query in [None, Some(SETTLED)] {
        fixture.client.register(&receiver.url, query).await.unwrap();
    }
    let placed = fixture.place(true).await.unwrap();
    fixture.client.start(&placed.id).await.unwrap();
    assert_eq!(receiver.event().await.state, OrderState::Completed);
    assert!(!receiver.has_more());
}

#[tokio::test]
async fn a_held_order_is_cancelled_once() {
    let mut receiver = CallbackReceiver::start(&[]).await;
    let fixture = start(None, NEVER).await;
    fixture.client.register(&receiver.url, None).await.unwrap();
    let placed = fixture.place(true).await.unwrap();
    for task in ["1", "2"] {
        fixture.client.cancel(&placed.id).await.unwrap();
        assert_eq!(fixture.await_cancellation(task).await, "done");
    }
    let event = receiver.event().await;
    assert_eq!(event.state, OrderState::Cancelled);
    assert_eq!(event.external_id.as_deref(), Some("A-1"));
    let start = fixture.client.start(&placed.id).await;
    assert_eq!(start, Err(OrderingError::Conflict));
    assert_eq!(fixture.network.sim_of(&msisdn()).unwrap(), None);
    assert!(!receiver.has_more());
}

#[tokio::test]
async fn an_order_in_progress_is_not_cancelled() {
    let fixture = start(None, NEVER).await;
    let placed = fixture.place(false).await.unwrap();
    fixture.client.cancel(&placed.id).await.unwrap();
    assert_eq!(fixture.await_cancellation("1").await, "terminatedWithError");
    let state = fixture.client.get(&placed.id).await.unwrap().state;
    assert_eq!(state, OrderState::InProgress);
}

#[tokio::test]
async fn a_repeated_registration_does_not_add_another() {
    let mut receiver = CallbackReceiver::start(&[]).await;
    let fixture = start(None, Duration::ZERO).await;
    let hub = format!("{}/hub", fixture.url);
    let callback = json!({"callback": receiver.url}).to_string();
    for _ in 0..2 {
        let (status, body) = call("POST", &hub, &callback).await;
        assert_eq!((status, &body["id"]), (201, &json!("1")));
    }
    fixture.place(false).await.unwrap();
    assert_eq!(receiver.event().await.state, OrderState::Completed);
    assert!(!receiver.has_more());

    let registration = format!("{hub}/1");
    assert_eq!(call("DELETE", &registration, "").await.0, 204);
    assert_eq!(call("DELETE", &registration, "").await.0, 404);
}

#[tokio::test]
async fn missing_fields_are_named() {
    let fixture = start(None, NEVER).await;
    let orders = format!("{}/serviceOrder", fixture.url);
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
            format!("{}/cancelServiceOrder", fixture.url),
            r#"{"serviceOrder":{"id":"7"}}"#,
            400,
        ),
        ("POST", format!("{}/hub", fixture.url), "{}", 400),
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
    let mut receiver = CallbackReceiver::start(&[]).await;
    let before = start(Some(&path), Duration::from_millis(300)).await;
    before.client.register(&receiver.url, None).await.unwrap();
    let placed = before.place(true).await.unwrap();
    before.client.start(&placed.id).await.unwrap();
    before.task.abort();
    assert!(before.task.await.unwrap_err().is_cancelled());
    assert!(before.client.get(&placed.id).await.is_err());

    let after = start(Some(&path), NEVER).await;
    loop {
        match receiver.event().await.state {
            OrderState::InProgress => {}
            state => break assert_eq!(state, OrderState::Completed),
        }
    }
    assert_eq!(after.network.sim_of(&msisdn()).unwrap(), Some(new_sim()));
    assert_eq!(after.network.orders_of("A-1").unwrap(), 1);
}

#[tokio::test]
async fn events_that_wait_are_sent_to_the_new_callback_url() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("network.db");
    let before = start(Some(&path), NEVER).await;
    for gone in ["http://127.0.0.1:1", "http://127.0.0.1:2/"] {
        before.client.register(gone, None).await.unwrap();
    }
    let placed = before.place(true).await.unwrap();
    before.client.start(&placed.id).await.unwrap();
    before.task.abort();
    assert!(before.task.await.unwrap_err().is_cancelled());

    let mut receiver = CallbackReceiver::start(&[]).await;
    let network = Arc::new(MobileNetwork::open(Some(&path), NEVER, ClockAndRng::real()).unwrap());
    network.move_callbacks(&receiver.url).unwrap();
    let (url, listener) = listen().await;
    let task = network.clone().serve(listener, peers::connector());
    // One event for each of the two registrations.
    for _ in 0..2 {
        assert_eq!(receiver.event().await.state, OrderState::InProgress);
    }
    let client = ServiceOrdering::new(peers::connector(), &url);
    client.register(&receiver.url, None).await.unwrap();
    let hubs = network
        .db
        .read(|db| db.query_row("SELECT COUNT(*) FROM hubs", (), |row| row.get::<_, i64>(0)));
    assert_eq!(hubs.unwrap(), 1);
    task.abort();
}
