//! Swaps under faults: rejected orders, unreachable peers, lost responses, and the state that swaps in ERROR leave
//! behind.

use std::sync::Arc;
use std::time::Duration;

use domain::{Activation, ActivationId, FailureCode, Phase, ProfileOrder, SmDpAddress, StartCall, SwapKind};
use edge::ClockAndRng;
use jiff::Timestamp;
use local::stack::Options;
use mail_parser::MessageParser;
use peers::{OrderState, ServiceOrdering};
use serde_json::{Value, json};
use simulators::{MobileNetwork, ProfileState, Smdp};
use tests::{FREE_CARD, FaultyProxy, ProxyFault, TestStack, card, esim, line};
use tokio::net::TcpListener;

const DOWNLOAD: &str = "es2plus/downloadOrder";
const CONFIRM: &str = "es2plus/confirmOrder";
const CANCEL_PROFILE: &str = "es2plus/cancelOrder";
const PLACE: &str = "POST /tmf-api/serviceOrdering/v4/serviceOrder";
const SHOW: &str = "GET /tmf-api/serviceOrdering/v4/serviceOrder/";
const START: &str = "PATCH /tmf-api/serviceOrdering/v4/serviceOrder/";
const CANCEL_MOVE: &str = "POST /tmf-api/serviceOrdering/v4/cancelServiceOrder";

/// Waits that keep a test short.
const HASTY: [(&str, &str); 3] = [("RETRY_AFTER", "1ms"), ("ASK_AFTER", "50ms"), ("ASK_AT_MOST", "200ms")];

/// A service whose functions reach both peers through proxies.
struct Wired {
    service: TestStack,
    smdp: FaultyProxy,
    network: FaultyProxy,
}

impl Wired {
    async fn new(settings: &[(&str, &str)]) -> Self {
        let (smdp, network) = (FaultyProxy::new().await, FaultyProxy::new().await);
        let mut settings = settings.to_vec();
        settings.extend([("SMDP_URL", smdp.url.as_str()), ("NETWORK_URL", &network.url)]);
        let service = TestStack::with(&settings).await;
        smdp.connect(&service.stack.endpoints.smdp);
        network.connect(&service.stack.endpoints.network);
        Self { service, smdp, network }
    }

    /// The proxy that serves a request with this line.
    fn proxy(&self, request: &str) -> &FaultyProxy {
        if request.starts_with("es2plus") {
            &self.smdp
        } else {
            &self.network
        }
    }
}

fn smdp(service: &TestStack) -> &Smdp {
    service.stack.smdp.as_ref().unwrap()
}

fn mobile_network(service: &TestStack) -> &MobileNetwork {
    service.stack.network.as_ref().unwrap()
}

/// The state of the swap's order at the network, if there is one.
async fn order_state(service: &TestStack, id: &str) -> Option<OrderState> {
    let network = ServiceOrdering::new(peers::connector(), &service.stack.endpoints.network);
    let id = ActivationId::parse(id).unwrap();
    network.find(&id).await.unwrap().map(|order| order.state)
}

/// An ES2+ response that rejects the call.
fn rejection(subject: &str, reason: &str) -> ProxyFault {
    let status = json!({"status": "Failed", "statusCodeData": {"subjectCode": subject, "reasonCode": reason}});
    ProxyFault::Respond(200, json!({"header": {"functionExecutionStatus": status}}).to_string())
}

/// Brings an open eSIM swap to DONE: the phone installs the profile.
async fn install_to_done(service: &TestStack, id: &str) {
    let code = service.await_waiting(id).await;
    assert_eq!(service.install(&code, "8E9!#").await.status, 200);
    service.await_status(id, "DONE").await;
}

