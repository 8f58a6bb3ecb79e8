//! Fields of DNSSEC records: times, types, hashes (RFC 4034, RFC 5155).

use std::time::UNIX_EPOCH;

use data_encoding::{BASE32HEX_NOPAD, HEXLOWER_PERMISSIVE};

use super::{
    cursor::{Cursor, is_number},
    lexer::Token,
    types,
};

/// Longest salt and hash in octets: their length has one octet (RFC 5155 §3.2).
const MAX_HASH: usize = 255;
/// Octets of a window of a type bitmap (RFC 4034 §4.1.2).
const WINDOW: usize = 32;

/// Parses a time: `YYYYMMDDHHmmSS` in UTC, or seconds since 1970 (RFC 4034 §3.2). Times count modulo 2³².
pub(super) fn time(token: Token<'_>) -> Option<u32> {
    const LEN: usize = "YYYYMMDDHHmmSS".len();
    let digits = std::str::from_utf8(token.raw).ok().filter(|text| !token.quoted && is_number(text))?;
    if digits.len() != LEN {
        return digits.parse().ok();
    }
    let parts: Vec<&str> = [0..4, 4..6, 6..8, 8..10, 10..12, 12..14].map(|part| &digits[part]).into();
    let [year, month, day, hour, minute, second] = parts[..] else { return None };
    let time = humantime::parse_rfc3339(&format!("{year}-{month}-{day}T{hour}:{minute}:{second}Z")).ok()?;
    Some(time.duration_since(UNIX_EPOCH).ok()?.as_secs() as u32)
}

/// Parses a salt after its length octet: hexadecimal, or `-` for none (RFC 5155 §3.3).
pub(super) fn salt(token: Token<'_>) -> Option<Vec<u8>> {
    match token.raw {
        _ if token.quoted => None,
        b"-" => Some(vec![0]),
        digits => counted(&HEXLOWER_PERMISSIVE.decode(digits).ok()?),
    }
}

/// Parses a hash after its length octet, in Base32 with the extended alphabet (RFC 5155 §3.3).
pub(super) fn hash(token: Token<'_>) -> Option<Vec<u8>> {
    let digits = token.raw.to_ascii_uppercase();
    counted(&BASE32HEX_NOPAD.decode(&digits).ok().filter(|hash| !token.quoted && !hash.is_empty())?)
}

fn counted(octets: &[u8]) -> Option<Vec<u8>> {
    (octets.len() <= MAX_HASH).then(|| [&[octets.len() as u8], octets].concat())
}

/// Reads types up to the end of the entry as a bitmap (RFC 4034 §4.1.2).
///
/// # Errors
/// The first token that is no type.
pub(super) fn bitmap<'a>(tokens: &mut Cursor<'_, 'a>, wire: &mut Vec<u8>) -> Result<(), Token<'a>> {
    let mut numbers = Vec::new();
    while let Some(token) = tokens.take() {
        numbers.push(types::number(token).ok_or(token)?);
    }
    numbers.sort_unstable();
    for window in numbers.chunk_by(|a, b| a >> 8 == b >> 8) {
        let mut bits = [0_u8; WINDOW];
        for number in window {
            bits[usize::from(number & 0xff) / 8] |= 0x80 >> (number & 7);
        }
        let len = bits.iter().rposition(|octet| *octet != 0).map_or(0, |last| last + 1);
        wire.extend([(window[0] >> 8) as u8, len as u8]);
        wire.extend(&bits[..len]);
    }
    Ok(())
}

/// Checks a bitmap in RDATA: windows in order, none of them empty.
pub(super) fn verify_bitmap(mut wire: &[u8]) -> Result<(), &'static str> {
    let mut last = None;
    while let [window, len, rest @ ..] = wire {
        let len = usize::from(*len);
        if last >= Some(*window) || !(1..=WINDOW).contains(&len) || len > rest.len() {
            return Err("its types are not a bitmap");
        }
        (last, wire) = (Some(*window), &rest[len..]);
    }
    if wire.is_empty() { Ok(()) } else { Err("its types are not a bitmap") }
}
