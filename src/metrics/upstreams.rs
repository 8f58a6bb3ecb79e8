//! Who is asked for names that are not ours: how often, how fast they are, and why they fail.
//!
//! The one label that is not a word of this program is here: an upstream, as the configuration or the system's resolv.conf
//! names it. One that nobody asks any more is forgotten.

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
    family::{Content, Labels, Sample, Value},
    latency::Latency,
    writers::Writers,
};

/// Why an upstream has not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It took longer than it usually does, and another answered.
    Late,
    /// The network, or its host, said so.
    Network,
    /// What it said cannot be read, or answers another question.
    Malformed,
    /// It cut its answer over TCP as well.
    Truncated,
    /// TLS or HTTP, or the way to them.
    Secure,
    /// It answered that it cannot or will not.
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

/// How one upstream does.
#[derive(Debug, Default)]
pub struct Upstream {
    questions: AtomicU64,
    failures: [AtomicU64; CAUSES.len()],
    latency: Latency,
}

impl Upstream {
    /// It is asked.
    pub fn asked(&self) {
        Writers::Many.add(&self.questions, 1);
    }

    /// It answered, whatever, after so long.
    pub fn answered(&self, took: Duration) {
        self.latency.add(Writers::Many, took, 1);
    }

    /// It did not answer, or not as it should.
    pub fn failed(&self, cause: Cause) {
        Writers::Many.add(&self.failures[cause as usize], 1);
    }
}

/// All upstreams.
#[derive(Clone, Debug, Default)]
pub struct Upstreams(Arc<Mutex<BTreeMap<String, Arc<Upstream>>>>);

impl Upstreams {
    /// The one of that name, as the configuration has it. It is shown for as long as somebody holds it.
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
                help: "Questions to an upstream, repeated and renewed ones included",
                content: Content::Counter(questions),
            },
            Family {
                name: "muster_upstream_failures",
                help: "Questions that an upstream did not answer in time, or not as it should, by cause",
                content: Content::Counter(failures),
            },
            Family {
                name: "muster_upstream_reply_duration_seconds",
                help: "How long an upstream took to reply",
                content: Content::Histogram(latency),
            },
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_asked_no_more_is_shown_no_more() {
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
