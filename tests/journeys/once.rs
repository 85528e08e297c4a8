//! Idempotency: concurrent callers, and repeated requests with an Idempotency-Key and without.

use std::collections::BTreeSet;
use std::sync::Arc;

use domain::{FormFactor, Line, Sim, SimState};
use jiff::Timestamp;
use serde_json::{Value, json};
use tests::stock::{active_line, free_sim};
use tests::{FREE_CARD, TestResponse, TestStack, activation_code, card, esim, line};

const ANNA_S_PHONE: &str = "06-12345601";
const REPLAYED: &str = "idempotency-replayed";

/// The same request with the line's phone number instead of its id.
fn by_phone(body: &Value, phone: &str) -> Value {
    let mut body = body.clone();
    body.as_object_mut().unwrap().remove("subscriptionId");
    body["phoneNumber"] = json!(phone);
    body
}

fn with(body: &Value, field: &str, value: &str) -> Value {
    let mut body = body.clone();
    body[field] = json!(value);
    body
}

fn id(response: &TestResponse) -> String {
    assert_eq!(response.status, 200, "{response:?}");
    response.json()["id"].as_str().unwrap().to_owned()
}

fn is_replay(response: &TestResponse) -> bool {
    response.headers.contains_key(REPLAYED)
}

fn check_conflict(response: &TestResponse, open: &str) {
    assert_eq!(response.status, 409, "{response:?}");
    let status = &response.json()["responseStatus"];
    assert_eq!(status["errorCode"], "SwapInProgress");
    assert_eq!(status["errors"].as_array().unwrap().len(), 1);
    assert_eq!(status["errors"][0]["errorCode"], "SwapInProgress");
    assert_eq!(status["errors"][0]["meta"], json!({"activationId": open}));
}

async fn keyed(service: &TestStack, token: &str, key: &str, body: &Value) -> TestResponse {
    service.submit_with(token, &[("Idempotency-Key", key)], body).await
}

