//! Everybody outside the service but its callers: the SM-DP+ and the network with their callbacks, SES with its events,
//! customers with their phones, and the rivals of an interrupted call. What callers request is in `workload`.

use domain::Iccid;
use jiff::Timestamp;
use serde_json::{Value, json};
use simulators::{Callback, CallbackMode};

use super::invocations::{Cause, Consumer};
use super::{EARLIER_LIFE, Event, Rival, START_TIME, Scheduler, shorten};
use crate::fakes::Mail;
use crate::sandbox::POINTS;
use crate::transport::Reply;
use crate::workload::{ATTACKER_EMAIL, PhoneAct, http_event};

/// Work that the network would do later than this is not simulated, in milliseconds.
const WORK_HORIZON: u64 = 30 * 86_400_000;

/// A callback that a peer has sent.
#[derive(Debug, Clone)]
pub(super) struct SentCallback {
    pub(super) callback: Callback,
    /// `None` for a forged or corrupted callback.
    pub(super) meaning: Option<Meaning>,
}

/// An activation code that a mail has brought to a customer.
#[derive(Debug, Clone)]
pub(super) struct MailedCode {
    pub(super) swap: String,
    pub(super) to: String,
    pub(super) code: String,
}

impl MailedCode {
    /// The code in a mail; `None` if the mail tells that the swap has failed.
    pub(super) fn of(mail: &Mail) -> Option<Self> {
        let text = String::from_utf8_lossy(&mail.raw)
            .replace("=\r\n", "")
            .replace("=24", "$");
        let start = text.find("LPA:1$")?;
        let code = text[start..].chars();
        Some(Self {
            swap: mail.activation.clone(),
            to: mail.to.clone(),
            code: code
                .take_while(|c| c.is_ascii_alphanumeric() || ":$.-".contains(*c))
                .collect(),
        })
    }

    pub(super) fn matching_id(&self) -> &str {
        self.code.split('$').nth(2).unwrap_or_default()
    }
}

/// What a peer reports with a callback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The profile with this ICCID is installed.
    Installed(String),
    /// The profile with this ICCID cannot be installed, for this reason.
    ProfileFailed(String, &'static str),
    /// The order of this swap is completed.
    Completed(String),
    /// Anything else.
    Other,
}

impl Meaning {
    fn of(callback: &Callback) -> Self {
        let body: Value = serde_json::from_str(&callback.body).unwrap_or_default();
        let order = &body["event"]["serviceOrder"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        if order["state"] == "completed" {
            return Self::Completed(text(&order["externalId"]));
        }
        let iccid = text(&body["iccid"]).trim_end_matches('F').to_owned();
        let status = &body["notificationPointStatus"];
        let succeeded = text(&status["status"]).starts_with("Executed");
        let codes = &status["statusCodeData"];
        let codes = [&codes["subjectCode"], &codes["reasonCode"]].map(|code| code.as_str().unwrap_or_default());
        match (body["notificationPointId"].as_u64(), codes) {
            (Some(4), _) if succeeded => Self::Installed(iccid),
            _ if succeeded => Self::Other,
            (_, ["8.2.7", "6.4"]) => Self::ProfileFailed(iccid, "codesUsedUp"),
            (_, ["8.8.5", "6.4"]) => Self::ProfileFailed(iccid, "downloadsUsedUp"),
            (_, ["8.1.1", _]) => Self::ProfileFailed(iccid, "wrongDevice"),
            (_, ["8.1", "4.8"]) => Self::ProfileFailed(iccid, "noRoom"),
            _ => Self::Other,
        }
    }
}

impl Scheduler {
    /// Publishes SES's events about a mail that it accepted: in any order, and perhaps before its response.
    pub(super) fn send_ses_events(&mut self, mail: &Mail) {
        let id = format!("mail-{}", self.fakes.mails().len());
        let soft = self.plan.faults.quirks.soft_bounces;
        let soft = soft > 0 && self.rng.u32(..1000) < soft;
        let kinds: &[(&str, &str)] = match self.rng.u8(..8) {
            0 => &[("Send", ""), ("Bounce", "Permanent")],
            1 => &[("Send", ""), ("Delivery", ""), ("Complaint", "")],
            _ if soft => &[("Send", ""), ("Delivery", ""), ("Bounce", "Transient")],
            _ => &[("Send", ""), ("Delivery", "")],
        };
        self.monitor.record_ses_events(mail, kinds);
        for (kind, bounce) in kinds {
            let tags = json!({"activation": [mail.activation], "attempt": [mail.attempt]});
            let mut message = json!({"eventType": kind, "mail": {"messageId": id, "tags": tags}});
            if !bounce.is_empty() {
                message["bounce"] = json!({"bounceType": bounce, "bounceSubType": "General"});
            }
            let event = json!({"Records": [{"Sns": {"Message": message.to_string()}}]});
            self.ses_events.push(event.clone());
            loop {
                let within = [20, 2_000, 300_000][self.rng.usize(..3)];
                let delay = self.rng.u64(1..within);
                self.schedule_in(delay, Event::PublishMailReport(event.clone(), 0));
                if !self.chance(self.plan.faults.repeat) {
                    break;
                }
            }
        }
    }

