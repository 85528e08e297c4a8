//! Tests of the real `simswap` process, which is killed, stopped and restarted while it works. Accepted swaps have to
//! continue. The journeys in `tests/journeys` test how a swap proceeds.

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
use simulators::{MobileNetwork, ProfileState, SMDP_ADDRESS, Smdp};
use tempfile::TempDir;

/// The header of a file of SIMs.
const SIM_HEADER: &str = "SIM_CARD_NUMBER;PUK1;PUK2;PIN1;PIN2;FORM_FACTOR;NETWORK;ACTIVATION_CODE;TAG;AUTO_ASSIGN";
const CODE: &str = "8E9!#";
/// The interval at which a test polls.
const PAUSE: Duration = Duration::from_millis(20);
/// A time limit that only work that was lost exceeds.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// A data directory and a port, for the processes that run on them.
struct Site {
    directory: TempDir,
    port: u16,
    token: String,
}

/// A running process, which is killed when this value is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    /// Kills the process (`kill -9`).
    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Interrupts the process (Ctrl-C). It has to end with code 0 within ten seconds.
    fn interrupt(mut self) {
        let process = self.0.id().to_string();
        let sent = Command::new("kill").args(["-INT", &process]).status();
        assert!(sent.unwrap().success());
        let start = Instant::now();
        let ended = loop {
            if let Some(ended) = self.0.try_wait().unwrap() {
                break ended;
            }
            assert!(start.elapsed() < Duration::from_secs(10), "the process does not end");
            sleep(PAUSE);
        };
        assert_eq!(ended.code(), Some(0), "{ended}");
    }
}

impl Site {
    /// Creates the site and prints a token; nothing runs yet.
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        // Below the ports that the system assigns, so that no other process gets the port while the stack is down.
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

    fn stack_command(&self) -> Command {
        let mut command = self.command(&["--port", &self.port.to_string(), "--data-dir"]);
        command.arg(self.data_dir());
        command
    }

    /// Starts a stack, without waiting until it is ready.
    fn start(&self) -> Running {
        self.spawn(&mut self.stack_command())
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
        // The stack continues to write after this line, so the pipe has to stay open.
        started.0.stdout = Some(out.into_inner());
        started
    }

    /// Sends a request with the token. Returns an error if the connection is refused, or breaks before the response is
    /// complete.
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
        let mut response = Vec::new();
        stream.read_to_end(&mut response)?;
        let incomplete = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let end = response.windows(4).position(|four| four == b"\r\n\r\n");
        let body = response.split_off(end.ok_or_else(incomplete)? + 4);
        let head = String::from_utf8(response).unwrap().to_ascii_lowercase();
        let length = format!("\r\ncontent-length: {}\r\n", body.len());
        if !head.contains(&length) {
            return Err(incomplete());
        }
        Ok((head[9..12].parse().unwrap(), body))
    }

    /// Polls until a response is `accepted`, even if the stack is killed meanwhile.
    fn await_response<T>(&self, what: &str, path: &str, accepted: impl Fn(&Value) -> Option<T>) -> T {
        let start = Instant::now();
        let mut last = Value::Null;
        while start.elapsed() < TIME_LIMIT {
            if let Ok((200, body)) = self.call("GET", path, "", "") {
                last = serde_json::from_slice(&body).unwrap();
                if let Some(result) = accepted(&last) {
                    return result;
                }
            }
            sleep(PAUSE);
        }
        panic!("{what}: the last response is {last}\n{}", self.read_log());
    }

    fn await_swap(&self, id: &str, accepted: impl Fn(&Value) -> bool) {
        let path = format!("/api/QueryActivation?id={id}");
        self.await_response(id, &path, |page| accepted(&page["results"][0]).then_some(()));
    }

    /// Submits a swap. Repeats the request until there is a response.
    fn submit(&self, line: &str, key: String, card: Option<String>) -> Swap {
        let request = match &card {
            Some(iccid) => json!({"subscriptionId": line, "newSimCardNumber": iccid}),
            None => {
                json!({"subscriptionId": line, "eSim": true, "email": "a@example.com", "confirmationCode": CODE})
            }
        };
        let response = self.submit_with_key(&key, &request);
        let activation: Value = serde_json::from_slice(&response).unwrap();
        let id = activation["id"].as_str().unwrap().to_owned();
        Swap {
            id,
            line: line.to_owned(),
            key,
            card,
            request,
            response,
        }
    }

    fn submit_with_key(&self, key: &str, request: &Value) -> Vec<u8> {
        let start = Instant::now();
        while start.elapsed() < TIME_LIMIT {
            let headers = format!("idempotency-key: {key}\r\n");
            match self.call("POST", "/api/SimSwapSubscription", &headers, &request.to_string()) {
                Ok((200, body)) => return body,
                Ok((status, body)) => {
                    panic!("{status} {}", String::from_utf8_lossy(&body))
                }
                Err(_) => sleep(PAUSE),
            }
        }
        panic!("no response\n{}", self.read_log());
    }

    /// Plays the phones of all customers: installs every eSIM whose mail arrives, until `over` is set.
    fn install_esims(&self, over: &AtomicBool, most: Duration) {
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
                    // 409 if the response to an earlier installation was lost, or if this is a second mail.
                    Ok((200 | 409, _)) => installed.insert(id.to_owned()),
                    Ok((status, body)) => {
                        panic!("{id}: {status} {}", String::from_utf8_lossy(&body))
                    }
                    Err(_) => break,
                };
            }
        }
    }

    /// The log of all processes.
    fn read_log(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }
}

