//! The HTTP API: what is asked, what is under way, who waits.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{Family, writers::Writers};

/// Classes of status codes.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

#[derive(Debug, Default)]
struct Counts {
    /// By endpoint and class.
    requests: Mutex<BTreeMap<&'static str, [u64; CLASSES.len()]>>,
    under_way: AtomicU64,
    waiting: AtomicU64,
    connections: AtomicU64,
    turned_away: AtomicU64,
}

/// What the API does.
#[derive(Clone, Debug, Default)]
pub struct Http(Arc<Counts>);

/// Something that lasts for as long as this is held.
#[derive(Debug)]
pub struct Guard(Http, fn(&Counts) -> &AtomicU64);

impl Drop for Guard {
    fn drop(&mut self) {
        (self.1)(&self.0.0).fetch_sub(1, Ordering::Relaxed);
    }
}

impl Http {
    /// A request to an endpoint, as the router has it, was answered with this status.
    pub fn answered(&self, endpoint: &'static str, status: u16) {
        let mut requests = self.0.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let class = usize::from(status / 100).clamp(1, CLASSES.len()) - 1;
        requests.entry(endpoint).or_default()[class] += 1;
    }

    /// A request is under way.
    pub fn under_way(&self) -> Guard {
        self.hold(|counts| &counts.under_way)
    }

    /// A client waits for a change.
    pub fn waiting(&self) -> Guard {
        self.hold(|counts| &counts.waiting)
    }

    /// A connection is open.
    pub fn connected(&self) -> Guard {
        self.hold(|counts| &counts.connections)
    }

    /// A client was turned away, for want of places.
    pub fn turned_away(&self) {
        Writers::Many.add(&self.0.turned_away, 1);
    }

    fn hold(&self, number: fn(&Counts) -> &AtomicU64) -> Guard {
        Writers::Many.add(number(&self.0), 1);
        Guard(self.clone(), number)
    }

    pub(super) fn families(&self) -> [Family; 5] {
        let requests = self.0.requests.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let requests = requests.into_iter().flat_map(|(endpoint, classes)| {
            let counted = CLASSES.into_iter().zip(classes).filter(|(_, count)| *count > 0);
            counted.map(move |(class, count)| ([("endpoint", endpoint), ("status", class)], count))
        });
        let load = |number: &AtomicU64| number.load(Ordering::Relaxed);
        [
            Family::counters(
                "muster_http_requests",
                "Requests to the HTTP API that were answered, by endpoint and class of status",
                requests,
            ),
            Family::gauge(
                "muster_http_requests_in_flight",
                "Requests that are not answered yet, those that wait for a change included",
                load(&self.0.under_way),
            ),
            Family::gauge("muster_http_waiting", "Clients that wait for a change", load(&self.0.waiting)),
            Family::gauge("muster_http_connections", "Connections to the HTTP API", load(&self.0.connections)),
            Family::counters(
                "muster_http_connections_refused",
                "Connections that were closed at once, because as many are open as may be",
                [([], load(&self.0.turned_away))],
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::family::{Content, Value};

    #[test]
    fn what_is_under_way_is_counted_until_it_is_dropped() {
        let http = Http::default();
        let held = (http.under_way(), http.under_way(), http.waiting(), http.connected());
        let gauges = |http: &Http| {
            http.families().map(|family| match family.content {
                Content::Gauge(samples) => samples[0].value,
                _ => Value::Whole(0),
            })
        };
        let whole = |counts: [u64; 5]| counts.map(Value::Whole);
        assert_eq!(gauges(&http), whole([0, 2, 1, 1, 0]));
        drop(held);
        assert_eq!(gauges(&http), whole([0; 5]));
    }

    #[test]
    fn any_status_has_a_class() {
        let http = Http::default();
        for status in [0, 99, 200, 204, 404, 599, 999] {
            http.answered("/x", status);
        }
        let Content::Counter(samples) = &http.families()[0].content else { panic!("counters") };
        let shown: Vec<_> = samples.iter().map(|sample| (&*sample.labels[1].1, sample.value)).collect();
        let expected = [("1xx", 2), ("2xx", 2), ("4xx", 1), ("5xx", 2)];
        assert_eq!(shown, expected.map(|(class, count)| (class, Value::Whole(count))));
    }
}
