//! Sessions that end with the failure of their node or of a check (Consul's `serfHealth` and checks).
//!
//! A node counts as failed only once it has been gone for [`NODE_GRACE`]: a flap of the network, or a restart of the agent, does
//! not cost its locks. A check has thresholds of its own, so its failure counts at once.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use super::session::{Session, SessionId};
use crate::model::{
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
    let known = Label::parse(node).ok().and_then(|node| catalog.view().get(&node).map(|view| view.freshness));
    match known {
        Some(freshness) => freshness == Freshness::Gone,
        // External nodes have no agent: they exist as long as they are registered.
        None => RegisteredName::parse(node).ok().is_none_or(|node| catalog.external(&node).is_none()),
    }
}

/// Returns the ids of the critical checks of a node and of its instances.
fn critical_checks(catalog: &Catalog, node: &str) -> HashSet<String> {
    let Some(view) = Label::parse(node).ok().and_then(|node| catalog.view().get(&node)) else { return HashSet::new() };
    let of_node = view.node.checks.iter();
    let of_instances = view.announcements.values().filter_map(|announcement| announcement.report.as_ref());
    let checks = of_node.chain(of_instances).flat_map(|report| &report.checks);
    checks.filter(|check| check.status == Status::Critical).map(|check| check.id.to_string()).collect()
}
