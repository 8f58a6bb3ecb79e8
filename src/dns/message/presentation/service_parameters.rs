//! Text of the service parameters of SVCB and HTTPS records (RFC 9460 §2.1).

use std::net::{Ipv4Addr, Ipv6Addr};

use data_encoding::BASE64;

use super::{super::reader::Reader, quoted};

/// Names of the keys from 0 on: RFC 9460 §14.3.2, `dohpath` of RFC 9461, `ohttp` of RFC 9540.
const KEYS: [&str; 9] =
    ["mandatory", "alpn", "no-default-alpn", "port", "ipv4hint", "ech", "ipv6hint", "dohpath", "ohttp"];

/// Returns the text of parameters; `None` if one is malformed.
pub(super) fn text(octets: &[u8]) -> Option<String> {
    let mut reader = Reader::new(octets);
    let mut params = Vec::new();
    while !reader.rest.is_empty() {
        let (key, len) = (reader.u16()?, reader.u16()?);
        let value = value(key, reader.take(len.into())?)?;
        params.push(name(key) + &value);
    }
    Some(params.join(" "))
}

fn name(key: u16) -> String {
    KEYS.get(usize::from(key)).map_or_else(|| format!("key{key}"), |name| (*name).to_owned())
}

/// Returns `=` and the value; nothing for a key without value.
fn value(key: u16, octets: &[u8]) -> Option<String> {
    let text = match key {
        0 => list(octets, |key: [u8; 2]| name(u16::from_be_bytes(key)))?,
        1 => protocols(octets)?,
        3 => u16::from_be_bytes(octets.try_into().ok()?).to_string(),
        4 => list(octets, |address: [u8; 4]| Ipv4Addr::from(address).to_string())?,
        5 => BASE64.encode(octets),
        6 => list(octets, |address: [u8; 16]| Ipv6Addr::from(address).to_string())?,
        _ if octets.is_empty() => return Some(String::new()),
        _ => quoted(octets),
    };
    Some(format!("={text}"))
}

/// Returns items of `N` octets, separated by commas; `None` if there is none, or a part of one.
fn list<const N: usize>(octets: &[u8], shown: impl Fn([u8; N]) -> String) -> Option<String> {
    let (items, rest) = octets.as_chunks::<N>();
    (rest.is_empty() && !items.is_empty()).then(|| items.iter().map(|item| shown(*item)).collect::<Vec<_>>().join(","))
}

/// Returns protocol names, separated by commas. A comma and a backslash in a name have one backslash of the list (RFC 9460 §A.1), which
/// is escaped as all others are.
fn protocols(octets: &[u8]) -> Option<String> {
    let mut reader = Reader::new(octets);
    let mut items = Vec::new();
    while !reader.rest.is_empty() {
        let len = reader.u8()?;
        let mut item = Vec::new();
        for octet in reader.take(len.into())? {
            if matches!(octet, b',' | b'\\') {
                item.push(b'\\');
            }
            item.push(*octet);
        }
        items.push(item);
    }
    (!items.is_empty()).then(|| quoted(&items.join(&b',')))
}
