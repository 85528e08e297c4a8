//! The "account" dialect: seed A's calls, each row of its error table, harmless repeats, assignment, and who may see a PUK.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tests::{FREE_CARD, TestResponse, TestStack, activation_code, card, esim, line};

/// Seed A's example account and card.
const ACCOUNT: &str = "1234567890ABCDEF12345678";
const CARD: &str = "1234567890123456789";

async fn call(world: &TestStack, method: &str, token: &str, path: &str, headers: &[(&str, &str)]) -> TestResponse {
    let bearer = format!("Bearer {token}");
    let mut all = vec![("authorization", bearer.as_str())];
    all.extend(headers);
    world.send(method, path, &all, "").await
}

async fn change(world: &TestStack, token: &str, account: &str, sim: &str) -> TestResponse {
    call(world, "GET", token, &format!("/mvno/{account}/changesim/{sim}"), &[]).await
}

fn number(answer: &TestResponse) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["mvnoSim"]["simNumber"].as_str().unwrap().to_owned()
}

fn refusal(answer: &TestResponse) -> (u16, String) {
    let error = answer.json()["error"].clone();
    assert_eq!(answer.json()["success"], false, "{answer:?}");
    assert_eq!(error["code"], answer.status, "{answer:?}");
    assert!(error["description"].is_string());
    (answer.status, error["message"].as_str().unwrap_or_default().to_owned())
}

