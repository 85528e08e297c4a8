//! Starts the parts and connects them. What each part does is in its own file.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Display;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use aws_lambda_events::event::dynamodb::Event;
use axum::Router;
use change_sim::ChangeSim;
use deliver_esim::DeliverEsim;
use domain::SmDpAddress;
use dynoxide::Database;
use edge::{ClockAndRng, Settings};
use fulfil_swap::{FulfilSwap, Peers};
use jiff::Timestamp;
use lambda_http::Request;
use lambda_runtime::LambdaEvent;
use mail_events::{MailEvents, SnsEvent};
use manage_swap::ManageSwap;
use network_events::NetworkEvents;
use peers::tmf641::SETTLED;
use peers::{Access, ServiceOrdering};
use query_activation::QueryActivation;
use serde::de::IgnoredAny;
use serde_json::json;
use simulators::{MobileNetwork, Smdp, TlsCaller};
use store::Store;
use submit_swap::SubmitSwap;
use sweep_swaps::SweepSwaps;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::args::Start;
use crate::backend::{Backend, TABLE};
use crate::clients::Clients;
use crate::data_dir::{self, DataDir, PEERS};
use crate::endpoints::{self, Endpoints};
use crate::event_source::{self, DeadLetters, EventSource};
use crate::filter::Filter;
use crate::functions::{self, Functions, Handler};
use crate::gateway::{self, Authorizer, Gateway, ROUTES, Route};
use crate::guard::guarded;
use crate::http_client::HttpClient;
use crate::kms;
use crate::lambda::Lambda;
use crate::mailbox::Mailbox;
use crate::mtls::{Mtls, Party};
use crate::ses_events::SesEvents;
use crate::tokens::Tokens;
use crate::{StartError, docs, sample, schedule, secrets};

/// The simulated SM-DP+'s name in activation codes.
const SMDP_ADDRESS: &str = "smdp.example.test";
/// The secret that holds the certificate that we show to both peers.
const OUR_CERTIFICATE: &str = "simswap/peers";
/// The functions' settings, for `cargo lambda watch --env-file`, in the data directory.
const SETTINGS_FILE: &str = "functions.env";

/// How a stack is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the API listens on 127.0.0.1; 0 takes a free port.
    pub port: u16,
    /// Where data is kept; `None` keeps it in memory.
    pub data_dir: Option<PathBuf>,
    /// Whether data of earlier runs is forgotten.
    pub fresh: bool,
    /// An SM-DP+ instead of the simulated one.
    pub smdp_url: Option<String>,
    /// A network instead of the simulated one.
    pub network_url: Option<String>,
    /// How long the simulated network takes for an order.
    pub network_delay: Duration,
    /// Whether the peers and we prove to each other who we are.
    pub mtls: bool,
    /// A Lambda endpoint instead of the functions in this process.
    pub functions_url: Option<String>,
    /// Records of the table's stream in one event at most; without it the stream is not delivered, and the sweeper does
    /// all.
    pub stream_batch: Option<usize>,
    /// Between two sweeps. Deployed it is a minute; the local stack's deadlines are seconds.
    pub sweep_every: Duration,
    /// Settings of the functions that differ from the local stack's.
    pub settings: BTreeMap<String, String>,
}

impl From<Start> for Options {
    fn from(start: Start) -> Self {
        Self {
            port: start.port,
            data_dir: Some(start.data_dir),
            fresh: start.fresh,
            smdp_url: start.smdp_url,
            network_url: start.network_url,
            network_delay: start.network_delay,
            mtls: start.mtls,
            functions_url: start.functions_url,
            stream_batch: Some(event_source::BATCH),
            sweep_every: Duration::from_secs(1),
            settings: BTreeMap::new(),
        }
    }
}

