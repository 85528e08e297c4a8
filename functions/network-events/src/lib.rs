//! Handles the callbacks of the SM-DP+ (ES2+) and the network (TMF641): each is one fact, which is written into its
//! swap's row. Not here: authenticating the peer (`callers.rs`) and calling a peer (fulfil-swap).

mod callers;

use std::borrow::Cow;

use domain::{ActivationId, Deadlines, Fact, Holder, Rejected, apply, fact_of_event};
use edge::{
    ClockAndRng, SettingError, Settings, json_response, log_cause, no_such_route, record_activation, route,
    span_of_call,
};
use lambda_http::http::{HeaderValue, StatusCode};
use lambda_http::{Body, Request, Response};
use peers::es2plus::{self, ADMIN_PROTOCOL, CALLBACKS, DownloadProgressInfo};
use peers::tmf641::{self, EventSubscription, LISTENER, Order, OrderState, ServiceOrderStateChangeEvent};
use peers::{VendorPoints, read_json};
use serde_json::json;
use store::{Saved, Store, StoreError, retry_on_conflict};
use tracing::Instrument;

use crate::callers::{AllowedCallers, Peer};

/// The handler with its clients and settings. Built once per process.
#[derive(Debug)]
pub struct NetworkEvents {
    store: Store,
    clock: ClockAndRng,
    deadlines: Deadlines,
    callers: AllowedCallers,
    /// What the SM-DP+'s own steps mean.
    points: VendorPoints,
}

impl NetworkEvents {
    /// Reads the deadlines, the subjects of the peers' certificates, and `SMDP_POINTS`.
    pub fn new(store: Store, clock: ClockAndRng, settings: &Settings) -> Result<Self, SettingError> {
        Ok(Self {
            store,
            clock,
            deadlines: settings.deadlines()?,
            callers: AllowedCallers::from_settings(settings)?,
            points: settings
                .optional("SMDP_POINTS", VendorPoints::parse)?
                .unwrap_or_default(),
        })
    }

    /// Handles one callback. Every error becomes a response: after a 503 the peer sends the callback again.
    pub async fn handle(&self, request: Request) -> Response<Body> {
        let response = async {
            let route = route(&request);
            let peer = if route.strip_prefix(tmf641::PATH) == Some(LISTENER) {
                Peer::Network
            } else if route
                .strip_prefix(es2plus::PATH)
                .is_some_and(|function| CALLBACKS.contains(&function))
            {
                Peer::Smdp
            } else {
                return no_such_route();
            };
            if !self.callers.may_call(&request, peer) {
                return json_response(StatusCode::FORBIDDEN, &json!({"message": "Forbidden"}));
            }
            let result = match peer {
                Peer::Network => self.handle_order_event(&request).await,
                Peer::Smdp => self.handle_download_progress(&request).await,
            };
            result.unwrap_or_else(|error| {
                log_cause("writing a callback failed", &error);
                let message = json!({"message": "Try again in a moment."});
                json_response(StatusCode::SERVICE_UNAVAILABLE, &message)
            })
        };
        response.instrument(span_of_call(&request)).await
    }

    /// ES2+ `handleDownloadProgressInfo` (SGP.22 section 5.3.5), by either of its names. Every callback that can be
    /// parsed gets a 204.
    async fn handle_download_progress(&self, request: &Request) -> Result<Response<Body>, StoreError> {
        let Ok(info) = read_json::<DownloadProgressInfo>(body_bytes(request)) else {
            return Ok(malformed_body("handleDownloadProgressInfo"));
        };
        let now = self.clock.now();
        let point = info.notification_point_id;
        let holder = self.store.sim(&info.iccid).await?.and_then(|sim| sim.holder);
        let fact = info.fact(now, &self.points);
        let swap = match (holder, &fact) {
            (Some(Holder::Swap(id)), _) => Some(id),
            // After the end of its swap, the SIM belongs to the line.
            (Some(Holder::Line(line)), Some(Fact::PhoneChanged { .. })) => {
                let line = self.store.line(&line).await?;
                // The line may keep the SIM of a swap that failed.
                let line = line.filter(|line| line.line.current_sim == info.iccid);
                line.and_then(|line| line.last).map(|(swap, _)| swap.id)
            }
            _ => None,
        };
        match (swap, fact) {
            (Some(id), Some(fact)) => {
                let eid = info.eid_end().map(|end| Fact::EidKnown { end: end.to_owned() });
                self.write_fact(&id, &fact, eid.as_ref(), None).await?;
            }
            (swap, fact) => {
                tracing::info!(iccid = %info.iccid, point, ?swap, ?fact, "a callback affects no swap");
            }
        }
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = StatusCode::NO_CONTENT;
        let (name, value) = ADMIN_PROTOCOL;
        response.headers_mut().insert(name, HeaderValue::from_static(value));
        Ok(response)
    }

