//! Errors for ids that a change cannot apply to: what the id denotes instead, and the request or command for that.

use smol_str::SmolStr;

use super::{State, instance};
use crate::{
    model::{maintenance::Maintenance, registered_name::RegisteredName, service::Definitions},
    registry::{error::RegistryError, external::Announced},
};

impl State {
    /// Returns the error for a service that no client has registered with this agent.
    pub(super) fn not_registered(&self, id: &str, files: &Definitions) -> RegistryError {
        if let Some(definition) = instance(files, id) {
            return RegistryError::Refused(format!(
                "Instance {} is defined by a service file: edit or delete the file.",
                definition.instance.key
            ));
        }
        let requests = "PUT /v1/catalog/register and /v1/catalog/deregister change it";
        if let Some((node, service)) = self.on_external_node(id) {
            return RegistryError::Unknown(format!(
                "Service ID {service:?} is registered on the external node {node}: {requests}, with \"Node\": {node:?} and \
                 \"ServiceID\": {service:?}."
            ));
        }
        if let Some(node) = self.external_node(id) {
            return RegistryError::Unknown(format!("{id:?} is an external node: {requests}, with \"Node\": {node:?}."));
        }
        RegistryError::Unknown(format!(
            "Unknown service ID {id:?}. Ensure that the service ID is passed, not the service name."
        ))
    }

    /// Returns the error for an unknown instance; the id may be the name of a service or of an external node.
    pub(super) fn no_instance(&self, all: &Definitions, id: &str) -> String {
        let of_service =
            all.keys().filter(|key| key.service.as_str().eq_ignore_ascii_case(id)).map(|key| key.id.as_str());
        let of_external = self.external.keys().filter(|key| key.service.as_str().eq_ignore_ascii_case(id));
        let here: Vec<&str> = of_service.chain(of_external.map(|key| key.id.as_str())).collect();
        match here[..] {
            [] => {}
            [one] => return format!("{id:?} is a service: its instance on this node is {one}."),
            _ => return format!("{id:?} is a service: its instances on this node are {}.", here.join(", ")),
        }
        let Some(node) = self.external_node(id) else {
            return format!("Unknown instance {id:?} on this node. `muster explain` shows the node that has it.");
        };
        let keys = RegisteredName::parse(id).map(|name| self.external.keys_on(&name)).unwrap_or_default();
        let here: Vec<&str> = keys.iter().map(|key| key.id.as_str()).collect();
        match here[..] {
            [] => format!("{node:?} is an external node without services."),
            [one] => format!("{node:?} is an external node: its instance is {one}."),
            _ => format!("{node:?} is an external node: its instances are {}; name each.", here.join(", ")),
        }
    }

    /// Returns the name of the external node of this agent that `id` denotes, in its letter case.
    fn external_node(&self, id: &str) -> Option<String> {
        let name = RegisteredName::parse(id).ok().filter(|name| self.external.contains(name))?;
        self.shown_name(&name)
    }

    /// Returns the node and the id of a service on an external node of this agent.
    fn on_external_node(&self, id: &str) -> Option<(String, SmolStr)> {
        let key = self.external.find(id)?;
        let announced = self.external.announced(&Maintenance::default(), &Announced::default());
        let known = &announced.instances.get(key)?.instance;
        Some((self.shown_name(known.external.as_deref()?)?, SmolStr::new(known.api_id())))
    }

    fn shown_name(&self, node: &RegisteredName) -> Option<String> {
        let announced = self.external.announced(&Maintenance::default(), &Announced::default());
        announced.nodes.get(node).map(|node| node.shown_name().to_owned())
    }
}
