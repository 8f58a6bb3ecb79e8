//! What a node tells the others of its own: itself, its instances and how each of them stands.
//!
//! The node's own catalog is fed by the same values (ARCHITECTURE: own services take the same road as remote ones).

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use smol_str::SmolStr;

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
    pub standing: InstanceState,
    /// What its checks found; `None` where it has none, or where that has not arrived yet. Nothing is decided from it.
    pub report: Option<Arc<HealthReport>>,
}

impl Announcement {
    /// An instance of which no more is known than how it stands.
    pub fn new(instance: Arc<Instance>, standing: InstanceState) -> Self {
        Self { instance, standing, report: None }
    }
}

/// Why an instance stands as it does, for people and for clients that list checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthReport {
    /// When it came to stand so: seconds since 1970, by its node's clock.
    pub since: u64,
    /// Its checks, in the order of their definition.
    pub checks: Vec<CheckReport>,
}

/// What one check found last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckReport {
    /// Unique on its node, unless a client of the API chose it: 1 to [`MAX_CHECK_TEXT`] octets.
    pub id: SmolStr,
    /// For people: at most [`MAX_CHECK_TEXT`] octets.
    pub name: SmolStr,
    /// How it stands.
    pub status: Status,
    /// In at most [`MAX_REASON`] octets; empty where it passes and has nothing to say.
    pub output: Arc<str>,
    /// When it came to stand so: seconds since 1970, by its node's clock.
    pub since: u64,
}

/// The longest id or name of a check, in octets.
pub const MAX_CHECK_TEXT: usize = 160;

/// Whether an instance is answered and, if not, why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InstanceState {
    /// Answered with its full weight.
    Passing,
    /// Answered with this weight, which grows: it has come up lately, and its file asks for a slow start.
    Warming(u16),
    /// Answered with a tenth of its weight, at least 1.
    Warning(Arc<str>),
    /// Not answered; the reason in at most [`MAX_REASON`] octets.
    Critical(Arc<str>),
    /// Not answered: its file says `enabled: false`.
    Disabled,
    /// Not answered, whatever its checks find; the reason in at most [`MAX_REASON`] octets, and it may be empty.
    Withheld(HoldReason, Arc<str>),
}

/// What keeps an instance out of answers although it may be well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HoldReason {
    /// Somebody is about to stop it (`muster drain`).
    Draining,
    /// Somebody works on it.
    Maintenance,
    /// Somebody works on its node.
    NodeMaintenance,
    /// It went up and down too often of late.
    Flapping,
}

impl HoldReason {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Draining, Self::Maintenance, Self::NodeMaintenance, Self::Flapping];

    /// One word for JSON and for what nodes tell each other.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::Maintenance => "maintenance",
            Self::NodeMaintenance => "node-maintenance",
            Self::Flapping => "flapping",
        }
    }

    /// For people: ends the sentence "it is …".
    pub fn words(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::Maintenance => "in maintenance",
            Self::NodeMaintenance => "on a node in maintenance",
            Self::Flapping => "held down for flapping",
        }
    }
}

impl InstanceState {
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
        matches!(self, Self::Passing | Self::Warming(_) | Self::Warning(_))
    }

    /// Withheld, with a reason that is cut as [`new`](Self::new) does.
    pub fn withheld(gate: HoldReason, reason: &str) -> Self {
        Self::Withheld(gate, bounded(reason).into())
    }

    /// The SRV weight that `weight` becomes in this standing. A weight of 0 stays one: no warning makes an instance more
    /// likely than it was.
    pub fn weight(&self, weight: u16) -> u16 {
        match self {
            Self::Warning(_) => (weight / 10).max(weight.min(1)),
            Self::Warming(reached) => weight.min(*reached),
            Self::Passing | Self::Critical(_) | Self::Disabled | Self::Withheld(..) => weight,
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
    /// `key=value` pairs of its configuration.
    pub meta: BTreeMap<String, String>,
}
