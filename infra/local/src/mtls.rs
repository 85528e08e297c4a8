//! The certificates for `--mtls`: an authority that is created at each start, and a certificate for the service and for
//! each peer. Accepting TLS connections is in `infra/simulators`.

use std::path::Path;

use peers::Access;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;
use simulators::TlsListener;
use tokio::net::TcpListener;

use crate::{StartError, data_dir, durable, serving};

/// The directory, in the data directory, with the certificates and keys, for calls in the name of one of the parties.
const DIRECTORY: &str = "mtls";

/// The parties that authenticate each other.
pub(crate) struct Mtls {
    pub(crate) service: Party,
    pub(crate) smdp: Party,
    pub(crate) network: Party,
}

/// The credentials of one party, in PEM. There is no `Debug`, because the key is private.
pub(crate) struct Party {
    certificate: String,
    key: String,
    authority: String,
}

impl Mtls {
    /// Creates the authority and all certificates, and writes them to the data directory.
    pub(crate) fn new(data_dir: Option<&Path>) -> Result<Self, StartError> {
        let error = StartError::context("the certificates");
        let key = KeyPair::generate().map_err(&error)?;
        let mut params = certificate_params("authority").map_err(&error)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = params.self_signed(&key).map_err(&error)?.pem();
        let issuer = Issuer::new(params, key);
        let party = |name: &str| {
            let key = KeyPair::generate()?;
            let certificate = certificate_params(name)?.signed_by(&key, &issuer)?;
            Ok::<_, rcgen::Error>(Party {
                certificate: certificate.pem(),
                key: key.serialize_pem(),
                authority: authority.clone(),
            })
        };
        let mtls = Self {
            service: party("simswap").map_err(&error)?,
            smdp: party("smdp").map_err(&error)?,
            network: party("network").map_err(&error)?,
        };
        if let Some(data_dir) = data_dir {
            let directory = data_dir.join(DIRECTORY);
            data_dir::create(&directory)?;
            let write = |name: String, pem: &str| {
                let file = directory.join(name);
                durable::write(&file, pem.as_bytes()).map_err(|error| data_dir::unusable(&file, &error))
            };
            write("authority.pem".to_owned(), &authority)?;
            for (name, party) in [
                ("simswap", &mtls.service),
                ("smdp", &mtls.smdp),
                ("network", &mtls.network),
            ] {
                write(format!("{name}.pem"), &party.certificate)?;
                write(format!("{name}.key"), &party.key)?;
            }
        }
        Ok(mtls)
    }
}

impl Party {
    /// The secret from which a function reads the credentials, as JSON.
    pub(crate) fn secret(&self) -> String {
        json!({"certificate": self.certificate, "key": self.key, "authorities": self.authority}).to_string()
    }

    /// The access to another party, with this certificate.
    pub(crate) fn access(&self) -> Result<Access, StartError> {
        Access::default()
            .with_certificate(&self.secret())
            .map_err(StartError::context("a certificate"))
    }

    /// Accepts connections only from parties with a certificate of the authority.
    pub(crate) fn listener(&self, tcp: TcpListener) -> Result<TlsListener, StartError> {
        TlsListener::new(tcp, &self.certificate, &self.key, &self.authority)
            .map_err(StartError::context("a certificate"))
    }

    /// The distinguished name in the certificate, in the form that callbacks are checked against.
    pub(crate) fn subject(&self) -> Result<String, StartError> {
        let certificate = CertificateDer::from_pem_slice(self.certificate.as_bytes());
        let subject = certificate.ok().as_ref().and_then(simulators::subject);
        subject.ok_or_else(|| StartError("a certificate has no subject".to_owned()))
    }
}

/// The URL of a listener: `https` if the party has a certificate, otherwise `http`.
pub(crate) fn url(listener: &TcpListener, party: Option<&Party>) -> Result<String, StartError> {
    let url = serving::url(listener)?;
    Ok(match party {
        None => url,
        Some(_) => url.replacen("http://", "https://", 1),
    })
}

/// The access to another party, with a certificate if there is one.
pub(crate) fn access(party: Option<&Party>) -> Result<Access, StartError> {
    party.map_or(Ok(Access::default()), Party::access)
}

/// Parameters of a certificate for this machine, as server and as client.
fn certificate_params(name: &str) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    let subject = &mut params.distinguished_name;
    subject.remove(DnType::CommonName);
    subject.push(DnType::CommonName, name);
    subject.push(DnType::OrganizationName, "Simswap local stack");
    Ok(params)
}