/// A stack that runs. Dropped, it goes on; it ends with [`Stack::stop`] or with the process.
pub struct Stack {
    /// Where each part listens.
    pub endpoints: Endpoints,
    /// What the functions are told by their environment.
    pub settings: BTreeMap<String, String>,
    /// Makes tokens that its API accepts.
    pub tokens: Arc<Tokens>,
    /// The table.
    pub store: Store,
    /// The engine under the table, for tests that look beneath.
    pub database: Database,
    /// The simulated SM-DP+, unless another is used.
    pub smdp: Option<Arc<Smdp>>,
    /// The simulated network, unless another is used.
    pub carrier: Option<Arc<MobileNetwork>>,
    /// The mails.
    pub mailbox: Mailbox,
    /// Stream records that were given up.
    pub dead_letters: DeadLetters,
    /// Tells the pumps and the API to take nothing new.
    stop: watch::Sender<bool>,
    /// Tells the parts that they write to.
    close: watch::Sender<bool>,
    api: JoinHandle<()>,
    pumps: Vec<JoinHandle<Result<(), StartError>>>,
    /// Those who invoke functions on their own: the schedule and the postman.
    callers: Vec<JoinHandle<()>>,
    lambda: Lambda,
    tasks: Vec<JoinHandle<()>>,
    /// Held for as long as the stack runs.
    _owned: Option<DataDir>,
}

/// Runs the local stack until Ctrl-C.
///
/// # Errors
/// When the data directory is taken or unusable, or a port is.
pub async fn run(start: Start) -> Result<(), StartError> {
    let mut asked = pin!(stopped());
    let stack = tokio::select! {
        biased;
        // Listened for first: a start that is broken off is like a kill, which loses nothing.
        () = &mut asked => return Ok(()),
        started = Stack::start(start.into()) => started?,
    };
    stack.greet()?;
    asked.await;
    tokio::select! {
        () = stack.stop() => {}
        // Asked twice: a function that runs elsewhere may take long.
        () = stopped() => {}
    }
    Ok(())
}

impl Stack {
    /// Starts all parts; it is ready when this returns.
    ///
    /// # Errors
    /// When the data directory is taken or unusable, or a port is.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let owned = options.data_dir.as_deref().map(DataDir::own).transpose()?;
        if let Some(owned) = &owned
            && options.fresh
        {
            owned.empty()?;
        }
        let data_dir = options.data_dir.as_deref();
        let (stop, stopping) = watch::channel(false);
        let (close, closing) = watch::channel(false);
        let mut tasks = Vec::new();

        let api_listener = listen(options.port).await?;
        let api = url(&api_listener)?;
        let mtls = options.mtls.then(|| Mtls::new(data_dir)).transpose()?;
        let ours = mtls.as_ref().map(|mtls| &mtls.ours);
        // Peers that prove who they are call at a door of their own.
        let (callbacks, callback_listener) = match ours {
            None => (api.clone(), None),
            Some(ours) => {
                let listener = listen(0).await?;
                let url = peer_url(&listener, Some(ours))?;
                (url, Some(ours.listener(listener)?))
            }
        };
        let ground = Backend::open(data_dir, &closing).await?;
        tasks.extend(ground.tasks);
        let (database, store) = (ground.database, ground.store);
        let mailbox = Mailbox::open(data_dir)?;
        let tokens = Arc::new(Tokens::open(data_dir)?);

        let ses = serve(listen(0).await?, mailbox.clone().router(), &mut tasks, &closing)?;
        // The functions have to know where it is before it can have them.
        let lambda_listener = listen(0).await?;

        let (smdp_url, smdp) = match options.smdp_url {
            Some(foreign) => (foreign, None),
            None => {
                let address = SmDpAddress::parse(SMDP_ADDRESS).map_err(failed("the SM-DP+"))?;
                let smdp = Smdp::open(
                    book(data_dir, "smdp")?.as_deref(),
                    address,
                    &callbacks,
                    ClockAndRng::real(),
                );
                let smdp = Arc::new(smdp.map_err(failed("the SM-DP+"))?);
                let listener = listen(0).await?;
                let party = mtls.as_ref().map(|mtls| &mtls.smdp);
                let (url, connector) = (peer_url(&listener, party)?, access(party)?.connector());
                tasks.push(match party {
                    None => smdp.clone().serve(listener, connector),
                    Some(party) => smdp.clone().serve(party.listener(listener)?, connector),
                });
                (url, Some(smdp))
            }
        };
        let (network_url, carrier) = match options.network_url {
            Some(foreign) => (foreign, None),
            None => {
                let book = book(data_dir, "network")?;
                let carrier = MobileNetwork::open(book.as_deref(), options.network_delay, ClockAndRng::real());
                let carrier = Arc::new(carrier.map_err(failed("the network"))?);
                let moved = carrier.move_operator(&callbacks);
                moved.map_err(failed("the network"))?;
                let listener = listen(0).await?;
                let party = mtls.as_ref().map(|mtls| &mtls.network);
                let (url, connector) = (peer_url(&listener, party)?, access(party)?.connector());
                tasks.push(match party {
                    None => carrier.clone().serve(listener, connector),
                    Some(party) => carrier.clone().serve(party.listener(listener)?, connector),
                });
                (url, Some(carrier))
            }
        };
        let endpoints = Endpoints {
            dynamodb: ground.dynamodb,
            ses,
            kms: ground.kms,
            lambda: url(&lambda_listener)?,
            smdp: smdp_url,
            network: network_url,
            api,
            callbacks,
            table: TABLE.to_owned(),
        };

