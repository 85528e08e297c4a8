//! A simulated SM-DP+ and a simulated network. Their state is in SQLite files and survives a kill. How the service
//! moves a swap forward is elsewhere.

#[cfg(test)]
mod callback_receiver;
mod db;
mod failures;
mod mobile_network;
mod outbox;
mod smdp;
mod tls;

use std::convert::Infallible;

use axum::Router;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::task::JoinSet;

pub use failures::{FailureMode, FailurePace, Failures, Fault, Scenario, behind};
pub use mobile_network::{MobileNetwork, NetworkScenario};
pub use outbox::Callback;
pub use smdp::{CallbackMode, InstallError, InstallFault, MAX_WRONG_CODES, ProfileState, Smdp, SmdpScenario};
pub use tls::{TlsCaller, TlsError, TlsListener, subject};

/// The address of the simulated SM-DP+ in activation codes.
pub const SMDP_ADDRESS: &str = "smdp.example.test";

/// Serves until the future is dropped. The open connections end with it, as in a crash.
async fn serve(mut listener: impl Listener, router: Router) -> Infallible {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            (stream, _) = listener.accept() => {
                let router = TowerToHyperService::new(router.clone());
                connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), router));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}
