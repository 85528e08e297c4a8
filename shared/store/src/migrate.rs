//! Brings a table of an earlier release to the form that this one reads, while swaps go on: adds its indexes, and the
//! attributes by which they contain rows.

use std::time::Duration;

use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::{IndexStatus, TableDescription, TableStatus};
use domain::ActivationId;
use futures_util::future::join_all;

use crate::attributes::{Item, Row, text};
use crate::keys::{self, Shard};
use crate::scan::Place;
use crate::transaction::backoff;
use crate::{Store, StoreError, schema};

/// What earlier releases read and this one does not: the names of indexes, and attributes of swaps and mails.
const OLD_INDEXES: [&str; 7] = ["byLine", "byCustomer", "byReseller", "all", "due", "free", "byOrder"];
const OLD_ATTRIBUTES: [&str; 2] = ["type", "listed"];

/// How often a row is written while transactions on it are in the way.
const ATTEMPTS: u32 = 8;
/// Rows that are written side by side.
const WRITES_AT_ONCE: usize = 16;

/// How far a migration is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Migration {
    /// DynamoDB adds or deletes this index.
    Index(&'static str),
    /// This many of about so many rows are read.
    Rows(u64, u64),
}

impl Store {
    /// Whether the table lacks an index of this release.
    pub async fn lacks_indexes(&self) -> Result<bool, StoreError> {
        let table = self.await_indexes(&mut |_| {}).await?;
        let present = index_names(&table);
        Ok(schema::INDEXES.iter().any(|index| !present.contains(&index.name)))
    }

    /// Gives swaps and mails the attributes by which the indexes of this release contain them, then adds the indexes that
    /// the table lacks, one after another. Returns how many rows changed.
    ///
    /// It can be interrupted and repeated at any time. Functions of the earlier release may run meanwhile. What they
    /// write lacks the attributes, so it has to be repeated once they are replaced.
    pub async fn migrate(&self, progress: &mut (dyn FnMut(Migration) + Send)) -> Result<u64, StoreError> {
        let changed = self
            .update_rows("attribute_not_exists", keys::SHARD, progress, |row, update| {
                let row = Row(row);
                let id = row.parsed_pk("A#", ActivationId::parse)?;
                let shard = Shard::of(&id);
                let mut set = vec![(keys::SHARD, shard.key())];
                if row.text("sk")? == keys::ACTIVATION {
                    set.push((keys::SWAP_ID, id.to_string()));
                    let reseller = row.maybe_text("reseller");
                    set.extend(reseller.map(|reseller| (keys::RESELLER_SHARD, shard.reseller_key(reseller))));
                }
                let assignments: Vec<_> = set.iter().map(|(name, _)| format!("#{name} = :{name}")).collect();
                let mut update = update.update_expression(format!("SET {}", assignments.join(", ")));
                for (name, value) in set {
                    update = update
                        .expression_attribute_names(format!("#{name}"), name)
                        .expression_attribute_values(format!(":{name}"), text(value));
                }
                Ok(update)
            })
            .await?;
        loop {
            let table = self.await_indexes(progress).await?;
            let present = index_names(&table);
            let Some(index) = schema::INDEXES.iter().find(|index| !present.contains(&index.name)) else {
                return Ok(changed);
            };
            progress(Migration::Index(index.name));
            schema::add_index(&self.dynamodb, &self.table, index).await?;
        }
    }

    /// Deletes the indexes and attributes that only earlier releases read, after [`migrate`](Self::migrate). Functions of
    /// earlier releases fail from here on. Returns how many rows changed. It can be interrupted and repeated at any time.
    pub async fn finish_migration(&self, progress: &mut (dyn FnMut(Migration) + Send)) -> Result<u64, StoreError> {
        loop {
            let table = self.await_indexes(progress).await?;
            let present = index_names(&table);
            let Some(index) = OLD_INDEXES.into_iter().find(|index| present.contains(index)) else {
                break;
            };
            progress(Migration::Index(index));
            schema::delete_index(&self.dynamodb, &self.table, index).await?;
        }
        self.update_rows("attribute_exists", OLD_ATTRIBUTES[0], progress, |_, update| {
            let mut update = update.update_expression("REMOVE #type, #listed");
            for name in OLD_ATTRIBUTES {
                update = update.expression_attribute_names(format!("#{name}"), name);
            }
            Ok(update)
        })
        .await
    }

