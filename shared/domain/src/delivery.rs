//! The mails of a swap and their lifecycle: at most one mail arrives if the outcome of each call to SES is known,
//! at most three if not. What a mail says and how it is sent are not here.

use jiff::{SignedDuration, Timestamp};

use crate::timeline::count_or_add;
use crate::{
    Activation, ActivationId, EmailAddress, FailureCode, Language, NetworkOrder, Phase, ProfileState, TimelineEntry,
    named_enum,
};

named_enum! {
    /// The state of a mail. The names are the stored ones.
    pub enum DeliveryState {
        /// To be sent.
        Pending = "pending",
        /// Being sent by the holder of the token, until the deadline.
        Claimed = "claimed",
        /// Accepted by SES.
        Sent = "sent",
        /// Accepted by the receiving server.
        Delivered = "delivered",
        /// Rejected by the receiving server.
        Bounced = "bounced",
        /// SES may have accepted it: the outcome is unknown.
        Ambiguous = "ambiguous",
        /// It will not be sent.
        Failed = "failed",
    }
    FromStr { compare: str::eq, error: "must be a delivery state" }
}

impl DeliveryState {
    /// `info.delivery`. A claim is internal, so a claimed mail is shown as pending.
    pub fn shown(self) -> &'static str {
        match self {
            Self::Claimed => Self::Pending.as_str(),
            _ => self.as_str(),
        }
    }
}

named_enum! {
    /// What a mail says. The names are the stored ones.
    pub enum MailKind {
        /// The QR code.
        Code = "code",
        /// The QR code once more, because it expires soon.
        Reminder = "reminder",
        /// The swap has failed, and the QR code of the earlier mails does not work.
        End = "end",
    }
    FromStr { compare: str::eq, error: "must be a kind of mail" }
}

/// One mail of one swap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The swap.
    pub activation: ActivationId,
    /// 1 for the first mail of the swap, and one more for each later one.
    pub number: u32,
    /// The recipient.
    pub to: EmailAddress,
    /// The language of the mail.
    pub language: Language,
    /// What the mail says.
    pub kind: MailKind,
    /// The state.
    pub state: DeliveryState,
    /// The attempt in progress, or the last one for as long as its outcome can still add something.
    pub attempt: Option<Attempt>,
    /// Number of attempts whose outcome is unknown.
    pub unknown_attempts: u32,
    /// Number of attempts that SES certainly rejected. With `REJECTED_AT_MOST`, there is no further attempt.
    pub rejected_attempts: u32,
    /// Number of attempts that SES did not process, for a reason that does not concern this mail.
    pub holds: u32,
    /// No further attempt before this time.
    pub wake_at: Option<Timestamp>,
    /// When the sweeper reads the mail; see `Activation::due_at`.
    pub due_at: Option<Timestamp>,
    /// SES's id of the mail.
    pub message_id: Option<String>,
    /// When the mail was requested.
    pub created_at: Timestamp,
    /// Time of the last change.
    pub modified_at: Timestamp,
    /// Counts the changes. Every write is conditioned on it.
    pub version: u64,
    /// What happened, oldest first.
    pub timeline: Vec<TimelineEntry>,
}

/// One attempt to send a mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// 1 for the first attempt.
    pub number: u32,
    /// Identifies the attempt. No two attempts have the same token.
    pub token: String,
    /// From this time on, the outcome counts as unknown.
    pub deadline: Timestamp,
}

impl Delivery {
    /// Maximum number of attempts with an unknown outcome where SES does not report to us.
    pub const UNKNOWN_AT_MOST_UNREPORTED: u32 = 2;
    /// Maximum number of attempts with an unknown outcome where SES reports to us: the third follows if there is no
    /// report on the first two.
    pub const UNKNOWN_AT_MOST: u32 = 3;
    /// Maximum number of attempts that SES certainly rejected.
    pub const REJECTED_AT_MOST: u32 = 6;
    /// Longest pause between two attempts that SES did not process.
    pub const HOLD_AT_MOST: SignedDuration = SignedDuration::from_hours(1);

    /// Maximum number of mails that callers can request in addition to the first one.
    pub const RESENDS_AT_MOST: u32 = 3;
    /// Shortest time between two mails that callers request.
    pub const RESEND_AFTER: SignedDuration = SignedDuration::from_mins(1);

    /// How long the mail about the end of a swap is worth sending.
    pub const END_WITHIN: SignedDuration = SignedDuration::from_hours(72);

