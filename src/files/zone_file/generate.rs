//! `$GENERATE`: the shorthand of BIND for records that differ by a number.
//!
//! `$GENERATE 1-9/2 host-$ A 10.0.0.${100}` makes `host-1 A 10.0.0.101`, `host-3 A 10.0.0.103` and so on.

use super::{Fault, lexer::Token};

/// Maximum records of one directive: a /16.
pub(super) const MAX_GENERATED: u64 = 65_536;
/// Largest number of a range, as in BIND.
const MAX_NUMBER: u64 = i32::MAX as u64;
/// Maximum width of a number in characters.
const MAX_WIDTH: usize = 255;

/// Parses `START-STOP` or `START-STOP/STEP`.
pub(super) fn range(token: Token<'_>) -> Result<impl Iterator<Item = u32>, Fault> {
    let wrong = || {
        let fault = Fault::new(token.at, format!("{} is not a range", token.shown()));
        fault.hint("a range is START-STOP or START-STOP/STEP, such as 1-254")
    };
    let text = std::str::from_utf8(token.raw).map_err(|_| wrong())?;
    let (bounds, step) = text.split_once('/').unwrap_or((text, "1"));
    let (start, stop) = bounds.split_once('-').ok_or_else(wrong)?;
    let number = |text: &str| text.parse().ok().filter(|n: &u64| *n <= MAX_NUMBER && !text.starts_with('+'));
    let (Some(start), Some(stop), Some(step @ 1..)) = (number(start), number(stop), number(step)) else {
        return Err(wrong());
    };
    if stop < start {
        return Err(wrong());
    }
    let count = (stop - start) / step + 1;
    if count > MAX_GENERATED {
        return Err(Fault::new(
            token.at,
            format!("{count} records from one directive, at most {MAX_GENERATED} are allowed"),
        ));
    }
    Ok((start..=stop).step_by(step as usize).map(|number| number as u32))
}

/// Appends `template` to `out` with `number` in place of each `$` and each `${OFFSET,WIDTH,BASE}`.
///
/// `\$` is kept and later read as a dollar sign; so is `$$`. Returns `None` for invalid braces.
pub(super) fn expand(template: &[u8], number: u32, out: &mut Vec<u8>) -> Option<()> {
    let mut rest = template;
    while let Some((&octet, tail)) = rest.split_first() {
        rest = tail;
        match (octet, rest.first()) {
            (b'\\', Some(&escaped)) => {
                out.extend([octet, escaped]);
                rest = &rest[1..];
            }
            (b'$', Some(b'$')) => {
                out.extend(b"\\$");
                rest = &rest[1..];
            }
            (b'$', Some(b'{')) => {
                let end = rest.iter().position(|octet| *octet == b'}')?;
                format_number(std::str::from_utf8(&rest[1..end]).ok()?, number, out)?;
                rest = &rest[end + 1..];
            }
            (b'$', _) => out.extend(number.to_string().bytes()),
            _ => out.push(octet),
        }
    }
    Some(())
}

/// Appends a number by `OFFSET`, `OFFSET,WIDTH` or `OFFSET,WIDTH,BASE`; bases are `d`, `o`, `x`, `X`, and `n`, `N` for nibbles.
fn format_number(braced: &str, number: u32, out: &mut Vec<u8>) -> Option<()> {
    let mut parts = braced.splitn(3, ',');
    let offset: i64 = parts.next()?.parse().ok()?;
    let width: usize = parts.next().map_or(Some(0), |part| part.parse().ok()).filter(|width| *width <= MAX_WIDTH)?;
    let value = u32::try_from(i64::from(number).checked_add(offset)?).ok()?;
    let text = match parts.next().unwrap_or("d") {
        "d" => format!("{value:0width$}"),
        "o" => format!("{value:0width$o}"),
        "x" => format!("{value:0width$x}"),
        "X" => format!("{value:0width$X}"),
        "n" => nibbles(value, width),
        "N" => nibbles(value, width).to_ascii_uppercase(),
        _ => return None,
    };
    out.extend(text.bytes());
    Some(())
}

/// Formats hexadecimal digits separated by dots, the lowest first, as in ip6.arpa names (RFC 3596 §2.5).
///
/// The width includes the dots.
fn nibbles(mut value: u32, width: usize) -> String {
    let mut text = String::new();
    loop {
        text.push(char::from_digit(value & 15, 16).unwrap_or('0'));
        value >>= 4;
        if value == 0 && text.len() >= width {
            return text;
        }
        text.push('.');
        if value == 0 && text.len() >= width {
            return text;
        }
    }
}
