//! What a problem must be, whatever the file was: one line that leads to a place in the file.

use std::path::Path;

use muster::diagnostic::Diagnostic;

/// Judges the problems that a parser found in `octets`.
pub(crate) fn judge(problems: &[Diagnostic], path: &Path, octets: &[u8]) {
    // A line ends with LF, CR or both. The YAML parser finds the end of a text on a line of its own.
    let lines = 2 + octets.iter().filter(|octet| matches!(octet, b'\n' | b'\r')).count();
    for problem in problems {
        assert_eq!(problem.path, path);
        assert!((1..=lines).contains(&problem.line), "no such line: {problem:?}");
        // A byte-order mark counts as no character, the place behind the last one does.
        assert!((1..=octets.len() + 1).contains(&problem.column), "no such column: {problem:?}");
        let text = problem.to_string();
        assert!(!problem.message.is_empty() && text.len() < 2000, "{problem:?}");
        assert!(!text.contains(char::is_control), "what was in the file reaches the terminal: {problem:?}");
    }
}
