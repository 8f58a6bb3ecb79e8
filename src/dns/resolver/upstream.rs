//! The servers that are asked, how each is doing, and whom to ask next.
//!
//! The order is the operator's: the first one that is well is asked. One that failed goes to the end, and for a while is
//! asked only beside another, so that no client waits for a server that may be dead.

use std::time::Duration;

use smallvec::SmallVec;

use crate::{dns::recursion::forward::Manners, model::upstream_address::UpstreamAddress};

/// How long an upstream has to answer before another is asked as well, where nothing is known of it yet.
const FIRST_PATIENCE: Duration = Duration::from_millis(150);
/// The same, where its usual time is known: not less, since a resolver now and then has to ask around itself,
const MIN_PATIENCE: Duration = Duration::from_millis(50);
/// and not more, since clients wait.
const MAX_PATIENCE: Duration = Duration::from_millis(400);
/// Failures in a row after which an upstream is down. One lost datagram is none of its faults.
const DOWN: u32 = 2;
/// For how long one that is down is not asked at first; twice as long each time,
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// up to here.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// From one word in the log that a server is down to the next.
const TELL: Duration = Duration::from_secs(60);

/// Servers that are asked for the same names, in the order in which they are to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Upstreams {
    servers: Vec<Upstream>,
}

/// A server, and how it is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Upstream {
    pub(super) server: UpstreamAddress,
    /// How long it takes to answer, and how much that varies (RFC 6298 §2).
    usual: Option<(Duration, Duration)>,
    failures: u32,
    /// When it was last told that it is down.
    told: Option<Duration>,
    /// When one that is down is tried again, on the caller's clock.
    retry: Duration,
    manners: Manners,
    /// It asks us: it is not asked.
    loops: bool,
}

/// Whom to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// All servers, the best first.
    pub(super) order: SmallVec<[usize; 4]>,
    /// One that is down and may be back: asked beside the first.
    pub(super) probe: Option<usize>,
}

impl Upstreams {
    /// Servers of which nothing is known yet.
    pub(super) fn new(servers: &[UpstreamAddress]) -> Self {
        let new = |server: &UpstreamAddress| Upstream {
            server: server.clone(),
            usual: None,
            failures: 0,
            told: None,
            retry: Duration::ZERO,
            manners: Manners::default(),
            loops: false,
        };
        Self { servers: servers.iter().map(new).collect() }
    }

    /// Takes other addresses; what is known of those that stay is kept. Says whether anything changed.
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

    /// A server of a plan.
    pub(super) fn get(&self, at: usize) -> Option<&Upstream> {
        self.servers.get(at)
    }

    /// Whom to ask now. One that is to be tried again is named once in a while only.
    pub(super) fn plan(&mut self, now: Duration) -> Plan {
        let (mut order, down): (SmallVec<[usize; 4]>, SmallVec<[usize; 4]>) =
            self.asked().partition(|at| !self.servers[*at].is_down());
        let due = down.iter().copied().find(|at| self.servers[*at].retry <= now);
        // Where all are down, they are asked one after the other anyway.
        let probe = due.filter(|_| !order.is_empty());
        if let Some(at) = probe {
            self.servers[at].pause(now);
        }
        order.extend(down);
        Plan { order, probe }
    }

    /// Those of which it is to be found out whether they ask us: they seem to be down, or did so before; all, where `all`.
    pub(super) fn suspects(&self, all: bool) -> Vec<UpstreamAddress> {
        let suspects = self.servers.iter().filter(|known| all || known.loops || known.is_down());
        suspects.map(|known| known.server.clone()).collect()
    }

    /// Whether it asks us. Says whether that is news.
    pub(super) fn loops(&mut self, server: &UpstreamAddress, loops: bool) -> bool {
        match self.servers.iter_mut().find(|known| known.server == *server) {
            Some(known) => std::mem::replace(&mut known.loops, loops) != loops,
            None => false,
        }
    }

    fn asked(&self) -> impl Iterator<Item = usize> {
        (0..self.servers.len()).filter(|at| !self.servers[*at].loops)
    }

    /// It answered, after so long.
    pub(super) fn answered(&mut self, at: usize, took: Duration) {
        if let Some(server) = self.servers.get_mut(at) {
            server.failures = 0;
            server.usual = Some(match server.usual {
                None => (took, took / 2),
                // RFC 6298 §2.3.
                Some((mean, spread)) => ((mean * 7 + took) / 8, (spread * 3 + mean.abs_diff(took)) / 4),
            });
        }
    }

