//! The SES of the stack: accepts `SendRawEmail` and stores the messages. It delivers no e-mail; its events are in
//! `ses_events.rs`.

mod scenario;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{DefaultBodyLimit, Form, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use mail_parser::{Address, MessageParser, MimeHeaders};
use serde::{Deserialize, Serialize};

use crate::StartError;
use crate::data_dir::{self, MAIL, unusable};
use crate::durable;
use crate::request_id::request_id;
pub use scenario::MailScenario;

/// The largest message that the SES v1 API accepts, in bytes.
const MESSAGE_BYTES: usize = 10 * 1024 * 1024;
/// The XML namespace of responses.
const NAMESPACE: &str = "http://ses.amazonaws.com/doc/2010-12-01/";
/// The maximum number of recipients of one message.
const RECIPIENTS: usize = 50;
/// The extension of a mail's file. Its first line is the [`Envelope`] as JSON; the rest is the message as it was sent.
const EXTENSION: &str = "mail";

/// All accepted mails, oldest first.
#[derive(Clone)]
pub struct Mailbox(Arc<Inner>);

struct Inner {
    directory: Option<PathBuf>,
    mails: Mutex<Vec<Mail>>,
}

struct Mail {
    envelope: Envelope,
    raw: Vec<u8>,
}

/// A mail without the message.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Envelope {
    pub(crate) id: String,
    pub(crate) sent_at: Timestamp,
    pub(crate) source: String,
    pub(crate) destinations: Vec<String>,
    subject: String,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) configuration_set: Option<String>,
}

/// A mail in the list of mails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listed {
    /// The message id in the response of SES.
    pub id: String,
    /// The recipients, separated by `, `.
    pub to: String,
    /// The decoded subject.
    pub subject: String,
    /// The time in RFC 3339, in UTC with milliseconds.
    pub sent_at: String,
    /// The value of the tag `activation`.
    pub activation_id: Option<String>,
}

/// The code and the message of an error.
type SesError = (&'static str, &'static str);

impl Mailbox {
    /// Reads the mails of the data directory. Without a data directory, mails are in memory only.
    ///
    /// # Errors
    /// When the directory cannot be used, or a file in it is not a mail.
    pub fn open(data_dir: Option<&Path>) -> Result<Self, StartError> {
        let directory = data_dir.map(|data_dir| data_dir.join(MAIL));
        let mut mails = Vec::new();
        if let Some(directory) = &directory {
            data_dir::create(directory)?;
            for entry in fs::read_dir(directory).map_err(|error| unusable(directory, &error))? {
                let path = entry.map_err(|error| unusable(directory, &error))?.path();
                if path.extension().is_some_and(|extension| extension == EXTENSION) {
                    let bytes = fs::read(&path).map_err(|error| unusable(&path, &error))?;
                    let mail =
                        Mail::read(&bytes).ok_or_else(|| StartError(format!("{} is not a mail", path.display())))?;
                    mails.push(mail);
                }
            }
        }
        // An id begins with a timestamp.
        mails.sort_by(|a, b| a.envelope.id.cmp(&b.envelope.id));
        let mails = Mutex::new(mails);
        Ok(Self(Arc::new(Inner { directory, mails })))
    }

    /// The endpoint of SES: `POST /` in the AWS Query protocol.
    pub fn router(self) -> Router {
        Router::new()
            .fallback(handle_request)
            // Larger than the largest message, because of base64 and percent-encoding. A message that is too large gets
            // the error of SES.
            .layer(DefaultBodyLimit::max(3 * MESSAGE_BYTES))
            .with_state(self)
    }

    /// All mails, newest first.
    pub fn list(&self) -> Vec<Listed> {
        let mails = self.0.mails.lock().unwrap_or_else(PoisonError::into_inner);
        let listed = mails.iter().rev().map(|Mail { envelope, .. }| Listed {
            id: envelope.id.clone(),
            to: envelope.destinations.join(", "),
            subject: envelope.subject.clone(),
            sent_at: envelope.sent_at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
            activation_id: envelope.tags.get("activation").cloned(),
        });
        listed.collect()
    }

    /// The oldest mail after the one with this id; with `None`, the oldest of all.
    pub(crate) fn after(&self, id: Option<&str>) -> Option<Envelope> {
        let mails = self.0.mails.lock().unwrap_or_else(PoisonError::into_inner);
        let next = mails.partition_point(|mail| Some(mail.envelope.id.as_str()) <= id);
        mails.get(next).map(|mail| mail.envelope.clone())
    }

