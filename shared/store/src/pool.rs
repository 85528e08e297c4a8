//! Pools of free SIMs: which pools exist, and how many SIMs are free in a pool. Which SIM a swap gets is in `begin`.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::PoisonError;

use aws_sdk_dynamodb::types::Select;
use domain::{Malformed, Sim, SimState};
use jiff::Timestamp;

use crate::attributes::{Row, sortable, text};
use crate::form;
use crate::{Store, StoreError, keys};

/// A pool of interchangeable SIMs: those of one network, of one reseller or none, and of one kind. A card that is
/// assigned only to a caller who gives its number is in no pool.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pool(String);

impl Pool {
    /// Reads a name as it is displayed.
    pub fn parse(name: &str) -> Result<Self, Malformed> {
        match name.split('#').collect::<Vec<_>>()[..] {
            [_, _, "esim" | "card"] => Ok(Self(name.to_owned())),
            _ => Err(Malformed("must be NETWORK#RESELLER#esim or NETWORK#RESELLER#card")),
        }
    }
}

/// `<network>#<reseller>#<kind>`, the kind being `esim` or `card`.
impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Store {
    /// Writes a row for each pool of these SIMs, so that a pool is still listed when it is empty. An existing row stays
    /// unchanged. One call for each pool that this store has not written before.
    pub(crate) async fn record_pools(&self, sims: &[&Sim]) -> Result<(), StoreError> {
        let free = sims.iter().filter(|sim| sim.state == SimState::Free);
        let pools: BTreeSet<_> = free.filter_map(|sim| keys::pool_of(sim)).collect();
        for pool in pools.into_iter().map(Pool) {
            let known_pools = || self.known_pools.lock().unwrap_or_else(PoisonError::into_inner);
            if known_pools().contains(&pool) {
                continue;
            }
            // An update creates the row, or changes nothing if the row exists.
            let row = self.dynamodb.update_item().table_name(&self.table);
            let row = row.set_key(Some(keys::pool_key(&pool.0)));
            form::set(row, "SET #v = :v").send().await?;
            known_pools().insert(pool);
        }
        Ok(())
    }

    /// All pools to which SIMs were ever added.
    pub async fn pools(&self) -> Result<Vec<Pool>, StoreError> {
        let mut pools = Vec::new();
        let mut start = None;
        loop {
            let page = self
                .dynamodb
                .query()
                .table_name(&self.table)
                .key_condition_expression("pk = :pools AND begins_with(sk, :pool)")
                .expression_attribute_values(":pools", text(keys::POOLS))
                .expression_attribute_values(":pool", text(keys::POOL))
                .set_exclusive_start_key(start)
                .send()
                .await?;
            for found in page.items() {
                let pool = Row(found).text("sk")?.strip_prefix(keys::POOL);
                pools.push(Pool(pool.ok_or(StoreError::Corrupt("sk"))?.to_owned()));
            }
            start = page.last_evaluated_key;
            if start.is_none() {
                return Ok(pools);
            }
        }
    }

    /// How many SIMs of a pool can be assigned now. Stops counting at `at_most`. The index may lag.
    pub async fn free_in(&self, pool: &Pool, now: Timestamp, at_most: u32) -> Result<u32, StoreError> {
        let mut free = 0;
        let mut start = None;
        loop {
            let page = self
                .dynamodb
                .query()
                .table_name(&self.table)
                .index_name("free1")
                .select(Select::Count)
                .key_condition_expression("shelf = :shelf AND freeFrom <= :now")
                .expression_attribute_values(":shelf", text(&pool.0))
                .expression_attribute_values(":now", text(sortable(now)))
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
