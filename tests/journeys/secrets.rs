//! Where secrets must not be: the tests search the table's files, logs, stream, dead-letter queue, mails, links and
//! error responses for the secrets of whole swaps.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use domain::{EmailAddress, FormFactor, Iccid, Line, Secret, Sim};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use local::dynoxide::actions::describe_stream::DescribeStreamRequest;
use local::dynoxide::actions::get_item::GetItemRequest;
use local::dynoxide::actions::get_records::GetRecordsRequest;
use local::dynoxide::actions::get_shard_iterator::GetShardIteratorRequest;
use local::dynoxide::actions::list_streams::ListStreamsRequest;
use local::dynoxide::actions::update_item::UpdateItemRequest;
use local::dynoxide::types::{AttributeValue, Item};
use local::stack::Options;
use mail_parser::MessageParser;
use memchr::memmem;
use operator::import::{Kind, Report, import};
use operator::show;
use serde_json::{Value, json};
use store::{StoreError, StoredSwap};
use tests::stock::{active_line, free_sim};
use tests::{FaultyProxy, ProxyFault, TestResponse, TestStack, activation_code};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::log_buffer::LogBuffer;

/// The confirmation code, of characters that no text encoding changes.
const CODE: &str = "ZQ7KW9VXT3";
const OTHER_CODE: &str = "YR8LX2WUS4";
const PINS_AND_PUKS: [&str; 4] = ["60482917", "71593826", "82604735", "93715648"];
const SUPPLIER_CODE: &str = "LPA:1$SUPPLIER.EXAMPLE$KP5NQ8RTVX";
const EMAIL: &str = "findable@example.com";

/// All log lines of our crates in this process, at every level.
static LOG: LazyLock<LogBuffer> = LazyLock::new(|| {
    let log = LogBuffer::default();
    let ours = [
        "domain",
        "store",
        "peers",
        "edge",
        "submit_swap",
        "change_sim",
        "query_activation",
        "manage_swap",
        "fulfil_swap",
        "deliver_esim",
        "network_events",
        "mail_events",
        "sweep_swaps",
        // Metrics.
        "simswap",
        edge::AUDIT,
        "local",
        "operator",
        "simulators",
    ];
    let filter = Targets::new()
        .with_default(LevelFilter::WARN)
        .with_targets(ours.map(|target| (target, LevelFilter::TRACE)));
    let lines = tracing_subscriber::fmt::layer()
        .json()
        .with_span_list(false)
        .with_writer(log.clone());
    tracing_subscriber::registry().with(lines).with(filter).init();
    log
});

/// Whether the bytes contain a text: as it is, in base64 at any offset, or in hexadecimal of either case.
fn holds(bytes: &[u8], text: &str) -> bool {
    let mut forms = vec![text.to_owned()];
    for before in 0..3 {
        let encoded = STANDARD_NO_PAD.encode([&b"xx"[..before], text.as_bytes()].concat());
        // Only the characters that do not depend on the neighbouring bytes.
        let (from, to) = ((before * 8).div_ceil(6), (before + text.len()) * 8 / 6);
        forms.push(encoded[from..to].to_owned());
    }
    let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    forms.extend([hex.to_uppercase(), hex]);
    let mut forms = forms.iter();
    forms.any(|form| memmem::find(bytes, form.as_bytes()).is_some())
}

#[test]
fn a_text_is_found_in_every_form() {
    for text in [CODE, PINS_AND_PUKS[0]] {
        assert!(holds(format!("a{text}b").as_bytes(), text));
        for before in ["", "x", "xy", "xyz"] {
            let whole = format!("{before}{text}z");
            assert!(holds(STANDARD_NO_PAD.encode(&whole).as_bytes(), text), "{before}");
        }
        assert!(!holds(b"ZQ7KW9VXT4 60482918", text));
    }
}

/// A network of this test's own: only its SIMs are assigned.
const NETWORK: &str = "CANARY";

fn sim(iccid: &str, form_factor: FormFactor) -> Sim {
    let [pin1, pin2, puk1, puk2] = PINS_AND_PUKS.map(|secret| Some(Secret::new(secret)));
    Sim {
        pin1,
        pin2,
        puk1,
        puk2,
        supplier_code: Some(Secret::new(SUPPLIER_CODE)),
        ..free_sim(NETWORK, iccid, form_factor)
    }
}

