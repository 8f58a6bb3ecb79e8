//! Explanation of external nodes and of their conflicts.

use super::{Explainer, instances::failing_checks};
use crate::{
    api::explain::{Explained, Instance},
    model::{
        catalog::{CatalogEntry, Claim},
        reason,
        registered_name::RegisteredName,
    },
};

impl Explainer<'_> {
    /// Explains an external node of which DNS has records.
    pub(super) fn external_node(&self, name: &RegisteredName) -> Explained {
        let Some(claim) = self.catalog.external(name) else { return Explained::default() };
        let instances = self.instances_on(name);
        let answered = instances.iter().filter(|instance| instance.answered).count();
        let summary = format!("{}; {}", self.registered_through(claim), reason::summary(answered, instances.len()));
        let followed = claim.node.host.as_ref().map(|host| {
            let addresses: Vec<String> = claim.node.addresses.iter().map(ToString::to_string).collect();
            reason::followed(host.name.as_str(), &addresses, host.problem.as_deref())
        });
        let notes = followed.into_iter().chain(failing_checks(&claim.node.checks)).chain(self.conflict(name)).collect();
        Explained { instances, notes, ..self.generated("node", summary) }
    }

    /// Explains an external node without records in DNS; `None` if the text does not name one.
    pub(super) fn unanswered_external_node(&self, text: &str) -> Option<Explained> {
        let name = RegisteredName::parse(text).ok()?;
        let claim = self.catalog.external(&name)?;
        let why = match name.dns_label() {
            Err(reason) => format!("DNS has no name for it: {reason}"),
            Ok(label) if self.tables.external_node(label).is_none() => "it is not answered".to_owned(),
            Ok(_) => return None,
        };
        let explained = self.external_node(&name);
        Some(Explained {
            name: text.to_owned(),
            source: "external-node".to_owned(),
            summary: format!("{}; {why}", self.registered_through(claim)),
            ttl: 0,
            ttl_from: String::new(),
            ..explained
        })
    }

    /// Returns the sentence by which operators find the owner.
    fn registered_through(&self, claim: &Claim) -> String {
        let reach = self.member(&claim.owner).map_or("unknown", |member| member.reach.as_str());
        let reach = if reach == "alive" { String::new() } else { format!(", which is {reach}") };
        format!("external node {}, registered through {}{reach}", claim.node.name, claim.owner)
    }

    /// Returns a note if several agents, or an agent and a member, announce the name.
    pub(super) fn conflict(&self, name: &RegisteredName) -> Option<String> {
        if !self.catalog.conflicts().contains(name) {
            return None;
        }
        let claims = self.catalog.claims(name);
        let owners = claims.iter().map(|claim| claim.owner.to_string()).collect::<Vec<_>>().join(" and ");
        let counts = match claims.first().filter(|_| !self.catalog.has_member(name)) {
            Some(first) => format!("that of {} counts", first.owner),
            None => "the member of that name counts".to_owned(),
        };
        Some(format!(
            "Conflict: external node {name} is registered through {owners}: {counts}. Deregister it elsewhere \
             (PUT /v1/catalog/deregister)."
        ))
    }

    fn instances_on(&self, name: &RegisteredName) -> Vec<Instance> {
        let on_node = self.catalog.instances_on(name);
        let shown = on_node.filter_map(|(key, owner)| {
            let service = self.catalog.service(&key.service)?;
            let is_own = |entry: &CatalogEntry| entry.node == *owner && entry.announcement.instance.key.id == key.id;
            let (entry, counts) = service.with_shadowed().find(|(entry, _)| is_own(entry))?;
            Some(self.instance(entry, counts))
        });
        shown.collect()
    }
}
