//! The example calls of the subscription API, byte for byte except for the masked line, and the shape of its
//! example responses: fields, order and times.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use tests::{TestResponse, TestStack, activation_code, line};

/// The request "POST /api/SimSwapSubscription" in the overview.
const OVERVIEW: &str = r####"{
"subscriptionId": "###3Vp17###7Xg79e",
"phoneNumber": "06-######969",
"eSim": true,
"email": "customer@example.com",
"confirmationCode": "8E9!#"
}"####;

/// The request "Simswap to eSim".
const TO_ESIM: &str = r####"{
"subscriptionId": "###3Vp17###7Xg79e",
"eSim":true,
"email": "customer@example.com",
"confirmationCode":"1234567890"
}"####;

/// The response under "The response will look like".
const INIT: &str = r####"{
"id": "###XCksM###YNCiKI",
"createdAt": "2025-02-03T14:38:50.7076242+01:00",
"modifiedAt": "2025-02-03T14:38:50.7076242+01:00",
"status": "INIT",
"activationType": "SIMSWAP",
"referenceNumber": "",
"subscriptionId": "###3Vp17###7Xg79e",
"phoneNumber": "06-#####969",
"info": {
"eSim": true,
"email": "customer@example.com",
"confirmationCode": "1234567890"
}
}"####;

/// The "Example Response" of a query.
const BUSY: &str = r####"{
"offset": 0,
"total": 79,
"results": [
{
"id": "###XCksM###YNCiKI",
"createdAt": "2025-02-03T14:38:50.707+01:00",
"modifiedAt": "2025-02-03T14:38:56.071+01:00",
"status": "BUSY",
"activationType": "SIMSWAP",
"referenceNumber": "",
"subscriptionId": "###3Vp17###7Xg79e",
"providerOrderNumber": "03####0/2##5",
"phoneNumber": "06-#####969",
"info": {
"eSim": true,
"email": "customer@example.com",
"confirmationCode": "1234567890"
}
}
],
"meta": {}
}"####;

/// The "Updated Response" of a query.
const DONE: &str = r####"{
"offset": 0,
"total": 79,
"results": [
{
"id": "###XCksM###YNCiKI",
"createdAt": "2025-02-03T14:38:50.707+01:00",
"modifiedAt": "2025-02-03T15:10:55.098+01:00",
"status": "DONE",
"activationType": "SIMSWAP",
"referenceNumber": "",
"providerOrderNumber": "03####0/2##5",
"subscriptionId": "###3Vp17###7Xg79e",
"phoneNumber": "06-#####969",
"activatedDate": "2025-02-03T16:06:50+01:00",
"info": {
"eSim": true,
"email": "customer@example.com",
"confirmationCode": "1234567890"
}
}
],
"meta": {}
}"####;

/// The example with Anna's line instead of the masked one.
fn with_annas_line(text: &str) -> String {
    text.replace("###3Vp17###7Xg79e", line::ANNA)
        .replace("06-######969", "06-12345601")
        .replace("06-#####969", "06-12345601")
}

async fn post(service: &TestStack, body: &str) -> TestResponse {
    let bearer = format!("Bearer {}", service.owner("C-100"));
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
    let body = with_annas_line(body);
    service.send("POST", "/api/SimSwapSubscription", &headers, body).await
}

fn fields(object: &Value) -> Vec<&str> {
    let object = object.as_object().expect("an object");
    object.keys().map(String::as_str).collect()
}

/// Asserts that our response has the example's fields and values, apart from those of the single swap, and valid times.
fn check(ours: &Value, example: &str) {
    let example: Value = serde_json::from_str(&with_annas_line(example)).unwrap();
    let example = example.get("results").map_or(&example, |results| &results[0]);
    let (mut expected, actual) = (fields(example), fields(ours));
    if example["status"] == "DONE" {
        // The examples have this field at different places; we use that of the BUSY example.
        expected.retain(|field| *field != "providerOrderNumber");
        let place = expected.iter().position(|field| *field == "phoneNumber");
        expected.insert(place.unwrap(), "providerOrderNumber");
    }
    assert_eq!(actual, expected, "{ours}");
    for field in [
        "status",
        "activationType",
        "referenceNumber",
        "subscriptionId",
        "phoneNumber",
    ] {
        assert_eq!(ours[field], example[field], "{field}");
    }
    // Our own fields of `info` come after the fields of the request.
    let requested = fields(&example["info"]);
    let added = fields(&ours["info"]).split_off(requested.len());
    assert_eq!(fields(&ours["info"])[..requested.len()], requested);
    for field in &requested {
        assert_eq!(ours["info"][field], example["info"][field], "{field}");
    }
    let allowed: &[&str] = match example["status"].as_str() {
        Some("INIT") => &[],
        _ => &["delivery", "profile", "esim"],
    };
    assert_eq!(added, allowed);
    for field in ["createdAt", "modifiedAt", "activatedDate"] {
        if let Some(time) = ours.get(field) {
            check_time(time.as_str().unwrap());
        }
    }
    let id = ours["id"].as_str().unwrap();
    let opaque = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    assert!(id.chars().all(opaque), "{id}");
}

/// Asserts that a time is in RFC 3339 with milliseconds and Amsterdam's offset at that time.
fn check_time(text: &str) {
    let at: Timestamp = text.parse().unwrap();
    let amsterdam = TimeZone::get("Europe/Amsterdam").unwrap();
    let zoned = at.to_zoned(amsterdam);
    assert_eq!(text, zoned.strftime("%FT%T%.3f%:z").to_string());
    assert!(text.ends_with("+01:00") || text.ends_with("+02:00"));
    assert_eq!(text.len(), "2025-02-03T14:38:50.707+01:00".len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_swap_to_an_esim_from_init_to_done() {
    let service = TestStack::new().await;
    let owner = service.owner("C-100");
    let first = post(&service, TO_ESIM).await;
    assert_eq!(first.status, 200, "{first:?}");
    check(&first.json(), INIT);
    assert_eq!(first.json()["createdAt"], first.json()["modifiedAt"]);
    let id = first.json()["id"].as_str().unwrap().to_owned();

    let mail = service.await_mail(&id).await;
    service
        .await_activation(&id, |a| a["status"] == "BUSY" && a["info"]["delivery"] == "delivered")
        .await;
    let busy = service.query(&owner, &format!("id={id}")).await.json();
    let envelope: Value = serde_json::from_str(BUSY).unwrap();
    assert_eq!(fields(&busy), fields(&envelope));
    assert_eq!(
        (&busy["offset"], &busy["total"], &busy["meta"]),
        (&json!(0), &json!(1), &json!({}))
    );
    check(&busy["results"][0], BUSY);

    let installed = service.install(&activation_code(&mail), "1234567890").await;
    assert_eq!(installed.status, 200, "{installed:?}");
    service.await_status(&id, "DONE").await;
    let done = service.query(&owner, &format!("id={id}")).await.json();
    assert_eq!(fields(&done), fields(&envelope));
    check(&done["results"][0], DONE);
    assert_eq!(
        done["results"][0]["providerOrderNumber"],
        busy["results"][0]["providerOrderNumber"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_of_the_overview_identifies_the_line_twice() {
    let service = TestStack::new().await;
    let response = post(&service, OVERVIEW).await;
    assert_eq!(response.status, 200, "{response:?}");
    let code = r#""confirmationCode": "8E9!#""#;
    check(
        &response.json(),
        &INIT.replace(r#""confirmationCode": "1234567890""#, code),
    );
}
