//! `advertise`: the addresses at which other hosts reach this node, configured or those of the host.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    slice,
};

use crate::model::host_addresses::{Family, HostAddresses};

/// Address of a node without any other: right for clients of the same host only.
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Addresses at which other hosts reach this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Advertise {
    /// From the file: at least one, no duplicates. Unless gossip is loopback-only, none is loopback and one has the family of
    /// `gossip.listen`, if that is unspecified.
    Configured(Vec<IpAddr>),
    /// Follows the host. Unless gossip is loopback-only, the address is not loopback and has the family of `gossip.listen`.
    Host(IpAddr),
    /// The host has no usable address so far. The node does not gossip.
    Awaited(NoAddress),
}

/// Reason why a host has no address for other hosts: there is no default route of the family of `gossip.listen`, an
/// unspecified address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoAddress {
    family: Family,
    /// Address of the default route of the other family.
    other: Option<IpAddr>,
}

/// A problem of the addresses in use, which ends when the addresses of the host change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressProblem {
    /// The node has no address.
    None(NoAddress),
    /// The host no longer has this address, and has no other.
    Lost(IpAddr),
}

impl Advertise {
    /// Selects the address of a node that listens for gossip at `listen` and has no configured one. `in_use` is the address
    /// selected before.
    ///
    /// The family is that of `listen`; if gossip is loopback-only, either, first IPv4. Without a default route the result is
    /// the address in use while the host has it, then `listen` itself. The node keeps an address that the host has lost if
    /// there is no other: peers and this node's view of them do not change if it returns.
    pub fn select(listen: IpAddr, host: &HostAddresses, in_use: Option<IpAddr>) -> Self {
        let family = Family::of(listen);
        if listen.is_loopback() {
            let found = [Family::Ipv4, Family::Ipv6].into_iter().find_map(|family| host.select(family, in_use));
            return Self::Host(found.unwrap_or(LOOPBACK));
        }
        let own = || (!listen.is_unspecified()).then_some(listen);
        let lost = || in_use.filter(|address| Family::of(*address) == family && !address.is_loopback());
        match host.select(family, in_use).or_else(own).or_else(lost) {
            Some(address) => Self::Host(address),
            None => Self::Awaited(NoAddress { family, other: host.select(family.other(), None) }),
        }
    }

    /// Returns what the addresses are with the present addresses of the host. Configured ones do not change.
    #[must_use]
    pub fn follow(&self, listen: IpAddr, host: &HostAddresses) -> Self {
        match self {
            Self::Configured(_) => self.clone(),
            Self::Host(_) | Self::Awaited(_) => Self::select(listen, host, self.of_host()),
        }
    }

    /// Returns the address of the host in use, if it was not configured.
    pub fn of_host(&self) -> Option<IpAddr> {
        match self {
            Self::Host(address) => Some(*address),
            Self::Configured(_) | Self::Awaited(_) => None,
        }
    }

    /// Returns the addresses of instances without `address`, at least one. While awaited, this is the loopback address, which
    /// clients of this host use; nothing is published then.
    pub fn addresses(&self) -> &[IpAddr] {
        match self {
            Self::Configured(addresses) => addresses,
            Self::Host(address) => slice::from_ref(address),
            Self::Awaited(_) => &[LOOPBACK],
        }
    }

    /// Returns the addresses that other hosts can use; empty while awaited.
    pub fn published(&self) -> &[IpAddr] {
        match self {
            Self::Configured(_) | Self::Host(_) => self.addresses(),
            Self::Awaited(_) => &[],
        }
    }

    /// Reports whether the node has an address, so that it may gossip.
    pub fn is_usable(&self) -> bool {
        !matches!(self, Self::Awaited(_))
    }

    /// Returns the problem of the addresses with the present addresses of the host. A configured address may be that of a
    /// router in front of the host.
    pub fn problem(&self, listen: IpAddr, host: &HostAddresses) -> Option<AddressProblem> {
        match self {
            Self::Configured(_) => None,
            Self::Awaited(reason) => Some(AddressProblem::None(*reason)),
            Self::Host(address) if address.is_loopback() || *address == listen || host.is_assigned(*address) => None,
            // Another address replaces it.
            Self::Host(_) if self.follow(listen, host) != *self => None,
            Self::Host(address) => Some(AddressProblem::Lost(*address)),
        }
    }
}

impl fmt::Display for NoAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (listen, family) = (unspecified(self.family), self.family.as_str());
        write!(f, "no address for other hosts: gossip.listen is {listen}, and this host has no {family} default route")
    }
}

impl NoAddress {
    /// Returns what to do.
    pub fn hint(&self) -> String {
        match self.other {
            None => format!("the agent waits for an {} default route; or set `advertise`", self.family.as_str()),
            Some(other) => {
                let listen = unspecified(self.family.other());
                format!("this host has the address {other}: set `gossip.listen` to `{listen}`, or set `advertise`")
            }
        }
    }
}

impl fmt::Display for AddressProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None(reason) => reason.fmt(f),
            Self::Lost(address) => write!(f, "this host no longer has the advertised address {address}"),
        }
    }
}

impl AddressProblem {
    /// Returns what to do.
    pub fn hint(&self) -> String {
        match self {
            Self::None(reason) => reason.hint(),
            Self::Lost(_) => "the agent waits for this or another address with a default route".to_owned(),
        }
    }
}

/// The unspecified address of a family, as in `gossip.listen`.
fn unspecified(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "0.0.0.0",
        Family::Ipv6 => "[::]",
    }
}
