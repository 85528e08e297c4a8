//! The eSIM's mail as it leaves: what is in it, in which language, and what becomes of it when SES fails.

use std::time::Duration;

use aws_sdk_ses::config::{BehaviorVersion, Credentials, Region};
use aws_smithy_async::rt::sleep::{SharedAsyncSleep, TokioSleep};
use deliver_esim::DeliverEsim;
use domain::{
    ActivationCode, ActivationId, Delivery, DeliveryState, DeliveryStep, EmailAddress, FormFactor, Iccid, Language,
    Line, LineState, Msisdn, NetworkName, Sim, SimState, SmDpAddress, SubscriptionId, next_delivery,
};
use edge::{ClockAndRng, Settings, records_of};
use jiff::{SignedDuration, Timestamp};
use lambda_runtime::{Context, LambdaEvent};
use mail_events::MailEvents;
use mail_parser::{Message, MessageParser, MimeHeaders};
use serde_json::{Value, json};
use tests::{FaultyProxy, ProxyFault, TestStack, esim, line};

/// The text that a phone's camera reads from the PNG.
fn camera(png: &[u8]) -> String {
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
async fn add_french_line(world: &TestStack) -> &'static str {
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
        kept_card: None,
        kept_esim: None,
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
        codes_shown: false,
    };
    world.stack.store.add_line(&line, sim).await.unwrap();
    ID
}

fn header<'a>(mail: &'a Message<'_>, name: &'static str) -> &'a str {
    mail.header_raw(name).unwrap_or_default().trim()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_mail_holds_the_code_in_the_customer_s_language() {
    let world = TestStack::new().await;
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
            assert!(text.contains(part) && html.contains(part), "{part} in {text}");
        }
        assert!(html.contains(&format!("<html lang=\"{language}\"")), "{language}");
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

/// A world whose SES is reached over a wire, and reports nothing unless there is a configuration set.
async fn wired(configuration_set: &str) -> (TestStack, FaultyProxy) {
    wired_with(configuration_set, "1ms").await
}

async fn wired_with(configuration_set: &str, retry_after: &str) -> (TestStack, FaultyProxy) {
    let wire = FaultyProxy::new().await;
    let world = TestStack::with(&[
        ("AWS_ENDPOINT_URL_SES", &wire.url),
        ("MAIL_CONFIGURATION_SET", configuration_set),
        ("MAIL_DOUBT", "1s"),
        ("MAIL_RETRY_AFTER", retry_after),
        // No slow machine outlives it: only what is planned is lost.
        ("LEASE", "60s"),
    ])
    .await;
    wire.connect(&world.stack.endpoints.ses);
    (world, wire)
}

/// SES's way to say no.
/// SES refuses a mail by this code.
pub(crate) fn refused(code: &str) -> ProxyFault {
    refused_with(400, code, "no")
}

fn refused_with(status: u16, code: &str, message: &str) -> ProxyFault {
    ProxyFault::Answer(
        status,
        format!(
            "<ErrorResponse xmlns=\"http://ses.amazonaws.com/doc/2010-12-01/\"><Error><Type>Sender</Type>\
             <Code>{code}</Code><Message>{message}</Message></Error><RequestId>1</RequestId></ErrorResponse>"
        ),
    )
}

/// The activation code of a swap, whether its mail came or not.
async fn code_of(world: &TestStack, id: &str) -> String {
    let store = &world.stack.store;
    let swap = store.swap(&ActivationId::parse(id).unwrap()).await;
    let matching_id = store.matching_id(&swap.unwrap().unwrap()).await.unwrap();
    let address = SmDpAddress::parse("smdp.example.test").unwrap();
    ActivationCode::new(address, matching_id, true).expose()
}

async fn maybe_mail_of(world: &TestStack, id: &str) -> Option<Delivery> {
    let id = ActivationId::parse(id).unwrap();
    world.stack.store.delivery(&id, 1).await.unwrap()
}

async fn mail_of(world: &TestStack, id: &str) -> Delivery {
    maybe_mail_of(world, id).await.unwrap()
}

