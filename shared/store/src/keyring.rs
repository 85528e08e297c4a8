//! The data keys of a table, which KMS wraps, and what is derived from each: the key pair and the older symmetric key
//! that encrypt secret fields (`sealed`), and a key that signs texts (HMAC-SHA-256).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use aws::{ServiceClient, base64};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::AttributeValue;
use ring::hmac;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::attributes::{Item, Row, RowBuilder, text};
use crate::sealed::{OpeningKey, Sealed, SealingKey, SymmetricKey};
use crate::{StoreError, keys};

/// The data keys of a table. Each is a row. A process unwraps a data key once, when it first needs the key.
#[derive(Clone)]
pub struct Keyring {
    dynamodb: Client,
    kms: ServiceClient,
    table: String,
    master_key: String,
    /// The value of KMS's encryption context. A data key can be unwrapped only with the value that it was made with.
    installation: String,
    /// Encrypts new fields. `None`: the newest data key does, and has to be unwrapped first.
    sealing_key: Option<SealingKey>,
    unwrapped: Arc<Mutex<UnwrappedKeys>>,
}

#[derive(Default)]
struct UnwrappedKeys {
    /// The number of the newest data key.
    newest: Option<u32>,
    keys: BTreeMap<u32, Arc<DataKey>>,
}

struct DataKey {
    opening: OpeningKey,
    symmetric: SymmetricKey,
    signing: hmac::Key,
}

/// The number of a table's first data key.
const FIRST: u32 = 1;

impl Keyring {
    pub(crate) fn new(dynamodb: Client, kms: ServiceClient, table: String, master_key: String) -> Self {
        Self {
            dynamodb,
            kms,
            installation: table.clone(),
            table,
            master_key,
            sealing_key: None,
            unwrapped: Arc::default(),
        }
    }

    /// Sets the value of KMS's encryption context, which is the table's name otherwise.
    pub(crate) fn set_installation(&mut self, installation: String) {
        self.installation = installation;
    }

    /// Sets the key that encrypts new fields.
    pub(crate) fn set_sealing_key(&mut self, sealing_key: Option<SealingKey>) {
        self.sealing_key = sealing_key;
    }

    /// Whether new fields are encrypted without a data key, so that nothing but reading needs KMS.
    pub(crate) fn has_sealing_key(&self) -> bool {
        self.sealing_key.is_some()
    }

    /// Whether the table has a data key.
    pub(crate) async fn has_data_keys(&self) -> Result<bool, StoreError> {
        Ok(self.read_newest().await?.is_some())
    }

    /// The public key of the newest data key. Creates the first data key of a table.
    pub async fn newest_sealing_key(&self) -> Result<SealingKey, StoreError> {
        let (number, key) = self.newest().await?;
        Ok(key.opening.sealing_key(number))
    }

    /// Checks that what is encrypted now can be decrypted later: the data key can be unwrapped, and the public key, if it
    /// is a setting, is its own.
    pub async fn check_sealing(&self) -> Result<(), StoreError> {
        let Some(given) = &self.sealing_key else {
            return self.newest().await.map(|_| ());
        };
        let own = self.key(given.number()).await?.opening.sealing_key(given.number());
        match own == *given {
            true => Ok(()),
            false => Err(StoreError::Sealing),
        }
    }

    /// Encrypts the texts of different attributes of a row with the hash key `pk`. A result can be decrypted only for that
    /// row and its attribute.
    pub async fn seal(&self, pk: &str, texts: &[(&str, &str)]) -> Result<Vec<Sealed>, StoreError> {
        let texts: Vec<_> = texts.iter().map(|(field, text)| (context(pk, field), *text)).collect();
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        if let Some(sealing_key) = &self.sealing_key {
            return sealing_key.seal(&texts);
        }
        let (number, key) = self.newest().await?;
        let sealed = texts
            .iter()
            .map(|(context, text)| key.symmetric.seal(number, context, text));
        sealed.collect()
    }

