//! An agent of the built program, with its cost and the latency of its answers.

use std::{
    fs,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Queries per second.
pub(crate) const ASKED: u64 = 500;

/// A running agent.
pub(crate) struct Agent {
    process: Child,
    host: IpAddr,
    pub(crate) started: Instant,
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Agent {
    /// Starts an agent in the folder, which holds `key`. It announces the service `NAME` and joins the given addresses.
    pub(crate) fn start(folder: &Path, name: &str, host: IpAddr, key: &[u8], join: &[SocketAddr]) -> Self {
        let services = folder.join("services.d");
        fs::create_dir_all(&services).unwrap();
        fs::write(services.join("own.yaml"), format!("service: {name}\nport: 80\n")).unwrap();
        fs::write(folder.join("key"), key).unwrap();
        let config = format!(
            "node: {name}\nadvertise: {host}\ndata_dir: data\nservices_dir: services.d\nzones_dir: zones\n\
             dns: {{listen: ['{host}:5300']}}\nhttp: {{listen: ['{host}:8500']}}\nlog: {{level: warn}}\n\
             gossip: {{listen: '{host}:7946', key_file: key, join: {join:?}}}\n",
            join = join.iter().map(SocketAddr::to_string).collect::<Vec<_>>()
        );
        fs::write(folder.join("muster.yaml"), config).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_muster"));
        command.args(["agent", "--config"]).arg(folder.join("muster.yaml"));
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        Self { process, host, started: Instant::now() }
    }

    /// Number of instances in the agent's catalog; zero while it does not answer.
    pub(crate) fn instances(&self) -> usize {
        let Some(metrics) = self.get("/metrics") else { return 0 };
        let counts = metrics.lines().filter(|line| line.starts_with("muster_instances{"));
        counts.filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok()).sum()
    }

    fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect((self.host, 8500)).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text)
    }

    /// Gossip address.
    pub(crate) fn gossip(&self) -> SocketAddr {
        SocketAddr::new(self.host, 7946)
    }

    /// CPU time of all threads.
    pub(crate) fn cpu(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.process.id())).unwrap().flatten();
        let of = |task: fs::DirEntry| -> Option<u64> {
            fs::read_to_string(task.path().join("schedstat")).ok()?.split(' ').next()?.parse().ok()
        };
        Duration::from_nanos(tasks.filter_map(of).sum())
    }

    /// Resident memory in MB.
    pub(crate) fn memory(&self) -> f64 {
        let text = fs::read_to_string(format!("/proc/{}/statm", self.process.id())).unwrap();
        text.split(' ').nth(1).unwrap().parse::<f64>().unwrap() * 4096.0 / 1e6
    }

    /// Begins to query the names of these services at random, [`ASKED`] times a second.
    pub(crate) fn ask(&self, services: Vec<String>) -> Asking {
        let to = SocketAddr::new(self.host, 5300);
        let (started, ends) = (self.started, Arc::new(AtomicBool::new(false)));
        let ended = ends.clone();
        let thread = thread::spawn(move || ask(to, &services, started, &ended));
        Asking { ends, thread }
    }
}

/// Queries under way.
pub(crate) struct Asking {
    ends: Arc<AtomicBool>,
    thread: JoinHandle<Answers>,
}

impl Asking {
    /// Ends the queries after a time.
    pub(crate) async fn end_after(self, span: Duration) -> Answers {
        tokio::time::sleep(span).await;
        self.end()
    }

    /// Ends the queries.
    pub(crate) fn end(self) -> Answers {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// Answers of an agent.
pub(crate) struct Answers {
    /// Time from the agent's start to the first answer with an address.
    pub(crate) first: Duration,
    /// Response times since then, as text.
    pub(crate) times: String,
}

fn ask(to: SocketAddr, services: &[String], started: Instant, ends: &AtomicBool) -> Answers {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let (mut first, mut times, mut lost) = (None, vec![], 0);
    let mut next = Instant::now();
    while !ends.load(Ordering::Relaxed) {
        let query = query(&services[fastrand::usize(..services.len())]);
        let asked = Instant::now();
        let mut reply = [0; 4096];
        let replied = socket.send(&query).and_then(|_| socket.recv(&mut reply)).is_ok();
        match first {
            None if replied && reply[6..8] != [0, 0] => first = Some(started.elapsed()),
            None => {}
            Some(_) if replied => times.push(asked.elapsed()),
            Some(_) => lost += 1,
        }
        next = (next + Duration::from_micros(1_000_000 / ASKED)).max(Instant::now());
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    times.sort();
    let at =
        |part: f64| times.get((times.len().saturating_sub(1) as f64 * part) as usize).map_or(0, Duration::as_micros);
    Answers {
        first: first.unwrap_or(Duration::MAX),
        times: format!("{} / {} / {} µs (median, p99, longest), {lost} lost", at(0.5), at(0.99), at(1.0)),
    }
}

fn query(name: &str) -> Vec<u8> {
    let mut query = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.').chain(["service", "local"]) {
        query.push(label.len() as u8);
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    query
}
