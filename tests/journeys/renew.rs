//! The phone's side of a swap: a code that was used up or lost is renewed, an installation that the SM-DP+ did not report
//! is reported by a caller or found out, and what a phone does with the eSIM is shown.

use domain::{Iccid, SimState};
use jiff::{SignedDuration, Timestamp};
use mail_parser::MessageParser;
use serde_json::{Value, json};
use simulators::{CallbackMode, InstallFault, MAX_WRONG_CODES, Smdp};
use tests::foreign::{Act, ForeignSmdp};
use tests::{TestResponse, TestStack, activation_code, card, esim, line};

const CODE: &str = "8E9!#";
const RENEW: &str = "RenewEsim";
const REPORT: &str = "ReportInstalled";

fn smdp(service: &TestStack) -> &Smdp {
    service.stack.smdp.as_ref().unwrap()
}

/// An eSIM swap that waits for its phone, with the activation code of its mail.
async fn waiting(service: &TestStack, line: &str) -> (String, String) {
    let id = service.start_swap(&esim(line)).await;
    let code = service.await_waiting(&id).await;
    (id, code)
}

async fn renew(service: &TestStack, id: &str, body: &Value) -> TestResponse {
    service
        .manage(&service.owner("C-100"), RENEW, id, &body.to_string())
        .await
}

async fn report(service: &TestStack, token: &str, id: &str, witness: &str) -> TestResponse {
    let body = json!({"witness": witness, "note": "called twice"});
    service.manage(token, REPORT, id, &body.to_string()).await
}

fn assert_rejected(response: &TestResponse, status: u16, code: &str) {
    let (found, found_code, _) = response.error();
    assert_eq!((found, found_code.as_str()), (status, code), "{response:?}");
}

/// The mails of a swap, oldest first.
fn mails(service: &TestStack, id: &str) -> Vec<Vec<u8>> {
    service.mails(id).into_iter().rev().collect()
}

/// The activation code of the mail with this number.
async fn code_of_mail(service: &TestStack, id: &str, number: usize) -> String {
    activation_code(&service.await_mail_number(id, number).await)
}

