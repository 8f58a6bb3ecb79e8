//! Why a name is answered as it is. What holds an instance back is said in the words of [`crate::model::reason`], which Extended
//! DNS Errors and the `_why` names have too.

use std::time::Duration;

use axum::{
    extract::{Path, State},
    http::Uri,
    response::Response,
};

use crate::{
    api::explain::{Check, Explained, Instance},
    dns::zone::service::MAX_STALE_TTL,
    http::{
        Api,
        beyond::Files,
        blocking::{self, Topic},
        consul::catalog::show,
        meant::{self, Meant, Part, meant},
        query::Query,
        response::ApiError,
    },
    model::{
        catalog::{Catalog, CatalogEntry, Freshness},
        date::rfc3339,
        member::{Member, Membership},
        name::{Label, Name},
        reason,
    },
};

/// Names that are offered for one that is not there, and problems of files that are told of.
const MAX_OFFERED: usize = 3;
/// Where a TTL comes from that no service names.
const NODE_TTL: &str = "dns.ttl of this node's configuration";

pub(crate) async fn explain(
    State(api): State<Api>,
    uri: Uri,
    Path(name): Path<String>,
    query: Query,
) -> Result<Response, ApiError> {
    show(&api, &uri, &query, Topic::Explained, |blocking::Snapshot { catalog, members, files, .. }| {
        let files = api.beyond.borrow(files);
        let zones = api.agent.zones();
        let known = Known { catalog, members, ttl: api.agent.ttl, node: &api.agent.node, zones, files: &files };
        Ok(known.explain(&name))
    })
    .await
}

struct Known<'a> {
    catalog: &'a Catalog,
    members: &'a Membership,
    /// Seconds: the TTL where a service names none.
    ttl: u32,
    /// This node.
    node: &'a Label,
    /// The zones in which services have their names.
    zones: Vec<Name>,
    /// What this node's files say, and whom it asks for other names.
    files: &'a Files,
}

