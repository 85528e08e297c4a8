//! An HTTP API of API Gateway: routes, the JWT authorizer, events in payload format 2.0, and the errors that API
//! Gateway itself returns. All other responses come from the functions.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, Query, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, HOST, SET_COOKIE, USER_AGENT, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::{Value, json};
use simulators::TlsCaller;

use crate::functions::Functions;
use crate::request_id::request_id;
use crate::tokens::Tokens;

/// The largest request body that API Gateway accepts, in bytes.
const BODY_BYTES: usize = 10 * 1024 * 1024;

/// A route of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The HTTP method, in capitals.
    pub method: &'static str,
    /// The path pattern, such as `/fixed/{parameter}`. A parameter is one whole segment.
    pub path: &'static str,
    /// The name of the function that handles the request.
    pub function: &'static str,
    /// The check before the function is invoked.
    pub authorizer: Authorizer,
}

/// What API Gateway checks before it invokes a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authorizer {
    /// The bearer token.
    Jwt,
    /// Nothing, because the function authenticates callbacks.
    None,
}

/// The routes of the API, as in `infra/template.yaml`.
pub const ROUTES: &[Route] = &[
    Route {
        method: "POST",
        path: "/api/SimSwapSubscription",
        function: "submit-swap",
        authorizer: Authorizer::Jwt,
    },
    Route {
        method: "GET",
        path: "/api/QueryActivation",
        function: "query-activation",
        authorizer: Authorizer::Jwt,
    },
    Route {
        method: "POST",
        path: "/api/CancelActivation",
        function: "manage-swap",
        authorizer: Authorizer::Jwt,
    },
    Route {
        method: "POST",
        path: "/api/ResendEsim",
        function: "manage-swap",
        authorizer: Authorizer::Jwt,
    },
    Route {
        method: "POST",
        path: "/api/RenewEsim",
        function: "manage-swap",
        authorizer: Authorizer::Jwt,
    },
    Route {
        method: "POST",
        path: "/api/ReportInstalled",
        function: "manage-swap",
        authorizer: Authorizer::Jwt,
    },
    Route {
        method: "POST",
        path: "/gsma/rsp2/es2plus/handleDownloadProgressInfo",
        function: "network-events",
        authorizer: Authorizer::None,
    },
    Route {
        method: "POST",
        path: "/gsma/rsp2/es2plus/handleNotification",
        function: "network-events",
        authorizer: Authorizer::None,
    },
    Route {
        method: "POST",
        path: "/tmf-api/serviceOrdering/v4/listener/serviceOrderStateChangeEvent",
        function: "network-events",
        authorizer: Authorizer::None,
    },
    Route {
        method: "GET",
        path: "/mvno/{accountId}/changesim/{newSim}",
        function: "change-sim",
        authorizer: Authorizer::Jwt,
    },
    Route {
        method: "POST",
        path: "/mvno/{accountId}/changesim/{newSim}",
        function: "change-sim",
        authorizer: Authorizer::Jwt,
    },
];

/// The configuration of a gateway.
#[derive(Clone)]
pub struct Gateway {
    /// Some of [`ROUTES`].
    pub routes: Arc<[Route]>,
    /// Checks bearer tokens.
    pub tokens: Arc<Tokens>,
    /// The functions that handle the requests.
    pub functions: Arc<Functions>,
}

/// A router that handles every request as its fallback. Serve it with `into_make_service_with_connect_info` of a
/// `SocketAddr` or a [`TlsCaller`], so that the events contain the address and the certificate of the caller.
pub fn router(gateway: Gateway) -> Router {
    Router::new().fallback(handle_request).with_state(gateway)
}

async fn handle_request(State(gateway): State<Gateway>, request: Request) -> Response {
    let id = request_id();
    let mut response = match gateway.invoke(request, &id).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    };
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert("apigw-requestid", id);
    }
    response
}

/// The errors that API Gateway itself returns.
#[derive(Debug, Clone, Copy)]
enum GatewayError {
    NoToken,
    BadToken,
    NoRoute,
    TooLarge,
    FunctionFailed,
}

