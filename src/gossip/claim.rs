//! The rule for two live nodes with one name.

use std::time::Duration;

/// What speaks for a node that claims a name. Both times are by the node's monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Time for which the node has had live peers: for which the cluster knows it.
    pub known_for: Duration,
    /// Time since the start of the node's run.
    pub uptime: Duration,
}

impl Claim {
    /// Reports whether the node with this claim keeps the name against one of a higher generation.
    ///
    /// The node that the cluster has known for longer keeps it. If neither is known, the one that runs for longer does.
    /// Only the node of the lower generation decides, once, so that never both end.
    pub fn keeps_against(&self, higher: &Self) -> bool {
        (self.known_for, self.uptime) >= (higher.known_for, higher.uptime)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_that_the_cluster_has_known_for_longer_keeps_its_name() {
        let claim = |(known_for, uptime)| Claim {
            known_for: Duration::from_millis(known_for),
            uptime: Duration::from_millis(uptime),
        };
        let cases = [
            ((200, 300), (10, 900_000), true),
            ((10, 900_000), (200, 300), false),
            ((0, 900_000), (10, 20), false),
            ((60_000, 61_000), (30_000, 90_000), true),
            // The cluster knows neither.
            ((0, 2_000), (0, 3_500), false),
            ((0, 3_500), (0, 2_000), true),
            // The lower generation keeps it.
            ((0, 2_000), (0, 2_000), true),
        ];
        for (lower, higher, expected) in cases {
            assert_eq!(claim(lower).keeps_against(&claim(higher)), expected, "{lower:?} {higher:?}");
        }
    }
}
