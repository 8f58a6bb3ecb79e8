//! Last valid value of each file of a folder.
//!
//! Pure: contents and a parser in, values and problems out. A file that cannot be read or parsed keeps its last valid
//! value, so a typing error withdraws nothing. So does an empty file, which may be about to be written, although that is
//! only a warning. A deleted file is dropped.
//!
//! The agent hands the last valid text of each file ([`LastValidFile`]) to a start with another configuration, and stores
//! those of invalid files for the next process. A file that is invalid then has the value of that text. Without such a text,
//! or if the other configuration refuses it as well, the file has no value until it is fixed.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::contents::{Contents, FileText};
use crate::{diagnostic::Diagnostic, parallel};

/// Octets of changed files for each thread that parses: some milliseconds of work.
const OCTETS_PER_THREAD: usize = 128 * 1024;

/// Last valid value of each file, and the current problems.
#[derive(Clone, Debug)]
pub struct LastGood<T> {
    files: BTreeMap<PathBuf, Kept<T>>,
    folder: Vec<Diagnostic>,
    /// Last valid texts of the former agent, for the files of the first contents.
    former: BTreeMap<PathBuf, Arc<[u8]>>,
}

/// Last valid text of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastValidFile {
    /// Path of the file, as the agent reads it.
    pub path: PathBuf,
    /// Last valid text.
    pub text: Arc<[u8]>,
}

#[derive(Clone, Debug)]
struct Kept<T> {
    /// The text that was parsed last. The same `Arc` is not parsed again.
    text: Arc<FileText>,
    valid: Option<Valid<T>>,
    /// Problems that made the text invalid; empty for a valid text.
    problems: Vec<Diagnostic>,
    /// True if the former agent had a valid text, which this one refuses.
    withdrawn: bool,
}

/// Last valid texts of a folder, for another start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastValidTexts {
    /// Those of valid files, which are their current texts.
    pub of_valid: Vec<LastValidFile>,
    /// Those of files that are invalid.
    pub of_invalid: Vec<LastValidFile>,
}

/// A valid text and its value.
#[derive(Debug)]
struct Valid<T> {
    text: Arc<[u8]>,
    value: Arc<T>,
}

impl<T> Clone for Valid<T> {
    fn clone(&self) -> Self {
        Self { text: Arc::clone(&self.text), value: Arc::clone(&self.value) }
    }
}

impl<T> LastGood<T> {
    /// No files.
    pub fn new() -> Self {
        Self { files: BTreeMap::new(), folder: Vec::new(), former: BTreeMap::new() }
    }

    /// Sets the last valid texts of the former agent. A file that is invalid in the first contents has their value.
    pub fn restore(&mut self, former: Vec<LastValidFile>) {
        self.former = former.into_iter().map(|file| (file.path, file.text)).collect();
    }