    /// Decrypts what [`seal`](Self::seal) returned for the same row and attribute.
    pub async fn open(&self, pk: &str, field: &str, sealed: &Sealed) -> Result<String, StoreError> {
        let context = context(pk, field);
        let key = self.key(sealed.key_number()?).await?;
        let text = match sealed.is_symmetric() {
            true => key.symmetric.open(&context, sealed),
            false => key.opening.open(&context, sealed),
        };
        String::from_utf8(text?).map_err(|_| StoreError::Sealing)
    }

    /// Signs `text` for `purpose` with HMAC-SHA-256. Returns the number of the data key, which is the newest one, and
    /// the tag.
    pub async fn sign(&self, purpose: &str, text: &str) -> Result<(u32, Vec<u8>), StoreError> {
        let (number, key) = self.newest().await?;
        let tag = hmac::sign(&key.signing, signed_text(purpose, text).as_bytes());
        Ok((number, tag.as_ref().to_vec()))
    }

    /// Whether `tag` is the signature that [`sign`](Self::sign) makes for this purpose and text with the data key
    /// `number`. `false` if there is no such key.
    pub async fn verify(&self, number: u32, purpose: &str, text: &str, tag: &[u8]) -> Result<bool, StoreError> {
        let key = match self.key(number).await {
            Err(StoreError::Corrupt(_)) => return Ok(false),
            key => key?,
        };
        let text = signed_text(purpose, text);
        Ok(hmac::verify(&key.signing, text.as_bytes(), tag).is_ok())
    }

    /// Checks that the newest data key, if there is one, can be unwrapped. The key is not kept.
    pub async fn check(&self) -> Result<(), StoreError> {
        if let Some((number, wrapped)) = self.read_newest().await? {
            self.unwrap_key(number, &wrapped).await?;
        }
        Ok(())
    }

    /// Adds a data key, and returns its public key. Processes that start from now on sign with it, and encrypt with it
    /// unless they have a [`SealingKey`]; older keys still decrypt. The key is unwrapped before it is written, because
    /// every write of a secret would fail with a key that cannot be unwrapped.
    ///
    /// # Errors
    /// When KMS makes no key or cannot unwrap it, or when another process adds a key at the same time.
    pub async fn rotate(&self) -> Result<SealingKey, StoreError> {
        let number = match self.read_newest().await? {
            Some((newest, _)) => newest + 1,
            None => FIRST,
        };
        let wrapped = self.generate().await?;
        let key = self.unwrap_key(number, &wrapped).await?;
        let is_written = self.write_new(number, &wrapped).await?
            // The SDK repeats a write whose response was lost.
            || self.read_newest().await? == Some((number, wrapped));
        match is_written {
            true => Ok(key.opening.sealing_key(number)),
            false => Err(StoreError::Unavailable(
                "another process has added a data key at the same time".into(),
            )),
        }
    }

    /// Has KMS wrap each data key with the master key `to` as well, so that functions with either master key can unwrap
    /// it. Returns how many data keys there are. It can be interrupted and repeated.
    ///
    /// # Errors
    /// When KMS rejects one of the master keys.
    pub async fn rewrap(&self, to: &str) -> Result<usize, StoreError> {
        let rows = self.rows().await?;
        for row in &rows {
            let key = WrappedKey::from_row(row)?;
            let input = json!({
                "SourceKeyId": self.master_key,
                "DestinationKeyId": to,
                "CiphertextBlob": base64::encode(&key.wrapped),
                "SourceEncryptionContext": {"table": self.installation},
                "DestinationEncryptionContext": {"table": self.installation},
            });
            let rewrapped = blob(&self.kms.call("TrentService.ReEncrypt", &input).await?["CiphertextBlob"])?;
            self.decrypt(to, &rewrapped).await?;
            self.update_row(row, "SET rewrapped = :rewrapped", "#wrapped = :wrapped")
                .expression_attribute_values(":rewrapped", AttributeValue::B(rewrapped.into()))
                .expression_attribute_values(":wrapped", AttributeValue::B(key.wrapped.into()))
                .send()
                .await?;
        }
        Ok(rows.len())
    }

