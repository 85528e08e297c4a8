//! `GET /api/QueryActivation`: lists the swaps that the caller may see, in their current state. It uses the table only.

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

/// The handler with its clients and settings. Built once per process.
#[derive(Debug)]
pub struct QueryActivation {
    store: Store,
    clock: ClockAndRng,
    presenter: Presenter,
}

/// Entries of a listing that are read for one page at most, besides those it skips.
const ENTRIES_READ: usize = 1000;

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

/// The swaps that a query can match.
enum Subject {
    /// All swaps that the caller may see.
    Caller,
    /// The swaps of one line.
    Line(SubscriptionId),
    /// None.
    Nobody,
}

/// The entries of one page.
struct ListedPage {
    entries: Vec<Entry>,
    total: usize,
    total_is_lower_bound: bool,
    /// The swap after which the next page begins; `None` on the last page.
    next_after: Option<ActivationId>,
}

impl QueryActivation {
    /// Reads `TIME_ZONE`, `CONFIRMATION_CODE_ECHO` and `CODE_KEPT`.
    pub fn new(store: Store, clock: ClockAndRng, settings: &Settings) -> Result<Self, SettingError> {
        let presenter = settings.presenter()?;
        Ok(Self {
            store,
            clock,
            presenter,
        })
    }

    /// Handles one request. Every error becomes a response.
    pub async fn handle(&self, request: Request) -> Response<Body> {
        let response = async {
            let result = self.query(&request).await;
            result.unwrap_or_else(|error| error.into_response("query failed"))
        };
        response.instrument(span_of_call(&request)).await
    }

    async fn query(&self, request: &Request) -> Result<Response<Body>, ApiError> {
        let caller = caller(request).map_err(|_| ErrorResponse::forbidden())?;
        let parameters = request.query_string_parameters();
        let query = query::parse(parameters.iter(), &self.presenter.zone)?;
        let now = self.clock.now();
        let page = match &query.id {
            Some(id) => self.page_by_id(&caller, &query, id, now).await?,
            None => self.page_of_listing(&caller, &query, now).await?,
        };
        Ok(json_response(StatusCode::OK, &page))
    }

    /// The page for a query by id. It takes one read, whether the caller may see the swap or not.
    async fn page_by_id(
        &self,
        caller: &Caller,
        query: &Query,
        id: &ActivationId,
        now: Timestamp,
    ) -> Result<Page, StoreError> {
        record_activation(id);
        let found = self.store.swap_with_deliveries(id).await?.filter(|stored| {
            let a = &stored.activation;
            let visible = caller.may_see(&a.customer, a.reseller.as_deref());
            // For a listing, the number names the line. Here it is compared with the swap's own number.
            let same_phone = query.phone.as_ref().is_none_or(|phone| *phone == a.phone);
            visible && same_phone && query.matches(a)
        });
        let total = usize::from(found.is_some());
        let on_page = found.filter(|_| query.skip == 0);
        Ok(Page {
            offset: query.skip,
            total,
            results: self.views(on_page.as_slice(), caller, query, now).await?,
            meta: Meta::default(),
        })
    }

    /// The page for a query without an id.
    async fn page_of_listing(&self, caller: &Caller, query: &Query, now: Timestamp) -> Result<Page, ApiError> {
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
        let listed = self.read_listing(caller, query, &subject, after.as_ref()).await?;
        let ids: Vec<ActivationId> = listed.entries.iter().map(|entry| entry.id.clone()).collect();
        let mut stored = if query.timeline {
            self.store.swaps_with_all_deliveries(&ids).await?
        } else {
            self.store.swaps_with_deliveries(&ids).await?
        };
        // The index may lag behind the rows.
        stored.retain(|stored| query.matches(&stored.activation));
        // Only the first page counts. Its cursor carries the total to the next pages.
        let (total, total_is_lower_bound) = match &after {
            Some(place) => (place.total, place.total_is_lower_bound),
            None => (listed.total, listed.total_is_lower_bound),
        };
        let next = match listed.next_after {
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
            results: self.views(&stored, caller, query, now).await?,
            meta: Meta {
                total_is_lower_bound,
                next,
            },
        })
    }

    /// Determines which swaps the query can match. None if the caller may not see the line, or if the phone number
    /// belongs to another line than `subscriptionId`. A line that the caller may not see takes the same reads as one
    /// that does not exist, so that response times do not tell them apart.
    async fn subject(&self, caller: &Caller, query: &Query) -> Result<Subject, StoreError> {
        let line = match (&query.phone, &query.subscription) {
            (None, None) => return Ok(Subject::Caller),
            (None, Some(id)) => {
                let line = self.store.line(id).await?.map(|stored| stored.line);
                line.filter(|line| caller.may_see_line(line)).map(|line| line.id)
            }
            (Some(phone), id) => {
                let entry = self.store.phone(phone).await?;
                entry
                    .filter(|entry| caller.may_see(&entry.customer, entry.reseller.as_deref()))
                    .map(|entry| entry.subscription)
                    .filter(|line| id.as_ref().is_none_or(|id| id == line))
            }
        };
        Ok(line.map_or(Subject::Nobody, Subject::Line))
    }

    /// Reads a page's entries from the listing, and counts all matching entries among those read.
    async fn read_listing(
        &self,
        caller: &Caller,
        query: &Query,
        subject: &Subject,
        after: Option<&Place>,
    ) -> Result<ListedPage, StoreError> {
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
        let budget = ENTRIES_READ + query.skip;
        // An unfiltered page by cursor needs no count, so it reads only the entries that it shows. One entry beyond the
        // limit shows whether there are more.
        let limit = match after {
            Some(_) if !query.filters_entries() => query.take + 1,
            _ => budget + 1,
        };
        let mut entries = self.store.list(listing, &span, limit).await?;
        let more = entries.len() == limit;
        entries.truncate(limit - 1);
        let last_read = entries.last().map(|entry| entry.id.clone());
        if let Subject::Line(_) = subject {
            entries.retain(|entry| {
                let customer = entry.customer.as_deref().unwrap_or_default();
                caller.may_see(customer, entry.reseller.as_deref())
            });
        }
        // A line without any swap that the caller may see is like one that does not exist, however long its listing is.
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
            (true, _) => Some(entries[end - 1].id.clone()),
            (false, true) => last_read,
            (false, false) => None,
        };
        entries.truncate(end);
        entries.drain(..query.skip.min(end));
        Ok(ListedPage {
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
        query: &Query,
        now: Timestamp,
    ) -> Result<Vec<ActivationView>, StoreError> {
        let (presenter, store) = (&self.presenter, &self.store);
        let mut views = Vec::with_capacity(swaps.len());
        for swap in swaps {
            let view = if query.timeline {
                presenter.show_with_timeline(store, swap, caller, now).await?
            } else {
                presenter.show(store, swap, caller, now).await?
            };
            views.push(match &query.fields {
                Some(fields) => view.with_only(fields),
                None => view,
            });
        }
        Ok(views)
    }
}
