//! What operations and whole swaps take of DynamoDB, as its answers say, with few records in the table and with many.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use domain::{FormFactor, Phase, ProfileState};
use local::dynoxide::actions::get_item::GetItemRequest;
use local::dynoxide::{AttributeValue, ImportOptions};
use local::stack::Options;
use serde_json::{Value, json};
use tests::stock::{CUSTOMER, iccid, line_id, load_lines, load_stock, phone};
use tests::{Bill, FaultyProxy, MeteringProxy, TestResponse, TestStack, activation_code};

use crate::BenchError;
use crate::fixture::{changed, delivered};
use crate::lambda::Lambda;
use crate::programs::{BEHIND, Programs};
use crate::report::{self, Table};

/// Write units of a whole eSIM swap that may not be passed.
const SWAP_AT_MOST: f64 = 50.0;

/// Lines that operations need, one each.
const LINES: usize = 12;

/// An operation, and what it took.
#[derive(Debug, Clone)]
pub(crate) struct Cost {
    pub(crate) name: &'static str,
    pub(crate) bill: Bill,
    /// Invocations of functions, by name.
    pub(crate) invoked: BTreeMap<String, usize>,
    /// Calls to the SM-DP+ and the network.
    pub(crate) peers: usize,
}

impl Cost {
    /// Calls of functions that no caller waits for.
    fn calls_behind(&self) -> usize {
        let paths = self.bill.paths.iter();
        let name = paths.map(|path| path.trim_matches('/'));
        name.filter(|name| BEHIND.contains(name)).count()
    }
}

/// A world in which nothing moves by itself, its functions' calls counted.
struct Counted {
    world: TestStack,
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
            // A sweep costs the same in every minute.
            ("STOCK_LOW", "0"),
            ("SMDP_URL", &smdp.url),
            ("NETWORK_URL", &network.url),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let world = TestStack::start(Options {
            stream_batch: None,
            sweep_every: Duration::from_secs(24 * 3600),
            functions_url: Some(lambda.url.clone()),
            // An order is on its way before it is over: what is written does not depend on who is faster.
            network_delay: Duration::from_millis(100),
            settings: settings.into(),
            ..TestStack::options()
        })
        .await;
        lambda.configure(&world.stack.settings);
        meter.connect(&world.stack.endpoints.dynamodb);
        smdp.connect(&world.stack.endpoints.smdp);
        network.connect(&world.stack.endpoints.network);
        world.end_stream();
        load_lines(&world, LINES).await;
        for form in [FormFactor::Nano, FormFactor::Esim] {
            load_stock(&world, form, (records / 4).max(LINES)).await;
        }
        let token = world.owner(CUSTOMER);
        let counted = Self {
            world,
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

    /// Swaps of the same customer that are DONE, copies of one.
    async fn add_old_swaps(&self, count: usize) -> Result<(), BenchError> {
        let (world, stack) = (&self.world, &self.world.stack);
        let first = world
            .begin(&tests::card(&line_id(0), iccid(FormFactor::Nano, 0).as_str()))
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
                let id = format!("{number:026}");
                let mut row = row.clone();
                row.insert("pk".to_owned(), text(&format!("A#{id}")));
                row.insert("line".to_owned(), text(&format!("{number:024x}")));
                row.insert("listed".to_owned(), text(&format!("2026-01-01T00:00:00.000Z#{id}")));
                row
            });
            stack
                .database
                .import_items(&stack.endpoints.table, copies.collect(), ImportOptions::default())
                .map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Notes what was taken since the last note.
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

    fn answered(&mut self, name: &'static str, answer: &TestResponse) -> Result<(), BenchError> {
        if answer.status != 200 {
            return Err(format!("{name}: {answer:?}").into());
        }
        self.note(name);
        Ok(())
    }

    async fn change_sim(&self, line: usize, wanted: &str) -> TestResponse {
        let bearer = format!("Bearer {}", self.token);
        let path = format!("/mvno/{}/changesim/{wanted}", line_id(line));
        self.world.send("POST", &path, &[("authorization", &bearer)], "").await
    }

    /// What the stream does: tells of a swap's row when it changed. A row is with one invocation at a time: what changed
    /// during one comes with the next, at once.
    async fn stream(&self, swap: &str, told: &mut u64) -> Result<(), BenchError> {
        loop {
            let version = self.world.record(swap).await.version;
            if *told == version {
                return Ok(());
            }
            *told = version;
            self.lambda.invoke("fulfil-swap", changed(swap, "activation")).await?;
        }
    }

    /// A whole swap, and what it wakes.
    async fn whole(&mut self, body: &Value) -> Result<String, BenchError> {
        let answer = self.world.submit(&self.token, body).await;
        let swap = answer.json()["id"].as_str().ok_or(format!("{answer:?}"))?.to_owned();
        let mut told = 0;
        self.stream(&swap, &mut told).await?;
        if body["eSim"] == true {
            // Of a mail's row only that it is new is told.
            self.lambda
                .invoke("deliver-esim", changed(&swap, "delivery#0001"))
                .await?;
            let mail = self.world.await_mail(&swap).await;
            // SES reports by itself; once more changes nothing, but is not before it.
            while self.lambda.count("mail-events") == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            self.stream(&swap, &mut told).await?;
            self.world.install(&activation_code(&mail), "8E9!#").await;
            let installed = |record: &domain::Activation| record.profile == Some(ProfileState::Installed);
            self.world.await_record(&swap, installed).await;
        }
        loop {
            self.stream(&swap, &mut told).await?;
            let record = self.world.record(&swap).await;
            if record.phase == Phase::Done {
                self.stream(&swap, &mut told).await?;
                return Ok(swap);
            }
            let moved = |now: &domain::Activation| now.version > record.version;
            self.world.await_record(&swap, moved).await;
        }
    }

