//! Lines and SIMs, as an operator loads them and looks at them.

use aws_sdk_dynamodb::types::{Put, ReturnValuesOnConditionCheckFailure, Update};
use domain::{Holder, Iccid, Line, Sim, SimState, SubscriptionId};

use crate::item::{self, Item};
use crate::transaction::{failed, put, text, update};
use crate::{Store, StoreError};

/// SIMs that are loaded by one call: what DynamoDB takes in a transaction.
pub const SIMS_AT_ONCE: usize = 100;

/// What became of a SIM that is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It is there now.
    New,
    /// It was there before, and is as it was.
    Existing,
}

/// What became of a line that is loaded. Only the first wrote anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewLine {
    /// It is there now, with its phone number and its SIM.
    Added,
    /// There is such a line already, as it is here.
    Exists(Box<Line>),
    /// This other line has the phone number.
    PhoneTaken(SubscriptionId),
    /// The SIM is in stock, but is another's, used up, or of another network.
    SimTaken(Box<Sim>),
}

/// What became of a SIM that is to be released.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Released {
    /// It is free for everybody.
    Free,
    /// It is in use; it is as it was.
    NotFree(Box<Sim>),
    /// There is no such SIM.
    Unknown,
}

impl Store {
    /// Whether the table answers: reads a row that may be there or not.
    pub async fn reach(&self) -> Result<(), StoreError> {
        self.dynamodb
            .get_item()
            .table_name(&self.table)
            .set_key(Some(item::data_key(1)))
            .send()
            .await?;
        Ok(())
    }

    /// Adds a SIM, its secrets sealed; one that exists is left as it is. One call.
    pub async fn add_sim(&self, sim: &Sim) -> Result<Written, StoreError> {
        Ok(self.add_sims(&[sim]).await?[0])
    }

    /// Adds different SIMs, at most [`SIMS_AT_ONCE`], their secrets sealed; those that exist are left as they are. Tells of
    /// each in their order. One call, one more if some but not all exist, and one for each pool that this store adds to for the
    /// first time.
    pub async fn add_sims(&self, sims: &[&Sim]) -> Result<Vec<Written>, StoreError> {
        self.note_pools(sims).await?;
        let mut puts = Vec::with_capacity(sims.len());
        for sim in sims {
            let new = Put::builder()
                .table_name(&self.table)
                .set_item(Some(self.sim_row(sim).await?))
                .condition_expression("attribute_not_exists(pk)")
                .build()
                .map_err(|error| StoreError::Refused(error.into()))?;
            puts.push(put(new));
        }
        let mut written = vec![Written::New; sims.len()];
        let mut left: Vec<usize> = (0..sims.len()).collect();
        while !left.is_empty() {
            let writes = left.iter().map(|sim| puts[*sim].clone()).collect();
            let Some(reasons) = self.transact(writes).await? else {
                break;
            };
            for (write, sim) in left.iter().enumerate() {
                if failed(&reasons, write) {
                    written[*sim] = Written::Existing;
                }
            }
            left.retain(|sim| written[*sim] == Written::New);
        }
        Ok(written)
    }

    /// Adds a line with its phone number and its current SIM, all or nothing. The SIM is the one in stock if that is
    /// free, else `sim`; it becomes `ACTIVATED` here. One call, or two when the SIM is in stock.
    pub async fn add_line(&self, line: &Line, sim: Sim) -> Result<NewLine, StoreError> {
        let sim = Sim {
            state: SimState::Activated,
            holder: Some(Holder::Line(line.id.clone())),
            ..sim
        };
        let mut sim_write = put(self.new_row(self.sim_row(&sim).await?)?);
        for from_stock in [false, true] {
            let writes = vec![
                put(self.new_row(item::from_line(line))?),
                put(self.new_row(item::from_phone(line))?),
                sim_write,
            ];
            let Some(reasons) = self.transact(writes).await? else {
                return Ok(NewLine::Added);
            };
            let old = |write: usize| {
                let row = reasons[write].item.as_ref();
                failed(&reasons, write).then(|| row.ok_or(StoreError::Corrupt("pk")))
            };
            if let Some(row) = old(0) {
                return Ok(NewLine::Exists(Box::new(item::to_line(row?)?.line)));
            }
            if let Some(row) = old(1) {
                return Ok(NewLine::PhoneTaken(item::to_phone(row?)?.subscription));
            }
            let Some(row) = old(2) else { break };
            let in_stock = item::to_sim(row?)?;
            let fits =
                in_stock.state == SimState::Free && in_stock.holder.is_none() && in_stock.network == line.network;
            if from_stock || !fits {
                return Ok(NewLine::SimTaken(Box::new(in_stock)));
            }
            sim_write = update(self.activate_sim(line)?);
        }
        Err(StoreError::Corrupt("sim"))
    }

