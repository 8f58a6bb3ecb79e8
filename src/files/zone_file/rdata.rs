//! Parser of RDATA: text to wire form, field by field by the table of types.

use std::{
    borrow::Cow,
    net::{Ipv4Addr, Ipv6Addr},
    ops::Range,
};

use data_encoding::{BASE64, Encoding, HEXLOWER_PERMISSIVE};

use super::{
    Fault,
    cursor::{Cursor, number, octets, seconds},
    dnssec,
    lexer::Token,
    loc,
    names::Names,
    svcb,
    types::{self, CDS, DS, Kind, SMIMEA, SSHFP, TLSA, Type},
};
use crate::model::{
    name::{MAX_LABEL, MAX_NAME},
    service::MAX_TTL,
};
use Kind::{
    Algorithm, Base64, Bitmap, Date, Hash, Hex, Ipv4, Ipv6, Location, Name, Octets, Params, RType, Salt, Tag, Text,
    Texts, Time, U8, U16, U32,
};

/// Longest RDATA in octets (RFC 1035 §3.2.1).
const MAX_RDATA: usize = 65_535;

/// DNSSEC algorithms and their mnemonics (IANA, DNS Security Algorithm Numbers).
#[rustfmt::skip]
const ALGORITHMS: &[(&str, u8)] = &[
    ("RSAMD5", 1), ("DH", 2), ("DSA", 3), ("RSASHA1", 5), ("DSA-NSEC3-SHA1", 6), ("RSASHA1-NSEC3-SHA1", 7),
    ("RSASHA256", 8), ("RSASHA512", 10), ("ECC-GOST", 12), ("ECDSAP256SHA256", 13), ("ECDSAP384SHA384", 14),
    ("ED25519", 15), ("ED448", 16), ("INDIRECT", 252), ("PRIVATEDNS", 253), ("PRIVATEOID", 254),
];

/// Parses the rest of an entry as RDATA into `wire`.
pub(super) fn read(
    rtype: Type,
    tokens: &mut Cursor<'_, '_>,
    names: &mut Names<'_>,
    wire: &mut Vec<u8>,
) -> Result<(), Fault> {
    wire.clear();
    let start = tokens.peek().map_or(tokens.at(), |token| token.at);
    let generic = tokens.peek().is_some_and(|token| !token.quoted && token.raw == b"\\#");
    let mut data = Data { rtype, tokens, names, wire };
    match rtype.fields() {
        _ if generic => data.generic()?,
        Some(fields) => data.fields(fields)?,
        None => {
            let fault = Fault::new(start, format!("{rtype} is supported in RFC 3597 form only"));
            return Err(fault.hint(format!("write `TYPE{} \\# LENGTH HEX`", rtype.number())));
        }
    }
    if wire.len() > MAX_RDATA {
        return Err(Fault::new(start, format!("the RDATA has {} octets, at most {MAX_RDATA} are allowed", wire.len())));
    }
    if let Some(fields) = rtype.fields().filter(|_| generic) {
        names_in(fields, wire).map_err(|error| Fault::new(start, format!("not valid as {rtype} RDATA: {error}")))?;
    }
    verify_digest(rtype, wire).map_err(|error| Fault::new(start, error))
}

/// Parser state of one RDATA.
struct Data<'d, 't, 'a, 'n> {
    rtype: Type,
    tokens: &'d mut Cursor<'t, 'a>,
    names: &'d mut Names<'n>,
    wire: &'d mut Vec<u8>,
}

