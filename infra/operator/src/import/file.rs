//! Reads a stock file line by line, in constant memory. What a line must contain is in `row.rs`.

use std::fs::File;
use std::io::{Chain, Read};
use std::path::{Path, PathBuf};

use csv::{ErrorKind, Reader, ReaderBuilder, StringRecord, Terminator, Trim};

use super::Kind;
use super::row::{Columns, Row};
use crate::CommandError;

/// An open stock file, whose header has been read.
pub(super) struct StockFile {
    path: PathBuf,
    reader: Reader<Chain<File, &'static [u8]>>,
    record: StringRecord,
    columns: Columns,
    /// The size of the file.
    pub(super) bytes: u64,
}

/// A line of the file.
pub(super) struct NumberedRow {
    /// The number of the line, as an editor shows it; the header is line 1.
    pub(super) line: u64,
    /// The row, or its faults.
    pub(super) row: Result<Row, String>,
}

impl StockFile {
    /// Opens the file and reads its header.
    pub(super) fn open(path: &Path, kind: Kind) -> Result<Self, CommandError> {
        let unusable = |error| CommandError(format!("cannot use {}: {error}", path.display()));
        let file = File::open(path).map_err(unusable)?;
        let bytes = file.metadata().map_err(unusable)?.len();
        let mut reader = ReaderBuilder::new()
            .delimiter(b';')
            .flexible(true)
            // A `\r` before the line end is trimmed like any other space. The line end that is added to the file makes
            // sure that the reader's position is always on the line after the one that it returned.
            .terminator(Terminator::Any(b'\n'))
            .trim(Trim::All)
            .from_reader(file.chain(&b"\n"[..]));
        let columns = reader
            .headers()
            .map_err(|error| error.to_string())
            .and_then(|header| Columns::read(kind, header))
            .map_err(|fault| CommandError(format!("{}: line 1: {fault}", path.display())))?;
        Ok(Self {
            path: path.to_owned(),
            reader,
            record: StringRecord::new(),
            columns,
            bytes,
        })
    }

    /// Reads the next line that is not empty; `None` at the end of the file.
    pub(super) fn next(&mut self) -> Result<Option<NumberedRow>, CommandError> {
        loop {
            let read = self.reader.read_record(&mut self.record);
            let line = self.reader.position().line() - 1;
            let row = match read {
                Ok(false) => return Ok(None),
                Ok(true) if self.record.len() == 1 && self.record[0].is_empty() => continue,
                Ok(true) => self.columns.row(&self.record),
                Err(error) => match error.kind() {
                    ErrorKind::Utf8 { .. } => Err("is not UTF-8".to_owned()),
                    _ => return Err(CommandError(format!("{}: {error}", self.path.display()))),
                },
            };
            return Ok(Some(NumberedRow { line, row }));
        }
    }

    /// The number of bytes read so far.
    pub(super) fn bytes_read(&self) -> u64 {
        self.reader.position().byte().min(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_keep_their_numbers() {
        let header = "SIM_CARD_NUMBER;PUK1;PUK2;PIN1;PIN2;FORM_FACTOR;NETWORK;ACTIVATION_CODE;TAG;AUTO_ASSIGN";
        let good = b"8931086000000009006; ;;;;NANO; KPN;;\"a;b\";false";
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sims.csv");
        for (start, end) in [("", "\n"), ("\u{feff}", "\r\n")] {
            let lines = [header.as_bytes(), good, b"", b"x;y", b"\xff;;;;;;;;;", good];
            let text = lines.map(|line| [line, end.as_bytes()].concat()).concat();
            std::fs::write(&path, [start.as_bytes(), &text].concat()).unwrap();
            let mut file = StockFile::open(&path, Kind::Sims).unwrap();
            let mut seen = Vec::new();
            while let Some(NumberedRow { line, row }) = file.next().unwrap() {
                seen.push((line, row.map(|_| ()).map_err(|fault| fault.len())));
            }
            let faults = ["has 2 columns and the header 10", "is not UTF-8"].map(str::len);
            assert_eq!(
                seen,
                [(2, Ok(())), (4, Err(faults[0])), (5, Err(faults[1])), (6, Ok(()))],
                "{end:?}"
            );
            assert_eq!(file.bytes_read(), file.bytes);
        }
    }
}
