//! Swaps and mails that are due, from the index `due1`. The function that the sweeper wakes reads the row itself.

use jiff::Timestamp;

use crate::attributes::{Row, from_sortable, sortable, text};
use crate::keys::{self, ChangedRow, Shard};
use crate::{Store, StoreError};

/// The keys of a row that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueRow {
    /// Its hash key.
    pub pk: String,
    /// Its sort key.
    pub sk: String,
    /// The time at which it became due.
    pub since: Timestamp,
}

impl DueRow {
    /// The swap or mail.
    pub fn row(&self) -> ChangedRow {
        ChangedRow::from_keys(&self.pk, &self.sk)
    }
}

impl Store {
    /// Up to `limit` rows of a shard that are due, the longest overdue first. The index may lag.
    pub async fn due(&self, shard: Shard, now: Timestamp, limit: usize) -> Result<Vec<DueRow>, StoreError> {
        let mut rows = Vec::new();
        let mut start = None;
        loop {
            let page_size = i32::try_from(limit - rows.len()).unwrap_or(i32::MAX);
            let page = self
                .dynamodb
                .query()
                .table_name(&self.table)
                .index_name("due1")
                .key_condition_expression("#shard = :shard AND dueAt <= :now")
                .expression_attribute_names("#shard", keys::SHARD)
                .expression_attribute_values(":shard", text(shard.key()))
                .expression_attribute_values(":now", text(sortable(now)))
                .set_exclusive_start_key(start)
                .limit(page_size)
                .send()
                .await?;
            for found in page.items() {
                let row = Row(found);
                rows.push(DueRow {
                    pk: row.text("pk")?.to_owned(),
                    sk: row.text("sk")?.to_owned(),
                    since: row.parsed("dueAt", from_sortable)?,
                });
            }
            start = page.last_evaluated_key;
            if start.is_none() || rows.len() >= limit {
                return Ok(rows);
            }
        }
    }
}
