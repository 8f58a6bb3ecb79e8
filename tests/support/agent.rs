//! A running `muster agent`: the built binary in a folder of its own, on a port of its own, ended with its test.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use hickory_proto::op::Message;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use super::{Ask, decode, show};

/// Longer than anything takes on a busy machine; what does not happen until then does not happen.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// A running agent.
pub struct Agent {
    child: Child,
    address: SocketAddr,
    http: SocketAddr,
    gossip: SocketAddr,
    log: Arc<Mutex<String>>,
    reader: Option<thread::JoinHandle<()>>,
    folder: TempDir,
}

impl Agent {
    /// Starts an agent with an empty `services.d` and `zones` and waits until it answers.
    pub fn start() -> Self {
        Self::start_with("", &[], |_| {})
    }

    /// The same with more configuration, variables of the environment, and a folder that `prepare` fills.
    pub fn start_with(config: &str, environment: &[(&str, &str)], prepare: impl FnOnce(&Path)) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_muster"));
        command.envs(environment.iter().copied());
        Self::launch(command, config, &[], prepare)
    }

    /// The same with options of the command.
    pub fn start_as(options: &[&str], environment: &[(&str, &str)], prepare: impl FnOnce(&Path)) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_muster"));
        command.envs(environment.iter().copied());
        Self::launch(command, "", options, prepare)
    }

    /// The same that answers at this address, which nobody else may take meanwhile.
    pub fn start_at(address: SocketAddr, config: &str) -> Self {
        Self::start_with(&format!("dns: {{listen: [\"{address}\"]}}\n{config}"), &[], |_| {})
    }

    /// The same with so many files at most that it may have open.
    pub fn start_with_files(most: u32, config: &str, prepare: impl FnOnce(&Path)) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -n \"$1\" && shift && exec \"$@\"", "sh", &most.to_string()]);
        command.arg(env!("CARGO_BIN_EXE_muster"));
        Self::launch(command, config, &[], prepare)
    }

    fn launch(mut command: Command, config: &str, options: &[&str], prepare: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("services.d")).unwrap();
        fs::create_dir(folder.path().join("zones")).unwrap();
        prepare(folder.path());
        let path = folder.path().join("muster.yaml");
        if !path.exists() {
            let gossip = if config.contains("gossip:") { "" } else { "gossip: {listen: 127.0.0.1:0}\n" };
            // No test asks the host's own servers.
            let resolver = if config.contains("resolver:") { "" } else { "resolver: {allow: []}\n" };
            let dns = if config.contains("dns:") { "" } else { "dns: {listen: [127.0.0.1:0]}\n" };
            let has_http = config.lines().any(|line| line.starts_with("http:"));
            let http = if has_http { "" } else { "http: {listen: [127.0.0.1:0]}\n" };
            let text = format!(
                "node: host-a\nadvertise: 10.0.0.7\ndata_dir: data\nservices_dir: services.d\nzones_dir: zones\n\
                 {dns}{http}{gossip}{resolver}{config}"
            );
            fs::write(&path, text).unwrap();
        }
        command.args(["agent", "--config"]).arg(&path).args(options);
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let kept = log.clone();
        let reader = thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut kept = kept.lock().unwrap();
                kept.push_str(&line);
                kept.push('\n');
            }
        });
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut agent =
            Self { child, address: nowhere, http: nowhere, gossip: nowhere, log, reader: Some(reader), folder };
        agent.wait_for_log("INFO answering");
        agent.address = agent.listening("DNS");
        agent.http = agent.listening("HTTP");
        agent.gossip = agent.listening("gossip");
        agent
    }

    /// The first address on which it said to listen for something.
    pub fn listening(&self, what: &str) -> SocketAddr {
        let (log, expected) = (self.log(), format!("listening for {what}"));
        let line = log.lines().find(|line| line.contains(&expected)).unwrap_or_else(|| panic!("no {expected}: {log}"));
        line.rsplit('=').next().unwrap().parse().unwrap()
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where its HTTP API is.
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// Where it gossips.
    pub fn gossip(&self) -> SocketAddr {
        self.gossip
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A path below its folder.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join(relative)
    }

    /// Writes a service file.
    pub fn write_service(&self, name: &str, text: &str) {
        fs::write(self.path("services.d").join(name), text).unwrap();
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits for a line that contains `text`.
    pub fn wait_for_log(&mut self, text: &str) {
        let deadline = Instant::now() + DEADLINE;
        while !self.log().contains(text) {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "the agent ended before it said {text:?}: {}", self.log());
            assert!(Instant::now() < deadline, "the agent never said {text:?}: {}", self.log());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Asks over UDP.
    pub fn ask(&self, name: &str, qtype: u16) -> Message {
        let query = Ask { name: name.to_owned(), qtype, edns: Some(1232), dnssec_ok: false }.packet(7);
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(self.address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let mut reply = [0; 4096];
        let deadline = Instant::now() + DEADLINE;
        loop {
            socket.send(&query).unwrap();
            match socket.recv(&mut reply) {
                Ok(len) => return decode(&reply[..len]),
                Err(_) => assert!(Instant::now() < deadline, "no answer to {name}"),
            }
        }
    }

    /// Asks over TCP.
    pub fn ask_tcp(&self, name: &str, qtype: u16) -> Message {
        let query = Ask { name: name.to_owned(), qtype, edns: None, dnssec_ok: false }.packet(7);
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(&[&(query.len() as u16).to_be_bytes(), &query[..]].concat()).unwrap();
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut reply).unwrap();
        decode(&reply)
    }

    /// The answer section as sorted text, owner and TTL left out.
    pub fn answers(&self, name: &str, qtype: u16) -> Vec<String> {
        let mut lines: Vec<String> =
            self.ask(name, qtype).answers.iter().map(|r| show(r).splitn(4, ' ').nth(3).unwrap().to_owned()).collect();
        lines.sort();
        lines
    }

    /// Asks again and again until the answers are these.
    pub fn wait_for_answers(&self, name: &str, qtype: u16, expected: &[&str]) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let answers = self.answers(name, qtype);
            if answers == expected {
                return;
            }
            assert!(Instant::now() < deadline, "{name}: {answers:?} where {expected:?} is due\n{}", self.log());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// Waits for the process to end, and for the last of its log.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                self.reader.take().map(thread::JoinHandle::join);
                return status;
            }
            assert!(Instant::now() < deadline, "the agent does not end: {}", self.log());
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("the agent's log:\n{}", self.log());
        }
    }
}
