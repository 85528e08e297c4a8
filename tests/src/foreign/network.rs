//! A network that takes orders by TMF641 (TM Forum Service Ordering Management API v4.1). The JSON is written by hand
//! from the field tables of its OpenAPI description.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Act, Call, Edit, Peer, PeerServer, Reply, date, lock, serve};

/// How the network treats the orders of one phone number.
#[derive(Clone)]
pub struct Behaviour {
    /// Whether the network sends events by itself.
    pub sends_events: bool,
    /// How long a started order takes; `None` if it never completes.
    pub completes_after: Option<Duration>,
    /// The state of an order after a cancel.
    pub cancel_to: &'static str,
    /// Changes each order in responses and events.
    pub edit_order: Edit<Value>,
    /// Changes each event.
    pub edit_event: Edit<Value>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            sends_events: true,
            completes_after: Some(Duration::ZERO),
            cancel_to: "cancelled",
            edit_order: Arc::new(|_| {}),
            edit_event: Arc::new(|_| {}),
        }
    }
}

/// The network's database.
#[derive(Default)]
struct Db {
    /// The orders before `edit_order` changes them.
    orders: Vec<Value>,
    /// How many orders were ever placed.
    placed: usize,
    /// The phone numbers by external id, and by the id of every order that was ever placed.
    numbers: HashMap<String, String>,
    /// The SIM that each number was moved to.
    sims: HashMap<String, String>,
    hubs: Vec<String>,
    behaviour: HashMap<String, Behaviour>,
}

/// The network, which runs until the test ends.
#[derive(Clone)]
pub struct ForeignNetwork(Arc<Network>);

struct Network {
    server: PeerServer,
    db: Mutex<Db>,
}

const LISTENER: &str = "/tmf-api/serviceOrdering/v4/listener/serviceOrderStateChangeEvent";

/// The fields of `ServiceOrder_Create`.
const CREATE: [&str; 14] = [
    "cancellationDate",
    "cancellationReason",
    "category",
    "description",
    "externalId",
    "externalReference",
    "note",
    "notificationContact",
    "orderRelationship",
    "priority",
    "relatedParty",
    "requestedCompletionDate",
    "requestedStartDate",
    "serviceOrderItem",
];

impl ForeignNetwork {
    /// Starts the network.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn start() -> Self {
        let (listener, server) = PeerServer::listen().await;
        let network = Arc::new(Network {
            server,
            db: Mutex::default(),
        });
        tokio::spawn(serve(listener, network.clone()));
        Self(network)
    }

    /// The base URL.
    pub fn url(&self) -> &str {
        &self.0.server.url
    }

    /// Sets how the network treats the calls about this number; `""` stands for calls about an unknown number.
    pub fn rule(&self, phone: &str, rule: impl Fn(&Call) -> Act + Send + Sync + 'static) {
        lock(&self.0.server.rules).insert(phone.to_owned(), Arc::new(rule));
    }

    /// The network complies with all calls about this number from here on.
    pub fn comply(&self, phone: &str) {
        lock(&self.0.server.rules).remove(phone);
        lock(&self.0.db).behaviour.remove(phone);
    }

    /// Sets how the network treats the orders of this number.
    pub fn behave(&self, phone: &str, behaviour: Behaviour) {
        lock(&self.0.db).behaviour.insert(phone.to_owned(), behaviour);
    }

    /// The calls of this operation about this number.
    pub fn calls(&self, operation: &str, phone: &str) -> Vec<Call> {
        self.0.server.calls(operation, phone)
    }

    /// The requests that violated the standard.
    pub fn violations(&self) -> Vec<String> {
        lock(&self.0.server.violations).clone()
    }

    /// The orders with this external id.
    pub fn orders(&self, external_id: &str) -> Vec<Value> {
        let db = lock(&self.0.db);
        let ours = db.orders.iter().filter(|order| order["externalId"] == external_id);
        ours.cloned().collect()
    }

    /// The state of the order with this external id; `""` if there is none.
    pub fn state(&self, external_id: &str) -> String {
        let orders = self.orders(external_id);
        let state = orders.first().and_then(|order| order["state"].as_str());
        state.unwrap_or_default().to_owned()
    }

    /// The SIM that this number was moved to.
    pub fn sim_of(&self, phone: &str) -> Option<String> {
        lock(&self.0.db).sims.get(phone).cloned()
    }

    /// Changes an order in the database, without an event.
    ///
    /// # Panics
    /// When there is no such order.
    pub fn set(&self, external_id: &str, state: &str) {
        self.0.set(external_id, state, Timestamp::now());
    }

    /// Changes an order as of this time, without an event.
    ///
    /// # Panics
    /// When there is no such order.
    pub fn set_since(&self, external_id: &str, state: &str, since: Timestamp) {
        self.0.set(external_id, state, since);
    }

    /// Deletes an order.
    pub fn forget(&self, external_id: &str) {
        lock(&self.0.db)
            .orders
            .retain(|order| order["externalId"] != external_id);
    }

    /// The event with an order's state.
    ///
    /// # Panics
    /// When there is no such order.
    pub fn event(&self, external_id: &str) -> Value {
        let order = self.orders(external_id).pop().expect("the order exists");
        self.0.event(&order)
    }

    /// Changes an order and sends one event. Returns the status code.
    ///
    /// # Panics
    /// When there is no such order, or no hub.
    pub async fn set_and_notify(&self, external_id: &str, state: &str) -> u16 {
        self.set(external_id, state);
        self.notify_order(&self.event(external_id).to_string()).await
    }

    /// Sends a state change event with this body. Returns the status code.
    ///
    /// # Panics
    /// When no hub is registered.
    pub async fn notify_order(&self, body: &str) -> u16 {
        let hub = lock(&self.0.db).hubs.first().cloned();
        let url = format!("{}{LISTENER}", hub.expect("a hub is registered"));
        self.0.server.send(&url, body.as_bytes().to_vec()).await
    }
}

