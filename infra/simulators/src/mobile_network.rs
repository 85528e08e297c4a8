//! A simulated mobile network: TMF641 service ordering, and the SIM of each phone number.

mod scenario;

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aws_smithy_runtime_api::client::http::SharedHttpConnector;
use axum::body::Bytes;
use axum::extract::{Path as UrlPath, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::serve::Listener;
use axum::{Json, Router};
use domain::{Iccid, Msisdn};
use edge::ClockAndRng;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use peers::OrderState;
use peers::tmf641::{
    CancelServiceOrder, EventSubscription, LISTENER, Order, OrderItem, PATH, ServiceOrderRef, ServiceOrderStateChange,
    ServiceOrderStateChangeEvent, TaskState, TmfError,
};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use serde::Deserialize;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::db::{Db, DbError};
use crate::failures::{Failures, behind};
use crate::outbox::{self, Callback};
pub use scenario::NetworkScenario;

/// `body` is the order as JSON. `due` is the time at which a started order completes, in milliseconds since 1970.
const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS orders (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        external_id TEXT NOT NULL UNIQUE,
        body TEXT NOT NULL,
        due INTEGER
    );
    CREATE INDEX IF NOT EXISTS orders_by_due ON orders (due) WHERE due IS NOT NULL;
    CREATE TABLE IF NOT EXISTS cancels (
        number INTEGER PRIMARY KEY,
        order_id TEXT NOT NULL,
        state TEXT NOT NULL
    );
    CREATE INDEX IF NOT EXISTS cancels_by_state ON cancels (state);
    CREATE TABLE IF NOT EXISTS hubs (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        callback TEXT NOT NULL UNIQUE,
        query TEXT
    );
    CREATE TABLE IF NOT EXISTS sims (
        msisdn TEXT PRIMARY KEY,
        iccid TEXT NOT NULL
    );";

/// The simulated network.
pub struct MobileNetwork {
    db: Db,
    delay: Duration,
    failures: Option<Arc<Failures<NetworkScenario>>>,
    clock: ClockAndRng,
}

impl MobileNetwork {
    /// Opens the database at `path`, or one in memory. An order completes `delay` after its start.
    pub fn open(path: Option<&Path>, delay: Duration, clock: ClockAndRng) -> rusqlite::Result<Self> {
        Ok(Self {
            db: Db::open(path, &format!("{TABLES}{}", outbox::TABLE))?,
            delay,
            failures: None,
            clock,
        })
    }

    /// The same network, which fails in this way. Registrations never fail, because the service registers only once.
    pub fn failing(self, failures: Option<Arc<Failures<NetworkScenario>>>) -> Self {
        Self { failures, ..self }
    }

    /// Changes the callback URL of the one service that registered in earlier runs, also for events that wait to be
    /// sent. Without a registration, nothing changes.
    pub fn move_callbacks(&self, callback: &str) -> rusqlite::Result<()> {
        self.db.write(|change| {
            change.execute("DELETE FROM hubs WHERE number > (SELECT MIN(number) FROM hubs)", ())?;
            change.execute("UPDATE hubs SET callback = ?1", [callback])?;
            change.execute("UPDATE outbox SET url = ?1", [listener_of(callback)])?;
            Ok(())
        })
    }

    /// Serves the router, processes the orders and sends the events until the task is aborted.
    pub fn serve(self: Arc<Self>, listener: impl Listener, connector: SharedHttpConnector) -> JoinHandle<()> {
        tokio::spawn(async move {
            let router = self.clone().router();
            tokio::select! {
                never = crate::serve(listener, router) => match never {},
                Err(error) = outbox::deliver(&self.db, &connector, &[], &self.clock) => {
                    tracing::error!(%error, "the database of the network failed");
                }
                Err(error) = self.work() => {
                    tracing::error!(%error, "the database of the network failed");
                }
            }
        })
    }

    /// The TMF641 resources.
    pub fn router(self: Arc<Self>) -> Router {
        let orders = Router::new()
            .route("/serviceOrder", get(list_orders).post(create_order))
            .route("/serviceOrder/{id}", get(show_order).patch(update_order))
            .route("/cancelServiceOrder", post(create_cancel))
            .route("/cancelServiceOrder/{id}", get(show_cancel));
        let resources = behind(self.failures.as_ref(), orders)
            .route("/hub", post(register))
            .route("/hub/{id}", delete(unregister))
            .with_state(self);
        Router::new().nest(PATH, resources)
    }

    /// The number of orders with this external id.
    pub fn orders_of(&self, external_id: &str) -> rusqlite::Result<usize> {
        self.db
            .read(|db| find_orders(db, Some(external_id)))
            .map(|orders| orders.len())
    }

    /// Ends an order that is not settled, as a real network sometimes does, in the state `failed`, `rejected` or
    /// `cancelled`. Returns whether there was such an order.
    pub fn give_up(&self, external_id: &str, state: OrderState) -> rusqlite::Result<bool> {
        let now = self.clock.now();
        self.db.write(|change| {
            let mut open = find_orders(change, Some(external_id))?;
            open.retain(|order| matches!(order.state, OrderState::Held | OrderState::InProgress));
            for order in &mut open {
                advance(change, order, state, now, None)?;
            }
            Ok(!open.is_empty())
        })
    }

    /// Removes the events from the outbox, oldest first. The caller has to send them.
    pub fn take_callbacks(&self) -> rusqlite::Result<Vec<Callback>> {
        self.db.write(outbox::take)
    }

    /// The state of the order with this external id, if there is one.
    pub fn order_state(&self, external_id: &str) -> rusqlite::Result<Option<OrderState>> {
        let orders = self.db.read(|db| find_orders(db, Some(external_id)))?;
        Ok(orders.first().map(|order| order.state))
    }

    /// The SIM to which an order has moved this number, if any has.
    pub fn sim_of(&self, msisdn: &Msisdn) -> rusqlite::Result<Option<Iccid>> {
        self.db.read(|db| {
            db.query_row("SELECT iccid FROM sims WHERE msisdn = ?1", [msisdn.as_e164()], |row| {
                Ok(Iccid::parse(row.get_ref(0)?.as_str()?).expect("only ICCIDs are stored"))
            })
            .optional()
        })
    }

    /// Processes cancellations and orders until the future is dropped. An error is that of the database.
    async fn work(&self) -> rusqlite::Result<Infallible> {
        let mut changes = self.db.changes();
        loop {
            changes.mark_unchanged();
            let next = self.work_now()?;
            let wait = next.map(|due| due.duration_since(self.clock.now()));
            let wait = wait.map(|wait| Duration::try_from(wait).unwrap_or_default());
            tokio::select! {
                _ = changes.changed() => {}
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {}
            }
        }
    }

    /// Processes all cancellations, and completes the orders that are due. Returns when the next order is due.
    pub fn work_now(&self) -> rusqlite::Result<Option<Timestamp>> {
        let now = self.clock.now();
        let next = self.db.write(|change| {
            settle_cancels(change, now)?;
            complete_orders(change, now)?;
            change.query_row("SELECT MIN(due) FROM orders", (), |row| row.get::<_, Option<i64>>(0))
        })?;
        Ok(next.and_then(|due| Timestamp::from_millisecond(due).ok()))
    }

    /// The time at which an order that starts now completes, in milliseconds since 1970.
    fn due(&self, now: Timestamp) -> i64 {
        (now + self.delay).as_millisecond()
    }
}

/// The body of a request that creates an order (TMF641 `ServiceOrder_Create`).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Create {
    external_id: Option<String>,
    category: Option<String>,
    #[serde(default)]
    service_order_item: Vec<OrderItem>,
}

