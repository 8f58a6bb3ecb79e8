//! Time from the start of the program to its first answer: `cargo bench --bench start`.
//!
//! muster reads service files, or restores the stored state of a cluster. `nsd`, `knotd` and `unbound`, if installed, read a zone
//! with the same names. Each server is started in turn, round after round; a client queries it each millisecond over UDP. All
//! files are in the page cache. `docs/performance.md` explains the figures.
//!
//! `-- --rounds 5 --services 10,100000 --servers muster,nsd,knot,unbound` are the defaults; `--binary PATH` adds another build of
//! muster as `other`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark that cannot continue ends")]

#[allow(dead_code, reason = "its functions serve the DNS benchmark")]
#[path = "peers/load.rs"]
mod load;
#[allow(dead_code, reason = "its functions serve the DNS benchmark")]
#[path = "peers/server.rs"]
mod server;
#[allow(dead_code, reason = "its functions serve the DNS benchmark")]
#[path = "peers/world.rs"]
mod world;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use muster::{
    gossip::{known_peer::KnownPeer, peer_replica::Facts},
    model::{
        announcement::{Announcement, InstanceState},
        check_results::Moment,
        member::{PeerId, Reach},
        name::Label,
        service::{Instance, InstanceKey},
    },
    saved_state::SavedState,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use server::Kind;

/// Services of a file, at most: below the limit of one megabyte per file.
const PER_FILE: usize = 5_000;
/// Peers of the stored state, and instances of each. None of them runs.
const PEERS: usize = 200;
const PER_PEER: usize = 500;
/// Pause between two queries.
const PAUSE: Duration = Duration::from_millis(1);
/// Timeout of a start.
const PATIENCE: Duration = Duration::from_secs(120);

/// Data that a start reads.
#[derive(Clone, Copy)]
enum Data {
    /// This number of services, each with one instance.
    Services(usize),
    /// One service, and the stored state of a cluster.
    Stored,
}

/// One start: times until the first answers, and the processor time until then.
struct Start {
    own: Duration,
    /// First answer of an instance of a peer.
    peer: Option<Duration>,
    cpu: Duration,
}

fn main() {
    let (mut rounds, mut services) = (5, vec![10, 100_000]);
    let mut kinds = vec![Kind::Muster, Kind::Nsd, Kind::Knot, Kind::Unbound];
    // `cargo bench` passes `--bench`.
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    while let Some(option) = args.next() {
        let value = args.next().unwrap_or_else(|| panic!("{option} needs a value"));
        match option.as_str() {
            "--rounds" => rounds = value.parse().unwrap(),
            "--services" => services = value.split(',').map(|count| count.parse().unwrap()).collect(),
            "--servers" => kinds = value.split(',').map(|name| Kind::parse(name).unwrap()).collect(),
            "--binary" => kinds.push(Kind::Other(value.into())),
            _ => panic!("unknown option {option}"),
        }
    }
    let is_installed = |kind: &Kind| Command::new(kind.program()).arg("-V").output().is_ok();
    kinds.retain(is_installed);
    println!("| data | server | first answer | of a peer's instance | CPU |\n| --- | --- | --- | --- | --- |");
    for data in services.into_iter().map(Data::Services).chain([Data::Stored]) {
        let kinds: Vec<_> = kinds.iter().filter(|kind| is_muster(kind) || matches!(data, Data::Services(_))).collect();
        let folder = tempfile::tempdir().unwrap();
        let folders: Vec<_> = kinds.iter().map(|kind| folder.path().join(kind.to_string())).collect();
        kinds.iter().zip(&folders).for_each(|(kind, folder)| prepare(kind, data, folder));
        let mut starts: Vec<Vec<Start>> = kinds.iter().map(|_| Vec::new()).collect();
        for _ in 0..rounds {
            for ((kind, folder), starts) in kinds.iter().zip(&folders).zip(&mut starts) {
                starts.push(start(kind, data, folder));
            }
        }
        for (kind, starts) in kinds.iter().zip(&starts) {
            let own = spread(starts.iter().map(|start| start.own).collect());
            let peer: Vec<_> = starts.iter().filter_map(|start| start.peer).collect();
            let peer = if peer.is_empty() { String::new() } else { spread(peer) };
            let cpu = spread(starts.iter().map(|start| start.cpu).collect());
            println!("| {} | {kind} | {own} | {peer} | {cpu} |", data.describe());
        }
    }
}

impl Data {
    fn describe(self) -> String {
        match self {
            Self::Services(count @ ..=PER_FILE) => format!("{count} services in a file"),
            Self::Services(count) => format!("{count} services in {} files", count.div_ceil(PER_FILE)),
            Self::Stored => format!("stored state of {PEERS} peers with {PER_PEER} instances each"),
        }
    }

