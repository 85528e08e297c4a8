//! The SQLite database of a simulator: every change is committed before the response. The tables are defined where they
//! are used.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::watch;

/// A database, and a signal for tasks that wait for a change.
pub(crate) struct Db {
    connection: Mutex<Connection>,
    changed: watch::Sender<()>,
}

impl Db {
    /// Opens the file, or a database in memory, and executes `tables`, which creates missing tables.
    pub(crate) fn open(path: Option<&Path>, tables: &str) -> rusqlite::Result<Self> {
        let connection = match path {
            Some(path) => Connection::open(path)?,
            None => Connection::open_in_memory()?,
        };
        // A commit in the log survives a kill; only a power failure could lose the last ones.
        connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")?;
        connection.execute_batch(tables)?;
        Ok(Self {
            connection: Mutex::new(connection),
            changed: watch::channel(()).0,
        })
    }

    /// Runs a query.
    pub(crate) fn read<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        work(&self.lock())
    }

    /// Runs a transaction. After an error, nothing has changed.
    pub(crate) fn write<T>(&self, work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        let mut connection = self.lock();
        let before = connection.total_changes();
        let change = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let result = work(&change)?;
        change.commit()?;
        // The waiting tasks run transactions themselves; if each one gave the signal, they would wake each other for
        // ever.
        if connection.total_changes() > before {
            self.changed.send_replace(());
        }
        Ok(result)
    }

    /// Receives a signal for every later change.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // A panic rolls back its transaction, so the connection remains usable.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A failed database, as a response.
pub(crate) struct DbError(rusqlite::Error);

impl From<rusqlite::Error> for DbError {
    fn from(error: rusqlite::Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for DbError {
    fn into_response(self) -> Response {
        tracing::error!(error = %self.0, "the database of a simulator failed");
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    }
}
