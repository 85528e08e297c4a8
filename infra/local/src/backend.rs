//! The ground that everything stands on: the embedded DynamoDB with its table, and the KMS, over one data directory. Who uses it is elsewhere.

use std::path::Path;

use dynoxide::Database;
use store::Store;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::StartError;
use crate::clients::Clients;
use crate::data_dir::TABLES;
use crate::event_source;
use crate::kms::{self, Kms};
use crate::stack::{failed, listen, serve, told, url};

/// The table's name.
pub(crate) const TABLE: &str = "simswap";

/// The embedded DynamoDB and the KMS, listening.
pub(crate) struct Backend {
    /// The engine.
    pub(crate) database: Database,
    /// Where it listens.
    pub(crate) dynamodb: String,
    /// Where the KMS listens.
    pub(crate) kms: String,
    /// The table.
    pub(crate) store: Store,
    /// Both servers: they end when they are told to close.
    pub(crate) tasks: Vec<JoinHandle<()>>,
}

impl Backend {
    /// Opens the files of the directory, which the caller owns, or keeps all in memory. The table is made if there is none.
    pub(crate) async fn open(data_dir: Option<&Path>, closing: &watch::Receiver<bool>) -> Result<Self, StartError> {
        let mut tasks = Vec::new();
        let database = open_database(data_dir)?;
        let listener = listen(0).await?;
        let dynamodb = url(&listener)?;
        let engine = dynoxide::server::serve_with_shutdown(listener, database.clone(), told(closing));
        tasks.push(tokio::spawn(async move {
            if let Err(error) = engine.await {
                tracing::error!(error, "the embedded DynamoDB ended");
            }
        }));
        let kms = serve(listen(0).await?, Kms::open(data_dir)?.router(), &mut tasks, closing)?;

        let clients = Clients::of(&kms);
        let client = clients.dynamodb(&dynamodb);
        let table = database.get_table_metadata(TABLE).map_err(failed("the table"))?;
        if table.is_none() {
            store::create_table(&client, TABLE).await.map_err(failed("the table"))?;
        }
        if let Some(data_dir) = data_dir {
            event_source::index_stream(&data_dir.join(TABLES))?;
        }
        let store = Store::new(client, clients.kms(), TABLE, kms::ALIAS);
        Ok(Self {
            database,
            dynamodb,
            kms,
            store,
            tasks,
        })
    }
}

fn open_database(data_dir: Option<&Path>) -> Result<Database, StartError> {
    match data_dir {
        None => Database::memory(),
        Some(data_dir) => Database::new(&data_dir.join(TABLES).to_string_lossy()),
    }
    .map_err(failed("the embedded DynamoDB"))
}
