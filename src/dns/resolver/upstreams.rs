//! State of the upstreams of a pool, and the order in which they are queried.
//!
//! The configured order applies: the first healthy upstream is queried. A failed one moves to the end, and is at first
//! queried only in parallel with another, so that no client waits for a server that may be dead.

use std::time::Duration;

use smallvec::SmallVec;

use crate::{dns::recursion::upstream_query::Manners, model::upstream_address::UpstreamAddress};

/// Wait for an upstream without measurements before the next one is queried in parallel.
const FIRST_PATIENCE: Duration = Duration::from_millis(150);
/// Minimum of that wait with measurements: a resolver may have to query other servers.
const MIN_PATIENCE: Duration = Duration::from_millis(50);
/// Maximum of that wait, since clients are waiting.
const MAX_PATIENCE: Duration = Duration::from_millis(400);
/// Consecutive failures after which an upstream is down: a single datagram may get lost.
const DOWN: u32 = 2;
/// First retry interval of an upstream that is down; doubles each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Maximum retry interval.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// Minimum time between two log lines about one upstream going down.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Upstreams for the same names, in the configured order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Upstreams {
    servers: Vec<Upstream>,
}

/// Upstream and its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Upstream {
    pub(super) server: UpstreamAddress,
    /// Smoothed response time and its variation (RFC 6298 §2).
    response_time: Option<(Duration, Duration)>,
    failures: u32,
    /// Time of the last log line about it going down.
    logged: Option<Duration>,
    /// Time of the next retry while down, on the caller's clock.
    retry: Duration,
    manners: Manners,
    /// Forwards to this server, and is therefore disabled.
    loops: bool,
}

/// Upstreams to query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// All enabled upstreams, the best first.
    pub(super) order: SmallVec<[usize; 4]>,
    /// Upstream that is down and due for a retry: queried in parallel with the first.
    pub(super) probe: Option<usize>,
}

impl Upstreams {
    /// Creates upstreams without measurements.
    pub(super) fn new(servers: &[UpstreamAddress]) -> Self {
        let new = |server: &UpstreamAddress| Upstream {
            server: server.clone(),
            response_time: None,
            failures: 0,
            logged: None,
            retry: Duration::ZERO,
            manners: Manners::default(),
            loops: false,
        };
        Self { servers: servers.iter().map(new).collect() }
    }

    /// Replaces the addresses; upstreams that remain keep their state. Reports whether the addresses changed.
    pub(super) fn replace(&mut self, servers: &[UpstreamAddress]) -> bool {
        let is_same = self.servers.iter().map(|known| &known.server).eq(servers);
        let mut new = Self::new(servers);
        for server in &mut new.servers {
            if let Some(known) = self.servers.iter().find(|known| known.server == server.server) {
                server.clone_from(known);
            }
        }
        *self = new;
        !is_same
    }

    /// Returns an upstream of a plan.
    pub(super) fn get(&self, at: usize) -> Option<&Upstream> {
        self.servers.get(at)
    }

    /// Plans a query. Sets the next retry of an upstream that is probed.
    pub(super) fn plan(&mut self, now: Duration) -> Plan {
        let (mut order, down): (SmallVec<[usize; 4]>, SmallVec<[usize; 4]>) =
            self.enabled().partition(|at| !self.servers[*at].is_down());
        let due = down.iter().copied().find(|at| self.servers[*at].retry <= now);
        // If all are down, they are queried in order anyway.
        let probe = due.filter(|_| !order.is_empty());
        if let Some(at) = probe {
            self.servers[at].pause(now);
        }
        order.extend(down);
        Plan { order, probe }
    }

    /// Returns the upstreams to probe for a forwarding loop: those that are down or looped before; all of them if `all`.
    pub(super) fn suspects(&self, all: bool) -> Vec<UpstreamAddress> {
        let suspects = self.servers.iter().filter(|known| all || known.loops || known.is_down());
        suspects.map(|known| known.server.clone()).collect()
    }

    /// Records whether an upstream loops. Reports whether that changed.
    pub(super) fn set_loops(&mut self, server: &UpstreamAddress, loops: bool) -> bool {
        match self.servers.iter_mut().find(|known| known.server == *server) {
            Some(known) => std::mem::replace(&mut known.loops, loops) != loops,
            None => false,
        }
    }

    fn enabled(&self) -> impl Iterator<Item = usize> {
        (0..self.servers.len()).filter(|at| !self.servers[*at].loops)
    }

    /// Records a reply and its response time.
    pub(super) fn answered(&mut self, at: usize, took: Duration) {
        if let Some(server) = self.servers.get_mut(at) {
            server.failures = 0;
            server.response_time = Some(match server.response_time {
                None => (took, took / 2),
                // RFC 6298 §2.3.
                Some((mean, spread)) => ((mean * 7 + took) / 8, (spread * 3 + mean.abs_diff(took)) / 4),
            });
        }
    }

