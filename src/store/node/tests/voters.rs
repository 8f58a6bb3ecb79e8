//! Changes of the voters under load, and folders of earlier versions.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use uuid::Uuid;

use super::{
    cluster::{Cluster, Link, SOON, copy_folder},
    get, id_of, key,
    lifetimes::{TTL, session},
    put, value, wait_for_value,
    workload::{Stores, Workload},
};
use crate::{
    metrics::StoreMember,
    store::{
        command::{Command, Operation, Put, PutLease, Transaction, TransactionRequest},
        follow::Follower,
        key::KeyRange,
        lease::LeaseId,
        peers::{Addresses, Peers},
        query::{Consistency, Content, Query},
        raft::{Member, Voter},
        request::{MembershipChange, StoreError},
        session::{Behavior, SessionId},
        watch::{Watch, WatchMessage},
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn voters_are_added_and_removed_under_load() {
    let cluster = Cluster::start(3, 2).await;
    cluster.leader().await;
    let stores = Stores::default();
    let running = cluster.running.iter().map(|(name, running)| (name.clone(), running.store.clone()));
    *stores.lock().unwrap() = running.collect();
    let workload = Workload::new(4000);
    let nodes = cluster.names().to_vec();
    let clients = tokio::spawn({
        let workload = workload.clone();
        async move { workload.run(&nodes, stores, 20).await }
    });
    let changes = [("d", true), ("a", false), ("e", true), ("b", false), ("a", true)];
    for (name, is_added) in changes {
        let change = if is_added { MembershipChange::Add } else { MembershipChange::Remove };
        let until = Instant::now() + SOON;
        loop {
            match cluster.store("c").change_membership(change(name.to_owned())).await {
                Ok(()) => break,
                // Another leader has carried it out.
                Err(StoreError::Membership(reason))
                    if reason.contains("is a voter already") || reason.contains("is not a member") =>
                {
                    break;
                }
                Err(error) => assert!(Instant::now() < until, "{name}: {error}"),
            }
            sleep(Duration::from_millis(100)).await;
        }
        let has_changed = |status: &crate::store::request::Status| {
            status.members.iter().any(|member| member.node == name && member.is_voter) == is_added
        };
        cluster.wait_for(name, has_changed).await;
    }
    timeout(SOON, clients).await.unwrap().unwrap();
    eprintln!("{:?}", workload.check(20));
}

/// Folder of a voter as version 1 of the formats wrote it.
fn data_of_version_1() -> PathBuf {
    Path::new(file!()).with_file_name("data").join("v1")
}

const SESSION: SessionId = SessionId(Uuid::from_u128(0x5e55));
const LEASE: LeaseId = LeaseId(0x1ea5e);
/// Long, so that neither ends while it is looked for.
const LONG: Duration = Duration::from_secs(86_400);

#[tokio::test(flavor = "multi_thread")]
async fn folder_of_version_1_is_read() {
    if std::env::var_os("MUSTER_BLESS").is_some() {
        write_folder_of_this_version().await;
    }
    let cluster = Cluster::start_from(1, 0, &[("a", &data_of_version_1())]).await;
    let store = cluster.store("a");
    for number in [1, 17, 40, 41, 60] {
        assert_eq!(get(store, &format!("key/{number}")).await, Some(format!("value {number}")), "snapshot and log");
    }
    assert_eq!(get(store, "key/7").await, None, "deleted");
    let read = async |query| store.read(query, Consistency::Linearizable, None).await.unwrap().content;
    let Content::Entries(entries) = read(Query::Key(key("lock"))).await else { panic!("entries") };
    assert_eq!((entries[0].entry.attributes().session, entries[0].entry.attributes().lock_index), (Some(SESSION), 1));
    let Content::Sessions(sessions) = read(Query::Session(SESSION)).await else { panic!("sessions") };
    assert_eq!(sessions[0].ttl, Some(LONG));
    let Content::Lease(Some(lease)) = read(Query::Lease(LEASE)).await else { panic!("a lease") };
    assert_eq!((lease.ttl, lease.keys), (LONG.as_secs(), vec![key("leased")]));
    assert_ne!(store.status().await.unwrap().cluster_id, 0);
}

/// Writes the folder of [`folder_of_version_1_is_read`]. A later version of the formats has a folder of its own.
async fn write_folder_of_this_version() {
    const ID: u64 = 0xa11ce;
    let folder = data_of_version_1();
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("id"), format!("{ID:016x}\n")).unwrap();
    let (_addresses, addresses) = watch::channel(Arc::new(Addresses::new()));
    let (_keyring, keyring) = watch::channel(None);
    let voter = Voter::open(&folder, ID, Peers::new("a".to_owned(), keyring, addresses), 1 << 30, Default::default())
        .await
        .unwrap();
    voter.found(BTreeMap::from([(ID, Member { node: "a".to_owned() })])).await.unwrap();
    while !voter.role().is_leader {
        sleep(Duration::from_millis(10)).await;
    }
    let set = |number: u32| {
        let value = Bytes::from(format!("value {number}"));
        Command::Operate(vec![Operation::Set { key: key(&format!("key/{number}")), value, flags: number.into() }])
    };
    let held = crate::store::session::Session { id: SESSION, ..session(1, LONG, Behavior::Delete, TTL) };
    let lock = Operation::Lock { key: key("lock"), value: "held".into(), flags: 0, session: SESSION };
    let put = Put { key: key("leased"), value: Some("1".into()), lease: PutLease::Attach(LEASE), with_previous: false };
    let mut commands = vec![Command::Found { cluster: ID }];
    commands.extend((1..=40).map(set));
    commands.extend([
        Command::CreateSession(Box::new(held)),
        Command::Operate(vec![lock]),
        Command::GrantLease { id: LEASE, ttl: LONG.as_secs() },
        Command::Transact(Transaction { success: vec![TransactionRequest::Put(put)], ..Transaction::default() }),
    ]);
    for command in commands {
        voter.propose(command).await.unwrap().result.unwrap();
    }
    voter.take_snapshot().await;
    while !folder.join("snapshot").exists() {
        sleep(Duration::from_millis(10)).await;
    }
    for command in (41..=60).map(set).chain([Command::Operate(vec![Operation::Delete(key("key/7"))])]) {
        voter.propose(command).await.unwrap().result.unwrap();
    }
    voter.end().await;
    std::fs::remove_file(folder.join("log/LOCK")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_second_store_is_founded_beside_another() {
    let mut cluster = Cluster::start(2, 1).await;
    put(cluster.store("a"), "x", "1").await;
    cluster.stop("c").await;
    cluster.configure(&["c"]);
    cluster.run("c").await;
    // It is a voter of its own store as soon as it founds one.
    let read = cluster.store("c").read(Query::Key(key("x")), Consistency::Linearizable, None).await;
    assert!(matches!(read, Err(StoreError::NoLeader | StoreError::Unreachable)), "{read:?}");
    cluster.store("a").change_membership(MembershipChange::Add("c".to_owned())).await.unwrap();
    assert_eq!(get(cluster.store("c"), "x").await.as_deref(), Some("1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn change_of_the_voters_without_a_majority_fails_soon() {
    let mut cluster = Cluster::start(3, 0).await;
    cluster.leader().await;
    cluster.kill("a").await;
    cluster.kill("b").await;
    let removed = cluster.store("c").change_membership(MembershipChange::Remove("a".to_owned()));
    let removed = timeout(SOON / 2, removed).await.expect("an answer");
    assert!(matches!(removed, Err(StoreError::NoLeader | StoreError::Unreachable)), "{removed:?}");
}

/// Returns an id that a name has among the voters, once it is one of them.
async fn voter_id(cluster: &Cluster, name: &str) -> u64 {
    let status = cluster.wait_for(name, |status| status.leader.is_some() && id_of(status, name).is_some()).await;
    id_of(&status, name).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn removed_voter_is_like_any_other_node_and_can_be_added_again() {
    let cluster = Cluster::start(3, 1).await;
    put(cluster.store("d"), "x/1", "before").await;
    let leader = cluster.leader().await;
    let removed = ["a", "b", "c"].into_iter().find(|name| *name != leader).unwrap();
    // One learns of its removal from the others, and the leader removes itself.
    for removed in [removed, leader.as_str()] {
        let store = cluster.store(removed);
        let former_id = voter_id(&cluster, removed).await;
        let mut follower = Follower::new(store.clone(), KeyRange::prefix("x/"), None);
        assert!(matches!(follower.next().await, Ok(WatchMessage::Began(_))));
        cluster.store("d").change_membership(MembershipChange::Remove(removed.to_owned())).await.unwrap();
        put(cluster.store("d"), "x/1", removed).await;
        let seen = async {
            loop {
                if let WatchMessage::Changes { changes, .. } = follower.next().await.unwrap() {
                    return changes.last().unwrap().entry.as_ref().unwrap().value.clone();
                }
            }
        };
        assert_eq!(timeout(SOON, seen).await.expect("the watch moves to a voter"), removed);
        wait_for_value(store, "x/1", removed).await;
        let metrics = &cluster.running[removed].metrics;
        let ended = async {
            while metrics.member() != StoreMember::None {
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(SOON, ended).await.expect("its metrics end");
        put(store, "x/1", "through the removed one").await;
        cluster.store("d").change_membership(MembershipChange::Add(removed.to_owned())).await.unwrap();
        assert_ne!(voter_id(&cluster, removed).await, former_id);
        assert!(cluster.data(&format!("{removed}.removed")).exists(), "its log was set aside");
        wait_for_value(store, "x/1", "through the removed one").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn node_with_another_store_is_not_added() {
    let mut other = Cluster::start(1, 0).await;
    put(other.store("a"), "x", "other").await;
    other.stop("a").await;
    let mut cluster = Cluster::start(2, 1).await;
    put(cluster.store("a"), "x", "1").await;
    cluster.stop("c").await;
    copy_folder(&other.data("a"), &cluster.data("c"));
    std::fs::remove_file(cluster.data("c").join("log/LOCK")).unwrap();
    cluster.run("c").await;
    let until = Instant::now() + SOON;
    loop {
        let added = cluster.store("a").change_membership(MembershipChange::Add("c".to_owned())).await;
        let Err(StoreError::Membership(reason)) = added else { panic!("{added:?}") };
        if reason.contains("c holds another store: stop its agent") {
            break;
        }
        assert!(reason.contains("cannot be reached") && Instant::now() < until, "{reason}");
    }
    put(cluster.store("a"), "x", "2").await;
    let status = cluster.wait_for("a leader", |status| status.leader.is_some() && status.node != "c").await;
    assert_eq!(status.members.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn added_node_votes_once_it_has_the_store() {
    const KEYS: u64 = 900;
    let cluster = Cluster::start(1, 1).await;
    for number in 0..KEYS {
        put(cluster.store("a"), &number.to_string(), "v").await;
    }
    let store = cluster.store("a").clone();
    let adding = tokio::spawn(async move { store.change_membership(MembershipChange::Add("b".to_owned())).await });
    loop {
        let status = cluster.store("a").status().await.unwrap();
        if let Some(member) = status.members.iter().find(|member| member.node == "b" && member.is_voter) {
            assert!(member.lag.unwrap() < 50, "votes, and lacks {:?} entries", member.lag);
            break;
        }
        assert!(!adding.is_finished(), "{:?}", adding.await);
        tokio::task::yield_now().await;
    }
    adding.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn learner_that_cannot_be_reached_does_not_become_a_voter() {
    let cluster = Cluster::start(1, 1).await;
    put(cluster.store("a"), "x", "1").await;
    let store = cluster.store("a").clone();
    let adding = tokio::spawn(async move { store.change_membership(MembershipChange::Add("b".to_owned())).await });
    // It is cut as soon as it is asked for its id.
    while !cluster.data("b").join("id").exists() {
        sleep(Duration::from_millis(1)).await;
    }
    let is_learner = |status: &crate::store::request::Status| status.members.len() == 2;
    cluster.set_links("b", Link::Stalled);
    let added = timeout(SOON, adding).await.unwrap().unwrap();
    // The cut may be too early or too late on a busy machine.
    if let Err(StoreError::Membership(reason)) = &added
        && reason.contains("is a learner without a vote")
    {
        cluster.wait_for("a learner", is_learner).await;
        put(cluster.store("a"), "x", "2").await;
    }
    cluster.heal();
    let _ = cluster.store("a").change_membership(MembershipChange::Add("b".to_owned())).await;
    voter_id(&cluster, "b").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_voter_of_three_and_a_wiped_one_show_what_the_one_knows() {
    let mut cluster = Cluster::start(3, 1).await;
    put(cluster.store("a"), "x", "1").await;
    wait_for_value(cluster.store("a"), "x", "1").await;
    cluster.kill("b").await;
    cluster.kill("c").await;
    cluster.wipe("c");
    cluster.run("c").await;
    // Neither the wiped voter nor a node without one answers from an empty state.
    for name in ["a", "c", "d"] {
        let store = cluster.store(name);
        let answer = store.read(Query::Key(key("x")), Consistency::Stale, None).await.unwrap();
        assert_eq!(value(&answer.content).as_deref(), Some("1"), "{name}");
        let watch = Watch { range: KeyRange::prefix("x"), from: None };
        let began = store.watch(watch).await.unwrap().recv().await;
        assert_eq!(began, Some(WatchMessage::Began(answer.revision)), "{name}");
        let is_told = |status: &crate::store::request::Status| {
            status.leader.is_none() && status.keys == 1 && status.members.len() == 3 && status.node == "a"
        };
        let until = Instant::now() + SOON;
        while !is_told(&store.status().await.unwrap()) {
            assert!(Instant::now() < until, "{name}: {:?}", store.status().await);
        }
        let written = store.write(Command::Operate(Vec::new())).await;
        assert_eq!(written, Err(StoreError::NoLeader), "{name}: a voter is reached");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stale_answer_tells_whether_there_is_a_leader() {
    let mut cluster = Cluster::start(3, 1).await;
    put(cluster.store("a"), "key", "1").await;
    cluster.leader().await;
    let read = |name: &'static str, cluster: &Cluster| {
        let store = cluster.store(name).clone();
        async move { store.read(Query::Key(key("key")), Consistency::Stale, None).await.unwrap().contact }
    };
    for name in ["a", "b", "c", "d"] {
        let contact = read(name, &cluster).await;
        assert!(contact.has_leader && contact.silence < Duration::from_secs(2), "{name}: {contact:?}");
    }
    cluster.kill("b").await;
    cluster.kill("c").await;
    sleep(Duration::from_secs(5)).await;
    // Node d has no voter, and forwards to the one that is left.
    for name in ["a", "d"] {
        let contact = read(name, &cluster).await;
        assert!(!contact.has_leader && contact.silence >= Duration::from_secs(3), "{name}: {contact:?}");
    }
    cluster.kill("a").await;
    let status = cluster.store("d").status().await.unwrap();
    assert_eq!((status.members, status.known_voters), (vec![], ["a", "b", "c"].map(str::to_owned).to_vec()));
}
