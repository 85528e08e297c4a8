//! Why a call of the "subscription" dialect is not answered with 200: it is refused, or the table failed us.

use lambda_http::{Body, Response};
use store::StoreError;

use crate::{Refusal, log_cause};

/// Why there is no 200.
#[derive(Debug)]
pub enum Failure {
    /// The caller is told why.
    Refused(Refusal),
    /// The cause is only in the log.
    Store(StoreError),
}

impl Failure {
    /// The answer. `what` stands in the log before the cause: `submit failed`.
    pub fn into_response(self, what: &str) -> Response<Body> {
        match self {
            Self::Refused(refusal) => refusal.into_response(),
            Self::Store(error) => {
                log_cause(what, &error);
                match error {
                    StoreError::Unavailable(_) => Refusal::unavailable().into_response(),
                    _ => Refusal::internal().into_response(),
                }
            }
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}
