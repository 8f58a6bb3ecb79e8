//! Domain names as master files write them: relative or absolute, `@`, escapes (RFC 1035 §5.1).

use std::net::Ipv4Addr;

use super::{
    Fault,
    entry::{Token, shown},
};
use crate::model::name::{MAX_LABEL, MAX_NAME, Name, NameError};

/// Reads the names of one entry.
pub(super) struct Names<'a> {
    pub(super) zone: &'a Name,
    /// What relative names are completed with.
    origin: &'a Name,
    /// A name that seems to lack its final dot.
    pub(super) suspect: Option<Fault>,
}

/// A name as it is typed: its labels in wire form and lower case, without the root.
struct Typed {
    wire: [u8; MAX_NAME],
    len: usize,
    absolute: bool,
}

impl<'a> Names<'a> {
    pub(super) fn new(zone: &'a Name, origin: &'a Name) -> Self {
        Self { zone, origin, suspect: None }
    }

    /// The name that a token means.
    pub(super) fn read(&mut self, token: Token<'_>) -> Result<Name, Fault> {
        if token.quoted {
            return Err(Fault::new(token.at, "a domain name stands without quotes").hint("remove the quotes"));
        }
        if token.raw == b"@" {
            return Ok(self.origin.clone());
        }
        if token.raw.iter().any(|octet| !octet.is_ascii()) {
            let message = format!("{} has characters beyond ASCII", shown(token.raw));
            return Err(Fault::new(token.at, message).hint("a name of another script is written in its xn-- form"));
        }
        let typed = typed(token.raw).map_err(|error| fault(token, &error))?;
        let name = if typed.absolute { Name::from_labels(typed.labels()) } else { self.origin.prepend(typed.labels()) };
        let name = name.map_err(|error| fault(token, &error))?;
        if !typed.absolute && typed.repeats(self.zone) {
            let message = format!("{} has no final dot and so means `{name}`", shown(token.raw));
            self.suspect = Some(Fault::new(token.at, message).hint("a name that ends in a dot is taken as it is"));
        }
        Ok(name)
    }

    /// The name of a host that a token means: not an address, the usual slip in NS and MX.
    pub(super) fn read_target(&mut self, token: Token<'_>) -> Result<Name, Fault> {
        let text = std::str::from_utf8(token.raw).unwrap_or_default();
        // Four numbers may well be four nibbles of a reverse zone.
        let reverse = self.zone.labels().last() == Some(b"arpa");
        if !reverse && text.strip_suffix('.').unwrap_or(text).parse::<Ipv4Addr>().is_ok() {
            let message = format!("{} is an address, and here stands a name", shown(token.raw));
            return Err(
                Fault::new(token.at, message).hint("give the host a name with an A record, and write that name")
            );
        }
        self.read(token)
    }
}

fn fault(token: Token<'_>, error: &NameError) -> Fault {
    Fault::new(token.at, format!("{} is no domain name: {error}", shown(token.raw)))
}

impl Typed {
    fn labels(&self) -> impl Iterator<Item = &[u8]> + Clone {
        let mut rest = &self.wire[..self.len];
        std::iter::from_fn(move || {
            let (&len, tail) = rest.split_first()?;
            let (label, tail) = tail.split_at_checked(usize::from(len))?;
            rest = tail;
            Some(label)
        })
    }

    /// The name has two labels or more and ends in those of `zone`.
    fn repeats(&self, zone: &Name) -> bool {
        let Some((_, suffix)) = zone.wire().split_last() else { return false };
        let mut rest = &self.wire[..self.len];
        // Almost every name is told apart here, without a walk.
        if !rest.ends_with(suffix) || self.labels().nth(1).is_none() {
            return false;
        }
        while rest.len() > suffix.len() {
            rest = &rest[(1 + usize::from(rest[0])).min(rest.len())..];
        }
        rest == suffix
    }
}

/// Splits a name into labels and undoes its escapes.
fn typed(raw: &[u8]) -> Result<Typed, NameError> {
    let mut typed = Typed { wire: [0; MAX_NAME], len: 0, absolute: false };
    if raw == b"." {
        typed.absolute = true;
        return Ok(typed);
    }
    let mut rest = raw;
    // Of the label that is being read: the offset of its length octet, and how many octets it has, which may be more
    // than are kept.
    let (mut start, mut len) = (0, 0);
    loop {
        let separator = matches!(rest.first(), None | Some(b'.'));
        if separator {
            match len {
                0 => return Err(NameError::EmptyLabel),
                1..=MAX_LABEL => typed.wire[start] = len as u8,
                _ => return Err(NameError::LabelTooLong(len)),
            }
            typed.len = start + 1 + len;
            match rest {
                [] => return Ok(typed),
                [_] => {
                    typed.absolute = true;
                    return Ok(typed);
                }
                _ => (start, len, rest) = (typed.len, 0, &rest[1..]),
            }
        } else {
            let octet = unescape(&mut rest).ok_or(NameError::Escape)?;
            len += 1;
            if len <= MAX_LABEL {
                *typed.wire.get_mut(start + len).ok_or(NameError::TooLong)? = octet.to_ascii_lowercase();
            }
        }
    }
}

/// Takes one octet: `\` and three digits up to 255, `\` and another character, or the octet itself.
///
/// `None` where an escape is broken, or nothing is left.
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
