//! One HTTP exchange with a peer. Certificates and tokens are in [`Access`](crate::Access); the meaning of bodies is
//! not here.

use std::error::Error;
use std::time::Duration;

use aws_smithy_runtime_api::client::http::{HttpConnector, SharedHttpConnector};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::http::Headers;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::error::display::DisplayErrorContext;
use http_body_util::{BodyExt, Limited};
use jiff::fmt::rfc2822;
use jiff::{SignedDuration, Timestamp};

/// Time limit for a complete response, including retries inside the connector.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

/// Maximum size of a response body, in bytes.
const MAX_RESPONSE: usize = 1 << 20;

/// The longest wait that a peer can request.
const MAX_WAIT: SignedDuration = SignedDuration::from_hours(24);

/// A request to a peer. It has no `Debug`, because its body may contain secrets.
pub struct Call<'a> {
    /// `GET`, `POST` or `PATCH`.
    pub method: &'static str,
    /// The complete URL, including the query.
    pub url: &'a str,
    /// The headers in addition to `Accept` and `Content-Type`.
    pub headers: &'a [(&'static str, &'static str)],
    /// JSON, or empty.
    pub body: Vec<u8>,
}

/// The response of a peer. It has no `Debug`, because its body may contain secrets.
pub struct Reply {
    /// The HTTP status code.
    pub status: u16,
    /// How long the peer wants us to wait (`Retry-After`), at most 24 hours; `None` for a success.
    pub retry_after: Option<SignedDuration>,
    /// When the peer responded, by its own clock, in whole seconds (`Date`). A date that cannot be read counts as
    /// absent.
    pub date: Option<Timestamp>,
    /// The complete body. If the status code is not a success and the body cannot be read, it is empty.
    pub body: Vec<u8>,
}

/// There was no complete response. The call may have been carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoResponse;

/// Makes one call, without retries.
///
/// # Errors
/// When there is no complete response within 30 seconds. The reason is logged here, because no caller acts on it.
pub async fn exchange(connector: &SharedHttpConnector, call: Call<'_>) -> Result<Reply, NoResponse> {
    let (method, url) = (call.method, call.url);
    let request = build_request(call).map_err(|error| {
        tracing::error!(method, url, error = %DisplayErrorContext(&*error), "the request cannot be built");
        NoResponse
    })?;
    let until = tokio::time::Instant::now() + RESPONSE_TIMEOUT;
    let Ok(called) = tokio::time::timeout_at(until, connector.call(request)).await else {
        tracing::warn!(method, url, "the peer did not respond in time");
        return Err(NoResponse);
    };
    let response = called.map_err(|error| {
        tracing::warn!(method, url, error = %DisplayErrorContext(&error), "the peer did not respond");
        NoResponse
    })?;
    let status = response.status().as_u16();
    let succeeded = (200..300).contains(&status);
    let retry_after = match succeeded {
        true => None,
        false => retry_after(response.headers()),
    };
    let date = date(response.headers(), "date");
    let body = Limited::new(response.into_body(), MAX_RESPONSE).collect();
    let body = match tokio::time::timeout_at(until, body).await {
        Ok(Ok(body)) => body.to_bytes().into(),
        // Only the status code matters.
        _ if !succeeded => Vec::new(),
        Ok(Err(error)) => {
            tracing::warn!(method, url, status, error = %DisplayErrorContext(&*error), "the response broke off");
            return Err(NoResponse);
        }
        Err(_) => {
            tracing::warn!(method, url, status, "the response was not complete in time");
            return Err(NoResponse);
        }
    };
    Ok(Reply {
        status,
        retry_after,
        date,
        body,
    })
}

/// The wait that `Retry-After` requests, in seconds or as a date. A date is compared with the peer's own `Date` header,
/// because clocks differ. A value that is invalid or in the past is ignored.
fn retry_after(headers: &Headers) -> Option<SignedDuration> {
    let value = headers.get("retry-after")?.trim();
    let wait = if value.bytes().all(|byte| byte.is_ascii_digit()) {
        SignedDuration::from_secs(value.parse().ok()?)
    } else {
        date(headers, "retry-after")?.duration_since(date(headers, "date")?)
    };
    wait.is_positive().then_some(wait.min(MAX_WAIT))
}

/// The date in a header (RFC 9110 section 5.6.7, in the format of e-mails).
fn date(headers: &Headers, name: &'static str) -> Option<Timestamp> {
    let text = headers.get(name)?.trim();
    rfc2822::DateTimeParser::new().parse_timestamp(text).ok()
}

