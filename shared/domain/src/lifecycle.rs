//! The lifecycle of a swap: `apply` adds a fact to the record, `next` says which step is due. Reading, writing and the
//! calls to the peers are not here.

use std::borrow::Cow;
use std::cmp::max;

use jiff::{SignedDuration, Timestamp};

use crate::timeline::count_or_add;
use crate::{
    Activation, Claim, EmailAddress, EsimState, FailedCall, FailureCode, NetworkOrder, Peer, Phase, PhoneState,
    ProfileOrder, ProfileRequest, ProfileRequestKind, ProfileRequestState, ProfileState, SmDpAddress, StartCall,
    SwapBlocker, SwapKind, TIMELINE_CAP, TimelineEntry, Witness,
};

/// Timeline entries that are counted, or whose date is looked up. The reports of downloads, failures and wrong codes have
/// the SM-DP+'s dates, so that a repeated report is recognised.
const DOWNLOADED: &str = "smdp: downloaded";
const PROFILE_FAILED: &str = "smdp: profile failed";
const INSTALLED: &str = "smdp: installed";
const RENEWED: &str = "smdp: renewed";
const WRONG_CODE: &str = "smdp: wrong confirmation code";

/// Maximum difference between the SM-DP+'s clock and ours.
const MAX_CLOCK_DIFFERENCE: SignedDuration = SignedDuration::from_hours(1);

/// How long after a download the report of a caller that the profile is installed is believed without the SM-DP+'s.
/// Until then, a phone may still be installing it, or fail to.
const BELIEVED_AFTER: SignedDuration = SignedDuration::from_mins(15);

/// The most reports of one swap that its profile is installed.
const REPORTS_AT_MOST: u32 = 10;
/// How often the SM-DP+ is asked about such a report.
const REPORT_TRIES: u32 = 5;
/// The most renewals of one swap.
const RENEWALS_AT_MOST: usize = 10;
/// The most renewals of one swap within a day.
const RENEWALS_A_DAY: usize = 3;

/// The time limits of the lifecycle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deadlines {
    /// How long a claim lasts.
    pub lease: SignedDuration,
    /// Pause before the first retry of a call that failed. It doubles with each retry, up to `poll_at_most`.
    pub retry_after: SignedDuration,
    /// Pause before the first poll of a peer that has not reported. It doubles with each poll, up to `poll_at_most`.
    pub poll_after: SignedDuration,
    /// The longest pause between two retries or polls.
    pub poll_at_most: SignedDuration,
    /// How long we try to place the orders, from the request.
    pub order_within: SignedDuration,
    /// How long the customer has to install an eSIM, from the request.
    pub install_within: SignedDuration,
    /// How long before the expiry the mail is sent once more.
    pub remind_before: SignedDuration,
    /// How long a peer has to settle an order, from the last change of an order or of the profile.
    pub settle_within: SignedDuration,
    /// How long an abandoned call may still be carried out.
    pub call_lifetime: SignedDuration,
    /// How long an eSIM cools down after a swap that failed.
    pub sim_cooldown: SignedDuration,
    /// How long the confirmation code and the matching id are stored after the end.
    pub code_kept: SignedDuration,
    /// How long e-mail addresses, the phone number and the names of callers are stored after the end.
    pub records_kept: SignedDuration,
}

impl Deadlines {
    /// `first`, doubled `times` times, but at most `poll_at_most`.
    fn backoff(&self, first: SignedDuration, times: u32) -> SignedDuration {
        let doubled = first.checked_mul(1 << times.min(20)).unwrap_or(self.poll_at_most);
        doubled.min(self.poll_at_most)
    }
}

/// Something that happened to a swap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// An invocation claimed the swap, or its holder renewed the claim.
    Claimed(Claim),
    /// Both orders are placed. For a physical swap: the network's order is placed and started.
    Ordered {
        /// The network's id of its order.
        order_number: String,
        /// The server from which phones download the profile.
        smdp: Option<SmDpAddress>,
    },
    /// The network has an order of a swap in phase `Ending`. The order has to be cancelled.
    OrderFound {
        /// The network's id of the order.
        order_number: String,
    },
    /// Ordering or starting failed and is retried later. `None` means that no order could be placed or started: a fault
    /// on our side, or a lookup that did not find the order.
    TryFailed(Option<FailedCall>),
    /// The calls took too long and were abandoned. Each may have been carried out, or may still be.
    Interrupted,
    /// A peer's response ends the swap.
    OrderRejected {
        /// The reason for the end.
        failure: FailureCode,
        /// The call.
        call: FailedCall,
    },
    /// The ICCID belongs to somebody else at the SM-DP+. The swap ends, and there is nothing to cancel at the SM-DP+.
    ProfileTaken,
    /// The time limit of the phase has passed.
    GivenUp(FailureCode),
    /// A caller requested the cancellation.
    CancelWanted {
        /// The caller, as a text for the timeline.
        by: String,
    },
    /// The line was locked, blocked or set to porting.
    LineBlocked(SwapBlocker),
    /// A caller requested another mail with the QR code.
    ResendWanted {
        /// The caller, as a text for the timeline.
        by: String,
    },
    /// A caller requested a new activation code.
    RenewWanted {
        /// The caller, as a text for the timeline.
        by: String,
        /// The recipient of the new code.
        to: EmailAddress,
    },
    /// The old activation code is dead.
    CodeCancelled,
    /// The profile has the new activation code.
    Renewed {
        /// The server from which phones download the profile, if the SM-DP+ names it.
        smdp: Option<SmDpAddress>,
        /// The SM-DP+'s date.
        dated: Timestamp,
    },
    /// The activation code cannot be renewed.
    RenewalRefused {
        /// Whether the SM-DP+ says that the profile is on a phone.
        on_phone: bool,
    },
    /// A caller reported that the profile is installed.
    ReportWanted {
        /// The caller, as a text for the timeline.
        by: String,
        /// Who has seen it.
        witness: Witness,
        /// The caller's note; may be empty.
        note: String,
        /// How far such a report is believed.
        trust: ReportTrust,
    },
    /// The SM-DP+ was asked about the profile for a caller's report. Everything new has been applied before this fact.
    ReportChecked {
        /// Whether the SM-DP+ says that a phone has the profile.
        on_phone: bool,
    },
    /// The reminder is written.
    Reminded,
    /// The SM-DP+ named the phone's eUICC.
    EidKnown {
        /// The last four digits of its EID.
        end: String,
    },
    /// A phone reported what became of the installed profile.
    PhoneChanged {
        /// The new state.
        state: PhoneState,
        /// The SM-DP+'s date.
        dated: Timestamp,
    },
    /// A phone downloaded the profile.
    Downloaded {
        /// The SM-DP+'s date.
        dated: Timestamp,
    },
    /// A phone installed the profile.
    Installed {
        /// The SM-DP+'s date.
        dated: Timestamp,
    },
    /// The SM-DP+ or the phone reported that the profile cannot be installed.
    ProfileFailed {
        /// The SM-DP+'s date.
        dated: Timestamp,
        /// The reason.
        failure: FailureCode,
        /// The SM-DP+'s codes: `8.1/4.8`; may be empty.
        codes: String,
    },
    /// A customer entered a wrong confirmation code.
    WrongCode {
        /// The SM-DP+'s date.
        dated: Timestamp,
    },
    /// The network has accepted the order and holds it.
    NetworkPlaced,
    /// The network carries out the order.
    NetworkStarted,
    /// The number is on the new SIM.
    NetworkCompleted {
        /// The network's date.
        since: Timestamp,
        /// The network's id of its order.
        order_number: String,
    },
    /// The network has ended the order, and the number stayed where it was.
    NetworkEnded(FailureCode),
    /// No call or event has shown an order of this swap at the network.
    NetworkUnseen,
    /// A report of the network decides nothing. The network is to be polled at once.
    NetworkUnclear {
        /// The order that the report names, which is not known to be ours; empty if it names none.
        order_number: String,
    },
    /// The network does not know the order by the id that the network itself assigned, or, while there is no such id,
    /// lists no order of this swap.
    NetworkMissing,
    /// The peers were polled. Everything new has been applied before this fact. The list has the calls that failed.
    Polled(Vec<FailedCall>),
    /// The SM-DP+ accepted the cancellation, or never had the order.
    ProfileSettled {
        /// Whether the SM-DP+ rejected the cancellation because the profile is on a phone.
        on_phone: bool,
    },
    /// The sweeper read the swap before a step was due.
    Postponed,
    /// The end is written: line, SIMs and swap in one transaction.
    Finished {
        /// Whether the customer gets a mail if the end is an ERROR; see [`tells_of_end`](crate::tells_of_end).
        tell: bool,
    },
    /// The network completed the order after the end of the swap, and this cannot be written: the new SIM or the line
    /// belongs to another swap or line.
    Disputed,
    /// The secrets of the swap are erased.
    Erased,
    /// The personal data of the swap are erased.
    Anonymised,
}