impl IntoResponse for GatewayError {
    fn into_response(self) -> Response {
        let (status, message) = match self {
            Self::NoToken | Self::BadToken => (StatusCode::UNAUTHORIZED, "Unauthorized"),
            Self::NoRoute => (StatusCode::NOT_FOUND, "Not Found"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "Request Entity Too Large"),
            Self::FunctionFailed => (StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error"),
        };
        let body = format!(r#"{{"message":"{message}"}}"#);
        let mut response = (status, [(CONTENT_TYPE, "application/json")], body).into_response();
        let challenge = match self {
            Self::NoToken => "Bearer",
            Self::BadToken => r#"Bearer error="invalid_token""#,
            _ => return response,
        };
        let challenge = HeaderValue::from_static(challenge);
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        response
    }
}

impl Gateway {
    async fn invoke(&self, request: Request, id: &str) -> Result<Response, GatewayError> {
        let (parts, body) = request.into_parts();
        let (route, path_parameters) = self
            .routes
            .iter()
            .find_map(|route| {
                let parameters = parameters(route.path, parts.uri.path())?;
                (route.method == parts.method).then_some((route, parameters))
            })
            .ok_or(GatewayError::NoRoute)?;
        let now = Timestamp::now();
        let claims = match route.authorizer {
            Authorizer::None => None,
            Authorizer::Jwt => {
                let header = parts.headers.get(AUTHORIZATION).ok_or(GatewayError::NoToken)?;
                let header = header.to_str().map_err(|_| GatewayError::BadToken)?;
                // API Gateway accepts the token with and without its scheme.
                let token = match header.split_at_checked(7) {
                    Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer ") => token.trim(),
                    _ => header,
                };
                Some(self.tokens.check(token, now).ok_or(GatewayError::BadToken)?)
            }
        };
        let body = to_bytes(body, BODY_BYTES).await.map_err(|_| GatewayError::TooLarge)?;

        let route_key = format!("{} {}", route.method, route.path);
        let host = text(parts.headers.get(HOST));
        let domain = host.split(':').next().unwrap_or_default();
        let tls_caller = parts.extensions.get::<ConnectInfo<TlsCaller>>();
        let caller = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        let address = tls_caller.map(|info| info.0.address).or(caller.map(|info| info.0));
        let source_ip = address.map_or("127.0.0.1".to_owned(), |address| address.ip().to_string());
        let mut event = json!({
            "version": "2.0",
            "routeKey": route_key,
            "rawPath": parts.uri.path(),
            "rawQueryString": parts.uri.query().unwrap_or_default(),
            "headers": headers(&parts.headers, &source_ip),
            "requestContext": {
                "accountId": "000000000000",
                "apiId": "local",
                "domainName": domain,
                "domainPrefix": domain.split('.').next(),
                "http": {
                    "method": route.method,
                    "path": parts.uri.path(),
                    "protocol": format!("{:?}", parts.version),
                    "sourceIp": source_ip,
                    "userAgent": text(parts.headers.get(USER_AGENT)),
                },
                "requestId": id,
                "routeKey": route_key,
                "stage": "$default",
                "time": now.strftime("%d/%b/%Y:%H:%M:%S +0000").to_string(),
                "timeEpoch": now.as_millisecond(),
            },
            "isBase64Encoded": false,
        });
        // API Gateway omits absent fields.
        if let Some(claims) = claims {
            event["requestContext"]["authorizer"] = json!({"jwt": {"claims": claims, "scopes": null}});
        }
        if let Some(ConnectInfo(caller)) = tls_caller {
            event["requestContext"]["authentication"] = json!({"clientCert": {
                "subjectDN": caller.subject,
                "validity": {},
            }});
        }
        if !path_parameters.is_empty() {
            event["pathParameters"] = json!(path_parameters);
        }
        let query = query(&parts.uri);
        if !query.is_empty() {
            event["queryStringParameters"] = json!(query);
        }
        let cookies = parts.headers.get_all(COOKIE).iter().map(|line| text(Some(line)));
        let cookies: Vec<String> = cookies
            .flat_map(|line| line.split(';').map(|c| c.trim().to_owned()).collect::<Vec<_>>())
            .filter(|cookie| !cookie.is_empty())
            .collect();
        if !cookies.is_empty() {
            event["cookies"] = json!(cookies);
        }
        if !body.is_empty() {
            match str::from_utf8(&body) {
                Ok(body) if is_text(&parts.headers) => event["body"] = body.into(),
                _ => {
                    event["body"] = STANDARD.encode(&body).into();
                    event["isBase64Encoded"] = true.into();
                }
            }
        }

        let result = self.functions.invoke(route.function, event.to_string()).await;
        let json = result.map_err(|error| {
            tracing::error!(%error, "a function failed");
            GatewayError::FunctionFailed
        })?;
        parse_response(&json).ok_or_else(|| {
            tracing::error!(
                function = route.function,
                "the response of a function is not in payload format 2.0"
            );
            GatewayError::FunctionFailed
        })
    }
}

/// The decoded parameters if the path matches the pattern, segment by segment.
fn parameters(pattern: &str, path: &str) -> Option<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    let mut segments = path.split('/');
    for expected in pattern.split('/') {
        let segment = percent_decode_str(segments.next()?).decode_utf8_lossy();
        match expected.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
            Some(_) if segment.is_empty() => return None,
            Some(name) => {
                found.insert(name.to_owned(), segment.into_owned());
            }
            None if segment == expected => {}
            None => return None,
        }
    }
    segments.next().is_none().then_some(found)
}

