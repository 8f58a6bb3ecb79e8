//! What clients of the HTTP API changed on this node: services that they registered, and what they hold back.
//!
//! Core: a change in, the new state or a refusal out. What service files define goes before what is registered, since a
//! file is what its operator sees; a registration of the same instance waits until the file is gone.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};
use smol_str::SmolStr;

use super::{
    error::{FieldError, RegistryError},
    registration::{CheckRegistration, Host, Registration},
};
use crate::model::{
    announcement::{Announcements, HoldReason, InstanceState},
    health::Status,
    maintenance::{Hold, Maintenance, Scope},
    service::{Definition, Definitions, InstanceKey, Probe},
};

/// Services that may be registered on one node: as many as one node is meant to carry.
pub const MAX_REGISTERED: usize = 2000;
/// Octets of all that is kept: many times what as many services have. It is written whole with each change.
pub const MAX_KEPT: usize = 16 << 20;
/// The version of what is stored.
const FORMAT: u64 = 1;

/// A change that a client asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Add a service, or replace the one of its id.
    Register {
        /// What a client sent.
        registration: Box<Registration>,
        /// Whether checks that were added to the one before go with it.
        only_these_checks: bool,
    },
    /// Take a service away; holds its id.
    Deregister(String),
    /// Add a check to a registered service, or replace the one of its id.
    RegisterCheck(CheckRegistration),
    /// Take a check away; holds its id.
    DeregisterCheck(String),
    /// A ttl check's application reports.
    Report {
        /// The check's id.
        check: String,
        /// What it reports.
        status: Status,
        /// For people.
        output: String,
    },
    /// Hold something back.
    Hold {
        /// What.
        target: Target,
        /// Why, in one word.
        gate: HoldReason,
        /// Why, for people.
        reason: String,
        /// For how long; `None`: until it is released.
        period: Option<Duration>,
    },
    /// Give it back.
    Release {
        /// What.
        target: Target,
        /// What it was held back for; empty: whatever it was.
        gates: Vec<HoldReason>,
    },
}

/// What a client means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The node with all its instances.
    Node,
    /// The instance of this id.
    Instance(String),
}

/// What came of a change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The instances that it is about.
    pub instances: Vec<InstanceKey>,
    /// A report to be passed on to the checks.
    pub beat: Option<(InstanceKey, SmolStr)>,
    /// Whether what is kept over a restart is another now.
    pub changed: bool,
    /// For how long answers with them may be in caches, where they were held; zero: nobody has one.
    pub left: Duration,
}

/// What is registered and held.
#[derive(Clone, Debug, Default)]
pub struct State {
    registered: BTreeMap<SmolStr, Registration>,
    maintenance: Maintenance,
    /// Seconds: the greatest TTL of any answer with an instance of this node that a cache may have; `None`: none was given.
    greatest_ttl: Option<u32>,
}

impl State {
    /// What is held.
    pub fn maintenance(&self) -> &Maintenance {
        &self.maintenance
    }

    /// The greatest TTL, in seconds, that the run before may have left in caches.
    pub fn greatest_ttl(&self) -> Option<u32> {
        self.greatest_ttl
    }

    /// Keeps it for the next run.
    pub fn set_greatest_ttl(&mut self, greatest: u32) {
        self.greatest_ttl = Some(greatest);
    }

    /// How many services are registered.
    pub fn len(&self) -> usize {
        self.registered.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.registered.is_empty()
    }

    /// What the files define, and what is registered beside it.
    pub fn definitions(&self, files: &Definitions) -> Definitions {
        let mut all = files.clone();
        for registration in self.registered.values() {
            let key = &registration.definition.instance.key;
            if !all.contains_key(key) {
                all.insert(key.clone(), registration.definition.clone());
            }
        }
        all
    }

