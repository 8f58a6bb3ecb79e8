//! Hosts as network namespaces on one bridge, which the test makes and takes down again, and agents on them.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    net::{SocketAddr, TcpStream, UdpSocket},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use muster::dns::code::rtype;
use nix::{
    sched::{CloneFlags, setns},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;

use super::{Ask, decode, extended_error, skip};

/// Longer than anything takes on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// From one look to the next.
const LOOK: Duration = Duration::from_millis(10);

static NETWORKS: AtomicU32 = AtomicU32::new(0);

/// Whether this machine lets the test make networks.
pub fn possible(test: &str) -> bool {
    skip::root(test) && skip::tool(test, "ip", "iproute2") && skip::tool(test, "nft", "nftables")
}

/// Some hosts on one bridge. They are numbered from 1; host `i` is 10.77.0.i.
pub struct Network {
    prefix: String,
    hosts: usize,
    pub folder: TempDir,
    pub key: PathBuf,
}

/// What one host answers for `web`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The hosts whose instance is in it.
    pub hosts: BTreeSet<usize>,
    /// The code of the extended error.
    pub said: Option<u16>,
}

pub fn address(host: usize) -> String {
    format!("10.77.0.{host}")
}

/// Runs a command and returns what it printed; it has to succeed.
pub fn run(program: &str, arguments: &[&str], input: &str) -> String {
    use std::io::Write;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

impl Network {
    /// Hosts on one bridge, which reach each other.
    pub fn new(hosts: usize) -> Self {
        let network = Self::empty(hosts);
        let bridge = network.namespace(0);
        let mut batch = format!("netns add {bridge}\n");
        for host in 1..=hosts {
            batch.push_str(&format!("netns add {}\n", network.namespace(host)));
        }
        batch.push_str(&format!("-n {bridge} link add br0 type bridge\n-n {bridge} link set br0 up\n"));
        for line in batch.lines() {
            run("ip", &line.split(' ').collect::<Vec<_>>(), "");
        }
        for host in 1..=hosts {
            let inside = network.namespace(host);
            let lines = [
                format!("-n {bridge} link add p{host} type veth peer name eth0 netns {inside}"),
                format!("-n {bridge} link set p{host} master br0 up"),
                format!("-n {inside} address add {}/24 dev eth0", address(host)),
                format!("-n {inside} link set lo up"),
                format!("-n {inside} link set eth0 up"),
            ];
            for line in lines {
                run("ip", &line.split(' ').collect::<Vec<_>>(), "");
            }
        }
        network
    }

    /// Names and a folder; whoever calls makes the namespaces.
    pub fn empty(hosts: usize) -> Self {
        let number = NETWORKS.fetch_add(1, Ordering::Relaxed);
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("key");
        let output = Command::new(env!("CARGO_BIN_EXE_muster")).arg("keygen").output().unwrap();
        fs::write(&key, output.stdout).unwrap();
        Self { prefix: format!("muster-{}-{number}", std::process::id()), hosts, folder, key }
    }

    /// The namespace of a host; 0 has the bridge.
    pub fn namespace(&self, host: usize) -> String {
        format!("{}-{host}", self.prefix)
    }

    /// Gives a host's packet filter these rules, and no others.
    pub fn filter(&self, host: usize, rules: &str) {
        let text = format!("flush ruleset\ntable inet test {{\n{rules}\n}}\n");
        run("ip", &["netns", "exec", &self.namespace(host), "nft", "-f", "-"], &text);
    }

    /// Loses so many of 100 packets that arrive at a host.
    pub fn lose(&self, host: usize, percent: u32) {
        self.filter(
            host,
            &format!(
                "chain i {{ type filter hook input priority 0; iifname \"eth0\" numgen random mod 100 < {percent} drop; }}"
            ),
        );
    }

    /// Drops what arrives at `host` from these.
    pub fn drop_from(&self, host: usize, from: &[usize]) {
        let from: Vec<String> = from.iter().map(|host| address(*host)).collect();
        self.filter(
            host,
            &format!("chain i {{ type filter hook input priority 0; ip saddr {{ {} }} drop; }}", from.join(", ")),
        );
    }

    pub fn pass(&self, host: usize) {
        self.filter(host, "");
    }

    /// Runs something in a thread of its own that lives in a host's namespace. Sockets that it returns stay there.
    pub fn inside<T: Send + 'static>(&self, host: usize, work: impl FnOnce() -> T + Send + 'static) -> T {
        let path = format!("/run/netns/{}", self.namespace(host));
        let inside = move || {
            setns(File::open(path).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
            work()
        };
        thread::spawn(inside).join().unwrap()
    }

    /// Starts an agent on a host, which joins hosts 1 and 2 and announces `web-N` of `web`.
    pub fn start(&self, host: usize) -> Agent {
        self.start_with(host, "join: [10.77.0.1, 10.77.0.2]", &self.key)
    }

    pub fn start_with(&self, host: usize, gossip: &str, key: &std::path::Path) -> Agent {
        let folder = self.folder.path().join(host.to_string());
        fs::create_dir_all(folder.join("services.d")).unwrap();
        let web = folder.join("services.d/web.yaml");
        if !web.exists() {
            fs::write(&web, format!("service: web\nid: web-{host}\nport: 80\n")).unwrap();
        }
        let ip = address(host);
        let config = format!(
            "node: host-{host}\nadvertise: {ip}\ndata_dir: data\nservices_dir: services.d\nzones_dir: zones\n\
             dns: {{listen: ['{ip}:5300']}}\ngossip: {{listen: {ip}, key_file: {}, {gossip}}}\n",
            key.display()
        );
        fs::write(folder.join("muster.yaml"), config).unwrap();
        let log = folder.join("log");
        let file = fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let child = Command::new("ip")
            .args(["netns", "exec", &self.namespace(host), env!("CARGO_BIN_EXE_muster"), "agent", "--config"])
            .arg(folder.join("muster.yaml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .unwrap();
        let at: SocketAddr = format!("{ip}:5300").parse().unwrap();
        let socket = self.inside(host, move || UdpSocket::bind((at.ip(), 0)).unwrap());
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        socket.connect(at).unwrap();
        Agent { child, socket, folder, namespace: self.namespace(host) }
    }

    /// Agents on all hosts, which have met.
    pub fn start_all(&self) -> Vec<Agent> {
        let agents: Vec<Agent> = (1..=self.hosts).map(|host| self.start(host)).collect();
        until_all(&agents, &(1..=self.hosts).collect::<Vec<_>>());
        agents
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in 0..=self.hosts {
            let _ = Command::new("ip").args(["netns", "delete", &self.namespace(host)]).stderr(Stdio::null()).status();
        }
    }
}

/// An agent of the built program. It ends with the value.
pub struct Agent {
    child: Child,
    socket: UdpSocket,
    pub folder: PathBuf,
    namespace: String,
}

impl Agent {
    /// What it answers for `web`; `None` while it does not.
    pub fn ask(&self) -> Option<Answer> {
        self.ask_for("web.service.local.")
    }

    pub fn ask_for(&self, name: &str) -> Option<Answer> {
        let ask = Ask { name: name.to_owned(), qtype: rtype::SRV, edns: Some(1232), dnssec_ok: false };
        self.socket.send(&ask.packet(7)).ok()?;
        let mut buffer = [0; 4096];
        let len = self.socket.recv(&mut buffer).ok()?;
        let message = decode(&buffer[..len]);
        let host = |data: String| -> usize {
            let label = data.rsplit(' ').next().unwrap().split('.').next().unwrap().to_owned();
            label.rsplit('-').next().unwrap().parse().unwrap()
        };
        Some(Answer {
            hosts: message.answers.iter().map(|record| host(record.data.to_string())).collect(),
            said: extended_error(&message).map(|(code, _)| code),
        })
    }

    /// Runs one of the commands that ask an agent.
    pub fn muster(&self, arguments: &[&str]) -> Output {
        Command::new("ip")
            .args(["netns", "exec", &self.namespace, env!("CARGO_BIN_EXE_muster")])
            .args(arguments)
            .output()
            .unwrap()
    }

    /// What `muster ARGUMENTS --json` prints.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let output = self.muster(&[arguments, &["--json"]].concat());
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }

    /// How it sees a host.
    pub fn reach(&self, host: usize) -> Option<String> {
        let members = self.json(&["members"]);
        let name = format!("host-{host}");
        let member = members.as_array()?.iter().find(|member| member["Name"] == name.as_str())?;
        Some(member["Muster"]["Reach"].as_str()?.to_owned())
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// Waits until it has ended, with which code.
    pub fn ended(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until something is so, and says how long that took.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) -> Duration {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < DEADLINE, "not in {DEADLINE:?}: {what}");
        thread::sleep(LOOK);
    }
    started.elapsed()
}

/// Waits until these agents all answer with these hosts, and no reservation.
pub fn until_all<'a>(agents: impl IntoIterator<Item = &'a Agent>, hosts: &[usize]) -> Duration {
    let agents: Vec<&Agent> = agents.into_iter().collect();
    let expected = Some(Answer { hosts: hosts.iter().copied().collect(), said: None });
    until(&format!("all answer {hosts:?}"), || agents.iter().all(|agent| agent.ask() == expected))
}

/// For so long every answer of every one of these has all these hosts.
pub fn throughout<'a>(time: Duration, agents: impl IntoIterator<Item = &'a Agent>, hosts: &[usize]) {
    let agents: Vec<&Agent> = agents.into_iter().collect();
    let expected: BTreeSet<usize> = hosts.iter().copied().collect();
    let started = Instant::now();
    while started.elapsed() < time {
        for agent in &agents {
            let Some(answer) = agent.ask() else { continue };
            assert_eq!(answer.hosts, expected, "after {:?}\n{}", started.elapsed(), agent.log());
        }
        thread::sleep(LOOK);
    }
}