    /// Invokes `network-events` with a callback.
    pub(super) fn deliver_callback(&mut self, mut sent: SentCallback, attempts: u32) {
        let callback = &mut sent.callback;
        let dropped = self
            .plan
            .mutant
            .is_some_and(|mutant| mutant.alter_callback(&self.fakes, callback, &self.clock));
        if dropped {
            self.trace(|| format!("callback dropped: {}", shorten(callback.body.as_bytes())));
            let now = self.now();
            self.monitor
                .record_accepted_callback(&self.fakes, sent.meaning.as_ref(), now);
            return;
        }
        let path = callback.url.strip_prefix("http://callbacks");
        let path = path.expect("callbacks come to us").to_owned();
        let description = shorten(callback.body.as_bytes());
        let mut event = http_event("POST", &path, None);
        event["body"] = callback.body.clone().into();
        let cause = Cause::Callback(sent, attempts);
        self.invoke("network-events", event, cause, &description);
    }

    /// A customer uses the activation code in a mail.
    pub(super) fn use_phone(&mut self, mailed: &MailedCode, act: PhoneAct) {
        let code = &mailed.code;
        // The attacker does not know the confirmation code.
        let confirmation_code = match mailed.to.as_str() {
            ATTACKER_EMAIL => None,
            _ => self.monitor.confirmation_code(mailed.matching_id()),
        };
        let confirmation_code = confirmation_code.as_deref();
        let smdp = &self.fakes.smdp;
        smdp.send_callbacks(match act {
            PhoneAct::InstallUnreported | PhoneAct::FetchUnreported => CallbackMode::Lost,
            _ if self.rng.bool() => CallbackMode::V2,
            _ => CallbackMode::V3,
        });
        let outcome = match act {
            PhoneAct::Install | PhoneAct::InstallUnreported => smdp.install(code, confirmation_code),
            PhoneAct::Fetch | PhoneAct::FetchUnreported => smdp.download(code, confirmation_code),
            PhoneAct::Mistype => smdp.install(code, Some("wrong")),
            PhoneAct::Fail(fault) => smdp.fail_install(code, confirmation_code, fault),
        };
        smdp.send_callbacks(CallbackMode::V2);
        let now = self.now();
        self.monitor
            .record_phone(&self.fakes, &mailed.swap, mailed.matching_id(), now);
        let to = &mailed.to;
        self.trace(|| format!("the phone of {to}: {act:?}: {outcome:?}"));
        if let (PhoneAct::Install, Ok(iccid)) = (act, outcome) {
            for point in [POINTS[1], POINTS[2], POINTS[0]] {
                if self.rng.u8(..6) == 0 {
                    let within = [10_000, 7_200_000][self.rng.usize(..2)];
                    let after = self.rng.u64(1_000..within);
                    self.schedule_in(after, Event::ReportPoint(iccid.clone(), point));
                }
            }
        }
        self.send_callbacks();
    }

