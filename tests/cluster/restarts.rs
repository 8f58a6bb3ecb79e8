//! Restarts: announced ones, those after a crash, and starts that continue a run.

use std::time::Duration;

use muster::model::{
    announcement::InstanceState,
    member::{Cause, INCARNATIONS, Reach},
};
use tokio::time::sleep;

use crate::script::{Cluster, Handover, RESTART_HOLD, ms};

const ALL: &[&str] = &["a", "b", "c"];

/// Waits until a condition holds; meanwhile these nodes give none but the allowed answers for `web`.
pub(crate) async fn until_answering(
    cluster: &Cluster,
    within: Duration,
    at: &[&str],
    allowed: &[&str],
    what: &str,
    holds: impl Fn(&Cluster) -> bool,
) -> Duration {
    let watched = |c: &Cluster| {
        for at in at {
            let answer = c.answer(at, "web");
            assert!(allowed.contains(&answer.as_str()), "{at} answers {answer:?}: {what}\n{}", c.show());
        }
        holds(c)
    };
    cluster.until(within, what, watched).await
}

#[tokio::test(start_paused = true)]
async fn announced_restart_keeps_the_last_known_instances() {
    for join in [&["a"][..], &[]] {
        let mut cluster = Cluster::running(ALL).await;
        cluster.announce("c", "web", "old", InstanceState::Passing);
        cluster.settles(ms(300)).await;
        let known = cluster.snapshot("c").await;
        cluster.announce_restart("c").await;
        for by in ["a", "b"] {
            assert_eq!(cluster.reach(by, "c"), Some(Reach::Restarting), "{}", cluster.show());
        }
        cluster.kill("c").await;
        cluster.stays(ms(5000), &["a", "b"], "a b c old, EDE 3").await;
        assert!(["a", "b"].iter().all(|by| cluster.members(by).partitioned.is_none()));
        cluster.withdraw("c", "web", "old");
        cluster.announce("c", "web", "new", InstanceState::Passing);
        if join.is_empty() {
            cluster.start_from("c", Handover { known, ..Handover::default() });
        } else {
            let generation = cluster.identity("c").id.generation + INCARNATIONS;
            cluster.start_as("c", generation, join, &[]).await;
        }
        let allowed = ["a b c old, EDE 3", "a b c old new, EDE 3", "a b c new"];
        let back = |c: &Cluster| ["a", "b"].iter().all(|by| c.answer(by, "web") == "a b c new");
        let took = until_answering(&cluster, ms(2000), &["a", "b"], &allowed, "c is back", back).await;
        println!("restarted: {took:?}");
        cluster.settles(ms(2000)).await;
        cluster.stays(ms(6000), ALL, "a b c new").await;
    }
}

#[tokio::test(start_paused = true)]
async fn announced_restart_is_bounded() {
    let mut cluster = Cluster::running(ALL).await;
    cluster.announce_restart("c").await;
    cluster.kill("c").await;
    cluster.stays(RESTART_HOLD - ms(1000), &["a", "b"], "a b c, EDE 3").await;
    let took = cluster.answers(ms(2000), &["a", "b"], "a b").await;
    println!("not back: {took:?} later");
    for by in ["a", "b"] {
        cluster.until(ms(500), "its cause", |c| c.reach(by, "c") == Some(Reach::Gone(Cause::NotReturned))).await;
    }
    cluster.stays(ms(5000), &["a", "b"], "a b").await;
}

/// A restart that is announced and does not take place: the node goes on.
#[tokio::test(start_paused = true)]
async fn node_that_goes_on_after_its_announcement_is_alive_again() {
    let cluster = Cluster::running(ALL).await;
    cluster.announce_restart("c").await;
    cluster.stays(ms(4000), &["a", "b"], "a b c, EDE 3").await;
    let took = cluster.answers(ms(3000), &["a", "b"], "a b c").await;
    println!("no restart: {took:?} later");
    cluster.stays(ms(3000), ALL, "a b c").await;
}

