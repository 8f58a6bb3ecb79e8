//! Instances of a name: their states and reasons.

use std::{collections::BTreeMap, time::Duration};

use super::{
    Explainer, NEGATIVE_TTL,
    nearness::{Nearness, disagreement},
    without_dns_name::letter_cases,
};
use crate::{
    api::explain::{Check, Explained, Instance},
    dns::{
        answer::provenance::{Form, Match},
        zone::service::MAX_STALE_TTL,
    },
    model::{
        alpn::PortAlpn,
        announcement::CheckReport,
        catalog::{CatalogEntry, Freshness},
        date::rfc3339,
        member::Member,
        name::Label,
        reason,
        registered_name::RegisteredName,
        service,
    },
};

/// Maximum number of listed file problems.
const MAX_PROBLEMS: usize = 3;
/// Maximum number of hidden static names listed per zone file.
const MAX_HIDDEN: usize = 3;
/// Source of the default TTL.
pub(super) const NODE_TTL: &str = "dns.ttl of this node's configuration";

impl Explainer<'_> {
    /// Explains a name of a service, with the instances that the name selects.
    pub(super) fn service(&self, name: &RegisteredName, found: &Match<'_>) -> Explained {
        let service = self.catalog.service(name);
        let with_shadowed: Vec<(&CatalogEntry, bool)> = service
            .iter()
            .flat_map(|service| service.with_shadowed())
            .filter(|(entry, _)| selects(found, entry))
            .collect();
        let counting: Vec<&CatalogEntry> =
            with_shadowed.iter().filter(|(_, counts)| *counts).map(|(entry, _)| *entry).collect();
        let stated = service.map(|service| service.policy(self.tables.nearest()));
        let nearness = stated.and_then(|stated| self.nearness(stated, found, &counting));
        let is_too_far = |entry: &CatalogEntry| self.is_too_far(nearness.as_ref(), entry);
        let words = nearness.as_ref().and_then(Nearness::words);
        let instance = |(entry, counts): &(&CatalogEntry, bool)| {
            let instance = self.instance(entry, *counts);
            match &words {
                Some(near) if instance.answered && is_too_far(entry) => Instance {
                    answered: false,
                    why: format!("not answered here: {near} has enough healthy instances"),
                    ..instance
                },
                _ => instance,
            }
        };
        let instances: Vec<Instance> = with_shadowed.iter().map(instance).collect();
        let answered = instances.iter().filter(|instance| instance.answered).count();
        let summary = match (answered, instances.len()) {
            (0, 0) => format!("service {name} has no matching instance"),
            (0, all) => {
                let reason = reason::none_answered(counting);
                format!("{}: NODATA with Extended DNS Error 14: {reason}", reason::summary(0, all))
            }
            (answered, all) => {
                let near = words.as_ref().map_or_else(String::new, |near| format!(", those of {near}"));
                format!("{}{near}", reason::summary(answered, all))
            }
        };
        let entries = with_shadowed.iter().map(|(entry, _)| *entry).filter(|entry| !is_too_far(entry));
        let entries: Vec<&CatalogEntry> = entries.collect();
        let (ttl, ttl_from) = self.least_ttl(&entries);
        let is_instance =
            matches!(found, Match::Instance { .. } | Match::Advertised { .. } | Match::Why { host: Some(_), .. });
        let kind = if is_instance { "instance" } else { "service" };
        let mut notes = self.notes(name, &instances);
        notes.extend(stated.as_ref().and_then(disagreement));
        notes.extend(nearness.iter().flat_map(Nearness::never_enough));
        let nearest = nearness.as_ref().map(Nearness::explained);
        Explained { kind: kind.to_owned(), summary, ttl, ttl_from, nearest, instances, notes, ..Explained::default() }
    }

    /// Explains a `_why` name, with the instances that its records explain.
    pub(super) fn why(&self, name: &RegisteredName, found: &Match<'_>) -> Explained {
        let explained = self.service(name, found);
        let subject = match (found, &explained.instances[..]) {
            (Match::Why { host: Some(_), .. }, [instance, ..]) => {
                format!("instance {}/{}", instance.service, instance.id)
            }
            _ => format!("service {name}"),
        };
        let answered = explained.instances.iter().filter(|instance| instance.answered).count();
        let counts = reason::summary(answered, explained.instances.len());
        let summary = format!("TXT records that explain {subject}: {counts}");
        let (ttl, ttl_from) = (self.tables.negative_ttl(), NEGATIVE_TTL.to_owned());
        Explained { summary, ttl, ttl_from, ..explained }
    }

    /// Explains a node, with its instances.
    pub(super) fn node(&self, name: &Label) -> Explained {
        let keys = self.catalog.view().get(name).into_iter().flat_map(|view| view.announcements.keys());
        let instances: Vec<Instance> = keys
            .filter_map(|key| {
                let service = self.catalog.service(&key.service)?;
                let own = |p: &CatalogEntry| p.node == *name && p.announcement.instance.key.id == key.id;
                let (entry, counts) = service.with_shadowed().find(|(entry, _)| own(entry))?;
                Some(self.instance(entry, counts))
            })
            .collect();
        let reach = self.member(name).map_or("unknown", |member| member.reach.as_str());
        let answered = instances.iter().filter(|instance| instance.answered).count();
        let summary = format!("node {name} is {reach}; {}", reason::summary(answered, instances.len()));
        let notes = self.conflict(&RegisteredName::from(name.clone())).into_iter().collect();
        let report = self.catalog.view().get(name).and_then(|view| view.node.checks.as_ref());
        let checks = report.iter().flat_map(|report| &report.checks).map(check).collect();
        Explained { checks, instances, notes, ..self.generated("node", summary) }
    }

    /// Returns the instances that announce an address.
    pub(super) fn at_address(&self, address: std::net::IpAddr) -> Vec<Instance> {
        let keys = self.catalog.addresses().at(address);
        let with_shadowed = keys.flat_map(|key| {
            let with_shadowed =
                self.catalog.service(&key.service).into_iter().flat_map(|service| service.with_shadowed());
            with_shadowed.filter(|(entry, _)| {
                let instance = &entry.announcement.instance;
                instance.key == *key && instance.addresses.contains(&address)
            })
        });
        with_shadowed.map(|(entry, counts)| self.instance(entry, counts)).collect()
    }

    /// Returns notes on errors in the service files of this node, one of which may define the name.
    pub(super) fn problems(&self) -> Vec<String> {
        let problems: Vec<_> = self.problems.iter().filter(|problem| problem.is_error()).collect();
        let mut notes: Vec<String> = problems
            .iter()
            .take(MAX_PROBLEMS)
            .map(|problem| format!("Error in a service file of this node: {problem}"))
            .collect();
        if problems.len() > MAX_PROBLEMS {
            notes.push(format!("{} more errors: run `muster validate`.", problems.len() - MAX_PROBLEMS));
        }
        notes
    }

    pub(super) fn notes(&self, name: &RegisteredName, instances: &[Instance]) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(since) = self.members.partitioned {
            let since = rfc3339(since);
            notes.push(format!(
                "More than half of the other nodes have been unreachable since {since}: this node may be isolated."
            ));
        }
        let answered = instances.iter().any(|instance| instance.answered);
        if answered && instances.iter().all(|instance| !instance.answered || instance.port == 0) {
            notes.push("No answered instance has a port: there are A and AAAA records, but no SRV records.".to_owned());
        }
        notes.extend(self.catalog.service(name).and_then(|service| letter_cases(service)));
        notes.extend(self.hidden(name));
        if instances.iter().any(|instance| instance.node == self.node.as_str()) {
            notes.extend(self.problems());
        }
        notes
    }

    /// Returns a note per zone file with static records that the service hides.
    fn hidden(&self, name: &RegisteredName) -> Vec<String> {
        let mut hidden = self.tables.hidden_by(name.as_bytes());
        hidden.sort_by_key(|hidden| (hidden.file, hidden.line));
        let of_file = hidden.chunk_by(|one, next| one.file == next.file);
        let note = of_file.map(|of_file| {
            let mut owners: Vec<String> = of_file.iter().map(|hidden| hidden.owner.to_string()).collect();
            owners.sort();
            let more = owners.len().saturating_sub(MAX_HIDDEN);
            owners.truncate(MAX_HIDDEN);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let (file, line, owners) = (of_file[0].file, of_file[0].line, owners.join(", "));
            format!("{file}:{line} defines {owners}{more}: hidden by service {name}.")
        });
        note.collect()
    }

    /// Returns the TTL in seconds and its source.
    fn instance_ttl(&self, entry: &CatalogEntry) -> (u32, String) {
        let instance = &entry.announcement.instance;
        let (ttl, from) = match instance.ttl {
            Some(ttl) => (ttl, format!("the ttl of {}", instance.key)),
            None => (self.tables.ttl(), NODE_TTL.to_owned()),
        };
        if entry.freshness == Freshness::LastKnown && ttl > MAX_STALE_TTL {
            return (MAX_STALE_TTL, "the limit for unreachable nodes".to_owned());
        }
        (ttl, from)
    }

    /// Returns the lowest TTL of the answered instances, or of all if none is answered.
    fn least_ttl(&self, entries: &[&CatalogEntry]) -> (u32, String) {
        let least = |all: &mut dyn Iterator<Item = &&CatalogEntry>| {
            all.map(|entry| self.instance_ttl(entry)).min_by_key(|(ttl, _)| *ttl)
        };
        least(&mut entries.iter().filter(|entry| entry.is_answered()))
            .or_else(|| least(&mut entries.iter()))
            .unwrap_or((self.tables.ttl(), NODE_TTL.to_owned()))
    }

    pub(super) fn member(&self, name: &Label) -> Option<&Member> {
        self.members.members.iter().find(|member| member.id.name == *name)
    }

    pub(super) fn instance(&self, entry: &CatalogEntry, counts: bool) -> Instance {
        let announcement = &entry.announcement;
        let (instance, state) = (&announcement.instance, &announcement.state);
        let member = self.member(&entry.node);
        let reason = reason::of(entry, counts, member.map(|member| member.reach));
        let report = announcement.report.as_ref();
        let checks = report.iter().flat_map(|report| &report.checks).map(check);
        let since = match entry.freshness {
            Freshness::Live => reason::since(entry),
            _ => member.map(|member| rfc3339(member.since)),
        };
        let (ttl, ttl_from) = self.instance_ttl(entry);
        let node = self.catalog.view().get(&entry.node).map(|view| &view.node);
        Instance {
            service: instance.service_name().to_owned(),
            id: instance.key.id.to_string(),
            registered_as: instance.registered_as.as_ref().map(ToString::to_string),
            host: instance.host.as_ref().map(|host| host.name.to_string()),
            host_problem: instance.host.as_ref().and_then(|host| host.problem.as_deref()).map(str::to_owned),
            node: entry.node.to_string(),
            zone: node.and_then(|node| node.zone.as_ref()).map(ToString::to_string),
            datacenter: node.map_or_else(String::new, |node| node.datacenter.to_string()),
            external_node: instance.external.as_ref().map(ToString::to_string),
            addresses: instance.addresses.iter().map(ToString::to_string).collect(),
            port: instance.port.unwrap_or(0),
            alpn: alpn(instance),
            tags: instance.tags.to_vec(),
            weight: state.weight(instance.weight),
            ttl,
            ttl_from,
            answered: counts && entry.is_answered(),
            state: reason.state.to_owned(),
            why: reason.text,
            since: since.unwrap_or_default(),
            checks: checks.collect(),
        }
    }
}

