//! A line of service, called a subscription in one of the existing APIs and an MVNO account in the other.

use std::fmt;

use jiff::Timestamp;

use crate::{ActivationId, EmailAddress, Iccid, Malformed, Msisdn, NetworkName, SwapKind, named_enum};

/// Name of a line: 1 to 64 characters of `[A-Za-z0-9_-]`. Case is ignored in a name of 24 hex characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SubscriptionId(String);

impl SubscriptionId {
    /// Maximum number of characters.
    pub const MAX_LENGTH: usize = 64;

    /// Reads a name as callers write it. A name of 24 hex characters becomes lower case.
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

    /// The name as a text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SubscriptionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

named_enum! {
    /// The state of a line. The names are those of the store and of import files.
    pub enum LineState {
        /// In use.
        Active = "ACTIVE",
        /// Not in use yet.
        Creating = "CREATING",
        /// Being removed.
        Deleting = "DELETING",
        /// Suspended.
        Blocked = "BLOCKED",
    }
    FromStr { compare: str::eq, error: "must be ACTIVE, CREATING, DELETING or BLOCKED" }
}

named_enum! {
    /// The language of the mails to a customer. The names are ISO 639-1 codes.
    #[derive(Default)]
    pub enum Language {
        /// Dutch.
        Nl = "nl",
        /// Danish.
        Da = "da",
        /// German.
        De = "de",
        /// French.
        Fr = "fr",
        /// English.
        #[default]
        En = "en",
    }
    FromStr { compare: str::eq, error: "must be nl, da, de, fr or en" }
}

/// A line of service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The name of the line.
    pub id: SubscriptionId,
    /// The phone number.
    pub phone: Msisdn,
    /// The customer who owns the line.
    pub customer: String,
    /// The reseller of that customer; `None` for a direct customer.
    pub reseller: Option<String>,
    /// The mobile network of the line.
    pub network: NetworkName,
    /// The SIM that the number is on.
    pub current_sim: Iccid,
    /// The customer's contact address.
    pub email: Option<EmailAddress>,
    /// The customer's language.
    pub language: Language,
    /// The state.
    pub state: LineState,
    /// Whether the number is being ported to or from another provider.
    pub porting: bool,
    /// Whether the customer locked the line against swaps.
    pub locked: bool,
    /// The open swap, if there is one.
    pub open_swap: Option<ActivationId>,
    /// A free card that is kept for this line.
    pub kept_card: Option<KeptSim>,
    /// A free eSIM that is kept for this line.
    pub kept_esim: Option<KeptSim>,
}

/// A free SIM that is kept for one line, because a caller has seen its PINs and PUKs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptSim {
    /// The SIM.
    pub iccid: Iccid,
    /// The earliest time at which it may be used.
    pub from: Timestamp,
}

/// Why a line cannot be swapped at present, in the order in which the subscription API reports the reasons.
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
    /// Why no new swap of the line can begin; `None` if one can. The transaction of a new swap repeats this as conditions
    /// on the line's row, so that of two requests at the same moment only one begins a swap.
    pub fn swap_blocker(&self) -> Option<SwapBlocker> {
        let open = self.open_swap.clone().map(SwapBlocker::SwapInProgress);
        open.or_else(|| self.line_blocker())
    }

    /// Why the line cannot be swapped, apart from an open swap: it is locked, porting or not ACTIVE.
    pub fn line_blocker(&self) -> Option<SwapBlocker> {
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
    pub fn kept_sim(&self, kind: SwapKind) -> Option<&KeptSim> {
        match kind {
            SwapKind::Esim => self.kept_esim.as_ref(),
            SwapKind::Physical => self.kept_card.as_ref(),
        }
    }
}

impl SwapBlocker {
    /// The text of the timeline entry.
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

    /// A line that can be swapped.
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
    fn subscription_ids_are_checked_and_normalized() {
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
    fn a_line_keeps_one_sim_of_each_kind() {
        let kept = |iccid| KeptSim {
            iccid: Iccid::parse(iccid).unwrap(),
            from: jiff::Timestamp::UNIX_EPOCH,
        };
        let line = Line {
            kept_card: Some(kept("8931086000000000021")),
            kept_esim: Some(kept("8931086000000002019")),
            ..line()
        };
        assert_eq!(line.kept_sim(SwapKind::Physical), line.kept_card.as_ref());
        assert_eq!(line.kept_sim(SwapKind::Esim), line.kept_esim.as_ref());
    }

    #[test]
    fn the_timeline_says_why_a_line_cannot_be_swapped() {
        let open = crate::ActivationId::parse("A-1").unwrap();
        for (blocker, words) in [
            (SwapBlocker::SwapInProgress(open), "a swap is open"),
            (SwapBlocker::Locked, "the line is locked"),
            (SwapBlocker::Blocked, "the line is not active"),
            (SwapBlocker::Porting, "the number is being ported"),
        ] {
            assert_eq!(blocker.as_str(), words);
        }
    }

    #[test]
    fn states_and_languages_are_read_by_name() {
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
    fn swap_blockers_have_a_fixed_order() {
        let mut line = line();
        assert_eq!(line.swap_blocker(), None);
        line.porting = true;
        assert_eq!(line.swap_blocker(), Some(SwapBlocker::Porting));
        for state in [LineState::Creating, LineState::Deleting, LineState::Blocked] {
            line.state = state;
            assert_eq!(line.swap_blocker(), Some(SwapBlocker::Blocked));
        }
        line.locked = true;
        assert_eq!(line.swap_blocker(), Some(SwapBlocker::Locked));
        let open = ActivationId::parse("X1").unwrap();
        line.open_swap = Some(open.clone());
        assert_eq!(line.swap_blocker(), Some(SwapBlocker::SwapInProgress(open)));
    }
}
