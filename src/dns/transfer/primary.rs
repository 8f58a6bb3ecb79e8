//! The node whose serial all nodes answer with.
//!
//! Each node builds the generated zones by itself, at slightly different times. A secondary that asked several nodes would see
//! serials of several sequences. So one node at a time is the primary of the generated zones: of the live nodes that serve
//! transfers, the one with the lowest name. It announces its serial, and all other nodes answer SOA queries with that. Only the
//! primary sends the generated zones and NOTIFY.
//!
//! No node answers an earlier serial (RFC 1982) than it has answered. A node that starts becomes the primary if its name is the lowest,
//! with the serial of its former run, until it learns the serials of its peers and continues above them. Until then the peers keep the
//! serial that they have.
//!
//! A zone file has the serial that is written in it, on every node.

use std::collections::BTreeMap;

use crate::{
    dns::zone::{
        serial::{Serial, is_later},
        static_names::Kind,
    },
    model::name::Label,
};

/// Serials that a new primary skips: those that the former one may have issued within the last moments, and not announced to
/// this node.
const SKIPPED: u32 = 4096;

/// The primary of the generated zones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Primary {
    /// No live node serves transfers: each node answers with its own serial.
    Absent,
    /// This node.
    Own,
    /// Another node, with its serial.
    Peer(Label, u32),
}

impl Primary {
    /// Returns the primary of a node that knows no peers.
    pub fn elect_alone(serves: bool) -> Self {
        if serves { Self::Own } else { Self::Absent }
    }

    /// Returns the name of the primary if it is another node.
    pub fn name(&self) -> Option<&Label> {
        match self {
            Self::Peer(name, _) => Some(name),
            Self::Own | Self::Absent => None,
        }
    }

    /// Returns the other node that sends zones of this kind; `None` if this node sends them itself.
    pub fn other_sender(&self, kind: Kind) -> Option<&Label> {
        self.name().filter(|_| kind.has_live_names())
    }

    /// Returns the primary among this node, if it `serves` transfers, and the peers that announce a serial.
    pub fn elect(own: &Label, serves: bool, peers: &BTreeMap<Label, u32>) -> Self {
        match peers.first_key_value() {
            Some((peer, serial)) if !serves || peer < own => Self::Peer(peer.clone(), *serial),
            _ => Self::elect_alone(serves),
        }
    }

    /// Returns the serial that a node answers with after `answered`, 0 for none: that of the primary, or the next own one.
    pub fn next_serial(&self, answered: u32, own: &mut Serial) -> (u32, Option<u32>) {
        let is_after = |serial| answered != 0 && is_later(answered, serial);
        match self {
            Self::Peer(_, announced) if is_after(*announced) => (answered, None),
            Self::Peer(_, announced) => (*announced, None),
            Self::Own | Self::Absent => {
                if is_after(own.current()) {
                    own.continue_above(answered);
                }
                own.advance()
            }
        }
    }

