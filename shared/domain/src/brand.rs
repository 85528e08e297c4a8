//! The brand of a reseller: how mails to its customers look, and where these customers get help. The layout of the mails
//! is not here.

use std::fmt;

use crate::{EmailAddress, Malformed, is_plain};

/// How mails present a reseller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Brand {
    /// The name that customers know.
    pub name: BrandName,
    /// The display name of the sender. If it is absent, mails show the sender's address only.
    pub sender: Option<BrandName>,
    /// The colour of buttons.
    pub colour: Option<Colour>,
    /// The picture that stands in place of the name.
    pub logo: Option<Logo>,
    /// Where customers get help.
    pub support: Option<SupportContact>,
    /// The address that replies go to. If it is absent, they go to the sender's address.
    pub reply_to: Option<EmailAddress>,
}

impl Brand {
    /// This brand with what it lacks: the sender has the brand's own name, and `default` has the support contact and the
    /// address for replies.
    pub fn completed_from(self, default: &Self) -> Self {
        Self {
            sender: self.sender.or_else(|| Some(self.name.clone())),
            support: self.support.or_else(|| default.support.clone()),
            reply_to: self.reply_to.or_else(|| default.reply_to.clone()),
            ..self
        }
    }
}

/// A name that is safe in a header and on a terminal: 1 to 64 characters on one line, without quotes and angle brackets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrandName(String);

impl BrandName {
    /// Reads a name. Spaces around it are dropped.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let name = text.trim();
        let fits = (1..=64).contains(&name.chars().count()) && is_plain(name);
        // An encoded word (RFC 2047) can become a line break in a program that decodes it.
        let is_safe = !name.contains(['<', '>', '"', '\\']) && !name.contains("=?");
        (fits && is_safe).then(|| Self(name.to_owned())).ok_or(Malformed(
            "must be 1 to 64 characters on one line, without < > \" and \\",
        ))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BrandName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A colour: red, green and blue. `Display` writes it as CSS does: `#1553c7`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Colour([u8; 3]);

impl Colour {
    /// Reads a colour like `#1553c7`.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let digits = text.strip_prefix('#').filter(|digits| digits.len() == 6);
        let rgb = digits
            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|digits| u32::from_str_radix(digits, 16).ok())
            .ok_or(Malformed("must be a colour like #1553c7"))?;
        let [_, rgb @ ..] = rgb.to_be_bytes();
        Ok(Self(rgb))
    }

    /// The colour of text on this colour: white if that has the contrast 4.5:1 (WCAG 2.2, 1.4.3), and black otherwise.
    /// Each colour has this contrast with at least one of the two.
    pub fn text(&self) -> &'static str {
        match contrast(self.0, [255; 3]) >= 4.5 {
            true => "#ffffff",
            false => "#000000",
        }
    }
}

impl Default for Colour {
    fn default() -> Self {
        Self([0x15, 0x53, 0xc7])
    }
}

impl fmt::Display for Colour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [red, green, blue] = self.0;
        write!(f, "#{red:02x}{green:02x}{blue:02x}")
    }
}

/// The contrast ratio of two colours, 1 to 21 (WCAG 2.2).
fn contrast(one: [u8; 3], other: [u8; 3]) -> f64 {
    let luminance = |rgb: [u8; 3]| {
        let [red, green, blue] = rgb.map(|value| match f64::from(value) / 255.0 {
            low @ ..=0.04045 => low / 12.92,
            high => ((high + 0.055) / 1.055).powf(2.4),
        });
        0.2126 * red + 0.7152 * green + 0.0722 * blue
    };
    let (one, other) = (luminance(one), luminance(other));
    (one.max(other) + 0.05) / (one.min(other) + 0.05)
}

/// A PNG of at most 16 KiB and 1200 × 400 pixels.
#[derive(Clone, PartialEq, Eq)]
pub struct Logo {
    png: Vec<u8>,
    width: u32,
    height: u32,
}

impl Logo {
    const MAX_BYTES: usize = 16 * 1024;

