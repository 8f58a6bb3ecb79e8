//! Clusters of agents on networks of their own: one network namespace for each host, wired by a bridge in a further one.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{Ipv4Addr, TcpStream, UdpSocket},
    ops::Deref,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use hickory_proto::{op::Message, rr::RData};
use serde_json::Value;

use super::{
    Ask,
    agent::Agent,
    decode, extended_error,
    namespaces::{Namespace, ip},
    process::{self, Finish},
    wait::until,
};

/// Where all hosts gossip.
pub const GOSSIP: u16 = 7946;
/// The service that every host of a cluster has an instance of.
pub const SERVICE: &str = "web";
/// How long a question waits for its answer; an agent that is stopped gives none.
const ANSWER: Duration = Duration::from_secs(1);
/// From one round of questions to the next.
const ROUND: Duration = Duration::from_millis(50);

/// Hosts on one bridge, each with an instance of [`SERVICE`].
pub struct Cluster {
    /// Host 1 is the first; its number is the last octet of its address.
    pub hosts: Vec<Host>,
    /// The gossip key.
    pub key: String,
    /// Where the cables of the hosts end: `p1` is that of the first.
    pub bridge: Namespace,
}

impl Cluster {
    /// Starts so many and waits until each answers all instances.
    pub fn start(size: u8) -> Self {
        let mut cluster = Self::wired(size);
        for at in 0..usize::from(size) {
            cluster.start_agent(at, Setup::default());
        }
        cluster.converge();
        cluster
    }

    /// So many hosts without agents.
    pub fn wired(size: u8) -> Self {
        let bridge = Namespace::new();
        ip(&format!("-n {} link add br0 type bridge", bridge.name()));
        ip(&format!("-n {} link set br0 up", bridge.name()));
        let mut cluster = Self { hosts: Vec::new(), key: keygen(), bridge };
        cluster.hosts = (1..=size).map(|number| cluster.wire(number)).collect();
        cluster
    }

    /// Wires a further host, without an agent; the caller may add it to the cluster.
    pub fn wire(&self, number: u8) -> Host {
        let namespace = Namespace::new();
        let port = format!("p{number}");
        namespace.connect("eth0", &self.bridge, &port);
        ip(&format!("-n {} link set {port} master br0", self.bridge.name()));
        Host::new(&format!("n{number}"), address(number), namespace)
    }

    /// Starts the agent of a host with the cluster's key; it joins the first two.
    pub fn start_agent(&mut self, at: usize, setup: Setup) {
        let key = self.key.clone();
        self.hosts[at].start(Setup { key, join: vec![address(1), address(2)], ..setup });
    }

    /// All hosts but this.
    pub fn others(&self, than: usize) -> impl Iterator<Item = &Host> {
        self.hosts.iter().enumerate().filter(move |(at, _)| *at != than).map(|(_, host)| host)
    }

    /// The instances of all hosts.
    pub fn instances(&self) -> BTreeSet<String> {
        self.hosts.iter().map(Host::instance).collect()
    }

    /// Waits until each host answers the instances of all, as live ones.
    pub fn converge(&self) -> Duration {
        let all = self.instances();
        until("each host answers all instances", || {
            self.hosts.iter().all(|host| {
                let answer = host.ask(SERVICE);
                answer.is_some_and(|answer| instances(&answer) == all && extended_error(&answer).is_none())
            })
        })
    }
}

/// A host: its namespace, where it is in it, and its agent while it has one.
pub struct Host {
    agent: Option<Agent>,
    resolver: Resolver,
    /// The name of its node.
    pub node: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its network.
    pub namespace: Namespace,
}

/// What an agent is started with, apart from who it is.
#[derive(Clone, Default)]
pub struct Setup {
    /// The gossip key.
    pub key: String,
    /// Whom to join.
    pub join: Vec<Ipv4Addr>,
    /// A data folder of before, to be moved to the agent's.
    pub data: Option<PathBuf>,
    /// Service files beside that of [`SERVICE`]: name and content.
    pub services: Vec<(String, String)>,
}

