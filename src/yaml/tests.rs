//! Errors, expansion bombs and positions, over all four steps.

use std::{fmt::Write as _, path::Path};

use super::{
    Document, MAX_DEPTH, MAX_NODES, MAX_OCTETS, MAX_TEXT,
    marks::Marks,
    read_any,
    reader::Reader,
    subset, text,
    tree::{Entry, Node, Value},
};

fn read(text: &str) -> Result<Document<'_>, String> {
    Document::read(Path::new("f"), text.as_bytes(), 0).map_err(|problem| problem.to_string())
}

/// Each key and scalar with its position, one per line.
fn places(text: &str) -> String {
    fn walk(reader: &Reader<'_, '_>, node: &Node<'_>, out: &mut String) {
        let (line, column) = reader.position(node.id);
        match &node.value {
            Value::Table(entries) => {
                for Entry { id, key, value } in entries {
                    let (line, column) = reader.position(*id);
                    writeln!(out, "{line}:{column} {key}=").unwrap();
                    walk(reader, value, out);
                }
            }
            Value::List(items) => items.iter().for_each(|item| walk(reader, item, out)),
            Value::Text(text) => writeln!(out, "{line}:{column} {}", text.trim_end()).unwrap(),
            _ => writeln!(out, "{line}:{column} {:?}", reader.written(node.id).unwrap_or_default()).unwrap(),
        }
    }
    let document = read(text).unwrap();
    let reader = Reader::new(std::slice::from_ref(&document));
    let mut out = String::new();
    walk(&reader, document.root(), &mut out);
    out
}

#[test]
fn every_key_and_scalar_has_its_position() {
    let cases = [
        ("a: b\nc:\n  - d\n  - 'e'\n", "1:1 a=\n1:4 b\n2:1 c=\n3:5 d\n4:5 e\n"),
        ("{a: b, \"c\": [d,e]}", "1:2 a=\n1:5 b\n1:8 c=\n1:14 d\n1:16 e\n"),
        // Numbers, booleans and null as written; a missing value has the position of its key.
        (
            "a: 1.10\nb: 0x1F\nc: True\nd: ~\ne:\n",
            "1:1 a=\n1:4 \"1.10\"\n2:1 b=\n2:4 \"0x1F\"\n3:1 c=\n3:4 \"True\"\n4:1 d=\n4:4 \"~\"\n5:1 e=\n5:1 \"\"\n",
        ),
        // Columns are counted in characters, without a byte-order mark.
        ("\u{feff}é: ü\n日本: {x: 🦀🦀, y: z}\n", "1:1 é=\n1:4 ü\n2:1 日本=\n2:6 x=\n2:9 🦀🦀\n2:13 y=\n2:16 z\n"),
        // Line ends of other systems.
        ("a: b\r\n\r\nc: d\r\n", "1:1 a=\n1:4 b\n3:1 c=\n3:4 d\n"),
        // Nodes repeated by an alias have the position of the original.
        ("a: &x [b, c]\nd: *x\ne: f\n", "1:1 a=\n1:8 b\n1:11 c\n2:1 d=\n1:8 b\n1:11 c\n3:1 e=\n3:4 f\n"),
        (
            "a: &x {b: &y [c]}\nd: [*x, *y]\ne: f",
            "1:1 a=\n1:8 b=\n1:15 c\n2:1 d=\n1:8 b=\n1:15 c\n1:15 c\n3:1 e=\n3:4 f\n",
        ),
        // A merge key adds keys that the table lacks.
        (
            "a: &x {b: 1, c: 2}\nd:\n  <<: *x\n  c: 3\n",
            "1:1 a=\n1:8 b=\n1:11 \"1\"\n1:14 c=\n1:17 \"2\"\n2:1 d=\n4:3 c=\n4:6 \"3\"\n1:8 b=\n1:11 \"1\"\n",
        ),
        (
            "a: &x {b: 1}\nc: {<<: [*x, {b: 2, d: 3}]}\n",
            "1:1 a=\n1:8 b=\n1:11 \"1\"\n2:1 c=\n1:8 b=\n1:11 \"1\"\n2:21 d=\n2:24 \"3\"\n",
        ),
        // Text of several lines, comments, a document's start and end.
        ("# x\n---\na: |\n  b\n  c\nd: e # f\n...\n", "3:1 a=\n4:3 b\nc\n6:1 d=\n6:4 e\n"),
        ("", "1:1 \"\"\n"),
    ];
    for (text, expected) in cases {
        let got = places(text);
        assert_eq!(got, expected, "{text:?}");
    }
}

