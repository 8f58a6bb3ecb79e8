//! HCL to a [`Node`], with lines.
//!
//! `hcl_edit` reads HCL 2 and bounds the nesting to 64 levels. Consul reads HCL 1: a text that is not HCL 2 is rewritten by
//! `hcl1` first. One difference is left: an attribute that is written twice is an error here.

use hcl_edit::{
    Formatted, Number, Span,
    expr::{Expression, ObjectKey},
    parser,
    structure::{Body, Structure},
    template::{Element, Template},
};

use super::{
    SyntaxError,
    hcl1::{self, Rewritten},
    tree::{Entry, FileNumber, Lines, Node, Position, Value},
};

/// Parses an HCL text.
///
/// # Errors
/// The first error of syntax.
pub(super) fn parse(text: &str, file: FileNumber) -> Result<Node, SyntaxError> {
    let lines = Lines::of(text);
    if let Ok(body) = parser::parse_body(text) {
        return Ok(Reader { parsed: text, lines, rewritten: None, file }.body(&body, 0));
    }
    let rewritten = hcl1::rewrite(text);
    match parser::parse_body(&rewritten.text) {
        Ok(body) => {
            let reader = Reader { parsed: &rewritten.text, lines, rewritten: Some(&rewritten), file };
            Ok({ reader }.body(&body, 0))
        }
        // The error of HCL 2 may be at something that HCL 1 allows.
        Err(error) => Err(describe(text, rewritten.original(error.location().offset()), error.message())),
    }
}

/// An error at an offset. The message lists expectations only. The line of the text, which may have a secret, is left out.
fn describe(text: &str, offset: usize, message: &str) -> SyntaxError {
    let before = &text.as_bytes()[..offset.min(text.len())];
    let line_start = before.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    let line = before.iter().filter(|b| **b == b'\n').count() + 1;
    let column = String::from_utf8_lossy(&before[line_start..]).chars().count() + 1;
    SyntaxError { line, column, message: message.to_owned() }
}

struct Reader<'t> {
    /// The text that was parsed.
    parsed: &'t str,
    /// Lines of the original.
    lines: Lines<'t>,
    rewritten: Option<&'t Rewritten>,
    file: FileNumber,
}

impl Reader<'_> {
    /// Position of an element. One without a span has that of the element around it.
    fn position(&mut self, element: &impl Span, around: usize) -> Position {
        let line = element.span().map_or(around, |span| {
            self.lines.line(self.rewritten.map_or(span.start, |rewritten| rewritten.original(span.start)))
        });
        Position { file: self.file, line }
    }

    /// An integer. A zero before its digits makes it octal in HCL 1.
    fn integer(&self, number: &Formatted<Number>) -> Value {
        let literal = number.span().and_then(|span| self.parsed.get(span)).unwrap_or_default();
        let digits = literal.trim_start_matches(['-', ' ']);
        if digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit()) {
            let octal = i64::from_str_radix(digits, 8).ok();
            return octal.map_or(Value::Expression, |octal| {
                Value::Integer(if literal.starts_with('-') { -octal } else { octal })
            });
        }
        match number.value().as_i64() {
            Some(number) => Value::Integer(number),
            None => Value::Float(number.value().as_f64().unwrap_or(f64::MAX)),
        }
    }

    /// Reads attributes and blocks. Blocks of one name become a list, in which Consul's decoder sees no difference.
    fn body(&mut self, body: &Body, around: usize) -> Node {
        let mut entries: Vec<Entry> = Vec::new();
        for structure in body {
            let at = self.position(structure, around);
            let (key, value) = match structure {
                Structure::Attribute(attribute) => {
                    (hcl1::key(&attribute.key), self.expression(&attribute.value, at.line))
                }
                Structure::Block(block) => {
                    let mut node = Node { at, ..self.body(&block.body, at.line) };
                    for label in block.labels.iter().rev() {
                        let entry = Entry { key: label.as_str().to_owned(), value: node };
                        node = Node { value: Value::Table(vec![entry]), at };
                    }
                    (hcl1::key(&block.ident), node)
                }
            };
            add(&mut entries, key, value);
        }
        Node { value: Value::Table(entries), at: Position { file: self.file, line: around.max(1) } }
    }

    fn expression(&mut self, expression: &Expression, around: usize) -> Node {
        let at = self.position(expression, around);
        let value = match expression {
            Expression::Null(_) => Value::Null,
            Expression::Bool(value) => Value::Bool(*value.value()),
            Expression::Number(number) => self.integer(number),
            Expression::String(text) => Value::Text(text.value().clone()),
            Expression::HeredocTemplate(heredoc) => literal(&heredoc.template),
            Expression::StringTemplate(template) => {
                let text: Option<String> = template.iter().map(literal_element).collect();
                text.map_or(Value::Expression, Value::Text)
            }
            Expression::Array(items) => Value::List(items.iter().map(|item| self.expression(item, at.line)).collect()),
            Expression::Object(object) => {
                let mut entries = Vec::with_capacity(object.len());
                for (key, value) in object {
                    let key = match key {
                        ObjectKey::Ident(ident) => hcl1::key(ident),
                        ObjectKey::Expression(Expression::String(text)) => text.value().clone(),
                        ObjectKey::Expression(Expression::Variable(ident)) => hcl1::key(ident),
                        ObjectKey::Expression(Expression::Number(number)) => number.value().to_string(),
                        ObjectKey::Expression(_) => continue,
                    };
                    let value = self.expression(value.expr(), at.line);
                    add(&mut entries, key, value);
                }
                Value::Table(entries)
            }
            _ => Value::Expression,
        };
        Node { value, at }
    }
}