    /// Makes a change at that time (seconds since 1970), with what the files define now.
    ///
    /// # Errors
    /// Why it is not made; nothing has changed then.
    pub fn apply(
        &mut self,
        change: Change,
        files: &Definitions,
        host: &Host,
        now: u64,
    ) -> Result<Outcome, RegistryError> {
        match change {
            Change::Register { registration, only_these_checks } => {
                self.register(*registration, only_these_checks, files, host)
            }
            Change::Deregister(id) => {
                let gone = self.registered.remove(id.as_str()).ok_or_else(|| self.no_registered(&id, files))?;
                let key = gone.definition.instance.key.clone();
                self.forget_holds(&key, files);
                Ok(changed(vec![key]))
            }
            Change::RegisterCheck(check) => {
                let id = check.service.clone();
                let known = self.registered.get(id.as_str()).ok_or_else(|| self.no_registered(&id, files))?;
                self.replace(known.with_check(&check, host))
            }
            Change::DeregisterCheck(id) => {
                let mut found = self.registered.values().filter_map(|known| known.without_check(&id, host));
                match found.next() {
                    Some(registration) => self.replace(registration),
                    None if with_check(files, &id).is_some() => Err(RegistryError::Refused(format!(
                        "The check {id:?} is defined by a service file: edit the file to remove it."
                    ))),
                    None => Err(unknown_check(&id)),
                }
            }
            Change::Report { check, status, .. } => self.report(&check, status, files),
            Change::Hold { target, gate, reason, period } => {
                let (scope, instances) = self.find(&target, files)?;
                let until = period.map(|period| now.saturating_add(period.as_secs().max(1)));
                // Held again is held on: what it waits for began with the first.
                let known = self.maintenance.0.get(&(scope.clone(), gate));
                let since = known.map_or(now, |known| known.since);
                self.maintenance.0.insert((scope, gate), Hold { reason, since, until });
                Ok(changed(instances))
            }
            Change::Release { target, gates } => {
                let found = self.find(&target, files);
                let (scope, instances) = found.or_else(|unknown| self.find_held(&target).ok_or(unknown))?;
                let before = self.maintenance.0.len();
                self.maintenance
                    .0
                    .retain(|(held, gate), _| *held != scope || !(gates.is_empty() || gates.contains(gate)));
                Ok(Outcome { instances, changed: self.maintenance.0.len() != before, ..Outcome::default() })
            }
        }
    }

    /// Ends what has run out; whether there was anything.
    pub fn expire(&mut self, now: u64) -> bool {
        self.maintenance.expire(now)
    }

    /// Takes away what has been critical for longer than its registration allows; the ids. Where a file defines the instance
    /// it is the file's that is critical, and the registration waits.
    pub fn reap(&mut self, announced: &Announcements, files: &Definitions, now: u64) -> Vec<SmolStr> {
        let mut gone = Vec::new();
        self.registered.retain(|id, registration| {
            let Some(after) = registration.deregister_after else { return true };
            let key = &registration.definition.instance.key;
            let known = announced.get(key).filter(|_| !files.contains_key(key));
            let critical = known.filter(|known| matches!(known.standing, InstanceState::Critical(_)));
            let since = critical.and_then(|known| Some(known.report.as_ref()?.since));
            let stays = since.is_none_or(|since| now < since.saturating_add(after.as_secs()));
            if !stays {
                gone.push((id.clone(), registration.definition.instance.key.clone()));
            }
            stays
        });
        for (_, key) in &gone {
            self.forget_holds(key, files);
        }
        gone.into_iter().map(|(id, _)| id).collect()
    }

    /// Whether any registration may be taken away for being critical.
    pub fn may_reap(&self) -> bool {
        self.registered.values().any(|registration| registration.deregister_after.is_some())
    }

    fn register(
        &mut self,
        registration: Registration,
        only_these_checks: bool,
        files: &Definitions,
        host: &Host,
    ) -> Result<Outcome, RegistryError> {
        let key = registration.definition.instance.key.clone();
        if files.contains_key(&key) {
            return Err(RegistryError::Refused(format!(
                "A service file defines the instance {key} already: give the service another ID, or remove the file."
            )));
        }
        let is_other = |known: &&Registration| known.id != registration.id && known.definition.instance.key == key;
        if let Some(other) = self.registered.values().find(is_other) {
            return Err(RegistryError::Refused(format!(
                "The instance {key} is registered already, by the ID {:?}: give the service another ID, or deregister that one.",
                other.id
            )));
        }
        let before = self.registered.get(&registration.id);
        if before.is_none() && self.registered.len() >= MAX_REGISTERED {
            return Err(RegistryError::Refused(format!(
                "{MAX_REGISTERED} services are registered on this node, which is as many as may be: deregister some."
            )));
        }
        let next = match before {
            Some(before) => registration.instead_of(before, only_these_checks, host),
            None => Ok(registration),
        };
        let next = next.map_err(|fault| RegistryError::Refused(fault.to_string()))?;
        self.check_ids_are_free(&next)?;
        let before = self.registered.insert(next.id.clone(), next.clone());
        if let Some(old) = before.as_ref().map(|before| &before.definition.instance.key).filter(|old| **old != key) {
            self.forget_holds(old, files);
        }
        Ok(Outcome { changed: before.as_ref() != Some(&next), instances: vec![key], ..Outcome::default() })
    }

