//! Announcements: what a node publishes about itself and its instances.
//!
//! The catalog of the announcing node is built from the same values: local services have no path of their own.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use smol_str::SmolStr;

use super::{
    followed_host::FollowedHost,
    health::Status,
    name::Label,
    nearest::Place,
    service::{Instance, MAX_REGISTERED_ID, instance_ref::InstanceRef},
};
use crate::printable::blanked;

/// Maximum length of a reason in octets: it fits an Extended DNS Error and a gossip value.
pub const MAX_REASON: usize = 120;

/// Minimum time between announcements of a changed reason with an unchanged status. Otherwise a check that prints a new figure
/// each time would cause gossip in the whole cluster.
pub const REASON_HOLD: Duration = Duration::from_secs(30);

/// One instance and its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Definition of the instance, as every node knows it.
    pub instance: Arc<Instance>,
    /// State, which decides whether it is answered.
    pub state: InstanceState,
    /// Results of its checks; `None` if it has none or they have not arrived. No decision depends on it.
    pub report: Option<Arc<HealthReport>>,
}

impl Announcement {
    /// Returns an announcement without a health report.
    pub fn new(instance: Arc<Instance>, state: InstanceState) -> Self {
        Self { instance, state, report: None }
    }

    /// Reports whether the announcement is the registered one: the addresses of a host name may differ, and with them the state.
    pub fn is_as_registered(&self, registered: &Self) -> bool {
        let is_alike =
            self.state == registered.state || matches!(self.state, InstanceState::Withheld(HoldReason::Unresolved, _));
        is_alike && self.report == registered.report && self.instance.is_as_defined(&registered.instance)
    }

    /// Returns the announcement with its key, as an entry of [`Announcements`].
    pub fn into_entry(self) -> (InstanceRef, Arc<Self>) {
        (InstanceRef::from(&self.instance), Arc::new(self))
    }
}

/// Check results of an instance, for people and for clients that list checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthReport {
    /// Time of the last change of state: seconds since 1970, by the clock of its node.
    pub since: u64,
    /// Checks in the order of their definition.
    pub checks: Vec<CheckReport>,
}

/// Latest result of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckReport {
    /// Check id of 1 to [`MAX_CHECK_TEXT`] octets. Unique on its node, unless a client of the API chose it.
    pub id: SmolStr,
    /// Display name of at most [`MAX_CHECK_TEXT`] octets.
    pub name: SmolStr,
    /// Notes for people, of at most [`MAX_CHECK_TEXT`] octets; may be empty.
    pub notes: SmolStr,
    /// Status after `rise` and `fall`.
    pub status: Status,
    /// Output of the last probe in at most [`MAX_REASON`] octets; may be empty.
    pub output: Arc<str>,
    /// Time of the last change of status: seconds since 1970, by the clock of its node.
    pub since: u64,
}

/// Consul's check id for the reachability of a node.
pub const NODE_CHECK: &str = "serfHealth";
/// Consul's check id for maintenance of a node.
pub const NODE_MAINTENANCE: &str = "_node_maintenance";
/// Consul's check id for maintenance of an instance; a colon and the instance's id follow.
pub const SERVICE_MAINTENANCE: &str = "_service_maintenance";

/// Reports whether a check id has a meaning of its own, so that no client may give it to another check.
pub fn is_reserved_check(id: &str) -> bool {
    [NODE_CHECK, NODE_MAINTENANCE, SERVICE_MAINTENANCE].contains(&id.split(':').next().unwrap_or_default())
}

/// Maximum length of the id, the name and the notes of a check, in octets: the longest id of a check without one is `service:`, a
/// registered id and `:32`.
pub const MAX_CHECK_TEXT: usize = 8 + MAX_REGISTERED_ID + 3;

/// State of an instance: whether DNS answers carry it and, if not, why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InstanceState {
    /// Answered with its full weight.
    Passing,
    /// Answered with this weight, which ramps up: the instance has recovered and has a slow start.
    Warming(u16),
    /// Answered with a tenth of its weight, at least 1.
    Warning(Arc<str>),
    /// Not answered: a check is critical. Reason of at most [`MAX_REASON`] octets.
    Critical(Arc<str>),
    /// Not answered: `enabled: false` in its service file.
    Disabled,
    /// Not answered whatever its checks report. Reason of at most [`MAX_REASON`] octets, may be empty.
    Withheld(HoldReason, Arc<str>),
}

/// Cause for which an instance is withheld although its checks may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HoldReason {
    /// Drained by an operator (`muster drain`).
    Draining,
    /// In maintenance.
    Maintenance,
    /// The node is in maintenance.
    NodeMaintenance,
    /// A check of the node is critical.
    NodeCritical,
    /// Flapping: it fell too often within a short time.
    Flapping,
    /// The addresses of its host name are unknown.
    Unresolved,
}