    /// The raw message with this id.
    pub fn raw(&self, id: &str) -> Option<Vec<u8>> {
        let mails = self.0.mails.lock().unwrap_or_else(PoisonError::into_inner);
        let mail = mails.iter().find(|mail| mail.envelope.id == id)?;
        Some(mail.raw.clone())
    }

    /// Stores the message, on disk first, and returns its id.
    fn store(&self, mut envelope: Envelope, raw: Vec<u8>) -> Result<String, SesError> {
        let mut mails = self.0.mails.lock().unwrap_or_else(PoisonError::into_inner);
        // In the form of SES: a timestamp, a random part, six zeros. No two mails have the same timestamp, so ids sort
        // in the order in which mails arrived.
        let latest = mails
            .last()
            .and_then(|mail| i64::from_str_radix(mail.envelope.id.get(..16)?, 16).ok());
        let time = envelope
            .sent_at
            .as_millisecond()
            .max(latest.map_or(0, |latest| latest + 1));
        envelope.id = format!("{time:016x}-{}-000000", request_id());
        let mail = Mail { envelope, raw };
        if let Some(directory) = &self.0.directory {
            let path = directory.join(format!("{}.{EXTENSION}", mail.envelope.id));
            durable::write(&path, &mail.bytes()).map_err(|error| {
                tracing::error!(%error, "a mail cannot be stored");
                ("InternalFailure", "The mail cannot be kept.")
            })?;
        }
        let id = mail.envelope.id.clone();
        mails.push(mail);
        Ok(id)
    }
}

impl Mail {
    fn bytes(&self) -> Vec<u8> {
        let envelope = serde_json::to_vec(&self.envelope).expect("an envelope is plain data");
        [&envelope, &b"\n"[..], &self.raw].concat()
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        Some(Self {
            envelope: serde_json::from_slice(&bytes[..end]).ok()?,
            raw: bytes[end + 1..].to_vec(),
        })
    }
}

/// The HTML of a message, with its inline pictures as `data:` URLs in place of their Content-IDs.
pub(crate) fn html(raw: &[u8]) -> Option<String> {
    let message = MessageParser::default().parse(raw)?;
    let mut html = message.body_html(0)?.into_owned();
    for part in &message.parts {
        let (Some(id), Some(content_type)) = (part.content_id(), part.content_type()) else {
            continue;
        };
        let (kind, subtype) = (content_type.ctype(), content_type.subtype().unwrap_or_default());
        let picture = format!("data:{kind}/{subtype};base64,{}", STANDARD.encode(part.contents()));
        html = html.replace(&format!("cid:{id}"), &picture);
    }
    Some(html)
}

async fn handle_request(State(mailbox): State<Mailbox>, Form(form): Form<BTreeMap<String, String>>) -> Response {
    let result = match read(&form, Timestamp::now()) {
        // The file is synced before the response, which would block the thread that serves requests.
        Ok((envelope, raw)) => tokio::task::spawn_blocking(move || mailbox.store(envelope, raw))
            .await
            .unwrap_or(Err(("InternalFailure", "The mail cannot be kept."))),
        Err(error) => Err(error),
    };
    match result {
        Ok(id) => {
            let request = request_id();
            let body = format!(
                "<SendRawEmailResponse xmlns=\"{NAMESPACE}\"><SendRawEmailResult><MessageId>{id}</MessageId></SendRawEmailResult>\
                 <ResponseMetadata><RequestId>{request}</RequestId></ResponseMetadata></SendRawEmailResponse>"
            );
            ([(CONTENT_TYPE, "text/xml")], body).into_response()
        }
        Err((code, message)) => error_response(code, message),
    }
}

fn error_response(code: &str, message: &str) -> Response {
    let (status, fault) = match code {
        "InternalFailure" => (StatusCode::INTERNAL_SERVER_ERROR, "Receiver"),
        _ => (StatusCode::BAD_REQUEST, "Sender"),
    };
    let request = request_id();
    let body = format!(
        "<ErrorResponse xmlns=\"{NAMESPACE}\"><Error><Type>{fault}</Type><Code>{code}</Code><Message>{message}</Message></Error>\
         <RequestId>{request}</RequestId></ErrorResponse>"
    );
    (status, [(CONTENT_TYPE, "text/xml")], body).into_response()
}

