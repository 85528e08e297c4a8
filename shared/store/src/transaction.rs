//! Transactions: how they are built, run and retried. Which writes they contain is in the modules that use them.

use std::time::Duration;

use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::builders::{DeleteBuilder, PutBuilder, UpdateBuilder};
use aws_sdk_dynamodb::types::{CancellationReason, Put, TransactWriteItem, Update};

use crate::attributes::Item;
use crate::{Store, StoreError};

/// How many times a write is attempted while it conflicts with another transaction on its row.
pub(crate) const ATTEMPTS: u32 = 4;

impl Store {
    /// A put of this row.
    pub(crate) fn put_row(&self, row: Item) -> PutBuilder {
        Put::builder().table_name(&self.table).set_item(Some(row))
    }

    /// A put of this row on the condition that the row does not exist.
    pub(crate) fn put_new_row(&self, row: Item) -> PutBuilder {
        self.put_row(row).condition_expression("attribute_not_exists(pk)")
    }

    /// An update of the row with this key.
    pub(crate) fn update_row(&self, key: Item) -> UpdateBuilder {
        Update::builder().table_name(&self.table).set_key(Some(key))
    }

    /// Runs a transaction. Returns `None` if it was written. Returns one reason for each write, in their order, if the
    /// condition of at least one of them failed.
    pub(crate) async fn transact(
        &self,
        writes: Vec<TransactWriteItem>,
    ) -> Result<Option<Vec<CancellationReason>>, StoreError> {
        let mut attempts = 0;
        loop {
            attempts += 1;
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
            // Another transaction on one of the rows may also be why a condition on another row failed. Failed
            // conditions count only once no write conflicts any more.
            let transient = reasons.iter().any(|reason| {
                matches!(
                    reason.code(),
                    Some("TransactionConflict" | "ThrottlingError" | "ProvisionedThroughputExceeded")
                )
            });
            if transient && attempts < ATTEMPTS {
                tokio::time::sleep(backoff(attempts)).await;
                continue;
            }
            if transient {
                return Err(StoreError::Unavailable(Box::new(error)));
            }
            if reasons.len() == writes.len() && (0..reasons.len()).any(|write| condition_failed(reasons, write)) {
                return Ok(Some(reasons.to_vec()));
            }
            return Err(StoreError::Rejected(Box::new(error.into_service_error())));
        }
    }
}

/// The pause before the next attempt: 10 to 40 ms after the first one, doubled after each further one.
pub(crate) fn backoff(attempts: u32) -> Duration {
    Duration::from_millis(fastrand::u64(10..=40) << (attempts - 1))
}

/// Whether the condition of this write, by its index in the transaction, failed.
pub(crate) fn condition_failed(reasons: &[CancellationReason], write: usize) -> bool {
    reasons.get(write).and_then(CancellationReason::code) == Some("ConditionalCheckFailed")
}

/// A put as a write of a transaction.
pub(crate) fn put(put: PutBuilder) -> Result<TransactWriteItem, StoreError> {
    let put = put.build().map_err(|error| StoreError::Rejected(error.into()))?;
    Ok(TransactWriteItem::builder().put(put).build())
}

/// A deletion as a write of a transaction.
pub(crate) fn delete(delete: DeleteBuilder) -> Result<TransactWriteItem, StoreError> {
    let delete = delete.build().map_err(|error| StoreError::Rejected(error.into()))?;
    Ok(TransactWriteItem::builder().delete(delete).build())
}

/// An update as a write of a transaction.
pub(crate) fn update(update: UpdateBuilder) -> Result<TransactWriteItem, StoreError> {
    let update = update.build().map_err(|error| StoreError::Rejected(error.into()))?;
    Ok(TransactWriteItem::builder().update(update).build())
}
