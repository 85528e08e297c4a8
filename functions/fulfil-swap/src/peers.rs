//! How the two peers are reached: what is shown to them is a secret, read once a process.

use std::sync::LazyLock;

use aws_sdk_secretsmanager::{Client, Config};
use aws_smithy_runtime_api::client::http::SharedHttpConnector;
use edge::{Settings, log_cause};
use network::{Access, BadSecret};

/// The way to each peer.
#[derive(Debug, Clone)]
pub struct Peers {
    /// To the SM-DP+.
    pub smdp: SharedHttpConnector,
    /// To the network.
    pub network: SharedHttpConnector,
}

/// A secret that is named in the settings and cannot be used. Nothing of it is told.
#[derive(Debug, thiserror::Error)]
pub enum PeersError {
    /// Secrets Manager does not give it; why is in the log.
    #[error("the secret of {0} cannot be read")]
    Unreadable(&'static str),
    /// It is not what it should be.
    #[error("the secret of {0} {1}")]
    Bad(&'static str, BadSecret),
}

impl Peers {
    /// Reads `SMDP_CLIENT_CERT`, `NETWORK_CLIENT_CERT` and `NETWORK_TOKEN`, the names or ARNs of secrets; what is not set
    /// is not shown, and without any no client is made.
    pub async fn read(secrets: Config, settings: &Settings) -> Result<Self, PeersError> {
        let secrets = &LazyLock::new(|| Client::from_conf(secrets));
        let certificate = |access: Access, secret: &str| access.with_certificate(secret);
        let token = |access: Access, secret: &str| access.with_token(secret);
        let access = Access::default;
        let smdp = with(access(), "SMDP_CLIENT_CERT", certificate, secrets, settings).await?;
        let network = with(
            access(),
            "NETWORK_CLIENT_CERT",
            certificate,
            secrets,
            settings,
        )
        .await?;
        let network = with(network, "NETWORK_TOKEN", token, secrets, settings).await?;
        Ok(Self {
            smdp: smdp.connector(),
            network: network.connector(),
        })
    }
}

async fn with(
    access: Access,
    name: &'static str,
    take: impl Fn(Access, &str) -> Result<Access, BadSecret>,
    secrets: &LazyLock<Client, impl FnOnce() -> Client>,
    settings: &Settings,
) -> Result<Access, PeersError> {
    let secret = settings.text_or(name, "");
    if secret.is_empty() {
        return Ok(access);
    }
    let given = secrets.get_secret_value().secret_id(secret).send().await;
    let given = given.map_err(|error| {
        log_cause("a secret cannot be read", &error);
        PeersError::Unreadable(name)
    })?;
    take(access, given.secret_string().unwrap_or_default())
        .map_err(|bad| PeersError::Bad(name, bad))
}
