//! The sample data of an empty local stack: eight lines with their SIMs, free SIMs, and a brand. The tables are in
//! `infra/local/README.md`.

use std::collections::BTreeSet;

use domain::{
    Brand, BrandName, Colour, EmailAddress, FormFactor, Iccid, Imsi, Language, Line, LineState, Logo, Msisdn,
    NetworkName, Secret, Sim, SubscriptionId, SupportContact,
};
use store::{Store, StoreError};

/// One sample line.
struct SampleLine {
    id: &'static str,
    phone: &'static str,
    customer: &'static str,
    reseller: &'static str,
    network: &'static str,
    sim: &'static str,
    email: &'static str,
    language: Language,
}

const LINES: [SampleLine; 8] = [
    line(
        "65a1b2c3d4e5f60718293a01",
        "+31612345601",
        "C-100",
        "R-10",
        "KPN",
        "8931086000000000013",
        "anna@example.com",
        Language::Nl,
    ),
    line(
        "65a1b2c3d4e5f60718293a02",
        "+31612345602",
        "C-100",
        "R-10",
        "KPN",
        "8931086000000000021",
        "bram@example.com",
        Language::En,
    ),
    line(
        "65a1b2c3d4e5f60718293a03",
        "+31612345603",
        "C-200",
        "R-10",
        "KPN",
        "8931086000000000039",
        "carla@example.com",
        Language::De,
    ),
    line(
        "1234567890abcdef12345678",
        "+4520123401",
        "C-300",
        "R-20",
        "TELENOR",
        "8945020000000000012",
        "dorte@example.com",
        Language::Da,
    ),
    line(
        "65a1b2c3d4e5f60718293a05",
        "+4520123405",
        "C-300",
        "R-20",
        "TDC",
        "8945010000000000014",
        "emil@example.com",
        Language::Da,
    ),
    line(
        BLOCKED,
        "+31612345606",
        "C-100",
        "R-10",
        "KPN",
        "8931086000000000047",
        "fleur@example.com",
        Language::Fr,
    ),
    line(
        PORTING,
        "+31612345607",
        "C-100",
        "R-10",
        "KPN",
        "8931086000000000054",
        "gijs@example.com",
        Language::Nl,
    ),
    line(
        LOCKED,
        "+31612345608",
        "C-100",
        "R-10",
        "KPN",
        "8931086000000000062",
        "hanna@example.com",
        Language::Nl,
    ),
];
const BLOCKED: &str = "65a1b2c3d4e5f60718293a06";
const PORTING: &str = "65a1b2c3d4e5f60718293a07";
const LOCKED: &str = "65a1b2c3d4e5f60718293a08";

/// A series of free SIMs with consecutive account numbers.
struct Stock {
    count: u64,
    /// The first ICCID, without its check digit.
    first: u64,
    form: FormFactor,
    network: &'static str,
    reseller: &'static str,
    auto_assigned: u64,
}

const STOCK: [Stock; 5] = [
    stock(20, 893108600000000101, FormFactor::Nano, "KPN", "R-10", 10),
    stock(20, 893108600000000201, FormFactor::Esim, "KPN", "R-10", 20),
    stock(20, 894502000000000101, FormFactor::MiniMicroNano, "TELENOR", "R-20", 10),
    stock(20, 894502000000000201, FormFactor::Esim, "TELENOR", "R-20", 20),
    stock(10, 894501000000000101, FormFactor::MiniMicro, "TDC", "R-20", 0),
];

/// The card in the example request of the subscription API. It is loaded last, so the sample data is complete if this
/// SIM exists.
const LAST: &str = "1234567890123456789";

#[allow(
    clippy::too_many_arguments,
    reason = "the arguments are the columns of a table, with one row on each line"
)]
const fn line(
    id: &'static str,
    phone: &'static str,
    customer: &'static str,
    reseller: &'static str,
    network: &'static str,
    sim: &'static str,
    email: &'static str,
    language: Language,
) -> SampleLine {
    SampleLine {
        id,
        phone,
        customer,
        reseller,
        network,
        sim,
        email,
        language,
    }
}

const fn stock(
    count: u64,
    first: u64,
    form: FormFactor,
    network: &'static str,
    reseller: &'static str,
    auto_assigned: u64,
) -> Stock {
    Stock {
        count,
        first,
        form,
        network,
        reseller,
        auto_assigned,
    }
}

const WELL_FORMED: &str = "the sample data is well-formed";

/// Loads the sample data, unless it is complete. Existing records do not change.
pub(crate) async fn load(store: &Store) -> Result<(), StoreError> {
    let last = Iccid::parse(LAST).expect(WELL_FORMED);
    if store.sim(&last).await?.is_some() {
        return Ok(());
    }
    for sample in &LINES {
        let line = sample.line();
        let sim = free_sim(
            line.current_sim.clone(),
            FormFactor::Nano,
            sample.network,
            sample.reseller,
        );
        store.add_line(&line, sim).await?;
    }
    if store.brand("R-20").await?.is_none() {
        store.set_brand("R-20", Some(&brand())).await?;
    }
    for sim in sims() {
        store.add_sim(&sim).await?;
    }
    Ok(())
}

