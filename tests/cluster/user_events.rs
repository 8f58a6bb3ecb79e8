//! User events are delivered once to their audience; the command to forget a node applies to lost nodes only.

use std::time::Duration;

use muster::{
    gossip::command::ForgetError,
    model::{
        announcement::InstanceState,
        member::{Cause, Reach},
        user_event::{Audience, SLOTS},
    },
};

use crate::script::{Cluster, ms};

fn to(node: &str) -> Audience {
    Audience { node: node.to_owned(), ..Audience::default() }
}

#[tokio::test(start_paused = true)]
async fn event_is_delivered_once_to_its_audience() {
    let mut cluster = Cluster::running(&["a", "b", "c"]).await;
    cluster.fire("a", "deploy", Audience::default()).await;
    for at in ["a", "b", "c"] {
        let took = cluster.until(ms(200), "an event", |c| c.events(at) == ["deploy"]).await;
        println!("an event at {at}: {took:?}");
    }
    let by_service = Audience { service: "^only$".to_owned(), ..Audience::default() };
    cluster.announce("c", "only", "one", InstanceState::Passing);
    cluster.until(ms(300), "the service of c", |c| c.answer("b", "only") == "one").await;
    cluster.fire("b", "for-b", to("^b$")).await;
    cluster.fire("b", "for-c", by_service).await;
    cluster.until(ms(200), "an event for c", |c| c.events("c") == ["deploy", "for-c"]).await;
    assert_eq!(
        (cluster.events("a"), cluster.events("b")),
        (vec!["deploy".into()], vec!["deploy".into(), "for-b".into()])
    );
    // Gossip repeats the events of a push without a second delivery.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(cluster.events("c"), ["deploy", "for-c"]);
    // A new member receives later events only.
    cluster.stop("b").await;
    cluster.start("b", &["a"]).await;
    cluster.settles(ms(2000)).await;
    assert_eq!(cluster.events("b"), [""; 0]);
    cluster.fire("b", "again", Audience::default()).await;
    for at in ["a", "b", "c"] {
        cluster
            .until(ms(1000), "an event of the new run", |c| c.events(at).last().is_some_and(|name| name == "again"))
            .await;
    }
}

/// Gossip delivers missed events as far as the peer still keeps them.
#[tokio::test(start_paused = true)]
async fn node_receives_the_last_events_after_an_outage() {
    let cluster = Cluster::running(&["a", "b", "c"]).await;
    cluster.cut(&["c"], &["a", "b"]);
    let names: Vec<String> = (0..usize::from(SLOTS) + 2).map(|number| format!("e{number}")).collect();
    for name in &names {
        cluster.fire("a", name, Audience::default()).await;
    }
    cluster.until(ms(500), "all of them", |c| c.events("b") == names).await;
    cluster.network.heal();
    cluster.until(ms(10_000), "the last of them", |c| c.events("c") == names[2..]).await;
}

#[tokio::test(start_paused = true)]
async fn forget_applies_to_lost_nodes_only() {
    let mut cluster = Cluster::running(&["a", "b", "c", "d"]).await;
    cluster.announce("d", "only", "one", InstanceState::Passing);
    cluster.until(ms(300), "the service of d", |c| c.answer("a", "only") == "one").await;
    assert_eq!(cluster.forget("a", "d").await, Err(ForgetError::Lives(Reach::Alive)));
    assert_eq!(cluster.forget("a", "a").await, Err(ForgetError::Itself));
    assert_eq!(cluster.forget("a", "nobody").await, Err(ForgetError::Unknown));
    cluster.kill("d").await;
    for at in ["a", "b", "c"] {
        cluster.until(ms(2000), "its service is not answered", |c| c.answer(at, "only") == "nothing, EDE 14").await;
    }
    assert_eq!(cluster.forget("a", "d").await, Ok(()));
    for at in ["a", "b", "c"] {
        cluster.until(ms(300), "its service does not exist", |c| c.answer(at, "only") == "NXDOMAIN").await;
        assert_eq!(cluster.reach(at, "d"), Some(Reach::Gone(Cause::Forgotten)), "{}", cluster.show());
    }
    assert_eq!(cluster.forget("b", "d").await, Ok(()), "the command is idempotent");
    // The node returns when it is restarted.
    cluster.start("d", &["a"]).await;
    cluster.settles(ms(2000)).await;
}

/// A node that was only unreachable returns by itself.
#[tokio::test(start_paused = true)]
async fn forgotten_live_node_returns() {
    let cluster = Cluster::running(&["a", "b", "c", "d", "e"]).await;
    cluster.cut(&["e"], &["a", "b", "c", "d"]);
    cluster.answers(ms(3000), &["a", "b", "c", "d"], "a b c d").await;
    assert_eq!(cluster.forget("b", "e").await, Ok(()));
    cluster.until(ms(300), "forgotten", |c| c.reach("a", "e") == Some(Reach::Gone(Cause::Forgotten))).await;
    cluster.network.heal();
    let took = cluster.settles(ms(12_000)).await;
    println!("returned after it was forgotten: {took:?}");
}
