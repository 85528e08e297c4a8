//! What the targets share: functions over a table with nothing in it, requests, and what was answered and logged. What has
//! to hold is in the targets.

use std::cell::RefCell;
use std::fmt::Debug;
use std::io::{self, Write};
use std::sync::Once;

use aws_config::{BehaviorVersion, Region, SdkConfig};
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

/// What answers every call with the same reply.
#[derive(Debug)]
struct Says(u16, Vec<u8>);

impl HttpConnector for Says {
    fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::ready(Ok(response(self.0, self.1.clone())))
    }
}

/// A peer that says this to every call.
pub fn says(status: u16, body: &[u8]) -> SharedHttpConnector {
    SharedHttpConnector::new(Says(status, body.to_vec()))
}

/// A table with nothing in it. Nobody writes there: what is not found is not changed.
#[derive(Debug)]
struct Empty;

impl HttpConnector for Empty {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let target = request.headers().get("x-amz-target").unwrap_or_default();
        let found = match target.rsplit('.').next().unwrap_or_default() {
            "GetItem" => json!({}),
            "Query" => json!({"Items": [], "Count": 0, "ScannedCount": 0}),
            "BatchGetItem" => json!({"Responses": {}, "UnprocessedKeys": {}}),
            other => panic!("{other} {} is called for nothing", request.uri()),
        };
        HttpConnectorFuture::ready(Ok(response(200, found.to_string().into_bytes())))
    }
}

fn response(status: u16, body: Vec<u8>) -> HttpResponse {
    let status = status.try_into().expect("it is a status");
    HttpResponse::new(status, SdkBody::from(body))
}

/// The ground of AWS clients that reach the empty table alone.
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

/// The store of the empty table.
pub fn store() -> Store {
    let dynamodb = aws_sdk_dynamodb::config::Builder::from(&aws()).allow_no_auth();
    let kms = aws_sdk_kms::config::Builder::from(&aws()).allow_no_auth();
    Store::new(
        aws_sdk_dynamodb::Client::from_conf(dynamodb.build()),
        kms.build(),
        "simswap",
        "alias/simswap",
    )
}

/// The settings that have no default.
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

/// A clock that stands, and dice that fall the same way.
pub fn ambient() -> ClockAndRng {
    let now = "2026-11-22T12:00:00Z".parse().expect("it is a time");
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

/// Runs it to its end. Gives what it gave, and what it logged, without the times.
pub fn run<T>(it: impl Future<Output = T>) -> (T, Vec<String>) {
    static LOGS: Once = Once::new();
    LOGS.call_once(|| {
        tracing::subscriber::set_global_default(edge::logs("debug", "simswap".to_owned(), || Lines))
            .expect("the first");
    });
    let done = RUNTIME.with(|runtime| runtime.block_on(it));
    let logged = LINES.with_borrow_mut(std::mem::take);
    let lines = logged.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let lines = lines.map(|line| {
        let mut line: Value = serde_json::from_slice(line).expect("a line is JSON, and one line");
        for time in ["/timestamp", "/_aws/Timestamp"] {
            if let Some(time) = line.pointer_mut(time) {
                *time = Value::Null;
            }
        }
        line.to_string()
    });
    (done, lines.collect())
}

/// An event, as Lambda hands it on.
pub fn event<T>(payload: T) -> LambdaEvent<T> {
    LambdaEvent::new(payload, Context::default())
}

/// A request of an OWNER, as API Gateway hands it on; of the query what a URL cannot have is encoded.
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
    lambda_http::request::from_str(&event.to_string()).expect("it is an event of API Gateway")
}

/// An answer: its status and its body, `null` if that is empty.
pub fn answer(response: Response<Body>) -> (u16, Value) {
    let status = response.status().as_u16();
    let body = match response.into_body() {
        Body::Empty => Value::Null,
        Body::Text(text) => serde_json::from_str(&text).expect("an answer is JSON"),
        other => panic!("an answer is text: {other:?}"),
    };
    (status, body)
}

/// What the body says, if it can be read: written anew it says the same.
pub fn round_trip<T: Serialize + DeserializeOwned + PartialEq + Debug>(body: &[u8]) -> Option<T> {
    let read: T = serde_json::from_slice(body).ok()?;
    let written = serde_json::to_vec(&read).expect("it is written");
    let again: T = serde_json::from_slice(&written).expect("what we write is read");
    assert_eq!(read, again);
    Some(read)
}

/// Which fields a refusal of the "subscription" dialect blames: at least one, unless the body is no JSON or too large.
pub fn blamed(status: u16, body: &Value) -> Vec<&str> {
    let refusal = &body["responseStatus"];
    let code = refusal["errorCode"].as_str().expect("a refusal has a code");
    let errors = refusal["errors"].as_array().map_or(&[][..], Vec::as_slice);
    if ["SerializationException", "PayloadTooLarge"].contains(&code) {
        return Vec::new();
    }
    assert!([400, 404].contains(&status), "{status} {body}");
    assert_eq!(errors[0]["errorCode"], code, "{body}");
    errors
        .iter()
        .map(|error| error["fieldName"].as_str().expect("a field is blamed"))
        .collect()
}
