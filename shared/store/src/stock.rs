//! New lines and SIMs, as an operator loads them.

use aws_sdk_dynamodb::types::Put;
use domain::{Holder, Line, Sim, SimState};

use crate::item;
use crate::transaction::put;
use crate::{Store, StoreError};

/// What became of a row that is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It is there now.
    New,
    /// Nothing was written: it, its phone number or its SIM was there before, and is as it was.
    Existing,
}

impl Store {
    /// Adds a SIM, its secrets sealed; one that exists is left as it is.
    pub async fn add_sim(&self, sim: &Sim) -> Result<Written, StoreError> {
        let written = self.transact(vec![put(self.new_sim(sim).await?)]).await?;
        Ok(if written.is_none() {
            Written::New
        } else {
            Written::Existing
        })
    }

    /// Adds a line with its phone number and its current SIM, all or nothing. The SIM is `sim`, made `ACTIVATED` here.
    pub async fn add_line(&self, line: &Line, sim: Sim) -> Result<Written, StoreError> {
        let sim = Sim {
            state: SimState::Activated,
            holder: Some(Holder::Line(line.id.clone())),
            ..sim
        };
        let rows = [item::from_line(line), item::from_phone(line)];
        let mut writes = vec![put(self.new_sim(&sim).await?)];
        for row in rows {
            writes.push(put(self.new_row(row)?));
        }
        let written = self.transact(writes).await?;
        Ok(if written.is_none() {
            Written::New
        } else {
            Written::Existing
        })
    }

    async fn new_sim(&self, sim: &Sim) -> Result<Put, StoreError> {
        let pk = item::sim_pk(&sim.iccid);
        let secrets = [
            &sim.pin1,
            &sim.pin2,
            &sim.puk1,
            &sim.puk2,
            &sim.supplier_code,
        ];
        let mut sealed = Vec::new();
        for (field, secret) in item::SIM_SECRETS.into_iter().zip(secrets) {
            if let Some(secret) = secret {
                sealed.push((field, self.keyring.seal(&pk, field, secret.expose()).await?));
            }
        }
        self.new_row(item::from_sim(sim, &sealed))
    }

    fn new_row(&self, row: item::Item) -> Result<Put, StoreError> {
        Put::builder()
            .table_name(&self.table)
            .set_item(Some(row))
            .condition_expression("attribute_not_exists(pk)")
            .build()
            .map_err(|error| StoreError::Refused(error.into()))
    }
}
