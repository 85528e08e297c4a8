//! The fixture of the measured programs: the local stack in memory, behind TLS, with lines and SIMs; and events for the
//! programs.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use domain::{ActivationId, FormFactor, SubscriptionId};
use jiff::Timestamp;
use local::stack::Options;
use serde_json::{Value, json};
use tests::TestStack;
use tests::stock::{CUSTOMER, line_id, load_lines, load_sims};

use crate::BenchError;
use crate::tls::Tls;

const SUBMIT: &str = include_str!("../../events/submit-swap.json");
const QUERY: &str = include_str!("../../events/query-activation.json");
const CHANGE: &str = include_str!("../../events/change-sim.json");
const MANAGE: &str = include_str!("../../events/manage-swap.json");
const NETWORK: &str = include_str!("../../events/network-events.json");
const MAIL: &str = include_str!("../../events/mail-events.json");
const FULFIL: &str = include_str!("../../events/fulfil-swap.json");
const SWEEP: &str = include_str!("../../events/sweep-swaps.json");

/// A service in which nothing makes progress by itself.
pub(crate) struct Fixture {
    pub(crate) service: TestStack,
    pub(crate) tls: Tls,
    /// The functions' settings, with every part of AWS and both peers behind TLS.
    pub(crate) settings: BTreeMap<String, String>,
    /// A swap to a card, so a query for it decrypts no secret.
    card_swap: String,
    lines: usize,
    used: AtomicUsize,
}

impl Fixture {
    /// A fixture with this many lines, and a card and an eSIM for each.
    pub(crate) async fn new(lines: usize) -> Result<Self, BenchError> {
        // No swap becomes due.
        let long_waits = ["LEASE", "ASK_AFTER", "ASK_AT_MOST", "RETRY_AFTER", "MAIL_DOUBT"];
        let long_waits = long_waits.map(|name| (name.to_owned(), "4h".to_owned()));
        let mut options = BTreeMap::from(long_waits);
        // The equivalents in other languages cannot read secrets that are encrypted with the public key.
        options.insert("SEALING_KEY".to_owned(), String::new());
        let service = TestStack::start(Options {
            stream_batch: None,
            sweep_every: Duration::from_secs(24 * 3600),
            settings: options,
            ..TestStack::options()
        })
        .await;
        service.end_stream();
        load_lines(&service, lines).await;
        load_sims(&service, FormFactor::Nano, lines).await;
        load_sims(&service, FormFactor::Esim, lines).await;
        let tls = Tls::new()?;
        let mut settings = service.stack.settings.clone();
        // Lambda itself sets these.
        settings.retain(|name, _| !name.contains("ACCESS_KEY") && name != "AWS_REGION");
        settings.insert("CANCEL_WAIT".to_owned(), "1ns".to_owned());
        let sealing_key = service.stack.store.keyring().newest_sealing_key().await;
        let sealing_key = sealing_key.map_err(|error| error.to_string())?;
        settings.insert("SEALING_KEY".to_owned(), sealing_key.to_string());
        // The sweep does the same in every minute.
        settings.insert("STOCK_LOW".to_owned(), "0".to_owned());
        for (_, url) in settings.iter_mut().filter(|(_, value)| value.starts_with("http://")) {
            *url = tls.before(url).await?;
        }
        let card_swap = service
            .start_swap(&tests::card(tests::line::ANNA, tests::FREE_CARD))
            .await;
        Ok(Self {
            service,
            tls,
            settings,
            card_swap,
            lines,
            used: AtomicUsize::new(0),
        })
    }

    /// A line without a swap.
    pub(crate) fn line(&self) -> Result<String, BenchError> {
        let number = self.used.fetch_add(1, Ordering::Relaxed);
        if number < self.lines {
            Ok(line_id(number))
        } else {
            Err("there are no lines left".into())
        }
    }

    /// An event for one of the three functions that all languages have. Each uses a line of its own.
    pub(crate) fn call(&self, function: &str) -> Result<String, BenchError> {
        match function {
            "submit-swap" => Ok(submit(&self.line()?)),
            "change-sim" => Ok(change(&self.line()?)),
            "query-activation" => Ok(query(&self.card_swap)),
            _ => Err(format!("no calls of {function}").into()),
        }
    }

