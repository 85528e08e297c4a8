//! Faults: what can become of a call on its way, and how often. Which calls there are is not here.

use fastrand::Rng;
use serde_json::{Value, json};

use crate::quirks::{Cancelling, Early, Quirks, Search, Work};
use crate::transport::{Call, Peer, Reply};

/// What becomes of one call.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fault {
    /// Nothing: it is carried out and answered.
    None,
    /// No connection stands.
    NotSent,
    /// It vanishes; the caller waits in vain.
    Vanishes,
    /// It is carried out; the connection breaks off before the answer.
    AnswerLost,
    /// It is carried out; the caller waits in vain.
    Silence,
    /// It is not carried out; this is the answer.
    Refused(Reply),
    /// It is carried out; this is the answer all the same.
    Garbled(Reply),
    /// It is carried out so many milliseconds later.
    Late(u64),
    /// The caller waits in vain, and so many milliseconds after he gave up it is carried out.
    Belated(u64),
    /// A query of an index is answered as it was answered before.
    Stale,
}

/// What a peer answers to every call for a while, and carries out none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answers {
    /// Our credentials are wrong.
    Unauthorized,
    /// They are right, and do not suffice.
    Forbidden,
    /// 429, with `Retry-After`: so many seconds, as a number or as a date.
    Throttled(u64),
    /// 503.
    Unavailable,
    /// HTML with 200.
    Page,
    /// SES: more mails a second than are allowed.
    Rate,
    /// SES: more mails a day than are allowed.
    Quota,
    /// SES: the account is paused.
    Paused,
    /// SES: the sender's address is not verified.
    Unverified,
}

/// An episode in which a peer answers every call alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Episode {
    pub(crate) peer: Peer,
    pub(crate) answers: Answers,
    /// In milliseconds since the beginning.
    pub(crate) from: u64,
    /// [`Episode::ENDLESS`] for one without end.
    pub(crate) to: u64,
}

impl Episode {
    pub(crate) const ENDLESS: u64 = u64::MAX;

    fn any(rng: &mut Rng, until: u64) -> Self {
        let peer = [Peer::Smdp, Peer::Network, Peer::Post][rng.usize(..3)];
        let answers = if peer == Peer::Post {
            [Answers::Rate, Answers::Quota, Answers::Paused, Answers::Unverified][rng.usize(..4)]
        } else {
            [
                Answers::Unauthorized,
                Answers::Forbidden,
                Answers::Throttled(rng.u64(1..3_000)),
                Answers::Unavailable,
                Answers::Page,
            ][rng.usize(..5)]
        };
        let from = rng.u64(..until);
        let to = match rng.u8(..10) {
            0 => Self::ENDLESS,
            1..5 => until,
            _ => rng.u64(from..=until),
        };
        Self {
            peer,
            answers,
            from,
            to,
        }
    }
}

/// Within so many milliseconds after it was given up a call may still be carried out.
pub(crate) const BELATED_AT_MOST: u64 = 595_000;

/// How bad things are in one world. Chances are in thousandths.
#[derive(Debug, Clone)]
pub(crate) struct FaultPlan {
    /// That a call meets a fault.
    pub(crate) fault: u32,
    /// That the process is killed near a call.
    pub(crate) kill: u32,
    /// That a callback or a stream record comes again.
    pub(crate) repeat: u32,
    /// That a callback or a stream record comes late, by up to an hour.
    pub(crate) late: u32,
    /// That a peer's callback is one that says nonsense.
    pub(crate) nonsense: u32,
    /// That the network gives up an order by itself.
    pub(crate) giving_up: u32,
    /// That a call to the SM-DP+ or the network is carried out after its caller gave it up.
    pub(crate) belated: u32,
    /// That the process that calls one of them dies, so that its claim lapses.
    pub(crate) lapse: u32,
    /// That a callback is lost for ever.
    pub(crate) lost: u32,
    /// That a callback comes more than an hour late, by up to a day.
    pub(crate) overdue: u32,
    /// That the network or the SM-DP+ refuses an order.
    pub(crate) refusal: u32,
    /// In which a peer answers every call alike.
    pub(crate) episodes: Vec<Episode>,
    /// How the peers behave all the time.
    pub(crate) quirks: Quirks,
    /// Whether the stream delivers at all.
    pub(crate) stream: bool,
    /// Between two looks at the stream at most, in milliseconds. Lambda's are 250.
    pub(crate) poll: u64,
    /// When all of that stops, in milliseconds.
    pub(crate) until: u64,
}

