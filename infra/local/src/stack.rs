//! Starts the parts of a local stack, connects them, and stops them. What each part does is in its own file.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use dynoxide::Database;
use jiff::Timestamp;
use peers::ServiceOrdering;
use peers::tmf641::SETTLED;
use serde_json::{Value, json};
use simulators::{Failures, MobileNetwork, Smdp, TlsCaller, behind};
use store::Store;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::args::Start;
use crate::backend::{Backend, TABLE};
use crate::clients::Clients;
use crate::data_dir::DataDir;
use crate::endpoints::{self, Endpoints};
use crate::event_source::{self, DeadLetters, EventSource};
use crate::failures::PeerFailures;
use crate::filter::Filter;
use crate::functions::Functions;
use crate::gateway::{self, Authorizer, Gateway, ROUTES, Route};
use crate::http_client::HttpClient;
use crate::lambda::Lambda;
use crate::mailbox::Mailbox;
use crate::mtls::{self, Mtls};
use crate::serving::{listen, serve, signalled, spawn, url};
use crate::ses_events::SesEvents;
use crate::simulated_peers::{Started, start_network, start_smdp};
use crate::tokens::Tokens;
use crate::{StartError, docs, environment, in_process, page, queue, sample, schedule, secrets};

/// The options of a stack.
#[derive(Debug, Clone)]
pub struct Options {
    /// The port of the API on 127.0.0.1; 0 picks a free one.
    pub port: u16,
    /// The directory that stores the data; `None` keeps the data in memory.
    pub data_dir: Option<PathBuf>,
    /// Whether to delete the data of earlier runs.
    pub fresh: bool,
    /// The base URL of an SM-DP+ to use instead of the simulated one.
    pub smdp_url: Option<String>,
    /// The base URL of a network to use instead of the simulated one.
    pub network_url: Option<String>,
    /// The time that the simulated network takes for an order.
    pub network_delay: Duration,
    /// How the simulated peers and the mailbox fail.
    pub failures: PeerFailures,
    /// Whether the service and the peers use mutual TLS.
    pub mtls: bool,
    /// The URL of a Lambda endpoint that invokes the functions; `None` runs them in this process.
    pub functions_url: Option<String>,
    /// The maximum number of stream records in one event. With `None`, the stream is not delivered, and only the
    /// sweeper wakes functions.
    pub stream_batch: Option<usize>,
    /// The interval between two runs of the sweeper: one second by default, because the deadlines of a local stack are
    /// short. In a deployment it is a minute.
    pub sweep_every: Duration,
    /// Settings of the functions that override those of the local stack.
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
            failures: start.failures,
            mtls: start.mtls,
            functions_url: start.functions_url,
            stream_batch: Some(event_source::BATCH),
            sweep_every: Duration::from_secs(1),
            settings: BTreeMap::new(),
        }
    }
}

/// A running stack. It ends with [`Stack::stop`] or with the process, and continues to run when it is dropped.
pub struct Stack {
    /// The URLs of the parts.
    pub endpoints: Endpoints,
    /// The settings that the functions receive as environment variables.
    pub settings: BTreeMap<String, String>,
    /// Issues tokens that the API accepts.
    pub tokens: Arc<Tokens>,
    /// The table.
    pub store: Store,
    /// The engine under the table, for tests that inspect rows.
    pub database: Database,
    /// The simulated SM-DP+, unless another one is used.
    pub smdp: Option<Arc<Smdp>>,
    /// The simulated network, unless another one is used.
    pub network: Option<Arc<MobileNetwork>>,
    /// The e-mails that were sent.
    pub mailbox: Mailbox,
    /// The stream records whose delivery was given up.
    pub dead_letters: DeadLetters,
    /// The signal to accept no new work, for the API and for everything that invokes functions on its own.
    stop: watch::Sender<bool>,
    /// The signal to stop, for the parts that functions call.
    close: watch::Sender<bool>,
    api: JoinHandle<()>,
    event_sources: Vec<JoinHandle<Result<(), StartError>>>,
    /// The other tasks that invoke functions on their own: SES events and the schedule.
    invokers: Vec<JoinHandle<()>>,
    lambda: Lambda,
    tasks: Vec<JoinHandle<()>>,
    /// Locked while the stack runs.
    _owned: Option<DataDir>,
}

/// Runs the local stack until Ctrl-C.
///
/// # Errors
/// When another process uses the data directory or the port, or the directory cannot be used.
pub async fn run(start: Start) -> Result<(), StartError> {
    let mut stop_requested = pin!(stop_signal());
    let stack = tokio::select! {
        biased;
        // Checked first. Interrupting a start is like killing the process, which loses nothing.
        () = &mut stop_requested => return Ok(()),
        started = Stack::start(start.into()) => started?,
    };
    stack.print_greeting()?;
    stop_requested.await;
    tokio::select! {
        () = stack.stop() => {}
        // A second signal ends the process at once, because a function that runs elsewhere may take long.
        () = stop_signal() => {}
    }
    Ok(())
}

