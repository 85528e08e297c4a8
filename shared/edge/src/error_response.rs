//! Error responses of the subscription dialect (ServiceStack's `responseStatus`), JSON responses of both dialects, and
//! how causes are logged.

use std::borrow::Cow;

use domain::{ActivationId, SwapBlocker};
use lambda_http::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use lambda_http::http::{HeaderValue, StatusCode};
use lambda_http::{Body, Response};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// An error in one field of a request.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FieldError {
    error_code: &'static str,
    field_name: Cow<'static, str>,
    message: String,
    meta: Map<String, Value>,
}

impl FieldError {
    /// A required field is absent.
    pub fn not_empty(field: &'static str) -> Self {
        Self::new("NotEmpty", field, format!("'{field}' must not be empty."))
    }

    /// Something is absent that more than one field can give. `what` completes the message.
    pub fn missing(field: &'static str, what: &str) -> Self {
        Self::new("NotEmpty", field, format!("'{field}' {what}."))
    }

    /// A field has a wrong value. `what` completes the message, for example `must be a boolean`.
    pub fn invalid(field: &'static str, what: &str) -> Self {
        Self::new("InvalidValue", field, format!("'{field}' {what}."))
    }

    /// The request has a parameter that does not exist.
    pub fn unknown(parameter: &str) -> Self {
        let shown: String = parameter.chars().take(64).collect();
        let message = format!("There is no parameter '{shown}'. Leave it out.");
        Self::new("InvalidValue", shown, message)
    }

    /// A field has `total` characters, which is more than `max`. `shown` is its value, or stands for a secret value.
    pub fn too_long(field: &'static str, min: usize, max: usize, total: usize, shown: &str) -> Self {
        let message = format!("'{field}' must be at most {max} characters; it has {total}.");
        let mut error = Self::new("MaximumLength", field, message);
        for (name, value) in [
            ("MinLength", min.to_string()),
            ("MaxLength", max.to_string()),
            ("TotalLength", total.to_string()),
            ("PropertyName", field.to_owned()),
            ("PropertyValue", shown.to_owned()),
        ] {
            error.meta.insert(name.to_owned(), Value::String(value));
        }
        error
    }

    /// Whether this is an error of this field.
    pub(crate) fn is_of(&self, field: &str) -> bool {
        self.field_name == field
    }

    fn new(error_code: &'static str, field: impl Into<Cow<'static, str>>, message: String) -> Self {
        Self {
            error_code,
            field_name: field.into(),
            message,
            meta: Map::new(),
        }
    }
}

/// The response to a request that was refused or failed.
#[derive(Debug, Clone, PartialEq)]
pub struct ErrorResponse {
    status: StatusCode,
    code: &'static str,
    message: String,
    errors: Vec<FieldError>,
    retry_after: Option<u32>,
}

