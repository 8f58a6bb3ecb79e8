//! Response rate limiting over UDP: queries with a forged source address must not flood the owner of that address.
//!
//! Every client network has a token bucket. A table of fixed size stores, in one atomic word each, when a bucket is full
//! again, so that all threads share it without a lock. Networks whose hashes collide evict each other: a flood can reset a
//! bucket but not drain another network's.

use std::{
    hash::BuildHasher,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use foldhash::fast::FixedState;

use crate::model::{
    dns_limits::{RateScope, ResponseRate},
    recursion_access::ClientRange,
};

/// Buckets in the table, which takes half a megabyte.
const BUCKETS: usize = 1 << 16;
/// Bits of a word for the time in microseconds, which wraps after twelve days; half of the range is the past.
const TIME_BITS: u32 = 40;
const TIME: u64 = (1 << TIME_BITS) - 1;
/// Burst of a full bucket, as the time that refills it.
const ALLOWANCE: Duration = Duration::from_secs(1);

/// The rate limit with the state of all client networks.
pub struct ResponseRateLimiter {
    rate: ResponseRate,
    /// Clients without a limit if the rate is for clients outside.
    inside: Box<[ClientRange]>,
    hash: FixedState,
    buckets: Box<[AtomicU64]>,
}

impl ResponseRateLimiter {
    /// `inside` are the clients that [`RateScope::Outside`] excludes; `seed` keeps clients from predicting hash collisions.
    pub fn new(rate: ResponseRate, inside: &[ClientRange], seed: u64) -> Self {
        let buckets = (0..BUCKETS).map(|_| AtomicU64::new(0)).collect();
        Self { rate, inside: inside.into(), hash: FixedState::with_seed(seed), buckets }
    }

    /// Returns the slip rate: every `slip`-th excess response is sent truncated; 0 sends none.
    pub fn slip(&self) -> u8 {
        self.rate.slip
    }

    /// Reports whether the limit applies to clients that may use recursion.
    pub fn is_for_all(&self) -> bool {
        self.rate.scope == RateScope::All
    }

    /// Takes a token of the client's network and reports whether there was one. `now` is a time since any fixed point.
    ///
    /// Loopback is not limited: its addresses cannot be forged from outside.
    pub fn allows(&self, client: IpAddr, now: Duration) -> bool {
        let is_inside = || !self.is_for_all() && self.inside.iter().any(|range| range.matches(client));
        if client.to_canonical().is_loopback() || is_inside() {
            return true;
        }
        let hash = self.hash.hash_one(self.network(client));
        let (bucket, tag) = (&self.buckets[hash as usize % BUCKETS], hash >> TIME_BITS);
        let now = now.as_micros() as u64 & TIME;
        let each = (ALLOWANCE.as_micros() as u64 / u64::from(self.rate.per_second.get())).max(1);
        let next = |word: u64| {
            // The time when the bucket is full again. A value further ahead than a full bucket is stale or a collision.
            let full = word & TIME;
            let ahead = full.wrapping_sub(now) & TIME;
            let used = if word >> TIME_BITS == tag && ahead <= ALLOWANCE.as_micros() as u64 { ahead } else { 0 };
            let used = used + each;
            (used <= ALLOWANCE.as_micros() as u64).then_some(tag << TIME_BITS | (now + used) & TIME)
        };
        bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }

    fn network(&self, client: IpAddr) -> IpAddr {
        match client {
            IpAddr::V4(ip) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.rate.ipv4_prefix)).unwrap_or(0);
                Ipv4Addr::from_bits(ip.to_bits() & mask).into()
            }
            IpAddr::V6(ip) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.rate.ipv6_prefix)).unwrap_or(0);
                Ipv6Addr::from_bits(ip.to_bits() & mask).into()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZero;

    use super::*;

    fn limit(per_second: u32) -> ResponseRateLimiter {
        limit_of(per_second, RateScope::All)
    }

    fn limit_of(per_second: u32, scope: RateScope) -> ResponseRateLimiter {
        let per_second = NonZero::new(per_second).unwrap();
        let rate = ResponseRate { per_second, scope, slip: 2, ipv4_prefix: 24, ipv6_prefix: 56 };
        ResponseRateLimiter::new(rate, &[ClientRange::Private], 7)
    }

    /// Returns how many of `asked` answers at one time are allowed.
    fn allowed(limit: &ResponseRateLimiter, client: &str, now: Duration, asked: usize) -> usize {
        let client = client.parse().unwrap();
        (0..asked).filter(|_| limit.allows(client, now)).count()
    }

    #[test]
    fn network_has_a_burst_that_refills() {
        let limit = limit(100);
        let mut now = Duration::from_secs(1_700_000_000);
        let steps = [
            ("burst", 0, "192.0.2.1", 1000, 100),
            ("neighbour in the network", 0, "192.0.2.200", 1000, 0),
            ("another network", 0, "192.0.3.1", 50, 50),
            ("a tenth of a second later", 100, "192.0.2.1", 1000, 10),
            ("a second later", 1000, "192.0.2.77", 1000, 100),
            ("a day later", 86_400_000, "192.0.2.77", 1000, 100),
            ("twelve days later", 12 * 86_400_000, "192.0.2.77", 1000, 100),
            ("IPv6", 0, "2001:db8:0:ff::1", 1000, 100),
            ("of the same 56 bits", 0, "2001:db8:0:1::1", 1000, 0),
            ("of others", 0, "2001:db8:0:100::1", 1000, 100),
        ];
        for (step, later, client, asked, expected) in steps {
            now += Duration::from_millis(later);
            assert_eq!(allowed(&limit, client, now, asked), expected, "{step}");
        }
    }

    /// A clock step never limits a network for longer than a refill takes.
    #[test]
    fn clock_step_back_does_not_limit() {
        let limit = limit(10);
        let now = Duration::from_secs(1_700_000_000);
        assert_eq!(allowed(&limit, "192.0.2.1", now, 100), 10);
        assert_eq!(allowed(&limit, "192.0.2.1", now - Duration::from_secs(3600), 100), 10);
    }

    #[test]
    fn loopback_is_not_limited() {
        let now = Duration::from_secs(1);
        for client in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(allowed(&limit(1), client, now, 1000), 1000);
        }
    }

    #[test]
    fn limit_for_clients_outside_excludes_clients_inside() {
        let now = Duration::from_secs(1);
        for (scope, expected) in [(RateScope::Outside, [1000, 10]), (RateScope::All, [10, 10])] {
            let seen = ["10.0.0.1", "192.0.2.1"].map(|client| allowed(&limit_of(10, scope), client, now, 1000));
            assert_eq!(seen, expected, "{scope:?}");
        }
    }
}