    /// TMF641 `serviceOrderStateChangeEvent`. Every callback that can be parsed gets a 201.
    async fn handle_order_event(&self, request: &Request) -> Result<Response<Body>, StoreError> {
        let Ok(event) = read_json::<ServiceOrderStateChangeEvent>(body_bytes(request)) else {
            return Ok(malformed_body("serviceOrderStateChangeEvent"));
        };
        let order = event.order();
        let unclear = Fact::NetworkUnclear {
            order_number: order.id.clone(),
        };
        let fact = match order.settled_state() {
            // The event alone does not say what happened, so the network has to be polled.
            OrderState::Partial | OrderState::Unknown => Some(unclear),
            _ => order.fact(self.clock.now()),
        };
        match fact {
            None => tracing::info!(order = order.id, "an order event affects no swap"),
            Some(fact) => self.write_order_fact(order, &fact).await?,
        }
        let notified = EventSubscription {
            id: Some(event.event_id.clone().unwrap_or_else(|| order.id.clone())),
            callback: route(request).to_owned(),
            query: None,
        };
        Ok(json_response(StatusCode::CREATED, &notified))
    }

    /// Writes a fact that the network reports: into the swap that the order names, else into the swaps that have this
    /// order.
    async fn write_order_fact(&self, order: &Order, fact: &Fact) -> Result<(), StoreError> {
        let named = order.external_id.as_deref().map(ActivationId::parse);
        if let Some(Ok(id)) = named
            && self.write_fact(&id, fact, None, Some(&order.id)).await?
        {
            return Ok(());
        }
        for id in self.store.swaps_of_order(&order.id).await? {
            self.write_fact(&id, fact, None, Some(&order.id)).await?;
        }
        Ok(())
    }

    /// Writes a fact into a swap, and with it `detail`, another fact that the same callback reports. A fact about the
    /// network's order `of_order` counts only if that order is known to be the swap's. Returns whether the swap exists.
    async fn write_fact(
        &self,
        id: &ActivationId,
        fact: &Fact,
        detail: Option<&Fact>,
        of_order: Option<&str>,
    ) -> Result<bool, StoreError> {
        record_activation(id);
        retry_on_conflict(|| async {
            let Some(swap) = self.store.swap(id).await? else {
                tracing::info!(?fact, "no swap has this id");
                return Ok(Some(false));
            };
            let fact = match of_order {
                Some(order_number) => fact_of_event(&swap.activation, fact, order_number),
                None => Cow::Borrowed(fact),
            };
            if let Cow::Owned(_) = fact {
                tracing::warn!(
                    order = of_order,
                    "a callback names an order that is not known to be the swap's"
                );
            }
            let now = self.clock.now();
            let after = match apply(&swap.activation, &fact, &self.deadlines, now) {
                Ok(after) => match detail.map(|detail| apply(&after, detail, &self.deadlines, now)) {
                    Some(Ok(detailed)) => detailed,
                    _ => after,
                },
                Err(rejected @ Rejected::StaleCallback) => {
                    tracing::warn!(?fact, %rejected, "a stale callback is ignored");
                    return Ok(Some(true));
                }
                Err(rejected) => {
                    tracing::info!(?fact, %rejected, "a callback does not apply");
                    return Ok(Some(true));
                }
            };
            if self.store.save(&swap, &after).await? != Saved::Written {
                return Ok(None);
            }
            tracing::info!(?fact, "callback written");
            Ok(Some(true))
        })
        .await
    }
}

fn body_bytes(request: &Request) -> &[u8] {
    match request.body() {
        Body::Text(text) => text.as_bytes(),
        Body::Binary(bytes) => bytes,
        _ => &[],
    }
}

fn malformed_body(expected: &str) -> Response<Body> {
    tracing::warn!(expected, "the body of a callback cannot be parsed");
    let message = json!({"code": "400", "reason": format!("The body is not a {expected}.")});
    json_response(StatusCode::BAD_REQUEST, &message)
}
