//! Timeliness and cost of ten thousand checks on one node.
//!
//! `cargo bench --bench checks` takes about a minute: 10,000 TCP checks, then 10,000 HTTP checks, every 10 s, against a
//! server on the loopback address in its own process. `cargo bench --bench checks -- hanging` has a server that accepts
//! and never responds. The delay and duration of each probe come from the trace events of `checks`; CPU and memory are those
//! of the probing process alone, of which the trace is a small part.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot continue ends")]

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use muster::{
    checks::{self, Checked, Inputs, Options, Outputs},
    model::{
        maintenance::Maintenance,
        name::Label,
        service::{
            Check, Definition, Endpoint, HttpProbe, Instance, InstanceKey, Pace, Probe, instance_ref::InstanceRef,
        },
    },
};
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::field::{Field, Visit};
use tracing_subscriber::{filter::Targets, layer::Context, prelude::*};

const CHECKS: usize = 10_000;
const INTERVAL: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(2);
/// First probes start within a second; the spread over the interval is complete after one and a half.
const WARM_UP: Duration = Duration::from_secs(2);
const STEADY: Duration = Duration::from_secs(28);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |word: &str| arguments.iter().any(|argument| argument == word);
    let workers = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if has("serve") {
        return workers().block_on(serve(has("hanging")));
    }
    let late = Trace::install();
    println!("{CHECKS} checks every {INTERVAL:?}, {} probes due in each second", CHECKS as u64 / INTERVAL.as_secs());
    let kinds: &[&str] = if has("hanging") { &["hanging"] } else { &["tcp", "http"] };
    for kind in kinds {
        let (mut server, port) = start_server(kind);
        workers().block_on(measure(kind, port, &late));
        drop(server.stdin.take());
        server.wait().unwrap();
    }
}

async fn measure(kind: &str, port: u16, trace: &Trace) {
    let before = rss();
    let (_definitions, watched) = watch::channel((0..CHECKS).map(|n| definition(kind, port, n)).collect());
    let defined = rss();
    let (checked, announced) = watch::channel(Checked::default());
    let shutdown = CancellationToken::new();
    let began = Instant::now();
    let (_reports, ttl_reports) = mpsc::channel(1);
    let maintenance = watch::channel(Maintenance::default()).1;
    let inputs = Inputs {
        definitions: watched,
        node: Label::parse("host-a").unwrap(),
        node_checks: watch::channel(Arc::from([])).1,
        maintenance,
        ttl_reports,
        former: Default::default(),
    };
    let outputs = Outputs { checked, results: watch::Sender::default(), texts: watch::Sender::default() };
    let running = tokio::spawn(checks::run(inputs, outputs, Options::for_this_process(false, 1), shutdown.clone()));

    sleep_until(began + WARM_UP).await;
    let first = trace.take();
    let (cpu_before, start) = (cpu(), Instant::now());
    let (mut most_open, mut most_memory) = (0, 0);
    while start.elapsed() < STEADY {
        sleep(Duration::from_millis(500)).await;
        most_open = most_open.max(std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count));
        most_memory = most_memory.max(rss());
    }
    let (used, elapsed) = (cpu() - cpu_before, start.elapsed());
    let steady = trace.take();
    let answered =
        announced.borrow().announcements.values().filter(|announcement| announcement.state.is_answered()).count();
    shutdown.cancel();
    running.await.unwrap();

    println!("\n{kind}: {answered} of {} instances healthy", announced.borrow().announcements.len());
    println!("  in the first {WARM_UP:?}:  {first}");
    println!("  in the next {elapsed:.1?}: {steady}");
    let probes = steady.probes.len().max(1) as f64;
    println!(
        "  CPU: {:.1} µs a probe, {:.1} % of a core",
        used.as_secs_f64() * 1e6 / probes,
        used.as_secs_f64() / elapsed.as_secs_f64() * 100.0
    );
    println!(
        "  memory: {} MB before, {} MB with the definitions, {} MB at most; {most_open} files open at most",
        before / 1024,
        defined / 1024,
        most_memory / 1024
    );
}

