//! What a client sees when the peers of the local stack fail, as its options say.

use std::time::Duration;

use clap::Parser;
use futures_util::{StreamExt, stream};
use local::args::Args;
use local::stack::Options;
use serde_json::{Value, json};
use simulators::FailurePace;
use tests::{FREE_CARD, TestStack, activation_code, card, esim, line};

/// Waits that keep a test short.
const QUICK: [(&str, &str); 4] = [
    ("RETRY_AFTER", "10ms"),
    ("ASK_AFTER", "100ms"),
    ("MAIL_DOUBT", "200ms"),
    ("MAIL_RETRY_AFTER", "50ms"),
];

/// A swap while peers fail.
#[derive(Default)]
struct Row {
    options: &'static str,
    settings: &'static [(&'static str, &'static str)],
    /// How late a late response comes.
    late_by: Duration,
    to_card: bool,
    /// The timeline entry, or its beginning, for which the client waits first.
    sees: &'static str,
    /// What the client does then, and the status code of each response.
    then: &'static [(&'static str, u16)],
    /// The status, the failure code, the state of the e-mail and that of the eSIM in the end.
    end: [&'static str; 4],
}

fn rows() -> Vec<Row> {
    vec![
        Row {
            options: "--smdp-failures refuses",
            sees: "callFailed 8.2.1/3.9",
            end: ["ERROR", "profileRefused", "", ""],
            ..Row::default()
        },
        Row {
            options: "--smdp-failures hangs",
            late_by: Duration::from_millis(50),
            sees: "mailDelivered",
            then: &[("install", 200)],
            end: ["DONE", "", "delivered", "installed"],
            ..Row::default()
        },
        Row {
            options: "--smdp-failures loses-callbacks",
            sees: "mailDelivered",
            then: &[("install", 200), ("report", 200)],
            end: ["DONE", "", "delivered", "released"],
            ..Row::default()
        },
        Row {
            options: "--smdp-failures used-up",
            sees: "mailDelivered",
            then: &[("install", 409)],
            end: ["BUSY", "", "delivered", "failed 8.8.5/6.4"],
            ..Row::default()
        },
        Row {
            options: "--smdp-failures no-room",
            sees: "mailDelivered",
            then: &[("install", 409)],
            end: ["BUSY", "", "delivered", "failed 8.1/4.8"],
            ..Row::default()
        },
        Row {
            options: "--smdp-failures wrong-device",
            sees: "mailDelivered",
            then: &[("install", 409)],
            end: ["BUSY", "", "delivered", "failed 8.1.1/3.8"],
            ..Row::default()
        },
        Row {
            options: "--network-failures refuses",
            sees: "callFailed 400",
            end: ["ERROR", "networkRejected", "", ""],
            ..Row::default()
        },
        Row {
            options: "--network-failures hangs",
            late_by: Duration::from_millis(50),
            sees: "mailDelivered",
            then: &[("install", 200)],
            end: ["DONE", "", "delivered", "installed"],
            ..Row::default()
        },
        Row {
            options: "--network-failures early",
            sees: "started",
            then: &[("cancel", 409), ("install", 200)],
            end: ["DONE", "", "delivered", "installed"],
            ..Row::default()
        },
        Row {
            options: "--network-failures forgets",
            settings: &[("CALL_REST", "1s"), ("SETTLE_WITHIN", "1s")],
            sees: "callFailed 409",
            then: &[("cancel", 200)],
            end: ["ERROR", "unsettled", "", ""],
            ..Row::default()
        },
        Row {
            options: "--network-failures forgets",
            to_card: true,
            sees: "callFailed no answer",
            end: ["DONE", "", "", ""],
            ..Row::default()
        },
        Row {
            options: "--network-failures unauthorized",
            sees: "callFailed 401",
            then: &[("install", 200)],
            end: ["DONE", "", "delivered", "installed"],
            ..Row::default()
        },
        Row {
            options: "--mail-failures bounces",
            sees: "mailBounced mail 1",
            end: ["BUSY", "", "bounced", "released"],
            ..Row::default()
        },
        Row {
            options: "--mail-failures soft-bounces",
            sees: "mailBouncedForNow mail 1",
            end: ["BUSY", "", "bounced", "released"],
            ..Row::default()
        },
        Row {
            options: "--mail-failures throttles",
            sees: "mailHeld mail 1, throttled",
            end: ["BUSY", "", "pending", "released"],
            ..Row::default()
        },
        Row {
            options: "--mail-failures hangs",
            sees: "mailUnanswered mail 1",
            end: ["BUSY", "", "failed", "released"],
            ..Row::default()
        },
        Row {
            options: "--smdp-failures 50% --network-failures 50% --mail-failures 50%",
            late_by: Duration::from_millis(50),
            sees: "mailDelivered",
            then: &[("install", 200)],
            end: ["DONE", "", "delivered", "installed"],
            ..Row::default()
        },
    ]
}

