//! Fault injection: what may happen to a call, how often, and for how long. How peers behave all the time is in
//! `quirks`.

use fastrand::Rng;
use serde_json::{Value, json};

use crate::quirks::{CancelSettlement, EarlyStart, Quirks, Search, WorkTime};
use crate::transport::{Call, Peer, Reply};

/// What happens to one call.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fault {
    /// No fault.
    None,
    /// The connection cannot be opened.
    NotSent,
    /// The request is lost; the caller times out.
    RequestLost,
    /// The peer executes the call, and the connection breaks before the reply.
    ResponseLost,
    /// The peer executes the call; the caller times out.
    ResponseTimesOut,
    /// The peer does not execute the call, and sends this reply.
    Rejected(Reply),
    /// The peer executes the call, and sends this reply in spite of that.
    Garbled(Reply),
    /// The peer executes the call with this delay, in milliseconds.
    Delayed(u64),
    /// The caller times out; the peer executes the call this many milliseconds later.
    Belated(u64),
    /// An index query receives the reply that an earlier query received.
    Stale,
}

/// A state in which a peer executes no call and gives the same reply to each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outage {
    /// 401: our credentials are wrong.
    Unauthorized,
    /// 403: our credentials are right, and do not suffice.
    Forbidden,
    /// 429 with `Retry-After`: this many seconds, as a number or as a date.
    Throttled(u64),
    /// 503.
    Unavailable,
    /// HTML with status 200.
    HtmlPage,
    /// SES: too many mails a second.
    Rate,
    /// SES: too many mails a day.
    Quota,
    /// SES: the account is paused.
    Paused,
    /// SES: the sender's address is not verified.
    Unverified,
}

/// A period in which a peer has an outage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Episode {
    pub(crate) peer: Peer,
    pub(crate) outage: Outage,
    /// In milliseconds since the run began.
    pub(crate) from: u64,
    /// [`Episode::ENDLESS`] for one that never ends.
    pub(crate) to: u64,
}

impl Episode {
    pub(crate) const ENDLESS: u64 = u64::MAX;

    fn random(rng: &mut Rng, until: u64) -> Self {
        let peer = [Peer::Smdp, Peer::Network, Peer::Ses][rng.usize(..3)];
        let outage = if peer == Peer::Ses {
            [Outage::Rate, Outage::Quota, Outage::Paused, Outage::Unverified][rng.usize(..4)]
        } else {
            [
                Outage::Unauthorized,
                Outage::Forbidden,
                Outage::Throttled(rng.u64(1..3_000)),
                Outage::Unavailable,
                Outage::HtmlPage,
            ][rng.usize(..5)]
        };
        let from = rng.u64(..until);
        let to = match rng.u8(..10) {
            0 => Self::ENDLESS,
            1..5 => until,
            _ => rng.u64(from..=until),
        };
        Self { peer, outage, from, to }
    }
}

/// A peer executes a belated call within this time after the caller gave up, in milliseconds.
pub(crate) const BELATED_AT_MOST: u64 = 595_000;

/// Which faults a run injects, and how often. Probabilities are in thousandths.
#[derive(Debug, Clone)]
pub(crate) struct FaultPlan {
    /// The probability that a call has a fault.
    pub(crate) fault: u32,
    /// The probability that the process is killed near a call.
    pub(crate) kill: u32,
    /// The probability that a callback or a change record is repeated.
    pub(crate) repeat: u32,
    /// The probability that a callback or a change record is late, by up to an hour.
    pub(crate) late: u32,
    /// The probability that a callback is corrupted or forged.
    pub(crate) corruption: u32,
    /// The probability that the network ends an order by itself.
    pub(crate) abandonment: u32,
    /// The probability that the SM-DP+ or the network executes a call after its caller gave up.
    pub(crate) belated: u32,
    /// The probability that the process dies while it calls one of them, so that its claim expires.
    pub(crate) claim_expiry: u32,
    /// The probability that a callback is lost.
    pub(crate) lost: u32,
    /// The probability that a callback is more than an hour late, by up to a day.
    pub(crate) overdue: u32,
    /// The probability that the network or the SM-DP+ rejects an order.
    pub(crate) rejection: u32,
    /// When a peer has an outage.
    pub(crate) episodes: Vec<Episode>,
    /// How the peers behave all the time.
    pub(crate) quirks: Quirks,
    /// Whether the stream delivers anything.
    pub(crate) stream: bool,
    /// The longest pause between two polls of the stream, in milliseconds. Lambda polls every 250.
    pub(crate) poll: u64,
    /// When all faults end but the episodes and quirks, in milliseconds since the run began.
    pub(crate) until: u64,
}

