//! The token issuer, and the check of API Gateway's JWT authorizer. What a role may do is in `shared/domain`.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use getrandom::SysRng;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use ring::digest::{SHA256, digest};
use rsa::PrivateKey;
use rsa::pkcs1::{EncodeRsaPrivateKey, EncodeRsaPublicKey};
use rsa::pkcs8::{DecodePrivateKey, EncodePrivateKey, EncodePublicKey, LineEnding};
use serde_json::{Map, Value, json};

use crate::data_dir::{self, TOKEN_KEY};
use crate::{StartError, rs256};

/// The `iss` of every token issued here.
pub const ISSUER: &str = "https://simswap.local";
/// The `aud` of every token issued here.
pub const AUDIENCE: &str = "simswap";

/// Issues and checks tokens, with one RSA key of 2048 bits.
pub struct Tokens {
    sign: EncodingKey,
    verify: DecodingKey,
    kid: String,
}

impl Tokens {
    /// Reads the key of the data directory, or creates both. Without a data directory, the key is in memory only.
    ///
    /// # Errors
    /// When the directory cannot be used, or its key is not an RSA key.
    pub fn open(data_dir: Option<&Path>) -> Result<Self, StartError> {
        let fault = "an RSA key in PKCS #8; delete it to get a new one, which accepts no token printed before";
        data_dir::read_or_create_key(data_dir, TOKEN_KEY, new_key, Self::from_pem, fault)
    }

    fn from_pem(pem: &[u8]) -> Option<Self> {
        let private = PrivateKey::from_pkcs8_pem(str::from_utf8(pem).ok()?).ok()?;
        let public = private.to_public_key();
        let public_der = public.to_public_key_der().ok()?;
        let fingerprint = digest(&SHA256, public_der.as_bytes());
        let kid = fingerprint.as_ref()[..8].iter().map(|b| format!("{b:02x}"));
        rs256::install();
        Some(Self {
            sign: EncodingKey::from_rsa_der(private.to_pkcs1_der().ok()?.as_bytes()),
            verify: DecodingKey::from_rsa_der(public.to_pkcs1_der().ok()?.as_bytes()),
            kid: kid.collect(),
        })
    }

    /// Issues a token (RS256). It expires `expires_in` seconds after `now`, or before `now` if that is negative.
    pub fn issue(
        &self,
        role: &str,
        customer: Option<&str>,
        reseller: Option<&str>,
        subject: &str,
        expires_in: i64,
        now: Timestamp,
    ) -> String {
        let now = now.as_second();
        // Not before 1970: implementations disagree about a negative `exp`.
        let expires = now.saturating_add(expires_in).max(0);
        let mut claims = json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": subject, "role": role, "iat": now, "exp": expires,
        });
        for (name, value) in [("customer", customer), ("reseller", reseller)] {
            if let Some(value) = value {
                claims[name] = value.into();
            }
        }
        let mut header = Header::new(Algorithm::RS256);
        header.kid = Some(self.kid.clone());
        jsonwebtoken::encode(&header, &claims, &self.sign).expect("an RSA key signs any claims")
    }

    /// The claims of a valid token, in the form in which API Gateway passes them to a function: every value is text,
    /// and a list is `[a b]`. A token is valid if it is signed with this key (RS256) and has its `kid`, its `iss` and
    /// `aud` are those of this issuer, its `exp` is in the future, and its `nbf` and `iat` are not. Otherwise `None`.
    pub fn check(&self, token: &str, now: Timestamp) -> Option<BTreeMap<String, String>> {
        let mut validation = Validation::new(Algorithm::RS256);
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["iss", "aud"]);
        // The library would use the system clock; the times are compared with `now` below.
        validation.validate_exp = false;
        let decoded = jsonwebtoken::decode::<Map<String, Value>>(token, &self.verify, &validation).ok()?;
        if decoded.header.kid.as_deref() != Some(&self.kid) {
            return None;
        }
        let claims = decoded.claims;
        let now = now.as_second() as f64;
        let not_after_now = |name| match claims.get(name) {
            None => true,
            Some(time) => time.as_f64().is_some_and(|time| time <= now),
        };
        let expires = claims.get("exp").and_then(Value::as_f64)?;
        (expires > now && not_after_now("nbf") && not_after_now("iat")).then(|| {
            // API Gateway omits claims that are null.
            let present = claims.iter().filter(|(_, value)| !value.is_null());
            present.map(|(name, value)| (name.clone(), text(value))).collect()
        })
    }
}

