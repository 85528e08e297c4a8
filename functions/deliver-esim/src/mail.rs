//! Composes the eSIM e-mail as one MIME message. Not here: its texts (`words.rs`), its QR code (`qr.rs`), and sending
//! it (`send.rs`).

use askama::Template;
use domain::{ActivationCode, ActivationId, EmailAddress, Language, Malformed, Msisdn};
use jiff::Timestamp;
use mail_builder::MessageBuilder;
use mail_builder::headers::address::Address;
use mail_builder::headers::content_type::ContentType;
use mail_builder::headers::date::Date;
use mail_builder::headers::message_id::MessageId;
use mail_builder::headers::raw::Raw;
use mail_builder::mime::MimePart;

use crate::qr;
use crate::words::Words;

/// The sender of the mails: an address with an optional display name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    name: Option<String>,
    address: EmailAddress,
}

impl Sender {
    /// Parses `esim@example.com`, `Simswap <esim@example.com>` or `"Simswap, Inc." <esim@example.com>`.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        const MALFORMED: Malformed = Malformed("must be an address, or a name and an <address>");
        let (name, address) = match text.trim().strip_suffix('>') {
            Some(named) => named.rsplit_once('<').ok_or(MALFORMED)?,
            None => ("", text.trim()),
        };
        let name = name.trim();
        let name = name
            .strip_prefix('"')
            .and_then(|name| name.strip_suffix('"'))
            .unwrap_or(name);
        if name.chars().any(|c| c.is_control() || "<>\"\\".contains(c)) {
            return Err(MALFORMED);
        }
        Ok(Self {
            name: (!name.is_empty()).then(|| name.to_owned()),
            address: EmailAddress::parse(address).map_err(|_| MALFORMED)?,
        })
    }

    fn host(&self) -> &str {
        let address = self.address.as_str();
        address.rsplit_once('@').map_or(address, |(_, host)| host)
    }
}

/// The content of one mail. Equal contents give the same message, byte for byte.
pub struct MailContent<'a> {
    /// The sender.
    pub from: &'a Sender,
    /// The only recipient.
    pub to: &'a EmailAddress,
    /// The language of all texts.
    pub language: Language,
    /// The line's phone number, shown in its national format.
    pub phone: &'a Msisdn,
    /// The activation code that the QR code contains.
    pub code: &'a ActivationCode,
    /// The brand name that customers know.
    pub brand: &'a str,
    /// The swap.
    pub activation: &'a ActivationId,
    /// The number of the mail within the swap: 1 for the first, and one more for each resend that a caller requests. A
    /// second attempt at the same mail has the same number, so that a mailbox that receives both can recognise the
    /// duplicate.
    pub delivery: u32,
    /// The time in the `Date` header.
    pub sent_at: Timestamp,
}

/// The label and value of a field that the customer enters by hand if the phone cannot scan.
type Entry = (&'static str, String);

#[derive(Template)]
#[template(path = "esim.txt")]
struct Text<'a> {
    content: &'a MailContent<'a>,
    words: &'static Words,
    steps: &'a [&'static str],
    entries: &'a [Entry],
}

#[derive(Template)]
#[template(path = "esim.html")]
struct Html<'a> {
    content: &'a MailContent<'a>,
    words: &'static Words,
    steps: &'a [&'static str],
    entries: &'a [Entry],
    image_id: &'a str,
    side: u32,
}

/// Composes the whole message (RFC 5322): plain text and HTML, the QR code inline by Content-ID (RFC 2392), and the QR
/// code attached as `esim-qr.png`. SES replaces our `Message-ID` with its own.
///
/// The message contains the activation code, so it is just as secret.
pub fn compose(content: &MailContent<'_>) -> Vec<u8> {
    const RENDERS: &str = "writing to a String cannot fail";
    let (code, words) = (content.code, Words::of(content.language));
    let image = qr::draw(code);
    let message_id = format!("{}.{}@{}", content.activation, content.delivery, content.from.host());
    let image_id = format!("qr.{message_id}");

    let mut steps = vec![words.step_connect, words.step_open];
    if code.requires_confirmation() {
        steps.push(words.step_confirm);
    }
    steps.push(words.step_finish);
    // iPhones ask for the first two in separate fields, Android phones for the third.
    let entries = [
        (words.smdp_label, code.smdp().as_str().to_owned()),
        (words.matching_label, code.matching_id().expose().to_owned()),
        (words.whole_label, code.expose()),
    ];
    let text = Text {
        content,
        words,
        steps: &steps,
        entries: &entries,
    };
    let html = Html {
        content,
        words,
        steps: &steps,
        entries: &entries,
        image_id: &image_id,
        side: image.side,
    };

    // The builder's default boundaries depend on the time and on random numbers. `=_` occurs in no line of
    // quoted-printable or base64 (RFC 2045 section 6.7), and every text is encoded in one of them, because its links
    // are long.
    let alternative = MimePart::new(
        ContentType::new("multipart/alternative").attribute("boundary", "=_alternative"),
        vec![
            MimePart::new("text/plain", text.render().expect(RENDERS)),
            MimePart::new("text/html", html.render().expect(RENDERS)),
        ],
    );
    let related = MimePart::new(
        ContentType::new("multipart/related")
            .attribute("type", "multipart/alternative")
            .attribute("boundary", "=_related"),
        vec![
            alternative,
            MimePart::new("image/png", image.png.as_slice())
                .inline()
                .cid(image_id.as_str()),
        ],
    );
    let mixed = MimePart::new(
        ContentType::new("multipart/mixed").attribute("boundary", "=_mixed"),
        vec![
            related,
            MimePart::new("image/png", image.png.as_slice()).attachment("esim-qr.png"),
        ],
    );

    let mut message = Vec::new();
    MessageBuilder::new()
        .from(Address::new_address(
            content.from.name.as_deref(),
            content.from.address.as_str(),
        ))
        .to(content.to.as_str())
        .subject(words.subject)
        .date(Date::new(content.sent_at.as_second()))
        .message_id(MessageId::new(message_id))
        .header("Content-Language", Raw::new(content.language.as_str()))
        // RFC 3834, and the same for Exchange: suppress out-of-office replies to automatic mails.
        .header("Auto-Submitted", Raw::new("auto-generated"))
        .header("X-Auto-Response-Suppress", Raw::new("All"))
        .body(mixed)
        .serialize(&mut message);
    message
}

