//! Own announcements: the instances of the health checks together with those on external nodes, whose status clients report.

use imbl::ordmap::DiffItem;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    checks::Checked, gossip::node::OwnState, model::announcement::Announcements, registry::external::Announced,
};

/// Outputs of [`merge`].
pub(super) struct Outputs {
    /// State that the node announces.
    pub(super) own: watch::Sender<OwnState>,
    /// Its instances alone.
    pub(super) announcements: watch::Sender<Announcements>,
}

/// Publishes every change of both until `shutdown`.
pub(super) async fn merge(
    mut checked: watch::Receiver<Checked>,
    mut registered: watch::Receiver<Announced>,
    outputs: Outputs,
    shutdown: CancellationToken,
) {
    let mut merged = Merged::default();
    loop {
        let Checked { announcements, node_report } = checked.borrow_and_update().clone();
        let Announced { nodes, instances } = registered.borrow_and_update().clone();
        let changed = merged.update(announcements, instances);
        outputs.own.send_if_modified(|own| {
            let differs = changed || own.external != nodes || own.node_checks != node_report;
            *own = OwnState { announcements: merged.all.clone(), external: nodes, node_checks: node_report };
            differs
        });
        if changed {
            outputs.announcements.send_replace(merged.all.clone());
        }
        tokio::select! {
            changed = checked.changed() => if changed.is_err() { break },
            changed = registered.changed() => if changed.is_err() { break },
            () = shutdown.cancelled() => return,
        }
    }
    shutdown.cancelled().await;
}

/// Both parts and their union; the cost of an update is proportional to the change.
#[derive(Default)]
struct Merged {
    checked: Announcements,
    external: Announcements,
    all: Announcements,
}

impl Merged {
    /// Takes over both parts; returns whether the union has changed. An instance of the health checks takes precedence: a file
    /// that defines it may appear after the registration.
    fn update(&mut self, checked: Announcements, external: Announcements) -> bool {
        let mut changed = false;
        for item in self.external.diff(&external) {
            changed = true;
            match item {
                DiffItem::Add(key, new) | DiffItem::Update { new: (key, new), .. } => {
                    self.all.insert(key.clone(), new.clone());
                }
                DiffItem::Remove(key, _) => drop(self.all.remove(&**key)),
            }
            let (DiffItem::Add(key, _) | DiffItem::Remove(key, _) | DiffItem::Update { new: (key, _), .. }) = item;
            if let Some(own) = self.checked.get(&**key) {
                self.all.insert(key.clone(), own.clone());
            }
        }
        for item in self.checked.diff(&checked) {
            changed = true;
            match item {
                DiffItem::Add(key, new) | DiffItem::Update { new: (key, new), .. } => {
                    self.all.insert(key.clone(), new.clone());
                }
                DiffItem::Remove(key, _) => match external.get_key_value(&**key) {
                    Some((key, hidden)) => drop(self.all.insert(key.clone(), hidden.clone())),
                    None => drop(self.all.remove(&**key)),
                },
            }
        }
        (self.checked, self.external) = (checked, external);
        changed
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{
        announcement::{Announcement, InstanceState},
        name::label,
        service::{Instance, InstanceKey},
    };

    fn announcements(all: &[(&str, u16)]) -> Announcements {
        let announcement = |(id, port): &(&str, u16)| {
            let key = InstanceKey { service: label("web").into(), id: label(id) };
            let instance = Instance { port: Some(*port), ..Instance::new(key, vec![]) };
            Announcement::new(Arc::new(instance), InstanceState::Passing).into_entry()
        };
        all.iter().map(announcement).collect()
    }

    #[test]
    fn checked_instances_take_precedence_over_external_ones() {
        type Ports = &'static [(&'static str, u16)];
        // Checked and external instances by id and port; the union.
        let steps: &[(Ports, Ports, Ports, bool)] = &[
            (&[("a", 1)], &[], &[("a", 1)], true),
            (&[("a", 1)], &[("b", 2)], &[("a", 1), ("b", 2)], true),
            (&[("a", 1)], &[("b", 2)], &[("a", 1), ("b", 2)], false),
            (&[("a", 1), ("b", 3)], &[("b", 2)], &[("a", 1), ("b", 3)], true),
            (&[("a", 1), ("b", 3)], &[("b", 4), ("c", 5)], &[("a", 1), ("b", 3), ("c", 5)], true),
            (&[("a", 1)], &[("b", 4)], &[("a", 1), ("b", 4)], true),
            (&[("b", 3)], &[("b", 4)], &[("b", 3)], true),
            (&[("b", 3)], &[], &[("b", 3)], true),
            (&[], &[("b", 6)], &[("b", 6)], true),
            (&[], &[], &[], true),
        ];
        let mut merged = Merged::default();
        for (step, (checked, external, expected, changed)) in steps.iter().enumerate() {
            let got = merged.update(announcements(checked), announcements(external));
            assert_eq!((&merged.all, got), (&announcements(expected), *changed), "step {step}");
        }
    }
}
