//! What the SM-DP+ and the network tell: answered as usual whatever it says, and acted on once, if at all.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use local::stack::Options;
use serde_json::{Value, json};
use tests::{FREE_CARD, FaultyProxy, ProxyFault, TestResponse, TestStack, activation_code, card, esim, line};

/// A world whose network starts orders and does not complete them by itself.
async fn slow_world(settings: &[(&str, &str)]) -> TestStack {
    let settings = settings.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
    TestStack::start(Options {
        network_delay: Duration::from_secs(3600),
        settings: settings.collect(),
        ..TestStack::options()
    })
    .await
}

/// ES2+ `handleDownloadProgressInfo`.
async fn report(world: &TestStack, body: &str) -> TestResponse {
    world
        .send(
            "POST",
            "/gsma/rsp2/es2plus/handleDownloadProgressInfo",
            &[],
            body.to_owned(),
        )
        .await
}

/// What the SM-DP+ says of a profile now: this notification point went well.
fn went_well(iccid: &str, point: u32) -> Value {
    json!({
        "header": {"functionRequesterIdentifier": "smdp.example.test", "functionCallIdentifier": "N-1"},
        "eid": "89049032123451234512345678901235",
        "iccid": iccid,
        "profileType": "CONSUMER",
        "timestamp": Timestamp::now().to_string(),
        "notificationPointId": point,
        "notificationPointStatus": {"status": "Executed-Success"},
    })
}

fn with(mut body: Value, field: &str, value: Value) -> Value {
    body[field] = value;
    body
}

fn failed(subject: &str, reason: &str) -> Value {
    json!({"status": "Failed", "statusCodeData": {"subjectCode": subject, "reasonCode": reason}})
}

/// A report that is taken.
async fn assert_taken(world: &TestStack, body: &Value) {
    let answer = report(world, &body.to_string()).await;
    assert_eq!((answer.status, answer.body.as_str()), (204, ""), "{body}");
    assert_eq!(answer.headers["x-admin-protocol"], "gsma/rsp/v2.5.0");
}

/// TMF641 `serviceOrderStateChangeEvent`.
async fn tell(world: &TestStack, body: &str) -> TestResponse {
    let path = "/tmf-api/serviceOrdering/v4/listener/serviceOrderStateChangeEvent";
    world.send("POST", path, &[], body.to_owned()).await
}

fn event(id: &str, state: &str) -> Value {
    let now = Timestamp::now().to_string();
    json!({
        "eventId": "7", "eventTime": now, "eventType": "ServiceOrderStateChangeEvent",
        "event": {"serviceOrder": {
            "id": "0300010-2025", "externalId": id, "category": "SIMSWAP", "state": state, "@type": "ServiceOrder",
        }},
    })
}

/// The same of the swap's own order.
async fn own_event(world: &TestStack, id: &str, state: &str) -> Value {
    let mut event = event(id, state);
    event["event"]["serviceOrder"]["id"] = json!(world.record(id).await.order_number);
    event
}