        sample::load(&store).await.map_err(failed("the sample data"))?;

        let secrets = match &mtls {
            Some(mtls) => BTreeMap::from([(OUR_CERTIFICATE, mtls.ours.secret())]),
            None => BTreeMap::new(),
        };
        let secrets = secrets::router(secrets);
        let secrets = serve(listen(0).await?, secrets, &mut tasks, &closing)?;
        let mut settings = settings(&endpoints);
        settings.insert("AWS_ENDPOINT_URL_SECRETS_MANAGER".to_owned(), secrets);
        if let Some(mtls) = &mtls {
            settings.extend(proven(mtls)?);
        }
        settings.extend(options.settings);
        if let Some(data_dir) = data_dir {
            write_settings(data_dir, &settings)?;
        }
        let functions = Arc::new(match &options.functions_url {
            Some(url) => Functions::remote(url),
            None => Functions::InProcess(in_process(&Clients::of(&endpoints.kms), &settings).await?),
        });
        let lambda = Lambda::of(functions.clone());
        serve(lambda_listener, lambda.clone().router(), &mut tasks, &closing)?;
        let access = access(ours)?;
        let gateway = |serves: fn(&Route) -> bool| {
            gateway::router(Gateway {
                routes: ROUTES.iter().copied().filter(serves).collect(),
                tokens: tokens.clone(),
                functions: functions.clone(),
            })
        };
        let api_gateway = match callback_listener {
            None => gateway(|_| true),
            Some(listener) => {
                let callbacks = gateway(|route| route.authorizer == Authorizer::None);
                let service = callbacks.into_make_service_with_connect_info::<TlsCaller>();
                let serving = axum::serve(listener, service).with_graceful_shutdown(told(&closing));
                tasks.push(tokio::spawn(async move {
                    if let Err(error) = serving.await {
                        tracing::error!(%error, "the callbacks' side ended");
                    }
                }));
                gateway(|route| route.authorizer != Authorizer::None)
            }
        };
        let phone = HttpClient::with(access.clone());
        let router = endpoints::router(endpoints.clone(), mailbox.clone(), phone)
            .merge(docs::router())
            .merge(api_gateway);
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        let serving = axum::serve(api_listener, service).with_graceful_shutdown(told(&stopping));
        let api_served = tokio::spawn(async move {
            if let Err(error) = serving.await {
                tracing::error!(%error, "the API ended");
            }
        });

        let registered = ServiceOrdering::new(access.connector(), &endpoints.network);
        if let Err(error) = registered.register(&endpoints.callbacks, Some(SETTLED)).await {
            tracing::warn!(%error, "the network did not take our registration: its callbacks will not come");
        }
        let pumps = [
            (
                "fulfil-swap",
                json!({"eventName": ["INSERT", "MODIFY"], "dynamodb": {"Keys": {"sk": {"S": ["activation"]}}}}),
            ),
            (
                "deliver-esim",
                json!({"eventName": ["INSERT"], "dynamodb": {"Keys": {"sk": {"S": [{"prefix": "delivery#"}]}}}}),
            ),
        ];
        let dead_letters = DeadLetters::default();
        let pumps = pumps.into_iter().filter_map(|(function, pattern)| {
            let pump = EventSource {
                batch: options.stream_batch?,
                database: database.clone(),
                table: TABLE.to_owned(),
                functions: functions.clone(),
                function,
                filters: vec![Filter::parse(&pattern).expect("the patterns above are patterns")],
                data_dir: options.data_dir.clone(),
                dead_letters: dead_letters.clone(),
            };
            Some(tokio::spawn(pump.run(told(&stopping))))
        });
        let pumps = pumps.collect();
        let postman = SesEvents::new(mailbox.clone(), functions.clone(), data_dir)?;
        let callers = [
            tokio::spawn(postman.run(told(&stopping))),
            tokio::spawn(schedule::run(functions, options.sweep_every, told(&stopping))),
        ];

