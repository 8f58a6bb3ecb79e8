//! Metrics of the HTTP API: requests, blocking queries and connections.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{Family, counter::Writers};

/// Classes of status codes.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

#[derive(Debug, Default)]
struct Counts {
    /// Number of requests by endpoint and status class.
    requests: Mutex<BTreeMap<&'static str, [u64; CLASSES.len()]>>,
    in_flight: AtomicU64,
    waiting: AtomicU64,
    shared: AtomicU64,
    connections: AtomicU64,
    refused: AtomicU64,
}

/// Metrics of the HTTP API.
#[derive(Clone, Debug, Default)]
pub struct Http(Arc<Counts>);

/// Counts in a gauge until it is dropped.
#[derive(Debug)]
pub struct Guard(Http, fn(&Counts) -> &AtomicU64);

impl Drop for Guard {
    fn drop(&mut self) {
        (self.1)(&self.0.0).fetch_sub(1, Ordering::Relaxed);
    }
}

impl Http {
    /// Counts a response; `endpoint` is the path of the route, not of the request.
    pub fn answered(&self, endpoint: &'static str, status: u16) {
        let mut requests = self.0.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let class = usize::from(status / 100).clamp(1, CLASSES.len()) - 1;
        requests.entry(endpoint).or_default()[class] += 1;
    }

    /// Counts a request in flight.
    pub fn in_flight(&self) -> Guard {
        self.hold(|counts| &counts.in_flight)
    }

    /// Counts a blocking query that waits.
    pub fn waiting(&self) -> Guard {
        self.hold(|counts| &counts.waiting)
    }

    /// Counts a response to a waiting client that was encoded for an earlier one.
    pub fn shared(&self) {
        Writers::Many.add(&self.0.shared, 1);
    }

    /// Returns the number of [`shared`](Self::shared) responses.
    #[cfg(test)]
    pub(crate) fn shared_responses(&self) -> u64 {
        self.0.shared.load(Ordering::Relaxed)
    }

    /// Counts an open connection.
    pub fn connected(&self) -> Guard {
        self.hold(|counts| &counts.connections)
    }

    /// Counts a connection refused by the connection limit.
    pub fn refused(&self) {
        Writers::Many.add(&self.0.refused, 1);
    }

    fn hold(&self, number: fn(&Counts) -> &AtomicU64) -> Guard {
        Writers::Many.add(number(&self.0), 1);
        Guard(self.clone(), number)
    }

    pub(super) fn families(&self) -> [Family; 6] {
        let requests = self.0.requests.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let requests = requests.into_iter().flat_map(|(endpoint, classes)| {
            let counted = CLASSES.into_iter().zip(classes).filter(|(_, count)| *count > 0);
            counted.map(move |(class, count)| ([("endpoint", endpoint), ("status", class)], count))
        });
        let load = |number: &AtomicU64| number.load(Ordering::Relaxed);
        [
            Family::counters(
                "muster_http_requests",
                "Number of answered requests to the HTTP API, by endpoint and status class",
                requests,
            ),
            Family::gauge(
                "muster_http_requests_in_flight",
                "Number of requests in flight, blocking queries included",
                load(&self.0.in_flight),
            ),
            Family::gauge(
                "muster_http_waiting",
                "Number of blocking queries that wait for a change",
                load(&self.0.waiting),
            ),
            Family::counters(
                "muster_http_shared_responses",
                "Number of responses to waiting clients that were encoded once for all of them",
                [([], load(&self.0.shared))],
            ),
            Family::gauge(
                "muster_http_connections",
                "Number of open connections to the HTTP API",
                load(&self.0.connections),
            ),
            Family::counters(
                "muster_http_connections_refused",
                "Number of connections closed at once because the connection limit is reached",
                [([], load(&self.0.refused))],
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::family::{Content, Value};

    #[test]
    fn gauges_count_guards_until_they_are_dropped() {
        let http = Http::default();
        let held = (http.in_flight(), http.in_flight(), http.waiting(), http.connected());
        let gauges = |http: &Http| {
            http.families().map(|family| match family.content {
                Content::Gauge(samples) => samples[0].value,
                _ => Value::Whole(0),
            })
        };
        let whole = |counts: [u64; 6]| counts.map(Value::Whole);
        assert_eq!(gauges(&http), whole([0, 2, 1, 0, 1, 0]));
        drop(held);
        assert_eq!(gauges(&http), whole([0; 6]));
    }

    #[test]
    fn every_status_has_a_class() {
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
