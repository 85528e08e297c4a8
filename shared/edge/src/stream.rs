//! Batches of change records from the table's stream: calls a handler for each changed row, and reports the records
//! that failed.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;

use aws_lambda_events::event::dynamodb::{Event, EventRecord};
use aws_lambda_events::streams::{DynamoDbBatchItemFailure, DynamoDbEventResponse};
use futures_util::FutureExt;
use futures_util::future::join_all;
use lambda_runtime::LambdaEvent;
use serde_dynamo::AttributeValue;
use serde_json::json;
use tracing::Instrument;

use crate::span_of_event;

/// Calls `handle` with the keys (pk, sk) of each row of the batch, once for each row and concurrently. If it fails or
/// panics for a row, the response reports the records of that row alone, and Lambda delivers them again.
pub async fn for_each_row<F, E>(
    event: LambdaEvent<Event>,
    handle: impl Fn(String, String) -> F,
) -> DynamoDbEventResponse
where
    F: Future<Output = Result<(), E>>,
    E: std::error::Error + 'static,
{
    let mut rows: BTreeMap<(String, String), Vec<Option<String>>> = BTreeMap::new();
    let mut failures = Vec::new();
    for record in event.payload.records {
        let sequence = record.change.sequence_number.clone();
        match keys(&record) {
            Some(row) => rows.entry(row).or_default().push(sequence),
            None => failures.push(sequence),
        }
    }
    let calls = rows.into_iter().map(|((pk, sk), sequences)| {
        let handled = AssertUnwindSafe(handle(pk.clone(), sk)).catch_unwind();
        let failed_records = async move {
            match handled.await {
                Ok(Ok(())) => Vec::new(),
                Ok(Err(error)) => {
                    crate::log_cause(&format!("row {pk} could not be processed"), &error);
                    sequences
                }
                Err(panic) => {
                    tracing::error!(row = pk, panic = panic_message(&panic), "the handler of a row panicked");
                    sequences
                }
            }
        };
        failed_records.instrument(span_of_event(&event.context))
    });
    failures.extend(join_all(calls).await.into_iter().flatten());
    let mut response = DynamoDbEventResponse::default();
    response.batch_item_failures = failures
        .into_iter()
        .map(|sequence| {
            let mut failure = DynamoDbBatchItemFailure::default();
            failure.item_identifier = sequence;
            failure
        })
        .collect();
    response
}

/// A stream event as JSON, with a change record for each of these rows by their keys (pk, sk).
pub fn records_of<'a>(rows: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let records: Vec<_> = rows
        .into_iter()
        .map(|(pk, sk)| {
            json!({
                "awsRegion": "",
                "eventID": "",
                "eventName": "MODIFY",
                "eventSource": "simswap:sweep",
                "dynamodb": {
                    "ApproximateCreationDateTime": 0,
                    "Keys": {"pk": {"S": pk}, "sk": {"S": sk}},
                    "SequenceNumber": "0",
                    "SizeBytes": 0,
                    "StreamViewType": "KEYS_ONLY",
                },
            })
        })
        .collect();
    json!({"Records": records}).to_string()
}

fn keys(record: &EventRecord) -> Option<(String, String)> {
    let key = |name| match record.change.keys.get(name) {
        Some(AttributeValue::S(text)) => Some(text.clone()),
        _ => None,
    };
    Some((key("pk")?, key("sk")?))
}

fn panic_message(panic: &Box<dyn Any + Send>) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("without a message")
}

#[cfg(test)]
mod tests {
    use super::*;
    use lambda_runtime::Context;

    #[tokio::test]
    async fn records_of_rows_are_read_back() {
        let event = records_of([("A#1", "activation"), ("A#1", "delivery#2")]);
        let handled = std::sync::Mutex::new(Vec::new());
        let event = LambdaEvent::new(serde_json::from_str(&event).unwrap(), Context::default());
        let response = for_each_row(event, async |pk, sk| {
            handled.lock().unwrap().push(format!("{pk} {sk}"));
            Ok::<_, std::fmt::Error>(())
        })
        .await;
        assert!(response.batch_item_failures.is_empty());
        assert_eq!(*handled.lock().unwrap(), ["A#1 activation", "A#1 delivery#2"]);
    }

    #[tokio::test]
    async fn a_row_that_fails_affects_no_other_row() {
        let record = |sequence: &str, pk: &str| {
            json!({"awsRegion": "eu-central-1", "eventID": sequence, "eventName": "MODIFY", "dynamodb": {
                "Keys": {"pk": {"S": pk}, "sk": {"S": "activation"}}, "SequenceNumber": sequence,
                "ApproximateCreationDateTime": 1_700_000_000, "SizeBytes": 1, "StreamViewType": "KEYS_ONLY"
            }})
        };
        let event = json!({"Records": [
            record("1", "good"), record("2", "panics"), record("3", "fails"), record("4", "good"),
            record("5", "fails"),
        ]});
        let response = for_each_row(
            LambdaEvent::new(serde_json::from_value(event).unwrap(), Context::default()),
            async |pk, _| match pk.as_str() {
                "good" => Ok(()),
                "fails" => Err(std::fmt::Error),
                _ => panic!("on purpose"),
            },
        )
        .await;
        let mut failed: Vec<_> = response
            .batch_item_failures
            .into_iter()
            .filter_map(|failure| failure.item_identifier)
            .collect();
        failed.sort();
        assert_eq!(failed, ["2", "3", "5"]);
    }
}