/// How far a caller's report that a profile is installed is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportTrust {
    /// As it is.
    Full,
    /// If the SM-DP+, which can be asked, does not contradict it.
    Checked,
    /// If the SM-DP+ reported a download some time ago.
    AfterDownload,
    /// As it is, because the caller answers for it, once no download is being installed.
    Vouched,
}

/// Why a fact changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// This fact or a later one has already been applied.
    #[error("already known")]
    AlreadyApplied,
    /// The swap has ended.
    #[error("the swap has ended")]
    Ended,
    /// The fact is dated before the order of this swap: it belongs to an earlier order of the same profile.
    #[error("dated before this swap")]
    StaleCallback,
    /// Another invocation holds the claim, or no call is due.
    #[error("claimed by another")]
    ClaimedByOther,
    /// The network has started, or may have started, or the swap already ends for another reason.
    #[error("too late")]
    TooLate,
    /// The fact cannot happen in this phase or to this kind of swap.
    #[error("not possible in this phase")]
    NotPossible,
    /// Another request about the profile, or the download of the profile, has not been completed.
    #[error("too early")]
    TooEarly,
    /// No activation code is known to work. The code has to be renewed.
    #[error("no activation code works")]
    NoCode,
    /// The caller's report is not believed.
    #[error("not believed")]
    NotBelieved,
    /// The code has been renewed, or its installation reported, too often. The same is possible again from this time
    /// on, if ever.
    #[error("too often")]
    TooOften(Option<Timestamp>),
}

/// The step that is due for a swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Claim the swap and make these calls.
    Call(PeerCall),
    /// Write the reminder.
    Remind,
    /// Write that the time limit has passed.
    GiveUp(FailureCode),
    /// Write the end.
    Finish,
    /// Erase the secrets, and write that they are erased.
    Erase,
    /// Erase the personal data and the secrets.
    Anonymise,
    /// Nothing before this time: there is a claim, a pause after a failed attempt, or a phone or a peer has to act.
    WaitUntil(Timestamp),
    /// Nothing, ever.
    Nothing,
}

/// Calls to the peers. Nobody makes them without a claim that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerCall {
    /// Place the orders.
    Order,
    /// Let the network start.
    Start,
    /// Poll the peers for the state of their orders.
    Poll,
    /// Carry out the caller's request about the profile.
    Request,
    /// Cancel or settle the orders at both peers.
    Cancel,
}

/// What happens to the new SIM of a swap that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SimFate {
    /// It becomes free, and can be used from this time on.
    FreeFrom(Timestamp),
    /// The same, but it joins no pool: only a caller who names it gets it.
    NamedFrom(Timestamp),
    /// It becomes free from this time on, but is kept for its line.
    KeptFrom(Timestamp),
    /// It is never used again: a phone has the profile or may have it, or its state is unknown.
    Disabled,
}

