//! `POST /api/SimSwapSubscription` with any body: an error names an existing field, and does not depend on the
//! characters of the confirmation code.
#![no_main]

use std::sync::LazyLock;

use fuzz::{clock_and_rng, named_fields, request, run, settings, status_and_body, store};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use submit_swap::SubmitSwap;

static FUNCTION: LazyLock<SubmitSwap> =
    LazyLock::new(|| SubmitSwap::new(store(), clock_and_rng(), &settings()).expect("settings"));

const FIELDS: [&str; 7] = [
    "subscriptionId",
    "phoneNumber",
    "referenceNumber",
    "newSimCardNumber",
    "eSim",
    "email",
    "confirmationCode",
];

fn submit(body: &[u8]) -> ((u16, Value), Vec<String>) {
    let sent = request("POST", "/api/SimSwapSubscription", b"", body);
    let (response, logged) = run(FUNCTION.handle(sent));
    (status_and_body(response), logged)
}

fuzz_target!(|body: &[u8]| {
    let ((status, response), _) = submit(body);
    assert!([400, 404, 413].contains(&status), "{status} {response}");
    for field in named_fields(status, &response) {
        assert!(FIELDS.contains(&field), "{field}");
    }

    let Ok(mut sent) = serde_json::from_slice::<Value>(body) else {
        return;
    };
    let Some(Value::String(code)) = sent.get("confirmationCode").cloned() else {
        return;
    };
    let first = submit(sent.to_string().as_bytes());
    // Characters that JSON escapes stay, so the body keeps its length.
    let other = |c: char| {
        if c.is_ascii_graphic() && !"\"\\".contains(c) {
            'x'
        } else {
            c
        }
    };
    sent["confirmationCode"] = code.chars().map(other).collect::<String>().into();
    assert_eq!(first, submit(sent.to_string().as_bytes()));
});
