//! Evaluation of an update over the content of a zone (RFC 2136 §3): prerequisites, permissions, changes.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use thiserror::Error;

use super::{
    content::{Content, RecordSet, Sets, find, serial_of, with_serial},
    message::{CLASS_ANY, CLASS_NONE, Record, Update},
    policy::Grant,
    rdata::folded,
};
use crate::{
    dns::{
        message::codes::{Rcode, class, rtype},
        zone::serial::is_later,
    },
    model::{name::Name, service::MAX_TTL},
};

/// Largest number of records of a dynamic zone: each update rebuilds its tables on every node, which takes some 50 ms at this size.
pub const MAX_ZONE_RECORDS: usize = 100_000;
/// Largest size in octets of the RDATA of one name: an answer with all of it fits a message over TCP, and its value fits the store.
pub const MAX_NAME_OCTETS: usize = 32 * 1024;

/// Result of an update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All prerequisites hold, and nothing changes.
    Unchanged,
    /// The new RRsets of the names that change, without RRsets for names that are gone. The apex has the new serial.
    Changed(BTreeMap<Box<[u8]>, Sets>),
}

/// Reasons why an update changes nothing, each with its response code.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UpdateError {
    /// A record has a form that its section does not allow (FORMERR).
    #[error("malformed update: {0}")]
    Malformed(&'static str),
    /// A name is outside the zone (NOTZONE).
    #[error("{0} is not in the zone")]
    NotInZone(Name),
    /// A name exists (YXDOMAIN).
    #[error("{0} exists")]
    NameExists(Name),
    /// A name does not exist (NXDOMAIN).
    #[error("{0} does not exist")]
    NoName(Name),
    /// An RRset exists (YXRRSET).
    #[error("{0} has records of type {rtype}", rtype = rtype::name(*.1))]
    SetExists(Name, u16),
    /// An RRset does not exist, or is another one (NXRRSET).
    #[error("{0} does not have the records of type {rtype}", rtype = rtype::name(*.1))]
    NoSet(Name, u16),
    /// The key may not change records of this type at this name (REFUSED).
    #[error("the key may not change {rtype} of {0}", rtype = rtype::name(*.1))]
    Denied(Name, u16),
    /// The zone would have too many records (REFUSED).
    #[error("the zone would have more than {MAX_ZONE_RECORDS} records")]
    TooManyRecords,
    /// A name would have too many records (REFUSED).
    #[error("{0} would have more than {MAX_NAME_OCTETS} octets of records")]
    TooLarge(Name),
}

impl UpdateError {
    /// Returns the response code (RFC 2136 §2.2).
    pub fn rcode(&self) -> Rcode {
        match self {
            Self::Malformed(_) => Rcode::FormErr,
            Self::NoName(_) => Rcode::NxDomain,
            Self::Denied(..) | Self::TooManyRecords | Self::TooLarge(_) => Rcode::Refused,
            Self::NameExists(_) => Rcode::YxDomain,
            Self::SetExists(..) => Rcode::YxRrset,
            Self::NoSet(..) => Rcode::NxRrset,
            Self::NotInZone(_) => Rcode::NotZone,
        }
    }

    /// Reports whether a prerequisite does not hold, which is no fault of anyone.
    pub fn is_prerequisite(&self) -> bool {
        matches!(self, Self::NoName(_) | Self::NameExists(_) | Self::SetExists(..) | Self::NoSet(..))
    }
}

/// Evaluates an update of the zone of the content. `grants` are those of the key that signed it.
///
/// # Errors
/// The first reason why nothing changes.
pub fn evaluate(content: &Content, update: &Update, grants: &[&Grant]) -> Result<Outcome, UpdateError> {
    check_prerequisites(content, &update.prerequisites)?;
    // All records are checked before the first one is applied (RFC 2136 §3.4.1).
    let mut changes = Vec::with_capacity(update.changes.len());
    for record in &update.changes {
        let (owner, change) = read_change(content, record)?;
        check_permission(content, record, owner, grants)?;
        changes.push((owner, change, record));
    }
    let mut draft = Draft { content, changed: BTreeMap::new() };
    for (owner, change, record) in changes {
        draft.apply(owner, change, record);
    }
    draft.finish()
}

fn owner<'r>(content: &Content, record: &'r Record) -> Result<&'r [u8], UpdateError> {
    record.owner.within(&content.origin).ok_or_else(|| UpdateError::NotInZone(record.owner.clone()))
}

/// Reports whether no record can have the type: it stands for others, or is of messages only (RFC 6895 §3.1).
fn is_meta(rtype: u16) -> bool {
    matches!(rtype, 0 | rtype::OPT | 128..=255 | u16::MAX)
}

