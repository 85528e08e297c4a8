//! TMF641 bodies of any bytes, as an event and a response. A body that can be parsed is written with the same meaning,
//! and an order that is found is ours.
#![no_main]

use std::sync::LazyLock;

use domain::{ActivationId, Iccid, Msisdn};
use fuzz::{clock_and_rng, fixed_response, request, round_trip, run, settings, status_and_body, store};
use libfuzzer_sys::fuzz_target;
use network_events::NetworkEvents;
use peers::tmf641::{CancelServiceOrder, EventSubscription, LISTENER, PATH, ServiceOrderStateChangeEvent};
use peers::{NewOrder, Order, ServiceOrdering, read_json};

static FUNCTION: LazyLock<NetworkEvents> =
    LazyLock::new(|| NetworkEvents::new(store(), clock_and_rng(), &settings()).expect("settings"));

fuzz_target!(|body: &[u8]| {
    round_trip::<Order>(body);
    round_trip::<Vec<Order>>(body);
    round_trip::<CancelServiceOrder>(body);
    round_trip::<EventSubscription>(body);
    round_trip::<ServiceOrderStateChangeEvent>(body);
    let read = read_json::<ServiceOrderStateChangeEvent>(body);

    // An event is accepted exactly if it can be parsed.
    let path = format!("{PATH}{LISTENER}");
    let (response, _) = run(FUNCTION.handle(request("POST", &path, b"", body)));
    let (status, response) = status_and_body(response);
    assert_eq!(status, if read.is_ok() { 201 } else { 400 }, "{response}");

    let id = ActivationId::parse("01JK5ZQ4Q1XV0M6R2T8W3Y7B9C").expect("an id");
    let phone = Msisdn::parse("+31612345601").expect("a number");
    let iccids = ["8931086000000000013", "8931086000000002019"];
    let [old, new] = iccids.map(|text| Iccid::parse(text).expect("an ICCID"));
    let order = NewOrder {
        external_id: &id,
        msisdn: &phone,
        old_iccid: &old,
        new_iccid: &new,
        new_imsi: None,
        hold: true,
    };
    for status in [200, 400, 503] {
        let network = ServiceOrdering::new(fixed_response(status, body), "http://network");
        let ((found, got, placed, started), _) = run(async {
            (
                network.find(&id).await,
                network.get("1").await,
                network.place(order).await,
                network.start("1").await,
            )
        });
        if let Ok(Some(found)) = &found {
            assert_eq!(found.external_id.as_deref(), Some(id.as_str()));
        }
        assert!(status == 200 || found.is_err() && got.is_err() && placed.is_err() && started.is_err());
    }
});
