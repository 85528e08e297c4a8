//! What the targets share: functions on an empty table, requests, responses and log lines. The targets say what must
//! hold.

use std::cell::RefCell;
use std::fmt::Debug;
use std::io::{self, Write};
use std::sync::Once;

use aws::SdkConfig;
use aws::{Service, ServiceClient};
use aws_sdk_dynamodb::config::{BehaviorVersion, Region};
use aws_smithy_async::rt::sleep::{SharedAsyncSleep, TokioSleep};
use aws_smithy_runtime_api::client::auth::AuthSchemeId;
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_types::body::SdkBody;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use edge::{ClockAndRng, Settings};
use lambda_http::{Body, Context, LambdaEvent, Request, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use store::Store;
use tokio::runtime::{Builder, Runtime};

/// An HTTP client that gives every call the same response.
#[derive(Debug)]
struct FixedResponse(u16, Vec<u8>);

impl HttpConnector for FixedResponse {
    fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::ready(Ok(response(self.0, self.1.clone())))
    }
}

/// A peer that gives every call this response.
pub fn fixed_response(status: u16, body: &[u8]) -> SharedHttpConnector {
    SharedHttpConnector::new(FixedResponse(status, body.to_vec()))
}

/// An empty table that rejects no write: a row that is not found is not changed.
#[derive(Debug)]
struct Empty;

impl HttpConnector for Empty {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let target = request.headers().get("x-amz-target").unwrap_or_default();
        let found = match target.rsplit('.').next().unwrap_or_default() {
            "GetItem" => json!({}),
            "Query" => json!({"Items": [], "Count": 0, "ScannedCount": 0}),
            "BatchGetItem" => json!({"Responses": {}, "UnprocessedKeys": {}}),
            other => panic!("unexpected call {other} {}", request.uri()),
        };
        HttpConnectorFuture::ready(Ok(response(200, found.to_string().into_bytes())))
    }
}

fn response(status: u16, body: Vec<u8>) -> HttpResponse {
    let status = status.try_into().expect("a status code");
    HttpResponse::new(status, SdkBody::from(body))
}

/// The configuration of AWS clients that reach only the empty table.
pub fn aws() -> SdkConfig {
    let connector = SharedHttpConnector::new(Empty);
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::from_static("eu-central-1"))
        .auth_scheme_preference([AuthSchemeId::from("noAuth")])
        .sleep_impl(SharedAsyncSleep::new(TokioSleep::new()))
        .endpoint_url("http://empty")
        .http_client(http_client_fn(move |_, _| connector.clone()))
        .build()
}

/// The store on the empty table.
pub fn store() -> Store {
    let dynamodb = aws_sdk_dynamodb::config::Builder::from(&aws()).allow_no_auth();
    Store::new(
        aws_sdk_dynamodb::Client::from_conf(dynamodb.build()),
        ServiceClient::new(&aws(), Service::Kms),
        "simswap",
        "alias/simswap",
    )
}

/// The settings without a default.
pub fn settings() -> Settings {
    Settings::new(|name| {
        let value = match name {
            "SMDP_URL" | "NETWORK_URL" => "http://nobody",
            "SMDP_ADDRESS" => "smdp.example.test",
            "SMDP_REQUESTER_ID" => "1.2.3",
            "MAIL_FROM" => "Simswap <esim@example.com>",
            "BRAND" => "Simswap",
            "ALLOW_UNAUTHENTICATED_CALLBACKS" => "true",
            _ => return None,
        };
        Some(value.to_owned())
    })
}

/// A fixed clock and a fixed random number generator.
pub fn clock_and_rng() -> ClockAndRng {
    let now = "2026-11-22T12:00:00Z".parse().expect("a time");
    ClockAndRng::new(move || now, || 7)
}

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    static LINES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

struct Lines;

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LINES.with_borrow_mut(|lines| lines.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs `future` to its end. Returns its result and its log lines, without the times.
pub fn run<T>(future: impl Future<Output = T>) -> (T, Vec<String>) {
    static LOGS: Once = Once::new();
    LOGS.call_once(|| {
        tracing::subscriber::set_global_default(edge::logs("debug", "simswap".to_owned(), || Lines))
            .expect("no other subscriber is set");
    });
    let result = RUNTIME.with(|runtime| runtime.block_on(future));
    let logged = LINES.with_borrow_mut(std::mem::take);
    let lines = logged.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let lines = lines.map(|line| {
        let mut line: Value = serde_json::from_slice(line).expect("each line is JSON");
        for time in ["/timestamp", "/_aws/Timestamp"] {
            if let Some(time) = line.pointer_mut(time) {
                *time = Value::Null;
            }
        }
        line.to_string()
    });
    (result, lines.collect())
}

/// An event as Lambda passes it to a function.
pub fn event<T>(payload: T) -> LambdaEvent<T> {
    LambdaEvent::new(payload, Context::default())
}

/// A request of an OWNER as API Gateway passes it to a function. Characters of the query that a URL cannot have are
/// encoded.
pub fn request(method: &str, path: &str, query: &[u8], body: &[u8]) -> Request {
    let query: String = query
        .iter()
        .map(|byte| match byte {
            b'"' | b'#' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' => {
                format!("%{byte:02X}")
            }
            byte if byte.is_ascii_graphic() => char::from(*byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect();
    let event = json!({
        "version": "2.0",
        "routeKey": format!("{method} {path}"),
        "rawPath": path,
        "rawQueryString": query,
        "headers": {"host": "api.example.com", "content-type": "application/json"},
        "requestContext": {
            "authorizer": {"jwt": {"claims": {"sub": "anna", "role": "OWNER", "customer": "C-100"}, "scopes": null}},
            "http": {
                "method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "192.0.2.10", "userAgent": "fuzz",
            },
            "routeKey": format!("{method} {path}"),
            "stage": "$default",
            "timeEpoch": 1_795_348_800_000_i64,
        },
        "body": STANDARD.encode(body),
        "isBase64Encoded": true,
    });
    lambda_http::request::from_str(&event.to_string()).expect("an event of API Gateway")
}

/// The status and the body of a response; the body is `null` if it is empty.
pub fn status_and_body(response: Response<Body>) -> (u16, Value) {
    let status = response.status().as_u16();
    let body = match response.into_body() {
        Body::Empty => Value::Null,
        Body::Text(text) => serde_json::from_str(&text).expect("a response is JSON"),
        other => panic!("a response is text: {other:?}"),
    };
    (status, body)
}

/// If the body can be parsed, asserts that it is written with the same meaning.
pub fn round_trip<T: Serialize + DeserializeOwned + PartialEq + Debug>(body: &[u8]) -> Option<T> {
    let read: T = serde_json::from_slice(body).ok()?;
    let written = serde_json::to_vec(&read).expect("a body can be written");
    let again: T = serde_json::from_slice(&written).expect("a written body can be parsed");
    assert_eq!(read, again);
    Some(read)
}

/// The fields that an error of the subscription dialect names: at least one, unless the body is no JSON or too large.
pub fn named_fields(status: u16, body: &Value) -> Vec<&str> {
    let error = &body["responseStatus"];
    let code = error["errorCode"].as_str().expect("an error has a code");
    let errors = error["errors"].as_array().map_or(&[][..], Vec::as_slice);
    if ["SerializationException", "PayloadTooLarge"].contains(&code) {
        return Vec::new();
    }
    assert!([400, 404].contains(&status), "{status} {body}");
    assert_eq!(errors[0]["errorCode"], code, "{body}");
    errors
        .iter()
        .map(|one| one["fieldName"].as_str().expect("an error names a field"))
        .collect()
}
