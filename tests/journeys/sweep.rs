//! What the sweeper alone brings about, a record that nobody can read, SES's reports, and the erasing of codes.

use std::time::Duration;

use domain::{ActivationId, DeliveryState, Phase};
use local::dynoxide::actions::put_item::PutItemRequest;
use local::stack::Options;
use serde_json::json;
use tests::{FREE_CARD, World, card, esim, line};

async fn without_stream(settings: &[(&str, &str)]) -> World {
    let settings = settings
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    World::start(Options {
        stream: false,
        settings: settings.collect(),
        ..World::options()
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sweeper_alone_brings_swaps_to_their_end() {
    let world = without_stream(&[("LEASE", "1s")]).await;
    let physical = world.begin(&card(line::BRAM, FREE_CARD)).await;
    let id = world.begin(&esim(line::ANNA)).await;
    let code = world.await_waiting(&id).await;
    assert_eq!(world.install(&code, "8E9!#").await.status, 200);
    for id in [&id, &physical] {
        world.await_status(id, "DONE").await;
    }
    assert_eq!(world.mails(&id).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sweeper_alone_ends_what_is_not_installed_in_time() {
    let world = without_stream(&[
        ("LEASE", "1s"),
        ("INSTALL_WITHIN", "3s"),
        ("ASK_AFTER", "500ms"),
    ])
    .await;
    let id = world.begin(&esim(line::ANNA)).await;
    let seen = world.await_status(&id, "ERROR").await;
    assert_eq!(seen["info"]["failure"]["code"], "expired");
    let record = world.record(&id).await;
    let sim = world.sim(record.new_sim.as_str()).await;
    assert_eq!((sim.state.as_str(), sim.holder), ("FREE", None));
    assert!(world.line(line::ANNA).await.open_swap.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_confirmation_code_is_erased_in_time() {
    let world = World::with(&[("CODE_KEPT", "1s")]).await;
    let id = world.begin(&esim(line::ANNA)).await;
    assert_eq!(
        world
            .manage(&world.admin(), "CancelActivation", &id, "")
            .await
            .status,
        200
    );
    let key = ActivationId::parse(&id).unwrap();
    loop {
        let swap = world.stack.store.swap(&key).await.unwrap().unwrap();
        if swap.secrets == store::SwapSecrets::default() {
            assert_eq!(swap.activation.phase, Phase::Error);
            assert_eq!(swap.activation.due_at, None);
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(
        world.activation(&id).await["info"]["confirmationCode"],
        "##########"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_record_that_cannot_be_read_holds_back_no_other() {
    let world = World::new().await;
    let text = |text: &str| serde_json::from_value(json!({"S": text})).unwrap();
    // A swap's row with nothing in it, among real swaps.
    let poison = PutItemRequest {
        table_name: world.stack.endpoints.table.clone(),
        item: [
            ("pk".to_owned(), text("A#POISON")),
            ("sk".to_owned(), text("activation")),
        ]
        .into(),
        ..PutItemRequest::default()
    };
    world.stack.database.put_item(poison).unwrap();
    let mut ids = Vec::new();
    for line in [line::ANNA, line::CARLA, line::DORTE] {
        ids.push(world.begin(&esim(line)).await);
    }
    for id in &ids {
        world.await_waiting(id).await;
    }
    for _ in 0..1000 {
        if !world.stack.dead_letters.list().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let dead = world.stack.dead_letters.list();
    assert_eq!(dead.len(), 1, "{dead:?}");
    assert_eq!(dead[0]["dynamodb"]["Keys"]["pk"]["S"], "A#POISON");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ses_tells_what_became_of_a_mail() {
    let world = World::new().await;
    for (line, to, expected) in [
        (line::ANNA, "anna@example.com", DeliveryState::Delivered),
        (
            line::BRAM,
            "bounce@simulator.amazonses.com",
            DeliveryState::Bounced,
        ),
        (
            line::CARLA,
            "complaint@simulator.amazonses.com",
            DeliveryState::Delivered,
        ),
    ] {
        let mut body = esim(line);
        body["email"] = json!(to);
        let id = world.begin(&body).await;
        let shown = expected.as_str();
        world
            .await_activation(&id, |seen| seen["info"]["delivery"] == shown)
            .await;
        let key = ActivationId::parse(&id).unwrap();
        if to.starts_with("complaint") {
            let complains = async || {
                let mail = world.stack.store.delivery(&key, 1).await.unwrap().unwrap();
                mail.timeline
                    .iter()
                    .any(|event| event.what == "SES: complaint")
            };
            while !complains().await {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        let mail = world.stack.store.delivery(&key, 1).await.unwrap().unwrap();
        assert_eq!((mail.state, mail.due_at), (expected, None));
        assert_eq!(world.mails(&id).len(), 1);
    }
}
