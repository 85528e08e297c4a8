//! The operator's commands that change or list single records: lines and SIMs changed, removed and listed, a data key
//! added, dead letters replayed. Imports and `show` are in `stock.rs`.

use aws::{Service, ServiceClient};
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region, SharedCredentialsProvider};
use aws_smithy_async::rt::sleep::{SharedAsyncSleep, TokioSleep};
use axum::Json;
use axum::http::{HeaderMap, StatusCode};
use domain::{Iccid, LineState, Msisdn, SimState, Status};
use edge::{ClockAndRng, Settings};
use jiff::Timestamp;
use jiff::tz::{TimeZone, offset};
use local::dynoxide::AttributeValue;
use local::dynoxide::actions::update_item::UpdateItemRequest;
use operator::commands::{remove_line, remove_sim, rewrap_keys, rotate_key, set_line};
use operator::line::LineChange;
use operator::list::{self, LineFilter, SimFilter, SwapFilter};
use operator::replay::{DeadLetterQueue, replay};
use operator::show;
use serde_json::json;
use store::{Action, Pool, Store, StoreError};
use submit_swap::SubmitSwap;
use tests::{FREE_CARD, TestStack, activation_code, card, esim, line};

const NEW_PHONE: &str = "+31612349900";
const ANNAS_PHONE: &str = "+31612345601";
const ANNAS_SIM: &str = "8931086000000000013";

fn change() -> LineChange {
    LineChange::default()
}

