//! External nodes of all owners, by name.
//!
//! Two agents may announce an external node of one name: a conflict. The first claim counts, by freshness and then by the name
//! of the owner, as for instances of one id. All nodes with the same view choose the same one. A member of that name takes
//! precedence over all claims.

use std::{cmp::Ordering, sync::Arc};

use super::{Freshness, View};
use crate::model::{
    external_node::ExternalNode,
    health::Status,
    name::Label,
    registered_name::RegisteredName,
    service::{Instance, InstanceKey},
};

/// Status of an external node whose owner is gone.
const GONE: &str = "gone";
/// All values of [`Claim::status`].
pub const EXTERNAL_STATUSES: [&str; 4] =
    [Status::Passing.as_str(), Status::Warning.as_str(), Status::Critical.as_str(), GONE];

/// An external node with the agent that announces it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Name of the agent's node.
    pub owner: Label,
    /// The external node.
    pub node: Arc<ExternalNode>,
    /// Freshness of the announcement.
    pub freshness: Freshness,
}

impl Claim {
    /// Worst status of the checks of the node as a whole in one word; `gone` if the owner is.
    pub fn status(&self) -> &'static str {
        let worst = self.node.checks.iter().map(|check| check.status).max().unwrap_or(Status::Passing);
        if self.freshness == Freshness::Gone { GONE } else { worst.as_str() }
    }
}

/// External nodes with their instances. Clones share structure.
#[derive(Clone, Debug, Default)]
pub(super) struct External {
    /// Claims of each name, sorted by freshness, then by owner; never empty.
    claims: imbl::OrdMap<RegisteredName, Arc<[Claim]>>,
    instances: imbl::OrdSet<Hosted>,
}

/// An instance on an external node, or the name of the node alone, which sorts before all its instances.
#[derive(Clone, Debug)]
struct Hosted {
    name: RegisteredName,
    by: Option<(Arc<Instance>, Label)>,
}

impl Hosted {
    fn order(&self) -> (&RegisteredName, Option<(&InstanceKey, &Label)>) {
        (&self.name, self.by.as_ref().map(|(instance, owner)| (&instance.key, owner)))
    }

    fn new(instance: &Arc<Instance>, owner: &Label) -> Option<Self> {
        let name = RegisteredName::clone(instance.external.as_deref()?);
        Some(Self { name, by: Some((instance.clone(), owner.clone())) })
    }
}

impl PartialEq for Hosted {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}

impl Eq for Hosted {}

impl PartialOrd for Hosted {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Hosted {
    fn cmp(&self, other: &Self) -> Ordering {
        self.order().cmp(&other.order())
    }
}

impl External {
    /// Takes over what an owner announces under a name; returns whether answers about the node may differ from those by the
    /// view `was`.
    pub(super) fn update(&mut self, name: &RegisteredName, owner: &Label, was: &View, view: &View) -> bool {
        // The datacenter of the node is that of its owner.
        let datacenter = |view: &View| view.get(owner).map(|view| view.node.datacenter.clone());
        let has_moved = datacenter(was) != datacenter(view);
        let before = self.claims.get(name).cloned().unwrap_or_else(|| Arc::from([]));
        let mut claims: Vec<Claim> = before.iter().filter(|claim| claim.owner != *owner).cloned().collect();
        if let Some(view) = view.get(owner)
            && let Some(node) = view.external.get(name)
        {
            claims.push(Claim { owner: owner.clone(), node: node.clone(), freshness: view.freshness });
        }
        claims.sort_by(|one, other| (one.freshness, &one.owner).cmp(&(other.freshness, &other.owner)));
        let owners = |claims: &[Claim]| claims.iter().map(|one| (one.owner.clone(), one.freshness)).collect::<Vec<_>>();
        let differs = has_moved
            || owners(&before) != owners(&claims)
            || before.first().zip(claims.first()).is_some_and(|(was, is)| !was.node.answers_like(&is.node));
        match claims.is_empty() {
            true => drop(self.claims.remove(name)),
            false => drop(self.claims.insert(name.clone(), claims.into())),
        }
        differs
    }

    /// Takes over a change of an instance.
    pub(super) fn move_instance(&mut self, owner: &Label, old: Option<&Arc<Instance>>, new: Option<&Arc<Instance>>) {
        if let Some(old) = old.and_then(|old| Hosted::new(old, owner)) {
            self.instances.remove(&old);
        }
        if let Some(new) = new.and_then(|new| Hosted::new(new, owner)) {
            self.instances.insert(new);
        }
    }

    /// Returns the claims of a name; the first one counts unless a member has the name.
    pub(super) fn claims(&self, name: &RegisteredName) -> &[Claim] {
        self.claims.get(name).map_or(&[], |claims| claims)
    }

    /// Returns the number of names.
    pub(super) fn len(&self) -> usize {
        self.claims.len()
    }

    /// Iterates over all names with their claims, sorted.
    pub(super) fn all(&self) -> impl Iterator<Item = (&RegisteredName, &[Claim])> {
        self.claims.iter().map(|(name, claims)| (name, &**claims))
    }

    /// Iterates over the instances on a node, each with its owner, sorted.
    pub(super) fn instances_on(&self, name: &RegisteredName) -> impl Iterator<Item = (&InstanceKey, &Label)> {
        let from = Hosted { name: name.clone(), by: None };
        let here = self.instances.range(from..).take_while(move |hosted| hosted.name == *name);
        here.filter_map(|hosted| hosted.by.as_ref().map(|(instance, owner)| (&instance.key, owner)))
    }
}
