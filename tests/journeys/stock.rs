//! The operator's commands: files of SIMs and lines imported into a stack's table, and rows shown with their secrets
//! masked.

use std::path::{Path, PathBuf};

use domain::{FormFactor, Holder, Line, LineState, SimState};
use jiff::tz::{TimeZone, offset};
use operator::import::{Counts, Kind, Report, import};
use operator::show;
use tests::stock::{active_line, free_sim};
use tests::{FREE_CARD, TestStack, card, esim, line};

const SIMS: &str = "SIM_CARD_NUMBER;PUK1;PUK2;PIN1;PIN2;FORM_FACTOR;NETWORK;ACTIVATION_CODE;TAG;AUTO_ASSIGN";
const LINES: &str = "ID;PHONE_NUMBER;CUSTOMER;RESELLER;NETWORK;CURRENT_SIM;EMAIL;LANGUAGE;STATE;PORTING";

/// The result of an import: the counts, and the lines that were reported as faulty or rejected.
type Loaded = (Counts, Vec<(u64, String)>);

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, header: &str, lines: &[&str]) -> PathBuf {
        let path = self.0.path().join("file.csv");
        std::fs::write(&path, format!("{header}\n{}\n", lines.join("\n"))).unwrap();
        path
    }
}

async fn load(service: &TestStack, kind: Kind, path: &Path, skip_faulty: bool) -> Loaded {
    let mut reported = Vec::new();
    let mut report = |report| match report {
        Report::Faulty(line, reason) | Report::Swap(line, reason) | Report::Rejected(line, reason) => {
            reported.push((line, reason))
        }
        Report::Checked(..) | Report::Written(..) | Report::Warning(..) => {}
    };
    let counts = import(kind, path, skip_faulty, &service.stack.store, &mut report)
        .await
        .unwrap();
    (counts, reported)
}

/// The warnings of an import.
async fn warnings(service: &TestStack, kind: Kind, path: &Path) -> Vec<(u64, String)> {
    let mut warnings = Vec::new();
    let mut report = |report| {
        if let Report::Warning(line, text) = report {
            warnings.push((line, text));
        }
    };
    let imported = import(kind, path, false, &service.stack.store, &mut report).await;
    imported.unwrap();
    warnings
}

fn with_reasons(lines: &[(u64, &str)]) -> Vec<(u64, String)> {
    let owned = lines.iter().map(|(line, reason)| (*line, (*reason).to_owned()));
    owned.collect()
}

#[tokio::test]
async fn every_faulty_line_is_reported_and_nothing_is_written_unless_they_are_skipped() {
    let (service, files) = (TestStack::new().await, Files::new());
    let path = files.write(
        SIMS,
        &[
            "8931777000000000001;12345678;87654321;1234;5678;NANO;KPN;;;true",
            "8931777000000000002;1;2;1234;5678;NANO;KPN;;;true",
            "8931777000000000001;;;;;eSIM;KPN;;;false",
            "8931777000000000003;;;;;NANO;KPN;;;false",
            "8931777000000000004;;;;;nano;;;;",
        ],
    );
    let faults = with_reasons(&[
        (3, "PUK1 must be 8 digits; PUK2 must be 8 digits"),
        (4, "SIM_CARD_NUMBER is on line 2 already"),
        (
            6,
            "FORM_FACTOR must be MINI_MICRO, NANO, MINI_MICRO_NANO or eSIM; NETWORK is empty; AUTO_ASSIGN is empty",
        ),
    ]);
    let before = service.table();
    let (counts, seen) = load(&service, Kind::Sims, &path, false).await;
    assert_eq!((counts.faulty, counts.added), (3, 0));
    assert_eq!(seen, faults);
    assert_eq!(service.table(), before);

    let (counts, seen) = load(&service, Kind::Sims, &path, true).await;
    assert_eq!((counts.faulty, counts.added, counts.rejected), (3, 2, 0));
    assert_eq!(seen, faults);
    // Two SIMs, and the pool of the SIM that can be assigned automatically.
    assert_eq!(service.table().len(), before.len() + 2 + 1);
    let sim = service.sim("8931777000000000001").await;
    assert_eq!((sim.state, sim.auto_assign), (SimState::Free, true));
}

