//! `muster import consul --check`: the DNS answers of Consul and muster for every name of the catalog, side by side.

mod show;

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr},
    thread::sleep,
    time::Duration,
};

use serde_json::Value as Json;

use super::{
    Args, Exit, ImportError, NO_SERVICES,
    dns_query::{self, Target},
    fetch::Consul,
};
use crate::{
    cli::{address::Address, client::segment, output::print_error, table::printable},
    model::{name::Name, registered_name::RegisteredName},
};

/// Domain of Consul, unless the agent tells another one.
const CONSUL_DOMAIN: &str = "consul";
/// Time after which a name whose answers differ is asked for again: a change reaches the systems at different moments.
const SETTLE: Duration = Duration::from_secs(1);
/// Service of Consul's own servers, which muster does not have.
const CONSUL_SERVICE: &str = "consul";

/// Subject of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    Service,
    Node,
}

/// A name that is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Question {
    subject: Subject,
    /// Name of the service or node, as in the catalog.
    of: String,
    /// True for the name of a service without a datacenter and a tag.
    is_base: bool,
    /// The DNS name as text.
    text: String,
}

/// Answers of one server for a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Answers {
    addresses: BTreeSet<IpAddr>,
    /// Targets of SRV records; nodes have none.
    instances: BTreeSet<Target>,
}

impl Answers {
    fn query(server: SocketAddr, name: &Name, subject: Subject) -> Result<Self, ImportError> {
        let answers = || {
            let addresses = dns_query::addresses(server, name)?;
            let instances = match subject {
                Subject::Service => dns_query::instances(server, name)?,
                Subject::Node => BTreeSet::new(),
            };
            Ok(Self { addresses, instances })
        };
        answers().map_err(|error: io::Error| ImportError::Request(format!("cannot query {server} for {name}: {error}")))
    }

    fn is_empty(&self) -> bool {
        self.addresses.is_empty() && self.instances.is_empty()
    }
}

/// Answers of both systems for a name.
struct Comparison {
    question: Question,
    result: Compared,
}

/// Result of a comparison.
enum Compared {
    /// The service or node has no DNS name.
    NoName,
    /// Answers of Consul, then of muster.
    Answers(Answers, Answers),
    /// Neither answers, although the catalog of Consul has what it should answer.
    Unanswered(String),
}

impl Comparison {
    fn is_equal(&self) -> bool {
        match &self.result {
            Compared::NoName => true,
            Compared::Answers(consul, muster) => consul == muster,
            Compared::Unanswered(_) => false,
        }
    }
}

/// The catalog of Consul, and both DNS servers.
struct Comparer<'a> {
    consul: &'a Consul,
    dns: SocketAddr,
    muster_dns: SocketAddr,
}

impl Comparer<'_> {
    fn compare(&self, question: Question) -> Result<Comparison, ImportError> {
        let is_service = question.subject == Subject::Service;
        let has_label = !is_service || RegisteredName::parse(&question.of).is_ok_and(|name| name.dns_label().is_ok());
        let result = match Name::parse(&question.text).ok().filter(|_| has_label) {
            None => Compared::NoName,
            Some(name) => {
                let consul = Answers::query(self.dns, &name, question.subject)?;
                let muster = Answers::query(self.muster_dns, &name, question.subject)?;
                let lacking = if consul.is_empty() && muster.is_empty() { self.unanswered(&question)? } else { None };
                lacking.map_or_else(|| Compared::Answers(consul, muster), Compared::Unanswered)
            }
        };
        Ok(Comparison { question, result })
    }

    /// Describes what the catalog has for a name that is not answered. `None`: nothing that has to be answered.
    fn unanswered(&self, question: &Question) -> Result<Option<String>, ImportError> {
        let passing = match question.subject {
            Subject::Node => return Ok(Some("Consul has the node, and neither answers".to_owned())),
            Subject::Service if !question.is_base => return Ok(None),
            Subject::Service => {
                let path = format!("/v1/health/service/{}?passing", segment(&question.of));
                self.consul.get(&path)?.as_array().map_or(0, Vec::len)
            }
        };
        let instances = if passing == 1 { "instance" } else { "instances" };
        Ok((passing > 0).then(|| format!("Consul has {passing} passing {instances}, and neither answers")))
    }
}

