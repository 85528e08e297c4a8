//! The ways in which the SES of the stack fails.

use axum::extract::Request;
use simulators::{Fault, Scenario};

use super::error_response;

/// A way in which SES, or the recipient's server, fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailScenario {
    /// The recipient's server finally refuses every e-mail.
    Bounces,
    /// The recipient's server refuses every e-mail for now.
    SoftBounces,
    /// SES accepts no e-mail, because too many were sent.
    Throttles,
    /// SES sends no e-mail, and responds too late.
    Hangs,
}

impl Scenario for MailScenario {
    const ALL: &'static [(Self, &'static str, &'static str)] = &[
        (
            Self::Bounces,
            "bounces",
            "Every e-mail bounces: info.delivery is bounced, and the swap stays BUSY.",
        ),
        (
            Self::SoftBounces,
            "soft-bounces",
            "The recipient's server refuses every e-mail for now: info.delivery is bounced, the timeline says \
             mailBouncedForNow, and the swap stays BUSY.",
        ),
        (
            Self::Throttles,
            "throttles",
            "SES accepts no e-mail: info.delivery stays pending, the timeline says mailHeld, and the swap stays BUSY.",
        ),
        (
            Self::Hangs,
            "hangs",
            "SES does not respond: info.delivery is ambiguous until the service has tried three times, then failed. The \
             swap stays BUSY.",
        ),
    ];
    const AT_A_RATE: &'static str = "This share of the calls to SES gets a 503, a response that is too late, or none although the e-mail was \
         sent. info.delivery may be ambiguous for some seconds, until SES reports the e-mail or it is sent again.";

    fn fault(self, _: &Request) -> Option<Fault> {
        match self {
            // The recipient's server refuses them after SES has accepted them; SES reports that in an event.
            Self::Bounces | Self::SoftBounces => None,
            Self::Throttles => Some(Fault::Respond(error_response(
                "Throttling",
                "Maximum sending rate exceeded.",
            ))),
            Self::Hangs => Some(Fault::RefuseLate),
        }
    }
}
