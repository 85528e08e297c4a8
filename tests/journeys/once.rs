//! Once and no more: callers at the same time, and callers who ask again, with an Idempotency-Key and without.

use std::collections::BTreeSet;
use std::sync::Arc;

use domain::{
    EmailAddress, FormFactor, Iccid, Language, Line, LineState, Msisdn, NetworkName, Sim, SimState, SubscriptionId,
};
use jiff::Timestamp;
use serde_json::{Value, json};
use tests::{FREE_CARD, TestResponse, TestStack, activation_code, card, esim, line};

const ANNA_S_PHONE: &str = "06-12345601";
const REPLAYED: &str = "idempotency-replayed";

/// The same swap, its line named by its number.
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

fn id(answer: &TestResponse) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["id"].as_str().unwrap().to_owned()
}

fn is_replay(answer: &TestResponse) -> bool {
    answer.headers.contains_key(REPLAYED)
}

fn check_conflict(answer: &TestResponse, open: &str) {
    assert_eq!(answer.status, 409, "{answer:?}");
    let status = &answer.json()["responseStatus"];
    assert_eq!(status["errorCode"], "SwapInProgress");
    assert_eq!(status["errors"].as_array().unwrap().len(), 1);
    assert_eq!(status["errors"][0]["errorCode"], "SwapInProgress");
    assert_eq!(status["errors"][0]["meta"], json!({"activationId": open}));
}

async fn keyed(world: &TestStack, token: &str, key: &str, body: &Value) -> TestResponse {
    world.submit_with(token, &[("Idempotency-Key", key)], body).await
}

