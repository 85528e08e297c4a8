//! Atomic file writes: a kill at any moment leaves either the complete old file or the complete new one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::request_id::request_id;

/// Reads the file, or creates it first. If several processes create it at the same time, one wins, and all return its
/// bytes. Only the owner may read the file (mode 0600).
pub(crate) fn read_or_create(path: &Path, make: impl FnOnce() -> io::Result<Vec<u8>>) -> io::Result<Vec<u8>> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        found => return found,
    }
    let temporary = write_beside(path, &make()?)?;
    // A link, unlike a rename, fails if the name exists, so a second process does not overwrite the key of the first.
    let linked = fs::hard_link(&temporary, path);
    fs::remove_file(&temporary)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => sync_directory(path)?,
    }
    fs::read(path)
}

/// Writes or replaces the file. When this returns, the bytes survive a power failure.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = write_beside(path, bytes)?;
    fs::rename(&temporary, path)?;
    sync_directory(path)
}

fn write_beside(path: &Path, bytes: &[u8]) -> io::Result<PathBuf> {
    let temporary = path.with_extension(format!("{}.tmp", request_id()));
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(temporary)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    if let Some(directory) = path.parent() {
        File::open(directory)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn concurrent_creators_read_the_same_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let start = std::sync::Barrier::new(8);
        let seen: Vec<Vec<u8>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8u8)
                .map(|own| {
                    let (path, start) = (&path, &start);
                    scope.spawn(move || {
                        start.wait();
                        read_or_create(path, || Ok(vec![own])).unwrap()
                    })
                })
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert!(seen.iter().all(|bytes| *bytes == seen[0]), "{seen:?}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_may_read_the_file() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        read_or_create(&path, || Ok(vec![1])).unwrap();
        write(&path, &[2]).unwrap();
        assert_eq!(fs::read(&path).unwrap(), [2]);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
