//! `muster members`, `join`, `leave` and `force-leave`: the membership of the cluster.

use std::time::{Duration, SystemTime};

use hyper::{Method, body::Bytes};

use super::{
    Exit,
    client::{self, Client, ClientError, print_json, segment, with},
    output::print,
    table::{Table, age, printable},
};
use crate::api::{Joined, Member, MemberState};

/// Number of digits of a view's digest in the table.
const VIEW_DIGITS: usize = 8;
/// Position of the column of zones, where a member has one.
const ZONE_COLUMN: usize = 2;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    client: client::Args,
}

#[derive(Debug, clap::Args)]
pub(super) struct JoinArgs {
    /// Node of a cluster: host name or address, with :PORT unless it is 7946
    #[arg(value_name = "ADDR", required = true)]
    addresses: Vec<String>,
    #[command(flatten)]
    client: client::Args,
}

#[derive(Debug, clap::Args)]
pub(super) struct ForceLeaveArgs {
    /// Name of a node that is gone, unreachable or has left
    #[arg(value_name = "NODE")]
    node: String,
    #[command(flatten)]
    client: client::Args,
}

pub(super) fn run(args: &Args) -> Exit {
    with(&args.client, |client| {
        let answer = client.get("/v1/agent/members")?;
        let members: Vec<Member> = client.read(&answer)?;
        if args.client.json {
            return print_json(client, &answer);
        }
        print(&table(&members, SystemTime::now()).to_string());
        Ok(())
    })
}

fn table(members: &[Member], now: SystemTime) -> Table {
    let mut head = vec!["NAME", "ADDRESS", "STATE", "VERSION", "INSTANCES", "SINCE", "VIEW"];
    // Most clusters have no zones.
    let has_zones = members.iter().any(|member| member.muster.zone.is_some());
    if has_zones {
        head.insert(ZONE_COLUMN, "ZONE");
    }
    let mut table = Table::with_head(&head);
    for member in members {
        let status = &member.muster;
        let state = match &status.cause {
            // The cause of `left` repeats the state.
            Some(cause) if status.reach != "left" => format!("{}: {cause}", status.reach),
            _ => status.reach.clone(),
        };
        let mut row = vec![
            member.name.clone(),
            address(&member.addr, member.port),
            state,
            status.version.clone().unwrap_or_default(),
            status.instances.to_string(),
            since(&status.since, now),
            view(status, now),
        ];
        if has_zones {
            row.insert(ZONE_COLUMN, status.zone.clone().unwrap_or_default());
        }
        table.row(row);
    }
    table
}

/// The first digits of the digest of a node's view, and for how long the view has differed.
fn view(status: &MemberState, now: SystemTime) -> String {
    let digest: String = status.view.iter().flat_map(|view| view.chars()).take(VIEW_DIGITS).collect();
    match &status.view_differs_since {
        Some(differs) => format!("{digest} differs for {}", since(differs, now)),
        None => digest,
    }
}

fn address(address: &str, port: u16) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

/// Time since an RFC 3339 timestamp; empty for an invalid timestamp, `0s` for one in the future, as clocks differ.
pub(super) fn since(text: &str, now: SystemTime) -> String {
    let passed = |then: SystemTime| now.duration_since(then).unwrap_or(Duration::ZERO);
    humantime::parse_rfc3339(text).map_or_else(|_| String::new(), |then| age(passed(then)))
}

/// Joins every address, even if the agent refuses some of them.
pub(super) fn join(args: &JoinArgs) -> Exit {
    with(&args.client, |client| {
        let mut refused = None;
        let mut joined = Vec::new();
        for address in &args.addresses {
            match join_one(client, address) {
                Ok(outcome) => joined.push((address, outcome)),
                Err(ClientError::Refused(text)) => {
                    let before = refused.take().map_or_else(String::new, |before| format!("{before}\n"));
                    refused = Some(format!("{before}{address}: {text}"));
                }
                Err(error) => return Err(error),
            }
        }
        if args.client.json {
            let outcomes: serde_json::Map<_, _> = joined
                .into_iter()
                .filter_map(|(address, outcome)| Some((address.clone(), serde_json::to_value(outcome).ok()?)))
                .collect();
            print(&format!("{:#}\n", serde_json::Value::Object(outcomes)));
        } else {
            for (address, outcome) in joined {
                let (answered, asked) = (outcome.answered.len(), outcome.asked.len());
                print(&printable(&format!("{address}: joined; {answered} of {asked} addresses answered")));
                print("\n");
            }
        }
        refused.map_or(Ok(()), |text| Err(ClientError::Refused(text)))
    })
}