    /// The table's description, once none of its indexes is being added or deleted: only one can be at a time.
    async fn await_indexes(
        &self,
        progress: &mut (dyn FnMut(Migration) + Send),
    ) -> Result<TableDescription, StoreError> {
        loop {
            let described = self.dynamodb.describe_table().table_name(&self.table).send().await?;
            let table = described.table.ok_or(StoreError::Corrupt("table"))?;
            let is_busy = |status: Option<&IndexStatus>| status.is_some_and(|status| *status != IndexStatus::Active);
            let busy = table
                .global_secondary_indexes()
                .iter()
                .find(|index| is_busy(index.index_status()));
            let is_active = table.table_status().is_none_or(|status| *status == TableStatus::Active);
            if busy.is_none() && is_active {
                return Ok(table);
            }
            let known = schema::INDEXES.iter().map(|index| index.name).chain(OLD_INDEXES);
            let busy = busy.and_then(|index| index.index_name());
            let name = known.into_iter().find(|name| Some(*name) == busy);
            progress(Migration::Index(name.unwrap_or("another index")));
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    }

    /// Updates the swaps and mails for which `condition`, a function of DynamoDB's expressions, is true of `attribute`,
    /// page by page. A row for which it is no longer true when it is written stays as it is.
    async fn update_rows(
        &self,
        condition: &str,
        attribute: &str,
        progress: &mut (dyn FnMut(Migration) + Send),
        change: impl Fn(&Item, UpdateItemFluentBuilder) -> Result<UpdateItemFluentBuilder, StoreError>,
    ) -> Result<u64, StoreError> {
        let name = format!("#{attribute}");
        let condition = format!("{condition}({name})");
        let described = self.dynamodb.describe_table().table_name(&self.table).send().await?;
        let about = described.table.and_then(|table| table.item_count).unwrap_or(0);
        let about = u64::try_from(about).unwrap_or(0);
        let (mut read, mut changed) = (0, 0);
        let mut place: Option<Place> = None;
        loop {
            progress(Migration::Rows(read, about.max(read)));
            let page = self
                .dynamodb
                .scan()
                .table_name(&self.table)
                .filter_expression(format!("begins_with(pk, :swap) AND {condition}"))
                .expression_attribute_names(&name, attribute)
                .expression_attribute_values(":swap", text("A#"))
                .set_exclusive_start_key(place.map(|place| place.0))
                .consistent_read(true)
                .send()
                .await?;
            read += u64::try_from(page.scanned_count).unwrap_or(0);
            for rows in page.items().chunks(WRITES_AT_ONCE) {
                let mut updates = Vec::new();
                for row in rows {
                    let sk = Row(row).text("sk")?;
                    if sk == keys::ACTIVATION || keys::delivery_number(sk).is_some() {
                        let update = self.dynamodb.update_item().table_name(&self.table);
                        let update = change(row, update)?
                            .key("pk", row["pk"].clone())
                            .key("sk", row["sk"].clone())
                            .condition_expression(format!("attribute_exists(pk) AND {condition}"))
                            .expression_attribute_names(&name, attribute);
                        updates.push(write_if(update));
                    }
                }
                for updated in join_all(updates).await {
                    changed += u64::from(updated?);
                }
            }
            place = page.last_evaluated_key.map(Place);
            if place.is_none() {
                return Ok(changed);
            }
        }
    }
}

/// Sends an update, and repeats it while a transaction writes the row. Returns `false` if its condition fails.
async fn write_if(update: UpdateItemFluentBuilder) -> Result<bool, StoreError> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let Err(error) = update.clone().send().await else {
            return Ok(true);
        };
        match error.as_service_error() {
            Some(UpdateItemError::ConditionalCheckFailedException(_)) => return Ok(false),
            Some(UpdateItemError::TransactionConflictException(_)) if attempts < ATTEMPTS => {
                tokio::time::sleep(backoff(attempts)).await;
            }
            _ => return Err(error.into()),
        }
    }
}

fn index_names(table: &TableDescription) -> Vec<&str> {
    let indexes = table.global_secondary_indexes().iter();
    indexes.filter_map(|index| index.index_name()).collect()
}
