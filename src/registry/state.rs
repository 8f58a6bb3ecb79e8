//! Registrations and holds of this node.
//!
//! Core: applies a change or refuses it. Service files take precedence over registrations, because operators see files;
//! a registration of the same instance is inactive until the file is removed.

mod checks;
mod reap;
mod services;
mod stored;
mod target;
mod unknown_id;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::Value;
use smol_str::SmolStr;

use self::checks::{unknown_check, with_check};
pub use self::{reap::CriticalChecks, target::Target};
use super::{
    error::RegistryError,
    external::{Announced, External},
    registration::{CatalogDeregistration, CatalogRegistration, CheckRegistration, Host, Registration},
};
use crate::model::{
    announcement::HoldReason,
    health::Status,
    maintenance::{Hold, HostKind, Maintenance, Scope},
    registered_name::RegisteredName,
    service::{Check, Definition, Definitions, Instance, InstanceKey},
    token::Scope as Permission,
};

/// Most registered services of a node.
pub const MAX_REGISTERED: usize = 2000;
/// Largest serialized state, in octets; many times the size of [`MAX_REGISTERED`] services. Each change writes the
/// whole state.
pub const MAX_STORED_LEN: usize = 16 << 20;

/// A change requested by a client.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Registers a service, or replaces the one with its id.
    Register {
        /// The registration.
        registration: Box<Registration>,
        /// Removes checks that were registered separately.
        replace_checks: bool,
    },
    /// Deregisters the service with this id.
    Deregister(String),
    /// Registers a check of a registered service or of the node. A check with its id is replaced.
    RegisterCheck(CheckRegistration),
    /// Deregisters the check with this id.
    DeregisterCheck {
        /// Id of the check.
        check: String,
        /// Scope of the client.
        granted: Permission,
    },
    /// Registers a service of this node in the catalog, or replaces one with its id that was registered so. As in Consul, where
    /// the agent restores its own services in the catalog, one that was registered with the agent gets the new tags if it
    /// has `EnableTagOverride`, and stays as it is otherwise.
    RegisterInCatalog(Box<Registration>),
    /// Registers an external node, and services and checks of it.
    RegisterExternal(Box<CatalogRegistration>),
    /// Deregisters an external node, or a service or a check of it.
    DeregisterExternal(CatalogDeregistration),
    /// Reports the status of a TTL check.
    Report {
        /// Scope of the client.
        granted: Permission,
        /// Id of the check.
        check: String,
        /// Reported status.
        status: Status,
        /// Output, for operators.
        output: String,
    },
    /// Withholds the target from answers.
    Hold {
        /// Node or instance.
        target: Target,
        /// Kind of hold.
        kind: HoldReason,
        /// Reason, for operators.
        reason: String,
        /// Time limit; `None`: until released.
        period: Option<Duration>,
    },
    /// Ends holds of the target.
    Release {
        /// Node or instance.
        target: Target,
        /// Kinds of hold that end; empty: all.
        kinds: Vec<HoldReason>,
    },
}

/// Outcome of a change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The instance of a registered service, as it is defined after the change.
    pub defined: Option<Arc<Instance>>,
    /// Affected instances.
    pub instances: Vec<InstanceKey>,
    /// After a release: instances that another hold still withholds.
    pub held: Vec<StillHeld>,
    /// True if the checks of the node are affected.
    pub node: bool,
    /// Checks that have been moved from another service, which lacks them from now on.
    pub moved: Vec<MovedCheck>,
    /// TTL report to pass to the checks: the instance or the node, and the id of the check.
    pub ttl_report: Option<(Scope, SmolStr)>,
    /// Reports whether the stored state has changed.
    pub changed: bool,
    /// Time for which caches may have answers with the instances; zero: no cache has one.
    pub cache_time: Duration,
    /// Announced external nodes after a change of them.
    pub external: Option<Announced>,
}

/// An instance that remains withheld after the release of a hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StillHeld {
    /// The instance.
    pub instance: InstanceKey,
    /// Scope of the other hold.
    pub scope: Scope,
    /// Kind of the other hold.
    pub kind: HoldReason,
}

/// A check that a registration with its id has taken from another service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MovedCheck {
    /// Id of the check.
    pub id: SmolStr,
    /// Id of the service that had it.
    pub from: SmolStr,
}

