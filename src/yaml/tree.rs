//! Tree of the nodes of a YAML text, each with a number that finds its position.
//!
//! serde_yaml reads the values. Aliases are expanded here. A `Budget` bounds the expansion: a "billion laughs" ends at the
//! node that exceeds it.

use std::{
    borrow::Cow,
    cell::Cell,
    collections::{HashMap, HashSet},
    fmt,
};

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{Fault, MAX_DEPTH, MAX_NODES, MAX_OCTETS, marks::too_deep, position::Position, text::too_many_nodes};

/// Number of entries of a table up to which all pairs of keys are compared.
const SMALL_TABLE: usize = 16;

/// Identity of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id {
    /// Number of its file among those read together.
    pub(super) source: u16,
    /// Number of the node in its file, in the order of the text.
    pub(super) node: usize,
}

/// A scalar, a list or a table.
#[derive(Clone, Debug)]
pub struct Node<'t> {
    /// Identifies its position.
    pub id: Id,
    /// Its value.
    pub value: Value<'t>,
}

/// Value of a node by the rules of YAML 1.2: `yes` is text, `1.10` is the number 1.1.
#[derive(Clone, Debug)]
pub enum Value<'t> {
    /// No value, `null` or `~`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A 64-bit integer.
    Integer(i64),
    /// Any other number. The marks have its written form.
    Float,
    /// Any other scalar.
    Text(Cow<'t, str>),
    /// A list.
    List(Vec<Node<'t>>),
    /// A table, in the order of the text.
    Table(Vec<Entry<'t>>),
}

/// Key and value of a table.
#[derive(Clone, Debug)]
pub struct Entry<'t> {
    /// Identifies the position of the key.
    pub id: Id,
    /// The key as written.
    pub key: Cow<'t, str>,
    /// The value.
    pub value: Node<'t>,
}

/// Parses the text and counts its nodes, including keys and nodes repeated by aliases.
pub(super) fn read(text: &str, source: u16) -> Result<(Node<'_>, usize), Fault> {
    let budget = Budget { source, nodes: Cell::new(0), octets: Cell::new(0), exceeded: Cell::new(None) };
    let root = NodeSeed { budget: &budget, depth: 0 }.deserialize(serde_yaml::Deserializer::from_str(text));
    match root {
        Ok(root) => Ok((root, budget.nodes.get())),
        Err(error) => Err(budget.fault(&error)),
    }
}

/// Overlays `lower` with `upper`: tables are merged key by key, other values are replaced.
pub fn overlay<'t>(lower: Node<'t>, upper: Node<'t>) -> Node<'t> {
    match (lower.value, upper.value) {
        (Value::Table(mut entries), Value::Table(above)) => {
            let places: HashMap<_, _> = entries.iter().map(|entry| entry.key.clone()).zip(0..).collect();
            for entry in above {
                match places.get(&entry.key) {
                    Some(&at) => {
                        let below =
                            std::mem::replace(&mut entries[at].value, Node { id: entry.id, value: Value::Null });
                        entries[at] = Entry { value: overlay(below, entry.value), ..entry };
                    }
                    None => entries.push(entry),
                }
            }
            Node { id: upper.id, value: Value::Table(entries) }
        }
        // An empty file or a key without a value replaces nothing.
        (value, Value::Null) => Node { id: lower.id, value },
        (_, value) => Node { id: upper.id, value },
    }
}

/// Problem that [`resolve`] found.
#[derive(Debug)]
pub(super) enum Clash {
    /// A duplicate key.
    Twice { key: String, first: Id, second: Id },
    /// A merge key (`<<`) whose value is neither a table nor a list of tables.
    Merge(Id),
}

/// Resolves merge keys (`<<`) and removes duplicate keys. Merged entries do not replace entries of the table; of duplicates
/// the first stays.
pub(super) fn resolve(root: &mut Node<'_>) -> Vec<Clash> {
    let mut clashes = Vec::new();
    resolve_node(root, &mut clashes);
    clashes
}

// Recursive to at most MAX_DEPTH.
fn resolve_node(node: &mut Node<'_>, clashes: &mut Vec<Clash>) {
    match &mut node.value {
        Value::List(items) => items.iter_mut().for_each(|item| resolve_node(item, clashes)),
        Value::Table(entries) => {
            entries.iter_mut().for_each(|entry| resolve_node(&mut entry.value, clashes));
            remove_duplicates(entries, clashes);
            if let Some(at) = entries.iter().position(|entry| entry.key == "<<") {
                let merged = entries.remove(at).value;
                merge(entries, merged, clashes);
            }
        }
        Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float | Value::Text(_) => {}
    }
}

fn remove_duplicates(entries: &mut Vec<Entry<'_>>, clashes: &mut Vec<Clash>) {
    // Most tables are small, and comparing their keys costs less than hashing them.
    let is_small = entries.len() <= SMALL_TABLE;
    if is_small
        && !entries.iter().enumerate().any(|(at, entry)| entries[..at].iter().any(|other| other.key == entry.key))
    {
        return;
    }
    let mut seen: HashMap<&str, Id> = HashMap::with_capacity(entries.len());
    let mut duplicates = Vec::new();
    for (at, entry) in entries.iter().enumerate() {
        match seen.get(&*entry.key) {
            Some(&first) => {
                clashes.push(Clash::Twice { key: entry.key.to_string(), first, second: entry.id });
                duplicates.push(at);
            }
            None => {
                seen.insert(&entry.key, entry.id);
            }
        }
    }
    if !duplicates.is_empty() {
        let mut at = 0;
        entries.retain(|_| {
            at += 1;
            duplicates.binary_search(&(at - 1)).is_err()
        });
    }
}

fn merge<'t>(entries: &mut Vec<Entry<'t>>, merged: Node<'t>, clashes: &mut Vec<Clash>) {
    let tables = match merged.value {
        Value::List(items) => items,
        value => vec![Node { id: merged.id, value }],
    };
    let mut present: HashSet<_> = entries.iter().map(|entry| entry.key.clone()).collect();
    for table in tables {
        match table.value {
            Value::Table(more) => entries.extend(more.into_iter().filter(|entry| present.insert(entry.key.clone()))),
            _ => clashes.push(Clash::Merge(table.id)),
        }
    }
}

