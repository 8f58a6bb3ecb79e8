//! Parser of domain names in master files: relative or absolute, `@`, escapes (RFC 1035 §5.1).

use std::net::Ipv4Addr;

use super::{
    Fault,
    lexer::{Form, Token},
};
use crate::model::name::{MAX_LABEL, MAX_NAME, Name, NameError, ends_with};

/// Parser of the names of one entry.
pub(super) struct Names<'a> {
    /// The zone of the file.
    pub(super) zone: &'a Name,
    /// Origin of relative names.
    origin: &'a Name,
    /// Warning about a name that seems to lack its final dot.
    pub(super) suspect: Option<Fault>,
}

/// A name as written: labels in wire form, without the root.
struct WrittenName {
    wire: [u8; MAX_NAME],
    len: usize,
    absolute: bool,
}

impl<'a> Names<'a> {
    pub(super) fn new(zone: &'a Name, origin: &'a Name) -> Self {
        Self { zone, origin, suspect: None }
    }

    /// Parses a name.
    pub(super) fn read(&mut self, token: Token<'_>) -> Result<Name, Fault> {
        Ok(self.parse(token)?.0)
    }

    /// Parses a name. Also returns it as written, unless it is `@`.
    fn parse(&mut self, token: Token<'_>) -> Result<(Name, Option<WrittenName>), Fault> {
        if token.quoted {
            return Err(Fault::new(token.at, "a domain name must not be quoted").hint("remove the quotes"));
        }
        if token.raw == b"@" {
            return Ok((self.origin.clone(), None));
        }
        if token.raw.iter().any(|octet| !octet.is_ascii()) {
            let message = format!("{} has non-ASCII characters", token.shown());
            return Err(Fault::new(token.at, message).hint("write internationalized names in xn-- form"));
        }
        let written = parse_name(token.raw).map_err(|error| fault(token, &error))?;
        let name =
            if written.absolute { Name::from_labels(written.labels()) } else { self.origin.prepend(written.labels()) };
        let name = name.map_err(|error| fault(token, &error))?;
        if !written.absolute && written.repeats(self.zone) {
            let message = match token.form {
                Form::Quoted => format!("{} has no final dot and means `{name}`", token.shown()),
                Form::Described => format!("{} has no final dot", token.shown()),
            };
            self.suspect = Some(Fault::new(token.at, message).hint("end an absolute name with a dot"));
        }
        Ok((name, Some(written)))
    }

    /// Parses a name of RDATA and appends its wire form to `wire`, in the letter case of the file. An address, a common mistake
    /// in NS and MX, is an error.
    pub(super) fn read_target(&mut self, token: Token<'_>, wire: &mut Vec<u8>) -> Result<(), Fault> {
        let text = std::str::from_utf8(token.raw).unwrap_or_default();
        // In a reverse zone four numbers may be four nibbles.
        if !is_reverse(self.zone) && text.strip_suffix('.').unwrap_or(text).parse::<Ipv4Addr>().is_ok() {
            let message = format!("expected a name, found the address {}", token.shown());
            return Err(
                Fault::new(token.at, message).hint("give the host a name with an A record, and write that name")
            );
        }
        let (name, written) = self.parse(token)?;
        let labels = written.as_ref().map_or(&[][..], |written| &written.wire[..written.len]);
        wire.extend(labels);
        wire.extend(&name.wire()[labels.len()..]);
        Ok(())
    }
}

/// Reports whether a zone has the names of addresses (RFC 1035 §3.5, RFC 3596 §2.5).
pub(super) fn is_reverse(zone: &Name) -> bool {
    let ends = |suffix: &[&[u8]]| {
        zone.labels().skip(zone.labels().count().saturating_sub(suffix.len())).eq(suffix.iter().copied())
    };
    ends(&[b"in-addr", b"arpa"]) || ends(&[b"ip6", b"arpa"])
}

fn fault(token: Token<'_>, error: &NameError) -> Fault {
    Fault::new(token.at, format!("{} is not a domain name: {error}", token.shown()))
}

impl WrittenName {
    fn labels(&self) -> impl Iterator<Item = &[u8]> + Clone {
        let mut rest = &self.wire[..self.len];
        std::iter::from_fn(move || {
            let (&len, tail) = rest.split_first()?;
            let (label, tail) = tail.split_at_checked(usize::from(len))?;
            rest = tail;
            Some(label)
        })
    }

    /// Reports whether the name has two labels or more and ends in those of `zone`.
    fn repeats(&self, zone: &Name) -> bool {
        let Some((_, suffix)) = zone.wire().split_last() else { return false };
        let mut rest = &self.wire[..self.len];
        // Fast path for almost every name.
        if !ends_with(rest, suffix) || self.labels().nth(1).is_none() {
            return false;
        }
        while rest.len() > suffix.len() {
            rest = &rest[(1 + usize::from(rest[0])).min(rest.len())..];
        }
        rest.eq_ignore_ascii_case(suffix)
    }
}

/// Splits a name into labels and decodes escapes.
fn parse_name(raw: &[u8]) -> Result<WrittenName, NameError> {
    let mut name = WrittenName { wire: [0; MAX_NAME], len: 0, absolute: false };
    if raw == b"." {
        name.absolute = true;
        return Ok(name);
    }
    let mut rest = raw;
    // Offset of the length octet of the current label, and its length, which may exceed the octets kept.
    let (mut start, mut len) = (0, 0);
    loop {
        let separator = matches!(rest.first(), None | Some(b'.'));
        if separator {
            match len {
                0 => return Err(NameError::EmptyLabel),
                1..=MAX_LABEL => name.wire[start] = len as u8,
                _ => return Err(NameError::LabelTooLong(len)),
            }
            name.len = start + 1 + len;
            match rest {
                [] => return Ok(name),
                [_] => {
                    name.absolute = true;
                    return Ok(name);
                }
                _ => (start, len, rest) = (name.len, 0, &rest[1..]),
            }
        } else {
            let octet = unescape(&mut rest).ok_or(NameError::Escape)?;
            len += 1;
            if len <= MAX_LABEL {
                *name.wire.get_mut(start + len).ok_or(NameError::TooLong)? = octet;
            }
        }
    }
}

/// Takes one octet: `\` and three digits up to 255, `\` and another character, or a plain octet.
///
/// Returns `None` for an invalid escape, or at the end.
pub(super) fn unescape(rest: &mut &[u8]) -> Option<u8> {
    let (octet, tail) = match **rest {
        [b'\\', a @ b'0'..=b'9', ref tail @ ..] => {
            let &[b @ b'0'..=b'9', c @ b'0'..=b'9', ref tail @ ..] = tail else { return None };
            let value = u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0');
            (u8::try_from(value).ok()?, tail)
        }
        [b'\\', octet, ref tail @ ..] => (octet, tail),
        [b'\\'] | [] => return None,
        [octet, ref tail @ ..] => (octet, tail),
    };
    *rest = tail;
    Some(octet)
}