impl Create {
    /// The names of the fields that a swap needs and that are missing or malformed.
    fn missing(&self) -> Vec<&'static str> {
        let item = self.service_order_item.as_slice();
        let has_iccid = |name| text(item, name).is_some_and(|iccid| Iccid::parse(iccid).is_ok());
        [
            (
                "externalId",
                self.external_id.as_deref().is_some_and(|id| !id.is_empty()),
            ),
            ("category", self.category.as_deref() == Some("SIMSWAP")),
            ("serviceOrderItem", item.len() == 1),
            ("serviceOrderItem.id", item.iter().all(|item| !item.id.is_empty())),
            (
                "serviceOrderItem.action",
                item.iter().all(|item| item.action == "modify"),
            ),
            (
                "msisdn",
                text(item, "msisdn").is_some_and(|msisdn| Msisdn::parse(msisdn).is_ok()),
            ),
            ("oldIccid", has_iccid("oldIccid")),
            ("newIccid", has_iccid("newIccid")),
        ]
        .into_iter()
        .filter_map(|(name, present)| (!present).then_some(name))
        .collect()
    }
}

/// The text of a service characteristic of the first item.
fn text<'a>(items: &'a [OrderItem], name: &str) -> Option<&'a str> {
    items
        .first()?
        .service
        .service_characteristic
        .iter()
        .find(|characteristic| characteristic.name == name)?
        .value
        .as_str()
}

