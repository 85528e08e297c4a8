//! The eSIM e-mail with any contents: it is one message with its usual headers, and its code, image and links are
//! correct. The input has one line each: sender, recipient, number, activation code, swap, brand, support contact.
#![no_main]

use deliver_esim::{MailContent, MailMessage, Sender, compose, draw};
use domain::{ActivationCode, ActivationId, Brand, BrandName, EmailAddress, Language, Msisdn, SupportContact};
use libfuzzer_sys::fuzz_target;
use mail_parser::{MessageParser, MimeHeaders};

const HEADERS: [&str; 10] = [
    "From",
    "To",
    "Subject",
    "Date",
    "Message-ID",
    "Content-Language",
    "Auto-Submitted",
    "X-Auto-Response-Suppress",
    "MIME-Version",
    "Content-Type",
];

fuzz_target!(|input: &str| {
    let mut lines = input.split('\n');
    let mut line = || lines.next().unwrap_or_default();
    // A part that would not be accepted gets a usual value.
    let from = Sender::parse(line())
        .or_else(|_| Sender::parse("Simswap <esim@example.com>"))
        .expect("a sender");
    let to = EmailAddress::parse(line())
        .or_else(|_| EmailAddress::parse("anna@example.com"))
        .expect("an address");
    let phone = Msisdn::parse(line())
        .or_else(|_| Msisdn::parse("+31612345601"))
        .expect("a number");
    let code = ActivationCode::parse(line())
        .or_else(|_| ActivationCode::parse("LPA:1$smdp.example.test$QX7PD-3M8ZK-A91TR$$1"))
        .expect("a code");
    let activation = ActivationId::parse(line())
        .or_else(|_| ActivationId::parse("01J9Z7K3N5Q8R2T4V6W8X0Y1Z3"))
        .expect("an id");
    let name = BrandName::parse(line())
        .or_else(|_| BrandName::parse("Simswap"))
        .expect("a name");
    let brand = Brand {
        name,
        sender: from.name,
        colour: None,
        logo: None,
        support: SupportContact::parse(line()).ok(),
        reply_to: None,
    };
    let language = Language::ALL[input.len() % Language::ALL.len()];
    let time = "2025-02-17T14:38:50+01:00[Europe/Amsterdam]".parse().expect("a time");
    let compose_with = |message: MailMessage<'_>| {
        compose(&MailContent {
            from: &from.address,
            to: &to,
            language,
            phone: &phone,
            brand: &brand,
            activation: &activation,
            delivery: 1,
            sent_at: "2025-02-03T13:38:50Z".parse().expect("a time"),
            message,
        })
    };
    let raw = compose_with(MailMessage::Code {
        code: &code,
        reminder: input.len() % 2 == 1,
        renewed: input.len() % 3 == 1,
        works_until: &time,
    });
    let end = compose_with(MailMessage::End {
        expired: input.len() % 2 == 1,
        requested_at: &time,
    });
    for raw in [&raw, &end] {
        check_message(raw, &to);
    }
    let end = MessageParser::default().parse(&end).expect("it is a message");
    assert_eq!(end.parts.len(), 5);
    let mail = MessageParser::default().parse(&raw).expect("it is a message");
    assert_eq!(mail.parts.len(), 7);
    let whole = code.expose();
    let texts = [mail.body_text(0), mail.body_html(0)].map(|text| text.expect("a body"));
    for text in &texts {
        for part in [&whole, &code.apple_link(), &code.android_link()] {
            assert!(text.contains(part.as_str()), "{part} in {text}");
        }
    }
    let contact = brand.support.as_ref();
    for part in [
        contact.and_then(SupportContact::phone),
        contact.and_then(SupportContact::link),
    ] {
        assert!(
            part.is_none_or(|part| texts[0].contains(part)),
            "{part:?} in {}",
            texts[0]
        );
    }

    let image = draw(&code);
    assert!((300..=400).contains(&image.side));
    let images: Vec<_> = mail
        .parts
        .iter()
        .filter(|part| part.is_content_type("image", "png"))
        .collect();
    assert_eq!(images.len(), 2);
    assert!(images.iter().all(|part| part.contents() == image.png));
    let pixels = image::load_from_memory(&image.png).expect("a PNG").into_luma8();
    let side = pixels.width() as usize;
    let mut prepared =
        rqrr::PreparedImage::prepare_from_greyscale(side, side, |x, y| pixels.get_pixel(x as u32, y as u32).0[0]);
    let found = prepared.detect_grids();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].decode().expect("a QR code").1, whole);
});

/// Checks what is true of each mail.
fn check_message(raw: &[u8], to: &EmailAddress) {
    let mail = MessageParser::default().parse(raw).expect("it is a message");
    let names: Vec<&str> = mail.headers_raw().map(|(name, _)| name).collect();
    assert_eq!(names, HEADERS);
    let recipients = mail.to().and_then(|to| to.as_list()).expect("a list");
    let recipients: Vec<_> = recipients.iter().map(|to| to.address.as_deref()).collect();
    assert_eq!(recipients, [Some(to.as_str())]);
    assert_eq!(
        mail.from().and_then(|from| from.as_list()).map(|list| list.len()),
        Some(1)
    );
    assert!(mail.cc().is_none() && mail.bcc().is_none());
    for line in raw.split(|byte| *byte == b'\n') {
        assert!(
            line.len() <= 999 && line.iter().all(u8::is_ascii),
            "RFC 5322 section 2.1.1"
        );
    }
}