/// Applies a fact to a swap. The result has the next version.
///
/// # Errors
/// When the fact changes nothing; the swap stays as it is.
pub fn apply(
    activation: &Activation,
    fact: &Fact,
    deadlines: &Deadlines,
    at: Timestamp,
) -> Result<Activation, Rejected> {
    let mut a = activation.clone();
    if !a.phase.is_open() {
        return apply_after_end(a, fact, deadlines, at);
    }
    match fact {
        Fact::Claimed(claim) => {
            if let Some(held) = a.claim.as_mut().filter(|held| held.token == claim.token) {
                if claim.until <= held.until {
                    return Err(Rejected::AlreadyApplied);
                }
                // Its calls are still in progress. Nothing that callers see has changed.
                held.until = claim.until;
                a.schedule_sweep(deadlines, at);
                a.version += 1;
                return Ok(a);
            }
            // The loser of a race must not make the calls of a step that is done.
            if !matches!(next(&a, deadlines, at), Step::Call(_)) {
                return Err(Rejected::ClaimedByOther);
            }
            if a.phase == Phase::Accepted {
                a.enter(Phase::Ordering);
                a.ordering_since = Some(at);
                a.note(at, "ordering");
            }
            let starts = next(&a, deadlines, at) == Step::Call(PeerCall::Start);
            if let Some(expired) = a.claim.take() {
                a.note_interruption(expired.until, deadlines);
            }
            if starts && a.start == StartCall::None {
                a.start = StartCall::Claimed;
            }
            a.claim = Some(claim.clone());
            a.wake_at = None;
        }
        Fact::Ordered { order_number, smdp } => {
            match a.phase {
                Phase::Ordering | Phase::Ending => {}
                Phase::Accepted => return Err(Rejected::NotPossible),
                _ => return Err(Rejected::AlreadyApplied),
            }
            // An event may arrive before the response to the order. Then the network is polled at once.
            let event_arrived = a.wake_at.is_some();
            a.claim = None;
            a.unconfirmed_order_number = None;
            a.missing_since = None;
            a.order_number.get_or_insert_with(|| order_number.clone());
            if a.kind == SwapKind::Esim {
                a.profile_order = ProfileOrder::Placed;
                a.profile = max(a.profile, Some(ProfileState::Released));
                a.smdp = smdp.clone();
            }
            let reached = match a.kind {
                SwapKind::Esim => NetworkOrder::Placed,
                SwapKind::Physical => NetworkOrder::Started,
            };
            // An order that is placed after the cancellation that settled it has to be settled again.
            a.network_order = match a.network_order {
                NetworkOrder::Settled => reached,
                known => max(known, reached),
            };
            if a.phase == Phase::Ending {
                a.wake_at = Some(at);
                a.note(at, format!("ordered as {order_number}, to be cancelled"));
            } else {
                a.note(at, format!("ordered as {order_number}"));
                a.mails = u32::from(a.kind == SwapKind::Esim);
                a.enter(if a.network_order >= NetworkOrder::Started {
                    Phase::Started
                } else {
                    Phase::Ordered
                });
                // If the profile is installed already, the network can start at once.
                if event_arrived {
                    a.wake_at = Some(at);
                } else if a.phase == Phase::Started || a.profile != Some(ProfileState::Installed) {
                    a.back_off(deadlines.poll_after, deadlines, at);
                }
            }
        }
        Fact::OrderFound { order_number } => {
            if a.phase != Phase::Ending || a.order_number.is_some() {
                return Err(Rejected::AlreadyApplied);
            }
            a.order_number = Some(order_number.clone());
            a.network_order = max(a.network_order, NetworkOrder::Placed);
            a.unconfirmed_order_number = None;
            a.wake_at = Some(at);
            a.note(at, format!("ordered as {order_number}, to be cancelled"));
        }
        // An earlier fact has released the claim and scheduled the next step.
        Fact::TryFailed(_) | Fact::Interrupted | Fact::Polled(_) if a.claim.is_none() => {
            return Err(Rejected::AlreadyApplied);
        }
        Fact::TryFailed(failed) => {
            match failed.as_ref().filter(|failed| failed.doubtful) {
                Some(failed) if a.may_be_placing_orders() => a.expect_late_order(Some(failed.peer), at, deadlines),
                Some(failed) if a.is_renewing() && failed.peer == Peer::Smdp => a.expect_late_renewal(at, deadlines),
                Some(_) => a.start.mark_doubtful(),
                None if a.start == StartCall::Claimed => a.start = StartCall::None,
                None => {}
            }
            a.back_off_after(failed.as_slice(), deadlines.retry_after, deadlines, at);
            // A report that cannot be checked must not stand in the way of other requests.
            if a.has_open_request() && !a.is_renewing() && a.tries >= REPORT_TRIES {
                a.set_request(ProfileRequestState::Refused);
                a.note_always(at, "report refused");
            }
        }
        Fact::Interrupted => {
            a.note_interruption(at, deadlines);
            a.back_off(deadlines.retry_after, deadlines, at);
        }
        Fact::GivenUp(failure) => {
            if next(&a, deadlines, at) != Step::GiveUp(*failure) {
                return Err(Rejected::NotPossible);
            }
            if let Some(expired) = a.claim.take() {
                a.note_interruption(expired.until, deadlines);
            }
            a.begin_ending(*failure, at);
        }
        Fact::OrderRejected { failure, call } => {
            a.note_or_count(at, call.describe());
            // The network rejected the order, and no earlier call can still place one.
            if *failure == FailureCode::NetworkRejected && !a.may_be_ordered() {
                a.network_order = NetworkOrder::Settled;
            }
            a.claim = None;
            if a.phase == Phase::Ending {
                a.wake_at = Some(at);
            } else {
                a.begin_ending(*failure, at);
            }
        }
        Fact::ProfileTaken => {
            if a.kind == SwapKind::Physical || a.profile_order != ProfileOrder::None {
                return Err(Rejected::NotPossible);
            }
            a.profile_order = ProfileOrder::Taken;
            a.claim = None;
            a.note(at, "smdp: the ICCID is taken");
            if a.phase == Phase::Ending {
                a.wake_at = Some(at);
            } else {
                a.begin_ending(FailureCode::ProfileRefused, at);
            }
        }
        Fact::CancelWanted { by } => {
            if a.phase == Phase::Ending && a.failure == Some(FailureCode::Cancelled) {
                return Err(Rejected::AlreadyApplied);
            }
            if !a.can_be_stopped() {
                return Err(Rejected::TooLate);
            }
            a.note(at, format!("{by} cancels"));
            a.begin_ending(FailureCode::Cancelled, at);
        }
        Fact::LineBlocked(blocker) => {
            if a.phase == Phase::Ending {
                return Err(Rejected::AlreadyApplied);
            }
            if !a.can_be_stopped() {
                return Err(Rejected::TooLate);
            }
            a.note(at, blocker.as_str());
            a.begin_ending(FailureCode::Stopped, at);
        }
        Fact::ResendWanted { by } => {
            if a.kind == SwapKind::Physical || a.phase < Phase::Ordered {
                return Err(Rejected::NotPossible);
            }
            if a.phase == Phase::Ending || a.profile == Some(ProfileState::Installed) {
                return Err(Rejected::TooLate);
            }
            if a.is_renewing() {
                return Err(Rejected::TooEarly);
            }
            if a.code_dead {
                return Err(Rejected::NoCode);
            }
            a.mails += 1;
            a.resends += 1;
            a.note(at, format!("{by} asks for another mail"));
        }
        Fact::RenewWanted { by, to } => {
            check_request(&a)?;
            if a.profile == Some(ProfileState::Installed) {
                return Err(Rejected::TooLate);
            }
            let last_day = a
                .renewals
                .iter()
                .filter(|then| **then > at - SignedDuration::from_hours(24));
            if a.renewals.len() >= RENEWALS_AT_MOST {
                return Err(Rejected::TooOften(None));
            }
            if last_day.clone().count() >= RENEWALS_A_DAY {
                let first = last_day.min().map(|then| *then + SignedDuration::from_hours(24));
                return Err(Rejected::TooOften(first));
            }
            a.renewals.push(at);
            a.renew_to = Some(to.clone());
            a.request = Some(ProfileRequest {
                kind: ProfileRequestKind::Renew,
                state: ProfileRequestState::Pending,
            });
            // Whoever wants a new code has not installed the profile after all.
            if a.phase == Phase::Ordered && a.start == StartCall::None {
                a.witness = None;
            }
            a.tries = 0;
            // A call of an earlier renewal must not be carried out in the middle of this one.
            a.wake(at);
            a.note_always(at, format!("{by} renews"));
        }
        Fact::CodeCancelled => {
            if !a.is_renewing() {
                return Err(Rejected::NotPossible);
            }
            a.set_request(ProfileRequestState::Cancelled);
            a.renewal_unknown = false;
            a.claim = None;
            a.tries = 0;
            // An abandoned cancellation must not cancel the new order.
            a.wake(at);
            a.note(at, "smdp: old code cancelled");
        }
        Fact::Renewed { smdp, dated } => {
            if !a.is_renewing() || !matches!(a.phase, Phase::Ordered | Phase::Started) {
                return Err(Rejected::NotPossible);
            }
            a.set_request(ProfileRequestState::Done);
            a.renew_to = None;
            a.renewal_unknown = false;
            a.code_dead = false;
            a.renewed_at = Some(*dated);
            a.profile_failure = None;
            a.phone_state = None;
            if a.profile != Some(ProfileState::Installed) {
                a.profile = Some(ProfileState::Released);
            }
            if smdp.is_some() {
                a.smdp = smdp.clone();
            }
            a.mails += 1;
            a.note_always(at, RENEWED);
            a.tries = 0;
            a.back_off(deadlines.poll_after, deadlines, at);
        }
        Fact::RenewalRefused { on_phone } => {
            if !a.is_renewing() {
                return Err(Rejected::NotPossible);
            }
            let may_be_dead = a.renewal_unknown || a.has_no_code_yet();
            a.refuse_renewal(at);
            if *on_phone {
                a.profile = max(a.profile, Some(ProfileState::Downloaded));
                a.note(at, "smdp: on a phone");
            } else if may_be_dead {
                // The next renewal may make a code that works.
                a.code_dead = true;
                a.renewal_unknown = true;
                a.profile_failure.get_or_insert(FailureCode::ProfileRefused);
            }
            a.tries = 0;
            a.back_off(deadlines.poll_after, deadlines, at);
        }
        Fact::ReportWanted {
            by,
            witness,
            note,
            trust,
        } => {
            let moves = a.phase == Phase::Started || a.phase == Phase::Ordered && a.may_start();
            if a.kind == SwapKind::Esim && moves {
                return Err(Rejected::AlreadyApplied);
            }
            check_request(&a)?;
            if a.phone_state == Some(PhoneState::Deleted) {
                return Err(Rejected::NotBelieved);
            }
            if a.reports >= REPORTS_AT_MOST {
                return Err(Rejected::TooOften(None));
            }
            let what = match note.as_str() {
                "" => format!("{by} reports: {}", witness.as_str()),
                note => format!("{by} reports: {}: {note}", witness.as_str()),
            };
            let state = match trust {
                ReportTrust::Full => ProfileRequestState::Done,
                ReportTrust::Checked => ProfileRequestState::Pending,
                ReportTrust::AfterDownload | ReportTrust::Vouched => {
                    let is_vouched = *trust == ReportTrust::Vouched;
                    match a.downloaded_at() {
                        Some(then) if at < then + BELIEVED_AFTER => return Err(Rejected::TooEarly),
                        None if !is_vouched => return Err(Rejected::NotBelieved),
                        _ => ProfileRequestState::Done,
                    }
                }
            };
            a.request = Some(ProfileRequest {
                kind: ProfileRequestKind::Report,
                state,
            });
            a.reports += 1;
            a.note_always(at, what);
            a.witness = Some(*witness).filter(|_| state == ProfileRequestState::Done);
            a.tries = 0;
            a.wake_at = Some(at);
        }
        Fact::ReportChecked { on_phone } => {
            let is_report = |request: ProfileRequest| request.kind == ProfileRequestKind::Report && request.is_open();
            if !a.request.is_some_and(is_report) {
                return Err(Rejected::NotPossible);
            }
            let is_likely = a.downloaded_at().is_some_and(|then| at >= then + BELIEVED_AFTER);
            a.claim = None;
            if *on_phone && is_likely {
                a.witness = Some(a.witness_reported());
                a.set_request(ProfileRequestState::Done);
                a.note_always(at, "report believed");
                a.tries = 0;
                a.wake_at = Some(at);
            } else {
                a.set_request(ProfileRequestState::Refused);
                a.note_always(at, "report refused");
                a.tries = 0;
                a.back_off(deadlines.poll_after, deadlines, at);
            }
        }
        Fact::Reminded => {
            if next(&a, deadlines, at) != Step::Remind {
                return Err(Rejected::NotPossible);
            }
            a.mails += 1;
            a.reminded = true;
            a.note(at, "reminder");
        }
        Fact::EidKnown { end } => {
            if a.kind == SwapKind::Physical {
                return Err(Rejected::NotPossible);
            }
            if a.eid_end.as_ref() == Some(end) {
                return Err(Rejected::AlreadyApplied);
            }
            a.eid_end = Some(end.clone());
        }
        // Phones report it of installed profiles only, whichever report was lost.
        Fact::PhoneChanged { state, dated } => {
            let is_current = check_life(&a, *dated)?;
            a.change_phone_state(*state, is_current, at)?;
            if is_current && *state != PhoneState::Deleted && advance_profile(&mut a, ProfileState::Installed).is_ok() {
                a.installed(at);
            }
        }
        Fact::Downloaded { dated } => {
            let is_current = check_life(&a, *dated)?;
            if a.profile == Some(ProfileState::Installed) {
                return Err(Rejected::AlreadyApplied);
            }
            a.note_report(*dated, DOWNLOADED)?;
            // A failed profile is downloaded again only after the failure.
            let after_failure = a.last_report(PROFILE_FAILED).is_none_or(|failed| *dated > failed);
            if is_current && after_failure {
                a.profile = Some(ProfileState::Downloaded);
                a.profile_failure = None;
            }
        }
        // The phone has the profile, whichever activation code it used.
        Fact::Installed { dated } => {
            check_date(&a, *dated)?;
            advance_profile(&mut a, ProfileState::Installed)?;
            a.installed(at);
            a.note(at, INSTALLED);
        }
        Fact::ProfileFailed { dated, failure, codes } => {
            let is_current = check_life(&a, *dated)?;
            let can_fail = matches!(a.phase, Phase::Ordering | Phase::Ordered | Phase::Started);
            if !can_fail || a.profile == Some(ProfileState::Installed) {
                return Err(Rejected::AlreadyApplied);
            }
            a.note_report(*dated, format!("{PROFILE_FAILED} {codes}").trim_end())?;
            // A download that is dated later shows that the failure was not the last word.
            let is_latest = a.last_report(DOWNLOADED).is_none_or(|downloaded| downloaded <= *dated);
            if is_current && is_latest {
                a.profile_failure = Some(*failure);
            }
        }
        Fact::WrongCode { dated } => {
            check_life(&a, *dated)?;
            if a.timeline.len() >= TIMELINE_CAP {
                return Err(Rejected::AlreadyApplied);
            }
            a.note_report(*dated, WRONG_CODE)?;
        }
        Fact::NetworkPlaced => {
            check_may_be_ordered(&a)?;
            if a.network_order >= NetworkOrder::Placed && a.missing_since.is_none() {
                return Err(Rejected::AlreadyApplied);
            }
            a.missing_since = None;
            a.network_order = max(a.network_order, NetworkOrder::Placed);
        }
        Fact::NetworkStarted => {
            check_may_be_ordered(&a)?;
            if a.network_order >= NetworkOrder::Started && a.missing_since.is_none() {
                return Err(Rejected::AlreadyApplied);
            }
            a.missing_since = None;
            if a.network_order < NetworkOrder::Started {
                a.network_order = NetworkOrder::Started;
                a.note(at, "network: started");
            }
            if a.phase == Phase::Ordered && a.has_open_request() {
                // The holder of the claim may be calling the SM-DP+.
                a.phase = Phase::Started;
            } else if a.phase == Phase::Ordered {
                a.claim = None;
                a.enter(Phase::Started);
                a.back_off(deadlines.poll_after, deadlines, at);
            }
        }
        Fact::NetworkCompleted { since, order_number } => {
            check_may_be_ordered(&a)?;
            if a.network_order == NetworkOrder::Completed {
                return Err(Rejected::AlreadyApplied);
            }
            a.complete(*since, order_number, at);
        }
        Fact::NetworkEnded(failure) => {
            check_may_be_ordered(&a)?;
            if a.network_order >= NetworkOrder::Settled {
                return Err(Rejected::AlreadyApplied);
            }
            a.network_order = NetworkOrder::Settled;
            // A call that arrives late finds this order and places no other.
            a.network_unknown_until = None;
            a.note(at, format!("network: {}", failure.as_str()));
            match a.phase {
                Phase::Ending => a.wake_at = Some(at),
                // The holder of the claim may still be calling the SM-DP+: the cancellation waits for it.
                Phase::Ordering => a.begin_ending(*failure, at),
                _ if a.is_renewing() => a.begin_ending(*failure, at),
                _ => {
                    a.claim = None;
                    a.begin_ending(*failure, at);
                }
            }
        }
        Fact::NetworkUnseen => {
            if a.phase != Phase::Ending || a.network_order != NetworkOrder::None {
                return Err(Rejected::NotPossible);
            }
            a.network_order = NetworkOrder::Settled;
            // The network has not confirmed that it has no order.
            a.expect_late_order(Some(Peer::Network), at, deadlines);
            a.note(at, "network: no order");
            a.wake_at = Some(at);
        }
        Fact::NetworkUnclear { order_number } => {
            check_may_be_ordered(&a)?;
            let is_new = a.order_number.is_none()
                && !order_number.is_empty()
                && a.unconfirmed_order_number.as_ref() != Some(order_number);
            let due = a.wake_at.map_or(a.claim.is_none(), |wake_at| wake_at <= at);
            if due && !is_new {
                return Err(Rejected::AlreadyApplied);
            }
            if is_new {
                a.unconfirmed_order_number = Some(order_number.clone());
            }
            a.wake(at);
        }
        Fact::NetworkMissing => {
            if a.ordering_since.is_none() || a.network_order >= NetworkOrder::Settled {
                return Err(Rejected::NotPossible);
            }
            let since = *a.missing_since.get_or_insert(at);
            a.note_or_count(at, "network: does not know the order".to_owned());
            if a.order_number.is_some() && at >= since + deadlines.poll_after {
                let gone = Fact::NetworkEnded(FailureCode::NetworkFailed);
                a = apply(&a, &gone, deadlines, at)?;
                // The network has not confirmed that the order ended.
                a.expect_late_order(Some(Peer::Network), at, deadlines);
                return Ok(a);
            }
        }
        Fact::Polled(failed) => {
            a.start.mark_doubtful();
            a.back_off_after(failed, deadlines.poll_after, deadlines, at);
            // A cancellation is final only when no abandoned call can order any more.
            let late_orders = [a.profile_unknown_until, a.network_unknown_until];
            let late_orders = late_orders.into_iter().flatten().filter(|until| *until > at);
            if a.phase == Phase::Ending && failed.is_empty() {
                a.wake_at = late_orders.chain(a.wake_at).min();
            }
        }
        Fact::ProfileSettled { on_phone } => {
            if a.phase != Phase::Ending || a.kind != SwapKind::Esim {
                return Err(Rejected::NotPossible);
            }
            if a.profile_order == ProfileOrder::Settled {
                return Err(Rejected::AlreadyApplied);
            }
            // After a cancellation, a call that arrives late may still order the profile again.
            if !on_phone && a.profile_unknown_until.is_some_and(|until| at < until) {
                return Err(Rejected::NotPossible);
            }
            a.profile_order = ProfileOrder::Settled;
            if *on_phone {
                a.profile = max(a.profile, Some(ProfileState::Downloaded));
            }
            a.note(
                at,
                if *on_phone {
                    "smdp: on a phone"
                } else {
                    "smdp: cancelled"
                },
            );
        }
        Fact::Postponed => {
            let overdue = a.due_at.is_none_or(|due| due <= at);
            if !overdue || !matches!(next(&a, deadlines, at), Step::WaitUntil(_)) {
                return Err(Rejected::AlreadyApplied);
            }
            // Nothing that callers see has changed.
            a.schedule_sweep(deadlines, at);
            a.version += 1;
            return Ok(a);
        }
        Fact::Erased | Fact::Anonymised | Fact::Disputed => return Err(Rejected::NotPossible),
        Fact::Finished { tell } => {
            if next(&a, deadlines, at) != Step::Finish {
                return Err(Rejected::NotPossible);
            }
            a.finish(deadlines, at);
            if *tell && a.phase == Phase::Error {
                a.mails += 1;
                a.note_always(at, "notice of the end");
            }
        }
    }
    if a.peer_state() != activation.peer_state() {
        a.progressed_at = at;
    }
    a.schedule_sweep(deadlines, at);
    a.modified_at = at;
    a.version += 1;
    Ok(a)
}

