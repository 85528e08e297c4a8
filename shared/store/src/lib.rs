//! Every DynamoDB call of the service, and the encryption of secret fields. The domain decides how a swap proceeds; the
//! store writes that decision, under conditions. The store itself decides what depends on several rows at once: which
//! SIM a new swap gets (`begin`), how its end is written to line and SIMs (`advance`), and which SIM a new line gets
//! (`stock`).

mod action;
mod advance;
mod attributes;
mod begin;
mod block;
mod brand;
mod due;
mod error;
mod form;
mod idempotency;
mod keyring;
mod keys;
mod listing;
mod migrate;
mod pool;
mod read;
mod retry;
mod rows;
mod scan;
mod schema;
mod sealed;
mod stock;
mod transaction;

pub use action::Action;
pub use advance::Saved;
pub use begin::{Begun, SwapRequest};
pub use block::OpenSwap;
pub use brand::BrandWritten;
pub use due::DueRow;
pub use error::StoreError;
pub use idempotency::{CanonicalRequest, Fingerprint, IdempotencyKey, IdempotencyRecord, caller_digest};
pub use keyring::Keyring;
pub use keys::{ChangedRow, Shard};
pub use listing::{Entry, Listing, Span};
pub use migrate::Migration;
pub use pool::Pool;
pub use retry::retry_on_conflict;
pub use rows::{LastRequest, PhoneEntry, Renewal, RequestedSwap, StoredLine, StoredSwap, SwapSecrets};
pub use scan::{Page, Place};
pub use schema::create_table;
pub use sealed::{Sealed, SealingKey};
pub use stock::{LINES_AT_ONCE, NewLine, Released, SIMS_AT_ONCE, Written};

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use aws::ServiceClient;
use aws_sdk_dynamodb::Client;

/// The table, and the keys that encrypt its secret fields. A process builds one store. Clones are cheap and share its
/// state.
#[derive(Debug, Clone)]
pub struct Store {
    dynamodb: Client,
    table: String,
    keyring: Keyring,
    /// Pools whose rows are known to exist.
    known_pools: Arc<Mutex<HashSet<Pool>>>,
}

impl Store {
    /// A store on an existing table. `master_key` is the id, alias or ARN of the KMS key that wraps the data keys.
    pub fn new(dynamodb: Client, kms: ServiceClient, table: impl Into<String>, master_key: impl Into<String>) -> Self {
        let table = table.into();
        let keyring = Keyring::new(dynamodb.clone(), kms, table.clone(), master_key.into());
        Self {
            dynamodb,
            table,
            keyring,
            known_pools: Arc::default(),
        }
    }

    /// The store on a table whose data keys were made in the table `installation`: a table that was restored from a backup
    /// has another name. An empty text changes nothing.
    pub fn of_installation(mut self, installation: String) -> Self {
        if !installation.is_empty() {
            self.keyring.set_installation(installation);
        }
        self
    }

    /// The store that encrypts new secret fields with this public key. Without one, the newest data key encrypts them, so
    /// that earlier releases can read them too.
    pub fn sealing_with(mut self, sealing_key: Option<SealingKey>) -> Self {
        self.keyring.set_sealing_key(sealing_key);
        self
    }

    /// The keys that encrypt secret fields, and that sign values which callers hand back to the service.
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }
}
