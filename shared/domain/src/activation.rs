//! The record of one swap: the activation and the types of its fields. What changes it is in `lifecycle`.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use ulid::Ulid;

use crate::{
    EmailAddress, Iccid, Language, Line, Malformed, Msisdn, NetworkName, SmDpAddress, SubscriptionId, TimelineEntry,
    named_enum,
};

/// Name of an activation: an opaque text of `[A-Za-z0-9_-]` with 80 random bits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ActivationId(String);

impl ActivationId {
    /// A new id: a ULID, which sorts by the time `at` and contains the lower 80 bits of `random`.
    pub fn from_random(at: Timestamp, random: u128) -> Self {
        let millis = u64::try_from(at.as_millisecond()).unwrap_or(0);
        Self(Ulid::from_parts(millis, random).to_string())
    }

    /// Reads an id from outside: 1 to 64 characters of `[A-Za-z0-9_-]`.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let fits = (1..=64).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        fits.then(|| Self(text.to_owned()))
            .ok_or(Malformed("must be 1 to 64 of A-Z, a-z, 0-9, _ and -"))
    }

    /// The id as a text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ActivationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What kind of SIM the line moves to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SwapKind {
    /// An eSIM profile, which is ordered at the SM-DP+ and sent to the customer by mail.
    Esim,
    /// A card that the customer has or receives.
    Physical,
}

named_enum! {
    /// The phase of a swap. The names are the stored ones.
    #[derive(PartialOrd, Ord)]
    pub enum Phase {
        /// Stored, but no peer has been called.
        Accepted = "accepted",
        /// Calls to the SM-DP+ and the network may be in progress.
        Ordering = "ordering",
        /// Both orders are placed. An eSIM swap waits until the profile is installed on a phone.
        Ordered = "ordered",
        /// The network moves the number. We cannot stop it any more.
        Started = "started",
        /// On the way to ERROR: the orders at both peers are being cancelled.
        Ending = "ending",
        /// The new SIM works.
        Done = "done",
        /// The old SIM still works.
        Error = "error",
    }
    FromStr { compare: str::eq, error: "must be a phase" }
}

impl Phase {
    /// Whether the swap has not ended.
    pub fn is_open(self) -> bool {
        !matches!(self, Self::Done | Self::Error)
    }
}

named_enum! {
    /// The status that callers see. The names are those of the subscription dialect; their case is ignored on reading.
    pub enum Status {
        /// Accepted, but not ordered yet.
        Init = "INIT",
        /// Ordered.
        Busy = "BUSY",
        /// The new SIM works.
        Done = "DONE",
        /// The swap failed.
        Error = "ERROR",
    }
    FromStr { compare: str::eq_ignore_ascii_case, error: "must be INIT, BUSY, DONE or ERROR" }
}

named_enum! {
    /// The state of the profile as the SM-DP+ reported it. The names are the stored ones and those of the subscription
    /// dialect.
    #[derive(PartialOrd, Ord)]
    pub enum ProfileState {
        /// Ready for download.
        Released = "released",
        /// Downloaded to a phone (notification point 3 of SGP.22).
        Downloaded = "downloaded",
        /// Installed on a phone (notification point 4 of SGP.22).
        Installed = "installed",
    }
    FromStr { compare: str::eq, error: "must be a profile state" }
}

named_enum! {
    /// The state of our order at the SM-DP+, as far as we know. The names are the stored ones.
    pub enum ProfileOrder {
        /// The order is not known to exist. It may exist while the swap is being ordered.
        None = "none",
        /// Confirmed and released.
        Placed = "placed",
        /// No phone can download the profile from this order any more.
        Settled = "settled",
        /// The ICCID belongs to somebody else, or is on a phone: it is never ordered again.
        Taken = "taken",
    }
    FromStr { compare: str::eq, error: "must be a profile order" }
}

named_enum! {
    /// The state of our order at the network, as far as we know. The names are the stored ones.
    #[derive(PartialOrd, Ord)]
    pub enum NetworkOrder {
        /// The order is not known to exist. It may exist while the swap is being ordered.
        None = "none",
        /// Accepted and held.
        Placed = "placed",
        /// In progress.
        Started = "started",
        /// The number stayed where it was: the order failed, was rejected or cancelled, or was certainly never placed.
        Settled = "settled",
        /// The number is on the new SIM.
        Completed = "completed",
    }
    FromStr { compare: str::eq, error: "must be a network order" }
}

