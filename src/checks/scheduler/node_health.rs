//! Checks of the node as a whole, and their effect on its instances.

use std::{collections::BTreeSet, sync::Arc};

use tracing::debug;

use super::{Scheduler, tracked::TrackedInstance};
use crate::{
    clock::unix_seconds,
    model::{
        announcement::{CheckReport, HealthReport, HoldReason, InstanceState, NODE_MAINTENANCE, bounded},
        health::Status,
        maintenance::{Maintenance, Scope},
        name::Label,
        service::{Check, Definition, Instance, InstanceKey, Pace},
    },
};

/// Name of the check that shows maintenance of the node, as in Consul.
const MAINTENANCE_NAME: &str = "Node Maintenance Mode";

/// Health of the node.
pub(super) struct NodeHealth {
    pub(super) name: Label,
    /// The checks. The instance of their definition only names the node; it is never announced.
    pub(super) tracked: TrackedInstance,
    /// False before the first checks are loaded.
    pub(super) is_loaded: bool,
    /// Worst status of the checks, with the name and the reason of the first such check.
    pub(super) status: (Status, Arc<str>),
    /// Results to announce; `None`: the node has no checks and is not in maintenance.
    pub(super) report: Option<Arc<HealthReport>>,
}

impl NodeHealth {
    /// Returns a node without checks.
    pub(super) fn new(name: Label) -> Self {
        let definition = definition(&name, &[]);
        let tracked = TrackedInstance::without_checks(definition);
        Self { name, tracked, is_loaded: false, status: (Status::Passing, "".into()), report: None }
    }

    /// Returns a definition with these checks.
    pub(super) fn definition(&self, checks: &[Check]) -> Arc<Definition> {
        definition(&self.name, checks)
    }

    /// Updates status and report. Reports whether the status changed, on which the state of all instances depends.
    pub(super) fn evaluate(&mut self, maintenance: &Maintenance) -> bool {
        let tracked = &mut self.tracked;
        let (status, reason) = tracked.worst_status();
        let state = InstanceState::new(status, reason);
        let worst = tracked.checks.iter().position(|check| check.status == status);
        let name = worst.filter(|_| status != Status::Passing).map(|at| tracked.definition.checks[at].display_name());
        let text = match name {
            Some(name) if reason.is_empty() => bounded(&name),
            Some(name) => bounded(&format!("{name}: {reason}")),
            None => String::new(),
        };
        let before = tracked.state.replace(state.clone());
        if before.is_some_and(|before| std::mem::discriminant(&before) != std::mem::discriminant(&state)) {
            tracked.since = unix_seconds();
        }
        let hold = maintenance.0.get(&(Scope::Node, HoldReason::NodeMaintenance));
        let maintenance = hold.map(|hold| CheckReport {
            id: NODE_MAINTENANCE.into(),
            name: MAINTENANCE_NAME.into(),
            notes: bounded(&hold.reason).into(),
            status: Status::Critical,
            output: bounded(&hold.reason).into(),
            since: hold.since,
        });
        let known = tracked.report(&state);
        let checks = maintenance.into_iter().chain(known.iter().flat_map(|report| report.checks.iter().cloned()));
        let checks: Vec<CheckReport> = checks.collect();
        self.report = (!checks.is_empty()).then(|| Arc::new(HealthReport { since: tracked.since, checks }));
        let status = (status, Arc::from(text));
        let differs = self.status != status;
        self.status = status;
        differs
    }
}

fn definition(name: &Label, checks: &[Check]) -> Arc<Definition> {
    let key = InstanceKey { service: name.clone().into(), id: name.clone() };
    let instance = Arc::new(Instance::new(key, Vec::new()));
    Arc::new(Definition { instance, enabled: true, checks: checks.to_vec(), pace: Pace::default() })
}

impl Scheduler {
    /// Applies the checks of the node.
    pub(super) fn load_node_checks(&mut self, checks: &Arc<[Check]>) {
        let definition = self.node.definition(checks);
        let none = TrackedInstance::without_checks(Arc::clone(&definition));
        let former = std::mem::replace(&mut self.node.tracked, none);
        self.forget_reports(&Scope::Node, &former);
        let tracked = match std::mem::replace(&mut self.node.is_loaded, true) {
            true => self.redefine(&Scope::Node, &definition, former),
            false => self.restore(&Scope::Node, &definition),
        };
        self.remember_reports(&Scope::Node, &tracked);
        self.node.tracked = tracked;
        debug!(checks = checks.len(), "checks of the node loaded");
        self.collect_alias_targets();
        let mut touched = BTreeSet::from([Scope::Node]);
        self.update_aliases(&mut touched);
        self.publish(&touched);
    }
}