impl FaultPlan {
    /// Nothing goes wrong.
    pub(crate) const CALM: Self = Self {
        fault: 0,
        kill: 0,
        repeat: 0,
        late: 0,
        nonsense: 0,
        giving_up: 0,
        belated: 0,
        lapse: 0,
        lost: 0,
        overdue: 0,
        refusal: 0,
        episodes: Vec::new(),
        quirks: Quirks::NONE,
        stream: true,
        poll: 60,
        until: 0,
    };

    /// Everything goes wrong for an hour.
    pub(crate) const ROUGH: Self = Self {
        fault: 100,
        kill: 5,
        repeat: 400,
        late: 50,
        nonsense: 400,
        giving_up: 0,
        belated: 0,
        lapse: 0,
        lost: 0,
        overdue: 0,
        refusal: 0,
        episodes: Vec::new(),
        quirks: Quirks::NONE,
        stream: true,
        poll: 60,
        until: 3_600_000,
    };

    /// Each kind of fault of the peers by itself, for four hours or without end.
    pub(crate) fn each_alone() -> Vec<(&'static str, Self)> {
        const MINUTES: u64 = 60_000;
        const HOURS: u64 = 60 * MINUTES;
        let calm = || Self {
            until: 4 * HOURS,
            ..Self::CALM
        };
        let with = |change: &dyn Fn(&mut Self)| {
            let mut weather = calm();
            change(&mut weather);
            weather
        };
        let quirk = |change: &dyn Fn(&mut Quirks)| with(&|weather| change(&mut weather.quirks));
        let episode = |peer, answers, from, to| {
            with(&|weather| {
                weather.episodes.push(Episode {
                    peer,
                    answers,
                    from,
                    to,
                });
            })
        };
        let settling = "pendingCancellation";
        vec![
            ("belated", with(&|weather| weather.belated = 400)),
            (
                "belated, refused",
                with(&|weather| (weather.belated, weather.refusal) = (400, 400)),
            ),
            ("search lags", quirk(&|quirks| quirks.search = Search::Lags(240_000))),
            (
                "search lags, belated",
                with(&|weather| {
                    weather.belated = 400;
                    weather.quirks.search = Search::Lags(240_000);
                }),
            ),
            ("search empty", quirk(&|quirks| quirks.search = Search::Nothing)),
            ("search 404", quirk(&|quirks| quirks.search = Search::NotFound)),
            (
                "search empty, belated",
                with(&|weather| {
                    weather.belated = 400;
                    weather.quirks.search = Search::Nothing;
                }),
            ),
            ("401 to orders", episode(Peer::Network, Answers::Unauthorized, 0, HOURS)),
            (
                "401 to starts",
                episode(Peer::Network, Answers::Unauthorized, 5 * MINUTES, 3 * HOURS),
            ),
            ("403", episode(Peer::Network, Answers::Forbidden, 0, 2 * HOURS)),
            ("SM-DP+ 401", episode(Peer::Smdp, Answers::Unauthorized, 0, 2 * HOURS)),
            ("429", episode(Peer::Network, Answers::Throttled(2_400), 0, 2 * HOURS)),
            (
                "SM-DP+ 429",
                episode(Peer::Smdp, Answers::Throttled(2_400), 0, 2 * HOURS),
            ),
            ("503", episode(Peer::Network, Answers::Unavailable, 0, 4 * HOURS)),
            ("HTML", episode(Peer::Network, Answers::Page, 0, 4 * HOURS)),
            (
                "401 for ever",
                episode(Peer::Network, Answers::Unauthorized, 0, Episode::ENDLESS),
            ),
            (
                "401 for ever, from 10 min",
                episode(Peer::Network, Answers::Unauthorized, 10 * MINUTES, Episode::ENDLESS),
            ),
            (
                "SM-DP+ 503 for ever, from 10 min",
                episode(Peer::Smdp, Answers::Unavailable, 10 * MINUTES, Episode::ENDLESS),
            ),
            ("spelling", quirk(&|quirks| quirks.spelling = 600)),
            ("numbers", quirk(&|quirks| quirks.numbers = true)),
            ("unnamed events", quirk(&|quirks| quirks.unnamed = 1000)),
            (
                "slow, so that events overtake",
                quirk(&|quirks| quirks.slow = [11_000, 25_000, 4_000]),
            ),
            ("SES slow", quirk(&|quirks| quirks.slow = [0, 0, 4_000])),
            ("callbacks lost", with(&|weather| weather.lost = 1000)),
            ("callbacks overdue", with(&|weather| weather.overdue = 500)),
            ("clocks behind", quirk(&|quirks| quirks.clocks = [-3_600; 2])),
            ("clocks ahead", quirk(&|quirks| quirks.clocks = [3_600; 2])),
            (
                "cancelOrder refused 8.2.6",
                quirk(&|quirks| quirks.keeps = Some(("8.2.6", "3.10"))),
            ),
            (
                "cancelOrder refused 8.8.5",
                quirk(&|quirks| quirks.keeps = Some(("8.8.5", "4.10"))),
            ),
            ("409 to every start", quirk(&|quirks| quirks.unstartable = true)),
            (
                "cancel settled late",
                quirk(&|quirks| quirks.cancel = Cancelling::After(2 * HOURS, settling)),
            ),
            (
                "cancel never settled",
                quirk(&|quirks| quirks.cancel = Cancelling::Never(settling)),
            ),
            ("inProgress shown early", quirk(&|quirks| quirks.early = Early::Shown)),
            ("started early", quirk(&|quirks| quirks.early = Early::Started)),
            ("inProgress without end", quirk(&|quirks| quirks.work = Work::Endless)),
            (
                "completed after a day",
                quirk(&|quirks| quirks.work = Work::For(20 * HOURS)),
            ),
            ("SES throttles", episode(Peer::Post, Answers::Rate, 0, 90 * MINUTES)),
            (
                "SES's quota is full",
                episode(Peer::Post, Answers::Quota, 0, 90 * MINUTES),
            ),
            ("SES pauses", episode(Peer::Post, Answers::Paused, 0, 90 * MINUTES)),
            (
                "SES: not verified",
                episode(Peer::Post, Answers::Unverified, 0, 90 * MINUTES),
            ),
            ("soft bounces", quirk(&|quirks| quirks.soft = 1000)),
            (
                "SES silent",
                with(&|weather| (weather.quirks.silent, weather.fault) = (true, 100)),
            ),
            ("overload", with(&|weather| weather.lapse = 800)),
        ]
    }

