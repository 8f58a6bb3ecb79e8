//! Services that DNS has no name for: they are in the catalog and the HTTP API only.

use std::collections::BTreeSet;

use super::Explainer;
use crate::{
    api::explain::{Explained, Instance},
    model::{
        catalog::{Catalog, CatalogEntry, Service},
        name::Label,
        registered_name::{NoDnsName, RegisteredName},
        service::instance_ref::InstanceRef,
    },
};

/// A service without a DNS name, or one instance of it.
pub(super) struct WithoutDnsName<'a> {
    name: RegisteredName,
    service: &'a Service,
    reason: NoDnsName,
    /// Id of the instance; `None` for the service.
    id: Option<Label>,
}

impl<'a> WithoutDnsName<'a> {
    /// Finds the service or the instance that `text` denotes.
    pub(super) fn find(catalog: &'a Catalog, text: &str) -> Option<Self> {
        let service = RegisteredName::parse(text).ok().and_then(|name| Self::of(catalog, name, None));
        service.or_else(|| {
            let announced = || catalog.view().values().flat_map(|view| &view.announcements);
            let nameless = || announced().filter(|(key, _)| key.service.dns_label().is_err());
            let of = |key: &InstanceRef| Self::of(catalog, key.service.clone(), Some(key.id.clone()));
            let registered = nameless().find(|(_, known)| known.instance.api_id() == text);
            registered
                .or_else(|| nameless().find(|(_, known)| known.instance.is_called(text)))
                .and_then(|(key, _)| of(key))
        })
    }

    fn of(catalog: &'a Catalog, name: RegisteredName, id: Option<Label>) -> Option<Self> {
        let reason = name.dns_label().err()?;
        Some(Self { service: catalog.service(&name)?, name, reason, id })
    }

    /// Returns the reason in a sentence.
    pub(super) fn note(&self) -> String {
        format!("Service {:?} has no DNS name: {}.", self.name.as_str(), self.reason)
    }
}

impl Explainer<'_> {
    /// Explains a service without a DNS name.
    pub(super) fn without_dns_name(&self, text: &str, found: &WithoutDnsName<'_>) -> Explained {
        let is_meant =
            |entry: &CatalogEntry| found.id.as_ref().is_none_or(|id| *id == entry.announcement.instance.key.id);
        let entries: Vec<_> = found.service.with_shadowed().filter(|(entry, _)| is_meant(entry)).collect();
        let instances: Vec<Instance> =
            entries.iter().map(|(entry, counts)| self.unanswered(entry, *counts, found)).collect();
        let healthy = entries.iter().filter(|(entry, counts)| *counts && entry.is_answered()).count();
        let summary = format!(
            "DNS has no name for the service: {}; the HTTP API has it, with {healthy} of {} instances healthy",
            found.reason,
            instances.len()
        );
        Explained {
            name: text.to_owned(),
            kind: if found.id.is_some() { "instance" } else { "service" }.to_owned(),
            source: "catalog".to_owned(),
            summary,
            notes: self.notes(&found.name, &instances),
            instances,
            ..Explained::default()
        }
    }

    fn unanswered(&self, entry: &CatalogEntry, counts: bool, found: &WithoutDnsName<'_>) -> Instance {
        let known = self.instance(entry, counts);
        let why = match known.answered {
            true => format!("healthy, but DNS has no name for it: {}", found.reason),
            false => known.why,
        };
        Instance { answered: false, why, ..known }
    }
}

/// Returns a note if instances of a service write its name in different letter cases.
pub(super) fn letter_cases(service: &Service) -> Option<String> {
    let names: BTreeSet<&str> = service.entries().map(|entry| entry.announcement.instance.service_name()).collect();
    let listed = names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
    (names.len() > 1)
        .then(|| format!("The name is registered as {listed}: one service, since names compare without case."))
}
