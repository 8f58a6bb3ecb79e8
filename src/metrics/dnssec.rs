//! Metrics of signed zones: signatures made, and answers from the cache of signatures.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use super::{Family, counter::Writers};

/// Counters of one engine. Aligned so that those of two threads never share a cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct SignatureTally {
    made: AtomicU64,
    cached: AtomicU64,
}

impl SignatureTally {
    /// Counts signatures that were made.
    pub fn made(&self, count: u64) {
        Writers::Many.add(&self.made, count);
    }

    /// Counts an RRset whose signatures were in the cache.
    pub fn cached(&self) {
        Writers::Many.add(&self.cached, 1);
    }
}

/// All tallies of an agent.
#[derive(Clone, Debug, Default)]
pub struct Dnssec(Arc<Mutex<Vec<Arc<SignatureTally>>>>);

impl Dnssec {
    /// Returns a new tally. Its counts are kept when its owner ends.
    pub fn tally(&self) -> Arc<SignatureTally> {
        let tally = Arc::new(SignatureTally::default());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(tally.clone());
        tally
    }

    /// Returns the numbers of signatures made, and of RRsets whose signatures were in the cache.
    pub fn counts(&self) -> [u64; 2] {
        let tallies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tallies.iter().fold([0, 0], |[made, cached], tally| {
            [made + tally.made.load(Ordering::Relaxed), cached + tally.cached.load(Ordering::Relaxed)]
        })
    }

    pub(super) fn families(&self) -> [Family; 2] {
        let [made, cached] = self.counts();
        let one = |count| [([], count)];
        [
            Family::counters("muster_dnssec_signatures_made", "Number of signatures made", one(made)),
            Family::counters(
                "muster_dnssec_signatures_cached",
                "Number of RRsets in answers whose signatures were in the cache",
                one(cached),
            ),
        ]
    }
}
