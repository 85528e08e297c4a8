//! The KMS of the stack: generates, wraps and unwraps data keys over HTTP, with one master key. The store encrypts
//! fields with the data keys.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::StartError;
use crate::data_dir::{self, KMS_KEY, WAY_OUT};
use crate::request_id::uuid;

/// The alias of the master key.
pub const ALIAS: &str = "alias/simswap";

/// The length in bytes of the key id at the start of a wrapped data key.
const ID_BYTES: usize = 16;

/// A KMS with one master key.
#[derive(Clone)]
pub struct Kms(Arc<MasterKey>);

struct MasterKey {
    key: LessSafeKey,
    id: [u8; ID_BYTES],
    random: SystemRandom,
}

/// The parameters of the operations.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Input {
    key_id: Option<String>,
    key_spec: Option<String>,
    number_of_bytes: Option<usize>,
    /// Sorted by name, because the order in the request does not matter.
    encryption_context: Context,
    ciphertext_blob: Option<String>,
    destination_key_id: Option<String>,
    source_encryption_context: Context,
    destination_encryption_context: Context,
}

type Context = BTreeMap<String, String>;

/// The type and the message of an error.
type KmsError = (&'static str, &'static str);

const BAD_CIPHERTEXT: KmsError = ("InvalidCiphertextException", "");

impl Kms {
    /// Reads the master key of the data directory, or creates both. Without a data directory, the key is in memory
    /// only.
    ///
    /// # Errors
    /// When the directory cannot be used, or its key is not 32 bytes long.
    pub fn open(data_dir: Option<&Path>) -> Result<Self, StartError> {
        let random = SystemRandom::new();
        let new_key = || {
            let mut bytes = vec![0; 32];
            random.fill(&mut bytes).expect("the system has random bytes");
            Ok(bytes)
        };
        let parse = |bytes: &[u8]| {
            let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, bytes).ok()?);
            let mut id = [0; ID_BYTES];
            id.copy_from_slice(&digest(&SHA256, bytes).as_ref()[..ID_BYTES]);
            Some((key, id))
        };
        let fault = format!("a key of 32 bytes; {WAY_OUT}");
        let (key, id) = data_dir::read_or_create_key(data_dir, KMS_KEY, new_key, parse, &fault)?;
        Ok(Self(Arc::new(MasterKey { key, id, random })))
    }

    /// The endpoint of KMS: `POST /` in the AWS JSON 1.1 protocol.
    pub fn router(self) -> Router {
        Router::new().fallback(handle_request).with_state(self)
    }
}

async fn handle_request(State(kms): State<Kms>, headers: HeaderMap, body: Bytes) -> Response {
    let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok());
    let operation = target.and_then(|target| target.strip_prefix("TrentService."));
    let result = serde_json::from_slice(&body)
        .map_err(|_| ("SerializationException", "The request is not one of KMS"))
        .and_then(|input| kms.0.execute(operation.unwrap_or_default(), &input));
    let (status, body) = match result {
        Ok(output) => (StatusCode::OK, output),
        Err((kind, message)) => {
            let body = json!({"__type": kind, "message": message});
            (StatusCode::BAD_REQUEST, body)
        }
    };
    (status, [(CONTENT_TYPE, "application/x-amz-json-1.1")], body.to_string()).into_response()
}

impl MasterKey {
    fn execute(&self, operation: &str, input: &Input) -> Result<Value, KmsError> {
        let key_is_ours = match input.key_id.as_ref().or(input.destination_key_id.as_ref()) {
            None => operation == "Decrypt",
            Some(id) => *id == ALIAS || *id == self.id() || *id == self.arn() || id.ends_with(&format!(":{ALIAS}")),
        };
        match (operation, key_is_ours) {
            ("GenerateDataKey" | "GenerateDataKeyWithoutPlaintext", true) => {
                let key = self.random_bytes(match (input.key_spec.as_deref(), input.number_of_bytes) {
                    (Some("AES_256"), None) => 32,
                    (Some("AES_128"), None) => 16,
                    (None, Some(count @ 1..=1024)) => count,
                    _ => {
                        return Err((
                            "ValidationException",
                            "Please specify either number of bytes or key spec.",
                        ));
                    }
                });
                let wrapped = STANDARD.encode(self.wrap(&key, &input.encryption_context));
                let mut output = json!({"CiphertextBlob": wrapped, "KeyId": self.arn()});
                if operation == "GenerateDataKey" {
                    output["Plaintext"] = STANDARD.encode(&key).into();
                }
                Ok(output)
            }
            ("Decrypt", true) => {
                let blob = input.ciphertext_blob.as_deref().unwrap_or_default();
                let blob = STANDARD.decode(blob).map_err(|_| BAD_CIPHERTEXT)?;
                let key = self.unwrap(&blob, &input.encryption_context).ok_or(BAD_CIPHERTEXT)?;
                Ok(json!({
                    "Plaintext": STANDARD.encode(key),
                    "KeyId": self.arn(),
                    "EncryptionAlgorithm": "SYMMETRIC_DEFAULT",
                }))
            }
            ("ReEncrypt", true) => {
                let blob = input.ciphertext_blob.as_deref().unwrap_or_default();
                let blob = STANDARD.decode(blob).map_err(|_| BAD_CIPHERTEXT)?;
                let key = self
                    .unwrap(&blob, &input.source_encryption_context)
                    .ok_or(BAD_CIPHERTEXT)?;
                let wrapped = STANDARD.encode(self.wrap(&key, &input.destination_encryption_context));
                Ok(json!({"CiphertextBlob": wrapped, "KeyId": self.arn(), "SourceKeyId": self.arn()}))
            }
            ("Decrypt", false) => Err((
                "IncorrectKeyException",
                "The key ID in the request does not identify a CMK that can perform this operation.",
            )),
            ("GenerateDataKey" | "GenerateDataKeyWithoutPlaintext" | "ReEncrypt", false) => {
                Err(("NotFoundException", "The key does not exist; this one is alias/simswap"))
            }
            _ => Err(("UnknownOperationException", "")),
        }
    }

