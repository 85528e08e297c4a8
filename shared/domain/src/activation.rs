//! The record of one swap and its lifecycle: `apply` takes a fact in, `next` says what is to be done.

use std::cmp::max;
use std::fmt;
use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};
use ulid::Ulid;

use crate::{
    EmailAddress, Iccid, Language, Line, Malformed, Msisdn, NetworkName, SmDpAddress, SubscriptionId, SwapBlocker,
};

/// Name of an activation: opaque, of `[A-Za-z0-9_-]`, with 80 random bits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ActivationId(String);

impl ActivationId {
    /// A new one: a ULID, which sorts by its time and takes 80 of the given bits.
    pub fn from_random(at: Timestamp, random: u128) -> Self {
        let millis = u64::try_from(at.as_millisecond()).unwrap_or(0);
        Self(Ulid::from_parts(millis, random).to_string())
    }

    /// Takes one from outside: 1 to 64 of `[A-Za-z0-9_-]`.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let fits = (1..=64).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        fits.then(|| Self(text.to_owned()))
            .ok_or(Malformed("must be 1 to 64 of A-Z, a-z, 0-9, _ and -"))
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ActivationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the line moves to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SwapKind {
    /// A profile, ordered at the SM-DP+ and sent by mail.
    Esim,
    /// A card that the customer has or gets.
    Physical,
}

/// Where a swap is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Written; nobody outside knows of it.
    Accepted,
    /// Calls to the SM-DP+ and the network may be under way.
    Ordering,
    /// Ordered on both sides; an eSIM waits for the phone.
    Ordered,
    /// The network moves the number: no way back from our side.
    Started,
    /// On its way to ERROR: both sides are being told.
    Ending,
    /// The new SIM works.
    Done,
    /// The old SIM still works.
    Error,
}

impl Phase {
    const ALL: [Self; 7] = [
        Self::Accepted,
        Self::Ordering,
        Self::Ordered,
        Self::Started,
        Self::Ending,
        Self::Done,
        Self::Error,
    ];

    /// As stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Ordering => "ordering",
            Self::Ordered => "ordered",
            Self::Started => "started",
            Self::Ending => "ending",
            Self::Done => "done",
            Self::Error => "error",
        }
    }

    /// Whether the swap has not ended.
    pub fn is_open(self) -> bool {
        !matches!(self, Self::Done | Self::Error)
    }
}

impl FromStr for Phase {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        Self::ALL
            .into_iter()
            .find(|phase| phase.as_str() == text)
            .ok_or(Malformed("must be a phase"))
    }
}

/// What the outside sees of the phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Accepted, not ordered yet.
    Init,
    /// Ordered.
    Busy,
    /// Ended well.
    Done,
    /// Ended badly.
    Error,
}

impl Status {
    /// As the dialect writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Init => "INIT",
            Self::Busy => "BUSY",
            Self::Done => "DONE",
            Self::Error => "ERROR",
        }
    }
}

impl FromStr for Status {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        [Self::Init, Self::Busy, Self::Done, Self::Error]
            .into_iter()
            .find(|status| status.as_str().eq_ignore_ascii_case(text))
            .ok_or(Malformed("must be INIT, BUSY, DONE or ERROR"))
    }
}

/// How far the profile is, as the SM-DP+ reported it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProfileState {
    /// Ready to be fetched.
    Released,
    /// On a phone (notification point 3).
    Downloaded,
    /// Installed on a phone (notification point 4).
    Installed,
}

impl ProfileState {
    /// As the dialect writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Downloaded => "downloaded",
            Self::Installed => "installed",
        }
    }
}

impl FromStr for ProfileState {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        [Self::Released, Self::Downloaded, Self::Installed]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or(Malformed("must be a profile state"))
    }
}

/// What we know of our order at the SM-DP+.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProfileOrder {
    /// Not known to exist. It may, while the swap is being ordered.
    None,
    /// Confirmed and released.
    Placed,
    /// Certainly not fetchable by anyone any more.
    Settled,
    /// The ICCID is another's, or on a phone: it is never ordered again.
    Taken,
}

impl ProfileOrder {
    const ALL: [Self; 4] = [Self::None, Self::Placed, Self::Settled, Self::Taken];

    /// As stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Placed => "placed",
            Self::Settled => "settled",
            Self::Taken => "taken",
        }
    }
}

impl FromStr for ProfileOrder {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        Self::ALL
            .into_iter()
            .find(|order| order.as_str() == text)
            .ok_or(Malformed("must be a profile order"))
    }
}

/// What we know of our order at the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NetworkOrder {
    /// Not known to exist. It may, while the swap is being ordered.
    None,
    /// Taken and held.
    Placed,
    /// Under way.
    Started,
    /// The number stayed where it was: failed, rejected, cancelled, or certainly never placed.
    Settled,
    /// The number is on the new SIM.
    Completed,
}

impl NetworkOrder {
    /// As stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Placed => "placed",
            Self::Started => "started",
            Self::Settled => "settled",
            Self::Completed => "completed",
        }
    }
}

impl FromStr for NetworkOrder {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        [Self::None, Self::Placed, Self::Started, Self::Settled, Self::Completed]
            .into_iter()
            .find(|order| order.as_str() == text)
            .ok_or(Malformed("must be a network order"))
    }
}

/// What we know of the call by which the network starts to move an eSIM's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartCall {
    /// It was surely not carried out.
    None,
    /// Somebody has the right to make it.
    Claimed,
    /// It may have been carried out.
    Doubtful,
}

impl StartCall {
    /// As stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Claimed => "claimed",
            Self::Doubtful => "doubtful",
        }
    }

    fn doubt(&mut self) {
        if *self == Self::Claimed {
            *self = Self::Doubtful;
        }
    }
}

impl FromStr for StartCall {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        [Self::None, Self::Claimed, Self::Doubtful]
            .into_iter()
            .find(|call| call.as_str() == text)
            .ok_or(Malformed("must be a start call"))
    }
}

