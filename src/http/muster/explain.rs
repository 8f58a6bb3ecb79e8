//! Explanation of the DNS answer of a name.
//!
//! [`Explainer`] looks the name up in the tables that DNS uses, and describes the provenance of the answer. Reasons of
//! instances come from [`crate::model::reason`], like those of Extended DNS Errors and `_why` names.

mod absence;
mod external;
mod instances;
mod nearness;
mod redirection;
mod signed;
mod static_zone;
mod tag_without_name;
mod user_input;
mod validation;
mod without_dns_name;

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    sync::Arc,
};

use arc_swap::ArcSwap;
use axum::{
    extract::{Path, State},
    http::Uri,
    response::Response,
};
use tokio::sync::watch;

use self::{
    instances::NODE_TTL,
    tag_without_name::TagWithoutName,
    user_input::{Names, Subject},
    without_dns_name::WithoutDnsName,
};
use crate::{
    api::explain::Explained,
    clock::unix_now,
    diagnostic::Diagnostic,
    dns::{
        answer::{
            Answer, Authority, Data, Group, Outside,
            provenance::{Browse, Form, Match, Step},
        },
        message::{
            codes::{Rcode, rtype},
            query::LookupName,
        },
        recursion::{Recursion, Resolution, special_use::SpecialUse},
        zone::{
            Tables,
            rrset::RRset,
            static_names::{Kind, Zone},
        },
    },
    http::{
        Api,
        blocking::{self, Topic},
        blocking_response::show,
        query::{Query, bad},
        response::ApiError,
    },
    model::{
        catalog::Catalog,
        member::Membership,
        name::{Label, Name},
        recursion_access::is_inside,
        registered_name::RegisteredName,
        upstream_address::UpstreamAddress,
    },
};

/// Maximum number of similar service names suggested for an unknown name.
const MAX_SUGGESTED: usize = 3;
/// Source of the TTL of negative answers in the discovery zone.
const NEGATIVE_TTL: &str = "dns.negative_ttl of this node's configuration";
/// Note for names that `resolver.rebind_protection` covers.
const REBIND_PROTECTION: &str = "A reply with a private address is withheld (resolver.rebind_protection): the answer is then empty, with Extended DNS Error \
     15. resolver.rebind_exceptions and resolver.routes permit private addresses.";
/// Client of the explained question, unless the request names another.
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Sources of explanations besides the catalog, in their current state.
#[derive(Clone, Debug)]
pub struct Sources {
    /// Tables that DNS answers from.
    pub tables: Arc<ArcSwap<Tables>>,
    /// Resolution of names outside our zones; `None` if no client may use recursion.
    pub recursion: Option<Arc<Recursion>>,
    /// Default upstreams.
    pub upstreams: Option<watch::Receiver<Vec<UpstreamAddress>>>,
    /// Folder of service files, whose problems are included.
    pub services: PathBuf,
}

pub(in crate::http) async fn explain(
    State(api): State<Api>,
    uri: Uri,
    Path(name): Path<String>,
    query: Query,
) -> Result<Response, ApiError> {
    let qtype = match query.text("type") {
        None => None,
        Some(text) => {
            Some(rtype::parse(text).ok_or_else(|| bad(&format!("type={text}: expected such as A or TYPE65")))?)
        }
    };
    let client = match query.text("client") {
        None => CLIENT,
        Some(text) => text.parse().map_err(|_| bad(&format!("client={text}: expected an IP address")))?,
    };
    show(&api, &uri, &query, Topic::Explain, |blocking::Snapshot { catalog, members, files, .. }| {
        let Sources { tables, recursion, upstreams, services } = &api.explain;
        let upstreams = upstreams.as_ref().map_or_else(Vec::new, |upstreams| upstreams.borrow().clone());
        let explainer = Explainer {
            tables: &tables.load(),
            recursion: recursion.as_deref(),
            upstreams: &upstreams,
            catalog,
            members,
            node: &api.agent.node,
            problems: files.get(services).map_or(&[], |report| &report.problems),
        };
        Ok(explainer.explain(&name, qtype, client))
    })
    .await
}

