//! An SM-DP+ that takes orders by ES2+ (GSMA SGP.22 v2). The JSON is written by hand from the standard's field tables.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Act, Call, Edit, Front, Peer, Reply, lock, serve};

/// The host name that it gives for phones.
const ADDRESS: &str = "smdp.foreign.example";

/// A profile in the book. The states are those of SGP.22 section 3.1.6.
#[derive(Debug, Clone, Default)]
struct Profile {
    state: &'static str,
    matching_id: String,
}

#[derive(Default)]
struct Db {
    profiles: HashMap<String, Profile>,
    /// Changes the answers about one profile.
    dresses: HashMap<String, Edit<Value>>,
    operator: String,
}

/// The SM-DP+, which runs until the test ends.
#[derive(Clone)]
pub struct ForeignSmdp(Arc<Smdp>);

struct Smdp {
    front: Front,
    book: Mutex<Db>,
}

impl ForeignSmdp {
    /// Starts it.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn start() -> Self {
        let (listener, front) = Front::listen().await;
        let smdp = Arc::new(Smdp {
            front,
            book: Mutex::default(),
        });
        tokio::spawn(serve(listener, smdp.clone()));
        Self(smdp)
    }

    /// Its base URL.
    pub fn url(&self) -> &str {
        &self.0.front.url
    }

    /// From now on callbacks go below this URL.
    pub fn connect(&self, operator: &str) {
        operator.clone_into(&mut lock(&self.0.book).operator);
    }

    /// What it does with the calls about this ICCID.
    pub fn rule(&self, iccid: &str, rule: impl Fn(&Call) -> Act + Send + Sync + 'static) {
        lock(&self.0.front.rules).insert(iccid.to_owned(), Arc::new(rule));
    }

    /// From now on it complies with all calls about this ICCID.
    pub fn comply(&self, iccid: &str) {
        lock(&self.0.front.rules).remove(iccid);
        lock(&self.0.book).dresses.remove(iccid);
    }

    /// Changes each of its answers about this ICCID.
    pub fn dress(&self, iccid: &str, dress: Edit<Value>) {
        lock(&self.0.book).dresses.insert(iccid.to_owned(), dress);
    }

    /// The calls of this function about this ICCID.
    pub fn calls(&self, what: &str, iccid: &str) -> Vec<Call> {
        self.0.front.calls(what, iccid)
    }

    /// Where requests broke the standard.
    pub fn faults(&self) -> Vec<String> {
        lock(&self.0.front.faults).clone()
    }

    /// The state of a profile; `Available` if nothing was ever ordered.
    pub fn state(&self, iccid: &str) -> &'static str {
        let book = lock(&self.0.book);
        let state = book.profiles.get(iccid).map_or("", |profile| profile.state);
        if state.is_empty() { "Available" } else { state }
    }

    /// Moves a profile in the book, and says nothing.
    pub fn set(&self, iccid: &str, state: &'static str) {
        let mut book = lock(&self.0.book);
        book.profiles.entry(iccid.to_owned()).or_default().state = state;
    }

    /// `handleDownloadProgressInfo` that this notification point went well now.
    pub fn progress(&self, iccid: &str, point: u32) -> Value {
        let now = format!("{:.0}", Timestamp::now());
        json!({
            "header": {"functionRequesterIdentifier": ADDRESS, "functionCallIdentifier": format!("N-{point}")},
            "eid": "89049032123451234512345678901235",
            "iccid": padded(iccid),
            "profileType": "CONSUMER-1",
            "timestamp": now,
            "notificationPointId": point,
            "notificationPointStatus": {"status": "Executed-Success"},
        })
    }

    /// Sends that after a change; gives the status of the answer.
    pub async fn notify_progress(&self, iccid: &str, point: u32, change: impl FnOnce(&mut Value)) -> u16 {
        let mut body = self.progress(iccid, point);
        change(&mut body);
        self.notify("handleDownloadProgressInfo", &body.to_string()).await
    }

    /// Sends a callback with this body; gives the status of the answer.
    pub async fn notify(&self, function: &str, body: &str) -> u16 {
        let operator = lock(&self.0.book).operator.clone();
        let url = format!("{operator}{}{function}", Smdp::PATH);
        // As every SM-DP+ does with what is not taken now.
        for _ in 0..5 {
            let status = self.0.front.send(&url, body.as_bytes().to_vec()).await;
            if status != 503 {
                return status;
            }
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
        503
    }

    /// A phone fetches the profile and installs it.
    ///
    /// # Panics
    /// When there is nothing to be fetched, or a report is not taken.
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
    fn carry_out(&self, call: &Call) -> Value {
        let body = &call.body;
        for fault in faults_of(call) {
            self.front.fault(format!("{}: {fault}: {body}", call.what));
        }
        let mut book = lock(&self.book);
        let profile = book.profiles.entry(call.of.clone()).or_default();
        match call.what {
            "downloadOrder" => {
                if !["", "Available"].contains(&profile.state) {
                    return failed("8.2.1", "3.3");
                }
                profile.state = "Allocated";
                with(success(), "iccid", json!(padded(&call.of)))
            }
            "confirmOrder" => match profile.state {
                "Allocated" => {
                    profile.state = "Released";
                    profile.matching_id = text(&body["matchingId"]);
                    let answer = with(success(), "matchingId", body["matchingId"].clone());
                    with(answer, "smdpAddress", json!(ADDRESS))
                }
                "" | "Available" => failed("8.2.1", "3.9"),
                _ if profile.matching_id == text(&body["matchingId"]) => failed("8.2.6", "3.3"),
                _ => failed("8.2.6", "3.10"),
            },
            _ => match profile.state {
                "" | "Available" => failed("8.2.1", "3.9"),
                "Downloaded" | "Installed" => failed("8.2.1", "3.3"),
                _ => {
                    *profile = Profile {
                        state: "Available",
                        ..Profile::default()
                    };
                    success()
                }
            },
        }
    }
}

