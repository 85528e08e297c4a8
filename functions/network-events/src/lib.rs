//! Callbacks of the SM-DP+ (ES2+) and the network (TMF641): each is one fact, written into its swap's row. What follows
//! from it is done elsewhere.

mod callers;

use domain::{ActivationId, Deadlines, Fact, Holder, Rejected, apply};
use edge::{
    ClockAndRng, SettingError, Settings, json_response, log_cause, no_such_route, record_activation, route,
    span_of_call,
};
use lambda_http::http::{HeaderValue, StatusCode};
use lambda_http::{Body, Request, Response};
use peers::es2plus::{self, ADMIN_PROTOCOL, DownloadProgressInfo};
use peers::read_json;
use peers::tmf641::{self, EventSubscription, LISTENER, Order, OrderState, ServiceOrderStateChangeEvent};
use serde_json::json;
use store::{Saved, Store, StoreError};
use tracing::Instrument;

use crate::callers::{Callers, Peer};

/// The function with all it needs, built once a process.
#[derive(Debug)]
pub struct NetworkEvents {
    store: Store,
    ambient: ClockAndRng,
    deadlines: Deadlines,
    callers: Callers,
}

/// The operation of ES2+ that we serve.
const PROGRESS: &str = "handleDownloadProgressInfo";

/// How often a fact is written anew because the row changed under it.
const ROUNDS: usize = 8;

impl NetworkEvents {
    /// Reads the deadlines, and who may call back.
    pub fn new(store: Store, ambient: ClockAndRng, settings: &Settings) -> Result<Self, SettingError> {
        Ok(Self {
            store,
            ambient,
            deadlines: settings.deadlines()?,
            callers: Callers::read(settings)?,
        })
    }

    /// Answers one callback; never fails. A peer that gets 503 sends it again.
    pub async fn handle(&self, request: Request) -> Response<Body> {
        let answered = async {
            let route = route(&request);
            let peer = if route.strip_prefix(tmf641::PATH) == Some(LISTENER) {
                Peer::Network
            } else if route.strip_prefix(es2plus::PATH) == Some(PROGRESS) {
                Peer::Smdp
            } else {
                return no_such_route();
            };
            if !self.callers.include(&request, peer) {
                return json_response(StatusCode::FORBIDDEN, &json!({"message": "Forbidden"}));
            }
            let written = match peer {
                Peer::Network => self.order_changed(&request).await,
                Peer::Smdp => self.download_progressed(&request).await,
            };
            written.unwrap_or_else(|error| {
                log_cause("a callback was not written", &error);
                let message = json!({"message": "Try again in a moment."});
                json_response(StatusCode::SERVICE_UNAVAILABLE, &message)
            })
        };
        answered.instrument(span_of_call(&request)).await
    }

    /// ES2+ `handleDownloadProgressInfo` (SGP.22 section 5.3.5): 204 for all that can be read.
    async fn download_progressed(&self, request: &Request) -> Result<Response<Body>, StoreError> {
        let Ok(info) = read_json::<DownloadProgressInfo>(bytes(request)) else {
            return Ok(not_understood(PROGRESS));
        };
        let now = self.ambient.now();
        let point = info.notification_point_id;
        let holder = self.store.sim(&info.iccid).await?.and_then(|sim| sim.holder);
        match (holder, info.fact(now)) {
            (Some(Holder::Swap(id)), Some(fact)) => {
                self.write(&id, &fact, None).await?;
            }
            (holder, fact) => {
                tracing::info!(iccid = %info.iccid, point, ?holder, ?fact, "a callback moves no swap");
            }
        }
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = StatusCode::NO_CONTENT;
        let (name, value) = ADMIN_PROTOCOL;
        response.headers_mut().insert(name, HeaderValue::from_static(value));
        Ok(response)
    }

    /// TMF641 `serviceOrderStateChangeEvent`: 201 for all that can be read.
    async fn order_changed(&self, request: &Request) -> Result<Response<Body>, StoreError> {
        let Ok(event) = read_json::<ServiceOrderStateChangeEvent>(bytes(request)) else {
            return Ok(not_understood("serviceOrderStateChangeEvent"));
        };
        let order = event.order();
        let unclear = Fact::NetworkUnclear {
            order_number: order.id.clone(),
        };
        let fact = match order.settled_state() {
            // The event tells no more: what it means is to be read from the order.
            OrderState::Partial | OrderState::Unknown => Some(unclear),
            _ => order.fact(self.ambient.now()),
        };
        match fact {
            None => tracing::info!(order = order.id, "an event moves no swap"),
            Some(fact) => self.write_of_order(order, &fact).await?,
        }
        let notified = EventSubscription {
            id: Some(event.event_id.clone().unwrap_or_else(|| order.id.clone())),
            callback: route(request).to_owned(),
            query: None,
        };
        Ok(json_response(StatusCode::CREATED, &notified))
    }

    /// Writes a fact that the network reports: into the swap that its order names, else into the one that has this order.
    async fn write_of_order(&self, order: &Order, fact: &Fact) -> Result<(), StoreError> {
        let named = order.external_id.as_deref().map(ActivationId::parse);
        if let Some(Ok(id)) = named
            && self.write(&id, fact, Some(&order.id)).await?
        {
            return Ok(());
        }
        for id in self.store.swaps_of_order(&order.id).await? {
            self.write(&id, fact, Some(&order.id)).await?;
        }
        Ok(())
    }

    /// Writes a fact; one that the network reports of its order `of_order` counts only if that is known to be the swap's. Tells
    /// whether there is such a swap.
    async fn write(&self, id: &ActivationId, fact: &Fact, of_order: Option<&str>) -> Result<bool, StoreError> {
        record_activation(id);
        for _ in 0..ROUNDS {
            let Some(swap) = self.store.swap(id).await? else {
                tracing::info!(?fact, "there is no such swap");
                return Ok(false);
            };
            let a = &swap.activation;
            let ours = a.order_number.as_deref();
            let unclear;
            let fact = match of_order {
                // Ours is another, or not known yet because the answer to it is on its way or was lost: what is true is to
                // be asked. After the end only a number that has moved is worth that.
                Some(named)
                    if ours != Some(named) && (a.phase.is_open() || matches!(fact, Fact::NetworkCompleted { .. })) =>
                {
                    tracing::warn!(order = named, "an event is not of a known order");
                    unclear = Fact::NetworkUnclear {
                        order_number: named.to_owned(),
                    };
                    &unclear
                }
                _ => fact,
            };
            let after = match apply(&swap.activation, fact, &self.deadlines, self.ambient.now()) {
                Ok(after) => after,
                Err(refused @ Rejected::StaleCallback) => {
                    tracing::warn!(?fact, %refused, "a callback is not acted on");
                    return Ok(true);
                }
                Err(refused) => {
                    tracing::info!(?fact, %refused, "a callback changes nothing");
                    return Ok(true);
                }
            };
            if self.store.save(&swap, &after).await? == Saved::Written {
                tracing::info!(?fact, "a callback is written");
                return Ok(true);
            }
        }
        Err(StoreError::Unavailable("the row keeps changing".into()))
    }
}

fn bytes(request: &Request) -> &[u8] {
    match request.body() {
        Body::Text(text) => text.as_bytes(),
        Body::Binary(bytes) => bytes,
        _ => &[],
    }
}

fn not_understood(what: &str) -> Response<Body> {
    tracing::warn!(what, "a callback is not understood");
    let message = json!({"code": "400", "reason": format!("The body is not a {what}.")});
    json_response(StatusCode::BAD_REQUEST, &message)
}
