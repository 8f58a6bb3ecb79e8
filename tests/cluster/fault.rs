//! Ends chitchat's task in a node: a message with a name that this thread's log panics at.

use std::fmt::Debug;

use muster::gossip::message::Message;
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
    subscriber::{DefaultGuard, set_default},
};

use crate::script::Cluster;

/// Name of a cluster at which chitchat's task ends.
const FATAL: &str = "fatal";
/// A SYN of that cluster with an empty digest.
const MESSAGE: &[u8] = b"\x53\xb0\x01\x00\x00\x05\x00fatal";

/// While it lives, [`end_gossip`] ends chitchat's task in the nodes of this thread.
pub(crate) fn inject() -> DefaultGuard {
    set_default(Log)
}

/// Ends chitchat's task in these nodes.
pub(crate) async fn end_gossip(cluster: &Cluster, of: &[&str]) {
    for name in of {
        let from = of.iter().find(|from| *from != name).expect("two nodes");
        cluster.network.forge(&cluster.identity(from), cluster.address(name), &Message::Gossip(MESSAGE)).await;
    }
}

/// Panics where chitchat logs the name of the cluster in a message.
struct Log;

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("chitchat")
    }

    fn event(&self, event: &Event<'_>) {
        event.record(&mut Panic);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

struct Panic;

impl Visit for Panic {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        assert!(field.name() != "their_cluster_id" || format!("{value:?}") != FATAL, "the fault that a test injects");
    }
}
