//! Moves of a swap that stands: each is conditioned on the version that was read.

use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::types::builders::UpdateBuilder;
use aws_sdk_dynamodb::types::{AttributeValue, Put, ReturnValuesOnConditionCheckFailure, TransactWriteItem, Update};
use domain::{Activation, Delivery, Sim, SimFate, SimState};

use jiff::Timestamp;

use crate::item::{self, Item};
use crate::transaction::{TRIES, failed, pause, put, text, update};
use crate::{Store, StoreError, StoredSwap, SwapSecrets};

/// What became of a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Saved {
    /// It stands.
    Written,
    /// Somebody moved first: read again.
    Stale,
    /// The swap is as it was read, but the line or a SIM is not what it has to be.
    Contradicted,
}

impl Store {
    /// Writes what a fact made of a swap.
    pub async fn save(&self, before: &StoredSwap, after: &Activation) -> Result<Saved, StoreError> {
        self.put_version(next_row(before, after), before.activation.version)
            .await
    }

    /// Writes that a swap's secrets are erased.
    pub async fn save_erased(&self, before: &StoredSwap, after: &Activation) -> Result<Saved, StoreError> {
        let bare = StoredSwap {
            secrets: SwapSecrets::default(),
            ..before.clone()
        };
        self.save(&bare, after).await
    }

    /// Writes a swap and its mails without whatever names a person.
    pub async fn save_anonymous(&self, before: &StoredSwap, after: &Activation) -> Result<Saved, StoreError> {
        let bare = StoredSwap {
            caller: String::new(),
            secrets: SwapSecrets::default(),
            ..before.clone()
        };
        let row = next_row(&bare, after);
        let mut writes = vec![put(self.put_in_transaction(row.clone(), before.activation.version)?)];
        for mail in &before.deliveries {
            let mail_row = item::from_delivery(&mail.anonymised());
            writes.push(put(self.put_in_transaction(mail_row, mail.version)?));
        }
        Ok(match self.commit(row, writes).await? {
            // A mail that was reported on meanwhile: all is read again.
            Saved::Contradicted => Saved::Stale,
            saved => saved,
        })
    }

    /// Writes what a fact made of a swap, and with it a mail that is to be sent.
    pub async fn save_with_mail(
        &self,
        before: &StoredSwap,
        after: &Activation,
        mail: &Delivery,
    ) -> Result<Saved, StoreError> {
        let row = next_row(before, after);
        let mail = Put::builder()
            .table_name(&self.table)
            .set_item(Some(item::from_delivery(mail)))
            .condition_expression("attribute_not_exists(pk)")
            .build()
            .map_err(|error| StoreError::Refused(error.into()))?;
        let swap = self.put_in_transaction(row.clone(), before.activation.version)?;
        refuse_contradiction(self.commit(row, vec![put(swap), put(mail)]).await?)
    }

    /// Writes that a swap ended well: the line is on the new SIM and free for another swap, the old SIM is used up.
    pub async fn finish_done(&self, before: &StoredSwap, after: &Activation) -> Result<Saved, StoreError> {
        let line = self
            .move_line(
                after,
                ", lastSwap = swap, lastCaller = swapCaller, lastRequest = swapRequest",
                "swap, swapCaller, swapRequest",
            )
            .condition_expression("swap = :swap AND sim = :old")
            .expression_attribute_values(":swap", text(after.id.as_str()));
        let new_sim = self
            .activate_new_sim(after)
            .condition_expression("holder = :swap")
            .expression_attribute_values(":swap", text(item::activation_pk(&after.id)));
        let updates = [line, new_sim, self.disable_old_sim(after)];
        refuse_contradiction(self.finish(before, after, updates.into()).await?)
    }

    /// Writes that a swap which had ended in ERROR is done after all, for the network has moved its number. It is
    /// contradicted if the line has another swap or another SIM by now, or the new SIM another holder.
    pub async fn finish_late(&self, before: &StoredSwap, after: &Activation) -> Result<Saved, StoreError> {
        let line = self.line(&after.subscription).await?;
        let kept = line.and_then(|line| line.line.kept(after.kind).cloned());
        let takes_kept = kept.is_some_and(|kept| kept.iccid == after.new_sim);
        let mut remove = "lastSwap, lastCaller, lastRequest".to_owned();
        let mut condition = "attribute_not_exists(swap) AND sim = :old".to_owned();
        if takes_kept {
            let [kept, from] = item::kept_names(after.kind);
            remove += &format!(", {kept}, {from}");
            condition += &format!(" AND {kept} = :new");
        }
        let line = self.move_line(after, "", &remove).condition_expression(condition);
        let new_sim = self.activate_new_sim(after).condition_expression(if takes_kept {
            "holder = :line"
        } else {
            "attribute_exists(pk) AND attribute_not_exists(holder)"
        });
        let updates = [line, new_sim, self.disable_old_sim(after)];
        self.finish(before, after, updates.into()).await
    }

