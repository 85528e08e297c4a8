//! Composes each e-mail as one MIME message. Not here: its texts (`words.rs`), its QR code (`qr.rs`), and sending
//! it (`send.rs`).

use askama::Template;
use domain::{ActivationCode, ActivationId, Brand, BrandName, Colour, EmailAddress, Language, Logo, Malformed, Msisdn};
use jiff::{Timestamp, Zoned};
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
    /// The display name.
    pub name: Option<BrandName>,
    /// The address.
    pub address: EmailAddress,
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
        let name = (!name.is_empty()).then(|| BrandName::parse(name)).transpose();
        Ok(Self {
            name: name.map_err(|_| MALFORMED)?,
            address: EmailAddress::parse(address).map_err(|_| MALFORMED)?,
        })
    }
}

/// The content of one mail. Equal contents give the same message, byte for byte.
pub struct MailContent<'a> {
    /// The sender's address. Its display name is that of the brand.
    pub from: &'a EmailAddress,
    /// The only recipient.
    pub to: &'a EmailAddress,
    /// The language of all texts.
    pub language: Language,
    /// The line's phone number, shown in its national format.
    pub phone: &'a Msisdn,
    /// The brand that customers know.
    pub brand: &'a Brand,
    /// The swap.
    pub activation: &'a ActivationId,
    /// The number of the mail within the swap: 1 for the first, and one more for each resend that a caller requests. A
    /// second attempt at the same mail has the same number, so that a mailbox that receives both can recognise the
    /// duplicate.
    pub delivery: u32,
    /// The time in the `Date` header.
    pub sent_at: Timestamp,
    /// What the mail says.
    pub message: MailMessage<'a>,
}

/// What a mail says.
pub enum MailMessage<'a> {
    /// How to install the eSIM.
    Code {
        /// The activation code that the QR code contains.
        code: &'a ActivationCode,
        /// Whether the mail reminds of an earlier one.
        reminder: bool,
        /// Whether the activation code replaces that of earlier mails.
        renewed: bool,
        /// Until when the activation code works, in the zone in which the mail states times.
        works_until: &'a Zoned,
    },
    /// The swap has failed.
    End {
        /// Whether the eSIM was not installed in time.
        expired: bool,
        /// When the swap was requested, in the zone in which the mail states times.
        requested_at: &'a Zoned,
    },
}

/// The label and value of a field that the customer enters by hand if the phone cannot scan.
type Entry = (&'static str, String);

/// What every mail has, in the layout.
struct Frame<'a> {
    content: &'a MailContent<'a>,
    words: &'static Words,
    /// The preview that mail clients show after the subject.
    preview: &'static str,
    /// The title and the subject.
    title: &'static str,
    intro: String,
    old_sim: &'static str,
    /// The text about swaps that the customer did not request, before and after the support contact.
    stranger: (&'static str, &'static str),
    colour: Colour,
    /// The brand's logo with its Content-ID.
    logo: Option<(&'a Logo, &'a str)>,
}

/// How to install the eSIM.
struct Instructions<'a> {
    code: &'a ActivationCode,
    until: String,
    steps: Vec<&'static str>,
    entries: [Entry; 3],
}

#[derive(Template)]
#[template(path = "esim.txt")]
struct CodeText<'a> {
    frame: &'a Frame<'a>,
    guide: &'a Instructions<'a>,
}

#[derive(Template)]
#[template(path = "esim.html")]
struct CodeHtml<'a> {
    frame: &'a Frame<'a>,
    guide: &'a Instructions<'a>,
    image_id: &'a str,
    side: u32,
}

#[derive(Template)]
#[template(path = "end.txt")]
struct EndText<'a> {
    frame: &'a Frame<'a>,
}

#[derive(Template)]
#[template(path = "end.html")]
struct EndHtml<'a> {
    frame: &'a Frame<'a>,
}

impl<'a> Frame<'a> {
    fn new(content: &'a MailContent<'a>, logo_id: &'a str) -> Self {
        let words = Words::of(content.language);
        let (title, preview, old_sim, stranger) = match content.message {
            MailMessage::Code { reminder: true, .. } => (words.reminder, words.preview, words.old_sim, words.stranger),
            MailMessage::Code { .. } => (words.title, words.preview, words.old_sim, words.stranger),
            MailMessage::End { .. } => {
                let end = &words.end;
                (end.title, end.old_sim, end.old_sim, end.stranger)
            }
        };
        let intro = match content.message {
            MailMessage::Code { reminder, renewed, .. } => {
                let intro = if reminder { words.reminder_intro } else { words.intro };
                match renewed {
                    true => format!("{intro} {}", words.renewed),
                    false => intro.to_owned(),
                }
            }
            MailMessage::End { expired, requested_at } => {
                let intro = if expired { words.end.expired } else { words.end.failed };
                intro.replace("{}", &requested_at.strftime(words.until).to_string())
            }
        };
        Self {
            content,
            words,
            preview,
            title,
            intro,
            old_sim,
            stranger: stranger.split_once("{}").unwrap_or((stranger, "")),
            colour: content.brand.colour.unwrap_or_default(),
            logo: content.brand.logo.as_ref().map(|logo| (logo, logo_id)),
        }
    }
}

