//! The embedded DynamoDB with its table, and the KMS, over one data directory or in memory. What uses them is
//! elsewhere.

use std::path::Path;

use dynoxide::Database;
use store::{SealingKey, Store, StoreError};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::StartError;
use crate::clients::Clients;
use crate::data_dir::{self, KMS_KEY, TABLES, WAY_OUT};
use crate::event_source;
use crate::kms::{self, Kms};
use crate::serving::{listen, serve, signalled, spawn, url};

/// The name of the table.
pub(crate) const TABLE: &str = "simswap";

/// The embedded DynamoDB and the KMS, which serve requests.
pub(crate) struct Backend {
    /// The database engine.
    pub(crate) database: Database,
    /// The URL of DynamoDB.
    pub(crate) dynamodb: String,
    /// The URL of the KMS.
    pub(crate) kms: String,
    /// The table.
    pub(crate) store: Store,
    /// The public key that encrypts secret fields.
    pub(crate) sealing_key: SealingKey,
    /// Both servers, which end when the signal `closing` is set.
    pub(crate) tasks: Vec<JoinHandle<()>>,
}

impl Backend {
    /// Opens the files of the data directory, which the caller owns, or keeps all data in memory. Creates the table if
    /// there is none.
    pub(crate) async fn open(data_dir: Option<&Path>, closing: &watch::Receiver<bool>) -> Result<Self, StartError> {
        let mut tasks = Vec::new();
        if let Some(data_dir) = data_dir {
            data_dir::check_key(data_dir)?;
        }
        // The key comes first, because a table without its key is rejected.
        let master_key = Kms::open(data_dir)?;
        let database = open_database(data_dir)?;
        let listener = listen(0).await?;
        let dynamodb = url(&listener)?;
        let engine = dynoxide::server::serve_with_shutdown(listener, database.clone(), signalled(closing));
        tasks.push(spawn("the embedded DynamoDB", engine));
        let kms = serve(listen(0).await?, master_key.router(), &mut tasks, closing)?;

        let clients = Clients::of(&kms);
        let client = clients.dynamodb(&dynamodb);
        let table = database.get_table_metadata(TABLE).map_err(|_| damaged(data_dir))?;
        if table.is_none() {
            let created = store::create_table(&client, TABLE).await;
            created.map_err(StartError::context("the table"))?;
        }
        if let Some(data_dir) = data_dir {
            event_source::index_stream(&data_dir.join(TABLES)).map_err(|_| damaged(Some(data_dir)))?;
        }
        let store = Store::new(client, clients.kms(), TABLE, kms::ALIAS);
        if let Some(data_dir) = data_dir {
            let checked = store.keyring().check().await;
            checked.map_err(|error| unreadable(data_dir, &error))?;
        }
        let context = || StartError::context("the table");
        store.check_form().await.map_err(context())?;
        if table.is_none() {
            store.record_form_of_new_table().await.map_err(context())?;
        } else if store.needs_migration().await.map_err(context())? {
            store.finish_migration(&mut |_| {}).await.map_err(context())?;
        }
        let sealing_key = store.keyring().newest_sealing_key().await.map_err(context())?;
        Ok(Self {
            database,
            dynamodb,
            kms,
            store: store.sealing_with(Some(sealing_key.clone())),
            sealing_key,
            tasks,
        })
    }
}

fn open_database(data_dir: Option<&Path>) -> Result<Database, StartError> {
    match data_dir {
        None => Database::memory(),
        Some(data_dir) => Database::new(&data_dir.join(TABLES).to_string_lossy()),
    }
    .map_err(|_| damaged(data_dir))
}

fn damaged(data_dir: Option<&Path>) -> StartError {
    let file = data_dir.unwrap_or(Path::new("")).join(TABLES);
    StartError(format!(
        "{} is damaged, or not the table of a local stack; {WAY_OUT}",
        file.display()
    ))
}

/// The error for a newest data key that cannot be unwrapped.
fn unreadable(data_dir: &Path, error: &StoreError) -> StartError {
    match error {
        StoreError::Rejected(_) | StoreError::Sealing => StartError(format!(
            "{} is not the key with which the table's secrets were encrypted; {WAY_OUT}",
            data_dir.join(KMS_KEY).display()
        )),
        StoreError::NewerForm(_) | StoreError::NoSealingKey => StartError(error.to_string()),
        StoreError::Unavailable(_) | StoreError::Corrupt(_) => damaged(Some(data_dir)),
    }
}