impl Network {
    fn behaviour(&self, phone: &str) -> Behaviour {
        let db = lock(&self.db);
        db.behaviour.get(phone).cloned().unwrap_or_default()
    }

    fn set(&self, external_id: &str, state: &str, since: Timestamp) -> Value {
        let mut db = lock(&self.db);
        let mut orders = db.orders.iter_mut();
        let order = orders.find(|order| order["externalId"] == external_id);
        let order = order.expect("the order exists");
        order["state"] = json!(state);
        order["serviceOrderItem"][0]["state"] = json!(state);
        match state {
            "inProgress" => order["startDate"] = json!(date(since)),
            "completed" | "failed" => order["completionDate"] = json!(date(since)),
            "cancelled" => order["cancellationDate"] = json!(date(since)),
            _ => {}
        }
        let order = order.clone();
        if state == "completed" {
            let sim = characteristic(&order, "newIccid");
            db.sims.insert(phone(&order), sim);
        }
        order
    }

    fn edited(&self, order: &Value) -> Value {
        let mut shown = order.clone();
        (self.behaviour(&phone(order)).edit_order)(&mut shown);
        shown
    }

    fn event(&self, order: &Value) -> Value {
        let now = date(Timestamp::now());
        let mut event = json!({
            "correlationId": "c-1",
            "description": "ServiceOrderStateChangeEvent of a service order",
            "domain": "service",
            "eventId": format!("e-{}-{}", text(&order["id"]), text(&order["state"])),
            "eventTime": now,
            "eventType": "ServiceOrderStateChangeEvent",
            "priority": "1",
            "timeOcurred": now,
            "title": "ServiceOrderStateChangeEvent",
            "event": {"serviceOrder": self.edited(order)},
        });
        (self.behaviour(&phone(order)).edit_event)(&mut event);
        event
    }

    /// Sends the event with an order's state until it is accepted.
    fn send_event(self: &Arc<Self>, order: &Value) {
        if !self.behaviour(&phone(order)).sends_events {
            return;
        }
        let body = self.event(order).to_string();
        for hub in lock(&self.db).hubs.clone() {
            let (network, body) = (self.clone(), body.clone());
            tokio::spawn(async move {
                let url = format!("{hub}{LISTENER}");
                network.server.send(&url, body.into()).await;
            });
        }
    }

