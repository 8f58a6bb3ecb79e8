//! Leases, sessions and locks across changes of the leader.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{
    cluster::{Cluster, Link, SOON},
    get, key, put,
};
use crate::store::{
    command::{Command, Done, Operation, OperationFailureReason, Put, PutLease, Transaction, TransactionRequest},
    entry::Entry,
    lease::{LeaseId, LifetimeId},
    query::{Consistency, Content, Query},
    request::Store,
    session::{self, Behavior, Session, SessionId},
};

/// Time to live in the tests: the shortest of a session.
pub(super) const TTL: Duration = session::MIN_TTL;

/// A session that ends by its time to live only.
pub(super) fn session(number: u128, ttl: Duration, behavior: Behavior, lock_delay: Duration) -> Session {
    Session {
        id: SessionId(Uuid::from_u128(number)),
        name: String::new(),
        node: "a".to_owned(),
        ends_with_node: false,
        node_checks: Vec::new(),
        service_checks: Vec::new(),
        lock_delay,
        behavior,
        ttl: Some(ttl),
        created: crate::store::key::Revision(0),
    }
}

/// Applies a command, again while there is no leader.
pub(super) async fn apply(store: &Store, command: Command) -> Done {
    let until = Instant::now() + SOON;
    loop {
        match store.write(command.clone()).await {
            Ok(outcome) => return outcome.result.unwrap(),
            Err(error) => assert!(Instant::now() < until, "{command:?}: {error}"),
        }
        sleep(Duration::from_millis(50)).await;
    }
}

async fn lock(store: &Store, name: &str, session: SessionId) -> Done {
    let value = Bytes::from(session.to_string());
    apply(store, Command::Operate(vec![Operation::Lock { key: key(name), value, flags: 0, session }])).await
}

/// Creates a session and locks a key for it.
pub(super) async fn create_with_lock(store: &Store, session: Session, name: &str) -> SessionId {
    let id = session.id;
    apply(store, Command::CreateSession(Box::new(session))).await;
    assert!(matches!(lock(store, name, id).await, Done::Operated(_)));
    id
}

/// Reads the entry of a key, again while there is no leader.
pub(super) async fn entry(store: &Store, name: &str) -> Option<Entry> {
    let until = Instant::now() + SOON;
    loop {
        match store.read(Query::Key(key(name)), Consistency::Linearizable, None).await {
            Ok(answer) => {
                let Content::Entries(entries) = answer.content else { panic!("{name}") };
                return entries.first().map(|entry| (*entry.entry).clone());
            }
            Err(error) => assert!(Instant::now() < until, "{name}: {error}"),
        }
    }
}

/// Waits until a key is not held, and returns the time.
pub(super) async fn wait_for_release(store: &Store, name: &str) -> Instant {
    let until = Instant::now() + SOON;
    while entry(store, name).await.is_some_and(|entry| entry.attributes().session.is_some()) {
        assert!(Instant::now() < until, "{name} is still held");
        sleep(Duration::from_millis(50)).await;
    }
    Instant::now()
}