async fn create_order(State(network): State<Arc<MobileNetwork>>, body: Bytes) -> Result<Response, DbError> {
    let Ok(create) = serde_json::from_slice::<Create>(&body) else {
        return Ok(tmf_error(StatusCode::BAD_REQUEST, "the body is not a service order"));
    };
    let missing = create.missing();
    if !missing.is_empty() {
        let reason = format!("missing or malformed: {}", missing.join(", "));
        return Ok(tmf_error(StatusCode::BAD_REQUEST, &reason));
    }
    let now = network.clock.now();
    let order = network.db.write(|change| {
        if !find_orders(change, create.external_id.as_deref())?.is_empty() {
            return Ok(None);
        }
        let number: i64 = change.query_row("SELECT COALESCE(MAX(number), 0) + 1 FROM orders", (), |row| row.get(0))?;
        let year = now.to_zoned(TimeZone::UTC).year();
        let id = format!("03{number:04}0-{year}");
        let mut order = Order {
            href: Some(format!("{PATH}/serviceOrder/{id}")),
            id,
            external_id: create.external_id,
            category: create.category,
            state: OrderState::Held,
            order_date: Some(now),
            start_date: None,
            completion_date: None,
            cancellation_date: None,
            service_order_item: create.service_order_item,
        };
        let held = text(&order.service_order_item, "startOn").is_some();
        set_state(&mut order, OrderState::Held, now);
        if !held {
            set_state(&mut order, OrderState::InProgress, now);
        }
        change.execute(
            "INSERT INTO orders (number, id, external_id, body, due) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                number,
                order.id,
                order.external_id,
                json_text(&order),
                (!held).then(|| network.due(now)),
            ],
        )?;
        Ok(Some(order))
    })?;
    Ok(match order {
        Some(order) => (StatusCode::CREATED, Json(order)).into_response(),
        None => tmf_error(StatusCode::CONFLICT, "there is an order with this externalId"),
    })
}

async fn list_orders(
    State(network): State<Arc<MobileNetwork>>,
    Query(filter): Query<HashMap<String, String>>,
) -> Result<Json<Vec<Order>>, DbError> {
    let external_id = filter.get("externalId").map(String::as_str);
    let orders = network.db.read(|db| find_orders(db, external_id))?;
    Ok(Json(orders))
}

async fn show_order(
    State(network): State<Arc<MobileNetwork>>,
    UrlPath(id): UrlPath<String>,
) -> Result<Response, DbError> {
    let order = network.db.read(|db| find_order(db, &id))?;
    Ok(order.map_or_else(
        || tmf_error(StatusCode::NOT_FOUND, "there is no such order"),
        |order| Json(order).into_response(),
    ))
}

async fn update_order(
    State(network): State<Arc<MobileNetwork>>,
    UrlPath(id): UrlPath<String>,
    body: Bytes,
) -> Result<Response, DbError> {
    let update: Value = serde_json::from_slice(&body).unwrap_or_default();
    if update["state"] != "inProgress" {
        let reason = "only the state can be set, and only to inProgress";
        return Ok(tmf_error(StatusCode::BAD_REQUEST, reason));
    }
    Ok(network.db.write(|change| {
        let Some(mut order) = find_order(change, &id)? else {
            return Ok(tmf_error(StatusCode::NOT_FOUND, "there is no such order"));
        };
        match order.state {
            OrderState::Held => {
                let now = network.clock.now();
                let due = Some(network.due(now));
                advance(change, &mut order, OrderState::InProgress, now, due)?;
            }
            OrderState::InProgress | OrderState::Completed => {}
            _ => {
                let reason = "the order can no longer be started";
                return Ok(tmf_error(StatusCode::CONFLICT, reason));
            }
        }
        Ok(Json(order).into_response())
    })?)
}

