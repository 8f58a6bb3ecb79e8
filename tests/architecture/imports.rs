//! All sources: which modules exist and which import which.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs,
    path::Path,
};

use crate::source::{Seen, Source, What};

/// All sources, with the names of the dependencies.
pub(crate) struct SourceTree {
    pub(crate) sources: Vec<Source>,
    pub(crate) crates: BTreeSet<String>,
}

/// An import of one module by another.
pub(crate) struct Import {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) file: String,
    pub(crate) line: usize,
}

impl Import {
    pub(crate) fn place(&self) -> String {
        format!("{}:{}", self.file, self.line)
    }
}

impl SourceTree {
    pub(crate) fn new(sources: Vec<Source>, manifest: &str) -> Self {
        let mut sources = sources;
        let tests: Vec<String> = sources.iter().flat_map(|source| source.test_modules.clone()).collect();
        for source in &mut sources {
            if tests.iter().any(|module| is_within(&source.module, module)) {
                source.test_lines = source.text.lines().count();
                source.seen.iter_mut().for_each(|seen| seen.test = true);
            }
        }
        Self { sources, crates: dependencies(manifest).into_iter().map(|(_, name)| name.replace('-', "_")).collect() }
    }

    /// Items of all files.
    pub(crate) fn seen(&self) -> impl Iterator<Item = (&Source, &Seen)> {
        self.sources.iter().flat_map(|source| source.seen.iter().map(move |seen| (source, seen)))
    }

    /// Items outside tests.
    pub(crate) fn code(&self) -> impl Iterator<Item = (&Source, &Seen)> {
        self.seen().filter(|(_, seen)| !seen.test)
    }

    pub(crate) fn imports(&self) -> impl Iterator<Item = Import> {
        self.code().filter_map(|(source, seen)| {
            let What::Path(path) = &seen.what else { return None };
            let to = self.resolve(&seen.module, path)?;
            let import = || Import { from: source.module.clone(), to, file: source.file.clone(), line: seen.line };
            Some(import()).filter(|import| import.from != import.to)
        })
    }

    /// Returns the module that a path in `module` names; `None` if it is not in this crate.
    pub(crate) fn resolve(&self, module: &str, path: &[String]) -> Option<String> {
        let mut at: Vec<&str> = module.split("::").filter(|segment| !segment.is_empty()).collect();
        let mut rest = path.iter().map(String::as_str).peekable();
        match *rest.peek()? {
            // The binary imports the library as `muster`.
            "crate" | "muster" => {
                at.clear();
                rest.next();
            }
            "self" => drop(rest.next()),
            "super" => {
                while rest.next_if_eq(&"super").is_some() {
                    at.pop();
                }
            }
            child => {
                let child = if at.is_empty() { child.to_owned() } else { format!("{}::{child}", at.join("::")) };
                self.sources.iter().find(|source| source.module == child)?;
            }
        }
        at.extend(rest);
        let is_module = |path: &[&str]| self.sources.iter().any(|source| source.module == path.join("::"));
        (1..=at.len()).rev().find(|len| is_module(&at[..*len])).map(|len| at[..len].join("::"))
    }
}

/// Reports whether `module` is `ancestor` or below it.
pub(crate) fn is_within(module: &str, ancestor: &str) -> bool {
    module.strip_prefix(ancestor).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Returns the lowest common parent of two modules and its two children on their paths; `None` if one contains the other.
pub(crate) fn siblings(from: &str, to: &str) -> Option<(String, String, String)> {
    let (from, to): (Vec<_>, Vec<_>) = (from.split("::").collect(), to.split("::").collect());
    let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    (common < from.len() && common < to.len()).then(|| {
        let upto = |path: &[&str]| path[..=common].join("::");
        (from[..common].join("::"), upto(&from), upto(&to))
    })
}

/// Returns the shortest cycle along `edges` through `start`, which is its first element.
pub(crate) fn path_back(edges: &BTreeMap<String, BTreeMap<String, String>>, start: &String) -> Option<Vec<String>> {
    let mut paths = VecDeque::from([vec![start.clone()]]);
    let mut visited = BTreeSet::new();
    while let Some(path) = paths.pop_front() {
        for next in path.last().and_then(|last| edges.get(last)).into_iter().flat_map(BTreeMap::keys) {
            if next == start {
                return Some(path);
            }
            if visited.insert(next.clone()) {
                paths.push_back(path.iter().chain([next]).cloned().collect());
            }
        }
    }
    None
}

/// Returns the dependencies in all tables of a manifest: line (from 0) and name.
pub(crate) fn dependencies(manifest: &str) -> Vec<(usize, String)> {
    let mut found = vec![];
    let mut inside = false;
    for (at, line) in manifest.lines().enumerate() {
        if let Some(table) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            inside = table.ends_with("dependencies");
            if let Some((_, name)) = table.split_once("dependencies.") {
                found.push((at, name.to_owned()));
            }
        } else if inside
            && line.starts_with(|c: char| c.is_ascii_alphanumeric())
            && let Some((name, _)) = line.split_once(['=', '.'])
        {
            found.push((at, name.trim().to_owned()));
        }
    }
    found
}

/// Reads all Rust files below a folder of the repository. Modules are named after their paths.
pub(crate) fn read(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join(folder)];
    let mut sources = vec![];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                // `fuzz/target` holds build output; generated code follows no rules.
                folders.extend(Some(path).filter(|path| !path.ends_with("target") && !path.ends_with("generated")));
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let file = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                sources.push(Source::parse(&file, &module_of(&file), &fs::read_to_string(&path).unwrap()).unwrap());
            }
        }
    }
    sources.sort_by(|a, b| a.file.cmp(&b.file));
    sources
}

/// Returns the module of a file: `src/dns/zone/mod.rs` is `dns::zone`.
pub(crate) fn module_of(file: &str) -> String {
    let path = file.strip_prefix("src/").unwrap_or(file).trim_end_matches(".rs");
    path.strip_suffix("/mod").unwrap_or(path).replace('/', "::")
}