    /// Checks the start of the file, which has its size in pixels, and its end, which a truncated file lacks. It does not
    /// decode the picture.
    pub fn parse(png: Vec<u8>) -> Result<Self, Malformed> {
        const WHAT: Malformed = Malformed("must be a PNG of at most 16 KiB and 1200 x 400 pixels");
        const START: &[u8; 16] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
        const END: &[u8; 12] = b"\0\0\0\0IEND\xaeB`\x82";
        let size = png.strip_prefix(START).ok_or(WHAT)?;
        let (width, rest) = size.split_first_chunk().ok_or(WHAT)?;
        let (height, _) = rest.split_first_chunk().ok_or(WHAT)?;
        let (width, height) = (u32::from_be_bytes(*width), u32::from_be_bytes(*height));
        let fits = (1..=1200).contains(&width) && (1..=400).contains(&height) && png.len() <= Self::MAX_BYTES;
        (fits && png.ends_with(END))
            .then_some(Self { png, width, height })
            .ok_or(WHAT)
    }

    /// The bytes of the PNG file.
    pub fn png(&self) -> &[u8] {
        &self.png
    }

    /// Width and height, in CSS pixels, at which the logo is shown: at most 240 × 40, and never enlarged.
    pub fn shown(&self) -> (u32, u32) {
        let (width, height) = (self.width, self.height);
        // The width at the full height, or the height at the full width.
        match height.min(40) {
            limited if width * limited <= 240 * height => ((width * limited / height).max(1), limited),
            _ => (240, (240 * height / width).max(1)),
        }
    }
}

impl fmt::Debug for Logo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} x {} pixels, {} bytes", self.width, self.height, self.png.len())
    }
}

/// Where customers get help: a phone number, a link, or both. `Display` writes what `parse` reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SupportContact {
    phone: Option<String>,
    link: Option<String>,
}

impl SupportContact {
    /// Reads `+31 20 123 4567`, `https://example.com/help`, or both, separated by a space.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        const WHAT: Malformed =
            Malformed("must be a phone number (+31 20 123 4567), a link (https://example.com/help), or both");
        let (links, digits): (Vec<_>, Vec<_>) = text.split_whitespace().partition(|word| word.contains(':'));
        let phone = (!digits.is_empty()).then(|| digits.join(" "));
        let link = links.first().map(|&link| link.to_owned());
        let fits = links.len() <= 1
            && (phone.is_some() || link.is_some())
            && phone.as_deref().is_none_or(is_phone)
            && link.as_deref().is_none_or(is_link);
        fits.then_some(Self { phone, link }).ok_or(WHAT)
    }

    /// The phone number as people write it.
    pub fn phone(&self) -> Option<&str> {
        self.phone.as_deref()
    }

    /// The phone number as a link (RFC 3966).
    pub fn phone_link(&self) -> Option<String> {
        let dialled = self.phone()?.chars().filter(|c| c.is_ascii_digit() || *c == '+');
        Some(format!("tel:{}", dialled.collect::<String>()))
    }

    /// The link, which begins with `https://`.
    pub fn link(&self) -> Option<&str> {
        self.link.as_deref()
    }

    /// The link as people write it, without the scheme.
    pub fn link_text(&self) -> Option<&str> {
        Some(self.link()?.trim_start_matches(SCHEME).trim_end_matches('/'))
    }
}

impl fmt::Display for SupportContact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.phone, &self.link) {
            (Some(phone), Some(link)) => write!(f, "{phone} {link}"),
            (one, other) => f.write_str(one.as_ref().or(other.as_ref()).map_or("", String::as_str)),
        }
    }
}

const SCHEME: &str = "https://";

/// A number of 3 to 15 digits, such as `1200`, with spaces, hyphens and dots. Not with brackets, whose digits are not
/// dialled from everywhere.
fn is_phone(text: &str) -> bool {
    let number = text.strip_prefix('+').unwrap_or(text);
    let digits = number.bytes().filter(u8::is_ascii_digit).count();
    number.starts_with(|c: char| c.is_ascii_digit())
        && number.chars().all(|c| c.is_ascii_digit() || " -.".contains(c))
        && (3..=15).contains(&digits)
}