    /// Own services.
    fn services(self) -> usize {
        match self {
            Self::Services(count) => count,
            Self::Stored => 1,
        }
    }
}

fn is_muster(kind: &Kind) -> bool {
    matches!(kind, Kind::Muster | Kind::Other(_))
}

/// Writes the files of a server.
fn prepare(kind: &Kind, data: Data, folder: &Path) {
    fs::create_dir_all(folder.join("services.d")).unwrap();
    fs::create_dir_all(folder.join("data")).unwrap();
    if !is_muster(kind) {
        return fs::write(folder.join("service.local.zone"), zone(data.services())).unwrap();
    }
    let services: Vec<usize> = (0..data.services()).collect();
    for (number, services) in services.chunks(PER_FILE).enumerate() {
        fs::write(folder.join(format!("services.d/{number:03}.yaml")), service_file(services)).unwrap();
    }
}

/// Starts a server, waits for its answers, and ends it.
fn start(kind: &Kind, data: Data, folder: &Path) -> Start {
    if let Data::Stored = data {
        fs::write(folder.join("data/state"), stored()).unwrap();
    }
    let address = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let config = folder.join("config");
    fs::write(&config, kind.config(folder, address.port())).unwrap();
    let mut command = Command::new(kind.program());
    match kind {
        Kind::Muster | Kind::Other(_) => drop(command.args(["agent", "--config"])),
        Kind::Nsd | Kind::Unbound => drop(command.args(["-d", "-c"])),
        Kind::Knot | Kind::Dnsmasq => drop(command.arg("-c")),
    }
    let log = fs::File::create(folder.join("log")).unwrap();
    command.arg(&config).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    let began = Instant::now();
    let child = command.spawn().unwrap();
    let server = Running(child);
    let service = format!("s{:05}", data.services() - 1);
    // Answers about services wait for a peer where there were some.
    let last = match data {
        Data::Services(_) => format!("{service}.service.local"),
        Data::Stored => format!("{service}-n1.{service}.service.local"),
    };
    let (own, peer, cpu) = thread::scope(|scope| {
        let of_peer = matches!(data, Data::Stored)
            .then(|| scope.spawn(|| until_answered(address, "p00000.service.local", began)));
        let own = until_answered(address, &last, began);
        let cpu = server.cpu();
        (own, of_peer.map(|waiting| waiting.join().unwrap()), cpu)
    });
    Start { own, peer, cpu }
}

/// Running server, which is stopped on drop.
struct Running(Child);

impl Running {
    /// Returns the processor time of the process, its threads and its children.
    fn cpu(&self) -> Duration {
        let mut pids = vec![self.0.id()];
        let mut at = 0;
        let mut spent = 0;
        while let Some(pid) = pids.get(at).copied() {
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            pids.extend(children.split_whitespace().map(|pid| pid.parse::<u32>().unwrap()));
            let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
            let of_thread = |thread: fs::DirEntry| {
                let stat = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
                stat.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0)
            };
            spent += threads.map(of_thread).sum::<u64>();
            at += 1;
        }
        Duration::from_nanos(spent)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

/// Queries until an answer has a record, and returns the time since `began`.
fn until_answered(address: SocketAddr, name: &str, began: Instant) -> Duration {
    let query = query(name);
    // Not the server's address: the kernel may choose the port that the server is about to bind.
    let socket = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, 2), 0)).unwrap();
    socket.connect(address).unwrap();
    socket.set_read_timeout(Some(PAUSE)).unwrap();
    let mut reply = [0; 4096];
    while began.elapsed() < PATIENCE {
        // Refused before the server is bound.
        let _ = socket.send(&query);
        match socket.recv(&mut reply) {
            Ok(12..) if reply[3] & 0x0f == 0 && reply[6..8] != [0, 0] => return began.elapsed(),
            Ok(_) | Err(_) => thread::sleep(PAUSE),
        }
    }
    panic!("no answer to {name} within {PATIENCE:?}");
}