impl<'a> Instructions<'a> {
    fn new(words: &Words, code: &'a ActivationCode, works_until: &Zoned) -> Self {
        let until = works_until.strftime(words.until).to_string();
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
        Self {
            code,
            until: words.know_until.replace("{}", &until),
            steps,
            entries,
        }
    }
}

/// The file name of the QR code.
const QR_FILE: &str = "esim-qr.png";

/// Composes the whole message (RFC 5322): plain text and HTML, and the brand's logo inline by Content-ID (RFC 2392). A
/// mail with an activation code has the QR code inline, too, and attached as `esim-qr.png`. SES replaces our `Message-ID`
/// with its own.
///
/// A message with an activation code is just as secret.
pub fn compose(content: &MailContent<'_>) -> Vec<u8> {
    const RENDERS: &str = "writing to a String cannot fail";
    let brand = content.brand;
    let from = content.from.as_str();
    let host = from.rsplit_once('@').map_or(from, |(_, host)| host);
    let message_id = format!("{}.{}@{host}", content.activation, content.delivery);
    let (image_id, logo_id) = (format!("qr.{message_id}"), format!("logo.{message_id}"));
    let frame = &Frame::new(content, &logo_id);

    let (text, html, image) = match content.message {
        MailMessage::Code { code, works_until, .. } => {
            let image = qr::draw(code);
            let guide = &Instructions::new(frame.words, code, works_until);
            let html = CodeHtml {
                frame,
                guide,
                image_id: &image_id,
                side: image.side,
            };
            (CodeText { frame, guide }.render(), html.render(), Some(image))
        }
        MailMessage::End { .. } => (EndText { frame }.render(), EndHtml { frame }.render(), None),
    };

    // The builder's default boundaries depend on the time and on random numbers. `=_` occurs in no line of
    // quoted-printable or base64 (RFC 2045 section 6.7), and every text is encoded in one of them, because its lines
    // are long.
    let alternative = MimePart::new(
        ContentType::new("multipart/alternative").attribute("boundary", "=_alternative"),
        vec![
            MimePart::new("text/plain", text.expect(RENDERS)),
            MimePart::new("text/html", html.expect(RENDERS)),
        ],
    );
    let mut related = vec![alternative];
    related.extend(image.as_ref().map(|image| inline_png(&image.png, QR_FILE, &image_id)));
    related.extend(
        brand
            .logo
            .as_ref()
            .map(|logo| inline_png(logo.png(), "logo.png", &logo_id)),
    );
    let related = MimePart::new(
        ContentType::new("multipart/related")
            .attribute("type", "multipart/alternative")
            .attribute("boundary", "=_related"),
        related,
    );
    let mut mixed = vec![related];
    mixed.extend(
        image
            .as_ref()
            .map(|image| MimePart::new("image/png", image.png.as_slice()).attachment(QR_FILE)),
    );
    let mixed = MimePart::new(
        ContentType::new("multipart/mixed").attribute("boundary", "=_mixed"),
        mixed,
    );

    let mut message = Vec::new();
    MessageBuilder::new()
        .from(Address::new_address(brand.sender.as_ref().map(BrandName::as_str), from))
        .headers("Reply-To", brand.reply_to.iter().map(|to| Address::from(to.as_str())))
        .to(content.to.as_str())
        .subject(frame.title)
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

fn inline_png<'a>(png: &'a [u8], file: &'a str, id: &'a str) -> MimePart<'a> {
    MimePart::new("image/png", png)
        .header(
            "Content-Disposition",
            ContentType::new("inline").attribute("filename", file),
        )
        .cid(id)
}

#[cfg(test)]
mod tests {
    use domain::SupportContact;
    use mail_parser::{MessageParser, MimeHeaders, PartType};

    use super::*;

    const WITH_CONFIRMATION: &str = "LPA:1$smdp.example.test$QX7PD-3M8ZK-A91TR$$1";
    const WITHOUT_CONFIRMATION: &str = "LPA:1$smdp.example.test$QX7PD-3M8ZK-A91TR";

