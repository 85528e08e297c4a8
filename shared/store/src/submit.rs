//! The one transaction that begins a swap, and what makes requests the same.

use aws_sdk_dynamodb::types::{AttributeValue, Put, ReturnValuesOnConditionCheckFailure, Update};
use domain::{Activation, ActivationId, Caller, ConfirmationCode, Iccid, Line, MatchingId, SwapKind};
use jiff::{SignedDuration, Timestamp};
use ring::digest::{SHA256, digest};

use crate::item::{self, RequestedSwap, StoredLine};
use crate::read::to_kept;
use crate::transaction::{failed, put, text, update};
use crate::{Fingerprint, IdempotencyRecord, Store, StoreError, StoredSwap, SwapSecrets};

/// How long an answer is kept for its key: a day, and an hour for clocks that differ.
const KEPT: SignedDuration = SignedDuration::from_hours(25);

/// A caller's key for one request. Two callers never share one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// The key `key` of this caller.
    pub fn new(caller: &Caller, key: &str) -> Self {
        Self(hex(
            digest(&SHA256, format!("{}\n{key}", caller.identity()).as_bytes()).as_ref()
        ))
    }

    pub(crate) fn digest(&self) -> &str {
        &self.0
    }
}

/// Everything that the transaction writes.
#[derive(Debug)]
pub struct NewSwap<'a> {
    /// The swap, in its first phase.
    pub swap: &'a StoredSwap,
    /// What was asked.
    pub request: &'a Fingerprint,
    /// The caller's key for it.
    pub key: Option<&'a IdempotencyKey>,
    /// Whether the SIM is the one that is kept for the line.
    pub takes_kept: bool,
}

/// What became of a new swap. All but `Accepted` wrote nothing.
#[derive(Debug)]
pub enum Submitted {
    /// It stands.
    Accepted,
    /// The idempotency key was used in the meantime.
    Replayed(IdempotencyRecord),
    /// The line is not as it was read; this is how it is now, unless it is gone.
    LineChanged(Option<Box<StoredLine>>),
    /// The SIM is not there, not free, or not for this line.
    SimTaken,
}

impl Store {
    /// The fingerprint of a request without secrets.
    pub fn fingerprint(&self, request: &str) -> Fingerprint {
        Fingerprint(format!("0:{}", hex(digest(&SHA256, request.as_bytes()).as_ref())))
    }

    /// The fingerprint of a request that holds a confirmation code.
    pub async fn signed_fingerprint(&self, request: &str) -> Result<Fingerprint, StoreError> {
        let (number, tag) = self.keyring.sign("request", request).await?;
        Ok(Fingerprint(format!("{number}:{}", hex(&tag))))
    }

    /// Whether `request` is the one that `kept` was made of.
    pub async fn is_same_request(&self, kept: &Fingerprint, request: &str) -> Result<bool, StoreError> {
        let corrupt = StoreError::Corrupt("request");
        let (number, tag) = kept.0.split_once(':').ok_or(corrupt)?;
        match number.parse().map_err(|_| StoreError::Corrupt("request"))? {
            0 => Ok(self.fingerprint(request) == *kept),
            number => {
                let tag = unhex(tag).ok_or(StoreError::Corrupt("request"))?;
                self.keyring.verify(number, "request", request, &tag).await
            }
        }
    }

    /// Whether `caller` is the one who asked the open swap.
    pub fn is_same_caller(&self, open: &RequestedSwap, caller: &Caller) -> bool {
        open.caller == caller_digest(caller)
    }

    /// Whether `caller` is the one who asked this swap.
    pub fn has_asked(&self, swap: &StoredSwap, caller: &Caller) -> bool {
        swap.caller == caller_digest(caller)
    }

    /// Seals the secrets of a swap for its row.
    pub async fn seal_secrets(
        &self,
        id: &ActivationId,
        code: Option<&ConfirmationCode>,
        matching_id: Option<&MatchingId>,
    ) -> Result<SwapSecrets, StoreError> {
        let pk = item::activation_pk(id);
        let mut secrets = SwapSecrets::default();
        if let Some(code) = code {
            secrets.code = Some(self.keyring.seal(&pk, item::CODE, code.expose()).await?);
        }
        if let Some(id) = matching_id {
            secrets.matching_id = Some(self.keyring.seal(&pk, item::MATCHING_ID, id.expose()).await?);
        }
        Ok(secrets)
    }

