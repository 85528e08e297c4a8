//! The account dialect: the example calls of the account API, each row of its error table, repeated requests, automatic
//! assignment, and who sees a PUK.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tests::{FREE_CARD, TestResponse, TestStack, activation_code, card, esim, line};

/// The account and the card of the account API's example.
const ACCOUNT: &str = "1234567890ABCDEF12345678";
const CARD: &str = "1234567890123456789";

async fn call(service: &TestStack, method: &str, token: &str, path: &str, headers: &[(&str, &str)]) -> TestResponse {
    let bearer = format!("Bearer {token}");
    let mut all = vec![("authorization", bearer.as_str())];
    all.extend(headers);
    service.send(method, path, &all, "").await
}

async fn change(service: &TestStack, token: &str, account: &str, sim: &str) -> TestResponse {
    call(service, "GET", token, &format!("/mvno/{account}/changesim/{sim}"), &[]).await
}

fn number(response: &TestResponse) -> String {
    assert_eq!(response.status, 200, "{response:?}");
    response.json()["mvnoSim"]["simNumber"].as_str().unwrap().to_owned()
}

fn error_of(response: &TestResponse) -> (u16, String) {
    let error = response.json()["error"].clone();
    assert_eq!(response.json()["success"], false, "{response:?}");
    assert_eq!(error["code"], response.status, "{response:?}");
    assert!(error["description"].is_string());
    (
        response.status,
        error["message"].as_str().unwrap_or_default().to_owned(),
    )
}

