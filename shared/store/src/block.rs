//! Changes the attributes of a line that an operator may change. If the line can no longer be swapped afterwards, its
//! open swap is stopped in the same transaction.

use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_dynamodb::types::builders::UpdateBuilder;
use domain::{Activation, ActivationId, Deadlines, EmailAddress, Fact, FailureCode, Line, apply};
use jiff::Timestamp;

use crate::advance::next_row;
use crate::attributes::text;
use crate::transaction::{put, update};
use crate::{Store, StoreError, StoredSwap, keys};

/// What [`Store::update_line`] did to the line's open swap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenSwap {
    /// Nothing: the line has no open swap, or it can be swapped.
    Undisturbed,
    /// The swap is stopped; the line keeps its SIM.
    Stopped(ActivationId),
    /// The swap continues: it is ending already, or a call that lets the network move the number may have been made.
    GoesOn(ActivationId),
}

impl Store {
    /// Writes the state, porting, e-mail address and language of an existing line, and the lock unless `locked` is
    /// `None`. Two calls, or three if the line has an open swap and cannot be swapped.
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
            let (Some(bar), Some(open)) = (after.line_blocker(), &after.open_swap) else {
                if self.write_line(&before, &after, None).await? {
                    return Ok(OpenSwap::Undisturbed);
                }
                continue;
            };
            let swap = self.swap(open).await?;
            let swap = swap.ok_or(StoreError::Corrupt("swap"))?;
            let blocked = Fact::LineBlocked(bar);
            let stopped = apply(&swap.activation, &blocked, deadlines, now()).ok();
            let swap_change = stopped.as_ref().map(|stopped| (&swap, stopped));
            if self.write_line(&before, &after, swap_change).await? {
                let open = open.clone();
                // The swap as it is stored may be stopped already, by an earlier attempt of the SDK.
                let swap = stopped.as_ref().unwrap_or(&swap.activation);
                return Ok(if swap.failure == Some(FailureCode::Stopped) {
                    OpenSwap::Stopped(open)
                } else {
                    OpenSwap::GoesOn(open)
                });
            }
        }
    }

    /// Writes a line and, if given, its stopped swap. Returns `false`, and writes nothing, if either has changed since
    /// it was read.
    async fn write_line(
        &self,
        before: &Line,
        after: &Line,
        stopped: Option<(&StoredSwap, &Activation)>,
    ) -> Result<bool, StoreError> {
        let mut writes = vec![update(self.set_line(before, after))?];
        if let Some((swap, stopped)) = stopped {
            let row = next_row(swap, stopped);
            writes.push(put(self.put_next_version(row, swap.activation.version))?);
        }
        Ok(self.transact(writes).await?.is_none())
    }

    fn set_line(&self, before: &Line, line: &Line) -> UpdateBuilder {
        let mut set = "SET #state = :state, porting = :porting, locked = :locked, \
                       #language = :language"
            .to_owned();
        let mut change = self
            .update_row(keys::line_key(&line.id))
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
        // The condition prevents that this write reverts a concurrent change.
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
        change.update_expression(set).condition_expression(condition)
    }
}