/// An accepted swap.
struct Swap {
    id: String,
    line: String,
    key: String,
    /// The new card; `None` if the swap is to an eSIM.
    card: Option<String>,
    request: Value,
    /// The body of the response.
    response: Vec<u8>,
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
/// All SIMs of the sample data: eight in use, and the free ones.
const SAMPLE_SIMS: usize = 8 + 91;
/// The number of lines that are swapped concurrently.
const LINES: usize = 8;
/// The number of SIMs of each kind that no swap uses.
const SPARE: usize = 5;

/// The number of swaps, and how often the stack is stopped meanwhile.
#[derive(Clone, Copy)]
struct Load {
    swaps: usize,
    stops: usize,
}

impl Load {
    /// The load from the environment variables `SWAPS` and `KILLS`.
    fn from_environment() -> Self {
        let number = |name, default: usize| env::var(name).map_or(default, |text| text.parse().expect("a number"));
        Self {
            swaps: number("SWAPS", 48),
            stops: number("KILLS", 15),
        }
    }

    /// The swaps of a line in order, and whether each is to a card. Two swaps to an eSIM are followed by one to a card.
    fn of_line(self, line: usize) -> impl Iterator<Item = (usize, bool)> {
        let swaps = (line..self.swaps).step_by(LINES);
        swaps.map(move |swap| (swap, swap / LINES % 3 == 2))
    }

    /// Imports the lines, and SIMs for all swaps and some more.
    fn import(self, site: &Site) {
        let mut sims = SIM_HEADER.to_owned();
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
            let output = import.output().unwrap();
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{errors}");
        }
    }
}

fn line_id(line: usize) -> String {
    format!("storm-{line}")
}

/// The card to which a swap moves its line.
fn card(swap: usize) -> String {
    format!("89460100000001{swap:05}")
}

/// The result of a storm.
struct Finished {
    swaps: Vec<Swap>,
    mails: Vec<Value>,
    stops: usize,
    /// The time from the first request to the end of the last swap.
    took: Duration,
}

/// Swaps all lines concurrently, while `stop` stops the stack at random moments, spread over the work.
fn storm(site: &Site, load: Load, seed: u64, start: impl Fn(&Site) -> Running, stop: impl Fn(Running)) -> Finished {
    load.import(site);
    let mut random = fastrand::Rng::with_seed(seed);
    let over = AtomicBool::new(false);
    let ended = AtomicUsize::new(0);
    let mut stops = 0;
    let began = Instant::now();
    thread::scope(|scope| {
        let most = TIME_LIMIT * u32::try_from(2 + load.swaps / 50).unwrap();
        let (over, ended) = (&over, &ended);
        let phone = scope.spawn(move || site.install_esims(over, most));
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
            assert_eq!(site.submit_with_key(&swap.key, &swap.request), swap.response);
        }
        let mails = site.await_response("mails", "/local/mail", |list| list.as_array().cloned());
        stack.interrupt();
        Finished {
            swaps,
            mails,
            stops,
            took,
        }
    })
}

/// All rows of the table. No stack may be running.
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

