//! Reads of single rows, all of them consistent: each is one call.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes};
use domain::{ActivationId, Delivery, Iccid, Msisdn, Secret, Sim, SubscriptionId};
use jiff::Timestamp;

use crate::item::{self, Item, Row};
use crate::transaction::pause;
use crate::{Fingerprint, IdempotencyKey, PhoneEntry, Store, StoreError, StoredLine, StoredSwap};

/// What an idempotency key was used for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyRecord {
    /// The swap that the first request made.
    pub activation: ActivationId,
    /// The first request.
    pub request: Fingerprint,
}

pub(crate) fn to_kept(item: &Item, now: Timestamp) -> Result<Option<IdempotencyRecord>, StoreError> {
    let row = Row(item);
    // TTL deletes late, so the time is looked at here too.
    if row.number::<i64>("expires")? <= now.as_second() {
        return Ok(None);
    }
    Ok(Some(IdempotencyRecord {
        activation: ActivationId::parse(row.text("swap")?).map_err(|_| StoreError::Corrupt("swap"))?,
        request: Fingerprint(row.text("request")?.to_owned()),
    }))
}

impl Store {
    pub(crate) async fn get(&self, key: Item) -> Result<Option<Item>, StoreError> {
        let answer = self
            .dynamodb
            .get_item()
            .table_name(&self.table)
            .set_key(Some(key))
            .consistent_read(true)
            .send()
            .await?;
        Ok(answer.item)
    }

    /// A line.
    pub async fn line(&self, id: &SubscriptionId) -> Result<Option<StoredLine>, StoreError> {
        self.get(item::line_key(id))
            .await?
            .as_ref()
            .map(item::to_line)
            .transpose()
    }

    /// Which line has a number.
    pub async fn phone(&self, phone: &Msisdn) -> Result<Option<PhoneEntry>, StoreError> {
        self.get(item::phone_key(phone))
            .await?
            .as_ref()
            .map(item::to_phone)
            .transpose()
    }

    /// A SIM; its secrets stay sealed.
    pub async fn sim(&self, iccid: &Iccid) -> Result<Option<Sim>, StoreError> {
        self.get(item::sim_key(iccid))
            .await?
            .as_ref()
            .map(item::to_sim)
            .transpose()
    }

    /// A SIM with its PINs and PUKs opened.
    pub async fn sim_with_secrets(&self, iccid: &Iccid) -> Result<Option<Sim>, StoreError> {
        let Some(row) = self.get(item::sim_key(iccid)).await? else {
            return Ok(None);
        };
        let pk = item::sim_pk(iccid);
        let open = async |field| match Row(&row).sealed(field) {
            Some(sealed) => self
                .keyring
                .open(&pk, field, &sealed)
                .await
                .map(|text| Some(Secret::new(text))),
            None => Ok(None),
        };
        Ok(Some(Sim {
            pin1: open("pin1").await?,
            pin2: open("pin2").await?,
            puk1: open("puk1").await?,
            puk2: open("puk2").await?,
            ..item::to_sim(&row)?
        }))
    }

    /// What an idempotency key was used for, if there is a key and its answer is still kept.
    pub async fn kept_answer(
        &self,
        key: Option<&IdempotencyKey>,
        now: Timestamp,
    ) -> Result<Option<IdempotencyRecord>, StoreError> {
        let Some(key) = key else {
            return Ok(None);
        };
        match self.get(item::idempotency_key(key.digest())).await? {
            Some(row) => to_kept(&row, now),
            None => Ok(None),
        }
    }

    /// The same, where it was read side by side with the line: a swap that is open on the line may be this key's own,
    /// begun between the two reads.
    pub async fn kept_answer_beside(
        &self,
        line: &StoredLine,
        kept: Option<IdempotencyRecord>,
        key: Option<&IdempotencyKey>,
        now: Timestamp,
    ) -> Result<Option<IdempotencyRecord>, StoreError> {
        match kept {
            None if line.open.is_some() => self.kept_answer(key, now).await,
            kept => Ok(kept),
        }
    }

    /// A swap without its e-mails.
    pub async fn swap(&self, id: &ActivationId) -> Result<Option<StoredSwap>, StoreError> {
        self.get(item::activation_key(id))
            .await?
            .as_ref()
            .map(item::to_swap)
            .transpose()
    }

    /// A swap and its e-mails: they share a hash key, so it is one query.
    pub async fn swap_with_deliveries(&self, id: &ActivationId) -> Result<Option<StoredSwap>, StoreError> {
        let answer = self
            .dynamodb
            .query()
            .table_name(&self.table)
            .key_condition_expression("pk = :pk")
            .expression_attribute_values(":pk", AttributeValue::S(item::activation_pk(id)))
            .consistent_read(true)
            .send()
            .await?;
        let mut swap = None;
        let mut deliveries = Vec::new();
        for row in answer.items() {
            let sk = Row(row).text("sk")?;
            if sk == item::ACTIVATION {
                swap = Some(item::to_swap(row)?);
            } else if item::delivery_number(sk).is_some() {
                deliveries.push(item::to_delivery(row)?);
            }
        }
        Ok(swap.map(|swap| StoredSwap { deliveries, ..swap }))
    }

