//! Parses one line of a stock file into a SIM, a line or a brand. The columns are described in `infra/local/README.md`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use csv::StringRecord;
use domain::{
    Brand, BrandName, Colour, EmailAddress, FormFactor, Iccid, Imsi, Language, Line, Logo, Malformed, Msisdn,
    NetworkName, Secret, Sim, SubscriptionId, SupportContact, is_plain,
};

use super::Kind;

/// A parsed line of the file.
#[derive(Debug)]
pub(super) enum Row {
    /// A free SIM.
    Sim(Sim),
    /// A line, and whether it is locked if the file says so.
    Line(Line, Option<bool>),
    /// A reseller and its brand. `None` deletes the brand.
    Brand(String, Option<Brand>),
}

impl Row {
    /// What may be wrong with the row although it is valid. The check digit is not enforced, because SIMs without one
    /// exist.
    pub(super) fn warning(&self) -> Option<String> {
        let (column, iccid) = match self {
            Self::Sim(sim) => ("SIM_CARD_NUMBER", &sim.iccid),
            Self::Line(line, _) => ("CURRENT_SIM", &line.current_sim),
            Self::Brand(..) => return None,
        };
        // A spreadsheet stores numbers with 15 digits, and replaces the others by zeros.
        let digits = iccid.as_str();
        let rounded = digits.len() >= 18 && digits.trim_end_matches('0').len() <= 15;
        match (iccid.passes_luhn(), rounded) {
            (true, _) => None,
            (false, true) => Some(format!(
                "{column} ends in zeros and its check digit is wrong, so a spreadsheet has probably rounded it; {AS_TEXT}"
            )),
            (false, false) => Some(format!(
                "the check digit of {column} is wrong; compare the number with that on the SIM"
            )),
        }
    }

    /// The columns that must be unique in the file, and their normalised values.
    pub(super) fn keys(&self) -> Vec<(&'static str, &str)> {
        match self {
            Self::Sim(sim) => vec![("SIM_CARD_NUMBER", sim.iccid.as_str())],
            Self::Line(line, _) => vec![
                ("ID", line.id.as_str()),
                ("PHONE_NUMBER", line.phone.as_e164()),
                ("CURRENT_SIM", line.current_sim.as_str()),
            ],
            Self::Brand(reseller, _) => vec![("RESELLER", reseller)],
        }
    }
}

/// What to do about a number that a spreadsheet has changed.
const AS_TEXT: &str = "format the column as text, and enter the numbers again";

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

const BRAND_COLUMNS: [&str; 2] = ["RESELLER", "NAME"];
const BRAND_OPTIONAL: [&str; 5] = ["SENDER_NAME", "COLOUR", "LOGO", "SUPPORT_CONTACT", "REPLY_TO"];

/// The position of each column in a file.
#[derive(Debug)]
pub(super) struct Columns {
    kind: Kind,
    /// Where the file is, and the logos that it names.
    folder: PathBuf,
    positions: HashMap<&'static str, usize>,
}

impl Columns {
    /// Reads the header line. The error says if this is the header of another kind of file.
    pub(super) fn read(kind: Kind, header: &StringRecord, folder: &Path) -> Result<Self, String> {
        let positions = Self::find_positions(kind, header).map_err(|fault| {
            let mut kinds = [
                (Kind::Sims, "sims"),
                (Kind::Subscriptions, "subscriptions"),
                (Kind::Brands, "brands"),
            ]
            .into_iter();
            match kinds.find(|(kind, _)| Self::find_positions(*kind, header).is_ok()) {
                Some((_, name)) => format!("is the header of a file of {name}; use 'cargo run -- import {name}'"),
                None => fault,
            }
        })?;
        Ok(Self {
            kind,
            folder: folder.to_owned(),
            positions,
        })
    }

