//! SIM cards and eSIM profiles, identified by their ICCID.

use std::fmt;

use jiff::Timestamp;

use crate::{ActivationId, Malformed, Secret, SubscriptionId, SwapKind, named_enum};

/// Identifier of a SIM (ITU-T E.118): 11 to 20 digits, stored without the filler `F`. The check digit is not enforced,
/// because samples of the existing APIs fail the Luhn check; see [`Iccid::passes_luhn`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Iccid(String);

impl Iccid {
    /// Reads the digits, with one optional trailing filler `F`.
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

/// Identity of a subscriber in the mobile network (ITU-T E.212): 6 to 15 digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imsi(String);

impl Imsi {
    /// Reads the digits.
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

/// Name of a mobile network, such as `KPN` or `TELENOR`: 1 to 32 characters of `[A-Za-z0-9_-]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NetworkName(String);

impl NetworkName {
    /// Reads a name.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let fits = (1..=32).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        fits.then(|| Self(text.to_owned()))
            .ok_or(Malformed("must be 1 to 32 of A-Z, a-z, 0-9, _ and -"))
    }

    /// The name as a text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

named_enum! {
    /// The size of a card, or an eSIM profile. The names are those of the account dialect and of stock files.
    pub enum FormFactor {
        /// A card for mini and micro slots.
        MiniMicro = "MINI_MICRO",
        /// A nano card.
        Nano = "NANO",
        /// A card that breaks out to all three sizes.
        MiniMicroNano = "MINI_MICRO_NANO",
        /// A profile, which is ordered over ES2+.
        Esim = "eSIM",
    }
    FromStr { compare: str::eq, error: "must be MINI_MICRO, NANO, MINI_MICRO_NANO or eSIM" }
}

named_enum! {
    /// The state of a SIM. The names are the stored ones.
    pub enum SimState {
        /// In stock. After a swap that failed, an eSIM cools down before it can be used.
        Free = "FREE",
        /// Reserved by an open swap.
        Busy = "BUSY",
        /// In use: the current SIM of a line.
        Activated = "ACTIVATED",
        /// Never to be used again.
        Disabled = "DISABLED",
    }
    FromStr { compare: str::eq, error: "must be FREE, BUSY, ACTIVATED or DISABLED" }
}

/// A SIM in stock or in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sim {
    /// The identifier of the SIM.
    pub iccid: Iccid,
    /// The subscriber identity; unknown for some SIMs in stock.
    pub imsi: Option<Imsi>,
    /// The network whose lines the SIM can serve.
    pub network: NetworkName,
    /// The reseller who bought the SIM; `None` if lines of every reseller can use it.
    pub reseller: Option<String>,
    /// The size of the card, or an eSIM profile.
    pub form_factor: FormFactor,
    /// Whether `autoAssign` may pick the SIM.
    pub auto_assign: bool,
    /// The state.
    pub state: SimState,
    /// The earliest time at which a free SIM may be used.
    pub free_from: Timestamp,
    /// The swap that reserves the SIM, the line that uses it, or the line that it is kept for.
    pub holder: Option<Holder>,
    /// PIN 1.
    pub pin1: Option<Secret>,
    /// PIN 2.
    pub pin2: Option<Secret>,
    /// PUK 1.
    pub puk1: Option<Secret>,
    /// PUK 2.
    pub puk2: Option<Secret>,
    /// The activation code that the supplier printed on an eSIM's card. It is stored but not used.
    pub supplier_code: Option<Secret>,
    /// The batch mark of the stock file.
    pub tag: Option<String>,
    /// Whether a caller saw the PINs and PUKs for a swap that failed. Such a SIM is in no pool.
    pub codes_shown: bool,
}

impl Sim {
    /// A free SIM of a network, for all resellers. It is not assigned automatically, and has no IMSI and no codes.
    pub fn free(iccid: Iccid, network: NetworkName, form_factor: FormFactor) -> Self {
        Self {
            iccid,
            imsi: None,
            network,
            reseller: None,
            form_factor,
            auto_assign: false,
            state: SimState::Free,
            free_from: Timestamp::UNIX_EPOCH,
            holder: None,
            pin1: None,
            pin2: None,
            puk1: None,
            puk2: None,
            supplier_code: None,
            tag: None,
            codes_shown: false,
        }
    }

    /// Whether the SIM is an eSIM or a card.
    pub fn kind(&self) -> SwapKind {
        match self.form_factor {
            FormFactor::Esim => SwapKind::Esim,
            _ => SwapKind::Physical,
        }
    }
}

/// The owner of a SIM that is not in a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// An open swap.
    Swap(ActivationId),
    /// A line: the SIM is its current one, or is free and kept for it.
    Line(SubscriptionId),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_esim_is_no_card() {
        for form in FormFactor::ALL {
            let iccid = Iccid::parse("8931086000000000013").unwrap();
            let sim = Sim::free(iccid, NetworkName::parse("KPN").unwrap(), form);
            let kind = if form == FormFactor::Esim {
                SwapKind::Esim
            } else {
                SwapKind::Physical
            };
            assert_eq!(sim.kind(), kind, "{}", form.as_str());
        }
    }

    #[test]
    fn iccids_have_11_to_20_digits_and_may_fail_luhn() {
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
            let parsed = imsi.as_ref().map(Imsi::as_str);
            assert_eq!(parsed, fits.then_some(text), "{text:?}");
        }
    }

    #[test]
    fn a_network_name_has_1_to_32_plain_characters() {
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
            let parsed = network.as_ref().map(NetworkName::as_str);
            assert_eq!(parsed, fits.then_some(text), "{text:?}");
        }
    }

    #[test]
    fn names_are_read_and_written() {
        for text in ["MINI_MICRO", "NANO", "MINI_MICRO_NANO", "eSIM"] {
            assert_eq!(text.parse::<FormFactor>().unwrap().as_str(), text);
        }
        for text in ["FREE", "BUSY", "ACTIVATED", "DISABLED"] {
            assert_eq!(text.parse::<SimState>().unwrap().as_str(), text);
        }
    }
}
