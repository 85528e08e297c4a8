//! Text in aligned columns, for `show` and `list`.

use std::fmt::Write;

use domain::escaped;

/// A table with aligned columns. Cells are escaped, because callers and peers wrote much of their content, and control
/// characters would act on the terminal.
#[derive(Default)]
pub(crate) struct Table(Vec<Vec<String>>);

impl Table {
    pub(crate) fn row(&mut self, cells: &[&str]) {
        let plain = cells.iter().map(|cell| escaped(cell).into_owned());
        self.0.push(plain.collect());
    }

    /// Adds a field and its value, unless the value is absent.
    pub(crate) fn field(&mut self, name: &str, value: Option<impl AsRef<str>>) {
        if let Some(value) = value {
            self.row(&[name, value.as_ref()]);
        }
    }

    pub(crate) fn write_to(&self, text: &mut String) {
        let columns = self.0.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<_> = (0..columns)
            .map(|column| {
                let cells = self.0.iter().filter_map(|row| row.get(column));
                cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        for row in &self.0 {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                let _ = write!(line, "{cell:width$}  ");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::default();
        table.row(&["a", "b"]);
        table.row(&["long", "ü", "c"]);
        table.field("gone", None::<&str>);
        table.row(&["x\x1b[2J", "y\ny", "z"]);
        let mut text = String::new();
        table.write_to(&mut text);
        assert_eq!(
            text,
            "a           b\nlong        ü        c\nx\\u{1b}[2J  y\\u{a}y  z\n"
        );
    }
}
