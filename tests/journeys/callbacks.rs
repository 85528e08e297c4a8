//! Callbacks of the SM-DP+ and the network: each gets the usual response whatever it says, and takes effect at most
//! once.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use local::stack::Options;
use serde_json::{Value, json};
use simulators::CallbackMode;
use tests::{FREE_CARD, FaultyProxy, ProxyFault, TestResponse, TestStack, activation_code, card, esim, line};

/// A service whose network starts orders but does not complete them by itself.
async fn slow_service(settings: &[(&str, &str)]) -> TestStack {
    TestStack::start(Options {
        network_delay: Duration::from_secs(3600),
        ..TestStack::options_with(settings)
    })
    .await
}

/// Sends ES2+ `handleDownloadProgressInfo`.
async fn report(service: &TestStack, body: &str) -> TestResponse {
    service
        .send(
            "POST",
            "/gsma/rsp2/es2plus/handleDownloadProgressInfo",
            &[],
            body.to_owned(),
        )
        .await
}

/// A report that this notification point of a profile succeeded at this moment.
fn succeeded(iccid: &str, point: u32) -> Value {
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

/// Sends a report, which must be accepted.
async fn assert_report_accepted(service: &TestStack, body: &Value) {
    let response = report(service, &body.to_string()).await;
    assert_eq!((response.status, response.body.as_str()), (204, ""), "{body}");
    assert_eq!(response.headers["x-admin-protocol"], "gsma/rsp/v2.5.0");
}

/// Sends TMF641 `serviceOrderStateChangeEvent`.
async fn send_event(service: &TestStack, body: &str) -> TestResponse {
    let path = "/tmf-api/serviceOrdering/v4/listener/serviceOrderStateChangeEvent";
    service.send("POST", path, &[], body.to_owned()).await
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

/// An event of the swap's own order.
async fn own_event(service: &TestStack, id: &str, state: &str) -> Value {
    let mut event = event(id, state);
    event["event"]["serviceOrder"]["id"] = json!(service.record(id).await.order_number);
    event
}

/// Sends an event, which must be accepted.
async fn assert_event_accepted(service: &TestStack, body: &Value) {
    let response = send_event(service, &body.to_string()).await;
    assert_eq!(response.status, 201, "{body} {response:?}");
    assert!(response.json()["id"].is_string(), "{response:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_about_no_open_step_changes_nothing() {
    let service = slow_service(&[]).await;
    let id = service.start_swap(&esim(line::ANNA)).await;
    service.await_waiting(&id).await;
    let record = service.record(&id).await;
    let ours = record.new_sim.as_str();
    let earlier = record.ordering_since.unwrap() - SignedDuration::from_secs(3601);
    let earlier = json!(earlier.to_string());
    let status = "notificationPointStatus";
    let before = service.table();
    for body in [
        // Profiles of no swap: unknown, free, on a line, and a card.
        succeeded("8931086000000009999", 4),
        succeeded("8931086000000002985", 4),
        succeeded(FREE_CARD, 4),
        succeeded(record.old_sim.as_str(), 4),
        with(succeeded(FREE_CARD, 4), status, failed("8.1", "4.8")),
        // The swap's profile, but no notification point of a swap.
        succeeded(ours, 1),
        succeeded(ours, 2),
        succeeded(ours, 100),
        with(succeeded(ours, 3), status, failed("8.1", "4.8")),
        // An earlier life of the same profile.
        with(succeeded(ours, 3), "timestamp", earlier.clone()),
        with(succeeded(ours, 4), "timestamp", earlier.clone()),
        with(
            with(succeeded(ours, 4), "timestamp", earlier.clone()),
            status,
            failed("8.1", "4.8"),
        ),
        with(
            with(succeeded(ours, 2), "timestamp", earlier),
            status,
            failed("8.2.7", "3.8"),
        ),
    ] {
        assert_report_accepted(&service, &body).await;
        assert_eq!(service.table(), before, "{body}");
    }
    assert_eq!(service.activation(&id).await["status"], "BUSY");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_takes_effect_once_in_every_spelling() {
    let service = TestStack::new().await;
    let id = service.start_swap(&esim(line::ANNA)).await;
    service.await_waiting(&id).await;
    let record = service.record(&id).await;
    let padded = format!("{}F", record.new_sim);

    let mut downloaded = succeeded(&padded, 0);
    downloaded["notificationPointId"] = json!("3");
    downloaded["timeStamp"] = json!(Timestamp::now().as_second().to_string());
    downloaded["unknown"] = json!([1]);
    downloaded.as_object_mut().unwrap().remove("timestamp");
    downloaded.as_object_mut().unwrap().remove("eid");
    assert_report_accepted(&service, &downloaded).await;
    assert_eq!(service.activation(&id).await["info"]["profile"], "downloaded");
    let wrong_code = with(succeeded(&padded, 2), "notificationPointStatus", failed("8.2.7", "3.8"));
    assert_report_accepted(&service, &wrong_code).await;
    let before = service.table();
    assert_report_accepted(&service, &downloaded).await;
    assert_report_accepted(&service, &wrong_code).await;
    assert_eq!(service.table(), before);

    let installed = succeeded(record.new_sim.as_str(), 4);
    assert_report_accepted(&service, &installed).await;
    service.await_status(&id, "DONE").await;
    let before = service.table();
    for late in [
        installed.clone(),
        downloaded,
        with(installed, "notificationPointStatus", failed("8.1", "4.8")),
    ] {
        assert_report_accepted(&service, &late).await;
        assert_eq!(service.table(), before, "{late}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swap_is_done_by_reports_under_the_name_of_sgp22_v3() {
    let service = TestStack::new().await;
    service.stack.smdp.as_ref().unwrap().send_callbacks(CallbackMode::V3);
    let path = "/gsma/rsp2/es2plus/handleNotification";
    let id = service.start_swap(&esim(line::ANNA)).await;
    let code = activation_code(&service.await_mail(&id).await);
    let iccid = service.record(&id).await.new_sim;
    for (body, status) in [
        (succeeded(iccid.as_str(), 3).to_string(), 204),
        ("{}".to_owned(), 400),
        ("<xml/>".to_owned(), 400),
    ] {
        let response = service.send("POST", path, &[], body.clone()).await;
        assert_eq!(response.status, status, "{body}");
    }
    assert_eq!(service.activation(&id).await["info"]["profile"], "downloaded");
    assert_eq!(service.install(&code, "8E9!#").await.status, 200);
    let done = service.await_status(&id, "DONE").await;
    assert_eq!(done["info"]["profile"], "installed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_may_arrive_in_any_order() {
    let service = TestStack::new().await;
    let id = service.start_swap(&esim(line::ANNA)).await;
    service.await_waiting(&id).await;
    let iccid = service.record(&id).await.new_sim;
    assert_report_accepted(&service, &succeeded(iccid.as_str(), 4)).await;
    assert_report_accepted(&service, &succeeded(iccid.as_str(), 3)).await;
    let done = service.await_status(&id, "DONE").await;
    assert_eq!(done["info"]["profile"], "installed");
    let network = service.stack.network.as_ref().unwrap();
    assert_eq!(network.orders_of(&id).unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_no_report_is_rejected() {
    let service = TestStack::new().await;
    let id = service.start_swap(&esim(line::ANNA)).await;
    service.await_waiting(&id).await;
    let good = succeeded(service.record(&id).await.new_sim.as_str(), 4);
    let mut bodies = ["", "{", "<xml/>", "[]", "4", "null"].map(str::to_owned).to_vec();
    for field in ["iccid", "notificationPointId", "notificationPointStatus"] {
        let mut body = good.clone();
        body.as_object_mut().unwrap().remove(field);
        bodies.push(body.to_string());
        bodies.push(with(good.clone(), field, Value::Null).to_string());
    }
    bodies.push(with(good.clone(), "notificationPointId", json!("four")).to_string());
    bodies.push(with(good.clone(), "iccid", json!("12")).to_string());
    let before = service.table();
    for body in bodies {
        let response = report(&service, &body).await;
        assert_eq!(
            (response.status, &response.json()["code"]),
            (400, &json!("400")),
            "{body}"
        );
    }
    assert_eq!(service.table(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_end_of_an_order_ends_the_swap_once() {
    let service = slow_service(&[("ASK_AFTER", "50ms")]).await;
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
        // The order is still held, and fails before a phone installs the profile.
        ("cancelled", esim(line::BRAM), "ERROR", json!("networkCancelled")),
        ("completed", esim(line::CARLA), "DONE", Value::Null),
    ] {
        let id = service.start_swap(&swap).await;
        let esim = swap["eSim"] == true;
        if esim {
            service.await_waiting(&id).await;
        }
        service.await_status(&id, "BUSY").await;
        let ending = own_event(&service, &id, state).await;
        assert_event_accepted(&service, &ending).await;
        let seen = service.await_status(&id, status).await;
        assert_eq!(seen["info"]["failure"]["code"], failure, "{state}");
        assert_eq!(seen["activatedDate"].is_string(), status == "DONE", "{state}");
        if esim {
            // Its last mail changes no more.
            service
                .await_activation(&id, |swap| swap["info"]["delivery"] == "delivered")
                .await;
        }
        let before = service.table();
        // Not `completed` after an ERROR: a completion after the end is true, and changes the swap.
        let completed = (status == "DONE").then_some("completed");
        for late in ["inProgress", "failed", "rejected", "cancelled", "partial"]
            .into_iter()
            .chain(completed)
        {
            assert_event_accepted(&service, &ending).await;
            assert_event_accepted(&service, &own_event(&service, &id, late).await).await;
            assert_eq!(service.table(), before, "{late} after {state}");
        }
        if esim && status == "ERROR" {
            let smdp = service.stack.smdp.as_ref().unwrap();
            let profile = smdp.profile_state(&service.record(&id).await.new_sim).unwrap();
            assert_eq!(profile, simulators::ProfileState::Available);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_about_no_open_step_changes_nothing() {
    let service = slow_service(&[]).await;
    let id = service.start_swap(&esim(line::ANNA)).await;
    service.await_waiting(&id).await;
    let before = service.table();
    for body in [
        own_event(&service, &id, "acknowledged").await,
        own_event(&service, &id, "held").await,
        own_event(&service, &id, "pending").await,
        own_event(&service, &id, "assessingCancellation").await,
        own_event(&service, &id, "pendingCancellation").await,
        event("01J9Z7K3N5Q8R2T4V6W8X0Y1Z3", "completed"),
        event("not ours: #", "completed"),
        event("", "failed"),
    ] {
        assert_event_accepted(&service, &body).await;
        assert_eq!(service.table(), before, "{body}");
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
        let response = send_event(&service, body).await;
        assert_eq!(
            (response.status, &response.json()["code"]),
            (400, &json!("400")),
            "{body}"
        );
    }
    assert_eq!(service.table(), before);
    assert_eq!(service.activation(&id).await["status"], "BUSY");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_item_decides_a_partial_order() {
    let proxy = FaultyProxy::new().await;
    let service = slow_service(&[("NETWORK_URL", &proxy.url), ("ASK_AFTER", "60s")]).await;
    proxy.connect(&service.stack.endpoints.network);
    for (item, swap, status) in [
        ("completed", card(line::ANNA, FREE_CARD), "DONE"),
        ("failed", card(line::BRAM, "8931086000000001029"), "ERROR"),
    ] {
        let id = service.start_swap(&swap).await;
        service.await_status(&id, "BUSY").await;
        // The event does not have the state of the item; the order does.
        let order = json!({
            "id": "0300010-2025", "externalId": id, "state": "partial",
            "serviceOrderItem": [{"id": "1", "action": "modify", "state": item, "service": {}}],
        });
        proxy.plan("GET", ProxyFault::Respond(200, order.to_string()));
        assert_event_accepted(&service, &own_event(&service, &id, "partial").await).await;
        service.await_status(&id, status).await;
        assert!(proxy.is_spent());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_of_another_order_changes_nothing() {
    let service = TestStack::new().await;
    let id = service.start_swap(&esim(line::ANNA)).await;
    service.await_status(&id, "BUSY").await;
    for state in ["completed", "failed"] {
        let event = json!({"eventId": "E-1", "event": {"serviceOrder": {
            "id": "0000000-0000", "externalId": id, "state": state,
        }}});
        let path = "/tmf-api/serviceOrdering/v4/listener/serviceOrderStateChangeEvent";
        assert_eq!(service.send("POST", path, &[], event.to_string()).await.status, 201);
    }
    // The service polls the network, which reports that its order is held.
    let code = activation_code(&service.await_mail(&id).await);
    assert_eq!(service.activation(&id).await["status"], "BUSY");
    assert_eq!(service.install(&code, "8E9!#").await.status, 200);
    service.await_status(&id, "DONE").await;
}
