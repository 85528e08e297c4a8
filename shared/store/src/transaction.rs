//! Transactions: how one is run and tried again, and the short words that build one.

use std::time::Duration;

use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{AttributeValue, CancellationReason, Put, TransactWriteItem, Update};

use crate::{Store, StoreError};

/// How often a write is tried while another transaction is on its row.
pub(crate) const TRIES: u32 = 4;

impl Store {
    /// Runs a transaction. `None`: it stands; else the reasons, one a write, with at least one failed condition.
    pub(crate) async fn transact(
        &self,
        writes: Vec<TransactWriteItem>,
    ) -> Result<Option<Vec<CancellationReason>>, StoreError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let sent = self
                .dynamodb
                .transact_write_items()
                .set_transact_items(Some(writes.clone()))
                .send()
                .await;
            let error = match sent {
                Ok(_) => return Ok(None),
                Err(error) => error,
            };
            let reasons = match error.as_service_error() {
                Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) => {
                    cancelled.cancellation_reasons()
                }
                _ => return Err(error.into()),
            };
            // While another transaction is on one of the rows, a condition that failed on another row may be its doing:
            // nothing is decided before the rows are at rest.
            let passing = reasons.iter().any(|reason| {
                matches!(
                    reason.code(),
                    Some("TransactionConflict" | "ThrottlingError" | "ProvisionedThroughputExceeded")
                )
            });
            if passing && tries < TRIES {
                tokio::time::sleep(pause(tries)).await;
                continue;
            }
            if passing {
                return Err(StoreError::Unavailable(Box::new(error)));
            }
            if reasons.len() == writes.len() && (0..reasons.len()).any(|n| failed(reasons, n)) {
                return Ok(Some(reasons.to_vec()));
            }
            return Err(StoreError::Refused(Box::new(error.into_service_error())));
        }
    }
}

/// 10 to 40 ms after the first try, and twice as long after each further one.
pub(crate) fn pause(tries: u32) -> Duration {
    Duration::from_millis(fastrand::u64(10..=40) << (tries - 1))
}

pub(crate) fn failed(reasons: &[CancellationReason], write: usize) -> bool {
    reasons.get(write).and_then(CancellationReason::code) == Some("ConditionalCheckFailed")
}

pub(crate) fn put(put: Put) -> TransactWriteItem {
    TransactWriteItem::builder().put(put).build()
}

pub(crate) fn update(update: Update) -> TransactWriteItem {
    TransactWriteItem::builder().update(update).build()
}

pub(crate) fn text(text: impl Into<String>) -> AttributeValue {
    AttributeValue::S(text.into())
}
