//! What the journeys and the benchmark share: a whole stack in memory, callers with tokens, a phone, proxies and
//! foreign peers. It asserts nothing about the product.

mod faulty_proxy;
pub mod foreign;
mod http;
mod metering_proxy;
pub mod stock;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use domain::{ActivationId, Iccid, Line, Sim, SimState, SubscriptionId};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{HeaderMap, Request};
use jiff::Timestamp;
use local::dynoxide::actions::create_table::StreamSpecification;
use local::dynoxide::actions::scan::ScanRequest;
use local::dynoxide::actions::update_table::UpdateTableRequest;
use local::dynoxide::{AttributeValue, Item};
use local::failures::PeerFailures;
use local::stack::{Options, Stack};
use serde_json::{Value, json};

use crate::http::Client;
pub use faulty_proxy::{FaultyProxy, ProxyFault};
pub use metering_proxy::{Bill, MeteringProxy};

/// Sample lines, by their properties.
pub mod line {
    /// Of C-100 and R-10, Dutch.
    pub const ANNA: &str = "65a1b2c3d4e5f60718293a01";
    /// Of C-100 and R-10, English.
    pub const BRAM: &str = "65a1b2c3d4e5f60718293a02";
    /// Of C-200 and R-10, German.
    pub const CARLA: &str = "65a1b2c3d4e5f60718293a03";
    /// Of C-300 and R-20, on TELENOR.
    pub const DORTE: &str = "1234567890abcdef12345678";
    /// Of C-300 and R-20, on TDC, which has no eSIMs.
    pub const EMIL: &str = "65a1b2c3d4e5f60718293a05";
    /// BLOCKED.
    pub const FLEUR: &str = "65a1b2c3d4e5f60718293a06";
    /// Porting.
    pub const GIJS: &str = "65a1b2c3d4e5f60718293a07";
    /// Locked.
    pub const HANNA: &str = "65a1b2c3d4e5f60718293a08";
}

/// The first free card of KPN and R-10.
pub const FREE_CARD: &str = "8931086000000001011";

/// A running stack, and requests of its callers.
pub struct TestStack {
    /// The stack under test.
    pub stack: Stack,
    client: Client,
}

/// An HTTP response.
#[derive(Debug, Clone, PartialEq)]
pub struct TestResponse {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: String,
}

impl TestResponse {
    /// The body as JSON; `null` if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    /// The status code, the top error code, and the code and field of each error.
    pub fn error(&self) -> (u16, String, Vec<(String, String)>) {
        let status = &self.json()["responseStatus"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let faults = status["errors"].as_array().cloned().unwrap_or_default();
        let faults = faults.iter().map(|f| (text(&f["errorCode"]), text(&f["fieldName"])));
        (self.status, text(&status["errorCode"]), faults.collect())
    }

    /// The response without the headers that differ each time: `date` and API Gateway's request id.
    pub fn timeless(mut self) -> Self {
        self.headers.remove("date");
        self.headers.remove("apigw-requestid");
        self
    }
}

impl TestStack {
    /// A new stack with the sample data, whose network has no delay.
    pub async fn new() -> Self {
        Self::with(&[]).await
    }

    /// A new stack with some changed settings of the functions. If a proxy is before the table, the sweeper does not
    /// run, so only the test's own calls reach the table.
    pub async fn with(settings: &[(&str, &str)]) -> Self {
        let watched = settings.iter().any(|(name, _)| *name == "AWS_ENDPOINT_URL_DYNAMODB");
        let mut options = Self::options_with(settings);
        if watched {
            options.sweep_every = Duration::from_secs(3600);
        }
        Self::start(options).await
    }

    /// A new stack whose calls to the table are counted. Nothing runs in the background: a submitted swap makes no
    /// progress, and all counted calls are those of the test's requests.
    ///
    /// # Panics
    /// When the stack does not start.
    pub async fn metered() -> (Self, MeteringProxy) {
        let meter = MeteringProxy::new().await;
        // No swap makes progress, so a cancel would wait for nothing.
        let settings = [
            ("AWS_ENDPOINT_URL_DYNAMODB", meter.url.as_str()),
            ("CANCEL_WAIT", "1ms"),
        ];
        let service = Self::with(&settings).await;
        meter.connect(&service.stack.endpoints.dynamodb);
        service.end_stream();
        (service, meter)
    }

