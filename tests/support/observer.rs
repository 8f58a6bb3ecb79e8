//! Clients that query agents without a pause and count what is wrong with the answers.
//!
//! Each client asks its questions in turn, over UDP every 10 ms and over TCP every 100 ms; in large clusters less often. A query does not wait for the
//! answer to the one before it, so an agent that is away is noticed by each query. A query that waits in a socket until
//! the agent reads it counts with its wait.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write as _},
    io::{self, ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use hickory_proto::op::{Message, ResponseCode};

use super::{Ask, decode, extended_error, namespaces::Namespace, show_data};

/// Pause between two queries of a client over UDP, with up to [`FAST_CLIENTS`] clients.
const UDP_INTERVAL: Duration = Duration::from_millis(10);
/// Pause between two queries of a client over TCP, with up to [`FAST_CLIENTS`] clients.
const TCP_INTERVAL: Duration = Duration::from_millis(100);
/// Number of clients up to which each one queries at full speed. With more clients, each one slows down in proportion: one
/// machine runs all agents of a test, and queries must not take the time that the agents need.
const FAST_CLIENTS: u32 = 5;
/// Time after which a query counts as lost: the timeout of the resolver in the C library (resolv.conf(5)).
const TIMEOUT: Duration = Duration::from_secs(5);
/// Number of wrong answers that a failure shows.
const SHOWN: usize = 20;
/// RFC 8914 code for a stale answer.
const STALE_ANSWER: u16 = 3;

/// Question of a client and its right answers.
#[derive(Clone)]
pub struct Question {
    name: String,
    qtype: u16,
    /// Records that every answer has.
    required: BTreeSet<String>,
    /// Records that an answer may have in addition.
    permitted: BTreeSet<String>,
}

impl Question {
    /// Creates a question whose answers have exactly these records: type and data.
    pub fn new(name: &str, qtype: u16, required: impl IntoIterator<Item = String>) -> Self {
        let required = required.into_iter().collect();
        Self { name: name.to_owned(), qtype, required, permitted: BTreeSet::new() }
    }

    /// Permits records in addition.
    #[must_use]
    pub fn permitting(mut self, records: impl IntoIterator<Item = String>) -> Self {
        self.permitted.extend(records);
        self
    }

    /// Returns the text of a wrong answer.
    fn fault(&self, answer: &Message) -> Option<String> {
        let found: BTreeSet<String> = answer
            .answers
            .iter()
            .map(|record| format!("{} {}", record.record_type(), show_data(&record.data)))
            .collect();
        let missing: Vec<&str> = self.required.difference(&found).map(String::as_str).collect();
        let other: Vec<&str> = found
            .difference(&self.required)
            .filter(|record| !self.permitted.contains(*record))
            .map(String::as_str)
            .collect();
        let code = answer.metadata.response_code;
        let is_right =
            code == ResponseCode::NoError && !answer.metadata.truncation && missing.is_empty() && other.is_empty();
        if is_right {
            return None;
        }
        let mut fault = format!("{} type {}: {code}", self.name, self.qtype);
        for (what, records) in [("missing", missing), ("wrong", other)] {
            if !records.is_empty() {
                let _ = write!(fault, ", {what}: {}", records.join("; "));
            }
        }
        if let Some((code, text)) = extended_error(answer) {
            let _ = write!(fault, ", EDE {code} {text}");
        }
        Some(fault)
    }
}

/// Client on a host.
pub struct Client<'a> {
    /// Name of the host.
    pub host: String,
    /// Network namespace of the host.
    pub namespace: &'a Namespace,
    /// Server that it queries.
    pub server: SocketAddr,
    /// Its questions, asked in turn.
    pub questions: Vec<Question>,
}

/// Transport of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// UDP.
    Udp,
    /// TCP, with a new connection for each query.
    Tcp,
}

/// Failure of a query, with the time since the start of the observation.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Time of the query.
    pub at: Duration,
    /// Question and fault.
    pub fault: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} s: {}", self.at.as_secs_f64(), self.fault)
    }
}

/// Counts of one client.
#[derive(Clone, Debug)]
pub struct Counts {
    /// Name of its host.
    pub host: String,
    /// Its transport.
    pub transport: Transport,
    /// Number of queries.
    pub queries: usize,
    /// Number of answers that were marked as stale.
    pub stale: usize,
    /// Wrong answers.
    pub wrong: Vec<Failure>,
    /// Queries without an answer.
    pub lost: Vec<Failure>,
    /// Queries that the host refused, since no socket had the port.
    pub refused: Vec<Failure>,
    /// Longest time until an answer.
    pub longest: Duration,
}

