//! Ten agents under churn for an hour: `cargo bench --bench soak`. It needs `ip` and root.
//!
//! Each second, some instances are registered by the HTTP API and the oldest ones are deregistered. Each minute, one agent is
//! killed and started again after some seconds; the first three are never killed. Each minute, prints the largest figures
//! of these three: memory, descriptors, live keys and tombstones of gossip, known nodes, octets in `data_dir`. A leak shows as a
//! column that never levels off. At the end, each agent must list exactly the registered instances. `-- --minutes 60
//! --nodes 10 --rate 20` are the defaults.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark that cannot continue ends")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    collections::{BTreeSet, VecDeque},
    fs,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use support::{
    cluster::{Cluster, Host},
    http::{ask, try_ask},
    wait::until,
};

/// Agents that are never killed.
const LASTING: usize = 3;
/// Services that instances are registered of.
const SERVICES: usize = 20;
/// Registered instances at a time.
const REGISTERED: usize = 400;
/// Time that a killed agent is away.
const AWAY: Duration = Duration::from_secs(5);
const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);
const HTTP: ([u8; 4], u16) = ([127, 0, 0, 1], 8500);

/// Registered instance.
struct Registered {
    host: usize,
    id: String,
    service: String,
}

/// Killed agent and the time of its next start.
struct Killed {
    host: usize,
    start_at: Instant,
}

fn main() {
    let (mut minutes, mut nodes, mut rate) = (60, 10, 20);
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    for pair in arguments.chunks(2) {
        let number = pair.get(1).and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{pair:?}"));
        match pair[0].as_str() {
            "--minutes" => minutes = number,
            "--nodes" => nodes = number,
            "--rate" => rate = number,
            _ => panic!("unknown option {}", pair[0]),
        }
    }
    let mut cluster = Cluster::start(u8::try_from(nodes).unwrap());
    let mut registered: VecDeque<Registered> = VecDeque::new();
    let mut killed: Option<Killed> = None;
    let mut random = fastrand::Rng::with_seed(1);
    let (begun, mut number, mut second) = (Instant::now(), 0_usize, 0_u32);
    println!("minute  MB  descriptors  live keys  tombstones  nodes  KB of data_dir  registered");
    print_row(&cluster, 0, registered.len());
    while begun.elapsed() < MINUTE * minutes as u32 {
        for _ in 0..rate {
            number += 1;
            let host = random.usize(..nodes);
            let is_away = killed.as_ref().is_some_and(|killed| killed.host == host);
            let (id, service) = (format!("i{number}"), format!("churn-{}", number % SERVICES));
            if !is_away && register(&cluster.hosts[host], &id, &service) {
                registered.push_back(Registered { host, id, service });
            }
        }
        while registered.len() > REGISTERED {
            let oldest = registered.pop_front().unwrap();
            let is_away = killed.as_ref().is_some_and(|killed| killed.host == oldest.host);
            if is_away || !deregister(&cluster.hosts[oldest.host], &oldest.id) {
                registered.push_back(oldest);
                break;
            }
        }
        if let Some(Killed { host, .. }) = killed.take_if(|killed| Instant::now() >= killed.start_at) {
            cluster.hosts[host].start_again();
            cluster.hosts[host].agent_mut().wait_until_answering();
        }
        second += 1;
        if second.is_multiple_of(60) {
            print_row(&cluster, second / 60, registered.len());
            let host = random.usize(LASTING..nodes);
            cluster.hosts[host].agent().signal(Signal::SIGKILL);
            cluster.hosts[host].agent_mut().wait();
            killed = Some(Killed { host, start_at: Instant::now() + AWAY });
        }
        std::thread::sleep((begun + SECOND * second).saturating_duration_since(Instant::now()));
    }
    if let Some(Killed { host, .. }) = killed {
        cluster.hosts[host].start_again();
        cluster.hosts[host].agent_mut().wait_until_answering();
    }
    cluster.converge();
    let expected: BTreeSet<String> =
        registered.iter().map(|Registered { id, service, .. }| format!("{service} {id}")).collect();
    until("each agent lists the registered instances", || cluster.hosts.iter().all(|host| listed(host) == expected));
    println!("each of {nodes} agents lists the {} registered instances", expected.len());
}

fn register(host: &Host, id: &str, service: &str) -> bool {
    let meta = "m".repeat(100);
    let body = format!(r#"{{"ID":"{id}","Name":"{service}","Port":80,"Meta":{{"text":"{meta}"}}}}"#);
    let answer = host.namespace.enter(|| try_ask(SocketAddr::from(HTTP), "PUT", "/v1/agent/service/register", &body));
    answer.is_some_and(|answer| answer.status == 200)
}

fn deregister(host: &Host, id: &str) -> bool {
    let path = format!("/v1/agent/service/deregister/{id}");
    let answer = host.namespace.enter(|| try_ask(SocketAddr::from(HTTP), "PUT", &path, ""));
    answer.is_some_and(|answer| answer.status == 200)
}

/// Returns the instances that an agent lists as passing, each with its service.
fn listed(host: &Host) -> BTreeSet<String> {
    let of = |service: String| {
        let path = format!("/v1/health/service/{service}?passing");
        let answer = host.namespace.enter(|| ask(SocketAddr::from(HTTP), "GET", &path, "")).json();
        let ids = answer.as_array().unwrap().iter();
        ids.map(|entry| format!("{service} {}", entry["Service"]["ID"].as_str().unwrap())).collect::<Vec<_>>()
    };
    (0..SERVICES).flat_map(|at| of(format!("churn-{at}"))).collect()
}

fn print_row(cluster: &Cluster, minute: u32, registered: usize) {
    let lasting = &cluster.hosts[..LASTING];
    let most = |figure: fn(&Host) -> u64| lasting.iter().map(figure).max().unwrap_or_default();
    println!(
        "{minute:>6} {:>3} {:>12} {:>10} {:>11} {:>6} {:>15} {registered:>11}",
        most(memory),
        most(descriptors),
        most(|host| metric(host, "muster_gossip_keys{state=\"live\"}")),
        most(|host| metric(host, "muster_gossip_keys{state=\"deleted\"}")),
        most(|host| host.members().len() as u64),
        most(|host| octets_below(&host.agent().path("data")) / 1000),
    );
}

/// Returns the resident memory in MB.
fn memory(host: &Host) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", host.agent().pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

fn descriptors(host: &Host) -> u64 {
    fs::read_dir(format!("/proc/{}/fd", host.agent().pid())).unwrap().count() as u64
}

fn metric(host: &Host, series: &str) -> u64 {
    let text = host.namespace.enter(|| ask(SocketAddr::from(HTTP), "GET", "/metrics", "")).body;
    let line = text.lines().find_map(|line| line.strip_prefix(series));
    line.map_or(0, |value| value.trim().parse().unwrap())
}

fn octets_below(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).unwrap().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => octets_below(&entry.path()),
            found => found.map_or(0, |found| found.len()),
        })
        .sum()
}
