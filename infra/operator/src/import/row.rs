//! Parses one line of a stock file into a SIM or a line. The columns are described in `infra/local/README.md`.

use std::collections::HashMap;

use csv::StringRecord;
use domain::{
    EmailAddress, FormFactor, Iccid, Imsi, Language, Line, Malformed, Msisdn, NetworkName, Secret, Sim, SubscriptionId,
    is_plain,
};

use super::Kind;

/// A parsed line of the file.
#[derive(Debug)]
pub(super) enum Row {
    /// A free SIM.
    Sim(Sim),
    /// A line, and whether it is locked if the file says so.
    Line(Line, Option<bool>),
}

impl Row {
    /// The columns that must be unique in the file, and their normalised values.
    pub(super) fn keys(&self) -> Vec<(&'static str, &str)> {
        match self {
            Self::Sim(sim) => vec![("SIM_CARD_NUMBER", sim.iccid.as_str())],
            Self::Line(line, _) => vec![
                ("ID", line.id.as_str()),
                ("PHONE_NUMBER", line.phone.as_e164()),
                ("CURRENT_SIM", line.current_sim.as_str()),
            ],
        }
    }
}

const SIM_COLUMNS: [&str; 10] = [
    "SIM_CARD_NUMBER",
    "PUK1",
    "PUK2",
    "PIN1",
    "PIN2",
    "FORM_FACTOR",
    "NETWORK",
    "ACTIVATION_CODE",
    "TAG",
    "AUTO_ASSIGN",
];
const LINE_COLUMNS: [&str; 10] = [
    "ID",
    "PHONE_NUMBER",
    "CUSTOMER",
    "RESELLER",
    "NETWORK",
    "CURRENT_SIM",
    "EMAIL",
    "LANGUAGE",
    "STATE",
    "PORTING",
];

/// The position of each column in a file.
#[derive(Debug)]
pub(super) struct Columns {
    kind: Kind,
    positions: HashMap<&'static str, usize>,
}

impl Columns {
    /// Reads the header line. The error names each column that is missing, unknown or duplicated. An unknown column is
    /// an error because it may be a misspelt optional column, whose values would be lost.
    pub(super) fn read(kind: Kind, header: &StringRecord) -> Result<Self, String> {
        let (needed, optional): (_, &[&'static str]) = match kind {
            Kind::Sims => (SIM_COLUMNS, &["IMSI", "RESELLER"]),
            Kind::Subscriptions => (LINE_COLUMNS, &["LOCKED"]),
        };
        let mut positions = HashMap::new();
        let mut faults = Vec::new();
        for (position, name) in header.iter().enumerate() {
            let name = name.trim_start_matches('\u{feff}');
            let mut known = needed.iter().chain(optional);
            match known.find(|known| **known == name) {
                None => faults.push(format!("column {name:?} is unknown")),
                Some(known) => {
                    if positions.insert(*known, position).is_some() {
                        faults.push(format!("column {known} is there twice"));
                    }
                }
            }
        }
        let missing = needed.iter().filter(|name| !positions.contains_key(*name));
        faults.extend(missing.map(|name| format!("column {name} is missing")));
        if faults.is_empty() {
            Ok(Self { kind, positions })
        } else {
            Err(faults.join("; "))
        }
    }

    /// Parses a line. The error names each faulty column and the expected format, but never contains the value, because
    /// it may be secret.
    pub(super) fn row(&self, record: &StringRecord) -> Result<Row, String> {
        if record.len() != self.positions.len() {
            let (seen, wanted) = (record.len(), self.positions.len());
            return Err(format!("has {seen} columns and the header {wanted}"));
        }
        let mut fields = Fields {
            columns: self,
            record,
            faults: Vec::new(),
        };
        let row = match self.kind {
            Kind::Sims => fields.sim().map(Row::Sim),
            Kind::Subscriptions => fields.line().map(|(line, locked)| Row::Line(line, locked)),
        };
        row.filter(|_| fields.faults.is_empty())
            .ok_or_else(|| fields.faults.join("; "))
    }
}

struct Fields<'a> {
    columns: &'a Columns,
    record: &'a StringRecord,
    faults: Vec<String>,
}

