//! Stream events of any bytes: a record that names a row succeeds, because the row does not exist, and a record that
//! names none fails alone.
#![no_main]

use std::collections::BTreeMap;
use std::sync::LazyLock;

use aws_lambda_events::event::dynamodb::Event;
use deliver_esim::DeliverEsim;
use fulfil_swap::{FulfilSwap, Peers};
use fuzz::{aws, clock_and_rng, fixed_response, run, settings, store};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

static FULFIL: LazyLock<FulfilSwap> = LazyLock::new(|| {
    let peers = Peers {
        smdp: fixed_response(500, b""),
        network: fixed_response(500, b""),
    };
    FulfilSwap::new(store(), peers, clock_and_rng(), &settings()).expect("settings")
});
static DELIVER: LazyLock<DeliverEsim> = LazyLock::new(|| {
    let ses = aws_sdk_ses::config::Builder::from(&aws()).allow_no_auth().build();
    DeliverEsim::new(store(), &ses, clock_and_rng(), &settings()).expect("settings")
});

/// How often each sequence number occurs.
fn counted(numbers: impl Iterator<Item = Value>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for number in numbers {
        *counts.entry(number.to_string()).or_default() += 1;
    }
    counts
}

fuzz_target!(|text: &[u8]| {
    let Ok(event) = serde_json::from_slice::<Event>(text) else {
        return;
    };
    let unreadable = event.records.iter().filter(|record| {
        let keys = json!(record.change.keys);
        !["pk", "sk"].iter().all(|name| keys[*name]["S"].is_string())
    });
    let expected = counted(unreadable.map(|record| json!(record.change.sequence_number)));
    let (fulfilled, _) = run(FULFIL.handle(fuzz::event(event.clone())));
    let (delivered, _) = run(DELIVER.handle(fuzz::event(event)));
    for response in [fulfilled, delivered] {
        let failed = response.batch_item_failures.into_iter();
        assert_eq!(counted(failed.map(|failure| json!(failure.item_identifier))), expected);
    }
});
