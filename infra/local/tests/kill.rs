//! The real `simswap` process, killed, stopped and started again: what was accepted goes on. How a swap goes is in the journeys.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "clippy does not see that all of this is test code"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use domain::{Iccid, Msisdn, SmDpAddress};
use edge::ClockAndRng;
use local::dynoxide::Database;
use local::dynoxide::actions::scan::ScanRequest;
use mail_parser::MessageParser;
use serde_json::{Value, json};
use simulators::{MobileNetwork, ProfileState, Smdp};
use tempfile::TempDir;

const CODE: &str = "8E9!#";
/// How long an actor waits before it looks again.
const PAUSE: Duration = Duration::from_millis(20);
/// Nothing takes longer, but what is lost.
const PATIENCE: Duration = Duration::from_secs(60);

/// A data directory, a port, and whoever runs on them.
struct Site {
    directory: TempDir,
    port: u16,
    token: String,
}

/// A stack that runs, and dies with this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    /// `kill -9`.
    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Ctrl-C; it has to end by itself, soon and well.
    fn interrupt(mut self) {
        let process = self.0.id().to_string();
        let sent = Command::new("kill").args(["-INT", &process]).status();
        assert!(sent.unwrap().success());
        let start = Instant::now();
        let ended = loop {
            if let Some(ended) = self.0.try_wait().unwrap() {
                break ended;
            }
            assert!(start.elapsed() < Duration::from_secs(10), "it does not end");
            sleep(PAUSE);
        };
        assert_eq!(ended.code(), Some(0), "{ended}");
    }
}

