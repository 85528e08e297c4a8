//! One e-mail with a QR code: at most one when SES's answers are known, at most three when they are not.

use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};

use crate::activation::note_again;
use crate::{Activation, ActivationId, EmailAddress, Language, Malformed, Phase, ProfileState, TimelineEntry};

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
    /// Attempts that SES did not look at, for a reason that has nothing to do with this mail.
    pub holds: u32,
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
    pub timeline: Vec<TimelineEntry>,
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
    /// Attempts of unknown outcome at most where SES reports nothing to us: the first one and one more.
    pub const DOUBTS_UNREPORTED: u32 = 2;
    /// Attempts of unknown outcome at most: one more if SES reports to us and said nothing of the first two.
    pub const DOUBTS_AT_MOST: u32 = 3;
    /// Attempts that SES surely did not take at most.
    pub const REFUSALS_AT_MOST: u32 = 6;
    /// Between two attempts that SES did not look at, at most.
    pub const HOLD_AT_MOST: SignedDuration = SignedDuration::from_hours(1);

    /// Mails at most that callers ask besides the first one.
    pub const RESENDS_AT_MOST: u32 = 3;
    /// Between two mails that callers ask.
    pub const RESEND_AFTER: SignedDuration = SignedDuration::from_mins(1);

    /// A mail to be sent of a swap. `lease` is how long the stream has for it before the sweeper looks.
    pub fn new(activation: &Activation, number: u32, to: EmailAddress, lease: SignedDuration, at: Timestamp) -> Self {
        Self {
            activation: activation.id.clone(),
            number,
            to,
            language: activation.language,
            state: DeliveryState::Pending,
            attempt: None,
            doubts: 0,
            refusals: 0,
            holds: 0,
            wake_at: None,
            due_at: Some(at + lease),
            message_id: None,
            created_at: at,
            modified_at: at,
            version: 1,
            timeline: Vec::new(),
        }
    }

    /// The mail's record without whom it went to.
    pub fn anonymised(&self) -> Self {
        Self {
            to: EmailAddress::erased(),
            version: self.version + 1,
            ..self.clone()
        }
    }

    /// Whether the customer may still need this one of the swap's mails. The network may start an order before the eSIM
    /// is on the phone: that does not make the mail useless.
    pub fn is_needed(&self, activation: &Activation) -> bool {
        let waits = matches!(activation.phase, Phase::Ordering | Phase::Ordered | Phase::Started);
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

    /// Whether it was given up because nobody needed it any more, which is no failure.
    pub fn is_unneeded(&self) -> bool {
        self.has_noted(UNNEEDED)
    }

    fn has_noted(&self, what: &str) -> bool {
        self.timeline.iter().any(|event| event.what == what)
    }

    /// For what happens once: it is never dropped.
    fn note(&mut self, at: Timestamp, what: &str) {
        self.timeline.push(TimelineEntry::new(at, what));
    }

    /// For what may happen any number of times: what happened alike is one line.
    fn note_attempt(&mut self, at: Timestamp, what: &str) {
        note_again(&mut self.timeline, at, what);
    }

    fn fall_due(&mut self, patience: &MailDeadlines, at: Timestamp) {
        let wanted = match next_delivery(self, at) {
            DeliveryStep::WaitUntil(then) => Some(then),
            DeliveryStep::Rest => None,
            _ => Some(at + patience.lease),
        };
        let keeps = self.due_at.is_some_and(|due| at < due && Some(due) <= wanted);
        if !keeps {
            self.due_at = wanted;
        }
    }
}

const UNNEEDED: &str = "not needed any more";

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
    /// SES would have told of it by now, and there were three: write that it took none.
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
        outcome: SendOutcome,
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
        report: MailReport,
    },
    /// Nobody needs it any more.
    Void,
    /// The sweeper looked, and it is too early.
    Postponed,
}

/// What SES tells of a mail that it took: in any order, more than once, and perhaps before it answers the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MailReport {
    /// It took it.
    Accepted,
    /// The receiving server refused it for now. An out-of-office reply is reported like this too, before or after the
    /// delivery.
    BouncedForNow,
    /// The receiving server took it.
    Delivered,
    /// The recipient calls it spam.
    Complained,
    /// The receiving server refused it, perhaps after it took it; or SES found it to be bad after all.
    Bounced,
}

/// Why SES did not look at a mail: it speaks of us, not of the mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldReason {
    /// Too many mails at once.
    Throttled,
    /// The account's mails of a day are used up.
    Quota,
    /// The account or the configuration set may not send.
    Paused,
    /// SES does not accept who sends: a domain, an address, a permission, a credential or the configuration set is not
    /// as it has to be.
    Unverified,
    /// There was no way to SES.
    Unreachable,
}

impl HoldReason {
    /// All five.
    pub const ALL: [Self; 5] = [
        Self::Throttled,
        Self::Quota,
        Self::Paused,
        Self::Unverified,
        Self::Unreachable,
    ];

    /// For the timeline and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::Quota => "quota",
            Self::Paused => "paused",
            Self::Unverified => "unverified",
            Self::Unreachable => "unreachable",
        }
    }
}

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendOutcome {
    /// SES took it, under this name.
    Sent(String),
    /// SES did not look at it. It will when the reason is gone.
    Held(HoldReason),
    /// SES surely did not take it; it may take it later.
    Released,
    /// SES never will.
    Refused,
    /// The answer was lost.
    Lost,
}