named_enum! {
    /// What we know of the call by which the network starts to move the number to an eSIM. The names are the stored
    /// ones.
    pub enum StartCall {
        /// The call was certainly not carried out.
        None = "none",
        /// The holder of the claim may make the call.
        Claimed = "claimed",
        /// The call may have been carried out: its outcome is unknown.
        Doubtful = "doubtful",
    }
    FromStr { compare: str::eq, error: "must be a start call" }
}

named_enum! {
    /// Why a swap ended in ERROR. The name is for programs: it is stored and is `info.failure.code`.
    pub enum FailureCode {
        /// A caller cancelled the swap.
        Cancelled = "cancelled",
        /// The eSIM was not installed in time.
        Expired = "expired",
        /// The SM-DP+ rejected the order.
        ProfileRefused = "profileRefused",
        /// The SM-DP+ or the phone reported that the profile cannot be installed.
        ProfileFailed = "profileFailed",
        /// The confirmation code was entered wrongly too often.
        CodesUsedUp = "codesUsedUp",
        /// The profile was downloaded too often.
        DownloadsUsedUp = "downloadsUsedUp",
        /// The phone cannot use the profile.
        WrongDevice = "wrongDevice",
        /// The phone has no room for the profile.
        NoRoom = "noRoom",
        /// The network rejected the order.
        NetworkRejected = "networkRejected",
        /// The network could not carry out the order.
        NetworkFailed = "networkFailed",
        /// The network cancelled the order on its own.
        NetworkCancelled = "networkCancelled",
        /// A peer gave no usable response in time.
        Unavailable = "unavailable",
        /// A peer did not settle the orders in time: their state is unknown.
        Unsettled = "unsettled",
        /// The line was locked, blocked or set to porting while the swap was open.
        Stopped = "stopped",
        /// A fault on our side.
        Internal = "internal",
    }
    FromStr { compare: str::eq, error: "must be a failure code" }
}

impl FailureCode {
    /// `info.failure.message`: a sentence for people, constant for its code.
    pub fn message(self) -> &'static str {
        match self {
            Self::Cancelled => "The swap was cancelled.",
            Self::Expired => "The eSIM was not installed in time.",
            Self::ProfileRefused => "The eSIM could not be ordered.",
            Self::ProfileFailed => "The eSIM could not be installed.",
            Self::CodesUsedUp => "The confirmation code was entered wrongly too often.",
            Self::DownloadsUsedUp => "The eSIM was downloaded too often.",
            Self::WrongDevice => "The eSIM does not work in this device.",
            Self::NoRoom => "The device has no room for another eSIM.",
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

named_enum! {
    /// Who says that an eSIM is installed although the SM-DP+ has not reported it. The names are those of the API.
    pub enum Witness {
        /// The customer.
        Customer = "customer",
        /// An employee who has talked with the customer.
        Agent = "agent",
        /// An app on the phone.
        App = "app",
    }
    FromStr { compare: str::eq, error: "must be customer, agent or app" }
}

named_enum! {
    /// What the phone reported about an installed profile last. The names are the stored ones and those of the API.
    pub enum PhoneState {
        /// The profile is in use.
        Enabled = "enabled",
        /// The profile is switched off.
        Disabled = "disabled",
        /// The profile is deleted.
        Deleted = "deleted",
    }
    FromStr { compare: str::eq, error: "must be enabled, disabled or deleted" }
}

named_enum! {
    /// What is known about an eSIM. The names are those of the API.
    pub enum EsimState {
        /// Ready for download.
        Released = "released",
        /// Downloaded to a phone.
        Downloaded = "downloaded",
        /// Installed on a phone.
        Installed = "installed",
        /// In use.
        Enabled = "enabled",
        /// Installed and switched off.
        Disabled = "disabled",
        /// Deleted from the phone.
        Deleted = "deleted",
        /// It cannot be installed, unless its code is renewed.
        Failed = "failed",
        /// The SM-DP+ has reported nothing for an hour after the mail.
        Unknown = "unknown",
    }
}

named_enum! {
    /// What a caller wants to be done about a profile that is ordered. The names are the stored ones.
    pub enum ProfileRequestKind {
        /// A new activation code.
        Renew = "renew",
        /// To believe that the profile is installed.
        Report = "report",
    }
    FromStr { compare: str::eq, error: "must be a profile request" }
}

named_enum! {
    /// How far a caller's request about a profile is. The names are the stored ones.
    pub enum ProfileRequestState {
        /// Requested.
        Pending = "pending",
        /// The old activation code is dead, and the new one is not ordered yet.
        Cancelled = "cancelled",
        /// Carried out.
        Done = "done",
        /// Impossible: the profile is on a phone, or the SM-DP+ does not say where it is.
        Refused = "refused",
    }
    FromStr { compare: str::eq, error: "must be the state of a profile request" }
}

impl ProfileRequestState {
    /// `info.esim.request`.
    pub fn shown(self) -> &'static str {
        match self {
            Self::Cancelled => Self::Pending.as_str(),
            _ => self.as_str(),
        }
    }
}

/// The last request of a caller about a profile that is ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProfileRequest {
    /// What is requested.
    pub kind: ProfileRequestKind,
    /// How far the request is.
    pub state: ProfileRequestState,
}

