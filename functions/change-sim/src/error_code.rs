//! The error codes of the account dialect, and the responses that carry them.

use domain::SwapBlocker;
use lambda_http::http::StatusCode;
use lambda_http::{Body, Response};
use serde_json::json;

/// Why a request is rejected. A rejected request changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorCode {
    /// The account does not exist, is not visible to the caller, or its id is malformed.
    Account,
    /// The SIM does not exist, is not free or not for this account, or no free SIM is left.
    Sim,
    /// The account cannot be swapped in its current state.
    State,
    /// The account is being ported.
    Porting,
    /// The token has no valid role.
    Role,
    /// The idempotency key is malformed.
    Key,
    /// The idempotency key was used for another request.
    OtherRequest,
    /// Anything else.
    Internal,
}

impl ErrorCode {
    pub(crate) fn of(blocker: &SwapBlocker) -> Self {
        match blocker {
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