#[tokio::test(start_paused = true)]
async fn start_that_continues_a_run_changes_no_answer_on_any_node() {
    let mut cluster = Cluster::running(ALL).await;
    for incarnation in 1..=3 {
        let known = cluster.snapshot("c").await;
        assert_eq!(known.len(), 2);
        assert!(known.iter().all(|peer| peer.version > 0 && peer.reach == Reach::Alive), "{known:?}");
        cluster.hang("c").await;
        cluster.stays(ms(300), &["a", "b"], "a b c").await;
        cluster.start_from("c", Handover { incarnation, known, continues: true });
        cluster.until(ms(50), "c has published its view", |c| c.answer("c", "web") != "c").await;
        cluster.until(ms(1000), "c is synced", |c| c.is_synced("c")).await;
        for _ in 0..2 {
            cluster.stays(ms(1500), ALL, "a b c").await;
            let alive = |by: &&str| ALL.iter().all(|of| cluster.reach(by, of) == Some(Reach::Alive));
            assert!(ALL.iter().all(alive), "{}", cluster.show());
            cluster.network.lose(Some(|message| matches!(message, muster::gossip::message::Message::Push(_))));
            cluster.flip("c", false);
            cluster.settles(ms(2000)).await;
            cluster.flip("c", true);
            cluster.settles(ms(2000)).await;
            cluster.network.lose(None);
            cluster.flip("a", false);
            cluster.settles(ms(300)).await;
            cluster.flip("a", true);
            cluster.settles(ms(300)).await;
        }
    }
}

/// A node that crashed, and whose sockets stay open, starts again before its peers give it up.
#[tokio::test(start_paused = true)]
async fn crashed_agent_with_open_sockets_is_replaced_without_a_gap() {
    for down in [ms(200), ms(1000), ms(3000)] {
        let mut cluster = Cluster::running(ALL).await;
        let known = cluster.snapshot("c").await;
        cluster.hang("c").await;
        cluster.stays(down, &["a", "b"], "a b c").await;
        cluster.start_from("c", Handover { known, ..Handover::default() });
        let allowed = ["a b c", "a b c, EDE 3"];
        let back = |c: &Cluster| {
            ["a", "b"].iter().all(|by| {
                let members = c.members(by);
                let run = members.members.iter().find(|member| member.id == c.identity("c").id);
                run.is_some_and(|run| run.reach == Reach::Alive) && c.answer(by, "web") == "a b c"
            })
        };
        let took = until_answering(&cluster, ms(2000), &["a", "b"], &allowed, "c is back", back).await;
        println!("started again after {down:?}: {took:?}");
        cluster.stays(ms(3000), &["a", "b"], "a b c").await;
    }
}

/// A state that gossip delivers in several parts.
#[tokio::test(start_paused = true)]
async fn large_state_replaces_the_former_one_without_a_gap() {
    const INSTANCES: usize = 3000;
    let mut cluster = Cluster::running(ALL).await;
    for id in 0..INSTANCES {
        cluster.announce("c", "many", &format!("m{id}"), InstanceState::Passing);
    }
    let instances = |c: &Cluster, by: &str| c.members(by).members.iter().map(|member| member.instances).max();
    let all = Some(INSTANCES + 1);
    cluster.until(ms(20_000), "all instances", |c| ALL.iter().all(|by| instances(c, by) == all)).await;
    for continues in [true, false] {
        let known = cluster.snapshot("c").await;
        if continues {
            cluster.hang("c").await;
        } else {
            cluster.announce_restart("c").await;
            cluster.kill("c").await;
        }
        sleep(ms(200)).await;
        cluster.start_from("c", Handover { incarnation: continues.into(), known, continues });
        let id = cluster.identity("c").id;
        let allowed = if continues { &["a b c"][..] } else { &["a b c", "a b c, EDE 3"] };
        let complete = |c: &Cluster| {
            ["a", "b"].iter().all(|by| {
                assert_eq!(instances(c, by), all, "{by}");
                c.members(by).members.iter().any(|member| member.id == id && member.reach == Reach::Alive)
                    && c.answer(by, "web") == "a b c"
            })
        };
        let took = until_answering(&cluster, ms(20_000), &["a", "b"], allowed, "c is complete", complete).await;
        println!("{INSTANCES} instances, continues: {continues}: {took:?}");
        until_answering(&cluster, ms(10_000), &["a", "b"], allowed, "c is settled", |c| c.is_synced("c")).await;
        sleep(ms(3000)).await;
        assert!(["a", "b"].iter().all(|by| instances(&cluster, by) == all));
    }
}