impl ProfileRequest {
    /// Whether the request is neither carried out nor refused.
    pub fn is_open(self) -> bool {
        matches!(
            self.state,
            ProfileRequestState::Pending | ProfileRequestState::Cancelled
        )
    }
}

/// The exclusive right to call the peers for a swap, until the lease expires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Identifies the holder. No two holders have the same token.
    pub token: String,
    /// End of the lease.
    pub until: Timestamp,
}

named_enum! {
    /// One of the two systems that we call. The names are those of the timeline and the metrics.
    pub enum Peer {
        /// The SM-DP+, which serves the eSIM profiles.
        Smdp = "smdp",
        /// The mobile network of the line.
        Network = "network",
    }
}

/// A call to a peer that decided nothing: there was no response, or one that says nothing about the order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedCall {
    /// The peer that was called.
    pub peer: Peer,
    /// The result in our own words: `503`, `no answer`.
    pub detail: String,
    /// How long the peer wants us to wait before the next call.
    pub retry_after: Option<SignedDuration>,
    /// Whether the call may have been carried out, or may still be.
    pub doubtful: bool,
}

impl FailedCall {
    /// A call that was certainly not carried out, with no `Retry-After`.
    pub fn new(peer: Peer, detail: impl Into<String>) -> Self {
        Self {
            peer,
            detail: detail.into(),
            retry_after: None,
            doubtful: false,
        }
    }

    /// The text of the timeline entry: `network: 503`.
    pub(crate) fn describe(&self) -> String {
        format!("{}: {}", self.peer.as_str(), self.detail)
    }
}

/// The optional fields of the request, for the echo in responses. The confirmation code itself is not here: it is
/// stored encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Requested {
    /// `referenceNumber`; empty if absent.
    pub reference: String,
    /// `eSim`, if present.
    pub e_sim: Option<bool>,
    /// `email`, if present.
    pub email: Option<EmailAddress>,
    /// Whether there was a `confirmationCode`.
    pub has_code: bool,
    /// `newSimCardNumber`, if present.
    pub new_sim: Option<Iccid>,
}

