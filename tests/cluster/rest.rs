//! A cluster at rest: nodes that agree exchange nothing, at any number of nodes.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use muster::gossip::message::Message;
use tokio::time::sleep;

use crate::script::{Cluster, ms};

/// Time after a change until pushes, view digests and their exchanges have ended.
const SETTLE: Duration = Duration::from_secs(30);
const MEASURED: Duration = Duration::from_secs(60);

/// Number of chitchat messages.
static EXCHANGED: AtomicUsize = AtomicUsize::new(0);

#[tokio::test(start_paused = true)]
async fn nodes_that_agree_exchange_nothing() {
    let cluster = Cluster::running(&["a", "b", "c", "d", "e", "f", "g", "h"]).await;
    let exchanged = || EXCHANGED.load(Ordering::Relaxed);
    cluster.flip("c", false);
    cluster.settles(ms(1000)).await;
    sleep(SETTLE).await;
    cluster.network.lose(Some(|message| {
        count_exchange(message);
        false
    }));
    sleep(MEASURED).await;
    assert_eq!(exchanged(), 0, "at rest");
    // A push is applied to the compared state, so that it causes no exchange. Only the view digests, two seconds later, do.
    cluster.flip("c", true);
    cluster.settles(ms(1000)).await;
    sleep(ms(1000)).await;
    assert_eq!(exchanged(), 0, "after a push");
    sleep(SETTLE).await;
    // A push that is lost everywhere is repaired by exchanges, which end again.
    cluster.network.lose(Some(|message| {
        count_exchange(message);
        matches!(message, Message::Push(_))
    }));
    let before = exchanged();
    cluster.flip("c", false);
    cluster.settles(ms(1000)).await;
    sleep(SETTLE).await;
    let repaired = exchanged();
    assert!(repaired > before);
    sleep(MEASURED).await;
    assert_eq!(exchanged(), repaired);
}

fn count_exchange(message: &Message<'_>) {
    if let Message::Gossip(_) = message {
        EXCHANGED.fetch_add(1, Ordering::Relaxed);
    }
}
