//! Random commands on the state and on a naive model.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// A random command.
#[derive(Clone, Debug)]
enum Step {
    Set(&'static str, u8),
    CompareAndSet(&'static str, u8, u64),
    CompareAndDelete(&'static str, u64),
    Lock(&'static str, u8, u128),
    Unlock(&'static str, u8, u128),
    Delete(&'static str),
    DeletePrefix(&'static str),
    Put(&'static str, u8, Option<i64>),
    Create(u128, Behavior, bool),
    Destroy(u128),
    Grant(i64),
    Revoke(i64),
    EndDelay(&'static str),
    Compact(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = prop::sample::select(&["a", "a/1", "a/2", "b"][..]);
    let prefix = prop::sample::select(&["", "a", "a/", "c"][..]);
    let (session, lease) = (1..3u128, 1..3i64);
    let behavior = prop::sample::select(&[Behavior::Release, Behavior::Delete][..]);
    let step = prop_oneof![
        (key.clone(), 0..3u8).prop_map(|(key, value)| Step::Set(key, value)),
        (key.clone(), 0..3u8, 0..4u64).prop_map(|(key, value, age)| Step::CompareAndSet(key, value, age)),
        (key.clone(), 0..4u64).prop_map(|(key, age)| Step::CompareAndDelete(key, age)),
        (key.clone(), 0..3u8, session.clone()).prop_map(|(key, value, id)| Step::Lock(key, value, id)),
        (key.clone(), 0..3u8, session.clone()).prop_map(|(key, value, id)| Step::Unlock(key, value, id)),
        key.clone().prop_map(Step::Delete),
        prefix.prop_map(Step::DeletePrefix),
        (key.clone(), 0..3u8, prop::option::of(lease.clone())).prop_map(|(key, value, id)| Step::Put(key, value, id)),
        (session.clone(), behavior, any::<bool>()).prop_map(|(id, behavior, delay)| Step::Create(id, behavior, delay)),
        session.prop_map(Step::Destroy),
        lease.clone().prop_map(Step::Grant),
        lease.prop_map(Step::Revoke),
        key.prop_map(Step::EndDelay),
        (0..20u64).prop_map(Step::Compact),
    ];
    prop::collection::vec(step, 1..80)
}

#[derive(Clone, Debug, PartialEq)]
struct ModelEntry {
    value: u8,
    session: Option<u128>,
    lock_index: u64,
    lease: Option<i64>,
    created: u64,
    modified: u64,
    version: u64,
}

/// The store as maps without indexes, with a copy of all keys for each revision.
#[derive(Debug)]
struct Model {
    revision: u64,
    keys: BTreeMap<&'static str, ModelEntry>,
    deleted: BTreeMap<&'static str, u64>,
    sessions: BTreeMap<u128, (Behavior, bool)>,
    leases: BTreeSet<i64>,
    delays: BTreeMap<&'static str, u64>,
    past: BTreeMap<u64, BTreeMap<&'static str, ModelEntry>>,
}

impl Model {
    fn new() -> Self {
        let mut model = Self {
            revision: 1,
            keys: BTreeMap::new(),
            deleted: BTreeMap::new(),
            sessions: BTreeMap::new(),
            leases: BTreeSet::new(),
            delays: BTreeMap::new(),
            past: BTreeMap::new(),
        };
        model.past.insert(1, BTreeMap::new());
        model
    }

    /// Applies a step. Returns the command, and whether it succeeds.
    fn apply(&mut self, step: &Step) -> (Command, bool) {
        let revision = self.revision + 1;
        let modified = |model: &Self, key| model.keys.get(key).map_or(0, |entry| entry.modified);
        let operate = |operation| Command::Operate(vec![operation]);
        let bytes = |value: u8| Bytes::from(vec![value]);
        let before = (self.keys.clone(), self.sessions.clone());
        let (command, succeeds) = match *step {
            Step::Set(name, octet) => {
                self.set(name, octet, |_| {});
                (operate(Operation::Set { key: key(name), value: bytes(octet), flags: 0 }), true)
            }
            Step::CompareAndSet(name, octet, age) => {
                let index = modified(self, name).saturating_sub(age);
                let succeeds = index == modified(self, name);
                if succeeds {
                    self.set(name, octet, |_| {});
                }
                let operation = Operation::CompareAndSet { key: key(name), value: bytes(octet), flags: 0, index };
                (operate(operation), succeeds)
            }
            Step::CompareAndDelete(name, age) => {
                let index = modified(self, name).saturating_sub(age);
                let succeeds = index == modified(self, name);
                if succeeds {
                    self.keys.remove(name);
                }
                (operate(Operation::CompareAndDelete { key: key(name), index }), succeeds)
            }
            Step::Lock(name, octet, id) => {
                let holder = self.keys.get(name).and_then(|entry| entry.session);
                let free = holder.is_none() && !self.delays.contains_key(name);
                let succeeds = self.sessions.contains_key(&id) && (free || holder == Some(id));
                if succeeds {
                    self.set(name, octet, |entry| {
                        entry.lock_index += u64::from(holder.is_none());
                        entry.session = Some(id);
                    });
                }
                let session = session_id(id);
                (operate(Operation::Lock { key: key(name), value: bytes(octet), flags: 0, session }), succeeds)
            }
            Step::Unlock(name, octet, id) => {
                let succeeds = self.keys.get(name).is_some_and(|entry| entry.session == Some(id));
                if succeeds {
                    self.set(name, octet, |entry| entry.session = None);
                }
                let session = session_id(id);
                (operate(Operation::Unlock { key: key(name), value: bytes(octet), flags: 0, session }), succeeds)
            }
            Step::Delete(name) => {
                self.keys.remove(name);
                (operate(Operation::Delete(key(name))), true)
            }
            Step::DeletePrefix(prefix) => {
                self.keys.retain(|name, _| !name.starts_with(prefix));
                (operate(Operation::DeletePrefix(value(prefix))), true)
            }
            Step::Put(name, octet, lease) => {
                let succeeds = lease.is_none_or(|id| self.leases.contains(&id));
                if succeeds {
                    // A put is a change even if it changes nothing.
                    let mut entry = self.draft(name);
                    (entry.value, entry.lease) = (octet, lease);
                    self.store(name, entry);
                }
                let lease = lease.map_or(PutLease::Detach, |id| PutLease::Attach(LeaseId(id)));
                let put = Put { key: key(name), value: Some(bytes(octet)), lease, with_previous: false };
                (Command::Transact(requests(vec![TransactionRequest::Put(put)])), succeeds)
            }
            Step::Create(id, behavior, delayed) => {
                let succeeds = !self.sessions.contains_key(&id);
                self.sessions.entry(id).or_insert((behavior, delayed));
                let lock_delay = Duration::from_secs(u64::from(delayed));
                (Command::CreateSession(Box::new(Session { behavior, lock_delay, ..session(id) })), succeeds)
            }
            Step::Destroy(id) => {
                if let Some((behavior, delayed)) = self.sessions.remove(&id) {
                    for (name, mut entry) in self.keys.clone() {
                        if entry.session != Some(id) {
                            continue;
                        }
                        if behavior == Behavior::Delete {
                            self.keys.remove(name);
                        } else {
                            entry.session = None;
                            self.store(name, entry);
                        }
                        if delayed {
                            self.delays.insert(name, revision);
                        }
                    }
                }
                (Command::DestroySession(session_id(id)), true)
            }
            Step::Grant(id) => (Command::GrantLease { id: LeaseId(id), ttl: 60 }, self.leases.insert(id)),
            Step::Revoke(id) => {
                self.keys.retain(|_, entry| entry.lease != Some(id));
                (Command::RevokeLease(LeaseId(id)), self.leases.remove(&id))
            }
            Step::EndDelay(name) => {
                let began = Revision(self.delays.remove(name).unwrap_or_default());
                (Command::EndLockDelay { key: key(name), began }, true)
            }
            Step::Compact(age) => {
                let to = self.revision.saturating_sub(age);
                let succeeds = to > *self.past.keys().next().unwrap();
                self.past.retain(|at, _| *at >= to);
                (Command::Compact(Revision(to)), succeeds)
            }
        };
        if (&self.keys, &self.sessions) != (&before.0, &before.1) {
            self.revision = revision;
            self.past.insert(revision, self.keys.clone());
            for name in before.0.keys().filter(|name| !self.keys.contains_key(*name)) {
                self.deleted.insert(name, revision);
            }
        }
        (command, succeeds)
    }

    fn draft(&self, name: &'static str) -> ModelEntry {
        let (created, modified) = (self.revision + 1, 0);
        let empty = ModelEntry { value: 0, session: None, lock_index: 0, lease: None, created, modified, version: 0 };
        self.keys.get(name).cloned().unwrap_or(empty)
    }

    fn set(&mut self, name: &'static str, octet: u8, change: impl FnOnce(&mut ModelEntry)) {
        let mut entry = self.draft(name);
        entry.value = octet;
        change(&mut entry);
        if self.keys.get(name) != Some(&entry) {
            self.store(name, entry);
        }
    }

    fn store(&mut self, name: &'static str, mut entry: ModelEntry) {
        entry.modified = self.revision + 1;
        entry.version += 1;
        self.keys.insert(name, entry);
    }

    fn index_of_prefix(&self, prefix: &str) -> u64 {
        let modified = self.keys.iter().map(|(name, entry)| (name, entry.modified));
        let deleted = self.deleted.iter().map(|(name, revision)| (name, *revision));
        let within = modified.chain(deleted).filter(|(name, _)| name.starts_with(prefix));
        within.map(|(_, revision)| revision).max().unwrap_or(1)
    }
}

/// The keys as the model has them.
fn observed<'a>(entries: impl IntoIterator<Item = (&'a Key, &'a Arc<Entry>)>) -> BTreeMap<&'a str, ModelEntry> {
    let entry = |entry: &Entry| ModelEntry {
        value: entry.value[0],
        session: entry.attributes().session.map(|id| id.0.as_u128()),
        lock_index: entry.attributes().lock_index,
        lease: entry.attributes().lease.map(|id| id.0),
        created: entry.created.0,
        modified: entry.modified.0,
        version: entry.version,
    };
    entries.into_iter().map(|(key, stored)| (key.as_str().unwrap(), entry(stored))).collect()
}

proptest! {
    #[test]
    fn state_agrees_with_a_naive_model(steps in steps()) {
        let mut model = Model::new();
        let mut state = State::new(AMPLE);
        let mut replayed: BTreeMap<Key, Arc<Entry>> = BTreeMap::new();
        for step in &steps {
            let seen = state.revision();
            let (command, succeeds) = model.apply(step);
            let outcome = state.apply(command);
            let failed = matches!(outcome.result, Err(_) | Ok(Done::Failed(_)));
            prop_assert_eq!((outcome.revision.0, !failed), (model.revision, succeeds), "{:?}", step);
            prop_assert_eq!(observed(&state.keys), model.keys.clone(), "{:?}", step);

            for change in state.changes(seen) {
                prop_assert_eq!(replayed.get(&change.key), change.previous.as_ref());
                match &change.entry {
                    Some(entry) => replayed.insert(change.key.clone(), entry.clone()),
                    None => replayed.remove(&change.key),
                };
            }
            prop_assert!(state.keys.iter().eq(&replayed));
            for prefix in ["", "a", "a/", "c"] {
                let answer = state.read(&Query::Prefix(value(prefix))).unwrap();
                prop_assert_eq!(answer.index, model.index_of_prefix(prefix));
            }
        }
        for (revision, keys) in &model.past {
            let range = Range { revision: Some(Revision(*revision)), ..Range::all(KeyRange::ALL) };
            let Content::Range(answer) = state.read(&Query::Range(range)).unwrap().content else { panic!() };
            prop_assert_eq!(&observed(answer.entries.iter().map(|entry| (&entry.key, &entry.entry))), keys);
        }

        let mut octets = vec![];
        state.encode(&mut octets).unwrap();
        prop_assert_eq!(State::decode(&mut &octets[..], AMPLE).unwrap(), state.clone());

        for id in 1..3 {
            state.apply(Command::DestroySession(session_id(id)));
            state.apply(Command::RevokeLease(LeaseId(i64::try_from(id).unwrap())));
        }
        state.apply(Command::Operate(vec![Operation::DeletePrefix(value(""))]));
        prop_assert_eq!(state.totals().octets, 0);
    }
}
