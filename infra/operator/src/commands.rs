//! Runs the commands: asks the operator where something is lost, calls the store, prints the result, and shows progress.
//! How a file is imported is in `import.rs`, how a record is shown in `show.rs`, how records are listed in `list.rs`, and
//! what follows from the change of a line in `line.rs`.

use std::io::{ErrorKind, Write, stderr};
use std::path::Path;

use domain::{Deadlines, Holder, Iccid, Line, SimState, escaped};
use edge::Settings;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use store::{Action, Migration, OpenSwap, Released, Store, StoredLine};

use crate::import::{self, Kind, Report};
use crate::line::{LineChange, describe, differences};
use crate::list::{self, LineFilter, Listed, SimFilter, SwapFilter};
use crate::progress::Progress;
use crate::replay::{DeadLetterQueue, replay};
use crate::show::{find_line, table_error};
use crate::{CommandError, consent, show};

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

/// What `list` prints.
#[derive(Debug)]
pub enum Records {
    /// Lines.
    Lines(LineFilter),
    /// SIMs.
    Sims(SimFilter),
    /// Swaps.
    Swaps(SwapFilter),
}

/// Imports a file, or standard input if the path is `-`. Prints faulty and rejected lines and warnings on standard
/// error, and the counts on standard output.
///
/// # Errors
/// When the table or the file cannot be used, when a line is faulty and `skip_faulty` is not set, or when the table
/// rejected a line.
pub async fn import(store: &Store, kind: Kind, file: &Path, skip_faulty: bool) -> Result<(), CommandError> {
    let mut progress = Progress::new();
    let name = import::name(file);
    let counts = import::import(kind, file, skip_faulty, store, &mut |report| match report {
        Report::Checked(bytes, of) => progress.update("checked", bytes, of),
        Report::Written(rows, of) => progress.update("written", rows, of),
        Report::Faulty(line, reason) | Report::Swap(line, reason) | Report::Rejected(line, reason) => {
            progress.print_line(&format!("{name}:{line}: {reason}"));
        }
        Report::Warning(line, text) => progress.print_line(&format!("{name}:{line}: warning: {text}")),
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

/// Prints one record, with its secrets masked and its times in this zone.
///
/// # Errors
/// When the table cannot be read, or has no such record.
pub async fn show(store: &Store, zone: &TimeZone, record: Record<'_>) -> Result<(), CommandError> {
    let text = match record {
        Record::Swap(id) => show::swap(store, zone, id).await?,
        Record::Line(name) => show::line(store, zone, name).await?,
        Record::Sim(iccid) => show::sim(store, zone, iccid).await?,
    };
    print(&text)
}

/// Prints up to `limit` records, with their times in this zone. Says on standard error if there are more, so that the
/// output has only records.
///
/// # Errors
/// When the table cannot be read.
pub async fn list(store: &Store, zone: &TimeZone, records: &Records, limit: usize) -> Result<(), CommandError> {
    let Listed { text, has_more } = match records {
        Records::Lines(filter) => list::lines(store, filter, limit).await?,
        Records::Sims(filter) => list::sims(store, zone, filter, limit).await?,
        Records::Swaps(filter) => list::swaps(store, zone, filter, limit).await?,
    };
    print(&text)?;
    if has_more {
        // If standard error is closed, there is no one to tell.
        let _ = writeln!(stderr(), "there are more than {limit}; --limit N lists more of them");
    }
    Ok(())
}

/// Changes a line, found by its id or its phone number. With `yes`, the operator is not asked.
///
/// # Errors
/// When the operator does not agree, when the change is not possible, or when the table cannot be used.
pub async fn set_line(store: &Store, name: &str, change: &LineChange, yes: bool) -> Result<(), CommandError> {
    store.check_written_form().await.map_err(table_error)?;
    let before = existing_line(store, name).await?;
    let after = change.apply(&before)?;
    let id = &before.id;
    let differences = differences(&before, &after);
    if differences.is_empty() {
        return print(&format!("line {id} has these values already\n"));
    }
    let taken_by = match store.phone(&after.phone).await.map_err(table_error)? {
        Some(entry) if entry.subscription != *id => Some(entry.subscription),
        _ => None,
    };
    if let Some(other) = taken_by {
        return Err(CommandError(format!(
            "{} is the number of line {other}",
            after.phone.as_e164()
        )));
    }
    let mut text = String::new();
    for (what, was, is) in &differences {
        text += &format!("{what}: {} → {}\n", escaped(was), escaped(is));
    }
    consent::ask(&format!("line {id}\n{text}Change it?"), yes)?;
    let action = action(describe(&differences));
    let changed = store
        .change_line(&before, &after, &action, &deadlines()?, Timestamp::now)
        .await;
    let Some(open) = changed.map_err(table_error)? else {
        return Err(changed_meanwhile("line", id.as_str()));
    };
    let swap = match open {
        OpenSwap::Undisturbed => String::new(),
        OpenSwap::Stopped(swap) => format!("its open swap {swap} is stopped\n"),
        OpenSwap::GoesOn(swap) => format!("its open swap {swap} cannot be stopped any more\n"),
    };
    print(&format!("line {id} is changed\n{text}{swap}"))
}

/// Removes a line, found by its id or its phone number. With `yes`, the operator is not asked.
///
/// # Errors
/// When the operator does not agree, when the line has an open swap, or when the table cannot be used.
pub async fn remove_line(store: &Store, name: &str, yes: bool) -> Result<(), CommandError> {
    let line = existing_line(store, name).await?;
    let (id, phone, sim) = (&line.id, line.phone.as_e164(), &line.current_sim);
    if let Some(open) = &line.open_swap {
        return Err(CommandError(format!(
            "line {id} has the open swap {open}; cancel the swap, or wait for its end"
        )));
    }
    let what = format!("line {id} with number {phone}, customer {}", escaped(&line.customer));
    consent::ask(&format!("Remove {what}, and disable its SIM {sim}?"), yes)?;
    let action = action(format!("removed with number {phone} and SIM {sim}"));
    match store
        .remove_line(&line, &action, &deadlines()?)
        .await
        .map_err(table_error)?
    {
        true => print(&format!("{what} is removed, and its SIM {sim} is disabled\n")),
        false => Err(changed_meanwhile("line", id.as_str())),
    }
}

/// Removes a SIM that no swap and no line has. With `yes`, the operator is not asked.
///
/// # Errors
/// When the operator does not agree, when a swap or line has the SIM, or when the table cannot be used.
pub async fn remove_sim(store: &Store, name: &str, yes: bool) -> Result<(), CommandError> {
    let unknown = || CommandError::unknown_sim(name);
    let iccid = Iccid::parse(name).map_err(|_| unknown())?;
    let sim = store.sim(&iccid).await.map_err(table_error)?.ok_or_else(unknown)?;
    let state = sim.state.as_str();
    let dependent = match &sim.holder {
        None => None,
        Some(Holder::Swap(swap)) => Some(format!(
            "is reserved by swap {swap}; cancel the swap, or wait for its end"
        )),
        Some(Holder::Line(line)) if sim.state == SimState::Free => Some(format!(
            "is kept for line {line}; 'sim release {iccid}' makes it available to every line"
        )),
        Some(Holder::Line(line)) => Some(format!(
            "is the current SIM of line {line}; swap or remove the line first"
        )),
    };
    if let Some(reason) = dependent {
        return Err(CommandError(format!("SIM {iccid} {reason}")));
    }
    consent::ask(
        &format!("Remove SIM {iccid}, which is {state}, with its PINs and PUKs?"),
        yes,
    )?;
    let action = action(format!("removed, was {state}"));
    match store
        .remove_sim(&sim, &action, &deadlines()?)
        .await
        .map_err(table_error)?
    {
        true => print(&format!("SIM {iccid} is removed; its state was {state}\n")),
        false => Err(changed_meanwhile("SIM", iccid.as_str())),
    }
}

/// Prints the public key that encrypts secret fields, for the setting `SEALING_KEY`. Creates the first data key.
///
/// # Errors
/// When the table or KMS cannot be used.
pub async fn sealing_key(store: &Store) -> Result<(), CommandError> {
    store.record_form_of_new_table().await.map_err(table_error)?;
    let sealing_key = store.keyring().newest_sealing_key().await.map_err(table_error)?;
    print(&format!("{sealing_key}\n"))
}

/// Adds a data key, and prints its public key, with which secret fields are encrypted once the functions have it.
///
/// # Errors
/// When the table or KMS cannot be used, or when KMS cannot unwrap the new key, which is not written then.
pub async fn rotate_key(store: &Store) -> Result<(), CommandError> {
    let sealing_key = store.keyring().rotate().await.map_err(table_error)?;
    print(&format!(
        "data key {} is added; functions encrypt with it once SEALING_KEY is {sealing_key}, and older keys still \
         decrypt\n",
        sealing_key.number()
    ))
}

/// Wraps the data keys with another master key of KMS. With `finish`, the earlier one is no longer needed.
///
/// # Errors
/// When the table cannot be used, or KMS rejects one of the master keys. The command can then be repeated.
pub async fn rewrap_keys(store: &Store, to: &str, finish: bool) -> Result<(), CommandError> {
    let keyring = store.keyring();
    print(&match finish {
        false => {
            let keys = keyring.rewrap(to).await.map_err(table_error)?;
            format!("both master keys unwrap the data keys: {keys}\n")
        }
        true => {
            let keys = keyring.finish_rewrap(to).await.map_err(table_error)?;
            format!("only {to} unwraps the data keys: {keys}\n")
        }
    })
}

/// Brings the table to the form of this release. With `finish`, also deletes what only earlier releases read.
///
/// # Errors
/// When the table cannot be used. The command can then be repeated.
pub async fn migrate(store: &Store, finish: bool) -> Result<(), CommandError> {
    let mut progress = Progress::new();
    let mut index = "";
    let mut show = |migration| match migration {
        Migration::Index(name) if name != index => {
            index = name;
            progress.print_line(&format!("changing the index {name}"));
        }
        Migration::Index(_) => {}
        Migration::Rows(read, of) => progress.update("rows", read, of),
        Migration::Unreadable(key, attribute) => {
            progress.print_line(&format!(
                "the row {key} is not migrated: {attribute} is missing or malformed"
            ));
        }
    };
    let changed = match finish {
        false => store.migrate(&mut show).await,
        true => store.finish_migration(&mut show).await,
    };
    let changed = changed.map_err(table_error)?;
    progress.clear();
    print(&format!("the table is migrated; rows changed: {changed}\n"))
}

/// Replays the messages of the dead-letter queue.
///
/// # Errors
/// When the queue or a function cannot be used, or when a message is not known.
pub async fn replay_dead_letters(queue: &DeadLetterQueue) -> Result<(), CommandError> {
    let progress = Progress::new();
    let replayed = replay(queue, Timestamp::now(), &mut |line| progress.print_line(line)).await?;
    progress.clear();
    print(&format!(
        "{} invoked again, {} deleted, {} left\n",
        replayed.invoked, replayed.deleted, replayed.left
    ))?;
    match replayed.left {
        0 => Ok(()),
        left => Err(CommandError(format!(
            "messages of an unknown kind in the queue: {left}"
        ))),
    }
}

/// Makes a free SIM whose PINs and PUKs a caller has seen available to every line again.
///
/// # Errors
/// When the table cannot be used, or the SIM is not free.
pub async fn release(store: &Store, name: &str) -> Result<(), CommandError> {
    let unknown = || CommandError::unknown_sim(name);
    let iccid = Iccid::parse(name).map_err(|_| unknown())?;
    let action = action("released".to_owned());
    let released = store.release_sim(&iccid, &action, &deadlines()?).await;
    match released.map_err(|error| CommandError::with_causes(&error))? {
        Released::Free => print(&format!("{iccid} is kept for no line any more\n")),
        Released::NotFree(sim) => Err(CommandError(format!(
            "{iccid} is {}; only a free SIM can be released",
            sim.state.as_str()
        ))),
        Released::Unknown => Err(unknown()),
    }
}

fn print(text: &str) -> Result<(), CommandError> {
    let mut out = std::io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // The reader, for example `head`, has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|error| CommandError(format!("standard output: {error}"))),
    }
}

async fn existing_line(store: &Store, name: &str) -> Result<Line, CommandError> {
    let found = find_line(store, name).await?;
    let StoredLine { line, .. } = found.ok_or_else(|| CommandError::unknown_line(name))?;
    Ok(line)
}

/// The record of what the operator does now.
fn action(what: String) -> Action {
    let name = ["USER", "USERNAME"]
        .into_iter()
        .find_map(|variable| std::env::var(variable).ok());
    Action {
        at: Timestamp::now(),
        by: name.unwrap_or_else(|| "unknown".to_owned()),
        what,
    }
}

/// They decide only when the sweeper wakes a stopped swap, and when the record of an action is deleted (`RECORDS_KEPT`).
fn deadlines() -> Result<Deadlines, CommandError> {
    let deadlines = Settings::from_environment().deadlines();
    deadlines.map_err(|error| CommandError(error.to_string()))
}

fn changed_meanwhile(what: &str, name: &str) -> CommandError {
    CommandError(format!(
        "{what} {name} changed in the meantime, and stays as it is; run the command again"
    ))
}
