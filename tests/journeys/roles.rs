//! Who may do what: every caller asks everything of every line, and one rule says what has to come of it. What else can be wrong with a request is in the other journeys.

use domain::{
    ActivationId, Claim, Delivery, EmailAddress, Fact, FormFactor, Iccid, Language, Line, LineState, Msisdn,
    NetworkName, Sim, SimState, SmDpAddress, SubscriptionId, apply,
};
use edge::Settings;
use jiff::Timestamp;
use serde_json::{Value, json};
use store::{Saved, Store};
use tests::{Bill, TestResponse, TestStack};

const OWN: (&str, &str) = ("C-OWN", "R-OWN");
/// Customer and reseller of a line: the caller's own, of the same reseller but another customer, foreign.
const HOLDERS: [(&str, &str); 3] = [OWN, ("C-OTHER", OWN.1), ("C-FOREIGN", "R-FOREIGN")];
const ROLES: [&str; 6] = ["OWNER", "RESELLER", "ADMIN", "AUDITOR", "owner", ""];
/// Customer and reseller in a token: none, empty, those of the first line, and these in each other's place.
const CLAIMS: [(Option<&str>, Option<&str>); 6] = [
    (None, None),
    (Some(""), Some("")),
    (Some(OWN.0), None),
    (None, Some(OWN.1)),
    (Some(OWN.0), Some(OWN.1)),
    (Some(OWN.1), Some(OWN.0)),
];

/// What a token says: role, customer, reseller.
type Claims = (&'static str, Option<&'static str>, Option<&'static str>);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Outcome {
    /// There is no token.
    Unauthorized,
    /// The role is none of the three, or lacks its claim.
    Forbidden,
    /// For this caller there is no such line.
    Unknown,
    Done,
}

