//! Parses the query parameters as `infra/openapi.yaml` describes them, and matches swaps against them. Not here:
//! reading the swaps (`lib.rs`).

use std::collections::BTreeSet;
use std::str::FromStr;

use domain::{Activation, ActivationId, Malformed, Msisdn, Status, SubscriptionId};
use edge::{ActivationField, ErrorResponse, FieldError, is_ignored_parameter};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use store::Entry;

/// The parsed query parameters.
#[derive(Debug, Default)]
pub(crate) struct Query {
    pub(crate) id: Option<ActivationId>,
    pub(crate) subscription: Option<SubscriptionId>,
    pub(crate) phone: Option<Msisdn>,
    reference: Option<String>,
    status: Option<Status>,
    /// Matches any of these; `None` matches all. With `status`, a swap must match both.
    status_in: Option<Vec<Status>>,
    pub(crate) from: Option<Timestamp>,
    pub(crate) until: Option<Timestamp>,
    pub(crate) take: usize,
    pub(crate) skip: usize,
    pub(crate) oldest_first: bool,
    pub(crate) cursor: Option<String>,
    /// The fields that each result has; `None` for all.
    pub(crate) fields: Option<Vec<ActivationField>>,
    /// Whether the results have their timelines.
    pub(crate) timeline: bool,
}

const DEFAULT_TAKE: usize = 25;
const MAX_TAKE: usize = 100;
const MAX_SKIP: usize = 1000;

/// The names of the parameters. A fault names a parameter in this spelling, whatever its letter case in the request.
const NAMES: [&str; 16] = [
    "id",
    "subscriptionId",
    "phoneNumber",
    "referenceNumber",
    "status",
    "statusIn",
    "activationType",
    "createdAtFrom",
    "createdAtTo",
    "take",
    "skip",
    "orderBy",
    "orderByDesc",
    "cursor",
    "fields",
    "include",
];
/// The parameters that may be repeated, because they are lists.
const LISTS: [&str; 3] = ["statusIn", "fields", "include"];

/// Parses all parameters. All faults are reported in one error.
pub(crate) fn parse<'a>(
    parameters: impl Iterator<Item = (&'a str, &'a str)>,
    zone: &TimeZone,
) -> Result<Query, ErrorResponse> {
    let mut query = Query {
        take: DEFAULT_TAKE,
        ..Query::default()
    };
    let mut faults = Vec::new();
    let mut seen = BTreeSet::new();
    let mut faulty = BTreeSet::new();
    // The parameters come in no fixed order. Sorting them gives the faults a fixed one.
    let mut parameters: Vec<_> = parameters
        .filter(|(name, value)| !is_ignored_parameter(name, value))
        .collect();
    parameters.sort_unstable();
    for (given, value) in parameters {
        let known = NAMES.into_iter().find(|name| name.eq_ignore_ascii_case(given));
        let fault = match known {
            None => Some(FieldError::unknown(given)),
            Some(name) if !seen.insert(name) && !LISTS.contains(&name) => {
                Some(FieldError::invalid(name, "must be given once"))
            }
            Some(name) => {
                let read = query.read(name, value, zone);
                read.err().map(|fault| FieldError::invalid(name, fault.0))
            }
        };
        // A parameter has one fault at most, however often it is given.
        faults.extend(fault.filter(|_| faulty.insert(known.unwrap_or(given).to_ascii_lowercase())));
    }
    if query.cursor.is_some() && query.skip > 0 {
        faults.push(FieldError::invalid("skip", "cannot be given with a cursor"));
    }
    if query.cursor.is_some() && query.id.is_some() {
        faults.push(FieldError::invalid("cursor", "cannot be given with an id"));
    }
    if seen.contains("orderBy") && seen.contains("orderByDesc") {
        faults.push(FieldError::invalid("orderBy", "cannot be given with orderByDesc"));
    }
    if faults.is_empty() {
        Ok(query)
    } else {
        Err(ErrorResponse::invalid(faults))
    }
}

