//! What nodes tell each other: frames and octets, each way.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::{Family, writers::Writers};

/// How a frame travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// As a datagram.
    Udp,
    /// Over a connection: what does not fit a datagram.
    Tcp,
}

const WAYS: [&str; 2] = ["udp", "tcp"];
const DIRECTIONS: [&str; 2] = ["received", "sent"];

/// Frames and octets.
#[derive(Debug, Default)]
struct Counts([AtomicU64; 2]);

/// What an agent sent and received.
#[derive(Clone, Debug, Default)]
pub struct Gossip(Arc<[[Counts; WAYS.len()]; DIRECTIONS.len()]>);

impl Gossip {
    /// A frame came, good or bad.
    pub fn received(&self, way: Way, octets: usize) {
        self.count(0, way, octets);
    }

    /// A frame left.
    pub fn sent(&self, way: Way, octets: usize) {
        self.count(1, way, octets);
    }

    fn count(&self, direction: usize, way: Way, octets: usize) {
        let Counts([frames, bytes]) = &self.0[direction][way as usize];
        Writers::Many.add(frames, 1);
        Writers::Many.add(bytes, octets as u64);
    }

    pub(super) fn families(&self) -> [Family; 2] {
        let each = |what: usize| {
            DIRECTIONS.iter().zip(self.0.iter()).flat_map(move |(direction, ways)| {
                WAYS.iter().zip(ways).map(move |(way, Counts(counts))| {
                    let count = counts[what].load(Ordering::Relaxed);
                    ([("direction", *direction), ("transport", *way)], count)
                })
            })
        };
        [
            Family::counters("muster_gossip_frames", "Frames of gossip, by direction and transport", each(0)),
            Family::counters("muster_gossip_bytes", "Octets of these frames, without headers of UDP and TCP", each(1)),
        ]
    }
}
