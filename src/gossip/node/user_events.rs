//! User events: those fired here go out, those of peers are taken in, and what is meant for this node is shown.

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

/// What somebody wants to be known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FireEvent {
    /// The event's name.
    pub name: String,
    /// What it says.
    pub payload: Vec<u8>,
    /// Whom it is for.
    pub to: Audience,
}

/// The events that this run of the node knows.
#[derive(Default)]
pub(super) struct Events {
    log: EventLog,
    /// The greatest time of any event that is known.
    clock: u64,
    /// Our own last ones, each in its slot.
    own: BTreeMap<u8, Arc<UserEvent>>,
    next: u8,
}

impl Events {
    /// What we tell of our own, for a gossip that begins anew.
    pub(super) fn records(&self) -> impl Iterator<Item = (String, String)> + '_ {
        self.own.iter().map(|(slot, event)| Record::Event(*slot, event.clone()).encode())
    }
}

impl Task {
    /// Makes an event known. It is within bounds, or is not fired: then `done` is dropped.
    pub(super) async fn fire(&mut self, firing: FireEvent, done: oneshot::Sender<Arc<UserEvent>>) {
        let FireEvent { name, payload, to } = firing;
        // Random enough: an id tells events apart and is no secret.
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
        self.push(&published);
        self.take_event(event.clone());
        let _ = done.send(event);
    }

    /// Takes in what a peer has fired.
    pub(super) fn take_events_of(&mut self, id: &PeerId) {
        let Some(known) = self.replicas.get_mut(id) else { return };
        for event in known.replica.take_fired() {
            self.take_event(event);
        }
    }

    fn take_event(&mut self, event: Arc<UserEvent>) {
        self.events.clock = self.events.clock.max(event.time);
        if event.to.includes(&self.settings.own.id.name, &self.published) {
            self.events.log.push(event);
            self.outputs.events.send_replace(self.events.log.clone());
        }
    }
}