impl Peer for Smdp {
    const PATH: &'static str = "/gsma/rsp2/es2plus/";

    fn front(&self) -> &Front {
        &self.front
    }

    fn read(&self, method: &str, target: &str, body: &Value) -> Option<(&'static str, String)> {
        let functions = ["downloadOrder", "confirmOrder", "cancelOrder"];
        let function = functions.into_iter().find(|name| *name == target)?;
        let iccid = text(&body["iccid"]);
        (method == "POST").then(|| (function, iccid.trim_end_matches('F').to_owned()))
    }

    fn carry_out(self: &Arc<Self>, call: &Call) -> Reply {
        let mut answer = Smdp::carry_out(self, call);
        let dress = lock(&self.book).dresses.get(&call.of).cloned();
        if let Some(dress) = dress {
            dress(&mut answer);
        }
        let mut reply = Reply::json(200, &answer);
        reply.headers = vec![("X-Admin-Protocol", "gsma/rsp/v2.6.0".to_owned())];
        reply
    }
}

/// What of a request is not as the standard has it.
fn faults_of(call: &Call) -> Vec<String> {
    let (body, mut faults) = (&call.body, Vec::new());
    let fields: &[&str] = match call.what {
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
    if !(18..=20).contains(&text(&body["iccid"]).len()) {
        faults.push("iccid has 18 to 20 characters".to_owned());
    }
    let fits = match call.what {
        "confirmOrder" => body["releaseFlag"].is_boolean(),
        "cancelOrder" => ["Available", "Unavailable"].contains(&text(&body["finalProfileStatusIndicator"]).as_str()),
        _ => true,
    };
    if !fits {
        faults.push("a mandatory field is missing".to_owned());
    }
    faults
}

/// 20 characters, as most write a number of 19.
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

/// ES2+'s way to say no.
pub fn failed(subject: &str, reason: &str) -> Value {
    let data = json!({"subjectCode": subject, "reasonCode": reason, "message": "no"});
    let status = json!({"status": "Failed", "statusCodeData": data});
    json!({"header": {"functionExecutionStatus": status}})
}
