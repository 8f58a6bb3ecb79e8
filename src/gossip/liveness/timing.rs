//! How long the failure detector waits for what.
//!
//! Most times are counted in gossip intervals, so that a cluster that gossips slowly also judges slowly. The comments
//! give them for the default interval of 200 ms.

use std::time::Duration;

/// An agent whose host answers for it may be stopped for as long: a backup that freezes a machine, a debugger.
const HUNG: Duration = Duration::from_secs(5);

/// A node whose heartbeats come and that answers nobody for as long cannot be reached.
const DEAF: Duration = Duration::from_secs(3);

/// Peers that fall silent within this time of each other were lost together.
pub(super) const LOST_TOGETHER: Duration = Duration::from_secs(10);

/// How often a peer that is held is pinged: the pause between a healed network and fresh answers.
pub(super) const HELD_PING: Duration = Duration::from_secs(1);

/// How often a peer that is gone, or was only ever mentioned, is pinged, and one that is held is knocked at.
pub(super) const GONE_PING: Duration = Duration::from_secs(5);

/// How long a peer that is gone is remembered, and pinged in case it comes back.
pub(super) const REMEMBER: Duration = Duration::from_secs(600);

/// A frame that arrives sooner after a verdict than this was under way when it was made.
pub(super) const IN_FLIGHT: Duration = Duration::from_millis(50);

/// The times that depend on the gossip interval.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    /// From a ping that was answered to the next one.
    pub(super) ping: Duration,
    /// From a ping without an answer to the next one, 100 ms; also between repetitions of what must not get lost.
    pub(super) again: Duration,
    /// How often a peer without an answer is looked at, 50 ms.
    pub(super) look: Duration,
    /// Without an answer for so long: knock, 400 ms. By then two pings were lost.
    pub(super) knock: Duration,
    /// From knock to knock, 300 ms.
    pub(super) knock_again: Duration,
    /// Without any sign for so long a peer may be one of many that are lost together, 400 ms: when the network splits,
    /// old heartbeats go round for some time. Where more than half are quiet, it is waited until that is clear.
    pub(super) quiet: Duration,
    /// Without any sign for so long it counts as lost with the others, 600 ms.
    pub(super) missing: Duration,
    /// Without an answer for so long: ask others, 600 ms.
    pub(super) ask: Duration,
    /// Without an answer for so long, from others neither: suspect, 800 ms.
    pub(super) suspect: Duration,
    /// No heartbeat and no frame for so long: nothing is heard of it any more, 1 s. A live node's heartbeats are seldom
    /// more than 0.6 s apart, even at 500 nodes.
    pub(super) fading: Duration,
    /// Without an answer for so long: silent, 1.4 s. By then the heartbeats that still go round after a split have come to an
    /// end: it is clear whether one was lost or many.
    pub(super) silent: Duration,
    /// The same where nobody is there to confirm it, 2 s.
    pub(super) alone: Duration,
    /// A peer that others watch, and of which nothing is heard for so long: watch it ourselves, 2 s.
    pub(super) overlooked: Duration,
    /// A peer that is still held so long after most others came back is gone, 3 s.
    pub(super) settle: Duration,
    /// How long one tries to reach a peer on somebody's behalf before telling that it could not, 400 ms.
    pub(super) errand: Duration,
    /// A pause between ticks above this is a stall of this process, 600 ms.
    pub(super) stall: Duration,
    /// See [`HUNG`].
    pub(super) hung: Duration,
    /// See [`DEAF`].
    pub(super) deaf: Duration,
}

impl Timing {
    /// For this gossip interval, which is at least 1 ms.
    pub(super) fn new(interval: Duration) -> Self {
        let interval = interval.max(Duration::from_millis(1));
        Self {
            ping: interval,
            again: interval / 2,
            look: interval / 4,
            knock: interval * 2,
            knock_again: interval * 3 / 2,
            quiet: interval * 2,
            missing: interval * 3,
            ask: interval * 3,
            suspect: interval * 4,
            fading: interval * 5,
            silent: interval * 7,
            alone: interval * 10,
            overlooked: interval * 10,
            settle: interval * 15,
            errand: interval * 2,
            stall: interval * 3,
            hung: HUNG.max(interval * 12),
            deaf: DEAF.max(interval * 12),
        }
    }
}
