//! What `POST /api/SimSwapSubscription` takes and what it refuses: every rule and every error, with nothing written by a refusal.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::{FormFactor, Iccid, NetworkName, Secret, Sim, SimState};
use jiff::Timestamp;
use local::dynoxide::AttributeValue;
use local::dynoxide::actions::update_item::UpdateItemRequest;
use local::stack::Options;
use local::tokens::Tokens;
use ring::hmac;
use serde_json::{Value, json};
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

/// Status, top code, and each fault as `field code`, in one readable line.
fn told(answer: &TestResponse) -> String {
    let (status, code, faults) = answer.refusal();
    let faults: Vec<_> = faults.iter().map(|(code, field)| format!("{field} {code}")).collect();
    format!("{status} {code}: {}", faults.join(", "))
        .trim_end_matches(": ")
        .to_owned()
}

async fn post(world: &TestStack, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> TestResponse {
    let bearer = format!("Bearer {}", world.owner("C-100"));
    let mut all = vec![("authorization", bearer.as_str())];
    all.extend(headers);
    world.send("POST", PATH, &all, body.into()).await
}

/// Changes a line beneath the API; `:yes` is true.
fn alter(world: &TestStack, line: &str, update: &str) {
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let key = [("pk", text(&format!("L#{line}"))), ("sk", text("line"))];
    let yes = HashMap::from([(":yes".to_owned(), AttributeValue::BOOL(true))]);
    let request = UpdateItemRequest {
        table_name: world.stack.endpoints.table.clone(),
        key: key.map(|(name, value)| (name.to_owned(), value)).into(),
        update_expression: Some(update.to_owned()),
        expression_attribute_values: update.contains(":yes").then_some(yes),
        ..UpdateItemRequest::default()
    };
    world.stack.database.update_item(request).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_field_has_its_rule() {
    let world = TestStack::new().await;
    let owner = world.owner("C-100");
    let before = world.table();
    let long_email = format!(
        "{}@{}.{}.{}.example",
        "a".repeat(64),
        "b".repeat(63),
        "c".repeat(63),
        "d".repeat(54)
    );
    assert_eq!(long_email.len(), 255);
    for (changes, fault) in [
        // Either names the line.
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
        // A reference of the caller's.
        (
            json!({"referenceNumber": "1234567890123456"}),
            "referenceNumber MaximumLength",
        ),
        (json!({"referenceNumber": 7}), "referenceNumber InvalidValue"),
        // A card's number is checked even where it is not used.
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
        // A card or an eSIM.
        (json!({"eSim": null}), "newSimCardNumber NotEmpty"),
        (json!({"eSim": false}), "newSimCardNumber NotEmpty"),
        (json!({"eSim": null, "esim": false}), "newSimCardNumber NotEmpty"),
        (json!({"eSim": "true"}), "eSim InvalidValue"),
        (json!({"eSim": 1}), "eSim InvalidValue"),
        (json!({"eSim": null, "esim": "yes"}), "eSim InvalidValue"),
        (json!({"esim": false}), "eSim InvalidValue"),
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
        // All faults at once, in the order of the fields; the first gives the code.
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
        let answer = world.submit(&owner, &body).await;
        let first = fault.split(", ").next().unwrap();
        let (_, code) = first.split_once(' ').unwrap();
        assert_eq!(told(&answer), format!("400 {code}: {fault}"), "{body}");
        let json = answer.json();
        let status = &json["responseStatus"];
        assert_eq!(status["message"], status["errors"][0]["message"], "{body}");
        for secret in ["8E9", "8E 9", "8É9", "12345,", "SeCrEt"] {
            assert!(!answer.body.contains(secret), "{}", answer.body);
        }
    }
    let headers = [("Idempotency-Key", "\"\"")];
    let body = with(esim(line::ANNA), json!({"email": "x"}));
    let answer = world.submit_with(&owner, &headers, &body).await;
    assert_eq!(
        told(&answer),
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
        let answer = world.submit(&owner, &body).await;
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
        assert_eq!(answer.json(), expected);
    }
    assert_eq!(world.table(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spellings_of_one_request() {
    let world = TestStack::start(Options {
        // Nothing moves while the spellings are compared.
        network_delay: Duration::from_secs(3600),
        ..TestStack::options()
    })
    .await;
    let admin = world.admin();
    let anna = |changes| with(json!({"newSimCardNumber": FREE_CARD}), changes);
    let first = world.submit(&admin, &anna(json!({"subscriptionId": line::ANNA}))).await;
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
        json!({"phoneNumber": "06-12345601", "subscriptionId": line::ANNA}),
        json!({"subscriptionId": line::ANNA, "newSimCardNumber": format!("{FREE_CARD}F")}),
        json!({"subscriptionId": line::ANNA, "referenceNumber": "", "email": null}),
        json!({"subscriptionId": line::ANNA, "unknown": {"deep": [1, null]}, "SUBSCRIPTIONID": 7}),
    ] {
        let again = world.submit(&admin, &anna(changes.clone())).await;
        assert_eq!(again.status, 200, "{changes} {again:?}");
        assert_eq!(again.json()["id"], first.json()["id"], "{changes}");
        assert_eq!(again.json()["subscriptionId"], line::ANNA);
    }

    let email = "customer@example.com";
    let code = "8E9!#";
    // What is asked, and how the line's number and `info` show it.
    for (asked, phone, reference, info) in [
        (
            json!({"phoneNumber": "06-12345602", "esim": true, "email": email, "confirmationCode": code}),
            "06-12345602",
            "",
            json!({"eSim": true, "email": email, "confirmationCode": code}),
        ),
        // An eSIM swap, for all that the number names somebody's SIM.
        (
            json!({"subscriptionId": line::CARLA, "eSim": true, "esim": true, "email": email, "confirmationCode": "~",
                   "newSimCardNumber": BRAM_S_SIM, "referenceNumber": "é".repeat(15)}),
            "06-12345603",
            "ééééééééééééééé",
            json!({"eSim": true, "email": email, "confirmationCode": "~", "newSimCardNumber": BRAM_S_SIM}),
        ),
        // Seed A's card, whose check digit is wrong, with a filler.
        (
            json!({"phoneNumber": "0045 20123401", "eSim": false, "newSimCardNumber": "1234567890123456789F",
                   "email": email, "referenceNumber": "R-1"}),
            "+4520123401",
            "R-1",
            json!({"eSim": false, "email": email, "newSimCardNumber": "1234567890123456789"}),
        ),
    ] {
        let answer = world.submit(&admin, &asked).await;
        assert_eq!(answer.status, 200, "{asked} {answer:?}");
        let swap = answer.json();
        assert_eq!(swap["phoneNumber"], phone);
        assert_eq!(swap["referenceNumber"], reference);
        assert_eq!(swap["info"].to_string(), info.to_string());
        let kind = world.record(swap["id"].as_str().unwrap()).await.kind;
        assert_eq!(kind == domain::SwapKind::Esim, info["eSim"] == true);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_json_and_what_is_too_much() {
    let world = TestStack::new().await;
    let before = world.table();
    let padded = |length: usize| {
        let body = json!({"subscriptionId": UNKNOWN_LINE, "newSimCardNumber": FREE_CARD}).to_string();
        format!("{body}{}", " ".repeat(length - body.len())).into_bytes()
    };
    let json_type = ("content-type", "application/json");
    let text_type = ("content-type", "text/plain");
    let not_json = "400 SerializationException";
    let read = "404 NotFound: subscriptionId NotFound";
    for (what, headers, body, expected) in [
        ("as large as may be", vec![json_type], padded(10_240), read),
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
        ("nothing", vec![json_type], Vec::new(), not_json),
        ("nothing at all", vec![], Vec::new(), not_json),
        ("half", vec![json_type], b"{\"eSim\":".to_vec(), not_json),
        ("two", vec![json_type], b"{}{}".to_vec(), not_json),
        ("a list", vec![json_type], b"[]".to_vec(), not_json),
        ("text", vec![json_type], b"\"x\"".to_vec(), not_json),
        ("null", vec![json_type], b"null".to_vec(), not_json),
        ("not UTF-8", vec![json_type], b"{\"email\":\"\xff\"}".to_vec(), not_json),
        ("very deep", vec![json_type], b"[".repeat(10_000), not_json),
    ] {
        let answer = post(&world, &headers, body).await;
        assert_eq!(told(&answer), expected, "{what}");
        assert_eq!(answer.headers["content-type"], "application/json; charset=utf-8");
    }
    assert_eq!(world.table(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whose_token_is_not_taken() {
    let world = TestStack::new().await;
    let before = world.table();
    let body = card(line::ANNA, FREE_CARD).to_string();
    let good = world.admin();
    let [head, claims, signature] = good.split('.').collect::<Vec<_>>()[..] else {
        panic!("three parts");
    };
    // The same header but for its algorithm.
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
    let expired = world.stack.tokens.issue("ADMIN", None, None, "test", -1, now);
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
        let answer = world.send("POST", PATH, &headers, body.clone()).await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (401, r#"{"message":"Unauthorized"}"#),
            "{what}"
        );
        assert!(answer.headers.contains_key("www-authenticate"), "{what}");
    }
    assert_eq!(world.table(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_s_line_beside_an_own_one_does_not_exist() {
    let wire = FaultyProxy::new().await;
    let world = TestStack::with(&[("AWS_ENDPOINT_URL_DYNAMODB", &wire.url)]).await;
    wire.connect(&world.stack.endpoints.dynamodb);
    let before = world.table();
    let owner = world.owner("C-100");
    let key = [("Idempotency-Key", "k")];
    let both = |id: &str, phone: &str| json!({"subscriptionId": id, "phoneNumber": phone});
    let (anna, carla, nobody) = ("06-12345601", "06-12345603", "06-99999999");
    // A stranger's line, one that is not there, and the field to blame.
    for (foreign, missing, field) in [
        (both(line::CARLA, anna), both(UNKNOWN_LINE, anna), "subscriptionId"),
        (both(line::ANNA, carla), both(line::ANNA, nobody), "phoneNumber"),
    ] {
        for rest in [json!({"newSimCardNumber": FREE_CARD}), esim(line::ANNA)] {
            for headers in [&key[..0], &key] {
                let mut seen = Vec::new();
                for named in [&foreign, &missing] {
                    let mut body = rest.clone();
                    body.as_object_mut().unwrap().remove("subscriptionId");
                    let calls = wire.count("POST /");
                    let body = with(body, named.clone());
                    let answer = world.submit_with(&owner, headers, &body).await;
                    assert_eq!(told(&answer), format!("404 NotFound: {field} NotFound"));
                    seen.push((answer.timeless(), wire.count("POST /") - calls));
                }
                assert_eq!(seen[0], seen[1], "{foreign}");
            }
        }
    }
    // Two lines that the caller may see both.
    let two = with(card(line::ANNA, FREE_CARD), json!({"phoneNumber": "06-12345602"}));
    let answer = world.submit(&owner, &two).await;
    assert_eq!(told(&answer), "400 InvalidValue: phoneNumber InvalidValue");
    assert_eq!(world.table(), before);
}

/// A free card of KPN and R-10.
fn stock(iccid: &str) -> Sim {
    Sim {
        iccid: Iccid::parse(iccid).unwrap(),
        imsi: None,
        network: NetworkName::parse("KPN").unwrap(),
        reseller: Some("R-10".to_owned()),
        form_factor: FormFactor::Nano,
        auto_assign: false,
        state: SimState::Free,
        free_from: Timestamp::UNIX_EPOCH,
        holder: None,
        pin1: Some(Secret::new("1234")),
        pin2: None,
        puk1: None,
        puk2: None,
        supplier_code: None,
        tag: None,
        codes_shown: false,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sims_that_cannot_be_had_look_the_same() {
    let world = TestStack::start(Options {
        // Bram's swap keeps its card.
        network_delay: Duration::from_secs(3600),
        settings: [("ASK_AFTER".to_owned(), "1h".to_owned())].into(),
        ..TestStack::options()
    })
    .await;
    let owner = world.owner("C-100");
    let (of_other, resting, worn, of_nobody) = (
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
            ..stock(resting)
        },
        Sim {
            state: SimState::Disabled,
            ..stock(worn)
        },
        Sim {
            reseller: None,
            ..stock(of_nobody)
        },
    ] {
        world.stack.store.add_sim(&sim).await.unwrap();
    }
    let taken = world.begin(&card(line::BRAM, FREE_CARD)).await;
    world.await_status(&taken, "BUSY").await;

    let before = world.table();
    let mut seen: Option<TestResponse> = None;
    for (what, iccid) in [
        ("unknown", UNKNOWN_SIM),
        ("of an open swap", FREE_CARD),
        ("of another line", BRAM_S_SIM),
        ("of this very line", ANNA_S_SIM),
        ("of another network", "8945020000000001010"),
        ("of another reseller", of_other),
        ("resting", resting),
        ("disabled", worn),
        ("an eSIM", "8931086000000002019"),
    ] {
        let answer = world.submit(&owner, &card(line::ANNA, iccid)).await;
        assert_eq!(told(&answer), "404 NotFound: newSimCardNumber NotFound", "{what}");
        let answer = answer.timeless();
        assert_eq!(*seen.get_or_insert_with(|| answer.clone()), answer, "{what}");
    }
    let none_left = world.submit(&world.owner("C-300"), &esim(line::EMIL)).await;
    assert_eq!(told(&none_left), "404 NotFound: eSim NotFound");
    assert_eq!(world.table(), before);

    let answer = world.submit(&owner, &card(line::ANNA, of_nobody)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_reason_is_told() {
    let world = TestStack::start(Options {
        network_delay: Duration::from_secs(3600),
        settings: [("ASK_AFTER".to_owned(), "1h".to_owned())].into(),
        ..TestStack::options()
    })
    .await;
    let owner = world.owner("C-100");
    let key = [("Idempotency-Key", "k")];
    let used = card(line::ANNA, FREE_CARD);
    let first = world.submit_with(&owner, &key, &used).await;
    assert_eq!(first.status, 200, "{first:?}");
    let open = first.json()["id"].as_str().unwrap().to_owned();
    world.await_status(&open, "BUSY").await;
    // The open swap stands before all else, and BLOCKED before porting.
    alter(&world, line::ANNA, "SET locked = :yes, porting = :yes");
    alter(&world, line::FLEUR, "SET porting = :yes");
    alter(&world, line::HANNA, "SET porting = :yes");
    let before = world.table();
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
        let answer = world.submit_with(&owner, headers, &body).await;
        assert_eq!(told(&answer), expected, "{what}");
    }
    let again = world.submit_with(&owner, &key, &used).await;
    assert_eq!((again.status, again.body), (200, first.body));
    assert_eq!(world.table(), before);

    alter(&world, line::FLEUR, "SET locked = :yes");
    let blocked = world.submit(&owner, &card(line::FLEUR, UNKNOWN_SIM)).await;
    assert_eq!(told(&blocked), "403 Locked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_table_fails_the_cause_is_not_told() {
    let wire = FaultyProxy::new().await;
    let world = TestStack::with(&[("AWS_ENDPOINT_URL_DYNAMODB", &wire.url)]).await;
    let before = world.table();
    let owner = world.owner("C-100");
    let check = async |what: &str, status, code: &str, message: &str| {
        let body = card(line::ANNA, FREE_CARD);
        let answer = world.submit(&owner, &body).await;
        let expected = json!({"responseStatus": {"errorCode": code, "message": message, "errors": []}});
        assert_eq!((answer.status, answer.json()), (status, expected), "{what}");
        let retry = answer.headers.get("retry-after").map(|v| v.to_str().unwrap());
        assert_eq!(retry, (status == 503).then_some("1"), "{what}");
    };
    let later = "The service is not available now. Try again in a moment.";
    let never = "Something went wrong on our side.";

    check("out of reach", 503, "Unavailable", later).await;
    wire.connect(&world.stack.endpoints.dynamodb);
    let answers = |status: u16, code: &str, times: usize| {
        let body = json!({"__type": format!("com.amazonaws.dynamodb.v20120810#{code}"), "message": "a cause"});
        for _ in 0..times {
            wire.plan("POST /", ProxyFault::Answer(status, body.to_string()));
        }
    };
    // What may pass is tried three times by the SDK.
    for (status, code) in [
        (400, "ProvisionedThroughputExceededException"),
        (400, "ThrottlingException"),
        (500, "InternalServerError"),
    ] {
        answers(status, code, 3);
        check(code, 503, "Unavailable", later).await;
        assert!(wire.is_spent(), "{code}");
    }
    for (status, code) in [(400, "ResourceNotFoundException"), (400, "AccessDeniedException")] {
        answers(status, code, 1);
        check(code, 500, "InternalError", never).await;
        assert!(wire.is_spent(), "{code}");
    }
    assert_eq!(world.table(), before);
    alter(&world, line::ANNA, "REMOVE phone");
    check("a row that nobody can read", 500, "InternalError", never).await;
}
