//! Tests of the simulated SM-DP+ over HTTP, with the client of the service.

use std::time::Duration;

use domain::{ConfirmationCode, Iccid, MatchingId, SmDpAddress};
use peers::es2plus::{DownloadProgressInfo, FailedBecause, Progress};
use peers::{Es2Plus, Es2PlusError, FinalStatus, ReportedState};
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

async fn start(path: Option<&Path>, callback_url: &str) -> Fixture {
    let address = SmDpAddress::parse("smdp.example.test").unwrap();
    let smdp = Arc::new(Smdp::open(path, address, callback_url, ClockAndRng::real()).unwrap());
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

fn rejection<T: std::fmt::Debug>(result: Result<T, Es2PlusError>) -> String {
    match result {
        Err(Es2PlusError::Rejected { subject, reason, .. }) => format!("{subject}/{reason}"),
        other => panic!("not rejected: {other:?}"),
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
async fn a_profile_is_ordered_downloaded_and_installed() {
    let mut receiver = CallbackReceiver::start(&[]).await;
    let fixture = start(None, &receiver.url).await;
    let sim = iccid(1);
    fixture.order(&sim).await;
    let (id, code) = (matching_id(), confirmation_code());
    assert_eq!(
        rejection(fixture.client.download_order(&sim, "A1-dl").await),
        "8.2.1/3.3"
    );
    let repeated = fixture.client.confirm_order(&sim, &id, Some(&code), "A1-cf").await;
    assert!(repeated.is_ok(), "{repeated:?}");
    let other = ConfirmationCode::parse("other").unwrap();
    for code in [Some(&other), None] {
        let changed = fixture.client.confirm_order(&sim, &id, code, "A1-cf").await;
        assert_eq!(rejection(changed), "8.2.1/3.5");
    }
    assert_eq!(fixture.phone(CODE, "wrong").await.0, 403);
    assert_eq!(
        fixture.phone(CODE, "8E9!#").await,
        (200, json!({"iccid": sim.as_str()}))
    );
    assert_eq!(fixture.phone(CODE, "8E9!#").await.0, 409);
    assert_eq!(receiver.progress().await, (2, Progress::WrongCode));
    assert_eq!(receiver.progress().await, (3, Progress::Downloaded));
    assert_eq!(receiver.progress().await, (4, Progress::Installed));
    assert_eq!(fixture.smdp.profile_state(&sim).unwrap(), ProfileState::Installed);
    assert_eq!(fixture.smdp.orders_of(&sim).unwrap(), 1);
    assert!(!receiver.has_more());
}

/// The result of each function in each state: the new state, or the reason code of the failure.
#[tokio::test]
async fn each_function_in_each_state() {
    use ProfileState::*;
    let fixture = start(None, "http://no-such-host.invalid").await;
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
            fixture
                .smdp
                .db
                .write(|change| change.execute("DELETE FROM profiles", ()))
                .unwrap();
            if state != Available {
                fixture.client.download_order(&sim, "A1-dl").await.unwrap();
                fixture
                    .smdp
                    .db
                    .write(|change| fixture.smdp.set_state(change, &sim, state))
                    .unwrap();
            }
            let result = match function {
                "download" => fixture.client.download_order(&sim, "A1-dl").await,
                "confirm" => fixture
                    .client
                    .confirm_order(&sim, &id, Some(&code), "A1-cf")
                    .await
                    .map(|_| ()),
                "release" => fixture.client.release_profile(&sim, "A1-rl").await,
                "available" => {
                    fixture
                        .client
                        .cancel_order(&sim, Some(&id), FinalStatus::Available, "A1-cx")
                        .await
                }
                _ => {
                    fixture
                        .client
                        .cancel_order(&sim, None, FinalStatus::Unavailable, "A1-cx")
                        .await
                }
            };
            match result {
                Ok(()) => {
                    let after = fixture.smdp.profile_state(&sim).unwrap();
                    assert_eq!(after.as_str(), verdict, "{function} when {state:?}");
                }
                Err(_) => {
                    let codes = rejection(result);
                    assert_eq!(codes, format!("8.2.1/{verdict}"), "{function} when {state:?}");
                    assert_eq!(fixture.smdp.profile_state(&sim).unwrap(), state);
                }
            }
        }
    }
}

#[tokio::test]
async fn a_profile_fails_at_the_fifth_wrong_code_until_it_is_ordered_again() {
    let mut receiver = CallbackReceiver::start(&[]).await;
    let fixture = start(None, &receiver.url).await;
    let sim = iccid(1);
    fixture.order(&sim).await;
    for _ in 0..4 {
        assert_eq!(fixture.phone(CODE, "wrong").await.0, 403);
        assert_eq!(receiver.progress().await, (2, Progress::WrongCode));
    }
    assert_eq!(fixture.phone(CODE, "wrong").await.0, 403);
    assert_eq!(
        receiver.progress().await,
        (2, Progress::Failed(FailedBecause::CodesUsedUp))
    );
    assert_eq!(fixture.smdp.profile_state(&sim).unwrap(), ProfileState::Error);
    assert_eq!(fixture.phone(CODE, "8E9!#").await.0, 409);

    for _ in 0..2 {
        fixture
            .client
            .cancel_order(&sim, Some(&matching_id()), FinalStatus::Available, "A1-cx")
            .await
            .unwrap();
    }
    assert_eq!(fixture.phone(CODE, "8E9!#").await.0, 404);
    fixture.order(&sim).await;
    assert_eq!(fixture.phone(CODE, "8E9!#").await.0, 200);
    assert_eq!(fixture.smdp.orders_of(&sim).unwrap(), 2);
}

#[tokio::test]
async fn an_order_is_renewed_until_a_phone_has_the_profile() {
    let fixture = start(None, "http://no-such-host.invalid").await;
    let sim = iccid(1);
    let client = &fixture.client;
    let renewed = |n: u8| MatchingId::parse(&format!("RENEWED-{n}")).unwrap();
    let code_of = |n: u8| format!("LPA:1$smdp.example.test$RENEWED-{n}$$1");
    let other_code = ConfirmationCode::parse("other").unwrap();
    let cancel = async |id: &MatchingId| {
        client
            .cancel_order(&sim, Some(id), FinalStatus::Available, "A1-cx")
            .await
    };
    let order = async |id: &MatchingId| {
        client.download_order(&sim, "A1-dl").await.unwrap();
        client
            .confirm_order(&sim, id, Some(&other_code), "A1-cf")
            .await
            .unwrap();
    };
    fixture.order(&sim).await;

    // A released profile: the earlier activation code and confirmation code are worth nothing.
    cancel(&matching_id()).await.unwrap();
    order(&renewed(1)).await;
    assert_eq!(fixture.phone(CODE, "8E9!#").await.0, 404);
    assert_eq!(fixture.phone(&code_of(1), "8E9!#").await.0, 403);
    assert_eq!(rejection(cancel(&matching_id()).await), "8.2.6/3.10");
    assert_eq!(fixture.smdp.profile_state(&sim).unwrap(), ProfileState::Released);

    // A profile that failed, in each way.
    for (n, fault) in [
        (1, InstallFault::WrongDevice),
        (2, InstallFault::DownloadsUsedUp),
        (3, InstallFault::NoRoom),
    ] {
        let failed = fixture.smdp.fail_install(&code_of(n), Some("other"), fault);
        assert_eq!(failed.unwrap(), sim);
        assert_eq!(fixture.smdp.profile_state(&sim).unwrap(), ProfileState::Error);
        assert_eq!(fixture.phone(&code_of(n), "other").await.0, 409);
        cancel(&renewed(n)).await.unwrap();
        order(&renewed(n + 1)).await;
        assert_eq!(fixture.phone(&code_of(n), "other").await.0, 404);
    }

    // A profile on a phone.
    assert_eq!(fixture.smdp.download(&code_of(4), Some("other")).unwrap(), sim);
    assert_eq!(rejection(cancel(&renewed(4)).await), "8.2.1/3.3");
    assert_eq!(fixture.phone(&code_of(4), "other").await.0, 200);
    assert_eq!(rejection(cancel(&renewed(4)).await), "8.2.1/3.3");
    assert_eq!(fixture.smdp.orders_of(&sim).unwrap(), 5);
}

#[tokio::test]
async fn each_fault_of_a_phone_is_reported_with_its_codes() {
    let mut receiver = CallbackReceiver::start(&[]).await;
    let fixture = start(None, &receiver.url).await;
    let fail = |code, fault| fixture.smdp.fail_install(CODE, code, fault);
    for (n, fault, point, because) in [
        (1, InstallFault::WrongDevice, 1, FailedBecause::WrongDevice),
        (2, InstallFault::DownloadsUsedUp, 1, FailedBecause::DownloadsUsedUp),
        (3, InstallFault::NoRoom, 4, FailedBecause::NoRoom),
    ] {
        fixture.order(&iccid(n)).await;
        if fault == InstallFault::NoRoom {
            assert!(matches!(fail(Some("wrong"), fault), Err(InstallError::WrongCode)));
            assert_eq!(receiver.progress().await, (2, Progress::WrongCode));
        }
        assert_eq!(fail(Some("8E9!#"), fault).unwrap(), iccid(n));
        if fault == InstallFault::NoRoom {
            assert_eq!(receiver.progress().await, (3, Progress::Downloaded));
        }
        assert_eq!(receiver.progress().await, (point, Progress::Failed(because)));
        assert!(matches!(fail(Some("8E9!#"), fault), Err(InstallError::Used)));
        fixture
            .client
            .cancel_order(&iccid(n), None, FinalStatus::Unavailable, "A1-cx")
            .await
            .unwrap();
        assert!(matches!(fail(Some("8E9!#"), fault), Err(InstallError::Unknown)));
    }
}

#[tokio::test]
async fn a_vendors_points_are_reported() {
    let mut receiver = CallbackReceiver::start(&[]).await;
    let fixture = start(None, &receiver.url).await;
    fixture.order(&iccid(1)).await;
    assert_eq!(fixture.phone(CODE, "8E9!#").await.0, 200);
    for point in [5, 6, 7] {
        fixture.smdp.report_point(&iccid(1), point).unwrap();
    }
    for expected in [
        (3, Progress::Downloaded),
        (4, Progress::Installed),
        (5, Progress::Point(5)),
        (6, Progress::Point(6)),
        (7, Progress::Point(7)),
    ] {
        assert_eq!(receiver.progress().await, expected);
    }
    let unknown = fixture.smdp.report_point(&iccid(2), 5);
    assert!(matches!(unknown, Err(InstallError::Unknown)));
}

#[tokio::test]
async fn a_confirmation_is_dated_by_the_clock_of_the_smdp() {
    let address = SmDpAddress::parse("smdp.example.test").unwrap();
    let at: Timestamp = "2031-02-03T04:05:06.789Z".parse().unwrap();
    let clock = ClockAndRng::new(move || at, || 1);
    let smdp = Arc::new(Smdp::open(None, address, "http://no-such-host.invalid", clock).unwrap());
    let (url, listener) = listen().await;
    smdp.serve(listener, peers::connector());
    let client = Es2Plus::new(peers::connector(), &url, "1.3.6.1.4.1.99999.1");
    client.download_order(&iccid(1), "A1-dl").await.unwrap();
    let confirmed = client.confirm_order(&iccid(1), &matching_id(), None, "A1-cf").await;
    assert_eq!(confirmed.unwrap().date, Some("2031-02-03T04:05:06Z".parse().unwrap()));
}

#[tokio::test]
async fn the_status_of_a_profile_follows_its_state() {
    let fixture = start(None, "http://no-such-host.invalid").await;
    let status = async || {
        let status = fixture.client.profile_status(&iccid(1), "A1-st").await;
        status.unwrap().unwrap()
    };
    let before = Timestamp::now() - Duration::from_millis(1);
    let available = status().await;
    assert_eq!((available.state, available.since), (ReportedState::Available, None));
    fixture.client.download_order(&iccid(1), "A1-dl").await.unwrap();
    assert_eq!(status().await.state, ReportedState::Ordered);
    let code = confirmation_code();
    let confirmed = fixture
        .client
        .confirm_order(&iccid(1), &matching_id(), Some(&code), "A1-cf")
        .await;
    confirmed.unwrap();
    let released = status().await;
    assert_eq!((released.state, released.eid), (ReportedState::Released, None));
    fixture.smdp.download(CODE, Some("8E9!#")).unwrap();
    let downloaded = status().await;
    assert_eq!(downloaded.state, ReportedState::Downloaded);
    assert_eq!(downloaded.eid.as_deref(), Some(PHONE_EID));
    fixture.smdp.install(CODE, Some("8E9!#")).unwrap();
    let installed = status().await;
    assert_eq!(installed.state, ReportedState::Installed);
    let since = [released.since, downloaded.since, installed.since].map(Option::unwrap);
    assert!(before <= since[0] && since.is_sorted() && since[2] <= Timestamp::now());
}

#[tokio::test]
async fn the_database_of_an_earlier_version_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("smdp.db");
    let table = TABLE.replace(",\n        since INTEGER", "");
    assert!(!table.contains("since"));
    let row =
        "INSERT INTO profiles VALUES ('8931086000000002001', 'Released', 1, NULL, 'CONSUMER', 'ID', NULL, NULL, 0)";
    Db::open(Some(&path), &format!("{table}{row}")).unwrap();
    for _ in 0..2 {
        let fixture = start(Some(&path), "http://no-such-host.invalid").await;
        let status = fixture
            .client
            .profile_status(&iccid(1), "A1-st")
            .await
            .unwrap()
            .unwrap();
        assert_eq!((status.state, status.since), (ReportedState::Released, None));
    }
}

