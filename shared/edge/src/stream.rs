//! Stream events: each changed row once a batch, and which records failed.

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

/// Calls `look` with the keys (pk, sk) of each row of the batch, all at once. A look that fails or panics leaves its own
/// records to come again, and no other's.
pub async fn for_each_row<F, E>(event: LambdaEvent<Event>, look: impl Fn(String, String) -> F) -> DynamoDbEventResponse
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
    let looks = rows.into_iter().map(|((pk, sk), sequences)| {
        let looked = AssertUnwindSafe(look(pk.clone(), sk)).catch_unwind();
        let looked = async move {
            match looked.await {
                Ok(Ok(())) => Vec::new(),
                Ok(Err(error)) => {
                    crate::log_cause(&format!("row {pk} could not be looked at"), &error);
                    sequences
                }
                Err(panic) => {
                    tracing::error!(row = pk, panic = words(&panic), "a row made us panic");
                    sequences
                }
            }
        };
        looked.instrument(span_of_event(&event.context))
    });
    failures.extend(join_all(looks).await.into_iter().flatten());
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

/// An event that names rows by their keys (pk, sk), in the shape in which a stream does.
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

fn words(panic: &Box<dyn Any + Send>) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no words")
}

#[cfg(test)]
mod tests {
    use super::*;
    use lambda_runtime::Context;

    #[tokio::test]
    async fn what_names_rows_is_read_back() {
        let event = records_of([("A#1", "activation"), ("A#1", "delivery#2")]);
        let seen = std::sync::Mutex::new(Vec::new());
        let event = LambdaEvent::new(serde_json::from_str(&event).unwrap(), Context::default());
        let response = for_each_row(event, async |pk, sk| {
            seen.lock().unwrap().push(format!("{pk} {sk}"));
            Ok::<_, std::fmt::Error>(())
        })
        .await;
        assert!(response.batch_item_failures.is_empty());
        assert_eq!(*seen.lock().unwrap(), ["A#1 activation", "A#1 delivery#2"]);
    }

    #[tokio::test]
    async fn one_bad_row_is_its_own_failure() {
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
