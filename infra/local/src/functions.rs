//! Invokes functions with JSON events, in this process or through Lambda's Invoke API. What invokes which function is
//! in `gateway.rs`, `event_source.rs`, `ses_events.rs`, `schedule.rs` and `lambda.rs`.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lambda_http::request::LambdaRequest;
use lambda_http::{Adapter, IntoResponse, Request, Service};
use lambda_runtime::{BoxFuture, Context, LambdaEvent, service_fn};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::http_client::HttpClient;
use crate::request_id::request_id;

/// A function in this process: takes an event as JSON, and returns the response as JSON or the reason for a failure.
pub type Handler = Arc<dyn Fn(String) -> BoxFuture<'static, Result<String, String>> + Send + Sync>;

/// The functions, by name.
#[derive(Clone)]
pub enum Functions {
    /// Functions that run in this process.
    InProcess(BTreeMap<&'static str, Handler>),
    /// Functions that run in other processes, for example under `cargo lambda watch`.
    Remote(Remote),
}

/// An endpoint of Lambda's Invoke API.
#[derive(Debug, Clone)]
pub struct Remote {
    url: String,
    client: HttpClient,
}

/// The function returned no response: it is unknown or unreachable, failed or panicked.
#[derive(Debug, thiserror::Error)]
#[error("function {function}: {reason}")]
pub struct InvokeError {
    function: String,
    reason: String,
}

impl Functions {
    /// Functions that are invoked at `{url}/2015-03-31/functions/{name}/invocations`.
    pub fn remote(url: &str) -> Self {
        Self::Remote(Remote {
            url: url.trim_end_matches('/').to_owned(),
            client: HttpClient::new(),
        })
    }

    /// Invokes a function and waits for its response. If the caller stops waiting, a function in this process
    /// continues, as a deployed one does.
    ///
    /// # Errors
    /// When there is no response, or the function failed.
    pub async fn invoke(&self, name: &str, event: String) -> Result<String, InvokeError> {
        let result = match self {
            Self::InProcess(handlers) => match handlers.get(name) {
                None => Err("is unknown".to_owned()),
                Some(handler) => match tokio::spawn(handler(event)).await {
                    Ok(result) => result,
                    Err(_) => Err("panicked".to_owned()),
                },
            },
            Self::Remote(remote) => remote.invoke(name, event).await,
        };
        result.map_err(|reason| InvokeError {
            function: name.to_owned(),
            reason,
        })
    }
}

impl fmt::Debug for Functions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InProcess(handlers) => f.debug_set().entries(handlers.keys()).finish(),
            Self::Remote(remote) => remote.fmt(f),
        }
    }
}

impl Remote {
    async fn invoke(&self, name: &str, event: String) -> Result<String, String> {
        let url = format!("{}/2015-03-31/functions/{name}/invocations", self.url);
        let response = self.client.post_json(&url, event).await?;
        // If a function fails, Lambda responds with 200 and this header.
        if response.headers.contains_key("x-amz-function-error") || response.status != 200 {
            let error: Value = serde_json::from_slice(&response.body).unwrap_or_default();
            let message = error["errorMessage"].as_str().unwrap_or("no message");
            return Err(format!("failed with {}: {message}", response.status));
        }
        String::from_utf8(response.body.into()).map_err(|_| "returned a response that is not UTF-8".to_owned())
    }
}

/// A handler for a function that takes HTTP requests. It uses the adapter of `lambda_http::run`, so the function
/// receives the same requests as in a deployment.
pub fn http<F, Fut, R, E>(handle: F) -> Handler
where
    F: Fn(Request) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<R, E>> + Send + 'static,
    R: IntoResponse + Send + Sync + 'static,
    E: Display + Send + 'static,
{
    let adapter = Adapter::from(service_fn(handle));
    Arc::new(move |event| {
        let mut adapter = adapter.clone();
        Box::pin(async move {
            let event: LambdaEvent<LambdaRequest> = parse_event(&event)?;
            to_json(adapter.call(event).await)
        })
    })
}

