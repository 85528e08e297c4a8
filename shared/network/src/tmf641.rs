//! The TMF641 client (TM Forum Service Ordering Management API v4.1). When to call what is not here.

mod wire;

use aws_smithy_runtime_api::client::http::SharedHttpConnector;
use domain::{ActivationId, Iccid, Imsi, Msisdn};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use wire::{
    CancelServiceOrder, Characteristic, EventSubscription, Order, OrderItem, OrderState, Service,
    ServiceOrderRef, ServiceOrderStateChange, ServiceOrderStateChangeEvent, TaskState, TmfError,
};

use crate::http::{Call, Reply, Unanswered, exchange};

/// Where every TMF641 resource is, in both directions.
pub const PATH: &str = "/tmf-api/serviceOrdering/v4";

/// Where the network tells of a change, below [`PATH`].
pub const LISTENER: &str = "/listener/serviceOrderStateChangeEvent";

/// Asks for the events that settle an order. Others tell nothing that the answers to our own calls do not tell; a network
/// that does not know the query sends them all the same.
pub const SETTLED: &str = "eventType=ServiceOrderStateChangeEvent&event.serviceOrder.state=completed,failed,rejected,cancelled,partial";

/// Why a call was not surely carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OrderingError {
    /// The network says no: any 4xx that is not "later". 409 to a new order: it has one with that external id.
    #[error("refused by the network: status {status}")]
    Refused {
        /// The HTTP status.
        status: u16,
    },
    /// The call may have been carried out.
    #[error("the network gave no usable answer")]
    Unanswered,
}

impl From<Unanswered> for OrderingError {
    fn from(_: Unanswered) -> Self {
        Self::Unanswered
    }
}

/// An order that moves a number to another SIM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewOrder<'a> {
    /// Our name for it, for ever.
    pub external_id: &'a ActivationId,
    /// The number.
    pub msisdn: &'a Msisdn,
    /// The SIM it is on.
    pub old_iccid: &'a Iccid,
    /// The SIM it goes to.
    pub new_iccid: &'a Iccid,
    /// That SIM's subscriber identity, when known.
    pub new_imsi: Option<&'a Imsi>,
    /// Whether it waits for [`ServiceOrdering::start`] (`startOn: profileInstalled`).
    pub hold: bool,
}

/// One network, as its client.
#[derive(Debug, Clone)]
pub struct ServiceOrdering {
    connector: SharedHttpConnector,
    base_url: String,
}

impl ServiceOrdering {
    /// `base_url` is what stands before `/tmf-api`. Certificates are the connector's affair.
    pub fn new(connector: SharedHttpConnector, base_url: &str) -> Self {
        Self {
            connector,
            base_url: base_url.trim_end_matches('/').to_owned(),
        }
    }

    /// The order with this external id, if the network has one.
    pub async fn find(&self, external_id: &ActivationId) -> Result<Option<Order>, OrderingError> {
        let query = format!("/serviceOrder?externalId={}", encode(external_id.as_str()));
        let orders: Vec<Order> = self.call("GET", &query, &()).await?;
        // A network that does not know the filter lists every order.
        Ok(orders
            .into_iter()
            .find(|order| order.external_id.as_deref() == Some(external_id.as_str())))
    }

    /// The order with this id of the network's.
    pub async fn get(&self, id: &str) -> Result<Order, OrderingError> {
        self.call("GET", &format!("/serviceOrder/{}", encode(id)), &())
            .await
    }

    /// Places an order. It starts at once unless it is held.
    pub async fn place(&self, order: NewOrder<'_>) -> Result<Order, OrderingError> {
        self.call("POST", "/serviceOrder", &wire::create(order))
            .await
    }

    /// Starts a held order.
    pub async fn start(&self, id: &str) -> Result<Order, OrderingError> {
        let path = format!("/serviceOrder/{}", encode(id));
        self.call("PATCH", &path, &wire::StateUpdate::IN_PROGRESS)
            .await
    }

