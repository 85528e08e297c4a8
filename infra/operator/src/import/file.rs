//! Reads a stock file as suppliers and spreadsheets write it. What a row must contain is in `row.rs`.

use std::io::Read;
use std::ops::RangeInclusive;
use std::path::Path;

use csv::{ByteRecord, Reader, ReaderBuilder, StringRecord, Terminator};

use super::Kind;
use super::row::{Columns, Row};
use crate::CommandError;

/// A stock file in memory, whose header and quotes are correct.
pub(super) struct StockFile {
    text: Vec<u8>,
    columns: Columns,
}

/// A row of the file.
pub(super) struct NumberedRow {
    /// The number of the line on which the row begins, as an editor shows it.
    pub(super) line: u64,
    /// The row, or its faults.
    pub(super) row: Result<Row, String>,
}

/// The rows of a file, without those that are empty.
pub(super) struct Rows<'a> {
    records: Records<'a>,
    columns: &'a Columns,
}

/// The name of the file in messages.
pub(crate) fn name(path: &Path) -> String {
    match is_standard_input(path) {
        true => "standard input".to_owned(),
        false => path.display().to_string(),
    }
}

fn is_standard_input(path: &Path) -> bool {
    path == Path::new("-")
}

impl StockFile {
    /// Reads the file, or standard input if the path is `-`.
    pub(super) fn read(path: &Path, kind: Kind) -> Result<Self, CommandError> {
        let mut text = Vec::new();
        let read = match is_standard_input(path) {
            true => std::io::stdin().read_to_end(&mut text).map(|_| text),
            false => std::fs::read(path),
        };
        let name = name(path);
        let text = read.map_err(|error| CommandError(format!("cannot use {name}: {error}")))?;
        Self::parse(text, kind, path.parent().unwrap_or(Path::new("")))
            .map_err(|(line, fault)| CommandError(format!("{name}:{line}: {fault}")))
    }

    /// Parses the header and checks the quotes. The error is a line and its fault.
    fn parse(mut text: Vec<u8>, kind: Kind, folder: &Path) -> Result<Self, (u64, String)> {
        if text.starts_with(b"\xff\xfe") || text.starts_with(b"\xfe\xff") {
            let fault = "the file is in UTF-16; save it as CSV in UTF-8, with ; between the columns";
            return Err((1, fault.to_owned()));
        }
        // The last line needs an end, so that `Records` counts it.
        text.push(b'\n');
        let header = Records::of(&text).header();
        let (lines, header) = header.unwrap_or((1..=1, Ok(StringRecord::new())));
        let at_line = |fault| (*lines.start(), fault);
        let header = header.map_err(at_line)?;
        let mut others = [(',', "commas"), ('\t', "tabs")].into_iter();
        if header.len() == 1
            && let Some((_, separators)) = others.find(|(separator, _)| header[0].contains(*separator))
        {
            let fault = format!("the columns are separated by {separators}; use ; between them");
            return Err(at_line(fault));
        }
        if let Some(line) = find_open_quote(&text) {
            return Err((line, "a quote that opens on this line is not closed".to_owned()));
        }
        let columns = Columns::read(kind, &header, folder).map_err(at_line)?;
        Ok(Self { text, columns })
    }

    /// The rows after the header.
    pub(super) fn rows(&self) -> Rows<'_> {
        let mut records = Records::of(&self.text);
        records.header();
        Rows {
            records,
            columns: &self.columns,
        }
    }

    /// The size of the text.
    pub(super) fn bytes(&self) -> u64 {
        self.text.len() as u64
    }
}

impl Rows<'_> {
    /// The number of bytes read so far.
    pub(super) fn bytes_read(&self) -> u64 {
        self.records.0.position().byte()
    }
}

impl Iterator for Rows<'_> {
    type Item = NumberedRow;

    fn next(&mut self) -> Option<NumberedRow> {
        let (lines, record) = self.records.next()?;
        let (line, end) = lines.into_inner();
        let row = record.and_then(|record| self.columns.row(&record));
        let row = row.map_err(|fault| match line == end {
            true => fault,
            false => format!("the row goes on to line {end}; {fault}"),
        });
        Some(NumberedRow { line, row })
    }
}

/// The records that are not empty: their first and last lines, and their fields or their fault.
struct Records<'a>(Reader<&'a [u8]>);

type Record = (RangeInclusive<u64>, Result<StringRecord, String>);