impl Stack {
    /// Starts all parts. The stack is ready when this returns.
    ///
    /// # Errors
    /// When another process uses the data directory or the port, or the directory cannot be used.
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
        let service = mtls.as_ref().map(|mtls| &mtls.service);
        // With mutual TLS, the peers send their callbacks to a listener of their own.
        let (callbacks, callback_listener) = match service {
            None => (api.clone(), None),
            Some(party) => {
                let listener = listen(0).await?;
                let url = mtls::url(&listener, service)?;
                (url, Some(party.listener(listener)?))
            }
        };
        let backend = Backend::open(data_dir, &closing).await?;
        tasks.extend(backend.tasks);
        let database = backend.database;
        let store = match options.settings.get("SEALING_KEY").map(String::as_str) {
            Some("") => backend.store.sealing_with(None),
            _ => backend.store,
        };
        let mailbox = Mailbox::open(data_dir)?;
        let tokens = Arc::new(Tokens::open(data_dir)?);

        let failures = options.failures;
        let mail_failures = failures.mail.map(|mode| Failures::new(mode, failures.pace));
        let ses = behind(mail_failures.as_ref(), mailbox.clone().router());
        let ses = serve(listen(0).await?, ses, &mut tasks, &closing)?;
        // The functions need its URL before it can serve them.
        let lambda_listener = listen(0).await?;

        let (smdp_url, smdp) = match options.smdp_url {
            Some(url) => (url, None),
            None => {
                let party = mtls.as_ref().map(|mtls| &mtls.smdp);
                let fails = failures.smdp.map(|mode| Failures::new(mode, failures.pace));
                let Started { url, peer, task } = start_smdp(data_dir, &callbacks, party, fails).await?;
                tasks.push(task);
                (url, Some(peer))
            }
        };
        let (network_url, network) = match options.network_url {
            Some(url) => (url, None),
            None => {
                let party = mtls.as_ref().map(|mtls| &mtls.network);
                let delay = options.network_delay;
                let fails = failures.network.map(|mode| Failures::new(mode, failures.pace));
                let Started { url, peer, task } = start_network(data_dir, &callbacks, delay, party, fails).await?;
                tasks.push(task);
                (url, Some(peer))
            }
        };
        let endpoints = Endpoints {
            dynamodb: backend.dynamodb,
            ses,
            kms: backend.kms,
            lambda: url(&lambda_listener)?,
            smdp: smdp_url,
            network: network_url,
            api,
            callbacks,
            table: TABLE.to_owned(),
        };

        let loaded = sample::load(&store).await;
        loaded.map_err(StartError::context("the sample data"))?;

        let secrets = match &mtls {
            Some(mtls) => BTreeMap::from([(environment::SERVICE_CERTIFICATE, mtls.service.secret())]),
            None => BTreeMap::new(),
        };
        let secrets = secrets::router(secrets);
        let secrets = serve(listen(0).await?, secrets, &mut tasks, &closing)?;
        let dead_letters = DeadLetters::default();
        let sqs = serve(
            listen(0).await?,
            queue::router(dead_letters.clone()),
            &mut tasks,
            &closing,
        )?;
        let mut settings = environment::settings(&endpoints, &secrets, &sqs, mtls.as_ref(), &backend.sealing_key)?;
        settings.extend(options.settings);
        if let Some(data_dir) = data_dir {
            environment::write(data_dir, &settings)?;
        }
        let functions = Arc::new(match &options.functions_url {
            Some(url) => Functions::remote(url),
            None => Functions::InProcess(in_process::handlers(&Clients::of(&endpoints.kms), &settings).await?),
        });
        let lambda = Lambda::of(functions.clone());
        serve(lambda_listener, lambda.clone().router(), &mut tasks, &closing)?;
        let access = mtls::access(service)?;
        let gateway_for = |serves: fn(&Route) -> bool| {
            gateway::router(Gateway {
                routes: ROUTES.iter().copied().filter(serves).collect(),
                tokens: tokens.clone(),
                functions: functions.clone(),
            })
        };
        let api_gateway = match callback_listener {
            None => gateway_for(|_| true),
            Some(listener) => {
                let callbacks = gateway_for(|route| route.authorizer == Authorizer::None);
                let service = callbacks.into_make_service_with_connect_info::<TlsCaller>();
                let server = axum::serve(listener, service).with_graceful_shutdown(signalled(&closing));
                tasks.push(spawn("the listener for callbacks", server.into_future()));
                gateway_for(|route| route.authorizer != Authorizer::None)
            }
        };
        let phone = HttpClient::with(access.clone());
        let router = endpoints::router(endpoints.clone(), mailbox.clone(), failures.list(), phone)
            .merge(page::router(store.clone(), tokens.clone()))
            .merge(docs::router())
            .merge(api_gateway);
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        let server = axum::serve(api_listener, service).with_graceful_shutdown(signalled(&stopping));
        let api_server = spawn("the API", server.into_future());

