//! Conversion of a YAML tree to typed values. It collects all problems instead of stopping at the first.
//!
//! Functions that read a value return `None` after they reported a problem. The caller continues with a default to find
//! further problems. [`Reader::finish`] returns the result, or the problems if there was an error.

use std::{
    cell::{Cell, RefCell},
    path::{Path, PathBuf},
};

use super::{
    Document,
    tree::{Clash, Entry, Id, Node, Value},
};
use crate::diagnostic::{Diagnostic, describe, quote};

/// Maximum number of problems that a reader keeps in memory.
pub const MAX_PROBLEMS: usize = 1000;
/// Longest key in octets for which a correction is suggested.
const MAX_MISSPELT: usize = 40;

/// Reader of one document, or of several merged ones.
#[derive(Debug)]
pub struct Reader<'d, 't> {
    documents: &'d [Document<'t>],
    /// True if messages describe keys and values instead of quoting them.
    secret: bool,
    problems: RefCell<Vec<Diagnostic>>,
    left_out: Cell<usize>,
    refused: Cell<bool>,
}

impl<'d, 't> Reader<'d, 't> {
    /// Creates a reader of these documents, in the order of their source numbers, and reports their duplicate keys.
    ///
    /// Messages quote keys and scalars. So the caller has verified that the documents are of the expected kind: a link may
    /// lead to any other file.
    pub fn new(documents: &'d [Document<'t>]) -> Self {
        Self::start(documents, false)
    }

    /// Creates a reader of documents with secrets. Messages describe keys and scalars.
    pub fn of_secrets(documents: &'d [Document<'t>]) -> Self {
        Self::start(documents, true)
    }

    fn start(documents: &'d [Document<'t>], secret: bool) -> Self {
        let problems = RefCell::default();
        let reader = Self { documents, secret, problems, left_out: Cell::new(0), refused: Cell::new(false) };
        for clash in documents.iter().flat_map(|document| &document.clashes) {
            match clash {
                Clash::Twice { key, first, second } => {
                    let hint = format!("the first one is in line {}", reader.position(*first).0);
                    reader.error_with_hint(*second, format!("duplicate {}", reader.show_key(key)), hint);
                }
                Clash::Merge(id) => reader.error(*id, "`<<` needs a table or a list of tables"),
            }
        }
        reader
    }

    /// Returns the value with the warnings, or all problems if one is an error. Problems are sorted by position.
    pub fn finish<T>(self, read: Option<T>) -> Result<(T, Vec<Diagnostic>), Vec<Diagnostic>> {
        let mut problems = self.problems.into_inner();
        problems.sort();
        if let (left_out @ 1.., Some(last)) = (self.left_out.get(), problems.last()) {
            problems.push(Diagnostic::at(&last.path, last.line, last.column, format!("and {left_out} more problems")));
        }
        match read {
            Some(read) if !self.refused.get() => Ok((read, problems)),
            _ => Err(problems),
        }
    }

    /// Reports an error at a node or a key.
    pub fn error(&self, id: Id, message: impl Into<String>) {
        self.report(self.problem(id, message));
    }

    /// Reports an error with a hint.
    pub fn error_with_hint(&self, id: Id, message: impl Into<String>, hint: impl Into<String>) {
        self.report(self.problem(id, message).with_hint(hint));
    }

    /// Reports a warning with a hint. The file stays usable.
    pub fn warning(&self, id: Id, message: impl Into<String>, hint: impl Into<String>) {
        self.report(self.problem(id, message).with_hint(hint).as_warning());
    }

    /// Reports that a node is not the expected `what`.
    pub fn mismatch(&self, node: &Node<'_>, what: &str) {
        self.error(node.id, self.expected(node, what));
    }

    /// Reports that a node is not the expected `what`, with a hint.
    pub fn mismatch_with_hint(&self, node: &Node<'_>, what: &str, hint: impl Into<String>) {
        self.error_with_hint(node.id, self.expected(node, what), hint);
    }

    /// Reports that a node is not the expected `what`, without its content: it has another shape, or may be a secret.
    pub fn mismatch_described(&self, node: &Node<'_>, what: &str) {
        self.error(node.id, unexpected(node, what));
    }

    /// Line and column of a node or a key, counted from 1.
    pub fn position(&self, id: Id) -> (usize, usize) {
        self.document(id).map_or((1, 1), |document| document.position(id))
    }

    /// Path of the file of a node or a key.
    pub fn file(&self, id: Id) -> &'d Path {
        self.document(id).map_or(Path::new(""), |document| &document.path)
    }

    /// Written form of an unquoted scalar.
    pub(super) fn written(&self, id: Id) -> Option<&'d str> {
        self.document(id)?.marks.written(id.node)
    }

    /// Reports whether a scalar is quoted.
    pub(super) fn is_quoted(&self, id: Id) -> bool {
        self.document(id).is_some_and(|document| document.marks.is_quoted(id.node))
    }

    fn document(&self, id: Id) -> Option<&'d Document<'t>> {
        self.documents.get(usize::from(id.source))
    }

    fn problem(&self, id: Id, message: impl Into<String>) -> Diagnostic {
        let (line, column) = self.position(id);
        Diagnostic::at(self.file(id), line, column, message)
    }

    fn report(&self, problem: Diagnostic) {
        self.refused.set(self.refused.get() || problem.is_error());
        let mut problems = self.problems.borrow_mut();
        if problems.len() < MAX_PROBLEMS {
            problems.push(problem);
        } else {
            self.left_out.set(self.left_out.get() + 1);
        }
    }

    fn expected(&self, node: &Node<'_>, what: &str) -> String {
        let written = || quote(self.written(node.id).unwrap_or_default());
        let found = match &node.value {
            Value::Bool(_) if !self.secret => written(),
            Value::Integer(_) | Value::Float if !self.secret => format!("the number {}", written()),
            Value::Text(text) => self.show(text),
            value => describe_value(value),
        };
        format!("expected {what}, found {found}")
    }

    fn show(&self, text: &str) -> String {
        if self.secret { describe(text) } else { quote(text) }
    }

    fn show_key(&self, key: &str) -> String {
        if self.secret { format!("key of {} characters", key.chars().count()) } else { format!("key {}", quote(key)) }
    }
}

