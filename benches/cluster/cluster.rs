//! Cluster of processes, of muster or Serf, with the same interface for both.

use std::{
    fs,
    net::Ipv4Addr,
    path::PathBuf,
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::{
    dns::{Asker, Question},
    process::Process,
    sandbox::GOSSIP,
    serf::Session,
};

/// Program and its settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// `muster agent` with the default gossip interval.
    Muster,
    /// `serf agent` with this profile.
    Serf(&'static str),
}

/// Observation of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Number of instances of `web` in DNS, one per node; with Serf, number of alive members.
    All,
    /// True if the instance of this node is among them.
    One(usize),
    /// True if DNS answers the instance whose health flips; muster only.
    Flip,
}

/// Timeout of each observation; a timeout is reported as such.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Cluster. Node 0 is the join address of the others.
pub(crate) struct Cluster {
    program: Program,
    binary: PathBuf,
    folder: TempDir,
    nodes: Vec<Option<Process>>,
    asker: Asker,
    sessions: Vec<Option<Session>>,
}

impl Cluster {
    /// Prepares the nodes without starting them.
    pub(crate) fn new(program: Program, binary: PathBuf, nodes: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut cluster = Self {
            program,
            binary,
            folder,
            nodes: (0..nodes).map(|_| None).collect(),
            asker: Asker::new(),
            sessions: (0..nodes).map(|_| None).collect(),
        };
        fs::write(cluster.folder.path().join("key"), format!("{KEY}\n")).unwrap();
        (0..nodes).for_each(|node| cluster.prepare(node));
        cluster
    }

    /// Returns the number of nodes.
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Returns the address of a node.
    pub(crate) fn address(&self, node: usize) -> Ipv4Addr {
        let network = if self.program == Program::Muster { 1 } else { 2 };
        Ipv4Addr::new(127, network, 0, u8::try_from(node + 1).unwrap())
    }

    fn path(&self, node: usize) -> PathBuf {
        self.folder.path().join(format!("n{node}"))
    }

    /// Creates the folder of a node as before its first start.
    pub(crate) fn prepare(&mut self, node: usize) {
        let path = self.path(node);
        let _ = fs::remove_dir_all(path.join("data"));
        for folder in ["services.d", "zones", "data"] {
            fs::create_dir_all(path.join(folder)).unwrap();
        }
        let (own, target) = (self.address(node), self.address(0));
        let join = if node == 0 { String::new() } else { target.to_string() };
        let config = format!(
            "node: n{node}\nadvertise: {own}\ndata_dir: data\nservices_dir: services.d\nzones_dir: zones\nhttp: {{listen: []}}\n\
             dns: {{listen: [\"{own}:53\"], udp_payload: 4096}}\n\
             gossip: {{listen: \"{own}:{GOSSIP}\", join: [{join}], key_file: ../key}}\n"
        );
        fs::write(path.join("muster.yaml"), config).unwrap();
        fs::write(path.join("services.d/web.yaml"), "service: web\nport: 80\n").unwrap();
    }

    /// Writes a service file of a node; `None` deletes it.
    pub(crate) fn write_service(&self, node: usize, name: &str, text: Option<&str>) {
        let path = self.path(node).join("services.d").join(name);
        match text {
            Some(text) => fs::write(path, text).unwrap(),
            None => fs::remove_file(path).unwrap(),
        }
    }

    /// Starts a node.
    pub(crate) fn start(&mut self, node: usize) {
        let (own, path) = (self.address(node), self.path(node));
        let mut command = Command::new(&self.binary);
        match self.program {
            Program::Muster => command.arg("agent").arg("--config").arg(path.join("muster.yaml")),
            Program::Serf(profile) => {
                command.args(["agent", "-log-level=info", "-retry-interval=1s", &format!("-encrypt={KEY}")]);
                command.args([
                    format!("-node=n{node}"),
                    format!("-bind={own}:{GOSSIP}"),
                    format!("-profile={profile}"),
                ]);
                command.arg(format!("-rpc-addr={own}:7373"));
                if node > 0 {
                    command.arg(format!("-retry-join={}:{GOSSIP}", self.address(0)));
                }
                &mut command
            }
        };
        self.nodes[node] = Some(Process::start(&mut command, &path.join("log")));
    }

    /// Starts all nodes, together if the program permits it. Serf retries to join once a second, so its join address starts
    /// first.
    pub(crate) fn start_all(&mut self) {
        self.start(0);
        if self.program != Program::Muster {
            self.wait(&[0], Look::All, 1, Duration::from_millis(5));
        }
        (1..self.len()).for_each(|node| self.start(node));
    }

