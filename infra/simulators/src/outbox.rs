//! The outbox of callbacks: a callback is stored in the transaction of the change that it reports, and deleted when the
//! receiver has accepted it.

use std::collections::HashSet;
use std::convert::Infallible;
use std::time::Duration;

use aws_smithy_runtime_api::client::http::SharedHttpConnector;
use edge::ClockAndRng;
use jiff::Timestamp;
use peers::http::{Call, exchange};
use rusqlite::{Connection, Transaction, params};
use serde::Serialize;
use tokio::task::JoinSet;

use crate::db::Db;

/// Callbacks with the same subject are sent in the order of their numbers. `due` is in milliseconds since 1970.
pub(crate) const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS outbox (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        subject TEXT NOT NULL,
        url TEXT NOT NULL,
        body TEXT NOT NULL,
        tries INTEGER NOT NULL DEFAULT 0,
        due INTEGER NOT NULL DEFAULT 0
    );
    CREATE INDEX IF NOT EXISTS outbox_by_subject ON outbox (subject, number);";

const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

struct QueuedCallback {
    number: i64,
    url: String,
    body: String,
    tries: u32,
    due: i64,
}

/// Adds a callback to this transaction.
pub(crate) fn put(change: &Transaction<'_>, subject: &str, url: &str, body: &impl Serialize) -> rusqlite::Result<()> {
    let body = serde_json::to_string(body).expect("the wire types are plain JSON");
    change
        .execute(
            "INSERT INTO outbox (subject, url, body) VALUES (?1, ?2, ?3)",
            params![subject, url, body],
        )
        .map(|_| ())
}

/// A callback to send.
#[derive(Debug, Clone)]
pub struct Callback {
    /// The URL of the receiver.
    pub url: String,
    /// The body, as JSON.
    pub body: String,
}

/// Removes all callbacks from the outbox, for a caller that sends them itself.
pub(crate) fn take(change: &Transaction<'_>) -> rusqlite::Result<Vec<Callback>> {
    let callbacks = change
        .prepare_cached("SELECT url, body FROM outbox ORDER BY number")?
        .query_map((), |row| {
            Ok(Callback {
                url: row.get(0)?,
                body: row.get(1)?,
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    change.execute("DELETE FROM outbox", ())?;
    Ok(callbacks)
}

/// Sends callbacks until the future is dropped, subjects concurrently. An error is that of the database.
pub(crate) async fn deliver(
    db: &Db,
    connector: &SharedHttpConnector,
    headers: &'static [(&'static str, &'static str)],
    clock: &ClockAndRng,
) -> rusqlite::Result<Infallible> {
    let mut changes = db.changes();
    let mut under_way = JoinSet::new();
    let mut numbers_under_way = HashSet::new();
    loop {
        changes.mark_unchanged();
        let now = clock.now().as_millisecond();
        let mut wait = None;
        for callback in db.read(first_of_each_subject)? {
            if numbers_under_way.contains(&callback.number) {
                continue;
            }
            if callback.due > now {
                let left = Duration::from_millis((callback.due - now).unsigned_abs());
                wait = Some(wait.map_or(left, |wait: Duration| wait.min(left)));
                continue;
            }
            numbers_under_way.insert(callback.number);
            let connector = connector.clone();
            under_way.spawn(async move {
                let call = Call {
                    method: "POST",
                    url: &callback.url,
                    headers,
                    body: callback.body.clone().into_bytes(),
                };
                let reply = exchange(&connector, call).await;
                let accepted = reply.is_ok_and(|reply| (200..300).contains(&reply.status));
                (callback, accepted)
            });
        }
        tokio::select! {
            Some(Ok((callback, accepted))) = under_way.join_next() => {
                numbers_under_way.remove(&callback.number);
                db.write(|change| record_attempt(change, &callback, accepted, clock.now()))?;
            }
            _ = changes.changed() => {}
            () = tokio::time::sleep(wait.unwrap_or(LONGEST_WAIT)) => {}
        }
    }
}

fn first_of_each_subject(db: &Connection) -> rusqlite::Result<Vec<QueuedCallback>> {
    db.prepare_cached(
        "SELECT number, url, body, tries, due FROM outbox
         WHERE number IN (SELECT MIN(number) FROM outbox GROUP BY subject)",
    )?
    .query_map((), |row| {
        Ok(QueuedCallback {
            number: row.get(0)?,
            url: row.get(1)?,
            body: row.get(2)?,
            tries: row.get(3)?,
            due: row.get(4)?,
        })
    })?
    .collect()
}

fn record_attempt(
    change: &Transaction<'_>,
    callback: &QueuedCallback,
    accepted: bool,
    now: Timestamp,
) -> rusqlite::Result<()> {
    if accepted {
        change.execute("DELETE FROM outbox WHERE number = ?1", [callback.number])?;
        return Ok(());
    }
    let wait = LONGEST_WAIT.min(FIRST_WAIT * (1 << callback.tries.min(8)));
    let due = now + wait;
    change.execute(
        "UPDATE outbox SET tries = tries + 1, due = ?2 WHERE number = ?1",
        params![callback.number, due.as_millisecond()],
    )?;
    Ok(())
}