/// How long to wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailDeadlines {
    /// Between a lost answer and the second attempt.
    pub doubt: SignedDuration,
    /// After the first attempt that was surely refused, or held; doubles.
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
        (DeliveryState::Pending | DeliveryState::Ambiguous, _) if delivery.is_given_up() => DeliveryStep::Rest,
        // Nobody will tell more of them.
        (DeliveryState::Ambiguous, _)
            if delivery.doubts >= Delivery::DOUBTS_UNREPORTED && delivery.wake_at.is_none() =>
        {
            DeliveryStep::Rest
        }
        (DeliveryState::Pending | DeliveryState::Ambiguous, _) => match asleep {
            Some(wake_at) => DeliveryStep::WaitUntil(wake_at),
            None if delivery.doubts >= Delivery::DOUBTS_AT_MOST => DeliveryStep::Unheard,
            None => DeliveryStep::Send,
        },
        (DeliveryState::Claimed, Some(attempt)) if attempt.deadline > now => DeliveryStep::WaitUntil(attempt.deadline),
        (DeliveryState::Claimed, _) => DeliveryStep::Doubt,
        _ => DeliveryStep::Rest,
    }
}

/// Takes a fact into a mail; `None` if it changes nothing.
pub fn apply_delivery(
    delivery: &Delivery,
    fact: &DeliveryFact,
    patience: &MailDeadlines,
    at: Timestamp,
) -> Option<Delivery> {
    let mut d = delivery.clone();
    match fact {
        DeliveryFact::Claimed { token, deadline } => {
            if next_delivery(&d, at) != DeliveryStep::Send {
                return None;
            }
            d.attempt = Some(Attempt {
                number: d.doubts + d.refusals + d.holds + 1,
                token: token.clone(),
                deadline: *deadline,
            });
            d.state = DeliveryState::Claimed;
            d.wake_at = None;
        }
        DeliveryFact::Ended { token, outcome } => {
            // An answer that comes after the lapse still counts, as long as no later attempt began.
            let ours = d.attempt.as_ref().is_some_and(|attempt| attempt.token == *token);
            let lapsed = d.state == DeliveryState::Ambiguous;
            if !ours || !(lapsed || d.state == DeliveryState::Claimed) {
                return None;
            }
            match outcome {
                SendOutcome::Sent(message_id) => {
                    d.state = DeliveryState::Sent;
                    d.message_id = Some(message_id.clone());
                    d.wake_at = None;
                    d.note(at, "sent");
                }
                SendOutcome::Lost if lapsed => return None,
                SendOutcome::Lost => doubt(&mut d, patience, at),
                SendOutcome::Held(_) | SendOutcome::Released | SendOutcome::Refused => {
                    // Nothing more can be learnt of this attempt: the same answer again changes nothing.
                    d.attempt = None;
                    d.doubts -= u32::from(lapsed);
                    let wait = match outcome {
                        SendOutcome::Held(reason) => {
                            d.holds += 1;
                            d.note_attempt(at, &format!("SES: {}", reason.as_str()));
                            hold(&d, patience, token)
                        }
                        _ => {
                            d.refusals = match outcome {
                                SendOutcome::Refused => Delivery::REFUSALS_AT_MOST,
                                _ => Delivery::REFUSALS_AT_MOST.min(d.refusals + 1),
                            };
                            d.note_attempt(at, "SES: refused");
                            patience.refusal * (1 << (d.refusals - 1))
                        }
                    };
                    d.wake_at = Some(at + wait);
                    d.state = if d.doubts > 0 {
                        // An earlier attempt may have arrived: that stays the last word.
                        DeliveryState::Ambiguous
                    } else if d.is_given_up() {
                        DeliveryState::Failed
                    } else {
                        DeliveryState::Pending
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
            d.wake_at = None;
            d.state = DeliveryState::Failed;
            d.note(at, "SES: never heard of it");
        }
        DeliveryFact::Reported { message_id, report } => {
            // Ranked, so that reports in any order end alike.
            let (rank, state, what) = match report {
                MailReport::Accepted => (1, DeliveryState::Sent, "SES: accepted"),
                MailReport::BouncedForNow => (2, DeliveryState::Bounced, "SES: bounced for now"),
                MailReport::Delivered => (3, DeliveryState::Delivered, "SES: delivered"),
                MailReport::Complained => (3, DeliveryState::Delivered, "SES: complaint"),
                MailReport::Bounced => (4, DeliveryState::Bounced, BOUNCED),
            };
            let later = rank > rank_of(&d);
            let new = later || *report == MailReport::Complained;
            if !new || d.has_noted(what) {
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
            d.note(at, UNNEEDED);
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

fn doubt(d: &mut Delivery, patience: &MailDeadlines, at: Timestamp) {
    d.doubts += 1;
    d.state = DeliveryState::Ambiguous;
    d.wake_at = if d.doubts < Delivery::DOUBTS_UNREPORTED {
        Some(at + patience.doubt)
    } else {
        patience.silence.map(|silence| at + silence)
    };
    d.note_attempt(at, "SES: no answer");
}

/// Until the next attempt of a mail that is held. It doubles; of its second half the attempt's token, which is random,
/// decides how much, so that mails that were held together are not sent together.
fn hold(d: &Delivery, patience: &MailDeadlines, token: &str) -> SignedDuration {
    let doubled = (1..d.holds).fold(patience.refusal, |wait, _| wait.saturating_mul(2));
    let half = doubled.min(Delivery::HOLD_AT_MOST) / 2;
    let random = u64::from_str_radix(token, 16).unwrap_or_default();
    half + half * (random % 1000) as i32 / 1000
}

const BOUNCED: &str = "SES: bounced";

/// How far a mail has come by SES's reports.
fn rank_of(d: &Delivery) -> u8 {
    match d.state {
        DeliveryState::Sent => 1,
        DeliveryState::Bounced if !d.has_noted(BOUNCED) => 2,
        DeliveryState::Delivered => 3,
        DeliveryState::Bounced => 4,
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
