//! What each answer of a peer means: the peer took the call, refused it, or said nothing about it.

use std::fmt;

pub use domain::Peer;
use jiff::SignedDuration;

/// How a call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureClass {
    /// 401.
    Unauthorized,
    /// 403.
    Forbidden,
    /// 429.
    Throttled,
    /// Any other 3xx or 4xx, or a `Failed` of ES2+.
    Refused,
    /// 5xx.
    Failed,
    /// A success whose body cannot be read.
    Unreadable,
    /// No answer, or one that broke off.
    Unanswered,
}

impl FailureClass {
    /// As metrics and the timeline name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::Throttled => "throttled",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Unreadable => "unreadable",
            Self::Unanswered => "unanswered",
        }
    }

    /// The class of a status that is no success, or of a success that the protocol does not have.
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

/// An answer, or none, that speaks of us or of the way to the peer, not of the order: the call is to be made again later.
/// It may have been carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct TransientFailure {
    /// Who was called.
    pub peer: Peer,
    /// How the call failed.
    pub class: FailureClass,
    /// `503`, `8.2.5/3.7`, `no answer`: our own words and digits, never a peer's text, so that it can be logged and shown.
    pub detail: String,
    /// How long the peer asks us to wait, at most 24 hours.
    pub retry_after: Option<SignedDuration>,
}

impl TransientFailure {
    pub(crate) fn unanswered(peer: Peer) -> Self {
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

/// A pair of codes as the timeline shows it: `8.2.1/3.9`.
pub(crate) fn codes(subject: &str, reason: &str) -> String {
    format!("{subject}/{reason}")
}

/// What a status of the network means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NetworkStatus {
    /// Carried out: the body tells.
    Accepted,
    /// The order is at fault.
    Rejected,
    /// The network has such an order already, or it is not in the state that the call needs.
    Conflict,
    /// There is no such order.
    NotFound,
    /// Nothing about the order.
    Transient,
}

impl NetworkStatus {
    /// A look (`GET`) can refuse nothing, and only there 404 speaks of the order: elsewhere it speaks of the address.
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

/// The pairs of subject and reason that ES2+ has (SGP.22 section 5.2.6 and the functions of 5.3). A pair that is not here
/// says nothing that we could act on.
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

/// Whether a `Failed` or `Expired` with these codes refuses the order. If not, it may be taken later: no profile of the
/// type is left (8.2.5/3.7), the SM-DS is at fault (8.9), or nobody knows what the pair means.
pub(crate) fn is_final(subject: &str, reason: &str) -> bool {
    let known = KNOWN
        .iter()
        .any(|(of, reasons)| *of == subject && reasons.contains(&reason));
    known && (subject, reason) != ("8.2.5", "3.7")
}
