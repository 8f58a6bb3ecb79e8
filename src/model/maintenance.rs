//! Maintenance: instances and nodes that are drained or in maintenance, and TTL reports from applications.
//!
//! This is state of one node, kept across restarts. A held instance is withheld whatever its checks report. Its checks keep
//! running, so after the release it has the status of that moment.

use std::collections::BTreeMap;

use smol_str::SmolStr;

use super::{announcement::HoldReason, health::Status, service::InstanceKey};

/// Scope of a hold or of a check.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// Every instance of the node.
    Node,
    /// One instance.
    Instance(InstanceKey),
}

/// Reason and duration of a hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Reason for people; may be empty.
    pub reason: String,
    /// Start, in seconds since 1970.
    pub since: u64,
    /// Expiry, in seconds since 1970; `None`: until an operator ends the hold.
    pub until: Option<u64>,
}

/// All holds of a node. A drain and a maintenance of the same scope are two holds and end independently.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Maintenance(pub BTreeMap<(Scope, HoldReason), Hold>);

impl Maintenance {
    /// Returns a hold on the instance with its scope; a hold on the node goes first.
    pub fn of(&self, key: &InstanceKey) -> Option<(&Scope, HoldReason, &Hold)> {
        let instance = Scope::Instance(key.clone());
        let find = |scope: &Scope| self.0.iter().find(|((held, _), _)| held == scope);
        if self.0.is_empty() {
            return None;
        }
        find(&Scope::Node).or_else(|| find(&instance)).map(|((scope, reason), hold)| (scope, *reason, hold))
    }

    /// Returns the start of the earliest hold on the instance, in seconds since 1970.
    pub fn since(&self, key: &InstanceKey) -> Option<u64> {
        let holds = |scope: &Scope| match scope {
            Scope::Node => true,
            Scope::Instance(held) => held == key,
        };
        self.0.iter().filter(|((scope, _), _)| holds(scope)).map(|(_, hold)| hold.since).min()
    }

    /// Returns a copy in which the whole node is drained for this reason, from `since` on.
    #[must_use]
    pub fn with_node_drained(&self, reason: &str, since: u64) -> Self {
        let mut all = self.clone();
        let hold = Hold { reason: reason.to_owned(), since, until: None };
        all.0.entry((Scope::Node, HoldReason::Draining)).or_insert(hold);
        all
    }

    /// Removes expired holds; returns whether there were any.
    pub fn expire(&mut self, now: u64) -> bool {
        let before = self.0.len();
        self.0.retain(|_, hold| hold.until.is_none_or(|until| now < until));
        self.0.len() != before
    }

    /// Returns the next expiry, in seconds since 1970.
    pub fn next_end(&self) -> Option<u64> {
        self.0.values().filter_map(|hold| hold.until).min()
    }
}

/// Report of an application about itself, for a check of kind `ttl`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TtlReport {
    /// Instance with the check, or the node.
    pub scope: Scope,
    /// Id of the check.
    pub check: SmolStr,
    /// Reported status.
    pub status: Status,
    /// Reported text for people.
    pub output: String,
}
