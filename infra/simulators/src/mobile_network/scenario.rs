//! The ways in which the simulated network fails.

use axum::Json;
use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::response::IntoResponse;
use serde_json::json;

use super::tmf_error;
use crate::failures::{Fault, Scenario};

/// A way in which the network fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkScenario {
    /// It refuses every order.
    Refuses,
    /// Its responses come late.
    Hangs,
    /// It says that it has started an order that it holds.
    Early,
    /// Its response to a new order is lost, and its search finds nothing.
    Forgets,
    /// It does not authorize the service at first.
    Unauthorized,
}

impl Scenario for NetworkScenario {
    const ALL: &'static [(Self, &'static str, &'static str)] = &[
        (
            Self::Refuses,
            "refuses",
            "The network refuses every order: the swap ends in ERROR with networkRejected, and no e-mail is sent.",
        ),
        (
            Self::Hangs,
            "hangs",
            "The network responds after 10 seconds: the swap stays INIT and, after the install, BUSY for longer, and \
             ends as usual.",
        ),
        (
            Self::Early,
            "early",
            "The network says inProgress before the install: a cancel gets a 409 TooLate at once. The e-mail is sent, \
             and after the install the swap is DONE.",
        ),
        (
            Self::Forgets,
            "forgets",
            "The response to an order is lost, and a search does not find the order: the swap of an eSIM stays INIT and, \
             once cancelled, ends in ERROR with unsettled.",
        ),
        (
            Self::Unauthorized,
            "unauthorized",
            "The network responds with 401 for a minute from the first order on: the swap stays INIT for that long, \
             then continues as usual.",
        ),
    ];
    const AT_A_RATE: &'static str = "This share of the calls to the network gets a 503, a response after 10 seconds, or none although the call was \
         carried out. The service retries them, so swaps stay INIT and BUSY for longer, and end as usual.";

    fn fault(self, call: &Request) -> Option<Fault> {
        let is_at_orders = call.uri().path().ends_with("/serviceOrder");
        let (is_search, is_new) = (
            is_at_orders && call.method() == Method::GET,
            is_at_orders && call.method() == Method::POST,
        );
        match self {
            Self::Refuses if is_new => {
                let refusal = tmf_error(StatusCode::BAD_REQUEST, "the number cannot be moved");
                Some(Fault::Respond(refusal))
            }
            Self::Early if is_new => Some(Fault::Edit(|order| order.replace("\"held\"", "\"inProgress\""))),
            Self::Forgets if is_new => Some(Fault::LoseResponse),
            Self::Forgets if is_search => Some(Fault::Respond(Json(json!([])).into_response())),
            Self::Hangs => Some(Fault::RespondLate),
            Self::Unauthorized => Some(Fault::UnauthorizedAtFirst),
            _ => None,
        }
    }
}