/// Adds an entry. Values of one key become a list.
fn add(entries: &mut Vec<Entry>, key: String, value: Node) {
    let same = entries.iter_mut().find(|entry| entry.key == key);
    match same.map(|entry| &mut entry.value) {
        None => entries.push(Entry { key, value }),
        Some(Node { value: Value::List(items), .. }) => items.push(value),
        Some(first) => {
            let at = first.at;
            let earlier = std::mem::replace(first, Node { value: Value::Null, at });
            first.value = Value::List(vec![earlier, value]);
        }
    }
}

/// The text of a template without interpolations.
fn literal(template: &Template) -> Value {
    let text: Option<String> = template.iter().map(literal_element).collect();
    text.map_or(Value::Expression, Value::Text)
}

fn literal_element(element: &Element) -> Option<&str> {
    match element {
        Element::Literal(text) => Some(text.as_str()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Vec<Entry> {
        match parse(text, 0).unwrap().value {
            Value::Table(entries) => entries,
            value => panic!("{value:?}"),
        }
    }

    #[test]
    fn blocks_and_attributes_are_one_table_with_lines() {
        let entries = table(
            "datacenter = \"dc1\" # comment\nports {\n  dns = 53\n  http = -1\n}\nservices {\n  name = \"a\"\n}\nservices \
             {\n  name = \"b\"\n}\nmeta = {\n  \"x.y\" = \"1\", z = true\n}\n",
        );
        let keys: Vec<_> = entries.iter().map(|entry| (entry.key.as_str(), entry.value.at.line)).collect();
        assert_eq!(keys, [("datacenter", 1), ("ports", 2), ("services", 6), ("meta", 12)]);
        let ports = entries[1].value.entries().unwrap();
        assert_eq!((&ports[1].value.value, ports[1].value.at.line), (&Value::Integer(-1), 4));
        let Value::List(services) = &entries[2].value.value else { panic!("{entries:?}") };
        assert_eq!(services[1].at.line, 9);
        assert_eq!(entries[3].value.entries().unwrap()[0].key, "x.y");
    }

    #[test]
    fn hcl_1_is_read_with_the_lines_of_the_text() {
        let entries = table("\nports { dns = 53 http = 8500 }\nservice_ttl { \"*\" = \"5s\" }\n\"domain\" = \"x\"\n");
        let keys: Vec<_> = entries.iter().map(|entry| (entry.key.as_str(), entry.value.at.line)).collect();
        assert_eq!(keys, [("ports", 2), ("service_ttl", 3), ("domain", 4)]);
        assert_eq!(entries[0].value.entries().unwrap()[1].key, "http");
        assert_eq!(entries[1].value.entries().unwrap()[0].key, "*");
    }

    #[test]
    fn blocks_in_items_of_lists_are_read() {
        let entries = table(
            "services = [{ name = \"web\" port = 0x50\n check { tcp = \"a:1\" header { A = [\"x\"] } header { B = [\"y\"] } }\n \
             checks { ttl = \"5s\" }\n checks { ttl = \"6s\" } connect { sidecar_service \"s\" { port = 1 } } }, {}]\n",
        );
        let Value::List(services) = &entries[0].value.value else { panic!("{entries:?}") };
        let web = services[0].entries().unwrap();
        let keys: Vec<_> = web.iter().map(|entry| (entry.key.as_str(), entry.value.at.line)).collect();
        assert_eq!(keys, [("name", 1), ("port", 1), ("check", 2), ("checks", 3), ("connect", 4)]);
        assert_eq!(web[1].value.value, Value::Integer(80));
        let check = web[2].value.entries().unwrap();
        assert_eq!(check[1].value.entries().unwrap().len(), 2, "{check:?}");
        let Value::List(checks) = &web[3].value.value else { panic!("{web:?}") };
        assert_eq!((checks.len(), checks[1].at.line), (2, 4));
        let sidecar = web[4].value.entries().unwrap()[0].value.entries().unwrap();
        assert_eq!(sidecar[0].key, "s");
    }

    #[test]
    fn numbers_have_the_base_of_hcl_1() {
        let entries = table("a = 0120\nb = 0\nc = -017\nd = 0.5\ne = 089\nf = 0x1F g = -0x2\n");
        let values: Vec<_> = entries.into_iter().map(|entry| entry.value.value).collect();
        let expected = [80, 0, -15].map(Value::Integer).into_iter();
        let expected = expected.chain([Value::Float(0.5), Value::Expression, Value::Integer(31), Value::Integer(-2)]);
        assert_eq!(values, expected.collect::<Vec<_>>());
    }

    #[test]
    fn labels_of_blocks_are_tables() {
        let entries = table("connect {\n  sidecar_service \"x\" {}\n}\n");
        let connect = entries[0].value.entries().unwrap();
        assert_eq!(connect[0].value.entries().unwrap()[0].key, "x");
    }

    #[test]
    fn heredocs_are_texts_and_other_expressions_are_marked() {
        let entries = table("a = <<EOF\none\ntwo\nEOF\nb = \"x-${var.y}\"\nc = 1 + 2\nd = \"$${x}\"\n");
        assert_eq!(entries[0].value.value, Value::Text("one\ntwo\n".to_owned()));
        assert_eq!(entries[1].value.value, Value::Expression);
        assert_eq!(entries[2].value.value, Value::Expression);
        assert_eq!(entries[3].value.value, Value::Text("${x}".to_owned()));
    }

    #[test]
    fn errors_have_a_line_and_no_part_of_the_text() {
        let cases = [
            ("a = 1\nencrypt = secret ] secret\n", 2),
            ("\n\"encrypt\" = \"secret\n", 2),
            ("service {\n", 1),
            ("a = 1\na = 2\n", 2),
            // The first lines are HCL 1.
            ("services { name = \"a\" port = 1 }\nb {\n  c = [1\n", 3),
            ("\"ports\" { dns = 1 http = 2 } d = secret ] secret\n", 1),
            ("a { b = 1 c = 2 }\n\nd = 3\nencrypt = = secret\n", 4),
        ];
        for (text, line) in cases {
            let error = parse(text, 0).unwrap_err();
            assert_eq!(error.line, line, "{text}: {error}");
            assert!(!error.message.contains("secret"), "{error}");
        }
    }

    #[test]
    fn deep_nesting_is_an_error() {
        for (open, close) in [("[", "]"), ("{a={", "}}"), ("(", ")"), ("!", ""), ("-", ""), ("\"${", "}\"")] {
            let text = format!("a = {}1{}\n", open.repeat(20_000), close.repeat(20_000));
            assert!(parse(&text, 0).is_err(), "{open}");
        }
        assert!(parse(&"a {\n".repeat(20_000), 0).is_err(), "blocks");
    }
}
