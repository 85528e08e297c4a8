//! A line of service: what seed A calls an MVNO account and seed B a subscription.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;

use crate::{ActivationId, EmailAddress, Iccid, Malformed, Msisdn, NetworkName, SwapKind};

/// Name of a line: 1 to 64 of `[A-Za-z0-9_-]`. One of 24 hex characters is the same in either case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SubscriptionId(String);

impl SubscriptionId {
    /// Characters at most.
    pub const MAX_LENGTH: usize = 64;

    /// Takes a caller's spelling; 24 hex characters become lower case.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let fits = (1..=Self::MAX_LENGTH).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if !fits {
            return Err(Malformed("must be 1 to 64 of A-Z, a-z, 0-9, _ and -"));
        }
        let hex = text.len() == 24 && text.bytes().all(|b| b.is_ascii_hexdigit());
        Ok(Self(if hex {
            text.to_ascii_lowercase()
        } else {
            text.to_owned()
        }))
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SubscriptionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a line is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineState {
    /// In use.
    Active,
    /// Not in use yet.
    Creating,
    /// On its way out.
    Deleting,
    /// Barred.
    Blocked,
}

impl LineState {
    /// As stored and imported.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Creating => "CREATING",
            Self::Deleting => "DELETING",
            Self::Blocked => "BLOCKED",
        }
    }
}

impl FromStr for LineState {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        [Self::Active, Self::Creating, Self::Deleting, Self::Blocked]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or(Malformed("must be ACTIVE, CREATING, DELETING or BLOCKED"))
    }
}

/// Language of the mails to a customer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Language {
    /// Dutch.
    Nl,
    /// Danish.
    Da,
    /// German.
    De,
    /// French.
    Fr,
    /// English.
    #[default]
    En,
}

impl Language {
    /// All five.
    pub const ALL: [Self; 5] = [Self::Nl, Self::Da, Self::De, Self::Fr, Self::En];

    /// ISO 639-1 code.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nl => "nl",
            Self::Da => "da",
            Self::De => "de",
            Self::Fr => "fr",
            Self::En => "en",
        }
    }
}

impl FromStr for Language {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        Self::ALL
            .into_iter()
            .find(|language| language.as_str() == text)
            .ok_or(Malformed("must be nl, da, de, fr or en"))
    }
}

/// A line of service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its name.
    pub id: SubscriptionId,
    /// Its number.
    pub phone: Msisdn,
    /// The customer who pays for it.
    pub customer: String,
    /// The reseller of that customer; `None` where the operator sells directly.
    pub reseller: Option<String>,
    /// The network it runs on.
    pub network: NetworkName,
    /// The SIM that the number is on.
    pub current_sim: Iccid,
    /// The customer's contact address.
    pub email: Option<EmailAddress>,
    /// The customer's language.
    pub language: Language,
    /// Where it is in its life.
    pub state: LineState,
    /// Whether the number is moving to or from another operator.
    pub porting: bool,
    /// Whether the customer locked it against swaps.
    pub locked: bool,
    /// The open swap, if there is one.
    pub open_swap: Option<ActivationId>,
    /// A card that only this line may take.
    pub kept_card: Option<KeptSim>,
    /// An eSIM that only this line may take.
    pub kept_esim: Option<KeptSim>,
}

/// A free SIM that goes to no other line, because a caller has seen its PINs and PUKs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptSim {
    /// The SIM.
    pub iccid: Iccid,
    /// The earliest time at which it may be used.
    pub from: Timestamp,
}

/// Why a line takes no swap now, in the order in which the contract names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SwapBlocker {
    /// Another swap is open.
    SwapInProgress(ActivationId),
    /// The customer locked the line.
    Locked,
    /// The line is not ACTIVE.
    Blocked,
    /// The number is being ported.
    Porting,
}

