//! The simulated SM-DP+ over HTTP, with the operator's own client.

use domain::{ConfirmationCode, Iccid, MatchingId, SmDpAddress};
use peers::es2plus::{DownloadProgressInfo, Progress};
use peers::{Es2Plus, Es2PlusError, FinalStatus};
use serde_json::{Value, json};

use super::*;
use crate::callback_receiver::{CallbackReceiver, call, listen};

const CODE: &str = "LPA:1$smdp.example.test$QX7PD-3M8ZK-A91TR$$1";

struct Fixture {
    smdp: Arc<Smdp>,
    url: String,
    client: Es2Plus,
    task: JoinHandle<()>,
}

async fn world(path: Option<&Path>, operator_url: &str) -> Fixture {
    let address = SmDpAddress::parse("smdp.example.test").unwrap();
    let smdp = Arc::new(Smdp::open(path, address, operator_url, ClockAndRng::real()).unwrap());
    let (url, listener) = listen().await;
    Fixture {
        client: Es2Plus::new(peers::connector(), &url, "1.3.6.1.4.1.99999.1"),
        task: smdp.clone().serve(listener, peers::connector()),
        smdp,
        url,
    }
}

fn iccid(last: u8) -> Iccid {
    Iccid::parse(&format!("893108600000000200{last}")).unwrap()
}

fn matching_id() -> MatchingId {
    MatchingId::parse("QX7PD-3M8ZK-A91TR").unwrap()
}

fn confirmation_code() -> ConfirmationCode {
    ConfirmationCode::parse("8E9!#").unwrap()
}

fn refused<T: std::fmt::Debug>(result: Result<T, Es2PlusError>) -> String {
    match result {
        Err(Es2PlusError::Rejected { subject, reason }) => format!("{subject}/{reason}"),
        other => panic!("not refused: {other:?}"),
    }
}

impl Fixture {
    async fn order(&self, iccid: &Iccid) {
        self.client.download_order(iccid, "A1-dl").await.unwrap();
        let (id, code) = (matching_id(), confirmation_code());
        let confirmed = self
            .client
            .confirm_order(iccid, &id, Some(&code), "A1-cf")
            .await
            .unwrap();
        assert_eq!(confirmed.smdp.unwrap().as_str(), "smdp.example.test");
    }

    async fn phone(&self, activation_code: &str, confirmation_code: &str) -> (u16, Value) {
        let body = json!({"activationCode": activation_code, "confirmationCode": confirmation_code});
        let url = format!("{}/local/phone/install", self.url);
        call("POST", &url, &body.to_string()).await
    }
}

impl CallbackReceiver {
    async fn progress(&mut self) -> (u32, Progress) {
        let (path, body) = self.next().await;
        assert_eq!(path, "/gsma/rsp2/es2plus/handleDownloadProgressInfo");
        let info: DownloadProgressInfo = serde_json::from_value(body).unwrap();
        (info.notification_point_id, info.progress())
    }
}

#[tokio::test]
async fn a_profile_from_order_to_phone() {
    let mut operator = CallbackReceiver::start(&[]).await;
    let w = world(None, &operator.url).await;
    let sim = iccid(1);
    w.order(&sim).await;
    let (id, code) = (matching_id(), confirmation_code());
    assert_eq!(refused(w.client.download_order(&sim, "A1-dl").await), "8.2.1/3.3");
    let repeated = w.client.confirm_order(&sim, &id, Some(&code), "A1-cf").await;
    assert!(repeated.is_ok(), "{repeated:?}");
    let other = ConfirmationCode::parse("other").unwrap();
    for code in [Some(&other), None] {
        let changed = w.client.confirm_order(&sim, &id, code, "A1-cf").await;
        assert_eq!(refused(changed), "8.2.1/3.5");
    }
    assert_eq!(w.phone(CODE, "wrong").await.0, 403);
    assert_eq!(w.phone(CODE, "8E9!#").await, (200, json!({"iccid": sim.as_str()})));
    assert_eq!(w.phone(CODE, "8E9!#").await.0, 409);
    assert_eq!(operator.progress().await, (2, Progress::WrongCode));
    assert_eq!(operator.progress().await, (3, Progress::Downloaded));
    assert_eq!(operator.progress().await, (4, Progress::Installed));
    assert_eq!(w.smdp.profile_state(&sim).unwrap(), ProfileState::Installed);
    assert_eq!(w.smdp.orders_of(&sim).unwrap(), 1);
    assert!(!operator.has_more());
}

