//! Keyring commands: applied by all nodes, or refused before any of them changes its keys.

use std::collections::BTreeMap;

use muster::{
    gossip::{
        command::{KeyringCommand, KeyringReport},
        message::Message,
    },
    model::{
        keyring::{Key, KeyId, MAX_KEYS},
        member::{Cause, Reach},
    },
};

use crate::script::{Cluster, ms};

const ALL: &[&str] = &["a", "b", "c", "d", "e"];

/// The key of a new cluster.
fn old() -> KeyId {
    Key::from_random([7; 32]).id()
}

fn key(number: u8) -> Key {
    Key::from_random([number; 32])
}

/// Number of nodes that hold each key, and of those that encrypt with it.
fn held(report: &KeyringReport) -> BTreeMap<KeyId, (usize, usize)> {
    report.keys.iter().map(|(id, held)| (*id, (held.nodes, held.primary_on))).collect()
}

fn names(of: &BTreeMap<String, String>) -> String {
    of.keys().map(String::as_str).collect::<Vec<_>>().join(" ")
}

/// Asserts which keys the nodes have that `at` reaches.
async fn lists(cluster: &Cluster, at: &str, keys: &[(KeyId, (usize, usize))], what: &str) {
    let report = cluster.keyring(at, KeyringCommand::List).await;
    assert_eq!(held(&report), keys.iter().copied().collect(), "{what}");
}

