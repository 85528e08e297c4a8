//! The HTTP connectors to the two peers and their credentials. The credentials come from Secrets Manager. They are read
//! when the function starts, and again when a peer rejects them. Not here: the calls (`call.rs`).

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws::ServiceClient;
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use edge::{Settings, log_cause};
use peers::{Access, BadSecret, Peer};
use serde_json::json;

/// Minimum time between two reads of a peer's credentials. It bounds the cost if a peer rejects all calls.
const REREAD_INTERVAL: Duration = Duration::from_secs(5);

/// The HTTP connectors to the peers.
#[derive(Debug, Clone)]
pub struct Peers {
    /// The connector to the SM-DP+.
    pub smdp: SharedHttpConnector,
    /// The connector to the network.
    pub network: SharedHttpConnector,
}

/// A secret that a setting names cannot be used. The messages contain nothing of the secret.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// Reading the secret failed. The log has the cause.
    #[error("the secret named by {0} cannot be read")]
    Unreadable(&'static str),
    /// The secret has the wrong content.
    #[error("the secret named by {0} {1}")]
    Bad(&'static str, BadSecret),
}

impl Peers {
    /// Reads the secrets whose names or ARNs are in `SMDP_CLIENT_CERT`, `NETWORK_CLIENT_CERT` and `NETWORK_TOKEN`. Each
    /// setting is optional; without any of them Secrets Manager is not used. After a 401 or 403 the secrets are read
    /// again.
    pub async fn read(secrets: ServiceClient, settings: &Settings) -> Result<Self, CredentialError> {
        Self::read_with_interval(REREAD_INTERVAL, secrets, settings).await
    }

    async fn read_with_interval(
        reread_interval: Duration,
        secrets: ServiceClient,
        settings: &Settings,
    ) -> Result<Self, CredentialError> {
        let with_certificate: AddSecret = Access::with_certificate;
        let secret = |setting, add| {
            let name = settings.text_or(setting, "");
            (!name.is_empty()).then_some(NamedSecret { setting, name, add })
        };
        let smdp = [secret("SMDP_CLIENT_CERT", with_certificate)];
        let network = [
            secret("NETWORK_CLIENT_CERT", with_certificate),
            secret("NETWORK_TOKEN", Access::with_token),
        ];
        let connector = async |peer, named: &mut dyn Iterator<Item = NamedSecret>| {
            PeerCredentials::connector(peer, named.collect(), secrets.clone(), reread_interval).await
        };
        Ok(Self {
            smdp: connector(Peer::Smdp, &mut smdp.into_iter().flatten()).await?,
            network: connector(Peer::Network, &mut network.into_iter().flatten()).await?,
        })
    }
}

/// Adds the text of a secret to the access to a peer.
type AddSecret = fn(Access, &str) -> Result<Access, BadSecret>;

/// A secret that authenticates us to a peer.
struct NamedSecret {
    /// The setting that names the secret.
    setting: &'static str,
    /// The name or ARN of the secret.
    name: String,
    /// How the secret is used.
    add: AddSecret,
}

/// Credentials as read at one time. They have no `Debug`.
struct Credentials {
    /// The texts of the secrets, to detect a change.
    secrets: Vec<String>,
    /// The connector that uses them.
    connector: SharedHttpConnector,
}

/// The credentials for a peer, which are read again when the peer rejects them.
struct PeerCredentials {
    peer: Peer,
    named: Vec<NamedSecret>,
    secrets: ServiceClient,
    reread_interval: Duration,
    current: Mutex<Arc<Credentials>>,
    /// When the secrets were last read again. The reader holds the lock, so that concurrent calls share one read.
    read_at: tokio::sync::Mutex<Option<Instant>>,
}

impl PeerCredentials {
    /// Reads the secrets and makes the connector that uses them.
    async fn connector(
        peer: Peer,
        named: Vec<NamedSecret>,
        secrets: ServiceClient,
        reread_interval: Duration,
    ) -> Result<SharedHttpConnector, CredentialError> {
        if named.is_empty() {
            return Ok(Access::default().connector());
        }
        let credentials = read_credentials(&named, &secrets).await?;
        Ok(SharedHttpConnector::new(RenewingConnector(Arc::new(Self {
            peer,
            named,
            secrets,
            reread_interval,
            current: Mutex::new(Arc::new(credentials)),
            read_at: tokio::sync::Mutex::default(),
        }))))
    }

    fn current(&self) -> Arc<Credentials> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.clone()
    }

    /// Returns credentials that differ from the rejected ones, if there are any.
    async fn replacement_for(&self, rejected: &Arc<Credentials>) -> Option<Arc<Credentials>> {
        let mut read_at = self.read_at.lock().await;
        let current = self.current();
        if !Arc::ptr_eq(&current, rejected) {
            return Some(current);
        }
        if read_at.is_some_and(|at| at.elapsed() < self.reread_interval) {
            return None;
        }
        *read_at = Some(Instant::now());
        let peer = self.peer.as_str();
        match read_credentials(&self.named, &self.secrets).await {
            Ok(read) if read.secrets == rejected.secrets => {
                tracing::warn!(peer, "a peer rejects our credentials, and the secrets are unchanged");
                None
            }
            Ok(read) => {
                tracing::info!(peer, "using new credentials for a peer");
                let read = Arc::new(read);
                *self.current.lock().unwrap_or_else(PoisonError::into_inner) = read.clone();
                Some(read)
            }
            Err(error) => {
                tracing::error!(peer, %error, "a peer rejects our credentials, and reading new ones failed");
                None
            }
        }
    }
}

