//! Token cursor, and parsers of single tokens: octets, numbers, times.

use super::{Fault, lexer::Token, names::unescape};

/// Longest number or time in characters.
const MAX_NUMBER: usize = 40;

/// Cursor over the tokens of an entry.
pub(super) struct Cursor<'t, 'a> {
    tokens: &'t [Token<'a>],
    next: usize,
}

impl<'t, 'a> Cursor<'t, 'a> {
    pub(super) fn new(tokens: &'t [Token<'a>]) -> Self {
        Self { tokens, next: 0 }
    }

    pub(super) fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.next).copied()
    }

    pub(super) fn take(&mut self) -> Option<Token<'a>> {
        let token = self.peek()?;
        self.next += 1;
        Some(token)
    }

    /// Offset of the last taken token, or of the first.
    pub(super) fn at(&self) -> usize {
        self.tokens.get(self.next.saturating_sub(1)).map_or(0, |token| token.at)
    }

    /// Last taken token.
    pub(super) fn last(&self) -> Option<Token<'a>> {
        self.tokens.get(self.next.checked_sub(1)?).copied()
    }
}

/// Decodes text with escapes and appends it to `wire`.
pub(super) fn octets(token: Token<'_>, wire: &mut Vec<u8>) -> Result<(), Fault> {
    let mut rest = token.raw;
    while !rest.is_empty() {
        let octet = unescape(&mut rest).ok_or_else(|| {
            Fault::new(token.at, "a backslash must be followed by a character or by three digits up to 255")
        })?;
        wire.push(octet);
    }
    Ok(())
}

/// Parses a decimal number up to `max`.
pub(super) fn number(token: Token<'_>, max: u64) -> Option<u64> {
    let text = std::str::from_utf8(token.raw).ok().filter(|text| !token.quoted && is_number(text))?;
    text.parse().ok().filter(|value| *value <= max)
}

pub(super) fn is_number(text: &str) -> bool {
    (1..=MAX_NUMBER).contains(&text.len()) && text.bytes().all(|octet| octet.is_ascii_digit())
}

/// Parses a time: seconds, or numbers with the units `w`, `d`, `h`, `m`, `s`, as in BIND.
pub(super) fn seconds(text: &str) -> Option<u64> {
    if is_number(text) {
        return text.parse().ok();
    }
    if text.is_empty() || text.len() > MAX_NUMBER {
        return None;
    }
    let mut sum = 0_u64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let unit = match rest.as_bytes().get(digits)?.to_ascii_lowercase() {
            b'w' => 7 * 86_400,
            b'd' => 86_400,
            b'h' => 3_600,
            b'm' => 60,
            b's' => 1,
            _ => return None,
        };
        let value: u64 = rest[..digits].parse().ok()?;
        sum = value.checked_mul(unit)?.checked_add(sum)?;
        rest = &rest[digits + 1..];
    }
    Some(sum)
}
