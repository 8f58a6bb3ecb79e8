//! Linearizable reads and writes through all nodes, while nodes stop, stall, are cut off and lose their disks.
//!
//! `MUSTER_STORE_OPERATIONS` sets the number of operations, `MUSTER_STORE_QUIET` the longest time between two faults in
//! milliseconds, and `MUSTER_STORE_SEED` the schedule of faults of an earlier run.

use std::{collections::BTreeMap, env, time::Duration};

use tokio::time::{sleep, timeout};

use super::{
    cluster::{Cluster, Link, SOON},
    id_of,
    workload::{Stores, Workload},
};
use crate::store::request::Status;

/// Operations unless the environment sets them.
const OPERATIONS: u64 = 6000;
/// Longest time between two faults in milliseconds, unless the environment sets it.
const QUIET: u64 = 2500;

/// A fault, until the cluster is healed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    /// A node stops and starts again. A leader hands over.
    Stop,
    /// A node crashes and starts again.
    Kill,
    /// A node neither hears nor is heard: octets are lost.
    Silence,
    /// Connections with a node are closed and refused.
    Close,
    /// A node sends to no other, or to one only; it hears all.
    Mute(Link),
    /// A node is stopped as by SIGSTOP for a while: messages arrive late.
    Stall,
    /// All voters are cut off from each other.
    Shatter,
    /// A node comes back without its disk.
    Wipe,
}

const FAULTS: [Fault; 9] = [
    Fault::Stop,
    Fault::Kill,
    Fault::Silence,
    Fault::Close,
    Fault::Mute(Link::Silent),
    Fault::Mute(Link::Closed),
    Fault::Stall,
    Fault::Shatter,
    Fault::Wipe,
];

fn from_environment(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap())
}

/// The stores of the nodes that run.
fn publish(cluster: &Cluster, stores: &Stores) {
    let running = cluster.running.iter().map(|(name, running)| (name.clone(), running.store.clone()));
    *stores.lock().unwrap() = running.collect();
}

async fn stop(cluster: &mut Cluster, stores: &Stores, name: &str) {
    stores.lock().unwrap().remove(name);
    cluster.stop(name).await;
}

async fn kill(cluster: &mut Cluster, stores: &Stores, name: &str) {
    stores.lock().unwrap().remove(name);
    cluster.kill(name).await;
}

async fn run(cluster: &mut Cluster, stores: &Stores, name: &str) {
    cluster.run(name).await;
    publish(cluster, stores);
}

/// Brings a fault about, lets it last, and ends it.
async fn bring_about(fault: Fault, victim: &str, cluster: &mut Cluster, stores: &Stores, random: &mut fastrand::Rng) {
    let others: Vec<String> = cluster.names().iter().filter(|name| **name != *victim).cloned().collect();
    let lasting = Duration::from_millis(random.u64(500..4000));
    match fault {
        Fault::Stop => stop(cluster, stores, victim).await,
        Fault::Kill => kill(cluster, stores, victim).await,
        Fault::Silence => cluster.set_links(victim, Link::Silent),
        Fault::Close => cluster.set_links(victim, Link::Closed),
        Fault::Stall => cluster.set_links(victim, Link::Stalled),
        Fault::Mute(link) if random.bool() => others.iter().for_each(|other| cluster.set_link(victim, other, link)),
        Fault::Mute(link) => cluster.set_link(victim, &others[random.usize(..others.len())], link),
        Fault::Shatter => ["a", "b", "c"].iter().for_each(|name| cluster.set_links(name, Link::Silent)),
        Fault::Wipe => {
            let status = cluster.wait_for("the voters", |status| id_of(status, victim).is_some()).await;
            let former = id_of(&status, victim);
            kill(cluster, stores, victim).await;
            cluster.wipe(victim);
            run(cluster, stores, victim).await;
            let is_replaced =
                |status: &Status| status.members.len() == 3 && ![None, former].contains(&id_of(status, victim));
            cluster.wait_for("a new id", is_replaced).await;
        }
    }
    sleep(lasting).await;
    cluster.heal();
    if matches!(fault, Fault::Stop | Fault::Kill) {
        run(cluster, stores, victim).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_all_nodes_see_one_order_under_faults() {
    let operations = from_environment("MUSTER_STORE_OPERATIONS").unwrap_or(OPERATIONS);
    let seed = from_environment("MUSTER_STORE_SEED").unwrap_or_else(|| fastrand::u64(..));
    let quiet = from_environment("MUSTER_STORE_QUIET").unwrap_or(QUIET);
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut cluster = Cluster::start(3, 2).await;
    cluster.leader().await;
    let stores = Stores::default();
    publish(&cluster, &stores);
    let workload = Workload::new(operations);
    let nodes = cluster.names().to_vec();
    let clients = tokio::spawn({
        let (workload, stores) = (workload.clone(), stores.clone());
        async move { workload.run(&nodes, stores, seed).await }
    });
    let mut faults = BTreeMap::<Fault, u32>::new();
    while !workload.is_over() {
        sleep(Duration::from_millis(random.u64(300..quiet.max(301)))).await;
        let leader = cluster.leader().await;
        let victim = if random.bool() { leader } else { ["a", "b", "c"][random.usize(..3)].to_owned() };
        let fault = FAULTS[random.usize(..FAULTS.len())];
        bring_about(fault, &victim, &mut cluster, &stores, &mut random).await;
        *faults.entry(fault).or_default() += 1;
        eprintln!("{fault:?} of {victim}: {} operations", workload.count());
    }
    timeout(SOON, clients).await.unwrap_or_else(|_| panic!("seed {seed}: clients do not end")).unwrap();
    let counts = workload.check(seed);
    eprintln!("{counts:?} {faults:?}");
}
