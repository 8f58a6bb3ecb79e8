//! HCL 1, which Consul reads, as HCL 2, which the parser reads.
//!
//! HCL 1 separates the items of a block by nothing, and its keys may be any string: `ports { dns = 53 http = 8500 }`,
//! `service_ttl { "*" = "5s" }`. The text is copied token by token. Items get lines of their own, and quoted keys become
//! identifiers, which [`key`] decodes. A text that this step misunderstands is a syntax error of the parser.

/// Beginning of an identifier that stands for a quoted key; hexadecimal digits follow.
const QUOTED: &str = "quoted-key-";

/// A text in HCL 2.
#[derive(Debug)]
pub(super) struct Rewritten {
    pub(super) text: String,
    /// Offsets in `text` of line ends that the original does not have, in order.
    inserted: Vec<usize>,
}

impl Rewritten {
    /// The line of the original for an offset and its line in `text`.
    pub(super) fn original_line(&self, line: usize, offset: usize) -> usize {
        line - self.inserted.partition_point(|at| *at < offset).min(line - 1)
    }
}

/// The key that an identifier stands for.
pub(super) fn key(identifier: &str) -> String {
    let quoted = identifier.strip_prefix(QUOTED).and_then(|hex| data_encoding::HEXLOWER.decode(hex.as_bytes()).ok());
    quoted.and_then(|octets| String::from_utf8(octets).ok()).unwrap_or_else(|| identifier.to_owned())
}

/// Enclosure of a token.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Around {
    /// The file, or a block.
    Block,
    /// A table that is a value.
    Object,
    /// A list, or parentheses.
    List,
}

/// Position within an item of a block or object.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the key.
    Start,
    /// Behind the key, or a label of a block.
    Key,
    /// Behind `=`.
    Assigned,
    /// Behind a value or a part of one.
    Value,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Token {
    Space,
    Comment,
    /// A quoted string without a line end.
    Quoted,
    /// An identifier, a number or a heredoc.
    Word,
    /// Any other character.
    Mark(u8),
}

/// Rewrites a text.
pub(super) fn rewrite(text: &str) -> Rewritten {
    let mut writer =
        Writer { out: Rewritten { text: String::with_capacity(text.len() + 64), inserted: Vec::new() }, key: None };
    let mut around = vec![Around::Block];
    let mut state = State::Start;
    let mut rest = text;
    while !rest.is_empty() {
        let (token, len) = next(rest);
        let (piece, tail) = rest.split_at(len);
        rest = tail;
        let inner = around.last().copied().unwrap_or(Around::Block);
        match token {
            Token::Space | Token::Comment => writer.copy(piece),
            Token::Quoted | Token::Word if inner == Around::List => writer.copy(piece),
            Token::Quoted | Token::Word => match state {
                State::Start | State::Value => {
                    if state == State::Value {
                        writer.end_line();
                    }
                    writer.start_key(piece, token == Token::Quoted);
                    state = State::Key;
                }
                State::Key => writer.copy(piece),
                State::Assigned => {
                    writer.copy(piece);
                    state = State::Value;
                }
            },
            Token::Mark(b'{') => {
                let is_object = inner == Around::List || state == State::Assigned;
                if !is_object {
                    writer.end_key();
                }
                around.push(if is_object { Around::Object } else { Around::Block });
                writer.copy(piece);
                if !rest.trim_start_matches([' ', '\t', '\r']).starts_with('\n') {
                    writer.end_line();
                }
                state = State::Start;
            }
            Token::Mark(b'}') => {
                writer.end_line();
                writer.copy(piece);
                around.pop();
                state = State::Value;
            }
            Token::Mark(b'[' | b'(') => {
                writer.copy(piece);
                around.push(Around::List);
            }
            Token::Mark(b']' | b')') => {
                writer.copy(piece);
                around.pop();
                state = State::Value;
            }
            Token::Mark(b'=' | b':') if inner != Around::List && state == State::Key => {
                if inner == Around::Block {
                    writer.end_key();
                }
                writer.copy(if inner == Around::Block { "=" } else { piece });
                state = State::Assigned;
            }
            Token::Mark(b',') if inner == Around::Block => {
                writer.copy(" ");
                state = State::Value;
            }
            Token::Mark(b',') => {
                writer.copy(piece);
                state = if inner == Around::Object { State::Start } else { state };
            }
            // An operator: the value goes on.
            Token::Mark(_) => {
                writer.copy(piece);
                if state == State::Value && inner != Around::List {
                    state = State::Assigned;
                }
            }
        }
    }
    writer.out
}

struct Writer {
    out: Rewritten,
    /// Offset and content of the key of this item, if it is quoted.
    key: Option<(usize, String)>,
}

impl Writer {
    fn copy(&mut self, piece: &str) {
        self.out.text.push_str(piece);
    }