#[cfg(test)]
mod tests {
    use mail_parser::{MessageParser, MimeHeaders, PartType};

    use super::*;

    const WITH_CONFIRMATION: &str = "LPA:1$smdp.example.test$QX7PD-3M8ZK-A91TR$$1";
    const WITHOUT_CONFIRMATION: &str = "LPA:1$smdp.example.test$QX7PD-3M8ZK-A91TR";

    fn compose_with(language: Language, code: &str, from: &str, brand: &str) -> Vec<u8> {
        compose(&MailContent {
            from: &Sender::parse(from).unwrap(),
            to: &EmailAddress::parse("anna@example.com").unwrap(),
            language,
            phone: &Msisdn::parse("+31612345601").unwrap(),
            code: &ActivationCode::parse(code).unwrap(),
            brand,
            activation: &ActivationId::parse("01J9Z7K3N5Q8R2T4V6W8X0Y1Z3").unwrap(),
            delivery: 1,
            sent_at: "2025-02-03T13:38:50.707Z".parse().unwrap(),
        })
    }

    fn sample(language: Language, code: &str) -> Vec<u8> {
        compose_with(language, code, "Simswap <esim@example.com>", "Simswap")
    }

    /// The plain text body and the HTML body.
    fn bodies(message: &[u8]) -> (String, String) {
        let mail = MessageParser::default().parse(message).unwrap();
        let text = mail.body_text(0).unwrap().replace("\r\n", "\n");
        let html = mail.body_html(0).unwrap().replace("\r\n", "\n");
        (text, html)
    }

    #[test]
    fn bodies_match_the_snapshots() {
        for language in Language::ALL {
            for (code, kind) in [(WITH_CONFIRMATION, "confirmed"), (WITHOUT_CONFIRMATION, "plain")] {
                let (text, html) = bodies(&sample(language, code));
                let name = format!("{}_{kind}", language.as_str());
                insta::assert_snapshot!(format!("{name}.txt"), text);
                insta::assert_snapshot!(format!("{name}.html"), html);
            }
        }
    }

    #[test]
    fn message_has_the_expected_headers_and_parts() {
        let message = sample(Language::Nl, WITH_CONFIRMATION);
        assert_eq!(message, sample(Language::Nl, WITH_CONFIRMATION));
        let mail = MessageParser::default().parse(&message).unwrap();
        let headers: Vec<String> = mail
            .headers_raw()
            .map(|(name, value)| format!("{name}: {}", value.trim()))
            .collect();
        assert_eq!(
            headers,
            [
                "From: \"Simswap\" <esim@example.com>",
                "To: <anna@example.com>",
                "Subject: Je eSIM staat klaar",
                "Date: Mon, 3 Feb 2025 13:38:50 +0000",
                "Message-ID: <01J9Z7K3N5Q8R2T4V6W8X0Y1Z3.1@example.com>",
                "Content-Language: nl",
                "Auto-Submitted: auto-generated",
                "X-Auto-Response-Suppress: All",
                "MIME-Version: 1.0",
                "Content-Type: multipart/mixed; boundary=\"=_mixed\"",
            ]
        );

        let kinds: Vec<String> = mail
            .parts
            .iter()
            .map(|part| {
                let kind = part.content_type().unwrap();
                let children = match &part.body {
                    PartType::Multipart(children) => format!(" {children:?}"),
                    _ => String::new(),
                };
                format!("{}/{}{children}", kind.ctype(), kind.subtype().unwrap())
            })
            .collect();
        assert_eq!(
            kinds,
            [
                "multipart/mixed [1, 6]",
                "multipart/related [2, 5]",
                "multipart/alternative [3, 4]",
                "text/plain",
                "text/html",
                "image/png",
                "image/png",
            ]
        );
        let (inline, attached) = (&mail.parts[5], &mail.parts[6]);
        let (_, html) = bodies(&message);
        assert!(html.contains(&format!("src=\"cid:{}\"", inline.content_id().unwrap())));
        assert!(inline.content_disposition().unwrap().is_inline());
        assert!(attached.content_disposition().unwrap().is_attachment());
        assert_eq!(attached.attachment_name(), Some("esim-qr.png"));
        assert_eq!(inline.contents(), attached.contents());
    }

