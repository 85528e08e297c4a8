//! Refusals in the words of the "subscription" dialect (ServiceStack's `responseStatus`), and answers in general.

use std::borrow::Cow;

use domain::{ActivationId, SwapBlocker};
use lambda_http::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use lambda_http::http::{HeaderValue, StatusCode};
use lambda_http::{Body, Response};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// One faulty field.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FieldError {
    error_code: &'static str,
    field_name: Cow<'static, str>,
    message: String,
    meta: Map<String, Value>,
}

impl FieldError {
    /// A field that must be given.
    pub fn not_empty(field: &'static str) -> Self {
        Self::new("NotEmpty", field, format!("'{field}' must not be empty."))
    }

    /// A field that is not what it should be; `what` says what that is: `must be a boolean`.
    pub fn invalid(field: &'static str, what: &str) -> Self {
        Self::new("InvalidValue", field, format!("'{field}' {what}."))
    }

    /// A parameter that does not exist.
    pub fn unknown(parameter: &str) -> Self {
        let shown: String = parameter.chars().take(64).collect();
        let message = format!("There is no parameter '{shown}'.");
        Self::new("InvalidValue", shown, message)
    }

    /// A field with too many characters; `shown` stands for its value.
    pub fn too_long(field: &'static str, min: usize, max: usize, total: usize, shown: &str) -> Self {
        let message = format!("'{field}' must be at most {max} characters; it has {total}.");
        let mut fault = Self::new("MaximumLength", field, message);
        for (name, value) in [
            ("MinLength", min.to_string()),
            ("MaxLength", max.to_string()),
            ("TotalLength", total.to_string()),
            ("PropertyName", field.to_owned()),
            ("PropertyValue", shown.to_owned()),
        ] {
            fault.meta.insert(name.to_owned(), Value::String(value));
        }
        fault
    }

    /// Whether it is this field's.
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

/// A request that is not done, and changed nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct ErrorResponse {
    status: StatusCode,
    code: &'static str,
    message: String,
    errors: Vec<FieldError>,
    retry_after: Option<u32>,
}

impl ErrorResponse {
    /// All faults of a request at once; the first gives the code.
    pub fn invalid(faults: Vec<FieldError>) -> Self {
        let (code, message) = match faults.first() {
            Some(first) => (first.error_code, first.message.clone()),
            None => ("InvalidValue", "The request is not valid.".to_owned()),
        };
        Self {
            errors: faults,
            ..Self::new(StatusCode::BAD_REQUEST, code, &message)
        }
    }

    /// The body is not a JSON object.
    pub fn not_json() -> Self {
        let message = "The body must be a JSON object.";
        Self::new(StatusCode::BAD_REQUEST, "SerializationException", message)
    }

    /// The role is none of ours.
    pub fn forbidden() -> Self {
        let message = "The token's role is none of OWNER, RESELLER and ADMIN, or lacks its claim.";
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message)
    }

    /// The QR code of this swap goes to the contact on file alone.
    pub fn other_address() -> Self {
        let message = "The QR code of a swap without a confirmation code goes to the contact on file and nowhere else. Leave 'email' out.";
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message)
    }

    /// What `field` names does not exist for this caller.
    pub fn not_found(field: &'static str) -> Self {
        let message = format!("What '{field}' names was not found.");
        let fault = FieldError::new("NotFound", field, message.clone());
        Self {
            errors: vec![fault],
            ..Self::new(StatusCode::NOT_FOUND, "NotFound", &message)
        }
    }

    /// The line takes no swap now.
    pub fn barrier(barrier: &SwapBlocker) -> Self {
        match barrier {
            SwapBlocker::SwapInProgress(open) => Self::swap_in_progress(open),
            SwapBlocker::Locked => Self::closed("Locked", "The line is locked against SIM swaps."),
            SwapBlocker::Blocked => Self::closed("Blocked", "The line is not active."),
            SwapBlocker::Porting => Self::closed("Porting", "The line is being ported."),
        }
    }

    fn closed(code: &'static str, message: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, message)
    }

    fn swap_in_progress(open: &ActivationId) -> Self {
        let message = "Another SIM swap is open on this line.";
        let mut fault = FieldError::new("SwapInProgress", "subscriptionId", message.to_owned());
        fault
            .meta
            .insert("activationId".to_owned(), Value::String(open.to_string()));
        Self {
            errors: vec![fault],
            ..Self::new(StatusCode::CONFLICT, "SwapInProgress", message)
        }
    }

    /// The swap is past where that can be done.
    pub fn too_late(message: &str) -> Self {
        Self::new(StatusCode::CONFLICT, "TooLate", message)
    }

    /// It was done often enough, for `retry_after` seconds or for good.
    pub fn too_many(message: &str, retry_after: Option<u32>) -> Self {
        Self {
            retry_after,
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message)
        }
    }

    /// The body is over `limit` bytes.
    pub fn too_large(limit: usize) -> Self {
        let message = format!("The body must be at most {limit} bytes.");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "PayloadTooLarge", &message)
    }

    /// The content type is not JSON.
    pub fn unsupported_media_type() -> Self {
        let message = "The content type must be application/json.";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)
    }

    /// The idempotency key was used for another request.
    pub fn idempotency_mismatch() -> Self {
        let message = "The Idempotency-Key was used for another request.";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "IdempotencyMismatch", message)
    }

    /// We cannot do it. The cause is only in the log.
    pub fn internal() -> Self {
        let message = "Something went wrong on our side.";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message)
    }

    /// We cannot do it now. The cause is only in the log.
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

    /// The answer in HTTP.
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

/// What API Gateway answers where there is no route.
pub fn no_such_route() -> Response<Body> {
    json_response(StatusCode::NOT_FOUND, &json!({"message": "Not Found"}))
}

/// A JSON answer. Answers tell of one customer's line: no cache may keep them.
pub fn json_response(status: StatusCode, body: &impl Serialize) -> Response<Body> {
    let text = serde_json::to_string(body).expect("our own types become JSON");
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

/// Logs why a request or a record failed, with every cause.
pub fn log_cause(what: &str, error: &dyn std::error::Error) {
    tracing::error!(causes = with_causes(error), "{what}");
}

/// What an error says, and after it what each of its causes says.
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

    fn body(refusal: ErrorResponse) -> Value {
        let response = refusal.into_response();
        let Body::Text(text) = response.body() else {
            panic!("text")
        };
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn the_first_fault_gives_the_code() {
        let faults = vec![
            FieldError::too_long("confirmationCode", 1, 10, 11, "##########"),
            FieldError::not_empty("email"),
        ];
        assert_eq!(
            body(ErrorResponse::invalid(faults)),
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
        let body = body(ErrorResponse::barrier(&SwapBlocker::SwapInProgress(open)));
        assert_eq!(body["responseStatus"]["errors"][0]["meta"]["activationId"], "X1");
    }
}
