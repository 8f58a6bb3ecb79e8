//! Metrics of gossip: frames and octets, by direction and transport, and the size of the replicated state.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::{Family, counter::Writers};

/// Transport of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GossipTransport {
    /// UDP datagram.
    Udp,
    /// TCP connection, for frames that do not fit a datagram.
    Tcp,
}

const TRANSPORTS: [&str; 2] = ["udp", "tcp"];
const DIRECTIONS: [&str; 2] = ["received", "sent"];

/// Number of frames, number of octets.
#[derive(Debug, Default)]
struct Counts([AtomicU64; 2]);

/// Number of keys in the replicated state of all nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GossipKeys {
    /// Keys with a value.
    pub live: usize,
    /// Tombstones: keys that were deleted, and are remembered so that the deletion spreads.
    pub deleted: usize,
}

/// Outcome of a bulk transfer of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BulkOutcome {
    /// All parts were sent, or applied.
    Complete,
    /// The sender serves another transfer.
    Busy,
    /// A part was invalid or late, or the connection has ended.
    Failed,
}

const OUTCOMES: [&str; 3] = ["complete", "busy", "failed"];

/// Gossip metrics of an agent.
#[derive(Clone, Debug, Default)]
pub struct Gossip(Arc<Values>);

#[derive(Debug, Default)]
struct Values {
    traffic: [[Counts; TRANSPORTS.len()]; DIRECTIONS.len()],
    live_keys: AtomicU64,
    deleted_keys: AtomicU64,
    bulk: [[AtomicU64; OUTCOMES.len()]; DIRECTIONS.len()],
}

impl Gossip {
    /// Sets the size of the replicated state.
    pub fn set_keys(&self, keys: GossipKeys) {
        self.0.live_keys.store(keys.live as u64, Ordering::Relaxed);
        self.0.deleted_keys.store(keys.deleted as u64, Ordering::Relaxed);
    }

    /// Counts a requested bulk transfer that has ended.
    pub fn bulk_received(&self, outcome: BulkOutcome) {
        Writers::Many.add(&self.0.bulk[0][outcome as usize], 1);
    }

    /// Counts a bulk transfer that was served or refused.
    pub fn bulk_sent(&self, outcome: BulkOutcome) {
        Writers::Many.add(&self.0.bulk[1][outcome as usize], 1);
    }

    /// Counts a received frame, valid or not.
    pub fn received(&self, transport: GossipTransport, octets: usize) {
        self.count(0, transport, octets);
    }

    /// Counts a sent frame.
    pub fn sent(&self, transport: GossipTransport, octets: usize) {
        self.count(1, transport, octets);
    }

    fn count(&self, direction: usize, transport: GossipTransport, octets: usize) {
        let Counts([frames, bytes]) = &self.0.traffic[direction][transport as usize];
        Writers::Many.add(frames, 1);
        Writers::Many.add(bytes, octets as u64);
    }

    pub(super) fn families(&self) -> [Family; 4] {
        let each = |what: usize| {
            DIRECTIONS.iter().zip(self.0.traffic.iter()).flat_map(move |(direction, transports)| {
                TRANSPORTS.iter().zip(transports).map(move |(transport, Counts(counts))| {
                    let count = counts[what].load(Ordering::Relaxed);
                    ([("direction", *direction), ("transport", *transport)], count)
                })
            })
        };
        let bulk = DIRECTIONS.iter().zip(&self.0.bulk).flat_map(|(direction, outcomes)| {
            OUTCOMES.iter().zip(outcomes).map(move |(outcome, count)| {
                ([("direction", *direction), ("outcome", *outcome)], count.load(Ordering::Relaxed))
            })
        });
        [
            Family::counters("muster_gossip_frames", "Number of gossip frames, by direction and transport", each(0)),
            Family::counters(
                "muster_gossip_bytes",
                "Number of octets in gossip frames, without UDP and TCP headers",
                each(1),
            ),
            Family::gauges(
                "muster_gossip_keys",
                "Keys in the replicated state of all nodes; deleted: tombstones",
                [("live", &self.0.live_keys), ("deleted", &self.0.deleted_keys)]
                    .map(|(state, count)| ([("state", state)], count.load(Ordering::Relaxed))),
            ),
            Family::counters(
                "muster_gossip_bulk_transfers",
                "Bulk transfers of state that have ended, by direction and outcome",
                bulk,
            ),
        ]
    }
}
