//! Many watches across changes of the leader and cuts, and the end of their history.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{
    cluster::{Cluster, Link, SOON},
    key, put,
};
use crate::store::{
    command::{Command, Operation},
    key::{Key, KeyRange, Revision},
    query::{Consistency, Query},
    request::Store,
    watch::{Change, Watch, WatchMessage},
};

/// Watches in the test.
const WATCHES: usize = 100;
/// Writes to each of the prefixes.
const WRITES: u64 = 150;
const PREFIXES: [&str; 4] = ["0/", "1/", "2/", "3/"];

/// Key that ends a watch of its prefix.
fn last(prefix: &str) -> Key {
    key(&format!("{prefix}last"))
}

/// Watches a prefix until its last key is written, on another voter when one is gone.
async fn changes_of(store: Store, prefix: &'static str) -> Vec<Change> {
    let (mut next, mut seen) = (Revision(1), Vec::<Change>::new());
    while seen.last().is_none_or(|change| change.key != last(prefix)) {
        let watch = Watch { range: KeyRange::prefix(prefix), from: Some(next) };
        let Ok(mut messages) = store.watch(watch).await else { panic!("the node runs") };
        while let Some(message) = messages.recv().await {
            match message {
                WatchMessage::Began(_) => continue,
                WatchMessage::Progress(revision) => next = next.max(revision.next()),
                WatchMessage::Changes { changes, .. } => {
                    for change in &changes {
                        assert!(change.revision >= next, "{change:?} before {next}");
                    }
                    next = changes.last().unwrap().revision.next();
                    seen.extend(changes);
                }
                WatchMessage::Compacted(first) => panic!("compacted at {first}"),
            }
            if seen.last().is_some_and(|change| change.key == last(prefix)) {
                break;
            }
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn hundred_watches_see_each_revision_once_across_leaders_and_cuts() {
    let mut cluster = Cluster::start(3, 2).await;
    put(cluster.store("d"), "start", "0").await;
    let mut watches = JoinSet::new();
    for number in 0..WATCHES {
        let (store, prefix) = (cluster.store(["d", "e"][number % 2]).clone(), PREFIXES[number / 2 % PREFIXES.len()]);
        watches.spawn(async move { (prefix, changes_of(store, prefix).await) });
    }
    let mut writers = JoinSet::new();
    for prefix in PREFIXES {
        let store = cluster.store("e").clone();
        writers.spawn(async move {
            for number in 0..WRITES {
                put(&store, &format!("{prefix}{}", number % 7), &number.to_string()).await;
                sleep(Duration::from_millis(20)).await;
            }
        });
    }
    for round in 0..5 {
        sleep(Duration::from_millis(500)).await;
        let leader = cluster.leader().await;
        match round {
            0 | 3 => {
                if round == 0 {
                    cluster.stop(&leader).await;
                } else {
                    cluster.kill(&leader).await;
                }
                cluster.leader().await;
                cluster.run(&leader).await;
            }
            1 => cluster.set_links(&leader, Link::Silent),
            2 => cluster.set_link("d", "a", Link::Closed),
            _ => cluster.set_links(&leader, Link::Stalled),
        }
        sleep(Duration::from_secs(2)).await;
        cluster.heal();
    }
    while let Some(written) = timeout(SOON, writers.join_next()).await.unwrap() {
        written.unwrap();
    }
    for prefix in PREFIXES {
        put(cluster.store("e"), &format!("{prefix}last"), "0").await;
    }
    let mut by_prefix = BTreeMap::<_, Vec<Change>>::new();
    while let Some(watched) = timeout(SOON, watches.join_next()).await.expect("all watches see the last key") {
        let (prefix, changes) = watched.unwrap();
        let first = by_prefix.entry(prefix).or_insert_with(|| changes.clone());
        assert_eq!(*first, changes, "all watches of a prefix see the same");
    }
    for (prefix, changes) in by_prefix {
        let values = changes.iter().filter(|change| change.key != last(prefix));
        let mut values: Vec<u64> = values
            .map(|change| String::from_utf8_lossy(&change.entry.as_ref().unwrap().value).parse().unwrap())
            .collect();
        // A write whose outcome was unknown was repeated.
        let mut known = BTreeSet::new();
        values.retain(|value| known.insert(*value));
        assert_eq!(values, (0..WRITES).collect::<Vec<_>>(), "{prefix}: every acknowledged write is seen");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_from_a_compacted_revision_is_told_the_first_one() {
    let cluster = Cluster::start(1, 1).await;
    for number in 0..10 {
        put(cluster.store("a"), "key", &number.to_string()).await;
    }
    let revision = cluster.store("a").read(Query::Totals, Consistency::Linearizable, None).await.unwrap().revision;
    cluster.store("b").write(Command::Compact(revision)).await.unwrap().result.unwrap();
    for name in ["a", "b"] {
        let watch = |from| Watch { range: KeyRange::prefix("key"), from: Some(from) };
        let mut messages = cluster.store(name).watch(watch(Revision(2))).await.unwrap();
        assert!(matches!(messages.recv().await, Some(WatchMessage::Began(_))), "{name}");
        assert_eq!(messages.recv().await, Some(WatchMessage::Compacted(revision)), "{name}");
        assert_eq!(messages.recv().await, None, "{name}");
        let mut messages = cluster.store(name).watch(watch(revision)).await.unwrap();
        assert!(matches!(messages.recv().await, Some(WatchMessage::Began(_))), "{name}");
        assert!(matches!(messages.recv().await, Some(WatchMessage::Changes { .. })), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn revision_longer_than_a_message_reaches_other_nodes() {
    const KEYS: usize = 13;
    const OCTETS: usize = 700 << 10;
    let cluster = Cluster::start(1, 1).await;
    for letter in ["v", "w"] {
        let value = letter.repeat(OCTETS);
        for number in 0..KEYS {
            put(cluster.store("a"), &format!("long/{number}"), &value).await;
        }
    }
    let delete = Command::Operate(vec![Operation::DeletePrefix("long/".into())]);
    cluster.store("a").write(delete).await.unwrap().result.unwrap();
    for name in ["a", "b"] {
        let watch = Watch { range: KeyRange::prefix("long/"), from: Some(Revision(1)) };
        let mut messages = cluster.store(name).watch(watch).await.unwrap();
        let mut seen = Vec::new();
        let until = Instant::now() + SOON;
        while seen.len() < 3 * KEYS {
            match timeout_at(until, messages.recv()).await.expect("all changes arrive") {
                Some(WatchMessage::Changes { changes, .. }) => seen.extend(changes),
                Some(_) => {}
                None => panic!("{name}: the watch has ended after {} changes", seen.len()),
            }
        }
        let is_whole = |change: &Change| change.previous.as_ref().is_some_and(|entry| entry.value.len() == OCTETS);
        assert_eq!(seen.iter().filter(|change| is_whole(change)).count(), 2 * KEYS, "{name}");
    }
}
