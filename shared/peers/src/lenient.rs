//! Reads the JSON of peers that deviate from the standard. An optional field that is `null` or cannot be read counts as
//! absent, so that it does not hide the rest of the body.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Reads the JSON body of a peer. A leading byte order mark is dropped. If a field occurs twice, the last one counts.
///
/// # Errors
/// When the body is not JSON or not a `T`.
pub fn read_json<T: DeserializeOwned>(body: &[u8]) -> serde_json::Result<T> {
    let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    serde_json::from_value(serde_json::from_slice(body)?)
}

/// The value as a text, if it is a text or a number.
pub(crate) fn as_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// The value as a text, if it is a number or a text that is not blank.
pub(crate) fn as_id(value: &Value) -> Option<String> {
    as_text(value).filter(|text| !text.trim().is_empty())
}

/// The value as a date and time, if it is unambiguous: RFC 3339, possibly without an offset (then it is UTC) or with a
/// space instead of the `T`; or the seconds or milliseconds since 1970, as a number or as digits. A date before 1971
/// counts as absent, because programs without a date write such values.
pub(crate) fn as_date(value: &Value) -> Option<Timestamp> {
    let date = match value {
        Value::Number(number) => since_1970(number.as_f64()?),
        Value::String(text) => {
            let text = text.trim();
            match text.parse::<f64>() {
                Ok(number) => since_1970(number),
                Err(_) => text.parse().ok().or_else(|| without_offset(text)),
            }
        }
        _ => None,
    };
    date.filter(|date| date.as_second() >= 365 * 24 * 60 * 60)
}

/// Numbers above 10^11 are milliseconds: as seconds, they would be after the year 5000.
fn since_1970(number: f64) -> Option<Timestamp> {
    let milliseconds = if number > 1e11 { number } else { number * 1000.0 };
    Timestamp::from_millisecond(milliseconds.round() as i64).ok()
}

/// Reads a date with a time and nothing else: neither a day alone nor the name of a time zone.
fn without_offset(text: &str) -> Option<Timestamp> {
    let plain = text.contains(':') && !text.contains('[');
    let date: DateTime = plain.then(|| text.parse().ok()).flatten()?;
    TimeZone::UTC.to_timestamp(date).ok()
}

/// The ASCII letters of a word in lower case, so that `IN_PROGRESS`, `in progress` and `inProgress` are equal.
pub(crate) fn letters(word: &str) -> String {
    let letters = word.chars().filter(char::is_ascii_alphabetic);
    letters.map(|letter| letter.to_ascii_lowercase()).collect()
}

/// For a required text.
pub(crate) fn text<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let value = Value::deserialize(from)?;
    as_text(&value).ok_or_else(|| D::Error::custom("expected a text"))
}

/// For a text that is empty if absent.
pub(crate) fn text_or_empty<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    Ok(maybe_text(from)?.unwrap_or_default())
}

/// For an optional text.
pub(crate) fn maybe_text<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Ok(as_text(&Value::deserialize(from)?))
}

/// For an optional date.
pub(crate) fn maybe_date<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Timestamp>, D::Error> {
    Ok(as_date(&Value::deserialize(from)?))
}

/// For an optional value of any type.
pub(crate) fn maybe<'de, D, T>(from: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    Ok(serde_json::from_value(Value::deserialize(from)?).ok())
}

/// For a value that has its default if absent.
pub(crate) fn or_default<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned + Default,
{
    Ok(maybe(from)?.unwrap_or_default())
}

/// For a list. Entries that cannot be read are left out, and a single object counts as a list of one entry.
pub(crate) fn list<'de, D, T>(from: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    let entries = match Value::deserialize(from)? {
        Value::Array(entries) => entries,
        alone @ Value::Object(_) => vec![alone],
        _ => Vec::new(),
    };
    let read = entries.into_iter().map(serde_json::from_value);
    Ok(read.filter_map(Result::ok).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn unambiguous_dates_are_read() {
        const DATE: &str = "2026-11-22T14:05:10Z";
        for (value, expected) in [
            (json!("2026-11-22T14:05:10Z"), Some(DATE)),
            (json!("2026-11-22t14:05:10z"), Some(DATE)),
            (json!(" 2026-11-22 14:05:10Z "), Some(DATE)),
            (json!("2026-11-22T15:05:10+01:00"), Some(DATE)),
            (json!("2026-11-22T15:05:10+0100"), Some(DATE)),
            (json!("2026-11-22T14:05:10"), Some(DATE)),
            (json!("2026-11-22 14:05:10"), Some(DATE)),
            (json!("2026-11-22 14:05:10.123456"), Some("2026-11-22T14:05:10.123456Z")),
            (json!(1_795_356_310), Some(DATE)),
            (json!("1795356310"), Some(DATE)),
            (json!(1_795_356_310_000_i64), Some(DATE)),
            (json!("1795356310000"), Some(DATE)),
            (json!(1_795_356_310.5), Some("2026-11-22T14:05:10.5Z")),
            (json!(1_795_356_310_500.0), Some("2026-11-22T14:05:10.5Z")),
            (json!("2026-11-22"), None),
            (json!("22-11-2026 14:05:10"), None),
            (json!("22 November"), None),
            (json!("2026-11-22T14:05:10 CET"), None),
            (json!("2026-11-22T14:05:10[Europe/Amsterdam]"), None),
            (json!("2026-13-22T14:05:10Z"), None),
            (json!("0001-01-01T00:00:00Z"), None),
            (json!("1970-01-01T00:00:00Z"), None),
            (json!(0), None),
            (json!(-1_795_356_310), None),
            (json!(1_795_356_310_000_000_i64), None),
            (json!(i64::MAX), None),
            (json!("NaN"), None),
            (json!("inf"), None),
            (json!(""), None),
            (json!(null), None),
            (json!({"seconds": 1_795_356_310}), None),
        ] {
            let expected = expected.map(|date| date.parse::<Timestamp>().unwrap());
            assert_eq!(as_date(&value), expected, "{value}");
        }
    }

    #[test]
    fn a_byte_order_mark_and_repeated_fields_are_accepted() {
        for (body, expected) in [
            ("7", Some(json!(7))),
            ("\u{feff}7", Some(json!(7))),
            (r#"{"a":1,"a":2}"#, Some(json!({"a": 2}))),
            ("\u{feff}\u{feff}7", None),
            ("", None),
            ("<html>", None),
        ] {
            assert_eq!(read_json(body.as_bytes()).ok(), expected, "{body}");
        }
    }
}
