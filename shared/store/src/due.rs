//! Rows that the sweeper has to look at: the index `due` names them, and whoever is woken reads the row itself.

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::Timestamp;

use crate::item::{self, Row};
use crate::transaction::text;
use crate::{Store, StoreError};

/// A kind of row that falls due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Swaps.
    Swaps,
    /// Mails of swaps.
    Mails,
}

/// A row that is due, by its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueRow {
    /// Its hash key.
    pub pk: String,
    /// Its sort key.
    pub sk: String,
    /// Since when.
    pub since: Timestamp,
}

impl Store {
    /// Up to `limit` rows that are due, the longest overdue first. The index may be a moment old.
    pub async fn due(&self, kind: Due, now: Timestamp, limit: usize) -> Result<Vec<DueRow>, StoreError> {
        let kind = match kind {
            Due::Swaps => item::SWAPS,
            Due::Mails => item::MAILS,
        };
        let mut rows = Vec::new();
        let mut start = None;
        loop {
            let wanted = i32::try_from(limit - rows.len()).unwrap_or(i32::MAX);
            let page = self
                .dynamodb
                .query()
                .table_name(&self.table)
                .index_name("due")
                .key_condition_expression("#type = :type AND dueAt <= :now")
                .expression_attribute_names("#type", "type")
                .expression_attribute_values(":type", text(kind))
                .expression_attribute_values(":now", AttributeValue::S(item::sortable(now)))
                .set_exclusive_start_key(start)
                .limit(wanted)
                .send()
                .await?;
            for found in page.items() {
                let row = Row(found);
                rows.push(DueRow {
                    pk: row.text("pk")?.to_owned(),
                    sk: row.text("sk")?.to_owned(),
                    since: row.parsed("dueAt", item::from_sortable)?,
                });
            }
            start = page.last_evaluated_key;
            if start.is_none() || rows.len() >= limit {
                return Ok(rows);
            }
        }
    }
}
