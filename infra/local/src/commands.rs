//! Finds the table on which a command of the operator works, and runs the command. The commands are in
//! `infra/operator`.

use std::path::Path;

use operator::commands::{self, Record, Records};
use operator::import::Kind;
use operator::list::{LineFilter, SimFilter, SwapFilter};
use operator::replay::DeadLetterQueue;
use operator::table;
use store::Store;
use tokio::sync::watch;

use crate::args::{
    Import, LineCommand, List, Migrate, Named, Removed, Replay, RewrapKeys, Show, Sim, Target, base_url,
};
use crate::backend::{Backend, TABLE};
use crate::clients::Clients;
use crate::data_dir::{self, DataDir};
use crate::{StartError, environment, kms};

/// The table on which a command works.
struct OpenTable {
    store: Store,
    /// The open files of a data directory on which no stack runs. They stay open while the command runs.
    _files: Option<(DataDir, Backend)>,
}

/// Imports a file of SIMs, lines or brands.
///
/// # Errors
/// When the table or the file cannot be used, when a line is faulty and not skipped, or when the table rejected a line.
pub async fn import(import: &Import) -> Result<(), StartError> {
    let (kind, file) = match import {
        Import::Sims(file) => (Kind::Sims, file),
        Import::Subscriptions(file) => (Kind::Subscriptions, file),
        Import::Brands(file) => (Kind::Brands, file),
    };
    let table = open(&file.target).await?;
    Ok(commands::import(&table.store, kind, &file.file, file.skip_faulty).await?)
}

/// Prints one record of the table.
///
/// # Errors
/// When the table cannot be used, or has no such record.
pub async fn show(show: &Show) -> Result<(), StartError> {
    let (Show::Swap(shown) | Show::Line(shown) | Show::Sim(shown)) = show;
    let name = &shown.record.name;
    let record = match show {
        Show::Swap(_) => Record::Swap(name),
        Show::Line(_) => Record::Line(name),
        Show::Sim(_) => Record::Sim(name),
    };
    let zone = shown.zone.get()?;
    let table = open(&shown.record.target).await?;
    Ok(commands::show(&table.store, &zone, record).await?)
}

/// Lists records of the table.
///
/// # Errors
/// When the table cannot be used.
pub async fn list(list: List) -> Result<(), StartError> {
    let (records, display) = match list {
        List::Lines(list) => {
            let filter = LineFilter {
                state: list.state,
                network: list.network,
                customer: list.customer,
                reseller: list.reseller,
            };
            (Records::Lines(filter), list.display)
        }
        List::Sims(list) => {
            let filter = SimFilter {
                state: list.state,
                network: list.network,
                reseller: list.reseller,
                pool: list.pool,
            };
            (Records::Sims(filter), list.display)
        }
        List::Swaps(list) => {
            let filter = SwapFilter {
                status: list.status,
                network: list.network,
                customer: list.customer,
                reseller: list.reseller,
                line: list.line,
            };
            (Records::Swaps(filter), list.display)
        }
    };
    let zone = display.zone.get()?;
    let table = open(&display.target).await?;
    Ok(commands::list(&table.store, &zone, &records, display.limit).await?)
}

/// Changes or removes a line.
///
/// # Errors
/// When the operator does not agree, when the change is not possible, or when the table cannot be used.
pub async fn line(command: &LineCommand) -> Result<(), StartError> {
    match command {
        LineCommand::Set(set) => {
            let table = open(&set.target).await?;
            commands::set_line(&table.store, &set.name, &set.change(), set.yes).await?;
        }
        LineCommand::Remove(Removed { yes, record }) => {
            let table = open(&record.target).await?;
            commands::remove_line(&table.store, &record.name, *yes).await?;
        }
    }
    Ok(())
}

/// Changes or removes a SIM.
///
/// # Errors
/// When the operator does not agree, when the change is not possible, or when the table cannot be used.
pub async fn sim(command: &Sim) -> Result<(), StartError> {
    match command {
        Sim::Release(Named { name, target }) => {
            let table = open(target).await?;
            commands::release(&table.store, name).await?;
        }
        Sim::Remove(Removed { yes, record }) => {
            let table = open(&record.target).await?;
            commands::remove_sim(&table.store, &record.name, *yes).await?;
        }
    }
    Ok(())
}

