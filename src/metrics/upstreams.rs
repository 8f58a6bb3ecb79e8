//! Metrics of upstreams: queries, failures and response times.
//!
//! This module has the only label whose values are not constants: the upstream, as named in the configuration or in
//! resolv.conf. The series of an upstream end when it is no longer in use.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    Family,
    counter::Writers,
    family::{Content, Labels, Sample, Value},
    latency::Latency,
};

/// Cause of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Another upstream responded first, after the usual response time of this one had passed.
    Late,
    /// Network error.
    Network,
    /// Malformed reply, or reply to another question.
    Malformed,
    /// Truncated reply over TCP.
    Truncated,
    /// Failure of TLS or HTTP, or of their connection.
    Secure,
    /// Response code such as SERVFAIL or REFUSED.
    Refusal,
}

const CAUSES: [(Cause, &str); 6] = [
    (Cause::Late, "late"),
    (Cause::Network, "network"),
    (Cause::Malformed, "malformed"),
    (Cause::Truncated, "truncated"),
    (Cause::Secure, "secure"),
    (Cause::Refusal, "refusal"),
];

/// Counters of one upstream.
#[derive(Debug, Default)]
pub struct Upstream {
    questions: AtomicU64,
    failures: [AtomicU64; CAUSES.len()],
    latency: Latency,
}

impl Upstream {
    /// Counts a query sent.
    pub fn asked(&self) {
        Writers::Many.add(&self.questions, 1);
    }

    /// Counts a reply of any content and its response time.
    pub fn answered(&self, took: Duration) {
        self.latency.add(Writers::Many, took, 1);
    }

    /// Counts a missing or unusable reply.
    pub fn failed(&self, cause: Cause) {
        Writers::Many.add(&self.failures[cause as usize], 1);
    }
}

/// Metrics of all upstreams.
#[derive(Clone, Debug, Default)]
pub struct Upstreams(Arc<Mutex<BTreeMap<String, Arc<Upstream>>>>);

impl Upstreams {
    /// Returns the counters of an upstream, by its name in the configuration. They are shown while a handle exists.
    pub fn of(&self, name: String) -> Arc<Upstream> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default().clone()
    }

    pub(super) fn families(&self) -> [Family; 3] {
        let all = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.retain(|_, upstream| Arc::strong_count(upstream) > 1);
            all.clone()
        };
        let labels = |name: &str| -> Labels { vec![("upstream", Cow::Owned(name.to_owned()))] };
        let count = |number: &AtomicU64| Value::Whole(number.load(Ordering::Relaxed));
        let questions =
            all.iter().map(|(name, known)| Sample { labels: labels(name), value: count(&known.questions) }).collect();
        let failures = all.iter().flat_map(|(name, known)| {
            CAUSES.iter().zip(&known.failures).map(move |((_, word), number)| {
                let mut labels = labels(name);
                labels.push(("cause", Cow::Borrowed(*word)));
                Sample { labels, value: count(number) }
            })
        });
        let failures = failures.collect();
        let latency =
            all.iter().map(|(name, known)| Sample { labels: labels(name), value: known.latency.observed() }).collect();
        [
            Family {
                name: "muster_upstream_questions",
                help: "Number of queries to an upstream, retransmissions and prefetches included",
                content: Content::Counter(questions),
            },
            Family {
                name: "muster_upstream_failures",
                help: "Number of queries without a timely and usable reply from an upstream, by cause",
                content: Content::Counter(failures),
            },
            Family {
                name: "muster_upstream_reply_duration_seconds",
                help: "Response time of an upstream",
                content: Content::Histogram(latency),
            },
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unused_upstreams_are_not_shown() {
        let upstreams = Upstreams::default();
        let names = || {
            let Content::Counter(samples) = &upstreams.families()[0].content else { panic!("counters") };
            samples.iter().map(|sample| sample.labels[0].1.to_string()).collect::<Vec<_>>()
        };
        let (first, second) = (upstreams.of("192.0.2.1:53".to_owned()), upstreams.of("192.0.2.2:53".to_owned()));
        assert!(Arc::ptr_eq(&first, &upstreams.of("192.0.2.1:53".to_owned())));
        assert_eq!(names(), ["192.0.2.1:53", "192.0.2.2:53"]);
        drop(first);
        assert_eq!(names(), ["192.0.2.2:53"]);
        drop(second);
    }
}