impl FaultPlan {
    /// No faults.
    pub(crate) const CALM: Self = Self {
        fault: 0,
        kill: 0,
        repeat: 0,
        late: 0,
        corruption: 0,
        abandonment: 0,
        belated: 0,
        claim_expiry: 0,
        lost: 0,
        overdue: 0,
        rejection: 0,
        episodes: Vec::new(),
        quirks: Quirks::NONE,
        stream: true,
        poll: 60,
        until: 0,
    };

    /// Frequent faults for an hour.
    pub(crate) const ROUGH: Self = Self {
        fault: 100,
        kill: 5,
        repeat: 400,
        late: 50,
        corruption: 400,
        abandonment: 0,
        belated: 0,
        claim_expiry: 0,
        lost: 0,
        overdue: 0,
        rejection: 0,
        episodes: Vec::new(),
        quirks: Quirks::NONE,
        stream: true,
        poll: 60,
        until: 3_600_000,
    };

    /// Each kind of fault of the peers and SES alone, for four hours or without end.
    pub(crate) fn each_fault() -> Vec<(&'static str, Self)> {
        const MINUTES: u64 = 60_000;
        const HOURS: u64 = 60 * MINUTES;
        let calm = || Self {
            until: 4 * HOURS,
            ..Self::CALM
        };
        let with = |change: &dyn Fn(&mut Self)| {
            let mut plan = calm();
            change(&mut plan);
            plan
        };
        let quirk = |change: &dyn Fn(&mut Quirks)| with(&|plan| change(&mut plan.quirks));
        let episode = |peer, outage, from, to| {
            with(&|plan| {
                plan.episodes.push(Episode { peer, outage, from, to });
            })
        };
        let settling = "pendingCancellation";
        vec![
            ("belated", with(&|plan| plan.belated = 400)),
            (
                "belated, rejected",
                with(&|plan| (plan.belated, plan.rejection) = (400, 400)),
            ),
            ("search lags", quirk(&|quirks| quirks.search = Search::Lags(240_000))),
            (
                "search lags, belated",
                with(&|plan| {
                    plan.belated = 400;
                    plan.quirks.search = Search::Lags(240_000);
                }),
            ),
            ("search empty", quirk(&|quirks| quirks.search = Search::Nothing)),
            ("search 404", quirk(&|quirks| quirks.search = Search::NotFound)),
            (
                "search empty, belated",
                with(&|plan| {
                    plan.belated = 400;
                    plan.quirks.search = Search::Nothing;
                }),
            ),
            ("401 to orders", episode(Peer::Network, Outage::Unauthorized, 0, HOURS)),
            (
                "401 to starts",
                episode(Peer::Network, Outage::Unauthorized, 5 * MINUTES, 3 * HOURS),
            ),
            ("403", episode(Peer::Network, Outage::Forbidden, 0, 2 * HOURS)),
            ("SM-DP+ 401", episode(Peer::Smdp, Outage::Unauthorized, 0, 2 * HOURS)),
            ("429", episode(Peer::Network, Outage::Throttled(2_400), 0, 2 * HOURS)),
            (
                "SM-DP+ 429",
                episode(Peer::Smdp, Outage::Throttled(2_400), 0, 2 * HOURS),
            ),
            ("503", episode(Peer::Network, Outage::Unavailable, 0, 4 * HOURS)),
            ("HTML", episode(Peer::Network, Outage::HtmlPage, 0, 4 * HOURS)),
            (
                "401 for ever",
                episode(Peer::Network, Outage::Unauthorized, 0, Episode::ENDLESS),
            ),
            (
                "401 for ever, from 10 min",
                episode(Peer::Network, Outage::Unauthorized, 10 * MINUTES, Episode::ENDLESS),
            ),
            (
                "SM-DP+ 503 for ever, from 10 min",
                episode(Peer::Smdp, Outage::Unavailable, 10 * MINUTES, Episode::ENDLESS),
            ),
            ("spelling", quirk(&|quirks| quirks.spelling = 600)),
            ("numbers", quirk(&|quirks| quirks.numeric_ids = true)),
            ("unnamed events", quirk(&|quirks| quirks.unnamed_events = 1000)),
            (
                "slow, so that events overtake",
                quirk(&|quirks| quirks.latencies = [11_000, 25_000, 4_000]),
            ),
            ("SES slow", quirk(&|quirks| quirks.latencies = [0, 0, 4_000])),
            ("callbacks lost", with(&|plan| plan.lost = 1000)),
            ("callbacks overdue", with(&|plan| plan.overdue = 500)),
            ("clocks behind", quirk(&|quirks| quirks.clock_skews = [-3_600; 2])),
            ("clocks ahead", quirk(&|quirks| quirks.clock_skews = [3_600; 2])),
            (
                "cancelOrder rejected 8.2.6",
                quirk(&|quirks| quirks.rejects_cancel = Some(("8.2.6", "3.10"))),
            ),
            (
                "cancelOrder rejected 8.8.5",
                quirk(&|quirks| quirks.rejects_cancel = Some(("8.8.5", "4.10"))),
            ),
            (
                "repeated cancelOrder rejected",
                with(&|plan| (plan.quirks.rejects_repeated_cancel, plan.fault) = (true, 150)),
            ),
            ("409 to every start", quirk(&|quirks| quirks.rejects_starts = true)),
            (
                "cancel settled late",
                quirk(&|quirks| quirks.cancel = CancelSettlement::After(2 * HOURS, settling)),
            ),
            (
                "cancel never settled",
                quirk(&|quirks| quirks.cancel = CancelSettlement::Never(settling)),
            ),
            (
                "inProgress shown early",
                quirk(&|quirks| quirks.early_start = EarlyStart::Shown),
            ),
            (
                "started early",
                quirk(&|quirks| quirks.early_start = EarlyStart::Started),
            ),
            (
                "inProgress without end",
                quirk(&|quirks| quirks.work_time = WorkTime::Endless),
            ),
            (
                "completed after a day",
                quirk(&|quirks| quirks.work_time = WorkTime::For(20 * HOURS)),
            ),
            ("SES throttles", episode(Peer::Ses, Outage::Rate, 0, 60 * MINUTES)),
            (
                "SES's quota is full",
                episode(Peer::Ses, Outage::Quota, 0, 90 * MINUTES),
            ),
            ("SES pauses", episode(Peer::Ses, Outage::Paused, 0, 90 * MINUTES)),
            (
                "SES: not verified",
                episode(Peer::Ses, Outage::Unverified, 0, 90 * MINUTES),
            ),
            ("soft bounces", quirk(&|quirks| quirks.soft_bounces = 1000)),
            (
                "SES silent",
                with(&|plan| (plan.quirks.ses_silent, plan.fault) = (true, 100)),
            ),
            ("overload", with(&|plan| plan.claim_expiry = 800)),
        ]
    }