fn join_one(client: &Client, address: &str) -> Result<Joined, ClientError> {
    let path = format!("/v1/agent/join/{}", segment(address));
    client.read(&client.change(Method::PUT, &path, Bytes::new())?)
}

pub(super) fn leave(args: &Args) -> Exit {
    with(&args.client, |client| {
        let node = client.agent()?.agent.config.node_name;
        let answer = client.change(Method::PUT, "/v1/agent/leave", Bytes::new())?;
        if args.client.json {
            return print_json(client, &answer);
        }
        print(&format!("{}: leaving the cluster and stopping the agent\n", printable(&node)));
        Ok(())
    })
}

/// Removes a node that never returns from all nodes.
pub(super) fn force_leave(args: &ForceLeaveArgs) -> Exit {
    with(&args.client, |client| {
        let path = format!("/v1/agent/force-leave/{}", segment(&args.node));
        let answer = client.change(Method::PUT, &path, Bytes::new())?;
        if args.client.json {
            return print_json(client, &answer);
        }
        print(&format!("{}: removed from all nodes\n", printable(&args.node)));
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use serde_json::json;

    use super::*;

    #[test]
    fn members_are_listed_with_state_and_view() {
        let member = |name: &str, addr: &str, muster: serde_json::Value| {
            json!({
                "Name": name, "Addr": addr, "Port": 7946, "Tags": {}, "Status": 1, "ProtocolMin": 1, "ProtocolMax": 5,
                "ProtocolCur": 2, "DelegateMin": 2, "DelegateMax": 5, "DelegateCur": 4, "Muster": muster,
            })
        };
        let members = json!([
            member(
                "host-a",
                "10.0.0.7",
                json!({
                    "Reach": "alive", "Since": "1970-01-01T00:00:08Z", "Instances": 2, "Version": "0.1.0", "Generation": 1,
                    "View": "0123456789abcdef", "NotKnownYet": true,
                })
            ),
            member(
                "host-b",
                "fd00::7",
                json!({
                    "Reach": "gone", "Cause": "agent stopped", "Since": "1970-01-01T00:03:15Z", "Instances": 0,
                })
            ),
            member(
                "c",
                "10.0.0.9",
                json!({"Reach": "left", "Cause": "left the cluster", "Since": "1970-01-01T00:04:00Z"})
            ),
            member("d", "10.0.0.10", json!({"View": "fedcba9876543210", "ViewDiffersSince": "1970-01-01T00:03:08Z"})),
        ]);
        let members: Vec<Member> = serde_json::from_value(members).unwrap();
        let expected = "\
NAME    ADDRESS         STATE                VERSION  INSTANCES  SINCE  VIEW
host-a  10.0.0.7:7946   alive                0.1.0    2          3m12s  01234567
host-b  [fd00::7]:7946  gone: agent stopped  -        0          5s     -
c       10.0.0.9:7946   left                 -        0          0s     -
d       10.0.0.10:7946  -                    -        0          -      fedcba98 differs for 12s
";
        assert_eq!(table(&members, UNIX_EPOCH + Duration::from_secs(200)).to_string(), expected);
    }

    #[test]
    fn zones_are_listed_if_a_member_has_one() {
        let member = |name: &str, zone: Option<&str>| {
            json!({
                "Name": name, "Addr": "10.0.0.7", "Port": 7946, "Tags": {}, "Status": 1, "ProtocolMin": 1, "ProtocolMax": 5,
                "ProtocolCur": 2, "DelegateMin": 2, "DelegateMax": 5, "DelegateCur": 4,
                "Muster": {"Reach": "alive", "Zone": zone},
            })
        };
        let expected = "\
NAME    ADDRESS        ZONE   STATE  VERSION  INSTANCES  SINCE  VIEW
host-a  10.0.0.7:7946  eu-1a  alive  -        0          -      -
host-b  10.0.0.7:7946  -      alive  -        0          -      -
";
        let members = json!([member("host-a", Some("eu-1a")), member("host-b", None)]);
        let members: Vec<Member> = serde_json::from_value(members).unwrap();
        assert_eq!(table(&members, UNIX_EPOCH).to_string(), expected);
    }
}
