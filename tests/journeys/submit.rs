//! `POST /api/SimSwapSubscription`: every rule and every error. A rejected request writes nothing.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::{FormFactor, Secret, Sim, SimState};
use jiff::Timestamp;
use local::dynoxide::AttributeValue;
use local::dynoxide::actions::update_item::UpdateItemRequest;
use local::stack::Options;
use local::tokens::Tokens;
use ring::hmac;
use serde_json::{Value, json};
use tests::stock::free_sim;
use tests::{FREE_CARD, FaultyProxy, ProxyFault, TestResponse, TestStack, card, esim, line};

const PATH: &str = "/api/SimSwapSubscription";
const UNKNOWN_LINE: &str = "65a1b2c3d4e5f60718293aff";
const UNKNOWN_SIM: &str = "8931086000000009999";
const ANNA_S_SIM: &str = "8931086000000000013";
const BRAM_S_SIM: &str = "8931086000000000021";

/// `base` with some fields changed.
fn with(mut base: Value, changes: Value) -> Value {
    for (field, value) in changes.as_object().expect("fields") {
        base[field] = value.clone();
    }
    base
}

/// The status, the top code, and each error as `field code`, in one readable line.
fn summary(response: &TestResponse) -> String {
    let (status, code, faults) = response.error();
    let faults: Vec<_> = faults.iter().map(|(code, field)| format!("{field} {code}")).collect();
    format!("{status} {code}: {}", faults.join(", "))
        .trim_end_matches(": ")
        .to_owned()
}