    /// A look at the SIMs that are free to be assigned to a line, the first or a further one. The index may lag: each may be taken by
    /// now. The first look is at its reseller's own stock and, if there is none, at everybody's; a further one is at both,
    /// and past what the first one saw.
    pub async fn free_sims(
        &self,
        line: &Line,
        kind: SwapKind,
        now: Timestamp,
        look: usize,
    ) -> Result<Vec<Iccid>, StoreError> {
        const CANDIDATES: [i32; 2] = [32, 128];
        let at_most = CANDIDATES[look.min(1)];
        let mut found = match &line.reseller {
            Some(own) => self.free_on(line, Some(own), kind, now, at_most).await?,
            None => Vec::new(),
        };
        if found.is_empty() || look > 0 {
            found.extend(self.free_on(line, None, kind, now, at_most).await?);
        }
        Ok(found)
    }

    async fn free_on(
        &self,
        line: &Line,
        reseller: Option<&str>,
        kind: SwapKind,
        now: Timestamp,
        at_most: i32,
    ) -> Result<Vec<Iccid>, StoreError> {
        let answer = self
            .dynamodb
            .query()
            .table_name(&self.table)
            .index_name("free")
            .key_condition_expression("shelf = :shelf AND freeFrom <= :now")
            .expression_attribute_values(":shelf", AttributeValue::S(item::shelf(&line.network, reseller, kind)))
            .expression_attribute_values(":now", AttributeValue::S(item::sortable(now)))
            .limit(at_most)
            .send()
            .await?;
        answer
            .items()
            .iter()
            .map(|row| {
                let pk = item::Row(row).text("pk")?;
                let iccid = pk.strip_prefix("S#").ok_or(StoreError::Corrupt("pk"))?;
                Iccid::parse(iccid).map_err(|_| StoreError::Corrupt("pk"))
            })
            .collect()
    }

    /// Begins a swap: activation written, line marked, SIM reserved, answer kept; all or nothing.
    pub async fn submit(&self, new: NewSwap<'_>) -> Result<Submitted, StoreError> {
        let now = new.swap.activation.created_at;
        let mut writes = vec![
            put(self.put_new_activation(new.swap)?),
            update(self.mark_line(&new)?),
            update(self.reserve_sim(&new.swap.activation, new.takes_kept)?),
        ];
        if let Some(key) = new.key {
            writes.push(put(self.keep_answer(&new, key)?));
        }
        let Some(reasons) = self.transact(writes).await? else {
            return Ok(Submitted::Accepted);
        };
        // A retry inside the SDK meets what its first try wrote: our own activation is there already.
        if failed(&reasons, 0) {
            return Ok(Submitted::Accepted);
        }
        if failed(&reasons, 3)
            && let Some(row) = &reasons[3].item
            && let Some(kept) = to_kept(row, now)?
        {
            return Ok(Submitted::Replayed(kept));
        }
        if failed(&reasons, 1) {
            let line = reasons[1].item.as_ref().map(item::to_line).transpose()?;
            return Ok(Submitted::LineChanged(line.map(Box::new)));
        }
        Ok(Submitted::SimTaken)
    }

    fn put_new_activation(&self, swap: &StoredSwap) -> Result<Put, StoreError> {
        Put::builder()
            .table_name(&self.table)
            .set_item(Some(item::from_swap(swap)))
            .condition_expression("attribute_not_exists(pk)")
            .build()
            .map_err(|error| StoreError::Refused(error.into()))
    }