/// Returns the message for a node that is not the expected `what`, without its content.
pub fn unexpected(node: &Node<'_>, what: &str) -> String {
    format!("expected {what}, found {}", describe_value(&node.value))
}

fn describe_value(value: &Value<'_>) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(_) => "a boolean".to_owned(),
        Value::Integer(_) | Value::Float => "a number".to_owned(),
        Value::Text(text) => describe(text),
        Value::List(_) => "a list".to_owned(),
        Value::Table(_) => "a table".to_owned(),
    }
}

/// A table with a fixed set of keys.
#[derive(Clone, Copy, Debug)]
pub struct Table<'n, 't> {
    /// Identifies the position of the table.
    pub id: Id,
    entries: &'n [Entry<'t>],
}

impl<'n, 't> Table<'n, 't> {
    /// Value of a key. `None` for a missing key, no value or `null`: all mean the default.
    pub fn get(&self, key: &str) -> Option<&'n Node<'t>> {
        self.entry(key).map(|entry| &entry.value).filter(|node| !matches!(node.value, Value::Null))
    }

    /// All entries, in the order of the text.
    pub fn entries(&self) -> &'n [Entry<'t>] {
        self.entries
    }

    /// Entry of a key, with any value.
    pub fn entry(&self, key: &str) -> Option<&'n Entry<'t>> {
        self.entries.iter().find(|entry| entry.key == key)
    }
}

impl Reader<'_, '_> {
    /// Reads a table and reports keys that are not in `known`.
    pub fn table<'n, 't>(&self, node: &'n Node<'t>, what: &str, known: &[&str]) -> Option<Table<'n, 't>> {
        let entries = self.entries(node, what)?;
        for entry in entries.iter().filter(|entry| !known.contains(&&*entry.key)) {
            let hint = match did_you_mean(&entry.key, known) {
                Some(hint) => hint,
                None => format!("the keys of {what} are {}", known.join(", ")),
            };
            self.error_with_hint(entry.id, format!("unknown {}", self.show_key(&entry.key)), hint);
        }
        Some(Table { id: node.id, entries })
    }

    /// Reads a table with any keys.
    pub fn entries<'n, 't>(&self, node: &'n Node<'t>, what: &str) -> Option<&'n [Entry<'t>]> {
        match &node.value {
            Value::Table(entries) => Some(entries),
            _ => {
                self.mismatch_described(node, what);
                None
            }
        }
    }

    /// Returns the items of a list, or a single value as one item.
    pub fn one_or_list<'n, 't>(&self, node: &'n Node<'t>) -> &'n [Node<'t>] {
        match &node.value {
            Value::List(items) => items,
            _ => std::slice::from_ref(node),
        }
    }

    /// Returns the value of a required key, or reports that it is missing.
    pub fn required<'n, 't>(&self, table: &Table<'n, 't>, key: &str, example: &str) -> Option<&'n Node<'t>> {
        let node = table.get(key);
        if node.is_none() {
            let id = table.entry(key).map_or(table.id, |entry| entry.id);
            self.error_with_hint(id, format!("`{key}` is missing"), format!("as in `{example}`"));
        }
        node
    }

    /// Checks `count` against the bound `most` and reports an excess.
    pub fn is_within(&self, id: Id, count: usize, most: usize, what: &str) -> bool {
        if count > most {
            self.error(id, format!("at most {most} {what} are allowed, found {count}"));
        }
        count <= most
    }

    /// Reads a path. A relative path is relative to the folder of its file.
    pub fn path(&self, node: &Node<'_>) -> Option<PathBuf> {
        let text = self.line(node, "a path")?;
        Some(self.file(node.id).parent().unwrap_or(Path::new("")).join(text))
    }
}

/// Returns ``did you mean `interval`?`` if one of the words is similar.
pub fn did_you_mean(word: &str, known: &[&str]) -> Option<String> {
    if word.len() > MAX_MISSPELT {
        return None;
    }
    let word = word.to_ascii_lowercase();
    let distance = |known: &&&str| strsim::damerau_levenshtein(&word, known);
    let nearest = known.iter().min_by_key(distance)?;
    // At most a third of the letters differ: `intervall` and `adress` are typing errors, `foo` for `fall` is not.
    (distance(&nearest) * 3 <= nearest.len().max(3)).then(|| format!("did you mean `{nearest}`?"))
}
