//! Facts of all files of an import that the conversion of one service depends on.

use std::collections::BTreeMap;

use crate::model::name::Label;

/// Advice for an output that has the name of the host.
pub(super) const PER_HOST: &str = "Import on each host, or pass --node";

/// The label of a node: the first label of a host name.
pub(super) fn node_label(name: &str) -> Option<Label> {
    Label::parse(name.split('.').next().unwrap_or(name)).ok()
}

/// Facts of the whole import that the definition of one service depends on.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// Name of the node that the definitions belong to, as a label.
    pub(super) node: Option<Label>,
    /// True if the name is that of the host, since neither a file nor the user names the node.
    pub(super) is_host_name: bool,
    /// Name of the service of each id.
    pub(super) names: BTreeMap<String, String>,
    /// Id in muster of each id whose service has several instances.
    pub(super) ids: BTreeMap<String, String>,
    /// Number of instances of each service, by its folded name.
    pub(super) instances: BTreeMap<String, usize>,
    /// `dns_config.service_ttl`: a name, or the beginning of names and `*`; with the seconds.
    pub(super) ttls: Vec<(String, u64)>,
    /// True if checks may run commands.
    pub(super) allow_exec: bool,
}

impl Facts {
    /// Reports whether a service has several instances on the node, which need ids of their own.
    pub(super) fn has_several(&self, name: &str) -> bool {
        self.instances.get(&name.to_ascii_lowercase()).is_some_and(|count| *count > 1)
    }

    /// Reports whether ids have the name of the host.
    pub(super) fn ids_have_host_name(&self) -> bool {
        self.is_host_name && self.instances.values().any(|count| *count > 1)
    }

    /// The TTL of a service: its own, else the one of the longest matching prefix.
    pub(super) fn ttl(&self, name: &str) -> Option<u64> {
        let matches = |pattern: &str| match pattern.strip_suffix('*') {
            // `*` alone is the default of all services: `dns.ttl`.
            Some(prefix) => !prefix.is_empty() && name.starts_with(prefix),
            None => pattern == name,
        };
        let best = self
            .ttls
            .iter()
            .filter(|(pattern, _)| matches(pattern))
            .max_by_key(|(pattern, _)| (!pattern.ends_with('*'), pattern.len()));
        best.map(|(_, seconds)| *seconds)
    }
}
