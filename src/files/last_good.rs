//! Last valid value of each file of a folder.
//!
//! Pure: contents and a parser in, values and problems out. A file that cannot be read or parsed keeps its last valid
//! value, so a typing error withdraws nothing. So does an empty file, which may be about to be written, although that is
//! only a warning. A deleted file is dropped. Values do not survive a restart: a file that is invalid at the start has no
//! value until it is fixed.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::contents::{Contents, FileText};
use crate::diagnostic::Diagnostic;

/// Last valid value of each file, and the current problems.
#[derive(Clone, Debug)]
pub struct LastGood<T> {
    files: BTreeMap<PathBuf, Kept<T>>,
    folder: Vec<Diagnostic>,
}

#[derive(Clone, Debug)]
struct Kept<T> {
    /// The text that was parsed last. The same `Arc` is not parsed again.
    text: Arc<FileText>,
    value: Option<Arc<T>>,
    /// Problems that made the text invalid; empty for a valid text.
    problems: Vec<Diagnostic>,
}

impl<T> LastGood<T> {
    /// No files.
    pub fn new() -> Self {
        Self { files: BTreeMap::new(), folder: Vec::new() }
    }

    /// Updates to a new state of the folder and reports whether any value changed.
    ///
    /// Calls `parse` for changed files only. Every newly parsed value counts as changed.
    pub fn update(
        &mut self,
        contents: &Contents,
        mut parse: impl FnMut(&Path, &[u8]) -> Result<T, Vec<Diagnostic>>,
    ) -> bool {
        let mut changed = false;
        self.folder = contents.folder_problems().collect();
        self.files.retain(|path, kept| {
            let stays = contents.files.contains_key(path);
            changed |= !stays && kept.value.is_some();
            stays
        });
        for (path, text) in &contents.files {
            let known = self.files.get(path);
            if known.is_some_and(|kept| Arc::ptr_eq(&kept.text, text)) {
                continue;
            }
            let parsed = match &**text {
                // A bug that one file triggers must not affect other files, or the next start.
                Ok(octets) => catch_unwind(AssertUnwindSafe(|| parse(path, octets))).unwrap_or_else(|_| {
                    let problem = Diagnostic::whole(path, "muster failed while reading this file");
                    Err(vec![problem.with_hint("this is a bug in muster: please report it with the file")])
                }),
                Err(unreadable) => Err(vec![unreadable.at(path)]),
            };
            let (value, problems) = match parsed {
                Ok(value) => {
                    changed = true;
                    (Some(Arc::new(value)), Vec::new())
                }
                Err(problems) => (known.and_then(|kept| kept.value.clone()), problems),
            };
            self.files.insert(path.clone(), Kept { text: text.clone(), value, problems });
        }
        changed
    }

    /// The values in use, in the order of their file names.
    pub fn values(&self) -> impl Iterator<Item = (&Path, &Arc<T>)> {
        self.files.iter().filter_map(|(path, kept)| Some((path.as_path(), kept.value.as_ref()?)))
    }

    /// One warning for each invalid file that states which content is in use.
    pub fn consequences(&self) -> impl Iterator<Item = Diagnostic> {
        self.files.iter().filter(|(_, kept)| !kept.problems.is_empty()).map(|(path, kept)| {
            let message = match kept.value {
                Some(_) => "the last valid content of this file stays in use until it is fixed",
                None => "nothing from this file is in use until it is fixed",
            };
            Diagnostic::whole(path, message).as_warning()
        })
    }

    /// Current problems: first of the folder, then of the files in the order of their names.
    pub fn problems(&self) -> impl Iterator<Item = &Diagnostic> {
        self.folder.iter().chain(self.files.values().flat_map(|kept| &kept.problems))
    }
}

impl<T> Default for LastGood<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Parser of a folder that keeps state between two states of the folder.
pub trait Reloadable: Send + 'static {
    /// The published value.
    type Value: Clone + Send + Sync + 'static;

    /// Parses a new state of the folder.
    fn load(&mut self, contents: &Contents) -> Loaded<Self::Value>;
}

/// Result of loading a folder.
pub struct Loaded<V> {
    /// The value in use.
    pub value: V,
    /// Summary of the value for the log: `12 instances`.
    pub summary: String,
    /// All problems.
    pub problems: Vec<Diagnostic>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::contents::{FolderError, ReadError};

    /// Contents from `a=1 b=! c=?`: names and texts; `!` does not parse, `?` cannot be read. Unchanged files keep their
    /// `Arc`.
    fn contents(before: &Contents, text: &str) -> Contents {
        let mut files = imbl::OrdMap::new();
        for file in text.split_whitespace() {
            let (name, text) = file.split_once('=').unwrap();
            let text = if text == "?" { Err(ReadError::Denied) } else { Ok(text.as_bytes().into()) };
            let path = PathBuf::from(name);
            let kept = before.files.get(&path).filter(|kept| ***kept == text).cloned();
            files.insert(path, kept.unwrap_or_else(|| Arc::new(text)));
        }
        Contents { files, ..before.clone() }
    }

