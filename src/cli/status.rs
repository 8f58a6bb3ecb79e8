//! `muster status`: how the agent and its cluster are, and what is not as it should be, on one screen.

use std::{fmt::Display, time::SystemTime};

use super::{
    Exit,
    client::{self, print_json, with},
    members::since,
    table::{Table, print},
};
use crate::api::{Agent, Held, Problem};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    client: client::Args,
}

pub(super) fn run(args: &Args) -> Exit {
    let mut exit = Exit::Done;
    let ran = with(&args.client, |client| {
        let answer = client.get("/v1/agent/self")?;
        let agent: Agent = client.read(&answer)?;
        if !is_well(&agent) {
            exit = Exit::Problems;
        }
        if args.client.json {
            return print_json(client, &answer);
        }
        print(&report(&agent, SystemTime::now()).to_string());
        Ok(())
    });
    if ran == Exit::Done { exit } else { ran }
}

/// Whether nothing asks for somebody: a file that is not in service as it stands, a node that is cut off. What is held back
/// is so because somebody wants it.
fn is_well(agent: &Agent) -> bool {
    let mut problems = agent.muster.files.iter().flat_map(|folder| &folder.problems);
    agent.muster.partitioned.is_none() && problems.all(|problem| problem.severity != "error")
}

/// In the order in which they are told.
const REACHES: [&str; 5] = ["alive", "suspect", "held", "gone", "left"];

fn report(agent: &Agent, now: SystemTime) -> Table {
    let (config, status) = (&agent.config, &agent.muster);
    let mut report = Table::of_pairs();
    let mut say = |what: &str, text: String| report.row([what.to_owned(), text]);
    say("node", format!("{} at {}, generation {}", config.node_name, status.advertise.join(", "), status.generation));
    say("version", config.version.clone());
    say("domain", status.domain.clone());
    say("datacenter", config.datacenter.clone());
    let counts = REACHES.iter().filter_map(|&reach| Some((status.members.get(reach)?, reach)));
    say("cluster", list(counts));
    if status.members.get("alive").is_some_and(|alive| *alive > 1) {
        let differ = |(node, from): (&String, &String)| format!("{node} for {}", since(from, now));
        let differing: Vec<String> = status.diverging.iter().map(differ).collect();
        let agree = || "alike on all nodes".to_owned();
        let text = if differing.is_empty() { agree() } else { format!("differ from ours: {}", differing.join(", ")) };
        say("views", text);
    }
    if let Some(partitioned) = &status.partitioned {
        let since = since(partitioned, now);
        say("partition", format!("for {since} more than half of the other nodes are out of reach"));
    }
    let sealed =
        if status.sealed { "sealed with a key" } else { "not sealed: whoever reaches it can announce instances" };
    say("gossip", format!("on {}, {sealed}", status.listen.gossip));
    say("DNS", format!("on {}", status.listen.dns.join(", ")));
    say("HTTP", format!("on {}", status.listen.http.join(", ")));
    for folder in &status.files {
        say("files", format!("{}: {}", folder.path, folder.in_service));
    }
    for folder in &status.files {
        for problem in &folder.problems {
            say("problem", words(problem));
        }
        if folder.more_problems > 0 {
            say("problem", format!("{}: and {} more; `muster validate` shows all", folder.path, folder.more_problems));
        }
    }
    for held in &status.held {
        say("held back", held_words(held, &config.node_name, now));
    }
    if !status.rejected.is_empty() {
        say("rejected", list(status.rejected.iter().map(|(reason, count)| (count, reason))));
    }
    report
}

/// As `muster validate` and the log have it.
fn words(problem: &Problem) -> String {
    let Problem { file, line, column, severity, message, hint } = problem;
    let warning = if severity == "warning" { "warning: " } else { "" };
    let hint = hint.as_ref().map_or_else(String::new, |hint| format!(" ({hint})"));
    format!("{file}:{line}:{column}: {warning}{message}{hint}")
}

fn held_words(held: &Held, node: &str, now: SystemTime) -> String {
    let what = held.instance.as_deref().unwrap_or(node);
    let reason = if held.reason.is_empty() { String::new() } else { format!(": {}", held.reason) };
    let until = held.until.as_ref().map_or_else(String::new, |until| format!(", until {until}"));
    format!("{what}: {} for {}{until}{reason}", held.gate, since(&held.since, now))
}

fn list(counts: impl Iterator<Item = (impl Display, impl Display)>) -> String {
    counts.map(|(count, what)| format!("{count} {what}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_read_as_in_the_log_and_holds_say_for_how_long() {
        let problem = |severity: &str, hint: Option<&str>| Problem {
            file: "services.d/web.yaml".to_owned(),
            line: 3,
            column: 5,
            severity: severity.to_owned(),
            message: "unknown key `prot`".to_owned(),
            hint: hint.map(str::to_owned),
        };
        let expected = "services.d/web.yaml:3:5: unknown key `prot` (did you mean `port`?)";
        assert_eq!(words(&problem("error", Some("did you mean `port`?"))), expected);
        assert_eq!(words(&problem("warning", None)), "services.d/web.yaml:3:5: warning: unknown key `prot`");

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
            assert_eq!(held_words(&held, "host-a", now), expected);
        }
    }
}
