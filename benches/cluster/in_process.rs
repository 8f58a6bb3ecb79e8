//! Clusters too large for one process per node: all nodes run in this process, each with its own sockets.
//!
//! A node consists of what the daemon starts for gossip: the node, its transport, a sealed channel. Files, checks and DNS are
//! omitted; the view, from which DNS is built, shows which nodes are answered.

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::ParseIntError,
    str::FromStr,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use muster::{
    gossip::{
        link,
        message::Identity,
        node::{self, Inputs, Outputs, OwnState, Settings},
        rejected::Rejected,
        seeds::Targets,
        transport::{Sockets, Transport},
    },
    metrics::Gossip,
    model::{
        announcement::{Announcement, Announcements, InstanceState, Node},
        catalog::View,
        keyring::{Key, Keyring},
        member::{INCARNATIONS, PeerId},
        name::Label,
        service::{Endpoint, Instance, InstanceKey},
    },
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    process,
    sandbox::{self, GOSSIP},
    times::Times,
};

/// The default gossip interval.
pub(crate) const INTERVAL: Duration = Duration::from_millis(200);
/// Number of nodes and gossip interval: `500` or `500@1000`, with the interval in milliseconds.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub(crate) nodes: usize,
    pub(crate) interval: Duration,
}

impl FromStr for Size {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some((nodes, millis)) = text.split_once('@') else {
            return Ok(Self { nodes: text.parse()?, interval: INTERVAL });
        };
        Ok(Self { nodes: nodes.parse()?, interval: Duration::from_millis(millis.parse()?) })
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.nodes, self.interval.as_millis())
    }
}
const HOLD: Duration = Duration::from_secs(600);
/// Timeout of each phase; a timeout is reported as such.
const DEADLINE: Duration = Duration::from_secs(120);
const KILLS: usize = 5;
/// Interval of progress lines.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// Runs one cluster and prints its row of the table.
pub(crate) fn run(size: Size, idle: Duration) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    println!("{}", runtime.block_on(measure(size, idle)));
}

/// Head of the table.
pub(crate) const HEAD: &str = "\
| nodes | interval | cold start | crash p50 / max | power cut p50 / max | called gone and was not | timers late p50 / p99 / max | CPU a node | cores in use | \
sent a node: UDP + TCP | memory a node |\n\
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |";

struct Figures {
    size: Size,
    cold: Times,
    crash: Times,
    power: Times,
    missing: usize,
    late: Times,
    cores: f64,
    octets: (f64, f64),
    memory: u64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { size, cold, crash, power, missing, late, cores, octets: (udp, tcp), memory } = self;
        write!(
            f,
            "| {} | {} ms | {} | {} | ",
            size.nodes,
            size.interval.as_millis(),
            cold.show(&[1.0]),
            crash.show(&[0.5, 1.0])
        )?;
        write!(f, "{} | {missing} | {} | ", power.show(&[0.5, 1.0]), late.show(&[0.5, 0.99, 1.0]))?;
        write!(f, "{:.2} % | {cores:.2} | ", cores / size.nodes as f64 * 100.0)?;
        write!(f, "{:.1} + {:.1} kB/s | {:.1} MB |", udp / 1e3, tcp / 1e3, *memory as f64 / 1024.0 / size.nodes as f64)
    }
}

