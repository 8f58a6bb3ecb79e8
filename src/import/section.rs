//! A table of Consul that is read key by key, so that every key that is not converted is reported.

use std::{cell::RefCell, collections::BTreeMap, time::Duration};

use super::{
    report::{Finding, FindingKind, Findings},
    tree::{Entry, Node, Position, Value, is_key},
};
use crate::registry::registration::go_duration;

/// Reason of a key that is not in Consul's documentation either.
const UNKNOWN: &str = "Unknown key";

/// Names of the files, and the findings.
#[derive(Debug)]
pub(super) struct Context<'a> {
    /// Name of each source, by its number.
    pub(super) files: &'a [String],
    pub(super) findings: RefCell<Findings>,
}

/// Place of a value: its position and the path of its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) at: Position,
    pub(super) path: String,
}

impl Place {
    /// The place of a key below this one.
    pub(super) fn below(&self, key: &str, at: Position) -> Self {
        let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        Self { at, path }
    }

    /// The place of an item of the list at this place.
    pub(super) fn item(&self, number: usize, at: Position) -> Self {
        Self { at, path: format!("{}[{number}]", self.path) }
    }
}

impl Context<'_> {
    /// Name of the file of a position.
    pub(super) fn file(&self, at: Position) -> &str {
        self.files.get(usize::from(at.file)).map_or("", String::as_str)
    }

    /// Reports a key that is not converted.
    pub(super) fn lost(&self, place: &Place, reason: impl Into<String>) {
        self.report(FindingKind::NotConverted, place, reason.into());
    }

    /// Reports a key whose result depends on a fact that no key states.
    pub(super) fn assumed(&self, place: &Place, reason: impl Into<String>) {
        self.report(FindingKind::Assumed, place, reason.into());
    }

    /// Reports a key that muster does not need.
    pub(super) fn unneeded(&self, place: &Place, reason: impl Into<String>) {
        self.report(FindingKind::NotNeeded, place, reason.into());
    }

    fn report(&self, kind: FindingKind, place: &Place, reason: String) {
        let file = self.file(place.at).to_owned();
        self.findings.borrow_mut().push(Finding { kind, reason, file, line: place.at.line, key: place.path.clone() });
    }
}

/// A value with its place.
#[derive(Clone, Debug)]
pub(super) struct Field<'a> {
    pub(super) node: &'a Node,
    pub(super) place: Place,
}

/// A table whose keys are taken one by one.
#[derive(Debug)]
pub(super) struct Section<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) place: Place,
    entries: Vec<&'a Entry>,
    taken: RefCell<Vec<bool>>,
}

impl<'a> Section<'a> {
    /// Reads a table. Reports any other value, and returns `None`.
    pub(super) fn of(context: &'a Context<'a>, field: &Field<'a>) -> Option<Self> {
        let entries = match &field.node.value {
            Value::Null => return None,
            _ => field.node.entries(),
        };
        let Some(entries) = entries else {
            context.lost(&field.place, format!("Expected a table, found {}", field.node.value.kind()));
            return None;
        };
        Some(Self::of_entries(context, field.place.clone(), entries))
    }

    pub(super) fn of_entries(context: &'a Context<'a>, place: Place, entries: Vec<&'a Entry>) -> Self {
        let taken = RefCell::new(vec![false; entries.len()]);
        Self { context, place, entries, taken }
    }

