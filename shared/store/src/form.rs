//! The form of the rows. Each row has its form in the attribute `v`, and one row says which form the table has. A release
//! reads the form before its own, and writes that one until it has a [`SealingKey`](crate::SealingKey). What only the
//! earlier form needs is in this module and in `migrate`.

use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use domain::{Activation, ConfirmationCode, TimelineEntry};
use serde_json::{Value, json};

use crate::attributes::{Item, Row, number};
use crate::{Store, StoreError, keys};

/// Attribute with the number of a row's form. Rows of the earlier form lack it.
pub(crate) const ATTRIBUTE: &str = "v";

/// Attribute of the row that says which form the table has: rows of the earlier form may be left.
pub(crate) const UNFINISHED: &str = "unfinished";

/// The newest form that this release reads.
pub(crate) const NEWEST: u32 = 1;

/// A form that this release writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// The form of the first release, which had no numbers: other indexes, the numbers of mails without leading zeros,
    /// and a timeline whose entries have their times since 1970 and do not count repeats.
    Earlier,
    /// Form 1.
    One,
}

impl Form {
    /// This form and the other one. A mail may have the key of either.
    pub(crate) fn and_other(self) -> [Self; 2] {
        match self {
            Self::Earlier => [Self::Earlier, Self::One],
            Self::One => [Self::One, Self::Earlier],
        }
    }

    /// The attributes of every row of this form.
    pub(crate) fn attributes(self) -> Item {
        match self {
            Self::Earlier => Item::new(),
            Self::One => Item::from([(ATTRIBUTE.to_owned(), number(NEWEST))]),
        }
    }

    /// The sort key of a mail of this form, without its beginning.
    pub(crate) fn mail_number(self, mail: u32) -> String {
        match self {
            Self::Earlier => mail.to_string(),
            // Padded, so that the tenth mail sorts after the ninth.
            Self::One => format!("{mail:04}"),
        }
    }
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

/// The entries with one for each repeat: the first at its time, the others at the last time.
pub(crate) fn without_counts(timeline: &[TimelineEntry]) -> impl Iterator<Item = TimelineEntry> {
    timeline.iter().flat_map(|entry| {
        let times = (0..entry.count).map(|repeat| if repeat == 0 { entry.at } else { entry.last });
        times.map(|at| TimelineEntry::new(at, entry.what.clone()))
    })
}

/// The update that gives a row form 1, which changes nothing else.
pub(crate) fn set(row: UpdateItemFluentBuilder) -> UpdateItemFluentBuilder {
    row.update_expression("SET #v = :v")
        .expression_attribute_names("#v", ATTRIBUTE)
        .expression_attribute_values(":v", number(NEWEST))
}

/// The text of a request that the earlier form signs. In a request for a swap, which is a JSON array, the confirmation code
/// has the place of the first `null`.
pub(crate) fn with_code(request: &str, code: &ConfirmationCode) -> String {
    let mut fields: Vec<Value> = serde_json::from_str(request).unwrap_or_default();
    match fields.iter_mut().find(|field| field.is_null()) {
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
    /// The form that new rows get.
    pub(crate) fn form(&self) -> Form {
        self.keyring.form()
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

    /// Records that a new table has the newest form. Changes nothing in a table that has data keys or a record already.
    /// At most three calls.
    pub async fn record_form_of_new_table(&self) -> Result<(), StoreError> {
        if self.form_row().await?.is_some() || self.keyring.has_data_keys().await? {
            return Ok(());
        }
        let row = keys::form_key().into_iter().chain(Form::One.attributes()).collect();
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
