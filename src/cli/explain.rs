//! `muster explain`, `muster instances` and `muster services`.

use std::{fmt::Write, time::SystemTime};

use super::{
    Exit,
    client::{self, Client, ClientError, print_json, segment, with, with_exit},
    members::since,
    output::print,
    table::{Table, printable},
};
use crate::{
    api::{
        catalog::Summary,
        explain::{Check, Explained, Instance, Nearest, Tier},
    },
    dns::message::codes::rtype,
    model::{reason, registered_name::RegisteredName},
};

/// Number of answered instances of a service that DNS does not answer.
const NO_DNS_NAME: &str = "no DNS name";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Service, instance, node or DNS name
    #[arg(value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    name: String,
    /// The record type that is asked for, such as SRV [default: any]
    #[arg(value_name = "TYPE", value_parser = record_type)]
    rtype: Option<String>,
    #[command(flatten)]
    client: client::Args,
}

fn record_type(text: &str) -> Result<String, String> {
    match rtype::parse(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err("expected a record type such as A, SRV or TYPE65".to_owned()),
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct InstancesArgs {
    /// Name of the service
    #[arg(value_name = "SERVICE")]
    service: String,
    #[command(flatten)]
    client: client::Args,
}

#[derive(Debug, clap::Args)]
pub(super) struct ServicesArgs {
    #[command(flatten)]
    client: client::Args,
}

fn ask(client: &Client, name: &str, rtype: Option<&str>) -> Result<(hyper::body::Bytes, Explained), ClientError> {
    let query = rtype.map_or_else(String::new, |rtype| format!("?type={rtype}"));
    let answer = client.get(&format!("/v1/muster/explain/{}{query}", segment(name)))?;
    let explained = client.read(&answer)?;
    Ok((answer, explained))
}

pub(super) fn run(args: &Args) -> Exit {
    with_exit(&args.client, |client| {
        let (answer, explained) = ask(client, &args.name, args.rtype.as_deref())?;
        if args.client.json {
            print_json(client, &answer)?;
        } else {
            print(&text(&explained, SystemTime::now()));
        }
        Ok(if explained.kind == "unknown" { Exit::Problems } else { Exit::Done })
    })
}

/// Formats an explanation with a paragraph per instance, so that long reasons are not wrapped in a table.
fn text(explained: &Explained, now: SystemTime) -> String {
    let mut text = format!("{}: {}\n", printable(&explained.name), printable(&explained.summary));
    let has_ttl = !explained.ttl_from.is_empty();
    if has_ttl && ["service", "instance", "static", "delegation", "reverse"].contains(&explained.kind.as_str()) {
        let _ = writeln!(text, "TTL {} s, from {}", explained.ttl, printable(&explained.ttl_from));
    }
    if let Some(nearest) = &explained.nearest {
        text.push_str(&tiers(nearest));
    }
    if !explained.checks.is_empty() {
        text.push_str("\nchecks of the node:\n");
        text.extend(explained.checks.iter().map(result));
    }
    let differ = explained.instances.iter().any(|instance| instance.answered && instance.ttl != explained.ttl);
    for instance in &explained.instances {
        let sign = if instance.answered { '+' } else { '-' };
        let since = since(&instance.since, now);
        let since = if since.is_empty() { String::new() } else { format!(" for {since}") };
        let Instance { service, id, node, state, why, .. } = instance;
        let _ = writeln!(text, "\n{sign} {}", printable(&format!("{service}/{id} on {node}: {state}{since}")));
        let _ = writeln!(text, "    {}", printable(why));
        // Agents before 0.2 do not send the source.
        if differ && instance.answered && !instance.ttl_from.is_empty() {
            let _ = writeln!(text, "    TTL {} s, from {}", instance.ttl, printable(&instance.ttl_from));
        }
        if let Some(registered) = &instance.registered_as {
            let _ = writeln!(text, "    registered as {}", printable(registered));
        }
        if let Some(external) = &instance.external_node {
            let _ =
                writeln!(text, "    {}", printable(&format!("external node {external}, registered through {node}")));
        }
        if let Some(host) = &instance.host {
            let line = reason::followed(host, &instance.addresses, instance.host_problem.as_deref());
            let _ = writeln!(text, "    {}", printable(&line));
        }
        // The reason has the output of a single check, unless that is of a healthy one or from before a restart.
        if instance.checks.len() > 1 || instance.checks.iter().any(|check| !why.contains(&check.output)) {
            text.extend(instance.checks.iter().map(result));
        }
    }
    for note in &explained.notes {
        let _ = write!(text, "\n{}\n", printable(note));
    }
    text
}

/// Formats the result of a check as a line.
fn result(check: &Check) -> String {
    let Check { status, name, output, .. } = check;
    let output = if output.is_empty() { String::new() } else { format!(": {output}") };
    format!("    {}\n", printable(&format!("{status} {name}{output}")))
}

/// Formats the choice of near instances: its policy, and a line per tier, the answered one marked.
fn tiers(nearest: &Nearest) -> String {
    let Nearest { nearest: first, nearest_from, min_healthy, min_healthy_from, answered, tiers } = nearest;
    let mut text = format!("nearest: {first}, from {}\n", printable(nearest_from));
    let _ = writeln!(text, "min_healthy: {min_healthy}, from {}", printable(min_healthy_from));
    for tier in tiers {
        let sign = if tier.answered { '>' } else { ' ' };
        let Tier { tier: kind, name, declared, healthy, warming, required, .. } = tier;
        let area = match (kind.as_str(), name.as_str()) {
            ("zone", "") => "zone: this node has none".to_owned(),
            ("all", _) => "all".to_owned(),
            (kind, name) => printable(&format!("{kind} {name}")).into_owned(),
        };
        // Each healthy instance counts for the last tier.
        let counted = if *warming > 0 && kind != "all" {
            format!(", {} counted ({warming} in a slow start)", healthy.saturating_sub(*warming))
        } else {
            String::new()
        };
        let _ = writeln!(text, "{sign} {area}: {healthy} of {declared} healthy{counted}, {required} required");
    }
    if answered.is_empty() {
        text.push_str("no tier is answered\n");
    }
    text
}

pub(super) fn instances(args: &InstancesArgs) -> Exit {
    with(&args.client, |client| {
        let (answer, explained) = ask(client, &args.service, None)?;
        if explained.instances.is_empty() {
            let notes = explained.notes.join("\n");
            return Err(ClientError::Refused(format!("{}: {}\n{notes}", explained.name, explained.summary)));
        }
        if args.client.json {
            return print_json(client, &answer);
        }
        let now = SystemTime::now();
        let mut table = Table::with_head(&["INSTANCE", "NODE", "ADDRESS", "WEIGHT", "STATE", "SINCE", "WHY"]);
        for instance in explained.instances {
            let address = instance.addresses.first().cloned().or(instance.host).unwrap_or_default();
            let port = if instance.port == 0 { String::new() } else { format!(":{}", instance.port) };
            let address = if address.contains(':') && !port.is_empty() { format!("[{address}]") } else { address };
            table.row([
                instance.id,
                instance.node,
                format!("{address}{port}"),
                instance.weight.to_string(),
                instance.state,
                since(&instance.since, now),
                instance.why,
            ]);
        }
        print(&table.to_string());
        Ok(())
    })
}

pub(super) fn services(args: &ServicesArgs) -> Exit {
    with(&args.client, |client| {
        // Consul has the same endpoint, without the number of answered instances.
        client.agent()?;
        let answer = client.get("/v1/internal/ui/services")?;
        let services: Vec<Summary> = client.read(&answer)?;
        if args.client.json {
            return print_json(client, &answer);
        }
        let mut table = Table::with_head(&["SERVICE", "ANSWERED", "TAGS"]);
        for Summary { name, muster, instance_count, tags, .. } in services {
            // The API has services that DNS has no name for.
            let has_name = RegisteredName::parse(&name).is_ok_and(|name| name.dns_label().is_ok());
            let answered = format!("{} of {instance_count}", muster.answered);
            let answered = if has_name { answered } else { NO_DNS_NAME.to_owned() };
            table.row([name, answered, tags.join(", ")]);
        }
        print(&table.to_string());
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::api::explain::Check;

    #[test]
    fn explanation_shows_the_reason_of_each_instance() {
        let check = |name: &str, status: &str, output: &str| Check {
            name: name.to_owned(),
            status: status.to_owned(),
            output: output.to_owned(),
            ..Check::default()
        };
        let tier = |kind: &str, name: &str, [declared, healthy, warming, required]: [usize; 4]| Tier {
            tier: kind.to_owned(),
            name: name.to_owned(),
            declared,
            healthy,
            warming,
            required,
            answered: false,
        };
        let instance = |id: &str, answered, state: &str, why: &str| Instance {
            service: "web".to_owned(),
            id: id.to_owned(),
            node: "host-a".to_owned(),
            answered,
            state: state.to_owned(),
            why: why.to_owned(),
            since: "1970-01-01T00:00:10Z".to_owned(),
            ..Instance::default()
        };
        let explained = Explained {
            name: "web".to_owned(),
            kind: "service".to_owned(),
            summary: "1 of 2 answered".to_owned(),
            ttl: 5,
            ttl_from: "dns.ttl of this node's configuration".to_owned(),
            nearest: Some(Nearest {
                nearest: "zone".to_owned(),
                nearest_from: "the nearest of web/web-1".to_owned(),
                min_healthy: "50%".to_owned(),
                min_healthy_from: "dns.min_healthy of this node's configuration".to_owned(),
                answered: "datacenter".to_owned(),
                tiers: vec![
                    tier("zone", "", [0, 0, 0, 1]),
                    Tier { answered: true, ..tier("datacenter", "fra1", [4, 3, 1, 2]) },
                    tier("all", "", [4, 3, 1, 1]),
                ],
            }),
            checks: vec![check("Disk", "critical", "91 %"), check("node:1", "passing", "")],
            instances: vec![
                instance("web-1", true, "passing", "answered with weight 10"),
                Instance {
                    checks: vec![check("tcp a:1", "passing", "not checked since")],
                    ..instance("web-3", true, "passing", "answered with weight 10")
                },
                Instance {
                    checks: vec![check("tcp a:1", "critical", "refused")],
                    ..instance("web-4", false, "critical", "check tcp a:1 is critical: refused")
                },
                Instance {
                    registered_as: Some("web:2".to_owned()),
                    checks: vec![check("tcp a:1", "passing", ""), check("tcp b:2", "critical", "refused\u{1b}")],
                    ..instance("web-2", false, "critical", "check tcp b:2 is critical: refused")
                },
            ],
            notes: vec!["A note.".to_owned()],
            ..Explained::default()
        };
        let expected = "\
web: 1 of 2 answered
TTL 5 s, from dns.ttl of this node's configuration
nearest: zone, from the nearest of web/web-1
min_healthy: 50%, from dns.min_healthy of this node's configuration
  zone: this node has none: 0 of 0 healthy, 1 required
> datacenter fra1: 3 of 4 healthy, 2 counted (1 in a slow start), 2 required
  all: 3 of 4 healthy, 1 required

checks of the node:
    critical Disk: 91 %
    passing node:1

+ web/web-1 on host-a: passing for 1m30s
    answered with weight 10

+ web/web-3 on host-a: passing for 1m30s
    answered with weight 10
    passing tcp a:1: not checked since

- web/web-4 on host-a: critical for 1m30s
    check tcp a:1 is critical: refused

- web/web-2 on host-a: critical for 1m30s
    check tcp b:2 is critical: refused
    registered as web:2
    passing tcp a:1
    critical tcp b:2: refused\\u{1b}

A note.
";
        assert_eq!(text(&explained, UNIX_EPOCH + Duration::from_secs(100)), expected);
    }
}
