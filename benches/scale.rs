//! One agent of the built program in a cluster of 200 nodes with 500 instances each: `cargo bench --bench scale`.
//!
//! The other 199 nodes run in this process with the library's sealed transport and gossip. They send the agent their state,
//! answer its pings, and change the health of their instances. Prints the agent's memory, its CPU time per change, and the
//! latency of its DNS, at rest and during 1,000 changes a second. `-- --nodes 200 --instances 500 --services 1000` are the
//! defaults.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark that cannot continue ends")]

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use muster::{
    gossip::{
        anti_entropy::{Cluster, Settings},
        link::{self, Inbound, Outbox},
        liveness::IndirectProbeResult,
        message::{Change, Identity, Message, Push},
        rejected::Rejected,
        transport::{Sockets, Transport},
    },
    model::{
        announcement::InstanceState,
        keyring::Keyring,
        member::PeerId,
        name::Label,
        service::{Instance, InstanceKey},
    },
    record::Record,
};
use tokio::sync::watch;

/// Gossip address of the agent; its DNS listens on the same host.
const AGENT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 4, 0, 1)), 7946);
/// Maximum octets of gossip that the other nodes process: digests only, so that the state is not kept 200 times.
const DIGEST: usize = 16 * 1024;
/// Duration of the measurement at each rate of changes.
const SPAN: Duration = Duration::from_secs(10);
/// Queries per second.
const ASKED: u64 = 500;

struct Size {
    nodes: usize,
    instances: usize,
    services: usize,
}

/// Other node.
struct Peer {
    generation: u64,
    cluster: Cluster,
    outbox: Outbox,
    keys: Vec<InstanceKey>,
}

struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() {
    let mut size = Size { nodes: 200, instances: 500, services: 1000 };
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    for pair in arguments.chunks(2) {
        let number = pair.get(1).and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{pair:?}"));
        match pair[0].as_str() {
            "--nodes" => size.nodes = number,
            "--instances" => size.instances = number,
            "--services" => size.services = number,
            _ => panic!("unknown option {}", pair[0]),
        }
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(run(&size));
}

async fn run(size: &Size) {
    let folder = tempfile::tempdir().unwrap();
    let agent = start(folder.path());
    let pid = agent.0.id();
    tokio::time::sleep(Duration::from_secs(1)).await;
    println!("alone: {:.1} MB", memory(pid));

    let ring = Keyring::parse(&fs::read_to_string(folder.path().join("key")).unwrap()).unwrap();
    let started = Instant::now();
    let mut peers = vec![];
    // Once the agent has converged, the other nodes ignore its gossip. They would discard its state, and it would send it
    // repeatedly, which does not happen in a real cluster.
    let gossiping = Arc::new(AtomicBool::new(true));
    for number in 1..size.nodes {
        peers.push(peer(number, size, &ring, &gossiping).await);
    }
    let expected = (size.nodes - 1) * size.instances;
    while instances(folder.path()) < expected {
        assert!(started.elapsed() < Duration::from_secs(120), "{} of {expected} instances", instances(folder.path()));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    gossiping.store(false, Ordering::Relaxed);
    println!(
        "{} nodes, {expected} instances of {} services: {:.1} MB, converged in {:.1} s with {:.1} s of CPU",
        size.nodes,
        size.services,
        memory(pid),
        started.elapsed().as_secs_f64(),
        cpu(pid).as_secs_f64()
    );
    tokio::time::sleep(Duration::from_secs(5)).await;

    let (before, asked) = (cpu(pid), ask_for(SPAN, size.services).await);
    let rest = cpu(pid) - before;
    println!("at rest: {:.1} % of a core, with {ASKED} queries a second; answers {asked}", percent(rest));
    for rate in [10, 100, 1000_u64] {
        let before = cpu(pid);
        let asking = tokio::spawn(ask_for(SPAN, size.services));
        let flips = flip(&mut peers, rate, SPAN).await;
        let asked = asking.await.unwrap();
        let busy = cpu(pid).checked_sub(before + rest).unwrap_or_default();
        println!(
            "{rate} changes a second: {:.3} ms of a core each; answers {asked}; {:.1} MB",
            busy.as_secs_f64() * 1000.0 / flips as f64,
            memory(pid)
        );
    }
}

fn percent(busy: Duration) -> f64 {
    busy.as_secs_f64() * 100.0 / SPAN.as_secs_f64()
}

fn start(folder: &Path) -> Agent {
    let key = Command::new(env!("CARGO_BIN_EXE_muster")).arg("keygen").output().unwrap().stdout;
    fs::write(folder.join("key"), key).unwrap();
    fs::create_dir(folder.join("services.d")).unwrap();
    let config = format!(
        "node: agent\nadvertise: 127.4.0.1\ndata_dir: data\nservices_dir: services.d\nzones_dir: zones\n\
         dns: {{listen: ['127.4.0.1:5300']}}\nhttp: {{listen: ['127.4.0.1:8500']}}\nlog: {{level: warn}}\n\
         gossip: {{listen: '{AGENT}', key_file: key}}\n"
    );
    fs::write(folder.join("muster.yaml"), config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_muster"));
    command.args(["agent", "--config"]).arg(folder.join("muster.yaml"));
    Agent(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
}

/// Returns the number of instances of other nodes that the agent knows.
fn instances(_: &Path) -> usize {
    let mut command = Command::new(env!("CARGO_BIN_EXE_muster"));
    let output = command.args(["members", "--json", "--http-addr", "127.4.0.1:8500"]).output().unwrap();
    let members: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let members = members.as_array().map(Vec::as_slice).unwrap_or_default();
    members.iter().filter_map(|member| member["Muster"]["Instances"].as_u64()).sum::<u64>() as usize
}

async fn peer(number: usize, size: &Size, ring: &Keyring, gossiping: &Arc<AtomicBool>) -> Peer {
    let gossiping = gossiping.clone();
    let label = |text: String| Label::parse(&text).unwrap();
    let address = SocketAddr::from(([127, 4, 1 + (number / 250) as u8, (number % 250) as u8 + 1], 7946));
    let own = Identity { id: PeerId { name: label(format!("n{number}")), generation: 1 << 40 }, address };
    let (mut link, network) = link::pair();
    let (_, keyring) = watch::channel(Some(ring.clone()));
    let transport = Transport::new(own.clone(), keyring, network, Arc::new(Rejected::default())).unwrap();
    tokio::spawn(transport.run(Sockets::bind(address).unwrap()));
    let mut records = vec![
        Record::Node {
            addresses: vec![address.ip()],
            datacenter: label("dc1".into()),
            version: "0.1.0".into(),
            meta: Default::default(),
            ttl: None,
        }
        .encode(),
    ];
    let mut keys = vec![];
    for at in 0..size.instances {
        let service = (number * size.instances + at) % size.services;
        let key = InstanceKey {
            service: label(format!("service-{service}")),
            id: label(format!("service-{service}-n{number}-{at}")),
        };
        let instance = Instance {
            port: Some(8000 + (at % 1000) as u16),
            tags: vec!["v2".into()].into(),
            meta: [("version", "2.3.1")].into(),
            ..Instance::new(
                key.clone(),
                vec![IpAddr::from([10, (number / 250) as u8, (number % 250) as u8, (at % 250) as u8])],
            )
        };
        records.push(Record::Instance(Arc::new(instance)).encode());
        records.push(Record::State(key.clone(), InstanceState::Passing).encode());
        keys.push(key);
    }
    let settings = Settings { id: own.id.clone(), incarnation: 0, address, cluster: "service.local.".into() };
    let (to_cluster, inbox) = link::gossip();
    let cluster = Cluster::start(settings, records, link.outbox.clone(), inbox, Arc::default()).await.unwrap();
    cluster.talk_to(AGENT);
    let outbox = link.outbox.clone();
    tokio::spawn(async move {
        while let Some(inbound) = link.inbound.recv().await {
            let Inbound::Message { from, octets } = inbound else { continue };
            match Message::decode(&octets).unwrap() {
                Message::Ping { sequence, state } => {
                    link.outbox.send([from.address], &Message::Ack { sequence, state });
                }
                Message::IndirectProbe { sequence, target } => {
                    link.outbox.send(
                        [from.address],
                        &Message::IndirectResult { sequence, target, result: IndirectProbeResult::Acked },
                    );
                }
                Message::Gossip(octets) if octets.len() < DIGEST && gossiping.load(Ordering::Relaxed) => {
                    let _ = to_cluster.try_send((from.address, octets.to_vec()));
                }
                _ => {}
            }
        }
    });
    Peer { generation: own.id.generation, cluster, outbox, keys }
}

/// Changes the health of instances in turn, `rate` times a second; returns the number of changes.
async fn flip(peers: &mut [Peer], rate: u64, span: Duration) -> u64 {
    let (started, count) = (Instant::now(), peers.len());
    let mut flips = 0;
    while started.elapsed() < span {
        let due = (started.elapsed().as_secs_f64() * rate as f64) as u64;
        while flips < due {
            let peer = &mut peers[flips as usize % count];
            let round = flips as usize / count;
            let key = peer.keys[round % peer.keys.len()].clone();
            let state = match round / peer.keys.len() % 2 {
                0 => InstanceState::Critical("connection refused".into()),
                _ => InstanceState::Passing,
            };
            let (key, value) = Record::State(key, state).encode();
            let entries = peer.cluster.publish(&[(key, Some(value))]).await;
            let changes = entries.iter().map(|entry| Change {
                key: &entry.key,
                version: entry.version,
                value: entry.value.as_deref(),
            });
            let push = Push { generation: peer.generation, changes: changes.collect() };
            peer.outbox.send([AGENT], &Message::Push(push));
            flips += 1;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    flips
}

/// Queries at a steady rate; returns the latencies as text.
async fn ask_for(span: Duration, services: usize) -> String {
    tokio::task::spawn_blocking(move || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect("127.4.0.1:5300").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let (started, mut times, mut lost) = (Instant::now(), vec![], 0);
        while started.elapsed() < span {
            let mut query = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
            for label in [format!("service-{}", fastrand::usize(..services)).as_str(), "service", "local"] {
                query.push(label.len() as u8);
                query.extend(label.as_bytes());
            }
            query.extend([0, 0, 1, 0, 1]);
            let asked = Instant::now();
            socket.send(&query).unwrap();
            match socket.recv(&mut [0; 4096]) {
                Ok(_) => times.push(asked.elapsed()),
                Err(_) => lost += 1,
            }
            let next = started + Duration::from_secs_f64((times.len() + lost) as f64 / ASKED as f64);
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        times.sort();
        let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_micros();
        format!("{} / {} / {} µs (median, p99, longest), {lost} lost", at(0.5), at(0.99), at(1.0))
    })
    .await
    .unwrap()
}

/// Returns the CPU time of all threads.
fn cpu(pid: u32) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let of = |task: fs::DirEntry| -> Option<u64> {
        fs::read_to_string(task.path().join("schedstat")).ok()?.split(' ').next()?.parse().ok()
    };
    Duration::from_nanos(tasks.filter_map(of).sum())
}

/// Returns the resident memory in MB.
fn memory(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    text.split(' ').nth(1).unwrap().parse::<f64>().unwrap() * 4096.0 / 1e6
}