/// Why a swap ended in ERROR. The code is for programs; the message is constant for its code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureCode {
    /// The caller cancelled it.
    Cancelled,
    /// The eSIM was not installed in time.
    Expired,
    /// The SM-DP+ refused the order.
    ProfileRefused,
    /// The SM-DP+ gave the profile up.
    ProfileFailed,
    /// The network refused the order.
    NetworkRejected,
    /// The network could not carry the order out.
    NetworkFailed,
    /// The network cancelled the order by itself.
    NetworkCancelled,
    /// A peer could not be reached in time.
    Unavailable,
    /// A peer did not settle the orders in time: nobody knows how they stand.
    Unsettled,
    /// The line was locked, blocked or set to porting while the swap was open.
    Stopped,
    /// We could not go on.
    Internal,
}

impl FailureCode {
    const ALL: [Self; 11] = [
        Self::Cancelled,
        Self::Expired,
        Self::ProfileRefused,
        Self::ProfileFailed,
        Self::NetworkRejected,
        Self::NetworkFailed,
        Self::NetworkCancelled,
        Self::Unavailable,
        Self::Unsettled,
        Self::Stopped,
        Self::Internal,
    ];

    /// `info.failure.code`, and as stored.
    pub fn code(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::ProfileRefused => "profileRefused",
            Self::ProfileFailed => "profileFailed",
            Self::NetworkRejected => "networkRejected",
            Self::NetworkFailed => "networkFailed",
            Self::NetworkCancelled => "networkCancelled",
            Self::Unavailable => "unavailable",
            Self::Unsettled => "unsettled",
            Self::Stopped => "stopped",
            Self::Internal => "internal",
        }
    }

    /// `info.failure.message`.
    pub fn message(self) -> &'static str {
        match self {
            Self::Cancelled => "The swap was cancelled.",
            Self::Expired => "The eSIM was not installed in time.",
            Self::ProfileRefused => "The eSIM could not be ordered.",
            Self::ProfileFailed => "The eSIM could not be installed.",
            Self::NetworkRejected => "The network refused the swap.",
            Self::NetworkFailed => "The network could not carry out the swap.",
            Self::NetworkCancelled => "The network cancelled the swap.",
            Self::Unavailable => "The network could not be reached in time.",
            Self::Unsettled => "The network did not settle the swap in time.",
            Self::Stopped => "The swap was stopped, because the line was barred from swaps.",
            Self::Internal => "The swap could not be carried out.",
        }
    }
}

impl FromStr for FailureCode {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        Self::ALL
            .into_iter()
            .find(|failure| failure.code() == text)
            .ok_or(Malformed("must be a failure code"))
    }
}

/// The right to call out for a swap, for as long as the lease lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Tells this holder from every other one.
    pub token: String,
    /// End of the lease.
    pub until: Timestamp,
}

/// One line of the timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineEntry {
    /// When, for the first time.
    pub at: Timestamp,
    /// Who and what, in words of ours: `smdp: downloaded`.
    pub what: String,
    /// How often: tries that failed alike are one line.
    pub count: u32,
    /// When, for the last time.
    pub last: Timestamp,
}

impl TimelineEntry {
    /// What happened once.
    pub fn new(at: Timestamp, what: impl Into<String>) -> Self {
        Self {
            at,
            what: what.into(),
            count: 1,
            last: at,
        }
    }
}

/// Adds what happened to a timeline: to the line that says the same, if there is one.
pub(crate) fn note_again(timeline: &mut Vec<TimelineEntry>, at: Timestamp, what: &str) {
    if let Some(line) = timeline.iter_mut().find(|line| line.what == what) {
        line.count += 1;
        line.last = at;
    } else if timeline.len() < TIMELINE_CAP {
        timeline.push(TimelineEntry::new(at, what));
    }
}

/// One of the two systems that we call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Who serves the eSIM profiles.
    Smdp,
    /// Who runs the line.
    Network,
}

impl Peer {
    /// As the timeline and the metrics name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Smdp => "smdp",
            Self::Network => "network",
        }
    }
}

/// A call to a peer that brought nothing: no answer, or one that speaks of us or of the way there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedCall {
    /// Who was called.
    pub peer: Peer,
    /// What came of it, in words of ours: `503`, `no answer`.
    pub detail: String,
    /// How long the peer wants to be left alone.
    pub retry_after: Option<SignedDuration>,
    /// Whether it may have been carried out, or may be yet.
    pub doubtful: bool,
}

impl FailedCall {
    /// One that was not carried out, and tells nothing of when to come again.
    pub fn new(peer: Peer, detail: impl Into<String>) -> Self {
        Self {
            peer,
            detail: detail.into(),
            retry_after: None,
            doubtful: false,
        }
    }

    /// As the timeline says it.
    fn words(&self) -> String {
        format!("{}: {}", self.peer.as_str(), self.detail)
    }
}

/// Lines of the timeline at most; later ones are dropped, but for why and how the swap ended.
pub const TIMELINE_CAP: usize = 40;

/// The optional fields of the request, as they are echoed. The confirmation code is not here: it is sealed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Requested {
    /// `referenceNumber`, `""` when absent.
    pub reference: String,
    /// `eSim`, when it was given.
    pub e_sim: Option<bool>,
    /// `email`, when it was given.
    pub email: Option<EmailAddress>,
    /// Whether a `confirmationCode` was given.
    pub has_code: bool,
    /// `newSimCardNumber`, when it was given.
    pub new_sim: Option<Iccid>,
}

