//! The DynamoDB calls and capacity units of operations and whole swaps, as the responses report them, with few records
//! in the table and with many.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use domain::{ActivationId, FormFactor, Phase, ProfileState};
use jiff::Timestamp;
use local::dynoxide::actions::get_item::GetItemRequest;
use local::dynoxide::{AttributeValue, ImportOptions};
use local::stack::Options;
use serde_json::{Value, json};
use store::Shard;
use tests::stock::{CUSTOMER, iccid, line_id, load_lines, load_stock, phone};
use tests::{Bill, FaultyProxy, MeteringProxy, TestResponse, TestStack, activation_code};

use crate::BenchError;
use crate::fixture::{changed, delivered};
use crate::lambda::Lambda;
use crate::programs::{BEHIND, Programs};
use crate::report::{self, Table};

/// The write units that a whole eSIM swap may take at most.
const SWAP_AT_MOST: f64 = 42.0;

/// How many lines the operations need, one each.
const LINES: usize = 12;

/// An operation and its cost.
#[derive(Debug, Clone)]
pub(crate) struct Cost {
    pub(crate) name: &'static str,
    pub(crate) bill: Bill,
    /// The invocations of functions, by name.
    pub(crate) invoked: BTreeMap<String, usize>,
    /// The calls to the SM-DP+ and the network.
    pub(crate) peers: usize,
}

impl Cost {
    /// The calls of functions that no caller waits for.
    fn calls_behind(&self) -> usize {
        let paths = self.bill.paths.iter();
        let name = paths.map(|path| path.trim_matches('/'));
        name.filter(|name| BEHIND.contains(name)).count()
    }
}

/// A service in which nothing makes progress by itself, whose functions' calls are counted.
struct Counted {
    service: TestStack,
    meter: MeteringProxy,
    lambda: Lambda,
    smdp: FaultyProxy,
    network: FaultyProxy,
    token: String,
    costs: Vec<Cost>,
}

