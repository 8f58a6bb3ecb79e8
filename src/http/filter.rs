//! Consul's filter expressions (`?filter=`): `Service.Port == 80 and "v2" in Service.Tags`.
//!
//! The language is go-bexpr: selectors with dots, slashes (JSON pointers) or brackets; `==`, `!=`, `in`, `not in`,
//! `contains`, `not contains`, `is empty`, `is not empty`, `matches`, `not matches`; `and`, `or`, `not` and
//! parentheses. An expression is evaluated on the JSON of each item. Core.

use regex_lite::Regex;
use serde_json::Value;

/// Longest expression, in octets.
const MAX_TEXT: usize = 4096;
/// Deepest nesting of parentheses and `not`; the parser is recursive.
const MAX_DEPTH: usize = 32;

/// A parsed expression.
#[derive(Clone, Debug)]
pub(super) enum Filter {
    And(Box<Filter>, Box<Filter>),
    Or(Box<Filter>, Box<Filter>),
    Not(Box<Filter>),
    /// A comparison. Negation applies to each value: of a list, any value may differ.
    Test {
        selector: Selector,
        test: Test,
        negated: bool,
    },
}

/// Path to a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Selector(Vec<String>);

/// Test of a value.
#[derive(Clone, Debug)]
pub(super) enum Test {
    Equal(String),
    Contains(String),
    Empty,
    Matches(Regex),
}

/// Error in an expression, or in its use on an item.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FilterError {
    /// Unexpected text.
    #[error("expected {element} {}", position(.rest))]
    Expected {
        /// The expected element.
        element: &'static str,
        /// The rest of the expression.
        rest: String,
    },
    /// The expression is too long or too deeply nested.
    #[error("an expression has at most {MAX_TEXT} octets and {MAX_DEPTH} levels")]
    TooLarge,
    /// Invalid regular expression, with the reason.
    #[error("invalid regular expression: {0}")]
    Pattern(String),
    /// Items have no such field.
    #[error("Selector {0:?} is not valid: items have no such field")]
    NoField(String),
}

/// Returns the position of an error, by the rest of the expression.
fn position(rest: &str) -> String {
    if rest.is_empty() { "at the end".to_owned() } else { format!("at {rest:?}") }
}

/// Parses an expression.
pub(super) fn parse(text: &str) -> Result<Filter, FilterError> {
    if text.len() > MAX_TEXT {
        return Err(FilterError::TooLarge);
    }
    let mut reader = Reader { rest: text.trim(), depth: 0 };
    let filter = reader.or()?;
    if reader.rest.is_empty() { Ok(filter) } else { Err(reader.expected("`and` or `or`")) }
}

impl Filter {
    /// Reports whether an item matches.
    pub(super) fn passes(&self, item: &Value) -> Result<bool, FilterError> {
        Ok(match self {
            Self::And(a, b) => a.passes(item)? && b.passes(item)?,
            Self::Or(a, b) => a.passes(item)? || b.passes(item)?,
            Self::Not(a) => !a.passes(item)?,
            Self::Test { selector, test, negated } => {
                let mut found = Vec::new();
                selector.find(item, 0, &mut found)?;
                found.into_iter().any(|value| {
                    // A missing key of a map equals nothing and is empty.
                    let passes = value.map_or(matches!(test, Test::Empty), |value| test.passes(value));
                    passes != *negated
                })
            }
        })
    }
}

impl Selector {
    /// Collects the values of the path from part `at` on: one, or for a list those of all its items. `None`: a map
    /// lacks the key.
    fn find<'a>(&self, item: &'a Value, at: usize, found: &mut Vec<Option<&'a Value>>) -> Result<(), FilterError> {
        let Some(part) = self.0.get(at) else {
            found.push(Some(item));
            return Ok(());
        };
        match item {
            Value::Object(fields) => match fields.get(part) {
                Some(value) => self.find(value, at + 1, found),
                // Unknown fields are errors; keys of maps are data.
                None if at > 0 && is_map(&self.0[at - 1]) => {
                    found.push(None);
                    Ok(())
                }
                None => Err(self.no_field()),
            },
            // For a list, any item may match.
            Value::Array(list) => list.iter().try_for_each(|one| self.find(one, at, found)),
            _ => Err(self.no_field()),
        }
    }

    fn no_field(&self) -> FilterError {
        FilterError::NoField(self.0.join("."))
    }
}

