//! How a simulated peer fails: at a rate, or as a named scenario. The failures happen at its HTTP door, before and after
//! the call that it carries out. The scenarios of each peer are beside the peer.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_LENGTH;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::time::Instant;

/// The scenarios of one peer.
pub trait Scenario: Copy + PartialEq + Send + Sync + 'static {
    /// Each scenario, its word, and what a client of the service sees.
    const ALL: &'static [(Self, &'static str, &'static str)];
    /// What a client of the service sees if a share of the calls fails.
    const AT_A_RATE: &'static str;

    /// What happens to this call; `None` if it does not fail.
    fn fault(self, call: &Request) -> Option<Fault>;
}

/// What happens to one call.
pub enum Fault {
    /// The call is not carried out and gets this response.
    Respond(Response),
    /// The call is not carried out and gets a 401, for [`FailurePace::unauthorized_for`] from the first call on.
    UnauthorizedAtFirst,
    /// The call is carried out, and the response comes late.
    RespondLate,
    /// The call is not carried out and gets a late 503.
    RefuseLate,
    /// The call is carried out. If it succeeds, the connection breaks off within the response.
    LoseResponse,
    /// The call is carried out, and the text of its response is changed.
    Edit(fn(&str) -> String),
}

/// How a peer fails.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum FailureMode<S> {
    /// This share of the calls fails, from 0 to 1: each with a 503, with a late response, or without a response although
    /// it was carried out.
    Rate(f64),
    /// All calls that the scenario concerns fail.
    Scenario(S),
}

impl<S: Scenario> FailureMode<S> {
    /// What a client of the service sees.
    pub fn what(self) -> &'static str {
        match self {
            Self::Rate(_) => S::AT_A_RATE,
            Self::Scenario(scenario) => entry_of(scenario).2,
        }
    }
}

impl<S: Scenario> fmt::Display for FailureMode<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rate(rate) => write!(f, "{rate}"),
            Self::Scenario(scenario) => f.write_str(entry_of(*scenario).1),
        }
    }
}

impl<S: Scenario> FromStr for FailureMode<S> {
    type Err = String;

    /// Parses a rate, `0.2` or `20%`, or the word of a scenario.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((scenario, ..)) = S::ALL.iter().find(|(_, word, _)| *word == text) {
            return Ok(Self::Scenario(*scenario));
        }
        let rate = match text.strip_suffix('%') {
            Some(percent) => percent.parse().map(|percent: f64| percent / 100.0),
            None => text.parse(),
        };
        match rate {
            Ok(rate) if (0.0..=1.0).contains(&rate) => Ok(Self::Rate(rate)),
            _ => {
                let words: Vec<_> = S::ALL.iter().map(|(_, word, _)| *word).collect();
                Err(format!(
                    "must be a rate such as 0.2 or 20%, or one of: {}",
                    words.join(", ")
                ))
            }
        }
    }
}

fn entry_of<S: Scenario>(scenario: S) -> &'static (S, &'static str, &'static str) {
    let found = S::ALL.iter().find(|(listed, ..)| *listed == scenario);
    found.expect("every scenario is listed")
}

/// The times and the randomness of failures.
#[derive(Debug, Clone, Copy)]
pub struct FailurePace {
    /// How late a late response comes.
    pub late_by: Duration,
    /// How long a peer responds with 401 to everything, if it does so at first.
    pub unauthorized_for: Duration,
    /// Which calls fail at a rate, and how. The same calls in the same order fail in the same way.
    pub seed: u64,
}

impl Default for FailurePace {
    fn default() -> Self {
        Self {
            late_by: Duration::from_secs(10),
            unauthorized_for: Duration::from_secs(60),
            seed: fastrand::u64(..),
        }
    }
}

/// The failures of one peer.
pub struct Failures<S> {
    mode: FailureMode<S>,
    pace: FailurePace,
    rng: Mutex<fastrand::Rng>,
    first_call: OnceLock<Instant>,
}

impl<S: Scenario> Failures<S> {
    /// Failures of this kind, from now on.
    pub fn new(mode: FailureMode<S>, pace: FailurePace) -> Arc<Self> {
        Arc::new(Self {
            mode,
            pace,
            rng: Mutex::new(fastrand::Rng::with_seed(pace.seed)),
            first_call: OnceLock::new(),
        })
    }

    /// The scenario that they follow, if they do not happen at a rate.
    pub fn scenario(&self) -> Option<S> {
        match self.mode {
            FailureMode::Rate(_) => None,
            FailureMode::Scenario(scenario) => Some(scenario),
        }
    }

    fn fault(&self, call: &Request) -> Option<Fault> {
        match self.mode {
            FailureMode::Scenario(scenario) => scenario.fault(call),
            FailureMode::Rate(rate) => {
                let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
                (rng.f64() < rate).then(|| match rng.u8(..3) {
                    0 => Fault::Respond(StatusCode::SERVICE_UNAVAILABLE.into_response()),
                    1 => Fault::RespondLate,
                    _ => Fault::LoseResponse,
                })
            }
        }
    }
}

/// The routes behind the door at which these failures happen, if there are any.
pub fn behind<S: Scenario, R: Clone + Send + Sync + 'static>(
    failures: Option<&Arc<Failures<S>>>,
    routes: Router<R>,
) -> Router<R> {
    match failures {
        None => routes,
        Some(failures) => routes.layer(middleware::from_fn_with_state(failures.clone(), pass::<S>)),
    }
}

async fn pass<S: Scenario>(State(failures): State<Arc<Failures<S>>>, call: Request, next: Next) -> Response {
    let first_call = *failures.first_call.get_or_init(Instant::now);
    let fault = failures.fault(&call);
    match fault {
        None => next.run(call).await,
        Some(Fault::Respond(response)) => response,
        Some(Fault::UnauthorizedAtFirst) if first_call.elapsed() < failures.pace.unauthorized_for => {
            StatusCode::UNAUTHORIZED.into_response()
        }
        Some(Fault::UnauthorizedAtFirst) => next.run(call).await,
        Some(Fault::RespondLate) => {
            let response = next.run(call).await;
            tokio::time::sleep(failures.pace.late_by).await;
            response
        }
        Some(Fault::RefuseLate) => {
            tokio::time::sleep(failures.pace.late_by).await;
            StatusCode::SERVICE_UNAVAILABLE.into_response()
        }
        Some(Fault::LoseResponse) => match next.run(call).await {
            response if response.status().is_success() => response.map(|_| broken()),
            response => response,
        },
        Some(Fault::Edit(edit)) => edited(next.run(call).await, edit).await,
    }
}

/// A body whose first read closes the connection.
fn broken() -> Body {
    let error = io::Error::from(io::ErrorKind::ConnectionAborted);
    Body::from_stream(stream::once(async { Err::<Bytes, _>(error) }))
}

async fn edited(response: Response, edit: fn(&str) -> String) -> Response {
    let (mut parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let text = edit(&String::from_utf8_lossy(&body));
    parts.headers.remove(CONTENT_LENGTH);
    Response::from_parts(parts, text.into())
}

#[cfg(test)]
mod tests;