/// Applies a fact to a swap that has ended. If the network completes the order after an ERROR, the number has moved,
/// and the swap has to become DONE.
fn apply_after_end(
    mut a: Activation,
    fact: &Fact,
    deadlines: &Deadlines,
    at: Timestamp,
) -> Result<Activation, Rejected> {
    match fact {
        Fact::CancelWanted { .. } if a.failure == Some(FailureCode::Cancelled) => {
            return Err(Rejected::AlreadyApplied);
        }
        Fact::CancelWanted { .. } | Fact::ResendWanted { .. } | Fact::RenewWanted { .. } => {
            return Err(Rejected::TooLate);
        }
        Fact::ReportWanted { .. } if a.phase == Phase::Done => return Err(Rejected::AlreadyApplied),
        Fact::ReportWanted { .. } => return Err(Rejected::TooLate),
        Fact::Erased if next(&a, deadlines, at) == Step::Erase => {
            a.due_at = a.anonymise_at(deadlines);
            a.code_dead = a.kind == SwapKind::Esim;
            a.version += 1;
            return Ok(a);
        }
        Fact::Anonymised if next(&a, deadlines, at) == Step::Anonymise => {
            a.anonymise();
            a.due_at = None;
            a.version += 1;
            return Ok(a);
        }
        // Without its personal data, the swap cannot be corrected any more.
        _ if a.is_anonymous() => return Err(Rejected::Ended),
        // Support sees what became of the eSIM for as long as the secrets are stored.
        Fact::PhoneChanged { state, dated } if a.phase == Phase::Done && a.stores_secrets(deadlines, at) => {
            let is_current = check_life(&a, *dated)?;
            a.change_phone_state(*state, is_current, at)?;
            a.modified_at = at;
            a.version += 1;
            return Ok(a);
        }
        Fact::Postponed
            if a.is_contradicted()
                && a.due_at.is_none_or(|due| due <= at)
                && matches!(next(&a, deadlines, at), Step::WaitUntil(_)) => {}
        Fact::NetworkCompleted { since, order_number } if a.phase == Phase::Error && a.ordering_since.is_some() => {
            if a.network_order == NetworkOrder::Completed {
                return Err(Rejected::AlreadyApplied);
            }
            a.complete(*since, order_number, at);
        }
        Fact::NetworkUnclear { order_number }
            if a.phase == Phase::Error
                && a.ordering_since.is_some()
                && a.order_number.is_none()
                && a.unconfirmed_order_number.is_none()
                && !order_number.is_empty() =>
        {
            a.unconfirmed_order_number = Some(order_number.clone());
            a.tries = 0;
            a.wake_at = Some(at);
        }
        Fact::Claimed(claim) if matches!(next(&a, deadlines, at), Step::Call(_)) => {
            a.claim = Some(claim.clone());
            a.wake_at = None;
        }
        Fact::Polled(_) | Fact::TryFailed(_) | Fact::Interrupted if a.claim.is_some() => {
            let failed = match fact {
                Fact::Polled(failed) => failed,
                Fact::TryFailed(failed) => failed.as_slice(),
                _ => &[],
            };
            a.back_off_after(failed, deadlines.poll_after, deadlines, at);
            let polled = *fact == Fact::Polled(Vec::new());
            let too_late = a.ended_at.is_none_or(|ended| ended + deadlines.settle_within <= at);
            if polled || too_late {
                // The order that the network named is not ours, or has not moved the number.
                a.unconfirmed_order_number = None;
                a.wake_at = None;
            }
        }
        // The swap was stopped to protect the line, so the operator has to decide.
        Fact::Finished { .. } if a.failure == Some(FailureCode::Stopped) => {
            return Err(Rejected::NotPossible);
        }
        Fact::Finished { .. } if next(&a, deadlines, at) == Step::Finish => a.finish(deadlines, at),
        Fact::Disputed if next(&a, deadlines, at) == Step::Finish => {
            a.disputed = true;
            a.wake_at = None;
            a.timeline.push(TimelineEntry::new(at, "network: completed, disputed"));
        }
        _ => return Err(Rejected::Ended),
    }
    if a.is_contradicted() {
        a.schedule_sweep(deadlines, at);
    } else {
        a.due_at = a.erase_at(deadlines);
    }
    a.modified_at = at;
    a.version += 1;
    Ok(a)
}