impl Line {
    /// What stands in the way of a swap.
    pub fn barrier(&self) -> Option<SwapBlocker> {
        let open = self.open_swap.clone().map(SwapBlocker::SwapInProgress);
        open.or_else(|| self.bar())
    }

    /// What keeps the line on its SIM, whether a swap is open or not.
    pub fn bar(&self) -> Option<SwapBlocker> {
        if self.locked {
            Some(SwapBlocker::Locked)
        } else if self.state != LineState::Active {
            Some(SwapBlocker::Blocked)
        } else if self.porting {
            Some(SwapBlocker::Porting)
        } else {
            None
        }
    }

    /// The SIM of this kind that is kept for the line.
    pub fn kept(&self, kind: SwapKind) -> Option<&KeptSim> {
        match kind {
            SwapKind::Esim => self.kept_esim.as_ref(),
            SwapKind::Physical => self.kept_card.as_ref(),
        }
    }
}

impl SwapBlocker {
    /// In words, for a timeline.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::SwapInProgress(_) => "a swap is open",
            Self::Locked => "the line is locked",
            Self::Blocked => "the line is not active",
            Self::Porting => "the number is being ported",
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A line that takes a swap.
    pub(crate) fn line() -> Line {
        Line {
            id: SubscriptionId::parse("line-1").unwrap(),
            phone: Msisdn::parse("0612345601").unwrap(),
            customer: "C-100".to_owned(),
            reseller: None,
            network: NetworkName::parse("KPN").unwrap(),
            current_sim: Iccid::parse("8931086000000000013").unwrap(),
            email: None,
            language: Language::Nl,
            state: LineState::Active,
            porting: false,
            locked: false,
            open_swap: None,
            kept_card: None,
            kept_esim: None,
        }
    }

    #[test]
    fn subscription_id_rule() {
        for (text, stored) in [
            ("1234567890ABCDEF12345678", Some("1234567890abcdef12345678")),
            ("1234567890abcdef12345678", Some("1234567890abcdef12345678")),
            ("ABCDEF", Some("ABCDEF")),
            ("a_b-C1", Some("a_b-C1")),
            ("", None),
            ("a b", None),
            ("###3Vp17###7Xg79e", None),
            ("é", None),
        ] {
            let parsed = SubscriptionId::parse(text).ok();
            assert_eq!(parsed.as_ref().map(SubscriptionId::as_str), stored, "{text:?}");
            assert_eq!(parsed.map(|id| id.to_string()).as_deref(), stored);
        }
        assert!(SubscriptionId::parse(&"a".repeat(64)).is_ok());
        assert!(SubscriptionId::parse(&"a".repeat(65)).is_err());
    }

    #[test]
    fn states_and_languages_by_name() {
        for text in ["ACTIVE", "CREATING", "DELETING", "BLOCKED"] {
            assert_eq!(text.parse::<LineState>().unwrap().as_str(), text);
        }
        assert_eq!(Language::ALL.map(Language::as_str), ["nl", "da", "de", "fr", "en"]);
        for language in Language::ALL {
            assert_eq!(language.as_str().parse(), Ok(language));
        }
        assert!("active".parse::<LineState>().is_err() && "it".parse::<Language>().is_err());
    }

    #[test]
    fn barriers_come_in_the_contract_s_order() {
        let mut line = line();
        assert_eq!(line.barrier(), None);
        line.porting = true;
        assert_eq!(line.barrier(), Some(SwapBlocker::Porting));
        for state in [LineState::Creating, LineState::Deleting, LineState::Blocked] {
            line.state = state;
            assert_eq!(line.barrier(), Some(SwapBlocker::Blocked));
        }
        line.locked = true;
        assert_eq!(line.barrier(), Some(SwapBlocker::Locked));
        let open = ActivationId::parse("X1").unwrap();
        line.open_swap = Some(open.clone());
        assert_eq!(line.barrier(), Some(SwapBlocker::SwapInProgress(open)));
    }
}
