//! Sends the eSIM's QR code by e-mail: nothing is sent without a claim that is written, and what came of it is written
//! after. The only one that calls SES.

mod mail;
mod pace;
mod qr;
mod send;
mod words;

use aws_lambda_events::event::dynamodb::Event;
use aws_lambda_events::streams::DynamoDbEventResponse;
use domain::{
    ActivationCode, ActivationId, Delivery, DeliveryFact, DeliveryState, DeliveryStep, MailDeadlines, SendOutcome,
    apply_delivery, next_delivery,
};
use edge::{ClockAndRng, Metric, SettingError, Settings, for_each_row, record_activation};
use lambda_runtime::LambdaEvent;
use store::{ChangedRow, Saved, Store, StoreError, StoredSwap};
use tokio::time::Instant;

pub use mail::{Letter, Sender, compose};
pub use pace::{Pace, WITHIN};
pub use qr::{QrImage, draw};

use crate::pace::Turn;
use crate::send::Post;

/// The function with all it needs, built once a process.
#[derive(Debug)]
pub struct DeliverEsim {
    store: Store,
    post: Post,
    pace: Pace,
    from: Sender,
    brand: String,
    ambient: ClockAndRng,
    patience: MailDeadlines,
}

impl DeliverEsim {
    /// Reads `MAIL_FROM`, `BRAND`, `MAIL_CONFIGURATION_SET` (optional), `LEASE`, the pace of mails and the patience with
    /// them.
    pub fn new(
        store: Store,
        ses: &aws_sdk_ses::Config,
        ambient: ClockAndRng,
        settings: &Settings,
    ) -> Result<Self, SettingError> {
        let patience = settings.patience()?;
        let set = settings.text_or("MAIL_CONFIGURATION_SET", "");
        Ok(Self {
            store,
            post: Post::new(ses, patience.lease, set),
            pace: Pace::new(settings.mail_pace()?),
            from: settings.parsed("MAIL_FROM", Sender::parse)?,
            brand: settings.text("BRAND")?,
            ambient,
            patience,
        })
    }

    /// Takes every mail of the batch as far as it goes now. Those whose turn would come too late for this invocation stay
    /// due, so the sweeper finds them.
    pub async fn handle(&self, event: LambdaEvent<Event>) -> DynamoDbEventResponse {
        let until = Instant::now() + WITHIN;
        for_each_row(event, async |pk, sk| match ChangedRow::from_keys(&pk, &sk) {
            ChangedRow::Delivery(id, number) => self.deliver(&id, number, until).await,
            _ => Ok(()),
        })
        .await
    }

    async fn deliver(&self, id: &ActivationId, number: u32, until: Instant) -> Result<(), StoreError> {
        record_activation(id);
        let mut has_turn = false;
        loop {
            let Some(swap) = self.store.swap_with_deliveries(id).await? else {
                return Ok(());
            };
            let Some(mail) = swap.deliveries.iter().find(|mail| mail.number == number) else {
                return Ok(());
            };
            match next_delivery(mail, self.ambient.now()) {
                DeliveryStep::Rest => return Ok(()),
                DeliveryStep::WaitUntil(_) => {
                    self.save(mail, &DeliveryFact::Postponed).await?;
                    return Ok(());
                }
                DeliveryStep::Doubt => {
                    tracing::warn!(mail = number, "a mail's fate is unknown");
                    self.save(mail, &DeliveryFact::Lapsed).await?;
                }
                DeliveryStep::Unheard => {
                    tracing::warn!(mail = number, "SES never told of a mail");
                    self.save(mail, &DeliveryFact::Unheard).await?;
                }
                DeliveryStep::Send if mail.is_needed(&swap.activation) => {
                    // Before the claim, which holds for one call. The row may change meanwhile, so it is read again.
                    if !has_turn {
                        match self.pace.wait(until).await {
                            Turn::Now => has_turn = true,
                            Turn::Waited => {
                                has_turn = true;
                                continue;
                            }
                            Turn::TooLate => {
                                tracing::info!(mail = number, "a mail is left for the next sweep");
                                return Ok(());
                            }
                        }
                    }
                    if self.claim_and_send(&swap, mail).await? {
                        return Ok(());
                    }
                }
                DeliveryStep::Send => {
                    self.save(mail, &DeliveryFact::Void).await?;
                }
            }
        }
    }

    /// Whether it was tried: after that the mail waits, whatever came of it. A claim that another won leaves it undone.
    async fn claim_and_send(&self, swap: &StoredSwap, mail: &Delivery) -> Result<bool, StoreError> {
        // All that can fail on our side comes before the claim: a claim that lapses is a mail in doubt.
        let a = &swap.activation;
        let message = compose(&Letter {
            from: &self.from,
            to: &mail.to,
            language: mail.language,
            phone: &a.phone,
            code: &ActivationCode::new(
                a.smdp.clone().ok_or(StoreError::Corrupt("smdp"))?,
                self.store.matching_id(swap).await?,
                a.requested.has_code,
            ),
            brand: &self.brand,
            activation: &a.id,
            delivery: mail.number,
            sent_at: self.ambient.now(),
        });
        let token = self.ambient.token();
        let deadline = self.ambient.now() + self.patience.lease;
        let claim = DeliveryFact::Claimed {
            token: token.clone(),
            deadline,
        };
        let Some(claimed) = self.save(mail, &claim).await? else {
            return Ok(false);
        };
        let outcome = self.post.send(&claimed, message).await;
        tracing::info!(mail = mail.number, ?outcome, "a mail was handed to SES");
        match outcome {
            SendOutcome::Sent(_) if mail.number == 1 => {
                let waited = self.ambient.now().duration_since(a.created_at);
                Metric::FirstMail(waited).record();
            }
            SendOutcome::Held(reason) => Metric::MailHeld(reason).record(),
            _ => {}
        }
        let ended = DeliveryFact::Ended { token, outcome };
        let mut current = Some(claimed);
        while let Some(mail) = current {
            if self.save(&mail, &ended).await?.is_some() {
                break;
            }
            let changed = self.store.delivery(&mail.activation, mail.number).await?;
            // The same row again: the fact changes nothing in it.
            current = changed.filter(|changed| changed.version != mail.version);
        }
        Ok(true)
    }

    /// The mail with the fact in it, if the fact changes it and nobody changed it first.
    async fn save(&self, before: &Delivery, fact: &DeliveryFact) -> Result<Option<Delivery>, StoreError> {
        let Some(after) = apply_delivery(before, fact, &self.patience, self.ambient.now()) else {
            return Ok(None);
        };
        if self.store.save_delivery(before, &after).await? != Saved::Written {
            return Ok(None);
        }
        if let Some(metric) = Metric::of_mail(before, &after) {
            metric.record();
            if after.state == DeliveryState::Failed {
                tracing::warn!(mail = after.number, "a mail is given up");
            }
        }
        Ok(Some(after))
    }
}