/// Checks what has to hold when all swaps have ended, however often the stack was stopped. No stack may be running.
/// Returns the number of mails that were sent more than once.
fn check_all_ended(site: &Site, Finished { swaps, mails, .. }: &Finished) -> usize {
    let rows = rows(site);
    let of_kind = |sk: &str| {
        let rows = rows.iter().filter(|row| text(row, "sk").starts_with(sk));
        rows.map(|row| (text(row, "pk")[2..].to_owned(), row))
            .collect::<BTreeMap<_, _>>()
    };
    let (lines, sims) = (of_kind("line"), of_kind("sim"));
    let (activations, deliveries) = (of_kind("activation"), of_kind("delivery#"));

    // There is exactly one record for each accepted swap.
    let accepted: BTreeSet<&String> = swaps.iter().map(|swap| &swap.id).collect();
    assert_eq!(accepted.len(), swaps.len());
    assert_eq!(activations.keys().collect::<BTreeSet<_>>(), accepted);
    assert_eq!(of_kind("idempotency").len(), swaps.len());

    // Each swap began with the SIM of the previous swap of its line, and the line and the network agree on the last
    // SIM.
    let database = site.data_dir().join("peers/network.sqlite");
    let network = MobileNetwork::open(Some(&database), Duration::ZERO, ClockAndRng::real()).unwrap();
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
        let sim_at_network = network.sim_of(phone).unwrap().unwrap();
        assert_eq!(sim_at_network.as_str(), *sim);
    }

    // Every SIM is free, in use by its line, or disabled.
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

    // There is one profile order and one mail for each eSIM, and a second mail only if a response of SES was lost.
    let database = site.data_dir().join("peers/smdp.sqlite");
    let address = SmDpAddress::parse(SMDP_ADDRESS).unwrap();
    let smdp = Smdp::open(Some(&database), address, "http://127.0.0.1:1", ClockAndRng::real()).unwrap();
    let mut extra_mails = 0;
    for swap in swaps {
        let sim = Iccid::parse(text(activations[&swap.id], "newSim")).unwrap();
        let orders = smdp.orders_of(&sim).unwrap();
        let mails_of_swap = mails.iter().filter(|mail| mail["activationId"] == swap.id);
        let mails = mails_of_swap.count();
        if swap.card.is_some() {
            assert_eq!((orders, mails), (0, 0), "{}", swap.id);
            continue;
        }
        let delivery = deliveries[&swap.id];
        assert_eq!(text(delivery, "state"), "delivered", "{delivery}");
        let unknown = delivery["doubts"]["N"].as_str().unwrap_or("0");
        let unknown: usize = unknown.parse().unwrap();
        assert!((1..=1 + unknown.min(2)).contains(&mails), "{mails} {delivery}");
        assert_eq!(smdp.profile_state(&sim).unwrap(), ProfileState::Installed);
        assert_eq!(orders, 1, "{}", swap.id);
        extra_mails += mails - 1;
    }

    let log = site.read_log();
    for forbidden in [CODE, "LPA:1$", "panicked"] {
        assert!(!log.contains(forbidden), "{forbidden} in the log:\n{log}");
    }
    extra_mails
}

#[test]
fn kills_lose_nothing_and_do_nothing_twice() {
    let site = Site::new();
    let seed = env::var("KILL_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("repeat with the same pauses: KILL_SEED={seed}");
    let load = Load::from_environment();
    // A kill may happen before the stack is ready.
    let finished = storm(&site, load, seed, Site::start, Running::kill);
    assert_eq!(finished.swaps.len(), load.swaps);
    let Finished { stops, took, .. } = finished;
    // All swaps may end before the last kills.
    assert!(stops + 5 >= load.stops, "{stops}");
    let extra_mails = check_all_ended(&site, &finished);
    println!(
        "{} swaps in {took:?}, {stops} kills, {extra_mails} second mails",
        load.swaps
    );
    assert!(extra_mails <= LINES * stops);
}

#[test]
fn ctrl_c_leaves_no_unknown_outcome() {
    let site = Site::new();
    let load = Load { swaps: 24, stops: 10 };
    let finished = storm(&site, load, 7, Site::start_ready, Running::interrupt);
    assert_eq!(finished.swaps.len(), load.swaps);
    assert_eq!(check_all_ended(&site, &finished), 0);
}

#[test]
fn only_one_stack_uses_a_directory_and_a_restart_continues_its_swaps() {
    let site = Site::new();
    let first = site.start_ready();
    let swap = site.submit(LINE, "once".to_owned(), None);
    let Output { status, stdout, stderr } = site.stack_command().output().unwrap();
    assert_eq!((status.code(), stdout.len()), (Some(1), 0));
    let error = String::from_utf8(stderr).unwrap();
    assert!(
        error.starts_with("simswap: another simswap runs on the data directory") && error.lines().count() == 1,
        "{error}"
    );
    first.interrupt();

    let second = site.start();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| site.install_esims(&over, 2 * TIME_LIMIT));
        site.await_swap(&swap.id, |swap| swap["status"] == "DONE");
        over.store(true, Ordering::Relaxed);
    });
    second.interrupt();
}