        Ok(Self {
            endpoints,
            settings,
            tokens,
            store,
            database,
            smdp,
            carrier,
            mailbox,
            stop,
            close,
            api: api_served,
            pumps,
            dead_letters,
            callers: callers.into(),
            lambda,
            tasks,
            _owned: owned,
        })
    }

    /// Says where it is, and how to begin.
    fn greet(&self) -> Result<(), StartError> {
        const AN_HOUR: i64 = 3600;
        let api = &self.endpoints.api;
        let token = self
            .tokens
            .issue("OWNER", Some("C-100"), None, "anna", AN_HOUR, Timestamp::now());
        let greeting = format!(
            "simswap is ready at {api}\n\n\
             A token of customer C-100, good for an hour:\n\n{token}\n\n\
             Swap a line to an eSIM:\n\n\
             curl -s {api}/api/SimSwapSubscription \\\n  \
             -H 'Authorization: Bearer {token}' \\\n  \
             -H 'Content-Type: application/json' \\\n  \
             -d '{{\"subscriptionId\":\"65a1b2c3d4e5f60718293a01\",\"eSim\":true,\"email\":\"anna@example.com\",\"confirmationCode\":\"8E9!#\"}}'\n\n\
             Then its mail:\n\ncurl -s {api}/local/mail\n\n"
        );
        let mut out = std::io::stdout();
        out.write_all(greeting.as_bytes())
            .and_then(|()| out.flush())
            .map_err(failed("standard output"))
    }

    /// Ends the stack: what is under way is finished first, but for a caller who is too slow.
    pub async fn stop(self) {
        const SLOW_CALLER: Duration = Duration::from_secs(5);
        let _ = self.stop.send(true);
        for pump in self.pumps {
            if let Ok(Err(error)) = pump.await {
                tracing::error!(%error, "a pump ended badly");
            }
        }
        for caller in self.callers {
            let _ = caller.await;
        }
        self.lambda.drain().await;
        let _ = tokio::time::timeout(SLOW_CALLER, self.api).await;
        // Only now: what was under way needed these, and a mail that was sent but not written down is sent again.
        let _ = self.close.send(true);
        for task in self.tasks {
            task.abort();
        }
    }
}

