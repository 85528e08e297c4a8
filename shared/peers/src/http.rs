//! One HTTP exchange with a peer. How it is reached is in [`Access`](crate::Access); what the bodies say is not here.

use std::error::Error;
use std::time::Duration;

use aws_smithy_runtime_api::client::http::{HttpConnector, SharedHttpConnector};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::http::Headers;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::error::display::DisplayErrorContext;
use http_body_util::{BodyExt, Limited};
use jiff::{SignedDuration, fmt::rfc2822};

/// Time until an answer is complete. A call that is made anew below the connector counts too.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Bytes of an answer at most.
const ANSWER_AT_MOST: usize = 1 << 20;

/// What a peer may ask us to wait at most.
const WAIT_AT_MOST: SignedDuration = SignedDuration::from_hours(24);

/// A call out. It has no `Debug`, because its body may hold secrets.
pub struct Call<'a> {
    /// `GET`, `POST` or `PATCH`.
    pub method: &'static str,
    /// The whole address, query included.
    pub url: &'a str,
    /// What is sent besides the content type.
    pub headers: &'a [(&'static str, &'static str)],
    /// JSON, or nothing.
    pub body: Vec<u8>,
}

/// What came back. It has no `Debug`, because its body may hold secrets.
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// How long the peer asks us to wait (`Retry-After`), at most 24 hours; never of a success.
    pub retry_after: Option<SignedDuration>,
    /// The body, whole; empty if that of a status which is no success cannot be read.
    pub body: Vec<u8>,
}

/// A call brought no reply, and may have been carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoResponse;

/// Makes one call, once. Why it brought no reply goes to the log here, because no caller acts on it.
pub async fn exchange(connector: &SharedHttpConnector, call: Call<'_>) -> Result<Reply, NoResponse> {
    let (method, url) = (call.method, call.url);
    let request = prepare(call).map_err(|error| {
        tracing::error!(method, url, error = %DisplayErrorContext(&*error), "a call cannot be made");
        NoResponse
    })?;
    let until = tokio::time::Instant::now() + ANSWER_WITHIN;
    let Ok(called) = tokio::time::timeout_at(until, connector.call(request)).await else {
        tracing::warn!(method, url, "a call brought no answer in time");
        return Err(NoResponse);
    };
    let response = called.map_err(|error| {
        tracing::warn!(method, url, error = %DisplayErrorContext(&error), "a call brought no answer");
        NoResponse
    })?;
    let status = response.status().as_u16();
    let succeeded = (200..300).contains(&status);
    let retry_after = match succeeded {
        true => None,
        false => retry_after(response.headers()),
    };
    let body = Limited::new(response.into_body(), ANSWER_AT_MOST).collect();
    let body = match tokio::time::timeout_at(until, body).await {
        Ok(Ok(body)) => body.to_bytes().into(),
        // The status says it all.
        _ if !succeeded => Vec::new(),
        Ok(Err(error)) => {
            tracing::warn!(method, url, status, error = %DisplayErrorContext(&*error), "an answer broke off");
            return Err(NoResponse);
        }
        Err(_) => {
            tracing::warn!(method, url, status, "an answer did not end in time");
            return Err(NoResponse);
        }
    };
    Ok(Reply {
        status,
        retry_after,
        body,
    })
}

/// Seconds, or a date, which is measured from the peer's own `Date`: clocks differ. What is not such, or past, is ignored.
fn retry_after(headers: &Headers) -> Option<SignedDuration> {
    let asked = headers.get("retry-after")?.trim();
    let wait = if asked.bytes().all(|byte| byte.is_ascii_digit()) {
        SignedDuration::from_secs(asked.parse().ok()?)
    } else {
        let date = |text: &str| rfc2822::DateTimeParser::new().parse_timestamp(text.trim()).ok();
        date(asked)?.duration_since(date(headers.get("date")?)?)
    };
    wait.is_positive().then_some(wait.min(WAIT_AT_MOST))
}

fn prepare(call: Call<'_>) -> Result<HttpRequest, Box<dyn Error + Send + Sync>> {
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

    /// A peer that takes one request and answers these bytes. Gives its base URL and, later, the request.
    pub(crate) async fn peer(answer: &str) -> (String, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answer = answer.to_owned();
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
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(request).unwrap()
        });
        (url, request)
    }

    /// An HTTP answer.
    pub(crate) fn answer(status: &str, body: &str) -> String {
        answer_with(status, "", body)
    }

    /// An HTTP answer with more headers, each with the end of its line.
    pub(crate) fn answer_with(status: &str, headers: &str, body: &str) -> String {
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
    async fn what_brings_no_answer() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let nobody = format!("http://{}", closed.local_addr().unwrap());
        drop(closed);
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let no_tls = format!("https://{}", silent.local_addr().unwrap());
        tokio::spawn(async move { drop(silent.accept().await) });
        for url in [
            nobody.as_str(),
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
    async fn any_status_is_a_reply() {
        let (url, request) = peer(&answer("503 Busy", "<html>")).await;
        let reply = get(&url).await.ok().unwrap();
        assert_eq!((reply.status, &reply.body[..]), (503, &b"<html>"[..]));
        assert!(request.await.unwrap().starts_with("GET / HTTP/1.1\r\n"));
    }

    #[tokio::test]
    async fn an_endless_answer_is_cut() {
        let endless = "x".repeat(ANSWER_AT_MOST + 1);
        let (url, _) = peer(&answer("200 OK", &endless)).await;
        assert_eq!(get(&url).await.err(), Some(NoResponse));
    }

    #[tokio::test]
    async fn a_status_that_is_no_success_needs_no_body() {
        let endless = answer_with("503 Busy", "retry-after: 7\r\n", &"x".repeat(ANSWER_AT_MOST + 1));
        let broken = "HTTP/1.1 503 Busy\r\nretry-after: 7\r\ncontent-length: 9\r\n\r\nhalf";
        for answer in [endless.as_str(), broken] {
            let (url, _) = peer(answer).await;
            let reply = get(&url).await.ok().unwrap();
            let wait = Some(SignedDuration::from_secs(7));
            assert_eq!((reply.status, reply.retry_after), (503, wait));
        }
    }

    #[tokio::test]
    async fn how_long_a_peer_asks_us_to_wait() {
        const NOON: &str = "date: Sun, 22 Nov 2026 12:00:00 GMT\r\n";
        let day = 24 * 60 * 60;
        for (status, asked, seconds) in [
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
            let headers = format!("{NOON}retry-after: {asked}\r\n");
            let (url, _) = peer(&answer_with(status, &headers, "{}")).await;
            let wait = get(&url).await.ok().unwrap().retry_after;
            assert_eq!(wait.map(|wait| wait.as_secs()), seconds, "{status} {asked}");
        }
        // A date says nothing where the peer does not tell what time it is there.
        let headers = "retry-after: Tue, 22 Nov 2033 12:00:00 GMT\r\n";
        let (url, _) = peer(&answer_with("503 Busy", headers, "")).await;
        assert_eq!(get(&url).await.ok().unwrap().retry_after, None);
    }
}
