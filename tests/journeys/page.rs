//! The page `/local` of the local stack, and the routes that it needs besides the API. `.ci/page.py` plays swaps on the
//! page in a browser.

use serde_json::{Value, json};
use tests::{FREE_CARD, TestResponse, TestStack, card, esim, line};

async fn get(service: &TestStack, path: &str) -> TestResponse {
    service.send("GET", path, &[], "").await
}

fn header<'a>(response: &'a TestResponse, name: &str) -> &'a str {
    response.headers[name].to_str().unwrap()
}

#[tokio::test]
async fn the_page_runs_only_its_own_script() {
    let service = TestStack::new().await;
    let page = get(&service, "/local").await;
    let policy = header(&page, "content-security-policy");
    for directive in [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.contains(directive), "{directive} in {policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");

    let loaded = page.body.split('"').filter(|text| text.starts_with("/local/"));
    let loaded: Vec<&str> = loaded.collect();
    assert_eq!(loaded, ["/local/page.css", "/local/page.js"]);
    let types = ["text/html", "text/css", "text/javascript"];
    for (path, content_type) in ["/local"].into_iter().chain(loaded).zip(types) {
        let response = get(&service, path).await;
        assert_eq!(response.status, 200, "{path}");
        let expected = format!("{content_type}; charset=utf-8");
        assert_eq!(header(&response, "content-type"), expected, "{path}");
        assert_eq!(header(&response, "cache-control"), "no-store", "{path}");
        assert_eq!(header(&response, "x-content-type-options"), "nosniff", "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mail_is_shown_with_its_qr_code_and_runs_no_script() {
    let service = TestStack::new().await;
    let id = service.start_swap(&esim(line::ANNA)).await;
    service.await_mail(&id).await;
    let mails = get(&service, "/local/mail").await.json();
    let mail = mails[0]["id"].as_str().unwrap();
    let shown = get(&service, &format!("/local/mail/{mail}.html")).await;
    assert_eq!(
        (shown.status, header(&shown, "content-type")),
        (200, "text/html; charset=utf-8")
    );
    let policy = header(&shown, "content-security-policy");
    assert!(policy.starts_with("default-src 'none';"), "{policy}");
    assert!(policy.ends_with("; sandbox"), "{policy}");
    assert!(shown.body.contains("src=\"data:image/png;base64,iVBORw0KGgo"));
    assert!(!shown.body.contains("cid:"));
    assert_eq!(get(&service, "/local/mail/1.html").await.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_knows_the_lines_the_free_sims_and_a_token_for_each_caller() {
    let service = TestStack::new().await;
    let tokens = get(&service, "/local/tokens").await;
    assert_eq!(header(&tokens, "cross-origin-resource-policy"), "same-origin");
    let mut callers = Vec::new();
    for caller in tokens.json().as_array().unwrap() {
        let bearer = format!("Bearer {}", caller["token"].as_str().unwrap());
        let headers = [("authorization", bearer.as_str())];
        let found = service.send("GET", "/api/QueryActivation", &headers, "").await;
        assert_eq!(found.status, 200, "{caller}");
        callers.push(json!([caller["role"], caller["holder"]]));
    }
    let expected = json!([
        ["ADMIN", null],
        ["RESELLER", "R-10"],
        ["RESELLER", "R-20"],
        ["OWNER", "C-100"],
        ["OWNER", "C-200"],
        ["OWNER", "C-300"],
    ]);
    assert_eq!(Value::from(callers), expected);

    let lines = get(&service, "/local/lines").await.json();
    let blockers: Vec<_> = lines.as_array().unwrap().iter().map(|line| &line["blocker"]).collect();
    let [inactive, porting, locked] = [
        "the line is not active",
        "the number is being ported",
        "the line is locked",
    ];
    assert_eq!(
        json!(blockers),
        json!([null, null, null, null, null, inactive, porting, locked])
    );
    let anna = json!({
        "id": line::ANNA, "phoneNumber": "06-12345601", "customer": "C-100", "reseller": "R-10", "network": "KPN",
        "currentSim": "8931086000000000013", "email": "anna@example.com", "blocker": null,
    });
    assert_eq!(lines[0], anna);

    let sims = get(&service, "/local/sims").await.json();
    assert_eq!(sims.as_array().unwrap().len(), 91);
    let free = json!({"iccid": FREE_CARD, "network": "KPN", "reseller": "R-10", "formFactor": "NANO"});
    assert_eq!(sims[0], free);
    service.start_swap(&esim(line::ANNA)).await;
    assert_eq!(
        get(&service, "/local/lines").await.json()[0]["blocker"],
        "a swap is open"
    );
    service.start_swap(&card(line::BRAM, FREE_CARD)).await;
    let sims = get(&service, "/local/sims").await.json();
    assert_eq!(sims.as_array().unwrap().len(), 89);
    assert_ne!(sims[0], free);
}
