//! Automatic assignment: many lines at the same time, the last SIM, and the cost of an assignment with a small and a
//! large stock.

use std::collections::BTreeMap;

use domain::FormFactor;
use futures_util::{StreamExt, stream};
use local::dynoxide::{AttributeValue, Item};
use serde_json::json;
use tests::stock::{CUSTOMER, iccid, line_id, load_lines, load_sims, load_stock, phone};
use tests::{Bill, TestResponse, TestStack};

/// How many requests are sent at the same time.
const AT_ONCE: usize = 16;

async fn auto_assign(service: &TestStack, token: &str, line: usize) -> TestResponse {
    let bearer = format!("Bearer {token}");
    let path = format!("/mvno/{}/changesim/autoAssign", line_id(line));
    service.send("POST", &path, &[("authorization", &bearer)], "").await
}

/// Many lines request cards at the same time. Each card goes to one line, and a line gets none only when no card is
/// left.
async fn assign(lines: usize, cards: usize) {
    let (service, meter) = TestStack::metered().await;
    load_lines(&service, lines).await;
    load_sims(&service, FormFactor::Nano, cards).await;
    let token = service.owner(CUSTOMER);
    meter.bill();
    let responses: Vec<_> = stream::iter(0..lines)
        .map(|line| {
            let (service, token) = (&service, &token);
            async move { (line, auto_assign(service, token, line).await) }
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let calls = meter.bill().calls;
    let tries = calls.iter().filter(|call| *call == "TransactWriteItems");
    // One attempt in six meets a card that another line has just got. If all lines tried the first card, each would
    // need many attempts.
    let tries = tries.count();
    assert!(tries < 2 * lines, "{tries} tries");

    let mut holders = BTreeMap::new();
    let mut without = 0;
    for (line, response) in responses {
        let body = response.json();
        if response.status == 200 {
            let card = body["mvnoSim"]["simNumber"].as_str().unwrap().to_owned();
            assert_eq!(holders.insert(card, line_id(line)), None, "{body}");
        } else {
            let error = &body["error"]["message"];
            assert_eq!((response.status, error), (404, &json!("sim")));
            without += 1;
        }
    }
    assert_eq!(holders.len(), lines.min(cards));
    assert_eq!(without, lines.saturating_sub(cards));

    // The table agrees: card, swap and line refer to each other, and no other card is reserved.
    let rows = service.rows();
    let text = |row: &Item, name: &str| match row.get(name) {
        Some(AttributeValue::S(text)) => Some(text.clone()),
        _ => None,
    };
    let rows: BTreeMap<_, _> = rows.iter().map(|row| (text(row, "pk").unwrap(), row)).collect();
    for number in 0..cards {
        let card = iccid(FormFactor::Nano, number).to_string();
        let row = rows[&format!("S#{card}")];
        let (state, holder) = (text(row, "state").unwrap(), text(row, "holder"));
        let Some(line) = holders.get(&card) else {
            assert_eq!((state.as_str(), holder), ("FREE", None));
            continue;
        };
        let holder = holder.unwrap();
        assert_eq!((state.as_str(), text(rows[&holder], "newSim")), ("BUSY", Some(card)));
        assert_eq!(text(rows[&holder], "line").as_ref(), Some(line));
        let open = text(rows[&format!("L#{line}")], "swap");
        assert_eq!(open.as_deref(), holder.strip_prefix("A#"));
    }
    let open = rows.values().filter(|row| row.contains_key("swap"));
    assert_eq!(open.count(), holders.len());
    let swaps = rows.keys().filter(|pk| pk.starts_with("A#"));
    assert_eq!(swaps.count(), holders.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_lines_share_a_thousand_cards() {
    assign(1000, 1000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_lines_and_nine_hundred_cards_leave_a_hundred_without() {
    assign(1000, 900).await;
}

/// The cost of one assignment by each request that makes one, with this many SIMs in stock: half cards, half profiles.
async fn bills(stock: usize) -> Vec<(&'static str, Bill)> {
    let (service, meter) = TestStack::metered().await;
    load_lines(&service, 6).await;
    load_stock(&service, FormFactor::Nano, stock / 2).await;
    load_stock(&service, FormFactor::Esim, stock / 2).await;
    let token = service.owner(CUSTOMER);
    let esim = |name: &str, value: String| json!({name: value, "eSim": true, "email": "scale@example.com", "confirmationCode": "8E9!#"});
    // The first request that shows codes reads the data key, once in each process.
    let first = auto_assign(&service, &token, 0).await;
    assert_eq!(first.status, 200, "{first:?}");
    meter.bill();

    let mut bills = Vec::new();
    let mut note = |what, response: TestResponse| {
        assert_eq!(response.status, 200, "{what}: {response:?}");
        bills.push((what, meter.bill()));
    };
    note("autoAssign", auto_assign(&service, &token, 1).await);
    let bearer = format!("Bearer {token}");
    let path = format!("/mvno/{}/changesim/eSim", line_id(2));
    let response = service.send("POST", &path, &[("authorization", &bearer)], "").await;
    note("changesim/eSim", response);
    let by_id = esim("subscriptionId", line_id(3));
    note("by id", service.submit(&token, &by_id).await);
    let by_phone = esim("phoneNumber", phone(4));
    note("by phone", service.submit(&token, &by_phone).await);
    let with_key = esim("subscriptionId", line_id(5));
    let key = [("idempotency-key", "one")];
    let response = service.submit_with(&token, &key, &with_key).await;
    note("with a key", response);
    bills
}

/// Set `SCALE_STOCK=1000000` for that many SIMs instead of 5,000.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_assignment_costs_the_same_with_much_stock_as_with_little() {
    let much = std::env::var("SCALE_STOCK").map_or(5000, |much| much.parse().unwrap());
    let little = bills(1000).await;
    let units = |bills: &[(&str, Bill)]| {
        let bills = bills
            .iter()
            .map(|(what, bill)| (what.to_string(), bill.calls.clone(), bill.reads, bill.writes));
        bills.collect::<Vec<_>>()
    };
    assert_eq!(units(&bills(much).await), units(&little));
    const LINE: &str = "GetItem";
    const PHONE: &str = "GetItem";
    const KEY: &str = "GetItem";
    const SIM: &str = "GetItem";
    const STOCK: &str = "Query";
    const SUBMIT: &str = "TransactWriteItems";
    // Reading the row of a line, a phone number, a key or a SIM takes 1 unit, a page of stock half a unit. Writing the
    // swap's row with its four indexes takes 6 units, the line's 2, the SIM's with its index 3, and a key's 2.
    let expected: [(&str, &[&str], f64, f64); 5] = [
        ("autoAssign", &[LINE, STOCK, SUBMIT, SIM], 2.5, 12.0),
        ("changesim/eSim", &[LINE, STOCK, SUBMIT, SIM], 2.5, 12.0),
        ("by id", &[LINE, STOCK, SUBMIT], 1.5, 12.0),
        ("by phone", &[PHONE, LINE, STOCK, SUBMIT], 2.5, 12.0),
        ("with a key", &[LINE, KEY, STOCK, SUBMIT], 2.5, 14.0),
    ];
    assert_eq!(little.len(), expected.len());
    for ((what, bill), (name, calls, reads, writes)) in little.iter().zip(expected) {
        assert_eq!(*what, name);
        assert_eq!(bill.calls, calls, "{what}");
        assert_eq!((bill.reads, bill.writes), (reads, writes), "{what}");
    }
}
