//! Changes that anti-entropy alone delivers, after restarts that leave the states of dead runs behind.

use std::time::Duration;

use muster::gossip::message::Message;
use tokio::time::{Instant, sleep};

use crate::script::{Cluster, Handover, ms};

const ALL: &[&str] = &["a", "b", "c", "d", "e", "f", "g"];
/// Services of each node, each with this many octets of metadata that do not compress: the states of two runs fill a message.
const SERVICES: usize = 80;
const META: usize = 400;
/// Pause between the restarts of two nodes.
const PAUSE: Duration = Duration::from_secs(8);
/// Time after the restarts in which states of dead runs remain with some nodes: chitchat keeps each for three minutes.
const REMNANTS: Duration = Duration::from_secs(90);
/// Pause between two changes.
const BETWEEN: Duration = Duration::from_secs(1);
/// Longest time of a change from its node to the last of the others.
const LONGEST: Duration = Duration::from_secs(2);

/// Restarts one node after the other, as an upgrade of the hosts does.
async fn restart_all(cluster: &mut Cluster, announced: bool) {
    for name in ALL {
        let known = cluster.snapshot(name).await;
        if announced {
            cluster.announce_restart(name).await;
        }
        cluster.kill(name).await;
        cluster.start_from(name, Handover { known, ..Handover::default() });
        sleep(PAUSE).await;
    }
}

/// Publishes changes one after the other for this time, each on the next node; returns the times until all nodes answer them.
async fn changes(cluster: &Cluster, lasting: Duration) -> Vec<Duration> {
    let (start, mut took) = (Instant::now(), Vec::new());
    for (at, name) in ALL.iter().cycle().enumerate() {
        if start.elapsed() >= lasting {
            break;
        }
        cluster.flip(name, at / ALL.len() % 2 == 1);
        took.push(cluster.settles(ms(60_000)).await);
        sleep(BETWEEN).await;
    }
    took
}

/// A cluster whose nodes have much state.
async fn bulky() -> Cluster {
    let mut cluster = Cluster::of(ALL);
    for host in ALL {
        cluster.announce_many(host, SERVICES, META);
    }
    cluster.run_all(ALL).await;
    cluster
}

#[track_caller]
fn assert_all_within(longest: Duration, took: &[Duration]) {
    let slow: Vec<_> = took.iter().filter(|took| **took > longest).collect();
    println!("{} changes, the slowest {:?}", took.len(), took.iter().max());
    assert!(slow.is_empty(), "{} of {} changes took longer than {longest:?}: {slow:?}", slow.len(), took.len());
}

#[tokio::test(start_paused = true)]
async fn changes_do_not_wait_for_the_states_of_dead_runs() {
    let mut cluster = bulky().await;
    restart_all(&mut cluster, true).await;
    // Changes arrive by anti-entropy alone.
    cluster.network.lose(Some(|message| matches!(message, Message::Push(_))));
    assert_all_within(LONGEST, &changes(&cluster, REMNANTS).await);
}

#[tokio::test(start_paused = true)]
async fn changes_arrive_soon_despite_crashes_and_loss() {
    let mut cluster = bulky().await;
    cluster.network.lose_at(cluster.address("a"), 20);
    restart_all(&mut cluster, false).await;
    assert_all_within(LONGEST, &changes(&cluster, REMNANTS / 2).await);
}

#[tokio::test(start_paused = true)]
async fn views_agree_soon_after_partitions() {
    let mut cluster = bulky().await;
    let (these, those) = ALL.split_at(3);
    // Between half and the whole of the time that chitchat keeps a dead run, and longer.
    for (lasting, healthy) in [(100, false), (200, true)] {
        cluster.cut(these, those);
        sleep(Duration::from_secs(lasting / 2)).await;
        // One node of each side.
        for name in ["b", "e"] {
            let known = cluster.snapshot(name).await;
            cluster.kill(name).await;
            cluster.start_from(name, Handover { known, ..Handover::default() });
        }
        sleep(Duration::from_secs(lasting / 2)).await;
        for name in ["a", "d"] {
            cluster.flip(name, healthy);
        }
        sleep(ms(500)).await;
        cluster.network.heal();
        let took = cluster.settles(ms(20_000)).await;
        println!("the views agree {took:?} after a partition of {lasting} s");
        assert!(took <= Duration::from_secs(5), "{took:?} after {lasting} s");
        cluster.network.lose(Some(|message| matches!(message, Message::Push(_))));
        let mut took = Vec::new();
        for at in 0..12 {
            cluster.flip("c", at % 2 == 1);
            took.push(cluster.settles(ms(20_000)).await);
            sleep(BETWEEN).await;
        }
        assert_all_within(LONGEST, &took);
        cluster.network.lose(None);
    }
}