/// Adds a data key to the table.
///
/// # Errors
/// When the table or KMS cannot be used.
pub async fn rotate_key(target: &Target) -> Result<(), StartError> {
    let table = open(target).await?;
    Ok(commands::rotate_key(&table.store).await?)
}

/// Prints the public key that encrypts secret fields.
///
/// # Errors
/// When the table or KMS cannot be used.
pub async fn sealing_key(target: &Target) -> Result<(), StartError> {
    let table = open(target).await?;
    Ok(commands::sealing_key(&table.store).await?)
}

/// Wraps the data keys of a table with another master key.
///
/// # Errors
/// When the table or KMS cannot be used.
pub async fn rewrap_keys(rewrap: &RewrapKeys) -> Result<(), StartError> {
    let table = open(&rewrap.target).await?;
    Ok(commands::rewrap_keys(&table.store, &rewrap.to, rewrap.finish).await?)
}

/// Brings a table to the form of this release.
///
/// # Errors
/// When the table cannot be used.
pub async fn migrate(migrate: &Migrate) -> Result<(), StartError> {
    let table = open(&migrate.target).await?;
    Ok(commands::migrate(&table.store, migrate.finish).await?)
}

/// Replays the messages of the dead-letter queue.
///
/// # Errors
/// When the queue or a function cannot be used.
pub async fn replay(replay: &Replay) -> Result<(), StartError> {
    let queue = match (&replay.queue_url, &replay.mail_events) {
        (Some(url), Some(mail_events)) => table::dead_letter_queue(url.clone(), mail_events.clone()).await?,
        _ => local_queue(&replay.data_dir)?,
    };
    Ok(commands::replay_dead_letters(&queue).await?)
}

/// The queue of the stack that runs on this data directory. It is in the memory of the stack.
fn local_queue(data_dir: &Path) -> Result<DeadLetterQueue, StartError> {
    data_dir::check_used(data_dir)?;
    if DataDir::own(data_dir).is_ok() {
        return Err(StartError(format!(
            "no stack runs on {}, and dead letters are lost when a stack stops; start the stack",
            data_dir.display()
        )));
    }
    let settings = environment::read(data_dir)?;
    let url = |name: &str| {
        let url = settings.get(name).map(String::as_str);
        url.ok_or_else(|| StartError(format!("the stack on {} is of another version", data_dir.display())))
    };
    let clients = Clients::of(url("AWS_ENDPOINT_URL_KMS")?);
    let sqs = url("AWS_ENDPOINT_URL_SQS")?;
    Ok(DeadLetterQueue {
        sqs: clients.sqs(sqs),
        lambda: clients.lambda(url("AWS_ENDPOINT_URL_LAMBDA")?),
        url: format!("{sqs}/dead-letters"),
        mail_events: "mail-events".to_owned(),
    })
}

async fn open(target: &Target) -> Result<OpenTable, StartError> {
    if !target.is_local() {
        let name = target.table.as_deref().unwrap_or(TABLE);
        let kms_key = std::env::var("KMS_KEY_ID").unwrap_or_else(|_| kms::ALIAS.to_owned());
        let endpoint = target.endpoint.as_deref().map(base_url).transpose();
        let endpoint = endpoint.map_err(|fault| StartError(format!("--endpoint {fault}")))?;
        let installation = std::env::var("INSTALLATION").unwrap_or_default();
        let store = table::connect(endpoint.as_deref(), name, kms_key, installation).await?;
        let sealing_key = std::env::var("SEALING_KEY").ok().filter(|text| !text.is_empty());
        let sealing_key = sealing_key.map(|text| text.parse()).transpose();
        let sealing_key = sealing_key.map_err(|fault| StartError(format!("SEALING_KEY {fault}")))?;
        let store = store.sealing_with(sealing_key);
        return Ok(OpenTable { store, _files: None });
    }
    let data_dir = target.data_dir.as_path();
    data_dir::check_used(data_dir)?;
    match DataDir::own(data_dir) {
        Ok(owned) => {
            let (_, closing) = watch::channel(false);
            let backend = Backend::open(Some(data_dir), &closing).await?;
            Ok(OpenTable {
                store: backend.store.clone(),
                _files: Some((owned, backend)),
            })
        }
        // The owner is a stack, whose settings say where its parts listen, or another command.
        Err(owned_by_other) => match store_of_running_stack(data_dir) {
            Some(store) if store.check_form().await.is_ok() => Ok(OpenTable { store, _files: None }),
            _ => Err(owned_by_other),
        },
    }
}