async fn add_line(service: &TestStack, id: &str, phone: &str, iccid: &str) {
    let sim = sim(iccid, FormFactor::Nano);
    let line = Line {
        customer: "C-900".to_owned(),
        email: Some(EmailAddress::parse(EMAIL).unwrap()),
        ..active_line(id, phone, &sim)
    };
    service.stack.store.add_line(&line, sim).await.unwrap();
}

/// A service with two lines, some eSIMs and a card on the network of these tests.
async fn start(data_dir: Option<PathBuf>, settings: &[(&str, &str)]) -> TestStack {
    LazyLock::force(&LOG);
    let service = TestStack::start(Options {
        data_dir,
        ..TestStack::options_with(settings)
    })
    .await;
    add_line(&service, "LINE-1", "+31612349901", "8931999000000000001").await;
    add_line(&service, "LINE-2", "+31612349902", "8931999000000000002").await;
    for n in 0..6 {
        let esim = sim(&format!("893199900000000100{n}"), FormFactor::Esim);
        service.stack.store.add_sim(&esim).await.unwrap();
    }
    let card = sim("8931999000000002000", FormFactor::Nano);
    service.stack.store.add_sim(&card).await.unwrap();
    service
}

fn esim(line: &str, code: &str) -> Value {
    json!({"subscriptionId": line, "eSim": true, "email": EMAIL, "confirmationCode": code})
}

/// The body of an error response with this status, for the search.
fn error_body(response: TestResponse, status: u16) -> Vec<u8> {
    assert_eq!(response.status, status, "{response:?}");
    format!("{response:?}").into_bytes()
}

