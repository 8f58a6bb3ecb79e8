//! Clusters larger than a machine can run: the library's nodes in one process under a paused clock. The clock advances when
//! all tasks are idle, so that times are those of hosts with one processor each.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use muster::{
    gossip::{
        link::{self, Inbound, Outbound},
        liveness::TcpProbeResult,
        message::Identity,
        node::{self, End, Inputs, Outputs, OwnState, Settings},
        rejected::Rejected,
        seeds::Targets,
    },
    metrics::Gossip,
    model::{
        announcement::{Announcement, Announcements, InstanceState, Node},
        catalog::{Freshness, View},
        member::PeerId,
        name::Label,
        service::{Endpoint, Instance, InstanceKey},
    },
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::process::{cpu, memory};

/// Network latency between hosts.
const DELAY: Duration = Duration::from_millis(1);
/// Time from convergence until the cluster is at rest: states have spread, and the exchanges of the start have ended.
const SETTLE: Duration = Duration::from_secs(15);
/// Time in which the cost at rest is measured. It includes several rounds of the slowest periodic work.
const REST: Duration = Duration::from_secs(30);
/// Longest message in a datagram, before encryption: longer ones are sent over TCP.
const DATAGRAM: usize = 1_100;
/// Resolution of the measured times.
const LOOK: Duration = Duration::from_millis(20);

#[derive(Default)]
struct Network {
    hosts: HashMap<SocketAddr, (Identity, mpsc::Sender<Inbound>)>,
    met: HashSet<(SocketAddr, SocketAddr)>,
    sent: Sent,
}

/// Traffic of all nodes.
#[derive(Clone, Copy, Default)]
struct Sent {
    octets: u64,
    messages: u64,
    /// Messages that are too long for a datagram.
    streams: u64,
}

struct Host {
    address: SocketAddr,
    view: watch::Receiver<View>,
    running: JoinHandle<End>,
    _announced: watch::Sender<OwnState>,
}

/// Head of the table.
pub(crate) const HEAD: &str = "| nodes | cold start | crash | CPU a node | messages a node | sent a node, unsealed | TCP connections a node | memory a node |\n\
                               | --- | --- | --- | --- | --- | --- | --- | --- |";

/// Measures a cluster of this size and prints its row.
pub(crate) fn run(nodes: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(measure(nodes));
}

async fn measure(nodes: usize) {
    let own = "self";
    let before = memory(own).0;
    let network: Arc<Mutex<Network>> = Arc::default();
    let started = Instant::now();
    let mut hosts: Vec<Host> = (0..nodes).map(|number| start(number, &network)).collect();
    let whole = |hosts: &[Host], expected: usize| {
        hosts.iter().all(|host| {
            let view = host.view.borrow();
            let live = view.values().filter(|view| view.freshness == Freshness::Live && view.announcements.len() == 1);
            live.count() == expected
        })
    };
    while !whole(&hosts, nodes) {
        assert!(started.elapsed() < Duration::from_secs(120), "{nodes} nodes do not converge");
        sleep(LOOK).await;
    }
    let converged = started.elapsed();
    sleep(SETTLE).await;
    let (busy_before, before_rest) = (cpu(own), network.lock().unwrap().sent);
    sleep(REST).await;
    let per_node = |number: f64| number / REST.as_secs_f64() / nodes as f64;
    let busy = per_node((cpu(own) - busy_before).as_secs_f64());
    let sent = network.lock().unwrap().sent;
    let octets = per_node((sent.octets - before_rest.octets) as f64);
    let messages = per_node((sent.messages - before_rest.messages) as f64);
    let streams = per_node((sent.streams - before_rest.streams) as f64);
    let memory = memory(own).0.saturating_sub(before) / nodes as u64;

    let gone = hosts.swap_remove(nodes / 2);
    network.lock().unwrap().hosts.remove(&gone.address);
    gone.running.abort();
    let killed = Instant::now();
    while !whole(&hosts, nodes - 1) {
        assert!(killed.elapsed() < Duration::from_secs(120), "the crash is not detected");
        sleep(LOOK).await;
    }
    println!(
        "| {nodes} | {} ms | {} ms | {:.2} % | {messages:.0}/s | {:.1} kB/s | {streams:.1}/s | {:.1} MB |",
        converged.as_millis(),
        killed.elapsed().as_millis(),
        busy * 100.0,
        octets / 1000.0,
        memory as f64 / 1e3
    );
    hosts.iter().for_each(|host| host.running.abort());
}