#[tokio::test]
async fn callbacks_are_sent_by_either_name_or_lost() {
    let mut receiver = CallbackReceiver::start(&[]).await;
    let fixture = start(None, &receiver.url).await;
    fixture.order(&iccid(1)).await;
    fixture.smdp.send_callbacks(CallbackMode::Lost);
    assert_eq!(fixture.phone(CODE, "wrong").await.0, 403);
    fixture.smdp.send_callbacks(CallbackMode::V3);
    assert_eq!(fixture.phone(CODE, "8E9!#").await.0, 200);
    for point in [3, 4] {
        let (path, body) = receiver.next().await;
        assert_eq!(path, "/gsma/rsp2/es2plus/handleNotification");
        assert_eq!(body["notificationPointId"], point);
    }
    assert!(!receiver.has_more());
}

#[tokio::test]
async fn a_matching_id_belongs_to_one_profile() {
    let fixture = start(None, "http://no-such-host.invalid").await;
    fixture.order(&iccid(1)).await;
    fixture.client.download_order(&iccid(2), "A2-dl").await.unwrap();
    let (id, other) = (matching_id(), MatchingId::parse("OTHER").unwrap());
    let taken = fixture.client.confirm_order(&iccid(2), &id, None, "A2-cf").await;
    assert_eq!(rejection(taken), "8.2.6/3.3");
    let foreign = fixture
        .client
        .cancel_order(&iccid(1), Some(&other), FinalStatus::Available, "A1-cx")
        .await;
    assert_eq!(rejection(foreign), "8.2.6/3.10");
}