/// Checks that a report of the SM-DP+ can concern this swap. Clocks differ by at most `MAX_CLOCK_DIFFERENCE`, and
/// earlier orders of the same profile are older than that. Dates of SGP.22 have whole seconds, so ours is truncated.
fn check_date(a: &Activation, dated: Timestamp) -> Result<(), Rejected> {
    if a.kind == SwapKind::Physical {
        return Err(Rejected::NotPossible);
    }
    let since = a.ordering_since.ok_or(Rejected::StaleCallback)?;
    if dated.as_second() < (since - MAX_CLOCK_DIFFERENCE).as_second() {
        return Err(Rejected::StaleCallback);
    }
    Ok(())
}

/// Checks that a report of the SM-DP+ can concern this swap, and returns whether it concerns the current activation
/// code. After a renewal, only what is dated after it does, and no report concerns a code that is dead.
fn check_life(a: &Activation, dated: Timestamp) -> Result<bool, Rejected> {
    check_date(a, dated)?;
    let is_dead = a.code_dead || a.has_no_code_yet();
    Ok(!is_dead
        && a.renewed_at
            .is_none_or(|renewed| dated.as_second() > renewed.as_second()))
}

/// Checks that a caller can request something about the profile now.
fn check_request(a: &Activation) -> Result<(), Rejected> {
    match a.phase {
        _ if a.kind == SwapKind::Physical => Err(Rejected::NotPossible),
        Phase::Accepted | Phase::Ordering => Err(Rejected::TooEarly),
        Phase::Ordered | Phase::Started if a.has_open_request() => Err(Rejected::TooEarly),
        Phase::Ordered | Phase::Started => Ok(()),
        _ => Err(Rejected::TooLate),
    }
}

