//! Leaders that stop as planned.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use tokio::{task::JoinHandle, time::Instant};

use super::{
    cluster::{Cluster, Link},
    *,
};

/// Writes one key after the other until told to stop. Returns the number of writes and the longest time of one.
fn write_all_the_time(store: &Store, is_over: &Arc<AtomicBool>) -> JoinHandle<(u64, Duration)> {
    let (store, is_over) = (store.clone(), is_over.clone());
    tokio::spawn(async move {
        let (mut count, mut longest) = (0, Duration::ZERO);
        while !is_over.load(Relaxed) {
            let began = Instant::now();
            let value = Bytes::from(count.to_string());
            let operation = Operation::Set { key: key("counter"), value, flags: 0 };
            let outcome = store.write(Command::Operate(vec![operation])).await;
            assert!(outcome.is_ok_and(|outcome| outcome.result.is_ok()), "write {count} failed");
            longest = longest.max(began.elapsed());
            count += 1;
        }
        (count, longest)
    })
}

/// Names of the running nodes that lead now.
async fn leaders(cluster: &Cluster) -> Vec<&String> {
    let mut leaders = Vec::new();
    for (name, running) in &cluster.running {
        let status = running.store.status().await.unwrap();
        leaders.extend(status.leader.filter(|leader| leader == name).map(|_| name));
    }
    leaders
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_leader_hands_over_and_no_write_fails() {
    for voters in [3, 5] {
        let mut cluster = Cluster::start(voters, 1).await;
        let client = cluster.names().last().unwrap().clone();
        put(cluster.store(&client), "counter", "start").await;
        let is_over = Arc::default();
        let writing = write_all_the_time(cluster.store(&client), &is_over);
        let mut handed_over = 0;
        for _ in 0..3 {
            let leader = cluster.leader().await;
            // A leader that was just elected grants no vote yet.
            sleep(Duration::from_millis(1500)).await;
            cluster.stop(&leader).await;
            handed_over += leaders(&cluster).await.len();
            cluster.run(&leader).await;
        }
        // On a busy machine, and among five, an election may last until the time limit of the stop. Without a handover, none ever ends
        // before the stop does.
        assert!(voters == 5 || handed_over > 0);
        is_over.store(true, Relaxed);
        let (count, longest) = writing.await.unwrap();
        eprintln!("{voters} voters: {count} writes, the longest took {longest:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_that_reaches_no_voter_stops_without_a_successor() {
    let mut cluster = Cluster::start(3, 0).await;
    put(cluster.store("a"), "key", "1").await;
    let leader = cluster.leader().await;
    cluster.set_links(&leader, Link::Silent);
    cluster.stop(&leader).await;
    cluster.heal();
    assert_ne!(cluster.leader().await, leader);
    // The only voter has no successor.
    let mut cluster = Cluster::start(1, 0).await;
    put(cluster.store("a"), "key", "1").await;
    cluster.stop("a").await;
    cluster.run("a").await;
    put(cluster.store("a"), "key", "2").await;
}
