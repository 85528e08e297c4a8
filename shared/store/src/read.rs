//! Reads of rows by their keys. They are consistent, except for the lookup by order number. Listings are in `listing`.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use aws_sdk_dynamodb::types::KeysAndAttributes;
use domain::{ActivationId, Delivery, Iccid, Msisdn, Secret, Sim, SubscriptionId};

use crate::attributes::{Item, Row, text};
use crate::transaction::backoff;
use crate::{PhoneEntry, Renewal, Store, StoreError, StoredLine, StoredSwap, caller_digest, keys, rows};

impl Store {
    pub(crate) async fn get(&self, key: Item) -> Result<Option<Item>, StoreError> {
        let response = self
            .dynamodb
            .get_item()
            .table_name(&self.table)
            .set_key(Some(key))
            .consistent_read(true)
            .send()
            .await?;
        Ok(response.item)
    }

    /// Reads a line. One call.
    pub async fn line(&self, id: &SubscriptionId) -> Result<Option<StoredLine>, StoreError> {
        self.get(keys::line_key(id))
            .await?
            .as_ref()
            .map(rows::to_line)
            .transpose()
    }

    /// Reads which line has a phone number. One call.
    pub async fn phone(&self, phone: &Msisdn) -> Result<Option<PhoneEntry>, StoreError> {
        self.get(keys::phone_key(phone))
            .await?
            .as_ref()
            .map(rows::to_phone)
            .transpose()
    }

    /// Reads a SIM without its secrets. One call.
    pub async fn sim(&self, iccid: &Iccid) -> Result<Option<Sim>, StoreError> {
        self.get(keys::sim_key(iccid))
            .await?
            .as_ref()
            .map(rows::to_sim)
            .transpose()
    }

    /// Reads a SIM with its PINs and PUKs decrypted.
    pub async fn sim_with_secrets(&self, iccid: &Iccid) -> Result<Option<Sim>, StoreError> {
        let Some(row) = self.get(keys::sim_key(iccid)).await? else {
            return Ok(None);
        };
        let pk = keys::sim_pk(iccid);
        let decrypt = async |field| match Row(&row).sealed(field) {
            Some(sealed) => self
                .keyring
                .open(&pk, field, &sealed)
                .await
                .map(|text| Some(Secret::new(text))),
            None => Ok(None),
        };
        Ok(Some(Sim {
            pin1: decrypt("pin1").await?,
            pin2: decrypt("pin2").await?,
            puk1: decrypt("puk1").await?,
            puk2: decrypt("puk2").await?,
            ..rows::to_sim(&row)?
        }))
    }

    /// Reads a swap without its mails. One call.
    pub async fn swap(&self, id: &ActivationId) -> Result<Option<StoredSwap>, StoreError> {
        self.get(keys::activation_key(id))
            .await?
            .as_ref()
            .map(rows::to_swap)
            .transpose()
    }

    /// Reads a swap with its mails. They share a hash key, so this is one query.
    pub async fn swap_with_deliveries(&self, id: &ActivationId) -> Result<Option<StoredSwap>, StoreError> {
        let page = self
            .dynamodb
            .query()
            .table_name(&self.table)
            .key_condition_expression("pk = :pk")
            .expression_attribute_values(":pk", text(keys::activation_pk(id)))
            .consistent_read(true)
            .send()
            .await?;
        let mut swap = None;
        let mut deliveries = Vec::new();
        for row in page.items() {
            let sk = Row(row).text("sk")?;
            if sk == keys::ACTIVATION {
                swap = Some(rows::to_swap(row)?);
            } else if keys::delivery_number(sk).is_some() {
                deliveries.push(rows::to_delivery(row)?);
            }
        }
        Ok(swap.map(|swap| StoredSwap { deliveries, ..swap }))
    }

    /// The swaps whose order has this number at the network. There is at most one, unless the network assigns a number
    /// twice. The index may lag.
    pub async fn swaps_of_order(&self, number: &str) -> Result<Vec<ActivationId>, StoreError> {
        let page = self
            .dynamodb
            .query()
            .table_name(&self.table)
            .index_name("byOrder1")
            .key_condition_expression("#number = :number")
            .expression_attribute_names("#number", rows::ORDER_NUMBER)
            .expression_attribute_values(":number", text(number))
            .limit(10)
            .send()
            .await?;
        let swaps = page.items().iter();
        swaps.map(|row| Row(row).parsed_pk("A#", ActivationId::parse)).collect()
    }

    /// Reads many swaps, each with its last mail, in the order of `ids`. Omits swaps that do not exist. Two calls for
    /// every hundred swaps.
    pub async fn swaps_with_deliveries(&self, ids: &[ActivationId]) -> Result<Vec<StoredSwap>, StoreError> {
        self.swaps_with_mails(ids, |mails| mails.max(1)..=mails).await
    }

    /// Reads many swaps, each with all its mails, in the order of `ids`. Omits swaps that do not exist. One call for
    /// every hundred swaps, and one for every hundred mails.
    pub async fn swaps_with_all_deliveries(&self, ids: &[ActivationId]) -> Result<Vec<StoredSwap>, StoreError> {
        self.swaps_with_mails(ids, |mails| 1..=mails).await
    }