impl Site {
    /// Nothing runs here yet; the token is printed all the same.
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        // Below the ports that the system hands out, so that nobody takes it while the stack is down.
        let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
        let first = 20_000 + fastrand::u16(..10_000);
        let port = (first..).find(free).unwrap();
        let mut site = Self {
            directory,
            port,
            token: String::new(),
        };
        let printed = site
            .command(&["token", "ADMIN", "--data-dir"])
            .arg(site.data_dir())
            .output()
            .unwrap();
        assert!(printed.status.success());
        site.token = String::from_utf8(printed.stdout).unwrap().trim().to_owned();
        site
    }

    fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_simswap"));
        command.args(arguments);
        command
    }

    fn stack(&self) -> Command {
        let mut command = self.command(&["--port", &self.port.to_string(), "--data-dir"]);
        command.arg(self.data_dir());
        command
    }

    /// Starts a stack, which is not ready when this returns.
    fn start(&self) -> Running {
        self.spawn(&mut self.stack())
    }

    fn spawn(&self, stack: &mut Command) -> Running {
        let log = File::options().create(true).append(true).open(self.log());
        let stack = stack.stdout(Stdio::piped()).stderr(log.unwrap());
        Running(stack.spawn().unwrap())
    }

    /// Starts a stack and waits until it is ready.
    fn start_ready(&self) -> Running {
        let mut started = self.start();
        let mut out = BufReader::new(started.0.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let ready = format!("simswap is ready at http://127.0.0.1:{}\n", self.port);
        assert_eq!(line, ready, "{}", self.read_log());
        // It writes on after this line: its end of the pipe has to stay.
        started.0.stdout = Some(out.into_inner());
        started
    }

    /// One request with the token; an error if the connection is refused or breaks before the whole answer is there.
    fn call(&self, method: &str, path: &str, headers: &str, body: &str) -> io::Result<(u16, Vec<u8>)> {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nauthorization: Bearer {}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n{headers}\r\n{body}",
            self.token,
            body.len()
        );
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let broken = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
        let body = answer.split_off(end.ok_or_else(broken)? + 4);
        let head = String::from_utf8(answer).unwrap().to_ascii_lowercase();
        let length = format!("\r\ncontent-length: {}\r\n", body.len());
        if !head.contains(&length) {
            return Err(broken());
        }
        Ok((head[9..12].parse().unwrap(), body))
    }

    /// Asks until there is an answer that `fits`, whoever dies meanwhile.
    fn await_answer<T>(&self, what: &str, path: &str, fits: impl Fn(&Value) -> Option<T>) -> T {
        let start = Instant::now();
        let mut seen = Value::Null;
        while start.elapsed() < PATIENCE {
            if let Ok((200, body)) = self.call("GET", path, "", "") {
                seen = serde_json::from_slice(&body).unwrap();
                if let Some(fitting) = fits(&seen) {
                    return fitting;
                }
            }
            sleep(PAUSE);
        }
        panic!("{what}: it stays {seen}\n{}", self.read_log());
    }

    fn await_swap(&self, id: &str, fits: impl Fn(&Value) -> bool) {
        let path = format!("/api/QueryActivation?id={id}");
        self.await_answer(id, &path, |page| fits(&page["results"][0]).then_some(()));
    }

    /// Asks for a swap until it is accepted: the same again as often as the connection breaks.
    fn submit(&self, line: &str, key: String, card: Option<String>) -> Swap {
        let request = match &card {
            Some(iccid) => json!({"subscriptionId": line, "newSimCardNumber": iccid}),
            None => {
                json!({"subscriptionId": line, "eSim": true, "email": "a@example.com", "confirmationCode": CODE})
            }
        };
        let answer = self.submit_once(&key, &request);
        let activation: Value = serde_json::from_slice(&answer).unwrap();
        let id = activation["id"].as_str().unwrap().to_owned();
        Swap {
            id,
            line: line.to_owned(),
            key,
            card,
            request,
            answer,
        }
    }

    fn submit_once(&self, key: &str, request: &Value) -> Vec<u8> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            let headers = format!("idempotency-key: {key}\r\n");
            match self.call("POST", "/api/SimSwapSubscription", &headers, &request.to_string()) {
                Ok((200, body)) => return body,
                Ok((status, body)) => {
                    panic!("{status} {}", String::from_utf8_lossy(&body))
                }
                Err(_) => sleep(PAUSE),
            }
        }
        panic!("no answer\n{}", self.read_log());
    }

    /// Plays the phones of all customers until it is `over`: each eSIM whose mail comes is installed.
    fn install_what_comes(&self, over: &AtomicBool, most: Duration) {
        let start = Instant::now();
        let mut installed = BTreeSet::new();
        while !over.load(Ordering::Relaxed) && start.elapsed() < most {
            sleep(PAUSE);
            let Ok((200, list)) = self.call("GET", "/local/mail", "", "") else {
                continue;
            };
            let list: Vec<Value> = serde_json::from_slice(&list).unwrap();
            for mail in list.iter().rev() {
                let id = mail["id"].as_str().unwrap();
                if installed.contains(id) {
                    continue;
                }
                let Ok((200, raw)) = self.call("GET", &format!("/local/mail/{id}"), "", "") else {
                    break;
                };
                let body = json!({"activationCode": activation_code(&raw), "confirmationCode": CODE}).to_string();
                match self.call("POST", "/local/phone/install", "", &body) {
                    // Used: of an install the answer was lost, or it is the second mail.
                    Ok((200 | 409, _)) => installed.insert(id.to_owned()),
                    Ok((status, body)) => {
                        panic!("{id}: {status} {}", String::from_utf8_lossy(&body))
                    }
                    Err(_) => break,
                };
            }
        }
    }

    /// What the stack said and did, for a person who looks into a failure.
    fn read_log(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }
}

/// A swap that was accepted.
struct Swap {
    id: String,
    line: String,
    key: String,
    /// The card that it goes to, if it is not to an eSIM.
    card: Option<String>,
    request: Value,
    answer: Vec<u8>,
}

fn activation_code(mail: &[u8]) -> String {
    let mail = MessageParser::default().parse(mail).unwrap();
    let text = mail.body_text(0).unwrap();
    let start = text.find("LPA:1$").expect("a code in the mail");
    let code = text[start..].split_whitespace().next();
    code.unwrap().to_owned()
}

