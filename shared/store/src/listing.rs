//! Listings of swaps, sorted by the time of their requests: those of one line, customer or reseller, or all. The swaps
//! themselves are read in `read`.

use std::collections::VecDeque;

use domain::{ActivationId, Status, SubscriptionId};
use futures_util::future::try_join_all;
use jiff::Timestamp;

use crate::attributes::{Item, Row, text};
use crate::keys::{self, Shard};
use crate::{Store, StoreError, rows};

/// Which swaps to list.
#[derive(Debug, Clone, Copy)]
pub enum Listing<'a> {
    /// The swaps of a line.
    Line(&'a SubscriptionId),
    /// The swaps of a customer's lines.
    Customer(&'a str),
    /// The swaps of the lines of a reseller's customers.
    Reseller(&'a str),
    /// All swaps.
    All,
    /// No swaps, at the cost of a line's listing: a caller cannot tell it from the listing of a line without swaps.
    Nobody,
}

impl Listing<'_> {
    /// The index and the name of its hash key.
    fn index(&self) -> (&'static str, &'static str) {
        match self {
            Self::Line(_) | Self::Nobody => ("byLine1", "line"),
            Self::Customer(_) => ("byCustomer1", "customer"),
            Self::Reseller(_) => ("byReseller1", keys::RESELLER_SHARD),
            Self::All => ("all1", keys::SHARD),
        }
    }

    /// The values of the hash key, one for each shard.
    fn hash_values(&self) -> Vec<String> {
        match self {
            Self::Line(id) => vec![id.to_string()],
            Self::Customer(id) => vec![(*id).to_owned()],
            Self::Reseller(id) => Shard::all().map(|shard| shard.reseller_key(id)).collect(),
            Self::All => Shard::all().map(Shard::key).collect(),
            // The id of a line contains no spaces.
            Self::Nobody => vec![" ".to_owned()],
        }
    }

    /// Whether the index contains how swaps ended. A line and most customers have few swaps, and only operators list all
    /// swaps: in these indexes, a write at the end of each swap costs more than it saves.
    fn has_outcomes(&self) -> bool {
        matches!(self, Self::Reseller(_))
    }
}

/// Which part of a listing to read.
#[derive(Debug, Clone, Default)]
pub struct Span {
    /// Only swaps requested at this time or later.
    pub from: Option<Timestamp>,
    /// Only swaps requested before this time.
    pub until: Option<Timestamp>,
    /// Only swaps that follow this one, in the order of the listing.
    pub after: Option<ActivationId>,
    /// Oldest first, instead of newest first.
    pub oldest_first: bool,
}

/// A swap as an index contains it: what the filters need. The index may lag.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The swap's id.
    pub id: ActivationId,
    /// The statuses that the swap may have, judging by the index. Which of them it has is in the row.
    pub statuses: &'static [Status],
    /// The reference number; `""` if the request had none.
    pub reference: String,
    /// The customer; only in the listing of a line.
    pub customer: Option<String>,
    /// The reseller; only in the listing of a line.
    pub reseller: Option<String>,
}

/// The entries of one shard of a listing, which are read page by page.
struct ShardEntries {
    /// The value of the index's hash key.
    value: String,
    /// The entries that have been read and not yet taken, in the order of the listing.
    read: VecDeque<Entry>,
    /// Where the next page begins.
    start: Option<Item>,
    is_read_to_end: bool,
}

impl ShardEntries {
    fn next_id(&self) -> Option<&ActivationId> {
        self.read.front().map(|entry| &entry.id)
    }
}