impl Fields<'_> {
    /// Parses an optional field; an empty one is `None`.
    fn optional<T>(&mut self, column: &str, parse: impl Fn(&str) -> Result<T, Malformed>) -> Option<T> {
        let position = self.columns.positions.get(column)?;
        let text = self.record.get(*position).filter(|text| !text.is_empty())?;
        match parse(text) {
            Ok(value) => Some(value),
            Err(fault) => {
                self.faults.push(format!("{column} {fault}"));
                None
            }
        }
    }

    fn required<T>(&mut self, column: &str, parse: impl Fn(&str) -> Result<T, Malformed>) -> Option<T> {
        let faults = self.faults.len();
        let value = self.optional(column, parse);
        if value.is_none() && self.faults.len() == faults {
            self.faults.push(format!("{column} is empty"));
        }
        value
    }

    /// Reads every field before it returns, so that all faults are reported together.
    fn sim(&mut self) -> Option<Sim> {
        let iccid = self.required("SIM_CARD_NUMBER", Iccid::parse);
        let puk1 = self.optional("PUK1", puk);
        let puk2 = self.optional("PUK2", puk);
        let pin1 = self.optional("PIN1", pin);
        let pin2 = self.optional("PIN2", pin);
        let form_factor = self.required("FORM_FACTOR", str::parse::<FormFactor>);
        let network = self.required("NETWORK", NetworkName::parse);
        let supplier_code = self.optional("ACTIVATION_CODE", |code| plain_text(code).map(Secret::new));
        let tag = self.optional("TAG", plain_text);
        let auto_assign = self.required("AUTO_ASSIGN", boolean);
        let imsi = self.optional("IMSI", Imsi::parse);
        let reseller = self.optional("RESELLER", plain_text);
        Some(Sim {
            imsi,
            reseller,
            auto_assign: auto_assign?,
            pin1,
            pin2,
            puk1,
            puk2,
            supplier_code,
            tag,
            ..Sim::free(iccid?, network?, form_factor?)
        })
    }

    fn line(&mut self) -> Option<(Line, Option<bool>)> {
        let id = self.required("ID", SubscriptionId::parse);
        let phone = self.required("PHONE_NUMBER", Msisdn::parse);
        let customer = self.required("CUSTOMER", plain_text);
        let reseller = self.optional("RESELLER", plain_text);
        let network = self.required("NETWORK", NetworkName::parse);
        let current_sim = self.required("CURRENT_SIM", Iccid::parse);
        let email = self.optional("EMAIL", EmailAddress::parse);
        let language = self.optional("LANGUAGE", str::parse::<Language>);
        let state = self.required("STATE", str::parse);
        let porting = self.required("PORTING", boolean);
        let locked = self.optional("LOCKED", boolean);
        let line = Line {
            id: id?,
            phone: phone?,
            customer: customer?,
            reseller,
            network: network?,
            current_sim: current_sim?,
            email,
            language: language.unwrap_or_default(),
            state: state?,
            porting: porting?,
            locked: locked.unwrap_or(false),
            open_swap: None,
            kept_card: None,
            kept_esim: None,
        };
        Some((line, locked))
    }
}

/// ETSI TS 102 221 section 9.5.1: 4 to 8 digits.
fn pin(text: &str) -> Result<Secret, Malformed> {
    let fits = (4..=8).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    fits.then(|| Secret::new(text))
        .ok_or(Malformed("must be 4 to 8 digits"))
}

/// ETSI TS 102 221 section 9.5.1: 8 digits.
fn puk(text: &str) -> Result<Secret, Malformed> {
    let fits = text.len() == 8 && text.bytes().all(|b| b.is_ascii_digit());
    fits.then(|| Secret::new(text)).ok_or(Malformed("must be 8 digits"))
}

fn boolean(text: &str) -> Result<bool, Malformed> {
    text.parse().map_err(|_| Malformed("must be true or false"))
}

