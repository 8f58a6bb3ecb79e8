//! Adding to a number that others read meanwhile.

use std::sync::atomic::{AtomicU64, Ordering};

/// Who adds to a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writers {
    /// One thread at a time: no other's additions can be lost.
    One,
    /// Any number of threads at once.
    Many,
}

impl Writers {
    /// Adds to a number that these write to.
    #[inline]
    pub(super) fn add(self, to: &AtomicU64, count: u64) {
        match self {
            Self::One => to.store(to.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed),
            Self::Many => drop(to.fetch_add(count, Ordering::Relaxed)),
        }
    }
}
