//! Plays SES's event publishing by way of SNS: what becomes of the mails in the mail box is told to `mail-events`.

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
use crate::mailbox::{Envelope, Mailbox};
use crate::request_id::request_id;

/// Between two looks into the mail box, and before an event that failed is told again.
const IDLE: Duration = Duration::from_millis(50);
const AGAIN: Duration = Duration::from_secs(1);

/// Tells of mails, of each at least once.
pub(crate) struct SesEvents {
    mailbox: Mailbox,
    functions: Arc<Functions>,
    /// The last mail that was told of.
    told: Option<String>,
    checkpoint: Option<PathBuf>,
}

impl SesEvents {
    /// Goes on where the last one of this data directory ended.
    pub(crate) fn new(
        mailbox: Mailbox,
        functions: Arc<Functions>,
        data_dir: Option<&Path>,
    ) -> Result<Self, StartError> {
        let checkpoint = match data_dir {
            None => None,
            Some(data_dir) => {
                let directory = data_dir.join(CHECKPOINTS);
                data_dir::create(&directory)?;
                Some(directory.join("mail-events"))
            }
        };
        let told = checkpoint.as_ref().and_then(|file| fs::read_to_string(file).ok());
        Ok(Self {
            mailbox,
            functions,
            told,
            checkpoint,
        })
    }

    /// Tells until `stop` is ready.
    pub(crate) async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        loop {
            let wait = match self.mailbox.after(self.told.as_deref()) {
                None => IDLE,
                Some(envelope) if self.tell(&envelope).await => Duration::ZERO,
                Some(_) => AGAIN,
            };
            tokio::select! {
                biased;
                () = &mut stop => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Tells all of one mail; whether it was heard.
    async fn tell(&mut self, envelope: &Envelope) -> bool {
        for event in events(envelope) {
            if let Err(error) = self.functions.invoke("mail-events", sns(&event)).await {
                tracing::warn!(%error, "an event of SES is told again");
                return false;
            }
        }
        if let Some(file) = &self.checkpoint
            && let Err(error) = durable::write(file, envelope.id.as_bytes())
        {
            tracing::warn!(%error, "events of SES will be told again");
        }
        self.told = Some(envelope.id.clone());
        true
    }
}

/// What SES tells of a mail that was sent with a configuration set. As at SES, the addresses of its mailbox simulator
/// bounce, complain and are out of office; all others take what comes.
fn events(envelope: &Envelope) -> Vec<Value> {
    if envelope.configuration_set.is_none() {
        return Vec::new();
    }
    let simulated = envelope
        .destinations
        .first()
        .and_then(|to| to.strip_suffix("@simulator.amazonses.com"));
    let kinds: &[&str] = match simulated {
        Some("bounce") => &["Send", "Bounce"],
        Some("ooto") => &["Send", "Delivery", "Bounce"],
        Some("complaint") => &["Send", "Delivery", "Complaint"],
        _ => &["Send", "Delivery"],
    };
    // An out-of-office reply is a bounce too, but not for good.
    let bounce_type = match simulated {
        Some("ooto") => "Transient",
        _ => "Permanent",
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
