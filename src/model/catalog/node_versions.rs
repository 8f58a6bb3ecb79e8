//! Versions of single nodes, which Consul's API shows beside each node.

use crate::model::{external_node::ExternalNode, registered_name::RegisteredName};

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

/// Reports whether two external nodes differ in their checks at most.
pub(super) fn is_described_alike(one: &ExternalNode, other: &ExternalNode) -> bool {
    let own = |node: &ExternalNode| (node.letter_case.clone(), node.id);
    own(one) == own(other) && one.tagged == other.tagged && one.answers_like(other)
}
