//! Clusters of agents in isolated networks: one network namespace per host, connected by a bridge in another namespace.

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

/// Gossip port of all hosts.
pub const GOSSIP: u16 = 7946;
/// Service with one instance on each host of a cluster.
pub const SERVICE: &str = "web";
/// Timeout of a query; a stopped agent does not answer.
const QUERY_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause between rounds of queries.
const ROUND: Duration = Duration::from_millis(50);

/// Hosts on one bridge, each with an instance of [`SERVICE`].
pub struct Cluster {
    /// Hosts in order of their numbers, from 1; the number is the last octet of the address.
    pub hosts: Vec<Host>,
    /// The gossip key.
    pub key: String,
    /// Namespace of the bridge; port `p1` connects the first host.
    pub bridge: Namespace,
}

impl Cluster {
    /// Starts `size` hosts with agents and waits until each answers all instances.
    pub fn start(size: u8) -> Self {
        let mut cluster = Self::without_agents(size);
        for at in 0..usize::from(size) {
            cluster.start_agent(at, Setup::default());
        }
        cluster.converge();
        cluster
    }

    /// Creates `size` connected hosts without agents.
    pub fn without_agents(size: u8) -> Self {
        let bridge = Namespace::new();
        ip(&format!("-n {} link add br0 type bridge", bridge.name()));
        ip(&format!("-n {} link set br0 up", bridge.name()));
        let mut cluster = Self { hosts: Vec::new(), key: keygen(), bridge };
        cluster.hosts = (1..=size).map(|number| cluster.connect(number)).collect();
        cluster
    }

    /// Creates and connects a further host without an agent; the caller may add it to the cluster.
    pub fn connect(&self, number: u8) -> Host {
        let namespace = Namespace::new();
        let port = format!("p{number}");
        namespace.connect("eth0", &self.bridge, &port);
        ip(&format!("-n {} link set {port} master br0", self.bridge.name()));
        Host::new(&format!("n{number}"), address(number), namespace)
    }

    /// Starts the agent of a host with the cluster's key; it joins the first two hosts.
    pub fn start_agent(&mut self, at: usize, setup: Setup) {
        let key = self.key.clone();
        self.hosts[at].start(Setup { key, join: vec![address(1), address(2)], ..setup });
    }

    /// Returns all hosts except this one.
    pub fn others(&self, than: usize) -> impl Iterator<Item = &Host> {
        self.hosts.iter().enumerate().filter(move |(at, _)| *at != than).map(|(_, host)| host)
    }

    /// Returns the instance ids of all hosts.
    pub fn instances(&self) -> BTreeSet<String> {
        self.hosts.iter().map(Host::instance).collect()
    }

    /// Waits until each host answers all instances without an Extended DNS Error; returns the time it took.
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

/// Host: its namespace and address, and its agent while it runs.
pub struct Host {
    agent: Option<Agent>,
    resolver: Resolver,
    /// Node name.
    pub node: String,
    /// Address of `eth0`.
    pub address: Ipv4Addr,
    /// Network namespace.
    pub namespace: Namespace,
}

/// Settings of an agent.
#[derive(Clone, Default)]
pub struct Setup {
    /// The gossip key.
    pub key: String,
    /// Addresses to join.
    pub join: Vec<Ipv4Addr>,
    /// Existing data directory, moved into the agent's folder.
    pub data: Option<PathBuf>,
    /// Additional service files: name and content.
    pub services: Vec<(String, String)>,
    /// Program to run; default: the built one.
    pub program: Option<PathBuf>,
    /// Options of `muster agent`.
    pub options: Vec<&'static str>,
    /// Additional environment variables.
    pub environment: Vec<(&'static str, String)>,
    /// Additional keys of `gossip`, each with a comma before it.
    pub gossip: &'static str,
    /// Additional top-level lines of `muster.yaml`.
    pub lines: String,
}

impl Host {
    /// Creates a host in a namespace whose interface `eth0` is connected.
    pub fn new(node: &str, address: Ipv4Addr, namespace: Namespace) -> Self {
        ip(&format!("-n {} address add {address}/24 dev eth0", namespace.name()));
        let resolver = Resolver::new(&namespace);
        Self { agent: None, resolver, node: node.to_owned(), address, namespace }
    }

    /// Returns the id of its instance of [`SERVICE`].
    pub fn instance(&self) -> String {
        format!("{SERVICE}-{}", self.node)
    }

