//! Runs the commands: calls import, show or release, prints the result, and shows progress. How a file is imported is
//! in `import.rs`, and how a record is shown in `show.rs`.

use std::io::Write;
use std::path::Path;

use domain::Iccid;
use store::{Released, Store};

use crate::import::{self, Kind, Report};
use crate::progress::Progress;
use crate::{CommandError, show};

/// A record that `show` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record<'a> {
    /// A swap, by its id.
    Swap(&'a str),
    /// A line, by its id or its phone number.
    Line(&'a str),
    /// A SIM, by its ICCID.
    Sim(&'a str),
}

/// Imports a file. Prints faulty and rejected lines on standard error, and the counts on standard output.
///
/// # Errors
/// When the table or the file cannot be used, when a line is faulty and `skip_faulty` is not set, or when the table
/// rejected a line.
pub async fn import(store: &Store, kind: Kind, file: &Path, skip_faulty: bool) -> Result<(), CommandError> {
    let mut progress = Progress::new();
    let name = file.display();
    let counts = import::import(kind, file, skip_faulty, store, &mut |report| match report {
        Report::Checked(bytes, of) => progress.update("checked", bytes, of),
        Report::Written(rows, of) => progress.update("written", rows, of),
        Report::Faulty(line, reason) | Report::Swap(line, reason) | Report::Rejected(line, reason) => {
            progress.print_line(&format!("{name}:{line}: {reason}"));
        }
    })
    .await?;
    progress.clear();
    let rejected = counts.rejected + counts.left;
    if counts.faulty > 0 && !skip_faulty {
        return Err(CommandError(format!(
            "nothing was written; faulty lines in {name}: {}; correct them, or leave them out with --skip-faulty",
            counts.faulty
        )));
    }
    let skipped = match counts.faulty {
        0 => String::new(),
        faulty => format!(", {faulty} faulty skipped"),
    };
    print(&format!(
        "{} added, {} updated, {} unchanged, {} rejected{skipped}\n",
        counts.added, counts.updated, counts.unchanged, counts.rejected
    ))?;
    match (rejected, counts.left) {
        (0, _) => Ok(()),
        (_, 0) => Err(CommandError(format!(
            "lines of {name} that the table rejected: {rejected}"
        ))),
        (_, left) => Err(CommandError(format!(
            "the table failed too often; lines of {name} that were not attempted: {left}; start the import again when the \
             table is available"
        ))),
    }
}

/// Prints one record, with its secrets masked.
///
/// # Errors
/// When the table cannot be read, or has no such record.
pub async fn show(store: &Store, record: Record<'_>) -> Result<(), CommandError> {
    let text = match record {
        Record::Swap(id) => show::swap(store, id).await?,
        Record::Line(name) => show::line(store, name).await?,
        Record::Sim(iccid) => show::sim(store, iccid).await?,
    };
    print(&text)
}

/// Makes a free SIM whose PINs and PUKs a caller has seen available to every line again.
///
/// # Errors
/// When the table cannot be used, or the SIM is not free.
pub async fn release(store: &Store, name: &str) -> Result<(), CommandError> {
    let unknown = || CommandError::unknown_sim(name);
    let iccid = Iccid::parse(name).map_err(|_| unknown())?;
    let released = store.release_sim(&iccid).await;
    match released.map_err(|error| CommandError::with_causes(&error))? {
        Released::Free => print(&format!("{iccid} is available to every line\n")),
        Released::NotFree(sim) => Err(CommandError(format!(
            "{iccid} is {}; only a free SIM can be released",
            sim.state.as_str()
        ))),
        Released::Unknown => Err(unknown()),
    }
}

fn print(text: &str) -> Result<(), CommandError> {
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| CommandError(format!("standard output: {error}")))
}