/// A node that starts alone answers what it knew as last known, for the time of a hold, and claims no partition at once.
#[tokio::test(start_paused = true)]
async fn node_that_starts_alone_answers_its_last_known_view() {
    let mut cluster = Cluster::holding(ALL, ms(20_000));
    cluster.run_all(ALL).await;
    let known = cluster.snapshot("c").await;
    for name in ALL {
        cluster.kill(name).await;
    }
    // The other hosts are down: nothing refuses a connection.
    cluster.cut(&["c"], &["a", "b"]);
    cluster.start_from("c", Handover { known, ..Handover::default() });
    cluster.until(ms(50), "c has published its view", |c| c.answer("c", "web") != "c").await;
    let since = tokio::time::Instant::now();
    cluster.stays(ms(9500), &["c"], "a b c, EDE 3").await;
    assert_eq!(cluster.members("c").partitioned, None);
    assert!(!cluster.is_synced("c"), "no peer is alive");
    cluster.until(ms(1000), "a partition", |c| c.members("c").partitioned.is_some()).await;
    cluster.stays(ms(20_000) - since.elapsed() - ms(100), &["c"], "a b c, EDE 3").await;
    cluster.answers(ms(2000), &["c"], "c").await;
}

/// After a restart, a state is complete within a second, whether a peer is alive, died meanwhile, or died before.
#[tokio::test(start_paused = true)]
async fn restarted_node_is_synced_soon() {
    let mut cluster = Cluster::running(&["a", "b", "c", "d", "e"]).await;
    cluster.kill("d").await;
    cluster.settles(ms(2000)).await;
    sleep(Duration::from_secs(60)).await;
    let known = cluster.snapshot("c").await;
    cluster.announce_restart("c").await;
    cluster.kill("c").await;
    cluster.flip("a", false);
    cluster.kill("e").await;
    sleep(ms(300)).await;
    for known in [known, vec![]] {
        let stored = !known.is_empty();
        if stored {
            cluster.start_from("c", Handover { known, ..Handover::default() });
        } else {
            cluster.start("c", &["a"]).await;
        }
        let took = cluster.until(ms(1000), "c is synced", |c| c.is_synced("c")).await;
        println!("synced, with a stored state: {stored}: {took:?}");
        assert_eq!(cluster.answer("c", "web"), "b c", "{}", cluster.show());
        cluster.stays(ms(2000), &["c"], "b c").await;
        cluster.kill("c").await;
    }
}

#[tokio::test(start_paused = true)]
async fn all_nodes_restart_in_turn_without_a_gap() {
    const NAMES: &[&str] = &["a", "b", "c", "d", "e", "f", "g"];
    const ANSWER: &str = "a b c d e f g";
    let stale = format!("{ANSWER}, EDE 3");
    let mut cluster = Cluster::running(NAMES).await;
    for name in NAMES {
        let known = cluster.snapshot(name).await;
        cluster.announce_restart(name).await;
        cluster.kill(name).await;
        let others: Vec<&str> = NAMES.iter().copied().filter(|other| other != name).collect();
        cluster.stays(ms(1000), &others, &stale).await;
        cluster.start_from(name, Handover { known, ..Handover::default() });
        let back = |c: &Cluster| c.is_synced(name) && NAMES.iter().all(|by| c.answer(by, "web") == ANSWER);
        let took = until_answering(&cluster, ms(3000), &others, &[ANSWER, &stale], "it is back", back).await;
        println!("{name}: {took:?}");
    }
    cluster.stays(ms(6000), NAMES, ANSWER).await;
    // chitchat knows the former runs at the same addresses.
    assert_eq!(cluster.network.sent_to_itself(), 0);
}

/// Two nodes restart at the same time: each knows the other as it was before.
#[tokio::test(start_paused = true)]
async fn overlapping_restarts_are_expected_back_on_both_sides() {
    const NAMES: &[&str] = &["a", "b", "c", "d"];
    for announced_first in ["a", "b"] {
        let mut cluster = Cluster::running(NAMES).await;
        let mut handed = vec![];
        for name in if announced_first == "a" { ["a", "b"] } else { ["b", "a"] } {
            handed.push((name, cluster.snapshot(name).await));
            cluster.announce_restart(name).await;
            cluster.kill(name).await;
        }
        let all = "a b c d";
        cluster.stays(ms(500), &["c", "d"], "a b c d, EDE 3").await;
        // The other one is away for some seconds more.
        let (early, known) = handed.remove(0);
        cluster.start_from(early, Handover { known, ..Handover::default() });
        cluster.until(ms(1000), "it is synced", |c| c.is_synced(early)).await;
        cluster.stays(ms(4000), &[early, "c", "d"], "a b c d, EDE 3").await;
        let (late, known) = handed.remove(0);
        cluster.start_from(late, Handover { known, ..Handover::default() });
        let back = |c: &Cluster| c.is_synced(late) && NAMES.iter().all(|by| c.answer(by, "web") == all);
        let watched = [early, "c", "d"];
        until_answering(&cluster, ms(2000), &watched, &[all, "a b c d, EDE 3"], "both are back", back).await;
    }
}
