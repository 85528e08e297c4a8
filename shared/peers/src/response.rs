//! The meaning of each response of a peer: the peer accepted the call, rejected it, or did neither.

use std::fmt;

pub use domain::Peer;
use domain::named_enum;
use jiff::SignedDuration;

named_enum! {
    /// How a call failed. The names are those of the metrics and the timeline.
    #[derive(Hash)]
    pub enum FailureClass {
        /// 401.
        Unauthorized = "unauthorized",
        /// 403.
        Forbidden = "forbidden",
        /// 429.
        Throttled = "throttled",
        /// Any other 3xx or 4xx, or `Failed` or `Expired` in ES2+.
        Refused = "refused",
        /// 5xx.
        Failed = "failed",
        /// A success whose body cannot be read.
        Unreadable = "unreadable",
        /// No response, or an incomplete one.
        Unanswered = "unanswered",
    }
}

impl FailureClass {
    /// The class of a status code that is not a success, or not a success of the protocol.
    fn of_status(status: u16) -> Self {
        match status {
            401 => Self::Unauthorized,
            403 => Self::Forbidden,
            429 => Self::Throttled,
            300..500 => Self::Refused,
            ..300 => Self::Unreadable,
            500.. => Self::Failed,
        }
    }
}

/// A call that decided nothing about the order: there was no response, or one that concerns our access or the
/// transport. The call has to be retried later. Depending on the class, it may have been carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct TransientFailure {
    /// The peer that was called.
    pub peer: Peer,
    /// How the call failed.
    pub class: FailureClass,
    /// `503`, `8.2.5/3.7` or `no answer`: always our own words and digits, never a peer's text, so it is safe to log
    /// and to show.
    pub detail: String,
    /// How long the peer wants us to wait, at most 24 hours.
    pub retry_after: Option<SignedDuration>,
}

impl TransientFailure {
    pub(crate) fn no_response(peer: Peer) -> Self {
        Self {
            peer,
            class: FailureClass::Unanswered,
            detail: "no answer".to_owned(),
            retry_after: None,
        }
    }

    pub(crate) fn unreadable(peer: Peer) -> Self {
        Self {
            peer,
            class: FailureClass::Unreadable,
            detail: "unreadable".to_owned(),
            retry_after: None,
        }
    }

    pub(crate) fn of_status(peer: Peer, status: u16, retry_after: Option<SignedDuration>) -> Self {
        Self {
            peer,
            class: FailureClass::of_status(status),
            detail: status.to_string(),
            retry_after,
        }
    }

    pub(crate) fn of_codes(subject: &str, reason: &str) -> Self {
        let detail = match (subject, reason) {
            ("", _) | (_, "") => "no code".to_owned(),
            _ => codes(subject, reason),
        };
        Self {
            peer: Peer::Smdp,
            class: FailureClass::Refused,
            detail,
            retry_after: None,
        }
    }
}

impl fmt::Display for TransientFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

/// A pair of ES2+ codes in the format of the timeline: `8.2.1/3.9`.
pub(crate) fn codes(subject: &str, reason: &str) -> String {
    format!("{subject}/{reason}")
}

/// The meaning of a status code of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NetworkStatus {
    /// Carried out. The body has the details.
    Accepted,
    /// The order is invalid.
    Rejected,
    /// The network already has such an order, or the order is not in the state that the call requires.
    Conflict,
    /// There is no such order.
    NotFound,
    /// The response says nothing about the order.
    Transient,
}

impl NetworkStatus {
    /// The meaning of `status` for a call with this HTTP method. A `GET` cannot be rejected. Only for a `GET`, 404
    /// concerns the order; for other methods it concerns the URL.
    pub(crate) fn to(method: &str, status: u16) -> Self {
        match (method, status) {
            (_, 200..300) => Self::Accepted,
            ("GET", 404) => Self::NotFound,
            ("GET", _) => Self::Transient,
            (_, 400 | 422) => Self::Rejected,
            (_, 409) => Self::Conflict,
            _ => Self::Transient,
        }
    }
}

/// The pairs of subject and reason code that ES2+ defines (SGP.22 sections 5.2.6 and 5.3). Other pairs say nothing that
/// we could act on.
const KNOWN: [(&str, &[&str]); 9] = [
    ("8.1", &["4.8", "6.1"]),
    ("8.1.1", &["2.2", "3.9", "3.10"]),
    ("8.2", &["1.2", "3.7"]),
    ("8.2.1", &["1.2", "2.2", "3.3", "3.5", "3.9", "3.10"]),
    ("8.2.5", &["1.2", "3.7", "3.8", "3.9"]),
    ("8.2.6", &["2.1", "2.2", "3.3", "3.10"]),
    ("8.2.7", &["2.2", "3.8", "6.4"]),
    ("8.2.9", &["2.1"]),
    ("8.8.5", &["4.10", "6.4"]),
];

/// Whether a `Failed` or `Expired` with these codes is a final rejection of the order. If not, the order may be
/// accepted later: no profile of the type is available (8.2.5/3.7), the SM-DS failed (8.9), or the meaning of the pair
/// is unknown.
pub(crate) fn is_final(subject: &str, reason: &str) -> bool {
    let known = KNOWN
        .iter()
        .any(|(of, reasons)| *of == subject && reasons.contains(&reason));
    known && (subject, reason) != ("8.2.5", "3.7")
}
