//! `muster store`: the voters of the store, backups of its keys, and recovery after the loss of a majority.

use std::{path::PathBuf, time::Duration};

use hyper::{Method, body::Bytes};

use super::{
    EXIT_STATUS, Exit,
    client::{self, Client, ClientError, print_json, segment, with_exit},
    output::print,
    table::{Table, printable},
};
use crate::api::store::{Member, Status};

mod backup;
mod recover;

/// Endpoint of the store.
const PATH: &str = "/v1/muster/store";
/// Time limit for a change of the voters, longer than the agent's: a new voter receives the whole store first.
const CHANGE: Duration = Duration::from_secs(340);
/// Time without a reply from which a member is shown as unreachable: several times that of an election.
const LOST: Duration = Duration::from_secs(5);
/// Time without a reply up to which a member is shown as alive: some lost heartbeats, which are sent every 200 ms.
const ALIVE: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_STATUS)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    client: client::Args,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Show the voters, the leader and the size of the store
    Status,
    /// Make a node a voter, once it has received the store
    Add {
        /// Name of the node, whose configuration must have a store
        node: String,
    },
    /// Remove a voter, also one that is lost
    Remove {
        /// Name of the node
        node: String,
    },
    /// Back up all keys to a file
    Snapshot {
        /// File to write, which is replaced when the backup is complete; - writes standard output
        file: PathBuf,
    },
    /// Make the keys those of a backup; refused if there are others, unless --delete-others is given
    Restore {
        /// File that `snapshot` or `muster kv export` wrote; - reads standard input
        file: PathBuf,
        /// Delete keys that are not in the file without asking; needed if there are any
        #[arg(long)]
        delete_others: bool,
    },
    /// After the loss of a majority: make this host's voter the only one (agent stopped)
    #[command(long_about = recover::ABOUT)]
    Recover(recover::Args),
}

pub(super) fn run(args: Args) -> Exit {
    let Args { action, client: options } = args;
    let json = options.json;
    let request = |request: &dyn Fn(&Client) -> Result<Exit, ClientError>| with_exit(&options, request);
    match action {
        Action::Status => request(&|client| status(client, json)),
        Action::Add { node } => request(&|client| change(client, Method::PUT, &node, "is a voter", json)),
        Action::Remove { node } => request(&|client| change(client, Method::DELETE, &node, "was removed", json)),
        Action::Snapshot { file } => request(&|client| backup::snapshot(client, &file, json)),
        Action::Restore { file, delete_others } => {
            request(&|client| backup::restore(client, &file, delete_others, json))
        }
        // Without an agent.
        Action::Recover(args) => recover::run(&args, json),
    }
}

/// Shows the status. A store without a leader is a problem, and so is a voter that does not reply to it or has failed.
fn status(client: &Client, json: bool) -> Result<Exit, ClientError> {
    let answer = client.get(PATH)?;
    let status: Status = client.read(&answer)?;
    if json {
        print_json(client, &answer)?;
    } else {
        print(&format!("{}\n{}", report(&status), members(&status)));
    }
    let is_whole = status.leader.is_some()
        && status.failure.is_none()
        && !status.members.iter().any(|member| member.voter && is_lost(member));
    Ok(if is_whole { Exit::Done } else { Exit::Problems })
}

/// Reports whether the leader has not heard of a member for [`LOST`].
fn is_lost(member: &Member) -> bool {
    member.unreached.is_some_and(|unreached| Duration::from_millis(unreached) >= LOST)
}

fn change(client: &Client, method: Method, node: &str, done: &str, json: bool) -> Result<Exit, ClientError> {
    let path = format!("{PATH}/voters/{}", segment(node));
    let answer = client.change_within(method, &path, Bytes::new(), CHANGE)?;
    if json {
        print_json(client, &answer)?;
    } else {
        print(&format!("{}: {done}\n", printable(node)));
    }
    Ok(Exit::Done)
}

