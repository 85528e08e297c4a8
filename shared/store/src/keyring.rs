//! Seals secret fields under data keys that KMS wraps (AES-256-GCM, bound to row and field), and signs with keys derived from them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, LazyLock};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_kms::primitives::Blob;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::Mutex;

use crate::StoreError;
use crate::item::{self, Row};

/// A secret field as it stands in the table: key number, nonce, ciphertext, tag.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(pub(crate) Vec<u8>);

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sealed")
    }
}

/// The data keys of a table. Each is a row; it is unwrapped once a process, when it is first needed.
#[derive(Clone)]
pub struct Keyring {
    dynamodb: Client,
    kms: Arc<LazyLock<aws_sdk_kms::Client, MakeClient>>,
    table: String,
    master_key: String,
    opened: Arc<Mutex<Opened>>,
}

type MakeClient = Box<dyn FnOnce() -> aws_sdk_kms::Client + Send>;

#[derive(Default)]
struct Opened {
    /// The number that new fields are sealed under.
    newest: Option<u32>,
    keys: BTreeMap<u32, Arc<DataKey>>,
}

struct DataKey {
    sealing: LessSafeKey,
    signing: hmac::Key,
}

const NUMBER_LEN: usize = 4;

impl Keyring {
    pub(crate) fn new(dynamodb: Client, kms: aws_sdk_kms::Config, table: String, master_key: String) -> Self {
        Self {
            dynamodb,
            kms: Arc::new(LazyLock::new(Box::new(|| aws_sdk_kms::Client::from_conf(kms)))),
            table,
            master_key,
            opened: Arc::default(),
        }
    }