    /// The open swap of a line.
    pub(crate) async fn swap_of(&self, line: &str) -> Result<String, BenchError> {
        let line = self.service.stack.store.line(&SubscriptionId::parse(line)?).await?;
        let open = line.and_then(|line| line.open).ok_or("the line has no swap")?;
        Ok(open.id.to_string())
    }

    /// The SM-DP+'s callback that a swap's eSIM is installed.
    pub(crate) async fn installed(&self, swap: &str) -> Result<String, BenchError> {
        let swap = self.service.stack.store.swap(&ActivationId::parse(swap)?).await?;
        let iccid = swap.ok_or("there is no such swap")?.activation.new_sim;
        let mut event = parse(NETWORK);
        let mut body = parse(event["body"].as_str().unwrap_or_default());
        body["iccid"] = json!(iccid.as_str());
        body["timestamp"] = json!(Timestamp::now().to_string());
        event["body"] = json!(body.to_string());
        Ok(event.to_string())
    }
}

/// An OWNER's request of an eSIM for a line.
pub(crate) fn submit(line: &str) -> String {
    let mut event = owned(SUBMIT);
    let body = json!({"subscriptionId": line, "eSim": true, "email": "scale@example.com", "confirmationCode": "8E9!#"});
    event["body"] = json!(body.to_string());
    event.to_string()
}

/// An ADMIN's query of a swap.
pub(crate) fn query(swap: &str) -> String {
    let mut event = parse(QUERY);
    event["rawQueryString"] = json!(format!("id={swap}"));
    event["queryStringParameters"] = json!({ "id": swap });
    event["requestContext"]["authorizer"]["jwt"]["claims"]["role"] = json!("ADMIN");
    event.to_string()
}

/// An OWNER's request of any card for a line.
pub(crate) fn change(line: &str) -> String {
    let mut event = owned(CHANGE);
    let path = format!("/mvno/{line}/changesim/autoAssign");
    event["rawPath"] = json!(path);
    event["requestContext"]["http"]["path"] = json!(path);
    event["pathParameters"] = json!({"accountId": line, "newSim": "autoAssign"});
    event.to_string()
}

/// An OWNER's cancel of a swap.
pub(crate) fn cancel(swap: &str) -> String {
    let mut event = owned(MANAGE);
    event["rawQueryString"] = json!(format!("id={swap}"));
    event["queryStringParameters"] = json!({ "id": swap });
    event.to_string()
}

/// A change record of a swap's row: `activation`, or `delivery#1`.
pub(crate) fn changed(swap: &str, row: &str) -> String {
    let mut event = parse(FULFIL);
    event["Records"][0]["dynamodb"]["Keys"] = json!({"pk": {"S": format!("A#{swap}")}, "sk": {"S": row}});
    event.to_string()
}

/// SES's event that the first mail of a swap was delivered.
pub(crate) fn delivered(swap: &str) -> String {
    let mut event = parse(MAIL);
    let message = &mut event["Records"][0]["Sns"]["Message"];
    let mut ses_event = parse(message.as_str().unwrap_or_default());
    ses_event["mail"]["tags"]["activation"] = json!([swap]);
    *message = json!(ses_event.to_string());
    event.to_string()
}

/// The event of the schedule.
pub(crate) fn minute() -> String {
    SWEEP.to_owned()
}

/// Fails unless the response reports success.
pub(crate) fn check(function: &str, response: &str) -> Result<(), BenchError> {
    let read = parse(response);
    let good = match read["statusCode"].as_u64() {
        Some(status) => status < 300,
        None => read["batchItemFailures"].as_array().is_none_or(Vec::is_empty),
    };
    if good {
        Ok(())
    } else {
        Err(format!("{function} responded {response}").into())
    }
}

fn owned(event: &str) -> Value {
    let mut event = parse(event);
    let claims = &mut event["requestContext"]["authorizer"]["jwt"]["claims"];
    claims["role"] = json!("OWNER");
    claims["customer"] = json!(CUSTOMER);
    event
}

/// Parses a text that the benchmark or a function wrote.
fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_default()
}
