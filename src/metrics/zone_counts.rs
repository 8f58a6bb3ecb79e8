//! Counters of rare events by zone and outcome.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use super::{
    Family,
    family::{Content, Sample, Value},
};
use crate::model::name::Name;

/// Counters by zone and outcome. The zones are those of the configuration and its files, so their number is bounded.
#[derive(Debug)]
pub(super) struct ZoneCounts<const N: usize>(Mutex<BTreeMap<String, [u64; N]>>);

impl<const N: usize> Default for ZoneCounts<N> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<const N: usize> ZoneCounts<N> {
    /// Counters that also have a sample for events of no zone of this node: the label is empty.
    pub(super) fn with_unknown() -> Self {
        Self(Mutex::new(BTreeMap::from([(String::new(), [0; N])])))
    }

    /// Counts an event of a zone of this node; `None`: of another zone.
    pub(super) fn add(&self, zone: Option<&Name>, outcome: usize) {
        let zone = zone.map(ToString::to_string).unwrap_or_default();
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.entry(zone).or_insert([0; N])[outcome] += 1;
    }

    /// Returns the family. A zone has samples from its first event on, for all outcomes at once.
    pub(super) fn family(&self, name: &'static str, help: &'static str, outcomes: &[&'static str; N]) -> Family {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let samples = counts.iter().flat_map(|(zone, counts)| {
            outcomes.iter().zip(counts).map(|(outcome, count)| Sample {
                labels: vec![("zone", Cow::Owned(zone.clone())), ("outcome", Cow::Borrowed(*outcome))],
                value: Value::Whole(*count),
            })
        });
        Family { name, help, content: Content::Counter(samples.collect()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_has_all_outcomes_from_its_first_event_on() {
        let counts = ZoneCounts::<2>::with_unknown();
        let text = || Family::text(vec![counts.family("events", "Events", &["good", "bad"])], false).1;
        assert!(text().contains("events_total{zone=\"\",outcome=\"bad\"} 0\n") && !text().contains("a.test"));
        counts.add(Name::parse("a.test").ok().as_ref(), 1);
        counts.add(None, 0);
        for expected in [
            "{zone=\"a.test.\",outcome=\"good\"} 0\n",
            "{zone=\"a.test.\",outcome=\"bad\"} 1\n",
            "{zone=\"\",outcome=\"good\"} 1\n",
        ] {
            assert!(text().contains(expected), "{expected} in {}", text());
        }
    }
}
