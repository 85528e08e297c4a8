//! Pools of free SIMs: which there are, and how many SIMs are free in one, up to a bound. Who takes one is in `submit`.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::PoisonError;

use aws_sdk_dynamodb::types::{AttributeValue, Select};
use domain::{Sim, SimState};
use jiff::Timestamp;

use crate::item::{self, Row};
use crate::transaction::text;
use crate::{Store, StoreError};

/// The SIMs that one line is as good for as another: of one network, one reseller or none, and one kind. Cards that only
/// their number assigns are in no pool.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pool(String);

/// `<network>#<reseller>#<kind>`, the kind being `esim` or `card`.
impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Store {
    /// Writes a row for each pool of these SIMs, so that an empty pool is known too. A row that is there stays as it is, and
    /// costs a call only the first time.
    pub(crate) async fn note_pools(&self, sims: &[&Sim]) -> Result<(), StoreError> {
        let free = sims.iter().filter(|sim| sim.state == SimState::Free);
        let pools: BTreeSet<_> = free.filter_map(|sim| item::free_shelf(sim)).collect();
        for pool in pools.into_iter().map(Pool) {
            let noted = || self.noted.lock().unwrap_or_else(PoisonError::into_inner);
            if noted().contains(&pool) {
                continue;
            }
            // An update of nothing: it makes the row, and leaves alone what one that exists may have.
            self.dynamodb
                .update_item()
                .table_name(&self.table)
                .set_key(Some(item::pool_key(&pool.0)))
                .send()
                .await?;
            noted().insert(pool);
        }
        Ok(())
    }

    /// All pools that SIMs were ever added to.
    pub async fn pools(&self) -> Result<Vec<Pool>, StoreError> {
        let mut pools = Vec::new();
        let mut start = None;
        loop {
            let page = self
                .dynamodb
                .query()
                .table_name(&self.table)
                .key_condition_expression("pk = :pools AND begins_with(sk, :pool)")
                .expression_attribute_values(":pools", text(item::POOLS))
                .expression_attribute_values(":pool", text(item::POOL))
                .set_exclusive_start_key(start)
                .send()
                .await?;
            for found in page.items() {
                let pool = Row(found).text("sk")?.strip_prefix(item::POOL);
                pools.push(Pool(pool.ok_or(StoreError::Corrupt("sk"))?.to_owned()));
            }
            start = page.last_evaluated_key;
            if start.is_none() {
                return Ok(pools);
            }
        }
    }

    /// How many SIMs of a pool may be assigned now, counted up to `at_most`. The index may be a moment old.
    pub async fn free_in(&self, pool: &Pool, now: Timestamp, at_most: u32) -> Result<u32, StoreError> {
        let mut free = 0;
        let mut start = None;
        loop {
            let page = self
                .dynamodb
                .query()
                .table_name(&self.table)
                .index_name("free")
                .select(Select::Count)
                .key_condition_expression("shelf = :shelf AND freeFrom <= :now")
                .expression_attribute_values(":shelf", text(&pool.0))
                .expression_attribute_values(":now", AttributeValue::S(item::sortable(now)))
                .set_exclusive_start_key(start)
                .limit(i32::try_from(at_most - free).unwrap_or(i32::MAX))
                .send()
                .await?;
            free += u32::try_from(page.count()).unwrap_or_default();
            start = page.last_evaluated_key;
            if start.is_none() || free >= at_most {
                return Ok(free);
            }
        }
    }
}
