//! Lines and SIMs as operators import, inspect and release them. What swaps do with SIMs is in `begin` and `advance`.

use aws_sdk_dynamodb::types::builders::{PutBuilder, UpdateBuilder};
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValuesOnConditionCheckFailure};
use domain::{Deadlines, Holder, Iccid, Line, Sim, SimState, SubscriptionId};

use crate::action::action_row;
use crate::attributes::{Item, text};
use crate::transaction::{condition_failed, put, update};
use crate::{Action, Store, StoreError, keys, rows};

/// The most SIMs that one call can add, which is DynamoDB's limit for a transaction.
pub const SIMS_AT_ONCE: usize = 100;

/// The most lines that one call can add, because each needs three writes of a transaction.
pub const LINES_AT_ONCE: usize = 33;

/// The result of adding a SIM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// The SIM is added.
    New,
    /// The SIM existed already and is unchanged. This is the SIM as it is stored, without its secrets.
    Existing(Box<Sim>),
}

/// The result of adding a line. Only `Added` wrote anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewLine {
    /// The line is added, with its phone number and its SIM.
    Added,
    /// A line with this id exists already. This is the line as it is stored.
    Exists(Box<Line>),
    /// Another line, with this id, has the phone number.
    PhoneTaken(SubscriptionId),
    /// The SIM exists, but it has another holder, is not free, belongs to another network, or a caller has seen its
    /// codes.
    SimTaken(Box<Sim>),
}

/// The result of releasing a SIM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Released {
    /// The SIM is free for all lines.
    Free,
    /// The SIM is reserved, in use or disabled, and is unchanged.
    NotFree(Box<Sim>),
    /// The SIM does not exist.
    Unknown,
}

impl Store {
    /// Adds a SIM and encrypts its secrets. An existing SIM stays unchanged. Calls as for [`add_sims`](Self::add_sims).
    pub async fn add_sim(&self, sim: &Sim) -> Result<Written, StoreError> {
        Ok(self.add_sims(&[sim]).await?.remove(0))
    }

    /// Adds at most [`SIMS_AT_ONCE`] different SIMs and encrypts their secrets. Existing SIMs stay unchanged. Returns a
    /// result for each SIM, in their order. One call, one more if some but not all SIMs exist, and one for each pool to
    /// which this store adds for the first time.
    pub async fn add_sims(&self, sims: &[&Sim]) -> Result<Vec<Written>, StoreError> {
        self.record_pools(sims).await?;
        let mut puts = Vec::with_capacity(sims.len());
        for sim in sims {
            puts.push(put(self.put_new_row_or_return(self.sim_row(sim).await?))?);
        }
        let mut written = vec![Written::New; sims.len()];
        let mut pending: Vec<usize> = (0..sims.len()).collect();
        while !pending.is_empty() {
            let writes = pending.iter().map(|sim| puts[*sim].clone()).collect();
            let Some(reasons) = self.transact(writes).await? else {
                break;
            };
            for (write, sim) in pending.iter().enumerate() {
                if condition_failed(&reasons, write) {
                    let row = reasons[write].item.as_ref().ok_or(StoreError::Corrupt("pk"))?;
                    written[*sim] = Written::Existing(Box::new(rows::to_sim(row)?));
                }
            }
            pending.retain(|sim| written[*sim] == Written::New);
        }
        Ok(written)
    }

    /// Adds a line with its phone number and its current SIM, as [`add_lines`](Self::add_lines) does.
    pub async fn add_line(&self, line: &Line, sim: Sim) -> Result<NewLine, StoreError> {
        Ok(self.add_lines(&[(line, sim)]).await?.remove(0))
    }

    /// Adds at most [`LINES_AT_ONCE`] lines with their phone numbers and their current SIMs, which have to be different.
    /// If the SIM of a line does not exist, it is added; if it is free in stock, the line gets it. Either way its state
    /// becomes `ACTIVATED`. Returns a result for each line, in their order. One call if all lines are added or none is,
    /// and usually two otherwise or if SIMs are in stock.
    pub async fn add_lines(&self, lines: &[(&Line, Sim)]) -> Result<Vec<NewLine>, StoreError> {
        // A line without a result has the write of its SIM, and whether the SIM is in stock.
        let mut sims = Vec::with_capacity(lines.len());
        for (line, sim) in lines {
            let sim = Sim {
                state: SimState::Activated,
                holder: Some(Holder::Line(line.id.clone())),
                ..sim.clone()
            };
            sims.push((put(self.put_new_row_or_return(self.sim_row(&sim).await?))?, false));
        }
        let mut results = vec![NewLine::Added; lines.len()];
        let mut pending: Vec<usize> = (0..lines.len()).collect();
        while !pending.is_empty() {
            let mut writes = Vec::with_capacity(3 * pending.len());
            for place in &pending {
                let (line, _) = lines[*place];
                writes.push(put(self.put_new_row_or_return(rows::from_line(line)))?);
                writes.push(put(self.put_new_row_or_return(rows::from_phone(line)))?);
                writes.push(sims[*place].0.clone());
            }
            let Some(reasons) = self.transact(writes).await? else {
                break;
            };
            for (reasons, place) in reasons.chunks(3).zip(&pending) {
                let (line, _) = lines[*place];
                let (sim_write, from_stock) = &mut sims[*place];
                let existing = |write: usize| {
                    let row = reasons[write].item.as_ref();
                    condition_failed(reasons, write).then(|| row.ok_or(StoreError::Corrupt("pk")))
                };
                if let Some(row) = existing(0) {
                    results[*place] = NewLine::Exists(Box::new(rows::to_line(row?)?.line));
                } else if let Some(row) = existing(1) {
                    results[*place] = NewLine::PhoneTaken(rows::to_phone(row?)?.subscription);
                } else if let Some(row) = existing(2) {
                    let in_stock = rows::to_sim(row?)?;
                    let is_available =
                        in_stock.state == SimState::Free && in_stock.holder.is_none() && !in_stock.codes_shown;
                    if *from_stock || !is_available || in_stock.network != line.network {
                        results[*place] = NewLine::SimTaken(Box::new(in_stock));
                    } else {
                        (*sim_write, *from_stock) = (update(self.activate_sim(line))?, true);
                    }
                }
            }
            pending.retain(|place| results[*place] == NewLine::Added);
        }
        Ok(results)
    }