impl Host {
    /// A host whose network has one interface, `eth0`, that the caller has connected.
    pub fn new(node: &str, address: Ipv4Addr, namespace: Namespace) -> Self {
        ip(&format!("-n {} address add {address}/24 dev eth0", namespace.name()));
        let resolver = Resolver::new(&namespace);
        Self { agent: None, resolver, node: node.to_owned(), address, namespace }
    }

    /// The id of its instance of [`SERVICE`].
    pub fn instance(&self) -> String {
        format!("{SERVICE}-{}", self.node)
    }

    /// Starts its agent and waits until that answers.
    pub fn start(&mut self, setup: Setup) {
        let (node, address) = (&self.node, self.address);
        let Setup { key, join, data, services } = setup;
        let join: Vec<String> = join.iter().map(|address| format!("{address}:{GOSSIP}")).collect();
        let config = format!(
            "node: {node}\nadvertise: {address}\ndata_dir: data\nservices_dir: services.d\nzones_dir: zones\n\
             dns: {{listen: [127.0.0.1:53]}}\nhttp: {{listen: [127.0.0.1:8500]}}\nchecks: {{allow_exec: true}}\n\
             gossip: {{listen: {address}:{GOSSIP}, key_file: key, join: [{}]}}\n",
            join.join(", ")
        );
        let prepare = |folder: &Path| {
            fs::write(folder.join("muster.yaml"), config).unwrap();
            fs::write(folder.join("key"), format!("{key}\n")).unwrap();
            if let Some(data) = data {
                fs::rename(data, folder.join("data")).unwrap();
            }
            let own = ("own.yaml".to_owned(), format!("service: {SERVICE}\nport: 80\n"));
            for (name, text) in services.into_iter().chain([own]) {
                fs::write(folder.join("services.d").join(name), text).unwrap();
            }
        };
        self.agent = Some(self.namespace.enter(|| Agent::start_with("", &[], prepare)));
    }

    /// Its agent.
    pub fn agent(&self) -> &Agent {
        self.agent.as_ref().unwrap()
    }

    /// Its agent, which the host has no longer.
    pub fn take_agent(&mut self) -> Agent {
        self.agent.take().unwrap()
    }

    /// Runs a command on it.
    pub fn muster(&self, arguments: &[&str]) -> Output {
        let mut command = process::muster();
        command.args(arguments).stdin(Stdio::null());
        self.namespace.enter(|| command.finish())
    }

    /// What a command prints that has to succeed.
    pub fn said(&self, arguments: &[&str]) -> String {
        let output = self.muster(arguments);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{} on {}: {out}{err}", arguments.join(" "), self.node);
        out.into_owned()
    }

    /// All members that it knows, each with how it stands or why it is gone.
    pub fn members(&self) -> BTreeMap<String, String> {
        let members: Vec<Value> = serde_json::from_str(&self.said(&["members", "--json"])).unwrap();
        let stands = |standing: &Value| standing["Cause"].as_str().or(standing["Reach"].as_str()).unwrap().to_owned();
        let name = |member: &Value| member["Name"].as_str().unwrap().to_owned();
        members.iter().map(|member| (name(member), stands(&member["Muster"]))).collect()
    }

    /// How often it did not let something in, by reason.
    pub fn rejected(&self) -> BTreeMap<String, u64> {
        let status: Value = serde_json::from_str(&self.said(&["status", "--json"])).unwrap();
        serde_json::from_value(status["Muster"]["Rejected"].clone()).unwrap()
    }

    /// Opens a connection from it.
    pub fn open(&self, to: Ipv4Addr, port: u16) -> TcpStream {
        self.namespace.enter(|| TcpStream::connect((to, port)).unwrap())
    }

    /// Opens a socket on it.
    pub fn socket(&self) -> UdpSocket {
        self.namespace.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap())
    }
}

/// Hosts ask their own agents.
impl Deref for Host {
    type Target = Resolver;

    fn deref(&self) -> &Resolver {
        &self.resolver
    }
}

/// Asks the agent of a host, from that host.
pub struct Resolver {
    socket: UdpSocket,
    asked: Cell<u16>,
}

impl Resolver {
    fn new(namespace: &Namespace) -> Self {
        let socket = namespace.enter(|| {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.connect("127.0.0.1:53").unwrap();
            socket
        });
        socket.set_read_timeout(Some(ANSWER)).unwrap();
        Self { socket, asked: Cell::new(0) }
    }

