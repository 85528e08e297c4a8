//! Starts the simulated SM-DP+ and the simulated network, over the data directory or in memory. How they behave is in
//! `infra/simulators`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use domain::SmDpAddress;
use edge::ClockAndRng;
use simulators::{Failures, MobileNetwork, NetworkScenario, SMDP_ADDRESS, Smdp, SmdpScenario};
use tokio::task::JoinHandle;

use crate::StartError;
use crate::data_dir::{self, PEERS};
use crate::mtls::{self, Party};
use crate::serving::listen;

/// A simulated peer that runs.
pub(crate) struct Started<T> {
    pub(crate) url: String,
    pub(crate) peer: Arc<T>,
    pub(crate) task: JoinHandle<()>,
}

/// Starts the SM-DP+, which sends its callbacks below the URL `callbacks` and fails as `failures` says. It uses mutual
/// TLS if it has a certificate.
pub(crate) async fn start_smdp(
    data_dir: Option<&Path>,
    callbacks: &str,
    party: Option<&Party>,
    failures: Option<Arc<Failures<SmdpScenario>>>,
) -> Result<Started<Smdp>, StartError> {
    let address = SmDpAddress::parse(SMDP_ADDRESS).map_err(StartError::context("the SM-DP+"))?;
    let database = database(data_dir, "smdp.sqlite")?;
    let smdp = Smdp::open(database.as_deref(), address, callbacks, ClockAndRng::real());
    let smdp = smdp.map_err(StartError::context("the SM-DP+"))?;
    let peer = Arc::new(smdp.failing(failures));
    let listener = listen(0).await?;
    let (url, connector) = (mtls::url(&listener, party)?, mtls::access(party)?.connector());
    let task = match party {
        None => peer.clone().serve(listener, connector),
        Some(party) => peer.clone().serve(party.listener(listener)?, connector),
    };
    Ok(Started { url, peer, task })
}

/// Starts the network, which takes `delay` for an order, sends its callbacks below the URL `callbacks` and fails as
/// `failures` says. It uses mutual TLS if it has a certificate.
pub(crate) async fn start_network(
    data_dir: Option<&Path>,
    callbacks: &str,
    delay: Duration,
    party: Option<&Party>,
    failures: Option<Arc<Failures<NetworkScenario>>>,
) -> Result<Started<MobileNetwork>, StartError> {
    let database = database(data_dir, "network.sqlite")?;
    let network = MobileNetwork::open(database.as_deref(), delay, ClockAndRng::real());
    let network = network.map_err(StartError::context("the network"))?;
    let peer = Arc::new(network.failing(failures));
    let moved = peer.move_callbacks(callbacks);
    moved.map_err(StartError::context("the network"))?;
    let listener = listen(0).await?;
    let (url, connector) = (mtls::url(&listener, party)?, mtls::access(party)?.connector());
    let task = match party {
        None => peer.clone().serve(listener, connector),
        Some(party) => peer.clone().serve(party.listener(listener)?, connector),
    };
    Ok(Started { url, peer, task })
}

fn database(data_dir: Option<&Path>, file: &str) -> Result<Option<PathBuf>, StartError> {
    data_dir
        .map(|data_dir| data_dir::file_in(data_dir, PEERS, file))
        .transpose()
}
