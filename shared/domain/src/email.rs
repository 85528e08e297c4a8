//! One e-mail address, as it may stand in a header and an envelope.

use std::fmt;

use crate::Malformed;

/// Exactly one address without display name, at most 254 characters (RFC 5321 section 4.5.3.1). `Display` masks it for logs.
#[derive(Clone, PartialEq, Eq)]
pub struct EmailAddress(String);

impl EmailAddress {
    /// Characters at most.
    pub const MAX_LENGTH: usize = 254;

    /// Takes a dot-atom local part and a host name with at least two labels. Quoted local parts and address literals
    /// are legal mail but no customer has one, and they are how header injection begins.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        const WHAT: Malformed = Malformed("must be one e-mail address without display name");
        let (local, host) = text.rsplit_once('@').ok_or(WHAT)?;
        // An encoded word (RFC 2047) is a dot-atom to us and a line break to a reader that decodes it.
        let local_fits = (1..=64).contains(&local.len())
            && !local.contains("=?")
            && local.split('.').all(|atom| {
                !atom.is_empty()
                    && atom
                        .chars()
                        .all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c))
            });
        let label_fits = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        let host_fits = host.contains('.') && host.split('.').all(label_fits);
        (text.len() <= Self::MAX_LENGTH && local_fits && host_fits)
            .then(|| Self(text.to_owned()))
            .ok_or(WHAT)
    }

    /// What stands for an address that is erased: nobody can have it (RFC 6761 section 6.4).
    pub fn erased() -> Self {
        Self("nobody@erased.invalid".to_owned())
    }

    /// The address itself, for the envelope, the table and the caller's own echo.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EmailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.0.rfind('@').unwrap_or(0);
        write!(f, "{}***{}", &self.0[..1], &self.0[at..])
    }
}

impl fmt::Debug for EmailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule() {
        let long = format!("{}@{}.example", "a".repeat(64), "b".repeat(63));
        let too_long = format!(
            "{}@{}.{}.{}.example",
            "a".repeat(64),
            "b".repeat(63),
            "c".repeat(63),
            "d".repeat(63)
        );
        for (text, fits) in [
            ("customer@example.com", true),
            ("o'neil+esim@mail.example.co.uk", true),
            (long.as_str(), true),
            (too_long.as_str(), false),
            ("", false),
            ("customer", false),
            ("@example.com", false),
            ("customer@", false),
            ("customer@localhost", false),
            ("a@example.com,b@example.com", false),
            ("a@b@example.com", false),
            ("Anna <anna@example.com>", false),
            ("a b@example.com", false),
            ("a@example.com\r\nBcc: x@example.com", false),
            ("a..b@example.com", false),
            ("=?utf-8?q?x=0D=0A?=@example.com", false),
            ("a@-example.com", false),
            ("a@exam\u{7f}ple.com", false),
        ] {
            let address = EmailAddress::parse(text).ok();
            let kept = address.as_ref().map(EmailAddress::as_str);
            assert_eq!(kept, fits.then_some(text), "{text:?}");
        }
    }

    #[test]
    fn display_masks() {
        let address = EmailAddress::parse("customer@example.com").unwrap();
        assert_eq!(format!("{address} {address:?}"), "c***@example.com c***@example.com");
    }
}
