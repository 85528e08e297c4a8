//! Lists lines, SIMs or swaps in aligned columns, without secrets and addresses. Single records are in `show.rs`.

use domain::{Activation, ActivationId, Line, LineState, NetworkName, Sim, SimState, Status, SubscriptionId};
use edge::format_time;
use jiff::tz::TimeZone;
use store::{Listing, Page, Place, Pool, Span, Store, StoreError};

use crate::CommandError;
use crate::columns::Table;
use crate::show::{find_line, free_from, holder, kind_name, table_error};

/// Which lines to list; `None` does not restrict them.
#[derive(Debug, Default)]
pub struct LineFilter {
    /// In this state.
    pub state: Option<LineState>,
    /// Of this network.
    pub network: Option<NetworkName>,
    /// Of this customer.
    pub customer: Option<String>,
    /// Of this reseller.
    pub reseller: Option<String>,
}

/// Which SIMs to list; `None` does not restrict them.
#[derive(Debug, Default)]
pub struct SimFilter {
    /// In this state.
    pub state: Option<SimState>,
    /// Of this network.
    pub network: Option<NetworkName>,
    /// Of this reseller.
    pub reseller: Option<String>,
    /// In this pool of free SIMs.
    pub pool: Option<Pool>,
}

/// Which swaps to list; `None` does not restrict them.
#[derive(Debug, Default)]
pub struct SwapFilter {
    /// With this status.
    pub status: Option<Status>,
    /// Of this network.
    pub network: Option<NetworkName>,
    /// Of this customer.
    pub customer: Option<String>,
    /// Of this reseller.
    pub reseller: Option<String>,
    /// Of this line, by its id or its phone number.
    pub line: Option<String>,
}

/// A list as text.
#[derive(Debug)]
pub struct Listed {
    /// One row for each record, after a row of headings.
    pub text: String,
    /// Whether there are more records than the limit allowed.
    pub has_more: bool,
}

/// Whether a value is the one that is wanted, if one is.
fn fits<T: PartialEq + ?Sized>(wanted: Option<&T>, value: Option<&T>) -> bool {
    wanted.is_none() || wanted == value
}

impl LineFilter {
    fn matches(&self, line: &Line) -> bool {
        fits(self.state.as_ref(), Some(&line.state))
            && fits(self.network.as_ref(), Some(&line.network))
            && fits(self.customer.as_ref(), Some(&line.customer))
            && fits(self.reseller.as_ref(), line.reseller.as_ref())
    }
}

impl SimFilter {
    fn matches(&self, sim: &Sim) -> bool {
        fits(self.state.as_ref(), Some(&sim.state))
            && fits(self.network.as_ref(), Some(&sim.network))
            && fits(self.reseller.as_ref(), sim.reseller.as_ref())
    }
}

impl SwapFilter {
    fn matches(&self, swap: &Activation) -> bool {
        fits(self.status.as_ref(), Some(&swap.status()))
            && fits(self.network.as_ref(), Some(&swap.network))
            && fits(self.customer.as_ref(), Some(&swap.customer))
            && fits(self.reseller.as_ref(), swap.reseller.as_ref())
    }
}

/// Lists up to `limit` lines, in no particular order.
///
/// # Errors
/// When the table cannot be read.
pub async fn lines(store: &Store, filter: &LineFilter, limit: usize) -> Result<Listed, CommandError> {
    let lines = read_pages(
        limit,
        |from| store.scan_lines(from),
        |stored| filter.matches(&stored.line),
    );
    let rows = lines.await?.into_iter().map(|stored| {
        let line = stored.line;
        let flags = [("porting", line.porting), ("locked", line.locked)];
        let flags = flags.into_iter().filter_map(|(name, set)| set.then_some(name));
        vec![
            line.id.to_string(),
            line.phone.as_e164().to_owned(),
            line.customer,
            or_dash(line.reseller),
            line.network.as_str().to_owned(),
            line.current_sim.to_string(),
            line.state.as_str().to_owned(),
            or_dash(Some(flags.collect::<Vec<_>>().join(",")).filter(|flags| !flags.is_empty())),
            or_dash(line.open_swap.map(|open| open.to_string())),
        ]
    });
    let headings = [
        "LINE",
        "PHONE",
        "CUSTOMER",
        "RESELLER",
        "NETWORK",
        "SIM",
        "STATE",
        "BLOCKED BY",
        "OPEN SWAP",
    ];
    Ok(format_rows(&headings, rows, limit))
}

