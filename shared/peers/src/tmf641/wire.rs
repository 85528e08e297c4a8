//! The JSON bodies of TMF641 (TM Forum Service Ordering Management API v4.1), for client and server, with only the
//! fields that a swap needs. Reading is lenient: a field that the standard does not require may be absent, `null` or
//! unreadable.

use jiff::Timestamp;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::NewOrder;
use crate::lenient::{self, as_date, as_id, as_text, letters};

/// `ServiceOrder`, as a network returns it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// The id that the network assigned. It is empty only in an event that has nothing but the `externalId`.
    #[serde(default, deserialize_with = "lenient::text_or_empty")]
    pub id: String,
    /// The URL of the order.
    #[serde(
        default,
        deserialize_with = "lenient::maybe_text",
        skip_serializing_if = "Option::is_none"
    )]
    pub href: Option<String>,
    /// Our id of the order.
    #[serde(
        default,
        deserialize_with = "lenient::maybe_text",
        skip_serializing_if = "Option::is_none"
    )]
    pub external_id: Option<String>,
    /// `SIMSWAP`.
    #[serde(
        default,
        deserialize_with = "lenient::maybe_text",
        skip_serializing_if = "Option::is_none"
    )]
    pub category: Option<String>,
    /// The state.
    #[serde(default)]
    pub state: OrderState,
    /// When the network accepted the order.
    #[serde(
        default,
        deserialize_with = "lenient::maybe_date",
        skip_serializing_if = "Option::is_none"
    )]
    pub order_date: Option<Timestamp>,
    /// When the order was started.
    #[serde(
        default,
        deserialize_with = "lenient::maybe_date",
        skip_serializing_if = "Option::is_none"
    )]
    pub start_date: Option<Timestamp>,
    /// When the order was completed. A date that cannot be read counts as absent.
    #[serde(
        default,
        deserialize_with = "lenient::maybe_date",
        skip_serializing_if = "Option::is_none"
    )]
    pub completion_date: Option<Timestamp>,
    /// When the order was cancelled.
    #[serde(
        default,
        deserialize_with = "lenient::maybe_date",
        skip_serializing_if = "Option::is_none"
    )]
    pub cancellation_date: Option<Timestamp>,
    /// The items. Our orders have one.
    #[serde(default, deserialize_with = "lenient::list", skip_serializing_if = "Vec::is_empty")]
    pub service_order_item: Vec<OrderItem>,
}

impl Order {
    /// The states of the items.
    pub fn item_states(&self) -> impl Iterator<Item = OrderState> {
        self.service_order_item.iter().map(|item| item.state)
    }

    /// The state that decides: that of the item for a `partial` order with one item, otherwise that of the order.
    pub fn settled_state(&self) -> OrderState {
        match (self.state, self.service_order_item.as_slice()) {
            (OrderState::Partial, [item]) => item.state,
            (state, _) => state,
        }
    }
}

/// `ServiceOrderStateType`, and `ServiceOrderItemStateType`, which has the same values. Only the letters of a value are
/// read, and their case is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum OrderState {
    /// Accepted.
    Acknowledged,
    /// Rejected; the number stays on the old SIM.
    Rejected,
    /// Waiting for the network.
    Pending,
    /// Waiting for our start call.
    Held,
    /// In progress.
    InProgress,
    /// Cancelled; the number stays on the old SIM.
    Cancelled,
    /// The number is on the new SIM.
    Completed,
    /// Failed; the number stays on the old SIM.
    Failed,
    /// Some items are completed, some failed.
    Partial,
    /// The network decides on a cancellation.
    AssessingCancellation,
    /// The network carries out a cancellation.
    PendingCancellation,
    /// A value that v4 does not define, or none.
    #[default]
    Unknown,
}

impl<'de> Deserialize<'de> for OrderState {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let word = lenient::text_or_empty(from)?;
        Ok(match letters(&word).as_str() {
            "acknowledged" => Self::Acknowledged,
            "rejected" => Self::Rejected,
            "pending" => Self::Pending,
            "held" => Self::Held,
            "inprogress" => Self::InProgress,
            "cancelled" | "canceled" => Self::Cancelled,
            "completed" => Self::Completed,
            "failed" => Self::Failed,
            "partial" => Self::Partial,
            "assessingcancellation" => Self::AssessingCancellation,
            "pendingcancellation" => Self::PendingCancellation,
            _ => Self::Unknown,
        })
    }
}

/// `ServiceOrderItem`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OrderItem {
    /// The number of the item in the order.
    #[serde(default, deserialize_with = "lenient::text_or_empty")]
    pub id: String,
    /// `modify`.
    #[serde(default, deserialize_with = "lenient::text_or_empty")]
    pub action: String,
    /// The state.
    #[serde(default)]
    pub state: OrderState,
    /// The service that the item changes.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub service: Service,
}

/// `ServiceRefOrValue`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// The characteristics `msisdn`, `oldIccid`, `newIccid`, `newImsi` and `startOn`.
    #[serde(default, deserialize_with = "lenient::list")]
    pub service_characteristic: Vec<Characteristic>,
}

