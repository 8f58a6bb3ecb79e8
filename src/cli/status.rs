//! `muster status`: state and problems of the agent and its cluster, on one screen.

use std::{fmt::Display, net::SocketAddr, time::SystemTime};

use super::{
    Exit,
    client::{self, print_json, with_exit},
    members::since,
    output::print,
    table::Table,
};
use crate::api::{AgentStatus, Conflict, Held, Problem};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    client: client::Args,
}

pub(super) fn run(args: &Args) -> Exit {
    with_exit(&args.client, |client| {
        let answer = client.status()?;
        let agent: AgentStatus = client.read(&answer)?;
        if args.client.json {
            print_json(client, &answer)?;
        } else {
            print(&report(&agent, SystemTime::now()).to_string());
        }
        Ok(if is_healthy(&agent) { Exit::Done } else { Exit::Problems })
    })
}

/// Reports whether no problem needs attention: no file has an error, each zone is answered with valid signatures, no external node is announced
/// twice, the store has a leader, and the node has an address and is neither cut off nor gone for its peers. Withheld instances are
/// no problem: an operator withdrew them.
fn is_healthy(agent: &AgentStatus) -> bool {
    let status = &agent.muster;
    let mut problems = status.files.iter().flat_map(|folder| &folder.problems);
    status.partitioned.is_none()
        && status.address_problem.is_none()
        && status.store_problem.is_none()
        && status.doubted.is_none()
        && status.conflicts.is_empty()
        && status.zone_problems.iter().all(|problem| problem.severity != "error")
        && problems.all(|problem| problem.severity != "error")
}

/// States of members, in the order of the output.
const MEMBER_STATES: [&str; 6] = ["alive", "suspect", "held", "restarting", "gone", "left"];

fn report(agent: &AgentStatus, now: SystemTime) -> Table {
    let (config, status) = (&agent.agent.config, &agent.muster);
    let mut report = Table::of_pairs();
    let mut row = |name: &str, text: String| report.row([name.to_owned(), text]);
    let at = if status.advertise.is_empty() { "no address".to_owned() } else { status.advertise.join(", ") };
    row("node", format!("{} at {at}, generation {}", config.node_name, status.generation));
    row("version", version(&status.version, &config.version));
    row("domain", status.domain.clone());
    row("datacenter", config.datacenter.clone());
    if let Some(zone) = &status.zone {
        row("zone", zone.clone());
    }
    let counts = MEMBER_STATES.iter().filter_map(|&state| Some((status.members.get(state)?, state)));
    row("cluster", list(counts));
    if status.external_nodes > 0 {
        row("external", format!("{} nodes without an agent", status.external_nodes));
    }
    if status.members.get("alive").is_some_and(|alive| *alive > 1) {
        let differ = |(node, from): (&String, &String)| format!("{node} for {}", since(from, now));
        let differing: Vec<String> = status.diverging.iter().map(differ).collect();
        let equal = || "equal on all nodes".to_owned();
        let text = if differing.is_empty() { equal() } else { format!("differ: {}", differing.join(", ")) };
        row("views", text);
    }
    if let Some(partitioned) = &status.partitioned {
        let since = since(partitioned, now);
        row("partition", format!("for {since}: more than half of the other nodes are unreachable"));
    }
    if let Some(doubted) = &status.doubted {
        let since = since(doubted, now);
        row("peers", format!("for {since}: other nodes consider this node gone and do not answer its instances"));
    }
    let encryption = describe_encryption(status.sealed, &status.listen.gossip);
    row("gossip", format!("on {}, {encryption}", status.listen.gossip));
    row("DNS", format!("on {}", status.listen.dns.join(", ")));
    row("HTTP", format!("on {}", status.listen.http.join(", ")));
    for folder in &status.files {
        row("files", format!("{}: {}", folder.path, folder.in_service));
    }
    for folder in &status.files {
        for problem in &folder.problems {
            row("problem", describe_problem(problem));
        }
        if folder.more_problems > 0 {
            row("problem", format!("{}: {} more; `muster validate` shows all", folder.path, folder.more_problems));
        }
    }
    for problem in &status.zone_problems {
        let warning = if problem.severity == "warning" { "warning: " } else { "" };
        row("problem", format!("{warning}{} ({})", problem.message, problem.hint));
    }
    if let Some(problem) = &status.address_problem {
        row("problem", problem.clone());
    }
    if let Some(problem) = &status.store_problem {
        row("problem", problem.clone());
    }
    for conflict in &status.conflicts {
        row("conflict", describe_conflict(conflict));
    }
    for held in &status.held {
        row("withheld", describe_hold(held, &config.node_name, now));
    }
    if !status.rejected.is_empty() {
        row("rejected", list(status.rejected.iter().map(|(reason, count)| (count, reason))));
    }
    report
}

