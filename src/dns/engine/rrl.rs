//! A limit on how many answers a network gets over UDP (response rate limiting): whoever sends queries with a forged
//! address must not be able to flood whom it belongs to.
//!
//! Every network has an allowance that refills steadily; a table of fixed size holds when each one's is full again, in
//! one atomic word, so that all threads share it without a lock. Two networks that fall on one place take it from each
//! other: a flood can make the limit forget, never make it bite others.

use std::{
    hash::BuildHasher,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZero,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use foldhash::fast::FixedState;

/// Places of the table: half a megabyte, for as many networks as answer a flood at a time.
const PLACES: usize = 1 << 16;
/// Bits of a word that hold a time, in microseconds: twelve days, of which half are the past.
const TIME_BITS: u32 = 40;
const TIME: u64 = (1 << TIME_BITS) - 1;
/// The allowance when it is full: what a network may use at once is what it gets in this time.
const ALLOWANCE: Duration = Duration::from_secs(1);

/// What the configuration says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseRate {
    /// Answers a second for each network.
    pub per_second: NonZero<u32>,
    /// Of so many answers that are held back one is sent, cut short, so that a client in that network that is no attacker
    /// comes back over TCP; 0: none.
    pub slip: u8,
    /// Bits that make a network of IPv4, at most 32.
    pub ipv4_prefix: u8,
    /// Bits that make a network of IPv6, at most 128.
    pub ipv6_prefix: u8,
}

/// The limit, and who used how much of it.
pub struct ResponseRateLimiter {
    rate: ResponseRate,
    hash: FixedState,
    places: Box<[AtomicU64]>,
}

impl ResponseRateLimiter {
    /// `seed` keeps strangers from working out which networks share a place.
    pub fn new(rate: ResponseRate, seed: u64) -> Self {
        let places = (0..PLACES).map(|_| AtomicU64::new(0)).collect();
        Self { rate, hash: FixedState::with_seed(seed), places }
    }

    /// How many answers that are held back one is sent of, cut short; 0: none.
    pub fn slip(&self) -> u8 {
        self.rate.slip
    }

    /// Whether this client's network may have one more answer; it is counted. `now` is a time since any fixed point.
    ///
    /// Loopback is not limited: no packet from elsewhere has such an address.
    pub fn allows(&self, client: IpAddr, now: Duration) -> bool {
        if client.is_loopback() {
            return true;
        }
        let hash = self.hash.hash_one(self.network(client));
        let (place, tag) = (&self.places[hash as usize % PLACES], hash >> TIME_BITS);
        let now = now.as_micros() as u64 & TIME;
        let each = (ALLOWANCE.as_micros() as u64 / u64::from(self.rate.per_second.get())).max(1);
        let next = |word: u64| {
            // When the allowance is full again. What is not ahead of us by an allowance at most is old, or another's.
            let full = word & TIME;
            let ahead = full.wrapping_sub(now) & TIME;
            let used = if word >> TIME_BITS == tag && ahead <= ALLOWANCE.as_micros() as u64 { ahead } else { 0 };
            let used = used + each;
            (used <= ALLOWANCE.as_micros() as u64).then_some(tag << TIME_BITS | (now + used) & TIME)
        };
        place.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
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
    use super::*;

    fn limit(per_second: u32) -> ResponseRateLimiter {
        let rate =
            ResponseRate { per_second: NonZero::new(per_second).unwrap(), slip: 2, ipv4_prefix: 24, ipv6_prefix: 56 };
        ResponseRateLimiter::new(rate, 7)
    }

    /// How many of so many answers at one time are allowed.
    fn allowed(limit: &ResponseRateLimiter, client: &str, now: Duration, asked: usize) -> usize {
        let client = client.parse().unwrap();
        (0..asked).filter(|_| limit.allows(client, now)).count()
    }

    #[test]
    fn a_network_gets_its_allowance_and_what_refills() {
        let limit = limit(100);
        let mut now = Duration::from_secs(1_700_000_000);
        let steps = [
            ("all at once", 0, "192.0.2.1", 1000, 100),
            ("its neighbour", 0, "192.0.2.200", 1000, 0),
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

    /// Whatever the clock does, nobody is held back for longer than an allowance takes to refill.
    #[test]
    fn a_clock_that_steps_back_holds_nobody_back() {
        let limit = limit(10);
        let now = Duration::from_secs(1_700_000_000);
        assert_eq!(allowed(&limit, "192.0.2.1", now, 100), 10);
        assert_eq!(allowed(&limit, "192.0.2.1", now - Duration::from_secs(3600), 100), 10);
    }

    #[test]
    fn loopback_is_not_limited() {
        let now = Duration::from_secs(1);
        for client in ["127.0.0.1", "::1"] {
            assert_eq!(allowed(&limit(1), client, now, 1000), 1000);
        }
    }
}
