//! How a repeated request is recognised: the caller's idempotency key, the record that is stored for it, the
//! fingerprint of a request, and the digest of a caller. The transaction that writes the record is in `begin`.

use aws_sdk_dynamodb::types::ReturnValuesOnConditionCheckFailure;
use aws_sdk_dynamodb::types::builders::PutBuilder;
use domain::{ActivationId, Caller, ConfirmationCode};
use jiff::{SignedDuration, Timestamp};
use ring::digest::{SHA256, digest};

use crate::attributes::{Item, Row, RowBuilder, number};
use crate::form;
use crate::{RequestedSwap, Sealed, Store, StoreError, StoredLine, StoredSwap, keys, rows};

/// How long a record is stored: a day, and an hour for clocks that differ.
const RECORD_LIFETIME: SignedDuration = SignedDuration::from_hours(25);

/// The idempotency key of one request. The same text from two callers is two different keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// The key that `caller` sent as `key`.
    pub fn new(caller: &Caller, key: &str) -> Self {
        Self(hex(
            digest(&SHA256, format!("{}\n{key}", caller.identity()).as_bytes()).as_ref()
        ))
    }

    /// SHA-256 of the caller's identity and the key, in hexadecimal.
    fn digest(&self) -> &str {
        &self.0
    }
}

/// What an idempotency key was used for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyRecord {
    /// The swap that the first request with the key began.
    pub activation: ActivationId,
    /// Fingerprint of the first request.
    pub request: Fingerprint,
    /// The confirmation code of the first request, if it was a renewal and the fingerprint leaves the code out.
    pub code: Option<Sealed>,
}

impl IdempotencyRecord {
    /// Reads a row. `None` if the record has expired.
    pub(crate) fn from_row(item: &Item, now: Timestamp) -> Result<Option<Self>, StoreError> {
        let row = Row::read(item)?;
        // DynamoDB deletes expired rows with a delay.
        if row.number::<i64>("expires")? <= now.as_second() {
            return Ok(None);
        }
        Ok(Some(Self {
            activation: row.parsed("swap", ActivationId::parse)?,
            request: Fingerprint(row.text("request")?.to_owned()),
            code: row.sealed(rows::CODE),
        }))
    }
}

/// A request, as far as its repeat has to be equal.
#[derive(Clone, Copy)]
pub struct CanonicalRequest<'a> {
    /// Everything but the confirmation code, as a text that only equal requests have in common.
    pub text: &'a str,
    /// The confirmation code.
    pub code: Option<&'a ConfirmationCode>,
}

/// Identifies a request: equal requests have equal fingerprints. Written as `<form>:<hex>`. The form is
/// - `0`: the rest is the SHA-256 of a request without a confirmation code.
/// - `c`: the rest is the SHA-256 of a request without its confirmation code. A hash of the code could be guessed, so the
///   code is compared with an encrypted one: that of the swap, or that of the renewal.
/// - the number of a data key: the rest is an HMAC of a request and its confirmation code under that key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint(pub(crate) String);

impl Fingerprint {
    /// Whether the confirmation code has to be compared apart.
    pub(crate) fn leaves_code_out(&self) -> bool {
        self.0.starts_with("c:")
    }

    /// A shorter text that equal fingerprints share.
    pub(crate) fn short(&self) -> String {
        hex(&digest(&SHA256, self.0.as_bytes()).as_ref()[..8])
    }
}

impl Store {
    /// The record of an idempotency key. `None` if there is no key, if the key is unused, or if its record has expired.
    pub async fn idempotency_record(
        &self,
        key: Option<&IdempotencyKey>,
        now: Timestamp,
    ) -> Result<Option<IdempotencyRecord>, StoreError> {
        let Some(key) = key else {
            return Ok(None);
        };
        match self.get(keys::idempotency_key(key.digest())).await? {
            Some(row) => IdempotencyRecord::from_row(&row, now),
            None => Ok(None),
        }
    }

    /// The record of an idempotency key after `record` and `line` were read in parallel. If the line has an open swap
    /// but there was no record, a request with this key may have begun the swap between the two reads, so the record is
    /// read again.
    pub async fn idempotency_record_for_line(
        &self,
        line: &StoredLine,
        record: Option<IdempotencyRecord>,
        key: Option<&IdempotencyKey>,
        now: Timestamp,
    ) -> Result<Option<IdempotencyRecord>, StoreError> {
        match record {
            None if line.open.is_some() => self.idempotency_record(key, now).await,
            record => Ok(record),
        }
    }

    /// Writes the record of a request about this swap, on the condition that the key is unused or its record has
    /// expired.
    pub(crate) fn put_idempotency_record(
        &self,
        key: &IdempotencyKey,
        swap: &ActivationId,
        request: &Fingerprint,
        code: Option<&Sealed>,
        at: Timestamp,
    ) -> PutBuilder {
        let expires = (at + RECORD_LIFETIME).as_second();
        let row = RowBuilder::new(keys::idempotency_key(key.digest()))
            .text("swap", swap.as_str())
            .text("request", &request.0)
            .maybe_sealed(rows::CODE, code)
            .number("expires", expires);
        self.put_row(row.0)
            .condition_expression("attribute_not_exists(pk) OR expires <= :now")
            .expression_attribute_values(":now", number(at.as_second()))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
    }

