//! Cost of receiving and sending UDP datagrams by each system-call path of Linux: `cargo bench --bench udp_io`.
//!
//! Every path runs the same echo server on one core, which turns a query into an empty reply; dnsperf sends queries from
//! another core. The paths run in turn, so that other load affects all alike. `-- --rounds 5 --seconds 2` are the defaults.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark that cannot continue ends")]

mod echo;
mod ring;

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use nix::{
    sched::{CpuSet, sched_setaffinity},
    time::{ClockId, clock_gettime},
    unistd::Pid,
};

/// Echo server over one system-call path; runs until the flag is set.
type Path = fn(&UdpSocket, &AtomicBool);

const PATHS: &[(&str, Path)] = &[
    ("recvfrom and sendto, blocking", echo::blocking),
    ("recvfrom and sendto, after poll", echo::readiness),
    ("recvmmsg and sendmmsg, 4 at most, after poll", echo::many::<4>),
    ("recvmmsg and sendmmsg, 8 at most, after poll", echo::many::<8>),
    ("recvmmsg and sendmmsg, 16 at most, after poll", echo::many::<16>),
    ("recvmmsg and sendmmsg, 32 at most, after poll", echo::many::<32>),
    ("recvmmsg and sendmmsg, 64 at most, after poll", echo::many::<64>),
    ("recvmmsg and sendmmsg, 32 at most, blocking", echo::many_blocking::<32>),
    ("recvmmsg, replies to one client in segments (GSO)", echo::segments::<32>),
    ("io_uring: multishot receive, sends", ring::echo),
];

fn main() {
    let (mut rounds, mut seconds) = (5, 2);
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    for pair in arguments.chunks(2) {
        let number = pair.get(1).and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{pair:?}"));
        match pair[0].as_str() {
            "--rounds" => rounds = number,
            "--seconds" => seconds = number,
            _ => panic!("unknown option {}", pair[0]),
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let queries = folder.path().join("queries");
    let names: String = (0..10_000).map(|at| format!("s{at:05}.service.local A\n")).collect();
    std::fs::write(&queries, names).unwrap();
    let mut seen = vec![vec![]; PATHS.len()];
    for round in 0..rounds {
        for turn in 0..PATHS.len() {
            let at = (round + turn) % PATHS.len();
            seen[at].push(measure(PATHS[at].1, &queries, seconds));
        }
    }
    println!("| path | CPU/datagram median (least to most) | answers/s |\n| --- | --- | --- |");
    for ((name, _), mut figures) in PATHS.iter().zip(seen) {
        figures.sort_by(|a: &(f64, f64), b| a.0.total_cmp(&b.0));
        let (middle, least, most) = (figures[figures.len() / 2], figures[0], figures[figures.len() - 1]);
        println!("| {name} | {:.2} µs ({:.2} to {:.2}) | {:.0} |", middle.0, least.0, most.0, middle.1);
    }
}

/// Returns the CPU time per answer in µs, and answers per second.
fn measure(path: Path, queries: &std::path::Path, seconds: usize) -> (f64, f64) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket2::SockRef::from(&socket).set_recv_buffer_size(4 << 20).unwrap();
    let address = socket.local_addr().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let echo = thread::spawn(move || {
        let mut core = CpuSet::new();
        core.set(0).unwrap();
        sched_setaffinity(Pid::from_raw(0), &core).unwrap();
        path(&socket, &stopped);
        let used = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap();
        Duration::from(used)
    });
    let load = ask(address, queries, seconds);
    stop.store(true, Ordering::Relaxed);
    // The server checks the flag at the next datagram.
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().send_to(&[0; 64], address).unwrap();
    let used = echo.join().unwrap();
    (used.as_secs_f64() * 1e6 / load.0, load.1)
}

/// Returns the number of answers, and answers per second.
fn ask(server: SocketAddr, queries: &std::path::Path, seconds: usize) -> (f64, f64) {
    let output = Command::new("taskset")
        .args(["-c", "1", "dnsperf", "-e", "-c", "16", "-q", "100", "-s", "127.0.0.1"])
        .args(["-p", &server.port().to_string(), "-l", &seconds.to_string(), "-d"])
        .arg(queries)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let number = |key: &str| -> f64 {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(key));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_else(|| panic!("{text}"))
    };
    (number("Queries completed:"), number("Queries per second:"))
}
