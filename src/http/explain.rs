//! Why a name is answered as it is: the gate that holds each instance back, in one sentence.

use std::{collections::BTreeSet, time::Duration};

use axum::{
    extract::{Path, State},
    http::Uri,
    response::Response,
};

use super::{Api, agent::rfc3339, answer::Refusal, hub::Topic, query::Query, read::show, shape::state};
use crate::{
    api::explain::{Check, Explained, Instance},
    files::definitions::service_at,
    model::{
        announcement::Standing,
        catalog::{Catalog, Freshness, Placement},
        member::{Membership, Reach},
        name::{Label, Name},
        service::InstanceKey,
    },
};

/// Names that are offered for one that is not there.
const MAX_OFFERED: usize = 3;

pub(super) async fn explain(
    State(api): State<Api>,
    uri: Uri,
    Path(name): Path<String>,
    query: Query,
) -> Result<Response, Refusal> {
    let members = api.members.borrow().clone();
    show(&api, &uri, &query, Topic::All, |catalog| {
        let known = Known { catalog, members: &members, ttl: api.agent.ttl };
        Ok(known.explain(&name, &api.agent.zones()))
    })
    .await
}

struct Known<'a> {
    catalog: &'a Catalog,
    members: &'a Membership,
    /// Seconds: the TTL where a service names none.
    ttl: u32,
}

/// What a name stands for.
enum Meant {
    /// A service, or those of its instances that have this tag or id.
    Service(Label, Option<Label>),
    Node(Label),
    Unknown,
}