/// The record of one swap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activation {
    /// Its name; also `externalId` at the network.
    pub id: ActivationId,
    /// The line.
    pub subscription: SubscriptionId,
    /// The line's number when the swap was asked.
    pub phone: Msisdn,
    /// The line's customer when the swap was asked.
    pub customer: String,
    /// The line's reseller when the swap was asked.
    pub reseller: Option<String>,
    /// The line's network.
    pub network: NetworkName,
    /// The customer's language.
    pub language: Language,
    /// What the line moves to.
    pub kind: SwapKind,
    /// What the caller asked, for the echo.
    pub requested: Requested,
    /// The customer's contact address when the swap was asked, where the QR code goes if the caller named no address.
    pub contact: Option<EmailAddress>,
    /// The SIM that the number is on until the swap is DONE.
    pub old_sim: Iccid,
    /// The SIM that the number goes to.
    pub new_sim: Iccid,
    /// Whether a caller has seen the new SIM's PINs and PUKs: then it is assigned to no other line.
    pub codes_shown: bool,
    /// When the swap was asked.
    pub created_at: Timestamp,
    /// When it last changed.
    pub modified_at: Timestamp,
    /// When the new SIM took the number.
    pub activated_at: Option<Timestamp>,
    /// When it ended, well or badly.
    pub ended_at: Option<Timestamp>,
    /// Where it is.
    pub phase: Phase,
    /// Why it ends or ended badly.
    pub failure: Option<FailureCode>,
    /// Counts the changes; every change is conditioned on it.
    pub version: u64,
    /// Who calls out for it now.
    pub claim: Option<Claim>,
    /// Whether the network may have been told to start.
    pub start: StartCall,
    /// Tries and waits in this phase that brought nothing.
    pub tries: u32,
    /// Not to be touched again before. A claim begins with none, so one that is there when the claim is let go was set meanwhile.
    pub wake_at: Option<Timestamp>,
    /// When the sweeper looks at it: not after something is to be done, perhaps before. Moving it costs two writes of an
    /// index, so it is moved only if it is too late, or past. Of a swap that ended: when something of it is to be erased.
    pub due_at: Option<Timestamp>,
    /// When it was first claimed: nothing outside can be older and be about this swap, clocks aside.
    pub ordering_since: Option<Timestamp>,
    /// When its phase, its profile or one of its orders last changed.
    pub moved_at: Timestamp,
    /// Our order at the SM-DP+.
    pub profile_order: ProfileOrder,
    /// Until when a call that was given up may still order the profile.
    pub profile_doubt: Option<Timestamp>,
    /// The profile there.
    pub profile: Option<ProfileState>,
    /// Where phones find the profile.
    pub smdp: Option<SmDpAddress>,
    /// Our order at the network.
    pub network_order: NetworkOrder,
    /// The network's name for it: `providerOrderNumber`.
    pub order_number: Option<String>,
    /// Until when a call that was given up may still place that order; `None` if there was no such call.
    pub network_doubt: Option<Timestamp>,
    /// An order that the network named before we knew which one is ours.
    pub heard_number: Option<String>,
    /// Since when the network says that it does not know the order.
    pub missing_since: Option<Timestamp>,
    /// The network completed the order after the swap had ended, and the new SIM or the line was not ours to move any more.
    pub disputed: bool,
    /// Mails with the QR code that were written, numbered from 1.
    pub mails: u32,
    /// What happened, oldest first.
    pub timeline: Vec<TimelineEntry>,
}

impl Activation {
    /// A swap that was asked at `at` by `who` (words for the timeline: `OWNER anna`). `lease` is how long the stream has
    /// for it before the sweeper looks.
    #[expect(clippy::too_many_arguments, reason = "they are what a swap is made of")]
    pub fn accept(
        id: ActivationId,
        line: &Line,
        kind: SwapKind,
        new_sim: Iccid,
        requested: Requested,
        who: &str,
        lease: SignedDuration,
        at: Timestamp,
    ) -> Self {
        let contact = match (kind, &requested.email) {
            (SwapKind::Esim, None) => line.email.clone(),
            _ => None,
        };
        Self {
            id,
            subscription: line.id.clone(),
            phone: line.phone.clone(),
            customer: line.customer.clone(),
            reseller: line.reseller.clone(),
            network: line.network.clone(),
            language: line.language,
            kind,
            requested,
            contact,
            old_sim: line.current_sim.clone(),
            new_sim,
            codes_shown: false,
            created_at: at,
            modified_at: at,
            activated_at: None,
            ended_at: None,
            phase: Phase::Accepted,
            failure: None,
            version: 1,
            claim: None,
            start: StartCall::None,
            tries: 0,
            wake_at: None,
            due_at: Some(at + lease),
            ordering_since: None,
            moved_at: at,
            profile_order: ProfileOrder::None,
            profile_doubt: None,
            profile: None,
            smdp: None,
            network_order: NetworkOrder::None,
            order_number: None,
            network_doubt: None,
            heard_number: None,
            missing_since: None,
            disputed: false,
            mails: 0,
            timeline: vec![TimelineEntry::new(at, format!("{who} asked"))],
        }
    }

    /// Where the QR code goes.
    pub fn mail_to(&self) -> Option<&EmailAddress> {
        self.requested.email.as_ref().or(self.contact.as_ref())
    }

    /// What the outside sees of the phase. A swap that ends still shows how far it had come.
    pub fn status(&self) -> Status {
        match self.phase {
            Phase::Accepted | Phase::Ordering => Status::Init,
            Phase::Ordered | Phase::Started => Status::Busy,
            Phase::Ending if self.order_number.is_some() => Status::Busy,
            Phase::Ending => Status::Init,
            Phase::Done => Status::Done,
            Phase::Error => Status::Error,
        }
    }

    /// Whether the network may have an order of this swap, as far as we know.
    pub fn may_be_ordered(&self) -> bool {
        self.network_order != NetworkOrder::None || self.network_doubt.is_some()
    }

    /// Whether it has waited for a peer for over an hour. What waits for a phone is not stuck.
    pub fn is_stuck(&self, now: Timestamp) -> bool {
        const AT_MOST: SignedDuration = SignedDuration::from_hours(1);
        let for_phone = self.phase == Phase::Ordered && self.profile != Some(ProfileState::Installed);
        self.phase.is_open() && !for_phone && now.duration_since(self.moved_at) > AT_MOST
    }