/// The first answer again: every byte of the body, and the header that says so.
fn check_replay(replay: &TestResponse, first: &TestResponse) {
    assert_eq!(replay.status, 200, "{replay:?}");
    assert_eq!(replay.body, first.body);
    assert_eq!(replay.headers[REPLAYED], "true");
    assert_eq!(replay.headers["content-type"], first.headers["content-type"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_callers_on_one_line_get_one_swap() {
    // A machine at its limit must not make a claim's lease end, for then the profile is rightly ordered anew.
    let world = Arc::new(TestStack::with(&[("LEASE", "60s")]).await);
    let owner = world.owner("C-100");
    // Four in a row: the same by id and by phone, and two others.
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
    let answers = world.submit_at_once(requests).await;

    let firsts = answers.iter().filter(|a| a.status == 200 && !is_replay(a));
    let firsts: Vec<_> = firsts.collect();
    assert_eq!(firsts.len(), 1, "{firsts:?}");
    let open = id(firsts[0]);
    let winner = firsts[0].json()["referenceNumber"].clone();
    for answer in &answers {
        match answer.status {
            200 => {
                assert_eq!(id(answer), open);
                assert_eq!(answer.json()["referenceNumber"], winner);
            }
            _ => check_conflict(answer, &open),
        }
    }
    let replays = answers.iter().filter(|a| is_replay(a)).count();
    assert_eq!(replays, if winner == "" { 49 } else { 0 });

    // One SIM, one order at each peer, one mail; and still so when all is over.
    let record = world.record(&open).await;
    assert_eq!(world.sims(SimState::Busy), [record.new_sim.as_str()]);
    let mail = world.await_mail(&open).await;
    world.await_status(&open, "BUSY").await;
    let installed = world.install(&activation_code(&mail), "8E9!#").await;
    assert_eq!(installed.status, 200, "{installed:?}");
    world.await_status(&open, "DONE").await;
    let (smdp, carrier) = (&world.stack.smdp, &world.stack.carrier);
    let profile_orders = smdp.as_ref().unwrap().orders_of(&record.new_sim);
    let line_orders = carrier.as_ref().unwrap().orders_of(&open);
    let orders = (profile_orders.unwrap(), line_orders.unwrap());
    assert_eq!(orders, (1, 1), "{:?}", world.record(&open).await.timeline);
    assert_eq!(world.stack.mailbox.list().len(), 1);
    assert_eq!(world.sims(SimState::Busy), Vec::<String>::new());
    let all = world.query(&world.admin(), "").await;
    assert_eq!(all.json()["total"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_key_the_same_request_gets_the_open_swap_as_it_is() {
    let world = TestStack::new().await;
    let owner = world.owner("C-100");
    let body = esim(line::ANNA);
    let first = world.submit(&owner, &body).await;
    let open = id(&first);
    let mail = world.await_mail(&open).await;
    world
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
        let answer = world.submit(&owner, &again).await;
        assert_eq!((answer.status, is_replay(&answer)), (200, true), "{again} {answer:?}");
        let seen = world.query(&owner, &format!("id={open}")).await.json();
        assert_eq!(answer.json(), seen["results"][0]);
    }
    for other in [
        with(&body, "email", "other@example.com"),
        with(&body, "confirmationCode", "other"),
        with(&body, "referenceNumber", "other"),
        with(&body, "newSimCardNumber", FREE_CARD),
        card(line::ANNA, FREE_CARD),
    ] {
        check_conflict(&world.submit(&owner, &other).await, &open);
    }
    // The same words of another caller are another request.
    let subject = world
        .stack
        .tokens
        .issue("OWNER", Some("C-100"), None, "somebody else", 60, Timestamp::now());
    for other in [world.reseller("R-10"), world.admin(), subject] {
        check_conflict(&world.submit(&other, &body).await, &open);
    }
    // When it is over, the same words begin a new one.
    world.install(&activation_code(&mail), "8E9!#").await;
    world.await_status(&open, "DONE").await;
    let next = world.submit(&owner, &body).await;
    assert!(!is_replay(&next));
    assert_ne!(id(&next), open);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_gives_the_first_answer_before_during_and_after_the_swap() {
    let world = TestStack::new().await;
    let owner = world.owner("C-100");
    let body = esim(line::ANNA);
    let first = keyed(&world, &owner, "k-1", &body).await;
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
                world.await_status(&swap, "BUSY").await;
                mail = world.await_mail(&swap).await;
            }
            "DONE" => {
                world.install(&activation_code(&mail), "8E9!#").await;
                world.await_status(&swap, "DONE").await;
            }
            _ => {}
        }
        for (key, again) in &spellings {
            check_replay(&keyed(&world, &owner, key, again).await, &first);
        }
        for other in &others {
            let answer = keyed(&world, &owner, "k-1", other).await;
            let expected = (422, "IdempotencyMismatch".to_owned(), Vec::new());
            assert_eq!(answer.refusal(), expected, "{moment} {other}");
        }
    }
    assert_eq!(world.query(&owner, "").await.json()["total"], 1);

    // Another caller's key of that name is another key, and another key is another request.
    let of_reseller = keyed(&world, &world.reseller("R-10"), "k-1", &esim(line::CARLA)).await;
    assert!(!is_replay(&of_reseller));
    assert_ne!(id(&of_reseller), swap);
    let second = keyed(&world, &owner, "k-2", &body).await;
    assert!(!is_replay(&second));
    assert_ne!(id(&second), swap);
    check_conflict(&keyed(&world, &owner, "k-3", &body).await, &id(&second));
    check_replay(&keyed(&world, &owner, "k-1", &body).await, &first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_callers_with_one_key_get_one_answer() {
    let world = Arc::new(TestStack::new().await);
    let owner = world.owner("C-100");
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
    let answers = world.submit_at_once(requests).await;
    for answer in &answers {
        assert_eq!((answer.status, &answer.body), (200, &answers[0].body));
    }
    assert_eq!(answers.iter().filter(|a| is_replay(a)).count(), 99);

    // A key each: one is taken, and nobody gets its answer but its owner.
    let body = esim(line::BRAM);
    let requests = (0..20).map(|n| {
        let header = vec![("Idempotency-Key", format!("k-{n}"))];
        (owner.as_str(), header, body.clone())
    });
    let answers = world.submit_at_once(requests).await;
    let taken: Vec<_> = answers.iter().filter(|a| a.status == 200).collect();
    assert_eq!(taken.len(), 1);
    for refused in answers.iter().filter(|a| a.status != 200) {
        check_conflict(refused, &id(taken[0]));
    }
    assert_eq!(world.query(&owner, "").await.json()["total"], 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_leaves_the_key_free() {
    let world = TestStack::new().await;
    let owner = world.owner("C-100");
    let good = card(line::ANNA, FREE_CARD);
    for (bad, status) in [
        (json!({}), 400),
        (card("65a1b2c3d4e5f60718293aff", FREE_CARD), 404),
        (card(line::HANNA, FREE_CARD), 403),
        (card(line::ANNA, "8931086000000009999"), 404),
    ] {
        let refused = keyed(&world, &owner, "k", &bad).await;
        assert_eq!(refused.status, status, "{refused:?}");
    }
    let taken = keyed(&world, &owner, "k", &good).await;
    assert!(!is_replay(&taken));
    check_replay(&keyed(&world, &owner, "k", &good).await, &taken);
    // The line comes before the key.
    let unknown = card("65a1b2c3d4e5f60718293aff", FREE_CARD);
    assert_eq!(keyed(&world, &owner, "k", &unknown).await.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_have_1_to_255_characters() {
    let world = TestStack::new().await;
    let owner = world.owner("C-100");
    let longest = "k".repeat(255);
    let too_long = "k".repeat(256);
    let body = esim(line::ANNA);
    for (key, code) in [
        (too_long.as_str(), "MaximumLength"),
        (&format!("\"{too_long}\""), "MaximumLength"),
        ("", "InvalidValue"),
        ("\"\"", "InvalidValue"),
    ] {
        let refused = keyed(&world, &owner, key, &body).await;
        let fault = (code.to_owned(), "Idempotency-Key".to_owned());
        let expected = (400, code.to_owned(), vec![fault]);
        assert_eq!(refused.refusal(), expected, "{key}");
    }
    let refused = keyed(&world, &owner, &too_long, &body).await;
    let meta = &refused.json()["responseStatus"]["errors"][0]["meta"];
    let expected = json!({
        "MinLength": "1", "MaxLength": "255", "TotalLength": "256",
        "PropertyName": "Idempotency-Key", "PropertyValue": too_long,
    });
    assert_eq!(*meta, expected);
    let first = keyed(&world, &owner, &longest, &body).await;
    assert!(!is_replay(&first));
    let quoted = format!("\"{longest}\"");
    check_replay(&keyed(&world, &owner, &quoted, &body).await, &first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_code_is_masked_where_it_is_told_to_be_and_when_its_time_is_over() {
    const MASK: &str = "##########";
    let masked = TestStack::with(&[("CONFIRMATION_CODE_ECHO", "masked")]).await;
    let erased = TestStack::with(&[("CODE_KEPT", "1ms")]).await;
    for (world, shown_at_first) in [(masked, MASK), (erased, "8E9!#")] {
        let owner = world.owner("C-100");
        let body = esim(line::ANNA);
        let first = keyed(&world, &owner, "k", &body).await;
        let swap = id(&first);
        assert_eq!(first.json()["info"]["confirmationCode"], shown_at_first);
        check_replay(&keyed(&world, &owner, "k", &body).await, &first);
        let open = world.submit(&owner, &body).await;
        assert_eq!(open.json()["info"]["confirmationCode"], shown_at_first);

        let code = activation_code(&world.await_mail(&swap).await);
        world.await_status(&swap, "BUSY").await;
        assert_eq!(world.install(&code, "8E9!#").await.status, 200);
        let done = world.await_status(&swap, "DONE").await;
        // The clock of the answer is in milliseconds: a first look may come within the same one.
        let done = match done["info"]["confirmationCode"] == MASK {
            true => done,
            false => world.activation(&swap).await,
        };
        assert_eq!(done["info"]["confirmationCode"], MASK);
        let replay = keyed(&world, &owner, "k", &body).await;
        assert!(is_replay(&replay));
        assert_eq!(replay.body, first.body.replace("8E9!#", MASK));
        // What was asked is compared all the same.
        let other = with(&body, "confirmationCode", "other");
        assert_eq!(keyed(&world, &owner, "k", &other).await.status, 422);
    }
}

/// A line of R-30 on the network TELIA, of which the sample data has none, with its SIM.
async fn add_line(world: &TestStack, number: usize) -> String {
    let id = format!("telia-{number}");
    let line = Line {
        id: SubscriptionId::parse(&id).unwrap(),
        phone: Msisdn::parse(&format!("+46700000{number:03}")).unwrap(),
        customer: "C-400".to_owned(),
        reseller: Some("R-30".to_owned()),
        network: NetworkName::parse("TELIA").unwrap(),
        current_sim: Iccid::parse(&format!("8946010000000000{number:03}")).unwrap(),
        email: Some(EmailAddress::parse("customer@example.com").unwrap()),
        language: Language::En,
        state: LineState::Active,
        porting: false,
        locked: false,
        open_swap: None,
        kept_card: None,
        kept_esim: None,
    };
    let sim = sim(line.current_sim.as_str(), FormFactor::Nano);
    world.stack.store.add_line(&line, sim).await.unwrap();
    id
}

/// A free SIM of anybody on TELIA.
fn sim(iccid: &str, form_factor: FormFactor) -> Sim {
    Sim {
        iccid: Iccid::parse(iccid).unwrap(),
        imsi: None,
        network: NetworkName::parse("TELIA").unwrap(),
        reseller: None,
        form_factor,
        auto_assign: false,
        state: SimState::Free,
        free_from: Timestamp::UNIX_EPOCH,
        holder: None,
        pin1: None,
        pin2: None,
        puk1: None,
        puk2: None,
        supplier_code: None,
        tag: None,
        codes_shown: false,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_that_ask_at_once_never_share_a_sim() {
    const LINES: usize = 24;
    const ESIMS: usize = 20;
    const CARD: &str = "8946010000000009001";
    let world = Arc::new(TestStack::new().await);
    let mut lines = Vec::new();
    for number in 0..LINES {
        lines.push(add_line(&world, number).await);
    }
    let card_in_stock = sim(CARD, FormFactor::Nano);
    world.stack.store.add_sim(&card_in_stock).await.unwrap();
    for number in 0..ESIMS {
        let iccid = format!("8946010000000008{number:03}");
        let profile = sim(&iccid, FormFactor::Esim);
        world.stack.store.add_sim(&profile).await.unwrap();
    }
    let owner = world.owner("C-400");
    let not_found = |field: &str| {
        let code = || "NotFound".to_owned();
        (404, code(), vec![(code(), field.to_owned())])
    };

    // All want the one card.
    let requests = lines.iter().map(|line| (owner.as_str(), Vec::new(), card(line, CARD)));
    let answers = world.submit_at_once(requests).await;
    let winners: Vec<_> = answers.iter().filter(|a| a.status == 200).collect();
    assert_eq!(winners.len(), 1, "{winners:?}");
    for refused in answers.iter().filter(|a| a.status != 200) {
        assert_eq!(refused.refusal(), not_found("newSimCardNumber"));
    }
    let won = winners[0].json()["subscriptionId"].clone();
    lines.retain(|line| won != line.as_str());

    // The others want an eSIM each, and there are too few.
    let requests = lines.iter().map(|line| (owner.as_str(), Vec::new(), esim(line)));
    let answers = world.submit_at_once(requests).await;
    let mut sims = BTreeSet::new();
    for answer in answers.iter().filter(|a| a.status == 200) {
        sims.insert(world.record(&id(answer)).await.new_sim.to_string());
    }
    assert_eq!(sims.len(), ESIMS);
    let refused: Vec<_> = answers.iter().filter(|a| a.status != 200).collect();
    assert_eq!(refused.len(), lines.len() - ESIMS);
    for refused in refused {
        assert_eq!(refused.refusal(), not_found("eSim"));
    }
}
