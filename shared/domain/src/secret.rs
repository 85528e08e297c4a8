//! Values that must not be printed. They have no `Display`, their `Debug` is masked, and only `expose` reads them.

use std::fmt;

use crate::Malformed;

/// Text that is stored encrypted and never printed by accident: a PIN, a PUK or a supplier's activation code.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps any text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself. Each caller of this function is a place where a secret can leak.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("##########")
    }
}

/// The code that a customer enters during the installation of an eSIM: 1 to 10 printable ASCII characters without a
/// space. The SM-DP+ checks the code (SGP.22 section 5.3.2); we only pass it on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfirmationCode(Secret);

impl ConfirmationCode {
    /// Maximum number of characters.
    pub const MAX_LENGTH: usize = 10;

    /// Reads a code as callers write it.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let fits = (1..=Self::MAX_LENGTH).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        fits.then(|| Self(Secret::new(text)))
            .ok_or(Malformed("must be 1 to 10 printable ASCII characters without space"))
    }

    /// The code itself, for ES2+, the sealed field and the echo to the caller.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }
}

/// Identifies one ordered profile at the SM-DP+ (SGP.22 section 4.1.1). It is a secret, because anyone who has it can
/// download the profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatchingId(Secret);

impl MatchingId {
    /// 32 symbols without `0`, `1`, `I` and `O`, which are easily confused.
    const ALPHABET: &[u8; 32] = b"23456789ABCDEFGHJKLMNPQRSTUVWXYZ";

    /// A new id, `XXXXX-XXXXX-XXXXX`, which contains the lower 75 bits of `random`.
    pub fn from_random(random: u128) -> Self {
        let mut text = String::with_capacity(17);
        for position in 0..15 {
            if position == 5 || position == 10 {
                text.push('-');
            }
            let symbol = (random >> (5 * position)) & 31;
            text.push(char::from(Self::ALPHABET[symbol as usize]));
        }
        Self(Secret::new(text))
    }

    /// Reads an id: 1 to 64 characters of `[0-9A-Z-]`.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let fits = (1..=64).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_digit() || b.is_ascii_uppercase() || b == b'-');
        fits.then(|| Self(Secret::new(text)))
            .ok_or(Malformed("must be 1 to 64 of 0-9, A-Z and dash"))
    }

    /// The id itself, for ES2+, the sealed field and the activation code.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_confirmation_code_has_1_to_10_printable_characters() {
        for (text, fits) in [
            ("8E9!#", true),
            ("1234567890", true),
            ("~", true),
            ("", false),
            ("12345678901", false),
            ("a b", false),
            ("é", false),
            ("a\n", false),
        ] {
            let code = ConfirmationCode::parse(text).ok();
            let parsed = code.as_ref().map(ConfirmationCode::expose);
            assert_eq!(parsed, fits.then_some(text), "{text:?}");
        }
    }

    #[test]
    fn nothing_prints_a_secret() {
        let code = ConfirmationCode::parse("8E9!#").unwrap();
        assert_eq!(format!("{code:?}"), "ConfirmationCode(##########)");
        let id = MatchingId::from_random(7);
        assert_eq!(format!("{id:?}"), "MatchingId(##########)");
    }

    #[test]
    fn matching_ids_have_the_shape_of_the_standard_and_75_bits() {
        let id = MatchingId::from_random(u128::MAX);
        assert_eq!(id.expose(), "ZZZZZ-ZZZZZ-ZZZZZ");
        assert_eq!(MatchingId::parse(id.expose()).unwrap(), id);
        assert_eq!(MatchingId::from_random(1 << 74).expose(), "22222-22222-2222J");
        assert!(MatchingId::parse("abc").is_err());
    }
}
