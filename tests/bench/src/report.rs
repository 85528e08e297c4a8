//! The tables of the benchmark and their figures. Each table stands between markers in a README, its figures in
//! `figures.json`.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use crate::BenchError;
use crate::programs::root;

const FIGURES: &str = "tests/bench/figures.json";

/// A table in Markdown.
pub(crate) struct Table(String);

impl Table {
    pub(crate) fn new(columns: &[&str]) -> Self {
        let mut table = Self(String::new());
        table.row(columns);
        // All columns but the first contain numbers.
        let rules: Vec<_> = (0..columns.len())
            .map(|column| if column == 0 { "---" } else { "---:" })
            .collect();
        table.row(&rules);
        table
    }

    pub(crate) fn row<T: AsRef<str>>(&mut self, cells: &[T]) {
        for cell in cells {
            self.0.push_str("| ");
            self.0.push_str(cell.as_ref());
            self.0.push(' ');
        }
        self.0.push_str("|\n");
    }

    /// Writes the table between its markers, and prints it. The repository's README has the cold starts, the operator's
    /// README has the keys, and this crate's README has the other tables.
    pub(crate) fn publish(&self, name: &str) -> Result<(), BenchError> {
        let file = match name {
            "cold" => "README.md",
            "keys" => "infra/README.md",
            _ => "tests/bench/README.md",
        };
        insert(file, name, &self.0)
    }
}

/// Writes `text` between the markers of `name` in a file of the repository, and prints it.
pub(crate) fn insert(file: &str, name: &str, text: &str) -> Result<(), BenchError> {
    let path = root().join(file);
    let whole = fs::read_to_string(&path)?;
    let (start, end) = (format!("<!-- bench {name} -->\n"), format!("<!-- /bench {name} -->"));
    let missing = || format!("{file} has no markers for {name}");
    let (before, rest) = whole.split_once(&start).ok_or_else(missing)?;
    let (_, after) = rest.split_once(&end).ok_or_else(missing)?;
    fs::write(&path, format!("{before}{start}{text}{end}{after}"))?;
    print(&format!("{name}\n\n{text}\n"));
    Ok(())
}

/// Stores a table's figures, for the gate and for the tables and the picture that use them.
pub(crate) fn record(name: &str, figures: Value) -> Result<(), BenchError> {
    let mut all = all_figures()?;
    all[name] = figures;
    fs::write(root().join(FIGURES), format!("{all:#}\n"))?;
    Ok(())
}

/// A table's figures of the last run.
pub(crate) fn recorded(name: &str) -> Result<Value, BenchError> {
    match all_figures()?[name].take() {
        Value::Null => Err(format!("{FIGURES} has no {name}: measure it first").into()),
        figures => Ok(figures),
    }
}

fn all_figures() -> Result<Value, BenchError> {
    match fs::read_to_string(root().join(FIGURES)) {
        Ok(text) => Ok(serde_json::from_str(&text)?),
        Err(_) => Ok(json!({})),
    }
}

/// The value below which this share of the times lies; 0.5 is the median.
pub(crate) fn quantile(times: &[Duration], share: f64) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    let place = (sorted.len() as f64 * share) as usize;
    sorted[place.min(sorted.len() - 1)]
}

pub(crate) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Three significant digits, or more if there are more before the point.
pub(crate) fn short(value: f64) -> String {
    let digits = match value.abs() {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    match text.split_once('.') {
        Some((whole, _)) => text.replacen(whole, &thousands(whole), 1),
        None => thousands(&text),
    }
}

/// The digits in groups of three.
pub(crate) fn thousands(digits: &str) -> String {
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Bytes as MB of 1,000,000.
pub(crate) fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// Progress and tables go to standard output.
#[allow(clippy::print_stdout, reason = "the command reports on standard output")]
pub(crate) fn print(text: &str) {
    println!("{text}");
}
