//! Metrics of dnstap output.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::{Family, counter::Writers};

#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    dropped: AtomicU64,
    /// Open connections: two for a moment during a reload.
    connections: AtomicU64,
}

/// Handle of the metrics of dnstap output.
#[derive(Clone, Debug, Default)]
pub struct Dnstap(Arc<Counts>);

impl Dnstap {
    /// Counts messages that were sent to the collector.
    pub fn sent(&self, messages: u64) {
        Writers::Many.add(&self.0.sent, messages);
    }

    /// Counts messages that were not sent.
    pub fn dropped(&self, messages: u64) {
        Writers::Many.add(&self.0.dropped, messages);
    }

    /// Counts a connection that was opened.
    pub fn connected(&self) {
        Writers::Many.add(&self.0.connections, 1);
    }

    /// Counts a connection that has ended.
    pub fn disconnected(&self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn families(&self) -> [Family; 2] {
        let Counts { sent, dropped, connections } = &*self.0;
        let count = |number: &AtomicU64| number.load(Ordering::Relaxed);
        [
            Family::counters(
                "muster_dnstap_messages",
                "Messages for the collector of dnstap, by outcome",
                [([("outcome", "sent")], count(sent)), ([("outcome", "dropped")], count(dropped))],
            ),
            Family::gauge(
                "muster_dnstap_connected",
                "1 if a collector of dnstap is connected",
                (count(connections) > 0).into(),
            ),
        ]
    }
}