    /// Asks the network to cancel an order. Whether it does is learnt from its event, or by [`Self::get`].
    pub async fn cancel(&self, id: &str) -> Result<(), OrderingError> {
        let request = CancelServiceOrder::request(id);
        let _ = self.send("POST", "/cancelServiceOrder", &request).await?;
        Ok(())
    }

    /// Registers the base URL below which we serve [`PATH`] and [`LISTENER`], for all events or for those that fit `query`.
    pub async fn register(&self, callback: &str, query: Option<&str>) -> Result<(), OrderingError> {
        let subscription = EventSubscription {
            id: None,
            callback: callback.to_owned(),
            query: query.map(str::to_owned),
        };
        let _ = self.send("POST", "/hub", &subscription).await?;
        Ok(())
    }

    async fn call<A: DeserializeOwned>(
        &self,
        method: &'static str,
        path: &str,
        request: &impl Serialize,
    ) -> Result<A, OrderingError> {
        let reply = self.send(method, path, request).await?;
        serde_json::from_slice(&reply.body).map_err(|_| {
            tracing::warn!(method, path, "the network's answer is not of TMF641");
            OrderingError::Unanswered
        })
    }

    async fn send(
        &self,
        method: &'static str,
        path: &str,
        request: &impl Serialize,
    ) -> Result<Reply, OrderingError> {
        let body = match method {
            "GET" => Vec::new(),
            _ => serde_json::to_vec(request).expect("the request types are plain JSON"),
        };
        let reply = exchange(
            &self.connector,
            Call {
                method,
                url: &format!("{}{PATH}{path}", self.base_url),
                headers: &[],
                body,
            },
        )
        .await?;
        let status = reply.status;
        match status {
            200..300 => return Ok(reply),
            409 => tracing::info!(method, path, status, "the network refused"),
            _ => tracing::warn!(method, path, status, "the network refused or failed"),
        }
        Err(match status {
            408 | 429 => OrderingError::Unanswered,
            400..500 => OrderingError::Refused { status },
            _ => OrderingError::Unanswered,
        })
    }
}

