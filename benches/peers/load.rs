//! Load generators: dnsperf for throughput, and a client for bursts and latencies, which dnsperf does not report.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use socket2::SockRef;

use super::world::{INSTANCES, World};

/// Core of the load generators.
const CORE: usize = 1;
/// Sockets of the client; each is one client to the server.
const SOCKETS: usize = 16;
/// Wait for an answer after the last one.
const SILENCE: Duration = Duration::from_millis(500);
/// Pause before a burst, so that the server is idle, as usual.
const PAUSE: Duration = Duration::from_millis(300);

/// Results of dnsperf.
pub(crate) struct Load {
    pub(crate) sent: u64,
    pub(crate) answered: u64,
    pub(crate) rate: f64,
}

/// Moves this process, and so the client, off the servers' core.
pub(crate) fn stay_on_its_core() {
    let mut cores = CpuSet::new();
    cores.set(CORE).unwrap();
    sched_setaffinity(Pid::from_raw(0), &cores).unwrap();
}

/// Sends as many queries as the server answers, from 16 clients with up to 100 pending.
pub(crate) fn full(server: SocketAddr, queries: &Path, span: Duration) -> Load {
    let output = Command::new("taskset")
        .args(["-c", &CORE.to_string(), "dnsperf", "-e", "-c", "16", "-q", "100", "-t", "2", "-s"])
        .arg(server.ip().to_string())
        .args(["-p", &server.port().to_string(), "-l", &span.as_secs().to_string(), "-d"])
        .arg(queries)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let number = |key: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(key));
        let word = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        word.unwrap_or_else(|| panic!("dnsperf prints no {key:?}: {text}"))
    };
    let load = Load {
        sent: number("Queries sent:") as u64,
        answered: number("Queries completed:") as u64,
        rate: number("Queries per second:"),
    };
    assert!(!text.contains("SERVFAIL"), "{text}");
    load
}

/// Sends `count` queries at once; returns the number that were not answered.
pub(crate) fn burst(server: SocketAddr, asked: &[Vec<u8>], count: usize) -> usize {
    let sockets = sockets(server);
    std::thread::sleep(PAUSE);
    for (number, packet) in asked.iter().cycle().take(count).enumerate() {
        sockets[number % SOCKETS].send(packet).unwrap();
    }
    let mut answered = 0;
    let mut last = Instant::now();
    let mut buffer = [0; 4096];
    while answered < count && last.elapsed() < SILENCE {
        for socket in &sockets {
            while socket.recv(&mut buffer).is_ok() {
                answered += 1;
                last = Instant::now();
            }
        }
    }
    count - answered
}

/// Sends `rate` queries per second; returns the latencies in µs.
pub(crate) fn paced(server: SocketAddr, asked: &[Vec<u8>], rate: u64, span: Duration) -> Vec<f32> {
    let sockets = sockets(server);
    let count = rate as usize * span.as_secs() as usize;
    let mut sent = vec![Duration::ZERO; count];
    let mut times = Vec::with_capacity(count);
    let mut buffer = [0; 4096];
    let start = Instant::now();
    let due = |number: usize| Duration::from_nanos(number as u64 * 1_000_000_000 / rate);
    let mut next = 0;
    let mut last = Duration::ZERO;
    while times.len() < count && (next < count || start.elapsed() < last + SILENCE) {
        while next < count && due(next) <= start.elapsed() {
            let mut packet = asked[next % asked.len()].clone();
            // Ids of a socket repeat only after longer than an answer may take.
            packet[..2].copy_from_slice(&((next / SOCKETS) as u16).to_be_bytes());
            sent[next] = start.elapsed();
            sockets[next % SOCKETS].send(&packet).unwrap();
            next += 1;
        }
        for (at, socket) in sockets.iter().enumerate() {
            while socket.recv(&mut buffer).is_ok() {
                last = start.elapsed();
                let id = usize::from(u16::from_be_bytes([buffer[0], buffer[1]]));
                // The latest query of this socket with that id.
                let newest = next.saturating_sub(1) / SOCKETS;
                let number = (newest - (newest.wrapping_sub(id) & 0xffff)) * SOCKETS + at;
                times.push((last - sent[number]).as_nanos() as f32 / 1e3);
            }
        }
    }
    times
}

/// Reports whether the server answers.
pub(crate) fn answers(server: SocketAddr, question: &[u8]) -> bool {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut buffer = [0; 512];
    let received = socket.send(question).and_then(|_| socket.recv(&mut buffer));
    received.is_ok_and(|len| len > question.len() && matches!(buffer[3] & 15, 0 | 3))
}

/// Waits until the server gives exactly the expected answers.
pub(crate) fn check(server: SocketAddr, world: &World) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut buffer = [0; 4096];
    let packets = world.packets();
    let forwards = world.upstream().is_some();
    // All names of the upstream must be cached.
    for packet in packets.iter().take(if forwards { packets.len() } else { 1000 }) {
        socket.send(packet).unwrap();
        let len = socket.recv(&mut buffer).unwrap();
        if forwards {
            // dnsmasq answers NODATA for some names that do not exist.
            let expected = if packet[13] == b'x' { 0 } else { 1 };
            assert_eq!(u16::from_be_bytes([buffer[6], buffer[7]]), expected, "{packet:x?}: {:x?}", &buffer[..len]);
            continue;
        }
        let missing = packet[12] == 6 && packet[13] == b'x';
        let srv = packet[13] == b'_';
        let count = |at: usize| usize::from(u16::from_be_bytes([buffer[at], buffer[at + 1]]));
        let expected = match (missing, srv) {
            (true, _) => (3, 0, 1, 1),
            (false, true) => (0, INSTANCES, count(8), INSTANCES + 1),
            (false, false) => (0, INSTANCES, count(8), 1 + usize::from(count(8) > 0) * (count(10) - 1)),
        };
        let got = (usize::from(buffer[3] & 15), count(6), count(8), count(10));
        assert!(
            got.0 == expected.0 && got.1 == expected.1 && got.3 >= expected.3,
            "{got:?} for {packet:x?}: {:x?}",
            &buffer[..len]
        );
    }
}

fn sockets(server: SocketAddr) -> Vec<UdpSocket> {
    let open = |_| {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.connect(server).unwrap();
        socket.set_nonblocking(true).unwrap();
        SockRef::from(&socket).set_recv_buffer_size(4 << 20).unwrap();
        socket
    };
    (0..SOCKETS).map(open).collect()
}