/// The record of one swap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activation {
    /// The name of the swap; also `externalId` at the network.
    pub id: ActivationId,
    /// The line.
    pub subscription: SubscriptionId,
    /// The number of the line at the time of the request.
    pub phone: Msisdn,
    /// The customer of the line at the time of the request.
    pub customer: String,
    /// The reseller of the line at the time of the request.
    pub reseller: Option<String>,
    /// The network of the line.
    pub network: NetworkName,
    /// The customer's language.
    pub language: Language,
    /// What kind of SIM the line moves to.
    pub kind: SwapKind,
    /// The optional fields of the request.
    pub requested: Requested,
    /// The customer's contact address at the time of the request. The QR code goes there if the request names no
    /// address.
    pub contact: Option<EmailAddress>,
    /// The SIM that the number is on until the swap is DONE.
    pub old_sim: Iccid,
    /// The SIM that the number moves to.
    pub new_sim: Iccid,
    /// Whether a caller has seen the PINs and PUKs of the new SIM. If so, it is never assigned to another line.
    pub codes_shown: bool,
    /// Time of the request.
    pub created_at: Timestamp,
    /// Time of the last change.
    pub modified_at: Timestamp,
    /// When the number moved to the new SIM.
    pub activated_at: Option<Timestamp>,
    /// When the swap ended, in DONE or ERROR.
    pub ended_at: Option<Timestamp>,
    /// The phase.
    pub phase: Phase,
    /// Why the swap ends or ended in ERROR.
    pub failure: Option<FailureCode>,
    /// Counts the changes. Every write is conditioned on it.
    pub version: u64,
    /// The current or last claim, unless it was released.
    pub claim: Option<Claim>,
    /// Whether the network may have received the start call.
    pub start: StartCall,
    /// Number of attempts and polls in this phase that had no result.
    pub tries: u32,
    /// No further step before this time. A new claim clears it. If it is set when the claim is released, a fact that
    /// arrived during the claim has set it.
    pub wake_at: Option<Timestamp>,
    /// When the sweeper reads the swap: no later than the next step is due, possibly earlier. A change costs two writes
    /// of an index, so it changes only if it is too late or has passed. After the end: when the next erasure is due.
    pub due_at: Option<Timestamp>,
    /// Time of the first claim. Apart from differences between clocks, no event at a peer that concerns this swap is
    /// older.
    pub ordering_since: Option<Timestamp>,
    /// When the phase, the profile or one of the orders last changed.
    pub progressed_at: Timestamp,
    /// Our order at the SM-DP+.
    pub profile_order: ProfileOrder,
    /// Until when an abandoned call may still order the profile; `None` if there was no such call.
    pub profile_unknown_until: Option<Timestamp>,
    /// The state of the profile at the SM-DP+.
    pub profile: Option<ProfileState>,
    /// Why the profile cannot be installed. It can be renewed until it expires.
    pub profile_failure: Option<FailureCode>,
    /// What a phone reported about the installed profile.
    pub phone_state: Option<PhoneState>,
    /// The last four digits of the EID of the phone's eUICC.
    pub eid_end: Option<String>,
    /// Who said that the profile is installed. Their word counts as the SM-DP+'s report for the start of the move.
    pub witness: Option<Witness>,
    /// The last request of a caller about the profile.
    pub request: Option<ProfileRequest>,
    /// When callers requested a new activation code.
    pub renewals: Vec<Timestamp>,
    /// The recipient of the new activation code; `None` unless a renewal is requested.
    pub renew_to: Option<EmailAddress>,
    /// Whether an abandoned call may have cancelled the old activation code, in this renewal or an earlier one.
    pub renewal_unknown: bool,
    /// Whether there is no activation code that is known to work: a renewal cancelled the old one and was refused
    /// afterwards, or the code of an ended swap is erased.
    pub code_dead: bool,
    /// When the SM-DP+ renewed the profile, by its own clock. Older reports concern the code before.
    pub renewed_at: Option<Timestamp>,
    /// The server from which phones download the profile.
    pub smdp: Option<SmDpAddress>,
    /// Our order at the network.
    pub network_order: NetworkOrder,
    /// The network's id of our order: `providerOrderNumber`.
    pub order_number: Option<String>,
    /// Until when an abandoned call may still place the order at the network; `None` if there was no such call.
    pub network_unknown_until: Option<Timestamp>,
    /// The id of an order that the network named before we knew the id of ours.
    pub unconfirmed_order_number: Option<String>,
    /// Since when the network has reported that it does not know the order.
    pub missing_since: Option<Timestamp>,
    /// Whether the network completed the order after the end of the swap, when the new SIM or the line already belonged
    /// to another swap or line.
    pub disputed: bool,
    /// Number of mails that were written. Mails are numbered from 1.
    pub mails: u32,
    /// Number of mails that callers requested with a resend.
    pub resends: u32,
    /// Number of reports of callers that the profile is installed.
    pub reports: u32,
    /// Whether a reminder was written.
    pub reminded: bool,
    /// What happened, oldest first.
    pub timeline: Vec<TimelineEntry>,
}