    /// The swaps whose order has this number at the network: one at most, unless a network gives a number twice. The index
    /// may lag.
    pub async fn swaps_of_order(&self, number: &str) -> Result<Vec<ActivationId>, StoreError> {
        let answer = self
            .dynamodb
            .query()
            .table_name(&self.table)
            .index_name("byOrder")
            .key_condition_expression("#number = :number")
            .expression_attribute_names("#number", item::ORDER_NUMBER)
            .expression_attribute_values(":number", AttributeValue::S(number.to_owned()))
            .limit(10)
            .send()
            .await?;
        let ids = answer.items().iter().map(|row| {
            let pk = Row(row).text("pk")?;
            let id = pk.strip_prefix("A#").ok_or(StoreError::Corrupt("pk"))?;
            ActivationId::parse(id).map_err(|_| StoreError::Corrupt("pk"))
        });
        ids.collect()
    }

    /// Many swaps and the last e-mail of each, in the order of `ids`; those that are gone are left out. Two calls a
    /// hundred.
    pub async fn swaps_with_deliveries(&self, ids: &[ActivationId]) -> Result<Vec<StoredSwap>, StoreError> {
        let mut swaps = self.swaps(ids).await?;
        let mailed = swaps.values().filter(|swap| swap.activation.mails > 0);
        let keys = mailed
            .map(|swap| item::delivery_key(&swap.activation.id, swap.activation.mails))
            .collect();
        for row in self.get_many(keys).await? {
            let delivery = item::to_delivery(&row)?;
            if let Some(swap) = swaps.get_mut(&delivery.activation) {
                swap.deliveries.push(delivery);
            }
        }
        Ok(ids.iter().filter_map(|id| swaps.remove(id)).collect())
    }

    /// Many swaps without their e-mails; those that are gone are left out. A call a hundred.
    pub async fn swaps(&self, ids: &[ActivationId]) -> Result<HashMap<ActivationId, StoredSwap>, StoreError> {
        let keys = ids.iter().map(item::activation_key).collect();
        let rows = self.get_many(keys).await?;
        let swaps = rows.iter().map(|row| {
            let swap = item::to_swap(row)?;
            Ok((swap.activation.id.clone(), swap))
        });
        swaps.collect()
    }

    async fn get_many(&self, keys: Vec<Item>) -> Result<Vec<Item>, StoreError> {
        const KEYS_A_CALL: usize = 100;
        const ROUNDS: u32 = 8;
        let mut found = Vec::with_capacity(keys.len());
        let mut wanted = keys;
        let mut unanswered = 0;
        while !wanted.is_empty() {
            let rest = wanted.split_off(wanted.len().min(KEYS_A_CALL));
            let keys = KeysAndAttributes::builder()
                .set_keys(Some(wanted))
                .consistent_read(true)
                .build()
                .map_err(|error| StoreError::Refused(error.into()))?;
            let answer = self
                .dynamodb
                .batch_get_item()
                .request_items(&self.table, keys)
                .send()
                .await?;
            found.extend(answer.responses.unwrap_or_default().into_values().flatten());
            wanted = rest;
            let unprocessed = answer.unprocessed_keys.unwrap_or_default();
            if !unprocessed.is_empty() {
                unanswered += 1;
                if unanswered == ROUNDS {
                    return Err(StoreError::Unavailable("keys stay unprocessed".into()));
                }
                tokio::time::sleep(pause(unanswered)).await;
            }
            wanted.extend(unprocessed.into_values().flat_map(|keys| keys.keys));
        }
        Ok(found)
    }

    /// A mail.
    pub async fn delivery(&self, activation: &ActivationId, number: u32) -> Result<Option<Delivery>, StoreError> {
        let row = self.get(item::delivery_key(activation, number)).await?;
        row.as_ref().map(item::to_delivery).transpose()
    }

    /// The confirmation code of a swap, unless it was never given or is erased.
    pub async fn confirmation_code(&self, swap: &StoredSwap) -> Result<Option<domain::ConfirmationCode>, StoreError> {
        let Some(sealed) = &swap.secrets.code else {
            return Ok(None);
        };
        let pk = item::activation_pk(&swap.activation.id);
        let text = self.keyring.open(&pk, item::CODE, sealed).await?;
        domain::ConfirmationCode::parse(&text)
            .map(Some)
            .map_err(|_| StoreError::Corrupt(item::CODE))
    }

    /// The matching id of an eSIM swap.
    pub async fn matching_id(&self, swap: &StoredSwap) -> Result<domain::MatchingId, StoreError> {
        let sealed = swap
            .secrets
            .matching_id
            .as_ref()
            .ok_or(StoreError::Corrupt(item::MATCHING_ID))?;
        let pk = item::activation_pk(&swap.activation.id);
        let text = self.keyring.open(&pk, item::MATCHING_ID, sealed).await?;
        domain::MatchingId::parse(&text).map_err(|_| StoreError::Corrupt(item::MATCHING_ID))
    }
}
