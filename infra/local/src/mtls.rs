//! With `--mtls`: an authority that lives as long as the stack, and a certificate of it for each side. What is done with
//! them is elsewhere.

use std::path::Path;

use peers::Access;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;
use simulators::TlsListener;
use tokio::net::TcpListener;

use crate::stack::failed;
use crate::{StartError, data_dir, durable};

/// In the data directory, for those who want to call like one of the sides.
const DIRECTORY: &str = "mtls";

/// Who proves to whom who they are.
pub(crate) struct Mtls {
    pub(crate) ours: Party,
    pub(crate) smdp: Party,
    pub(crate) network: Party,
}

/// One side, all of it PEM. It has no `Debug`, because it holds a private key.
pub(crate) struct Party {
    certificate: String,
    key: String,
    authority: String,
}

impl Mtls {
    /// Makes all anew, and writes it into the data directory.
    pub(crate) fn new(data_dir: Option<&Path>) -> Result<Self, StartError> {
        let unmade = failed("the certificates");
        let key = KeyPair::generate().map_err(&unmade)?;
        let mut params = named("authority").map_err(&unmade)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = params.self_signed(&key).map_err(&unmade)?.pem();
        let issuer = Issuer::new(params, key);
        let party = |name: &str| {
            let key = KeyPair::generate()?;
            let certificate = named(name)?.signed_by(&key, &issuer)?;
            Ok::<_, rcgen::Error>(Party {
                certificate: certificate.pem(),
                key: key.serialize_pem(),
                authority: authority.clone(),
            })
        };
        let mtls = Self {
            ours: party("simswap").map_err(&unmade)?,
            smdp: party("smdp").map_err(&unmade)?,
            network: party("network").map_err(&unmade)?,
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
                ("simswap", &mtls.ours),
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
    /// As a function finds it in Secrets Manager.
    pub(crate) fn secret(&self) -> String {
        json!({"certificate": self.certificate, "key": self.key, "authorities": self.authority}).to_string()
    }

    /// How this side calls another one.
    pub(crate) fn access(&self) -> Result<Access, StartError> {
        Access::default()
            .with_certificate(&self.secret())
            .map_err(failed("a certificate"))
    }

    /// How this side is called.
    pub(crate) fn listener(&self, tcp: TcpListener) -> Result<TlsListener, StartError> {
        TlsListener::new(tcp, &self.certificate, &self.key, &self.authority).map_err(failed("a certificate"))
    }

    /// Its name, as a callback of it shows it.
    pub(crate) fn subject(&self) -> Result<String, StartError> {
        let certificate = CertificateDer::from_pem_slice(self.certificate.as_bytes());
        let subject = certificate.ok().as_ref().and_then(simulators::subject);
        subject.ok_or_else(|| StartError("a certificate has no subject".to_owned()))
    }
}

/// A certificate for this machine, to be called and to call.
fn named(name: &str) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    let subject = &mut params.distinguished_name;
    subject.remove(DnType::CommonName);
    subject.push(DnType::CommonName, name);
    subject.push(DnType::OrganizationName, "Simswap local stack");
    Ok(params)
}
