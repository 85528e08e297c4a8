//! The activation code of an eSIM (SGP.22 section 4.1), and the links that open it on a phone.

use std::fmt;
use std::net::Ipv4Addr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::{Malformed, MatchingId};

/// Address of an SM-DP+: a host name of at most 128 characters, and the port if it is not 443. It contains no `$`,
/// which separates the fields of the activation code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmDpAddress(String);

impl SmDpAddress {
    /// Reads `host` or `host:port` without changing it.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        };
        let fits = is_host(host) && port.is_none_or(is_port);
        fits.then(|| Self(text.to_owned()))
            .ok_or(Malformed("must be a host name, with a port if need be"))
    }

    /// Reads an address as SM-DP+s write it: with surrounding spaces, in capitals, or as a URL. The result is `host` or
    /// `host:port` in lower case.
    pub fn normalized(text: &str) -> Result<Self, Malformed> {
        let text = text.trim().to_ascii_lowercase();
        let address = text.split_once("://").map_or(&*text, |(_, rest)| rest);
        let end = address.find(['/', '?', '#']).unwrap_or(address.len());
        Self::parse(&address[..end])
    }

    /// `host` or `host:port`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether the text is a host name: labels of letters, digits and inner hyphens. If the last label is a number, the
/// text has to be an IPv4 address.
fn is_host(text: &str) -> bool {
    let labels = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let last = labels.rsplit('.').next().unwrap_or_default();
    text.len() <= 128 && labels.split('.').all(is_label) && (!is_digits(last) || text.parse::<Ipv4Addr>().is_ok())
}

/// Whether the text is a number from 1 to 65535.
fn is_port(text: &str) -> bool {
    // The length is bounded, or leading zeros would make the address longer than a QR code may be.
    text.len() <= 5 && is_digits(text) && text.parse().is_ok_and(|port: u16| port > 0)
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit())
}

/// The content of the QR code. Anyone who has it, and the confirmation code if one is required, can take over the line.
#[derive(Clone, PartialEq, Eq)]
pub struct ActivationCode {
    smdp: SmDpAddress,
    matching_id: MatchingId,
    requires_confirmation: bool,
}

/// All characters except the unreserved ones of RFC 3986 section 2.3.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

impl ActivationCode {
    /// `requires_confirmation` sets the flag that makes the phone ask the customer for the confirmation code.
    pub fn new(smdp: SmDpAddress, matching_id: MatchingId, requires_confirmation: bool) -> Self {
        Self {
            smdp,
            matching_id,
            requires_confirmation,
        }
    }

    /// Reads `LPA:1$…` or `1$…`. The case of the prefix is ignored, and so is an object identifier in the fourth field.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        const WHAT: Malformed = Malformed("must be an activation code, LPA:1$<SM-DP+>$<matching id>");
        let prefixed = text.get(..4).is_some_and(|p| p.eq_ignore_ascii_case("LPA:"));
        let code = if prefixed { &text[4..] } else { text };
        let fields: Vec<&str> = code.split('$').collect();
        let requires_confirmation = match fields.as_slice() {
            ["1", _, _] | ["1", _, _, _] => false,
            ["1", _, _, _, "1"] => true,
            _ => return Err(WHAT),
        };
        Ok(Self {
            smdp: SmDpAddress::parse(fields[1]).map_err(|_| WHAT)?,
            matching_id: MatchingId::parse(fields[2]).map_err(|_| WHAT)?,
            requires_confirmation,
        })
    }

    /// The address of the SM-DP+: the first of the two texts for manual entry.
    pub fn smdp(&self) -> &SmDpAddress {
        &self.smdp
    }

    /// The id of the profile there: the second of the two texts for manual entry.
    pub fn matching_id(&self) -> &MatchingId {
        &self.matching_id
    }

    /// Whether the phone asks the customer for the confirmation code.
    pub fn requires_confirmation(&self) -> bool {
        self.requires_confirmation
    }

    /// The text of the QR code, with the prefix `LPA:`.
    pub fn expose(&self) -> String {
        let flag = if self.requires_confirmation { "$$1" } else { "" };
        format!("LPA:1${}${}{flag}", self.smdp.0, self.matching_id.expose())
    }

    /// A link that installs the eSIM on an iPhone or iPad, with iOS 17.4 or later.
    pub fn apple_link(&self) -> String {
        self.link("esimsetup.apple.com")
    }

    /// A link that installs the eSIM on an Android phone.
    pub fn android_link(&self) -> String {
        self.link("esimsetup.android.com")
    }

    fn link(&self, host: &str) -> String {
        let code = self.expose();
        let carddata = utf8_percent_encode(&code, ENCODED);
        format!("https://{host}/esim_qrcode_provisioning?carddata={carddata}")
    }
}