#[tokio::test]
async fn a_confirmed_profile_can_be_downloaded_only_after_its_release() {
    let fixture = start(None, "http://no-such-host.invalid").await;
    fixture.client.download_order(&iccid(1), "A1-dl").await.unwrap();
    let order = json!({
        "header": {"functionRequesterIdentifier": "r", "functionCallIdentifier": "c"},
        "iccid": format!("{}F", iccid(1)),
        "releaseFlag": false,
    });
    let url = format!("{}/gsma/rsp2/es2plus/confirmOrder", fixture.url);
    let (status, answer) = call("POST", &url, &order.to_string()).await;
    assert_eq!(status, 200);
    let made = answer["matchingId"].as_str().unwrap();
    let code = format!("LPA:1$SMDP.EXAMPLE.TEST${made}");
    assert_eq!(fixture.phone(&code, "").await.0, 404);
    fixture.client.release_profile(&iccid(1), "A1-rl").await.unwrap();
    assert_eq!(fixture.smdp.download(&code, None).unwrap(), iccid(1));
    assert_eq!(fixture.smdp.profile_state(&iccid(1)).unwrap(), ProfileState::Downloaded);
    assert_eq!(fixture.phone(&code, "").await.0, 200);
}

#[tokio::test]
async fn malformed_requests_get_a_400_and_unknown_codes_a_404() {
    let fixture = start(None, "http://no-such-host.invalid").await;
    fixture.order(&iccid(1)).await;
    for (code, status) in [
        ("LPA:1$", 400),
        ("", 400),
        ("LPA:1$other.example.test$QX7PD-3M8ZK-A91TR$$1", 404),
        ("LPA:1$smdp.example.test$QX7PD$$1", 404),
    ] {
        let (answered, body) = fixture.phone(code, "8E9!#").await;
        assert_eq!(answered, status, "{code}");
        assert!(body["message"].is_string());
    }
    let url = format!("{}/local/phone/install", fixture.url);
    assert_eq!(call("POST", &url, "{}").await.0, 400);
    for function in [
        "downloadOrder",
        "confirmOrder",
        "releaseProfile",
        "cancelOrder",
        "getProfileStatus",
    ] {
        let url = format!("{}/gsma/rsp2/es2plus/{function}", fixture.url);
        assert_eq!(call("POST", &url, "{}").await.0, 400, "{function}");
    }
    let url = format!("{}/gsma/rsp2/es2plus/downloadOrder", fixture.url);
    let by_type = r#"{"header":{"functionRequesterIdentifier":"r","functionCallIdentifier":"c"},"profileType":"T"}"#;
    let (_, body) = call("POST", &url, by_type).await;
    let status = &body["header"]["functionExecutionStatus"];
    assert_eq!(status["statusCodeData"]["subjectCode"], "8.2.5");
}

#[tokio::test]
async fn nothing_is_lost_in_a_kill_and_no_code_is_stored_in_the_clear() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("smdp.db");
    let before = start(Some(&path), "http://127.0.0.1:1").await;
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

    let mut receiver = CallbackReceiver::start(&[500, 503]).await;
    let after = start(Some(&path), &receiver.url).await;
    for expected in [2, 2, 2, 3, 4] {
        assert_eq!(receiver.progress().await.0, expected);
    }
    assert_eq!(after.smdp.profile_state(&iccid(1)).unwrap(), ProfileState::Installed);
}
