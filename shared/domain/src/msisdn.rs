//! Phone numbers: stored in E.164, read and shown as callers write them.

use std::fmt;

use crate::Malformed;

/// A phone number in E.164: `+`, then 5 to 15 digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Msisdn(String);

impl Msisdn {
    /// Reads E.164 with a leading `+` or `00`, or a Dutch national number with its leading `0`. Separators may stand
    /// anywhere. `(0)` after a country code is the national prefix, which is not dialled from abroad.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        const WHAT: Malformed = Malformed("must be a Dutch number (06-12345678) or E.164 (+31612345678)");
        let written: String = text.chars().filter(|c| !is_separator(*c)).collect();
        // A hyphen stands for `(0)` from here on: no other one is left.
        let marked = written.replace("(0)", "-").replace(['(', ')'], "");
        let compact = marked.replace('-', "0");
        let international = match ["+", "00"].into_iter().find(|prefix| compact.starts_with(prefix)) {
            Some(prefix) => {
                let number = &marked[prefix.len()..];
                let has_national_prefix = number.matches('-').count() == 1 && !number.starts_with('-');
                number.replace('-', if has_national_prefix { "" } else { "0" })
            }
            None => format!("31{}", compact.strip_prefix('0').ok_or(WHAT)?),
        };
        let digits = international.as_bytes();
        let fits = (5..=15).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit) && digits[0] != b'0';
        // A Dutch number has nine digits after its leading zero. Machine numbers, which begin with 097, have eleven.
        let dutch_fits = match international.strip_prefix("31") {
            Some(national) if national.starts_with("97") => national.len() == 11,
            Some(national) => national.len() == 9 && !national.starts_with('0'),
            None => true,
        };
        (fits && dutch_fits)
            .then(|| Self(format!("+{international}")))
            .ok_or(WHAT)
    }

    /// The placeholder for an erased number. No number is equal to it, because no country code begins with a zero.
    pub fn erased() -> Self {
        Self("+0".to_owned())
    }

    /// The number in E.164, as stored.
    pub fn as_e164(&self) -> &str {
        &self.0
    }
}

/// Whether people write this character between the digits of a number, or a program that displays numbers adds it.
fn is_separator(c: char) -> bool {
    c.is_whitespace()
        || matches!(
            c,
            // Hyphens and dashes.
            '-' | '.' | '/' | '\u{ad}' | '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{fe58}' | '\u{fe63}' | '\u{ff0d}'
            // Characters without width.
            | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
        )
}

/// The format of the subscription dialect: Dutch numbers in national format with a dash after the mobile prefix, others
/// in E.164.
impl fmt::Display for Msisdn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.strip_prefix("+31") {
            Some(national) if national.starts_with("97") => {
                write!(f, "0{}-{}", &national[..2], &national[2..])
            }
            Some(national) if national.starts_with('6') => write!(f, "06-{}", &national[1..]),
            Some(national) => write!(f, "0{national}"),
            None => f.write_str(&self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_spellings_of_a_mobile_number_are_equal() {
        for text in [
            "06-12345678",
            "0612345678",
            "+31612345678",
            "0031612345678",
            "+31 6 1234 5678",
            "06 12 34 56 78",
            "+31-6-12345678",
            "06--12345678",
            "-0612345678",
            "+31 (0)6 12 34 56 78",
            "0031(0)6.1234.5678",
            "+31 ( 0 ) 612345678",
            "(+31) 6-12345678",
            "(0)031 612345678",
            "(0)0 31 (0)6 12345678",
            "(06) 12345678",
            "06/12 34 56 78",
            "06\u{a0}1234\u{202f}5678",
            "06\u{2011}1234\u{2013}5678",
            "06\u{2212}12345678",
            "\u{202a}+31 6 12345678\u{202c}",
            "\t06 12345678\n",
        ] {
            let number = Msisdn::parse(text).unwrap();
            assert_eq!(number.as_e164(), "+31612345678", "{text}");
            assert_eq!(number.to_string(), "06-12345678", "{text}");
        }
    }

    #[test]
    fn foreign_numbers_and_other_dutch_numbers_are_read() {
        for (text, shown) in [
            ("+4520123401", "+4520123401"),
            ("0045 20123401", "+4520123401"),
            ("+31201234567", "0201234567"),
            ("097012345678", "097-012345678"),
            ("+44 (0)20 7946 0000", "+442079460000"),
        ] {
            assert_eq!(Msisdn::parse(text).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn malformed_numbers_are_rejected() {
        for text in [
            "",
            "+",
            "0",
            "061234567",
            "06123456789",
            "+310612345678",
            "31612345678",
            "612345678",
            "06_12345678",
            "06-######969",
            "+31 06 12345678",
            "+31 (0)(0)6 12345678",
            "+31 (06) 12345678",
            "+0612345678",
            "+(0)31612345678",
            "+1234567890123456",
            "+1234",
            "٠٦12345678",
            "+316 1234567a",
        ] {
            assert!(Msisdn::parse(text).is_err(), "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics_and_round_trips(text in "[0-9+ ()/.\u{2013}-]{0,18}") {
            if let Ok(number) = Msisdn::parse(&text) {
                proptest::prop_assert_eq!(Msisdn::parse(&number.to_string()).unwrap(), number);
            }
        }
    }
}
