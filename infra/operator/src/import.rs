//! Imports a file of SIMs, lines or brands into the table. It checks the whole file first, and then writes it. Parsing is in
//! `file.rs` and `row.rs`, writing in `write.rs`; the progress display is in `progress.rs`.

mod file;
mod row;
mod write;

pub(crate) use file::name;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use edge::Settings;
use ring::digest::{SHA256, digest};
use store::{LINES_AT_ONCE, OpenSwap, SIMS_AT_ONCE, Store};
use tokio::task::JoinSet;

use crate::CommandError;
use file::{NumberedRow, StockFile};
use row::Row;
use write::RowResult;

/// What a file contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Free SIMs.
    Sims,
    /// Lines.
    Subscriptions,
    /// Brands of resellers.
    Brands,
}

/// What the import reports while it runs. Line numbers are those that an editor shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// Bytes checked, of bytes in total.
    Checked(u64, u64),
    /// Rows written or rejected, of rows in total.
    Written(u64, u64),
    /// A faulty line of the file, and its faults; reported in order while the file is checked.
    Faulty(u64, String),
    /// A line of the file that is imported, and what may be wrong with it; reported in order while the file is checked,
    /// and at the end, in order.
    Warning(u64, String),
    /// A line of the file whose subscription had an open swap, and what became of the swap; reported at the end, in
    /// order.
    Swap(u64, String),
    /// A line of the file that the table rejected, and the reason; reported at the end, in order.
    Rejected(u64, String),
}

/// The number of rows with each result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Malformed rows. If there are any and they are not skipped, nothing was written.
    pub faulty: u64,
    /// Rows that are new in the table.
    pub added: u64,
    /// Rows that existed and were changed.
    pub updated: u64,
    /// Rows that existed and did not change.
    pub unchanged: u64,
    /// Rows that could not be written.
    pub rejected: u64,
    /// Rows that were not attempted, because the table had failed too often.
    pub left: u64,
}

/// The number of concurrent calls, each of which writes many rows.
const CONCURRENCY: usize = 8;

/// The number of failed calls after which the import stops.
const MAX_FAILURES: u64 = 100;

