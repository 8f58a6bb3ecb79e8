//! Linearizable reads and writes through all nodes under faults of processes, networks, clocks and disks.
//!
//! `MUSTER_STORE_OPERATIONS` sets the number of operations, `MUSTER_STORE_QUIET` the longest time between two faults in
//! milliseconds, and `MUSTER_STORE_SEED` the schedule of faults of an earlier run. `MUSTER_STORE_PROGRAM` is another binary, such as
//! an optimized one, for many operations:
//!
//! ```console
//! # MUSTER_STORE_OPERATIONS=100000 MUSTER_STORE_PROGRAM=target/release/muster cargo test --test store_faults order -- --nocapture
//! ```

use std::{collections::BTreeMap, env, thread, time::Duration};

use crate::{
    clients::{Ending, PREFIX, Workload, assert_linearizable, longest_without_write},
    scene::{HOSTS, Scene},
    schedule::Schedule,
    sessions::Keeper,
    support::{namespaces::join, skip, wait::until},
    watchers::{LAST, Watcher, assert_complete, assert_equal},
};

/// Operations unless the environment sets them.
const OPERATIONS: u64 = 8000;
/// Longest time between two faults in milliseconds, unless the environment sets it.
const QUIET: u64 = 4000;
/// Clients on each host.
const CLIENTS: u64 = 6;

fn from_environment(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap())
}

/// Ends the watchers and the keepers when it is dropped, also after a failure of the test.
struct EndingOthers<'a> {
    watchers: &'a [Watcher],
    keepers: &'a [Keeper],
}

impl Drop for EndingOthers<'_> {
    fn drop(&mut self) {
        self.watchers.iter().for_each(Watcher::end);
        self.keepers.iter().for_each(Keeper::end);
    }
}

#[test]
fn clients_of_all_nodes_see_one_order_under_faults() {
    if !skip::machines("the store under faults") {
        return;
    }
    let operations = from_environment("MUSTER_STORE_OPERATIONS").unwrap_or(OPERATIONS);
    let seed = from_environment("MUSTER_STORE_SEED").unwrap_or_else(|| fastrand::u64(..));
    let quiet = from_environment("MUSTER_STORE_QUIET").unwrap_or(QUIET);
    let context = format!("seed {seed}");
    eprintln!("{context}");
    let mut scene = Scene::start();
    let networks: Vec<String> = scene.cluster.hosts.iter().map(|host| host.namespace.name().to_owned()).collect();
    let workload = Workload::new();
    let watchers: Vec<Watcher> = (0..HOSTS).map(|_| Watcher::default()).collect();
    let keepers: Vec<Keeper> = (0..HOSTS).map(|_| Keeper::default()).collect();
    let mut faults = BTreeMap::<_, Vec<_>>::new();
    thread::scope(|scope| {
        let ending = Ending(&workload);
        let _others = EndingOthers { watchers: &watchers, keepers: &keepers };
        let mut clients = Vec::new();
        for (at, network) in networks.iter().enumerate() {
            let (watcher, keeper, workload) = (&watchers[at], &keepers[at], &workload);
            scope.spawn(move || {
                join(network);
                watcher.run();
            });
            scope.spawn(move || {
                join(network);
                keeper.run();
            });
            for number in 0..CLIENTS {
                let random = fastrand::Rng::with_seed(seed ^ (at as u64 * CLIENTS + number + 1) << 32);
                clients.push(scope.spawn(move || {
                    join(network);
                    workload.run_client(random);
                }));
            }
        }
        let mut schedule = Schedule::new(seed);
        while workload.completed() < operations {
            schedule.rest(quiet);
            let began = workload.now();
            let (fault, victim) = schedule.bring_about_next(&mut scene);
            let ended = workload.now();
            faults.entry(fault).or_default().push(began..ended);
            let (victim, took) = (&scene.host(victim).node, Duration::from_nanos(ended - began));
            eprintln!("{fault:?} of {victim}: over after {took:?}, {} operations", workload.completed());
        }
        drop(ending);
        clients.into_iter().for_each(|client| client.join().unwrap());
        // Behind all operations whose outcome is known.
        until("the last write", || {
            let written = scene.ask(0, "PUT", &format!("/v1/kv/{PREFIX}last"), &LAST.to_string());
            written.is_some_and(|answer| answer.body == "true")
        });
        until("all watchers see the last write", || watchers.iter().all(Watcher::has_seen_last));
    });
    let recorded = workload.finish();
    let known = recorded.iter().filter(|recorded| recorded.operation.returned.is_some()).count();
    let seen: Vec<_> = watchers.iter().map(Watcher::finish).collect();
    let renewals: u64 = keepers.iter().map(|keeper| keeper.finish(&context)).sum();
    eprintln!(
        "{known} operations, {} of unknown outcome, {} changes on {HOSTS} watches, {renewals} renewals",
        recorded.len() - known,
        seen[0].len(),
    );
    for (fault, periods) in &faults {
        let longest = periods.iter().map(|period| longest_without_write(&recorded, period)).max();
        eprintln!("{fault:?}: {} times, at most {:?} without a write", periods.len(), longest.unwrap_or_default());
    }
    assert_linearizable(&recorded, &context);
    assert_equal(&seen, &context);
    assert_complete(&seen[0], &recorded, &context);
    for host in &scene.cluster.hosts {
        assert!(!host.agent().log().contains("panicked"), "{context}: {} panicked", host.node);
    }
}
