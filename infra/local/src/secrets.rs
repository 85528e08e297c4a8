//! Plays Secrets Manager: gives the functions the secrets that they are told the names of. What these are for is elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;

/// Secrets by their names. They have no `Debug`.
pub(crate) type Secrets = BTreeMap<&'static str, String>;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Input {
    secret_id: String,
}

/// Its endpoint, as far as the functions use it: `GetSecretValue` in JSON 1.1.
pub(crate) fn router(secrets: Secrets) -> Router {
    let secrets = Arc::new(secrets);
    Router::new().fallback(async move |headers: HeaderMap, body: Bytes| {
        let known = headers
            .get("x-amz-target")
            .is_some_and(|target| target == "secretsmanager.GetSecretValue");
        let input: Option<Input> = serde_json::from_slice(&body).ok().filter(|_| known);
        answer(&secrets, input.as_ref())
    })
}

fn answer(secrets: &Secrets, input: Option<&Input>) -> Response {
    let refuse = |kind, message| {
        let body = json!({"__type": kind, "Message": message});
        (StatusCode::BAD_REQUEST, Json(body)).into_response()
    };
    let Some(Input { secret_id }) = input else {
        return refuse("UnknownOperationException", "");
    };
    match secrets.get(secret_id.as_str()) {
        Some(secret) => Json(json!({"Name": secret_id, "SecretString": secret})).into_response(),
        None => refuse(
            "ResourceNotFoundException",
            "Secrets Manager can't find the specified secret.",
        ),
    }
}
