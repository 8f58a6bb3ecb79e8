//! Fair sharing of the forwarding capacity by the built binary: one client's unanswered questions do not delay the others'.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use hickory_proto::op::ResponseCode;
use support::{
    Ask,
    agent::Agent,
    decode,
    namespaces::{Namespace, ip},
    skip,
};

const A: u16 = 1;
/// Open files of the agent, which allow 256 forwarded queries at once: a flood reaches the limit within a second.
const FILES: u32 = 4096;
const FLOODER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const OTHER: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// Time of a flood before the other client asks: a query that no upstream answers ends after 4.5 s.
const WARM_UP: Duration = Duration::from_secs(2);

/// A thread that ends with its handle.
struct Background {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    fn start(mut turn: impl FnMut() + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                turn();
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

/// An upstream that answers any name at once with TTL 0, except names with the label `dead`.
fn upstream() -> (SocketAddr, Background) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let address = socket.local_addr().unwrap();
    let running = Background::start(move || {
        let mut query = [0; 4096];
        let Ok((len, client)) = socket.recv_from(&mut query) else { return };
        if query[..len].to_ascii_lowercase().windows(5).any(|octets| octets == b"\x04dead") {
            return;
        }
        let question = 12 + query[12..len].iter().position(|octet| *octet == 0).unwrap() + 5;
        let head = [&query[..2], &[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]].concat();
        let record = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 192, 0, 2, 1];
        socket.send_to(&[&head, &query[12..question], &record].concat(), client).unwrap();
    });
    (address, running)
}

/// A client at this address that asks `per_second` different names below `suffix` and ignores the replies.
fn flood(server: SocketAddr, from: Ipv4Addr, per_second: u32, suffix: &'static str) -> Background {
    let socket = UdpSocket::bind((from, 0)).unwrap();
    socket.connect(server).unwrap();
    socket.set_nonblocking(true).unwrap();
    let (start, mut sent) = (Instant::now(), 0);
    let mut ignored = [0; 4096];
    Background::start(move || {
        while f64::from(sent) < start.elapsed().as_secs_f64() * f64::from(per_second) {
            let name = format!("n{sent}.{suffix}");
            let packet = Ask { name, qtype: A, edns: Some(1232), dnssec_ok: false }.packet(sent as u16);
            socket.send(&packet).unwrap();
            sent += 1;
        }
        while socket.recv(&mut ignored).is_ok() {}
        thread::sleep(Duration::from_millis(2));
    })
}

/// Times of one client's queries, and the number of those without an address.
#[derive(Debug, Default)]
struct Seen {
    times: Vec<Duration>,
    failed: usize,
}

impl Seen {
    fn percentile(&self, percent: usize) -> Duration {
        let mut times = self.times.clone();
        times.sort();
        times[(times.len() - 1) * percent / 100]
    }
}

/// Asks `count` different names below `suffix` from this address, 20 a second.
fn ask(server: SocketAddr, from: Ipv4Addr, count: u32, suffix: &str) -> Seen {
    let mut seen = Seen::default();
    for at in 0..count {
        let socket = UdpSocket::bind((from, 0)).unwrap();
        socket.connect(server).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(6))).unwrap();
        let name = format!("q{at}.{suffix}");
        let asked = Instant::now();
        socket.send(&Ask { name, qtype: A, edns: Some(1232), dnssec_ok: false }.packet(7)).unwrap();
        let mut reply = [0; 4096];
        let answered = socket.recv(&mut reply).map(|len| decode(&reply[..len]));
        seen.times.push(asked.elapsed());
        let is_good = answered
            .is_ok_and(|reply| reply.metadata.response_code == ResponseCode::NoError && reply.answers.len() == 1);
        seen.failed += usize::from(!is_good);
        thread::sleep(Duration::from_millis(50));
    }
    seen
}

/// Checks that all names were found, almost as fast as without a flood.
#[track_caller]
fn assert_undisturbed(case: &str, seen: &Seen) {
    println!(
        "{case}: {} of {} failed, p50 {:?}, p95 {:?}, maximum {:?}",
        seen.failed,
        seen.times.len(),
        seen.percentile(50),
        seen.percentile(95),
        seen.percentile(100)
    );
    assert_eq!(seen.failed, 0, "{case}: names without an address");
    // Without a flood, some milliseconds.
    assert!(seen.percentile(95) < Duration::from_millis(500), "{case}: p95 {:?}", seen.percentile(95));
}

#[test]
fn flood_of_one_client_does_not_delay_another() {
    let (address, _running) = upstream();
    let config = format!("resolver: {{upstreams: [\"{address}\"]}}\n");
    let agent = Agent::start_with_files(FILES, &config, |_| {});
    assert_undisturbed("no flood", &ask(agent.address(), OTHER, 20, "example."));
    for per_second in [400, 1000] {
        let _flood = flood(agent.address(), FLOODER, per_second, "dead.example.");
        thread::sleep(WARM_UP);
        let seen = ask(agent.address(), OTHER, 40, &format!("during{per_second}.example."));
        assert_undisturbed(&format!("{per_second} unanswered names a second"), &seen);
    }
}

/// The newest question of a client replaces its oldest one, so that names of a dead route do not block others of that client.
#[test]
fn dead_route_does_not_delay_other_names_of_the_same_client() {
    let (address, _running) = upstream();
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let config = format!(
        "resolver: {{upstreams: [\"{address}\"], routes: {{corp.example: \"{}\"}}}}\n",
        silent.local_addr().unwrap()
    );
    let agent = Agent::start_with_files(FILES, &config, |_| {});
    let _flood = flood(agent.address(), OTHER, 400, "corp.example.");
    thread::sleep(WARM_UP);
    assert_undisturbed("names of a dead route", &ask(agent.address(), OTHER, 40, "example."));
}

/// Clients on other hosts have a share each; a part of the places is for clients on this host alone.
#[test]
fn floods_of_other_hosts_delay_neither_quiet_hosts_nor_this_one() {
    if !skip::namespaces("floods of other hosts") {
        return;
    }
    let namespace = Namespace::new();
    for host in 1..=10 {
        ip(&format!("-n {} address add 10.9.0.{host}/24 dev lo", namespace.name()));
    }
    namespace.enter(|| {
        let (address, _running) = upstream();
        let config = format!("dns: {{listen: [\"0.0.0.0:0\"]}}\nresolver: {{upstreams: [\"{address}\"]}}\n");
        let agent = Agent::start_with_files(FILES, &config, |_| {});
        let server = |ip: Ipv4Addr| SocketAddr::from((ip, agent.address().port()));
        let host = |number| Ipv4Addr::new(10, 9, 0, number);
        let _floods: Vec<Background> =
            (2..=6).map(|at| flood(server(host(1)), host(at), 200, "dead.example.")).collect();
        thread::sleep(WARM_UP);
        assert_undisturbed("another host", &ask(server(host(1)), host(9), 40, "quiet.example."));
        assert_undisturbed("this host", &ask(server(OTHER), OTHER, 40, "own.example."));
    });
}
