//! The eSIM e-mail as SES receives it: its contents, its language, and its fate when SES fails.

use std::time::Duration;

use aws_sdk_ses::config::{BehaviorVersion, Credentials, Region};
use aws_smithy_async::rt::sleep::{SharedAsyncSleep, TokioSleep};
use deliver_esim::DeliverEsim;
use domain::{
    ActivationCode, ActivationId, Delivery, DeliveryState, DeliveryStep, EmailAddress, FormFactor, Language, Line, Sim,
    SimState, SmDpAddress, next_delivery,
};
use edge::{ClockAndRng, Settings, records_of};
use jiff::{SignedDuration, Timestamp};
use lambda_runtime::{Context, LambdaEvent};
use mail_events::MailEvents;
use mail_parser::{Message, MessageParser, MessagePart, MimeHeaders};
use operator::import::{Kind, Report};
use serde_json::{Value, json};
use tests::stock::{active_line, free_sim};
use tests::{FaultyProxy, ProxyFault, TestStack, esim, line};

/// The text that a phone's camera reads from the PNG.
fn read_qr_code(png: &[u8]) -> String {
    let mut decoder = png::Decoder::new(std::io::Cursor::new(png));
    decoder.set_transformations(png::Transformations::EXPAND);
    let mut reader = decoder.read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let frame = reader.next_frame(&mut pixels).unwrap();
    let (width, height) = (frame.width as usize, frame.height as usize);
    let mut image = rqrr::PreparedImage::prepare_from_greyscale(width, height, |x, y| pixels[y * frame.line_size + x]);
    let grids = image.detect_grids();
    assert_eq!(grids.len(), 1);
    grids[0].decode().unwrap().1
}

/// A line of KPN, C-100 and R-10 whose customer reads French.
async fn add_french_line(service: &TestStack) -> &'static str {
    const ID: &str = "FRANCOISE";
    let sim = Sim {
        reseller: Some("R-10".to_owned()),
        state: SimState::Activated,
        ..free_sim("KPN", "8931086000000000999", FormFactor::Nano)
    };
    let line = Line {
        customer: "C-100".to_owned(),
        email: Some(EmailAddress::parse("francoise@example.com").unwrap()),
        language: Language::Fr,
        ..active_line(ID, "+31612345699", &sim)
    };
    service.stack.store.add_line(&line, sim).await.unwrap();
    ID
}