#[test]
fn syntax_errors_have_a_position_and_a_hint() {
    let deep = "[".repeat(MAX_DEPTH + 1);
    let deeper = "[".repeat(1000);
    let cases = [
        (
            "a: b: c",
            "f:1:5: mapping values are not allowed in this context (a text that contains `: ` has to be quoted; or is the line indented too far?)",
        ),
        (
            "a: b\n  c: d",
            "f:2:4: mapping values are not allowed in this context (a text that contains `: ` has to be quoted; or is the line indented too far?)",
        ),
        ("a:\n\tb: c", "f:2:2: tabs disallowed within this context (block indentation) (indent with spaces)"),
        ("a: @b", "f:1:4: unexpected character (a text that begins with this character has to be quoted)"),
        ("a: [b", "f:2:1: while parsing a flow sequence, expected ',' or ']'"),
        ("a: \"b", "f:1:4: while scanning a quoted scalar, found unexpected end of stream"),
        (
            "a: 'don't'",
            "f:1:9: invalid trailing content after double-quoted scalar (quote the text as a whole; inside single quotes, double each quote)",
        ),
        (
            "a: \"\\d\"",
            "f:1:4: while parsing a quoted scalar, found unknown escape character (in single quotes a backslash is an ordinary character)",
        ),
        (
            "a:\n  - b\n - c",
            "f:3:2: while parsing a block mapping, did not find expected key (indent all keys of a table equally)",
        ),
        (
            "a: [::1]:53",
            "f:1:9: while parsing a block mapping, did not find expected key (a text that begins with `[` or `{` has to be quoted, as in \"[::1]:53\")",
        ),
        ("a: {{ b }}", "f:1:5: a key must be text (a value that begins with `[`, `{` or `*` has to be quoted)"),
        ("? [a]\n: b", "f:1:3: a key must be text (a value that begins with `[`, `{` or `*` has to be quoted)"),
        ("a: &x b\n*x : c", "f:2:1: a key must be text (a value that begins with `[`, `{` or `*` has to be quoted)"),
        ("a: *x", "f:1:4: while parsing node, found unknown anchor (a text that begins with `*` has to be quoted)"),
        ("a: &x [*x]", "f:1:8: the alias refers to a value that contains it"),
        (
            "a: !b c",
            "f:1:4: YAML tags are not supported (remove the tag; a text that begins with `!` has to be quoted)",
        ),
        (
            "a: !!binary c",
            "f:1:4: YAML tags are not supported (remove the tag; a text that begins with `!` has to be quoted)",
        ),
        (
            "a: b\n---\nc: d",
            "f:2:1: the file has more than one YAML document (move the content after this line to another file)",
        ),
        (&deep, "f:1:33: tables and lists are nested deeper than 32 levels"),
        (&deeper, "f:1:256: tables and lists are nested deeper than 32 levels"),
        ("%YAML 1.2\n---\na: b", "f:1:1: YAML directives are not supported (delete the line)"),
    ];
    for (text, expected) in cases {
        assert_eq!(read(text).unwrap_err(), expected, "{text:?}");
    }
}

