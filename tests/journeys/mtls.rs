//! Mutual TLS: the peers accept our orders, and the callbacks accept a peer, only with that party's certificate.

use std::path::Path;

use local::stack::Options;
use peers::Access;
use peers::http::{Call, NoResponse, exchange};
use serde_json::json;
use tests::{TestStack, activation_code, esim, line};

const PROGRESS: &str = "/gsma/rsp2/es2plus/handleDownloadProgressInfo";
const NOTIFICATION: &str = "/gsma/rsp2/es2plus/handleNotification";
const CHANGED: &str = "/tmf-api/serviceOrdering/v4/listener/serviceOrderStateChangeEvent";
const ORDER: &str = "/gsma/rsp2/es2plus/downloadOrder";

async fn start(data_dir: &Path) -> TestStack {
    TestStack::start(Options {
        data_dir: Some(data_dir.to_owned()),
        mtls: true,
        ..TestStack::options()
    })
    .await
}

/// The access of a client that trusts the stack's certificate authority and presents this party's certificate.
fn access(data_dir: &Path, party: Option<&str>) -> Access {
    let read = |name: &str| std::fs::read_to_string(data_dir.join("mtls").join(name)).unwrap();
    let authority = read("authority.pem");
    let Some(party) = party else {
        return Access::default().with_authorities(&authority).unwrap();
    };
    let secret = json!({
        "certificate": read(&format!("{party}.pem")),
        "key": read(&format!("{party}.key")),
        "authorities": authority,
    });
    Access::default().with_certificate(&secret.to_string()).unwrap()
}

async fn post(access: Access, url: String) -> Result<u16, NoResponse> {
    let call = Call {
        method: "POST",
        url: &url,
        headers: &[],
        body: b"{}".to_vec(),
    };
    let reply = exchange(&access.connector(), call).await?;
    Ok(reply.status)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swap_goes_from_order_to_done() {
    let directory = tempfile::tempdir().unwrap();
    let service = start(directory.path()).await;
    let endpoints = &service.stack.endpoints;
    for url in [&endpoints.smdp, &endpoints.network, &endpoints.callbacks] {
        assert!(url.starts_with("https://"), "{url}");
    }
    let id = service.start_swap(&esim(line::ANNA)).await;
    let mail = service.await_mail(&id).await;
    let installed = service.install(&activation_code(&mail), "8E9!#").await;
    assert_eq!(installed.status, 200);
    service.await_status(&id, "DONE").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_is_accepted_only_from_its_own_peer() {
    let directory = tempfile::tempdir().unwrap();
    let service = start(directory.path()).await;
    let endpoints = &service.stack.endpoints;
    let callback = async |party: Option<&str>, path: &str| {
        let url = format!("{}{path}", endpoints.callbacks);
        post(access(directory.path(), party), url).await
    };
    // 400: the request reaches the function, and is no callback.
    for (party, path, expected) in [
        (Some("smdp"), PROGRESS, Ok(400)),
        (Some("smdp"), NOTIFICATION, Ok(400)),
        (Some("network"), CHANGED, Ok(400)),
        (Some("network"), PROGRESS, Ok(403)),
        (Some("network"), NOTIFICATION, Ok(403)),
        (Some("smdp"), CHANGED, Ok(403)),
        (Some("simswap"), PROGRESS, Ok(403)),
        (None, PROGRESS, Err(NoResponse)),
        (None, CHANGED, Err(NoResponse)),
    ] {
        assert_eq!(callback(party, path).await, expected, "{party:?} {path}");
    }
    // Partners cannot reach the callbacks, and the peers cannot reach the partners' routes.
    assert_eq!(service.send("POST", PROGRESS, &[], "{}").await.status, 404);
    assert_eq!(callback(Some("smdp"), "/api/SimSwapSubscription").await, Ok(404));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_peers_accept_orders_only_with_our_certificate() {
    let directory = tempfile::tempdir().unwrap();
    let service = start(directory.path()).await;
    let order = async |party: Option<&str>| {
        let url = format!("{}{ORDER}", service.stack.endpoints.smdp);
        post(access(directory.path(), party), url).await
    };
    assert!(order(Some("simswap")).await.is_ok());
    assert_eq!(order(None).await, Err(NoResponse));
    // A certificate with the same name from another authority.
    let other = tempfile::tempdir().unwrap();
    let _other = start(other.path()).await;
    let secret = json!({
        "certificate": std::fs::read_to_string(other.path().join("mtls/simswap.pem")).unwrap(),
        "key": std::fs::read_to_string(other.path().join("mtls/simswap.key")).unwrap(),
        "authorities": std::fs::read_to_string(directory.path().join("mtls/authority.pem")).unwrap(),
    });
    let stranger = Access::default().with_certificate(&secret.to_string()).unwrap();
    let url = format!("{}{ORDER}", service.stack.endpoints.smdp);
    assert_eq!(post(stranger, url).await, Err(NoResponse));
}
