//! What goes out: our own changes, pushed and gossiped, and what the failure detector asks for.

use std::{net::SocketAddr, time::Duration};

use imbl::ordmap::DiffItem;
use tokio::time::{Instant, sleep};
use tracing::warn;

use super::{Settings, Task};
use crate::{
    gossip::{
        anti_entropy::{Cluster, Entry, Settings as ClusterSettings},
        channel,
        liveness::{Action, Verdict},
        message::{Change, Identity, Message, Push},
    },
    model::{
        announcement::{Announcement, Announcements},
        member::{INCARNATIONS, Reach},
        service::InstanceKey,
    },
    record::{Key, Record},
};

/// Octets of the changes in one push: with what surrounds them it fits a datagram.
const PUSH: usize = 1000;
/// Octets of all pushes at once: what is more comes with gossip, whose next round is near.
const MAX_PUSH: usize = 64 * 1024;
/// From one push to the next: changes that come together go together.
const PUSH_AGAIN: Duration = Duration::from_millis(10);
/// How long a good-bye takes: it is said twice, since a datagram may be lost.
const FAREWELL: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(150)];

impl Task {
    /// Tells the others what changed of our own, at once and by gossip.
    pub(super) async fn publish(&mut self) {
        let now = self.inputs.announcements.borrow_and_update().clone();
        let changes = changes(&self.published, &now);
        self.published = now;
        self.dirty.insert(self.settings.own.id.name.clone());
        if changes.is_empty() {
            return;
        }
        let published = self.cluster.publish(&changes).await;
        self.push(&published);
        self.push_at = Instant::now() + PUSH_AGAIN;
    }

    pub(super) fn push(&self, entries: &[Entry]) {
        let reached = self.standings.values().filter(|peer| matches!(peer.reach, Reach::Alive | Reach::Suspect));
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
            let change = Change { key: &entry.key, version: entry.version, value: entry.value.as_deref() };
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

    /// Does what the failure detector asks for.
    pub(super) fn act(&mut self) {
        let everybody = || self.standings.values().map(|peer| peer.address);
        for action in self.liveness.actions() {
            match action {
                Action::Ping { address, sequence, .. } => self.outbox.send([address], &Message::Ping { sequence }),
                Action::Knock { peer, address } => self.outbox.knock(peer, address),
                Action::Ask { address, target, sequence, .. } => {
                    self.outbox.send([address], &Message::Ask { sequence, target });
                }
                Action::Tell { address, target, sequence, finding, .. } => {
                    self.outbox.send([address], &Message::Tell { sequence, target, finding });
                }
                Action::Announce(Verdict { subject, cause }) => {
                    self.outbox.send(everybody(), &Message::Verdict { peer: subject, cause });
                }
                // Any frame says that we are here; its ack says nothing new.
                Action::Refute => self.outbox.send(everybody(), &Message::Ping { sequence: 0 }),
                Action::Conflict { incumbent, address, newcomer, from } => {
                    warn!(node = %newcomer.name, here = %address, there = %from, "two nodes have one name: the one that was there first keeps it");
                    let holder = Identity { id: incumbent, address };
                    self.outbox.send([from], &Message::Conflict { holder });
                }
            }
        }
    }

    /// Withdraws ourselves from everybody's answers.
    pub(super) async fn say_goodbye(&mut self) {
        let (key, value) = Record::Left.encode();
        let entries = self.cluster.publish(&[(key, Some(value))]).await;
        for pause in FAREWELL {
            self.push(&entries);
            sleep(pause).await;
        }
    }

    /// Starts gossip anew, with all keys, after it has ended by itself.
    pub(super) async fn restart(&mut self) -> anyhow::Result<()> {
        self.incarnation = (self.incarnation + 1) % INCARNATIONS;
        let (to_cluster, inbox) = channel::gossip();
        let mut records = self.settings.records(&self.published);
        records.extend(self.events.records());
        self.cluster =
            Cluster::start(self.settings.cluster(self.incarnation), records, self.outbox.clone(), inbox).await?;
        self.to_cluster = to_cluster;
        self.news = self.cluster.news();
        self.ended = Box::pin(self.cluster.ended());
        for peer in self.standings.values() {
            self.cluster.talk_to(peer.address);
        }
        Ok(())
    }
}

/// What differs between two states of our announcements, as records; an instance before its health.
fn changes(before: &Announcements, after: &Announcements) -> Vec<(String, Option<String>)> {
    let mut changes = Vec::new();
    let mut reports = Vec::new();
    for item in before.diff(after) {
        let (old, new) = match item {
            DiffItem::Add(_, new) => (None, new),
            DiffItem::Update { old: (_, old), new: (_, new) } => (Some(old), new),
            DiffItem::Remove(key, old) => {
                changes.push((Key::Instance(key.clone()).to_string(), None));
                changes.push((Key::Standing(key.clone()).to_string(), None));
                reports.extend(old_report(key, old));
                continue;
            }
        };
        if old.is_none_or(|old| old.instance != new.instance) {
            let (key, value) = Record::Instance(new.instance.clone()).encode();
            changes.push((key, Some(value)));
        }
        if old.is_none_or(|old| old.standing != new.standing) {
            let (key, value) = Record::Standing(new.instance.key.clone(), new.standing.clone()).encode();
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
    // Who is answered goes before why.
    changes.append(&mut reports);
    changes
}

/// The end of a report that was told.
fn old_report(key: &InstanceKey, old: &Announcement) -> Option<(String, Option<String>)> {
    old.report.as_ref().map(|_| (Key::Report(key.clone()).to_string(), None))
}

impl Settings {
    pub(super) fn cluster(&self, incarnation: u64) -> ClusterSettings {
        ClusterSettings {
            id: self.own.id.clone(),
            incarnation,
            address: self.own.address,
            cluster: self.cluster.clone(),
            interval: self.interval,
        }
    }

    /// All that we tell: ourselves first, so that who hears a part knows whose it is.
    pub(super) fn records(&self, announcements: &Announcements) -> Vec<(String, String)> {
        let node = Record::Node {
            addresses: self.node.addresses.clone(),
            datacenter: self.node.datacenter.clone(),
            version: self.version.clone(),
            meta: self.node.meta.clone(),
            ttl: Some(self.ttl),
        };
        let own = changes(&Announcements::new(), announcements);
        let own = own.into_iter().filter_map(|(key, value)| Some((key, value?)));
        std::iter::once(node.encode()).chain(own).collect()
    }
}
