//! Swaps in the order in which they were asked, of one line, one customer, one reseller, or all.

use aws_sdk_dynamodb::types::AttributeValue;
use domain::{ActivationId, Status, SubscriptionId};
use jiff::Timestamp;

use crate::item::{self, Item, Row};
use crate::transaction::text;
use crate::{Store, StoreError};

/// Whose swaps.
#[derive(Debug, Clone, Copy)]
pub enum Listing<'a> {
    /// Of a line.
    Line(&'a SubscriptionId),
    /// Of a customer's lines.
    Customer(&'a str),
    /// Of the lines of a reseller's customers.
    Reseller(&'a str),
    /// Everybody's.
    All,
    /// Nobody's: costs what a line's listing costs, and finds nothing.
    Nobody,
}

impl Listing<'_> {
    /// Index, its hash key, and the value there.
    fn index(&self) -> (&'static str, &'static str, &str) {
        match self {
            Self::Line(id) => ("byLine", "line", id.as_str()),
            Self::Customer(id) => ("byCustomer", "customer", id),
            Self::Reseller(id) => ("byReseller", "reseller", id),
            Self::All => ("all", "type", item::SWAPS),
            // No line's name has a space in it.
            Self::Nobody => ("byLine", "line", " "),
        }
    }

    /// Whether its index carries how swaps ended. A line has few swaps, and everybody's are listed by operators alone: for
    /// them a write at each end costs more than it saves.
    fn tells_outcomes(&self) -> bool {
        matches!(self, Self::Customer(_) | Self::Reseller(_))
    }
}

/// Which part of a listing.
#[derive(Debug, Clone, Default)]
pub struct Span {
    /// Asked at or after.
    pub from: Option<Timestamp>,
    /// Asked before.
    pub until: Option<Timestamp>,
    /// Only what comes after this entry's place.
    pub after: Option<String>,
    /// Oldest first, instead of newest first.
    pub oldest_first: bool,
}

/// One swap, as the index carries it: what the filters need, and perhaps a moment old.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The swap.
    pub id: ActivationId,
    /// Its place in the listing.
    pub place: String,
    /// The statuses that it may have, as far as the index tells: which of them it has is in the row.
    pub statuses: &'static [Status],
    /// Its reference number, `""` when absent.
    pub reference: String,
    /// Its customer; in a line's listing alone.
    pub customer: Option<String>,
    /// Its reseller; in a line's listing alone.
    pub reseller: Option<String>,
}

impl Store {
    /// Up to `limit` entries.
    pub async fn list(&self, listing: Listing<'_>, span: &Span, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let (index, hash, value) = listing.index();
        // Text that sorts before and after every time.
        let from = span.from.map_or("-".to_owned(), item::listed_from);
        let until = span.until.map_or("~".to_owned(), item::listed_from);
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
            let wanted = i32::try_from(limit - entries.len()).unwrap_or(i32::MAX);
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
                .limit(wanted)
                .send()
                .await?;
            for row in page.items() {
                entries.push(to_entry(row, listing.tells_outcomes())?);
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
    let mut key = item::activation_key(&id.ok_or(StoreError::Corrupt("place"))?);
    key.insert(hash.to_owned(), AttributeValue::S(value.to_owned()));
    key.insert("listed".to_owned(), AttributeValue::S(place.to_owned()));
    Ok(key)
}

fn to_entry(item: &Item, tells_outcomes: bool) -> Result<Entry, StoreError> {
    const OPEN: &[Status] = &[Status::Init, Status::Busy];
    const ANY: &[Status] = &[Status::Init, Status::Busy, Status::Done, Status::Error];
    let row = Row(item);
    let id = row
        .text("pk")?
        .strip_prefix("A#")
        .and_then(|id| ActivationId::parse(id).ok());
    Ok(Entry {
        id: id.ok_or(StoreError::Corrupt("pk"))?,
        place: row.text("listed")?.to_owned(),
        statuses: match row.maybe_text(item::OUTCOME) {
            Some(done) if done == Status::Done.as_str() => &[Status::Done],
            Some(_) => &[Status::Error],
            None if tells_outcomes => OPEN,
            None => ANY,
        },
        reference: row.maybe_text("reference").unwrap_or_default().to_owned(),
        customer: row.maybe_text("customer").map(str::to_owned),
        reseller: row.maybe_text("reseller").map(str::to_owned),
    })
}