/// The entries of the timeline, such as `callFailed 503`.
fn timeline(seen: &Value) -> Vec<String> {
    let entries = seen["timeline"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let words = entries.map(|entry| format!("{} {}", text(&entry["what"]), text(&entry["detail"])));
    words.map(|words| words.trim_end().to_owned()).collect()
}

/// The swap with its timeline, as soon as it satisfies `fits`.
async fn await_swap(service: &TestStack, id: &str, options: &str, fits: impl Fn(&Value) -> bool) -> Value {
    let query = format!("id={id}&include=timeline");
    let mut seen = Value::Null;
    for _ in 0..2000 {
        seen = service.query(&service.admin(), &query).await.json()["results"][0].clone();
        if fits(&seen) {
            return seen;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{options}: the swap stays {seen}");
}

/// The status, the failure code, the state of the e-mail and that of the eSIM, with the codes of the SM-DP+ if it
/// failed.
fn outcome(seen: &Value) -> [String; 4] {
    let info = &seen["info"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let failed = timeline(seen);
    let codes = failed.iter().find_map(|entry| entry.strip_prefix("profileFailed "));
    let state = [text(&info["esim"]["state"]), codes.unwrap_or_default().to_owned()].join(" ");
    [
        text(&seen["status"]),
        text(&info["failure"]["code"]),
        text(&info["delivery"]),
        state.trim().to_owned(),
    ]
}

async fn act(service: &TestStack, id: &str, action: &str) -> u16 {
    let response = match action {
        "install" => {
            let code = activation_code(&service.await_mail(id).await);
            service.install(&code, "8E9!#").await
        }
        "cancel" => service.manage(&service.admin(), "CancelActivation", id, "").await,
        "report" => {
            let report = r#"{"witness":"agent"}"#;
            service.manage(&service.admin(), "ReportInstalled", id, report).await
        }
        other => panic!("the client cannot {other}"),
    };
    response.status
}

async fn check(row: Row) {
    let options = row.options;
    let args = Args::try_parse_from(std::iter::once("simswap").chain(options.split_whitespace()));
    let mut failures = args.unwrap().start.failures;
    failures.pace = FailurePace {
        late_by: row.late_by,
        unauthorized_for: Duration::from_millis(300),
        seed: 1,
    };
    let service = TestStack::start(Options {
        failures,
        ..TestStack::options_with(&[&QUICK[..], row.settings].concat())
    })
    .await;
    let listed = service.send("GET", "/local/failures", &[], "").await.json();
    assert_eq!(listed, json!(failures.list()), "{options}");
    assert_eq!(listed.as_array().unwrap().len(), options.matches("--").count());

    let body = match row.to_card {
        true => card(line::ANNA, FREE_CARD),
        false => esim(line::ANNA),
    };
    let id = service.start_swap(&body).await;
    let sees = |seen: &Value| timeline(seen).iter().any(|entry| entry.starts_with(row.sees));
    await_swap(&service, &id, options, sees).await;
    for (action, status) in row.then {
        assert_eq!(act(&service, &id, action).await, *status, "{options}: {action}");
    }
    await_swap(&service, &id, options, |seen| outcome(seen) == row.end).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_failure_of_a_peer_shows_as_described() {
    stream::iter(rows()).for_each_concurrent(4, check).await;
}