/// Describes the version of the agent, and the one that it reports to programs for Consul.
fn version(own: &str, reported: &str) -> String {
    if own == reported { own.to_owned() } else { format!("{own}, reported to Consul's clients as {reported}") }
}

/// Describes the encryption of gossip, and the risk of cleartext on `listen`.
fn describe_encryption(is_encrypted: bool, listen: &str) -> &'static str {
    if is_encrypted {
        "encrypted"
    } else if listen.parse().is_ok_and(|address: SocketAddr| address.ip().is_loopback()) {
        "not encrypted (loopback only)"
    } else {
        "not encrypted: every host that reaches it can announce instances"
    }
}

/// Formats a problem like `muster validate` and the log.
pub(super) fn describe_problem(problem: &Problem) -> String {
    let Problem { file, line, column, severity, message, hint } = problem;
    let warning = if severity == "warning" { "warning: " } else { "" };
    let hint = hint.as_ref().map_or_else(String::new, |hint| format!(" ({hint})"));
    format!("{file}:{line}:{column}: {warning}{message}{hint}")
}

fn describe_conflict(conflict: &Conflict) -> String {
    let counts =
        conflict.counts.as_ref().map_or("the member of that name counts".to_owned(), |owner| format!("{owner} counts"));
    format!("external node {} is registered through {}: {counts}", conflict.node, conflict.owners.join(" and "))
}

fn describe_hold(held: &Held, node: &str, now: SystemTime) -> String {
    let target = held.instance.as_deref().unwrap_or(node);
    let reason = if held.reason.is_empty() { String::new() } else { format!(": {}", held.reason) };
    let until = held.until.as_ref().map_or_else(String::new, |until| format!(", until {until}"));
    format!("{target}: {} for {}{until}{reason}", held.gate, since(&held.since, now))
}

fn list(counts: impl Iterator<Item = (impl Display, impl Display)>) -> String {
    counts.map(|(count, name)| format!("{count} {name}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleartext_gossip_on_loopback_has_no_warning() {
        let exposed = "not encrypted: every host that reaches it can announce instances";
        let cases = [
            (true, "0.0.0.0:7946", "encrypted"),
            (false, "127.0.1.1:7946", "not encrypted (loopback only)"),
            (false, "[::1]:7946", "not encrypted (loopback only)"),
            (false, "0.0.0.0:7946", exposed),
            (false, "10.0.0.7:7946", exposed),
        ];
        for (is_encrypted, listen, expected) in cases {
            assert_eq!(describe_encryption(is_encrypted, listen), expected, "{listen}");
        }
    }

    #[test]
    fn problems_have_a_position_and_holds_a_duration() {
        let problem = |severity: &str, hint: Option<&str>| Problem {
            file: "services.d/web.yaml".to_owned(),
            line: 3,
            column: 5,
            severity: severity.to_owned(),
            message: "unknown key `prot`".to_owned(),
            hint: hint.map(str::to_owned),
        };
        let expected = "services.d/web.yaml:3:5: unknown key `prot` (did you mean `port`?)";
        assert_eq!(describe_problem(&problem("error", Some("did you mean `port`?"))), expected);
        assert_eq!(describe_problem(&problem("warning", None)), "services.d/web.yaml:3:5: warning: unknown key `prot`");

        let now = humantime::parse_rfc3339("2026-01-02T03:04:05Z").unwrap();
        let held = |instance: Option<&str>, reason: &str, until: Option<&str>| Held {
            instance: instance.map(str::to_owned),
            gate: "draining".to_owned(),
            reason: reason.to_owned(),
            since: "2026-01-02T03:01:00Z".to_owned(),
            until: until.map(str::to_owned),
        };
        let cases = [
            (held(None, "", None), "host-a: draining for 3m5s"),
            (
                held(Some("web/web-1"), "new disk", Some("2026-01-02T04:00:00Z")),
                "web/web-1: draining for 3m5s, until 2026-01-02T04:00:00Z: new disk",
            ),
        ];
        for (held, expected) in cases {
            assert_eq!(describe_hold(&held, "host-a", now), expected);
        }
    }
}
