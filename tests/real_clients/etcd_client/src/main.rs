//! Calls of the crate etcd-client, over gRPC.
//!
//! ```text
//! etcd-client-calls ETCD OTHER
//! ```
//!
//! takes the addresses of etcd's API on two nodes of a cluster. It exits with 0 if all responses are as expected.

use std::time::Duration;

use etcd_client::{
    Client, Compare, CompareOp, DeleteOptions, Error, EventType, GetOptions, LeaseTimeToLiveOptions, LockOptions,
    ProclaimOptions, PutOptions, ResignOptions, SortOrder, SortTarget, Txn, TxnOp, TxnOpResponse, WatchOptions,
};
use tokio::time::timeout;

/// Time limit for what must happen.
const LIMIT: Duration = Duration::from_secs(20);
/// Time for which nothing may happen.
const PAUSE: Duration = Duration::from_millis(300);

#[tokio::main]
async fn main() -> Result<(), Error> {
    let [first, second] = [1, 2].map(|at| std::env::args().nth(at).expect("two addresses"));
    let (mut first, mut second) = (Client::connect([first], None).await?, Client::connect([second], None).await?);
    keys(&mut first, &mut second).await?;
    transactions(&mut first).await?;
    watches(&mut first, &mut second).await?;
    leases(&mut first, &mut second).await?;
    locks(&mut first, &mut second).await?;
    elections(&mut first, &mut second).await?;
    cluster(&mut first).await
}

async fn keys(first: &mut Client, second: &mut Client) -> Result<(), Error> {
    assert!(first.get("absent", None).await?.kvs().is_empty());
    first.put("app/a", "1", None).await?;
    let found = second.get("app/a", None).await?;
    assert_eq!((found.kvs()[0].value_str()?, found.kvs()[0].version()), ("1", 1));
    let put = first.put("app/a", "2", Some(PutOptions::new().with_prev_key())).await?;
    assert_eq!(put.prev_key().expect("the previous value").value_str()?, "1");
    first.put("app/b", "3", None).await?;
    let sorted = GetOptions::new().with_prefix().with_sort(SortTarget::Key, SortOrder::Descend);
    let found = second.get("app/", Some(sorted)).await?;
    assert_eq!(found.kvs().iter().map(|kv| kv.key_str().unwrap()).collect::<Vec<_>>(), ["app/b", "app/a"]);
    let found = second.get("app/a", Some(GetOptions::new().with_range("app/b"))).await?;
    assert_eq!((found.count(), found.kvs()[0].value_str()?), (1, "2"));
    let deleted = first.delete("app/b", Some(DeleteOptions::new().with_prev_key())).await?;
    assert_eq!((deleted.deleted(), deleted.prev_kvs()[0].value_str()?), (1, "3"));
    Ok(())
}

