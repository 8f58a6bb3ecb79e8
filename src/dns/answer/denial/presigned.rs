//! Proofs of zones that another tool has signed: records of the chain of NSEC (RFC 4035 §3.1.3) or NSEC3 (RFC 5155 §7.2) in the zone
//! file.

use super::{Proof, Proofs, absent_below, enclosing, suffix};
use crate::dns::{
    answer::{Data, Group, Owner},
    message::query::LookupName,
    zone::{presigned::Chain, signing::SignedBy, static_names::Zone},
};

impl<'t> Proofs<'t> {
    /// Adds the proof that no name closer to `name` exists than its ancestor of `encloser` labels.
    pub(super) fn add_absent(&mut self, signer: SignedBy<'t>, zone: &'t Zone, name: &LookupName, encloser: usize) {
        match signer {
            SignedBy::Keys(keys) => self.add(zone, keys, absent_below(name, encloser, zone)),
            SignedBy::File(zone, chain) => {
                let closer = match chain {
                    Chain::Nsec(_) => name.wire(),
                    Chain::Nsec3 { .. } => suffix(name, encloser + 1),
                };
                self.add_stored(chain, zone, chain.covering(relative(closer, zone), zone.origin.wire()));
            }
        }
    }

    /// Adds the proof that `name` and a wildcard for it do not exist, but its ancestor of `encloser` labels does (RFC 5155 §7.2.2).
    pub(super) fn add_no_name(&mut self, chain: &'t Chain, zone: &'t Zone, name: &LookupName, encloser: usize) {
        let origin = zone.origin.wire();
        let encloser = self.add_encloser(chain, zone, name, encloser);
        let wildcard = [b"\x01*", relative(suffix(name, encloser), zone)].concat();
        self.add_stored(chain, zone, chain.covering(&wildcard, origin));
    }

    /// Adds the proof that `name`, or the wildcard that it is expanded from, does not have the type (RFC 5155 §7.2.3 to §7.2.5).
    pub(super) fn add_no_data(&mut self, chain: &'t Chain, zone: &'t Zone, name: &LookupName, wildcard: Option<&[u8]>) {
        let origin = zone.origin.wire();
        let owner = relative(name.wire(), zone);
        match (wildcard, chain) {
            (None, _) => match (chain.matching(owner, origin), chain) {
                (Some(found), _) => self.add_stored(chain, zone, Some(found)),
                // An empty non-terminal has no NSEC record: the one in front of it leads below it.
                (None, Chain::Nsec(_)) => self.add_stored(chain, zone, chain.covering(owner, origin)),
                // An unsigned delegation that the chain leaves out (opt-out), or a name above it.
                (None, Chain::Nsec3 { .. }) => drop(self.add_encloser(chain, zone, name, name.count() - 1)),
            },
            (Some(wildcard), Chain::Nsec(_)) => {
                self.add_stored(chain, zone, chain.covering(owner, origin));
                self.add_stored(chain, zone, chain.matching(wildcard, origin));
            }
            (Some(wildcard), Chain::Nsec3 { .. }) => {
                self.add_encloser(chain, zone, name, enclosing(wildcard, zone));
                self.add_stored(chain, zone, chain.matching(wildcard, origin));
            }
        }
    }

    /// Adds the proof that an ancestor of `name` exists, of `encloser` labels or less, and none that is closer (RFC 5155 §7.2.1).
    /// Returns its labels. With opt-out, an ancestor may have no record.
    fn add_encloser(&mut self, chain: &'t Chain, zone: &'t Zone, name: &LookupName, encloser: usize) -> usize {
        let origin = zone.origin.wire();
        if let Chain::Nsec(_) = chain {
            self.add_stored(chain, zone, chain.covering(relative(name.wire(), zone), origin));
            return encloser;
        }
        let record = |labels: usize| chain.matching(relative(suffix(name, labels), zone), origin);
        let provable = (zone.labels..=encloser).rev().find(|labels| record(*labels).is_some()).unwrap_or(zone.labels);
        self.add_stored(chain, zone, record(provable));
        let closer = relative(suffix(name, provable + 1), zone);
        self.add_stored(chain, zone, chain.covering(closer, origin));
        provable
    }

    fn add_stored(&mut self, chain: &'t Chain, zone: &'t Zone, owner: Option<&'t [u8]>) {
        let Some(owner) = owner else { return };
        let is_same = |known: &Proof<'_>| matches!(known, Proof::Stored(group) if group.owner == Owner::Below(owner));
        let set = zone.names.at(owner).unwrap_or_default().iter().find(|set| set.rtype == chain.rtype());
        if let Some(set) = set.filter(|_| !self.nsec.iter().any(is_same)) {
            let (owner, signer, data) = (Owner::Below(owner), zone.signer(), Data::Stored(set));
            self.nsec.push(Proof::Stored(Group { owner, zone, signer, wildcard: None, data }));
        }
    }
}

/// Returns the labels of a name of the zone in front of the origin.
fn relative<'n>(name: &'n [u8], zone: &Zone) -> &'n [u8] {
    &name[..name.len().saturating_sub(zone.origin.wire().len())]
}
