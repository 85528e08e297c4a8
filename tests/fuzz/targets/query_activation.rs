//! `GET /api/QueryActivation` with any query string: the response is an empty page, or an error that names a parameter.
//! A cursor that we did not sign is rejected.
#![no_main]

use std::sync::LazyLock;

use fuzz::{clock_and_rng, named_fields, request, run, settings, status_and_body, store};
use libfuzzer_sys::fuzz_target;
use query_activation::QueryActivation;
use serde_json::json;

static FUNCTION: LazyLock<QueryActivation> =
    LazyLock::new(|| QueryActivation::new(store(), clock_and_rng(), &settings()).expect("settings"));

fuzz_target!(|query: &[u8]| {
    let build_request = || request("GET", "/api/QueryActivation", query, b"");
    let (response, logged) = run(FUNCTION.handle(build_request()));
    let (status, body) = status_and_body(response);
    let text = String::from_utf8_lossy(query).to_ascii_lowercase();
    if status == 200 {
        assert_eq!((&body["total"], &body["results"]), (&json!(0), &json!([])));
        assert!(body["offset"].as_u64().is_some_and(|offset| offset <= 1000));
        assert_eq!(body["meta"], json!({}));
        let mut names = text.split('&').filter_map(|pair| pair.split('=').next());
        assert!(!names.any(|name| name == "cursor"), "a cursor is accepted: {text}");
    } else {
        assert_eq!(status, 400, "{body}");
        assert!(!named_fields(status, &body).is_empty());
    }
    // The same request again gets the same response and the same log.
    let (again, logged_again) = run(FUNCTION.handle(build_request()));
    assert_eq!(((status, body), logged), (status_and_body(again), logged_again));
});
