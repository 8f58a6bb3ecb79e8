//! Nodes with one name, and nodes whose generation is lower than the one that their peers know.

use std::time::Duration;

use muster::{
    gossip::node::End,
    model::member::{Cause, INCARNATIONS, Reach},
};
use tokio::time::{Instant, sleep};

use crate::script::{Cluster, ms};

/// Time with live peers after which the cluster knows a node, and some more.
const ESTABLISHED: Duration = Duration::from_secs(6);

/// Starts a node with a generation and waits until all nodes answer its instance; returns the time until then.
async fn returns(cluster: &mut Cluster, name: &'static str, generation: u64, join: &[&'static str]) -> Duration {
    let since = Instant::now();
    cluster.start_as(name, generation, join, &[]).await;
    stays_known(cluster, name, join).await;
    since.elapsed()
}

/// Waits until all nodes answer a node's instance. As the daemon does, starts the node again above each generation that its
/// peers know.
async fn stays_known(cluster: &mut Cluster, name: &'static str, join: &[&'static str]) {
    loop {
        let known = |c: &Cluster| c.up().iter().all(|by| c.answer(by, "web") == c.truth());
        cluster.until(ms(5000), "it is known or ends", |c| c.has_ended(name) || known(c)).await;
        if !cluster.has_ended(name) {
            return;
        }
        match cluster.ends(name).await {
            End::Superseded { above } if above >= cluster.identity(name).id.generation => {
                cluster.start_as(name, above + INCARNATIONS, join, &[]).await;
            }
            end => panic!("{name} has ended: {end:?}"),
        }
    }
}

