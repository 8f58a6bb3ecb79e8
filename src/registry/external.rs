//! External nodes of which this agent is the owner: what clients registered in the catalog, and what follows from it.
//!
//! Core: applies a registration or refuses it, with the semantics of Consul's catalog. The status of an instance is the worst one of
//! its checks and of the checks of its node, as clients reported them: nothing is probed.

mod check;

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use serde_json::{Map, Value, json};
use smol_str::SmolStr;
use uuid::Uuid;

use self::check::Check;
use super::{
    error::RegistryError,
    registration::{CatalogDeregistration, CatalogRegistration, Host, NodeFields, Part, Registration, ReportedCheck},
};
use crate::{
    model::{
        announcement::{Announcement, Announcements, HealthReport, InstanceState},
        external_node::{ExternalNode, ExternalNodes, MAX_EXTERNAL_INSTANCES, MAX_EXTERNAL_NODES},
        health::{Status, add_up},
        id_label::{external_label_of, label_of},
        maintenance::{HostKind, Maintenance},
        name::Label,
        registered_name::RegisteredName,
        service::{Instance, InstanceKey, MAX_CHECKS},
    },
    record::{MAX_VALUE, external_value_len},
};

/// Ending of the labels of nodes whose name is no label.
const DERIVED: &str = "ext";

/// Registered external nodes, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct External(BTreeMap<RegisteredName, Registered>);

/// An external node with its services and checks.
#[derive(Clone, Debug, PartialEq)]
struct Registered {
    fields: NodeFields,
    /// Services by id.
    services: BTreeMap<SmolStr, Service>,
    /// Checks by id.
    checks: BTreeMap<SmolStr, Check>,
}

#[derive(Clone, Debug, PartialEq)]
struct Service {
    /// As in the body of `agent/service/register`.
    body: Value,
    instance: Arc<Instance>,
    /// Time of the registration: seconds since 1970.
    since: u64,
}

/// What the agent announces of its external nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Announced {
    /// The nodes.
    pub nodes: ExternalNodes,
    /// Their instances.
    pub instances: Announcements,
}

impl External {
    /// Applies `catalog/register` at `now` (seconds since 1970). `is_taken`: another definition of this agent has the key.
    ///
    /// # Errors
    /// The reason for the refusal; nothing is changed then.
    pub fn register(
        &mut self,
        registration: &CatalogRegistration,
        host: &Host,
        is_taken: impl Fn(&InstanceKey) -> bool,
        now: u64,
    ) -> Result<(), RegistryError> {
        let refused = |text: String| Err(RegistryError::Refused(text));
        let name = &registration.name;
        let known = self.0.get(name);
        let mut next = match (known, &registration.node) {
            (Some(known), _) if registration.skips_update => known.clone(),
            (Some(known), Some(fields)) => {
                let id = fields.id.or(known.fields.id);
                Registered { fields: NodeFields { id, ..fields.clone() }, ..known.clone() }
            }
            (None, Some(fields)) => {
                Registered { fields: fields.clone(), services: BTreeMap::new(), checks: BTreeMap::new() }
            }
            (_, None) => {
                return refused(format!("Node {name} is not registered: a new node needs an Address."));
            }
        };
        // As in Consul, a node with a known id and another name is renamed.
        let renamed = next.fields.id.and_then(|id| self.with_id(id, name)).cloned();
        let others = || self.0.iter().filter(|(other, _)| *other != name && Some(*other) != renamed.as_ref());
        if known.is_none() && others().count() >= MAX_EXTERNAL_NODES {
            return refused(format!(
                "This agent has {MAX_EXTERNAL_NODES} external nodes, the maximum: deregister some, or register this one \
                 through another agent."
            ));
        }
        if let Some(body) = &registration.service {
            let (id, service) = next.service(body.clone(), name, host, now)?;
            next.services.insert(id, service);
        }
        for reported in &registration.checks {
            next.report(reported, now)?;
        }
        if known.is_some_and(|known| known.fields.addresses != next.fields.addresses) {
            // Instances without an address of their own follow that of the node.
            next = next.with_current_addresses(name, host)?;
        }
        let instances = next.services.len() + others().map(|(_, other)| other.services.len()).sum::<usize>();
        if instances > MAX_EXTERNAL_INSTANCES {
            return refused(format!(
                "The external nodes of this agent have {MAX_EXTERNAL_INSTANCES} services, the maximum: deregister some, or \
                 register this one through another agent."
            ));
        }
        let mut keys: HashSet<&InstanceKey> = others().flat_map(|(_, other)| other.keys()).collect();
        for (id, service) in &next.services {
            let key = &service.instance.key;
            if !keys.insert(key) || is_taken(key) {
                return refused(format!(
                    "Service ID {id:?} yields the instance {key}, which this agent has already: use another ID."
                ));
            }
        }
        next.ensure_bounds(name)?;
        if let Some(renamed) = renamed {
            self.0.remove(&renamed);
        }
        self.0.insert(name.clone(), next);
        Ok(())
    }