    /// Sends a signal to a node and waits for its exit.
    pub(crate) fn end(&mut self, node: usize, signal: Signal) {
        self.sessions[node] = None;
        if let Some(mut process) = self.nodes[node].take() {
            process.signal(signal);
            process.wait();
        }
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, node: usize, signal: Signal) {
        self.nodes[node].as_ref().unwrap().signal(signal);
    }

    /// Returns all nodes except this one.
    pub(crate) fn others(&self, node: usize) -> Vec<usize> {
        (0..self.len()).filter(|other| *other != node).collect()
    }

    /// Returns all processes.
    pub(crate) fn processes(&mut self) -> impl Iterator<Item = &mut Process> {
        self.nodes.iter_mut().flatten()
    }

    /// Returns the current answer of each node; nodes that do not answer at once are omitted.
    pub(crate) fn look(&mut self, at: &[usize], look: Look) -> Vec<(usize, usize)> {
        if self.program == Program::Muster {
            let question = match look {
                Look::All => Question::srv("web.service.local"),
                Look::One(node) => Question::a(&format!("web-n{node}.web.service.local")),
                Look::Flip => Question::srv("flip.service.local"),
            };
            let at: Vec<_> = at.iter().map(|node| (*node, self.address(*node))).collect();
            return self.asker.ask(&at, &question);
        }
        let name = match look {
            Look::One(node) => format!("n{node}"),
            Look::All | Look::Flip => String::new(),
        };
        let mut seen = Vec::new();
        for node in at {
            let address = self.address(*node);
            let session = &mut self.sessions[*node];
            if session.is_none() {
                *session = Session::connect(address);
            }
            match session.as_mut().map(|session| session.alive(&name)) {
                Some(Some(alive)) => seen.push((*node, alive)),
                _ => *session = None,
            }
        }
        seen
    }

    /// Polls these nodes until each has answered `expected`. Returns the time of the last one; `None` after [`DEADLINE`].
    pub(crate) fn wait(&mut self, at: &[usize], look: Look, expected: usize, pause: Duration) -> Option<Instant> {
        let deadline = Instant::now() + DEADLINE;
        let mut pending = at.to_vec();
        let mut last = Instant::now();
        while Instant::now() < deadline {
            for (node, seen) in self.look(&pending, look) {
                if seen == expected {
                    pending.retain(|other| *other != node);
                    last = Instant::now();
                }
            }
            if pending.is_empty() {
                return Some(last);
            }
            sleep(pause);
        }
        eprintln!("raw: {look:?} is not {expected} at {:?} after {DEADLINE:?}", self.look(&pending, look));
        None
    }

    /// Returns the time until each node answers all instances.
    pub(crate) fn converge(&mut self, since: Instant) -> Option<Duration> {
        let all: Vec<usize> = (0..self.len()).collect();
        let pause = self.pause();
        self.wait(&all, Look::All, all.len(), pause).map(|last| last - since)
    }

    /// Returns the pause between polls, longer for Serf: a poll costs its agent more, and its events are slower.
    pub(crate) fn pause(&self) -> Duration {
        Duration::from_millis(if self.program == Program::Muster { 5 } else { 50 })
    }

    /// Returns how often nodes have logged a node as gone since the last call, without those in `except`.
    pub(crate) fn removals(&mut self, except: &[usize]) -> usize {
        let muster = self.program == Program::Muster;
        let expected: Vec<String> = except.iter().map(|node| format!("n{node}")).collect();
        let mut removals = 0;
        for (own, process) in self.nodes.iter_mut().enumerate() {
            let Some(process) = process else { continue };
            let news = process.news();
            let mut lines: Vec<&str> = news.lines().collect();
            // Serf logs some lines twice.
            lines.dedup();
            for line in lines {
                let gone = if muster { gone_from_muster(line) } else { gone_from_serf(line) };
                if let Some(name) = gone
                    && !expected.iter().any(|expected| expected == name)
                {
                    // The first ones of each node suffice.
                    if removals < 20 {
                        eprintln!("raw: n{own}: {line}");
                    }
                    removals += 1;
                }
            }
        }
        removals
    }
}

/// Returns the node that a line of muster's log calls gone.
fn gone_from_muster(line: &str) -> Option<&str> {
    if !line.contains("is gone") || line.contains("it left") {
        return None;
    }
    let (_, rest) = line.split_once("node=")?;
    rest.split_whitespace().next()
}

/// Returns the node that a line of Serf's log calls failed: `serf: EventMemberFailed: n7 127.2.0.8`.
fn gone_from_serf(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("EventMemberFailed: ")?;
    rest.split_whitespace().next()
}

/// Arbitrary key: the network is isolated.
const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
