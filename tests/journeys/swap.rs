//! Swaps from the call to their end, as it should go.

use serde_json::json;
use tests::{FREE_CARD, TestStack, activation_code, card, esim, line};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_esim_swap_from_the_call_to_done() {
    let world = TestStack::new().await;
    let owner = world.owner("C-100");
    let answer = world.submit(&owner, &esim(line::ANNA)).await;
    assert_eq!(
        (answer.status, &answer.json()["status"]),
        (200, &json!("INIT")),
        "{answer:?}"
    );
    let id = answer.json()["id"].as_str().unwrap().to_owned();

    let busy = world.await_status(&id, "BUSY").await;
    assert!(busy["providerOrderNumber"].is_string(), "{busy}");
    let code = activation_code(&world.await_mail(&id).await);
    assert_eq!(world.install(&code, "8E9!").await.status, 403);
    assert_eq!(world.activation(&id).await["status"], "BUSY");
    assert_eq!(world.line(line::ANNA).await.current_sim.as_str(), "8931086000000000013");

    assert_eq!(world.install(&code, "8E9!#").await.status, 200);
    let done = world.await_status(&id, "DONE").await;
    assert!(done["activatedDate"].is_string(), "{done}");
    assert_eq!(done["info"]["profile"], "installed");
    assert_eq!(world.mails(&id).len(), 1);
    let record = world.record(&id).await;
    let now = world.line(line::ANNA).await;
    assert_eq!((now.current_sim.clone(), now.open_swap), (record.new_sim.clone(), None));
    assert_eq!(world.sim(record.new_sim.as_str()).await.state.as_str(), "ACTIVATED");
    assert_eq!(world.sim(record.old_sim.as_str()).await.state.as_str(), "DISABLED");
    let carrier = world.stack.carrier.as_ref().unwrap();
    assert_eq!(carrier.sim_of(&now.phone).unwrap(), Some(record.new_sim));
    assert_eq!(world.install(&code, "8E9!#").await.status, 409);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_physical_swap_from_the_call_to_done() {
    let world = TestStack::new().await;
    let answer = world
        .submit(&world.reseller("R-10"), &card(line::CARLA, FREE_CARD))
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    let done = world.await_status(&id, "DONE").await;
    assert_eq!(done["info"], json!({"newSimCardNumber": FREE_CARD}));
    assert_eq!(world.line(line::CARLA).await.current_sim.as_str(), FREE_CARD);
    assert!(world.mails(&id).is_empty());
}
