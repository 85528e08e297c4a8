//! Tests of the door, with the scenarios of the network.

use axum::http::Method;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;

use super::*;
use crate::NetworkScenario;

const MINUTE: Duration = Duration::from_secs(60);

fn pace(seed: u64) -> FailurePace {
    FailurePace {
        late_by: MINUTE,
        unauthorized_for: MINUTE,
        seed,
    }
}

/// A peer that carries out every call, behind the door.
struct Peer(TowerToHyperService<Router>);

impl Peer {
    fn failing(mode: &str, seed: u64) -> Self {
        Self::responding(StatusCode::CREATED, mode, seed)
    }

    fn responding(status: StatusCode, mode: &str, seed: u64) -> Self {
        let mode: FailureMode<NetworkScenario> = mode.parse().unwrap();
        Self::behind(status, mode, seed)
    }

    fn behind<S: Scenario>(status: StatusCode, mode: FailureMode<S>, seed: u64) -> Self {
        let routes = Router::new().fallback(move || async move { (status, r#"{"state":"held"}"#) });
        let failures = Failures::new(mode, pace(seed));
        Self(TowerToHyperService::new(behind(Some(&failures), routes)))
    }

    /// The status code and the body of the response to a new order; no body if the connection breaks off.
    async fn place(&self) -> (u16, Option<String>) {
        self.call(Method::POST).await
    }

    async fn call(&self, method: Method) -> (u16, Option<String>) {
        let call = Request::builder().method(method).uri("/base/serviceOrder");
        let response = self.0.call(call.body(Body::empty()).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), usize::MAX).await.ok();
        (status, body.map(|body| String::from_utf8(body.into()).unwrap()))
    }
}

#[test]
fn a_mode_is_a_rate_or_a_word() {
    let words = "refuses, hangs, early, forgets, unauthorized";
    for (text, shown) in [
        ("0.2", "0.2"),
        ("20%", "0.2"),
        ("7%", "0.07"),
        ("0", "0"),
        ("1", "1"),
        ("100%", "1"),
        ("refuses", "refuses"),
        ("unauthorized", "unauthorized"),
        ("1.1", ""),
        ("101%", ""),
        ("-0.1", ""),
        ("NaN", ""),
        ("%", ""),
        ("", ""),
        ("Refuses", ""),
        ("bounces", ""),
    ] {
        match text.parse::<FailureMode<NetworkScenario>>() {
            Ok(mode) => assert_eq!(mode.to_string(), shown, "{text}"),
            Err(error) => {
                assert_eq!(shown, "", "{text}");
                assert_eq!(error, format!("must be a rate such as 0.2 or 20%, or one of: {words}"));
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_share_of_the_calls_fails_in_each_way() {
    async fn outcomes(mode: &str, seed: u64) -> [usize; 4] {
        let peer = Peer::failing(mode, seed);
        let mut counts = [0; 4];
        for _ in 0..200 {
            let sent = Instant::now();
            let outcome = match peer.place().await {
                (503, _) => 1,
                (201, None) => 3,
                (201, Some(_)) if sent.elapsed() >= MINUTE => 2,
                (201, Some(_)) => 0,
                other => panic!("{other:?}"),
            };
            counts[outcome] += 1;
        }
        counts
    }
    assert_eq!(outcomes("0", 1).await, [200, 0, 0, 0]);
    let all = outcomes("1", 1).await;
    assert!(all[0] == 0 && all[1..].iter().all(|count| *count > 40), "{all:?}");
    let fifth = outcomes("0.2", 1).await;
    assert!((140..180).contains(&fifth[0]), "{fifth:?}");
    assert_eq!(outcomes("0.2", 1).await, fifth);
    assert_ne!(outcomes("0.2", 2).await, fifth);
}

#[tokio::test(start_paused = true)]
async fn a_late_response_is_complete() {
    let peer = Peer::failing("hangs", 1);
    let sent = Instant::now();
    assert_eq!(peer.place().await, (201, Some(r#"{"state":"held"}"#.to_owned())));
    assert!(sent.elapsed() >= MINUTE);
}

/// A scenario in which no call is carried out.
#[derive(Clone, Copy, PartialEq)]
struct Silent;

impl Scenario for Silent {
    const ALL: &'static [(Self, &'static str, &'static str)] = &[(Self, "silent", "Nothing happens.")];
    const AT_A_RATE: &'static str = "Often, nothing happens.";

    fn fault(self, _: &Request) -> Option<Fault> {
        Some(Fault::RefuseLate)
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_refusal_is_a_503() {
    let peer = Peer::behind(StatusCode::CREATED, FailureMode::Scenario(Silent), 1);
    let sent = Instant::now();
    assert_eq!(peer.place().await, (503, Some(String::new())));
    assert!(sent.elapsed() >= MINUTE);
}

#[tokio::test(start_paused = true)]
async fn the_service_is_unauthorized_for_a_minute_from_the_first_call_on() {
    let peer = Peer::failing("unauthorized", 1);
    tokio::time::advance(MINUTE).await;
    assert_eq!(peer.place().await.0, 401);
    tokio::time::advance(MINUTE - Duration::from_secs(1)).await;
    assert_eq!(peer.place().await.0, 401);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(peer.place().await.0, 201);
}

#[tokio::test]
async fn a_scenario_concerns_some_calls() {
    let held = Some(r#"{"state":"held"}"#.to_owned());
    let started = Some(r#"{"state":"inProgress"}"#.to_owned());
    for (mode, new_order, search) in [
        ("early", (201, started), (201, held.clone())),
        ("forgets", (201, None), (200, Some("[]".to_owned()))),
        ("0", (201, held.clone()), (201, held)),
    ] {
        let peer = Peer::failing(mode, 1);
        assert_eq!(peer.place().await, new_order, "{mode}");
        assert_eq!(peer.call(Method::GET).await, search, "{mode}");
    }
    // A call that the peer rejects was not carried out, so the response is not lost.
    let rejecting = Peer::responding(StatusCode::CONFLICT, "forgets", 1);
    let (status, body) = rejecting.place().await;
    assert_eq!((status, body.is_some()), (409, true));
}
