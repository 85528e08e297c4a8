//! Every minute: finds swaps and mails that are due, and wakes the functions that take them further. Every fifth minute it
//! counts the free SIMs too. It does nothing else.
//! The stream gives speed; this gives the certainty that nothing is forgotten.

use std::sync::atomic::{AtomicI64, Ordering};

use aws_sdk_lambda::Client;
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::InvocationType;
use edge::{ClockAndRng, Metric, SettingError, Settings, records_of, span_of_event};
use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use lambda_runtime::LambdaEvent;
use serde::Serialize;
use serde::de::IgnoredAny;
use store::{Due, DueRow, Store, StoreError};
use tracing::Instrument;

/// Rows of a kind that one sweep wakes at most; those that are overdue longest come first, and the next sweep goes on.
const AT_MOST: usize = 10_000;
/// Rows that one invocation gets.
const BATCH: usize = 25;
/// Invocations under way at most.
const IN_FLIGHT: usize = 16;
/// Free SIMs are counted in each minute of the clock that this divides.
const COUNT_EVERY: i64 = 5;
/// Later than this is overdue: the stream and several sweeps have passed.
const OVERDUE: SignedDuration = SignedDuration::from_mins(15);

/// The function with all it needs, built once a process.
#[derive(Debug)]
pub struct SweepSwaps {
    store: Store,
    lambda: Client,
    fulfil_swap: String,
    deliver_esim: String,
    /// A pool of fewer free SIMs runs low.
    stock_low: u32,
    /// The minute in which free SIMs were counted last: the local stack sweeps each second.
    counted: AtomicI64,
    ambient: ClockAndRng,
}

/// What a sweep woke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Swept {
    /// Swaps.
    pub swaps: usize,
    /// Mails.
    pub mails: usize,
    /// How many of them are overdue: somebody should look.
    pub overdue: usize,
}

/// A sweep that did not wake all that it found. The next one finds it again.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// The table failed us.
    #[error("what is due cannot be read")]
    Table(#[from] StoreError),
    /// A function was not woken.
    #[error("{0} was not woken")]
    NotWoken(String),
}

impl SweepSwaps {
    /// Reads `FULFIL_SWAP` and `DELIVER_ESIM`, the functions' names or ARNs, and `STOCK_LOW`.
    pub fn new(store: Store, lambda: Client, ambient: ClockAndRng, settings: &Settings) -> Result<Self, SettingError> {
        Ok(Self {
            store,
            lambda,
            fulfil_swap: settings.text("FULFIL_SWAP")?,
            deliver_esim: settings.text("DELIVER_ESIM")?,
            stock_low: settings.stock_low()?,
            counted: AtomicI64::new(-1),
            ambient,
        })
    }

    /// One sweep. What goes wrong with the swaps does not keep the mails from being looked at.
    pub async fn handle(&self, event: LambdaEvent<IgnoredAny>) -> Result<Swept, SweepError> {
        let span = span_of_event(&event.context);
        self.sweep().instrument(span).await
    }

    async fn sweep(&self) -> Result<Swept, SweepError> {
        let (swaps, mails, ()) = tokio::join!(
            self.wake(Due::Swaps, &self.fulfil_swap),
            self.wake(Due::Mails, &self.deliver_esim),
            self.count_stock(),
        );
        let (swaps, mails) = (swaps?, mails?);
        let since = self.ambient.now() - OVERDUE;
        let overdue = swaps.iter().chain(&mails).filter(|row| row.since <= since);
        let swept = Swept {
            swaps: swaps.len(),
            mails: mails.len(),
            overdue: overdue.count(),
        };
        Metric::Overdue(swept.overdue as i64).record();
        if swept.overdue > 0 {
            tracing::error!(?swept, "some is overdue");
        } else if swept != Swept::default() {
            tracing::info!(?swept, "swept");
        }
        Ok(swept)
    }

    /// Counts the free SIMs, if it is time to. No sweep fails for it: the next count comes in five minutes.
    async fn count_stock(&self) {
        let now = self.ambient.now();
        let minute = now.as_second().div_euclid(60);
        let is_time =
            self.stock_low > 0 && minute % COUNT_EVERY == 0 && self.counted.swap(minute, Ordering::Relaxed) != minute;
        if !is_time {
            return;
        }
        match self.low_pools(now).await {
            Ok(low) => Metric::PoolsLow(low).record(),
            Err(error) => edge::log_cause("the free SIMs are not counted", &error),
        }
    }

    /// How many pools run low; names each.
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

    /// Wakes a function for all rows of a kind that are due; it is not waited for.
    async fn wake(&self, kind: Due, function: &str) -> Result<Vec<DueRow>, SweepError> {
        let rows = self.store.due(kind, self.ambient.now(), AT_MOST).await?;
        let mut woken = true;
        for round in rows.chunks(BATCH * IN_FLIGHT) {
            let sent = round.chunks(BATCH).map(|rows| self.invoke(function, rows));
            woken &= join_all(sent).await.into_iter().all(|sent| sent);
        }
        if woken {
            Ok(rows)
        } else {
            Err(SweepError::NotWoken(function.to_owned()))
        }
    }

    async fn invoke(&self, function: &str, rows: &[DueRow]) -> bool {
        let keys = rows.iter().map(|row| (row.pk.as_str(), row.sk.as_str()));
        let sent = self
            .lambda
            .invoke()
            .function_name(function)
            .invocation_type(InvocationType::Event)
            .payload(Blob::new(records_of(keys)))
            .send()
            .await;
        if let Err(error) = &sent {
            edge::log_cause("a function is not woken", error);
        }
        sent.is_ok()
    }
}
