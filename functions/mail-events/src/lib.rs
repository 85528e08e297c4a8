//! Handles the events that SES publishes about mails through SNS: each is written into its mail's row. Not here:
//! sending mails (deliver-esim).

use std::collections::BTreeMap;

use domain::{ActivationId, DeliveryFact, MailDeadlines, MailReport, apply_delivery};
use edge::{ClockAndRng, Metric, SettingError, Settings, record_activation, span_of_event};
use lambda_runtime::LambdaEvent;
use serde::Deserialize;
use store::{Saved, Store, StoreError, retry_on_conflict};
use tracing::Instrument;

/// The handler with its clients and settings. Built once per process.
#[derive(Debug)]
pub struct MailEvents {
    store: Store,
    clock: ClockAndRng,
    deadlines: MailDeadlines,
}

/// An SNS event, reduced to the fields that are used.
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

/// An event that SES publishes, reduced to the fields that are used.
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
    /// Reads the deadlines of mails.
    pub fn new(store: Store, clock: ClockAndRng, settings: &Settings) -> Result<Self, SettingError> {
        Ok(Self {
            store,
            clock,
            deadlines: settings.mail_deadlines()?,
        })
    }

    /// Writes every report of an event. If one fails, SNS delivers the event again.
    pub async fn handle(&self, event: LambdaEvent<SnsEvent>) -> Result<(), StoreError> {
        for record in event.payload.records {
            let span = span_of_event(&event.context);
            self.handle_message(&record.sns.message).instrument(span).await?;
        }
        Ok(())
    }

    async fn handle_message(&self, message: &str) -> Result<(), StoreError> {
        match serde_json::from_str(message) {
            Ok(event) => self.write_report(event).await,
            // The error's text may contain an e-mail address, so only the column is logged.
            Err(error) => {
                let column = error.column();
                tracing::warn!(column, "an SES event cannot be parsed");
                Ok(())
            }
        }
    }

    async fn write_report(&self, event: MailEvent) -> Result<(), StoreError> {
        let kind = event.event_type;
        let bounce = event.bounce.and_then(|bounce| bounce.bounce_type);
        let report = report_for(&kind, bounce.as_deref());
        let (Some(report), Some((id, number))) = (report, event.mail.delivery()) else {
            tracing::info!(
                kind,
                "an SES event is ignored: it has another type or is not about our mail"
            );
            return Ok(());
        };
        record_activation(&id);
        let fact = DeliveryFact::Reported {
            message_id: event.mail.message_id,
            report,
        };
        retry_on_conflict(|| async {
            let Some(mail) = self.store.delivery(&id, number).await? else {
                tracing::info!(mail = number, "no mail has this number");
                return Ok(Some(()));
            };
            let Some(after) = apply_delivery(&mail, &fact, &self.deadlines, self.clock.now()) else {
                return Ok(Some(()));
            };
            if self.store.save_delivery(&mail, &after).await? != Saved::Written {
                return Ok(None);
            }
            tracing::info!(mail = number, ?report, "SES reported on a mail");
            if let Some(metric) = Metric::of_mail(&mail, &after) {
                metric.record();
            }
            Ok(Some(()))
        })
        .await
    }
}

impl Mail {
    /// The mail's activation and its number within the swap, from the tags that it was sent with.
    fn delivery(&self) -> Option<(ActivationId, u32)> {
        let tag = |name| self.tags.get(name)?.first();
        let id = ActivationId::parse(tag("activation")?).ok()?;
        let (number, _) = tag("attempt")?.split_once('-')?;
        Some((id, number.parse().ok()?))
    }
}

/// Whether an event of this type is written. `infra/template.yaml` subscribes to exactly these types.
pub fn acts_on(event_type: &str) -> bool {
    report_for(event_type, None).is_some()
}

/// The report in an event. `Reject` counts as a bounce: SES accepted the mail but does not deliver it. A bounce is
/// final unless its type is `Transient`.
fn report_for(event_type: &str, bounce_type: Option<&str>) -> Option<MailReport> {
    match (event_type, bounce_type) {
        ("Send", _) => Some(MailReport::Accepted),
        ("Delivery", _) => Some(MailReport::Delivered),
        ("Complaint", _) => Some(MailReport::Complained),
        ("Bounce", Some("Transient")) => Some(MailReport::BouncedForNow),
        ("Bounce" | "Reject", _) => Some(MailReport::Bounced),
        _ => None,
    }
}