    /// The SM-DP+ reports one of its own steps of an installed profile.
    pub(super) fn report_point(&mut self, iccid: &Iccid, point: u32) {
        let reported = self.fakes.smdp.report_point(iccid, point);
        self.trace(|| format!("the SM-DP+ reports step {point} of {iccid}: {reported:?}"));
        self.send_callbacks();
    }

    /// Lets the network do what is due, and schedules its next work.
    pub(super) fn advance_network(&mut self) {
        let next = self.fakes.network.work_now().expect("the database");
        if let Some(due) = next {
            let begin: Timestamp = START_TIME.parse().expect("a valid time");
            let at = due.duration_since(begin).as_millis();
            let at = u64::try_from(at).unwrap_or(0).max(self.now() + 1);
            if at < self.now() + WORK_HORIZON {
                self.schedule_at(at, Event::AdvanceNetwork);
            }
        }
        self.send_callbacks();
    }

    /// Schedules the callbacks that the peers have queued; some of them are lost, repeated or corrupted.
    pub(super) fn send_callbacks(&mut self) {
        let of_smdp = self.fakes.smdp.take_callbacks().expect("the database");
        let of_network = self.fakes.network.take_callbacks().expect("the database");
        let [smdp, network] = self.plan.faults.quirks.clock_skews;
        let of_smdp = of_smdp.into_iter().map(|callback| (callback, smdp));
        let of_network = of_network.into_iter().map(|callback| (callback, network));
        for (callback, ahead) in of_smdp.chain(of_network).collect::<Vec<_>>() {
            let meaning = Meaning::of(&callback);
            if self.chance(self.plan.faults.lost) {
                self.trace(|| format!("callback lost: {}", shorten(callback.body.as_bytes())));
                self.monitor.record_lost_callback(&meaning);
                continue;
            }
            let mut body: Value = serde_json::from_str(&callback.body).unwrap_or_default();
            skew_dates(&mut body, ahead);
            let original = SentCallback {
                callback: Callback {
                    url: callback.url.clone(),
                    body: body.to_string(),
                },
                meaning: Some(meaning),
            };
            self.sent_callbacks.push(original.clone());
            loop {
                let sent = self.spell_callback(&original);
                let delay = self.random_callback_delay();
                self.schedule_in(delay, Event::SendCallback(sent, 0));
                if !self.chance(self.plan.faults.repeat) {
                    break;
                }
            }
            if self.chance(self.plan.faults.corruption) {
                let callback = self.corrupt_callback(&callback);
                let sent = SentCallback {
                    callback,
                    meaning: None,
                };
                let delay = self.random_delay();
                self.schedule_in(delay, Event::SendCallback(sent, 0));
            }
        }
    }

    /// The callback with the peer's spelling.
    pub(super) fn spell_callback(&mut self, sent: &SentCallback) -> SentCallback {
        let mut body: Value = serde_json::from_str(&sent.callback.body).unwrap_or_default();
        let quirks = &self.plan.faults.quirks;
        let text = quirks.spell_callback(&mut self.rng, &mut body);
        SentCallback {
            callback: Callback {
                url: sent.callback.url.clone(),
                body: text,
            },
            meaning: sent.meaning.clone(),
        }
    }

    /// The network reports that a held order has started.
    pub(super) fn announce_early_start(&mut self, reply: &Reply) {
        let mut order: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        if order["state"] != "held" {
            return;
        }
        order["state"] = "inProgress".into();
        let body = json!({
            "eventId": "early", "eventType": "ServiceOrderStateChangeEvent",
            "event": {"serviceOrder": order}
        });
        let listener = peers::tmf641::LISTENER;
        let sent = SentCallback {
            callback: Callback {
                url: format!("http://callbacks{}{listener}", peers::tmf641::PATH),
                body: body.to_string(),
            },
            meaning: Some(Meaning::Other),
        };
        let sent = self.spell_callback(&sent);
        let delay = self.random_callback_delay();
        self.schedule_in(delay, Event::SendCallback(sent, 0));
    }

