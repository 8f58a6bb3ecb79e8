//! muster beside other name servers, on this machine and in one run: `cargo bench --bench peers`.
//!
//! `-- --names 10000` compares forwarding instead: names of an upstream that all have in their caches.
//!
//! The same services for each: as service files for muster, as a zone for those of `nsd`, `knotd` and `unbound` that are
//! installed. Servers share one core, the load has another. They are asked in turn, round after round, so that what else
//! the machine does falls on all alike: compare columns of one run, never figures of two. `docs/performance.md` says what
//! the figures mean.
//!
//! `-- --services 1000,33333 --rounds 5 --seconds 3 --servers muster,nsd,knot,unbound` are the defaults;
//! `--binary PATH` takes another muster along, as `other`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark that cannot go on ends")]

mod load;
mod server;
mod table;
mod upstream;
mod world;

use std::{path::PathBuf, process::Command, time::Duration};

use server::{Kind, Server};
use world::World;

/// Queries sent at once, after a pause. A resolver that comes back from an outage, or a host full of clients that start
/// together, sends no more.
const BURST: usize = 5_000;
/// Queries a second while latency is measured: what each server bears without a queue.
const PACE: u64 = 20_000;

struct Options {
    services: Vec<usize>,
    /// Names beyond our zones; `None`: zones are measured.
    names: Option<usize>,
    rounds: usize,
    span: Duration,
    kinds: Vec<Kind>,
}

/// What was seen of one server.
#[derive(Default)]
pub(crate) struct Seen {
    /// CPU of the server for each answer, in µs; one a round.
    pub(crate) cpu: Vec<f64>,
    /// Answers a second; one a round.
    pub(crate) rate: Vec<f64>,
    /// Queries without an answer while the load was full, and how many there were.
    pub(crate) lost: (u64, u64),
    /// Queries of bursts without an answer; one a round.
    pub(crate) burst: Vec<usize>,
    /// How long answers took, all rounds, in µs.
    pub(crate) times: Vec<f32>,
    /// Proportional set size of all its processes, in MB.
    pub(crate) memory: f64,
}

fn main() {
    let options = options();
    load::stay_on_its_core();
    let worlds: Vec<World> = match options.names {
        Some(names) => vec![World::beyond(names, upstream::start())],
        None => options.services.iter().map(|services| World::of_services(*services)).collect(),
    };
    for world in &worlds {
        let folder = tempfile::tempdir().unwrap();
        let servers: Vec<Server> = options.kinds.iter().map(|kind| kind.start(world, folder.path())).collect();
        let queries = folder.path().join("queries");
        std::fs::write(&queries, world.for_dnsperf()).unwrap();
        let asked = world.packets();
        for server in &servers {
            load::check(server.address, world);
        }
        let mut seen: Vec<Seen> = servers.iter().map(|_| Seen::default()).collect();
        for round in 0..options.rounds {
            // Each is the first in some rounds.
            for turn in 0..servers.len() {
                let at = (round + turn) % servers.len();
                measure(&servers[at], &queries, &asked, &options, &mut seen[at]);
            }
        }
        println!("\n{world}\n");
        table::print(servers.iter().map(|server| server.kind.to_string()).zip(&seen));
    }
}

fn measure(server: &Server, queries: &std::path::Path, asked: &[Vec<u8>], options: &Options, seen: &mut Seen) {
    seen.burst.push(load::burst(server.address, asked, BURST));
    let before = server.cpu();
    let load = load::full(server.address, queries, options.span);
    let cpu = server.cpu() - before;
    seen.cpu.push(cpu.as_secs_f64() * 1e6 / load.answered as f64);
    seen.rate.push(load.rate);
    seen.lost.0 += load.sent - load.answered;
    seen.lost.1 += load.sent;
    seen.times.extend(load::paced(server.address, asked, PACE, options.span));
    seen.memory = server.memory();
    eprintln!(
        "raw: {} {:.3} µs, {:.0}/s, {} lost",
        server.kind,
        seen.cpu.last().unwrap(),
        load.rate,
        load.sent - load.answered
    );
}

fn options() -> Options {
    let mut options =
        Options { services: vec![1_000, 33_333], names: None, rounds: 5, span: Duration::from_secs(3), kinds: vec![] };
    let mut names = None;
    let mut other = None;
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    for pair in arguments.chunks(2) {
        let [key, value] = pair else { panic!("{pair:?} has no value") };
        match key.as_str() {
            "--services" => options.services = value.split(',').map(|count| count.parse().unwrap()).collect(),
            "--rounds" => options.rounds = value.parse().unwrap(),
            "--seconds" => options.span = Duration::from_secs(value.parse().unwrap()),
            "--names" => options.names = Some(value.parse().unwrap()),
            "--servers" => names = Some(value.clone()),
            "--binary" => other = Some(PathBuf::from(value)),
            _ => panic!("what is {key}?"),
        }
    }
    assert!(is_there("dnsperf"), "dnsperf is missing: it is the Debian package of that name");
    let usual = if options.names.is_some() { "muster,unbound,dnsmasq" } else { "muster,nsd,knot,unbound" };
    for name in names.as_deref().unwrap_or(usual).split(',') {
        let kind = Kind::parse(name).unwrap_or_else(|| panic!("what is {name}?"));
        if is_there(kind.program()) {
            options.kinds.push(kind);
        } else {
            eprintln!("{} is not installed and left out", kind.program());
        }
    }
    options.kinds.extend(other.map(Kind::Other));
    options
}

fn is_there(program: &str) -> bool {
    program.contains('/') || Command::new("which").arg(program).output().is_ok_and(|output| output.status.success())
}
