//! `GET /api/QueryActivation`: every parameter, who sees which swaps, and listings longer than a page.

use std::collections::HashMap;
use std::time::Duration;

use domain::ActivationId;
use jiff::{SignedDuration, Timestamp};
use local::dynoxide::ImportOptions;
use local::dynoxide::actions::get_item::GetItemRequest;
use local::dynoxide::actions::query::QueryRequest;
use local::dynoxide::types::{AttributeValue, Item};
use serde_json::{Value, json};
use store::Shard;
use tests::{FREE_CARD, FaultyProxy, MeteringProxy, TestStack, card, esim, line};
use ulid::Ulid;

/// A swap that a test writes directly into the table.
#[derive(Clone)]
struct Past {
    name: String,
    created: Timestamp,
    line: &'static str,
    status: &'static str,
    reference: String,
}

fn past(name: &str, created: &str, line: &'static str, status: &'static str, reference: &str) -> Past {
    Past {
        name: name.to_owned(),
        created: created.parse().unwrap(),
        line,
        status,
        reference: reference.to_owned(),
    }
}

/// The id of a swap that was requested at this time. Its random part is the name.
fn id_of(name: &str, created: Timestamp) -> ActivationId {
    let random = name.bytes().fold(0, |random, byte| random << 8 | u128::from(byte));
    ActivationId::from_random(created, random)
}

/// The name in an id, or the id of a swap without a name.
fn name_of(id: &str) -> String {
    let random = Ulid::from_string(id).unwrap().random().to_be_bytes();
    let name = String::from_utf8(random.into_iter().skip_while(|byte| *byte == 0).collect());
    name.ok().filter(|name| name.len() < 8).unwrap_or(id.to_owned())
}

/// The query with the ids of the [`few`] instead of their names.
fn with_ids(query: &str) -> String {
    few().iter().fold(query.to_owned(), |query, swap| {
        let id = id_of(&swap.name, swap.created);
        let replace = |query: String, field: &str| {
            let named = format!("{field}={}", swap.name);
            query.replace(&named, &format!("{field}={id}"))
        };
        replace(replace(query, "id"), "ID")
    })
}

/// The phone number, customer and reseller of a sample line.
fn owner_of(line: &str) -> (&'static str, &'static str, &'static str) {
    match line {
        line::ANNA => ("+31612345601", "C-100", "R-10"),
        line::BRAM => ("+31612345602", "C-100", "R-10"),
        line::CARLA => ("+31612345603", "C-200", "R-10"),
        line::DORTE => ("+4520123401", "C-300", "R-20"),
        _ => panic!("these tests do not use the line"),
    }
}

/// A row as the store writes it: a card swap between its submission and DONE.
async fn template(service: &TestStack) -> Item {
    let id = service.start_swap(&card(line::ANNA, FREE_CARD)).await;
    service.await_status(&id, "DONE").await;
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let key = HashMap::from([
        ("pk".to_owned(), text(&format!("A#{id}"))),
        ("sk".to_owned(), text("activation")),
    ]);
    let database = &service.stack.database;
    let found = database.get_item(GetItemRequest {
        table_name: service.stack.endpoints.table.clone(),
        key: key.clone(),
        ..GetItemRequest::default()
    });
    let row = found.unwrap().item.unwrap();
    // The attribute is no part of the row that the tests copy.
    database
        .delete_item(local::dynoxide::actions::delete_item::DeleteItemRequest {
            table_name: service.stack.endpoints.table.clone(),
            key,
            ..Default::default()
        })
        .unwrap();
    row
}

