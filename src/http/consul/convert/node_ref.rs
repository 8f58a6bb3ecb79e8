//! Nodes as Consul's API shows them: members, and external nodes with the agent that announces them. Core: values in, values out.

use std::collections::BTreeMap;

use super::{self as convert, NodeInstance};
use crate::{
    api::catalog::{Check, Node},
    model::{
        announcement::{CheckReport, NODE_CHECK},
        catalog::{Catalog, Claim, Freshness, NodeVersions, NodeView},
        external_node::ExternalNode,
        health::Status,
        name::Label,
        nearest::Place,
        registered_name::RegisteredName,
        service::InstanceKey,
    },
};

/// A node: a member, or an external node.
#[derive(Clone, Copy)]
pub(crate) struct NodeRef<'a> {
    /// The member, or the owner of the external node.
    pub(crate) view: &'a NodeView,
    pub(crate) external: Option<&'a ExternalNode>,
    /// Versions of the catalog at changes of the node.
    pub(crate) versions: NodeVersions,
}

impl<'a> NodeRef<'a> {
    pub(crate) fn member(catalog: &Catalog, view: &'a NodeView) -> Self {
        let versions = catalog.node_versions(&RegisteredName::from(view.node.name.clone()));
        Self { view, external: None, versions }
    }

    /// Returns an external node with its owner.
    pub(super) fn external(catalog: &Catalog, owner: &'a NodeView, node: &'a ExternalNode) -> Self {
        Self { view: owner, external: Some(node), versions: catalog.node_versions(&node.name) }
    }

    fn claimed(catalog: &'a Catalog, claim: &'a Claim) -> Option<Self> {
        let view = catalog.view().get(&claim.owner)?;
        Some(Self::external(catalog, view, &claim.node))
    }

    /// Returns the node of that name.
    pub(crate) fn find(catalog: &'a Catalog, name: &RegisteredName) -> Option<Self> {
        let member = Label::parse(name.as_str()).ok().and_then(|name| catalog.view().get(&name));
        let member = member.map(|view| Self::member(catalog, view));
        member.or_else(|| Self::claimed(catalog, catalog.external(name)?))
    }

    /// Returns all nodes, sorted by name.
    pub(crate) fn all(catalog: &'a Catalog) -> Vec<Self> {
        let members = catalog.view().values().map(|view| Self::member(catalog, view));
        let external = catalog.external_nodes().filter_map(|claim| Self::claimed(catalog, claim));
        let mut all: Vec<Self> = members.chain(external).collect();
        all.sort_by(|one, other| one.name().cmp(other.name()));
        all
    }

