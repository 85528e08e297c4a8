//! SIM cards and eSIM profiles, named by their ICCID.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;

use crate::{ActivationId, Malformed, Secret, SubscriptionId, SwapKind};

/// Name of a SIM (ITU-T E.118): 11 to 20 digits, stored without the filler `F`. The seeds' own samples fail Luhn, so the
/// check digit is looked at, never enforced.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Iccid(String);

impl Iccid {
    /// Takes the digits, with one optional trailing filler `F`.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let digits = text.strip_suffix(['F', 'f']).unwrap_or(text);
        let fits = (11..=20).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
        fits.then(|| Self(digits.to_owned()))
            .ok_or(Malformed("must be 11 to 20 digits"))
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the last digit is the Luhn check digit of the others.
    pub fn passes_luhn(&self) -> bool {
        let sum: u32 = self
            .0
            .bytes()
            .rev()
            .enumerate()
            .map(|(place, digit)| {
                let digit = u32::from(digit - b'0');
                match place % 2 {
                    0 => digit,
                    _ if digit > 4 => 2 * digit - 9,
                    _ => 2 * digit,
                }
            })
            .sum();
        sum.is_multiple_of(10)
    }
}

impl fmt::Display for Iccid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A subscriber's identity in the network (ITU-T E.212): 6 to 15 digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imsi(String);

impl Imsi {
    /// Takes the digits.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let fits = (6..=15).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        fits.then(|| Self(text.to_owned()))
            .ok_or(Malformed("must be 6 to 15 digits"))
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Name of a network, `KPN` or `TELENOR`: 1 to 32 of `[A-Za-z0-9_-]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NetworkName(String);

impl NetworkName {
    /// Takes a name.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let fits = (1..=32).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        fits.then(|| Self(text.to_owned()))
            .ok_or(Malformed("must be 1 to 32 of A-Z, a-z, 0-9, _ and -"))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Size of a card, or none for an eSIM profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FormFactor {
    /// Mini and micro.
    MiniMicro,
    /// Nano.
    Nano,
    /// A card that breaks out to all three.
    MiniMicroNano,
    /// A profile, ordered over ES2+.
    Esim,
}

impl FormFactor {
    /// As the "account" dialect and the stock files write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MiniMicro => "MINI_MICRO",
            Self::Nano => "NANO",
            Self::MiniMicroNano => "MINI_MICRO_NANO",
            Self::Esim => "eSIM",
        }
    }
}

impl FromStr for FormFactor {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        [Self::MiniMicro, Self::Nano, Self::MiniMicroNano, Self::Esim]
            .into_iter()
            .find(|form| form.as_str() == text)
            .ok_or(Malformed("must be MINI_MICRO, NANO, MINI_MICRO_NANO or eSIM"))
    }
}

/// Where a SIM is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SimState {
    /// In stock. After a swap that failed it rests a day first.
    Free,
    /// Reserved by an open swap.
    Busy,
    /// The current SIM of a line.
    Activated,
    /// Used up.
    Disabled,
}

impl SimState {
    /// As stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Free => "FREE",
            Self::Busy => "BUSY",
            Self::Activated => "ACTIVATED",
            Self::Disabled => "DISABLED",
        }
    }
}

impl FromStr for SimState {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        [Self::Free, Self::Busy, Self::Activated, Self::Disabled]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or(Malformed("must be FREE, BUSY, ACTIVATED or DISABLED"))
    }
}

/// A SIM in stock or in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sim {
    /// Its name.
    pub iccid: Iccid,
    /// Its subscriber identity; unknown for some stock.
    pub imsi: Option<Imsi>,
    /// The network whose lines it can serve.
    pub network: NetworkName,
    /// The reseller who bought it; `None` is anybody's.
    pub reseller: Option<String>,
    /// Card or profile.
    pub form_factor: FormFactor,
    /// Whether `autoAssign` may pick it.
    pub auto_assign: bool,
    /// Where it is in its life.
    pub state: SimState,
    /// The earliest time at which a free SIM may be used again.
    pub free_from: Timestamp,
    /// The swap that holds a busy one, the line that a current one serves, or the line that a free one is kept for.
    pub holder: Option<Holder>,
    /// PIN 1.
    pub pin1: Option<Secret>,
    /// PIN 2.
    pub pin2: Option<Secret>,
    /// PUK 1.
    pub puk1: Option<Secret>,
    /// PUK 2.
    pub puk2: Option<Secret>,
    /// What the supplier printed on an eSIM's card; kept, not used.
    pub supplier_code: Option<Secret>,
    /// A batch mark from the stock file.
    pub tag: Option<String>,
    /// Whether a caller saw its PINs and PUKs for a swap that failed: then it is in no pool.
    pub codes_shown: bool,
}

impl Sim {
    /// Card or profile.
    pub fn kind(&self) -> SwapKind {
        match self.form_factor {
            FormFactor::Esim => SwapKind::Esim,
            _ => SwapKind::Physical,
        }
    }
}

/// Who a SIM belongs to that is not for everybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// An open swap.
    Swap(ActivationId),
    /// A line of service: the SIM is its current one, or free and kept for it.
    Line(SubscriptionId),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iccid_rule_and_luhn() {
        for (text, stored, luhn) in [
            ("8931087000000000012", "8931087000000000012", true),
            ("8931087000000000020", "8931087000000000020", true),
            ("8944538532008160222", "8944538532008160222", true),
            ("8931087000000000017", "8931087000000000017", false),
            ("8931087000000000012F", "8931087000000000012", true),
            ("8945020184621234567", "8945020184621234567", false),
            ("1234567890123456789", "1234567890123456789", false),
            ("12345678901", "12345678901", false),
        ] {
            let iccid = Iccid::parse(text).unwrap();
            assert_eq!((iccid.as_str(), iccid.passes_luhn()), (stored, luhn), "{text}");
            assert_eq!(iccid.to_string(), stored);
        }
        for text in [
            "",
            "1234567890",
            "123456789012345678901",
            "8931087000000000012FF",
            "89310870000000000X2",
            "F",
        ] {
            assert!(Iccid::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_imsi_is_6_to_15_digits() {
        for (text, fits) in [
            ("204080", true),
            ("204080000000001", true),
            ("20408", false),
            ("2040800000000011", false),
            ("20408000000000a", false),
            ("204 080", false),
            ("", false),
        ] {
            let imsi = Imsi::parse(text).ok();
            let kept = imsi.as_ref().map(Imsi::as_str);
            assert_eq!(kept, fits.then_some(text), "{text:?}");
        }
    }

    #[test]
    fn a_network_has_a_short_plain_name() {
        let long = "N".repeat(32);
        let too_long = "N".repeat(33);
        for (text, fits) in [
            ("KPN", true),
            ("t-mobile_NL2", true),
            (long.as_str(), true),
            (too_long.as_str(), false),
            ("K PN", false),
            ("KPN#", false),
            ("é", false),
            ("", false),
        ] {
            let network = NetworkName::parse(text).ok();
            let kept = network.as_ref().map(NetworkName::as_str);
            assert_eq!(kept, fits.then_some(text), "{text:?}");
        }
    }

    #[test]
    fn names_round_trip() {
        for text in ["MINI_MICRO", "NANO", "MINI_MICRO_NANO", "eSIM"] {
            assert_eq!(text.parse::<FormFactor>().unwrap().as_str(), text);
        }
        for text in ["FREE", "BUSY", "ACTIVATED", "DISABLED"] {
            assert_eq!(text.parse::<SimState>().unwrap().as_str(), text);
        }
    }
}
