//! Parser of LOC records: geographical locations (RFC 1876).

use super::{
    Fault,
    cursor::{Cursor, is_number},
    lexer::Token,
};

/// Length of the RDATA of version 0, the only one, in octets (RFC 1876 §2).
const LEN: usize = 16;
/// Latitude of the equator and longitude of the prime meridian, in thousandths of an arc second (RFC 1876 §2).
const ORIGIN: u32 = 1 << 31;
/// Altitude 100,000 m below the reference spheroid, in centimetres (RFC 1876 §2).
const BASE: i64 = 10_000_000;
/// Largest size and precision in centimetres: 9 and nine zeros (RFC 1876 §2).
const MAX_SIZE: u64 = 9_000_000_000;
/// Size, horizontal and vertical precision if they are not given: 1 m, 10 km, 10 m (RFC 1876 §3).
const DEFAULTS: [u64; 3] = [100, 1_000_000, 1_000];
/// Example in hints.
const EXAMPLE: &str = "such as `52 22 23.000 N 4 53 32.000 E -2.00m 0.00m 10000m 10m`";

/// Reads a location up to the end of the entry and appends it to `wire`.
pub(super) fn read(tokens: &mut Cursor<'_, '_>, wire: &mut Vec<u8>) -> Result<(), Fault> {
    let latitude = angle(tokens, "latitude", 90, [b'N', b'S'])?;
    let longitude = angle(tokens, "longitude", 180, [b'E', b'W'])?;
    let token = take(tokens, "altitude")?;
    let altitude = centimetres(token).and_then(|value| u32::try_from(value + BASE).ok());
    let altitude = altitude.ok_or_else(|| wrong(token, "altitude", "metres from -100000.00 to 42849672.95"))?;
    let mut sizes = DEFAULTS;
    for (size, what) in sizes.iter_mut().zip(["size", "horizontal precision", "vertical precision"]) {
        let Some(token) = tokens.take() else { break };
        let value = centimetres(token).and_then(|value| u64::try_from(value).ok()).filter(|value| *value <= MAX_SIZE);
        *size = value.ok_or_else(|| wrong(token, what, "metres from 0.00 to 90000000.00"))?;
    }
    wire.push(0);
    wire.extend(sizes.map(exponent));
    for field in [latitude, longitude, altitude] {
        wire.extend(field.to_be_bytes());
    }
    Ok(())
}

/// Checks RDATA.
pub(super) fn verify(wire: &[u8]) -> Result<(), &'static str> {
    match wire {
        [0, ..] if wire.len() != LEN => Err("a location of version 0 has 16 octets"),
        [] => Err("it has no version"),
        _ => Ok(()),
    }
}

/// Reads degrees with optional minutes and seconds, and the hemisphere. `signs` are those of positive and negative angles.
fn angle(tokens: &mut Cursor<'_, '_>, what: &str, max: u32, signs: [u8; 2]) -> Result<u32, Fault> {
    let mut thousandths: u32 = 0;
    let first = take(tokens, what)?;
    let mut next = first;
    for (unit, limit) in [(3_600_000, max), (60_000, 59), (1_000, 59)] {
        if let [sign] = next.raw
            && unit < 3_600_000
            && signs.contains(&sign.to_ascii_uppercase())
        {
            break;
        }
        let decimals = if unit == 1_000 { 3 } else { 0 };
        let value = fixed(text(next), decimals).filter(|value| *value < u64::from(limit + 1) * 10_u64.pow(decimals));
        let value =
            value.ok_or_else(|| wrong(next, what, &format!("degrees up to {max}, minutes and seconds up to 59")))?;
        thousandths += value as u32 * if unit == 1_000 { 1 } else { unit };
        next = take(tokens, what)?;
    }
    if thousandths > max * 3_600_000 {
        return Err(wrong(first, what, &format!("at most {max} degrees")));
    }
    match next.raw {
        [sign] if sign.eq_ignore_ascii_case(&signs[0]) => Ok(ORIGIN + thousandths),
        [sign] if sign.eq_ignore_ascii_case(&signs[1]) => Ok(ORIGIN - thousandths),
        _ => Err(wrong(next, what, &format!("`{}` or `{}`", char::from(signs[0]), char::from(signs[1])))),
    }
}

fn take<'a>(tokens: &mut Cursor<'_, 'a>, what: &str) -> Result<Token<'a>, Fault> {
    tokens.take().ok_or_else(|| Fault::new(tokens.at(), format!("LOC {what}: missing")).hint(EXAMPLE))
}

fn wrong(token: Token<'_>, what: &str, form: &str) -> Fault {
    Fault::new(token.at, format!("LOC {what}: expected {form}, found {}", token.shown())).hint(EXAMPLE)
}

fn text<'a>(token: Token<'a>) -> &'a str {
    if token.quoted { "" } else { std::str::from_utf8(token.raw).unwrap_or_default() }
}

/// Parses metres, with an optional sign and unit, as centimetres.
fn centimetres(token: Token<'_>) -> Option<i64> {
    let text = text(token);
    let text = text.strip_suffix(['m', 'M']).unwrap_or(text);
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text),
    };
    Some(sign * i64::try_from(fixed(digits, 2)?).ok()?)
}

/// Parses a number with at most `decimals` decimals, as a multiple of the last one.
fn fixed(text: &str, decimals: u32) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    if !is_number(whole) || !is_number(part) || (text.contains('.') && part.len() > decimals as usize) {
        return None;
    }
    let part: u64 = format!("{part:0<width$}", width = decimals as usize).parse().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(10_u64.pow(decimals))?.checked_add(part)
}

/// Encodes centimetres as a digit and a power of ten, rounded down (RFC 1876 §2).
fn exponent(mut centimetres: u64) -> u8 {
    let mut power = 0;
    while centimetres > 9 {
        centimetres /= 10;
        power += 1;
    }
    (centimetres as u8) << 4 | power
}