impl<'a> Records<'a> {
    fn of(text: &'a [u8]) -> Self {
        let reader = ReaderBuilder::new()
            .delimiter(b';')
            .has_headers(false)
            .flexible(true)
            // A `\r` before the line end is trimmed like any other space.
            .terminator(Terminator::Any(b'\n'))
            .from_reader(text);
        Self(reader)
    }

    /// Reads the header. A line `sep=;`, which tells spreadsheets the separator, may precede it.
    fn header(&mut self) -> Option<Record> {
        let first = self.next()?;
        match &first.1 {
            Ok(fields) if fields.len() > 1 && fields[0].eq_ignore_ascii_case("sep=") => self.next(),
            _ => Some(first),
        }
    }
}

impl Iterator for Records<'_> {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        loop {
            let mut bytes = ByteRecord::new();
            let read = self.0.read_byte_record(&mut bytes);
            if !read.expect("text in memory can be read") {
                return None;
            }
            // The reader counts a line when it has read its end, and skips empty lines before a record.
            let end = self.0.position().line() - 1;
            let breaks = bytes.as_slice().iter().filter(|byte| **byte == b'\n').count() as u64;
            let lines = end - breaks..=end;
            let Ok(mut fields) = StringRecord::from_byte_record(bytes) else {
                return Some((lines, Err("is not UTF-8".to_owned())));
            };
            fields.trim();
            if fields.iter().any(|field| !field.is_empty()) {
                return Some((lines, Ok(fields)));
            }
        }
    }
}

