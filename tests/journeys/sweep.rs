//! The sweeper without the stream, an unreadable record in the stream, SES events, and the erasing of codes.

use std::time::Duration;

use aws::Service;
use domain::{ActivationId, DeliveryState, Phase};
use jiff::Timestamp;
use local::dynoxide::actions::put_item::PutItemRequest;
use local::stack::Options;
use operator::import::{Counts, Kind, import};
use operator::replay::{DeadLetterQueue, replay};
use serde_json::{Value, json};
use tests::{FREE_CARD, TestStack, card, esim, line};

use crate::operate::client;

async fn without_stream(settings: &[(&str, &str)]) -> TestStack {
    TestStack::start(Options {
        stream_batch: None,
        ..TestStack::options_with(settings)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sweeper_alone_completes_swaps() {
    let service = without_stream(&[("LEASE", "1s")]).await;
    let physical = service.start_swap(&card(line::BRAM, FREE_CARD)).await;
    let id = service.start_swap(&esim(line::ANNA)).await;
    let code = service.await_waiting(&id).await;
    assert_eq!(service.install(&code, "8E9!#").await.status, 200);
    for id in [&id, &physical] {
        service.await_status(id, "DONE").await;
    }
    assert_eq!(service.mails(&id).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sweeper_alone_expires_swaps_that_are_not_installed() {
    let service = without_stream(&[("LEASE", "1s"), ("INSTALL_WITHIN", "3s"), ("ASK_AFTER", "500ms")]).await;
    let id = service.start_swap(&esim(line::ANNA)).await;
    let seen = service.await_status(&id, "ERROR").await;
    assert_eq!(seen["info"]["failure"]["code"], "expired");
    let record = service.record(&id).await;
    let sim = service.sim(record.new_sim.as_str()).await;
    assert_eq!((sim.state.as_str(), sim.holder), ("FREE", None));
    assert!(service.line(line::ANNA).await.open_swap.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_confirmation_code_is_erased_in_time() {
    let service = TestStack::with(&[("CODE_KEPT", "1s")]).await;
    let id = service.start_swap(&esim(line::ANNA)).await;
    assert_eq!(
        service
            .manage(&service.admin(), "CancelActivation", &id, "")
            .await
            .status,
        200
    );
    let key = ActivationId::parse(&id).unwrap();
    loop {
        let swap = service.stack.store.swap(&key).await.unwrap().unwrap();
        if swap.secrets == store::SwapSecrets::default() {
            assert_eq!(swap.activation.phase, Phase::Error);
            assert!(!swap.activation.is_anonymous());
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(service.activation(&id).await["info"]["confirmationCode"], "##########");
}

/// Adds the lines `swept-<n>` on the network SWEPT, each with its SIM and a free card.
async fn load_lines(service: &TestStack, count: usize) {
    let mut sims = "SIM_CARD_NUMBER;PUK1;PUK2;PIN1;PIN2;FORM_FACTOR;NETWORK;ACTIVATION_CODE;TAG;AUTO_ASSIGN".to_owned();
    let mut lines = "ID;PHONE_NUMBER;CUSTOMER;RESELLER;NETWORK;CURRENT_SIM;EMAIL;LANGUAGE;STATE;PORTING".to_owned();
    for number in 0..count {
        sims += &format!("\n{};;;;;NANO;SWEPT;;;false", free_card(number));
        lines +=
            &format!("\nswept-{number};+46700000{number:03};C-400;;SWEPT;8946010000000000{number:03};;en;ACTIVE;false");
    }
    let directory = tempfile::tempdir().unwrap();
    for (kind, text) in [(Kind::Sims, sims), (Kind::Subscriptions, lines)] {
        let path = directory.path().join("file.csv");
        std::fs::write(&path, text).unwrap();
        let store = &service.stack.store;
        let imported = import(kind, &path, false, store, &mut |_| {}).await;
        let expected = Counts {
            added: count as u64,
            ..Counts::default()
        };
        assert_eq!(imported.unwrap(), expected);
    }
}

fn free_card(number: usize) -> String {
    format!("8946010000000001{number:03}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_record_of_a_hundred_that_cannot_be_read_holds_back_no_other() {
    const SWAPS: usize = 99;
    let directory = tempfile::tempdir().unwrap();
    let stack = |stream_batch, sweep_every| Options {
        data_dir: Some(directory.path().to_owned()),
        stream_batch,
        sweep_every,
        ..TestStack::options()
    };
    // Nothing wakes the swaps. Then the stream gets a hundred change records, one of a row without attributes.
    let service = TestStack::start(stack(None, Duration::from_secs(3600))).await;
    load_lines(&service, SWAPS).await;
    let text = |text: &str| serde_json::from_value(json!({"S": text})).unwrap();
    let mut ids = Vec::new();
    for number in 0..SWAPS {
        if number == SWAPS / 2 {
            let poison = PutItemRequest {
                table_name: service.stack.endpoints.table.clone(),
                item: [
                    ("pk".to_owned(), text("A#POISON")),
                    ("sk".to_owned(), text("activation")),
                ]
                .into(),
                ..PutItemRequest::default()
            };
            service.stack.database.put_item(poison).unwrap();
        }
        let request = card(&format!("swept-{number}"), &free_card(number));
        ids.push(service.start_swap(&request).await);
    }
    service.stack.stop().await;

    // One batch has all of them. A hundred at once may outlast a lease: then the sweeper continues.
    let service = TestStack::start(stack(Some(SWAPS + 1), Duration::from_secs(1))).await;
    for id in &ids {
        service.await_status(id, "DONE").await;
    }
    for _ in 0..1000 {
        if !service.stack.dead_letters.list().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let dead = service.stack.dead_letters.list();
    assert_eq!(dead.len(), 1, "{dead:?}");
    assert_eq!(dead[0]["dynamodb"]["Keys"]["pk"]["S"], "A#POISON");

    let queue = DeadLetterQueue {
        sqs: client(Service::Sqs, &service.stack.settings["AWS_ENDPOINT_URL_SQS"]),
        lambda: client(Service::Lambda, &service.stack.endpoints.lambda),
        url: "dead-letters".into(),
        mail_events: "mail-events".into(),
    };
    let replayed = replay(&queue, Timestamp::now(), &mut |_| {}).await.unwrap();
    assert_eq!((replayed.invoked, replayed.deleted, replayed.left), (0, 1, 0));
    assert_eq!(service.stack.dead_letters.list(), Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ses_events_set_the_delivery_state() {
    let service = TestStack::new().await;
    for (line, to, expected) in [
        (line::ANNA, "anna@example.com", DeliveryState::Delivered),
        (line::BRAM, "bounce@simulator.amazonses.com", DeliveryState::Bounced),
        (
            line::CARLA,
            "complaint@simulator.amazonses.com",
            DeliveryState::Delivered,
        ),
    ] {
        let mut body = esim(line);
        body["email"] = json!(to);
        let id = service.start_swap(&body).await;
        let shown = expected.as_str();
        service
            .await_activation(&id, |seen| seen["info"]["delivery"] == shown)
            .await;
        let key = ActivationId::parse(&id).unwrap();
        if to.starts_with("complaint") {
            let complains = async || {
                let mail = service.stack.store.delivery(&key, 1).await.unwrap().unwrap();
                mail.timeline.iter().any(|event| event.what == "SES: complaint")
            };
            while !complains().await {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        let mail = service.stack.store.delivery(&key, 1).await.unwrap().unwrap();
        assert_eq!((mail.state, mail.due_at), (expected, None));
        assert_eq!(service.mails(&id).len(), 1);
    }
}