    /// What becomes of the new SIM when the swap ends in ERROR at `at`.
    pub fn fate_of_new_sim(&self, deadlines: &Deadlines, at: Timestamp) -> SimFate {
        let on_phone = self.profile >= Some(ProfileState::Downloaded);
        if self.failure == Some(FailureCode::Unsettled) || self.profile_order == ProfileOrder::Taken || on_phone {
            return SimFate::Disabled;
        }
        let from = if self.kind == SwapKind::Esim && self.ordering_since.is_some() {
            at + deadlines.rest
        } else if self.network_doubt.is_some() {
            at + deadlines.call_rest
        } else {
            at
        };
        // A card that the caller named is in his hand.
        let named = self.requested.new_sim.as_ref() == Some(&self.new_sim);
        if self.codes_shown && !named {
            SimFate::KeptFrom(from)
        } else {
            SimFate::FreeFrom(from)
        }
    }

    /// Whether the network surely has not been told to move the number.
    fn can_turn_back(&self) -> bool {
        let waits = match (self.phase, self.kind) {
            (Phase::Accepted, _) | (Phase::Ordering | Phase::Ordered, SwapKind::Esim) => true,
            // A card's order starts by itself.
            (Phase::Ordering, SwapKind::Physical) => self.claim.is_none() && !self.may_be_ordered(),
            _ => false,
        };
        waits && self.start == StartCall::None && self.network_order < NetworkOrder::Started
    }

    /// Whether everything outside is back as it was, or nobody waits for that any more, so that the swap can end in ERROR.
    fn is_settled(&self) -> bool {
        let untouched = self.ordering_since.is_none();
        let profile = self.kind == SwapKind::Physical
            || matches!(self.profile_order, ProfileOrder::Settled | ProfileOrder::Taken);
        let given_up = self.failure == Some(FailureCode::Unsettled);
        given_up || untouched || (profile && self.network_order == NetworkOrder::Settled)
    }

    fn note(&mut self, at: Timestamp, what: impl Into<String>) {
        if self.timeline.len() < TIMELINE_CAP {
            self.timeline.push(TimelineEntry::new(at, what));
        }
    }

    /// A try that failed is one line with those before it that failed alike.
    fn note_try(&mut self, at: Timestamp, what: String) {
        note_again(&mut self.timeline, at, &what);
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.tries = 0;
        self.wake_at = None;
    }

    fn end(&mut self, failure: FailureCode, at: Timestamp) {
        self.failure = Some(failure);
        self.enter(Phase::Ending);
        self.wake_at = Some(at);
        self.timeline
            .push(TimelineEntry::new(at, format!("ending: {}", failure.code())));
    }

    /// Lets go of the claim and waits, unless something came meanwhile that is to be looked at now.
    fn pause(&mut self, first: SignedDuration, deadlines: &Deadlines, at: Timestamp) {
        let called = self.claim.take().is_some() && self.wake_at.is_some();
        if !called {
            self.wake_at = Some(at + deadlines.backoff(first, self.tries));
        }
        self.tries += 1;
    }

    /// The same after calls that may have failed, and not before the peers want it.
    fn pause_after(&mut self, failed: &[FailedCall], first: SignedDuration, deadlines: &Deadlines, at: Timestamp) {
        self.pause(first, deadlines, at);
        for call in failed {
            self.note_try(at, call.words());
            if let Some(wait) = call.retry_after {
                self.wake_at = max(self.wake_at, Some(at + wait));
            }
        }
    }

    /// Whether a claim may be one to order: a cancel can come while somebody orders.
    fn is_ordering(&self) -> bool {
        matches!(self.phase, Phase::Ordering | Phase::Ending)
    }

    /// Whoever had the claim stopped at `at` in the middle of its calls.
    fn cut_off(&mut self, at: Timestamp, deadlines: &Deadlines) {
        self.note_try(at, "cut off".to_owned());
        self.start.doubt();
        if self.is_ordering() {
            self.doubt(None, at, deadlines);
        }
    }

    /// A call that was given up at `at` may still order at this peer; at either, if it is not known which was called.
    fn doubt(&mut self, peer: Option<Peer>, at: Timestamp, deadlines: &Deadlines) {
        let until = Some(at + deadlines.call_rest);
        if peer != Some(Peer::Network) && self.kind == SwapKind::Esim {
            self.profile_doubt = max(self.profile_doubt, until);
        }
        if peer != Some(Peer::Smdp) {
            self.network_doubt = max(self.network_doubt, until);
        }
    }

    /// What has to change for a peer to be at work on it.
    fn standing(&self) -> impl PartialEq + use<> {
        let orders = (self.profile_order, self.network_order);
        (self.phase, self.profile, orders)
    }

    fn complete(&mut self, since: Timestamp, order_number: &str, at: Timestamp) {
        self.network_order = NetworkOrder::Completed;
        self.order_number.get_or_insert_with(|| order_number.to_owned());
        self.heard_number = None;
        // A date from before the swap or from the future is nonsense; ours is then the better one.
        let sane = since >= self.created_at && since <= at;
        self.activated_at = Some(if sane { since } else { at });
        self.wake_at = Some(at);
        self.note(at, "network: completed");
    }

    fn finish(&mut self, deadlines: &Deadlines, at: Timestamp) {
        self.claim = None;
        self.heard_number = None;
        if self.network_order == NetworkOrder::Completed {
            self.enter(Phase::Done);
            self.failure = None;
        } else {
            self.enter(Phase::Error);
        }
        self.ended_at = Some(at);
        self.timeline.push(TimelineEntry::new(at, self.phase.as_str()));
        self.due_at = self.erase_at(deadlines);
    }

    /// When whatever names a person is to be erased, of a swap that has ended.
    fn anonymise_at(&self, deadlines: &Deadlines) -> Option<Timestamp> {
        let ended = self.ended_at.filter(|_| !self.is_anonymous())?;
        Some(ended + deadlines.records_kept)
    }

    /// When something is to be erased, of a swap that has ended.
    fn erase_at(&self, deadlines: &Deadlines) -> Option<Timestamp> {
        let sealed = self.ended_at.filter(|_| self.kind == SwapKind::Esim);
        let secrets = sealed.map(|ended| ended + deadlines.code_kept);
        secrets.into_iter().chain(self.anonymise_at(deadlines)).min()
    }

    /// Whether whatever names a person is erased.
    pub fn is_anonymous(&self) -> bool {
        self.phone == Msisdn::erased()
    }

