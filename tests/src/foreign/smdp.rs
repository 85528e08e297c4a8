//! An SM-DP+ that takes orders by ES2+ (GSMA SGP.22 v2). The JSON is written by hand from the standard's field tables.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Act, Call, Edit, Peer, PeerServer, Reply, lock, serve};

/// The host name of this SM-DP+ in activation codes.
const ADDRESS: &str = "smdp.foreign.example";

/// The EID of the phone that installs profiles.
const PHONE_EID: &str = "89049032123451234512345678901235";

/// A profile in the database. The states are those of SGP.22 section 3.1.6.
#[derive(Debug, Clone, Default)]
struct Profile {
    state: &'static str,
    /// When the profile entered the state.
    since: Timestamp,
    matching_id: String,
}

impl Profile {
    fn enter(&mut self, state: &'static str) {
        self.state = state;
        self.since = Timestamp::now();
    }

    /// Whether a phone has the profile. The last two states are those of vendors.
    fn is_on_a_phone(&self) -> bool {
        ["Downloaded", "Installed", "Enabled", "Disabled"].contains(&self.state)
    }

    /// Whether an order with this matching id is another one than the profile's.
    fn is_other_order(&self, matching_id: &str) -> bool {
        let ids = [self.matching_id.as_str(), matching_id];
        !ids.contains(&"") && ids[0] != ids[1]
    }

    /// The entry of this profile in the response of `getProfileStatus`.
    fn status(&self, iccid: &str) -> Value {
        json!({
            "iccid": padded(iccid),
            "eid": self.is_on_a_phone().then_some(PHONE_EID),
            "state": self.state,
            "acToken": self.matching_id,
            "lockFlag": false,
            "status_last_update_timestamp": seconds(self.since),
        })
    }
}

#[derive(Default)]
struct Db {
    profiles: HashMap<String, Profile>,
    /// Changes the responses about one profile.
    edits: HashMap<String, Edit<Value>>,
    operator: String,
    /// Whether callbacks have their name in SGP.22 v3.
    speaks_v3: bool,
}

/// The SM-DP+, which runs until the test ends.
#[derive(Clone)]
pub struct ForeignSmdp(Arc<Smdp>);

struct Smdp {
    server: PeerServer,
    db: Mutex<Db>,
}

