//! The node whose serial all nodes answer with.
//!
//! Each node builds the generated zones by itself, at slightly different times. A secondary that asked several nodes would see
//! serials of several sequences. So one node at a time is the primary of the generated zones: of the live nodes that serve
//! transfers, the one with the lowest name. It announces its serial, and all other nodes answer SOA queries with that. Only the
//! primary sends the generated zones and NOTIFY. A zone file has the serial that is written in it, on every node.

use std::collections::BTreeMap;

use crate::{
    dns::zone::{serial::Serial, static_names::Kind},
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