fn header<'a>(mail: &'a Message<'_>, name: &'static str) -> &'a str {
    mail.header_raw(name).unwrap_or_default().trim()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_mail_has_the_code_in_the_customers_language() {
    let service = TestStack::new().await;
    let french = add_french_line(&service).await;
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
        let id = service.start_swap(&body).await;
        let raw = service.await_mail(&id).await;
        let mail = MessageParser::default().parse(&raw).unwrap();

        // The QR code, inline and attached, holds the same code as both texts, and the phone installs with it.
        let images = images(&mail);
        let names: Vec<_> = images.iter().map(|image| image.attachment_name().unwrap()).collect();
        let is_branded = line == line::DORTE;
        let expected: &[_] = match is_branded {
            true => &["esim-qr.png", "logo.png", "esim-qr.png"],
            false => &["esim-qr.png"; 2],
        };
        assert_eq!(names, expected);
        let code = read_qr_code(images[0].contents());
        assert_eq!(read_qr_code(images[images.len() - 1].contents()), code);
        let matching_id = code.strip_prefix("LPA:1$smdp.example.test$").unwrap();
        let matching_id = matching_id.strip_suffix("$$1").unwrap();
        let (text, html) = (mail.body_text(0).unwrap(), mail.body_html(0).unwrap());
        let encoded = code.replace(':', "%3A").replace('$', "%24");
        for host in ["esimsetup.apple.com", "esimsetup.android.com"] {
            let link = format!("https://{host}/esim_qrcode_provisioning?carddata={encoded}");
            assert!(text.contains(&link) && html.contains(&link), "{text}");
        }
        for part in [code.as_str(), matching_id, "smdp.example.test", number] {
            assert!(text.contains(part) && html.contains(part), "{part} in {text}");
        }
        assert!(html.contains(&format!("<html lang=\"{language}\"")), "{language}");
        assert!(html.contains(&format!("cid:{}", images[0].content_id().unwrap())));
        assert!(!html.contains("data:"));

        assert_eq!(header(&mail, "To"), format!("<{to}>"));
        // The sample data has a brand for the reseller R-20, which is Dorte's.
        let (sender, reply_to, phone) = match is_branded {
            true => ("Nordlys Mobil", "hjaelp@nordlys.example", "+45 70 12 34 56"),
            false => ("Simswap", "help@simswap.example", "+31 20 123 4567"),
        };
        assert_eq!(header(&mail, "From"), format!("\"{sender}\" <esim@simswap.example>"));
        assert_eq!(header(&mail, "Reply-To"), format!("<{reply_to}>"));
        assert!(text.contains(phone) && html.contains(phone), "{text}");
        assert_eq!(header(&mail, "Content-Language"), language);
        for absent in ["Cc", "Bcc"] {
            assert_eq!(header(&mail, absent), "", "{absent}");
        }
        assert_eq!(mail.subject(), Some(subject));

        // SES got one recipient, and a tag with the swap's id.
        let listed = service.send("GET", "/local/mail", &[], "").await.json();
        let entry = &listed[0];
        assert_eq!(
            (&entry["to"], &entry["activationId"], &entry["subject"]),
            (&json!(to), &json!(id), &json!(mail.subject().unwrap()))
        );
        let shown = service
            .send(
                "GET",
                &format!("/local/mail/{}", entry["id"].as_str().unwrap()),
                &[],
                "",
            )
            .await;
        assert_eq!(shown.headers["content-type"], "message/rfc822");
        assert_eq!(shown.body.as_bytes(), raw);

        assert_eq!(service.install(&code, "8E9!#").await.status, 200);
        service.await_status(&id, "DONE").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mail_shows_the_brand_that_was_imported_for_its_reseller() {
    let service = TestStack::new().await;
    let folder = tempfile::tempdir().unwrap();
    let (file, logo) = (folder.path().join("brands.csv"), sample_logo(&service).await);
    std::fs::write(folder.path().join("logo.png"), &logo).unwrap();
    let import = async |rows: &str| {
        let header = "RESELLER;NAME;SENDER_NAME;COLOUR;LOGO;SUPPORT_CONTACT;REPLY_TO";
        std::fs::write(&file, format!("{header}\n{rows}\n")).unwrap();
        let mut faults = Vec::new();
        let mut report = |report| {
            if let Report::Faulty(_, fault) = report {
                faults.push(fault);
            }
        };
        let counts = operator::import::import(Kind::Brands, &file, false, &service.stack.store, &mut report);
        let counts = counts.await.unwrap();
        (counts.added, counts.updated, counts.unchanged, faults)
    };

    let faulty = "R-10;<script>;;red\"};none.png;javascript:alert(1);";
    let (.., faults) = import(&format!("R-20;Other;;;;;\n{faulty}")).await;
    assert_eq!(
        faults,
        [
            "the brand of R-10: NAME must be 1 to 64 characters on one line, without < > \" and \\; \
          the brand of R-10: COLOUR must be a colour like #1553c7; \
          the brand of R-10: LOGO names a file that cannot be read; \
          the brand of R-10: SUPPORT_CONTACT must be a phone number (+31 20 123 4567), a link \
          (https://example.com/help), or both"
        ]
    );
    let brand = service.stack.store.brand("R-20").await.unwrap().unwrap();
    assert_eq!(brand.name.as_str(), "Nordlys Mobil", "nothing was written");
    assert_eq!(import("R-20;;;;;;").await, (0, 1, 0, vec![]));

    let brand = "R-10;Zwaluw & Zoon;;#ffd400;logo.png;https://zwaluw.example;";
    assert_eq!(import(brand).await, (1, 0, 0, vec![]));
    assert_eq!(import(brand).await, (0, 0, 1, vec![]));
    assert_eq!(import(&brand.replace("ffd400", "0b7a4b")).await, (0, 1, 0, vec![]));
    assert_eq!(import("R-30;;;;;;").await, (0, 0, 1, vec![]));

    let id = service.start_swap(&esim(line::ANNA)).await;
    let raw = service.await_mail(&id).await;
    let mail = MessageParser::default().parse(&raw).unwrap();
    assert_eq!(header(&mail, "From"), "\"Zwaluw & Zoon\" <esim@simswap.example>");
    assert_eq!(
        header(&mail, "Reply-To"),
        "<help@simswap.example>",
        "the default brand's"
    );
    let html = mail.body_html(0).unwrap();
    for part in ["Zwaluw &#38; Zoon", "#0b7a4b", "href=\"https://zwaluw.example\""] {
        assert!(html.contains(part), "{part} in {html}");
    }
    assert!(!html.contains("tel:"), "{html}");
    assert_eq!(images(&mail)[1].contents(), logo);

    // The next mail costs no read of the brand, so it shows the brand that has been deleted since.
    assert_eq!(import("R-10;;;;;;").await, (0, 1, 0, vec![]));
    let id = service.start_swap(&esim(line::BRAM)).await;
    let raw = service.await_mail(&id).await;
    let mail = MessageParser::default().parse(&raw).unwrap();
    assert_eq!(header(&mail, "From"), "\"Zwaluw & Zoon\" <esim@simswap.example>");

    // Without a brand, the mail has the default one. A brand that was written by something else does not stop a mail.
    let malformed = json!({
        "TableName": service.stack.endpoints.table,
        "Item": {"pk": {"S": "B#R-30"}, "sk": {"S": "brand"}, "name": {"S": "<script>"}},
    });
    let malformed = serde_json::from_value(malformed).unwrap();
    service.stack.database.put_item(malformed).unwrap();
    let sim = Sim {
        reseller: Some("R-30".to_owned()),
        state: SimState::Activated,
        ..free_sim("KPN", "8931086000000000998", FormFactor::Nano)
    };
    let line = active_line("R30", "+31612345698", &sim);
    service.stack.store.add_line(&line, sim).await.unwrap();
    let spare = free_sim("KPN", "8931086000000000997", FormFactor::Esim);
    service.stack.store.add_sim(&spare).await.unwrap();
    for line in [line::DORTE, "R30"] {
        let id = service.start_swap(&esim(line)).await;
        let raw = service.await_mail(&id).await;
        let mail = MessageParser::default().parse(&raw).unwrap();
        assert_eq!(header(&mail, "From"), "\"Simswap\" <esim@simswap.example>", "{line}");
    }
}

/// The logo of the brand in the sample data.
async fn sample_logo(service: &TestStack) -> Vec<u8> {
    let brand = service.stack.store.brand("R-20").await.unwrap().unwrap();
    brand.logo.unwrap().png().to_vec()
}

fn images<'a>(mail: &'a Message<'_>) -> Vec<&'a MessagePart<'a>> {
    let parts = mail.parts.iter();
    parts.filter(|part| part.is_content_type("image", "png")).collect()
}