/// Parses a `SendRawEmail` request, the only supported action.
fn read(form: &BTreeMap<String, String>, now: Timestamp) -> Result<(Envelope, Vec<u8>), SesError> {
    match form.get("Action").map(String::as_str) {
        Some("SendRawEmail") => {}
        Some(_) => return Err(("InvalidAction", "Only SendRawEmail is known here.")),
        None => return Err(("MissingAction", "The request has no Action.")),
    }
    let invalid = |message| Err(("InvalidParameterValue", message));
    let data = form
        .get("RawMessage.Data")
        .ok_or(("ValidationError", "RawMessage.Data is missing."))?;
    let Ok(raw) = STANDARD.decode(data) else {
        return invalid("RawMessage.Data is not base64.");
    };
    if raw.len() > MESSAGE_BYTES {
        return invalid("Message length is more than 10485760 bytes long.");
    }
    let Some(message) = MessageParser::default().parse(&raw) else {
        return Err(("MessageRejected", "The message cannot be parsed."));
    };
    let source = form.get("Source").cloned().or_else(|| addresses(message.from()).pop());
    let Some(source) = source else {
        return invalid("Missing required header 'From'.");
    };
    let mut destinations: Vec<String> = members(form, "Destinations.member.", "").cloned().collect();
    if destinations.is_empty() {
        destinations = [message.to(), message.cc(), message.bcc()].map(addresses).concat();
    }
    if destinations.is_empty() || destinations.len() > RECIPIENTS {
        return invalid("A message has 1 to 50 recipients.");
    }
    let malformed = |address: &String| !address.contains('@') || address.chars().any(char::is_control);
    if destinations.iter().chain([&source]).any(malformed) {
        return invalid("Missing final '@domain'");
    }
    let names = members(form, "Tags.member.", ".Name");
    let tags: BTreeMap<_, _> = names
        .cloned()
        .zip(members(form, "Tags.member.", ".Value").cloned())
        .collect();
    let tag_fits = |text: &String| {
        (1..=256).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    };
    if !tags.iter().all(|(name, value)| tag_fits(name) && tag_fits(value)) {
        return invalid("A tag has 1 to 256 of letters, digits, underscore and dash.");
    }
    let envelope = Envelope {
        id: String::new(),
        sent_at: now,
        source,
        destinations,
        subject: message.subject().unwrap_or_default().to_owned(),
        tags,
        configuration_set: form.get("ConfigurationSetName").cloned(),
    };
    Ok((envelope, raw))
}

/// The values of `{prefix}1{suffix}`, `{prefix}2{suffix}` and so on.
fn members<'a>(
    form: &'a BTreeMap<String, String>,
    prefix: &'a str,
    suffix: &'a str,
) -> impl Iterator<Item = &'a String> {
    (1..).map_while(move |number| form.get(&format!("{prefix}{number}{suffix}")))
}

