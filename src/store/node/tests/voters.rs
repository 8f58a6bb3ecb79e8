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
    cluster::{Cluster, SOON},
    get, key,
    lifetimes::{TTL, session},
    workload::{Stores, Workload},
};
use crate::store::{
    command::{Command, Operation, Put, PutLease, Transaction, TransactionRequest},
    lease::LeaseId,
    peers::{Addresses, Peers},
    query::{Consistency, Content, Query},
    raft::{Member, Voter},
    request::{MembershipChange, StoreError},
    session::{Behavior, SessionId},
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
    assert_eq!((entries[0].entry.session, entries[0].entry.lock_index), (Some(SESSION), 1));
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