/// Lists up to `limit` SIMs. Those of a pool are in the order in which they may be used, all others in no particular
/// order.
///
/// # Errors
/// When the table cannot be read.
pub async fn sims(store: &Store, zone: &TimeZone, filter: &SimFilter, limit: usize) -> Result<Listed, CommandError> {
    let matches = |sim: &Sim| filter.matches(sim);
    let sims = match &filter.pool {
        Some(pool) => read_pages(limit, |from| store.sims_of_pool(pool, from), matches).await?,
        None => read_pages(limit, |from| store.scan_sims(from), matches).await?,
    };
    let rows = sims.into_iter().map(|sim| {
        vec![
            sim.iccid.to_string(),
            sim.state.as_str().to_owned(),
            sim.network.as_str().to_owned(),
            or_dash(sim.reseller.clone()),
            sim.form_factor.as_str().to_owned(),
            sim.auto_assign.to_string(),
            or_dash(sim.holder.as_ref().map(holder)),
            or_dash(free_from(&sim, zone)),
            or_dash(sim.tag),
        ]
    });
    let headings = [
        "SIM",
        "STATE",
        "NETWORK",
        "RESELLER",
        "FORM FACTOR",
        "AUTO-ASSIGN",
        "HOLDER",
        "FREE FROM",
        "TAG",
    ];
    Ok(format_rows(&headings, rows, limit))
}

/// Lists up to `limit` swaps, newest first.
///
/// # Errors
/// When the table cannot be read, or no line has the given id or phone number.
pub async fn swaps(store: &Store, zone: &TimeZone, filter: &SwapFilter, limit: usize) -> Result<Listed, CommandError> {
    const PAGE: usize = 100;
    let (mut line, mut unknown) = (None, None);
    if let Some(name) = &filter.line {
        line = match find_line(store, name).await? {
            Some(found) => Some(found.line.id),
            // A line that was removed still has swaps, which its id finds.
            None => {
                let id = SubscriptionId::parse(name).map_err(|_| CommandError::unknown_line(name))?;
                unknown = Some(CommandError::unknown_line(name));
                Some(id)
            }
        };
    }
    let listing = match (&line, &filter.customer, &filter.reseller) {
        (Some(line), _, _) => Listing::Line(line),
        (None, Some(customer), _) => Listing::Customer(customer),
        (None, None, Some(reseller)) => Listing::Reseller(reseller),
        (None, None, None) => Listing::All,
    };
    let mut found = Vec::new();
    let mut span = Span::default();
    while found.len() <= limit {
        let entries = store.list(listing, &span, PAGE).await.map_err(table_error)?;
        let Some(last) = entries.last() else { break };
        span.after = Some(last.id.clone());
        let may_match = entries.iter().filter(|entry| {
            let statuses = entry.statuses;
            filter.status.is_none_or(|status| statuses.contains(&status))
        });
        let ids: Vec<ActivationId> = may_match.map(|entry| entry.id.clone()).collect();
        let mut swaps = store.swaps(&ids).await.map_err(table_error)?;
        let swaps = ids.iter().filter_map(|id| swaps.remove(id)).map(|swap| swap.activation);
        found.extend(swaps.filter(|swap| filter.matches(swap)));
    }
    if found.is_empty()
        && let Some(unknown) = unknown
    {
        return Err(unknown);
    }
    let rows = found.into_iter().map(|swap| {
        let phone = Some(swap.phone.as_e164()).filter(|_| !swap.is_anonymous());
        vec![
            swap.id.to_string(),
            format_time(swap.created_at, zone),
            swap.status().as_str().to_owned(),
            swap.subscription.to_string(),
            phone.unwrap_or("erased").to_owned(),
            swap.customer.clone(),
            or_dash(swap.reseller.clone()),
            swap.network.as_str().to_owned(),
            kind_name(swap.kind).to_owned(),
            or_dash(swap.failure.map(|failure| failure.as_str().to_owned())),
        ]
    });
    let headings = [
        "SWAP", "CREATED", "STATUS", "LINE", "PHONE", "CUSTOMER", "RESELLER", "NETWORK", "KIND", "FAILURE",
    ];
    Ok(format_rows(&headings, rows, limit))
}

/// Reads pages until more than `limit` records match, or there are no more.
async fn read_pages<T>(
    limit: usize,
    read: impl AsyncFn(Option<Place>) -> Result<Page<T>, StoreError>,
    matches: impl Fn(&T) -> bool,
) -> Result<Vec<T>, CommandError> {
    let mut found = Vec::new();
    let mut from = None;
    loop {
        let page = read(from).await.map_err(table_error)?;
        found.extend(page.rows.into_iter().filter(&matches));
        from = page.next;
        if from.is_none() || found.len() > limit {
            return Ok(found);
        }
    }
}

/// Formats the first `limit` rows. No cell is empty, so that every column keeps its place.
fn format_rows(headings: &[&str], rows: impl ExactSizeIterator<Item = Vec<String>>, limit: usize) -> Listed {
    let has_more = rows.len() > limit;
    let mut table = Table::default();
    table.row(headings);
    for row in rows.take(limit) {
        table.row(&row.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let mut text = String::new();
    table.write_to(&mut text);
    Listed { text, has_more }
}

fn or_dash(value: Option<String>) -> String {
    value.unwrap_or_else(|| "-".to_owned())
}
