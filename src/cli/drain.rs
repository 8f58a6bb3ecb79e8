//! `muster drain` and `muster resume`: commands that change what the agent answers.

use std::{thread::sleep, time::Duration};

use hyper::{Method, body::Bytes};

use super::{
    Exit,
    client::{self, Client, ClientError, print_json, segment, with, with_exit},
    output::print,
    table::printable,
};
use crate::{
    api::{Drained, StillHeld, explain::Explained},
    model::announcement::HoldReason,
};

/// Added to the TTL for agents that report no wait: covers propagation to all nodes and the rounding of TTLs to seconds.
const MARGIN: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Id of an instance of this node, or name of the node
    #[arg(value_name = "TARGET")]
    target: String,
    /// Reason, as `muster explain` shows it
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
    /// Limit the wait, as in 30s or 5m; cached answers may outlive the limit
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
    /// Resume automatically after this time, as in 30m or 2h
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    period: Option<Duration>,
    /// Do not wait for cached answers to expire
    #[arg(long, conflicts_with = "timeout")]
    no_wait: bool,
    #[command(flatten)]
    client: client::Args,
}

#[derive(Debug, clap::Args)]
pub(super) struct ResumeArgs {
    /// Id of an instance of this node, or name of the node
    #[arg(value_name = "TARGET")]
    target: String,
    #[command(flatten)]
    client: client::Args,
}

pub(super) fn run(args: &Args) -> Exit {
    with_exit(&args.client, |client| {
        let mut path = format!("/v1/muster/drain/{}?reason={}", segment(&args.target), segment(&args.reason));
        if let Some(period) = args.period {
            path.push_str(&format!("&for={}s", period.as_secs().max(1)));
        }
        let answer = client.change(Method::PUT, &path, Bytes::new())?;
        let drained: Drained = client.read(&answer)?;
        let full = drained
            .wait
            .map_or_else(|| Duration::from_secs(drained.ttl.into()) + MARGIN, |wait| Duration::from_secs(wait.into()));
        let wait = if args.no_wait { Duration::ZERO } else { args.timeout.unwrap_or(full).min(full) };
        if !args.client.json {
            for instance in &drained.instances {
                print(&format!("{}: withdrawn\n", printable(instance)));
            }
            if !wait.is_zero() {
                print(&format!("waiting {} s for cached answers to expire\n", wait.as_secs()));
            }
        }
        sleep(wait);
        let resumed = if args.no_wait { Vec::new() } else { answered(client, &drained)? };
        if args.client.json {
            print_json(client, &answer)?;
        } else if !resumed.is_empty() {
            for instance in &resumed {
                let cause = "it was resumed, or --for has expired";
                print(&format!("not safe to stop: {} is answered again: {cause}\n", printable(instance)));
            }
        } else if wait >= full {
            print("safe to stop\n");
        } else if !args.no_wait {
            let left = (full - wait).as_secs();
            print(&format!("not safe to stop: cached answers may remain for another {left} s\n"));
        }
        let is_unsafe = !resumed.is_empty() || (wait < full && !args.no_wait);
        Ok(if is_unsafe { Exit::Problems } else { Exit::Done })
    })
}

/// The drained instances that are answered again.
fn answered(client: &Client, drained: &Drained) -> Result<Vec<String>, ClientError> {
    let node = client.agent()?.agent.config.node_name;
    let explained: Explained = client.read(&client.get(&format!("/v1/muster/explain/{}.node", segment(&node)))?)?;
    let answered = explained.instances.iter().filter(|instance| instance.answered);
    let names = answered.map(|instance| format!("{}/{}", instance.service, instance.id));
    Ok(names.filter(|name| drained.instances.contains(name)).collect())
}

pub(super) fn resume(args: &ResumeArgs) -> Exit {
    with(&args.client, |client| {
        let path = format!("/v1/muster/resume/{}", segment(&args.target));
        let answer = client.change(Method::PUT, &path, Bytes::new())?;
        if args.client.json {
            return print_json(client, &answer);
        }
        let resumed: Drained = client.read(&answer)?;
        if resumed.instances.is_empty() && resumed.still_held.is_empty() {
            print(&format!("{}: not drained or in maintenance\n", printable(&args.target)));
        }
        for instance in resumed.instances {
            let instance = printable(&instance);
            print(&format!(
                "{instance}: resumed; answered while its checks pass, unless withheld for another reason\n"
            ));
        }
        for held in &resumed.still_held {
            print(&format!("{}\n", printable(&still_held(held))));
        }
        Ok(())
    })
}

/// Describes an instance that another hold withholds, with the command that ends the hold.
fn still_held(held: &StillHeld) -> String {
    let StillHeld { instance, state, target } = held;
    let is_own = instance.split_once('/').is_some_and(|(_, id)| id == target);
    let scope = if is_own { "by itself" } else { "with its node" };
    let state = if state == HoldReason::Draining.as_str() { "drained" } else { "in maintenance" };
    format!("{instance}: still {state} {scope}: muster resume {target}")
}
