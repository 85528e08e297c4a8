//! The nine functions, wired into this process as their `main.rs` wire them to Lambda. Invoking them is in
//! `functions.rs`.

use std::collections::BTreeMap;
use std::convert::{Infallible, identity};
use std::sync::Arc;

use aws::ServiceClient;
use aws_lambda_events::event::dynamodb::Event;
use change_sim::ChangeSim;
use deliver_esim::DeliverEsim;
use edge::{ClockAndRng, SettingError, Settings};
use fulfil_swap::{FulfilSwap, Peers};
use lambda_http::Request;
use lambda_runtime::LambdaEvent;
use mail_events::{MailEvents, SnsEvent};
use manage_swap::ManageSwap;
use network_events::NetworkEvents;
use query_activation::QueryActivation;
use serde::de::IgnoredAny;
use store::Store;
use submit_swap::SubmitSwap;
use sweep_swaps::SweepSwaps;

use crate::StartError;
use crate::clients::Clients;
use crate::functions::{Handler, events, http};

/// One instance of each function.
pub struct FunctionSet {
    /// `submit-swap`
    pub submit_swap: SubmitSwap,
    /// `change-sim`
    pub change_sim: ChangeSim,
    /// `query-activation`
    pub query_activation: QueryActivation,
    /// `manage-swap`
    pub manage_swap: ManageSwap,
    /// `network-events`
    pub network_events: NetworkEvents,
    /// `fulfil-swap`
    pub fulfil_swap: FulfilSwap,
    /// `deliver-esim`
    pub deliver_esim: DeliverEsim,
    /// `mail-events`
    pub mail_events: MailEvents,
    /// `sweep-swaps`
    pub sweep_swaps: SweepSwaps,
}

/// A handler that passes events of the type `$event` to the function. `$result` converts the return value of the
/// function's `handle` into a `Result`.
macro_rules! handler {
    ($adapter:ident, $function:expr, $event:ty, $result:expr) => {{
        let function = Arc::new($function);
        $adapter(move |event: $event| {
            let function = function.clone();
            async move { $result(function.handle(event).await) }
        })
    }};
}

impl FunctionSet {
    /// Builds each function as its `main.rs` builds it.
    pub fn new(
        store: &Store,
        peers: Peers,
        ses: &aws_sdk_ses::Config,
        lambda: ServiceClient,
        clock: &ClockAndRng,
        settings: &Settings,
    ) -> Result<Self, SettingError> {
        let (store, clock) = (|| store.clone(), || clock.clone());
        Ok(Self {
            submit_swap: SubmitSwap::new(store(), clock(), settings)?,
            change_sim: ChangeSim::new(store(), clock(), settings)?,
            query_activation: QueryActivation::new(store(), clock(), settings)?,
            manage_swap: ManageSwap::new(store(), clock(), settings)?,
            network_events: NetworkEvents::new(store(), clock(), settings)?,
            fulfil_swap: FulfilSwap::new(store(), peers, clock(), settings)?,
            deliver_esim: DeliverEsim::new(store(), ses, clock(), settings)?,
            mail_events: MailEvents::new(store(), clock(), settings)?,
            sweep_swaps: SweepSwaps::new(store(), lambda, clock(), settings)?,
        })
    }

    /// The functions as handlers, by name.
    pub fn into_handlers(self) -> BTreeMap<&'static str, Handler> {
        BTreeMap::from([
            ("submit-swap", handler!(http, self.submit_swap, Request, infallible)),
            ("change-sim", handler!(http, self.change_sim, Request, infallible)),
            (
                "query-activation",
                handler!(http, self.query_activation, Request, infallible),
            ),
            ("manage-swap", handler!(http, self.manage_swap, Request, infallible)),
            (
                "network-events",
                handler!(http, self.network_events, Request, infallible),
            ),
            (
                "fulfil-swap",
                handler!(events, self.fulfil_swap, LambdaEvent<Event>, infallible),
            ),
            (
                "deliver-esim",
                handler!(events, self.deliver_esim, LambdaEvent<Event>, infallible),
            ),
            (
                "mail-events",
                handler!(events, self.mail_events, LambdaEvent<SnsEvent>, identity),
            ),
            (
                "sweep-swaps",
                handler!(events, self.sweep_swaps, LambdaEvent<IgnoredAny>, identity),
            ),
        ])
    }
}

/// The result of a function that reports failures in its response.
fn infallible<T>(response: T) -> Result<T, Infallible> {
    Ok(response)
}

/// Builds the functions with the settings of a local stack.
pub(crate) async fn handlers(
    clients: &Clients,
    settings: &BTreeMap<String, String>,
) -> Result<BTreeMap<&'static str, Handler>, StartError> {
    // The URLs are settings, so that a test can place a faulty proxy in front of the table or SES.
    let dynamodb = clients.dynamodb(&settings["AWS_ENDPOINT_URL_DYNAMODB"]);
    let ses = clients.ses(&settings["AWS_ENDPOINT_URL_SES"]);
    let lambda = clients.lambda(&settings["AWS_ENDPOINT_URL_LAMBDA"]);
    let secrets = clients.secrets(&settings["AWS_ENDPOINT_URL_SECRETS_MANAGER"]);
    let values = settings.clone();
    let settings = &Settings::new(move |name| values.get(name).cloned());
    let store = settings.store(dynamodb, clients.kms());
    let store = store.map_err(StartError::context("the functions"))?;
    let peers = Peers::read(secrets, settings)
        .await
        .map_err(StartError::context("fulfil-swap"))?;
    let functions = FunctionSet::new(&store, peers, &ses, lambda, &ClockAndRng::real(), settings)
        .map_err(StartError::context("the functions"))?;
    Ok(functions.into_handlers())
}
