//! Writes rows of a stock file to the table, and returns the result of each. Concurrency is in `import.rs`.

use std::time::Duration;

use domain::{Deadlines, FormFactor, Holder, Line, Sim, SimState};
use jiff::Timestamp;
use store::{NewLine, OpenSwap, Store, StoreError, Written};

use super::row::Row;
use crate::with_causes;

/// The result of one row.
pub(super) enum RowResult {
    Added,
    /// Changed, and what became of the line's open swap.
    Updated(OpenSwap),
    Unchanged,
    /// Conflicts with what is in the table.
    Rejected(String),
    /// The call to the table failed.
    Failed(String),
}

/// Writes the rows, with some retries while the table is unavailable. The results are in the order of the rows.
pub(super) async fn write(store: &Store, deadlines: &Deadlines, rows: &[Row]) -> Vec<RowResult> {
    const PAUSES: [Duration; 4] = [
        Duration::from_millis(50),
        Duration::from_millis(250),
        Duration::from_secs(1),
        Duration::from_secs(4),
    ];
    let mut pauses = PAUSES.into_iter();
    loop {
        match (write_once(store, deadlines, rows).await, pauses.next()) {
            (Ok(results), _) => return results,
            (Err(StoreError::Unavailable(_)), Some(pause)) => tokio::time::sleep(pause).await,
            (Err(error), _) => {
                let failed = |_| RowResult::Failed(with_causes(&error));
                return rows.iter().map(failed).collect();
            }
        }
    }
}

/// Writes SIMs in one call, and lines one after the other. A file contains only one of the two.
async fn write_once(store: &Store, deadlines: &Deadlines, rows: &[Row]) -> Result<Vec<RowResult>, StoreError> {
    let mut sims = Vec::new();
    let mut results = Vec::new();
    for row in rows {
        match row {
            Row::Sim(sim) => sims.push(sim),
            Row::Line(line, locked) => {
                results.push(write_line(store, deadlines, line, *locked).await?);
            }
        }
    }
    let written = store.add_sims(&sims).await?.into_iter();
    results.extend(written.map(|sim| match sim {
        Written::New => RowResult::Added,
        Written::Existing => RowResult::Unchanged,
    }));
    Ok(results)
}

async fn write_line(
    store: &Store,
    deadlines: &Deadlines,
    line: &Line,
    locked: Option<bool>,
) -> Result<RowResult, StoreError> {
    let before = match store.add_line(line, current_sim(line)).await? {
        NewLine::Added => return Ok(RowResult::Added),
        NewLine::PhoneTaken(other) => {
            let reason = format!("PHONE_NUMBER is the one of line {other}");
            return Ok(RowResult::Rejected(reason));
        }
        NewLine::SimTaken(sim) => return Ok(RowResult::Rejected(describe_holder(&sim))),
        NewLine::Exists(before) => before,
    };
    let same = before.state == line.state
        && before.porting == line.porting
        && before.email == line.email
        && before.language == line.language
        && locked.is_none_or(|locked| before.locked == locked);
    // A blocked line that still has an open swap is written again, so that its swap is stopped.
    let settled = before.line_blocker().is_none() || before.open_swap.is_none();
    if same && settled {
        return Ok(RowResult::Unchanged);
    }
    let open = store.update_line(line, locked, deadlines, Timestamp::now);
    Ok(RowResult::Updated(open.await?))
}

/// The current SIM of a line, if the table does not have it yet. The file does not contain its form factor, so it
/// becomes the card that fits every phone.
fn current_sim(line: &Line) -> Sim {
    Sim {
        reseller: line.reseller.clone(),
        state: SimState::Activated,
        ..Sim::free(
            line.current_sim.clone(),
            line.network.clone(),
            FormFactor::MiniMicroNano,
        )
    }
}

/// Why the SIM cannot become the line's SIM.
fn describe_holder(sim: &Sim) -> String {
    match &sim.holder {
        Some(Holder::Line(line)) if sim.state == SimState::Free => {
            format!("CURRENT_SIM is kept for line {line}")
        }
        Some(Holder::Line(line)) => format!("CURRENT_SIM is the one of line {line}"),
        Some(Holder::Swap(swap)) => format!("CURRENT_SIM is reserved by swap {swap}"),
        None if sim.state == SimState::Free => {
            format!("CURRENT_SIM is in stock for network {}", sim.network.as_str())
        }
        None => format!("CURRENT_SIM is {} in stock", sim.state.as_str()),
    }
}