    /// Anything between calm and storm.
    pub(crate) fn any(rng: &mut Rng) -> Self {
        let one_of = |rng: &mut Rng, chances: [u32; 4]| chances[rng.usize(..4)];
        let hours = [2, 2, 2, 4][rng.usize(..4)];
        let until = rng.u64(1..=hours * 60) * 60_000;
        let seldom = |rng: &mut Rng, chances: [u32; 3]| match rng.u8(..6) {
            0 => chances[rng.usize(..3)],
            _ => 0,
        };
        let episodes = [0, 0, 0, 0, 1, 2, 3][rng.usize(..7)];
        Self {
            belated: seldom(rng, [30, 150, 400]),
            lapse: seldom(rng, [100, 400, 800]),
            lost: seldom(rng, [100, 500, 1000]),
            overdue: seldom(rng, [50, 200, 500]),
            refusal: seldom(rng, [100, 300, 300]),
            episodes: (0..episodes).map(|_| Episode::any(rng, until)).collect(),
            quirks: Quirks::any(rng),
            fault: one_of(rng, [0, 10, 40, 150]),
            kill: one_of(rng, [0, 0, 5, 30]),
            repeat: one_of(rng, [0, 50, 200, 400]),
            late: one_of(rng, [0, 0, 50, 200]),
            nonsense: one_of(rng, [0, 0, 30, 100]),
            giving_up: one_of(rng, [0, 0, 0, 200]),
            stream: rng.u8(..8) > 0,
            poll: [60, 250, 1_000, 1_000][rng.usize(..4)],
            until,
        }
    }

