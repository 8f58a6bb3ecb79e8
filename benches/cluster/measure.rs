//! Phases of the measurement of a cluster of processes.

use std::{
    fmt,
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, sleep},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use super::{
    Options,
    cluster::{Cluster, DEADLINE, Look, Program},
    sandbox::{self, Loss},
    times::Times,
};

/// Idle time before each disturbance.
const REST: Duration = Duration::from_millis(1500);
/// Duration of a stall: shorter than any failure timeout, longer than any retransmission timeout.
const STALL: Duration = Duration::from_secs(2);
/// Minimum time between flips.
const BETWEEN_FLIPS: Duration = Duration::from_millis(100);
/// Number of nodes that own the flipped instance, in turn.
const OWNERS: usize = 4;

/// Figures of one cluster.
#[derive(Default)]
pub(crate) struct Figures {
    cold: Times,
    join: Times,
    flip: Times,
    flip_whole: Times,
    crash: Times,
    power: Times,
    stalls: False,
    /// False detections of nodes other than the crashed one.
    crashes: False,
    loss: False,
    loss_crash: Times,
    /// Percent of a core per node.
    cpu: f64,
    /// Octets per second and node: over UDP, over TCP.
    octets: (f64, f64),
    /// Memory per node in KB: private, shared.
    memory: (u64, u64),
}

/// False detections.
#[derive(Default)]
struct False {
    /// False detections in logs.
    logged: usize,
    /// DNS answers that lacked an instance.
    answers: usize,
    of: usize,
}

/// Runs all phases.
pub(crate) fn run(program: Program, nodes: usize, options: &Options) -> Figures {
    let mut rng = fastrand::Rng::with_seed(nodes as u64);
    let mut cluster = Cluster::new(program, options.binary(program), nodes);
    let mut figures = Figures::default();
    let say = |what: &str, times: &Times| eprintln!("raw: {program:?} {nodes} {what}: {times:?}");

    let start = Instant::now();
    cluster.start_all();
    figures.cold.take(cluster.converge(start));
    say("cold start", &figures.cold);
    sleep(2 * REST);
    cost(&mut cluster, options, &mut figures);
    let (udp, tcp) = figures.octets;
    eprintln!("raw: {program:?} {nodes} cost: {:.2} % {udp:.0}+{tcp:.0} B/s {:?} KB", figures.cpu, figures.memory);

    for _ in 0..options.joins {
        figures.join.take(join(&mut cluster));
    }
    say("join", &figures.join);
    if program == Program::Muster {
        flips(&mut cluster, options, &mut figures);
        say("flip, from the owner", &figures.flip);
        say("flip, whole", &figures.flip_whole);
    }
    stalls(&mut cluster, options, &mut rng, &mut figures.stalls);
    cluster.removals(&[]);
    let crashes = if program == Program::Muster { options.crashes } else { options.serf_crashes };
    for _ in 0..crashes {
        let victim = rng.usize(1..nodes);
        figures.crash.take(crash(&mut cluster, victim, Crash::Agent));
        figures.crashes.logged += cluster.removals(&[victim]);
    }
    say("crash", &figures.crash);
    for _ in 0..crashes.div_ceil(2) {
        let victim = rng.usize(1..nodes);
        figures.power.take(crash(&mut cluster, victim, Crash::Host));
        figures.crashes.logged += cluster.removals(&[victim]);
    }
    say("power cut", &figures.power);
    if options.loss > Duration::ZERO {
        loss(&mut cluster, options, crashes.div_ceil(2), &mut rng, &mut figures);
        say("crash under loss", &figures.loss_crash);
    }
    figures
}

/// Measures the cost of an idle cluster.
fn cost(cluster: &mut Cluster, options: &Options, figures: &mut Figures) {
    let cpu = |cluster: &mut Cluster| cluster.processes().map(|process| process.cpu()).sum::<Duration>();
    let (octets, before, start) = (sandbox::octets(), cpu(cluster), Instant::now());
    sleep(options.idle);
    let (after, used, took) = (sandbox::octets(), cpu(cluster) - before, start.elapsed().as_secs_f64());
    let nodes = cluster.len() as f64;
    figures.cpu = used.as_secs_f64() / took / nodes * 100.0;
    let rate = |before: u64, after: u64| (after - before) as f64 / took / nodes;
    figures.octets = (rate(octets.0, after.0), rate(octets.1, after.1));
    let memory: Vec<(u64, u64)> = cluster.processes().map(|process| process.memory()).collect();
    let of = |part: fn(&(u64, u64)) -> u64| memory.iter().map(part).sum::<u64>() / memory.len() as u64;
    figures.memory = (of(|memory| memory.0), of(|memory| memory.1));
}

