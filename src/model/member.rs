//! The cluster as one node sees it: who is a member, how each stands, and since when.
//!
//! Gossip makes a [`Membership`] whenever something in it changes; the HTTP API and the commands show it. Times are those
//! of the wall clock, for people: no decision is made from them.

use std::{net::SocketAddr, time::Duration};

use super::name::Label;

/// Generations that one run of an agent may use. A run's generation is a multiple of it; what is added counts how often
/// gossip had to be started anew within the run.
pub const INCARNATIONS: u64 = 1 << 10;

/// Which run of which node: a restarted agent is the same node with a higher generation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId {
    /// The node's name, unique in the cluster.
    pub name: Label,
    /// Grows with every start, whatever the clock does; a multiple of [`INCARNATIONS`].
    pub generation: u64,
}

/// How a member stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reach {
    /// It answers, or we are it.
    Alive,
    /// It has not answered for a moment; its instances are still answered.
    Suspect,
    /// It went out of reach together with so many others that the fault may be ours: its instances are answered as last
    /// known, marked as stale, for a bounded time.
    Held,
    /// It is gone; its instances are not answered.
    Gone(Cause),
}

/// Why a member is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// It said good-bye.
    Left,
    /// Its host says that nothing listens there any more: the agent was ended.
    Refused,
    /// Nobody could reach it, and nothing was heard of it.
    Silent,
    /// Its host takes connections, and the agent answers nobody.
    Hung,
    /// It can be heard and cannot be reached.
    Deaf,
    /// It was held as long as the configuration allows.
    Expired,
    /// It was gone or out of reach, and somebody ordered that it be forgotten.
    Dismissed,
}

impl Reach {
    /// One word for tables and for JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Suspect => "suspect",
            Self::Held => "held",
            Self::Gone(Cause::Left | Cause::Dismissed) => "left",
            Self::Gone(_) => "gone",
        }
    }
}

impl Cause {
    /// A few words that end the sentence "it is gone: …".
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Left => "it left",
            Self::Refused => "its agent has ended",
            Self::Silent => "nothing is heard of it and nobody reaches it",
            Self::Hung => "its host answers, its agent does not",
            Self::Deaf => "it can be heard and nobody reaches it",
            Self::Expired => "it stayed out of reach for too long",
            Self::Dismissed => "it was gone, and forgotten by order",
        }
    }
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Which run of which node.
    pub id: PeerId,
    /// Where it gossips.
    pub address: SocketAddr,
    /// The name of its site; `None` until it has told.
    pub datacenter: Option<Label>,
    /// The version of its program; `None` until it has told.
    pub version: Option<String>,
    /// How it stands.
    pub reach: Reach,
    /// When it came to stand so: the time since 1970.
    pub since: Duration,
    /// Instances that it announces, healthy or not.
    pub instances: usize,
    /// Seconds: with what it answers instances that name no TTL; `None` until it has told.
    pub ttl: Option<u32>,
    /// The digest of what it answers; `None` where it has not told, or makes it in another way.
    pub view: Option<u64>,
    /// Since when that differs from ours, for longer than news take: the time since 1970.
    pub differs: Option<Duration>,
}

/// All members, as one node sees them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// This node itself included, sorted by name. A node that is gone stays listed for a while.
    pub members: Vec<Member>,
    /// Since when more than half of the peers are out of reach together, as time since 1970; `None`: they are not.
    pub partitioned: Option<Duration>,
    /// What was wrong with what arrived, by reason, and how often since the start.
    pub rejected: Vec<(&'static str, u64)>,
    /// Whether what nodes tell each other is sealed with a key.
    pub sealed: bool,
}