/// Checks that a report of the network can concern this swap: an order exists only after the first claim.
fn check_may_be_ordered(a: &Activation) -> Result<(), Rejected> {
    a.ordering_since.map(|_| ()).ok_or(Rejected::NotPossible)
}

fn advance_profile(a: &mut Activation, state: ProfileState) -> Result<(), Rejected> {
    if a.profile >= Some(state) {
        return Err(Rejected::AlreadyApplied);
    }
    a.profile = Some(state);
    Ok(())
}

/// What an event about the network's order `order_number` means for a swap.
///
/// If the swap has another order, or its order is not known because the response is outstanding or lost, the event only
/// causes a poll, and the fact is an owned one. After the swap's end, only a completed order is worth a poll; any other
/// event is returned as it is, and [`apply`] rejects it.
pub fn fact_of_event<'a>(a: &Activation, fact: &'a Fact, order_number: &str) -> Cow<'a, Fact> {
    let is_own_order = a.order_number.as_deref() == Some(order_number);
    let worth_a_poll = a.phase.is_open() || matches!(fact, Fact::NetworkCompleted { .. });
    if is_own_order || !worth_a_poll {
        return Cow::Borrowed(fact);
    }
    Cow::Owned(Fact::NetworkUnclear {
        order_number: order_number.to_owned(),
    })
}

/// The step that is due for a swap at `now`.
pub fn next(a: &Activation, deadlines: &Deadlines, now: Timestamp) -> Step {
    let claim = a.claim.as_ref().filter(|claim| claim.until > now);
    let mut pause = a.wake_at.filter(|wake_at| *wake_at > now);
    if !a.phase.is_open() {
        if a.is_contradicted() {
            return match (a.network_order, claim) {
                (NetworkOrder::Completed, _) => Step::Finish,
                (_, Some(claim)) => Step::WaitUntil(claim.until),
                (_, None) => pause.map_or(Step::Call(PeerCall::Poll), Step::WaitUntil),
            };
        }
        return match a.due_at {
            Some(due) if due > now => Step::WaitUntil(due),
            Some(_) if a.anonymise_at(deadlines).is_some_and(|then| then <= now) => Step::Anonymise,
            Some(_) => Step::Erase,
            None => Step::Nothing,
        };
    }
    // Writing the end needs no claim. But the holder of a claim to order still has to write the profile and its mail.
    // If the old code is dead, the customer needs the new one to use the number.
    let is_ordering = claim.is_some() && (a.phase == Phase::Ordering || a.is_renewing());
    let needs_code = a.has_no_code_yet() && now < a.progressed_at + deadlines.settle_within;
    if a.network_order == NetworkOrder::Completed && !is_ordering {
        return match needs_code {
            true => pause.map_or(Step::Call(PeerCall::Request), Step::WaitUntil),
            false => Step::Finish,
        };
    }
    if a.phase == Phase::Ending && a.is_settled() {
        return Step::Finish;
    }
    if let Some(claim) = claim {
        return Step::WaitUntil(claim.until);
    }
    let unsettled = (a.progressed_at + deadlines.settle_within, FailureCode::Unsettled);
    let (step, (expiry, failure)) = match a.phase {
        Phase::Accepted | Phase::Ordering => {
            // If the last attempt left its claim, the fault is ours. If it failed, the fault is a peer's.
            let failure = match a.claim {
                Some(_) => FailureCode::Internal,
                None => FailureCode::Unavailable,
            };
            (
                Step::Call(PeerCall::Order),
                (a.created_at + deadlines.order_within, failure),
            )
        }
        Phase::Started if a.has_open_request() => (Step::Call(PeerCall::Request), unsettled),
        Phase::Ordered if a.may_start() => (Step::Call(PeerCall::Start), unsettled),
        Phase::Ordered => {
            let expiry = a.expires_at(deadlines.install_within);
            let failure = a.profile_failure.unwrap_or(FailureCode::Expired);
            if a.has_open_request() {
                (Step::Call(PeerCall::Request), (expiry, failure))
            } else {
                let remind_at = a.remind_at(deadlines);
                if remind_at.is_some_and(|then| then <= now) && now < expiry {
                    return Step::Remind;
                }
                pause = pause.map(|wake_at| remind_at.map_or(wake_at, |then| wake_at.min(then)));
                (Step::Call(PeerCall::Poll), (expiry, failure))
            }
        }
        Phase::Started => (Step::Call(PeerCall::Poll), unsettled),
        Phase::Ending => (Step::Call(PeerCall::Cancel), unsettled),
        Phase::Done | Phase::Error => return Step::Nothing,
    };
    if expiry <= now {
        Step::GiveUp(failure)
    } else {
        pause.map_or(step, |wake_at| Step::WaitUntil(wake_at.min(expiry)))
    }
}

impl StartCall {
    /// A claimed call may have been carried out: its outcome is unknown.
    fn mark_doubtful(&mut self) {
        if *self == Self::Claimed {
            *self = Self::Doubtful;
        }
    }
}

impl Activation {
    /// What happens to the new SIM when the swap ends in ERROR at `at`. `shown_before`: whether an earlier swap has shown
    /// its codes. `keeps_another`: whether the line already keeps a SIM of this kind.
    pub fn fate_of_new_sim(
        &self,
        shown_before: bool,
        keeps_another: bool,
        deadlines: &Deadlines,
        at: Timestamp,
    ) -> SimFate {
        let on_phone = self.profile >= Some(ProfileState::Downloaded) || self.witness.is_some();
        if self.failure == Some(FailureCode::Unsettled) || self.profile_order == ProfileOrder::Taken || on_phone {
            return SimFate::Disabled;
        }
        let from = if self.kind == SwapKind::Esim && self.ordering_since.is_some() {
            at + deadlines.sim_cooldown
        } else if self.network_unknown_until.is_some() {
            at + deadlines.call_lifetime
        } else {
            at
        };
        // A caller who named the SIM has the card.
        let named = self.requested.new_sim.as_ref() == Some(&self.new_sim);
        match (self.codes_shown, named) {
            // Otherwise a caller who swaps and cancels repeatedly could collect the pool's SIMs on a line.
            (true, false) if keeps_another => SimFate::Disabled,
            (true, false) => SimFate::KeptFrom(from),
            (true, true) => SimFate::NamedFrom(from),
            (false, _) if shown_before => SimFate::NamedFrom(from),
            (false, _) => SimFate::FreeFrom(from),
        }
    }

