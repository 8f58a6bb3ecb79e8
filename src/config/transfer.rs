//! Settings of zone transfers: `dns.transfer`.

use std::net::SocketAddr;

use crate::{dns::transfer::access::Access, model::name::Name};

/// Secondaries that are told of changes, at most: each costs a message for each zone and change.
pub(super) const MAX_SECONDARIES: usize = 32;

/// Zone transfers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transfer {
    /// Who may copy zones. Empty: nobody.
    pub allow: Access,
    /// Secondaries that receive NOTIFY.
    pub notify: Vec<Secondary>,
}

/// A secondary that receives NOTIFY (RFC 1996).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secondary {
    /// Address.
    pub address: SocketAddr,
    /// Name of the TSIG key that signs the messages.
    pub key: Option<Name>,
}
