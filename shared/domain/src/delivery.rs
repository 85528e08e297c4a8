//! One e-mail with a QR code: at most one when its fate is known, at most two when it was not.

use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};

use crate::{
    Activation, ActivationId, EmailAddress, Event, Language, Malformed, Phase, ProfileState,
    TIMELINE_CAP,
};

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
    /// When the sweeper looks at it, as of a swap.
    pub due_at: Option<Timestamp>,
    /// SES's name for the mail.
    pub message_id: Option<String>,
    /// When it was asked.
    pub created_at: Timestamp,
    /// When it last changed.
    pub modified_at: Timestamp,
    /// Counts the changes; every change is conditioned on it.
    pub version: u64,
    /// What happened, oldest first.
    pub timeline: Vec<Event>,
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

    /// Mails at most that callers ask besides the first one.
    pub const RESENDS_AT_MOST: u32 = 3;
    /// Between two mails that callers ask.
    pub const RESEND_AFTER: SignedDuration = SignedDuration::from_mins(1);

    /// A mail to be sent of a swap. `lease` is how long the stream has for it before the sweeper looks.
    pub fn new(
        activation: &Activation,
        number: u32,
        to: EmailAddress,
        lease: SignedDuration,
        at: Timestamp,
    ) -> Self {
        Self {
            activation: activation.id.clone(),
            number,
            to,
            language: activation.language,
            state: DeliveryState::Pending,
            attempt: None,
            doubts: 0,
            refusals: 0,
            wake_at: None,
            due_at: Some(at + lease),
            message_id: None,
            created_at: at,
            modified_at: at,
            version: 1,
            timeline: Vec::new(),
        }
    }

    /// Whether the customer may still need this one of the swap's mails.
    pub fn is_needed(&self, activation: &Activation) -> bool {
        let waits = matches!(activation.phase, Phase::Ordering | Phase::Ordered);
        let has_come = match self.state {
            // One that may have come has, if a phone knows its code.
            DeliveryState::Ambiguous => Some(ProfileState::Downloaded),
            _ => Some(ProfileState::Installed),
        };
        waits && self.number == activation.mails && activation.profile < has_come
    }

    /// SES refused it for good, or time and again.
    fn is_given_up(&self) -> bool {
        self.refusals >= Self::REFUSALS_AT_MOST
    }

    fn note(&mut self, at: Timestamp, what: &str) {
        if self.timeline.len() < TIMELINE_CAP {
            let what = what.to_owned();
            self.timeline.push(Event { at, what });
        }
    }

    fn fall_due(&mut self, patience: &Patience, at: Timestamp) {
        let wanted = match next_delivery(self, at) {
            DeliveryStep::WaitUntil(then) => Some(then),
            DeliveryStep::Rest => None,
            _ => Some(at + patience.lease),
        };
        let keeps = self
            .due_at
            .is_some_and(|due| at < due && Some(due) <= wanted);
        if !keeps {
            self.due_at = wanted;
        }
    }
}

/// Why the QR code is not sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResendRefused {
    /// The first mail is not written yet: it comes.
    TooEarly,
    /// The last one was asked less than a minute ago: from then on.
    TooSoon(Timestamp),
    /// There were `RESENDS_AT_MOST`.
    TooMany,
}

/// One more mail of a swap, to the address of the `last` one if no other one is named.
pub fn resend(
    activation: &Activation,
    last: Option<&Delivery>,
    to: Option<EmailAddress>,
    lease: SignedDuration,
    at: Timestamp,
) -> Result<Delivery, ResendRefused> {
    let last = last.ok_or(ResendRefused::TooEarly)?;
    if last.number > Delivery::RESENDS_AT_MOST {
        return Err(ResendRefused::TooMany);
    }
    let from = last.created_at + Delivery::RESEND_AFTER;
    if last.number > 1 && at < from {
        return Err(ResendRefused::TooSoon(from));
    }
    let to = to.unwrap_or_else(|| last.to.clone());
    Ok(Delivery::new(activation, last.number + 1, to, lease, at))
}

/// What is to be done for a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryStep {
    /// Claim it and send.
    Send,
    /// Its claim lapsed: write that its fate is unknown.
    Doubt,
    /// SES would have told of it by now: write that it took none.
    Unheard,
    /// Look again then.
    WaitUntil(Timestamp),
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
    /// SES told of no attempt for so long that it took none.
    Unheard,
    /// SES tells of an attempt that it took.
    Reported {
        /// SES's name for the mail.
        message_id: String,
        /// What it tells.
        report: Report,
    },
    /// Nobody needs it any more.
    Void,
    /// The sweeper looked, and it is too early.
    Postponed,
}

