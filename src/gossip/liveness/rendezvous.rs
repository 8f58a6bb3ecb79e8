//! Assignment of monitors to targets. Every node computes the same assignment from the names alone.
//!
//! Rendezvous hashing: each pair of a monitor and a target has a score, and the members with the highest scores monitor
//! the target. When a member joins or leaves, only the targets that it monitors are reassigned.

use crate::model::name::Label;

/// Number of monitors per member. One of five detects quickly even if two packets are lost and one monitor is stalled.
pub(super) const MONITORS: usize = 5;

/// Hash of a node's name, the same on every node: FNV-1a of its octets, which labels keep in lower case.
pub(super) fn key(name: &Label) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    name.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// Score of `monitor` for `target`, by their hashes: the finalizer of splitmix64 over both.
pub(super) fn score(monitor: u64, target: u64) -> u64 {
    let mut x = monitor.rotate_left(32) ^ target.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(count: usize) -> Vec<u64> {
        (0..count).map(|i| key(&Label::parse(&format!("host-{i}")).unwrap())).collect()
    }

    #[test]
    fn the_load_is_spread() {
        let keys = keys(200);
        let mut targets = vec![0; keys.len()];
        for target in &keys {
            let mut order: Vec<usize> = (0..keys.len()).filter(|i| keys[*i] != *target).collect();
            order.sort_by_key(|i| std::cmp::Reverse(score(keys[*i], *target)));
            for monitor in &order[..MONITORS] {
                targets[*monitor] += 1;
            }
        }
        // Five each on average; a Poisson's tail.
        assert!(targets.iter().all(|n| *n <= 16), "{targets:?}");
        assert!(targets.iter().filter(|n| **n == 0).count() <= 6, "{targets:?}");
    }

    #[test]
    fn keys_are_the_same_on_every_node_and_in_every_version() {
        let key = |name: &str| key(&Label::parse(name).unwrap());
        assert_eq!(key("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(key("Host-A"), key("host-a"));
        assert_eq!(score(1, 2), score(1, 2));
        assert_ne!(score(1, 2), score(2, 1));
    }
}
