//! Finds the table on which a command of the operator works, and runs the command. The commands are in
//! `infra/operator`.

use std::path::Path;

use operator::commands::{self, Record};
use operator::import::Kind;
use operator::table;
use store::Store;
use tokio::sync::watch;

use crate::args::{Import, Show, Shown, Target};
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

/// Imports a file of SIMs or lines.
///
/// # Errors
/// When the table or the file cannot be used, when a line is faulty and not skipped, or when the table rejected a line.
pub async fn import(import: &Import) -> Result<(), StartError> {
    let (kind, file) = match import {
        Import::Sims(file) => (Kind::Sims, file),
        Import::Subscriptions(file) => (Kind::Subscriptions, file),
    };
    if file.target.is_local() {
        data_dir::create(&file.target.data_dir)?;
    }
    let table = open(&file.target).await?;
    Ok(commands::import(&table.store, kind, &file.file, file.skip_faulty).await?)
}

/// Prints one record of the table.
///
/// # Errors
/// When the table cannot be used, or has no such record.
pub async fn show(show: &Show) -> Result<(), StartError> {
    let (record, target) = match show {
        Show::Swap(shown) => (Record::Swap(&shown.name), &shown.target),
        Show::Line(shown) => (Record::Line(&shown.name), &shown.target),
        Show::Sim(shown) => (Record::Sim(&shown.name), &shown.target),
    };
    let table = open(target).await?;
    Ok(commands::show(&table.store, record).await?)
}

/// Makes a free SIM whose PINs and PUKs a caller has seen available to every line again.
///
/// # Errors
/// When the table cannot be used, or the SIM is not free.
pub async fn release(sim: &Shown) -> Result<(), StartError> {
    let table = open(&sim.target).await?;
    Ok(commands::release(&table.store, &sim.name).await?)
}

async fn open(target: &Target) -> Result<OpenTable, StartError> {
    if !target.is_local() {
        let name = target.table.as_deref().unwrap_or(TABLE);
        let kms_key = std::env::var("KMS_KEY_ID").unwrap_or_else(|_| kms::ALIAS.to_owned());
        let store = table::connect(target.endpoint.as_deref(), name, kms_key).await?;
        return Ok(OpenTable { store, _files: None });
    }
    let data_dir = target.data_dir.as_path();
    if !data_dir.is_dir() {
        return Err(StartError(format!("there is no data directory {}", data_dir.display())));
    }
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
            Some(store) if store.reach().await.is_ok() => Ok(OpenTable { store, _files: None }),
            _ => Err(owned_by_other),
        },
    }
}

fn store_of_running_stack(data_dir: &Path) -> Option<Store> {
    let settings = environment::read(data_dir).ok()?;
    let clients = Clients::of(settings.get("AWS_ENDPOINT_URL_KMS")?);
    let dynamodb = clients.dynamodb(settings.get("AWS_ENDPOINT_URL_DYNAMODB")?);
    let table = settings.get("TABLE")?;
    Some(Store::new(dynamodb, clients.kms(), table, kms::ALIAS))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let files = open(&target).await.unwrap();
        assert!(files._files.is_some());
        assert!(open(&target).await.is_err(), "another command owns it");
        drop(files);
        assert!(directory.path().join(data_dir::TABLES).exists());
    }
}