/// A handler for a function that takes events of one type, such as those of a DynamoDB stream.
pub fn events<F, Fut, T, A, E>(handle: F) -> Handler
where
    F: Fn(LambdaEvent<T>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<A, E>> + Send + 'static,
    T: DeserializeOwned + Send + 'static,
    A: Serialize,
    E: Display,
{
    Arc::new(move |event| {
        let handle = handle.clone();
        Box::pin(async move { to_json(handle(parse_event(&event)?).await) })
    })
}

fn parse_event<T: DeserializeOwned>(event: &str) -> Result<LambdaEvent<T>, String> {
    // Only the position of the fault is reported, because the content may be secret.
    let payload =
        serde_json::from_str(event).map_err(|error| format!("the event is malformed at column {}", error.column()))?;
    let mut context = Context::default();
    context.request_id = request_id();
    let deadline = SystemTime::now() + Duration::from_secs(30);
    context.deadline = deadline
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |time| time.as_millis() as u64);
    Ok(LambdaEvent { payload, context })
}

fn to_json<A: Serialize, E: Display>(result: Result<A, E>) -> Result<String, String> {
    let response = result.map_err(|error| error.to_string())?;
    serde_json::to_string(&response).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::extract::Path;
    use axum::response::Response;
    use axum::routing::post;
    use lambda_http::RequestExt;
    use std::convert::Infallible;

    const REQUEST: &str = r#"{"version":"2.0","routeKey":"POST /a","rawPath":"/a","rawQueryString":"x=1",
        "headers":{"host":"localhost"},"requestContext":{"stage":"$default","http":{"method":"POST","path":"/a"},
        "authorizer":{"jwt":{"claims":{"role":"ADMIN"},"scopes":null}}},"body":"hello","isBase64Encoded":false}"#;

    #[tokio::test]
    async fn an_http_function_receives_a_request_and_returns_a_response_for_api_gateway() {
        let handler = http(async |request: Request| {
            let text = format!(
                "{} {:?}",
                request.method(),
                request.query_string_parameters().first("x")
            );
            Ok::<_, Infallible>(text)
        });
        let functions = Functions::InProcess(BTreeMap::from([("a", handler)]));
        let response = functions.invoke("a", REQUEST.to_owned()).await.unwrap();
        let response: Value = serde_json::from_str(&response).unwrap();
        assert_eq!(response["statusCode"], 200);
        assert_eq!(response["body"], "POST Some(\"1\")");
    }

    #[tokio::test]
    async fn failures_are_errors() {
        let handler = events(async |event: LambdaEvent<String>| match event.payload.as_str() {
            "panic" => panic!("on purpose"),
            "fail" => Err("no"),
            _ => Ok(vec![event.payload]),
        });
        let functions = Functions::InProcess(BTreeMap::from([("a", handler)]));
        for (name, event, expected) in [
            ("a", "\"x\"", Ok("[\"x\"]")),
            ("a", "\"fail\"", Err("function a: no")),
            ("a", "\"panic\"", Err("function a: panicked")),
            ("a", "7", Err("function a: the event is malformed at column 1")),
            ("b", "7", Err("function b: is unknown")),
        ] {
            let result = functions.invoke(name, event.to_owned()).await;
            let result = result.map_err(|error| error.to_string());
            assert_eq!(result.as_deref().map_err(String::as_str), expected, "{event}");
        }
    }

    #[tokio::test]
    async fn a_remote_function_is_invoked_through_the_invoke_api() {
        let path = "/2015-03-31/functions/{name}/invocations";
        let app = Router::new().route(
            path,
            post(async |Path(name): Path<String>, event: String| {
                let response = Response::builder();
                match name.as_str() {
                    "good" => response.body(event),
                    "failed" => response
                        .header("x-amz-function-error", "Unhandled")
                        .body(r#"{"errorType":"E","errorMessage":"no luck"}"#.to_owned()),
                    _ => response.status(404).body(String::new()),
                }
                .unwrap()
            }),
        );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let functions = Functions::remote(&format!("http://{}/", listener.local_addr().unwrap()));
        tokio::spawn(async { axum::serve(listener, app).await });

        assert_eq!(functions.invoke("good", "[1]".to_owned()).await.unwrap(), "[1]");
        let failed = functions.invoke("failed", "[1]".to_owned()).await.unwrap_err();
        assert_eq!(failed.to_string(), "function failed: failed with 200 OK: no luck");
        let unknown = functions.invoke("x", "[1]".to_owned()).await.unwrap_err();
        assert_eq!(unknown.to_string(), "function x: failed with 404 Not Found: no message");
        let unreachable = Functions::remote("http://127.0.0.1:1");
        unreachable.invoke("good", "[1]".to_owned()).await.unwrap_err();
    }
}