/// The swap's mail as soon as it was held so often.
async fn await_holds(world: &TestStack, id: &str, holds: u32) -> Delivery {
    for _ in 0..2000 {
        if let Some(mail) = maybe_mail_of(world, id).await
            && mail.holds >= holds
        {
            return mail;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("its mail is not held");
}

/// Ready when nothing is left to be done for the swap's mail.
async fn await_rest(world: &TestStack, id: &str) {
    for _ in 0..2000 {
        let mail = mail_of(world, id).await;
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
        (ProxyFault::LoseAnswer, None, 2, "sent"),
        (ProxyFault::LoseRequest, None, 1, "sent"),
        (ProxyFault::Answer(500, String::new()), None, 1, "sent"),
        (ProxyFault::LoseAnswer, Some(ProxyFault::LoseAnswer), 2, "ambiguous"),
        (
            ProxyFault::LoseRequest,
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
        world.await_activation(&id, |seen| delivery(seen) == "ambiguous").await;
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
    // It took the first, and says so before a second is sent; or it never heard of two, and a third is sent; or it never
    // heard of three, and there are no more.
    for (line, faults, mails, calls, shown) in [
        (line::ANNA, vec![ProxyFault::LoseAnswer], 1, 1, "delivered"),
        (line::BRAM, vec![ProxyFault::LoseRequest; 2], 1, 3, "delivered"),
        (line::CARLA, vec![ProxyFault::LoseRequest; 3], 0, 3, "failed"),
    ] {
        let before = wire.count("POST");
        for fault in faults {
            wire.plan("POST", fault);
        }
        let id = world.begin(&esim(line)).await;
        world.await_activation(&id, |seen| delivery(seen) == shown).await;
        await_rest(&world, &id).await;
        assert_eq!((world.mails(&id).len(), wire.count("POST") - before), (mails, calls));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_answer_is_waited_for() {
    let (world, wire) = wired("").await;
    // Longer than any attempt of the SDK's other clients may take.
    wire.plan("POST", ProxyFault::Late(Duration::from_secs(4)));
    let id = world.begin(&esim(line::ANNA)).await;
    let known = world
        .await_activation(&id, |seen| !["", "pending"].contains(&delivery(seen)))
        .await;
    assert_eq!(delivery(&known), "sent");
    assert_eq!((world.mails(&id).len(), wire.count("POST")), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_speaks_of_the_account_is_waited_out() {
    let (world, wire) = wired("").await;
    let not_verified = "Email address is not verified. The following identities failed the check in region \
                        EU-CENTRAL-1: esim@simswap.example";
    for (line, reason, answer) in [
        (
            line::ANNA,
            "throttled",
            refused_with(400, "Throttling", "Maximum sending rate exceeded."),
        ),
        (
            line::BRAM,
            "quota",
            refused_with(400, "Throttling", "Daily message quota exceeded."),
        ),
        (line::CARLA, "paused", refused("AccountSendingPausedException")),
        (
            line::DORTE,
            "unverified",
            refused_with(400, "MessageRejected", not_verified),
        ),
        (
            add_french_line(&world).await,
            "unreachable",
            ProxyFault::Answer(404, "<html>".to_owned()),
        ),
    ] {
        let before = wire.count("POST");
        for _ in 0..8 {
            wire.plan("POST", answer.clone());
        }
        let id = world.begin(&esim(line)).await;
        let known = world
            .await_activation(&id, |seen| !["", "pending"].contains(&delivery(seen)))
            .await;
        assert_eq!(delivery(&known), "sent", "{reason}");
        let calls = wire.count("POST") - before;
        assert_eq!((world.mails(&id).len(), calls), (1, 9), "{reason}");
        let mail = mail_of(&world, &id).await;
        assert_eq!((mail.holds, mail.refusals), (8, 0), "{reason}");
        let noted = mail.timeline.iter().map(|event| (event.what.clone(), event.count));
        let expected = [(format!("SES: {reason}"), 8), ("sent".to_owned(), 1)];
        assert_eq!(noted.collect::<Vec<_>>(), expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ses_out_of_reach_is_waited_out() {
    // Nobody listens there: there is no connection on which a mail could have been sent.
    let nowhere = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let world = TestStack::with(&[("AWS_ENDPOINT_URL_SES", &nowhere), ("MAIL_RETRY_AFTER", "1ms")]).await;
    let id = world.begin(&esim(line::ANNA)).await;
    let mail = await_holds(&world, &id, 8).await;
    assert_eq!((mail.refusals, mail.doubts), (0, 0));
}

/// Lambda's word on an invocation.
fn invocation() -> Context {
    let mut context = Context::default();
    context.request_id = "by-a-test".to_owned();
    context
}

/// A function beside the stack's own, so many hours later, as a sandbox of its own.
fn sandbox(world: &TestStack, wire: &FaultyProxy, hours: i64, mails_a_second: &'static str) -> DeliverEsim {
    let ses = aws_sdk_ses::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::from_static("eu-central-1"))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .credentials_provider(Credentials::new("local", "local", None, None, "local"))
        .sleep_impl(SharedAsyncSleep::new(TokioSleep::new()))
        .endpoint_url(&wire.url)
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
    DeliverEsim::new(world.stack.store.clone(), &ses, clock, &settings).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_sent_at_the_accounts_rate() {
    // The stack's own function holds each of them for half an hour at least.
    let (world, wire) = wired_with("", "1h").await;
    let mut ids = Vec::new();
    for line in [line::ANNA, line::BRAM, line::CARLA, line::DORTE] {
        wire.plan("POST", refused("Throttling"));
        ids.push(world.begin(&esim(line)).await);
    }
    for id in &ids {
        await_holds(&world, id, 1).await;
    }
    let rows: Vec<String> = ids.iter().map(|id| format!("A#{id}")).collect();
    let batch = records_of(rows.iter().map(|row| (row.as_str(), "delivery#0001")));
    let sent = |of: &[String]| of.iter().filter(|id| !world.mails(id).is_empty()).count();
    // At most so many in a thousand seconds; the last one sends as many as there are, one after another.
    for (rate, expected) in [("0.001", 1), ("0.001", 2), ("1000", 4)] {
        let event = LambdaEvent::new(serde_json::from_str(&batch).unwrap(), invocation());
        let response = sandbox(&world, &wire, 2, rate).handle(event).await;
        assert!(response.batch_item_failures.is_empty());
        assert_eq!(sent(&ids), expected, "{rate}");
        for id in &ids {
            let mail = mail_of(&world, id).await;
            // What was not sent is not claimed, and the sweeper finds it.
            let left = (mail.state, mail.due_at.is_some());
            let is_sent = !world.mails(id).is_empty();
            let state = if is_sent {
                DeliveryState::Sent
            } else {
                DeliveryState::Pending
            };
            assert_eq!(left, (state, !is_sent));
        }
    }
    assert_eq!(wire.count("POST"), 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bounce_for_now_is_no_bounce_of_a_delivered_mail() {
    let (world, _wire) = wired("").await;
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
        let id = world.begin(&esim(line)).await;
        world.await_activation(&id, |seen| delivery(seen) == "sent").await;
        let settings = Settings::new(|_| None);
        let store = world.stack.store.clone();
        let function = MailEvents::new(store, ClockAndRng::real(), &settings).unwrap();
        for (mut event, shown) in events {
            event["mail"] = json!({"messageId": "m", "tags": {"activation": [id], "attempt": ["1-1"]}});
            let sns = json!({"Records": [{"Sns": {"Message": event.to_string()}}]});
            let told = LambdaEvent::new(serde_json::from_value(sns).unwrap(), invocation());
            function.handle(told).await.unwrap();
            let seen = world.activation(&id).await;
            assert_eq!(delivery(&seen), shown, "{event}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_out_of_office_reply_changes_nothing() {
    let world = TestStack::new().await;
    let mut body = esim(line::ANNA);
    body["email"] = json!("ooto@simulator.amazonses.com");
    let away = world.begin(&body).await;
    world.await_mail(&away).await;
    // SES tells of the mails in their order: when the second is delivered, all is told of the first.
    let here = world.begin(&esim(line::BRAM)).await;
    for id in [here, away] {
        world.await_activation(&id, |seen| delivery(seen) == "delivered").await;
    }
}

#[test]
fn the_template_subscribes_to_what_is_acted_on() {
    let template = concat!(env!("CARGO_MANIFEST_DIR"), "/../infra/template.yaml");
    let template = std::fs::read_to_string(template).unwrap();
    let (_, list) = template.split_once("MatchingEventTypes: [").unwrap();
    let subscribed: Vec<_> = list.split(']').next().unwrap().split(", ").collect();
    // All event types of SES: as they are subscribed to, and as they are told.
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
    for (name, told) in types {
        let acts = mail_events::acts_on(told);
        assert_eq!(subscribed.contains(&name), acts, "{name}");
    }
    assert!(
        subscribed
            .iter()
            .all(|name| types.iter().any(|(known, _)| name == known))
    );
}

#[test]
fn a_batch_has_half_of_its_functions_time() {
    let template = concat!(env!("CARGO_MANIFEST_DIR"), "/../infra/template.yaml");
    let template = std::fs::read_to_string(template).unwrap();
    let (_, function) = template.split_once("\n  DeliverEsim:\n").unwrap();
    let (_, timeout) = function.split_once("\n      Timeout: ").unwrap();
    let timeout: u64 = timeout.lines().next().unwrap().parse().unwrap();
    assert_eq!(Duration::from_secs(timeout), deliver_esim::WITHIN * 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mail_that_is_refused_for_now_is_sent_later_and_once() {
    let (world, wire) = wired("").await;
    wire.plan("POST", refused("MalformedQueryString"));
    wire.plan("POST", refused("ValidationError"));
    let id = world.begin(&esim(line::ANNA)).await;
    world.await_activation(&id, |seen| delivery(seen) == "sent").await;
    assert_eq!((world.mails(&id).len(), wire.count("POST")), (1, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mail_that_is_refused_is_not_sent() {
    let (world, wire) = wired("").await;
    for (codes, line) in [
        (&["MessageRejected"][..], line::ANNA),
        (&["InvalidParameterValue"], line::BRAM),
        (&["MalformedQueryString"; 6], line::CARLA),
    ] {
        let calls = wire.count("POST");
        for code in codes {
            wire.plan("POST", refused(code));
        }
        let id = world.begin(&esim(line)).await;
        let failed = world.await_activation(&id, |seen| delivery(seen) == "failed").await;
        // The eSIM is there all the same.
        assert_eq!(failed["status"], "BUSY");
        assert!(world.mails(&id).is_empty());
        assert_eq!(wire.count("POST") - calls, codes.len());
    }
}
