//! Attacks with a stolen token: to get a phone number, a code or a PUK of another customer, or to harm another
//! customer. Who may see which line is in `roles`.

use domain::{Line, Msisdn, SubscriptionId};
use jiff::tz::TimeZone;
use local::dynoxide::AttributeValue;
use operator::commands::release;
use operator::import::{Kind, Report, import};
use serde_json::{Value, json};
use tests::{FREE_CARD, TestResponse, TestStack, activation_code, card, esim, line};

/// The columns of a line in a stock file.
const LINES: &str = "ID;PHONE_NUMBER;CUSTOMER;RESELLER;NETWORK;CURRENT_SIM;EMAIL;LANGUAGE;STATE;PORTING;LOCKED";
const ANNAS_SIM: &str = "8931086000000000013";
const THIEF: &str = r#"{"email":"thief@mail.example"}"#;
/// Each reason why a line cannot be swapped: its state, porting and locked columns, and the codes of both dialects.
const BLOCKERS: [(&str, &str, &str); 3] = [
    ("ACTIVE;false;true", "Locked", "state"),
    ("BLOCKED;false;false", "Blocked", "state"),
    ("ACTIVE;true;false", "Porting", "porting"),
];

async fn change(service: &TestStack, token: &str, account: &str, sim: &str, key: &str) -> TestResponse {
    let bearer = format!("Bearer {token}");
    let mut headers = vec![("authorization", bearer.as_str())];
    if !key.is_empty() {
        headers.push(("idempotency-key", key));
    }
    let path = format!("/mvno/{account}/changesim/{sim}");
    service.send("POST", &path, &headers, "").await
}

fn sim_of(response: &TestResponse) -> String {
    assert_eq!(response.status, 200, "{response:?}");
    let sim = &response.json()["mvnoSim"]["simNumber"];
    sim.as_str().unwrap().to_owned()
}

/// The newest swap of a line.
async fn swap_of(service: &TestStack, line: &str) -> String {
    let query = format!("subscriptionId={line}");
    let page = service.query(&service.admin(), &query).await.json();
    page["results"][0]["id"].as_str().unwrap().to_owned()
}

/// Imports one line, and returns what was reported about its open swap.
async fn import_line(service: &TestStack, row: &str) -> Vec<String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{LINES}\n{row}\n")).unwrap();
    let mut reported = Vec::new();
    let mut report = |report| match report {
        Report::Swap(_, what) => reported.push(what),
        Report::Faulty(_, why) | Report::Rejected(_, why) => panic!("{why}"),
        Report::Checked(..) | Report::Written(..) | Report::Warning(..) => {}
    };
    let store = &service.stack.store;
    let counts = import(Kind::Subscriptions, file.path(), false, store, &mut report).await;
    assert_eq!(counts.unwrap().updated, 1);
    reported
}

fn anna(columns: &str) -> String {
    format!(
        "{};+31612345601;C-100;R-10;KPN;{ANNAS_SIM};anna@example.com;nl;{columns}",
        line::ANNA
    )
}

