//! HCL 1, which Consul reads, as HCL 2, which the parser reads.
//!
//! HCL 1 separates the items of a block by nothing, and its keys may be any string: `ports { dns = 53 http = 8500 }`,
//! `service_ttl { "*" = "5s" }`. Its tables may have blocks wherever they are: `services = [{ name = "a" check { ttl = "5s" } }]`.
//!
//! The text is copied token by token. Items get lines of their own. Blocks in tables that are values become attributes. Quoted
//! keys, and keys of such blocks, which may repeat, become identifiers, which [`key`] decodes. Hexadecimal numbers become
//! decimal. A text that this step misunderstands is a syntax error of the parser.

/// Beginning of an identifier that stands for a key. The key in hexadecimal digits follows, then `-` and a number if the key may
/// repeat.
const ENCODED: &str = "encoded-key-";

/// A text in HCL 2.
#[derive(Debug)]
pub(super) struct Rewritten {
    pub(super) text: String,
    /// Offsets of the tokens in `text` and in the original, in order.
    tokens: Vec<(usize, usize)>,
}

impl Rewritten {
    /// The offset in the original for an offset in `text`.
    pub(super) fn original(&self, offset: usize) -> usize {
        let next = self.tokens.partition_point(|(start, _)| *start <= offset);
        let Some((start, original)) = next.checked_sub(1).and_then(|at| self.tokens.get(at)) else { return 0 };
        let end = self.tokens.get(next).map_or(usize::MAX, |(_, original)| *original);
        (original + (offset - start)).min(end)
    }
}