    /// It did not answer in time, or nonsense. Says whether it is down by that, and somebody should be told: not of each time
    /// of one that comes and goes.
    pub(super) fn failed(&mut self, at: usize, now: Duration) -> bool {
        let Some(server) = self.servers.get_mut(at) else { return false };
        server.failures = server.failures.saturating_add(1);
        server.pause(now);
        let is_news = server.failures == DOWN && server.told.is_none_or(|told| now >= told + TELL);
        if is_news {
            server.told = Some(now);
        }
        is_news
    }

    /// It bears this.
    pub(super) fn learned(&mut self, at: usize, manners: Manners) {
        if let Some(server) = self.servers.get_mut(at) {
            server.manners = manners;
        }
    }
}

impl Upstream {
    /// What it bears.
    pub(super) fn manners(&self) -> Manners {
        self.manners
    }

    /// How long to wait for it before another is asked as well.
    pub(super) fn patience(&self) -> Duration {
        self.usual.map_or(FIRST_PATIENCE, |(mean, spread)| (mean + 4 * spread).clamp(MIN_PATIENCE, MAX_PATIENCE))
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
    fn who_asks_us_is_not_asked() {
        let mut upstreams = three();
        assert_eq!(upstreams.suspects(false), []);
        assert!(upstreams.loops(&server(1), true), "news");
        assert!(!upstreams.loops(&server(1), true), "no news");
        assert_eq!(upstreams.plan(ms(0)).order[..], [1, 2]);
        assert_eq!(upstreams.suspects(false), [server(1)], "it may be mended");
        assert!(upstreams.loops(&server(1), false));
        assert_eq!(upstreams.plan(ms(0)).order[..], [0, 1, 2]);
    }

    fn three() -> Upstreams {
        Upstreams::new(&[1, 2, 3].map(server))
    }

    #[test]
    fn the_first_that_is_well_is_asked() {
        let mut upstreams = three();
        assert_eq!(upstreams.plan(ms(0)).order[..], [0, 1, 2]);
        assert!(!upstreams.failed(0, ms(0)), "one lost datagram is no reason");
        assert_eq!(upstreams.plan(ms(0)).order[..], [0, 1, 2]);
        assert!(upstreams.failed(0, ms(0)), "news");
        assert!(!upstreams.failed(0, ms(0)), "no news");
        assert_eq!(upstreams.plan(ms(0)).order[..], [1, 2, 0]);
        upstreams.answered(0, ms(10));
        assert_eq!(upstreams.plan(ms(0)).order[..], [0, 1, 2]);
        assert!(!upstreams.failed(0, ms(1000)));
        assert!(!upstreams.failed(0, ms(1000)), "down again, of which was told a second ago");
        upstreams.answered(0, ms(10));
        assert!(!upstreams.failed(0, ms(60_000)));
        assert!(upstreams.failed(0, ms(60_000)), "news again");
    }

    #[test]
    fn one_that_is_down_is_tried_beside_another_now_and_then() {
        let mut upstreams = three();
        upstreams.failed(0, ms(0));
        upstreams.failed(0, ms(0));
        assert_eq!(upstreams.plan(ms(999)).probe, None);
        assert_eq!(upstreams.plan(ms(1000)).probe, Some(0));
        assert_eq!(upstreams.plan(ms(1001)).probe, None, "not by everybody");
        upstreams.failed(0, ms(2000));
        assert_eq!(upstreams.plan(ms(3999)).probe, None, "and ever less often");
        assert_eq!(upstreams.plan(ms(4000)).probe, Some(0));
    }

    #[test]
    fn where_all_are_down_all_are_asked() {
        let mut upstreams = three();
        for at in [0, 1, 2, 0, 1, 2] {
            upstreams.failed(at, ms(0));
        }
        let plan = upstreams.plan(ms(5000));
        assert_eq!((&plan.order[..], plan.probe), (&[0, 1, 2][..], None));
    }

    #[test]
    fn patience_follows_what_is_usual() {
        let mut upstreams = three();
        let patience = |upstreams: &Upstreams| upstreams.get(0).unwrap().patience();
        assert_eq!(patience(&upstreams), FIRST_PATIENCE);
        upstreams.answered(0, ms(1));
        assert_eq!(patience(&upstreams), MIN_PATIENCE);
        upstreams.answered(0, ms(3000));
        assert_eq!(patience(&upstreams), MAX_PATIENCE);
    }

    #[test]
    fn what_is_known_of_servers_that_stay_is_kept() {
        let mut upstreams = three();
        upstreams.failed(1, ms(0));
        upstreams.failed(1, ms(0));
        assert!(upstreams.replace(&[2, 4].map(server)));
        assert!(!upstreams.replace(&[2, 4].map(server)));
        assert_eq!(upstreams.plan(ms(0)).order[..], [1, 0]);
    }
}
