//! User events: sends events fired on this node and delivers those that are for this node.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::oneshot;

use super::Task;
use crate::{
    model::{
        member::PeerId,
        user_event::{Audience, EventLog, SLOTS, UserEvent},
    },
    record::Record,
};

/// User events of this run.
#[derive(Default)]
pub(super) struct Events {
    log: EventLog,
    /// Highest Lamport time of all known events.
    clock: u64,
    /// Last own events by slot.
    own: BTreeMap<u8, Arc<UserEvent>>,
    next: u8,
}

impl Events {
    /// Own events as records, for a restart of gossip.
    pub(super) fn records(&self) -> impl Iterator<Item = (String, String)> + '_ {
        self.own.iter().map(|(slot, event)| Record::Event(*slot, event.clone()).encode())
    }
}

impl Task {
    /// Fires an event. Drops `done` without a value if the event is out of bounds.
    pub(super) async fn fire(
        &mut self,
        name: String,
        payload: Vec<u8>,
        to: Audience,
        done: oneshot::Sender<Arc<UserEvent>>,
    ) {
        // The id only has to be unique, not secret.
        let id = uuid::Builder::from_random_bytes(fastrand::u128(..).to_be_bytes()).into_uuid();
        let event = Arc::new(UserEvent { id, name, payload, to, time: self.events.clock + 1 });
        if event.check().is_err() {
            return;
        }
        let slot = self.events.next;
        self.events.next = (slot + 1) % SLOTS;
        self.events.own.insert(slot, event.clone());
        let (key, value) = Record::Event(slot, event.clone()).encode();
        let published = self.cluster.publish(&[(key, Some(value))]).await;
        self.push_repeatedly(&published);
        self.take_event(event.clone());
        let _ = done.send(event);
    }

    /// Delivers the new events of a peer.
    pub(super) fn take_events_of(&mut self, id: &PeerId) {
        let Some(known) = self.replicas.get_mut(id) else { return };
        for event in known.replica.take_fired() {
            self.take_event(event);
        }
    }

    fn take_event(&mut self, event: Arc<UserEvent>) {
        self.events.clock = self.events.clock.max(event.time);
        if event.to.includes(&self.settings.node, &self.published) {
            self.events.log.push(event);
            self.outputs.events.send_replace(self.events.log.clone());
        }
    }
}