/// The one activation of an account.
async fn activation(world: &TestStack, account: &str) -> Value {
    let page = world
        .query(&world.admin(), &format!("subscriptionId={account}"))
        .await
        .json();
    assert_eq!(page["total"], 1, "{page}");
    page["results"][0].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_seed_s_calls_get_the_seed_s_fields() {
    let world = TestStack::new().await;
    let owner = world.owner("C-300");
    let answer = change(&world, &owner, ACCOUNT, CARD).await;
    assert_eq!(
        answer.body,
        json!({"success": true, "mvnoSim": {
            "simNumber": CARD, "imsi": "238029012345678", "network": "TELENOR",
            "puk1": "12345678", "puk2": "87654321", "pin1": "1234", "pin2": "5678", "formFactor": "MINI_MICRO",
        }})
        .to_string()
    );
    assert_eq!(answer.headers["cache-control"], "no-store");
    let swap = activation(&world, ACCOUNT).await;
    let done = world.await_status(swap["id"].as_str().unwrap(), "DONE").await;
    assert_eq!(done["info"], json!({"newSimCardNumber": CARD}));
    assert_eq!(world.line(&ACCOUNT.to_lowercase()).await.current_sim.as_str(), CARD);

    let auto = call(
        &world,
        "POST",
        &owner,
        &format!("/mvno/{ACCOUNT}/changesim/AUTOASSIGN"),
        &[],
    )
    .await;
    assert_eq!(auto.json()["mvnoSim"]["formFactor"], "MINI_MICRO_NANO");
    let sim = world.sim(&number(&auto)).await;
    assert!(sim.auto_assign && sim.network.as_str() == "TELENOR");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_esim_goes_to_the_contact_address_and_asks_no_code() {
    let world = TestStack::new().await;
    let answer = change(&world, &world.reseller("R-20"), ACCOUNT, "esim").await;
    assert_eq!(answer.json()["mvnoSim"]["formFactor"], "eSIM");
    let swap = activation(&world, ACCOUNT).await;
    let id = swap["id"].as_str().unwrap();
    let mail = world.await_mail(id).await;
    assert!(String::from_utf8_lossy(&mail).contains("To: <dorte@example.com>"));
    let code = activation_code(&mail);
    assert!(!code.ends_with("$1"), "{code}");
    let body = json!({"activationCode": code}).to_string();
    assert_eq!(world.send("POST", "/local/phone/install", &[], body).await.status, 200);
    let done = world.await_status(id, "DONE").await;
    assert!(done["info"].get("confirmationCode").is_none(), "{done}");
    assert_eq!(done["info"]["eSim"], true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_row_of_the_error_table() {
    let world = TestStack::new().await;
    let (owner, admin) = (world.owner("C-300"), world.admin());
    world.submit(&admin, &esim(line::BRAM)).await;
    let before = world.table();
    let own = ACCOUNT;
    for (token, account, sim, expected) in [
        (&owner, "1234567890abcdef12345679", CARD, (404, "mvnoAccount")),
        (&owner, line::ANNA, FREE_CARD, (404, "mvnoAccount")),
        (&owner, "1234", CARD, (404, "mvnoAccount")),
        (&owner, "1234", "x", (404, "mvnoAccount")),
        (&owner, own, "8945020000000009999", (404, "sim")),
        (&owner, own, FREE_CARD, (404, "sim")),
        (&owner, own, "8945020000000002018", (404, "sim")),
        (&owner, own, "8945010000000000014", (404, "sim")),
        (&owner, own, "123", (404, "sim")),
        (&owner, own, "eSims", (404, "sim")),
        (&owner, line::EMIL, "eSim", (404, "sim")),
        (&owner, line::EMIL, "autoAssign", (404, "sim")),
        (&admin, line::FLEUR, FREE_CARD, (403, "state")),
        (&admin, line::HANNA, FREE_CARD, (403, "state")),
        (&admin, line::BRAM, FREE_CARD, (403, "state")),
        (&admin, line::GIJS, FREE_CARD, (403, "porting")),
    ] {
        let answer = change(&world, token, account, sim).await;
        assert_eq!(refusal(&answer), (expected.0, expected.1.to_owned()), "{account} {sim}");
        assert_eq!(answer.headers["cache-control"], "no-store");
    }
    for header in [("sec-purpose", "prefetch;prerender"), ("purpose", "prefetch")] {
        let answer = call(
            &world,
            "GET",
            &owner,
            &format!("/mvno/{own}/changesim/{CARD}"),
            &[header],
        )
        .await;
        assert_eq!(refusal(&answer), (403, "state".to_owned()));
    }
    let none = world
        .send("GET", &format!("/mvno/{own}/changesim/{CARD}"), &[], "")
        .await;
    assert_eq!(
        (none.status, none.body.as_str()),
        (401, r#"{"message":"Unauthorized"}"#)
    );
    // Bram's swap goes on by itself; all else is as it was.
    let others = |rows: Vec<String>| {
        rows.into_iter()
            .filter(|row| !row.contains("A#") && !row.contains(line::BRAM))
            .collect::<Vec<_>>()
    };
    assert_eq!(others(before), others(world.table()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_is_harmless_while_the_swap_is_open_and_for_a_while_after() {
    let world = TestStack::new().await;
    let owner = world.owner("C-300");
    let path = format!("/mvno/{ACCOUNT}/changesim/autoAssign");
    let at_once = (0..30).map(|_| call(&world, "GET", &owner, &path, &[]));
    let answers = futures_util::future::join_all(at_once).await;
    let sims: BTreeSet<String> = answers.iter().map(number).collect();
    assert_eq!(sims.len(), 1, "{sims:?}");
    let swap = activation(&world, ACCOUNT).await;
    world.await_status(swap["id"].as_str().unwrap(), "DONE").await;
    let after = call(&world, "POST", &owner, &path, &[]).await;
    assert_eq!(BTreeSet::from([number(&after)]), sims);
    assert_eq!(after.headers["idempotency-replayed"], "true");
    // The card by its number, which the account has by now.
    let named = change(&world, &owner, &ACCOUNT.to_lowercase(), sims.first().unwrap()).await;
    assert_eq!(BTreeSet::from([number(&named)]), sims);
    activation(&world, ACCOUNT).await;

    // Another caller's request is not a repeat, nor is one with a key of its own.
    let other = call(&world, "GET", &world.admin(), &path, &[]).await;
    assert!(!sims.contains(&number(&other)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_its_time_and_after_an_error_a_request_is_new() {
    let world = TestStack::with(&[("REPEAT_WITHIN", "1ms")]).await;
    let owner = world.owner("C-300");
    let first = number(&change(&world, &owner, ACCOUNT, "autoAssign").await);
    let swap = activation(&world, ACCOUNT).await;
    world.await_status(swap["id"].as_str().unwrap(), "DONE").await;
    let second = number(&change(&world, &owner, ACCOUNT, "autoAssign").await);
    assert_ne!(first, second);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_shows_nobody_a_stranger_s_puk() {
    let world = TestStack::with(&[("REPEAT_WITHIN", "1ms")]).await;
    let owner = world.owner("C-300");
    let path = format!("/mvno/{ACCOUNT}/changesim/{CARD}");
    let key = [("idempotency-key", "one")];
    let first = call(&world, "GET", &owner, &path, &key).await;
    assert_eq!(number(&first), CARD);
    let again = call(&world, "POST", &owner, &path, &key).await;
    assert_eq!(
        (again.body.clone(), again.headers["idempotency-replayed"].as_bytes()),
        (first.body, b"true".as_slice())
    );
    let other = format!("/mvno/{ACCOUNT}/changesim/eSim");
    let mismatch = call(&world, "GET", &owner, &other, &key).await;
    assert_eq!(refusal(&mismatch), (422, "idempotencyKey".to_owned()));
    let empty = call(&world, "GET", &owner, &path, &[("idempotency-key", "\"\"")]).await;
    assert_eq!(refusal(&empty), (400, "idempotencyKey".to_owned()));

    let swap = activation(&world, ACCOUNT).await;
    world.await_status(swap["id"].as_str().unwrap(), "DONE").await;
    assert_eq!(number(&call(&world, "GET", &owner, &path, &key).await), CARD);
    // The account moves on: that SIM is nobody's now.
    let next = world.submit(&owner, &card(ACCOUNT, "8945020000000001010")).await;
    world.await_status(next.json()["id"].as_str().unwrap(), "DONE").await;
    let late = call(&world, "GET", &owner, &path, &key).await;
    assert_eq!(refusal(&late), (404, "sim".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_dialects_share_the_line() {
    let world = TestStack::new().await;
    let owner = world.owner("C-300");
    let (mut begun, mut refused) = (0, 0);
    let account = ACCOUNT.to_lowercase();
    let swap = esim(&account);
    for round in 0..10 {
        let (one, two) = tokio::join!(change(&world, &owner, ACCOUNT, "eSim"), world.submit(&owner, &swap));
        for answer in [one, two] {
            match answer.status {
                200 if answer.headers.get("idempotency-replayed").is_none() => begun += 1,
                200 | 403 | 409 => refused += 1,
                _ => panic!("{round}: {answer:?}"),
            }
        }
    }
    assert_eq!((begun, refused), (1, 19));
    activation(&world, ACCOUNT).await;
}