impl Store {
    /// Reads up to `limit` entries, by the time of the requests. The shards of a listing are read side by side, each in
    /// pages of its share of `limit`.
    pub async fn list(&self, listing: Listing<'_>, span: &Span, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let bounds = span.bounds();
        if bounds.0 > bounds.1 {
            return Ok(Vec::new());
        }
        let values = listing.hash_values();
        let page_size = match values.len() {
            // `BETWEEN` includes the swap that the span begins after.
            1 => limit + usize::from(span.after.is_some()),
            // The shards are not exactly equal.
            shards => limit / shards + limit / shards / 4 + 8,
        };
        let new = |value| ShardEntries {
            value,
            read: VecDeque::new(),
            start: None,
            is_read_to_end: false,
        };
        let mut shards: Vec<_> = values.into_iter().map(new).collect();
        let mut entries: Vec<Entry> = Vec::new();
        while entries.len() < limit {
            let is_used_up = |shard: &&mut ShardEntries| shard.read.is_empty() && !shard.is_read_to_end;
            let mut used_up: Vec<_> = shards.iter_mut().filter(is_used_up).collect();
            for shards in used_up.chunks_mut(Shard::AT_ONCE) {
                let pages = shards
                    .iter_mut()
                    .map(|shard| self.read_page(listing, span, &bounds, page_size, shard));
                try_join_all(pages).await?;
            }
            let heads = shards.iter_mut().filter(|shard| !shard.read.is_empty());
            let next = match span.oldest_first {
                true => heads.min_by(|a, b| a.next_id().cmp(&b.next_id())),
                false => heads.max_by(|a, b| a.next_id().cmp(&b.next_id())),
            };
            let Some(shard) = next else { break };
            entries.extend(shard.read.pop_front());
        }
        Ok(entries)
    }

    /// Reads the next page of a shard, and more if a page has no entries of the span.
    async fn read_page(
        &self,
        listing: Listing<'_>,
        span: &Span,
        (from, until): &(String, String),
        page_size: usize,
        shard: &mut ShardEntries,
    ) -> Result<(), StoreError> {
        let (index, hash) = listing.index();
        while shard.read.is_empty() && !shard.is_read_to_end {
            let page = self
                .dynamodb
                .query()
                .table_name(&self.table)
                .index_name(index)
                .key_condition_expression("#hash = :hash AND swapId BETWEEN :from AND :until")
                .expression_attribute_names("#hash", hash)
                .expression_attribute_values(":hash", text(&shard.value))
                .expression_attribute_values(":from", text(from))
                .expression_attribute_values(":until", text(until))
                .scan_index_forward(span.oldest_first)
                .set_exclusive_start_key(shard.start.take())
                .limit(i32::try_from(page_size).unwrap_or(i32::MAX))
                .send()
                .await?;
            for row in page.items() {
                let entry = to_entry(row, listing.has_outcomes())?;
                if span.after.as_ref() != Some(&entry.id) {
                    shard.read.push_back(entry);
                }
            }
            shard.start = page.last_evaluated_key;
            shard.is_read_to_end = shard.start.is_none();
        }
        Ok(())
    }
}

impl Span {
    /// The bounds of the ids. A place in a listing is a bound in every shard.
    fn bounds(&self) -> (String, String) {
        // "-" sorts before every id, "~" after every id.
        let mut from = self.from.map_or("-".to_owned(), keys::first_id_at);
        let mut until = self.until.map_or("~".to_owned(), keys::first_id_at);
        match &self.after {
            Some(after) if self.oldest_first => from = from.max(after.to_string()),
            Some(after) => until = until.min(after.to_string()),
            None => {}
        }
        (from, until)
    }
}

fn to_entry(item: &Item, has_outcomes: bool) -> Result<Entry, StoreError> {
    const OPEN: &[Status] = &[Status::Init, Status::Busy];
    const ANY: &[Status] = &[Status::Init, Status::Busy, Status::Done, Status::Error];
    let row = Row(item);
    Ok(Entry {
        id: row.parsed_pk("A#", ActivationId::parse)?,
        statuses: match row.maybe_text(rows::OUTCOME) {
            Some(outcome) if outcome == Status::Done.as_str() => &[Status::Done],
            Some(_) => &[Status::Error],
            None if has_outcomes => OPEN,
            None => ANY,
        },
        reference: row.maybe_string("reference").unwrap_or_default(),
        customer: row.maybe_string("customer"),
        reseller: row.maybe_string("reseller"),
    })
}
