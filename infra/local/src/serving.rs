//! HTTP listeners on 127.0.0.1: binding, serving until a signal, and the signal itself. What is served is elsewhere.

use std::fmt::Display;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::StartError;
use crate::guard::guarded;

/// Listens on a port of 127.0.0.1; 0 lets the system choose a free one.
pub(crate) async fn listen(port: u16) -> Result<TcpListener, StartError> {
    TcpListener::bind(("127.0.0.1", port)).await.map_err(|error| {
        StartError(format!(
            "cannot listen on port {port}: {error}; choose another port with --port (0 picks a free one)"
        ))
    })
}

/// The `http` URL of a listener, without a slash at the end.
pub(crate) fn url(listener: &TcpListener) -> Result<String, StartError> {
    let address = listener.local_addr().map_err(StartError::context("a port"))?;
    Ok(format!("http://{address}"))
}

/// Serves a part of the stack, for programs on this machine only, until the signal `closing` is set. Returns its URL.
pub(crate) fn serve(
    listener: TcpListener,
    router: Router,
    tasks: &mut Vec<JoinHandle<()>>,
    closing: &watch::Receiver<bool>,
) -> Result<String, StartError> {
    let url = url(&listener)?;
    let server = axum::serve(listener, guarded(router)).with_graceful_shutdown(signalled(closing));
    tasks.push(spawn("a part of the stack", server.into_future()));
    Ok(url)
}

/// Runs a server, and logs the error with which it ends, if any.
pub(crate) fn spawn<E: Display>(
    name: &'static str,
    server: impl Future<Output = Result<(), E>> + Send + 'static,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        if let Err(error) = server.await {
            tracing::error!(%error, "{name} stopped serving");
        }
    })
}

/// Completes when the signal is set.
pub(crate) fn signalled(signal: &watch::Receiver<bool>) -> impl Future<Output = ()> + Send + 'static {
    let mut signal = signal.clone();
    async move {
        // If the sender is gone, the stack was dropped. It then runs until the process ends.
        if signal.wait_for(|set| *set).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
