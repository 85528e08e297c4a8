//! Bodies of TMF641 v4 (TM Forum Service Ordering Management API v4.1), for client and server: only what a swap needs.
//! Reading is lenient: whatever the OpenAPI does not require may be missing.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

use super::NewOrder;

/// `ServiceOrder`, as a network shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// The network's name for it.
    pub id: String,
    /// Where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub href: Option<String>,
    /// Our name for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
    /// `SIMSWAP`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// How far it is.
    #[serde(default)]
    pub state: OrderState,
    /// When it was taken.
    #[serde(
        default,
        deserialize_with = "date_or_none",
        skip_serializing_if = "Option::is_none"
    )]
    pub order_date: Option<Timestamp>,
    /// When it was started.
    #[serde(
        default,
        deserialize_with = "date_or_none",
        skip_serializing_if = "Option::is_none"
    )]
    pub start_date: Option<Timestamp>,
    /// When it was completed. One that cannot be read counts as absent: the state is worth more.
    #[serde(
        default,
        deserialize_with = "date_or_none",
        skip_serializing_if = "Option::is_none"
    )]
    pub completion_date: Option<Timestamp>,
    /// When it was cancelled.
    #[serde(
        default,
        deserialize_with = "date_or_none",
        skip_serializing_if = "Option::is_none"
    )]
    pub cancellation_date: Option<Timestamp>,
    /// Its items; ours has one.
    #[serde(
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
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

/// `ServiceOrderStateType`, and `ServiceOrderItemStateType`, which has the same words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
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
    #[serde(other)]
    Unknown,
}

/// `ServiceOrderItem`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OrderItem {
    /// Its number in the order.
    #[serde(default)]
    pub id: String,
    /// `modify`.
    #[serde(default)]
    pub action: String,
    /// How far it is.
    #[serde(default)]
    pub state: OrderState,
    /// What it is about.
    #[serde(default)]
    pub service: Service,
}

/// `ServiceRefOrValue`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// What is known of it: `msisdn`, `oldIccid`, `newIccid`, `newImsi`, `startOn`.
    #[serde(default)]
    pub service_characteristic: Vec<Characteristic>,
}

/// `Characteristic`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Characteristic {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: serde_json::Value,
    /// The type of the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
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

/// `ServiceOrderStateChangeEvent`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceOrderStateChangeEvent {
    /// The event's name; the same on a repeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<String>,
    /// When it happened.
    #[serde(
        default,
        deserialize_with = "date_or_none",
        skip_serializing_if = "Option::is_none"
    )]
    pub event_time: Option<Timestamp>,
    /// `ServiceOrderStateChangeEvent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_type: Option<String>,
    /// What happened.
    pub event: ServiceOrderStateChange,
}

/// `ServiceOrderStateChangeEventPayload`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceOrderStateChange {
    /// The order after the change.
    pub service_order: Order,
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

fn date_or_none<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Timestamp>, D::Error> {
    let value = Option::<serde_json::Value>::deserialize(from)?;
    Ok(value.and_then(|value| value.as_str()?.parse().ok()))
}

fn null_is_empty<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<OrderItem>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}