impl ErrorResponse {
    /// 400: all errors in the fields of a request. The first one determines the error code and the message.
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        let (code, message) = match errors.first() {
            Some(first) => (first.error_code, first.message.clone()),
            None => ("InvalidValue", "The request is not valid.".to_owned()),
        };
        Self {
            errors,
            ..Self::new(StatusCode::BAD_REQUEST, code, &message)
        }
    }

    /// 400: the body is not a JSON object.
    pub fn not_json() -> Self {
        let message = "The body must be a JSON object.";
        Self::new(StatusCode::BAD_REQUEST, "SerializationException", message)
    }

    /// 403: the token's role is unknown, or lacks its claim.
    pub fn forbidden() -> Self {
        let message = "The token's role is not OWNER, RESELLER or ADMIN, or lacks its claim. Use another token.";
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message)
    }

    /// 403: the QR code of this swap may be sent only to the contact on file.
    pub fn other_address() -> Self {
        let message = "The QR code of a swap without a confirmation code goes to the contact on file and nowhere else. Leave 'email' out.";
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message)
    }

    /// 404: the activation, line or SIM that `field` names does not exist, or this caller may not access it.
    pub fn not_found(field: &'static str) -> Self {
        let message = match field {
            "id" => "No activation has this id.",
            "newSimCardNumber" => "No free card of this line's network has this number. Check 'newSimCardNumber'.",
            "phoneNumber" => "No line has this number. Check 'phoneNumber'.",
            _ => "No line has this id. Check 'subscriptionId'.",
        };
        Self::about(StatusCode::NOT_FOUND, "NotFound", field, message)
    }

    /// 404: no eSIM is free for this line.
    pub fn out_of_stock() -> Self {
        let message = "No eSIM is free for this line. Try again later, or swap to a card with 'newSimCardNumber'.";
        Self::about(StatusCode::NOT_FOUND, "OutOfStock", "eSim", message)
    }

    /// An error that concerns one field.
    fn about(status: StatusCode, code: &'static str, field: &'static str, message: &str) -> Self {
        Self {
            errors: vec![FieldError::new(code, field, message.to_owned())],
            ..Self::new(status, code, message)
        }
    }

    /// 409 or 403: the line cannot be swapped.
    pub fn swap_blocked(blocker: &SwapBlocker) -> Self {
        match blocker {
            SwapBlocker::SwapInProgress(open) => Self::swap_in_progress(open),
            SwapBlocker::Locked => Self::line_blocked(
                "Locked",
                "The line is locked against SIM swaps. Unlock it before it is swapped.",
            ),
            SwapBlocker::Blocked => {
                Self::line_blocked("Blocked", "The line is not active. Activate it before it is swapped.")
            }
            SwapBlocker::Porting => Self::line_blocked(
                "Porting",
                "The line is being ported. Try again when the port is complete.",
            ),
        }
    }

    fn line_blocked(code: &'static str, message: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, message)
    }

    fn swap_in_progress(open: &ActivationId) -> Self {
        let message = "Another SIM swap is open on this line. Wait until it ends, or cancel it.";
        let mut response = Self::about(StatusCode::CONFLICT, "SwapInProgress", "subscriptionId", message);
        let id = Value::String(open.to_string());
        response.errors[0].meta.insert("activationId".to_owned(), id);
        response
    }

    /// 409: the swap has proceeded too far for the request.
    pub fn too_late(message: &str) -> Self {
        Self::new(StatusCode::CONFLICT, "TooLate", message)
    }

    /// 409: the swap has not proceeded far enough for the request.
    pub fn too_early(message: &str) -> Self {
        Self::new(StatusCode::CONFLICT, "TooEarly", message)
    }

    /// 403: this deployment accepts no reports of installations.
    pub fn reports_off() -> Self {
        let message = "Reports of installations are not accepted here. Wait for the report of the SM-DP+.";
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message)
    }

    /// 403: the report of an installation is not believed.
    pub fn not_believed() -> Self {
        let message = "The eSIM has not been downloaded as far as we know. Only a RESELLER or ADMIN can report it as installed, with the witness 'agent'.";
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message)
    }

    /// 429: the caller has to wait `retry_after` seconds. `None` if no later request will be accepted either.
    pub fn too_many(message: &str, retry_after: Option<u32>) -> Self {
        Self {
            retry_after,
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message)
        }
    }

    /// 413: the body has more than `limit` bytes.
    pub fn too_large(limit: usize) -> Self {
        let message = format!("The body must be at most {limit} bytes.");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "PayloadTooLarge", &message)
    }

    /// 415: the content type is not JSON.
    pub fn unsupported_media_type() -> Self {
        let message = "The content type must be application/json.";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)
    }

    /// 415: the body is compressed.
    pub fn compressed() -> Self {
        let message = "The body must not be compressed. Send it without 'Content-Encoding'.";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)
    }

    /// 422: the idempotency key was used for another request.
    pub fn idempotency_mismatch() -> Self {
        let message = "The Idempotency-Key was used for another request. Use a new key for a new request.";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "IdempotencyMismatch", message)
    }

    /// 500: an internal error, whose cause is only in the log.
    pub fn internal() -> Self {
        let message = "Something went wrong on our side. Repeat the request; if it fails again, contact us.";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message)
    }

    /// 503: a temporary failure, whose cause is only in the log.
    pub fn unavailable() -> Self {
        let message = "The service is not available now. Try again in a moment.";
        Self {
            retry_after: Some(1),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "Unavailable", message)
        }
    }

    fn new(status: StatusCode, code: &'static str, message: &str) -> Self {
        Self {
            status,
            code,
            message: message.to_owned(),
            errors: Vec::new(),
            retry_after: None,
        }
    }

    /// The HTTP response.
    pub fn into_response(self) -> Response<Body> {
        let body = json!({
            "responseStatus": {
                "errorCode": self.code,
                "message": self.message,
                "errors": self.errors,
            }
        });
        let mut response = json_response(self.status, &body);
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// 404: the same response as API Gateway's for a path without a route.
pub fn no_such_route() -> Response<Body> {
    json_response(StatusCode::NOT_FOUND, &json!({"message": "Not Found"}))
}

/// A response with a JSON body. Responses contain a customer's data, so no cache may store them.
pub fn json_response(status: StatusCode, body: &impl Serialize) -> Response<Body> {
    let text = serde_json::to_string(body).expect("our own types serialize to JSON");
    let mut response = Response::new(Body::Text(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/json; charset=utf-8"),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Adds the header that marks the response to a repeated request.
pub fn mark_replayed(mut response: Response<Body>) -> Response<Body> {
    let value = HeaderValue::from_static("true");
    response.headers_mut().insert("Idempotency-Replayed", value);
    response
}

/// Logs an error and its causes at level `error`. `what` is the message: what failed.
pub fn log_cause(what: &str, error: &dyn std::error::Error) {
    tracing::error!(causes = with_causes(error), "{what}");
}

/// The message of an error, followed by those of its causes.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut causes = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        causes = format!("{causes}: {cause}");
        source = cause.source();
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(response: ErrorResponse) -> Value {
        let response = response.into_response();
        let Body::Text(text) = response.body() else {
            panic!("text")
        };
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn the_first_error_determines_the_code() {
        let errors = vec![
            FieldError::too_long("confirmationCode", 1, 10, 11, "##########"),
            FieldError::not_empty("email"),
        ];
        assert_eq!(
            body(ErrorResponse::invalid(errors)),
            json!({"responseStatus": {
                "errorCode": "MaximumLength",
                "message": "'confirmationCode' must be at most 10 characters; it has 11.",
                "errors": [
                    {
                        "errorCode": "MaximumLength", "fieldName": "confirmationCode",
                        "message": "'confirmationCode' must be at most 10 characters; it has 11.",
                        "meta": {
                            "MinLength": "1", "MaxLength": "10", "TotalLength": "11",
                            "PropertyName": "confirmationCode", "PropertyValue": "##########"
                        }
                    },
                    {
                        "errorCode": "NotEmpty", "fieldName": "email",
                        "message": "'email' must not be empty.", "meta": {}
                    }
                ]
            }})
        );
    }

    #[test]
    fn a_conflict_names_the_open_activation() {
        let open = ActivationId::parse("X1").unwrap();
        let body = body(ErrorResponse::swap_blocked(&SwapBlocker::SwapInProgress(open)));
        assert_eq!(body["responseStatus"]["errors"][0]["meta"]["activationId"], "X1");
    }
}