/// Explains names from one snapshot of the sources.
pub struct Explainer<'a> {
    /// Tables that DNS answers from.
    pub tables: &'a Tables,
    /// Resolution of names outside our zones; `None` if no client may use recursion.
    pub recursion: Option<&'a Recursion>,
    /// Default upstreams.
    pub upstreams: &'a [UpstreamAddress],
    /// Catalog of all announcements.
    pub catalog: &'a Catalog,
    /// Cluster membership.
    pub members: &'a Membership,
    /// This node.
    pub node: &'a Label,
    /// Problems of this node's service files.
    pub problems: &'a [Diagnostic],
}

impl Explainer<'_> {
    /// Explains the DNS answer to a recursive question of `client` for the name that `text` denotes, of `qtype` or of any type.
    pub fn explain(&self, text: &str, qtype: Option<u16>, client: IpAddr) -> Explained {
        if let Some(explained) = self.unanswered_external_node(text) {
            return explained;
        }
        let names = Names { tables: self.tables, catalog: self.catalog, recursion: self.recursion };
        let name = match names.resolve(text) {
            Some(Subject::Service(found)) => return self.without_dns_name(text, &found),
            Some(Subject::Tag(found)) => return self.tag_without_name(text, &found),
            Some(Subject::Name(name)) => LookupName::from_wire(name.wire()).map(|lookup| (name, lookup)),
            None => None,
        };
        let Some((name, lookup)) = name else {
            return Explained { name: text.to_owned(), ..self.unknown(text) };
        };
        let answer = self.tables.lookup(&lookup, qtype.unwrap_or(rtype::A));
        let explained = match answer.steps[..] {
            [] => Explained {
                kind: "unknown".to_owned(),
                summary: format!("{}: query type not supported", answer.rcode),
                rcode: answer.rcode.to_string(),
                ..Explained::default()
            },
            _ if answer.has_reasons() && !self.is_inside(client) => Explained {
                kind: "service".to_owned(),
                source: "why".to_owned(),
                summary: format!(
                    "REFUSED: `_why` names are for clients in resolver.allow, which does not include {client}"
                ),
                rcode: Rcode::Refused.to_string(),
                ..Explained::default()
            },
            [first, ..] => self.answer(text, &lookup, &answer, &first, client),
        };
        let mut explained = Explained { name: text.to_owned(), question: name.to_string(), ..explained };
        explained.notes.extend(answer.steps.first().and_then(|step| signed::note(step.zone?)));
        // Without a type, a name with records of any type is not empty.
        let is_refused = explained.rcode == Rcode::Refused.to_string();
        let is_negative = !is_refused && answer.answer.is_empty() && (qtype.is_some() || explained.records.is_empty());
        if is_negative && let Some((ttl, from)) = negative_ttl(&answer) {
            (explained.ttl, explained.ttl_from) = (ttl, from.to_owned());
        }
        // Records of one name may have different TTLs: that of the type in question is what the client gets.
        if explained.kind == "static"
            && let Some(set) = answer.answer.first().filter(|set| qtype == Some(set.data.rtype()))
        {
            explained.ttl = set.data.ttl();
        }
        if let Some(qtype) = qtype
            && explained.rcode == Rcode::NoError.to_string()
            && !matches!(explained.kind.as_str(), "delegation" | "outside")
            && answer.answer.is_empty()
            // Without an answered instance, the summary explains the lack of records.
            && (explained.instances.is_empty() || explained.instances.iter().any(|instance| instance.answered))
        {
            explained.summary = format!("{}; no {} records", explained.summary, rtype::name(qtype));
        }
        explained
    }

    /// Reports whether `_why` names are answered to this client.
    fn is_inside(&self, client: IpAddr) -> bool {
        is_inside(self.recursion.is_some_and(|recursion| recursion.allows(client)), client)
    }

    /// Explains an answer with its CNAME chain.
    fn answer(
        &self,
        text: &str,
        name: &LookupName,
        answer: &Answer<'_>,
        first: &Step<'_>,
        client: IpAddr,
    ) -> Explained {
        let mut explained = self.step(text, name, first, client);
        let mut rcode = match answer.outside {
            Outside::Question => explained.rcode.clone(),
            Outside::Target | Outside::Nothing => answer.rcode.to_string(),
        };
        if let Some((target, end)) = chain_end(answer) {
            let target_name = presentation(&target);
            let to = self.step(&target_name, &target, end, client);
            explained.summary = format!("{}; CNAME to {target_name}: {}", explained.summary, to.summary);
            explained.instances = to.instances;
            explained.notes.extend(to.notes);
            if matches!(to.source.as_str(), "route" | "upstream") {
                rcode = to.rcode;
            }
        }
        let types = match (answer.outside, SpecialUse::find(name)) {
            (Outside::Question, Some(zone)) if explained.source == "special-use" => zone.types(name),
            _ => self.tables.types(first),
        };
        let records = types.into_iter().map(|rtype| rtype::name(rtype).into_owned()).collect();
        Explained { rcode, records, ..explained }
    }

    /// Explains one name of an answer.
    fn step(&self, text: &str, name: &LookupName, step: &Step<'_>, client: IpAddr) -> Explained {
        let explained = match step.found {
            Match::Node { node, .. } => self.node(node),
            Match::External { node, .. } => self.external_node(node),
            Match::Apex(zone) => self.apex(zone),
            Match::Static { rrsets, wildcard } => self.static_records(step.zone, rrsets, wildcard),
            Match::Delegation { owner, rrsets } => self.delegation(step.zone, owner, rrsets),
            Match::Redirect { owner, dname } => self.redirect(step.zone, owner, dname),
            Match::Reverse(address) => self.reverse(address),
            Match::Empty => self.generated("empty", "NODATA: empty non-terminal, names exist below it".to_owned()),
            Match::Address(address) => self.generated("address", format!("name of the address {address}")),
            Match::Browse(Browse::Types) => {
                self.generated("browse", "types of all services with a healthy instance".to_owned())
            }
            Match::Browse(Browse::Zone) => {
                self.generated("browse", "the zone that clients of DNS-SD browse".to_owned())
            }
            Match::Unavailable(zone) => self.unavailable(zone),
            Match::Nothing(absence) => self.nothing(text, name, step.zone, absence),
            Match::Outside => self.outside(name, client),
            found => match found.service().and_then(|service| name_of(service.name())) {
                Some(service) if matches!(found, Match::Why { .. }) => self.why(&service, &found),
                Some(service) => self.service(&service, &found),
                None => self.unknown(text),
            },
        };
        if explained.source.is_empty() {
            return Explained { source: source(&step.found).to_owned(), ..explained };
        }
        explained
    }

    fn apex(&self, zone: &Zone) -> Explained {
        match zone.kind {
            Kind::Discovery => self.generated("zone", "apex of the discovery zone".to_owned()),
            Kind::Consul => self.generated("zone", "apex of an alias domain with the names of Consul".to_owned()),
            Kind::Static => self.static_apex(zone),
        }
    }

    fn reverse(&self, address: IpAddr) -> Explained {
        let instances = self.at_address(address);
        let answered = instances.iter().filter(|instance| instance.answered);
        let names: Vec<String> = answered.map(|instance| format!("{}/{}", instance.service, instance.id)).collect();
        let summary = match (&names[..], self.tables.node_at(&address)) {
            ([], Some(node)) => format!("reverse name of {address}: address of node {node}"),
            ([], None) => format!("reverse name of {address}: no instance at this address is answered"),
            (names, _) => format!("reverse name of {address}: address of {}", names.join(", ")),
        };
        Explained { instances, ..self.generated("reverse", summary) }
    }

    /// Explains a name outside our zones.
    fn outside(&self, name: &LookupName, client: IpAddr) -> Explained {
        let resolution = self.recursion.map(|recursion| recursion.resolution(name, Some(client)));
        let (source, rcode, summary) = match resolution {
            None => {
                let summary = "REFUSED: outside this node's zones, and resolver.allow is empty".to_owned();
                ("refused", Some(Rcode::Refused), summary)
            }
            Some(Resolution::Prohibited) => {
                let summary =
                    format!("REFUSED: outside this node's zones, and resolver.allow does not include {client}");
                ("refused", Some(Rcode::Refused), summary)
            }
            Some(Resolution::Loop(_)) => {
                ("loop", Some(Rcode::Refused), "REFUSED: test name of this server's loop detection".to_owned())
            }
            Some(Resolution::SpecialUse(zone)) => {
                let rcode = zone.rcode(name);
                ("special-use", Some(rcode), format!("{rcode}: special-use name, answered locally"))
            }
            Some(Resolution::Route((suffix, servers))) => {
                let servers = join(servers);
                ("route", None, format!("outside this node's zones: route {suffix} forwards it to {servers}"))
            }
            Some(Resolution::Upstream) if self.upstreams.is_empty() => {
                let summary = "SERVFAIL: outside this node's zones, and no upstream is known".to_owned();
                ("upstream", Some(Rcode::ServFail), summary)
            }
            Some(Resolution::Upstream) => {
                let upstreams = join(self.upstreams);
                ("upstream", None, format!("outside this node's zones: forwarded to {upstreams}"))
            }
        };
        let resolved = self.recursion.zip(resolution);
        let is_protected = resolved.is_some_and(|(recursion, resolution)| recursion.is_protected(name, resolution));
        let mut notes = if is_protected { vec![REBIND_PROTECTION.to_owned()] } else { Vec::new() };
        let validation =
            resolved.and_then(|(recursion, resolution)| validation::note(recursion, name, resolution, unix_now()));
        notes.extend(validation);
        Explained {
            notes,
            kind: "outside".to_owned(),
            source: source.to_owned(),
            rcode: rcode.map_or_else(String::new, |rcode| rcode.to_string()),
            summary,
            ttl_from: "the upstream".to_owned(),
            ..Explained::default()
        }
    }

    /// Explains a name with generated records.
    fn generated(&self, kind: &str, summary: String) -> Explained {
        let ttl_from = NODE_TTL.to_owned();
        Explained { kind: kind.to_owned(), summary, ttl: self.tables.ttl(), ttl_from, ..Explained::default() }
    }

    /// Explains an unknown name, with suggestions.
    fn unknown(&self, text: &str) -> Explained {
        let mut near: Vec<(usize, &str)> = self
            .catalog
            .services()
            .map(|(name, _)| (strsim::damerau_levenshtein(&text.to_ascii_lowercase(), name.as_str()), name.as_str()))
            .collect();
        near.sort_unstable();
        let near =
            near.iter().take(MAX_SUGGESTED).filter(|(distance, name)| *distance <= name.len().max(text.len()) / 2);
        let near: Vec<&str> = near.map(|(_, name)| *name).collect();
        let mut notes = self.problems();
        notes.push(
            "Services are declared by files in services_dir or through the HTTP API of a node. A new file with errors \
             declares no service: run `muster validate`, or see the log of its node."
                .to_owned(),
        );
        // Without the discovery zone, the text may be a name that DNS has none for.
        let zones = self.tables.discovery_zones().map(|zone| format!(".{zone}"));
        let below =
            zones.filter_map(|zone| text.strip_suffix(&zone).or_else(|| text.strip_suffix(zone.trim_end_matches('.'))));
        let below: Vec<&str> = below.collect();
        let mut summary = "no node declares this name".to_owned();
        if let Some(found) = below.iter().find_map(|text| WithoutDnsName::find(self.catalog, text)) {
            notes.insert(0, found.note());
        } else if let Some(found) = below.iter().find_map(|text| TagWithoutName::find(self.catalog, text)) {
            (summary, notes) = (found.summary(), vec![found.note()]);
        } else if !near.is_empty() {
            notes.insert(0, format!("Did you mean {}?", near.join(", ")));
        }
        Explained { kind: "unknown".to_owned(), summary: format!("NXDOMAIN: {summary}"), notes, ..Explained::default() }
    }
}