/// The headers, with names in lower case, and repeated ones joined by commas. Cookies have a field of their own in the
/// event.
fn headers(headers: &HeaderMap, source_ip: &str) -> BTreeMap<String, String> {
    let mut joined: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in headers.iter().filter(|(name, _)| **name != COOKIE) {
        join(&mut joined, name.as_str().to_owned(), text(Some(value)));
    }
    joined.insert("x-forwarded-for".to_owned(), source_ip.to_owned());
    joined.insert("x-forwarded-proto".to_owned(), "http".to_owned());
    joined
}

fn query(uri: &Uri) -> BTreeMap<String, String> {
    let Ok(Query(pairs)) = Query::<Vec<(String, String)>>::try_from_uri(uri) else {
        return BTreeMap::new();
    };
    let mut joined = BTreeMap::new();
    for (name, value) in pairs {
        join(&mut joined, name, value);
    }
    joined
}

fn join(map: &mut BTreeMap<String, String>, name: String, value: String) {
    map.entry(name)
        .and_modify(|earlier| {
            earlier.push(',');
            earlier.push_str(&value);
        })
        .or_insert(value);
}

/// Whether the body is passed as text and not in base64. API Gateway decides by the content type alone; a form, for
/// example, is passed in base64.
fn is_text(headers: &HeaderMap) -> bool {
    let content_type = text(headers.get(CONTENT_TYPE)).to_ascii_lowercase();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    let known = ["application/json", "application/javascript", "application/xml"];
    essence.starts_with("text/") || known.contains(&essence) || essence.ends_with("+json") || essence.ends_with("+xml")
}

fn text(header: Option<&HeaderValue>) -> String {
    header.map_or(String::new(), |value| {
        String::from_utf8_lossy(value.as_bytes()).into_owned()
    })
}

/// The response of a function, in payload format 2.0.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LambdaResponse {
    status_code: u16,
    #[serde(default)]
    headers: BTreeMap<String, Value>,
    #[serde(default)]
    multi_value_headers: BTreeMap<String, Vec<Value>>,
    #[serde(default)]
    cookies: Vec<String>,
    body: Option<String>,
    #[serde(default)]
    is_base64_encoded: bool,
}

