//! What must not be readable in the table, the log and the mails.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use local::dynoxide::Item;
use memchr::memmem;
use serde_json::Value;

use crate::scheduler::Scheduler;
use crate::stock::SECRETS;
use crate::workload::ATTACKER_EMAIL;

/// Strings that must not appear unencrypted. All confirmation codes begin with the last of them.
pub(super) fn canary_secrets<'a>() -> impl Iterator<Item = &'a str> {
    SECRETS.into_iter().chain(["Zq7KwV"])
}

/// Searches the table, the log and the mails for secrets, and the mails for QR codes that an attacker could use.
pub(super) fn check_secrets(scheduler: &Scheduler, rows: &[Item], logs: &str) -> Vec<String> {
    let mut violations = Vec::new();
    let matching_ids = scheduler.monitor.matching_ids.iter().map(String::as_str);
    let secrets: Vec<_> = canary_secrets().chain(matching_ids).collect();
    let searched: Vec<_> = rows.iter().map(|row| (row, bytes_of(row))).collect();
    for secret in secrets {
        if logs.contains(secret) {
            violations.push(format!("{secret} is in the log"));
        }
        for (row, bytes) in &searched {
            if memmem::find(bytes, secret.as_bytes()).is_some() {
                violations.push(format!("{secret} is in the table: {:?} {:?}", row["pk"], row["sk"]));
            }
        }
    }
    for mail in scheduler.fakes.mails().iter() {
        let raw = String::from_utf8_lossy(&mail.raw);
        for secret in canary_secrets().filter(|secret| raw.contains(secret)) {
            violations.push(format!("{secret} is in a mail"));
        }
        if mail.to == ATTACKER_EMAIL && scheduler.monitor.without_code.contains(&mail.activation) {
            violations.push(format!(
                "a QR code of {} that needs no confirmation code was sent to the attacker",
                mail.activation
            ));
        }
    }
    violations
}

/// All strings and binary values of a row, at any depth.
fn bytes_of(row: &Item) -> Vec<u8> {
    let mut bytes = Vec::new();
    for value in row.values() {
        collect_bytes(&serde_json::to_value(value).unwrap_or_default(), &mut bytes);
    }
    bytes
}

fn collect_bytes(value: &Value, bytes: &mut Vec<u8>) {
    match value {
        Value::String(text) => {
            bytes.extend_from_slice(text.as_bytes());
            bytes.push(0);
            bytes.extend(STANDARD.decode(text).unwrap_or_default());
            bytes.push(0);
        }
        Value::Array(list) => list.iter().for_each(|value| collect_bytes(value, bytes)),
        Value::Object(map) => map.values().for_each(|value| collect_bytes(value, bytes)),
        _ => {}
    }
}
