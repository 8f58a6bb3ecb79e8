//! Replies that may be handed out again.
//!
//! Bounded by what they take in memory; who was asked for lately and often stays (S3-FIFO). The threads that answer share
//! it: a hit takes a read lock of one of many shards for as long as it takes to clone a pointer. Clients choose the names:
//! they are hashed with a secret (SipHash).

use std::{
    hash::RandomState,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use quick_cache::{OptionsBuilder, Weighter, sync};

use super::reply::{Age, Reply};
use crate::{
    dns::message::query::{LookupName, Query},
    model::name::MAX_NAME,
};

/// What an entry takes besides the reply and its key: the table's own part, pointers, counters.
const OVERHEAD: usize = 96;
/// What a usual entry takes, to size the table by.
const TYPICAL: usize = 512;
/// The part of its life after which an entry that is asked for is fetched anew: the last tenth.
const PREFETCH: u32 = 10;
/// Seconds. What lives shorter is not fetched in advance: it would be fetched for ever.
const PREFETCH_MIN_TTL: u32 = 10;
/// Seconds from one attempt to renew what is stale to the next (RFC 8767 §5 allows up to 30).
const RETRY: u64 = 5;

/// Answers that were had from upstreams.
pub struct Cache {
    entries: sync::Cache<Box<[u8]>, Arc<Entry>, Weight, RandomState>,
    bounds: Bounds,
}

/// How long replies are good for, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// TTLs beyond it are cut down to it.
    pub ttl: u32,
    /// The same, where there is no such thing (RFC 2308 §5).
    pub negative_ttl: u32,
    /// For how long beyond its TTL a reply is given if no upstream answers (RFC 8767); 0: not at all.
    pub stale: u32,
}

/// What is asked, as far as the answer depends on it.
pub struct Key {
    octets: [u8; MAX_NAME + 3],
    len: usize,
}

/// A reply, and when it came.
pub struct Entry {
    /// What was said.
    pub reply: Reply,
    /// When, since 1970.
    came: Duration,
    /// Whether somebody was told to fetch it anew.
    told: AtomicBool,
    /// Seconds since 1970 at which nobody could renew it; 0: nobody failed.
    failed: AtomicU64,
}

/// What is known of a question.
pub enum Hit {
    /// This, and whether it is time to ask anew.
    Fresh {
        /// The reply.
        entry: Arc<Entry>,
        /// Its age in seconds.
        age: u32,
        /// Whether it is asked for and about to end: true once.
        refresh: bool,
    },
    /// This, if nobody knows better.
    Stale {
        /// The reply.
        entry: Arc<Entry>,
        /// Whether the upstreams were asked of late and did not answer: whoever asks need not wait.
        tried: bool,
        /// Whether it is time to try again: true once.
        refresh: bool,
    },
}

impl Key {
    /// The key of a query for `name`.
    pub fn new(query: &Query<'_>, name: &LookupName) -> Self {
        let wire = name.wire();
        let mut octets = [0; MAX_NAME + 3];
        octets[..wire.len()].copy_from_slice(wire);
        octets[wire.len()..wire.len() + 2].copy_from_slice(&query.qtype.to_be_bytes());
        let dnssec_ok = query.edns.is_some_and(|edns| edns.dnssec_ok);
        octets[wire.len() + 2] = u8::from(dnssec_ok) | u8::from(query.header.checking_disabled) << 1;
        Self { octets, len: wire.len() + 3 }
    }

    /// As octets.
    pub fn as_bytes(&self) -> &[u8] {
        &self.octets[..self.len]
    }
}

impl Cache {
    /// A cache of at most so many octets.
    pub fn new(octets: usize, bounds: Bounds) -> Self {
        let options = OptionsBuilder::new()
            .weight_capacity(octets as u64)
            .estimated_items_capacity((octets / TYPICAL).max(1))
            .build();
        // Both capacities are set: that is all that can be wrong with options.
        #[allow(clippy::expect_used, reason = "proven above")]
        let options = options.expect("the capacities are set");
        let entries = sync::Cache::with_options(options, Weight, RandomState::new(), sync::DefaultLifecycle::default());
        Self { entries, bounds }
    }

