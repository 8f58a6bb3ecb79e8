//! Wakes those that wait for changes of keys: only when one of their keys changes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Notify, watch};

use crate::store::{
    key::{Key, KeyRange, Revision},
    raft::Applied,
    state::State,
};

/// Part of the state that a client waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Interest {
    /// Keys of a range.
    Keys(KeyRange),
    /// Sessions, and everything else that is no key.
    Sessions,
}

/// Everyone who waits for changes.
#[derive(Clone, Debug, Default)]
pub(super) struct Interests(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    /// Revision up to which waiters were woken.
    woken: Revision,
    keys: HashMap<Key, Vec<Arc<Entry>>>,
    spans: Vec<Arc<Entry>>,
    sessions: Vec<Arc<Entry>>,
}

#[derive(Debug)]
struct Entry {
    interest: Interest,
    /// First revision with a change that was not taken.
    changed: Mutex<Option<Revision>>,
    notify: Notify,
}

/// One registered interest, until it is dropped.
#[derive(Debug)]
pub(super) struct Waiter {
    interests: Interests,
    entry: Arc<Entry>,
}

impl Interests {
    /// Registers an interest. Changes that are applied from now on wake the waiter.
    pub(super) fn register(&self, interest: Interest) -> Waiter {
        let mut table = self.lock();
        let entry = Arc::new(Entry { interest: interest.clone(), changed: Mutex::default(), notify: Notify::new() });
        match interest {
            Interest::Keys(KeyRange::Key(key)) => table.keys.entry(key).or_default().push(entry.clone()),
            Interest::Keys(KeyRange::Span { .. }) => table.spans.push(entry.clone()),
            Interest::Sessions => table.sessions.push(entry.clone()),
        }
        drop(table);
        Waiter { interests: self.clone(), entry }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes waiters after changes from the time of this call on, until the state is no longer applied.
    pub(super) fn follow(self, mut applied: watch::Receiver<Applied>) -> impl Future<Output = ()> {
        // Not in the future: a waiter may be registered, and the state change, before it first runs.
        let mut seen = applied.borrow_and_update().state.revision();
        async move {
            while applied.changed().await.is_ok() {
                let state = applied.borrow_and_update().state.clone();
                self.wake(&state, seen);
                seen = state.revision();
            }
        }
    }

    fn wake(&self, state: &State, seen: Revision) {
        let mut table = self.lock();
        let revision = state.revision();
        table.woken = revision;
        let table = &*table;
        if revision < seen || state.compacted() > seen.next() {
            // The state came with a snapshot: its history does not show what has changed.
            let all = table.keys.values().flatten().chain(&table.spans).chain(&table.sessions);
            all.for_each(|entry| entry.wake(Revision(0)));
            return;
        }
        if revision == seen {
            return;
        }
        table.sessions.iter().for_each(|entry| entry.wake(revision));
        for change in state.changes(seen) {
            for entry in table.keys.get(&change.key).into_iter().flatten() {
                entry.wake(change.revision);
            }
            for entry in &table.spans {
                if matches!(&entry.interest, Interest::Keys(range) if range.contains(&change.key)) {
                    entry.wake(change.revision);
                }
            }
        }
    }
}

impl Entry {
    fn wake(&self, revision: Revision) {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(revision);
        self.notify.notify_one();
    }
}

impl Waiter {
    /// Waits for changes and takes the first revision with one; 0 if the history does not show it.
    pub(super) async fn changed(&self) -> Revision {
        loop {
            self.entry.notify.notified().await;
            if let Some(first) = self.entry.changed.lock().unwrap_or_else(PoisonError::into_inner).take() {
                return first;
            }
        }
    }

    /// Returns the revision up to which nothing has changed but what was taken; `None` if there are changes to take.
    pub(super) fn unchanged_up_to(&self) -> Option<Revision> {
        let woken = self.interests.lock().woken;
        let changed = self.entry.changed.lock().unwrap_or_else(PoisonError::into_inner);
        changed.is_none().then_some(woken)
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut table = self.interests.lock();
        let without = |entries: &mut Vec<Arc<Entry>>| entries.retain(|entry| !Arc::ptr_eq(entry, &self.entry));
        match &self.entry.interest {
            Interest::Keys(KeyRange::Key(key)) => {
                if let Some(entries) = table.keys.get_mut(key) {
                    without(entries);
                    if entries.is_empty() {
                        table.keys.remove(key);
                    }
                }
            }
            Interest::Keys(KeyRange::Span { .. }) => without(&mut table.spans),
            Interest::Sessions => without(&mut table.sessions),
        }
    }
}
