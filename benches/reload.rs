//! Time from a write to a service file to the changed DNS answer: `cargo bench --bench reload`.
//!
//! Prints the median, 99th percentile and maximum of 200 changes for each way to change a file, in folders of 10 and 1,000
//! files; and the time until a thousand files that are rewritten together are all answered.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot continue ends")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    fs,
    time::{Duration, Instant},
};

use support::agent::Agent;

const SRV: u16 = 33;
const EDITS: u16 = 200;

fn main() {
    println!("{:28} {:>6} {:>9} {:>9} {:>9}", "change", "files", "median", "p99", "max");
    for others in [10, 1000] {
        let agent = Agent::start();
        for number in 0..others {
            agent.write_service(&format!("other-{number}.yaml"), &format!("service: other-{number}\nport: 1\n"));
        }
        until(&agent, &format!("other-{}", others - 1), 1);
        let path = agent.path("services.d/web.yaml");
        let beside = agent.path("services.d/.web.yaml.new");
        let text = |port: u16| format!("service: web\nport: {port}\n");
        print("write in place", others, &agent, |port| fs::write(&path, text(port)).unwrap());
        print("write beside and rename over", others, &agent, |port| {
            fs::write(&beside, text(port)).unwrap();
            fs::rename(&beside, &path).unwrap();
        });
        print("delete and create", others, &agent, |port| {
            fs::remove_file(&path).unwrap();
            fs::write(&path, text(port)).unwrap();
        });
    }
    rewrite_all();
}

/// Waits until DNS answers the service with this port.
fn until(agent: &Agent, service: &str, port: u16) {
    let expected = format!("SRV 1 10 {port} {service}-host-a.{service}.service.local.");
    while agent.answers(&format!("{service}.service.local."), SRV) != [expected.clone()] {
        std::thread::sleep(Duration::from_micros(500));
    }
}

fn print(change: &str, files: u32, agent: &Agent, edit: impl Fn(u16)) {
    let mut times: Vec<Duration> = (1..=EDITS)
        .map(|port| {
            let start = Instant::now();
            edit(port);
            until(agent, "web", port);
            start.elapsed()
        })
        .collect();
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    println!("{change:28} {files:>6} {:>6.1} ms {:>6.1} ms {:>6.1} ms", at(0.5), at(0.99), at(1.0));
}

fn rewrite_all() {
    let agent = Agent::start();
    for port in [1, 2] {
        let start = Instant::now();
        for number in 0..1000 {
            agent.write_service(&format!("s{number}.yaml"), &format!("service: s{number}\nport: {port}\n"));
        }
        let written = start.elapsed();
        for number in (0..1000).rev() {
            until(&agent, &format!("s{number}"), port);
        }
        println!(
            "1,000 files written in {:.0} ms, all answered {:.0} ms after the last",
            written.as_secs_f64() * 1e3,
            (start.elapsed() - written).as_secs_f64() * 1e3
        );
    }
}
