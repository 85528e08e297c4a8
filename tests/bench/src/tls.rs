//! TLS in front of the local stack's parts: a certificate authority made for this run, and TLS proxies that forward
//! bytes and measure how long the stack works on requests.

use std::io::Write;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use getrandom::SysRng;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rsa::PrivateKey;
use rsa::pkcs8::EncodePrivateKey;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{CipherSuite, ServerConfig};
use tokio_rustls::server::TlsStream;

use crate::BenchError;

/// Debian's file of the trusted roots.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";
/// The roots of AWS's own endpoints.
const AWS_ROOTS: &str = include_str!("../../../shared/aws/src/aws-roots.pem");

/// The authority's files, and the proxies with its certificate.
pub(crate) struct Tls {
    /// The authority's certificate alone.
    pub(crate) authority: PathBuf,
    /// The authority's certificate and the system's roots, as many as a process has on Lambda.
    pub(crate) system: PathBuf,
    /// The authority's certificate and AWS's roots.
    pub(crate) aws: PathBuf,
    acceptor: TlsAcceptor,
    doors: AtomicU8,
    work: Arc<Work>,
    _directory: TempDir,
}

/// The addresses in the certificate.
const DOORS: u8 = 32;

fn address(door: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, door)
}

fn rsa_key() -> Result<KeyPair, BenchError> {
    let key = PrivateKey::new(&mut SysRng, 2048)?.to_pkcs8_der()?;
    Ok(KeyPair::try_from(key.as_bytes())?)
}

impl Tls {
    /// Makes an authority and a certificate for the proxies. Both use RSA with 2048 bits like AWS's endpoints, and the
    /// same cipher suite.
    pub(crate) fn new() -> Result<Self, BenchError> {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.distinguished_name.push(DnType::CommonName, "bench");
        let authority = CertifiedIssuer::self_signed(authority, rsa_key()?)?;
        let key = rsa_key()?;
        let names: Vec<_> = (1..=DOORS).map(|door| address(door).to_string()).collect();
        let leaf = CertificateParams::new(names)?.signed_by(&key, &authority)?;
        let private = PrivateKeyDer::try_from(key.serialize_der())?;
        let mut provider = ring::default_provider();
        provider
            .cipher_suites
            .sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], private)?;
        config.ignore_client_order = true;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];

        let directory = tempfile::tempdir()?;
        let ours = authority.pem();
        let write = |name: &str, parts: &[&str]| -> std::io::Result<PathBuf> {
            let path = directory.path().join(name);
            let mut file = std::fs::File::create(&path)?;
            for part in parts {
                writeln!(file, "{part}")?;
            }
            Ok(path)
        };
        Ok(Self {
            authority: write("authority.pem", &[&ours])?,
            system: write("system.pem", &[&std::fs::read_to_string(SYSTEM_ROOTS)?, &ours])?,
            aws: write("aws.pem", &[AWS_ROOTS, &ours])?,
            acceptor: TlsAcceptor::from(Arc::new(config)),
            doors: AtomicU8::new(0),
            work: Arc::default(),
            _directory: directory,
        })
    }

    /// Starts a proxy before `http://host:port` and returns its URL. Each proxy has an address of its own: a client
    /// resumes a TLS session with the same address, and AWS's services never share one.
    pub(crate) async fn before(&self, url: &str) -> Result<String, BenchError> {
        let behind = url.trim_start_matches("http://").to_owned();
        let door = 1 + self.doors.fetch_add(1, Ordering::Relaxed) % DOORS;
        let listener = TcpListener::bind((address(door), 0)).await?;
        let door = format!("https://{}", listener.local_addr()?);
        let (acceptor, work) = (self.acceptor.clone(), self.work.clone());
        tokio::spawn(async move {
            while let Ok((outside, _)) = listener.accept().await {
                let (acceptor, behind, work) = (acceptor.clone(), behind.clone(), work.clone());
                tokio::spawn(async move {
                    outside.set_nodelay(true)?;
                    let outside = acceptor.accept(outside).await?;
                    let inside = TcpStream::connect(behind).await?;
                    inside.set_nodelay(true)?;
                    forward(outside, inside, &work).await
                });
            }
        });
        Ok(door)
    }

    /// How long the services behind the proxies have worked since this was last read.
    pub(crate) fn take_worked(&self) -> Duration {
        std::mem::take(&mut self.work.lock().total)
    }
}

/// The time in which at least one request has no response yet.
#[derive(Default)]
struct Work(Mutex<Requests>);

#[derive(Default)]
struct Requests {
    open: usize,
    /// When the first of the open requests began.
    since: Option<Instant>,
    total: Duration,
}

impl Work {
    fn lock(&self) -> MutexGuard<'_, Requests> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request as open until the guard is dropped.
    fn begin(&self) -> OpenRequest<'_> {
        let mut requests = self.lock();
        requests.open += 1;
        requests.since.get_or_insert_with(Instant::now);
        OpenRequest(self)
    }
}

struct OpenRequest<'a>(&'a Work);

impl Drop for OpenRequest<'_> {
    fn drop(&mut self) {
        let mut requests = self.0.lock();
        requests.open -= 1;
        if requests.open == 0
            && let Some(since) = requests.since.take()
        {
            requests.total += since.elapsed();
        }
    }
}

/// Forwards the requests and responses of a connection until one side closes it.
async fn forward(mut outside: TlsStream<TcpStream>, mut inside: TcpStream, work: &Work) -> std::io::Result<()> {
    let (mut request, mut response) = ([0; 16 * 1024], [0; 16 * 1024]);
    let mut open = None;
    loop {
        tokio::select! {
            read = outside.read(&mut request) => match read? {
                0 => return Ok(()),
                read => {
                    open.get_or_insert_with(|| work.begin());
                    inside.write_all(&request[..read]).await?;
                }
            },
            read = inside.read(&mut response) => {
                open = None;
                match read? {
                    0 => return outside.shutdown().await,
                    read => {
                        outside.write_all(&response[..read]).await?;
                        outside.flush().await?;
                    }
                }
            }
        }
    }
}
