//! `_why.SERVICE` and `_why.INSTANCE.SERVICE`: the content of `muster explain`, in short, as TXT records.
//!
//! Texts are stored only for instances that are not plainly answered, so that a healthy cluster stores none. All other texts
//! are generated for each query.

use super::rrset::{RRset, Rdata};
use crate::{
    dns::message::codes::rtype,
    model::{
        catalog::{self, CatalogEntry},
        name::Label,
        reason::{self, Reason},
    },
};

/// Maximum length of a character-string in octets (RFC 1035 §3.3).
const STRING: usize = 255;

/// Texts of a service with an instance that is not plainly answered.
#[derive(Debug, PartialEq, Eq)]
pub struct Reasons {
    /// TXT RDATA: the summary, then one record per instance that is not plainly answered, sorted by id.
    records: Box<[Rdata]>,
    /// Instance ids of the records after the summary.
    ids: Box<[Label]>,
}

impl Reasons {
    /// Returns the texts of a service; `None` if all instances are plainly answered.
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

    /// Returns the summary and the records of all instances.
    pub fn all(&self) -> &[Rdata] {
        &self.records
    }

    /// Returns the records of the instance with that id; none if it is plainly answered.
    pub fn of(&self, id: &[u8]) -> &[Rdata] {
        let from = self.ids.partition_point(|known| known.as_bytes() < id);
        let to = self.ids.partition_point(|known| known.as_bytes() <= id);
        &self.records[from + 1..to + 1]
    }
}

/// Returns the TXT RRset of a service whose instances are all plainly answered.
pub fn of_service(all: usize, ttl: u32) -> RRset {
    one(text([reason::summary(all, all)]), ttl)
}

/// Returns the TXT RRset of a plainly answered instance.
pub fn of_instance(id: &[u8], weight: u16, ttl: u32) -> RRset {
    let id = String::from_utf8_lossy(id);
    one(text([format!("{id}: passing"), reason::plainly(weight)]), ttl)
}

fn one(record: Rdata, ttl: u32) -> RRset {
    RRset { rtype: rtype::TXT, ttl, line: 0, records: vec![record] }
}

/// Returns the record of one instance: id, node, state and time in the first string, the reason in the second.
fn detail(entry: &CatalogEntry, counts: bool) -> Rdata {
    let Reason { state, text: why } = reason::of(entry, counts, None);
    let since = reason::since(entry).map_or_else(String::new, |since| format!(" since {since}"));
    let id = &entry.announcement.instance.key.id;
    text([format!("{id} on {}: {state}{since}", entry.node), why])
}

/// Returns TXT RDATA with one character-string per part, or several if the part is too long for one.
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
    fn long_text_is_split_at_character_boundaries() {
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
