//! Nodes come and go, and what they announce changes.

use crate::script::{Cluster, ms};
use muster::{
    gossip::{message::Message, node::End},
    model::member::{Cause, Reach},
};

#[tokio::test(start_paused = true)]
async fn all_who_join_through_one_answer_all() {
    let cluster = Cluster::running(&["a", "b", "c"]).await;
    assert_eq!(cluster.truth(), "a b c");
    for name in ["a", "b", "c"] {
        assert_eq!(cluster.peers(name).len(), 2, "{}", cluster.show());
        assert_eq!(cluster.members(name).partitioned, None);
        assert_eq!(cluster.members(name).rejected, []);
    }
}

#[tokio::test(start_paused = true)]
async fn a_flip_is_everywhere_at_once_and_without_pushes_by_gossip() {
    let cluster = Cluster::running(&["a", "b", "c", "d", "e"]).await;
    for (pushes_arrive, within) in [(true, ms(100)), (false, ms(1500))] {
        let loss = |message: &Message<'_>| matches!(message, Message::Push(_));
        cluster.network.lose(if pushes_arrive { None } else { Some(loss) });
        for healthy in [false, true, false, true] {
            cluster.flip("c", healthy);
            let took = cluster.settles(within).await;
            println!("flip, pushes arrive: {pushes_arrive}: {took:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_leaves_is_gone_at_once_and_known_to_have_left() {
    let mut cluster = Cluster::running(&["a", "b", "c"]).await;
    cluster.announce("b", "only", "one", muster::model::announcement::Standing::Passing);
    cluster.until(ms(300), "a service of b alone", |c| c.answer("a", "only") == "one").await;
    let started = tokio::time::Instant::now();
    assert_eq!(cluster.stop("c").await, End::Left);
    println!("stop took {:?}", started.elapsed());
    let took = cluster.settles(ms(300)).await;
    println!("left: {took:?}");
    for name in ["a", "b"] {
        cluster.until(ms(100), "c has left", |c| c.reach(name, "c") == Some(Reach::Gone(Cause::Left))).await;
    }
}
