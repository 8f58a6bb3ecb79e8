//! Index of the instances by address.

use std::{cmp::Ordering, net::IpAddr, ops::RangeInclusive, sync::Arc};

use crate::model::{
    announcement::Node,
    name::Label,
    service::{Instance, InstanceKey},
};

/// Instances by address, whatever their state. Clones share structure; the cost of a change does not depend on the number
/// of instances at an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses(pub(super) imbl::OrdSet<Announced>);

/// An instance at an address, or the address alone, which sorts before all its instances. The names are in the instance and
/// the node, which the catalog shares: copies of them would be the larger part of this index.
#[derive(Clone, Debug)]
pub(super) struct Announced {
    pub(super) address: IpAddr,
    pub(super) by: Option<(Arc<Instance>, Arc<Node>)>,
}

impl Announced {
    fn order(&self) -> (IpAddr, Option<(&InstanceKey, &Label)>) {
        (self.address, self.by.as_ref().map(|(instance, node)| (&instance.key, &node.name)))
    }
}

impl PartialEq for Announced {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}

impl Eq for Announced {}

impl PartialOrd for Announced {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Announced {
    fn cmp(&self, other: &Self) -> Ordering {
        self.order().cmp(&other.order())
    }
}

impl Addresses {
    /// Iterates over the instances at an address, in order. An instance announced by two nodes occurs twice.
    pub fn at(&self, address: IpAddr) -> impl Iterator<Item = &InstanceKey> {
        let from = Announced { address, by: None };
        let here = self.0.range(from..).take_while(move |announced| announced.address == address);
        here.filter_map(|announced| announced.by.as_ref().map(|(instance, _)| &instance.key))
    }

    /// Returns the addresses of all instances in order, each once.
    pub fn all(&self) -> impl Iterator<Item = IpAddr> {
        let mut last = None;
        let addresses = self.0.iter().map(|announced| announced.address);
        addresses.filter(move |address| last.replace(*address) != Some(*address))
    }

    /// Reports whether an instance has an address of that range.
    pub fn any_in(&self, addresses: &RangeInclusive<IpAddr>) -> bool {
        let from = Announced { address: *addresses.start(), by: None };
        self.0.range(from..).next().is_some_and(|announced| announced.address <= *addresses.end())
    }
}