    /// The fingerprint of a request. Needs a data key only for a confirmation code, and only if the store has no
    /// [`SealingKey`](crate::SealingKey).
    pub async fn fingerprint(&self, request: CanonicalRequest<'_>) -> Result<Fingerprint, StoreError> {
        let hash = || hex(digest(&SHA256, request.text.as_bytes()).as_ref());
        Ok(Fingerprint(match request.code {
            None => format!("0:{}", hash()),
            Some(_) if self.keyring.has_sealing_key() => format!("c:{}", hash()),
            Some(code) => {
                let (number, tag) = self
                    .keyring
                    .sign("request", &form::with_code(request.text, code))
                    .await?;
                format!("{number}:{}", hex(&tag))
            }
        }))
    }

    /// Whether `first` is the fingerprint of a request that is equal to `request` and began `swap`. A confirmation code
    /// that has been erased or replaced is not compared. One call if the rest is equal and there is a code.
    pub async fn is_same_request(
        &self,
        first: &Fingerprint,
        swap: &ActivationId,
        request: CanonicalRequest<'_>,
    ) -> Result<bool, StoreError> {
        if !self.is_equal(first, request).await? {
            return Ok(false);
        }
        if !first.leaves_code_out() {
            return Ok(true);
        }
        let stored = self.swap(swap).await?.ok_or(StoreError::Corrupt("swap"))?;
        // A renewal may have replaced the code.
        let code = stored.secrets.code.as_ref().filter(|_| stored.code_by.is_none());
        self.is_code_of_request(swap, code, request).await
    }

    /// Whether this is the record of a request about `swap` that is equal to `request`.
    pub async fn is_same_change(
        &self,
        record: &IdempotencyRecord,
        swap: &ActivationId,
        request: CanonicalRequest<'_>,
    ) -> Result<bool, StoreError> {
        let is_equal = self.is_equal(&record.request, request).await?;
        Ok(is_equal && self.is_code_of_request(swap, record.code.as_ref(), request).await?)
    }

    /// Whether an equal request with this fingerprint has just changed the swap.
    pub async fn has_just_changed(
        &self,
        swap: &StoredSwap,
        fingerprint: &Fingerprint,
        request: CanonicalRequest<'_>,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        for last in swap.repeats(fingerprint, now) {
            let code = last.code.as_ref();
            if self.is_code_of_request(&swap.activation.id, code, request).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether `first` is the fingerprint of a request that is equal to `request`, as far as a fingerprint tells.
    async fn is_equal(&self, first: &Fingerprint, request: CanonicalRequest<'_>) -> Result<bool, StoreError> {
        let corrupt = || StoreError::Corrupt("request");
        let (form, tag) = first.0.split_once(':').ok_or_else(corrupt)?;
        let tag = unhex(tag).ok_or_else(corrupt)?;
        match (form, request.code) {
            ("0", None) | ("c", Some(_)) => Ok(digest(&SHA256, request.text.as_bytes()).as_ref() == tag),
            ("0", Some(_)) | ("c", None) => Ok(false),
            (number, code) => {
                let number = number.parse().map_err(|_| corrupt())?;
                let Some(code) = code else { return Ok(false) };
                let text = form::with_code(request.text, code);
                self.keyring.verify(number, "request", &text, &tag).await
            }
        }
    }

    /// Whether the confirmation code of `request` is this encrypted code of `swap`. A code that is no longer stored, or
    /// that the fingerprint contains, is not compared.
    async fn is_code_of_request(
        &self,
        swap: &ActivationId,
        stored: Option<&Sealed>,
        request: CanonicalRequest<'_>,
    ) -> Result<bool, StoreError> {
        let (Some(stored), Some(code)) = (stored, request.code) else {
            return Ok(true);
        };
        let pk = keys::activation_pk(swap);
        Ok(self.keyring.open(&pk, rows::CODE, stored).await? == code.expose())
    }

    /// Whether `caller` requested this swap of a line.
    pub fn is_same_caller(&self, swap: &RequestedSwap, caller: &Caller) -> bool {
        swap.caller == caller_digest(caller)
    }

    /// Whether `caller` requested this swap.
    pub fn is_requested_by(&self, swap: &StoredSwap, caller: &Caller) -> bool {
        swap.caller == caller_digest(caller)
    }

    /// Whether `caller` gave the confirmation code of this swap.
    pub fn is_code_of(&self, swap: &StoredSwap, caller: &Caller) -> bool {
        *swap.code_by.as_ref().unwrap_or(&swap.caller) == caller_digest(caller)
    }
}

/// Characters of a [`caller_digest`].
pub(crate) const CALLER_DIGEST_LEN: usize = 32;

/// The [`caller_digest`] as a line of the earlier form has it, which contains the whole hash.
pub(crate) fn long_caller_digest(caller: &Caller) -> String {
    hex(digest(&SHA256, caller.identity().as_bytes()).as_ref())
}

/// Identifies a caller without naming them: the first half of a SHA-256 of the caller's identity, in hexadecimal. It
/// reveals nothing to a reader who does not know the token's subject, role and claim.
pub fn caller_digest(caller: &Caller) -> String {
    let mut digest = long_caller_digest(caller);
    digest.truncate(CALLER_DIGEST_LEN);
    digest
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