    /// Whether the network has certainly not been requested to move the number.
    fn can_be_stopped(&self) -> bool {
        let is_early = match (self.phase, self.kind) {
            (Phase::Accepted, _) | (Phase::Ordering | Phase::Ordered, SwapKind::Esim) => true,
            // The network starts the order of a card without a start call.
            (Phase::Ordering, SwapKind::Physical) => self.claim.is_none() && !self.may_be_ordered(),
            _ => false,
        };
        is_early && self.start == StartCall::None && self.network_order < NetworkOrder::Started
    }

    /// Whether the swap can end in ERROR: both orders are settled, or we stopped waiting for that.
    fn is_settled(&self) -> bool {
        let untouched = self.ordering_since.is_none();
        let profile = self.kind == SwapKind::Physical
            || matches!(self.profile_order, ProfileOrder::Settled | ProfileOrder::Taken);
        let given_up = self.failure == Some(FailureCode::Unsettled);
        given_up || untouched || (profile && self.network_order == NetworkOrder::Settled)
    }

    /// Sets the state of the caller's request.
    fn set_request(&mut self, state: ProfileRequestState) {
        if let Some(request) = &mut self.request {
            request.state = state;
        }
    }

    /// Ends a request that was not completed. A renewal cannot be `Done` unless there is a new code.
    fn close_request(&mut self, state: ProfileRequestState) {
        if self.is_renewing() {
            self.set_request(ProfileRequestState::Refused);
        } else if self.has_open_request() {
            self.set_request(state);
        }
        self.renew_to = None;
    }

    fn refuse_renewal(&mut self, at: Timestamp) {
        self.set_request(ProfileRequestState::Refused);
        self.renew_to = None;
        self.note_always(at, "renewal refused");
    }

    /// The phone has the profile: the network can start, and a request of a caller about the profile is settled.
    fn installed(&mut self, at: Timestamp) {
        self.profile_failure = None;
        self.code_dead = false;
        match self
            .request
            .filter(|request| request.is_open())
            .map(|request| request.kind)
        {
            Some(ProfileRequestKind::Renew) => self.refuse_renewal(at),
            Some(ProfileRequestKind::Report) => self.set_request(ProfileRequestState::Done),
            None => {}
        }
        if matches!(self.phase, Phase::Ordered | Phase::Started) {
            self.tries = 0;
            self.wake_at = Some(at);
        }
    }

    /// Records what a phone reports, as the state of the eSIM if it concerns the current activation code.
    fn change_phone_state(&mut self, state: PhoneState, is_current: bool, at: Timestamp) -> Result<(), Rejected> {
        // A deleted profile cannot be used again.
        if is_current && [Some(state), Some(PhoneState::Deleted)].contains(&self.phone_state) {
            return Err(Rejected::AlreadyApplied);
        }
        if is_current {
            self.phone_state = Some(state);
        }
        self.note_or_count(at, format!("smdp: {}", state.as_str()));
        Ok(())
    }

    /// When we learnt that the profile is downloaded, by our own clock; `None` if it is not, or has failed since.
    fn downloaded_at(&self) -> Option<Timestamp> {
        let is_downloaded = self.profile >= Some(ProfileState::Downloaded) && self.profile_failure.is_none();
        is_downloaded.then_some(self.progressed_at)
    }

    /// The SM-DP+'s date of its last report of this kind.
    fn last_report(&self, what: &str) -> Option<Timestamp> {
        let reports = self.timeline.iter().filter(|entry| entry.what.starts_with(what));
        reports.map(|entry| entry.last).max()
    }

    /// What is known about the eSIM, and since when. `mailed_at` is when the last mail was written, if it has left us.
    pub fn esim_state(&self, mailed_at: Option<Timestamp>, now: Timestamp) -> (EsimState, Option<Timestamp>) {
        const SILENCE: SignedDuration = SignedDuration::from_hours(1);
        if let Some(state) = self.phone_state {
            let shown = match state {
                PhoneState::Enabled => EsimState::Enabled,
                PhoneState::Disabled => EsimState::Disabled,
                PhoneState::Deleted => EsimState::Deleted,
            };
            return (shown, self.last_report(&format!("smdp: {}", state.as_str())));
        }
        match self.profile {
            Some(ProfileState::Installed) => (EsimState::Installed, self.last_report(INSTALLED)),
            _ if self.profile_failure.is_some() => (EsimState::Failed, self.last_report(PROFILE_FAILED)),
            Some(ProfileState::Downloaded) => (EsimState::Downloaded, self.last_report(DOWNLOADED)),
            _ => {
                let since = self.last_report(RENEWED).or(self.last_report("ordered as"));
                let is_silent = mailed_at.is_some_and(|mailed| now >= mailed + SILENCE);
                match self.phase.is_open() && is_silent && self.wrong_codes() == 0 {
                    true => (EsimState::Unknown, since),
                    false => (EsimState::Released, since),
                }
            }
        }
    }

    /// How many times a wrong confirmation code was entered, as far as it was reported.
    pub fn wrong_codes(&self) -> u32 {
        self.count_reports(WRONG_CODE)
    }

    /// How many times the profile was downloaded, as far as it was reported.
    pub fn downloads(&self) -> u32 {
        self.count_reports(DOWNLOADED)
    }

    fn count_reports(&self, what: &str) -> u32 {
        let reports = self.timeline.iter().filter(|entry| entry.what == what);
        reports.map(|entry| entry.count).sum()
    }

    /// Whoever the pending report names.
    fn witness_reported(&self) -> Witness {
        let named = |entry: &TimelineEntry| {
            let (_, report) = entry.what.split_once(" reports: ")?;
            report.split(':').next()?.parse().ok()
        };
        self.timeline.iter().rev().find_map(named).unwrap_or(Witness::Customer)
    }

    /// When the reminder is due; `None` if there is none.
    fn remind_at(&self, deadlines: &Deadlines) -> Option<Timestamp> {
        let remind_at = self.expires_at(deadlines.install_within) - deadlines.remind_before;
        // A code that was used or has failed is of no use.
        let is_needed = !self.reminded
            && !self.code_dead
            && self.mails > 0
            && self.profile < Some(ProfileState::Downloaded)
            && self.profile_failure.is_none();
        // A reminder that would follow the first mail at once is none.
        (is_needed && remind_at > self.created_at).then_some(remind_at)
    }

    /// Whether the secrets of an ended swap are stored.
    fn stores_secrets(&self, deadlines: &Deadlines, at: Timestamp) -> bool {
        self.ended_at.is_some_and(|ended| at < ended + deadlines.code_kept)
    }

