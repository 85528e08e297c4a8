//! What somebody with a stolen token tries: to have a number, a code or a PUK that is not his, or to harm another customer.
//! Who may see which line at all is in `roles`.

use local::import::{Kind, Report, import};
use serde_json::{Value, json};
use tests::{FREE_CARD, TestResponse, TestStack, activation_code, card, esim, line};

/// The line's columns in a stock file.
const LINES: &str = "ID;PHONE_NUMBER;CUSTOMER;RESELLER;NETWORK;CURRENT_SIM;EMAIL;LANGUAGE;STATE;PORTING;LOCKED";
const ANNAS_SIM: &str = "8931086000000000013";
const THIEF: &str = r#"{"email":"thief@mail.example"}"#;
/// Each way to keep a line on its SIM, as state, porting and lock, and what it is called where.
const BARS: [(&str, &str, &str); 3] = [
    ("ACTIVE;false;true", "Locked", "state"),
    ("BLOCKED;false;false", "Blocked", "state"),
    ("ACTIVE;true;false", "Porting", "porting"),
];

async fn change(world: &TestStack, token: &str, account: &str, sim: &str, key: &str) -> TestResponse {
    let bearer = format!("Bearer {token}");
    let mut headers = vec![("authorization", bearer.as_str())];
    if !key.is_empty() {
        headers.push(("idempotency-key", key));
    }
    let path = format!("/mvno/{account}/changesim/{sim}");
    world.send("POST", &path, &headers, "").await
}

fn sim_of(answer: &TestResponse) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    let sim = &answer.json()["mvnoSim"]["simNumber"];
    sim.as_str().unwrap().to_owned()
}

/// The newest swap of a line.
async fn swap_of(world: &TestStack, line: &str) -> String {
    let query = format!("subscriptionId={line}");
    let page = world.query(&world.admin(), &query).await.json();
    page["results"][0]["id"].as_str().unwrap().to_owned()
}

/// Imports one line, and gives what was told of its open swap.
async fn bar(world: &TestStack, row: &str) -> Vec<String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{LINES}\n{row}\n")).unwrap();
    let mut told = Vec::new();
    let mut report = |report| match report {
        Report::Swap(_, what) => told.push(what),
        Report::Faulty(_, why) | Report::Refused(_, why) => panic!("{why}"),
        Report::Checked(..) | Report::Written(..) => {}
    };
    let store = &world.stack.store;
    let counts = import(Kind::Subscriptions, file.path(), false, store, &mut report).await;
    assert_eq!(counts.unwrap().updated, 1);
    told
}

fn anna(bar: &str) -> String {
    format!(
        "{};+31612345601;C-100;R-10;KPN;{ANNAS_SIM};anna@example.com;nl;{bar}",
        line::ANNA
    )
}

