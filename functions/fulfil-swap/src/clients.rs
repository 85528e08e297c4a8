//! How the two peers are reached. What is shown to them is a secret, which is read when the function starts, and anew when a
//! peer refuses it.

use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_sdk_secretsmanager::{Client, Config};
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use edge::{Settings, log_cause};
use peers::{Access, BadSecret, Peer};

/// Time between two readings of what is shown to a peer, at least: one that refuses all of our calls costs no more.
const READ_ANEW_AFTER: Duration = Duration::from_secs(5);

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
pub enum CredentialError {
    /// Secrets Manager does not give it; why is in the log.
    #[error("the secret of {0} cannot be read")]
    Unreadable(&'static str),
    /// It is not what it should be.
    #[error("the secret of {0} {1}")]
    Bad(&'static str, BadSecret),
}

impl Peers {
    /// Reads `SMDP_CLIENT_CERT`, `NETWORK_CLIENT_CERT` and `NETWORK_TOKEN`, the names or ARNs of secrets; what is not set
    /// is not shown, and without any no client is made. After a 401 or 403 they are read anew.
    pub async fn read(secrets: Config, settings: &Settings) -> Result<Self, CredentialError> {
        Self::read_every(READ_ANEW_AFTER, secrets, settings).await
    }

    async fn read_every(rest: Duration, secrets: Config, settings: &Settings) -> Result<Self, CredentialError> {
        let secrets: Secrets = Arc::new(LazyLock::new(Box::new(|| Client::from_conf(secrets))));
        let certificate: Take = Access::with_certificate;
        let named = |setting, take| {
            let name = settings.text_or(setting, "");
            (!name.is_empty()).then_some(Source { setting, name, take })
        };
        let smdp = [named("SMDP_CLIENT_CERT", certificate)];
        let network = [
            named("NETWORK_CLIENT_CERT", certificate),
            named("NETWORK_TOKEN", Access::with_token),
        ];
        let way = async |peer, sources: &mut dyn Iterator<Item = Source>| {
            Way::connector(peer, sources.collect(), secrets.clone(), rest).await
        };
        Ok(Self {
            smdp: way(Peer::Smdp, &mut smdp.into_iter().flatten()).await?,
            network: way(Peer::Network, &mut network.into_iter().flatten()).await?,
        })
    }
}

type Secrets = Arc<LazyLock<Client, Box<dyn FnOnce() -> Client + Send>>>;

type Take = fn(Access, &str) -> Result<Access, BadSecret>;

/// A secret that is shown to a peer.
struct Source {
    /// The setting that names it.
    setting: &'static str,
    /// Its name or ARN.
    name: String,
    /// How it is shown.
    take: Take,
}

/// What is shown to a peer now. It has no `Debug`.
struct Shown {
    /// The sources' words, to see whether they have changed.
    secrets: Vec<String>,
    connector: SharedHttpConnector,
}

/// The way to a peer that is shown secrets. A call that it refuses with 401 or 403 was not carried out, so it is made again
/// if there are other secrets to show by now.
struct Way {
    peer: Peer,
    sources: Vec<Source>,
    secrets: Secrets,
    rest: Duration,
    shown: Mutex<Arc<Shown>>,
    /// When the secrets were last read anew. Whoever reads them holds it, so that calls at once share one reading.
    read_at: tokio::sync::Mutex<Option<Instant>>,
}

impl Way {
    async fn connector(
        peer: Peer,
        sources: Vec<Source>,
        secrets: Secrets,
        rest: Duration,
    ) -> Result<SharedHttpConnector, CredentialError> {
        if sources.is_empty() {
            return Ok(Access::default().connector());
        }
        let shown = read(&sources, &secrets).await?;
        Ok(SharedHttpConnector::new(Renewing(Arc::new(Self {
            peer,
            sources,
            secrets,
            rest,
            shown: Mutex::new(Arc::new(shown)),
            read_at: tokio::sync::Mutex::default(),
        }))))
    }

    fn shown(&self) -> Arc<Shown> {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.clone()
    }

    /// What is to be shown instead of what was refused, if that is another.
    async fn instead_of(&self, refused: &Arc<Shown>) -> Option<Arc<Shown>> {
        let mut read_at = self.read_at.lock().await;
        let now_shown = self.shown();
        if !Arc::ptr_eq(&now_shown, refused) {
            return Some(now_shown);
        }
        if read_at.is_some_and(|at| at.elapsed() < self.rest) {
            return None;
        }
        *read_at = Some(Instant::now());
        let peer = self.peer.as_str();
        match read(&self.sources, &self.secrets).await {
            Ok(read) if read.secrets == refused.secrets => {
                tracing::warn!(peer, "a peer refuses what we show, and the secrets are the same");
                None
            }
            Ok(read) => {
                tracing::info!(peer, "a peer is shown other secrets from now on");
                let read = Arc::new(read);
                *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = read.clone();
                Some(read)
            }
            Err(error) => {
                tracing::error!(peer, %error, "a peer refuses what we show, and there is nothing else");
                None
            }
        }
    }
}

async fn read(sources: &[Source], client: &Secrets) -> Result<Shown, CredentialError> {
    let mut access = Access::default();
    let mut secrets = Vec::new();
    for Source { setting, name, take } in sources {
        let given = client.get_secret_value().secret_id(name).send().await;
        let given = given.map_err(|error| {
            log_cause("a secret cannot be read", &error);
            CredentialError::Unreadable(setting)
        })?;
        let secret = given.secret_string().unwrap_or_default();
        access = take(access, secret).map_err(|bad| CredentialError::Bad(setting, bad))?;
        secrets.push(secret.to_owned());
    }
    Ok(Shown {
        secrets,
        connector: access.connector(),
    })
}

struct Renewing(Arc<Way>);

impl fmt::Debug for Renewing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Renewing")
    }
}

