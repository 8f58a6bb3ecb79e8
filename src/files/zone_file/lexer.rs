//! Lexer of master files: entries and tokens, with comments, quotes, parentheses and escapes (RFC 1035 §5.1).
//!
//! Reads every octet once, or twice in a file with an unclosed parenthesis. Not recursive.

use super::Fault;
use crate::diagnostic::{describe, quote};

/// Maximum tokens of an entry: those of 65,535 octets of RDATA in hexadecimal, one digit per token.
const MAX_TOKENS: usize = 2 * 65_535 + 16;

/// Characters between blanks or quotes, with escapes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token<'a> {
    /// Content without the quotes.
    pub(super) raw: &'a [u8],
    /// Offset of the first character, which may be a quote.
    pub(super) at: usize,
    /// True if the token is in quotes.
    pub(super) quoted: bool,
    /// True if the token directly follows the previous one.
    pub(super) joined: bool,
    /// Form of its content in messages.
    pub(super) form: Form,
}

/// Form of the content of a file in messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// In backquotes and truncated.
    Quoted,
    /// By its length: the file may be any other, such as a key to which a link leads.
    Described,
}

impl Form {
    /// Formats content for a message.
    pub(super) fn show(self, raw: &[u8]) -> String {
        let text = String::from_utf8_lossy(raw);
        match self {
            Self::Quoted => quote(&text),
            Self::Described => describe(&text),
        }
    }
}

impl Token<'_> {
    /// Formats the token for a message.
    pub(super) fn shown(&self) -> String {
        self.form.show(self.raw)
    }
}

/// Start of an entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// Number of its first line, counted from 1.
    pub(super) line: usize,
    /// Offset of that line.
    pub(super) line_start: usize,
    /// True if the line begins with a blank, so the entry has the previous owner.
    pub(super) blank: bool,
}

/// Iterator over the entries of a text.
pub(super) struct Entries<'a> {
    text: &'a [u8],
    at: usize,
    line: usize,
    /// True if a parenthesis is unclosed. If so, an entry ends before the next line that begins without a blank, as records
    /// do and continuation lines mostly do not. So the error costs one entry, not the rest of the file.
    recovering: bool,
    form: Form,
}

impl<'a> Entries<'a> {
    /// Returns the entries of a text. Messages have the content of tokens in this form.
    pub(super) fn new(text: &'a [u8], form: Form) -> Self {
        Self { text, at: 0, line: 1, recovering: false, form }
    }

    /// Reads the next entry into `tokens`, which may stay empty. Returns `None` at the end of the text.
    ///
    /// An entry with an error is consumed too.
    pub(super) fn next(&mut self, tokens: &mut Vec<Token<'a>>) -> Option<(Entry, Result<(), Fault>)> {
        let first = *self.text.get(self.at)?;
        let entry = Entry { line: self.line, line_start: self.at, blank: matches!(first, b' ' | b'\t') };
        let fault = match self.read(tokens) {
            Ok(fault) => fault,
            Err(Unclosed) => {
                (self.recovering, self.at, self.line) = (true, entry.line_start, entry.line);
                self.read(tokens).unwrap_or_default()
            }
        };
        Some((entry, fault.map_or(Ok(()), Err)))
    }

