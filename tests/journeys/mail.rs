//! The eSIM's mail as it leaves: what is in it, in which language, and what becomes of it when SES fails.

use std::time::Duration;

use domain::{
    ActivationCode, ActivationId, DeliveryStep, EmailAddress, FormFactor, Iccid, Language, Line,
    LineState, Msisdn, NetworkName, Sim, SimState, SmDpAddress, SubscriptionId, next_delivery,
};
use jiff::Timestamp;
use mail_parser::{Message, MessageParser, MimeHeaders};
use serde_json::{Value, json};
use tests::{Fault, Wire, World, esim, line};

/// The text that a phone's camera reads from the PNG.
fn camera(png: &[u8]) -> String {
    let mut decoder = png::Decoder::new(std::io::Cursor::new(png));
    decoder.set_transformations(png::Transformations::EXPAND);
    let mut reader = decoder.read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let frame = reader.next_frame(&mut pixels).unwrap();
    let (width, height) = (frame.width as usize, frame.height as usize);
    let mut image = rqrr::PreparedImage::prepare_from_greyscale(width, height, |x, y| {
        pixels[y * frame.line_size + x]
    });
    let grids = image.detect_grids();
    assert_eq!(grids.len(), 1);
    grids[0].decode().unwrap().1
}

/// A line of KPN, C-100 and R-10 whose customer reads French.
async fn add_french_line(world: &World) -> &'static str {
    const ID: &str = "FRANCOISE";
    let line = Line {
        id: SubscriptionId::parse(ID).unwrap(),
        phone: Msisdn::parse("+31612345699").unwrap(),
        customer: "C-100".to_owned(),
        reseller: Some("R-10".to_owned()),
        network: NetworkName::parse("KPN").unwrap(),
        current_sim: Iccid::parse("8931086000000000999").unwrap(),
        email: Some(EmailAddress::parse("francoise@example.com").unwrap()),
        language: Language::Fr,
        state: LineState::Active,
        porting: false,
        locked: false,
        open_swap: None,
    };
    let sim = Sim {
        iccid: line.current_sim.clone(),
        imsi: None,
        network: line.network.clone(),
        reseller: line.reseller.clone(),
        form_factor: FormFactor::Nano,
        auto_assign: false,
        state: SimState::Activated,
        free_from: Timestamp::UNIX_EPOCH,
        holder: None,
        pin1: None,
        pin2: None,
        puk1: None,
        puk2: None,
        supplier_code: None,
        tag: None,
    };
    world.stack.store.add_line(&line, sim).await.unwrap();
    ID
}

