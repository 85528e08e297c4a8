//! Writes rows of a stock file to the table, and returns the result of each. Concurrency is in `import.rs`.

use std::time::Duration;

use domain::{Brand, Deadlines, FormFactor, Holder, Imsi, Line, Sim, SimState, escaped};
use jiff::Timestamp;
use store::{BrandWritten, NewLine, OpenSwap, Store, StoreError, Written};

use super::row::Row;
use crate::with_causes;

/// The result of one row.
#[derive(Clone)]
pub(super) enum RowResult {
    Added,
    /// Changed, and what became of the line's open swap. The texts describe the columns that were not imported.
    Updated(OpenSwap, Vec<String>),
    /// The same texts.
    Unchanged(Vec<String>),
    /// Conflicts with what is in the table.
    Rejected(String),
    /// The call to the table failed.
    Failed(String),
}

/// Writes the rows. The results are in the order of the rows. A file contains only one kind of rows.
pub(super) async fn write(store: &Store, deadlines: &Deadlines, rows: &[Row]) -> Vec<RowResult> {
    let (mut sims, mut lines, mut results) = (Vec::new(), Vec::new(), Vec::new());
    for row in rows {
        match row {
            Row::Sim(sim) => sims.push(sim),
            Row::Line(line, locked) => lines.push((line, *locked)),
            Row::Brand(reseller, brand) => results.push(write_brand(store, reseller, brand.as_ref()).await),
        }
    }
    results.extend(write_sims(store, &sims).await);
    results.extend(write_lines(store, deadlines, &lines).await);
    results
}

async fn write_brand(store: &Store, reseller: &str, brand: Option<&Brand>) -> RowResult {
    match with_retries(|| store.set_brand(reseller, brand)).await {
        Ok(BrandWritten::New) => RowResult::Added,
        Ok(BrandWritten::Changed) => RowResult::Updated(OpenSwap::Undisturbed, Vec::new()),
        Ok(BrandWritten::Same) => RowResult::Unchanged(Vec::new()),
        Err(reason) => RowResult::Failed(reason),
    }
}

async fn write_sims(store: &Store, sims: &[&Sim]) -> Vec<RowResult> {
    let written = match with_retries(|| store.add_sims(sims)).await {
        Ok(written) => written.into_iter(),
        Err(reason) => return vec![RowResult::Failed(reason); sims.len()],
    };
    let results = sims.iter().zip(written).map(|(sim, written)| match written {
        Written::New => RowResult::Added,
        Written::Existing(before) => RowResult::Unchanged(describe_sim_differences(sim, &before)),
    });
    results.collect()
}

/// Adds the lines in one call, and updates those that exist one after the other.
async fn write_lines(store: &Store, deadlines: &Deadlines, lines: &[(&Line, Option<bool>)]) -> Vec<RowResult> {
    let new: Vec<_> = lines.iter().map(|(line, _)| (*line, current_sim(line))).collect();
    let added = match with_retries(|| store.add_lines(&new)).await {
        Ok(added) => added,
        Err(reason) => return vec![RowResult::Failed(reason); lines.len()],
    };
    let mut results = Vec::with_capacity(lines.len());
    for ((line, locked), added) in lines.iter().zip(added) {
        results.push(match added {
            NewLine::Added => RowResult::Added,
            NewLine::PhoneTaken(other) => RowResult::Rejected(format!("PHONE_NUMBER is the one of line {other}")),
            NewLine::SimTaken(sim) => RowResult::Rejected(describe_holder(&sim)),
            NewLine::Exists(before) => with_retries(|| update_line(store, deadlines, &before, line, *locked))
                .await
                .unwrap_or_else(RowResult::Failed),
        });
    }
    results
}

/// Calls the table, with some retries while it is unavailable. The error is the reason of a failure.
async fn with_retries<T, F: Future<Output = Result<T, StoreError>>>(call: impl Fn() -> F) -> Result<T, String> {
    const PAUSES: [Duration; 4] = [
        Duration::from_millis(50),
        Duration::from_millis(250),
        Duration::from_secs(1),
        Duration::from_secs(4),
    ];
    let mut pauses = PAUSES.into_iter();
    loop {
        match (call().await, pauses.next()) {
            (Err(StoreError::Unavailable(_)), Some(pause)) => tokio::time::sleep(pause).await,
            (result, _) => return result.map_err(|error| with_causes(&error)),
        }
    }
}