    /// Makes a free SIM whose codes were shown available to all lines again: one that is kept for a line, or one that
    /// is in no pool because its codes were shown. Records the action. Two calls, or three if the SIM changes meanwhile.
    pub async fn release_sim(
        &self,
        iccid: &Iccid,
        action: &Action,
        deadlines: &Deadlines,
    ) -> Result<Released, StoreError> {
        let Some(sim) = self.sim(iccid).await? else {
            return Ok(Released::Unknown);
        };
        let pool = keys::pool_of(&sim);
        let mut free_sim = self
            .update_row(keys::sim_key(iccid))
            .update_expression(match &pool {
                Some(_) => "SET shelf = :shelf REMOVE holder, codesShown",
                None => "REMOVE holder, codesShown",
            })
            .expression_attribute_names("#state", "state")
            .expression_attribute_values(":free", text(SimState::Free.as_str()));
        if let Some(pool) = pool {
            free_sim = free_sim.expression_attribute_values(":shelf", text(pool));
        }
        let mut writes = match (sim.state, &sim.holder) {
            (SimState::Free, None) => {
                let free_sim = free_sim.condition_expression("#state = :free AND attribute_not_exists(holder)");
                vec![update(free_sim)?]
            }
            (SimState::Free, Some(Holder::Line(line))) => {
                let [kept, from] = rows::kept_sim_attributes(sim.kind());
                let free_sim = free_sim
                    .condition_expression("#state = :free AND holder = :line")
                    .expression_attribute_values(":line", text(keys::line_holder(line)));
                let line = self
                    .update_row(keys::line_key(line))
                    .update_expression(format!("REMOVE {kept}, {from}"))
                    .condition_expression(format!("{kept} = :sim"))
                    .expression_attribute_values(":sim", text(iccid.as_str()));
                vec![update(free_sim)?, update(line)?]
            }
            _ => return Ok(Released::NotFree(Box::new(sim))),
        };
        writes.push(put(self.put_row(action_row(keys::sim_pk(iccid), action, deadlines)))?);
        if self.transact(writes).await?.is_none() {
            return Ok(Released::Free);
        }
        Ok(match self.sim(iccid).await? {
            // The SDK may have retried a transaction whose first attempt was written.
            Some(now) if now.state == SimState::Free && now.holder.is_none() => Released::Free,
            now => Released::NotFree(Box::new(now.unwrap_or(sim))),
        })
    }

    /// Reads a SIM without its secrets, and which secrets its row contains: any of `pin1`, `pin2`, `puk1`, `puk2` and
    /// `supplierCode`. One call.
    pub async fn sim_and_sealed(&self, iccid: &Iccid) -> Result<Option<(Sim, Vec<&'static str>)>, StoreError> {
        let Some(row) = self.get(keys::sim_key(iccid)).await? else {
            return Ok(None);
        };
        let secrets = rows::SIM_SECRETS.into_iter();
        let sealed = secrets.filter(|name| row.contains_key(*name)).collect();
        Ok(Some((rows::to_sim(&row)?, sealed)))
    }

    /// Gives the line its SIM, which is free in stock.
    fn activate_sim(&self, line: &Line) -> UpdateBuilder {
        self.update_row(keys::sim_key(&line.current_sim))
            .update_expression("SET #state = :activated, holder = :line REMOVE shelf")
            .condition_expression(
                "#state = :free AND network = :network AND attribute_not_exists(holder) \
                 AND (attribute_not_exists(codesShown) OR codesShown = :no)",
            )
            .expression_attribute_names("#state", "state")
            .expression_attribute_values(":no", AttributeValue::Bool(false))
            .expression_attribute_values(":activated", text(SimState::Activated.as_str()))
            .expression_attribute_values(":free", text(SimState::Free.as_str()))
            .expression_attribute_values(":network", text(line.network.as_str()))
            .expression_attribute_values(":line", text(keys::line_holder(&line.id)))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
    }

    /// The row of a new SIM, its secrets encrypted.
    async fn sim_row(&self, sim: &Sim) -> Result<Item, StoreError> {
        let pk = keys::sim_pk(&sim.iccid);
        let secrets = [&sim.pin1, &sim.pin2, &sim.puk1, &sim.puk2, &sim.supplier_code];
        let given = rows::SIM_SECRETS.into_iter().zip(secrets);
        let given = given.filter_map(|(field, secret)| Some((field, secret.as_ref()?.expose())));
        let texts: Vec<_> = given.collect();
        let sealed = self.keyring.seal(&pk, &texts).await?;
        let fields = texts.iter().map(|(field, _)| *field);
        Ok(rows::from_sim(sim, &fields.zip(sealed).collect::<Vec<_>>()))
    }

    /// A put of this row that fails if the row exists, and then returns the existing row.
    fn put_new_row_or_return(&self, row: Item) -> PutBuilder {
        self.put_new_row(row)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
    }
}