    /// Erases whatever names a person.
    fn anonymise(&mut self) {
        self.phone = Msisdn::erased();
        self.contact = None;
        self.requested.email = None;
        self.requested.reference.clear();
        self.timeline.clear();
    }

    /// What the network said after the swap had ended in ERROR, and nobody has acted on yet.
    fn is_contradicted(&self) -> bool {
        self.phase == Phase::Error
            && !self.disputed
            && (self.network_order == NetworkOrder::Completed || self.heard_number.is_some())
    }

    /// Sees to it that the sweeper looks in time.
    fn fall_due(&mut self, deadlines: &Deadlines, at: Timestamp) {
        let wanted = match next(self, deadlines, at) {
            Step::WaitUntil(then) => Some(then),
            // Whoever wrote the row does it, or the stream.
            _ => Some(at + deadlines.lease),
        };
        let keeps = self.due_at.is_some_and(|due| at < due && Some(due) <= wanted);
        if !keeps {
            self.due_at = wanted;
        }
    }
}

/// What becomes of the new SIM of a swap that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SimFate {
    /// It goes back to stock, to be used from then on.
    FreeFrom(Timestamp),
    /// The same, but for its line alone.
    KeptFrom(Timestamp),
    /// It is never used again: a phone has it or may have it, or nobody knows.
    Disabled,
}

/// The deadlines of the lifecycle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deadlines {
    /// How long a claim holds.
    pub lease: SignedDuration,
    /// Before a try that brought nothing is repeated; doubles to `ask_at_most`.
    pub retry_after: SignedDuration,
    /// Before a peer that is silent is asked; doubles to `ask_at_most`.
    pub ask_after: SignedDuration,
    /// The longest wait between two questions.
    pub ask_at_most: SignedDuration,
    /// Time to order before it is given up.
    pub order_within: SignedDuration,
    /// Time to install an eSIM.
    pub install_within: SignedDuration,
    /// How long a peer has to settle an order, from that order's last change.
    pub settle_within: SignedDuration,
    /// How long a call that was given up may still be carried out.
    pub call_rest: SignedDuration,
    /// How long an eSIM rests after a swap that failed.
    pub rest: SignedDuration,
    /// How long the confirmation code and the matching id are kept after the end.
    pub code_kept: SignedDuration,
    /// How long e-mail addresses, the phone number and the names of callers are kept after the end.
    pub records_kept: SignedDuration,
}

impl Deadlines {
    /// `first`, doubled `times` times, `ask_at_most` at most.
    fn backoff(&self, first: SignedDuration, times: u32) -> SignedDuration {
        let doubled = first.checked_mul(1 << times.min(20)).unwrap_or(self.ask_at_most);
        doubled.min(self.ask_at_most)
    }
}

/// Something that happened to a swap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// Somebody took the right to call out.
    Claimed(Claim),
    /// Both orders stand (of a physical swap: the network's, started).
    Ordered {
        /// The network's name for its order.
        order_number: String,
        /// Where phones find the profile.
        smdp: Option<SmDpAddress>,
    },
    /// An order of a swap that ends is at the network: it is to be cancelled.
    OrderFound {
        /// The network's name for it.
        order_number: String,
    },
    /// Ordering or starting failed for now: again later. Without a failed call, it failed on our side before any.
    TryFailed(Option<FailedCall>),
    /// Calls out took too long and were given up: each may have been carried out, or may be yet.
    CutOff,
    /// A peer's answer ends the swap.
    Refused {
        /// As what.
        failure: FailureCode,
        /// The call.
        call: FailedCall,
    },
    /// The SM-DP+ has given the ICCID to somebody else: the swap ends, and nothing is to be cancelled there.
    ProfileTaken,
    /// Time is used up.
    GivenUp(FailureCode),
    /// A caller wants it cancelled.
    CancelWanted {
        /// Who: words for the timeline.
        by: String,
    },
    /// The line was locked, blocked or set to porting.
    LineBlocked(SwapBlocker),
    /// A caller wants the QR code sent again.
    ResendWanted {
        /// Who: words for the timeline.
        by: String,
    },
    /// A phone fetched the profile.
    Downloaded {
        /// The SM-DP+'s date.
        dated: Timestamp,
    },
    /// A phone installed the profile.
    Installed {
        /// The SM-DP+'s date.
        dated: Timestamp,
    },
    /// The SM-DP+ gave the profile up.
    ProfileFailed {
        /// The SM-DP+'s date.
        dated: Timestamp,
    },
    /// A customer typed a wrong confirmation code.
    WrongCode {
        /// The SM-DP+'s date.
        dated: Timestamp,
    },
    /// The network holds the order.
    NetworkPlaced,
    /// The network carries the order out.
    NetworkStarted,
    /// The number is on the new SIM.
    NetworkCompleted {
        /// Since when.
        since: Timestamp,
        /// The network's name for its order.
        order_number: String,
    },
    /// The network is finished with the order, and the number stayed where it was.
    NetworkEnded(FailureCode),
    /// Nobody has seen an order of this swap at the network.
    NetworkUnseen,
    /// The network's report decides nothing: ask it now.
    NetworkUnclear {
        /// The order that it named, which is not known to be ours; `""` if it named none.
        order_number: String,
    },
    /// The network does not know the order by the id that it gave it; or, without one, nothing else shows one.
    NetworkMissing,
    /// Peers were asked, and nothing more is new; these calls failed.
    Asked(Vec<FailedCall>),
    /// The SM-DP+ took the cancel, or never had the order.
    ProfileSettled {
        /// It refused because the profile is on a phone.
        on_phone: bool,
    },
    /// The sweeper looked, and it is too early.
    Postponed,
    /// The end is written: line, SIMs and swap in one transaction.
    Finished,
    /// The network completed the order after the end, and that cannot be written: another swap or line has what it needs.
    Disputed,
    /// Its secrets are erased.
    Erased,
    /// Whatever names a person is erased.
    Anonymised,
}