/// Writes swaps directly into the table, without the functions.
fn import(service: &TestStack, template: &Item, swaps: &[Past]) {
    let rows = swaps.iter().map(|swap| {
        let id = id_of(&swap.name, swap.created);
        let (phone, customer, reseller) = owner_of(swap.line);
        let phase = match swap.status {
            "INIT" => "accepted",
            "BUSY" => "started",
            "DONE" => "done",
            _ => "error",
        };
        let mut row = template.clone();
        for (name, value) in [
            ("pk", format!("A#{id}")),
            ("swapId", id.to_string()),
            ("shard", Shard::of(&id).key()),
            ("resellerShard", Shard::of(&id).reseller_key(reseller)),
            ("line", swap.line.to_owned()),
            ("phone", phone.to_owned()),
            ("customer", customer.to_owned()),
            ("reseller", reseller.to_owned()),
            ("phase", phase.to_owned()),
        ] {
            row.insert(name.to_owned(), AttributeValue::S(value));
        }
        match swap.status {
            "INIT" | "BUSY" => row.remove("outcome"),
            ended => row.insert("outcome".to_owned(), AttributeValue::S(ended.to_owned())),
        };
        if !swap.reference.is_empty() {
            row.insert("reference".to_owned(), AttributeValue::S(swap.reference.clone()));
        }
        let created = swap.created.as_millisecond().to_string();
        row.insert("createdAt".to_owned(), AttributeValue::N(created));
        row
    });
    let options = ImportOptions::default();
    let table = &service.stack.endpoints.table;
    service
        .stack
        .database
        .import_items(table, rows.collect(), options)
        .unwrap();
}

/// A few swaps around 30 March 2025, which has 23 hours in Amsterdam because daylight saving time starts.
fn few() -> Vec<Past> {
    vec![
        past("a1", "2025-03-29T22:59:59.999Z", line::ANNA, "DONE", "R1"),
        past("a2", "2025-03-29T23:00:00.000Z", line::ANNA, "ERROR", ""),
        past("a3", "2025-03-30T21:59:59.999Z", line::ANNA, "BUSY", "R1"),
        past("b1", "2025-03-30T22:00:00.000Z", line::BRAM, "INIT", "r1"),
        past("c1", "2025-04-01T12:00:00.000Z", line::CARLA, "DONE", "R 1&x"),
        past("d1", "2025-04-02T12:00:00.000Z", line::DORTE, "DONE", ""),
    ]
}

/// The names of the swaps on a page.
fn ids(page: &Value) -> Vec<String> {
    let results = page["results"].as_array().unwrap();
    results
        .iter()
        .map(|swap| name_of(swap["id"].as_str().unwrap()))
        .collect()
}

/// A page of a query that must succeed.
async fn page(service: &TestStack, token: &str, query: &str) -> Value {
    let response = service.query(token, &with_ids(query)).await;
    assert_eq!(response.status, 200, "{query}: {response:?}");
    response.json()
}