    fn mark_line(&self, new: &NewSwap<'_>) -> Result<Update, StoreError> {
        let a = &new.swap.activation;
        let mut condition = "attribute_not_exists(swap) AND #state = :active AND porting = :no \
                             AND locked = :no AND sim = :sim AND customer = :customer"
            .to_owned();
        let mut forget = String::new();
        if new.takes_kept {
            let [kept, from] = item::kept_names(a.kind);
            condition += &format!(" AND {kept} = :new");
            forget = format!(" REMOVE {kept}, {from}");
        }
        condition += match a.reseller {
            Some(_) => " AND reseller = :reseller",
            None => " AND attribute_not_exists(reseller)",
        };
        let reseller = a.reseller.clone().map(AttributeValue::S);
        let mut update = Update::builder()
            .table_name(&self.table)
            .set_key(Some(item::line_key(&a.subscription)))
            .update_expression(format!(
                "SET swap = :swap, swapCaller = :caller, swapRequest = :request{forget}"
            ))
            .condition_expression(condition)
            .expression_attribute_names("#state", "state")
            .expression_attribute_values(":swap", text(a.id.as_str()))
            .expression_attribute_values(":caller", text(&new.swap.caller))
            .expression_attribute_values(":request", text(&new.request.0))
            .expression_attribute_values(":active", text("ACTIVE"))
            .expression_attribute_values(":no", AttributeValue::Bool(false))
            .expression_attribute_values(":sim", text(a.old_sim.as_str()))
            .expression_attribute_values(":customer", text(&a.customer))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        if let Some(reseller) = reseller {
            update = update.expression_attribute_values(":reseller", reseller);
        }
        if new.takes_kept {
            update = update.expression_attribute_values(":new", text(a.new_sim.as_str()));
        }
        update.build().map_err(|error| StoreError::Refused(error.into()))
    }

    /// The condition alone says whether the SIM may be used: what is not there and what is not for this line look the same.
    fn reserve_sim(&self, a: &Activation, takes_kept: bool) -> Result<Update, StoreError> {
        let form = match a.kind {
            SwapKind::Esim => "form = :esim",
            SwapKind::Physical => "form <> :esim",
        };
        let mut reseller = "attribute_not_exists(reseller)".to_owned();
        if a.reseller.is_some() {
            reseller = format!("({reseller} OR reseller = :reseller)");
        }
        let kept = if takes_kept {
            "holder = :line"
        } else {
            "attribute_not_exists(holder)"
        };
        let mut update = Update::builder()
            .table_name(&self.table)
            .set_key(Some(item::sim_key(&a.new_sim)))
            .update_expression("SET #state = :busy, holder = :holder REMOVE shelf")
            .condition_expression(format!(
                "#state = :free AND freeFrom <= :now AND network = :network AND {form} \
                 AND {reseller} AND {kept}"
            ))
            .expression_attribute_names("#state", "state")
            .expression_attribute_values(":busy", text("BUSY"))
            .expression_attribute_values(":free", text("FREE"))
            .expression_attribute_values(":esim", text("eSIM"))
            .expression_attribute_values(":holder", text(item::activation_pk(&a.id)))
            .expression_attribute_values(":now", text(item::sortable(a.created_at)))
            .expression_attribute_values(":network", text(a.network.as_str()));
        if let Some(of_line) = &a.reseller {
            update = update.expression_attribute_values(":reseller", text(of_line));
        }
        if takes_kept {
            let line = text(item::line_holder(&a.subscription));
            update = update.expression_attribute_values(":line", line);
        }
        update.build().map_err(|error| StoreError::Refused(error.into()))
    }

    fn keep_answer(&self, new: &NewSwap<'_>, key: &IdempotencyKey) -> Result<Put, StoreError> {
        let a = &new.swap.activation;
        let expires = (a.created_at + KEPT).as_second();
        let now = AttributeValue::N(a.created_at.as_second().to_string());
        Put::builder()
            .table_name(&self.table)
            .set_item(Some(item::idempotency_key(key.digest())))
            .item("swap", text(a.id.as_str()))
            .item("request", text(&new.request.0))
            .item("expires", AttributeValue::N(expires.to_string()))
            .condition_expression("attribute_not_exists(pk) OR expires <= :now")
            .expression_attribute_values(":now", now)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .build()
            .map_err(|error| StoreError::Refused(error.into()))
    }
}

/// A name for who calls, half of a SHA-256: no two callers share it, and it tells nothing to somebody who does not know the
/// caller's subject, role and claim.
pub fn caller_digest(caller: &Caller) -> String {
    hex(&digest(&SHA256, caller.identity().as_bytes()).as_ref()[..16])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    rest.is_empty().then(|| pairs.iter().map(byte).collect()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trips() {
        assert_eq!(hex(&[0, 255, 16]), "00ff10");
        assert_eq!(unhex("00ff10"), Some(vec![0, 255, 16]));
        assert_eq!(unhex("0"), None);
        assert_eq!(unhex("zz"), None);
    }
}