impl Known<'_> {
    fn explain(&self, text: &str, zones: &[Name]) -> Explained {
        match self.meant(text, zones) {
            Meant::Service(name, only) => self.service(text, &name, only.as_ref()),
            Meant::Node(name) => self.node(text, &name),
            Meant::Unknown => self.unknown(text),
        }
    }

    /// A service's name, an instance's id (also as `SERVICE/ID`), a node's name, or a name in one of our zones.
    fn meant(&self, text: &str, zones: &[Name]) -> Meant {
        let service = |label: &Label| self.catalog.service(label).is_some();
        if let Some((first, id)) = text.split_once('/')
            && let (Ok(name), Ok(id)) = (Label::parse(first), Label::parse(id))
            && service(&name)
        {
            return Meant::Service(name, Some(id));
        }
        if let Ok(label) = Label::parse(text) {
            if service(&label) {
                return Meant::Service(label, None);
            }
            if self.catalog.view().contains_key(&label) {
                return Meant::Node(label);
            }
            let mut all = self.catalog.view().values().flat_map(|view| view.announcements.keys());
            return all
                .find(|key| key.id == label)
                .map_or(Meant::Unknown, |key| Meant::Service(key.service.clone(), Some(label.clone())));
        }
        let Ok(name) = Name::parse(text) else { return self.registered(text) };
        // Names without our zone are taken as if they stood in it.
        let zone = zones.iter().find(|zone| name.within(zone).is_some());
        let root = Name::root();
        let zone = zone.unwrap_or(&root);
        let names: BTreeSet<Label> = self.catalog.services().map(|(name, _)| name.clone()).collect();
        let above = name.labels().count() - zone.labels().count();
        let labels: Vec<Label> =
            name.labels().take(above).filter_map(|label| Label::parse(std::str::from_utf8(label).ok()?).ok()).collect();
        if let Some(found) = service_at(&name, zone, &names) {
            let only = labels.first().filter(|first| *first != found);
            return Meant::Service(found.clone(), only.cloned());
        }
        match &labels[..] {
            [node, word] if word.as_str() == "node" && self.catalog.view().contains_key(node) => {
                Meant::Node(node.clone())
            }
            _ => self.registered(text),
        }
    }

    /// The id that a client registered an instance with.
    fn registered(&self, text: &str) -> Meant {
        let mut all = self.catalog.view().values().flat_map(|view| view.announcements.values());
        let found = all.find(|announcement| announcement.instance.api_id() == text);
        found.map_or(Meant::Unknown, |announcement| {
            let InstanceKey { service, id } = announcement.instance.key.clone();
            Meant::Service(service, Some(id))
        })
    }

    fn service(&self, text: &str, name: &Label, only: Option<&Label>) -> Explained {
        let Some(service) = self.catalog.service(name) else { return self.unknown(text) };
        let counted: Vec<*const Placement> = service.instances().map(std::ptr::from_ref).collect();
        let fits = |placement: &&Placement| {
            let instance = &placement.announcement.instance;
            let tagged = |only: &Label| instance.tags.iter().any(|tag| tag.eq_ignore_ascii_case(only.as_str()));
            only.is_none_or(|only| instance.key.id == *only || tagged(only))
        };
        let placements: Vec<&Placement> = service.placements().filter(fits).collect();
        let instances: Vec<Instance> = placements
            .iter()
            .map(|placement| self.instance(placement, counted.contains(&std::ptr::from_ref(*placement))))
            .collect();
        let answered = instances.iter().filter(|instance| instance.answered).count();
        let (ttl, ttl_from) = self.ttl(&placements);
        let summary = match (answered, instances.len()) {
            (0, 0) => format!("{name} has no instance {}", only.map_or("", Label::as_str)),
            (0, all) => format!("none of {all} is answered: NOERROR without records, and Extended DNS Error 14"),
            (answered, all) => format!("{answered} of {all} answered"),
        };
        let mut notes = Vec::new();
        if let Some(since) = self.members.partitioned {
            let since = rfc3339(since);
            notes.push(format!(
                "More than half of the other nodes are out of reach since {since}: the fault may be here."
            ));
        }
        if answered > 0 && instances.iter().all(|instance| !instance.answered || instance.port == 0) {
            notes.push("No instance that is answered has a port: there are A and AAAA records, and no SRV.".to_owned());
        }
        let kind = if only.is_some() && instances.len() == 1 { "instance" } else { "service" };
        Explained { name: text.to_owned(), kind: kind.to_owned(), summary, ttl, ttl_from, instances, notes }
    }

    fn ttl(&self, placements: &[&Placement]) -> (u32, String) {
        let answered = placements.iter().filter(|placement| placement.is_answered());
        let stale = answered.clone().any(|placement| placement.freshness == Freshness::LastKnown);
        let of = |placement: &&&Placement| placement.announcement.instance.ttl.unwrap_or(self.ttl);
        let least = answered.min_by_key(of);
        match least {
            Some(placement) if placement.announcement.instance.ttl.is_some() => {
                (of(&placement), format!("the ttl of {}", placement.announcement.instance.key))
            }
            _ if stale => (self.ttl.min(1), "a node is out of reach: what is last known is cached briefly".to_owned()),
            _ => (self.ttl, "dns.ttl of this node's configuration".to_owned()),
        }
    }

    fn instance(&self, placement: &Placement, counts: bool) -> Instance {
        let announcement = &placement.announcement;
        let (instance, standing) = (&announcement.instance, &announcement.standing);
        let (state, why) = self.gate(placement, counts);
        let time = |seconds: u64| rfc3339(Duration::from_secs(seconds));
        let report = announcement.report.as_ref();
        let checks = report.iter().flat_map(|report| &report.checks).map(|check| Check {
            id: check.id.to_string(),
            name: check.name.to_string(),
            status: check.status.as_str().to_owned(),
            output: check.output.to_string(),
            since: time(check.since),
        });
        let since = match placement.freshness {
            Freshness::Live => report.map_or_else(String::new, |report| time(report.since)),
            _ => self
                .members
                .members
                .iter()
                .find(|m| m.id.name == placement.node)
                .map_or_else(String::new, |m| rfc3339(m.since)),
        };
        Instance {
            service: instance.key.service.to_string(),
            id: instance.key.id.to_string(),
            registered_as: instance.registered_as.as_ref().map(ToString::to_string),
            node: placement.node.to_string(),
            addresses: instance.addresses.iter().map(ToString::to_string).collect(),
            port: instance.port.unwrap_or(0),
            tags: instance.tags.clone(),
            weight: standing.weight(instance.weight),
            answered: counts && placement.is_answered(),
            state: state.to_owned(),
            why,
            since,
            checks: checks.collect(),
        }
    }

    /// What decides about an instance: one word, and a sentence.
    fn gate(&self, placement: &Placement, counts: bool) -> (&'static str, String) {
        let announcement = &placement.announcement;
        let (node, weight) = (&placement.node, announcement.standing.weight(announcement.instance.weight));
        if !counts {
            return ("shadowed", "another node announces an instance of the same id, and that one counts".to_owned());
        }
        if placement.freshness == Freshness::Gone {
            let member = self.members.members.iter().find(|member| member.id.name == *node);
            let cause = member.and_then(|member| match member.reach {
                Reach::Gone(cause) => Some(cause.as_str()),
                _ => None,
            });
            let cause = cause.unwrap_or("it has started anew and said nothing yet");
            return (state(placement), format!("its node {node} is gone: {cause}"));
        }
        let stale = placement.freshness == Freshness::LastKnown;
        let with =
            |text: &str, reason: &str| if reason.is_empty() { text.to_owned() } else { format!("{text}: {reason}") };
        let why = match &announcement.standing {
            Standing::Critical(reason) => with(&self.worst(placement, "is critical"), reason),
            Standing::Disabled => "its service file says enabled: false".to_owned(),
            Standing::Withheld(gate, reason) => with(&format!("it is {}", gate.words()), reason),
            Standing::Passing | Standing::Warming(_) | Standing::Warning(_) if stale => {
                format!("answered as last known: its node {node} is out of reach, with too many others")
            }
            Standing::Passing => format!("answered with weight {weight}"),
            Standing::Warming(_) => {
                let whole = announcement.instance.weight;
                format!("answered with weight {weight} of {whole}, which grows: it has come up lately")
            }
            Standing::Warning(reason) => {
                let text = format!("answered with weight {weight}: {}", self.worst(placement, "warns"));
                with(&text, reason)
            }
        };
        (state(placement), why)
    }

    /// Which check it is that decides.
    fn worst(&self, placement: &Placement, does: &str) -> String {
        let checks = placement.announcement.report.iter().flat_map(|report| &report.checks);
        // As `model::health::add_up` has it: the first of the worst.
        let worst = checks.reduce(|worst, check| if check.status > worst.status { check } else { worst });
        worst.map_or_else(|| format!("it {does}"), |check| format!("the check {} {does}", check.name))
    }

    fn node(&self, text: &str, name: &Label) -> Explained {
        let Some(view) = self.catalog.view().get(name) else { return self.unknown(text) };
        let keys = view.announcements.keys();
        let instances: Vec<Instance> = keys
            .filter_map(|key| {
                let service = self.catalog.service(&key.service)?;
                let placement =
                    service.placements().find(|p| p.node == *name && p.announcement.instance.key.id == key.id)?;
                let counts = service.instances().any(|counted| std::ptr::eq(counted, placement));
                Some(self.instance(placement, counts))
            })
            .collect();
        let member = self.members.members.iter().find(|member| member.id.name == *name);
        let reach = member.map_or("unknown", |member| member.reach.as_str());
        let answered = instances.iter().filter(|instance| instance.answered).count();
        let summary =
            format!("the node {name} is {reach}; {answered} of its {} instances are answered", instances.len());
        Explained {
            name: text.to_owned(),
            kind: "node".to_owned(),
            summary,
            ttl: self.ttl,
            ttl_from: "dns.ttl of this node's configuration".to_owned(),
            instances,
            notes: Vec::new(),
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
        let mut notes = vec![
            "A service is declared by a file in services_dir or by the HTTP API of some node; one whose file has an \
                  error from the start is not declared: `muster validate` and the log of its node say why."
                .to_owned(),
        ];
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