impl Query {
    fn read(&mut self, name: &str, value: &str, zone: &TimeZone) -> Result<(), Malformed> {
        match name {
            "id" => self.id = Some(ActivationId::parse(value)?),
            "subscriptionId" => self.subscription = Some(SubscriptionId::parse(value)?),
            "phoneNumber" => self.phone = Some(phone(value)?),
            "referenceNumber" => self.reference = Some(value.to_owned()),
            "status" => self.status = Some(value.trim().parse()?),
            "statusIn" => add_listed(&mut self.status_in, value)?,
            "activationType" if value.eq_ignore_ascii_case("SIMSWAP") => {}
            "activationType" => return Err(Malformed("must be SIMSWAP")),
            "createdAtFrom" => self.from = Some(midnight(day(value)?, zone)),
            // After the last representable day there is no day to bound the query by.
            "createdAtTo" => {
                self.until = day(value)?.tomorrow().ok().map(|next| midnight(next, zone));
            }
            "take" => {
                const MALFORMED: Malformed = Malformed("must be 1 to 100");
                self.take = number(value, 1, MAX_TAKE).ok_or(MALFORMED)?;
            }
            "skip" => {
                const MALFORMED: Malformed = Malformed("must be 0 to 1000; go further with 'cursor'");
                self.skip = number(value, 0, MAX_SKIP).ok_or(MALFORMED)?;
            }
            "orderBy" if value.eq_ignore_ascii_case("-createdAt") => self.oldest_first = false,
            "orderBy" | "orderByDesc" if !value.eq_ignore_ascii_case("createdAt") => {
                return Err(Malformed("must be createdAt"));
            }
            "orderBy" => self.oldest_first = true,
            "orderByDesc" => self.oldest_first = false,
            "fields" => add_listed(&mut self.fields, value)?,
            "include" => {
                for word in value.split(',').map(str::trim) {
                    match word.to_ascii_lowercase().as_str() {
                        // The total is always included.
                        "total" => {}
                        "timeline" => self.timeline = true,
                        _ => return Err(Malformed("must be total or timeline, or both, separated by commas")),
                    }
                }
            }
            _ => self.cursor = Some(value.to_owned()),
        }
        Ok(())
    }

    /// Whether entries of the listing have to be filtered one by one.
    pub(crate) fn filters_entries(&self) -> bool {
        self.reference.is_some()
            || self.status.is_some()
            || self.status_in.is_some()
            || self.subscription.is_some()
            || self.phone.is_some()
    }

    /// Whether an entry of the listing matches; `None` if only the swap's row can tell. The listing itself selects the
    /// line and the time.
    pub(crate) fn matches_entry(&self, entry: &Entry) -> Option<bool> {
        if !self.matches_reference(&entry.reference) {
            return Some(false);
        }
        let mut matches = entry.statuses.iter().map(|status| self.matches_status(*status));
        let first = matches.next()?;
        matches.all(|other| other == first).then_some(first)
    }

    /// Whether a swap matches.
    pub(crate) fn matches(&self, a: &Activation) -> bool {
        self.matches_status(a.status())
            && self.matches_reference(&a.requested.reference)
            && self
                .subscription
                .as_ref()
                .is_none_or(|subscription| *subscription == a.subscription)
            && self.from.is_none_or(|from| a.created_at >= from)
            && self.until.is_none_or(|until| a.created_at < until)
    }

    fn matches_status(&self, status: Status) -> bool {
        let is_listed = |listed: &Vec<Status>| listed.contains(&status);
        self.status.is_none_or(|requested| requested == status) && self.status_in.as_ref().is_none_or(is_listed)
    }

    fn matches_reference(&self, reference: &str) -> bool {
        self.reference.as_ref().is_none_or(|requested| requested == reference)
    }

    /// The filters and the order in a canonical form, to which a cursor is bound. The size of the page and what its
    /// results include are not part of it.
    pub(crate) fn canonical(&self) -> String {
        let Self {
            subscription,
            phone,
            reference,
            status,
            status_in,
            from,
            until,
            oldest_first,
            ..
        } = self;
        format!("{subscription:?} {phone:?} {reference:?} {status:?} {status_in:?} {from:?} {until:?} {oldest_first}")
    }
}

/// Adds the words of a comma-separated list.
fn add_listed<T: FromStr<Err = Malformed>>(list: &mut Option<Vec<T>>, value: &str) -> Result<(), Malformed> {
    for word in value.split(',') {
        list.get_or_insert_default().push(word.trim().parse()?);
    }
    Ok(())
}

/// Parses a phone number. A `+` that the client did not encode arrives as a space.
fn phone(value: &str) -> Result<Msisdn, Malformed> {
    match value.strip_prefix(' ') {
        Some(rest) if !rest.starts_with(['0', '+']) => Msisdn::parse(&format!("+{rest}")),
        _ => Msisdn::parse(value),
    }
}

const DAY: Malformed = Malformed("must be a day, YYYY-MM-DD");

/// Parses a day in the format `YYYY-MM-DD`.
fn day(value: &str) -> Result<Date, Malformed> {
    let whole = value.len() == "YYYY-MM-DD".len();
    value.parse().ok().filter(|_| whole).ok_or(DAY)
}

/// When the day begins; [`Timestamp::MAX`] if that is beyond the representable time.
fn midnight(day: Date, zone: &TimeZone) -> Timestamp {
    let begins = day.to_zoned(zone.clone());
    begins.map_or(Timestamp::MAX, |begins| begins.timestamp())
}