async fn create_cancel(State(network): State<Arc<MobileNetwork>>, body: Bytes) -> Result<Response, DbError> {
    let Ok(cancel) = serde_json::from_slice::<CancelServiceOrder>(&body) else {
        return Ok(tmf_error(
            StatusCode::BAD_REQUEST,
            "missing or malformed: serviceOrder.id",
        ));
    };
    let order_id = cancel.service_order.id;
    Ok(network.db.write(|change| {
        if find_order(change, &order_id)?.is_none() {
            return Ok(tmf_error(StatusCode::BAD_REQUEST, "there is no such order"));
        }
        change.execute(
            "INSERT INTO cancels (order_id, state) VALUES (?1, ?2)",
            params![order_id, json_text(&TaskState::Accepted)],
        )?;
        let task = task(change.last_insert_rowid(), order_id, TaskState::Accepted);
        Ok((StatusCode::CREATED, Json(task)).into_response())
    })?)
}

async fn show_cancel(
    State(network): State<Arc<MobileNetwork>>,
    UrlPath(number): UrlPath<i64>,
) -> Result<Response, DbError> {
    let found = network.db.read(|db| {
        db.query_row(
            "SELECT number, order_id, state FROM cancels WHERE number = ?1",
            [number],
            |row| Ok(task(row.get(0)?, row.get(1)?, from_json(row, 2)?)),
        )
        .optional()
    })?;
    Ok(found.map_or_else(
        || tmf_error(StatusCode::NOT_FOUND, "there is no such task"),
        |task| Json(task).into_response(),
    ))
}

async fn register(State(network): State<Arc<MobileNetwork>>, body: Bytes) -> Result<Response, DbError> {
    let Ok(hub) = serde_json::from_slice::<EventSubscription>(&body) else {
        return Ok(tmf_error(StatusCode::BAD_REQUEST, "missing or malformed: callback"));
    };
    let number: i64 = network.db.write(|change| {
        change.execute(
            "INSERT INTO hubs (callback, query) VALUES (?1, ?2)
             ON CONFLICT (callback) DO UPDATE SET query = ?2",
            params![hub.callback, hub.query],
        )?;
        change.query_row("SELECT number FROM hubs WHERE callback = ?1", [&hub.callback], |row| {
            row.get(0)
        })
    })?;
    let hub = EventSubscription {
        id: Some(number.to_string()),
        ..hub
    };
    Ok((StatusCode::CREATED, Json(hub)).into_response())
}

async fn unregister(
    State(network): State<Arc<MobileNetwork>>,
    UrlPath(number): UrlPath<i64>,
) -> Result<Response, DbError> {
    let deleted = network.db.write(|change| {
        change.execute("DELETE FROM outbox WHERE subject LIKE ?1 || '/%'", [number])?;
        change.execute("DELETE FROM hubs WHERE number = ?1", [number])
    })?;
    Ok(match deleted {
        0 => tmf_error(StatusCode::NOT_FOUND, "there is no such registration"),
        _ => StatusCode::NO_CONTENT.into_response(),
    })
}