async fn set(service: &TestStack, line: &str, change: LineChange) -> Result<(), String> {
    let set = set_line(&service.stack.store, line, &change, true).await;
    set.map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_number_leads_to_the_line_and_the_old_one_to_nothing() {
    let service = TestStack::new().await;
    let phone = |phone: &str| LineChange {
        phone: Some(Msisdn::parse(phone).unwrap()),
        ..change()
    };
    let before = service.table();
    let taken = set(&service, line::ANNA, phone("+31612345602")).await.unwrap_err();
    assert_eq!(taken, format!("+31612345602 is the number of line {}", line::BRAM));
    set(&service, line::ANNA, phone(ANNAS_PHONE)).await.unwrap();
    assert_eq!(service.table(), before, "neither changes anything");

    set(&service, ANNAS_PHONE, phone(NEW_PHONE)).await.unwrap();
    assert_eq!(service.line(line::ANNA).await.phone.as_e164(), NEW_PHONE);
    let store = &service.stack.store;
    let entry = store.phone(&Msisdn::parse(NEW_PHONE).unwrap()).await.unwrap().unwrap();
    assert_eq!(
        (entry.subscription.as_str(), &*entry.customer, entry.reseller.as_deref()),
        (line::ANNA, "C-100", Some("R-10"))
    );
    assert_eq!(store.phone(&Msisdn::parse(ANNAS_PHONE).unwrap()).await.unwrap(), None);

    let admin = service.admin();
    let submit = async |phone: &str| {
        let body = json!({"phoneNumber": phone, "newSimCardNumber": FREE_CARD});
        service.submit(&admin, &body).await
    };
    assert_eq!(submit(ANNAS_PHONE).await.status, 404);
    let swap = submit(NEW_PHONE).await.json();
    assert_eq!(
        (&swap["subscriptionId"], &swap["phoneNumber"]),
        (&json!(line::ANNA), &json!("06-12349900"))
    );
    service.await_status(swap["id"].as_str().unwrap(), "DONE").await;

    let shown = show::line(store, &TimeZone::UTC, NEW_PHONE).await.unwrap();
    assert!(
        shown.contains(&format!("phone number {ANNAS_PHONE} → {NEW_PHONE}")),
        "{shown}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_customer_gets_nothing_that_belongs_to_the_previous_one() {
    let service = TestStack::with(&[("SIM_REST", "1ms"), ("CALL_REST", "1ms")]).await;
    let store = &service.stack.store;
    // The owner sees the codes of an eSIM, and cancels: the line keeps the SIM.
    let owner = service.owner("C-100");
    let path = format!("/mvno/{}/changesim/eSim", line::ANNA);
    let bearer = format!("Bearer {owner}");
    let response = service.send("POST", &path, &[("authorization", &bearer)], "").await;
    let kept = response.json()["mvnoSim"]["simNumber"].as_str().unwrap().to_owned();
    let open = service.line(line::ANNA).await.open_swap.unwrap().to_string();
    service.await_waiting(&open).await;
    service.manage(&owner, "CancelActivation", &open, "").await;
    service.await_status(&open, "ERROR").await;
    assert!(service.line(line::ANNA).await.kept_esim.is_some());
    let done = service.start_swap(&card(line::ANNA, FREE_CARD)).await;
    service.await_status(&done, "DONE").await;

    let to = LineChange {
        customer: Some("C-900".into()),
        reseller: Some(None),
        ..change()
    };
    set(&service, line::ANNA, to).await.unwrap();
    let stored = store.line(&service.line(line::ANNA).await.id).await.unwrap().unwrap();
    assert_eq!(
        (&*stored.line.customer, stored.line.reseller.as_deref()),
        ("C-900", None)
    );
    assert_eq!(
        (stored.line.email.as_ref(), stored.line.kept_esim.as_ref()),
        (None, None)
    );
    assert_eq!(
        stored.last, None,
        "a repeated request must not show the codes of the SIM"
    );
    let entry = store.phone(&stored.line.phone).await.unwrap().unwrap();
    assert_eq!((&*entry.customer, entry.reseller), ("C-900", None));
    let sim = service.sim(&kept).await;
    assert_eq!((sim.state, sim.holder, sim.codes_shown), (SimState::Free, None, true));
    let pool = Pool::parse("KPN#R-10#esim").unwrap();
    let pooled = store.sims_of_pool(&pool, None).await.unwrap().rows;
    assert!(pooled.iter().all(|sim| sim.iccid.as_str() != kept), "it is in no pool");

    // The swaps stay with the customer who requested them.
    let of_line = format!("subscriptionId={}", line::ANNA);
    for (customer, query, expected) in [
        ("C-100", &*of_line, 0),
        ("C-100", "take=5", 2),
        ("C-900", &*of_line, 0),
        ("C-900", "take=5", 0),
    ] {
        let page = service.query(&service.owner(customer), query).await.json();
        assert_eq!(page["total"], expected, "{customer} {query}: {page}");
    }
    let shown = show::line(store, &TimeZone::UTC, line::ANNA).await.unwrap();
    assert!(
        shown.contains("customer C-100 → C-900, reseller R-10 → none, e-mail changed"),
        "{shown}"
    );
    assert!(!shown.contains("anna@example.com"), "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_swap_is_stopped_by_a_block_and_prevents_what_it_relies_on() {
    let service = TestStack::new().await;
    let open = service.start_swap(&esim(line::ANNA)).await;
    service.await_waiting(&open).await;
    let before = service.line(line::ANNA).await;
    let to = LineChange {
        customer: Some("C-900".into()),
        ..change()
    };
    let refused = set(&service, line::ANNA, to).await.unwrap_err();
    assert!(
        refused.contains(&format!("has the open swap {open}, which relies on")),
        "{refused}"
    );
    let refused = remove_line(&service.stack.store, line::ANNA, true).await.unwrap_err();
    assert!(
        refused.to_string().contains(&format!("has the open swap {open};")),
        "{refused}"
    );
    let reserved = service.record(&open).await.new_sim;
    let refused = remove_sim(&service.stack.store, reserved.as_str(), true)
        .await
        .unwrap_err();
    assert!(
        refused.to_string().contains(&format!("is reserved by swap {open};")),
        "{refused}"
    );
    assert_eq!(service.line(line::ANNA).await, before);

    let to = LineChange {
        state: Some(LineState::Blocked),
        locked: Some(true),
        ..change()
    };
    set(&service, line::ANNA, to).await.unwrap();
    let ended = service.await_status(&open, "ERROR").await;
    assert_eq!(ended["info"]["failure"]["code"], "stopped");
    let after = service.line(line::ANNA).await;
    assert_eq!(
        (after.state, after.locked, after.current_sim),
        (LineState::Blocked, true, before.current_sim)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_that_changed_since_it_was_read_is_not_written() {
    let service = TestStack::new().await;
    let store = &service.stack.store;
    let before = service.line(line::ANNA).await;
    let to = LineChange {
        locked: Some(true),
        ..change()
    };
    set(&service, line::ANNA, to).await.unwrap();
    let action = store::Action {
        at: Timestamp::now(),
        by: "test".into(),
        what: "renumbered".into(),
    };
    let after = domain::Line {
        phone: Msisdn::parse(NEW_PHONE).unwrap(),
        ..before.clone()
    };
    let deadlines = edge::Settings::new(|_| None).deadlines().unwrap();
    let table = service.table();
    let changed = store
        .change_line(&before, &after, &action, &deadlines, Timestamp::now)
        .await;
    assert_eq!(changed.unwrap(), None);
    assert_eq!(service.table(), table);
    // Neither does a phone number that was taken in the meantime.
    let after = domain::Line {
        phone: Msisdn::parse("+31612345602").unwrap(),
        ..service.line(line::ANNA).await
    };
    let current = service.line(line::ANNA).await;
    let changed = store
        .change_line(&current, &after, &action, &deadlines, Timestamp::now)
        .await;
    assert_eq!(changed.unwrap(), None);
    assert_eq!(service.table(), table);
}

/// A SIM that was kept for the line since the operator saw it would otherwise be lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_that_has_changed_since_it_was_seen_is_not_removed() {
    let service = TestStack::new().await;
    let store = &service.stack.store;
    let action = Action {
        at: Timestamp::now(),
        by: "eva".to_owned(),
        what: "removed".to_owned(),
    };
    let deadlines = Settings::new(|_| None).deadlines().unwrap();
    let text = |text: &str| AttributeValue::S(text.to_owned());
    for (number, attribute) in ["keptCard", "keptEsim", "reseller", "email", "swap"]
        .into_iter()
        .enumerate()
    {
        let line = [line::ANNA, line::BRAM, line::CARLA, line::DORTE, line::EMIL][number];
        let seen = service.line(line).await;
        let change = UpdateItemRequest {
            table_name: service.stack.endpoints.table.clone(),
            key: [("pk", text(&format!("L#{line}"))), ("sk", text("line"))]
                .map(|(name, value)| (name.to_owned(), value))
                .into(),
            update_expression: Some(format!("SET {attribute} = :new")),
            expression_attribute_values: Some([(":new".to_owned(), text("8931086000000002019"))].into()),
            ..UpdateItemRequest::default()
        };
        service.stack.database.update_item(change).unwrap();
        let before = service.table();
        let removed = store.remove_line(&seen, &action, &deadlines).await.unwrap();
        assert!(!removed, "{attribute}");
        assert_eq!(service.table(), before, "{attribute}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_line_leaves_its_swaps_its_number_and_a_trace() {
    let service = TestStack::new().await;
    let store = &service.stack.store;
    let done = service.start_swap(&card(line::ANNA, FREE_CARD)).await;
    service.await_status(&done, "DONE").await;
    let refused = remove_sim(store, FREE_CARD, true).await.unwrap_err().to_string();
    assert!(
        refused.contains(&format!("is the current SIM of line {};", line::ANNA)),
        "{refused}"
    );

    remove_line(store, line::ANNA, true).await.unwrap();
    assert_eq!(store.phone(&Msisdn::parse(ANNAS_PHONE).unwrap()).await.unwrap(), None);
    let sim = service.sim(FREE_CARD).await;
    assert_eq!((sim.state, sim.holder), (SimState::Disabled, None));
    assert_eq!(service.submit(&service.admin(), &esim(line::ANNA)).await.status, 404);
    let page = service.query(&service.admin(), &format!("id={done}")).await.json();
    assert_eq!(page["results"][0]["status"], "DONE");
    let shown = show::line(store, &TimeZone::UTC, line::ANNA).await.unwrap();
    assert!(
        shown.starts_with(&format!("line {} is removed\n", line::ANNA)),
        "{shown}"
    );
    assert!(
        shown.contains(&done) && shown.contains(&format!("removed with number {ANNAS_PHONE}")),
        "{shown}"
    );
    let again = remove_line(store, line::ANNA, true).await.unwrap_err().to_string();
    assert_eq!(again, format!("there is no line {}", line::ANNA));

    // Both SIMs of the line can go now: the one that it had, and the one before.
    for iccid in [FREE_CARD, ANNAS_SIM, "8931086000000001029"] {
        remove_sim(store, iccid, true).await.unwrap();
        assert_eq!(store.sim(&Iccid::parse(iccid).unwrap()).await.unwrap(), None);
        let shown = show::sim(store, &TimeZone::UTC, iccid).await.unwrap();
        assert!(shown.starts_with(&format!("SIM {iccid} is removed\n")), "{shown}");
    }
    let named = card(line::BRAM, "8931086000000001029");
    assert_eq!(service.submit(&service.admin(), &named).await.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_are_filtered_limited_and_without_secrets() {
    let service = TestStack::new().await;
    let store = &service.stack.store;
    let done = service.start_swap(&card(line::ANNA, FREE_CARD)).await;
    service.await_status(&done, "DONE").await;
    let open = service.start_swap(&esim(line::BRAM)).await;
    service.await_waiting(&open).await;
    let first_words = |text: &str| -> Vec<String> {
        let rows = text.lines().skip(1);
        let mut words: Vec<_> = rows.map(|row| row.split(' ').next().unwrap().to_owned()).collect();
        words.sort();
        words
    };

    let filter = LineFilter {
        state: Some(LineState::Active),
        customer: Some("C-100".into()),
        ..LineFilter::default()
    };
    let lines = list::lines(store, &filter, 100).await.unwrap();
    assert_eq!(
        first_words(&lines.text),
        [line::ANNA, line::BRAM, line::GIJS, line::HANNA]
    );
    assert!(!lines.has_more && !lines.text.contains('@'), "{}", lines.text);
    assert!(lines.text.contains(&open), "{}", lines.text);
    let three = list::lines(store, &filter, 3).await.unwrap();
    assert_eq!((three.text.lines().count(), three.has_more), (4, true));
    let four = list::lines(store, &filter, 4).await.unwrap();
    assert_eq!((four.text.lines().count(), four.has_more), (5, false));

    let sims = |filter: SimFilter| async move { list::sims(store, &TimeZone::UTC, &filter, 1000).await.unwrap().text };
    let disabled = SimFilter {
        state: Some(SimState::Disabled),
        ..SimFilter::default()
    };
    assert_eq!(first_words(&sims(disabled).await), [ANNAS_SIM]);
    let pool = SimFilter {
        pool: Some(Pool::parse("KPN#R-10#esim").unwrap()),
        ..SimFilter::default()
    };
    assert_eq!(first_words(&sims(pool).await).len(), 19, "one of twenty is reserved");
    let of_reseller = SimFilter {
        reseller: Some("R-20".into()),
        ..SimFilter::default()
    };
    let text = sims(of_reseller).await;
    assert!(text.lines().skip(1).all(|row| row.contains("R-20")) && text.lines().count() > 50);
    for secret in ["12345678", "87654321"] {
        let fits = |row: &str| row.split_whitespace().any(|word| word == secret);
        assert!(!text.lines().any(fits), "{text}");
    }

    let zone = TimeZone::fixed(offset(5));
    let swaps = async |filter: SwapFilter| list::swaps(store, &zone, &filter, 100).await.unwrap().text;
    let all = swaps(SwapFilter::default()).await;
    let rows: Vec<_> = all.lines().skip(1).map(|row| row.split(' ').next().unwrap()).collect();
    assert_eq!(rows, [&open, &done], "newest first");
    assert!(all.lines().skip(1).all(|row| row.contains("+05:00  ")), "{all}");
    for (filter, expected) in [
        (
            SwapFilter {
                status: Some(Status::Done),
                ..SwapFilter::default()
            },
            vec![done.clone()],
        ),
        (
            SwapFilter {
                status: Some(Status::Busy),
                reseller: Some("R-10".into()),
                ..SwapFilter::default()
            },
            vec![open.clone()],
        ),
        (
            SwapFilter {
                customer: Some("C-300".into()),
                ..SwapFilter::default()
            },
            vec![],
        ),
        (
            SwapFilter {
                line: Some("06-12345602".into()),
                ..SwapFilter::default()
            },
            vec![open.clone()],
        ),
        (
            SwapFilter {
                line: Some(line::ANNA.into()),
                status: Some(Status::Error),
                ..SwapFilter::default()
            },
            vec![],
        ),
    ] {
        assert_eq!(first_words(&swaps(filter).await), expected);
    }
    for unknown in ["06-99999999", "nope", "no line"] {
        let filter = SwapFilter {
            line: Some(unknown.into()),
            ..SwapFilter::default()
        };
        let error = list::swaps(store, &zone, &filter, 100).await.unwrap_err().to_string();
        assert_eq!(error, format!("there is no line {unknown}"));
    }
    let one = list::swaps(store, &zone, &SwapFilter::default(), 1).await.unwrap();
    assert_eq!((first_words(&one.text), one.has_more), (vec![open.clone()], true));
    let shown = show::line(store, &zone, line::ANNA).await.unwrap();
    assert!(
        shown.lines().any(|row| row.starts_with(&done) && row.contains("DONE")),
        "{shown}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_data_key_encrypts_from_the_next_start_and_the_old_one_still_decrypts() {
    let service = TestStack::new().await;
    let store = &service.stack.store;
    let iccid = Iccid::parse(FREE_CARD).unwrap();
    rotate_key(store).await.unwrap();
    let kms = client(Service::Kms, &service.stack.endpoints.kms);
    let started_later = store_with(&service, kms);
    let newest = started_later.keyring().newest_sealing_key().await.unwrap();
    assert_eq!(newest.number(), 2);
    let sim = started_later.sim_with_secrets(&iccid).await.unwrap().unwrap();
    assert_eq!(sim.pin1.unwrap().expose(), "1234");
    let next = started_later.keyring().rotate().await.unwrap();
    assert_eq!(next.number(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_submit_makes_no_call_to_kms() {
    let service = TestStack::new().await;
    let values = service.stack.settings.clone();
    let settings = Settings::new(move |name| values.get(name).cloned());
    let sealing_key = settings.parsed("SEALING_KEY", str::parse).unwrap();
    // Nothing listens on this port.
    let kms = client(Service::Kms, "http://127.0.0.1:9");
    let store = store_with(&service, kms).sealing_with(Some(sealing_key));
    let function = SubmitSwap::new(store, ClockAndRng::real(), &settings).unwrap();
    let event = lambda_http::request::from_str(include_str!("../events/submit-swap.json")).unwrap();
    assert_eq!(function.handle(event).await.status(), 200);
}

/// Without `SEALING_KEY`, the data key encrypts secret fields, as in earlier releases.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_forms_of_secret_fields_are_written_and_read() {
    let earlier = TestStack::with(&[("SEALING_KEY", "")]).await;
    for (service, first_byte) in [(&earlier, 0), (&TestStack::new().await, 0x80)] {
        let (owner, key) = (service.owner("C-100"), [("idempotency-key", "k")]);
        let submit = async |code: &str| {
            let mut body = esim(line::ANNA);
            body["confirmationCode"] = json!(code);
            service.submit_with(&owner, &key, &body).await
        };
        let first = submit("8E9!#").await;
        assert_eq!(first.status, 200, "{first:?}");
        let swap = first.json()["id"].as_str().unwrap().to_owned();
        let rows = service.rows();
        let row = rows.iter().find(|row| row.contains_key("matchingId")).unwrap();
        for secret in ["code", "matchingId"] {
            let AttributeValue::B(sealed) = &row[secret] else {
                panic!("{secret} is not binary");
            };
            assert_eq!(sealed[0], first_byte, "{secret}");
        }
        assert_eq!(submit("8E9!#").await.body, first.body);
        assert_eq!(submit("other").await.status, 422);
        let code = activation_code(&service.await_mail(&swap).await);
        service.await_waiting(&swap).await;
        assert_eq!(service.install(&code, "8E9!#").await.status, 200);
        service.await_status(&swap, "DONE").await;
    }
}

/// A table that was restored from a backup has another name than the one with which its data keys were made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_keys_open_only_in_the_name_of_their_installation() {
    let service = TestStack::new().await;
    let iccid = Iccid::parse(FREE_CARD).unwrap();
    for (installation, opens) in [("", true), ("simswap", true), ("another", false)] {
        let kms = client(Service::Kms, &service.stack.endpoints.kms);
        let store = store_with(&service, kms).of_installation(installation.to_owned());
        let opened = store.sim_with_secrets(&iccid).await;
        assert_eq!(opened.is_ok(), opens, "{installation:?}: {:?}", opened.err());
    }
    assert_eq!(service.stack.endpoints.table, "simswap");
}

/// The KMS of the stack has one master key, so damaged bytes stand for those of a master key that is no longer allowed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_keys_are_wrapped_with_another_master_key_while_functions_use_either() {
    let service = TestStack::new().await;
    let iccid = Iccid::parse(FREE_CARD).unwrap();
    let store = || store_with(&service, client(Service::Kms, &service.stack.endpoints.kms));
    store().keyring().rotate().await.unwrap();
    let keys = || {
        let rows = service.rows().into_iter();
        let rows: Vec<_> = rows.filter(|row| row.contains_key("wrapped")).collect();
        assert_eq!(rows.len(), 2);
        rows
    };
    let damage = |name: &str| {
        for mut row in keys() {
            if let Some(AttributeValue::B(bytes)) = row.get_mut(name) {
                bytes[40] ^= 1;
            }
            let request = json!({"TableName": service.stack.endpoints.table, "Item": row});
            let database = &service.stack.database;
            database.put_item(serde_json::from_value(request).unwrap()).unwrap();
        }
    };
    let opens = async || store().sim_with_secrets(&iccid).await.is_ok();

    let before = keys();
    let rejected = rewrap_keys(&store(), "alias/other", false).await.unwrap_err();
    assert!(rejected.to_string().contains("NotFoundException"), "{rejected}");
    assert_eq!(keys(), before);
    // With nothing to finish, the data keys have to be wrapped with the new master key already.
    assert!(rewrap_keys(&store(), "alias/other", true).await.is_err());
    assert_eq!(keys(), before);

    rewrap_keys(&store(), local::kms::ALIAS, false).await.unwrap();
    rewrap_keys(&store(), local::kms::ALIAS, false).await.unwrap();
    assert!(opens().await);
    damage("wrapped");
    assert!(opens().await);
    damage("wrapped");
    damage("rewrapped");
    assert!(opens().await);
    assert!(rewrap_keys(&store(), local::kms::ALIAS, true).await.is_err());
    damage("rewrapped");
    for _ in 0..2 {
        rewrap_keys(&store(), local::kms::ALIAS, true).await.unwrap();
    }
    for (now, before) in keys().iter().zip(&before) {
        assert!(!now.contains_key("rewrapped") && now["wrapped"] != before["wrapped"]);
    }
    assert!(opens().await);
    damage("wrapped");
    assert!(!opens().await);
}

#[tokio::test]
async fn a_data_key_that_cannot_be_unwrapped_is_not_written() {
    let service = TestStack::new().await;
    let url =
        serve(axum::Router::new().fallback(
            async |headers: HeaderMap| match headers["x-amz-target"].to_str().unwrap() {
                "TrentService.Decrypt" => {
                    let body = json!({"__type": "InvalidCiphertextException", "message": ""});
                    (StatusCode::BAD_REQUEST, Json(body))
                }
                _ => (
                    StatusCode::OK,
                    Json(json!({"CiphertextBlob": "AAAA", "KeyId": "other"})),
                ),
            },
        ))
        .await;
    let store = store_with(&service, client(Service::Kms, &url));
    let before = service.table();
    let rejected = store.keyring().rotate().await.unwrap_err();
    assert!(matches!(rejected, StoreError::Rejected(_)), "{rejected:?}");
    assert_eq!(service.table(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_replayed_or_deleted_and_unknown_ones_are_left() {
    // The queue of a deployment, in no order: each kind of message once, and one that arrives later.
    let start = Timestamp::now();
    let message = |id: &str, later: i64, body: serde_json::Value| {
        let sent = (start.as_millisecond() + later).to_string();
        json!({"MessageId": id, "ReceiptHandle": id, "Attributes": {"SentTimestamp": sent}, "Body": body.to_string()})
    };
    let event = json!({"Records": [{"Sns": {"Message": "{}"}}]});
    let arn = "arn:aws:lambda:eu-central-1:1:function:s-mail-events:$LATEST";
    let notification = json!({"Type": "Notification", "Message": "{\"eventType\":\"Open\"}"});
    let messages = vec![
        message(
            "event",
            -1,
            json!({"requestContext": {"functionArn": arn}, "requestPayload": event}),
        ),
        message("later", 60_000, json!("?")),
        message(
            "records",
            -1,
            json!({"requestContext": {"functionArn": "f"}, "DDBStreamBatchInfo": {}}),
        ),
        message("unknown", -1, json!("?")),
        message("notification", -1, notification.clone()),
        message("later", 60_000, json!("?")),
        message("event", -1, json!("not received")),
    ];
    let calls = std::sync::Arc::new(std::sync::Mutex::new((Vec::new(), messages.into_iter())));
    let seen = calls.clone();
    let url = serve(axum::Router::new().fallback(
        async move |uri: axum::http::Uri, headers: HeaderMap, body: String| {
            let mut seen = seen.lock().unwrap();
            let target = headers
                .get("x-amz-target")
                .map_or(uri.path(), |target| target.to_str().unwrap());
            if target.ends_with("ReceiveMessage") {
                return Json(json!({"Messages": [seen.1.next().unwrap()]}));
            }
            seen.0.push((target.to_owned(), body));
            Json(json!({}))
        },
    ))
    .await;
    let queue = DeadLetterQueue {
        sqs: client(Service::Sqs, &url),
        lambda: client(Service::Lambda, &url),
        url: format!("{url}/1/queue"),
        mail_events: "s-mail-events".into(),
    };
    let mut lines = Vec::new();
    let replayed = replay(&queue, start, &mut |line| lines.push(line.to_owned()))
        .await
        .unwrap();
    assert_eq!((replayed.invoked, replayed.deleted, replayed.left), (2, 1, 1));
    assert_eq!(lines.len(), 4, "{lines:?}");
    let (calls, _) = &*calls.lock().unwrap();
    let deleted = |id: &str| {
        let input = json!({"QueueUrl": queue.url, "ReceiptHandle": id}).to_string();
        ("AmazonSQS.DeleteMessage".to_owned(), input)
    };
    let invoked = |function: &str, event: serde_json::Value| {
        (
            format!("/2015-03-31/functions/{function}/invocations"),
            event.to_string(),
        )
    };
    let sns = json!({"Records": [{"EventSource": "aws:sns", "EventVersion": "1.0", "Sns": notification}]});
    let escaped = "arn%3Aaws%3Alambda%3Aeu-central-1%3A1%3Afunction%3As-mail-events%3A%24LATEST";
    assert_eq!(
        *calls,
        [
            invoked(escaped, event),
            deleted("event"),
            deleted("records"),
            invoked("s-mail-events", sns),
            deleted("notification"),
        ]
    );
}

/// Serves a fake part of AWS, and returns its URL.
async fn serve(router: axum::Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async { axum::serve(listener, router).await });
    url
}

fn sdk() -> aws::SdkConfig {
    let credentials = Credentials::new("id", "secret", None, None, "test");
    aws::SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::from_static("eu-central-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .sleep_impl(SharedAsyncSleep::new(TokioSleep::new()))
        .http_client(aws::http_client(None))
        .build()
}

pub(crate) fn client(service: Service, url: &str) -> ServiceClient {
    ServiceClient::with_endpoint(&sdk(), service, url)
}

/// A store as another process would open it.
pub(crate) fn store_with(service: &TestStack, kms: ServiceClient) -> Store {
    let endpoints = &service.stack.endpoints;
    let dynamodb = aws_sdk_dynamodb::config::Builder::from(&sdk()).endpoint_url(&endpoints.dynamodb);
    let dynamodb = aws_sdk_dynamodb::Client::from_conf(dynamodb.build());
    Store::new(dynamodb, kms, &endpoints.table, local::kms::ALIAS)
}
