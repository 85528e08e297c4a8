//! A network that takes orders by TMF641 (TM Forum Service Ordering Management API v4.1). The JSON is written by hand from the field tables of its OpenAPI.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Act, Call, Edit, Front, Peer, Reply, date, lock, serve};

/// How the network treats the orders of one phone number.
#[derive(Clone)]
pub struct Manners {
    /// Whether it sends events by itself.
    pub tells: bool,
    /// How long a started order takes; `None` is for ever.
    pub completes: Option<Duration>,
    /// The state that a cancel leads to.
    pub cancel_to: &'static str,
    /// Changes each order as it is shown, in answers and in events.
    pub dress: Edit<Value>,
    /// Changes each event.
    pub event: Edit<Value>,
}

impl Default for Manners {
    fn default() -> Self {
        Self {
            tells: true,
            completes: Some(Duration::ZERO),
            cancel_to: "cancelled",
            dress: Arc::new(|_| {}),
            event: Arc::new(|_| {}),
        }
    }
}

/// The network's book.
#[derive(Default)]
struct Db {
    /// As they are shown before they are dressed.
    orders: Vec<Value>,
    /// How many orders ever were.
    placed: usize,
    /// The phone numbers by the external ids that were heard, and by the ids of all orders that ever were.
    numbers: HashMap<String, String>,
    /// The SIM that each number was moved to.
    sims: HashMap<String, String>,
    hubs: Vec<String>,
    manners: HashMap<String, Manners>,
}

/// The network, which runs until the test ends.
#[derive(Clone)]
pub struct ForeignNetwork(Arc<Network>);

struct Network {
    front: Front,
    book: Mutex<Db>,
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
    /// Starts it.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn start() -> Self {
        let (listener, front) = Front::listen().await;
        let network = Arc::new(Network {
            front,
            book: Mutex::default(),
        });
        tokio::spawn(serve(listener, network.clone()));
        Self(network)
    }

    /// Its base URL.
    pub fn url(&self) -> &str {
        &self.0.front.url
    }

    /// What it does with the calls about this number; `""`: about none that it knows.
    pub fn rule(&self, phone: &str, rule: impl Fn(&Call) -> Act + Send + Sync + 'static) {
        lock(&self.0.front.rules).insert(phone.to_owned(), Arc::new(rule));
    }

    /// From now on it complies with all calls about this number.
    pub fn comply(&self, phone: &str) {
        lock(&self.0.front.rules).remove(phone);
        lock(&self.0.book).manners.remove(phone);
    }

    /// How it treats the orders of this number.
    pub fn behave(&self, phone: &str, manners: Manners) {
        lock(&self.0.book).manners.insert(phone.to_owned(), manners);
    }

    /// The calls of this operation about this number.
    pub fn calls(&self, what: &str, phone: &str) -> Vec<Call> {
        self.0.front.calls(what, phone)
    }

    /// Where requests broke the standard.
    pub fn faults(&self) -> Vec<String> {
        lock(&self.0.front.faults).clone()
    }

    /// The orders with this external id.
    pub fn orders(&self, external_id: &str) -> Vec<Value> {
        let book = lock(&self.0.book);
        let ours = book.orders.iter().filter(|order| order["externalId"] == external_id);
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
        lock(&self.0.book).sims.get(phone).cloned()
    }

    /// Changes an order in the book, and says nothing.
    ///
    /// # Panics
    /// When there is no such order.
    pub fn set(&self, external_id: &str, state: &str) {
        self.0.set(external_id, state, Timestamp::now());
    }

    /// The same as of a certain time.
    ///
    /// # Panics
    /// When there is no such order.
    pub fn set_since(&self, external_id: &str, state: &str, since: Timestamp) {
        self.0.set(external_id, state, since);
    }

    /// Forgets an order.
    pub fn forget(&self, external_id: &str) {
        lock(&self.0.book)
            .orders
            .retain(|order| order["externalId"] != external_id);
    }

    /// The event that tells how an order stands, dressed.
    ///
    /// # Panics
    /// When there is no such order.
    pub fn event(&self, external_id: &str) -> Value {
        let order = self.orders(external_id).pop().expect("there is an order");
        self.0.event(&order)
    }

    /// Changes an order and tells it once; gives the status of the answer.
    ///
    /// # Panics
    /// When there is no such order, or no hub.
    pub async fn set_and_tell(&self, external_id: &str, state: &str) -> u16 {
        self.set(external_id, state);
        self.notify_order(&self.event(external_id).to_string()).await
    }

    /// Sends a state change event with this body; gives the status of the answer.
    ///
    /// # Panics
    /// When nobody has registered.
    pub async fn notify_order(&self, body: &str) -> u16 {
        let hub = lock(&self.0.book).hubs.first().cloned();
        let url = format!("{}{LISTENER}", hub.expect("somebody has registered"));
        self.0.front.send(&url, body.as_bytes().to_vec()).await
    }
}

impl Network {
    fn manners(&self, phone: &str) -> Manners {
        let book = lock(&self.book);
        book.manners.get(phone).cloned().unwrap_or_default()
    }