/// Processes all cancellations. A held order is cancelled; an order in another state does not change.
fn settle_cancels(change: &Transaction<'_>, now: Timestamp) -> rusqlite::Result<()> {
    let accepted = json_text(&TaskState::Accepted);
    let open: Vec<(i64, String)> = change
        .prepare_cached("SELECT number, order_id FROM cancels WHERE state = ?1 ORDER BY number")?
        .query_map([accepted], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    for (number, order_id) in open {
        let mut order = find_order(change, &order_id)?.expect("a cancellation names an order");
        let outcome = match order.state {
            OrderState::Held => {
                advance(change, &mut order, OrderState::Cancelled, now, None)?;
                TaskState::Done
            }
            OrderState::Cancelled => TaskState::Done,
            _ => TaskState::TerminatedWithError,
        };
        change.execute(
            "UPDATE cancels SET state = ?2 WHERE number = ?1",
            params![number, json_text(&outcome)],
        )?;
    }
    Ok(())
}

/// Completes the orders that are due, and moves their numbers.
fn complete_orders(change: &Transaction<'_>, now: Timestamp) -> rusqlite::Result<()> {
    let due: Vec<Order> = change
        .prepare_cached("SELECT body FROM orders WHERE due <= ?1 ORDER BY due")?
        .query_map([now.as_millisecond()], |row| from_json(row, 0))?
        .collect::<rusqlite::Result<_>>()?;
    for mut order in due {
        let items = order.service_order_item.as_slice();
        let msisdn = text(items, "msisdn").and_then(|msisdn| Msisdn::parse(msisdn).ok());
        let iccid = text(items, "newIccid").and_then(|iccid| Iccid::parse(iccid).ok());
        let (msisdn, iccid) = msisdn.zip(iccid).expect("orders are checked when they are created");
        change.execute(
            "INSERT INTO sims (msisdn, iccid) VALUES (?1, ?2) ON CONFLICT (msisdn) DO UPDATE SET iccid = ?2",
            params![msisdn.as_e164(), iccid.as_str()],
        )?;
        advance(change, &mut order, OrderState::Completed, now, None)?;
    }
    Ok(())
}

/// Changes the state of an order, and adds an event for every registration to the outbox.
fn advance(
    change: &Transaction<'_>,
    order: &mut Order,
    state: OrderState,
    now: Timestamp,
    due: Option<i64>,
) -> rusqlite::Result<()> {
    set_state(order, state, now);
    change.execute(
        "UPDATE orders SET body = ?2, due = ?3 WHERE id = ?1",
        params![order.id, json_text(order), due],
    )?;
    let state = serde_json::to_value(state).expect("a state is a string");
    let state = state.as_str().unwrap_or_default();
    let event = ServiceOrderStateChangeEvent {
        // An order enters each state only once, so the id is unique.
        event_id: Some(format!("{}-{state}", order.id)),
        event_time: Some(now),
        event_type: Some("ServiceOrderStateChangeEvent".to_owned()),
        event: ServiceOrderStateChange {
            service_order: order.clone(),
        },
    };
    let hubs: Vec<(i64, String, Option<String>)> = change
        .prepare_cached("SELECT number, callback, query FROM hubs")?
        .query_map((), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<rusqlite::Result<_>>()?;
    for (number, callback, query) in hubs {
        if !query_selects(query.as_deref(), state) {
            continue;
        }
        // Each registration has its own subject, so one that does not respond delays no other.
        let subject = format!("{number}/{}", order.id);
        outbox::put(change, &subject, &listener_of(&callback), &event)?;
    }
    Ok(())
}

/// Whether the query of a registration selects events with this state. Other terms of the query are ignored.
fn query_selects(query: Option<&str>, state: &str) -> bool {
    let terms = query.into_iter().flat_map(|query| query.split('&'));
    let mut states = terms.filter_map(|term| term.strip_prefix("event.serviceOrder.state="));
    states.all(|list| list.split(',').any(|wanted| wanted == state))
}

fn listener_of(callback: &str) -> String {
    format!("{}{PATH}{LISTENER}", callback.trim_end_matches('/'))
}

fn set_state(order: &mut Order, state: OrderState, now: Timestamp) {
    order.state = state;
    for item in &mut order.service_order_item {
        item.state = state;
    }
    match state {
        OrderState::InProgress => order.start_date = Some(now),
        OrderState::Completed => order.completion_date = Some(now),
        OrderState::Cancelled => order.cancellation_date = Some(now),
        _ => {}
    }
}

fn find_order(db: &Connection, id: &str) -> rusqlite::Result<Option<Order>> {
    db.query_row("SELECT body FROM orders WHERE id = ?1", [id], |row| from_json(row, 0))
        .optional()
}

fn find_orders(db: &Connection, external_id: Option<&str>) -> rusqlite::Result<Vec<Order>> {
    db.prepare_cached("SELECT body FROM orders WHERE ?1 IS NULL OR external_id = ?1 ORDER BY number")?
        .query_map([external_id], |row| from_json(row, 0))?
        .collect()
}

fn json_text(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("the wire types are plain JSON")
}

fn from_json<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let text = row.get_ref(column)?.as_str()?;
    Ok(serde_json::from_str(text).expect("the database contains only JSON of this program"))
}

fn task(number: i64, order_id: String, state: TaskState) -> CancelServiceOrder {
    CancelServiceOrder {
        id: Some(number.to_string()),
        href: Some(format!("{PATH}/cancelServiceOrder/{number}")),
        state: Some(state),
        service_order: ServiceOrderRef { id: order_id },
    }
}

fn tmf_error(status: StatusCode, reason: &str) -> Response {
    let error = TmfError {
        code: status.canonical_reason().unwrap_or_default().to_owned(),
        reason: reason.to_owned(),
        status: Some(status.as_u16().to_string()),
    };
    (status, Json(error)).into_response()
}

#[cfg(test)]
mod tests;
