//! Refusals in the words of the "account" dialect.

use domain::SwapBlocker;
use lambda_http::http::StatusCode;
use lambda_http::{Body, Response};
use serde_json::json;

/// A request that is not done, and changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorCode {
    /// The account is unknown, not the caller's, or no account's name.
    Account,
    /// The SIM is unknown, not free, not for this account, or none is left.
    Sim,
    /// The account takes no swap now.
    State,
    /// The account is being ported.
    Porting,
    /// The token's role is none of ours.
    Role,
    /// The idempotency key is not one.
    Key,
    /// The idempotency key was used for another request.
    OtherRequest,
    /// Anything else.
    Internal,
}

impl ErrorCode {
    pub(crate) fn of(barrier: &SwapBlocker) -> Self {
        match barrier {
            SwapBlocker::SwapInProgress(_) | SwapBlocker::Locked | SwapBlocker::Blocked => Self::State,
            SwapBlocker::Porting => Self::Porting,
        }
    }

    pub(crate) fn into_response(self) -> Response<Body> {
        let (status, message, description) = match self {
            Self::Account => (StatusCode::NOT_FOUND, "mvnoAccount", "MVNO account not found"),
            Self::Sim => (StatusCode::NOT_FOUND, "sim", "SIM card not found or not available"),
            Self::State => (
                StatusCode::FORBIDDEN,
                "state",
                "SIM cannot be changed due to the current state of the account",
            ),
            Self::Porting => (
                StatusCode::FORBIDDEN,
                "porting",
                "SIM cannot be changed while the account is in porting",
            ),
            Self::Role => (StatusCode::FORBIDDEN, "role", "The role may not change SIM cards"),
            Self::Key => (
                StatusCode::BAD_REQUEST,
                "idempotencyKey",
                "The Idempotency-Key must be given once: 1 to 255 ASCII characters, in quotes if one is a comma",
            ),
            Self::OtherRequest => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotencyKey",
                "The Idempotency-Key was used for another request",
            ),
            Self::Internal => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal_error",
                "Something went wrong on our side",
            ),
        };
        let error = json!({"code": status.as_u16(), "message": message, "description": description});
        edge::json_response(status, &json!({"success": false, "error": error}))
    }
}
