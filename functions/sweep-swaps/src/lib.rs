//! Runs every minute: finds the swaps and mails that are due, and invokes fulfil-swap and deliver-esim for them. Every
//! fifth minute it also counts the free SIMs. The stream makes swaps fast; the sweeper makes sure that none is
//! forgotten.

use std::sync::atomic::{AtomicI64, Ordering};

use aws::ServiceClient;
use domain::Malformed;
use edge::{ClockAndRng, Metric, SettingError, Settings, records_of, span_of_event};
use futures_util::FutureExt;
use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use lambda_runtime::LambdaEvent;
use serde::Serialize;
use serde::de::IgnoredAny;
use store::{ChangedRow, DueRow, Shard, Store, StoreError};
use tracing::Instrument;

/// Rows of each shard that one sweep wakes at most. The longest overdue rows come first; the next sweep wakes the rest.
const MAX_ROWS: usize = 5_000;
/// Rows per invocation.
const BATCH: usize = 25;
/// Concurrent invocations or counts at most.
const IN_FLIGHT: usize = 16;
/// Minutes between two counts of the free SIMs, which take place in the minutes divisible by this.
const COUNT_EVERY: i64 = 5;
/// A row that has been due for this long is overdue: the stream and several sweeps have failed to advance it.
const OVERDUE: SignedDuration = SignedDuration::from_mins(15);

/// The handler with its clients and settings. Built once per process.
#[derive(Debug)]
pub struct SweepSwaps {
    store: Store,
    lambda: ServiceClient,
    fulfil_swap: String,
    deliver_esim: String,
    /// A pool with fewer free SIMs runs low; 0 turns the counts off.
    stock_low: u32,
    /// The minute of the last count. The local stack sweeps every second, but counts once in that minute.
    last_counted: AtomicI64,
    clock: ClockAndRng,
}

/// How many rows a sweep woke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Swept {
    /// Swaps.
    pub swaps: usize,
    /// Mails.
    pub mails: usize,
    /// How many of these swaps and mails are overdue, which an operator should investigate.
    pub overdue: usize,
}

/// A sweep did not wake all rows that it found. The next sweep finds the others again.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// The table could not be read.
    #[error("the due rows cannot be read")]
    Table(#[from] StoreError),
    /// Invoking the named function failed.
    #[error("the function {0} was not woken for all due rows")]
    NotWoken(String),
}

impl SweepSwaps {
    /// Reads `FULFIL_SWAP` and `DELIVER_ESIM`, the functions' names or ARNs, and `STOCK_LOW`.
    pub fn new(
        store: Store,
        lambda: ServiceClient,
        clock: ClockAndRng,
        settings: &Settings,
    ) -> Result<Self, SettingError> {
        Ok(Self {
            store,
            lambda,
            fulfil_swap: settings.text("FULFIL_SWAP")?,
            deliver_esim: settings.text("DELIVER_ESIM")?,
            stock_low: settings.optional("STOCK_LOW", parse_stock_low)?.unwrap_or(20),
            last_counted: AtomicI64::new(-1),
            clock,
        })
    }

    /// Runs one sweep. A failure with one shard or with the swaps does not stop the others from being woken.
    pub async fn handle(&self, event: LambdaEvent<IgnoredAny>) -> Result<Swept, SweepError> {
        let span = span_of_event(&event.context);
        // Boxed, because the compiler limits how deeply futures are nested.
        self.sweep().boxed().instrument(span).await
    }

    async fn sweep(&self) -> Result<Swept, SweepError> {
        let (result, ()) = tokio::join!(self.wake_all(), self.count_free_sims());
        result
    }

