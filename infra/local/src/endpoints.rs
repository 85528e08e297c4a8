//! The routes under `/local`, which only the local stack has: the mailbox, the customer's phone, the URLs of the parts,
//! and how the peers fail.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use serde_json::json;

use crate::failures::FailureOption;
use crate::guard::private;
use crate::http_client::HttpClient;
use crate::mailbox::{self, Listed, Mailbox};

/// The URLs of the parts of the stack, without a slash at the end, and the name of the table.
#[derive(Debug, Clone, Serialize)]
pub struct Endpoints {
    /// The embedded DynamoDB.
    pub dynamodb: String,
    /// The mailbox, which accepts `SendRawEmail` of SES.
    pub ses: String,
    /// The KMS.
    pub kms: String,
    /// Lambda's Invoke API.
    pub lambda: String,
    /// The SM-DP+.
    pub smdp: String,
    /// The network.
    pub network: String,
    /// The API.
    pub api: String,
    /// The base URL of callbacks: that of the API, except with mutual TLS.
    pub callbacks: String,
    /// The name of the table.
    pub table: String,
}

/// A mail runs no script, loads nothing, and has no part in the origin of the stack, even if it is opened in a window
/// of its own.
const MAIL_POLICY: &str =
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'self'; base-uri 'none'; sandbox";

#[derive(Clone)]
struct Local {
    endpoints: Endpoints,
    mailbox: Mailbox,
    failures: Vec<FailureOption>,
    smdp: HttpClient,
}

/// The routes under `/local`, for programs on this machine. Requests of the phone are forwarded to the simulated
/// SM-DP+.
pub(crate) fn router(endpoints: Endpoints, mailbox: Mailbox, failures: Vec<FailureOption>, smdp: HttpClient) -> Router {
    let router = Router::new()
        .route("/local/mail", get(list_mail))
        .route("/local/mail/{id}", get(show_mail))
        .route("/local/phone/install", post(install))
        .route(
            "/local/endpoints",
            get(async |State(local): State<Local>| Json(local.endpoints)),
        )
        .route(
            "/local/failures",
            get(async |State(local): State<Local>| Json(local.failures)),
        )
        .with_state(Local {
            endpoints,
            mailbox,
            failures,
            smdp,
        });
    private(router)
}

async fn list_mail(State(local): State<Local>) -> Json<Vec<Listed>> {
    Json(local.mailbox.list())
}

/// The message with this id, or with `{id}.html`, its HTML part as a person sees it.
async fn show_mail(State(local): State<Local>, Path(name): Path<String>) -> Response {
    let (id, as_html) = match name.strip_suffix(".html") {
        Some(id) => (id, true),
        None => (name.as_str(), false),
    };
    let Some(raw) = local.mailbox.raw(id) else {
        return error(StatusCode::NOT_FOUND, "there is no such mail");
    };
    if !as_html {
        return ([(CONTENT_TYPE, "message/rfc822")], raw).into_response();
    }
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, MAIL_POLICY),
    ];
    match mailbox::html(&raw) {
        Some(html) => (headers, html).into_response(),
        None => error(StatusCode::NOT_FOUND, "this mail has no HTML"),
    }
}

async fn install(State(local): State<Local>, body: Bytes) -> Response {
    let url = format!("{}/local/phone/install", local.endpoints.smdp);
    match local.smdp.post_json(&url, body).await {
        Ok(forwarded) => {
            let content_type = forwarded.headers.get(CONTENT_TYPE).cloned();
            let mut response = (forwarded.status, forwarded.body).into_response();
            if let Some(content_type) = content_type {
                response.headers_mut().insert(CONTENT_TYPE, content_type);
            }
            response
        }
        Err(reason) => {
            tracing::error!(error = %reason, "the SM-DP+ does not respond");
            error(StatusCode::BAD_GATEWAY, "the SM-DP+ does not answer")
        }
    }
}

fn error(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({"message": message}))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use axum::http::header::HOST;
    use lambda_http::tower::ServiceExt;
    use serde_json::Value;

    fn endpoints(smdp: String) -> Endpoints {
        Endpoints {
            dynamodb: "http://d".to_owned(),
            ses: "http://s".to_owned(),
            kms: "http://k".to_owned(),
            lambda: "http://l".to_owned(),
            smdp,
            network: "http://n".to_owned(),
            api: "http://a".to_owned(),
            callbacks: "http://a".to_owned(),
            table: "simswap".to_owned(),
        }
    }

    async fn call(router: &Router, method: &str, path: &str, body: &'static str) -> (u16, String, String) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "127.0.0.1:9000")
            .body(Body::from(body))
            .unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let content_type = response
            .headers()
            .get(CONTENT_TYPE)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, content_type, String::from_utf8(body.into()).unwrap())
    }

    #[tokio::test]
    async fn requests_of_the_phone_are_forwarded_to_the_smdp() {
        let smdp = Router::new().route(
            "/local/phone/install",
            post(async |Json(body): Json<Value>| (StatusCode::CONFLICT, Json(body))),
        );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async { axum::serve(listener, smdp).await });

        let mailbox = Mailbox::open(None).unwrap();
        let stack = router(endpoints(url), mailbox.clone(), Vec::new(), HttpClient::new());
        let response = call(&stack, "POST", "/local/phone/install", r#"{"a":1}"#).await;
        assert_eq!(response, (409, "application/json".to_owned(), r#"{"a":1}"#.to_owned()));

        let silent = router(
            endpoints("http://127.0.0.1:1".to_owned()),
            mailbox,
            Vec::new(),
            HttpClient::new(),
        );
        assert_eq!(call(&silent, "POST", "/local/phone/install", "{}").await.0, 502);
    }

    #[tokio::test]
    async fn endpoints_and_mails_are_served() {
        let stack = router(
            endpoints("http://p".to_owned()),
            Mailbox::open(None).unwrap(),
            Vec::new(),
            HttpClient::new(),
        );
        let (status, _, body) = call(&stack, "GET", "/local/endpoints", "").await;
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            (status, &body["table"], &body["smdp"]),
            (200, &json!("simswap"), &json!("http://p"))
        );
        assert_eq!(call(&stack, "GET", "/local/mail", "").await.2, "[]");
        assert_eq!(call(&stack, "GET", "/local/mail/..%2Fjwt.pem", "").await.0, 404);
    }
}
