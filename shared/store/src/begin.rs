//! Begins a swap for either dialect: chooses its SIM, encrypts its secrets, and writes the swap in one transaction with
//! its line, its SIM and the record of its idempotency key. The transaction repeats as conditions what
//! [`swap_blocker`](Line::swap_blocker) has checked.

use aws_sdk_dynamodb::types::builders::UpdateBuilder;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValuesOnConditionCheckFailure};
use domain::{Activation, ActivationId, Caller, ConfirmationCode, Iccid, Line, MatchingId, Requested, SwapKind};
use jiff::{SignedDuration, Timestamp};

use crate::attributes::{Row, sortable, text};
use crate::form::Form;
use crate::idempotency::long_caller_digest;
use crate::transaction::{condition_failed, put, update};
use crate::{
    CanonicalRequest, Fingerprint, IdempotencyKey, IdempotencyRecord, Store, StoreError, StoredLine, StoredSwap,
    SwapSecrets, caller_digest, keys, rows,
};

/// The request for a swap of a line that can be swapped.
pub struct SwapRequest<'a> {
    /// The caller who requests the swap.
    pub caller: &'a Caller,
    /// The line, as it was read.
    pub line: &'a Line,
    /// What the line moves to.
    pub kind: SwapKind,
    /// The SIM, if the caller named one. Without it the store chooses a free SIM, and prefers the one that is kept for
    /// the line.
    pub sim: Option<&'a Iccid>,
    /// Whether the response shows the SIM's PINs and PUKs.
    pub shows_codes: bool,
    /// What the request contains and responses echo.
    pub requested: &'a Requested,
    /// The request, with the confirmation code, as a repeat has to be equal to it.
    pub request: CanonicalRequest<'a>,
    /// The caller's idempotency key, if there is one.
    pub key: Option<&'a IdempotencyKey>,
    /// How long the stream consumer has to claim the swap before the sweeper wakes it.
    pub lease: SignedDuration,
    /// The time of the request.
    pub at: Timestamp,
}

/// The result of [`Store::begin`]. Only `Accepted` wrote anything.
pub enum Begun {
    /// The swap has begun.
    Accepted(Box<Activation>),
    /// The idempotency key has been used in the meantime.
    Replayed(IdempotencyRecord),
    /// The line has changed since it was read. This is the line as it is stored; `None` if it does not exist any more.
    LineChanged(Option<Box<StoredLine>>),
    /// The named SIM cannot be used for this line, or no free SIM is left.
    NoSim,
}

/// What the transaction of a new swap writes.
struct NewSwap<'a> {
    /// The swap in its first phase.
    swap: StoredSwap,
    /// Digest of the caller, as the line has it.
    caller: &'a str,
    /// Fingerprint of the request.
    request: &'a Fingerprint,
    /// The caller's idempotency key.
    key: Option<&'a IdempotencyKey>,
    /// Whether the SIM is the one that is kept for the line.
    takes_kept: bool,
}

impl Store {
    /// Begins a swap. `random` returns 128 unpredictable bits.
    ///
    /// If the caller named no SIM and none is kept for the line, the store reads a page of free SIMs and tries them
    /// from a random position, so that concurrent requests do not compete for the same SIM. While all of them have been
    /// taken in the meantime, the store reads larger pages, until one has no SIM that it has not tried.
    ///
    /// # Errors
    ///
    /// `StoreError::Unavailable` if other requests take every SIM of many pages first.
    pub async fn begin(&self, request: &SwapRequest<'_>, random: impl Fn() -> u128) -> Result<Begun, StoreError> {
        const PAGES_AT_LEAST: usize = 2;
        const PAGES_AT_MOST: usize = 10;
        let id = ActivationId::from_random(request.at, random());
        let matching_id = (request.kind == SwapKind::Esim).then(|| MatchingId::from_random(random()));
        let fingerprint = self.fingerprint(request.request).await?;
        let secrets = self
            .seal_secrets(&id, request.request.code, matching_id.as_ref())
            .await?;
        let caller = caller_digest(request.caller);
        let caller_on_line = match self.form() {
            Form::Earlier => long_caller_digest(request.caller),
            Form::One => caller.clone(),
        };
        let kept = request.line.kept_sim(request.kind);
        let usable_kept = kept.filter(|kept| kept.from <= request.at);
        let mut unusable = Vec::new();
        // Round 0 tries the SIM that was named or is kept for the line. Each further round tries a page of free SIMs.
        for round in 0..=PAGES_AT_MOST {
            let mut candidates = match (round, request.sim) {
                (0, named) => {
                    let first = named.or(usable_kept.map(|kept| &kept.iccid));
                    first.cloned().into_iter().collect()
                }
                (_, Some(_)) => return self.reread_without_sim(request).await,
                (round, None) => {
                    let free = self.free_sims(request.line, request.kind, request.at, round - 1);
                    free.await?
                }
            };
            candidates.retain(|candidate| !unusable.contains(candidate));
            if candidates.is_empty() && round >= PAGES_AT_LEAST {
                return self.reread_without_sim(request).await;
            }
            if !candidates.is_empty() {
                let start = random() % candidates.len() as u128;
                candidates.rotate_left(start as usize);
            }
            for candidate in candidates {
                let takes_kept = kept.is_some_and(|kept| kept.iccid == candidate);
                let activation = Activation::accept(
                    id.clone(),
                    request.line,
                    request.kind,
                    candidate.clone(),
                    request.requested.clone(),
                    &request.caller.label(),
                    request.lease,
                    request.at,
                );
                let activation = Activation {
                    codes_shown: takes_kept || request.shows_codes,
                    ..activation
                };
                let stored = StoredSwap::new(activation, &caller);
                let stored = StoredSwap {
                    secrets: secrets.clone(),
                    ..stored
                };
                let new = NewSwap {
                    swap: stored,
                    caller: &caller_on_line,
                    request: &fingerprint,
                    key: request.key,
                    takes_kept,
                };
                if let Some(begun) = self.submit(new).await? {
                    return Ok(begun);
                }
                unusable.push(candidate);
            }
        }
        Err(StoreError::Unavailable(
            "other requests take every free SIM first".into(),
        ))
    }

