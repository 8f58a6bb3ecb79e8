//! The text of a master file, cut into entries and tokens (RFC 1035 §5.1): comments, quotes, parentheses, escapes.
//!
//! What a token means is not known here. Every octet is looked at once, or twice in a file with a parenthesis that is
//! never closed; nothing recurses.

use super::Fault;

/// The most tokens of one entry. RDATA of 65,535 octets in hexadecimal has that many, one token a digit.
const MAX_TOKENS: usize = 2 * 65_535 + 16;

/// A run of characters between blanks, or between quotes; escapes are still in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token<'a> {
    /// Without the quotes.
    pub(super) raw: &'a [u8],
    /// The offset in the text of its first character, which may be a quote.
    pub(super) at: usize,
    pub(super) quoted: bool,
    /// Nothing stands between this token and the one before.
    pub(super) joined: bool,
}

/// Where an entry begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// The number of its first line, from 1.
    pub(super) line: usize,
    /// The offset in the text of that line.
    pub(super) line_start: usize,
    /// The line begins with a blank: the entry belongs to the last owner.
    pub(super) blank: bool,
}

/// Hands out the entries of a text, one after the other.
pub(super) struct Entries<'a> {
    text: &'a [u8],
    at: usize,
    line: usize,
    /// A parenthesis is never closed. From then on one that is open ends before a line that begins without a blank, as
    /// records do and continued lines mostly do not: so the fault costs one entry and not the rest of the file.
    mend: bool,
}

impl<'a> Entries<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0, line: 1, mend: false }
    }

    /// Reads the next entry into `tokens`, which may stay empty; `None` at the end of the text.
    ///
    /// With a fault the entry is used up as well.
    pub(super) fn next(&mut self, tokens: &mut Vec<Token<'a>>) -> Option<(Entry, Result<(), Fault>)> {
        let first = *self.text.get(self.at)?;
        let entry = Entry { line: self.line, line_start: self.at, blank: matches!(first, b' ' | b'\t') };
        let fault = match self.read(tokens) {
            Ok(fault) => fault,
            Err(Unclosed) => {
                (self.mend, self.at, self.line) = (true, entry.line_start, entry.line);
                self.read(tokens).unwrap_or_default()
            }
        };
        Some((entry, fault.map_or(Ok(()), Err)))
    }

    /// Reads up to the end of the entry; what it returns is the first thing wrong with it.
    fn read(&mut self, tokens: &mut Vec<Token<'a>>) -> Result<Option<Fault>, Unclosed> {
        tokens.clear();
        let mut fault: Option<Fault> = None;
        let mut wrong = |at, message: &str, hint: &str| {
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
                    if self.mend && self.at_record() {
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
                    wrong(
                        at,
                        "this parenthesis closes none",
                        "one that is part of a text stands in quotes, or as `\\)`",
                    );
                    self.at += 1;
                }
                0..=0x1f | 0x7f => {
                    wrong(at, &format!("a control character, octet {byte}"), "in a text it is written `\\DDD`");
                    self.at += 1;
                }
                _ => {
                    let quoted = byte == b'"';
                    match if quoted { self.quoted() } else { Ok(self.unquoted()) } {
                        Ok(raw) if tokens.len() < MAX_TOKENS => tokens.push(Token { raw, at, quoted, joined }),
                        Ok(_) => wrong(at, "too many fields for one record", "is a parenthesis closed too late?"),
                        Err((at, message, hint)) => wrong(at, message, hint),
                    }
                }
            }
            joined = !matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b'(' | b')' | b';');
        }
        if depth > 0 {
            if !self.mend {
                return Err(Unclosed);
            }
            wrong(open, "this parenthesis is never closed", "end the record with `)`");
        }
        Ok(fault)
    }

    /// Steps over a line's end: LF, CR LF, or CR alone.
    fn newline(&mut self) {
        let crlf = self.text[self.at..].starts_with(b"\r\n");
        self.at += if crlf { 2 } else { 1 };
        self.line += 1;
    }

    fn skip_line(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(rest.len());
    }

    /// The line that begins here looks like the beginning of an entry.
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

    /// What stands between the quote here and the next one of the same line.
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
                Err((start, "this quote is not closed in its line", "end the text with `\"`"))
            }
            Some(_) => {
                let at = self.at;
                self.skip_line();
                Err((at, "a control character in a text", "it is written `\\DDD`"))
            }
        }
    }

    /// The backslash here has a character after it.
    fn escapes(&self) -> bool {
        self.text.get(self.at + 1).is_some_and(|byte| !matches!(byte, 0..=0x08 | 0x0a..=0x1f | 0x7f))
    }
}

/// The text ended within parentheses.
struct Unclosed;

/// Line and column, both from 1 and the column in characters, of offset `at`, which is in `line` or after it.
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

/// A token as messages show it: between backquotes, no longer than a line bears.
pub(super) fn shown(raw: &[u8]) -> String {
    const MAX_SHOWN: usize = 60;
    let text = String::from_utf8_lossy(&raw[..raw.len().min(4 * MAX_SHOWN)]);
    let clean: String = text.chars().take(MAX_SHOWN).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    let rest = if text.chars().nth(MAX_SHOWN).is_some() { "…" } else { "" };
    format!("`{clean}{rest}`")
}