impl Counts {
    fn new(host: &str, transport: Transport) -> Self {
        let (wrong, lost, refused) = (Vec::new(), Vec::new(), Vec::new());
        let (queries, stale, longest) = (0, 0, Duration::ZERO);
        Self { host: host.to_owned(), transport, queries, stale, wrong, lost, refused, longest }
    }

    fn count(&mut self, question: &Question, at: Duration, wait: Duration, answer: &Message) {
        self.longest = self.longest.max(wait);
        if extended_error(answer).is_some_and(|(code, _)| code == STALE_ANSWER) {
            self.stale += 1;
        }
        if let Some(fault) = question.fault(answer) {
            self.wrong.push(Failure { at, fault });
        }
    }
}

/// Running clients. They stop on drop.
pub struct Observer {
    stop: Arc<AtomicBool>,
    begun: Instant,
    clients: Vec<thread::JoinHandle<Counts>>,
}

impl Observer {
    /// Starts a client of each transport for each of these.
    pub fn start<'a>(clients: impl IntoIterator<Item = Client<'a>>) -> Self {
        let (stop, begun) = (Arc::new(AtomicBool::new(false)), Instant::now());
        let clients: Vec<Client<'a>> = clients.into_iter().collect();
        let slower = (clients.len() as u32).div_ceil(FAST_CLIENTS).max(1);
        let mut threads = Vec::new();
        for Client { host, namespace, server, questions } in clients {
            for transport in [Transport::Udp, Transport::Tcp] {
                let interval = slower
                    * match transport {
                        Transport::Udp => UDP_INTERVAL,
                        Transport::Tcp => TCP_INTERVAL,
                    };
                let work = Work { questions: questions.clone(), server, interval, stop: stop.clone(), begun };
                let counts = Counts::new(&host, transport);
                // The thread stays in the namespace of the thread that starts it.
                threads.push(namespace.enter(|| {
                    thread::spawn(move || match transport {
                        Transport::Udp => work.ask_over_udp(counts),
                        Transport::Tcp => work.ask_over_tcp(counts),
                    })
                }));
            }
        }
        Self { stop, begun, clients: threads }
    }

    /// Continues for this time.
    pub fn run_for(&self, time: Duration) {
        thread::sleep(time);
    }

    /// Returns the time since the start.
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Stops the clients and returns their counts, after the timeout of their last queries.
    pub fn finish(mut self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        let clients = std::mem::take(&mut self.clients);
        Report { counts: clients.into_iter().map(|client| client.join().unwrap()).collect() }
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Work of one client.
struct Work {
    questions: Vec<Question>,
    server: SocketAddr,
    /// Pause between two queries.
    interval: Duration,
    stop: Arc<AtomicBool>,
    begun: Instant,
}

impl Work {
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn packet(&self, number: usize) -> Vec<u8> {
        let question = &self.questions[number % self.questions.len()];
        let ask = Ask { name: question.name.clone(), qtype: question.qtype, edns: Some(1232), dnssec_ok: false };
        ask.packet(number as u16)
    }

    fn ask_over_udp(self, mut counts: Counts) -> Counts {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        socket.connect(self.server).unwrap();
        // By the number of the query. At most 200 are unanswered at a time, so that message IDs are unique.
        let mut unanswered: BTreeMap<usize, Instant> = BTreeMap::new();
        let mut next = Instant::now();
        let mut reply = [0; 4096];
        loop {
            let now = Instant::now();
            while let Some(first) = unanswered.first_entry().filter(|first| now - *first.get() >= TIMEOUT) {
                let (number, sent) = first.remove_entry();
                counts.lost.push(self.failure(number, sent, "no answer"));
            }
            if self.is_over() && unanswered.is_empty() {
                return counts;
            }
            if now >= next && !self.is_over() {
                let number = counts.queries;
                // An error belongs to an earlier query.
                let packet = self.packet(number);
                if socket.send(&packet).is_err() {
                    self.refuse_latest(&mut unanswered, &mut counts);
                    socket.send(&packet).unwrap();
                }
                unanswered.insert(number, now);
                counts.queries += 1;
                next = (next + self.interval).max(now);
            }
            let wait = next.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            socket.set_read_timeout(Some(wait)).unwrap();
            match socket.recv(&mut reply) {
                Ok(len) => {
                    let id = usize::from(u16::from_be_bytes([reply[0], reply[1]]));
                    let number = unanswered.keys().find(|number| *number % (1 << 16) == id).copied();
                    // An answer to a query that is counted as lost is ignored.
                    let Some((number, sent)) = number.and_then(|number| unanswered.remove_entry(&number)) else {
                        continue;
                    };
                    let question = &self.questions[number % self.questions.len()];
                    counts.count(question, sent - self.begun, sent.elapsed(), &decode(&reply[..len]));
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                // On loopback, the refusal arrives with the return of the call that sent the query.
                Err(_) => self.refuse_latest(&mut unanswered, &mut counts),
            }
        }
    }

    fn refuse_latest(&self, unanswered: &mut BTreeMap<usize, Instant>, counts: &mut Counts) {
        if let Some((number, sent)) = unanswered.pop_last() {
            counts.refused.push(self.failure(number, sent, "connection refused"));
        }
    }

    fn ask_over_tcp(self, mut counts: Counts) -> Counts {
        let mut next = Instant::now();
        while !self.is_over() {
            let (number, sent) = (counts.queries, Instant::now());
            counts.queries += 1;
            match exchange(self.server, &self.packet(number)) {
                Ok(reply) => {
                    let question = &self.questions[number % self.questions.len()];
                    counts.count(question, sent - self.begun, sent.elapsed(), &decode(&reply));
                }
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    counts.refused.push(self.failure(number, sent, "connection refused"));
                }
                Err(error) => counts.lost.push(self.failure(number, sent, &error.to_string())),
            }
            next = (next + self.interval).max(Instant::now());
            thread::sleep(next - Instant::now());
        }
        counts
    }

    fn failure(&self, number: usize, sent: Instant, fault: &str) -> Failure {
        let question = &self.questions[number % self.questions.len()];
        Failure { at: sent - self.begun, fault: format!("{} type {}: {fault}", question.name, question.qtype) }
    }
}

/// Sends a query over a new TCP connection and returns the reply.
fn exchange(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&server, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(&[&(query.len() as u16).to_be_bytes(), query].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut reply)?;
    Ok(reply)
}

/// Counts of all clients of an observation.
pub struct Report {
    /// By client.
    pub counts: Vec<Counts>,
}

impl Report {
    /// Prints a row for the clients on hosts whose agent was away, and one for all others.
    pub fn print(&self, event: &str, away: &[&str]) {
        for (of, is_away) in [("the node itself", true), ("other nodes", false)] {
            let counts: Vec<&Counts> = self.of(away, is_away).collect();
            if counts.is_empty() {
                continue;
            }
            let sum = |number: fn(&Counts) -> usize| -> usize { counts.iter().map(|counts| number(counts)).sum() };
            println!(
                "| {event} | {of} | {} queries | {} wrong | {} lost | {} refused | {} stale | longest wait {} ms |",
                sum(|counts| counts.queries),
                sum(|counts| counts.wrong.len()),
                sum(|counts| counts.lost.len()),
                sum(|counts| counts.refused.len()),
                sum(|counts| counts.stale),
                counts.iter().map(|counts| counts.longest).max().unwrap_or_default().as_millis(),
            );
        }
    }

    /// Asserts that each answer was right, and that each query was answered, except those to agents that were away: no
    /// socket has their port meanwhile.
    #[track_caller]
    pub fn assert_right(&self, away: &[&str]) {
        let mut failures = Vec::new();
        for counts in &self.counts {
            let is_away = away.contains(&counts.host.as_str());
            let kinds = [
                ("wrong", &counts.wrong, false),
                ("lost", &counts.lost, is_away),
                ("refused", &counts.refused, is_away),
            ];
            for (kind, found, is_expected) in kinds {
                let shown = found.iter().filter(|_| !is_expected);
                failures
                    .extend(shown.map(|failure| format!("{} {:?} {kind}: {failure}", counts.host, counts.transport)));
            }
        }
        let shown = failures.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("\n");
        assert!(failures.is_empty(), "{} queries failed:\n{shown}", failures.len());
    }

    /// Returns the longest time until an answer.
    pub fn longest(&self) -> Duration {
        self.counts.iter().map(|counts| counts.longest).max().unwrap_or_default()
    }

    fn of<'a>(&'a self, away: &'a [&str], is_away: bool) -> impl Iterator<Item = &'a Counts> {
        self.counts.iter().filter(move |counts| away.contains(&counts.host.as_str()) == is_away)
    }
}
