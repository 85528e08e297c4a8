//! A table that an earlier release has written: its swaps go on, while it is migrated and afterwards. `tests/releases` has
//! a table of each release; its README says how it was made.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws::Service;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use domain::{ActivationId, Iccid, Msisdn, SubscriptionId};
use edge::ClockAndRng;
use jiff::Timestamp;
use local::dynoxide::{AttributeValue, Item};
use operator::commands::migrate;
use rusqlite::Connection;
use serde::Deserialize;
use serde_json::{Value, json};
use simulators::{MobileNetwork, Smdp};
use store::Store;
use tests::{FREE_CARD, TestStack, activation_code, card, esim, line};

use crate::operate::{client, store_with};

/// What `swaps.json` of a release says.
#[derive(Deserialize)]
struct Release {
    /// When the table was written, in milliseconds since 1970.
    at: i64,
    /// The ids of the swaps, by what they wait for.
    swaps: BTreeMap<String, String>,
    /// The key of the local KMS that wrapped the table's data key.
    #[serde(rename = "kmsKey")]
    kms_key: String,
}

fn file(release: &str, name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("releases").join(release);
    fs::read_to_string(path.join(name)).unwrap()
}

/// The rows of a release's table.
fn rows(release: &str) -> impl Iterator<Item = Item> {
    let file = file(release, "rows.jsonl");
    let rows: Vec<_> = file.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    rows.into_iter()
}

impl Release {
    fn read(name: &str) -> Self {
        serde_json::from_str(&file(name, "swaps.json")).unwrap()
    }
}

/// Writes a row as it is.
fn put(service: &TestStack, row: &Item) {
    let request = json!({"TableName": service.stack.endpoints.table, "Item": row});
    let request = serde_json::from_value(request).unwrap();
    service.stack.database.put_item(request).unwrap();
}

/// Moves the times of a row of the table as if the table had been written `by` milliseconds later.
fn moved(mut row: Item, by: i64) -> Item {
    const MILLIS: [&str; 8] = [
        "createdAt",
        "modifiedAt",
        "activatedAt",
        "endedAt",
        "until",
        "wakeAt",
        "since",
        "simSince",
    ];
    for (name, value) in &mut row {
        match value {
            AttributeValue::N(number) if MILLIS.contains(&name.as_str()) => {
                *number = (number.parse::<i64>().unwrap() + by).to_string();
            }
            AttributeValue::N(number) if name == "expires" => {
                *number = (number.parse::<i64>().unwrap() + by / 1000).to_string();
            }
            AttributeValue::S(text) if name == "dueAt" => {
                *text = format!("{:014}", text.parse::<i64>().unwrap() + by);
            }
            AttributeValue::L(entries) if name == "timeline" => {
                for entry in entries {
                    if let AttributeValue::S(text) = entry {
                        let (at, what) = text.split_once(' ').unwrap();
                        *text = format!("{} {what}", at.parse::<i64>().unwrap() + by);
                    }
                }
            }
            _ => {}
        }
    }
    row
}

/// A stack without `SEALING_KEY`, as functions are deployed before a migration, on the table and with the peers of a
/// release.
struct Upgraded {
    service: TestStack,
    release: Release,
    data_dir: tempfile::TempDir,
}

impl Upgraded {
    async fn start(name: &str) -> Self {
        let release = Release::read(name);
        let data_dir = tempfile::tempdir().unwrap();
        fs::write(
            data_dir.path().join("kms.key"),
            BASE64_STANDARD.decode(&release.kms_key).unwrap(),
        )
        .unwrap();
        write_peers(data_dir.path(), &file(name, "peers.sql"));
        let mut options = TestStack::options_with(&[("SEALING_KEY", "")]);
        options.data_dir = Some(data_dir.path().to_owned());
        let service = TestStack::start(options).await;
        let upgraded = Self {
            service,
            release,
            data_dir,
        };
        upgraded.replace_table(name);
        upgraded
    }

