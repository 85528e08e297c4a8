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
use domain::{Delivery, HoldReason, SendOutcome};
use jiff::SignedDuration;

/// SES, called once a claim.
#[derive(Debug)]
pub(crate) struct Post {
    ses: Client,
    configuration_set: Option<String>,
}

impl Post {
    /// The SDK's own retries are off: they would send twice after a timeout. The call ends well before the claim does.
    pub(crate) fn new(ses: &aws_sdk_ses::Config, lease: SignedDuration, set: String) -> Self {
        let within = Duration::try_from(lease).unwrap_or(Duration::from_secs(60)) / 2;
        let config = ses
            .to_builder()
            .retry_config(RetryConfig::disabled())
            .timeout_config(
                // Of both, or the shorter one for an attempt that all clients share would stay in force.
                TimeoutConfig::builder()
                    .operation_attempt_timeout(within)
                    .operation_timeout(within)
                    .build(),
            )
            .build();
        Self {
            ses: Client::from_conf(config),
            configuration_set: (!set.is_empty()).then_some(set),
        }
    }

    /// Sends a message for a mail that is claimed.
    pub(crate) async fn send(&self, mail: &Delivery, message: Vec<u8>) -> SendOutcome {
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
            Ok(answer) => SendOutcome::Sent(answer.message_id),
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
fn judge(error: &SdkError<SendRawEmailError, Response>) -> SendOutcome {
    match error {
        SdkError::ConstructionFailure(_) => SendOutcome::Held(HoldReason::Unverified),
        SdkError::DispatchFailure(_) if never_connected(error) => SendOutcome::Held(HoldReason::Unreachable),
        SdkError::ServiceError(service) => {
            let (status, told) = (service.raw().status().as_u16(), service.err());
            meaning(status, told.code(), told.message().unwrap_or_default())
        }
        _ => SendOutcome::Lost,
    }
}

/// What an answer means. SES's codes come with and without `Exception`, by its version and the layer that answers; one
/// code has several causes, which its words alone tell apart. The words are never shown: they may hold an address.
fn meaning(status: u16, code: Option<&str>, message: &str) -> SendOutcome {
    let message = message.to_ascii_lowercase();
    let says = |words: &str| message.contains(words);
    let name = code.map(|code| code.strip_suffix("Exception").unwrap_or(code));
    let rejected = name == Some("MessageRejected");
    if says("daily message quota exceeded") {
        return SendOutcome::Held(HoldReason::Quota);
    }
    if says("maximum sending rate exceeded") {
        return SendOutcome::Held(HoldReason::Throttled);
    }
    if rejected && (says("paused") || says("suspended") || says("sending is disabled")) {
        return SendOutcome::Held(HoldReason::Paused);
    }
    if rejected && says("not verified") {
        return SendOutcome::Held(HoldReason::Unverified);
    }
    match (status, name) {
        (_, Some("LimitExceeded")) => SendOutcome::Held(HoldReason::Quota),
        (
            _,
            Some(
                "Throttling"
                | "Throttled"
                | "ThrottledRequest"
                | "RequestThrottled"
                | "RequestLimitExceeded"
                | "TooManyRequests"
                | "SlowDown",
            ),
        )
        | (429, _) => SendOutcome::Held(HoldReason::Throttled),
        (_, Some("AccountSendingPaused" | "ConfigurationSetSendingPaused" | "SendingPaused")) => {
            SendOutcome::Held(HoldReason::Paused)
        }
        (
            _,
            Some(
                "AccessDenied"
                | "AccountSuspended"
                | "ConfigurationSetDoesNotExist"
                | "ExpiredToken"
                | "FromEmailAddressNotVerified"
                | "IncompleteSignature"
                | "InvalidClientTokenId"
                | "InvalidSecurity"
                | "InvalidSignature"
                | "MailFromDomainNotVerified"
                | "MissingAuthenticationToken"
                | "NotAuthorized"
                | "OptInRequired"
                | "ProductionAccessNotGranted"
                | "RequestExpired"
                | "SignatureDoesNotMatch"
                | "SubscriptionRequired"
                | "UnrecognizedClient",
            ),
        )
        | (401 | 403, _) => SendOutcome::Held(HoldReason::Unverified),
        // SES refuses such a mail whenever it is sent.
        (400..500, Some("InvalidParameterValue" | "MessageRejected")) => SendOutcome::Refused,
        (400..500, Some(_)) => SendOutcome::Released,
        // Not SES's words: something in between sent the call back.
        (400..500, None) => SendOutcome::Held(HoldReason::Unreachable),
        _ => SendOutcome::Lost,
    }
}

/// Without a connection nothing was sent.
fn never_connected(error: &SdkError<SendRawEmailError, Response>) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        let refused = error
            .downcast_ref::<std::io::Error>()
            .is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused);
        // A name that is not found, a connection that takes too long, a handshake that fails.
        let unmade = error
            .downcast_ref::<hyper_util::client::legacy::Error>()
            .is_some_and(hyper_util::client::legacy::Error::is_connect);
        if refused || unmade {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_answer_means() {
        // Status, code and words; `-` is none.
        let table = "
            400 Throttling | Maximum sending rate exceeded. => throttled
            400 Throttling | Daily message quota exceeded. => quota
            400 ThrottlingException | Daily message quota exceeded => quota
            400 ThrottlingException | Rate exceeded => throttled
            400 TooManyRequestsException | - => throttled
            400 RequestLimitExceeded | - => throttled
            454 Unknown | Maximum sending rate exceeded => throttled
            429 - | - => throttled
            503 SlowDown | - => throttled
            500 Throttling | - => throttled
            400 LimitExceededException | - => quota
            400 LimitExceeded | - => quota
            400 AccountSendingPausedException | - => paused
            400 AccountSendingPaused | - => paused
            400 ConfigurationSetSendingPausedException | - => paused
            400 ConfigurationSetSendingPaused | - => paused
            400 SendingPausedException | - => paused
            400 MessageRejected | Sending paused for this account. => paused
            400 MessageRejected | Sending suspended for this account => paused
            400 MessageRejected | Email sending is disabled. => paused
            400 MailFromDomainNotVerifiedException | - => unverified
            400 MailFromDomainNotVerified | - => unverified
            400 MessageRejected | Email address is not verified. The following identities failed the check: anna@example.com => unverified
            400 ConfigurationSetDoesNotExist | Configuration set <x> does not exist. => unverified
            400 ConfigurationSetDoesNotExistException | - => unverified
            400 AccessDenied | - => unverified
            403 AccessDenied | - => unverified
            400 AccessDeniedException | - => unverified
            400 IncompleteSignature | - => unverified
            400 RequestExpired | - => unverified
            400 ExpiredToken | - => unverified
            400 ExpiredTokenException | - => unverified
            403 SignatureDoesNotMatch | - => unverified
            403 InvalidClientTokenId | - => unverified
            400 UnrecognizedClientException | - => unverified
            401 - | - => unverified
            403 - | - => unverified
            403 Unknown | - => unverified
            404 - | - => unreachable
            407 - | - => unreachable
            400 MessageRejected | Address is blacklisted. => refused
            400 MessageRejected | - => refused
            400 InvalidParameterValue | Illegal address; not verified, paused => refused
            499 InvalidParameterValue | - => refused
            400 MalformedQueryString | - => released
            499 Unknown | - => released
            500 InvalidParameterValue | - => lost
            500 InternalFailure | - => lost
            503 ServiceUnavailable | - => lost
            503 - | - => lost
            ";
        for row in table.lines().map(str::trim).filter(|row| !row.is_empty()) {
            let (answer, expected) = row.split_once(" => ").unwrap();
            let (head, message) = answer.split_once(" | ").unwrap();
            let (status, code) = head.split_once(' ').unwrap();
            let given = |text| Some(text).filter(|text| *text != "-");
            let meant = meaning(status.parse().unwrap(), given(code), given(message).unwrap_or_default());
            let found = match meant {
                SendOutcome::Held(reason) => reason.as_str(),
                SendOutcome::Released => "released",
                SendOutcome::Refused => "refused",
                SendOutcome::Lost => "lost",
                SendOutcome::Sent(_) => "sent",
            };
            assert_eq!(found, expected, "{row}");
        }
    }
}
