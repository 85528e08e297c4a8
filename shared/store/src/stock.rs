//! Lines and SIMs as operators import, inspect and release them. What swaps do with SIMs is in `begin` and `advance`.

use aws_sdk_dynamodb::types::ReturnValuesOnConditionCheckFailure;
use aws_sdk_dynamodb::types::builders::{PutBuilder, UpdateBuilder};
use domain::{Holder, Iccid, Line, Sim, SimState, SubscriptionId};

use crate::attributes::{Item, text};
use crate::transaction::{condition_failed, put, update};
use crate::{Store, StoreError, keys, rows};

/// The most SIMs that one call can add, which is DynamoDB's limit for a transaction.
pub const SIMS_AT_ONCE: usize = 100;

/// The result of adding a SIM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// The SIM is added.
    New,
    /// The SIM existed already and is unchanged.
    Existing,
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
    /// The SIM exists, but it has another holder, is not free, or belongs to another network.
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
    /// Checks that the table can be read. One call, which reads a row that need not exist.
    pub async fn reach(&self) -> Result<(), StoreError> {
        self.dynamodb
            .get_item()
            .table_name(&self.table)
            .set_key(Some(keys::data_key(1)))
            .send()
            .await?;
        Ok(())
    }

    /// Adds a SIM and encrypts its secrets. An existing SIM stays unchanged. Calls as for [`add_sims`](Self::add_sims).
    pub async fn add_sim(&self, sim: &Sim) -> Result<Written, StoreError> {
        Ok(self.add_sims(&[sim]).await?[0])
    }

    /// Adds at most [`SIMS_AT_ONCE`] different SIMs and encrypts their secrets. Existing SIMs stay unchanged. Returns a
    /// result for each SIM, in their order. One call, one more if some but not all SIMs exist, and one for each pool to
    /// which this store adds for the first time.
    pub async fn add_sims(&self, sims: &[&Sim]) -> Result<Vec<Written>, StoreError> {
        self.record_pools(sims).await?;
        let mut puts = Vec::with_capacity(sims.len());
        for sim in sims {
            puts.push(put(self.put_new_row(self.sim_row(sim).await?))?);
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
                    written[*sim] = Written::Existing;
                }
            }
            pending.retain(|sim| written[*sim] == Written::New);
        }
        Ok(written)
    }

    /// Adds a line with its phone number and its current SIM, in one transaction. If the SIM does not exist, `sim` is
    /// added; if it is free in stock, the line gets it. Either way its state becomes `ACTIVATED`. One call, or two if
    /// the SIM is in stock.
    pub async fn add_line(&self, line: &Line, sim: Sim) -> Result<NewLine, StoreError> {
        let sim = Sim {
            state: SimState::Activated,
            holder: Some(Holder::Line(line.id.clone())),
            ..sim
        };
        let mut sim_write = put(self.put_new_row_or_return(self.sim_row(&sim).await?))?;
        for from_stock in [false, true] {
            let writes = vec![
                put(self.put_new_row_or_return(rows::from_line(line)))?,
                put(self.put_new_row_or_return(rows::from_phone(line)))?,
                sim_write,
            ];
            let Some(reasons) = self.transact(writes).await? else {
                return Ok(NewLine::Added);
            };
            let existing = |write: usize| {
                let row = reasons[write].item.as_ref();
                condition_failed(&reasons, write).then(|| row.ok_or(StoreError::Corrupt("pk")))
            };
            if let Some(row) = existing(0) {
                return Ok(NewLine::Exists(Box::new(rows::to_line(row?)?.line)));
            }
            if let Some(row) = existing(1) {
                return Ok(NewLine::PhoneTaken(rows::to_phone(row?)?.subscription));
            }
            let Some(row) = existing(2) else { break };
            let in_stock = rows::to_sim(row?)?;
            let fits =
                in_stock.state == SimState::Free && in_stock.holder.is_none() && in_stock.network == line.network;
            if from_stock || !fits {
                return Ok(NewLine::SimTaken(Box::new(in_stock)));
            }
            sim_write = update(self.activate_sim(line))?;
        }
        Err(StoreError::Corrupt("sim"))
    }

    /// Makes a free SIM whose codes were shown available to all lines again: one that is kept for a line, or one that
    /// is in no pool because its codes were shown. Two calls, or three if the SIM changes meanwhile.
    pub async fn release_sim(&self, iccid: &Iccid) -> Result<Released, StoreError> {
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
        let writes = match (sim.state, &sim.holder) {
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
            .condition_expression("#state = :free AND network = :network AND attribute_not_exists(holder)")
            .expression_attribute_names("#state", "state")
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
        let mut sealed = Vec::new();
        for (field, secret) in rows::SIM_SECRETS.into_iter().zip(secrets) {
            if let Some(secret) = secret {
                sealed.push((field, self.keyring.seal(&pk, field, secret.expose()).await?));
            }
        }
        Ok(rows::from_sim(sim, &sealed))
    }

    /// A put of this row that fails if the row exists, and then returns the existing row.
    fn put_new_row_or_return(&self, row: Item) -> PutBuilder {
        self.put_new_row(row)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
    }
}
