//! Secret fields as they are stored, encrypted with AES-256-GCM. The key of a new field comes from a public key: HPKE
//! (RFC 9180) in base mode with DHKEM(X25519, HKDF-SHA256) and HKDF-SHA256 exports a key for each field (section 5.3), so
//! the fields of a row share one key encapsulation. A function that only stores secrets therefore needs no KMS. The key
//! of an older field is the data key's. Either way, a field can be decrypted only for its row and attribute.

use std::fmt;
use std::str::FromStr;

use aws::base64;
use domain::Malformed;
use hpke::aead::ExportOnlyAead;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable, setup_receiver, setup_sender};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

use crate::StoreError;

/// HPKE's `info`: what the key pair is for.
const INFO: &[u8] = b"simswap secret field";
/// Bytes of an encapsulated key (RFC 9180 section 7.1).
const ENCAPSULATED_LEN: usize = 32;
/// Bytes of a key for AES-256-GCM.
const KEY_LEN: usize = 32;
/// The nonce of a field whose key encrypts nothing else.
const ONLY_NONCE: [u8; NONCE_LEN] = [0; NONCE_LEN];
/// Bytes of the number of the data key.
const NUMBER_LEN: usize = 4;
/// Set in the number of the data key if the field is encrypted with its public key.
const PUBLIC: u32 = 1 << 31;

/// A secret field as it is stored: the number of the data key (4 bytes, big-endian), then
/// - if the number has the bit [`PUBLIC`]: the encapsulated key (32 bytes), the ciphertext, and the tag (16 bytes);
/// - otherwise: the nonce (12 bytes), the ciphertext, and the tag (16 bytes).
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(pub(crate) Vec<u8>);

impl Sealed {
    fn new(number: u32, head: &[u8], body: &[u8]) -> Self {
        Self([&number.to_be_bytes(), head, body].concat())
    }

    /// The number as it is stored, and the rest.
    fn split(&self) -> Result<(u32, &[u8]), StoreError> {
        let (number, rest) = self.0.split_first_chunk::<NUMBER_LEN>().ok_or(StoreError::Sealing)?;
        Ok((u32::from_be_bytes(*number), rest))
    }

    /// The number of the data key.
    pub(crate) fn key_number(&self) -> Result<u32, StoreError> {
        Ok(self.split()?.0 & !PUBLIC)
    }

    /// Whether the field is encrypted with AES-256-GCM.
    pub(crate) fn is_symmetric(&self) -> bool {
        self.split().is_ok_and(|(number, _)| number & PUBLIC == 0)
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sealed")
    }
}

/// The public key that encrypts secret fields. Written as `<number of the data key>:<32 bytes in base64>`.
///
/// Functions get it as a setting and not from the table, so that who can write to the table cannot make them encrypt for
/// another key pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealingKey {
    number: u32,
    public: <X25519HkdfSha256 as Kem>::PublicKey,
}

impl SealingKey {
    /// The number of the data key whose public key this is.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Encrypts these texts, each for its context. The contexts have to be different, because equal ones have one key.
    pub(crate) fn seal(&self, texts: &[(Vec<u8>, &str)]) -> Result<Vec<Sealed>, StoreError> {
        let sender = setup_sender::<ExportOnlyAead, HkdfSha256, X25519HkdfSha256>(&OpModeS::Base, &self.public, INFO);
        let (encapsulated, sender) = sender.map_err(|_| StoreError::Sealing)?;
        let encapsulated = encapsulated.to_bytes();
        let sealed = texts.iter().map(|(context, text)| {
            let mut secret = [0; KEY_LEN];
            let exported = sender.export(context, &mut secret);
            exported.map_err(|_| StoreError::Sealing)?;
            let body = SymmetricKey::new(&secret)?.encrypt(ONLY_NONCE, &[], text)?;
            Ok(Sealed::new(self.number | PUBLIC, &encapsulated, &body))
        });
        sealed.collect()
    }
}

