//! Agents of the built program in a cluster of 200 nodes with 500 instances each: `cargo bench --bench scale`.
//!
//! The nodes run in this process with the library's sealed transport and gossip. They send the first agent their state,
//! answer pings, and change the health of their instances. Prints the memory of the first agent, its CPU time per change, and
//! the latency of its DNS, at rest and during 1,000 changes a second. Then a second agent joins the first one and learns the
//! state. `-- --nodes 200 --instances 500 --services 1000 --span 10` are the defaults; `span` is the duration in seconds of
//! the measurement at each rate of changes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark that cannot continue ends")]

mod agent;
mod simulated;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use muster::model::keyring::Keyring;
use tokio::time::sleep;

use self::{
    agent::{ASKED, Agent},
    simulated::{Peer, flip, peer},
};

/// Hosts of the agents.
const HOSTS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(127, 4, 0, 1)), IpAddr::V4(Ipv4Addr::new(127, 4, 0, 2))];
/// Gossip address of the first agent.
const FIRST: SocketAddr = SocketAddr::new(HOSTS[0], 7946);
/// Time limit for learning.
const LEARN: Duration = Duration::from_secs(300);
/// Pause between two looks at the number of instances: a look costs the agent some milliseconds.
const LOOK: Duration = Duration::from_millis(200);
/// Time after which all nodes have met an agent that joins, and start an exchange with it.
const MEETING: Duration = Duration::from_millis(300);
/// Time after which a state has settled.
const SETTLE: Duration = Duration::from_secs(5);

/// Size of the cluster.
struct Size {
    nodes: usize,
    instances: usize,
    services: usize,
    span: Duration,
}

impl Size {
    fn of(arguments: impl Iterator<Item = String>) -> Self {
        let mut size = Self { nodes: 200, instances: 500, services: 1000, span: Duration::from_secs(10) };
        let arguments: Vec<String> = arguments.filter(|word| word != "--bench").collect();
        for pair in arguments.chunks(2) {
            let number = pair.get(1).and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{pair:?}"));
            match pair[0].as_str() {
                "--nodes" => size.nodes = number,
                "--instances" => size.instances = number,
                "--services" => size.services = number,
                "--span" => size.span = Duration::from_secs(number as u64),
                _ => panic!("unknown option {}", pair[0]),
            }
        }
        size
    }

    /// Instances of the simulated nodes.
    fn all(&self) -> usize {
        self.nodes * self.instances
    }

    /// Names of their services.
    fn names(&self) -> Vec<String> {
        (0..self.services).map(|number| format!("service-{number}")).collect()
    }
}

fn main() {
    let size = Size::of(std::env::args().skip(1));
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(run(&size));
}

async fn run(size: &Size) {
    let folder = tempfile::tempdir().unwrap();
    let key = Command::new(env!("CARGO_BIN_EXE_muster")).arg("keygen").output().unwrap().stdout;
    let agent = Agent::start(&folder.path().join("first"), "first", HOSTS[0], &key, &[]);
    sleep(Duration::from_secs(1)).await;
    println!("alone: {:.1} MB", agent.memory());

    let ring = Keyring::parse(std::str::from_utf8(&key).unwrap()).unwrap();
    let started = Instant::now();
    let mut peers = vec![];
    // Once the agent has converged, the nodes ignore gossip. They would discard the agent's state, and it would send it
    // repeatedly, which does not happen in a real cluster.
    let gossiping = Arc::new(AtomicBool::new(true));
    for number in 1..=size.nodes {
        peers.push(peer(number, size, &ring, &gossiping).await);
    }
    learned(&agent, size.all() + 1).await;
    gossiping.store(false, Ordering::Relaxed);
    println!(
        "{} nodes, {} instances of {} services: {:.1} MB, received in {:.1} s with {:.1} s of CPU from nodes that know only \
         themselves",
        size.nodes,
        size.all(),
        size.services,
        agent.memory(),
        started.elapsed().as_secs_f64(),
        agent.cpu().as_secs_f64()
    );
    sleep(SETTLE).await;
    change(&agent, &mut peers, size).await;
    sleep(SETTLE).await;
    join(&agent, &peers, folder.path(), &key, size).await;
}

/// Waits until an agent knows that many instances.
async fn learned(agent: &Agent, expected: usize) {
    let started = Instant::now();
    loop {
        let known = agent.instances();
        if known >= expected {
            return;
        }
        assert!(started.elapsed() < LEARN, "{known} of {expected} instances");
        sleep(LOOK).await;
    }
}

/// Measures an agent at rest and while instances change.
async fn change(agent: &Agent, peers: &mut [Peer], size: &Size) {
    let before = agent.cpu();
    let asked = agent.ask(size.names()).end_after(size.span).await.times;
    let rest = agent.cpu() - before;
    let percent = rest.as_secs_f64() * 100.0 / size.span.as_secs_f64();
    println!("at rest: {percent:.1} % of a core, with {ASKED} queries a second; answers {asked}");
    for rate in [10, 100, 1000_u64] {
        let before = agent.cpu();
        let asking = agent.ask(size.names());
        let flips = flip(peers, rate, size.span).await;
        let asked = asking.end().times;
        let busy = agent.cpu().checked_sub(before + rest).unwrap_or_default();
        println!(
            "{rate} changes a second: {:.3} ms of a core each; answers {asked}; {:.1} MB",
            busy.as_secs_f64() * 1000.0 / flips as f64,
            agent.memory()
        );
    }
}

/// Measures a second agent that joins the first one, and the first one meanwhile.
async fn join(first: &Agent, peers: &[Peer], folder: &Path, key: &[u8], size: &Size) {
    let before = first.ask(size.names()).end_after(size.span).await.times;
    println!("answers of the first agent before a node joins: {before}");
    let (cpu, asking) = (first.cpu(), first.ask(size.names()));
    let newcomer = Agent::start(&folder.join("newcomer"), "newcomer", HOSTS[1], key, &[FIRST]);
    let own = newcomer.ask(vec!["newcomer-newcomer.newcomer".to_owned()]);
    sleep(MEETING).await;
    peers.iter().for_each(|peer| peer.exchange(newcomer.gossip()));
    learned(&newcomer, size.all() + 2).await;
    let (took, learning) = (newcomer.started.elapsed(), newcomer.cpu());
    let (answers, own) = (asking.end().times, own.end());
    println!(
        "a node that joins: learns all in {:.2} s with {:.2} s of CPU, {:.1} MB; the first agent spends {:.2} s of CPU, \
         {:.1} MB",
        took.as_secs_f64(),
        learning.as_secs_f64(),
        newcomer.memory(),
        (first.cpu() - cpu).as_secs_f64(),
        first.memory()
    );
    println!("answers of the first agent meanwhile: {answers}");
    println!(
        "own instance of the node that joins: first answer after {:.2} s; then {}",
        own.first.as_secs_f64(),
        own.times
    );
    sleep(SETTLE).await;
    println!(
        "{:.0} s later: {:.2} s of CPU, {:.1} MB",
        SETTLE.as_secs_f64(),
        newcomer.cpu().as_secs_f64(),
        newcomer.memory()
    );
}