    fn set(&self, external_id: &str, state: &str, since: Timestamp) -> Value {
        let mut book = lock(&self.book);
        let mut orders = book.orders.iter_mut();
        let order = orders.find(|order| order["externalId"] == external_id);
        let order = order.expect("there is such an order");
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
            book.sims.insert(phone(&order), sim);
        }
        order
    }

    fn dressed(&self, order: &Value) -> Value {
        let mut shown = order.clone();
        (self.manners(&phone(order)).dress)(&mut shown);
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
            "event": {"serviceOrder": self.dressed(order)},
        });
        (self.manners(&phone(order)).event)(&mut event);
        event
    }

    /// Tells how an order stands until somebody takes it.
    fn tell(self: &Arc<Self>, order: &Value) {
        if !self.manners(&phone(order)).tells {
            return;
        }
        let body = self.event(order).to_string();
        for hub in lock(&self.book).hubs.clone() {
            let (network, body) = (self.clone(), body.clone());
            tokio::spawn(async move {
                let url = format!("{hub}{LISTENER}");
                network.front.send(&url, body.into()).await;
            });
        }
    }

    /// Works on a started order.
    fn work(self: &Arc<Self>, external_id: &str, phone: &str) {
        let Some(takes) = self.manners(phone).completes else {
            return;
        };
        let (network, id) = (self.clone(), external_id.to_owned());
        tokio::spawn(async move {
            tokio::time::sleep(takes).await;
            let order = network.set(&id, "completed", Timestamp::now());
            network.tell(&order);
        });
    }

    fn place(self: &Arc<Self>, create: &Value) -> Reply {
        let faults = faults_of(create);
        if !faults.is_empty() {
            for fault in &faults {
                self.front.fault(format!("serviceOrder: {fault}"));
            }
            return error(400, "20", &faults.join("; "));
        }
        let external_id = text(&create["externalId"]);
        let mut book = lock(&self.book);
        let taken = book.orders.iter();
        if taken.into_iter().any(|order| order["externalId"] == external_id) {
            return error(409, "31", "there is an order with this externalId");
        }
        book.placed += 1;
        let id = (700_000 + book.placed).to_string();
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
        book.orders.push(order.clone());
        book.numbers.insert(id, phone(&order));
        drop(book);
        if !held {
            self.work(&external_id, &phone(&order));
        }
        Reply::json(201, &self.dressed(&order))
    }

    fn find(&self, id: &str) -> Option<Value> {
        let book = lock(&self.book);
        book.orders.iter().find(|order| order["id"] == id).cloned()
    }

    fn start(self: &Arc<Self>, id: &str, update: &Value) -> Reply {
        let Some(order) = self.find(id) else {
            return error(404, "60", "no such order");
        };
        if *update != json!({"state": "inProgress"}) {
            self.front.fault(format!("PATCH serviceOrder: {update}"));
            return error(400, "20", "only the state can be changed");
        }
        if order["state"] != "held" {
            return error(409, "31", "the order is not held");
        }
        let external_id = text(&order["externalId"]);
        let order = self.set(&external_id, "inProgress", Timestamp::now());
        self.work(&external_id, &phone(&order));
        Reply::json(200, &self.dressed(&order))
    }

    fn cancel(self: &Arc<Self>, cancel: &Value) -> Reply {
        let id = text(&cancel["serviceOrder"]["id"]);
        let Some(order) = self.find(&id) else {
            self.front.fault(format!("cancelServiceOrder: {cancel}"));
            return error(400, "20", "serviceOrder.id names no order");
        };
        let can = matches!(order["state"].as_str(), Some("held" | "acknowledged"));
        if can {
            let external_id = text(&order["externalId"]);
            let to = self.manners(&phone(&order)).cancel_to;
            // Cancelling is a task of its own, which is accepted first and carried out then.
            let order = self.set(&external_id, to, Timestamp::now());
            if to == "cancelled" {
                self.tell(&order);
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

    fn front(&self) -> &Front {
        &self.front
    }

    fn read(&self, method: &str, target: &str, body: &Value) -> Option<(&'static str, String)> {
        let of_order = |id: &str| {
            let book = lock(&self.book);
            book.numbers.get(id).cloned().unwrap_or_default()
        };
        if let Some(id) = target.strip_prefix("/serviceOrder?externalId=") {
            let number = lock(&self.book).numbers.get(id).cloned();
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
                let mut book = lock(&self.book);
                book.numbers.insert(external_id, number.clone());
                Some(("place", number))
            }
            ("POST", "/cancelServiceOrder") => Some(("cancel", of_order(&text(&body["serviceOrder"]["id"])))),
            ("POST", "/hub") => Some(("hub", String::new())),
            _ => None,
        }
    }

    fn carry_out(self: &Arc<Self>, call: &Call) -> Reply {
        let last = call.target.rsplit(['/', '=']).next().unwrap_or_default();
        match call.what {
            "place" => self.place(&call.body),
            "search" => {
                let book = lock(&self.book).orders.clone();
                let ours = book.iter().filter(|order| order["externalId"] == last);
                let ours: Vec<_> = ours.map(|order| self.dressed(order)).collect();
                Reply::json(200, &json!(ours))
            }
            "get" => match self.find(last) {
                Some(order) => Reply::json(200, &self.dressed(&order)),
                None => error(404, "60", "no such order"),
            },
            "start" => self.start(last, &call.body),
            "cancel" => self.cancel(&call.body),
            _ => {
                let callback = text(&call.body["callback"]);
                if callback.is_empty() {
                    self.front.fault(format!("hub: {}", call.body));
                    return error(400, "20", "callback is missing");
                }
                lock(&self.book).hubs.push(callback.clone());
                Reply::json(201, &json!({"id": "1", "callback": callback}))
            }
        }
    }
}

/// What of a new order is not as the standard has it, or not what a swap needs.
fn faults_of(create: &Value) -> Vec<String> {
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

/// The value of a characteristic of the order's one item.
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

/// TMF641 `Error`.
fn error(status: u16, code: &str, reason: &str) -> Reply {
    let body = json!({"code": code, "reason": reason, "status": status.to_string(), "@type": "Error"});
    Reply::json(status, &body)
}