    /// Another request may have taken the last SIM. If that was this same request, sent twice, the caller gets its swap.
    async fn reread_without_sim(&self, request: &SwapRequest<'_>) -> Result<Begun, StoreError> {
        let record = self.idempotency_record(request.key, request.at);
        let (line, record) = tokio::try_join!(self.line(&request.line.id), record)?;
        let Some(line) = line else {
            return Ok(Begun::LineChanged(None));
        };
        let record = self.idempotency_record_for_line(&line, record, request.key, request.at);
        Ok(match record.await? {
            Some(record) => Begun::Replayed(record),
            None if line.open.is_some() => Begun::LineChanged(Some(Box::new(line))),
            None => Begun::NoSim,
        })
    }

    /// Encrypts the secrets of a swap for its row.
    pub(crate) async fn seal_secrets(
        &self,
        id: &ActivationId,
        code: Option<&ConfirmationCode>,
        matching_id: Option<&MatchingId>,
    ) -> Result<SwapSecrets, StoreError> {
        let pk = keys::activation_pk(id);
        let code_text = code.map(|code| (rows::CODE, code.expose()));
        let matching_text = matching_id.map(|id| (rows::MATCHING_ID, id.expose()));
        let texts: Vec<_> = code_text.into_iter().chain(matching_text).collect();
        let mut sealed = self.keyring.seal(&pk, &texts).await?.into_iter();
        Ok(SwapSecrets {
            code: code.and_then(|_| sealed.next()),
            matching_id: matching_id.and_then(|_| sealed.next()),
        })
    }

    /// SIMs of this kind that can be assigned to a line. The index may lag, so each may have been taken already.
    ///
    /// Page 0 has SIMs of the line's reseller or, if the reseller has none, SIMs without a reseller. Every further page
    /// has more SIMs, of both pools.
    pub async fn free_sims(
        &self,
        line: &Line,
        kind: SwapKind,
        now: Timestamp,
        page: usize,
    ) -> Result<Vec<Iccid>, StoreError> {
        const PAGE_SIZES: [i32; 2] = [32, 128];
        let limit = PAGE_SIZES[page.min(1)];
        let mut found = match &line.reseller {
            Some(reseller) => self.free_sims_of(line, Some(reseller), kind, now, limit).await?,
            None => Vec::new(),
        };
        if found.is_empty() || page > 0 {
            found.extend(self.free_sims_of(line, None, kind, now, limit).await?);
        }
        Ok(found)
    }

    /// Up to `limit` SIMs of one pool.
    async fn free_sims_of(
        &self,
        line: &Line,
        reseller: Option<&str>,
        kind: SwapKind,
        now: Timestamp,
        limit: i32,
    ) -> Result<Vec<Iccid>, StoreError> {
        let pool = keys::pool_name(&line.network, reseller, kind);
        let page = self
            .dynamodb
            .query()
            .table_name(&self.table)
            .index_name("free1")
            .key_condition_expression("shelf = :shelf AND freeFrom <= :now")
            .expression_attribute_values(":shelf", text(pool))
            .expression_attribute_values(":now", text(sortable(now)))
            .limit(limit)
            .send()
            .await?;
        let sims = page.items().iter();
        sims.map(|row| Row(row).parsed_pk("S#", Iccid::parse)).collect()
    }

