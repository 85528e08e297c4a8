//! Swaps that meet faults: refusals, peers out of reach, answers that get lost, and what is left of those that end in ERROR.

use std::sync::Arc;
use std::time::Duration;

use domain::{ActivationId, FailureCode, Phase, ProfileOrder, SmDpAddress, SwapKind};
use edge::ClockAndRng;
use jiff::Timestamp;
use local::stack::Options;
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

/// A world whose functions reach both peers over wires.
struct Wired {
    world: TestStack,
    smdp: FaultyProxy,
    network: FaultyProxy,
}

impl Wired {
    async fn new(settings: &[(&str, &str)]) -> Self {
        let (smdp, network) = (FaultyProxy::new().await, FaultyProxy::new().await);
        let mut settings = settings.to_vec();
        settings.extend([("SMDP_URL", smdp.url.as_str()), ("NETWORK_URL", &network.url)]);
        let world = TestStack::with(&settings).await;
        smdp.connect(&world.stack.endpoints.smdp);
        network.connect(&world.stack.endpoints.network);
        Self { world, smdp, network }
    }

    /// The wire that a request with this line goes over.
    fn wire(&self, request: &str) -> &FaultyProxy {
        if request.starts_with("es2plus") {
            &self.smdp
        } else {
            &self.network
        }
    }
}

fn smdp(world: &TestStack) -> &Smdp {
    world.stack.smdp.as_ref().unwrap()
}

fn carrier(world: &TestStack) -> &MobileNetwork {
    world.stack.carrier.as_ref().unwrap()
}

/// How the network's order stands, if there is one.
async fn order_state(world: &TestStack, id: &str) -> Option<OrderState> {
    let network = ServiceOrdering::new(peers::connector(), &world.stack.endpoints.network);
    let id = ActivationId::parse(id).unwrap();
    network.find(&id).await.unwrap().map(|order| order.state)
}

/// ES2+'s way to say no.
fn refused(subject: &str, reason: &str) -> ProxyFault {
    let status = json!({"status": "Failed", "statusCodeData": {"subjectCode": subject, "reasonCode": reason}});
    ProxyFault::Answer(200, json!({"header": {"functionExecutionStatus": status}}).to_string())
}

/// Goes on to DONE with an eSIM swap that is under way: the phone installs it.
async fn install_to_done(world: &TestStack, id: &str) {
    let code = world.await_waiting(id).await;
    assert_eq!(world.install(&code, "8E9!#").await.status, 200);
    world.await_status(id, "DONE").await;
}

