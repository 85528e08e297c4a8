//! Why a request of the subscription dialect fails: it is refused, or the store fails.

use lambda_http::{Body, Response};
use store::StoreError;

use crate::{ErrorResponse, log_cause};

/// Why the response is not a 200.
#[derive(Debug)]
pub enum ApiError {
    /// The request is refused. The response says why.
    Refused(ErrorResponse),
    /// The store failed. Only the log says why.
    Store(StoreError),
}

impl ApiError {
    /// The response: the refusal, or status code 503 or 500 if the store failed. `what` is the message of the log line
    /// with the store's error, for example `submit failed`.
    pub fn into_response(self, what: &str) -> Response<Body> {
        match self {
            Self::Refused(response) => response.into_response(),
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
    fn from(response: ErrorResponse) -> Self {
        Self::Refused(response)
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}
