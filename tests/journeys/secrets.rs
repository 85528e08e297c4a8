//! Where secrets are not: the table's files, logs, stream, dead letters, mails, links and refusals are searched for those of whole swaps.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use domain::{
    EmailAddress, FormFactor, Iccid, Language, Line, LineState, Msisdn, NetworkName, Secret, Sim, SimState,
    SubscriptionId,
};
use jiff::Timestamp;
use local::dynoxide::actions::describe_stream::DescribeStreamRequest;
use local::dynoxide::actions::get_item::GetItemRequest;
use local::dynoxide::actions::get_records::GetRecordsRequest;
use local::dynoxide::actions::get_shard_iterator::GetShardIteratorRequest;
use local::dynoxide::actions::list_streams::ListStreamsRequest;
use local::dynoxide::actions::update_item::UpdateItemRequest;
use local::dynoxide::types::{AttributeValue, Item};
use local::import::{Kind, Report, import};
use local::show;
use local::stack::Options;
use mail_parser::MessageParser;
use memchr::memmem;
use serde_json::{Value, json};
use store::{StoreError, StoredSwap};
use tests::{FaultyProxy, ProxyFault, TestResponse, TestStack, activation_code};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The confirmation code, of characters that no encoding of a text changes.
const CODE: &str = "ZQ7KW9VXT3";
const OTHER_CODE: &str = "YR8LX2WUS4";
const PINS_AND_PUKS: [&str; 4] = ["60482917", "71593826", "82604735", "93715648"];
const SUPPLIER_CODE: &str = "LPA:1$SUPPLIER.EXAMPLE$KP5NQ8RTVX";
const EMAIL: &str = "findable@example.com";

/// All that our crates log in this process, at every level.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