fn address(number: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, (number / 250) as u8, (number % 250 + 1) as u8], 7946))
}

fn start(number: usize, network: &Arc<Mutex<Network>>) -> Host {
    let label = |text: String| Label::parse(&text).unwrap();
    let own =
        Identity { id: PeerId { name: label(format!("n{number}")), generation: 1 << 40 }, address: address(number) };
    let (link, mut wire) = link::pair();
    network.lock().unwrap().hosts.insert(own.address, (own.clone(), wire.inbound.clone()));
    let (shared, who) = (network.clone(), own.clone());
    tokio::spawn(async move {
        while let Some(outbound) = wire.outbound.recv().await {
            let (shared, who, inbound) = (shared.clone(), who.clone(), wire.inbound.clone());
            tokio::spawn(async move {
                sleep(DELAY).await;
                match outbound {
                    Outbound::Message { to, octets } => deliver(&mut shared.lock().unwrap(), &who, to, &octets),
                    Outbound::Stream { to, mut messages } => {
                        while let Some(octets) = messages.recv().await {
                            deliver(&mut shared.lock().unwrap(), &who, to, &octets);
                        }
                    }
                    Outbound::TcpProbe { peer, address } => {
                        let there = shared.lock().unwrap().hosts.contains_key(&address);
                        let result = if there { TcpProbeResult::Accepted } else { TcpProbeResult::Refused };
                        let _ = inbound.try_send(Inbound::TcpProbed { peer, result });
                    }
                }
            });
        }
    });
    let instance = Instance {
        port: Some(80),
        ..Instance::new(
            InstanceKey { service: label("web".into()).into(), id: label(format!("web-{number}")) },
            vec![own.address.ip()],
        )
    };
    let announcement = Announcement::new(Arc::new(instance.clone()), InstanceState::Passing);
    let (announced, announcements) = watch::channel(OwnState {
        announcements: Announcements::from_iter([announcement.into_entry()]),
        ..OwnState::default()
    });
    let (view, seen) = watch::channel(View::new());
    let join = [0, 1].map(|number| Endpoint { host: address(number).ip().to_string(), port: 7946 });
    let settings = Settings {
        node: Arc::new(Node {
            name: own.id.name.clone(),
            addresses: vec![own.address.ip()],
            datacenter: label("dc1".into()),
            zone: None,
            meta: Default::default(),
            checks: None,
        }),
        own: own.clone(),
        version: "0".to_owned(),
        ttl: 5,
        cluster: "service.local.".to_owned(),
        interval: Duration::from_millis(200),
        hold: Duration::from_secs(600),
        restart_hold: Duration::from_secs(30),
        incarnation: 0,
        age: Duration::ZERO,
        known: vec![],
        continues: false,
        targets: Targets { configured: join.into(), remembered: vec![] },
        seed: number as u64,
    };
    let inputs = Inputs {
        own: announcements,
        link,
        commands: mpsc::channel(1).1,
        rejected: Arc::new(Rejected::default()),
        metrics: Gossip::default(),
        serial_ceiling: watch::channel(0).1,
        zone_serial: watch::channel(None).1,
    };
    let outputs = Outputs {
        view,
        members: watch::channel(Arc::default()).0,
        peers: watch::channel(BTreeSet::new()).0,
        keyring: watch::channel(None).0,
        events: watch::channel(Default::default()).0,
        synced: watch::channel(false).0,
        former_serial: watch::channel(None).0,
        zone_serials: watch::channel(Arc::default()).0,
    };
    let running = tokio::spawn(node::run(settings, inputs, outputs, CancellationToken::new()));
    Host { address: own.address, view: seen, running, _announced: announced }
}

fn deliver(network: &mut Network, from: &Identity, to: SocketAddr, octets: &[u8]) {
    network.sent.octets += octets.len() as u64;
    network.sent.messages += 1;
    network.sent.streams += u64::from(octets.len() > DATAGRAM);
    let Some((other, inbound)) = network.hosts.get(&to).cloned() else { return };
    if network.met.insert((from.address, to)) {
        let _ = inbound.try_send(Inbound::Introduced { peer: from.clone(), at: from.address });
    }
    if network.met.insert((to, from.address))
        && let Some((_, back)) = network.hosts.get(&from.address)
    {
        let _ = back.try_send(Inbound::Introduced { at: other.address, peer: other });
    }
    let _ = inbound.try_send(Inbound::Message { from: from.clone(), octets: octets.to_vec() });
}
