//! Dynamic zones in the store: one key for each name, whose value has its records as text.
//!
//! `muster/zones/ZONE/NAME` holds lines of TTL, type and RDATA in the form of RFC 3597, so that any tool can read a backup:
//! `300 A \# 4 c0000201`. `NAME` is relative to the zone, `@` for the apex; a slash within a name is `\047`. Each update writes
//! the key of the apex, which has the serial: its revision is that of the zone.

use std::fmt::Write;

use data_encoding::HEXLOWER_PERMISSIVE;
use thiserror::Error;

use super::content::{RecordSet, Sets, absolute};
use crate::{dns::message::codes::rtype, model::name::Name};

/// Beginning of the keys of all dynamic zones.
pub const PREFIX: &str = "muster/zones/";
/// Name of the apex.
const APEX: &str = "@";
/// A slash within a name, in the form that a key has.
const SLASH: &str = "\\047";

/// Reasons why a value is no list of records.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}: {reason}")]
pub struct ValueError {
    /// Number of the line, from 1.
    pub line: usize,
    /// What is wrong.
    pub reason: &'static str,
}

/// Returns the key of a name, given by its labels in wire form relative to the zone.
pub fn key(origin: &Name, owner: &[u8]) -> String {
    let relative = absolute(owner, &Name::root()).map(|name| text(&name)).unwrap_or_default();
    let name = if owner.is_empty() { APEX } else { &relative };
    format!("{PREFIX}{}/{name}", text(origin))
}

/// Returns zone and name of a key, the name by its labels in wire form relative to the zone; `None` if it is no key of a zone.
pub fn parse_key(key: &str) -> Option<(Name, Box<[u8]>)> {
    let (zone, name) = key.strip_prefix(PREFIX)?.split_once('/')?;
    let origin = Name::parse(zone).ok()?;
    let owner = match name {
        APEX => Box::default(),
        name => Name::parse(name).ok()?.within(&Name::root())?.into(),
    };
    // Of several spellings one counts.
    (self::key(&origin, &owner) == key).then_some((origin, owner))
}

fn text(name: &Name) -> String {
    name.to_string().trim_end_matches('.').replace('/', SLASH)
}

/// Returns the value of a name with these RRsets.
pub fn value(sets: &[RecordSet]) -> String {
    let mut value = String::new();
    for RecordSet { rtype, ttl, records } in sets {
        for rdata in records {
            let hex = HEXLOWER_PERMISSIVE.encode(rdata);
            // Writing to a string does not fail.
            let _ = writeln!(value, "{ttl} {} \\# {} {hex}", rtype::name(*rtype), rdata.len());
        }
    }
    value
}

/// Reads the value of a name.
///
/// # Errors
/// The first line that is no record.
pub fn parse_value(value: &str) -> Result<Sets, ValueError> {
    let mut sets: Vec<RecordSet> = Vec::new();
    for (at, line) in value.lines().enumerate() {
        let wrong = |reason| ValueError { line: at + 1, reason };
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (head, hex) = fields.split_at_checked(4).ok_or(wrong("expected TTL, type, `\\#`, length and data"))?;
        let ttl: u32 = head[0].parse().map_err(|_| wrong("the TTL is no number"))?;
        let rtype = rtype::parse(head[1]).ok_or(wrong("unknown record type"))?;
        let rdata =
            HEXLOWER_PERMISSIVE.decode(hex.concat().as_bytes()).map_err(|_| wrong("the data is not hexadecimal"))?;
        if head[2] != "\\#" || head[3].parse() != Ok(rdata.len()) || rdata.len() > usize::from(u16::MAX) {
            return Err(wrong("the length is not that of the data"));
        }
        if super::rdata::read(rtype, &rdata, 0, rdata.len()).as_deref() != Some(&rdata[..]) {
            return Err(wrong("the data is not valid for its type"));
        }
        match sets.iter_mut().find(|set| set.rtype == rtype) {
            Some(set) => set.records.push(rdata.into()),
            None => sets.push(RecordSet { rtype, ttl, records: vec![rdata.into()] }),
        }
    }
    sets.sort_by_key(|set| set.rtype);
    Ok(sets.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_lead_to_names_and_back() {
        let cases: [(&str, &[u8], &str); 5] = [
            ("dyn.example", b"", "muster/zones/dyn.example/@"),
            ("dyn.example", b"\x01a\x01b", "muster/zones/dyn.example/a.b"),
            ("dyn.example", b"\x01@", "muster/zones/dyn.example/\\@"),
            ("0/26.2.0.192.in-addr.arpa", b"\x011", "muster/zones/0\\04726.2.0.192.in-addr.arpa/1"),
            ("dyn.example", b"\x03a/b\x02\xc3\xa9", "muster/zones/dyn.example/a\\047b.\\195\\169"),
        ];
        for (origin, owner, expected) in cases {
            let origin = Name::parse(origin).unwrap();
            assert_eq!(key(&origin, owner), expected);
            assert_eq!(parse_key(expected), Some((origin, owner.into())), "{expected}");
        }
        for other in ["muster/zones/a", "muster/zones/a/", "muster/zones/a./@", "muster/zones/a/B", "app/a/b"] {
            assert_eq!(parse_key(other), None, "{other}");
        }
    }

    #[test]
    fn values_are_text() {
        let sets = vec![
            RecordSet { rtype: rtype::A, ttl: 300, records: vec![[192, 0, 2, 1].into(), [192, 0, 2, 2].into()] },
            RecordSet { rtype: 65_280, ttl: 5, records: vec![Box::default()] },
        ];
        let text = value(&sets);
        assert_eq!(text, "300 A \\# 4 c0000201\n300 A \\# 4 c0000202\n5 TYPE65280 \\# 0 \n");
        assert_eq!(*parse_value(&text).unwrap(), sets);
        let wrong = [
            ("x", "line 1: expected TTL, type, `\\#`, length and data"),
            ("5 A \\# 4 c0000201\n5 A \\# 4 c0", "line 2: the length is not that of the data"),
            ("5 A \\# 1 c0", "line 1: the data is not valid for its type"),
            ("5 CNAME \\# 2 c000", "line 1: the data is not valid for its type"),
            ("x A \\# 4 c0000201", "line 1: the TTL is no number"),
            ("5 WHAT \\# 4 c0000201", "line 1: unknown record type"),
            ("5 A \\# 4 zz000201", "line 1: the data is not hexadecimal"),
        ];
        for (text, expected) in wrong {
            assert_eq!(parse_value(text).unwrap_err().to_string(), expected, "{text}");
        }
    }
}