impl Counted {
    async fn new(programs: &Arc<Programs>, records: usize) -> Result<Self, BenchError> {
        let meter = MeteringProxy::new().await;
        let lambda = Lambda::new(programs.clone()).await?;
        let (smdp, network) = (FaultyProxy::new().await, FaultyProxy::new().await);
        let table = format!("{}/{{function}}", meter.url);
        let settings = [
            ("AWS_ENDPOINT_URL_DYNAMODB", table.as_str()),
            ("CANCEL_WAIT", "1ns"),
            ("LEASE", "1h"),
            ("ASK_AFTER", "1h"),
            ("ASK_AT_MOST", "1h"),
            // The sweep does the same in every minute.
            ("STOCK_LOW", "0"),
            ("SMDP_URL", &smdp.url),
            ("NETWORK_URL", &network.url),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let service = TestStack::start(Options {
            stream_batch: None,
            sweep_every: Duration::from_secs(24 * 3600),
            functions_url: Some(lambda.url.clone()),
            // The network takes its time, so an order is always pending before it completes, and the writes do not
            // depend on a race.
            network_delay: Duration::from_millis(100),
            settings: settings.into(),
            ..TestStack::options()
        })
        .await;
        lambda.configure(&service.stack.settings);
        meter.connect(&service.stack.endpoints.dynamodb);
        smdp.connect(&service.stack.endpoints.smdp);
        network.connect(&service.stack.endpoints.network);
        service.end_stream();
        load_lines(&service, LINES).await;
        for form in [FormFactor::Nano, FormFactor::Esim] {
            load_stock(&service, form, (records / 4).max(LINES)).await;
        }
        let token = service.owner(CUSTOMER);
        let counted = Self {
            service,
            meter,
            lambda,
            smdp,
            network,
            token,
            costs: Vec::new(),
        };
        counted.add_old_swaps(records / 2).await?;
        Ok(counted)
    }

    /// Adds this many DONE swaps of the same customer, copies of one swap.
    async fn add_old_swaps(&self, count: usize) -> Result<(), BenchError> {
        let (service, stack) = (&self.service, &self.service.stack);
        let first = service
            .start_swap(&tests::card(&line_id(0), iccid(FormFactor::Nano, 0).as_str()))
            .await;
        let text = |text: &str| AttributeValue::S(text.to_owned());
        let key = HashMap::from([
            ("pk".to_owned(), text(&format!("A#{first}"))),
            ("sk".to_owned(), text("activation")),
        ]);
        let found = stack.database.get_item(GetItemRequest {
            table_name: stack.endpoints.table.clone(),
            key,
            ..GetItemRequest::default()
        });
        let found = found.map_err(|error| error.to_string())?;
        let mut row = found.item.ok_or("the swap is not there")?;
        row.insert("outcome".to_owned(), text("DONE"));
        row.insert("phase".to_owned(), text("done"));
        for ended in ["activatedAt", "endedAt"] {
            row.insert(ended.to_owned(), row["createdAt"].clone());
        }
        row.remove("dueAt");
        for start in (0..count).step_by(50_000) {
            let copies = (start..count.min(start + 50_000)).map(|number| {
                let id = ActivationId::from_random(Timestamp::UNIX_EPOCH, number as u128);
                let mut row = row.clone();
                row.insert("pk".to_owned(), text(&format!("A#{id}")));
                row.insert("line".to_owned(), text(&format!("{number:024x}")));
                row.insert("swapId".to_owned(), text(id.as_str()));
                row.insert("shard".to_owned(), text(&Shard::of(&id).key()));
                row
            });
            stack
                .database
                .import_items(&stack.endpoints.table, copies.collect(), ImportOptions::default())
                .map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Records the cost since the last record under this name.
    fn note(&mut self, name: &'static str) {
        let invoked = self.lambda.invoked().into_iter();
        let peers = self.smdp.count("/") + self.network.count("/");
        let before: usize = self.costs.iter().map(|cost| cost.peers).sum();
        self.costs.push(Cost {
            name,
            bill: self.meter.bill(),
            invoked: invoked.map(|(function, times)| (function, times.len())).collect(),
            peers: peers - before,
        });
    }

    fn answered(&mut self, name: &'static str, response: &TestResponse) -> Result<(), BenchError> {
        if response.status != 200 {
            return Err(format!("{name}: {response:?}").into());
        }
        self.note(name);
        Ok(())
    }

    async fn change_sim(&self, line: usize, wanted: &str) -> TestResponse {
        let bearer = format!("Bearer {}", self.token);
        let path = format!("/mvno/{}/changesim/{wanted}", line_id(line));
        self.service
            .send("POST", &path, &[("authorization", &bearer)], "")
            .await
    }

    /// Plays the stream: invokes the function for a swap's row when the row changed. Only one invocation at a time gets
    /// a row; changes during an invocation are delivered by the next.
    async fn stream(&self, swap: &str, delivered: &mut u64) -> Result<(), BenchError> {
        loop {
            let version = self.service.record(swap).await.version;
            if *delivered == version {
                return Ok(());
            }
            *delivered = version;
            self.lambda.invoke("fulfil-swap", changed(swap, "activation")).await?;
        }
    }

    /// Makes a whole swap, and invokes every function that it wakes.
    async fn whole(&mut self, body: &Value) -> Result<String, BenchError> {
        let response = self.service.submit(&self.token, body).await;
        let swap = response.json()["id"]
            .as_str()
            .ok_or(format!("{response:?}"))?
            .to_owned();
        let mut delivered = 0;
        self.stream(&swap, &mut delivered).await?;
        if body["eSim"] == true {
            // For a mail's row, only its creation is delivered.
            self.lambda.invoke("deliver-esim", changed(&swap, "delivery#1")).await?;
            let mail = self.service.await_mail(&swap).await;
            // SES publishes its events by itself. The same event again changes nothing, but it must not be the first.
            while self.lambda.count("mail-events") == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            self.stream(&swap, &mut delivered).await?;
            self.service.install(&activation_code(&mail), "8E9!#").await;
            let installed = |record: &domain::Activation| record.profile == Some(ProfileState::Installed);
            self.service.await_record(&swap, installed).await;
        }
        loop {
            self.stream(&swap, &mut delivered).await?;
            let record = self.service.record(&swap).await;
            if record.phase == Phase::Done {
                self.stream(&swap, &mut delivered).await?;
                return Ok(swap);
            }
            let moved = |now: &domain::Activation| now.version > record.version;
            self.service.await_record(&swap, moved).await;
        }
    }

    async fn operations(mut self) -> Result<Vec<Cost>, BenchError> {
        let esim = |name: &str, value: String| json!({name: value, "eSim": true, "email": "scale@example.com", "confirmationCode": "8E9!#"});
        let token = self.token.clone();
        // Each function reads the data key once in a process, and does so here.
        let warm = self.service.submit(&token, &esim("subscriptionId", line_id(1))).await;
        let swap = warm.json()["id"].as_str().ok_or(format!("{warm:?}"))?.to_owned();
        self.change_sim(2, "eSim").await;
        self.service.query(&token, &format!("id={swap}")).await;
        self.note("");
        self.costs.clear();

        let response = self.service.query(&token, &format!("id={swap}")).await;
        self.answered("query by id", &response)?;
        let response = self
            .service
            .query(&token, &format!("phoneNumber=%2B{}", &phone(1)[1..]))
            .await;
        self.answered("query by phone number", &response)?;
        let response = self.service.query(&token, "take=20").await;
        self.answered("list a customer's swaps, 20 a page", &response)?;
        if let Some(next) = response.json()["meta"]["next"].as_str() {
            let response = self.service.query(&token, &format!("take=20&cursor={next}")).await;
            self.answered("the page after", &response)?;
        }
        let response = self.service.query(&token, "take=20&status=BUSY").await;
        self.answered("list those of them that are BUSY", &response)?;
        let operator = self.service.admin();
        let response = self.service.query(&operator, "take=20&status=DONE").await;
        self.answered("list everybody's that are DONE", &response)?;
        let response = self.service.submit(&token, &esim("subscriptionId", line_id(3))).await;
        self.answered("submit an eSIM swap by id", &response)?;
        let cancelled = response.json()["id"].as_str().unwrap_or_default().to_owned();
        let response = self.service.submit(&token, &esim("phoneNumber", phone(4))).await;
        self.answered("by phone number", &response)?;
        let key = [("idempotency-key", "one")];
        let response = self
            .service
            .submit_with(&token, &key, &esim("subscriptionId", line_id(5)))
            .await;
        self.answered("by id with an idempotency key", &response)?;
        let response = self
            .service
            .submit_with(&token, &key, &esim("subscriptionId", line_id(5)))
            .await;
        self.answered("the same again", &response)?;
        let card = tests::card(&line_id(6), iccid(FormFactor::Nano, 6).as_str());
        let response = self.service.submit(&token, &card).await;
        self.answered("submit a card swap by id", &response)?;
        let response = self.change_sim(7, "autoAssign").await;
        self.answered("change SIM to any card", &response)?;
        let assigned = response.json()["mvnoSim"]["simNumber"].to_string();
        let response = self.change_sim(8, "eSim").await;
        self.answered("change SIM to an eSIM", &response)?;
        let response = self.service.manage(&token, "CancelActivation", &cancelled, "").await;
        self.answered("cancel, until it is answered", &response)?;
        self.lambda.invoke("sweep-swaps", "{}".to_owned()).await?;
        self.note("a sweep that finds nothing due");
        let swap = self.whole(&esim("subscriptionId", line_id(9))).await?;
        self.note(WHOLE_SWAP);
        self.lambda.invoke("mail-events", delivered(&swap)).await?;
        self.note("a report that comes again");
        let taken = assigned.contains(iccid(FormFactor::Nano, 10).as_str());
        let card = iccid(FormFactor::Nano, if taken { 11 } else { 10 });
        let card = tests::card(&line_id(10), card.as_str());
        self.whole(&card).await?;
        self.note("a whole card swap, submit to DONE");
        self.lambda.end();
        Ok(self.costs)
    }
}

/// The cost of everything with this many records in the table.
pub(crate) async fn measure(programs: &Arc<Programs>, records: usize) -> Result<Vec<Cost>, BenchError> {
    Counted::new(programs, records).await?.operations().await
}

fn named<'a>(costs: &'a [Cost], name: &str) -> Option<&'a Bill> {
    costs.iter().find(|cost| cost.name == name).map(|cost| &cost.bill)
}

/// The read or write units at each size; one number where all are the same.
fn growth(sizes: &[(usize, Vec<Cost>)], name: &str, units: impl Fn(&Bill) -> f64) -> String {
    let mut all: Vec<String> = sizes
        .iter()
        .map(|(_, costs)| named(costs, name).map_or("–".to_owned(), |bill| units(bill).to_string()))
        .collect();
    if all.iter().all(|one| *one == all[0]) {
        all.truncate(1);
    }
    all.join(" / ")
}

/// Measures and publishes. Filling the largest table takes minutes, so it has a run of its own, which shows only what
/// grows.
pub(crate) async fn run(programs: &Arc<Programs>, records: &[usize]) -> Result<(), BenchError> {
    let name = match records {
        [_, _, _, ..] => "growth",
        _ => "capacity",
    };
    let mut sizes = Vec::new();
    for &records in records {
        sizes.push((records, measure(programs, records).await?));
    }
    let mut table = Table::new(&["", "calls", "read units", "write units"]);
    let mut figures = json!({});
    let (_, last) = sizes.last().ok_or("no sizes")?;
    for cost in last {
        let calls = cost.bill.calls.len().to_string();
        let reads = growth(&sizes, cost.name, |bill| bill.reads);
        let writes = growth(&sizes, cost.name, |bill| bill.writes);
        let grows = reads.contains('/') || writes.contains('/');
        if name == "capacity" || grows {
            table.row(&[cost.name.to_owned(), calls, reads, writes]);
        }
        figures[cost.name] = json!({
            "calls": cost.bill.calls.len(), "behind": cost.calls_behind(), "reads": cost.bill.reads, "writes": cost.bill.writes,
            "invoked": cost.invoked, "peers": cost.peers,
        });
    }
    table.publish(name)?;
    if name == "capacity" {
        let swap = named(last, WHOLE_SWAP).ok_or("no whole swap")?;
        figures["hottest keys"] = json!(hottest_keys(swap));
        keys_table(swap).publish("keys")?;
    }
    report::record(name, figures)
}

/// What a partition of DynamoDB takes, in write units per second.
const PARTITION: f64 = 1000.0;

/// The indexes in which the entry of a swap is in one of the shards.
const SHARDED: [&str; 3] = ["all1", "byReseller1", "due1"];

fn shards_of(index: &str) -> f64 {
    match SHARDED.contains(&index) {
        true => Shard::all().count() as f64,
        false => 1.0,
    }
}

/// The write units of a swap to the hottest key of each index, and of each kind of row, which has the first letter of
/// its hash key. A swap has one key in each index.
fn hottest_keys(swap: &Bill) -> BTreeMap<String, f64> {
    let mut hottest = swap.index_writes.clone();
    for (pk, writes) in &swap.row_writes {
        let kind = hottest.entry(pk[..1].to_owned()).or_default();
        *kind = kind.max(*writes);
    }
    hottest
}

fn keys_table(swap: &Bill) -> Table {
    let mut table = Table::new(&[
        "",
        "one key is",
        "write units per eSIM swap",
        "eSIM swaps per second and key",
        "with all shards",
    ]);
    let hottest = hottest_keys(swap);
    for (name, key) in [
        ("row of a swap and of its e-mails", "A"),
        ("row of a line", "L"),
        ("row of a SIM", "S"),
        ("`byLine1`", "byLine1"),
        ("`byCustomer1`", "byCustomer1"),
        ("`byReseller1`", "byReseller1"),
        ("`all1`", "all1"),
        ("`due1`", "due1"),
        ("`free1`", "free1"),
        ("`byOrder1`", "byOrder1"),
    ] {
        let units = hottest.get(key).copied().unwrap_or_default();
        let per_second = |shards: f64| match units {
            0.0 => "–".to_owned(),
            units => (PARTITION / units * shards).floor().to_string(),
        };
        let one = match key {
            "A" | "byOrder1" => "a swap",
            "L" | "byLine1" => "a line",
            "S" => "a SIM",
            "byCustomer1" => "a customer",
            "free1" => "a pool",
            "byReseller1" => "a shard of a reseller",
            _ => "a shard",
        };
        let all = match SHARDED.contains(&key) {
            true => per_second(shards_of(key)),
            false => "–".to_owned(),
        };
        table.row(&[name.to_owned(), one.to_owned(), units.to_string(), per_second(1.0), all]);
    }
    table
}

/// The keys to which a swap writes more than recorded, and those that take fewer than a thousand swaps per second
/// although they belong to more than one line.
fn hot_keys(swap: &Bill, kept: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    for (key, units) in hottest_keys(swap) {
        let line = format!("a whole eSIM swap writes {units} units to one key of {key}");
        report::print(&line);
        if units > kept[&key].as_f64().unwrap_or_default() {
            faults.push(format!("{line}; {} was recorded", kept[&key]));
        }
        let is_shared = key.contains('1') && !["byLine1", "byOrder1"].contains(&key.as_str());
        if is_shared && units > shards_of(&key) {
            faults.push(format!("{line}, which allows less than 1,000 swaps per second"));
        }
    }
    faults
}

/// The operation whose writes are compared with the limits.
const WHOLE_SWAP: &str = "a whole eSIM swap, submit to DONE";

/// The operations that take more units than recorded or allowed, or more write units with many records than with few.
pub(crate) async fn gate(programs: &Arc<Programs>) -> Result<Vec<String>, BenchError> {
    let recorded = report::recorded("capacity")?;
    let few = measure(programs, 10).await?;
    let many = measure(programs, 10_000).await?;
    let mut faults = Vec::new();
    for cost in &many {
        let (name, bill) = (cost.name, &cost.bill);
        let units = format!(
            "{name}: {} calls, {} read and {} write units",
            bill.calls.len(),
            bill.reads,
            bill.writes
        );
        report::print(&units);
        let kept = &recorded[name];
        let over = |now: f64, kept: &Value| now > kept.as_f64().unwrap_or_default();
        if over(bill.reads, &kept["reads"]) || over(bill.writes, &kept["writes"]) {
            faults.push(format!("{units}; {kept} was recorded"));
        }
        if let Some(few) = named(&few, name)
            && bill.writes > few.writes
        {
            faults.push(format!("{units}; {} write units with few records", few.writes));
        }
        if name == WHOLE_SWAP {
            if bill.writes > SWAP_AT_MOST {
                faults.push(format!("{units}; {SWAP_AT_MOST} are allowed"));
            }
            faults.extend(hot_keys(bill, &recorded["hottest keys"]));
        }
    }
    Ok(faults)
}