/// A service that reaches SES through a proxy. SES publishes no events unless there is a configuration set.
async fn with_ses_proxy(configuration_set: &str) -> (TestStack, FaultyProxy) {
    with_ses_proxy_and(configuration_set, "1ms").await
}

async fn with_ses_proxy_and(configuration_set: &str, retry_after: &str) -> (TestStack, FaultyProxy) {
    let proxy = FaultyProxy::new().await;
    let service = TestStack::with(&[
        ("AWS_ENDPOINT_URL_SES", &proxy.url),
        ("MAIL_CONFIGURATION_SET", configuration_set),
        ("MAIL_DOUBT", "1s"),
        ("MAIL_RETRY_AFTER", retry_after),
        // The lease outlasts any delay of a slow machine, so only the planned requests are lost.
        ("LEASE", "60s"),
    ])
    .await;
    proxy.connect(&service.stack.endpoints.ses);
    (service, proxy)
}

/// SES rejects a mail with this code.
pub(crate) fn rejection(code: &str) -> ProxyFault {
    rejection_with(400, code, "no")
}

fn rejection_with(status: u16, code: &str, message: &str) -> ProxyFault {
    ProxyFault::Respond(
        status,
        format!(
            "<ErrorResponse xmlns=\"http://ses.amazonaws.com/doc/2010-12-01/\"><Error><Type>Sender</Type>\
             <Code>{code}</Code><Message>{message}</Message></Error><RequestId>1</RequestId></ErrorResponse>"
        ),
    )
}