    /// What there is; `now` is since 1970.
    pub fn get(&self, key: &[u8], now: Duration) -> Option<Hit> {
        let entry = self.entries.get(key)?;
        let age = entry.age(now);
        let ttl = entry.reply.ttl();
        if age < ttl {
            let is_late = ttl >= PREFETCH_MIN_TTL && ttl - age <= ttl / PREFETCH;
            let refresh = is_late && !entry.told.swap(true, Ordering::Relaxed);
            return Some(Hit::Fresh { entry, age, refresh });
        }
        if !entry.reply.is_answer() || age - ttl >= self.bounds.stale {
            return None;
        }
        let (failed, now) = (entry.failed.load(Ordering::Relaxed), now.as_secs());
        let tried = failed > 0;
        let refresh = tried
            && now >= failed + RETRY
            && entry.failed.compare_exchange(failed, now, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        Some(Hit::Stale { entry, tried, refresh })
    }

    /// Keeps a reply, if it may be kept. That nobody answers does not replace what was true before.
    pub fn put(&self, key: &[u8], reply: Reply, now: Duration) -> Arc<Entry> {
        let entry = Entry::new(reply.bounded(self.bounds.ttl, self.bounds.negative_ttl), now);
        if entry.reply.ttl() == 0 {
            return entry;
        }
        if !entry.reply.is_answer()
            && let Some(old) = self.entries.peek(key)
            && old.reply.is_answer()
            && old.age(now) < old.reply.ttl().saturating_add(self.bounds.stale)
        {
            old.failed.store(now.as_secs(), Ordering::Relaxed);
            return entry;
        }
        self.entries.insert(key.into(), entry.clone());
        entry
    }

    /// Forgets everything: what was true by way of other upstreams may be no more.
    pub fn clear(&self) {
        self.entries.clear();
    }

    /// How many replies there are, and what they take in octets.
    pub fn size(&self) -> (usize, u64) {
        (self.entries.len(), self.entries.weight())
    }
}

impl Entry {
    /// What came now.
    pub fn new(reply: Reply, now: Duration) -> Arc<Self> {
        Arc::new(Self { reply, came: now, told: AtomicBool::new(false), failed: AtomicU64::new(0) })
    }

    /// Seconds. A clock that went back makes nothing younger than new.
    fn age(&self, now: Duration) -> u32 {
        u32::try_from(now.saturating_sub(self.came).as_secs()).unwrap_or(u32::MAX)
    }
}

impl Hit {
    /// Whether somebody should ask the upstreams anew.
    pub fn refresh(&self) -> bool {
        match self {
            Self::Fresh { refresh, .. } | Self::Stale { refresh, .. } => *refresh,
        }
    }