    async fn operations(mut self) -> Result<Vec<Cost>, BenchError> {
        let esim = |name: &str, value: String| json!({name: value, "eSim": true, "email": "scale@example.com", "confirmationCode": "8E9!#"});
        let token = self.token.clone();
        // Each function reads the data key once a process, and so here.
        let warm = self.world.submit(&token, &esim("subscriptionId", line_id(1))).await;
        let swap = warm.json()["id"].as_str().ok_or(format!("{warm:?}"))?.to_owned();
        self.change_sim(2, "eSim").await;
        self.world.query(&token, &format!("id={swap}")).await;
        self.note("");
        self.costs.clear();

        let answer = self.world.query(&token, &format!("id={swap}")).await;
        self.answered("query by id", &answer)?;
        let answer = self
            .world
            .query(&token, &format!("phoneNumber=%2B{}", &phone(1)[1..]))
            .await;
        self.answered("query by phone number", &answer)?;
        let answer = self.world.query(&token, "take=20").await;
        self.answered("list a customer's swaps, 20 a page", &answer)?;
        if let Some(next) = answer.json()["meta"]["next"].as_str() {
            let answer = self.world.query(&token, &format!("take=20&cursor={next}")).await;
            self.answered("the page after", &answer)?;
        }
        let answer = self.world.query(&token, "take=20&status=BUSY").await;
        self.answered("list those of them that are BUSY", &answer)?;
        let operator = self.world.admin();
        let answer = self.world.query(&operator, "take=20&status=DONE").await;
        self.answered("list everybody's that are DONE", &answer)?;
        let answer = self.world.submit(&token, &esim("subscriptionId", line_id(3))).await;
        self.answered("submit an eSIM swap by id", &answer)?;
        let cancelled = answer.json()["id"].as_str().unwrap_or_default().to_owned();
        let answer = self.world.submit(&token, &esim("phoneNumber", phone(4))).await;
        self.answered("by phone number", &answer)?;
        let key = [("idempotency-key", "one")];
        let answer = self
            .world
            .submit_with(&token, &key, &esim("subscriptionId", line_id(5)))
            .await;
        self.answered("by id with an idempotency key", &answer)?;
        let answer = self
            .world
            .submit_with(&token, &key, &esim("subscriptionId", line_id(5)))
            .await;
        self.answered("the same again", &answer)?;
        let card = tests::card(&line_id(6), iccid(FormFactor::Nano, 6).as_str());
        let answer = self.world.submit(&token, &card).await;
        self.answered("submit a card swap by id", &answer)?;
        let answer = self.change_sim(7, "autoAssign").await;
        self.answered("change SIM to any card", &answer)?;
        let assigned = answer.json()["mvnoSim"]["simNumber"].to_string();
        let answer = self.change_sim(8, "eSim").await;
        self.answered("change SIM to an eSIM", &answer)?;
        let answer = self.world.manage(&token, "CancelActivation", &cancelled, "").await;
        self.answered("cancel, until it is answered", &answer)?;
        self.lambda.invoke("sweep-swaps", "{}".to_owned()).await?;
        self.note("a sweep that finds nothing due");
        let swap = self.whole(&esim("subscriptionId", line_id(9))).await?;
        self.note("a whole eSIM swap, submit to DONE");
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

/// What everything takes with this many records in the table.
pub(crate) async fn measure(programs: &Arc<Programs>, records: usize) -> Result<Vec<Cost>, BenchError> {
    Counted::new(programs, records).await?.operations().await
}

fn named<'a>(costs: &'a [Cost], name: &str) -> Option<&'a Bill> {
    costs.iter().find(|cost| cost.name == name).map(|cost| &cost.bill)
}

/// Read and write units at each size, the same ones once.
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

/// Measures and publishes. The largest table takes minutes to fill, so it has a run of its own, which shows what grows.
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
    report::keep(name, figures)
}

/// What takes more than is kept, than is allowed, or more with many records than with few.
pub(crate) async fn gate(programs: &Arc<Programs>) -> Result<Vec<String>, BenchError> {
    let kept = report::kept("capacity")?;
    let few = measure(programs, 10).await?;
    let many = measure(programs, 10_000).await?;
    let mut faults = Vec::new();
    for cost in &many {
        let (name, bill) = (cost.name, &cost.bill);
        let told = format!(
            "{name}: {} calls, {} read and {} write units",
            bill.calls.len(),
            bill.reads,
            bill.writes
        );
        report::print(&told);
        let kept = &kept[name];
        let over = |now: f64, kept: &Value| now > kept.as_f64().unwrap_or_default();
        if over(bill.reads, &kept["reads"]) || over(bill.writes, &kept["writes"]) {
            faults.push(format!("{told}; {kept} was kept"));
        }
        if let Some(few) = named(&few, name)
            && bill.writes > few.writes
        {
            faults.push(format!("{told}; {} write units with few records", few.writes));
        }
        if name.starts_with("a whole eSIM") && bill.writes > SWAP_AT_MOST {
            faults.push(format!("{told}; {SWAP_AT_MOST} are allowed"));
        }
    }
    Ok(faults)
}