    /// Ends the table's stream, which the engine in memory searches at every write.
    ///
    /// # Panics
    /// When there is no stream.
    pub fn end_stream(&self) {
        let no_stream = UpdateTableRequest {
            table_name: self.stack.endpoints.table.clone(),
            stream_specification: Some(StreamSpecification {
                stream_enabled: false,
                stream_view_type: None,
            }),
            ..UpdateTableRequest::default()
        };
        let ended = self.stack.database.update_table(no_stream);
        ended.expect("the stream ends");
    }

    /// The options of [`TestStack::new`].
    pub fn options() -> Options {
        Self::options_with(&[])
    }

    /// The options of [`TestStack::new`], with some changed settings of the functions.
    pub fn options_with(settings: &[(&str, &str)]) -> Options {
        // Long enough that a response tells how the peers have settled, even on a busy machine.
        let mut all = vec![("CANCEL_WAIT", "30s")];
        all.extend(settings);
        Options {
            port: 0,
            data_dir: None,
            fresh: false,
            smdp_url: None,
            network_url: None,
            network_delay: Duration::ZERO,
            failures: PeerFailures::default(),
            mtls: false,
            functions_url: None,
            stream_batch: Some(10),
            sweep_every: Duration::from_millis(200),
            settings: all.into_iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect(),
        }
    }

    /// Starts a stack with these options.
    ///
    /// # Panics
    /// When the stack does not start.
    pub async fn start(options: Options) -> Self {
        let stack = Stack::start(options).await.expect("the stack starts");
        Self {
            stack,
            client: Client::new(),
        }
    }

    /// A token of an OWNER.
    pub fn owner(&self, customer: &str) -> String {
        self.token("OWNER", Some(customer), None)
    }

    /// A token of a RESELLER.
    pub fn reseller(&self, reseller: &str) -> String {
        self.token("RESELLER", None, Some(reseller))
    }

    /// A token of an ADMIN.
    pub fn admin(&self) -> String {
        self.token("ADMIN", None, None)
    }

    /// A token that is valid for an hour, of the subject `test`.
    pub fn token(&self, role: &str, customer: Option<&str>, reseller: Option<&str>) -> String {
        self.stack
            .tokens
            .issue(role, customer, reseller, "test", 3600, Timestamp::now())
    }

    /// Sends a request to the API.
    ///
    /// # Panics
    /// When there is no response.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> TestResponse {
        let api = &self.stack.endpoints.api;
        self.send_to(api, method, path, headers, body).await
    }