async fn transactions(client: &mut Client) -> Result<(), Error> {
    let transaction = |value: &str| {
        Txn::new()
            .when([Compare::value("app/a", CompareOp::Equal, value), Compare::version("absent", CompareOp::Equal, 0)])
            .and_then([TxnOp::put("app/t", "1", None), TxnOp::get("app/t", None)])
            .or_else([TxnOp::txn(Txn::new().and_then([TxnOp::delete("app/t", None)]))])
    };
    let done = client.txn(transaction("2")).await?;
    assert!(done.succeeded());
    match &done.op_responses()[1] {
        TxnOpResponse::Get(found) => assert_eq!(found.kvs()[0].value_str()?, "1"),
        other => panic!("{other:?}"),
    }
    let done = client.txn(transaction("other")).await?;
    assert!(!done.succeeded());
    match &done.op_responses()[0] {
        TxnOpResponse::Txn(within) => match &within.op_responses()[0] {
            TxnOpResponse::Delete(deleted) => assert_eq!(deleted.deleted(), 1),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
    Ok(())
}

async fn watches(first: &mut Client, second: &mut Client) -> Result<(), Error> {
    let begun = first.put("watched/0", "0", None).await?.header().expect("a header").revision();
    let options = WatchOptions::new().with_prefix().with_start_revision(begun);
    let mut watch = second.watch("watched/", Some(options)).await?;
    first.put("watched/1", "1", None).await?;
    first.delete("watched/1", None).await?;
    let mut seen = vec![];
    while seen.len() < 3 {
        let message = timeout(LIMIT, watch.message()).await.expect("a message in time")?.expect("a message");
        for event in message.events() {
            let kv = event.kv().expect("a key");
            seen.push((event.event_type(), kv.key_str()?.to_owned(), kv.mod_revision() - begun));
        }
    }
    let event = |kind, key: &str, revision| (kind, key.to_owned(), revision);
    let expected = [
        event(EventType::Put, "watched/0", 0),
        event(EventType::Put, "watched/1", 1),
        event(EventType::Delete, "watched/1", 2),
    ];
    assert_eq!(seen, expected);
    watch.request_progress().await?;
    let progress = timeout(LIMIT, watch.message()).await.expect("progress in time")?.expect("progress");
    assert!(progress.header().expect("a header").revision() >= begun + 2, "{progress:?}");
    watch.cancel(0).await?;
    let canceled = timeout(LIMIT, watch.message()).await.expect("an end in time")?.expect("an end");
    assert!(canceled.canceled(), "{canceled:?}");
    Ok(())
}

async fn leases(first: &mut Client, second: &mut Client) -> Result<(), Error> {
    let lease = first.lease_grant(30, None).await?.id();
    first.put("leased", "1", Some(PutOptions::new().with_lease(lease))).await?;
    let left = second.lease_time_to_live(lease, Some(LeaseTimeToLiveOptions::new().with_keys())).await?;
    assert_eq!((left.granted_ttl(), left.keys()), (30, &[b"leased".to_vec()][..]));
    let (mut keeper, mut kept) = second.lease_keep_alive(lease).await?;
    keeper.keep_alive().await?;
    assert_eq!(kept.message().await?.expect("a renewal").ttl(), 30);
    assert!(first.leases().await?.leases().iter().any(|found| found.id() == lease));
    second.lease_revoke(lease).await?;
    assert!(first.get("leased", None).await?.kvs().is_empty());
    let refused = first.lease_revoke(lease).await.expect_err("the lease is gone").to_string();
    assert!(refused.contains("etcdserver: requested lease not found"), "{refused}");
    Ok(())
}

async fn locks(first: &mut Client, second: &mut Client) -> Result<(), Error> {
    let lease = second.lease_grant(30, None).await?.id();
    let held = first.lock("lock", None).await?.key().to_vec();
    let options = LockOptions::new().with_lease(lease);
    let mut waiting = Box::pin(second.lock("lock", Some(options)));
    assert!(timeout(PAUSE, &mut waiting).await.is_err(), "two holders");
    first.unlock(held).await?;
    let held = timeout(LIMIT, waiting).await.expect("the lock in time")?.key().to_vec();
    assert!(held.starts_with(b"lock/"));
    second.unlock(held).await?;
    Ok(())
}

async fn elections(first: &mut Client, second: &mut Client) -> Result<(), Error> {
    let [lease, other] = [first.lease_grant(30, None).await?.id(), second.lease_grant(30, None).await?.id()];
    let elected = first.campaign("elect", "one", lease).await?.leader().expect("a leader").clone();
    let mut observed = second.observe("elect").await?;
    let mut next = async || {
        let message = timeout(LIMIT, observed.message()).await.expect("a leader in time")?.expect("a leader");
        Ok::<_, Error>(message.kv().expect("a key").value_str()?.to_owned())
    };
    assert_eq!(next().await?, "one");
    first.proclaim("two", Some(ProclaimOptions::new().with_leader(elected.clone()))).await?;
    assert_eq!(next().await?, "two");
    let mut waiting = second.clone();
    let mut campaign = Box::pin(waiting.campaign("elect", "three", other));
    assert!(timeout(PAUSE, &mut campaign).await.is_err(), "two leaders");
    first.resign(Some(ResignOptions::new().with_leader(elected))).await?;
    timeout(LIMIT, campaign).await.expect("a leader in time")?;
    assert_eq!(next().await?, "three");
    assert_eq!(first.leader("elect").await?.kv().expect("a leader").value_str()?, "three");
    Ok(())
}

async fn cluster(client: &mut Client) -> Result<(), Error> {
    let members = client.member_list().await?;
    let mut names: Vec<&str> = members.members().iter().map(|member| member.name()).collect();
    names.sort_unstable();
    assert_eq!(names, ["host-0", "host-1", "host-2"]);
    let status = client.status().await?;
    assert!(members.members().iter().any(|member| member.id() == status.leader()));
    let (mut snapshot, mut octets) = (client.snapshot().await?, 0);
    while let Some(part) = snapshot.message().await? {
        octets += part.blob().len();
    }
    assert_eq!(octets % 512, 32);
    Ok(())
}