/// Compares all names of services and nodes in the catalog.
pub(super) fn run(args: &Args, address: &Address) -> Result<Exit, ImportError> {
    let consul = Consul::new(&args.consul, address)?;
    let questions = questions(&consul, args.domain.as_deref())?;
    let comparer = Comparer { consul: &consul, dns: args.dns, muster_dns: args.muster_dns };
    let mut comparisons = questions.into_iter().map(|name| comparer.compare(name)).collect::<Result<Vec<_>, _>>()?;
    if !comparisons.iter().all(Comparison::is_equal) {
        sleep(SETTLE);
        for comparison in comparisons.iter_mut().filter(|comparison| !comparison.is_equal()) {
            *comparison = comparer.compare(comparison.question.clone())?;
        }
    }
    if args.json {
        show::json(&comparisons);
    } else {
        show::table(&comparisons);
    }
    let hidden = consul.hidden();
    for finding in &hidden {
        print_error!("muster: {}: {}", printable(&finding.file), finding.reason);
    }
    let has_services = comparisons.iter().any(|comparison| comparison.question.subject == Subject::Service);
    if !has_services {
        print_error!("muster: {NO_SERVICES}");
    }
    let is_equal = has_services && comparisons.iter().all(Comparison::is_equal);
    Ok(if is_equal && hidden.is_empty() { Exit::Done } else { Exit::Problems })
}

/// The names of all services and nodes: with and without the datacenter, and those of tags.
fn questions(consul: &Consul, domain: Option<&str>) -> Result<Vec<Question>, ImportError> {
    let expected = |path: &str, what: &str| ImportError::Request(format!("{path}: expected {what}"));
    let agent = consul.get("/v1/agent/self")?;
    let text = |table: &str, key: &str| agent.get(table).and_then(|config| config.get(key)).and_then(Json::as_str);
    let domain = domain.or(text("DebugConfig", "DNSDomain")).unwrap_or(CONSUL_DOMAIN).trim_matches('.');
    let datacenter = text("Config", "Datacenter").filter(|text| !text.is_empty());
    let mut zones = vec![domain.to_owned()];
    zones.extend(datacenter.map(|datacenter| format!("{datacenter}.{domain}")));

    let path = "/v1/catalog/services";
    let services = consul.get(path)?;
    let services = services.as_object().ok_or_else(|| expected(path, "an object"))?;
    let mut questions = Vec::new();
    for (service, tags) in services.iter().filter(|(name, _)| *name != CONSUL_SERVICE) {
        let tags = tags.as_array().map(Vec::as_slice).unwrap_or_default().iter().filter_map(Json::as_str);
        let owners =
            [service.clone()].into_iter().chain(tags.filter(|tag| is_asked(tag)).map(|tag| format!("{tag}.{service}")));
        for (number, owner) in owners.enumerate() {
            for (at, zone) in zones.iter().enumerate() {
                let text = format!("{owner}.service.{zone}");
                let is_base = number == 0 && at == 0;
                questions.push(Question { subject: Subject::Service, of: service.clone(), is_base, text });
            }
        }
    }
    let path = "/v1/catalog/nodes";
    let nodes = consul.get(path)?;
    for node in nodes.as_array().ok_or_else(|| expected(path, "a list"))? {
        let Some(node) = node.get("Node").and_then(Json::as_str) else { continue };
        for zone in &zones {
            let text = format!("{node}.node.{zone}");
            questions.push(Question { subject: Subject::Node, of: node.to_owned(), is_base: false, text });
        }
    }
    Ok(questions)
}

/// Reports whether programs can ask for a tag: labels of host names, with dots between them, which Consul answers.
fn is_asked(tag: &str) -> bool {
    tag.split('.').all(|label| RegisteredName::parse(label).is_ok_and(|name| name.tag_label().is_ok()))
}