    /// What was held of an instance that is no longer registered, unless a file defines it: then it is still there.
    fn forget_holds(&mut self, key: &InstanceKey, files: &Definitions) {
        if files.contains_key(key) {
            return;
        }
        self.maintenance.0.retain(|(scope, _), _| !matches!(scope, Scope::Instance(held) if held == key));
    }

    fn replace(&mut self, registration: Result<Registration, FieldError>) -> Result<Outcome, RegistryError> {
        let registration = registration.map_err(|fault| RegistryError::Refused(fault.to_string()))?;
        self.check_ids_are_free(&registration)?;
        let key = registration.definition.instance.key.clone();
        self.registered.insert(registration.id.clone(), registration);
        Ok(changed(vec![key]))
    }

    fn report(&mut self, check: &str, status: Status, files: &Definitions) -> Result<Outcome, RegistryError> {
        let definitions = self.definitions(files);
        let (definition, at) = with_check(&definitions, check).ok_or_else(|| unknown_check(check))?;
        if !matches!(definition.checks[at].probe, Probe::Ttl { .. }) {
            return Err(RegistryError::Refused(format!(
                "The check {check:?} is not of the kind TTL: muster asks for itself how it stands."
            )));
        }
        let key = definition.instance.key.clone();
        let mut changed = false;
        if let Some(known) = self.registered.get_mut(definition.instance.api_id()) {
            let next = known.in_status(check, status);
            changed = next.body != known.body;
            *known = next;
        }
        let beat = Some((key.clone(), check.into()));
        Ok(Outcome { instances: vec![key], beat, changed, ..Outcome::default() })
    }

    fn find(&self, target: &Target, files: &Definitions) -> Result<(Scope, Vec<InstanceKey>), RegistryError> {
        let all = self.definitions(files);
        match target {
            Target::Node => Ok((Scope::Node, all.keys().cloned().collect())),
            Target::Instance(id) => {
                let key = instance(&all, id).map(|definition| definition.instance.key.clone());
                let key = key.ok_or_else(|| RegistryError::Unknown(no_instance(&all, id)))?;
                Ok((Scope::Instance(key.clone()), vec![key]))
            }
        }
    }

    /// What is held of an instance that nobody defines any more.
    fn find_held(&self, target: &Target) -> Option<(Scope, Vec<InstanceKey>)> {
        let Target::Instance(id) = target else { return None };
        let is =
            |key: &&InstanceKey| key.id.as_str().eq_ignore_ascii_case(id) || key.to_string().eq_ignore_ascii_case(id);
        let held = self.maintenance.0.keys().filter_map(|(scope, _)| match scope {
            Scope::Instance(key) => Some(key),
            Scope::Node => None,
        });
        let key = held.into_iter().find(is)?.clone();
        Some((Scope::Instance(key.clone()), vec![key]))
    }

    /// Reports name a check by its id alone, so that no two services may have one of the same.
    fn check_ids_are_free(&self, next: &Registration) -> Result<(), RegistryError> {
        let ids = |known: &Registration| {
            let definition = known.definition.clone();
            (0..definition.checks.len()).map(move |at| definition.check_id(at)).collect::<Vec<_>>()
        };
        let own = ids(next);
        for other in self.registered.values().filter(|known| known.id != next.id) {
            if let Some(id) = ids(other).iter().find(|id| own.contains(id)) {
                return Err(RegistryError::Refused(format!(
                    "The check ID {:?} belongs to the service {:?}: give this one another CheckID.",
                    id, other.id
                )));
            }
        }
        Ok(())
    }

    fn no_registered(&self, id: &str, files: &Definitions) -> RegistryError {
        match instance(files, id) {
            Some(definition) => RegistryError::Refused(format!(
                "The instance {} is defined by a service file: edit or delete the file.",
                definition.instance.key
            )),
            None => RegistryError::Unknown(format!(
                "Unknown service ID {id:?}. Ensure that the service ID is passed, not the service name."
            )),
        }
    }
}

/// The definition of that id: as a client registered it, or the instance's own; `SERVICE/ID` where that is not enough.
pub fn instance<'a>(all: &'a Definitions, id: &str) -> Option<&'a Definition> {
    let is = |definition: &&Definition| {
        let key = &definition.instance.key;
        let own = key.id.as_str();
        definition.instance.api_id() == id
            || own.eq_ignore_ascii_case(id)
            || id.split_once('/').is_some_and(|(service, id)| {
                key.service.as_str().eq_ignore_ascii_case(service) && own.eq_ignore_ascii_case(id)
            })
    };
    all.values().map(|definition| &**definition).find(is)
}

