//! An e-mail address that is safe in a header and an envelope.

use std::borrow::Cow;
use std::fmt;

use idna::AsciiDenyList;

use crate::Malformed;

/// Exactly one address without a display name, of at most 254 characters (RFC 5321 section 4.5.3.1). `Display` and
/// `Debug` mask it for logs.
#[derive(Clone, PartialEq, Eq)]
pub struct EmailAddress(String);

impl EmailAddress {
    /// Maximum number of characters.
    pub const MAX_LENGTH: usize = 254;

    /// Reads an address: a dot-atom as local part, and a host name with at least two labels. Spaces around it are dropped,
    /// and a host name in Unicode becomes its ASCII form (IDNA). Quoted local parts and address literals are valid in mail
    /// (RFC 5321), but customers do not have them and header injection relies on them.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        const WHAT: Malformed = Malformed("must be one e-mail address without a display name");
        let (local, host) = text.trim().rsplit_once('@').ok_or(WHAT)?;
        let is_atom = |atom: &str| {
            !atom.is_empty()
                && atom
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || !c.is_ascii())
        };
        // An encoded word (RFC 2047) is a valid dot-atom, but can become a line break in a program that decodes it.
        let local_fits = (1..=64).contains(&local.len()) && !local.contains("=?") && local.split('.').all(is_atom);
        let host = match host.is_ascii() {
            true => Cow::Borrowed(host),
            false => idna::domain_to_ascii_cow(host.as_bytes(), AsciiDenyList::STD3).map_err(|_| WHAT)?,
        };
        let label_fits = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        let host_fits = host.contains('.') && host.split('.').all(label_fits);
        let address = format!("{local}@{host}");
        if address.len() > Self::MAX_LENGTH || !local_fits || !host_fits {
            return Err(WHAT);
        }
        match local.is_ascii() {
            true => Ok(Self(address)),
            false => Err(Malformed(
                "must have only ASCII characters before the @, because mail to others cannot be sent",
            )),
        }
    }

    /// The placeholder for an erased address, which nobody can have (RFC 6761 section 6.4).
    pub fn erased() -> Self {
        Self("nobody@erased.invalid".to_owned())
    }

    /// The unmasked address, for the envelope, the table and the echo to the caller.
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
    fn one_plain_address_is_accepted() {
        let long = format!("{}@{}.example", "a".repeat(64), "b".repeat(63));
        let too_long = format!(
            "{}@{}.{}.{}.example",
            "a".repeat(64),
            "b".repeat(63),
            "c".repeat(63),
            "d".repeat(54)
        );
        let longest = too_long.replacen("dd", "d", 1);
        assert_eq!((longest.len(), too_long.len()), (254, 255));
        for (text, fits) in [
            (longest.as_str(), true),
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
            ("a@exam\u{e4} ple.com", false),
            ("\u{202e}a@example.com", false),
            ("jos\u{e9}@example.com", false),
        ] {
            let address = EmailAddress::parse(text).ok();
            let parsed = address.as_ref().map(EmailAddress::as_str);
            assert_eq!(parsed, fits.then_some(text), "{text:?}");
        }
    }

    #[test]
    fn addresses_are_normalized() {
        for (text, stored) in [
            (" anna@example.com\r\n", "anna@example.com"),
            ("\u{a0}Anna@Example.com", "Anna@Example.com"),
            ("anna@b\u{fc}cher.example", "anna@xn--bcher-kva.example"),
            ("anna@B\u{dc}CHER.example", "anna@xn--bcher-kva.example"),
            ("anna@stra\u{df}e.example", "anna@xn--strae-oqa.example"),
            ("anna@\u{4f8b}\u{3048}.jp", "anna@xn--r8jz45g.jp"),
        ] {
            assert_eq!(EmailAddress::parse(text).unwrap().as_str(), stored, "{text:?}");
        }
    }

    #[test]
    fn a_local_part_in_unicode_gets_its_own_message() {
        let message = |text| EmailAddress::parse(text).unwrap_err().0;
        assert!(message("jos\u{e9}@example.com").contains("before the @"));
        assert!(message("jos\u{e9}").contains("one e-mail address"));
        assert!(message("jos\u{e9} <x@example.com").contains("one e-mail address"));
    }

    #[test]
    fn display_and_debug_mask_the_address() {
        let address = EmailAddress::parse("customer@example.com").unwrap();
        assert_eq!(format!("{address} {address:?}"), "c***@example.com c***@example.com");
    }
}