#[tokio::test]
async fn a_repeated_import_of_sims_changes_nothing_whatever_their_state() {
    let (service, files) = (TestStack::new().await, Files::new());
    let path = files.write(
        &format!("{SIMS};IMSI;RESELLER"),
        &[
            "8931777000000000001;12345678;87654321;1234;5678;NANO;KPN;LPA:1$a$b;T1;true;204081234567890;R-10",
            "8931777000000000002;;;;;MINI_MICRO;KPN;;;false;;",
        ],
    );
    let (counts, _) = load(&service, Kind::Sims, &path, false).await;
    assert_eq!(
        counts,
        Counts {
            added: 2,
            ..Counts::default()
        }
    );
    // Without reseller and IMSI, the SIM serves any line on its network.
    let id = service.start_swap(&card(line::ANNA, "8931777000000000002")).await;
    service.await_status(&id, "DONE").await;
    let before = service.table();
    let (counts, _) = load(&service, Kind::Sims, &path, false).await;
    assert_eq!(
        counts,
        Counts {
            unchanged: 2,
            ..Counts::default()
        }
    );
    assert_eq!(service.table(), before);
}

#[tokio::test]
async fn lines_are_imported_with_numbers_and_sims_and_a_repeat_changes_nothing() {
    let (service, files) = (TestStack::new().await, Files::new());
    let in_stock = "8931086000000002019";
    let path = files.write(
        LINES,
        &[
            "NEW-1;06-12349901;C-900;R-10;KPN;8931777000000000011;new@example.com;nl;ACTIVE;false",
            &format!("NEW-2;+31612349902;C-900;;KPN;{in_stock};;;BLOCKED;true"),
        ],
    );
    let (counts, _) = load(&service, Kind::Subscriptions, &path, false).await;
    assert_eq!(
        counts,
        Counts {
            added: 2,
            ..Counts::default()
        }
    );
    for (id, iccid) in [("NEW-1", "8931777000000000011"), ("NEW-2", in_stock)] {
        let line = service.line(id).await;
        assert_eq!(line.current_sim.as_str(), iccid);
        let sim = service.sim(iccid).await;
        assert_eq!(sim.state, SimState::Activated);
        assert_eq!(sim.holder, Some(Holder::Line(line.id)));
    }
    // The SIM from stock keeps its stored fields, and belongs to this line alone.
    let sealed = show::sim(&service.stack.store, &TimeZone::UTC, in_stock).await.unwrap();
    assert!(sealed.contains("PUK 1"), "{sealed}");
    let before = service.table();
    assert!(!before.iter().any(|row| row.contains(in_stock) && row.contains("shelf")));

    let (counts, _) = load(&service, Kind::Subscriptions, &path, false).await;
    assert_eq!(
        counts,
        Counts {
            unchanged: 2,
            ..Counts::default()
        }
    );
    assert_eq!(service.table(), before);

    let id = service.start_swap(&card("NEW-1", FREE_CARD)).await;
    service.await_status(&id, "DONE").await;
    let (counts, _) = load(&service, Kind::Subscriptions, &path, false).await;
    assert_eq!(
        counts,
        Counts {
            unchanged: 2,
            ..Counts::default()
        }
    );
    assert_eq!(service.line("NEW-1").await.current_sim.as_str(), FREE_CARD);
}

