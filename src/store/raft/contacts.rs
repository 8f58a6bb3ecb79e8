//! The times at which other members last replied to this one, while it is the leader, and at which it last heard from one.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::MemberId;

/// What this member knows of each other one. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Contacts(Arc<Mutex<BTreeMap<MemberId, Contact>>>);

/// What this member knows of another one.
#[derive(Clone, Copy, Debug)]
enum Contact {
    /// It has not replied yet. Holds the time of the first message to it.
    Sent(Instant),
    /// It has replied. Holds the time of its last reply.
    Replied(Instant),
}

impl Contacts {
    /// Notes that a message is sent.
    pub(super) fn sent(&self, to: MemberId) {
        self.lock().entry(to).or_insert_with(|| Contact::Sent(Instant::now()));
    }

    /// Notes that a member has replied.
    pub(super) fn replied(&self, from: MemberId) {
        self.lock().insert(from, Contact::Replied(Instant::now()));
    }

    /// Forgets all times: other members send no messages to each other that would show who can be reached.
    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    /// Time since the last reply of a member, or since the first message if it has not replied; `None` if none was sent.
    pub(super) fn unreached(&self, id: MemberId) -> Option<Duration> {
        self.lock().get(&id).map(|(Contact::Sent(at) | Contact::Replied(at))| at.elapsed())
    }

    /// Reports whether a member has replied.
    pub(super) fn has_replied(&self, id: MemberId) -> bool {
        matches!(self.lock().get(&id), Some(Contact::Replied(_)))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<MemberId, Contact>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The time of the last heartbeat of a leader, or of the start. Clones share the time.
#[derive(Clone, Debug)]
pub(super) struct LeaderContact(Arc<Mutex<Instant>>);

impl Default for LeaderContact {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }
}

impl LeaderContact {
    /// Notes a message of the leader.
    pub(super) fn heard(&self) {
        *self.lock() = Instant::now();
    }

    /// Time since the last one.
    pub(super) fn silence(&self) -> Duration {
        self.lock().elapsed()
    }

    fn lock(&self) -> MutexGuard<'_, Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
