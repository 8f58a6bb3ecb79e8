//! Settings of zone transfers: `dns.transfer`.

use crate::dns::transfer::access::Access;
pub use crate::dns::transfer::access::Secondary;

/// Secondaries that are told of changes, at most: each costs a message for each zone and change.
pub(super) const MAX_SECONDARIES: usize = 32;

/// Zone transfers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transfer {
    /// Clients that may copy zones. Empty: transfers are refused.
    pub allow: Access,
    /// Secondaries that receive NOTIFY.
    pub notify: Vec<Secondary>,
}
