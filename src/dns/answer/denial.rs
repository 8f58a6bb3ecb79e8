//! Proofs that belong to a signed answer: NSEC records of absent names and types (RFC 4035 §3.1.3), and the DS RRset of a
//! delegation (§3.1.4). Proofs are made for the answer (RFC 4470), or come from the zone file ([`presigned`]).

mod presigned;

use super::{
    Answer, Authority, Data, Group, Owner,
    provenance::{Match, Step},
};
use crate::dns::{
    dnssec::{
        nsec::{self, Nsec},
        zone_keys::ZoneKeys,
    },
    message::{
        codes::{Rcode, rtype},
        query::LookupName,
    },
    zone::{
        Tables,
        rrset::{RRset, Rdata},
        signing::SignedBy,
        static_names::Zone,
    },
};

/// Proofs of an answer; empty for a plain positive one.
#[derive(Debug, Default)]
pub struct Proofs<'t> {
    /// NSEC or NSEC3 records.
    pub nsec: Vec<Proof<'t>>,
    /// The DS RRset of a signed delegation.
    pub ds: Option<Group<'t>>,
}

/// An NSEC or NSEC3 record.
#[derive(Debug)]
pub enum Proof<'t> {
    /// Made for the answer. Its TTL is that of negative answers (RFC 9077 §3).
    Made {
        /// The zone.
        zone: &'t Zone,
        /// Its keys.
        keys: &'t ZoneKeys,
        /// The record.
        record: Nsec,
    },
    /// A record of the zone file.
    Stored(Group<'t>),
}

impl<'t> Proofs<'t> {
    fn add(&mut self, zone: &'t Zone, keys: &'t ZoneKeys, record: Nsec) {
        // A name and a wildcard may have the same one.
        let is_same = |known: &Proof<'_>| matches!(known, Proof::Made { record: of, .. } if of.owner == record.owner);
        if !self.nsec.iter().any(is_same) {
            self.nsec.push(Proof::Made { zone, keys, record });
        }
    }
}

impl Tables {
    /// Returns the proofs of an answer to a question for `name`.
    pub fn proofs<'t>(&'t self, name: &LookupName, answer: &Answer<'t>) -> Proofs<'t> {
        let mut proofs = Proofs::default();
        let is_complete = matches!(answer.rcode, Rcode::NoError | Rcode::NxDomain);
        if !is_complete || !answer.steps.iter().any(|step| signer(step).is_some()) {
            return proofs;
        }
        let mut target = None;
        for group in &answer.answer {
            // No closer match exists than the wildcard.
            if let (Some(signer), Some(wildcard)) = (group.signer, group.wildcard) {
                let name = target.as_ref().unwrap_or(name);
                proofs.add_absent(signer, group.zone, name, enclosing(wildcard, group.zone));
            }
            match &group.data {
                Data::Stored(set) if set.rtype == rtype::CNAME => target = target_of(set, group.zone),
                Data::Made(set) if set.rtype == rtype::CNAME => target = target_of(set, group.zone),
                _ => {}
            }
        }
        let Some((step, zone)) = answer.steps.last().and_then(|step| Some((step, step.zone?))) else { return proofs };
        let Some(signer) = signer(step) else { return proofs };
        let name = target.as_ref().unwrap_or(name);
        let origin = zone.origin.wire();
        match (&answer.authority, step.found) {
            (Authority::Soa(_), _) if answer.rcode == Rcode::NxDomain => {
                let encloser = self.closest_encloser(name, zone);
                match signer {
                    SignedBy::Keys(keys) => {
                        proofs.add(zone, keys, absent_below(name, encloser, zone));
                        proofs.add(zone, keys, nsec::covering(b"*", suffix(name, encloser), origin));
                    }
                    SignedBy::File(zone, chain) => proofs.add_no_name(chain, zone, name, encloser),
                }
            }
            (Authority::Soa(_), found) => match (signer, found.wildcard()) {
                (SignedBy::Keys(keys), None) => {
                    proofs.add(zone, keys, nsec::matching(name.wire(), origin, self.provable_types(step)));
                }
                (SignedBy::Keys(keys), Some(wildcard)) => {
                    proofs.add(zone, keys, absent_below(name, enclosing(wildcard, zone), zone));
                    let owner = [wildcard, origin].concat();
                    proofs.add(zone, keys, nsec::matching(&owner, origin, self.provable_types(step)));
                }
                (SignedBy::File(zone, chain), wildcard) => proofs.add_no_data(chain, zone, name, wildcard),
            },
            (Authority::Referral(_), Match::Delegation { owner, rrsets }) => {
                match (rrsets.iter().find(|set| set.rtype == rtype::DS), signer) {
                    (Some(ds), _) => {
                        let (owner, data) = (Owner::Below(owner), Data::Stored(ds));
                        proofs.ds = Some(Group { owner, zone, signer: Some(signer), wildcard: None, data });
                    }
                    (None, SignedBy::Keys(keys)) => {
                        let owner = [owner, origin].concat();
                        proofs.add(zone, keys, nsec::matching(&owner, origin, vec![rtype::NS]));
                    }
                    (None, SignedBy::File(zone, chain)) => {
                        let cut = LookupName::from_wire(&[owner, origin].concat());
                        cut.iter().for_each(|cut| proofs.add_no_data(chain, zone, cut, None));
                    }
                }
            }
            (Authority::Referral(_) | Authority::Empty, _) => {}
        }
        proofs
    }