    /// Moves the own serial above those that peers have announced, which they may have issued as the primary. `former` is the
    /// primary so far. Returns whether the serial has to be published.
    pub fn take_over(&self, former: &Self, serial: &mut Serial, peers: &BTreeMap<Label, u32>) -> bool {
        if *self != Self::Own {
            return false;
        }
        let mut is_behind = false;
        for seen in peers.values() {
            is_behind |= serial.continue_above(*seen);
        }
        if let Self::Peer(_, seen) = former {
            is_behind |= serial.continue_above(seen.wrapping_add(SKIPPED));
        }
        is_behind
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::name::label;

    fn peers(serials: &[(&str, u32)]) -> BTreeMap<Label, u32> {
        serials.iter().map(|(name, serial)| (label(name), *serial)).collect()
    }

    #[test]
    fn live_node_with_the_lowest_name_that_serves_transfers_is_the_primary() {
        let cases = [
            (true, &[][..], Primary::Own),
            (false, &[], Primary::Absent),
            (true, &[("c", 7)], Primary::Own),
            (true, &[("a", 7), ("c", 9)], Primary::Peer(label("a"), 7)),
            (false, &[("c", 9)], Primary::Peer(label("c"), 9)),
        ];
        for (serves, others, expected) in cases {
            assert_eq!(Primary::elect(&label("b"), serves, &peers(others)), expected, "{serves} {others:?}");
        }
    }

    /// Serials of a node: those of its peers as it knows them, and what it answers.
    struct Node {
        own: Serial,
        primary: Primary,
        peers: BTreeMap<Label, u32>,
        answered: u32,
    }

    impl Node {
        fn new(clock: u32) -> Self {
            let own = Serial::resume(None, clock);
            Self { own, primary: Primary::Own, peers: BTreeMap::new(), answered: 0 }
        }

        /// Publishes a change of the content, or what follows from the serials of the peers.
        fn publish(&mut self, name: &Label, is_changed: bool) {
            let primary = Primary::elect(name, true, &self.peers);
            let is_behind = primary.take_over(&self.primary, &mut self.own, &self.peers);
            let is_follower = matches!(primary, Primary::Peer(..));
            if is_changed || is_behind || is_follower || primary != self.primary {
                let (serial, _) = primary.next_serial(self.answered, &mut self.own);
                assert!(self.answered == 0 || !is_later(self.answered, serial), "{serial} after {}", self.answered);
                self.answered = serial;
            }
            self.primary = primary;
        }
    }

    /// Nodes change, learn of each other late, leave, and restart at a clock that is behind the serials.
    #[test]
    fn no_node_goes_back_and_all_agree_in_the_end() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        let names = ["a", "b", "c"].map(label);
        for round in 0..200 {
            let mut nodes: Vec<Node> = names.iter().map(|_| Node::new(1_000 + random.u32(..9_999))).collect();
            nodes.iter_mut().zip(&names).for_each(|(node, name)| node.publish(name, true));
            for step in 0..260 {
                let (at, other) = (random.usize(..3), random.usize(..3));
                let is_quiet = step >= 200;
                match random.u8(..10) {
                    0 if !is_quiet => {
                        nodes[at] = Node::new(1_000);
                        for node in &mut nodes {
                            node.peers.remove(&names[at]);
                        }
                        nodes[at].publish(&names[at], true);
                    }
                    1 | 2 if !is_quiet => nodes[at].publish(&names[at], true),
                    _ if at != other => {
                        let serial = nodes[other].answered;
                        nodes[at].peers.insert(names[other].clone(), serial);
                        nodes[at].publish(&names[at], false);
                    }
                    _ => {}
                }
            }
            // Announcements arrive in turn until nothing changes.
            for _ in 0..4 {
                for (at, other) in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)] {
                    let serial = nodes[other].answered;
                    nodes[at].peers.insert(names[other].clone(), serial);
                    nodes[at].publish(&names[at], false);
                }
            }
            let answered: Vec<u32> = nodes.iter().map(|node| node.answered).collect();
            assert!(answered.iter().all(|serial| *serial == answered[0]), "seed {seed}, round {round}: {answered:?}");
        }
    }

    #[test]
    fn followers_keep_a_later_serial_than_that_of_the_primary() {
        let cases =
            [(0, 900, 900), (900, 900, 900), (900, 901, 901), (5_000, 900, 5_000), (u32::MAX, 3, 3), (3, u32::MAX, 3)];
        for (answered, announced, expected) in cases {
            let primary = Primary::Peer(label("a"), announced);
            let mut own = Serial::resume(None, 100);
            assert_eq!(primary.next_serial(answered, &mut own), (expected, None), "{answered} {announced}");
        }
        // Also when no node serves transfers any more.
        let (next, _) = Primary::Absent.next_serial(5_000, &mut Serial::resume(None, 100));
        assert_eq!(next, 5_001);
    }

    #[test]
    fn new_primary_issues_serials_above_those_of_the_former_one() {
        let cases = [
            ("nothing seen", Primary::Absent, &[][..], 100_001),
            ("a follower repeats an older serial", Primary::Own, &[("c", 900)], 100_001),
            ("after a partition", Primary::Own, &[("c", 200_000)], 200_001),
            (
                "the former primary is gone",
                Primary::Peer(label("a"), 100_500),
                &[("c", 100_499)],
                100_500 + SKIPPED + 1,
            ),
            ("the former primary was far behind", Primary::Peer(label("c"), 10), &[("c", 10)], 100_001),
        ];
        for (case, former, others, expected) in cases {
            let mut serial = Serial::resume(Some(100_000), 0);
            let others = peers(others);
            Primary::Own.take_over(&former, &mut serial, &others);
            assert_eq!(serial.advance().0, expected, "{case}");
            let follower = Primary::Peer(label("a"), 9);
            assert!(!follower.take_over(&former, &mut serial, &others), "{case}: a follower keeps its own serial");
        }
    }
}
