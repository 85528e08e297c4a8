//! Cancel and resend: who may send the request, until when, and the state after a cancelled swap.

use serde_json::{Value, json};
use tests::{FREE_CARD, FaultyProxy, ProxyFault, TestResponse, TestStack, activation_code, card, esim, line};

const CANCEL: &str = "CancelActivation";
const RESEND: &str = "ResendEsim";

async fn cancel(service: &TestStack, id: &str) -> TestResponse {
    service.manage(&service.owner("C-100"), CANCEL, id, "").await
}

async fn resend(service: &TestStack, id: &str, body: &str) -> TestResponse {
    service.manage(&service.owner("C-100"), RESEND, id, body).await
}

fn assert_rejected(response: &TestResponse, status: u16, code: &str) {
    let (found, found_code, _) = response.error();
    assert_eq!((found, found_code.as_str()), (status, code), "{response:?}");
}

/// A service that reaches its network through a proxy.
async fn with_proxied_network(settings: &[(&str, &str)]) -> (TestStack, FaultyProxy) {
    let proxy = FaultyProxy::new().await;
    let mut settings = settings.to_vec();
    settings.push(("NETWORK_URL", proxy.url.as_str()));
    let service = TestStack::with(&settings).await;
    proxy.connect(&service.stack.endpoints.network);
    (service, proxy)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_swap_leaves_everything_as_it_was() {
    let service = TestStack::new().await;
    let id = service.start_swap(&esim(line::ANNA)).await;
    let code = service.await_waiting(&id).await;
    let first = cancel(&service, &id).await;
    assert_eq!(first.status, 200, "{first:?}");
    let seen = first.json();
    assert_eq!(seen["status"], "ERROR");
    assert_eq!(seen["info"]["failure"]["code"], "cancelled");
    assert_eq!(
        cancel(&service, &id).await.body,
        first.body,
        "a second cancel gets the same response"
    );

    let record = service.record(&id).await;
    let anna = service.line(line::ANNA).await;
    assert_eq!((anna.open_swap, &anna.current_sim), (None, &record.old_sim));
    let sim = service.sim(record.new_sim.as_str()).await;
    assert_eq!((sim.state.as_str(), sim.holder), ("FREE", None));
    assert!(
        record.timeline.iter().any(|event| event.what == "OWNER test cancels"),
        "{:?}",
        record.timeline
    );
    // No phone can install the profile, and the line can be swapped again.
    assert_eq!(service.install(&code, "8E9!#").await.status, 404);
    let again = service.start_swap(&esim(line::ANNA)).await;
    service.await_waiting(&again).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swap_without_orders_is_cancelled_at_once() {
    // Nothing wakes the swap: the stream is off, and the sweeper gives the stream a minute.
    let service = TestStack::start(local::stack::Options {
        stream_batch: None,
        ..TestStack::options_with(&[("LEASE", "60s")])
    })
    .await;
    let id = service.start_swap(&card(line::ANNA, FREE_CARD)).await;
    let response = service.manage(&service.admin(), CANCEL, &id, "").await;
    // The swap ends at the next sweep; until then, its status does not change.
    assert_eq!(response.json()["status"], "INIT");
    assert_eq!(response.json()["info"]["failure"]["code"], "cancelled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_can_be_too_late() {
    let service = TestStack::new().await;
    let physical = service.start_swap(&card(line::BRAM, FREE_CARD)).await;
    service.await_status(&physical, "DONE").await;
    assert_rejected(&cancel(&service, &physical).await, 409, "TooLate");

    let id = service.start_swap(&esim(line::ANNA)).await;
    let code = service.await_waiting(&id).await;
    assert_eq!(service.install(&code, "8E9!#").await.status, 200);
    service.await_status(&id, "DONE").await;
    for response in [cancel(&service, &id).await, resend(&service, &id, "").await] {
        assert_rejected(&response, 409, "TooLate");
        assert!(response.body.contains("The swap is done."), "{response:?}");
    }

    let cancelled = service.start_swap(&esim(line::BRAM)).await;
    service.await_waiting(&cancelled).await;
    assert_eq!(cancel(&service, &cancelled).await.status, 200);
    service.await_status(&cancelled, "ERROR").await;
    let response = resend(&service, &cancelled, "").await;
    assert_rejected(&response, 409, "TooLate");
    assert!(response.body.contains("Submit a new one."), "{response:?}");
    assert!(!response.body.contains("installed"), "{response:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_free_before_both_peers_have_settled() {
    let (service, proxy) = with_proxied_network(&[("CANCEL_WAIT", "1ms"), ("ASK_AFTER", "20ms")]).await;
    let id = service.start_swap(&esim(line::ANNA)).await;
    service.await_waiting(&id).await;
    proxy.disconnect();
    let response = cancel(&service, &id).await;
    assert_eq!(response.status, 200);
    let seen = response.json();
    assert_eq!(
        (&seen["status"], &seen["info"]["failure"]["code"]),
        (&json!("BUSY"), &json!("cancelled"))
    );
    let record = service.record(&id).await;
    let sim = service.sim(record.new_sim.as_str()).await;
    assert_eq!(sim.state.as_str(), "BUSY");
    assert!(service.line(line::ANNA).await.open_swap.is_some());
    proxy.connect(&service.stack.endpoints.network);
    let seen = service.await_status(&id, "ERROR").await;
    assert_eq!(seen["info"]["failure"]["code"], "cancelled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resend_is_another_mail_and_can_correct_the_address() {
    let service = TestStack::new().await;
    let id = service.start_swap(&esim(line::ANNA)).await;
    let code = service.await_waiting(&id).await;
    let response = resend(&service, &id, r#"{"email":"other@example.com"}"#).await;
    assert_eq!(response.status, 200, "{response:?}");
    let seen = response.json();
    assert_eq!(
        (&seen["status"], &seen["info"]["delivery"]),
        (&json!("BUSY"), &json!("pending"))
    );
    service.await_waiting(&id).await;
    let mails = service.mails(&id);
    assert_eq!(mails.len(), 2);
    assert_eq!(activation_code(&mails[0]), code);
    assert!(String::from_utf8_lossy(&mails[0]).contains("other@example.com"));

    // A listing shows the newest mail, as a query by id does.
    let listed = service
        .query(&service.admin(), &format!("subscriptionId={}", line::ANNA))
        .await;
    assert_eq!(listed.json()["results"][0], service.activation(&id).await);

    let soon = resend(&service, &id, "").await;
    assert_rejected(&soon, 429, "TooManyRequests");
    let wait: u32 = soon.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_corrected_address_stops_the_mail_to_the_wrong_one() {
    let ses = FaultyProxy::new().await;
    let service = TestStack::with(&[
        ("AWS_ENDPOINT_URL_SES", ses.url.as_str()),
        ("MAIL_RETRY_AFTER", "300ms"),
    ])
    .await;
    ses.connect(&service.stack.endpoints.ses);
    let throttled = "<ErrorResponse><Error><Type>Sender</Type><Code>Throttling</Code></Error></ErrorResponse>";
    ses.plan("POST /", ProxyFault::Respond(400, throttled.to_owned()));
    let id = service.start_swap(&esim(line::ANNA)).await;
    service.await_status(&id, "BUSY").await;
    while !ses.is_spent() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(
        resend(&service, &id, r#"{"email":"right@example.com"}"#).await.status,
        200
    );
    service.await_waiting(&id).await;
    let first = domain::ActivationId::parse(&id).unwrap();
    // The first mail is given up when it is due.
    loop {
        let mail = service.stack.store.delivery(&first, 1).await.unwrap().unwrap();
        if mail.state == domain::DeliveryState::Failed {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let sent = service.mails(&id);
    assert_eq!(sent.len(), 1);
    assert!(String::from_utf8_lossy(&sent[0]).contains("right@example.com"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_request_changes_nothing() {
    // The network is not polled, which would change the swap.
    let service = TestStack::with(&[("ASK_AFTER", "1h")]).await;
    let id = service.start_swap(&esim(line::ANNA)).await;
    service.await_waiting(&id).await;
    let physical = service.start_swap(&card(line::BRAM, FREE_CARD)).await;
    service.await_status(&physical, "DONE").await;
    let before = service.table();
    let owner = service.owner("C-100");
    let faults = |response: &TestResponse| response.error();
    let of = |code: &str, field: &str| vec![(code.to_owned(), field.to_owned())];

    for operation in [CANCEL, RESEND] {
        for (query, expected) in [
            ("", (400, "NotEmpty", of("NotEmpty", "id"))),
            ("?id=", (400, "NotEmpty", of("NotEmpty", "id"))),
            ("?id=%23", (400, "InvalidValue", of("InvalidValue", "id"))),
            ("?id=A&ID=B", (400, "InvalidValue", of("InvalidValue", "id"))),
            ("?id=A&force=1", (400, "InvalidValue", of("InvalidValue", "force"))),
            ("?id=NONE", (404, "NotFound", of("NotFound", "id"))),
        ] {
            let bearer = format!("Bearer {owner}");
            let path = format!("/api/{operation}{query}");
            let response = service.send("POST", &path, &[("authorization", &bearer)], "").await;
            let (status, code, fields) = faults(&response);
            assert_eq!((status, code.as_str(), fields), expected, "{path}");
        }
        let missing = service.manage(&owner, operation, "NONE", "").await;
        let foreign = service.manage(&service.owner("C-200"), operation, &id, "").await;
        assert_eq!((foreign.status, foreign.body), (missing.status, missing.body));
        let forbidden = service
            .manage(&service.token("GUEST", None, None), operation, &id, "")
            .await;
        assert_rejected(&forbidden, 403, "Forbidden");
        assert_eq!(
            service
                .send("POST", &format!("/api/{operation}?id={id}"), &[], "")
                .await
                .status,
            401
        );
    }
    for (body, status, code) in [
        (r#"{"email":"no"}"#, 400, "InvalidValue"),
        (r#"{"email":7}"#, 400, "InvalidValue"),
        ("[]", 400, "SerializationException"),
        ("{", 400, "SerializationException"),
    ] {
        assert_rejected(&service.manage(&owner, RESEND, &id, body).await, status, code);
    }
    let both = service.manage(&owner, RESEND, "%23", r#"{"email":"no"}"#).await;
    let fields: Vec<_> = faults(&both).2.into_iter().map(|(_, field)| field).collect();
    assert_eq!(fields, ["id", "email"], "all errors at once");
    let long = json!({"email": format!("{}@example.com", "a".repeat(300))}).to_string();
    assert_rejected(&service.manage(&owner, RESEND, &id, &long).await, 400, "MaximumLength");
    let of_card = service.manage(&owner, RESEND, &physical, "").await;
    assert_eq!(faults(&of_card).2, of("InvalidValue", "id"));
    assert_eq!(service.table(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_completion_before_the_cancel_wins() {
    // The network cannot be reached with a cancel, and has completed the order before it can be polled.
    let (service, proxy) = with_proxied_network(&[("CANCEL_WAIT", "10s"), ("ASK_AFTER", "20ms")]).await;
    let id = service.start_swap(&esim(line::ANNA)).await;
    service.await_waiting(&id).await;
    proxy.disconnect();
    let number = service.record(&id).await.order_number.unwrap();
    let completed: Value = json!({
        "eventId": "e-1", "eventTime": "2026-11-22T12:00:00Z", "eventType": "ServiceOrderStateChangeEvent",
        "event": {"serviceOrder": {"id": number, "externalId": id, "state": "completed"}},
    });
    let path = "/tmf-api/serviceOrdering/v4/listener/serviceOrderStateChangeEvent";
    let (cancelled, _) = tokio::join!(cancel(&service, &id), async {
        while service.record(&id).await.phase != domain::Phase::Ending {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        service
            .send(
                "POST",
                path,
                &[("content-type", "application/json")],
                completed.to_string(),
            )
            .await
    });
    assert_rejected(&cancelled, 409, "TooLate");
    assert_eq!(service.activation(&id).await["status"], "DONE");
}
