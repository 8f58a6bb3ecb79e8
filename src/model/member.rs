//! Membership: the cluster as one node sees it.
//!
//! Gossip publishes a new [`Membership`] with every change; the HTTP API and the commands show it. Times are wall-clock
//! times for people. No decision depends on them.

use std::{net::SocketAddr, time::Duration};

use super::name::Label;

/// Generations reserved for one run of an agent. The generation of a run is a multiple of this number; each restart of
/// gossip within the run adds one.
pub const INCARNATIONS: u64 = 1 << 10;

/// Highest valid generation: nanoseconds since 1970 until the year 2408. A run steps above the runs of its name that peers
/// know, up to this bound, so that no peer refuses the result. Of a higher one, nothing is believed.
pub const MAX_GENERATION: u64 = 3 << 62;

/// Default gossip port, the one of Serf and Consul: existing firewall rules fit.
pub const GOSSIP_PORT: u16 = 7946;

/// Identity of one run of an agent. A restarted agent has the same name and a higher generation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId {
    /// Node name, unique in the cluster.
    pub name: Label,
    /// Grows with every start, even if the clock is set back; a multiple of [`INCARNATIONS`], at most [`MAX_GENERATION`].
    pub generation: u64,
}

/// State of a member in failure detection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reach {
    /// Responds, or is this node itself.
    Alive,
    /// Does not respond; its instances are still answered while other nodes probe it.
    Suspect,
    /// Unreachable together with most other nodes, so this node may be the isolated one. Its instances are answered as
    /// last known, marked as stale, for a bounded time.
    Held,
    /// Announced a restart. Its instances are answered as last known, marked as stale, until its new run starts, for a bounded
    /// time.
    Restarting,
    /// Left or declared dead; its instances are not answered.
    Gone(Cause),
}

/// Reason that a member is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Left gracefully.
    Left,
    /// The host reports a closed port: the agent stopped.
    Refused,
    /// No node can reach it, and no message arrives from it.
    Silent,
    /// The host accepts connections, the agent does not respond.
    Unresponsive,
    /// Its messages arrive, and no node can reach it.
    Unreachable,
    /// Held for as long as `gossip.hold` allows.
    Expired,
    /// Did not start again within the time that `gossip.restart_hold` allows.
    NotReturned,
    /// Gone or unreachable, and removed by an operator (force-leave).
    Forgotten,
}

impl Reach {
    /// Reports whether the node responds, or did so until a moment ago.
    pub fn is_live(self) -> bool {
        matches!(self, Self::Alive | Self::Suspect)
    }

    /// Returns the state in one word, for tables and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Suspect => "suspect",
            Self::Held => "held",
            Self::Restarting => "restarting",
            Self::Gone(Cause::Left | Cause::Forgotten) => "left",
            Self::Gone(_) => "gone",
        }
    }
}

impl Cause {
    /// Returns the cause in a few words, to follow `gone: `.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Left => "left the cluster",
            Self::Refused => "agent stopped",
            Self::Silent => "silent and unreachable",
            Self::Unresponsive => "host responds, agent does not",
            Self::Unreachable => "unreachable, but still sending",
            Self::Expired => "unreachable for too long",
            Self::NotReturned => "did not return from a restart",
            Self::Forgotten => "removed by an operator (force-leave)",
        }
    }
}

/// One member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Name and generation.
    pub id: PeerId,
    /// Gossip address.
    pub address: SocketAddr,
    /// Datacenter; `None` until announced.
    pub datacenter: Option<Label>,
    /// Zone; `None` until announced, or without one.
    pub zone: Option<Label>,
    /// Version of muster; `None` until announced.
    pub version: Option<String>,
    /// State in failure detection.
    pub reach: Reach,
    /// Time of the last change of `reach`, since 1970.
    pub since: Duration,
    /// Number of instances it announces, healthy or not.
    pub instances: usize,
    /// Its `dns.ttl` in seconds, for instances without a TTL of their own; `None` until announced.
    pub ttl: Option<u32>,
    /// Digest of its view; `None` if not announced, or of another [`FORMAT`](super::view_digest::FORMAT).
    pub view: Option<u64>,
    /// Time since 1970 from which its digest has differed from this node's, for longer than propagation takes.
    pub differs: Option<Duration>,
}

/// All members, as this node sees them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// Members sorted by name, this node included. A node that is gone stays listed for a while.
    pub members: Vec<Member>,
    /// Time since 1970 from which more than half of the peers have been unreachable together; `None` if they are not.
    pub partitioned: Option<Duration>,
    /// Time since 1970 from which peers report this node as gone or its run as outdated; `None` if they do not.
    pub doubted: Option<Duration>,
    /// Number of rejected messages since the start, by reason.
    pub rejected: Vec<(&'static str, u64)>,
    /// True if gossip is encrypted with a key.
    pub sealed: bool,
}
