//! Swaps from their submission to DONE, without faults.

use serde_json::json;
use tests::{FREE_CARD, TestStack, activation_code, card, esim, line};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_esim_swap_from_the_call_to_done() {
    let service = TestStack::new().await;
    let owner = service.owner("C-100");
    let response = service.submit(&owner, &esim(line::ANNA)).await;
    assert_eq!(
        (response.status, &response.json()["status"]),
        (200, &json!("INIT")),
        "{response:?}"
    );
    let id = response.json()["id"].as_str().unwrap().to_owned();

    let busy = service.await_status(&id, "BUSY").await;
    assert!(busy["providerOrderNumber"].is_string(), "{busy}");
    let code = activation_code(&service.await_mail(&id).await);
    assert_eq!(service.install(&code, "8E9!").await.status, 403);
    assert_eq!(service.activation(&id).await["status"], "BUSY");
    assert_eq!(
        service.line(line::ANNA).await.current_sim.as_str(),
        "8931086000000000013"
    );

    assert_eq!(service.install(&code, "8E9!#").await.status, 200);
    let done = service.await_status(&id, "DONE").await;
    assert!(done["activatedDate"].is_string(), "{done}");
    assert_eq!(done["info"]["profile"], "installed");
    assert_eq!(service.mails(&id).len(), 1);
    let record = service.record(&id).await;
    let now = service.line(line::ANNA).await;
    assert_eq!((now.current_sim.clone(), now.open_swap), (record.new_sim.clone(), None));
    assert_eq!(service.sim(record.new_sim.as_str()).await.state.as_str(), "ACTIVATED");
    assert_eq!(service.sim(record.old_sim.as_str()).await.state.as_str(), "DISABLED");
    let network = service.stack.network.as_ref().unwrap();
    assert_eq!(network.sim_of(&now.phone).unwrap(), Some(record.new_sim));
    assert_eq!(service.install(&code, "8E9!#").await.status, 409);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_physical_swap_from_the_call_to_done() {
    let service = TestStack::new().await;
    let response = service
        .submit(&service.reseller("R-10"), &card(line::CARLA, FREE_CARD))
        .await;
    assert_eq!(response.status, 200, "{response:?}");
    let id = response.json()["id"].as_str().unwrap().to_owned();
    let done = service.await_status(&id, "DONE").await;
    assert_eq!(done["info"], json!({"newSimCardNumber": FREE_CARD}));
    assert_eq!(service.line(line::CARLA).await.current_sim.as_str(), FREE_CARD);
    assert!(service.mails(&id).is_empty());
}