fn assert_rejected(response: &TestResponse, status: u16, code: &str) {
    let (found, found_code, _) = response.error();
    assert_eq!((found, found_code.as_str()), (status, code), "{response:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_qr_code_without_a_confirmation_code_goes_to_the_contact_on_file_and_nowhere_else() {
    let service = TestStack::new().await;
    sim_of(&change(&service, &service.owner("C-100"), line::ANNA, "eSim", "").await);
    let id = swap_of(&service, line::ANNA).await;
    service.await_waiting(&id).await;
    for token in [service.owner("C-100"), service.reseller("R-10"), service.admin()] {
        let response = service.manage(&token, "ResendEsim", &id, THIEF).await;
        assert_rejected(&response, 403, "Forbidden");
    }
    assert_eq!(service.mails(&id).len(), 1);

    // The contact's own address is accepted in any spelling, and responses show where the code was sent.
    let body = r#"{"email":"Anna@Example.com"}"#;
    let owner = service.owner("C-100");
    let response = service.manage(&owner, "ResendEsim", &id, body).await;
    assert_eq!(response.json()["info"]["email"], "anna@example.com");
    service.await_waiting(&id).await;
    for mail in service.mails(&id) {
        assert!(String::from_utf8_lossy(&mail).contains("To: <anna@example.com>"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn responses_show_where_a_qr_code_went_last() {
    let service = TestStack::new().await;
    let owner = service.owner("C-100");
    let first = service.submit(&owner, &esim(line::ANNA)).await.json();
    let id = first["id"].as_str().unwrap();
    service.await_waiting(id).await;
    let response = service.manage(&owner, "ResendEsim", id, THIEF).await.json();
    assert_eq!(response["info"]["email"], "thief@mail.example");
    for query in [format!("id={id}"), format!("subscriptionId={}", line::ANNA)] {
        let seen = service.query(&service.admin(), &query).await.json();
        let info = &seen["results"][0]["info"];
        assert_eq!(info["email"], "thief@mail.example", "{query}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocking_a_line_stops_its_open_swap() {
    for (columns, code, _) in BLOCKERS {
        for by_account in [false, true] {
            let service = TestStack::new().await;
            let owner = service.owner("C-100");
            if by_account {
                sim_of(&change(&service, &owner, line::ANNA, "eSim", "").await);
            } else {
                service.submit(&owner, &esim(line::ANNA)).await;
            }
            let id = swap_of(&service, line::ANNA).await;
            let activation_code = service.await_waiting(&id).await;
            let reported = import_line(&service, &anna(columns)).await;
            assert_eq!(reported, [format!("its open swap {id} is stopped")], "{code}");

            let seen = service.await_status(&id, "ERROR").await;
            assert_eq!(seen["info"]["failure"]["code"], "stopped", "{code}");
            let resent = service.manage(&owner, "ResendEsim", &id, "").await;
            assert_rejected(&resent, 409, "TooLate");
            let installed = service.install(&activation_code, "8E9!#").await;
            assert_eq!(installed.status, 404, "{code}: the profile is cancelled");
            let line = service.line(line::ANNA).await;
            assert_eq!(line.current_sim.as_str(), ANNAS_SIM);
            assert_eq!(line.open_swap, None);
            let again = service.submit(&owner, &esim(line::ANNA)).await;
            assert_rejected(&again, 403, code);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swap_without_orders_is_stopped_too_and_a_swap_that_has_moved_continues() {
    // Only the sweeper wakes a swap here, when the test calls it.
    let service = TestStack::start(local::stack::Options {
        stream_batch: None,
        ..TestStack::options_with(&[("LEASE", "3s")])
    })
    .await;
    let id = service.start_swap(&card(line::ANNA, FREE_CARD)).await;
    let reported = import_line(&service, &anna("ACTIVE;false;true")).await;
    assert_eq!(reported, [format!("its open swap {id} is stopped")]);
    let seen = service.await_status(&id, "ERROR").await;
    assert_eq!(seen["info"]["failure"]["code"], "stopped");
    assert_eq!(service.sim(FREE_CARD).await.state.as_str(), "FREE");

    let slow = TestStack::start(local::stack::Options {
        network_delay: std::time::Duration::from_secs(3),
        ..TestStack::options()
    })
    .await;
    let id = slow.start_swap(&card(line::ANNA, FREE_CARD)).await;
    slow.await_status(&id, "BUSY").await;
    let reported = import_line(&slow, &anna("BLOCKED;false;false")).await;
    assert!(reported[0].contains("cannot be stopped any more"), "{reported:?}");
    slow.await_status(&id, "DONE").await;
    let line = slow.line(line::ANNA).await;
    assert_eq!(line.current_sim.as_str(), FREE_CARD);
    assert_eq!(line.state.as_str(), "BLOCKED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resend_is_rejected_while_its_line_is_blocked() {
    // The network starts the order by itself, so the swap cannot be stopped and still waits for the phone.
    for (columns, code, _) in BLOCKERS {
        let service = TestStack::new().await;
        let id = service.start_swap(&esim(line::ANNA)).await;
        service.await_waiting(&id).await;
        let swap = service.record(&id).await;
        let stored = service.stack.store.swap(&swap.id).await.unwrap().unwrap();
        let started = domain::Activation {
            phase: domain::Phase::Started,
            network_order: domain::NetworkOrder::Started,
            wake_at: Some(jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1)),
            version: swap.version + 1,
            ..swap
        };
        let saved = service.stack.store.save(&stored, &started).await.unwrap();
        assert_eq!(saved, store::Saved::Written);
        let reported = import_line(&service, &anna(columns)).await;
        assert!(reported[0].contains("cannot be stopped any more"), "{reported:?}");
        for token in [service.owner("C-100"), service.admin()] {
            let response = service.manage(&token, "ResendEsim", &id, "").await;
            assert_rejected(&response, 403, code);
        }
        assert_eq!(service.mails(&id).len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocked_account_shows_no_codes_and_does_not_confirm_a_guessed_sim() {
    let service = TestStack::new().await;
    let owner = service.owner("C-100");
    let cards = ["8931086000000001011", "8931086000000001029"];
    for (n, (columns, _, message)) in BLOCKERS.into_iter().enumerate() {
        // A DONE swap with a key and one without: both could be replayed.
        let open = anna("ACTIVE;false;false");
        if n > 0 {
            import_line(&service, &open).await;
        }
        let current = service.line(line::ANNA).await.current_sim.to_string();
        let card = cards.iter().find(|card| **card != current).unwrap();
        let named = match n {
            0 => (*card).to_owned(),
            _ => sim_of(&change(&service, &owner, line::ANNA, "autoAssign", "").await),
        };
        if n == 0 {
            sim_of(&change(&service, &owner, line::ANNA, &named, "key").await);
        }
        let id = swap_of(&service, line::ANNA).await;
        service.await_status(&id, "DONE").await;
        import_line(&service, &anna(columns)).await;

        let mut bodies = Vec::new();
        for sim in [&*named, ANNAS_SIM, cards[0], cards[1], "eSim", "autoAssign", "1", "x"] {
            for key in ["", "key", "another"] {
                let response = change(&service, &owner, line::ANNA, sim, key).await;
                assert_eq!(response.status, 403, "{columns} {sim} {key}: {response:?}");
                assert_eq!(response.json()["error"]["message"], message);
                bodies.push(response.body);
            }
        }
        bodies.dedup();
        assert_eq!(bodies.len(), 1, "{bodies:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_codes_of_the_current_sim_are_shown_while_a_swap_is_open() {
    let service = TestStack::new().await;
    let owner = service.owner("C-100");
    let id = service.start_swap(&esim(line::ANNA)).await;
    service.await_waiting(&id).await;
    for sim in [ANNAS_SIM, FREE_CARD] {
        let response = change(&service, &owner, line::ANNA, sim, "").await;
        assert_eq!(response.status, 403, "{response:?}");
        assert_eq!(response.json()["error"]["message"], "state");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sim_whose_codes_were_shown_goes_to_no_other_line() {
    let service = TestStack::with(&[("SIM_REST", "1ms"), ("CALL_REST", "1ms")]).await;
    let owner = service.owner("C-100");
    let shown = sim_of(&change(&service, &owner, line::ANNA, "eSim", "k").await);
    let id = swap_of(&service, line::ANNA).await;
    service.await_waiting(&id).await;
    service.manage(&owner, "CancelActivation", &id, "").await;
    service.await_status(&id, "ERROR").await;

    let kept = service.sim(&shown).await;
    assert_eq!(kept.state.as_str(), "FREE");
    let line = service.line(line::ANNA).await;
    assert_eq!(line.kept_esim.map(|kept| kept.iccid), Some(kept.iccid));
    // The SIM is in no pool: nineteen of the twenty are left for all other lines.
    let mut assigned = Vec::new();
    for n in 0..3 {
        let other = [line::BRAM, line::CARLA][n % 2];
        let token = service.reseller("R-10");
        assigned.push(sim_of(&change(&service, &token, other, "eSim", &n.to_string()).await));
        let id = swap_of(&service, other).await;
        service.await_waiting(&id).await;
        service.manage(&token, "CancelActivation", &id, "").await;
        service.await_status(&id, "ERROR").await;
    }
    assert!(!assigned.contains(&shown), "{assigned:?}");
    assert_eq!(
        assigned[0], assigned[2],
        "a line's next swap gets the SIM that is kept for it"
    );
    // The caller who saw the codes sees them again.
    assert_eq!(sim_of(&change(&service, &owner, line::ANNA, "eSim", "k").await), shown);

    // The line's next swap gets the SIM, in the other dialect too. If that swap fails, the SIM stays kept.
    for _ in 0..2 {
        let id = service.start_swap(&esim(line::ANNA)).await;
        assert_eq!(service.record(&id).await.new_sim.as_str(), shown);
        assert_eq!(service.line(line::ANNA).await.kept_esim, None);
        service.await_waiting(&id).await;
        service.manage(&owner, "CancelActivation", &id, "").await;
        service.await_status(&id, "ERROR").await;
        assert!(service.line(line::ANNA).await.kept_esim.is_some());
    }
    let id = service.start_swap(&esim(line::ANNA)).await;
    let code = service.await_waiting(&id).await;
    assert_eq!(service.install(&code, "8E9!#").await.status, 200);
    service.await_status(&id, "DONE").await;
    let line = service.line(line::ANNA).await;
    assert_eq!((line.current_sim.as_str(), line.kept_esim), (&*shown, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_keeps_one_sim_of_a_kind_and_an_operator_can_release_it() {
    let service = TestStack::with(&[("SIM_REST", "1h"), ("CALL_REST", "1ms")]).await;
    let owner = service.owner("C-100");
    let mut shown = Vec::new();
    for _ in 0..2 {
        shown.push(sim_of(&change(&service, &owner, line::ANNA, "eSim", "").await));
        let id = swap_of(&service, line::ANNA).await;
        service.await_waiting(&id).await;
        service.manage(&owner, "CancelActivation", &id, "").await;
        service.await_status(&id, "ERROR").await;
    }
    // The first SIM was still cooling down, so the second swap got another one, which the line cannot keep beside it.
    let states = [service.sim(&shown[0]).await, service.sim(&shown[1]).await];
    let states = states.map(|sim| (sim.state.as_str(), sim.holder.is_some()));
    assert_eq!(states, [("FREE", true), ("DISABLED", false)]);

    let store = &service.stack.store;
    release(store, &shown[0]).await.unwrap();
    let sim = service.sim(&shown[0]).await;
    assert_eq!((sim.state.as_str(), sim.holder), ("FREE", None));
    assert_eq!(service.line(line::ANNA).await.kept_esim, None);
    let trace = operator::show::sim(store, &TimeZone::UTC, &shown[0]).await.unwrap();
    assert!(trace.contains("released"), "{trace}");
    let rejected = release(store, ANNAS_SIM).await.unwrap_err().to_string();
    assert!(rejected.contains("only a free SIM can be released"), "{rejected}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_card_that_a_caller_named_and_saw_the_codes_of_is_assigned_to_nobody() {
    // No swap makes progress, so the test can cancel it. The number can be guessed, because numbers count up.
    let service = TestStack::start(local::stack::Options {
        stream_batch: None,
        ..TestStack::options_with(&[("LEASE", "2s")])
    })
    .await;
    let owner = service.owner("C-100");
    sim_of(&change(&service, &owner, line::ANNA, FREE_CARD, "").await);
    let id = swap_of(&service, line::ANNA).await;
    service.manage(&owner, "CancelActivation", &id, "").await;
    service.await_status(&id, "ERROR").await;
    let card = service.sim(FREE_CARD).await;
    assert_eq!((card.state.as_str(), &card.holder), ("FREE", &None));
    let shelved = || {
        let rows = service.rows();
        let key = [("pk", format!("S#{FREE_CARD}")), ("sk", "sim".to_owned())];
        let key = key.map(|(name, value)| (name, AttributeValue::S(value)));
        let row = rows
            .iter()
            .find(|row| key.iter().all(|(name, value)| row[*name] == *value));
        row.unwrap().contains_key("shelf")
    };
    assert!(!shelved(), "the card is in no pool");
    let shown = operator::show::sim(&service.stack.store, &TimeZone::UTC, FREE_CARD)
        .await
        .unwrap();
    assert!(shown.contains("codes shown"), "{shown}");
    let new_line = Line {
        id: SubscriptionId::parse("L-NEW").unwrap(),
        phone: Msisdn::parse("+31612345699").unwrap(),
        current_sim: card.iccid.clone(),
        ..service.line(line::BRAM).await
    };
    let added = async || {
        let store = &service.stack.store;
        store.add_line(&new_line, card.clone()).await.unwrap()
    };
    assert_eq!(added().await, store::NewLine::SimTaken(Box::new(card.clone())));
    release(&service.stack.store, FREE_CARD).await.unwrap();
    assert!(shelved());
    let shown = operator::show::sim(&service.stack.store, &TimeZone::UTC, FREE_CARD)
        .await
        .unwrap();
    assert!(!shown.contains("codes shown"), "{shown}");
    assert_eq!(added().await, store::NewLine::Added);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_confirmation_code_is_shown_to_whoever_gave_it_and_to_nobody_else() {
    const MASK: &str = "##########";
    let service = TestStack::new().await;
    let giver = service.reseller("R-10");
    let first = service.submit(&giver, &esim(line::ANNA)).await.json();
    assert_eq!(first["info"]["confirmationCode"], "8E9!#");
    let id = first["id"].as_str().unwrap();
    service.await_waiting(id).await;
    let now = jiff::Timestamp::now();
    let issue = |role, customer, reseller, subject| {
        let tokens = &service.stack.tokens;
        tokens.issue(role, customer, reseller, subject, 3600, now)
    };
    for (token, shown) in [
        (giver.clone(), "8E9!#"),
        (issue("RESELLER", None, Some("R-10"), "another"), MASK),
        (service.owner("C-100"), MASK),
        (service.admin(), MASK),
    ] {
        let code = |response: &Value| response["info"]["confirmationCode"].clone();
        for query in [format!("id={id}"), format!("subscriptionId={}", line::ANNA)] {
            let page = service.query(&token, &query).await.json();
            assert_eq!(code(&page["results"][0]), shown, "{query}");
        }
    }
    let code = |response: TestResponse| response.json()["info"]["confirmationCode"].clone();
    let owner = service.owner("C-100");
    assert_eq!(code(service.manage(&owner, "ResendEsim", id, "").await), MASK);
    let cancelled = service.manage(&owner, "CancelActivation", id, "").await;
    assert_eq!(code(cancelled), MASK);
    let cancelled = service.manage(&giver, "CancelActivation", id, "").await;
    assert_eq!(code(cancelled), "8E9!#");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_characters_are_rejected() {
    let service = TestStack::new().await;
    let owner = service.owner("C-100");
    let before = service.table();
    for reference in ["\u{1b}[2J", "a\nADMIN b", "\u{202e}7", "\u{9b}1A", "\u{7f}", "\t"] {
        let mut body = esim(line::ANNA);
        body["referenceNumber"] = json!(reference);
        let rejected = service.submit(&owner, &body).await;
        let fault = ("InvalidValue".to_owned(), "referenceNumber".to_owned());
        assert_eq!(rejected.error(), (400, "InvalidValue".into(), vec![fault]));
    }
    let now = jiff::Timestamp::now();
    for (subject, customer) in [("\u{1b}[2J", "C-100"), ("a\nb", "C-100"), ("a", "C-100\u{202e}")] {
        let tokens = &service.stack.tokens;
        let token = tokens.issue("OWNER", Some(customer), None, subject, 60, now);
        for response in [
            service.submit(&token, &esim(line::ANNA)).await,
            service.query(&token, "").await,
            service.manage(&token, "CancelActivation", "x", "").await,
            service.manage(&token, "ResendEsim", "x", "").await,
            change(&service, &token, line::ANNA, "eSim", "").await,
        ] {
            assert_eq!(response.status, 403, "{response:?}");
        }
    }
    assert_eq!(service.table(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_reaches_its_route_in_every_spelling() {
    let service = TestStack::new().await;
    let id = service.start_swap(&esim(line::ANNA)).await;
    service.await_waiting(&id).await;
    let response = service.manage(&service.admin(), "CancelActivatio%6E", &id, "").await;
    assert_eq!(response.json()["info"]["failure"]["code"], "cancelled");
    assert_eq!(service.mails(&id).len(), 1);

    // An event of the network stays one in any spelling, and is never a callback of the SM-DP+.
    let path = "/tmf-api/serviceOrdering/v4/listener/serviceOrderStateChangeEven%74";
    let event = json!({"eventId": "1", "event": {"serviceOrder": {"id": "none", "state": "completed"}}});
    let response = service.send("POST", path, &[], event.to_string()).await;
    assert_eq!(response.status, 201, "{response:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_idempotency_key_header_is_rejected() {
    let service = TestStack::new().await;
    let owner = service.owner("C-100");
    let before = service.table();
    let bearer = format!("Bearer {owner}");
    for keys in [
        &["one", "one"][..],
        &["one", "two"],
        &["\"one\"", "\"one\""],
        &["one,two"],
    ] {
        let mut headers = vec![("authorization", bearer.as_str()), ("content-type", "application/json")];
        headers.extend(keys.iter().map(|key| ("idempotency-key", *key)));
        let body = esim(line::ANNA).to_string();
        let rejected = service.send("POST", "/api/SimSwapSubscription", &headers, body).await;
        let fault = ("InvalidValue".to_owned(), "Idempotency-Key".to_owned());
        assert_eq!(rejected.error(), (400, "InvalidValue".into(), vec![fault]), "{keys:?}");
        let path = format!("/mvno/{}/changesim/eSim", line::ANNA);
        let rejected = service.send("POST", &path, &headers, "").await;
        assert_eq!(rejected.status, 400, "{rejected:?}");
    }
    assert_eq!(service.table(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_another_site_has_no_part_in_the_local_stack() {
    let service = TestStack::new().await;
    let id = service.start_swap(&esim(line::ANNA)).await;
    let code = activation_code(&service.await_mail(&id).await);
    let install = json!({"activationCode": code, "confirmationCode": "8E9!#"}).to_string();
    for header in [
        ("host", "simswap.thief.example:9000"),
        ("origin", "http://thief.example"),
        ("sec-fetch-site", "cross-site"),
    ] {
        for path in [
            "/local",
            "/local/page.js",
            "/local/tokens",
            "/local/lines",
            "/local/sims",
            "/local/mail",
            "/local/mail/1",
            "/local/mail/1.html",
            "/local/endpoints",
            "/local/failures",
        ] {
            let response = service.send("GET", path, &[header], "").await;
            assert_eq!(response.status, 403, "{header:?} {path}");
        }
        let path = "/local/phone/install";
        let response = service.send("POST", path, &[header], install.clone()).await;
        assert_eq!(response.status, 403, "{header:?}");
    }
    // Nor do the ports of the parts behind the API.
    let parts = &service.stack.endpoints;
    for (part, path) in [
        (&parts.kms, "/"),
        (&parts.ses, "/"),
        (&parts.lambda, "/2015-03-31/functions/query-activation/invocations"),
        (&parts.smdp, "/local/phone/install"),
    ] {
        let from_page = ("origin", "http://thief.example");
        let headers = [from_page];
        let response = service.send_to(part, "POST", path, &headers, install.clone());
        let status = response.await.status;
        assert!([400, 403].contains(&status), "{part}{path}: {status}");
    }
    assert_eq!(service.install(&code, "8E9!#").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_and_personal_data_are_erased_in_time() {
    let service = TestStack::with(&[("CODE_KEPT", "1ms"), ("SIM_REST", "1ms")]).await;
    let owner = service.owner("C-100");
    change(&service, &owner, line::ANNA, "eSim", "").await;
    let id = swap_of(&service, line::ANNA).await;
    service.await_waiting(&id).await;
    let stored = async |id: &str| {
        let id = domain::ActivationId::parse(id).unwrap();
        service.stack.store.swap_with_deliveries(&id).await.unwrap().unwrap()
    };
    assert!(stored(&id).await.secrets.matching_id.is_some());
    service.manage(&owner, "CancelActivation", &id, "").await;
    service.await_status(&id, "ERROR").await;
    let mut body = card(line::BRAM, FREE_CARD);
    body["confirmationCode"] = json!("8E9!#");
    let card_swap = service.start_swap(&body).await;
    assert!(stored(&card_swap).await.secrets.code.is_some());
    service.await_status(&card_swap, "DONE").await;
    for id in [id, card_swap] {
        let mut kept = stored(&id).await;
        for _ in 0..1000 {
            if kept.secrets == store::SwapSecrets::default() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            kept = stored(&id).await;
        }
        assert_eq!(kept.secrets, store::SwapSecrets::default());
        assert!(!kept.activation.is_anonymous());
    }

    let service = TestStack::with(&[("RECORDS_KEPT", "1s"), ("CODE_KEPT", "1s")]).await;
    let mut body = esim(line::ANNA);
    body["referenceNumber"] = json!("Anna's phone");
    let id = service.start_swap(&body).await;
    let code = service.await_waiting(&id).await;
    service.install(&code, "8E9!#").await;
    service.await_status(&id, "DONE").await;
    let seen = service.await_activation(&id, |seen| seen.get("phoneNumber").is_none());
    let seen = seen.await;
    assert_eq!(seen["status"], "DONE");
    assert_eq!(seen["info"]["email"], Value::Null);
    let rows = service.rows();
    let rows = rows.iter().filter(|row| format!("{:?}", row["pk"]).contains(&id));
    let rows: Vec<_> = rows.map(|row| format!("{row:?}")).collect();
    assert_eq!(rows.len(), 2, "the swap and its mail");
    for name in ["customer@example.com", "31612345601", "Anna", "ADMIN"] {
        assert!(!rows.iter().any(|row| row.contains(name)), "{name}: {rows:?}");
    }
    let shown = operator::show::swap(&service.stack.store, &TimeZone::UTC, &id)
        .await
        .unwrap();
    assert!(shown.contains("phone number       erased"), "{shown}");
}
