//! Positions of the nodes of a YAML text.
//!
//! [`Marks::read`] walks the events of saphyr's parser once and keeps a mark for each node in the order of the text. Aliases
//! are not expanded. It also guards serde_yaml: invalid syntax, excessive nesting and size, and YAML features that muster does
//! not support (tags, several documents, keys that are not text) are refused here with their position.
//!
//! The tree numbers its nodes as it reads them, with aliases expanded. After [`Marks::follow_aliases`] the same number finds
//! the same node here.

use std::{borrow::Cow, ops::Range};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span};

use super::{Fault, MAX_DEPTH, MAX_NODES, position::Position, text::too_many_nodes};

/// The marks of one text.
#[derive(Debug)]
pub(super) struct Marks<'t> {
    marks: Vec<Mark<'t>>,
    /// Index of the mark of each node of the tree; `None`: without aliases, both numbers agree.
    order: Option<Vec<usize>>,
}

#[derive(Debug)]
struct Mark<'t> {
    place: Position,
    kind: Kind<'t>,
}

/// Kind of a node.
#[derive(Debug)]
pub(super) enum Kind<'t> {
    /// A scalar without quotes, as written.
    Plain(Cow<'t, str>),
    /// The text of a scalar in quotes.
    Quoted(Cow<'t, str>),
    /// The text of a scalar in block style, which begins with `|` or `>`.
    Block(Cow<'t, str>),
    /// A table or a list.
    Collection,
    /// A repetition of the marks with these indices.
    Alias(Range<usize>),
}

impl<'t> Marks<'t> {
    /// Reads the whole text.
    pub(super) fn read(text: &'t str) -> Result<Self, Fault> {
        let mut builder = Builder::default();
        let mut parser = Parser::new_from_str(text);
        while let Some(event) = parser.next_event() {
            let (event, span) = event.map_err(|error| syntax(text, &error))?;
            builder.add(event, span)?;
        }
        if builder.marks.is_empty() {
            builder.push(Position::START, Kind::Plain(Cow::Borrowed("")), 1, 0)?;
        }
        Ok(Self { marks: builder.marks, order: None })
    }

    /// Returns marks of no node, with room for this number.
    pub(super) fn with_capacity(nodes: usize) -> Self {
        Self { marks: Vec::with_capacity(nodes), order: None }
    }

    /// Adds a node without an anchor in the order of the text, and returns its number.
    pub(super) fn push(&mut self, place: Position, kind: Kind<'t>) -> usize {
        self.marks.push(Mark { place, kind });
        self.marks.len() - 1
    }

    /// Numbers the marks as the tree of the same text numbers its `nodes` nodes.
    pub(super) fn follow_aliases(&mut self, nodes: usize) {
        if self.marks.iter().any(|mark| matches!(mark.kind, Kind::Alias(_))) {
            let mut order = Vec::with_capacity(nodes);
            // One more than expected is enough to detect a difference.
            self.expand(0..self.marks.len(), nodes + 1, 0, &mut order);
            self.order = Some(order);
        }
    }

    // The bounds are those of the tree. They matter only if the two parsers understood a text differently; then positions
    // are wrong, with no other effect.
    fn expand(&self, range: Range<usize>, nodes: usize, depth: usize, order: &mut Vec<usize>) {
        for index in range {
            match &self.marks[index].kind {
                _ if order.len() >= nodes => return,
                Kind::Alias(target) if depth < MAX_DEPTH => self.expand(target.clone(), nodes, depth + 1, order),
                _ => order.push(index),
            }
        }
    }

    /// Position of the node with this number. Nodes repeated by an alias have the position of the original.
    pub(super) fn place(&self, node: usize) -> Position {
        self.mark(node).or(self.marks.last()).map_or(Position::START, |mark| mark.place)
    }

    /// Written form of an unquoted scalar: `1.10`, which the tree has as 1.1.
    pub(super) fn written(&self, node: usize) -> Option<&str> {
        match &self.mark(node)?.kind {
            Kind::Plain(text) => Some(text),
            Kind::Quoted(_) | Kind::Block(_) | Kind::Collection | Kind::Alias(_) => None,
        }
    }

    /// Text of a scalar, quoted or not.
    pub(super) fn text(&self, node: usize) -> Option<&str> {
        match &self.mark(node)?.kind {
            Kind::Plain(text) | Kind::Quoted(text) | Kind::Block(text) => Some(text),
            Kind::Collection | Kind::Alias(_) => None,
        }
    }

    /// Reports whether the node with this number is a quoted scalar.
    pub(super) fn is_quoted(&self, node: usize) -> bool {
        self.mark(node).is_some_and(|mark| matches!(mark.kind, Kind::Quoted(_)))
    }

    /// Number of nodes including those repeated by aliases; at most one more than the tree has.
    pub(super) fn count(&self) -> usize {
        self.order.as_ref().map_or(self.marks.len(), Vec::len)
    }

    fn mark(&self, node: usize) -> Option<&Mark<'t>> {
        let index = match &self.order {
            Some(order) => *order.get(node)?,
            None => node,
        };
        self.marks.get(index)
    }
}

#[derive(Default)]
struct Builder<'t> {
    marks: Vec<Mark<'t>>,
    /// Extent of each mark with its children.
    extents: Vec<Extent>,
    /// Tables and lists that are still open.
    open: Vec<Open>,
    /// Index of the mark of each anchor; saphyr numbers anchors from 1.
    anchors: Vec<usize>,
    /// Number of nodes so far, including those repeated by aliases.
    nodes: usize,
    documents: usize,
}

#[derive(Clone, Copy)]
struct Extent {
    /// Index of the first mark after the node and its children.
    end: usize,
    /// Number of nodes, including children and those repeated by aliases.
    nodes: usize,
}

