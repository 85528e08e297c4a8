//! Every DynamoDB call the service makes, and the sealing of secret fields. No decision is taken here: conditions state what the domain decided.

mod advance;
mod begin;
mod block;
mod due;
mod error;
mod item;
mod keyring;
mod listing;
mod pool;
mod read;
mod schema;
mod stock;
mod submit;
mod transaction;

pub use advance::Saved;
pub use begin::{Begun, SwapRequest};
pub use block::OpenSwap;
pub use due::{Due, DueRow};
pub use error::StoreError;
pub use item::{ChangedRow, Fingerprint, PhoneEntry, RequestedSwap, StoredLine, StoredSwap, SwapSecrets};
pub use keyring::{Keyring, Sealed};
pub use listing::{Entry, Listing, Span};
pub use pool::Pool;
pub use read::IdempotencyRecord;
pub use schema::create_table;
pub use stock::{NewLine, Released, SIMS_AT_ONCE, Written};
pub use submit::{IdempotencyKey, caller_digest};
pub(crate) use submit::{NewSwap, Submitted};

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use aws_sdk_dynamodb::Client;

/// The table, and the keys that seal its secret fields. One a process, built once; cloning it is cheap.
#[derive(Debug, Clone)]
pub struct Store {
    dynamodb: Client,
    table: String,
    keyring: Keyring,
    /// Pools whose rows are known to be there.
    noted: Arc<Mutex<HashSet<Pool>>>,
}

impl Store {
    /// The client of `kms` is made at its first call: to read the SDK's table of AWS's regions costs as much as all else that
    /// a query does. `master_key` is the id, alias or ARN of the KMS key that wraps the data keys.
    pub fn new(
        dynamodb: Client,
        kms: aws_sdk_kms::Config,
        table: impl Into<String>,
        master_key: impl Into<String>,
    ) -> Self {
        let table = table.into();
        let keyring = Keyring::new(dynamodb.clone(), kms, table.clone(), master_key.into());
        Self {
            dynamodb,
            table,
            keyring,
            noted: Arc::default(),
        }
    }

    /// The keys that seal secret fields and sign what leaves the service to come back.
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }
}
