//! What SES tells of a mail, by way of SNS: it is written into the mail's row. What follows from it is done elsewhere.

use std::collections::BTreeMap;

use domain::{ActivationId, DeliveryFact, MailDeadlines, MailReport, apply_delivery};
use edge::{ClockAndRng, Metric, SettingError, Settings, record_activation, span_of_event};
use lambda_runtime::LambdaEvent;
use serde::Deserialize;
use store::{Saved, Store, StoreError};
use tracing::Instrument;

/// How often a report is written anew because the row changed under it.
const ROUNDS: usize = 8;

/// The function with all it needs, built once a process.
#[derive(Debug)]
pub struct MailEvents {
    store: Store,
    ambient: ClockAndRng,
    patience: MailDeadlines,
}

/// An event of SNS, as far as it matters here.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SnsEvent {
    records: Vec<SnsRecord>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SnsRecord {
    sns: SnsMessage,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SnsMessage {
    message: String,
}

/// An event of SES's event publishing, as far as it matters here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MailEvent {
    event_type: String,
    mail: Mail,
    bounce: Option<Bounce>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bounce {
    bounce_type: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mail {
    message_id: String,
    #[serde(default)]
    tags: BTreeMap<String, Vec<String>>,
}

impl MailEvents {
    /// Reads the patience with mails.
    pub fn new(store: Store, ambient: ClockAndRng, settings: &Settings) -> Result<Self, SettingError> {
        Ok(Self {
            store,
            ambient,
            patience: settings.patience()?,
        })
    }

    /// Writes all that an event tells. SNS repeats an event that fails.
    pub async fn handle(&self, event: LambdaEvent<SnsEvent>) -> Result<(), StoreError> {
        for record in event.payload.records {
            let span = span_of_event(&event.context);
            self.read(&record.sns.message).instrument(span).await?;
        }
        Ok(())
    }

    async fn read(&self, message: &str) -> Result<(), StoreError> {
        match serde_json::from_str(message) {
            Ok(told) => self.write(told).await,
            // Its text may hold an address: where it is wrong is enough.
            Err(error) => {
                let column = error.column();
                tracing::warn!(column, "an event of SES is not understood");
                Ok(())
            }
        }
    }

    async fn write(&self, told: MailEvent) -> Result<(), StoreError> {
        let kind = told.event_type;
        let bounce = told.bounce.and_then(|bounce| bounce.bounce_type);
        let report = report(&kind, bounce.as_deref());
        let (Some(report), Some((id, number))) = (report, told.mail.delivery()) else {
            tracing::info!(kind, "an event of SES is about no mail of ours");
            return Ok(());
        };
        record_activation(&id);
        let fact = DeliveryFact::Reported {
            message_id: told.mail.message_id,
            report,
        };
        for _ in 0..ROUNDS {
            let Some(mail) = self.store.delivery(&id, number).await? else {
                tracing::info!(mail = number, "there is no such mail");
                return Ok(());
            };
            let Some(after) = apply_delivery(&mail, &fact, &self.patience, self.ambient.now()) else {
                return Ok(());
            };
            if self.store.save_delivery(&mail, &after).await? == Saved::Written {
                tracing::info!(mail = number, ?report, "SES told of a mail");
                if let Some(metric) = Metric::of_mail(&mail, &after) {
                    metric.record();
                }
                return Ok(());
            }
        }
        Err(StoreError::Unavailable("the row keeps changing".into()))
    }
}

impl Mail {
    /// Which mail it is, by the tags that it was sent with.
    fn delivery(&self) -> Option<(ActivationId, u32)> {
        let tag = |name| self.tags.get(name)?.first();
        let id = ActivationId::parse(tag("activation")?).ok()?;
        let (number, _) = tag("attempt")?.split_once('-')?;
        Some((id, number.parse().ok()?))
    }
}

/// Whether an event of this type tells something of a mail; the template subscribes to these alone.
pub fn acts_on(event_type: &str) -> bool {
    report(event_type, None).is_some()
}

/// A mail that SES rejects after it took it does not arrive either. A bounce is for good unless SES says that it is not.
fn report(event_type: &str, bounce_type: Option<&str>) -> Option<MailReport> {
    match (event_type, bounce_type) {
        ("Send", _) => Some(MailReport::Accepted),
        ("Delivery", _) => Some(MailReport::Delivered),
        ("Complaint", _) => Some(MailReport::Complained),
        ("Bounce", Some("Transient")) => Some(MailReport::BouncedForNow),
        ("Bounce" | "Reject", _) => Some(MailReport::Bounced),
        _ => None,
    }
}
