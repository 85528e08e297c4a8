//! Bodies of TMF641 v4 (TM Forum Service Ordering Management API v4.1), for client and server: only what a swap needs.
//! Reading is lenient: whatever the OpenAPI does not require may be missing, `null` or unreadable.

use jiff::Timestamp;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::NewOrder;
use crate::lenient::{self, as_date, as_id, as_text, letters};

/// `ServiceOrder`, as a network shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// The network's name for it. Empty only in an event that names the order by its `externalId` alone.
    #[serde(default, deserialize_with = "lenient::text_or_empty")]
    pub id: String,
    /// Where it is.
    #[serde(
        default,
        deserialize_with = "lenient::maybe_text",
        skip_serializing_if = "Option::is_none"
    )]
    pub href: Option<String>,
    /// Our name for it.
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
    /// How far it is.
    #[serde(default)]
    pub state: OrderState,
    /// When it was taken.
    #[serde(
        default,
        deserialize_with = "lenient::maybe_date",
        skip_serializing_if = "Option::is_none"
    )]
    pub order_date: Option<Timestamp>,
    /// When it was started.
    #[serde(
        default,
        deserialize_with = "lenient::maybe_date",
        skip_serializing_if = "Option::is_none"
    )]
    pub start_date: Option<Timestamp>,
    /// When it was completed. One that cannot be read counts as absent: the state is worth more.
    #[serde(
        default,
        deserialize_with = "lenient::maybe_date",
        skip_serializing_if = "Option::is_none"
    )]
    pub completion_date: Option<Timestamp>,
    /// When it was cancelled.
    #[serde(
        default,
        deserialize_with = "lenient::maybe_date",
        skip_serializing_if = "Option::is_none"
    )]
    pub cancellation_date: Option<Timestamp>,
    /// Its items; ours has one.
    #[serde(default, deserialize_with = "lenient::list", skip_serializing_if = "Vec::is_empty")]
    pub service_order_item: Vec<OrderItem>,
}

impl Order {
    /// How far each item is.
    pub fn item_states(&self) -> impl Iterator<Item = OrderState> {
        self.service_order_item.iter().map(|item| item.state)
    }

    /// The state that counts: of a `partial` order with one item, that item's.
    pub fn settled_state(&self) -> OrderState {
        match (self.state, self.service_order_item.as_slice()) {
            (OrderState::Partial, [item]) => item.state,
            (state, _) => state,
        }
    }
}

/// `ServiceOrderStateType`, and `ServiceOrderItemStateType`, which has the same words. Of a word only the letters are read,
/// large or small.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum OrderState {
    /// Taken.
    Acknowledged,
    /// Not taken; the number stays.
    Rejected,
    /// Waits for the network.
    Pending,
    /// Waits for us.
    Held,
    /// Under way.
    InProgress,
    /// Cancelled; the number stays.
    Cancelled,
    /// The number is on the new SIM.
    Completed,
    /// It went wrong; the number stays.
    Failed,
    /// Some items completed, some failed.
    Partial,
    /// The network considers a cancel.
    AssessingCancellation,
    /// The network carries a cancel out.
    PendingCancellation,
    /// None that v4 has, or none at all.
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
    /// Its number in the order.
    #[serde(default, deserialize_with = "lenient::text_or_empty")]
    pub id: String,
    /// `modify`.
    #[serde(default, deserialize_with = "lenient::text_or_empty")]
    pub action: String,
    /// How far it is.
    #[serde(default)]
    pub state: OrderState,
    /// What it is about.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub service: Service,
}

/// `ServiceRefOrValue`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// What is known of it: `msisdn`, `oldIccid`, `newIccid`, `newImsi`, `startOn`.
    #[serde(default, deserialize_with = "lenient::list")]
    pub service_characteristic: Vec<Characteristic>,
}

/// `Characteristic`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Characteristic {
    /// Its name.
    pub name: String,
    /// Its value.
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

/// `ServiceOrder_Create`. An item's state is the network's to say.
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

/// `ServiceOrder_Update`, of the state alone.
#[derive(Serialize)]
pub(super) struct StateUpdate {
    state: OrderState,
}

impl StateUpdate {
    pub(super) const IN_PROGRESS: Self = Self {
        state: OrderState::InProgress,
    };
}

/// `CancelServiceOrder`: the request has the order alone, the answer is a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CancelServiceOrder {
    /// The task's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Where the task is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub href: Option<String>,
    /// How far the task is.
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
    /// The network's name for the order.
    pub id: String,
}

/// `TaskStateType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TaskState {
    /// Taken.
    Accepted,
    /// Done without effect.
    TerminatedWithError,
    /// Under way.
    InProgress,
    /// Done.
    Done,
}

/// `EventSubscriptionInput`, and with an id `EventSubscription`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventSubscription {
    /// The registration's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Where events go: the base URL of a listener.
    pub callback: String,
    /// Which events; all without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
}

/// `ServiceOrderStateChangeEvent`. Written as the standard says; read wherever the order stands in it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceOrderStateChangeEvent {
    /// The event's name; the same on a repeat.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_id: Option<String>,
    /// When it happened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_time: Option<Timestamp>,
    /// `ServiceOrderStateChangeEvent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_type: Option<String>,
    /// What happened.
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
    /// The order after the change, as far as the event tells it: it has an id or an external id, perhaps no more.
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
            .find_map(order_in)
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
fn order_in(part: &Value) -> Option<Order> {
    let whole = &part["serviceOrder"];
    named(whole, &whole["id"]).or_else(|| {
        let names = [whole, &part["serviceOrderId"], &part["orderId"], &part["id"]];
        let id = names.into_iter().find(|name| as_id(name).is_some());
        named(part, id.unwrap_or(&Value::Null))
    })
}

/// The order that these fields are of, if it can be told which one that is.
fn named(fields: &Value, id: &Value) -> Option<Order> {
    let mut order: Order = serde_json::from_value(fields.clone()).ok()?;
    order.id = as_id(id).unwrap_or_default();
    let is_named = as_id(&fields["externalId"]).is_some() || !order.id.is_empty();
    is_named.then_some(order)
}

/// `Error`, the body of every 4xx and 5xx.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TmfError {
    /// A word for programs.
    pub code: String,
    /// A sentence for people.
    pub reason: String,
    /// The HTTP status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
}