/// Imports the file, or standard input if the path is `-`. If a line is faulty and `skip_faulty` is not set, it writes
/// nothing. An import that was interrupted at any moment can be run again, and then finishes.
///
/// # Errors
/// When the file cannot be read, its header is wrong, a quote is not closed, or the data key that encrypts PINs and PUKs
/// cannot be opened. Nothing is written then.
pub async fn import(
    kind: Kind,
    path: &Path,
    skip_faulty: bool,
    store: &Store,
    report: &mut dyn FnMut(Report),
) -> Result<Counts, CommandError> {
    let file = StockFile::read(path, kind)?;
    let (good, faulty) = check(&file, report);
    let mut counts = Counts {
        faulty: faulty.len() as u64,
        ..Counts::default()
    };
    if !faulty.is_empty() && !skip_faulty {
        return Ok(counts);
    }
    let checked = store.check_written_form().await;
    checked.map_err(|error| CommandError::with_causes(&error))?;
    if kind == Kind::Sims {
        // A key that cannot be used is reported once and not for every row.
        let checked = store.keyring().check_sealing().await;
        checked.map_err(|error| CommandError::with_causes(&error))?;
    }
    let mut rows = file.rows().filter_map(|NumberedRow { line, row }| {
        let is_good = faulty.binary_search(&line).is_err();
        row.ok().filter(|_| is_good).map(|row| (line, row))
    });
    // They only decide when the sweeper wakes a stopped swap, so the defaults are good enough.
    let deadlines = Settings::new(|_| None).deadlines();
    let deadlines = Arc::new(deadlines.map_err(|error| CommandError(error.to_string()))?);
    let (mut rejected, mut swaps, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
    let (mut done, mut failures) = (0, 0);
    let at_once = match kind {
        Kind::Sims => SIMS_AT_ONCE,
        Kind::Subscriptions => LINES_AT_ONCE,
        Kind::Brands => 1,
    };
    let mut under_way = JoinSet::new();
    loop {
        while under_way.len() < CONCURRENCY && failures < MAX_FAILURES {
            let (lines, rows): (Vec<u64>, Vec<Row>) = rows.by_ref().take(at_once).unzip();
            if lines.is_empty() {
                break;
            }
            let (store, deadlines) = (store.clone(), deadlines.clone());
            under_way.spawn(async move {
                let results = write::write(&store, &deadlines, &rows);
                (lines, results.await)
            });
        }
        let Some(written) = under_way.join_next().await else {
            break;
        };
        let (lines, results) = written.map_err(|error| CommandError(format!("a write was interrupted: {error}")))?;
        done += lines.len() as u64;
        let is_failure = |result: &RowResult| matches!(result, RowResult::Failed(_));
        failures += u64::from(results.iter().any(is_failure));
        for (line, result) in lines.into_iter().zip(results) {
            match result {
                RowResult::Added => counts.added += 1,
                RowResult::Updated(open, differences) => {
                    counts.updated += 1;
                    swaps.extend(describe_open_swap(&open).map(|text| (line, text)));
                    warnings.extend(differences.into_iter().map(|text| (line, text)));
                }
                RowResult::Unchanged(differences) => {
                    counts.unchanged += 1;
                    warnings.extend(differences.into_iter().map(|text| (line, text)));
                }
                RowResult::Rejected(reason) | RowResult::Failed(reason) => rejected.push((line, reason)),
            }
        }
        report(Report::Written(done, good));
    }
    counts.rejected = rejected.len() as u64;
    counts.left = good - done;
    warnings.sort_by_key(|(line, _)| *line);
    for (line, text) in warnings {
        report(Report::Warning(line, text));
    }
    swaps.sort_unstable();
    for (line, text) in swaps {
        report(Report::Swap(line, text));
    }
    rejected.sort_unstable();
    for (line, reason) in rejected {
        report(Report::Rejected(line, reason));
    }
    Ok(counts)
}

/// What an operator who blocks a line has to know about its open swap.
fn describe_open_swap(open: &OpenSwap) -> Option<String> {
    match open {
        OpenSwap::Undisturbed => None,
        OpenSwap::Stopped(id) => Some(format!("its open swap {id} is stopped")),
        OpenSwap::GoesOn(id) => Some(format!(
            "its open swap {id} cannot be stopped any more: the swap is ending, or the network is moving the number"
        )),
    }
}

/// Counts the good lines, and collects the numbers of the faulty ones. Of two lines with the same key, the second is
/// faulty.
fn check(file: &StockFile, report: &mut dyn FnMut(Report)) -> (u64, Vec<u64>) {
    let mut good = 0;
    let mut faulty = Vec::new();
    // Half of a SHA-256 in place of the key, so that every entry has the same small size.
    let mut seen: HashMap<[u8; 16], u32> = HashMap::new();
    let mut rows = file.rows();
    while let Some(NumberedRow { line, row }) = rows.next() {
        if let Some(warning) = row.as_ref().ok().and_then(Row::warning) {
            report(Report::Warning(line, warning));
        }
        let fault = match &row {
            Err(fault) => Some(fault.clone()),
            Ok(row) => find_duplicate(row, line, &mut seen),
        };
        match fault {
            None => good += 1,
            Some(fault) => {
                faulty.push(line);
                report(Report::Faulty(line, fault));
            }
        }
        report(Report::Checked(rows.bytes_read(), file.bytes()));
    }
    (good, faulty)
}

fn find_duplicate(row: &Row, line: u64, seen: &mut HashMap<[u8; 16], u32>) -> Option<String> {
    let keys = row.keys().into_iter().map(|(column, value)| {
        let digest = digest(&SHA256, format!("{column}={value}").as_bytes());
        let mut key = [0; 16];
        key.copy_from_slice(&digest.as_ref()[..16]);
        (column, key)
    });
    let keys: Vec<_> = keys.collect();
    let faults: Vec<_> = keys
        .iter()
        .filter_map(|(column, key)| {
            let first = seen.get(key)?;
            Some(format!("{column} is on line {first} already"))
        })
        .collect();
    if !faults.is_empty() {
        return Some(faults.join("; "));
    }
    // Above four billion lines, only the line number in a message would be wrong.
    let line = u32::try_from(line).unwrap_or(u32::MAX);
    seen.extend(keys.into_iter().map(|(_, key)| (key, line)));
    None
}
