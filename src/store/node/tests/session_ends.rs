//! Sessions that end with their node or a check, and locks that sessions compete for.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use uuid::Uuid;

use super::{
    cluster::{Cluster, SOON},
    key,
    lifetimes::{TTL, apply, create_with_lock, entry, replace_leader, session, wait_for_release},
};
use crate::{
    model::{
        announcement::{CheckReport, HealthReport, Node},
        catalog::{Freshness, NodeView, View},
        health::Status,
        name::Label,
    },
    store::{
        command::{Command, Done, Operation},
        request::Store,
        session::{Behavior, Session, SessionId},
        session_health::NODE_GRACE,
    },
};

/// Shows the node `app` in the catalog of all nodes, with a check `disk`.
fn show(cluster: &Cluster, freshness: Freshness, status: Status) {
    let name = Label::parse("app").unwrap();
    let check =
        CheckReport { id: "disk".into(), name: "disk".into(), notes: "".into(), status, output: "".into(), since: 0 };
    let node = Node {
        name: name.clone(),
        addresses: vec!["10.0.0.8".parse().unwrap()],
        datacenter: Label::parse("dc1").unwrap(),
        zone: None,
        meta: Default::default(),
        checks: Some(Arc::new(HealthReport { since: 0, checks: vec![check] })),
    };
    let view =
        NodeView { node: Arc::new(node), announcements: Default::default(), external: Default::default(), freshness };
    cluster.catalog.send_modify(|catalog| drop(catalog.update(View::unit(name, Arc::new(view)))));
}

/// A session of the node `app` without a time to live.
fn of_app(number: u128) -> Session {
    Session {
        node: "app".to_owned(),
        ttl: None,
        ends_with_node: true,
        ..session(number, TTL, Behavior::Release, Duration::ZERO)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn session_ends_with_its_node_after_the_grace_and_with_its_check_at_once() {
    let mut cluster = Cluster::start(3, 1).await;
    show(&cluster, Freshness::Live, Status::Passing);
    let store = cluster.store("d").clone();
    create_with_lock(&store, of_app(1), "of-node").await;
    let with_check = Session { node_checks: vec!["disk".to_owned()], ends_with_node: false, ..of_app(2) };
    create_with_lock(&store, with_check, "of-check").await;
    // A flap shorter than the grace, with a new leader.
    show(&cluster, Freshness::Gone, Status::Passing);
    replace_leader(&mut cluster).await;
    show(&cluster, Freshness::LastKnown, Status::Passing);
    sleep(Duration::from_secs(2)).await;
    assert!(entry(&store, "of-node").await.unwrap().attributes().session.is_some(), "a flap costs no lock");
    let critical = Instant::now();
    show(&cluster, Freshness::LastKnown, Status::Critical);
    let ended = wait_for_release(&store, "of-check").await;
    assert!(ended - critical < NODE_GRACE / 2, "a critical check counts at once");
    assert!(entry(&store, "of-node").await.unwrap().attributes().session.is_some());
    let gone = Instant::now();
    show(&cluster, Freshness::Gone, Status::Critical);
    let ended = wait_for_release(&store, "of-node").await;
    assert!(ended - gone >= NODE_GRACE, "after {:?}", ended - gone);
    assert!(ended - gone < NODE_GRACE * 2, "after {:?}", ended - gone);
}

/// Takes the lock, adds to a counter in two steps that only one holder may interleave with, and releases the lock.
async fn count_under_lock(store: &Store, id: SessionId) -> Option<u64> {
    let (name, value) = (key("lock"), Bytes::from(id.to_string()));
    let lock = Operation::Lock { key: name.clone(), value: value.clone(), flags: 0, session: id };
    let Done::Operated(entries) = apply(store, Command::Operate(vec![lock])).await else { return None };
    let fencing = entries[0].entry.attributes().lock_index;
    let count = entry(store, "count").await.map_or(0, |entry| entry.attributes().flags);
    let write = vec![
        Operation::CheckSession { key: name.clone(), session: id },
        Operation::Set { key: key("count"), value: Bytes::new(), flags: count + 1 },
    ];
    let written = apply(store, Command::Operate(write)).await;
    assert!(matches!(written, Done::Operated(_)), "the holder keeps its lock: {written:?}");
    let unlock = Operation::Unlock { key: name, value, flags: 0, session: id };
    apply(store, Command::Operate(vec![unlock])).await;
    Some(fencing)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sessions_never_hold_a_lock_at_once() {
    const TURNS: usize = 15;
    let mut cluster = Cluster::start(3, 2).await;
    let mut clients = JoinSet::new();
    for (number, name) in cluster.names().to_vec().into_iter().enumerate().skip(3).chain([(7, "d".to_owned())]) {
        let store = cluster.store(&name).clone();
        let session = session(number as u128, TTL * 100, Behavior::Release, Duration::ZERO);
        let id = SessionId(Uuid::from_u128(number as u128));
        apply(&store, Command::CreateSession(Box::new(session))).await;
        clients.spawn(async move {
            let (mut turns, until) = (Vec::new(), Instant::now() + SOON);
            while turns.len() < TURNS {
                turns.extend(count_under_lock(&store, id).await);
                assert!(Instant::now() < until);
                sleep(Duration::from_millis(20)).await;
            }
            turns
        });
    }
    for _ in 0..2 {
        sleep(Duration::from_millis(500)).await;
        replace_leader(&mut cluster).await;
    }
    let mut turns = Vec::new();
    while let Some(ended) = clients.join_next().await {
        turns.extend(ended.unwrap());
    }
    let all = turns.len();
    turns.sort_unstable();
    turns.dedup();
    assert_eq!(turns.len(), all, "each turn has a lock index of its own");
    let count = entry(cluster.store("a"), "count").await.unwrap().attributes().flags;
    assert!(count as usize >= all, "no count was overwritten: {count} of {all}");
}
