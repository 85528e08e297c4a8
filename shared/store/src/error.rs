//! The errors of the store, one variant for each way in which callers react.

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::http::Response;

/// Why a call to the store failed. The causes are meant for the log only.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// DynamoDB or KMS was throttled, busy with another transaction on the row, or not reachable. The same call may
    /// succeed later. The outcome of a write may be unknown.
    #[error("the table is temporarily unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// DynamoDB or KMS rejected the call, which would fail again.
    #[error("AWS rejected the store's call")]
    Rejected(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A row is missing, or it lacks this attribute, or the attribute is malformed or contradicts another row.
    #[error("a stored attribute is missing or malformed: {0}")]
    Corrupt(&'static str),
    /// A row, or the whole table, has this form, which only a later release can read.
    #[error(
        "the table has rows of form {0}, but this release can read forms only up to {newest}: use the release that \
         migrated the table, or a later one",
        newest = crate::form::NEWEST
    )]
    NewerForm(u32),
    /// The table has form 1, and this store would write the earlier form.
    #[error(
        "the migration of the table is finished, so set SEALING_KEY to the key that the command `sealing-key` prints"
    )]
    NoSealingKey,
    /// A secret field could not be encrypted or decrypted.
    #[error("a secret field could not be encrypted or decrypted")]
    Sealing,
}

/// Error codes after which the same call may succeed. A call without a response may succeed later, too.
const TRANSIENT: [&str; 8] = [
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
        let rejected = match &error {
            SdkError::ServiceError(service) => {
                let status = service.raw().status().as_u16();
                !(status >= 500 || service.err().code().is_some_and(|code| TRANSIENT.contains(&code)))
            }
            SdkError::ConstructionFailure(_) => true,
            _ => false,
        };
        if rejected {
            Self::Rejected(Box::new(error))
        } else {
            Self::Unavailable(Box::new(error))
        }
    }
}