/// Checks the prerequisites (RFC 2136 §3.2).
fn check_prerequisites(content: &Content, prerequisites: &[Record]) -> Result<(), UpdateError> {
    let mut expected: BTreeMap<(&Name, u16), BTreeSet<Cow<'_, [u8]>>> = BTreeMap::new();
    for record in prerequisites {
        let Record { owner: name, rtype, class, ttl, rdata } = record;
        if *ttl != 0 {
            return Err(UpdateError::Malformed("a prerequisite with a TTL"));
        }
        let owner = owner(content, record)?;
        let sets = content.sets(owner);
        let is_empty_form = *class == CLASS_ANY || *class == CLASS_NONE;
        if is_empty_form && !rdata.is_empty() {
            return Err(UpdateError::Malformed("a prerequisite of class ANY or NONE with data"));
        }
        if is_meta(*rtype) && !(is_empty_form && *rtype == rtype::ANY) {
            return Err(UpdateError::Malformed("a prerequisite of a type that no record has"));
        }
        match (*class, *rtype) {
            (CLASS_ANY, rtype::ANY) if sets.is_empty() => return Err(UpdateError::NoName(name.clone())),
            (CLASS_NONE, rtype::ANY) if !sets.is_empty() => return Err(UpdateError::NameExists(name.clone())),
            (CLASS_ANY | CLASS_NONE, rtype::ANY) => {}
            (CLASS_ANY, rtype) if find(sets, rtype).is_none() => return Err(UpdateError::NoSet(name.clone(), rtype)),
            (CLASS_NONE, rtype) if find(sets, rtype).is_some() => {
                return Err(UpdateError::SetExists(name.clone(), rtype));
            }
            (CLASS_ANY | CLASS_NONE, _) => {}
            (class::IN, rtype) if rdata.is_empty() && !may_be_empty(rtype) => {
                return Err(UpdateError::Malformed("a prerequisite with the class of the zone and without data"));
            }
            (class::IN, rtype) => {
                expected.entry((name, rtype)).or_default().insert(folded(rtype, rdata));
            }
            _ => return Err(UpdateError::Malformed("a prerequisite of another class")),
        }
    }
    for ((name, rtype), expected) in expected {
        let set = name.within(&content.origin).and_then(|owner| find(content.sets(owner), rtype));
        let found: BTreeSet<Cow<'_, [u8]>> =
            set.iter().flat_map(|set| &set.records).map(|rdata| folded(rtype, rdata)).collect();
        if found != expected {
            return Err(UpdateError::NoSet(name.clone(), rtype));
        }
    }
    Ok(())
}

/// A change of a name (RFC 2136 §2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Add,
    DeleteRecord,
    DeleteSet,
    DeleteName,
}

fn read_change<'r>(content: &Content, record: &'r Record) -> Result<(&'r [u8], Change), UpdateError> {
    let owner = owner(content, record)?;
    let Record { rtype, class, ttl, rdata, .. } = record;
    let change = match (*class, *rtype) {
        (class::IN, _) => Change::Add,
        (CLASS_ANY | CLASS_NONE, _) if *ttl != 0 => return Err(UpdateError::Malformed("a deletion with a TTL")),
        (CLASS_ANY, _) if !rdata.is_empty() => return Err(UpdateError::Malformed("a deletion of class ANY with data")),
        (CLASS_ANY, rtype::ANY) => return Ok((owner, Change::DeleteName)),
        (CLASS_ANY, _) => Change::DeleteSet,
        (CLASS_NONE, _) => Change::DeleteRecord,
        _ => return Err(UpdateError::Malformed("a change of another class")),
    };
    if is_meta(*rtype) {
        return Err(UpdateError::Malformed("a change of a type that no record has"));
    }
    if matches!(change, Change::Add | Change::DeleteRecord) && rdata.is_empty() && !may_be_empty(*rtype) {
        return Err(UpdateError::Malformed("a record without data"));
    }
    Ok((owner, change))
}

/// Reports whether RDATA of the type may have no octets: NULL, APL, and types that are not known here.
fn may_be_empty(rtype: u16) -> bool {
    !matches!(rtype, 1..=9 | 11..=39 | rtype::DS | 44..=65 | 99 | 256 | 257)
}

/// Checks that the key may make a change. The deletion of a name needs permission for each of its types that it deletes.
fn check_permission(content: &Content, record: &Record, owner: &[u8], grants: &[&Grant]) -> Result<(), UpdateError> {
    let check = |rtype| match grants.iter().any(|grant| grant.allows(owner, rtype)) {
        true => Ok(()),
        false => Err(UpdateError::Denied(record.owner.clone(), rtype)),
    };
    if record.rtype != rtype::ANY {
        return check(record.rtype);
    }
    let types = content.sets(owner).iter().map(|set| set.rtype);
    types.filter(|rtype| !is_kept(owner, *rtype)).try_for_each(check)
}

/// Reports whether the RRset cannot be deleted as a whole: SOA and NS of the apex (RFC 2136 §3.4.2.3).
fn is_kept(owner: &[u8], rtype: u16) -> bool {
    owner.is_empty() && matches!(rtype, rtype::SOA | rtype::NS)
}

