//! What operators took out of answers for a while: instances and whole nodes that are drained or in maintenance. And what
//! applications report of themselves.
//!
//! It is the node's own state, kept over restarts. What is held here is withheld whatever its checks find; the checks go
//! on, so that what is given back stands as it is then.

use std::collections::BTreeMap;

use smol_str::SmolStr;

use super::{announcement::HoldReason, health::Status, service::InstanceKey};

/// What is held.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// Every instance of the node.
    Node,
    /// One instance.
    Instance(InstanceKey),
}

/// Why, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// For people; may be empty.
    pub reason: String,
    /// Since when: seconds since 1970.
    pub since: u64,
    /// When it ends by itself: seconds since 1970; `None`: when somebody says so.
    pub until: Option<u64>,
}

/// All that is held on a node. A drain and a maintenance of the same thing are two, and end each for itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Maintenance(pub BTreeMap<(Scope, HoldReason), Hold>);

impl Maintenance {
    /// What holds an instance back, with the scope that it was given for: the node's first.
    pub fn of(&self, key: &InstanceKey) -> Option<(&Scope, HoldReason, &Hold)> {
        let instance = Scope::Instance(key.clone());
        let of = |scope: &Scope| self.0.iter().find(|((held, _), _)| held == scope);
        if self.0.is_empty() {
            return None;
        }
        of(&Scope::Node).or_else(|| of(&instance)).map(|((scope, gate), hold)| (scope, *gate, hold))
    }

    /// Since when something holds an instance back: seconds since 1970.
    pub fn since(&self, key: &InstanceKey) -> Option<u64> {
        let holds = |scope: &Scope| match scope {
            Scope::Node => true,
            Scope::Instance(held) => held == key,
        };
        self.0.iter().filter(|((scope, _), _)| holds(scope)).map(|(_, hold)| hold.since).min()
    }

    /// The same, with the whole node drained for this reason since then.
    #[must_use]
    pub fn with_node_drained(&self, reason: &str, since: u64) -> Self {
        let mut all = self.clone();
        let hold = Hold { reason: reason.to_owned(), since, until: None };
        all.0.entry((Scope::Node, HoldReason::Draining)).or_insert(hold);
        all
    }

    /// Ends what has run out; whether there was anything.
    pub fn expire(&mut self, now: u64) -> bool {
        let before = self.0.len();
        self.0.retain(|_, hold| hold.until.is_none_or(|until| now < until));
        self.0.len() != before
    }

    /// When the next one runs out: seconds since 1970.
    pub fn next_end(&self) -> Option<u64> {
        self.0.values().filter_map(|hold| hold.until).min()
    }
}

/// A report of an application about itself, for a check of the kind `ttl`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TtlReport {
    /// Whose check it is.
    pub instance: InstanceKey,
    /// The check's id.
    pub check: SmolStr,
    /// What it reports.
    pub status: Status,
    /// For people.
    pub output: String,
}