fn header<'a>(mail: &'a Message<'_>, name: &'static str) -> &'a str {
    mail.header_raw(name).unwrap_or_default().trim()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_mail_holds_the_code_in_the_customer_s_language() {
    let world = World::new().await;
    let french = add_french_line(&world).await;
    for (line, language, subject, number) in [
        (line::ANNA, "nl", "Je eSIM staat klaar", "06-12345601"),
        (line::BRAM, "en", "Your eSIM is ready", "06-12345602"),
        (line::CARLA, "de", "Ihre eSIM ist bereit", "06-12345603"),
        (line::DORTE, "da", "Dit eSIM er klar", "+4520123401"),
        (french, "fr", "Votre eSIM est prête", "06-12345699"),
    ] {
        let to = format!("{language}@example.com");
        let mut body = esim(line);
        body["email"] = json!(to);
        let id = world.begin(&body).await;
        let raw = world.await_mail(&id).await;
        let mail = MessageParser::default().parse(&raw).unwrap();

        // The QR code, inline and attached, is the code in both texts, and the one that the phone needs.
        let images: Vec<_> = mail
            .parts
            .iter()
            .filter(|part| part.is_content_type("image", "png"))
            .collect();
        assert_eq!(images.len(), 2);
        let code = camera(images[0].contents());
        assert_eq!(camera(images[1].contents()), code);
        assert_eq!(images[1].attachment_name(), Some("esim-qr.png"));
        let matching_id = code.strip_prefix("LPA:1$smdp.example.test$").unwrap();
        let matching_id = matching_id.strip_suffix("$$1").unwrap();
        let (text, html) = (mail.body_text(0).unwrap(), mail.body_html(0).unwrap());
        let encoded = code.replace(':', "%3A").replace('$', "%24");
        for host in ["esimsetup.apple.com", "esimsetup.android.com"] {
            let link = format!("https://{host}/esim_qrcode_provisioning?carddata={encoded}");
            assert!(text.contains(&link) && html.contains(&link), "{text}");
        }
        for part in [code.as_str(), matching_id, "smdp.example.test", number] {
            assert!(
                text.contains(part) && html.contains(part),
                "{part} in {text}"
            );
        }
        assert!(
            html.contains(&format!("<html lang=\"{language}\"")),
            "{language}"
        );
        assert!(html.contains(&format!("cid:{}", images[0].content_id().unwrap())));
        assert!(!html.contains("data:"));

        assert_eq!(header(&mail, "To"), format!("<{to}>"));
        assert_eq!(header(&mail, "From"), "\"Simswap\" <esim@simswap.example>");
        assert_eq!(header(&mail, "Content-Language"), language);
        for absent in ["Cc", "Bcc", "Reply-To"] {
            assert_eq!(header(&mail, absent), "", "{absent}");
        }
        assert_eq!(mail.subject(), Some(subject));

        // SES was told one recipient and which swap it is about.
        let listed = world.send("GET", "/local/mail", &[], "").await.json();
        let entry = &listed[0];
        assert_eq!(
            (&entry["to"], &entry["activationId"], &entry["subject"]),
            (&json!(to), &json!(id), &json!(mail.subject().unwrap()))
        );
        let shown = world
            .send(
                "GET",
                &format!("/local/mail/{}", entry["id"].as_str().unwrap()),
                &[],
                "",
            )
            .await;
        assert_eq!(shown.headers["content-type"], "message/rfc822");
        assert_eq!(shown.body.as_bytes(), raw);

        assert_eq!(world.install(&code, "8E9!#").await.status, 200);
        world.await_status(&id, "DONE").await;
    }
}

/// A world whose SES is behind a wire, and is not waited for.
/// A world whose SES is reached over a wire, and reports nothing unless there is a configuration set.
async fn wired(configuration_set: &str) -> (World, Wire) {
    let wire = Wire::new().await;
    let world = World::with(&[
        ("AWS_ENDPOINT_URL_SES", &wire.url),
        ("MAIL_CONFIGURATION_SET", configuration_set),
        ("MAIL_DOUBT", "1s"),
        ("MAIL_RETRY_AFTER", "1ms"),
        // No slow machine outlives it: only what is planned is lost.
        ("LEASE", "60s"),
    ])
    .await;
    wire.connect(&world.stack.endpoints.ses);
    (world, wire)
}

/// SES's way to say no.
fn refused(code: &str) -> Fault {
    Fault::Answer(
        400,
        format!(
            "<ErrorResponse xmlns=\"http://ses.amazonaws.com/doc/2010-12-01/\"><Error><Type>Sender</Type>\
             <Code>{code}</Code><Message>no</Message></Error><RequestId>1</RequestId></ErrorResponse>"
        ),
    )
}

/// The activation code of a swap, whether its mail came or not.
async fn code_of(world: &World, id: &str) -> String {
    let store = &world.stack.store;
    let swap = store.swap(&ActivationId::parse(id).unwrap()).await;
    let matching_id = store.matching_id(&swap.unwrap().unwrap()).await.unwrap();
    let address = SmDpAddress::parse("smdp.example.test").unwrap();
    ActivationCode::new(address, matching_id, true).expose()
}