    /// A mail that is to be sent. `lease` is how long the stream consumer has to send it before the sweeper does.
    pub fn new(activation: &Activation, number: u32, to: EmailAddress, lease: SignedDuration, at: Timestamp) -> Self {
        Self {
            activation: activation.id.clone(),
            number,
            to,
            language: activation.language,
            kind: MailKind::Code,
            state: DeliveryState::Pending,
            attempt: None,
            unknown_attempts: 0,
            rejected_attempts: 0,
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

    /// The record without the address of the recipient.
    pub fn anonymised(&self) -> Self {
        Self {
            to: EmailAddress::erased(),
            version: self.version + 1,
            ..self.clone()
        }
    }

    /// Whether the customer may still need this mail of the swap. The network may start the order before the eSIM is on
    /// a phone. The customer still needs the mail then.
    pub fn is_needed(&self, activation: &Activation, now: Timestamp) -> bool {
        if self.kind == MailKind::End {
            // The network may complete the order after all, even if the swap stays in ERROR.
            let is_true = activation.phase == Phase::Error && activation.network_order != NetworkOrder::Completed;
            return is_true && now < self.created_at + Self::END_WITHIN;
        }
        // A code that was renewed while the network moved the number is the only one that works.
        let is_renewed = activation.phase == Phase::Done && activation.renewed_at.is_some();
        let is_waiting = is_renewed || matches!(activation.phase, Phase::Ordering | Phase::Ordered | Phase::Started);
        let needed_until = match self.state {
            // A mail with an unknown outcome has arrived if a phone has used its QR code.
            DeliveryState::Ambiguous => Some(ProfileState::Downloaded),
            _ => Some(ProfileState::Installed),
        };
        let is_current = self.number == activation.mails && !activation.code_dead;
        is_waiting && is_current && activation.profile < needed_until
    }

    /// Whether the mail must not be sent for now: while its activation code is being renewed, it is dead or will be. If
    /// the renewal is refused, the mail may be needed after all.
    pub fn is_held_by(&self, activation: &Activation) -> bool {
        self.number == activation.mails && activation.is_renewing()
    }

    /// Whether SES has accepted the mail, as far as we know.
    pub fn is_out(&self) -> bool {
        matches!(
            self.state,
            DeliveryState::Sent | DeliveryState::Delivered | DeliveryState::Bounced | DeliveryState::Ambiguous
        )
    }

    /// Whether the customer has this mail, as far as we know.
    fn may_have_arrived(&self) -> bool {
        self.state == DeliveryState::Claimed || self.is_out() && self.state != DeliveryState::Bounced
    }

    /// Whether there is no further attempt: SES rejected the mail finally or too often, or nobody needs it.
    fn is_given_up(&self) -> bool {
        self.rejected_attempts >= Self::REJECTED_AT_MOST
    }

    /// Whether the mail was given up because nobody needed it any more, which is not a failure.
    pub fn is_unneeded(&self) -> bool {
        self.has_noted(UNNEEDED)
    }

    fn has_noted(&self, what: &str) -> bool {
        self.timeline.iter().any(|entry| entry.what == what)
    }

    /// Adds an entry for something that happens once. The entry is never dropped.
    fn note(&mut self, at: Timestamp, what: &str) {
        self.timeline.push(TimelineEntry::new(at, what));
    }

    /// Counts up the entry with the same text, or adds one: for what can happen any number of times.
    fn note_attempt(&mut self, at: Timestamp, what: &str) {
        count_or_add(&mut self.timeline, at, what);
    }

    /// Makes sure that the sweeper reads the mail in time.
    fn schedule_sweep(&mut self, deadlines: &MailDeadlines, at: Timestamp) {
        let wanted = match next_delivery(self, at) {
            DeliveryStep::WaitUntil(then) => Some(then),
            DeliveryStep::Nothing => None,
            _ => Some(at + deadlines.lease),
        };
        let is_in_time = self.due_at.is_some_and(|due| at < due && Some(due) <= wanted);
        if !is_in_time {
            self.due_at = wanted;
        }
    }
}

/// Timeline entry of a mail that nobody needs any more.
const UNNEEDED: &str = "not needed any more";

/// Why the QR code is not sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResendRefused {
    /// The first mail is not written yet, but will be.
    TooEarly,
    /// The last mail was requested less than a minute ago. The next one can be requested from this time on.
    TooSoon(Timestamp),
    /// `RESENDS_AT_MOST` mails have been requested.
    TooMany,
}

/// The mail that a change of an eSIM swap from `before` to `after` brings: the first one, because the swap has been
/// ordered; the mail with a new activation code; the reminder; or the notice that the swap has failed. `mails` are the
/// mails before. A reminder needs the last of them, and the notice all. The mail is written in the transaction that
/// writes `after`.
pub fn mail_of_change(
    before: &Activation,
    after: &Activation,
    mails: &[Delivery],
    lease: SignedDuration,
    at: Timestamp,
) -> Option<Delivery> {
    if after.mails == before.mails {
        return None;
    }
    let kind = match after.phase {
        Phase::Error => MailKind::End,
        _ if after.reminded && !before.reminded => MailKind::Reminder,
        _ => MailKind::Code,
    };
    let to = match (kind, &before.renew_to) {
        (MailKind::End, _) => &last_arrived(mails)?.to,
        (MailKind::Reminder, _) => &mails.last()?.to,
        (MailKind::Code, Some(renew_to)) => renew_to,
        (MailKind::Code, None) => after.mail_to()?,
    };
    let mail = Delivery::new(after, after.mails, to.clone(), lease, at);
    Some(Delivery { kind, ..mail })
}

/// Whether the customer gets a mail about the end of a swap that ends in ERROR at `at`. `mails` are all mails of the swap:
/// a customer who has none knows of no eSIM. The customer or somebody who serves the customer knows of a cancellation, and
/// of what has blocked the line. As long as the network may still move the number, it is unknown which SIM will have it.
pub fn tells_of_end(activation: &Activation, mails: &[Delivery], at: Timestamp) -> bool {
    let is_news = activation.failure.is_some_and(|failure| {
        !matches!(
            failure,
            FailureCode::Cancelled | FailureCode::Stopped | FailureCode::Unsettled
        )
    });
    let is_certain = activation.network_unknown_until.is_none_or(|until| until <= at);
    is_news && is_certain && last_arrived(mails).is_some()
}

/// The last mail that the customer may have received.
fn last_arrived(mails: &[Delivery]) -> Option<&Delivery> {
    mails.iter().rev().find(|mail| mail.may_have_arrived())
}

/// One more mail of a swap, to the address `to`, or else to that of the `last` mail. `lease` is as for
/// [`Delivery::new`].
///
/// # Errors
/// When the mail comes too early, too soon after the last one, or is one too many.
pub fn resend(
    activation: &Activation,
    last: Option<&Delivery>,
    to: Option<EmailAddress>,
    lease: SignedDuration,
    at: Timestamp,
) -> Result<Delivery, ResendRefused> {
    let last = last.ok_or(ResendRefused::TooEarly)?;
    if activation.resends >= Delivery::RESENDS_AT_MOST {
        return Err(ResendRefused::TooMany);
    }
    let from = last.created_at + Delivery::RESEND_AFTER;
    if activation.resends > 0 && at < from {
        return Err(ResendRefused::TooSoon(from));
    }
    let to = to.unwrap_or_else(|| last.to.clone());
    Ok(Delivery::new(activation, last.number + 1, to, lease, at))
}

/// The step that is due for a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryStep {
    /// Claim the mail and send it.
    Send,
    /// The claim expired: write that the outcome of the attempt is unknown.
    Expire,
    /// SES accepted none of the attempts, or there would be a report, and there is no further attempt: write that the
    /// mail failed.
    Unheard,
    /// Nothing before this time.
    WaitUntil(Timestamp),
    /// Nothing.
    Nothing,
}

