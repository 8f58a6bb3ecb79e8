//! Addresses of external nodes and of their instances. Core.

use std::{collections::BTreeSet, sync::Arc};

use super::host::Hosts;
use crate::{
    model::{
        announcement::{Announcement, InstanceState},
        external_node::ExternalNode,
        followed_host::HostName,
        service::instance_ref::InstanceRef,
    },
    registry::external::Announced,
};

/// Returns the host names of nodes and instances.
pub(super) fn host_names(registered: &Announced) -> BTreeSet<&HostName> {
    let nodes = registered.nodes.values().map(|node| node.host.as_ref());
    let instances = registered.instances.values().map(|known| known.instance.host.as_ref());
    nodes.chain(instances).flatten().map(|host| &host.name).collect()
}

/// Returns nodes and instances with the addresses of their host names. Values that are equal to those in `before` are shared.
pub(super) fn with_addresses(registered: &Announced, hosts: &Hosts, before: &Announced) -> Announced {
    let mut resolved = registered.clone();
    for (name, node) in &registered.nodes {
        if let Some(node) = resolve_node(node, hosts) {
            let former = before.nodes.get(name).filter(|former| ***former == node).cloned();
            resolved.nodes.insert(name.clone(), former.unwrap_or_else(|| Arc::new(node)));
        }
    }
    for known in registered.instances.values() {
        if let Some(known) = resolve_instance(known, hosts) {
            let (key, known) = known.into_entry();
            let former = before.instances.get(&*key).filter(|former| **former == known).cloned();
            let known = former.unwrap_or(known);
            resolved.instances.insert(InstanceRef::from(&known.instance), known);
        }
    }
    resolved
}

fn resolve_node(node: &ExternalNode, hosts: &Hosts) -> Option<ExternalNode> {
    let name = &node.host.as_ref()?.name;
    let host = hosts.get(name)?;
    Some(ExternalNode { addresses: host.addresses.clone(), host: Some(host.followed(name)), ..node.clone() })
}

fn resolve_instance(known: &Announcement, hosts: &Hosts) -> Option<Announcement> {
    let host = hosts.get(&known.instance.host.as_ref()?.name)?;
    let instance = host.resolve(&known.instance);
    // A drain or maintenance is the more important reason.
    let state = match (&known.state, &instance.host) {
        (held @ InstanceState::Withheld(..), _) => held.clone(),
        (_, Some(host)) if instance.addresses.is_empty() => InstanceState::unresolved(host),
        (state, _) => state.clone(),
    };
    Some(Announcement { instance: Arc::new(instance), state, report: known.report.clone() })
}