/// Returns the `Source` of a match.
fn source(found: &Match<'_>) -> &'static str {
    match found {
        Match::Set { form: Form::Service, .. } => "service",
        Match::Set { form: Form::Tag(_) | Form::SrvTag(_) | Form::Subtype(..), .. } => "tag",
        Match::Set { form: Form::SrvProtocol(_) | Form::SrvService, .. } => "protocol",
        Match::Instance { .. } => "instance",
        Match::Port { .. } => "port",
        Match::Advertised { .. } | Match::Browse(_) => "dns-sd",
        Match::Bindings { .. } => "svcb",
        Match::Why { .. } => "why",
        Match::Node { .. } => "node",
        Match::External { .. } => "external-node",
        Match::Apex(_) => "apex",
        Match::Static { wildcard: None, .. } => "static",
        Match::Static { wildcard: Some(_), .. } => "wildcard",
        Match::Delegation { .. } => "delegation",
        Match::Redirect { .. } => "redirect",
        Match::Reverse(_) => "reverse",
        Match::Empty => "empty",
        Match::Address(_) => "address",
        Match::Unavailable(_) => "unavailable",
        Match::Nothing(_) => "nothing",
        Match::Outside => "outside",
    }
}

/// Returns the last name of a CNAME chain and its step.
fn chain_end<'a, 't>(answer: &'a Answer<'t>) -> Option<(LookupName, &'a Step<'t>)> {
    let last = answer.steps.len().checked_sub(2)?;
    // A DNAME precedes the CNAME that it makes.
    let mut cnames = answer.answer.iter().filter(|group| group.data.rtype() == rtype::CNAME);
    let cname = cnames.nth(last)?;
    let set = match &cname.data {
        Data::Stored(set) => *set,
        Data::Made(set) => set,
        _ => return None,
    };
    Some((cname.zone.target(set.records.first()?, 0)?, answer.steps.last()?))
}

/// Returns the TTL of a negative answer and its source; `None` if the answer has no SOA.
fn negative_ttl(answer: &Answer<'_>) -> Option<(u32, &'static str)> {
    let Authority::Soa(Group { zone, data: Data::Soa { ttl, .. }, .. }) = answer.authority else { return None };
    let from = match zone.kind {
        Kind::Discovery | Kind::Consul => NEGATIVE_TTL,
        Kind::Static => "the SOA of the zone file",
    };
    Some((ttl, from))
}

fn first_line(rrsets: &[RRset]) -> u32 {
    rrsets.iter().map(|set| set.line).min().unwrap_or_default()
}

fn presentation(name: &LookupName) -> String {
    Name::from_labels(name.labels()).map_or_else(|_| String::new(), |name| name.to_string())
}

/// Returns the absolute name of an owner name relative to a zone.
fn absolute(owner: &[u8], zone: &Zone) -> String {
    let name = LookupName::from_wire(&[owner, zone.origin.wire()].concat());
    name.map_or_else(String::new, |name| presentation(&name))
}

fn name_of(label: &[u8]) -> Option<RegisteredName> {
    RegisteredName::parse(std::str::from_utf8(label).ok()?).ok()
}

fn join(servers: &[UpstreamAddress]) -> String {
    servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
