//! Callbacks on their way out: written with the change that they tell of, gone only when the other side has taken them.

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

/// Letters of one subject leave in the order of their numbers; `due` is in milliseconds since 1970.
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

/// Adds a letter to this change.
pub(crate) fn put(change: &Transaction<'_>, subject: &str, url: &str, body: &impl Serialize) -> rusqlite::Result<()> {
    let body = serde_json::to_string(body).expect("the wire types are plain JSON");
    change
        .execute(
            "INSERT INTO outbox (subject, url, body) VALUES (?1, ?2, ?3)",
            params![subject, url, body],
        )
        .map(|_| ())
}

/// A callback on its way out.
#[derive(Debug, Clone)]
pub struct Callback {
    /// Where it goes.
    pub url: String,
    /// JSON.
    pub body: String,
}

/// Empties the outbox, for those who deliver by themselves.
pub(crate) fn take(change: &Transaction<'_>) -> rusqlite::Result<Vec<Callback>> {
    let waiting = change
        .prepare_cached("SELECT url, body FROM outbox ORDER BY number")?
        .query_map((), |row| {
            Ok(Callback {
                url: row.get(0)?,
                body: row.get(1)?,
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    change.execute("DELETE FROM outbox", ())?;
    Ok(waiting)
}

/// Delivers for ever, subjects side by side. An error is the book's.
pub(crate) async fn deliver(
    book: &Db,
    connector: &SharedHttpConnector,
    headers: &'static [(&'static str, &'static str)],
    ambient: &ClockAndRng,
) -> rusqlite::Result<Infallible> {
    let mut changes = book.changes();
    let mut under_way = JoinSet::new();
    let mut numbers_under_way = HashSet::new();
    loop {
        changes.mark_unchanged();
        let now = ambient.now().as_millisecond();
        let mut wait = None;
        for letter in book.read(first_of_each_subject)? {
            if numbers_under_way.contains(&letter.number) {
                continue;
            }
            if letter.due > now {
                let left = Duration::from_millis((letter.due - now).unsigned_abs());
                wait = Some(wait.map_or(left, |wait: Duration| wait.min(left)));
                continue;
            }
            numbers_under_way.insert(letter.number);
            let connector = connector.clone();
            under_way.spawn(async move {
                let call = Call {
                    method: "POST",
                    url: &letter.url,
                    headers,
                    body: letter.body.clone().into_bytes(),
                };
                let reply = exchange(&connector, call).await;
                let taken = reply.is_ok_and(|reply| (200..300).contains(&reply.status));
                (letter, taken)
            });
        }
        tokio::select! {
            Some(Ok((letter, taken))) = under_way.join_next() => {
                numbers_under_way.remove(&letter.number);
                book.write(|change| note(change, &letter, taken, ambient.now()))?;
            }
            _ = changes.changed() => {}
            () = tokio::time::sleep(wait.unwrap_or(LONGEST_WAIT)) => {}
        }
    }
}

fn first_of_each_subject(book: &Connection) -> rusqlite::Result<Vec<QueuedCallback>> {
    book.prepare_cached(
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

fn note(change: &Transaction<'_>, letter: &QueuedCallback, taken: bool, now: Timestamp) -> rusqlite::Result<()> {
    if taken {
        change.execute("DELETE FROM outbox WHERE number = ?1", [letter.number])?;
        return Ok(());
    }
    let wait = LONGEST_WAIT.min(FIRST_WAIT * (1 << letter.tries.min(8)));
    let due = now + wait;
    change.execute(
        "UPDATE outbox SET tries = tries + 1, due = ?2 WHERE number = ?1",
        params![letter.number, due.as_millisecond()],
    )?;
    Ok(())
}
