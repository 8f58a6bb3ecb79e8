//! Names that records of a zone file lead elsewhere: delegations and DNAMEs.

use super::{Explainer, absolute, presentation};
use crate::{
    api::explain::Explained,
    dns::{
        message::codes::rtype,
        zone::{rrset::RRset, static_names::Zone},
    },
};

impl Explainer<'_> {
    /// Explains a name at or below a delegation.
    pub(super) fn delegation(&self, zone: Option<&Zone>, owner: &[u8], rrsets: &[RRset]) -> Explained {
        let (Some(zone), Some(ns)) = (zone, rrsets.iter().find(|set| set.rtype == rtype::NS)) else {
            return Explained::default();
        };
        let (from, owner) = (self.origin(zone, ns.line), absolute(owner, zone));
        let servers = ns.records.iter().filter_map(|rdata| zone.target(rdata, 0));
        let servers = servers.map(|name| presentation(&name)).collect::<Vec<_>>().join(", ");
        Explained {
            kind: "delegation".to_owned(),
            summary: format!("referral: {} delegates {owner} to {servers}", from.shown),
            owner,
            file: from.file,
            line: from.line,
            ttl: ns.ttl,
            ttl_from: from.ttl.to_owned(),
            ..Explained::default()
        }
    }

    /// Explains a name below the owner of a DNAME.
    pub(super) fn redirect(&self, zone: Option<&Zone>, owner: &[u8], dname: &RRset) -> Explained {
        let Some(zone) = zone else { return Explained::default() };
        let (from, owner) = (self.origin(zone, dname.line), absolute(owner, zone));
        let target = dname.records.first().and_then(|rdata| zone.target(rdata, 0));
        let target = target.map_or_else(String::new, |name| presentation(&name));
        Explained {
            kind: "redirect".to_owned(),
            summary: format!("redirect: {} has a DNAME of {owner} to {target}", from.shown),
            owner,
            file: from.file,
            line: from.line,
            ttl: dname.ttl,
            ttl_from: from.ttl.to_owned(),
            ..Explained::default()
        }
    }
}