    /// Draws a plan between calm and very rough.
    pub(crate) fn random(rng: &mut Rng) -> Self {
        let one_of = |rng: &mut Rng, chances: [u32; 4]| chances[rng.usize(..4)];
        let hours = [2, 2, 2, 4][rng.usize(..4)];
        let until = rng.u64(1..=hours * 60) * 60_000;
        let one_in_six = |rng: &mut Rng, chances: [u32; 3]| match rng.u8(..6) {
            0 => chances[rng.usize(..3)],
            _ => 0,
        };
        let episodes = [0, 0, 0, 0, 1, 2, 3][rng.usize(..7)];
        Self {
            belated: one_in_six(rng, [30, 150, 400]),
            claim_expiry: one_in_six(rng, [100, 400, 800]),
            lost: one_in_six(rng, [100, 500, 1000]),
            overdue: one_in_six(rng, [50, 200, 500]),
            rejection: one_in_six(rng, [100, 300, 300]),
            episodes: (0..episodes).map(|_| Episode::random(rng, until)).collect(),
            quirks: Quirks::random(rng),
            fault: one_of(rng, [0, 10, 40, 150]),
            kill: one_of(rng, [0, 0, 5, 30]),
            repeat: one_of(rng, [0, 50, 200, 400]),
            late: one_of(rng, [0, 0, 50, 200]),
            corruption: one_of(rng, [0, 0, 30, 100]),
            abandonment: one_of(rng, [0, 0, 0, 200]),
            stream: rng.u8(..8) > 0,
            poll: [60, 250, 1_000, 1_000][rng.usize(..4)],
            until,
        }
    }