    /// Removes what the earlier master key has wrapped, after [`rewrap`](Self::rewrap). Functions that still have that
    /// master key can unwrap no data key from here on. Returns how many data keys there are. It can be interrupted and
    /// repeated.
    ///
    /// # Errors
    /// When KMS cannot unwrap one of the data keys with the master key `to`.
    pub async fn finish_rewrap(&self, to: &str) -> Result<usize, StoreError> {
        let rows = self.rows().await?;
        for row in &rows {
            let key = WrappedKey::from_row(row)?;
            self.decrypt(to, key.rewrapped.as_ref().unwrap_or(&key.wrapped)).await?;
            if let Some(rewrapped) = key.rewrapped {
                self.update_row(
                    row,
                    "SET #wrapped = :rewrapped REMOVE rewrapped",
                    "rewrapped = :rewrapped",
                )
                .expression_attribute_values(":rewrapped", AttributeValue::B(rewrapped.into()))
                .send()
                .await?;
            }
        }
        Ok(rows.len())
    }

    /// The rows of all data keys.
    async fn rows(&self) -> Result<Vec<Item>, StoreError> {
        Ok(self.query().send().await?.items.unwrap_or_default())
    }

    /// A query of the data keys.
    fn query(&self) -> QueryFluentBuilder {
        let query = self.dynamodb.query().table_name(&self.table);
        query
            .key_condition_expression("pk = :pk")
            .expression_attribute_values(":pk", text(keys::DATA_KEYS))
            .consistent_read(true)
    }

    fn update_row(&self, row: &Item, expression: &str, condition: &str) -> UpdateItemFluentBuilder {
        let update = self.dynamodb.update_item().table_name(&self.table);
        let update = update.key("pk", row["pk"].clone()).key("sk", row["sk"].clone());
        let update = update.update_expression(expression).condition_expression(condition);
        // The name is reserved.
        update.expression_attribute_names("#wrapped", WRAPPED)
    }

    /// Has KMS unwrap a data key with this master key.
    async fn decrypt(&self, master_key: &str, wrapped: &[u8]) -> Result<Vec<u8>, StoreError> {
        let input = json!({
            "KeyId": master_key,
            "CiphertextBlob": base64::encode(wrapped),
            "EncryptionContext": {"table": self.installation},
        });
        blob(&self.kms.call("TrentService.Decrypt", &input).await?["Plaintext"])
    }

    async fn newest(&self) -> Result<(u32, Arc<DataKey>), StoreError> {
        let mut unwrapped = self.unwrapped.lock().await;
        if let Some(number) = unwrapped.newest {
            return Ok((number, unwrapped.keys[&number].clone()));
        }
        let (number, wrapped) = match self.read_newest().await? {
            Some(found) => found,
            None => self.create_first().await?,
        };
        let key = Arc::new(self.unwrap_key(number, &wrapped).await?);
        unwrapped.keys.insert(number, key.clone());
        unwrapped.newest = Some(number);
        Ok((number, key))
    }

    async fn key(&self, number: u32) -> Result<Arc<DataKey>, StoreError> {
        let mut unwrapped = self.unwrapped.lock().await;
        if let Some(key) = unwrapped.keys.get(&number) {
            return Ok(key.clone());
        }
        let row = self
            .dynamodb
            .get_item()
            .table_name(&self.table)
            .set_key(Some(keys::data_key(number)))
            .consistent_read(true)
            .send()
            .await?
            .item
            .ok_or(StoreError::Corrupt("data key"))?;
        let key = Arc::new(self.unwrap_key(number, &WrappedKey::from_row(&row)?).await?);
        unwrapped.keys.insert(number, key.clone());
        Ok(key)
    }