/// Reports whether the keys of a field are data.
fn is_map(field: &str) -> bool {
    matches!(
        field,
        "Meta" | "NodeMeta" | "ServiceMeta" | "TaggedAddresses" | "ServiceTaggedAddresses" | "Proxy" | "Connect"
    )
}

impl Test {
    fn passes(&self, value: &Value) -> bool {
        match self {
            Self::Equal(text) => is(value, text),
            Self::Contains(text) => match value {
                Value::Array(list) => list.iter().any(|one| is(one, text)),
                Value::Object(table) => table.contains_key(text),
                Value::String(whole) => whole.contains(text.as_str()),
                _ => false,
            },
            Self::Empty => match value {
                Value::Array(list) => list.is_empty(),
                Value::Object(table) => table.is_empty(),
                Value::String(text) => text.is_empty(),
                Value::Null => true,
                _ => false,
            },
            Self::Matches(pattern) => match value {
                Value::String(text) => pattern.is_match(text),
                Value::Array(list) => list.iter().any(|one| one.as_str().is_some_and(|text| pattern.is_match(text))),
                _ => false,
            },
        }
    }
}

fn is(value: &Value, text: &str) -> bool {
    match value {
        Value::String(known) => known == text,
        Value::Bool(known) => text.parse() == Ok(*known),
        Value::Number(known) => {
            known.to_string() == text || known.as_f64().zip(text.parse().ok()).is_some_and(|(a, b): (f64, f64)| a == b)
        }
        _ => false,
    }
}

struct Reader<'a> {
    rest: &'a str,
    depth: usize,
}

impl<'a> Reader<'a> {
    fn expected(&self, element: &'static str) -> FilterError {
        FilterError::Expected { element, rest: self.rest.chars().take(20).collect() }
    }

    fn or(&mut self) -> Result<Filter, FilterError> {
        let mut filter = self.and()?;
        while self.word("or") {
            filter = Filter::Or(Box::new(filter), Box::new(self.and()?));
        }
        Ok(filter)
    }

    fn and(&mut self) -> Result<Filter, FilterError> {
        let mut filter = self.not()?;
        while self.word("and") {
            filter = Filter::And(Box::new(filter), Box::new(self.not()?));
        }
        Ok(filter)
    }