/// Parses digits to a number from `min` to `max`.
fn number(value: &str, min: usize, max: usize) -> Option<usize> {
    let digits = value.bytes().all(|b| b.is_ascii_digit());
    value
        .parse()
        .ok()
        .filter(|number| digits && (min..=max).contains(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(parameters: &[(&str, &str)]) -> Result<Query, ErrorResponse> {
        let zone = TimeZone::get("Europe/Amsterdam").unwrap();
        parse(parameters.iter().copied(), &zone)
    }

    #[test]
    fn accepts_and_rejects_each_parameter() {
        for (name, value, valid) in [
            ("ID", "01JD", true),
            ("id", "#", false),
            ("SubscriptionID", "abc", true),
            ("subscriptionId", "a b", false),
            ("phoneNumber", " 31612345601", true),
            ("phoneNumber", "06-12345601", true),
            ("phoneNumber", "31612345601", false),
            ("status", "busy", true),
            ("status", "NEW", false),
            ("statusIn", "BUSY, done", true),
            ("statusIn", "BUSY,", false),
            ("activationType", "SIMSWAP", true),
            ("activationType", "PORTIN", false),
            ("createdAtFrom", "2025-02-03", true),
            ("createdAtFrom", "2025-02-30", false),
            ("createdAtTo", "2025-02-03T00:00", false),
            ("createdAtTo", "9999-12-31", true),
            ("createdAtFrom", "9999-12-31", true),
            ("take", "1", true),
            ("take", "100", true),
            ("take", "0", false),
            ("take", "101", false),
            ("take", "+5", false),
            ("skip", "1000", true),
            ("skip", "1001", false),
            ("orderBy", "createdAt", true),
            ("orderByDesc", "createdat", true),
            ("orderBy", "-CreatedAt", true),
            ("orderByDesc", "-createdAt", false),
            ("orderBy", "id", false),
            ("fields", "id, STATUS,info", true),
            ("fields", "", false),
            ("fields", "id,timeline", false),
            ("fields", "colour", false),
            ("format", "json", true),
            ("format", "xml", false),
            ("jsconfig", "eccn,DateHandler:ISO8601", true),
            ("_", "1733000000000", true),
            ("include", "total", true),
            ("Include", "Timeline, TOTAL", true),
            ("include", "", false),
            ("include", "timeline,", false),
            ("include", "info", false),
            ("colour", "red", false),
        ] {
            assert_eq!(parsed(&[(name, value)]).is_ok(), valid, "{name}={value}");
        }
        assert!(parsed(&[("take", "1"), ("TAKE", "2")]).is_err());
        assert!(parsed(&[("skip", "1"), ("cursor", "x")]).is_err());
        assert!(parsed(&[("id", "X"), ("cursor", "x")]).is_err());
        assert!(parsed(&[("status", "DONE"), ("statusIn", "BUSY")]).is_ok());
        assert!(parsed(&[("orderBy", "createdAt"), ("orderByDesc", "createdAt")]).is_err());
    }

    #[test]
    fn include_is_a_list_that_may_be_repeated() {
        let timeline = |parameters: &[(&str, &str)]| parsed(parameters).unwrap().timeline;
        assert!(!timeline(&[]));
        assert!(!timeline(&[("include", "total")]));
        assert!(timeline(&[("include", "TimeLine")]));
        assert!(timeline(&[("include", "total, timeline")]));
        assert!(timeline(&[("include", "timeline"), ("include", "total")]));
        assert!(timeline(&[("INCLUDE", "total"), ("include", "timeline")]));
        let faulty = parsed(&[("include", "a"), ("include", "b"), ("Include", "timeline")]).unwrap_err();
        let response = faulty.into_response();
        let body = String::from_utf8(response.body().to_vec()).unwrap();
        assert_eq!(body.matches(r#""fieldName":"include""#).count(), 1, "{body}");
        let with = parsed(&[("include", "timeline")]).unwrap();
        assert_eq!(with.canonical(), parsed(&[]).unwrap().canonical());
    }

    #[test]
    fn a_list_of_statuses_may_be_repeated() {
        let status_in = |parameters: &[(&str, &str)]| parsed(parameters).unwrap().status_in.unwrap();
        let both = [Status::Busy, Status::Done];
        assert_eq!(status_in(&[("statusIn", "BUSY,done")]), both);
        assert_eq!(status_in(&[("statusIn", "BUSY"), ("STATUSIN", "DONE")]).len(), 2);
    }

    #[test]
    fn a_parameter_has_one_fault_however_often_it_is_given() {
        for (name, value) in [
            ("take", "1"),
            ("take", "x"),
            ("colour", "red"),
            ("include", "x"),
            ("statusIn", "x"),
        ] {
            let faulty = parsed(&[(name, value); 400]).unwrap_err().into_response();
            let body = String::from_utf8(faulty.body().to_vec()).unwrap();
            assert_eq!(body.matches("fieldName").count(), 1, "{body}");
        }
    }

    #[test]
    fn days_are_whole_days_in_the_time_zone() {
        let query = parsed(&[("createdAtFrom", "2025-03-30"), ("createdAtTo", "2025-03-30")]).unwrap();
        assert_eq!(query.from.unwrap().to_string(), "2025-03-29T23:00:00Z");
        assert_eq!(query.until.unwrap().to_string(), "2025-03-30T22:00:00Z");
    }
}