/// All swaps on all pages that `next` leads to. Every page must have the same total, and at most `take` swaps.
async fn walk(service: &TestStack, token: &str, query: &str, take: usize) -> (Vec<String>, Value) {
    let first = page(service, token, &format!("{query}&take={take}")).await;
    let (mut found, mut meta) = (ids(&first), first["meta"].clone());
    while let Some(next) = meta["next"].as_str() {
        let query = format!("{query}&take={take}&cursor={next}");
        let page = page(service, token, &query).await;
        assert!(ids(&page).len() <= take);
        assert_eq!((&page["total"], &page["offset"]), (&first["total"], &json!(0)));
        assert_eq!(page["meta"]["totalIsLowerBound"], first["meta"]["totalIsLowerBound"]);
        found.extend(ids(&page));
        meta = page["meta"].clone();
    }
    (found, first["total"].clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_each_parameter_finds() {
    let service = TestStack::new().await;
    let template = template(&service).await;
    import(&service, &template, &few());
    let all = "d1 c1 b1 a3 a2 a1";
    // The query, the matching swaps in order, and the part of them on the first page if there are more.
    for (query, matches, shown) in [
        ("", all, None),
        ("orderByDesc=createdAt", all, None),
        ("orderBy=createdAt", "a1 a2 a3 b1 c1 d1", None),
        ("ORDERBY=CREATEDAT", "a1 a2 a3 b1 c1 d1", None),
        ("orderBy=-createdAt", all, None),
        ("format=json&jsconfig=eccn&_=1733000000000", all, None),
        ("include=total&Include=timeline", all, None),
        ("statusIn=BUSY&statusIn=INIT", "b1 a3", None),
        ("statusIn=DONE&STATUSIN=busy,error&status=DONE", "d1 c1 a1", None),
        ("phoneNumber=%2B31+(0)6.123/456-01", "a3 a2 a1", None),
        ("id=a1", "a1", None),
        ("ID=a1", "a1", None),
        ("id=A1", "", None),
        ("id=nosuch", "", None),
        ("id=a1&subscriptionId=65a1b2c3d4e5f60718293a01", "a1", None),
        ("id=a1&subscriptionId=65a1b2c3d4e5f60718293a02", "", None),
        ("id=a1&phoneNumber=06-12345601", "a1", None),
        ("id=a1&phoneNumber=06-12345602", "", None),
        ("id=a1&status=DONE&referenceNumber=R1", "a1", None),
        ("id=a1&status=ERROR", "", None),
        ("statusIn=DONE&status=BUSY", "", None),
        ("id=a1&referenceNumber=R2", "", None),
        ("id=a1&createdAtFrom=2025-03-30", "", None),
        ("id=a1&skip=1", "a1", Some("")),
        ("subscriptionId=65a1b2c3d4e5f60718293a01", "a3 a2 a1", None),
        ("SUBSCRIPTIONID=65A1B2C3D4E5F60718293A01", "a3 a2 a1", None),
        ("subscriptionId=1234567890ABCDEF12345678", "d1", None),
        ("subscriptionId=nosuch", "", None),
        ("phoneNumber=06-12345601", "a3 a2 a1", None),
        ("phonenumber=0612345601", "a3 a2 a1", None),
        ("phoneNumber=0031612345601", "a3 a2 a1", None),
        ("phoneNumber=%2B31612345601", "a3 a2 a1", None),
        ("phoneNumber=+31612345601", "a3 a2 a1", None),
        ("phoneNumber=%2031612345601", "a3 a2 a1", None),
        ("phoneNumber=06%2012345601", "a3 a2 a1", None),
        ("phoneNumber=+4520123401", "d1", None),
        ("phoneNumber=06-99999999", "", None),
        (
            "phoneNumber=06-12345601&subscriptionId=65a1b2c3d4e5f60718293a01",
            "a3 a2 a1",
            None,
        ),
        (
            "phoneNumber=06-12345601&subscriptionId=65a1b2c3d4e5f60718293a02",
            "",
            None,
        ),
        ("referenceNumber=R1", "a3 a1", None),
        ("ReferenceNumber=r1", "b1", None),
        ("referenceNumber=R+1%26x", "c1", None),
        ("referenceNumber=R", "", None),
        ("referenceNumber=", "d1 a2", None),
        ("status=DONE", "d1 c1 a1", None),
        ("Status=done", "d1 c1 a1", None),
        ("statusIn=BUSY,INIT", "b1 a3", None),
        ("statusIn=BUSY%2C%20error", "a3 a2", None),
        ("STATUSIN=INIT", "b1", None),
        ("statusIn=BUSY,DONE&status=BUSY", "a3", None),
        ("activationType=SIMSWAP", all, None),
        ("ActivationType=simswap&status=INIT", "b1", None),
        ("createdAtFrom=2025-03-30", "d1 c1 b1 a3 a2", None),
        ("createdAtTo=2025-03-30", "a3 a2 a1", None),
        ("createdatfrom=2025-03-30&CREATEDATTO=2025-03-30", "a3 a2", None),
        ("createdAtFrom=2025-03-31&createdAtTo=2025-03-31", "b1", None),
        ("createdAtFrom=2025-04-03", "", None),
        ("createdAtFrom=2025-04-02&createdAtTo=2025-04-01", "", None),
        ("take=2", all, Some("d1 c1")),
        ("take=100", all, None),
        ("skip=4", all, Some("a2 a1")),
        ("SKIP=1&TAKE=1", all, Some("c1")),
        ("skip=6", all, Some("")),
        ("skip=1000", all, Some("")),
        ("skip=0", all, None),
        (
            "subscriptionId=65a1b2c3d4e5f60718293a01&orderBy=createdAt&take=1&skip=1",
            "a1 a2 a3",
            Some("a2"),
        ),
        (
            "subscriptionId=65a1b2c3d4e5f60718293a01&status=DONE&referenceNumber=R1",
            "a1",
            None,
        ),
    ] {
        let page = page(&service, &service.admin(), query).await;
        let fields: Vec<&str> = page.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(fields, ["offset", "total", "results", "meta"], "{query}");
        assert_eq!(ids(&page).join(" "), shown.unwrap_or(matches), "{query}");
        assert_eq!(page["total"], matches.split_whitespace().count(), "{query}");
        assert!(page["meta"].get("totalIsLowerBound").is_none(), "{query}");
        let more = shown.is_some_and(|shown| !shown.is_empty() && !matches.ends_with(shown));
        assert_eq!(page["meta"].get("next").is_some(), more, "{query}: {page}");
        let skip = query.to_lowercase();
        let skip = skip.split('&').find_map(|pair| pair.strip_prefix("skip="));
        assert_eq!(page["offset"], skip.unwrap_or("0").parse::<u64>().unwrap(), "{query}");
    }
    // Only some fields, in the order of the whole.
    for (query, fields) in [
        ("fields=status,id", &["id", "status"][..]),
        ("fields=INFO&Fields=createdat,info", &["createdAt", "info"]),
        ("fields=id&include=timeline", &["id", "timeline"]),
    ] {
        let found = page(&service, &service.admin(), &format!("id=a1&{query}")).await;
        let result = found["results"][0].as_object().unwrap();
        let names: Vec<&str> = result.keys().map(String::as_str).collect();
        assert_eq!(names, fields, "{query}");
    }
    let found = page(&service, &service.admin(), "id=a3").await;
    assert_eq!(found["results"][0]["createdAt"], "2025-03-30T23:59:59.999+02:00");
    let found = page(&service, &service.admin(), "id=a1").await;
    assert_eq!(found["results"][0]["createdAt"], "2025-03-29T23:59:59.999+01:00");
}

/// The index of resellers has the final states, the other indexes do not. Whether a swap is INIT or
/// BUSY is only in its row.
#[tokio::test]
async fn a_status_filter_works_for_every_caller() {
    let service = TestStack::new().await;
    let template = template(&service).await;
    import(&service, &template, &few());
    let tokens = [service.admin(), service.owner("C-100"), service.reseller("R-10")];
    for (query, of_customer, of_reseller, of_all) in [
        ("status=INIT", "b1", "b1", "b1"),
        ("status=BUSY", "a3", "a3", "a3"),
        ("status=DONE", "a1", "c1 a1", "d1 c1 a1"),
        ("status=ERROR", "a2", "a2", "a2"),
        ("statusIn=INIT,BUSY", "b1 a3", "b1 a3", "b1 a3"),
        ("statusIn=INIT,DONE", "b1 a1", "c1 b1 a1", "d1 c1 b1 a1"),
        ("status=DONE&statusIn=BUSY", "", "", ""),
    ] {
        for (token, expected) in tokens.iter().zip([of_all, of_customer, of_reseller]) {
            let page = page(&service, token, query).await;
            assert_eq!(ids(&page).join(" "), expected, "{query}");
            assert_eq!(page["total"], expected.split_whitespace().count(), "{query}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_malformed_parameter_is_rejected_by_name() {
    let service = TestStack::new().await;
    for (query, fields) in [
        ("colour=red", "colour"),
        ("Colour=", "Colour"),
        ("id=a1&include=info", "include"),
        ("include=", "include"),
        ("include=timeline,", "include"),
        ("include=a&INCLUDE=b&include=timeline", "include"),
        ("$top=1&filter=x", "$top filter"),
        ("colour=red&Colour=blue", "Colour"),
        ("format=xml", "format"),
        ("fields=id,colour", "fields"),
        ("fields=", "fields"),
        ("orderByDesc=-createdAt", "orderByDesc"),
        ("id=%23", "id"),
        ("id=", "id"),
        ("subscriptionId=a%20b", "subscriptionId"),
        ("SUBSCRIPTIONID=", "subscriptionId"),
        ("phoneNumber=31612345601", "phoneNumber"),
        ("phoneNumber=+", "phoneNumber"),
        ("phonenumber=06-123", "phoneNumber"),
        ("status=NEW", "status"),
        ("status=DONE,BUSY", "status"),
        ("statusIn=DONE,", "statusIn"),
        ("statusIn=", "statusIn"),
        ("id=a1&cursor=x", "cursor"),
        ("activationType=PORTIN", "activationType"),
        ("createdAtFrom=2025-02-30", "createdAtFrom"),
        ("createdAtFrom=2025-02-03T00:00:00Z", "createdAtFrom"),
        ("createdAtTo=03-02-2025", "createdAtTo"),
        ("take=0", "take"),
        ("take=101", "take"),
        ("take=-1", "take"),
        ("take=ten", "take"),
        ("take=", "take"),
        ("skip=-1", "skip"),
        ("skip=1.5", "skip"),
        ("orderBy=id", "orderBy"),
        ("orderByDesc=createdAt,id", "orderByDesc"),
        ("orderBy=createdAt&orderByDesc=createdAt", "orderBy"),
        ("cursor=", "cursor"),
        ("cursor=AAAA", "cursor"),
        ("cursor=x%20y", "cursor"),
        ("id=a&ID=b", "id"),
        (&"take=1&".repeat(400), "take"),
        ("take=0&skip=1001&colour=red&status=NEW", "take skip colour status"),
    ] {
        let response = service.query(&service.admin(), query).await;
        let (status, code, faults) = response.error();
        assert_eq!((status, code.as_str()), (400, "InvalidValue"), "{query}: {response:?}");
        let mut named: Vec<&str> = faults.iter().map(|(_, field)| field.as_str()).collect();
        let mut expected: Vec<&str> = fields.split(' ').collect();
        named.sort_unstable();
        expected.sort_unstable();
        assert_eq!(named, expected, "{query}");
        assert!(faults.iter().all(|(code, _)| code == "InvalidValue"));
    }
    let too_far = service.query(&service.admin(), "skip=1001").await;
    assert_eq!(too_far.status, 400);
    assert!(too_far.body.contains("cursor"), "{too_far:?}");
}

/// Who did what, without the entries of mails. Entries that depend on the timing are left out too: the network may
/// report the completion before the start is stored, and a call may be interrupted or fail.
fn steps(timeline: &Value) -> Vec<(&str, &str)> {
    let entries = timeline.as_array().unwrap().iter();
    entries
        .map(|entry| (entry["by"].as_str().unwrap(), entry["what"].as_str().unwrap()))
        .filter(|(_, what)| !what.starts_with("mail") && !["started", "interrupted", "callFailed"].contains(what))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timeline_has_the_whole_swap_and_all_its_mails() {
    let service = TestStack::new().await;
    let (owner, admin) = (service.owner("C-100"), service.admin());
    let id = service.start_swap(&esim(line::ANNA)).await;
    let code = service.await_waiting(&id).await;
    let resent = service.manage(&owner, "ResendEsim", &id, "").await;
    assert_eq!(resent.status, 200, "{resent:?}");
    assert!(resent.json().get("timeline").is_none());
    service.await_waiting(&id).await;
    assert_eq!(service.install(&code, "8E9!#").await.status, 200);
    service.await_status(&id, "DONE").await;
    // A swap without mails.
    let of_card = service.start_swap(&card(line::BRAM, FREE_CARD)).await;
    service.await_status(&of_card, "DONE").await;

    let by_id = format!("id={id}");
    let by_line = format!("subscriptionId={}", line::ANNA);
    for (token, callers) in [
        (&admin, ["ADMIN test", "OWNER test"]),
        (&service.reseller("R-10"), ["ADMIN test", "OWNER test"]),
        (&owner, ["ADMIN", "OWNER"]),
    ] {
        let without = service.query(token, &by_id).await.body;
        assert!(!without.contains("timeline"), "{without}");
        assert_eq!(
            service.query(token, &format!("{by_id}&include=total")).await.body,
            without
        );
        assert_eq!(service.query(token, &by_line).await.body, without);
        for query in [&by_id, &by_line] {
            let with = service.query(token, &format!("{query}&Include=Total,TIMELINE")).await;
            assert!(with.body.contains(r#"},"timeline":[{"at":""#), "{with:?}");
            let mut with = with.json();
            let result = with["results"][0].as_object_mut().unwrap();
            let timeline = result.remove("timeline").unwrap();
            assert_eq!(with, serde_json::from_str::<Value>(&without).unwrap());

            let expected = [
                (callers[0], "requested"),
                ("simswap", "ordering"),
                ("simswap", "ordered"),
                (callers[1], "resendRequested"),
                ("smdp", "downloaded"),
                ("smdp", "installed"),
                ("network", "completed"),
                ("simswap", "done"),
            ];
            assert_eq!(steps(&timeline), expected, "{timeline}");
            let entries = timeline.as_array().unwrap();
            let times: Vec<_> = entries.iter().map(|entry| entry["at"].as_str().unwrap()).collect();
            assert!(times.is_sorted(), "{timeline}");
            assert_eq!(times[0], with["results"][0]["createdAt"]);
            let detail_of = |what: &str| {
                let mut entries = entries.iter().filter(|entry| entry["what"] == what);
                entries.next().map(|entry| entry["detail"].clone())
            };
            assert_eq!(detail_of("requested"), Some(Value::Null));
            let order = &with["results"][0]["providerOrderNumber"];
            assert_eq!(detail_of("ordered").as_ref(), Some(order));
            for mail in ["mail 1", "mail 2"] {
                let delivered = json!({"by": "SES", "what": "mailDelivered", "detail": mail});
                let is_delivered = |entry: &&Value| {
                    let mut entry = (*entry).clone();
                    entry.as_object_mut().unwrap().remove("at");
                    entry == delivered
                };
                assert_eq!(entries.iter().filter(is_delivered).count(), 1, "{timeline}");
            }
            let matching_id = code.split('$').nth(2).unwrap();
            for secret in ["8E9!#", matching_id, "customer@example.com"] {
                assert!(!timeline.to_string().contains(secret), "{timeline}");
            }
        }
    }

    // What the results include may change from page to page.
    let first = page(&service, &owner, "take=1").await;
    assert_eq!(ids(&first), [of_card.as_str()]);
    let next = first["meta"]["next"].as_str().unwrap();
    let second = page(&service, &owner, &format!("take=1&cursor={next}&include=timeline")).await;
    assert_eq!(ids(&second), [id.as_str()]);
    assert!(second["results"][0]["timeline"].is_array(), "{second}");
    let both = page(&service, &owner, "include=total&include=timeline").await;
    let of_card = &both["results"][0]["timeline"];
    let steps = steps(of_card);
    let ends = (steps.first(), steps.last());
    let expected = (Some(&("ADMIN", "requested")), Some(&("simswap", "done")));
    assert_eq!(ends, expected, "{of_card}");
    assert!(!of_card.to_string().contains("mail"), "{of_card}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strangers_long_listing_looks_empty_and_costs_as_little() {
    let meter = MeteringProxy::new().await;
    let service = TestStack::with(&[("AWS_ENDPOINT_URL_DYNAMODB", meter.url.as_str())]).await;
    meter.connect(&service.stack.endpoints.dynamodb);
    let template = template(&service).await;
    import(&service, &template, &many(2002));
    // From here on, only the queries call the table.
    service.end_stream();
    let stranger = service.owner("C-300");
    for query in ["", "&orderBy=createdAt", "&status=ERROR", "&skip=1000", "&take=1"] {
        let line = format!("subscriptionId={}{query}", line::ANNA);
        meter.bill();
        let foreign = service.query(&stranger, &line).await;
        let bill = meter.bill();
        let missing = service.query(&stranger, &format!("subscriptionId=nosuch{query}")).await;
        assert_eq!(foreign.timeless(), missing.timeless(), "{query}");
        assert_eq!(bill, meter.bill(), "{query}");
    }
    let own = page(
        &service,
        &service.owner("C-100"),
        &format!("subscriptionId={}", line::ANNA),
    )
    .await;
    assert_eq!(
        (&own["total"], &own["meta"]["totalIsLowerBound"]),
        (&json!(1000), &json!(true))
    );
}

/// Swaps of C-100, three in each millisecond, newest last.
fn many(count: usize) -> Vec<Past> {
    let first: Timestamp = "2024-05-01T08:00:00.123Z".parse().unwrap();
    (0..count)
        .map(|n| Past {
            name: format!("m{n:04}"),
            created: first + SignedDuration::from_secs((n / 3) as i64),
            line: [line::ANNA, line::BRAM][n % 2],
            status: ["DONE", "ERROR"][n % 5 / 4],
            reference: if n < 2 { "rare".to_owned() } else { String::new() },
        })
        .collect()
}

fn ids_of(swaps: &[Past], fits: impl Fn(&Past) -> bool) -> Vec<String> {
    let fitting = swaps.iter().filter(|swap| fits(swap));
    fitting.map(|swap| swap.name.clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn following_next_returns_each_swap_once() {
    let service = TestStack::new().await;
    let template = template(&service).await;
    let swaps = many(130);
    import(&service, &template, &swaps);
    import(&service, &template, &few()[4..]);
    let everything = ids_of(&swaps, |_| true);
    let of_anna = ids_of(&swaps, |swap| swap.line == line::ANNA);
    let errors = ids_of(&swaps, |swap| swap.status == "ERROR");
    let (owner, anna) = (service.owner("C-100"), format!("subscriptionId={}", line::ANNA));
    for (query, expected) in [
        ("", &everything),
        (&anna, &of_anna),
        ("phoneNumber=06-12345601", &of_anna),
        ("status=ERROR", &errors),
        ("createdAtFrom=2024-05-01&createdAtTo=2024-05-01", &everything),
        ("createdAtTo=2024-04-30", &Vec::new()),
    ] {
        for take in [7, 100] {
            let (found, total) = walk(&service, &owner, &format!("{query}&orderBy=createdAt"), take).await;
            assert_eq!(&found, expected, "{query} {take}");
            assert_eq!(total, expected.len());
            let (mut found, total) = walk(&service, &owner, query, take).await;
            found.reverse();
            assert_eq!(&found, expected, "{query} {take}");
            assert_eq!(total, expected.len());
        }
    }
    // The listings of all swaps and of a reseller are merged from shards.
    let newest_first: Vec<String> = everything.iter().rev().cloned().collect();
    for (token, others) in [(service.admin(), 2), (service.reseller("R-10"), 1)] {
        for take in [7, 50] {
            let (found, total) = walk(&service, &token, "", take).await;
            assert_eq!(total, everything.len() + others);
            assert_eq!(found.len(), everything.len() + others);
            let of_customer: Vec<String> = found.into_iter().filter(|id| everything.contains(id)).collect();
            assert_eq!(of_customer, newest_first);
        }
    }

    // Swaps submitted between two pages do not appear on later pages.
    let first = page(&service, &owner, "take=100").await;
    import(
        &service,
        &template,
        &[past("new", "2026-01-01T00:00:00Z", line::ANNA, "DONE", "")],
    );
    let next = first["meta"]["next"].as_str().unwrap();
    let second = page(&service, &owner, &format!("take=30&cursor={next}")).await;
    assert_eq!(ids(&second), newest_first[100..130]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_is_valid_for_one_caller_and_one_query() {
    let service = TestStack::new().await;
    let template = template(&service).await;
    import(&service, &template, &few());
    let owner = service.owner("C-100");
    let first = page(&service, &owner, "statusIn=DONE,BUSY,ERROR&take=1").await;
    let cursor = first["meta"]["next"].as_str().unwrap();
    let question = "statusIn=DONE,BUSY,ERROR";
    let next = page(&service, &owner, &format!("{question}&take=5&cursor={cursor}")).await;
    assert_eq!(ids(&next), ["a2", "a1"]);
    let again = page(&service, &owner, &format!("CURSOR={cursor}&{question}")).await;
    assert_eq!(ids(&again), ["a2", "a1"]);

    let check_rejected = async |token: &str, query: &str| {
        let response = service.query(token, query).await;
        let cursor = vec![("InvalidValue".to_owned(), "cursor".to_owned())];
        assert_eq!(response.error(), (400, "InvalidValue".to_owned(), cursor), "{query}");
    };
    let now = Timestamp::now();
    let other_subject = service
        .stack
        .tokens
        .issue("OWNER", Some("C-100"), None, "another", 60, now);
    for token in [
        &service.owner("C-200"),
        &service.reseller("R-10"),
        &service.admin(),
        &other_subject,
    ] {
        check_rejected(token, &format!("{question}&cursor={cursor}")).await;
    }
    for other in [
        "",
        "status=DONE",
        "statusIn=DONE,BUSY",
        "subscriptionId=65a1b2c3d4e5f60718293a01",
    ] {
        check_rejected(&owner, &format!("{other}&cursor={cursor}")).await;
    }
    for more in [
        "orderBy=createdAt",
        "referenceNumber=R1",
        "createdAtFrom=2025-01-01",
        "phoneNumber=06-12345601",
    ] {
        check_rejected(&owner, &format!("{question}&{more}&cursor={cursor}")).await;
    }
    for place in (0..cursor.len()).step_by(5) {
        let mut altered = cursor.as_bytes().to_vec();
        altered[place] = if altered[place] == b'A' { b'B' } else { b'A' };
        let altered = String::from_utf8(altered).unwrap();
        check_rejected(&owner, &format!("{question}&cursor={altered}")).await;
    }
    for altered in [&cursor[1..], &cursor[..cursor.len() - 4], &format!("{cursor}AAAA")] {
        check_rejected(&owner, &format!("{question}&cursor={altered}")).await;
    }
    let skipping = service
        .query(&owner, &format!("{question}&skip=1&cursor={cursor}"))
        .await;
    assert_eq!(skipping.status, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_total_is_exact_up_to_a_thousand() {
    let service = TestStack::new().await;
    let template = template(&service).await;
    let swaps = many(1500);
    let (old, new) = swaps.split_at(500);
    import(&service, &template, new);
    let owner = service.owner("C-100");
    let first = page(&service, &owner, "").await;
    assert_eq!(
        (&first["total"], &first["meta"]["totalIsLowerBound"]),
        (&json!(1000), &Value::Null)
    );
    let far = page(&service, &owner, "skip=975").await;
    assert_eq!((ids(&far).len(), &far["meta"]), (25, &json!({})));

    import(&service, &template, &old[499..]);
    let first = page(&service, &owner, "").await;
    assert_eq!(
        (&first["total"], &first["meta"]["totalIsLowerBound"]),
        (&json!(1000), &json!(true))
    );
    import(&service, &template, &old[..499]);
    let far = page(&service, &owner, "skip=1000&take=2").await;
    assert_eq!(
        (ids(&far), &far["offset"]),
        (vec!["m0499".to_owned(), "m0498".to_owned()], &json!(1000))
    );
    let (found, total) = walk(&service, &owner, "", 100).await;
    assert_eq!((found.len(), total), (1500, json!(1000)));

    // The two matching swaps are behind the first thousand: the first page is empty, and `next` leads to them.
    let rare = page(&service, &owner, "referenceNumber=rare").await;
    assert_eq!(
        (ids(&rare).len(), &rare["total"], &rare["meta"]["totalIsLowerBound"]),
        (0, &json!(0), &json!(true))
    );
    let (found, _) = walk(&service, &owner, "referenceNumber=rare", 25).await;
    assert_eq!(found, ["m0001", "m0000"]);
    let (found, _) = walk(&service, &owner, "referenceNumber=rare&orderBy=createdAt", 1).await;
    assert_eq!(found, ["m0000", "m0001"]);
    let (found, _) = walk(&service, &owner, "status=ERROR", 100).await;
    assert_eq!(found.len(), 300);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_by_id_is_one_read_of_one_unit() {
    let table = FaultyProxy::new().await;
    let service = TestStack::with(&[
        ("AWS_ENDPOINT_URL_DYNAMODB", &table.url),
        ("CONFIRMATION_CODE_ECHO", "masked"),
    ])
    .await;
    table.connect(&service.stack.endpoints.dynamodb);
    let id = service.start_swap(&esim(line::ANNA)).await;
    let code = service.await_waiting(&id).await;
    assert_eq!(service.install(&code, "8E9!#").await.status, 200);
    service.await_status(&id, "DONE").await;

    let (own, foreign) = (service.owner("C-100"), service.owner("C-300"));
    // The last change records and SES events cause calls of their own: count ours only when those are done.
    let mut calls = table.count("POST");
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = table.count("POST");
        if now == calls {
            break;
        }
        calls = now;
    }
    let rows = service.table();
    for (token, id) in [(&own, id.as_str()), (&foreign, &id), (&own, "nosuch"), (&own, &id)] {
        assert_eq!(service.query(token, &format!("id={id}")).await.status, 200);
    }
    assert_eq!(table.count("POST") - calls, 4);
    assert_eq!(service.table(), rows);

    // The call reads the swap and its mail, at the end of their lives.
    let pk = AttributeValue::S(format!("A#{id}"));
    let read = service.stack.database.query(QueryRequest {
        table_name: service.stack.endpoints.table.clone(),
        key_condition_expression: Some("pk = :pk".to_owned()),
        expression_attribute_values: Some(HashMap::from([(":pk".to_owned(), pk)])),
        consistent_read: Some(true),
        return_consumed_capacity: Some("TOTAL".to_owned()),
        scan_index_forward: true,
        ..QueryRequest::default()
    });
    let read = read.unwrap();
    assert_eq!((read.count, read.consumed_capacity.unwrap().capacity_units), (2, 1.0));
}