    /// Runs the transaction: writes the swap, sets the line's open swap, reserves the SIM, and writes the idempotency
    /// record. Returns `None` if the SIM does not exist, is not free, or cannot be used for this line.
    async fn submit(&self, new: NewSwap<'_>) -> Result<Option<Begun>, StoreError> {
        const SWAP: usize = 0;
        const LINE: usize = 1;
        const RECORD: usize = 3;
        let swap = &new.swap.activation;
        let mut writes = vec![
            put(self.put_new_row(rows::from_swap(self.form(), &new.swap)))?,
            update(self.set_open_swap(&new))?,
            update(self.reserve_sim(swap, new.takes_kept))?,
        ];
        if let Some(key) = new.key {
            writes.push(put(self.put_idempotency_record(
                key,
                &swap.id,
                new.request,
                None,
                swap.created_at,
            ))?);
        }
        let Some(reasons) = self.transact(writes).await? else {
            return Ok(Some(Begun::Accepted(Box::new(new.swap.activation))));
        };
        // The SDK retried a transaction whose first attempt was written: the swap exists because it is this one.
        if condition_failed(&reasons, SWAP) {
            return Ok(Some(Begun::Accepted(Box::new(new.swap.activation))));
        }
        if condition_failed(&reasons, RECORD)
            && let Some(row) = &reasons[RECORD].item
            && let Some(record) = IdempotencyRecord::from_row(row, swap.created_at)?
        {
            return Ok(Some(Begun::Replayed(record)));
        }
        if condition_failed(&reasons, LINE) {
            let line = reasons[LINE].item.as_ref().map(rows::to_line).transpose()?;
            return Ok(Some(Begun::LineChanged(line.map(Box::new))));
        }
        Ok(None)
    }

    fn set_open_swap(&self, new: &NewSwap<'_>) -> UpdateBuilder {
        let a = &new.swap.activation;
        let mut condition = "attribute_not_exists(swap) AND #state = :active AND porting = :no \
                             AND locked = :no AND sim = :sim AND phone = :phone AND customer = :customer"
            .to_owned();
        let mut remove_kept = String::new();
        if new.takes_kept {
            let [kept, from] = rows::kept_sim_attributes(a.kind);
            condition += &format!(" AND {kept} = :new");
            remove_kept = format!(" REMOVE {kept}, {from}");
        }
        condition += match a.reseller {
            Some(_) => " AND reseller = :reseller",
            None => " AND attribute_not_exists(reseller)",
        };
        let mut update = self
            .update_row(keys::line_key(&a.subscription))
            .update_expression(format!(
                "SET swap = :swap, swapCaller = :caller, swapRequest = :request{remove_kept}"
            ))
            .condition_expression(condition)
            .expression_attribute_names("#state", "state")
            .expression_attribute_values(":swap", text(a.id.as_str()))
            .expression_attribute_values(":caller", text(new.caller))
            .expression_attribute_values(":request", text(&new.request.0))
            .expression_attribute_values(":active", text("ACTIVE"))
            .expression_attribute_values(":no", AttributeValue::Bool(false))
            .expression_attribute_values(":sim", text(a.old_sim.as_str()))
            .expression_attribute_values(":phone", text(a.phone.as_e164()))
            .expression_attribute_values(":customer", text(&a.customer))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        if let Some(reseller) = &a.reseller {
            update = update.expression_attribute_values(":reseller", text(reseller));
        }
        if new.takes_kept {
            update = update.expression_attribute_values(":new", text(a.new_sim.as_str()));
        }
        update
    }

    /// Reserves the new SIM. Only the condition decides whether the SIM may be used, so a caller cannot tell a SIM that
    /// does not exist from one that cannot be used for their line.
    fn reserve_sim(&self, a: &Activation, takes_kept: bool) -> UpdateBuilder {
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
        let mut update = self
            .update_row(keys::sim_key(&a.new_sim))
            .update_expression("SET #state = :busy, holder = :holder REMOVE shelf")
            .condition_expression(format!(
                "#state = :free AND freeFrom <= :now AND network = :network AND {form} \
                 AND {reseller} AND {kept}"
            ))
            .expression_attribute_names("#state", "state")
            .expression_attribute_values(":busy", text("BUSY"))
            .expression_attribute_values(":free", text("FREE"))
            .expression_attribute_values(":esim", text("eSIM"))
            .expression_attribute_values(":holder", text(keys::activation_pk(&a.id)))
            .expression_attribute_values(":now", text(sortable(a.created_at)))
            .expression_attribute_values(":network", text(a.network.as_str()));
        if let Some(reseller) = &a.reseller {
            update = update.expression_attribute_values(":reseller", text(reseller));
        }
        if takes_kept {
            let line = text(keys::line_holder(&a.subscription));
            update = update.expression_attribute_values(":line", line);
        }
        update
    }
}
