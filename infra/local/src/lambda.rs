//! The Invoke API of Lambda over the functions of this stack, for the sweeper, which invokes other functions.

use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::json;
use tokio::task::JoinSet;

use crate::functions::Functions;

/// Invokes functions, and tracks asynchronous invocations, whose response nobody waits for.
#[derive(Clone)]
pub(crate) struct Lambda {
    functions: Arc<Functions>,
    under_way: Arc<Mutex<JoinSet<()>>>,
}

impl Lambda {
    pub(crate) fn of(functions: Arc<Functions>) -> Self {
        Self {
            functions,
            under_way: Arc::default(),
        }
    }

    pub(crate) fn router(self) -> Router {
        let path = "/2015-03-31/functions/{name}/invocations";
        Router::new().route(path, post(invoke)).with_state(self)
    }

    /// Waits for the asynchronous invocations in progress.
    pub(crate) async fn drain(&self) {
        let under_way = std::mem::take(&mut *self.lock());
        under_way.join_all().await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, JoinSet<()>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn invoke(State(lambda): State<Lambda>, Path(name): Path<String>, headers: HeaderMap, event: String) -> Response {
    let functions = lambda.functions.clone();
    if headers.get("x-amz-invocation-type").is_some_and(|kind| kind == "Event") {
        let mut under_way = lambda.lock();
        while under_way.try_join_next().is_some() {}
        under_way.spawn(async move {
            if let Err(error) = functions.invoke(&name, event).await {
                tracing::warn!(%error, "an asynchronous invocation failed");
            }
        });
        return StatusCode::ACCEPTED.into_response();
    }
    match functions.invoke(&name, event).await {
        Ok(response) => response.into_response(),
        Err(error) => {
            let body = json!({"errorType": "Error", "errorMessage": error.to_string()});
            ([("x-amz-function-error", "Unhandled")], body.to_string()).into_response()
        }
    }
}