    /// Whether the peers eventually do everything that the service requests.
    pub(crate) fn lets_everything_settle(&self) -> bool {
        let ends = |episode: &Episode| episode.to != Episode::ENDLESS;
        self.episodes.iter().all(ends) && self.quirks.lets_everything_settle()
    }

    /// Whether nothing is ever late, lost or rejected at random, so that everything happens at once.
    pub(crate) fn is_prompt(&self) -> bool {
        let chances = [
            self.fault,
            self.kill,
            self.late,
            self.belated,
            self.claim_expiry,
            self.lost,
            self.overdue,
        ];
        let quirks = &self.quirks;
        chances == [0; 7] && self.stream && self.episodes.is_empty()
            && quirks.early_start == EarlyStart::Never
            // An event that arrives before the order's id and does not name the swap belongs to no swap that we know.
            && (quirks.unnamed_events == 0 || quirks.latencies[1] == 0)
    }

    /// The time from which SES accepts every mail, in milliseconds; `None` if it never does.
    pub(crate) fn ses_accepts_from(&self) -> Option<u64> {
        let of_ses = self.episodes.iter().filter(|one| one.peer == Peer::Ses);
        let to = of_ses.map(|episode| episode.to).max().unwrap_or(0);
        let calm = if self.fault + self.kill > 0 { self.until } else { 0 };
        (to != Episode::ENDLESS).then_some(to.max(calm))
    }

    /// The outage that a peer has at this time.
    pub(crate) fn outage_at(&self, peer: Peer, now: u64) -> Option<Outage> {
        let mut episodes = self.episodes.iter();
        let episode = episodes.find(|one| one.peer == peer && (one.from..one.to).contains(&now))?;
        Some(episode.outage)
    }
}