impl HoldReason {
    /// All causes.
    pub const ALL: [Self; 6] = [
        Self::Draining,
        Self::Maintenance,
        Self::NodeMaintenance,
        Self::NodeCritical,
        Self::Flapping,
        Self::Unresolved,
    ];

    /// Returns the cause in one word, for JSON, gossip and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::Maintenance => "maintenance",
            Self::NodeMaintenance => "node-maintenance",
            Self::NodeCritical => "node-critical",
            Self::Flapping => "flapping",
            Self::Unresolved => "unresolved",
        }
    }

    /// Returns the cause for people; completes "the instance is …".
    pub fn words(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::Maintenance => "in maintenance",
            Self::NodeMaintenance => "on a node in maintenance",
            Self::NodeCritical => "on a node with a critical check",
            Self::Flapping => "flapping",
            Self::Unresolved => "without an address",
        }
    }
}

impl InstanceState {
    /// Returns the state for a check status. The reason is cut to [`MAX_REASON`] octets at a character boundary; unprintable
    /// characters become spaces.
    pub fn new(status: Status, reason: &str) -> Self {
        let reason = || bounded(reason).into();
        match status {
            Status::Passing => Self::Passing,
            Status::Warning => Self::Warning(reason()),
            Status::Critical => Self::Critical(reason()),
        }
    }

    /// Reports whether DNS answers carry the instance.
    pub fn is_answered(&self) -> bool {
        matches!(self, Self::Passing | Self::Warming(_) | Self::Warning(_))
    }

    /// Returns a withheld state; the reason is cut as by [`new`](Self::new).
    pub fn withheld(hold: HoldReason, reason: &str) -> Self {
        Self::Withheld(hold, bounded(reason).into())
    }

    /// Returns the state of an instance that waits for the addresses of this host name.
    pub fn unresolved(host: &FollowedHost) -> Self {
        let problem = host.problem.as_deref().unwrap_or("not looked up yet");
        Self::withheld(HoldReason::Unresolved, &format!("{}: {problem}", host.name))
    }

    /// Returns the SRV weight in this state, given the full weight. A weight of 0 stays 0, so a warning never raises it.
    pub fn weight(&self, weight: u16) -> u16 {
        match self {
            Self::Warning(_) => (weight / 10).max(weight.min(1)),
            Self::Warming(reached) => weight.min(*reached),
            Self::Passing | Self::Critical(_) | Self::Disabled | Self::Withheld(..) => weight,
        }
    }
}

/// Returns the text on one line, cut to [`MAX_REASON`] octets at a character boundary.
pub(crate) fn bounded(reason: &str) -> String {
    cut(reason, MAX_REASON)
}

/// Returns the text on one line, cut to `len` octets at a character boundary.
pub(crate) fn cut(text: &str, len: usize) -> String {
    let mut end = text.len().min(len);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    blanked(&text[..end])
}

/// Announcements of a node, by instance. Clones share structure; a diff costs time proportional to what changed.
pub type Announcements = imbl::OrdMap<InstanceRef, Arc<Announcement>>;

/// A node as announced to the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Node name, unique in the cluster.
    pub name: Label,
    /// Addresses of the host.
    pub addresses: Vec<IpAddr>,
    /// Datacenter of the node.
    pub datacenter: Label,
    /// Zone of the node within its datacenter, if it has one.
    pub zone: Option<Label>,
    /// `key=value` pairs from its configuration.
    pub meta: BTreeMap<String, String>,
    /// Results of the checks of the node as a whole, and its maintenance; `None` without any. No decision depends on it: a
    /// critical check is part of the state of each instance.
    pub checks: Option<Arc<HealthReport>>,
}

impl Node {
    /// Reports whether two nodes differ in the results of their checks at most.
    pub fn is_described_alike(&self, other: &Self) -> bool {
        self == other || *self == Self { checks: self.checks.clone(), ..other.clone() }
    }

    /// Returns a node without zone, metadata and checks.
    pub fn new(name: Label, addresses: Vec<IpAddr>, datacenter: Label) -> Self {
        Self { name, addresses, datacenter, zone: None, meta: BTreeMap::new(), checks: None }
    }

    /// Returns the zone and the datacenter of the node.
    pub fn place(&self) -> Place<'_> {
        Place { datacenter: &self.datacenter, zone: self.zone.as_ref() }
    }

    /// Returns the place of the external nodes that the node owns: its datacenter, and no zone.
    pub fn place_of_external(&self) -> Place<'_> {
        Place { zone: None, ..self.place() }
    }
}