impl ForeignSmdp {
    /// Starts the SM-DP+.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn start() -> Self {
        let (listener, server) = PeerServer::listen().await;
        let smdp = Arc::new(Smdp {
            server,
            db: Mutex::default(),
        });
        tokio::spawn(serve(listener, smdp.clone()));
        Self(smdp)
    }

    /// The base URL.
    pub fn url(&self) -> &str {
        &self.0.server.url
    }

    /// Sends callbacks below this URL from here on.
    pub fn connect(&self, operator: &str) {
        operator.clone_into(&mut lock(&self.0.db).operator);
    }

    /// Sends callbacks by their name in SGP.22 v3, `handleNotification`, from here on.
    pub fn speak_v3(&self) {
        lock(&self.0.db).speaks_v3 = true;
    }

    /// Sets how the SM-DP+ treats the calls about this ICCID.
    pub fn rule(&self, iccid: &str, rule: impl Fn(&Call) -> Act + Send + Sync + 'static) {
        lock(&self.0.server.rules).insert(iccid.to_owned(), Arc::new(rule));
    }

    /// The SM-DP+ complies with all calls about this ICCID from here on.
    pub fn comply(&self, iccid: &str) {
        lock(&self.0.server.rules).remove(iccid);
        lock(&self.0.db).edits.remove(iccid);
    }

    /// Changes each response about this ICCID.
    pub fn edit_responses(&self, iccid: &str, edit_responses: Edit<Value>) {
        lock(&self.0.db).edits.insert(iccid.to_owned(), edit_responses);
    }

    /// The calls of this function about this ICCID.
    pub fn calls(&self, operation: &str, iccid: &str) -> Vec<Call> {
        self.0.server.calls(operation, iccid)
    }

    /// The requests that violated the standard.
    pub fn violations(&self) -> Vec<String> {
        lock(&self.0.server.violations).clone()
    }

    /// The state of a profile; `Available` if it was never ordered.
    pub fn state(&self, iccid: &str) -> &'static str {
        let db = lock(&self.0.db);
        let state = db.profiles.get(iccid).map_or("", |profile| profile.state);
        if state.is_empty() { "Available" } else { state }
    }

    /// Changes a profile in the database, without a callback.
    pub fn set(&self, iccid: &str, state: &'static str) {
        let mut db = lock(&self.0.db);
        db.profiles.entry(iccid.to_owned()).or_default().enter(state);
    }

    /// The body of a callback that reports this notification point as successful at this moment.
    pub fn progress(&self, iccid: &str, point: u32) -> Value {
        json!({
            "header": {"functionRequesterIdentifier": ADDRESS, "functionCallIdentifier": format!("N-{point}")},
            "eid": PHONE_EID,
            "iccid": padded(iccid),
            "profileType": "CONSUMER-1",
            "timestamp": seconds(Timestamp::now()),
            "notificationPointId": point,
            "notificationPointStatus": {"status": "Executed-Success"},
        })
    }

    /// Sends that report after `change`. Returns the status code.
    pub async fn notify_progress(&self, iccid: &str, point: u32, change: impl FnOnce(&mut Value)) -> u16 {
        let mut body = self.progress(iccid, point);
        change(&mut body);
        let function = match lock(&self.0.db).speaks_v3 {
            true => "handleNotification",
            false => "handleDownloadProgressInfo",
        };
        self.notify(function, &body.to_string()).await
    }

    /// Gives the profile up: its state is `Error` then, and a callback reports that this notification point failed with
    /// these codes. Returns the status code.
    pub async fn fail(&self, iccid: &str, point: u32, subject: &str, reason: &str) -> u16 {
        self.set(iccid, "Error");
        let status = failed(subject, reason)["header"]["functionExecutionStatus"].take();
        self.notify_progress(iccid, point, |body| body["notificationPointStatus"] = status)
            .await
    }

    /// Sends a callback with this body. Returns the status code.
    pub async fn notify(&self, function: &str, body: &str) -> u16 {
        let operator = lock(&self.0.db).operator.clone();
        let url = format!("{operator}{}{function}", Smdp::PATH);
        // An SM-DP+ sends a callback again if it gets 503.
        for _ in 0..5 {
            let status = self.0.server.send(&url, body.as_bytes().to_vec()).await;
            if status != 503 {
                return status;
            }
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
        503
    }

    /// Plays a phone that downloads the profile and installs it.
    ///
    /// # Panics
    /// When there is nothing to download, or a report is rejected.
    pub async fn install(&self, iccid: &str) {
        assert_eq!(self.state(iccid), "Released", "{iccid}");
        for (point, state) in [(3, "Downloaded"), (4, "Installed")] {
            self.set(iccid, state);
            let taken = self.notify_progress(iccid, point, |_| {}).await;
            assert_eq!(taken, 204, "{point} of {iccid}");
        }
    }
}

impl Smdp {
    fn execute(&self, call: &Call) -> Value {
        let body = &call.body;
        for fault in violations_of(call) {
            self.server
                .report_violation(format!("{}: {fault}: {body}", call.operation));
        }
        let mut db = lock(&self.db);
        let profile = db.profiles.entry(call.subject.clone()).or_default();
        match call.operation {
            "downloadOrder" => {
                if !["", "Available"].contains(&profile.state) {
                    return failed("8.2.1", "3.3");
                }
                profile.enter("Allocated");
                with(success(), "iccid", json!(padded(&call.subject)))
            }
            "confirmOrder" => match profile.state {
                "Allocated" => {
                    profile.enter("Released");
                    profile.matching_id = text(&body["matchingId"]);
                    let response = with(success(), "matchingId", body["matchingId"].clone());
                    with(response, "smdpAddress", json!(ADDRESS))
                }
                "" | "Available" => failed("8.2.1", "3.9"),
                _ if profile.matching_id == text(&body["matchingId"]) => failed("8.2.6", "3.3"),
                _ => failed("8.2.6", "3.10"),
            },
            "getProfileStatus" => {
                // A profile that was never ordered is not in the list.
                let listed = (!profile.state.is_empty()).then(|| profile.status(&call.subject));
                let response = with(success(), "profileStatusList", json!(Vec::from_iter(listed)));
                with(response, "completionTimestamp", json!(seconds(Timestamp::now())))
            }
            _ => match profile.state {
                "" | "Available" => failed("8.2.1", "3.9"),
                _ if profile.is_on_a_phone() => failed("8.2.1", "3.3"),
                _ if profile.is_other_order(&text(&body["matchingId"])) => failed("8.2.6", "3.10"),
                _ => {
                    profile.matching_id.clear();
                    profile.enter("Available");
                    success()
                }
            },
        }
    }
}

