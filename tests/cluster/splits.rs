//! Network partitions and their healing.

use muster::model::member::{Cause, Reach};

use crate::script::{Cluster, ms};

const ALL: &[&str] = &["a", "b", "c", "d", "e"];
const FEW: &[&str] = &["a", "b"];
const MOST: &[&str] = &["c", "d", "e"];

/// The minority holds its last known state and marks it as stale. The majority removes the minority.
#[tokio::test(start_paused = true)]
async fn minority_holds_last_known_state_until_a_split_heals() {
    let cluster = Cluster::running(ALL).await;
    cluster.cut(FEW, MOST);
    let took = cluster.answers(ms(3000), FEW, "a b c d e, EDE 3").await;
    println!("split: the minority holds after {took:?}");
    let took = cluster.answers(ms(3000), MOST, "c d e").await;
    println!("split: the majority has removed the minority after another {took:?}");
    for few in FEW {
        cluster.until(ms(100), "a split", |c| c.members(few).partitioned.is_some()).await;
        assert!(MOST.iter().all(|most| cluster.reach(few, most) == Some(Reach::Held)), "{}", cluster.show());
    }
    for most in MOST {
        assert_eq!(cluster.members(most).partitioned, None);
        assert!(FEW.iter().all(|few| cluster.reach(most, few) == Some(Reach::Gone(Cause::Silent))));
    }
    cluster.flip("a", false);
    cluster.flip("d", false);
    cluster.answers(ms(300), FEW, "b c d e, EDE 3").await;
    cluster.answers(ms(300), MOST, "c e").await;
    cluster.stays(ms(3000), FEW, "b c d e, EDE 3").await;
    cluster.network.heal();
    let took = cluster.settles(ms(3000)).await;
    println!("healed: {took:?}");
    cluster.until(ms(500), "no split", |c| ALL.iter().all(|by| c.members(by).partitioned.is_none())).await;
    cluster.stays(ms(1500), ALL, "b c e").await;
}

/// A hold is bounded.
#[tokio::test(start_paused = true)]
async fn hold_expires() {
    let mut cluster = Cluster::holding(&["a", "b", "c"], ms(4000));
    cluster.run_all(&["a", "b", "c"]).await;
    cluster.flip("a", false);
    cluster.settles(ms(300)).await;
    cluster.cut(&["a"], &["b", "c"]);
    cluster.answers(ms(3000), &["a"], "b c, EDE 3").await;
    cluster.stays(ms(3500), &["a"], "b c, EDE 3").await;
    cluster.answers(ms(2000), &["a"], "nothing, EDE 14").await;
    for gone in ["b", "c"] {
        cluster.until(ms(1500), "expired", |c| c.reach("a", gone) == Some(Reach::Gone(Cause::Expired))).await;
    }
    cluster.network.heal();
    let took = cluster.settles(ms(6000)).await;
    println!("healed after the hold expired: {took:?}");
}

/// Long after gossip has removed the other side, and without configured seeds.
#[tokio::test(start_paused = true)]
async fn split_of_minutes_heals_without_seeds() {
    let cluster = Cluster::running(&["a", "b", "c"]).await;
    cluster.cut(&["a"], &["b", "c"]);
    tokio::time::sleep(ms(200_000)).await;
    cluster.flip("a", false);
    cluster.announce("b", "web", "new", muster::model::announcement::InstanceState::Passing);
    tokio::time::sleep(ms(1000)).await;
    cluster.network.heal();
    let took = cluster.settles(ms(7000)).await;
    println!("healed after minutes: {took:?}");
}

/// A broken link between two nodes is no reason to remove either: others reach both.
#[tokio::test(start_paused = true)]
async fn broken_link_between_two_nodes_removes_none() {
    for both_ways in [false, true] {
        let cluster = Cluster::running(ALL).await;
        cluster.cut_one_way(&["a"], &["b"]);
        if both_ways {
            cluster.cut_one_way(&["b"], &["a"]);
        }
        cluster.stays(ms(5000), ALL, "a b c d e").await;
        // Changes take another path.
        for name in ["a", "b"] {
            cluster.flip(name, false);
            let took = cluster.settles(ms(2000)).await;
            println!("a flip around a cut: {took:?}");
        }
    }
}

/// A node that receives nothing but is received by all, and the reverse.
#[tokio::test(start_paused = true)]
async fn one_way_cut_removes_a_node_until_it_heals() {
    let others = &["b", "c", "d", "e"];
    for receives_nothing in [true, false] {
        let cluster = Cluster::running(ALL).await;
        if receives_nothing {
            cluster.cut_one_way(others, &["a"]);
        } else {
            cluster.cut_one_way(&["a"], others);
        }
        let took = cluster.answers(ms(8000), others, "b c d e").await;
        println!("gone, receives nothing: {receives_nothing}: {took:?}");
        cluster.stays(ms(3000), others, "b c d e").await;
        cluster.network.heal();
        let took = cluster.settles(ms(8000)).await;
        println!("back: {took:?}");
        cluster.stays(ms(1500), ALL, "a b c d e").await;
    }
}
