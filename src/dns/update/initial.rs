//! The first content of a dynamic zone, from a zone file.

use std::collections::BTreeMap;

use thiserror::Error;

use super::{
    content::{RecordSet, Sets},
    evaluate::{MAX_NAME_OCTETS, MAX_ZONE_RECORDS},
    stored,
};
use crate::{
    dns::message::codes::rtype,
    model::{name::Name, zone::ZoneFile},
};

/// Largest size in octets of the keys and values of the content: they are one transaction, which has to fit a message between nodes.
const MAX_OCTETS: usize = 4 << 20;

/// Reasons why a zone file is not the first content of a zone.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InitialError {
    /// Updates would leave the signatures as they are.
    #[error("it is signed: remove its signatures, and list the zone in `dns.dnssec`")]
    Signed,
    /// More records than a dynamic zone may have.
    #[error("it has more than {MAX_ZONE_RECORDS} records")]
    Records,
    /// More than a transaction of the store may have.
    #[error("it needs more than {} MiB in the store: add its records by updates", MAX_OCTETS >> 20)]
    TooLarge,
    /// A name with more than an answer may have.
    #[error("{0} has more than {MAX_NAME_OCTETS} octets of records")]
    Name(Name),
    /// A record in a form that updates cannot have.
    #[error("{rtype} of {0} is not valid in a dynamic zone", rtype = rtype::name(*.1))]
    Record(Name, u16),
}

/// Returns the RRsets of all names of a zone file, as an update would write them.
///
/// # Errors
/// The first reason why the file is not taken.
pub fn read(file: &ZoneFile) -> Result<BTreeMap<Box<[u8]>, Sets>, InitialError> {
    if file.records.len() > MAX_ZONE_RECORDS {
        return Err(InitialError::Records);
    }
    let mut names: BTreeMap<Box<[u8]>, Vec<RecordSet>> = BTreeMap::new();
    for record in &file.records {
        if matches!(record.rtype, rtype::RRSIG | rtype::NSEC | rtype::NSEC3) {
            return Err(InitialError::Signed);
        }
        // The parser refuses names outside the zone.
        let Some(owner) = record.owner.within(&file.origin) else { continue };
        let sets = names.entry(owner.into()).or_default();
        let rdata: Box<[u8]> = record.rdata.as_slice().into();
        match sets.iter_mut().find(|set| set.rtype == record.rtype) {
            Some(set) => set.records.push(rdata),
            None => sets.push(RecordSet { rtype: record.rtype, ttl: record.ttl, records: vec![rdata] }),
        }
    }
    let mut octets = 0;
    for (owner, sets) in &mut names {
        sets.sort_by_key(|set| set.rtype);
        let name = || super::content::absolute(owner, &file.origin).unwrap_or_else(|_| file.origin.clone());
        let of_name: usize = sets.iter().flat_map(|set| &set.records).map(|rdata| rdata.len()).sum();
        if of_name > MAX_NAME_OCTETS {
            return Err(InitialError::Name(name()));
        }
        let value = stored::value(sets);
        let is_same = |set: &&RecordSet| stored::parse_value(&stored::value(&[(*set).clone()])).is_ok();
        if let Some(wrong) = sets.iter().find(|set| !is_same(set)) {
            return Err(InitialError::Record(name(), wrong.rtype));
        }
        octets += stored::key(&file.origin, owner).len() + value.len();
    }
    if octets > MAX_OCTETS {
        return Err(InitialError::TooLarge);
    }
    Ok(names.into_iter().map(|(owner, sets)| (owner, sets.into())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::zone_file;

    fn parse(text: &str) -> Result<BTreeMap<Box<[u8]>, Sets>, InitialError> {
        let file = zone_file::parse("dyn.test.zone".as_ref(), text.as_bytes(), 5).unwrap();
        read(&file)
    }

    const HEAD: &str = "$TTL 300\n@ SOA ns hostmaster 7 60 60 60 60\n@ NS ns\nns A 192.0.2.1\n";

    #[test]
    fn zone_file_becomes_the_content_of_an_update() {
        let names =
            parse(&format!("{HEAD}Www A 192.0.2.2\nwww A 192.0.2.3\nwww 60 TXT \"x\"\nodd TYPE65400 \\# 1 ab\n"))
                .unwrap();
        let owners: Vec<&[u8]> = names.keys().map(|owner| &**owner).collect();
        assert_eq!(owners, [&b""[..], b"\x02ns", b"\x03odd", b"\x03www"]);
        let www: Vec<_> = names[&b"\x03www"[..]].iter().map(|set| (set.rtype, set.ttl, set.records.len())).collect();
        assert_eq!(www, [(1, 300, 2), (16, 60, 1)]);
    }

    #[test]
    fn files_that_updates_could_not_write_are_refused() {
        let signed = format!("{HEAD}x NSEC ns A\n");
        assert_eq!(parse(&signed), Err(InitialError::Signed));
        let long: String = (0..200).map(|at| format!("x TXT \"{at:0250}\"\n")).collect();
        assert_eq!(parse(&format!("{HEAD}{long}")), Err(InitialError::Name(Name::parse("x.dyn.test").unwrap())));
        let many: String = (0..20_000).map(|at| format!("h{at} TXT \"{at:0200}\"\n")).collect();
        assert_eq!(parse(&format!("{HEAD}{many}")), Err(InitialError::TooLarge));
    }
}
