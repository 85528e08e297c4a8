//! Writes each step of a swap or mail that exists, on the condition that the row still has the version that was read.
//! How a swap begins is in `begin`.

use std::collections::HashMap;

use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::types::builders::{PutBuilder, UpdateBuilder};
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValuesOnConditionCheckFailure, TransactWriteItem};
use domain::{Activation, ActivationId, Delivery, Line, Sim, SimFate, SimState};
use jiff::Timestamp;

use crate::attributes::{Item, millis, number, sortable, text};
use crate::transaction::{ATTEMPTS, backoff, condition_failed, put, update};
use crate::{Fingerprint, IdempotencyKey, Store, StoreError, StoredSwap, SwapSecrets, keys, rows};

/// The result of writing a step of a swap or mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Saved {
    /// The step is written.
    Written,
    /// Nothing is written: the row has changed since it was read. Read the row again.
    Stale,
    /// Nothing is written: the swap has not changed, but its line or one of its SIMs is not in the state that the step
    /// requires.
    Contradicted,
}

impl Store {
    /// Writes a swap after a fact was applied to it.
    pub async fn save(&self, before: &StoredSwap, after: &Activation) -> Result<Saved, StoreError> {
        self.put_version(self.next_row(before, after), before.activation.version)
            .await
    }

    /// Writes a swap without its secrets.
    pub async fn save_erased(&self, before: &StoredSwap, after: &Activation) -> Result<Saved, StoreError> {
        self.save(&bare(before), after).await
    }

    /// Writes a swap and its mails without secrets and without anything that identifies a person.
    pub async fn save_anonymous(&self, before: &StoredSwap, after: &Activation) -> Result<Saved, StoreError> {
        let anonymous = StoredSwap {
            caller: String::new(),
            code_by: None,
            // A later release may identify a person there.
            unknown: HashMap::new(),
            ..bare(before)
        };
        let row = self.next_row(&anonymous, after);
        let mut writes = vec![put(self.put_next_version(row.clone(), before.activation.version))?];
        for mail in &before.deliveries {
            let mail_row = rows::from_delivery(self.form(), &mail.anonymised());
            writes.push(put(self.put_next_version(mail_row, mail.version))?);
        }
        // A mail may have changed since it was read, for example by a report.
        Ok(contradicted_as_stale(self.commit(row, writes).await?))
    }

    /// Writes a swap after a fact was applied to it, together with a mail to be sent.
    pub async fn save_with_mail(
        &self,
        before: &StoredSwap,
        after: &Activation,
        mail: &Delivery,
    ) -> Result<Saved, StoreError> {
        let row = self.next_row(before, after);
        let writes = vec![
            put(self.put_next_version(row.clone(), before.activation.version))?,
            put(self.put_new_row(rows::from_delivery(self.form(), mail)))?,
        ];
        contradicted_as_error(self.commit(row, writes).await?)
    }

    /// Writes a swap after a caller's request was applied to it, with the mail that the request brings, if any, and the
    /// record of the request's idempotency key. `Stale` also means that the key is in use.
    pub async fn save_request(
        &self,
        before: &StoredSwap,
        after: &Activation,
        mail: Option<&Delivery>,
        key: Option<&IdempotencyKey>,
        request: &Fingerprint,
    ) -> Result<Saved, StoreError> {
        let at = after.modified_at;
        let renewal = before.renewal.as_ref().filter(|_| request.leaves_code_out());
        let code = renewal.and_then(|renewal| renewal.code.as_ref()).map(|(code, _)| code);
        let row = self.next_row(&before.with_request(request, code, at), after);
        if mail.is_none() && key.is_none() {
            return self.put_version(row, before.activation.version).await;
        }
        let mut writes = vec![put(self.put_next_version(row.clone(), before.activation.version))?];
        if let Some(mail) = mail {
            writes.push(put(self.put_new_row(rows::from_delivery(self.form(), mail)))?);
        }
        if let Some(key) = key {
            writes.push(put(self.put_idempotency_record(key, &after.id, request, code, at))?);
        }
        Ok(contradicted_as_stale(self.commit(row, writes).await?))
    }

