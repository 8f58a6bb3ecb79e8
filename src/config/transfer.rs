//! Settings of zone transfers and dynamic zones: `dns.transfer`, `dns.dynamic`, `dns.secondary`.

use crate::dns::transfer::access::Access;
pub use crate::dns::{secondary::SecondaryZone, transfer::access::Secondary};

/// Secondaries that are told of changes, at most: each costs a message for each zone and change.
pub(super) const MAX_SECONDARIES: usize = 32;
/// Dynamic zones, at most: each node holds all of them in memory.
pub(super) const MAX_DYNAMIC_ZONES: usize = 256;
/// Keys of a dynamic zone, and patterns of a key, at most: each update is compared with all of them.
pub(super) const MAX_GRANTS: usize = 256;

/// Secondary zones, at most: each has a task and its records in memory.
pub(super) const MAX_SECONDARY_ZONES: usize = 1_000;
/// Primaries of a zone, at most: a round asks one after the other.
pub(super) const MAX_PRIMARIES: usize = 8;

/// Zone transfers to others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transfer {
    /// Clients that may copy zones. Empty: transfers are refused.
    pub allow: Access,
    /// Secondaries that receive NOTIFY.
    pub notify: Vec<Secondary>,
}
