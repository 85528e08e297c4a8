//! One HTTP exchange with a peer. How it is reached is in [`Access`](crate::Access); what the bodies say is not here.

use std::error::Error;
use std::time::Duration;

use aws_smithy_runtime_api::client::http::{HttpConnector, SharedHttpConnector};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::error::display::DisplayErrorContext;
use http_body_util::{BodyExt, Limited};

/// Time until an answer begins, and again until it is complete.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Bytes of an answer at most.
const ANSWER_AT_MOST: usize = 1 << 20;

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
    /// The body, whole.
    pub body: Vec<u8>,
}

/// A call brought no reply, and may have been carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unanswered;

/// Makes one call, once. Why it brought no reply goes to the log here, because no caller acts on it.
pub async fn exchange(
    connector: &SharedHttpConnector,
    call: Call<'_>,
) -> Result<Reply, Unanswered> {
    let (method, url) = (call.method, call.url);
    let request = prepare(call).map_err(|error| {
        tracing::error!(method, url, error = %DisplayErrorContext(&*error), "a call cannot be made");
        Unanswered
    })?;
    let Ok(called) = tokio::time::timeout(ANSWER_WITHIN, connector.call(request)).await else {
        tracing::warn!(method, url, "a call brought no answer in time");
        return Err(Unanswered);
    };
    let response = called.map_err(|error| {
        tracing::warn!(method, url, error = %DisplayErrorContext(&error), "a call brought no answer");
        Unanswered
    })?;
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), ANSWER_AT_MOST).collect();
    match tokio::time::timeout(ANSWER_WITHIN, body).await {
        Ok(Ok(body)) => Ok(Reply {
            status,
            body: body.to_bytes().into(),
        }),
        Ok(Err(error)) => {
            tracing::warn!(method, url, status, error = %DisplayErrorContext(&*error), "an answer broke off");
            Err(Unanswered)
        }
        Err(_) => {
            tracing::warn!(method, url, status, "an answer did not end in time");
            Err(Unanswered)
        }
    }
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
        let length = body.len();
        format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
    }

    async fn get(url: &str) -> Result<Reply, Unanswered> {
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
            assert_eq!(get(url).await.err(), Some(Unanswered), "{url}");
        }
        for broken in [
            "",
            "nonsense",
            "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf",
        ] {
            let (url, _) = peer(broken).await;
            assert_eq!(get(&url).await.err(), Some(Unanswered), "{broken:?}");
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
        let (url, _) = peer(&answer("200 OK", &"x".repeat(ANSWER_AT_MOST + 1))).await;
        assert_eq!(get(&url).await.err(), Some(Unanswered));
    }
}