static LOG: LazyLock<Log> = LazyLock::new(|| {
    let log = Log::default();
    let ours = [
        "domain",
        "store",
        "network",
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
        "peers",
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

/// Whether the bytes hold a text: as it is, in base64 from any place on, or in hex of either case.
fn holds(bytes: &[u8], text: &str) -> bool {
    let mut forms = vec![text.to_owned()];
    for before in 0..3 {
        let encoded = STANDARD_NO_PAD.encode([&b"xx"[..before], text.as_bytes()].concat());
        // What its neighbours have no part in.
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

/// A network of the test's own, so that only its SIMs are taken.
fn network() -> NetworkName {
    NetworkName::parse("CANARY").unwrap()
}

fn sim(iccid: &str, form_factor: FormFactor) -> Sim {
    let [pin1, pin2, puk1, puk2] = PINS_AND_PUKS.map(|secret| Some(Secret::new(secret)));
    Sim {
        iccid: Iccid::parse(iccid).unwrap(),
        imsi: None,
        network: network(),
        reseller: None,
        form_factor,
        auto_assign: false,
        state: SimState::Free,
        free_from: Timestamp::UNIX_EPOCH,
        holder: None,
        pin1,
        pin2,
        puk1,
        puk2,
        supplier_code: Some(Secret::new(SUPPLIER_CODE)),
        tag: None,
        codes_shown: false,
    }
}

async fn add_line(world: &TestStack, id: &str, phone: &str, iccid: &str) {
    let line = Line {
        id: SubscriptionId::parse(id).unwrap(),
        phone: Msisdn::parse(phone).unwrap(),
        customer: "C-900".to_owned(),
        reseller: None,
        network: network(),
        current_sim: Iccid::parse(iccid).unwrap(),
        email: Some(EmailAddress::parse(EMAIL).unwrap()),
        language: Language::En,
        state: LineState::Active,
        porting: false,
        locked: false,
        open_swap: None,
        kept_card: None,
        kept_esim: None,
    };
    let store = &world.stack.store;
    store.add_line(&line, sim(iccid, FormFactor::Nano)).await.unwrap();
}

/// A world with two lines, some eSIMs and a card of the network of these tests.
async fn world(data_dir: Option<PathBuf>, settings: &[(&str, &str)]) -> TestStack {
    LazyLock::force(&LOG);
    let settings = settings.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
    let world = TestStack::start(Options {
        data_dir,
        settings: settings.collect(),
        ..TestStack::options()
    })
    .await;
    add_line(&world, "LINE-1", "+31612349901", "8931999000000000001").await;
    add_line(&world, "LINE-2", "+31612349902", "8931999000000000002").await;
    for n in 0..6 {
        let esim = sim(&format!("893199900000000100{n}"), FormFactor::Esim);
        world.stack.store.add_sim(&esim).await.unwrap();
    }
    let card = sim("8931999000000002000", FormFactor::Nano);
    world.stack.store.add_sim(&card).await.unwrap();
    world
}

fn esim(line: &str, code: &str) -> Value {
    json!({"subscriptionId": line, "eSim": true, "email": EMAIL, "confirmationCode": code})
}

/// A refusal of this status, for the search.
fn refused(answer: TestResponse, status: u16) -> Vec<u8> {
    assert_eq!(answer.status, status, "{answer:?}");
    format!("{answer:?}").into_bytes()
}

/// All that can be asked amiss with a secret in it, while a swap is open on LINE-1 under the key `k`.
async fn refusals(world: &TestStack) -> Vec<Vec<u8>> {
    let admin = world.admin();
    let keyed = [("idempotency-key", "k")];
    let long = format!("{CODE}{CODE}");
    let mut found = vec![
        refused(world.submit(&admin, &esim("LINE-1", OTHER_CODE)).await, 409),
        refused(
            world.submit_with(&admin, &keyed, &esim("LINE-1", OTHER_CODE)).await,
            422,
        ),
        refused(world.submit(&admin, &esim("LINE-1", &long)).await, 400),
        refused(world.submit(&admin, &esim("LINE-1", &format!("{CODE} "))).await, 400),
        refused(world.submit(&admin, &esim("no line", CODE)).await, 400),
        refused(world.submit(&admin, &esim("nosuch", CODE)).await, 404),
        refused(world.submit(&world.owner("C-1"), &esim("LINE-1", CODE)).await, 404),
        refused(world.submit("nobody", &esim("LINE-1", CODE)).await, 401),
        refused(world.query(&admin, &format!("confirmationCode={CODE}")).await, 400),
        refused(world.query(&admin, &format!("take={CODE}")).await, 400),
    ];
    let mut not_text = esim("LINE-1", CODE);
    not_text["confirmationCode"] = json!([CODE]);
    found.push(refused(world.submit(&admin, &not_text).await, 400));
    let bearer = format!("Bearer {admin}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let broken = format!("{{\"confirmationCode\":\"{CODE}\"");
    let submit = "/api/SimSwapSubscription";
    found.push(refused(world.send("POST", submit, &headers, broken.clone()).await, 400));
    let large = format!("{broken}{}", " ".repeat(11_000));
    found.push(refused(world.send("POST", submit, &headers, large).await, 413));
    let plain = [("authorization", bearer.as_str()), ("content-type", "text/plain")];
    found.push(refused(world.send("POST", submit, &plain, broken.clone()).await, 415));
    let callback = "/gsma/rsp2/es2plus/handleDownloadProgressInfo";
    found.push(refused(world.send("POST", callback, &[], broken).await, 400));
    found
}

/// Every record of the table's stream, as the functions get them.
fn stream(world: &TestStack) -> Vec<Value> {
    let database = &world.stack.database;
    let request = ListStreamsRequest {
        table_name: Some(world.stack.endpoints.table.clone()),
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

/// All files below a directory, with what they hold.
fn files(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push((path.clone(), std::fs::read(&path).unwrap()));
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
    let world = world(Some(directory.path().to_owned()), &settings).await;
    smdp.connect(&world.stack.endpoints.smdp);
    network.connect(&world.stack.endpoints.network);
    // Peers that say more than they should.
    let html = format!("<html>{CODE} is the code of {}</html>", PINS_AND_PUKS[0]);
    let failed = |subject: &str, reason: &str| {
        let status = json!({
            "status": "Failed",
            "statusCodeData": {"subjectCode": subject, "reasonCode": reason, "subjectIdentifier": CODE, "message": CODE},
        });
        json!({"header": {"functionExecutionStatus": status}}).to_string()
    };
    let (no, unclear) = (failed("8.2.1", "3.9"), failed(CODE, CODE));
    let admin = world.admin();
    let mut matching_ids = Vec::new();
    let mut mails = Vec::new();

    // One is done, after a wrong code; the peers stumble on the way.
    smdp.plan("confirmOrder", ProxyFault::Answer(500, html.clone()));
    smdp.plan("confirmOrder", ProxyFault::Answer(200, unclear));
    network.plan("POST", ProxyFault::Answer(503, html.clone()));
    let asked = world
        .submit_with(&admin, &[("idempotency-key", "k")], &esim("LINE-1", CODE))
        .await;
    assert_eq!(asked.status, 200);
    let done = asked.json()["id"].as_str().unwrap().to_owned();
    let code = world.await_waiting(&done).await;
    let refusals = refusals(&world).await;
    assert_eq!(world.install(&code, OTHER_CODE).await.status, 403);
    assert_eq!(world.install(&code, CODE).await.status, 200);
    world.await_status(&done, "DONE").await;
    matching_ids.push(code);
    mails.extend(world.mails(&done));

    // One fails on the phone, one at the SM-DP+, one at the network.
    let failed = world.begin(&esim("LINE-2", CODE)).await;
    let code = world.await_waiting(&failed).await;
    for _ in 0..5 {
        world.install(&code, OTHER_CODE).await;
    }
    world.await_status(&failed, "ERROR").await;
    matching_ids.push(code);
    mails.extend(world.mails(&failed));
    smdp.plan("confirmOrder", ProxyFault::Answer(200, no));
    let refused = world.begin(&esim("LINE-2", CODE)).await;
    world.await_status(&refused, "ERROR").await;
    network.plan("POST", ProxyFault::Answer(400, html));
    let rejected = world.begin(&esim("LINE-2", CODE)).await;
    world.await_status(&rejected, "ERROR").await;

    // One to a card, whose PINs and PUKs are in stock.
    let card = json!({"subscriptionId": "LINE-2", "newSimCardNumber": "8931999000000002000"});
    let id = world.begin(&card).await;
    world.await_status(&id, "DONE").await;
    assert!(smdp.is_spent() && network.is_spent());

    // One whose row nobody can read any more: its record is given up.
    let key = |name: &str, value: &str| (name.to_owned(), AttributeValue::S(value.to_owned()));
    let broken = UpdateItemRequest {
        table_name: world.stack.endpoints.table.clone(),
        key: HashMap::from([key("pk", &format!("A#{done}")), key("sk", "activation")]),
        update_expression: Some("SET phase = :nonsense".to_owned()),
        expression_attribute_values: Some(HashMap::from([key(":nonsense", "nonsense")])),
        ..UpdateItemRequest::default()
    };
    world.stack.database.update_item(broken).unwrap();
    while world.stack.dead_letters.list().is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    for matching_id in &mut matching_ids {
        *matching_id = matching_id.split('$').nth(2).unwrap().to_owned();
    }
    let mut never = vec![CODE, OTHER_CODE, SUPPLIER_CODE];
    never.extend(PINS_AND_PUKS);
    let mut secrets = never.clone();
    secrets.extend(matching_ids.iter().map(String::as_str));

    assert!(refusals.iter().any(|refusal| holds(refusal, "SwapInProgress")));
    for refusal in &refusals {
        for secret in &secrets {
            assert!(
                !holds(refusal, secret),
                "{secret} in {}",
                String::from_utf8_lossy(refusal)
            );
        }
    }

    assert_eq!(mails.len(), 2);
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

    let dead = json!(world.stack.dead_letters.list()).to_string();
    assert!(dead.contains(&done), "{dead}");
    for secret in &secrets {
        assert!(!holds(dead.as_bytes(), secret), "{secret} in {dead}");
    }

    let records = stream(&world);
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

    world.stack.stop().await;
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
        // What is no secret is found: the search works.
        if name.starts_with("dynamodb.sqlite") && holds(&bytes, EMAIL) {
            searched += 1;
        }
    }
    assert!(searched > 0);

    let log = LOG.0.lock().unwrap().clone();
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
    assert!(!holds(&log, EMAIL), "nor is an address in the log");
    every_line_has_its_ids(&log);
}

/// Of what the functions log, so that an operator finds all about an invocation or a swap.
fn every_line_has_its_ids(log: &[u8]) {
    let mut seen = 0;
    for line in String::from_utf8_lossy(log).lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let of_swaps = match line["target"].as_str().unwrap().split("::").next().unwrap() {
            "fulfil_swap" | "deliver_esim" => true,
            "submit_swap" | "change_sim" | "query_activation" | "manage_swap" | "network_events" | "mail_events"
            | "sweep_swaps" => false,
            _ => continue,
        };
        let about = |id: &str| line["span"][id].as_str().is_some_and(|id| !id.is_empty());
        assert!(about("request") && (!of_swaps || about("activation")), "{line}");
        seen += 1;
    }
    assert!(seen > 0);
}

/// A SIM of a stock file: number, form, its PUKs and PINs in the file's order.
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
/// The SIM of the first account, from the file too.
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

async fn load(world: &TestStack, kind: Kind, text: String) -> Vec<Report> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file.csv");
    std::fs::write(&path, text).unwrap();
    let mut told = Vec::new();
    let mut report = |report| told.push(report);
    import(kind, &path, false, &world.stack.store, &mut report)
        .await
        .unwrap();
    told
}

/// The answer that shows the PUKs and PINs of this SIM and no other's.
fn shows(answer: &TestResponse, sim: Stocked) {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.headers["cache-control"], "no-store");
    let shown = &answer.json()["mvnoSim"];
    assert_eq!(shown["simNumber"], sim.0);
    let names = ["puk1", "puk2", "pin1", "pin2"];
    assert_eq!(names.map(|name| shown[name].as_str().unwrap()), sim.2);
    for other in STOCK.iter().filter(|other| other.0 != sim.0) {
        assert!(!other.2.iter().any(|secret| answer.body.contains(secret)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pins_and_puks_are_in_change_sim_s_answers_alone() {
    LazyLock::force(&LOG);
    let directory = tempfile::tempdir().unwrap();
    let world = TestStack::start(Options {
        data_dir: Some(directory.path().to_owned()),
        ..TestStack::options()
    })
    .await;
    // What stands elsewhere and may not show them.
    let mut others: Vec<String> = Vec::new();

    // They come in a file; of one with a fault no line tells what it holds.
    let mut sims = "SIM_CARD_NUMBER;PUK1;PUK2;PIN1;PIN2;FORM_FACTOR;NETWORK;ACTIVATION_CODE;TAG;AUTO_ASSIGN".to_owned();
    for (iccid, form, [puk1, puk2, pin1, pin2]) in STOCK {
        let auto_assign = iccid == ASSIGNED.0;
        sims += &format!("\n{iccid};{puk1};{puk2};{pin1};{pin2};{form};CANARY;;;{auto_assign}");
    }
    let faulty = sims.replace("NANO", "nano");
    others.push(format!("{:?}", load(&world, Kind::Sims, faulty).await));
    assert!(others[0].contains("Faulty"));
    others.push(format!("{:?}", load(&world, Kind::Sims, sims).await));
    let mut lines = "ID;PHONE_NUMBER;CUSTOMER;RESELLER;NETWORK;CURRENT_SIM;EMAIL;LANGUAGE;STATE;PORTING".to_owned();
    for (number, account) in ACCOUNTS.into_iter().enumerate() {
        let sim = [CURRENT.0, "8931999000000003005", "8931999000000003006"][number];
        lines += &format!("\n{account};+3161234980{number};C-900;;CANARY;{sim};{EMAIL};nl;ACTIVE;false");
    }
    let told = load(&world, Kind::Subscriptions, lines).await;
    others.push(format!("{told:?}"));

    let [first, second, third] = ACCOUNTS;
    let (owner, stranger) = (world.owner("C-900"), world.owner("C-100"));
    let change = async |method, token: &str, account: &str, sim: &str, header: (&str, &str)| {
        let bearer = format!("Bearer {token}");
        let path = format!("/mvno/{account}/changesim/{sim}");
        let headers = [("authorization", bearer.as_str()), header];
        world.send(method, &path, &headers, "").await
    };
    let plain = ("accept", "*/*");
    let key = ("idempotency-key", "k");
    let swap_of = async |account: &str| {
        let of_account = format!("subscriptionId={account}");
        let page = world.query(&owner, &of_account).await.json();
        let id = page["results"][0]["id"].clone();
        id.as_str().unwrap().to_owned()
    };

    // The SIM that an account has, and each way to a new one, asked once, again, by the other method, and by key.
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
            let mail = world.await_mail(&swap).await;
            others.push(String::from_utf8(mail).unwrap());
        } else {
            world.await_status(&swap, "DONE").await;
        }
        for method in ["GET", "POST"] {
            shows(&change(method, &owner, account, sim, header).await, stocked);
        }
    }

    // All other answers about the same SIMs and accounts.
    for (expected, answer) in [
        (403, change("GET", &owner, second, CARD.0, plain).await),
        (
            403,
            change("GET", &owner, first, PROFILE.0, ("purpose", "prefetch")).await,
        ),
        (
            403,
            change("GET", &world.token("OWNER", None, None), first, CARD.0, plain).await,
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
        (404, world.submit(&owner, &tests::card(first, PROFILE.0)).await),
        (409, world.submit(&owner, &tests::card(second, CARD.0)).await),
        (200, world.query(&owner, "").await),
        (200, world.query(&owner, &format!("id={}", swap_of(first).await)).await),
        (
            200,
            world
                .query(&world.admin(), &format!("id={}", swap_of(second).await))
                .await,
        ),
        // Back to the SIM that the account had, in the dialect that shows none.
        (404, world.submit(&owner, &tests::card(first, CURRENT.0)).await),
    ] {
        assert_eq!(answer.status, expected, "{answer:?}");
        others.push(format!("{answer:?}"));
    }

    // A sealed field that was put elsewhere does not open.
    let sealed = row(&world, &format!("S#{}", CURRENT.0), "sim")["puk1"].clone();
    let text = |text: String| AttributeValue::S(text);
    let moved = UpdateItemRequest {
        table_name: world.stack.endpoints.table.clone(),
        key: HashMap::from([
            ("pk".to_owned(), text(format!("S#{}", CARD.0))),
            ("sk".to_owned(), text("sim".to_owned())),
        ]),
        update_expression: Some("SET puk2 = :sealed".to_owned()),
        expression_attribute_values: Some(HashMap::from([(":sealed".to_owned(), sealed)])),
        ..UpdateItemRequest::default()
    };
    world.stack.database.update_item(moved).unwrap();
    let broken = change("GET", &owner, first, CARD.0, plain).await;
    assert_eq!(broken.json()["error"]["message"], "internal_error");
    others.push(format!("{broken:?}"));

    // What an operator looks at.
    let store = &world.stack.store;
    for (iccid, ..) in STOCK {
        others.push(show::sim(store, iccid).await.unwrap());
        others.push(format!("{:?}", world.sim(iccid).await));
    }
    let sim = Iccid::parse(PROFILE.0).unwrap();
    let opened = store.sim_with_secrets(&sim).await.unwrap().unwrap();
    others.push(format!("{opened:?}"));
    for account in ACCOUNTS {
        others.push(show::line(store, account).await.unwrap());
        let swap = swap_of(account).await;
        others.push(show::swap(store, &swap).await.unwrap());
    }
    others.extend(stream(&world).iter().map(Value::to_string));
    others.extend(world.table());

    world.stack.stop().await;
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
    let log = LOG.0.lock().unwrap().clone();
    assert!(holds(&log, "change_sim") && holds(&log, "change of SIM failed"));
    let lines = String::from_utf8_lossy(&log);
    for secret in secrets() {
        let line = lines.lines().find(|line| holds(line.as_bytes(), secret));
        assert_eq!(line, None, "{secret}");
    }
}

async fn stored(world: &TestStack, id: &str) -> StoredSwap {
    let id = world.record(id).await.id;
    world.stack.store.swap(&id).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sealed_field_opens_in_its_own_place_alone() {
    let world = world(None, &[]).await;
    let first = world.begin(&esim("LINE-1", CODE)).await;
    let second = world.begin(&esim("LINE-2", CODE)).await;
    let code = world.await_waiting(&first).await;
    assert!(activation_code(&world.await_mail(&second).await) != code);
    let (first, second) = (stored(&world, &first).await, stored(&world, &second).await);
    let store = &world.stack.store;
    for swap in [&first, &second] {
        assert_eq!(store.confirmation_code(swap).await.unwrap().unwrap().expose(), CODE);
    }
    assert!(first.secrets.code.is_some() && first.secrets.code != second.secrets.code);

    // Another row's, and another field's of the same row.
    let mut moved = first.clone();
    for code in [second.secrets.code, first.secrets.matching_id] {
        moved.secrets.code = code;
        let opened = store.confirmation_code(&moved).await;
        assert!(matches!(opened, Err(StoreError::Sealing)));
    }
    moved.secrets.matching_id = second.secrets.matching_id;
    let opened = store.matching_id(&moved).await;
    assert!(matches!(opened, Err(StoreError::Sealing)));

    // The same PINs and PUKs on six SIMs: no two fields are alike.
    let mut fields = Vec::new();
    for n in 0..6 {
        let row = row(&world, &format!("S#893199900000000100{n}"), "sim");
        for name in ["pin1", "pin2", "puk1", "puk2", "supplierCode"] {
            let Some(AttributeValue::B(sealed)) = row.get(name) else {
                panic!("{name} is not sealed");
            };
            fields.push(sealed.clone());
        }
    }
    let count = fields.len();
    fields.sort();
    fields.dedup();
    assert_eq!((count, fields.len()), (30, 30));
}

fn row(world: &TestStack, pk: &str, sk: &str) -> Item {
    let key = [("pk", pk), ("sk", sk)].map(|(n, v)| (n.to_owned(), AttributeValue::S(v.to_owned())));
    let found = world.stack.database.get_item(GetItemRequest {
        table_name: world.stack.endpoints.table.clone(),
        key: HashMap::from(key),
        ..GetItemRequest::default()
    });
    found.unwrap().item.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_shown_codes_leaves_a_line_in_the_log_and_no_line_names_a_person() {
    // At some issuers the subject of a token is an address.
    const SUBJECT: &str = "subject@issuer.example";
    const ACCOUNT: &str = "aaaaaaaaaaaaaaaaaaaa0001";
    let world = world(None, &[]).await;
    add_line(&world, ACCOUNT, "+31612349911", "8931999000000000011").await;
    let now = Timestamp::now();
    let issue = |customer| {
        let tokens = &world.stack.tokens;
        tokens.issue("OWNER", Some(customer), None, SUBJECT, 3600, now)
    };
    let token = issue("C-900");
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    let change = async |sim: &str| {
        let path = format!("/mvno/{ACCOUNT}/changesim/{sim}");
        world.send("POST", &path, &headers, "").await
    };
    let mut shown = Vec::new();
    for sim in ["8931999000000000011", "eSim", "eSim"] {
        let answer = change(sim).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        shown.push(answer.json()["mvnoSim"]["simNumber"].as_str().unwrap().to_owned());
    }
    let page = world.query(&token, &format!("subscriptionId={ACCOUNT}")).await;
    let id = page.json()["results"][0]["id"].as_str().unwrap().to_owned();
    world.await_waiting(&id).await;
    world.manage(&token, "ResendEsim", &id, "").await;
    world.manage(&token, "CancelActivation", &id, "").await;
    world.await_status(&id, "ERROR").await;

    let log = LOG.0.lock().unwrap().clone();
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
    for wish in ["a cancel is taken", "a mail is to be sent again"] {
        let line = lines.lines().find(|line| line.contains(wish) && line.contains(&caller));
        assert!(line.is_some(), "{wish}");
    }
}
