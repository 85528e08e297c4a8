//! What SES tells by way of SNS, of any bytes: it is taken, or passed over without a word of what it said.
#![no_main]

use std::sync::LazyLock;

use fuzz::{ambient, run, settings, store};
use libfuzzer_sys::fuzz_target;
use mail_events::MailEvents;
use serde_json::json;

static FUNCTION: LazyLock<MailEvents> =
    LazyLock::new(|| MailEvents::new(store(), ambient(), &settings()).expect("settings"));

/// An address in it is logged nowhere.
const ADDRESS: &str = "anna.de.groot@example.com";

fuzz_target!(|message: &str| {
    let sns = |message: &str| json!({"Records": [{"Sns": {"Message": message}}]});
    let told = message.replace("anna@example.com", ADDRESS);
    for event in [sns(&told), serde_json::from_str(message).unwrap_or_default()] {
        let Ok(event) = serde_json::from_value(event) else {
            continue;
        };
        let (taken, logged) = run(FUNCTION.handle(fuzz::event(event)));
        taken.expect("nothing is there to be written");
        // A kind of event that we do not know is logged: SES has words for them, not addresses.
        let mut logged = logged.iter().filter(|line| !line.contains("\"kind\""));
        assert!(!logged.any(|line| line.contains(ADDRESS)));
    }
});
