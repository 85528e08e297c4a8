//! Where a stack keeps its data, and that only one stack does at a time. What is in each file is the business of its part.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use crate::StartError;

/// Private RSA key that signs tokens.
pub const TOKEN_KEY: &str = "jwt.pem";
/// Master key of the KMS that is played here.
pub const KMS_KEY: &str = "kms.key";
/// Directory with one file per e-mail.
pub const MAIL: &str = "mail";
/// Directory with one file per stream consumer.
pub const CHECKPOINTS: &str = "checkpoints";
/// The embedded DynamoDB's file.
pub const TABLES: &str = "dynamodb.sqlite";
/// Directory of the simulated SM-DP+ and network.
pub const PEERS: &str = "peers";

const LOCK: &str = "lock";

/// A data directory that this process owns until the value is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes the directory if there is none, and takes its lock.
    ///
    /// # Errors
    /// When another stack runs on it, or it cannot be made or written.
    pub fn own(path: &Path) -> Result<Self, StartError> {
        create(path)?;
        let lock = File::create(path.join(LOCK)).map_err(|error| unusable(path, &error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => Err(StartError(format!(
                "another simswap runs on the data directory {}; stop it, or name another one with --data-dir",
                path.display()
            ))),
            Err(TryLockError::Error(error)) => Err(unusable(path, &error)),
        }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes what earlier runs kept here. Only names that a stack makes are removed, for a person may point at any
    /// directory. The token key stays, so that a token printed before a fresh start is good after it.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn empty(&self) -> Result<(), StartError> {
        let database = ["", "-wal", "-shm"].map(|suffix| format!("{TABLES}{suffix}"));
        // The key goes last: a table that outlived its key could never be read.
        let names = [MAIL, CHECKPOINTS, PEERS].into_iter();
        let names = names.chain(database.iter().map(String::as_str));
        for name in names.chain([KMS_KEY]) {
            let entry = self.path.join(name);
            let removed = if entry.is_dir() {
                fs::remove_dir_all(&entry)
            } else if entry.exists() {
                fs::remove_file(&entry)
            } else {
                Ok(())
            };
            removed.map_err(|error| unusable(&entry, &error))?;
        }
        Ok(())
    }
}

/// Makes a directory that only the owner may enter, if there is none.
pub(crate) fn create(path: &Path) -> Result<(), StartError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(|error| unusable(path, &error))
}

/// A path that cannot be read or written, in words.
pub(crate) fn unusable(path: &Path, error: &std::io::Error) -> StartError {
    StartError(format!("cannot use {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_owner_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/down");
        let first = DataDir::own(&path).unwrap();
        let refused = DataDir::own(&path).unwrap_err().to_string();
        assert!(refused.contains("another simswap runs on"), "{refused}");
        drop(first);
        DataDir::own(&path).unwrap();
    }

    #[test]
    fn empty_removes_the_stacks_data_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let owned = DataDir::own(path).unwrap();
        fs::create_dir(path.join(MAIL)).unwrap();
        fs::write(path.join(MAIL).join("1"), "").unwrap();
        for name in [TOKEN_KEY, KMS_KEY, TABLES, "dynamodb.sqlite-wal", "thesis.odt"] {
            fs::write(path.join(name), "").unwrap();
        }
        owned.empty().unwrap();
        let mut left: Vec<_> = fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, [TOKEN_KEY, LOCK, "thesis.odt"]);
    }

    #[test]
    fn an_unusable_place_is_said_in_one_line() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        let error = DataDir::own(&file).unwrap_err().to_string();
        assert!(error.starts_with("cannot use ") && !error.contains('\n'), "{error}");
    }
}