fn plain_text(text: &str) -> Result<String, Malformed> {
    let fits = text.len() <= 255 && is_plain(text);
    fits.then(|| text.to_owned())
        .ok_or(Malformed("must be at most 255 characters on one line"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: Kind, header: &str, line: &str) -> Result<Row, String> {
        let header = StringRecord::from_iter(header.split(';'));
        let record = StringRecord::from_iter(line.split(';'));
        Columns::read(kind, &header)?.row(&record)
    }

    const SIMS: &str = "SIM_CARD_NUMBER;PUK1;PUK2;PIN1;PIN2;FORM_FACTOR;NETWORK;ACTIVATION_CODE;TAG;AUTO_ASSIGN";
    const LINES: &str = "ID;PHONE_NUMBER;CUSTOMER;RESELLER;NETWORK;CURRENT_SIM;EMAIL;LANGUAGE;STATE;PORTING";

    #[test]
    fn a_sim_may_have_all_columns_or_only_the_required_ones() {
        let header = format!("RESELLER;{SIMS};IMSI");
        let full = "R-10;8931086000000009006F;12345678;87654321;1234;5678;eSIM;KPN;LPA:1$a$b;T 1;true;204081234567890";
        let Row::Sim(sim) = read(Kind::Sims, &header, full).unwrap() else {
            panic!("not a SIM");
        };
        assert_eq!(sim.iccid.as_str(), "8931086000000009006");
        assert_eq!(sim.puk2, Some(Secret::new("87654321")));
        assert_eq!(sim.pin2, Some(Secret::new("5678")));
        assert_eq!(sim.supplier_code, Some(Secret::new("LPA:1$a$b")));
        assert_eq!(
            (sim.reseller.as_deref(), sim.tag.as_deref()),
            (Some("R-10"), Some("T 1"))
        );
        assert_eq!(sim.imsi.unwrap().as_str(), "204081234567890");
        assert!(sim.auto_assign && sim.form_factor == FormFactor::Esim);

        let bare = "8931086000000009006;;;;;NANO;KPN;;;false";
        let Row::Sim(sim) = read(Kind::Sims, SIMS, bare).unwrap() else {
            panic!("not a SIM");
        };
        assert!(sim.reseller.is_none() && sim.imsi.is_none() && sim.tag.is_none());
        assert!(sim.pin1.is_none() && sim.supplier_code.is_none() && !sim.auto_assign);
    }

    #[test]
    fn the_lock_of_a_line_is_optional() {
        let line = "65A1B2C3D4E5F60718293A09;06-12345609;C-1;;KPN;8931086000000009006;;;ACTIVE;false";
        for (header, line, locked) in [
            (LINES.to_owned(), line.to_owned(), None),
            (format!("{LINES};LOCKED"), format!("{line};"), None),
            (format!("{LINES};LOCKED"), format!("{line};true"), Some(true)),
            (format!("{LINES};LOCKED"), format!("{line};false"), Some(false)),
        ] {
            let Row::Line(read, given) = read(Kind::Subscriptions, &header, &line).unwrap() else {
                panic!("not a line");
            };
            assert_eq!(read.id.as_str(), "65a1b2c3d4e5f60718293a09");
            assert_eq!((read.phone.as_e164(), read.language), ("+31612345609", Language::En));
            assert!(read.reseller.is_none() && read.email.is_none());
            assert_eq!((given, read.locked), (locked, locked == Some(true)));
        }
    }

    #[test]
    fn all_faults_are_reported_together_and_without_values() {
        for (kind, header, line, faults) in [
            (
                Kind::Sims,
                SIMS,
                "893;1234567;x;123;secret;nano;K PN;;;yes",
                "SIM_CARD_NUMBER must be 11 to 20 digits; PUK1 must be 8 digits; PUK2 must be 8 digits; \
                 PIN1 must be 4 to 8 digits; PIN2 must be 4 to 8 digits; \
                 FORM_FACTOR must be MINI_MICRO, NANO, MINI_MICRO_NANO or eSIM; \
                 NETWORK must be 1 to 32 of A-Z, a-z, 0-9, _ and -; AUTO_ASSIGN must be true or false",
            ),
            (
                Kind::Sims,
                SIMS,
                ";;;;;;;;;",
                "SIM_CARD_NUMBER is empty; FORM_FACTOR is empty; NETWORK is empty; AUTO_ASSIGN is empty",
            ),
            (
                Kind::Sims,
                SIMS,
                "8931086000000009006;",
                "has 2 columns and the header 10",
            ),
            (
                Kind::Sims,
                "SIM_CARD_NUMBER;RESELER;SIM_CARD_NUMBER;PUK1;PUK2;PIN1;PIN2;FORM_FACTOR;NETWORK;TAG",
                "",
                "column \"RESELER\" is unknown; column SIM_CARD_NUMBER is there twice; \
                 column ACTIVATION_CODE is missing; column AUTO_ASSIGN is missing",
            ),
            (
                Kind::Subscriptions,
                LINES,
                "a b;12;;R;KPN;8;Anna <a@example.com>;sv;OPEN;TRUE",
                "ID must be 1 to 64 of A-Z, a-z, 0-9, _ and -; \
                 PHONE_NUMBER must be a Dutch number (06-12345678) or E.164 (+31612345678); \
                 CUSTOMER is empty; CURRENT_SIM must be 11 to 20 digits; \
                 EMAIL must be one e-mail address without display name; \
                 LANGUAGE must be nl, da, de, fr or en; \
                 STATE must be ACTIVE, CREATING, DELETING or BLOCKED; PORTING must be true or false",
            ),
        ] {
            assert_eq!(read(kind, header, line).unwrap_err(), faults, "{line}");
        }
    }
}