/// Something that happened to a mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryFact {
    /// An attempt begins.
    Claimed {
        /// The token of the attempt. No two attempts have the same token.
        token: String,
        /// From this time on, the outcome counts as unknown.
        deadline: Timestamp,
    },
    /// An attempt ended.
    Ended {
        /// The token of the attempt.
        token: String,
        /// The outcome.
        outcome: SendOutcome,
    },
    /// The deadline of the claim passed without an outcome.
    Expired,
    /// SES reported none of the attempts for so long that it accepted none.
    Unheard,
    /// SES reported on a mail that it accepted.
    Reported {
        /// SES's id of the mail.
        message_id: String,
        /// The report.
        report: MailReport,
    },
    /// Nobody needs the mail any more.
    Void,
    /// The sweeper read the mail before a step was due.
    Postponed,
}

/// What SES reports on a mail that it accepted. Reports arrive in any order, more than once, and possibly before the
/// response to the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MailReport {
    /// SES accepted the mail.
    Accepted,
    /// The receiving server rejected the mail for now. SES reports an out-of-office reply in the same way, before or
    /// after the delivery.
    BouncedForNow,
    /// The receiving server accepted the mail.
    Delivered,
    /// The recipient marked the mail as spam.
    Complained,
    /// The receiving server rejected the mail, possibly after it had accepted it, or SES rejected the content.
    Bounced,
}