/// The words of the timeline, with their details.
async fn timeline(service: &TestStack, id: &str) -> Vec<String> {
    let page = service
        .query(&service.admin(), &format!("id={id}&include=timeline"))
        .await;
    let page = page.json();
    let entries = page["results"][0]["timeline"].as_array().unwrap().iter();
    let words = entries.map(|entry| {
        let detail = entry["detail"].as_str().unwrap_or_default();
        format!("{} {detail}", entry["what"].as_str().unwrap())
            .trim()
            .to_owned()
    });
    words.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_that_was_used_up_is_renewed_and_the_old_one_is_dead() {
    let service = TestStack::new().await;
    let (id, old) = waiting(&service, line::ANNA).await;
    for _ in 0..MAX_WRONG_CODES {
        assert_eq!(service.install(&old, "wrong").await.status, 403);
    }
    let failed = service
        .await_activation(&id, |swap| swap["info"]["esim"]["state"] == "failed")
        .await;
    assert_eq!(failed["status"], "BUSY");
    assert_eq!(failed["info"].get("failure"), None);
    let wrong = failed["info"]["esim"]["wrongCodes"].as_u64().unwrap();
    assert!(wrong >= 1, "{failed}");

    let body = json!({"email": "anna@elsewhere.example", "confirmationCode": "N3W!"});
    let renewed = renew(&service, &id, &body).await;
    assert_eq!(renewed.status, 200, "{renewed:?}");
    let info = &renewed.json()["info"];
    assert_eq!(
        (&info["esim"]["request"], &info["esim"]["state"]),
        (&json!("done"), &json!("released"))
    );
    assert_eq!(
        (&info["email"], &info["confirmationCode"]),
        (&json!("anna@elsewhere.example"), &json!("N3W!"))
    );
    let new = code_of_mail(&service, &id, 2).await;
    assert_ne!(new, old);
    let mail = mails(&service, &id)[1].clone();
    let parsed = MessageParser::default().parse(&mail).unwrap();
    let to = parsed.to().unwrap().first().unwrap();
    assert_eq!(to.address(), Some("anna@elsewhere.example"));
    assert!(!parsed.body_text(0).unwrap().contains("N3W!"), "no mail has the code");

    assert_eq!(
        service.install(&old, CODE).await.status,
        404,
        "no profile has the old code"
    );
    assert_eq!(
        service.install(&new, CODE).await.status,
        403,
        "the old confirmation code is wrong"
    );
    assert_eq!(service.install(&new, "N3W!").await.status, 200);
    service.await_status(&id, "DONE").await;
    let words = timeline(&service, &id).await;
    let place = |word: &str| {
        words
            .iter()
            .position(|entry| entry == word)
            .unwrap_or_else(|| panic!("{word}: {words:?}"))
    };
    assert!(place("profileFailed 8.2.7/6.4") < place("renewRequested"), "{words:?}");
    assert!(place("renewRequested") < place("oldCodeCancelled") && place("oldCodeCancelled") < place("renewed"));
    // SES's event may be written before its response.
    let mailed = |entry: &String| ["mailSent mail 2", "mailAccepted mail 2"].contains(&entry.as_str());
    assert!(Some(place("renewed")) < words.iter().position(mailed), "{words:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_failure_of_a_phone_has_its_word_and_ends_the_swap_when_it_expires() {
    for (fault, word) in [
        (InstallFault::NoRoom, "noRoom"),
        (InstallFault::WrongDevice, "wrongDevice"),
        (InstallFault::DownloadsUsedUp, "downloadsUsedUp"),
    ] {
        let service = TestStack::with(&[("INSTALL_WITHIN", "4s")]).await;
        let (id, code) = waiting(&service, line::ANNA).await;
        smdp(&service).fail_install(&code, Some(CODE), fault).unwrap();
        let failed = service
            .await_activation(&id, |swap| swap["info"]["esim"]["state"] == "failed")
            .await;
        assert_eq!(failed["status"], "BUSY", "{word}");
        let ended = service.await_status(&id, "ERROR").await;
        assert_eq!(ended["info"]["failure"]["code"], word);
        assert_eq!(ended["info"]["esim"].get("expiresAt"), None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_without_a_body_keeps_code_and_address() {
    let service = TestStack::new().await;
    let (id, old) = waiting(&service, line::ANNA).await;
    let renewed = service.manage(&service.owner("C-100"), RENEW, &id, "").await;
    assert_eq!(renewed.status, 200, "{renewed:?}");
    // Another caller began the swap and gave the code.
    assert_eq!(renewed.json()["info"]["confirmationCode"], "##########");
    assert_eq!(service.activation(&id).await["info"]["confirmationCode"], CODE);
    let new = code_of_mail(&service, &id, 2).await;
    assert_ne!(new, old);
    assert_eq!(service.install(&old, CODE).await.status, 404);
    // A resend sends the new code.
    let resent = service.manage(&service.owner("C-100"), "ResendEsim", &id, "").await;
    assert_eq!(resent.status, 200, "{resent:?}");
    assert_eq!(code_of_mail(&service, &id, 3).await, new);
    assert_eq!(service.install(&new, CODE).await.status, 200);
    service.await_status(&id, "DONE").await;
    // The same request again would count as a repeat of the first.
    let other = json!({"email": "other@example.com"});
    assert_rejected(&renew(&service, &id, &other).await, 409, "TooLate");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_of_a_swap_without_a_code_goes_to_the_contact_on_file() {
    let service = TestStack::new().await;
    let token = service.owner("C-100");
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    let path = format!("/mvno/{}/changesim/eSim", line::ANNA);
    assert_eq!(service.send("POST", &path, &headers, "").await.status, 200);
    let page = service
        .query(&token, &format!("subscriptionId={}", line::ANNA))
        .await
        .json();
    let id = page["results"][0]["id"].as_str().unwrap().to_owned();
    let old = service.await_waiting(&id).await;
    let thief = json!({"email": "thief@mail.example"});
    assert_rejected(&renew(&service, &id, &thief).await, 403, "Forbidden");
    let own_code = json!({"confirmationCode": "mine"});
    assert_rejected(&renew(&service, &id, &own_code).await, 400, "InvalidValue");
    assert_eq!(mails(&service, &id).len(), 1);
    assert_eq!(renew(&service, &id, &json!({})).await.status, 200);
    let new = code_of_mail(&service, &id, 2).await;
    assert_ne!(new, old);
    let mail = mails(&service, &id)[1].clone();
    let to = MessageParser::default()
        .parse(&mail)
        .unwrap()
        .to()
        .unwrap()
        .first()
        .unwrap()
        .address()
        .map(str::to_owned);
    assert_eq!(to.as_deref(), Some("anna@example.com"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_profile_on_a_phone_is_not_renewed() {
    let service = TestStack::new().await;
    let (id, code) = waiting(&service, line::ANNA).await;
    smdp(&service).send_callbacks(CallbackMode::Lost);
    smdp(&service).download(&code, Some(CODE)).unwrap();
    let refused = renew(&service, &id, &json!({})).await;
    let esim = refused.json()["info"]["esim"].clone();
    assert_eq!(
        (&esim["request"], &esim["state"]),
        (&json!("refused"), &json!("downloaded")),
        "{refused:?}"
    );
    assert_eq!(mails(&service, &id).len(), 1);
    smdp(&service).send_callbacks(CallbackMode::V2);
    assert_eq!(service.install(&code, CODE).await.status, 200);
    service.await_status(&id, "DONE").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_rejected_by_name() {
    let service = TestStack::new().await;
    let token = service.owner("C-100");
    let by_card = service.start_swap(&card(line::BRAM, tests::FREE_CARD)).await;
    for operation in [RENEW, REPORT] {
        let response = service
            .manage(&token, operation, &by_card, r#"{"witness":"agent"}"#)
            .await;
        assert_rejected(&response, 400, "InvalidValue");
    }
    let (id, _) = waiting(&service, line::ANNA).await;
    for (operation, body, field) in [
        (RENEW, json!({"confirmationCode": "has a space"}), "confirmationCode"),
        (RENEW, json!({"email": "nobody"}), "email"),
        (REPORT, json!({}), "witness"),
        (REPORT, json!({"witness": "neighbour"}), "witness"),
        (REPORT, json!({"witness": "agent", "note": "a\u{1b}[2Jb"}), "note"),
        (REPORT, json!({"witness": "agent", "note": "n".repeat(165)}), "note"),
    ] {
        let response = service.manage(&token, operation, &id, &body.to_string()).await;
        let (status, _, fields) = response.error();
        assert_eq!((status, fields[0].1.as_str()), (400, field), "{response:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_is_renewed_three_times_a_day() {
    let service = TestStack::new().await;
    let (id, first) = waiting(&service, line::ANNA).await;
    let mut codes = vec![first];
    for number in 2..=4 {
        // Other addresses, because the same request within a minute is a repeat.
        let body = json!({"email": format!("anna{number}@example.com")});
        let renewed = renew(&service, &id, &body).await;
        assert_eq!(renewed.json()["info"]["esim"]["request"], "done", "{renewed:?}");
        codes.push(code_of_mail(&service, &id, number).await);
    }
    for (number, code) in codes.iter().enumerate() {
        assert_eq!(
            codes.iter().position(|other| other == code),
            Some(number),
            "each code is a new one"
        );
    }
    let often = renew(&service, &id, &json!({})).await;
    assert_rejected(&often, 429, "TooManyRequests");
    let wait: u64 = often.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((86_000..=86_401).contains(&wait), "{wait}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_request_about_a_swap_is_recognised_as_a_repeat() {
    let service = TestStack::new().await;
    let admin = service.admin();
    for (operation, body) in [
        ("ResendEsim", ""),
        (RENEW, ""),
        (REPORT, r#"{"witness":"agent"}"#),
        ("CancelActivation", ""),
    ] {
        for headers in [&[][..], &[("idempotency-key", operation)]] {
            let (id, _) = waiting(&service, line::ANNA).await;
            for is_replay in [false, true] {
                let response = service.manage_with(&admin, headers, operation, &id, body).await;
                let replayed = response.headers.contains_key("idempotency-replayed");
                assert_eq!(
                    (response.status, replayed),
                    (200, is_replay),
                    "{operation} {headers:?}: {response:?}"
                );
            }
            if operation == REPORT {
                service.await_status(&id, "DONE").await;
            } else {
                service.manage(&admin, "CancelActivation", &id, "").await;
                service.await_status(&id, "ERROR").await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_request_has_no_second_effect() {
    let service = TestStack::new().await;
    let token = service.owner("C-100");
    let (id, _) = waiting(&service, line::ANNA).await;
    let send = async |operation: &str, key: &str, body: &str| {
        let headers = [("idempotency-key", key)];
        let headers = if key.is_empty() { &[][..] } else { &headers };
        service.manage_with(&token, headers, operation, &id, body).await
    };
    let is_replay = |response: &TestResponse| response.headers.contains_key("idempotency-replayed");

    let first = send(RENEW, "k1", r#"{"confirmationCode":"abc"}"#).await;
    assert_eq!((first.status, is_replay(&first)), (200, false), "{first:?}");
    code_of_mail(&service, &id, 2).await;
    let again = send(RENEW, "k1", r#"{"confirmationCode":"abc"}"#).await;
    assert_eq!((again.status, is_replay(&again)), (200, true), "{again:?}");
    for (operation, body) in [
        (RENEW, r#"{"confirmationCode":"abd"}"#),
        ("ResendEsim", ""),
        ("CancelActivation", ""),
    ] {
        assert_rejected(&send(operation, "k1", body).await, 422, "IdempotencyMismatch");
    }
    // Without a key, the same request counts as a repeat for a minute.
    for replay in [false, true] {
        let resent = send("ResendEsim", "", "").await;
        assert_eq!((resent.status, is_replay(&resent)), (200, replay), "{resent:?}");
    }
    assert_rejected(
        &send("ResendEsim", "", r#"{"email":"b@example.com"}"#).await,
        429,
        "TooManyRequests",
    );
    code_of_mail(&service, &id, 3).await;
    for replay in [false, true] {
        let cancelled = send("CancelActivation", "k2", "").await;
        assert_eq!(
            (cancelled.status, is_replay(&cancelled)),
            (200, replay),
            "{cancelled:?}"
        );
        assert_eq!(cancelled.json()["info"]["failure"]["code"], "cancelled");
    }
    let record = service.record(&id).await;
    assert_eq!((record.renewals.len(), record.resends, record.mails), (1, 1, 3));
    assert_eq!(mails(&service, &id).len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_is_recognised_as_a_repeat_after_a_later_renewal() {
    let service = TestStack::new().await;
    let token = service.owner("C-100");
    let (id, _) = waiting(&service, line::ANNA).await;
    let send = async |key: &str, code: &str| {
        let body = json!({"confirmationCode": code}).to_string();
        let headers = [("idempotency-key", key)];
        service.manage_with(&token, &headers, RENEW, &id, &body).await
    };
    assert_eq!(send("k1", "abc").await.status, 200);
    code_of_mail(&service, &id, 2).await;
    assert_eq!(send("k2", "def").await.status, 200);
    code_of_mail(&service, &id, 3).await;
    for (key, code) in [("k1", "abc"), ("k2", "def")] {
        let repeated = send(key, code).await;
        assert_eq!(repeated.status, 200, "{repeated:?}");
        assert!(repeated.headers.contains_key("idempotency-replayed"), "{repeated:?}");
    }
    for (key, code) in [("k1", "def"), ("k2", "abc")] {
        assert_rejected(&send(key, code).await, 422, "IdempotencyMismatch");
    }
    // Without a key, a renewal of another caller does not end the minute in which a request counts as a repeat.
    let (id, _) = waiting(&service, line::CARLA).await;
    let renew = async |token: &str, code: &str| {
        let body = json!({"confirmationCode": code}).to_string();
        service.manage(token, RENEW, &id, &body).await
    };
    let (owner, reseller) = (service.owner("C-200"), service.reseller("R-10"));
    assert_eq!(renew(&owner, "abc").await.status, 200);
    code_of_mail(&service, &id, 2).await;
    assert_eq!(renew(&reseller, "def").await.status, 200);
    code_of_mail(&service, &id, 3).await;
    for (token, code) in [(&owner, "abc"), (&reseller, "def")] {
        let repeated = renew(token, code).await;
        assert_eq!(repeated.status, 200, "{repeated:?}");
        assert!(repeated.headers.contains_key("idempotency-replayed"), "{repeated:?}");
    }
    let record = service.record(&id).await;
    assert_eq!((record.renewals.len(), record.mails), (2, 3));
    assert_eq!(mails(&service, &id).len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_without_a_download_is_believed_only_from_an_agent() {
    let service = TestStack::new().await;
    smdp(&service).send_callbacks(CallbackMode::Lost);
    let (id, code) = waiting(&service, line::ANNA).await;
    assert_eq!(service.install(&code, CODE).await.status, 200);
    let (owner, reseller) = (service.owner("C-100"), service.reseller("R-10"));
    for (token, witness) in [(&owner, "customer"), (&owner, "agent"), (&reseller, "app")] {
        assert_rejected(&report(&service, token, &id, witness).await, 403, "Forbidden");
    }
    assert_rejected(
        &report(&service, &service.owner("C-200"), &id, "customer").await,
        404,
        "NotFound",
    );
    let believed = report(&service, &reseller, &id, "agent").await;
    assert_eq!(believed.json()["info"]["esim"]["request"], "done", "{believed:?}");
    let done = service.await_status(&id, "DONE").await;
    assert_eq!(done["info"]["profile"], "released", "a report is not the SM-DP+'s word");
    let words = timeline(&service, &id).await;
    assert!(
        words.contains(&"installReported agent: called twice".to_owned()),
        "{words:?}"
    );
    let anna = service.line(line::ANNA).await;
    assert_eq!(anna.current_sim, service.record(&id).await.new_sim);
    // Another report has nothing to add.
    assert_eq!(report(&service, &owner, &id, "customer").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_customers_report_waits_a_quarter_of_an_hour_after_the_download() {
    let service = TestStack::new().await;
    let (id, code) = waiting(&service, line::ANNA).await;
    smdp(&service).download(&code, Some(CODE)).unwrap();
    service
        .await_activation(&id, |swap| swap["info"]["profile"] == "downloaded")
        .await;
    let owner = service.owner("C-100");
    assert_rejected(&report(&service, &owner, &id, "customer").await, 409, "TooEarly");
    let (other, _) = (service.start_swap(&esim(line::BRAM)).await, ());
    let early = report(&service, &owner, &other, "customer").await;
    assert!(
        [409, 403].contains(&early.status),
        "before or after the order: {early:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_policy_for_reports_is_a_setting() {
    for (policy, status, code) in [("off", 403, "Forbidden"), ("trust", 200, "")] {
        let service = TestStack::with(&[("REPORT_INSTALLED", policy)]).await;
        smdp(&service).send_callbacks(CallbackMode::Lost);
        let (id, _) = waiting(&service, line::ANNA).await;
        let response = report(&service, &service.owner("C-100"), &id, "customer").await;
        assert_eq!(response.status, status, "{policy}: {response:?}");
        if status == 200 {
            service.await_status(&id, "DONE").await;
        } else {
            assert_rejected(&response, status, code);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_sm_dp_that_can_be_asked_decides_about_a_report() {
    // The network is polled, and the SM-DP+ with it, only after a while.
    let settings = [("SMDP_STATUS", "getProfileStatus"), ("ASK_AFTER", "1h")];
    let service = TestStack::with(&settings).await;
    smdp(&service).send_callbacks(CallbackMode::Lost);
    let (id, code) = waiting(&service, line::ANNA).await;
    let owner = service.owner("C-100");
    let refused = report(&service, &owner, &id, "customer").await;
    assert_eq!(refused.json()["info"]["esim"]["request"], "refused", "{refused:?}");
    assert_eq!(service.install(&code, CODE).await.status, 200);
    let body = json!({"witness": "customer", "note": "now it is there"});
    let believed = service.manage(&owner, REPORT, &id, &body.to_string()).await;
    assert_eq!(believed.json()["info"]["esim"]["request"], "done", "{believed:?}");
    let done = service.await_status(&id, "DONE").await;
    assert_eq!(done["info"]["profile"], "installed", "the SM-DP+ said so");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_sm_dp_that_can_be_asked_is_asked_where_its_callback_is_overdue() {
    let service = TestStack::with(&[("SMDP_STATUS", "getProfileStatus")]).await;
    smdp(&service).send_callbacks(CallbackMode::Lost);
    let (id, code) = waiting(&service, line::ANNA).await;
    assert_eq!(service.install(&code, CODE).await.status, 200);
    let done = service.await_status(&id, "DONE").await;
    assert_eq!(done["info"]["profile"], "installed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_report_of_the_installation_ends_as_expired_without_a_witness() {
    let service = TestStack::with(&[("INSTALL_WITHIN", "4s")]).await;
    smdp(&service).send_callbacks(CallbackMode::Lost);
    let (id, code) = waiting(&service, line::ANNA).await;
    assert_eq!(service.install(&code, CODE).await.status, 200);
    let ended = service.await_status(&id, "ERROR").await;
    assert_eq!(ended["info"]["failure"]["code"], "expired");
    let sim = service.sim(service.record(&id).await.new_sim.as_str()).await;
    assert_eq!(sim.state, SimState::Disabled, "it may be on a phone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reminder_comes_once_before_the_code_expires() {
    let service = TestStack::with(&[("INSTALL_WITHIN", "8s"), ("REMIND_BEFORE", "5s")]).await;
    let (id, code) = waiting(&service, line::ANNA).await;
    assert_eq!(code_of_mail(&service, &id, 2).await, code);
    let sent = mails(&service, &id);
    let [first, second] = [&sent[0], &sent[1]].map(|mail| MessageParser::default().parse(mail).unwrap());
    assert_ne!(first.subject(), second.subject());
    let ended = service.await_status(&id, "ERROR").await;
    assert_eq!(ended["info"]["failure"]["code"], "expired");
    // The customer is told of the end, without a code.
    let of_end = service.await_mail_number(&id, 3).await;
    let of_end = MessageParser::default().parse(&of_end).unwrap();
    assert_eq!(of_end.subject(), Some("Je eSIM is niet geactiveerd"));
    assert!(!of_end.body_text(0).unwrap().contains("LPA:"));
    assert_eq!(mails(&service, &id).len(), 3);
    let words = timeline(&service, &id).await;
    for word in ["reminder", "endNotice"] {
        assert_eq!(words.iter().filter(|entry| *entry == word).count(), 1, "{words:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_phone_does_with_the_esim_is_shown_after_the_end() {
    let service = TestStack::with(&[("SMDP_POINTS", "5=deleted,6=enabled,7=disabled")]).await;
    let (id, code) = waiting(&service, line::ANNA).await;
    let swap = service.activation(&id).await;
    let esim = &swap["info"]["esim"];
    let time = |text: &Value| text.as_str().unwrap().parse::<Timestamp>().unwrap();
    let [created, since, expires] = [&swap["createdAt"], &esim["stateAt"], &esim["expiresAt"]].map(time);
    assert_eq!(
        (&esim["state"], expires.duration_since(created)),
        (&json!("released"), SignedDuration::from_hours(336))
    );
    assert!(created < since && since < Timestamp::now(), "{swap}");
    assert_eq!(service.install(&code, CODE).await.status, 200);
    let done = service.await_status(&id, "DONE").await;
    let esim = &done["info"]["esim"];
    assert_eq!(
        (&esim["state"], &esim["downloads"], &esim["wrongCodes"]),
        (&json!("installed"), &json!(1), &json!(0))
    );
    let eid = esim["eid"].as_str().unwrap();
    assert_eq!((eid.chars().count(), eid.starts_with('…')), (5, true), "{eid}");
    let iccid: Iccid = service.record(&id).await.new_sim;
    for (point, state) in [(6, "enabled"), (7, "disabled"), (5, "deleted")] {
        smdp(&service).report_point(&iccid, point).unwrap();
        service
            .await_activation(&id, |swap| swap["info"]["esim"]["state"] == state)
            .await;
    }
    assert_eq!(service.activation(&id).await["info"]["profile"], "installed");
}

/// A stack whose SM-DP+ was written from the standard's tables alone.
async fn with_foreign_smdp(settings: &[(&str, &str)]) -> (TestStack, ForeignSmdp) {
    let smdp = ForeignSmdp::start().await;
    let service = TestStack::start(local::stack::Options {
        smdp_url: Some(smdp.url().to_owned()),
        ..TestStack::options_with(settings)
    })
    .await;
    smdp.connect(&service.stack.endpoints.callbacks);
    (service, smdp)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_sm_dp_renews_a_failed_profile_and_lost_responses_change_nothing() {
    let (service, smdp) = with_foreign_smdp(&[]).await;
    smdp.speak_v3();
    let (id, old) = waiting(&service, line::ANNA).await;
    let iccid = service.record(&id).await.new_sim.to_string();
    assert_eq!(smdp.fail(&iccid, 2, "8.2.7", "6.4").await, 204);
    service
        .await_activation(&id, |swap| swap["info"]["esim"]["state"] == "failed")
        .await;
    // The response to the first call of each kind of the renewal is lost.
    smdp.rule(&iccid, |call| match (call.operation, call.nth) {
        ("cancelOrder", 1) | ("downloadOrder" | "confirmOrder", 2) => Act::LoseResponse,
        _ => Act::Comply,
    });
    let pending = renew(&service, &id, &json!({})).await;
    assert_eq!(pending.status, 200, "{pending:?}");
    let new = code_of_mail(&service, &id, 2).await;
    assert_ne!(new, old);
    let confirmed = smdp.calls("confirmOrder", &iccid);
    let matching_id = |code: &str| code.split('$').nth(2).unwrap().to_owned();
    assert_eq!(confirmed[0].body["matchingId"], matching_id(&old));
    assert_eq!(confirmed.last().unwrap().body["matchingId"], matching_id(&new));
    smdp.install(&iccid).await;
    service.await_status(&id, "DONE").await;
    assert_eq!(mails(&service, &id).len(), 2);
    assert!(smdp.violations().is_empty(), "{:?}", smdp.violations());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swap_with_a_foreign_sm_dp_that_never_calls_back_is_done_by_report() {
    let (service, smdp) = with_foreign_smdp(&[]).await;
    let (id, _) = waiting(&service, line::ANNA).await;
    let believed = report(&service, &service.admin(), &id, "agent").await;
    assert_eq!(believed.status, 200, "{believed:?}");
    service.await_status(&id, "DONE").await;
    assert!(smdp.violations().is_empty(), "{:?}", smdp.violations());
}
