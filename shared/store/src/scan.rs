//! Pages of all lines, of all SIMs, and of the free SIMs of a pool, for operators. No index lists lines or SIMs, so the
//! first two read the whole table. Listings of swaps are in `listing`.

use domain::{Iccid, Sim};

use crate::attributes::{Item, Row, text};
use crate::{Pool, Store, StoreError, StoredLine, keys, rows};

/// Some records, and where the next ones begin.
#[derive(Debug)]
pub struct Page<T> {
    /// The records, possibly none.
    pub rows: Vec<T>,
    /// Where the next page begins; `None` after the last page.
    pub next: Option<Place>,
}

/// A place in a listing.
#[derive(Debug, Clone)]
pub struct Place(pub(crate) Item);

impl Store {
    /// A page of all lines, in no particular order. One call.
    pub async fn scan_lines(&self, from: Option<Place>) -> Result<Page<StoredLine>, StoreError> {
        self.scan(keys::LINE, from, rows::to_line).await
    }

    /// A page of all SIMs without their secrets, in no particular order. One call.
    pub async fn scan_sims(&self, from: Option<Place>) -> Result<Page<Sim>, StoreError> {
        self.scan(keys::SIM, from, rows::to_sim).await
    }

    async fn scan<T>(
        &self,
        kind: &str,
        from: Option<Place>,
        read: fn(&Item) -> Result<T, StoreError>,
    ) -> Result<Page<T>, StoreError> {
        let page = self
            .dynamodb
            .scan()
            .table_name(&self.table)
            .filter_expression("sk = :kind")
            .expression_attribute_values(":kind", text(kind))
            .set_exclusive_start_key(from.map(|place| place.0))
            .send()
            .await?;
        Ok(Page {
            rows: page.items().iter().map(read).collect::<Result<_, _>>()?,
            next: page.last_evaluated_key.map(Place),
        })
    }

    /// A page of the free SIMs of a pool without their secrets, those that may be used longest first. Two calls.
    pub async fn sims_of_pool(&self, pool: &Pool, from: Option<Place>) -> Result<Page<Sim>, StoreError> {
        const PAGE: i32 = 100;
        let page = self
            .dynamodb
            .query()
            .table_name(&self.table)
            .index_name("free1")
            .key_condition_expression("shelf = :shelf")
            .expression_attribute_values(":shelf", text(pool.to_string()))
            .set_exclusive_start_key(from.map(|place| place.0))
            .limit(PAGE)
            .send()
            .await?;
        let iccids = page.items().iter().map(|row| Row(row).parsed_pk("S#", Iccid::parse));
        let keys = iccids.map(|iccid| Ok(keys::sim_key(&iccid?)));
        let found = self.get_many(keys.collect::<Result<_, StoreError>>()?).await?;
        let mut sims: Vec<Sim> = found.iter().map(rows::to_sim).collect::<Result<_, _>>()?;
        sims.sort_by(|a, b| (a.free_from, &a.iccid).cmp(&(b.free_from, &b.iccid)));
        Ok(Page {
            rows: sims,
            next: page.last_evaluated_key.map(Place),
        })
    }
}