/// Ready when nothing is left to be done for the swap's mail.
async fn await_rest(world: &World, id: &str) {
    let id = ActivationId::parse(id).unwrap();
    for _ in 0..2000 {
        let mail = world.stack.store.delivery(&id, 1).await.unwrap().unwrap();
        if next_delivery(&mail, Timestamp::now()) == DeliveryStep::Rest {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("its mail does not rest");
}

fn delivery(seen: &Value) -> &str {
    seen["info"]["delivery"].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mail_in_doubt_is_sent_once_more_and_no_more() {
    let (world, wire) = wired("").await;
    // What SES has of the first, and of the second; what is shown in the end.
    for (first, second, mails, shown) in [
        (Fault::LoseAnswer, None, 2, "sent"),
        (Fault::LoseRequest, None, 1, "sent"),
        (Fault::Answer(500, String::new()), None, 1, "sent"),
        (Fault::LoseAnswer, Some(Fault::LoseAnswer), 2, "ambiguous"),
        (
            Fault::LoseRequest,
            Some(refused("MessageRejected")),
            0,
            "ambiguous",
        ),
    ] {
        let case = format!("{first:?} {second:?}");
        let calls = wire.count("POST");
        wire.plan("POST", first);
        if let Some(second) = second {
            wire.plan("POST", second);
        }
        let id = world.begin(&esim(line::ANNA)).await;
        world
            .await_activation(&id, |seen| delivery(seen) == "ambiguous")
            .await;
        await_rest(&world, &id).await;
        assert_eq!(delivery(&world.activation(&id).await), shown, "{case}");
        assert_eq!(wire.count("POST"), calls + 2, "{case}");
        assert_eq!(world.mails(&id).len(), mails, "{case}");
        assert!(wire.is_spent(), "{case}");

        // Whichever of them is in the mail box, it has the same code.
        let codes: Vec<String> = world
            .mails(&id)
            .iter()
            .map(|mail| tests::activation_code(mail))
            .collect();
        let code = code_of(&world, &id).await;
        assert!(codes.iter().all(|mailed| *mailed == code), "{case}");
        assert_eq!(world.install(&code, "8E9!#").await.status, 200);
        world.await_status(&id, "DONE").await;
        assert_eq!(wire.count("POST"), calls + 2, "{case}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_ses_reports_no_mail_stays_in_doubt() {
    let (world, wire) = wired("simswap").await;
    // It took the first, and says so before a second is sent; or it never heard of two, and a third is sent.
    for (line, faults, calls) in [
        (line::ANNA, vec![Fault::LoseAnswer], 1),
        (line::BRAM, vec![Fault::LoseRequest; 2], 3),
    ] {
        let before = wire.count("POST");
        for fault in faults {
            wire.plan("POST", fault);
        }
        let id = world.begin(&esim(line)).await;
        world.await_waiting(&id).await;
        assert_eq!(
            (world.mails(&id).len(), wire.count("POST") - before),
            (1, calls)
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mail_that_is_refused_for_now_is_sent_later_and_once() {
    let (world, wire) = wired("").await;
    wire.plan("POST", refused("Throttling"));
    wire.plan("POST", refused("AccountSendingPausedException"));
    let id = world.begin(&esim(line::ANNA)).await;
    world
        .await_activation(&id, |seen| delivery(seen) == "sent")
        .await;
    assert_eq!((world.mails(&id).len(), wire.count("POST")), (1, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mail_that_is_refused_is_not_sent() {
    let (world, wire) = wired("").await;
    for (codes, line) in [
        (&["MessageRejected"][..], line::ANNA),
        (&["InvalidParameterValue"], line::BRAM),
        (&["Throttling"; 6], line::CARLA),
    ] {
        let calls = wire.count("POST");
        for code in codes {
            wire.plan("POST", refused(code));
        }
        let id = world.begin(&esim(line)).await;
        let failed = world
            .await_activation(&id, |seen| delivery(seen) == "failed")
            .await;
        // The eSIM is there all the same.
        assert_eq!(failed["status"], "BUSY");
        assert!(world.mails(&id).is_empty());
        assert_eq!(wire.count("POST") - calls, codes.len());
    }
}
