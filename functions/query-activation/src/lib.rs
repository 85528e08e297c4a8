//! `GET /api/QueryActivation`: swaps as they are now, those that exist for the caller. It touches the table and nothing else.

mod cursor;
mod query;

use domain::{ActivationId, Caller, Scope, SubscriptionId};
use edge::{
    ActivationView, ApiError, ClockAndRng, ErrorResponse, FieldError, Presenter, SettingError, Settings, caller,
    json_response, record_activation, span_of_call,
};
use jiff::Timestamp;
use lambda_http::http::StatusCode;
use lambda_http::{Body, Request, RequestExt, Response};
use serde::Serialize;
use store::{Entry, Listing, Span, Store, StoreError, StoredSwap};
use tracing::Instrument;

use crate::cursor::Place;
use crate::query::Query;

/// The function with all it needs, built once a process.
#[derive(Debug)]
pub struct QueryActivation {
    store: Store,
    ambient: ClockAndRng,
    presenter: Presenter,
}

/// Entries of a listing that a page looks at, after those it skips.
const LOOKED_AT: usize = 1000;

#[derive(Serialize)]
struct Page {
    offset: usize,
    total: usize,
    results: Vec<ActivationView>,
    meta: Meta,
}

#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct Meta {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    total_is_lower_bound: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// Whose swaps a query is about.
enum Subject {
    /// All that exist for the caller.
    Caller,
    Line(SubscriptionId),
    Nobody,
}

/// What a look into a listing brought.
struct Found {
    entries: Vec<Entry>,
    total: usize,
    total_is_lower_bound: bool,
    /// Place after which the next page begins.
    next_after: Option<String>,
}

impl QueryActivation {
    /// Reads `TIME_ZONE`, `CONFIRMATION_CODE_ECHO` and `CODE_KEPT`.
    pub fn new(store: Store, ambient: ClockAndRng, settings: &Settings) -> Result<Self, SettingError> {
        let presenter = settings.presenter()?;
        Ok(Self {
            store,
            ambient,
            presenter,
        })
    }

    /// Answers one call; never fails.
    pub async fn handle(&self, request: Request) -> Response<Body> {
        let answered = async {
            let found = self.query(&request).await;
            found.unwrap_or_else(|failure| failure.into_response("query failed"))
        };
        answered.instrument(span_of_call(&request)).await
    }

    async fn query(&self, request: &Request) -> Result<Response<Body>, ApiError> {
        let caller = caller(request).map_err(|_| ErrorResponse::forbidden())?;
        let parameters = request.query_string_parameters();
        let query = query::parse(parameters.iter(), &self.presenter.zone)?;
        let now = self.ambient.now();
        let page = match &query.id {
            Some(id) => self.one(&caller, &query, id, now).await?,
            None => self.page(&caller, &query, now).await?,
        };
        Ok(json_response(StatusCode::OK, &page))
    }

    /// By id it is one read, whatever comes of it.
    async fn one(&self, caller: &Caller, query: &Query, id: &ActivationId, now: Timestamp) -> Result<Page, StoreError> {
        record_activation(id);
        let found = self.store.swap_with_deliveries(id).await?.filter(|stored| {
            let a = &stored.activation;
            let visible = caller.may_see(&a.customer, a.reseller.as_deref());
            // In a listing the number has named the line; here it is the swap's own.
            let same_phone = query.phone.as_ref().is_none_or(|asked| *asked == a.phone);
            visible && same_phone && query.matches(a)
        });
        let total = usize::from(found.is_some());
        let shown = found.filter(|_| query.skip == 0);
        Ok(Page {
            offset: query.skip,
            total,
            results: self.views(shown.as_slice(), caller, now).await?,
            meta: Meta::default(),
        })
    }