impl Known<'_> {
    fn explain(&self, text: &str) -> Explained {
        match meant(text, self.catalog, &self.zones) {
            Meant::Service(name, part) => self.service(text, &name, &part),
            Meant::Node(name) => self.node(text, &name),
            Meant::Apex => {
                let summary = "the discovery zone itself: SOA, NS, and what its zone file has there".to_owned();
                self.other(text, "zone", summary, self.ttl)
            }
            Meant::Name(name) => self.name(text, &name),
            Meant::Nothing => self.unknown(text),
        }
    }

    fn service(&self, text: &str, name: &Label, part: &Part) -> Explained {
        let Some(service) = self.catalog.service(name) else { return self.unknown(text) };
        let with_shadowed: Vec<(&CatalogEntry, bool)> =
            service.with_shadowed().filter(|(entry, _)| part.has(entry)).collect();
        let instances: Vec<Instance> =
            with_shadowed.iter().map(|(entry, counts)| self.instance(entry, *counts)).collect();
        let answered = instances.iter().filter(|instance| instance.answered).count();
        let summary = match (answered, instances.len()) {
            (0, 0) => format!("{name} has no such instance"),
            (0, all) => {
                let counting = with_shadowed.iter().filter(|(_, counts)| *counts).map(|(entry, _)| *entry);
                let why = reason::none_answered(counting);
                format!("none of {all} is answered: NOERROR without records, and Extended DNS Error 14: {why}")
            }
            (answered, all) => reason::summary(answered, all),
        };
        let entries: Vec<&CatalogEntry> = with_shadowed.into_iter().map(|(entry, _)| entry).collect();
        let (ttl, ttl_from) = self.least_ttl(&entries);
        let kind = if matches!(part, Part::Instance(_)) { "instance" } else { "service" };
        let notes = self.notes(name, &instances);
        Explained { name: text.to_owned(), kind: kind.to_owned(), summary, ttl, ttl_from, instances, notes }
    }

    fn notes(&self, name: &Label, instances: &[Instance]) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(since) = self.members.partitioned {
            let since = rfc3339(since);
            notes.push(format!(
                "More than half of the other nodes are out of reach since {since}: the fault may be here."
            ));
        }
        let answered = instances.iter().any(|instance| instance.answered);
        if answered && instances.iter().all(|instance| !instance.answered || instance.port == 0) {
            notes.push("No instance that is answered has a port: there are A and AAAA records, and no SRV.".to_owned());
        }
        let below: Vec<Name> = self.zones.iter().filter_map(|zone| zone.prepend([name.as_bytes()]).ok()).collect();
        let form = [&[name.as_bytes().len() as u8 + 1, b'_'], name.as_bytes()].concat();
        let is_hidden = |owner: &Name| {
            // A zone may have a million records: most are told apart without a closer look.
            if !below.iter().any(|name| owner.within(name).is_some()) && !owner.wire().starts_with(&form) {
                return false;
            }
            let live = self.zones.iter().find_map(|zone| meant::live(owner, zone, self.catalog));
            matches!(live, Some(Meant::Service(hidden, _)) if hidden == *name)
        };
        notes.extend(self.files.hidden(&self.zones, is_hidden));
        if instances.iter().any(|instance| instance.node == self.node.as_str()) {
            notes.extend(self.problems());
        }
        notes
    }

    /// What is wrong with service files of this node, such as one that defines what somebody looks for in vain.
    fn problems(&self) -> Vec<String> {
        let problems: Vec<_> = self.files.problems.iter().filter(|problem| problem.is_error()).collect();
        let mut notes: Vec<String> =
            problems.iter().take(MAX_OFFERED).map(|problem| format!("Of this node's files: {problem}")).collect();
        if problems.len() > MAX_OFFERED {
            notes.push(format!(
                "And {} problems more: `muster validate` prints them all.",
                problems.len() - MAX_OFFERED
            ));
        }
        notes
    }

    /// Seconds, and where they come from.
    fn instance_ttl(&self, entry: &CatalogEntry) -> (u32, String) {
        let instance = &entry.announcement.instance;
        let (ttl, from) = match instance.ttl {
            Some(ttl) => (ttl, format!("the ttl of {}", instance.key)),
            None => (self.ttl, NODE_TTL.to_owned()),
        };
        if entry.freshness == Freshness::LastKnown && ttl > MAX_STALE_TTL {
            return (MAX_STALE_TTL, "a node is out of reach: what is last known is cached briefly".to_owned());
        }
        (ttl, from)
    }

    /// The TTL of the whole: the least of those that are answered, or of all.
    fn least_ttl(&self, entries: &[&CatalogEntry]) -> (u32, String) {
        let least = |all: &mut dyn Iterator<Item = &&CatalogEntry>| {
            all.map(|entry| self.instance_ttl(entry)).min_by_key(|(ttl, _)| *ttl)
        };
        least(&mut entries.iter().filter(|entry| entry.is_answered()))
            .or_else(|| least(&mut entries.iter()))
            .unwrap_or((self.ttl, NODE_TTL.to_owned()))
    }

    fn member(&self, name: &Label) -> Option<&Member> {
        self.members.members.iter().find(|member| member.id.name == *name)
    }

    fn instance(&self, entry: &CatalogEntry, counts: bool) -> Instance {
        let announcement = &entry.announcement;
        let (instance, standing) = (&announcement.instance, &announcement.standing);
        let member = self.member(&entry.node);
        let why = reason::of(entry, counts, member.map(|member| member.reach));
        let time = |seconds: u64| rfc3339(Duration::from_secs(seconds));
        let report = announcement.report.as_ref();
        let checks = report.iter().flat_map(|report| &report.checks).map(|check| Check {
            id: check.id.to_string(),
            name: check.name.to_string(),
            status: check.status.as_str().to_owned(),
            output: check.output.to_string(),
            since: time(check.since),
        });
        let since = match entry.freshness {
            Freshness::Live => reason::since(entry),
            _ => member.map(|member| rfc3339(member.since)),
        };
        let (ttl, ttl_from) = self.instance_ttl(entry);
        Instance {
            service: instance.key.service.to_string(),
            id: instance.key.id.to_string(),
            registered_as: instance.registered_as.as_ref().map(ToString::to_string),
            node: entry.node.to_string(),
            addresses: instance.addresses.iter().map(ToString::to_string).collect(),
            port: instance.port.unwrap_or(0),
            tags: instance.tags.clone(),
            weight: standing.weight(instance.weight),
            ttl,
            ttl_from,
            answered: counts && entry.is_answered(),
            state: why.state.to_owned(),
            why: why.text,
            since: since.unwrap_or_default(),
            checks: checks.collect(),
        }
    }

    fn node(&self, text: &str, name: &Label) -> Explained {
        let Some(view) = self.catalog.view().get(name) else { return self.unknown(text) };
        let keys = view.announcements.keys();
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
        let summary = format!("the node {name} is {reach}; {}", reason::summary(answered, instances.len()));
        Explained { instances, ..self.other(text, "node", summary, self.ttl) }
    }

    /// A name that no service and no node has.
    fn name(&self, text: &str, name: &Name) -> Explained {
        let zone = self.zones.iter().find(|zone| name.within(zone).is_some());
        // A bare word may be a service's name with a slip.
        let is_word = zone.is_none() && name.labels().count() == 1 && !text.ends_with('.');
        // Aliases have what the domain has, and a bare word is below it.
        let above = name.labels().count() - zone.map_or(0, |zone| zone.labels().count());
        let in_domain = (zone.is_some() || is_word)
            .then(|| Name::from_labels(name.labels().take(above).chain(self.zones.first()?.labels())).ok())
            .flatten();
        match self.files.answered(name).or_else(|| self.files.answered(&in_domain?)) {
            Some((summary, ttl)) => self.other(text, "static", summary, ttl),
            None if zone.is_some() || is_word => self.unknown(text),
            None => self.other(text, "outside", self.files.outside(name), 0),
        }
    }

    fn other(&self, text: &str, kind: &str, summary: String, ttl: u32) -> Explained {
        let ttl_from = match kind {
            "static" => "the zone file",
            "outside" => "whoever answers it",
            _ => NODE_TTL,
        };
        Explained {
            name: text.to_owned(),
            kind: kind.to_owned(),
            summary,
            ttl,
            ttl_from: ttl_from.to_owned(),
            ..Explained::default()
        }
    }

    fn unknown(&self, text: &str) -> Explained {
        let mut near: Vec<(usize, &str)> = self
            .catalog
            .services()
            .map(|(name, _)| (strsim::damerau_levenshtein(&text.to_ascii_lowercase(), name.as_str()), name.as_str()))
            .collect();
        near.sort_unstable();
        let near = near.iter().take(MAX_OFFERED).filter(|(far, name)| *far <= name.len().max(text.len()) / 2);
        let near: Vec<&str> = near.map(|(_, name)| *name).collect();
        let mut notes = self.problems();
        notes.push(
            "A service is declared by a file in services_dir or by the HTTP API of some node; one whose file has an \
             error from the start is not declared: `muster validate` and the log of its node say why."
                .to_owned(),
        );
        if !near.is_empty() {
            notes.insert(0, format!("Did you mean {}?", near.join(", ")));
        }
        Explained {
            name: text.to_owned(),
            kind: "unknown".to_owned(),
            summary: "no node declares it: NXDOMAIN".to_owned(),
            notes,
            ..Explained::default()
        }
    }
}