/// An `https` URL of at most 200 ASCII characters at a host name, without user and port.
fn is_link(text: &str) -> bool {
    let Some(rest) = text.strip_prefix(SCHEME) else {
        return false;
    };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let label_fits = |label: &str| {
        !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') && !label.starts_with('-')
    };
    text.len() <= 200
        && host.contains('.')
        && host.split('.').all(label_fits)
        && rest
            .chars()
            .all(|c| c.is_ascii_graphic() && !"\"'<>()\\^`{|}".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_line_of_harmless_text() {
        let longest = "é".repeat(64);
        for (text, name) in [
            ("Zwaluw Mobiel", Some("Zwaluw Mobiel")),
            (" R&D 's ", Some("R&D 's")),
            (longest.as_str(), Some(longest.as_str())),
            ("", None),
            ("  ", None),
            (&"a".repeat(65), None),
            ("<script>", None),
            ("a > b", None),
            ("Sim\"swap", None),
            ("Sim\\swap", None),
            ("Sim\r\nBcc: x@example.com", None),
            ("Sim\u{2028}swap", None),
            ("\u{202e}pawsmiS", None),
            ("=?utf-8?q?x=0D=0A?=", None),
        ] {
            let parsed = BrandName::parse(text).ok();
            assert_eq!(parsed.as_ref().map(BrandName::as_str), name, "{text:?}");
        }
    }

    #[test]
    fn a_brand_is_completed_from_the_default() {
        let name = |text| BrandName::parse(text).unwrap();
        let contact = |text| SupportContact::parse(text).ok();
        let address = |text| EmailAddress::parse(text).ok();
        let bare = Brand {
            name: name("Zwaluw"),
            sender: None,
            colour: None,
            logo: None,
            support: None,
            reply_to: None,
        };
        let default = Brand {
            sender: Some(name("Simswap Mail")),
            support: contact("1200"),
            reply_to: address("help@simswap.example"),
            ..bare.clone()
        };
        let completed = bare.clone().completed_from(&default);
        assert_eq!(completed.sender, Some(name("Zwaluw")));
        assert_eq!(
            (&completed.support, &completed.reply_to),
            (&default.support, &default.reply_to)
        );
        let whole = Brand {
            sender: Some(name("Zwaluw Mail")),
            support: contact("0800 1234"),
            reply_to: address("help@zwaluw.example"),
            ..bare
        };
        assert_eq!(whole.clone().completed_from(&default), whole);
        assert_eq!(whole.name.to_string(), "Zwaluw");
    }

    #[test]
    fn contrast_is_that_of_wcag() {
        for (colour, expected) in [([0; 3], 21.0), ([10; 3], 19.798), ([0x76; 3], 4.542), ([255; 3], 1.0)] {
            let found = contrast(colour, [255; 3]);
            assert!((found - expected).abs() < 0.001, "{colour:?}: {found}");
        }
    }

    #[test]
    fn text_on_every_colour_has_enough_contrast() {
        for (text, on) in [
            ("#1553c7", "#ffffff"),
            ("#0B7A4B", "#ffffff"),
            ("#ffffff", "#000000"),
            ("#ffd400", "#000000"),
            ("#000000", "#ffffff"),
            // The lightest grey with white text, and the next one.
            ("#767676", "#ffffff"),
            ("#777777", "#000000"),
        ] {
            let colour = Colour::parse(text).unwrap();
            assert_eq!((colour.to_string(), colour.text()), (text.to_lowercase(), on));
        }
        assert_eq!(Colour::parse("#1553c7"), Ok(Colour::default()));
        for rgb in (0..0x100_0000_u32).step_by(251) {
            let colour = Colour::parse(&format!("#{rgb:06x}")).unwrap();
            let on = Colour::parse(colour.text()).unwrap();
            assert!(contrast(colour.0, on.0) >= 4.5, "{colour}");
        }
        assert!((contrast([0; 3], [255; 3]) - 21.0).abs() < 1e-9);
        for text in [
            "",
            "#",
            "1553c7",
            "#fff",
            "#1553c",
            "#1553c77",
            "#+553c7",
            "#é553c",
            "red",
            "#1553c7;}",
        ] {
            assert!(Colour::parse(text).is_err(), "{text:?}");
        }
    }

    /// A file with the start and the end of a PNG.
    fn png(width: u32, height: u32, bytes: usize) -> Vec<u8> {
        let mut file = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
        file.extend(width.to_be_bytes());
        file.extend(height.to_be_bytes());
        file.resize(bytes - 12, 0);
        file.extend(b"\0\0\0\0IEND\xaeB`\x82");
        file
    }

    #[test]
    fn logos_are_small_pngs_and_are_shown_smaller() {
        for (width, height, shown) in [
            (480, 80, (240, 40)),
            (400, 400, (40, 40)),
            (1200, 100, (240, 20)),
            (100, 20, (100, 20)),
            (1200, 1, (240, 1)),
            (1, 400, (1, 40)),
        ] {
            let logo = Logo::parse(png(width, height, 100)).unwrap();
            assert_eq!(logo.shown(), shown, "{width} x {height}");
        }
        let largest = png(480, 80, Logo::MAX_BYTES);
        let logo = Logo::parse(largest.clone()).unwrap();
        assert_eq!(logo.png(), largest);
        assert_eq!(format!("{logo:?}"), "480 x 80 pixels, 16384 bytes");
        for (fault, file) in [
            ("empty", Vec::new()),
            ("only the start", png(480, 80, 100)[..20].to_vec()),
            ("truncated", largest[..5000].to_vec()),
            ("too many bytes", png(480, 80, Logo::MAX_BYTES + 1)),
            ("too wide", png(1201, 80, 100)),
            ("too high", png(480, 401, 100)),
            ("without pixels", png(0, 80, 100)),
            ("another format", b"GIF89a<script>".to_vec()),
        ] {
            assert!(Logo::parse(file).is_err(), "{fault}");
        }
    }

    #[test]
    fn support_contacts_are_a_number_a_link_or_both() {
        let link = "https://example.com/help?a=1&b=2";
        for (text, phone, tel, link) in [
            (
                "+31 20 123 4567",
                Some("+31 20 123 4567"),
                Some("tel:+31201234567"),
                None,
            ),
            ("0800-1234", Some("0800-1234"), Some("tel:08001234"), None),
            ("1200", Some("1200"), Some("tel:1200"), None),
            (link, None, None, Some(link)),
            (
                "https://example.com/ 020 1234567",
                Some("020 1234567"),
                Some("tel:0201234567"),
                Some("https://example.com/"),
            ),
        ] {
            let contact = SupportContact::parse(text).unwrap();
            assert_eq!(contact.phone(), phone, "{text}");
            assert_eq!(contact.phone_link().as_deref(), tel, "{text}");
            assert_eq!(contact.link(), link, "{text}");
            assert_eq!(SupportContact::parse(&contact.to_string()), Ok(contact));
        }
        let contact = SupportContact::parse("https://example.com/").unwrap();
        assert_eq!(contact.link_text(), Some("example.com"));
        for text in [
            "",
            " ",
            "help",
            "12",
            "1234567890123456",
            "+31 (0)20 123 4567",
            "+",
            "++31201234567",
            "- 123",
            "020 1234567 and more",
            "http://example.com",
            "https://",
            "https://localhost",
            "https://example.com:8443",
            "https://mybank.example@example.com",
            "https://example.com/\"><script>",
            "https://example.com/'",
            "https://exämple.com",
            "https://-a.example",
            "javascript:alert(1)",
            "https://example.com https://example.org",
            "https://example.com\u{202e}",
        ] {
            assert!(SupportContact::parse(text).is_err(), "{text:?}");
        }
        assert!(SupportContact::parse(&format!("https://example.com/{}", "a".repeat(200))).is_err());
    }
}