/// The activation code of a swap, whether its mail arrived or not.
async fn code_of(service: &TestStack, id: &str) -> String {
    let store = &service.stack.store;
    let swap = store.swap(&ActivationId::parse(id).unwrap()).await;
    let matching_id = store.matching_id(&swap.unwrap().unwrap()).await.unwrap();
    let address = SmDpAddress::parse("smdp.example.test").unwrap();
    ActivationCode::new(address, matching_id, true).expose()
}

async fn find_delivery(service: &TestStack, id: &str) -> Option<Delivery> {
    let id = ActivationId::parse(id).unwrap();
    service.stack.store.delivery(&id, 1).await.unwrap()
}

async fn delivery_of(service: &TestStack, id: &str) -> Delivery {
    find_delivery(service, id).await.unwrap()
}

/// The swap's mail as soon as it has been held this often.
async fn await_holds(service: &TestStack, id: &str, holds: u32) -> Delivery {
    for _ in 0..2000 {
        if let Some(mail) = find_delivery(service, id).await
            && mail.holds >= holds
        {
            return mail;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the mail is not held");
}

/// Waits until the swap's mail needs no further step.
async fn await_settled(service: &TestStack, id: &str) {
    for _ in 0..2000 {
        let mail = delivery_of(service, id).await;
        if next_delivery(&mail, Timestamp::now()) == DeliveryStep::Nothing {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the mail still needs a step");
}

fn delivery(seen: &Value) -> &str {
    seen["info"]["delivery"].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ambiguous_mail_is_sent_once_more_and_no_more() {
    let (service, proxy) = with_ses_proxy("").await;
    // The faults of the first and the second attempt, the mails that SES accepts, and the delivery state in the end.
    for (first, second, mails, shown) in [
        (ProxyFault::LoseResponse, None, 2, "sent"),
        (ProxyFault::LoseRequest, None, 1, "sent"),
        (ProxyFault::Respond(500, String::new()), None, 1, "sent"),
        (ProxyFault::LoseResponse, Some(ProxyFault::LoseResponse), 2, "ambiguous"),
        (
            ProxyFault::LoseRequest,
            Some(rejection("MessageRejected")),
            0,
            "ambiguous",
        ),
    ] {
        let case = format!("{first:?} {second:?}");
        let calls = proxy.count("POST");
        proxy.plan("POST", first);
        if let Some(second) = second {
            proxy.plan("POST", second);
        }
        let id = service.start_swap(&esim(line::ANNA)).await;
        service
            .await_activation(&id, |seen| delivery(seen) == "ambiguous")
            .await;
        await_settled(&service, &id).await;
        assert_eq!(delivery(&service.activation(&id).await), shown, "{case}");
        assert_eq!(proxy.count("POST"), calls + 2, "{case}");
        assert_eq!(service.mails(&id).len(), mails, "{case}");
        assert!(proxy.is_spent(), "{case}");

        // Whichever attempt succeeded, the mail has the same code.
        let codes: Vec<String> = service
            .mails(&id)
            .iter()
            .map(|mail| tests::activation_code(mail))
            .collect();
        let code = code_of(&service, &id).await;
        assert!(codes.iter().all(|mailed| *mailed == code), "{case}");
        assert_eq!(service.install(&code, "8E9!#").await.status, 200);
        service.await_status(&id, "DONE").await;
        assert_eq!(proxy.count("POST"), calls + 2, "{case}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ses_events_settle_ambiguous_mails() {
    let (service, proxy) = with_ses_proxy("simswap").await;
    // SES accepted the first attempt, and its event arrives before a second attempt. Or SES received neither of two
    // attempts, and a third succeeds. Or SES received none of three, and there are no more.
    for (line, faults, mails, calls, shown) in [
        (line::ANNA, vec![ProxyFault::LoseResponse], 1, 1, "delivered"),
        (line::BRAM, vec![ProxyFault::LoseRequest; 2], 1, 3, "delivered"),
        (line::CARLA, vec![ProxyFault::LoseRequest; 3], 0, 3, "failed"),
    ] {
        let before = proxy.count("POST");
        for fault in faults {
            proxy.plan("POST", fault);
        }
        let id = service.start_swap(&esim(line)).await;
        service.await_activation(&id, |seen| delivery(seen) == shown).await;
        await_settled(&service, &id).await;
        assert_eq!((service.mails(&id).len(), proxy.count("POST") - before), (mails, calls));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_response_of_ses_is_awaited() {
    let (service, proxy) = with_ses_proxy("").await;
    // Longer than any attempt of the SDK's other clients may take.
    proxy.plan("POST", ProxyFault::Late(Duration::from_secs(4)));
    let id = service.start_swap(&esim(line::ANNA)).await;
    let known = service
        .await_activation(&id, |seen| !["", "pending"].contains(&delivery(seen)))
        .await;
    assert_eq!(delivery(&known), "sent");
    assert_eq!((service.mails(&id).len(), proxy.count("POST")), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_of_the_ses_account_are_retried_later() {
    let (service, proxy) = with_ses_proxy("").await;
    let not_verified = "Email address is not verified. The following identities failed the check in region \
                        EU-CENTRAL-1: esim@simswap.example";
    for (line, reason, response) in [
        (
            line::ANNA,
            "throttled",
            rejection_with(400, "Throttling", "Maximum sending rate exceeded."),
        ),
        (
            line::BRAM,
            "quota",
            rejection_with(400, "Throttling", "Daily message quota exceeded."),
        ),
        (line::CARLA, "paused", rejection("AccountSendingPausedException")),
        (
            line::DORTE,
            "unverified",
            rejection_with(400, "MessageRejected", not_verified),
        ),
        (
            add_french_line(&service).await,
            "unreachable",
            ProxyFault::Respond(404, "<html>".to_owned()),
        ),
    ] {
        let before = proxy.count("POST");
        for _ in 0..8 {
            proxy.plan("POST", response.clone());
        }
        let id = service.start_swap(&esim(line)).await;
        let known = service
            .await_activation(&id, |seen| !["", "pending"].contains(&delivery(seen)))
            .await;
        assert_eq!(delivery(&known), "sent", "{reason}");
        let calls = proxy.count("POST") - before;
        assert_eq!((service.mails(&id).len(), calls), (1, 9), "{reason}");
        let mail = delivery_of(&service, &id).await;
        assert_eq!((mail.holds, mail.rejected_attempts), (8, 0), "{reason}");
        let noted = mail.timeline.iter().map(|event| (event.what.clone(), event.count));
        let expected = [(format!("SES: {reason}"), 8), ("sent".to_owned(), 1)];
        assert_eq!(noted.collect::<Vec<_>>(), expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreachable_ses_is_retried_later() {
    // Nothing listens at this port, so no mail can have been sent on the connection.
    let nowhere = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let service = TestStack::with(&[("AWS_ENDPOINT_URL_SES", &nowhere), ("MAIL_RETRY_AFTER", "1ms")]).await;
    let id = service.start_swap(&esim(line::ANNA)).await;
    let mail = await_holds(&service, &id, 8).await;
    assert_eq!((mail.rejected_attempts, mail.unknown_attempts), (0, 0));
}

/// The Lambda context of an invocation.
fn invocation() -> Context {
    let mut context = Context::default();
    context.request_id = "by-a-test".to_owned();
    context
}

/// A function beside the stack's own, as a process of its own, whose clock is this many hours ahead.
fn sandbox(service: &TestStack, proxy: &FaultyProxy, hours: i64, mails_a_second: &'static str) -> DeliverEsim {
    let ses = aws_sdk_ses::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::from_static("eu-central-1"))
        .http_client(aws::http_client(None))
        .credentials_provider(Credentials::new("local", "local", None, None, "local"))
        .sleep_impl(SharedAsyncSleep::new(TokioSleep::new()))
        .endpoint_url(&proxy.url)
        .build();
    let settings = Settings::new(move |name| {
        let value = match name {
            "MAIL_FROM" => "Simswap <esim@simswap.example>",
            "BRAND" => "Simswap",
            "MAILS_A_SECOND" => mails_a_second,
            _ => return None,
        };
        Some(value.to_owned())
    });
    let later = SignedDuration::from_hours(hours);
    let clock = ClockAndRng::new(move || Timestamp::now() + later, || 7);
    DeliverEsim::new(service.stack.store.clone(), &ses, clock, &settings).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_sent_at_the_accounts_rate() {
    // The stack's own function holds each mail for at least half an hour.
    let (service, proxy) = with_ses_proxy_and("", "1h").await;
    let mut ids = Vec::new();
    for line in [line::ANNA, line::BRAM, line::CARLA, line::DORTE] {
        proxy.plan("POST", rejection("Throttling"));
        ids.push(service.start_swap(&esim(line)).await);
    }
    for id in &ids {
        await_holds(&service, id, 1).await;
    }
    let rows: Vec<String> = ids.iter().map(|id| format!("A#{id}")).collect();
    let batch = records_of(rows.iter().map(|row| (row.as_str(), "delivery#1")));
    let sent = |of: &[String]| of.iter().filter(|id| !service.mails(id).is_empty()).count();
    // At most this many mails in a thousand seconds; the last function sends all that are left, one after another.
    for (rate, expected) in [("0.001", 1), ("0.001", 2), ("1000", 4)] {
        let event = LambdaEvent::new(serde_json::from_str(&batch).unwrap(), invocation());
        let response = sandbox(&service, &proxy, 2, rate).handle(event).await;
        assert!(response.batch_item_failures.is_empty());
        assert_eq!(sent(&ids), expected, "{rate}");
        for id in &ids {
            let mail = delivery_of(&service, id).await;
            // A mail that was not sent is not claimed, and the sweeper finds it.
            let left = (mail.state, mail.due_at.is_some());
            let is_sent = !service.mails(id).is_empty();
            let state = if is_sent {
                DeliveryState::Sent
            } else {
                DeliveryState::Pending
            };
            assert_eq!(left, (state, !is_sent));
        }
    }
    assert_eq!(proxy.count("POST"), 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transient_bounce_does_not_change_a_delivered_mail() {
    let (service, _wire) = with_ses_proxy("").await;
    let bounce = |kind: &str| json!({"eventType": "Bounce", "bounce": {"bounceType": kind}});
    let delivery_event = || json!({"eventType": "Delivery", "delivery": {}});
    for (line, events) in [
        (
            line::ANNA,
            vec![
                (bounce("Transient"), "bounced"),
                (bounce("Transient"), "bounced"),
                (delivery_event(), "delivered"),
                (bounce("Transient"), "delivered"),
                (delivery_event(), "delivered"),
                (bounce("Permanent"), "bounced"),
                (delivery_event(), "bounced"),
            ],
        ),
        (
            line::BRAM,
            vec![
                (delivery_event(), "delivered"),
                (bounce("Transient"), "delivered"),
                (bounce("Transient"), "delivered"),
                (bounce("Undetermined"), "bounced"),
            ],
        ),
        (
            line::CARLA,
            vec![
                (json!({"eventType": "Send"}), "sent"),
                (json!({"eventType": "DeliveryDelay"}), "sent"),
                (
                    json!({"eventType": "Reject", "reject": {"reason": "Bad content"}}),
                    "bounced",
                ),
            ],
        ),
        (
            line::DORTE,
            vec![(json!({"eventType": "Bounce", "bounce": null}), "bounced")],
        ),
    ] {
        let id = service.start_swap(&esim(line)).await;
        service.await_activation(&id, |seen| delivery(seen) == "sent").await;
        let settings = Settings::new(|_| None);
        let store = service.stack.store.clone();
        let function = MailEvents::new(store, ClockAndRng::real(), &settings).unwrap();
        for (mut event, shown) in events {
            event["mail"] = json!({"messageId": "m", "tags": {"activation": [id], "attempt": ["1-1"]}});
            let sns = json!({"Records": [{"Sns": {"Message": event.to_string()}}]});
            let notification = LambdaEvent::new(serde_json::from_value(sns).unwrap(), invocation());
            function.handle(notification).await.unwrap();
            let seen = service.activation(&id).await;
            assert_eq!(delivery(&seen), shown, "{event}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_out_of_office_reply_changes_nothing() {
    let service = TestStack::new().await;
    let mut body = esim(line::ANNA);
    body["email"] = json!("ooto@simulator.amazonses.com");
    let away = service.start_swap(&body).await;
    service.await_mail(&away).await;
    // SES publishes the events of the mails in order: when the second mail is delivered, all events of the first have
    // arrived.
    let here = service.start_swap(&esim(line::BRAM)).await;
    for id in [here, away] {
        service
            .await_activation(&id, |seen| delivery(seen) == "delivered")
            .await;
    }
}

#[test]
fn the_template_subscribes_to_the_events_that_have_an_effect() {
    let template = concat!(env!("CARGO_MANIFEST_DIR"), "/../infra/template.yaml");
    let template = std::fs::read_to_string(template).unwrap();
    let (_, list) = template.split_once("MatchingEventTypes: [").unwrap();
    let subscribed: Vec<_> = list.split(']').next().unwrap().split(", ").collect();
    // All event types of SES: their names in a subscription, and their names in an event.
    let types = [
        ("SEND", "Send"),
        ("REJECT", "Reject"),
        ("BOUNCE", "Bounce"),
        ("COMPLAINT", "Complaint"),
        ("DELIVERY", "Delivery"),
        ("OPEN", "Open"),
        ("CLICK", "Click"),
        ("RENDERING_FAILURE", "Rendering Failure"),
        ("DELIVERY_DELAY", "DeliveryDelay"),
        ("SUBSCRIPTION", "Subscription"),
    ];
    for (name, event_type) in types {
        let has_effect = mail_events::acts_on(event_type);
        assert_eq!(subscribed.contains(&name), has_effect, "{name}");
    }
    assert!(
        subscribed
            .iter()
            .all(|name| types.iter().any(|(known, _)| name == known))
    );
}

#[test]
fn a_batch_has_half_of_the_functions_timeout() {
    let template = concat!(env!("CARGO_MANIFEST_DIR"), "/../infra/template.yaml");
    let template = std::fs::read_to_string(template).unwrap();
    let (_, function) = template.split_once("\n  DeliverEsim:\n").unwrap();
    let (_, timeout) = function.split_once("\n      Timeout: ").unwrap();
    let timeout: u64 = timeout.lines().next().unwrap().parse().unwrap();
    assert_eq!(Duration::from_secs(timeout), deliver_esim::WITHIN * 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mail_with_a_transient_rejection_is_sent_later_and_once() {
    let (service, proxy) = with_ses_proxy("").await;
    proxy.plan("POST", rejection("MalformedQueryString"));
    proxy.plan("POST", rejection("ValidationError"));
    let id = service.start_swap(&esim(line::ANNA)).await;
    service.await_activation(&id, |seen| delivery(seen) == "sent").await;
    assert_eq!((service.mails(&id).len(), proxy.count("POST")), (1, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_mail_is_not_sent() {
    let (service, proxy) = with_ses_proxy("").await;
    for (codes, line) in [
        (&["MessageRejected"][..], line::ANNA),
        (&["InvalidParameterValue"], line::BRAM),
        (&["MalformedQueryString"; 6], line::CARLA),
    ] {
        let calls = proxy.count("POST");
        for code in codes {
            proxy.plan("POST", rejection(code));
        }
        let id = service.start_swap(&esim(line)).await;
        let failed = service.await_activation(&id, |seen| delivery(seen) == "failed").await;
        // The eSIM is ready all the same.
        assert_eq!(failed["status"], "BUSY");
        assert!(service.mails(&id).is_empty());
        assert_eq!(proxy.count("POST") - calls, codes.len());
    }
}