/// A sample line, and a free card of its network.
const LINE: &str = "65a1b2c3d4e5f60718293a01";
const CARD: &str = "8931086000000001011";
/// All SIMs of the sample data: eight in use, and the stock.
const SAMPLE_SIMS: usize = 8 + 91;
/// Lines that are swapped at the same time, again and again.
const LINES: usize = 8;
/// SIMs of each kind that are left over.
const SPARE: usize = 5;

/// How much is asked, and how often the stack is ended meanwhile.
#[derive(Clone, Copy)]
struct Load {
    swaps: usize,
    stops: usize,
}

impl Load {
    /// `SWAPS` and `KILLS`.
    fn asked() -> Self {
        let number = |name, most: usize| env::var(name).map_or(most, |text| text.parse().expect("a number"));
        Self {
            swaps: number("SWAPS", 48),
            stops: number("KILLS", 15),
        }
    }

    /// Kinds of the swaps of a line, in order: two to an eSIM, then one to a card.
    fn of_line(self, line: usize) -> impl Iterator<Item = (usize, bool)> {
        let swaps = (line..self.swaps).step_by(LINES);
        swaps.map(move |swap| (swap, swap / LINES % 3 == 2))
    }

    /// Loads the lines, and SIMs for all swaps and some more.
    fn import(self, site: &Site) {
        let mut sims =
            "SIM_CARD_NUMBER;PUK1;PUK2;PIN1;PIN2;FORM_FACTOR;NETWORK;ACTIVATION_CODE;TAG;AUTO_ASSIGN".to_owned();
        let mut lines = "ID;PHONE_NUMBER;CUSTOMER;RESELLER;NETWORK;CURRENT_SIM;EMAIL;LANGUAGE;STATE;PORTING".to_owned();
        for line in 0..LINES {
            lines += &format!(
                "\n{};+4670000000{line};C-1;;STORM;89460100000000000{line:02};;en;ACTIVE;false",
                line_id(line)
            );
        }
        let all = (0..LINES).flat_map(|line| self.of_line(line));
        let spare = (0..SPARE).flat_map(|n| [(self.swaps + n, true), (self.swaps + n, false)]);
        for (swap, to_card) in all.chain(spare) {
            let (number, form) = if to_card {
                (card(swap), "NANO")
            } else {
                (format!("89460100000002{swap:05}"), "eSIM")
            };
            sims += &format!("\n{number};12345678;87654321;1234;5678;{form};STORM;;;true");
        }
        for (kind, text) in [("sims", sims), ("subscriptions", lines)] {
            let path = site.directory.path().join(kind);
            fs::write(&path, text).unwrap();
            let mut import = site.command(&["import", kind]);
            import.arg(&path).arg("--data-dir").arg(site.data_dir());
            let told = import.output().unwrap();
            let said = String::from_utf8_lossy(&told.stderr);
            assert!(told.status.success(), "{said}");
        }
    }
}

fn line_id(line: usize) -> String {
    format!("storm-{line}")
}

/// The card that a swap goes to.
fn card(swap: usize) -> String {
    format!("89460100000001{swap:05}")
}

/// What a storm left.
struct Left {
    swaps: Vec<Swap>,
    mails: Vec<Value>,
    stops: usize,
    /// From the first request to the end of the last swap.
    took: Duration,
}

