//! Signers of zones: this server with its keys, or the tool that wrote the zone file.

use std::sync::Arc;

use super::{
    Tables, Zones,
    presigned::Chain,
    static_names::{Kind, Zone},
};
use crate::dns::dnssec::zone_keys::{SignedZones, ZoneKeys};

/// Signer of a zone.
#[derive(Clone, Copy, Debug)]
pub enum SignedBy<'t> {
    /// This server, with these keys.
    Keys(&'t ZoneKeys),
    /// Another tool: signatures and proofs are in the file of the zone.
    File(&'t Zone, &'t Chain),
}

impl Zone {
    /// Returns the signer of the zone; `None` if it is not signed.
    pub fn signer(&self) -> Option<SignedBy<'_>> {
        match &self.keys {
            Some(keys) => Some(SignedBy::Keys(keys)),
            None => self.presigned().map(|chain| SignedBy::File(self, chain)),
        }
    }

    /// Returns the proofs of absence of a zone that another tool has signed. Such a zone has no other names than the file.
    pub fn presigned(&self) -> Option<&Chain> {
        self.names.chain().filter(|_| self.kind == Kind::Static)
    }
}

impl Tables {
    /// Replaces the keys of the zones that are signed online.
    pub fn set_keys(&mut self, keys: Arc<SignedZones>) {
        self.zones = Arc::new(Zones::clone(&self.zones).signed_with(&keys));
        self.keys = keys;
    }
}

impl Zones {
    /// Gives each zone its keys, unless its file has signatures: the records of two signers do not fit together.
    pub(super) fn signed_with(mut self, keys: &SignedZones) -> Self {
        for (origin, zone) in &mut self.by_origin {
            zone.keys = keys.get(origin).filter(|_| zone.presigned().is_none()).cloned();
        }
        self
    }
}
