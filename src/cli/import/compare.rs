//! `muster import consul --check`: the DNS answers of Consul and muster for every service, side by side.

use std::{
    collections::BTreeSet,
    fmt::Display,
    io,
    net::{IpAddr, SocketAddr},
    thread::sleep,
    time::Duration,
};

use serde_json::{Value as Json, json};

use super::{
    Args, Exit, ImportError,
    dns_query::{self, Target},
    fetch::Consul,
};
use crate::{
    cli::{
        address::Address,
        table::{Table, print, printable},
    },
    model::name::Name,
    printable::escaped_json,
};

/// Domain of Consul, unless the agent tells another one.
const CONSUL_DOMAIN: &str = "consul";
/// Time after which a service whose answers differ is asked for again: a change reaches the systems at different moments.
const SETTLE: Duration = Duration::from_secs(1);
/// Number of values in a cell of the table: three addresses of IPv6 fit a line. `--json` lists all.
const SHOWN: usize = 3;
/// Service of Consul's own servers, which muster does not have.
const CONSUL_SERVICE: &str = "consul";

/// Answers of one server for a service.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Answers {
    addresses: BTreeSet<IpAddr>,
    instances: BTreeSet<Target>,
}

impl Answers {
    fn query(server: SocketAddr, name: &Name) -> Result<Self, ImportError> {
        let answers = || {
            Ok(Self { addresses: dns_query::addresses(server, name)?, instances: dns_query::instances(server, name)? })
        };
        answers().map_err(|error: io::Error| ImportError::Request(format!("cannot query {server} for {name}: {error}")))
    }
}

/// Answers of both systems for a service. `None`: the service has no DNS name.
struct Comparison {
    service: String,
    answers: Option<(Answers, Answers)>,
}

impl Comparison {
    fn is_equal(&self) -> bool {
        self.answers.as_ref().is_none_or(|(consul, muster)| consul == muster)
    }
}

/// Compares all services of the catalog.
pub(super) fn run(args: &Args, address: &Address) -> Result<Exit, ImportError> {
    let consul = Consul::new(&args.consul, address)?;
    let services = consul.get("/v1/catalog/services")?;
    let services =
        services.as_object().ok_or_else(|| ImportError::Request("/v1/catalog/services: expected an object".into()))?;
    let domain = match &args.domain {
        Some(domain) => domain.clone(),
        None => {
            let agent = consul.get("/v1/agent/self")?;
            let told = agent.get("DebugConfig").and_then(|config| config.get("DNSDomain")).and_then(Json::as_str);
            told.unwrap_or(CONSUL_DOMAIN).to_owned()
        }
    };
    let domain = domain.trim_matches('.');
    let mut comparisons = Vec::new();
    for service in services.keys().filter(|name| *name != CONSUL_SERVICE) {
        comparisons.push(compare(args, service, domain)?);
    }
    if !comparisons.iter().all(Comparison::is_equal) {
        sleep(SETTLE);
        for comparison in comparisons.iter_mut().filter(|comparison| !comparison.is_equal()) {
            *comparison = compare(args, &comparison.service, domain)?;
        }
    }
    if args.json {
        print_json(&comparisons);
    } else {
        print_table(&comparisons);
    }
    let hidden = consul.hidden();
    for finding in &hidden {
        eprintln!("muster: {}: {}", printable(&finding.file), finding.reason);
    }
    if comparisons.is_empty() {
        eprintln!(
            "muster: nothing was compared: Consul listed no services. It hides those that a token may not read (service:read)."
        );
    }
    let is_equal = !comparisons.is_empty() && comparisons.iter().all(Comparison::is_equal);
    Ok(if is_equal && hidden.is_empty() { Exit::Done } else { Exit::Problems })
}

fn compare(args: &Args, service: &str, domain: &str) -> Result<Comparison, ImportError> {
    let answers = match Name::parse(&format!("{service}.service.{domain}")) {
        Ok(name) => Some((Answers::query(args.dns, &name)?, Answers::query(args.muster_dns, &name)?)),
        Err(_) => None,
    };
    Ok(Comparison { service: service.to_owned(), answers })
}

/// Values of one set that another one lacks.
fn lacking<T: Ord + Clone>(from: &BTreeSet<T>, other: &BTreeSet<T>) -> Vec<T> {
    from.difference(other).cloned().collect()
}

/// The first values, and the number of the others.
fn join<T: Display>(values: impl IntoIterator<Item = T>) -> String {
    let mut values = values.into_iter();
    let mut shown: Vec<String> = values.by_ref().take(SHOWN).map(|value| value.to_string()).collect();
    match values.count() {
        0 => {}
        left => shown.push(format!("and {left} more")),
    }
    shown.join(" ")
}

fn endpoints(targets: impl IntoIterator<Item = Target>) -> Vec<SocketAddr> {
    targets.into_iter().map(SocketAddr::from).collect()
}

/// Describes the difference of two sets for people.
fn difference(missing: &str, extra: &str) -> String {
    match (missing.is_empty(), extra.is_empty()) {
        (true, true) => "same".to_owned(),
        (false, true) => format!("missing in muster: {missing}"),
        (true, false) => format!("only in muster: {extra}"),
        (false, false) => format!("missing in muster: {missing}; only in muster: {extra}"),
    }
}

fn print_table(comparisons: &[Comparison]) {
    let mut table = Table::with_head(&["SERVICE", "TYPE", "CONSUL", "MUSTER", "RESULT"]);
    for Comparison { service, answers } in comparisons {
        let Some((consul, muster)) = answers else {
            table.row([service.clone(), String::new(), String::new(), String::new(), "no DNS name".to_owned()]);
            continue;
        };
        let (a, b) = (&consul.addresses, &muster.addresses);
        let result = difference(&join(lacking(a, b)), &join(lacking(b, a)));
        table.row([service.clone(), "A, AAAA".to_owned(), join(a), join(b), result]);
        let (a, b) = (&consul.instances, &muster.instances);
        let result = difference(&join(endpoints(lacking(a, b))), &join(endpoints(lacking(b, a))));
        table.row([service.clone(), "SRV".to_owned(), join(endpoints(a.clone())), join(endpoints(b.clone())), result]);
    }
    let differing = comparisons.iter().filter(|comparison| !comparison.is_equal()).count();
    print(&format!("{table}{} services compared, {differing} differ\n", comparisons.len()));
}

fn print_json(comparisons: &[Comparison]) {
    let side =
        |answers: &Answers| json!({"Addresses": answers.addresses, "Instances": endpoints(answers.instances.clone())});
    let values: Vec<Json> = comparisons
        .iter()
        .map(|comparison| match &comparison.answers {
            Some((consul, muster)) => json!({
                "Service": comparison.service, "Equal": comparison.is_equal(), "Consul": side(consul), "Muster": side(muster),
            }),
            None => json!({"Service": comparison.service, "Equal": true, "Consul": null, "Muster": null}),
        })
        .collect();
    print(&escaped_json(&format!("{:#}\n", Json::Array(values))));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_of_the_table_are_bounded() {
        for (count, expected) in
            [(0, ""), (2, "0 1"), (3, "0 1 2"), (4, "0 1 2 and 1 more"), (300, "0 1 2 and 297 more")]
        {
            assert_eq!(join(0..count), expected);
        }
    }
}