/// Runs until one of two nodes with one name has ended, with the answers of the others unchanged; returns its end.
async fn first_end(cluster: &mut Cluster, within: Duration, candidates: &[&'static str]) -> (&'static str, End) {
    let ended = |c: &Cluster| candidates.iter().copied().find(|name| c.has_ended(name));
    cluster.until(within, "one of both ends", |c| ended(c).is_some()).await;
    let name = ended(cluster).unwrap();
    (name, cluster.ends(name).await)
}

/// Its `data_dir` was lost and its clock is behind.
#[tokio::test(start_paused = true)]
async fn node_of_a_lower_generation_returns_within_three_seconds() {
    for (planned, pause) in [(false, 0), (false, 300), (false, 5_000), (true, 1_000), (true, 20_000)] {
        for names in [&["a", "b", "c"][..], &["a", "c"]] {
            let mut cluster = Cluster::of(names);
            for name in names {
                let join = if *name == "a" { "c" } else { "a" };
                cluster.start_as(name, 1000 * INCARNATIONS, &[join], &[]).await;
            }
            cluster.settles(ms(5000)).await;
            if planned {
                cluster.announce_restart("c").await;
            }
            cluster.kill("c").await;
            sleep(ms(pause)).await;
            for generation in [INCARNATIONS, 999 * INCARNATIONS] {
                let took = returns(&mut cluster, "c", generation, &["a"]).await;
                assert!(took < ms(3000), "{took:?}");
                println!("of {}, planned: {planned}, after {pause} ms: back after {took:?}", names.len());
                cluster.stays(ms(1500), names, &cluster.truth()).await;
                assert_eq!(cluster.reach("a", "c"), Some(Reach::Alive));
                cluster.kill("c").await;
            }
        }
    }
}

/// It starts under a new address while the crash of its former host is not detected yet.
#[tokio::test(start_paused = true)]
async fn moved_node_of_a_lower_generation_is_told_once_its_former_run_is_gone() {
    let mut cluster = Cluster::of(&["a", "b", "c", "d"]);
    for name in ["a", "b", "c", "d"] {
        cluster.start_as(name, 1000 * INCARNATIONS, &["a"], &[]).await;
    }
    cluster.settles(ms(5000)).await;
    let former = cluster.identity("d");
    cluster.cut(&["d"], &["a", "b", "c"]);
    cluster.kill("d").await;
    cluster.impostor_of("x", "d", INCARNATIONS, "a");
    let (_, end) = first_end(&mut cluster, ms(2500), &["x"]).await;
    assert_eq!(end, End::Superseded { above: former.id.generation });
}

/// The same after it has left.
#[tokio::test(start_paused = true)]
async fn node_of_a_lower_generation_returns_after_its_leave() {
    let mut cluster = Cluster::of(&["a", "b", "c"]);
    for name in ["a", "b", "c"] {
        cluster.start_as(name, 1000 * INCARNATIONS, &["a"], &[]).await;
    }
    cluster.settles(ms(5000)).await;
    cluster.stop("c").await;
    cluster.until(ms(500), "c has left", |c| c.reach("a", "c") == Some(Reach::Gone(Cause::Left))).await;
    let took = returns(&mut cluster, "c", INCARNATIONS, &["a"]).await;
    println!("back after {took:?}");
    cluster.stays(ms(1500), &["a", "b", "c"], "a b c").await;
}

/// Whatever the clocks say: the newcomer's generation is lower, or higher, than that of the node that the cluster knows.
#[tokio::test(start_paused = true)]
async fn node_that_the_cluster_knows_keeps_its_name() {
    for (own, other) in [(1000, 5), (1000, 5000)] {
        for established in [true, false] {
            for names in [&["a", "b", "c"][..], &["a", "b"]] {
                let mut cluster = Cluster::of(names);
                for name in names {
                    cluster.start_as(name, own * INCARNATIONS, &["a"], &[]).await;
                }
                cluster.settles(ms(5000)).await;
                sleep(if established { ESTABLISHED } else { ms(1500) }).await;
                cluster.impostor_of("x", "b", other * INCARNATIONS, "a");
                let (ended, end) = first_end(&mut cluster, ms(3000), &["b", "x"]).await;
                assert_eq!((ended, end), ("x", End::NameTaken(cluster.identity("b"))), "{own} {other}");
                cluster.settles(ms(3000)).await;
                cluster.stays(ms(4000), names, &cluster.truth()).await;
            }
        }
    }
}

/// Two clusters that did not know each other meet.
#[tokio::test(start_paused = true)]
async fn one_of_two_established_nodes_keeps_the_name() {
    for (own, other) in [(1000, 5), (1000, 5000)] {
        let mut cluster = Cluster::of(&["a", "b", "c", "d"]);
        for name in ["a", "b"] {
            cluster.start_as(name, own * INCARNATIONS, &["a"], &[]).await;
        }
        sleep(ms(3000)).await;
        for name in ["c", "d"] {
            cluster.start_as(name, own * INCARNATIONS, &["c"], &[]).await;
        }
        cluster.impostor_of("x", "b", other * INCARNATIONS, "c");
        sleep(ESTABLISHED).await;
        cluster.join("a", "c").await;
        let (ended, end) = first_end(&mut cluster, ms(5000), &["b", "x"]).await;
        // That of the other cluster has run for a shorter time.
        assert_eq!((ended, end), ("x", End::NameTaken(cluster.identity("b"))), "{own} {other}");
        // Its generation may be lower than that of the other one, which some peers still know.
        stays_known(&mut cluster, "b", &["a"]).await;
        cluster.stays(ms(4000), &["a", "b", "c", "d"], "a b c d").await;
    }
}

/// The holder and the newcomer cannot reach each other.
#[tokio::test(start_paused = true)]
async fn newcomer_ends_on_reports_of_peers_alone() {
    for (own, other) in [(1000, 5), (1000, 5000)] {
        let mut cluster = Cluster::of(&["a", "b", "c"]);
        for name in ["a", "b", "c"] {
            cluster.start_as(name, own * INCARNATIONS, &["a"], &[]).await;
        }
        cluster.settles(ms(5000)).await;
        sleep(ESTABLISHED).await;
        cluster.impostor_of("x", "b", other * INCARNATIONS, "a");
        cluster.cut(&["b"], &["x"]);
        let (ended, end) = first_end(&mut cluster, ms(5000), &["b", "x"]).await;
        assert_eq!((ended, end), ("x", End::NameTaken(cluster.identity("b"))), "{own} {other}");
        cluster.stays(ms(4000), &["a", "b", "c"], "a b c").await;
    }
}

/// Two newcomers at once, through different nodes, or with no other node.
#[tokio::test(start_paused = true)]
async fn one_of_two_newcomers_keeps_the_name() {
    for (own, other) in [(1000, 5), (1000, 5000), (1000, 1001)] {
        for reachable in [true, false] {
            let mut cluster = Cluster::of(&["a", "b", "c"]);
            for name in ["a", "c"] {
                cluster.start_as(name, INCARNATIONS, &["a"], &[]).await;
            }
            cluster.settles(ms(5000)).await;
            cluster.start_as("b", own * INCARNATIONS, &["a"], &[]).await;
            cluster.impostor_of("x", "b", other * INCARNATIONS, "c");
            if !reachable {
                cluster.cut(&["b"], &["x"]);
            }
            let (ended, end) = first_end(&mut cluster, ms(15_000), &["b", "x"]).await;
            assert!(matches!(end, End::NameTaken(_)), "{end:?}");
            let kept = if ended == "b" { "x" } else { "b" };
            stays_known(&mut cluster, kept, &["a"]).await;
            sleep(ms(8_000)).await;
            assert!(!cluster.has_ended(kept), "{own} {other} {reachable}");
            cluster.settles(ms(1000)).await;
        }
        let mut cluster = Cluster::of(&["b"]);
        cluster.start_as("b", own * INCARNATIONS, &[], &[]).await;
        cluster.impostor_of("x", "b", other * INCARNATIONS, "b");
        let (ended, _) = first_end(&mut cluster, ms(5000), &["b", "x"]).await;
        sleep(ms(5000)).await;
        assert!(!cluster.has_ended(if ended == "b" { "x" } else { "b" }), "{own} {other}");
    }
}

/// A node that peers declared gone says so until they know it again.
#[tokio::test(start_paused = true)]
async fn node_that_peers_consider_gone_knows_it_for_a_while() {
    use muster::gossip::message::Message;
    let cluster = Cluster::running(&["a", "b", "c"]).await;
    let id = cluster.identity("c").id;
    let dead = Message::Dead { peer: id, cause: Cause::Silent };
    cluster.network.forge(&cluster.identity("a"), cluster.address("c"), &dead).await;
    cluster.until(ms(100), "c is doubted", |c| c.members("c").doubted.is_some()).await;
    cluster.until(ms(5000), "c is known again", |c| c.members("c").doubted.is_none()).await;
    cluster.stays(ms(1000), &["a", "b", "c"], "a b c").await;
}
