//! JSON to a [`Node`], with lines.
//!
//! Raw values point into the text, which gives their positions. Each level is scanned once per level above it, so the depth
//! is bounded.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{
    SyntaxError,
    tree::{Entry, FileNumber, Lines, Node, Position, Value},
};

/// Maximum nesting of objects and arrays; HCL has the same limit. Files of Consul need eight levels.
pub(super) const MAX_DEPTH: usize = 64;

/// Parses a JSON text.
///
/// # Errors
/// The first error of syntax, or nesting beyond [`MAX_DEPTH`].
pub(super) fn parse(text: &str, file: FileNumber) -> Result<Node, SyntaxError> {
    let raw: &RawValue = serde_json::from_str(text).map_err(|error| describe(&error))?;
    let mut reader = Reader { start: text.as_ptr().addr(), lines: Lines::of(text), file };
    reader.read(raw, 0)
}

/// The error of serde_json without its position, which is a value of its own. Its message has no part of the text.
fn describe(error: &serde_json::Error) -> SyntaxError {
    let message = error.to_string();
    let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(message, _)| message);
    SyntaxError { line: error.line().max(1), column: error.column().max(1), message: message.to_owned() }
}

struct Reader<'t> {
    start: usize,
    lines: Lines<'t>,
    file: FileNumber,
}

impl Reader<'_> {
    fn read(&mut self, raw: &RawValue, depth: usize) -> Result<Node, SyntaxError> {
        let text = raw.get();
        let line = self.lines.line(text.as_ptr().addr().saturating_sub(self.start));
        let wrong = |error: serde_json::Error| SyntaxError { line, ..describe(&error) };
        if depth > MAX_DEPTH {
            let message = format!("nested deeper than {MAX_DEPTH} levels");
            return Err(SyntaxError { line, column: 1, message });
        }
        let value = match text.as_bytes().first() {
            Some(b'{') => {
                let Members(members) = serde_json::from_str(text).map_err(wrong)?;
                let mut entries = Vec::with_capacity(members.len());
                for (key, raw) in members {
                    entries.push(Entry { key, value: self.read(raw, depth + 1)? });
                }
                Value::Table(entries)
            }
            Some(b'[') => {
                let items: Vec<&RawValue> = serde_json::from_str(text).map_err(wrong)?;
                Value::List(items.into_iter().map(|item| self.read(item, depth + 1)).collect::<Result<_, _>>()?)
            }
            _ => match serde_json::from_str(text).map_err(wrong)? {
                serde_json::Value::Bool(value) => Value::Bool(value),
                serde_json::Value::String(value) => Value::Text(value),
                serde_json::Value::Number(number) => match number.as_i64() {
                    Some(number) => Value::Integer(number),
                    None => Value::Float(number.as_f64().unwrap_or(f64::MAX)),
                },
                _ => Value::Null,
            },
        };
        Ok(Node { value, at: Position { file: self.file, line } })
    }
}

/// The members of an object in their order, with repeated keys.
struct Members<'t>(Vec<(String, &'t RawValue)>);

impl<'t> Deserialize<'t> for Members<'t> {
    fn deserialize<D: Deserializer<'t>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'t> Visitor<'t> for MembersVisitor {
    type Value = Members<'t>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'t>>(self, mut map: A) -> Result<Members<'t>, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Members(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_lines_of_the_text_and_keys_their_order() {
        let node = parse("{\"b\": 1,\n \"a\": [\n  true, {\"c\": \"x\\ny\"}],\n\"b\": null}", 3).unwrap();
        let Value::Table(entries) = &node.value else { panic!("{node:?}") };
        let keys: Vec<_> = entries.iter().map(|entry| (entry.key.as_str(), entry.value.at.line)).collect();
        assert_eq!(keys, [("b", 1), ("a", 2), ("b", 4)]);
        let Value::List(items) = &entries[1].value.value else { panic!("{node:?}") };
        assert_eq!(items[1].at, Position { file: 3, line: 3 });
    }

    #[test]
    fn errors_have_a_line_and_no_part_of_the_text() {
        for (text, line) in [("{\n\"a\": secret}", 2), ("", 1), ("{\"a\": 1} secret", 1), ("[1,\n2", 2)] {
            let error = parse(text, 0).unwrap_err();
            assert_eq!(error.line, line, "{text}: {error}");
            assert!(!error.message.contains("secret"), "{error}");
        }
        let deep = format!("{}1{}", "[".repeat(2000), "]".repeat(2000));
        assert!(parse(&deep, 0).unwrap_err().message.contains("nested deeper than 64"), "deep");
    }
}
