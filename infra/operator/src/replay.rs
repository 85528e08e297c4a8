//! Replays the messages of the dead-letter queue: invokes the function again with an event, and deletes what needs no
//! replay. What a message contains is defined by Lambda and SNS.

use std::collections::HashSet;

use aws::{CallError, ServiceClient};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{CommandError, with_causes};

/// The dead-letter queue, and the functions whose messages it has.
#[derive(Debug)]
pub struct DeadLetterQueue {
    /// The client for the queue.
    pub sqs: ServiceClient,
    /// The client that invokes functions.
    pub lambda: ServiceClient,
    /// The URL of the queue.
    pub url: String,
    /// The name of the function mail-events, for notifications that did not reach it.
    pub mail_events: String,
}

/// What became of the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Replayed {
    /// Events with which a function was invoked again.
    pub invoked: u32,
    /// Messages that were deleted, because the sweeper does what they stand for.
    pub deleted: u32,
    /// Messages that are not known, and remain in the queue.
    pub left: u32,
}

/// What a message stands for.
#[derive(Debug, PartialEq)]
enum Letter {
    /// An event with which the function `function` failed. `None` stands for mail-events.
    Event { function: Option<String>, event: Value },
    /// Positions of change records in the stream with which this function failed. The rows say what is to be done.
    Records { function: String },
    /// Anything else.
    Unknown,
}

impl Letter {
    fn parse(body: &str) -> Self {
        let body: Value = serde_json::from_str(body).unwrap_or_default();
        let function = body["requestContext"]["functionArn"].as_str().map(str::to_owned);
        match (function, &body["requestPayload"], &body["DDBStreamBatchInfo"]) {
            (Some(function), event @ Value::Object(_), _) => Self::Event {
                function: Some(function),
                event: event.clone(),
            },
            (Some(function), _, Value::Object(_)) => Self::Records { function },
            // SNS could not deliver a notification to mail-events. This is the event that it would have delivered.
            (None, ..) if body["Type"] == "Notification" && body["Message"].is_string() => Self::Event {
                function: None,
                event: json!({"Records": [{"EventSource": "aws:sns", "EventVersion": "1.0", "Sns": body}]}),
            },
            _ => Self::Unknown,
        }
    }
}

/// Replays every message that was in the queue at `start`, and calls `report` with what is done about each. Messages
/// that arrive later wait for the next replay, so that an event which fails again is not replayed for ever.
///
/// # Errors
/// When the queue cannot be read, or a function cannot be invoked. That message stays in the queue.
pub async fn replay(
    queue: &DeadLetterQueue,
    start: Timestamp,
    report: &mut dyn FnMut(&str),
) -> Result<Replayed, CommandError> {
    let mut replayed = Replayed::default();
    let mut passed = HashSet::new();
    loop {
        // One message at a time, because SQS hides what was received from the next replay for a while. The wait makes SQS
        // search all its servers.
        let input = json!({
            "QueueUrl": queue.url,
            "MaxNumberOfMessages": 1,
            "WaitTimeSeconds": 1,
            "MessageSystemAttributeNames": ["SentTimestamp"],
        });
        let response = queue.sqs.call("AmazonSQS.ReceiveMessage", &input).await;
        let response = response.map_err(|error| failed("the queue cannot be read", &error))?;
        let message = &response["Messages"][0];
        let Some(id) = message["MessageId"].as_str() else {
            return Ok(replayed);
        };
        let sent = message["Attributes"]["SentTimestamp"].as_str();
        let sent = sent.and_then(|millis| millis.parse::<i64>().ok());
        let is_new = sent.is_some_and(|millis| millis > start.as_millisecond());
        let letter = Letter::parse(message["Body"].as_str().unwrap_or_default());
        if (is_new || letter == Letter::Unknown) && !passed.insert(id.to_owned()) {
            // Only messages that stay are left.
            return Ok(replayed);
        }
        match letter {
            _ if is_new => {}
            Letter::Event { function, event } => {
                let function = function.as_ref().unwrap_or(&queue.mail_events);
                let invoked = queue.lambda.invoke_later(function, event.to_string()).await;
                invoked.map_err(|error| failed(&format!("{function} cannot be invoked"), &error))?;
                delete(queue, message).await?;
                report(&format!("{function}: invoked again with its event"));
                replayed.invoked += 1;
            }
            Letter::Records { function } => {
                delete(queue, message).await?;
                report(&format!(
                    "{function}: deleted; the sweeper wakes the function for every row that is due"
                ));
                replayed.deleted += 1;
            }
            Letter::Unknown => {
                report(&format!(
                    "message {id}: left in the queue, because its kind is not known"
                ));
                replayed.left += 1;
            }
        }
    }
}

async fn delete(queue: &DeadLetterQueue, message: &Value) -> Result<(), CommandError> {
    let input = json!({"QueueUrl": queue.url, "ReceiptHandle": message["ReceiptHandle"]});
    let deleted = queue.sqs.call("AmazonSQS.DeleteMessage", &input).await;
    deleted.map_err(|error| failed("a message cannot be deleted, and will be replayed again", &error))?;
    Ok(())
}

fn failed(what: &str, error: &CallError) -> CommandError {
    CommandError(format!("{what}: {}", with_causes(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_message_is_recognised() {
        let context = json!({"functionArn": "arn:aws:lambda:eu-central-1:1:function:x-mail-events:$LATEST"});
        let function = context["functionArn"].as_str().unwrap().to_owned();
        let event = json!({"Records": [{"Sns": {"Message": "{}"}}]});
        let notification = json!({"Type": "Notification", "MessageId": "m", "Message": "{}"});
        for (body, letter) in [
            (
                json!({"requestContext": context, "requestPayload": event, "responsePayload": null}),
                Letter::Event {
                    function: Some(function.clone()),
                    event,
                },
            ),
            (
                json!({"requestContext": context, "DDBStreamBatchInfo": {"batchSize": 1}}),
                Letter::Records { function },
            ),
            (
                notification.clone(),
                Letter::Event {
                    function: None,
                    event: json!({"Records": [{"EventSource": "aws:sns", "EventVersion": "1.0", "Sns": notification}]}),
                },
            ),
            (json!({"requestContext": context}), Letter::Unknown),
            (
                json!({"Type": "SubscriptionConfirmation", "Message": "x"}),
                Letter::Unknown,
            ),
            (json!("text"), Letter::Unknown),
        ] {
            assert_eq!(Letter::parse(&body.to_string()), letter, "{body}");
        }
        assert_eq!(Letter::parse("no JSON"), Letter::Unknown);
    }
}