fn definition(kind: &str, port: u16, n: usize) -> (InstanceRef, Arc<Definition>) {
    let probe = if kind == "tcp" {
        Probe::Tcp(Endpoint { host: "127.0.0.1".into(), port })
    } else {
        Probe::Http(HttpProbe::get(format!("http://127.0.0.1:{port}/health/{n}").parse().unwrap()))
    };
    let check = Check { interval: INTERVAL, timeout: TIMEOUT, rise: 1, fall: 2, ..Check::new(probe) };
    let key = InstanceKey {
        service: Label::parse(&format!("service-{}", n / 10)).unwrap().into(),
        id: Label::parse(&format!("instance-{n}")).unwrap(),
    };
    let instance = Instance { port: Some(port), ..Instance::new(key, vec![[127, 0, 0, 1].into()]) };
    let instance = Arc::new(instance);
    ((&instance).into(), Arc::new(Definition { instance, enabled: true, checks: vec![check], pace: Pace::default() }))
}

/// Starts this program as the server; returns its port.
fn start_server(kind: &str) -> (Child, u16) {
    let mut server = Command::new(std::env::current_exe().unwrap())
        .args(["serve", kind])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (server, line.trim().parse().unwrap())
}

/// Serves requests until standard input ends; never responds if `hanging`.
async fn serve(hanging: bool) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        loop {
            if let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, hanging));
            }
        }
    });
    tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0])).await.unwrap().unwrap();
}

async fn answer(mut stream: TcpStream, hanging: bool) {
    let mut request = Vec::new();
    while hanging || !request.ends_with(b"\r\n\r\n") {
        match stream.read_buf(&mut request).await {
            Ok(1..) => {}
            _ => return,
        }
    }
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok").await;
    let _ = stream.shutdown().await;
    let _ = stream.read_buf(&mut request).await;
}

/// Collects the delay and duration of probes, in microseconds.
#[derive(Clone)]
struct Trace(Arc<Mutex<Vec<(u64, u64)>>>);

impl Trace {
    fn install() -> Self {
        let trace = Self(Arc::default());
        let checks = Targets::new().with_target("muster::checks", tracing::Level::TRACE);
        tracing_subscriber::registry().with(trace.clone().with_filter(checks)).init();
        trace
    }

    fn take(&self) -> Figures {
        Figures { probes: std::mem::take(&mut *self.0.lock().unwrap()) }
    }
}

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Trace {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut probe = Probed::default();
        event.record(&mut probe);
        if let Probed { late: Some(late), took: Some(took) } = probe {
            self.0.lock().unwrap().push((late, took));
        }
    }
}

#[derive(Default)]
struct Probed {
    late: Option<u64>,
    took: Option<u64>,
}

impl Visit for Probed {
    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "late_us" => self.late = Some(value),
            "took_us" => self.took = Some(value),
            _ => {}
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

struct Figures {
    probes: Vec<(u64, u64)>,
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let percentiles = |of: fn(&(u64, u64)) -> u64| {
            let mut all: Vec<u64> = self.probes.iter().map(of).collect();
            all.sort_unstable();
            let at = |part: f64| {
                let index = (all.len().saturating_sub(1) as f64 * part) as usize;
                all.get(index).map_or(0.0, |&us| us as f64 / 1000.0)
            };
            format!("p50 {:.1}, p99 {:.1}, max {:.1} ms", at(0.5), at(0.99), at(1.0))
        };
        write!(f, "{} probes; start late by {}; ", self.probes.len(), percentiles(|probe| probe.0))?;
        write!(f, "probe takes {}", percentiles(|probe| probe.1))
    }
}

/// Returns the CPU time of this process.
fn cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(micros.unsigned_abs())
}

/// Returns the resident memory of this process in KB.
fn rss() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
