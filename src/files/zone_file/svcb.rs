//! Service parameters of SVCB and HTTPS records (RFC 9460).
//!
//! Text is first encoded, and the octets are then checked. So the same checks apply to parameters given by name, as
//! `keyNNNNN`, and in the form of RFC 3597.

use std::net::{Ipv4Addr, Ipv6Addr};

use data_encoding::BASE64;

use super::{
    Fault,
    cursor::{self, Cursor},
    lexer::{Form, Token},
};

const MANDATORY: u16 = 0;
const ALPN: u16 = 1;
const NO_DEFAULT_ALPN: u16 = 2;
const PORT: u16 = 3;
const IPV4HINT: u16 = 4;
const ECH: u16 = 5;
const IPV6HINT: u16 = 6;
const DOHPATH: u16 = 7;
const OHTTP: u16 = 8;

/// Names of keys: RFC 9460 §14.3.2, `dohpath` of RFC 9461, `ohttp` of RFC 9540.
const KEYS: &[(&str, u16)] = &[
    ("mandatory", MANDATORY),
    ("alpn", ALPN),
    ("no-default-alpn", NO_DEFAULT_ALPN),
    ("port", PORT),
    ("ipv4hint", IPV4HINT),
    ("ech", ECH),
    ("ipv6hint", IPV6HINT),
    ("dohpath", DOHPATH),
    ("ohttp", OHTTP),
];

/// Reads `key=value` pairs up to the end of the entry and appends them to `wire`, sorted by key (RFC 9460 §2.2).
pub(super) fn read(tokens: &mut Cursor<'_, '_>, wire: &mut Vec<u8>) -> Result<(), Fault> {
    let mut params: Vec<(u16, Vec<u8>, usize)> = Vec::new();
    while let Some(token) = tokens.take() {
        let (name, mut value) = match token.raw.iter().position(|octet| *octet == b'=') {
            Some(at) => (&token.raw[..at], Some(Token { raw: &token.raw[at + 1..], ..token })),
            None => (token.raw, None),
        };
        // A quoted value is a separate token.
        if value.is_some_and(|value| value.raw.is_empty()) {
            value = tokens.peek().filter(|next| next.joined && next.quoted).or(value);
            if value.is_some_and(|value| value.quoted) {
                tokens.take();
            }
        }
        let wrong = |message: String| Fault::new(token.at, message);
        let missing_blank = tokens.peek().is_some_and(|next| next.joined);
        if token.quoted || missing_blank {
            return Err(wrong(
                "service parameters are written `key=value` or `key=\"value\"`, separated by blanks".into(),
            ));
        }
        let Some((key, named)) = key(name) else {
            let names = KEYS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
            let fault = wrong(format!("unknown service parameter {}", token.form.show(name)));
            return Err(fault.hint(format!("known are {names}; others are written keyNNNNN")));
        };
        let mut octets = Vec::new();
        if let Some(value) = value {
            cursor::octets(value, &mut octets)?;
        }
        let octets = if named { encode(key, &octets, token.form).map_err(wrong)? } else { octets };
        params.push((key, octets, token.at));
    }
    params.sort_by_key(|(key, _, at)| (*key, *at));
    if let Some(twice) = params.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(Fault::new(twice[1].2, format!("duplicate service parameter `{}`", name_of(twice[1].0))));
    }
    let start = wire.len();
    for (key, octets, at) in &params {
        let len = u16::try_from(octets.len()).map_err(|_| Fault::new(*at, "the value has more than 65535 octets"))?;
        wire.extend(key.to_be_bytes());
        wire.extend(len.to_be_bytes());
        wire.extend(octets);
    }
    verify(&wire[start..]).map_err(|(key, message)| {
        let at = params.iter().find(|param| param.0 == key).map_or(tokens.at(), |param| param.2);
        Fault::new(at, message)
    })
}

/// Checks parameters in wire form. An error comes with the key of its parameter.
pub(super) fn verify(wire: &[u8]) -> Result<(), (u16, String)> {
    let mut params: Vec<(u16, &[u8])> = Vec::new();
    let mut rest = wire;
    while !rest.is_empty() {
        let after = params.last().map_or(0, |(key, _)| *key);
        let (key, value, tail) = split(rest).ok_or_else(|| (after, "its parameters are truncated".to_owned()))?;
        if !params.is_empty() && key <= after {
            return Err((key, "its parameters are not sorted by key".to_owned()));
        }
        params.push((key, value));
        rest = tail;
    }
    for &(key, value) in &params {
        let has = |key: u16| params.binary_search_by_key(&key, |(key, _)| *key).is_ok();
        let wrong = match key {
            MANDATORY => mandatory(value, has),
            ALPN if !is_alpn(value) => Some("needs protocol names of 1 to 255 octets each"),
            NO_DEFAULT_ALPN | OHTTP if !value.is_empty() => Some("takes no value"),
            NO_DEFAULT_ALPN if !has(ALPN) => Some("requires `alpn`"),
            PORT if value.len() != 2 => Some("needs a number up to 65535"),
            IPV4HINT if value.is_empty() || !value.len().is_multiple_of(4) => Some("needs IPv4 addresses"),
            IPV6HINT if value.is_empty() || !value.len().is_multiple_of(16) => Some("needs IPv6 addresses"),
            ECH if value.is_empty() => Some("needs a value"),
            DOHPATH if value.is_empty() || std::str::from_utf8(value).is_err() => Some("needs a path in UTF-8"),
            u16::MAX => Some("is reserved"),
            _ => None,
        };
        if let Some(wrong) = wrong {
            return Err((key, format!("the service parameter `{}` {wrong}", name_of(key))));
        }
    }
    Ok(())
}

