//! The one call to SES, and what its answer is worth.

use std::error::Error;
use std::time::Duration;

use aws_sdk_ses::Client;
use aws_sdk_ses::config::retry::RetryConfig;
use aws_sdk_ses::config::timeout::TimeoutConfig;
use aws_sdk_ses::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ses::operation::send_raw_email::SendRawEmailError;
use aws_sdk_ses::primitives::Blob;
use aws_sdk_ses::types::{MessageTag, RawMessage};
use aws_smithy_runtime_api::http::Response;
use domain::{Delivery, Outcome};
use jiff::SignedDuration;

/// SES, called once a claim.
#[derive(Debug)]
pub(crate) struct Post {
    ses: Client,
    configuration_set: Option<String>,
}

/// SES refuses such a mail whenever it is sent.
const NEVER: [&str; 2] = ["InvalidParameterValue", "MessageRejected"];

impl Post {
    /// The SDK's own retries are off: they would send twice after a timeout. The call ends well before the claim does.
    pub(crate) fn new(ses: &aws_sdk_ses::Config, lease: SignedDuration, set: String) -> Self {
        let within = Duration::try_from(lease).unwrap_or(Duration::from_secs(60)) / 2;
        let config = ses
            .to_builder()
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::builder().operation_timeout(within).build())
            .build();
        Self {
            ses: Client::from_conf(config),
            configuration_set: (!set.is_empty()).then_some(set),
        }
    }

    /// Sends a message for a mail that is claimed.
    pub(crate) async fn send(&self, mail: &Delivery, message: Vec<u8>) -> Outcome {
        let attempt = mail.attempt.as_ref().map_or(0, |attempt| attempt.number);
        let tag = |name: &str, value: String| {
            MessageTag::builder()
                .name(name)
                .value(value)
                .build()
                .expect("name and value are given")
        };
        let raw = RawMessage::builder()
            .data(Blob::new(message))
            .build()
            .expect("data is given");
        let sent = self
            .ses
            .send_raw_email()
            .raw_message(raw)
            .destinations(mail.to.as_str())
            .tags(tag("activation", mail.activation.to_string()))
            .tags(tag("attempt", format!("{}-{attempt}", mail.number)))
            .set_configuration_set_name(self.configuration_set.clone())
            .send()
            .await;
        match sent {
            Ok(answer) => Outcome::Sent(answer.message_id),
            Err(error) => {
                // SES's own words may hold the recipient's address: its code is enough.
                let code = error.code().unwrap_or("none");
                tracing::warn!(code, "SES did not take a mail");
                judge(&error)
            }
        }
    }
}

/// What an error says of the mail's fate.
fn judge(error: &SdkError<SendRawEmailError, Response>) -> Outcome {
    match error {
        SdkError::ConstructionFailure(_) => Outcome::Released,
        SdkError::DispatchFailure(_) if never_connected(error) => Outcome::Released,
        SdkError::ServiceError(service) => match service.raw().status().as_u16() {
            400..500
                if service
                    .err()
                    .code()
                    .is_some_and(|code| NEVER.contains(&code)) =>
            {
                Outcome::Refused
            }
            400..500 => Outcome::Released,
            _ => Outcome::Lost,
        },
        _ => Outcome::Lost,
    }
}

/// Without a connection nothing was sent.
fn never_connected(error: &SdkError<SendRawEmailError, Response>) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && io.kind() == std::io::ErrorKind::ConnectionRefused
        {
            return true;
        }
        cause = error.source();
    }
    false
}
