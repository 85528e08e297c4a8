//! Writes lines of a stock file to the table, and tells what became of each. How many at a time is in `import.rs`.

use std::fmt::Write;
use std::time::Duration;

use domain::{Deadlines, FormFactor, Holder, Line, Sim, SimState};
use jiff::Timestamp;
use store::{NewLine, OpenSwap, Store, StoreError, Written};

use super::row::Row;

/// What became of a line of the file.
pub(super) enum RowResult {
    Added,
    /// And what became of the line's open swap.
    Updated(OpenSwap),
    Unchanged,
    /// What is in the table stands in its way.
    Refused(String),
    /// The table did not take the call.
    Failed(String),
}

/// Writes them, and comes back for a while to a table that is not available. The outcomes are in the rows' order.
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
            (Ok(outcomes), _) => return outcomes,
            (Err(StoreError::Unavailable(_)), Some(pause)) => tokio::time::sleep(pause).await,
            (Err(error), _) => {
                let failed = |_| RowResult::Failed(with_causes(&error));
                return rows.iter().map(failed).collect();
            }
        }
    }
}

/// SIMs by one call, lines one after the other. A file holds one of the two.
async fn write_once(store: &Store, deadlines: &Deadlines, rows: &[Row]) -> Result<Vec<RowResult>, StoreError> {
    let mut sims = Vec::new();
    let mut outcomes = Vec::new();
    for row in rows {
        match row {
            Row::Sim(sim) => sims.push(sim),
            Row::Line(line, locked) => {
                outcomes.push(write_line(store, deadlines, line, *locked).await?);
            }
        }
    }
    let written = store.add_sims(&sims).await?.into_iter();
    outcomes.extend(written.map(|sim| match sim {
        Written::New => RowResult::Added,
        Written::Existing => RowResult::Unchanged,
    }));
    Ok(outcomes)
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
            return Ok(RowResult::Refused(reason));
        }
        NewLine::SimTaken(sim) => return Ok(RowResult::Refused(taken(&sim))),
        NewLine::Exists(before) => before,
    };
    let same = before.state == line.state
        && before.porting == line.porting
        && before.email == line.email
        && before.language == line.language
        && locked.is_none_or(|locked| before.locked == locked);
    // One that is barred and has an open swap still is to have it stopped.
    let settled = before.bar().is_none() || before.open_swap.is_none();
    if same && settled {
        return Ok(RowResult::Unchanged);
    }
    let open = store.update_line(line, locked, deadlines, Timestamp::now);
    Ok(RowResult::Updated(open.await?))
}

/// The SIM of a line that is not in stock. The file does not say its form, so it is the card that fits every phone.
fn current_sim(line: &Line) -> Sim {
    Sim {
        iccid: line.current_sim.clone(),
        imsi: None,
        network: line.network.clone(),
        reseller: line.reseller.clone(),
        form_factor: FormFactor::MiniMicroNano,
        auto_assign: false,
        state: SimState::Activated,
        free_from: Timestamp::UNIX_EPOCH,
        holder: None,
        pin1: None,
        pin2: None,
        puk1: None,
        puk2: None,
        supplier_code: None,
        tag: None,
        codes_shown: false,
    }
}

fn taken(sim: &Sim) -> String {
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

/// An error of the table with its causes: an operator has no other log.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}