    /// Whether the peers do in the end all that is asked of them.
    pub(crate) fn lets_all_end(&self) -> bool {
        let ends = |episode: &Episode| episode.to != Episode::ENDLESS;
        self.episodes.iter().all(ends) && self.quirks.lets_all_end()
    }

    /// Whether nothing is ever late, lost or refused by chance, so that what is to be done is done at once.
    pub(crate) fn is_prompt(&self) -> bool {
        let chances = [
            self.fault,
            self.kill,
            self.late,
            self.belated,
            self.lapse,
            self.lost,
            self.overdue,
        ];
        let quirks = &self.quirks;
        chances == [0; 7] && self.stream && self.episodes.is_empty()
            && quirks.early == Early::Never
            // An event that overtakes the order's id and does not name the swap is nobody's.
            && (quirks.unnamed == 0 || quirks.slow[1] == 0)
    }

    /// From when on SES takes every mail, in milliseconds; `None` if it never does again.
    pub(crate) fn mails_from(&self) -> Option<u64> {
        let of_ses = self.episodes.iter().filter(|one| one.peer == Peer::Post);
        let to = of_ses.map(|episode| episode.to).max().unwrap_or(0);
        let calm = if self.fault + self.kill > 0 { self.until } else { 0 };
        (to != Episode::ENDLESS).then_some(to.max(calm))
    }

    /// What a peer answers now, whatever it is asked.
    pub(crate) fn answers(&self, peer: Peer, now: u64) -> Option<Answers> {
        let mut episodes = self.episodes.iter();
        let episode = episodes.find(|one| one.peer == peer && (one.from..one.to).contains(&now))?;
        Some(episode.answers)
    }
}

impl Answers {
    /// The reply. `date` is what stands in a header for so many seconds from now.
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
            Self::Page => Reply::new(200, "<html>it works</html>"),
            Self::Rate => ses("Throttling", "Maximum sending rate exceeded."),
            Self::Quota => ses("Throttling", "Daily message quota exceeded."),
            Self::Paused => ses("AccountSendingPausedException", "Email sending is paused."),
            Self::Unverified => ses(
                "MessageRejected",
                "Email address is not verified. The following identities failed the check in region EU-CENTRAL-1: x",
            ),
        }
    }
}

impl FaultPlan {
    /// What becomes of this call.
    pub(crate) fn fault(&self, rng: &mut Rng, call: &Call, now: u64) -> Fault {
        if now >= self.until {
            return Fault::None;
        }
        let of_peer_of_ours = matches!(call.peer, Peer::Smdp | Peer::Network);
        if of_peer_of_ours && self.belated > 0 && rng.u32(..1000) < self.belated {
            return Fault::Belated(rng.u64(1_000..BELATED_AT_MOST));
        }
        if self.refusal > 0
            && let Some(refusal) = refusal(call)
            && rng.u32(..1000) < self.refusal
        {
            return Fault::Refused(refusal);
        }
        if rng.u32(..1000) >= self.fault {
            return Fault::None;
        }
        match rng.u8(..8) {
            0 => Fault::NotSent,
            1 => Fault::Vanishes,
            2 => Fault::AnswerLost,
            3 => Fault::Silence,
            4 if of_peer_of_ours => Fault::Late(rng.u64(20..25_000)),
            4 => Fault::Late(rng.u64(20..8_000)),
            5 => Fault::Garbled(garbled(rng, call.peer)),
            _ => of_peer(rng, call),
        }
    }
}

