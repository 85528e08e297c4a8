//! The invariants. `monitor` records what happens during a run; `checks` holds what must be true of every call, write
//! and response; the other modules hold what must be true when a run has ended.

mod checks;
mod lines;
mod listings;
mod mails;
mod monitor;
mod profiles;
mod secrets;
mod swaps;

use std::collections::BTreeSet;

use domain::{ActivationId, Iccid, SubscriptionId};
use local::dynoxide::actions::get_item::GetItemRequest;
use local::dynoxide::{AttributeValue, Item};
use peers::Order;
use serde_json::{Value, json};

use self::lines::check_lines_and_sims;
use self::listings::check_listings;
use self::mails::check_mails;
use self::secrets::check_secrets;
use self::swaps::check_swap;
use crate::fakes::Fakes;
use crate::sandbox::TABLE;
use crate::scheduler::Scheduler;
use crate::stock;
use crate::transport::{Call, Peer};

pub(crate) use self::checks::WriteRequest;
pub(crate) use self::monitor::Monitor;

/// Parts of log lines that report a defect of the service, each with the file that logs it.
const NEVER_LOGGED: [(&str, &str); 5] = [
    (
        "a stored attribute is missing or malformed",
        "shared/store/src/error.rs",
    ),
    ("too many steps", "functions/fulfil-swap/src/lib.rs"),
    ("the handler of a row panicked", "shared/edge/src/stream.rs"),
    ("AWS rejected the store's call", "shared/store/src/error.rs"),
    ("could not be encrypted or decrypted", "shared/store/src/error.rs"),
];

/// The partition key and the sort key of a row.
type Key = (String, String);

/// What is known about a mail at the end of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fate {
    /// The outcome of every attempt is known.
    Known,
    /// SES accepted it, and the outcome of an attempt is unknown.
    Uncertain,
    /// SES rejected every attempt, or the swap ended before the mail was sent.
    GivenUp,
    /// SES did not accept it, the outcome of an attempt is unknown, and SES publishes nothing.
    Unknown,
}

/// A string attribute of a row or a write in JSON; empty if there is none of this name.
fn json_string(item: &Value, name: &str) -> String {
    item[name]["S"].as_str().unwrap_or_default().to_owned()
}

/// A number attribute of a row or a write in JSON; 0 if there is none of this name.
fn json_number(item: &Value, name: &str) -> u64 {
    let digits = item[name]["N"].as_str().unwrap_or("0");
    digits.parse().unwrap_or(0)
}

/// The activation whose mail a call to SES sends.
fn activation_of_mail(call: &Call) -> Option<String> {
    let form = String::from_utf8_lossy(&call.body).into_owned();
    let value = form
        .split('&')
        .find_map(|pair| pair.strip_prefix("Tags.member.1.Value="))?;
    Some(value.to_owned())
}

/// The activation and the number of the mail that a call to SES sends.
fn mail_of_call(call: &Call) -> Option<(String, u32)> {
    let form = String::from_utf8_lossy(&call.body).into_owned();
    let attempt = form
        .split('&')
        .find_map(|pair| pair.strip_prefix("Tags.member.2.Value="))?;
    let number = attempt.split(['-', '%']).next()?.parse().ok()?;
    Some((activation_of_mail(call)?, number))
}

/// The swap that a call to the SM-DP+ or the network is about.
pub(crate) fn swap_of_call(fakes: &Fakes, call: &Call) -> Option<String> {
    let body: Value = serde_json::from_slice(&call.body).unwrap_or_default();
    if let Some(name) = body["header"]["functionCallIdentifier"].as_str() {
        return Some(name.split_once('-')?.0.to_owned());
    }
    if let Some(id) = body["externalId"].as_str() {
        return Some(id.to_owned());
    }
    if let Some((_, id)) = call.path.split_once("externalId=") {
        return Some(id.to_owned());
    }
    let order = match body["serviceOrder"]["id"].as_str() {
        Some(order) => order,
        None => call.path.rsplit('/').next()?,
    };
    let found = fakes.order(order);
    found["externalId"].as_str().map(str::to_owned)
}