impl<'a> Data<'_, '_, 'a, '_> {
    /// Parses the fields of a type.
    fn fields(&mut self, fields: &[(&str, Kind)]) -> Result<(), Fault> {
        for (what, kind) in fields {
            match kind {
                Texts => {
                    self.text(what)?;
                    while self.tokens.peek().is_some() {
                        self.text(what)?;
                    }
                }
                Text => self.text(what)?,
                Hex => self.digits(what, &HEXLOWER_PERMISSIVE, "pairs of hexadecimal digits")?,
                Base64 => self.digits(what, &BASE64, "Base64")?,
                Params => svcb::read(self.tokens, self.wire)?,
                Location => loc::read(self.tokens, self.wire)?,
                Bitmap => dnssec::bitmap(self.tokens, self.wire)
                    .map_err(|token| self.expected("record types such as `A MX RRSIG`", what, token))?,
                _ => self.field(what, *kind)?,
            }
        }
        match self.tokens.take() {
            None => Ok(()),
            Some(extra) => {
                let fault = Fault::new(extra.at, format!("unexpected field {} in {}", extra.shown(), self.rtype));
                Err(fault.hint("write one record per line; a comment begins with `;`"))
            }
        }
    }

    /// Parses the generic form after `\#` (RFC 3597 §5): the length, and that many octets in hexadecimal.
    fn generic(&mut self) -> Result<(), Fault> {
        self.tokens.take();
        let token = self.token("length")?;
        let form = "a number up to 65535";
        let len = number(token, MAX_RDATA as u64).ok_or_else(|| self.expected(form, "length", token))?;
        let data = self.tokens.peek().map_or(token.at, |data| data.at);
        if len > 0 || self.tokens.peek().is_some() {
            self.digits("data", &HEXLOWER_PERMISSIVE, "pairs of hexadecimal digits")?;
        }
        if self.wire.len() as u64 == len {
            Ok(())
        } else {
            Err(Fault::new(data, format!("the length is given as {len}, but the data has {} octets", self.wire.len())))
        }
    }

    /// Takes the next token. A blank must separate quoted from unquoted text: `"say "hi" now"` lacks two backslashes.
    fn token(&mut self, what: &str) -> Result<Token<'a>, Fault> {
        let before = self.tokens.last();
        match self.tokens.take() {
            Some(token) if token.joined && before.is_some_and(|before| before.quoted != token.quoted) => {
                let fault = Fault::new(token.at, "a blank is missing before or after quoted text");
                Err(fault.hint("within text, a quote is written `\\\"`"))
            }
            Some(token) => Ok(token),
            None => Err(Fault::new(self.tokens.at(), format!("{} {what}: missing", self.rtype))),
        }
    }

    fn expected(&self, form: &str, what: &str, found: Token<'_>) -> Fault {
        Fault::new(found.at, format!("{} {what}: expected {form}, found {}", self.rtype, found.shown()))
    }

    /// Parses a field of one token.
    fn field(&mut self, what: &str, kind: Kind) -> Result<(), Fault> {
        let token = self.token(what)?;
        let wrong = |form| self.expected(form, what, token);
        let text = if token.quoted { "" } else { std::str::from_utf8(token.raw).unwrap_or_default() };
        let max = |max: u32| number(token, u64::from(max)).map(|value| value as u32);
        match kind {
            U8 => {
                let value = max(255).ok_or_else(|| wrong("a number up to 255"))?;
                self.wire.push(value as u8);
            }
            U16 => {
                let value = max(65_535).ok_or_else(|| wrong("a number up to 65535"))?;
                self.wire.extend((value as u16).to_be_bytes());
            }
            U32 => {
                let value = max(u32::MAX).ok_or_else(|| wrong("a number up to 4294967295"))?;
                self.wire.extend(value.to_be_bytes());
            }
            Time => {
                let value = seconds(text).filter(|time| *time <= u64::from(MAX_TTL));
                let value = value.ok_or_else(|| wrong("a time below 68 years such as 3600, 1h or 1h30m"))?;
                self.wire.extend((value as u32).to_be_bytes());
            }
            Ipv4 => {
                let address: Ipv4Addr = text.parse().map_err(|_| match text.parse::<Ipv6Addr>() {
                    Ok(_) => wrong("an IPv4 address").hint("an IPv6 address has the type AAAA"),
                    Err(_) => wrong("an IPv4 address such as 192.0.2.1"),
                })?;
                self.wire.extend(address.octets());
            }
            Ipv6 => {
                let address: Ipv6Addr = text.parse().map_err(|_| match text.parse::<Ipv4Addr>() {
                    Ok(_) => wrong("an IPv6 address").hint("an IPv4 address has the type A"),
                    Err(_) => wrong("an IPv6 address such as 2001:db8::1"),
                })?;
                self.wire.extend(address.octets());
            }
            Name => self.names.read_target(token, self.wire)?,
            Tag => {
                if text.is_empty() || text.len() > 255 || !text.bytes().all(|octet| octet.is_ascii_alphanumeric()) {
                    return Err(wrong("letters and digits such as `issue`"));
                }
                self.wire.push(text.len() as u8);
                self.wire.extend(text.bytes());
            }
            Algorithm => {
                let named = ALGORITHMS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
                let value = named.map(|(_, value)| *value).or_else(|| max(255).map(|value| value as u8));
                let value = value.ok_or_else(|| wrong("a number up to 255 or a mnemonic such as ED25519"))?;
                self.wire.push(value);
            }
            RType => {
                let value = types::number(token).ok_or_else(|| wrong("a record type"))?;
                self.wire.extend(value.to_be_bytes());
            }
            Date => {
                let value = dnssec::time(token).ok_or_else(|| wrong("a time such as 20261231235959, in UTC"))?;
                self.wire.extend(value.to_be_bytes());
            }
            Salt => {
                let value = dnssec::salt(token).ok_or_else(|| wrong("pairs of hexadecimal digits, or `-` for none"))?;
                self.wire.extend(value);
            }
            Hash => self.wire.extend(dnssec::hash(token).ok_or_else(|| wrong("a hash in Base32"))?),
            // The others have several tokens, see `fields`.
            Octets | Text | Texts | Hex | Base64 | Params | Location | Bitmap => octets(token, self.wire)?,
        }
        Ok(())
    }

    /// Parses hexadecimal or Base64 up to the end of the entry, in one or more tokens.
    fn digits(&mut self, what: &str, encoding: &Encoding, form: &str) -> Result<(), Fault> {
        let first = self.token(what)?;
        let mut digits = first.raw.to_vec();
        let mut quoted = first.quoted;
        while let Some(token) = self.tokens.take() {
            digits.extend(token.raw);
            quoted |= token.quoted;
        }
        match encoding.decode(&digits) {
            Ok(octets) if !quoted && !octets.is_empty() => self.wire.extend(octets),
            _ => return Err(self.expected(form, what, first)),
        }
        Ok(())
    }

    /// Parses a character-string: a length octet and at most 255 octets (RFC 1035 §3.3).
    fn text(&mut self, what: &str) -> Result<(), Fault> {
        let token = self.token(what)?;
        let start = self.wire.len();
        self.wire.push(0);
        octets(token, self.wire)?;
        let len = self.wire.len() - start - 1;
        self.wire[start] = u8::try_from(len).map_err(|_| {
            let fault = Fault::new(token.at, format!("a character-string has at most 255 octets, this one has {len}"));
            fault.hint("split it into several quoted strings")
        })?;
        Ok(())
    }
}