    /// Gives a free SIM whose codes were shown back to stock, for everybody: one that is kept for its line, or one that only its
    /// number assigns since. Two calls.
    pub async fn release_sim(&self, iccid: &Iccid) -> Result<Released, StoreError> {
        let Some(sim) = self.sim(iccid).await? else {
            return Ok(Released::Unknown);
        };
        let shelf = item::free_shelf(&sim);
        let mut of_sim = Update::builder()
            .table_name(&self.table)
            .set_key(Some(item::sim_key(iccid)))
            .update_expression(match &shelf {
                Some(_) => "SET shelf = :shelf REMOVE holder, codesShown",
                None => "REMOVE holder, codesShown",
            })
            .expression_attribute_names("#state", "state")
            .expression_attribute_values(":free", text(SimState::Free.as_str()));
        if let Some(shelf) = shelf {
            of_sim = of_sim.expression_attribute_values(":shelf", text(shelf));
        }
        let mut updates = Vec::new();
        match (sim.state, &sim.holder) {
            (SimState::Free, None) => {
                updates.push(of_sim.condition_expression("#state = :free AND attribute_not_exists(holder)"));
            }
            (SimState::Free, Some(Holder::Line(line))) => {
                let [kept, from] = item::kept_names(sim.kind());
                updates.push(
                    of_sim
                        .condition_expression("#state = :free AND holder = :line")
                        .expression_attribute_values(":line", text(item::line_holder(line))),
                );
                updates.push(
                    Update::builder()
                        .table_name(&self.table)
                        .set_key(Some(item::line_key(line)))
                        .update_expression(format!("REMOVE {kept}, {from}"))
                        .condition_expression(format!("{kept} = :sim"))
                        .expression_attribute_values(":sim", text(iccid.as_str())),
                );
            }
            _ => return Ok(Released::NotFree(Box::new(sim))),
        }
        let mut writes = Vec::new();
        for built in updates {
            let built = built.build().map_err(|error| StoreError::Refused(error.into()))?;
            writes.push(update(built));
        }
        if self.transact(writes).await?.is_none() {
            return Ok(Released::Free);
        }
        Ok(match self.sim(iccid).await? {
            // A retry inside the SDK meets what its first try wrote.
            Some(now) if now.state == SimState::Free && now.holder.is_none() => Released::Free,
            now => Released::NotFree(Box::new(now.unwrap_or(sim))),
        })
    }

    /// A SIM, and the names of the secrets that are sealed in its row: `pin1`, `pin2`, `puk1`, `puk2`, `supplierCode`.
    pub async fn sim_and_sealed(&self, iccid: &Iccid) -> Result<Option<(Sim, Vec<&'static str>)>, StoreError> {
        let Some(row) = self.get(item::sim_key(iccid)).await? else {
            return Ok(None);
        };
        let sealed = item::SIM_SECRETS.into_iter();
        let sealed = sealed.filter(|name| row.contains_key(*name)).collect();
        Ok(Some((item::to_sim(&row)?, sealed)))
    }

    /// The line's SIM, which was free in stock.
    fn activate_sim(&self, line: &Line) -> Result<Update, StoreError> {
        Update::builder()
            .table_name(&self.table)
            .set_key(Some(item::sim_key(&line.current_sim)))
            .update_expression("SET #state = :activated, holder = :line REMOVE shelf")
            .condition_expression("#state = :free AND network = :network AND attribute_not_exists(holder)")
            .expression_attribute_names("#state", "state")
            .expression_attribute_values(":activated", text(SimState::Activated.as_str()))
            .expression_attribute_values(":free", text(SimState::Free.as_str()))
            .expression_attribute_values(":network", text(line.network.as_str()))
            .expression_attribute_values(":line", text(item::holder(&Holder::Line(line.id.clone()))))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .build()
            .map_err(|error| StoreError::Refused(error.into()))
    }

    async fn sim_row(&self, sim: &Sim) -> Result<Item, StoreError> {
        let pk = item::sim_pk(&sim.iccid);
        let secrets = [&sim.pin1, &sim.pin2, &sim.puk1, &sim.puk2, &sim.supplier_code];
        let mut sealed = Vec::new();
        for (field, secret) in item::SIM_SECRETS.into_iter().zip(secrets) {
            if let Some(secret) = secret {
                sealed.push((field, self.keyring.seal(&pk, field, secret.expose()).await?));
            }
        }
        Ok(item::from_sim(sim, &sealed))
    }

    fn new_row(&self, row: Item) -> Result<Put, StoreError> {
        Put::builder()
            .table_name(&self.table)
            .set_item(Some(row))
            .condition_expression("attribute_not_exists(pk)")
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .build()
            .map_err(|error| StoreError::Refused(error.into()))
    }
}
