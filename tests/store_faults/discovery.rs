//! DNS answers while no voter runs: none is missing, and they take as long as before.

use std::{
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use crate::{
    clients::{Ending, Workload},
    scene::{HOSTS, Scene, VOTERS},
    support::{cluster::SERVICE, namespaces::join, skip},
};

/// Queries of one measurement.
const QUERIES: usize = 400;
/// Clients of the store on each host that forwards.
const CLIENTS: u64 = 8;
/// Largest ratio of medians. The measured one is about 1; other tests run at the same time.
const MAX_RATIO: f64 = 3.0;
/// Measurements of one state; the best one counts.
const ATTEMPTS: usize = 3;

/// Median time of an answer on the hosts that forward. Each answer has the instances of these hosts.
fn median(scene: &Scene) -> Duration {
    let forwarders = &scene.cluster.hosts[VOTERS..];
    let mut times = Vec::new();
    for number in 0..QUERIES {
        let began = Instant::now();
        let found = forwarders[number % forwarders.len()].instances(SERVICE);
        times.push(began.elapsed());
        assert!(forwarders.iter().all(|host| found.contains(&host.instance())), "{found:?}");
    }
    times.sort_unstable();
    times[QUERIES / 2]
}

fn best(scene: &Scene) -> Duration {
    (0..ATTEMPTS).map(|_| median(scene)).min().unwrap()
}

#[test]
fn answers_are_as_fast_without_voters() {
    if !skip::machines("DNS without voters") {
        return;
    }
    let scene = &Scene::start();
    let workload = &Workload::new();
    thread::scope(|scope| {
        let _ending = Ending(workload);
        for at in VOTERS..HOSTS {
            let network = scene.host(at).namespace.name();
            for number in 0..CLIENTS {
                scope.spawn(move || {
                    join(network);
                    workload.run_client(fastrand::Rng::with_seed(number));
                });
            }
        }
        let before = best(scene);
        let (mut ratios, mut completed) = (Vec::new(), Vec::new());
        for signal in [Signal::SIGSTOP, Signal::SIGKILL] {
            (0..VOTERS).for_each(|at| scene.signal(at, signal));
            completed.push(workload.completed());
            ratios.push(best(scene).as_secs_f64() / before.as_secs_f64());
            completed.push(workload.completed());
        }
        println!("{before:?} with voters; ratios while they are stopped and after they were killed: {ratios:?}");
        assert!(ratios.iter().all(|ratio| *ratio < MAX_RATIO), "{ratios:?}");
        assert!(completed[0] > 0 && completed[1] <= completed[0] + 2 * CLIENTS, "{completed:?}");
        assert_eq!(completed[2], completed[3], "the store does not answer without voters");
    });
}