#[tokio::test]
async fn a_line_is_updated_while_a_swap_is_open_and_blocking_it_stops_the_swap() {
    let (service, files) = (TestStack::new().await, Files::new());
    let id = service.start_swap(&esim(line::ANNA)).await;
    let code = service.await_waiting(&id).await;
    let before = service.line(line::ANNA).await;
    // The phone number, owner, network and SIM in the file differ, and stay as they are.
    let row = format!(
        "{};+31612340000;C-1;R-1;TDC;8931777000000000099;other@example.com;fr;BLOCKED;true",
        line::ANNA
    );
    let path = files.write(LINES, &[&row.replace("BLOCKED;true", "ACTIVE;false")]);
    let (counts, reported) = load(&service, Kind::Subscriptions, &path, false).await;
    assert_eq!((counts.updated, reported), (1, Vec::new()));
    let after = service.line(line::ANNA).await;
    assert_eq!(after.open_swap, before.open_swap);

    let path = files.write(LINES, &[&row]);
    let (counts, reported) = load(&service, Kind::Subscriptions, &path, false).await;
    assert_eq!(
        counts,
        Counts {
            updated: 1,
            ..Counts::default()
        }
    );
    let stopped = format!("its open swap {id} is stopped");
    assert_eq!(reported, with_reasons(&[(2, &stopped)]));
    let after = service.line(line::ANNA).await;
    assert_eq!((after.state, after.porting), (LineState::Blocked, true));
    assert_eq!(after.language.as_str(), "fr");
    assert_eq!(after.email.as_ref().map(|e| e.as_str()), Some("other@example.com"));
    assert_eq!(
        (&after.phone, &after.customer, &after.reseller, &after.network),
        (&before.phone, &before.customer, &before.reseller, &before.network)
    );
    assert_eq!(after.current_sim, before.current_sim);
    service.await_status(&id, "ERROR").await;
    assert_eq!(service.install(&code, "8E9!#").await.status, 404);

    // The lock changes only if the file has its column, and an empty address deletes the address.
    let hanna = "+31612345608;C-100;R-10;KPN;8931086000000000062;;nl;ACTIVE;false";
    for (header, end, locked, updated) in [
        (LINES.to_owned(), "", true, 1),
        (format!("{LINES};LOCKED"), ";", true, 0),
        (format!("{LINES};LOCKED"), ";false", false, 1),
    ] {
        let path = files.write(&header, &[&format!("{};{hanna}{end}", line::HANNA)]);
        let (counts, _) = load(&service, Kind::Subscriptions, &path, false).await;
        assert_eq!(counts.updated, updated, "{end:?}");
        let line = service.line(line::HANNA).await;
        assert_eq!((line.locked, line.email), (locked, None), "{end:?}");
    }
}

#[tokio::test]
async fn columns_that_an_import_does_not_change_are_warnings() {
    let (service, files) = (TestStack::new().await, Files::new());
    let sim = free_sim("KPN", "8931086000000009006", FormFactor::Nano);
    let controls = Line {
        customer: "C-\u{1b}[2J".to_owned(),
        ..active_line("L-1", "+31612349901", &sim)
    };
    service.stack.store.add_line(&controls, sim).await.unwrap();
    let set = |line: &str, option: &str| format!("'cargo run -- line set {line} --{option}' changes it");
    let stays = |column: &str, file: &str, table: &str, how: &str| {
        format!("{column} is {file} in the file and stays {table} in the table; {how}")
    };
    let anna_differs = [
        stays(
            "PHONE_NUMBER",
            "+31612340000",
            "+31612345601",
            &set(line::ANNA, "phone"),
        ),
        stays("CUSTOMER", "C-1", "C-100", &set(line::ANNA, "customer")),
        stays("RESELLER", "empty", "R-10", &set(line::ANNA, "no-reseller")),
        stays("NETWORK", "TDC", "KPN", "the network of a line cannot change"),
        stays("CURRENT_SIM", FREE_CARD, "8931086000000000013", "a swap changes it"),
    ];
    let other_customer = stays("CUSTOMER", "C-1", "C-\\u{1b}[2J", &set("L-1", "customer"));
    let other_reseller = stays("RESELLER", "R-1", "empty", &set("L-1", "reseller"));
    let same = "06-12345601;C-100;R-10;KPN;8931086000000000013";
    let other = format!("+31612340000;C-1;;TDC;{FREE_CARD}");
    // The e-mail address changes from line to line, so most rows are also updates.
    for (row, end, expected) in [
        (format!("{};{same}", line::ANNA), "anna@example.com", &[][..]),
        (format!("{};{same}", line::ANNA), "new@example.com", &[]),
        (format!("{};{other}", line::ANNA), "new@example.com", &anna_differs),
        (format!("{};{other}", line::ANNA), "anna@example.com", &anna_differs),
        (
            "L-1;+31612349901;C-1;R-1;KPN;8931086000000009006".to_owned(),
            "",
            &[other_customer, other_reseller],
        ),
    ] {
        let before = service.line(row.split(';').next().unwrap()).await;
        let path = files.write(LINES, &["", &format!("{row};{end};nl;ACTIVE;false")]);
        let expected: Vec<_> = expected.iter().map(|text| (3, text.clone())).collect();
        assert_eq!(warnings(&service, Kind::Subscriptions, &path).await, expected, "{row}");
        let after = service.line(before.id.as_str()).await;
        assert_eq!(
            (
                after.phone,
                after.customer,
                after.reseller,
                after.network,
                after.current_sim
            ),
            (
                before.phone,
                before.customer,
                before.reseller,
                before.network,
                before.current_sim
            )
        );
    }
}