/// Kills the leader, waits for another one, and starts the former one.
pub(super) async fn replace_leader(cluster: &mut Cluster) {
    let leader = cluster.leader().await;
    cluster.kill(&leader).await;
    cluster.leader().await;
    cluster.run(&leader).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn renewed_session_and_lease_outlive_five_leaders() {
    let mut cluster = Cluster::start(3, 1).await;
    let store = cluster.store("d").clone();
    let id = create_with_lock(&store, session(1, TTL, Behavior::Delete, Duration::ZERO), "lock").await;
    let lease = LeaseId(7);
    apply(&store, Command::GrantLease { id: lease, ttl: TTL.as_secs() }).await;
    let put = Put { key: key("leased"), value: Some("1".into()), lease: PutLease::Attach(lease), with_previous: false };
    let transaction = Transaction { success: vec![TransactionRequest::Put(put)], ..Transaction::default() };
    apply(&store, Command::Transact(transaction)).await;
    let (held, leased) = (entry(&store, "lock").await.unwrap(), entry(&store, "leased").await.unwrap());
    let renewing = tokio::spawn({
        let store = store.clone();
        async move {
            loop {
                for id in [LifetimeId::Session(id), LifetimeId::Lease(lease)] {
                    // Without a leader, the client tries again at once, as clients do.
                    while match store.renew(id).await {
                        Ok(renewed) => {
                            assert!(renewed.is_some(), "{id:?} has ended");
                            false
                        }
                        Err(_) => true,
                    } {}
                }
                sleep(TTL / 3).await;
            }
        }
    });
    for _ in 0..5 {
        replace_leader(&mut cluster).await;
        sleep(TTL / 4).await;
    }
    assert!(!renewing.is_finished());
    renewing.abort();
    assert_eq!(entry(&store, "lock").await, Some(held), "the session holds its lock without a gap");
    assert_eq!(entry(&store, "leased").await, Some(leased));
}

#[tokio::test(flavor = "multi_thread")]
async fn session_and_lease_end_within_twice_their_time_although_leaders_end() {
    let mut cluster = Cluster::start(3, 1).await;
    let store = cluster.store("d").clone();
    let lease = LeaseId(7);
    let began = Instant::now();
    create_with_lock(&store, session(1, TTL, Behavior::Release, Duration::ZERO), "released").await;
    create_with_lock(&store, session(2, TTL, Behavior::Delete, Duration::ZERO), "deleted").await;
    apply(&store, Command::GrantLease { id: lease, ttl: TTL.as_secs() }).await;
    let granted = Instant::now();
    for _ in 0..2 {
        sleep(TTL * 2 / 5).await;
        replace_leader(&mut cluster).await;
    }
    for name in ["released", "deleted"] {
        let ended = wait_for_release(&store, name).await;
        assert!(ended - began >= TTL, "{name} ended early");
        assert!(ended - granted < TTL * 2, "{name} ended after {:?}", ended - granted);
    }
    assert_eq!(store.renew(LifetimeId::Lease(lease)).await, Ok(None));
    assert!(entry(&store, "released").await.is_some_and(|entry| entry.attributes().session.is_none()));
    assert_eq!(entry(&store, "deleted").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn lease_outlives_the_loss_of_the_majority() {
    let cluster = Cluster::start(3, 0).await;
    let ttl = 3;
    let leader = cluster.leader().await;
    put(cluster.store(&leader), "key", "1").await;
    let id = LeaseId(9);
    apply(cluster.store(&leader), Command::GrantLease { id, ttl }).await;
    for name in cluster.names() {
        cluster.set_links(name, Link::Stalled);
    }
    sleep(Duration::from_secs(2 * ttl)).await;
    cluster.heal();
    let until = Instant::now() + SOON;
    loop {
        match cluster.store("a").renew(LifetimeId::Lease(id)).await {
            Ok(renewed) => {
                return assert_eq!(renewed, Some(Duration::from_secs(ttl)), "no client could renew it meanwhile");
            }
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lock_delay_holds_across_leaders() {
    const DELAY: Duration = Duration::from_secs(5);
    let mut cluster = Cluster::start(3, 1).await;
    let store = cluster.store("d").clone();
    let first = create_with_lock(&store, session(1, TTL * 10, Behavior::Release, DELAY), "lock").await;
    apply(&store, Command::CreateSession(Box::new(session(2, TTL * 10, Behavior::Release, DELAY)))).await;
    let second = SessionId(Uuid::from_u128(2));
    let released = Instant::now();
    apply(&store, Command::DestroySession(first)).await;
    let released_at_most = Instant::now();
    replace_leader(&mut cluster).await;
    loop {
        match lock(&store, "lock", second).await {
            Done::Operated(_) => break,
            Done::Failed(failures) => assert_eq!(failures[0].reason, OperationFailureReason::LockDelay),
            done => panic!("{done:?}"),
        }
        assert!(released_at_most.elapsed() < SOON);
        sleep(Duration::from_millis(50)).await;
    }
    assert!(released.elapsed() >= DELAY, "the lock was acquired after {:?}", released.elapsed());
    assert_eq!(entry(&store, "lock").await.unwrap().attributes().lock_index, 2);
    assert_eq!(get(&store, "lock").await, Some(second.to_string()));
}
