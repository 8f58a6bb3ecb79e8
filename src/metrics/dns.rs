//! Metrics of the DNS server: queries by transport, type, response code and source, and the duration of replies.
//!
//! The threads that answer datagrams handle millions of queries per second. Each has its own [`Tally`], so counting is
//! contention-free: an addition in the cache of one core. A scrape adds the tallies up. Tallies shared by many tasks
//! (connections) use atomic additions.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{Family, counter::Writers, latency::Latency};
use crate::model::nearest::Tier;

/// Transport of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Plain DNS over UDP.
    Udp,
    /// Plain DNS over TCP.
    Tcp,
    /// DNS over TLS (RFC 7858).
    Tls,
    /// DNS over HTTPS (RFC 8484).
    Https,
    /// DNS over QUIC (RFC 9250).
    Quic,
}

const TRANSPORTS: [(Transport, &str); 5] = [
    (Transport::Udp, "udp"),
    (Transport::Tcp, "tcp"),
    (Transport::Tls, "tls"),
    (Transport::Https, "https"),
    (Transport::Quic, "quic"),
];

/// Source of an answer, or the reason for its absence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A local zone.
    Zone,
    /// A special-use name, never forwarded.
    Host,
    /// The cache.
    Cache,
    /// The cache, with an expired entry because no upstream responds (RFC 8767).
    Stale,
    /// An upstream.
    Upstream,
    /// None: the client may not use recursion, or the query is a forwarding loop.
    Refused,
    /// None: the query is malformed or not supported.
    Rejected,
    /// None: dropped by response rate limiting.
    Limited,
    /// None: the packet is not a query.
    Dropped,
    /// None: the server is overloaded.
    Overload,
}

const SOURCES: [&str; 10] =
    ["zone", "host", "cache", "stale", "upstream", "refused", "rejected", "limited", "dropped", "overload"];

/// Record types with a label of their own; all others share `other`.
const TYPES: [&str; 20] = [
    "A", "AAAA", "ANY", "AXFR", "CAA", "CNAME", "DNSKEY", "DS", "HTTPS", "IXFR", "MX", "NAPTR", "NS", "PTR", "SOA",
    "SRV", "SVCB", "TLSA", "TXT", "other",
];
const OTHER_TYPE: usize = TYPES.len() - 1;

/// Response codes with a label of their own, by number; all others share `other`.
const RCODES: [&str; 7] = ["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "other"];
const OTHER_RCODE: usize = RCODES.len() - 1;

/// Returns the index of a record type in [`TYPES`].
fn type_at(qtype: u16) -> usize {
    match qtype {
        1 => 0,
        28 => 1,
        255 => 2,
        252 => 3,
        257 => 4,
        5 => 5,
        48 => 6,
        43 => 7,
        65 => 8,
        251 => 9,
        15 => 10,
        35 => 11,
        2 => 12,
        12 => 13,
        6 => 14,
        33 => 15,
        64 => 16,
        52 => 17,
        16 => 18,
        _ => OTHER_TYPE,
    }
}

/// Outcome of one query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// Query type; 0 if it cannot be parsed.
    pub qtype: u16,
    /// Source of the answer.
    pub source: Source,
    /// Response code; `None`: no reply.
    pub rcode: Option<u16>,
    /// True if the reply is truncated.
    pub truncated: bool,
    /// Tier of the answered instances; `None` unless their service prefers near ones.
    pub tier: Option<Tier>,
}

/// Counters of one thread, or of all connections of a transport.
///
/// Aligned so that tallies of two threads never share a cache line.
#[derive(Debug)]
#[repr(align(128))]
pub struct Tally {
    transport: Transport,
    writers: Writers,
    types: [AtomicU64; TYPES.len()],
    rcodes: [AtomicU64; RCODES.len()],
    sources: [AtomicU64; SOURCES.len()],
    truncated: AtomicU64,
    tiers: [AtomicU64; Tier::ALL.len()],
    latency: Latency,
}

impl Tally {
    fn new(transport: Transport, writers: Writers) -> Self {
        let (types, rcodes, sources) = Default::default();
        let (truncated, tiers, latency) = Default::default();
        Self { transport, writers, types, rcodes, sources, truncated, tiers, latency }
    }

    /// Counts a query.
    #[inline]
    pub fn count(&self, account: Account) {
        self.writers.add(&self.types[type_at(account.qtype)], 1);
        self.writers.add(&self.sources[account.source as usize], 1);
        if let Some(rcode) = account.rcode {
            self.writers.add(&self.rcodes[usize::from(rcode).min(OTHER_RCODE)], 1);
        }
        if account.truncated {
            self.writers.add(&self.truncated, 1);
        }
        if let Some(tier) = account.tier {
            self.writers.add(&self.tiers[tier as usize], 1);
        }
    }

    /// Records the duration of queries, from their arrival to the departure of their replies.
    pub fn took(&self, took: Duration, queries: u64) {
        self.latency.add(self.writers, took, queries);
    }

    /// Counts queries that were dropped because of overload.
    pub fn overload(&self, queries: u64) {
        self.writers.add(&self.sources[Source::Overload as usize], queries);
    }
}

/// All tallies of an agent.
#[derive(Clone, Debug, Default)]
pub struct Dns(Arc<Mutex<Vec<Arc<Tally>>>>);

impl Dns {
    /// Returns a new tally. Its counts are kept when its owner ends.
    pub fn tally(&self, transport: Transport, writers: Writers) -> Arc<Tally> {
        let tally = Arc::new(Tally::new(transport, writers));
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(tally.clone());
        tally
    }