/// Bounds on the expansion of a text, and the use so far.
struct Budget {
    source: u16,
    nodes: Cell<usize>,
    octets: Cell<usize>,
    exceeded: Cell<Option<Exceeded>>,
}

#[derive(Clone, Copy)]
enum Exceeded {
    Nodes,
    Octets,
    Depth,
}

impl Budget {
    /// Numbers the next node.
    fn node<E: serde::de::Error>(&self) -> Result<Id, E> {
        let node = self.nodes.get();
        if node == MAX_NODES {
            return Err(self.exceed(Exceeded::Nodes));
        }
        self.nodes.set(node + 1);
        Ok(Id { source: self.source, node })
    }

    fn spend<E: serde::de::Error>(&self, octets: usize) -> Result<(), E> {
        let octets = self.octets.get() + octets;
        if octets > MAX_OCTETS {
            return Err(self.exceed(Exceeded::Octets));
        }
        self.octets.set(octets);
        Ok(())
    }

    fn exceed<E: serde::de::Error>(&self, what: Exceeded) -> E {
        self.exceeded.set(Some(what));
        // The message is unused: `fault` reports the exceeded bound at the position of this error.
        E::custom("")
    }

    fn fault(&self, error: &serde_yaml::Error) -> Fault {
        let location = error.location();
        let place = location.map_or(Position::START, |at| Position { line: at.line(), column: at.column() });
        match self.exceeded.get() {
            Some(Exceeded::Nodes) => too_many_nodes(place),
            Some(Exceeded::Octets) => {
                let most = MAX_OCTETS / 1024;
                Fault::new(place, format!("text repeated by aliases exceeds {most} KiB"))
            }
            Some(Exceeded::Depth) => too_deep(place),
            // The bound of serde_yaml on aliases, which small files with many aliases meet first.
            None if error.to_string() == "repetition limit exceeded" => too_many_nodes(place),
            None => {
                let message = error.to_string();
                let at = format!(" at line {} column {}", place.line, place.column);
                Fault::new(place, message.replacen(&at, "", 1))
            }
        }
    }
}

/// Reads one node and its children.
#[derive(Clone, Copy)]
struct NodeSeed<'b> {
    budget: &'b Budget,
    depth: usize,
}

impl NodeSeed<'_> {
    fn child<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth == MAX_DEPTH {
            return Err(self.budget.exceed(Exceeded::Depth));
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }
}

impl<'t> DeserializeSeed<'t> for NodeSeed<'_> {
    type Value = Node<'t>;

    fn deserialize<D: Deserializer<'t>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let id = self.budget.node()?;
        Ok(Node { id, value: deserializer.deserialize_any(self)? })
    }
}

impl<'t> Visitor<'t> for NodeSeed<'_> {
    type Value = Value<'t>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a scalar, a list or a table")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(i64::try_from(value).map_or(Value::Float, Value::Integer))
    }

    fn visit_i128<E>(self, _: i128) -> Result<Self::Value, E> {
        Ok(Value::Float)
    }

    fn visit_u128<E>(self, _: u128) -> Result<Self::Value, E> {
        Ok(Value::Float)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Value::Float)
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, text: &'t str) -> Result<Self::Value, E> {
        self.budget.spend(text.len())?;
        Ok(Value::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
        self.budget.spend(text.len())?;
        Ok(Value::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'t>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let child = self.child()?;
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(child)? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'t>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let child = self.child()?;
        let mut entries = Vec::new();
        while let Some((id, key)) = access.next_key_seed(KeySeed(self.budget))? {
            entries.push(Entry { id, key, value: access.next_value_seed(child)? });
        }
        Ok(Value::Table(entries))
    }
}

/// Reads one key as written, so `8080:` and `null:` are text.
struct KeySeed<'b>(&'b Budget);

impl<'t> DeserializeSeed<'t> for KeySeed<'_> {
    type Value = (Id, Cow<'t, str>);

    fn deserialize<D: Deserializer<'t>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let id = self.0.node()?;
        Ok((id, deserializer.deserialize_str(self)?))
    }
}

impl<'t> Visitor<'t> for KeySeed<'_> {
    type Value = Cow<'t, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key that is text")
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, text: &'t str) -> Result<Self::Value, E> {
        self.0.spend(text.len())?;
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
        self.0.spend(text.len())?;
        Ok(Cow::Owned(text.to_owned()))
    }
}