impl FromStr for SealingKey {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        const WHAT: Malformed = Malformed("must be a line of the command `sealing-key`, such as 1:<44 characters>");
        let (number, public) = text.split_once(':').ok_or(WHAT)?;
        let number = number.parse().ok().filter(|number| (1..PUBLIC).contains(number));
        let public = base64::decode(public).map_err(|_| WHAT)?;
        Ok(Self {
            number: number.ok_or(WHAT)?,
            public: Deserializable::from_bytes(&public).map_err(|_| WHAT)?,
        })
    }
}

impl fmt::Display for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.number, base64::encode(self.public.to_bytes()))
    }
}

/// The private key of a data key's key pair.
pub(crate) struct OpeningKey(<X25519HkdfSha256 as Kem>::PrivateKey);

impl OpeningKey {
    /// The private key that this secret of 32 bytes determines (`DeriveKeyPair`, RFC 9180 section 4).
    pub(crate) fn derive(secret: &[u8]) -> Self {
        Self(X25519HkdfSha256::derive_keypair(secret).0)
    }

    pub(crate) fn sealing_key(&self, number: u32) -> SealingKey {
        SealingKey {
            number,
            public: X25519HkdfSha256::sk_to_pk(&self.0),
        }
    }

    pub(crate) fn open(&self, context: &[u8], sealed: &Sealed) -> Result<Vec<u8>, StoreError> {
        let (_, rest) = sealed.split()?;
        let (encapsulated, body) = rest.split_at_checked(ENCAPSULATED_LEN).ok_or(StoreError::Sealing)?;
        let encapsulated = Deserializable::from_bytes(encapsulated).map_err(|_| StoreError::Sealing)?;
        let receiver = setup_receiver::<ExportOnlyAead, HkdfSha256, X25519HkdfSha256>(
            &OpModeR::Base,
            &self.0,
            &encapsulated,
            INFO,
        );
        let mut secret = [0; KEY_LEN];
        let exported = receiver.and_then(|receiver| receiver.export(context, &mut secret));
        exported.map_err(|_| StoreError::Sealing)?;
        SymmetricKey::new(&secret)?.decrypt(ONLY_NONCE, &[], body)
    }
}

/// A key for AES-256-GCM: a data key's, or that of one field.
pub(crate) struct SymmetricKey(LessSafeKey);

impl SymmetricKey {
    pub(crate) fn new(secret: &[u8]) -> Result<Self, StoreError> {
        let key = UnboundKey::new(&AES_256_GCM, secret).map_err(|_| StoreError::Sealing)?;
        Ok(Self(LessSafeKey::new(key)))
    }

