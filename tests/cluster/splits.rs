//! Networks that are cut, and heal.

use muster::model::member::{Cause, Reach};

use crate::script::{Cluster, ms};

const ALL: &[&str] = &["a", "b", "c", "d", "e"];
const FEW: &[&str] = &["a", "b"];
const MOST: &[&str] = &["c", "d", "e"];

/// The smaller part cannot tell whose fault it is: it answers what it knew last, and says so. The larger part removes.
#[tokio::test(start_paused = true)]
async fn a_split_leaves_the_few_with_what_they_knew_and_heals_with_all_that_changed() {
    let cluster = Cluster::running(ALL).await;
    cluster.cut(FEW, MOST);
    let took = cluster.answers(ms(3000), FEW, "a b c d e, EDE 3").await;
    println!("split, the few hold after {took:?}");
    let took = cluster.answers(ms(3000), MOST, "c d e").await;
    println!("split, most have removed after {took:?} more");
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

/// What is held has an end.
#[tokio::test(start_paused = true)]
async fn what_is_held_for_too_long_is_gone() {
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
    println!("healed after what was held had expired: {took:?}");
}

/// Long after gossip has forgotten those on the other side, and with nobody named to join.
#[tokio::test(start_paused = true)]
async fn a_split_of_minutes_heals_without_anybody_to_join() {
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

/// That one does not hear another is no reason to remove either: others reach both.
#[tokio::test(start_paused = true)]
async fn a_way_that_is_cut_between_two_removes_nobody() {
    for both_ways in [false, true] {
        let cluster = Cluster::running(ALL).await;
        cluster.cut_one_way(&["a"], &["b"]);
        if both_ways {
            cluster.cut_one_way(&["b"], &["a"]);
        }
        cluster.stays(ms(5000), ALL, "a b c d e").await;
        // And what changes goes around.
        for name in ["a", "b"] {
            cluster.flip(name, false);
            let took = cluster.settles(ms(2000)).await;
            println!("a flip around a cut: {took:?}");
        }
    }
}

/// One that hears nobody and is heard by all, or the other way around.
#[tokio::test(start_paused = true)]
async fn one_that_is_cut_off_in_one_direction_is_gone_and_comes_back() {
    let others = &["b", "c", "d", "e"];
    for deaf in [true, false] {
        let cluster = Cluster::running(ALL).await;
        if deaf {
            cluster.cut_one_way(others, &["a"]);
        } else {
            cluster.cut_one_way(&["a"], others);
        }
        let took = cluster.answers(ms(8000), others, "b c d e").await;
        println!("gone, deaf: {deaf}: {took:?}");
        cluster.stays(ms(3000), others, "b c d e").await;
        cluster.network.heal();
        let took = cluster.settles(ms(8000)).await;
        println!("back: {took:?}");
        cluster.stays(ms(1500), ALL, "a b c d e").await;
    }
}
