//! Cost and latency of clients that wait for changes over the HTTP API: `cargo bench --bench blocking` (root).
//!
//! A thousand and ten thousand clients wait for one service, with blocking queries or streams. Prints the agent's memory per
//! client and its CPU while nothing changes. For 20 changes it prints the time from the command to the clients' receipts
//! (median, 99th percentile, last), and the CPU of the agent and of the clients per receipt, with the next query.
//!
//! The agent has one core and the clients another, as if they were on other hosts: each side has a network namespace, and
//! its core does the work of its end of the veth pair (receive packet steering).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark that cannot continue ends")]

#[path = "../../tests/support/mod.rs"]
mod support;

mod clients;

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
use support::{
    agent::Agent,
    http::ask,
    namespaces::{Namespace, ip},
    process::command,
    skip,
};

const A: u16 = 1;
const COUNTS: [usize; 2] = [1_000, 10_000];
const CHANGES: u32 = 20;
/// Duration without changes.
const QUIET: Duration = Duration::from_secs(20);
/// Pause between two changes, in which the clients' next queries arrive.
const PAUSE: Duration = Duration::from_millis(500);
/// Cores of the agent and of the clients.
const CORES: [usize; 2] = [0, 1];
/// Address of the agent.
const HOST: &str = "192.0.2.1";
/// Access of the agent's clients: without tokens.
const OPEN: &str = "http: {listen: [\"192.0.2.1:0\"], insecure: true}\n";
const PATH: &str = "health/service/web";
const FILTERED: &str = "health/service/web?near=_agent&filter=Service.Port+%3D%3D+80";

fn main() {
    let what = "the measurement";
    if !skip::root(what) || !skip::open_files(what, 20_000) || available_parallelism().unwrap().get() < CORES.len() {
        return;
    }
    println!(
        "{:30} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "clients", "KB each", "CPU", "median", "p99", "last", "agent", "clients"
    );
    measure("none", Kind::Query, 0, PATH);
    for count in COUNTS {
        measure(&format!("{count} blocking queries"), Kind::Query, count, PATH);
        measure(&format!("{count} with near and filter"), Kind::Query, count, FILTERED);
        measure(&format!("{count} streams"), Kind::Stream, count, PATH);
    }
}

fn measure(what: &str, kind: Kind, count: usize, path: &str) {
    let [there, here] = [Namespace::new(), Namespace::new()];
    there.connect("eth0", &here, "eth0");
    for (namespace, core, address) in [(&there, CORES[0], HOST), (&here, CORES[1], "192.0.2.2")] {
        ip(&format!("-n {} address add {address}/24 dev eth0", namespace.name()));
        let steer = format!("echo {:x} > /sys/class/net/eth0/queues/rx-0/rps_cpus", 1 << core);
        let status = command("ip").args(["netns", "exec", namespace.name(), "sh", "-c", &steer]).status().unwrap();
        assert!(status.success(), "{steer}");
    }
    let agent = there.enter(|| {
        pin(CORES[0]);
        let agent = Agent::start_with(OPEN, &[], |_| {});
        agent.write_service("web.yaml", "service: web\nport: 80\n");
        agent.wait_for_answers("web.service.local.", A, &["A 10.0.0.7"]);
        agent
    });
    here.enter(|| {
        pin(CORES[1]);
        wait_for_changes(what, &agent, kind, count, path);
    });
}

fn wait_for_changes(what: &str, agent: &Agent, kind: Kind, count: usize, path: &str) {
    let (http, own) = (agent.http(), process::id());
    let before = memory(agent);
    let mut clients = Clients::connect(http, kind, count, path, "");
    thread::sleep(Duration::from_secs(2));
    let each = (memory(agent) - before) / count.max(1) as f64;
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
    let per_receipt = |spent: Duration| spent.as_secs_f64() * 1e6 / times.len() as f64;
    let [agent_cpu, clients_cpu] = [per_receipt(cpu(agent.pid()) - spent[0]), per_receipt(cpu(own) - spent[1])];
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    println!(
        "{what:30} {each:>9.1} {quiet:>7.2} % {:>6.1} ms {:>6.1} ms {:>6.1} ms {agent_cpu:>6.1} µs {clients_cpu:>6.1} µs",
        at(0.5),
        at(0.99),
        at(1.0)
    );
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