/// Returns an A query.
fn query(name: &str) -> Vec<u8> {
    let mut query = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend(label.bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    query
}

/// Returns the median, the least and the greatest time, in milliseconds.
fn spread(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |index: usize| times[index].as_secs_f64() * 1e3;
    format!("{:.0} ms ({:.0} to {:.0})", at(times.len() / 2), at(0), at(times.len() - 1))
}

fn address(service: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, (service >> 16) as u8, (service >> 8) as u8, service as u8)
}

fn service_file(services: &[usize]) -> String {
    let mut text = "services:\n".to_owned();
    for service in services {
        let address = address(*service);
        writeln!(
            text,
            "- service: s{service:05}\n  address: {address}\n  port: 8080\n  tags: [v2]\n  meta:\n    version: \"2.3.1\""
        )
        .unwrap();
    }
    text
}

/// Returns the zone with the names of the services.
fn zone(services: usize) -> String {
    let mut zone = "$ORIGIN service.local.\n$TTL 5\n@ SOA n1.node hostmaster 1 60 10 604800 1\n@ NS n1.node\n\
                    n1.node A 127.0.0.1\n"
        .to_owned();
    for service in 0..services {
        let (name, target, address) =
            (format!("s{service:05}"), format!("s{service:05}-n1.s{service:05}"), address(service));
        for owner in [&name, &target, &format!("v2.{name}")] {
            writeln!(zone, "{owner} A {address}").unwrap();
        }
        for owner in [&name, &target, &format!("_{name}._tcp"), &format!("_v2._{name}._tcp"), &format!("v2.{name}")] {
            writeln!(zone, "{owner} SRV 1 10 8080 {target}").unwrap();
        }
        writeln!(zone, "{target} TXT \"version=2.3.1\"").unwrap();
    }
    zone
}

/// Returns the stored state of a cluster whose nodes all run elsewhere, up to now.
fn stored() -> Vec<u8> {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let uptime: f64 = fs::read_to_string("/proc/uptime").unwrap().split(' ').next().unwrap().parse().unwrap();
    let saved_at = Moment { unix, uptime: Duration::from_secs_f64(uptime) };
    SavedState { saved_at, peers: (0..PEERS).map(peer).collect(), ..SavedState::default() }.encode()
}

fn peer(number: usize) -> KnownPeer {
    let label = |text: &str| Label::parse(text).unwrap();
    let name = format!("host-{number}");
    // Nothing listens there.
    let host = Ipv4Addr::new(127, 1, 0, number as u8);
    let instance = |at: usize| {
        let service = format!("p{at:05}");
        let key = InstanceKey { service: label(&service).into(), id: label(&format!("{service}-{name}")) };
        let instance = Instance {
            port: Some(8080),
            tags: vec!["v2".to_owned()].into(),
            meta: [("version", "2.3.1")].into(),
            ..Instance::new(key, vec![host.into()])
        };
        Announcement::new(Arc::new(instance), InstanceState::Passing).into_entry()
    };
    KnownPeer {
        external: Default::default(),
        id: PeerId { name: label(&name), generation: 1_795_474_285_827_805_184 },
        incarnation: 0,
        address: (host, 7946).into(),
        reach: Reach::Alive,
        version: 3000,
        facts: Facts {
            addresses: vec![host.into()],
            datacenter: label("dc1"),
            zone: None,
            version: "0.1.0".to_owned(),
            meta: BTreeMap::new(),
            ttl: Some(5),
        },
        announcements: (0..PER_PEER).map(instance).collect(),
        node_checks: None,
        serial: None,
        zone_serial: None,
    }
}
