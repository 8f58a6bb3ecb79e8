//! The sources as a whole: which modules there are, and which of them import which.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs,
    path::Path,
};

use crate::scan::{Seen, Source, What};

/// All sources, and the names of the crates that the package depends on.
pub(crate) struct House {
    pub(crate) sources: Vec<Source>,
    pub(crate) crates: BTreeSet<String>,
}

/// One module names another.
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

impl House {
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

    /// Everything that stands anywhere.
    pub(crate) fn seen(&self) -> impl Iterator<Item = (&Source, &Seen)> {
        self.sources.iter().flat_map(|source| source.seen.iter().map(move |seen| (source, seen)))
    }

    /// Everything that stands outside tests.
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

    /// The module of ours that a path in `module` leads to or into; `None` where it leads elsewhere.
    pub(crate) fn resolve(&self, module: &str, path: &[String]) -> Option<String> {
        let mut at: Vec<&str> = module.split("::").filter(|segment| !segment.is_empty()).collect();
        let mut rest = path.iter().map(String::as_str).peekable();
        match *rest.peek()? {
            // `muster` is what the binary calls the library.
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

/// Whether `module` is `ancestor` or below it.
pub(crate) fn is_within(module: &str, ancestor: &str) -> bool {
    module.strip_prefix(ancestor).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The folder in which the ways of two modules part, and the two modules there; `None` where one is above the other.
pub(crate) fn siblings(from: &str, to: &str) -> Option<(String, String, String)> {
    let (from, to): (Vec<_>, Vec<_>) = (from.split("::").collect(), to.split("::").collect());
    let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    (common < from.len() && common < to.len()).then(|| {
        let upto = |path: &[&str]| path[..=common].join("::");
        (from[..common].join("::"), upto(&from), upto(&to))
    })
}

/// The shortest way along `edges` from `start` back to it, `start` included once.
pub(crate) fn way_back(edges: &BTreeMap<String, BTreeMap<String, String>>, start: &String) -> Option<Vec<String>> {
    let mut ways = VecDeque::from([vec![start.clone()]]);
    let mut visited = BTreeSet::new();
    while let Some(way) = ways.pop_front() {
        for next in way.last().and_then(|last| edges.get(last)).into_iter().flat_map(BTreeMap::keys) {
            if next == start {
                return Some(way);
            }
            if visited.insert(next.clone()) {
                ways.push_back(way.iter().chain([next]).cloned().collect());
            }
        }
    }
    None
}

/// The dependencies of a manifest in any of its tables: line (from 0) and name.
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

/// All Rust files below a folder of the repository, as sources; their modules are named after their paths.
pub(crate) fn read(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join(folder)];
    let mut sources = vec![];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                // `fuzz/target` is no source of ours.
                folders.extend(Some(path).filter(|path| !path.ends_with("target")));
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let file = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                sources.push(Source::parse(&file, &module_of(&file), &fs::read_to_string(&path).unwrap()).unwrap());
            }
        }
    }
    sources.sort_by(|a, b| a.file.cmp(&b.file));
    sources
}

/// The module that a file is: `src/dns/table/mod.rs` is `dns::table`.
pub(crate) fn module_of(file: &str) -> String {
    let path = file.strip_prefix("src/").unwrap_or(file).trim_end_matches(".rs");
    path.strip_suffix("/mod").unwrap_or(path).replace('/', "::")
}
