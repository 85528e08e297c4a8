//! Authorization: every kind of caller sends every request about every kind of line, and one rule gives the expected
//! response. Other errors in requests are tested in the other journeys.

use domain::{ActivationId, Claim, Delivery, EmailAddress, Fact, FormFactor, Line, Sim, SmDpAddress, apply};
use edge::Settings;
use jiff::SignedDuration;
use serde_json::{Value, json};
use store::{Saved, Store};
use tests::stock::{active_line, free_sim, line_id};
use tests::{Bill, TestResponse, TestStack};

const OWN: (&str, &str) = ("C-OWN", "R-OWN");
/// The customer and reseller of a line: the caller's own, another customer's of the same reseller, a stranger's.
const HOLDERS: [(&str, &str); 3] = [OWN, ("C-OTHER", OWN.1), ("C-FOREIGN", "R-FOREIGN")];
const ROLES: [&str; 6] = ["OWNER", "RESELLER", "ADMIN", "AUDITOR", "owner", ""];
/// The customer and reseller claims in a token: none, empty, those of the first line, and both exchanged.
const CLAIMS: [(Option<&str>, Option<&str>); 6] = [
    (None, None),
    (Some(""), Some("")),
    (Some(OWN.0), None),
    (None, Some(OWN.1)),
    (Some(OWN.0), Some(OWN.1)),
    (Some(OWN.1), Some(OWN.0)),
];

/// The claims of a token: role, customer, reseller.
type Claims = (&'static str, Option<&'static str>, Option<&'static str>);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Outcome {
    /// There is no token.
    Unauthorized,
    /// The role is none of the three, or lacks its claim.
    Forbidden,
    /// For this caller, the line does not exist.
    Unknown,
    Done,
}

impl Outcome {
    /// Whether the caller may send no request at all.
    fn is_no_caller(self) -> bool {
        matches!(self, Self::Unauthorized | Self::Forbidden)
    }
}

/// The rule.
fn outcome(claims: Option<Claims>, (customer, reseller): (&str, &str)) -> Outcome {
    let sees = |own: &str, holder: &str| match own {
        "" => Outcome::Forbidden,
        _ if own == holder => Outcome::Done,
        _ => Outcome::Unknown,
    };
    match claims {
        None => Outcome::Unauthorized,
        Some(("OWNER", own, _)) => sees(own.unwrap_or_default(), customer),
        Some(("RESELLER", _, own)) => sees(own.unwrap_or_default(), reseller),
        Some(("ADMIN", ..)) => Outcome::Done,
        Some(_) => Outcome::Forbidden,
    }
}

/// The line, card and swap of a request. Their values replace the names in braces in a row of [`REQUESTS`].
struct Target {
    line: String,
    phone: String,
    /// A card that the line can get.
    card: String,
    /// The line's open swap; an unknown id if the line has none.
    swap: String,
    reference: String,
}

impl Target {
    /// Values that do not exist, apart from the other target's card.
    fn missing(other: &Self) -> Self {
        Self {
            line: "ffffffffffffffffffffffff".to_owned(),
            phone: "0031699999999".to_owned(),
            card: other.card.clone(),
            swap: "01ZZZZZZZZZZZZZZZZZZZZZZZZ".to_owned(),
            reference: "none".to_owned(),
        }
    }

    fn fill(&self, text: &str) -> String {
        text.replace("{line}", &self.line)
            .replace("{phone}", &self.phone)
            .replace("{card}", &self.card)
            .replace("{swap}", &self.swap)
            .replace("{reference}", &self.reference)
    }
}