    pub(super) fn families(&self) -> [Family; 6] {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let by_transport: Vec<(&str, Vec<Arc<Tally>>)> = TRANSPORTS
            .iter()
            .map(|(transport, word)| {
                (*word, all.iter().filter(|tally| tally.transport == *transport).cloned().collect())
            })
            .filter(|(_, tallies): &(_, Vec<_>)| !tallies.is_empty())
            .collect();
        let sum = |tallies: &[Arc<Tally>], number: &dyn Fn(&Tally) -> &AtomicU64| {
            tallies.iter().map(|tally| number(tally).load(Ordering::Relaxed)).sum::<u64>()
        };
        let each = |label: &'static str, words: &[&'static str], number: &dyn Fn(&Tally, usize) -> &AtomicU64| {
            let mut samples = Vec::new();
            for (transport, tallies) in &by_transport {
                for (at, word) in words.iter().enumerate() {
                    let count = sum(tallies, &|tally| number(tally, at));
                    samples.push(([("transport", *transport), (label, *word)], count));
                }
            }
            samples
        };
        [
            Family::counters(
                "muster_dns_queries",
                "Number of queries, answered or dropped, by transport and query type",
                each("type", &TYPES, &|tally, at| &tally.types[at]),
            ),
            Family::counters(
                "muster_dns_replies",
                "Number of replies, by transport and response code",
                each("rcode", &RCODES, &|tally, at| &tally.rcodes[at]),
            ),
            Family::counters(
                "muster_dns_answers",
                "Number of queries, by transport and source of the answer or reason for its absence",
                each("source", &SOURCES, &|tally, at| &tally.sources[at]),
            ),
            Family::counters(
                "muster_dns_truncated",
                "Number of truncated replies, which clients repeat over TCP",
                by_transport
                    .iter()
                    .map(|(word, tallies)| ([("transport", *word)], sum(tallies, &|tally| &tally.truncated))),
            ),
            Family::counters(
                "muster_dns_nearest_answers",
                "Number of answers of services that prefer near instances, by transport and tier",
                each("tier", &Tier::ALL.map(Tier::as_str), &|tally, at| &tally.tiers[at]),
            ),
            Family::histograms(
                "muster_dns_reply_duration_seconds",
                "Duration from receiving a query to sending its reply",
                by_transport
                    .iter()
                    .map(|(word, tallies)| ([("transport", *word)], Latency::sum(tallies.iter().map(|t| &t.latency)))),
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::family::{Content, Value};

    /// Returns label values and value of each series that is not zero.
    fn counted(family: &Family) -> Vec<String> {
        let Content::Counter(samples) = &family.content else { panic!("{family:?}") };
        let shown = samples.iter().filter(|sample| sample.value != Value::Whole(0)).map(|sample| {
            let words: Vec<&str> = sample.labels.iter().map(|(_, word)| &**word).collect();
            let Value::Whole(count) = sample.value else { panic!("{family:?}") };
            format!("{} {count}", words.join(" "))
        });
        shown.collect()
    }

    #[test]
    fn tallies_of_a_transport_add_up() {
        let dns = Dns::default();
        let account = |qtype, source, rcode, truncated| Account { qtype, source, rcode, truncated, tier: None };
        for writers in [Writers::One, Writers::Many] {
            let tally = dns.tally(Transport::Udp, writers);
            tally.count(account(33, Source::Zone, Some(0), true));
            tally.count(account(1, Source::Cache, Some(3), false));
            tally.count(account(65_280, Source::Limited, None, false));
            tally.count(account(1, Source::Upstream, Some(9), false));
            tally.overload(2);
            tally.count(Account { tier: Some(Tier::Zone), ..account(33, Source::Zone, Some(0), false) });
        }
        dns.tally(Transport::Quic, Writers::Many).count(account(0, Source::Rejected, Some(1), false));
        let [queries, replies, answers, truncated, nearest, _] = dns.families();
        assert_eq!(counted(&queries), ["udp A 4", "udp SRV 4", "udp other 2", "quic other 1"]);
        assert_eq!(counted(&replies), ["udp NOERROR 4", "udp NXDOMAIN 2", "udp other 2", "quic FORMERR 1"]);
        let expected =
            ["udp zone 4", "udp cache 2", "udp upstream 2", "udp limited 2", "udp overload 4", "quic rejected 1"];
        assert_eq!(counted(&answers), expected);
        assert_eq!(counted(&truncated), ["udp 2"]);
        assert_eq!(counted(&nearest), ["udp zone 2"]);
    }

    /// Clients cannot add series.
    #[test]
    fn unknown_types_and_codes_add_no_series() {
        let dns = Dns::default();
        let tally = dns.tally(Transport::Udp, Writers::One);
        let names = |dns: &Dns| format!("{:?}", dns.families().map(|family| (family.name, series(&family))));
        let before = names(&dns);
        for number in 0..=u16::MAX {
            tally.count(Account {
                qtype: number,
                source: Source::Zone,
                rcode: Some(number),
                truncated: false,
                tier: None,
            });
        }
        assert_eq!(names(&dns), before);
        let known = (0..=u16::MAX).filter(|number| type_at(*number) != OTHER_TYPE);
        let words: Vec<&str> = known.map(|number| TYPES[type_at(number)]).collect();
        let expected = [
            "A", "NS", "CNAME", "SOA", "PTR", "MX", "TXT", "AAAA", "SRV", "NAPTR", "DS", "DNSKEY", "TLSA", "SVCB",
            "HTTPS", "IXFR", "AXFR", "ANY", "CAA",
        ];
        assert_eq!(words, expected, "one type number per word");
    }

    fn series(family: &Family) -> usize {
        match &family.content {
            Content::Counter(samples) | Content::Gauge(samples) => samples.len(),
            Content::Histogram(samples) => samples.len(),
            Content::Info(_) => 1,
        }
    }
}