    /// The reply, and how old it is.
    pub fn parts(&self) -> (&Reply, Age) {
        match self {
            Self::Fresh { entry, age, .. } => (&entry.reply, Age::Fresh(*age)),
            Self::Stale { entry, .. } => (&entry.reply, Age::Stale),
        }
    }
}

#[derive(Clone, Copy)]
struct Weight;

impl Weighter<Box<[u8]>, Arc<Entry>> for Weight {
    fn weight(&self, key: &Box<[u8]>, entry: &Arc<Entry>) -> u64 {
        (OVERHEAD + key.len() + entry.reply.size()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUESTION: &[u8] = b"\x01a\0\0\x01\0\x01";
    const BOUNDS: Bounds = Bounds { ttl: 1000, negative_ttl: 100, stale: 500 };

    /// A reply with one address, or a failure.
    fn reply(ttl: u32, rcode: u8) -> Reply {
        let answers = u8::from(rcode == 0);
        let mut octets = [&[0, 7, 0x81, 0x80 | rcode, 0, 1, 0, answers, 0, 0, 0, 0], QUESTION].concat();
        if rcode == 0 {
            octets.extend([&[0xc0, 0x0c, 0, 1, 0, 1][..], &ttl.to_be_bytes(), &[0, 4, 192, 0, 2, 1]].concat());
        }
        Reply::read(&octets, 7, QUESTION).unwrap()
    }

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(1_000_000 + seconds)
    }

    /// Its age, whether it is stale and was tried for, and whether it is to be renewed.
    fn seen(cache: &Cache, key: &[u8], seconds: u64) -> Option<(Age, bool, bool)> {
        let hit = cache.get(key, at(seconds))?;
        let tried = matches!(hit, Hit::Stale { tried: true, .. });
        Some((hit.parts().1, tried, hit.refresh()))
    }

    #[test]
    fn what_lives_is_given_and_renewed_in_its_last_tenth() {
        let cache = Cache::new(1 << 20, BOUNDS);
        cache.put(b"hot", reply(100, 0), at(0));
        cache.put(b"short", reply(9, 0), at(0));
        for (key, seconds, expected) in [
            (&b"hot"[..], 0, (Age::Fresh(0), false, false)),
            (b"hot", 89, (Age::Fresh(89), false, false)),
            (b"hot", 90, (Age::Fresh(90), false, true)),
            (b"hot", 91, (Age::Fresh(91), false, false)),
            (b"short", 8, (Age::Fresh(8), false, false)),
        ] {
            assert_eq!(seen(&cache, key, seconds), Some(expected), "{key:?} at {seconds}");
        }
        cache.put(b"hot", reply(100, 0), at(95));
        assert_eq!(seen(&cache, b"hot", 100), Some((Age::Fresh(5), false, false)), "the new one");
        assert_eq!(seen(&cache, b"other", 0), None);
    }

    /// RFC 8767 §5: kept beyond its time, told when nobody answers, tried for now and then.
    #[test]
    fn what_is_stale_waits_for_a_failure() {
        let cache = Cache::new(1 << 20, BOUNDS);
        cache.put(b"k", reply(100, 0), at(0));
        assert_eq!(seen(&cache, b"k", 100), Some((Age::Stale, false, false)), "ask before it is told");
        cache.put(b"k", reply(0, 2), at(101));
        assert_eq!(seen(&cache, b"k", 102), Some((Age::Stale, true, false)), "a failure does not replace it");
        assert_eq!(seen(&cache, b"k", 106), Some((Age::Stale, true, true)), "once in a while");
        assert_eq!(seen(&cache, b"k", 107), Some((Age::Stale, true, false)), "not by everybody");
        assert_eq!(seen(&cache, b"k", 599), Some((Age::Stale, true, true)));
        assert_eq!(seen(&cache, b"k", 600), None, "no longer than said");
        cache.put(b"k", reply(100, 0), at(110));
        assert_eq!(seen(&cache, b"k", 111), Some((Age::Fresh(1), false, false)));
        let never = Cache::new(1 << 20, Bounds { stale: 0, ..BOUNDS });
        never.put(b"k", reply(100, 0), at(0));
        assert_eq!(seen(&never, b"k", 100), None);
    }

    /// RFC 9520 §3.2: failures too, for a second; what has a TTL of 0 not at all.
    #[test]
    fn what_may_not_be_kept_is_not() {
        let cache = Cache::new(1 << 20, BOUNDS);
        cache.put(b"zero", reply(0, 0), at(0));
        assert_eq!(seen(&cache, b"zero", 0), None);
        cache.put(b"failed", reply(0, 2), at(0));
        assert_eq!(seen(&cache, b"failed", 0), Some((Age::Fresh(0), false, false)));
        assert_eq!(seen(&cache, b"failed", 1), None);
        cache.put(b"long", reply(5000, 0), at(0));
        assert_eq!(seen(&cache, b"long", 999), Some((Age::Fresh(999), false, true)));
        assert_eq!(seen(&cache, b"long", 1000), Some((Age::Stale, false, false)), "bounded");
    }

    #[test]
    fn memory_is_bounded_and_a_clock_that_goes_back_makes_nothing_young() {
        let cache = Cache::new(64 << 10, BOUNDS);
        for number in 0..10_000_u32 {
            cache.put(&number.to_be_bytes(), reply(100, 0), at(0));
        }
        let (count, octets) = cache.size();
        assert!((100..10_000).contains(&count) && octets <= 64 << 10, "{count} in {octets}");
        cache.clear();
        assert_eq!(cache.size().0, 0);
        cache.put(b"k", reply(100, 0), at(50));
        assert_eq!(seen(&cache, b"k", 0), Some((Age::Fresh(0), false, false)));
    }
}
