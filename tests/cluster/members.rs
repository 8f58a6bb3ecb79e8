//! Nodes come and go, and what they announce changes.

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
async fn all_who_join_through_one_answer_all() {
    let cluster = Cluster::running(&["a", "b", "c"]).await;
    assert_eq!(cluster.truth(), "a b c");
    for name in ["a", "b", "c"] {
        assert_eq!(cluster.peers(name).len(), 2, "{}", cluster.show());
        assert_eq!(cluster.members(name).partitioned, None);
        assert_eq!(cluster.members(name).rejected, []);
    }
}

/// Who asks for the members as soon as an instance is answered finds its node among them.
#[tokio::test(start_paused = true)]
async fn who_is_answered_is_a_member() {
    let mut cluster = Cluster::of(&["a", "b", "c"]);
    for name in ["a", "b", "c"] {
        cluster.start(name, &["a"]).await;
    }
    cluster
        .until(ms(5000), "each answers all", |c| {
            c.up().iter().all(|by| {
                let answered = c.answer(by, "web");
                // A node's own are answered before its task runs.
                for of in answered.split(' ').filter(|of| of != by && c.up().contains(of)) {
                    assert!(c.reach(by, of).is_some(), "{by} answers {of} and does not show it\n{}", c.show());
                }
                answered == "a b c"
            })
        })
        .await;
}

/// A push is there before the next round of gossip; where pushes are lost, gossip brings it.
#[tokio::test(start_paused = true)]
async fn a_flip_is_everywhere_at_once_and_without_pushes_by_gossip() {
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

/// What is declared and not healthy is there, with a reason; what nobody declares is not.
#[tokio::test(start_paused = true)]
async fn who_leaves_is_gone_at_once_and_known_to_have_left() {
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
            cluster.dismiss("c");
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
        // What gossip still has of it brings nothing back.
        cluster.stays(ms(2500), &["a", "b"], "nothing, EDE 14").await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_killed_is_gone_within_two_seconds_and_the_others_know_why() {
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

/// A host that is gone with its node says nothing.
#[tokio::test(start_paused = true)]
async fn a_host_that_crashes_is_gone_within_two_seconds() {
    let mut cluster = Cluster::running(&["a", "b", "c", "d", "e"]).await;
    cluster.cut(&["e"], &["a", "b", "c", "d"]);
    cluster.kill("e").await;
    let took = cluster.settles(ms(2000)).await;
    println!("crashed, of 5: {took:?}");
    for by in cluster.up() {
        cluster.until(ms(500), "e is silent", |c| c.reach(by, "e") == Some(Reach::Gone(Cause::Silent))).await;
    }
}

/// At once, before anybody has noticed, and long after; it announces what its files say now.
#[tokio::test(start_paused = true)]
async fn a_node_that_is_started_again_is_served_again_with_what_it_has_now() {
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

/// Generations come from the clock, and from what was stored where that is higher: after a step back it is the next one.
#[tokio::test(start_paused = true)]
async fn clocks_that_step_do_not_keep_a_node_out() {
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
async fn peers_of_before_are_found_without_anybody_to_join() {
    let mut cluster = Cluster::running(&["a", "b", "c"]).await;
    // Those that a node stores.
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

/// Who was there first keeps the name; the newcomer's instances are nobody's.
#[tokio::test(start_paused = true)]
async fn a_newcomer_with_a_taken_name_ends() {
    for join in ["a", "b"] {
        let mut cluster = Cluster::running(&["a", "b", "c"]).await;
        let holder = cluster.identity("b");
        cluster.impostor("x", "b", join);
        let mut watched = std::pin::pin!(tokio::time::sleep(ms(3000)));
        let end = loop {
            tokio::select! {
                () = &mut watched => panic!("x goes on\n{}", cluster.show()),
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

/// What gossip still knows of a newcomer that was turned away does not keep the one out that has the name.
#[tokio::test(start_paused = true)]
async fn who_has_the_name_comes_back_after_an_outage_though_another_claimed_it() {
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

/// A message about somebody else's name does nothing.
#[tokio::test(start_paused = true)]
async fn conflicts_of_others_end_nobody() {
    let cluster = Cluster::running(&["a", "b", "c"]).await;
    let a = cluster.identity("a");
    let other = Identity { id: PeerId { name: a.id.name.clone(), generation: 1 << 40 }, address: a.address };
    for holder in [cluster.identity("b"), other] {
        cluster.network.forge(&a, cluster.address("c"), &Message::Conflict { holder }).await;
    }
    cluster.network.forge(&a, cluster.address("c"), &Message::Conflict { holder: cluster.identity("c") }).await;
    cluster.stays(Duration::from_secs(1), &["a", "b", "c"], "a b c").await;
}
