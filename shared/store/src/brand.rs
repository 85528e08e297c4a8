//! The brands of resellers, as operators import them and mails show them.

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue::B;
use aws_sdk_dynamodb::types::ReturnValue;
use domain::{Brand, BrandName, Colour, EmailAddress, Logo, SupportContact};

use crate::attributes::{Item, Row, RowBuilder};
use crate::{Store, StoreError, keys};

/// The result of writing a brand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrandWritten {
    /// The reseller had no brand.
    New,
    /// The reseller had another brand, or has none any more.
    Changed,
    /// The reseller had the same brand, or had none and gets none.
    Same,
}

impl Store {
    /// Reads the brand of a reseller. One call, which may return the brand before the last change.
    pub async fn brand(&self, reseller: &str) -> Result<Option<Brand>, StoreError> {
        let read = self
            .dynamodb
            .get_item()
            .table_name(&self.table)
            .set_key(Some(keys::brand_key(reseller)));
        read.send().await?.item.as_ref().map(to_brand).transpose()
    }

    /// Writes the brand of a reseller in place of any other, or deletes it. One call.
    pub async fn set_brand(&self, reseller: &str, brand: Option<&Brand>) -> Result<BrandWritten, StoreError> {
        let Some(brand) = brand else {
            let delete = self
                .dynamodb
                .delete_item()
                .table_name(&self.table)
                .set_key(Some(keys::brand_key(reseller)))
                .return_values(ReturnValue::AllOld);
            return Ok(match delete.send().await?.attributes {
                Some(_) => BrandWritten::Changed,
                None => BrandWritten::Same,
            });
        };
        let row = from_brand(reseller, brand);
        let put = self
            .dynamodb
            .put_item()
            .table_name(&self.table)
            .set_item(Some(row.clone()))
            .return_values(ReturnValue::AllOld);
        Ok(match put.send().await?.attributes {
            None => BrandWritten::New,
            Some(before) if before == row => BrandWritten::Same,
            Some(_) => BrandWritten::Changed,
        })
    }
}

fn from_brand(reseller: &str, brand: &Brand) -> Item {
    let row = RowBuilder::new(keys::brand_key(reseller))
        .text("name", brand.name.as_str())
        .maybe_text("sender", brand.sender.as_ref().map(BrandName::as_str))
        .maybe_text("colour", brand.colour.map(|colour| colour.to_string()).as_deref())
        .maybe_text("support", brand.support.as_ref().map(ToString::to_string).as_deref())
        .maybe_text("replyTo", brand.reply_to.as_ref().map(EmailAddress::as_str));
    match &brand.logo {
        Some(logo) => row.put("logo", B(Blob::new(logo.png()))).0,
        None => row.0,
    }
}

fn to_brand(item: &Item) -> Result<Brand, StoreError> {
    let row = Row::read(item)?;
    let logo = match item.get("logo") {
        Some(_) => Some(Logo::parse(row.bytes("logo")?).map_err(|_| StoreError::Corrupt("logo"))?),
        None => None,
    };
    Ok(Brand {
        name: row.parsed("name", BrandName::parse)?,
        sender: row.maybe_parsed("sender", BrandName::parse)?,
        colour: row.maybe_parsed("colour", Colour::parse)?,
        logo,
        support: row.maybe_parsed("support", SupportContact::parse)?,
        reply_to: row.maybe_parsed("replyTo", EmailAddress::parse)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_brand_round_trips_and_a_malformed_one_is_not_read() {
        let bare = Brand {
            name: BrandName::parse("Zwaluw").unwrap(),
            sender: None,
            colour: None,
            logo: None,
            support: None,
            reply_to: None,
        };
        let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x08\0\0\0\x04\0\0\0\0IEND\xaeB`\x82";
        let full = Brand {
            sender: Some(BrandName::parse("Zwaluw eSIM").unwrap()),
            colour: Some(Colour::parse("#0b7a4b").unwrap()),
            logo: Some(Logo::parse(png.to_vec()).unwrap()),
            support: Some(SupportContact::parse("1200 https://zwaluw.example").unwrap()),
            reply_to: Some(EmailAddress::parse("help@zwaluw.example").unwrap()),
            ..bare.clone()
        };
        for brand in [bare, full.clone()] {
            assert_eq!(to_brand(&from_brand("R-10", &brand)).unwrap(), brand);
        }
        for (attribute, value) in [
            ("name", "<script>"),
            ("sender", "a\r\nBcc: x@example.com"),
            ("colour", "red;}"),
            ("support", "javascript:alert(1)"),
            ("replyTo", "a@example.com\r\nBcc: x@example.com"),
            ("logo", "not bytes"),
        ] {
            let row = RowBuilder(from_brand("R-10", &full)).text(attribute, value).0;
            let read = to_brand(&row).unwrap_err();
            assert!(matches!(read, StoreError::Corrupt(name) if name == attribute), "{read}");
        }
    }
}