async fn measure(size: Size, idle: Duration) -> Figures {
    let Size { nodes: count, interval } = size;
    let before = process::memory("self").0;
    let late = Late::watch();
    let start = Instant::now();
    let mut nodes: Vec<Running> = (0..count).map(|number| Running::start(number, interval)).collect();
    let mut cold = Times::default();
    let last = wait(&nodes, count, None).await;
    let whole = last.is_some();
    cold.take(last.map(|last| last - start));
    eprintln!("raw: in process {count} cold start: {cold:?}, timers late {}", late.take().show(&[0.5, 0.99, 1.0]));

    sleep(Duration::from_secs(5)).await;
    late.take();
    let (cpu, octets, start) = (process::cpu("self"), sandbox::octets(), Instant::now());
    let mut missing = 0;
    while start.elapsed() < idle {
        sleep(Duration::from_millis(100)).await;
        missing += nodes.iter().filter(|node| node.view.borrow().len() < count).count();
    }
    let took = start.elapsed().as_secs_f64();
    let cores = (process::cpu("self") - cpu).as_secs_f64() / took;
    let sent = sandbox::octets();
    let rate = |before: u64, after: u64| (after - before) as f64 / took / count as f64;
    let octets = (rate(octets.0, sent.0), rate(octets.1, sent.1));
    let memory = process::memory("self").0 - before;
    let idle_late = late.take();
    eprintln!("raw: in process {count} idle: {cores:.2} cores, {octets:?} B/s, {memory} KB");

    let (mut crash, mut power) = (Times::default(), Times::default());
    // A cluster that never converged cannot detect a crash.
    let kills = if whole { 2 * KILLS } else { 0 };
    for kill in 0..kills {
        let victim = fastrand::usize(1..count);
        let address = nodes[victim].address;
        if kill >= KILLS {
            sandbox::cut(address);
        }
        let start = Instant::now();
        let name = nodes[victim].name.clone();
        nodes.swap_remove(victim).end().await;
        let times = if kill < KILLS { &mut crash } else { &mut power };
        times.take(wait(&nodes, count - 1, Some(&name)).await.map(|last| last - start));
        if kill >= KILLS {
            sandbox::mend(address);
        }
        nodes.push(Running::start(number(&name), interval));
        if wait(&nodes, count, None).await.is_none() {
            eprintln!("raw: in process {count}: not whole again after {name}");
        }
        sleep(Duration::from_secs(2)).await;
    }
    eprintln!("raw: in process {count} crash: {crash:?}");
    eprintln!("raw: in process {count} power cut: {power:?}, timers late {}", late.take().show(&[0.5, 0.99, 1.0]));
    Figures { size, cold, crash, power, missing, late: idle_late, cores, octets, memory }
}

/// Waits until every node sees at least `count` nodes, itself included, and none sees `gone`.
async fn wait(nodes: &[Running], count: usize, gone: Option<&Label>) -> Option<Instant> {
    let deadline = Instant::now() + DEADLINE;
    let whole = |node: &Running| {
        let view = node.view.borrow();
        view.len() >= count && gone.is_none_or(|gone| !view.contains_key(gone))
    };
    let mut pending: Vec<&Running> = nodes.iter().collect();
    let (start, mut reported) = (Instant::now(), Duration::ZERO);
    while Instant::now() < deadline {
        if start.elapsed() >= reported + PROGRESS_INTERVAL {
            reported = start.elapsed();
            let mut seen: Vec<usize> = nodes.iter().map(|node| node.view.borrow().len()).collect();
            seen.sort_unstable();
            let (least, median, most) = (seen[0], seen[seen.len() / 2], seen[seen.len() - 1]);
            eprintln!("raw: {reported:.1?}: nodes see {least}, {median}, {most} of {count}; {} wait", pending.len());
        }
        pending.retain(|node| !whole(node));
        if pending.is_empty() {
            return Some(Instant::now());
        }
        sleep(Duration::from_millis(5)).await;
    }
    let seen: Vec<usize> = pending.iter().take(8).map(|node| node.view.borrow().len()).collect();
    eprintln!("raw: {} of {} nodes are not there yet; they see {seen:?} of {count}", pending.len(), nodes.len());
    None
}

/// Running node.
struct Running {
    name: Label,
    address: Ipv4Addr,
    view: watch::Receiver<View>,
    tasks: Vec<JoinHandle<()>>,
    /// Runtime of the node's tasks.
    shutdown: CancellationToken,
    /// Handles that the daemon would hold: the node ends when they are dropped.
    _held: (
        watch::Sender<OwnState>,
        mpsc::Sender<muster::gossip::command::Command>,
        watch::Receiver<BTreeSet<SocketAddr>>,
    ),
}

