//! How a repeated request is recognised: the caller's idempotency key, the record that is stored for it, the
//! fingerprint of a request, and the digest of a caller. The transaction that writes the record is in `begin`.

use aws_sdk_dynamodb::types::ReturnValuesOnConditionCheckFailure;
use aws_sdk_dynamodb::types::builders::PutBuilder;
use domain::{ActivationId, Caller};
use jiff::{SignedDuration, Timestamp};
use ring::digest::{SHA256, digest};

use crate::attributes::{Item, Row, RowBuilder, number};
use crate::rows::RequestDigest;
use crate::{RequestedSwap, Store, StoreError, StoredLine, StoredSwap, keys};

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
}

impl IdempotencyRecord {
    /// Reads a row. `None` if the record has expired.
    pub(crate) fn from_row(item: &Item, now: Timestamp) -> Result<Option<Self>, StoreError> {
        let row = Row(item);
        // DynamoDB deletes expired rows with a delay.
        if row.number::<i64>("expires")? <= now.as_second() {
            return Ok(None);
        }
        Ok(Some(Self {
            activation: row.parsed("swap", ActivationId::parse)?,
            request: Fingerprint(row.text("request")?.to_owned()),
        }))
    }
}

/// Identifies a request: equal requests have equal fingerprints. Written as `<number>:<hex>`. Without a confirmation
/// code the number is 0 and the rest a SHA-256. With a confirmation code the rest is an HMAC under the data key of that
/// number, so that a reader of the table cannot test guessed codes against it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint(pub(crate) String);

impl Fingerprint {
    /// A shorter text that equal fingerprints share.
    pub(crate) fn short(&self) -> RequestDigest {
        RequestDigest(hex(&digest(&SHA256, self.0.as_bytes()).as_ref()[..8]))
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
        at: Timestamp,
    ) -> PutBuilder {
        let expires = (at + RECORD_LIFETIME).as_second();
        let row = RowBuilder(keys::idempotency_key(key.digest()))
            .text("swap", swap.as_str())
            .text("request", &request.0)
            .number("expires", expires);
        self.put_row(row.0)
            .condition_expression("attribute_not_exists(pk) OR expires <= :now")
            .expression_attribute_values(":now", number(at.as_second()))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
    }

    /// The fingerprint of a request without secrets.
    pub fn fingerprint(&self, request: &str) -> Fingerprint {
        Fingerprint(format!("0:{}", hex(digest(&SHA256, request.as_bytes()).as_ref())))
    }

    /// The fingerprint of a request with a confirmation code.
    pub async fn signed_fingerprint(&self, request: &str) -> Result<Fingerprint, StoreError> {
        let (number, tag) = self.keyring.sign("request", request).await?;
        Ok(Fingerprint(format!("{number}:{}", hex(&tag))))
    }

    /// Whether `first` is the fingerprint of `request`.
    pub async fn is_same_request(&self, first: &Fingerprint, request: &str) -> Result<bool, StoreError> {
        let corrupt = || StoreError::Corrupt("request");
        let (number, tag) = first.0.split_once(':').ok_or_else(corrupt)?;
        match number.parse().map_err(|_| corrupt())? {
            0 => Ok(self.fingerprint(request) == *first),
            number => {
                let tag = unhex(tag).ok_or_else(corrupt)?;
                self.keyring.verify(number, "request", request, &tag).await
            }
        }
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

/// Identifies a caller without naming them: the first half of a SHA-256 of the caller's identity, in hexadecimal. It
/// reveals nothing to a reader who does not know the token's subject, role and claim.
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
