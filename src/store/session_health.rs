//! Sessions that end with the failure of their node or of a check (Consul's `serfHealth` and checks).
//!
//! A node counts as failed only once it has been gone for [`NODE_GRACE`]: a flap of the network, or a restart of the agent, does
//! not cost its locks. A check has thresholds of its own, so its failure counts at once.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use super::session::{Session, SessionId};
use crate::model::{
    announcement::{Announcement, CheckReport},
    catalog::{Catalog, Freshness},
    health::Status,
    name::Label,
    registered_name::RegisteredName,
};

/// Time for which the node of a session must be gone before the session ends.
pub const NODE_GRACE: Duration = Duration::from_secs(10);

/// Nodes of sessions that are gone, with the time at which that was first seen.
#[derive(Clone, Debug, Default)]
pub struct SessionHealth {
    gone: HashMap<String, Duration>,
}

impl SessionHealth {
    /// Returns the sessions that end, each with the reason. `now` is the time since a fixed moment.
    pub fn ended<'a>(
        &mut self,
        now: Duration,
        sessions: impl Iterator<Item = &'a Session>,
        catalog: &Catalog,
    ) -> Vec<(SessionId, String)> {
        let (mut ended, mut gone) = (Vec::new(), HashMap::new());
        let mut reports: HashMap<&str, HashSet<String>> = HashMap::new();
        for session in sessions {
            let node = session.node.as_str();
            if session.ends_with_node && is_gone(catalog, node) {
                let since = *gone.entry(node.to_owned()).or_insert_with(|| self.gone.get(node).copied().unwrap_or(now));
                if now.saturating_sub(since) >= NODE_GRACE {
                    ended.push((session.id, format!("node {node} has failed")));
                    continue;
                }
            }
            let checks = session.node_checks.iter().chain(&session.service_checks);
            let critical = reports.entry(node).or_insert_with(|| critical_checks(catalog, node));
            if let Some(check) = checks.into_iter().find(|check| critical.contains(*check)) {
                ended.push((session.id, format!("check {check} is critical")));
            }
        }
        self.gone = gone;
        ended
    }
}

/// Reports whether a node is not in the catalog, or was declared dead.
fn is_gone(catalog: &Catalog, node: &str) -> bool {
    match catalog.freshness(node) {
        Some(freshness) => freshness == Freshness::Gone,
        // External nodes have no agent: they exist as long as they are registered.
        None => RegisteredName::parse(node).ok().is_none_or(|node| catalog.external(&node).is_none()),
    }
}

/// Returns the ids of the critical checks of a node and of its instances.
fn critical_checks(catalog: &Catalog, node: &str) -> HashSet<String> {
    match Label::parse(node).ok().and_then(|node| catalog.view().get(&node)) {
        Some(view) => {
            let of_node = view.node.checks.iter().flat_map(|report| &report.checks);
            // The agent also announces the instances on its external nodes.
            let own = view.announcements.values().filter(|announcement| announcement.instance.external.is_none());
            critical(of_node.chain(own.flat_map(checks)))
        }
        None => RegisteredName::parse(node).map(|node| external_checks(catalog, &node)).unwrap_or_default(),
    }
}

/// Returns the ids of the critical checks of an external node and of its instances.
fn external_checks(catalog: &Catalog, node: &RegisteredName) -> HashSet<String> {
    let Some(claim) = catalog.external(node) else { return HashSet::new() };
    let announcements = catalog.view().get(&claim.owner).map(|owner| &owner.announcements);
    let instances = catalog.instances_on(node).filter(|(_, owner)| **owner == claim.owner);
    let instances = instances.filter_map(|(key, _)| announcements?.get(key));
    critical(claim.node.checks.iter().chain(instances.flat_map(checks)))
}

fn checks(announcement: &Arc<Announcement>) -> impl Iterator<Item = &CheckReport> {
    announcement.report.iter().flat_map(|report| &report.checks)
}

