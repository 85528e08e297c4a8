//! What operators do to a single line or SIM by hand: changes and removals, each with a record of who did it. Imports
//! are in `stock` and `block`, and releases in `stock`.

use aws_sdk_dynamodb::types::builders::DeleteBuilder;
use aws_sdk_dynamodb::types::{AttributeValue, Delete, TransactWriteItem};
use domain::{Deadlines, Iccid, Line, Sim, SimState, SubscriptionId, SwapKind};
use jiff::Timestamp;

use crate::attributes::{Item, Row, RowBuilder, text};
use crate::block::{Unchanged, unchanged};
use crate::transaction::{delete, put, update};
use crate::{OpenSwap, Store, StoreError, keys, rows};

/// What an operator did to a line or a SIM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// When.
    pub at: Timestamp,
    /// The operator's name on the machine that ran the command.
    pub by: String,
    /// What was done, in words.
    pub what: String,
}

impl Store {
    /// Replaces a line, and records the action. If the line can no longer be swapped, its open swap is stopped. The
    /// phone number's row changes in the same transaction. A SIM that the line no longer keeps stays free, in no pool,
    /// because a caller has seen its codes. Returns `None`, and writes nothing, if the line has changed since it was
    /// read, or another line has the phone number.
    pub async fn change_line(
        &self,
        before: &Line,
        after: &Line,
        action: &Action,
        deadlines: &Deadlines,
        now: impl Fn() -> Timestamp,
    ) -> Result<Option<OpenSwap>, StoreError> {
        let mut writes = vec![put(self.put_row(action_row(
            keys::line_pk(&before.id),
            action,
            deadlines,
        )))?];
        if before.phone != after.phone {
            writes.push(delete(self.delete_phone(before))?);
            writes.push(put(self.put_new_row(rows::from_phone(after)))?);
        } else if before.customer != after.customer || before.reseller != after.reseller {
            let phone = self
                .put_row(rows::from_phone(after))
                .condition_expression("line = :line");
            let line = text(before.id.as_str());
            writes.push(put(phone.expression_attribute_values(":line", line))?);
        }
        for kind in [SwapKind::Esim, SwapKind::Physical] {
            if let (Some(kept), None) = (before.kept_sim(kind), after.kept_sim(kind)) {
                writes.push(self.let_go(&kept.iccid, &before.id)?);
            }
        }
        self.replace_line(before, after, writes, deadlines, &now).await
    }

    /// Removes a line, and records the action. Its phone number may be used again, its current SIM is disabled, and SIMs
    /// that were kept for it stay free, in no pool. Returns `false`, and writes nothing, if the line has changed since it
    /// was read, or has an open swap.
    pub async fn remove_line(&self, line: &Line, action: &Action, deadlines: &Deadlines) -> Result<bool, StoreError> {
        if line.open_swap.is_some() {
            return Ok(false);
        }
        let Unchanged {
            condition,
            names,
            values,
        } = unchanged(line);
        let row = self
            .delete_row(keys::line_key(&line.id))
            .condition_expression(condition)
            .set_expression_attribute_names(Some(names))
            .set_expression_attribute_values(Some(values));
        let current_sim = self
            .update_row(keys::sim_key(&line.current_sim))
            .update_expression("SET #state = :disabled REMOVE holder")
            .condition_expression("holder = :line")
            .expression_attribute_names("#state", "state")
            .expression_attribute_values(":disabled", text(SimState::Disabled.as_str()))
            .expression_attribute_values(":line", text(keys::line_holder(&line.id)));
        let mut writes = vec![
            delete(row)?,
            delete(self.delete_phone(line))?,
            update(current_sim)?,
            put(self.put_row(action_row(keys::line_pk(&line.id), action, deadlines)))?,
        ];
        for kept in [&line.kept_card, &line.kept_esim].into_iter().flatten() {
            writes.push(self.let_go(&kept.iccid, &line.id)?);
        }
        Ok(self.transact(writes).await?.is_none())
    }

    /// Removes a SIM that no swap and no line has, and records the action. Returns `false`, and writes nothing, if the
    /// SIM has changed since it was read, or has a holder.
    pub async fn remove_sim(&self, sim: &Sim, action: &Action, deadlines: &Deadlines) -> Result<bool, StoreError> {
        let row = self
            .delete_row(keys::sim_key(&sim.iccid))
            .condition_expression("attribute_not_exists(holder) AND #state = :state")
            .expression_attribute_names("#state", "state")
            .expression_attribute_values(":state", text(sim.state.as_str()));
        let record = action_row(keys::sim_pk(&sim.iccid), action, deadlines);
        let written = self.transact(vec![delete(row)?, put(self.put_row(record))?]).await?;
        Ok(written.is_none())
    }

    /// The last actions of operators on a line, newest first. One call.
    pub async fn line_actions(&self, id: &SubscriptionId, at_most: i32) -> Result<Vec<Action>, StoreError> {
        self.actions(keys::line_pk(id), at_most).await
    }

    /// The last actions of operators on a SIM, newest first. One call.
    pub async fn sim_actions(&self, iccid: &Iccid, at_most: i32) -> Result<Vec<Action>, StoreError> {
        self.actions(keys::sim_pk(iccid), at_most).await
    }

    async fn actions(&self, pk: String, at_most: i32) -> Result<Vec<Action>, StoreError> {
        let page = self
            .dynamodb
            .query()
            .table_name(&self.table)
            .key_condition_expression("pk = :pk AND begins_with(sk, :action)")
            .expression_attribute_values(":pk", text(pk))
            .expression_attribute_values(":action", text(keys::ACTION))
            .scan_index_forward(false)
            .limit(at_most)
            .consistent_read(true)
            .send()
            .await?;
        let rows = page.items().iter().map(Row);
        rows.map(|row| {
            Ok(Action {
                at: row.time("at")?,
                by: row.text("by")?.to_owned(),
                what: row.text("what")?.to_owned(),
            })
        })
        .collect()
    }

    /// Ends that a SIM is kept for a line. Its codes were shown, so it joins no pool.
    fn let_go(&self, iccid: &Iccid, line: &SubscriptionId) -> Result<TransactWriteItem, StoreError> {
        update(
            self.update_row(keys::sim_key(iccid))
                .update_expression("SET codesShown = :shown REMOVE holder")
                .condition_expression("#state = :free AND holder = :line")
                .expression_attribute_names("#state", "state")
                .expression_attribute_values(":shown", AttributeValue::Bool(true))
                .expression_attribute_values(":free", text(SimState::Free.as_str()))
                .expression_attribute_values(":line", text(keys::line_holder(line))),
        )
    }

    fn delete_phone(&self, line: &Line) -> DeleteBuilder {
        self.delete_row(keys::phone_key(&line.phone))
            .condition_expression("line = :line")
            .expression_attribute_values(":line", text(line.id.as_str()))
    }

    fn delete_row(&self, key: Item) -> DeleteBuilder {
        Delete::builder().table_name(&self.table).set_key(Some(key))
    }
}

/// The record of an action. DynamoDB deletes it after `RECORDS_KEPT`, as the data of a swap that ended at the same time.
pub(crate) fn action_row(pk: String, action: &Action, deadlines: &Deadlines) -> Item {
    RowBuilder::new(keys::action_key(pk, action.at))
        .time("at", action.at)
        .text("by", &action.by)
        .text("what", &action.what)
        .number("expires", (action.at + deadlines.records_kept).as_second())
        .0
}
