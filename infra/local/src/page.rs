//! The page `/local`, on which a person tries the service, and what only this page needs: the sample lines, the free
//! sample SIMs, and tokens. For everything else, the page uses the API and the other routes under `/local`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use domain::SimState;
use jiff::Timestamp;
use serde::Serialize;
use store::{Store, StoreError};

use crate::guard::private;
use crate::sample;
use crate::tokens::Tokens;

/// The page loads everything from this stack, and has no inline script or style.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      frame-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

const PAGE: &str = include_str!("../page/index.html");
const STYLE: &str = include_str!("../page/page.css");
const SCRIPT: &str = include_str!("../page/page.js");

/// The validity of a token, in seconds. The page gets new tokens when one has expired.
const TOKEN_VALID: i64 = 3600;

#[derive(Clone)]
struct Page {
    store: Store,
    tokens: Arc<Tokens>,
}

/// The routes of the page, for programs on this machine.
pub(crate) fn router(store: Store, tokens: Arc<Tokens>) -> Router {
    let page_headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, POLICY),
    ];
    let style = [(CONTENT_TYPE, "text/css; charset=utf-8")];
    let script = [(CONTENT_TYPE, "text/javascript; charset=utf-8")];
    let router = Router::new()
        .route("/local", get((page_headers, PAGE)))
        .route("/local/page.css", get((style, STYLE)))
        .route("/local/page.js", get((script, SCRIPT)))
        .route("/local/lines", get(list_lines))
        .route("/local/sims", get(list_free_sims))
        .route("/local/tokens", get(issue_tokens))
        .with_state(Page { store, tokens });
    private(router)
}

/// A sample line.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LineView {
    id: String,
    phone_number: String,
    customer: String,
    reseller: Option<String>,
    network: String,
    current_sim: String,
    email: Option<String>,
    /// Why no swap of the line can begin.
    blocker: Option<&'static str>,
}

/// A sample SIM that a swap can use now.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SimView {
    iccid: String,
    network: String,
    reseller: Option<String>,
    form_factor: &'static str,
}

/// A token for one caller.
#[derive(Serialize)]
struct TokenView {
    role: &'static str,
    /// The customer or the reseller.
    holder: Option<&'static str>,
    token: String,
}

/// The table cannot be read.
struct Unreadable(StoreError);

impl From<StoreError> for Unreadable {
    fn from(error: StoreError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Unreadable {
    fn into_response(self) -> Response {
        tracing::error!(error = %self.0, "the sample data cannot be read");
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    }
}

async fn list_lines(State(page): State<Page>) -> Result<Json<Vec<LineView>>, Unreadable> {
    let mut views = Vec::new();
    for id in sample::line_ids() {
        let Some(stored) = page.store.line(&id).await? else {
            continue;
        };
        let line = stored.line;
        let blocker = line.swap_blocker().map(|blocker| blocker.as_str());
        views.push(LineView {
            id: line.id.to_string(),
            phone_number: line.phone.to_string(),
            customer: line.customer,
            reseller: line.reseller,
            network: line.network.as_str().to_owned(),
            current_sim: line.current_sim.to_string(),
            email: line.email.map(|email| email.as_str().to_owned()),
            blocker,
        });
    }
    Ok(Json(views))
}

async fn list_free_sims(State(page): State<Page>) -> Result<Json<Vec<SimView>>, Unreadable> {
    let now = Timestamp::now();
    let mut views = Vec::new();
    for sample in sample::sims() {
        let sim = page.store.sim(&sample.iccid).await?;
        let Some(sim) = sim.filter(|sim| sim.state == SimState::Free && sim.holder.is_none() && sim.free_from <= now)
        else {
            continue;
        };
        views.push(SimView {
            iccid: sim.iccid.to_string(),
            network: sim.network.as_str().to_owned(),
            reseller: sim.reseller,
            form_factor: sim.form_factor.as_str(),
        });
    }
    Ok(Json(views))
}

/// A token for an ADMIN, and for each customer and each reseller of a sample line.
async fn issue_tokens(State(page): State<Page>) -> Json<Vec<TokenView>> {
    let now = Timestamp::now();
    let view = |role, customer: Option<&'static str>, reseller| TokenView {
        role,
        holder: customer.or(reseller),
        token: page.tokens.issue(role, customer, reseller, "local", TOKEN_VALID, now),
    };
    let mut views = vec![view("ADMIN", None, None)];
    views.extend(
        sample::resellers()
            .into_iter()
            .map(|reseller| view("RESELLER", None, Some(reseller))),
    );
    views.extend(
        sample::customers()
            .into_iter()
            .map(|customer| view("OWNER", Some(customer), None)),
    );
    Json(views)
}
