//! Nodes that join, leave and fail, and changes of what they announce.

use std::time::Duration;

use muster::{
    gossip::{
        message::{Identity, Message},
        node::End,
    },
    model::{
        announcement::InstanceState,
        member::{Cause, INCARNATIONS, PeerId, Reach},
    },
};

use crate::script::{Cluster, ms};

#[tokio::test(start_paused = true)]
async fn nodes_that_join_through_one_node_answer_all_instances() {
    let cluster = Cluster::running(&["a", "b", "c"]).await;
    assert_eq!(cluster.truth(), "a b c");
    for name in ["a", "b", "c"] {
        assert_eq!(cluster.peers(name).len(), 2, "{}", cluster.show());
        assert_eq!(cluster.members(name).partitioned, None);
        assert_eq!(cluster.members(name).rejected, []);
    }
}

/// A client that requests the members as soon as an instance is answered finds the instance's node.
#[tokio::test(start_paused = true)]
async fn nodes_of_answered_instances_are_members() {
    let mut cluster = Cluster::of(&["a", "b", "c"]);
    for name in ["a", "b", "c"] {
        cluster.start(name, &["a"]).await;
    }
    cluster
        .until(ms(5000), "all nodes answer all instances", |c| {
            c.up().iter().all(|by| {
                let answered = c.answer(by, "web");
                // Own instances are answered before the node's task runs.
                for of in answered.split(' ').filter(|of| of != by && c.up().contains(of)) {
                    assert!(c.reach(by, of).is_some(), "{by} answers {of} without listing it\n{}", c.show());
                }
                answered == "a b c"
            })
        })
        .await;
}

