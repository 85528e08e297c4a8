//! `POST /api/SimSwapSubscription` with any body: a refusal blames a field that there is, and is the same whatever the
//! confirmation code is made of.
#![no_main]

use std::sync::LazyLock;

use fuzz::{ambient, answer, blamed, request, run, settings, store};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use submit_swap::SubmitSwap;

static FUNCTION: LazyLock<SubmitSwap> =
    LazyLock::new(|| SubmitSwap::new(store(), ambient(), &settings()).expect("settings"));

const FIELDS: [&str; 7] = [
    "subscriptionId",
    "phoneNumber",
    "referenceNumber",
    "newSimCardNumber",
    "eSim",
    "email",
    "confirmationCode",
];

fn ask(body: &[u8]) -> ((u16, Value), Vec<String>) {
    let asked = request("POST", "/api/SimSwapSubscription", b"", body);
    let (answered, logged) = run(FUNCTION.handle(asked));
    (answer(answered), logged)
}

fuzz_target!(|body: &[u8]| {
    let ((status, answered), _) = ask(body);
    assert!([400, 404, 413].contains(&status), "{status} {answered}");
    for field in blamed(status, &answered) {
        assert!(FIELDS.contains(&field), "{field}");
    }

    let Ok(mut asked) = serde_json::from_slice::<Value>(body) else {
        return;
    };
    let Some(Value::String(code)) = asked.get("confirmationCode").cloned() else {
        return;
    };
    let first = ask(asked.to_string().as_bytes());
    // What is written longer in JSON stays, so that the body is as long as it was.
    let other = |c: char| {
        if c.is_ascii_graphic() && !"\"\\".contains(c) {
            'x'
        } else {
            c
        }
    };
    asked["confirmationCode"] = code.chars().map(other).collect::<String>().into();
    assert_eq!(first, ask(asked.to_string().as_bytes()));
});
