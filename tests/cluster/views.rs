//! Detection of divergent views.

use std::sync::atomic::{AtomicUsize, Ordering};

use muster::{
    gossip::message::{Change, Message, Push},
    model::{announcement::InstanceState, service::InstanceKey},
    record::Record,
};

use crate::{
    script::{Cluster, ms},
    support::label,
};

const ALL: &[&str] = &["a", "b", "c", "d"];

/// Digest of `of` as known by `by`.
fn view(cluster: &Cluster, by: &str, of: &str) -> Option<u64> {
    cluster.members(by).members.iter().find(|member| member.id.name.as_str() == of)?.view
}

fn differs(cluster: &Cluster, by: &str, of: &str) -> bool {
    cluster.members(by).members.iter().any(|member| member.id.name.as_str() == of && member.differs.is_some())
}

fn agree(cluster: &Cluster) -> bool {
    let up = cluster.up();
    let own = view(cluster, up[0], up[0]);
    own.is_some() && up.iter().all(|by| up.iter().all(|of| view(cluster, by, of) == own))
}

#[tokio::test(start_paused = true)]
async fn views_agree_after_changes_without_false_alarms() {
    let mut cluster = Cluster::running(ALL).await;
    let never = |cluster: &Cluster| {
        let up = cluster.up();
        up.iter().all(|by| up.iter().all(|of| !differs(cluster, by, of)))
    };
    cluster.until(ms(15_000), "the views agree", agree).await;
    let before = view(&cluster, "a", "a");
    for round in 0..20 {
        cluster.flip("c", round % 2 == 1);
        for _ in 0..7 {
            tokio::time::sleep(ms(100 * round)).await;
            assert!(never(&cluster), "round {round}\n{}", cluster.show());
        }
    }
    cluster.kill("d").await;
    cluster.settles(ms(2000)).await;
    let took = cluster.until(ms(15_000), "the views agree again", |c| agree(c) && view(c, "a", "a") != before).await;
    println!("agree {took:?} after a kill");
    assert!(never(&cluster), "{}", cluster.show());
}

/// A node that accepted a forged change.
#[tokio::test(start_paused = true)]
async fn divergent_view_is_reported_on_all_nodes_until_it_converges() {
    let cluster = Cluster::running(ALL).await;
    cluster.until(ms(15_000), "the views agree", agree).await;
    let b = cluster.identity("b");
    let instance = InstanceKey { service: label("web").into(), id: label("b") };
    let forge = async |standing: InstanceState, version: u64| {
        let (key, value) = Record::State(instance.clone(), standing).encode();
        let changes = vec![Change { key: &key, version, value: Some(&value) }];
        let push = Message::Push(Push { generation: b.id.generation, changes });
        cluster.network.forge(&b, cluster.address("c"), &push).await;
    };
    forge(InstanceState::Disabled, 1 << 40).await;
    cluster.answers(ms(300), &["c"], "a c d").await;
    let others = ["a", "b", "d"];
    let took = cluster.until(ms(25_000), "c is divergent", |c| others.iter().all(|by| differs(c, by, "c"))).await;
    println!("divergent after {took:?}");
    cluster.until(ms(2_000), "c sees that all others diverge", |c| others.iter().all(|of| differs(c, "c", of))).await;
    assert!(!differs(&cluster, "a", "b"), "the others agree\n{}", cluster.show());
    forge(InstanceState::Passing, (1 << 40) + 1).await;
    cluster.until(ms(15_000), "the views agree again", |c| agree(c) && !differs(c, "a", "c")).await;
}

/// Digests are never pushed, so that a change on one node does not cause traffic from all others.
#[tokio::test(start_paused = true)]
async fn digests_spread_by_gossip_only() {
    let cluster = Cluster::running(ALL).await;
    static PUSHES: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];
    cluster.network.lose(Some(|message: &Message<'_>| {
        if let Message::Push(push) = message {
            let digests = push.changes.iter().filter(|change| change.key == "n/view").count();
            PUSHES[0].fetch_add(1, Ordering::Relaxed);
            PUSHES[1].fetch_add(digests, Ordering::Relaxed);
        }
        false
    }));
    cluster.flip("c", false);
    cluster.settles(ms(300)).await;
    cluster.until(ms(15_000), "the views agree", agree).await;
    let [all, digests] = &PUSHES;
    // The push to each of the three others carries the flip, and is repeated three times.
    assert_eq!((all.load(Ordering::Relaxed), digests.load(Ordering::Relaxed)), (12, 0));
}