    /// Updates to a new state of the folder and reports whether any value changed.
    ///
    /// Calls `parse` for changed files only, on several threads if there is much text. Every newly parsed value counts as
    /// changed.
    pub fn update(
        &mut self,
        contents: &Contents,
        parse: impl Fn(&Path, &[u8]) -> Result<T, Vec<Diagnostic>> + Sync,
    ) -> bool
    where
        T: Send + Sync,
    {
        let mut changed = false;
        self.folder = contents.folder_problems().collect();
        self.files.retain(|path, kept| {
            let stays = contents.files.contains_key(path);
            changed |= !stays && kept.valid.is_some();
            stays
        });
        // A bug that one file triggers must not affect other files, or the next start.
        let parse = |path: &Path, text: &Arc<[u8]>| {
            let parsed = catch_unwind(AssertUnwindSafe(|| parse(path, text))).unwrap_or_else(|_| {
                let problem = Diagnostic::whole(path, "muster failed while reading this file");
                Err(vec![problem.with_hint("this is a bug in muster: please report it with the file")])
            });
            parsed.map(|value| Valid { text: Arc::clone(text), value: Arc::new(value) })
        };
        let is_known =
            |path: &Path, text: &Arc<FileText>| self.files.get(path).is_some_and(|kept| Arc::ptr_eq(&kept.text, text));
        let new: Vec<_> = contents.files.iter().filter(|(path, text)| !is_known(path, text)).collect();
        let read = |(path, text): &(&PathBuf, &Arc<FileText>)| {
            let known = self.files.get(*path);
            let mut withdrawn = known.is_some_and(|kept| kept.withdrawn);
            let parsed = match &***text {
                Ok(octets) => parse(path, octets),
                Err(unreadable) => Err(vec![unreadable.at(path)]),
            };
            let (valid, problems) = match parsed {
                Ok(valid) => (Some(valid), Vec::new()),
                Err(problems) => {
                    let valid = match known {
                        Some(kept) => kept.valid.clone(),
                        None => {
                            let former = self.former.get(*path);
                            let valid = former.and_then(|text| parse(path, text).ok());
                            withdrawn = former.is_some() && valid.is_none();
                            valid
                        }
                    };
                    (valid, problems)
                }
            };
            withdrawn &= valid.is_none();
            let changed = problems.is_empty() || known.is_none() && valid.is_some();
            (changed, Kept { text: Arc::clone(text), valid, problems, withdrawn })
        };
        let octets: usize = new.iter().map(|(_, text)| text.as_ref().as_ref().map_or(0, |text| text.len())).sum();
        let read = parallel::map(&new, octets / OCTETS_PER_THREAD, read);
        for ((path, _), (is_changed, kept)) in new.into_iter().zip(read) {
            changed |= is_changed;
            self.files.insert(path.clone(), kept);
        }
        // A folder without files may be one that is not mounted yet.
        if !contents.files.is_empty() {
            self.former.clear();
        }
        changed
    }

    /// The last valid texts of the files, in the order of their names.
    pub fn last_valid(&self) -> LastValidTexts {
        let file = |path: &PathBuf, text: &Arc<[u8]>| LastValidFile { path: path.clone(), text: Arc::clone(text) };
        let mut texts = LastValidTexts::default();
        for (path, kept) in &self.files {
            let Some(valid) = &kept.valid else { continue };
            let known = if kept.problems.is_empty() { &mut texts.of_valid } else { &mut texts.of_invalid };
            known.push(file(path, &valid.text));
        }
        texts.of_invalid.extend(self.former.iter().map(|(path, text)| file(path, text)));
        texts
    }

    /// The values in use, in the order of their file names.
    pub fn values(&self) -> impl Iterator<Item = (&Path, &Arc<T>)> {
        self.files.iter().filter_map(|(path, kept)| Some((path.as_path(), &kept.valid.as_ref()?.value)))
    }

