//! Registration of services.

use super::{MAX_REGISTERED, Outcome, State, changed};
use crate::{
    model::service::Definitions,
    registry::{
        error::{FieldError, RegistryError},
        registration::{Host, Registrar, Registration},
    },
};

impl State {
    /// Registers a service, or replaces the one with its id.
    pub(super) fn register(
        &mut self,
        registration: Registration,
        replace_checks: bool,
        files: &Definitions,
        host: &Host,
    ) -> Result<Outcome, RegistryError> {
        let key = registration.definition.instance.key.clone();
        if files.contains_key(&key) {
            return Err(RegistryError::Refused(format!(
                "Instance {key} is defined by a service file: use another ID, or remove the file."
            )));
        }
        let is_other = |known: &&Registration| known.id != registration.id && known.definition.instance.key == key;
        if self.external.keys().any(|known| *known == key) {
            return Err(RegistryError::Refused(format!(
                "Instance {key} is registered on an external node: use another ID."
            )));
        }
        if let Some(other) = self.registered.values().find(is_other) {
            return Err(RegistryError::Refused(format!(
                "Instance {key} is already registered with the ID {:?}: use another ID, or deregister that service.",
                other.id
            )));
        }
        let before = self.registered.get(&registration.id);
        if before.is_none() && self.registered.len() >= MAX_REGISTERED {
            return Err(RegistryError::Refused(format!(
                "This node has {MAX_REGISTERED} registered services, the maximum: deregister some."
            )));
        }
        let next = match before {
            Some(before) => registration.replacing(before, replace_checks, host),
            None => Ok(registration),
        };
        let next = next.and_then(|next| self.with_kept_tags(next)).and_then(Registration::with_allowed_targets);
        let next = next.map_err(|error| RegistryError::Refused(error.to_string()))?;
        let moved = self.take_checks(&next.check_ids(), Some(&next.id), files, host)?;
        let before = self.registered.insert(next.id.clone(), next.clone());
        if let Some(old) = before.as_ref().map(|before| &before.definition.instance.key).filter(|old| **old != key) {
            self.forget_holds(old, files);
        }
        let changed = before.as_ref() != Some(&next) || !moved.is_empty();
        let defined = Some(next.definition.instance.clone());
        Ok(Outcome { changed, defined, instances: vec![key], moved, ..Outcome::default() })
    }

    /// Registers a service of this node in the catalog.
    pub(super) fn register_in_catalog(
        &mut self,
        registration: Registration,
        files: &Definitions,
        host: &Host,
    ) -> Result<Outcome, RegistryError> {
        let known = self.registered.get(&registration.id).filter(|known| known.registrar == Registrar::Agent);
        match known.cloned() {
            Some(known) if known.definition.instance.tag_override => {
                let tags = registration.definition.instance.tags.to_vec();
                self.replace(known.with_catalog_tags(tags), files, host)
            }
            Some(_) => Ok(Outcome::default()),
            None => self.register(Registration { registrar: Registrar::Catalog, ..registration }, false, files, host),
        }
    }

    /// Returns the registration with the tags that `catalog/register` gave to the service, if it still permits that.
    fn with_kept_tags(&self, next: Registration) -> Result<Registration, FieldError> {
        let known = self.registered.get(&next.id).filter(|_| next.catalog_tags.is_none());
        let known = known.filter(|known| known.definition.instance.key == next.definition.instance.key);
        match known.and_then(|known| known.catalog_tags.clone()) {
            Some(tags) if next.definition.instance.tag_override => next.with_catalog_tags(tags),
            _ => Ok(next),
        }
    }

    /// Puts a registration in the place of the one with its id.
    pub(super) fn replace(
        &mut self,
        registration: Result<Registration, FieldError>,
        files: &Definitions,
        host: &Host,
    ) -> Result<Outcome, RegistryError> {
        let registration = registration.map_err(|error| RegistryError::Refused(error.to_string()))?;
        let moved = self.take_checks(&registration.check_ids(), Some(&registration.id), files, host)?;
        let instance = registration.definition.instance.clone();
        self.registered.insert(registration.id.clone(), registration);
        Ok(Outcome { moved, defined: Some(instance.clone()), ..changed(vec![instance.key.clone()]) })
    }
}
