//! HCL to a [`Node`], with lines.
//!
//! `hcl_edit` reads HCL 2 and bounds the nesting to 64 levels. Consul reads HCL 1: a text that is not HCL 2 is rewritten by
//! `hcl1` first. One difference is left: an attribute that is written twice is an error here.

use hcl_edit::{
    Span,
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
    let error = match parser::parse_body(text) {
        Ok(body) => return Ok(Reader { lines: Lines::of(text), rewritten: None, file }.body(&body, 0)),
        Err(error) => error,
    };
    let rewritten = hcl1::rewrite(text);
    if let Ok(body) = parser::parse_body(&rewritten.text) {
        let reader = Reader { lines: Lines::of(&rewritten.text), rewritten: Some(&rewritten), file };
        return Ok({ reader }.body(&body, 0));
    }
    // The message lists expectations only. The line of the text, which may have a secret, is left out.
    let (line, column) = (error.location().line(), error.location().column());
    Err(SyntaxError { line, column, message: error.message().to_owned() })
}

struct Reader<'t> {
    lines: Lines<'t>,
    rewritten: Option<&'t Rewritten>,
    file: FileNumber,
}

impl Reader<'_> {
    /// Position of an element. One without a span has that of the element around it.
    fn position(&mut self, element: &impl Span, around: usize) -> Position {
        let line = element.span().map_or(around, |span| {
            let line = self.lines.line(span.start);
            self.rewritten.map_or(line, |rewritten| rewritten.original_line(line, span.start))
        });
        Position { file: self.file, line }
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
        Node { value: Value::Table(entries), at: Position { file: self.file, line: around.max(1) } }
    }

    fn expression(&mut self, expression: &Expression, around: usize) -> Node {
        let at = self.position(expression, around);
        let value = match expression {
            Expression::Null(_) => Value::Null,
            Expression::Bool(value) => Value::Bool(*value.value()),
            Expression::Number(number) => match number.value().as_i64() {
                Some(number) => Value::Integer(number),
                None => Value::Float(number.value().as_f64().unwrap_or(f64::MAX)),
            },
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
                        ObjectKey::Ident(ident) => ident.to_string(),
                        ObjectKey::Expression(Expression::String(text)) => text.value().clone(),
                        ObjectKey::Expression(Expression::Variable(ident)) => ident.to_string(),
                        ObjectKey::Expression(Expression::Number(number)) => number.value().to_string(),
                        ObjectKey::Expression(_) => continue,
                    };
                    entries.push(Entry { key, value: self.expression(value.expr(), at.line) });
                }
                Value::Table(entries)
            }
            _ => Value::Expression,
        };
        Node { value, at }
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
