//! A listener for mutual TLS: it accepts only connections whose client presents a certificate of the authority.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_cert::Certificate;
use x509_cert::der::Decode;

/// The time limit of a handshake.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);

/// Accepts connections with mutual TLS.
pub struct TlsListener {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
    handshakes: JoinSet<Option<(TlsStream<TcpStream>, TlsCaller)>>,
}

/// The client of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsCaller {
    /// The address of the client.
    pub address: SocketAddr,
    /// The distinguished name in the client's certificate, as [`subject`] formats it.
    pub subject: String,
}

/// Why a listener cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate, the key or the authority is not valid PEM.
    #[error("a certificate or a key is not in PEM")]
    Pem(#[from] pem::Error),
    /// The certificate and the key cannot be used together.
    #[error("the certificate cannot be used")]
    Certificate(#[from] rustls::Error),
    /// The authority cannot be used to verify clients.
    #[error("the authority cannot be used")]
    Authority(#[from] rustls::client::VerifierBuilderError),
}

impl TlsListener {
    /// Accepts connections of `tcp` with this certificate and key, from clients with a certificate of the authority.
    /// All three are PEM.
    ///
    /// # Errors
    /// When one of them is not valid PEM, or the certificate and the key do not belong together.
    pub fn new(tcp: TcpListener, certificate: &str, key: &str, authority: &str) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.as_bytes())?)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let callers = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()?;
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(callers)
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(certificate.as_bytes())?],
                PrivateKeyDer::from_pem_slice(key.as_bytes())?,
            )?;
        Ok(Self {
            tcp,
            acceptor: TlsAcceptor::from(Arc::new(config)),
            handshakes: JoinSet::new(),
        })
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = TlsCaller;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            tokio::select! {
                (stream, address) = Listener::accept(&mut self.tcp) => {
                    let handshake = self.acceptor.accept(stream);
                    self.handshakes.spawn(async move {
                        let result = tokio::time::timeout(HANDSHAKE_WITHIN, handshake).await;
                        let stream = result.ok()?.ok()?;
                        let certificate = stream.get_ref().1.peer_certificates()?.first()?;
                        let subject = subject(certificate)?;
                        Some((stream, TlsCaller { address, subject }))
                    });
                }
                Some(done) = self.handshakes.join_next() => {
                    if let Ok(Some(connection)) = done {
                        return connection;
                    }
                }
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        let address = self.tcp.local_addr()?;
        Ok(TlsCaller {
            address,
            subject: String::new(),
        })
    }
}

impl Connected<IncomingStream<'_, TlsListener>> for TlsCaller {
    fn connect_info(stream: IncomingStream<'_, TlsListener>) -> Self {
        stream.remote_addr().clone()
    }
}

/// The distinguished name in a certificate, with its parts in the order of the certificate, such as
/// `CN=smdp,O=Simswap`. `None` if the certificate cannot be parsed.
pub fn subject(certificate: &CertificateDer<'_>) -> Option<String> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let names = certificate.tbs_certificate().subject().iter_rdn();
    let parts: Vec<_> = names.map(ToString::to_string).collect();
    Some(parts.join(","))
}