/// The names that change.
struct Draft<'c> {
    content: &'c Content,
    changed: BTreeMap<Box<[u8]>, Vec<RecordSet>>,
}

impl Draft<'_> {
    fn sets(&mut self, owner: &[u8]) -> &mut Vec<RecordSet> {
        self.changed.entry(owner.into()).or_insert_with(|| self.content.sets(owner).to_vec())
    }

    /// Applies a change (RFC 2136 §3.4.2).
    fn apply(&mut self, owner: &[u8], change: Change, record: &Record) {
        let Record { rtype, ttl, rdata, .. } = record;
        let sets = self.sets(owner);
        match change {
            Change::DeleteName => sets.retain(|set| is_kept(owner, set.rtype)),
            Change::DeleteSet => sets.retain(|set| set.rtype != *rtype || is_kept(owner, set.rtype)),
            Change::DeleteRecord => {
                if *rtype == rtype::SOA {
                    return;
                }
                let Some(at) = sets.iter().position(|set| set.rtype == *rtype) else { return };
                // The last name server of the zone stays.
                if is_kept(owner, *rtype) && sets[at].records.len() == 1 {
                    return;
                }
                let deleted = folded(*rtype, rdata);
                sets[at].records.retain(|rdata| folded(*rtype, rdata) != deleted);
                if sets[at].records.is_empty() {
                    sets.remove(at);
                }
            }
            // A TTL with the highest bit counts as 0 (RFC 2181 §8).
            Change::Add => add(sets, owner, *rtype, if *ttl > MAX_TTL { 0 } else { *ttl }, rdata),
        }
    }

    /// Returns the result, with the new serial.
    fn finish(mut self) -> Result<Outcome, UpdateError> {
        let content = self.content;
        self.changed.retain(|owner, sets| {
            sets.sort_by_key(|set| set.rtype);
            content.sets(owner) != sets.as_slice()
        });
        if self.changed.is_empty() {
            return Ok(Outcome::Unchanged);
        }
        let serial = content.serial();
        if let Some(soa) = self.sets(&[]).iter_mut().find(|set| set.rtype == rtype::SOA)
            && let Some(rdata) = soa.records.first_mut()
            && serial_of(rdata) == Some(serial)
        {
            // 0 is a serial that some secondaries take for none.
            *rdata = with_serial(rdata, serial.wrapping_add(1).max(1));
        }
        let mut records = content.records();
        for (owner, sets) in &self.changed {
            let before = content.sets(owner);
            if size(sets) > MAX_NAME_OCTETS.max(size(before)) {
                let name = super::content::absolute(owner, &content.origin).unwrap_or_else(|_| content.origin.clone());
                return Err(UpdateError::TooLarge(name));
            }
            records = records + count(sets) - count(before);
        }
        if records > MAX_ZONE_RECORDS && records > content.records() {
            return Err(UpdateError::TooManyRecords);
        }
        Ok(Outcome::Changed(self.changed.into_iter().map(|(owner, sets)| (owner, Arc::new(sets))).collect()))
    }
}

fn count(sets: &[RecordSet]) -> usize {
    sets.iter().map(|set| set.records.len()).sum()
}

/// Octets of the records in a message, with a compressed owner.
fn size(sets: &[RecordSet]) -> usize {
    sets.iter().flat_map(|set| &set.records).map(|rdata| rdata.len() + 12).sum()
}

/// Adds a record (RFC 2136 §3.4.2.2). Records that exclude each other are left out without an error.
fn add(sets: &mut Vec<RecordSet>, owner: &[u8], rtype: u16, ttl: u32, rdata: &[u8]) {
    let is_single = match rtype {
        rtype::SOA => {
            let current = find(sets, rtype).and_then(|soa| serial_of(soa.records.first()?));
            // Only the apex has one. A zone never goes back.
            let is_newer = current.zip(serial_of(rdata)).is_some_and(|(current, new)| is_later(new, current));
            if !owner.is_empty() || !is_newer {
                return;
            }
            true
        }
        rtype::CNAME if sets.iter().any(|set| set.rtype != rtype::CNAME) => return,
        rtype::CNAME | rtype::DNAME => true,
        _ if find(sets, rtype::CNAME).is_some() => return,
        _ => false,
    };
    match sets.iter_mut().find(|set| set.rtype == rtype) {
        Some(set) if is_single => (set.ttl, set.records) = (ttl, vec![rdata.into()]),
        Some(set) => {
            // All records of an RRset have one TTL (RFC 2181 §5.2): that of the newest.
            set.ttl = ttl;
            let added = folded(rtype, rdata);
            match set.records.iter_mut().find(|known| folded(rtype, known) == added) {
                // In the letter case of the newest.
                Some(known) => *known = rdata.into(),
                None => set.records.push(rdata.into()),
            }
        }
        None => sets.push(RecordSet { rtype, ttl, records: vec![rdata.into()] }),
    }
}

#[cfg(test)]
mod tests;