/// Without bounds, some of these take a parser minutes or fill the memory.
#[test]
fn expansion_bombs_are_refused() {
    let fill = |unit: &str| unit.repeat(MAX_TEXT / unit.len());
    let laughs: String =
        (1..30).map(|n| format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 9].join(","))).collect();
    let tables: String = (1..30).map(|n| format!("a{n}: &a{n} {{x: *a{0}, y: *a{0}}}\n", n - 1)).collect();
    let merges: String = (1..30).map(|n| format!("a{n}: &a{n} {{<<: *a{0}, x{n}: *a{0}}}\n", n - 1)).collect();
    let long = "x".repeat(MAX_TEXT / 2);
    let cases = [
        ("billion laughs", format!("a0: &a0 [x]\n{laughs}")),
        ("two to the thirtieth", format!("a0: &a0 {{x: y}}\n{tables}")),
        ("merge keys", format!("a0: &a0 {{x: y}}\n{merges}")),
        ("a flat list, repeated", format!("- &a [{}]\n{}", "x,".repeat(100_000), "- *a\n".repeat(100_000))),
        ("a long text, repeated", format!("- &a {long}\n{}", "- *a\n".repeat(50_000))),
        ("a long folded text, repeated", format!("- &a >\n  {long}\n{}", "- *a\n".repeat(50_000))),
        ("a long key, repeated", format!("- &a\n  ? {long}\n  : x\n{}", "- *a\n".repeat(50_000))),
        ("lists in lists", fill("[")),
        ("lists in lists, by lines", fill("[\n")),
        ("tables in tables", fill("{a: ")),
        ("tables in tables, by lines", fill(&format!("{}\n", "{a: ".repeat(30)))),
        ("lists in lists, in block style", fill("- ")),
        ("keys in keys", fill("? ")),
        ("keys in keys, in flow style", fill("{? ")),
        ("stairs", (0..1400).map(|n| format!("{}a:\n", " ".repeat(n))).collect()),
        ("many items", format!("[{}]", fill("a,"))),
        ("many items, by lines", fill("- a\n")),
        ("many keys", fill("a:\n")),
        ("many directives", fill("%TAG !a! b\n")),
        ("many documents", fill("---\n")),
        ("many anchors", fill("&a ")),
        ("many tags", fill("!a ")),
    ];
    for (name, text) in cases {
        assert!(text.len() <= MAX_TEXT + 1000, "{name}");
        assert!(read(&text[..text.len().min(MAX_TEXT)]).is_err(), "{name}");
    }
}

#[test]
fn files_at_the_bounds_are_read() {
    let open = "[".repeat(MAX_DEPTH) + &"]".repeat(MAX_DEPTH);
    let items = "- a\n".repeat(MAX_NODES - 1);
    let aliases = format!("- &a {}\n{}", "x".repeat(MAX_OCTETS / 10), "- *a\n".repeat(9));
    for text in [open, items, aliases] {
        read(&text).unwrap();
    }
}

#[test]
fn duplicate_key_is_reported_at_each_repetition() {
    let document = read("a: 1\nb: {c: 1, c: 2}\na: 2\na: 3\n<<: 4\n").unwrap();
    let problems = Reader::new(std::slice::from_ref(&document)).finish(Some(())).unwrap_err();
    let shown: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let expected = [
        "f:2:11: duplicate key `c` (the first one is in line 2)",
        "f:3:1: duplicate key `a` (the first one is in line 1)",
        "f:4:1: duplicate key `a` (the first one is in line 1)",
        "f:5:5: `<<` needs a table or a list of tables",
    ];
    assert_eq!(shown, expected);
}

/// Text with all syntax.
const TEXT: &str = "a: &x [b, 'c d', \"e\\n\"]\nf:\n  - g: 1.10\n    h: |\n      i: j\n  - {k: *x, l: ~, m: }\n\
                    # n\n\"o\": >-\n  p\n  q\n? r\n: s\nt: http://u:80/v#w\nx y: [z: 1]\n<<: {aa: null}\n";