    fn compose_with(language: Language, code: &str, brand: &Brand, is_later: bool) -> Vec<u8> {
        let message = MailMessage::Code {
            code: &ActivationCode::parse(code).unwrap(),
            reminder: is_later,
            renewed: is_later,
            works_until: &works_until(),
        };
        compose_message(language, brand, message)
    }

    fn compose_message(language: Language, brand: &Brand, message: MailMessage<'_>) -> Vec<u8> {
        compose(&MailContent {
            from: &EmailAddress::parse("esim@example.com").unwrap(),
            to: &EmailAddress::parse("anna@example.com").unwrap(),
            language,
            phone: &Msisdn::parse("+31612345601").unwrap(),
            brand,
            activation: &ActivationId::parse("01J9Z7K3N5Q8R2T4V6W8X0Y1Z3").unwrap(),
            delivery: 1,
            sent_at: "2025-02-03T13:38:50.707Z".parse().unwrap(),
            message,
        })
    }

    fn works_until() -> Zoned {
        "2025-02-17T14:38:50+01:00[Europe/Amsterdam]".parse().unwrap()
    }

    /// The default brand of a deployment without the optional settings.
    fn simswap() -> Brand {
        Brand {
            name: BrandName::parse("Simswap").unwrap(),
            sender: Some(BrandName::parse("Simswap").unwrap()),
            colour: None,
            logo: None,
            support: None,
            reply_to: None,
        }
    }

    /// A brand with everything, whose values need escaping.
    fn zwaluw() -> Brand {
        let logo = qr::draw(&ActivationCode::parse(WITHOUT_CONFIRMATION).unwrap()).png;
        Brand {
            name: BrandName::parse("Zwaluw & Zoon's").unwrap(),
            sender: Some(BrandName::parse("Zwaluw, Zoon & Co").unwrap()),
            colour: Some(Colour::parse("#ffd400").unwrap()),
            logo: Some(Logo::parse(logo).unwrap()),
            support: Some(SupportContact::parse("+31 20 123 4567 https://zwaluw.example/help?a=1&b=2").unwrap()),
            reply_to: Some(EmailAddress::parse("help@zwaluw.example").unwrap()),
        }
    }

