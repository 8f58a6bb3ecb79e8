//! A file of Consul as a tree: values of JSON or HCL, each with its file and line.

/// A file that was read, numbered in the order of the [`Source`](super::Source)s.
pub type FileNumber = u16;

/// Position of a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The file.
    pub file: FileNumber,
    /// Line, counted from 1.
    pub line: usize,
}

/// A value with its position.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The value.
    pub value: Value,
    /// Its position.
    pub at: Position,
}

/// Value of a node.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A 64-bit integer.
    Integer(i64),
    /// Any other number.
    Float(f64),
    /// A string.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A table, in the order of the file. A key may repeat: HCL's blocks.
    Table(Vec<Entry>),
    /// An expression of HCL that has to be computed, such as `var.port`.
    Expression,
}

/// Key and value of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key as written.
    pub key: String,
    /// The value.
    pub value: Node,
}

impl Value {
    /// Kind of the value, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Integer(_) | Self::Float(_) => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Expression => "an expression",
        }
    }
}

impl Node {
    /// The entries of a table, and of the tables in a list of tables: HCL's repeated blocks.
    pub fn entries(&self) -> Option<Vec<&Entry>> {
        match &self.value {
            Value::Table(entries) => Some(entries.iter().collect()),
            Value::List(items) if !items.is_empty() => {
                let mut all = Vec::new();
                for item in items {
                    let Value::Table(entries) = &item.value else { return None };
                    all.extend(entries);
                }
                Some(all)
            }
            _ => None,
        }
    }

    /// The items of a list; any other value is a list of one, `null` of none.
    pub fn items(&self) -> Vec<&Node> {
        match &self.value {
            Value::Null => Vec::new(),
            Value::List(items) => items.iter().collect(),
            _ => vec![self],
        }
    }
}

/// Reports whether a key names a field: Consul ignores letter case, and `_` of its older spelling.
pub fn is_key(key: &str, field: &str) -> bool {
    let plain = |text: &str| text.bytes().filter(|b| *b != b'_').map(|b| b.to_ascii_lowercase()).collect::<Vec<u8>>();
    plain(key) == plain(field)
}

/// Returns the line, counted from 1, of an offset in a text; offsets must grow from call to call.
#[derive(Debug)]
pub(super) struct Lines<'t> {
    text: &'t [u8],
    offset: usize,
    line: usize,
}

impl<'t> Lines<'t> {
    pub(super) fn of(text: &'t str) -> Self {
        Self { text: text.as_bytes(), offset: 0, line: 1 }
    }

    /// The line of an offset.
    pub(super) fn line(&mut self, offset: usize) -> usize {
        let offset = offset.min(self.text.len());
        if offset < self.offset {
            (self.offset, self.line) = (0, 1);
        }
        self.line += self.text[self.offset..offset].iter().filter(|b| **b == b'\n').count();
        self.offset = offset;
        self.line
    }
}