/// The ids of the lines.
pub(crate) fn line_ids() -> impl Iterator<Item = SubscriptionId> {
    LINES
        .iter()
        .map(|sample| SubscriptionId::parse(sample.id).expect(WELL_FORMED))
}

/// The customers of the lines, each once.
pub(crate) fn customers() -> BTreeSet<&'static str> {
    LINES.iter().map(|sample| sample.customer).collect()
}

/// The resellers of the lines, each once.
pub(crate) fn resellers() -> BTreeSet<&'static str> {
    LINES.iter().map(|sample| sample.reseller).collect()
}

/// The free SIMs, as they are loaded. [`LAST`] is the last one.
pub(crate) fn sims() -> impl Iterator<Item = Sim> {
    let series = STOCK.iter().flat_map(|stock| {
        (0..stock.count).map(|index| Sim {
            auto_assign: index < stock.auto_assigned,
            ..free_sim(
                with_check_digit(stock.first + index),
                stock.form,
                stock.network,
                stock.reseller,
            )
        })
    });
    let last = Iccid::parse(LAST).expect(WELL_FORMED);
    series.chain([free_sim(last, FormFactor::MiniMicro, "TELENOR", "R-20")])
}

impl SampleLine {
    fn line(&self) -> Line {
        Line {
            id: SubscriptionId::parse(self.id).expect(WELL_FORMED),
            phone: Msisdn::parse(self.phone).expect(WELL_FORMED),
            customer: self.customer.to_owned(),
            reseller: Some(self.reseller.to_owned()),
            network: NetworkName::parse(self.network).expect(WELL_FORMED),
            current_sim: Iccid::parse(self.sim).expect(WELL_FORMED),
            email: Some(EmailAddress::parse(self.email).expect(WELL_FORMED)),
            language: self.language,
            state: if self.id == BLOCKED {
                LineState::Blocked
            } else {
                LineState::Active
            },
            porting: self.id == PORTING,
            locked: self.id == LOCKED,
            open_swap: None,
            kept_card: None,
            kept_esim: None,
        }
    }
}

/// The brand of the reseller R-20. R-10 has none.
fn brand() -> Brand {
    Brand {
        name: BrandName::parse("Nordlys Mobil").expect(WELL_FORMED),
        sender: None,
        colour: Some(Colour::parse("#0b7a4b").expect(WELL_FORMED)),
        logo: Some(Logo::parse(include_bytes!("sample-logo.png").to_vec()).expect(WELL_FORMED)),
        support: Some(SupportContact::parse("+45 70 12 34 56 https://nordlys.example/hjaelp").expect(WELL_FORMED)),
        reply_to: Some(EmailAddress::parse("hjaelp@nordlys.example").expect(WELL_FORMED)),
    }
}

fn free_sim(iccid: Iccid, form_factor: FormFactor, network: &str, reseller: &str) -> Sim {
    let mobile_codes = match network {
        "KPN" => "20408",
        "TELENOR" => "23802",
        _ => "23801",
    };
    // The subscriber's number in the IMSI is the account number of the ICCID, without the check digit.
    let digits = iccid.as_str();
    let subscriber = &digits[digits.len() - 11..digits.len() - 1];
    let imsi = format!("{mobile_codes}{subscriber}");
    Sim {
        imsi: Some(Imsi::parse(&imsi).expect(WELL_FORMED)),
        reseller: Some(reseller.to_owned()),
        pin1: Some(Secret::new("1234")),
        pin2: Some(Secret::new("5678")),
        puk1: Some(Secret::new("12345678")),
        puk2: Some(Secret::new("87654321")),
        ..Sim::free(iccid, NetworkName::parse(network).expect(WELL_FORMED), form_factor)
    }
}

fn with_check_digit(account: u64) -> Iccid {
    (0..10)
        .map(|digit| Iccid::parse(&format!("{account}{digit}")).expect(WELL_FORMED))
        .find(Iccid::passes_luhn)
        .expect("one of the ten digits is the check digit")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_begin_with_the_documented_iccids() {
        let firsts = STOCK.map(|stock| with_check_digit(stock.first).to_string());
        assert_eq!(
            firsts,
            [
                "8931086000000001011",
                "8931086000000002019",
                "8945020000000001010",
                "8945020000000002018",
                "8945010000000001012",
            ]
        );
        for line in &LINES {
            assert!(line.line().current_sim.passes_luhn(), "{}", line.sim);
        }
    }
}