/// The only activation of an account.
async fn activation(service: &TestStack, account: &str) -> Value {
    let page = service
        .query(&service.admin(), &format!("subscriptionId={account}"))
        .await
        .json();
    assert_eq!(page["total"], 1, "{page}");
    page["results"][0].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_calls_get_the_fields_of_the_account_api() {
    let service = TestStack::new().await;
    let owner = service.owner("C-300");
    let response = change(&service, &owner, ACCOUNT, CARD).await;
    assert_eq!(
        response.body,
        json!({"success": true, "mvnoSim": {
            "simNumber": CARD, "imsi": "238029012345678", "network": "TELENOR",
            "puk1": "12345678", "puk2": "87654321", "pin1": "1234", "pin2": "5678", "formFactor": "MINI_MICRO",
        }})
        .to_string()
    );
    assert_eq!(response.headers["cache-control"], "no-store");
    let swap = activation(&service, ACCOUNT).await;
    let done = service.await_status(swap["id"].as_str().unwrap(), "DONE").await;
    assert_eq!(done["info"], json!({"newSimCardNumber": CARD}));
    assert_eq!(service.line(&ACCOUNT.to_lowercase()).await.current_sim.as_str(), CARD);

    let auto = call(
        &service,
        "POST",
        &owner,
        &format!("/mvno/{ACCOUNT}/changesim/AUTOASSIGN"),
        &[],
    )
    .await;
    assert_eq!(auto.json()["mvnoSim"]["formFactor"], "MINI_MICRO_NANO");
    let sim = service.sim(&number(&auto)).await;
    assert!(sim.auto_assign && sim.network.as_str() == "TELENOR");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_esim_is_mailed_to_the_contact_address_and_needs_no_code() {
    let service = TestStack::new().await;
    let response = change(&service, &service.reseller("R-20"), ACCOUNT, "esim").await;
    assert_eq!(response.json()["mvnoSim"]["formFactor"], "eSIM");
    let swap = activation(&service, ACCOUNT).await;
    let id = swap["id"].as_str().unwrap();
    let mail = service.await_mail(id).await;
    assert!(String::from_utf8_lossy(&mail).contains("To: <dorte@example.com>"));
    let code = activation_code(&mail);
    assert!(!code.ends_with("$1"), "{code}");
    let body = json!({"activationCode": code}).to_string();
    assert_eq!(
        service.send("POST", "/local/phone/install", &[], body).await.status,
        200
    );
    let done = service.await_status(id, "DONE").await;
    assert!(done["info"].get("confirmationCode").is_none(), "{done}");
    assert_eq!(done["info"]["eSim"], true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_row_of_the_error_table() {
    let service = TestStack::new().await;
    let (owner, admin) = (service.owner("C-300"), service.admin());
    service.submit(&admin, &esim(line::BRAM)).await;
    let before = service.table();
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
        let response = change(&service, token, account, sim).await;
        assert_eq!(
            error_of(&response),
            (expected.0, expected.1.to_owned()),
            "{account} {sim}"
        );
        assert_eq!(response.headers["cache-control"], "no-store");
    }
    for header in [("sec-purpose", "prefetch;prerender"), ("purpose", "prefetch")] {
        let response = call(
            &service,
            "GET",
            &owner,
            &format!("/mvno/{own}/changesim/{CARD}"),
            &[header],
        )
        .await;
        assert_eq!(error_of(&response), (403, "state".to_owned()));
    }
    let none = service
        .send("GET", &format!("/mvno/{own}/changesim/{CARD}"), &[], "")
        .await;
    assert_eq!(
        (none.status, none.body.as_str()),
        (401, r#"{"message":"Unauthorized"}"#)
    );
    // Only Bram's swap continues by itself; everything else is unchanged.
    let others = |rows: Vec<String>| {
        rows.into_iter()
            .filter(|row| !row.contains("A#") && !row.contains(line::BRAM))
            .collect::<Vec<_>>()
    };
    assert_eq!(others(before), others(service.table()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_changes_nothing_during_the_swap_and_for_a_while_after() {
    let service = TestStack::new().await;
    let owner = service.owner("C-300");
    let path = format!("/mvno/{ACCOUNT}/changesim/autoAssign");
    let at_once = (0..30).map(|_| call(&service, "GET", &owner, &path, &[]));
    let responses = futures_util::future::join_all(at_once).await;
    let sims: BTreeSet<String> = responses.iter().map(number).collect();
    assert_eq!(sims.len(), 1, "{sims:?}");
    let swap = activation(&service, ACCOUNT).await;
    service.await_status(swap["id"].as_str().unwrap(), "DONE").await;
    let after = call(&service, "POST", &owner, &path, &[]).await;
    assert_eq!(BTreeSet::from([number(&after)]), sims);
    assert_eq!(after.headers["idempotency-replayed"], "true");
    // The card by its number, which is the account's current SIM at this moment.
    let named = change(&service, &owner, &ACCOUNT.to_lowercase(), sims.first().unwrap()).await;
    assert_eq!(BTreeSet::from([number(&named)]), sims);
    activation(&service, ACCOUNT).await;

    // A request of another caller is not a repeat. Neither is one with its own key.
    let other = call(&service, "GET", &service.admin(), &path, &[]).await;
    assert!(!sims.contains(&number(&other)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_repeat_window_and_after_an_error_a_request_is_new() {
    let service = TestStack::with(&[("REPEAT_WITHIN", "1ms")]).await;
    let owner = service.owner("C-300");
    let first = number(&change(&service, &owner, ACCOUNT, "autoAssign").await);
    let swap = activation(&service, ACCOUNT).await;
    service.await_status(swap["id"].as_str().unwrap(), "DONE").await;
    let second = number(&change(&service, &owner, ACCOUNT, "autoAssign").await);
    assert_ne!(first, second);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_does_not_show_a_stranger_s_puk() {
    let service = TestStack::with(&[("REPEAT_WITHIN", "1ms")]).await;
    let owner = service.owner("C-300");
    let path = format!("/mvno/{ACCOUNT}/changesim/{CARD}");
    let key = [("idempotency-key", "one")];
    let first = call(&service, "GET", &owner, &path, &key).await;
    assert_eq!(number(&first), CARD);
    let again = call(&service, "POST", &owner, &path, &key).await;
    assert_eq!(
        (again.body.clone(), again.headers["idempotency-replayed"].as_bytes()),
        (first.body, b"true".as_slice())
    );
    let other = format!("/mvno/{ACCOUNT}/changesim/eSim");
    let mismatch = call(&service, "GET", &owner, &other, &key).await;
    assert_eq!(error_of(&mismatch), (422, "idempotencyKey".to_owned()));
    let empty = call(&service, "GET", &owner, &path, &[("idempotency-key", "\"\"")]).await;
    assert_eq!(error_of(&empty), (400, "idempotencyKey".to_owned()));

    let swap = activation(&service, ACCOUNT).await;
    service.await_status(swap["id"].as_str().unwrap(), "DONE").await;
    assert_eq!(number(&call(&service, "GET", &owner, &path, &key).await), CARD);
    // The account gets another SIM, and that SIM belongs to no line.
    let next = service.submit(&owner, &card(ACCOUNT, "8945020000000001010")).await;
    service.await_status(next.json()["id"].as_str().unwrap(), "DONE").await;
    let late = call(&service, "GET", &owner, &path, &key).await;
    assert_eq!(error_of(&late), (404, "sim".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_dialects_share_the_line() {
    let service = TestStack::new().await;
    let owner = service.owner("C-300");
    let (mut accepted, mut rejected) = (0, 0);
    let account = ACCOUNT.to_lowercase();
    let swap = esim(&account);
    for round in 0..10 {
        let (one, two) = tokio::join!(change(&service, &owner, ACCOUNT, "eSim"), service.submit(&owner, &swap));
        for response in [one, two] {
            match response.status {
                200 if response.headers.get("idempotency-replayed").is_none() => accepted += 1,
                200 | 403 | 409 => rejected += 1,
                _ => panic!("{round}: {response:?}"),
            }
        }
    }
    assert_eq!((accepted, rejected), (1, 19));
    activation(&service, ACCOUNT).await;
}