async fn update_line(
    store: &Store,
    deadlines: &Deadlines,
    before: &Line,
    line: &Line,
    locked: Option<bool>,
) -> Result<RowResult, StoreError> {
    let same = before.state == line.state
        && before.porting == line.porting
        && before.email == line.email
        && before.language == line.language
        && locked.is_none_or(|locked| before.locked == locked);
    // A blocked line that still has an open swap is written again, so that its swap is stopped.
    let settled = before.line_blocker().is_none() || before.open_swap.is_none();
    if same && settled {
        return Ok(RowResult::Unchanged(describe_line_differences(line, before)));
    }
    let open = store.update_line(line, locked, deadlines, Timestamp::now).await?;
    Ok(RowResult::Updated(open, describe_line_differences(line, before)))
}

/// The columns of a line that an import does not change although they differ from the table, and how to change them.
fn describe_line_differences(in_file: &Line, in_table: &Line) -> Vec<String> {
    let line_set = |option| format!("'cargo run -- line set {} --{option}' changes it", in_table.id);
    let values = |line: &Line| {
        [
            line.phone.as_e164().to_owned(),
            line.customer.clone(),
            line.reseller.clone().unwrap_or_default(),
            line.network.as_str().to_owned(),
            line.current_sim.as_str().to_owned(),
        ]
    };
    let columns = [
        ("PHONE_NUMBER", line_set("phone")),
        ("CUSTOMER", line_set("customer")),
        (
            "RESELLER",
            line_set(match in_file.reseller {
                Some(_) => "reseller",
                None => "no-reseller",
            }),
        ),
        ("NETWORK", "the network of a line cannot change".to_owned()),
        ("CURRENT_SIM", "a swap changes it".to_owned()),
    ];
    describe_differences(columns, values(in_file), values(in_table))
}

/// The columns of a SIM that differ from the table, and how to change them. PINs, PUKs and activation codes are not
/// compared.
fn describe_sim_differences(in_file: &Sim, in_table: &Sim) -> Vec<String> {
    // Removing any other SIM would forget who has it or has seen its codes.
    let is_unused = in_table.state == SimState::Free
        && in_table.holder.is_none()
        && !in_table.codes_shown
        && in_table.free_from <= Timestamp::now();
    let how = match is_unused {
        true => format!(
            "'cargo run -- sim remove {}' and another import change it",
            in_table.iccid
        ),
        false => "a SIM that is or was in use does not change".to_owned(),
    };
    let values = |sim: &Sim| {
        [
            sim.form_factor.as_str().to_owned(),
            sim.network.as_str().to_owned(),
            sim.tag.clone().unwrap_or_default(),
            sim.auto_assign.to_string(),
            sim.imsi.as_ref().map(Imsi::as_str).unwrap_or_default().to_owned(),
            sim.reseller.clone().unwrap_or_default(),
        ]
    };
    let columns = ["FORM_FACTOR", "NETWORK", "TAG", "AUTO_ASSIGN", "IMSI", "RESELLER"];
    let columns = columns.map(|column| (column, how.clone()));
    describe_differences(columns, values(in_file), values(in_table))
}

/// The columns whose values differ. Each column has a text that says how to change it.
fn describe_differences<const N: usize>(
    columns: [(&str, String); N],
    in_file: [String; N],
    in_table: [String; N],
) -> Vec<String> {
    let shown = |text: &str| match text {
        "" => "empty".to_owned(),
        text => escaped(text).into_owned(),
    };
    let values = in_file.into_iter().zip(in_table);
    let differences = columns
        .into_iter()
        .zip(values)
        .filter(|(_, (file, table))| file != table);
    differences
        .map(|((column, how), (file, table))| {
            let (file, table) = (shown(&file), shown(&table));
            format!("{column} is {file} in the file and stays {table} in the table; {how}")
        })
        .collect()
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
        None if sim.state == SimState::Free && sim.codes_shown => format!(
            "a caller has seen the codes of CURRENT_SIM; 'sim release {}' makes it available again",
            sim.iccid
        ),
        None if sim.state == SimState::Free => {
            format!("CURRENT_SIM is in stock for network {}", sim.network.as_str())
        }
        None => format!("CURRENT_SIM is {} in stock", sim.state.as_str()),
    }
}