fn assert_refused(answer: &TestResponse, status: u16, code: &str) {
    let (found, found_code, _) = answer.refusal();
    assert_eq!((found, found_code.as_str()), (status, code), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_qr_code_without_a_confirmation_code_goes_to_the_contact_on_file_and_nowhere_else() {
    let world = TestStack::new().await;
    sim_of(&change(&world, &world.owner("C-100"), line::ANNA, "eSim", "").await);
    let id = swap_of(&world, line::ANNA).await;
    world.await_waiting(&id).await;
    for token in [world.owner("C-100"), world.reseller("R-10"), world.admin()] {
        let answer = world.manage(&token, "ResendEsim", &id, THIEF).await;
        assert_refused(&answer, 403, "Forbidden");
    }
    assert_eq!(world.mails(&id).len(), 1);

    // The contact's own address is his however it is spelled, and answers tell where the code went.
    let body = r#"{"email":"Anna@Example.com"}"#;
    let owner = world.owner("C-100");
    let answer = world.manage(&owner, "ResendEsim", &id, body).await;
    assert_eq!(answer.json()["info"]["email"], "anna@example.com");
    world.await_waiting(&id).await;
    for mail in world.mails(&id) {
        assert!(String::from_utf8_lossy(&mail).contains("To: <anna@example.com>"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_show_where_a_qr_code_went_last() {
    let world = TestStack::new().await;
    let owner = world.owner("C-100");
    let first = world.submit(&owner, &esim(line::ANNA)).await.json();
    let id = first["id"].as_str().unwrap();
    world.await_waiting(id).await;
    let answer = world.manage(&owner, "ResendEsim", id, THIEF).await.json();
    assert_eq!(answer["info"]["email"], "thief@mail.example");
    for query in [format!("id={id}"), format!("subscriptionId={}", line::ANNA)] {
        let seen = world.query(&world.admin(), &query).await.json();
        let info = &seen["results"][0]["info"];
        assert_eq!(info["email"], "thief@mail.example", "{query}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_bars_a_line_stops_its_open_swap() {
    for (bars, code, _) in BARS {
        for by_account in [false, true] {
            let world = TestStack::new().await;
            let owner = world.owner("C-100");
            if by_account {
                sim_of(&change(&world, &owner, line::ANNA, "eSim", "").await);
            } else {
                world.submit(&owner, &esim(line::ANNA)).await;
            }
            let id = swap_of(&world, line::ANNA).await;
            let activation_code = world.await_waiting(&id).await;
            let told = bar(&world, &anna(bars)).await;
            assert_eq!(told, [format!("its open swap {id} is stopped")], "{code}");

            let seen = world.await_status(&id, "ERROR").await;
            assert_eq!(seen["info"]["failure"]["code"], "stopped", "{code}");
            let resent = world.manage(&owner, "ResendEsim", &id, "").await;
            assert_refused(&resent, 409, "TooLate");
            let installed = world.install(&activation_code, "8E9!#").await;
            assert_eq!(installed.status, 404, "{code}: the profile is cancelled");
            let line = world.line(line::ANNA).await;
            assert_eq!(line.current_sim.as_str(), ANNAS_SIM);
            assert_eq!(line.open_swap, None);
            let again = world.submit(&owner, &esim(line::ANNA)).await;
            assert_refused(&again, 403, code);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swap_that_nobody_outside_knows_of_is_stopped_too_and_one_that_has_moved_goes_on() {
    // Nothing wakes a swap here but the sweeper, which is told to come.
    let world = TestStack::start(local::stack::Options {
        stream_batch: None,
        settings: [("LEASE".to_owned(), "3s".to_owned())].into(),
        ..TestStack::options()
    })
    .await;
    let id = world.begin(&card(line::ANNA, FREE_CARD)).await;
    let told = bar(&world, &anna("ACTIVE;false;true")).await;
    assert_eq!(told, [format!("its open swap {id} is stopped")]);
    let seen = world.await_status(&id, "ERROR").await;
    assert_eq!(seen["info"]["failure"]["code"], "stopped");
    assert_eq!(world.sim(FREE_CARD).await.state.as_str(), "FREE");

    let slow = TestStack::start(local::stack::Options {
        network_delay: std::time::Duration::from_secs(3),
        ..TestStack::options()
    })
    .await;
    let id = slow.begin(&card(line::ANNA, FREE_CARD)).await;
    slow.await_status(&id, "BUSY").await;
    let told = bar(&slow, &anna("BLOCKED;false;false")).await;
    assert!(told[0].contains("cannot be stopped any more"), "{told:?}");
    slow.await_status(&id, "DONE").await;
    let line = slow.line(line::ANNA).await;
    assert_eq!(line.current_sim.as_str(), FREE_CARD);
    assert_eq!(line.state.as_str(), "BLOCKED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resend_is_refused_while_its_line_is_barred() {
    // The network starts by itself, so that the swap is past being stopped and still waits for the phone.
    for (bars, code, _) in BARS {
        let world = TestStack::new().await;
        let id = world.begin(&esim(line::ANNA)).await;
        world.await_waiting(&id).await;
        let swap = world.record(&id).await;
        let stored = world.stack.store.swap(&swap.id).await.unwrap().unwrap();
        let started = domain::Activation {
            phase: domain::Phase::Started,
            network_order: domain::NetworkOrder::Started,
            wake_at: Some(jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1)),
            version: swap.version + 1,
            ..swap
        };
        let saved = world.stack.store.save(&stored, &started).await.unwrap();
        assert_eq!(saved, store::Saved::Written);
        let told = bar(&world, &anna(bars)).await;
        assert!(told[0].contains("cannot be stopped any more"), "{told:?}");
        for token in [world.owner("C-100"), world.admin()] {
            let answer = world.manage(&token, "ResendEsim", &id, "").await;
            assert_refused(&answer, 403, code);
        }
        assert_eq!(world.mails(&id).len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_barred_account_shows_no_codes_and_does_not_tell_a_guesser_its_sim() {
    let world = TestStack::new().await;
    let owner = world.owner("C-100");
    let cards = ["8931086000000001011", "8931086000000001029"];
    for (n, (bars, _, message)) in BARS.into_iter().enumerate() {
        // A swap that is DONE, once with a key and once without: both would be repeated.
        let open = anna("ACTIVE;false;false");
        if n > 0 {
            bar(&world, &open).await;
        }
        let current = world.line(line::ANNA).await.current_sim.to_string();
        let card = cards.iter().find(|card| **card != current).unwrap();
        let named = match n {
            0 => (*card).to_owned(),
            _ => sim_of(&change(&world, &owner, line::ANNA, "autoAssign", "").await),
        };
        if n == 0 {
            sim_of(&change(&world, &owner, line::ANNA, &named, "key").await);
        }
        let id = swap_of(&world, line::ANNA).await;
        world.await_status(&id, "DONE").await;
        bar(&world, &anna(bars)).await;

        let mut bodies = Vec::new();
        for sim in [&*named, ANNAS_SIM, cards[0], cards[1], "eSim", "autoAssign", "1", "x"] {
            for key in ["", "key", "another"] {
                let answer = change(&world, &owner, line::ANNA, sim, key).await;
                assert_eq!(answer.status, 403, "{bars} {sim} {key}: {answer:?}");
                assert_eq!(answer.json()["error"]["message"], message);
                bodies.push(answer.body);
            }
        }
        bodies.dedup();
        assert_eq!(bodies.len(), 1, "{bodies:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_swap_is_open_the_current_sim_s_codes_are_not_to_be_had() {
    let world = TestStack::new().await;
    let owner = world.owner("C-100");
    let id = world.begin(&esim(line::ANNA)).await;
    world.await_waiting(&id).await;
    for sim in [ANNAS_SIM, FREE_CARD] {
        let answer = change(&world, &owner, line::ANNA, sim, "").await;
        assert_eq!(answer.status, 403, "{answer:?}");
        assert_eq!(answer.json()["error"]["message"], "state");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sim_whose_codes_were_shown_goes_to_no_other_line() {
    let world = TestStack::with(&[("SIM_REST", "1ms"), ("CALL_REST", "1ms")]).await;
    let owner = world.owner("C-100");
    let shown = sim_of(&change(&world, &owner, line::ANNA, "eSim", "k").await);
    let id = swap_of(&world, line::ANNA).await;
    world.await_waiting(&id).await;
    world.manage(&owner, "CancelActivation", &id, "").await;
    world.await_status(&id, "ERROR").await;

    let kept = world.sim(&shown).await;
    assert_eq!(kept.state.as_str(), "FREE");
    let line = world.line(line::ANNA).await;
    assert_eq!(line.kept_esim.map(|kept| kept.iccid), Some(kept.iccid));
    // It waits in no pool: nineteen of the twenty are left for all others.
    let mut taken = Vec::new();
    for n in 0..3 {
        let other = [line::BRAM, line::CARLA][n % 2];
        let token = world.reseller("R-10");
        taken.push(sim_of(&change(&world, &token, other, "eSim", &n.to_string()).await));
        let id = swap_of(&world, other).await;
        world.await_waiting(&id).await;
        world.manage(&token, "CancelActivation", &id, "").await;
        world.await_status(&id, "ERROR").await;
    }
    assert!(!taken.contains(&shown), "{taken:?}");
    assert_eq!(taken[0], taken[2], "a line's next swap takes what is kept for it");
    // The caller who saw it is shown it again.
    assert_eq!(sim_of(&change(&world, &owner, line::ANNA, "eSim", "k").await), shown);

    // The line's next swap takes it, in the other dialect too, and it stays kept if that fails.
    for _ in 0..2 {
        let id = world.begin(&esim(line::ANNA)).await;
        assert_eq!(world.record(&id).await.new_sim.as_str(), shown);
        assert_eq!(world.line(line::ANNA).await.kept_esim, None);
        world.await_waiting(&id).await;
        world.manage(&owner, "CancelActivation", &id, "").await;
        world.await_status(&id, "ERROR").await;
        assert!(world.line(line::ANNA).await.kept_esim.is_some());
    }
    let id = world.begin(&esim(line::ANNA)).await;
    let code = world.await_waiting(&id).await;
    assert_eq!(world.install(&code, "8E9!#").await.status, 200);
    world.await_status(&id, "DONE").await;
    let line = world.line(line::ANNA).await;
    assert_eq!((line.current_sim.as_str(), line.kept_esim), (&*shown, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_keeps_one_sim_of_a_kind_and_an_operator_can_release_it() {
    let world = TestStack::with(&[("SIM_REST", "1h"), ("CALL_REST", "1ms")]).await;
    let owner = world.owner("C-100");
    let mut shown = Vec::new();
    for _ in 0..2 {
        shown.push(sim_of(&change(&world, &owner, line::ANNA, "eSim", "").await));
        let id = swap_of(&world, line::ANNA).await;
        world.await_waiting(&id).await;
        world.manage(&owner, "CancelActivation", &id, "").await;
        world.await_status(&id, "ERROR").await;
    }
    // The first one rested still, so the second swap took another, which the line cannot keep beside it.
    let states = [world.sim(&shown[0]).await, world.sim(&shown[1]).await];
    let states = states.map(|sim| (sim.state.as_str(), sim.holder.is_some()));
    assert_eq!(states, [("FREE", true), ("DISABLED", false)]);

    let store = &world.stack.store;
    let iccid = domain::Iccid::parse(&shown[0]).unwrap();
    let released = store.release_sim(&iccid).await.unwrap();
    assert_eq!(released, store::Released::Free);
    let sim = world.sim(&shown[0]).await;
    assert_eq!((sim.state.as_str(), sim.holder), ("FREE", None));
    assert_eq!(world.line(line::ANNA).await.kept_esim, None);
    let current = domain::Iccid::parse(ANNAS_SIM).unwrap();
    let refused = store.release_sim(&current).await.unwrap();
    assert!(matches!(refused, store::Released::NotFree(_)), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_card_that_a_caller_named_and_saw_the_codes_of_is_assigned_to_nobody() {
    // Nothing takes the swap further, so that it can be cancelled. The number can be guessed: they count up.
    let world = TestStack::start(local::stack::Options {
        stream_batch: None,
        settings: [("LEASE".to_owned(), "2s".to_owned())].into(),
        ..TestStack::options()
    })
    .await;
    let owner = world.owner("C-100");
    sim_of(&change(&world, &owner, line::ANNA, FREE_CARD, "").await);
    let id = swap_of(&world, line::ANNA).await;
    world.manage(&owner, "CancelActivation", &id, "").await;
    world.await_status(&id, "ERROR").await;
    let card = world.sim(FREE_CARD).await;
    assert_eq!((card.state.as_str(), &card.holder), ("FREE", &None));
    let shelved = || {
        let rows = world.rows();
        let key = format!("S#{FREE_CARD}");
        let row = rows.iter().find(|row| format!("{:?}", row["pk"]).contains(&key));
        row.unwrap().contains_key("shelf")
    };
    assert!(!shelved(), "it waits in no pool");
    let released = world.stack.store.release_sim(&card.iccid).await.unwrap();
    assert_eq!(released, store::Released::Free);
    assert!(shelved());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_confirmation_code_is_shown_to_whoever_gave_it_and_to_nobody_else() {
    const MASK: &str = "##########";
    let world = TestStack::new().await;
    let giver = world.reseller("R-10");
    let first = world.submit(&giver, &esim(line::ANNA)).await.json();
    assert_eq!(first["info"]["confirmationCode"], "8E9!#");
    let id = first["id"].as_str().unwrap();
    world.await_waiting(id).await;
    let now = jiff::Timestamp::now();
    let issue = |role, customer, reseller, subject| {
        let tokens = &world.stack.tokens;
        tokens.issue(role, customer, reseller, subject, 3600, now)
    };
    for (token, shown) in [
        (giver.clone(), "8E9!#"),
        (issue("RESELLER", None, Some("R-10"), "another"), MASK),
        (world.owner("C-100"), MASK),
        (world.admin(), MASK),
    ] {
        let code = |answer: &Value| answer["info"]["confirmationCode"].clone();
        for query in [format!("id={id}"), format!("subscriptionId={}", line::ANNA)] {
            let page = world.query(&token, &query).await.json();
            assert_eq!(code(&page["results"][0]), shown, "{query}");
        }
    }
    let code = |answer: TestResponse| answer.json()["info"]["confirmationCode"].clone();
    let owner = world.owner("C-100");
    assert_eq!(code(world.manage(&owner, "ResendEsim", id, "").await), MASK);
    let cancelled = world.manage(&owner, "CancelActivation", id, "").await;
    assert_eq!(code(cancelled), MASK);
    let cancelled = world.manage(&giver, "CancelActivation", id, "").await;
    assert_eq!(code(cancelled), "8E9!#");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_act_on_a_screen_is_refused() {
    let world = TestStack::new().await;
    let owner = world.owner("C-100");
    let before = world.table();
    for reference in ["\u{1b}[2J", "a\nADMIN b", "\u{202e}7", "\u{9b}1A", "\u{7f}", "\t"] {
        let mut body = esim(line::ANNA);
        body["referenceNumber"] = json!(reference);
        let refused = world.submit(&owner, &body).await;
        let fault = ("InvalidValue".to_owned(), "referenceNumber".to_owned());
        assert_eq!(refused.refusal(), (400, "InvalidValue".into(), vec![fault]));
    }
    let now = jiff::Timestamp::now();
    for (subject, customer) in [("\u{1b}[2J", "C-100"), ("a\nb", "C-100"), ("a", "C-100\u{202e}")] {
        let tokens = &world.stack.tokens;
        let token = tokens.issue("OWNER", Some(customer), None, subject, 60, now);
        for answer in [
            world.submit(&token, &esim(line::ANNA)).await,
            world.query(&token, "").await,
            world.manage(&token, "CancelActivation", "x", "").await,
            world.manage(&token, "ResendEsim", "x", "").await,
            change(&world, &token, line::ANNA, "eSim", "").await,
        ] {
            assert_eq!(answer.status, 403, "{answer:?}");
        }
    }
    assert_eq!(world.table(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_is_what_its_route_says_however_it_is_spelled() {
    let world = TestStack::new().await;
    let id = world.begin(&esim(line::ANNA)).await;
    world.await_waiting(&id).await;
    let answer = world.manage(&world.admin(), "CancelActivatio%6E", &id, "").await;
    assert_eq!(answer.json()["info"]["failure"]["code"], "cancelled");
    assert_eq!(world.mails(&id).len(), 1);

    // An event of the network is one under any spelling, and no callback of the SM-DP+.
    let path = "/tmf-api/serviceOrdering/v4/listener/serviceOrderStateChangeEven%74";
    let event = json!({"eventId": "1", "event": {"serviceOrder": {"id": "none", "state": "completed"}}});
    let answer = world.send("POST", path, &[], event.to_string()).await;
    assert_eq!(answer.status, 201, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idempotency_key_that_comes_twice_is_refused() {
    let world = TestStack::new().await;
    let owner = world.owner("C-100");
    let before = world.table();
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
        let refused = world.send("POST", "/api/SimSwapSubscription", &headers, body).await;
        let fault = ("InvalidValue".to_owned(), "Idempotency-Key".to_owned());
        assert_eq!(refused.refusal(), (400, "InvalidValue".into(), vec![fault]), "{keys:?}");
        let path = format!("/mvno/{}/changesim/eSim", line::ANNA);
        let refused = world.send("POST", &path, &headers, "").await;
        assert_eq!(refused.status, 400, "{refused:?}");
    }
    assert_eq!(world.table(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_another_site_has_no_part_in_the_local_stack() {
    let world = TestStack::new().await;
    let id = world.begin(&esim(line::ANNA)).await;
    let code = activation_code(&world.await_mail(&id).await);
    let install = json!({"activationCode": code, "confirmationCode": "8E9!#"}).to_string();
    for header in [
        ("host", "simswap.thief.example:9000"),
        ("origin", "http://thief.example"),
        ("sec-fetch-site", "cross-site"),
    ] {
        for path in ["/local/mail", "/local/mail/1", "/local/endpoints"] {
            let answer = world.send("GET", path, &[header], "").await;
            assert_eq!(answer.status, 403, "{header:?} {path}");
        }
        let path = "/local/phone/install";
        let answer = world.send("POST", path, &[header], install.clone()).await;
        assert_eq!(answer.status, 403, "{header:?}");
    }
    // Nor through the ports of the parts behind it.
    let parts = &world.stack.endpoints;
    for (part, path) in [
        (&parts.kms, "/"),
        (&parts.ses, "/"),
        (&parts.lambda, "/2015-03-31/functions/query-activation/invocations"),
        (&parts.smdp, "/local/phone/install"),
    ] {
        let from_page = ("origin", "http://thief.example");
        let headers = [from_page];
        let answer = world.send_to(part, "POST", path, &headers, install.clone());
        let status = answer.await.status;
        assert!([400, 403].contains(&status), "{part}{path}: {status}");
    }
    assert_eq!(world.install(&code, "8E9!#").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_and_names_are_erased_in_time_in_swaps_without_a_code_too() {
    let world = TestStack::with(&[("CODE_KEPT", "1ms"), ("SIM_REST", "1ms")]).await;
    let owner = world.owner("C-100");
    change(&world, &owner, line::ANNA, "eSim", "").await;
    let id = swap_of(&world, line::ANNA).await;
    world.await_waiting(&id).await;
    let stored = || async {
        let id = domain::ActivationId::parse(&id).unwrap();
        world.stack.store.swap_with_deliveries(&id).await.unwrap().unwrap()
    };
    assert!(stored().await.secrets.matching_id.is_some());
    world.manage(&owner, "CancelActivation", &id, "").await;
    world.await_status(&id, "ERROR").await;
    let mut kept = stored().await;
    for _ in 0..1000 {
        if kept.secrets.matching_id.is_none() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        kept = stored().await;
    }
    assert_eq!(kept.secrets, store::SwapSecrets::default());
    assert!(!kept.activation.is_anonymous());

    let world = TestStack::with(&[("RECORDS_KEPT", "1s"), ("CODE_KEPT", "1s")]).await;
    let mut body = esim(line::ANNA);
    body["referenceNumber"] = json!("Anna's phone");
    let id = world.begin(&body).await;
    let code = world.await_waiting(&id).await;
    world.install(&code, "8E9!#").await;
    world.await_status(&id, "DONE").await;
    let seen = world.await_activation(&id, |seen| seen.get("phoneNumber").is_none());
    let seen = seen.await;
    assert_eq!(seen["status"], "DONE");
    assert_eq!(seen["info"]["email"], Value::Null);
    let rows = world.rows();
    let rows = rows.iter().filter(|row| format!("{:?}", row["pk"]).contains(&id));
    let rows: Vec<_> = rows.map(|row| format!("{row:?}")).collect();
    assert_eq!(rows.len(), 2, "the swap and its mail");
    for name in ["customer@example.com", "31612345601", "Anna", "ADMIN"] {
        assert!(!rows.iter().any(|row| row.contains(name)), "{name}: {rows:?}");
    }
    let shown = local::show::swap(&world.stack.store, &id).await.unwrap();
    assert!(shown.contains("phone number       erased"), "{shown}");
}
