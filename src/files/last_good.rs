//! What every file of a folder last said well.
//!
//! Pure: contents and a parser in, values and problems out. A file that cannot be parsed or read keeps its last good
//! value, so that a slip of the hand withdraws nothing; one that is deleted is dropped; one that was never good says
//! nothing. A file without content is such a file, even if that is only a warning: it may be about to be written. What does not survive is a restart: a file that is broken then has no value until it is mended.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::contents::{Contents, FileText};
use crate::diagnostic::Diagnostic;

/// The last good value of each file, and what is wrong now.
#[derive(Clone, Debug)]
pub struct LastGood<T> {
    files: BTreeMap<PathBuf, Kept<T>>,
    folder: Vec<Diagnostic>,
}

#[derive(Clone, Debug)]
struct Kept<T> {
    /// What was parsed: the same `Arc` is not parsed again.
    text: Arc<FileText>,
    value: Option<Arc<T>>,
    /// Why the text was not taken over; none if it was.
    problems: Vec<Diagnostic>,
}

impl<T> LastGood<T> {
    /// No files.
    pub fn new() -> Self {
        Self { files: BTreeMap::new(), folder: Vec::new() }
    }

    /// Takes over a new state of the folder and says whether any value is another than before.
    ///
    /// `parse` is called for the files whose text is new. A value that is parsed again counts as new.
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
                // A defect of ours that one file shows must not take the others down, nor the next start.
                Ok(octets) => catch_unwind(AssertUnwindSafe(|| parse(path, octets))).unwrap_or_else(|_| {
                    let problem = Diagnostic::whole(path, "reading this file made muster fail");
                    Err(vec![problem.with_hint("this is a defect of muster: please report it with the file")])
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

    /// The values in service, in the order of their files' names.
    pub fn values(&self) -> impl Iterator<Item = (&Path, &Arc<T>)> {
        self.files.iter().filter_map(|(path, kept)| Some((path.as_path(), kept.value.as_ref()?)))
    }

    /// For each file whose text was not taken over, what is in service instead: one warning a file.
    pub fn consequences(&self) -> impl Iterator<Item = Diagnostic> {
        self.files.iter().filter(|(_, kept)| !kept.problems.is_empty()).map(|(path, kept)| {
            let what = match kept.value {
                Some(_) => "what this file last said well stays in service",
                None => "nothing of this file is in service",
            };
            Diagnostic::whole(path, what).with_hint("until its problems are mended").as_warning()
        })
    }

    /// What is wrong now: with the folder, then with its files in the order of their names.
    pub fn problems(&self) -> impl Iterator<Item = &Diagnostic> {
        self.folder.iter().chain(self.files.values().flat_map(|kept| &kept.problems))
    }
}

impl<T> Default for LastGood<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// What a folder's files define, kept from one state of the folder to the next.
pub trait Reloadable: Send + 'static {
    /// What is published.
    type Value: Clone + Send + Sync + 'static;

    /// Takes over a new state of the folder.
    fn load(&mut self, contents: &Contents) -> Loaded<Self::Value>;
}

/// What a state of the folder means.
pub struct Loaded<V> {
    /// What is in service.
    pub value: V,
    /// The same in a few words, for the log: `12 instances`.
    pub summary: String,
    /// All that is wrong.
    pub problems: Vec<Diagnostic>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::contents::{FolderError, ReadError};

    /// `a=1 b=! c=?`: files by name with their texts, `!` for one that does not parse, `?` for one that cannot be
    /// read. A file whose text did not change keeps its `Arc`.
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
    fn a_parser_that_panics_is_a_problem_of_that_file_alone() {
        let contents = contents(&Contents::empty(Path::new("folder")), "a=1 b=boom");
        let mut files: LastGood<String> = LastGood::new();
        files.update(&contents, |_, octets| {
            let text = String::from_utf8_lossy(octets).into_owned();
            if text == "boom" { panic!("a defect") } else { Ok(text) }
        });
        assert_eq!(files.values().count(), 1);
        let problems: Vec<_> = files.problems().map(|problem| problem.path.display().to_string()).collect();
        assert_eq!(problems, ["b"]);
        let consequences: Vec<_> = files.consequences().map(|problem| problem.to_string()).collect();
        let nothing = "b:1:1: warning: nothing of this file is in service (until its problems are mended)";
        assert_eq!(consequences, [nothing]);
    }

    #[test]
    fn a_file_that_is_not_taken_over_says_what_is_in_service_instead() {
        let mut now = Contents::empty(Path::new("d"));
        let mut files = LastGood::new();
        let steps = [
            ("a= b=1", "a: nothing of this file is in service"),
            ("a=1 b=", "b: what this file last said well stays in service"),
            ("a=1 b=2", ""),
        ];
        for (text, expected) in steps {
            now = contents(&now, text);
            files.update(&now, |path, octets| match octets {
                [] => Err(vec![Diagnostic::whole(path, "empty").as_warning()]),
                _ => Ok(()),
            });
            let told: Vec<_> =
                files.consequences().map(|it| format!("{}: {}", it.path.display(), it.message)).collect();
            assert_eq!(told.join(" "), expected, "{text}");
        }
    }

    #[test]
    fn a_file_that_breaks_keeps_its_last_good_value() {
        // What the folder holds, what is parsed, whether a value changed, the values, the files with problems.
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
    fn the_problems_of_the_folder_come_first_and_go_with_it() {
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
