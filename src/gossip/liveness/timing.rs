//! Timeouts and intervals of the failure detector.
//!
//! Most are multiples of the gossip interval, so that a cluster that gossips slowly also detects slowly. Comments state
//! the values at the default interval of 200 ms.
//!
//! *Silence* of a peer starts with the first unanswered ping since its last ack, direct or indirect.

use std::time::Duration;

use super::rendezvous::MONITORS;

/// Time that an agent may be stopped while its host answers: for backups that freeze a machine, and for debuggers.
const UNRESPONSIVE: Duration = Duration::from_secs(5);

/// Silence after which a node is unreachable although it still sends. If its host accepts connections, it may be
/// overloaded, and [`UNRESPONSIVE`] applies.
const UNREACHABLE: Duration = Duration::from_secs(3);

/// Peers that fall silent within this time of each other are lost together.
pub(super) const LOST_TOGETHER: Duration = Duration::from_secs(10);

/// Interval between pings to a held or restarting peer: delays fresh answers after a network has healed.
pub(super) const HELD_PING: Duration = Duration::from_secs(1);

/// Time after which a sign of life of a run that announced a restart means that it did not restart.
pub(super) const RESTART_ABORTED: Duration = Duration::from_secs(5);

/// Time after a loss within which the report of a restart explains it: gossip delivers it late if pushes were lost.
pub(super) const LATE_REPORT: Duration = Duration::from_secs(10);

/// Shortest interval between reports of one name conflict.
pub(super) const CONFLICT_INTERVAL: Duration = Duration::from_secs(1);

/// Time after the last report of peers against this node after which an answered ping shows that they know it again.
pub(super) const DOUBTED: Duration = Duration::from_secs(3);

/// Time for which a refusal does not count against a peer that was restored at the start: its agent may be starting, too.
pub(super) const BOOTING: Duration = Duration::from_secs(2);

/// Time since the start in which restored peers that have not responded yet are not reported as a partition.
pub(super) const STARTING: Duration = Duration::from_secs(10);

/// Time after which a peer that has been learned of, and has not answered pings, is not waited for.
pub(super) const UNANSWERED: Duration = Duration::from_millis(400);

/// Deviation of a ping interval from its average, so that the monitors of a target do not stay synchronized after an
/// event that they shared.
pub(super) const PING_SPREAD: f64 = 0.2;

/// Time of a probe that is not planned.
pub(super) const NEVER: Duration = Duration::MAX;

/// Interval between pings to a peer that is gone or no member yet, and between TCP probes of a held peer.
pub(super) const GONE_PING: Duration = Duration::from_secs(5);

/// Time that a peer that is gone is remembered, and pinged in case it returns.
pub(super) const REMEMBER: Duration = Duration::from_secs(600);

/// Shortest interval between surveys: under heavy packet loss, false suspicions cost at most one ping of each member a
/// second.
pub(super) const SURVEY_INTERVAL: Duration = Duration::from_secs(1);

/// Shortest interval between surveys on demand, which views that differ for long may request all the time.
pub(super) const VERIFY_INTERVAL: Duration = Duration::from_secs(5);

/// A frame that arrives within this time of a loss may have been sent before it.
pub(super) const IN_FLIGHT: Duration = Duration::from_millis(50);

/// Times that depend on the gossip interval.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    /// Gossip interval: between requests for indirect probes, and between unanswered pings of a peer that others monitor.
    pub(super) interval: Duration,
    /// Interval between unanswered pings of a target, and between repeated broadcasts, 100 ms.
    pub(super) retry: Duration,
    /// Interval between evaluations of a peer that does not ack, 50 ms.
    pub(super) step: Duration,
    /// Silence before a TCP fallback probe, 200 ms: two pings were lost by then.
    pub(super) tcp_probe: Duration,
    /// Interval between TCP probes, 300 ms.
    pub(super) tcp_probe_again: Duration,
    /// Silence before indirect probes, 400 ms.
    pub(super) indirect_probe: Duration,
    /// Silence after which a peer is suspect and a survey starts, 600 ms. Under 20 % loss, six unanswered pings and the
    /// failure of all indirect probes are rare enough that one survey leads to less than one other.
    pub(super) suspect: Duration,
    /// Age of a sign of life that a survey accepts, 300 ms: an older one may precede the loss that the survey is about.
    pub(super) recent: Duration,
    /// Silence after which a peer may be one of many lost together, 200 ms. While that holds for more than half of the
    /// peers, the decision waits.
    pub(super) quiet: Duration,
    /// Silence after which a peer counts as lost with the others, 400 ms. A survey is evaluated after this time.
    pub(super) missing: Duration,
    /// Silence after which a peer is silent, 1.2 s. It leaves time for the survey (600 ms to 1 s), and for the survey of a
    /// peer that receives nothing, which shows that it still sends: that starts at most 1.15 s after the cut.
    pub(super) silent: Duration,
    /// Like `silent` without confirmation by another node, or without a complete survey, 1.8 s.
    pub(super) uncorroborated: Duration,
    /// Time by which the monitors of a peer precede other nodes that find it silent, 1 s: all of them ping it after a
    /// survey, but it is enough if the monitors probe further.
    pub(super) precedence: Duration,
    /// Time without a frame after which a peer that does not answer counts as inactive, 1 s.
    pub(super) fading: Duration,
    /// Like `fading` for a peer that has sent long after its last ack, 2 s: it holds its own peers, and pings each once a
    /// second.
    pub(super) inactive: Duration,
    /// Average interval between background pings of members that are assigned to other monitors, 1 s.
    pub(super) visit: Duration,
    /// Time that a peer may stay held after most others returned, 3 s.
    pub(super) settle: Duration,
    /// Time limit for an indirect probe, 400 ms.
    pub(super) indirect_timeout: Duration,
    /// Shortest delay of a tick that counts as a stall of this process, 600 ms.
    pub(super) stall: Duration,
    /// See [`UNRESPONSIVE`].
    pub(super) unresponsive: Duration,
    /// See [`UNREACHABLE`].
    pub(super) unreachable: Duration,
}

impl Timing {
    /// Computes the times for a gossip interval of at least 1 ms.
    pub(super) fn new(interval: Duration) -> Self {
        let interval = interval.max(Duration::from_millis(1));
        Self {
            interval,
            retry: interval / 2,
            step: interval / 4,
            tcp_probe: interval,
            tcp_probe_again: interval * 3 / 2,
            indirect_probe: interval * 2,
            suspect: interval * 3,
            recent: interval * 3 / 2,
            quiet: interval,
            missing: interval * 2,
            silent: interval * 6,
            uncorroborated: interval * 9,
            precedence: interval * 5,
            fading: interval * 5,
            inactive: interval * 10,
            visit: interval * 5,
            settle: interval * 15,
            indirect_timeout: interval * 2,
            stall: interval * 3,
            unresponsive: UNRESPONSIVE.max(interval * 12),
            unreachable: UNREACHABLE.max(interval * 12),
        }
    }
    /// Average interval between acked pings of a target in a cluster with this number of other members, 500 ms from five
    /// on. Fewer monitors ping more often: each node receives about as many pings, and the first one after its crash
    /// is sent after the same time on average.
    pub(super) fn ping(&self, members: usize) -> Duration {
        self.interval * u32::try_from(members.clamp(2, MONITORS)).unwrap_or(2) / 2
    }
}