/// Describes the result of a check. A client may leave out its name.
pub(super) fn check(report: &CheckReport) -> Check {
    let name = if report.name.is_empty() { &report.id } else { &report.name };
    Check {
        id: report.id.to_string(),
        name: name.to_string(),
        status: report.status.as_str().to_owned(),
        output: report.output.to_string(),
        since: rfc3339(Duration::from_secs(report.since)),
    }
}

/// Returns the ALPN ids by the name of the port.
fn alpn(instance: &service::Instance) -> BTreeMap<String, Vec<String>> {
    let of = |alpn: &PortAlpn| {
        let port = alpn.port.as_ref().map_or("", Label::as_str);
        (port.to_owned(), alpn.ids.iter().map(ToString::to_string).collect())
    };
    instance.alpn.iter().map(of).collect()
}

/// Reports whether a name with this match selects the instance.
fn selects(found: &Match<'_>, entry: &CatalogEntry) -> bool {
    let instance = &entry.announcement.instance;
    // A name with a datacenter has the instances in it only.
    found.service().is_none_or(|service| service.host(instance.key.id.as_bytes()).is_some())
        && selects_of_service(found, instance)
}

fn selects_of_service(found: &Match<'_>, instance: &service::Instance) -> bool {
    match found {
        Match::Set { form: Form::Tag(tag) | Form::SrvTag(tag), .. } => {
            instance.tags.iter().any(|known| known.eq_ignore_ascii_case(tag.as_str()))
        }
        Match::Set { form: Form::SrvProtocol(protocol), .. } => instance.protocol == *protocol,
        Match::Set { form: Form::Subtype(tag, protocol), .. } => {
            instance.protocol == *protocol && instance.tags.iter().any(|known| known.eq_ignore_ascii_case(tag.as_str()))
        }
        Match::Bindings { bindings, .. } => {
            bindings.port().is_some_and(|port| instance.alpn.iter().any(|alpn| alpn.port.as_ref() == Some(port)))
        }
        Match::Instance { service, host }
        | Match::Advertised { service, host, .. }
        | Match::Why { service, host: Some(host) } => instance.key.id.as_bytes() == service.host_id(*host),
        Match::Port { port, .. } => {
            instance.protocol == port.protocol() && instance.ports.iter().any(|(known, _)| known == port.name())
        }
        _ => true,
    }
}