/// Swaps all lines at once while `stop` ends the stack at random moments, spread over the work.
fn storm(site: &Site, load: Load, seed: u64, start: impl Fn(&Site) -> Running, stop: impl Fn(Running)) -> Left {
    load.import(site);
    let mut random = fastrand::Rng::with_seed(seed);
    let over = AtomicBool::new(false);
    let ended = AtomicUsize::new(0);
    let mut stops = 0;
    let began = Instant::now();
    thread::scope(|scope| {
        let most = PATIENCE * u32::try_from(2 + load.swaps / 50).unwrap();
        let (over, ended) = (&over, &ended);
        let phone = scope.spawn(move || site.install_what_comes(over, most));
        let callers: Vec<_> = (0..LINES)
            .map(|line| {
                scope.spawn(move || {
                    let id = line_id(line);
                    let swaps = load.of_line(line).map(|(swap, to_card)| {
                        let to = to_card.then(|| card(swap));
                        let swap = site.submit(&id, format!("swap-{swap}"), to);
                        site.await_swap(&swap.id, |swap| {
                            assert_ne!(swap["status"], "ERROR", "{swap}\n{}", site.read_log());
                            swap["status"] == "DONE"
                        });
                        ended.fetch_add(1, Ordering::Relaxed);
                        swap
                    });
                    swaps.collect::<Vec<_>>()
                })
            })
            .collect();
        let mut stack = start(site);
        while stops < load.stops && !callers.iter().all(|caller| caller.is_finished()) {
            if ended.load(Ordering::Relaxed) < stops * load.swaps / load.stops {
                sleep(PAUSE);
                continue;
            }
            sleep(Duration::from_millis(random.u64(100..1500)));
            stop(stack);
            stops += 1;
            stack = start(site);
        }
        let callers = callers.into_iter().map(|caller| caller.join());
        let swaps = callers.collect::<Result<Vec<_>, _>>();
        let took = began.elapsed();
        for swap in swaps.iter().flatten().flatten().filter(|swap| swap.card.is_none()) {
            site.await_swap(&swap.id, |swap| swap["info"]["delivery"] == "delivered");
        }
        over.store(true, Ordering::Relaxed);
        phone.join().unwrap();
        let swaps: Vec<Swap> = swaps.unwrap().into_iter().flatten().collect();
        for swap in &swaps {
            assert_eq!(site.submit_once(&swap.key, &swap.request), swap.answer);
        }
        let mails = site.await_answer("mails", "/local/mail", |list| list.as_array().cloned());
        stack.interrupt();
        Left {
            swaps,
            mails,
            stops,
            took,
        }
    })
}

/// All rows of the table of a stack that is down.
fn rows(site: &Site) -> Vec<Value> {
    let file = site.data_dir().join("dynamodb.sqlite");
    let database = Database::new(file.to_str().unwrap()).unwrap();
    let mut rows = Vec::new();
    let mut start = None;
    loop {
        let request = ScanRequest {
            table_name: "simswap".to_owned(),
            exclusive_start_key: start,
            ..ScanRequest::default()
        };
        let page = database.scan(request).unwrap();
        rows.extend(page.items.unwrap_or_default().iter().map(|row| json!(row)));
        start = page.last_evaluated_key;
        if start.is_none() {
            return rows;
        }
    }
}

fn text<'a>(row: &'a Value, name: &str) -> &'a str {
    row[name]["S"].as_str().unwrap_or_default()
}

