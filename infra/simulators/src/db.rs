//! The SQLite file under a simulator: every change is committed before it is answered. What is in it is not here.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::watch;

/// A book, and a signal for those who wait for a change in it.
pub(crate) struct Db {
    connection: Mutex<Connection>,
    changed: watch::Sender<()>,
}

impl Db {
    /// Opens the file, or a book in memory, and lays its tables if they are not there.
    pub(crate) fn open(path: Option<&Path>, tables: &str) -> rusqlite::Result<Self> {
        let connection = match path {
            Some(path) => Connection::open(path)?,
            None => Connection::open_in_memory()?,
        };
        // A commit in the log survives a kill; only a power cut could take the last ones.
        connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")?;
        connection.execute_batch(tables)?;
        Ok(Self {
            connection: Mutex::new(connection),
            changed: watch::channel(()).0,
        })
    }

    /// Reads.
    pub(crate) fn read<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        work(&self.lock())
    }

    /// Makes a change: all of it, or after an error nothing.
    pub(crate) fn write<T>(&self, work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        let mut connection = self.lock();
        let before = connection.total_changes();
        let change = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let result = work(&change)?;
        change.commit()?;
        // Those who wait also write: without this they would wake each other for ever.
        if connection.total_changes() > before {
            self.changed.send_replace(());
        }
        Ok(result)
    }

    /// Sees every change from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // A panic in a transaction rolls it back, so the connection is sound.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A book that cannot be used, as an answer.
pub(crate) struct DbError(rusqlite::Error);

impl From<rusqlite::Error> for DbError {
    fn from(error: rusqlite::Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for DbError {
    fn into_response(self) -> Response {
        tracing::error!(error = %self.0, "a simulator's book cannot be used");
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    }
}
