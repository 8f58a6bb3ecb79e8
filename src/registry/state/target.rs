//! Targets of holds, and the instances that a hold on a target withholds.

use super::{State, instance};
use crate::{
    model::{
        announcement::HoldReason,
        maintenance::{HostKind, Scope},
        service::{Definitions, InstanceKey},
    },
    registry::error::RegistryError,
};

/// Target of a hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The node with all its instances.
    Node,
    /// The instance with this id.
    Instance(String),
}

/// Target of a hold or a release, with its instances.
pub(super) struct Found {
    pub(super) scope: Scope,
    /// Instances of the node itself.
    own: Vec<InstanceKey>,
    /// Instances of its external nodes.
    external: Vec<InstanceKey>,
}

impl Found {
    fn own(key: InstanceKey) -> Self {
        Self { scope: Scope::Instance(key.clone()), own: vec![key], external: Vec::new() }
    }

    /// Iterates over all instances, each with the kind of its host.
    pub(super) fn instances(&self) -> impl Iterator<Item = (&InstanceKey, HostKind)> {
        let own = self.own.iter().map(|key| (key, HostKind::Own));
        own.chain(self.external.iter().map(|key| (key, HostKind::External)))
    }

    /// Returns the instances that holds of these kinds on the target withhold.
    pub(super) fn held_by(self, kinds: &[HoldReason]) -> Vec<InstanceKey> {
        let with_external =
            self.scope != Scope::Node || kinds.iter().any(|kind| HostKind::External.is_held_with_node(*kind));
        let external = if with_external { self.external } else { Vec::new() };
        self.own.into_iter().chain(external).collect()
    }
}

impl State {
    /// Finds a target.
    pub(super) fn find(&self, target: &Target, files: &Definitions) -> Result<Found, RegistryError> {
        let all = self.definitions(files);
        match target {
            Target::Node => {
                let own = all.keys().map(|key| InstanceKey::clone(key)).collect();
                // A definition takes precedence over the external instance of its key.
                let external = self.external.keys().filter(|key| !all.contains_key(*key)).cloned().collect();
                Ok(Found { scope: Scope::Node, own, external })
            }
            Target::Instance(id) => {
                if let Some(definition) = instance(&all, id) {
                    return Ok(Found::own(definition.instance.key.clone()));
                }
                let key = self.external.find(id).cloned();
                let key = key.ok_or_else(|| RegistryError::Unknown(self.no_instance(&all, id)))?;
                Ok(Found { scope: Scope::Instance(key.clone()), own: Vec::new(), external: vec![key] })
            }
        }
    }

    /// Finds the holds of an instance that is no longer defined.
    pub(super) fn find_held(&self, target: &Target) -> Option<Found> {
        let Target::Instance(id) = target else { return None };
        let is =
            |key: &&InstanceKey| key.id.as_str().eq_ignore_ascii_case(id) || key.to_string().eq_ignore_ascii_case(id);
        let held = self.maintenance.0.keys().filter_map(|(scope, _)| match scope {
            Scope::Instance(key) => Some(key),
            Scope::Node => None,
        });
        held.into_iter().find(is).cloned().map(Found::own)
    }
}
