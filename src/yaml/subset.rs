//! Parser of a subset of YAML in one pass, for the texts that are usual.
//!
//! The subset is block tables and lists, flow tables and lists within a line, scalars without escapes within a line, and
//! comments. [`read`] returns `None` for all other texts, valid or not: both general parsers read them. So this parser reports no
//! error, and must understand each text of the subset exactly as they do: tests compare the results.
//!
//! A file with 5,000 services takes some milliseconds here, and fifty times as long in the general parsers.

use std::borrow::Cow;

use super::{
    MAX_DEPTH, MAX_NODES,
    marks::{Kind, Marks},
    position::Position,
    tree::{Entry, Id, Node, Value},
};

/// Usual octets of a text for each of its nodes.
const OCTETS_PER_NODE: usize = 8;
/// Maximum octets of a key. YAML allows 1,024 before the colon.
const MAX_KEY: usize = 256;
/// Maximum digits of an integer: none overflows.
const MAX_DIGITS: usize = 18;

/// Reads a text of the subset, which [`text::decode`](super::text::decode) has accepted.
pub(super) fn read(text: &str, source: u16) -> Option<(Node<'_>, Marks<'_>)> {
    // Line ends and columns depend on these.
    if text.bytes().any(|octet| matches!(octet, b'\r' | b'\t')) {
        return None;
    }
    let mut parser = Parser {
        text,
        at: 0,
        line: 1,
        line_start: 0,
        source,
        marks: Marks::with_capacity(text.len() / OCTETS_PER_NODE),
    };
    parser.skip_to_content();
    if parser.is_at_end() {
        return None;
    }
    let root = parser.block(0)?;
    parser.is_at_end().then_some((root, parser.marks))
}

struct Parser<'t> {
    text: &'t str,
    /// Offset of the next octet.
    at: usize,
    /// Line of the next octet, counted from 1.
    line: usize,
    /// Offset of the first octet of the line.
    line_start: usize,
    source: u16,
    marks: Marks<'t>,
}

