//! The client of TMF641 (TM Forum Service Ordering Management API v4.1). When to make which call is not here.

mod wire;

use aws_smithy_runtime_api::client::http::SharedHttpConnector;
use domain::{ActivationId, Iccid, Imsi, Msisdn};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde_json::Value;

pub use wire::{
    CancelServiceOrder, Characteristic, EventSubscription, Order, OrderItem, OrderState, Service, ServiceOrderRef,
    ServiceOrderStateChange, ServiceOrderStateChangeEvent, TaskState, TmfError,
};

use crate::http::{Call, NoResponse, Reply, exchange};
use crate::lenient::{as_id, as_text, read_json};
use crate::response::{FailureClass, NetworkStatus, Peer, TransientFailure};

/// Path of all TMF641 resources, the network's and ours.
pub const PATH: &str = "/tmf-api/serviceOrdering/v4";

/// Path of the listener for events of the network, below [`PATH`].
pub const LISTENER: &str = "/listener/serviceOrderStateChangeEvent";

/// Query that subscribes to the events that settle an order. Other events say nothing that the responses to our own
/// calls do not say. A network that does not support the query sends all events.
pub const SETTLED: &str =
    "eventType=ServiceOrderStateChangeEvent&event.serviceOrder.state=completed,failed,rejected,cancelled,partial";

/// Why a call was not certainly carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderingError {
    /// The network rejected the order: 400 or 422.
    #[error("the network rejected the order: status {status}")]
    Rejected {
        /// The HTTP status code.
        status: u16,
    },
    /// Status 409. For a new order: the network has an order with this external id. For other calls: the state of the
    /// order has changed.
    #[error("the order conflicts with the network's state")]
    Conflict,
    /// The network has no order with this id.
    #[error("the network does not know the order")]
    NotFound,
    /// The call decided nothing about the order and has to be retried later.
    #[error("no usable response from the network: {0}")]
    Transient(TransientFailure),
}

impl OrderingError {
    /// How the call failed.
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Rejected { .. } | Self::Conflict | Self::NotFound => FailureClass::Refused,
            Self::Transient(failure) => failure.class,
        }
    }

    /// The status code or the result in our own words; never a peer's text.
    pub fn detail(&self) -> String {
        match self {
            Self::Rejected { status } => status.to_string(),
            Self::Conflict => "409".to_owned(),
            Self::NotFound => "404".to_owned(),
            Self::Transient(failure) => failure.detail.clone(),
        }
    }
}

impl From<NoResponse> for OrderingError {
    fn from(_: NoResponse) -> Self {
        Self::Transient(TransientFailure::no_response(Peer::Network))
    }
}

/// An order that moves a number to another SIM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewOrder<'a> {
    /// Our id of the order, which never changes.
    pub external_id: &'a ActivationId,
    /// The phone number.
    pub msisdn: &'a Msisdn,
    /// The SIM that the number is on.
    pub old_iccid: &'a Iccid,
    /// The SIM that the number moves to.
    pub new_iccid: &'a Iccid,
    /// The subscriber identity of the new SIM, if known.
    pub new_imsi: Option<&'a Imsi>,
    /// Whether the network holds the order until [`ServiceOrdering::start`] (`startOn: profileInstalled`).
    pub hold: bool,
}

/// The client of one mobile network.
#[derive(Debug, Clone)]
pub struct ServiceOrdering {
    connector: SharedHttpConnector,
    base_url: String,
}

impl ServiceOrdering {
    /// `base_url` is the part of the URL before `/tmf-api`. Certificates and tokens belong to the connector.
    pub fn new(connector: SharedHttpConnector, base_url: &str) -> Self {
        Self {
            connector,
            base_url: base_url.trim_end_matches('/').to_owned(),
        }
    }