async fn heal(cluster: &Cluster) {
    cluster.network.heal();
    cluster.settles(ms(8000)).await;
    cluster
        .until(ms(8000), "all are alive", |c| {
            ALL.iter().all(|by| ALL.iter().all(|of| by == of || c.reach(by, of) == Some(Reach::Alive)))
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn rotation_changes_the_keys_of_all_nodes() {
    let cluster = Cluster::running(ALL).await;
    let new = key(8);
    let steps: [(&str, KeyringCommand, &[_]); 6] = [
        ("install", KeyringCommand::Install(new.clone()), &[(old(), (5, 5)), (new.id(), (5, 0))]),
        ("install again", KeyringCommand::Install(new.clone()), &[(old(), (5, 5)), (new.id(), (5, 0))]),
        ("use", KeyringCommand::Use(new.id()), &[(old(), (5, 0)), (new.id(), (5, 5))]),
        ("use again", KeyringCommand::Use(new.id()), &[(old(), (5, 0)), (new.id(), (5, 5))]),
        ("remove", KeyringCommand::Remove(old()), &[(new.id(), (5, 5))]),
        ("list", KeyringCommand::List, &[(new.id(), (5, 5))]),
    ];
    for (at, (step, change, keys)) in steps.into_iter().enumerate() {
        let report = cluster.keyring(ALL[at % ALL.len()], change).await;
        assert_eq!((report.nodes, report.answered, report.applied), (5, 5, true), "{step}");
        assert_eq!((names(&report.refusals), names(&report.absent)), Default::default(), "{step}");
        lists(&cluster, "c", keys, step).await;
        assert_eq!(held(&report), keys.iter().copied().collect(), "{step}");
    }
    // A key that no node has, such as one that was removed before: nothing changes, even if forced.
    let removed = KeyringCommand::Remove(old());
    for report in [cluster.keyring("a", removed.clone()).await, cluster.force_keyring("a", removed).await] {
        assert_eq!((report.applied, report.unknown_key), (false, Some(old())), "{report:?}");
    }
    // The next rotation goes back to a former key.
    for change in [KeyringCommand::Install(key(7)), KeyringCommand::Use(old()), KeyringCommand::Remove(new.id())] {
        assert!(cluster.keyring("b", change).await.applied);
    }
    lists(&cluster, "d", &[(old(), (5, 5))], "rotated back").await;
}

#[tokio::test(start_paused = true)]
async fn change_is_refused_while_a_member_cannot_be_asked() {
    let mut cluster = Cluster::running(ALL).await;
    let new = key(8);
    // Before and after the failure detector notices the partition. Both sides are asked.
    for noticed in [false, true] {
        cluster.cut(&["d", "e"], &["a", "b", "c"]);
        if noticed {
            cluster.until(ms(8000), "d is gone", |c| c.reach("a", "d") != Some(Reach::Alive)).await;
            cluster.until(ms(8000), "a is held", |c| c.reach("e", "a") == Some(Reach::Held)).await;
        }
        let changes =
            [KeyringCommand::Install(new.clone()), KeyringCommand::Use(old()), KeyringCommand::Remove(new.id())];
        for change in changes {
            for (at, missing) in [("a", "d e"), ("e", "a b c")] {
                let report = cluster.keyring(at, change.clone()).await;
                assert!(!report.applied, "{change:?} at {at}");
                assert_eq!(names(&report.absent), missing, "{change:?} at {at}, noticed: {noticed}");
                assert_eq!(report.nodes, 5, "{change:?} at {at}");
            }
        }
        let report = cluster.keyring("a", KeyringCommand::List).await;
        assert_eq!((names(&report.absent).as_str(), held(&report)), ("d e", BTreeMap::from([(old(), (3, 3))])));
        heal(&cluster).await;
        lists(&cluster, "e", &[(old(), (5, 5))], "nothing has changed").await;
    }

    // A crashed member counts until it is removed; one that has left counts for the removal of keys.
    cluster.kill("e").await;
    let gone = |c: &Cluster| ["a", "b"].iter().all(|by| matches!(c.reach(by, "e"), Some(Reach::Gone(_))));
    cluster.until(ms(8000), "e is gone", gone).await;
    assert_eq!(names(&cluster.keyring("a", KeyringCommand::Install(new.clone())).await.absent), "e");
    cluster.forget("b", "e").await.unwrap();
    cluster.stop("d").await;
    let left = |of: &str, c: &Cluster| {
        ["a", "b"].iter().all(|by| c.reach(by, of).is_some_and(|reach| reach.as_str() == "left"))
    };
    cluster.until(ms(8000), "d and e have left", |c| left("d", c) && left("e", c)).await;
    for change in [KeyringCommand::Install(new.clone()), KeyringCommand::Use(new.id())] {
        let report = cluster.keyring("a", change).await;
        assert_eq!((report.applied, report.nodes, names(&report.absent).as_str()), (true, 3, ""));
    }
    let report = cluster.keyring("a", KeyringCommand::Remove(old())).await;
    assert_eq!((report.applied, names(&report.absent).as_str()), (false, "d"));
    let report = cluster.keyring("a", KeyringCommand::List).await;
    assert!(report.nodes == 3 && report.absent["d"].contains("force-leave"), "{report:?}");
    // It never returns: every node may carry out the command afterwards.
    cluster.forget("b", "d").await.unwrap();
    cluster
        .until(ms(8000), "d is forgotten", |c| {
            ["a", "b", "c"].iter().all(|by| c.reach(by, "d") == Some(Reach::Gone(Cause::Forgotten)))
        })
        .await;
    let report = cluster.keyring("a", KeyringCommand::Remove(old())).await;
    assert_eq!((report.applied, names(&report.absent).as_str()), (true, ""));
    lists(&cluster, "c", &[(new.id(), (3, 3))], "removed").await;
}

#[tokio::test(start_paused = true)]
async fn forced_change_reaches_those_that_answer_and_names_the_others() {
    let cluster = Cluster::running(ALL).await;
    let new = key(8);
    cluster.cut(&["e"], &["a", "b", "c", "d"]);
    for (step, change) in [KeyringCommand::Install(new.clone()), KeyringCommand::Use(new.id())].into_iter().enumerate()
    {
        let report = cluster.force_keyring("a", change).await;
        assert!(report.applied && report.refusals.is_empty(), "{step}: {report:?}");
        assert_eq!((report.answered, names(&report.absent).as_str()), (4, "e"), "{step}");
    }
    heal(&cluster).await;
    // `e` has neither the key nor the rotation. Nothing changes until it has.
    lists(&cluster, "e", &[(old(), (5, 1)), (new.id(), (4, 4))], "healed").await;
    for (change, why) in
        [(KeyringCommand::Use(new.id()), "no key"), (KeyringCommand::Remove(old()), "is the primary key")]
    {
        let report = cluster.keyring("b", change).await;
        assert!(!report.applied && report.refusals["e"].contains(why), "{report:?}");
        assert_eq!(names(&report.refusals), "e");
    }
    lists(&cluster, "e", &[(old(), (5, 1)), (new.id(), (4, 4))], "nothing has changed").await;
    for change in [KeyringCommand::Install(new.clone()), KeyringCommand::Use(new.id()), KeyringCommand::Remove(old())] {
        let report = cluster.keyring("c", change).await;
        assert!(report.applied && report.refusals.is_empty(), "{report:?}");
    }
    lists(&cluster, "e", &[(new.id(), (5, 5))], "rotated").await;
}

#[tokio::test(start_paused = true)]
async fn refusal_of_one_node_leaves_all_rings_unchanged() {
    let cluster = Cluster::running(ALL).await;
    // The ring of `e` is full.
    cluster.cut(&["e"], &["a", "b", "c", "d"]);
    for number in 0..MAX_KEYS as u8 - 1 {
        assert!(cluster.force_keyring("e", KeyringCommand::Install(key(20 + number))).await.applied);
    }
    heal(&cluster).await;
    let report = cluster.keyring("a", KeyringCommand::Install(key(8))).await;
    assert_eq!((report.applied, names(&report.refusals).as_str()), (false, "e"));
    let report = cluster.keyring("a", KeyringCommand::List).await;
    assert!(!report.keys.contains_key(&key(8).id()), "{report:?}");
    // The own node refuses, even if forced.
    for change in [KeyringCommand::Remove(old()), KeyringCommand::Use(key(99).id())] {
        let report = cluster.force_keyring("b", change).await;
        assert!(!report.applied && report.refusals.contains_key("b"), "{report:?}");
    }
    // A node that does not answer the second request is named, and the repeated command completes the change.
    cluster.keyring("e", KeyringCommand::Remove(key(20).id())).await;
    cluster.network.lose(Some(|message| {
        matches!(message, Message::Keyring { change, .. } if *change != muster::gossip::message::KeyringChange::List)
    }));
    let report = cluster.keyring("a", KeyringCommand::Install(key(8))).await;
    assert_eq!((report.applied, names(&report.absent).as_str()), (true, "b c d e"));
    cluster.network.lose(None);
    let report = cluster.keyring("a", KeyringCommand::Install(key(8))).await;
    assert_eq!((report.applied, names(&report.absent).as_str()), (true, ""));
    assert_eq!(report.keys[&key(8).id()].nodes, 5);
}