/// A network's ids may have slashes and hashes in them.
fn encode(segment: &str) -> impl std::fmt::Display {
    utf8_percent_encode(segment, NON_ALPHANUMERIC)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connector;
    use crate::http::tests::{answer, peer};
    use jiff::Timestamp;
    use serde_json::{Value, json};

    const ORDER: &str = r#"{"id":"031230/2025","href":"x","externalId":"A-1","state":"held","category":"SIMSWAP",
        "serviceOrderItem":[{"id":"1","action":"modify","state":"held","service":{}}],"@type":"ServiceOrder"}"#;

    fn client(url: &str) -> ServiceOrdering {
        ServiceOrdering::new(connector(), url)
    }

    fn id() -> ActivationId {
        ActivationId::parse("A-1").unwrap()
    }

    fn parts(request: &str) -> (&str, Value) {
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        let line = head.lines().next().unwrap();
        let body = serde_json::from_str(body).unwrap_or(Value::Null);
        (line.strip_suffix(" HTTP/1.1").unwrap(), body)
    }

    fn characteristic(name: &str, value: &str) -> Value {
        json!({"name": name, "value": value, "valueType": "string"})
    }

    #[tokio::test]
    async fn an_order_on_the_wire() {
        let (url, request) = peer(&answer("201 Created", ORDER)).await;
        let (old, new) = (
            Iccid::parse("8931086000000000013").unwrap(),
            Iccid::parse("8931086000000002019").unwrap(),
        );
        let msisdn = Msisdn::parse("+31612345601").unwrap();
        let imsi = Imsi::parse("204080000000001").unwrap();
        let placed = client(&url)
            .place(NewOrder {
                external_id: &id(),
                msisdn: &msisdn,
                old_iccid: &old,
                new_iccid: &new,
                new_imsi: Some(&imsi),
                hold: true,
            })
            .await
            .unwrap();
        assert_eq!(
            (placed.id.as_str(), placed.state),
            ("031230/2025", OrderState::Held)
        );
        let request = request.await.unwrap();
        assert_eq!(
            parts(&request),
            (
                "POST /tmf-api/serviceOrdering/v4/serviceOrder",
                json!({
                    "externalId": "A-1",
                    "category": "SIMSWAP",
                    "serviceOrderItem": [{
                        "id": "1",
                        "action": "modify",
                        "service": {"serviceCharacteristic": [
                            characteristic("msisdn", "+31612345601"),
                            characteristic("oldIccid", "8931086000000000013"),
                            characteristic("newIccid", "8931086000000002019"),
                            characteristic("newImsi", "204080000000001"),
                            characteristic("startOn", "profileInstalled"),
                        ]},
                    }],
                })
            )
        );

        let (url, request) = peer(&answer("201 Created", ORDER)).await;
        client(&url)
            .place(NewOrder {
                external_id: &id(),
                msisdn: &msisdn,
                old_iccid: &old,
                new_iccid: &new,
                new_imsi: None,
                hold: false,
            })
            .await
            .unwrap();
        let request = request.await.unwrap();
        let characteristics =
            &parts(&request).1["serviceOrderItem"][0]["service"]["serviceCharacteristic"];
        assert_eq!(characteristics.as_array().unwrap().len(), 3);
    }

    #[tokio::test]
    async fn the_other_calls_on_the_wire() {
        let (url, request) = peer(&answer("200 OK", ORDER)).await;
        client(&url).start("031230/2025#5").await.unwrap();
        assert_eq!(
            parts(&request.await.unwrap()),
            (
                "PATCH /tmf-api/serviceOrdering/v4/serviceOrder/031230%2F2025%235",
                json!({"state": "inProgress"})
            )
        );
        let (url, request) = peer(&answer("200 OK", ORDER)).await;
        client(&url).get("7").await.unwrap();
        let expected = (
            "GET /tmf-api/serviceOrdering/v4/serviceOrder/7",
            Value::Null,
        );
        assert_eq!(parts(&request.await.unwrap()), expected);

        let (url, request) = peer(&answer("201 Created", "{}")).await;
        client(&url).cancel("7").await.unwrap();
        assert_eq!(
            parts(&request.await.unwrap()),
            (
                "POST /tmf-api/serviceOrdering/v4/cancelServiceOrder",
                json!({"serviceOrder": {"id": "7"}})
            )
        );
        let (url, request) = peer(&answer("201 Created", "")).await;
        client(&format!("{url}/"))
            .register("http://127.0.0.1:9000", Some(SETTLED))
            .await
            .unwrap();
        assert_eq!(
            parts(&request.await.unwrap()),
            (
                "POST /tmf-api/serviceOrdering/v4/hub",
                json!({
                    "callback": "http://127.0.0.1:9000",
                    "query": "eventType=ServiceOrderStateChangeEvent&event.serviceOrder.state=completed,failed,rejected,cancelled,partial"
                })
            )
        );
    }

    #[tokio::test]
    async fn finding_takes_only_the_order_that_is_ours() {
        let other = ORDER.replace("A-1", "A-2");
        for (list, expected) in [
            ("[]".to_owned(), None),
            (format!("[{other}]"), None),
            (r#"[{"id":"7"}]"#.to_owned(), None),
            (format!("[{other},{ORDER}]"), Some("031230/2025")),
        ] {
            let (url, request) = peer(&answer("200 OK", &list)).await;
            let found = client(&url).find(&id()).await.unwrap();
            assert_eq!(found.map(|order| order.id).as_deref(), expected, "{list}");
            assert_eq!(
                parts(&request.await.unwrap()).0,
                "GET /tmf-api/serviceOrdering/v4/serviceOrder?externalId=A%2D1"
            );
        }
    }

    #[tokio::test]
    async fn what_each_status_is() {
        use OrderingError::{Refused, Unanswered};
        for (status, body, expected) in [
            ("400 Bad Request", "", Refused { status: 400 }),
            ("404 Not Found", "<html>", Refused { status: 404 }),
            ("409 Conflict", "{}", Refused { status: 409 }),
            ("408 Request Timeout", "", Unanswered),
            ("429 Too Many Requests", "", Unanswered),
            ("500 Internal Server Error", "<html>", Unanswered),
            ("302 Found", "", Unanswered),
            ("200 OK", "<html>", Unanswered),
            ("200 OK", "{}", Unanswered),
        ] {
            let (url, _) = peer(&answer(status, body)).await;
            assert_eq!(
                client(&url).get("7").await,
                Err(expected),
                "{status} {body}"
            );
        }
        let nowhere = client("http://no-such-host.invalid");
        assert_eq!(nowhere.get("7").await, Err(Unanswered));
    }

    #[test]
    fn an_order_is_read_leniently() {
        let order: Order = serde_json::from_str(ORDER).unwrap();
        assert_eq!(order.external_id.as_deref(), Some("A-1"));
        assert_eq!(order.item_states().collect::<Vec<_>>(), [OrderState::Held]);
        for (json, state, date) in [
            (r#"{"id":"7"}"#, OrderState::Unknown, None),
            (r#"{"id":"7","state":"paused"}"#, OrderState::Unknown, None),
            (
                r#"{"id":"7","state":"completed","completionDate":"2026-11-22T15:05:10.5+01:00"}"#,
                OrderState::Completed,
                Some("2026-11-22T14:05:10.5Z"),
            ),
            (
                r#"{"id":"7","state":"completed","completionDate":"22 November","serviceOrderItem":null}"#,
                OrderState::Completed,
                None,
            ),
        ] {
            let order: Order = serde_json::from_str(json).unwrap();
            let date = date.map(|date| date.parse::<Timestamp>().unwrap());
            assert_eq!(
                (order.state, order.completion_date),
                (state, date),
                "{json}"
            );
        }
    }

    #[test]
    fn partial_is_what_its_one_item_is() {
        for (state, items, expected) in [
            (
                "partial",
                r#"[{"state":"completed"}]"#,
                OrderState::Completed,
            ),
            ("partial", r#"[{"state":"failed"}]"#, OrderState::Failed),
            ("partial", r#"[{}]"#, OrderState::Unknown),
            ("partial", "[]", OrderState::Partial),
            (
                "partial",
                r#"[{"state":"completed"},{"state":"failed"}]"#,
                OrderState::Partial,
            ),
            ("held", r#"[{"state":"completed"}]"#, OrderState::Held),
        ] {
            let json = format!(r#"{{"id":"7","state":"{state}","serviceOrderItem":{items}}}"#);
            let order: Order = serde_json::from_str(&json).unwrap();
            assert_eq!(order.settled_state(), expected, "{json}");
        }
    }

    #[test]
    fn the_event_is_read_and_written() {
        let wire = json!({
            "eventId": "E-1",
            "eventTime": "2026-11-22T14:05:10Z",
            "eventType": "ServiceOrderStateChangeEvent",
            "event": {"serviceOrder": {"id": "7", "externalId": "A-1", "state": "completed"}},
        });
        let event: ServiceOrderStateChangeEvent = serde_json::from_value(wire.clone()).unwrap();
        assert_eq!(event.event.service_order.state, OrderState::Completed);
        assert_eq!(serde_json::to_value(&event).unwrap(), wire);
        let bare = json!({"event": {"serviceOrder": {"id": "7"}}, "eventTime": "soon"});
        assert!(serde_json::from_value::<ServiceOrderStateChangeEvent>(bare).is_ok());
    }
}