    /// Applies `catalog/deregister`. As in Consul, the removal of a part that does not exist succeeds.
    pub fn deregister(&mut self, request: &CatalogDeregistration) {
        let Some(known) = self.0.get_mut(&request.name) else { return };
        match &request.part {
            Part::Node => drop(self.0.remove(&request.name)),
            Part::Service(id) => {
                known.services.remove(id.as_str());
                known.checks.retain(|_, check| check.reported.service.as_deref() != Some(id.as_str()));
            }
            Part::Check(id) => drop(known.checks.remove(id.as_str())),
        }
    }

    /// Reports whether this agent has registered a node of that name.
    pub fn contains(&self, name: &RegisteredName) -> bool {
        self.0.contains_key(name)
    }

    /// Returns the keys of all instances.
    pub fn keys(&self) -> impl Iterator<Item = &InstanceKey> {
        self.0.values().flat_map(Registered::keys)
    }

    /// Returns the keys of the instances on a node.
    pub fn keys_on(&self, name: &RegisteredName) -> Vec<InstanceKey> {
        self.0.get(name).into_iter().flat_map(Registered::keys).cloned().collect()
    }

    /// Finds an instance by the id of its service, by its label, or by `SERVICE/LABEL`.
    pub fn find(&self, id: &str) -> Option<&InstanceKey> {
        let all = || self.0.values().flat_map(|node| node.services.iter());
        let is_called =
            |key: &InstanceKey| key.id.as_str().eq_ignore_ascii_case(id) || key.to_string().eq_ignore_ascii_case(id);
        let by_label = all().map(|(_, service)| &service.instance.key).find(|key| is_called(key));
        by_label.or_else(|| all().find(|(known, _)| *known == id).map(|(_, service)| &service.instance.key))
    }

    /// Returns the name of another node with this id.
    fn with_id(&self, id: Uuid, name: &RegisteredName) -> Option<&RegisteredName> {
        self.0.iter().find(|(other, known)| *other != name && known.fields.id == Some(id)).map(|(other, _)| other)
    }

    /// Returns what the agent announces, with these holds. Values that are equal to those in `before` are shared.
    pub fn announced(&self, maintenance: &Maintenance, before: &Announced) -> Announced {
        let mut announced = Announced::default();
        for (name, known) in &self.0 {
            let node = Arc::new(known.node(name));
            let former = before.nodes.get(name).filter(|former| **former == node);
            announced.nodes.insert(name.clone(), former.cloned().unwrap_or(node));
            for (id, service) in &known.services {
                let (key, announcement) = known.announcement(name, id, service, maintenance).into_entry();
                let former = before.instances.get(&*key).filter(|former| **former == announcement);
                announced.instances.insert(key, former.cloned().unwrap_or(announcement));
            }
        }
        announced
    }

    /// Announces outputs that are due at `now` (seconds since 1970); reports whether there were any.
    pub fn release_outputs(&mut self, now: u64) -> bool {
        let checks = self.0.values_mut().flat_map(|node| node.checks.values_mut());
        checks.map(|check| check.release_output(now)).filter(|is_released| *is_released).count() > 0
    }