    #[test]
    fn code_is_complete_in_every_language() {
        for language in Language::ALL {
            for text in [WITH_CONFIRMATION, WITHOUT_CONFIRMATION] {
                let message = sample(language, text);
                let mail = MessageParser::default().parse(&message).unwrap();
                assert_eq!(qr::tests::decode(mail.parts[5].contents()), text);
                assert_eq!(qr::tests::decode(mail.parts[6].contents()), text);
                let code = ActivationCode::parse(text).unwrap();
                let (plain, html) = bodies(&message);
                for body in [&plain, &html] {
                    for part in [
                        "06-12345601",
                        "smdp.example.test",
                        "QX7PD-3M8ZK-A91TR",
                        text,
                        code.apple_link().as_str(),
                        code.android_link().as_str(),
                    ] {
                        assert!(body.contains(part), "{part} in {body}");
                    }
                }
            }
        }
    }

    #[test]
    fn mentions_a_confirmation_code_only_if_one_is_required() {
        for (language, word) in [
            (Language::Nl, "bevestig"),
            (Language::Da, "bekræft"),
            (Language::De, "bestätig"),
            (Language::Fr, "confirm"),
            (Language::En, "confirm"),
        ] {
            for (code, mentioned) in [(WITH_CONFIRMATION, true), (WITHOUT_CONFIRMATION, false)] {
                let (text, html) = bodies(&sample(language, code));
                assert_eq!(text.to_lowercase().contains(word), mentioned, "{text}");
                assert_eq!(html.to_lowercase().contains(word), mentioned, "{html}");
            }
        }
    }

    #[test]
    fn html_loads_no_remote_content_and_has_no_tracking() {
        for language in Language::ALL {
            let (_, html) = bodies(&sample(language, WITH_CONFIRMATION));
            assert!(html.contains(&format!("<html lang=\"{}\"", language.as_str())));
            for absent in ["data:", "<script", "url(", "@import", "<link", "{{", "{%"] {
                assert!(!html.contains(absent), "{absent}");
            }
            assert_eq!(html.matches(" src=").count(), 1);
            assert_eq!(html.matches("<a ").count(), 2);
            assert_eq!(html.matches("<a ses:no-track ").count(), 2);
            assert_eq!(html.matches(" href=\"https://esimsetup.").count(), 2);
        }
    }

    #[test]
    fn brand_is_escaped_and_appears_in_no_header() {
        let brand = "<b>A & B</b>\r\nBcc: x@example.com\r\n\r\n--=_mixed";
        let plain = sample(Language::En, WITHOUT_CONFIRMATION);
        let odd = compose_with(Language::En, WITHOUT_CONFIRMATION, "Simswap <esim@example.com>", brand);
        let headers = |message: &[u8]| {
            let end = message.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
            message[..end].to_vec()
        };
        assert_eq!(headers(&odd), headers(&plain));
        let mail = MessageParser::default().parse(&odd).unwrap();
        assert_eq!(mail.parts.len(), 7);
        let (_, html) = bodies(&odd);
        assert!(html.contains("&#60;b&#62;A &#38; B&#60;/b&#62;"), "{html}");
        assert!(!html.contains("<b>"));
    }

    #[test]
    fn parses_senders() {
        for (text, name) in [
            ("esim@example.com", None),
            ("<esim@example.com>", None),
            ("Simswap <esim@example.com>", Some("Simswap")),
            ("\"Simswap, Inc.\" <esim@example.com>", Some("Simswap, Inc.")),
            ("Blåtand Mobil <esim@example.com>", Some("Blåtand Mobil")),
        ] {
            let message = compose_with(Language::En, WITHOUT_CONFIRMATION, text, "Simswap");
            let mail = MessageParser::default().parse(&message).unwrap();
            let from = mail.from().unwrap().first().unwrap();
            assert_eq!((from.name(), from.address()), (name, Some("esim@example.com")));
        }
        for text in [
            "",
            "Simswap",
            "Simswap esim@example.com",
            "Simswap <esim@example.com",
            "Simswap <esim@example.com> x",
            "<>",
            "a@example.com, b@example.com",
            "A <a@example.com>, B <b@example.com>",
            "Sim\r\nBcc: x@example.com <esim@example.com>",
            "Simswap <esim@example.com\r\nBcc: x@example.com>",
            "Sim\"swap <esim@example.com>",
        ] {
            assert!(Sender::parse(text).is_err(), "{text:?}");
        }
    }
}