/// Where a quote opens that is never closed: the file ends first, or the next quote opens another field and does not
/// end this one. All rows in between would be one field.
fn find_open_quote(text: &[u8]) -> Option<u64> {
    enum At {
        FieldStart,
        Field,
        Quoted,
        /// After a quote in a quoted field. It ends the field, or a second quote follows and both stand for one.
        Quote,
        /// Between a quoted field and the next separator.
        FieldEnd,
    }
    let (mut line, mut opened) = (1, 1);
    let mut at = At::FieldStart;
    for byte in text {
        at = match (at, byte) {
            (At::FieldStart, b'"') => {
                opened = line;
                At::Quoted
            }
            (At::Quoted, b'"') => At::Quote,
            (At::Quoted, _) | (At::Quote, b'"') => At::Quoted,
            (_, b';' | b'\n') => At::FieldStart,
            (At::FieldStart | At::Field, _) => At::Field,
            (At::Quote | At::FieldEnd, b' ' | b'\t' | b'\r') => At::FieldEnd,
            (At::Quote | At::FieldEnd, _) => return Some(opened),
        };
        line += u64::from(*byte == b'\n');
    }
    matches!(at, At::Quoted).then_some(opened)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "SIM_CARD_NUMBER;PUK1;PUK2;PIN1;PIN2;FORM_FACTOR;NETWORK;ACTIVATION_CODE;TAG;AUTO_ASSIGN";
    const OPEN: &str = "a quote that opens on this line is not closed";

    /// A line with this tag.
    fn sim(tag: &str) -> String {
        format!("8931086000000009006;;;;;NANO;KPN;;{tag};false")
    }

    /// Reads the file, and compares the number of each row, with its tag or its faults. If the file cannot be used, its
    /// fault is the only row.
    fn check(lines: &[impl AsRef<[u8]>], expected: &[(u64, &str)]) {
        for (start, end) in [("", "\n"), ("\u{feff}", "\r\n")] {
            let lines: Vec<&[u8]> = lines.iter().map(AsRef::as_ref).collect();
            let text = [start.as_bytes(), &lines.join(end.as_bytes())].concat();
            let read = match StockFile::parse(text.clone(), Kind::Sims, Path::new("")) {
                Err(fault) => vec![fault],
                Ok(file) => {
                    let mut rows = file.rows();
                    let read = rows.by_ref().map(|NumberedRow { line, row }| match row {
                        Ok(Row::Sim(sim)) => (line, sim.tag.unwrap_or_default()),
                        Ok(_) => panic!("not a SIM"),
                        Err(fault) => (line, fault),
                    });
                    let read = read.collect();
                    assert_eq!(rows.bytes_read(), file.bytes());
                    read
                }
            };
            let expected = expected.iter().map(|(line, text)| (*line, (*text).to_owned()));
            assert_eq!(read, expected.collect::<Vec<_>>(), "{}", text.escape_ascii());
        }
    }

    #[test]
    fn files_are_read_as_spreadsheets_write_them() {
        let (a, b) = (sim("A"), sim("B"));
        let width = "has 2 columns and the header 10";
        let rows: &[(u64, &str)] = &[(2, "A"), (3, "B")];
        check(&[HEADER, &a, &b], rows);
        check(&[HEADER, &a, &b, ""], rows);
        check(&[&HEADER.to_lowercase(), &a, &b], rows);
        check(
            &[HEADER, " ", &a, ";;;;;;;;;", &b, ";;;;", "", ";"],
            &[(3, "A"), (5, "B")],
        );
        check(&["sep=;", HEADER, &a, &b], &[(3, "A"), (4, "B")]);
        check(&["SEP=;;;;", "", HEADER, &a], &[(4, "A")]);
        check(&[format!("{HEADER};"), format!("{a};"), b.clone()], rows);
        check(&[HEADER.to_owned(), format!("{a};;"), b.clone()], rows);
        check(&[HEADER, &format!("{a};x")], &[(2, "has 11 columns and the header 10")]);
        check(&[HEADER, "x;y", &a], &[(2, width), (3, "A")]);
        check(
            &[HEADER.as_bytes(), b"\xff;;;;;;;;;", a.as_bytes()],
            &[(2, "is not UTF-8"), (3, "A")],
        );
        check(
            &[&a.replace("KPN", " KPN "), &b],
            &[(1, &*format!("is not the header; the first line must be {HEADER}"))],
        );
        check(
            &[""],
            &[(1, &*format!("is not the header; the first line must be {HEADER}"))],
        );
        let commas = "the columns are separated by commas; use ; between them";
        check(&[HEADER.replace(';', ",")], &[(1, commas)]);
        check(&[format!("\"{}\"", HEADER.replace(';', "\",\""))], &[(1, commas)]);
        check(&["sep=,", HEADER], &[(1, commas)]);
        let tabs = "the columns are separated by tabs; use ; between them";
        check(&[HEADER.replace(';', "\t")], &[(1, tabs)]);
        check(&[format!("\"{}\"", HEADER.replace(';', "\"\t\""))], &[(1, tabs)]);
    }

    #[test]
    fn a_file_in_utf_16_is_rejected_with_the_way_out() {
        let text = format!("\u{feff}{HEADER}\n{}\n", sim("A"));
        let little_endian: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let big_endian: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        for text in [little_endian, big_endian] {
            let fault = StockFile::parse(text, Kind::Sims, Path::new("")).err();
            let expected = "the file is in UTF-16; save it as CSV in UTF-8, with ; between the columns";
            assert_eq!(fault, Some((1, expected.to_owned())));
        }
    }

    #[test]
    fn quoted_fields_end_where_they_should() {
        let two_lines = "the row goes on to line 3; TAG must be at most 255 characters on one line";
        let whole = |tag: &str, after: &str| [HEADER.to_owned(), sim(tag), sim(after)];
        check(&whole("\"a;\"\"b\"\"\"", "\" c\" "), &[(2, "a;\"b\""), (3, "c")]);
        check(&whole("5\" 7\"", "B"), &[(2, "5\" 7\""), (3, "B")]);
        check(
            &[HEADER, &sim("\"a\nb\""), "", &sim("B"), "x"],
            &[(2, two_lines), (5, "B"), (6, "has 1 columns and the header 10")],
        );
        check(&[HEADER, &sim("A"), &sim("\"B"), &sim("C")], &[(3, OPEN)]);
        check(&[HEADER, &sim("\"two\nlines\""), &sim("\"B"), &sim("C")], &[(4, OPEN)]);
        // The quote that should open D ends B.
        check(
            &[HEADER, &sim("\"B"), &sim("C"), &sim("\"D\""), &sim("E")],
            &[(2, OPEN)],
        );
        check(
            &[HEADER, &sim("\"B"), &sim("C"), &sim("\" D\""), &sim("E")],
            &[(2, OPEN)],
        );
        check(&[HEADER, &sim("B\"\"").replace(";;B", ";\";B")], &[(2, OPEN)]);
        check(&[&HEADER.replace("PUK1", "\"PUK1"), &sim("A")], &[(1, OPEN)]);
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sims.csv");
        let fault = |path: &Path| StockFile::read(path, Kind::Sims).map(|_| ()).unwrap_err().0;
        let missing = fault(&path);
        assert!(
            missing.starts_with(&format!("cannot use {}: ", path.display())),
            "{missing}"
        );
        std::fs::write(&path, format!("{HEADER}\n{}", sim("\"A"))).unwrap();
        assert_eq!(fault(&path), format!("{}:2: {OPEN}", path.display()));
        assert_eq!(name(Path::new("-")), "standard input");
    }
}