fn build_request(call: Call<'_>) -> Result<HttpRequest, Box<dyn Error + Send + Sync>> {
    let has_body = !call.body.is_empty();
    let mut request = HttpRequest::new(SdkBody::from(call.body));
    request.set_method(call.method)?;
    request.set_uri(call.url)?;
    let headers = request.headers_mut();
    headers.try_insert("accept", "application/json")?;
    if has_body {
        headers.try_insert("content-type", "application/json")?;
    }
    for (name, value) in call.headers {
        headers.try_insert(*name, *value)?;
    }
    Ok(request)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// A fake peer that accepts one request and responds with these bytes. Returns its base URL and a handle that
    /// resolves to the request.
    pub(crate) async fn peer(response: &str) -> (String, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let response = response.to_owned();
        let request = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            loop {
                stream.read_buf(&mut request).await.unwrap();
                let text = String::from_utf8_lossy(&request).to_lowercase();
                if let Some((head, body)) = text.split_once("\r\n\r\n") {
                    let length = head
                        .lines()
                        .find_map(|line| line.strip_prefix("content-length: "))
                        .map_or(0, |length| length.parse().unwrap());
                    if body.len() >= length {
                        break;
                    }
                }
            }
            stream.write_all(response.as_bytes()).await.unwrap();
            String::from_utf8(request).unwrap()
        });
        (url, request)
    }

    /// The bytes of an HTTP response.
    pub(crate) fn response(status: &str, body: &str) -> String {
        response_with(status, "", body)
    }

    /// The bytes of an HTTP response with additional headers, each of which ends with a line break.
    pub(crate) fn response_with(status: &str, headers: &str, body: &str) -> String {
        let length = body.len();
        format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n{body}")
    }

    async fn get(url: &str) -> Result<Reply, NoResponse> {
        let call = Call {
            method: "GET",
            url,
            headers: &[],
            body: Vec::new(),
        };
        exchange(&crate::connector(), call).await
    }

    #[tokio::test]
    async fn a_call_without_a_complete_response_is_an_error() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let refusing = format!("http://{}", closed.local_addr().unwrap());
        drop(closed);
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let no_tls = format!("https://{}", silent.local_addr().unwrap());
        tokio::spawn(async move { drop(silent.accept().await) });
        for url in [
            refusing.as_str(),
            no_tls.as_str(),
            "http://no-such-host.invalid",
            "no address",
            "http://a b",
        ] {
            assert_eq!(get(url).await.err(), Some(NoResponse), "{url}");
        }
        for broken in ["", "nonsense", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"] {
            let (url, _) = peer(broken).await;
            assert_eq!(get(&url).await.err(), Some(NoResponse), "{broken:?}");
        }
    }

    #[tokio::test]
    async fn a_response_with_any_status_code_is_returned() {
        let (url, request) = peer(&response("503 Busy", "<html>")).await;
        let reply = get(&url).await.ok().unwrap();
        assert_eq!((reply.status, &reply.body[..]), (503, &b"<html>"[..]));
        assert!(request.await.unwrap().starts_with("GET / HTTP/1.1\r\n"));
    }

    #[tokio::test]
    async fn a_response_that_is_too_large_is_an_error() {
        let endless = "x".repeat(MAX_RESPONSE + 1);
        let (url, _) = peer(&response("200 OK", &endless)).await;
        assert_eq!(get(&url).await.err(), Some(NoResponse));
    }

    #[tokio::test]
    async fn a_failure_needs_no_readable_body() {
        let endless = response_with("503 Busy", "retry-after: 7\r\n", &"x".repeat(MAX_RESPONSE + 1));
        let broken = "HTTP/1.1 503 Busy\r\nretry-after: 7\r\ncontent-length: 9\r\n\r\nhalf";
        for response in [endless.as_str(), broken] {
            let (url, _) = peer(response).await;
            let reply = get(&url).await.ok().unwrap();
            let wait = Some(SignedDuration::from_secs(7));
            assert_eq!((reply.status, reply.retry_after), (503, wait));
        }
    }

    #[tokio::test]
    async fn the_date_of_a_response_is_read() {
        let noon = Some("2026-11-22T12:00:00Z".parse().unwrap());
        for (header, expected) in [
            ("date: Sun, 22 Nov 2026 12:00:00 GMT\r\n", noon),
            ("Date:  Sun, 22 Nov 2026 12:00:00 GMT \r\n", noon),
            ("date: Sun, 22 Nov 2026 13:00:00 +0100\r\n", noon),
            ("date: 2026-11-22T12:00:00Z\r\n", None),
            ("date: yesterday\r\n", None),
            ("date: \r\n", None),
            ("", None),
        ] {
            for status in ["200 OK", "503 Busy"] {
                let (url, _) = peer(&response_with(status, header, "{}")).await;
                assert_eq!(get(&url).await.ok().unwrap().date, expected, "{status} {header}");
            }
        }
    }

    #[tokio::test]
    async fn retry_after_is_read_as_seconds_or_a_date() {
        const NOON: &str = "date: Sun, 22 Nov 2026 12:00:00 GMT\r\n";
        let day = 24 * 60 * 60;
        for (status, value, seconds) in [
            ("503 Busy", "120", Some(120)),
            ("429 Too Many", " 1 ", Some(1)),
            ("401 Who", "5", Some(5)),
            ("302 Found", "5", Some(5)),
            ("200 OK", "120", None),
            ("503 Busy", "0", None),
            ("503 Busy", "-5", None),
            ("503 Busy", "1.5", None),
            ("503 Busy", "soon", None),
            ("503 Busy", "", None),
            ("503 Busy", "86401", Some(day)),
            ("503 Busy", "9223372036854775807", Some(day)),
            ("503 Busy", "99999999999999999999", None),
            ("503 Busy", "Sun, 22 Nov 2026 12:02:00 GMT", Some(120)),
            ("503 Busy", "Sun, 22 Nov 2026 13:02:00 +0100", Some(120)),
            ("503 Busy", "Sun, 22 Nov 2026 11:59:00 GMT", None),
            ("503 Busy", "Tue, 22 Nov 2033 12:00:00 GMT", Some(day)),
            ("503 Busy", "2026-11-22T12:02:00Z", None),
        ] {
            let headers = format!("{NOON}retry-after: {value}\r\n");
            let (url, _) = peer(&response_with(status, &headers, "{}")).await;
            let wait = get(&url).await.ok().unwrap().retry_after;
            assert_eq!(wait.map(|wait| wait.as_secs()), seconds, "{status} {value}");
        }
        // Without a `Date` header, a date is ignored.
        let headers = "retry-after: Tue, 22 Nov 2033 12:00:00 GMT\r\n";
        let (url, _) = peer(&response_with("503 Busy", headers, "")).await;
        assert_eq!(get(&url).await.ok().unwrap().retry_after, None);
    }
}
