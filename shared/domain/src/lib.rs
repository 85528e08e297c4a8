//! What a SIM swap is: identifiers, lines, SIMs, activations, mails, and their lifecycles. There is no input or output
//! here: no HTTP, no JSON, no table, no clock and no randomness.

mod activation;
mod activation_code;
mod brand;
mod caller;
mod delivery;
mod email;
mod lifecycle;
mod line;
mod msisdn;
mod named_enum;
mod plain;
mod secret;
mod sim;
mod timeline;

pub use activation::{
    Activation, ActivationId, Claim, EsimState, FailedCall, FailureCode, NetworkOrder, Peer, Phase, PhoneState,
    ProfileOrder, ProfileRequest, ProfileRequestKind, ProfileRequestState, ProfileState, Requested, StartCall, Status,
    SwapKind, Witness,
};
pub use activation_code::{ActivationCode, SmDpAddress};
pub use brand::{Brand, BrandName, Colour, Logo, SupportContact};
pub use caller::{Caller, Scope};
pub use delivery::{
    Attempt, Delivery, DeliveryFact, DeliveryState, DeliveryStep, HoldReason, MailDeadlines, MailKind, MailReport,
    ResendRefused, SendOutcome, apply_delivery, mail_of_change, next_delivery, resend, tells_of_end,
};
pub use email::EmailAddress;
pub use lifecycle::{Deadlines, Fact, PeerCall, Rejected, ReportTrust, SimFate, Step, apply, fact_of_event, next};
pub use line::{KeptSim, Language, Line, LineState, SubscriptionId, SwapBlocker};
pub use msisdn::Msisdn;
pub use plain::{escaped, is_plain};
pub use secret::{ConfirmationCode, MatchingId, Secret};
pub use sim::{FormFactor, Holder, Iccid, Imsi, NetworkName, Sim, SimState};
pub use timeline::{TIMELINE_CAP, TimelineEntry, TimelineParts, merge_timelines};

/// Text from outside that does not have the required form. The message says which form is required; it never repeats
/// the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);