/// What each function says in each state: `ok`, or the codes. The rows leave the profile as the function makes it.
#[tokio::test]
async fn the_state_machine() {
    use ProfileState::*;
    let w = world(None, "http://no-such-host.invalid").await;
    let sim = iccid(1);
    let (id, code) = (matching_id(), confirmation_code());
    let functions = ["download", "confirm", "release", "available", "unavailable"];
    for (state, verdicts) in [
        (Available, ["Allocated", "3.9", "3.9", "3.9", "3.9"]),
        (Allocated, ["3.3", "Released", "3.5", "Available", "Unavailable"]),
        (Linked, ["3.3", "Released", "3.5", "Available", "Unavailable"]),
        (Confirmed, ["3.3", "3.5", "Released", "Available", "Unavailable"]),
        (Released, ["3.3", "3.5", "3.5", "Available", "Unavailable"]),
        (Downloaded, ["3.3", "3.5", "3.5", "3.3", "3.3"]),
        (Installed, ["3.3", "3.5", "3.5", "3.3", "3.3"]),
        (Error, ["3.3", "3.5", "3.5", "Available", "Unavailable"]),
        (Unavailable, ["3.3", "3.5", "3.5", "3.5", "Unavailable"]),
    ] {
        for (function, verdict) in functions.into_iter().zip(verdicts) {
            w.smdp
                .book
                .write(|change| change.execute("DELETE FROM profiles", ()))
                .unwrap();
            if state != Available {
                w.client.download_order(&sim, "A1-dl").await.unwrap();
                w.smdp.book.write(|change| set_state(change, &sim, state)).unwrap();
            }
            let result = match function {
                "download" => w.client.download_order(&sim, "A1-dl").await,
                "confirm" => w
                    .client
                    .confirm_order(&sim, &id, Some(&code), "A1-cf")
                    .await
                    .map(|_| ()),
                "release" => w.client.release_profile(&sim, "A1-rl").await,
                "available" => {
                    w.client
                        .cancel_order(&sim, Some(&id), FinalStatus::Available, "A1-cx")
                        .await
                }
                _ => {
                    w.client
                        .cancel_order(&sim, None, FinalStatus::Unavailable, "A1-cx")
                        .await
                }
            };
            match result {
                Ok(()) => {
                    let after = w.smdp.profile_state(&sim).unwrap();
                    assert_eq!(after.as_str(), verdict, "{function} when {state:?}");
                }
                Err(_) => {
                    let codes = refused(result);
                    assert_eq!(codes, format!("8.2.1/{verdict}"), "{function} when {state:?}");
                    assert_eq!(w.smdp.profile_state(&sim).unwrap(), state);
                }
            }
        }
    }
}

#[tokio::test]
async fn the_fifth_wrong_code_ends_a_profile_until_it_is_ordered_again() {
    let mut operator = CallbackReceiver::start(&[]).await;
    let w = world(None, &operator.url).await;
    let sim = iccid(1);
    w.order(&sim).await;
    for _ in 0..4 {
        assert_eq!(w.phone(CODE, "wrong").await.0, 403);
        assert_eq!(operator.progress().await, (2, Progress::WrongCode));
    }
    assert_eq!(w.phone(CODE, "wrong").await.0, 403);
    assert_eq!(operator.progress().await, (2, Progress::ProfileFailed));
    assert_eq!(w.smdp.profile_state(&sim).unwrap(), ProfileState::Error);
    assert_eq!(w.phone(CODE, "8E9!#").await.0, 409);

    for _ in 0..2 {
        w.client
            .cancel_order(&sim, Some(&matching_id()), FinalStatus::Available, "A1-cx")
            .await
            .unwrap();
    }
    assert_eq!(w.phone(CODE, "8E9!#").await.0, 404);
    w.order(&sim).await;
    assert_eq!(w.phone(CODE, "8E9!#").await.0, 200);
    assert_eq!(w.smdp.orders_of(&sim).unwrap(), 2);
}

