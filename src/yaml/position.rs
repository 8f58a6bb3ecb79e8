//! A place in a text, as people count.

/// A place in a text: both counted from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    /// The line.
    pub(super) line: usize,
    /// The column.
    pub(super) column: usize,
}

impl Position {
    /// The first character.
    pub(super) const START: Self = Self { line: 1, column: 1 };

    /// Where the character behind `text` stands.
    pub(super) fn after(text: &str) -> Self {
        let start_of_line = text.rfind('\n').map_or(0, |at| at + 1);
        let line = 1 + text.bytes().filter(|b| *b == b'\n').count();
        Self { line, column: 1 + text[start_of_line..].chars().count() }
    }
}
