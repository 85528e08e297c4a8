//! One e-mail with a QR code: at most one when its fate is known, at most two when it was not.

use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};

use crate::{ActivationId, EmailAddress, Language, Malformed};

/// Where a mail is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryState {
    /// To be sent.
    Pending,
    /// Being sent by whoever holds the token, until the deadline.
    Claimed,
    /// SES took it.
    Sent,
    /// The receiving server took it.
    Delivered,
    /// The receiving server refused it.
    Bounced,
    /// SES may or may not have it.
    Ambiguous,
    /// It will not be sent.
    Failed,
}

impl DeliveryState {
    const ALL: [Self; 7] = [
        Self::Pending,
        Self::Claimed,
        Self::Sent,
        Self::Delivered,
        Self::Bounced,
        Self::Ambiguous,
        Self::Failed,
    ];

    /// As stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Claimed => "claimed",
            Self::Sent => "sent",
            Self::Delivered => "delivered",
            Self::Bounced => "bounced",
            Self::Ambiguous => "ambiguous",
            Self::Failed => "failed",
        }
    }

    /// `info.delivery`: a claim is our own business.
    pub fn shown(self) -> &'static str {
        match self {
            Self::Claimed => Self::Pending.as_str(),
            _ => self.as_str(),
        }
    }
}

impl FromStr for DeliveryState {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or(Malformed("must be a delivery state"))
    }
}

/// One e-mail of one activation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The swap.
    pub activation: ActivationId,
    /// 1 for the first; each resend asked by a caller is one more.
    pub number: u32,
    /// The recipient.
    pub to: EmailAddress,
    /// The mail's language.
    pub language: Language,
    /// Where it is.
    pub state: DeliveryState,
    /// The attempt that is being made, or the last one, as long as an answer to it can tell something new.
    pub attempt: Option<Attempt>,
    /// Attempts of which we never learnt the outcome.
    pub doubts: u32,
    /// Attempts that SES surely did not take. `REFUSALS_AT_MOST`: there will be no further attempt.
    pub refusals: u32,
    /// Not to be touched again before.
    pub wake_at: Option<Timestamp>,
    /// SES's name for the mail.
    pub message_id: Option<String>,
    /// When it last changed.
    pub modified_at: Timestamp,
    /// Counts the changes; every change is conditioned on it.
    pub version: u64,
}

/// One try to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// 1 for the first.
    pub number: u32,
    /// Tells this attempt from every other one.
    pub token: String,
    /// After this its outcome counts as unknown.
    pub deadline: Timestamp,
}

impl Delivery {
    /// Attempts of unknown outcome at most: the first one and one more.
    pub const DOUBTS_AT_MOST: u32 = 2;
    /// Attempts that SES surely did not take at most.
    pub const REFUSALS_AT_MOST: u32 = 6;

    /// A mail to be sent.
    pub fn new(
        activation: ActivationId,
        number: u32,
        to: EmailAddress,
        language: Language,
        at: Timestamp,
    ) -> Self {
        Self {
            activation,
            number,
            to,
            language,
            state: DeliveryState::Pending,
            attempt: None,
            doubts: 0,
            refusals: 0,
            wake_at: None,
            message_id: None,
            modified_at: at,
            version: 1,
        }
    }
}

/// What is to be done for a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryStep {
    /// Claim it and send.
    Send,
    /// Its claim lapsed: write that its fate is unknown.
    Doubt,
    /// Come back then.
    RetryAt(Timestamp),
    /// Nothing.
    Rest,
}

/// Something that happened to a mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryFact {
    /// An attempt begins.
    Claimed {
        /// Tells this attempt from every other one.
        token: String,
        /// After this its outcome counts as unknown.
        deadline: Timestamp,
    },
    /// An attempt's outcome.
    Ended {
        /// The attempt's token.
        token: String,
        /// What came of it.
        outcome: Outcome,
    },
    /// The claim's deadline passed without an outcome.
    Lapsed,
    /// The swap ended: nothing is to be sent.
    Void,
}

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// SES took it, under this name.
    Sent(String),
    /// SES surely did not take it; it may take it later.
    Released,
    /// SES never will.
    Refused,
    /// The answer was lost.
    Lost,
}

