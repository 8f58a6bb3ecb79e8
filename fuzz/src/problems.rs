//! Invariants of diagnostics: one line with a position in the file.

use std::path::Path;

use muster::diagnostic::Diagnostic;

/// Checks the diagnostics that a parser reported for `octets`.
pub(crate) fn check(problems: &[Diagnostic], path: &Path, octets: &[u8]) {
    // A line ends with LF, CR or both. The YAML parser reports the end of a text on an additional line.
    let lines = 2 + octets.iter().filter(|octet| matches!(octet, b'\n' | b'\r')).count();
    for problem in problems {
        assert_eq!(problem.path, path);
        assert!((1..=lines).contains(&problem.line), "no such line: {problem:?}");
        // A byte-order mark is not a character; the position after the last character is valid.
        assert!((1..=octets.len() + 1).contains(&problem.column), "no such column: {problem:?}");
        let text = problem.to_string();
        assert!(!problem.message.is_empty() && text.len() < 2000, "{problem:?}");
        assert!(!text.contains(char::is_control), "unescaped control characters: {problem:?}");
    }
}