named_enum! {
    /// Why SES did not process a mail. The reason concerns our account, not the mail. The names are those of the
    /// timeline and the metrics.
    pub enum HoldReason {
        /// Too many mails at once.
        Throttled = "throttled",
        /// The daily quota of the account is used up.
        Quota = "quota",
        /// Sending is paused for the account or the configuration set.
        Paused = "paused",
        /// SES does not accept the sender: a domain, address, permission, credential or the configuration set is
        /// missing or wrong.
        Unverified = "unverified",
        /// SES could not be reached.
        Unreachable = "unreachable",
    }
}

/// The outcome of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendOutcome {
    /// SES accepted the mail, with this id.
    Sent(String),
    /// SES did not process the mail. It can once the reason is gone.
    Held(HoldReason),
    /// SES certainly did not accept the mail, but may accept it later.
    RejectedForNow,
    /// SES rejected the mail finally.
    Refused,
    /// Unknown: there was no usable response.
    Lost,
}

/// The pauses and time limits of a mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailDeadlines {
    /// Pause between an attempt with an unknown outcome and the second attempt.
    pub doubt: SignedDuration,
    /// Pause after the first attempt that SES certainly rejected or did not process. It doubles with each one.
    pub refusal: SignedDuration,
    /// How long a claim lasts.
    pub lease: SignedDuration,
    /// After this time without a report, SES has accepted no attempt; `None` where SES does not report to us.
    pub silence: Option<SignedDuration>,
}

/// The step that is due for a mail at `now`.
pub fn next_delivery(delivery: &Delivery, now: Timestamp) -> DeliveryStep {
    let pause = delivery.wake_at.filter(|wake_at| *wake_at > now);
    match (delivery.state, &delivery.attempt) {
        (DeliveryState::Pending | DeliveryState::Ambiguous, _) if delivery.is_given_up() => DeliveryStep::Nothing,
        // No report will say more about the attempts.
        (DeliveryState::Ambiguous, _)
            if delivery.unknown_attempts >= Delivery::UNKNOWN_AT_MOST_UNREPORTED && delivery.wake_at.is_none() =>
        {
            DeliveryStep::Nothing
        }
        (DeliveryState::Pending | DeliveryState::Ambiguous, _) => match pause {
            Some(wake_at) => DeliveryStep::WaitUntil(wake_at),
            None if delivery.unknown_attempts >= Delivery::UNKNOWN_AT_MOST => DeliveryStep::Unheard,
            None => DeliveryStep::Send,
        },
        (DeliveryState::Claimed, Some(attempt)) if attempt.deadline > now => DeliveryStep::WaitUntil(attempt.deadline),
        (DeliveryState::Claimed, _) => DeliveryStep::Expire,
        _ => DeliveryStep::Nothing,
    }
}