fn critical<'a>(checks: impl Iterator<Item = &'a CheckReport>) -> HashSet<String> {
    checks.filter(|check| check.status == Status::Critical).map(|check| check.id.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{
        model::{
            announcement::{HealthReport, InstanceState, Node},
            catalog::{NodeView, View},
            external_node::ExternalNode,
            name::label,
            registered_name,
            service::{Instance, InstanceKey},
        },
        store::{key::Revision, session::Behavior},
    };

    fn check(id: &str, status: Status) -> CheckReport {
        CheckReport { id: id.into(), name: id.into(), notes: "".into(), status, output: "".into(), since: 0 }
    }

    /// An instance with one check, on the node that announces it or on an external node.
    fn instance(id: &str, external: Option<&str>, status: Status) -> Announcement {
        let key = InstanceKey { service: label("web").into(), id: label(id) };
        let external = external.map(|name| Box::new(registered_name::name(name)));
        let instance = Instance { external, ..Instance::new(key, vec!["10.0.0.1".parse().unwrap()]) };
        let report = HealthReport { since: 0, checks: vec![check(id, status)] };
        let announcement = Announcement::new(Arc::new(instance), InstanceState::Passing);
        Announcement { report: Some(Arc::new(report)), ..announcement }
    }

    /// The agent `agent` with an instance, which owns the external node `printer` with an instance and a check.
    fn catalog(own: Status, on_external: Status, of_external: Status) -> Catalog {
        let node = Node {
            name: label("agent"),
            addresses: vec!["10.0.0.1".parse().unwrap()],
            datacenter: label("dc1"),
            zone: None,
            meta: Default::default(),
            checks: None,
        };
        let printer = registered_name::name("printer");
        let mut external = ExternalNode::new(printer.clone(), vec!["10.0.0.9".parse().unwrap()]);
        external.checks.push(check("paper", of_external));
        let announcements = [instance("own", None, own), instance("queue", Some("printer"), on_external)];
        let view = NodeView {
            node: Arc::new(node),
            announcements: announcements.into_iter().map(Announcement::into_entry).collect(),
            external: [(printer, Arc::new(external))].into_iter().collect(),
            freshness: Freshness::Live,
        };
        let mut catalog = Catalog::default();
        catalog.update(View::unit(label("agent"), Arc::new(view)));
        catalog
    }

    /// A session of the node with this check, which ends with the node as well.
    fn session(node: &str, check: &str) -> Session {
        Session {
            id: SessionId(Uuid::from_u128(1)),
            name: String::new(),
            node: node.to_owned(),
            ends_with_node: true,
            node_checks: Vec::new(),
            service_checks: vec![check.to_owned()],
            lock_delay: Duration::ZERO,
            behavior: Behavior::Release,
            ttl: None,
            created: Revision(1),
        }
    }

    #[test]
    fn session_ends_with_a_check_of_its_own_node() {
        use Status::{Critical, Passing};
        let cases = [
            ("agent", "own", catalog(Critical, Passing, Passing), true),
            ("agent", "own", catalog(Passing, Critical, Critical), false),
            ("agent", "queue", catalog(Passing, Critical, Passing), false),
            ("agent", "paper", catalog(Passing, Passing, Critical), false),
            ("printer", "queue", catalog(Passing, Critical, Passing), true),
            ("printer", "paper", catalog(Passing, Passing, Critical), true),
            ("printer", "paper", catalog(Critical, Critical, Passing), false),
            ("printer", "own", catalog(Critical, Passing, Passing), false),
            ("missing", "own", catalog(Critical, Passing, Passing), false),
        ];
        for (node, check, catalog, expected) in cases {
            let session = session(node, check);
            let ended = SessionHealth::default().ended(Duration::ZERO, [&session].into_iter(), &catalog);
            assert_eq!(!ended.is_empty(), expected, "check {check} of {node}: {ended:?}");
        }
    }
}