    /// The order with this external id, if the network has one.
    pub async fn find(&self, external_id: &ActivationId) -> Result<Option<Order>, OrderingError> {
        let query = format!("/serviceOrder?externalId={}", encode(external_id.as_str()));
        let reply = match self.send("GET", &query, &()).await {
            Ok(reply) if reply.status == 204 => return Ok(None),
            Err(OrderingError::NotFound) => return Ok(None),
            sent => sent?,
        };
        let listed = match parse_body("GET", &query, &reply)? {
            Value::Array(orders) => orders,
            Value::Null => Vec::new(),
            alone if as_id(&alone["id"]).or(as_id(&alone["externalId"])).is_some() => {
                vec![alone]
            }
            _ => return Err(unreadable_response("GET", &query)),
        };
        // A network that does not support the filter lists all orders. The orders of others may be unreadable.
        let is_ours = |order: &Value| as_text(&order["externalId"]).as_deref() == Some(external_id.as_str());
        let ours = listed.into_iter().find(is_ours);
        ours.map(|order| parse_order("GET", &query, order)).transpose()
    }

    /// The order with this id, which the network assigned.
    pub async fn get(&self, id: &str) -> Result<Order, OrderingError> {
        self.call("GET", &format!("/serviceOrder/{}", encode(id)), &()).await
    }

    /// Places an order. The network starts the order at once unless it is to be held.
    pub async fn place(&self, order: NewOrder<'_>) -> Result<Order, OrderingError> {
        self.call("POST", "/serviceOrder", &wire::create(order)).await
    }

    /// Starts a held order.
    pub async fn start(&self, id: &str) -> Result<Order, OrderingError> {
        let path = format!("/serviceOrder/{}", encode(id));
        self.call("PATCH", &path, &wire::StateUpdate::IN_PROGRESS).await
    }

    /// Requests the cancellation of an order. The result arrives as an event, or from [`Self::get`].
    pub async fn cancel(&self, id: &str) -> Result<(), OrderingError> {
        let request = CancelServiceOrder::request(id);
        let _ = self.send("POST", "/cancelServiceOrder", &request).await?;
        Ok(())
    }

    /// Subscribes to events: all events, or those that match `query`. `callback` is the base URL below which we serve
    /// [`PATH`] and [`LISTENER`].
    pub async fn register(&self, callback: &str, query: Option<&str>) -> Result<(), OrderingError> {
        let subscription = EventSubscription {
            id: None,
            callback: callback.to_owned(),
            query: query.map(str::to_owned),
        };
        let _ = self.send("POST", "/hub", &subscription).await?;
        Ok(())
    }

    async fn call(&self, method: &'static str, path: &str, request: &impl Serialize) -> Result<Order, OrderingError> {
        let reply = self.send(method, path, request).await?;
        parse_order(method, path, parse_body(method, path, &reply)?)
    }

    async fn send(&self, method: &'static str, path: &str, request: &impl Serialize) -> Result<Reply, OrderingError> {
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
        let meaning = NetworkStatus::to(method, status);
        match meaning {
            NetworkStatus::Accepted => return Ok(reply),
            NetworkStatus::Conflict | NetworkStatus::NotFound => {
                tracing::info!(method, path, status, "the network rejected the call");
            }
            _ => tracing::warn!(method, path, status, "the network rejected the call or failed"),
        }
        Err(match meaning {
            NetworkStatus::Rejected => OrderingError::Rejected { status },
            NetworkStatus::Conflict => OrderingError::Conflict,
            NetworkStatus::NotFound => OrderingError::NotFound,
            _ => OrderingError::Transient(TransientFailure::of_status(Peer::Network, status, reply.retry_after)),
        })
    }
}

/// Reads the body of a response as JSON.
fn parse_body(method: &str, path: &str, reply: &Reply) -> Result<Value, OrderingError> {
    read_json(&reply.body).map_err(|_| unreadable_response(method, path))
}

/// Reads an order of a response. It must have an id.
fn parse_order(method: &str, path: &str, order: Value) -> Result<Order, OrderingError> {
    let order = order.is_object().then(|| serde_json::from_value::<Order>(order).ok());
    order
        .flatten()
        .filter(|order| !order.id.trim().is_empty())
        .ok_or_else(|| unreadable_response(method, path))
}

/// Logs and returns the error for a response that is not TMF641.
fn unreadable_response(method: &str, path: &str) -> OrderingError {
    tracing::warn!(method, path, "the network's response is not TMF641");
    OrderingError::Transient(TransientFailure::unreadable(Peer::Network))
}