async fn post(service: &TestStack, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> TestResponse {
    let bearer = format!("Bearer {}", service.owner("C-100"));
    let mut all = vec![("authorization", bearer.as_str())];
    all.extend(headers);
    service.send("POST", PATH, &all, body.into()).await
}

/// Changes a line directly in the table; `:yes` is true.
fn alter(service: &TestStack, line: &str, update: &str) {
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let key = [("pk", text(&format!("L#{line}"))), ("sk", text("line"))];
    let yes = HashMap::from([(":yes".to_owned(), AttributeValue::BOOL(true))]);
    let request = UpdateItemRequest {
        table_name: service.stack.endpoints.table.clone(),
        key: key.map(|(name, value)| (name.to_owned(), value)).into(),
        update_expression: Some(update.to_owned()),
        expression_attribute_values: update.contains(":yes").then_some(yes),
        ..UpdateItemRequest::default()
    };
    service.stack.database.update_item(request).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_field_has_its_rule() {
    let service = TestStack::new().await;
    let owner = service.owner("C-100");
    let before = service.table();
    let long_email = format!(
        "{}@{}.{}.{}.example",
        "a".repeat(64),
        "b".repeat(63),
        "c".repeat(63),
        "d".repeat(54)
    );
    assert_eq!(long_email.len(), 255);
    for (changes, fault) in [
        // Either field identifies the line.
        (json!({"subscriptionId": null}), "subscriptionId NotEmpty"),
        (json!({"subscriptionId": ""}), "subscriptionId NotEmpty"),
        (
            json!({"subscriptionId": "", "phoneNumber": ""}),
            "subscriptionId NotEmpty",
        ),
        (json!({"subscriptionId": "a b"}), "subscriptionId InvalidValue"),
        (
            json!({"subscriptionId": "###3Vp17###7Xg79e"}),
            "subscriptionId InvalidValue",
        ),
        (json!({"subscriptionId": 65}), "subscriptionId InvalidValue"),
        (
            json!({"subscriptionId": "a".repeat(65)}),
            "subscriptionId MaximumLength",
        ),
        (json!({"phoneNumber": "06-1234567"}), "phoneNumber InvalidValue"),
        (json!({"phoneNumber": "31612345601"}), "phoneNumber InvalidValue"),
        (json!({"phoneNumber": "20123401"}), "phoneNumber InvalidValue"),
        (json!({"phoneNumber": "+1234567890123456"}), "phoneNumber InvalidValue"),
        (json!({"phoneNumber": "06-12345601x"}), "phoneNumber InvalidValue"),
        (json!({"phoneNumber": 612345601}), "phoneNumber InvalidValue"),
        (
            json!({"phoneNumber": "x", "subscriptionId": null}),
            "phoneNumber InvalidValue",
        ),
        // The caller's reference.
        (
            json!({"referenceNumber": "1234567890123456"}),
            "referenceNumber MaximumLength",
        ),
        (json!({"referenceNumber": 7}), "referenceNumber InvalidValue"),
        // A card's number is checked even if it is not used.
        (
            json!({"newSimCardNumber": "1234567890"}),
            "newSimCardNumber InvalidValue",
        ),
        (
            json!({"newSimCardNumber": "89310860000000010x1"}),
            "newSimCardNumber InvalidValue",
        ),
        (
            json!({"newSimCardNumber": "8931086000000001011FF"}),
            "newSimCardNumber InvalidValue",
        ),
        (
            json!({"newSimCardNumber": 8931086000000001011_u64}),
            "newSimCardNumber InvalidValue",
        ),
        (
            json!({"newSimCardNumber": "123456789012345678901"}),
            "newSimCardNumber MaximumLength",
        ),
        // Either a card or an eSIM.
        (json!({"eSim": null}), "newSimCardNumber NotEmpty"),
        (json!({"eSim": false}), "newSimCardNumber NotEmpty"),
        (json!({"eSim": "false"}), "newSimCardNumber NotEmpty"),
        (json!({"eSim": 0}), "newSimCardNumber NotEmpty"),
        (json!({"eSim": "yes"}), "eSim InvalidValue"),
        (json!({"eSim": 2}), "eSim InvalidValue"),
        // A name that is given twice, in whatever letters.
        (json!({"esim": true}), "eSim InvalidValue"),
        (json!({"SUBSCRIPTIONID": line::ANNA}), "subscriptionId InvalidValue"),
        (json!({"Email": null}), "email InvalidValue"),
        (
            json!({"PhoneNumber": "06-12345601", "phonenumber": "06-12345601"}),
            "phoneNumber InvalidValue",
        ),
        // Exactly one address.
        (json!({"email": null}), "email NotEmpty"),
        (json!({"email": ""}), "email NotEmpty"),
        (json!({"email": "customer"}), "email InvalidValue"),
        (json!({"email": "a@example.com,b@example.com"}), "email InvalidValue"),
        (json!({"email": "Anna <anna@example.com>"}), "email InvalidValue"),
        (
            json!({"email": "a@example.com\r\nBcc: b@example.com"}),
            "email InvalidValue",
        ),
        (json!({"email": ["a@example.com"]}), "email InvalidValue"),
        (json!({"email": "jos\u{e9}@example.com"}), "email InvalidValue"),
        (json!({"email": long_email}), "email MaximumLength"),
        // The code that the customer types.
        (json!({"confirmationCode": null}), "confirmationCode NotEmpty"),
        (json!({"confirmationCode": ""}), "confirmationCode NotEmpty"),
        (json!({"confirmationCode": "8E 9"}), "confirmationCode InvalidValue"),
        (json!({"confirmationCode": "8É9"}), "confirmationCode InvalidValue"),
        (json!({"confirmationCode": 12345}), "confirmationCode InvalidValue"),
        (
            json!({"confirmationCode": "SeCrEt-7777"}),
            "confirmationCode MaximumLength",
        ),
        // All errors at once, in the order of the fields; the first gives the top code.
        (
            json!({"subscriptionId": "a b", "phoneNumber": "x", "referenceNumber": 7, "newSimCardNumber": "1",
                   "email": "x", "confirmationCode": "SeCrEt-7777"}),
            "subscriptionId InvalidValue, phoneNumber InvalidValue, referenceNumber InvalidValue, \
             newSimCardNumber InvalidValue, email InvalidValue, confirmationCode MaximumLength",
        ),
        (
            json!({"subscriptionId": null, "email": null, "confirmationCode": null}),
            "subscriptionId NotEmpty, email NotEmpty, confirmationCode NotEmpty",
        ),
        (
            json!({"subscriptionId": null, "eSim": null, "email": "x"}),
            "subscriptionId NotEmpty, newSimCardNumber NotEmpty, email InvalidValue",
        ),
    ] {
        let body = with(esim(line::ANNA), changes);
        let response = service.submit(&owner, &body).await;
        let first = fault.split(", ").next().unwrap();
        let (_, code) = first.split_once(' ').unwrap();
        assert_eq!(summary(&response), format!("400 {code}: {fault}"), "{body}");
        let json = response.json();
        let status = &json["responseStatus"];
        assert_eq!(status["message"], status["errors"][0]["message"], "{body}");
        for secret in ["8E9", "8E 9", "8É9", "12345,", "SeCrEt"] {
            assert!(!response.body.contains(secret), "{}", response.body);
        }
    }
    // What is missing can be given in more than one way.
    let response = service.submit(&owner, &json!({})).await;
    assert_eq!(
        summary(&response),
        "400 NotEmpty: subscriptionId NotEmpty, newSimCardNumber NotEmpty"
    );
    for words in ["'subscriptionId' or 'phoneNumber'", "or 'eSim': true"] {
        assert!(response.body.contains(words), "{}", response.body);
    }
    let headers = [("Idempotency-Key", "\"\"")];
    let body = with(esim(line::ANNA), json!({"email": "x"}));
    let response = service.submit_with(&owner, &headers, &body).await;
    assert_eq!(
        summary(&response),
        "400 InvalidValue: email InvalidValue, Idempotency-Key InvalidValue"
    );

    for (field, value, min, max, shown) in [
        ("subscriptionId", "a".repeat(65), "1", "64", None),
        ("referenceNumber", "é".repeat(16), "0", "15", None),
        ("newSimCardNumber", "1".repeat(21), "11", "20", None),
        ("email", long_email, "1", "254", None),
        (
            "confirmationCode",
            "SeCrEt-7777".to_owned(),
            "1",
            "10",
            Some("##########"),
        ),
    ] {
        let body = with(esim(line::ANNA), json!({field: value}));
        let response = service.submit(&owner, &body).await;
        let total = value.chars().count();
        let message = format!("'{field}' must be at most {max} characters; it has {total}.");
        let expected = json!({"responseStatus": {
            "errorCode": "MaximumLength", "message": message,
            "errors": [{
                "errorCode": "MaximumLength", "fieldName": field, "message": message,
                "meta": {
                    "MinLength": min, "MaxLength": max, "TotalLength": total.to_string(),
                    "PropertyName": field, "PropertyValue": shown.unwrap_or(&value),
                },
            }],
        }});
        assert_eq!(response.json(), expected);
    }
    assert_eq!(service.table(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spellings_of_one_request() {
    let service = TestStack::start(Options {
        // No swap makes progress while the spellings are compared.
        network_delay: Duration::from_secs(3600),
        ..TestStack::options()
    })
    .await;
    let admin = service.admin();
    let anna = |changes| with(json!({"newSimCardNumber": FREE_CARD}), changes);
    let first = service
        .submit(&admin, &anna(json!({"subscriptionId": line::ANNA})))
        .await;
    assert_eq!(first.status, 200, "{first:?}");
    assert_eq!(first.json()["phoneNumber"], "06-12345601");
    for changes in [
        json!({"subscriptionId": line::ANNA.to_uppercase()}),
        json!({"phoneNumber": "06-12345601"}),
        json!({"phoneNumber": "0612345601"}),
        json!({"phoneNumber": "+31612345601"}),
        json!({"phoneNumber": "0031612345601"}),
        json!({"phoneNumber": "06 12 34 56 01"}),
        json!({"phoneNumber": " +31 6 12345601 "}),
        json!({"phoneNumber": "+31 (0)6 12 34 56 01"}),
        json!({"phoneNumber": "06\u{2011}1234\u{a0}5601"}),
        json!({"PhoneNumber": "06.12/345601"}),
        json!({"SUBSCRIPTIONID": line::ANNA, "eSIM": null}),
        json!({"phoneNumber": "06-12345601", "subscriptionId": line::ANNA}),
        json!({"subscriptionId": line::ANNA, "newSimCardNumber": format!("{FREE_CARD}F")}),
        json!({"subscriptionId": line::ANNA, "referenceNumber": "", "email": null, "eSim": null}),
        json!({"subscriptionId": line::ANNA, "unknown": {"deep": [1, null]}, "UNKNOWN": 7}),
    ] {
        let again = service.submit(&admin, &anna(changes.clone())).await;
        assert_eq!(again.status, 200, "{changes} {again:?}");
        assert_eq!(again.json()["id"], first.json()["id"], "{changes}");
        assert_eq!(again.json()["subscriptionId"], line::ANNA);
    }

    let email = "customer@example.com";
    let code = "8E9!#";
    // The request, and the line's number and `info` in the response.
    for (request, phone, reference, info) in [
        (
            json!({"PhoneNumber": "06-12345602", "ESim": "true", "EMAIL": format!(" {email} "), "confirmationcode": code}),
            "06-12345602",
            "",
            json!({"eSim": true, "email": email, "confirmationCode": code}),
        ),
        // An eSIM swap, although the card number is that of an existing SIM.
        (
            json!({"subscriptionId": line::CARLA, "eSIM": 1, "email": email, "confirmationCode": "~",
                   "newSimCardNumber": BRAM_S_SIM, "referenceNumber": "é".repeat(15)}),
            "06-12345603",
            "ééééééééééééééé",
            json!({"eSim": true, "email": email, "confirmationCode": "~", "newSimCardNumber": BRAM_S_SIM}),
        ),
        // The account API's example card, whose check digit is wrong, with a filler.
        (
            json!({"phoneNumber": "0045 20123401", "eSim": false, "newSimCardNumber": "1234567890123456789F",
                   "email": "customer@b\u{fc}cher.example", "referenceNumber": "R-1"}),
            "+4520123401",
            "R-1",
            json!({"eSim": false, "email": "customer@xn--bcher-kva.example", "newSimCardNumber": "1234567890123456789"}),
        ),
    ] {
        let response = service.submit(&admin, &request).await;
        assert_eq!(response.status, 200, "{request} {response:?}");
        let swap = response.json();
        assert_eq!(swap["phoneNumber"], phone);
        assert_eq!(swap["referenceNumber"], reference);
        assert_eq!(swap["info"].to_string(), info.to_string());
        let kind = service.record(swap["id"].as_str().unwrap()).await.kind;
        assert_eq!(kind == domain::SwapKind::Esim, info["eSim"] == true);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_json_and_oversized_bodies_are_rejected() {
    let service = TestStack::new().await;
    let before = service.table();
    let padded = |length: usize| {
        let body = json!({"subscriptionId": UNKNOWN_LINE, "newSimCardNumber": FREE_CARD}).to_string();
        format!("{body}{}", " ".repeat(length - body.len())).into_bytes()
    };
    let json_type = ("content-type", "application/json");
    let text_type = ("content-type", "text/plain");
    let not_json = "400 SerializationException";
    let read = "404 NotFound: subscriptionId NotFound";
    for (what, headers, body, expected) in [
        ("as large as allowed", vec![json_type], padded(10_240), read),
        ("too large", vec![json_type], padded(10_241), "413 PayloadTooLarge"),
        ("413 before 415", vec![text_type], padded(10_241), "413 PayloadTooLarge"),
        (
            "415 before JSON",
            vec![text_type],
            b"nothing".to_vec(),
            "415 UnsupportedMediaType",
        ),
        (
            "a form",
            vec![("content-type", "application/x-www-form-urlencoded")],
            padded(200),
            "415 UnsupportedMediaType",
        ),
        ("no content type", vec![], padded(200), read),
        (
            "with a charset",
            vec![("content-type", "Application/JSON; charset=utf-8")],
            padded(200),
            read,
        ),
        (
            "of the JSON family",
            vec![("content-type", "application/vnd.simswap+json")],
            padded(200),
            read,
        ),
        ("a type given twice", vec![json_type, json_type], padded(200), read),
        (
            "a type joined by a gateway",
            vec![("content-type", "application/json, application/json;charset=UTF-8")],
            padded(200),
            read,
        ),
        (
            "two types",
            vec![json_type, text_type],
            padded(200),
            "415 UnsupportedMediaType",
        ),
        (
            "a byte order mark",
            vec![json_type],
            ["\u{feff}".as_bytes(), &padded(200)].concat(),
            read,
        ),
        (
            "compressed",
            vec![json_type, ("content-encoding", "gzip")],
            padded(200),
            "415 UnsupportedMediaType",
        ),
        (
            "not compressed",
            vec![json_type, ("content-encoding", "identity")],
            padded(200),
            read,
        ),
        ("nothing", vec![json_type], Vec::new(), not_json),
        ("an empty body", vec![], Vec::new(), not_json),
        ("half", vec![json_type], b"{\"eSim\":".to_vec(), not_json),
        ("two", vec![json_type], b"{}{}".to_vec(), not_json),
        ("a list", vec![json_type], b"[]".to_vec(), not_json),
        ("text", vec![json_type], b"\"x\"".to_vec(), not_json),
        ("null", vec![json_type], b"null".to_vec(), not_json),
        ("not UTF-8", vec![json_type], b"{\"email\":\"\xff\"}".to_vec(), not_json),
        ("very deep", vec![json_type], b"[".repeat(10_000), not_json),
    ] {
        let response = post(&service, &headers, body).await;
        assert_eq!(summary(&response), expected, "{what}");
        assert_eq!(response.headers["content-type"], "application/json; charset=utf-8");
    }
    assert_eq!(service.table(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_tokens_are_rejected() {
    let service = TestStack::new().await;
    let before = service.table();
    let body = card(line::ANNA, FREE_CARD).to_string();
    let good = service.admin();
    let [head, claims, signature] = good.split('.').collect::<Vec<_>>()[..] else {
        panic!("three parts");
    };
    // The same header with another algorithm.
    let header = String::from_utf8(URL_SAFE_NO_PAD.decode(head).unwrap()).unwrap();
    let encoded = |algorithm: &str| {
        let header = header.replace("RS256", algorithm);
        assert!(header.contains(algorithm));
        format!("{}.{claims}", URL_SAFE_NO_PAD.encode(header))
    };
    let unsigned = format!("{}.", encoded("none"));
    let text = encoded("HS256");
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b""), text.as_bytes());
    let symmetric = format!("{text}.{}", URL_SAFE_NO_PAD.encode(tag));
    let now = Timestamp::now();
    let stranger = Tokens::open(None).unwrap();
    let stranger = stranger.issue("ADMIN", None, None, "test", 3600, now);
    let expired = service.stack.tokens.issue("ADMIN", None, None, "test", -1, now);
    let other_claims = URL_SAFE_NO_PAD.encode(r#"{"role":"ADMIN"}"#);
    for (what, authorization) in [
        ("none", None),
        ("empty", Some(String::new())),
        ("garbage", Some("Bearer garbage".to_owned())),
        ("another scheme", Some(format!("Basic {good}"))),
        ("expired", Some(format!("Bearer {expired}"))),
        ("another key", Some(format!("Bearer {stranger}"))),
        ("alg none", Some(format!("Bearer {unsigned}"))),
        ("alg HS256", Some(format!("Bearer {symmetric}"))),
        (
            "other claims",
            Some(format!("Bearer {head}.{other_claims}.{signature}")),
        ),
    ] {
        let mut headers = vec![("content-type", "application/json")];
        headers.extend(authorization.as_deref().map(|a| ("authorization", a)));
        let response = service.send("POST", PATH, &headers, body.clone()).await;
        assert_eq!(
            (response.status, response.body.as_str()),
            (401, r#"{"message":"Unauthorized"}"#),
            "{what}"
        );
        assert!(response.headers.contains_key("www-authenticate"), "{what}");
    }
    assert_eq!(service.table(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_s_line_beside_an_own_one_does_not_exist() {
    let proxy = FaultyProxy::new().await;
    let service = TestStack::with(&[("AWS_ENDPOINT_URL_DYNAMODB", &proxy.url)]).await;
    proxy.connect(&service.stack.endpoints.dynamodb);
    let before = service.table();
    let owner = service.owner("C-100");
    let key = [("Idempotency-Key", "k")];
    let both = |id: &str, phone: &str| json!({"subscriptionId": id, "phoneNumber": phone});
    let (anna, carla, unknown) = ("06-12345601", "06-12345603", "06-99999999");
    // A stranger's line, an unknown line, and the field with the error.
    for (foreign, missing, field) in [
        (both(line::CARLA, anna), both(UNKNOWN_LINE, anna), "subscriptionId"),
        (both(line::ANNA, carla), both(line::ANNA, unknown), "phoneNumber"),
    ] {
        for rest in [json!({"newSimCardNumber": FREE_CARD}), esim(line::ANNA)] {
            for headers in [&key[..0], &key] {
                let mut seen = Vec::new();
                for named in [&foreign, &missing] {
                    let mut body = rest.clone();
                    body.as_object_mut().unwrap().remove("subscriptionId");
                    let calls = proxy.count("POST /");
                    let body = with(body, named.clone());
                    let response = service.submit_with(&owner, headers, &body).await;
                    assert_eq!(summary(&response), format!("404 NotFound: {field} NotFound"));
                    seen.push((response.timeless(), proxy.count("POST /") - calls));
                }
                assert_eq!(seen[0], seen[1], "{foreign}");
            }
        }
    }
    // Two lines, both of which the caller may see.
    let two = with(card(line::ANNA, FREE_CARD), json!({"phoneNumber": "06-12345602"}));
    let response = service.submit(&owner, &two).await;
    assert_eq!(summary(&response), "400 InvalidValue: phoneNumber InvalidValue");
    assert_eq!(service.table(), before);
}

/// A free card of KPN and R-10.
fn stock(iccid: &str) -> Sim {
    Sim {
        reseller: Some("R-10".to_owned()),
        pin1: Some(Secret::new("1234")),
        ..free_sim("KPN", iccid, FormFactor::Nano)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unavailable_sims_look_the_same() {
    let service = TestStack::start(Options {
        // Bram's open swap reserves its card.
        network_delay: Duration::from_secs(3600),
        ..TestStack::options_with(&[("ASK_AFTER", "1h")])
    })
    .await;
    let owner = service.owner("C-100");
    let (of_other, cooling_down, disabled, without_reseller) = (
        "8931086000000007001",
        "8931086000000007002",
        "8931086000000007003",
        "8931086000000007004",
    );
    for sim in [
        Sim {
            reseller: Some("R-20".to_owned()),
            ..stock(of_other)
        },
        Sim {
            free_from: Timestamp::now() + jiff::SignedDuration::from_hours(1),
            ..stock(cooling_down)
        },
        Sim {
            state: SimState::Disabled,
            ..stock(disabled)
        },
        Sim {
            reseller: None,
            ..stock(without_reseller)
        },
    ] {
        service.stack.store.add_sim(&sim).await.unwrap();
    }
    let other = service.start_swap(&card(line::BRAM, FREE_CARD)).await;
    service.await_status(&other, "BUSY").await;

    let before = service.table();
    let mut seen: Option<TestResponse> = None;
    for (what, iccid) in [
        ("unknown", UNKNOWN_SIM),
        ("of an open swap", FREE_CARD),
        ("of another line", BRAM_S_SIM),
        ("of the same line", ANNA_S_SIM),
        ("of another network", "8945020000000001010"),
        ("of another reseller", of_other),
        ("cooling down", cooling_down),
        ("disabled", disabled),
        ("an eSIM", "8931086000000002019"),
    ] {
        let response = service.submit(&owner, &card(line::ANNA, iccid)).await;
        assert_eq!(summary(&response), "404 NotFound: newSimCardNumber NotFound", "{what}");
        let response = response.timeless();
        assert_eq!(*seen.get_or_insert_with(|| response.clone()), response, "{what}");
    }
    let none_left = service.submit(&service.owner("C-300"), &esim(line::EMIL)).await;
    assert_eq!(summary(&none_left), "404 OutOfStock: eSim OutOfStock");
    assert_eq!(service.table(), before);

    let response = service.submit(&owner, &card(line::ANNA, without_reseller)).await;
    assert_eq!(response.status, 200, "{response:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_reason_is_reported() {
    let service = TestStack::start(Options {
        network_delay: Duration::from_secs(3600),
        ..TestStack::options_with(&[("ASK_AFTER", "1h")])
    })
    .await;
    let owner = service.owner("C-100");
    let key = [("Idempotency-Key", "k")];
    let used = card(line::ANNA, FREE_CARD);
    let first = service.submit_with(&owner, &key, &used).await;
    assert_eq!(first.status, 200, "{first:?}");
    let open = first.json()["id"].as_str().unwrap().to_owned();
    service.await_status(&open, "BUSY").await;
    // The open swap comes before all other reasons, and BLOCKED before porting.
    alter(&service, line::ANNA, "SET locked = :yes, porting = :yes");
    alter(&service, line::FLEUR, "SET porting = :yes");
    alter(&service, line::HANNA, "SET porting = :yes");
    let before = service.table();
    for (what, headers, body, expected) in [
        (
            "fields before line",
            &key[..0],
            with(card(UNKNOWN_LINE, FREE_CARD), json!({"email": "x"})),
            "400 InvalidValue: email InvalidValue",
        ),
        (
            "line before replay",
            &key[..],
            card(UNKNOWN_LINE, FREE_CARD),
            "404 NotFound: subscriptionId NotFound",
        ),
        (
            "replay before 409",
            &key[..],
            card(line::ANNA, UNKNOWN_SIM),
            "422 IdempotencyMismatch",
        ),
        (
            "409 before Locked",
            &key[..0],
            card(line::ANNA, UNKNOWN_SIM),
            "409 SwapInProgress: subscriptionId SwapInProgress",
        ),
        (
            "Locked before Porting",
            &key[..0],
            card(line::HANNA, UNKNOWN_SIM),
            "403 Locked",
        ),
        (
            "Blocked before Porting",
            &key[..0],
            card(line::FLEUR, UNKNOWN_SIM),
            "403 Blocked",
        ),
        (
            "Porting before SIM",
            &key[..0],
            card(line::GIJS, UNKNOWN_SIM),
            "403 Porting",
        ),
        ("Locked, an eSIM", &key[..0], esim(line::HANNA), "403 Locked"),
        ("Blocked, an eSIM", &key[..0], esim(line::FLEUR), "403 Blocked"),
        ("Porting, an eSIM", &key[..0], esim(line::GIJS), "403 Porting"),
    ] {
        let response = service.submit_with(&owner, headers, &body).await;
        assert_eq!(summary(&response), expected, "{what}");
    }
    let again = service.submit_with(&owner, &key, &used).await;
    assert_eq!((again.status, again.body), (200, first.body));
    assert_eq!(service.table(), before);

    alter(&service, line::FLEUR, "SET locked = :yes");
    let blocked = service.submit(&owner, &card(line::FLEUR, UNKNOWN_SIM)).await;
    assert_eq!(summary(&blocked), "403 Locked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_response_does_not_tell_why_the_table_failed() {
    let proxy = FaultyProxy::new().await;
    let service = TestStack::with(&[("AWS_ENDPOINT_URL_DYNAMODB", &proxy.url)]).await;
    let before = service.table();
    let owner = service.owner("C-100");
    let check = async |what: &str, status, code: &str, message: &str| {
        let body = card(line::ANNA, FREE_CARD);
        let response = service.submit(&owner, &body).await;
        let expected = json!({"responseStatus": {"errorCode": code, "message": message, "errors": []}});
        assert_eq!((response.status, response.json()), (status, expected), "{what}");
        let retry = response.headers.get("retry-after").map(|v| v.to_str().unwrap());
        assert_eq!(retry, (status == 503).then_some("1"), "{what}");
    };
    let later = "The service is not available now. Try again in a moment.";
    let never = "Something went wrong on our side. Repeat the request; if it fails again, contact us.";

    check("out of reach", 503, "Unavailable", later).await;
    proxy.connect(&service.stack.endpoints.dynamodb);
    let responses = |status: u16, code: &str, times: usize| {
        let body = json!({"__type": format!("com.amazonaws.dynamodb.v20120810#{code}"), "message": "a cause"});
        for _ in 0..times {
            proxy.plan("POST /", ProxyFault::Respond(status, body.to_string()));
        }
    };
    // The SDK attempts a call that may succeed three times.
    for (status, code) in [
        (400, "ProvisionedThroughputExceededException"),
        (400, "ThrottlingException"),
        (500, "InternalServerError"),
    ] {
        responses(status, code, 3);
        check(code, 503, "Unavailable", later).await;
        assert!(proxy.is_spent(), "{code}");
    }
    for (status, code) in [(400, "ResourceNotFoundException"), (400, "AccessDeniedException")] {
        responses(status, code, 1);
        check(code, 500, "InternalError", never).await;
        assert!(proxy.is_spent(), "{code}");
    }
    assert_eq!(service.table(), before);
    alter(&service, line::ANNA, "REMOVE phone");
    check("an unreadable row", 500, "InternalError", never).await;
}