/// Why a fact changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// It is known already, or something later is.
    #[error("already known")]
    AlreadyApplied,
    /// The swap has ended.
    #[error("the swap has ended")]
    Ended,
    /// It is older than this swap's order: about an earlier life of that SIM.
    #[error("dated before this swap")]
    StaleCallback,
    /// Somebody else has the claim, or nothing is to be called out for now.
    #[error("claimed by another")]
    ClaimedByOther,
    /// The network has started, or may have, or the swap ends for another reason.
    #[error("too late")]
    TooLate,
    /// It cannot happen to such a swap.
    #[error("not possible in this phase")]
    NotPossible,
}

/// What is to be done for a swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Claim it and order.
    Order,
    /// Claim it and let the network start.
    Start,
    /// Claim it and ask the network how its order is.
    Ask,
    /// Claim it and settle the end with both peers.
    Cancel,
    /// Write that it is given up.
    GiveUp(FailureCode),
    /// Write the end.
    Finish,
    /// Write that its secrets are erased.
    Erase,
    /// Write it without whatever names a person, and without its secrets.
    Anonymise,
    /// Somebody has it claimed, a try that failed rests, or a phone or a peer has the word: look again then.
    WaitUntil(Timestamp),
    /// Nothing, ever.
    Rest,
}

impl Step {
    /// Whether it is a call to a peer, which needs a claim.
    pub fn calls_out(self) -> bool {
        matches!(self, Self::Order | Self::Start | Self::Ask | Self::Cancel)
    }
}

/// How far the clocks of the SM-DP+ and ours are apart at most.
const CLOCKS_DIFFER: SignedDuration = SignedDuration::from_hours(1);

