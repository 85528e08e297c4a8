//! The form of the rows. Each row has its form in the attribute `v`, and one row says which form the table has. A release
//! reads the form before its own, and writes that one until it has a [`SealingKey`](crate::SealingKey). How the earlier
//! form differs is in this module; `migrate` replaces it.

use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use domain::{Activation, ConfirmationCode, TimelineEntry};
use serde_json::{Value, json};

use crate::attributes::{Item, Row, RowBuilder, number};
use crate::{Store, StoreError, keys};

/// Attribute with the number of a row's form. Rows of the earlier form lack it.
pub(crate) const ATTRIBUTE: &str = "v";

/// Attribute of the row that records the form of the table. Present while rows of the earlier form may remain.
pub(crate) const UNFINISHED: &str = "unfinished";

/// The newest form that this release reads.
pub(crate) const NEWEST: u32 = 1;

/// A form in which this release writes swaps and mails. Other rows have the same form, but for a line's caller digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// The form of the first release, which had no numbers: other indexes, and a timeline whose entries have their times
    /// since 1970 and do not count repeats.
    Earlier,
    /// Form 1.
    One,
}

/// Attribute `type` of swaps and mails of the earlier form, which was the hash key of the indexes `all` and `due`.
pub(crate) const TYPE: &str = "type";
pub(crate) const SWAP_TYPE: &str = "SIMSWAP";
pub(crate) const MAIL_TYPE: &str = "MAIL";

/// Attribute `listed` of swaps of the earlier form, which was the range key of the listings.
pub(crate) const LISTED: &str = "listed";

/// The value of [`LISTED`].
pub(crate) fn listed(swap: &Activation) -> String {
    format!("{:.3}#{}", swap.created_at, swap.id)
}

/// Replaces each counted entry by one entry for each occurrence: the first with the time of the first occurrence, all
/// others with the time of the last.
pub(crate) fn without_counts(timeline: &[TimelineEntry]) -> impl Iterator<Item = TimelineEntry> {
    timeline.iter().flat_map(|entry| {
        let times = (0..entry.count).map(|repeat| if repeat == 0 { entry.at } else { entry.last });
        times.map(|at| TimelineEntry::new(at, entry.what.clone()))
    })
}

/// Merges consecutive equal entries of the earlier form into one entry with a count.
pub(crate) fn with_counts(entries: Vec<TimelineEntry>) -> Vec<TimelineEntry> {
    let mut counted: Vec<TimelineEntry> = Vec::with_capacity(entries.len());
    for entry in entries {
        match counted.last_mut() {
            Some(last) if last.what == entry.what => {
                last.count += entry.count;
                last.last = entry.last;
            }
            _ => counted.push(entry),
        }
    }
    counted
}

/// An update of a row with this expression, in which `#v = :v` gives the row the newest form.
pub(crate) fn set(row: UpdateItemFluentBuilder, expression: &str) -> UpdateItemFluentBuilder {
    row.update_expression(expression)
        .expression_attribute_names("#v", ATTRIBUTE)
        .expression_attribute_values(":v", number(NEWEST))
}

/// The text of a request that the earlier form signs. A request for a swap is a JSON array with a place for the
/// confirmation code.
pub(crate) fn with_code(request: &str, code: &ConfirmationCode) -> String {
    const PLACE: usize = 4;
    let mut fields: Vec<Value> = serde_json::from_str(request).unwrap_or_default();
    match fields.get_mut(PLACE) {
        Some(place) => {
            *place = json!(code.expose());
            json!(fields).to_string()
        }
        None => format!("{request}\n{}", code.expose()),
    }
}

/// Checks that this release can read the row.
pub(crate) fn check(row: &Item) -> Result<(), StoreError> {
    match Row(row).maybe_number(ATTRIBUTE) {
        Some(form) if form > NEWEST => Err(StoreError::NewerForm(form)),
        _ => Ok(()),
    }
}

impl Store {
    /// The form in which swaps and mails are written. A later form needs the public key.
    pub(crate) fn form(&self) -> Form {
        match self.keyring.has_sealing_key() {
            true => Form::One,
            false => Form::Earlier,
        }
    }

    /// Checks that the table can be read, and that this release can read its rows. One call.
    ///
    /// # Errors
    /// `StoreError::NewerForm` if a later release has migrated the table.
    pub async fn check_form(&self) -> Result<(), StoreError> {
        let row = self.form_row().await?;
        row.as_ref().map_or(Ok(()), check)
    }

    /// The row that says which form the table has.
    pub(crate) async fn form_row(&self) -> Result<Option<Item>, StoreError> {
        let key = Some(keys::form_key());
        let read = self.dynamodb.get_item().table_name(&self.table).set_key(key);
        Ok(read.send().await?.item)
    }

    /// Checks that this store does not write the earlier form into a table that has form 1. One call.
    ///
    /// # Errors
    /// `StoreError::NoSealingKey` if it does.
    pub async fn check_written_form(&self) -> Result<(), StoreError> {
        match (self.form(), self.form_row().await?) {
            (Form::Earlier, Some(row)) if !row.contains_key(UNFINISHED) => Err(StoreError::NoSealingKey),
            _ => Ok(()),
        }
    }

    /// Records that a new table has the newest form. Changes nothing in a table that has data keys, indexes of the first
    /// release, or a record already. At most four calls.
    pub async fn record_form_of_new_table(&self) -> Result<(), StoreError> {
        if self.form_row().await?.is_some() || self.keyring.has_data_keys().await? || self.has_old_indexes().await? {
            return Ok(());
        }
        let row = RowBuilder::new(keys::form_key()).0;
        let put = self.dynamodb.put_item().table_name(&self.table).set_item(Some(row));
        match put.condition_expression("attribute_not_exists(pk)").send().await {
            Ok(_) => Ok(()),
            Err(error) => match error.as_service_error() {
                Some(PutItemError::ConditionalCheckFailedException(_)) => Ok(()),
                _ => Err(error.into()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earlier_form_counts_no_repeats() {
        let at = |seconds| jiff::Timestamp::from_second(seconds).unwrap();
        let failed = TimelineEntry {
            count: 3,
            last: at(9),
            ..TimelineEntry::new(at(5), "network: 503")
        };
        let timeline = [failed, TimelineEntry::new(at(10), "ordered")];
        let written: Vec<_> = without_counts(&timeline).collect();
        let times: Vec<_> = written.iter().map(|entry| entry.at.as_second()).collect();
        assert_eq!(times, [5, 9, 9, 10]);
        assert_eq!(with_counts(written), timeline);
    }

    #[test]
    fn a_confirmation_code_has_its_place_in_the_text_of_a_request() {
        let code = ConfirmationCode::parse("8E9!#").unwrap();
        for (request, expected) in [
            (
                r#"["L","",true,"a@b.nl",null,null]"#,
                r#"["L","",true,"a@b.nl","8E9!#",null]"#,
            ),
            (
                r#"["L","",null,null,null,"893"]"#,
                r#"["L","",null,null,"8E9!#","893"]"#,
            ),
            ("renew\n", "renew\n\n8E9!#"),
        ] {
            assert_eq!(with_code(request, &code), expected);
        }
    }
}