/// Asserts that a replay has every byte of the first body, and the header that marks it.
fn check_replay(replay: &TestResponse, first: &TestResponse) {
    assert_eq!(replay.status, 200, "{replay:?}");
    assert_eq!(replay.body, first.body);
    assert_eq!(replay.headers[REPLAYED], "true");
    assert_eq!(replay.headers["content-type"], first.headers["content-type"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_callers_on_one_line_get_one_swap() {
    // The lease must not expire on a slow machine, because then the function rightly orders the profile again.
    let service = Arc::new(TestStack::with(&[("LEASE", "60s")]).await);
    let owner = service.owner("C-100");
    // Four requests in turn: the same by id and by phone number, and two others.
    let requests = (0..100).map(|n| {
        let body = match n % 4 {
            0 | 1 => esim(line::ANNA),
            _ => with(&esim(line::ANNA), "referenceNumber", &format!("other {n}")),
        };
        let body = match n % 2 {
            0 => body,
            _ => by_phone(&body, ANNA_S_PHONE),
        };
        (owner.as_str(), Vec::new(), body)
    });
    let responses = service.submit_at_once(requests).await;

    let firsts = responses.iter().filter(|a| a.status == 200 && !is_replay(a));
    let firsts: Vec<_> = firsts.collect();
    assert_eq!(firsts.len(), 1, "{firsts:?}");
    let open = id(firsts[0]);
    let winner = firsts[0].json()["referenceNumber"].clone();
    for response in &responses {
        match response.status {
            200 => {
                assert_eq!(id(response), open);
                assert_eq!(response.json()["referenceNumber"], winner);
            }
            _ => check_conflict(response, &open),
        }
    }
    let replays = responses.iter().filter(|a| is_replay(a)).count();
    assert_eq!(replays, if winner == "" { 49 } else { 0 });

    // One SIM, one order at each peer and one mail, and the same when the swap is done.
    let record = service.record(&open).await;
    assert_eq!(service.sims(SimState::Busy), [record.new_sim.as_str()]);
    let mail = service.await_mail(&open).await;
    service.await_status(&open, "BUSY").await;
    let installed = service.install(&activation_code(&mail), "8E9!#").await;
    assert_eq!(installed.status, 200, "{installed:?}");
    service.await_status(&open, "DONE").await;
    let (smdp, network) = (&service.stack.smdp, &service.stack.network);
    let profile_orders = smdp.as_ref().unwrap().orders_of(&record.new_sim);
    let line_orders = network.as_ref().unwrap().orders_of(&open);
    let orders = (profile_orders.unwrap(), line_orders.unwrap());
    assert_eq!(orders, (1, 1), "{:?}", service.record(&open).await.timeline);
    assert_eq!(service.stack.mailbox.list().len(), 1);
    assert_eq!(service.sims(SimState::Busy), Vec::<String>::new());
    let all = service.query(&service.admin(), "").await;
    assert_eq!(all.json()["total"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_key_the_same_request_gets_the_open_swap_as_it_is() {
    let service = TestStack::new().await;
    let owner = service.owner("C-100");
    let body = esim(line::ANNA);
    let first = service.submit(&owner, &body).await;
    let open = id(&first);
    let mail = service.await_mail(&open).await;
    service
        .await_activation(&open, |a| a["status"] == "BUSY" && a["info"]["delivery"] == "delivered")
        .await;
    for again in [
        body.clone(),
        by_phone(&body, ANNA_S_PHONE),
        with(&body, "phoneNumber", ANNA_S_PHONE),
        with(&body, "subscriptionId", &line::ANNA.to_uppercase()),
        with(&body, "referenceNumber", ""),
        with(&body, "somethingUnknown", "x"),
    ] {
        let response = service.submit(&owner, &again).await;
        assert_eq!(
            (response.status, is_replay(&response)),
            (200, true),
            "{again} {response:?}"
        );
        let seen = service.query(&owner, &format!("id={open}")).await.json();
        assert_eq!(response.json(), seen["results"][0]);
    }
    for other in [
        with(&body, "email", "other@example.com"),
        with(&body, "confirmationCode", "other"),
        with(&body, "referenceNumber", "other"),
        with(&body, "newSimCardNumber", FREE_CARD),
        card(line::ANNA, FREE_CARD),
    ] {
        check_conflict(&service.submit(&owner, &other).await, &open);
    }
    // The same body from another caller is another request.
    let subject = service
        .stack
        .tokens
        .issue("OWNER", Some("C-100"), None, "somebody else", 60, Timestamp::now());
    for other in [service.reseller("R-10"), service.admin(), subject] {
        check_conflict(&service.submit(&other, &body).await, &open);
    }
    // After the swap, the same body starts a new one.
    service.install(&activation_code(&mail), "8E9!#").await;
    service.await_status(&open, "DONE").await;
    let next = service.submit(&owner, &body).await;
    assert!(!is_replay(&next));
    assert_ne!(id(&next), open);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_replays_the_first_response_during_and_after_the_swap() {
    let service = TestStack::new().await;
    let owner = service.owner("C-100");
    let body = esim(line::ANNA);
    let first = keyed(&service, &owner, "k-1", &body).await;
    let swap = id(&first);
    assert!(!is_replay(&first));
    let spellings = [
        ("k-1", body.clone()),
        ("\"k-1\"", body.clone()),
        (" k-1 ", by_phone(&body, "+31612345601")),
        ("k-1", with(&body, "phoneNumber", ANNA_S_PHONE)),
    ];
    let others = [
        with(&body, "email", "other@example.com"),
        with(&body, "confirmationCode", "other"),
        with(&body, "subscriptionId", line::BRAM),
        card(line::ANNA, FREE_CARD),
    ];
    let mut mail = Vec::new();
    for moment in ["INIT", "BUSY", "DONE"] {
        match moment {
            "BUSY" => {
                service.await_status(&swap, "BUSY").await;
                mail = service.await_mail(&swap).await;
            }
            "DONE" => {
                service.install(&activation_code(&mail), "8E9!#").await;
                service.await_status(&swap, "DONE").await;
            }
            _ => {}
        }
        for (key, again) in &spellings {
            check_replay(&keyed(&service, &owner, key, again).await, &first);
        }
        for other in &others {
            let response = keyed(&service, &owner, "k-1", other).await;
            let expected = (422, "IdempotencyMismatch".to_owned(), Vec::new());
            assert_eq!(response.error(), expected, "{moment} {other}");
        }
    }
    assert_eq!(service.query(&owner, "").await.json()["total"], 1);

    // The same key from another caller is another key, and the same body with another key is another request.
    let of_reseller = keyed(&service, &service.reseller("R-10"), "k-1", &esim(line::CARLA)).await;
    assert!(!is_replay(&of_reseller));
    assert_ne!(id(&of_reseller), swap);
    let second = keyed(&service, &owner, "k-2", &body).await;
    assert!(!is_replay(&second));
    assert_ne!(id(&second), swap);
    check_conflict(&keyed(&service, &owner, "k-3", &body).await, &id(&second));
    check_replay(&keyed(&service, &owner, "k-1", &body).await, &first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_callers_with_one_key_get_one_response() {
    let service = Arc::new(TestStack::new().await);
    let owner = service.owner("C-100");
    let body = esim(line::ANNA);
    let requests = (0..100).map(|n| {
        let (key, body) = match n % 4 {
            0 => ("k", body.clone()),
            1 => ("\"k\"", body.clone()),
            2 => ("k", by_phone(&body, ANNA_S_PHONE)),
            _ => ("k", with(&body, "phoneNumber", ANNA_S_PHONE)),
        };
        (owner.as_str(), vec![("Idempotency-Key", key.to_owned())], body)
    });
    let responses = service.submit_at_once(requests).await;
    for response in &responses {
        assert_eq!((response.status, &response.body), (200, &responses[0].body));
    }
    assert_eq!(responses.iter().filter(|a| is_replay(a)).count(), 99);

    // A key for each caller: one request succeeds, and only its own caller gets its response.
    let body = esim(line::BRAM);
    let requests = (0..20).map(|n| {
        let header = vec![("Idempotency-Key", format!("k-{n}"))];
        (owner.as_str(), header, body.clone())
    });
    let responses = service.submit_at_once(requests).await;
    let accepted: Vec<_> = responses.iter().filter(|a| a.status == 200).collect();
    assert_eq!(accepted.len(), 1);
    for rejected in responses.iter().filter(|a| a.status != 200) {
        check_conflict(rejected, &id(accepted[0]));
    }
    assert_eq!(service.query(&owner, "").await.json()["total"], 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_request_leaves_the_key_free() {
    let service = TestStack::new().await;
    let owner = service.owner("C-100");
    let good = card(line::ANNA, FREE_CARD);
    for (bad, status) in [
        (json!({}), 400),
        (card("65a1b2c3d4e5f60718293aff", FREE_CARD), 404),
        (card(line::HANNA, FREE_CARD), 403),
        (card(line::ANNA, "8931086000000009999"), 404),
    ] {
        let rejected = keyed(&service, &owner, "k", &bad).await;
        assert_eq!(rejected.status, status, "{rejected:?}");
    }
    let accepted = keyed(&service, &owner, "k", &good).await;
    assert!(!is_replay(&accepted));
    check_replay(&keyed(&service, &owner, "k", &good).await, &accepted);
    // The line is checked before the key.
    let unknown = card("65a1b2c3d4e5f60718293aff", FREE_CARD);
    assert_eq!(keyed(&service, &owner, "k", &unknown).await.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_have_1_to_255_characters() {
    let service = TestStack::new().await;
    let owner = service.owner("C-100");
    let longest = "k".repeat(255);
    let too_long = "k".repeat(256);
    let body = esim(line::ANNA);
    for (key, code) in [
        (too_long.as_str(), "MaximumLength"),
        (&format!("\"{too_long}\""), "MaximumLength"),
        ("", "InvalidValue"),
        ("\"\"", "InvalidValue"),
    ] {
        let rejected = keyed(&service, &owner, key, &body).await;
        let fault = (code.to_owned(), "Idempotency-Key".to_owned());
        let expected = (400, code.to_owned(), vec![fault]);
        assert_eq!(rejected.error(), expected, "{key}");
    }
    let rejected = keyed(&service, &owner, &too_long, &body).await;
    let meta = &rejected.json()["responseStatus"]["errors"][0]["meta"];
    let expected = json!({
        "MinLength": "1", "MaxLength": "255", "TotalLength": "256",
        "PropertyName": "Idempotency-Key", "PropertyValue": too_long,
    });
    assert_eq!(*meta, expected);
    let first = keyed(&service, &owner, &longest, &body).await;
    assert!(!is_replay(&first));
    let quoted = format!("\"{longest}\"");
    check_replay(&keyed(&service, &owner, &quoted, &body).await, &first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_code_is_masked_by_configuration_and_after_its_time() {
    const MASK: &str = "##########";
    let masked = TestStack::with(&[("CONFIRMATION_CODE_ECHO", "masked")]).await;
    let erased = TestStack::with(&[("CODE_KEPT", "1ms")]).await;
    for (service, shown_at_first) in [(masked, MASK), (erased, "8E9!#")] {
        let owner = service.owner("C-100");
        let body = esim(line::ANNA);
        let first = keyed(&service, &owner, "k", &body).await;
        let swap = id(&first);
        assert_eq!(first.json()["info"]["confirmationCode"], shown_at_first);
        check_replay(&keyed(&service, &owner, "k", &body).await, &first);
        let open = service.submit(&owner, &body).await;
        assert_eq!(open.json()["info"]["confirmationCode"], shown_at_first);

        let code = activation_code(&service.await_mail(&swap).await);
        service.await_status(&swap, "BUSY").await;
        assert_eq!(service.install(&code, "8E9!#").await.status, 200);
        let done = service.await_status(&swap, "DONE").await;
        // The response has milliseconds, so the first query may come within the same one.
        let done = match done["info"]["confirmationCode"] == MASK {
            true => done,
            false => service.activation(&swap).await,
        };
        assert_eq!(done["info"]["confirmationCode"], MASK);
        let replay = keyed(&service, &owner, "k", &body).await;
        assert!(is_replay(&replay));
        assert_eq!(replay.body, first.body.replace("8E9!#", MASK));
        // A code that is hidden is compared all the same. One that is erased cannot be.
        let other = with(&body, "confirmationCode", "other");
        let status = if shown_at_first == MASK { 422 } else { 200 };
        assert_eq!(keyed(&service, &owner, "k", &other).await.status, status);
        let other = with(&body, "email", "other@example.com");
        assert_eq!(keyed(&service, &owner, "k", &other).await.status, 422);
    }
}

/// A line of R-30 on the network TELIA, which the sample data does not use, with its SIM.
async fn add_line(service: &TestStack, number: usize) -> String {
    let id = format!("telia-{number}");
    let sim = sim(&format!("8946010000000000{number:03}"), FormFactor::Nano);
    let line = Line {
        customer: "C-400".to_owned(),
        reseller: Some("R-30".to_owned()),
        ..active_line(&id, &format!("+46700000{number:03}"), &sim)
    };
    service.stack.store.add_line(&line, sim).await.unwrap();
    id
}

/// A free SIM of any reseller on TELIA.
fn sim(iccid: &str, form_factor: FormFactor) -> Sim {
    free_sim("TELIA", iccid, form_factor)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_requests_never_share_a_sim() {
    const LINES: usize = 24;
    const ESIMS: usize = 20;
    const CARD: &str = "8946010000000009001";
    let service = Arc::new(TestStack::new().await);
    let mut lines = Vec::new();
    for number in 0..LINES {
        lines.push(add_line(&service, number).await);
    }
    let card_in_stock = sim(CARD, FormFactor::Nano);
    service.stack.store.add_sim(&card_in_stock).await.unwrap();
    for number in 0..ESIMS {
        let iccid = format!("8946010000000008{number:03}");
        let profile = sim(&iccid, FormFactor::Esim);
        service.stack.store.add_sim(&profile).await.unwrap();
    }
    let owner = service.owner("C-400");
    let none = |code: &str, field: &str| (404, code.to_owned(), vec![(code.to_owned(), field.to_owned())]);

    // All lines request the same card.
    let requests = lines.iter().map(|line| (owner.as_str(), Vec::new(), card(line, CARD)));
    let responses = service.submit_at_once(requests).await;
    let winners: Vec<_> = responses.iter().filter(|a| a.status == 200).collect();
    assert_eq!(winners.len(), 1, "{winners:?}");
    for rejected in responses.iter().filter(|a| a.status != 200) {
        assert_eq!(rejected.error(), none("NotFound", "newSimCardNumber"));
    }
    let won = winners[0].json()["subscriptionId"].clone();
    lines.retain(|line| won != line.as_str());

    // The other lines request an eSIM each, and there are too few.
    let requests = lines.iter().map(|line| (owner.as_str(), Vec::new(), esim(line)));
    let responses = service.submit_at_once(requests).await;
    let mut sims = BTreeSet::new();
    for response in responses.iter().filter(|a| a.status == 200) {
        sims.insert(service.record(&id(response)).await.new_sim.to_string());
    }
    assert_eq!(sims.len(), ESIMS);
    let rejected: Vec<_> = responses.iter().filter(|a| a.status != 200).collect();
    assert_eq!(rejected.len(), lines.len() - ESIMS);
    for rejected in rejected {
        assert_eq!(rejected.error(), none("OutOfStock", "eSim"));
    }
}