    async fn read_newest(&self) -> Result<Option<(u32, WrappedKey)>, StoreError> {
        let page = self.query().scan_index_forward(false).limit(1).send().await?;
        let Some(row) = page.items().first() else {
            return Ok(None);
        };
        Ok(Some((keys::data_key_number(row)?, WrappedKey::from_row(row)?)))
    }

    /// Creates the first data key. If another process does so at the same time, both use the one that was written
    /// first.
    async fn create_first(&self) -> Result<(u32, WrappedKey), StoreError> {
        let wrapped = self.generate().await?;
        match self.write_new(FIRST, &wrapped).await? {
            true => Ok((FIRST, wrapped)),
            false => self.read_newest().await?.ok_or(StoreError::Corrupt("data key")),
        }
    }

    /// A new data key, wrapped by KMS.
    async fn generate(&self) -> Result<WrappedKey, StoreError> {
        let input = json!({
            "KeyId": self.master_key,
            "KeySpec": "AES_256",
            "EncryptionContext": {"table": self.installation},
        });
        let generated = self.kms.call("TrentService.GenerateDataKeyWithoutPlaintext", &input);
        Ok(WrappedKey {
            wrapped: blob(&generated.await?["CiphertextBlob"])?,
            rewrapped: None,
        })
    }

    /// Writes a wrapped data key. Returns `false` if there is one with this number.
    async fn write_new(&self, number: u32, key: &WrappedKey) -> Result<bool, StoreError> {
        let written = self
            .dynamodb
            .put_item()
            .table_name(&self.table)
            .set_item(Some(RowBuilder::new(keys::data_key(number)).0))
            .item(WRAPPED, AttributeValue::B(key.wrapped.clone().into()))
            .condition_expression("attribute_not_exists(pk)")
            .send()
            .await;
        match written {
            Ok(_) => Ok(true),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(|e| e.is_conditional_check_failed_exception()) =>
            {
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn unwrap_key(&self, number: u32, key: &WrappedKey) -> Result<DataKey, StoreError> {
        let root = match (self.decrypt(&self.master_key, &key.wrapped).await, &key.rewrapped) {
            // The master key may be the one to which the table changes.
            (Err(StoreError::Rejected(_)), Some(rewrapped)) => self.decrypt(&self.master_key, rewrapped).await?,
            (root, _) => root?,
        };
        let root = hmac::Key::new(hmac::HMAC_SHA256, &root);
        // Each purpose has a key of its own, derived from the data key.
        let derive = |purpose: &str| hmac::sign(&root, format!("simswap {purpose} {number}").as_bytes());
        Ok(DataKey {
            opening: OpeningKey::derive(derive("opening").as_ref()),
            symmetric: SymmetricKey::new(derive("sealing").as_ref())?,
            signing: hmac::Key::new(hmac::HMAC_SHA256, derive("signing").as_ref()),
        })
    }
}

/// A data key as its row has it.
#[derive(Clone, PartialEq, Eq)]
struct WrappedKey {
    wrapped: Vec<u8>,
    /// Wrapped with the master key to which the table changes.
    rewrapped: Option<Vec<u8>>,
}

/// Attributes of a data key.
const WRAPPED: &str = "wrapped";
const REWRAPPED: &str = "rewrapped";

impl WrappedKey {
    fn from_row(item: &Item) -> Result<Self, StoreError> {
        let row = Row::read(item)?;
        Ok(Self {
            wrapped: row.bytes(WRAPPED)?,
            rewrapped: row.sealed(REWRAPPED).map(|sealed| sealed.0),
        })
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keyring")
    }
}

/// A field of KMS's JSON with bytes in base64.
fn blob(field: &Value) -> Result<Vec<u8>, StoreError> {
    let text = field.as_str().ok_or(StoreError::Sealing)?;
    base64::decode(text).map_err(|_| StoreError::Sealing)
}

/// What binds a ciphertext to its row and attribute.
fn context(pk: &str, field: &str) -> Vec<u8> {
    format!("{pk}\n{field}").into_bytes()
}

fn signed_text(purpose: &str, text: &str) -> String {
    format!("{purpose}\n{text}")
}