fn store_of_running_stack(data_dir: &Path) -> Option<Store> {
    let settings = environment::read(data_dir).ok()?;
    let clients = Clients::of(settings.get("AWS_ENDPOINT_URL_KMS")?);
    let dynamodb = clients.dynamodb(settings.get("AWS_ENDPOINT_URL_DYNAMODB")?);
    let table = settings.get("TABLE")?;
    let store = Store::new(dynamodb, clients.kms(), table, kms::ALIAS);
    let sealing_key = settings.get("SEALING_KEY")?.parse().ok();
    Some(store.sealing_with(sealing_key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::Tokens;

    #[tokio::test]
    async fn without_a_stack_the_files_of_the_directory_are_opened_by_one_command_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let target = Target {
            endpoint: None,
            table: None,
            data_dir: directory.path().join("none"),
        };
        assert!(open(&target).await.is_err(), "no directory is created");
        let target = Target {
            data_dir: directory.path().to_owned(),
            ..target
        };
        let error = open(&target).await.err().unwrap().to_string();
        assert!(error.contains(" has no data of a local stack; "), "{error}");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        Tokens::open(Some(directory.path())).unwrap();
        let files = open(&target).await.unwrap();
        assert!(files._files.is_some());
        assert!(open(&target).await.is_err(), "another command owns it");
        drop(files);
        assert!(directory.path().join(data_dir::TABLES).exists());
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_used_is_named_with_the_way_out() {
        async fn error_of(data_dir: &Path) -> String {
            let target = Target {
                endpoint: None,
                table: None,
                data_dir: data_dir.to_owned(),
            };
            let error = open(&target).await.err().unwrap().to_string();
            assert!(error.contains("--fresh") && !error.contains('\n'), "{error}");
            error
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let (_, closing) = watch::channel(false);
        let backend = Backend::open(Some(path), &closing).await.unwrap();
        // Creates the first data key.
        backend.store.keyring().sign("test", "").await.unwrap();
        drop(backend);
        let connection = rusqlite::Connection::open(path.join(data_dir::TABLES)).unwrap();
        let into_file = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        into_file.unwrap();
        drop(connection);
        let (key, table) = (path.join(data_dir::KMS_KEY), path.join(data_dir::TABLES));
        let right_key = std::fs::read(&key).unwrap();

        std::fs::write(&key, [7; 32]).unwrap();
        let error = error_of(path).await;
        assert!(error.contains("kms.key is not the key with which"), "{error}");
        std::fs::write(&key, [7; 31]).unwrap();
        let error = error_of(path).await;
        assert!(error.contains("kms.key is not a key of 32 bytes"), "{error}");
        std::fs::remove_file(&key).unwrap();
        let error = error_of(path).await;
        assert!(error.contains("kms.key is missing"), "{error}");
        assert!(!key.exists(), "no new key takes its place");

        std::fs::write(&key, right_key).unwrap();
        for suffix in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(path.join(format!("{}{suffix}", data_dir::TABLES)));
        }
        for damage in ["not a database".repeat(1000).into_bytes(), damaged(&table)] {
            std::fs::write(&table, damage).unwrap();
            let error = error_of(path).await;
            assert!(error.contains("dynamodb.sqlite is damaged"), "{error}");
        }
    }

    /// The file with everything after its first page overwritten.
    fn damaged(table: &Path) -> Vec<u8> {
        let mut bytes = std::fs::read(table).unwrap();
        bytes[4096..].fill(0xA5);
        bytes
    }

    #[tokio::test]
    async fn a_malformed_endpoint_is_rejected_before_any_call() {
        for endpoint in [
            "127.0.0.1:8000",
            "http://",
            "http://127.0.0.1:80x",
            "http://127.0.0.1:99999",
            "http://a@b",
        ] {
            let target = Target {
                endpoint: Some(endpoint.to_owned()),
                table: None,
                data_dir: "none".into(),
            };
            let error = open(&target).await.err().unwrap().to_string();
            assert_eq!(
                error, "--endpoint must be a URL such as http://127.0.0.1:9100",
                "{endpoint}"
            );
        }
    }
}