/// Measures a join: a node leaves and returns as new; from its start until all know it and it knows all.
fn join(cluster: &mut Cluster) -> Option<Duration> {
    let last = cluster.len() - 1;
    cluster.end(last, Signal::SIGINT);
    let (others, pause) = (cluster.others(last), cluster.pause());
    cluster.wait(&others, Look::One(last), 0, pause);
    cluster.prepare(last);
    sleep(REST);
    let start = Instant::now();
    cluster.start(last);
    cluster.converge(start)
}

/// Measures a change of health: until the owner's DNS shows it, and from then until that of all nodes does.
fn flips(cluster: &mut Cluster, options: &Options, figures: &mut Figures) {
    let pause = Duration::from_millis(1);
    let owners = OWNERS.min(cluster.len());
    for turn in 0..owners {
        let owner = turn * cluster.len() / owners;
        let others = cluster.others(owner);
        let mut application = Application::start();
        let port = application.port;
        let check = format!("{{tcp: \"127.0.0.1:{port}\", interval: 100ms, timeout: 100ms, rise: 1, fall: 1}}");
        let service = format!("service: flip\nport: {port}\nchecks: [{check}]\n");
        cluster.write_service(owner, "flip.yaml", Some(&service));
        cluster.wait(&[owner], Look::Flip, 1, pause);
        cluster.wait(&others, Look::Flip, 1, pause);
        for flip in 0..options.flips.div_ceil(owners) {
            sleep(BETWEEN_FLIPS);
            let up = flip % 2 == 1;
            let start = Instant::now();
            application.set(up);
            let shown = cluster.wait(&[owner], Look::Flip, usize::from(up), pause);
            let all = cluster.wait(&others, Look::Flip, usize::from(up), pause);
            figures.flip.take(all.zip(shown).map(|(all, shown)| all.saturating_duration_since(shown)));
            figures.flip_whole.take(all.map(|all| all - start));
        }
        cluster.write_service(owner, "flip.yaml", None);
    }
}

/// Checked service: accepts connections, or has closed its port.
struct Application {
    port: u16,
    /// Ends the listener.
    running: Option<(Arc<AtomicBool>, thread::JoinHandle<()>)>,
}