#[tokio::test]
async fn columns_of_an_existing_sim_that_differ_are_warnings() {
    const SIM: &str = "8931086000000009006";
    let (service, files) = (TestStack::new().await, Files::new());
    let write = |row: &str| files.write(&format!("{SIMS};IMSI;RESELLER"), &[&format!("{SIM};{row}")]);
    let row = "12345678;87654321;1234;5678;NANO;KPN;LPA:1$a$b;T1;true;204081234567890;R-10";
    let other = "11111111;;1111;5678;eSIM;TDC;LPA:1$c$d;;false;;R-20";
    let differs = |how: &str| -> Vec<(u64, String)> {
        let others = [
            ("FORM_FACTOR", "eSIM", "NANO"),
            ("NETWORK", "TDC", "KPN"),
            ("TAG", "empty", "T1"),
            ("AUTO_ASSIGN", "false", "true"),
            ("IMSI", "empty", "204081234567890"),
            ("RESELLER", "R-20", "R-10"),
        ]
        .map(|(column, file, table)| format!("{column} is {file} in the file and stays {table} in the table; {how}"));
        others.map(|text| (2, text)).into()
    };
    let free = format!("'cargo run -- sim remove {SIM}' and another import change it");
    for (row, expected) in [(row, Vec::new()), (row, Vec::new()), (other, differs(&free))] {
        let path = write(row);
        assert_eq!(warnings(&service, Kind::Sims, &path).await, expected, "{row}");
    }
    let id = service.start_swap(&card(line::ANNA, SIM)).await;
    service.await_status(&id, "DONE").await;
    let before = service.sim(SIM).await;
    let path = write(other);
    assert_eq!(
        warnings(&service, Kind::Sims, &path).await,
        differs("a SIM that is or was in use does not change")
    );
    assert_eq!(service.sim(SIM).await, before);
}

#[tokio::test]
async fn a_sim_that_a_spreadsheet_has_rounded_is_imported_with_a_warning() {
    let (service, files) = (TestStack::new().await, Files::new());
    let rows = [
        "8931086000012340000;;;;;NANO;KPN;;;TRUE",
        "8931086000000009006;;;;;NANO;KPN;;;TRUE",
    ];
    let path = files.write(SIMS, &rows);
    let warning = "SIM_CARD_NUMBER ends in zeros and its check digit is wrong, so a spreadsheet has probably rounded it; \
                   format the column as text, and enter the numbers again";
    assert_eq!(
        warnings(&service, Kind::Sims, &path).await,
        with_reasons(&[(2, warning)])
    );
    assert_eq!(service.sim("8931086000012340000").await.state, SimState::Free);
}

#[tokio::test]
async fn rejected_rows_are_reported_by_line_and_the_rest_is_written() {
    let (service, files) = (TestStack::new().await, Files::new());
    let open = service.start_swap(&esim(line::BRAM)).await;
    service.await_waiting(&open).await;
    let reserved = service.record(&open).await.new_sim;
    let done = service.start_swap(&card(line::ANNA, FREE_CARD)).await;
    service.await_status(&done, "DONE").await;
    let row = |id: &str, phone: &str, sim: &str| format!("{id};{phone};C-900;;KPN;{sim};;;ACTIVE;false");
    let rows = [
        row("N-1", "+31612349901", FREE_CARD),
        row("N-2", "+31612349902", reserved.as_str()),
        row("N-3", "+31612349903", "8931086000000000013"),
        row("N-4", "+31612349904", "8945020000000001010"),
        row("N-5", "+31612345603", "8931777000000000015"),
        row("N-6", "+31612349906", "8931777000000000016"),
    ];
    let path = files.write(LINES, &rows.each_ref().map(String::as_str));
    let before = service.table();
    let (counts, seen) = load(&service, Kind::Subscriptions, &path, false).await;
    assert_eq!(
        counts,
        Counts {
            added: 1,
            rejected: 5,
            ..Counts::default()
        }
    );
    let by_anna = format!("CURRENT_SIM is the one of line {}", line::ANNA);
    let by_swap = format!("CURRENT_SIM is reserved by swap {open}");
    let by_carla = format!("PHONE_NUMBER is the one of line {}", line::CARLA);
    assert_eq!(
        seen,
        with_reasons(&[
            (2, &by_anna),
            (3, &by_swap),
            (4, "CURRENT_SIM is DISABLED in stock"),
            (5, "CURRENT_SIM is in stock for network TELENOR"),
            (6, &by_carla),
        ])
    );
    // Of the rejected rows, no line, phone number or SIM was written.
    assert_eq!(service.table().len(), before.len() + 3);
}