/// The responses to all invalid requests that contain a secret, while a swap is open on LINE-1 under the key `k`.
async fn error_bodies(service: &TestStack) -> Vec<Vec<u8>> {
    let admin = service.admin();
    let keyed = [("idempotency-key", "k")];
    let long = format!("{CODE}{CODE}");
    let mut found = vec![
        error_body(service.submit(&admin, &esim("LINE-1", OTHER_CODE)).await, 409),
        error_body(
            service.submit_with(&admin, &keyed, &esim("LINE-1", OTHER_CODE)).await,
            422,
        ),
        error_body(service.submit(&admin, &esim("LINE-1", &long)).await, 400),
        error_body(service.submit(&admin, &esim("LINE-1", &format!("{CODE} "))).await, 400),
        error_body(service.submit(&admin, &esim("no line", CODE)).await, 400),
        error_body(service.submit(&admin, &esim("nosuch", CODE)).await, 404),
        error_body(service.submit(&service.owner("C-1"), &esim("LINE-1", CODE)).await, 404),
        error_body(service.submit("nobody", &esim("LINE-1", CODE)).await, 401),
        error_body(service.query(&admin, &format!("confirmationCode={CODE}")).await, 400),
        error_body(service.query(&admin, &format!("take={CODE}")).await, 400),
    ];
    let mut not_text = esim("LINE-1", CODE);
    not_text["confirmationCode"] = json!([CODE]);
    found.push(error_body(service.submit(&admin, &not_text).await, 400));
    let bearer = format!("Bearer {admin}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let broken = format!("{{\"confirmationCode\":\"{CODE}\"");
    let submit = "/api/SimSwapSubscription";
    found.push(error_body(
        service.send("POST", submit, &headers, broken.clone()).await,
        400,
    ));
    let large = format!("{broken}{}", " ".repeat(11_000));
    found.push(error_body(service.send("POST", submit, &headers, large).await, 413));
    let plain = [("authorization", bearer.as_str()), ("content-type", "text/plain")];
    found.push(error_body(
        service.send("POST", submit, &plain, broken.clone()).await,
        415,
    ));
    let callback = "/gsma/rsp2/es2plus/handleDownloadProgressInfo";
    found.push(error_body(service.send("POST", callback, &[], broken).await, 400));
    found
}

/// Every record of the table's stream, as the functions get them.
fn stream(service: &TestStack) -> Vec<Value> {
    let database = &service.stack.database;
    let request = ListStreamsRequest {
        table_name: Some(service.stack.endpoints.table.clone()),
        ..Default::default()
    };
    let stream_arn = database.list_streams(request).unwrap().streams.remove(0).stream_arn;
    let request = DescribeStreamRequest {
        stream_arn: stream_arn.clone(),
        ..Default::default()
    };
    let shard_id = database
        .describe_stream(request)
        .unwrap()
        .stream_description
        .shards
        .remove(0)
        .shard_id;
    let request = GetShardIteratorRequest {
        stream_arn,
        shard_id,
        shard_iterator_type: "TRIM_HORIZON".to_owned(),
        sequence_number: None,
    };
    let mut iterator = database.get_shard_iterator(request).unwrap().shard_iterator.unwrap();
    let mut found = Vec::new();
    loop {
        let request = GetRecordsRequest {
            shard_iterator: iterator.clone(),
            limit: Some(1000),
        };
        let page = database.get_records(request).unwrap();
        if page.records.is_empty() {
            return found;
        }
        found.extend(page.records.iter().map(|record| json!(record)));
        iterator = page.next_shard_iterator.unwrap();
    }
}

/// All files below a directory, with their contents. The stack still works there, so a file may disappear meanwhile.
fn files(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
            continue;
        }
        match std::fs::read(&path) {
            Ok(content) => found.push((path, content)),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}"),
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_of_a_swap_is_where_it_should_not_be() {
    let directory = tempfile::tempdir().unwrap();
    let (smdp, network) = (FaultyProxy::new().await, FaultyProxy::new().await);
    let settings = [
        ("SMDP_URL", smdp.url.as_str()),
        ("NETWORK_URL", &network.url),
        ("RETRY_AFTER", "1ms"),
        ("ASK_AFTER", "50ms"),
    ];
    let service = start(Some(directory.path().to_owned()), &settings).await;
    smdp.connect(&service.stack.endpoints.smdp);
    network.connect(&service.stack.endpoints.network);
    // Peers that repeat secrets in their responses.
    let html = format!("<html>{CODE} is the code of {}</html>", PINS_AND_PUKS[0]);
    let failed = |subject: &str, reason: &str| {
        let status = json!({
            "status": "Failed",
            "statusCodeData": {"subjectCode": subject, "reasonCode": reason, "subjectIdentifier": CODE, "message": CODE},
        });
        json!({"header": {"functionExecutionStatus": status}}).to_string()
    };
    let (no, unclear) = (failed("8.2.1", "3.9"), failed(CODE, CODE));
    let admin = service.admin();
    let mut matching_ids = Vec::new();
    let mut mails = Vec::new();

    // One swap is done, after a wrong code and failures of the peers.
    smdp.plan("confirmOrder", ProxyFault::Respond(500, html.clone()));
    smdp.plan("confirmOrder", ProxyFault::Respond(200, unclear));
    network.plan("POST", ProxyFault::Respond(503, html.clone()));
    let response = service
        .submit_with(&admin, &[("idempotency-key", "k")], &esim("LINE-1", CODE))
        .await;
    assert_eq!(response.status, 200);
    let done = response.json()["id"].as_str().unwrap().to_owned();
    let code = service.await_waiting(&done).await;
    let error_bodies = error_bodies(&service).await;
    assert_eq!(service.install(&code, OTHER_CODE).await.status, 403);
    assert_eq!(service.install(&code, CODE).await.status, 200);
    service.await_status(&done, "DONE").await;
    matching_ids.push(code);
    mails.extend(service.mails(&done));

    // One fails on the phone, is renewed and cancelled; one fails at the SM-DP+, one at the network.
    let failed = service.start_swap(&esim("LINE-2", CODE)).await;
    let code = service.await_waiting(&failed).await;
    for _ in 0..5 {
        service.install(&code, OTHER_CODE).await;
    }
    service
        .await_activation(&failed, |swap| swap["info"]["esim"]["state"] == "failed")
        .await;
    let renewed = service.manage(&service.admin(), "RenewEsim", &failed, "").await;
    assert_eq!(renewed.json()["info"]["esim"]["request"], "done", "{renewed:?}");
    let new_code = activation_code(&service.await_mail_number(&failed, 2).await);
    matching_ids.extend([code, new_code]);
    mails.extend(service.mails(&failed));
    service.manage(&service.admin(), "CancelActivation", &failed, "").await;
    service.await_status(&failed, "ERROR").await;
    smdp.plan("confirmOrder", ProxyFault::Respond(200, no));
    let error_body = service.start_swap(&esim("LINE-2", CODE)).await;
    service.await_status(&error_body, "ERROR").await;
    network.plan("POST", ProxyFault::Respond(400, html));
    let rejected = service.start_swap(&esim("LINE-2", CODE)).await;
    service.await_status(&rejected, "ERROR").await;

    // One goes to a card whose PINs and PUKs are in stock.
    let card = json!({"subscriptionId": "LINE-2", "newSimCardNumber": "8931999000000002000"});
    let id = service.start_swap(&card).await;
    service.await_status(&id, "DONE").await;
    assert!(smdp.is_spent() && network.is_spent());

    // The row of one cannot be read, so its record ends in the dead-letter queue.
    let key = |name: &str, value: &str| (name.to_owned(), AttributeValue::S(value.to_owned()));
    let broken = UpdateItemRequest {
        table_name: service.stack.endpoints.table.clone(),
        key: HashMap::from([key("pk", &format!("A#{done}")), key("sk", "activation")]),
        update_expression: Some("SET phase = :nonsense".to_owned()),
        expression_attribute_values: Some(HashMap::from([key(":nonsense", "nonsense")])),
        ..UpdateItemRequest::default()
    };
    service.stack.database.update_item(broken).unwrap();
    while service.stack.dead_letters.list().is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    for matching_id in &mut matching_ids {
        *matching_id = matching_id.split('$').nth(2).unwrap().to_owned();
    }
    let mut never = vec![CODE, OTHER_CODE, SUPPLIER_CODE];
    never.extend(PINS_AND_PUKS);
    let mut secrets = never.clone();
    secrets.extend(matching_ids.iter().map(String::as_str));

    assert!(
        error_bodies
            .iter()
            .any(|error_body| holds(error_body, "SwapInProgress"))
    );
    for error_body in &error_bodies {
        for secret in &secrets {
            assert!(
                !holds(error_body, secret),
                "{secret} in {}",
                String::from_utf8_lossy(error_body)
            );
        }
    }

    assert_eq!(mails.len(), 3);
    for raw in &mails {
        let mail = MessageParser::default().parse(raw).unwrap();
        let (text, html) = (mail.body_text(0).unwrap(), mail.body_html(0).unwrap());
        assert!(html.contains("https://esimsetup.apple.com/"));
        for secret in &never {
            for part in [raw.as_slice(), text.as_bytes(), html.as_bytes()] {
                assert!(!holds(part, secret), "{secret}");
            }
        }
    }

    let dead = json!(service.stack.dead_letters.list()).to_string();
    assert!(dead.contains(&done), "{dead}");
    for secret in &secrets {
        assert!(!holds(dead.as_bytes(), secret), "{secret} in {dead}");
    }

    let records = stream(&service);
    assert!(records.len() > 50, "{}", records.len());
    for record in &records {
        let change = &record["dynamodb"];
        assert_eq!(change["StreamViewType"], "KEYS_ONLY", "{record}");
        assert!(
            change.get("NewImage").is_none() && change.get("OldImage").is_none(),
            "{record}"
        );
        for secret in &secrets {
            assert!(!holds(record.to_string().as_bytes(), secret), "{secret} in {record}");
        }
    }

    service.stack.stop().await;
    let mut searched = 0;
    for (path, bytes) in files(directory.path()) {
        let name = path
            .strip_prefix(directory.path())
            .unwrap()
            .to_string_lossy()
            .into_owned();
        for secret in &never {
            assert!(!holds(&bytes, secret), "{secret} in {name}");
        }
        // A mail has its activation code, and the SM-DP+ its orders.
        if !name.starts_with("mail") && !name.starts_with("peers") {
            for secret in &matching_ids {
                assert!(!holds(&bytes, secret), "{secret} in {name}");
            }
        }
        // A text that is not secret is found, so the search works.
        if name.starts_with("dynamodb.sqlite") && holds(&bytes, EMAIL) {
            searched += 1;
        }
    }
    assert!(searched > 0);

    let log = LOG.bytes().clone();
    assert!(
        holds(&log, &done)
            && holds(&log, "swap accepted")
            && holds(&log, "a call to a peer failed")
            && holds(&log, "SubmitToDone")
    );
    for secret in &secrets {
        let lines = String::from_utf8_lossy(&log);
        let line = lines.lines().find(|line| holds(line.as_bytes(), secret));
        assert_eq!(line, None, "{secret}");
    }
    assert!(!holds(&log, EMAIL), "an address is in the log");
    assert_lines_have_ids(&log);
}

/// Asserts that each log line of the functions has the ids by which an operator finds all lines of an invocation or a
/// swap.
fn assert_lines_have_ids(log: &[u8]) {
    let mut seen = 0;
    for line in String::from_utf8_lossy(log).lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let of_swaps = match line["target"].as_str().unwrap().split("::").next().unwrap() {
            "fulfil_swap" | "deliver_esim" => true,
            "submit_swap" | "change_sim" | "query_activation" | "manage_swap" | "network_events" | "mail_events"
            | "sweep_swaps" => false,
            _ => continue,
        };
        // An invocation of another test that began before this log did has no span in it. That each line has a span is
        // checked by acceptance, in a process of its own.
        let Some(span) = line.get("span") else { continue };
        let about = |id: &str| span[id].as_str().is_some_and(|id| !id.is_empty());
        assert!(about("request") && (!of_swaps || about("activation")), "{line}");
        seen += 1;
    }
    assert!(seen > 0);
}

/// A SIM of a stock file: number, form factor, PUKs and PINs in the file's order.
type Stocked = (&'static str, &'static str, [&'static str; 4]);

const CARD: Stocked = (
    "8931999000000003001",
    "NANO",
    ["51720946", "62831057", "73942168", "84053279"],
);
const ASSIGNED: Stocked = (
    "8931999000000003002",
    "MINI_MICRO",
    ["41927305", "52038416", "63149527", "74250638"],
);
const PROFILE: Stocked = (
    "8931999000000003003",
    "eSIM",
    ["95164380", "16275491", "27386502", "38497613"],
);
/// The current SIM of the first account, which is from the file too.
const CURRENT: Stocked = (
    "8931999000000003004",
    "NANO",
    ["39751842", "40862953", "51973064", "62084175"],
);
const STOCK: [Stocked; 4] = [CARD, ASSIGNED, PROFILE, CURRENT];
const ACCOUNTS: [&str; 3] = [
    "ca0a51e00000000000000001",
    "ca0a51e00000000000000002",
    "ca0a51e00000000000000003",
];

async fn load(service: &TestStack, kind: Kind, text: String) -> Vec<Report> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file.csv");
    std::fs::write(&path, text).unwrap();
    let mut reported = Vec::new();
    let mut report = |report| reported.push(report);
    import(kind, &path, false, &service.stack.store, &mut report)
        .await
        .unwrap();
    reported
}

/// Whether the response shows the PUKs and PINs of this SIM and of no other SIM.
fn shows(response: &TestResponse, sim: Stocked) {
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(response.headers["cache-control"], "no-store");
    let shown = &response.json()["mvnoSim"];
    assert_eq!(shown["simNumber"], sim.0);
    let names = ["puk1", "puk2", "pin1", "pin2"];
    assert_eq!(names.map(|name| shown[name].as_str().unwrap()), sim.2);
    for other in STOCK.iter().filter(|other| other.0 != sim.0) {
        assert!(!other.2.iter().any(|secret| response.body.contains(secret)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pins_and_puks_are_only_in_responses_of_change_sim() {
    LazyLock::force(&LOG);
    let directory = tempfile::tempdir().unwrap();
    let service = TestStack::start(Options {
        data_dir: Some(directory.path().to_owned()),
        ..TestStack::options()
    })
    .await;
    // Responses and outputs elsewhere, which must not show them.
    let mut others: Vec<String> = Vec::new();

    // They are imported from a file. The report of a faulty line does not repeat the line.
    let mut sims = "SIM_CARD_NUMBER;PUK1;PUK2;PIN1;PIN2;FORM_FACTOR;NETWORK;ACTIVATION_CODE;TAG;AUTO_ASSIGN".to_owned();
    for (iccid, form, [puk1, puk2, pin1, pin2]) in STOCK {
        let auto_assign = iccid == ASSIGNED.0;
        sims += &format!("\n{iccid};{puk1};{puk2};{pin1};{pin2};{form};CANARY;;;{auto_assign}");
    }
    let faulty = sims.replace("NANO", "nano");
    others.push(format!("{:?}", load(&service, Kind::Sims, faulty).await));
    assert!(others[0].contains("Faulty"));
    others.push(format!("{:?}", load(&service, Kind::Sims, sims).await));
    let mut lines = "ID;PHONE_NUMBER;CUSTOMER;RESELLER;NETWORK;CURRENT_SIM;EMAIL;LANGUAGE;STATE;PORTING".to_owned();
    for (number, account) in ACCOUNTS.into_iter().enumerate() {
        let sim = [CURRENT.0, "8931999000000003005", "8931999000000003006"][number];
        lines += &format!("\n{account};+3161234980{number};C-900;;CANARY;{sim};{EMAIL};nl;ACTIVE;false");
    }
    let reported = load(&service, Kind::Subscriptions, lines).await;
    others.push(format!("{reported:?}"));

    let [first, second, third] = ACCOUNTS;
    let (owner, stranger) = (service.owner("C-900"), service.owner("C-100"));
    let change = async |method, token: &str, account: &str, sim: &str, header: (&str, &str)| {
        let bearer = format!("Bearer {token}");
        let path = format!("/mvno/{account}/changesim/{sim}");
        let headers = [("authorization", bearer.as_str()), header];
        service.send(method, &path, &headers, "").await
    };
    let plain = ("accept", "*/*");
    let key = ("idempotency-key", "k");
    let swap_of = async |account: &str| {
        let of_account = format!("subscriptionId={account}");
        let page = service.query(&owner, &of_account).await.json();
        let id = page["results"][0]["id"].clone();
        id.as_str().unwrap().to_owned()
    };

    // The account's current SIM, and each way to a new SIM: first, repeated, by the other method, and with a key.
    shows(&change("GET", &owner, first, CURRENT.0, plain).await, CURRENT);
    for (account, sim, header, stocked) in [
        (first, CARD.0, plain, CARD),
        (second, "eSim", key, PROFILE),
        (third, "autoAssign", plain, ASSIGNED),
    ] {
        for method in ["POST", "GET", "POST"] {
            shows(&change(method, &owner, account, sim, header).await, stocked);
        }
        let swap = swap_of(account).await;
        if stocked.1 == "eSIM" {
            let mail = service.await_mail(&swap).await;
            others.push(String::from_utf8(mail).unwrap());
        } else {
            service.await_status(&swap, "DONE").await;
        }
        for method in ["GET", "POST"] {
            shows(&change(method, &owner, account, sim, header).await, stocked);
        }
    }

    // All other responses about the same SIMs and accounts.
    for (expected, response) in [
        (403, change("GET", &owner, second, CARD.0, plain).await),
        (
            403,
            change("GET", &owner, first, PROFILE.0, ("purpose", "prefetch")).await,
        ),
        (
            403,
            change("GET", &service.token("OWNER", None, None), first, CARD.0, plain).await,
        ),
        (401, change("GET", "none", first, CARD.0, plain).await),
        (404, change("GET", &stranger, first, CARD.0, plain).await),
        (404, change("POST", &stranger, second, "eSim", key).await),
        (404, change("GET", &owner, first, PROFILE.0, plain).await),
        (404, change("GET", &owner, first, ASSIGNED.0, plain).await),
        (404, change("GET", &owner, first, "eSim", plain).await),
        (422, change("POST", &owner, first, CARD.0, key).await),
        (
            400,
            change("POST", &owner, first, CARD.0, ("idempotency-key", "")).await,
        ),
        (404, service.submit(&owner, &tests::card(first, PROFILE.0)).await),
        (409, service.submit(&owner, &tests::card(second, CARD.0)).await),
        (200, service.query(&owner, "").await),
        (
            200,
            service.query(&owner, &format!("id={}", swap_of(first).await)).await,
        ),
        (
            200,
            service
                .query(&service.admin(), &format!("id={}", swap_of(second).await))
                .await,
        ),
        // Back to the account's previous SIM, in the dialect that shows no codes.
        (404, service.submit(&owner, &tests::card(first, CURRENT.0)).await),
    ] {
        assert_eq!(response.status, expected, "{response:?}");
        others.push(format!("{response:?}"));
    }

    // A sealed field that was moved elsewhere cannot be decrypted.
    let sealed = row(&service, &format!("S#{}", CURRENT.0), "sim")["puk1"].clone();
    let text = |text: String| AttributeValue::S(text);
    let altered = UpdateItemRequest {
        table_name: service.stack.endpoints.table.clone(),
        key: HashMap::from([
            ("pk".to_owned(), text(format!("S#{}", CARD.0))),
            ("sk".to_owned(), text("sim".to_owned())),
        ]),
        update_expression: Some("SET puk2 = :sealed".to_owned()),
        expression_attribute_values: Some(HashMap::from([(":sealed".to_owned(), sealed)])),
        ..UpdateItemRequest::default()
    };
    service.stack.database.update_item(altered).unwrap();
    let broken = change("GET", &owner, first, CARD.0, plain).await;
    assert_eq!(broken.json()["error"]["message"], "internal_error");
    others.push(format!("{broken:?}"));

    // The output of the operator's command `show`.
    let store = &service.stack.store;
    for (iccid, ..) in STOCK {
        others.push(show::sim(store, &TimeZone::UTC, iccid).await.unwrap());
        others.push(format!("{:?}", service.sim(iccid).await));
    }
    let sim = Iccid::parse(PROFILE.0).unwrap();
    let opened = store.sim_with_secrets(&sim).await.unwrap().unwrap();
    others.push(format!("{opened:?}"));
    for account in ACCOUNTS {
        others.push(show::line(store, &TimeZone::UTC, account).await.unwrap());
        let swap = swap_of(account).await;
        others.push(show::swap(store, &TimeZone::UTC, &swap).await.unwrap());
    }
    others.extend(stream(&service).iter().map(Value::to_string));
    others.extend(service.table());

    service.stack.stop().await;
    let secrets = || STOCK.into_iter().flat_map(|(.., secrets)| secrets);
    for other in &others {
        for secret in secrets() {
            assert!(!holds(other.as_bytes(), secret), "{secret} in {other}");
        }
    }
    let mut searched = 0;
    for (path, bytes) in files(directory.path()) {
        for secret in secrets() {
            assert!(!holds(&bytes, secret), "{secret} in {}", path.display());
        }
        searched += usize::from(path.ends_with("dynamodb.sqlite") && holds(&bytes, CARD.0));
    }
    assert_eq!(searched, 1);
    let log = LOG.bytes().clone();
    assert!(holds(&log, "change_sim") && holds(&log, "change of SIM failed"));
    let lines = String::from_utf8_lossy(&log);
    for secret in secrets() {
        let line = lines.lines().find(|line| holds(line.as_bytes(), secret));
        assert_eq!(line, None, "{secret}");
    }
}

async fn stored(service: &TestStack, id: &str) -> StoredSwap {
    let id = service.record(id).await.id;
    service.stack.store.swap(&id).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sealed_field_can_be_decrypted_only_in_its_own_place() {
    let service = start(None, &[]).await;
    let first = service.start_swap(&esim("LINE-1", CODE)).await;
    let second = service.start_swap(&esim("LINE-2", CODE)).await;
    let code = service.await_waiting(&first).await;
    assert!(activation_code(&service.await_mail(&second).await) != code);
    let (first, second) = (stored(&service, &first).await, stored(&service, &second).await);
    let store = &service.stack.store;
    for swap in [&first, &second] {
        assert_eq!(store.confirmation_code(swap).await.unwrap().unwrap().expose(), CODE);
    }
    assert!(first.secrets.code.is_some() && first.secrets.code != second.secrets.code);

    // A field of another row, and another field of the same row.
    let mut altered = first.clone();
    for code in [second.secrets.code, first.secrets.matching_id] {
        altered.secrets.code = code;
        let opened = store.confirmation_code(&altered).await;
        assert!(matches!(opened, Err(StoreError::Sealing)));
    }
    altered.secrets.matching_id = second.secrets.matching_id;
    let opened = store.matching_id(&altered).await;
    assert!(matches!(opened, Err(StoreError::Sealing)));

    // The same PINs and PUKs on six SIMs: no two encrypted fields are equal.
    let mut fields = Vec::new();
    for n in 0..6 {
        let row = row(&service, &format!("S#893199900000000100{n}"), "sim");
        for name in ["pin1", "pin2", "puk1", "puk2", "supplierCode"] {
            let Some(AttributeValue::B(sealed)) = row.get(name) else {
                panic!("{name} is not encrypted");
            };
            fields.push(sealed.clone());
        }
    }
    let count = fields.len();
    fields.sort();
    fields.dedup();
    assert_eq!((count, fields.len()), (30, 30));
}

fn row(service: &TestStack, pk: &str, sk: &str) -> Item {
    let key = [("pk", pk), ("sk", sk)].map(|(n, v)| (n.to_owned(), AttributeValue::S(v.to_owned())));
    let found = service.stack.database.get_item(GetItemRequest {
        table_name: service.stack.endpoints.table.clone(),
        key: HashMap::from(key),
        ..GetItemRequest::default()
    });
    found.unwrap().item.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_shown_codes_leaves_a_line_in_the_log_and_no_line_names_a_person() {
    // Some issuers put an e-mail address into the subject of a token.
    const SUBJECT: &str = "subject@issuer.example";
    const ACCOUNT: &str = "aaaaaaaaaaaaaaaaaaaa0001";
    let service = start(None, &[]).await;
    add_line(&service, ACCOUNT, "+31612349911", "8931999000000000011").await;
    let now = Timestamp::now();
    let issue = |customer| {
        let tokens = &service.stack.tokens;
        tokens.issue("OWNER", Some(customer), None, SUBJECT, 3600, now)
    };
    let token = issue("C-900");
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    let change = async |sim: &str| {
        let path = format!("/mvno/{ACCOUNT}/changesim/{sim}");
        service.send("POST", &path, &headers, "").await
    };
    let mut shown = Vec::new();
    for sim in ["8931999000000000011", "eSim", "eSim"] {
        let response = change(sim).await;
        assert_eq!(response.status, 200, "{response:?}");
        shown.push(response.json()["mvnoSim"]["simNumber"].as_str().unwrap().to_owned());
    }
    let page = service.query(&token, &format!("subscriptionId={ACCOUNT}")).await;
    let id = page.json()["results"][0]["id"].as_str().unwrap().to_owned();
    service.await_waiting(&id).await;
    service.manage(&token, "ResendEsim", &id, "").await;
    service.manage(&token, "CancelActivation", &id, "").await;
    service.await_status(&id, "ERROR").await;

    let log = LOG.bytes().clone();
    assert!(!holds(&log, SUBJECT));
    let caller = store::caller_digest(&domain::Caller {
        subject: SUBJECT.to_owned(),
        scope: domain::Scope::Owner {
            customer: "C-900".to_owned(),
        },
    });
    let lines = String::from_utf8(log).unwrap();
    let of_codes: Vec<Value> = lines
        .lines()
        .filter(|line| line.contains("codes of a SIM are shown") && line.contains(ACCOUNT))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let fields: Vec<_> = of_codes.iter().map(|line| &line["fields"]).collect();
    assert_eq!(fields.len(), 3, "{fields:?}");
    for (line, iccid) in fields.into_iter().zip(&shown) {
        assert_eq!(line["iccid"], **iccid);
        assert_eq!((&line["caller"], &line["role"]), (&json!(caller), &json!("OWNER")));
    }
    for wish in ["cancel accepted", "resend accepted"] {
        let line = lines.lines().find(|line| line.contains(wish) && line.contains(&caller));
        assert!(line.is_some(), "{wish}");
    }
}
