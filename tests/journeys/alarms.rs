//! The alarms: each fires by the metric it watches. The tests read an alarm from the template and evaluate it over log
//! lines, as CloudWatch does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use aws::SdkConfig;
use aws::{Service, ServiceClient};
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region, SharedCredentialsProvider};
use aws_smithy_async::rt::sleep::{SharedAsyncSleep, TokioSleep};
use domain::{DeliveryState, FailureCode, FormFactor, HoldReason, Sim, SimState, SubscriptionId};
use edge::{ClockAndRng, Metric, Settings};
use jiff::{SignedDuration, Timestamp};
use lambda_runtime::{Context, LambdaEvent};
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use store::{Saved, Store};
use sweep_swaps::{SweepSwaps, Swept};
use tests::stock::free_sim;
use tests::{FREE_CARD, FaultyProxy, MeteringProxy, ProxyFault, TestStack, card, esim, line};
use tracing::subscriber::{DefaultGuard, set_default};

use crate::log_buffer::LogBuffer;
use crate::mail::rejection;
use crate::tidy::{of_type, property};

/// The stack's name, which is a part of the metrics' namespace.
const STACK: &str = "test";

/// The log lines of this thread, as a deployed function writes them, including metrics. In a test with one thread,
/// which is what `#[tokio::test]` alone makes, these are the lines of the whole stack.
pub(crate) struct Logged {
    lines: LogBuffer,
    _while: DefaultGuard,
}

impl Logged {
    /// Records log lines until it is dropped.
    pub(crate) fn start() -> Self {
        let lines = LogBuffer::default();
        let logs = edge::logs("info", format!("simswap/{STACK}"), lines.clone());
        Self {
            lines,
            _while: set_default(logs),
        }
    }

