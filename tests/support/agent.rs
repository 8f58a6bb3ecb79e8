//! Running `muster agent`: the built binary with a temporary folder and free ports, killed on drop.

use std::{
    fs,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use hickory_proto::op::Message;
use nix::sys::signal::{Signal, kill};
use serde_json::Value;
use tempfile::TempDir;

use super::{
    Ask, decode, process, run, show,
    wait::{self, DEADLINE},
};

/// Running agent, killed on drop.
pub struct Agent {
    /// Starts it again, with the same files.
    command: Command,
    child: Child,
    address: SocketAddr,
    http: SocketAddr,
    gossip: SocketAddr,
    log: Arc<Mutex<String>>,
    /// Length of the log at the latest start.
    log_start: usize,
    reader: Option<thread::JoinHandle<()>>,
    folder: TempDir,
}

impl Agent {
    /// Starts an agent with an empty `services.d` and `zones` and waits until it answers.
    pub fn start() -> Self {
        Self::start_with("", &[], |_| {})
    }

    /// Starts an agent of another node, `host-b` at 10.0.0.8, with a cluster of its own.
    pub fn start_host_b() -> Self {
        Self::start_with("", &[], |folder| {
            let config = "node: host-b\nadvertise: 10.0.0.8\ndata_dir: data\nservices_dir: services.d\nzones_dir: zones\n\
                          dns: {listen: [127.0.0.1:0]}\nhttp: {listen: [127.0.0.1:0]}\ngossip: {listen: 127.0.0.1:0}\n\
                          resolver: {allow: []}\n";
            fs::write(folder.join("muster.yaml"), config).unwrap();
        })
    }

    /// Starts an agent with additional configuration and environment variables, in a folder that `prepare` fills.
    pub fn start_with(config: &str, environment: &[(&str, &str)], prepare: impl FnOnce(&Path)) -> Self {
        let mut command = process::muster();
        command.envs(environment.iter().copied());
        Self::launch(command, config, &[], prepare)
    }

    /// Starts an agent with options on its command line.
    pub fn start_as(options: &[&str], environment: &[(&str, &str)], prepare: impl FnOnce(&Path)) -> Self {
        let mut command = process::muster();
        command.envs(environment.iter().copied());
        Self::launch(command, "", options, prepare)
    }

    /// Starts an agent that listens for DNS on this address, which must be free.
    pub fn start_at(address: SocketAddr, config: &str) -> Self {
        Self::start_with(&format!("dns: {{listen: [\"{address}\"]}}\n{config}"), &[], |_| {})
    }

    /// Starts an agent with a limit on open files.
    pub fn start_with_files(most: u32, config: &str, prepare: impl FnOnce(&Path)) -> Self {
        let mut command = process::command("sh");
        command.args(["-c", "ulimit -n \"$1\" && shift && exec \"$@\"", "sh", &most.to_string()]);
        command.arg(env!("CARGO_BIN_EXE_muster"));
        Self::launch(command, config, &[], prepare)
    }

    /// Starts an agent whose parent ignores these signals, which it inherits.
    pub fn start_with_ignored_signals(signals: &[&str]) -> Self {
        let mut command = process::command("sh");
        command.args(["-c", &format!("trap '' {} && exec \"$@\"", signals.join(" ")), "sh"]);
        command.arg(env!("CARGO_BIN_EXE_muster"));
        Self::launch(command, "", &[], |_| {})
    }

    /// Starts an agent by this command, with additional configuration and options, in a folder that `prepare` fills.
    pub fn launch(mut command: Command, config: &str, options: &[&str], prepare: impl FnOnce(&Path)) -> Self {
        let folder = run::temp_dir();
        fs::create_dir(folder.path().join("services.d")).unwrap();
        fs::create_dir(folder.path().join("zones")).unwrap();
        prepare(folder.path());
        // The agent reports tokens that other users can read.
        let tokens = folder.path().join("tokens.d");
        if tokens.exists() {
            fs::set_permissions(&tokens, fs::Permissions::from_mode(0o700)).unwrap();
        }
        let path = folder.path().join("muster.yaml");
        if !path.exists() {
            // Tokens need a gossip key, or trusted users of this host.
            let gossip = match (config.contains("gossip:"), config.contains("tokens_dir:")) {
                (true, _) => "",
                (false, true) => "gossip: {listen: 127.0.0.1:0, insecure: true}\n",
                (false, false) => "gossip: {listen: 127.0.0.1:0}\n",
            };
            // Tests never query the host's DNS servers.
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
        command.args(["agent", "--config"]).arg(&path).args(options).stdin(Stdio::null()).stderr(Stdio::piped());
        let log = Arc::new(Mutex::new(String::new()));
        let (child, reader) = spawn(&mut command, &log);
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut agent = Self {
            command,
            child,
            address: nowhere,
            http: nowhere,
            gossip: nowhere,
            log,
            log_start: 0,
            reader: Some(reader),
            folder,
        };
        agent.wait_until_answering();
        agent
    }

    /// Starts the agent again after its end, with the same files; its log goes on. Does not wait until it answers.
    pub fn start_again(&mut self) {
        self.wait();
        self.log_start = self.log().len();
        let (child, reader) = spawn(&mut self.command, &self.log);
        (self.child, self.reader) = (child, Some(reader));
    }

    /// Waits until it answers after its latest start.
    #[track_caller]
    pub fn wait_until_answering(&mut self) {
        // Text and JSON format.
        self.wait_for_log_where("answering", |line| {
            line.contains("INFO answering") || line.contains("\"message\":\"answering\"")
        });
        self.address = self.listening("DNS");
        if self.log_of_latest_start().contains("listening for HTTP") {
            self.http = self.listening("HTTP");
        }
        self.gossip = self.listening("gossip");
    }

    /// Returns the first address logged as listening for a protocol at the latest start.
    pub fn listening(&self, what: &str) -> SocketAddr {
        let (log, expected) = (self.log_of_latest_start(), format!("listening for {what}"));
        let line = log.lines().find(|line| line.contains(&expected)).unwrap_or_else(|| panic!("no {expected}: {log}"));
        match serde_json::from_str::<Value>(line) {
            Ok(event) => event["address"].as_str().unwrap().parse().unwrap(),
            Err(_) => line.rsplit('=').next().unwrap().parse().unwrap(),
        }
    }

    /// Returns the address of its DNS server.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the address of its HTTP API; port 0 if it has none.
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// Returns its gossip address.
    pub fn gossip(&self) -> SocketAddr {
        self.gossip
    }

    /// Returns its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns a path below its folder.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join(relative)
    }

    /// Writes a service file.
    pub fn write_service(&self, name: &str, text: &str) {
        fs::write(self.path("services.d").join(name), text).unwrap();
    }

    /// Returns its log so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Returns its log since its latest start.
    pub fn log_of_latest_start(&self) -> String {
        self.log.lock().unwrap()[self.log_start..].to_owned()
    }

    /// Waits for a log line of its latest start that contains `text`.
    #[track_caller]
    pub fn wait_for_log(&mut self, text: &str) {
        self.wait_for_log_where(text, |line| line.contains(text));
    }

    #[track_caller]
    fn wait_for_log_where(&mut self, what: &str, matches: impl Fn(&str) -> bool) {
        wait::poll(|| {
            // The exit is checked before the log: after it, no line is added.
            let ended = self.child.try_wait().unwrap();
            if ended.is_some() {
                self.reader.take().map(thread::JoinHandle::join);
            }
            let log = self.log_of_latest_start();
            if log.lines().any(&matches) {
                return Ok(());
            }
            assert!(ended.is_none(), "the agent ended before it logged {what:?}: {log}");
            Err(format!("no {what:?} in the log: {log}"))
        });
    }

    /// Queries over UDP.
    pub fn ask(&self, name: &str, qtype: u16) -> Message {
        let query = Ask { name: name.to_owned(), qtype, edns: Some(1232), dnssec_ok: false }.packet(7);
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(self.address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let mut reply = [0; 4096];
        let len = wait::poll(|| {
            socket.send(&query).unwrap();
            socket.recv(&mut reply).map_err(|error| format!("no answer to {name}: {error}"))
        });
        decode(&reply[..len])
    }

    /// Queries over TCP.
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

    /// Returns the answer section as sorted text, without owner names and TTLs.
    pub fn answers(&self, name: &str, qtype: u16) -> Vec<String> {
        let mut lines: Vec<String> =
            self.ask(name, qtype).answers.iter().map(|r| show(r).splitn(4, ' ').nth(3).unwrap().to_owned()).collect();
        lines.sort();
        lines
    }

    /// Queries until the answers are the expected ones.
    #[track_caller]
    pub fn wait_for_answers(&self, name: &str, qtype: u16, expected: &[&str]) {
        wait::until_equal(name, expected, || self.answers(name, qtype));
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(process::pid(&self.child), signal).unwrap();
    }

    /// Waits for the exit of the process and the end of its log.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let status = process::wait(&mut self.child);
        self.reader.take().map(thread::JoinHandle::join);
        status
    }
}

/// Starts a program. A program that a test has just copied is busy while another thread's child, forked during the copy, has not
/// executed its own program yet.
fn started(command: &mut Command) -> Child {
    loop {
        match command.spawn() {
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => thread::yield_now(),
            spawned => return spawned.unwrap(),
        }
    }
}

/// Starts an agent whose log a thread appends to `log`.
fn spawn(command: &mut Command, log: &Arc<Mutex<String>>) -> (Child, thread::JoinHandle<()>) {
    let mut child = started(command);
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let kept = log.clone();
    let reader = thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let mut kept = kept.lock().unwrap();
            kept.push_str(&line);
            kept.push('\n');
        }
    });
    (child, reader)
}

impl Drop for Agent {
    fn drop(&mut self) {
        process::kill_now(&mut self.child);
        if thread::panicking() {
            eprintln!("the agent's log:\n{}", self.log());
        }
    }
}
