//! `muster status`: how the agent and its cluster are, on one screen.

use std::{fmt::Display, time::SystemTime};

use super::{
    Exit,
    client::{self, print_json, with},
    members::since,
    table::{Table, print},
};
use crate::api::Agent;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    client: client::Args,
}

pub(super) fn run(args: &Args) -> Exit {
    with(&args.client, |client| {
        let answer = client.get("/v1/agent/self")?;
        let agent: Agent = client.read(&answer)?;
        if args.client.json {
            return print_json(client, &answer);
        }
        print(&report(&agent, SystemTime::now()).to_string());
        Ok(())
    })
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
        let agree = || "agree: no node has told that it answers otherwise for longer than news take".to_owned();
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
    if !status.rejected.is_empty() {
        say("rejected", list(status.rejected.iter().map(|(reason, count)| (count, reason))));
    }
    report
}

fn list(counts: impl Iterator<Item = (impl Display, impl Display)>) -> String {
    counts.map(|(count, what)| format!("{count} {what}")).collect::<Vec<_>>().join(", ")
}
