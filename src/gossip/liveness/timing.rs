//! Timeouts and intervals of the failure detector.
//!
//! Most are multiples of the gossip interval, so that a cluster that gossips slowly also detects slowly. Comments state
//! the values at the default interval of 200 ms.

use std::time::Duration;

/// Time that an agent may be stopped while its host answers: for backups that freeze a machine, and for debuggers.
const UNRESPONSIVE: Duration = Duration::from_secs(5);

/// Time without any ack after which a node is unreachable although its heartbeats arrive. If its host accepts connections,
/// it may be overloaded, and [`UNRESPONSIVE`] applies.
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

/// Interval between pings to a peer that is gone or no member yet, and between TCP probes of a held peer.
pub(super) const GONE_PING: Duration = Duration::from_secs(5);

/// Time that a peer that is gone is remembered, and pinged in case it returns.
pub(super) const REMEMBER: Duration = Duration::from_secs(600);

/// A frame that arrives within this time of a loss may have been sent before it.
pub(super) const IN_FLIGHT: Duration = Duration::from_millis(50);

/// Times that depend on the gossip interval.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    /// Interval between pings that are acked.
    pub(super) ping: Duration,
    /// Interval between pings that are not acked, and between repeated broadcasts, 100 ms.
    pub(super) retry: Duration,
    /// Interval between evaluations of a peer that does not ack, 50 ms.
    pub(super) step: Duration,
    /// Time without an ack before a TCP fallback probe, 400 ms: two pings were lost by then.
    pub(super) tcp_probe: Duration,
    /// Interval between TCP probes, 300 ms.
    pub(super) tcp_probe_again: Duration,
    /// Time without a sign of life after which a peer may be one of many lost together, 400 ms. Stale heartbeats circulate
    /// for some time after a network split; while more than half of the peers are quiet, the decision waits.
    pub(super) quiet: Duration,
    /// Time without a sign of life after which a peer counts as lost with the others, 600 ms.
    pub(super) missing: Duration,
    /// Time without an ack before indirect probes, 600 ms.
    pub(super) indirect_probe: Duration,
    /// Time without an ack, direct or indirect, after which a peer is suspect, 800 ms.
    pub(super) suspect: Duration,
    /// Time without a heartbeat or frame after which a peer counts as inactive, 1 s. Heartbeats of a live node are rarely
    /// more than 0.6 s apart, even at 500 nodes.
    pub(super) fading: Duration,
    /// Time without an ack after which a peer is silent, 1.4 s. Stale heartbeats have ceased by then, so that single and
    /// common losses can be distinguished.
    pub(super) silent: Duration,
    /// Like `silent` without confirmation by another node, 2 s.
    pub(super) uncorroborated: Duration,
    /// Time without a sign of life after which a node monitors a peer that is assigned to other monitors, 2 s.
    pub(super) overlooked: Duration,
    /// Time that a peer may stay held after most others returned, 3 s.
    pub(super) settle: Duration,
    /// Time limit for an indirect probe, 400 ms.
    pub(super) indirect_timeout: Duration,
    /// Shortest pause between ticks that counts as a stall of this process, 600 ms.
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
            ping: interval,
            retry: interval / 2,
            step: interval / 4,
            tcp_probe: interval * 2,
            tcp_probe_again: interval * 3 / 2,
            quiet: interval * 2,
            missing: interval * 3,
            indirect_probe: interval * 3,
            suspect: interval * 4,
            fading: interval * 5,
            silent: interval * 7,
            uncorroborated: interval * 10,
            overlooked: interval * 10,
            settle: interval * 15,
            indirect_timeout: interval * 2,
            stall: interval * 3,
            unresponsive: UNRESPONSIVE.max(interval * 12),
            unreachable: UNREACHABLE.max(interval * 12),
        }
    }
}
