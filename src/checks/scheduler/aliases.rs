//! Alias checks: their targets, and the instances that change with them.

use std::collections::{BTreeSet, HashMap};

use super::{Scheduler, tracked::TrackedInstance};
use crate::{
    checks::alias,
    model::{
        maintenance::Scope,
        service::{AliasTarget, InstanceKey},
    },
};

impl Scheduler {
    pub(super) fn collect_alias_targets(&mut self) {
        let all = self.instances.values().chain([&self.node.tracked]);
        self.alias_targets = all.flat_map(TrackedInstance::aliases).cloned().collect();
    }

    /// Reports whether an alias may name the instance or the node.
    pub(super) fn is_alias_target(&self, scope: &Scope) -> bool {
        if self.alias_targets.is_empty() {
            return false;
        }
        let Scope::Instance(key) = scope else { return self.alias_targets.contains(&AliasTarget::Node) };
        let registered = |text: &str| self.alias_targets.contains(&AliasTarget::Registered(text.into()));
        let instance = self.instances.get(key).map(|tracked| &tracked.definition.instance);
        self.alias_targets.contains(&AliasTarget::Service(key.service.clone()))
            || registered(key.service.as_str())
            || instance.is_some_and(|instance| registered(instance.service_name()) || registered(instance.api_id()))
    }

    /// Publishes an instance with a changed check, and those with aliases of its service.
    pub(super) fn publish_with_aliases(&mut self, scope: Scope) {
        let is_target = self.is_alias_target(&scope);
        let mut touched = BTreeSet::from([scope]);
        if is_target {
            self.update_aliases(&mut touched);
        }
        self.publish(&touched);
    }

    /// Updates all alias checks and adds the changed instances to `touched`.
    pub(super) fn update_aliases(&mut self, touched: &mut BTreeSet<Scope>) {
        if self.alias_targets.is_empty() {
            return;
        }
        let evaluated: HashMap<_, _> = {
            let members = self.instances.values().map(TrackedInstance::as_member);
            let node = alias::Member { instance: None, ..self.node.tracked.as_member() };
            let members: Vec<_> = members.chain([node]).collect();
            alias::evaluate(&members).into_iter().map(|(target, status)| (target.clone(), status)).collect()
        };
        let instances = self.instances.iter_mut().map(|(key, tracked)| (Some(key), tracked));
        for (key, tracked) in instances.chain([(None, &mut self.node.tracked)]) {
            let scope = || key.map_or(Scope::Node, |key| Scope::Instance(InstanceKey::clone(key)));
            for (check, check_state) in tracked.definition.checks.iter().zip(&mut tracked.checks) {
                let Some(target) = check.probe.alias() else { continue };
                let Some((status, reason)) = evaluated.get(target) else { continue };
                if check_state.status != *status || *check_state.reason != **reason {
                    check_state.set_status(&scope(), check, *status, reason.as_str().into(), &self.metrics);
                    touched.insert(scope());
                }
            }
        }
    }
}
