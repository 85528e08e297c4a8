//! Why a call of the "subscription" dialect is not answered with 200: it is refused, or the table failed us.

use lambda_http::{Body, Response};
use store::StoreError;

use crate::{ErrorResponse, log_cause};

/// Why there is no 200.
#[derive(Debug)]
pub enum ApiError {
    /// The caller is told why.
    Refused(ErrorResponse),
    /// The cause is only in the log.
    Store(StoreError),
}

impl ApiError {
    /// The answer. `what` stands in the log before the cause: `submit failed`.
    pub fn into_response(self, what: &str) -> Response<Body> {
        match self {
            Self::Refused(refusal) => refusal.into_response(),
            Self::Store(error) => {
                log_cause(what, &error);
                match error {
                    StoreError::Unavailable(_) => ErrorResponse::unavailable().into_response(),
                    _ => ErrorResponse::internal().into_response(),
                }
            }
        }
    }
}

impl From<ErrorResponse> for ApiError {
    fn from(refusal: ErrorResponse) -> Self {
        Self::Refused(refusal)
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}
