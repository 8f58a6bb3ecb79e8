//! Bulk transfers of state: to a node that joins a cluster with much state, and what happens if one fails.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use muster::gossip::message::Message;

use crate::script::{Cluster, ms};

const OLD: &[&str] = &["a", "b"];
/// Services of each node, each with two keys and this many octets of metadata that do not compress.
const SERVICES: usize = 5000;
const META: usize = 40;
/// Octets of a gossip message with the digest of a few nodes and no changes, at most.
const DIGEST: usize = 1024;

/// Two nodes with much state.
async fn large() -> Cluster {
    let mut cluster = Cluster::of(&["a", "b", "c"]);
    for host in OLD {
        cluster.announce_many(host, SERVICES, META);
        cluster.start(host, &OLD[..1]).await;
    }
    learned(&cluster, OLD).await;
    cluster
}

/// Waits until these nodes know all instances of each other and of the first two nodes.
async fn learned(cluster: &Cluster, at: &[&str]) {
    let known = |cluster: &Cluster, at: &str| -> usize {
        cluster.members(at).members.iter().map(|member| member.instances).sum()
    };
    let expected = OLD.len() * SERVICES + at.len();
    cluster
        .until(ms(30_000), "all instances are known", |cluster| at.iter().all(|at| known(cluster, at) == expected))
        .await;
}

#[tokio::test(start_paused = true)]
async fn joining_node_learns_much_state_by_bulk_transfer() {
    static PARTS: AtomicUsize = AtomicUsize::new(0);
    static COMPLETE: AtomicUsize = AtomicUsize::new(0);
    let mut cluster = large().await;
    cluster.network.lose(Some(|message| {
        if let Message::BulkPart { last, .. } = message {
            PARTS.fetch_add(1, Ordering::Relaxed);
            COMPLETE.fetch_add(usize::from(*last), Ordering::Relaxed);
        }
        false
    }));
    cluster.start("c", &["a"]).await;
    learned(&cluster, &["a", "b", "c"]).await;
    assert!(PARTS.load(Ordering::Relaxed) > 3);
    assert_eq!(COMPLETE.load(Ordering::Relaxed), 1);
    // Later changes arrive as before.
    cluster.flip("b", false);
    cluster.settles(ms(2000)).await;
    cluster.withdraw("b", "bulk7", "b-7");
    cluster.until(ms(5000), "the withdrawn instance is gone", |cluster| cluster.answer("c", "bulk7") == "a-7").await;
}

#[tokio::test(start_paused = true)]
async fn gossip_completes_a_bulk_transfer_that_is_cut() {
    static PARTS: AtomicUsize = AtomicUsize::new(0);
    let mut cluster = large().await;
    // Each transfer ends within its second part.
    cluster.network.lose(Some(|message| match message {
        Message::BulkPart { part, .. } => PARTS.fetch_add(1, Ordering::Relaxed) < usize::MAX && *part > 0,
        _ => false,
    }));
    cluster.start("c", &["a"]).await;
    learned(&cluster, &["a", "b", "c"]).await;
    assert!(PARTS.load(Ordering::Relaxed) > 1);
    cluster.settles(ms(2000)).await;
}

#[tokio::test(start_paused = true)]
async fn gossip_delivers_all_if_bulk_transfers_are_refused() {
    static REQUESTS: AtomicUsize = AtomicUsize::new(0);
    let mut cluster = large().await;
    // As with a peer of an older version, a request has no answer.
    cluster.network.lose(Some(|message| match message {
        Message::BulkRequest { .. } => REQUESTS.fetch_add(1, Ordering::Relaxed) < usize::MAX,
        _ => false,
    }));
    cluster.start("c", &["a"]).await;
    learned(&cluster, &["a", "b", "c"]).await;
    assert!(REQUESTS.load(Ordering::Relaxed) > 0);
    cluster.settles(ms(2000)).await;
}

#[tokio::test(start_paused = true)]
async fn refused_node_requests_another_transfer() {
    static REQUESTS: AtomicUsize = AtomicUsize::new(0);
    static REFUSED: AtomicU64 = AtomicU64::new(0);
    static COMPLETE: AtomicUsize = AtomicUsize::new(0);
    let mut cluster = large().await;
    // The test answers the first request. Until the second one, gossip delivers digests only.
    cluster.network.lose(Some(|message| match message {
        Message::BulkRequest { transfer, .. } if REQUESTS.fetch_add(1, Ordering::Relaxed) == 0 => {
            REFUSED.store(*transfer, Ordering::Relaxed);
            true
        }
        Message::BulkPart { last, .. } => {
            COMPLETE.fetch_add(usize::from(*last), Ordering::Relaxed);
            false
        }
        Message::Gossip(octets) => octets.len() > DIGEST && REQUESTS.load(Ordering::Relaxed) < 2,
        _ => false,
    }));
    cluster.start("c", &["a"]).await;
    cluster.until(ms(5000), "a request", |_| REQUESTS.load(Ordering::Relaxed) > 0).await;
    let refusal = Message::BulkBusy { transfer: REFUSED.load(Ordering::Relaxed) };
    for peer in OLD {
        cluster.network.forge(&cluster.identity(peer), cluster.address("c"), &refusal).await;
    }
    learned(&cluster, &["a", "b", "c"]).await;
    assert_eq!(REQUESTS.load(Ordering::Relaxed), 2);
    assert_eq!(COMPLETE.load(Ordering::Relaxed), 1);
}