/// What holds for every set of swaps that ended, however often the stack died meanwhile: of a stack that is down. Gives
/// how many mails were sent twice.
fn check_all_ended(site: &Site, Left { swaps, mails, .. }: &Left) -> usize {
    let rows = rows(site);
    let of_kind = |sk: &str| {
        let rows = rows.iter().filter(|row| text(row, "sk").starts_with(sk));
        rows.map(|row| (text(row, "pk")[2..].to_owned(), row))
            .collect::<BTreeMap<_, _>>()
    };
    let (lines, sims) = (of_kind("line"), of_kind("sim"));
    let (activations, deliveries) = (of_kind("activation"), of_kind("delivery#"));

    // One record for each swap that was accepted, and none besides.
    let accepted: BTreeSet<&String> = swaps.iter().map(|swap| &swap.id).collect();
    assert_eq!(accepted.len(), swaps.len());
    assert_eq!(activations.keys().collect::<BTreeSet<_>>(), accepted);
    assert_eq!(of_kind("idempotency").len(), swaps.len());

    // Each swap began where the last one of its line had ended, and the line and the network agree on the last one.
    let book = site.data_dir().join("peers/network.sqlite");
    let network = MobileNetwork::open(Some(&book), Duration::ZERO, ClockAndRng::real()).unwrap();
    let mut current = BTreeMap::new();
    for swap in swaps {
        let row = activations[&swap.id];
        assert_eq!(text(row, "phase"), "done", "{row}");
        assert_eq!(network.orders_of(&swap.id).unwrap(), 1, "{row}");
        if let Some(card) = &swap.card {
            assert_eq!(text(row, "newSim"), card);
        }
        let phone = Msisdn::parse(text(row, "phone")).unwrap();
        if let Some((before, _)) = current.insert(&swap.line, (text(row, "newSim"), phone)) {
            assert_eq!(text(row, "oldSim"), before);
        }
    }
    for (line, (sim, phone)) in &current {
        assert_eq!(text(lines[line.as_str()], "sim"), *sim);
        let at_the_network = network.sim_of(phone).unwrap().unwrap();
        assert_eq!(at_the_network.as_str(), *sim);
    }

    // Every SIM is free, or its line's, or used up.
    let mut states = BTreeMap::new();
    for (iccid, row) in &sims {
        *states.entry(text(row, "state")).or_insert(0) += 1;
        match (text(row, "state"), text(row, "holder")) {
            ("ACTIVATED", holder) => {
                let line = lines[holder.strip_prefix("L#").unwrap()];
                assert_eq!(text(line, "sim"), iccid);
            }
            ("FREE" | "DISABLED", "") => {}
            _ => panic!("{row}"),
        }
    }
    let free = SAMPLE_SIMS - 8 + 2 * SPARE;
    let expected = [("ACTIVATED", lines.len()), ("DISABLED", swaps.len()), ("FREE", free)];
    assert_eq!(states, BTreeMap::from(expected));
    assert!(lines.values().all(|line| line["swap"].is_null()));

    // One order of a profile and one mail for each eSIM; more mails only where SES's answer was lost.
    let book = site.data_dir().join("peers/smdp.sqlite");
    let address = SmDpAddress::parse("smdp.example.test").unwrap();
    let smdp = Smdp::open(Some(&book), address, "http://127.0.0.1:1", ClockAndRng::real()).unwrap();
    let mut mails_again = 0;
    for swap in swaps {
        let sim = Iccid::parse(text(activations[&swap.id], "newSim")).unwrap();
        let orders = smdp.orders_of(&sim).unwrap();
        let to_us = mails.iter().filter(|mail| mail["activationId"] == swap.id);
        let mails = to_us.count();
        if swap.card.is_some() {
            assert_eq!((orders, mails), (0, 0), "{}", swap.id);
            continue;
        }
        let delivery = deliveries[&swap.id];
        assert_eq!(text(delivery, "state"), "delivered", "{delivery}");
        let doubts = delivery["doubts"]["N"].as_str().unwrap_or("0");
        let doubts: usize = doubts.parse().unwrap();
        assert!((1..=1 + doubts.min(2)).contains(&mails), "{mails} {delivery}");
        assert_eq!(smdp.profile_state(&sim).unwrap(), ProfileState::Installed);
        assert_eq!(orders, 1, "{}", swap.id);
        mails_again += mails - 1;
    }

    let log = site.read_log();
    for never in [CODE, "LPA:1$", "panicked"] {
        assert!(!log.contains(never), "{never} in the log:\n{log}");
    }
    mails_again
}