    /// What it answers to SRV of a service; `None`: nothing.
    pub fn ask(&self, service: &str) -> Option<Message> {
        let id = self.asked.get().wrapping_add(1);
        self.asked.set(id);
        let name = format!("{service}.service.local.");
        let query = Ask { name, qtype: 33, edns: Some(1232), dnssec_ok: false }.packet(id);
        self.socket.send(&query).ok()?;
        let mut reply = [0; 4096];
        loop {
            let len = self.socket.recv(&mut reply).ok()?;
            // An answer may be that of a question before, from an agent that was stopped.
            if reply[..2] == id.to_be_bytes() {
                return Some(decode(&reply[..len]));
            }
        }
    }

    /// The ids of the instances that it answers; none where there is no answer.
    pub fn instances(&self, service: &str) -> BTreeSet<String> {
        self.ask(service).map(|answer| instances(&answer)).unwrap_or_default()
    }

    /// The code of its Extended DNS Error.
    pub fn error(&self, service: &str) -> Option<u16> {
        extended_error(&self.ask(service)?).map(|(code, _)| code)
    }
}

fn instances(answer: &Message) -> BTreeSet<String> {
    let targets = answer.answers.iter().filter_map(|record| match &record.data {
        RData::SRV(srv) => Some(srv.target.to_string()),
        _ => None,
    });
    targets.map(|target| target.split('.').next().unwrap().to_owned()).collect()
}

/// The address of the host with this number.
pub fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, number)
}

/// A new gossip key.
pub fn keygen() -> String {
    let output = process::muster().arg("keygen").finish();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Waits until none of the hosts answers this instance; how long that took on each.
#[track_caller]
pub fn wait_until_gone<'a>(instance: &str, hosts: impl IntoIterator<Item = &'a Host>) -> Vec<Duration> {
    let begun = Instant::now();
    let mut waiting: Vec<&Host> = hosts.into_iter().collect();
    let mut took = Vec::new();
    until(&format!("{instance} is answered no more"), || {
        waiting.retain(|host| {
            let gone = host.ask(SERVICE).is_some_and(|answer| !instances(&answer).contains(instance));
            if gone {
                took.push(begun.elapsed());
            }
            !gone
        });
        waiting.is_empty()
    });
    took
}

/// Asks hosts again and again, and notes every answer that lacks an instance.
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<Vec<String>>>,
}

impl Watch {
    /// Watches that none of these hosts ever answers without one of these instances of [`SERVICE`].
    pub fn start<'a>(hosts: impl IntoIterator<Item = &'a Host>, expected: BTreeSet<String>) -> Self {
        let hosts: Vec<(String, Resolver)> =
            hosts.into_iter().map(|host| (host.node.clone(), Resolver::new(&host.namespace))).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let begun = Instant::now();
            let (mut lacking, mut silent) = (Vec::new(), BTreeSet::new());
            while !stopped.load(Ordering::Relaxed) {
                silent = hosts.iter().map(|(node, _)| node.clone()).collect();
                for (node, resolver) in &hosts {
                    let Some(answer) = resolver.ask(SERVICE) else { continue };
                    silent.remove(node);
                    let found = instances(&answer);
                    let missing: Vec<&str> = expected.difference(&found).map(String::as_str).collect();
                    if !missing.is_empty() {
                        lacking.push(format!("{:?}: {node} lacks {}", begun.elapsed(), missing.join(", ")));
                    }
                }
                thread::sleep(ROUND);
            }
            // Whoever gives no answer at the end was not watched.
            lacking.extend(silent.iter().map(|node| format!("{node} does not answer")));
            lacking
        });
        Self { stop, thread: Some(thread) }
    }

    /// Goes on for so long.
    pub fn go_on(&self, time: Duration) {
        thread::sleep(time);
    }

    /// Ends it: no instance was ever missing.
    #[track_caller]
    pub fn finish(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let lacking = self.thread.take().unwrap().join().unwrap();
        let shown = lacking.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
        assert!(lacking.is_empty(), "{} answers lack an instance:\n{shown}", lacking.len());
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