impl Running {
    fn start(number: usize, interval: Duration) -> Self {
        let name = Label::parse(&format!("n{number}")).unwrap();
        let address = Ipv4Addr::new(127, 3, (number / 200) as u8, (number % 200 + 1) as u8);
        let socket = SocketAddr::new(IpAddr::V4(address), GOSSIP);
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        let own = Identity {
            id: PeerId { name: name.clone(), generation: nanos / INCARNATIONS * INCARNATIONS },
            address: socket,
        };
        let node = Arc::new(Node {
            name: name.clone(),
            addresses: vec![address.into()],
            datacenter: Label::parse("dc1").unwrap(),
            zone: None,
            meta: Default::default(),
            checks: None,
        });
        let (link, network) = link::pair();
        let rejected = Arc::new(Rejected::default());
        let keyring = Keyring::new(Key::from_random([7; 32]));
        let (announcing, announcements) =
            watch::channel(OwnState { announcements: announcements(&name, address), ..OwnState::default() });
        let (view, seen) = watch::channel(node::initial_view(
            &node,
            &announcements.borrow().announcements,
            &Default::default(),
            &[],
            false,
        ));
        let (members, _) = watch::channel(Arc::default());
        let (peers, reached) = watch::channel(BTreeSet::new());
        let (keys, ring) = watch::channel(Some(keyring));
        let (commands, queue) = mpsc::channel(1);
        let transport = Transport::new(own.clone(), ring, network, rejected.clone()).unwrap();
        let target = Endpoint { host: "127.3.0.1".into(), port: GOSSIP };
        let settings = Settings {
            own,
            node,
            version: "0".into(),
            ttl: 5,
            cluster: "service.local".into(),
            interval,
            hold: HOLD,
            restart_hold: Duration::from_secs(30),
            incarnation: 0,
            age: Duration::ZERO,
            known: vec![],
            continues: false,
            targets: Targets { configured: vec![target], remembered: vec![] },
            seed: fastrand::u64(..),
        };
        let serial_ceiling = watch::channel(0).1;
        let zone_serial = watch::channel(None).1;
        let metrics = Gossip::default();
        let inputs =
            Inputs { own: announcements, link, commands: queue, rejected, metrics, serial_ceiling, zone_serial };
        let outputs = Outputs {
            view,
            members,
            peers,
            keyring: keys,
            events: watch::channel(Default::default()).0,
            synced: watch::channel(false).0,
            former_serial: watch::channel(None).0,
            zone_serials: watch::channel(Arc::default()).0,
        };
        let shutdown = CancellationToken::new();
        let running = node::run(settings, inputs, outputs, shutdown.clone());
        let tasks = vec![
            tokio::spawn(transport.run(Sockets::bind(socket).unwrap())),
            tokio::spawn(async move {
                let end = running.await;
                eprintln!("raw: a node has ended: {end:?}");
            }),
        ];
        Self { name, address, view: seen, tasks, shutdown, _held: (announcing, commands, reached) }
    }

    /// Kills the node without a leave, as `kill -9`.
    async fn end(self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        for task in self.tasks {
            let _ = task.await;
        }
        self.shutdown.cancel();
    }
}

fn number(name: &Label) -> usize {
    name.as_str()[1..].parse().unwrap()
}

/// Returns one instance, as in the clusters of processes.
fn announcements(node: &Label, address: Ipv4Addr) -> Announcements {
    let key =
        InstanceKey { service: Label::parse("web").unwrap().into(), id: Label::parse(&format!("web-{node}")).unwrap() };
    let instance = Instance { port: Some(80), ..Instance::new(key, vec![address.into()]) };
    Announcements::from_iter([Announcement::new(Arc::new(instance), InstanceState::Passing).into_entry()])
}

/// Delay of a timer of this process, which the nodes' ticks share.
struct Late(Arc<Mutex<Times>>);

impl Late {
    fn watch() -> Self {
        let times = Arc::new(Mutex::new(Times::default()));
        let kept = times.clone();
        tokio::spawn(async move {
            let mut ticks = interval(INTERVAL / 4);
            loop {
                let due = ticks.tick().await;
                kept.lock().unwrap().take(Some(due.elapsed()));
            }
        });
        Self(times)
    }

    fn take(&self) -> Times {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}
