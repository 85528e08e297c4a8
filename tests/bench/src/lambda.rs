//! Lambda's Invoke API, on sandboxes of the binaries: each function gets as many sandboxes as invocations at the same
//! time. Counts and times the invocations.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::BenchError;
use crate::programs::{Language, Programs};
use crate::sandbox::Sandbox;

/// The functions behind `url`.
#[derive(Clone)]
pub(crate) struct Lambda {
    pub(crate) url: String,
    programs: Arc<Programs>,
    settings: watch::Sender<Option<BTreeMap<String, String>>>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    idle: BTreeMap<String, Vec<Sandbox>>,
    invoked: BTreeMap<String, Vec<Duration>>,
    /// The seconds of processor time, by function.
    worked: BTreeMap<String, f64>,
}

impl Lambda {
    /// An endpoint whose invocations wait until the settings are configured.
    pub(crate) async fn new(programs: Arc<Programs>) -> Result<Self, BenchError> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let lambda = Self {
            url: format!("http://{}", listener.local_addr()?),
            programs,
            settings: watch::Sender::new(None),
            state: Arc::default(),
        };
        let serving = lambda.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let lambda = serving.clone();
                tokio::spawn(async move {
                    let response = service_fn(|request| lambda.response(request));
                    // The stack may close its connections at any time.
                    let _ = http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), response)
                        .await;
                });
            }
        });
        Ok(lambda)
    }

    /// Sets the environment of all functions; `{function}` in a value stands for the function's name.
    pub(crate) fn configure(&self, settings: &BTreeMap<String, String>) {
        self.settings.send_replace(Some(settings.clone()));
    }

    /// The durations of each function's invocations since the last call of this method.
    pub(crate) fn invoked(&self) -> BTreeMap<String, Vec<Duration>> {
        std::mem::take(&mut self.state().invoked)
    }

    /// Ends all sandboxes.
    pub(crate) fn end(&self) {
        self.state().idle.clear();
    }

    /// How often a function was invoked since the last call of [`Self::invoked`].
    pub(crate) fn count(&self, function: &str) -> usize {
        self.state().invoked.get(function).map_or(0, Vec::len)
    }

    /// The seconds of processor time that a function's invocations have taken.
    pub(crate) fn processor(&self, function: &str) -> f64 {
        self.state().worked.get(function).copied().unwrap_or_default()
    }

    /// Invokes a function and waits for its response.
    pub(crate) async fn invoke(&self, function: &str, event: String) -> Result<String, BenchError> {
        let mut settings = self.settings.subscribe();
        let settings = settings.wait_for(Option::is_some).await?.clone();
        let idle = self.state().idle.get_mut(function).and_then(Vec::pop);
        let began = Instant::now();
        let mut worked_before = 0.0;
        let (mut sandbox, response) = match idle {
            Some(mut sandbox) => {
                worked_before = sandbox.processor()?;
                let response = sandbox.invoke(event).await?;
                (sandbox, response)
            }
            None => {
                let command = self.programs.command(Language::Rust, function);
                let mut settings = settings.unwrap_or_default();
                for value in settings.values_mut() {
                    *value = value.replace("{function}", function);
                }
                let mut sandbox = Sandbox::start(&command, &settings, event).await?;
                let response = sandbox.response().await?;
                (sandbox, response)
            }
        };
        let took = began.elapsed();
        sandbox.is_alive()?;
        let worked = sandbox.processor()? - worked_before;
        let mut state = self.state();
        *state.worked.entry(function.to_owned()).or_default() += worked;
        state.idle.entry(function.to_owned()).or_default().push(sandbox);
        state.invoked.entry(function.to_owned()).or_default().push(took);
        Ok(response)
    }

    /// `POST /2015-03-31/functions/{name}/invocations`.
    async fn response(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let function = request.uri().path().split('/').nth(3).unwrap_or_default().to_owned();
        let event = match request.into_body().collect().await {
            Ok(body) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
            Err(error) => return Ok(failed(&error.to_string())),
        };
        match self.invoke(&function, event).await {
            Ok(response) => Ok(Response::new(Full::from(response))),
            Err(error) => Ok(failed(&error.to_string())),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failed(message: &str) -> Response<Full<Bytes>> {
    let body = json!({"errorType": "Error", "errorMessage": message}).to_string();
    Response::builder()
        .header("x-amz-function-error", "Unhandled")
        .body(Full::from(body))
        .expect("the header above is a header")
}
