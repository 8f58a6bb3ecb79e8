//! The times at which other members last replied to this one, while it is the leader.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::MemberId;

/// The time of the last reply of each member, or of the first message to it. Clones share the times.
#[derive(Clone, Debug, Default)]
pub(super) struct Contacts(Arc<Mutex<BTreeMap<MemberId, Instant>>>);

impl Contacts {
    /// Notes that a message is sent.
    pub(super) fn sent(&self, to: MemberId) {
        self.lock().entry(to).or_insert_with(Instant::now);
    }

    /// Notes that a member has replied.
    pub(super) fn replied(&self, from: MemberId) {
        self.lock().insert(from, Instant::now());
    }

    /// Forgets all times: other members send no messages to each other that would show who can be reached.
    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    /// Time since the last reply of a member, or since the first message if it has not replied; `None` if none was sent.
    pub(super) fn unreached(&self, id: MemberId) -> Option<Duration> {
        self.lock().get(&id).map(Instant::elapsed)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<MemberId, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
