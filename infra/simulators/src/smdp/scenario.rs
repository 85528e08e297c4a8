//! The ways in which the simulated SM-DP+ fails.

use axum::Json;
use axum::extract::Request;
use axum::response::IntoResponse;
use peers::es2plus::ExecutionStatus;
use serde_json::json;

use super::{InstallFault, header};
use crate::failures::{Fault, Scenario};

/// A way in which the SM-DP+, or the phone that it plays, fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmdpScenario {
    /// It finally refuses every order.
    Refuses,
    /// Its responses come late.
    Hangs,
    /// It sends no callbacks.
    LosesCallbacks,
    /// The phone downloads no profile, because it was downloaded too often.
    UsedUp,
    /// The phone has no room for a profile.
    NoRoom,
    /// The phone is not eligible for a profile.
    WrongDevice,
}

impl SmdpScenario {
    /// Why the phone cannot install a profile.
    pub(super) fn install_fault(self) -> Option<InstallFault> {
        match self {
            Self::UsedUp => Some(InstallFault::DownloadsUsedUp),
            Self::NoRoom => Some(InstallFault::NoRoom),
            Self::WrongDevice => Some(InstallFault::WrongDevice),
            Self::Refuses | Self::Hangs | Self::LosesCallbacks => None,
        }
    }
}

impl Scenario for SmdpScenario {
    const ALL: &'static [(Self, &'static str, &'static str)] = &[
        (
            Self::Refuses,
            "refuses",
            "The SM-DP+ refuses every order: the swap ends in ERROR with profileRefused, and no e-mail is sent.",
        ),
        (
            Self::Hangs,
            "hangs",
            "The SM-DP+ responds after 10 seconds: the swap stays INIT for 20 seconds, then continues as usual.",
        ),
        (
            Self::LosesCallbacks,
            "loses-callbacks",
            "The SM-DP+ reports nothing: after the install, the swap stays BUSY until a RESELLER or an ADMIN reports \
             the installation as agent.",
        ),
        (
            Self::UsedUp,
            "used-up",
            "The eSIM was downloaded too often: the install gets a 409, and info.esim.state is failed. The swap stays \
             BUSY and, if its time runs out, ends with downloadsUsedUp.",
        ),
        (
            Self::NoRoom,
            "no-room",
            "The phone has no room for the eSIM: the install gets a 409, and info.esim.state is failed. The swap stays \
             BUSY and, if its time runs out, ends with noRoom.",
        ),
        (
            Self::WrongDevice,
            "wrong-device",
            "The phone cannot use the eSIM: the install gets a 409, and info.esim.state is failed. The swap stays BUSY \
             and, if its time runs out, ends with wrongDevice.",
        ),
    ];
    const AT_A_RATE: &'static str = "This share of the calls to the SM-DP+ gets a 503, a response after 10 seconds, or none although the call was \
         carried out. The service retries them, so swaps stay INIT for longer, and end as usual.";

    fn fault(self, call: &Request) -> Option<Fault> {
        match self {
            Self::Refuses if call.uri().path().ends_with("downloadOrder") => {
                let status = ExecutionStatus::failed("8.2.1", "3.9", "The profile is not in stock");
                let refusal = json!({"header": header::<()>(Err(status))});
                Some(Fault::Respond(Json(refusal).into_response()))
            }
            Self::Hangs => Some(Fault::RespondLate),
            _ => None,
        }
    }
}
