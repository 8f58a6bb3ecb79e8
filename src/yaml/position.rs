//! Line and column in a text.

/// Position in a text; lines and columns are counted from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub(super) line: usize,
    pub(super) column: usize,
}

impl Position {
    /// The first character.
    pub(super) const START: Self = Self { line: 1, column: 1 };

    /// Position of the character after `text`.
    pub(super) fn after(text: &str) -> Self {
        let start_of_line = text.rfind('\n').map_or(0, |at| at + 1);
        let line = 1 + text.bytes().filter(|b| *b == b'\n').count();
        Self { line, column: 1 + text[start_of_line..].chars().count() }
    }
}