/// What SES tells of a mail that it took: in any order, more than once, and perhaps before it answers the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Report {
    /// It took it.
    Accepted,
    /// The receiving server took it.
    Delivered,
    /// The recipient calls it spam.
    Complained,
    /// The receiving server refused it, perhaps after it took it; or SES found it to be bad after all.
    Bounced,
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
    /// How long a claim holds.
    pub lease: SignedDuration,
    /// After this long without a report no attempt was taken; `None` where SES reports nothing to us.
    pub silence: Option<SignedDuration>,
}

/// What is to be done for a mail now.
pub fn next_delivery(delivery: &Delivery, now: Timestamp) -> DeliveryStep {
    let asleep = delivery.wake_at.filter(|wake_at| *wake_at > now);
    match (delivery.state, &delivery.attempt) {
        (DeliveryState::Pending | DeliveryState::Ambiguous, _) if delivery.is_given_up() => {
            DeliveryStep::Rest
        }
        (DeliveryState::Ambiguous, _) if delivery.doubts >= Delivery::DOUBTS_AT_MOST => {
            match (delivery.wake_at, asleep) {
                (None, _) => DeliveryStep::Rest,
                (_, None) => DeliveryStep::Unheard,
                (_, Some(wake_at)) => DeliveryStep::WaitUntil(wake_at),
            }
        }
        (DeliveryState::Pending | DeliveryState::Ambiguous, _) => {
            asleep.map_or(DeliveryStep::Send, DeliveryStep::WaitUntil)
        }
        (DeliveryState::Claimed, Some(attempt)) if attempt.deadline > now => {
            DeliveryStep::WaitUntil(attempt.deadline)
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
                    d.note(at, "sent");
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
                    d.note(at, "SES: refused");
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
        DeliveryFact::Unheard => {
            if next_delivery(&d, at) != DeliveryStep::Unheard {
                return None;
            }
            d.attempt = None;
            d.doubts = 0;
            d.refusals += 1;
            d.wake_at = None;
            d.state = if d.is_given_up() {
                DeliveryState::Failed
            } else {
                DeliveryState::Pending
            };
            d.note(at, "SES: never heard of it");
        }
        DeliveryFact::Reported { message_id, report } => {
            let (state, what) = match report {
                Report::Accepted => (DeliveryState::Sent, "SES: accepted"),
                Report::Delivered => (DeliveryState::Delivered, "SES: delivered"),
                Report::Complained => (DeliveryState::Delivered, "SES: complaint"),
                Report::Bounced => (DeliveryState::Bounced, "SES: bounced"),
            };
            let told = d.timeline.iter().any(|event| event.what == what);
            let later = rank(state) > rank(d.state);
            if told || !(later || *report == Report::Complained) {
                return None;
            }
            if later {
                d.state = state;
            }
            d.wake_at = None;
            d.message_id.get_or_insert_with(|| message_id.clone());
            d.note(at, what);
        }
        DeliveryFact::Void => {
            let open = matches!(
                d.state,
                DeliveryState::Pending | DeliveryState::Claimed | DeliveryState::Ambiguous
            );
            if !open || d.is_given_up() {
                return None;
            }
            d.refusals = Delivery::REFUSALS_AT_MOST;
            if d.state == DeliveryState::Pending {
                d.state = DeliveryState::Failed;
            }
            d.note(at, "not needed any more");
        }
        DeliveryFact::Postponed => {
            let overdue = d.due_at.is_none_or(|due| due <= at);
            if !overdue || !matches!(next_delivery(&d, at), DeliveryStep::WaitUntil(_)) {
                return None;
            }
            d.fall_due(patience, at);
            d.version += 1;
            return Some(d);
        }
    }
    d.fall_due(patience, at);
    d.modified_at = at;
    d.version += 1;
    Some(d)
}

fn doubt(d: &mut Delivery, patience: &Patience, at: Timestamp) {
    d.doubts += 1;
    d.state = DeliveryState::Ambiguous;
    d.wake_at = if d.doubts < Delivery::DOUBTS_AT_MOST {
        Some(at + patience.doubt)
    } else {
        patience.silence.map(|silence| at + silence)
    };
    d.note(at, "SES: no answer");
}

/// How far a mail has come, so that reports in any order end alike.
fn rank(state: DeliveryState) -> u8 {
    match state {
        DeliveryState::Sent => 1,
        DeliveryState::Delivered => 2,
        DeliveryState::Bounced => 3,
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
