//! The Secrets Manager of the stack: returns secrets by name. The secrets themselves are created in `mtls.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;

/// Secrets by name. Never log this map.
pub(crate) type Secrets = BTreeMap<&'static str, String>;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Input {
    secret_id: String,
}

/// The endpoint of Secrets Manager, with the one operation that the functions use: `GetSecretValue` in the AWS JSON 1.1
/// protocol.
pub(crate) fn router(secrets: Secrets) -> Router {
    let secrets = Arc::new(secrets);
    Router::new().fallback(async move |headers: HeaderMap, body: Bytes| {
        let known = headers
            .get("x-amz-target")
            .is_some_and(|target| target == "secretsmanager.GetSecretValue");
        let input: Option<Input> = serde_json::from_slice(&body).ok().filter(|_| known);
        get_secret_value(&secrets, input.as_ref())
    })
}

fn get_secret_value(secrets: &Secrets, input: Option<&Input>) -> Response {
    let error = |kind, message| {
        let body = json!({"__type": kind, "Message": message});
        (StatusCode::BAD_REQUEST, Json(body)).into_response()
    };
    let Some(Input { secret_id }) = input else {
        return error("UnknownOperationException", "");
    };
    match secrets.get(secret_id.as_str()) {
        Some(secret) => Json(json!({"Name": secret_id, "SecretString": secret})).into_response(),
        None => error(
            "ResourceNotFoundException",
            "Secrets Manager can't find the specified secret.",
        ),
    }
}
