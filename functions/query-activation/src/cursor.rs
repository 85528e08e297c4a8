//! Cursors: signed places in a listing, each bound to its caller and filters. Not here: reading the listing (`lib.rs`).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::{ActivationId, Caller};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use store::{Keyring, StoreError};

/// Where a page begins, and the total that the first page counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// The id of the last swap before the page.
    #[serde(serialize_with = "write_id", deserialize_with = "read_id")]
    pub(crate) after: ActivationId,
    pub(crate) total: usize,
    pub(crate) total_is_lower_bound: bool,
}

/// Bytes of the key's number, at the start of a cursor.
const NUMBER_LEN: usize = 4;
/// Bytes of the signature, after the key's number.
const TAG_LEN: usize = 32;

/// Encodes and signs a place. The text is opaque to callers.
pub(crate) async fn seal(
    keyring: &Keyring,
    caller: &Caller,
    filters: &str,
    place: &Place,
) -> Result<String, StoreError> {
    let body = serde_json::to_string(place).expect("a Place has only fields that JSON can represent");
    let (number, tag) = keyring.sign("cursor", &signed_text(caller, filters, &body)).await?;
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.extend_from_slice(&tag);
    bytes.extend_from_slice(body.as_bytes());
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// Verifies and decodes a cursor. `None` if it was altered or made for another caller or other filters.
pub(crate) async fn open(
    keyring: &Keyring,
    caller: &Caller,
    filters: &str,
    text: &str,
) -> Result<Option<Place>, StoreError> {
    let Some((number, tag, body)) = split(text) else {
        return Ok(None);
    };
    let verified = keyring
        .verify(number, "cursor", &signed_text(caller, filters, &body), &tag)
        .await?;
    Ok(serde_json::from_str(&body).ok().filter(|_| verified))
}

fn write_id<S: Serializer>(id: &ActivationId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(id.as_str())
}

fn read_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ActivationId, D::Error> {
    let text = String::deserialize(deserializer)?;
    ActivationId::parse(&text).map_err(|_| Error::custom("not an id"))
}

fn split(text: &str) -> Option<(u32, Vec<u8>, String)> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (number, rest) = bytes.split_first_chunk::<NUMBER_LEN>()?;
    let (tag, body) = rest.split_first_chunk::<TAG_LEN>()?;
    Some((
        u32::from_be_bytes(*number),
        tag.to_vec(),
        String::from_utf8(body.to_vec()).ok()?,
    ))
}

/// The text that is signed. The lengths keep the parts apart.
fn signed_text(caller: &Caller, filters: &str, body: &str) -> String {
    let identity = caller.identity();
    format!("{}:{identity}{}:{filters}{body}", identity.len(), filters.len())
}