    fn id(&self) -> String {
        uuid(self.id)
    }

    fn arn(&self) -> String {
        format!("arn:aws:kms:eu-central-1:000000000000:key/{}", self.id())
    }

    fn random_bytes(&self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.random.fill(&mut bytes).expect("the system has random bytes");
        bytes
    }

    /// Key id, nonce, ciphertext and tag. The encryption context is authenticated, so unwrapping requires the same one.
    fn wrap(&self, key: &[u8], context: &Context) -> Vec<u8> {
        let nonce = self.random_bytes(NONCE_LEN);
        let mut sealed = key.to_vec();
        let nonce_value = Nonce::try_assume_unique_for_key(&nonce).expect("a nonce has the right length");
        self.key
            .seal_in_place_append_tag(nonce_value, authenticated(context), &mut sealed)
            .expect("a data key is short enough");
        [&self.id[..], &nonce, &sealed].concat()
    }

    fn unwrap(&self, blob: &[u8], context: &Context) -> Option<Vec<u8>> {
        let sealed = blob.strip_prefix(&self.id)?;
        let (nonce, sealed) = sealed.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut sealed = sealed.to_vec();
        let key = self
            .key
            .open_in_place(nonce, authenticated(context), &mut sealed)
            .ok()?;
        Some(key.to_vec())
    }
}

fn authenticated(context: &Context) -> Aad<Vec<u8>> {
    Aad::from(json!(context).to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use aws::{CallError, ProvideErrorMetadata, Service, ServiceClient};

    use super::*;
    use crate::clients::sdk;

    const GENERATE: &str = "TrentService.GenerateDataKeyWithoutPlaintext";
    const DECRYPT: &str = "TrentService.Decrypt";

    async fn client(kms: Kms) -> ServiceClient {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async { axum::serve(listener, kms.router()).await });
        ServiceClient::with_endpoint(&sdk(), Service::Kms, &url)
    }

    fn bytes(field: &Value) -> Vec<u8> {
        STANDARD.decode(field.as_str().unwrap()).unwrap()
    }

    fn code(result: Result<Value, CallError>) -> String {
        result.unwrap_err().code().unwrap().to_owned()
    }

    #[tokio::test]
    async fn a_data_key_is_unwrapped_after_a_restart_and_only_with_its_context() {
        let directory = tempfile::tempdir().unwrap();
        let before = client(Kms::open(Some(directory.path())).unwrap()).await;
        let context = json!({"number": "1", "purpose": "simswap"});
        let input = json!({"KeyId": ALIAS, "KeySpec": "AES_256", "EncryptionContext": context});
        let wrapped = before.call(GENERATE, &input).await.unwrap();
        let blob = bytes(&wrapped["CiphertextBlob"]);

        let client = client(Kms::open(Some(directory.path())).unwrap()).await;
        let decrypt = async |blob: &[u8], context: &Value, key: &Value| {
            let blob = STANDARD.encode(blob);
            let mut input = json!({"CiphertextBlob": blob, "EncryptionContext": context});
            if !key.is_null() {
                input["KeyId"] = key.clone();
            }
            client.call(DECRYPT, &input).await
        };
        let key = decrypt(&blob, &context, &wrapped["KeyId"]).await.unwrap();
        assert_eq!(bytes(&key["Plaintext"]).len(), 32);
        assert_eq!(key["KeyId"], wrapped["KeyId"]);

        let mut corrupt = blob.clone();
        *corrupt.last_mut().unwrap() ^= 1;
        for (case, blob, context) in [
            ("no context", &blob, json!({})),
            ("half the context", &blob, json!({"number": "1"})),
            ("another context", &blob, json!({"number": "2", "purpose": "simswap"})),
            ("a corrupt blob", &corrupt, context.clone()),
            ("a short blob", &vec![1, 2, 3], context.clone()),
        ] {
            let rejected = decrypt(blob, &context, &Value::Null).await;
            assert_eq!(code(rejected), "InvalidCiphertextException", "{case}");
        }
        let rejected = decrypt(&blob, &context, &json!("alias/other")).await;
        assert_eq!(code(rejected), "IncorrectKeyException");
    }

    #[tokio::test]
    async fn the_plaintext_and_the_wrapped_key_are_the_same_key() {
        let client = client(Kms::open(None).unwrap()).await;
        let input = json!({"KeyId": ALIAS, "NumberOfBytes": 64});
        let generated = client.call("TrentService.GenerateDataKey", &input).await.unwrap();
        let input = json!({"CiphertextBlob": generated["CiphertextBlob"]});
        let opened = client.call(DECRYPT, &input).await.unwrap();
        assert_eq!(generated["Plaintext"], opened["Plaintext"]);
        assert_eq!(bytes(&generated["Plaintext"]).len(), 64);
    }

    #[tokio::test]
    async fn invalid_requests_are_rejected() {
        let client = client(Kms::open(None).unwrap()).await;
        for (target, input, error) in [
            (
                GENERATE,
                json!({"KeyId": "alias/other", "KeySpec": "AES_256"}),
                "NotFoundException",
            ),
            (GENERATE, json!({"KeyId": ALIAS}), "ValidationException"),
            ("TrentService.ListKeys", json!({}), "UnknownOperationException"),
        ] {
            assert_eq!(code(client.call(target, &input).await), error, "{target} {input}");
        }
    }
}