    /// Wakes the functions for all rows that are due.
    async fn wake_all(&self) -> Result<Swept, SweepError> {
        let mut failure = match self.store.check_form().await {
            Err(error @ StoreError::NewerForm(_)) => return Err(error.into()),
            checked => checked.err(),
        };
        let now = self.clock.now();
        let shards: Vec<Shard> = Shard::all().collect();
        let (mut swaps, mut mails) = (Vec::new(), Vec::new());
        for shards in shards.chunks(Shard::AT_ONCE) {
            let reads = shards.iter().map(|shard| self.store.due(*shard, now, MAX_ROWS));
            for shard in join_all(reads).await {
                match shard {
                    Ok(rows) => rows.into_iter().for_each(|row| match row.row() {
                        ChangedRow::Swap(_) => swaps.push(row),
                        ChangedRow::Delivery(..) => mails.push(row),
                        ChangedRow::Other => {}
                    }),
                    Err(error) => failure = Some(error),
                }
            }
        }
        let (swaps_woken, mails_woken) = tokio::join!(
            self.wake(&mut swaps, &self.fulfil_swap),
            self.wake(&mut mails, &self.deliver_esim),
        );
        swaps_woken.and(mails_woken)?;
        if let Some(error) = failure {
            return Err(error.into());
        }
        let overdue_since = self.clock.now() - OVERDUE;
        let overdue = swaps.iter().chain(&mails).filter(|row| row.since <= overdue_since);
        let swept = Swept {
            swaps: swaps.len(),
            mails: mails.len(),
            overdue: overdue.count(),
        };
        Metric::Overdue(swept.overdue as i64).record();
        if swept.overdue > 0 {
            tracing::error!(?swept, "swaps or mails are overdue");
        } else if swept != Swept::default() {
            tracing::info!(?swept, "swept");
        }
        Ok(swept)
    }

    /// Counts the free SIMs if a count is due. A failure does not fail the sweep; the next count follows in five
    /// minutes.
    async fn count_free_sims(&self) {
        let now = self.clock.now();
        let minute = now.as_second().div_euclid(60);
        let is_due = self.stock_low > 0
            && minute % COUNT_EVERY == 0
            && self.last_counted.swap(minute, Ordering::Relaxed) != minute;
        if !is_due {
            return;
        }
        match self.low_pools(now).await {
            Ok(low) => Metric::PoolsLow(low).record(),
            Err(error) => edge::log_cause("counting the free SIMs failed", &error),
        }
    }

    /// Counts the pools that run low, and logs each of them.
    async fn low_pools(&self, now: Timestamp) -> Result<i64, StoreError> {
        let mut low = 0;
        for round in self.store.pools().await?.chunks(IN_FLIGHT) {
            let counts = round.iter().map(|pool| self.store.free_in(pool, now, self.stock_low));
            for (pool, free) in round.iter().zip(join_all(counts).await) {
                let free = free?;
                if free < self.stock_low {
                    low += 1;
                    tracing::warn!(%pool, free, "a pool of free SIMs runs low");
                }
            }
        }
        Ok(low)
    }

    /// Wakes a function for these rows, the longest overdue first, without waiting for its result.
    async fn wake(&self, rows: &mut [DueRow], function: &str) -> Result<(), SweepError> {
        rows.sort_by_key(|row| row.since);
        let mut all_woken = true;
        for round in rows.chunks(BATCH * IN_FLIGHT) {
            let sent = round.chunks(BATCH).map(|rows| self.invoke(function, rows));
            all_woken &= join_all(sent).await.into_iter().all(|sent| sent);
        }
        match all_woken {
            true => Ok(()),
            false => Err(SweepError::NotWoken(function.to_owned())),
        }
    }

    /// Invokes a function asynchronously for one batch of rows. Returns whether Lambda accepted the invocation.
    async fn invoke(&self, function: &str, rows: &[DueRow]) -> bool {
        let keys = rows.iter().map(|row| (row.pk.as_str(), row.sk.as_str()));
        let sent = self.lambda.invoke_later(function, records_of(keys)).await;
        if let Err(error) = &sent {
            edge::log_cause("invoking a function failed", error);
        }
        sent.is_ok()
    }
}

/// A pool with fewer free SIMs is low; with 0, free SIMs are not counted.
fn parse_stock_low(text: &str) -> Result<u32, Malformed> {
    let low = text.parse().ok().filter(|low| *low <= 1000);
    low.ok_or(Malformed("must be a number from 0 to 1000"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stock_low_has_bounds() {
        assert_eq!(parse_stock_low("0"), Ok(0));
        assert_eq!(parse_stock_low("1000"), Ok(1000));
        for wrong in ["few", "-1", "1001"] {
            assert!(parse_stock_low(wrong).is_err(), "{wrong}");
        }
    }
}
