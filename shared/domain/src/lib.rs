//! What a SIM swap is: identifiers, lines, SIMs, activations and their lifecycle. Pure: no HTTP, no JSON, no table, no clock, no randomness.

mod activation;
mod activation_code;
mod caller;
mod delivery;
mod email;
mod line;
mod msisdn;
mod plain;
mod secret;
mod sim;

pub use activation::{
    Activation, ActivationId, Claim, Deadlines, Fact, FailedCall, FailureCode, NetworkOrder, Peer, Phase, ProfileOrder,
    ProfileState, Rejected, Requested, SimFate, StartCall, Status, Step, SwapKind, TIMELINE_CAP, TimelineEntry, apply,
    next,
};
pub use activation_code::{ActivationCode, SmDpAddress};
pub use caller::{Caller, Scope};
pub use delivery::{
    Attempt, Delivery, DeliveryFact, DeliveryState, DeliveryStep, HoldReason, MailDeadlines, MailReport, ResendRefused,
    SendOutcome, apply_delivery, next_delivery, resend,
};
pub use email::EmailAddress;
pub use line::{KeptSim, Language, Line, LineState, SubscriptionId, SwapBlocker};
pub use msisdn::Msisdn;
pub use plain::{escaped, is_plain};
pub use secret::{ConfirmationCode, MatchingId, Secret};
pub use sim::{FormFactor, Holder, Iccid, Imsi, NetworkName, Sim, SimState};

/// Outside text that is not what it should be: the words say what it should have been, and never repeat the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);
