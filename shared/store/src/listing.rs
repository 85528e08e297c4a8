//! Listings of swaps, sorted by the time of their requests: those of one line, customer or reseller, or all. The swaps
//! themselves are read in `read`.

use domain::{ActivationId, Status, SubscriptionId};
use jiff::Timestamp;

use crate::attributes::{Item, Row, text};
use crate::{Store, StoreError, keys, rows};

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
    /// The index, the name of its hash key, and the value of the hash key.
    fn index(&self) -> (&'static str, &'static str, &str) {
        match self {
            Self::Line(id) => ("byLine", "line", id.as_str()),
            Self::Customer(id) => ("byCustomer", "customer", id),
            Self::Reseller(id) => ("byReseller", "reseller", id),
            Self::All => ("all", "type", keys::SWAPS),
            // The id of a line contains no spaces.
            Self::Nobody => ("byLine", "line", " "),
        }
    }

    /// Whether the index contains how swaps ended. A line has few swaps, and only operators list all swaps: in these
    /// indexes, a write at the end of each swap costs more than it saves.
    fn has_outcomes(&self) -> bool {
        matches!(self, Self::Customer(_) | Self::Reseller(_))
    }
}

/// Which part of a listing to read.
#[derive(Debug, Clone, Default)]
pub struct Span {
    /// Only swaps requested at this time or later.
    pub from: Option<Timestamp>,
    /// Only swaps requested before this time.
    pub until: Option<Timestamp>,
    /// Only swaps that follow the entry with this place, in the order of the listing.
    pub after: Option<String>,
    /// Oldest first, instead of newest first.
    pub oldest_first: bool,
}

/// A swap as an index contains it: what the filters need. The index may lag.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The swap's id.
    pub id: ActivationId,
    /// The swap's place in the listing, for [`Span::after`].
    pub place: String,
    /// The statuses that the swap may have, judging by the index. Which of them it has is in the row.
    pub statuses: &'static [Status],
    /// The reference number; `""` if the request had none.
    pub reference: String,
    /// The customer; only in the listing of a line.
    pub customer: Option<String>,
    /// The reseller; only in the listing of a line.
    pub reseller: Option<String>,
}

impl Store {
    /// Reads up to `limit` entries.
    pub async fn list(&self, listing: Listing<'_>, span: &Span, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let (index, hash, value) = listing.index();
        // "-" sorts before every time, "~" after every time.
        let from = span.from.map_or("-".to_owned(), keys::listed_from);
        let until = span.until.map_or("~".to_owned(), keys::listed_from);
        if from > until {
            return Ok(Vec::new());
        }
        let mut start = span
            .after
            .as_ref()
            .map(|place| start_key(hash, value, place))
            .transpose()?;
        let mut entries = Vec::new();
        while entries.len() < limit {
            let page_size = i32::try_from(limit - entries.len()).unwrap_or(i32::MAX);
            let page = self
                .dynamodb
                .query()
                .table_name(&self.table)
                .index_name(index)
                .key_condition_expression("#hash = :hash AND listed BETWEEN :from AND :until")
                .expression_attribute_names("#hash", hash)
                .expression_attribute_values(":hash", text(value))
                .expression_attribute_values(":from", text(&from))
                .expression_attribute_values(":until", text(&until))
                .scan_index_forward(span.oldest_first)
                .set_exclusive_start_key(start)
                .limit(page_size)
                .send()
                .await?;
            for row in page.items() {
                entries.push(to_entry(row, listing.has_outcomes())?);
            }
            start = page.last_evaluated_key;
            if start.is_none() {
                break;
            }
        }
        Ok(entries)
    }
}

fn start_key(hash: &str, value: &str, place: &str) -> Result<Item, StoreError> {
    let id = place.rsplit_once('#').and_then(|(_, id)| ActivationId::parse(id).ok());
    let mut key = keys::activation_key(&id.ok_or(StoreError::Corrupt("place"))?);
    key.insert(hash.to_owned(), text(value));
    key.insert("listed".to_owned(), text(place));
    Ok(key)
}

fn to_entry(item: &Item, has_outcomes: bool) -> Result<Entry, StoreError> {
    const OPEN: &[Status] = &[Status::Init, Status::Busy];
    const ANY: &[Status] = &[Status::Init, Status::Busy, Status::Done, Status::Error];
    let row = Row(item);
    Ok(Entry {
        id: row.parsed_pk("A#", ActivationId::parse)?,
        place: row.text("listed")?.to_owned(),
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