    /// Reads to the end of the entry and returns its first error.
    fn read(&mut self, tokens: &mut Vec<Token<'a>>) -> Result<Option<Fault>, Unclosed> {
        tokens.clear();
        let mut fault: Option<Fault> = None;
        let mut report = |at, message: &str, hint: &str| {
            fault.get_or_insert_with(|| Fault::new(at, message).hint(hint));
        };
        let mut open = 0;
        let mut depth = 0_usize;
        let mut joined = false;
        while let Some(&byte) = self.text.get(self.at) {
            let at = self.at;
            match byte {
                b'\r' | b'\n' => {
                    self.newline();
                    if depth == 0 {
                        break;
                    }
                    if self.recovering && self.at_record() {
                        break;
                    }
                }
                b' ' | b'\t' => self.at += 1,
                b';' => self.skip_line(),
                b'(' => {
                    if depth == 0 {
                        open = at;
                    }
                    depth += 1;
                    self.at += 1;
                }
                b')' if depth > 0 => {
                    depth -= 1;
                    self.at += 1;
                }
                b')' => {
                    report(at, "unmatched `)`", "quote a literal parenthesis, or write `\\)`");
                    self.at += 1;
                }
                0..=0x1f | 0x7f => {
                    report(at, &format!("control character, octet {byte}"), "write it as `\\DDD`");
                    self.at += 1;
                }
                _ => {
                    let quoted = byte == b'"';
                    match if quoted { self.quoted() } else { Ok(self.unquoted()) } {
                        Ok(raw) if tokens.len() < MAX_TOKENS => {
                            tokens.push(Token { raw, at, quoted, joined, form: self.form });
                        }
                        Ok(_) => report(at, "too many fields for one record", "is a parenthesis closed too late?"),
                        Err((at, message, hint)) => report(at, message, hint),
                    }
                }
            }
            joined = !matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b'(' | b')' | b';');
        }
        if depth > 0 {
            if !self.recovering {
                return Err(Unclosed);
            }
            report(open, "unclosed `(`", "end the record with `)`");
        }
        Ok(fault)
    }

    /// Skips a line end: LF, CR LF, or CR alone.
    fn newline(&mut self) {
        let crlf = self.text[self.at..].starts_with(b"\r\n");
        self.at += if crlf { 2 } else { 1 };
        self.line += 1;
    }

    fn skip_line(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(rest.len());
    }

    /// Reports whether the line that begins here looks like a new entry.
    fn at_record(&self) -> bool {
        self.text.get(self.at).is_some_and(|byte| !b" \t\r\n;()\"".contains(byte))
    }

    fn unquoted(&mut self) -> &'a [u8] {
        let start = self.at;
        while let Some(&byte) = self.text.get(self.at) {
            match byte {
                b'\\' => self.at += 1 + usize::from(self.escapes()),
                b' ' | b';' | b'(' | b')' | b'"' | 0..=0x1f | 0x7f => break,
                _ => self.at += 1,
            }
        }
        &self.text[start..self.at]
    }

    /// Reads from the quote here to the next quote of the line.
    fn quoted(&mut self) -> Result<&'a [u8], (usize, &'static str, &'static str)> {
        let start = self.at;
        self.at += 1;
        while let Some(&byte) = self.text.get(self.at) {
            match byte {
                b'"' => {
                    self.at += 1;
                    return Ok(&self.text[start + 1..self.at - 1]);
                }
                b'\\' => self.at += 1 + usize::from(self.escapes()),
                b'\t' => self.at += 1,
                0..=0x1f | 0x7f => break,
                _ => self.at += 1,
            }
        }
        match self.text.get(self.at) {
            None | Some(b'\r' | b'\n') => {
                Err((start, "the quoted text does not end on its line", "end the text with `\"`"))
            }
            Some(_) => {
                let at = self.at;
                self.skip_line();
                Err((at, "control character in quoted text", "write it as `\\DDD`"))
            }
        }
    }

    /// Reports whether a character follows the backslash here.
    fn escapes(&self) -> bool {
        self.text.get(self.at + 1).is_some_and(|byte| !matches!(byte, 0..=0x08 | 0x0a..=0x1f | 0x7f))
    }
}

/// The text ended inside parentheses.
struct Unclosed;

/// Returns line and column of offset `at`, which is in or after `line`; both from 1, the column in characters.
pub(super) fn place(text: &[u8], mut line: usize, mut line_start: usize, at: usize) -> (usize, usize) {
    for (offset, byte) in text.iter().enumerate().take(at).skip(line_start) {
        if *byte == b'\n' || (*byte == b'\r' && text.get(offset + 1) != Some(&b'\n')) {
            line += 1;
            line_start = offset + 1;
        }
    }
    let characters = text[line_start..at].iter().filter(|byte| **byte & 0xc0 != 0x80).count();
    (line, characters + 1)
}

/// Returns the number of lines of a text, the last one included.
pub(super) fn lines(text: &[u8]) -> usize {
    place(text, 1, 0, text.len()).0
}