impl Outage {
    /// The reply to every call. `date` formats the time that is this many seconds from now.
    pub(crate) fn reply(self, rng: &mut Rng, date: impl Fn(u64) -> String) -> Reply {
        match self {
            Self::Unauthorized => Reply::new(401, r#"{"code":"401","reason":"no"}"#),
            Self::Forbidden => Reply::new(403, "<html>no</html>"),
            Self::Throttled(seconds) => {
                let after = if rng.bool() { seconds.to_string() } else { date(seconds) };
                Reply::new(429, "")
                    .with_header("date", date(0))
                    .with_header("retry-after", after)
            }
            Self::Unavailable => Reply::new(503, ""),
            Self::HtmlPage => Reply::new(200, "<html>it works</html>"),
            Self::Rate => ses_error("Throttling", "Maximum sending rate exceeded."),
            Self::Quota => ses_error("Throttling", "Daily message quota exceeded."),
            Self::Paused => ses_error("AccountSendingPausedException", "Email sending is paused."),
            Self::Unverified => ses_error(
                "MessageRejected",
                "Email address is not verified. The following identities failed the check in region EU-CENTRAL-1: x",
            ),
        }
    }
}

impl FaultPlan {
    /// Draws the fault of a call.
    pub(crate) fn draw_fault(&self, rng: &mut Rng, call: &Call, now: u64) -> Fault {
        if now >= self.until {
            return Fault::None;
        }
        let to_network_or_smdp = matches!(call.peer, Peer::Smdp | Peer::Network);
        if to_network_or_smdp && self.belated > 0 && rng.u32(..1000) < self.belated {
            return Fault::Belated(rng.u64(1_000..BELATED_AT_MOST));
        }
        if self.rejection > 0
            && let Some(rejection) = order_rejection(call)
            && rng.u32(..1000) < self.rejection
        {
            return Fault::Rejected(rejection);
        }
        if rng.u32(..1000) >= self.fault {
            return Fault::None;
        }
        match rng.u8(..8) {
            0 => Fault::NotSent,
            1 => Fault::RequestLost,
            2 => Fault::ResponseLost,
            3 => Fault::ResponseTimesOut,
            4 if to_network_or_smdp => Fault::Delayed(rng.u64(20..25_000)),
            4 => Fault::Delayed(rng.u64(20..8_000)),
            5 => Fault::Garbled(garbled_reply(rng, call.peer)),
            _ => rejection_by_peer(rng, call),
        }
    }
}

/// The permanent rejection of an order.
fn order_rejection(call: &Call) -> Option<Reply> {
    match call.peer {
        Peer::Smdp if call.path.ends_with("downloadOrder") => Some(es2plus_failure("8.2.5", "3.9")),
        Peer::Network if call.method == "POST" && call.path.ends_with("/serviceOrder") => {
            Some(Reply::new(422, r#"{"code":"22","reason":"no"}"#))
        }
        _ => None,
    }
}

fn garbled_reply(rng: &mut Rng, peer: Peer) -> Reply {
    match (peer, rng.bool()) {
        (Peer::Smdp | Peer::Network, true) => Reply::new(200, "<html>it works</html>"),
        _ => Reply::new(500, "<html>it does not work</html>"),
    }
}

/// An error that the peer itself would send.
fn rejection_by_peer(rng: &mut Rng, call: &Call) -> Fault {
    let aws = |kind: &str| json!({"__type": format!("com.amazonaws#{kind}"), "message": "no"});
    Fault::Rejected(match call.peer {
        Peer::DynamoDb => match (call.operation.as_str(), rng.u8(..4)) {
            ("Query", 0..3) if call.is_index_query() => return Fault::Stale,
            ("TransactWriteItems", 0..2) => transaction_conflict(rng, call),
            ("PutItem" | "UpdateItem", 0) => json_reply(400, &aws("TransactionConflictException")),
            (_, 1) => json_reply(400, &aws("ThrottlingException")),
            (_, 2) => json_reply(400, &aws("ProvisionedThroughputExceededException")),
            _ => json_reply(500, &aws("InternalServerError")),
        },
        Peer::Kms => json_reply(400, &aws("ThrottlingException")),
        Peer::Lambda => json_reply(429, &aws("TooManyRequestsException")),
        Peer::Ses => {
            let code = ["Throttling", "Throttling", "Throttling", "MessageRejected"][rng.usize(..4)];
            ses_error(code, "no")
        }
        Peer::Smdp => match rng.u8(..3) {
            0 => Reply::new(503, ""),
            // No profile of the type is left, but more may be delivered: transient.
            1 if call.path.ends_with("downloadOrder") => es2plus_failure("8.2.5", "3.7"),
            2 if call.path.ends_with("confirmOrder") => es2plus_failure("8.2.6", "3.8"),
            _ => Reply::new(500, ""),
        },
        Peer::Network => match rng.u8(..3) {
            0 => Reply::new(503, ""),
            1 => Reply::new(429, ""),
            _ => Reply::new(400, r#"{"code":"1","reason":"no"}"#),
        },
    })
}

fn transaction_conflict(rng: &mut Rng, call: &Call) -> Reply {
    let request: Value = serde_json::from_slice(&call.body).unwrap_or_default();
    let writes = request["TransactItems"].as_array().map_or(1, Vec::len);
    let one = rng.usize(..writes);
    let reasons: Vec<_> = (0..writes)
        .map(|n| json!({"Code": if n == one { "TransactionConflict" } else { "None" }}))
        .collect();
    let body = json!({
        "__type": "com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
        "Message": "no",
        "CancellationReasons": reasons,
    });
    json_reply(400, &body)
}

fn ses_error(code: &str, message: &str) -> Reply {
    let body = format!(
        "<ErrorResponse xmlns=\"http://ses.amazonaws.com/doc/2010-12-01/\"><Error><Type>Sender</Type>\
         <Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"
    );
    Reply::new(400, body)
}

pub(crate) fn es2plus_failure(subject: &str, reason: &str) -> Reply {
    let data = json!({"subjectCode": subject, "reasonCode": reason, "message": "no"});
    let status = json!({"status": "Failed", "statusCodeData": data});
    json_reply(200, &json!({"header": {"functionExecutionStatus": status}}))
}

fn json_reply(status: u16, body: &Value) -> Reply {
    Reply::new(status, body.to_string())
}

impl Call {
    /// Whether the call queries an index.
    pub(crate) fn is_index_query(&self) -> bool {
        self.operation == "Query" && self.body.windows(11).any(|part| part == b"\"IndexName\"")
    }
}