    /// Returns the NSEC RRset of an existing name of a signed zone.
    pub(super) fn nsec(&self, name: &LookupName, zone: &Zone, step: &Step<'_>) -> RRset {
        let record = nsec::matching(name.wire(), zone.origin.wire(), self.provable_types(step));
        let records = vec![Rdata::fixed(record.rdata)];
        RRset { rtype: rtype::NSEC, ttl: zone.soa.negative_ttl(), line: 0, records }
    }

    /// Returns the types of a name, without RRSIG and NSEC.
    fn provable_types(&self, step: &Step<'_>) -> Vec<u16> {
        let mut types = self.types(step);
        let is_cut = types.contains(&rtype::NS) && !types.contains(&rtype::SOA);
        if is_cut {
            // The rest is the child's (RFC 4035 §2.3).
            types.retain(|known| matches!(*known, rtype::NS | rtype::DS));
        }
        types
    }

    /// Returns the number of labels of the longest existing ancestor of an absent name.
    fn closest_encloser(&self, name: &LookupName, zone: &Zone) -> usize {
        let exists = |labels: &usize| {
            LookupName::from_wire(suffix(name, *labels)).is_some_and(|above| {
                let found = self.find_in(zone, &above, rtype::A).found;
                !matches!(found, Match::Nothing(_) | Match::Outside | Match::Static { wildcard: Some(_), .. })
            })
        };
        // Below a name that does not exist, none does (RFC 8020).
        (zone.labels + 1..name.count()).take_while(exists).last().unwrap_or(zone.labels)
    }
}

fn signer<'t>(step: &Step<'t>) -> Option<SignedBy<'t>> {
    step.zone?.signer()
}

fn target_of(cname: &RRset, zone: &Zone) -> Option<LookupName> {
    zone.target(cname.records.first()?, 0)
}

/// Returns the number of labels of the name whose wildcard this is.
fn enclosing(wildcard: &[u8], zone: &Zone) -> usize {
    zone.labels + count(wildcard) - 1
}

/// Returns the record that proves that the ancestor of `name` with one label more than `encloser`, or the name itself, does not
/// exist.
fn absent_below(name: &LookupName, encloser: usize, zone: &Zone) -> Nsec {
    let closer = suffix(name, encloser + 1);
    let (label, parent) = nsec::split(closer).unwrap_or((&[], closer));
    nsec::covering(label, parent, zone.origin.wire())
}

/// Returns the last labels of a name.
fn suffix(name: &LookupName, labels: usize) -> &[u8] {
    &name.wire()[name.offset(name.count().saturating_sub(labels))..]
}

/// Returns the number of labels of a relative name.
fn count(mut labels: &[u8]) -> usize {
    let mut count = 0;
    while let Some((_, rest)) = nsec::split(labels) {
        labels = rest;
        count += 1;
    }
    count
}