#[test]
fn kills_lose_nothing_and_do_nothing_twice() {
    let site = Site::new();
    let seed = env::var("KILL_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("again with the same pauses: KILL_SEED={seed}");
    let load = Load::asked();
    // A kill may well come before the stack is ready.
    let left = storm(&site, load, seed, Site::start, Running::kill);
    assert_eq!(left.swaps.len(), load.swaps);
    let Left { stops, took, .. } = left;
    // The last swaps may end before the last kills.
    assert!(stops + 5 >= load.stops, "{stops}");
    let mails_again = check_all_ended(&site, &left);
    println!(
        "{} swaps in {took:?}, {stops} kills, {mails_again} second mails",
        load.swaps
    );
    assert!(mails_again <= LINES * stops);
}

#[test]
fn ctrl_c_leaves_no_doubt() {
    let site = Site::new();
    let load = Load { swaps: 24, stops: 10 };
    let left = storm(&site, load, 7, Site::start_ready, Running::interrupt);
    assert_eq!(left.swaps.len(), load.swaps);
    assert_eq!(check_all_ended(&site, &left), 0);
}

#[test]
fn one_stack_on_a_directory_and_its_data_goes_on() {
    let site = Site::new();
    let first = site.start_ready();
    let swap = site.submit(LINE, "once".to_owned(), None);
    let Output { status, stdout, stderr } = site.stack().output().unwrap();
    assert_eq!((status.code(), stdout.len()), (Some(1), 0));
    let said = String::from_utf8(stderr).unwrap();
    assert!(
        said.starts_with("simswap: another simswap runs on the data directory") && said.lines().count() == 1,
        "{said}"
    );
    first.interrupt();

    let second = site.start();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| site.install_what_comes(&over, 2 * PATIENCE));
        site.await_swap(&swap.id, |swap| swap["status"] == "DONE");
        over.store(true, Ordering::Relaxed);
    });
    second.interrupt();
}

/// What the peers still have to say when all die reaches us where we are after that.
#[test]
fn a_swap_goes_on_at_another_port() {
    let mut site = Site::new();
    let mut slow = site.stack();
    let first = site.spawn(slow.args(["--network-delay", "1s"]));
    let card = Some(CARD.to_owned());
    let swap = site.submit(LINE, "once".to_owned(), card);
    site.await_swap(&swap.id, |swap| swap["status"] == "BUSY");
    first.kill();

    // The order falls due while all is down.
    sleep(Duration::from_secs(1));
    site.port += 1;
    let second = site.start();
    site.await_swap(&swap.id, |swap| swap["status"] == "DONE");
    second.interrupt();
}

/// An import of SIMs that is killed on its way, and started again until all are there.
#[test]
fn a_killed_import_is_finished_by_another() {
    const SIMS: usize = 2000;
    let site = Site::new();
    let mut file = "SIM_CARD_NUMBER;PUK1;PUK2;PIN1;PIN2;FORM_FACTOR;NETWORK;ACTIVATION_CODE;TAG;AUTO_ASSIGN".to_owned();
    for number in 0..SIMS {
        file += &format!("\n8931777{number:012};12345678;87654321;1234;5678;NANO;KPN;;;true");
    }
    let path = site.directory.path().join("sims.csv");
    fs::write(&path, file).unwrap();
    let import = || {
        let mut import = site.command(&["import", "sims"]);
        import.arg(&path).arg("--data-dir").arg(site.data_dir());
        import
    };
    let stock = || {
        let rows = rows(&site);
        let kinds = ["sim", "key#"];
        kinds.map(|kind| rows.iter().filter(|row| text(row, "sk").starts_with(kind)).count())
    };

    // Killed as soon as the table's log has some rows, not all of them.
    let run = site.spawn(&mut import());
    let log = site.data_dir().join("dynamodb.sqlite-wal");
    let start = Instant::now();
    while fs::metadata(&log).map_or(0, |log| log.len()) < 2_000_000 {
        assert!(start.elapsed() < PATIENCE, "{}", site.read_log());
        sleep(Duration::from_millis(1));
    }
    run.kill();
    let [before, _] = stock();
    assert!((1..SIMS).contains(&before), "{before}");

    for (added, unchanged) in [(SIMS - before, before), (0, SIMS)] {
        let Output { status, stdout, stderr } = import().output().unwrap();
        assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
        assert_eq!(
            String::from_utf8(stdout).unwrap(),
            format!("{added} added, 0 updated, {unchanged} unchanged, 0 refused\n")
        );
        assert_eq!(stock(), [SIMS, 1]);
    }
}