    pub(crate) fn seal(&self, number: u32, context: &[u8], text: &str) -> Result<Sealed, StoreError> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| StoreError::Sealing)?;
        Ok(Sealed::new(number, &nonce, &self.encrypt(nonce, context, text)?))
    }

    pub(crate) fn open(&self, context: &[u8], sealed: &Sealed) -> Result<Vec<u8>, StoreError> {
        let (_, rest) = sealed.split()?;
        let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>().ok_or(StoreError::Sealing)?;
        self.decrypt(*nonce, context, body)
    }

    /// The ciphertext and the tag.
    fn encrypt(&self, nonce: [u8; NONCE_LEN], context: &[u8], text: &str) -> Result<Vec<u8>, StoreError> {
        let mut body = text.as_bytes().to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        let sealed = self.0.seal_in_place_append_tag(nonce, Aad::from(context), &mut body);
        sealed.map_err(|_| StoreError::Sealing)?;
        Ok(body)
    }

    fn decrypt(&self, nonce: [u8; NONCE_LEN], context: &[u8], body: &[u8]) -> Result<Vec<u8>, StoreError> {
        let mut body = body.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        let text = self.0.open_in_place(nonce, Aad::from(context), &mut body);
        Ok(text.map_err(|_| StoreError::Sealing)?.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seal(key: &SealingKey, context: &[u8], text: &str) -> Sealed {
        key.seal(&[(context.to_vec(), text)]).unwrap().remove(0)
    }

    fn key_pair() -> (SealingKey, OpeningKey) {
        let opening = OpeningKey::derive(&[7; 32]);
        (opening.sealing_key(3), opening)
    }

    #[test]
    fn only_the_private_key_opens_what_the_public_key_sealed() {
        let (sealing, opening) = key_pair();
        let sealed = seal(&sealing, b"row", "8E9!#");
        assert_eq!((sealed.key_number().unwrap(), sealed.is_symmetric()), (3, false));
        assert_eq!(opening.open(b"row", &sealed).unwrap(), b"8E9!#");
        assert!(opening.open(b"other row", &sealed).is_err());
        assert!(OpeningKey::derive(&[8; 32]).open(b"row", &sealed).is_err());
        for changed in 0..sealed.0.len() {
            let mut bytes = sealed.0.clone();
            bytes[changed] ^= 1;
            let is_number = changed < NUMBER_LEN;
            assert_eq!(
                opening.open(b"row", &Sealed(bytes)).is_ok(),
                is_number,
                "byte {changed}"
            );
        }
        assert_ne!(seal(&sealing, b"row", "8E9!#"), sealed);
    }

    #[test]
    fn fields_of_a_row_have_keys_of_their_own() {
        let (sealing, opening) = key_pair();
        let texts = [(b"one".to_vec(), "same"), (b"two".to_vec(), "same")];
        let sealed = sealing.seal(&texts).unwrap();
        let head = NUMBER_LEN + ENCAPSULATED_LEN;
        assert_eq!(sealed[0].0[..head], sealed[1].0[..head]);
        assert_ne!(sealed[0].0[head..], sealed[1].0[head..]);
        for ((context, text), sealed) in texts.iter().zip(&sealed) {
            assert_eq!(opening.open(context, sealed).unwrap(), text.as_bytes());
        }
        assert!(opening.open(b"one", &sealed[1]).is_err());
    }

    #[test]
    fn a_symmetric_field_has_the_form_of_the_first_release() {
        let key = SymmetricKey::new(&[7; 32]).unwrap();
        let sealed = key.seal(3, b"row", "8E9!#").unwrap();
        assert_eq!(sealed.0[..NUMBER_LEN], [0, 0, 0, 3]);
        assert_eq!(sealed.0.len(), NUMBER_LEN + NONCE_LEN + 5 + 16);
        assert_eq!((sealed.key_number().unwrap(), sealed.is_symmetric()), (3, true));
        assert_eq!(key.open(b"row", &sealed).unwrap(), b"8E9!#");
        assert!(key.open(b"other row", &sealed).is_err());
    }

    #[test]
    fn too_short_fields_cannot_be_opened() {
        let (_, opening) = key_pair();
        let symmetric = SymmetricKey::new(&[7; 32]).unwrap();
        for length in 0..NUMBER_LEN + ENCAPSULATED_LEN + 16 {
            let sealed = Sealed(vec![0; length]);
            assert!(opening.open(b"row", &sealed).is_err());
            assert!(symmetric.open(b"row", &sealed).is_err());
            assert_eq!(sealed.key_number().is_ok(), length >= NUMBER_LEN);
        }
    }

    #[test]
    fn a_sealing_key_is_read_as_it_is_written() {
        let (sealing, _) = key_pair();
        let text = sealing.to_string();
        assert_eq!(text.parse(), Ok(sealing));
        let (_, public) = text.split_once(':').unwrap();
        for wrong in [
            String::new(),
            public.to_owned(),
            format!("0:{public}"),
            format!("2147483648:{public}"),
            format!("x:{public}"),
            "1:".to_owned(),
            "1:AAAA".to_owned(),
            format!("1:{public}AAAA"),
            format!("1:{public} "),
        ] {
            assert!(wrong.parse::<SealingKey>().is_err(), "{wrong}");
        }
    }
}