    fn sample(language: Language, code: &str) -> Vec<u8> {
        compose_with(language, code, &simswap(), false)
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
            for (code, brand, kind) in [
                (WITH_CONFIRMATION, simswap(), "confirmed"),
                (WITHOUT_CONFIRMATION, simswap(), "plain"),
                (WITH_CONFIRMATION, zwaluw(), "branded"),
            ] {
                let (text, html) = bodies(&compose_with(language, code, &brand, false));
                let name = format!("{}_{kind}", language.as_str());
                insta::assert_snapshot!(format!("{name}.txt"), text);
                insta::assert_snapshot!(format!("{name}.html"), html);
            }
        }
    }

    #[test]
    fn a_reminder_with_a_renewed_code_matches_its_snapshot() {
        for language in Language::ALL {
            let message = compose_with(language, WITH_CONFIRMATION, &simswap(), true);
            let (text, html) = bodies(&message);
            let words = Words::of(language);
            let subject = MessageParser::default()
                .parse(&message)
                .unwrap()
                .subject()
                .unwrap()
                .to_owned();
            assert_eq!(subject, words.reminder);
            assert!(html.contains(words.renewed) && html.contains(words.reminder_intro));
            insta::assert_snapshot!(format!("{}_reminder.txt", language.as_str()), text);
        }
    }

    #[test]
    fn a_mail_about_a_failed_swap_matches_its_snapshot_and_has_no_code() {
        for language in Language::ALL {
            let requested_at: Zoned = "2025-02-03T14:38:50+01:00[Europe/Amsterdam]".parse().unwrap();
            let time = requested_at.strftime(Words::of(language).until).to_string();
            let words = &Words::of(language).end;
            for (expired, intro, brand, parts) in
                [(true, words.expired, simswap(), 5), (false, words.failed, zwaluw(), 6)]
            {
                let message = compose_message(
                    language,
                    &brand,
                    MailMessage::End {
                        expired,
                        requested_at: &requested_at,
                    },
                );
                let mail = MessageParser::default().parse(&message).unwrap();
                assert_eq!((mail.subject(), mail.parts.len()), (Some(words.title), parts));
                let (text, html) = bodies(&message);
                for body in [&text, &html] {
                    let intro = intro.replace("{}", &time);
                    assert!(body.contains(&intro) && body.contains("06-12345601"), "{body}");
                    assert!(!body.contains("LPA:") && !body.contains("esimsetup"), "{body}");
                }
                assert_eq!(html.matches(" src=\"cid:").count(), parts - 5);
                if expired {
                    insta::assert_snapshot!(format!("{}_end.txt", language.as_str()), text);
                    insta::assert_snapshot!(format!("{}_end.html", language.as_str()), html);
                }
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
        assert_eq!(inline.attachment_name(), Some("esim-qr.png"));
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
    fn a_brand_gives_the_mail_its_sender_its_logo_and_its_colour() {
        let message = compose_with(Language::Nl, WITH_CONFIRMATION, &zwaluw(), false);
        let mail = MessageParser::default().parse(&message).unwrap();
        let (from, reply_to) = (mail.from().unwrap().first().unwrap(), mail.reply_to().unwrap());
        assert_eq!(
            (from.name(), from.address()),
            (Some("Zwaluw, Zoon & Co"), Some("esim@example.com"))
        );
        assert_eq!(reply_to.first().unwrap().address(), Some("help@zwaluw.example"));

        assert_eq!(mail.parts.len(), 8);
        let (qr_code, logo) = (&mail.parts[5], &mail.parts[6]);
        assert_eq!(qr::tests::decode(qr_code.contents()), WITH_CONFIRMATION);
        assert_eq!(logo.contents(), zwaluw().logo.unwrap().png());
        assert_eq!(logo.attachment_name(), Some("logo.png"));
        assert!(logo.content_disposition().unwrap().is_inline());
        assert_ne!(logo.content_id(), qr_code.content_id());

        let (_, html) = bodies(&message);
        assert_eq!(html.matches(" src=\"cid:").count(), 2);
        assert!(html.contains(&format!("src=\"cid:{}\"", logo.content_id().unwrap())));
        assert!(
            html.contains("width=\"40\" height=\"40\" alt=\"Zwaluw &#38; Zoon&#39;s\""),
            "{html}"
        );
        // Black text on the brand's yellow, and nothing in the default colour.
        assert!(html.contains("background-color:#ffd400;border-radius:14px") && html.contains("color:#000000"));
        assert!(!html.contains("#1553c7"));
        assert!(!html.contains("Zwaluw & Zoon's"));
    }

    #[test]
    fn the_support_contact_is_where_the_mail_tells_to_contact_customer_service() {
        const LINK: &str = "https://example.com/help?a=1&b=2";
        for (language, before, after) in [
            (Language::Nl, "onze klantenservice", ". Misschien"),
            (Language::Da, "vores kundeservice", ". Måske"),
            (Language::De, "unseren Kundenservice", ". Möglicherweise"),
            (Language::Fr, "notre service client", ". Quelqu’un"),
            (Language::En, "our customer service", " at once. Someone"),
        ] {
            for (contact, shown, links) in [
                (None, String::new(), vec![]),
                (
                    Some("+31 20 123 4567"),
                    " (+31 20 123 4567)".to_owned(),
                    vec!["tel:+31201234567"],
                ),
                (
                    Some(LINK),
                    format!(" ({LINK})"),
                    vec!["https://example.com/help?a=1&#38;b=2"],
                ),
                (
                    Some("1200 https://example.com/help?a=1&b=2"),
                    format!(" (1200, {LINK})"),
                    vec!["tel:1200", "https://example.com/help?a=1&#38;b=2"],
                ),
            ] {
                let brand = Brand {
                    support: contact.map(|contact| SupportContact::parse(contact).unwrap()),
                    ..simswap()
                };
                let (text, html) = bodies(&compose_with(language, WITH_CONFIRMATION, &brand, false));
                assert!(text.contains(&format!("{before}{shown}{after}")), "{text}");
                // Two further links are the one-tap buttons. No link is tracked.
                let tracked = html.matches(" href=").count() - html.matches("<a ses:no-track ").count();
                assert_eq!((html.matches("<a ").count(), tracked), (2 + links.len(), 0));
                for link in &links {
                    assert!(html.contains(&format!("href=\"{link}\"")), "{link} in {html}");
                }
                assert_eq!(html.contains(&format!("{before}{after}")), contact.is_none());
            }
        }
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
            let sender = Sender::parse(text).unwrap();
            assert_eq!(sender.address.as_str(), "esim@example.com");
            let brand = Brand {
                sender: sender.name,
                ..simswap()
            };
            let message = compose_with(Language::En, WITHOUT_CONFIRMATION, &brand, false);
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
