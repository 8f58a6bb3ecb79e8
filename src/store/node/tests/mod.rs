//! Scenarios of a cluster: foundation, forwarding, failover, replaced disks, changes of voters, watches.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

mod cluster;
mod disks;
mod faults;
mod history;
mod lifetimes;
mod recovery;
mod resignation;
mod session_ends;
mod voters;
mod watches;
mod workload;

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout};

use self::cluster::{Cluster, Link, SOON};
use crate::store::{
    command::{Command, Done, Operation},
    key::{Key, KeyRange, Revision},
    query::{Consistency, Content, Query, Wait},
    request::{MembershipChange, Status, Store, StoreError},
    watch::{Watch, WatchMessage},
};

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

/// Sets a key, again while there is no leader.
async fn put(store: &Store, name: &str, value: &str) {
    let until = Instant::now() + SOON;
    loop {
        let operation = Operation::Set { key: key(name), value: Bytes::from(value.to_owned()), flags: 0 };
        match store.write(Command::Operate(vec![operation])).await {
            Ok(outcome) => return assert!(matches!(outcome.result, Ok(Done::Operated(_)))),
            Err(error) => assert!(Instant::now() < until, "{name}: {error}"),
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Reads a key, again while there is no leader.
async fn get(store: &Store, name: &str) -> Option<String> {
    let until = Instant::now() + SOON;
    loop {
        match store.read(Query::Key(key(name)), Consistency::Linearizable, None).await {
            Ok(answer) => return value(&answer.content),
            Err(error) => assert!(Instant::now() < until, "{name}: {error}"),
        }
    }
}

/// Waits until a node's own state has this value, which may be behind.
async fn wait_for_value(store: &Store, name: &str, expected: &str) {
    let until = Instant::now() + SOON;
    loop {
        let answer = store.read(Query::Key(key(name)), Consistency::Stale, None).await.unwrap();
        if value(&answer.content).as_deref() == Some(expected) {
            return;
        }
        assert!(Instant::now() < until, "{name} is not {expected}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// The id of a voter.
fn id_of(status: &Status, name: &str) -> Option<u64> {
    status.members.iter().find(|member| member.node == name && member.is_voter).map(|member| member.id)
}

fn value(content: &Content) -> Option<String> {
    let Content::Entries(entries) = content else { panic!("{content:?}") };
    entries.first().map(|entry| String::from_utf8(entry.entry.value.to_vec()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_voter_is_founded_and_keeps_keys_over_a_restart() {
    let mut cluster = Cluster::start(1, 0).await;
    put(cluster.store("a"), "color", "red").await;
    let before = cluster.wait_for("a cluster id", |status| status.cluster_id != 0).await;
    cluster.stop("a").await;
    cluster.run("a").await;
    assert_eq!(get(cluster.store("a"), "color").await.as_deref(), Some("red"));
    let after = cluster.wait_for("a cluster id", |status| status.cluster_id != 0).await;
    assert_eq!((before.cluster_id, before.member_id), (after.cluster_id, after.member_id));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_reads_what_every_node_writes() {
    let cluster = Cluster::start(3, 2).await;
    for name in cluster.names() {
        put(cluster.store(name), name, &format!("of {name}")).await;
    }
    for reader in cluster.names() {
        for writer in cluster.names() {
            assert_eq!(get(cluster.store(reader), writer).await, Some(format!("of {writer}")), "{reader}");
        }
    }
    let status = cluster.wait_for("three voters", |status| status.members.len() == 3).await;
    assert!(status.members.iter().all(|member| member.is_voter), "{status:?}");
    assert!(!cluster.data("d").join("log").exists(), "a node that is no voter keeps no log");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_voter_leads_after_the_leader_ends() {
    let mut cluster = Cluster::start(3, 1).await;
    put(cluster.store("d"), "before", "1").await;
    let first = cluster.leader().await;
    cluster.kill(&first).await;
    put(cluster.store("d"), "after", "2").await;
    assert_ne!(cluster.leader().await, first);
    let status = cluster.wait_for("a leader", |status| status.leader.is_some()).await;
    let dead = status.members.iter().find(|member| member.node == first).unwrap();
    assert_eq!(dead.lag, None, "the new leader has not heard of it");
    assert_eq!(get(cluster.store("d"), "before").await.as_deref(), Some("1"));
    cluster.run(&first).await;
    assert_eq!(get(cluster.store(&first), "after").await.as_deref(), Some("2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn status_shows_for_how_long_a_voter_has_not_replied() {
    const LONG: Duration = Duration::from_secs(2);
    let mut cluster = Cluster::start(3, 1).await;
    put(cluster.store("d"), "key", "1").await;
    let leader = cluster.leader().await;
    let lost = cluster.names()[..3].iter().find(|name| **name != leader).unwrap().clone();
    let unreached = |status: &Status, name: &str| {
        let members = status.members.iter().filter(|member| member.node == name);
        members.filter_map(|member| member.unreached).next()
    };
    let are_reached = |status: &Status| {
        ["a", "b", "c"].iter().all(|name| unreached(status, name).is_some_and(|unreached| unreached < LONG))
    };
    cluster.wait_for("replies of all voters", are_reached).await;
    cluster.kill(&lost).await;
    cluster
        .wait_for("a voter without a reply", |status| {
            let is_lost = |name: &str| unreached(status, name).is_some_and(|unreached| unreached >= LONG);
            ["a", "b", "c"].iter().all(|name| is_lost(name) == (*name == lost))
        })
        .await;
    cluster.run(&lost).await;
    cluster.wait_for("replies of all voters", are_reached).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn isolated_leader_answers_no_linearizable_read() {
    let cluster = Cluster::start(3, 0).await;
    put(cluster.store("a"), "key", "old").await;
    let leader = cluster.leader().await;
    cluster.set_links(&leader, Link::Silent);
    let other = cluster.names().iter().find(|name| **name != leader).unwrap();
    put(cluster.store(other), "key", "new").await;
    let read = cluster.store(&leader).read(Query::Key(key("key")), Consistency::Linearizable, None).await;
    assert!(matches!(read, Err(StoreError::NoLeader | StoreError::Unreachable)), "{read:?}");
    let stale = cluster.store(&leader).read(Query::Key(key("key")), Consistency::Stale, None).await.unwrap();
    assert_eq!(value(&stale.content).as_deref(), Some("old"));
    cluster.set_links(&leader, Link::Closed);
    cluster.set_links(&leader, Link::Open);
    assert_eq!(get(cluster.store(&leader), "key").await.as_deref(), Some("new"));
}

#[tokio::test(flavor = "multi_thread")]
async fn voter_with_a_replaced_disk_comes_back_under_a_new_id() {
    let mut cluster = Cluster::start(3, 0).await;
    put(cluster.store("a"), "key", "kept").await;
    cluster.leader().await;
    let before = cluster.wait_for("members", |status| status.members.len() == 3).await;
    cluster.stop("c").await;
    cluster.wipe("c");
    cluster.run("c").await;
    let former = id_of(&before, "c");
    let is_replaced = |status: &Status| status.members.len() == 3 && ![None, former].contains(&id_of(status, "c"));
    cluster.wait_for("a new id", is_replaced).await;
    wait_for_value(cluster.store("c"), "key", "kept").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn voters_are_added_and_removed_by_command() {
    let cluster = Cluster::start(1, 2).await;
    put(cluster.store("a"), "key", "kept").await;
    let voters = |status: &Status| {
        let voters = status.members.iter().filter(|member| member.is_voter);
        voters.map(|member| member.node.clone()).collect::<Vec<_>>()
    };
    for name in ["b", "c"] {
        cluster.store("c").change_membership(MembershipChange::Add(name.to_owned())).await.unwrap();
    }
    cluster.wait_for("three voters", |status| voters(status).len() == 3).await;
    cluster.store("b").change_membership(MembershipChange::Remove("a".to_owned())).await.unwrap();
    put(cluster.store("a"), "key", "changed").await;
    let left = cluster.wait_for("two voters", |status| voters(status).len() == 2).await;
    assert!(!voters(&left).contains(&"a".to_owned()), "{left:?}");
    let cases = [
        (MembershipChange::Add("z".to_owned()), "z cannot be reached"),
        (MembershipChange::Add("b".to_owned()), "b is a voter already"),
        (MembershipChange::Remove("z".to_owned()), "z is not a member"),
    ];
    for (change, expected) in cases {
        let refused = cluster.store("b").change_membership(change).await.unwrap_err().to_string();
        assert!(refused.contains(expected), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn blocking_query_wakes_for_its_key_only() {
    let cluster = Cluster::start(1, 1).await;
    put(cluster.store("b"), "watched", "1").await;
    let seen = cluster.store("b").read(Query::Key(key("watched")), Consistency::Linearizable, None).await.unwrap();
    let wait = Wait { index: seen.index, limit: SOON };
    let store = cluster.store("b").clone();
    let waiting =
        tokio::spawn(
            async move { store.read(Query::Key(key("watched")), Consistency::Linearizable, Some(wait)).await },
        );
    put(cluster.store("a"), "other", "1").await;
    assert!(!waiting.is_finished());
    put(cluster.store("a"), "watched", "2").await;
    let answer = timeout(SOON, waiting).await.unwrap().unwrap().unwrap();
    assert_eq!(value(&answer.content).as_deref(), Some("2"));
    assert!(answer.index > seen.index);
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_neither_misses_nor_repeats_a_revision_across_leaders() {
    const WRITES: u64 = 60;
    let mut cluster = Cluster::start(3, 1).await;
    put(cluster.store("d"), "start", "0").await;
    let watching = cluster.store("d").clone();
    let watcher = tokio::spawn(async move {
        let (mut next, mut seen) = (Revision(1), Vec::new());
        while seen.last() != Some(&WRITES.to_string()) {
            let watch = Watch { range: KeyRange::prefix("count"), from: Some(next) };
            let mut messages = watching.watch(watch).await.unwrap();
            while let Some(message) = messages.recv().await {
                match message {
                    WatchMessage::Began(_) => {}
                    WatchMessage::Changes { changes, .. } => {
                        for change in changes {
                            assert!(change.revision >= next, "{change:?} before {next}");
                            next = change.revision.next();
                            seen.push(String::from_utf8(change.entry.unwrap().value.to_vec()).unwrap());
                        }
                    }
                    WatchMessage::Progress(revision) => next = next.max(revision.next()),
                    WatchMessage::Compacted(first) => panic!("compacted at {first}"),
                }
                if seen.last() == Some(&WRITES.to_string()) {
                    break;
                }
            }
        }
        seen
    });
    for count in 1..=WRITES {
        put(cluster.store("d"), "count", &count.to_string()).await;
        if count % 20 == 0 {
            let leader = cluster.leader().await;
            if count == 20 {
                cluster.stop(&leader).await;
            } else {
                cluster.kill(&leader).await;
            }
            cluster.run(&leader).await;
        }
    }
    let mut seen = timeout(SOON, watcher).await.unwrap().unwrap();
    // A write whose outcome was unknown was repeated.
    seen.dedup();
    assert_eq!(seen, (1..=WRITES).map(|count| count.to_string()).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn answer_longer_than_a_message_reaches_other_nodes() {
    const KEYS: usize = 24;
    let cluster = Cluster::start(1, 1).await;
    let value = "v".repeat(1 << 19);
    for at in 0..KEYS {
        put(cluster.store("b"), &format!("long/{at}"), &value).await;
    }
    let prefix = Query::Prefix(Bytes::from_static(b"long/"));
    let answer = cluster.store("b").read(prefix, Consistency::Linearizable, None).await.unwrap();
    let Content::Entries(entries) = answer.content else { panic!("{:?}", answer.index) };
    assert!(entries.len() == KEYS && entries.iter().all(|entry| entry.entry.value.len() == value.len()));
}