impl Application {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut application = Self { port, running: None };
        application.accept(listener);
        application
    }

    fn accept(&mut self, listener: TcpListener) {
        let ended = Arc::new(AtomicBool::new(false));
        let watched = ended.clone();
        let accepting = thread::spawn(move || {
            for _stream in listener.incoming() {
                if watched.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        self.running = Some((ended, accepting));
    }

    fn set(&mut self, up: bool) {
        if up {
            self.accept(TcpListener::bind(("127.0.0.1", self.port)).unwrap());
        } else if let Some((ended, accepting)) = self.running.take() {
            ended.store(true, Ordering::Relaxed);
            let _ = std::net::TcpStream::connect(("127.0.0.1", self.port));
            accepting.join().unwrap();
        }
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        self.set(false);
    }
}

/// Stalls nodes for a while: none may be detected as gone.
fn stalls(cluster: &mut Cluster, options: &Options, rng: &mut fastrand::Rng, found: &mut False) {
    cluster.removals(&[]);
    for _ in 0..options.stalls {
        sleep(REST);
        let victim = rng.usize(1..cluster.len());
        let others = cluster.others(victim);
        cluster.signal(victim, Signal::SIGSTOP);
        watch(cluster, &others, STALL, found);
        cluster.signal(victim, Signal::SIGCONT);
        let all: Vec<usize> = (0..cluster.len()).collect();
        watch(cluster, &all, REST, found);
        found.logged += cluster.removals(&[]);
        found.of += 1;
    }
    eprintln!("raw: stalls of {STALL:?}: {found}");
}

/// Counts answers that lack an instance.
fn watch(cluster: &mut Cluster, at: &[usize], time: Duration, found: &mut False) {
    let start = Instant::now();
    while start.elapsed() < time {
        let all = cluster.len();
        found.answers += cluster.look(at, Look::All).iter().filter(|(_, seen)| *seen < all).count();
        sleep(Duration::from_millis(100));
    }
}

/// Kind of failure.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Crash {
    /// Process crash: the host rejects packets to its ports.
    Agent,
    /// Host crash: the address no longer responds.
    Host,
}

/// Measures a crash: until no survivor answers the node. Then restarts it and waits until the cluster has converged.
fn crash(cluster: &mut Cluster, victim: usize, crash: Crash) -> Option<Duration> {
    sleep(REST);
    let (others, pause) = (cluster.others(victim), cluster.pause());
    if crash == Crash::Host {
        sandbox::cut(cluster.address(victim));
    }
    let start = Instant::now();
    cluster.end(victim, Signal::SIGKILL);
    let gone = cluster.wait(&others, Look::One(victim), 0, pause);
    if crash == Crash::Host {
        sandbox::mend(cluster.address(victim));
    }
    cluster.start(victim);
    cluster.converge(Instant::now());
    gone.map(|gone| gone - start)
}

/// Measures packet loss: no node may be detected as gone, and crashes must be detected.
fn loss(cluster: &mut Cluster, options: &Options, crashes: usize, rng: &mut fastrand::Rng, figures: &mut Figures) {
    sleep(REST);
    let loss = Loss::begin(options.percent);
    let all: Vec<usize> = (0..cluster.len()).collect();
    watch(cluster, &all, options.loss, &mut figures.loss);
    figures.loss.logged += cluster.removals(&[]);
    eprintln!("raw: {} % loss for {:?}: {}", options.percent, options.loss, figures.loss);
    for _ in 0..crashes {
        let victim = rng.usize(1..cluster.len());
        figures.loss_crash.take(crash(cluster, victim, Crash::Agent));
        figures.loss.logged += cluster.removals(&[victim]);
    }
    drop(loss);
    // A cluster that has not converged spoils no figure, but is reported.
    if cluster.converge(Instant::now()).is_none() {
        eprintln!("raw: not converged {DEADLINE:?} after the end of the loss");
    }
}

impl Figures {
    /// Head of the table whose rows [`Display`](fmt::Display) writes.
    pub(crate) const HEAD: &str = "\
| nodes | cold start | one joins | flip p50 / p99 / max | with its check p50 / p99 | crash p50 / max | power cut p50 / max | \
false, stalls | false, crashes | false, loss | crash under loss p50 / max | CPU a node | sent a node: UDP + TCP | memory a node: own + shared |\n\
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |";
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cold, join, flip, flip_whole, crash, power, stalls, crashes, loss, loss_crash, cpu, .. } = self;
        write!(f, "| {} | {} | ", cold.show(&[1.0]), join.show(&[0.5]))?;
        write!(f, "{} | {} | ", flip.show(&[0.5, 0.99, 1.0]), flip_whole.show(&[0.5, 0.99]))?;
        write!(f, "{} | {} | ", crash.show(&[0.5, 1.0]), power.show(&[0.5, 1.0]))?;
        write!(f, "{stalls} | {crashes} | ")?;
        write!(f, "{loss} | {} | {cpu:.2} % | ", loss_crash.show(&[0.5, 1.0]))?;
        let (udp, tcp) = self.octets;
        let (own, shared) = self.memory;
        write!(f, "{:.1} + {:.1} kB/s | ", udp / 1e3, tcp / 1e3)?;
        write!(f, "{:.1} + {:.1} MB |", own as f64 / 1024.0, shared as f64 / 1024.0)
    }
}

impl fmt::Display for False {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.logged)?;
        if self.answers > 0 {
            write!(f, " ({} answers)", self.answers)?;
        }
        if self.of > 0 { write!(f, " of {}", self.of) } else { Ok(()) }
    }
}
