//! Sends the e-mails of swaps: the eSIM's QR code, and the news that a swap has failed. A claim is written before each
//! send, and its outcome after it. No other function calls SES.

mod brands;
mod mail;
mod pace;
mod qr;
mod send;
mod words;

use aws_lambda_events::event::dynamodb::Event;
use aws_lambda_events::streams::DynamoDbEventResponse;
use domain::{
    ActivationCode, ActivationId, Brand, BrandName, Delivery, DeliveryFact, DeliveryState, DeliveryStep, EmailAddress,
    FailureCode, MailDeadlines, MailKind, SendOutcome, SupportContact, apply_delivery, next_delivery,
};
use edge::{ClockAndRng, Metric, SettingError, Settings, for_each_row, record_activation};
use jiff::SignedDuration;
use jiff::tz::TimeZone;
use lambda_runtime::LambdaEvent;
use store::{ChangedRow, Saved, Store, StoreError, StoredSwap};
use tokio::time::Instant;

pub use mail::{MailContent, MailMessage, Sender, compose};
pub use pace::{Pace, WITHIN};
pub use qr::{QrImage, draw};

use crate::brands::Brands;
use crate::pace::Turn;
use crate::send::SesClient;

/// The handler with its clients and settings. Built once per process.
#[derive(Debug)]
pub struct DeliverEsim {
    store: Store,
    ses: SesClient,
    pace: Pace,
    from: EmailAddress,
    brands: Brands,
    /// How long an eSIM can be installed, from the request.
    install_within: SignedDuration,
    /// The zone of the times in mails.
    zone: TimeZone,
    clock: ClockAndRng,
    deadlines: MailDeadlines,
}

impl DeliverEsim {
    /// Reads the default brand (`MAIL_FROM`, `BRAND`, `SUPPORT_CONTACT`, `MAIL_REPLY_TO`), `MAIL_CONFIGURATION_SET`
    /// (optional), `LEASE`, `INSTALL_WITHIN`, `TIME_ZONE`, the pace of mails and their deadlines.
    pub fn new(
        store: Store,
        ses: &aws_sdk_ses::Config,
        clock: ClockAndRng,
        settings: &Settings,
    ) -> Result<Self, SettingError> {
        let deadlines = settings.mail_deadlines()?;
        let configuration_set = settings.text_or("MAIL_CONFIGURATION_SET", "");
        let from = settings.parsed("MAIL_FROM", Sender::parse)?;
        let default = Brand {
            name: settings.parsed("BRAND", BrandName::parse)?,
            sender: from.name,
            colour: None,
            logo: None,
            support: settings.optional("SUPPORT_CONTACT", SupportContact::parse)?,
            reply_to: settings.optional("MAIL_REPLY_TO", EmailAddress::parse)?,
        };
        Ok(Self {
            store,
            ses: SesClient::new(ses, deadlines.lease, configuration_set),
            pace: Pace::read(settings)?,
            from: from.address,
            brands: Brands::new(default),
            install_within: settings.install_within()?,
            zone: settings.time_zone()?,
            clock,
            deadlines,
        })
    }

    /// Processes every mail of the batch as far as possible. A mail whose turn would come too late for this invocation
    /// stays due, so the sweeper wakes it again.
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
            match next_delivery(mail, self.clock.now()) {
                DeliveryStep::Nothing => return Ok(()),
                DeliveryStep::WaitUntil(_) => {
                    self.save(mail, &DeliveryFact::Postponed).await?;
                    return Ok(());
                }
                DeliveryStep::Expire => {
                    tracing::warn!(
                        mail = number,
                        "a claim expired, so it is unknown whether SES accepted the mail"
                    );
                    self.save(mail, &DeliveryFact::Expired).await?;
                }
                DeliveryStep::Unheard => {
                    tracing::warn!(mail = number, "SES never reported an event for a mail");
                    self.save(mail, &DeliveryFact::Unheard).await?;
                }
                // The mail stays due, and the sweeper wakes it again.
                DeliveryStep::Send if mail.is_held_by(&swap.activation) => return Ok(()),
                DeliveryStep::Send if mail.is_needed(&swap.activation, self.clock.now()) => {
                    // The wait comes before the claim, whose lease covers one call. The row may change during the wait,
                    // so it is read again.
                    if !has_turn {
                        match self.pace.wait(until).await {
                            Turn::Now => has_turn = true,
                            Turn::Waited => {
                                has_turn = true;
                                continue;
                            }
                            Turn::TooLate => {
                                tracing::info!(mail = number, "mail left for the next sweep");
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

    /// Claims a mail, sends it and writes the outcome. Returns whether an attempt was made. If another writer changed
    /// the row first, there is no claim and no attempt.
    async fn claim_and_send(&self, swap: &StoredSwap, mail: &Delivery) -> Result<bool, StoreError> {
        // Everything that can fail on our side comes before the claim: a claim that expires leaves the outcome unknown.
        let a = &swap.activation;
        let brand = self.brands.of(a.reseller.as_deref(), &self.store).await?;
        let works_until = a.expires_at(self.install_within).to_zoned(self.zone.clone());
        let requested_at = a.created_at.to_zoned(self.zone.clone());
        let code;
        let message = match mail.kind {
            MailKind::Code | MailKind::Reminder => {
                code = ActivationCode::new(
                    a.smdp.clone().ok_or(StoreError::Corrupt("smdp"))?,
                    self.store.matching_id(swap).await?,
                    a.requested.has_code,
                );
                MailMessage::Code {
                    code: &code,
                    reminder: mail.kind == MailKind::Reminder,
                    renewed: a.renewed_at.is_some(),
                    works_until: &works_until,
                }
            }
            MailKind::End => MailMessage::End {
                expired: a.failure == Some(FailureCode::Expired),
                requested_at: &requested_at,
            },
        };
        let message = compose(&MailContent {
            from: &self.from,
            to: &mail.to,
            language: mail.language,
            phone: &a.phone,
            brand: &brand,
            activation: &a.id,
            delivery: mail.number,
            sent_at: self.clock.now(),
            message,
        });
        let token = self.clock.token();
        let deadline = self.clock.now() + self.deadlines.lease;
        let claim = DeliveryFact::Claimed {
            token: token.clone(),
            deadline,
        };
        let Some(claimed) = self.save(mail, &claim).await? else {
            return Ok(false);
        };
        let outcome = self.ses.send(&claimed, message).await;
        tracing::info!(mail = mail.number, ?outcome, "SES was called for a mail");
        match outcome {
            SendOutcome::Sent(_) if mail.number == 1 => {
                let wait = self.clock.now().duration_since(a.created_at);
                Metric::FirstMail(wait).record();
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
            // If the row is the same as before, the fact does not apply to it.
            current = changed.filter(|changed| changed.version != mail.version);
        }
        Ok(true)
    }

    /// Applies a fact to a mail and writes it. `None` if the fact does not apply or the row has changed.
    async fn save(&self, before: &Delivery, fact: &DeliveryFact) -> Result<Option<Delivery>, StoreError> {
        let Some(after) = apply_delivery(before, fact, &self.deadlines, self.clock.now()) else {
            return Ok(None);
        };
        if self.store.save_delivery(before, &after).await? != Saved::Written {
            return Ok(None);
        }
        if let Some(metric) = Metric::of_mail(before, &after) {
            metric.record();
            if after.state == DeliveryState::Failed {
                tracing::warn!(mail = after.number, "gave up a mail");
            }
        }
        Ok(Some(after))
    }
}
