//! Diagnostics: problems in files, as `muster validate` prints them and the log shows them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
};

use crate::printable::{self, escaped};

/// A problem in a file: position, message and hint.
///
/// Displays on one line as `file:line:column: message (hint)`, with `warning: ` before the message of a warning. Sorts by
/// position.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Diagnostic {
    /// File with the problem.
    pub path: PathBuf,
    /// Line, counted from 1.
    pub line: usize,
    /// Column in characters, counted from 1.
    pub column: usize,
    /// Error or warning.
    pub severity: Severity,
    /// Description of the problem, with the value that offended.
    pub message: String,
    /// Suggested fix.
    pub hint: Option<String>,
}

/// Effect of a problem on its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file is used, though probably not as intended.
    Warning,
}

impl Diagnostic {
    /// Returns an error at a position; line and column are counted from 1.
    pub fn at(path: &Path, line: usize, column: usize, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { path: path.to_owned(), line, column, severity: Severity::Error, message, hint: None }
    }

    /// Returns an error of the file as a whole, at line 1, column 1.
    pub fn whole(path: &Path, message: impl Into<String>) -> Self {
        Self::at(path, 1, 1, message)
    }

    /// Returns this problem with a hint.
    #[must_use]
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Returns this problem as a warning.
    #[must_use]
    pub fn as_warning(self) -> Self {
        Self { severity: Severity::Warning, ..self }
    }

    /// Reports whether the file is refused.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", printable::path(&self.path), self.line, self.column)?;
        if self.severity == Severity::Warning {
            f.write_str("warning: ")?;
        }
        f.write_str(&escaped(&self.message))?;
        match &self.hint {
            Some(hint) => write!(f, " ({})", escaped(hint)),
            None => Ok(()),
        }
    }
}

/// Maximum characters of input in a message.
const MAX_QUOTE: usize = 60;

/// Quotes input in backquotes, on one line and truncated.
///
/// Only for texts that are known to be of the expected kind of file: a link may lead to a file with a secret. All others are
/// [`describe`]d, and so are texts with credentials, `user:password@host`.
pub fn quote(text: &str) -> String {
    if text.split_once('@').is_some_and(|(before, _)| before.contains(':')) {
        return describe(text);
    }
    let start: String = text.chars().take(MAX_QUOTE).collect();
    let rest = if text.chars().nth(MAX_QUOTE).is_some() { "…" } else { "" };
    format!("`{}{rest}`", escaped(&start))
}

/// Describes input by its length.
pub fn describe(text: &str) -> String {
    match text.chars().count() {
        0 => "an empty text".to_owned(),
        1 => "a text of 1 character".to_owned(),
        count => format!("a text of {count} characters"),
    }
}

/// State of the files of one folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FolderReport {
    /// Summary of what is in service: `12 instances`.
    pub in_service: String,
    /// All problems, each with its effect on what is in service.
    pub problems: Vec<Diagnostic>,
    /// Number of reads since the start.
    pub reads: u64,
}

/// State of each folder, by path.
pub type Reports = BTreeMap<PathBuf, FolderReport>;

/// Difference between two lists of problems. The log reports a problem when it appears and when it is fixed, not with
/// each read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiagnosticChanges<'a> {
    /// New problems, in the order of the new list.
    pub appeared: Vec<&'a Diagnostic>,
    /// Files whose problems are all fixed, by name.
    pub fixed: Vec<&'a Path>,
}

impl<'a> DiagnosticChanges<'a> {
    /// Compares the problems `before` with those `now`.
    pub fn between(before: &'a [Diagnostic], now: &'a [Diagnostic]) -> Self {
        let known: BTreeSet<&Diagnostic> = before.iter().collect();
        let broken: BTreeSet<&Path> = now.iter().map(|problem| problem.path.as_path()).collect();
        let were_broken: BTreeSet<&Path> = before.iter().map(|problem| problem.path.as_path()).collect();
        Self {
            appeared: now.iter().filter(|problem| !known.contains(problem)).collect(),
            fixed: were_broken.difference(&broken).copied().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_new_problems_and_files_without_problems() {
        let list = |text: &str| -> Vec<Diagnostic> {
            text.split_whitespace().map(|problem| Diagnostic::whole(Path::new(&problem[..1]), &problem[1..])).collect()
        };
        let cases = [
            ("", "", "", ""),
            ("", "a1 b1", "a1 b1", ""),
            ("a1 b1", "a1 b1", "", ""),
            ("a1 a2", "a2 a3", "a3", ""),
            ("a1 a2 b1", "c1", "c1", "a b"),
            ("a1 a2", "a2", "", ""),
        ];
        for (before, now, appeared, fixed) in cases {
            let (before, now) = (list(before), list(now));
            let changes = DiagnosticChanges::between(&before, &now);
            let text: Vec<_> = changes.appeared.iter().map(|p| format!("{}{}", p.path.display(), p.message)).collect();
            assert_eq!(text.join(" "), appeared, "{before:?} {now:?}");
            let text: Vec<_> = changes.fixed.iter().map(|path| path.display().to_string()).collect();
            assert_eq!(text.join(" "), fixed, "{before:?} {now:?}");
        }
    }
}