/// Callbacks that wait when the stack is killed reach the service at its new port.
#[test]
fn a_swap_continues_at_another_port() {
    let mut site = Site::new();
    let mut slow = site.stack_command();
    let first = site.spawn(slow.args(["--network-delay", "1s"]));
    let card = Some(CARD.to_owned());
    let swap = site.submit(LINE, "once".to_owned(), card);
    site.await_swap(&swap.id, |swap| swap["status"] == "BUSY");
    first.kill();

    // The order becomes due while nothing runs.
    sleep(Duration::from_secs(1));
    site.port += 1;
    let second = site.start();
    site.await_swap(&swap.id, |swap| swap["status"] == "DONE");
    second.interrupt();
}

/// An import that is killed is started again until it has added all SIMs.
#[test]
fn a_killed_import_is_finished_by_the_next() {
    const SIMS: usize = 2000;
    let site = Site::new();
    let mut file = SIM_HEADER.to_owned();
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

    // Killed as soon as the log of the table has some of the rows.
    let run = site.spawn(&mut import());
    let log = site.data_dir().join("dynamodb.sqlite-wal");
    let start = Instant::now();
    while fs::metadata(&log).map_or(0, |log| log.len()) < 2_000_000 {
        assert!(start.elapsed() < TIME_LIMIT, "{}", site.read_log());
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
            format!("{added} added, 0 updated, {unchanged} unchanged, 0 rejected\n")
        );
        assert_eq!(stock(), [SIMS, 1]);
    }
}

/// The commands of the section on stock files print what the section says.
#[test]
fn the_import_examples_can_be_pasted() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let readme = fs::read_to_string(root.join("infra/local/README.md")).unwrap();
    let block = readme.split("```").find(|block| block.contains("-- import sims"));
    let site = Site::new();
    let stack = site.start_ready();
    let mut commands = 0;
    for example in block.unwrap().split("$ cargo run -- ").skip(1) {
        let (command, output) = example.split_once('\n').unwrap();
        let command: Vec<_> = command.split(' ').collect();
        let mut run = site.command(&command);
        run.current_dir(&root).arg("--data-dir").arg(site.data_dir());
        let printed = run.output().unwrap();
        let stdout = String::from_utf8(printed.stdout).unwrap();
        match output.strip_suffix("…\n") {
            Some(start) => assert!(stdout.starts_with(start), "{stdout}"),
            None => assert_eq!(stdout, output),
        }
        assert_eq!(String::from_utf8(printed.stderr).unwrap(), "", "{command:?}");
        commands += 1;
    }
    assert_eq!(commands, 4);
    stack.interrupt();
}

/// An import from standard input. A quote that is not closed ends it, whatever the options, and nothing is written.
#[test]
fn an_import_ends_at_a_quote_that_is_not_closed() {
    let site = Site::new();
    let [first, second, third] =
        ["3017", "3025", "3033"].map(|end| format!("893108600000000{end};;;;;NANO;KPN;;T 1;TRUE;"));
    let open = second.replace("T 1", "\"T 1");
    let quote = "simswap: standard input:3: a quote that opens on this line is not closed\n";
    let wrong = "standard input:3: AUTO_ASSIGN must be true or false\n";
    let faulty = second.replace("TRUE", "ja");
    let skipped = "1 added, 0 updated, 1 unchanged, 0 rejected, 1 faulty skipped\n";
    for (lines, options, code, stdout, stderr) in [
        ([&first, &open, &third], &["--skip-faulty"][..], 1, "", quote),
        ([&first, &open, &third], &[], 1, "", quote),
        (
            [&first, &first, &first],
            &["--skip-faulty"],
            0,
            "1 added",
            "standard input:3: SIM_CARD_NUMBER is on line 2",
        ),
        ([&first, &faulty, &third], &["--skip-faulty"], 0, skipped, wrong),
        ([&first, &faulty, &third], &[], 1, "", wrong),
    ] {
        let mut import = site.command(&["import", "sims", "-", "--data-dir"]);
        import.arg(site.data_dir()).args(options);
        import
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut import = import.spawn().unwrap();
        let text = format!("{SIM_HEADER};\n{}\n{}\n{}\n", lines[0], lines[1], lines[2]);
        import.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let Output {
            status,
            stdout: out,
            stderr: error,
        } = import.wait_with_output().unwrap();
        let (out, error) = (String::from_utf8(out).unwrap(), String::from_utf8(error).unwrap());
        assert_eq!(status.code(), Some(code), "{error}");
        assert!(out.starts_with(stdout) && out.is_empty() == stdout.is_empty(), "{out}");
        assert!(error.starts_with(stderr), "{error}");
    }
}