impl<'t> Parser<'t> {
    /// Reads a block table or list that begins at the next octet, which is the first one of its line other than a space, or
    /// follows the dash of an item.
    fn block(&mut self, depth: usize) -> Option<Node<'t>> {
        if depth == MAX_DEPTH {
            return None;
        }
        if !self.is_at_item() {
            return self.block_table(depth);
        }
        let id = self.mark(Kind::Collection)?;
        self.items(id, depth)
    }

    /// Reads a list with the indentation of its key. Its position is that of its first item, as for saphyr.
    fn unindented_list(&mut self, depth: usize) -> Option<Node<'t>> {
        if depth == MAX_DEPTH {
            return None;
        }
        let spaces = self.text.as_bytes()[self.at + 1..].iter().take_while(|octet| **octet == b' ').count();
        let place = Position { column: self.column() + 2 + spaces, ..self.place() };
        let id = self.mark_at(place, Kind::Collection)?;
        self.items(id, depth)
    }

    fn block_table(&mut self, depth: usize) -> Option<Node<'t>> {
        let (id, indent) = (self.mark(Kind::Collection)?, self.column());
        let mut entries = Vec::new();
        loop {
            let place = self.place();
            let key = self.key()?;
            let key_id = self.mark_at(place, Kind::Plain(Cow::Borrowed(key)))?;
            let value = if self.is_at_line_end() {
                self.skip_to_content();
                let column = self.column();
                if self.is_at_end() || column < indent || column == indent && !self.is_at_item() {
                    // No value: it has the position of its key.
                    let id = self.mark_at(place, Kind::Plain(Cow::Borrowed("")))?;
                    Node { id, value: Value::Null }
                } else if column > indent {
                    self.block(depth + 1)?
                } else {
                    self.unindented_list(depth + 1)?
                }
            } else {
                let value = self.inline(depth + 1)?;
                self.skip_to_content();
                value
            };
            entries.push(Entry { id: key_id, key: Cow::Borrowed(key), value });
            if self.ends_block(indent)? {
                return Some(Node { id, value: Value::Table(entries) });
            }
        }
    }

    /// Reads the items of a block list.
    fn items(&mut self, id: Id, depth: usize) -> Option<Node<'t>> {
        let indent = self.column();
        let mut items = Vec::new();
        loop {
            self.at += 1;
            self.skip_spaces();
            if self.is_at_line_end() || self.is_at_item() {
                return None;
            }
            let item = if self.is_at_key() {
                self.block(depth + 1)?
            } else {
                let item = self.inline(depth + 1)?;
                self.skip_to_content();
                item
            };
            items.push(item);
            // A list may have the indentation of its key: then the next key ends it.
            if self.ends_block(indent)? || !self.is_at_item() {
                return Some(Node { id, value: Value::List(items) });
            }
        }
    }

    /// Reports whether a block with this indentation ends here. `None`: a line is indented further, as the continuation of a text.
    fn ends_block(&self, indent: usize) -> Option<bool> {
        match self.column() {
            _ if self.is_at_end() => Some(true),
            column if column > indent => None,
            column => Some(column < indent),
        }
    }

    /// Reads a scalar or a flow collection, up to the end of its line.
    fn inline(&mut self, depth: usize) -> Option<Node<'t>> {
        let node = match self.next()? {
            b'[' | b'{' => self.flow(depth)?,
            b'"' | b'\'' => self.quoted()?,
            _ => {
                let rest = &self.text.as_bytes()[self.at..];
                let is_end = |at: &usize| match rest[*at] {
                    b'\n' => true,
                    // A comment.
                    b'#' => rest[*at - 1] == b' ',
                    _ => false,
                };
                let end = (1..rest.len()).find(is_end).unwrap_or(rest.len());
                let text = self.text[self.at..self.at + end].trim_end_matches(' ');
                if !text.bytes().all(|octet| matches!(octet, b' '..=b'~')) || text.contains(": ") || text.ends_with(':')
                {
                    return None;
                }
                self.plain(text)?
            }
        };
        self.skip_spaces_before_comment()?;
        Some(node)
    }

    /// Reads a flow list or table within a line.
    fn flow(&mut self, depth: usize) -> Option<Node<'t>> {
        if depth == MAX_DEPTH {
            return None;
        }
        let id = self.mark(Kind::Collection)?;
        let is_list = self.next()? == b'[';
        let close = if is_list { b']' } else { b'}' };
        self.at += 1;
        self.skip_spaces();
        let (mut items, mut entries) = (Vec::new(), Vec::new());
        while self.next()? != close {
            if is_list {
                items.push(self.flow_value(depth + 1)?);
            } else {
                let place = self.place();
                let key = self.key()?;
                let id = self.mark_at(place, Kind::Plain(Cow::Borrowed(key)))?;
                entries.push(Entry { id, key: Cow::Borrowed(key), value: self.flow_value(depth + 1)? });
            }
            self.skip_spaces();
            match self.next()? {
                b',' => self.at += 1,
                octet if octet == close => {}
                _ => return None,
            }
            self.skip_spaces();
        }
        self.at += 1;
        Some(Node { id, value: if is_list { Value::List(items) } else { Value::Table(entries) } })
    }

    fn flow_value(&mut self, depth: usize) -> Option<Node<'t>> {
        match self.next()? {
            b'[' | b'{' => self.flow(depth),
            b'"' | b'\'' => self.quoted(),
            _ => {
                let len = self.text[self.at..].bytes().take_while(is_part_of_word).count();
                self.plain(&self.text[self.at..self.at + len])
            }
        }
    }

    /// Reads a scalar in quotes without escapes.
    fn quoted(&mut self) -> Option<Node<'t>> {
        let place = self.place();
        let quote = self.next()?;
        let rest = &self.text[self.at + 1..];
        let len = rest.bytes().position(|octet| !matches!(octet, b' '..=b'~') || octet == b'\\' || octet == quote)?;
        // Two quotes are an escape.
        if rest.as_bytes()[len] != quote || rest.as_bytes().get(len + 1) == Some(&quote) {
            return None;
        }
        self.at += len + 2;
        let text = &rest[..len];
        let id = self.mark_at(place, Kind::Quoted(Cow::Borrowed(text)))?;
        Some(Node { id, value: Value::Text(Cow::Borrowed(text)) })
    }

    /// Reads a scalar without quotes.
    fn plain(&mut self, text: &'t str) -> Option<Node<'t>> {
        let value = resolve(text)?;
        let id = self.mark(Kind::Plain(Cow::Borrowed(text)))?;
        self.at += text.len();
        Some(Node { id, value })
    }

    /// Reads a key without quotes, its colon, and the spaces after it.
    fn key(&mut self) -> Option<&'t str> {
        let len = self.key_len()?;
        let key = &self.text[self.at..self.at + len];
        self.at += len + 1;
        self.skip_spaces();
        Some(key)
    }

    fn is_at_key(&self) -> bool {
        self.key_len().is_some()
    }

    /// Length of the key that begins here. The first octet is a letter, so that the key is neither an indicator nor a merge key.
    fn key_len(&self) -> Option<usize> {
        let rest = &self.text.as_bytes()[self.at..];
        rest.first().filter(|octet| octet.is_ascii_alphabetic())?;
        let len = rest.iter().copied().take(MAX_KEY).take_while(is_part_of_word).count();
        (rest.get(len) == Some(&b':') && matches!(rest.get(len + 1), None | Some(b' ' | b'\n'))).then_some(len)
    }

    /// Reports whether an item of a block list begins here.
    fn is_at_item(&self) -> bool {
        matches!(self.text.as_bytes()[self.at..], [b'-', b' ' | b'\n', ..] | [b'-'])
    }

    /// Reports whether the rest of the line has no content. The octet before it is a space or the colon of a key.
    fn is_at_line_end(&self) -> bool {
        match self.next() {
            None | Some(b'\n') => true,
            Some(b'#') => self.text.as_bytes()[self.at - 1] == b' ',
            Some(_) => false,
        }
    }

    fn is_at_end(&self) -> bool {
        self.at == self.text.len()
    }

    fn next(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Number of octets before this one in its line.
    fn column(&self) -> usize {
        self.at - self.line_start
    }

    fn place(&self) -> Position {
        // All characters before a key or a value are ASCII.
        Position { line: self.line, column: self.column() + 1 }
    }

    fn mark(&mut self, kind: Kind<'t>) -> Option<Id> {
        self.mark_at(self.place(), kind)
    }

    fn mark_at(&mut self, place: Position, kind: Kind<'t>) -> Option<Id> {
        let node = self.marks.push(place, kind);
        (node < MAX_NODES).then_some(Id { source: self.source, node })
    }

    fn skip_spaces(&mut self) {
        self.at += self.text.as_bytes()[self.at..].iter().take_while(|octet| **octet == b' ').count();
    }

    /// Skips to the end of the line, or to its comment.
    fn skip_spaces_before_comment(&mut self) -> Option<()> {
        self.skip_spaces();
        self.is_at_line_end().then_some(())
    }

    /// Skips the rest of the line, empty lines and comments, and the indentation of the next line with content.
    fn skip_to_content(&mut self) {
        loop {
            self.skip_spaces();
            match self.next() {
                None => return,
                Some(b'#') => self.at += self.text[self.at..].find('\n').unwrap_or(self.text.len() - self.at),
                Some(b'\n') => {
                    self.at += 1;
                    self.line += 1;
                    self.line_start = self.at;
                }
                Some(_) => return,
            }
        }
    }
}