/// A row as JSON.
pub(crate) fn row(fakes: &Fakes, pk: &str, sk: &str) -> Option<Value> {
    let key = json!({"pk": {"S": pk}, "sk": {"S": sk}});
    let request: GetItemRequest =
        serde_json::from_value(json!({"TableName": TABLE, "Key": key, "ConsistentRead": true})).ok()?;
    let found = fakes.database.get_item(request).ok()?;
    serde_json::to_value(found.item?).ok()
}

/// Checks the state at the end of a run. Returns the violations.
pub(crate) async fn check_final_state(scheduler: &Scheduler, rows: &[Item], logs: &str) -> Vec<String> {
    let fakes = &scheduler.fakes;
    let mut violations = Vec::new();
    let mut swaps = Vec::new();
    for row in rows.iter().filter(|row| !stock::is_unchanged(row)) {
        let (kind, name) = string_attribute(row, "pk").split_at(2);
        match (kind, string_attribute(row, "sk")) {
            ("A#", "activation") => {
                let id = ActivationId::parse(name).expect("an id");
                let stored = scheduler.observer.swap_with_deliveries(&id).await;
                let stored = stored.expect("the table answers").expect("it is there");
                for secret in ["code", "matchingId", "phone", "email", "contact"] {
                    if row.contains_key(secret) {
                        violations.push(format!("the {secret} of {id} is not deleted"));
                    }
                }
                swaps.push((stored.activation, stored.deliveries));
            }
            ("L#", "line") => {
                let id = SubscriptionId::parse(name).expect("an id");
                let line = scheduler.observer.line(&id).await;
                line.expect("a line can be read").expect("it is there");
            }
            ("S#", "sim") => {
                let iccid = Iccid::parse(name).expect("an ICCID");
                let sim = scheduler.observer.sim(&iccid).await;
                sim.expect("a SIM can be read").expect("it is there");
            }
            _ => {}
        }
    }
    let disputed: BTreeSet<_> = rows
        .iter()
        .filter(|row| string_attribute(row, "sk") == "activation")
        .filter(|row| row.get("disputed") == Some(&AttributeValue::BOOL(true)))
        .map(|row| string_attribute(row, "pk").trim_start_matches("A#"))
        .collect();
    for (swap, mails) in &swaps {
        let disputed = disputed.contains(swap.id.as_str());
        violations.extend(check_swap(scheduler, swap, disputed));
        violations.extend(check_mails(scheduler, swap, mails));
    }
    let by_key = rows
        .iter()
        .map(|row| ((string_attribute(row, "pk"), string_attribute(row, "sk")), row));
    violations.extend(check_lines_and_sims(scheduler, &by_key.collect(), &swaps));
    let all = Call {
        peer: Peer::Network,
        method: "GET".to_owned(),
        path: format!("{}/serviceOrder", peers::tmf641::PATH),
        operation: String::new(),
        body: Vec::new(),
    };
    let orders: Vec<Order> = serde_json::from_slice(&fakes.perform(&all).body).unwrap_or_default();
    for order in orders {
        let id = order.external_id.unwrap_or_default();
        if !swaps.iter().any(|(swap, _)| swap.id.as_str() == id) {
            violations.push(format!("the network has an order of {id}, which is not a swap"));
        }
    }
    violations.extend(check_listings(scheduler, &swaps).await);
    violations.extend(check_secrets(scheduler, rows, logs));
    for (message, _) in NEVER_LOGGED {
        if let Some(line) = logs.lines().find(|line| line.contains(message)) {
            violations.push(format!("logged: {line}"));
        }
    }
    violations
}

/// A string attribute; empty if the row has none of this name.
pub(crate) fn string_attribute<'a>(row: &'a Item, name: &str) -> &'a str {
    match row.get(name) {
        Some(AttributeValue::S(text)) => text,
        _ => "",
    }
}

#[test]
fn each_message_that_is_searched_for_can_be_logged() {
    for (message, file) in NEVER_LOGGED {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
        let code = std::fs::read_to_string(path).unwrap();
        assert!(code.contains(message), "{file}: {message}");
    }
}
