//! `GET /api/QueryActivation` with any query string: a page with nothing in it, or a refusal that blames a parameter. No
//! cursor is taken that was not signed.
#![no_main]

use std::sync::LazyLock;

use fuzz::{ambient, answer, blamed, request, run, settings, store};
use libfuzzer_sys::fuzz_target;
use query_activation::QueryActivation;
use serde_json::json;

static FUNCTION: LazyLock<QueryActivation> =
    LazyLock::new(|| QueryActivation::new(store(), ambient(), &settings()).expect("settings"));

fuzz_target!(|query: &[u8]| {
    let asked = || request("GET", "/api/QueryActivation", query, b"");
    let (answered, logged) = run(FUNCTION.handle(asked()));
    let (status, body) = answer(answered);
    let text = String::from_utf8_lossy(query).to_ascii_lowercase();
    if status == 200 {
        assert_eq!((&body["total"], &body["results"]), (&json!(0), &json!([])));
        assert!(body["offset"].as_u64().is_some_and(|offset| offset <= 1000));
        assert_eq!(body["meta"], json!({}));
        let mut names = text.split('&').filter_map(|pair| pair.split('=').next());
        assert!(!names.any(|name| name == "cursor"), "a cursor is taken: {text}");
    } else {
        assert_eq!(status, 400, "{body}");
        assert!(!blamed(status, &body).is_empty());
    }
    // The same again is answered the same, and logged the same.
    let (again, logged_again) = run(FUNCTION.handle(asked()));
    assert_eq!(((status, body), logged), (answer(again), logged_again));
});
