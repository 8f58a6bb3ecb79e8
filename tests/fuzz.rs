//! The fuzz targets of `fuzz/` on stable Rust: every seed, then a bounded number of mutations of the seeds.
//!
//! The same bodies run under `cargo fuzz`, which uses coverage feedback and finds more in an hour; this run finds the easy
//! faults in seconds. The generator's seed is fixed, so failures are reproducible, and the failing input is printed.
//! `MUSTER_FUZZ_ROUNDS` sets another number of mutations.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]
#![allow(unreachable_pub, reason = "the targets are a library to cargo-fuzz")]

#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::{
    fmt::Write,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use fastrand::Rng;

/// Number of mutations per target: a few seconds without optimization.
const ROUNDS: usize = 50_000;
/// Maximum changes of one seed: with many, the input no longer resembles the seed.
const CHANGES: usize = 6;
/// Maximum octets of an input: longer repetitions find no new faults.
const MAX_INPUT: usize = 8192;

#[test]
fn anti_entropy() {
    fuzz("anti_entropy", targets::anti_entropy::run);
}

#[test]
fn consul_requests() {
    fuzz("consul", targets::consul::run);
}

#[test]
fn frames_of_dnstap() {
    fuzz("dnstap", targets::dnstap::run);
}

#[test]
fn etcd_requests() {
    fuzz("etcd", targets::etcd::run);
}

#[test]
fn gossip() {
    fuzz("gossip", targets::gossip::run);
}

#[test]
fn imports() {
    fuzz("import", targets::import::run);
}

#[test]
fn packets() {
    fuzz("packet", targets::packet::run);
}

#[test]
fn replies() {
    fuzz("reply", targets::reply::run);
}

#[test]
fn saved_states() {
    fuzz("saved_state", targets::saved_state::run);
}

#[test]
fn service_files() {
    fuzz("service_file", targets::service_file::run);
}

#[test]
fn store_messages_and_snapshots() {
    fuzz("store", targets::store::run);
}

#[test]
fn updates() {
    fuzz("update", targets::update::run);
}

#[test]
fn transfers_of_primaries() {
    fuzz("transfer", targets::transfer::run);
}

#[test]
fn zone_files() {
    fuzz("zone_file", targets::zone_file::run);
}

fn fuzz(target: &str, run: fn(&[u8])) {
    let seeds = seeds(target);
    assert!(seeds.len() > 5, "no seeds for {target}");
    for seed in &seeds {
        run_target(target, run, seed);
    }
    let rounds = std::env::var("MUSTER_FUZZ_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    let mut rng = Rng::with_seed(1);
    for _ in 0..rounds {
        run_target(target, run, &mutated(&seeds, &mut rng));
    }
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    // The order of a folder differs between machines.
    files.sort();
    files.into_iter().map(|file| fs::read(file).unwrap()).collect()
}

fn run_target(target: &str, run: fn(&[u8]), input: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| run(input))).is_err() {
        let hex = input.iter().fold(String::new(), |mut hex, octet| {
            write!(hex, "{octet:02x}").unwrap();
            hex
        });
        panic!("target `{target}` failed, see above; add the input to fuzz/seeds after the fix: {hex}");
    }
}

/// A seed with some changes, or a few random octets.
fn mutated(seeds: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    if rng.bool() {
        return (0..rng.usize(0..16)).map(|_| rng.u8(..)).collect();
    }
    let mut input = rng.choice(seeds).unwrap().clone();
    for _ in 0..rng.usize(1..=CHANGES) {
        change(&mut input, seeds, rng);
    }
    input.truncate(MAX_INPUT);
    input
}

fn change(input: &mut Vec<u8>, seeds: &[Vec<u8>], rng: &mut Rng) {
    let at = rng.usize(0..=input.len());
    let part = at..rng.usize(at..=input.len().min(at + 64));
    match rng.u8(0..8) {
        0 => set(input, at, |octet| octet ^ 1 << rng.u8(0..8)),
        1 => set(input, at, |_| rng.u8(..)),
        2 => set(input, at, |octet| {
            *rng.choice(&[0, 1, 0x3f, 0x40, 0x7f, 0x80, 0xc0, 0xff, octet.wrapping_add(1)]).unwrap_or(&octet)
        }),
        3 => drop(input.drain(part)),
        4 => {
            let copy = input[part].to_vec();
            input.splice(at..at, copy);
        }
        5 => {
            let octets: Vec<u8> = (0..rng.usize(1..8)).map(|_| rng.u8(..)).collect();
            input.splice(at..at, octets);
        }
        6 => {
            // Replaces the part with a part of another seed.
            let other = rng.choice(seeds).unwrap();
            let from = rng.usize(0..=other.len());
            let to = rng.usize(from..=other.len());
            input.splice(part, other[from..to].iter().copied());
        }
        _ => input.truncate(at),
    }
}

fn set(input: &mut [u8], at: usize, change: impl FnOnce(u8) -> u8) {
    if let Some(octet) = input.get_mut(at) {
        *octet = change(*octet);
    }
}