    /// Inserts a line end, unless the line is empty.
    fn end_line(&mut self) {
        let is_empty = self.out.text.trim_end_matches([' ', '\t', '\r']).ends_with('\n');
        if !is_empty {
            self.out.inserted.push(self.out.text.len());
            self.out.text.push('\n');
        }
    }

    fn start_key(&mut self, piece: &str, is_quoted: bool) {
        self.key = is_quoted.then(|| (self.out.text.len(), piece.trim_matches('"').to_owned()));
        self.copy(piece);
    }

    /// Replaces a quoted key.
    fn end_key(&mut self) {
        if let Some((at, key)) = self.key.take() {
            let hex = data_encoding::HEXLOWER.encode(key.as_bytes());
            self.out.text.replace_range(at..at + key.len() + 2, &format!("{QUOTED}{hex}"));
        }
    }
}

/// The first token of a text that is not empty, and its length.
fn next(text: &str) -> (Token, usize) {
    let bytes = text.as_bytes();
    let line = || text.find('\n').unwrap_or(text.len());
    match bytes[0] {
        b if b.is_ascii_whitespace() => (Token::Space, count(bytes, |b| b.is_ascii_whitespace())),
        b'#' => (Token::Comment, line()),
        b'/' if text.starts_with("//") => (Token::Comment, line()),
        b'/' if text.starts_with("/*") => (Token::Comment, text.find("*/").map_or(text.len(), |at| at + 2)),
        b'"' => (Token::Quoted, quoted(bytes)),
        b'<' if text.starts_with("<<") => (Token::Word, heredoc(text)),
        b if is_word(b) => (Token::Word, count(bytes, is_word)),
        b => (Token::Mark(b), 1),
    }
}

fn is_word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"_-.".contains(&b) || !b.is_ascii()
}

fn count(bytes: &[u8], is_part: impl Fn(u8) -> bool) -> usize {
    bytes.iter().position(|b| !is_part(*b)).unwrap_or(bytes.len())
}

/// Length of a quoted string. Quotes within `${…}` do not end it.
fn quoted(bytes: &[u8]) -> usize {
    let (mut at, mut depth) = (1, 0_usize);
    while let Some(b) = bytes.get(at) {
        match b {
            b'\\' => at += 1,
            b'\n' => return at,
            b'"' if depth == 0 => return at + 1,
            b'{' if depth > 0 || bytes[at - 1] == b'$' => depth += 1,
            b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

/// Length of a heredoc, without the line end behind its last line.
fn heredoc(text: &str) -> usize {
    let head = text.find('\n').unwrap_or(text.len());
    let mark = text[2..head].trim_start_matches('-').trim();
    let mut at = head;
    while at < text.len() {
        let start = at + 1;
        let end = text[start..].find('\n').map_or(text.len(), |len| start + len);
        if text[start..end].trim() == mark {
            return end;
        }
        at = end;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_get_lines_and_quoted_keys_become_identifiers() {
        let cases = [
            ("ports { dns = 53 http = 8500 }", "ports {\n dns = 53 \nhttp = 8500 \n}"),
            ("a = 1, b = 2,\n", "a = 1  \nb = 2 \n"),
            ("connect { sidecar_service {} }", "connect {\n sidecar_service {\n} \n}"),
            ("ttl { \"*\" = \"5s\" }", "ttl {\n quoted-key-2a = \"5s\" \n}"),
            ("\"service\" \"x\" {\n}\n", "quoted-key-73657276696365 \"x\" {\n}\n"),
            ("a = [{ b = 1 c = 2 }, { \"d\": 3 }]", "a = [{\n b = 1 \nc = 2 \n}, {\n \"d\": 3 \n}]"),
            ("a = \"x { y = ${b(\"x\")} z\" # c = { d\nb = <<E\nx = { y\nE\nc = 1\n", ""),
        ];
        for (text, expected) in cases {
            let rewritten = rewrite(text);
            let expected = if expected.is_empty() { text } else { expected };
            assert_eq!(rewritten.text, expected);
        }
        assert_eq!(key("quoted-key-2a"), "*");
        assert_eq!(key("quoted-key-zz"), "quoted-key-zz");
        assert_eq!(key("port"), "port");
    }

    #[test]
    fn lines_are_those_of_the_original() {
        let rewritten = rewrite("a { b = 1 c = 2 }\nd = 3\n");
        let lines: Vec<usize> = ["a", "b", "c", "d"]
            .iter()
            .map(|key| {
                let at = rewritten.text.find(&format!("{key} ")).unwrap();
                let line = rewritten.text[..at].matches('\n').count() + 1;
                rewritten.original_line(line, at)
            })
            .collect();
        assert_eq!(lines, [1, 1, 1, 2]);
    }

    #[test]
    fn any_text_is_rewritten_in_linear_time() {
        for text in ["{", "}", "\"", "[", "]", "<<", "${", "/*", "=", "a{", "a=", "\"${"] {
            let text = text.repeat(50_000);
            assert!(rewrite(&text).text.len() < 4 * text.len() + 1000);
        }
    }
}
