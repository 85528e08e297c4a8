//! Changes what an operator may change of a line, for whoever asks it. What bars the line from swaps stops its open swap in
//! the same transaction.

use aws_sdk_dynamodb::types::{AttributeValue, Update};
use domain::{Activation, ActivationId, Deadlines, EmailAddress, Fact, FailureCode, Line, apply};
use jiff::Timestamp;

use crate::advance::next_row;
use crate::item;
use crate::transaction::{put, text, update};
use crate::{Store, StoreError, StoredSwap};

/// What became of the line's open swap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenSwap {
    /// There is none, or the line is not barred.
    Undisturbed,
    /// It ends; the old SIM stays.
    Stopped(ActivationId),
    /// It ends already, or the network has been told to move the number.
    GoesOn(ActivationId),
}

impl Store {
    /// Writes state, porting, e-mail and language of a line that exists, and the lock if one is given. Two calls, one more
    /// if a swap is stopped.
    pub async fn update_line(
        &self,
        line: &Line,
        locked: Option<bool>,
        deadlines: &Deadlines,
        now: impl Fn() -> Timestamp,
    ) -> Result<OpenSwap, StoreError> {
        loop {
            let before = self.line(&line.id).await?;
            let before = before.ok_or(StoreError::Corrupt("line"))?.line;
            let after = Line {
                locked: locked.unwrap_or(before.locked),
                open_swap: before.open_swap.clone(),
                ..line.clone()
            };
            let (Some(bar), Some(open)) = (after.bar(), &after.open_swap) else {
                if self.write_line(&before, &after, None).await? {
                    return Ok(OpenSwap::Undisturbed);
                }
                continue;
            };
            let swap = self.swap(open).await?;
            let swap = swap.ok_or(StoreError::Corrupt("swap"))?;
            let barred = Fact::LineBlocked(bar);
            let stopped = apply(&swap.activation, &barred, deadlines, now()).ok();
            let row = stopped.as_ref().map(|stopped| (&swap, stopped));
            if self.write_line(&before, &after, row).await? {
                let open = open.clone();
                // A retry inside the SDK meets what its first try wrote.
                let now = stopped.as_ref().unwrap_or(&swap.activation);
                return Ok(if now.failure == Some(FailureCode::Stopped) {
                    OpenSwap::Stopped(open)
                } else {
                    OpenSwap::GoesOn(open)
                });
            }
        }
    }

    /// Whether it is written: line and swap are as they were read.
    async fn write_line(
        &self,
        before: &Line,
        after: &Line,
        stopped: Option<(&StoredSwap, &Activation)>,
    ) -> Result<bool, StoreError> {
        let mut writes = vec![update(self.set_line(before, after)?)];
        if let Some((swap, stopped)) = stopped {
            let row = next_row(swap, stopped);
            writes.push(put(self.put_in_transaction(row, swap.activation.version)?));
        }
        Ok(self.transact(writes).await?.is_none())
    }

    fn set_line(&self, before: &Line, line: &Line) -> Result<Update, StoreError> {
        let mut set = "SET #state = :state, porting = :porting, locked = :locked, \
                       #language = :language"
            .to_owned();
        let mut change = Update::builder()
            .table_name(&self.table)
            .set_key(Some(item::line_key(&line.id)))
            .expression_attribute_names("#state", "state")
            .expression_attribute_names("#language", "language")
            .expression_attribute_values(":state", text(line.state.as_str()))
            .expression_attribute_values(":porting", AttributeValue::Bool(line.porting))
            .expression_attribute_values(":locked", AttributeValue::Bool(line.locked))
            .expression_attribute_values(":language", text(line.language.as_str()));
        match line.email.as_ref().map(EmailAddress::as_str) {
            Some(email) => {
                set += ", email = :email";
                change = change.expression_attribute_values(":email", text(email));
            }
            None => set += " REMOVE email",
        }
        // What others set meanwhile is not set back.
        let mut condition = "#state = :was AND porting = :ported AND locked = :kept".to_owned();
        change = change
            .expression_attribute_values(":was", text(before.state.as_str()))
            .expression_attribute_values(":ported", AttributeValue::Bool(before.porting))
            .expression_attribute_values(":kept", AttributeValue::Bool(before.locked));
        if let Some(open) = &before.open_swap {
            condition += " AND swap = :swap";
            change = change.expression_attribute_values(":swap", text(open.as_str()));
        } else {
            condition += " AND attribute_not_exists(swap)";
        }
        change
            .update_expression(set)
            .condition_expression(condition)
            .build()
            .map_err(|error| StoreError::Refused(error.into()))
    }
}