/// Returns RDATA with its names in lower case, by which records compare (RFC 4343 §3).
pub(super) fn folded(rtype: u16, wire: &[u8]) -> Cow<'_, [u8]> {
    let has_names = |fields: &&[(&str, Kind)]| fields.iter().any(|(_, kind)| *kind == Name);
    let fields = Type::from(rtype).fields().filter(has_names);
    let is_upper = |wire: &[u8]| wire.iter().any(u8::is_ascii_uppercase);
    let Some(names) = fields.filter(|_| is_upper(wire)).and_then(|fields| names_in(fields, wire).ok()) else {
        return Cow::Borrowed(wire);
    };
    let mut wire = wire.to_vec();
    names.into_iter().for_each(|name| wire[name].make_ascii_lowercase());
    Cow::Owned(wire)
}

/// Checks that octets are RDATA with these fields. Returns the positions of the names.
fn names_in(fields: &[(&str, Kind)], wire: &[u8]) -> Result<Vec<Range<usize>>, String> {
    let mut names = Vec::new();
    let mut at = 0;
    for (what, kind) in fields {
        let short = || format!("it ends within its {what}");
        let rest = &wire[at..];
        let len = match kind {
            U8 | Algorithm => 1,
            U16 | RType => 2,
            U32 | Time | Date | Ipv4 => 4,
            Ipv6 => 16,
            Name => {
                let len = name_len(rest).ok_or_else(|| format!("its {what} is not an uncompressed name"))?;
                names.push(at..at + len);
                len
            }
            Text | Tag | Salt | Hash => 1 + usize::from(*rest.first().ok_or_else(short)?),
            Texts => {
                let mut len = 0;
                while len == 0 || len < rest.len() {
                    len += 1 + usize::from(*rest.get(len).ok_or_else(short)?);
                }
                len
            }
            Octets => rest.len(),
            Hex | Base64 => rest.len().max(1),
            Params => svcb::verify(rest).map(|()| rest.len()).map_err(|(_, error)| error)?,
            Location => loc::verify(rest).map(|()| rest.len())?,
            Bitmap => dnssec::verify_bitmap(rest).map(|()| rest.len())?,
        };
        if len > rest.len() {
            return Err(short());
        }
        if *kind == Tag && (len == 1 || !rest[1..len].iter().all(u8::is_ascii_alphanumeric)) {
            return Err(format!("its {what} is not made of letters and digits"));
        }
        at += len;
    }
    if at == wire.len() { Ok(names) } else { Err("octets follow its last field".to_owned()) }
}

/// Returns the length of the name at the start of `wire`.
fn name_len(wire: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match usize::from(*wire.get(at)?) {
            0 => return (at < MAX_NAME).then_some(at + 1),
            len @ 1..=MAX_LABEL => at += 1 + len,
            _ => return None,
        }
    }
}

/// Checks the length of a digest of a known type, which may be truncated by copying.
fn verify_digest(rtype: Type, wire: &[u8]) -> Result<(), String> {
    // Offset of the digest type, and the lengths of known types.
    let (at, lengths): (usize, &[(u8, usize)]) = match rtype.number() {
        // RFC 4034 §A.2, RFC 4509, RFC 6605
        DS | CDS => (3, &[(1, 20), (2, 32), (4, 48)]),
        // RFC 4255 §3.1.2, RFC 6594
        SSHFP => (1, &[(1, 20), (2, 32)]),
        // RFC 6698 §2.1.3
        TLSA | SMIMEA => (2, &[(1, 32), (2, 64)]),
        _ => return Ok(()),
    };
    let Some((kind, digest)) = wire.get(at..).and_then(<[u8]>::split_first) else { return Ok(()) };
    match lengths.iter().find(|(of, _)| of == kind) {
        Some((_, len)) if *len != digest.len() => {
            Err(format!("a digest of type {kind} has {len} octets, this one has {}", digest.len()))
        }
        _ => Ok(()),
    }
}
