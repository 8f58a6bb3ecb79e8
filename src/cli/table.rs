//! What commands print for people: tables, and times as one says them.
//!
//! Some of it comes from other hosts. Control characters could drive the reader's terminal, so none gets out.

use std::{
    fmt,
    io::{self, Write},
    time::Duration,
};

/// Columns of text, each as wide as its widest cell; the last one as long as it is.
#[derive(Debug)]
pub(super) struct Table {
    columns: usize,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with a headline.
    pub(super) fn with_head(head: &[&str]) -> Self {
        Self { columns: head.len(), rows: vec![head.iter().map(|&cell| cell.to_owned()).collect()] }
    }

    /// A table of names and what they stand for.
    pub(super) fn of_pairs() -> Self {
        Self { columns: 2, rows: vec![] }
    }

    /// Adds a row; an empty cell shows as `-`.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let shown = |cell: String| if cell.is_empty() { "-".to_owned() } else { printable(&cell) };
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

/// The text with a space in place of every control character.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// `3m12s`: the two largest units of a time.
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

/// Prints a command's result. Whoever does not read it gets the exit code.
pub(super) fn print(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_nothing_drives_a_terminal() {
        let mut table = Table::with_head(&["NAME", "STATE", "SINCE"]);
        table.row(["host-a".to_owned(), "alive".to_owned(), "3m12s".to_owned()]);
        table.row(["b".to_owned(), String::new(), "\u{1b}[2Jé".to_owned()]);
        assert_eq!(table.to_string(), "NAME    STATE  SINCE\nhost-a  alive  3m12s\nb       -       [2Jé\n");
    }

    #[test]
    fn times_have_two_units() {
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