/// `Characteristic`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Characteristic {
    /// The name.
    pub name: String,
    /// The value.
    #[serde(default)]
    pub value: serde_json::Value,
    /// The type of the value.
    #[serde(
        default,
        deserialize_with = "lenient::maybe_text",
        skip_serializing_if = "Option::is_none"
    )]
    pub value_type: Option<String>,
}

/// `ServiceOrder_Create`. It has no item state, which only the network sets.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Create<'a> {
    external_id: &'a str,
    category: &'static str,
    service_order_item: [CreateItem; 1],
}

#[derive(Serialize)]
struct CreateItem {
    id: &'static str,
    action: &'static str,
    service: Service,
}

/// The body of a new order.
pub(super) fn create(order: NewOrder<'_>) -> Create<'_> {
    let characteristics = [
        ("msisdn", Some(order.msisdn.as_e164())),
        ("oldIccid", Some(order.old_iccid.as_str())),
        ("newIccid", Some(order.new_iccid.as_str())),
        ("newImsi", order.new_imsi.map(|imsi| imsi.as_str())),
        ("startOn", order.hold.then_some("profileInstalled")),
    ];
    Create {
        external_id: order.external_id.as_str(),
        category: "SIMSWAP",
        service_order_item: [CreateItem {
            id: "1",
            action: "modify",
            service: Service {
                service_characteristic: characteristics
                    .into_iter()
                    .filter_map(|(name, value)| {
                        Some(Characteristic {
                            name: name.to_owned(),
                            value: value?.into(),
                            value_type: Some("string".to_owned()),
                        })
                    })
                    .collect(),
            },
        }],
    }
}

/// `ServiceOrder_Update` of the state only.
#[derive(Serialize)]
pub(super) struct StateUpdate {
    state: OrderState,
}

impl StateUpdate {
    pub(super) const IN_PROGRESS: Self = Self {
        state: OrderState::InProgress,
    };
}

/// `CancelServiceOrder`. The request has only the order; the response is a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CancelServiceOrder {
    /// The id of the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The URL of the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub href: Option<String>,
    /// The state of the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<TaskState>,
    /// The order.
    pub service_order: ServiceOrderRef,
}

impl CancelServiceOrder {
    /// The request to cancel this order.
    pub fn request(order_id: &str) -> Self {
        Self {
            id: None,
            href: None,
            state: None,
            service_order: ServiceOrderRef {
                id: order_id.to_owned(),
            },
        }
    }
}

/// `ServiceOrderRef`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceOrderRef {
    /// The id that the network assigned to the order.
    pub id: String,
}

/// `TaskStateType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TaskState {
    /// Accepted.
    Accepted,
    /// Ended without effect.
    TerminatedWithError,
    /// In progress.
    InProgress,
    /// Done.
    Done,
}

/// `EventSubscriptionInput`; with an id, `EventSubscription`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventSubscription {
    /// The id of the subscription.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The base URL of the listener.
    pub callback: String,
    /// Selects events; without it, all events are sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
}

/// `ServiceOrderStateChangeEvent`. It is written as in the standard. When it is read, the order may be at other places.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceOrderStateChangeEvent {
    /// The id of the event. A repeated event has the same id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_id: Option<String>,
    /// When the change happened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_time: Option<Timestamp>,
    /// `ServiceOrderStateChangeEvent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_type: Option<String>,
    /// The change.
    pub event: ServiceOrderStateChange,
}

/// `ServiceOrderStateChangeEventPayload`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceOrderStateChange {
    /// The order after the change.
    pub service_order: Order,
}

impl ServiceOrderStateChangeEvent {
    /// The order after the change. It has an id or an external id; all else may be absent.
    pub fn order(&self) -> &Order {
        &self.event.service_order
    }
}

impl<'de> Deserialize<'de> for ServiceOrderStateChangeEvent {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let body = Value::deserialize(from)?;
        let places = [&body["event"], &body];
        let service_order = places
            .into_iter()
            .find_map(find_order)
            .ok_or_else(|| D::Error::custom("names no order"))?;
        Ok(Self {
            event_id: as_text(&body["eventId"]),
            event_time: as_date(&body["eventTime"]),
            event_type: as_text(&body["eventType"]),
            event: ServiceOrderStateChange { service_order },
        })
    }
}

/// The order in a part of an event: its `serviceOrder`, or the part itself, whose `serviceOrder` may be the id.
fn find_order(part: &Value) -> Option<Order> {
    let whole = &part["serviceOrder"];
    order_with_id(whole, &whole["id"]).or_else(|| {
        let names = [whole, &part["serviceOrderId"], &part["orderId"], &part["id"]];
        let id = names.into_iter().find(|name| as_id(name).is_some());
        order_with_id(part, id.unwrap_or(&Value::Null))
    })
}

/// Reads an order from these fields, with this id, if it has an id or an external id.
fn order_with_id(fields: &Value, id: &Value) -> Option<Order> {
    let mut order: Order = serde_json::from_value(fields.clone()).ok()?;
    order.id = as_id(id).unwrap_or_default();
    let is_named = as_id(&fields["externalId"]).is_some() || !order.id.is_empty();
    is_named.then_some(order)
}

/// `Error`, the body of every 4xx and 5xx.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TmfError {
    /// The code, for programs.
    pub code: String,
    /// The reason, for people.
    pub reason: String,
    /// The HTTP status code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
}
