//! What a node tells the others of its own: itself, its instances and how each of them stands.
//!
//! The node's own catalog is fed by the same values (ARCHITECTURE: own services take the same road as remote ones).

use std::{net::IpAddr, sync::Arc};

use super::{
    health::Status,
    name::Label,
    service::{Instance, InstanceKey},
};

/// The longest reason, in octets: it has to fit an Extended DNS Error and a gossip value.
pub const MAX_REASON: usize = 120;

/// One instance and its standing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// What it is.
    pub instance: Arc<Instance>,
    /// Whether it is answered.
    pub standing: Standing,
}

/// Whether an instance is answered and, if not, why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Answered with its full weight.
    Passing,
    /// Answered with a tenth of its weight, at least 1.
    Warning(Arc<str>),
    /// Not answered; the reason in at most [`MAX_REASON`] octets.
    Critical(Arc<str>),
    /// Not answered: its file says `enabled: false`.
    Disabled,
}

impl Standing {
    /// A standing from a status; the reason is cut at [`MAX_REASON`] octets, on a character's edge, and control
    /// characters become spaces.
    pub fn new(status: Status, reason: &str) -> Self {
        let reason = || bounded(reason).into();
        match status {
            Status::Passing => Self::Passing,
            Status::Warning => Self::Warning(reason()),
            Status::Critical => Self::Critical(reason()),
        }
    }

    /// Whether DNS answers carry the instance.
    pub fn is_answered(&self) -> bool {
        matches!(self, Self::Passing | Self::Warning(_))
    }

    /// The SRV weight that `weight` becomes in this standing. A weight of 0 stays one: no warning makes an instance more
    /// likely than it was.
    pub fn weight(&self, weight: u16) -> u16 {
        match self {
            Self::Warning(_) => (weight / 10).max(weight.min(1)),
            Self::Passing | Self::Critical(_) | Self::Disabled => weight,
        }
    }
}

/// A text on one line, cut at [`MAX_REASON`] octets on a character's edge.
pub(crate) fn bounded(reason: &str) -> String {
    let mut end = reason.len().min(MAX_REASON);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason[..end].chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A node's announcements, by instance. Clones share structure, and a diff of two costs what changed.
pub type Announcements = imbl::OrdMap<InstanceKey, Arc<Announcement>>;

/// A node, as every node knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Unique in the cluster.
    pub name: Label,
    /// Where it can be reached.
    pub addresses: Vec<IpAddr>,
    /// The name of its site.
    pub datacenter: Label,
}