    /// Records a timeout or an invalid reply. Reports whether a log line is due: the upstream is down now, and none was logged
    /// within the last minute.
    pub(super) fn failed(&mut self, at: usize, now: Duration) -> bool {
        let Some(server) = self.servers.get_mut(at) else { return false };
        server.failures = server.failures.saturating_add(1);
        server.pause(now);
        let is_due = server.failures == DOWN && server.logged.is_none_or(|logged| now >= logged + LOG_INTERVAL);
        if is_due {
            server.logged = Some(now);
        }
        is_due
    }

    /// Records the supported features.
    pub(super) fn learned(&mut self, at: usize, manners: Manners) {
        if let Some(server) = self.servers.get_mut(at) {
            server.manners = manners;
        }
    }
}

impl Upstream {
    /// Returns the supported features.
    pub(super) fn manners(&self) -> Manners {
        self.manners
    }

    /// Returns how long to wait before the next upstream is queried in parallel.
    pub(super) fn patience(&self) -> Duration {
        self.response_time
            .map_or(FIRST_PATIENCE, |(mean, spread)| (mean + 4 * spread).clamp(MIN_PATIENCE, MAX_PATIENCE))
    }

    fn is_down(&self) -> bool {
        self.failures >= DOWN
    }

    fn pause(&mut self, now: Duration) {
        let doublings = self.failures.saturating_sub(DOWN).min(5);
        self.retry = now + (FIRST_PAUSE * 2_u32.pow(doublings)).min(MAX_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn server(host: u8) -> UpstreamAddress {
        UpstreamAddress::plain(([192, 0, 2, host], 53).into())
    }

    #[test]
    fn looping_upstream_is_disabled() {
        let mut upstreams = three();
        assert_eq!(upstreams.suspects(false), []);
        assert!(upstreams.set_loops(&server(1), true), "changed");
        assert!(!upstreams.set_loops(&server(1), true), "unchanged");
        assert_eq!(upstreams.plan(ms(0)).order[..], [1, 2]);
        assert_eq!(upstreams.suspects(false), [server(1)], "the loop may end");
        assert!(upstreams.set_loops(&server(1), false));
        assert_eq!(upstreams.plan(ms(0)).order[..], [0, 1, 2]);
    }

    fn three() -> Upstreams {
        Upstreams::new(&[1, 2, 3].map(server))
    }

    #[test]
    fn first_healthy_upstream_is_queried() {
        let mut upstreams = three();
        assert_eq!(upstreams.plan(ms(0)).order[..], [0, 1, 2]);
        assert!(!upstreams.failed(0, ms(0)), "a single lost datagram is tolerated");
        assert_eq!(upstreams.plan(ms(0)).order[..], [0, 1, 2]);
        assert!(upstreams.failed(0, ms(0)), "went down");
        assert!(!upstreams.failed(0, ms(0)), "still down");
        assert_eq!(upstreams.plan(ms(0)).order[..], [1, 2, 0]);
        upstreams.answered(0, ms(10));
        assert_eq!(upstreams.plan(ms(0)).order[..], [0, 1, 2]);
        assert!(!upstreams.failed(0, ms(1000)));
        assert!(!upstreams.failed(0, ms(1000)), "went down again within a minute");
        upstreams.answered(0, ms(10));
        assert!(!upstreams.failed(0, ms(60_000)));
        assert!(upstreams.failed(0, ms(60_000)), "went down again after a minute");
    }

    #[test]
    fn down_upstream_is_probed_in_parallel_at_growing_intervals() {
        let mut upstreams = three();
        upstreams.failed(0, ms(0));
        upstreams.failed(0, ms(0));
        assert_eq!(upstreams.plan(ms(999)).probe, None);
        assert_eq!(upstreams.plan(ms(1000)).probe, Some(0));
        assert_eq!(upstreams.plan(ms(1001)).probe, None, "only one query probes");
        upstreams.failed(0, ms(2000));
        assert_eq!(upstreams.plan(ms(3999)).probe, None, "the interval doubles");
        assert_eq!(upstreams.plan(ms(4000)).probe, Some(0));
    }

    #[test]
    fn all_upstreams_are_queried_if_all_are_down() {
        let mut upstreams = three();
        for at in [0, 1, 2, 0, 1, 2] {
            upstreams.failed(at, ms(0));
        }
        let plan = upstreams.plan(ms(5000));
        assert_eq!((&plan.order[..], plan.probe), (&[0, 1, 2][..], None));
    }

    #[test]
    fn patience_follows_the_response_time() {
        let mut upstreams = three();
        let patience = |upstreams: &Upstreams| upstreams.get(0).unwrap().patience();
        assert_eq!(patience(&upstreams), FIRST_PATIENCE);
        upstreams.answered(0, ms(1));
        assert_eq!(patience(&upstreams), MIN_PATIENCE);
        upstreams.answered(0, ms(3000));
        assert_eq!(patience(&upstreams), MAX_PATIENCE);
    }

    #[test]
    fn remaining_upstreams_keep_their_state() {
        let mut upstreams = three();
        upstreams.failed(1, ms(0));
        upstreams.failed(1, ms(0));
        assert!(upstreams.replace(&[2, 4].map(server)));
        assert!(!upstreams.replace(&[2, 4].map(server)));
        assert_eq!(upstreams.plan(ms(0)).order[..], [1, 0]);
    }
}
