//! Cancel and resend: who may, until when, and what is left of a swap that was cancelled.

use serde_json::{Value, json};
use tests::{FREE_CARD, FaultyProxy, ProxyFault, TestResponse, TestStack, activation_code, card, esim, line};

const CANCEL: &str = "CancelActivation";
const RESEND: &str = "ResendEsim";

async fn cancel(world: &TestStack, id: &str) -> TestResponse {
    world.manage(&world.owner("C-100"), CANCEL, id, "").await
}

async fn resend(world: &TestStack, id: &str, body: &str) -> TestResponse {
    world.manage(&world.owner("C-100"), RESEND, id, body).await
}

fn assert_refused(answer: &TestResponse, status: u16, code: &str) {
    let (found, found_code, _) = answer.refusal();
    assert_eq!((found, found_code.as_str()), (status, code), "{answer:?}");
}

/// A world whose network is reached over a wire.
async fn with_wired_network(settings: &[(&str, &str)]) -> (TestStack, FaultyProxy) {
    let wire = FaultyProxy::new().await;
    let mut settings = settings.to_vec();
    settings.push(("NETWORK_URL", wire.url.as_str()));
    let world = TestStack::with(&settings).await;
    wire.connect(&world.stack.endpoints.network);
    (world, wire)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_swap_leaves_everything_as_it_was() {
    let world = TestStack::new().await;
    let id = world.begin(&esim(line::ANNA)).await;
    let code = world.await_waiting(&id).await;
    let first = cancel(&world, &id).await;
    assert_eq!(first.status, 200, "{first:?}");
    let seen = first.json();
    assert_eq!(seen["status"], "ERROR");
    assert_eq!(seen["info"]["failure"]["code"], "cancelled");
    assert_eq!(
        cancel(&world, &id).await.body,
        first.body,
        "a second one answers as the first"
    );

    let record = world.record(&id).await;
    let anna = world.line(line::ANNA).await;
    assert_eq!((anna.open_swap, &anna.current_sim), (None, &record.old_sim));
    let sim = world.sim(record.new_sim.as_str()).await;
    assert_eq!((sim.state.as_str(), sim.holder), ("FREE", None));
    assert!(
        record.timeline.iter().any(|event| event.what == "OWNER test cancels"),
        "{:?}",
        record.timeline
    );
    // Nobody can install it any more, and the line can be swapped again.
    assert_eq!(world.install(&code, "8E9!#").await.status, 404);
    let again = world.begin(&esim(line::ANNA)).await;
    world.await_waiting(&again).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swap_that_nobody_outside_knows_of_is_cancelled_at_once() {
    // Nothing wakes it: the stream is off, and the sweeper gives the stream a minute.
    let world = TestStack::start(local::stack::Options {
        stream_batch: None,
        settings: [("LEASE".to_owned(), "60s".to_owned())].into(),
        ..TestStack::options()
    })
    .await;
    let id = world.begin(&card(line::ANNA, FREE_CARD)).await;
    let answer = world.manage(&world.admin(), CANCEL, &id, "").await;
    // It ends when the sweeper comes; until then it is shown as it is.
    assert_eq!(answer.json()["status"], "INIT");
    assert_eq!(answer.json()["info"]["failure"]["code"], "cancelled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_late() {
    let world = TestStack::new().await;
    let physical = world.begin(&card(line::BRAM, FREE_CARD)).await;
    world.await_status(&physical, "DONE").await;
    assert_refused(&cancel(&world, &physical).await, 409, "TooLate");

    let id = world.begin(&esim(line::ANNA)).await;
    let code = world.await_waiting(&id).await;
    assert_eq!(world.install(&code, "8E9!#").await.status, 200);
    world.await_status(&id, "DONE").await;
    for answer in [cancel(&world, &id).await, resend(&world, &id, "").await] {
        assert_refused(&answer, 409, "TooLate");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_free_before_both_peers_have_settled() {
    let (world, wire) = with_wired_network(&[("CANCEL_WAIT", "1ms"), ("ASK_AFTER", "20ms")]).await;
    let id = world.begin(&esim(line::ANNA)).await;
    world.await_waiting(&id).await;
    wire.cut();
    let answer = cancel(&world, &id).await;
    assert_eq!(answer.status, 200);
    let seen = answer.json();
    assert_eq!(
        (&seen["status"], &seen["info"]["failure"]["code"]),
        (&json!("BUSY"), &json!("cancelled"))
    );
    let record = world.record(&id).await;
    let sim = world.sim(record.new_sim.as_str()).await;
    assert_eq!(sim.state.as_str(), "BUSY");
    assert!(world.line(line::ANNA).await.open_swap.is_some());
    wire.connect(&world.stack.endpoints.network);
    let seen = world.await_status(&id, "ERROR").await;
    assert_eq!(seen["info"]["failure"]["code"], "cancelled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resend_is_one_more_mail_to_an_address_that_may_be_corrected() {
    let world = TestStack::new().await;
    let id = world.begin(&esim(line::ANNA)).await;
    let code = world.await_waiting(&id).await;
    let answer = resend(&world, &id, r#"{"email":"other@example.com"}"#).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let seen = answer.json();
    assert_eq!(
        (&seen["status"], &seen["info"]["delivery"]),
        (&json!("BUSY"), &json!("pending"))
    );
    world.await_waiting(&id).await;
    let mails = world.mails(&id);
    assert_eq!(mails.len(), 2);
    assert_eq!(activation_code(&mails[0]), code);
    assert!(String::from_utf8_lossy(&mails[0]).contains("other@example.com"));

    // A listing shows the newest mail as a query by id does.
    let listed = world
        .query(&world.admin(), &format!("subscriptionId={}", line::ANNA))
        .await;
    assert_eq!(listed.json()["results"][0], world.activation(&id).await);

    let soon = resend(&world, &id, "").await;
    assert_refused(&soon, 429, "TooManyRequests");
    let wait: u32 = soon.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_corrected_address_stops_the_mail_to_the_wrong_one() {
    let ses = FaultyProxy::new().await;
    let world = TestStack::with(&[
        ("AWS_ENDPOINT_URL_SES", ses.url.as_str()),
        ("MAIL_RETRY_AFTER", "300ms"),
    ])
    .await;
    ses.connect(&world.stack.endpoints.ses);
    let throttled = "<ErrorResponse><Error><Type>Sender</Type><Code>Throttling</Code></Error></ErrorResponse>";
    ses.plan("POST /", ProxyFault::Answer(400, throttled.to_owned()));
    let id = world.begin(&esim(line::ANNA)).await;
    world.await_status(&id, "BUSY").await;
    while !ses.is_spent() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(
        resend(&world, &id, r#"{"email":"right@example.com"}"#).await.status,
        200
    );
    world.await_waiting(&id).await;
    let first = domain::ActivationId::parse(&id).unwrap();
    // The first one is given up when its time comes.
    loop {
        let mail = world.stack.store.delivery(&first, 1).await.unwrap().unwrap();
        if mail.state == domain::DeliveryState::Failed {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let sent = world.mails(&id);
    assert_eq!(sent.len(), 1);
    assert!(String::from_utf8_lossy(&sent[0]).contains("right@example.com"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_changes_nothing() {
    let world = TestStack::new().await;
    let id = world.begin(&esim(line::ANNA)).await;
    world.await_waiting(&id).await;
    let physical = world.begin(&card(line::BRAM, FREE_CARD)).await;
    world.await_status(&physical, "DONE").await;
    let before = world.table();
    let owner = world.owner("C-100");
    let faults = |answer: &TestResponse| answer.refusal();
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
            let answer = world.send("POST", &path, &[("authorization", &bearer)], "").await;
            let (status, code, fields) = faults(&answer);
            assert_eq!((status, code.as_str(), fields), expected, "{path}");
        }
        let missing = world.manage(&owner, operation, "NONE", "").await;
        let foreign = world.manage(&world.owner("C-200"), operation, &id, "").await;
        assert_eq!((foreign.status, foreign.body), (missing.status, missing.body));
        let nobody = world
            .manage(&world.token("GUEST", None, None), operation, &id, "")
            .await;
        assert_refused(&nobody, 403, "Forbidden");
        assert_eq!(
            world
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
        assert_refused(&world.manage(&owner, RESEND, &id, body).await, status, code);
    }
    let both = world.manage(&owner, RESEND, "%23", r#"{"email":"no"}"#).await;
    let fields: Vec<_> = faults(&both).2.into_iter().map(|(_, field)| field).collect();
    assert_eq!(fields, ["id", "email"], "all faults at once");
    let long = json!({"email": format!("{}@example.com", "a".repeat(300))}).to_string();
    assert_refused(&world.manage(&owner, RESEND, &id, &long).await, 400, "MaximumLength");
    let of_card = world.manage(&owner, RESEND, &physical, "").await;
    assert_eq!(faults(&of_card).2, of("InvalidValue", "id"));
    assert_eq!(world.table(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_completed_that_comes_first_wins() {
    // The network cannot be told to cancel, and has completed by the time it can be asked.
    let (world, wire) = with_wired_network(&[("CANCEL_WAIT", "10s"), ("ASK_AFTER", "20ms")]).await;
    let id = world.begin(&esim(line::ANNA)).await;
    world.await_waiting(&id).await;
    wire.cut();
    let number = world.record(&id).await.order_number.unwrap();
    let completed: Value = json!({
        "eventId": "e-1", "eventTime": "2026-11-22T12:00:00Z", "eventType": "ServiceOrderStateChangeEvent",
        "event": {"serviceOrder": {"id": number, "externalId": id, "state": "completed"}},
    });
    let path = "/tmf-api/serviceOrdering/v4/listener/serviceOrderStateChangeEvent";
    let (cancelled, _) = tokio::join!(cancel(&world, &id), async {
        while world.record(&id).await.phase != domain::Phase::Ending {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        world
            .send(
                "POST",
                path,
                &[("content-type", "application/json")],
                completed.to_string(),
            )
            .await
    });
    assert_refused(&cancelled, 409, "TooLate");
    assert_eq!(world.activation(&id).await["status"], "DONE");
}