impl fmt::Debug for ActivationCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LPA:1${}$##########", self.smdp.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_standard_are_read() {
        let base = "1$SMDP.EXAMPLE.COM$04386-AGYFT-A74Y8-3F815";
        for (tail, required) in [
            ("", false),
            ("$$1", true),
            ("$1.3.6.1.4.1.31746$1", true),
            ("$1.3.6.1.4.1.31746", false),
        ] {
            for prefix in ["", "LPA:", "lpa:"] {
                let code = ActivationCode::parse(&format!("{prefix}{base}{tail}")).unwrap();
                assert_eq!(code.requires_confirmation(), required);
                let flag = if required { "$$1" } else { "" };
                assert_eq!(code.expose(), format!("LPA:{base}{flag}"));
            }
        }
        for text in [
            "",
            "1$",
            "LPA:1$",
            "1$SMDP.EXAMPLE.COM",
            "2$SMDP.EXAMPLE.COM$A",
            "1$$A",
            "1$a b$A",
            "1$SMDP.EXAMPLE.COM$A$$2",
            "1$SMDP.EXAMPLE.COM$A$$1$",
            "LPÄ:1$A$B",
        ] {
            assert!(ActivationCode::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn links_contain_the_encoded_code() {
        let code = ActivationCode::parse("LPA:1$smdp.example.test$QX7PD-3M8ZK-A91TR$$1").unwrap();
        assert_eq!(
            code.apple_link(),
            "https://esimsetup.apple.com/esim_qrcode_provisioning?carddata=LPA%3A1%24smdp.example.test%24QX7PD-3M8ZK-A91TR%24%241"
        );
        assert!(
            code.android_link()
                .starts_with("https://esimsetup.android.com/esim_qrcode_provisioning?carddata=LPA%3A1%24")
        );
        assert_eq!(format!("{code:?}"), "LPA:1$smdp.example.test$##########");
    }

    #[test]
    fn an_address_is_a_host_with_an_optional_port() {
        let long = format!("{}.example.com", "a".repeat(116));
        for text in [
            "smdp.example.com",
            "SMDP.EXAMPLE.COM",
            "smdp.example.com.",
            "smdp.example.com:8443",
            "smdp.example.com:1",
            "smdp.example.com:65535",
            "1-2.example.com",
            "localhost",
            "127.0.0.1:9000",
            long.as_str(),
        ] {
            let address = SmDpAddress::parse(text).unwrap();
            assert_eq!(address.as_str(), text);
            let code = format!("LPA:1${text}$A91TR");
            assert_eq!(ActivationCode::parse(&code).unwrap().expose(), code);
        }
        let too_long = format!("a{long}");
        for text in [
            "",
            ".",
            "-",
            "a b",
            " smdp.example.com",
            "smdp.example.com:000443",
            "smdp..example.com",
            ".example.com",
            "-smdp.example.com",
            "smdp-.example.com",
            "smdp_1.example.com",
            "smdp.example.com:",
            "smdp.example.com:0",
            "smdp.example.com:65536",
            "smdp.example.com:+443",
            "smdp.example.com:8443:1",
            "smdp.example.com$A",
            "https://smdp.example.com",
            "12",
            "127.0.0.256",
            "[::1]:9000",
            ":8443",
            too_long.as_str(),
        ] {
            assert!(SmDpAddress::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_address_is_normalized() {
        for (text, expected) in [
            ("smdp.example.com", Some("smdp.example.com")),
            (" SMDP.example.COM\r\n", Some("smdp.example.com")),
            ("SMDP.example.com:8443", Some("smdp.example.com:8443")),
            ("https://SMDP.example.com:8443/", Some("smdp.example.com:8443")),
            ("HTTPS://smdp.example.com", Some("smdp.example.com")),
            ("http://smdp.example.com/gsma/rsp2?x=1#y", Some("smdp.example.com")),
            ("smdp.example.com/gsma", Some("smdp.example.com")),
            ("", None),
            ("https://", None),
            ("https:///gsma", None),
            ("https://anna@smdp.example.com", None),
            ("https://https://smdp.example.com", None),
            ("smdp.example.com, smdp2.example.com", None),
            ("not a host", None),
        ] {
            let address = SmDpAddress::normalized(text).ok();
            assert_eq!(address.as_ref().map(SmDpAddress::as_str), expected, "{text:?}");
        }
    }

    #[test]
    fn a_port_is_encoded_in_a_link() {
        let code = ActivationCode::parse("LPA:1$smdp.example.test:8443$A91TR").unwrap();
        let link = code.apple_link();
        assert!(
            link.ends_with("carddata=LPA%3A1%24smdp.example.test%3A8443%24A91TR"),
            "{link}"
        );
    }
}
