//! Single attributes of a row: how each type of value is read and built. Which attributes a row has is in `rows`.

use std::collections::HashMap;
use std::str::FromStr;

use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_dynamodb::types::AttributeValue::{B, L, N, S};
use domain::TimelineEntry;
use jiff::Timestamp;

use crate::form::{self, Form};
use crate::{Sealed, StoreError};

/// A row, or the key of one.
pub(crate) type Item = HashMap<String, AttributeValue>;

/// Reads the attributes of a row. An error names the attribute that is missing or malformed.
pub(crate) struct Row<'a>(pub(crate) &'a Item);

impl<'a> Row<'a> {
    /// The row, if this release can read its form.
    pub(crate) fn read(item: &'a Item) -> Result<Self, StoreError> {
        form::check(item)?;
        Ok(Self(item))
    }

    pub(crate) fn text(&self, name: &'static str) -> Result<&'a str, StoreError> {
        self.maybe_text(name).ok_or(StoreError::Corrupt(name))
    }

    pub(crate) fn maybe_text(&self, name: &str) -> Option<&'a str> {
        self.0.get(name)?.as_s().ok().map(String::as_str)
    }

    pub(crate) fn maybe_string(&self, name: &str) -> Option<String> {
        self.maybe_text(name).map(str::to_owned)
    }

