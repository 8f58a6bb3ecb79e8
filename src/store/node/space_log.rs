//! Log lines about a full store. Only the leader writes them: it sees the outcome of every write.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tracing::{info, warn};

use crate::store::{
    command::{Outcome, Refusal},
    state::State,
};

/// Share of its limit that the store uses at most when it counts as no longer full, in percent. Lower than the limit, so that a store
/// at its limit is not logged with every second write.
const ROOM_PERCENT: u64 = 95;

/// Whether the store is full, as far as it was logged.
#[derive(Clone, Debug, Default)]
pub(super) struct SpaceLog(Arc<AtomicBool>);

impl SpaceLog {
    /// Logs the first write that is refused because the store is full.
    pub(super) fn written(&self, outcome: &Outcome, state: impl FnOnce() -> State) {
        if matches!(outcome.result, Err(Refusal::NoSpace)) && !self.0.swap(true, Ordering::Relaxed) {
            let state = state();
            warn!(
                octets = state.totals().octets,
                max_octets = state.max_octets(),
                "store: full: writes that need more space are refused. Delete keys, or raise `store.max_size` on all voters \
                 and restart their agents"
            );
        }
    }

    /// Logs that a full store has room again.
    pub(super) fn look(&self, state: &State) {
        let (octets, max_octets) = (state.totals().octets, state.max_octets());
        if octets <= max_octets / 100 * ROOM_PERCENT && self.0.swap(false, Ordering::Relaxed) {
            info!(octets, max_octets, "store: no longer full: writes are accepted");
        }
    }
}