    /// One warning for each invalid file that states which content is in use.
    pub fn consequences(&self) -> impl Iterator<Item = Diagnostic> {
        self.files.iter().filter(|(_, kept)| !kept.problems.is_empty()).map(|(path, kept)| {
            let message = match kept.valid {
                Some(_) => "the last valid content of this file stays in use until it is fixed",
                None if kept.withdrawn => {
                    "nothing from this file is in use until it is fixed: the configuration no longer allows its last \
                     valid content"
                }
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

    /// Sets the last valid texts of the former agent, before the first state is parsed.
    fn restore(&mut self, former: Vec<LastValidFile>);

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
    /// The last valid texts, for another start.
    pub last_valid: LastValidTexts,
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

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
            let seen = Mutex::new(Vec::new());
            let got = last_good.update(&now, |path, octets| {
                seen.lock().unwrap().push(path.display().to_string());
                let text = String::from_utf8_lossy(octets).into_owned();
                if text.ends_with('!') { Err(vec![Diagnostic::whole(path, "broken")]) } else { Ok(text) }
            });
            assert_eq!(seen.into_inner().unwrap().join(" "), parsed, "step {number}: parsed");
            assert_eq!(got, changed, "step {number}: changed");
            let got: Vec<_> = last_good.values().map(|(path, value)| format!("{}={value}", path.display())).collect();
            assert_eq!(got.join(" "), values, "step {number}: values");
            let got: Vec<_> = last_good.problems().map(|problem| problem.path.display().to_string()).collect();
            assert_eq!(got.join(" "), problems, "step {number}: problems");
        }
    }

    #[test]
    fn invalid_file_has_the_value_of_its_former_valid_text() {
        let parse = |path: &Path, octets: &[u8]| {
            let text = String::from_utf8_lossy(octets).into_owned();
            if text.ends_with('!') { Err(vec![Diagnostic::whole(path, "broken")]) } else { Ok(text) }
        };
        // Former texts, contents, values, last valid texts.
        let cases = [
            ("a=1 b=1", "a=! b=?", "a=1 b=1", "a=1 b=1"),
            ("a=1", "a=2", "a=2", ""),
            ("a=1", "b=2", "b=2", ""),
            ("a=!", "a=?", "", ""),
            ("a=1", "", "", "a=1"),
            ("", "a=!", "", ""),
        ];
        for (former, text, values, last_valid) in cases {
            let file = |file: &str| {
                let (path, text) = file.split_once('=').unwrap();
                LastValidFile { path: path.into(), text: text.as_bytes().into() }
            };
            let mut last_good = LastGood::new();
            last_good.restore(former.split_whitespace().map(file).collect());
            let now = contents(&Contents::empty(Path::new("d")), text);
            assert_eq!(last_good.update(&now, parse), !values.is_empty(), "{former}, {text}");
            let show = |last_good: &LastGood<String>| {
                let texts = last_good.last_valid().of_invalid.into_iter();
                let texts =
                    texts.map(|file| format!("{}={}", file.path.display(), String::from_utf8_lossy(&file.text)));
                texts.collect::<Vec<_>>().join(" ")
            };
            let got: Vec<_> = last_good.values().map(|(path, value)| format!("{}={value}", path.display())).collect();
            assert_eq!((got.join(" ").as_str(), show(&last_good).as_str()), (values, last_valid), "{former}, {text}");
            let stays = "the last valid content of this file stays in use until it is fixed";
            let warnings = last_good.consequences().filter(|warning| warning.message == stays).count();
            assert_eq!(warnings, if text.is_empty() { 0 } else { last_valid.split_whitespace().count() });
            // A file that is deleted and created again is new.
            last_good.update(&contents(&now, "z=1"), parse);
            last_good.update(&contents(&now, "a=! z=1"), parse);
            assert_eq!(show(&last_good), "", "{former}, {text}");
        }
    }

    #[test]
    fn former_text_that_is_refused_as_well_is_withdrawn() {
        let refuse = |path: &Path, octets: &[u8]| match octets {
            b"2" => Ok(()),
            _ => Err(vec![Diagnostic::whole(path, "refused")]),
        };
        let former = |name: &str, text: &str| LastValidFile { path: name.into(), text: text.as_bytes().into() };
        let mut files = LastGood::new();
        files.restore(vec![former("a", "1"), former("b", "2"), former("c", "1")]);
        let mut now = contents(&Contents::empty(Path::new("d")), "a=1 b=? c=? d=1");
        files.update(&now, refuse);
        let shown = |files: &LastGood<()>| {
            let warnings = files.consequences().map(|it| format!("{}: {}", it.path.display(), it.message));
            warnings.collect::<Vec<_>>()
        };
        let nothing = "nothing from this file is in use until it is fixed";
        let withdrawn = format!("{nothing}: the configuration no longer allows its last valid content");
        let stays = "the last valid content of this file stays in use until it is fixed";
        let expected =
            [format!("a: {withdrawn}"), format!("b: {stays}"), format!("c: {withdrawn}"), format!("d: {nothing}")];
        assert_eq!(shown(&files), expected);
        now = contents(&now, "a=! b=? c=2 d=1");
        files.update(&now, refuse);
        assert_eq!(shown(&files), [&expected[0], &expected[1], &expected[3]].map(Clone::clone));
        now = contents(&now, "c=?");
        files.update(&now, refuse);
        assert_eq!(shown(&files), [format!("c: {stays}")]);
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