/// The functions, as their mains wire them.
async fn in_process(
    clients: &Clients,
    settings: &BTreeMap<String, String>,
) -> Result<BTreeMap<&'static str, Handler>, StartError> {
    // Where the table and SES are, is a setting like any other: a test puts a faulty wire before them.
    let dynamodb = clients.dynamodb(&settings["AWS_ENDPOINT_URL_DYNAMODB"]);
    let ses = clients.ses(&settings["AWS_ENDPOINT_URL_SES"]);
    let lambda = clients.lambda(&settings["AWS_ENDPOINT_URL_LAMBDA"]);
    let secrets = clients.secrets(&settings["AWS_ENDPOINT_URL_SECRETS_MANAGER"]);
    let store = Store::new(dynamodb, clients.kms(), TABLE, kms::ALIAS);
    let values = settings.clone();
    let settings = Settings::new(move |name| values.get(name).cloned());
    let (clock, at) = (ClockAndRng::real(), &settings);
    let submit = SubmitSwap::new(store.clone(), clock.clone(), at).map_err(failed("submit-swap"))?;
    let change = ChangeSim::new(store.clone(), clock.clone(), at).map_err(failed("change-sim"))?;
    let query = QueryActivation::new(store.clone(), clock.clone(), at);
    let query = query.map_err(failed("query-activation"))?;
    let events = NetworkEvents::new(store.clone(), clock.clone(), at);
    let events = events.map_err(failed("network-events"))?;
    let manage = ManageSwap::new(store.clone(), clock.clone(), at).map_err(failed("manage-swap"))?;
    let mails = MailEvents::new(store.clone(), clock.clone(), at).map_err(failed("mail-events"))?;
    let sweep = SweepSwaps::new(store.clone(), lambda, clock.clone(), at);
    let sweep = sweep.map_err(failed("sweep-swaps"))?;
    let peers = Peers::read(secrets, at).await;
    let peers = peers.map_err(failed("fulfil-swap"))?;
    let fulfil = FulfilSwap::new(store.clone(), peers, clock.clone(), at);
    let fulfil = fulfil.map_err(failed("fulfil-swap"))?;
    let deliver = DeliverEsim::new(store, &ses, clock, at).map_err(failed("deliver-esim"))?;
    let (submit, change, query) = (Arc::new(submit), Arc::new(change), Arc::new(query));
    let (events, manage, mails) = (Arc::new(events), Arc::new(manage), Arc::new(mails));
    let (sweep, fulfil, deliver) = (Arc::new(sweep), Arc::new(fulfil), Arc::new(deliver));
    Ok(BTreeMap::from([
        (
            "submit-swap",
            functions::http(move |request: Request| {
                let submit = submit.clone();
                async move { Ok::<_, Infallible>(submit.handle(request).await) }
            }),
        ),
        (
            "change-sim",
            functions::http(move |request: Request| {
                let change = change.clone();
                async move { Ok::<_, Infallible>(change.handle(request).await) }
            }),
        ),
        (
            "query-activation",
            functions::http(move |request: Request| {
                let query = query.clone();
                async move { Ok::<_, Infallible>(query.handle(request).await) }
            }),
        ),
        (
            "manage-swap",
            functions::http(move |request: Request| {
                let manage = manage.clone();
                async move { Ok::<_, Infallible>(manage.handle(request).await) }
            }),
        ),
        (
            "network-events",
            functions::http(move |request: Request| {
                let events = events.clone();
                async move { Ok::<_, Infallible>(events.handle(request).await) }
            }),
        ),
        (
            "fulfil-swap",
            functions::events(move |event: LambdaEvent<Event>| {
                let fulfil = fulfil.clone();
                async move { Ok::<_, Infallible>(fulfil.handle(event).await) }
            }),
        ),
        (
            "deliver-esim",
            functions::events(move |event: LambdaEvent<Event>| {
                let deliver = deliver.clone();
                async move { Ok::<_, Infallible>(deliver.handle(event).await) }
            }),
        ),
        (
            "mail-events",
            functions::events(move |event: LambdaEvent<SnsEvent>| {
                let mails = mails.clone();
                async move { mails.handle(event).await }
            }),
        ),
        (
            "sweep-swaps",
            functions::events(move |event: LambdaEvent<IgnoredAny>| {
                let sweep = sweep.clone();
                async move { sweep.handle(event).await }
            }),
        ),
    ]))
}

