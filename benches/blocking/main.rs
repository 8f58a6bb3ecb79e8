//! Cost and latency of clients that wait for changes over the HTTP API: `cargo bench --bench blocking` (root).
//!
//! A thousand and ten thousand clients wait for one service, with blocking queries or streams. Prints the agent's memory per
//! client and its CPU while nothing changes. For 20 changes it prints the time from the command to the clients' receipts
//! (median, 99th percentile, last), and the CPU of the agent and of the clients per receipt, with the next query.
//!
//! The agent has one core and the clients another, as if they were on other hosts: a network namespace whose loopback
//! device leaves the work of receiving to the clients' core (receive packet steering), for both directions. `writes` is a
//! server that only writes to each client: the lower bound of this machine.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark that cannot continue ends")]

#[path = "../../tests/support/mod.rs"]
mod support;

mod clients;
mod writes;

use std::{
    fs,
    net::SocketAddr,
    process,
    thread::{self, available_parallelism},
    time::{Duration, Instant},
};

use clients::{Clients, Kind};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use support::{agent::Agent, http::ask, namespaces::Namespace, process::command, skip};
use writes::Writes;

const A: u16 = 1;
const COUNTS: [usize; 2] = [1_000, 10_000];
/// Most clients of `writes`: both ends of each connection are open files of this process.
const MAX_WRITES: usize = 9_000;
const CHANGES: u32 = 20;
/// Duration without changes.
const QUIET: Duration = Duration::from_secs(20);
/// Pause between two changes, in which the clients' next queries arrive.
const PAUSE: Duration = Duration::from_millis(500);
const AGENT_CORE: usize = 0;
const CLIENTS_CORE: usize = 1;
const PATH: &str = "health/service/web";
const FILTERED: &str = "health/service/web?near=_agent&filter=Service.Port+%3D%3D+80";

fn main() {
    let what = "the measurement";
    // The agent uses a quarter of its descriptors for TCP connections.
    if !skip::root(what) || !skip::open_files(what, 65_536) || available_parallelism().unwrap().get() <= CLIENTS_CORE {
        return;
    }
    println!(
        "{:30} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "clients", "KB each", "CPU", "median", "p99", "last", "agent", "clients"
    );
    let namespace = Namespace::new();
    let steer = format!("echo {:x} > /sys/class/net/lo/queues/rx-0/rps_cpus", 1 << CLIENTS_CORE);
    let status = command("ip").args(["netns", "exec", namespace.name(), "sh", "-c", &steer]).status().unwrap();
    assert!(status.success(), "{steer}");
    namespace.enter(|| {
        measure("none", Kind::Query, 0, PATH);
        for count in COUNTS {
            let writes = count.min(MAX_WRITES);
            measure_writes(&format!("{writes} writes"), writes);
            measure(&format!("{count} blocking queries"), Kind::Query, count, PATH);
            measure(&format!("{count} with near and filter"), Kind::Query, count, FILTERED);
            measure(&format!("{count} streams"), Kind::Stream, count, PATH);
        }
    });
}

fn measure(what: &str, kind: Kind, count: usize, path: &str) {
    pin(AGENT_CORE);
    let agent = Agent::start();
    agent.write_service("web.yaml", "service: web\nport: 80\n");
    agent.wait_for_answers("web.service.local.", A, &["A 10.0.0.7"]);
    pin(CLIENTS_CORE);
    let (http, own) = (agent.http(), process::id());
    let before = memory(&agent);
    let mut clients = Clients::connect(http, kind, count, path, "");
    thread::sleep(Duration::from_secs(2));
    let each = (memory(&agent) - before) / count.max(1) as f64;
    let spent = cpu(agent.pid());
    thread::sleep(QUIET);
    let quiet = (cpu(agent.pid()) - spent).as_secs_f64() / QUIET.as_secs_f64() * 100.0;
    if count == 0 {
        println!("{what:30} {:>9} {quiet:>7.2} %", "-");
        return;
    }
    let spent = [cpu(agent.pid()), cpu(own)];
    let mut times = Vec::new();
    for number in 0..CHANGES {
        let begin = Instant::now();
        let changing = thread::spawn(move || change(http, number % 2 == 0));
        times.extend(clients.receipts(begin));
        changing.join().unwrap();
        thread::sleep(PAUSE);
    }
    let [agent_cpu, clients_cpu] =
        [cpu(agent.pid()) - spent[0], cpu(own) - spent[1]].map(|spent| spent.as_secs_f64() * 1e6 / times.len() as f64);
    println!("{what:30} {each:>9.1} {quiet:>7.2} % {} {agent_cpu:>6.1} µs {clients_cpu:>6.1} µs", latencies(times));
}

fn measure_writes(what: &str, count: usize) {
    pin(AGENT_CORE);
    let server = Writes::start(count);
    pin(CLIENTS_CORE);
    let mut clients = Clients::connect(server.http, Kind::Query, count, PATH, "");
    let (mut times, mut spent) = (Vec::new(), Duration::ZERO);
    for _ in 0..CHANGES {
        thread::sleep(PAUSE);
        let begin = Instant::now();
        server.write();
        times.extend(clients.receipts(begin));
        spent += server.spent();
    }
    let spent = spent.as_secs_f64() * 1e6 / times.len() as f64;
    println!("{what:30} {:>9} {:>9} {} {spent:>6.1} µs", "-", "-", latencies(times));
}

/// Formats the median, the 99th percentile and the maximum.
fn latencies(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    format!("{:>6.1} ms {:>6.1} ms {:>6.1} ms", at(0.5), at(0.99), at(1.0))
}

/// Binds this thread, and what it starts, to a core.
fn pin(core: usize) {
    let mut cores = CpuSet::new();
    cores.set(core).unwrap();
    sched_setaffinity(Pid::from_raw(0), &cores).unwrap();
}

fn change(http: SocketAddr, enable: bool) {
    let path = format!("/v1/agent/maintenance?enable={enable}");
    assert_eq!(ask(http, "PUT", &path, "").status, 200);
}

/// Returns the resident memory in KB (proc_pid_status(5)).
fn memory(agent: &Agent) -> f64 {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Returns user and system time (proc_pid_stat(5)), counted in hundredths of a second.
fn cpu(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks = |at: usize| fields[at].parse::<u64>().unwrap();
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}