/// Random mutations of a valid text.
fn mutations(text: &str, count: usize) -> impl Iterator<Item = String> {
    const PIECES: &[&str] = &[
        ":", ": ", "- ", "[", "]", "{", "}", ",", "\n", "\n  ", "#", " #", "'", "\"", "|", ">", "&x ", "*x", "!", "%",
        "?", "? ", "\t", " ", "\\", "@", "`", "~", "<<: ", "---\n", "...\n", "é", "\r\n", "\r", "0x", "1.0", "yes", "",
    ];
    let mut random = fastrand::Rng::with_seed(7);
    (0..count).map(move |_| {
        let mut text = text.to_owned();
        for _ in 0..random.usize(1..6) {
            let at = text.floor_char_boundary(random.usize(..=text.len()));
            let end = text.floor_char_boundary((at + random.usize(..4)).min(text.len())).max(at);
            text.replace_range(at..end, PIECES[random.usize(..PIECES.len())]);
        }
        text
    })
}

/// The number of a node finds its position only if both parsers see the same nodes.
#[test]
fn text_that_the_parsers_understand_differently_is_refused() {
    let cases = [
        // In flow style `?` may begin a key or text.
        ("a: [b, ?c]", "f:1:8"),
        // serde_yaml takes the third anchor for the second one.
        ("a: &x 1\nb: &x 2\nc: *x\nd: &x 3\n", "f:2:4"),
    ];
    for (text, place) in cases {
        let expected = "ambiguous YAML (quote text that begins with `?`, and use each anchor name once)";
        assert_eq!(read(text).unwrap_err(), format!("{place}: {expected}"), "{text:?}");
    }
}

#[test]
fn mutated_texts_are_refused_or_have_correct_positions() {
    let mut good = 0;
    for text in mutations(TEXT, 20_000) {
        let Ok(document) = read(&text) else { continue };
        let lines: Vec<&str> =
            text.split_terminator('\n').flat_map(|line| line.trim_end_matches('\r').split('\r')).collect();
        for number in 0..document.marks.count() {
            let place = document.marks.place(number);
            let Some(first) = document.marks.written(number).and_then(|text| text.split_whitespace().next()) else {
                continue;
            };
            let at: String = lines[place.line - 1].chars().skip(place.column - 1).collect();
            // A node begins with its anchor.
            assert!(at.starts_with(first) || at.starts_with('&'), "{first:?} is not at {place:?} in {text:?}");
        }
        good += 1;
    }
    assert!(good > 1000, "only {good} texts are valid: the test is void");
}

/// A service file as `subset` reads it.
const USUAL: &str = "# Ports are those of the host.\n\nservices:\n- service: web\n  id: web-1  # the first\n  \
                     address: [10.0.0.7, \"2001:db8::7\"]\n  port: 8080\n  tags: [v2, primary]\n  meta:\n    \
                     version: \"2.3.1\"\n    path: /srv/web\n  enabled: true\n  checks:\n    - http: http://10.0.0.7:80/a?b=c#d\n\
                     \n      interval: 10s\n    - tcp: 10.0.0.7:80\n  ttl:\n- service: db\n  tags:\n  - a b\n  - c\n\
                     - {service: 'x y', weight: 0, checks: []}\n";

/// Reads a text in both ways, and compares nodes and positions. Returns whether `subset` reads it.
fn is_read_equally(given: &str) -> bool {
    let Some(read) = text::decode(given.as_bytes()).ok().and_then(|text| subset::read(text, 0)) else { return false };
    let general = read_any(given, 0).unwrap_or_else(|fault| panic!("{given:?}: {fault:?}"));
    let marks = |marks: &Marks<'_>| -> Vec<String> {
        let mark = |number| {
            let (place, written, text) = (marks.place(number), marks.written(number), marks.text(number));
            format!("{place:?} {written:?} {text:?} {}", marks.is_quoted(number))
        };
        (0..marks.count()).map(mark).collect()
    };
    for (mark, expected) in marks(&read.1).iter().zip(&marks(&general.1)) {
        assert_eq!(mark, expected, "{given:?}");
    }
    assert_eq!((read.1.count(), format!("{:?}", read.0)), (general.1.count(), format!("{:?}", general.0)), "{given:?}");
    true
}

