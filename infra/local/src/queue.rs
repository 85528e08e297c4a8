//! The dead-letter queue over HTTP, with the two operations of SQS that `replay` calls, in the AWS JSON 1.0 protocol. A
//! message that was received stays visible until it is deleted. What enters the queue is decided in `event_source.rs`.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::event_source::{DeadLetter, DeadLetters};

/// The endpoint of SQS. There is only one queue, whatever URL a request names.
pub(crate) fn router(dead_letters: DeadLetters) -> Router {
    Router::new().fallback(handle_request).with_state(dead_letters)
}

async fn handle_request(State(dead_letters): State<DeadLetters>, headers: HeaderMap, body: Bytes) -> Response {
    let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok());
    let input: Value = serde_json::from_slice(&body).unwrap_or_default();
    match target {
        Some("AmazonSQS.ReceiveMessage") => {
            let messages: Vec<_> = dead_letters
                .letters()
                .iter()
                .take(at_most(&input))
                .map(message)
                .collect();
            Json(json!({"Messages": messages})).into_response()
        }
        Some("AmazonSQS.DeleteMessage") => {
            dead_letters.remove(input["ReceiptHandle"].as_str().unwrap_or_default());
            Json(json!({})).into_response()
        }
        _ => {
            let body = json!({"__type": "com.amazonaws.sqs#UnsupportedOperation", "message": ""});
            (StatusCode::BAD_REQUEST, Json(body)).into_response()
        }
    }
}

/// The maximum number of messages in one response. The default is SQS's.
fn at_most(input: &Value) -> usize {
    input["MaxNumberOfMessages"]
        .as_u64()
        .map_or(1, |most| most.min(10) as usize)
}

/// The message that Lambda sends about a change record: its position in the stream, and not the record.
fn message(letter: &DeadLetter) -> Value {
    let place = &letter.record["dynamodb"]["SequenceNumber"];
    let body = json!({
        "version": "1.0",
        "timestamp": letter.at.to_string(),
        "requestContext": {"functionArn": letter.function, "condition": "RetryAttemptsExhausted"},
        "DDBStreamBatchInfo": {
            "startSequenceNumber": place,
            "endSequenceNumber": place,
            "batchSize": 1,
            "streamArn": letter.record["eventSourceARN"],
        },
    });
    json!({
        "MessageId": letter.id,
        "ReceiptHandle": letter.id,
        "Attributes": {"SentTimestamp": letter.at.as_millisecond().to_string()},
        "Body": body.to_string(),
    })
}