    fn not(&mut self) -> Result<Filter, FilterError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(FilterError::TooLarge);
        }
        let filter = if self.word("not") {
            Filter::Not(Box::new(self.not()?))
        } else if self.sign("(") {
            let inner = self.or()?;
            if !self.sign(")") {
                return Err(self.expected("`)`"));
            }
            inner
        } else {
            self.test()?
        };
        self.depth -= 1;
        Ok(filter)
    }

    fn test(&mut self) -> Result<Filter, FilterError> {
        // Try `VALUE in SELECTOR` first, then operators that follow a selector.
        let before = self.rest;
        let value = self.value()?;
        let negated = match (self.word("in"), self.rest) {
            (true, _) => Some(false),
            (false, here) => {
                let found = self.word("not") && self.word("in");
                if !found {
                    self.rest = here;
                }
                found.then_some(true)
            }
        };
        if let Some(negated) = negated {
            let selector = self.selector()?;
            return Ok(Filter::Test { selector, test: Test::Contains(value), negated });
        }
        self.rest = before;
        let selector = self.selector()?;
        if self.word("is") {
            let negated = self.word("not");
            return if self.word("empty") {
                Ok(Filter::Test { selector, test: Test::Empty, negated })
            } else {
                Err(self.expected("`empty`"))
            };
        }
        if self.sign("==") {
            return Ok(Filter::Test { selector, test: Test::Equal(self.value()?), negated: false });
        }
        if self.sign("!=") {
            return Ok(Filter::Test { selector, test: Test::Equal(self.value()?), negated: true });
        }
        let negated = self.word("not");
        if self.word("contains") {
            return Ok(Filter::Test { selector, test: Test::Contains(self.value()?), negated });
        }
        if self.word("matches") {
            let pattern = Regex::new(&self.value()?).map_err(|error| FilterError::Pattern(error.to_string()))?;
            return Ok(Filter::Test { selector, test: Test::Matches(pattern), negated });
        }
        Err(self.expected("an operator such as `==`, `contains` or `is empty`"))
    }

    fn word(&mut self, word: &str) -> bool {
        let Some(rest) = self.rest.strip_prefix(word) else { return false };
        if rest.starts_with(|c: char| c.is_alphanumeric() || "_.-/[".contains(c)) {
            return false;
        }
        self.rest = rest.trim_start();
        true
    }

    fn sign(&mut self, sign: &str) -> bool {
        let Some(rest) = self.rest.strip_prefix(sign) else { return false };
        self.rest = rest.trim_start();
        true
    }

    /// Parses a quoted string or a bare word.
    fn value(&mut self) -> Result<String, FilterError> {
        if let Some(text) = self.quoted()? {
            return Ok(text);
        }
        let end = self.rest.find(|c: char| c.is_whitespace() || "()".contains(c)).unwrap_or(self.rest.len());
        if end == 0 {
            return Err(self.expected("a value"));
        }
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest.trim_start();
        Ok(word.to_owned())
    }

    fn quoted(&mut self) -> Result<Option<String>, FilterError> {
        if let Some(rest) = self.rest.strip_prefix('`') {
            let end = rest.find('`').ok_or_else(|| self.expected("the end of the text"))?;
            self.rest = rest[end + 1..].trim_start();
            return Ok(Some(rest[..end].to_owned()));
        }
        let Some(rest) = self.rest.strip_prefix('"') else { return Ok(None) };
        let mut text = String::new();
        let mut characters = rest.char_indices();
        while let Some((at, character)) = characters.next() {
            match character {
                '"' => {
                    self.rest = rest[at + 1..].trim_start();
                    return Ok(Some(text));
                }
                '\\' => text.extend(characters.next().map(|(_, escaped)| escaped)),
                other => text.push(other),
            }
        }
        Err(self.expected("the end of the text"))
    }

    /// Parses `Service.Meta.key`, `Service.Meta["key"]` or `"/Service/Meta/key"`.
    fn selector(&mut self) -> Result<Selector, FilterError> {
        if self.rest.starts_with('"') {
            let here = self.rest;
            let text = self.quoted()?.unwrap_or_default();
            let Some(pointer) = text.strip_prefix('/') else {
                self.rest = here;
                return Err(self.expected("a field"));
            };
            return Ok(Selector(pointer.split('/').map(|part| part.replace("~1", "/").replace("~0", "~")).collect()));
        }
        let mut parts = Vec::new();
        loop {
            let is_part = |c: char| c.is_alphanumeric() || "_-".contains(c);
            let end = self.rest.find(|c: char| !is_part(c)).unwrap_or(self.rest.len());
            if end == 0 {
                return Err(self.expected("a field"));
            }
            parts.push(self.rest[..end].to_owned());
            self.rest = &self.rest[end..];
            while let Some(rest) = self.rest.strip_prefix('[') {
                self.rest = rest;
                let key = self.quoted()?.ok_or_else(|| self.expected("a quoted key"))?;
                self.rest = self.rest.strip_prefix(']').ok_or_else(|| self.expected("`]`"))?;
                parts.push(key);
            }
            match self.rest.strip_prefix('.') {
                Some(rest) => self.rest = rest,
                None => break,
            }
        }
        self.rest = self.rest.trim_start();
        Ok(Selector(parts))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn expressions_of_consul_clients_are_evaluated() {
        let item = json!({
            "Node": {"Node": "host-a", "Datacenter": "dc1", "Meta": {}},
            "Service": {
                "ID": "web-1", "Service": "web", "Tags": ["v2", "eu"], "Port": 8080, "EnableTagOverride": false,
                "Meta": {"env": "prod", "a.b/c": "x"},
            },
            "Checks": [
                {"CheckID": "serfHealth", "Status": "passing"},
                {"CheckID": "service:web-1", "Status": "critical"},
            ],
        });
        let cases: &[(&str, Result<bool, &str>)] = &[
            (r#"Service.Service == "web""#, Ok(true)),
            ("Service.Service == web", Ok(true)),
            ("Service.Service==web", Ok(true)),
            (r#"Service.Service != "web""#, Ok(false)),
            (r#""v2" in Service.Tags"#, Ok(true)),
            ("v2 in Service.Tags", Ok(true)),
            (r#""v3" not in Service.Tags"#, Ok(true)),
            (r#"Service.Tags contains "eu""#, Ok(true)),
            (r#"Service.Tags not contains "eu""#, Ok(false)),
            ("Service.Tags is not empty", Ok(true)),
            ("Node.Meta is empty", Ok(true)),
            ("Node.Meta.rack is empty", Ok(true)),
            ("Service.Meta.env == prod", Ok(true)),
            (r#"Service.Meta["a.b/c"] == x"#, Ok(true)),
            (r#""/Service/Meta/a.b~1c" == x"#, Ok(true)),
            (r#"Service.Meta.none == "x""#, Ok(false)),
            (r#"Service.Meta.none != "x""#, Ok(true)),
            (r#"Service.Meta contains "env""#, Ok(true)),
            ("Service.Port == 8080", Ok(true)),
            ("Service.EnableTagOverride == false", Ok(true)),
            (r#"Service.ID matches "^web-[0-9]+$""#, Ok(true)),
            (r#"Service.ID not matches `^db`"#, Ok(true)),
            ("Checks.Status == passing", Ok(true)),
            ("Checks.Status == critical", Ok(true)),
            ("Checks.Status == warning", Ok(false)),
            ("Checks.Status != passing", Ok(true)),
            ("not Checks.Status == passing", Ok(false)),
            (r#"Checks.CheckID matches "^service:""#, Ok(true)),
            ("Checks.Nothing == passing", Err("is not valid")),
            ("Checks is not empty", Ok(true)),
            ("Unknown.CheckID == x", Err("is not valid")),
            ("not Service.Port == 80 and (Service.Service == db or Service.Service == web)", Ok(true)),
            ("Service.Service == db or Service.Service == web and Service.Port == 1", Ok(false)),
            ("Service.Nothing == 1", Err("is not valid")),
            ("Nothing is empty", Err("is not valid")),
            ("Service.Service ==", Err("expected a value")),
            ("Service.Service", Err("expected an operator")),
            ("(Service.Service == web", Err("expected `)`")),
            ("Service.Service == web garbage", Err("expected `and` or `or`")),
            (r#"Service.Service == "web"#, Err("expected the end")),
            (r#"Service.ID matches "(""#, Err("invalid regular expression")),
            ("", Err("expected a value")),
        ];
        for (text, expected) in cases {
            let found = parse(text).and_then(|filter| filter.passes(&item)).map_err(|error| error.to_string());
            match (&found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{text}"),
                (Err(found), Err(expected)) => assert!(found.contains(expected), "{text}: {found}"),
                _ => panic!("{text}: {found:?}"),
            }
        }
        for deep in ["(".repeat(3000), "not ".repeat(1000)] {
            assert_eq!(parse(&deep).unwrap_err(), FilterError::TooLarge, "{deep:.9}");
        }
    }
}