    /// Starts its agent and waits until it answers.
    pub fn start(&mut self, setup: Setup) {
        let (node, address) = (&self.node, self.address);
        let Setup { key, join, data, services, program, options, environment, gossip, lines } = setup;
        let join: Vec<String> = join.iter().map(|address| format!("{address}:{GOSSIP}")).collect();
        let config = format!(
            "node: {node}\nadvertise: {address}\ndata_dir: data\nservices_dir: services.d\nzones_dir: zones\n\
             dns: {{listen: [127.0.0.1:53]}}\nhttp: {{listen: [127.0.0.1:8500]}}\nchecks: {{allow_exec: true}}\n\
             gossip: {{listen: {address}:{GOSSIP}, key_file: key, join: [{}]{gossip}}}\n{lines}",
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
        let mut command = program.map_or_else(process::muster, process::command);
        command.envs(environment);
        self.agent = Some(self.namespace.enter(|| Agent::launch(command, "", &options, prepare)));
    }

    /// Starts its agent again after the agent's end, with the same files. Does not wait until it answers.
    pub fn start_again(&mut self) {
        let agent = self.agent.as_mut().unwrap();
        self.namespace.enter(|| agent.start_again());
    }

    /// Returns its agent.
    pub fn agent(&self) -> &Agent {
        self.agent.as_ref().unwrap()
    }

    /// Returns its agent, to wait for it.
    pub fn agent_mut(&mut self) -> &mut Agent {
        self.agent.as_mut().unwrap()
    }

    /// Removes and returns its agent.
    pub fn take_agent(&mut self) -> Agent {
        self.agent.take().unwrap()
    }

    /// Runs a `muster` command on the host.
    pub fn muster(&self, arguments: &[&str]) -> Output {
        let mut command = process::muster();
        command.args(arguments).stdin(Stdio::null());
        self.namespace.enter(|| command.finish())
    }

    /// Runs a `muster` command that must succeed and returns its output.
    pub fn output_of(&self, arguments: &[&str]) -> String {
        let output = self.muster(arguments);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{} on {}: {out}{err}", arguments.join(" "), self.node);
        out.into_owned()
    }

    /// Returns all members that its agent knows, with the reason if a member is gone, else its reachability.
    pub fn members(&self) -> BTreeMap<String, String> {
        let members: Vec<Value> = serde_json::from_str(&self.output_of(&["members", "--json"])).unwrap();
        let state = |muster: &Value| muster["Cause"].as_str().or(muster["Reach"].as_str()).unwrap().to_owned();
        let name = |member: &Value| member["Name"].as_str().unwrap().to_owned();
        members.iter().map(|member| (name(member), state(&member["Muster"]))).collect()
    }

    /// Returns the number of rejected packets by reason.
    pub fn rejected(&self) -> BTreeMap<String, u64> {
        let status: Value = serde_json::from_str(&self.output_of(&["status", "--json"])).unwrap();
        serde_json::from_value(status["Muster"]["Rejected"].clone()).unwrap()
    }

    /// Opens a TCP connection from the host.
    pub fn open(&self, to: Ipv4Addr, port: u16) -> TcpStream {
        self.namespace.enter(|| TcpStream::connect((to, port)).unwrap())
    }

    /// Opens a UDP socket on the host.
    pub fn socket(&self) -> UdpSocket {
        self.namespace.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap())
    }
}

/// A host queries its own agent.
impl Deref for Host {
    type Target = Resolver;

    fn deref(&self) -> &Resolver {
        &self.resolver
    }
}

/// Client of a host's agent, on the same host.
pub struct Resolver {
    socket: UdpSocket,
    asked: Cell<u16>,
}

impl Resolver {
    /// Creates a client in this namespace.
    pub fn new(namespace: &Namespace) -> Self {
        let socket = namespace.enter(|| {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.connect("127.0.0.1:53").unwrap();
            socket
        });
        socket.set_read_timeout(Some(QUERY_TIMEOUT)).unwrap();
        Self { socket, asked: Cell::new(0) }
    }

    /// Queries SRV of a service; `None` without an answer.
    pub fn ask(&self, service: &str) -> Option<Message> {
        let id = self.asked.get().wrapping_add(1);
        self.asked.set(id);
        let name = format!("{service}.service.local.");
        let query = Ask { name, qtype: 33, edns: Some(1232), dnssec_ok: false }.packet(id);
        self.socket.send(&query).ok()?;
        let mut reply = [0; 4096];
        loop {
            let len = self.socket.recv(&mut reply).ok()?;
            // A late answer to an earlier query is ignored.
            if reply[..2] == id.to_be_bytes() {
                return Some(decode(&reply[..len]));
            }
        }
    }

    /// Returns the ids of the answered instances; empty without an answer.
    pub fn instances(&self, service: &str) -> BTreeSet<String> {
        self.ask(service).map(|answer| instances(&answer)).unwrap_or_default()
    }

    /// Returns the code of the answer's Extended DNS Error.
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

/// Returns the address of the host with this number.
pub fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, number)
}

/// Returns a new gossip key.
pub fn keygen() -> String {
    let output = process::muster().arg("keygen").finish();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Waits until none of the hosts answers this instance; returns the time it took on each.
#[track_caller]
pub fn wait_until_gone<'a>(instance: &str, hosts: impl IntoIterator<Item = &'a Host>) -> Vec<Duration> {
    let begun = Instant::now();
    let mut waiting: Vec<&Host> = hosts.into_iter().collect();
    let mut took = Vec::new();
    until(&format!("{instance} is no longer answered"), || {
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

/// Background queries to hosts that record every answer without an expected instance.
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<Vec<String>>>,
}

impl Watch {
    /// Starts to query these hosts for [`SERVICE`]; every answer must contain all expected instances.
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
            // A host without a final answer was not watched.
            lacking.extend(silent.iter().map(|node| format!("{node} does not answer")));
            lacking
        });
        Self { stop, thread: Some(thread) }
    }

    /// Continues for this time.
    pub fn run_for(&self, time: Duration) {
        thread::sleep(time);
    }

    /// Stops, and asserts that no instance was ever missing.
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
