//! What can go wrong with a call to the table, in as many ways as a caller acts on.

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::http::Response;

/// Why a call brought nothing. The cause is for the log alone.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Throttled, in conflict, or out of reach: the same call may succeed in a moment.
    #[error("the table is not available now")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The call can never succeed as it is.
    #[error("the table refused the call")]
    Refused(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A row is not what this version writes.
    #[error("attribute {0} of a row is not what it should be")]
    Corrupt(&'static str),
    /// A sealed field could not be opened or closed.
    #[error("a sealed field could not be used")]
    Sealing,
}

/// Error codes after which the same call may succeed. Everything that never got an answer is such a case too.
const PASSING: [&str; 8] = [
    "InternalServerError",
    "LimitExceededException",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "ServiceUnavailable",
    "ThrottlingException",
    "TransactionConflictException",
    "TransactionInProgressException",
];

impl<E> From<SdkError<E, Response>> for StoreError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    fn from(error: SdkError<E, Response>) -> Self {
        let refused = match &error {
            SdkError::ServiceError(service) => {
                let status = service.raw().status().as_u16();
                !(status >= 500 || service.err().code().is_some_and(|code| PASSING.contains(&code)))
            }
            SdkError::ConstructionFailure(_) => true,
            _ => false,
        };
        if refused {
            Self::Refused(Box::new(error))
        } else {
            Self::Unavailable(Box::new(error))
        }
    }
}
