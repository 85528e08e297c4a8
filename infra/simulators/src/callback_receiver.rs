//! The receiver of callbacks in the tests of the simulators.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::http::{StatusCode, Uri};
use peers::http::{Call, exchange};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// Receives callbacks, and returns them in the order of their arrival.
pub(crate) struct CallbackReceiver {
    pub(crate) url: String,
    callbacks: mpsc::UnboundedReceiver<(String, Value)>,
}

impl CallbackReceiver {
    /// Starts a receiver that responds to the first callbacks with these status codes, and to later ones with 204.
    pub(crate) async fn start(statuses: &[u16]) -> Self {
        let (sender, callbacks) = mpsc::unbounded_channel();
        let statuses = Arc::new(Mutex::new(VecDeque::from(statuses.to_vec())));
        let router = Router::new().fallback(move |uri: Uri, body: Bytes| async move {
            let status = statuses.lock().unwrap().pop_front().unwrap_or(204);
            let body = serde_json::from_slice(&body).unwrap();
            sender.send((uri.path().to_owned(), body)).unwrap();
            StatusCode::from_u16(status).unwrap()
        });
        let (url, listener) = listen().await;
        tokio::spawn(crate::serve(listener, router));
        Self { url, callbacks }
    }

    /// Waits for the next callback: its path and body.
    pub(crate) async fn next(&mut self) -> (String, Value) {
        self.callbacks.recv().await.unwrap()
    }

    pub(crate) fn has_more(&mut self) -> bool {
        !self.callbacks.is_empty()
    }
}

/// A listener on a free port, and its base URL.
pub(crate) async fn listen() -> (String, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (url, listener)
}

/// Sends a request without credentials. Returns the status code, and the body as JSON.
pub(crate) async fn call(method: &'static str, url: &str, body: &str) -> (u16, Value) {
    let call = Call {
        method,
        url,
        headers: &[],
        body: body.as_bytes().to_vec(),
    };
    let reply = exchange(&peers::connector(), call).await.ok().unwrap();
    let body = serde_json::from_slice(&reply.body).unwrap_or_default();
    (reply.status, body)
}