    /// Seals `text` as the field `field` of the row `pk`. In another row or field it cannot be opened.
    pub async fn seal(&self, pk: &str, field: &str, text: &str) -> Result<Sealed, StoreError> {
        let (number, key) = self.newest().await?;
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| StoreError::Sealing)?;
        let mut sealed = number.to_be_bytes().to_vec();
        sealed.extend_from_slice(&nonce);
        let mut body = text.as_bytes().to_vec();
        key.sealing
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(place(pk, field)),
                &mut body,
            )
            .map_err(|_| StoreError::Sealing)?;
        sealed.append(&mut body);
        Ok(Sealed(sealed))
    }

    /// Opens what was sealed as the field `field` of the row `pk`.
    pub async fn open(&self, pk: &str, field: &str, sealed: &Sealed) -> Result<String, StoreError> {
        let bytes = &sealed.0;
        let (number, rest) = bytes.split_first_chunk::<NUMBER_LEN>().ok_or(StoreError::Sealing)?;
        let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>().ok_or(StoreError::Sealing)?;
        let key = self.key(u32::from_be_bytes(*number)).await?;
        let mut body = body.to_vec();
        let text = key
            .sealing
            .open_in_place(
                Nonce::assume_unique_for_key(*nonce),
                Aad::from(place(pk, field)),
                &mut body,
            )
            .map_err(|_| StoreError::Sealing)?;
        String::from_utf8(text.to_vec()).map_err(|_| StoreError::Sealing)
    }

    /// Signs `text` for `purpose` (HMAC-SHA-256) under the newest key. The number names the key.
    pub async fn sign(&self, purpose: &str, text: &str) -> Result<(u32, Vec<u8>), StoreError> {
        let (number, key) = self.newest().await?;
        let tag = hmac::sign(&key.signing, signed_text(purpose, text).as_bytes());
        Ok((number, tag.as_ref().to_vec()))
    }

    /// Whether `tag` is what [`sign`](Self::sign) gave for this purpose and text under the key `number`.
    pub async fn verify(&self, number: u32, purpose: &str, text: &str, tag: &[u8]) -> Result<bool, StoreError> {
        let key = match self.key(number).await {
            Err(StoreError::Corrupt(_)) => return Ok(false),
            key => key?,
        };
        let text = signed_text(purpose, text);
        Ok(hmac::verify(&key.signing, text.as_bytes(), tag).is_ok())
    }

    async fn newest(&self) -> Result<(u32, Arc<DataKey>), StoreError> {
        let mut opened = self.opened.lock().await;
        if let Some(number) = opened.newest {
            return Ok((number, opened.keys[&number].clone()));
        }
        let (number, wrapped) = match self.read_newest().await? {
            Some(found) => found,
            None => self.make_first().await?,
        };
        let key = Arc::new(self.unwrap_key(number, wrapped).await?);
        opened.keys.insert(number, key.clone());
        opened.newest = Some(number);
        Ok((number, key))
    }

    async fn key(&self, number: u32) -> Result<Arc<DataKey>, StoreError> {
        let mut opened = self.opened.lock().await;
        if let Some(key) = opened.keys.get(&number) {
            return Ok(key.clone());
        }
        let row = self
            .dynamodb
            .get_item()
            .table_name(&self.table)
            .set_key(Some(item::data_key(number)))
            .consistent_read(true)
            .send()
            .await?
            .item
            .ok_or(StoreError::Corrupt("data key"))?;
        let key = Arc::new(self.unwrap_key(number, Row(&row).bytes("wrapped")?).await?);
        opened.keys.insert(number, key.clone());
        Ok(key)
    }

    async fn read_newest(&self) -> Result<Option<(u32, Vec<u8>)>, StoreError> {
        let found = self
            .dynamodb
            .query()
            .table_name(&self.table)
            .key_condition_expression("pk = :pk")
            .expression_attribute_values(":pk", AttributeValue::S(item::DATA_KEYS.to_owned()))
            .scan_index_forward(false)
            .limit(1)
            .consistent_read(true)
            .send()
            .await?;
        let Some(row) = found.items().first() else {
            return Ok(None);
        };
        Ok(Some((item::data_key_number(row)?, Row(row).bytes("wrapped")?)))
    }

    /// Whoever comes first writes the key; the others use it.
    async fn make_first(&self) -> Result<(u32, Vec<u8>), StoreError> {
        const FIRST: u32 = 1;
        let made = self
            .kms
            .generate_data_key_without_plaintext()
            .key_id(&self.master_key)
            .key_spec(aws_sdk_kms::types::DataKeySpec::Aes256)
            .encryption_context("table", &self.table)
            .send()
            .await?;
        let wrapped = made.ciphertext_blob.ok_or(StoreError::Sealing)?.into_inner();
        let written = self
            .dynamodb
            .put_item()
            .table_name(&self.table)
            .set_item(Some(item::data_key(FIRST)))
            .item("wrapped", AttributeValue::B(wrapped.clone().into()))
            .condition_expression("attribute_not_exists(pk)")
            .send()
            .await;
        match written {
            Ok(_) => Ok((FIRST, wrapped)),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(|e| e.is_conditional_check_failed_exception()) =>
            {
                self.read_newest().await?.ok_or(StoreError::Corrupt("data key"))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn unwrap_key(&self, number: u32, wrapped: Vec<u8>) -> Result<DataKey, StoreError> {
        let opened = self
            .kms
            .decrypt()
            .key_id(&self.master_key)
            .ciphertext_blob(Blob::new(wrapped))
            .encryption_context("table", &self.table)
            .send()
            .await?;
        let plain = opened.plaintext.ok_or(StoreError::Sealing)?;
        let root = hmac::Key::new(hmac::HMAC_SHA256, plain.as_ref());
        // One key, one use: sealing and signing each have their own, derived from the data key.
        let derive = |use_: &str| hmac::sign(&root, format!("simswap {use_} {number}").as_bytes());
        let sealing = UnboundKey::new(&AES_256_GCM, derive("sealing").as_ref()).map_err(|_| StoreError::Sealing)?;
        Ok(DataKey {
            sealing: LessSafeKey::new(sealing),
            signing: hmac::Key::new(hmac::HMAC_SHA256, derive("signing").as_ref()),
        })
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keyring")
    }
}

fn place(pk: &str, field: &str) -> Vec<u8> {
    format!("{pk}\n{field}").into_bytes()
}

fn signed_text(purpose: &str, text: &str) -> String {
    format!("{purpose}\n{text}")
}
