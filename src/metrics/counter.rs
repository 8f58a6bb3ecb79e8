//! Additions to a counter, atomic only where several threads write.

use std::sync::atomic::{AtomicU64, Ordering};

/// Number of threads that write to a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writers {
    /// One thread at a time: a load and a store suffice.
    One,
    /// Any number of threads: additions are atomic.
    Many,
}

impl Writers {
    /// Adds to a counter.
    #[inline]
    pub(super) fn add(self, to: &AtomicU64, count: u64) {
        match self {
            Self::One => to.store(to.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed),
            Self::Many => drop(to.fetch_add(count, Ordering::Relaxed)),
        }
    }
}