/// The definition that has a check of that id, and which of its checks it is.
fn with_check<'a>(all: &'a Definitions, id: &str) -> Option<(&'a Definition, usize)> {
    all.values().find_map(|definition| {
        let at = (0..definition.checks.len()).find(|at| definition.check_id(*at) == id)?;
        Some((&**definition, at))
    })
}

fn unknown_check(id: &str) -> RegistryError {
    RegistryError::Unknown(format!("Unknown check ID {id:?}. Ensure that the check ID is passed, not the check name."))
}

fn changed(instances: Vec<InstanceKey>) -> Outcome {
    Outcome { instances, changed: true, ..Outcome::default() }
}

impl State {
    /// The state as a text to be kept.
    pub fn to_text(&self) -> String {
        let services: Vec<&Value> = self.registered.values().map(|registration| &registration.body).collect();
        let holds: Vec<Value> =
            self.maintenance.0.iter().map(|((scope, gate), hold)| hold_value(scope, *gate, hold)).collect();
        let mut all = json!({"format": FORMAT, "services": services, "holds": holds});
        if let Some(ttl) = self.greatest_ttl {
            all["greatest_ttl"] = ttl.into();
        }
        format!("{all:#}\n")
    }

    /// Reads what [`to_text`](Self::to_text) wrote. What of it cannot be read is left out, and told.
    pub fn parse(text: &str, host: &Host) -> (Self, Vec<String>) {
        let mut state = Self::default();
        let mut lost = Vec::new();
        let stored: Value = match serde_json::from_str(text) {
            Ok(stored) => stored,
            Err(error) => return (state, vec![error.to_string()]),
        };
        if stored.get("format") != Some(&FORMAT.into()) {
            lost.push(format!("it is not of the format {FORMAT}, which this version writes"));
        }
        let list = |key: &str, lost: &mut Vec<String>| match stored.get(key) {
            Some(Value::Array(items)) => items.clone(),
            _ => {
                lost.push(format!("{key}: it is no list"));
                Vec::new()
            }
        };
        let (services, holds) = (list("services", &mut lost), list("holds", &mut lost));
        for body in services {
            match Registration::read(&body, host) {
                Ok(registration) => drop(state.registered.insert(registration.id.clone(), registration)),
                Err(fault) => lost.push(fault.to_string()),
            }
        }
        for value in holds {
            match read_hold(&value) {
                Some((scope, gate, hold)) => drop(state.maintenance.0.insert((scope, gate), hold)),
                None => lost.push(format!("what is held back: {value}")),
            }
        }
        let ttl = stored.get("greatest_ttl").and_then(Value::as_u64);
        state.greatest_ttl = ttl.and_then(|ttl| u32::try_from(ttl).ok());
        (state, lost)
    }
}

fn hold_value(scope: &Scope, gate: HoldReason, hold: &Hold) -> Value {
    let mut value = json!({"gate": gate.as_str(), "reason": hold.reason, "since": hold.since, "until": hold.until});
    if let Scope::Instance(key) = scope {
        value["service"] = key.service.as_str().into();
        value["id"] = key.id.as_str().into();
    }
    value
}

fn read_hold(value: &Value) -> Option<(Scope, HoldReason, Hold)> {
    use crate::model::name::Label;
    let text = |key: &str| value.get(key).and_then(Value::as_str);
    let gate = HoldReason::ALL.into_iter().find(|gate| text("gate") == Some(gate.as_str()))?;
    let scope = match text("service") {
        None => Scope::Node,
        Some(service) => {
            Scope::Instance(InstanceKey { service: Label::parse(service).ok()?, id: Label::parse(text("id")?).ok()? })
        }
    };
    let hold = Hold {
        reason: text("reason").unwrap_or_default().to_owned(),
        since: value.get("since").and_then(Value::as_u64).unwrap_or(0),
        until: value.get("until").and_then(Value::as_u64),
    };
    Some((scope, gate, hold))
}

/// What to say to who means an instance that is not here: it may be a service that they name.
fn no_instance(all: &Definitions, id: &str) -> String {
    let of_service = all.keys().filter(|key| key.service.as_str().eq_ignore_ascii_case(id));
    let here: Vec<&str> = of_service.map(|key| key.id.as_str()).collect();
    match here[..] {
        [] => format!(
            "This node has no instance {id:?}: ask the agent of the node that has it (`muster explain` says which)."
        ),
        [one] => format!("{id:?} is a service: its instance on this node is {one}."),
        _ => format!("{id:?} is a service: its instances on this node are {}.", here.join(", ")),
    }
}

#[cfg(test)]
mod tests;