fn new_key() -> io::Result<Vec<u8>> {
    let key = PrivateKey::new(&mut SysRng, 2048).map_err(io::Error::other)?;
    let pem = key.to_pkcs8_pem(LineEnding::LF).map_err(io::Error::other)?;
    Ok(pem.as_bytes().to_vec())
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => {
            let texts: Vec<String> = values.iter().map(text).collect();
            format!("[{}]", texts.join(" "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
    use ring::rand::SystemRandom;
    use ring::signature::{RSA_PKCS1_SHA512, RsaKeyPair};

    use super::*;

    const NOW: Timestamp = Timestamp::constant(1_738_589_930, 0);

    fn signed(tokens: &Tokens, header: &Header, change: impl FnOnce(&mut Value)) -> String {
        let now = NOW.as_second();
        let mut claims = json!({"iss": ISSUER, "aud": AUDIENCE, "sub": "s", "iat": now, "exp": now + 60});
        change(&mut claims);
        jsonwebtoken::encode(header, &claims, &tokens.sign).unwrap()
    }

    #[test]
    fn a_token_is_valid_in_a_second_process_and_has_the_requested_claims() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new");
        let first = Tokens::open(Some(&path)).unwrap();
        let second = Tokens::open(Some(&path)).unwrap();
        let token = first.issue("OWNER", Some("C-100"), None, "anna", 3600, NOW);
        let claims = second.check(&token, NOW).unwrap();
        let expected = [
            ("aud", AUDIENCE),
            ("customer", "C-100"),
            ("exp", "1738593530"),
            ("iat", "1738589930"),
            ("iss", ISSUER),
            ("role", "OWNER"),
            ("sub", "anna"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(claims, BTreeMap::from(expected));
    }

    #[test]
    fn invalid_tokens_are_rejected() {
        let tokens = Tokens::open(None).unwrap();
        let stranger = Tokens::open(None).unwrap();
        let now = NOW.as_second();
        let mut header = Header::new(Algorithm::RS256);
        header.kid = Some(tokens.kid.clone());
        let mut other_kid = header.clone();
        other_kid.kid = Some("other".to_owned());
        let mut no_kid = header.clone();
        no_kid.kid = None;
        let good = signed(&tokens, &header, |_| {});
        let [head, claims, signature] = good.split('.').collect::<Vec<_>>()[..] else {
            panic!("three parts");
        };
        let mut rs512 = header.clone();
        rs512.alg = Algorithm::RS512;
        let rs512 = BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(&rs512).unwrap());
        let with_rs512 = {
            let key = RsaKeyPair::from_der(tokens.sign.as_bytes()).unwrap();
            let mut signature = vec![0; key.public().modulus_len()];
            let signed = format!("{rs512}.{claims}");
            let random = SystemRandom::new();
            key.sign(&RSA_PKCS1_SHA512, &random, signed.as_bytes(), &mut signature)
                .unwrap();
            format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
        };
        // {"alg":"none","typ":"JWT"}
        let none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0";
        for (case, token, accepted) in [
            ("good", good.clone(), true),
            (
                "in a list of audiences",
                signed(&tokens, &header, |c| c["aud"] = json!(["x", AUDIENCE])),
                true,
            ),
            ("expired", tokens.issue("ADMIN", None, None, "s", -1, NOW), false),
            ("expires now", tokens.issue("ADMIN", None, None, "s", 0, NOW), false),
            (
                "long expired",
                tokens.issue("ADMIN", None, None, "s", i64::MIN, NOW),
                false,
            ),
            ("no exp", signed(&tokens, &header, |c| c["exp"] = Value::Null), false),
            (
                "not yet",
                signed(&tokens, &header, |c| c["nbf"] = json!(now + 1)),
                false,
            ),
            (
                "nbf is text",
                signed(&tokens, &header, |c| c["nbf"] = json!("soon")),
                false,
            ),
            (
                "issued later",
                signed(&tokens, &header, |c| c["iat"] = json!(now + 1)),
                false,
            ),
            (
                "other issuer",
                signed(&tokens, &header, |c| c["iss"] = json!("x")),
                false,
            ),
            (
                "other audience",
                signed(&tokens, &header, |c| c["aud"] = json!("x")),
                false,
            ),
            (
                "no audience",
                signed(&tokens, &header, |c| c["aud"] = Value::Null),
                false,
            ),
            ("other key", signed(&stranger, &header, |_| {}), false),
            ("other kid", signed(&tokens, &other_kid, |_| {}), false),
            ("no kid", signed(&tokens, &no_kid, |_| {}), false),
            ("other algorithm", with_rs512, false),
            ("unsigned", format!("{none}.{claims}."), false),
            ("two parts", format!("{head}.{claims}"), false),
            ("signature of nothing", format!("{head}.{none}.{signature}"), false),
            ("empty", String::new(), false),
        ] {
            assert_eq!(tokens.check(&token, NOW).is_some(), accepted, "{case}");
        }
        let claims = signed(&tokens, &header, |c| c["groups"] = json!(["a", "b"]));
        assert_eq!(tokens.check(&claims, NOW).unwrap()["groups"], "[a b]");
    }

    #[test]
    fn a_file_that_is_not_a_key_is_reported() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(TOKEN_KEY), "nothing").unwrap();
        let Err(error) = Tokens::open(Some(directory.path())) else {
            panic!("accepted the file");
        };
        assert!(
            error
                .to_string()
                .contains("jwt.pem is not an RSA key in PKCS #8; delete it"),
            "{error}"
        );
    }
}
