//! Difference between two views: the nodes and instances that changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use imbl::ordmap::DiffItem;

use super::{Freshness, NodeView, View};
use crate::model::{
    announcement::{Announcement, Announcements, Node},
    name::Label,
    registered_name::RegisteredName,
    service::InstanceKey,
};

/// Change of one instance of one node.
pub(crate) struct Change {
    pub(crate) id: Label,
    pub(crate) node: Label,
    /// `None`: added.
    pub(crate) old: Option<Known>,
    /// `None`: removed.
    pub(crate) new: Option<Known>,
}

/// An announcement with its node and freshness.
pub(crate) struct Known {
    pub(crate) announcement: Arc<Announcement>,
    pub(crate) node: Arc<Node>,
    pub(crate) freshness: Freshness,
}

impl Change {
    /// Reports whether more than a report changed. Answers depend on the addresses and the datacenter of the node, too.
    pub(crate) fn alters_answers(&self) -> bool {
        let (Some(old), Some(new)) = (&self.old, &self.new) else { return true };
        let (was, is) = (&old.announcement, &new.announcement);
        let has_moved = old.node.place() != new.node.place() || old.node.addresses != new.node.addresses;
        old.freshness != new.freshness || was.state != is.state || was.instance != is.instance || has_moved
    }

    /// Reports whether the list of services with their tags may change, for all nodes or for one. The list has the names in
    /// their letter case.
    pub(crate) fn alters_tags(&self) -> bool {
        let (Some(old), Some(new)) = (&self.old, &self.new) else { return true };
        let (was, is) = (&old.announcement.instance, &new.announcement.instance);
        was.tags != is.tags || was.service_case != is.service_case || !old.node.is_described_alike(&new.node)
    }

    /// Reports whether the instance was added or removed, or has another definition.
    pub(crate) fn alters_instance(&self) -> bool {
        let (Some(old), Some(new)) = (&self.old, &self.new) else { return true };
        !Arc::ptr_eq(&old.announcement.instance, &new.announcement.instance)
    }
}

/// Difference between two views.
#[derive(Default)]
pub(crate) struct ViewDiff {
    /// Nodes that were added or removed, or changed their data or their freshness.
    pub(crate) nodes: BTreeSet<Label>,
    /// External nodes that an owner announces, withdraws or changes, or whose owner changed, each with its owner.
    pub(crate) external: Vec<(RegisteredName, Label)>,
    /// Nodes with other results of their checks.
    pub(crate) checks: BTreeSet<Label>,
    /// Changes of instances, by service.
    pub(crate) services: BTreeMap<RegisteredName, Vec<Change>>,
}

impl ViewDiff {
    /// Compares two views; the cost is proportional to the difference.
    pub(crate) fn between(before: &View, after: &View) -> Self {
        let mut diff = Self::default();
        for item in before.diff(after) {
            match item {
                DiffItem::Add(name, new) => diff.node(name, None, Some(new)),
                DiffItem::Remove(name, old) => diff.node(name, Some(old), None),
                DiffItem::Update { old: (name, old), new: (_, new) } => diff.node(name, Some(old), Some(new)),
            }
        }
        diff
    }

    fn node(&mut self, name: &Label, old: Option<&Arc<NodeView>>, new: Option<&Arc<NodeView>>) {
        let own = |view: &Arc<NodeView>| (view.node.clone(), view.freshness);
        let is_alike = old
            .zip(new)
            .is_some_and(|(old, new)| old.freshness == new.freshness && old.node.is_described_alike(&new.node));
        if !is_alike {
            self.nodes.insert(name.clone());
        }
        let hosts = |view: Option<&Arc<NodeView>>| view.map(|view| view.external.clone()).unwrap_or_default();
        let (hosted, hosts) = (hosts(old), hosts(new));
        if is_alike {
            let changed = hosted.diff(&hosts).map(|item| match item {
                DiffItem::Add(name, _) | DiffItem::Remove(name, _) | DiffItem::Update { new: (name, _), .. } => name,
            });
            self.external.extend(changed.map(|host| (host.clone(), name.clone())));
        } else {
            let all: BTreeSet<&RegisteredName> = hosted.keys().chain(hosts.keys()).collect();
            self.external.extend(all.into_iter().map(|host| (host.clone(), name.clone())));
        }
        let checks = |view: Option<&Arc<NodeView>>| view.and_then(|view| view.node.checks.clone());
        if checks(old) != checks(new) {
            self.checks.insert(name.clone());
        }
        let none = Announcements::new();
        let before = old.map_or(&none, |view| &view.announcements);
        let after = new.map_or(&none, |view| &view.announcements);
        let mut change = |key: &InstanceKey, was: Option<&Arc<Announcement>>, is: Option<&Arc<Announcement>>| {
            let known = |view: Option<&Arc<NodeView>>, announcement: Option<&Arc<Announcement>>| {
                let view = view?;
                Some(Known { announcement: announcement?.clone(), node: view.node.clone(), freshness: view.freshness })
            };
            self.services.entry(key.service.clone()).or_default().push(Change {
                id: key.id.clone(),
                node: name.clone(),
                old: known(old, was),
                new: known(new, is),
            });
        };
        for item in before.diff(after) {
            match item {
                DiffItem::Add(key, new) => change(key, None, Some(new)),
                DiffItem::Remove(key, old) => change(key, Some(old), None),
                DiffItem::Update { old: (key, old), new: (_, new) } => change(key, Some(old), Some(new)),
            }
        }
        if let (Some(old), Some(new)) = (old, new)
            && own(old) != own(new)
        {
            // Unchanged announcements count differently, or are shown with other data of the node.
            for (key, was) in before {
                if let Some(is) = after.get(key).filter(|is| *is == was) {
                    change(key, Some(was), Some(is));
                }
            }
        }
    }
}