/// The key that an identifier stands for.
pub(super) fn key(identifier: &str) -> String {
    let hex = identifier.strip_prefix(ENCODED).and_then(|rest| rest.split('-').next());
    let octets = hex.and_then(|hex| data_encoding::HEXLOWER.decode(hex.as_bytes()).ok());
    octets.and_then(|octets| String::from_utf8(octets).ok()).unwrap_or_else(|| identifier.to_owned())
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
    let mut writer = Writer::new(text.len());
    // Each with the number of tables to close behind it, which stand for labels.
    let mut around = vec![(Around::Block, 0)];
    let (mut state, mut labels) = (State::Start, 0);
    let mut rest = text;
    while !rest.is_empty() {
        let (token, len) = next(rest);
        let (piece, tail) = rest.split_at(len);
        let at = text.len() - rest.len();
        writer.begin(at);
        rest = tail;
        let inner = around.last().map_or(Around::Block, |(inner, _)| *inner);
        match token {
            Token::Space | Token::Comment => writer.copy(piece),
            Token::Quoted | Token::Word if inner == Around::List => writer.value(piece),
            Token::Quoted | Token::Word => match state {
                State::Start | State::Value => {
                    if state == State::Value {
                        writer.end_line();
                        writer.begin(at);
                    }
                    writer.start_key(piece);
                    labels = 0;
                    state = State::Key;
                }
                State::Key if inner == Around::Object => {
                    if labels == 0 {
                        writer.end_key(true);
                    }
                    writer.copy("= {");
                    writer.copy(piece);
                    labels += 1;
                }
                State::Key => writer.copy(piece),
                State::Assigned => {
                    writer.value(piece);
                    state = State::Value;
                }
            },
            Token::Mark(b'{') => {
                let is_block = inner != Around::List && state != State::Assigned;
                if is_block {
                    writer.end_key(inner == Around::Object);
                }
                if is_block && inner == Around::Object {
                    writer.copy("= ");
                } else {
                    labels = 0;
                }
                let is_body = is_block && inner == Around::Block;
                around.push((if is_body { Around::Block } else { Around::Object }, labels));
                writer.copy(piece);
                if !rest.trim_start_matches([' ', '\t', '\r']).starts_with('\n') {
                    writer.end_line();
                }
                state = State::Start;
            }
            Token::Mark(b'}') => {
                writer.end_line();
                writer.begin(at);
                writer.copy(piece);
                let (_, labels) = around.pop().unwrap_or((Around::Block, 0));
                (0..labels).for_each(|_| writer.copy("}"));
                state = State::Value;
            }
            Token::Mark(b'[' | b'(') => {
                writer.copy(piece);
                around.push((Around::List, 0));
            }
            Token::Mark(b']' | b')') => {
                writer.copy(piece);
                around.pop();
                state = State::Value;
            }
            Token::Mark(b'=' | b':') if inner != Around::List && state == State::Key => {
                if inner == Around::Block {
                    writer.end_key(false);
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
    writer.begin(text.len());
    writer.out
}

struct Writer {
    out: Rewritten,
    /// Content of the key of this item, and its token.
    key: Option<(String, usize)>,
}

impl Writer {
    fn new(len: usize) -> Self {
        Self { out: Rewritten { text: String::with_capacity(len + 64), tokens: Vec::new() }, key: None }
    }

    /// Begins the token at an offset of the original.
    fn begin(&mut self, original: usize) {
        self.out.tokens.push((self.out.text.len(), original));
    }

    fn copy(&mut self, piece: &str) {
        self.out.text.push_str(piece);
    }

    /// Copies a value. HCL 2 has no hexadecimal numbers.
    fn value(&mut self, piece: &str) {
        match hexadecimal(piece) {
            Some(number) => self.copy(&number.to_string()),
            None => self.copy(piece),
        }
    }

    /// Inserts a line end, unless the line is empty.
    fn end_line(&mut self) {
        let is_empty = self.out.text.trim_end_matches([' ', '\t', '\r']).ends_with('\n');
        if !is_empty {
            self.copy("\n");
        }
    }

    fn start_key(&mut self, piece: &str) {
        self.key = Some((piece.to_owned(), self.out.tokens.len().saturating_sub(1)));
        self.copy(piece);
    }

    /// Replaces the key if it is quoted, or if it may repeat.
    fn end_key(&mut self, may_repeat: bool) {
        let Some((written, token)) = self.key.take() else { return };
        let is_quoted = written.starts_with('"');
        if !is_quoted && !may_repeat {
            return;
        }
        let mut identifier =
            format!("{ENCODED}{}", data_encoding::HEXLOWER.encode(written.trim_matches('"').as_bytes()));
        let at = self.out.tokens[token].0;
        if may_repeat {
            identifier.push_str(&format!("-{at}"));
        }
        self.out.text.replace_range(at..at + written.len(), &identifier);
        for (start, _) in &mut self.out.tokens[token + 1..] {
            *start = *start + identifier.len() - written.len();
        }
    }
}

/// A hexadecimal number as Go writes it.
fn hexadecimal(text: &str) -> Option<i64> {
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
    let digits = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X"))?;
    let number = i64::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with(['+', '-']))?;
    Some(sign * number)
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
            ("ttl { \"*\" = \"5s\" }", "ttl {\n encoded-key-2a = \"5s\" \n}"),
            ("\"service\" \"x\" {\n}\n", "encoded-key-73657276696365 \"x\" {\n}\n"),
            ("a = [{ b = 1 c = 2 }, { \"d\": 3 }]", "a = [{\n b = 1 \nc = 2 \n}, {\n \"d\": 3 \n}]"),
            ("a = [{ b { c = 1 } }]", "a = [{\n encoded-key-62-8 = {\n c = 1 \n} \n}]"),
            ("a = { b \"x\" { } }", "a = {\n encoded-key-62-7 = {\"x\" = {\n }} \n}"),
            ("a = 0x50 b = [-0Xff, 0xzz]", "a = 80 \nb = [-255, 0xzz]"),
            ("a = \"x { y = ${b(\"x\")} z\" # c = { d\nb = <<E\nx = { y\nE\nc = 1\n", ""),
        ];
        for (text, expected) in cases {
            let rewritten = rewrite(text);
            let expected = if expected.is_empty() { text } else { expected };
            assert_eq!(rewritten.text, expected);
        }
        assert_eq!(key("encoded-key-2a"), "*");
        assert_eq!(key("encoded-key-2a-17"), "*");
        assert_eq!(key("encoded-key-zz"), "encoded-key-zz");
        assert_eq!(key("port"), "port");
    }

    #[test]
    fn offsets_are_those_of_the_original() {
        let original = "a { b = 1 \"c\" = 2 }\nd = [{ e { f = 0x3 g = 4 } }]\n";
        let rewritten = rewrite(original);
        for (text, expected) in
            [("1 ", "1 "), ("encoded-key-63 ", "\"c\""), ("2 ", "2 "), ("= 3", "= 0x3"), ("g ", "g "), ("4 ", "4")]
        {
            let found = rewritten.original(rewritten.text.find(text).unwrap());
            assert!(original[found..].starts_with(expected), "{text}: {}", &original[found..]);
        }
        assert_eq!(rewritten.original(rewritten.text.len()), original.len());
    }

    #[test]
    fn any_text_is_rewritten_in_linear_time() {
        for text in ["{", "}", "\"", "[", "]", "<<", "${", "/*", "=", "a{", "a=", "\"${", "a=[{b {"] {
            let text = text.repeat(50_000);
            assert!(rewrite(&text).text.len() < 8 * text.len() + 1000);
        }
    }
}