async fn read_credentials(named: &[NamedSecret], client: &ServiceClient) -> Result<Credentials, CredentialError> {
    let mut access = Access::default();
    let mut secrets = Vec::new();
    for NamedSecret { setting, name, add } in named {
        let input = json!({"SecretId": name});
        let value = client.call("secretsmanager.GetSecretValue", &input).await;
        let value = value.map_err(|error| {
            log_cause("reading a secret failed", &error);
            CredentialError::Unreadable(setting)
        })?;
        let secret = value["SecretString"].as_str().unwrap_or_default();
        access = add(access, secret).map_err(|bad| CredentialError::Bad(setting, bad))?;
        secrets.push(secret.to_owned());
    }
    Ok(Credentials {
        secrets,
        connector: access.connector(),
    })
}

/// Makes calls with the current credentials. A call that is rejected with 401 or 403 was not carried out, so it is
/// retried once if there are other credentials by then.
struct RenewingConnector(Arc<PeerCredentials>);

impl fmt::Debug for RenewingConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RenewingConnector")
    }
}

impl HttpConnector for RenewingConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let credentials = self.0.clone();
        HttpConnectorFuture::new(async move {
            let retry = request.try_clone();
            let current = credentials.current();
            let response = current.connector.call(request).await?;
            let rejected = matches!(response.status().as_u16(), 401 | 403);
            let Some(retry) = retry.filter(|_| rejected) else {
                return Ok(response);
            };
            match credentials.replacement_for(&current).await {
                Some(replacement) => replacement.connector.call(retry).await,
                None => Ok(response),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use aws::Service;
    use aws_smithy_runtime_api::client::auth::AuthSchemeId;
    use domain::ActivationId;
    use peers::{FailureClass, OrderingError, ServiceOrdering};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// An HTTP server that records its requests.
    struct Server {
        url: String,
        requests: Arc<Mutex<Vec<String>>>,
    }

    impl Server {
        /// `respond` gives the status and body for a request.
        async fn start(respond: impl Fn(&str) -> (u16, String) + Send + Sync + 'static) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            let requests = Arc::new(Mutex::new(Vec::new()));
            let (respond, seen) = (Arc::new(respond), requests.clone());
            tokio::spawn(async move {
                loop {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    let (respond, seen) = (respond.clone(), seen.clone());
                    tokio::spawn(async move {
                        let mut read = Vec::new();
                        while !is_complete(&String::from_utf8_lossy(&read)) {
                            if stream.read_buf(&mut read).await.unwrap() == 0 {
                                return;
                            }
                        }
                        let request = String::from_utf8(read).unwrap();
                        seen.lock().unwrap().push(request.clone());
                        let (status, body) = respond(&request);
                        let length = body.len();
                        let response = format!(
                            "HTTP/1.1 {status} S\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
                        );
                        stream.write_all(response.as_bytes()).await.unwrap();
                    });
                }
            });
            Self { url, requests }
        }

        fn count(&self) -> usize {
            self.requests.lock().unwrap().len()
        }
    }

    fn is_complete(request: &str) -> bool {
        let request = request.to_lowercase();
        let Some((head, body)) = request.split_once("\r\n\r\n") else {
            return false;
        };
        let mut lines = head.lines();
        let length = lines.find_map(|line| line.strip_prefix("content-length: "));
        body.len() >= length.map_or(0, |length| length.parse().unwrap())
    }

    /// A fake Secrets Manager that returns these values one after the other, and then the last one always. `None` is an
    /// error response.
    async fn secrets(values: &[Option<&str>]) -> Server {
        let values: VecDeque<_> = values.iter().map(|text| text.map(str::to_owned)).collect();
        let values = Mutex::new(values);
        Server::start(move |_| {
            let mut values = values.lock().unwrap();
            let next = match values.len() {
                1 => values[0].clone(),
                _ => values.pop_front().unwrap(),
            };
            match next {
                Some(text) => (200, json!({"SecretString": text}).to_string()),
                None => (400, json!({"__type": "ResourceNotFoundException"}).to_string()),
            }
        })
        .await
    }

    /// A fake network that knows one order and accepts only this token; other tokens get the status code `rejection`.
    async fn network(token: &'static str, rejection: u16) -> Server {
        Server::start(
            move |request| match request.contains(&format!("authorization: Bearer {token}\r\n")) {
                true => (200, json!({"id": "7", "externalId": "A-1"}).to_string()),
                false => (rejection, "<html>".to_owned()),
            },
        )
        .await
    }

    async fn client(reread_interval: Duration, secrets: &Server, network: &Server) -> ServiceOrdering {
        let settings = Settings::new(|name| (name == "NETWORK_TOKEN").then(|| "simswap/network-token".to_owned()));
        let config = aws::sdk_config().unwrap().into_builder();
        let config = config.auth_scheme_preference([AuthSchemeId::from("noAuth")]).build();
        let secrets = ServiceClient::with_endpoint(&config, Service::SecretsManager, &secrets.url);
        let peers = Peers::read_with_interval(reread_interval, secrets, &settings)
            .await
            .unwrap();
        ServiceOrdering::new(peers.network, &network.url)
    }

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn class(error: OrderingError) -> FailureClass {
        error.class()
    }

    #[tokio::test]
    async fn an_expired_token_is_replaced_during_the_call_that_uses_it() {
        for rejection in [401, 403] {
            let secrets = secrets(&[Some("old"), Some("new")]).await;
            let network = network("new", rejection).await;
            let client = client(DAY, &secrets, &network).await;
            let started = client.start("7").await.unwrap();
            assert_eq!(started.id, "7");
            assert_eq!((network.count(), secrets.count()), (2, 2));
            {
                let requests = network.requests.lock().unwrap();
                let strip = |request: &str| request.replace("Bearer old", "Bearer new");
                assert_eq!(strip(&requests[0]), requests[1], "the same call, body and all");
                assert!(requests[1].ends_with(r#"{"state":"inProgress"}"#));
            }
            // The next call uses the new token at once.
            client.start("7").await.unwrap();
            assert_eq!((network.count(), secrets.count()), (3, 2));
        }
    }

    #[tokio::test]
    async fn a_rejection_is_returned_if_there_are_no_other_valid_credentials() {
        for values in [
            &[Some("old")][..],
            // Secrets Manager fails.
            &[Some("old"), None],
            // The new value is not a token.
            &[Some("old"), Some("two words")],
            // The new token is rejected too.
            &[Some("old"), Some("older")],
        ] {
            let secrets = secrets(values).await;
            let network = network("new", 401).await;
            let client = client(DAY, &secrets, &network).await;
            let started = client.start("7").await.map_err(class);
            assert_eq!(started, Err(FailureClass::Unauthorized), "{values:?}");
            let calls = if values.last() == Some(&Some("older")) { 2 } else { 1 };
            assert_eq!((network.count(), secrets.count()), (calls, 2), "{values:?}");
        }
    }

    #[tokio::test]
    async fn secrets_are_read_again_only_after_401_and_403_and_not_on_every_call() {
        for (rejection, reread_interval, reads) in [
            (401, DAY, 2),
            (403, DAY, 2),
            (401, Duration::ZERO, 4),
            (400, Duration::ZERO, 1),
            (404, Duration::ZERO, 1),
            (429, Duration::ZERO, 1),
            (503, Duration::ZERO, 1),
        ] {
            let secrets = secrets(&[Some("old")]).await;
            let network = network("new", rejection).await;
            let client = client(reread_interval, &secrets, &network).await;
            for _ in 0..3 {
                assert!(client.start("7").await.is_err());
            }
            assert_eq!(
                (network.count(), secrets.count()),
                (3, reads),
                "{rejection} {reread_interval:?}"
            );
        }
    }

    #[tokio::test]
    async fn concurrent_calls_share_one_read() {
        for (token, reads) in [("new", 2), ("other", 2)] {
            let secrets = secrets(&[Some("old"), Some("new")]).await;
            let network = network(token, 401).await;
            let client = client(DAY, &secrets, &network).await;
            let calls: Vec<_> = (0..8)
                .map(|_| {
                    let client = client.clone();
                    let id = ActivationId::parse("A-1").unwrap();
                    tokio::spawn(async move { client.find(&id).await })
                })
                .collect();
            for call in calls {
                assert_eq!(call.await.unwrap().is_ok(), token == "new");
            }
            assert_eq!(secrets.count(), reads);
        }
    }

    #[tokio::test]
    async fn debug_output_contains_no_secret() {
        let secrets = secrets(&[Some("s3cret")]).await;
        let network = network("s3cret", 401).await;
        let client = client(DAY, &secrets, &network).await;
        assert!(client.start("7").await.is_ok());
        assert!(!format!("{client:?}").contains("s3cret"));
    }
}
