//! The data directory of a stack: its files, and the lock that lets only one process use it. The part that owns a file
//! knows its format.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::{StartError, durable};

/// The private RSA key that signs tokens.
pub const TOKEN_KEY: &str = "jwt.pem";
/// The master key of the KMS.
pub const KMS_KEY: &str = "kms.key";
/// The directory with one file per e-mail.
pub const MAIL: &str = "mail";
/// The directory with one file per consumer of change records or of SES events.
pub const CHECKPOINTS: &str = "checkpoints";
/// The file of the embedded DynamoDB.
pub const TABLES: &str = "dynamodb.sqlite";
/// The directory with the databases of the simulated SM-DP+ and network.
pub const PEERS: &str = "peers";

const LOCK: &str = "lock";

/// A locked data directory. The lock ends when the value is dropped, or with the process, even if that is killed.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Creates the directory if there is none, and locks it.
    ///
    /// # Errors
    /// When another process has locked it, or it cannot be created or written.
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

    /// Removes the data of earlier runs. It removes only files and directories that a stack creates, because the user
    /// may have named any directory. The token key remains, so that a token printed before a fresh start stays valid.
    ///
    /// # Errors
    /// When a file or directory cannot be removed.
    pub fn empty(&self) -> Result<(), StartError> {
        let database = ["", "-wal", "-shm"].map(|suffix| format!("{TABLES}{suffix}"));
        // The KMS key is removed last, because a table without its key could never be read.
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

/// The end of every message about a file without which the data cannot be read.
pub(crate) const WAY_OUT: &str =
    "put back the file from a copy of the directory, or start the stack with --fresh, which deletes its data";

/// Checks that a stack has used this directory, so that a misspelt name does not create a second set of data.
///
/// # Errors
/// When the directory contains none of the files that a stack creates first.
pub(crate) fn check_used(path: &Path) -> Result<(), StartError> {
    match [TOKEN_KEY, KMS_KEY, TABLES].iter().any(|name| path.join(name).exists()) {
        true => Ok(()),
        false => Err(StartError(format!(
            "{} has no data of a local stack; name the stack's directory with --data-dir, or start a stack there first",
            path.display()
        ))),
    }
}

/// Checks that a table, if there is one, has its key. Without this check, a start would make a new key, which cannot
/// decrypt the table's secrets.
///
/// # Errors
/// When the key is missing.
pub(crate) fn check_key(path: &Path) -> Result<(), StartError> {
    let key = path.join(KMS_KEY);
    match key.exists() || !path.join(TABLES).exists() {
        true => Ok(()),
        false => Err(StartError(format!(
            "{} is missing, and without it the secrets in the table cannot be decrypted; {WAY_OUT}",
            key.display()
        ))),
    }
}

/// Creates a directory that only its owner may enter (mode 0700), if there is none.
pub(crate) fn create(path: &Path) -> Result<(), StartError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(|error| unusable(path, &error))
}

/// The path of a file in a subdirectory of the data directory. Creates the subdirectory if there is none.
pub(crate) fn file_in(data_dir: &Path, directory: &str, file: &str) -> Result<PathBuf, StartError> {
    let directory = data_dir.join(directory);
    create(&directory)?;
    Ok(directory.join(file))
}

/// Reads a key file of the data directory, or creates both. Without a data directory, makes a new key. `parse` checks
/// the key; `fault` says what a rejected file is not, and what to do then.
pub(crate) fn read_or_create_key<T>(
    data_dir: Option<&Path>,
    file: &str,
    make: impl FnOnce() -> io::Result<Vec<u8>>,
    parse: impl FnOnce(&[u8]) -> Option<T>,
    fault: &str,
) -> Result<T, StartError> {
    let (bytes, path) = match data_dir {
        None => (make(), PathBuf::from(file)),
        Some(directory) => {
            create(directory)?;
            let path = directory.join(file);
            (durable::read_or_create(&path, make), path)
        }
    };
    let bytes = bytes.map_err(|error| unusable(&path, &error))?;
    parse(&bytes).ok_or_else(|| StartError(format!("{} is not {fault}", path.display())))
}

/// The error for a path that cannot be read or written.
pub(crate) fn unusable(path: &Path, error: &io::Error) -> StartError {
    StartError(format!("cannot use {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_process_owns_a_directory() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/down");
        let first = DataDir::own(&path).unwrap();
        let error = DataDir::own(&path).unwrap_err().to_string();
        assert!(error.contains("another simswap runs on"), "{error}");
        drop(first);
        DataDir::own(&path).unwrap();
    }

    #[test]
    fn empty_removes_only_the_data_of_the_stack() {
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
    fn an_unusable_path_is_reported_on_one_line() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        let error = DataDir::own(&file).unwrap_err().to_string();
        assert!(error.starts_with("cannot use ") && !error.contains('\n'), "{error}");
    }
}
