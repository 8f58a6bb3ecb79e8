//! Recovery of a store that lost the majority of its voters.

use std::path::Path;

use super::{cluster::Cluster, *};
use crate::store::node::recovery::{Recovered, RecoveryError, recover};

/// Recovers once the former member has closed its log.
async fn recovered(folder: &Path, node: &str) -> Result<Recovered, RecoveryError> {
    let until = Instant::now() + SOON;
    loop {
        match recover(folder, node).await {
            Err(RecoveryError::State(error)) if error.to_string().contains("log") && Instant::now() < until => {
                sleep(Duration::from_millis(50)).await;
            }
            outcome => return outcome,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn recovered_voter_has_all_entries_and_is_the_only_one() {
    let mut cluster = Cluster::start(3, 0).await;
    put(cluster.store("a"), "key", "kept").await;
    let before = cluster.wait_for("members", |status| status.members.len() == 3 && status.cluster_id != 0).await;
    wait_for_value(cluster.store("a"), "key", "kept").await;
    let folder = cluster.data("a");
    let refused = recover(&folder, "a").await.unwrap_err().to_string();
    assert!(refused.contains("an agent is using it"), "{refused}");
    for name in ["a", "b", "c"] {
        cluster.stop(name).await;
    }
    let refused = recovered(&folder, "b").await.unwrap_err().to_string();
    assert!(refused.contains("belongs to node a"), "{refused}");
    let Recovered { state, former } = recovered(&folder, "a").await.unwrap();
    assert_eq!((state.keys, &*state.removed), (1, &["b".to_owned(), "c".to_owned()][..]));
    // The election added an entry, and so did the key.
    assert!(state.last_term >= before.term.max(1) && state.last_index >= 2, "{state:?}");
    assert!(former.join("log").exists());
    let refused = recovered(&folder, "a").await.unwrap_err().to_string();
    assert!(refused.contains("before another recovery"), "{refused}");

    // Voters without data do not found another cluster.
    for name in ["b", "c"] {
        cluster.wipe(name);
    }
    for name in ["a", "b", "c"] {
        cluster.run(name).await;
    }
    assert_eq!(get(cluster.store("c"), "key").await.as_deref(), Some("kept"));
    put(cluster.store("b"), "key", "new").await;
    let after = cluster.wait_for("one voter", |status| status.members.len() == 1).await;
    assert_eq!((&*after.members[0].node, after.cluster_id), ("a", before.cluster_id));
    assert!(before.members.iter().all(|member| member.id != after.members[0].id));
    for name in ["b", "c"] {
        cluster.store("c").change_membership(MembershipChange::Add(name.to_owned())).await.unwrap();
    }
    cluster
        .wait_for("three voters", |status| status.members.iter().filter(|member| member.is_voter).count() == 3)
        .await;
    assert_eq!(get(cluster.store("c"), "key").await.as_deref(), Some("new"));
    // The snapshot on disk and the log after it give the same state.
    cluster.stop("a").await;
    cluster.run("a").await;
    assert_eq!(get(cluster.store("a"), "key").await.as_deref(), Some("new"));
}