    /// Completes a started order, after its time.
    fn work(self: &Arc<Self>, external_id: &str, phone: &str) {
        let Some(takes) = self.behaviour(phone).completes_after else {
            return;
        };
        let (network, id) = (self.clone(), external_id.to_owned());
        tokio::spawn(async move {
            tokio::time::sleep(takes).await;
            let order = network.set(&id, "completed", Timestamp::now());
            network.send_event(&order);
        });
    }

    fn place(self: &Arc<Self>, create: &Value) -> Reply {
        let faults = violations_of(create);
        if !faults.is_empty() {
            for fault in &faults {
                self.server.report_violation(format!("serviceOrder: {fault}"));
            }
            return error(400, "20", &faults.join("; "));
        }
        let external_id = text(&create["externalId"]);
        let mut db = lock(&self.db);
        let taken = db.orders.iter();
        if taken.into_iter().any(|order| order["externalId"] == external_id) {
            return error(409, "31", "there is an order with this externalId");
        }
        db.placed += 1;
        let id = (700_000 + db.placed).to_string();
        let item = &create["serviceOrderItem"][0];
        let held = characteristic(create, "startOn") == "profileInstalled";
        let state = if held { "held" } else { "inProgress" };
        let mut order = json!({
            "id": id,
            "href": format!("https://oss.foreign.example/serviceOrdering/v4/serviceOrder/{id}"),
            "category": create["category"],
            "description": "",
            "externalId": external_id,
            "orderDate": date(Timestamp::now()),
            "priority": "4",
            "state": state,
            "serviceOrderItem": [{
                "id": item["id"],
                "quantity": 1,
                "action": item["action"],
                "state": state,
                "service": {
                    "serviceType": "mobile",
                    "state": "active",
                    "serviceCharacteristic": item["service"]["serviceCharacteristic"],
                    "@type": "Service",
                },
                "@type": "ServiceOrderItem",
            }],
            "@type": "ServiceOrder",
        });
        if !held {
            order["startDate"] = order["orderDate"].clone();
        }
        db.orders.push(order.clone());
        db.numbers.insert(id, phone(&order));
        drop(db);
        if !held {
            self.work(&external_id, &phone(&order));
        }
        Reply::json(201, &self.edited(&order))
    }

    fn find(&self, id: &str) -> Option<Value> {
        let db = lock(&self.db);
        db.orders.iter().find(|order| order["id"] == id).cloned()
    }

    fn start(self: &Arc<Self>, id: &str, update: &Value) -> Reply {
        let Some(order) = self.find(id) else {
            return error(404, "60", "no such order");
        };
        if *update != json!({"state": "inProgress"}) {
            self.server.report_violation(format!("PATCH serviceOrder: {update}"));
            return error(400, "20", "only the state can be changed");
        }
        if order["state"] != "held" {
            return error(409, "31", "the order is not held");
        }
        let external_id = text(&order["externalId"]);
        let order = self.set(&external_id, "inProgress", Timestamp::now());
        self.work(&external_id, &phone(&order));
        Reply::json(200, &self.edited(&order))
    }

    fn cancel(self: &Arc<Self>, cancel: &Value) -> Reply {
        let id = text(&cancel["serviceOrder"]["id"]);
        let Some(order) = self.find(&id) else {
            self.server.report_violation(format!("cancelServiceOrder: {cancel}"));
            return error(400, "20", "serviceOrder.id names no order");
        };
        let can = matches!(order["state"].as_str(), Some("held" | "acknowledged"));
        if can {
            let external_id = text(&order["externalId"]);
            let to = self.behaviour(&phone(&order)).cancel_to;
            // A cancel is a task of its own: the network accepts it first and executes it then.
            let order = self.set(&external_id, to, Timestamp::now());
            if to == "cancelled" {
                self.send_event(&order);
            }
        }
        let task = json!({
            "id": format!("C-{id}"),
            "href": format!("https://oss.foreign.example/serviceOrdering/v4/cancelServiceOrder/C-{id}"),
            "state": if can { "accepted" } else { "terminatedWithError" },
            "serviceOrder": {"id": id, "@referredType": "ServiceOrder"},
            "@type": "CancelServiceOrder",
        });
        Reply::json(201, &task)
    }
}

impl Peer for Network {
    const PATH: &'static str = "/tmf-api/serviceOrdering/v4";

    fn server(&self) -> &PeerServer {
        &self.server
    }