/// The swap ended in ERROR for this reason, and everything is as it was before it.
async fn assert_undone(world: &TestStack, id: &str, failure: FailureCode) {
    let seen = world.await_status(id, "ERROR").await;
    assert_eq!(
        seen["info"]["failure"],
        json!({"code": failure.code(), "message": failure.message()})
    );
    assert!(seen.get("activatedDate").is_none(), "{seen}");
    let record = world.record(id).await;
    let line = world.line(record.subscription.as_str()).await;
    assert_eq!((line.open_swap.clone(), &line.current_sim), (None, &record.old_sim));
    let old = world.sim(record.old_sim.as_str()).await;
    assert_eq!(old.state.as_str(), "ACTIVATED");

    // The new SIM is nobody's. A profile rests before it can be anybody's, and one that is another's is never used again.
    let new = world.sim(record.new_sim.as_str()).await;
    let taken = record.profile_order == ProfileOrder::Taken;
    let left = if taken { "DISABLED" } else { "FREE" };
    assert_eq!((new.state.as_str(), new.holder), (left, None));
    let rests = new.free_from > Timestamp::now();
    // A card rests as long as a call that was given up may still order it.
    if failure != FailureCode::Unavailable || record.kind == SwapKind::Esim {
        assert_eq!(rests, record.kind == SwapKind::Esim && !taken);
    }
    let free = world
        .stack
        .store
        .free_sims(&line, SwapKind::Esim, Timestamp::now(), 0)
        .await
        .unwrap();
    assert!(!free.contains(&record.new_sim));

    // Nobody can fetch the profile, and the network will not move the number.
    let profile = smdp(world).profile_state(&record.new_sim).unwrap();
    assert_eq!(profile, ProfileState::Available);
    assert_eq!(carrier(world).sim_of(&line.phone).unwrap(), None);
    let order = order_state(world, id).await;
    assert!(matches!(order, None | Some(OrderState::Cancelled)), "{order:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_ends_the_swap_and_the_line_takes_another() {
    let Wired { world, smdp, network } = &Wired::new(&HASTY).await;
    let html = || ProxyFault::Answer(422, "<html>no</html>".to_owned());
    for (wire, request, fault, swap, failure) in [
        (
            smdp,
            DOWNLOAD,
            refused("8.2.1", "3.3"),
            esim(line::ANNA),
            FailureCode::ProfileRefused,
        ),
        (
            smdp,
            DOWNLOAD,
            refused("8.2.1", "1.2"),
            esim(line::ANNA),
            FailureCode::ProfileRefused,
        ),
        (
            smdp,
            CONFIRM,
            refused("8.2.6", "3.3"),
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
        wire.plan(request, fault);
        let id = world.begin(&swap).await;
        assert_undone(world, &id, failure).await;
        assert!(world.mails(&id).is_empty());
    }
    // A card that the network never took is free at once.
    let id = world.begin(&card(line::BRAM, FREE_CARD)).await;
    world.await_status(&id, "DONE").await;
    let id = world.begin(&esim(line::ANNA)).await;
    install_to_done(world, &id).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_lost_on_the_way_a_swap_is_done_once() {
    // A lease that no slow machine outlives: only what is planned is lost.
    let wired = &Wired::new(&[("RETRY_AFTER", "1ms"), ("LEASE", "60s")]).await;
    let world = &wired.world;
    let busy = || ProxyFault::Answer(503, "<html>busy</html>".to_owned());
    for (request, fault) in [
        (DOWNLOAD, ProxyFault::LoseRequest),
        (DOWNLOAD, ProxyFault::LoseAnswer),
        (DOWNLOAD, busy()),
        (CONFIRM, ProxyFault::LoseRequest),
        (CONFIRM, ProxyFault::LoseAnswer),
        (CONFIRM, busy()),
        (PLACE, ProxyFault::LoseRequest),
        (PLACE, ProxyFault::LoseAnswer),
        (PLACE, busy()),
        (START, ProxyFault::LoseRequest),
        (START, ProxyFault::LoseAnswer),
        (START, busy()),
    ] {
        let case = format!("{request} {fault:?}");
        let arrived = matches!(fault, ProxyFault::LoseAnswer);
        let before = wired.wire(request).count(request);
        wired.wire(request).plan(request, fault);
        let id = world.begin(&esim(line::ANNA)).await;
        install_to_done(world, &id).await;
        assert!(wired.wire(request).is_spent(), "{case}");
        if arrived && [PLACE, START].contains(&request) {
            // The network is looked at before it is told again.
            assert_eq!(wired.network.count(request) - before, 1, "{case}");
        }
        let record = world.record(&id).await;
        assert_eq!(smdp(world).orders_of(&record.new_sim).unwrap(), 1, "{case}");
        let profile = smdp(world).profile_state(&record.new_sim).unwrap();
        assert_eq!(profile, ProfileState::Installed, "{case}");
        assert_eq!(carrier(world).orders_of(&id).unwrap(), 1, "{case}");
        assert_eq!(world.mails(&id).len(), 1, "{case}");
        let line = world.line(line::ANNA).await;
        assert_eq!(line.current_sim, record.new_sim, "{case}");
        assert_eq!(
            carrier(world).sim_of(&line.phone).unwrap(),
            Some(record.new_sim),
            "{case}"
        );
    }
    for (fault, iccid) in [
        (ProxyFault::LoseRequest, FREE_CARD),
        (ProxyFault::LoseAnswer, "8931086000000001029"),
        (busy(), "8931086000000001037"),
    ] {
        wired.network.plan(PLACE, fault.clone());
        let id = world.begin(&card(line::BRAM, iccid)).await;
        world.await_status(&id, "DONE").await;
        assert!(wired.network.is_spent());
        assert_eq!(carrier(world).orders_of(&id).unwrap(), 1, "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_lost_while_a_swap_ends_is_asked_again() {
    let wired = &Wired::new(&HASTY).await;
    let world = &wired.world;
    for fault in [
        ProxyFault::LoseRequest,
        ProxyFault::LoseAnswer,
        ProxyFault::Answer(500, String::new()),
    ] {
        wired.network.plan(PLACE, ProxyFault::Answer(400, String::new()));
        wired.smdp.plan(CANCEL_PROFILE, fault.clone());
        let id = world.begin(&esim(line::ANNA)).await;
        assert_undone(world, &id, FailureCode::NetworkRejected).await;
        assert!(wired.smdp.is_spent());
        for request in [CANCEL_PROFILE, SHOW, CANCEL_MOVE] {
            let id = world.begin(&esim(line::ANNA)).await;
            world.await_waiting(&id).await;
            wired.wire(request).plan(request, fault.clone());
            let cancelled = world.manage(&world.admin(), "CancelActivation", &id, "").await;
            assert_eq!(cancelled.status, 200, "{cancelled:?}");
            assert_undone(world, &id, FailureCode::Cancelled).await;
            assert!(wired.wire(request).is_spent());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_smdp_that_comes_later_is_found() {
    let place = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let world = TestStack::start(Options {
        smdp_url: Some(format!("http://{place}")),
        settings: HASTY.map(|(n, v)| (n.to_owned(), v.to_owned())).into(),
        ..TestStack::options()
    })
    .await;
    let id = world.begin(&esim(line::ANNA)).await;
    world.await_record(&id, |record| record.tries >= 2).await;
    assert_eq!(world.activation(&id).await["status"], "INIT");

    let address = SmDpAddress::parse("smdp.example.test").unwrap();
    let smdp = Smdp::open(None, address, &world.stack.endpoints.api, ClockAndRng::real()).unwrap();
    let listener = TcpListener::bind(place).await.unwrap();
    drop(Arc::new(smdp).serve(listener, peers::connector()));
    install_to_done(&world, &id).await;
    assert_eq!(world.mails(&id).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_comes_back_is_found() {
    let Wired { world, network, .. } = &Wired::new(&HASTY).await;
    for swap in [esim(line::ANNA), card(line::BRAM, FREE_CARD)] {
        network.cut();
        let id = world.begin(&swap).await;
        world.await_record(&id, |record| record.tries >= 2).await;
        network.connect(&world.stack.endpoints.network);
        if swap["eSim"] == true {
            install_to_done(world, &id).await;
        }
        world.await_status(&id, "DONE").await;
        assert_eq!(carrier(world).orders_of(&id).unwrap(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_stays_out_of_reach_is_given_up() {
    let Wired { world, smdp, network } =
        &Wired::new(&[&HASTY[..], &[("ORDER_WITHIN", "1s"), ("CALL_REST", "300ms")]].concat()).await;
    for (wire, request, url, swap) in [
        (smdp, DOWNLOAD, &world.stack.endpoints.smdp, esim(line::ANNA)),
        (network, PLACE, &world.stack.endpoints.network, esim(line::BRAM)),
        (
            network,
            PLACE,
            &world.stack.endpoints.network,
            card(line::CARLA, FREE_CARD),
        ),
    ] {
        wire.cut();
        let before = wire.count(request);
        let id = world.begin(&swap).await;
        world.await_record(&id, |record| record.tries > 0).await;
        let ending = world.await_record(&id, |record| record.phase == Phase::Ending).await;
        assert_eq!(ending.failure, Some(FailureCode::Unavailable));
        // A repeated order is looked for first.
        let tries = wire.count(request) - before;
        assert!(if request == DOWNLOAD { tries > 1 } else { tries == 1 }, "{tries}");
        // As long as a peer may have something of it, the line stays taken.
        assert_eq!(world.activation(&id).await["status"], "INIT");
        wire.connect(url);
        assert_undone(world, &id, FailureCode::Unavailable).await;
        assert!(world.mails(&id).is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_esim_that_is_not_installed_in_time_expires() {
    let Wired { world, .. } = &Wired::new(&[("INSTALL_WITHIN", "1ms"), ("ASK_AFTER", "50ms")]).await;
    let id = world.begin(&esim(line::ANNA)).await;
    assert_undone(world, &id, FailureCode::Expired).await;
    assert_eq!(order_state(world, &id).await, Some(OrderState::Cancelled));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_profile_that_is_given_up_ends_the_swap() {
    let wired = &Wired::new(&HASTY).await;
    let world = &wired.world;
    for fault in [None, Some(ProxyFault::LoseRequest), Some(ProxyFault::LoseAnswer)] {
        let id = world.begin(&esim(line::ANNA)).await;
        let code = world.await_waiting(&id).await;
        if let Some(fault) = fault {
            wired.network.plan(CANCEL_MOVE, fault);
        }
        for _ in 0..5 {
            assert_eq!(world.install(&code, "wrong").await.status, 403);
        }
        assert_undone(world, &id, FailureCode::ProfileFailed).await;
        assert_eq!(order_state(world, &id).await, Some(OrderState::Cancelled));
        assert_eq!(world.install(&code, "8E9!#").await.status, 404);
        assert_eq!(world.mails(&id).len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_fails_after_the_start_leaves_the_old_sim() {
    let world = TestStack::start(Options {
        network_delay: Duration::from_secs(3600),
        settings: HASTY.map(|(n, v)| (n.to_owned(), v.to_owned())).into(),
        ..TestStack::options()
    })
    .await;
    let failed = async |id: &str| -> Value {
        let order = world.record(id).await.order_number;
        json!({"eventId": "1", "event": {"serviceOrder": {"id": order, "externalId": id, "state": "failed"}}})
    };
    let listener = "/tmf-api/serviceOrdering/v4/listener/serviceOrderStateChangeEvent";
    let swaps = [
        // The phone has the profile, so no other will; a card can be sold again.
        (esim(line::ANNA), "DISABLED"),
        (card(line::BRAM, FREE_CARD), "FREE"),
    ];
    for (swap, left) in swaps {
        let id = world.begin(&swap).await;
        if swap["eSim"] == true {
            let code = world.await_waiting(&id).await;
            assert_eq!(world.install(&code, "8E9!#").await.status, 200);
        }
        let record = world.await_record(&id, |record| record.phase == Phase::Started).await;
        assert_eq!(world.activation(&id).await["status"], "BUSY");
        let told = world.send("POST", listener, &[], failed(&id).await.to_string()).await;
        assert_eq!(told.status, 201);
        let seen = world.await_status(&id, "ERROR").await;
        assert_eq!(seen["info"]["failure"]["code"], "networkFailed");
        assert_eq!(world.sim(record.new_sim.as_str()).await.state.as_str(), left);
        let line = world.line(record.subscription.as_str()).await;
        assert_eq!((line.open_swap, line.current_sim), (None, record.old_sim));
    }
}
