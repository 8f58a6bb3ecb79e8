//! Versions of single nodes, which Consul's API shows beside each node.

use std::{collections::BTreeMap, sync::Arc};

use super::{External, View};
use crate::model::{external_node::ExternalNode, name::Label, registered_name::RegisteredName};

/// Versions of the catalog at changes of one node, member or external.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeVersions {
    /// The node was added.
    pub added: u64,
    /// The last change of its own data: addresses, datacenter, zone, metadata.
    pub described: u64,
    /// The last change of its own data, its checks or its freshness.
    pub changed: u64,
}

/// Versions of all nodes, by name. Clones share structure.
#[derive(Clone, Debug, Default)]
pub(super) struct ByNode(imbl::OrdMap<RegisteredName, NodeVersions>);

impl ByNode {
    /// Records a change at `version`. `is_described_alike`: the own data of the node are the same.
    pub(super) fn change(&mut self, name: &RegisteredName, is_described_alike: bool, version: u64) {
        let known = self.0.get(name).copied();
        let before = known.unwrap_or(NodeVersions { added: version, described: version, changed: version });
        let described = if is_described_alike { before.described } else { version };
        self.0.insert(name.clone(), NodeVersions { described, changed: version, ..before });
    }

    /// Forgets a node.
    pub(super) fn remove(&mut self, name: &RegisteredName) {
        self.0.remove(name);
    }

    pub(super) fn of(&self, name: &RegisteredName) -> Option<NodeVersions> {
        self.0.get(name).copied()
    }
}

/// An external node with the datacenter of its owner, which is shown as that of the node.
pub(super) struct Described {
    node: Arc<ExternalNode>,
    datacenter: Option<Label>,
}

impl Described {
    /// Returns the external nodes of these claims, each a name with an owner, as a view has them.
    pub(super) fn all(
        claims: &[(RegisteredName, Label)],
        all: &External,
        view: &View,
    ) -> BTreeMap<RegisteredName, Option<Self>> {
        claims.iter().map(|(name, _)| (name.clone(), Self::of(name, all, view))).collect()
    }

    /// Returns the external node of a name in a view; `None`: no owner announces it.
    pub(super) fn of(name: &RegisteredName, all: &External, view: &View) -> Option<Self> {
        let claim = all.claims(name).first()?;
        let datacenter = view.get(&claim.owner).map(|owner| owner.node.datacenter.clone());
        Some(Self { node: claim.node.clone(), datacenter })
    }

    /// Reports whether two external nodes differ in their checks and in the problem of a lookup at most. A host name is shown
    /// as the address.
    pub(super) fn is_alike(&self, other: &Self) -> bool {
        let (one, two) = (&*self.node, &*other.node);
        let own = |node: &ExternalNode| (node.letter_case.clone(), node.id, node.host_name().cloned());
        self.datacenter == other.datacenter && own(one) == own(two) && one.tagged == two.tagged && one.answers_like(two)
    }
}