/// How long to wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patience {
    /// Between a lost answer and the one second attempt.
    pub doubt: SignedDuration,
    /// After the first attempt that was surely refused; doubles.
    pub refusal: SignedDuration,
}

/// What is to be done for a mail now.
pub fn next_delivery(delivery: &Delivery, now: Timestamp) -> DeliveryStep {
    let asleep = delivery.wake_at.filter(|wake_at| *wake_at > now);
    let spent = delivery.doubts >= Delivery::DOUBTS_AT_MOST
        || delivery.refusals >= Delivery::REFUSALS_AT_MOST;
    match (delivery.state, &delivery.attempt) {
        (DeliveryState::Pending | DeliveryState::Ambiguous, _) if !spent => {
            asleep.map_or(DeliveryStep::Send, DeliveryStep::RetryAt)
        }
        (DeliveryState::Claimed, Some(attempt)) if attempt.deadline > now => {
            DeliveryStep::RetryAt(attempt.deadline)
        }
        (DeliveryState::Claimed, _) => DeliveryStep::Doubt,
        _ => DeliveryStep::Rest,
    }
}

/// Takes a fact into a mail; `None` if it changes nothing.
pub fn apply_delivery(
    delivery: &Delivery,
    fact: &DeliveryFact,
    patience: &Patience,
    at: Timestamp,
) -> Option<Delivery> {
    let mut d = delivery.clone();
    match fact {
        DeliveryFact::Claimed { token, deadline } => {
            if next_delivery(&d, at) != DeliveryStep::Send {
                return None;
            }
            d.attempt = Some(Attempt {
                number: d.doubts + d.refusals + 1,
                token: token.clone(),
                deadline: *deadline,
            });
            d.state = DeliveryState::Claimed;
            d.wake_at = None;
        }
        DeliveryFact::Ended { token, outcome } => {
            // An answer that comes after the lapse still counts, as long as no later attempt began.
            let ours = d
                .attempt
                .as_ref()
                .is_some_and(|attempt| attempt.token == *token);
            let lapsed = d.state == DeliveryState::Ambiguous;
            if !ours || !(lapsed || d.state == DeliveryState::Claimed) {
                return None;
            }
            match outcome {
                Outcome::Sent(message_id) => {
                    d.state = DeliveryState::Sent;
                    d.message_id = Some(message_id.clone());
                    d.wake_at = None;
                }
                Outcome::Lost if lapsed => return None,
                Outcome::Lost => doubt(&mut d, patience, at),
                Outcome::Released | Outcome::Refused => {
                    // Nothing more can be learnt of this attempt: the same answer again changes nothing.
                    d.attempt = None;
                    d.doubts -= u32::from(lapsed);
                    d.refusals = match outcome {
                        Outcome::Refused => Delivery::REFUSALS_AT_MOST,
                        _ => Delivery::REFUSALS_AT_MOST.min(d.refusals + 1),
                    };
                    d.wake_at = Some(at + patience.refusal * (1 << (d.refusals - 1)));
                    d.state = if d.doubts > 0 {
                        // An earlier attempt may have arrived: that stays the last word.
                        DeliveryState::Ambiguous
                    } else if d.refusals < Delivery::REFUSALS_AT_MOST {
                        DeliveryState::Pending
                    } else {
                        DeliveryState::Failed
                    };
                }
            }
        }
        DeliveryFact::Lapsed => {
            if next_delivery(&d, at) != DeliveryStep::Doubt {
                return None;
            }
            doubt(&mut d, patience, at);
        }
        DeliveryFact::Void => {
            let open = matches!(
                d.state,
                DeliveryState::Pending | DeliveryState::Claimed | DeliveryState::Ambiguous
            );
            if !open || d.refusals >= Delivery::REFUSALS_AT_MOST {
                return None;
            }
            d.refusals = Delivery::REFUSALS_AT_MOST;
            if d.state == DeliveryState::Pending {
                d.state = DeliveryState::Failed;
            }
        }
    }
    d.modified_at = at;
    d.version += 1;
    Some(d)
}

fn doubt(d: &mut Delivery, patience: &Patience, at: Timestamp) {
    d.doubts += 1;
    d.state = DeliveryState::Ambiguous;
    d.wake_at = Some(at + patience.doubt);
}

#[cfg(test)]
mod tests;