    /// Gives the table the indexes and the rows of the release.
    fn replace_table(&self, name: &str) {
        let (database, table) = (&self.service.stack.database, &self.service.stack.endpoints.table);
        let definition: Value = serde_json::from_str(&file(name, "table.json")).unwrap();
        let update = |update: Value| {
            let request = json!({
                "TableName": table,
                "AttributeDefinitions": definition["AttributeDefinitions"],
                "GlobalSecondaryIndexUpdates": [update],
            });
            database.update_table(serde_json::from_value(request).unwrap()).unwrap();
        };
        for index in self.indexes() {
            update(json!({"Delete": {"IndexName": index}}));
        }
        for index in definition["GlobalSecondaryIndexes"].as_array().unwrap() {
            update(json!({"Create": index}));
        }
        for row in self.service.rows() {
            let key = Item::from(["pk", "sk"].map(|name| (name.to_owned(), row[name].clone())));
            let request = json!({"TableName": table, "Key": key});
            database.delete_item(serde_json::from_value(request).unwrap()).unwrap();
        }
        let by = Timestamp::now().as_millisecond() - self.release.at;
        for row in rows(name) {
            put(&self.service, &moved(row, by));
        }
    }

    fn indexes(&self) -> Vec<String> {
        indexes(&definition(&self.service)).into_keys().collect()
    }

    /// A token of the caller who requested the swaps.
    fn admin(&self) -> String {
        let tokens = &self.service.stack.tokens;
        tokens.issue("ADMIN", None, None, "local", 3600, Timestamp::now())
    }

    /// The table as the command `migrate` opens it.
    fn store(&self) -> Store {
        let kms = client(Service::Kms, &self.service.stack.endpoints.kms);
        store_with(&self.service, kms)
    }

    async fn status(&self, story: &str) -> String {
        let swap = self.service.activation(self.swap(story)).await;
        swap["status"].as_str().unwrap_or_default().to_owned()
    }

    /// Asserts that swaps, mails and lines have what the first release needs to read them.
    fn is_readable_by_the_first_release(&self) {
        let old: Vec<Item> = rows("18da83a").collect();
        for row in self.service.rows() {
            // What all rows of its kind had.
            let (kind, _) = form(&row);
            let alike: Vec<_> = old.iter().filter(|old| form(old).0 == kind).collect();
            for name in alike.iter().flat_map(|old| old.keys()) {
                let is_needed = alike.iter().all(|old| old.contains_key(name));
                assert!(!is_needed || row.contains_key(name), "{name} in {row:?}");
            }
            if let Some(AttributeValue::L(timeline)) = row.get("timeline") {
                for entry in timeline {
                    let AttributeValue::S(text) = entry else {
                        panic!("{entry:?}")
                    };
                    let (at, _) = text.split_once(' ').unwrap();
                    assert!(at.parse::<i64>().unwrap() > 1_700_000_000_000, "{text}");
                }
            }
            if kind == "activation" || kind == "delivery" {
                assert!(!row.contains_key("v"), "{row:?}");
            }
        }
    }

    fn swap(&self, story: &str) -> &str {
        &self.release.swaps[story]
    }

    /// The activation code of a swap's e-mail, or of the SM-DP+ if an earlier release has sent the e-mail.
    async fn activation_code(&self, story: &str) -> String {
        if SENT_BEFORE.contains(&story) {
            let id = domain::ActivationId::parse(self.swap(story)).unwrap();
            let swap = self.service.stack.store.swap(&id).await.unwrap().unwrap();
            let iccid = swap.activation.new_sim.as_str().to_owned();
            let database = Connection::open(self.data_dir.path().join("peers/smdp.sqlite")).unwrap();
            let matching_id: String = database
                .query_row("SELECT matching_id FROM profiles WHERE iccid = ?1", [iccid], |row| {
                    row.get(0)
                })
                .unwrap();
            return format!("LPA:1$smdp.example.test${matching_id}$$1");
        }
        activation_code(&self.service.await_mail(self.swap(story)).await)
    }
}

/// Swaps that had ended.
const ENDED: [(&str, &str); 3] = [("done", "DONE"), ("doneCard", "DONE"), ("cancelled", "ERROR")];
/// Swaps whose e-mails the earlier release has sent.
const SENT_BEFORE: [&str; 3] = ["ordered", "orderedByAccount", "resent"];
/// Swaps that wait for a phone, or will.
const ESIMS: [&str; 8] = [
    "ordered",
    "orderedByAccount",
    "resent",
    "mailPending",
    "ordering",
    "orderingSmdp",
    "claimed",
    "accepted",
];

/// The confirmation code of a swap. The account dialect has none.
fn confirmation_code(story: &str) -> &'static str {
    match story {
        "orderedByAccount" => "",
        _ => "8E9!#",
    }
}

