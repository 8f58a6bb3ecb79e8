//! Cache of upstream replies.

use crate::model::dns_limits::CacheTtls;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use quick_cache::Weighter;

use super::upstream_reply::{Age, Reply};
use crate::{
    dns::{
        bounded_cache::{BoundedCache, bounded},
        message::query::{LookupName, Query},
    },
    model::name::MAX_NAME,
};

/// Octets of an entry besides the reply and its key: table slot, pointers, counters.
const OVERHEAD: usize = 96;
/// Octets of a typical entry, for the initial size of the table.
const TYPICAL: usize = 512;
/// Divisor of the TTL: an entry that is used in the last tenth of its TTL is prefetched.
const PREFETCH: u32 = 10;
/// Minimum TTL in seconds of prefetched entries. Shorter ones would be prefetched endlessly.
const PREFETCH_MIN_TTL: u32 = 10;
/// Seconds between attempts to refresh a stale entry (RFC 8767 §5 allows up to 30).
const RETRY: u64 = 5;

/// The cache.
pub struct Cache {
    entries: BoundedCache<Arc<Entry>, Weight>,
    bounds: CacheTtls,
}

/// The parts of a question that its answer depends on.
pub struct Key {
    octets: [u8; MAX_NAME + 3],
    len: usize,
}

/// A reply with its arrival time.
pub struct Entry {
    /// The reply.
    pub reply: Reply,
    /// Unix time of arrival.
    came: Duration,
    /// Set once a refresh was requested.
    refresh_requested: AtomicBool,
    /// Unix time in seconds of the last failed refresh; 0 if none failed.
    failed: AtomicU64,
}

/// A cached reply.
pub enum Hit {
    /// The reply is within its TTL.
    Fresh {
        /// The reply.
        entry: Arc<Entry>,
        /// Age in seconds.
        age: u32,
        /// Requests a prefetch; true once per entry.
        refresh: bool,
    },
    /// The reply is past its TTL and may be served if no upstream answers.
    Stale {
        /// The reply.
        entry: Arc<Entry>,
        /// True if a recent refresh failed, so that clients need not wait for another.
        tried: bool,
        /// Requests another refresh; true once per retry interval.
        refresh: bool,
    },
}

impl Key {
    /// Returns the key of a query for `name`.
    pub fn new(query: &Query<'_>, name: &LookupName) -> Self {
        let dnssec_ok = query.edns.is_some_and(|edns| edns.dnssec_ok);
        Self::of(name, query.qtype, dnssec_ok, query.header.checking_disabled)
    }

    /// Returns the key of a question with DO and CD, whose reply is not validated.
    pub fn unvalidated(name: &LookupName, qtype: u16) -> Self {
        Self::of(name, qtype, true, true)
    }

    /// Returns the key of a question for `name` with these flags.
    pub fn of(name: &LookupName, qtype: u16, dnssec_ok: bool, checking_disabled: bool) -> Self {
        let wire = name.wire();
        let mut octets = [0; MAX_NAME + 3];
        octets[..wire.len()].copy_from_slice(wire);
        octets[wire.len()..wire.len() + 2].copy_from_slice(&qtype.to_be_bytes());
        octets[wire.len() + 2] = u8::from(dnssec_ok) | u8::from(checking_disabled) << 1;
        Self { octets, len: wire.len() + 3 }
    }

    /// Returns the key as octets.
    pub fn as_bytes(&self) -> &[u8] {
        &self.octets[..self.len]
    }
}

impl Cache {
    /// Returns an empty cache of at most `octets` octets.
    pub fn new(octets: usize, bounds: CacheTtls) -> Self {
        Self { entries: bounded(octets, TYPICAL, Weight), bounds }
    }