fn parse_response(json: &str) -> Option<Response> {
    let lambda_response: LambdaResponse = serde_json::from_str(json).ok()?;
    let body = lambda_response.body.unwrap_or_default();
    let body = match lambda_response.is_base64_encoded {
        true => STANDARD.decode(body).ok()?,
        false => body.into_bytes(),
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(lambda_response.status_code).ok()?;
    let single = lambda_response
        .headers
        .into_iter()
        .map(|(name, value)| (name, vec![value]));
    // If a header is in both maps, the second one has all its values.
    for (name, values) in single.chain(lambda_response.multi_value_headers) {
        let name: HeaderName = name.parse().ok()?;
        response.headers_mut().remove(&name);
        for value in values {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            response.headers_mut().append(&name, value.parse().ok()?);
        }
    }
    for cookie in lambda_response.cookies {
        response.headers_mut().append(SET_COOKIE, cookie.parse().ok()?);
    }
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::functions::{Handler, events};
    use crate::http_client::HttpClient;
    use lambda_http::request::LambdaRequest;
    use lambda_runtime::LambdaEvent;
    use std::sync::LazyLock;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    static TOKENS: LazyLock<Arc<Tokens>> = LazyLock::new(|| Arc::new(Tokens::open(None).unwrap()));

    /// A route without a token.
    const CALLBACK: Route = Route {
        method: "POST",
        path: "/gsma/rsp2/es2plus/handleDownloadProgressInfo",
        function: "network-events",
        authorizer: Authorizer::None,
    };
    const TEST_ROUTES: &[Route] = &[
        ROUTES[0],
        ROUTES[1],
        CALLBACK,
        Route {
            method: "GET",
            path: "/mvno/{accountId}/changesim/{newSim}",
            function: "network-events",
            authorizer: Authorizer::None,
        },
    ];

    /// A function that returns the event it receives.
    fn echo() -> Handler {
        events(async |event: LambdaEvent<Value>| {
            // lambda_http must be able to parse the event, too.
            serde_json::from_value::<LambdaRequest>(event.payload.clone()).map_err(|e| e.to_string())?;
            Ok::<_, String>(json!({"statusCode": 200, "body": event.payload.to_string()}))
        })
    }

    async fn serve(handler: Handler) -> SocketAddr {
        let names = ["submit-swap", "query-activation", "network-events"];
        let handlers = names.map(|name| (name, handler.clone()));
        let app = router(Gateway {
            routes: TEST_ROUTES.into(),
            tokens: TOKENS.clone(),
            functions: Arc::new(Functions::InProcess(BTreeMap::from(handlers))),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = app.into_make_service_with_connect_info::<SocketAddr>();
        tokio::spawn(async { axum::serve(listener, service).await });
        address
    }

    /// Sends a request whose bytes are exactly those in the test. Returns the head and the body of the response.
    async fn send(address: SocketAddr, head: &str, body: &[u8]) -> (String, String) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!("{head}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    async fn event(address: SocketAddr, head: &str, body: &[u8]) -> Value {
        let (head, body) = send(address, head, body).await;
        assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
        serde_json::from_str(&body).unwrap()
    }

    #[tokio::test]
    async fn an_event_has_the_fields_that_api_gateway_sends() {
        let address = serve(echo()).await;
        let token = TOKENS.issue("OWNER", Some("C-100"), None, "anna", 60, Timestamp::now());
        let head = format!(
            "GET /api/QueryActivation?status=INIT&statusIn=A&statusIn=B%2C+C&phoneNumber=%2B316 HTTP/1.1\r\n\
             Host: localhost:9000\r\nAuthorization: Bearer {token}\r\nX-Twice: 1\r\nx-twice: 2\r\n\
             Cookie: a=1; b=2\r\nUser-Agent: test"
        );
        let event = event(address, &head, b"").await;
        assert_eq!(event["version"], "2.0");
        assert_eq!(event["routeKey"], "GET /api/QueryActivation");
        assert_eq!(event["rawPath"], "/api/QueryActivation");
        assert_eq!(
            event["rawQueryString"],
            "status=INIT&statusIn=A&statusIn=B%2C+C&phoneNumber=%2B316"
        );
        assert_eq!(
            event["queryStringParameters"],
            json!({"status": "INIT", "statusIn": "A,B, C", "phoneNumber": "+316"})
        );
        assert_eq!(event["cookies"], json!(["a=1", "b=2"]));
        assert_eq!(event["headers"]["x-twice"], "1,2");
        assert_eq!(event["headers"]["x-forwarded-for"], "127.0.0.1");
        assert!(event["headers"].get("cookie").is_none());
        let context = &event["requestContext"];
        assert_eq!(context["stage"], "$default");
        assert_eq!(context["domainName"], "localhost");
        assert_eq!(context["http"]["method"], "GET");
        assert_eq!(context["http"]["protocol"], "HTTP/1.1");
        assert_eq!(context["http"]["userAgent"], "test");
        let claims = &context["authorizer"]["jwt"]["claims"];
        assert_eq!(
            (&claims["role"], &claims["customer"]),
            (&json!("OWNER"), &json!("C-100"))
        );
        assert!(claims["exp"].is_string());
        assert_eq!(context["authorizer"]["jwt"]["scopes"], Value::Null);
        for absent in ["body", "pathParameters"] {
            assert!(event.get(absent).is_none(), "{absent}");
        }
    }

    #[tokio::test]
    async fn text_is_passed_as_text_and_other_bodies_in_base64() {
        let address = serve(echo()).await;
        for (content_type, body, expected) in [
            ("application/json", "{}".as_bytes(), ("{}", false)),
            ("application/json; charset=utf-8", "é".as_bytes(), ("é", false)),
            ("application/problem+json", b"{}", ("{}", false)),
            ("text/plain", b"a", ("a", false)),
            ("text/plain", &[0xff], ("/w==", true)),
            ("application/x-www-form-urlencoded", b"a=1", ("YT0x", true)),
        ] {
            let head = format!(
                "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}",
                CALLBACK.path
            );
            let event = event(address, &head, body).await;
            assert_eq!(event["body"], expected.0, "{content_type}");
            assert_eq!(event["isBase64Encoded"], expected.1, "{content_type}");
            assert!(event["requestContext"].get("authorizer").is_none());
        }
    }

    #[tokio::test]
    async fn path_parameters_are_decoded() {
        let address = serve(echo()).await;
        let head = "GET /mvno/65a1/changesim/a%2Fb%20c HTTP/1.1\r\nHost: localhost";
        let event = event(address, head, b"").await;
        assert_eq!(event["pathParameters"], json!({"accountId": "65a1", "newSim": "a/b c"}));
        assert_eq!(event["routeKey"], "GET /mvno/{accountId}/changesim/{newSim}");
    }

    #[test]
    fn paths_match_segment_by_segment() {
        for (path, matches) in [
            ("/a/1/b", true),
            ("/a/%31/b", true),
            ("/a//b", false),
            ("/a/1/b/", false),
            ("/a/1", false),
            ("/A/1/b", false),
            ("/a/1/b/c", false),
        ] {
            assert_eq!(parameters("/a/{id}/b", path).is_some(), matches, "{path}");
        }
    }

    #[tokio::test]
    async fn api_gateway_returns_its_own_errors() {
        let failing = events(async |event: LambdaEvent<Value>| match event.payload["body"].as_str() {
            Some("panic") => panic!("on purpose"),
            Some("odd") => Ok(json!({"statusCode": "many"})),
            _ => Err("the cause"),
        });
        let address = serve(failing).await;
        let bearer = |seconds| {
            let token = TOKENS.issue("ADMIN", None, None, "s", seconds, Timestamp::now());
            format!(
                "POST /api/SimSwapSubscription HTTP/1.1\r\nHost: h\r\nContent-Type: text/plain\r\nAuthorization: {token}"
            )
        };
        let open = format!("POST {} HTTP/1.1\r\nHost: h", CALLBACK.path);
        let large = vec![b' '; BODY_BYTES + 1];
        for (case, head, body, status, message) in [
            (
                "no token",
                "POST /api/SimSwapSubscription HTTP/1.1\r\nHost: h",
                &b""[..],
                401,
                "Unauthorized",
            ),
            (
                "bad token",
                "GET /api/QueryActivation HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer x",
                b"",
                401,
                "Unauthorized",
            ),
            ("expired token", &bearer(-5), b"", 401, "Unauthorized"),
            ("no route", "GET /api HTTP/1.1\r\nHost: h", b"", 404, "Not Found"),
            (
                "other method",
                "GET /api/SimSwapSubscription HTTP/1.1\r\nHost: h",
                b"",
                404,
                "Not Found",
            ),
            ("function fails", &bearer(60), b"", 500, "Internal Server Error"),
            ("function panics", &bearer(60), b"panic", 500, "Internal Server Error"),
            (
                "the function returns nonsense",
                &bearer(60),
                b"odd",
                500,
                "Internal Server Error",
            ),
            ("large body", &open, &large, 413, "Request Entity Too Large"),
        ] {
            let (head, body) = send(address, head, body).await;
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{case}: {head}");
            assert!(head.contains("content-type: application/json"), "{case}: {head}");
            assert!(head.contains("apigw-requestid: "), "{case}: {head}");
            assert_eq!(body, format!(r#"{{"message":"{message}"}}"#), "{case}");
        }
    }

    #[tokio::test]
    async fn a_lambda_response_becomes_an_http_response() {
        let handler = events(async |_: LambdaEvent<Value>| {
            Ok::<_, String>(json!({
                "statusCode": 201, "headers": {"X-One": "1", "retry-after": 5, "x-many": "a"},
                "multiValueHeaders": {"x-many": ["a", "b"]}, "cookies": ["a=1", "b=2"],
                "body": "aGVsbG8=", "isBase64Encoded": true
            }))
        });
        let address = serve(handler).await;
        let url = format!("http://{address}{}", CALLBACK.path);
        let response = HttpClient::new().post_json(&url, "{}").await.unwrap();
        assert_eq!((response.status.as_u16(), &response.body[..]), (201, &b"hello"[..]));
        let all = |name| {
            let values = response.headers.get_all(name).iter();
            values.map(|v| v.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(all("x-one"), ["1"]);
        assert_eq!(all("retry-after"), ["5"]);
        assert_eq!(all("x-many"), ["a", "b"]);
        assert_eq!(all("set-cookie"), ["a=1", "b=2"]);
    }
}
