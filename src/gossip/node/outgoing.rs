//! Outgoing messages: own changes by push and gossip, and the failure detector's actions.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use super::{OwnState, Settings, Task};
use crate::{
    gossip::{
        anti_entropy::{Cluster, Entry, Settings as ClusterSettings},
        link,
        liveness::{Action, Dead},
        message::{Change, Identity, Message, Push},
    },
    model::{
        announcement::{Announcement, Announcements, HealthReport, Node},
        external_node::ExternalNodes,
        member::INCARNATIONS,
        registered_name::RegisteredName,
        service::InstanceKey,
    },
    record::{Key, Record},
};
use imbl::ordmap::DiffItem;
use tokio::time::{Instant, sleep};

/// Octets of the changes in one push, so that the frame fits a datagram.
pub(super) const PUSH: usize = 1000;
/// Octets of all pushes of one publication. The next gossip round carries the rest.
const MAX_PUSH: usize = 64 * 1024;
/// Interval between pushes, so that concurrent changes share a push.
const PUSH_INTERVAL: Duration = Duration::from_millis(10);
/// Pauses after each announcement of a leave or a restart. It is sent twice, since a datagram may be lost.
const END_PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(150)];

impl Task {
    /// Publishes changes of the own announcements by push and gossip.
    pub(super) async fn publish(&mut self) {
        let OwnState { announcements, external, node_checks } = self.inputs.own.borrow_and_update().clone();
        // A node precedes its instances.
        let mut changes = external_changes(&self.published_external, &external);
        if self.settings.set_node_checks(node_checks) {
            changes.push(self.settings.node_checks());
        }
        changes.extend(instance_changes(&self.published, &announcements));
        (self.published, self.published_external) = (announcements, external);
        self.dirty.insert(self.settings.own.id.name.clone());
        if changes.is_empty() {
            return;
        }
        let published = self.cluster.publish(&changes).await;
        self.ticks.recount = true;
        self.push_repeatedly(&published);
        self.push_at = Instant::now() + PUSH_INTERVAL;
    }