/// Asserts that the swap ended in ERROR with this code and that everything is as it was before the swap.
async fn assert_undone(service: &TestStack, id: &str, failure: FailureCode) {
    let seen = service.await_status(id, "ERROR").await;
    assert_eq!(
        seen["info"]["failure"],
        json!({"code": failure.as_str(), "message": failure.message()})
    );
    assert!(seen.get("activatedDate").is_none(), "{seen}");
    let record = service.record(id).await;
    let line = service.line(record.subscription.as_str()).await;
    assert_eq!((line.open_swap.clone(), &line.current_sim), (None, &record.old_sim));
    let old = service.sim(record.old_sim.as_str()).await;
    assert_eq!(old.state.as_str(), "ACTIVATED");

    // The new SIM belongs to no line. A profile cools down before it is free; one that belongs to another line is never
    // used again.
    let new = service.sim(record.new_sim.as_str()).await;
    let used_elsewhere = record.profile_order == ProfileOrder::Taken;
    let left = if used_elsewhere { "DISABLED" } else { "FREE" };
    assert_eq!((new.state.as_str(), new.holder), (left, None));
    let rests = new.free_from > Timestamp::now();
    // A card cools down for as long as an abandoned call may still order it.
    if failure != FailureCode::Unavailable || record.kind == SwapKind::Esim {
        assert_eq!(rests, record.kind == SwapKind::Esim && !used_elsewhere);
    }
    let free = service
        .stack
        .store
        .free_sims(&line, SwapKind::Esim, Timestamp::now(), 0)
        .await
        .unwrap();
    assert!(!free.contains(&record.new_sim));

    // No phone can download the profile, and the network does not move the number.
    let profile = smdp(service).profile_state(&record.new_sim).unwrap();
    assert_eq!(profile, ProfileState::Available);
    assert_eq!(mobile_network(service).sim_of(&line.phone).unwrap(), None);
    let order = order_state(service, id).await;
    assert!(matches!(order, None | Some(OrderState::Cancelled)), "{order:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_order_ends_the_swap_and_the_line_can_be_swapped_again() {
    let Wired { service, smdp, network } = &Wired::new(&HASTY).await;
    let html = || ProxyFault::Respond(422, "<html>no</html>".to_owned());
    for (proxy, request, fault, swap, failure) in [
        (
            smdp,
            DOWNLOAD,
            rejection("8.2.1", "3.3"),
            esim(line::ANNA),
            FailureCode::ProfileRefused,
        ),
        (
            smdp,
            DOWNLOAD,
            rejection("8.2.1", "1.2"),
            esim(line::ANNA),
            FailureCode::ProfileRefused,
        ),
        (
            smdp,
            CONFIRM,
            rejection("8.2.6", "3.3"),
            esim(line::ANNA),
            FailureCode::ProfileRefused,
        ),
        (network, PLACE, html(), esim(line::ANNA), FailureCode::NetworkRejected),
        (
            network,
            PLACE,
            html(),
            card(line::ANNA, FREE_CARD),
            FailureCode::NetworkRejected,
        ),
    ] {
        proxy.plan(request, fault);
        let id = service.start_swap(&swap).await;
        assert_undone(service, &id, failure).await;
        assert!(service.mails(&id).is_empty());
    }
    // A card that the network never accepted is free at once.
    let id = service.start_swap(&card(line::BRAM, FREE_CARD)).await;
    service.await_status(&id, "DONE").await;
    let id = service.start_swap(&esim(line::ANNA)).await;
    install_to_done(service, &id).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swap_is_done_once_whatever_request_or_response_is_lost() {
    // The lease outlasts any delay of a slow machine, so only the planned requests are lost.
    let wired = &Wired::new(&[("RETRY_AFTER", "1ms"), ("LEASE", "60s")]).await;
    let service = &wired.service;
    let busy = || ProxyFault::Respond(503, "<html>busy</html>".to_owned());
    for (request, fault) in [
        (DOWNLOAD, ProxyFault::LoseRequest),
        (DOWNLOAD, ProxyFault::LoseResponse),
        (DOWNLOAD, busy()),
        (CONFIRM, ProxyFault::LoseRequest),
        (CONFIRM, ProxyFault::LoseResponse),
        (CONFIRM, busy()),
        (PLACE, ProxyFault::LoseRequest),
        (PLACE, ProxyFault::LoseResponse),
        (PLACE, busy()),
        (START, ProxyFault::LoseRequest),
        (START, ProxyFault::LoseResponse),
        (START, busy()),
    ] {
        let case = format!("{request} {fault:?}");
        let arrived = matches!(fault, ProxyFault::LoseResponse);
        let before = wired.proxy(request).count(request);
        wired.proxy(request).plan(request, fault);
        let id = service.start_swap(&esim(line::ANNA)).await;
        install_to_done(service, &id).await;
        assert!(wired.proxy(request).is_spent(), "{case}");
        if arrived && [PLACE, START].contains(&request) {
            // The function looks the order up at the network before it repeats the call.
            assert_eq!(wired.network.count(request) - before, 1, "{case}");
        }
        let record = service.record(&id).await;
        assert_eq!(smdp(service).orders_of(&record.new_sim).unwrap(), 1, "{case}");
        let profile = smdp(service).profile_state(&record.new_sim).unwrap();
        assert_eq!(profile, ProfileState::Installed, "{case}");
        assert_eq!(mobile_network(service).orders_of(&id).unwrap(), 1, "{case}");
        assert_eq!(service.mails(&id).len(), 1, "{case}");
        let line = service.line(line::ANNA).await;
        assert_eq!(line.current_sim, record.new_sim, "{case}");
        assert_eq!(
            mobile_network(service).sim_of(&line.phone).unwrap(),
            Some(record.new_sim),
            "{case}"
        );
    }
    for (fault, iccid) in [
        (ProxyFault::LoseRequest, FREE_CARD),
        (ProxyFault::LoseResponse, "8931086000000001029"),
        (busy(), "8931086000000001037"),
    ] {
        wired.network.plan(PLACE, fault.clone());
        let id = service.start_swap(&card(line::BRAM, iccid)).await;
        service.await_status(&id, "DONE").await;
        assert!(wired.network.is_spent());
        assert_eq!(mobile_network(service).orders_of(&id).unwrap(), 1, "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_calls_at_the_end_of_a_swap_are_retried() {
    let wired = &Wired::new(&HASTY).await;
    let service = &wired.service;
    for fault in [
        ProxyFault::LoseRequest,
        ProxyFault::LoseResponse,
        ProxyFault::Respond(500, String::new()),
    ] {
        wired.network.plan(PLACE, ProxyFault::Respond(400, String::new()));
        wired.smdp.plan(CANCEL_PROFILE, fault.clone());
        let id = service.start_swap(&esim(line::ANNA)).await;
        assert_undone(service, &id, FailureCode::NetworkRejected).await;
        assert!(wired.smdp.is_spent());
        for request in [CANCEL_PROFILE, SHOW, CANCEL_MOVE] {
            let id = service.start_swap(&esim(line::ANNA)).await;
            service.await_waiting(&id).await;
            wired.proxy(request).plan(request, fault.clone());
            let cancelled = service.manage(&service.admin(), "CancelActivation", &id, "").await;
            assert_eq!(cancelled.status, 200, "{cancelled:?}");
            assert_undone(service, &id, FailureCode::Cancelled).await;
            assert!(wired.proxy(request).is_spent());
            // Nobody is told of a cancellation.
            assert_eq!(service.record(&id).await.mails, 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swap_waits_for_an_smdp_that_starts_later() {
    let place = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let service = TestStack::start(Options {
        smdp_url: Some(format!("http://{place}")),
        ..TestStack::options_with(&HASTY)
    })
    .await;
    let id = service.start_swap(&esim(line::ANNA)).await;
    service.await_record(&id, |record| record.tries >= 2).await;
    assert_eq!(service.activation(&id).await["status"], "INIT");

    let address = SmDpAddress::parse("smdp.example.test").unwrap();
    let smdp = Smdp::open(None, address, &service.stack.endpoints.api, ClockAndRng::real()).unwrap();
    let listener = TcpListener::bind(place).await.unwrap();
    drop(Arc::new(smdp).serve(listener, peers::connector()));
    install_to_done(&service, &id).await;
    assert_eq!(service.mails(&id).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swap_waits_for_a_network_that_comes_back() {
    let Wired { service, network, .. } = &Wired::new(&HASTY).await;
    for swap in [esim(line::ANNA), card(line::BRAM, FREE_CARD)] {
        network.disconnect();
        let id = service.start_swap(&swap).await;
        service.await_record(&id, |record| record.tries >= 2).await;
        network.connect(&service.stack.endpoints.network);
        if swap["eSim"] == true {
            install_to_done(service, &id).await;
        }
        service.await_status(&id, "DONE").await;
        assert_eq!(mobile_network(service).orders_of(&id).unwrap(), 1);
    }
}

/// Nothing has been started as long as the lookup before the start fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swap_can_be_cancelled_while_its_order_cannot_be_looked_up() {
    let wired = &Wired::new(&[("RETRY_AFTER", "1h"), ("ASK_AT_MOST", "1h"), ("LEASE", "60s")]).await;
    let service = &wired.service;
    for fault in [
        ProxyFault::LoseResponse,
        ProxyFault::Respond(503, "<html>busy</html>".to_owned()),
    ] {
        let id = service.start_swap(&esim(line::ANNA)).await;
        let code = service.await_waiting(&id).await;
        wired.network.plan(SHOW, fault.clone());
        assert_eq!(service.install(&code, "8E9!#").await.status, 200);
        // Earlier calls count as attempts, too, until the profile is installed.
        let has_failed = |record: &Activation| {
            record.profile == Some(domain::ProfileState::Installed) && record.tries > 0 && record.claim.is_none()
        };
        let record = service.await_record(&id, has_failed).await;
        assert_eq!(record.start, StartCall::None, "{fault:?}");
        let cancelled = service.manage(&service.admin(), "CancelActivation", &id, "").await;
        assert_eq!(cancelled.status, 200, "{fault:?} {cancelled:?}");
        let ended = service.await_status(&id, "ERROR").await;
        assert_eq!(ended["info"]["failure"]["code"], "cancelled", "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swap_fails_if_a_peer_stays_unreachable() {
    let Wired { service, smdp, network } =
        &Wired::new(&[&HASTY[..], &[("ORDER_WITHIN", "1s"), ("CALL_REST", "300ms")]].concat()).await;
    for (proxy, request, url, swap) in [
        (smdp, DOWNLOAD, &service.stack.endpoints.smdp, esim(line::ANNA)),
        (network, PLACE, &service.stack.endpoints.network, esim(line::BRAM)),
        (
            network,
            PLACE,
            &service.stack.endpoints.network,
            card(line::CARLA, FREE_CARD),
        ),
    ] {
        proxy.disconnect();
        let before = proxy.count(request);
        let id = service.start_swap(&swap).await;
        service.await_record(&id, |record| record.tries > 0).await;
        let ending = service.await_record(&id, |record| record.phase == Phase::Ending).await;
        assert_eq!(ending.failure, Some(FailureCode::Unavailable));
        // The function looks an order up before it repeats the call.
        let tries = proxy.count(request) - before;
        assert!(if request == DOWNLOAD { tries > 1 } else { tries == 1 }, "{tries}");
        // The line stays reserved as long as a peer may have an order for it.
        assert_eq!(service.activation(&id).await["status"], "INIT");
        proxy.connect(url);
        assert_undone(service, &id, FailureCode::Unavailable).await;
        assert!(service.mails(&id).is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_esim_that_is_not_installed_in_time_expires() {
    let Wired { service, .. } = &Wired::new(&[("INSTALL_WITHIN", "1ms"), ("ASK_AFTER", "50ms")]).await;
    let id = service.start_swap(&esim(line::ANNA)).await;
    assert_undone(service, &id, FailureCode::Expired).await;
    assert_eq!(order_state(service, &id).await, Some(OrderState::Cancelled));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_profile_that_failed_ends_the_swap_when_it_expires() {
    let mut settings = HASTY.to_vec();
    settings.push(("INSTALL_WITHIN", "8s"));
    let wired = &Wired::new(&settings).await;
    let service = &wired.service;
    for fault in [None, Some(ProxyFault::LoseRequest), Some(ProxyFault::LoseResponse)] {
        let id = service.start_swap(&esim(line::ANNA)).await;
        let code = service.await_waiting(&id).await;
        if let Some(fault) = fault {
            wired.network.plan(CANCEL_MOVE, fault);
        }
        for _ in 0..5 {
            assert_eq!(service.install(&code, "wrong").await.status, 403);
        }
        assert_undone(service, &id, FailureCode::CodesUsedUp).await;
        assert_eq!(order_state(service, &id).await, Some(OrderState::Cancelled));
        assert_eq!(service.install(&code, "8E9!#").await.status, 404);
        // The customer is told, once and to the same address.
        let told = service.await_mail_number(&id, 2).await;
        let told = MessageParser::default().parse(&told).unwrap();
        assert_eq!(told.subject(), Some("Je eSIM is niet geactiveerd"));
        assert_eq!(service.mails(&id).len(), 2);
        let recipients: Vec<_> = service
            .stack
            .mailbox
            .list()
            .iter()
            .map(|mail| mail.to.clone())
            .collect();
        assert!(recipients.iter().all(|to| *to == recipients[0]), "{recipients:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_failure_after_the_start_leaves_the_old_sim() {
    let service = TestStack::start(Options {
        network_delay: Duration::from_secs(3600),
        ..TestStack::options_with(&HASTY)
    })
    .await;
    let failed = async |id: &str| -> Value {
        let order = service.record(id).await.order_number;
        json!({"eventId": "1", "event": {"serviceOrder": {"id": order, "externalId": id, "state": "failed"}}})
    };
    let listener = "/tmf-api/serviceOrdering/v4/listener/serviceOrderStateChangeEvent";
    let swaps = [
        // A phone has the profile, so no other phone will get it; a card can be used again.
        (esim(line::ANNA), "DISABLED"),
        (card(line::BRAM, FREE_CARD), "FREE"),
    ];
    for (swap, left) in swaps {
        let id = service.start_swap(&swap).await;
        if swap["eSim"] == true {
            let code = service.await_waiting(&id).await;
            assert_eq!(service.install(&code, "8E9!#").await.status, 200);
        }
        let record = service.await_record(&id, |record| record.phase == Phase::Started).await;
        assert_eq!(service.activation(&id).await["status"], "BUSY");
        let response = service.send("POST", listener, &[], failed(&id).await.to_string()).await;
        assert_eq!(response.status, 201);
        let seen = service.await_status(&id, "ERROR").await;
        assert_eq!(seen["info"]["failure"]["code"], "networkFailed");
        assert_eq!(service.sim(record.new_sim.as_str()).await.state.as_str(), left);
        let line = service.line(record.subscription.as_str()).await;
        assert_eq!((line.open_swap, line.current_sim), (None, record.old_sim));
    }
}