/// The id of the line with this number.
fn numbered_line(number: usize) -> String {
    format!("65a1b2c3d4e5f607182940{number:02}")
}

/// A request for an eSIM swap of the line with this number, as those of the release were.
fn numbered_esim(number: usize) -> Value {
    json!({
        "subscriptionId": numbered_line(number),
        "eSim": true,
        "email": format!("line{number}@example.com"),
        "confirmationCode": "8E9!#",
        "referenceNumber": format!("ref{number}"),
    })
}

fn write_peers(data_dir: &Path, sql: &str) {
    let peers = data_dir.join("peers");
    fs::create_dir_all(&peers).unwrap();
    let path = |name: &str| -> PathBuf { peers.join(format!("{name}.sqlite")) };
    let address = domain::SmDpAddress::parse("smdp.example.test").unwrap();
    Smdp::open(Some(&path("smdp")), address, "", ClockAndRng::real()).unwrap();
    MobileNetwork::open(Some(&path("network")), Duration::ZERO, ClockAndRng::real()).unwrap();
    let (smdp, network) = sql.split_once("-- network\n").unwrap();
    for (name, rows) in [("smdp", smdp), ("network", network)] {
        Connection::open(path(name)).unwrap().execute_batch(rows).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swaps_of_the_first_release_end_while_its_table_is_migrated() {
    let upgraded = Upgraded::start("18da83a").await;
    let (service, store) = (&upgraded.service, upgraded.store());
    let admin = upgraded.admin();
    // Before the migration, requests about known swaps work, repeats are recognised, and new swaps begin.
    for (story, status) in ENDED.into_iter().chain([("ordered", "BUSY"), ("started", "BUSY")]) {
        assert_eq!(upgraded.status(story).await, status, "{story}");
    }
    for (number, key, story) in [(1, "k1", "done"), (4, "k4", "ordered"), (17, "k17", "accepted")] {
        let repeated = service
            .submit_with(&admin, &[("idempotency-key", key)], &numbered_esim(number))
            .await;
        assert_eq!(repeated.json()["id"], upgraded.swap(story), "{repeated:?}");
        if story != "done" {
            let without_key = service.submit(&admin, &numbered_esim(number)).await;
            assert_eq!(without_key.json()["id"], upgraded.swap(story), "{without_key:?}");
        }
    }
    let card = json!({"subscriptionId": numbered_line(15), "newSimCardNumber": "8931086000000004115"});
    let begun_before = service.start_swap(&card).await;

    // Killed at each of its steps, and repeated. Meanwhile, phones install eSIMs.
    let mut phones = ESIMS.iter();
    let mut is_over = false;
    for step in 1.. {
        is_over = is_over || killed_at_step(&store, false, step).await;
        let next = phones.next();
        if let Some(story) = next {
            let code = upgraded.activation_code(story).await;
            assert_eq!(
                service.install(&code, confirmation_code(story)).await.status,
                200,
                "{story}"
            );
        }
        if is_over && next.is_none() {
            break;
        }
    }
    assert_eq!(upgraded.indexes().len(), 13);
    let begun_between = service.start_swap(&numbered_esim(18)).await;
    for story in ESIMS.iter().chain(&["started", "startedCard", "orderingCard"]) {
        service.await_status(upgraded.swap(story), "DONE").await;
    }
    service.await_status(upgraded.swap("ending"), "ERROR").await;
    let code = service.await_waiting(&begun_between).await;
    assert_eq!(service.install(&code, "8E9!#").await.status, 200);
    for id in [&begun_before, &begun_between] {
        service.await_status(id, "DONE").await;
    }
    upgraded.is_readable_by_the_first_release();

    for step in 1.. {
        if killed_at_step(&store, true, step).await {
            break;
        }
    }
    // The functions have no key, so what they write meanwhile has the earlier form.
    for _ in 0..50 {
        migrate(&store, true).await.unwrap();
        if service.rows().iter().all(|row| row.contains_key("v")) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(upgraded.indexes().iter().all(|name| name.ends_with('1')));
    for row in service.rows() {
        assert_eq!(row.get("v"), Some(&AttributeValue::N("1".into())), "{row:?}");
        assert!(!row.contains_key("type") && !row.contains_key("listed"), "{row:?}");
    }
    // Nothing is lost, nothing is sent twice, and every line has the SIM that the network knows.
    for (story, id) in &upgraded.release.swaps {
        let sent = match story.as_str() {
            "mailPending" | "ordering" | "orderingSmdp" | "claimed" | "accepted" => 1,
            _ => 0,
        };
        assert_eq!(service.mails(id).len(), sent, "{story}");
        let swap = service.activation(id).await;
        assert!(swap["status"] == "DONE" || swap["status"] == "ERROR", "{swap}");
        let line = service.line(swap["subscriptionId"].as_str().unwrap()).await;
        assert_eq!(line.open_swap, None);
        let at_network = service.stack.network.as_ref().unwrap().sim_of(&line.phone).unwrap();
        assert_eq!(at_network.is_some(), swap["status"] == "DONE", "{story}");
        assert!(at_network.is_none_or(|sim| sim == line.current_sim), "{story}");
    }
    let all = upgraded.release.swaps.len() + 2;
    assert_eq!(service.query(&admin, "").await.json()["total"], all);
    let pools = store.pools().await.unwrap();
    let pools: BTreeSet<_> = pools.iter().map(ToString::to_string).collect();
    let shelves = rows("18da83a").filter_map(|row| match row.get("shelf") {
        Some(AttributeValue::S(shelf)) => Some(shelf.clone()),
        _ => None,
    });
    assert_eq!(pools, shelves.collect());
}

/// A migration that was killed, and repeated by the local stack at its start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_local_stack_finishes_a_migration() {
    let upgraded = Upgraded::start("18da83a").await;
    killed_at_step(&upgraded.store(), true, 17).await;
    let Upgraded {
        service,
        release,
        data_dir,
    } = upgraded;
    service.stack.stop().await;
    let mut options = TestStack::options();
    options.data_dir = Some(data_dir.path().to_owned());
    let service = TestStack::start(options).await;
    assert!(!service.stack.store.needs_migration().await.unwrap());
    let listed = service.query(&service.admin(), "").await.json();
    assert_eq!(listed["total"], release.swaps.len(), "{listed}");
}

/// The definition of the table, as `table.json` of a release has it.
fn definition(service: &TestStack) -> Value {
    let request = json!({"TableName": service.stack.endpoints.table});
    let described = service
        .stack
        .database
        .describe_table(serde_json::from_value(request).unwrap());
    let described = serde_json::to_value(described.unwrap()).unwrap();
    let mut indexes = described["Table"]["GlobalSecondaryIndexes"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    indexes.sort_by_key(|index| index["IndexName"].to_string());
    let kept = |index: &Value| {
        let fields = ["IndexName", "KeySchema", "Projection"].map(|name| (name.to_owned(), index[name].clone()));
        Value::from_iter(fields)
    };
    json!({
        "AttributeDefinitions": described["Table"]["AttributeDefinitions"],
        "KeySchema": described["Table"]["KeySchema"],
        "GlobalSecondaryIndexes": indexes.iter().map(kept).collect::<Vec<_>>(),
    })
}

/// The indexes of a definition by their names.
fn indexes(definition: &Value) -> BTreeMap<String, Value> {
    let indexes = definition["GlobalSecondaryIndexes"].as_array().unwrap().iter();
    let named = indexes.map(|index| (index["IndexName"].as_str().unwrap().to_owned(), index.clone()));
    named.collect()
}

/// The kind of a row, and the attributes that it has, by their names, with their types.
fn form(row: &Item) -> (String, BTreeMap<String, String>) {
    let AttributeValue::S(sk) = &row["sk"] else {
        panic!("{row:?}")
    };
    let kind = sk.split('#').next().unwrap().to_owned();
    let types = row.iter().map(|(name, value)| {
        let value = serde_json::to_value(value).unwrap();
        let (kind, _) = value.as_object().unwrap().iter().next().unwrap();
        (name.clone(), kind.clone())
    });
    (kind, types.collect())
}

/// The forms of many rows: for each kind of row, the types of all attributes.
fn forms<'a>(rows: impl IntoIterator<Item = &'a Item>) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut forms: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for (kind, types) in rows.into_iter().map(form) {
        forms.entry(kind).or_default().extend(types);
    }
    forms
}

/// The last release whose table is recorded.
const LAST: &str = "1";

/// Swaps of every kind and end, and a renewal.
async fn written_by_this_release() -> TestStack {
    let service = TestStack::new().await;
    let admin = service.admin();
    let submit = async |body: Value| {
        let key = body["subscriptionId"].as_str().unwrap().to_owned();
        let response = service.submit_with(&admin, &[("idempotency-key", &key)], &body).await;
        assert_eq!(response.status, 200, "{response:?}");
        response.json()["id"].as_str().unwrap().to_owned()
    };
    let done = submit(esim(line::ANNA)).await;
    let code = service.await_waiting(&done).await;
    assert_eq!(service.install(&code, "8E9!#").await.status, 200);
    service.await_status(&done, "DONE").await;
    let with_card = submit(card(line::BRAM, FREE_CARD)).await;
    service.await_status(&with_card, "DONE").await;
    let cancelled = submit(esim(line::DORTE)).await;
    service.await_waiting(&cancelled).await;
    assert_eq!(
        service.manage(&admin, "CancelActivation", &cancelled, "").await.status,
        200
    );
    service.await_status(&cancelled, "ERROR").await;
    let renewed = submit(esim(line::CARLA)).await;
    service.await_waiting(&renewed).await;
    let renewal = r#"{"confirmationCode":"new-1"}"#;
    assert_eq!(service.manage(&admin, "RenewEsim", &renewed, renewal).await.status, 200);
    service.await_mail_number(&renewed, 2).await;
    service.await_waiting(&renewed).await;
    service
}

/// With `RECORD_RELEASE=NAME`, this records the table of this release as that of the release NAME.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn this_release_writes_what_the_last_one_did() {
    let service = written_by_this_release().await;
    let (table, written) = (definition(&service), service.rows());
    if let Ok(name) = std::env::var("RECORD_RELEASE") {
        record(&name, &table, &written);
    }
    // CloudFormation changes one index in an update, and no projection.
    let last: Value = serde_json::from_str(&file(LAST, "table.json")).unwrap();
    let (before, now) = (indexes(&last), indexes(&table));
    for (name, index) in &before {
        let same = now.get(name).is_none_or(|now| now == index);
        assert!(same, "the index {name} is changed: give the new one another number");
    }
    let changes = before.keys().filter(|name| !now.contains_key(*name)).count()
        + now.keys().filter(|name| !before.contains_key(*name)).count();
    assert!(changes <= 1, "more than one index is added or deleted in a release");
    // What the last release needs to read a row is still written, in the same types.
    let last: Vec<Item> = rows(LAST).collect();
    let (before, now) = (forms(&last), forms(&written));
    for (kind, attributes) in before {
        let now = &now[&kind];
        for (name, value_type) in attributes {
            assert_eq!(now.get(&name), Some(&value_type), "{name} of {kind}");
        }
    }
}

