//! Brings a table of an earlier release to the form that this one reads, while swaps go on: adds its indexes, and the
//! attributes by which they contain rows.

use std::time::Duration;

use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::{IndexStatus, TableDescription, TableStatus};
use domain::ActivationId;
use futures_util::future::join_all;

use crate::attributes::{Item, Row, text};
use crate::form::{self, Form};
use crate::keys::{self, Shard};
use crate::scan::Place;
use crate::transaction::backoff;
use crate::{Saved, Store, StoreError, rows, schema};

/// The indexes that only earlier releases read.
const OLD_INDEXES: [&str; 7] = ["byLine", "byCustomer", "byReseller", "all", "due", "free", "byOrder"];

/// How often a row is written while transactions on it are in the way.
const ATTEMPTS: u32 = 8;
/// Rows that are written side by side.
const WRITES_AT_ONCE: usize = 16;

/// How far a migration is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Migration {
    /// DynamoDB adds or deletes this index.
    Index(&'static str),
    /// This many of about so many rows are read.
    Rows(u64, u64),
    /// The row with this key is not migrated, because this attribute is missing or malformed. The others are.
    Unreadable(String, &'static str),
}

/// A change of all rows that need it.
#[derive(Clone, Copy)]
enum Pass {
    /// Adds the attributes by which the indexes of this release contain swaps and mails.
    AddShards,
    /// Writes rows of the earlier form in form 1.
    SetForm,
}

impl Store {
    /// Whether the table lacks an index of this release, or has rows of the earlier form.
    pub async fn needs_migration(&self) -> Result<bool, StoreError> {
        let finished = self
            .form_row()
            .await?
            .is_some_and(|row| !row.contains_key(form::UNFINISHED));
        let table = self.await_indexes(&mut |_| {}).await?;
        let present = index_names(&table);
        Ok(!finished || schema::INDEXES.iter().any(|index| !present.contains(&index.name)))
    }

    /// Gives swaps and mails the attributes by which the indexes of this release contain them, lists the pools of free
    /// SIMs, then adds the indexes that the table lacks, one after another. Returns how many rows changed.
    ///
    /// It can be interrupted and repeated at any time. Functions of the earlier release may run meanwhile. What they
    /// write lacks the attributes, so it has to be repeated once they are replaced.
    pub async fn migrate(&self, progress: &mut (dyn FnMut(Migration) + Send)) -> Result<u64, StoreError> {
        self.check_form().await?;
        let changed = self.run(Pass::AddShards, progress).await?;
        let mut place = None;
        loop {
            let page = self.scan_sims(place).await?;
            self.record_pools(&page.rows.iter().collect::<Vec<_>>()).await?;
            place = page.next;
            if place.is_none() {
                break;
            }
        }
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

    /// Migrates the table, then deletes the indexes that only earlier releases read, and gives all rows form 1. Functions
    /// of earlier releases fail from here on. Returns how many rows changed. It can be interrupted and repeated at any
    /// time.
    pub async fn finish_migration(&self, progress: &mut (dyn FnMut(Migration) + Send)) -> Result<u64, StoreError> {
        let migrated = self.migrate(progress).await?;
        self.set_form("SET #v = :v, #unfinished = :v").await?;
        loop {
            let table = self.await_indexes(progress).await?;
            let present = index_names(&table);
            let Some(index) = OLD_INDEXES.into_iter().find(|index| present.contains(index)) else {
                break;
            };
            progress(Migration::Index(index));
            schema::delete_index(&self.dynamodb, &self.table, index).await?;
        }
        let finished = self.run(Pass::SetForm, progress).await?;
        self.set_form("SET #v = :v REMOVE #unfinished").await?;
        Ok(migrated + finished)
    }

    /// Writes the row with the table's form.
    async fn set_form(&self, expression: &str) -> Result<(), StoreError> {
        let row = self.dynamodb.update_item().table_name(&self.table);
        form::set(row.set_key(Some(keys::form_key())), expression)
            .expression_attribute_names("#unfinished", form::UNFINISHED)
            .send()
            .await?;
        Ok(())
    }

    /// Adds to a swap or a mail the attributes by which the indexes of this release contain it. No other attribute is
    /// touched. Returns whether the row lacked them.
    async fn add_shard(&self, row: &Item) -> Result<bool, StoreError> {
        let read = Row(row);
        let sk = read.text("sk")?;
        if sk != keys::ACTIVATION && keys::delivery_number(sk).is_none() {
            return Ok(false);
        }
        let id = read.parsed_pk("A#", ActivationId::parse)?;
        let shard = Shard::of(&id);
        let mut set = vec![(keys::SHARD, shard.key())];
        if sk == keys::ACTIVATION {
            set.push((keys::SWAP_ID, id.to_string()));
            let reseller = read.maybe_text("reseller");
            set.extend(reseller.map(|reseller| (keys::RESELLER_SHARD, shard.reseller_key(reseller))));
        }
        let assignments: Vec<_> = set.iter().map(|(name, _)| format!("#{name} = :{name}")).collect();
        let mut update = self
            .update_of(row)
            .update_expression(format!("SET {}", assignments.join(", ")))
            .condition_expression("attribute_exists(pk) AND attribute_not_exists(#shard)");
        for (name, value) in set {
            update = update
                .expression_attribute_names(format!("#{name}"), name)
                .expression_attribute_values(format!(":{name}"), text(value));
        }
        write_if(update).await
    }

    /// Writes a row of the earlier form in form 1. Returns `false` if the row has been deleted or already has form 1.
    async fn rewrite(&self, row: &Item) -> Result<bool, StoreError> {
        const READS: u32 = 8;
        let key = Item::from(["pk", "sk"].map(|name| (name.to_owned(), row[name].clone())));
        let mut stored = Some(row.clone());
        // Swaps and mails go on meanwhile.
        for _ in 0..READS {
            let Some(row) = stored.filter(|row| !row.contains_key(form::ATTRIBUTE)) else {
                return Ok(false);
            };
            let saved = match Row(&row).text("sk")? {
                keys::ACTIVATION => {
                    let mut swap = rows::to_swap(&row)?;
                    let a = &mut swap.activation;
                    if !a.phase.is_open() && a.due_at.is_none() && !a.is_anonymous() {
                        // The first release left such a swap without a due time, so its data was never erased.
                        a.due_at = a.ended_at;
                    }
                    let version = a.version;
                    self.put_version(rows::from_swap(Form::One, &swap), version).await?
                }
                sk if keys::delivery_number(sk).is_some() => {
                    let mail = rows::to_delivery(&row)?;
                    self.put_version(rows::from_delivery(Form::One, &mail), mail.version)
                        .await?
                }
                _ => {
                    let update = form::set(self.update_of(&row), "SET #v = :v");
                    return write_if(update.condition_expression("attribute_exists(pk)")).await;
                }
            };
            if saved == Saved::Written {
                return Ok(true);
            }
            stored = self.get(key.clone()).await?;
        }
        Err(StoreError::Unavailable(
            "a row changed during every attempt to migrate it; run the command again".into(),
        ))
    }

    fn update_of(&self, row: &Item) -> UpdateItemFluentBuilder {
        let update = self.dynamodb.update_item().table_name(&self.table);
        update.key("pk", row["pk"].clone()).key("sk", row["sk"].clone())
    }

    /// Whether the table has an index of the first release.
    pub(crate) async fn has_old_indexes(&self) -> Result<bool, StoreError> {
        let table = self.await_indexes(&mut |_| {}).await?;
        Ok(index_names(&table).iter().any(|name| OLD_INDEXES.contains(name)))
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

    /// Runs a pass over all rows that need it, page by page and several rows at a time. Returns how many it changed.
    async fn run(&self, pass: Pass, progress: &mut (dyn FnMut(Migration) + Send)) -> Result<u64, StoreError> {
        let described = self.dynamodb.describe_table().table_name(&self.table).send().await?;
        let about = described.table.and_then(|table| table.item_count).unwrap_or(0);
        let about = u64::try_from(about).unwrap_or(0);
        let (mut read, mut changed, mut unreadable) = (0, 0, None);
        let mut place: Option<Place> = None;
        loop {
            progress(Migration::Rows(read, about.max(read)));
            let scan = self.dynamodb.scan().table_name(&self.table);
            let page = match pass {
                Pass::AddShards => scan
                    .filter_expression("begins_with(pk, :swap) AND attribute_not_exists(#shard)")
                    .expression_attribute_names("#shard", keys::SHARD)
                    .expression_attribute_values(":swap", text("A#")),
                Pass::SetForm => scan
                    .filter_expression("attribute_not_exists(#v)")
                    .expression_attribute_names("#v", form::ATTRIBUTE),
            };
            let page = page
                .set_exclusive_start_key(place.map(|place| place.0))
                .consistent_read(true)
                .send()
                .await?;
            read += u64::try_from(page.scanned_count).unwrap_or(0);
            for rows in page.items().chunks(WRITES_AT_ONCE) {
                let writes = rows.iter().map(async |row| match pass {
                    Pass::AddShards => self.add_shard(row).await,
                    Pass::SetForm => self.rewrite(row).await,
                });
                for (row, written) in rows.iter().zip(join_all(writes).await) {
                    match written {
                        Ok(written) => changed += u64::from(written),
                        Err(StoreError::Corrupt(attribute)) => {
                            let key = ["pk", "sk"].map(|name| Row(row).maybe_text(name).unwrap_or_default());
                            progress(Migration::Unreadable(key.join(" "), attribute));
                            unreadable = Some(StoreError::Corrupt(attribute));
                        }
                        Err(error) => return Err(error),
                    }
                }
            }
            place = page.last_evaluated_key.map(Place);
            if place.is_none() {
                return unreadable.map_or(Ok(changed), Err);
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
