//! Fields of the JSON objects that clients of Consul's API send.

use std::{collections::BTreeMap, fmt::Display, time::Duration};

use serde_json::{Map, Value};

use super::duration::go_duration;
use crate::registry::error::FieldError;

/// Maximum characters of a client's string that a message repeats.
const MAX_QUOTE: usize = 60;

/// Reports whether a key names a field, regardless of case and underscores.
pub(super) fn is(key: &str, field: &str) -> bool {
    let plain = |text: &str| text.bytes().filter(|b| *b != b'_').map(|b| b.to_ascii_lowercase()).collect::<Vec<u8>>();
    plain(key) == plain(field)
}

/// Returns a field of a JSON object, regardless of the case and underscores of its key.
pub fn field<'a>(body: &'a Value, name: &str) -> Option<&'a Value> {
    Some(Fields::new(body, "").ok()?.get(name)?).filter(|value| !value.is_null())
}

/// The fields of a JSON object, by their names in Consul's documentation.
pub(super) struct Fields<'a> {
    place: String,
    fields: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// Reads an object. `place` is its path in the body, empty for the body itself.
    pub(super) fn new(value: &'a Value, place: &str) -> Result<Self, FieldError> {
        let fields = value.as_object().ok_or_else(|| {
            let field = if place.is_empty() { "the body" } else { place };
            mismatch(field.to_owned(), "a JSON object", value)
        })?;
        Ok(Self { place: place.to_owned(), fields })
    }

    /// Returns the value of a field of any type.
    pub(super) fn get(&self, field: &str) -> Option<&'a Value> {
        self.fields.get(field).or_else(|| self.fields.iter().find(|(key, _)| is(key, field)).map(|(_, value)| value))
    }

    /// The value of a field that is neither missing nor `null`.
    fn value(&self, field: &str) -> Option<&'a Value> {
        self.get(field).filter(|value| !value.is_null())
    }

    /// The path of a field in the body.
    pub(super) fn path(&self, field: &str) -> String {
        if self.place.is_empty() { field.to_owned() } else { format!("{}.{field}", self.place) }
    }

    /// The path of the object in the body.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// An error for a field that is not `expected`.
    pub(super) fn mismatch(&self, field: &str, expected: &str) -> FieldError {
        mismatch(self.path(field), expected, self.get(field).unwrap_or(&Value::Null))
    }

    /// An error for a field for a feature that muster does not have.
    pub(super) fn unsupported(&self, field: &str, reason: &'static str) -> FieldError {
        FieldError::Unsupported { field: self.path(field), reason }
    }

    /// Reports whether the field is missing or has the zero value of its type.
    pub(super) fn is_empty(&self, field: &str) -> bool {
        self.get(field).is_none_or(is_zero)
    }

    /// Reports whether the field is missing or `null`.
    pub(super) fn is_missing(&self, field: &str) -> bool {
        self.value(field).is_none()
    }

    /// A string; `None` if it is missing or empty.
    pub(super) fn text(&self, field: &str) -> Result<Option<&'a str>, FieldError> {
        match self.value(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
            Some(_) => Err(self.mismatch(field, "a string")),
        }
    }

    /// An integer from 0 to `most`.
    pub(super) fn integer<N>(&self, field: &str, most: &N) -> Result<Option<N>, FieldError>
    where
        N: TryFrom<u64> + PartialOrd + Display,
    {
        let Some(value) = self.value(field) else { return Ok(None) };
        let number = value.as_u64().and_then(|number| N::try_from(number).ok()).filter(|number| number <= most);
        match number {
            Some(number) => Ok(Some(number)),
            None => Err(self.mismatch(field, &format!("an integer from 0 to {most}"))),
        }
    }

    /// A boolean; `false` if it is missing.
    pub(super) fn flag(&self, field: &str) -> Result<bool, FieldError> {
        match self.value(field) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(self.mismatch(field, "true or false")),
        }
    }

    /// An array of strings; empty if it is missing.
    pub(super) fn list(&self, field: &str) -> Result<Vec<&'a str>, FieldError> {
        match self.value(field) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => {
                let text = |(at, item): (usize, &'a Value)| {
                    item.as_str().ok_or_else(|| mismatch(format!("{}[{at}]", self.path(field)), "a string", item))
                };
                items.iter().enumerate().map(text).collect()
            }
            Some(_) => Err(self.mismatch(field, "an array of strings")),
        }
    }

    /// An object whose values are strings; empty if it is missing.
    pub(super) fn texts(&self, field: &str) -> Result<BTreeMap<String, String>, FieldError> {
        let text = |(key, value): (&String, &Value)| match value.as_str() {
            Some(text) => Ok((key.clone(), text.to_owned())),
            None => Err(mismatch(format!("{}.{key}", self.path(field)), "a string", value)),
        };
        match self.value(field) {
            None => Ok(BTreeMap::new()),
            Some(Value::Object(table)) => table.iter().map(text).collect(),
            Some(_) => Err(self.mismatch(field, "an object of strings")),
        }
    }

    /// An object; `None` if it is missing.
    pub(super) fn object(&self, field: &str) -> Result<Option<Fields<'a>>, FieldError> {
        self.value(field).map(|value| Fields::new(value, &self.path(field))).transpose()
    }

    /// The keys and values of the object, as they are written.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'a String, &'a Value)> {
        self.fields.iter()
    }

    /// A duration: a string, or nanoseconds as Go encodes it; `None` if it is missing or empty.
    pub(super) fn duration(&self, field: &str) -> Result<Option<Duration>, FieldError> {
        let duration = match self.value(field) {
            None => return Ok(None),
            Some(Value::String(text)) if text.is_empty() => return Ok(None),
            Some(Value::String(text)) => go_duration(text),
            // Some clients write whole numbers as `1e10`.
            Some(value) => value.as_f64().and_then(|nanos| Duration::try_from_secs_f64(nanos / 1e9).ok()),
        };
        duration.map(Some).ok_or_else(|| self.mismatch(field, "a duration such as \"10s\" or \"1m30s\""))
    }

    /// `Check` and `Checks` as one list, each with its path.
    pub(super) fn checks(&self) -> Result<Vec<(String, &'a Value)>, FieldError> {
        let mut checks = Vec::new();
        // Some clients send an empty object for no check.
        if !self.is_empty("Check")
            && let Some(check) = self.get("Check")
        {
            checks.push(("Check".to_owned(), check));
        }
        match self.value("Checks") {
            None => {}
            Some(Value::Array(list)) => {
                let some = list.iter().filter(|check| !check.is_null());
                checks.extend(some.enumerate().map(|(at, check)| (format!("Checks[{at}]"), check)));
            }
            Some(_) => return Err(self.mismatch("Checks", "an array of objects")),
        }
        Ok(checks)
    }
}

/// Reports whether a value is the zero value of its type, as Go encodes unset fields: an object, if all its values are.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(table) => table.values().all(is_zero),
    }
}

/// An error for a value that is not `expected`.
pub(super) fn mismatch(field: String, expected: &str, found: &Value) -> FieldError {
    FieldError::Mismatch { field, expected: expected.to_owned(), found: describe(found) }
}

/// A value in words. Long strings are cut.
fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) if text.chars().count() > MAX_QUOTE => {
            let start: String = text.chars().take(MAX_QUOTE).collect();
            format!("a string of {} octets that begins with {start:?}", text.len())
        }
        Value::String(text) => format!("the string {text:?}"),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}