/// What the functions are told by their environment: the local stack's deadlines are short.
fn settings(endpoints: &Endpoints) -> BTreeMap<String, String> {
    [
        ("ALLOW_UNAUTHENTICATED_CALLBACKS", "true"),
        ("ASK_AFTER", "2s"),
        ("CALL_REST", "5s"),
        ("ASK_AT_MOST", "30s"),
        ("AWS_ACCESS_KEY_ID", "local"),
        ("AWS_ENDPOINT_URL_DYNAMODB", &endpoints.dynamodb),
        ("AWS_ENDPOINT_URL_KMS", &endpoints.kms),
        ("AWS_ENDPOINT_URL_LAMBDA", &endpoints.lambda),
        ("AWS_ENDPOINT_URL_SES", &endpoints.ses),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_SECRET_ACCESS_KEY", "local"),
        ("BRAND", "Simswap"),
        ("DELIVER_ESIM", "deliver-esim"),
        ("FULFIL_SWAP", "fulfil-swap"),
        ("KMS_KEY_ID", kms::ALIAS),
        ("LEASE", "5s"),
        ("MAIL_CONFIGURATION_SET", "simswap"),
        ("MAIL_DOUBT", "5s"),
        ("MAIL_FROM", "Simswap <esim@simswap.example>"),
        ("MAIL_RETRY_AFTER", "1s"),
        ("NETWORK_URL", &endpoints.network),
        ("RETRY_AFTER", "250ms"),
        ("SETTLE_WITHIN", "30s"),
        ("SMDP_ADDRESS", SMDP_ADDRESS),
        ("SMDP_REQUESTER_ID", "1.3.6.1.4.1.99999.1"),
        ("SMDP_URL", &endpoints.smdp),
        ("STOCK_LOW", "5"),
        ("TABLE", &endpoints.table),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

/// What they are told with `--mtls`.
fn proven(mtls: &Mtls) -> Result<[(String, String); 5], StartError> {
    let settings = [
        ("ALLOW_UNAUTHENTICATED_CALLBACKS", "false".to_owned()),
        ("NETWORK_CLIENT_CERT", OUR_CERTIFICATE.to_owned()),
        ("NETWORK_SUBJECT", mtls.network.subject()?),
        ("SMDP_CLIENT_CERT", OUR_CERTIFICATE.to_owned()),
        ("SMDP_SUBJECT", mtls.smdp.subject()?),
    ];
    Ok(settings.map(|(name, value)| (name.to_owned(), value)))
}

fn write_settings(data_dir: &Path, settings: &BTreeMap<String, String>) -> Result<(), StartError> {
    // Quoted: bare words end at a space.
    let text: String = settings
        .iter()
        .map(|(name, value)| format!("{name}={value:?}\n"))
        .collect();
    let file = data_dir.join(SETTINGS_FILE);
    std::fs::write(&file, text).map_err(|error| data_dir::unusable(&file, &error))
}

/// The settings that the stack of this data directory wrote when it last started; without the quotes.
pub(crate) fn read_settings(data_dir: &Path) -> Result<BTreeMap<String, String>, StartError> {
    let file = data_dir.join(SETTINGS_FILE);
    let text = std::fs::read_to_string(&file).map_err(|error| data_dir::unusable(&file, &error))?;
    let settings = text.lines().filter_map(|line| line.split_once('='));
    let settings = settings.map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned()));
    Ok(settings.collect())
}

/// A peer's book.
fn book(data_dir: Option<&Path>, name: &str) -> Result<Option<PathBuf>, StartError> {
    let Some(data_dir) = data_dir else {
        return Ok(None);
    };
    let directory = data_dir.join(PEERS);
    data_dir::create(&directory)?;
    Ok(Some(directory.join(format!("{name}.sqlite"))))
}

pub(crate) async fn listen(port: u16) -> Result<TcpListener, StartError> {
    TcpListener::bind(("127.0.0.1", port))
        .await
        .map_err(|error| StartError(format!("cannot listen on port {port}: {error}")))
}

/// Where a side is called: by TLS, if it has a certificate.
fn peer_url(listener: &TcpListener, party: Option<&Party>) -> Result<String, StartError> {
    let url = url(listener)?;
    Ok(match party {
        None => url,
        Some(_) => url.replacen("http://", "https://", 1),
    })
}

/// How a side calls.
fn access(party: Option<&Party>) -> Result<Access, StartError> {
    party.map_or(Ok(Access::default()), Party::access)
}

pub(crate) fn url(listener: &TcpListener) -> Result<String, StartError> {
    let address = listener.local_addr().map_err(failed("a port"))?;
    Ok(format!("http://{address}"))
}

/// Serves a part until the stack closes, for this machine alone, and gives its URL.
pub(crate) fn serve(
    listener: TcpListener,
    router: Router,
    tasks: &mut Vec<JoinHandle<()>>,
    closing: &watch::Receiver<bool>,
) -> Result<String, StartError> {
    let url = url(&listener)?;
    let serving = axum::serve(listener, guarded(router)).with_graceful_shutdown(told(closing));
    tasks.push(tokio::spawn(async move {
        if let Err(error) = serving.await {
            tracing::error!(%error, "a part ended");
        }
    }));
    Ok(url)
}

/// Ready when the signal is given.
pub(crate) fn told(signal: &watch::Receiver<bool>) -> impl Future<Output = ()> + Send + 'static {
    let mut signal = signal.clone();
    async move {
        // A sender that is gone is a stack that was dropped: it goes on until the process ends.
        if signal.wait_for(|given| *given).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Ready at Ctrl-C, or when the system asks the process to end.
async fn stopped() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminated) = signal(SignalKind::terminate()) else {
        let _ = tokio::signal::ctrl_c().await;
        return;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated.recv() => {}
    }
}

pub(crate) fn failed<E: Display>(what: &'static str) -> impl Fn(E) -> StartError {
    move |error| StartError(format!("{what}: {error}"))
}