/// Carries UDP and TCP between two hosts of a router, later. Ends with the process.
pub fn relay(
    udp: UdpSocket,
    tcp: std::net::TcpListener,
    out: UdpSocket,
    to: SocketAddr,
    delay: Duration,
    connect: impl Fn() -> TcpStream + Send + 'static,
) {
    use std::sync::{Arc, Mutex, mpsc};
    out.connect(to).unwrap();
    let client: Arc<Mutex<Option<SocketAddr>>> = Arc::default();
    type Send = Box<dyn Fn(&[u8]) + std::marker::Send>;
    type Seen = Box<dyn Fn(SocketAddr) + std::marker::Send>;
    let later = move |from: UdpSocket, send: Send, seen: Seen| {
        let (sender, receiver) = mpsc::channel::<(Instant, Vec<u8>)>();
        thread::spawn(move || {
            for (at, octets) in receiver {
                thread::sleep(at.saturating_duration_since(Instant::now()));
                send(&octets);
            }
        });
        thread::spawn(move || {
            let mut buffer = [0; 65_536];
            while let Ok((len, source)) = from.recv_from(&mut buffer) {
                seen(source);
                let _ = sender.send((Instant::now() + delay, buffer[..len].to_vec()));
            }
        });
    };
    let (forth, back) = (out.try_clone().unwrap(), udp.try_clone().unwrap());
    let (known, whom) = (client.clone(), client);
    later(
        udp,
        Box::new(move |octets| drop(forth.send(octets))),
        Box::new(move |source| *known.lock().unwrap() = Some(source)),
    );
    later(
        out,
        Box::new(move |octets| {
            if let Some(to) = *whom.lock().unwrap() {
                let _ = back.send_to(octets, to);
            }
        }),
        Box::new(|_| {}),
    );
    thread::spawn(move || {
        for stream in tcp.incoming().flatten() {
            thread::sleep(delay);
            let target = connect();
            let pipe = |mut from: TcpStream, mut to: TcpStream| {
                thread::spawn(move || {
                    thread::sleep(delay);
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Write);
                });
            };
            pipe(stream.try_clone().unwrap(), target.try_clone().unwrap());
            pipe(target, stream);
        }
    });
}