    /// A boolean; `false` where it is absent.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.maybe_flag(name).unwrap_or(false)
    }

    pub(crate) fn maybe_flag(&self, name: &str) -> Option<bool> {
        self.0.get(name)?.as_bool().ok().copied()
    }

    pub(crate) fn number<T: FromStr>(&self, name: &'static str) -> Result<T, StoreError> {
        self.maybe_number(name).ok_or(StoreError::Corrupt(name))
    }

    pub(crate) fn maybe_number<T: FromStr>(&self, name: &str) -> Option<T> {
        self.0.get(name)?.as_n().ok()?.parse().ok()
    }

    pub(crate) fn bytes(&self, name: &'static str) -> Result<Vec<u8>, StoreError> {
        self.sealed(name)
            .map(|sealed| sealed.0)
            .ok_or(StoreError::Corrupt(name))
    }

    pub(crate) fn sealed(&self, name: &str) -> Option<Sealed> {
        let bytes = self.0.get(name)?.as_b().ok()?;
        Some(Sealed(bytes.as_ref().to_vec()))
    }

    pub(crate) fn time(&self, name: &'static str) -> Result<Timestamp, StoreError> {
        self.maybe_time(name).ok_or(StoreError::Corrupt(name))
    }

    pub(crate) fn maybe_time(&self, name: &str) -> Option<Timestamp> {
        Timestamp::from_millisecond(self.maybe_number(name)?).ok()
    }

    /// A list of times; empty where it is absent.
    pub(crate) fn times(&self, name: &'static str) -> Result<Vec<Timestamp>, StoreError> {
        let time = |value: &AttributeValue| Timestamp::from_millisecond(value.as_n().ok()?.parse().ok()?).ok();
        self.list(name, time)
    }

    /// A list of texts that `parse` accepts; empty where it is absent.
    pub(crate) fn parsed_list<T>(
        &self,
        name: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Vec<T>, StoreError> {
        self.list(name, |value| parse(value.as_s().ok()?))
    }

    fn list<T>(&self, name: &'static str, read: impl Fn(&AttributeValue) -> Option<T>) -> Result<Vec<T>, StoreError> {
        let list = self.0.get(name).and_then(|value| value.as_l().ok());
        let elements = list.into_iter().flatten();
        elements
            .map(|element| read(element).ok_or(StoreError::Corrupt(name)))
            .collect()
    }

    pub(crate) fn parsed<T, E>(
        &self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Result<T, StoreError> {
        parse(self.text(name)?).map_err(|_| StoreError::Corrupt(name))
    }

    pub(crate) fn maybe_parsed<T, E>(
        &self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Result<Option<T>, StoreError> {
        self.maybe_text(name)
            .map(|text| parse(text).map_err(|_| StoreError::Corrupt(name)))
            .transpose()
    }

    /// Parses the part of the hash key that follows `prefix`.
    pub(crate) fn parsed_pk<T, E>(&self, prefix: &str, parse: impl Fn(&str) -> Result<T, E>) -> Result<T, StoreError> {
        self.text("pk")?
            .strip_prefix(prefix)
            .and_then(|name| parse(name).ok())
            .ok_or(StoreError::Corrupt("pk"))
    }

    /// The timeline, whose times count from `createdAt`.
    pub(crate) fn timeline(&self) -> Result<Vec<TimelineEntry>, StoreError> {
        const CORRUPT: StoreError = StoreError::Corrupt("timeline");
        let list = self.0.get("timeline").and_then(|v| v.as_l().ok()).ok_or(CORRUPT)?;
        let created_at = self.time("createdAt")?;
        let entries = list.iter().map(|entry| {
            let text = entry.as_s().map_err(|_| CORRUPT)?;
            parse_timeline_entry(created_at, text).ok_or(CORRUPT)
        });
        let entries = entries.collect::<Result<Vec<_>, _>>()?;
        Ok(match self.0.contains_key(form::ATTRIBUTE) {
            true => entries,
            false => form::with_counts(entries),
        })
    }
}

/// Builds a row. A value of `None` adds no attribute.
pub(crate) struct RowBuilder(pub(crate) Item);

impl RowBuilder {
    /// A row of the newest form with this key.
    pub(crate) fn new(key: Item) -> Self {
        Self(key).number(form::ATTRIBUTE, form::NEWEST)
    }

    pub(crate) fn put(mut self, name: &str, value: AttributeValue) -> Self {
        self.0.insert(name.to_owned(), value);
        self
    }

    pub(crate) fn text(self, name: &str, text: impl Into<String>) -> Self {
        self.put(name, S(text.into()))
    }

    pub(crate) fn maybe_text(self, name: &str, text: Option<&str>) -> Self {
        match text {
            Some(text) => self.text(name, text),
            None => self,
        }
    }

    pub(crate) fn number(self, name: &str, value: impl ToString) -> Self {
        self.put(name, number(value))
    }

    /// A counter. Zero adds no attribute.
    pub(crate) fn count(self, name: &str, count: u32) -> Self {
        match count {
            0 => self,
            _ => self.number(name, count),
        }
    }

    pub(crate) fn time(self, name: &str, at: Timestamp) -> Self {
        self.put(name, millis(at))
    }

    pub(crate) fn maybe_time(self, name: &str, at: Option<Timestamp>) -> Self {
        match at {
            Some(at) => self.time(name, at),
            None => self,
        }
    }

    /// The timeline, one text for each entry. Times are in milliseconds since `created_at`. An entry that occurred
    /// several times has its first time, the milliseconds from the first to the last time, and how often it occurred:
    /// `5230 smdp: installed`, `5230+60000x3 network: 503`.
    pub(crate) fn timeline(self, form: Form, created_at: Timestamp, timeline: &[TimelineEntry]) -> Self {
        let between = |from: Timestamp, to: Timestamp| to.as_millisecond() - from.as_millisecond();
        let entries = match form {
            Form::Earlier => form::without_counts(timeline)
                .map(|entry| S(format!("{} {}", entry.at.as_millisecond(), entry.what)))
                .collect(),
            Form::One => timeline
                .iter()
                .map(|entry| {
                    let at = between(created_at, entry.at);
                    S(match entry.count {
                        1 => format!("{at} {}", entry.what),
                        count => {
                            let last = between(entry.at, entry.last);
                            format!("{at}+{last}x{count} {}", entry.what)
                        }
                    })
                })
                .collect(),
        };
        self.put("timeline", L(entries))
    }

    pub(crate) fn maybe_sealed(self, name: &str, sealed: Option<&Sealed>) -> Self {
        match sealed {
            Some(sealed) => self.put(name, B(sealed.0.clone().into())),
            None => self,
        }
    }
}

pub(crate) fn text(text: impl Into<String>) -> AttributeValue {
    S(text.into())
}

pub(crate) fn number(number: impl ToString) -> AttributeValue {
    N(number.to_string())
}

/// A time in milliseconds since 1970.
pub(crate) fn millis(at: Timestamp) -> AttributeValue {
    number(at.as_millisecond())
}

/// A time as text that sorts by time, for the range key of an index.
pub(crate) fn sortable(at: Timestamp) -> String {
    format!("{:014}", at.as_millisecond().max(0))
}

/// Reads what [`sortable`] wrote.
pub(crate) fn from_sortable(text: &str) -> Result<Timestamp, StoreError> {
    let millis = text.parse().ok();
    millis
        .and_then(|millis| Timestamp::from_millisecond(millis).ok())
        .ok_or(StoreError::Corrupt("time"))
}

fn parse_timeline_entry(created_at: Timestamp, text: &str) -> Option<TimelineEntry> {
    // A larger number is a time since 1970, as the earlier form has it.
    const THREE_YEARS: i64 = 100_000_000_000;
    let after = |from: Timestamp, millis: &str| {
        let millis: i64 = millis.parse().ok()?;
        let base = if millis < THREE_YEARS { from.as_millisecond() } else { 0 };
        Timestamp::from_millisecond(base.checked_add(millis)?).ok()
    };
    let (times, what) = text.split_once(' ')?;
    let Some((first, repeats)) = times.split_once('+') else {
        return Some(TimelineEntry::new(after(created_at, times)?, what));
    };
    let at = after(created_at, first)?;
    let (last, count) = repeats.split_once('x')?;
    Some(TimelineEntry {
        count: count.parse().ok()?,
        last: after(at, last)?,
        ..TimelineEntry::new(at, what)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_timeline_entries_are_rejected() {
        let created_at = "2026-11-22T14:05:10.707Z".parse().unwrap();
        for text in ["", "5", "x what", "5+ what", "5+6 what", "5+6xy what", "+6x2 what"] {
            assert_eq!(parse_timeline_entry(created_at, text), None, "{text:?}");
        }
    }
}
