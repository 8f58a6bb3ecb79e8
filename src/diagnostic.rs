//! One problem in one file, as `validate` prints it and the log shows it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
};

/// A problem that a user can find and mend: where, what, and what to do about it.
///
/// Prints as `file:line:column: message` with ` (hint)` behind it where there is one, and with `warning: ` before the
/// message of a warning. Sorts by place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Diagnostic {
    /// The file.
    pub path: PathBuf,
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1, in characters.
    pub column: usize,
    /// Whether the file is refused.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

/// What a problem means for its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// The file is used, though hardly as its author meant it.
    Warning,
}

impl Diagnostic {
    /// An error at a place; line and column are counted from 1.
    pub fn at(path: &Path, line: usize, column: usize, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { path: path.to_owned(), line, column, severity: Severity::Error, message, hint: None }
    }

    /// An error of the file as a whole: it is shown at its first character.
    pub fn whole(path: &Path, message: impl Into<String>) -> Self {
        Self::at(path, 1, 1, message)
    }

    /// The same problem with a hint.
    #[must_use]
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// The same problem as a warning.
    #[must_use]
    pub fn as_warning(self) -> Self {
        Self { severity: Severity::Warning, ..self }
    }

    /// Whether the file cannot be used.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.path.display(), self.line, self.column)?;
        if self.severity == Severity::Warning {
            f.write_str("warning: ")?;
        }
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

/// What a folder's files come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FolderReport {
    /// What is in service, in a few words: `12 instances`.
    pub in_service: String,
    /// All that is wrong, and what it means for what is in service.
    pub problems: Vec<Diagnostic>,
    /// How often the files have been read since the start.
    pub reads: u64,
}

/// What the files of each folder come to.
pub type Reports = BTreeMap<PathBuf, FolderReport>;

/// What is new between two lists of problems: a log tells of a problem when it appears and when it is mended, not
/// each time that somebody looks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiagnosticChanges<'a> {
    /// Problems that were not there before, in the order of the new list.
    pub appeared: Vec<&'a Diagnostic>,
    /// Files that had problems and have none now, by name.
    pub mended: Vec<&'a Path>,
}

impl<'a> DiagnosticChanges<'a> {
    /// Compares what was wrong `before` with what is wrong `now`.
    pub fn between(before: &'a [Diagnostic], now: &'a [Diagnostic]) -> Self {
        let known: BTreeSet<&Diagnostic> = before.iter().collect();
        let broken: BTreeSet<&Path> = now.iter().map(|problem| problem.path.as_path()).collect();
        let were_broken: BTreeSet<&Path> = before.iter().map(|problem| problem.path.as_path()).collect();
        Self {
            appeared: now.iter().filter(|problem| !known.contains(problem)).collect(),
            mended: were_broken.difference(&broken).copied().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_news_when_they_appear_and_when_their_file_has_none_left() {
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
        for (before, now, appeared, mended) in cases {
            let (before, now) = (list(before), list(now));
            let news = DiagnosticChanges::between(&before, &now);
            let text: Vec<_> = news.appeared.iter().map(|p| format!("{}{}", p.path.display(), p.message)).collect();
            assert_eq!(text.join(" "), appeared, "{before:?} {now:?}");
            let text: Vec<_> = news.mended.iter().map(|path| path.display().to_string()).collect();
            assert_eq!(text.join(" "), mended, "{before:?} {now:?}");
        }
    }
}
