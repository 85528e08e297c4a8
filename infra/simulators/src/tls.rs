//! The side that is called by mutual TLS: who shows no certificate of the authority gets no connection.

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
use x509_parser::prelude::{FromDer, X509Certificate};

/// Time for a handshake.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);

/// Takes connections by mutual TLS.
pub struct TlsListener {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
    handshakes: JoinSet<Option<(TlsStream<TcpStream>, TlsCaller)>>,
}

/// Who has called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsCaller {
    /// From where.
    pub address: SocketAddr,
    /// The distinguished name in the certificate.
    pub subject: String,
}

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// One of the three is no PEM of its kind.
    #[error("a certificate or a key is not in PEM")]
    Pem(#[from] pem::Error),
    /// They do not fit together.
    #[error("the certificate cannot be used")]
    Certificate(#[from] rustls::Error),
    /// No caller could ever show a certificate.
    #[error("the authority cannot be used")]
    Authority(#[from] rustls::client::VerifierBuilderError),
}

impl TlsListener {
    /// All three are PEM. The authority is whose certificates callers have to show.
    ///
    /// # Errors
    /// When they are not such, or do not fit together.
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
                        let shaken = tokio::time::timeout(HANDSHAKE_WITHIN, handshake).await;
                        let stream = shaken.ok()?.ok()?;
                        let shown = stream.get_ref().1.peer_certificates()?.first()?;
                        let subject = subject(shown)?;
                        Some((stream, TlsCaller { address, subject }))
                    });
                }
                Some(done) = self.handshakes.join_next() => {
                    if let Ok(Some(taken)) = done {
                        return taken;
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

/// The distinguished name in a certificate, its parts in the certificate's order: `CN=smdp,O=Simswap`.
pub fn subject(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Some(certificate.subject().to_string().replace(", ", ","))
}