/// Splits off the first parameter.
fn split(wire: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let (head, rest) = wire.split_at_checked(4)?;
    let key = u16::from_be_bytes([head[0], head[1]]);
    let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([head[2], head[3]])))?;
    Some((key, value, rest))
}

/// Checks the value of `mandatory` (RFC 9460 §8).
fn mandatory(value: &[u8], has: impl Fn(u16) -> bool) -> Option<&'static str> {
    if value.is_empty() || !value.len().is_multiple_of(2) {
        return Some("needs a list of keys");
    }
    let keys: Vec<u16> = value.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
    if keys.contains(&MANDATORY) {
        Some("must not list itself")
    } else if !keys.is_sorted_by(|a, b| a < b) {
        Some("must list each key once")
    } else if !keys.iter().all(|key| has(*key)) {
        Some("must list only keys of the record")
    } else {
        None
    }
}

/// Checks a list of length-prefixed protocol names (RFC 9460 §7.1.1).
fn is_alpn(value: &[u8]) -> bool {
    let mut rest = value;
    while let [len @ 1..=255, tail @ ..] = rest {
        match tail.split_at_checked(usize::from(*len)) {
            Some((_, tail)) => rest = tail,
            None => return false,
        }
    }
    rest.is_empty() && !value.is_empty()
}

/// Parses a key. Also returns whether it is given by name rather than as `keyNNNNN`.
fn key(name: &[u8]) -> Option<(u16, bool)> {
    if let Some((_, key)) = KEYS.iter().find(|(known, _)| known.as_bytes() == name) {
        return Some((*key, true));
    }
    let digits = std::str::from_utf8(name.strip_prefix(b"key")?).ok()?;
    // RFC 9460 §2.1: no leading zeros.
    let number: u16 = digits.parse().ok()?;
    (number.to_string() == digits).then_some((number, false))
}

fn name_of(key: u16) -> String {
    match KEYS.iter().find(|(_, known)| *known == key) {
        Some((name, _)) => (*name).to_owned(),
        None => format!("key{key}"),
    }
}

/// Encodes the value of a key given by name.
fn encode(key: u16, value: &[u8], shown: Form) -> Result<Vec<u8>, String> {
    let wrong = |item: &[u8], form: &str| {
        format!("service parameter `{}`: expected {form}, found {}", name_of(key), shown.show(item))
    };
    let mut octets = Vec::new();
    match key {
        MANDATORY => {
            let mut keys = Vec::new();
            for item in value.split(|octet| *octet == b',') {
                let (key, _) = self::key(item).ok_or_else(|| wrong(item, "comma-separated keys"))?;
                keys.push(key);
            }
            keys.sort_unstable();
            octets.extend(keys.iter().flat_map(|key| key.to_be_bytes()));
        }
        ALPN => {
            for item in list(value).ok_or_else(|| wrong(value, "a comma or a backslash after each backslash"))? {
                octets.push(u8::try_from(item.len()).map_err(|_| wrong(&item, "at most 255 octets"))?);
                octets.extend(item);
            }
        }
        PORT => {
            let token = Token { raw: value, at: 0, quoted: false, joined: false, form: shown };
            let port = cursor::number(token, 65_535).ok_or_else(|| wrong(value, "a number up to 65535"))?;
            octets.extend((port as u16).to_be_bytes());
        }
        IPV4HINT => {
            for item in value.split(|octet| *octet == b',') {
                let text = std::str::from_utf8(item).unwrap_or_default();
                let address: Ipv4Addr = text.parse().map_err(|_| wrong(item, "comma-separated IPv4 addresses"))?;
                octets.extend(address.octets());
            }
        }
        IPV6HINT => {
            for item in value.split(|octet| *octet == b',') {
                let text = std::str::from_utf8(item).unwrap_or_default();
                let address: Ipv6Addr = text.parse().map_err(|_| wrong(item, "comma-separated IPv6 addresses"))?;
                octets.extend(address.octets());
            }
        }
        ECH => octets = BASE64.decode(value).map_err(|_| wrong(value, "Base64"))?,
        _ => octets.extend(value),
    }
    Ok(octets)
}

/// Splits a comma-separated list and decodes `\,` and `\\` (RFC 9460 §A.1).
fn list(value: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut items = vec![Vec::new()];
    let mut octets = value.iter();
    while let Some(octet) = octets.next() {
        match octet {
            b',' => items.push(Vec::new()),
            b'\\' => items.last_mut()?.push(*octets.next().filter(|octet| matches!(octet, b',' | b'\\'))?),
            _ => items.last_mut()?.push(*octet),
        }
    }
    Some(items)
}
