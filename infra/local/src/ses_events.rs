//! The event publishing of SES through SNS: sends events about the mails in the mailbox to mail-events.

use std::fs;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::StartError;
use crate::data_dir::{self, CHECKPOINTS};
use crate::durable;
use crate::functions::Functions;
use crate::mailbox::{Envelope, MailScenario, Mailbox};
use crate::request_id::request_id;

/// The interval at which the mailbox is polled.
const IDLE: Duration = Duration::from_millis(50);
/// The wait before an event that failed is sent again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Sends the events of each mail at least once.
pub(crate) struct SesEvents {
    mailbox: Mailbox,
    functions: Arc<Functions>,
    /// The id of the last mail whose events were sent.
    last_sent: Option<String>,
    checkpoint: Option<PathBuf>,
    scenario: Option<MailScenario>,
}

impl SesEvents {
    /// Continues after the last mail that the data directory records. The scenario says what becomes of all mails.
    pub(crate) fn new(
        mailbox: Mailbox,
        functions: Arc<Functions>,
        data_dir: Option<&Path>,
        scenario: Option<MailScenario>,
    ) -> Result<Self, StartError> {
        let checkpoint = data_dir
            .map(|data_dir| data_dir::file_in(data_dir, CHECKPOINTS, "mail-events"))
            .transpose()?;
        let last_sent = checkpoint.as_ref().and_then(|file| fs::read_to_string(file).ok());
        Ok(Self {
            mailbox,
            functions,
            last_sent,
            checkpoint,
            scenario,
        })
    }

    /// Sends events until `stop` completes.
    pub(crate) async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        loop {
            let wait = match self.mailbox.after(self.last_sent.as_deref()) {
                None => IDLE,
                Some(envelope) if self.send_events_of(&envelope).await => Duration::ZERO,
                Some(_) => RETRY_AFTER,
            };
            tokio::select! {
                biased;
                () = &mut stop => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Sends all events of one mail. Returns whether mail-events accepted them.
    async fn send_events_of(&mut self, envelope: &Envelope) -> bool {
        for event in events(envelope, self.scenario) {
            if let Err(error) = self.functions.invoke("mail-events", sns(&event)).await {
                tracing::warn!(%error, "an SES event will be sent again");
                return false;
            }
        }
        if let Some(file) = &self.checkpoint
            && let Err(error) = durable::write(file, envelope.id.as_bytes())
        {
            tracing::warn!(%error, "SES events will be sent again after a restart");
        }
        self.last_sent = Some(envelope.id.clone());
        true
    }
}

/// The events of a mail; there are none without a configuration set. As in SES, the addresses of the mailbox simulator
/// bounce, complain or send out-of-office replies. All other addresses accept the mail, unless the scenario is that
/// mails bounce.
fn events(envelope: &Envelope, scenario: Option<MailScenario>) -> Vec<Value> {
    if envelope.configuration_set.is_none() {
        return Vec::new();
    }
    let simulated = envelope
        .destinations
        .first()
        .and_then(|to| to.strip_suffix("@simulator.amazonses.com"));
    // SES reports an out-of-office reply as a transient bounce.
    let (kinds, bounce_type): (&[&str], _) = match (simulated, scenario) {
        (Some("bounce"), _) | (None, Some(MailScenario::Bounces)) => (&["Send", "Bounce"], "Permanent"),
        (None, Some(MailScenario::SoftBounces)) => (&["Send", "Bounce"], "Transient"),
        (Some("ooto"), _) => (&["Send", "Delivery", "Bounce"], "Transient"),
        (Some("complaint"), _) => (&["Send", "Delivery", "Complaint"], ""),
        _ => (&["Send", "Delivery"], ""),
    };
    let tags = envelope.tags.iter().map(|(name, value)| (name.clone(), json!([value])));
    let event = |kind: &&str| {
        json!({
            "eventType": kind,
            "mail": {
                "timestamp": envelope.sent_at.to_string(),
                "messageId": envelope.id,
                "source": envelope.source,
                "destination": envelope.destinations,
                "tags": tags.clone().collect::<serde_json::Map<_, _>>(),
            },
            kind.to_lowercase(): match *kind {
                "Bounce" => json!({"bounceType": bounce_type, "bounceSubType": "General"}),
                _ => json!({}),
            },
        })
    };
    kinds.iter().map(event).collect()
}

fn sns(message: &Value) -> String {
    let topic = "arn:aws:sns:eu-central-1:000000000000:simswap-mail";
    json!({"Records": [{
        "EventSource": "aws:sns",
        "EventVersion": "1.0",
        "EventSubscriptionArn": format!("{topic}:{}", request_id()),
        "Sns": {
            "Type": "Notification",
            "MessageId": request_id(),
            "TopicArn": topic,
            "Subject": "Amazon SES Email Event Notification",
            "Message": message.to_string(),
            "Timestamp": Timestamp::now().to_string(),
            "SignatureVersion": "1",
            "Signature": "",
            "SigningCertUrl": "",
            "UnsubscribeUrl": "",
            "MessageAttributes": {},
        },
    }]})
    .to_string()
}