    #[test]
    fn parser_panic_is_a_problem_of_one_file_only() {
        let contents = contents(&Contents::empty(Path::new("folder")), "a=1 b=boom");
        let mut files: LastGood<String> = LastGood::new();
        files.update(&contents, |_, octets| {
            let text = String::from_utf8_lossy(octets).into_owned();
            if text == "boom" { panic!("a bug") } else { Ok(text) }
        });
        assert_eq!(files.values().count(), 1);
        let problems: Vec<_> = files.problems().map(|problem| problem.path.display().to_string()).collect();
        assert_eq!(problems, ["b"]);
        let consequences: Vec<_> = files.consequences().map(|problem| problem.to_string()).collect();
        let nothing = "b:1:1: warning: nothing from this file is in use until it is fixed";
        assert_eq!(consequences, [nothing]);
    }

    #[test]
    fn invalid_file_has_a_warning_about_the_content_in_use() {
        let mut now = Contents::empty(Path::new("d"));
        let mut files = LastGood::new();
        let steps = [
            ("a= b=1", "a: nothing from this file is in use until it is fixed"),
            ("a=1 b=", "b: the last valid content of this file stays in use until it is fixed"),
            ("a=1 b=2", ""),
        ];
        for (text, expected) in steps {
            now = contents(&now, text);
            files.update(&now, |path, octets| match octets {
                [] => Err(vec![Diagnostic::whole(path, "empty").as_warning()]),
                _ => Ok(()),
            });
            let warnings: Vec<_> =
                files.consequences().map(|it| format!("{}: {}", it.path.display(), it.message)).collect();
            assert_eq!(warnings.join(" "), expected, "{text}");
        }
    }

    #[test]
    fn broken_file_keeps_its_last_valid_value() {
        // Contents, parsed files, whether a value changed, the values, the files with problems.
        let steps = [
            ("", "", false, "", ""),
            ("a=1 b=! c=?", "a b", true, "a=1", "b c"),
            ("a=1 b=! c=?", "", false, "a=1", "b c"),
            ("a=1 b=2 c=?", "b", true, "a=1 b=2", "c"),
            ("a=! b=? c=3", "a c", true, "a=1 b=2 c=3", "a b"),
            ("a=?! b=2 c=3", "a b", true, "a=1 b=2 c=3", "a"),
            ("a=4 b=2", "a", true, "a=4 b=2", ""),
            ("b=2 d=!", "d", true, "b=2", "d"),
            ("b=2", "", false, "b=2", ""),
            ("a=! b=2", "a", false, "b=2", "a"),
            ("", "", true, "", ""),
        ];
        let mut now = Contents::empty(Path::new("d"));
        let mut last_good = LastGood::new();
        for (number, (text, parsed, changed, values, problems)) in steps.into_iter().enumerate() {
            now = contents(&now, text);
            let mut seen = Vec::new();
            let got = last_good.update(&now, |path, octets| {
                seen.push(path.display().to_string());
                let text = String::from_utf8_lossy(octets).into_owned();
                if text.ends_with('!') { Err(vec![Diagnostic::whole(path, "broken")]) } else { Ok(text) }
            });
            assert_eq!(seen.join(" "), parsed, "step {number}: parsed");
            assert_eq!(got, changed, "step {number}: changed");
            let got: Vec<_> = last_good.values().map(|(path, value)| format!("{}={value}", path.display())).collect();
            assert_eq!(got.join(" "), values, "step {number}: values");
            let got: Vec<_> = last_good.problems().map(|problem| problem.path.display().to_string()).collect();
            assert_eq!(got.join(" "), problems, "step {number}: problems");
        }
    }

    #[test]
    fn folder_problems_come_first_and_are_cleared() {
        let mut now = contents(&Contents::empty(Path::new("d")), "a=!");
        now.problems = vec![FolderError::Vanished(5)];
        let mut last_good = LastGood::<()>::new();
        let broken = |path: &Path, _: &[u8]| Err(vec![Diagnostic::whole(path, "broken")]);
        last_good.update(&now, broken);
        let paths: Vec<_> = last_good.problems().map(|problem| problem.path.clone()).collect();
        assert_eq!(paths, [PathBuf::from("d"), PathBuf::from("a")]);
        now.problems.clear();
        last_good.update(&now, broken);
        assert_eq!(last_good.problems().count(), 1);
    }
}