        let ordering = ServiceOrdering::new(access.connector(), &endpoints.network);
        if let Err(error) = ordering.register(&endpoints.callbacks, Some(SETTLED)).await {
            tracing::warn!(%error, "the registration at the network failed; it will send no callbacks");
        }
        let event_sources = stream_consumers().into_iter().filter_map(|(function, pattern)| {
            let event_source = EventSource {
                batch: options.stream_batch?,
                database: database.clone(),
                table: TABLE.to_owned(),
                functions: functions.clone(),
                function,
                filters: vec![Filter::parse(&pattern).expect("the patterns of the consumers are valid")],
                data_dir: options.data_dir.clone(),
                dead_letters: dead_letters.clone(),
            };
            Some(tokio::spawn(event_source.run(signalled(&stopping))))
        });
        let event_sources = event_sources.collect();
        let scenario = mail_failures.and_then(|failures| failures.scenario());
        let ses_events = SesEvents::new(mailbox.clone(), functions.clone(), data_dir, scenario)?;
        let invokers = [
            tokio::spawn(ses_events.run(signalled(&stopping))),
            tokio::spawn(schedule::run(functions, options.sweep_every, signalled(&stopping))),
        ];

        Ok(Self {
            endpoints,
            settings,
            tokens,
            store,
            database,
            smdp,
            network,
            mailbox,
            stop,
            close,
            api: api_server,
            event_sources,
            dead_letters,
            invokers: invokers.into(),
            lambda,
            tasks,
            _owned: owned,
        })
    }

    /// Prints the URLs of the API and of the page on which to try it, and a first request to paste. It fits a terminal
    /// of 80 columns and 24 lines.
    fn print_greeting(&self) -> Result<(), StartError> {
        const AN_HOUR: i64 = 3600;
        let api = &self.endpoints.api;
        let token = self
            .tokens
            .issue("OWNER", Some("C-100"), None, "anna", AN_HOUR, Timestamp::now());
        let greeting = format!(
            "simswap is ready at {api}\n\n\
             Try it in a browser: {api}/local\n\n\
             Or paste this, which swaps a line to an eSIM. The token is valid for an hour:\n\n\
             TOKEN={token}\n\
             curl -s {api}/api/SimSwapSubscription \\\n  \
             -H \"Authorization: Bearer $TOKEN\" -H 'Content-Type: application/json' \\\n  \
             -d '{{\"subscriptionId\":\"65a1b2c3d4e5f60718293a01\",\"eSim\":true,\n       \
             \"email\":\"anna@example.com\",\"confirmationCode\":\"8E9!#\"}}'\n\n\
             Then list the e-mails:\n\ncurl -s {api}/local/mail\n"
        );
        let mut out = std::io::stdout();
        out.write_all(greeting.as_bytes())
            .and_then(|()| out.flush())
            .map_err(StartError::context("standard output"))
    }

    /// Stops the stack, after the work in progress has finished. Open API requests get five seconds.
    pub async fn stop(self) {
        const REQUESTS_WITHIN: Duration = Duration::from_secs(5);
        let _ = self.stop.send(true);
        for event_source in self.event_sources {
            if let Ok(Err(error)) = event_source.await {
                tracing::error!(%error, "an event source failed");
            }
        }
        for invoker in self.invokers {
            let _ = invoker.await;
        }
        self.lambda.drain().await;
        let _ = tokio::time::timeout(REQUESTS_WITHIN, self.api).await;
        // Not earlier: the work in progress needed these parts, and an e-mail that was sent but not recorded is sent
        // again.
        let _ = self.close.send(true);
        for task in self.tasks {
            task.abort();
        }
    }
}

/// The functions that consume the stream, and the event filter of each, as in `infra/template.yaml`.
fn stream_consumers() -> [(&'static str, Value); 2] {
    [
        (
            "fulfil-swap",
            json!({"eventName": ["INSERT", "MODIFY"], "dynamodb": {"Keys": {"sk": {"S": ["activation"]}}}}),
        ),
        (
            "deliver-esim",
            json!({"eventName": ["INSERT"], "dynamodb": {"Keys": {"sk": {"S": [{"prefix": "delivery#"}]}}}}),
        ),
    ]
}

/// Completes at SIGINT (Ctrl-C) or SIGTERM.
async fn stop_signal() {
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