    /// Takes a key by its snake-case name. Of repeated keys the last one counts, as in Consul.
    pub(super) fn take(&self, name: &str) -> Option<Field<'a>> {
        let mut found = None;
        for (entry, taken) in self.entries.iter().zip(self.taken.borrow_mut().iter_mut()) {
            if is_key(&entry.key, name) {
                *taken = true;
                found = Some(*entry);
            }
        }
        let entry = found.filter(|entry| entry.value.value != Value::Null)?;
        Some(Field { node: &entry.value, place: self.place.below(&entry.key, entry.value.at) })
    }

    /// Takes the first of several names that has a value.
    pub(super) fn take_any(&self, names: &[&str]) -> Option<Field<'a>> {
        names.iter().filter_map(|name| self.take(name)).next()
    }

    pub(super) fn text(&self, name: &str) -> Option<(&'a str, Place)> {
        let field = self.take(name)?;
        let text = self.context.text(&field)?;
        (!text.is_empty()).then_some((text, field.place))
    }

    pub(super) fn flag(&self, name: &str) -> Option<(bool, Place)> {
        let field = self.take(name)?;
        let flag = match &field.node.value {
            Value::Bool(flag) => *flag,
            Value::Text(text) if text.eq_ignore_ascii_case("true") => true,
            Value::Text(text) if text.eq_ignore_ascii_case("false") || text.is_empty() => false,
            _ => {
                self.context.mismatch(&field, "true or false");
                return None;
            }
        };
        Some((flag, field.place))
    }

    pub(super) fn integer(&self, name: &str) -> Option<(i64, Place)> {
        let field = self.take(name)?;
        let number = match &field.node.value {
            Value::Integer(number) => Some(*number),
            Value::Text(text) => text.parse().ok(),
            _ => None,
        };
        if number.is_none() {
            self.context.mismatch(&field, "an integer");
        }
        Some((number?, field.place))
    }

    pub(super) fn duration(&self, name: &str) -> Option<(Duration, Place)> {
        let field = self.take(name)?;
        Some((self.context.duration(&field)?, field.place))
    }

    /// Takes a list of strings; a string is a list of one. Reports items of another type.
    pub(super) fn texts(&self, name: &str) -> Vec<(&'a str, Place)> {
        let Some(field) = self.take(name) else { return Vec::new() };
        let is_list = matches!(field.node.value, Value::List(_));
        let mut texts = Vec::new();
        for (number, node) in field.node.items().into_iter().enumerate() {
            let place = if is_list { field.place.item(number, node.at) } else { field.place.clone() };
            texts.extend(self.context.text(&Field { node, place: place.clone() }).map(|text| (text, place)));
        }
        texts
    }

    pub(super) fn section(&self, name: &str) -> Option<Section<'a>> {
        Section::of(self.context, &self.take(name)?)
    }

    /// Takes one table or a list of tables, each with its place.
    pub(super) fn sections(&self, name: &str) -> Vec<Section<'a>> {
        let Some(field) = self.take(name) else { return Vec::new() };
        let is_list = matches!(field.node.value, Value::List(_));
        let items = field.node.items().into_iter().enumerate();
        items
            .filter_map(|(number, node)| {
                let place = if is_list { field.place.item(number, node.at) } else { field.place.clone() };
                Section::of(self.context, &Field { node, place })
            })
            .collect()
    }

    /// The entries that were not taken.
    pub(super) fn rest(&self) -> Vec<(&'a str, Field<'a>)> {
        let mut taken = self.taken.borrow_mut();
        let rest: Vec<_> = self.entries.iter().zip(taken.iter()).filter(|(_, taken)| !**taken).collect();
        let rest = rest
            .into_iter()
            .map(|(entry, _)| {
                let place = self.place.below(&entry.key, entry.value.at);
                (entry.key.as_str(), Field { node: &entry.value, place })
            })
            .collect();
        taken.fill(true);
        rest
    }

    /// Reports keys with a reason each. A key with an empty value has no effect in Consul and is not reported.
    pub(super) fn lose(&self, keys: &[(&str, &str)]) {
        self.report_each(keys, Context::lost);
    }

    /// Like [`lose`](Self::lose), for keys that muster does not need.
    pub(super) fn skip(&self, keys: &[(&str, &str)]) {
        self.report_each(keys, Context::unneeded);
    }

    /// Takes a key that was not taken before and has a value other than the zero value of its type.
    pub(super) fn take_left(&self, name: &str) -> Option<Field<'a>> {
        let is_left = |(entry, taken): (&&Entry, &bool)| !*taken && is_key(&entry.key, name);
        let left = self.entries.iter().zip(self.taken.borrow().iter()).any(is_left);
        self.take(name).filter(|field| left && !is_empty(field.node))
    }

    fn report_each(&self, keys: &[(&str, &str)], report: fn(&Context<'a>, &Place, String)) {
        for (name, reason) in keys {
            if let Some(field) = self.take_left(name) {
                report(self.context, &field.place, (*reason).to_owned());
            }
        }
    }

    /// Reports the keys that were not taken as unknown.
    pub(super) fn finish(self) {
        for (_, field) in self.rest() {
            self.context.lost(&field.place, UNKNOWN);
        }
    }

    /// Reports whether the table has any key.
    pub(super) fn has_settings(&self) -> bool {
        !self.entries.is_empty()
    }

    /// Takes all keys, because the table as a whole is reported.
    pub(super) fn abandon(self, reason: &str) {
        drop(self.rest());
        self.context.lost(&self.place, reason);
    }
}

/// Reports whether a value has the zero value of its type.
pub(super) fn is_empty(node: &Node) -> bool {
    match &node.value {
        Value::Null | Value::Bool(false) | Value::Integer(0) => true,
        Value::Text(text) => text.is_empty() || is_zero_duration(text),
        Value::List(items) => items.is_empty(),
        Value::Table(entries) => entries.is_empty(),
        Value::Bool(true) | Value::Integer(_) | Value::Float(_) | Value::Expression => false,
    }
}

/// Reports whether a text is a duration of zero, such as `0s`, which is unset in Consul.
fn is_zero_duration(text: &str) -> bool {
    text.starts_with('0') && text.len() > 1 && go_duration(text).is_some_and(|duration| duration.is_zero())
}

impl Context<'_> {
    /// A string. Numbers and booleans are strings in Consul, too, where it expects one.
    pub(super) fn text<'a>(&self, field: &Field<'a>) -> Option<&'a str> {
        match &field.node.value {
            Value::Text(text) => Some(text),
            _ => {
                self.mismatch(field, "a string");
                None
            }
        }
    }

    /// A duration as Go writes it, or nanoseconds.
    pub(super) fn duration(&self, field: &Field<'_>) -> Option<Duration> {
        let duration = match &field.node.value {
            Value::Text(text) if text.is_empty() => return None,
            Value::Text(text) => go_duration(text),
            Value::Integer(nanoseconds) => u64::try_from(*nanoseconds).ok().map(Duration::from_nanos),
            _ => None,
        };
        if duration.is_none() {
            self.mismatch(field, "a duration such as \"10s\"");
        }
        duration
    }

    /// A table of strings; the result has the place of each.
    pub(super) fn text_table<'a>(&'a self, field: &Field<'a>) -> BTreeMap<&'a str, (String, Place)> {
        let mut texts = BTreeMap::new();
        let Some(section) = Section::of(self, field) else { return texts };
        for (key, field) in section.rest() {
            let text = match &field.node.value {
                Value::Text(text) => text.clone(),
                Value::Bool(flag) => flag.to_string(),
                Value::Integer(number) => number.to_string(),
                _ => {
                    self.mismatch(&field, "a string");
                    continue;
                }
            };
            texts.insert(key, (text, field.place));
        }
        texts
    }

    /// Reports a value of another type than Consul's.
    pub(super) fn mismatch(&self, field: &Field<'_>, expected: &str) {
        match &field.node.value {
            Value::Expression => self.lost(&field.place, "Expressions of HCL are not computed: write the value"),
            value => self.lost(&field.place, format!("Expected {expected}, found {}", value.kind())),
        }
    }
}