/// Takes a fact into a swap. The result has the next version; `Err` leaves the swap as it is.
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
                // Its calls are still under way. What the outside sees of the swap has not changed.
                held.until = claim.until;
                a.fall_due(deadlines, at);
                a.version += 1;
                return Ok(a);
            }
            // Who lost a race must not call out for a step that is done.
            if !next(&a, deadlines, at).calls_out() {
                return Err(Rejected::ClaimedByOther);
            }
            if a.phase == Phase::Accepted {
                a.enter(Phase::Ordering);
                a.ordering_since = Some(at);
                a.note(at, "ordering");
            }
            let starts = next(&a, deadlines, at) == Step::Start;
            if let Some(lapsed) = a.claim.take() {
                a.cut_off(lapsed.until, deadlines);
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
            // An event may have come before the answer to the order: what it said is to be asked at once.
            let overtaken = a.wake_at.is_some();
            a.claim = None;
            a.heard_number = None;
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
            // An order that comes after the cancel that settled it has to be settled again.
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
                // A profile that is installed already lets the network start at once.
                if overtaken {
                    a.wake_at = Some(at);
                } else if a.phase == Phase::Started || a.profile != Some(ProfileState::Installed) {
                    a.pause(deadlines.ask_after, deadlines, at);
                }
            }
        }
        Fact::OrderFound { order_number } => {
            if a.phase != Phase::Ending || a.order_number.is_some() {
                return Err(Rejected::AlreadyApplied);
            }
            a.order_number = Some(order_number.clone());
            a.network_order = max(a.network_order, NetworkOrder::Placed);
            a.heard_number = None;
            a.wake_at = Some(at);
            a.note(at, format!("ordered as {order_number}, to be cancelled"));
        }
        // A fact that came before it has let go of the claim, and said what is next.
        Fact::TryFailed(_) | Fact::CutOff | Fact::Asked(_) if a.claim.is_none() => {
            return Err(Rejected::AlreadyApplied);
        }
        Fact::TryFailed(failed) => {
            match failed.as_ref().filter(|failed| failed.doubtful) {
                Some(failed) if a.is_ordering() => a.doubt(Some(failed.peer), at, deadlines),
                Some(_) => a.start.doubt(),
                None if a.start == StartCall::Claimed => a.start = StartCall::None,
                None => {}
            }
            a.pause_after(failed.as_slice(), deadlines.retry_after, deadlines, at);
        }
        Fact::CutOff => {
            a.cut_off(at, deadlines);
            a.pause(deadlines.retry_after, deadlines, at);
        }
        Fact::GivenUp(failure) => {
            if next(&a, deadlines, at) != Step::GiveUp(*failure) {
                return Err(Rejected::NotPossible);
            }
            if let Some(lapsed) = a.claim.take() {
                a.cut_off(lapsed.until, deadlines);
            }
            a.end(*failure, at);
        }
        Fact::Refused { failure, call } => {
            a.note_try(at, call.words());
            // The network has said no, and no earlier call can make it an order any more.
            if *failure == FailureCode::NetworkRejected && !a.may_be_ordered() {
                a.network_order = NetworkOrder::Settled;
            }
            a.claim = None;
            if a.phase == Phase::Ending {
                a.wake_at = Some(at);
            } else {
                a.end(*failure, at);
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
                a.end(FailureCode::ProfileRefused, at);
            }
        }
        Fact::CancelWanted { by } => {
            if a.phase == Phase::Ending && a.failure == Some(FailureCode::Cancelled) {
                return Err(Rejected::AlreadyApplied);
            }
            if !a.can_turn_back() {
                return Err(Rejected::TooLate);
            }
            a.note(at, format!("{by} cancels"));
            a.end(FailureCode::Cancelled, at);
        }
        Fact::LineBlocked(bar) => {
            if a.phase == Phase::Ending {
                return Err(Rejected::AlreadyApplied);
            }
            if !a.can_turn_back() {
                return Err(Rejected::TooLate);
            }
            a.note(at, bar.as_str());
            a.end(FailureCode::Stopped, at);
        }
        Fact::ResendWanted { by } => {
            if a.kind == SwapKind::Physical || a.phase < Phase::Ordered {
                return Err(Rejected::NotPossible);
            }
            if a.phase == Phase::Ending || a.profile == Some(ProfileState::Installed) {
                return Err(Rejected::TooLate);
            }
            a.mails += 1;
            a.note(at, format!("{by} asks for another mail"));
        }
        Fact::Downloaded { dated } => {
            reported(&a, *dated)?;
            advance_profile(&mut a, ProfileState::Downloaded)?;
            a.note(at, "smdp: downloaded");
        }
        Fact::Installed { dated } => {
            reported(&a, *dated)?;
            advance_profile(&mut a, ProfileState::Installed)?;
            if matches!(a.phase, Phase::Ordered | Phase::Started) {
                a.tries = 0;
                a.wake_at = Some(at);
            }
            a.note(at, "smdp: installed");
        }
        Fact::ProfileFailed { dated } => {
            reported(&a, *dated)?;
            match a.phase {
                Phase::Ordering | Phase::Ordered if a.profile != Some(ProfileState::Installed) => {
                    a.note(at, "smdp: profile failed");
                    a.end(FailureCode::ProfileFailed, at);
                }
                _ => return Err(Rejected::AlreadyApplied),
            }
        }
        Fact::WrongCode { dated } => {
            reported(&a, *dated)?;
            let what = "smdp: wrong confirmation code";
            // The timeline is kept in milliseconds, the date may be finer.
            let known = a
                .timeline
                .iter()
                .any(|line| line.what == what && line.at.as_millisecond() == dated.as_millisecond());
            if known || a.timeline.len() >= TIMELINE_CAP {
                return Err(Rejected::AlreadyApplied);
            }
            a.note(*dated, what);
        }
        Fact::NetworkPlaced => {
            placed(&a)?;
            if a.network_order >= NetworkOrder::Placed && a.missing_since.is_none() {
                return Err(Rejected::AlreadyApplied);
            }
            a.missing_since = None;
            a.network_order = max(a.network_order, NetworkOrder::Placed);
        }
        Fact::NetworkStarted => {
            placed(&a)?;
            if a.network_order >= NetworkOrder::Started && a.missing_since.is_none() {
                return Err(Rejected::AlreadyApplied);
            }
            a.missing_since = None;
            if a.network_order < NetworkOrder::Started {
                a.network_order = NetworkOrder::Started;
                a.note(at, "network: started");
            }
            if a.phase == Phase::Ordered {
                a.claim = None;
                a.enter(Phase::Started);
                a.pause(deadlines.ask_after, deadlines, at);
            }
        }
        Fact::NetworkCompleted { since, order_number } => {
            placed(&a)?;
            if a.network_order == NetworkOrder::Completed {
                return Err(Rejected::AlreadyApplied);
            }
            a.complete(*since, order_number, at);
        }
        Fact::NetworkEnded(failure) => {
            placed(&a)?;
            if a.network_order >= NetworkOrder::Settled {
                return Err(Rejected::AlreadyApplied);
            }
            a.network_order = NetworkOrder::Settled;
            // A call that comes late finds this order there.
            a.network_doubt = None;
            a.note(at, format!("network: {}", failure.code()));
            match a.phase {
                Phase::Ending => a.wake_at = Some(at),
                // Who orders may be at the SM-DP+ still: the cancel waits for it.
                Phase::Ordering => a.end(*failure, at),
                _ => {
                    a.claim = None;
                    a.end(*failure, at);
                }
            }
        }
        Fact::NetworkUnseen => {
            if a.phase != Phase::Ending || a.network_order != NetworkOrder::None {
                return Err(Rejected::NotPossible);
            }
            a.network_order = NetworkOrder::Settled;
            // It has not said that there is none.
            a.doubt(Some(Peer::Network), at, deadlines);
            a.note(at, "network: no order");
            a.wake_at = Some(at);
        }
        Fact::NetworkUnclear { order_number } => {
            placed(&a)?;
            let news =
                a.order_number.is_none() && !order_number.is_empty() && a.heard_number.as_ref() != Some(order_number);
            let due = a.wake_at.map_or(a.claim.is_none(), |wake_at| wake_at <= at);
            if due && !news {
                return Err(Rejected::AlreadyApplied);
            }
            if news {
                a.heard_number = Some(order_number.clone());
            }
            a.wake_at = Some(at);
        }
        Fact::NetworkMissing => {
            if a.ordering_since.is_none() || a.network_order >= NetworkOrder::Settled {
                return Err(Rejected::NotPossible);
            }
            let since = *a.missing_since.get_or_insert(at);
            a.note_try(at, "network: does not know the order".to_owned());
            if a.order_number.is_some() && at >= since + deadlines.ask_after {
                let gone = Fact::NetworkEnded(FailureCode::NetworkFailed);
                a = apply(&a, &gone, deadlines, at)?;
                // The network has not said that the order ended.
                a.doubt(Some(Peer::Network), at, deadlines);
                return Ok(a);
            }
        }
        Fact::Asked(failed) => {
            a.start.doubt();
            a.pause_after(failed, deadlines.ask_after, deadlines, at);
            // A cancel counts from when nothing can be ordered any more.
            let doubts = [a.profile_doubt, a.network_doubt];
            let doubts = doubts.into_iter().flatten().filter(|doubt| *doubt > at);
            if a.phase == Phase::Ending && failed.is_empty() {
                a.wake_at = doubts.chain(a.wake_at).min();
            }
        }
        Fact::ProfileSettled { on_phone } => {
            if a.phase != Phase::Ending || a.kind != SwapKind::Esim {
                return Err(Rejected::NotPossible);
            }
            if a.profile_order == ProfileOrder::Settled {
                return Err(Rejected::AlreadyApplied);
            }
            // Cancelled too early, it may be ordered again by a call that comes late.
            if !on_phone && a.profile_doubt.is_some_and(|until| at < until) {
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
            // What the outside sees of it has not changed.
            a.fall_due(deadlines, at);
            a.version += 1;
            return Ok(a);
        }
        Fact::Erased | Fact::Anonymised | Fact::Disputed => return Err(Rejected::NotPossible),
        Fact::Finished => {
            if next(&a, deadlines, at) != Step::Finish {
                return Err(Rejected::NotPossible);
            }
            a.finish(deadlines, at);
        }
    }
    if a.standing() != activation.standing() {
        a.moved_at = at;
    }
    a.fall_due(deadlines, at);
    a.modified_at = at;
    a.version += 1;
    Ok(a)
}