    /// Returns the lines since the last call.
    pub(crate) fn take(&self) -> Vec<Value> {
        let bytes = std::mem::take(&mut *self.lines.bytes());
        let text = String::from_utf8(bytes).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// An alarm on our own metrics: on one of them, or on the sum of several.
#[derive(Debug)]
struct Alarm {
    metrics: Vec<Series>,
    threshold: f64,
}

#[derive(Debug)]
struct Series {
    name: String,
    dimensions: BTreeMap<String, String>,
    statistic: String,
}

/// The alarms that fire as soon as the value of one period is too large. Left out are `SwapsOverdue`, which takes a
/// quarter of an hour, and the alarm on callbacks from any sender, which fires when nothing is measured.
fn alarms() -> BTreeMap<String, Alarm> {
    of_type("AWS::CloudWatch::Alarm")
        .into_iter()
        .filter(|(_, text)| {
            text.contains("simswap/${AWS::StackName}")
                && property(text, "EvaluationPeriods:") == "1"
                && property(text, "TreatMissingData:") == "notBreaching"
        })
        .map(|(name, text)| (name, Alarm::read(&text)))
        .collect()
}

impl Alarm {
    fn read(text: &str) -> Self {
        assert_eq!(property(text, "ComparisonOperator:"), "GreaterThanOrEqualToThreshold");
        let one = |text: &str, statistic: &str| {
            let (_, from_name) = text.split_once(" MetricName: ").unwrap();
            let (name, rest) = from_name.split_at(from_name.find([',', '\n']).unwrap());
            let dimensions = rest.split("{ Name: ").skip(1).map(|pair| {
                let (name, rest) = pair.split_once(", Value: ").unwrap();
                (name.to_owned(), rest.split_once(" }").unwrap().0.to_owned())
            });
            Series {
                name: name.to_owned(),
                dimensions: dimensions.collect(),
                statistic: statistic.to_owned(),
            }
        };
        let metrics = match text.split_once("      Metrics:\n") {
            None if text.contains(" Statistic: ") => vec![one(text, property(text, "Statistic:"))],
            None => vec![one(text, property(text, "ExtendedStatistic:"))],
            Some((_, metrics)) => {
                let (sum, metrics) = metrics.split_once("        - Id: ").unwrap();
                assert!(sum.contains("Expression: \"SUM(METRICS())\""), "{sum}");
                assert!(sum.contains("ReturnData: true"), "{sum}");
                let each = metrics.split("        - Id: ");
                each.map(|text| one(text, property(text, "Stat:"))).collect()
            }
        };
        Self {
            metrics,
            threshold: property(text, "Threshold:").parse().unwrap(),
        }
    }

    /// Whether the alarm fires when these lines are written within one period.
    fn fires(&self, lines: &[Value]) -> bool {
        let measured = self.metrics.iter().filter_map(|one| one.measured(lines));
        measured.reduce(|sum, one| sum + one) >= Some(self.threshold)
    }
}

impl Series {
    /// The statistic of this metric over the lines; `None` if no line has the metric. A metric of the same name with
    /// other dimensions is another metric.
    fn measured(&self, lines: &[Value]) -> Option<f64> {
        let mut values: Vec<_> = lines.iter().filter_map(|line| self.in_line(line)).collect();
        values.sort_by(f64::total_cmp);
        match self.statistic.as_str() {
            _ if values.is_empty() => None,
            "Sum" => Some(values.iter().sum()),
            "Maximum" => values.last().copied(),
            "p95" => values.get((values.len() - 1) * 95 / 100).copied(),
            other => panic!("{other} is not a statistic that the alarms use"),
        }
    }

    fn in_line(&self, line: &Value) -> Option<f64> {
        let directive = line["_aws"]["CloudWatchMetrics"].as_array()?.iter().find(|directive| {
            let metrics = directive["Metrics"].as_array().into_iter().flatten();
            let mut sets = directive["Dimensions"].as_array().into_iter().flatten();
            directive["Namespace"] == format!("simswap/{STACK}")
                && metrics.into_iter().any(|metric| metric["Name"] == self.name)
                && sets.any(|set| self.has(line, set))
        });
        directive.and(line[&self.name].as_f64())
    }

    fn has(&self, line: &Value, set: &Value) -> bool {
        let names = set.as_array().into_iter().flatten();
        let names: BTreeSet<_> = names.filter_map(Value::as_str).collect();
        let values = |name: &&str| line[*name].as_str().unwrap_or_default().to_owned();
        let given = names.iter().map(|name| ((*name).to_owned(), values(name)));
        given.collect::<BTreeMap<_, _>>() == self.dimensions
    }
}

/// The alarms that fire when these lines are written within one period of each.
pub(crate) fn firing(lines: &[Value]) -> Vec<String> {
    let alarms = alarms().into_iter();
    let firing = alarms.filter(|(_, alarm)| alarm.fires(lines));
    firing.map(|(name, _)| name).collect()
}

#[test]
fn each_alarm_fires_by_its_metric_alone() {
    let mut rung = BTreeSet::new();
    let mut check = |record: &dyn Fn(), expected: &[&str]| {
        let logged = Logged::start();
        record();
        let lines = logged.take();
        assert!(!lines.is_empty());
        assert_eq!(firing(&lines), expected, "{lines:?}");
        rung.extend(expected.iter().map(|name| (*name).to_owned()));
    };
    let times = |count: u32, metric: Metric| (0..count).for_each(|_| metric.record());
    let failed = |peer, class| Metric::PeerCallFailed { peer, class };
    check(
        &|| {
            Metric::SwapAccepted.record();
            Metric::SwapDone(SignedDuration::from_hours(300)).record();
            Metric::Mail(DeliveryState::Sent).record();
            times(9, Metric::Mail(DeliveryState::Ambiguous));
            // The customer or the phone causes these failures.
            times(9, Metric::SwapFailed(FailureCode::Expired));
            times(9, Metric::SwapFailed(FailureCode::CodesUsedUp));
            times(9, Metric::SwapFailed(FailureCode::DownloadsUsedUp));
            times(9, Metric::SwapFailed(FailureCode::WrongDevice));
            times(9, Metric::SwapFailed(FailureCode::NoRoom));
            Metric::PoolsLow(0).record();
        },
        &[],
    );
    for peer in ["smdp", "network"] {
        for class in ["unauthorized", "forbidden"] {
            check(&|| failed(peer, class).record(), &["PeerRefusesUs"]);
        }
        for class in ["failed", "unreadable", "unanswered"] {
            check(&|| times(9, failed(peer, class)), &[]);
            check(&|| times(10, failed(peer, class)), &["PeerDown"]);
        }
        for class in ["throttled", "refused"] {
            check(&|| times(100, failed(peer, class)), &[]);
        }
    }
    check(
        &|| {
            times(4, failed("smdp", "unanswered"));
            times(3, failed("network", "unanswered"));
            times(3, failed("network", "unreadable"));
        },
        &["PeerDown"],
    );
    check(&|| Metric::SwapStuck.record(), &["SwapsStuck"]);
    check(&|| Metric::SwapDisputed.record(), &["SwapsDisputed"]);
    for reason in HoldReason::ALL {
        check(&|| Metric::MailHeld(reason).record(), &["MailsHeld"]);
    }
    let mail = Metric::Mail;
    check(&|| mail(DeliveryState::Failed).record(), &["MailsFail"]);
    check(&|| times(4, mail(DeliveryState::Bounced)), &[]);
    check(&|| times(5, mail(DeliveryState::Bounced)), &["MailsBounce"]);
    let slow = Metric::FirstMail(SignedDuration::from_mins(1));
    check(&|| slow.record(), &["MailsSlow"]);
    check(&|| times(4, Metric::SwapFailed(FailureCode::NetworkFailed)), &[]);
    for failure in [
        FailureCode::ProfileRefused,
        FailureCode::ProfileFailed,
        FailureCode::NetworkRejected,
        FailureCode::NetworkFailed,
        FailureCode::Unavailable,
        FailureCode::Internal,
    ] {
        check(&|| times(5, Metric::SwapFailed(failure)), &["SwapsFail"]);
    }
    check(
        &|| Metric::SwapFailed(FailureCode::Unsettled).record(),
        &["SwapsUnsettled"],
    );
    check(&|| Metric::PoolsLow(1).record(), &["StockRunsLow"]);
    assert_eq!(rung, alarms().into_keys().collect());
}

/// Waits until this alarm fires for what the stack has logged so far.
async fn await_alarm(logged: &Logged, lines: &mut Vec<Value>, alarm: &str) {
    for _ in 0..2000 {
        lines.extend(logged.take());
        if firing(lines).iter().any(|name| name == alarm) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{alarm} does not fire: {lines:?}");
}

#[tokio::test]
async fn failures_of_the_peers_and_of_ses_fire_their_alarms() {
    let (network, ses) = (FaultyProxy::new().await, FaultyProxy::new().await);
    let service = TestStack::with(&[
        ("NETWORK_URL", network.url.as_str()),
        ("AWS_ENDPOINT_URL_SES", ses.url.as_str()),
        ("RETRY_AFTER", "1ms"),
        ("ASK_AFTER", "50ms"),
        ("ASK_AT_MOST", "100ms"),
        ("MAIL_RETRY_AFTER", "1ms"),
        ("SETTLE_WITHIN", "4s"),
        ("CALL_REST", "1ms"),
    ])
    .await;
    network.connect(&service.stack.endpoints.network);
    ses.connect(&service.stack.endpoints.ses);
    let (logged, mut lines) = (Logged::start(), Vec::new());

    network.plan("POST", ProxyFault::Respond(401, "{}".to_owned()));
    ses.plan("POST", rejection("Throttling"));
    let first = service.start_swap(&esim(line::ANNA)).await;
    await_alarm(&logged, &mut lines, "PeerRefusesUs").await;
    service.await_waiting(&first).await;
    await_alarm(&logged, &mut lines, "MailsHeld").await;

    ses.plan("POST", rejection("MessageRejected"));
    let second = service.start_swap(&esim(line::BRAM)).await;
    await_alarm(&logged, &mut lines, "MailsFail").await;
    let admin = service.admin();
    service.manage(&admin, "CancelActivation", &second, "").await;

    // The order never settles: the swap is given up, and the line is free. Then the network completes the order.
    network.disconnect();
    service.manage(&admin, "CancelActivation", &first, "").await;
    await_alarm(&logged, &mut lines, "PeerDown").await;
    await_alarm(&logged, &mut lines, "SwapsUnsettled").await;
    network.connect(&service.stack.endpoints.network);
    let other = service.start_swap(&card(line::ANNA, FREE_CARD)).await;
    service.await_status(&other, "DONE").await;
    let order = service.record(&first).await.order_number;
    let order = json!({"id": order, "externalId": first, "state": "completed"});
    let event = json!({"eventId": "late", "event": {"serviceOrder": order}});
    let listener = "/tmf-api/serviceOrdering/v4/listener/serviceOrderStateChangeEvent";
    let response = service.send("POST", listener, &[], event.to_string()).await;
    assert_eq!(response.status, 201, "{response:?}");
    await_alarm(&logged, &mut lines, "SwapsDisputed").await;

    for _ in 0..5 {
        network.plan("POST", ProxyFault::Respond(422, "{}".to_owned()));
        let id = service.start_swap(&card(line::BRAM, "8931086000000001029")).await;
        service.await_status(&id, "ERROR").await;
    }
    await_alarm(&logged, &mut lines, "SwapsFail").await;

    // The swap has waited for the network for two hours.
    network.disconnect();
    let id = service.start_swap(&card(line::CARLA, "8931086000000001037")).await;
    loop {
        let id = domain::ActivationId::parse(&id).unwrap();
        let stored = service.stack.store.swap(&id).await.unwrap().unwrap();
        let mut waited = stored.activation.clone();
        waited.progressed_at -= SignedDuration::from_hours(2);
        waited.version += 1;
        let orders = waited.phase == domain::Phase::Ordering;
        if orders && service.stack.store.save(&stored, &waited).await.unwrap() == Saved::Written {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    await_alarm(&logged, &mut lines, "SwapsStuck").await;
}

/// A free SIM of the network TELIA, which the sample data does not use.
fn sim(number: u32, form_factor: FormFactor, free_from: Timestamp) -> Sim {
    Sim {
        auto_assign: true,
        free_from,
        ..free_sim("TELIA", &format!("8946010000000{number:06}"), form_factor)
    }
}

/// The configuration of the AWS clients.
fn aws() -> SdkConfig {
    let credentials = Credentials::new("local", "local", None, None, "local");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::from_static("eu-central-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .sleep_impl(SharedAsyncSleep::new(TokioSleep::new()))
        .timeout_config(aws::timeouts())
        .http_client(aws::http_client(None))
        .build()
}

/// A store on this service's table whose calls `meter` counts.
fn store_behind(meter: &MeteringProxy, service: &TestStack) -> Store {
    let aws = aws();
    let dynamodb = aws_sdk_dynamodb::config::Builder::from(&aws);
    let dynamodb = dynamodb.endpoint_url(&meter.url).build();
    Store::new(
        aws_sdk_dynamodb::Client::from_conf(dynamodb),
        ServiceClient::new(&aws, Service::Kms),
        &service.stack.endpoints.table,
        "no key",
    )
}

/// A sweeper whose clock the test sets, in milliseconds.
fn sweeper(store: Store, clock: &Arc<AtomicI64>, stock_low: &'static str) -> SweepSwaps {
    let clock = clock.clone();
    let now = move || Timestamp::from_millisecond(clock.load(Ordering::Relaxed)).unwrap();
    let lambda = ServiceClient::with_endpoint(&aws(), Service::Lambda, "http://127.0.0.1:9");
    let settings = Settings::new(move |name| match name {
        "FULFIL_SWAP" | "DELIVER_ESIM" => Some("unused".to_owned()),
        "STOCK_LOW" => Some(stock_low.to_owned()),
        _ => None,
    });
    SweepSwaps::new(store, lambda, ClockAndRng::new(now, || 0), &settings).unwrap()
}

async fn sweep(sweeper: &SweepSwaps) -> Swept {
    let event = LambdaEvent::new(IgnoredAny, Context::default());
    sweeper.handle(event).await.unwrap()
}

/// The pools that a warning names, with the number of their SIMs.
fn pool_counts(lines: &[Value]) -> BTreeMap<String, u64> {
    let warnings = lines.iter().filter(|line| line["level"] == "WARN");
    let pools = warnings.map(|line| {
        assert_eq!(line["message"], "a pool of free SIMs runs low");
        let name = line["pool"].as_str().unwrap().to_owned();
        (name, line["free"].as_u64().unwrap())
    });
    pools.collect()
}

#[tokio::test]
async fn the_sweep_counts_the_free_sims_every_five_minutes() {
    let (service, meter) = TestStack::metered().await;
    let logged = Logged::start();
    let at: Timestamp = "2026-11-22T14:04:59Z".parse().unwrap();
    let clock = Arc::new(AtomicI64::new(at.as_millisecond()));
    let store = store_behind(&meter, &service);
    // A pool of eleven SIMs, and a pool of two, one of which is still cooling down.
    for number in 0..11 {
        let card = sim(number, FormFactor::Nano, at);
        store.add_sim(&card).await.unwrap();
    }
    for (number, from) in [(11, at), (12, at + SignedDuration::from_mins(5))] {
        let profile = sim(number, FormFactor::Esim, from);
        store.add_sim(&profile).await.unwrap();
    }
    let sweeper = sweeper(store, &clock, "11");
    meter.bill();
    logged.take();
    let minute = async |seconds: i64| {
        clock.fetch_add(seconds * 1000, Ordering::Relaxed);
        assert_eq!(sweep(&sweeper).await, Swept::default());
        let bill = meter.bill();
        let lines = logged.take();
        (bill.calls.len(), bill.reads, firing(&lines), pool_counts(&lines))
    };
    let quiet = (17, 8.5, Vec::new(), BTreeMap::new());
    let low = |pools: &[(&str, u64)]| {
        let pools = pools.iter().map(|(name, free)| ((*name).to_owned(), *free));
        (24, 12.0, vec!["StockRunsLow".to_owned()], pools.collect())
    };
    assert_eq!(minute(0).await, quiet);
    let tens = [("KPN#R-10#card", 10), ("TELENOR#R-20#card", 10)];
    let with = |one| [tens[0], tens[1], ("TELIA##esim", one)];
    assert_eq!(minute(1).await, low(&with(1)), "14:05");
    assert_eq!(minute(59).await, quiet, "one count in this minute");
    assert_eq!(minute(1).await, quiet);
    assert_eq!(minute(4 * 60).await, low(&with(2)), "14:10");
}

#[tokio::test]
async fn a_full_or_uncounted_stock_fires_no_alarm() {
    let (service, meter) = TestStack::metered().await;
    let logged = Logged::start();
    let at: Timestamp = "2026-11-22T14:05:00Z".parse().unwrap();
    let clock = Arc::new(AtomicI64::new(at.as_millisecond()));
    let store = store_behind(&meter, &service);
    let measured = |lines: &[Value]| {
        let lows = lines.iter().filter_map(|line| line["PoolsLow"].as_u64());
        (lows.collect::<Vec<_>>(), firing(lines))
    };

    // The smallest pools of the sample data have ten SIMs.
    sweep(&sweeper(store.clone(), &clock, "10")).await;
    assert_eq!(measured(&logged.take()), (vec![0], Vec::new()));
    sweep(&sweeper(store.clone(), &clock, "0")).await;
    assert_eq!(measured(&logged.take()), (Vec::new(), Vec::new()));

    // A count that fails is logged, and the sweep continues.
    let request = json!({
        "TableName": service.stack.endpoints.table,
        "GlobalSecondaryIndexUpdates": [{"Delete": {"IndexName": "free1"}}],
    });
    let request = serde_json::from_value(request).unwrap();
    service.stack.database.update_table(request).unwrap();
    let swept = sweep(&sweeper(store, &clock, "10")).await;
    assert_eq!(swept, Swept::default());
    let lines = logged.take();
    assert_eq!(measured(&lines), (Vec::new(), Vec::new()));
    let errors = lines.iter().filter(|line| line["level"] == "ERROR");
    let errors: Vec<_> = errors.map(|line| line["message"].as_str()).collect();
    assert_eq!(errors, [Some("counting the free SIMs failed")]);
}

#[tokio::test]
async fn a_pool_exists_from_its_first_import_even_when_it_is_empty() {
    let (service, meter) = TestStack::metered().await;
    let store = store_behind(&meter, &service);
    let pool_names = async || {
        let pools = store.pools().await.unwrap();
        let names = pools.iter().map(ToString::to_string);
        names.collect::<Vec<_>>()
    };
    let sample = [
        "KPN#R-10#card",
        "KPN#R-10#esim",
        "TELENOR#R-20#card",
        "TELENOR#R-20#esim",
    ];
    assert_eq!(pool_names().await, sample);
    meter.bill();

    // Only SIMs that can be assigned automatically belong to a pool.
    let by_number = Sim {
        auto_assign: false,
        ..sim(100, FormFactor::Nano, Timestamp::UNIX_EPOCH)
    };
    let used = Sim {
        state: SimState::Disabled,
        ..sim(101, FormFactor::Esim, Timestamp::UNIX_EPOCH)
    };
    store.add_sims(&[&by_number, &used]).await.unwrap();
    assert_eq!(meter.bill().calls, ["TransactWriteItems"]);
    assert_eq!(pool_names().await, sample);

    let cards: Vec<_> = (0..20)
        .map(|number| sim(number, FormFactor::Nano, Timestamp::UNIX_EPOCH))
        .collect();
    let (first, second) = cards.split_at(10);
    meter.bill();
    store.add_sims(&first.iter().collect::<Vec<_>>()).await.unwrap();
    let bill = meter.bill();
    assert_eq!(bill.calls, ["UpdateItem", "TransactWriteItems"]);
    // A SIM takes two units in the table, and one in the index of free SIMs.
    assert_eq!(bill.writes, 1.0 + 10.0 * 3.0);
    store.add_sims(&second.iter().collect::<Vec<_>>()).await.unwrap();
    let bill = meter.bill();
    assert_eq!(bill.calls, ["TransactWriteItems"], "the process knows the pool");
    assert_eq!(bill.writes, 10.0 * 3.0);
    // Another process does not know the pool, and writing it again changes nothing.
    let other = store_behind(&meter, &service);
    other.add_sim(&cards[0]).await.unwrap();
    assert_eq!(pool_names().await.last().unwrap(), "TELIA##card");
    assert_eq!(pool_names().await.len(), sample.len() + 1);

    // The pool still exists when no SIM is left in it.
    let dorte = SubscriptionId::parse(line::DORTE).unwrap();
    let dorte = store.line(&dorte).await.unwrap().unwrap().line;
    for (number, card) in cards.iter().enumerate() {
        let line = domain::Line {
            id: SubscriptionId::parse(&format!("emptied-{number}")).unwrap(),
            phone: domain::Msisdn::parse(&format!("+46700000{number:03}")).unwrap(),
            network: card.network.clone(),
            current_sim: card.iccid.clone(),
            ..dorte.clone()
        };
        store.add_line(&line, card.clone()).await.unwrap();
    }
    let pools = store.pools().await.unwrap();
    let emptied = pools.last().unwrap();
    assert_eq!(emptied.to_string(), "TELIA##card");
    let now = Timestamp::now();
    assert_eq!(store.free_in(emptied, now, 20).await.unwrap(), 0);
    let full = &pools[1];
    for (at_most, counted) in [(1, 1), (19, 19), (20, 20), (21, 20)] {
        assert_eq!(store.free_in(full, now, at_most).await.unwrap(), counted);
    }
}