#[tokio::test]
async fn matching_ids_belong_to_one_profile() {
    let w = world(None, "http://no-such-host.invalid").await;
    w.order(&iccid(1)).await;
    w.client.download_order(&iccid(2), "A2-dl").await.unwrap();
    let (id, other) = (matching_id(), MatchingId::parse("OTHER").unwrap());
    let taken = w.client.confirm_order(&iccid(2), &id, None, "A2-cf").await;
    assert_eq!(refused(taken), "8.2.6/3.3");
    let foreign = w
        .client
        .cancel_order(&iccid(1), Some(&other), FinalStatus::Available, "A1-cx")
        .await;
    assert_eq!(refused(foreign), "8.2.6/3.10");
}

#[tokio::test]
async fn a_confirmed_profile_is_fetched_only_after_its_release() {
    let w = world(None, "http://no-such-host.invalid").await;
    w.client.download_order(&iccid(1), "A1-dl").await.unwrap();
    let order = json!({
        "header": {"functionRequesterIdentifier": "r", "functionCallIdentifier": "c"},
        "iccid": format!("{}F", iccid(1)),
        "releaseFlag": false,
    });
    let url = format!("{}/gsma/rsp2/es2plus/confirmOrder", w.url);
    let (status, answer) = call("POST", &url, &order.to_string()).await;
    assert_eq!(status, 200);
    let made = answer["matchingId"].as_str().unwrap();
    let code = format!("LPA:1$SMDP.EXAMPLE.TEST${made}");
    assert_eq!(w.phone(&code, "").await.0, 404);
    w.client.release_profile(&iccid(1), "A1-rl").await.unwrap();
    assert_eq!(w.smdp.download(&code, None).unwrap(), iccid(1));
    assert_eq!(w.smdp.profile_state(&iccid(1)).unwrap(), ProfileState::Downloaded);
    assert_eq!(w.phone(&code, "").await.0, 200);
}

#[tokio::test]
async fn what_is_no_request_is_a_400_and_what_is_nobodys_a_404() {
    let w = world(None, "http://no-such-host.invalid").await;
    w.order(&iccid(1)).await;
    for (code, status) in [
        ("LPA:1$", 400),
        ("", 400),
        ("LPA:1$other.example.test$QX7PD-3M8ZK-A91TR$$1", 404),
        ("LPA:1$smdp.example.test$QX7PD$$1", 404),
    ] {
        let (answered, body) = w.phone(code, "8E9!#").await;
        assert_eq!(answered, status, "{code}");
        assert!(body["message"].is_string());
    }
    let url = format!("{}/local/phone/install", w.url);
    assert_eq!(call("POST", &url, "{}").await.0, 400);
    for function in ["downloadOrder", "confirmOrder", "releaseProfile", "cancelOrder"] {
        let url = format!("{}/gsma/rsp2/es2plus/{function}", w.url);
        assert_eq!(call("POST", &url, "{}").await.0, 400, "{function}");
    }
    let url = format!("{}/gsma/rsp2/es2plus/downloadOrder", w.url);
    let by_type = r#"{"header":{"functionRequesterIdentifier":"r","functionCallIdentifier":"c"},"profileType":"T"}"#;
    let (_, body) = call("POST", &url, by_type).await;
    let status = &body["header"]["functionExecutionStatus"];
    assert_eq!(status["statusCodeData"]["subjectCode"], "8.2.5");
}

#[tokio::test]
async fn nothing_is_lost_over_a_kill_and_nothing_is_kept_in_clear() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("smdp.db");
    let before = world(Some(&path), "http://127.0.0.1:1").await;
    before.order(&iccid(1)).await;
    assert_eq!(before.phone(CODE, "wrong").await.0, 403);
    assert_eq!(before.phone(CODE, "8E9!#").await.0, 200);
    before.task.abort();
    assert!(before.task.await.unwrap_err().is_cancelled());
    assert!(before.client.download_order(&iccid(2), "A2").await.is_err());
    for file in std::fs::read_dir(directory.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(5).any(|part| part == b"8E9!#"));
    }

    let mut operator = CallbackReceiver::start(&[500, 503]).await;
    let after = world(Some(&path), &operator.url).await;
    for expected in [2, 2, 2, 3, 4] {
        assert_eq!(operator.progress().await.0, expected);
    }
    assert_eq!(after.smdp.profile_state(&iccid(1)).unwrap(), ProfileState::Installed);
}