    async fn page(&self, caller: &Caller, query: &Query, now: Timestamp) -> Result<Page, ApiError> {
        let filters = query.canonical();
        let after = match &query.cursor {
            None => None,
            Some(text) => {
                let place = cursor::open(self.store.keyring(), caller, &filters, text).await?;
                let fault = || FieldError::invalid("cursor", "must be the 'meta.next' of such a page");
                Some(place.ok_or_else(|| ErrorResponse::invalid(vec![fault()]))?)
            }
        };
        let subject = self.subject(caller, query).await?;
        let found = self.look(caller, query, &subject, after.as_ref()).await?;
        let ids: Vec<ActivationId> = found.entries.iter().map(|entry| entry.id.clone()).collect();
        let mut stored = self.store.swaps_with_deliveries(&ids).await?;
        // The index may be a moment behind the rows.
        stored.retain(|stored| query.matches(&stored.activation));
        // Counting is the first page's work; its cursor carries the count on.
        let (total, total_is_lower_bound) = match &after {
            Some(place) => (place.total, place.total_is_lower_bound),
            None => (found.total, found.total_is_lower_bound),
        };
        let next = match found.next_after {
            None => None,
            Some(after) => {
                let place = Place {
                    after,
                    total,
                    total_is_lower_bound,
                };
                Some(cursor::seal(self.store.keyring(), caller, &filters, &place).await?)
            }
        };
        Ok(Page {
            offset: query.skip,
            total,
            results: self.views(&stored, caller, now).await?,
            meta: Meta {
                total_is_lower_bound,
                next,
            },
        })
    }

    /// Whose swaps the query is about. A number that does not exist for the caller, or is another line's than
    /// `subscriptionId`, is nobody's, by the same reads.
    async fn subject(&self, caller: &Caller, query: &Query) -> Result<Subject, StoreError> {
        let Some(phone) = &query.phone else {
            return Ok(query.subscription.clone().map_or(Subject::Caller, Subject::Line));
        };
        let entry = self.store.phone(phone).await?;
        let line = entry
            .filter(|entry| caller.may_see(&entry.customer, entry.reseller.as_deref()))
            .map(|entry| entry.subscription)
            .filter(|line| query.subscription.as_ref().is_none_or(|asked| asked == line));
        Ok(line.map_or(Subject::Nobody, Subject::Line))
    }

    /// Looks through the listing for a page's entries, and counts.
    async fn look(
        &self,
        caller: &Caller,
        query: &Query,
        subject: &Subject,
        after: Option<&Place>,
    ) -> Result<Found, StoreError> {
        let listing = match (subject, &caller.scope) {
            (Subject::Line(line), _) => Listing::Line(line),
            (Subject::Nobody, _) => Listing::Nobody,
            (Subject::Caller, Scope::Owner { customer }) => Listing::Customer(customer),
            (Subject::Caller, Scope::Reseller { reseller }) => Listing::Reseller(reseller),
            (Subject::Caller, Scope::Admin) => Listing::All,
        };
        let span = Span {
            from: query.from,
            until: query.until,
            after: after.map(|place| place.after.clone()),
            oldest_first: query.oldest_first,
        };
        let budget = LOOKED_AT + query.skip;
        // A page by cursor needs no count: it stops as soon as it is full.
        let looked = match after {
            Some(_) if !query.filters_entries() => query.take + 1,
            _ => budget + 1,
        };
        let mut entries = self.store.list(listing, &span, looked).await?;
        let more = entries.len() == looked;
        entries.truncate(looked - 1);
        let last_looked_at = entries.last().map(|entry| entry.place.clone());
        if let Subject::Line(_) = subject {
            entries.retain(|entry| {
                let customer = entry.customer.as_deref().unwrap_or_default();
                caller.may_see(customer, entry.reseller.as_deref())
            });
        }
        // A line with nothing for the caller is like one that does not exist, however long its listing is.
        let more = more && !entries.is_empty();
        let undecided = entries.iter().filter(|entry| query.matches_entry(entry).is_none());
        let undecided: Vec<_> = undecided.map(|entry| entry.id.clone()).collect();
        let rows = self.store.swaps(&undecided).await?;
        entries.retain(|entry| match rows.get(&entry.id) {
            Some(row) => query.matches(&row.activation),
            None => query.matches_entry(entry) == Some(true),
        });
        let total = entries.len();
        let end = (query.skip + query.take).min(total);
        let next_after = match (end < total, more) {
            (true, _) => Some(entries[end - 1].place.clone()),
            (false, true) => last_looked_at,
            (false, false) => None,
        };
        entries.truncate(end);
        entries.drain(..query.skip.min(end));
        Ok(Found {
            entries,
            total,
            total_is_lower_bound: more,
            next_after,
        })
    }

    async fn views(
        &self,
        swaps: &[StoredSwap],
        caller: &Caller,
        now: Timestamp,
    ) -> Result<Vec<ActivationView>, StoreError> {
        let mut views = Vec::with_capacity(swaps.len());
        for swap in swaps {
            views.push(self.presenter.show(&self.store, swap, caller, now).await?);
        }
        Ok(views)
    }
}
