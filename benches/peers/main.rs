//! Comparison of muster with other name servers in one run on one machine: `cargo bench --bench peers`.
//!
//! `-- --names 10000` compares forwarding instead, with all names of an upstream cached.
//!
//! All servers have the same services: muster as service files; `nsd`, `knotd` and `unbound`, if installed, as a zone. The
//! servers share one core, the load generator has another. They are queried in turn, round after round, so that other load
//! affects all alike: compare columns of one run, never figures of two. `docs/performance.md` explains the figures.
//!
//! `-- --services 1000,33333 --rounds 5 --seconds 3 --servers muster,nsd,knot,unbound` are the defaults;
//! `--binary PATH` adds another build of muster as `other`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark that cannot continue ends")]

mod load;
mod server;
mod table;
mod upstream;
mod world;

use std::{path::PathBuf, process::Command, time::Duration};

use server::{Kind, Server};
use world::World;

/// Queries of a burst after a pause. A resolver that recovers from an outage, or a host whose clients start together, sends
/// no more.
const BURST: usize = 5_000;
/// Queries per second of the latency measurement, which each server handles without a queue.
const PACE: u64 = 20_000;

struct Options {
    services: Vec<usize>,
    /// Number of names to forward; `None` to measure zones.
    names: Option<usize>,
    rounds: usize,
    span: Duration,
    kinds: Vec<Kind>,
}

/// Measurements of one server.
#[derive(Default)]
pub(crate) struct Seen {
    /// CPU time per answer in µs, by round.
    pub(crate) cpu: Vec<f64>,
    /// Answers per second, by round.
    pub(crate) rate: Vec<f64>,
    /// Unanswered queries under full load, and their total number.
    pub(crate) lost: (u64, u64),
    /// Unanswered queries of bursts, by round.
    pub(crate) burst: Vec<usize>,
    /// Latencies of all rounds in µs.
    pub(crate) times: Vec<f32>,
    /// Proportional set size of all processes in MB.
    pub(crate) memory: f64,
}

fn main() {
    let options = options();
    load::stay_on_its_core();
    let worlds: Vec<World> = match options.names {
        Some(names) => vec![World::forwarded(names, upstream::start())],
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
            // The first server rotates between rounds.
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
            _ => panic!("unknown option {key}"),
        }
    }
    assert!(is_there("dnsperf"), "dnsperf is missing: install the package dnsperf");
    let usual = if options.names.is_some() { "muster,unbound,dnsmasq" } else { "muster,nsd,knot,unbound" };
    for name in names.as_deref().unwrap_or(usual).split(',') {
        let kind = Kind::parse(name).unwrap_or_else(|| panic!("unknown server {name}"));
        if is_there(kind.program()) {
            options.kinds.push(kind);
        } else {
            eprintln!("{} is not installed; skipped", kind.program());
        }
    }
    options.kinds.extend(other.map(Kind::Other));
    options
}

fn is_there(program: &str) -> bool {
    program.contains('/') || Command::new("which").arg(program).output().is_ok_and(|output| output.status.success())
}