/// Reports whether an octet belongs to a key, or to a scalar without quotes in a flow collection.
fn is_part_of_word(octet: &u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'_' | b'-' | b'.' | b'/')
}

/// Returns the value of a scalar without quotes by the rules of serde_yaml; `None` if they are not obvious.
fn resolve(text: &str) -> Option<Value<'_>> {
    const WORDS: [&str; 6] = ["null", "true", "false", "nan", "inf", "infinity"];
    let first = *text.as_bytes().first()?;
    match text {
        "true" => Some(Value::Bool(true)),
        "false" => Some(Value::Bool(false)),
        _ if first == b'/' => Some(Value::Text(Cow::Borrowed(text))),
        _ if first.is_ascii_alphabetic() => {
            let is_other = !WORDS.iter().any(|word| text.eq_ignore_ascii_case(word));
            is_other.then_some(Value::Text(Cow::Borrowed(text)))
        }
        _ if text.bytes().all(|octet| octet.is_ascii_digit()) => {
            let is_plain = text.len() <= MAX_DIGITS && (first != b'0' || text.len() == 1);
            is_plain.then(|| text.parse().ok().map(Value::Integer))?
        }
        // Not a number of another base, and not a float.
        _ if first.is_ascii_digit() && !text.contains(['x', 'o', 'b']) && text.parse::<f64>().is_err() => {
            Some(Value::Text(Cow::Borrowed(text)))
        }
        _ => None,
    }
}