impl Peer for Smdp {
    const PATH: &'static str = "/gsma/rsp2/es2plus/";

    fn server(&self) -> &PeerServer {
        &self.server
    }

    fn read(&self, method: &str, target: &str, body: &Value) -> Option<(&'static str, String)> {
        let functions = ["downloadOrder", "confirmOrder", "cancelOrder", "getProfileStatus"];
        let function = functions.into_iter().find(|name| *name == target)?;
        let iccid = text(iccid_of(function, body));
        (method == "POST").then(|| (function, iccid.trim_end_matches('F').to_owned()))
    }

    fn execute(self: &Arc<Self>, call: &Call) -> Reply {
        let mut response = Smdp::execute(self, call);
        let edit_responses = lock(&self.db).edits.get(&call.subject).cloned();
        if let Some(edit_responses) = edit_responses {
            edit_responses(&mut response);
        }
        let mut reply = Reply::json(200, &response);
        let date = Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        reply.headers = vec![("X-Admin-Protocol", "gsma/rsp/v2.6.0".to_owned()), ("Date", date)];
        reply
    }
}

/// The ways in which a request violates the standard.
fn violations_of(call: &Call) -> Vec<String> {
    let (body, mut faults) = (&call.body, Vec::new());
    let fields: &[&str] = match call.operation {
        "downloadOrder" => &["header", "eid", "iccid", "profileType"],
        "confirmOrder" => &[
            "header",
            "iccid",
            "eid",
            "matchingId",
            "confirmationCode",
            "smdsAddress",
            "releaseFlag",
        ],
        "getProfileStatus" => &["header", "iccidList"],
        _ => &["header", "iccid", "eid", "matchingId", "finalProfileStatusIndicator"],
    };
    for (name, _) in body.as_object().into_iter().flatten() {
        if !fields.contains(&name.as_str()) {
            faults.push(format!("{name} is not a field"));
        }
    }
    for name in ["functionRequesterIdentifier", "functionCallIdentifier"] {
        if !body["header"][name].is_string() {
            faults.push(format!("header.{name}"));
        }
    }
    if !(18..=20).contains(&text(iccid_of(call.operation, body)).len()) {
        faults.push("iccid has 18 to 20 characters".to_owned());
    }
    let fits = match call.operation {
        "confirmOrder" => body["releaseFlag"].is_boolean(),
        "cancelOrder" => ["Available", "Unavailable"].contains(&text(&body["finalProfileStatusIndicator"]).as_str()),
        _ => true,
    };
    if !fits {
        faults.push("a mandatory field is missing".to_owned());
    }
    faults
}

/// The ICCID in the request of a function.
fn iccid_of<'a>(function: &str, body: &'a Value) -> &'a Value {
    match function {
        "getProfileStatus" => &body["iccidList"][0]["iccid"],
        _ => &body["iccid"],
    }
}

/// A date in whole seconds.
fn seconds(at: Timestamp) -> String {
    format!("{at:.0}")
}

/// An ICCID of 19 digits padded to 20 characters, as most peers write it.
fn padded(iccid: &str) -> String {
    format!("{iccid:F<20}")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn with(mut body: Value, field: &str, value: Value) -> Value {
    body[field] = value;
    body
}

fn success() -> Value {
    json!({"header": {"functionExecutionStatus": {"status": "Executed-Success"}}})
}

/// The response of an ES2+ function that rejects a call.
pub fn failed(subject: &str, reason: &str) -> Value {
    let data = json!({"subjectCode": subject, "reasonCode": reason, "message": "no"});
    let status = json!({"status": "Failed", "statusCodeData": data});
    json!({"header": {"functionExecutionStatus": status}})
}