/// Applies a fact to a mail. The result has the next version; `None` if the fact changes nothing.
pub fn apply_delivery(
    delivery: &Delivery,
    fact: &DeliveryFact,
    deadlines: &MailDeadlines,
    at: Timestamp,
) -> Option<Delivery> {
    let mut d = delivery.clone();
    match fact {
        DeliveryFact::Claimed { token, deadline } => {
            if next_delivery(&d, at) != DeliveryStep::Send {
                return None;
            }
            d.attempt = Some(Attempt {
                number: d.unknown_attempts + d.rejected_attempts + d.holds + 1,
                token: token.clone(),
                deadline: *deadline,
            });
            d.state = DeliveryState::Claimed;
            d.wake_at = None;
        }
        DeliveryFact::Ended { token, outcome } => {
            // A response after the claim expired still counts, as long as no later attempt has begun.
            let is_current = d.attempt.as_ref().is_some_and(|attempt| attempt.token == *token);
            let is_expired = d.state == DeliveryState::Ambiguous;
            if !is_current || !(is_expired || d.state == DeliveryState::Claimed) {
                return None;
            }
            match outcome {
                SendOutcome::Sent(message_id) => {
                    d.state = DeliveryState::Sent;
                    d.message_id = Some(message_id.clone());
                    d.wake_at = None;
                    d.note(at, "sent");
                }
                SendOutcome::Lost if is_expired => return None,
                SendOutcome::Lost => note_unknown_outcome(&mut d, deadlines, at),
                SendOutcome::Held(_) | SendOutcome::RejectedForNow | SendOutcome::Refused => {
                    // The outcome of this attempt is final: the same response again changes nothing.
                    d.attempt = None;
                    d.unknown_attempts -= u32::from(is_expired);
                    let wait = match outcome {
                        SendOutcome::Held(reason) => {
                            d.holds += 1;
                            d.note_attempt(at, &format!("SES: {}", reason.as_str()));
                            hold_pause(&d, deadlines, token)
                        }
                        _ => {
                            d.rejected_attempts = match outcome {
                                SendOutcome::Refused => Delivery::REJECTED_AT_MOST,
                                _ => Delivery::REJECTED_AT_MOST.min(d.rejected_attempts + 1),
                            };
                            d.note_attempt(at, "SES: refused");
                            deadlines.refusal * (1 << (d.rejected_attempts - 1))
                        }
                    };
                    d.wake_at = Some(at + wait);
                    d.state = if d.unknown_attempts > 0 {
                        // An earlier attempt may have arrived, so the outcome stays unknown.
                        DeliveryState::Ambiguous
                    } else if d.is_given_up() {
                        DeliveryState::Failed
                    } else {
                        DeliveryState::Pending
                    };
                }
            }
        }
        DeliveryFact::Expired => {
            if next_delivery(&d, at) != DeliveryStep::Expire {
                return None;
            }
            note_unknown_outcome(&mut d, deadlines, at);
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
            // The ranks make the result independent of the order of the reports.
            let (rank, state, what) = match report {
                MailReport::Accepted => (1, DeliveryState::Sent, "SES: accepted"),
                MailReport::BouncedForNow => (2, DeliveryState::Bounced, "SES: bounced for now"),
                MailReport::Delivered => (3, DeliveryState::Delivered, "SES: delivered"),
                MailReport::Complained => (3, DeliveryState::Delivered, "SES: complaint"),
                MailReport::Bounced => (4, DeliveryState::Bounced, BOUNCED),
            };
            let is_later = rank > rank_of(&d);
            let is_new = is_later || *report == MailReport::Complained;
            if !is_new || d.has_noted(what) {
                return None;
            }
            if is_later {
                d.state = state;
            }
            d.wake_at = None;
            d.message_id.get_or_insert_with(|| message_id.clone());
            d.note(at, what);
        }
        DeliveryFact::Void => {
            let is_open = matches!(
                d.state,
                DeliveryState::Pending | DeliveryState::Claimed | DeliveryState::Ambiguous
            );
            if !is_open || d.is_given_up() {
                return None;
            }
            d.rejected_attempts = Delivery::REJECTED_AT_MOST;
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
            d.schedule_sweep(deadlines, at);
            d.version += 1;
            return Some(d);
        }
    }
    d.schedule_sweep(deadlines, at);
    d.modified_at = at;
    d.version += 1;
    Some(d)
}

/// The outcome of the attempt is unknown.
fn note_unknown_outcome(d: &mut Delivery, deadlines: &MailDeadlines, at: Timestamp) {
    d.unknown_attempts += 1;
    d.state = DeliveryState::Ambiguous;
    d.wake_at = if d.unknown_attempts < Delivery::UNKNOWN_AT_MOST_UNREPORTED {
        Some(at + deadlines.doubt)
    } else {
        deadlines.silence.map(|silence| at + silence)
    };
    d.note_attempt(at, "SES: no answer");
}

/// The pause before the next attempt of a mail that SES did not process. It doubles with each such attempt. Its second
/// half is scaled by the token of the attempt, which is random, so that mails that were held together are not sent at
/// the same time.
fn hold_pause(d: &Delivery, deadlines: &MailDeadlines, token: &str) -> SignedDuration {
    let doubled = (1..d.holds).fold(deadlines.refusal, |wait, _| wait.saturating_mul(2));
    let half = doubled.min(Delivery::HOLD_AT_MOST) / 2;
    let random = u64::from_str_radix(token, 16).unwrap_or_default();
    half + half * (random % 1000) as i32 / 1000
}

/// Timeline entry of a final rejection by the receiving server.
const BOUNCED: &str = "SES: bounced";

/// The rank of the last report on a mail.
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