fn addresses(header: Option<&Address<'_>>) -> Vec<String> {
    let addresses = header.into_iter().flat_map(Address::iter);
    addresses
        .filter_map(|address| Some(address.address()?.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clients::sdk;
    use aws_sdk_ses::Client;
    use aws_sdk_ses::error::ProvideErrorMetadata;
    use aws_sdk_ses::primitives::Blob;
    use aws_sdk_ses::types::{MessageTag, RawMessage};
    use mail_builder::MessageBuilder;

    async fn client(mailbox: Mailbox) -> Client {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async { axum::serve(listener, mailbox.router()).await });
        let config = aws_sdk_ses::config::Builder::from(&sdk());
        Client::from_conf(config.endpoint_url(url).build())
    }

    fn message(subject: &str) -> Vec<u8> {
        MessageBuilder::new()
            .from("sim@example.com")
            .to("anna@example.com")
            .subject(subject)
            .text_body("Hello +/= & <there>")
            .write_to_vec()
            .unwrap()
    }

    fn tag(name: &str, value: &str) -> MessageTag {
        MessageTag::builder().name(name).value(value).build().unwrap()
    }

    fn raw(bytes: impl Into<Vec<u8>>) -> RawMessage {
        RawMessage::builder().data(Blob::new(bytes)).build().unwrap()
    }

    #[tokio::test]
    async fn mails_are_stored_and_survive_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let mailbox = Mailbox::open(Some(directory.path())).unwrap();
        let client = client(mailbox.clone()).await;
        let mut ids = Vec::new();
        for subject in ["Your eSIM", "Votre eSIM: prête à l'emploi"] {
            let sent = client
                .send_raw_email()
                .source("sim@example.com")
                .destinations("anna@example.com")
                .raw_message(raw(message(subject)))
                .tags(tag("activation", "act_1-x"))
                .tags(tag("attempt", "1"))
                .configuration_set_name("simswap")
                .send()
                .await
                .unwrap();
            ids.push(sent.message_id);
        }
        let listed = mailbox.list();
        let subjects: Vec<_> = listed.iter().map(|mail| mail.subject.as_str()).collect();
        assert_eq!(subjects, ["Votre eSIM: prête à l'emploi", "Your eSIM"]);
        assert_eq!((&listed[1].id, listed[1].to.as_str()), (&ids[0], "anna@example.com"));
        assert_eq!(listed[0].activation_id.as_deref(), Some("act_1-x"));
        assert_eq!(listed[0].sent_at.len(), "2025-02-03T13:38:50.707Z".len());

        let again = Mailbox::open(Some(directory.path())).unwrap();
        assert_eq!(again.list(), listed);
        let parsed = again.raw(&ids[0]).unwrap();
        let parsed = MessageParser::default().parse(&parsed).unwrap();
        assert_eq!(parsed.body_text(0).unwrap().trim_end(), "Hello +/= & <there>");
        assert!(again.raw("other").is_none());
    }

    #[tokio::test]
    async fn recipients_may_be_in_the_message_only() {
        let mailbox = Mailbox::open(None).unwrap();
        let client = client(mailbox.clone()).await;
        client
            .send_raw_email()
            .raw_message(raw(message("x")))
            .send()
            .await
            .unwrap();
        let listed = mailbox.list();
        assert_eq!(listed[0].to, "anna@example.com");
        assert_eq!(listed[0].activation_id, None);
    }

    #[tokio::test]
    async fn invalid_requests_are_rejected() {
        let mailbox = Mailbox::open(None).unwrap();
        let client = client(mailbox.clone()).await;
        let send = || client.send_raw_email().raw_message(raw(message("x")));
        let many = (0..51).map(|n| format!("{n}@example.com")).collect();
        for (case, call, code) in [
            ("no at", send().destinations("anna"), "InvalidParameterValue"),
            (
                "a bad tag",
                send().tags(tag("activation", "a b")),
                "InvalidParameterValue",
            ),
            ("too many", send().set_destinations(Some(many)), "InvalidParameterValue"),
            (
                "too large",
                send().raw_message(raw(vec![b'a'; MESSAGE_BYTES + 1])),
                "InvalidParameterValue",
            ),
            ("nothing", send().raw_message(raw("")), "MessageRejected"),
            (
                "no sender",
                send().raw_message(raw("Subject: x\r\n\r\nx")),
                "InvalidParameterValue",
            ),
            (
                "nobody",
                send().raw_message(raw("From: a@example.com\r\n\r\nx")),
                "InvalidParameterValue",
            ),
        ] {
            let error = call.send().await.unwrap_err();
            assert_eq!(error.code(), Some(code), "{case}");
            assert!(error.message().is_some(), "{case}");
        }
        let error = client.list_identities().send().await.unwrap_err();
        assert_eq!(error.code(), Some("InvalidAction"));
        assert!(mailbox.list().is_empty());
    }

    #[test]
    fn inline_pictures_are_part_of_the_html() {
        let message = MessageBuilder::new()
            .from("sim@example.com")
            .html_body("<img src=\"cid:qr@example.com\"><img src=\"cid:other\">")
            .inline("image/png", "qr@example.com", &b"picture"[..])
            .write_to_vec()
            .unwrap();
        let shown = "<img src=\"data:image/png;base64,cGljdHVyZQ==\"><img src=\"cid:other\">";
        assert_eq!(html(&message).unwrap().trim_end(), shown);
    }

    #[test]
    fn a_file_that_is_not_a_mail_is_reported() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join(MAIL)).unwrap();
        fs::write(directory.path().join(MAIL).join("1.mail"), "x").unwrap();
        fs::write(directory.path().join(MAIL).join("2.tmp"), "x").unwrap();
        let Err(error) = Mailbox::open(Some(directory.path())) else {
            panic!("accepted the file");
        };
        assert!(error.to_string().ends_with("1.mail is not a mail"), "{error}");
    }
}