    /// Schedules a callback that no peer sent for this swap.
    pub(super) fn send_forged_callback(&mut self, path: &str, body: &Value) {
        let callback = Callback {
            url: format!("http://callbacks{path}"),
            body: body.to_string(),
        };
        let delay = self.rng.u64(100..600_000);
        let sent = SentCallback {
            callback,
            meaning: None,
        };
        self.schedule_in(delay, Event::SendCallback(sent, 0));
    }

    /// A copy of a callback with one field changed, so that it reports nothing about this swap.
    pub(super) fn corrupt_callback(&mut self, sent: &Callback) -> Callback {
        let mut body: Value = serde_json::from_str(&sent.body).unwrap_or_default();
        let order = &mut body["event"]["serviceOrder"];
        if order.is_object() {
            match self.rng.u8(..4) {
                // An order that does not belong to this swap.
                0 => {
                    order["id"] = "9999".into();
                    order["state"] = "completed".into();
                }
                1 => order["externalId"] = "01NOBODYKNOWSTHISONE000000".into(),
                2 => order["state"] = "flying".into(),
                _ => order["state"] = "pending".into(),
            }
        } else {
            match self.rng.u8(..4) {
                0 => body["iccid"] = "8931086000000009999F".into(),
                // The date is in an earlier life of this ICCID.
                1 => body["timestamp"] = EARLIER_LIFE.into(),
                // A step that has no meaning.
                2 => body["notificationPointId"] = 9.into(),
                _ => body["notificationPointId"] = "four".into(),
            }
        }
        Callback {
            url: sent.url.clone(),
            body: body.to_string(),
        }
    }

    /// Starts a rival of the call that the plan interrupts.
    pub(super) fn start_rival(&mut self, rival: Rival) {
        self.trace(|| format!("rival: {rival:?}"));
        match rival {
            Rival::Wake => {
                for (pk, sk) in self.monitor.row_keys() {
                    if let Some(consumer) = Consumer::for_row(&sk) {
                        let event = edge::records_of([(pk.as_str(), sk.as_str())]);
                        let event = serde_json::from_str(&event).expect("it is JSON");
                        self.schedule_in(1, Event::Wake(consumer, event, 0));
                    }
                }
            }
            Rival::Callbacks => {
                for callback in self.sent_callbacks.clone() {
                    self.schedule_in(1, Event::SendCallback(callback, 0));
                }
            }
            Rival::SesEvents => {
                for event in self.ses_events.clone() {
                    self.schedule_in(1, Event::PublishMailReport(event, 0));
                }
            }
            Rival::Sweep => self.invoke("sweep-swaps", json!({}), Cause::Sweep, ""),
            Rival::Caller(request) => {
                self.plan.requests.push((*request, Vec::new()));
                let n = self.plan.requests.len() - 1;
                self.schedule_in(1, Event::SendRequest(n));
            }
        }
    }
}

/// Shifts the dates in a callback, as if the peer's clock were ahead of ours by this many seconds.
fn skew_dates(body: &mut Value, ahead: i64) {
    if ahead == 0 {
        return;
    }
    let shift = |date: &mut Value| {
        let time: Option<Timestamp> = date.as_str().and_then(|text| text.parse().ok());
        if let Some(time) = time {
            *date = (time + jiff::SignedDuration::from_secs(ahead)).to_string().into();
        }
    };
    match body.get_mut("timestamp") {
        Some(date) => shift(date),
        None => {
            for name in ["orderDate", "startDate", "completionDate", "cancellationDate"] {
                if let Some(date) = body["event"]["serviceOrder"].get_mut(name) {
                    shift(date);
                }
            }
        }
    }
}