/// Takes a fact into a swap that has ended: what the network completed after an ERROR is the truth all the same.
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
        Fact::CancelWanted { .. } | Fact::ResendWanted { .. } => return Err(Rejected::TooLate),
        Fact::Erased if next(&a, deadlines, at) == Step::Erase => {
            a.due_at = a.anonymise_at(deadlines);
            a.version += 1;
            return Ok(a);
        }
        Fact::Anonymised if next(&a, deadlines, at) == Step::Anonymise => {
            a.anonymise();
            a.due_at = None;
            a.version += 1;
            return Ok(a);
        }
        // Nothing is known any more by which it could be set right.
        _ if a.is_anonymous() => return Err(Rejected::Ended),
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
                && a.heard_number.is_none()
                && !order_number.is_empty() =>
        {
            a.heard_number = Some(order_number.clone());
            a.tries = 0;
            a.wake_at = Some(at);
        }
        Fact::Claimed(claim) if next(&a, deadlines, at).calls_out() => {
            a.claim = Some(claim.clone());
            a.wake_at = None;
        }
        Fact::Asked(_) | Fact::TryFailed(_) | Fact::CutOff if a.claim.is_some() => {
            let failed = match fact {
                Fact::Asked(failed) => failed,
                Fact::TryFailed(failed) => failed.as_slice(),
                _ => &[],
            };
            a.pause_after(failed, deadlines.ask_after, deadlines, at);
            let answered = *fact == Fact::Asked(Vec::new());
            let too_late = a.ended_at.is_none_or(|ended| ended + deadlines.settle_within <= at);
            if answered || too_late {
                // The order that was named is none of ours, or has not moved the number.
                a.heard_number = None;
                a.wake_at = None;
            }
        }
        // Whoever stopped it did not want this: people have to look.
        Fact::Finished if a.failure == Some(FailureCode::Stopped) => {
            return Err(Rejected::NotPossible);
        }
        Fact::Finished if next(&a, deadlines, at) == Step::Finish => a.finish(deadlines, at),
        Fact::Disputed if next(&a, deadlines, at) == Step::Finish => {
            a.disputed = true;
            a.wake_at = None;
            a.timeline.push(TimelineEntry::new(at, "network: completed, disputed"));
        }
        _ => return Err(Rejected::Ended),
    }
    if a.is_contradicted() {
        a.fall_due(deadlines, at);
    } else {
        a.due_at = a.erase_at(deadlines);
    }
    a.modified_at = at;
    a.version += 1;
    Ok(a)
}

/// Whether the SM-DP+ can mean this swap: clocks differ by an hour at most, and an earlier life of the ICCID is longer ago.
/// SGP.22 dates have whole seconds, so ours is cut to them.
fn reported(a: &Activation, dated: Timestamp) -> Result<(), Rejected> {
    if a.kind == SwapKind::Physical {
        return Err(Rejected::NotPossible);
    }
    let since = a.ordering_since.ok_or(Rejected::StaleCallback)?;
    if dated.as_second() < (since - CLOCKS_DIFFER).as_second() {
        return Err(Rejected::StaleCallback);
    }
    Ok(())
}

/// Whether the network can mean this swap: an order exists only after the first claim.
fn placed(a: &Activation) -> Result<(), Rejected> {
    a.ordering_since.map(|_| ()).ok_or(Rejected::NotPossible)
}

fn advance_profile(a: &mut Activation, state: ProfileState) -> Result<(), Rejected> {
    if a.profile >= Some(state) {
        return Err(Rejected::AlreadyApplied);
    }
    a.profile = Some(state);
    Ok(())
}

/// What is to be done for a swap now.
pub fn next(a: &Activation, deadlines: &Deadlines, now: Timestamp) -> Step {
    let held = a.claim.as_ref().filter(|claim| claim.until > now);
    let asleep = a.wake_at.filter(|wake_at| *wake_at > now);
    if !a.phase.is_open() {
        if a.is_contradicted() {
            return match (a.network_order, held) {
                (NetworkOrder::Completed, _) => Step::Finish,
                (_, Some(claim)) => Step::WaitUntil(claim.until),
                (_, None) => asleep.map_or(Step::Ask, Step::WaitUntil),
            };
        }
        return match a.due_at {
            Some(due) if due > now => Step::WaitUntil(due),
            Some(_) if a.anonymise_at(deadlines).is_some_and(|then| then <= now) => Step::Anonymise,
            Some(_) => Step::Erase,
            None => Step::Rest,
        };
    }
    // Writing the end needs no claim; but who orders still brings the profile and its mail.
    let awaited = held.is_some() && a.phase == Phase::Ordering;
    if a.network_order == NetworkOrder::Completed && !awaited {
        return Step::Finish;
    }
    if a.phase == Phase::Ending && a.is_settled() {
        return Step::Finish;
    }
    if let Some(claim) = held {
        return Step::WaitUntil(claim.until);
    }
    let unsettled = (a.moved_at + deadlines.settle_within, FailureCode::Unsettled);
    let (step, (expiry, failure)) = match a.phase {
        Phase::Accepted | Phase::Ordering => {
            // A last try that vanished is our fault, one that failed is a peer's.
            let failure = match a.claim {
                Some(_) => FailureCode::Internal,
                None => FailureCode::Unavailable,
            };
            (Step::Order, (a.created_at + deadlines.order_within, failure))
        }
        Phase::Ordered if a.profile == Some(ProfileState::Installed) => (Step::Start, unsettled),
        Phase::Ordered => {
            let expiry = a.created_at + deadlines.install_within;
            (Step::Ask, (expiry, FailureCode::Expired))
        }
        Phase::Started => (Step::Ask, unsettled),
        Phase::Ending => (Step::Cancel, unsettled),
        Phase::Done | Phase::Error => return Step::Rest,
    };
    if expiry <= now {
        Step::GiveUp(failure)
    } else {
        asleep.map_or(step, |wake_at| Step::WaitUntil(wake_at.min(expiry)))
    }
}

#[cfg(test)]
mod tests;