    /// Returns the nodes as JSON, for the stored state.
    pub fn to_values(&self) -> Vec<Value> {
        self.0.iter().map(|(name, known)| known.to_value(name)).collect()
    }

    /// Restores a node of the stored state.
    ///
    /// # Errors
    /// The first part that is invalid; the node is left out then.
    pub fn restore(&mut self, stored: &Value, host: &Host) -> Result<(), RegistryError> {
        let refused = |error: super::error::FieldError| RegistryError::Refused(error.to_string());
        let list = |key: &str| stored.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
        let since = |value: &Value| value.get("Since").and_then(Value::as_u64).unwrap_or(0);
        let mut restored = self.clone();
        let mut registration = CatalogRegistration::read(&without(stored, &["Services", "Checks"])).map_err(refused)?;
        restored.register(&registration, host, |_| false, 0)?;
        registration.skips_update = true;
        for service in list("Services") {
            registration.service = Some(without(&service, &["Since"]));
            restored.register(&registration, host, |_| false, since(&service))?;
        }
        registration.service = None;
        for check in list("Checks") {
            let node = json!({"Node": registration.name.as_str(), "SkipNodeUpdate": true, "Check": check});
            registration.checks = CatalogRegistration::read(&node).map_err(refused)?.checks;
            restored.register(&registration, host, |_| false, since(&check))?;
        }
        *self = restored;
        Ok(())
    }
}

fn without(value: &Value, keys: &[&str]) -> Value {
    let fields = value.as_object().into_iter().flatten();
    let kept = fields.filter(|(key, _)| !keys.contains(&key.as_str()));
    Value::Object(kept.map(|(key, value)| (key.clone(), value.clone())).collect::<Map<_, _>>())
}

impl Registered {
    fn keys(&self) -> impl Iterator<Item = &InstanceKey> {
        self.services.values().map(|service| &service.instance.key)
    }

    fn service(
        &self,
        body: Value,
        name: &RegisteredName,
        host: &Host,
        now: u64,
    ) -> Result<(SmolStr, Service), RegistryError> {
        let own = Host { addresses: self.fields.addresses.clone(), ..host.clone() };
        let read =
            Registration::read(&body, &own).map_err(|error| RegistryError::Refused(format!("Service: {error}")))?;
        let read_instance = Instance::clone(&read.definition.instance);
        let label = external_label_of(&read.id, name, &node_label(name, host));
        let key = InstanceKey { id: label, ..read_instance.key.clone() };
        let instance = Instance { key, external: Some(Box::new(name.clone())), ..read_instance };
        let since = self.services.get(&read.id).map_or(now, |known| known.since);
        Ok((read.id, Service { body, instance: Arc::new(instance), since }))
    }

    fn with_current_addresses(mut self, name: &RegisteredName, host: &Host) -> Result<Self, RegistryError> {
        for (id, known) in std::mem::take(&mut self.services) {
            let (_, service) = self.service(known.body, name, host, known.since)?;
            self.services.insert(id, Service { since: known.since, ..service });
        }
        Ok(self)
    }

    fn report(&mut self, reported: &ReportedCheck, now: u64) -> Result<(), RegistryError> {
        if let Some(service) = &reported.service
            && !self.services.contains_key(service)
        {
            return Err(RegistryError::Refused(format!(
                "Check {:?}: the node has no service with the ID {service:?}: register the service first, or with the check.",
                reported.id
            )));
        }
        let check = Check::new(reported.clone(), self.checks.get(&reported.id), now);
        self.checks.insert(reported.id.clone(), check);
        Ok(())
    }