    /// Pushes changes to all reachable peers.
    pub(super) fn push(&self, entries: &[Entry]) {
        if entries.is_empty() {
            return;
        }
        let reached = self.peer_states.values().filter(|peer| peer.reach.is_live());
        let peers: Vec<SocketAddr> = reached.map(|peer| peer.address).collect();
        let generation = self.settings.own.id.generation + self.incarnation;
        let mut total = 0;
        let mut batch: Vec<Change<'_>> = Vec::new();
        let mut octets = 0;
        let send = |changes: Vec<Change<'_>>| {
            if !changes.is_empty() {
                self.outbox.send(peers.iter().copied(), &Message::Push(Push { generation, changes }));
            }
        };
        for entry in entries {
            let change = change_of(entry);
            let len = change.encoded_len();
            total += len;
            if total > MAX_PUSH {
                break;
            }
            if octets + len > PUSH {
                send(std::mem::take(&mut batch));
                octets = 0;
            }
            octets += len;
            batch.push(change);
        }
        send(batch);
    }

    /// Carries out the failure detector's actions.
    pub(super) fn act(&mut self) {
        let mut conflicts = Vec::new();
        let state = self.cluster.state();
        let all = || self.peer_states.values().map(|peer| peer.address);
        for action in self.liveness.actions() {
            match action {
                Action::Ping { address, sequence, .. } => {
                    self.outbox.send([address], &Message::Ping { sequence, state });
                }
                Action::TcpProbe { peer, address } => self.outbox.tcp_probe(peer, address),
                Action::IndirectProbe { address, target, sequence, .. } => {
                    self.outbox.send([address], &Message::IndirectProbe { sequence, target });
                }
                Action::IndirectResult { address, target, sequence, result, .. } => {
                    self.outbox.send([address], &Message::IndirectResult { sequence, target, result });
                }
                Action::BroadcastDead(Dead { id, cause }) => {
                    self.outbox.send(all(), &Message::Dead { peer: id, cause });
                }
                // Any frame refutes. Its ack carries no information.
                Action::Refute => self.outbox.send(all(), &Message::Ping { sequence: 0, state }),
                Action::Conflict { incumbent, address, newcomer, from } => {
                    conflicts.push((newcomer, address, from));
                    let holder = Identity { id: incumbent, address };
                    self.outbox.send([from], &Message::Conflict { holder });
                }
                Action::Outdated { to, known } => self.outbox.send([to], &Message::Outdated { known }),
            }
        }
        for (newcomer, here, there) in conflicts {
            self.log_conflict(&newcomer, here, there);
        }
    }

    /// Announces to all peers that this node leaves or restarts.
    pub(super) async fn announce(&mut self, end: &Record) {
        let (key, value) = end.encode();
        let entries = self.cluster.publish(&[(key, Some(value))]).await;
        for pause in END_PAUSES {
            self.push(&entries);
            sleep(pause).await;
        }
    }

    /// Announces to all peers that this run pauses: twice, since a datagram may be lost. The network sends what is queued
    /// before it ends.
    pub(super) fn announce_pause(&self) {
        let peers = || self.peer_states.values().map(|peer| peer.address);
        self.outbox.send(peers(), &Message::Pause);
        self.outbox.send(peers(), &Message::Pause);
    }

    /// Restarts chitchat with all own keys after its task has ended.
    pub(super) async fn restart(&mut self) -> anyhow::Result<()> {
        self.incarnation = (self.incarnation + 1) % INCARNATIONS;
        let (to_chitchat, inbox) = link::gossip();
        let others = self.events.records().chain([self.ceiling_record()]).chain(self.zone_serial_record());
        let records = self.settings.records(&self.published, &self.published_external, others);
        let (settings, rejected) = (self.settings.cluster(self.incarnation), self.inputs.rejected.clone());
        self.cluster = Cluster::start(settings, records, self.outbox.clone(), inbox, rejected).await?;
        self.to_chitchat = to_chitchat;
        // Versions start over.
        self.repeats = Default::default();
        self.news = self.cluster.news();
        self.ended = Box::pin(self.cluster.ended());
        for peer in self.peer_states.values() {
            if let Some(known) = self.replicas.get(&peer.id) {
                self.cluster.resume(&peer.id, known.incarnation, peer.address, known.replica.version());
            }
            self.cluster.talk_to(peer.address);
        }
        Ok(())
    }
}

/// Returns an entry as a change of a push.
pub(super) fn change_of(entry: &Entry) -> Change<'_> {
    Change { key: &entry.key, version: entry.version, value: entry.value.as_deref() }
}

/// Returns the differences between two states of the announcements as records; an instance precedes its health state.
fn instance_changes(before: &Announcements, after: &Announcements) -> Vec<(String, Option<String>)> {
    let mut changes = Vec::new();
    let mut reports = Vec::new();
    for item in before.diff(after) {
        let (old, new) = match item {
            DiffItem::Add(_, new) => (None, new),
            DiffItem::Update { old: (_, old), new: (_, new) } => (Some(old), new),
            DiffItem::Remove(key, old) => {
                changes.push((Key::Instance(InstanceKey::clone(key)).to_string(), None));
                changes.push((Key::State(InstanceKey::clone(key)).to_string(), None));
                reports.extend(old_report(key, old));
                continue;
            }
        };
        if old.is_none_or(|old| old.instance != new.instance) {
            let (key, value) = Record::Instance(new.instance.clone()).encode();
            changes.push((key, Some(value)));
        }
        if old.is_none_or(|old| old.state != new.state) {
            let (key, value) = Record::State(new.instance.key.clone(), new.state.clone()).encode();
            changes.push((key, Some(value)));
        }
        if old.and_then(|old| old.report.as_ref()) != new.report.as_ref() {
            match &new.report {
                Some(report) => {
                    let (key, value) = Record::Report(new.instance.key.clone(), report.clone()).encode();
                    reports.push((key, Some(value)));
                }
                None => reports.extend(old.and_then(|old| old_report(&new.instance.key, old))),
            }
        }
    }
    // Reports come last: the answers depend on instances and states only.
    changes.append(&mut reports);
    changes
}