struct Open {
    mark: usize,
    nodes_before: usize,
    role: Role,
}

/// Role of the next node in an open table or list.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Item,
    Key,
    Value,
}

impl<'t> Builder<'t> {
    fn add(&mut self, event: Event<'t>, span: Span) -> Result<(), Fault> {
        let place = place_of(span.start);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_tag(tag.is_some(), place)?;
                let place = match self.marks.last() {
                    // A key without a value: report the position of the key.
                    Some(key) if span.is_empty() && self.next_role() == Some(Role::Value) => key.place,
                    _ => place,
                };
                let kind = match style {
                    ScalarStyle::Plain => Kind::Plain,
                    ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => Kind::Quoted,
                    ScalarStyle::Literal | ScalarStyle::Folded => Kind::Block,
                };
                self.push(place, kind(text), 1, anchor)?;
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_tag(tag.is_some(), place)?;
                self.open(Role::Item, place, anchor)?;
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_tag(tag.is_some(), place)?;
                self.open(Role::Key, place, anchor)?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(open) = self.open.pop() {
                    let nodes = self.nodes - open.nodes_before;
                    self.extents[open.mark] = Extent { end: self.marks.len(), nodes };
                }
            }
            Event::Alias(anchor) => {
                if self.next_role() == Some(Role::Key) {
                    return Err(key_is_not_text(place));
                }
                let target = anchor.checked_sub(1).and_then(|index| self.anchors.get(index)).copied();
                let target = target.ok_or_else(|| Fault::new(place, "no anchor has the name of this alias"))?;
                if self.open.iter().any(|open| open.mark == target) {
                    return Err(Fault::new(place, "the alias refers to a value that contains it"));
                }
                let Extent { end, nodes } = self.extents[target];
                self.push(place, Kind::Alias(target..end), nodes, 0)?;
            }
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(Fault::new(place, "the file has more than one YAML document")
                        .with_hint("move the content after this line to another file"));
                }
            }
            Event::DocumentEnd | Event::StreamStart | Event::StreamEnd | Event::Nothing => {}
        }
        Ok(())
    }

    fn push(&mut self, place: Position, kind: Kind<'t>, nodes: usize, anchor: usize) -> Result<(), Fault> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            return Err(too_many_nodes(place));
        }
        if let Some(index) = anchor.checked_sub(1) {
            self.anchors.resize(self.anchors.len().max(index + 1), self.marks.len());
            self.anchors[index] = self.marks.len();
        }
        if let Some(open) = self.open.last_mut() {
            open.role = match open.role {
                Role::Item => Role::Item,
                Role::Key => Role::Value,
                Role::Value => Role::Key,
            };
        }
        self.marks.push(Mark { place, kind });
        self.extents.push(Extent { end: self.marks.len(), nodes });
        Ok(())
    }

    fn open(&mut self, role: Role, place: Position, anchor: usize) -> Result<(), Fault> {
        if self.next_role() == Some(Role::Key) {
            return Err(key_is_not_text(place));
        }
        if self.open.len() == MAX_DEPTH {
            return Err(too_deep(place));
        }
        self.push(place, Kind::Collection, 1, anchor)?;
        self.open.push(Open { mark: self.marks.len() - 1, nodes_before: self.nodes - 1, role });
        Ok(())
    }

    fn next_role(&self) -> Option<Role> {
        self.open.last().map(|open| open.role)
    }

    fn refuse_tag(&self, tagged: bool, place: Position) -> Result<(), Fault> {
        if tagged {
            return Err(Fault::new(place, "YAML tags are not supported")
                .with_hint("remove the tag; a text that begins with `!` has to be quoted"));
        }
        Ok(())
    }
}

pub(super) fn too_deep(place: Position) -> Fault {
    Fault::new(place, format!("tables and lists are nested deeper than {MAX_DEPTH} levels"))
}

fn key_is_not_text(place: Position) -> Fault {
    Fault::new(place, "a key must be text").with_hint("a value that begins with `[`, `{` or `*` has to be quoted")
}

fn syntax(text: &str, error: &ScanError) -> Fault {
    let place = place_of(*error.marker());
    let info = error.info();
    if info.contains("recursion limit") {
        return too_deep(place);
    }
    // The parser appends the character, which may be part of a secret.
    let shown = if info.starts_with("unexpected character") { "unexpected character" } else { info };
    let fault = Fault::new(place, shown);
    match syntax_hint(text, place, info) {
        Some(hint) => fault.with_hint(hint),
        None => fault,
    }
}

/// Hint on the usual cause of a syntax error.
fn syntax_hint(text: &str, place: Position, info: &str) -> Option<&'static str> {
    let line = text.lines().nth(place.line - 1).unwrap_or_default();
    if info.contains("tab") && line.contains('\t') {
        return Some("indent with spaces");
    }
    if info.contains("mapping values are not allowed") {
        return Some("a text that contains `: ` has to be quoted; or is the line indented too far?");
    }
    if info.contains("unknown anchor") {
        return Some("a text that begins with `*` has to be quoted");
    }
    if info.contains("unknown escape") {
        return Some("in single quotes a backslash is an ordinary character");
    }
    if info.contains("trailing content") {
        return Some("quote the text as a whole; inside single quotes, double each quote");
    }
    if info.contains("unexpected character") {
        return Some("a text that begins with this character has to be quoted");
    }
    if line.contains(['[', '{']) && (info.contains("flow") || info.contains("did not find expected")) {
        return Some("a text that begins with `[` or `{` has to be quoted, as in \"[::1]:53\"");
    }
    if info.contains("did not find expected key") {
        return Some("indent all keys of a table equally");
    }
    None
}

fn place_of(marker: Marker) -> Position {
    Position { line: marker.line().max(1), column: marker.col() + 1 }
}
