//! `muster drain`, `muster resume` and `muster reload`: taking something out of answers before it is stopped, and giving it
//! back.

use std::{thread::sleep, time::Duration};

use hyper::{Method, body::Bytes};

use super::{
    Exit,
    client::{self, Client, ClientError, print_json, segment, with},
    table::{print, printable},
};
use crate::api::{Drained, explain::Explained};

/// What an agent that says no more than the TTL leaves out: a change reaches every node within this time, and TTLs are whole
/// seconds.
const MARGIN: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// An instance of this node, by its id, or the node itself, by its name
    #[arg(value_name = "TARGET")]
    target: String,
    /// Why, for those who ask `muster explain`
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Wait no longer than this, although caches may still have it: 30s, 5m
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
    /// Give it back by itself after this time: 30m, 2h
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    period: Option<Duration>,
    /// Do not wait at all
    #[arg(long, conflicts_with = "timeout")]
    no_wait: bool,
    #[command(flatten)]
    client: client::Args,
}

#[derive(Debug, clap::Args)]
pub(super) struct ResumeArgs {
    /// What was drained, or is in maintenance: an instance of this node, or the node
    #[arg(value_name = "TARGET")]
    target: String,
    #[command(flatten)]
    client: client::Args,
}

#[derive(Debug, clap::Args)]
pub(super) struct ReloadArgs {
    #[command(flatten)]
    client: client::Args,
}

pub(super) fn run(args: &Args) -> Exit {
    let mut exit = Exit::Done;
    let ran = with(&args.client, |client| {
        let mut path = format!("/v1/muster/drain/{}?reason={}", segment(&args.target), segment(&args.reason));
        if let Some(period) = args.period {
            path.push_str(&format!("&for={}s", period.as_secs().max(1)));
        }
        let answer = client.order(Method::PUT, &path, Bytes::new())?;
        let drained: Drained = client.read(&answer)?;
        let full = drained
            .wait
            .map_or_else(|| Duration::from_secs(drained.ttl.into()) + MARGIN, |wait| Duration::from_secs(wait.into()));
        let wait = if args.no_wait { Duration::ZERO } else { args.timeout.unwrap_or(full).min(full) };
        if !args.client.json {
            for instance in &drained.instances {
                print(&format!("{} is not answered any more\n", printable(instance)));
            }
            if !wait.is_zero() {
                print(&format!("waiting {} s: that long answers from before may be in caches\n", wait.as_secs()));
            }
        }
        sleep(wait);
        let again = if args.no_wait { Vec::new() } else { answered(client, &drained)? };
        if args.client.json {
            print_json(client, &answer)?;
        } else if !again.is_empty() {
            for instance in &again {
                let why = "it was given back, or --for has run out";
                print(&format!("not safe to stop: {} is answered again: {why}\n", printable(instance)));
            }
        } else if wait >= full {
            print("safe to stop\n");
        } else if !args.no_wait {
            let left = (full - wait).as_secs();
            print(&format!("not waited for long enough: caches may have it for {left} s more\n"));
        }
        if !again.is_empty() || (wait < full && !args.no_wait) {
            exit = Exit::Problems;
        }
        Ok(())
    });
    if ran == Exit::Done { exit } else { ran }
}

/// Those of the drained instances that this node's answers carry all the same.
fn answered(client: &Client, drained: &Drained) -> Result<Vec<String>, ClientError> {
    let node = client.myself()?.config.node_name;
    let explained: Explained = client.read(&client.get(&format!("/v1/muster/explain/{}.node", segment(&node)))?)?;
    let answered = explained.instances.iter().filter(|instance| instance.answered);
    let names = answered.map(|instance| format!("{}/{}", instance.service, instance.id));
    Ok(names.filter(|name| drained.instances.contains(name)).collect())
}

pub(super) fn resume(args: &ResumeArgs) -> Exit {
    with(&args.client, |client| {
        let path = format!("/v1/muster/resume/{}", segment(&args.target));
        let answer = client.order(Method::PUT, &path, Bytes::new())?;
        if args.client.json {
            return print_json(client, &answer);
        }
        let resumed: Drained = client.read(&answer)?;
        if resumed.instances.is_empty() {
            print(&format!("nothing of {} was held back\n", printable(&args.target)));
        }
        for instance in resumed.instances {
            print(&format!(
                "{} is held back no longer by that: it is answered while its checks pass, unless something else holds it\n",
                printable(&instance)
            ));
        }
        Ok(())
    })
}

pub(super) fn reload(args: &ReloadArgs) -> Exit {
    with(&args.client, |client| {
        let answer = client.order(Method::PUT, "/v1/agent/reload", Bytes::new())?;
        if args.client.json {
            return print_json(client, &answer);
        }
        print("the agent reads its service and zone files again\n");
        Ok(())
    })
}