    /// Writes that the network has moved a swap's number after its end, and that line and SIMs do not follow. The new SIM goes
    /// to nobody any more, unless somebody has it already.
    pub async fn save_disputed(&self, before: &StoredSwap, after: &Activation) -> Result<Saved, StoreError> {
        let line = self.line(&after.subscription).await?;
        let kept = line.and_then(|line| line.line.kept(after.kind).cloned());
        let is_kept = kept.is_some_and(|kept| kept.iccid == after.new_sim);
        let line = self
            .update_of(item::line_key(&after.subscription))
            .expression_attribute_values(":swap", text(after.id.as_str()));
        let [kept, from] = item::kept_names(after.kind);
        let line = if is_kept {
            line.update_expression(format!("SET disputed = :swap REMOVE {kept}, {from}"))
                .condition_expression(format!("{kept} = :new"))
                .expression_attribute_values(":new", text(after.new_sim.as_str()))
        } else {
            line.update_expression("SET disputed = :swap")
                .condition_expression("attribute_exists(pk)")
        };
        let mut updates = vec![line];
        let sim = self.sim(&after.new_sim).await?;
        let sim = sim.ok_or(StoreError::Corrupt("newSim"))?;
        if sim.state == SimState::Free && (is_kept || sim.holder.is_none()) {
            let sim = self
                .update_of(item::sim_key(&after.new_sim))
                .update_expression("SET #state = :disabled REMOVE shelf, holder")
                .expression_attribute_names("#state", "state")
                .expression_attribute_values(":free", text(SimState::Free.as_str()))
                .expression_attribute_values(":disabled", text(SimState::Disabled.as_str()));
            updates.push(if is_kept {
                let line = text(item::line_holder(&after.subscription));
                sim.condition_expression("#state = :free AND holder = :line")
                    .expression_attribute_values(":line", line)
            } else {
                sim.condition_expression("#state = :free AND attribute_not_exists(holder)")
            });
        }
        Ok(match self.finish(before, after, updates).await? {
            // Somebody took the SIM meanwhile: all is read again.
            Saved::Contradicted => Saved::Stale,
            saved => saved,
        })
    }

    /// The line is on the new SIM. `set` and `remove` are what else changes there.
    fn move_line(&self, after: &Activation, set: &str, remove: &str) -> UpdateBuilder {
        self.update_of(item::line_key(&after.subscription))
            .update_expression(format!(
                "SET sim = :new, simSince = :since, lastDoneAt = :done{set} REMOVE disputed, {remove}"
            ))
            .expression_attribute_values(":old", text(after.old_sim.as_str()))
            .expression_attribute_values(":new", text(after.new_sim.as_str()))
            .expression_attribute_values(":since", millis(after.activated_at.unwrap_or(after.modified_at)))
            .expression_attribute_values(":done", millis(after.modified_at))
    }

    fn activate_new_sim(&self, after: &Activation) -> UpdateBuilder {
        self.update_of(item::sim_key(&after.new_sim))
            .update_expression("SET #state = :activated, holder = :line REMOVE shelf")
            .expression_attribute_names("#state", "state")
            .expression_attribute_values(":activated", text(SimState::Activated.as_str()))
            .expression_attribute_values(":line", text(item::line_holder(&after.subscription)))
    }

    fn disable_old_sim(&self, after: &Activation) -> UpdateBuilder {
        self.update_of(item::sim_key(&after.old_sim))
            .update_expression("SET #state = :disabled REMOVE holder")
            .condition_expression("holder = :line")
            .expression_attribute_names("#state", "state")
            .expression_attribute_values(":disabled", text(SimState::Disabled.as_str()))
            .expression_attribute_values(":line", text(item::line_holder(&after.subscription)))
    }

