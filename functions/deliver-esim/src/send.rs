//! The call to SES, and the classification of its response. Not here: when a mail is sent, and its claim.

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

/// The client of SES. It makes one call per claim.
#[derive(Debug)]
pub(crate) struct SesClient {
    ses: Client,
    configuration_set: Option<String>,
}

impl SesClient {
    /// The SDK's retries are off, because a retry after a timeout could send the mail twice. A call times out after
    /// half the `lease`, well before its claim expires.
    pub(crate) fn new(ses: &aws_sdk_ses::Config, lease: SignedDuration, configuration_set: String) -> Self {
        let call_timeout = Duration::try_from(lease).unwrap_or(Duration::from_secs(60)) / 2;
        let config = ses
            .to_builder()
            .retry_config(RetryConfig::disabled())
            .timeout_config(
                // Both are set, because otherwise the shorter timeout per attempt of the shared configuration applies.
                TimeoutConfig::builder()
                    .operation_attempt_timeout(call_timeout)
                    .operation_timeout(call_timeout)
                    .build(),
            )
            .build();
        Self {
            ses: Client::from_conf(config),
            configuration_set: (!configuration_set.is_empty()).then_some(configuration_set),
        }
    }

    /// Sends the message of a claimed mail.
    pub(crate) async fn send(&self, mail: &Delivery, message: Vec<u8>) -> SendOutcome {
        let attempt = mail.attempt.as_ref().map_or(0, |attempt| attempt.number);
        let tag = |name: &str, value: String| {
            MessageTag::builder()
                .name(name)
                .value(value)
                .build()
                .expect("name and value are set")
        };
        let raw = RawMessage::builder()
            .data(Blob::new(message))
            .build()
            .expect("data is set");
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
            Ok(response) => SendOutcome::Sent(response.message_id),
            Err(error) => {
                // The message of SES may contain the recipient's address, so only the code is logged.
                let code = error.code().unwrap_or("none");
                tracing::warn!(code, "sending a mail failed");
                classify_error(&error)
            }
        }
    }
}

/// Classifies a failed call.
fn classify_error(error: &SdkError<SendRawEmailError, Response>) -> SendOutcome {
    match error {
        SdkError::ConstructionFailure(_) => SendOutcome::Held(HoldReason::Unverified),
        SdkError::DispatchFailure(_) if never_connected(error) => SendOutcome::Held(HoldReason::Unreachable),
        SdkError::ServiceError(service) => {
            let (status, error) = (service.raw().status().as_u16(), service.err());
            classify_response(status, error.code(), error.message().unwrap_or_default())
        }
        _ => SendOutcome::Lost,
    }
}

/// Classifies an error response of SES. Error codes come with or without the suffix `Exception`, depending on the API
/// version and the layer that responds. Some codes have several causes, which only the message tells apart. The message
/// is never logged or stored, because it may contain an address.
fn classify_response(status: u16, code: Option<&str>, message: &str) -> SendOutcome {
    let message = message.to_ascii_lowercase();
    let mentions = |phrase: &str| message.contains(phrase);
    let name = code.map(|code| code.strip_suffix("Exception").unwrap_or(code));
    let rejected = name == Some("MessageRejected");
    if mentions("daily message quota exceeded") {
        return SendOutcome::Held(HoldReason::Quota);
    }
    if mentions("maximum sending rate exceeded") {
        return SendOutcome::Held(HoldReason::Throttled);
    }
    if rejected && (mentions("paused") || mentions("suspended") || mentions("sending is disabled")) {
        return SendOutcome::Held(HoldReason::Paused);
    }
    if rejected && mentions("not verified") {
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
        // SES would reject this mail on every attempt.
        (400..500, Some("InvalidParameterValue" | "MessageRejected")) => SendOutcome::Refused,
        (400..500, Some(_)) => SendOutcome::RejectedForNow,
        // An error of SES has a code: this response is from something in between, such as a proxy.
        (400..500, None) => SendOutcome::Held(HoldReason::Unreachable),
        _ => SendOutcome::Lost,
    }
}

/// Whether the call failed before a connection was established, so that nothing was sent.
fn never_connected(error: &SdkError<SendRawEmailError, Response>) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        let refused = error
            .downcast_ref::<std::io::Error>()
            .is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused);
        // A name that does not resolve, a connect timeout, or a failed TLS handshake.
        let connect_failed = error
            .downcast_ref::<hyper_util::client::legacy::Error>()
            .is_some_and(hyper_util::client::legacy::Error::is_connect);
        if refused || connect_failed {
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
    fn classifies_responses() {
        // Status, code and message; `-` stands for none.
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
            let (response, expected) = row.split_once(" => ").unwrap();
            let (head, message) = response.split_once(" | ").unwrap();
            let (status, code) = head.split_once(' ').unwrap();
            let given = |text| Some(text).filter(|text| *text != "-");
            let outcome = classify_response(status.parse().unwrap(), given(code), given(message).unwrap_or_default());
            let name = match outcome {
                SendOutcome::Held(reason) => reason.as_str(),
                SendOutcome::RejectedForNow => "released",
                SendOutcome::Refused => "refused",
                SendOutcome::Lost => "lost",
                SendOutcome::Sent(_) => "sent",
            };
            assert_eq!(name, expected, "{row}");
        }
    }
}
