//! Output of commands for people: tables and durations.
//!
//! Texts come from other hosts. Their control characters could drive the user's terminal, so all are escaped.

use std::{borrow::Cow, fmt, time::Duration};

use crate::printable::escaped;

/// Columns of text, each as wide as its widest cell. The last column is not padded.
#[derive(Debug)]
pub(super) struct Table {
    columns: usize,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Creates a table with headings.
    pub(super) fn with_head(head: &[&str]) -> Self {
        Self { columns: head.len(), rows: vec![head.iter().map(|&cell| cell.to_owned()).collect()] }
    }

    /// Creates a table of names and values.
    pub(super) fn of_pairs() -> Self {
        Self { columns: 2, rows: vec![] }
    }

    /// Adds a row; an empty cell is shown as `-`.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let shown = |cell: String| if cell.is_empty() { "-".to_owned() } else { printable(&cell).into_owned() };
        self.rows.push(cells.into_iter().take(self.columns).map(shown).collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(&format!("{cell:width$}  "));
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Escapes control characters and others that would drive the terminal or reorder a line.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    escaped(text)
}

/// Formats a duration with its two largest units, as in `3m12s`.
pub(super) fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{}s", seconds % 60),
        (0, _, _) => format!("{hours}h{}m", minutes % 60),
        _ => format!("{days}d{}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_control_characters_are_escaped() {
        let mut table = Table::with_head(&["NAME", "STATE", "SINCE"]);
        table.row(["host-a".to_owned(), "alive".to_owned(), "3m12s".to_owned()]);
        table.row(["b".to_owned(), String::new(), "\u{1b}[2Jé".to_owned()]);
        assert_eq!(table.to_string(), "NAME    STATE  SINCE\nhost-a  alive  3m12s\nb       -      \\u{1b}[2Jé\n");
    }

    #[test]
    fn durations_have_two_units() {
        let cases = [
            (0, "0s"),
            (59, "59s"),
            (60, "1m0s"),
            (192, "3m12s"),
            (3599, "59m59s"),
            (3600, "1h0m"),
            (86_399, "23h59m"),
            (86_400, "1d0h"),
            (8_640_000, "100d0h"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(age(Duration::from_secs(seconds)), expected, "{seconds}");
        }
    }
}