/// Returns the differences between two states of the external nodes as records.
fn external_changes(before: &ExternalNodes, after: &ExternalNodes) -> Vec<(String, Option<String>)> {
    let change = |item| match item {
        DiffItem::Add(_, new) | DiffItem::Update { new: (_, new), .. } => {
            let (key, value) = Record::External(Arc::clone(new)).encode();
            (key, Some(value))
        }
        DiffItem::Remove(name, _) => (Key::External(RegisteredName::clone(name)).to_string(), None),
    };
    before.diff(after).map(change).collect()
}

/// Returns the deletion of a published report.
fn old_report(key: &InstanceKey, old: &Announcement) -> Option<(String, Option<String>)> {
    old.report.as_ref().map(|_| (Key::Report(key.clone()).to_string(), None))
}

/// Records of an instance without its report.
const RECORDS: usize = 2;
/// Entries of a full node of the standard library's B-tree, and the one above it.
const NODE: usize = 12;
/// Those of them that are inserted in a second pass.
const SECOND: [usize; 5] = [1, 3, 5, 7, 9];

/// Orders sorted records, `each` of an instance, so that a B-tree has full nodes after their insertion.
///
/// chitchat inserts the records one by one, in this order on every node. A full node is split into halves, and in sorted order
/// nothing is inserted into the left half afterwards: it stays at six of eleven entries. The second pass fills it.
fn in_two_passes<T>(records: Vec<T>, each: usize) -> impl Iterator<Item = T> {
    let is_second = |(at, _): &(usize, T)| SECOND.contains(&(at / each % NODE));
    let (second, first): (Vec<_>, Vec<_>) = records.into_iter().enumerate().partition(is_second);
    first.into_iter().chain(second).map(|(_, record)| record)
}

impl Settings {
    /// Returns the record of the node's checks; without a value if there are none.
    fn node_checks(&self) -> (String, Option<String>) {
        match self.node.checks.clone() {
            Some(report) => {
                let (key, value) = Record::NodeChecks(report).encode();
                (key, Some(value))
            }
            None => (Key::NodeChecks.to_string(), None),
        }
    }

    /// Sets the results of the node's checks; reports whether they differ.
    pub(super) fn set_node_checks(&mut self, checks: Option<Arc<HealthReport>>) -> bool {
        let differs = self.node.checks != checks;
        if differs {
            self.node = Arc::new(Node { checks, ..Node::clone(&self.node) });
        }
        differs
    }

    pub(super) fn cluster(&self, incarnation: u64) -> ClusterSettings {
        ClusterSettings {
            id: self.own.id.clone(),
            incarnation,
            address: self.own.address,
            cluster: self.cluster.clone(),
        }
    }

    /// Returns all own records. The node's record comes last, so that its arrival completes the state for peers.
    pub(super) fn records(
        &self,
        announcements: &Announcements,
        external: &ExternalNodes,
        others: impl Iterator<Item = (String, String)>,
    ) -> Vec<(String, String)> {
        let node = Record::Node {
            addresses: self.node.addresses.clone(),
            datacenter: self.node.datacenter.clone(),
            zone: self.node.zone.clone(),
            version: self.version.clone(),
            meta: self.node.meta.clone(),
            ttl: Some(self.ttl),
        };
        let mut instances = instance_changes(&Announcements::new(), announcements);
        let reports = instances.split_off(RECORDS * announcements.len());
        let own = in_two_passes(instances, RECORDS).chain(in_two_passes(reports, 1));
        let own = own.chain(external_changes(&ExternalNodes::new(), external));
        let own = own.filter_map(|(key, value)| Some((key, value?)));
        let checks = self.node.checks.clone().map(|report| Record::NodeChecks(report).encode());
        own.chain(others).chain(checks).chain([node.encode()]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_pass_has_five_of_twelve_instances_and_keeps_their_records_together() {
        let records = (0..26).map(|at| (at / 2, at % 2)).collect();
        let order: Vec<(usize, usize)> = in_two_passes(records, 2).collect();
        let instances: Vec<usize> = order.iter().step_by(2).map(|(instance, _)| *instance).collect();
        assert_eq!(instances, [0, 2, 4, 6, 8, 10, 11, 12, 1, 3, 5, 7, 9]);
        assert!(order.chunks(2).all(|pair| pair[0].0 == pair[1].0 && pair[0].1 < pair[1].1));
    }
}