/// Registrations and holds.
#[derive(Clone, Debug, Default)]
pub struct State {
    registered: BTreeMap<SmolStr, Registration>,
    external: External,
    /// Registered checks of the node, with the bodies of their registrations.
    node_checks: BTreeMap<SmolStr, (Check, Value)>,
    /// Checks of the node in the configuration.
    configured: Arc<[Check]>,
    maintenance: Maintenance,
    /// Greatest TTL, in seconds, of any served answer with an instance of this node that may still be cached.
    greatest_ttl: Option<u32>,
}

impl State {
    /// Returns the holds.
    pub fn maintenance(&self) -> &Maintenance {
        &self.maintenance
    }

    /// Returns the greatest TTL, in seconds, that the previous run may have left in caches.
    pub fn greatest_ttl(&self) -> Option<u32> {
        self.greatest_ttl
    }

    /// Sets the greatest TTL for the next run.
    pub fn set_greatest_ttl(&mut self, greatest: u32) {
        self.greatest_ttl = Some(greatest);
    }

    /// Returns the number of registered services.
    pub fn len(&self) -> usize {
        self.registered.len()
    }

    /// Reports whether no service is registered.
    pub fn is_empty(&self) -> bool {
        self.registered.is_empty()
    }

    /// Merges the definitions of the files with the registrations.
    pub fn definitions(&self, files: &Definitions) -> Definitions {
        let mut all = files.clone();
        for registration in self.registered.values() {
            let instance = &registration.definition.instance;
            if !all.contains_key(&instance.key) {
                all.insert(instance.into(), registration.definition.clone());
            }
        }
        all
    }

    /// Sets the checks of the node in the configuration.
    pub fn set_configured_checks(&mut self, checks: Arc<[Check]>) {
        self.configured = checks;
    }

    /// Returns the checks of the node: those of the configuration, then those of clients.
    pub fn node_checks(&self) -> Arc<[Check]> {
        let registered = self.node_checks.values().map(|(check, _)| check);
        self.configured.iter().chain(registered).cloned().collect()
    }

    /// Applies a change at `now` (Unix seconds), with the current definitions of the files.
    ///
    /// # Errors
    /// The reason for the refusal; the state is unchanged then.
    pub fn apply(
        &mut self,
        change: Change,
        files: &Definitions,
        host: &Host,
        now: u64,
    ) -> Result<Outcome, RegistryError> {
        match change {
            Change::Register { registration, replace_checks } => {
                self.register(*registration, replace_checks, files, host)
            }
            Change::Deregister(id) => {
                let gone = self.registered.remove(id.as_str()).ok_or_else(|| self.not_registered(&id, files))?;
                let key = gone.definition.instance.key.clone();
                self.forget_holds(&key, files);
                Ok(changed(vec![key]))
            }
            Change::RegisterCheck(check) => match &check.service {
                Some(id) => {
                    let known = self.registered.get(id.as_str()).ok_or_else(|| self.not_registered(id, files))?;
                    let next = known.with_check(&check, host).and_then(Registration::with_allowed_targets);
                    self.replace(next, files, host)
                }
                None => self.register_node_check(check, files, host),
            },
            Change::DeregisterCheck { check: id, granted } => {
                self.ensure_permitted(&id, granted)?;
                if self.node_checks.remove(id.as_str()).is_some() {
                    return Ok(Outcome { node: true, changed: true, ..Outcome::default() });
                }
                let mut found = self.registered.values().filter_map(|known| known.without_check(&id, host));
                match found.next() {
                    Some(registration) => self.replace(registration, files, host),
                    None if self.is_configured(&id) => Err(RegistryError::Refused(format!(
                        "Check {id:?} is defined in the configuration: edit checks.node to remove it."
                    ))),
                    None if with_check(files, &id).is_some() => Err(RegistryError::Refused(format!(
                        "Check {id:?} is defined by a service file: edit the file to remove it."
                    ))),
                    None => Err(unknown_check(&id)),
                }
            }
            Change::RegisterInCatalog(registration) => self.register_in_catalog(*registration, files, host),
            Change::RegisterExternal(registration) => {
                let name = registration.name.clone();
                let before = self.external.clone();
                let own = self.definitions(files);
                self.external.register(&registration, host, |key| own.contains_key(key), now)?;
                self.finish_external(&before, &name, files)
            }
            Change::DeregisterExternal(request) => {
                let before = self.external.clone();
                self.external.deregister(&request);
                self.finish_external(&before, &request.name, files)
            }
            Change::Report { check, granted, .. } => {
                self.ensure_permitted(&check, granted)?;
                self.report(&check, files)
            }
            Change::Hold { target, kind, reason, period } => {
                let found = self.find(&target, files)?;
                let until = period.map(|period| now.saturating_add(period.as_secs().max(1)));
                // A repeated hold keeps its start, from which the drain waits.
                let known = self.maintenance.0.get(&(found.scope.clone(), kind));
                let since = known.map_or(now, |known| known.since);
                self.maintenance.0.insert((found.scope.clone(), kind), Hold { reason, since, until });
                Ok(changed(found.held_by(&[kind])))
            }
            Change::Release { target, kinds } => {
                let found = self.find(&target, files);
                let found = found.or_else(|unknown| self.find_held(&target).ok_or(unknown))?;
                let of_scope = self.maintenance.0.keys().filter(|(scope, _)| *scope == found.scope);
                let released: Vec<HoldReason> =
                    of_scope.map(|(_, kind)| *kind).filter(|kind| kinds.is_empty() || kinds.contains(kind)).collect();
                self.maintenance.0.retain(|(scope, kind), _| *scope != found.scope || !released.contains(kind));
                let held = found.instances().filter_map(|(key, host)| self.still_held(key, host)).collect();
                let changed = !released.is_empty();
                Ok(Outcome { instances: found.held_by(&released), held, changed, ..Outcome::default() })
            }
        }
    }