/// An order that is refused for what it is.
fn refusal(call: &Call) -> Option<Reply> {
    match call.peer {
        Peer::Smdp if call.path.ends_with("downloadOrder") => Some(refused("8.2.5", "3.9")),
        Peer::Network if call.method == "POST" && call.path.ends_with("/serviceOrder") => {
            Some(Reply::new(422, r#"{"code":"22","reason":"no"}"#))
        }
        _ => None,
    }
}

fn garbled(rng: &mut Rng, peer: Peer) -> Reply {
    match (peer, rng.bool()) {
        (Peer::Smdp | Peer::Network, true) => Reply::new(200, "<html>it works</html>"),
        _ => Reply::new(500, "<html>it does not work</html>"),
    }
}

/// A refusal in the peer's own words.
fn of_peer(rng: &mut Rng, call: &Call) -> Fault {
    let aws = |kind: &str| json!({"__type": format!("com.amazonaws#{kind}"), "message": "no"});
    Fault::Refused(match call.peer {
        Peer::Table => match (call.operation.as_str(), rng.u8(..4)) {
            ("Query", 0..3) if call.is_index_query() => return Fault::Stale,
            ("TransactWriteItems", 0..2) => conflict(rng, call),
            ("PutItem" | "UpdateItem", 0) => answer(400, &aws("TransactionConflictException")),
            (_, 1) => answer(400, &aws("ThrottlingException")),
            (_, 2) => answer(400, &aws("ProvisionedThroughputExceededException")),
            _ => answer(500, &aws("InternalServerError")),
        },
        Peer::Keys => answer(400, &aws("ThrottlingException")),
        Peer::Lambda => answer(429, &aws("TooManyRequestsException")),
        Peer::Post => {
            let code = ["Throttling", "Throttling", "Throttling", "MessageRejected"][rng.usize(..4)];
            ses(code, "no")
        }
        Peer::Smdp => match rng.u8(..3) {
            0 => Reply::new(503, ""),
            // None of the type is left: more may come.
            1 if call.path.ends_with("downloadOrder") => refused("8.2.5", "3.7"),
            2 if call.path.ends_with("confirmOrder") => refused("8.2.6", "3.8"),
            _ => Reply::new(500, ""),
        },
        Peer::Network => match rng.u8(..3) {
            0 => Reply::new(503, ""),
            1 => Reply::new(429, ""),
            _ => Reply::new(400, r#"{"code":"1","reason":"no"}"#),
        },
    })
}

fn conflict(rng: &mut Rng, call: &Call) -> Reply {
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
    answer(400, &body)
}

fn ses(code: &str, message: &str) -> Reply {
    let body = format!(
        "<ErrorResponse xmlns=\"http://ses.amazonaws.com/doc/2010-12-01/\"><Error><Type>Sender</Type>\
         <Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"
    );
    Reply::new(400, body)
}

pub(crate) fn refused(subject: &str, reason: &str) -> Reply {
    let data = json!({"subjectCode": subject, "reasonCode": reason, "message": "no"});
    let status = json!({"status": "Failed", "statusCodeData": data});
    answer(200, &json!({"header": {"functionExecutionStatus": status}}))
}

fn answer(status: u16, body: &Value) -> Reply {
    Reply::new(status, body.to_string())
}

impl Call {
    /// Whether it reads an index.
    pub(crate) fn is_index_query(&self) -> bool {
        self.operation == "Query" && self.body.windows(11).any(|part| part == b"\"IndexName\"")
    }
}