    /// Sends a request to the part of the stack with this base URL.
    ///
    /// # Panics
    /// When there is no response.
    pub async fn send_to(
        &self,
        part: &str,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> TestResponse {
        let mut request = Request::builder().method(method).uri(format!("{part}{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request
            .body(Full::new(body.into()))
            .expect("the request is well-formed");
        let response = self.client.send(request).await.expect("a response");
        let (parts, body) = response.into_parts();
        TestResponse {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: String::from_utf8_lossy(&body).into_owned(),
        }
    }

    /// `POST /api/SimSwapSubscription`.
    pub async fn submit(&self, token: &str, body: &Value) -> TestResponse {
        self.submit_with(token, &[], body).await
    }

    /// `POST /api/SimSwapSubscription` with more headers.
    pub async fn submit_with(&self, token: &str, headers: &[(&str, &str)], body: &Value) -> TestResponse {
        self.post(token, "/api/SimSwapSubscription", headers, body.to_string())
            .await
    }

    /// Sends JSON with a token and more headers.
    async fn post(&self, token: &str, path: &str, headers: &[(&str, &str)], body: String) -> TestResponse {
        let bearer = format!("Bearer {token}");
        let mut all = vec![("authorization", bearer.as_str()), ("content-type", "application/json")];
        all.extend(headers);
        self.send("POST", path, &all, body).await
    }

    /// Sends these bodies with their tokens and headers at the same time; the responses are in the same order.
    ///
    /// # Panics
    /// When a request gets no response.
    pub async fn submit_at_once<'a>(
        self: &Arc<Self>,
        requests: impl IntoIterator<Item = (&'a str, Vec<(&'static str, String)>, Value)>,
    ) -> Vec<TestResponse> {
        let mut under_way = Vec::new();
        for (token, headers, body) in requests {
            let (service, token) = (self.clone(), token.to_owned());
            under_way.push(tokio::spawn(async move {
                let headers: Vec<_> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
                service.submit_with(&token, &headers, &body).await
            }));
        }
        let mut responses = Vec::new();
        for response in under_way {
            responses.push(response.await.expect("a response"));
        }
        responses
    }

    /// Submits a swap as an ADMIN and returns its id.
    ///
    /// # Panics
    /// When the API rejects the request.
    pub async fn start_swap(&self, body: &Value) -> String {
        let response = self.submit(&self.admin(), body).await;
        assert_eq!(response.status, 200, "{response:?}");
        response.json()["id"].as_str().expect("an id").to_owned()
    }

    /// `POST /api/{operation}?id={id}`: `CancelActivation`, `ResendEsim`, `RenewEsim` or `ReportInstalled`.
    pub async fn manage(&self, token: &str, operation: &str, id: &str, body: &str) -> TestResponse {
        self.manage_with(token, &[], operation, id, body).await
    }

    /// The same with more headers.
    pub async fn manage_with(
        &self,
        token: &str,
        headers: &[(&str, &str)],
        operation: &str,
        id: &str,
        body: &str,
    ) -> TestResponse {
        let path = format!("/api/{operation}?id={id}");
        self.post(token, &path, headers, body.to_owned()).await
    }

    /// `GET /api/QueryActivation?{query}`.
    pub async fn query(&self, token: &str, query: &str) -> TestResponse {
        let bearer = format!("Bearer {token}");
        self.send(
            "GET",
            &format!("/api/QueryActivation?{query}"),
            &[("authorization", &bearer)],
            "",
        )
        .await
    }

    /// The activation as an ADMIN sees it.
    pub async fn activation(&self, id: &str) -> Value {
        self.query(&self.admin(), &format!("id={id}")).await.json()["results"][0].clone()
    }

    /// The activation as soon as it satisfies `fits`.
    ///
    /// # Panics
    /// When that takes more than 20 seconds.
    pub async fn await_activation(&self, id: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let mut seen = Value::Null;
        for _ in 0..2000 {
            seen = self.activation(id).await;
            if fits(&seen) {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the activation stays {seen}");
    }

    /// The activation as soon as it has this status.
    pub async fn await_status(&self, id: &str, status: &str) -> Value {
        self.await_activation(id, |activation| activation["status"] == status)
            .await
    }

    /// The raw mail of an activation, as soon as there is one.
    ///
    /// # Panics
    /// When that takes more than 20 seconds.
    pub async fn await_mail(&self, activation: &str) -> Vec<u8> {
        for _ in 0..2000 {
            if let Some(mail) = self.mails(activation).pop() {
                return mail;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no mail");
    }

    /// The raw mail of an activation with this number, from 1, as soon as it has been sent.
    ///
    /// # Panics
    /// When it does not arrive for some seconds.
    pub async fn await_mail_number(&self, activation: &str, number: usize) -> Vec<u8> {
        for _ in 0..600 {
            let mails = self.mails(activation);
            if let Some(older) = mails.len().checked_sub(number) {
                return mails[older].clone();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("mail {number} of {activation} did not arrive");
    }

    /// The raw mails of an activation, newest first.
    pub fn mails(&self, activation: &str) -> Vec<Vec<u8>> {
        let listed = self.stack.mailbox.list().into_iter();
        listed
            .filter(|mail| mail.activation_id.as_deref() == Some(activation))
            .filter_map(|mail| self.stack.mailbox.raw(&mail.id))
            .collect()
    }

    /// `POST /local/phone/install`.
    pub async fn install(&self, activation_code: &str, confirmation_code: &str) -> TestResponse {
        let body = json!({"activationCode": activation_code, "confirmationCode": confirmation_code});
        self.send("POST", "/local/phone/install", &[], body.to_string()).await
    }

    /// The line's row.
    ///
    /// # Panics
    /// When there is no such line.
    pub async fn line(&self, id: &str) -> Line {
        let id = SubscriptionId::parse(id).expect("a line's id");
        self.stack
            .store
            .line(&id)
            .await
            .expect("the table can be read")
            .expect("the line exists")
            .line
    }

    /// The SIM's row, without its secrets.
    ///
    /// # Panics
    /// When there is no such SIM.
    pub async fn sim(&self, iccid: &str) -> Sim {
        let iccid = Iccid::parse(iccid).expect("an ICCID");
        self.stack
            .store
            .sim(&iccid)
            .await
            .expect("the table can be read")
            .expect("the SIM exists")
    }

    /// The swap's activation record.
    ///
    /// # Panics
    /// When there is no such swap.
    pub async fn record(&self, id: &str) -> domain::Activation {
        let id = ActivationId::parse(id).expect("an activation's id");
        self.stack
            .store
            .swap(&id)
            .await
            .expect("the table can be read")
            .expect("the swap exists")
            .activation
    }

    /// The swap's activation record as soon as it satisfies `fits`.
    ///
    /// # Panics
    /// When that takes more than 20 seconds.
    pub async fn await_record(&self, id: &str, fits: impl Fn(&domain::Activation) -> bool) -> domain::Activation {
        for _ in 0..2000 {
            let record = self.record(id).await;
            if fits(&record) {
                return record;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the activation stays {:?}", self.record(id).await);
    }

    /// Waits until an eSIM swap waits for the phone: its mail has arrived, and no step is due. Returns the activation
    /// code.
    pub async fn await_waiting(&self, id: &str) -> String {
        let waits = |seen: &Value| seen["status"] == "BUSY" && seen["info"]["delivery"] == "delivered";
        self.await_activation(id, waits).await;
        activation_code(&self.await_mail(id).await)
    }

    /// The whole table as sorted text, to show that nothing changed.
    ///
    /// # Panics
    /// When the table cannot be read.
    pub fn table(&self) -> Vec<String> {
        let sorted = |row: &Item| format!("{:?}", row.iter().collect::<BTreeMap<_, _>>());
        let mut rows: Vec<_> = self.rows().iter().map(sorted).collect();
        rows.sort();
        rows
    }

    /// The ICCIDs of the SIMs in this state.
    ///
    /// # Panics
    /// When the table cannot be read.
    pub fn sims(&self, state: SimState) -> Vec<String> {
        let rows = self.rows();
        let state = AttributeValue::S(state.as_str().to_owned());
        let sims = rows.iter().filter_map(|row| match &row["pk"] {
            AttributeValue::S(pk) if row.get("state") == Some(&state) => pk.strip_prefix("S#"),
            _ => None,
        });
        sims.map(str::to_owned).collect()
    }

    /// All rows of the table, in no particular order.
    ///
    /// # Panics
    /// When the table cannot be read.
    pub fn rows(&self) -> Vec<Item> {
        let mut rows = Vec::new();
        let mut start = None;
        loop {
            let request = ScanRequest {
                table_name: self.stack.endpoints.table.clone(),
                exclusive_start_key: start,
                ..ScanRequest::default()
            };
            let page = self.stack.database.scan(request).expect("the table can be read");
            rows.extend(page.items.unwrap_or_default());
            start = page.last_evaluated_key;
            if start.is_none() {
                return rows;
            }
        }
    }
}

/// The body of an eSIM swap, like the example of the subscription API.
pub fn esim(line: &str) -> Value {
    json!({"subscriptionId": line, "eSim": true, "email": "customer@example.com", "confirmationCode": "8E9!#"})
}

/// The body of a swap to a card.
pub fn card(line: &str, iccid: &str) -> Value {
    json!({"subscriptionId": line, "newSimCardNumber": iccid})
}

/// The activation code in the plain text of a raw mail.
///
/// # Panics
/// When there is no activation code.
pub fn activation_code(mail: &[u8]) -> String {
    let mail = String::from_utf8_lossy(mail).replace("=\r\n", "").replace("=24", "$");
    let start = mail.find("LPA:1$").expect("a code in the mail");
    mail[start..]
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || ":$.-".contains(*c))
        .collect()
}