#[tokio::test]
async fn many_sims_are_loaded_and_a_second_run_finishes_what_a_first_began() {
    const MANY: u64 = 600;
    let (service, files) = (TestStack::new().await, Files::new());
    let rows: Vec<_> = (0..MANY)
        .map(|n| format!("89317770000{n:08};12345678;87654321;1234;5678;NANO;TELENOR;;;true"))
        .collect();
    let rows: Vec<_> = rows.iter().map(String::as_str).collect();
    let before = service.sims(SimState::Free).len();
    let part = files.write(SIMS, &rows[100..200]);
    load(&service, Kind::Sims, &part, false).await;
    let whole = files.write(SIMS, &rows);
    let (counts, seen) = load(&service, Kind::Sims, &whole, false).await;
    assert_eq!((counts.added, counts.unchanged), (MANY - 100, 100));
    assert!(seen.is_empty());
    assert_eq!(service.sims(SimState::Free).len(), before + MANY as usize);
}

#[tokio::test]
async fn what_is_shown_has_the_timeline_and_no_secret() {
    let service = TestStack::new().await;
    let store = &service.stack.store;
    let id = service.start_swap(&esim(line::ANNA)).await;
    let code = service.await_waiting(&id).await;
    let matching_id = code.split('$').nth(2).unwrap();

    let zone = TimeZone::fixed(offset(5));
    let swap = show::swap(store, &zone, &id).await.unwrap();
    let has = |text: &str, words: &[&str]| {
        let fits = |line: &str| {
            line.split("  ")
                .map(str::trim)
                .filter(|w| !w.is_empty())
                .eq(words.iter().copied())
        };
        assert!(text.lines().any(fits), "{words:?} in\n{text}");
    };
    has(&swap, &["swap", &id]);
    has(&swap, &["status", "BUSY"]);
    has(&swap, &["confirmation code", "##########"]);
    has(&swap, &["matching id", "##########"]);
    has(&swap, &["WHEN", "WHO", "WHAT", "DETAIL"]);
    let asked = service.record(&id).await.timeline[0].at;
    let asked = asked.to_zoned(zone.clone()).strftime("%FT%T%.3f+05:00").to_string();
    has(&swap, &[&asked, "ADMIN test", "requested"]);
    assert!(!swap.contains("+00:00"), "{swap}");
    assert!(swap.contains("MAIL") && swap.contains("customer@example.com"), "{swap}");
    for secret in ["8E9!#", matching_id] {
        assert!(!swap.contains(secret), "{swap}");
    }

    let shown = show::line(store, &TimeZone::UTC, line::ANNA).await.unwrap();
    has(&shown, &["open swap", &id]);
    assert_eq!(show::line(store, &TimeZone::UTC, "06-12345601").await.unwrap(), shown);

    let shown = show::sim(store, &TimeZone::UTC, FREE_CARD).await.unwrap();
    has(&shown, &["state", "FREE"]);
    for secret in ["PIN 1", "PIN 2", "PUK 1", "PUK 2"] {
        has(&shown, &[secret, "##########"]);
    }
    for secret in ["1234", "5678", "12345678", "87654321"] {
        let fits = |line: &str| line.split_whitespace().any(|word| word == secret);
        assert!(!shown.lines().any(fits), "{shown}");
    }

    for (error, what) in [
        (
            show::swap(store, &TimeZone::UTC, "01NONE").await,
            "there is no swap 01NONE",
        ),
        (show::swap(store, &TimeZone::UTC, "a b").await, "there is no swap a b"),
        (
            show::line(store, &TimeZone::UTC, "+31612340000").await,
            "there is no line +31612340000",
        ),
        (
            show::sim(store, &TimeZone::UTC, "8931000000000000000").await,
            "there is no SIM 8931000000000000000",
        ),
    ] {
        assert_eq!(error.unwrap_err().to_string(), what);
    }
}