impl Outcome {
    /// Nobody may ask anything so.
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

/// What a request is about. Its words take their places in braces in a row of [`REQUESTS`].
struct Target {
    line: String,
    phone: String,
    /// A card that the line could take.
    card: String,
    /// The line's open swap; of a line without one, of none.
    swap: String,
    reference: String,
}

impl Target {
    /// What is nowhere; but the card is the other one's.
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

/// How a request refuses what is not there.
#[derive(Clone, Copy)]
enum Unknown {
    /// The subscription dialect names the field.
    Field(&'static str),
    /// The account dialect.
    Account,
    /// A query finds nothing.
    EmptyPage,
}

/// What a request needs in order to be done.
#[derive(Clone, Copy, PartialEq)]
enum Needs {
    FreeLine,
    OpenSwap,
    /// An open swap that waits for the phone.
    MailedSwap,
}

/// Method, path, body, what it needs, and how it refuses.
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

const REQUESTS: [Request; 16] = {
    use Needs::{FreeLine, MailedSwap, OpenSwap};
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
        ("POST", RESEND, "", MailedSwap, Field("id")),
    ]
};

/// The whole refusal: status and body.
fn refusal(outcome: Outcome, unknown: Unknown) -> (u16, Value) {
    let account = |code, message, description| {
        let error = json!({"code": code, "message": message, "description": description});
        (code, json!({"success": false, "error": error}))
    };
    let status = |code, message: &str, errors| json!({"responseStatus": {"errorCode": code, "message": message, "errors": errors}});
    match (outcome, unknown) {
        (Outcome::Done, _) => panic!("it is not refused"),
        (Outcome::Unauthorized, _) => (401, json!({"message": "Unauthorized"})),
        (Outcome::Forbidden, Unknown::Account) => account(403, "role", "The role may not change SIM cards"),
        (Outcome::Forbidden, _) => {
            let message = "The token's role is none of OWNER, RESELLER and ADMIN, or lacks its claim.";
            (403, status("Forbidden", message, json!([])))
        }
        (Outcome::Unknown, Unknown::Account) => account(404, "mvnoAccount", "MVNO account not found"),
        (Outcome::Unknown, Unknown::Field(field)) => {
            let message = format!("What '{field}' names was not found.");
            let fault = json!({"errorCode": "NotFound", "fieldName": field, "message": message, "meta": {}});
            (404, status("NotFound", &message, json!([fault])))
        }
        (Outcome::Unknown, Unknown::EmptyPage) => (200, json!({"offset": 0, "total": 0, "results": [], "meta": {}})),
    }
}

/// All tokens, and none. An ADMIN's claims are as good as none, so it has two.
fn callers() -> impl Iterator<Item = Option<Claims>> {
    let claims = |role| {
        let fits = move |claims: &_| role != "ADMIN" || *claims == CLAIMS[0] || *claims == CLAIMS[4];
        let claims = CLAIMS.into_iter().filter(fits);
        claims.map(move |(customer, reseller)| Some((role, customer, reseller)))
    };
    ROLES.into_iter().flat_map(claims).chain([None])
}

/// An `authorization` header, if the caller has a token.
fn bearer(world: &TestStack, caller: Option<Claims>) -> Option<String> {
    let (role, customer, reseller) = caller?;
    Some(format!("Bearer {}", world.token(role, customer, reseller)))
}

async fn ask(
    world: &TestStack,
    bearer: Option<&str>,
    (method, path, body, ..): Request,
    target: &Target,
    key: Option<&str>,
) -> TestResponse {
    let mut headers = vec![("content-type", "application/json")];
    headers.extend(bearer.map(|bearer| ("authorization", bearer)));
    headers.extend(key.map(|key| ("idempotency-key", key)));
    let (path, body) = (target.fill(path), target.fill(body));
    world.send(method, &path, &headers, body).await
}

/// A line on a network of its own, with a card and an eSIM that are for it alone.
async fn target(world: &TestStack, number: usize, (customer, reseller): (&str, &str), needs: Needs) -> Target {
    let iccid = |series: usize| Iccid::parse(&format!("8931{series}{number:014}")).unwrap();
    let sim = |series, form_factor| Sim {
        iccid: iccid(series),
        imsi: None,
        network: NetworkName::parse(&format!("ROLES-{number}")).unwrap(),
        reseller: Some(reseller.to_owned()),
        form_factor,
        auto_assign: true,
        state: SimState::Free,
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
    let (old, card) = (sim(1, FormFactor::Nano), sim(2, FormFactor::Nano));
    let line = Line {
        id: SubscriptionId::parse(&format!("5ca1e{number:019x}")).unwrap(),
        phone: Msisdn::parse(&format!("+316{number:08}")).unwrap(),
        customer: customer.to_owned(),
        reseller: Some(reseller.to_owned()),
        network: old.network.clone(),
        current_sim: old.iccid.clone(),
        email: Some(EmailAddress::parse("roles@example.com").unwrap()),
        language: Language::En,
        state: LineState::Active,
        porting: false,
        locked: false,
        open_swap: None,
        kept_card: None,
        kept_esim: None,
    };
    let store = &world.stack.store;
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
        target.swap = world.begin(&swap).await;
    }
    if needs == Needs::MailedSwap {
        order(store, &target.swap).await;
    }
    target
}

/// Writes that a swap is ordered, as nobody does while the stream is off.
async fn order(store: &Store, id: &str) {
    let deadlines = Settings::new(|_| None).deadlines().unwrap();
    let id = ActivationId::parse(id).unwrap();
    let before = store.swap(&id).await.unwrap().unwrap();
    let at = before.activation.created_at;
    let claim = Claim {
        token: "t".to_owned(),
        until: at + deadlines.lease,
    };
    let ordered = Fact::Ordered {
        order_number: "N-1".to_owned(),
        smdp: Some(SmDpAddress::parse("smdp.example.test").unwrap()),
    };
    let mut after = before.activation.clone();
    for fact in [Fact::Claimed(claim), ordered] {
        after = apply(&after, &fact, &deadlines, at).unwrap();
    }
    let to = after.mail_to().unwrap().clone();
    let mail = Delivery::new(&after, 1, to, deadlines.lease, at);
    let saved = store.save_with_mail(&before, &after, &mail).await;
    assert_eq!(saved.unwrap(), Saved::Written);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_caller_may_not_touch_is_as_if_it_were_not_there_and_stays_as_it_is() {
    let (world, meter) = TestStack::metered().await;
    // A swap is open on each line: nobody else is told that either.
    let mut targets = Vec::new();
    for (number, holder) in HOLDERS.into_iter().enumerate() {
        let target = target(&world, number, holder, Needs::OpenSwap).await;
        targets.push((holder, target));
    }
    let before = world.table();
    for caller in callers() {
        let bearer = bearer(&world, caller);
        let bearer = bearer.as_deref();
        for (holder, target) in &targets {
            let outcome = outcome(caller, *holder);
            if outcome == Outcome::Done {
                continue;
            }
            for request in REQUESTS {
                let cell = format!("{caller:?} {holder:?} {} {}", request.0, request.1);
                let (status, body) = refusal(outcome, request.4);
                for key in [None, Some("k")] {
                    meter.bill();
                    let answer = ask(&world, bearer, request, target, key).await;
                    let bill = meter.bill();
                    assert_eq!(answer.status, status, "{cell} {answer:?}");
                    assert_eq!(answer.body, body.to_string(), "{cell}");
                    if outcome.is_no_caller() {
                        // Nobody without a right reaches the table.
                        assert_eq!(bill, Bill::default(), "{cell}");
                        break;
                    }
                    let missing = Target::missing(target);
                    let missing = ask(&world, bearer, request, &missing, key).await;
                    assert_eq!(answer.timeless(), missing.timeless(), "{cell}");
                    assert_eq!(bill, meter.bill(), "{cell}");
                }
            }
        }
        assert_eq!(world.table(), before, "{caller:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listing_holds_what_the_caller_sees_and_nothing_else() {
    let (world, _) = TestStack::metered().await;
    let mut targets = Vec::new();
    for (number, holder) in HOLDERS.into_iter().enumerate() {
        let target = target(&world, number, holder, Needs::OpenSwap).await;
        targets.insert(0, (holder, target));
    }
    for caller in callers() {
        if outcome(caller, OWN).is_no_caller() {
            continue;
        }
        let sees = |holder| outcome(caller, holder) == Outcome::Done;
        let visible = targets.iter().filter(|(holder, _)| sees(*holder));
        let visible: Vec<_> = visible.map(|(_, target)| &target.swap).collect();
        let bearer = bearer(&world, caller).unwrap();
        let headers = [("authorization", bearer.as_str())];
        let all = world.send("GET", "/api/QueryActivation", &headers, "");
        let page = all.await.json();
        let listed = page["results"].as_array().unwrap().iter();
        let listed: Vec<_> = listed.map(|swap| swap["id"].as_str().unwrap()).collect();
        assert_eq!(listed, visible, "{caller:?}");
        assert_eq!(page["total"], visible.len(), "{caller:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_caller_may_touch_is_done() {
    let (world, _) = TestStack::metered().await;
    let mut number = 0;
    for caller in callers() {
        let bearer = bearer(&world, caller);
        for holder in HOLDERS {
            if outcome(caller, holder) != Outcome::Done {
                continue;
            }
            for request in REQUESTS {
                number += 1;
                let target = target(&world, number, holder, request.3).await;
                let answer = ask(&world, bearer.as_deref(), request, &target, None).await;
                let cell = format!("{caller:?} {holder:?} {} {}", request.0, request.1);
                assert_eq!(answer.status, 200, "{cell} {answer:?}");
                let body = answer.json();
                match request.4 {
                    Unknown::Field(_) => assert_eq!(body["subscriptionId"], target.line, "{cell}"),
                    Unknown::EmptyPage => {
                        assert_eq!(body["total"], 1, "{cell}");
                        assert_eq!(body["results"][0]["id"], target.swap, "{cell}");
                    }
                    Unknown::Account => {
                        let sim = body["mvnoSim"]["simNumber"].as_str().unwrap();
                        let swap = world.line(&target.line).await.open_swap.unwrap();
                        assert_eq!(world.record(swap.as_str()).await.new_sim.as_str(), sim);
                    }
                }
            }
        }
    }
    // Two tokens of each role see something: one line, two, all three.
    assert_eq!(number, 2 * (1 + 2 + 3) * REQUESTS.len());
}