/// An event that is taken.
async fn assert_told(world: &TestStack, body: &Value) {
    let answer = tell(world, &body.to_string()).await;
    assert_eq!(answer.status, 201, "{body} {answer:?}");
    assert!(answer.json()["id"].is_string(), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_that_moves_nothing_changes_nothing() {
    let world = slow_world(&[]).await;
    let id = world.begin(&esim(line::ANNA)).await;
    world.await_waiting(&id).await;
    let record = world.record(&id).await;
    let ours = record.new_sim.as_str();
    let earlier = record.ordering_since.unwrap() - SignedDuration::from_secs(3601);
    let earlier = json!(earlier.to_string());
    let status = "notificationPointStatus";
    let before = world.table();
    for body in [
        // Of nobody: unknown, free, on a line, and a card.
        went_well("8931086000000009999", 4),
        went_well("8931086000000002985", 4),
        went_well(FREE_CARD, 4),
        went_well(record.old_sim.as_str(), 4),
        with(went_well(FREE_CARD, 4), status, failed("8.1", "4.8")),
        // Ours, and no step of a swap.
        went_well(ours, 1),
        went_well(ours, 2),
        went_well(ours, 100),
        with(went_well(ours, 3), status, failed("8.1", "4.8")),
        // Of an earlier life of the same profile.
        with(went_well(ours, 3), "timestamp", earlier.clone()),
        with(went_well(ours, 4), "timestamp", earlier.clone()),
        with(
            with(went_well(ours, 4), "timestamp", earlier.clone()),
            status,
            failed("8.1", "4.8"),
        ),
        with(
            with(went_well(ours, 2), "timestamp", earlier),
            status,
            failed("8.2.7", "3.8"),
        ),
    ] {
        assert_taken(&world, &body).await;
        assert_eq!(world.table(), before, "{body}");
    }
    assert_eq!(world.activation(&id).await["status"], "BUSY");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_is_acted_on_once_in_every_spelling() {
    let world = TestStack::new().await;
    let id = world.begin(&esim(line::ANNA)).await;
    world.await_waiting(&id).await;
    let record = world.record(&id).await;
    let padded = format!("{}F", record.new_sim);

    let mut downloaded = went_well(&padded, 0);
    downloaded["notificationPointId"] = json!("3");
    downloaded["timeStamp"] = json!(Timestamp::now().as_second().to_string());
    downloaded["unknown"] = json!([1]);
    downloaded.as_object_mut().unwrap().remove("timestamp");
    downloaded.as_object_mut().unwrap().remove("eid");
    assert_taken(&world, &downloaded).await;
    assert_eq!(world.activation(&id).await["info"]["profile"], "downloaded");
    let wrong_code = with(went_well(&padded, 2), "notificationPointStatus", failed("8.2.7", "3.8"));
    assert_taken(&world, &wrong_code).await;
    let before = world.table();
    assert_taken(&world, &downloaded).await;
    assert_taken(&world, &wrong_code).await;
    assert_eq!(world.table(), before);

    let installed = went_well(record.new_sim.as_str(), 4);
    assert_taken(&world, &installed).await;
    world.await_status(&id, "DONE").await;
    let before = world.table();
    for late in [
        installed.clone(),
        downloaded,
        with(installed, "notificationPointStatus", failed("8.1", "4.8")),
    ] {
        assert_taken(&world, &late).await;
        assert_eq!(world.table(), before, "{late}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_that_overtake_each_other_end_well() {
    let world = TestStack::new().await;
    let id = world.begin(&esim(line::ANNA)).await;
    world.await_waiting(&id).await;
    let iccid = world.record(&id).await.new_sim;
    assert_taken(&world, &went_well(iccid.as_str(), 4)).await;
    assert_taken(&world, &went_well(iccid.as_str(), 3)).await;
    let done = world.await_status(&id, "DONE").await;
    assert_eq!(done["info"]["profile"], "installed");
    let carrier = world.stack.carrier.as_ref().unwrap();
    assert_eq!(carrier.orders_of(&id).unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_that_is_none_is_refused() {
    let world = TestStack::new().await;
    let id = world.begin(&esim(line::ANNA)).await;
    world.await_waiting(&id).await;
    let good = went_well(world.record(&id).await.new_sim.as_str(), 4);
    let mut bodies = ["", "{", "<xml/>", "[]", "4", "null"].map(str::to_owned).to_vec();
    for field in ["iccid", "notificationPointId", "notificationPointStatus"] {
        let mut body = good.clone();
        body.as_object_mut().unwrap().remove(field);
        bodies.push(body.to_string());
        bodies.push(with(good.clone(), field, Value::Null).to_string());
    }
    bodies.push(with(good.clone(), "notificationPointId", json!("four")).to_string());
    bodies.push(with(good.clone(), "iccid", json!("12")).to_string());
    let before = world.table();
    for body in bodies {
        let answer = report(&world, &body).await;
        assert_eq!((answer.status, &answer.json()["code"]), (400, &json!("400")), "{body}");
    }
    assert_eq!(world.table(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_end_of_an_order_ends_the_swap_once() {
    let world = slow_world(&[("ASK_AFTER", "50ms")]).await;
    for (state, swap, status, failure) in [
        ("completed", card(line::ANNA, FREE_CARD), "DONE", Value::Null),
        (
            "failed",
            card(line::BRAM, "8931086000000001029"),
            "ERROR",
            json!("networkFailed"),
        ),
        (
            "rejected",
            card(line::CARLA, "8931086000000001037"),
            "ERROR",
            json!("networkRejected"),
        ),
        (
            "cancelled",
            card(line::DORTE, "1234567890123456789"),
            "ERROR",
            json!("networkCancelled"),
        ),
        // Held, and over before the phone came.
        ("cancelled", esim(line::BRAM), "ERROR", json!("networkCancelled")),
        ("completed", esim(line::CARLA), "DONE", Value::Null),
    ] {
        let id = world.begin(&swap).await;
        let esim = swap["eSim"] == true;
        if esim {
            world.await_waiting(&id).await;
        }
        world.await_status(&id, "BUSY").await;
        let told = own_event(&world, &id, state).await;
        assert_told(&world, &told).await;
        let seen = world.await_status(&id, status).await;
        assert_eq!(seen["info"]["failure"]["code"], failure, "{state}");
        assert_eq!(seen["activatedDate"].is_string(), status == "DONE", "{state}");
        let before = world.table();
        // A number that moves after all is the truth, and another story.
        let completed = (status == "DONE").then_some("completed");
        for late in ["inProgress", "failed", "rejected", "cancelled", "partial"]
            .into_iter()
            .chain(completed)
        {
            assert_told(&world, &told).await;
            assert_told(&world, &own_event(&world, &id, late).await).await;
            assert_eq!(world.table(), before, "{late} after {state}");
        }
        if esim && status == "ERROR" {
            let smdp = world.stack.smdp.as_ref().unwrap();
            let profile = smdp.profile_state(&world.record(&id).await.new_sim).unwrap();
            assert_eq!(profile, simulators::ProfileState::Available);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_moves_nothing_changes_nothing() {
    let world = slow_world(&[]).await;
    let id = world.begin(&esim(line::ANNA)).await;
    world.await_waiting(&id).await;
    let before = world.table();
    for body in [
        own_event(&world, &id, "acknowledged").await,
        own_event(&world, &id, "held").await,
        own_event(&world, &id, "pending").await,
        own_event(&world, &id, "assessingCancellation").await,
        own_event(&world, &id, "pendingCancellation").await,
        event("01J9Z7K3N5Q8R2T4V6W8X0Y1Z3", "completed"),
        event("not ours: #", "completed"),
        event("", "failed"),
    ] {
        assert_told(&world, &body).await;
        assert_eq!(world.table(), before, "{body}");
    }
    for body in [
        "",
        "{",
        "[]",
        "null",
        "{}",
        r#"{"event":{}}"#,
        r#"{"event":{"serviceOrder":{}}}"#,
    ] {
        let answer = tell(&world, body).await;
        assert_eq!((answer.status, &answer.json()["code"]), (400, &json!("400")), "{body}");
    }
    assert_eq!(world.table(), before);
    assert_eq!(world.activation(&id).await["status"], "BUSY");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_partial_order_its_one_item_decides() {
    let wire = FaultyProxy::new().await;
    let world = slow_world(&[("NETWORK_URL", &wire.url), ("ASK_AFTER", "60s")]).await;
    wire.connect(&world.stack.endpoints.network);
    for (item, swap, status) in [
        ("completed", card(line::ANNA, FREE_CARD), "DONE"),
        ("failed", card(line::BRAM, "8931086000000001029"), "ERROR"),
    ] {
        let id = world.begin(&swap).await;
        world.await_status(&id, "BUSY").await;
        // The event does not tell; the order does.
        let order = json!({
            "id": "0300010-2025", "externalId": id, "state": "partial",
            "serviceOrderItem": [{"id": "1", "action": "modify", "state": item, "service": {}}],
        });
        wire.plan("GET", ProxyFault::Answer(200, order.to_string()));
        assert_told(&world, &own_event(&world, &id, "partial").await).await;
        world.await_status(&id, status).await;
        assert!(wire.is_spent());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_of_another_order_moves_nothing() {
    let world = TestStack::new().await;
    let id = world.begin(&esim(line::ANNA)).await;
    world.await_status(&id, "BUSY").await;
    for state in ["completed", "failed"] {
        let event = json!({"eventId": "E-1", "event": {"serviceOrder": {
            "id": "0000000-0000", "externalId": id, "state": state,
        }}});
        let path = "/tmf-api/serviceOrdering/v4/listener/serviceOrderStateChangeEvent";
        assert_eq!(world.send("POST", path, &[], event.to_string()).await.status, 201);
    }
    // The network is asked, and says that its order is held.
    let code = activation_code(&world.await_mail(&id).await);
    assert_eq!(world.activation(&id).await["status"], "BUSY");
    assert_eq!(world.install(&code, "8E9!#").await.status, 200);
    world.await_status(&id, "DONE").await;
}