impl Activation {
    /// A swap that `who` requested at `at`. `who` is a text for the timeline: `OWNER anna`. `lease` is how long the
    /// stream consumer has to process the swap before the sweeper does.
    #[expect(clippy::too_many_arguments, reason = "each argument is a field of the record")]
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
            progressed_at: at,
            profile_order: ProfileOrder::None,
            profile_unknown_until: None,
            profile: None,
            profile_failure: None,
            phone_state: None,
            eid_end: None,
            witness: None,
            request: None,
            renewals: Vec::new(),
            renew_to: None,
            renewal_unknown: false,
            code_dead: false,
            renewed_at: None,
            smdp: None,
            network_order: NetworkOrder::None,
            order_number: None,
            network_unknown_until: None,
            unconfirmed_order_number: None,
            missing_since: None,
            disputed: false,
            mails: 0,
            resends: 0,
            reports: 0,
            reminded: false,
            timeline: vec![TimelineEntry::new(at, format!("{who} asked"))],
        }
    }

    /// The address that the QR code is sent to.
    pub fn mail_to(&self) -> Option<&EmailAddress> {
        self.requested.email.as_ref().or(self.contact.as_ref())
    }

    /// The status that callers see. A swap in phase `Ending` still shows how far it came.
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
        self.network_order != NetworkOrder::None || self.network_unknown_until.is_some()
    }

    /// Whether the swap has waited for a peer for over an hour. A swap that waits for a phone is not stuck.
    pub fn is_stuck(&self, now: Timestamp) -> bool {
        const AT_MOST: SignedDuration = SignedDuration::from_hours(1);
        let is_long_ago = |then: &Timestamp| now.duration_since(*then) > AT_MOST;
        if self.is_renewing() {
            return self.renewals.last().is_some_and(is_long_ago);
        }
        let waits_for_phone = self.phase == Phase::Ordered && !self.may_start();
        self.phase.is_open() && !waits_for_phone && is_long_ago(&self.progressed_at)
    }

    /// Whether the number can move: the profile is installed, or somebody vouched for it, and is not deleted. A start
    /// that may have been carried out is brought to its end.
    pub fn may_start(&self) -> bool {
        let is_on_phone = self.profile == Some(ProfileState::Installed) || self.witness.is_some();
        is_on_phone && (self.phone_state != Some(PhoneState::Deleted) || self.start != StartCall::None)
    }

    /// Whether a caller's request about the profile waits to be carried out.
    pub fn has_open_request(&self) -> bool {
        self.request.is_some_and(ProfileRequest::is_open)
    }

    /// Whether the activation code is being renewed: the code of the mails is dead, or will be.
    pub fn is_renewing(&self) -> bool {
        self.request
            .is_some_and(|request| request.kind == ProfileRequestKind::Renew && request.is_open())
    }

    /// Whether a renewal has cancelled the old activation code, and the new one is not ordered yet.
    pub fn has_no_code_yet(&self) -> bool {
        let cancelled = ProfileRequest {
            kind: ProfileRequestKind::Renew,
            state: ProfileRequestState::Cancelled,
        };
        self.request == Some(cancelled)
    }

    /// When an eSIM swap ends unless the profile is installed. `install_within` counts from the request.
    pub fn expires_at(&self, install_within: SignedDuration) -> Timestamp {
        self.created_at + install_within
    }

    /// Whether the personal data of the swap are erased.
    pub fn is_anonymous(&self) -> bool {
        self.phone == Msisdn::erased()
    }

    /// Erases the personal data: the number, the e-mail addresses, the reference and the timeline.
    pub(crate) fn anonymise(&mut self) {
        self.phone = Msisdn::erased();
        self.contact = None;
        self.eid_end = None;
        self.requested.email = None;
        self.requested.reference.clear();
        self.timeline.clear();
        self.code_dead = self.kind == SwapKind::Esim;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_names_are_read_again() {
        for phase in Phase::ALL {
            assert_eq!(phase.as_str().parse(), Ok(phase));
        }
        for failure in FailureCode::ALL {
            assert_eq!(failure.as_str().parse(), Ok(failure));
            assert!(failure.message().ends_with('.'));
        }
        for order in ProfileOrder::ALL {
            assert_eq!(order.as_str().parse(), Ok(order));
        }
        for text in ["none", "placed", "started", "settled", "completed"] {
            assert_eq!(text.parse::<NetworkOrder>().unwrap().as_str(), text);
        }
        for text in ["released", "downloaded", "installed"] {
            assert_eq!(text.parse::<ProfileState>().unwrap().as_str(), text);
        }
        for (text, status) in [
            ("INIT", Status::Init),
            ("busy", Status::Busy),
            ("Done", Status::Done),
            ("error", Status::Error),
        ] {
            assert_eq!(text.parse(), Ok(status));
        }
        assert!("".parse::<Status>().is_err());
    }

    #[test]
    fn a_start_call_is_stored_by_its_name() {
        for (call, name) in [
            (StartCall::None, "none"),
            (StartCall::Claimed, "claimed"),
            (StartCall::Doubtful, "doubtful"),
        ] {
            assert_eq!(call.as_str(), name);
            assert_eq!(name.parse(), Ok(call));
        }
        assert!("started".parse::<StartCall>().is_err());
    }

    #[test]
    fn an_id_sorts_by_its_time_and_contains_eighty_random_bits() {
        let at: Timestamp = "2026-03-01T12:00:00.5Z".parse().unwrap();
        let early = ActivationId::from_random(at, u128::MAX);
        let late = ActivationId::from_random(at + SignedDuration::from_millis(1), 0);
        assert!(early.as_str() < late.as_str());
        assert_eq!(late.to_string(), late.as_str());
        assert_ne!(late, ActivationId::from_random(at + SignedDuration::from_millis(1), 1));
        for (text, fits) in [
            (late.as_str(), true),
            ("a_B-1", true),
            ("", false),
            ("a b", false),
            ("é", false),
        ] {
            assert_eq!(ActivationId::parse(text).is_ok(), fits, "{text:?}");
        }
        assert!(ActivationId::parse(&"a".repeat(64)).is_ok());
        assert!(ActivationId::parse(&"a".repeat(65)).is_err());
    }
}