fn record(name: &str, table: &Value, rows: &[Item]) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("releases").join(name);
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("table.json"), format!("{table:#}\n")).unwrap();
    let rows = rows
        .iter()
        .map(|row| serde_json::to_string(&row.iter().collect::<BTreeMap<_, _>>()).unwrap());
    let mut rows: Vec<String> = rows.collect();
    rows.sort();
    fs::write(directory.join("rows.jsonl"), rows.join("\n") + "\n").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn this_release_reads_what_the_last_ones_wrote() {
    for release in [LAST, "18da83a"] {
        let service = TestStack::new().await;
        let store = &service.stack.store;
        service.end_stream();
        for row in rows(release) {
            put(&service, &row);
            let AttributeValue::S(pk) = &row["pk"] else {
                panic!("{row:?}")
            };
            let (kind, _) = form(&row);
            let name = pk.split_once('#').unwrap().1;
            let is_read = match kind.as_str() {
                "activation" => store.swap(&ActivationId::parse(name).unwrap()).await.unwrap().is_some(),
                "delivery" => {
                    let AttributeValue::S(sk) = &row["sk"] else {
                        panic!("{row:?}")
                    };
                    let number = sk.strip_prefix("delivery#").unwrap().parse().unwrap();
                    let id = ActivationId::parse(name).unwrap();
                    store.delivery(&id, number).await.unwrap().is_some()
                }
                "line" => store
                    .line(&SubscriptionId::parse(name).unwrap())
                    .await
                    .unwrap()
                    .is_some(),
                "phone" => store.phone(&Msisdn::parse(name).unwrap()).await.unwrap().is_some(),
                "sim" => store.sim(&Iccid::parse(name).unwrap()).await.unwrap().is_some(),
                "brand" => store.brand(name).await.unwrap().is_some(),
                "pool" => !store.pools().await.unwrap().is_empty(),
                "form" => store.check_form().await.is_ok(),
                // The journey above repeats requests, and opens secrets.
                "idempotency" | "key" => true,
                kind => panic!("{kind} is not tested"),
            };
            assert!(is_read, "{row:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_a_later_release_are_refused_in_a_sentence() {
    let service = TestStack::new().await;
    let id = service.start_swap(&esim(line::ANNA)).await;
    service.await_waiting(&id).await;
    for row in service.rows() {
        let form = [("v".to_owned(), AttributeValue::N("2".into()))];
        put(&service, &Item::from_iter(row.into_iter().chain(form)));
    }
    let before = service.table();
    let store = &service.stack.store;
    let expected = "the table has rows of form 2, but this release can read forms only up to 1: use the release that \
                    migrated the table, or a later one";
    let id = ActivationId::parse(&id).unwrap();
    for refused in [
        store.check_form().await.unwrap_err(),
        store.swap(&id).await.unwrap_err(),
        store.swap_with_deliveries(&id).await.unwrap_err(),
        store.delivery(&id, 1).await.unwrap_err(),
        store
            .line(&SubscriptionId::parse(line::ANNA).unwrap())
            .await
            .unwrap_err(),
        store.migrate(&mut |_| {}).await.unwrap_err(),
        store.finish_migration(&mut |_| {}).await.unwrap_err(),
    ] {
        assert_eq!(refused.to_string(), expected);
    }
    // Callers get an error, and nothing is written.
    assert_eq!(service.submit(&service.admin(), &esim(line::BRAM)).await.status, 500);
    assert_eq!(service.query(&service.admin(), &format!("id={id}")).await.status, 500);
    assert_eq!(service.table(), before);
}

/// While a deployment replaces the functions, the old ones meet rows that the new ones wrote.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_a_later_kind_are_skipped() {
    let service = TestStack::new().await;
    let id = service.start_swap(&esim(line::ANNA)).await;
    let code = service.await_waiting(&id).await;
    let later: Vec<Item> = [
        (format!("A#{id}"), "delivery-note#1"),
        (format!("A#{id}"), "event#1"),
        (format!("A#{id}"), "notice#1"),
        (format!("L#{}", line::ANNA), "note"),
        ("T#0123456789abcdef".to_owned(), "limit#29730000"),
        ("W#0123456789abcdef".to_owned(), "webhook#1"),
    ]
    .into_iter()
    .map(|(pk, sk)| {
        let due = [("shard", "0"), ("dueAt", "2026-01-01T00:00:00.000Z")];
        let text = |(name, value): (&str, &str)| (name.to_owned(), AttributeValue::S(value.to_owned()));
        let keys = [("pk", pk.as_str()), ("sk", sk), ("kind", "later")];
        Item::from_iter(keys.into_iter().chain(due).map(text))
    })
    .collect();
    for row in &later {
        put(&service, row);
    }
    let query = format!("id={id}&include=timeline");
    assert_eq!(service.query(&service.admin(), &query).await.status, 200);
    assert_eq!(
        service.manage(&service.admin(), "ResendEsim", &id, "").await.status,
        200
    );
    service.await_mail_number(&id, 2).await;
    assert_eq!(service.install(&code, "8E9!#").await.status, 200);
    service.await_status(&id, "DONE").await;
    assert_eq!(service.mails(&id).len(), 2);
    let rows = service.rows();
    assert!(later.iter().all(|row| rows.contains(row)));
}

/// Migrates the table until the step with this number, and there stops as if the process were killed. Returns whether the
/// migration was over before.
async fn killed_at_step(store: &Store, finish: bool, number: usize) -> bool {
    let (sender, killed) = tokio::sync::oneshot::channel();
    let (mut sender, mut steps) = (Some(sender), 0);
    let store = store.clone();
    let migration = tokio::spawn(async move {
        let mut count = |_| {
            steps += 1;
            if steps == number {
                sender.take().map(|sender| sender.send(()));
            }
        };
        match finish {
            false => store.migrate(&mut count).await.unwrap(),
            true => store.finish_migration(&mut count).await.unwrap(),
        };
    });
    // The sender is dropped at the end of a migration that has fewer steps.
    let is_over = killed.await.is_err();
    migration.abort();
    match migration.await {
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        _ => is_over,
    }
}