fn report(status: &Status) -> Table {
    let mut report = Table::of_pairs();
    let mut row = |name: &str, text: String| report.row([name.to_owned(), text]);
    let id = &status.cluster_id;
    row("cluster", if id.is_empty() { "not founded, or no voter can be reached".to_owned() } else { id.clone() });
    row(
        "leader",
        match &status.leader {
            Some(leader) => format!("{leader}, term {}", status.term),
            None if id.is_empty() => "none".to_owned(),
            None => "none: a majority of the voters cannot be reached. Start them, or see \"After the loss of a majority\" in \
                     docs/store.md"
                .to_owned(),
        },
    );
    // A node that has reached no voter knows nothing of the state.
    if !id.is_empty() {
        row("revision", status.revision.to_string());
        row("log", format!("last entry {}, applied {}", status.last_log, status.applied));
        row("size", format!("{} keys, {} of {}", status.keys, size(status.octets), size(status.max_octets)));
    }
    row("seen by", status.node.clone());
    if let Some(failure) = &status.failure {
        row("problem", format!("the voter on this node has failed: {}", printable(failure)));
    }
    report
}

/// Table of the members, the voters first.
fn members(status: &Status) -> Table {
    let mut table = Table::with_head(&["NODE", "ROLE", "STATE", "LAG", "ID"]);
    let mut members: Vec<&Member> = status.members.iter().collect();
    members.sort_by_key(|member| (!member.voter, &member.node));
    for member in members {
        let role = match (status.leader.as_ref() == Some(&member.node), member.voter) {
            (true, true) => "leader",
            (_, true) => "voter",
            (_, false) => "learner",
        };
        let lag = member.lag.map_or_else(String::new, |lag| format!("{lag} entries"));
        let state = match member.unreached.map(Duration::from_millis) {
            Some(unreached) if unreached >= LOST => format!("unreachable for {} s", unreached.as_secs()),
            Some(unreached) if unreached >= ALIVE => format!("no reply for {} s", unreached.as_secs()),
            Some(_) if member.lag.is_none() => "no reply yet".to_owned(),
            Some(_) => "alive".to_owned(),
            None => String::new(),
        };
        table.row([member.node.clone(), role.to_owned(), state, lag, member.id.clone()]);
    }
    table
}

/// A number of octets with a unit.
fn size(octets: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.into_iter().find(|(bits, _)| octets >= 1 << bits) {
        Some((bits, unit)) => format!("{:.1} {unit}", octets as f64 / (1u64 << bits) as f64),
        None => format!("{octets} octets"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_unit() {
        let cases =
            [(0, "0 octets"), (1023, "1023 octets"), (1536, "1.5 KiB"), (64 << 20, "64.0 MiB"), (1 << 30, "1.0 GiB")];
        for (octets, expected) in cases {
            assert_eq!(size(octets), expected);
        }
    }

    #[test]
    fn voters_come_before_learners_and_unreachable_members_are_marked() {
        let member = |node: &str, voter, lag, unreached| Member {
            id: "1".to_owned(),
            node: node.to_owned(),
            voter,
            lag,
            unreached,
        };
        let status = Status {
            leader: Some("b".to_owned()),
            members: vec![
                member("a", false, Some(7), Some(45_200)),
                member("b", true, Some(0), Some(0)),
                member("c", true, None, None),
                member("d", true, Some(0), Some(4_100)),
                member("e", true, None, Some(300)),
            ],
            ..Status::default()
        };
        let expected = "NODE  ROLE     STATE                 LAG        ID\n\
                        b     leader   alive                 0 entries  1\n\
                        c     voter    -                     -          1\n\
                        d     voter    no reply for 4 s      0 entries  1\n\
                        e     voter    no reply yet          -          1\n\
                        a     learner  unreachable for 45 s  7 entries  1\n";
        assert_eq!(members(&status).to_string(), expected);
    }
}
