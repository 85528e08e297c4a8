//! The access to a peer: our client certificate, the certificate authorities that we trust, and the bearer token.
//! Nothing here can be printed.

use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use aws::HttpsConnector;
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;

/// How long connecting to a peer may take, with the TLS handshake.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// The access to a peer. The default has no client certificate and no token, and trusts the system's certificate
/// authorities.
#[derive(Clone, Default)]
pub struct Access {
    identity: Option<Arc<CertifiedKey>>,
    authorities: Vec<CertificateDer<'static>>,
    authorization: Option<String>,
}

/// Why a secret cannot be used. The message says what is missing and never repeats the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadSecret(&'static str);

/// The secret with a certificate: PEM in JSON. It has no `Debug`, because it contains a private key.
#[derive(Deserialize)]
struct CertificateSecret {
    /// Our certificate, followed by the intermediate certificates up to its authority.
    certificate: String,
    key: String,
    /// The authorities of the peer's certificate; those of the system if empty.
    #[serde(default)]
    authorities: String,
}

impl Access {
    /// Presents a client certificate. The secret is the JSON object `{"certificate", "key", "authorities"}`, each value
    /// in PEM and the last one optional.
    ///
    /// # Errors
    /// When the secret has another form, or the key does not belong to the certificate.
    pub fn with_certificate(self, secret: &str) -> Result<Self, BadSecret> {
        let secret: CertificateSecret =
            serde_json::from_str(secret).map_err(|_| BadSecret(r#"must be {"certificate", "key"}, both PEM"#))?;
        let chain = certificates(&secret.certificate)
            .filter(|chain| !chain.is_empty())
            .ok_or(BadSecret("has no certificate in PEM"))?;
        let key =
            PrivateKeyDer::from_pem_slice(secret.key.as_bytes()).map_err(|_| BadSecret("has no private key in PEM"))?;
        let key = rustls::crypto::ring::sign::any_supported_type(&key)
            .map_err(|_| BadSecret("has a private key of an unknown kind"))?;
        let identity = CertifiedKey::new(chain, key);
        identity
            .keys_match()
            .map_err(|_| BadSecret("has a private key that is not the certificate's"))?;
        let access = Self {
            identity: Some(Arc::new(identity)),
            ..self
        };
        access.with_authorities(&secret.authorities)
    }

    /// Trusts these certificate authorities, in PEM, instead of those of the system. An empty text changes nothing.
    ///
    /// # Errors
    /// When the text is not PEM.
    pub fn with_authorities(mut self, pem: &str) -> Result<Self, BadSecret> {
        let authorities = certificates(pem);
        let authorities = authorities.ok_or(BadSecret("has authorities that are not PEM"))?;
        self.authorities.extend(authorities);
        Ok(self)
    }

    /// Sends this bearer token with each call.
    ///
    /// # Errors
    /// When the token is not valid in a header.
    pub fn with_token(self, secret: &str) -> Result<Self, BadSecret> {
        let token = secret.trim();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(BadSecret("must be a bearer token"));
        }
        Ok(Self {
            authorization: Some(format!("Bearer {token}")),
            ..self
        })
    }

    /// The connector for calls to this peer. It reads the system's root certificates at the first call.
    pub fn connector(self) -> SharedHttpConnector {
        let authorization = self.authorization.clone();
        SharedHttpConnector::new(PeerConnector {
            https: HttpsConnector::new(CONNECT_WITHIN, || self.tls()),
            authorization,
        })
    }

    fn tls(self) -> ClientConfig {
        let roots = match self.authorities.is_empty() {
            false => Arc::new(roots(self.authorities)),
            true => SYSTEM.clone(),
        };
        let config = aws::tls(roots);
        match self.identity {
            None => config.with_no_client_auth(),
            Some(identity) => {
                config.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(identity)))
            }
        }
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Access")
    }
}

/// The system's certificate authorities, read at the first call to a peer without authorities of its own. Reading them
/// is the largest part of that call, so both peers share them.
static SYSTEM: LazyLock<Arc<RootCertStore>> =
    LazyLock::new(|| Arc::new(roots(rustls_native_certs::load_native_certs().certs)));

fn roots(authorities: Vec<CertificateDer<'static>>) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(authorities);
    roots
}

fn certificates(pem: &str) -> Option<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .ok()
}

struct PeerConnector {
    https: HttpsConnector,
    authorization: Option<String>,
}

impl fmt::Debug for PeerConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PeerConnector")
    }
}

impl HttpConnector for PeerConnector {
    fn call(&self, mut request: HttpRequest) -> HttpConnectorFuture {
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert("authorization", authorization.clone());
        }
        self.https.call(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::tests::{peer, response};
    use crate::http::{Call, exchange};
    use serde_json::json;

    /// A certificate, its key, and the key of another certificate.
    fn certificate_and_keys() -> (String, String, String) {
        let generate = |name: &str| rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let (ours, other) = (generate("ours"), generate("other"));
        let key = ours.signing_key.serialize_pem();
        (ours.cert.pem(), key, other.signing_key.serialize_pem())
    }

    #[test]
    fn an_invalid_secret_is_rejected_without_repeating_it() {
        let (certificate, key, of_other) = certificate_and_keys();
        let secret = |certificate: &str, key: &str, authorities: &str| {
            json!({"certificate": certificate, "key": key, "authorities": authorities}).to_string()
        };
        let good = secret(&certificate, &key, &certificate);
        assert!(Access::default().with_certificate(&good).is_ok());
        for (secret, words) in [
            ("s3cret".to_owned(), r#"must be {"certificate", "key"}, both PEM"#),
            (secret("s3cret", &key, ""), "has no certificate in PEM"),
            (secret(&certificate, "s3cret", ""), "has no private key in PEM"),
            (
                secret(&certificate, &of_other, ""),
                "has a private key that is not the certificate's",
            ),
        ] {
            let error = Access::default().with_certificate(&secret).unwrap_err();
            assert_eq!(error.to_string(), words);
        }
        for token in ["", " ", "two words", "line\nbreak"] {
            assert!(Access::default().with_token(token).is_err(), "{token:?}");
        }
    }

    #[tokio::test]
    async fn a_token_is_sent_with_each_call_and_never_printed() {
        let (url, request) = peer(&response("204 No Content", "")).await;
        let access = Access::default().with_token("s3cret\n").unwrap();
        let printed = format!("{access:?}");
        let connector = access.connector();
        assert!(!format!("{printed}{connector:?}").contains("s3cret"));
        let call = Call {
            method: "GET",
            url: &url,
            headers: &[],
            body: Vec::new(),
        };
        assert_eq!(exchange(&connector, call).await.ok().unwrap().status, 204);
        let request = request.await.unwrap();
        assert!(request.contains("authorization: Bearer s3cret\r\n"), "{request}");
    }
}