    fn read(&self, method: &str, target: &str, body: &Value) -> Option<(&'static str, String)> {
        let of_order = |id: &str| {
            let db = lock(&self.db);
            db.numbers.get(id).cloned().unwrap_or_default()
        };
        if let Some(id) = target.strip_prefix("/serviceOrder?externalId=") {
            let number = lock(&self.db).numbers.get(id).cloned();
            return (method == "GET").then(|| ("search", number.unwrap_or_default()));
        }
        if let Some(id) = target.strip_prefix("/serviceOrder/") {
            return match method {
                "GET" => Some(("get", of_order(id))),
                "PATCH" => Some(("start", of_order(id))),
                _ => None,
            };
        }
        match (method, target) {
            ("POST", "/serviceOrder") => {
                let number = phone(body);
                let external_id = text(&body["externalId"]);
                let mut db = lock(&self.db);
                db.numbers.insert(external_id, number.clone());
                Some(("place", number))
            }
            ("POST", "/cancelServiceOrder") => Some(("cancel", of_order(&text(&body["serviceOrder"]["id"])))),
            ("POST", "/hub") => Some(("hub", String::new())),
            _ => None,
        }
    }

    fn execute(self: &Arc<Self>, call: &Call) -> Reply {
        let last = call.target.rsplit(['/', '=']).next().unwrap_or_default();
        match call.operation {
            "place" => self.place(&call.body),
            "search" => {
                let db = lock(&self.db).orders.clone();
                let ours = db.iter().filter(|order| order["externalId"] == last);
                let ours: Vec<_> = ours.map(|order| self.edited(order)).collect();
                Reply::json(200, &json!(ours))
            }
            "get" => match self.find(last) {
                Some(order) => Reply::json(200, &self.edited(&order)),
                None => error(404, "60", "no such order"),
            },
            "start" => self.start(last, &call.body),
            "cancel" => self.cancel(&call.body),
            _ => {
                let callback = text(&call.body["callback"]);
                if callback.is_empty() {
                    self.server.report_violation(format!("hub: {}", call.body));
                    return error(400, "20", "callback is missing");
                }
                lock(&self.db).hubs.push(callback.clone());
                Reply::json(201, &json!({"id": "1", "callback": callback}))
            }
        }
    }
}

/// The ways in which a new order violates the standard, or lacks what a swap needs.
fn violations_of(create: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let mut needs = |fits: bool, what: &str| {
        if !fits {
            faults.push(what.to_owned());
        }
    };
    let fields = create.as_object().into_iter().flatten();
    for (name, _) in fields {
        let known = CREATE.contains(&name.as_str()) || name.starts_with('@');
        needs(known, &format!("{name} is not a field"));
    }
    needs(create["externalId"].is_string(), "externalId");
    needs(create["category"] == "SIMSWAP", "category");
    let items = create["serviceOrderItem"].as_array();
    needs(items.is_some_and(|items| items.len() == 1), "serviceOrderItem");
    let item = &create["serviceOrderItem"][0];
    needs(item["id"].is_string(), "serviceOrderItem.id");
    needs(item["action"] == "modify", "serviceOrderItem.action");
    let characteristics = item["service"]["serviceCharacteristic"].as_array();
    for characteristic in characteristics.into_iter().flatten() {
        let complete = characteristic["name"].is_string() && !characteristic["value"].is_null();
        needs(complete, "a characteristic has a name and a value");
    }
    for name in ["msisdn", "oldIccid", "newIccid"] {
        needs(!characteristic(create, name).is_empty(), name);
    }
    faults
}

/// The value of a characteristic of the order's single item.
fn characteristic(order: &Value, name: &str) -> String {
    let all = &order["serviceOrderItem"][0]["service"]["serviceCharacteristic"];
    let mut all = all.as_array().into_iter().flatten();
    let found = all.find(|characteristic| characteristic["name"] == name);
    found.map(|found| text(&found["value"])).unwrap_or_default()
}

fn phone(order: &Value) -> String {
    characteristic(order, "msisdn")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// A TMF641 `Error`.
fn error(status: u16, code: &str, reason: &str) -> Reply {
    let body = json!({"code": code, "reason": reason, "status": status.to_string(), "@type": "Error"});
    Reply::json(status, &body)
}