    /// Returns the name in the letter case of its registration.
    pub(crate) fn name(&self) -> &'a str {
        self.external.map_or_else(|| self.view.node.name.as_str(), ExternalNode::shown_name)
    }

    /// Returns the datacenter: that of the owner for an external node.
    pub(crate) fn datacenter(&self) -> &'a Label {
        &self.view.node.datacenter
    }

    /// Returns the place of the node: an external node has the datacenter of its owner and no zone.
    pub(crate) fn place(&self) -> Place<'a> {
        if self.external.is_some() { self.view.node.place_of_external() } else { self.view.node.place() }
    }

    pub(crate) fn meta(&self) -> &'a BTreeMap<String, String> {
        self.external.map_or(&self.view.node.meta, |external| &external.meta)
    }

    /// Converts the node.
    pub(crate) fn node(&self) -> Node {
        let Some(external) = self.external else { return convert::node(self.view, self.versions) };
        let address = convert::shown_address(external.host.as_deref(), &external.addresses);
        let addresses = convert::tagged_addresses(&address, &external.addresses);
        Node {
            id: external.id.map_or_else(|| convert::node_id(&external.name), |id| id.to_string()),
            node: self.name().to_owned(),
            address,
            datacenter: self.datacenter().to_string(),
            tagged_addresses: addresses.into_iter().chain(external.tagged.clone()).collect(),
            meta: external.meta.clone(),
            locality: None,
            create_index: self.versions.added,
            modify_index: self.versions.described,
        }
    }

    /// Returns the checks of the node as a whole. Those of an external node are as a client reported them; while its owner is
    /// gone, a critical check says so, because nothing of it is answered.
    pub(crate) fn checks(&self) -> Vec<Check> {
        let Some(external) = self.external else { return convert::node_checks(self) };
        let base = || self.check();
        let mut checks = Vec::new();
        if self.view.freshness == Freshness::Gone {
            let owner = &self.view.node.name;
            checks.push(Check {
                check_id: NODE_CHECK.to_owned(),
                name: "Serf Health Status".to_owned(),
                status: Status::Critical.as_str().to_owned(),
                output: format!("registered through {owner}, which is not live or unreachable"),
                ..base()
            });
        }
        checks.extend(external.checks.iter().map(|known| reported(known, base())));
        checks.iter_mut().for_each(|check| self.add_definition(check));
        checks
    }

    /// Returns a check of the node without its content.
    pub(super) fn check(&self) -> Check {
        let NodeVersions { added, changed, .. } = self.versions;
        Check { node: self.name().to_owned(), create_index: added, modify_index: changed, ..Check::default() }
    }

    /// Adds the definition, which only checks of external nodes have.
    pub(crate) fn add_definition(&self, check: &mut Check) {
        if let Some(definition) = self.external.and_then(|external| external.definitions.get(check.check_id.as_str())) {
            check.definition = serde_json::from_str(definition).unwrap_or_default();
        }
    }

    /// Returns the instances on the node, each once. With a member, those on an external node of its name are listed as well:
    /// they are instances of their services like any other.
    pub(crate) fn instances(&self, catalog: &'a Catalog) -> Vec<NodeInstance<'a>> {
        let Some(external) = self.external else {
            let name = RegisteredName::from(self.view.node.name.clone());
            return self.own_instances(catalog).chain(external_instances(catalog, &name)).collect();
        };
        external_instances(catalog, &external.name).collect()
    }

    /// Returns the instances of the agent of a member.
    pub(crate) fn own_instances(&self, catalog: &'a Catalog) -> impl Iterator<Item = NodeInstance<'a>> + use<'a> {
        let host = *self;
        let own = host.view.announcements.values().filter(|known| known.instance.external.is_none());
        own.map(move |announcement| {
            let version = version(catalog, &announcement.instance.key);
            NodeInstance { host, announcement, version }
        })
    }
}

/// Returns the instances on an external node. Of the instances with one id, the one counts that the catalog counts.
fn external_instances<'a>(catalog: &'a Catalog, name: &RegisteredName) -> impl Iterator<Item = NodeInstance<'a>> {
    let mut found: BTreeMap<&InstanceKey, NodeInstance<'a>> = BTreeMap::new();
    let external = catalog.claims(name).first().map(|claim| &*claim.node);
    for (key, owner) in catalog.instances_on(name) {
        let (Some(node), Some(view)) = (external, catalog.view().get(owner)) else { continue };
        let Some(announcement) = view.announcements.get(key) else { continue };
        let host = NodeRef::external(catalog, view, node);
        let instance = NodeInstance { host, announcement, version: version(catalog, key) };
        let order = |known: &NodeInstance<'_>| (known.host.view.freshness, known.host.view.node.name.clone());
        if found.get(key).is_none_or(|known| order(&instance) < order(known)) {
            found.insert(key, instance);
        }
    }
    found.into_values()
}

fn version(catalog: &Catalog, key: &InstanceKey) -> u64 {
    catalog.service(&key.service).map_or(catalog.versions().all, |service| service.version())
}

fn reported(known: &CheckReport, base: Check) -> Check {
    Check {
        check_id: known.id.to_string(),
        name: known.name.to_string(),
        notes: known.notes.to_string(),
        status: known.status.as_str().to_owned(),
        output: known.output.to_string(),
        ..base
    }
}