    /// Returns the hold that withholds an instance of the host, if there is one.
    fn still_held(&self, key: &InstanceKey, host: HostKind) -> Option<StillHeld> {
        let (scope, kind, _) = self.maintenance.of(key, host)?;
        Some(StillHeld { instance: key.clone(), scope: scope.clone(), kind })
    }

    /// Returns the registered external nodes.
    pub fn external(&self) -> &External {
        &self.external
    }

    /// Announces outputs of checks of external nodes that are due at `now` (Unix seconds); reports whether there were any.
    pub fn release_outputs(&mut self, now: u64) -> bool {
        self.external.release_outputs(now)
    }

    /// Returns what is announced of the external nodes, as part of which `before` was announced.
    pub fn announced(&self, before: &Announced) -> Announced {
        self.external.announced(&self.maintenance, before)
    }

    fn finish_external(
        &mut self,
        before: &External,
        name: &RegisteredName,
        files: &Definitions,
    ) -> Result<Outcome, RegistryError> {
        let gone: Vec<InstanceKey> =
            before.keys().filter(|key| !self.external.keys().any(|now| now == *key)).cloned().collect();
        for key in &gone {
            self.forget_holds(key, files);
        }
        let instances = gone.into_iter().chain(self.external.keys_on(name)).collect();
        Ok(Outcome { instances, changed: *before != self.external, ..Outcome::default() })
    }

    /// Ends expired holds; reports whether there were any.
    pub fn expire(&mut self, now: u64) -> bool {
        self.maintenance.expire(now)
    }

    /// Removes the holds of a deregistered instance, unless a file defines the instance.
    fn forget_holds(&mut self, key: &InstanceKey, files: &Definitions) {
        if files.contains_key(key) {
            return;
        }
        self.maintenance.0.retain(|(scope, _), _| !matches!(scope, Scope::Instance(held) if held == key));
    }
}

/// Finds a definition by the registered id, else by the instance's label; `SERVICE/ID` resolves ambiguities.
pub fn instance<'a>(all: &'a Definitions, id: &str) -> Option<&'a Definition> {
    let find = |is: &dyn Fn(&Instance) -> bool| all.values().find(|definition| is(&definition.instance));
    let found = find(&|instance| instance.api_id() == id).or_else(|| find(&|instance| instance.is_called(id)));
    found.map(|definition| &**definition)
}

fn changed(instances: Vec<InstanceKey>) -> Outcome {
    Outcome { instances, changed: true, ..Outcome::default() }
}

#[cfg(test)]
mod tests;