    /// Adds a report of the SM-DP+ with the SM-DP+'s date, by which a repeated report is recognised.
    fn note_report(&mut self, dated: Timestamp, what: &str) -> Result<(), Rejected> {
        // The timeline is stored in milliseconds; the date may be more precise.
        let is_same = |entry: &TimelineEntry| entry.what == what && entry.at.as_millisecond() == dated.as_millisecond();
        if self.timeline.iter().any(is_same) {
            return Err(Rejected::AlreadyApplied);
        }
        self.note(dated, what);
        Ok(())
    }

    /// Adds an entry to the timeline even if it is full.
    fn note_always(&mut self, at: Timestamp, what: impl Into<String>) {
        self.timeline.push(TimelineEntry::new(at, what));
    }

    /// Adds an entry to the timeline, unless it is full.
    fn note(&mut self, at: Timestamp, what: impl Into<String>) {
        if self.timeline.len() < TIMELINE_CAP {
            self.timeline.push(TimelineEntry::new(at, what));
        }
    }

    /// Counts up the timeline entry with the same text, or adds one.
    fn note_or_count(&mut self, at: Timestamp, what: String) {
        count_or_add(&mut self.timeline, at, &what);
    }

    /// Enters a phase, in which no attempt has been made yet.
    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.tries = 0;
        self.wake_at = None;
    }

    /// Enters the phase `Ending`. The reason is always added to the timeline.
    fn begin_ending(&mut self, failure: FailureCode, at: Timestamp) {
        self.failure = Some(failure);
        self.close_request(ProfileRequestState::Refused);
        self.enter(Phase::Ending);
        self.wake_at = Some(at);
        self.timeline
            .push(TimelineEntry::new(at, format!("ending: {}", failure.as_str())));
    }

    /// Releases the claim and schedules the next attempt, unless a fact that arrived during the claim has scheduled it.
    fn back_off(&mut self, first: SignedDuration, deadlines: &Deadlines, at: Timestamp) {
        let is_scheduled = self.claim.take().is_some() && self.wake_at.is_some();
        if !is_scheduled {
            self.wake_at = Some(at + deadlines.backoff(first, self.tries));
        }
        self.tries += 1;
    }

    /// Does the same after these failed calls, and waits at least as long as the peers want.
    fn back_off_after(&mut self, failed: &[FailedCall], first: SignedDuration, deadlines: &Deadlines, at: Timestamp) {
        self.back_off(first, deadlines, at);
        for call in failed {
            self.note_or_count(at, call.describe());
            if let Some(wait) = call.retry_after {
                self.wake_at = max(self.wake_at, Some(at + wait));
            }
        }
    }

    /// Whether the holder of the claim may be placing orders. A cancellation can arrive in the meantime.
    fn may_be_placing_orders(&self) -> bool {
        matches!(self.phase, Phase::Ordering | Phase::Ending)
    }

    /// The holder of the claim was interrupted at `at`, during its calls.
    fn note_interruption(&mut self, at: Timestamp, deadlines: &Deadlines) {
        self.note_or_count(at, "cut off".to_owned());
        self.start.mark_doubtful();
        if self.may_be_placing_orders() {
            self.expect_late_order(None, at, deadlines);
        } else if self.is_renewing() {
            self.expect_late_renewal(at, deadlines);
        }
    }

    /// A call of a renewal that was abandoned at `at` may still be carried out, and may have been.
    fn expect_late_renewal(&mut self, at: Timestamp, deadlines: &Deadlines) {
        self.renewal_unknown |= !self.has_no_code_yet();
        self.expect_late_order(Some(Peer::Smdp), at, deadlines);
    }

    /// Makes the next step due, but a step of a renewal only once no abandoned call to the SM-DP+ can be carried out any
    /// more.
    fn wake(&mut self, at: Timestamp) {
        self.wake_at = match self.is_renewing() {
            true => max(Some(at), self.profile_unknown_until),
            false => Some(at),
        };
    }

    /// A call that was abandoned at `at` may still place an order at this peer, or at either peer for `None`.
    fn expect_late_order(&mut self, peer: Option<Peer>, at: Timestamp, deadlines: &Deadlines) {
        let until = Some(at + deadlines.call_lifetime);
        if peer != Some(Peer::Network) && self.kind == SwapKind::Esim {
            self.profile_unknown_until = max(self.profile_unknown_until, until);
        }
        if peer != Some(Peer::Smdp) {
            self.network_unknown_until = max(self.network_unknown_until, until);
        }
    }

    /// The part of the record that changes when a peer makes progress.
    fn peer_state(&self) -> impl PartialEq + use<> {
        let orders = (self.profile_order, self.network_order);
        (self.phase, self.profile, self.profile_failure, self.witness, orders)
    }

    /// The network completed the order at `since`, by its own clock.
    fn complete(&mut self, since: Timestamp, order_number: &str, at: Timestamp) {
        self.network_order = NetworkOrder::Completed;
        self.order_number.get_or_insert_with(|| order_number.to_owned());
        self.unconfirmed_order_number = None;
        // A date before the request or in the future is wrong: ours is closer.
        let is_plausible = since >= self.created_at && since <= at;
        self.activated_at = Some(if is_plausible { since } else { at });
        self.wake_at = Some(at);
        self.note(at, "network: completed");
    }

    /// Ends the swap, in DONE if the network completed the order, otherwise in ERROR.
    fn finish(&mut self, deadlines: &Deadlines, at: Timestamp) {
        self.claim = None;
        // A network that could not be asked about this order until now may answer later.
        if self.failure != Some(FailureCode::Unsettled) || self.network_order == NetworkOrder::Completed {
            self.unconfirmed_order_number = None;
        }
        if self.network_order == NetworkOrder::Completed {
            self.close_request(ProfileRequestState::Done);
            self.enter(Phase::Done);
            self.failure = None;
        } else {
            self.enter(Phase::Error);
        }
        self.ended_at = Some(at);
        self.timeline.push(TimelineEntry::new(at, self.phase.as_str()));
        self.due_at = self.erase_at(deadlines);
        if self.is_contradicted() {
            self.schedule_sweep(deadlines, at);
        }
    }

    /// When the personal data of an ended swap are due for erasure; `None` once they are erased.
    fn anonymise_at(&self, deadlines: &Deadlines) -> Option<Timestamp> {
        let ended = self.ended_at.filter(|_| !self.is_anonymous())?;
        Some(ended + deadlines.records_kept)
    }

    /// When the next erasure of an ended swap is due.
    fn erase_at(&self, deadlines: &Deadlines) -> Option<Timestamp> {
        let has_secrets = self.kind == SwapKind::Esim || self.requested.has_code;
        let secrets = self
            .ended_at
            .filter(|_| has_secrets)
            .map(|ended| ended + deadlines.code_kept);
        secrets.into_iter().chain(self.anonymise_at(deadlines)).min()
    }

    /// Whether the network reported a completion, or an order that may be ours, after the swap ended in ERROR, and the
    /// report has not been processed.
    fn is_contradicted(&self) -> bool {
        self.phase == Phase::Error
            && !self.disputed
            && (self.network_order == NetworkOrder::Completed || self.unconfirmed_order_number.is_some())
    }

    /// Makes sure that the sweeper reads the swap in time.
    fn schedule_sweep(&mut self, deadlines: &Deadlines, at: Timestamp) {
        let wanted = match next(self, deadlines, at) {
            Step::WaitUntil(then) => Some(then),
            // The writer of the row takes the step, or else the stream consumer does.
            _ => Some(at + deadlines.lease),
        };
        let is_in_time = self.due_at.is_some_and(|due| at < due && Some(due) <= wanted);
        if !is_in_time {
            self.due_at = wanted;
        }
    }
}

#[cfg(test)]
mod tests;
