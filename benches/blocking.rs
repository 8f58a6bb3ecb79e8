//! Cost and latency of clients that wait for changes over the HTTP API: `cargo bench --bench blocking`.
//!
//! A thousand and ten thousand clients wait for one service, with blocking queries or streams. Prints the agent's memory per
//! client and its CPU while nothing changes. For 20 changes it prints the time from the command to the clients' answers
//! (median, 99th percentile, last, and first to last), and the agent's CPU per answer with its next query. Clients and agent
//! share the machine.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark that cannot continue ends")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    fs,
    net::SocketAddr,
    time::{Duration, Instant},
};

use support::{agent::Agent, http::ask, skip, watchers::Watchers};
use tokio::{runtime::Builder, task::spawn_blocking, time::sleep};

const A: u16 = 1;
const CLIENTS: [usize; 2] = [1_000, 10_000];
const CHANGES: usize = 20;
/// Duration without changes.
const QUIET: Duration = Duration::from_secs(20);

fn main() {
    if !skip::open_files("the measurement", 20_000) {
        return;
    }
    println!(
        "clients{:20} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "", "KB each", "CPU", "median", "p99", "last", "spread", "answer"
    );
    measure("none", 0, 0);
    for clients in CLIENTS {
        measure(&format!("{clients} blocking queries"), clients, 0);
        measure(&format!("{clients} streams"), 0, clients);
    }
}

fn measure(what: &str, queries: usize, streams: usize) {
    let agent = Agent::start();
    agent.write_service("web.yaml", "service: web\nport: 80\n");
    agent.wait_for_answers("web.service.local.", A, &["A 10.0.0.7"]);
    let clients = queries + streams;
    let runtime = Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let before = memory(&agent);
        let mut waiting = Watchers::begin(agent.http(), queries, streams).await;
        while fs::read_dir(format!("/proc/{}/fd", agent.pid())).unwrap().count() < clients {
            sleep(Duration::from_millis(20)).await;
        }
        sleep(Duration::from_secs(2)).await;
        let each = (memory(&agent) - before) / clients.max(1) as f64;
        let spent = cpu(&agent);
        sleep(QUIET).await;
        let quiet = (cpu(&agent) - spent).as_secs_f64() / QUIET.as_secs_f64() * 100.0;
        if clients == 0 {
            println!("{what:28} {:>9} {quiet:>7.2} %", "-");
            return;
        }
        let spent = cpu(&agent);
        let (mut times, mut last, mut spread) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..CHANGES {
            let begin = Instant::now();
            let change = change(agent.http(), number % 2 == 0);
            let (heard, ()) = tokio::join!(waiting.all(), change);
            let mut all: Vec<Duration> = heard.iter().map(|heard| heard.at - begin).collect();
            all.sort();
            last.push(all[all.len() - 1]);
            spread.push(all[all.len() - 1] - all[0]);
            times.extend(all);
            sleep(Duration::from_millis(500)).await;
        }
        let answer = (cpu(&agent) - spent).as_secs_f64() * 1e6 / times.len() as f64;
        times.sort();
        last.sort();
        spread.sort();
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
        let most = |list: &[Duration]| list[list.len() - 1].as_secs_f64() * 1e3;
        println!(
            "{what:28} {each:>9.1} {quiet:>7.2} % {:>6.1} ms {:>6.1} ms {:>6.1} ms {:>6.1} ms {answer:>6.1} µs",
            at(0.5),
            at(0.99),
            most(&last),
            most(&spread)
        );
    });
}

async fn change(http: SocketAddr, enable: bool) {
    let path = format!("/v1/agent/maintenance?enable={enable}");
    let status = spawn_blocking(move || ask(http, "PUT", &path, "").status).await.unwrap();
    assert_eq!(status, 200);
}

/// Returns the resident memory in KB (proc_pid_status(5)).
fn memory(agent: &Agent) -> f64 {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Returns user and system time (proc_pid_stat(5)), counted in hundredths of a second.
fn cpu(agent: &Agent) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", agent.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks = |at: usize| fields[at].parse::<u64>().unwrap();
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}
