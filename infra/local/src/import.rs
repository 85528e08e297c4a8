//! Loads a file of SIMs or lines into the table: first all of it is checked, then it is written. Where the table is, and how progress is shown, is in `operator.rs`.

mod file;
mod row;
mod write;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use edge::Settings;
use ring::digest::{SHA256, digest};
use store::{OpenSwap, SIMS_AT_ONCE, Store};
use tokio::task::JoinSet;

use crate::StartError;
use file::{Numbered, StockFile};
use row::Row;
use write::RowResult;

pub(crate) use write::with_causes;

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Stock.
    Sims,
    /// Lines of service.
    Subscriptions,
}

/// What is told while a file is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// So many bytes of so many are checked.
    Checked(u64, u64),
    /// So many rows of so many are written or refused.
    Written(u64, u64),
    /// The line of the file with this number is faulty, and why; told while the file is checked, in order.
    Faulty(u64, String),
    /// The line of service on the line of the file with this number had an open swap, and what became of it; told at the end,
    /// in order.
    Swap(u64, String),
    /// The table did not take the line of the file with this number, and why; told at the end, in order.
    Refused(u64, String),
}

/// How many rows came to what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Are not what they should be. If there is one and faulty rows are not skipped, nothing was written.
    pub faulty: u64,
    /// Are new in the table.
    pub added: u64,
    /// Were there, and are changed.
    pub updated: u64,
    /// Were there, and are as they were.
    pub unchanged: u64,
    /// Could not be written.
    pub refused: u64,
    /// Were not tried: the table failed too often.
    pub left: u64,
}

/// Calls that the table may fail before no more are made.
const FAILURES_AT_MOST: u64 = 100;

/// Loads the file. Nothing is written if a line of it is faulty, unless those are skipped. Broken off at any moment and
/// started again, it finishes.
///
/// # Errors
/// When the file cannot be read, its header is wrong, or the key for PINs and PUKs cannot be opened.
pub async fn import(
    kind: Kind,
    path: &Path,
    skip_faulty: bool,
    store: &Store,
    report: &mut dyn FnMut(Report),
) -> Result<Counts, StartError> {
    let (good, faulty) = check(StockFile::open(path, kind)?, report)?;
    let mut counts = Counts {
        faulty: faulty.len() as u64,
        ..Counts::default()
    };
    if !faulty.is_empty() && !skip_faulty {
        return Ok(counts);
    }
    if kind == Kind::Sims {
        // Opens the data key: one that cannot be opened is said once, and not for every row.
        let opened = store.keyring().sign("import", "").await;
        opened.map_err(|error| StartError(with_causes(&error)))?;
    }
    let mut file = StockFile::open(path, kind)?;
    let mut faulty = faulty.into_iter().peekable();
    // They only decide when the sweeper looks at a swap that is stopped.
    let deadlines = Settings::new(|_| None).deadlines();
    let deadlines = Arc::new(deadlines.map_err(|error| StartError(error.to_string()))?);
    let (mut refused, mut swaps) = (Vec::new(), Vec::new());
    let (mut begun, mut done, mut failures) = (0, 0, 0);
    // Rows by one call, and calls under way at the same time.
    let (at_once, in_flight) = match kind {
        Kind::Sims => (SIMS_AT_ONCE, 8),
        Kind::Subscriptions => (1, 64),
    };
    let mut under_way = JoinSet::new();
    loop {
        while begun < good && under_way.len() < in_flight && failures < FAILURES_AT_MOST {
            let (mut lines, mut rows) = (Vec::new(), Vec::new());
            while begun < good && rows.len() < at_once {
                let Some(Numbered { line, row }) = file.next()? else {
                    return Err(changed(path));
                };
                if faulty.next_if_eq(&line).is_none() {
                    begun += 1;
                    lines.push(line);
                    rows.push(row.map_err(|_| changed(path))?);
                }
            }
            let (store, deadlines) = (store.clone(), deadlines.clone());
            under_way.spawn(async move {
                let outcomes = write::write(&store, &deadlines, &rows);
                (lines, outcomes.await)
            });
        }
        let Some(written) = under_way.join_next().await else {
            break;
        };
        let (lines, outcomes) = written.map_err(|error| StartError(format!("a write broke off: {error}")))?;
        done += lines.len() as u64;
        let failed = |outcome: &RowResult| matches!(outcome, RowResult::Failed(_));
        failures += u64::from(outcomes.iter().any(failed));
        for (line, outcome) in lines.into_iter().zip(outcomes) {
            match outcome {
                RowResult::Added => counts.added += 1,
                RowResult::Updated(open) => {
                    counts.updated += 1;
                    swaps.extend(told(&open).map(|told| (line, told)));
                }
                RowResult::Unchanged => counts.unchanged += 1,
                RowResult::Refused(reason) | RowResult::Failed(reason) => refused.push((line, reason)),
            }
        }
        report(Report::Written(done, good));
    }
    counts.refused = refused.len() as u64;
    counts.left = good - done;
    swaps.sort_unstable();
    for (line, told) in swaps {
        report(Report::Swap(line, told));
    }
    refused.sort_unstable();
    for (line, reason) in refused {
        report(Report::Refused(line, reason));
    }
    Ok(counts)
}

/// What an operator who bars a line has to know of its open swap.
fn told(open: &OpenSwap) -> Option<String> {
    match open {
        OpenSwap::Undisturbed => None,
        OpenSwap::Stopped(id) => Some(format!("its open swap {id} is stopped")),
        OpenSwap::GoesOn(id) => Some(format!(
            "its open swap {id} cannot be stopped any more: it ends already, or the network moves the number"
        )),
    }
}

/// How many lines are good, and the numbers of those that are not. Of two lines with the same key the later one is faulty.
fn check(mut file: StockFile, report: &mut dyn FnMut(Report)) -> Result<(u64, Vec<u64>), StartError> {
    let mut good = 0;
    let mut faulty = Vec::new();
    // Half of a SHA-256 in place of the key: the same small size for all.
    let mut seen: HashMap<[u8; 16], u32> = HashMap::new();
    while let Some(Numbered { line, row }) = file.next()? {
        let fault = match &row {
            Err(fault) => Some(fault.clone()),
            Ok(row) => duplicate(row, line, &mut seen),
        };
        match fault {
            None => good += 1,
            Some(fault) => {
                faulty.push(line);
                report(Report::Faulty(line, fault));
            }
        }
        report(Report::Checked(file.read(), file.bytes));
    }
    Ok((good, faulty))
}

fn duplicate(row: &Row, line: u64, seen: &mut HashMap<[u8; 16], u32>) -> Option<String> {
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
    // Beyond four thousand million lines only the number in a message would be wrong.
    let line = u32::try_from(line).unwrap_or(u32::MAX);
    seen.extend(keys.into_iter().map(|(_, key)| (key, line)));
    None
}

fn changed(path: &Path) -> StartError {
    StartError(format!("{} changed while it was read: start again", path.display()))
}
