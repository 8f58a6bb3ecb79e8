//! `_why.SERVICE` and `_why.INSTANCE.SERVICE`: what `muster explain` says, short, as TXT records.
//!
//! Text is kept for what is not answered, or is answered otherwise than plainly. Of all others a line is made when
//! somebody asks, so that a cluster in health keeps nothing here.

use super::rrset::{RRset, Rdata};
use crate::{
    dns::message::codes::rtype,
    model::{
        catalog::{self, CatalogEntry},
        name::Label,
        reason,
    },
};

/// Octets of a character-string (RFC 1035 §3.3).
const STRING: usize = 255;

/// What is to be said of a service, where there is something.
#[derive(Debug, PartialEq, Eq)]
pub struct Reasons {
    /// TXT RDATA: the summary, then one for each instance, sorted by id.
    records: Box<[Rdata]>,
    /// Whose the records after the first are.
    ids: Box<[Label]>,
}

impl Reasons {
    /// Works out what is to be said; `None`: that all are answered.
    pub fn new(service: &catalog::Service) -> Option<Self> {
        let (mut records, mut ids) = (Vec::new(), Vec::new());
        let mut last: Option<&Label> = None;
        for entry in service.entries() {
            let id = &entry.announcement.instance.key.id;
            let counts = last.replace(id) != Some(id);
            if !reason::is_plain(entry, counts) {
                records.push(detail(entry, counts));
                ids.push(id.clone());
            }
        }
        if ids.is_empty() {
            return None;
        }
        let all = service.instances().count();
        let answered = service.instances().filter(|entry| entry.is_answered()).count();
        let summary = match answered {
            0 => text(["none answered".to_owned(), reason::none_answered(service.instances())]),
            _ => text([reason::summary(answered, all)]),
        };
        records.insert(0, summary);
        Some(Self { records: records.into(), ids: ids.into() })
    }

    /// The summary and what is said of each instance.
    pub fn all(&self) -> &[Rdata] {
        &self.records
    }

    /// What is said of the instance of that id: nothing, where it is answered plainly.
    pub fn of(&self, id: &[u8]) -> &[Rdata] {
        let from = self.ids.partition_point(|known| known.as_bytes() < id);
        let to = self.ids.partition_point(|known| known.as_bytes() <= id);
        &self.records[from + 1..to + 1]
    }
}

/// What is said of a service all of whose instances are answered plainly.
pub fn of_service(all: usize, ttl: u32) -> RRset {
    one(text([reason::summary(all, all)]), ttl)
}

/// What is said of an instance that is answered plainly.
pub fn of_instance(id: &[u8], weight: u16, ttl: u32) -> RRset {
    let id = String::from_utf8_lossy(id);
    one(text([format!("{id}: passing"), reason::plainly(weight)]), ttl)
}

fn one(record: Rdata, ttl: u32) -> RRset {
    RRset { rtype: rtype::TXT, ttl, records: vec![record] }
}

/// Which instance, how it stands and since when; and why.
fn detail(entry: &CatalogEntry, counts: bool) -> Rdata {
    let why = reason::of(entry, counts, None);
    let since = reason::since(entry).map_or_else(String::new, |since| format!(" since {since}"));
    let id = &entry.announcement.instance.key.id;
    text([format!("{id} on {}: {}{since}", entry.node, why.state), why.text])
}

/// TXT RDATA: each part in a string of its own, or in several where it is too long for one.
fn text<const N: usize>(parts: [String; N]) -> Rdata {
    let mut octets = Vec::new();
    for part in parts {
        let mut rest = part.as_str();
        while !rest.is_empty() {
            let mut end = rest.len().min(STRING);
            while !rest.is_char_boundary(end) {
                end -= 1;
            }
            let (string, after) = rest.split_at(end);
            octets.push(string.len() as u8);
            octets.extend_from_slice(string.as_bytes());
            rest = after;
        }
    }
    Rdata::fixed(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_for_a_string_goes_on_in_the_next_on_a_characters_edge() {
        let strings = |part: String| -> Vec<String> {
            let octets = text([part]).octets;
            let (mut rest, mut strings) = (&*octets, Vec::new());
            while let Some((len, after)) = rest.split_first() {
                let (string, after) = after.split_at(usize::from(*len));
                strings.push(String::from_utf8(string.to_vec()).unwrap());
                rest = after;
            }
            strings
        };
        assert_eq!(strings("a".repeat(255)), ["a".repeat(255)]);
        assert_eq!(strings("a".repeat(300)), ["a".repeat(255), "a".repeat(45)]);
        assert_eq!(strings("ä".repeat(128)), ["ä".repeat(127), "ä".to_owned()]);
    }
}
