//! Maintenance: instances and nodes that are drained or in maintenance, and TTL reports from applications.
//!
//! This is state of one node, kept across restarts. A held instance is withheld whatever its checks report. Its checks keep
//! running, so after the release it has the status of that moment.

use std::collections::BTreeMap;

use smol_str::SmolStr;

use super::{
    announcement::HoldReason,
    health::Status,
    service::{Instance, InstanceKey},
};

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

/// Host of an instance, as the holds of its agent's node see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostKind {
    /// The node of the agent.
    Own,
    /// An external node that the agent owns.
    External,
}

impl HostKind {
    /// Returns the kind of the host of an instance.
    pub fn of(instance: &Instance) -> Self {
        if instance.external.is_some() { Self::External } else { Self::Own }
    }

    /// Reports whether a hold on the agent's node withholds the instances of the host. Maintenance of the node does not concern
    /// other hosts; a drain does, since their instances go with the agent.
    pub fn is_held_with_node(self, reason: HoldReason) -> bool {
        self == Self::Own || reason == HoldReason::Draining
    }
}

impl Maintenance {
    /// Returns a hold on an instance of the host, with its scope; a hold on the node goes first.
    pub fn of(&self, key: &InstanceKey, host: HostKind) -> Option<(&Scope, HoldReason, &Hold)> {
        self.on(key, host).next().map(|((scope, reason), hold)| (scope, *reason, hold))
    }

    /// Returns the start of the earliest hold on an instance of the host, in seconds since 1970.
    pub fn since(&self, key: &InstanceKey, host: HostKind) -> Option<u64> {
        self.on(key, host).map(|(_, hold)| hold.since).min()
    }

    /// Iterates over the holds on an instance of the host, those on the node first.
    fn on(&self, key: &InstanceKey, host: HostKind) -> impl Iterator<Item = (&(Scope, HoldReason), &Hold)> {
        self.0.iter().filter(move |((scope, reason), _)| match scope {
            Scope::Node => host.is_held_with_node(*reason),
            Scope::Instance(held) => held == key,
        })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::name::label;

    #[test]
    fn first_hold_and_earliest_start_are_of_the_holds_that_concern_the_host() {
        use HoldReason::{Draining, Maintenance as InMaintenance, NodeMaintenance};
        use HostKind::{External, Own};
        let key = |id: &str| InstanceKey { service: label("pg").into(), id: label(id) };
        let (node, this) = (|| Scope::Node, || Scope::Instance(key("pg-1")));
        let other = || Scope::Instance(key("pg-2"));
        // Holds with their start, the host, the first hold and the earliest start.
        type Case = (Vec<(Scope, HoldReason, u64)>, HostKind, Option<(Scope, HoldReason)>, Option<u64>);
        let cases: Vec<Case> = vec![
            (vec![], Own, None, None),
            (vec![(other(), Draining, 1)], Own, None, None),
            (vec![(node(), NodeMaintenance, 1)], Own, Some((node(), NodeMaintenance)), Some(1)),
            (vec![(node(), NodeMaintenance, 1)], External, None, None),
            (vec![(node(), Draining, 1), (this(), Draining, 2)], External, Some((node(), Draining)), Some(1)),
            (
                vec![(node(), NodeMaintenance, 1), (this(), InMaintenance, 2), (this(), Draining, 3)],
                External,
                Some((this(), Draining)),
                Some(2),
            ),
            (vec![(node(), NodeMaintenance, 2), (this(), Draining, 1)], Own, Some((node(), NodeMaintenance)), Some(1)),
        ];
        for (holds, host, first, since) in cases {
            let case = format!("{holds:?} {host:?}");
            let hold = |(scope, kind, since)| ((scope, kind), Hold { reason: String::new(), since, until: None });
            let maintenance = Maintenance(holds.into_iter().map(hold).collect());
            let found = maintenance.of(&key("pg-1"), host).map(|(scope, kind, _)| (scope.clone(), kind));
            assert_eq!((found, maintenance.since(&key("pg-1"), host)), (first, since), "{case}");
        }
    }
}
