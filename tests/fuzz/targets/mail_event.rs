//! SES events of any bytes, as SNS delivers them: each is accepted, or ignored without a word of it in the log.
#![no_main]

use std::sync::LazyLock;

use fuzz::{clock_and_rng, run, settings, store};
use libfuzzer_sys::fuzz_target;
use mail_events::MailEvents;
use serde_json::json;

static FUNCTION: LazyLock<MailEvents> =
    LazyLock::new(|| MailEvents::new(store(), clock_and_rng(), &settings()).expect("settings"));

/// An address that must never be logged.
const ADDRESS: &str = "anna.de.groot@example.com";

fuzz_target!(|message: &str| {
    let sns = |message: &str| json!({"Records": [{"Sns": {"Message": message}}]});
    let text = message.replace("anna@example.com", ADDRESS);
    for event in [sns(&text), serde_json::from_str(message).unwrap_or_default()] {
        let Ok(event) = serde_json::from_value(event) else {
            continue;
        };
        let (result, logged) = run(FUNCTION.handle(fuzz::event(event)));
        result.expect("no row to write");
        // An unknown type of event is logged: SES's types are words, not addresses.
        let mut logged = logged.iter().filter(|line| !line.contains("\"kind\""));
        assert!(!logged.any(|line| line.contains(ADDRESS)));
    }
});
