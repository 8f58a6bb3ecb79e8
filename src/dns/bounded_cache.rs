//! A cache that all workers share, for keys that clients choose.
//!
//! Bounded in memory; recently and frequently used entries stay (S3-FIFO). A hit takes the read lock of one of many shards for the
//! time of a pointer clone. Keys are hashed with a secret (SipHash).

use std::hash::RandomState;

use quick_cache::{
    OptionsBuilder, Weighter,
    sync::{Cache, DefaultLifecycle},
};

/// A cache of values by their keys.
pub(super) type BoundedCache<V, W> = Cache<Box<[u8]>, V, W, RandomState>;

/// Returns an empty cache of entries that weigh `octets` together at most, of which a typical one weighs `typical`.
pub(super) fn bounded<V: Clone, W: Weighter<Box<[u8]>, V> + Clone>(
    octets: usize,
    typical: usize,
    weighter: W,
) -> BoundedCache<V, W> {
    let options = OptionsBuilder::new()
        .weight_capacity(octets as u64)
        .estimated_items_capacity((octets / typical).max(1))
        .build();
    // Building fails only without one of the two capacities.
    #[allow(clippy::expect_used, reason = "proven above")]
    let options = options.expect("the capacities are set");
    Cache::with_options(options, weighter, RandomState::new(), DefaultLifecycle::default())
}