impl HttpConnector for Renewing {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let way = self.0.clone();
        HttpConnectorFuture::new(async move {
            let again = request.try_clone();
            let shown = way.shown();
            let response = shown.connector.call(request).await?;
            let refused = matches!(response.status().as_u16(), 401 | 403);
            let Some(again) = again.filter(|_| refused) else {
                return Ok(response);
            };
            match way.instead_of(&shown).await {
                Some(shown) => shown.connector.call(again).await,
                None => Ok(response),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use aws_sdk_secretsmanager::config::{Builder, Region};
    use domain::ActivationId;
    use peers::{FailureClass, OrderingError, ServiceOrdering};
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers requests: their status and body by the request, which is kept.
    struct Server {
        url: String,
        requests: Arc<Mutex<Vec<String>>>,
    }

    impl Server {
        async fn start(answer: impl Fn(&str) -> (u16, String) + Send + Sync + 'static) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            let requests = Arc::new(Mutex::new(Vec::new()));
            let (answer, seen) = (Arc::new(answer), requests.clone());
            tokio::spawn(async move {
                loop {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    let (answer, seen) = (answer.clone(), seen.clone());
                    tokio::spawn(async move {
                        let mut read = Vec::new();
                        while !is_whole(&String::from_utf8_lossy(&read)) {
                            if stream.read_buf(&mut read).await.unwrap() == 0 {
                                return;
                            }
                        }
                        let request = String::from_utf8(read).unwrap();
                        seen.lock().unwrap().push(request.clone());
                        let (status, body) = answer(&request);
                        let length = body.len();
                        let answer = format!(
                            "HTTP/1.1 {status} S\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
                        );
                        stream.write_all(answer.as_bytes()).await.unwrap();
                    });
                }
            });
            Self { url, requests }
        }

        fn count(&self) -> usize {
            self.requests.lock().unwrap().len()
        }
    }

    fn is_whole(request: &str) -> bool {
        let request = request.to_lowercase();
        let Some((head, body)) = request.split_once("\r\n\r\n") else {
            return false;
        };
        let mut lines = head.lines();
        let length = lines.find_map(|line| line.strip_prefix("content-length: "));
        body.len() >= length.map_or(0, |length| length.parse().unwrap())
    }

    /// A Secrets Manager that gives these, one after the other, the last one for ever. `None`: it fails.
    async fn secrets(given: &[Option<&str>]) -> Server {
        let given: VecDeque<_> = given.iter().map(|text| text.map(str::to_owned)).collect();
        let given = Mutex::new(given);
        Server::start(move |_| {
            let mut given = given.lock().unwrap();
            let next = match given.len() {
                1 => given[0].clone(),
                _ => given.pop_front().unwrap(),
            };
            match next {
                Some(text) => (200, json!({"SecretString": text}).to_string()),
                None => (400, json!({"__type": "ResourceNotFoundException"}).to_string()),
            }
        })
        .await
    }

    /// A network that knows one order, and takes this token alone.
    async fn network(token: &'static str, refusal: u16) -> Server {
        Server::start(
            move |request| match request.contains(&format!("authorization: Bearer {token}\r\n")) {
                true => (200, json!({"id": "7", "externalId": "A-1"}).to_string()),
                false => (refusal, "<html>".to_owned()),
            },
        )
        .await
    }

    async fn client(rest: Duration, secrets: &Server, network: &Server) -> ServiceOrdering {
        let settings = Settings::new(|name| (name == "NETWORK_TOKEN").then(|| "simswap/network-token".to_owned()));
        let config = Builder::from(&edge::sdk_config().unwrap())
            .region(Region::from_static("eu-central-1"))
            .endpoint_url(&secrets.url)
            .allow_no_auth()
            .build();
        let peers = Peers::read_every(rest, config, &settings).await.unwrap();
        ServiceOrdering::new(peers.network, &network.url)
    }

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn class(error: OrderingError) -> FailureClass {
        error.class()
    }

    #[tokio::test]
    async fn a_token_that_expired_is_replaced_in_the_call_that_shows_it() {
        for refusal in [401, 403] {
            let secrets = secrets(&[Some("old"), Some("new")]).await;
            let network = network("new", refusal).await;
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
            // The next call shows it at once.
            client.start("7").await.unwrap();
            assert_eq!((network.count(), secrets.count()), (3, 2));
        }
    }

    #[tokio::test]
    async fn an_answer_stands_where_nothing_else_can_be_shown() {
        for given in [
            &[Some("old")][..],
            // Secrets Manager fails.
            &[Some("old"), None],
            // It gives no token.
            &[Some("old"), Some("two words")],
            // It gives one that is refused as well.
            &[Some("old"), Some("older")],
        ] {
            let secrets = secrets(given).await;
            let network = network("new", 401).await;
            let client = client(DAY, &secrets, &network).await;
            let started = client.start("7").await.map_err(class);
            assert_eq!(started, Err(FailureClass::Unauthorized), "{given:?}");
            let shown = if given.last() == Some(&Some("older")) { 2 } else { 1 };
            assert_eq!((network.count(), secrets.count()), (shown, 2), "{given:?}");
        }
    }

    #[tokio::test]
    async fn secrets_are_read_anew_after_401_and_403_alone_and_not_at_every_call() {
        for (refusal, rest, readings) in [
            (401, DAY, 2),
            (403, DAY, 2),
            (401, Duration::ZERO, 4),
            (400, Duration::ZERO, 1),
            (404, Duration::ZERO, 1),
            (429, Duration::ZERO, 1),
            (503, Duration::ZERO, 1),
        ] {
            let secrets = secrets(&[Some("old")]).await;
            let network = network("new", refusal).await;
            let client = client(rest, &secrets, &network).await;
            for _ in 0..3 {
                assert!(client.start("7").await.is_err());
            }
            assert_eq!((network.count(), secrets.count()), (3, readings), "{refusal} {rest:?}");
        }
    }

    #[tokio::test]
    async fn calls_at_once_share_one_reading() {
        for (token, readings) in [("new", 2), ("other", 2)] {
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
            assert_eq!(secrets.count(), readings);
        }
    }

    #[tokio::test]
    async fn what_is_shown_is_not_printed() {
        let secrets = secrets(&[Some("s3cret")]).await;
        let network = network("s3cret", 401).await;
        let client = client(DAY, &secrets, &network).await;
        assert!(client.start("7").await.is_ok());
        assert!(!format!("{client:?}").contains("s3cret"));
    }
}