    /// Returns the entry of a key; `now` is the Unix time.
    pub fn get(&self, key: &[u8], now: Duration) -> Option<Hit> {
        let entry = self.entries.get(key)?;
        let age = entry.age(now);
        let ttl = entry.reply.ttl();
        if age < ttl {
            let is_late = ttl >= PREFETCH_MIN_TTL && ttl - age <= ttl / PREFETCH;
            let refresh = is_late && !entry.refresh_requested.swap(true, Ordering::Relaxed);
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

    /// Returns the entry of a key that is within its TTL, without a request to refresh it.
    pub fn fresh(&self, key: &[u8], now: Duration) -> Option<Arc<Entry>> {
        self.entries.peek(key).filter(|entry| entry.age(now) < entry.reply.ttl())
    }

    /// Stores a reply if it may be cached. A failure does not replace an answer that may still be served: after a bogus reply,
    /// that is a secure one only.
    pub fn put(&self, key: &[u8], reply: Reply, now: Duration) -> Arc<Entry> {
        let entry = Entry::new(reply.bounded(self.bounds.ttl, self.bounds.negative_ttl), now);
        if entry.reply.ttl() == 0 {
            return entry;
        }
        if !entry.reply.is_answer()
            && let Some(old) = self.entries.peek(key)
            && old.reply.may_stand_for(&entry.reply)
            && old.age(now) < old.reply.ttl().saturating_add(self.bounds.stale)
        {
            old.failed.store(now.as_secs(), Ordering::Relaxed);
            return entry;
        }
        self.entries.insert(key.into(), entry.clone());
        entry
    }

    /// Removes all entries, for a change of upstreams.
    pub fn clear(&self) {
        self.entries.clear();
    }

    /// Returns the number of entries and their size in octets.
    pub fn size(&self) -> (usize, u64) {
        (self.entries.len(), self.entries.weight())
    }
}

impl Entry {
    /// Returns an entry that arrived at `now`.
    pub fn new(reply: Reply, now: Duration) -> Arc<Self> {
        Arc::new(Self { reply, came: now, refresh_requested: AtomicBool::new(false), failed: AtomicU64::new(0) })
    }

    /// Age in seconds; 0 if the clock was set back.
    fn age(&self, now: Duration) -> u32 {
        u32::try_from(now.saturating_sub(self.came).as_secs()).unwrap_or(u32::MAX)
    }
}

impl Hit {
    /// Reports whether the caller should query the upstreams.
    pub fn refresh(&self) -> bool {
        match self {
            Self::Fresh { refresh, .. } | Self::Stale { refresh, .. } => *refresh,
        }
    }

    /// Returns the reply and its age.
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
    use crate::dns::{message::codes::Rcode, recursion::validation::Security};

    const QUESTION: &[u8] = b"\x01a\0\0\x01\0\x01";
    const BOUNDS: CacheTtls = CacheTtls { ttl: 1000, negative_ttl: 100, stale: 500 };

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

    /// Returns age, whether a refresh of a stale entry failed, and whether a refresh is requested.
    fn seen(cache: &Cache, key: &[u8], seconds: u64) -> Option<(Age, bool, bool)> {
        let hit = cache.get(key, at(seconds))?;
        let tried = matches!(hit, Hit::Stale { tried: true, .. });
        Some((hit.parts().1, tried, hit.refresh()))
    }

    #[test]
    fn fresh_entry_is_prefetched_in_its_last_tenth() {
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
        assert_eq!(seen(&cache, b"hot", 100), Some((Age::Fresh(5), false, false)), "replaced");
        assert_eq!(seen(&cache, b"other", 0), None);
    }

    /// RFC 8767 §5: stale data is served after a failed refresh, and refreshes are retried at intervals.
    #[test]
    fn stale_entry_is_served_after_a_failure() {
        let cache = Cache::new(1 << 20, BOUNDS);
        cache.put(b"k", reply(100, 0), at(0));
        assert_eq!(seen(&cache, b"k", 100), Some((Age::Stale, false, false)), "refresh first");
        cache.put(b"k", reply(0, 2), at(101));
        assert_eq!(seen(&cache, b"k", 102), Some((Age::Stale, true, false)), "a failure does not replace the answer");
        assert_eq!(seen(&cache, b"k", 106), Some((Age::Stale, true, true)), "one retry per interval");
        assert_eq!(seen(&cache, b"k", 107), Some((Age::Stale, true, false)), "not for every client");
        assert_eq!(seen(&cache, b"k", 599), Some((Age::Stale, true, true)));
        assert_eq!(seen(&cache, b"k", 600), None, "stale limit reached");
        cache.put(b"k", reply(100, 0), at(110));
        assert_eq!(seen(&cache, b"k", 111), Some((Age::Fresh(1), false, false)));
        let never = Cache::new(1 << 20, CacheTtls { stale: 0, ..BOUNDS });
        never.put(b"k", reply(100, 0), at(0));
        assert_eq!(seen(&never, b"k", 100), None);
    }

    /// RFC 8767 leaves open whether a stale answer stands for a bogus one: a secure one does.
    #[test]
    fn bogus_reply_replaces_all_answers_but_secure_ones() {
        for (security, expected) in [
            (Security::Unvalidated, (Age::Fresh(0), Rcode::ServFail)),
            (Security::Insecure, (Age::Fresh(0), Rcode::ServFail)),
            (Security::Secure, (Age::Stale, Rcode::NoError)),
        ] {
            let cache = Cache::new(1 << 20, BOUNDS);
            cache.put(b"k", reply(100, 0).with_security(security), at(0));
            cache.put(b"k", reply(0, 2).with_security(Security::Bogus), at(101));
            let hit = cache.get(b"k", at(101)).unwrap();
            let (found, age) = hit.parts();
            assert_eq!((age, found.rcode()), (expected.0, expected.1 as u16), "{security:?}");
        }
        let cache = Cache::new(1 << 20, BOUNDS);
        cache.put(b"k", reply(0, 2).with_security(Security::Bogus), at(0));
        assert_eq!(seen(&cache, b"k", 29), Some((Age::Fresh(29), false, true)), "longer than other failures");
        assert_eq!(seen(&cache, b"k", 30), None);
    }

    /// RFC 9520 §3.2: failures are cached for a second. A TTL of 0 is not cached.
    #[test]
    fn failures_are_cached_and_zero_ttls_are_not() {
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
    fn memory_is_bounded_and_clock_step_back_is_age_zero() {
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