/// Encodes a path segment or a query value: ids of a network may contain slashes and hashes.
fn encode(segment: &str) -> impl std::fmt::Display {
    utf8_percent_encode(segment, NON_ALPHANUMERIC)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connector;
    use crate::http::tests::{peer, response, response_with};
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

    /// The request line without the HTTP version, and the JSON body.
    fn parse_request(request: &str) -> (&str, Value) {
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        let line = head.lines().next().unwrap();
        let body = serde_json::from_str(body).unwrap_or(Value::Null);
        (line.strip_suffix(" HTTP/1.1").unwrap(), body)
    }

    fn characteristic(name: &str, value: &str) -> Value {
        json!({"name": name, "value": value, "valueType": "string"})
    }

    #[tokio::test]
    async fn a_new_order_is_sent_as_in_the_standard() {
        let (url, request) = peer(&response("201 Created", ORDER)).await;
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
        assert_eq!((placed.id.as_str(), placed.state), ("031230/2025", OrderState::Held));
        let request = request.await.unwrap();
        assert_eq!(
            parse_request(&request),
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

        let (url, request) = peer(&response("201 Created", ORDER)).await;
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
        let characteristics = &parse_request(&request).1["serviceOrderItem"][0]["service"]["serviceCharacteristic"];
        assert_eq!(characteristics.as_array().unwrap().len(), 3);
    }

    #[tokio::test]
    async fn the_other_calls_are_sent_as_in_the_standard() {
        let (url, request) = peer(&response("200 OK", ORDER)).await;
        client(&url).start("031230/2025#5").await.unwrap();
        assert_eq!(
            parse_request(&request.await.unwrap()),
            (
                "PATCH /tmf-api/serviceOrdering/v4/serviceOrder/031230%2F2025%235",
                json!({"state": "inProgress"})
            )
        );
        let (url, request) = peer(&response("200 OK", ORDER)).await;
        client(&url).get("7").await.unwrap();
        let expected = ("GET /tmf-api/serviceOrdering/v4/serviceOrder/7", Value::Null);
        assert_eq!(parse_request(&request.await.unwrap()), expected);

        let (url, request) = peer(&response("201 Created", "{}")).await;
        client(&url).cancel("7").await.unwrap();
        assert_eq!(
            parse_request(&request.await.unwrap()),
            (
                "POST /tmf-api/serviceOrdering/v4/cancelServiceOrder",
                json!({"serviceOrder": {"id": "7"}})
            )
        );
        let (url, request) = peer(&response("201 Created", "")).await;
        client(&format!("{url}/"))
            .register("http://127.0.0.1:9000", Some(SETTLED))
            .await
            .unwrap();
        assert_eq!(
            parse_request(&request.await.unwrap()),
            (
                "POST /tmf-api/serviceOrdering/v4/hub",
                json!({
                    "callback": "http://127.0.0.1:9000",
                    "query": "eventType=ServiceOrderStateChangeEvent&event.serviceOrder.state=completed,failed,rejected,cancelled,partial"
                })
            )
        );
    }

    /// Checks the result of `find`: the id of an order, nothing, or the class and detail of an error.
    async fn check_find(response: &str, expected: Result<Option<&str>, &str>) {
        let (url, request) = peer(response).await;
        let found = client(&url).find(&id()).await;
        let found = found.map(|order| order.map(|order| order.id));
        let expected = expected.map(|id| id.map(str::to_owned));
        assert_eq!(
            found.map_err(describe_error),
            expected.map_err(str::to_owned),
            "{response}"
        );
        assert_eq!(
            parse_request(&request.await.unwrap()).0,
            "GET /tmf-api/serviceOrdering/v4/serviceOrder?externalId=A%2D1"
        );
    }

    fn describe_error(error: OrderingError) -> String {
        match &error {
            OrderingError::Rejected { status } => format!("order refused {status}"),
            OrderingError::Conflict => "conflict".to_owned(),
            OrderingError::NotFound => "not found".to_owned(),
            OrderingError::Transient(_) => format!("{} {}", error.class().as_str(), error.detail()),
        }
    }

    #[tokio::test]
    async fn find_returns_only_our_order() {
        let other = ORDER.replace("A-1", "A-2");
        let found = Ok(Some("031230/2025"));
        for (body, expected) in [
            ("[]".to_owned(), Ok(None)),
            ("null".to_owned(), Ok(None)),
            (format!("[{other}]"), Ok(None)),
            (other.clone(), Ok(None)),
            (r#"[{"id":"7"}]"#.to_owned(), Ok(None)),
            (r#"[{"id":"7","externalId":null},null,7,"A-1",[]]"#.to_owned(), Ok(None)),
            (format!("[{other},{ORDER}]"), found),
            (format!("\u{feff}[{ORDER}]"), found),
            (ORDER.to_owned(), found),
            // An order that is not ours may be unreadable.
            (
                format!(r#"[{{"id":{{}},"externalId":"A-2","state":[]}},null,{ORDER}]"#),
                found,
            ),
            (r#"[{"id":7,"externalId":"A-1"}]"#.to_owned(), Ok(Some("7"))),
            (
                r#"[{"externalId":"A-1","state":"held"}]"#.to_owned(),
                Err("unreadable unreadable"),
            ),
            (
                r#"[{"id":"","externalId":"A-1"}]"#.to_owned(),
                Err("unreadable unreadable"),
            ),
            ("{}".to_owned(), Err("unreadable unreadable")),
            (r#"{"message":"no"}"#.to_owned(), Err("unreadable unreadable")),
            ("<html>".to_owned(), Err("unreadable unreadable")),
            (String::new(), Err("unreadable unreadable")),
            ("7".to_owned(), Err("unreadable unreadable")),
        ] {
            check_find(&response("200 OK", &body), expected).await;
        }
        check_find(&response("204 No Content", ""), Ok(None)).await;
        check_find(&response("404 Not Found", "<html>"), Ok(None)).await;
    }

    #[tokio::test]
    async fn each_status_code_has_one_meaning() {
        // The error of `get`, and the error of the three calls that change something.
        for (status, lookup, change) in [
            ("400 Bad Request", "refused 400", "order refused 400"),
            ("422 Unprocessable", "refused 422", "order refused 422"),
            ("409 Conflict", "refused 409", "conflict"),
            ("404 Not Found", "not found", "refused 404"),
            ("401 Unauthorized", "unauthorized 401", "unauthorized 401"),
            ("403 Forbidden", "forbidden 403", "forbidden 403"),
            ("405 Not Allowed", "refused 405", "refused 405"),
            ("407 Proxy", "refused 407", "refused 407"),
            ("408 Request Timeout", "refused 408", "refused 408"),
            ("410 Gone", "refused 410", "refused 410"),
            ("415 Unsupported", "refused 415", "refused 415"),
            ("429 Too Many", "throttled 429", "throttled 429"),
            ("301 Moved", "refused 301", "refused 301"),
            ("302 Found", "refused 302", "refused 302"),
            ("307 Elsewhere", "refused 307", "refused 307"),
            ("500 Oops", "failed 500", "failed 500"),
            ("502 Bad Gateway", "failed 502", "failed 502"),
            ("503 Busy", "failed 503", "failed 503"),
            ("504 Late", "failed 504", "failed 504"),
        ] {
            for call in ["find", "get", "place", "start", "cancel"] {
                let result = call_once(call, &response(status, "<html>")).await;
                let expected = match call {
                    "find" if status.starts_with("404") => Ok(()),
                    "find" | "get" => Err(lookup.to_owned()),
                    _ => Err(change.to_owned()),
                };
                assert_eq!(result.map_err(describe_error), expected, "{call} {status}");
            }
        }
        for body in [
            "<html>",
            "",
            "{}",
            "null",
            "[]",
            r#"["7"]"#,
            r#"{"id":null}"#,
            r#"{"id":" "}"#,
        ] {
            for call in ["get", "place", "start"] {
                let result = call_once(call, &response("200 OK", body)).await;
                let expected = Err("unreadable unreadable".to_owned());
                assert_eq!(result.map_err(describe_error), expected, "{call} {body}");
            }
            assert_eq!(call_once("cancel", &response("200 OK", body)).await, Ok(()));
        }
        let unreachable = client("http://no-such-host.invalid");
        let result = unreachable.get("7").await.map_err(describe_error);
        assert_eq!(result, Err("unanswered no answer".to_owned()));
    }

    /// Makes one call to a peer that sends this response.
    async fn call_once(call: &str, response: &str) -> Result<(), OrderingError> {
        let (url, _) = peer(response).await;
        let client = client(&url);
        let iccid = Iccid::parse("8931086000000000013").unwrap();
        match call {
            "find" => drop(client.find(&id()).await?),
            "get" => drop(client.get("7").await?),
            "start" => drop(client.start("7").await?),
            "cancel" => client.cancel("7").await?,
            _ => {
                let order = NewOrder {
                    external_id: &id(),
                    msisdn: &Msisdn::parse("+31612345601").unwrap(),
                    old_iccid: &iccid,
                    new_iccid: &iccid,
                    new_imsi: None,
                    hold: true,
                };
                drop(client.place(order).await?);
            }
        }
        Ok(())
    }

    #[tokio::test]
    async fn a_network_can_request_a_wait() {
        for status in ["503 Busy", "429 Too Many", "401 Who", "404 Not Found"] {
            let response = response_with(status, "retry-after: 9\r\n", "");
            let Err(OrderingError::Transient(failure)) = call_once("start", &response).await else {
                panic!("{status} decides something");
            };
            let wait = jiff::SignedDuration::from_secs(9);
            assert_eq!((failure.peer, failure.retry_after), (Peer::Network, Some(wait)));
        }
    }

    #[test]
    fn an_order_is_read_leniently() {
        let order: Order = serde_json::from_str(ORDER).unwrap();
        assert_eq!(order.external_id.as_deref(), Some("A-1"));
        assert_eq!(order.item_states().collect::<Vec<_>>(), [OrderState::Held]);
        for (json, state, date) in [
            (json!({"id": "7"}), OrderState::Unknown, None),
            (json!({"id": "7", "state": "paused"}), OrderState::Unknown, None),
            (json!({"id": "7", "state": ["completed"]}), OrderState::Unknown, None),
            (
                json!({"id": 7, "state": "completed", "completionDate": "2026-11-22T15:05:10.5+01:00"}),
                OrderState::Completed,
                Some("2026-11-22T14:05:10.5Z"),
            ),
            (
                json!({"id": "7", "state": "Completed", "completionDate": 1_795_356_310_500_i64}),
                OrderState::Completed,
                Some("2026-11-22T14:05:10.5Z"),
            ),
            (
                json!({"id": "7", "state": "COMPLETED", "completionDate": "2026-11-22 14:05:10.5"}),
                OrderState::Completed,
                Some("2026-11-22T14:05:10.5Z"),
            ),
            (
                json!({"id": "7", "state": "completed", "completionDate": "22 November", "serviceOrderItem": null}),
                OrderState::Completed,
                None,
            ),
            (
                json!({
                    "id": "7", "href": null, "externalId": null, "category": null, "state": "held", "orderDate": null,
                    "startDate": null, "completionDate": null, "cancellationDate": null, "priority": 4,
                    "serviceOrderItem": [null, {"id": null, "action": null, "state": null, "service": null}],
                }),
                OrderState::Held,
                None,
            ),
            (
                json!({
                    "id": "7", "state": "held", "href": {}, "orderDate": {}, "category": [],
                    "serviceOrderItem": [{"service": {"serviceCharacteristic": null}},
                        {"service": {"serviceCharacteristic": [null, {"name": "a"}, {"name": "b", "value": null, "valueType": null}]}}],
                }),
                OrderState::Held,
                None,
            ),
        ] {
            let order: Order = serde_json::from_value(json.clone()).unwrap();
            let date = date.map(|date| date.parse::<Timestamp>().unwrap());
            assert_eq!((order.id.as_str(), order.state), ("7", state), "{json}");
            assert_eq!(order.completion_date, date, "{json}");
            let written = serde_json::to_value(&order).unwrap();
            assert_eq!(serde_json::from_value::<Order>(written).unwrap(), order);
        }
    }

    #[test]
    fn only_the_letters_of_a_state_count() {
        use OrderState::*;
        for (word, expected) in [
            ("acknowledged", Acknowledged),
            ("Rejected", Rejected),
            ("PENDING", Pending),
            (" held ", Held),
            ("inProgress", InProgress),
            ("IN_PROGRESS", InProgress),
            ("in progress", InProgress),
            ("in-progress", InProgress),
            ("cancelled", Cancelled),
            ("Canceled", Cancelled),
            ("Completed", Completed),
            ("FAILED", Failed),
            ("partial", Partial),
            ("assessing_cancellation", AssessingCancellation),
            ("PendingCancellation", PendingCancellation),
            ("notCompleted", Unknown),
            ("complete", Unknown),
            ("", Unknown),
        ] {
            let state: OrderState = serde_json::from_value(json!(word)).unwrap();
            assert_eq!(state, expected, "{word:?}");
            if expected != Unknown {
                let written = serde_json::to_value(state).unwrap();
                assert_eq!(serde_json::from_value::<OrderState>(written).unwrap(), state);
            }
        }
    }

    #[test]
    fn a_partial_order_with_one_item_has_its_state() {
        for (state, items, expected) in [
            ("partial", r#"[{"state":"completed"}]"#, OrderState::Completed),
            ("partial", r#"[{"state":"failed"}]"#, OrderState::Failed),
            ("Partial", r#"[{"state":"FAILED"}]"#, OrderState::Failed),
            ("partial", r#"{"state":"completed"}"#, OrderState::Completed),
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
    }

    #[test]
    fn the_order_of_an_event_is_found_at_any_place() {
        let order = json!({"id": "7", "externalId": "A-1", "state": "Completed"});
        let whole = Some(("7", Some("A-1"), OrderState::Completed));
        let id_alone = Some(("7", None, OrderState::Unknown));
        for (body, expected) in [
            (json!({"event": {"serviceOrder": order}}), whole),
            (json!({"event": order}), whole),
            (json!({"serviceOrder": order}), whole),
            (order.clone(), whole),
            (
                json!({"eventId": 5, "eventType": null, "eventTime": "soon", "event": {"serviceOrder": order}}),
                whole,
            ),
            (json!({"id": "E-1", "event": {"serviceOrder": order}}), whole),
            (
                json!({"id": "E-1", "event": {"id": "E-2", "serviceOrder": order}}),
                whole,
            ),
            (json!({"event": {"serviceOrder": {"id": "7"}}}), id_alone),
            (
                json!({"event": {"serviceOrder": {"id": 7, "externalId": null, "state": null}}}),
                id_alone,
            ),
            (json!({"event": {"serviceOrder": "7"}}), id_alone),
            (json!({"event": {"serviceOrder": 7}}), id_alone),
            (json!({"event": {"orderId": "7"}}), id_alone),
            (json!({"event": {"serviceOrderId": "7"}}), id_alone),
            (json!({"serviceOrder": "7"}), id_alone),
            (json!({"orderId": "7", "event": {}}), id_alone),
            (json!({"id": "7", "event": null}), id_alone),
            (
                json!({"event": {"id": "E-2", "serviceOrder": "7", "externalId": "A-1", "state": "completed"}}),
                whole,
            ),
            (
                json!({"event": {"serviceOrder": {"externalId": "A-1", "state": "completed"}}}),
                Some(("", Some("A-1"), OrderState::Completed)),
            ),
            (
                json!({"externalId": "A-1"}),
                Some(("", Some("A-1"), OrderState::Unknown)),
            ),
            (json!({"event": {"serviceOrder": {"state": "completed"}}}), None),
            (json!({"event": {"serviceOrder": {"id": "", "externalId": " "}}}), None),
            (json!({"event": {"serviceOrder": null}, "eventId": "E-1"}), None),
            (json!({"event": [order]}), None),
            (json!({}), None),
            (json!(null), None),
            (json!(["7"]), None),
        ] {
            let event = serde_json::from_value::<ServiceOrderStateChangeEvent>(body.clone()).ok();
            let read = event.as_ref().map(ServiceOrderStateChangeEvent::order);
            let found = read.map(|o| (o.id.as_str(), o.external_id.as_deref(), o.state));
            assert_eq!(found, expected, "{body}");
            if let Some(event) = event {
                let written = serde_json::to_value(&event).unwrap();
                assert_eq!(
                    serde_json::from_value::<ServiceOrderStateChangeEvent>(written).unwrap(),
                    event
                );
            }
        }
    }
}