    fn ensure_bounds(&self, name: &RegisteredName) -> Result<(), RegistryError> {
        let refused = |text: String| Err(RegistryError::Refused(text));
        for id in self.services.keys() {
            if self.checks_of(Some(id)).count() > MAX_CHECKS {
                return refused(format!("Service ID {id:?} has more than {MAX_CHECKS} checks, the maximum."));
            }
        }
        let node = self.node(name);
        if let Err(error) = node.check() {
            return refused(format!("Node {name}: {error}."));
        }
        let octets = external_value_len(&node);
        if octets > MAX_VALUE {
            return refused(format!(
                "Node {name}: nodes exchange at most {MAX_VALUE} octets of an external node with its checks, this one has \
                 {octets}: shorten NodeMeta, TaggedAddresses, and Definition of checks."
            ));
        }
        Ok(())
    }

    /// Returns the checks of a service, or of the node as a whole.
    fn checks_of(&self, service: Option<&SmolStr>) -> impl Iterator<Item = &Check> {
        self.checks.values().filter(move |check| check.reported.service.as_ref() == service)
    }

    fn node(&self, name: &RegisteredName) -> ExternalNode {
        let NodeFields { letter_case, id, addresses, tagged, meta } = self.fields.clone();
        let (addresses, host) = addresses.into_parts();
        let definitions = self.checks.iter().map(|(id, check)| (id.clone(), check.reported.definition.clone()));
        ExternalNode {
            name: name.clone(),
            letter_case,
            id,
            addresses: addresses.into(),
            host,
            tagged,
            meta,
            checks: self.checks_of(None).map(Check::report).collect(),
            definitions: definitions.filter(|(_, definition)| !definition.is_empty()).collect(),
        }
    }

    fn announcement(
        &self,
        name: &RegisteredName,
        id: &SmolStr,
        service: &Service,
        maintenance: &Maintenance,
    ) -> Announcement {
        let own: Vec<&Check> = self.checks_of(Some(id)).collect();
        let of_node: Vec<(&Check, String)> = self
            .checks_of(None)
            .map(|check| (check, format!("check {} of node {name}: {}", check.shown_name(), check.output())))
            .collect();
        let statuses = own.iter().map(|check| (check.reported.status, check.output()));
        let statuses = statuses.chain(of_node.iter().map(|(check, text)| (check.reported.status, text.as_str())));
        let (status, reason) = add_up(statuses);
        let all = || own.iter().copied().chain(of_node.iter().map(|(check, _)| *check));
        let worst = all().filter(|check| check.reported.status == status).map(|check| check.since);
        let since = match status {
            Status::Passing => all().map(|check| check.since).max(),
            Status::Warning | Status::Critical => worst.min(),
        };
        let mut since = since.unwrap_or(service.since).max(service.since);
        let mut state = InstanceState::new(status, reason);
        if let Some((_, kind, hold)) = maintenance.of(&service.instance.key, HostKind::External) {
            state = InstanceState::withheld(kind, &hold.reason);
            since = since.max(hold.since);
        }
        let report = HealthReport { since, checks: own.into_iter().map(Check::report).collect() };
        Announcement { instance: service.instance.clone(), state, report: Some(Arc::new(report)) }
    }

    fn to_value(&self, name: &RegisteredName) -> Value {
        let with_since = |mut value: Value, since: u64| {
            value["Since"] = since.into();
            value
        };
        let NodeFields { letter_case, id, addresses, tagged, meta } = &self.fields;
        json!({
            "Node": letter_case.as_deref().unwrap_or_else(|| name.as_str()),
            "ID": id.map(|id| id.to_string()),
            "Address": addresses.first(),
            "TaggedAddresses": tagged,
            "NodeMeta": meta,
            "Services": self.services.values().map(|known| with_since(known.body.clone(), known.since)).collect::<Vec<_>>(),
            "Checks": self.checks.values().map(|check| with_since(check.to_value(), check.since)).collect::<Vec<_>>(),
        })
    }
}

/// Returns the label that ends the ids of a node's instances: its name, or a label derived from it.
fn node_label(name: &RegisteredName, host: &Host) -> Label {
    let derived = || {
        let ending = Label::parse(DERIVED).unwrap_or_else(|_| host.node.clone());
        label_of(name.as_str(), &ending)
    };
    Label::parse(name.as_str()).unwrap_or_else(|_| derived())
}

#[cfg(test)]
mod tests;