/// A push arrives before the next gossip round; where pushes are lost, gossip delivers the change.
#[tokio::test(start_paused = true)]
async fn health_flip_spreads_by_push_or_else_by_gossip() {
    let cluster = Cluster::running(&["a", "b", "c", "d", "e"]).await;
    let pushes: fn(&Message<'_>) -> bool = |message| matches!(message, Message::Push(_));
    for (lost, within) in [(None, ms(100)), (Some(pushes), ms(1500))] {
        cluster.network.lose(lost);
        for healthy in [false, true, false, true] {
            cluster.flip("c", healthy);
            let took = cluster.settles(within).await;
            println!("a flip, pushes {}: {took:?}", if lost.is_some() { "lost" } else { "arrive" });
        }
    }
}

/// A declared service without healthy instances is answered with a reason; an undeclared one does not exist.
#[tokio::test(start_paused = true)]
async fn node_that_leaves_is_removed_at_once() {
    for by_order in [false, true] {
        let mut cluster = Cluster::running(&["a", "b", "c"]).await;
        cluster.flip("a", false);
        cluster.flip("b", false);
        cluster.announce("c", "only", "one", InstanceState::Passing);
        cluster.answers(ms(300), &["a", "b"], "c").await;
        cluster.until(ms(300), "the service of c", |c| c.answer("a", "only") == "one").await;
        let end = if by_order {
            cluster.leave("c").await
        } else {
            cluster.signal("c");
            let took = cluster.answers(ms(300), &["a", "b"], "nothing, EDE 14").await;
            println!("left: {took:?}");
            cluster.ends("c").await
        };
        assert_eq!(end, if by_order { End::Left } else { End::Stopped });
        cluster.answers(ms(100), &["a", "b"], "nothing, EDE 14").await;
        for name in ["a", "b"] {
            assert_eq!(cluster.answer(name, "only"), "NXDOMAIN");
            cluster.until(ms(100), "c has left", |c| c.reach(name, "c") == Some(Reach::Gone(Cause::Left))).await;
        }
        // The state that gossip still holds brings nothing back.
        cluster.stays(ms(2500), &["a", "b"], "nothing, EDE 14").await;
    }
}

#[tokio::test(start_paused = true)]
async fn killed_node_is_removed_within_two_seconds_with_its_cause() {
    for names in [&["a", "b"][..], &["a", "b", "c"], &["a", "b", "c", "d", "e", "f", "g"]] {
        let mut cluster = Cluster::running(names).await;
        cluster.kill("b").await;
        let took = cluster.settles(ms(2000)).await;
        println!("killed, of {}: {took:?}", names.len());
        for by in cluster.up() {
            cluster.until(ms(100), "b has ended", |c| c.reach(by, "b") == Some(Reach::Gone(Cause::Refused))).await;
        }
        cluster.stays(ms(3000), &cluster.up(), &cluster.truth()).await;
    }
}

/// A crashed host does not answer at all.
#[tokio::test(start_paused = true)]
async fn crashed_host_is_removed_within_two_seconds() {
    let mut cluster = Cluster::running(&["a", "b", "c", "d", "e"]).await;
    cluster.cut(&["e"], &["a", "b", "c", "d"]);
    cluster.kill("e").await;
    let took = cluster.settles(ms(2000)).await;
    println!("crashed, of 5: {took:?}");
    for by in cluster.up() {
        cluster.until(ms(500), "e is silent", |c| c.reach(by, "e") == Some(Reach::Gone(Cause::Silent))).await;
    }
}

/// At once, before the crash is detected, and long after it; the node announces its current files.
#[tokio::test(start_paused = true)]
async fn restarted_node_is_answered_with_its_current_instances() {
    for pause in [ms(0), ms(300), ms(5000)] {
        for join in [&["a"][..], &[]] {
            let mut cluster = Cluster::running(&["a", "b", "c"]).await;
            cluster.announce("c", "web", "old", InstanceState::Passing);
            cluster.settles(ms(300)).await;
            cluster.kill("c").await;
            tokio::time::sleep(pause).await;
            cluster.withdraw("c", "web", "old");
            cluster.announce("c", "web", "new", InstanceState::Passing);
            let generation = cluster.identity("c").id.generation + INCARNATIONS;
            cluster.start_as("c", generation, join, &["b"]).await;
            let took = cluster.settles(ms(2000)).await;
            println!("started again after {pause:?}: {took:?}");
            cluster.until(ms(3000), "c is alive", |c| c.reach("a", "c") == Some(Reach::Alive)).await;
            cluster.stays(ms(1500), &["a", "b", "c"], "a b c new").await;
        }
    }
}

/// Generations come from the clock, or from the stored one if that is higher: after a step back it is the next one.
#[tokio::test(start_paused = true)]
async fn clock_steps_do_not_exclude_a_node() {
    const HOUR: u64 = 3_600_000_000_000 / INCARNATIONS * INCARNATIONS;
    let mut cluster = Cluster::running(&["a", "b", "c"]).await;
    for step in [HOUR, INCARNATIONS, INCARNATIONS, 24 * HOUR, INCARNATIONS] {
        cluster.kill("c").await;
        cluster.flip("c", false);
        let generation = cluster.identity("c").id.generation + step;
        cluster.start_as("c", generation, &["a"], &[]).await;
        cluster.settles(ms(2000)).await;
        cluster.flip("c", true);
        cluster.settles(ms(1000)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn remembered_peers_suffice_to_rejoin() {
    let mut cluster = Cluster::running(&["a", "b", "c"]).await;
    // The stored peers.
    assert!(cluster.peers("c").contains(&cluster.address("b")));
    cluster.stop("c").await;
    cluster.kill("a").await;
    cluster.settles(ms(2000)).await;
    let generation = cluster.identity("c").id.generation + INCARNATIONS;
    cluster.start_as("c", generation, &[], &["a", "b"]).await;
    let took = cluster.settles(ms(2000)).await;
    println!("rejoined: {took:?}");
    assert_eq!(cluster.truth(), "b c");
}

/// The earlier node keeps the name; the newcomer's instances are not answered.
#[tokio::test(start_paused = true)]
async fn newcomer_with_a_taken_name_ends() {
    for join in ["a", "b"] {
        let mut cluster = Cluster::running(&["a", "b", "c"]).await;
        let holder = cluster.identity("b");
        cluster.impostor("x", "b", join);
        let mut watched = std::pin::pin!(tokio::time::sleep(ms(3000)));
        let end = loop {
            tokio::select! {
                () = &mut watched => panic!("x still runs\n{}", cluster.show()),
                () = tokio::time::sleep(ms(1)) => {}
            }
            for name in ["a", "b", "c"] {
                assert_eq!(cluster.answer(name, "web"), "a b c", "{name}\n{}", cluster.show());
            }
            if cluster.has_ended("x") {
                break cluster.ends("x").await;
            }
        };
        assert_eq!(end, End::NameTaken(holder));
        cluster.stays(ms(2500), &["a", "b", "c"], "a b c").await;
    }
}

/// State of a refused newcomer that is still gossiped does not exclude the holder of the name.
#[tokio::test(start_paused = true)]
async fn holder_of_a_name_returns_after_an_outage_although_another_node_claimed_it() {
    let mut cluster = Cluster::running(&["a", "b", "c", "d", "e"]).await;
    cluster.impostor("x", "b", "a");
    assert!(matches!(cluster.ends("x").await, End::NameTaken(_)));
    cluster.cut(&["b"], &["a", "c", "d", "e"]);
    cluster.answers(ms(3000), &["a", "c", "d", "e"], "a c d e").await;
    cluster.stays(ms(3000), &["a", "c", "d", "e"], "a c d e").await;
    cluster.network.heal();
    let took = cluster.settles(ms(8000)).await;
    println!("back: {took:?}");
    cluster.stays(ms(2500), &["a", "b", "c", "d", "e"], "a b c d e").await;
}

/// A conflict about another node's name has no effect.
#[tokio::test(start_paused = true)]
async fn conflict_about_another_name_is_ignored() {
    let cluster = Cluster::running(&["a", "b", "c"]).await;
    let a = cluster.identity("a");
    let other = Identity { id: PeerId { name: a.id.name.clone(), generation: 1 << 40 }, address: a.address };
    for holder in [cluster.identity("b"), other] {
        cluster.network.forge(&a, cluster.address("c"), &Message::Conflict { holder }).await;
    }
    cluster.network.forge(&a, cluster.address("c"), &Message::Conflict { holder: cluster.identity("c") }).await;
    cluster.stays(Duration::from_secs(1), &["a", "b", "c"], "a b c").await;
}