    /// Reads many swaps with the mails whose numbers `wanted` selects, given how many mails a swap has.
    async fn swaps_with_mails(
        &self,
        ids: &[ActivationId],
        wanted: impl Fn(u32) -> RangeInclusive<u32>,
    ) -> Result<Vec<StoredSwap>, StoreError> {
        let mut swaps = self.swaps(ids).await?;
        let keys = swaps.values().flat_map(|swap| {
            let a = &swap.activation;
            wanted(a.mails).map(|number| keys::delivery_key(&a.id, number))
        });
        for row in self.get_many(keys.collect()).await? {
            let delivery = rows::to_delivery(&row)?;
            if let Some(swap) = swaps.get_mut(&delivery.activation) {
                swap.deliveries.push(delivery);
            }
        }
        let mut found: Vec<_> = ids.iter().filter_map(|id| swaps.remove(id)).collect();
        for swap in &mut found {
            swap.deliveries.sort_unstable_by_key(|mail| mail.number);
        }
        Ok(found)
    }

    /// Reads many swaps without their mails. Omits swaps that do not exist. One call for every hundred swaps.
    pub async fn swaps(&self, ids: &[ActivationId]) -> Result<HashMap<ActivationId, StoredSwap>, StoreError> {
        let keys = ids.iter().map(keys::activation_key).collect();
        let rows = self.get_many(keys).await?;
        let swaps = rows.iter().map(|row| {
            let swap = rows::to_swap(row)?;
            Ok((swap.activation.id.clone(), swap))
        });
        swaps.collect()
    }

    /// Reads many rows, in no particular order. Omits rows that do not exist.
    pub(crate) async fn get_many(&self, keys: Vec<Item>) -> Result<Vec<Item>, StoreError> {
        const KEYS_PER_CALL: usize = 100;
        const INCOMPLETE_CALLS: u32 = 8;
        let mut found = Vec::with_capacity(keys.len());
        let mut pending = keys;
        let mut incomplete_calls = 0;
        while !pending.is_empty() {
            let rest = pending.split_off(pending.len().min(KEYS_PER_CALL));
            let keys = KeysAndAttributes::builder()
                .set_keys(Some(pending))
                .consistent_read(true)
                .build()
                .map_err(|error| StoreError::Rejected(error.into()))?;
            let response = self
                .dynamodb
                .batch_get_item()
                .request_items(&self.table, keys)
                .send()
                .await?;
            found.extend(response.responses.unwrap_or_default().into_values().flatten());
            pending = rest;
            let unprocessed = response.unprocessed_keys.unwrap_or_default();
            if !unprocessed.is_empty() {
                incomplete_calls += 1;
                if incomplete_calls == INCOMPLETE_CALLS {
                    return Err(StoreError::Unavailable(
                        "DynamoDB repeatedly left keys unprocessed".into(),
                    ));
                }
                tokio::time::sleep(backoff(incomplete_calls)).await;
            }
            pending.extend(unprocessed.into_values().flat_map(|keys| keys.keys));
        }
        Ok(found)
    }

    /// Reads a mail. One call.
    pub async fn delivery(&self, activation: &ActivationId, number: u32) -> Result<Option<Delivery>, StoreError> {
        let row = self.get(keys::delivery_key(activation, number)).await?;
        row.as_ref().map(rows::to_delivery).transpose()
    }

    /// Decrypts the confirmation code of a swap. `None` if the request had none or it is erased.
    pub async fn confirmation_code(&self, swap: &StoredSwap) -> Result<Option<domain::ConfirmationCode>, StoreError> {
        let Some(sealed) = &swap.secrets.code else {
            return Ok(None);
        };
        let pk = keys::activation_pk(&swap.activation.id);
        let text = self.keyring.open(&pk, rows::CODE, sealed).await?;
        domain::ConfirmationCode::parse(&text)
            .map(Some)
            .map_err(|_| StoreError::Corrupt(rows::CODE))
    }

    /// Encrypts a new activation code for a swap: the matching id, and the confirmation code that `caller` gave.
    pub async fn seal_renewal(
        &self,
        swap: &ActivationId,
        matching_id: &domain::MatchingId,
        code: Option<&domain::ConfirmationCode>,
        caller: &domain::Caller,
    ) -> Result<Renewal, StoreError> {
        let sealed = self.seal_secrets(swap, code, Some(matching_id)).await?;
        Ok(Renewal {
            matching_id: sealed.matching_id.ok_or(StoreError::Sealing)?,
            code: sealed.code.map(|code| (code, caller_digest(caller))),
        })
    }

    /// Decrypts the matching id and the confirmation code that a swap gets with its renewal.
    pub async fn renewed_secrets(
        &self,
        swap: &StoredSwap,
    ) -> Result<(domain::MatchingId, Option<domain::ConfirmationCode>), StoreError> {
        let renewal = swap.renewal.as_ref().ok_or(StoreError::Corrupt(rows::MATCHING_ID))?;
        let mut secrets = swap.secrets.clone();
        secrets.matching_id = Some(renewal.matching_id.clone());
        if let Some((code, _)) = &renewal.code {
            secrets.code = Some(code.clone());
        }
        let renewed = StoredSwap {
            secrets,
            ..swap.clone()
        };
        Ok((
            self.matching_id(&renewed).await?,
            self.confirmation_code(&renewed).await?,
        ))
    }

    /// Decrypts the matching id of an eSIM swap.
    pub async fn matching_id(&self, swap: &StoredSwap) -> Result<domain::MatchingId, StoreError> {
        let sealed = swap
            .secrets
            .matching_id
            .as_ref()
            .ok_or(StoreError::Corrupt(rows::MATCHING_ID))?;
        let pk = keys::activation_pk(&swap.activation.id);
        let text = self.keyring.open(&pk, rows::MATCHING_ID, sealed).await?;
        domain::MatchingId::parse(&text).map_err(|_| StoreError::Corrupt(rows::MATCHING_ID))
    }
}