    /// Writes that a swap ended badly: the line is free for another swap, and the new SIM has this fate. `new_sim` is how it
    /// was read.
    pub async fn finish_error(
        &self,
        before: &StoredSwap,
        after: &Activation,
        new_sim: &Sim,
        fate: SimFate,
    ) -> Result<Saved, StoreError> {
        let mut line = self
            .update_of(item::line_key(&after.subscription))
            .expression_attribute_values(":swap", text(after.id.as_str()));
        let (mut set, mut condition) = (String::new(), "swap = :swap".to_owned());
        if let SimFate::KeptFrom(from) = fate {
            let [kept, kept_from] = item::kept_names(after.kind);
            set = format!("SET {kept} = :new, {kept_from} = :from ");
            condition += &format!(" AND attribute_not_exists({kept})");
            line = line
                .expression_attribute_values(":new", text(after.new_sim.as_str()))
                .expression_attribute_values(":from", millis(from));
        }
        line = line
            .update_expression(set + "REMOVE swap, swapCaller, swapRequest")
            .condition_expression(condition);
        let sim = self
            .update_of(item::sim_key(&after.new_sim))
            .condition_expression("holder = :swap")
            .expression_attribute_names("#state", "state")
            .expression_attribute_values(":swap", text(item::activation_pk(&after.id)));
        let free = |sim: UpdateBuilder, from| {
            sim.expression_attribute_values(":free", text(SimState::Free.as_str()))
                .expression_attribute_values(":from", text(item::sortable(from)))
        };
        // One whose codes were shown is assigned to nobody any more.
        let shown = after.codes_shown || new_sim.codes_shown;
        let shelf = item::free_shelf(new_sim).filter(|_| !shown);
        let sim = match (fate, shelf) {
            (SimFate::FreeFrom(from), Some(shelf)) => free(sim, from)
                .update_expression("SET #state = :free, freeFrom = :from, shelf = :shelf REMOVE holder")
                .expression_attribute_values(":shelf", text(shelf)),
            (SimFate::FreeFrom(from), None) => free(sim, from)
                .update_expression("SET #state = :free, freeFrom = :from, codesShown = :shown REMOVE holder")
                .expression_attribute_values(":shown", AttributeValue::Bool(shown)),
            (SimFate::KeptFrom(from), _) => free(sim, from)
                .update_expression("SET #state = :free, freeFrom = :from, holder = :line")
                .expression_attribute_values(":line", text(item::line_holder(&after.subscription))),
            (SimFate::Disabled, _) => sim
                .update_expression("SET #state = :disabled REMOVE holder")
                .expression_attribute_values(":disabled", text(SimState::Disabled.as_str())),
        };
        refuse_contradiction(self.finish(before, after, [line, sim].into()).await?)
    }

    async fn finish(
        &self,
        before: &StoredSwap,
        after: &Activation,
        updates: Vec<UpdateBuilder>,
    ) -> Result<Saved, StoreError> {
        let row = next_row(before, after);
        let mut writes = vec![put(self.put_in_transaction(row.clone(), before.activation.version)?)];
        for built in updates {
            writes.push(update(
                built.build().map_err(|error| StoreError::Refused(error.into()))?,
            ));
        }
        self.commit(row, writes).await
    }

    /// Runs a transaction whose first write is the swap's row.
    async fn commit(&self, row: Item, writes: Vec<TransactWriteItem>) -> Result<Saved, StoreError> {
        let Some(reasons) = self.transact(writes).await? else {
            return Ok(Saved::Written);
        };
        if reasons[0].item.as_ref() == Some(&row) {
            return Ok(Saved::Written);
        }
        Ok(if failed(&reasons, 0) {
            Saved::Stale
        } else {
            Saved::Contradicted
        })
    }

    /// Writes what a fact made of a mail.
    pub async fn save_delivery(&self, before: &Delivery, after: &Delivery) -> Result<Saved, StoreError> {
        self.put_version(item::from_delivery(after), before.version).await
    }

    async fn put_version(&self, row: Item, version: u64) -> Result<Saved, StoreError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let sent = self
                .dynamodb
                .put_item()
                .table_name(&self.table)
                .set_item(Some(row.clone()))
                .condition_expression("version = :version")
                .expression_attribute_values(":version", AttributeValue::N(version.to_string()))
                .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
                .send()
                .await;
            let Err(error) = sent else {
                return Ok(Saved::Written);
            };
            return match error.as_service_error() {
                // A retry inside the SDK meets what its first try wrote: the row is the one we wanted.
                Some(PutItemError::ConditionalCheckFailedException(now)) if now.item() == Some(&row) => {
                    Ok(Saved::Written)
                }
                Some(PutItemError::ConditionalCheckFailedException(_)) => Ok(Saved::Stale),
                // The SDK does not try this again. What is written here is often the only word of a call out.
                Some(PutItemError::TransactionConflictException(_)) if tries < TRIES => {
                    tokio::time::sleep(pause(tries)).await;
                    continue;
                }
                _ => Err(error.into()),
            };
        }
    }

    pub(crate) fn put_in_transaction(&self, row: Item, version: u64) -> Result<Put, StoreError> {
        Put::builder()
            .table_name(&self.table)
            .set_item(Some(row))
            .condition_expression("version = :version")
            .expression_attribute_values(":version", AttributeValue::N(version.to_string()))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .build()
            .map_err(|error| StoreError::Refused(error.into()))
    }

    fn update_of(&self, key: Item) -> UpdateBuilder {
        Update::builder().table_name(&self.table).set_key(Some(key))
    }
}

fn millis(at: Timestamp) -> AttributeValue {
    AttributeValue::N(at.as_millisecond().to_string())
}

/// The swap is as we read it, but a line or a SIM that it holds is not: no repeat will mend that.
fn refuse_contradiction(saved: Saved) -> Result<Saved, StoreError> {
    match saved {
        Saved::Contradicted => Err(StoreError::Corrupt("holder")),
        saved => Ok(saved),
    }
}

pub(crate) fn next_row(before: &StoredSwap, after: &Activation) -> Item {
    item::from_swap(&StoredSwap {
        activation: after.clone(),
        ..before.clone()
    })
}