    /// Writes the record of the idempotency key of a request that changed nothing. `Stale` means that the key is in use.
    pub async fn save_record(
        &self,
        swap: &ActivationId,
        key: &IdempotencyKey,
        request: &Fingerprint,
        at: Timestamp,
    ) -> Result<Saved, StoreError> {
        let writes = vec![put(self.put_idempotency_record(key, swap, request, None, at))?];
        Ok(match self.transact(writes).await? {
            None => Saved::Written,
            Some(_) => Saved::Stale,
        })
    }

    /// Writes that a swap ended in DONE: the line has the new SIM and no open swap, and the old SIM is disabled.
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
            .expression_attribute_values(":swap", text(keys::activation_pk(&after.id)));
        let updates = [line, new_sim, self.disable_old_sim(after)];
        contradicted_as_error(self.finish(before, after, updates, None).await?)
    }

    /// Writes that a swap which had ended in ERROR is DONE, because the network has moved the number. The result is
    /// `Contradicted` if the line has an open swap, or another SIM, phone number or customer, or if the new SIM has
    /// another holder.
    pub async fn finish_late(&self, before: &StoredSwap, after: &Activation) -> Result<Saved, StoreError> {
        let line = self.line(&after.subscription).await?;
        let takes_kept = line.is_some_and(|line| keeps_new_sim(&line.line, after));
        let mut remove = "lastSwap, lastCaller, lastRequest".to_owned();
        let mut condition =
            "attribute_not_exists(swap) AND sim = :old AND phone = :phone AND customer = :customer".to_owned();
        if takes_kept {
            let [kept, from] = rows::kept_sim_attributes(after.kind);
            remove += &format!(", {kept}, {from}");
            condition += &format!(" AND {kept} = :new");
        }
        let line = self
            .move_line(after, "", &remove)
            .condition_expression(condition)
            .expression_attribute_values(":phone", text(after.phone.as_e164()))
            .expression_attribute_values(":customer", text(&after.customer));
        let new_sim = self.activate_new_sim(after).condition_expression(if takes_kept {
            "holder = :line"
        } else {
            "attribute_exists(pk) AND attribute_not_exists(holder)"
        });
        self.finish(before, after, [line, new_sim, self.disable_old_sim(after)], None)
            .await
    }

    /// Writes that the network has moved the number after the swap's end, and that line and SIMs stay as they are. The
    /// new SIM is disabled if it is free. An operator may have removed the line or the SIM.
    pub async fn save_disputed(&self, before: &StoredSwap, after: &Activation) -> Result<Saved, StoreError> {
        let mut updates = Vec::new();
        let line = self.line(&after.subscription).await?;
        let is_kept = line.as_ref().is_some_and(|line| keeps_new_sim(&line.line, after));
        if line.is_some() {
            let line = self
                .update_row(keys::line_key(&after.subscription))
                .expression_attribute_values(":swap", text(after.id.as_str()));
            let [kept, from] = rows::kept_sim_attributes(after.kind);
            updates.push(if is_kept {
                line.update_expression(format!("SET disputed = :swap REMOVE {kept}, {from}"))
                    .condition_expression(format!("{kept} = :new"))
                    .expression_attribute_values(":new", text(after.new_sim.as_str()))
            } else {
                line.update_expression("SET disputed = :swap")
                    .condition_expression("attribute_exists(pk)")
            });
        }
        let sim = self.sim(&after.new_sim).await?;
        let is_free = |sim: Sim| sim.state == SimState::Free && (is_kept || sim.holder.is_none());
        if sim.is_some_and(is_free) {
            let sim = self
                .update_row(keys::sim_key(&after.new_sim))
                .update_expression("SET #state = :disabled REMOVE shelf, holder")
                .expression_attribute_names("#state", "state")
                .expression_attribute_values(":free", text(SimState::Free.as_str()))
                .expression_attribute_values(":disabled", text(SimState::Disabled.as_str()));
            updates.push(if is_kept {
                let line = text(keys::line_holder(&after.subscription));
                sim.condition_expression("#state = :free AND holder = :line")
                    .expression_attribute_values(":line", line)
            } else {
                sim.condition_expression("#state = :free AND attribute_not_exists(holder)")
            });
        }
        // Another swap may have reserved the SIM since it was read.
        Ok(contradicted_as_stale(self.finish(before, after, updates, None).await?))
    }

    /// Gives the line the new SIM. `set` and `remove` are further parts of the update expression.
    fn move_line(&self, after: &Activation, set: &str, remove: &str) -> UpdateBuilder {
        self.update_row(keys::line_key(&after.subscription))
            .update_expression(format!(
                "SET sim = :new, simSince = :since, lastDoneAt = :done{set} REMOVE disputed, {remove}"
            ))
            .expression_attribute_values(":old", text(after.old_sim.as_str()))
            .expression_attribute_values(":new", text(after.new_sim.as_str()))
            .expression_attribute_values(":since", millis(after.activated_at.unwrap_or(after.modified_at)))
            .expression_attribute_values(":done", millis(after.modified_at))
    }

    fn activate_new_sim(&self, after: &Activation) -> UpdateBuilder {
        self.update_row(keys::sim_key(&after.new_sim))
            .update_expression("SET #state = :activated, holder = :line REMOVE shelf")
            .expression_attribute_names("#state", "state")
            .expression_attribute_values(":activated", text(SimState::Activated.as_str()))
            .expression_attribute_values(":line", text(keys::line_holder(&after.subscription)))
    }

    fn disable_old_sim(&self, after: &Activation) -> UpdateBuilder {
        self.update_row(keys::sim_key(&after.old_sim))
            .update_expression("SET #state = :disabled REMOVE holder")
            .condition_expression("holder = :line")
            .expression_attribute_names("#state", "state")
            .expression_attribute_values(":disabled", text(SimState::Disabled.as_str()))
            .expression_attribute_values(":line", text(keys::line_holder(&after.subscription)))
    }

    /// Writes that a swap ended in ERROR, with the mail about it, if any: the line has no open swap, and `fate` determines
    /// what becomes of the new SIM. `new_sim` is that SIM as it was read.
    pub async fn finish_error(
        &self,
        before: &StoredSwap,
        after: &Activation,
        new_sim: &Sim,
        fate: SimFate,
        mail: Option<&Delivery>,
    ) -> Result<Saved, StoreError> {
        let mut line = self
            .update_row(keys::line_key(&after.subscription))
            .expression_attribute_values(":swap", text(after.id.as_str()));
        let (mut set, mut condition) = (String::new(), "swap = :swap".to_owned());
        if let SimFate::KeptFrom(from) = fate {
            let [kept, kept_from] = rows::kept_sim_attributes(after.kind);
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
            .update_row(keys::sim_key(&after.new_sim))
            .condition_expression("holder = :swap")
            .expression_attribute_names("#state", "state")
            .expression_attribute_values(":swap", text(keys::activation_pk(&after.id)));
        let set_free = |sim: UpdateBuilder, from| {
            sim.expression_attribute_values(":free", text(SimState::Free.as_str()))
                .expression_attribute_values(":from", text(sortable(from)))
        };
        let sim = match fate {
            SimFate::FreeFrom(from) => match keys::pool_of(new_sim) {
                Some(pool) => set_free(sim, from)
                    .update_expression("SET #state = :free, freeFrom = :from, shelf = :shelf REMOVE holder")
                    .expression_attribute_values(":shelf", text(pool)),
                None => set_free(sim, from).update_expression("SET #state = :free, freeFrom = :from REMOVE holder"),
            },
            SimFate::NamedFrom(from) => set_free(sim, from)
                .update_expression("SET #state = :free, freeFrom = :from, codesShown = :shown REMOVE holder")
                .expression_attribute_values(":shown", AttributeValue::Bool(true)),
            SimFate::KeptFrom(from) => set_free(sim, from)
                .update_expression("SET #state = :free, freeFrom = :from, holder = :line")
                .expression_attribute_values(":line", text(keys::line_holder(&after.subscription))),
            SimFate::Disabled => sim
                .update_expression("SET #state = :disabled REMOVE holder")
                .expression_attribute_values(":disabled", text(SimState::Disabled.as_str())),
        };
        contradicted_as_error(self.finish(before, after, [line, sim], mail).await?)
    }

    /// Writes a swap together with these updates of its line and SIMs, and with a mail to be sent.
    async fn finish(
        &self,
        before: &StoredSwap,
        after: &Activation,
        updates: impl IntoIterator<Item = UpdateBuilder>,
        mail: Option<&Delivery>,
    ) -> Result<Saved, StoreError> {
        let row = self.next_row(before, after);
        let mut writes = vec![put(self.put_next_version(row.clone(), before.activation.version))?];
        for line_or_sim in updates {
            writes.push(update(line_or_sim)?);
        }
        if let Some(mail) = mail {
            writes.push(put(self.put_new_row(rows::from_delivery(self.form(), mail)))?);
        }
        self.commit(row, writes).await
    }

    /// Runs a transaction whose first write puts the swap's row, `row`.
    async fn commit(&self, row: Item, writes: Vec<TransactWriteItem>) -> Result<Saved, StoreError> {
        let Some(reasons) = self.transact(writes).await? else {
            return Ok(Saved::Written);
        };
        // The SDK retried a transaction whose first attempt was written: the row is already this one.
        if reasons[0].item.as_ref() == Some(&row) {
            return Ok(Saved::Written);
        }
        Ok(if condition_failed(&reasons, 0) {
            Saved::Stale
        } else {
            Saved::Contradicted
        })
    }

    /// Writes a mail after a fact was applied to it.
    pub async fn save_delivery(&self, before: &Delivery, after: &Delivery) -> Result<Saved, StoreError> {
        self.put_version(rows::from_delivery(self.form(), after), before.version)
            .await
    }

    /// Writes a row, on the condition that it is stored with this version.
    pub(crate) async fn put_version(&self, row: Item, version: u64) -> Result<Saved, StoreError> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let sent = self
                .dynamodb
                .put_item()
                .table_name(&self.table)
                .set_item(Some(row.clone()))
                .condition_expression("version = :version")
                .expression_attribute_values(":version", number(version))
                .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
                .send()
                .await;
            let Err(error) = sent else {
                return Ok(Saved::Written);
            };
            return match error.as_service_error() {
                // The SDK retried a write whose first attempt succeeded: the row is already this one.
                Some(PutItemError::ConditionalCheckFailedException(stored)) if stored.item() == Some(&row) => {
                    Ok(Saved::Written)
                }
                Some(PutItemError::ConditionalCheckFailedException(_)) => Ok(Saved::Stale),
                // The SDK does not retry conflicts. The row is often the only record of a call to a peer, so the store
                // retries them.
                Some(PutItemError::TransactionConflictException(_)) if attempts < ATTEMPTS => {
                    tokio::time::sleep(backoff(attempts)).await;
                    continue;
                }
                _ => Err(error.into()),
            };
        }
    }

    /// The row of a swap after a step.
    pub(crate) fn next_row(&self, before: &StoredSwap, after: &Activation) -> Item {
        rows::from_swap(self.form(), &before.advanced(after.clone()))
    }

    /// A put of this row, on the condition that it is stored with this version.
    pub(crate) fn put_next_version(&self, row: Item, version: u64) -> PutBuilder {
        self.put_row(row)
            .condition_expression("version = :version")
            .expression_attribute_values(":version", number(version))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
    }
}

/// For a step in which the line or a SIM of an unchanged swap can differ only by an error in the data: retrying would
/// not help.
fn contradicted_as_error(saved: Saved) -> Result<Saved, StoreError> {
    match saved {
        Saved::Contradicted => Err(StoreError::Corrupt("holder")),
        saved => Ok(saved),
    }
}

/// For a step in which another row may have changed since it was read: everything has to be read again.
fn contradicted_as_stale(saved: Saved) -> Saved {
    match saved {
        Saved::Contradicted => Saved::Stale,
        saved => saved,
    }
}

/// Whether the line keeps the new SIM of this swap.
fn keeps_new_sim(line: &Line, swap: &Activation) -> bool {
    line.kept_sim(swap.kind).is_some_and(|kept| kept.iccid == swap.new_sim)
}

/// The swap without its secrets.
fn bare(swap: &StoredSwap) -> StoredSwap {
    StoredSwap {
        secrets: SwapSecrets::default(),
        renewal: None,
        last_requests: Vec::new(),
        ..swap.clone()
    }
}