    /// Finds the columns in the header line. The error names each column that is missing, unknown or duplicated. An
    /// unknown column is an error because it may be a misspelt optional column, whose values would be lost. If no
    /// column is known, the line is none of the header's, and its values may be secret.
    fn find_positions(kind: Kind, header: &StringRecord) -> Result<HashMap<&'static str, usize>, String> {
        let (needed, optional): (&[&'static str], &[&'static str]) = match kind {
            Kind::Sims => (&SIM_COLUMNS, &["IMSI", "RESELLER"]),
            Kind::Subscriptions => (&LINE_COLUMNS, &["LOCKED"]),
            Kind::Brands => (&BRAND_COLUMNS, &BRAND_OPTIONAL),
        };
        let mut positions = HashMap::new();
        let mut faults = Vec::new();
        let names: Vec<&str> = header.iter().collect();
        let named = names.iter().rposition(|name| !name.is_empty());
        for (position, name) in names.iter().enumerate().take(named.map_or(0, |last| last + 1)) {
            let mut known = needed.iter().chain(optional);
            match known.find(|known| known.eq_ignore_ascii_case(name)) {
                None => faults.push(format!("column {name:?} is unknown")),
                Some(known) => {
                    if positions.insert(*known, position).is_some() {
                        faults.push(format!("column {known} is there twice"));
                    }
                }
            }
        }
        if positions.is_empty() {
            let columns = needed.join(";");
            return Err(format!("is not the header; the first line must be {columns}"));
        }
        let missing = needed.iter().filter(|name| !positions.contains_key(*name));
        faults.extend(missing.map(|name| format!("column {name} is missing")));
        match faults.is_empty() {
            true => Ok(positions),
            false => Err(faults.join("; ")),
        }
    }

    /// Parses a line. The error names each faulty column and the expected format, but never contains the value, because
    /// it may be secret. Further columns may follow those of the header if they are empty.
    pub(super) fn row(&self, record: &StringRecord) -> Result<Row, String> {
        let wanted = self.positions.len();
        if record.len() < wanted || record.iter().skip(wanted).any(|field| !field.is_empty()) {
            let seen = record.len();
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
            Kind::Brands => fields.brand().map(|(reseller, brand)| Row::Brand(reseller, brand)),
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
            Err(_) if is_scientific(text) => {
                let fault = format!("{column} is in scientific notation, which loses digits; {AS_TEXT}");
                self.faults.push(fault);
                None
            }
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

    /// A line with a reseller and nothing else deletes the brand. The faults name the reseller.
    fn brand(&mut self) -> Option<(String, Option<Brand>)> {
        let reseller = self.required("RESELLER", plain_text)?;
        let others = self.record.iter().filter(|text| !text.is_empty()).count() - 1;
        if others == 0 {
            return Some((reseller, None));
        }
        let columns = self.columns;
        let name = self.required("NAME", BrandName::parse);
        let sender = self.optional("SENDER_NAME", BrandName::parse);
        let colour = self.optional("COLOUR", Colour::parse);
        let logo = self.optional("LOGO", |file| {
            let png = std::fs::read(columns.folder.join(file));
            Logo::parse(png.map_err(|_| Malformed("names a file that cannot be read"))?)
        });
        let support = self.optional("SUPPORT_CONTACT", SupportContact::parse);
        let reply_to = self.optional("REPLY_TO", EmailAddress::parse);
        for fault in &mut self.faults {
            *fault = format!("the brand of {reseller}: {fault}");
        }
        let brand = Brand {
            name: name?,
            sender,
            colour,
            logo,
            support,
            reply_to,
        };
        Some((reseller, Some(brand)))
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
    let lower = text.to_ascii_lowercase();
    lower.parse().map_err(|_| Malformed("must be true or false"))
}

/// Whether the text is a number like `8.93109E+18` or `8,93109E+18`, as spreadsheets write one that is too long.
fn is_scientific(text: &str) -> bool {
    let is_number = |text: &str| text.starts_with(|c: char| c.is_ascii_digit()) && text.parse::<f64>().is_ok();
    text.contains(['E', 'e']) && is_number(&text.replace(',', "."))
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
        Columns::read(kind, &header, Path::new("no such folder"))?.row(&record)
    }

    const SIMS: &str = "SIM_CARD_NUMBER;PUK1;PUK2;PIN1;PIN2;FORM_FACTOR;NETWORK;ACTIVATION_CODE;TAG;AUTO_ASSIGN";
    const LINES: &str = "ID;PHONE_NUMBER;CUSTOMER;RESELLER;NETWORK;CURRENT_SIM;EMAIL;LANGUAGE;STATE;PORTING";
    const BRANDS: &str = "RESELLER;NAME;COLOUR;LOGO;SUPPORT_CONTACT;REPLY_TO;SENDER_NAME";

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
    fn a_brand_needs_a_name_and_a_reseller_alone_deletes_it() {
        let Row::Brand(reseller, brand) = read(Kind::Brands, "NAME;RESELLER", "Zwaluw;R-10").unwrap() else {
            panic!("not a brand");
        };
        let brand = brand.unwrap();
        assert_eq!((reseller.as_str(), brand.name.as_str()), ("R-10", "Zwaluw"));
        assert!(brand.sender.is_none() && brand.colour.is_none() && brand.logo.is_none());
        assert!(brand.support.is_none() && brand.reply_to.is_none());

        let deleted = read(Kind::Brands, BRANDS, "R-10;;;;;;").unwrap();
        assert!(matches!(deleted, Row::Brand(reseller, None) if reseller == "R-10"));
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
                "a b;12;;R;KPN;8;Anna <a@example.com>;sv;OPEN;ja",
                "ID must be 1 to 64 of A-Z, a-z, 0-9, _ and -; \
                 PHONE_NUMBER must be a Dutch number (06-12345678) or E.164 (+31612345678); \
                 CUSTOMER is empty; CURRENT_SIM must be 11 to 20 digits; \
                 EMAIL must be one e-mail address without a display name; \
                 LANGUAGE must be nl, da, de, fr or en; \
                 STATE must be ACTIVE, CREATING, DELETING or BLOCKED; PORTING must be true or false",
            ),
            (
                Kind::Sims,
                SIMS,
                "8.93109E+18;;;;;eSIM;KPN;;;WAAR",
                "SIM_CARD_NUMBER is in scientific notation, which loses digits; \
                 format the column as text, and enter the numbers again; AUTO_ASSIGN must be true or false",
            ),
            (
                Kind::Subscriptions,
                LINES,
                "L-1;3,16123E+10;C-1;;KPN;8,9e18;;;ACTIVE;false",
                "PHONE_NUMBER is in scientific notation, which loses digits; \
                 format the column as text, and enter the numbers again; \
                 CURRENT_SIM is in scientific notation, which loses digits; \
                 format the column as text, and enter the numbers again",
            ),
            (
                Kind::Sims,
                "12345678;1234",
                "",
                "is not the header; the first line must be SIM_CARD_NUMBER;PUK1;PUK2;PIN1;PIN2;FORM_FACTOR;NETWORK;\
                 ACTIVATION_CODE;TAG;AUTO_ASSIGN",
            ),
            (
                Kind::Brands,
                BRANDS,
                "R-10;<script>;red;logo.png;http://a.nl;Anna <a@example.com>;Sim\r\nBcc: x@example.com",
                "the brand of R-10: NAME must be 1 to 64 characters on one line, without < > \" and \\; \
                 the brand of R-10: SENDER_NAME must be 1 to 64 characters on one line, without < > \" and \\; \
                 the brand of R-10: COLOUR must be a colour like #1553c7; \
                 the brand of R-10: LOGO names a file that cannot be read; \
                 the brand of R-10: SUPPORT_CONTACT must be a phone number (+31 20 123 4567), a link \
                 (https://example.com/help), or both; \
                 the brand of R-10: REPLY_TO must be one e-mail address without a display name",
            ),
            (
                Kind::Brands,
                BRANDS,
                "R-10;;#ffd400;;;;",
                "the brand of R-10: NAME is empty",
            ),
            (Kind::Brands, BRANDS, ";Zwaluw;;;;;", "RESELLER is empty"),
            (
                Kind::Brands,
                "RESELLER;COLOR",
                "",
                "column \"COLOR\" is unknown; column NAME is missing",
            ),
            (
                Kind::Subscriptions,
                SIMS,
                "",
                "is the header of a file of sims; use 'cargo run -- import sims'",
            ),
            (
                Kind::Sims,
                LINES,
                "",
                "is the header of a file of subscriptions; use 'cargo run -- import subscriptions'",
            ),
            (
                Kind::Sims,
                BRANDS,
                "",
                "is the header of a file of brands; use 'cargo run -- import brands'",
            ),
        ] {
            assert_eq!(read(kind, header, line).unwrap_err(), faults, "{line}");
        }
    }

    #[test]
    fn booleans_and_columns_are_read_in_any_case() {
        for (text, value) in [
            ("true", Ok(true)),
            ("TRUE", Ok(true)),
            ("False", Ok(false)),
            ("yes", Err(Malformed("must be true or false"))),
            ("1", Err(Malformed("must be true or false"))),
        ] {
            assert_eq!(boolean(text), value, "{text}");
        }
        let header = "sim_card_number;Puk1;PUK2;PIN1;PIN2;Form_Factor;NETWORK;ACTIVATION_CODE;TAG;AUTO_ASSIGN;;";
        let line = "8931086000000009006;;;;;NANO;KPN;;;TRUE;;";
        assert!(read(Kind::Sims, header, line).is_ok());
        let fault = read(Kind::Sims, &header.replace(";TAG", ";PUK1"), line).unwrap_err();
        assert_eq!(fault, "column PUK1 is there twice; column TAG is missing");
        let fault = read(Kind::Sims, &header.replace(";TAG", ";"), line).unwrap_err();
        assert_eq!(fault, "column \"\" is unknown; column TAG is missing");
    }

    #[test]
    fn a_wrong_check_digit_is_a_warning() {
        let wrong = "the check digit of SIM_CARD_NUMBER is wrong; compare the number with that on the SIM";
        let rounded = "SIM_CARD_NUMBER ends in zeros and its check digit is wrong, so a spreadsheet has probably rounded \
                       it; format the column as text, and enter the numbers again";
        for (iccid, warning) in [
            ("8931086000000009006", None),
            ("8931086000000009007", Some(wrong)),
            ("8931086000000000000", Some(rounded)),
            ("89310860000000000000", Some(rounded)),
            ("8931086000012340000", Some(rounded)),
            ("8931086000000210000", None),
            ("893108600012345000", Some(rounded)),
            ("893108600012345600", Some(wrong)),
            ("8931086000000010", Some(wrong)),
        ] {
            let row = read(Kind::Sims, SIMS, &format!("{iccid};;;;;NANO;KPN;;;true")).unwrap();
            assert_eq!(row.warning().as_deref(), warning, "{iccid}");
        }
        let line = "L-1;06-12345609;C-1;;KPN;8931086000000009007;;;ACTIVE;false";
        let warning = read(Kind::Subscriptions, LINES, line).unwrap().warning().unwrap();
        assert_eq!(warning, wrong.replace("SIM_CARD_NUMBER", "CURRENT_SIM"));
    }
}