/// The response of a request about something that does not exist.
#[derive(Clone, Copy)]
enum Unknown {
    /// The subscription dialect names the field.
    Field(&'static str),
    /// The account dialect has one message.
    Account,
    /// A query returns an empty page.
    EmptyPage,
}

/// The state that a request needs to succeed.
#[derive(Clone, Copy, PartialEq)]
enum Needs {
    FreeLine,
    OpenSwap,
    /// An open swap whose profile a phone has downloaded and not installed yet.
    DownloadedSwap,
}

/// Method, path, body, the state that it needs, and its response about something that does not exist.
type Request = (&'static str, &'static str, &'static str, Needs, Unknown);

const SUBMIT: &str = "/api/SimSwapSubscription";
const BY_ID: &str = r#"{"subscriptionId":"{line}","newSimCardNumber":"{card}"}"#;
const BY_PHONE: &str = r#"{"phoneNumber":"{phone}","eSim":true,"email":"a@example.com","confirmationCode":"8E9!#"}"#;
const BY_BOTH: &str = r#"{"subscriptionId":"{line}","phoneNumber":"{phone}","newSimCardNumber":"{card}"}"#;
const CARD: &str = "/mvno/{line}/changesim/{card}";
const ESIM: &str = "/mvno/{line}/changesim/eSim";
const AUTO_ASSIGN: &str = "/mvno/{line}/changesim/autoAssign";
const QUERY_ID: &str = "/api/QueryActivation?id={swap}";
const QUERY_LINE: &str = "/api/QueryActivation?subscriptionId={line}";
const QUERY_PHONE: &str = "/api/QueryActivation?phoneNumber={phone}";
const QUERY_BOTH: &str = "/api/QueryActivation?subscriptionId={line}&phoneNumber={phone}";
const QUERY_ALL: &str = "/api/QueryActivation?referenceNumber={reference}";

const CANCEL: &str = "/api/CancelActivation?id={swap}";
const RESEND: &str = "/api/ResendEsim?id={swap}";
const RENEW: &str = "/api/RenewEsim?id={swap}";
const REPORT: &str = "/api/ReportInstalled?id={swap}";
const SEEN: &str = r#"{"witness":"customer","note":"seen on the phone"}"#;

const REQUESTS: [Request; 18] = {
    use Needs::{DownloadedSwap, FreeLine, OpenSwap};
    use Unknown::{Account, EmptyPage, Field};
    [
        ("POST", SUBMIT, BY_ID, FreeLine, Field("subscriptionId")),
        ("POST", SUBMIT, BY_PHONE, FreeLine, Field("phoneNumber")),
        ("POST", SUBMIT, BY_BOTH, FreeLine, Field("subscriptionId")),
        ("GET", CARD, "", FreeLine, Account),
        ("POST", CARD, "", FreeLine, Account),
        ("GET", ESIM, "", FreeLine, Account),
        ("POST", ESIM, "", FreeLine, Account),
        ("GET", AUTO_ASSIGN, "", FreeLine, Account),
        ("POST", AUTO_ASSIGN, "", FreeLine, Account),
        ("GET", QUERY_ID, "", OpenSwap, EmptyPage),
        ("GET", QUERY_LINE, "", OpenSwap, EmptyPage),
        ("GET", QUERY_PHONE, "", OpenSwap, EmptyPage),
        ("GET", QUERY_BOTH, "", OpenSwap, EmptyPage),
        ("GET", QUERY_ALL, "", OpenSwap, EmptyPage),
        ("POST", CANCEL, "", OpenSwap, Field("id")),
        ("POST", RESEND, "", DownloadedSwap, Field("id")),
        ("POST", RENEW, "", DownloadedSwap, Field("id")),
        ("POST", REPORT, SEEN, DownloadedSwap, Field("id")),
    ]
};

/// The whole error response: status and body.
fn error_response(outcome: Outcome, unknown: Unknown) -> (u16, Value) {
    let account = |code, message, description| {
        let error = json!({"code": code, "message": message, "description": description});
        (code, json!({"success": false, "error": error}))
    };
    let status = |code, message: &str, errors| json!({"responseStatus": {"errorCode": code, "message": message, "errors": errors}});
    match (outcome, unknown) {
        (Outcome::Done, _) => panic!("the request succeeds"),
        (Outcome::Unauthorized, _) => (401, json!({"message": "Unauthorized"})),
        (Outcome::Forbidden, Unknown::Account) => account(403, "role", "The role may not change SIM cards"),
        (Outcome::Forbidden, _) => {
            let message = "The token's role is not OWNER, RESELLER or ADMIN, or lacks its claim. Use another token.";
            (403, status("Forbidden", message, json!([])))
        }
        (Outcome::Unknown, Unknown::Account) => account(404, "mvnoAccount", "MVNO account not found"),
        (Outcome::Unknown, Unknown::Field(field)) => {
            let message = match field {
                "id" => "No activation has this id.",
                "phoneNumber" => "No line has this number. Check 'phoneNumber'.",
                _ => "No line has this id. Check 'subscriptionId'.",
            };
            let fault = json!({"errorCode": "NotFound", "fieldName": field, "message": message, "meta": {}});
            (404, status("NotFound", message, json!([fault])))
        }
        (Outcome::Unknown, Unknown::EmptyPage) => (200, json!({"offset": 0, "total": 0, "results": [], "meta": {}})),
    }
}

/// All tokens, and no token. The claims of an ADMIN have no effect, so there are only two such tokens.
fn callers() -> impl Iterator<Item = Option<Claims>> {
    let claims = |role| {
        let fits = move |claims: &_| role != "ADMIN" || *claims == CLAIMS[0] || *claims == CLAIMS[4];
        let claims = CLAIMS.into_iter().filter(fits);
        claims.map(move |(customer, reseller)| Some((role, customer, reseller)))
    };
    ROLES.into_iter().flat_map(claims).chain([None])
}

/// The `authorization` header, if the caller has a token.
fn bearer(service: &TestStack, caller: Option<Claims>) -> Option<String> {
    let (role, customer, reseller) = caller?;
    Some(format!("Bearer {}", service.token(role, customer, reseller)))
}

async fn send(
    service: &TestStack,
    bearer: Option<&str>,
    (method, path, body, ..): Request,
    target: &Target,
    key: Option<&str>,
) -> TestResponse {
    let mut headers = vec![("content-type", "application/json")];
    headers.extend(bearer.map(|bearer| ("authorization", bearer)));
    headers.extend(key.map(|key| ("idempotency-key", key)));
    let (path, body) = (target.fill(path), target.fill(body));
    service.send(method, &path, &headers, body).await
}

/// A line on a network of its own, with a card and an eSIM that no other line can get.
async fn target(service: &TestStack, number: usize, (customer, reseller): (&str, &str), needs: Needs) -> Target {
    let network = format!("ROLES-{number}");
    let sim = |series: usize, form_factor| Sim {
        reseller: Some(reseller.to_owned()),
        auto_assign: true,
        ..free_sim(&network, &format!("8931{series}{number:014}"), form_factor)
    };
    let (old, card) = (sim(1, FormFactor::Nano), sim(2, FormFactor::Nano));
    let line = Line {
        customer: customer.to_owned(),
        email: Some(EmailAddress::parse("roles@example.com").unwrap()),
        ..active_line(&line_id(number), &format!("+316{number:08}"), &old)
    };
    let store = &service.stack.store;
    store.add_line(&line, old).await.unwrap();
    store.add_sim(&card).await.unwrap();
    store.add_sim(&sim(3, FormFactor::Esim)).await.unwrap();
    let mut target = Target {
        line: line.id.to_string(),
        phone: line.phone.as_e164().replace('+', "00"),
        card: card.iccid.to_string(),
        swap: String::new(),
        reference: format!("R-{number}"),
    };
    if needs != Needs::FreeLine {
        let mut swap = tests::esim(&target.line);
        swap["referenceNumber"] = json!(target.reference);
        target.swap = service.start_swap(&swap).await;
    }
    if needs == Needs::DownloadedSwap {
        record_download(store, &target.swap).await;
    }
    target
}

/// Records that a swap is ordered and its profile downloaded, which nothing else does while the stream is off.
async fn record_download(store: &Store, id: &str) {
    let deadlines = Settings::new(|_| None).deadlines().unwrap();
    let id = ActivationId::parse(id).unwrap();
    let before = store.swap(&id).await.unwrap().unwrap();
    // The report of an OWNER that the eSIM is installed is believed only some time after the download.
    let at = before.activation.created_at - SignedDuration::from_mins(20);
    let claim = Claim {
        token: "t".to_owned(),
        until: at + deadlines.lease,
    };
    let ordered = Fact::Ordered {
        order_number: "N-1".to_owned(),
        smdp: Some(SmDpAddress::parse("smdp.example.test").unwrap()),
    };
    let downloaded = Fact::Downloaded { dated: at };
    let mut after = before.activation.clone();
    for fact in [Fact::Claimed(claim), ordered, downloaded] {
        after = apply(&after, &fact, &deadlines, at).unwrap();
    }
    let to = after.mail_to().unwrap().clone();
    let mail = Delivery::new(&after, 1, to, deadlines.lease, at);
    let saved = store.save_with_mail(&before, &after, &mail).await;
    assert_eq!(saved.unwrap(), Saved::Written);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_caller_may_not_touch_is_as_if_it_were_not_there_and_stays_as_it_is() {
    let (service, meter) = TestStack::metered().await;
    // Each line has an open swap, whose existence no stranger may learn either.
    let mut targets = Vec::new();
    for (number, holder) in HOLDERS.into_iter().enumerate() {
        let target = target(&service, number, holder, Needs::OpenSwap).await;
        targets.push((holder, target));
    }
    let before = service.table();
    // The reads of a request may run in parallel.
    let bill = || {
        let mut bill = meter.bill();
        bill.calls.sort();
        bill
    };
    for caller in callers() {
        let bearer = bearer(&service, caller);
        let bearer = bearer.as_deref();
        for (holder, target) in &targets {
            let outcome = outcome(caller, *holder);
            if outcome == Outcome::Done {
                continue;
            }
            for request in REQUESTS {
                let cell = format!("{caller:?} {holder:?} {} {}", request.0, request.1);
                let (status, body) = error_response(outcome, request.4);
                for key in [None, Some("k")] {
                    bill();
                    let response = send(&service, bearer, request, target, key).await;
                    let billed = bill();
                    assert_eq!(response.status, status, "{cell} {response:?}");
                    assert_eq!(response.body, body.to_string(), "{cell}");
                    if outcome.is_no_caller() {
                        // The request of a caller without any right does not reach the table.
                        assert_eq!(billed, Bill::default(), "{cell}");
                        break;
                    }
                    let missing = Target::missing(target);
                    let missing = send(&service, bearer, request, &missing, key).await;
                    assert_eq!(response.timeless(), missing.timeless(), "{cell}");
                    assert_eq!(billed, bill(), "{cell}");
                }
            }
        }
        assert_eq!(service.table(), before, "{caller:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listing_holds_what_the_caller_sees_and_nothing_else() {
    let (service, _) = TestStack::metered().await;
    let mut targets = Vec::new();
    for (number, holder) in HOLDERS.into_iter().enumerate() {
        let target = target(&service, number, holder, Needs::OpenSwap).await;
        targets.insert(0, (holder, target));
    }
    for caller in callers() {
        if outcome(caller, OWN).is_no_caller() {
            continue;
        }
        let sees = |holder| outcome(caller, holder) == Outcome::Done;
        let visible = targets.iter().filter(|(holder, _)| sees(*holder));
        let visible: Vec<_> = visible.map(|(_, target)| &target.swap).collect();
        let bearer = bearer(&service, caller).unwrap();
        let headers = [("authorization", bearer.as_str())];
        let all = service.send("GET", "/api/QueryActivation", &headers, "");
        let page = all.await.json();
        let listed = page["results"].as_array().unwrap().iter();
        let listed: Vec<_> = listed.map(|swap| swap["id"].as_str().unwrap()).collect();
        assert_eq!(listed, visible, "{caller:?}");
        assert_eq!(page["total"], visible.len(), "{caller:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_permitted_request_succeeds() {
    let (service, _) = TestStack::metered().await;
    let mut number = 0;
    for caller in callers() {
        let bearer = bearer(&service, caller);
        for holder in HOLDERS {
            if outcome(caller, holder) != Outcome::Done {
                continue;
            }
            for request in REQUESTS {
                number += 1;
                let target = target(&service, number, holder, request.3).await;
                let response = send(&service, bearer.as_deref(), request, &target, None).await;
                let cell = format!("{caller:?} {holder:?} {} {}", request.0, request.1);
                assert_eq!(response.status, 200, "{cell} {response:?}");
                let body = response.json();
                match request.4 {
                    Unknown::Field(_) => assert_eq!(body["subscriptionId"], target.line, "{cell}"),
                    Unknown::EmptyPage => {
                        assert_eq!(body["total"], 1, "{cell}");
                        assert_eq!(body["results"][0]["id"], target.swap, "{cell}");
                    }
                    Unknown::Account => {
                        let sim = body["mvnoSim"]["simNumber"].as_str().unwrap();
                        let swap = service.line(&target.line).await.open_swap.unwrap();
                        assert_eq!(service.record(swap.as_str()).await.new_sim.as_str(), sim);
                    }
                }
            }
        }
    }
    // Two tokens of each role see something: one line, two lines, all three.
    assert_eq!(number, 2 * (1 + 2 + 3) * REQUESTS.len());
}