#[test]
fn usual_texts_are_read_in_one_pass() {
    let deep = format!(
        "{}a: b",
        (0..MAX_DEPTH - 1).map(|n| format!("{}a:\n", " ".repeat(n))).collect::<String>() + &" ".repeat(MAX_DEPTH - 1)
    );
    let cases = [
        USUAL,
        "a: b",
        "a:\nb: c\n",
        "a:",
        "  a: b\n  c: d\n",
        "- a\n- b: c\n  d: e\n-   f: g\n    h: i\n",
        "a:\n- b:\n  - c\n  d: e\nf: g\n",
        "a:\n  b:\n    c: d\n  e: f\ng: h",
        "a: [b, [c, {d: e}], ]\nf: {g: [], h: {}}\n",
        "a: 0\nb: 123456789012345678\nc: 2024-01-01\nd: 10s\ne: 1.2.3\nf: Yes\ng: 1_000\nh: 12:30:45\n",
        "a: b, c] }d{ 'e' \"f\" & *g !h | > % @ ` ~ \\n\nb: c :d ?e -f\n",
        "a: \"\"\nb: ''\nc: 'it: \"is\" # text'\nd: \"it's: # text\"\n",
        "a: b # é\n# ü\nc: d #\n",
        "a:   # x\n  # y\n\n  b: c\n   # z\n",
        &deep,
    ];
    for case in cases {
        assert!(is_read_equally(case), "{case:?}");
    }
}

#[test]
fn unusual_texts_are_left_to_the_general_parsers() {
    let deep = "a: {".to_owned() + &"b: {".repeat(MAX_DEPTH) + &"}".repeat(MAX_DEPTH + 1);
    let cases = [
        "",
        "# a",
        "a",
        "'a': b",
        "? a",
        "a b: c",
        "<<: {a: b}",
        "a: &b c",
        "a: *b",
        "a: !b c",
        "a: |\n  b",
        "a: >\n  b",
        "a: b\n  c",
        "a:\n  b",
        "a: \"b\n  c\"",
        "a: \"\\n\"",
        "a: 'b''c'",
        "a: b: c",
        "a: b:",
        "- - a",
        "-\n  a: b",
        "- ",
        "a: [b\n]",
        "a: [b: c]",
        "a: [b c]",
        "a: [,]",
        "a: {b}",
        "a: {b: }",
        "a: {b: c:d}",
        "a: [b]c",
        "a: 'b'c",
        "a: 'b'#c",
        "a:\tb",
        "a: b\r\n",
        "a: é",
        "---\na: b",
        "a: b\n...\n",
        "a: b\n---\n",
        "a: 08",
        "a: -5",
        "a: +5",
        "a: .5",
        "a: 1.5",
        "a: 1e5",
        "a: 0x1F",
        "a: 0b1",
        "a: null",
        "a: Null",
        "a: ~",
        "a: True",
        "a: .inf",
        "a: nan",
        "a: 1234567890123456789",
        "a: b\n c: d",
        "a:\n  b: c\n d: e",
        "- a\nb: c",
        "a: b\n- c",
        "a: @b",
        "a: `b",
        "a: %b",
        "a: ,b",
        "a: -",
        "a: - b",
        "a: #b",
        &deep,
    ];
    for case in cases {
        // A comment after a key is usual.
        assert_eq!(is_read_equally(case), case == "a: #b", "{case:?}");
    }
}

#[test]
fn both_ways_of_reading_agree() {
    let mut usual = 0;
    for text in mutations(USUAL, 20_000).chain(mutations(TEXT, 20_000)) {
        usual += usize::from(is_read_equally(&text));
    }
    assert!(usual > 1_000, "only {usual} texts are usual: the test is void");
}
