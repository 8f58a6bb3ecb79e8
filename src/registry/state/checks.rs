//! Ids and reports of checks: of the node, and of registered services.

use smol_str::SmolStr;

use super::{MovedCheck, Outcome, State};
use crate::{
    model::{
        maintenance::Scope,
        service::{Definition, Definitions, InstanceKey, MAX_NODE_CHECKS, Probe},
        token::Scope as Permission,
    },
    registry::{
        error::{FieldError, RegistryError},
        registration::{CheckRegistration, Host, ensure_allowed},
    },
};

impl State {
    /// Registers a check of the node.
    pub(super) fn register_node_check(
        &mut self,
        registration: CheckRegistration,
        files: &Definitions,
        host: &Host,
    ) -> Result<Outcome, RegistryError> {
        let refused = |error: FieldError| RegistryError::Refused(error.to_string());
        let mut check = registration.of_node(host).map_err(refused)?;
        ensure_allowed(&check).map_err(refused)?;
        let CheckRegistration { id, body, .. } = registration;
        let known = self.node_checks.get(&id);
        if known.is_none() && self.configured.len() + self.node_checks.len() >= MAX_NODE_CHECKS {
            return Err(RegistryError::Refused(format!(
                "This node has {MAX_NODE_CHECKS} checks of its own, the maximum: deregister some."
            )));
        }
        // An unchanged TTL check must compare equal, or the checks would restart it.
        if let (Some((known, _)), Probe::Ttl { .. }) = (known, &check.probe) {
            check.initial = known.initial;
        }
        let moved = self.take_checks(std::slice::from_ref(&id), None, files, host)?;
        let instances = self.instances_of(&moved);
        let before = self.node_checks.insert(id, (check.clone(), body.clone()));
        let changed = before != Some((check, body)) || !moved.is_empty();
        Ok(Outcome { changed, instances, node: true, moved, ..Outcome::default() })
    }

    /// Takes the checks with these ids from all services but `owner` (`None`: it is the node), as in Consul: a check id is unique
    /// on a node, and its last registration counts. A service cannot take a check of the node.
    pub(super) fn take_checks(
        &mut self,
        ids: &[SmolStr],
        owner: Option<&SmolStr>,
        files: &Definitions,
        host: &Host,
    ) -> Result<Vec<MovedCheck>, RegistryError> {
        let of_file = ids.iter().find(|id| self.is_configured(id) || with_check(files, id).is_some());
        if let Some(id) = of_file {
            return Err(RegistryError::Refused(format!(
                "Check ID {id:?} is that of a check in a file of this node: use another CheckID."
            )));
        }
        if let Some(id) = ids.iter().find(|id| owner.is_some() && self.node_checks.contains_key(*id)) {
            return Err(RegistryError::Refused(format!(
                "Check ID {id:?} is that of a check of the node: use another CheckID, or deregister that check."
            )));
        }
        let mut moved = Vec::new();
        for id in ids {
            let others = self.registered.values_mut().filter(|known| Some(&known.id) != owner);
            for other in others {
                let Some(rest) = other.without_check(id, host) else { continue };
                *other = rest.map_err(|error| RegistryError::Refused(error.to_string()))?;
                moved.push(MovedCheck { id: id.clone(), from: other.id.clone() });
            }
        }
        Ok(moved)
    }

    /// Returns the instances that lost these checks.
    pub(super) fn instances_of(&self, moved: &[MovedCheck]) -> Vec<InstanceKey> {
        let known = moved.iter().filter_map(|moved| self.registered.get(&moved.from));
        known.map(|known| known.definition.instance.key.clone()).collect()
    }

    /// Reports whether the configuration has a check of the node with this id.
    pub(super) fn is_configured(&self, id: &str) -> bool {
        self.configured.iter().any(|check| check.id() == Some(id))
    }

    /// Refuses a change of a check of the node, which withholds all instances, to a client that may not withhold them.
    pub(super) fn ensure_permitted(&self, check: &str, granted: Permission) -> Result<(), RegistryError> {
        let is_of_node = self.node_checks.contains_key(check) || self.is_configured(check);
        if !is_of_node || granted >= Permission::Operate {
            return Ok(());
        }
        Err(RegistryError::Forbidden(format!(
            "scope {} is required for {check:?}, a check of the node; the token has scope {}.",
            Permission::Operate.as_str(),
            granted.as_str()
        )))
    }

    /// Accepts a report to a TTL check, of the node or of a service.
    pub(super) fn report(&self, check: &str, files: &Definitions) -> Result<Outcome, RegistryError> {
        let accepts = |probe: &Probe| match probe {
            Probe::Ttl { .. } => Ok(()),
            _ => Err(RegistryError::Refused(format!("Check {check:?} is not a TTL check and accepts no reports."))),
        };
        if let Some(known) = self.node_checks().iter().find(|known| known.id() == Some(check)) {
            accepts(&known.probe)?;
            return Ok(Outcome { node: true, ttl_report: Some((Scope::Node, check.into())), ..Outcome::default() });
        }
        let definitions = self.definitions(files);
        let (definition, at) = with_check(&definitions, check).ok_or_else(|| unknown_check(check))?;
        accepts(&definition.checks[at].probe)?;
        let key = definition.instance.key.clone();
        let ttl_report = Some((Scope::Instance(key.clone()), check.into()));
        Ok(Outcome { instances: vec![key], ttl_report, ..Outcome::default() })
    }
}

/// Finds the definition with a check of that id, and the index of the check.
pub(super) fn with_check<'a>(all: &'a Definitions, id: &str) -> Option<(&'a Definition, usize)> {
    all.values().find_map(|definition| {
        let at = (0..definition.checks.len()).find(|at| definition.check_id(*at) == id)?;
        Some((&**definition, at))
    })
}

/// Returns the error for an unknown check.
pub(super) fn unknown_check(id: &str) -> RegistryError {
    RegistryError::Unknown(format!("Unknown check ID {id:?}. Ensure that the check ID is passed, not the check name."))
}
