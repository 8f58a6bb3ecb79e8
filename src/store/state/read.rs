//! Answers to queries: reads of the current state and of earlier revisions.

use std::{cmp::Ordering, sync::Arc};

use bytes::Bytes;
use imbl::OrdMap;

use super::{SessionState, State};
use crate::store::{
    command::Refusal,
    entry::{Entry, KeyEntry},
    key::{Key, KeyRange, Revision},
    lease::LeaseId,
    query::{Answer, Contact, Content, HeldKeys, LeaseAnswer, Query, Range, RangeAnswer, RevisionBounds, Sort, SortBy},
    session::{Session, SessionId},
};

impl State {
    /// Answers a query. [`LeaseAnswer::remaining`] is the last recorded time: the leader sets the current one.
    ///
    /// # Errors
    /// Fails if the revision to read at is compacted or in the future.
    pub fn read(&self, query: &Query) -> Result<Answer, Refusal> {
        let (index, content) = match query {
            Query::Range(range) => (self.revision, Content::Range(self.range(range)?)),
            Query::Key(key) => self.read_key(key),
            Query::Prefix(prefix) => self.read_prefix(prefix),
            Query::Keys { prefix, separator } => self.read_keys(prefix, separator),
            Query::Session(id) => {
                let session = self.sessions.get(id).map(|state| Session::clone(&state.session));
                let index = session.as_ref().map_or(self.sessions_changed, |session| session.created);
                (index, Content::Sessions(session.into_iter().collect()))
            }
            Query::Sessions { node } => self.read_sessions(node.as_deref()),
            Query::Lease(id) => (self.revision, Content::Lease(self.read_lease(*id))),
            Query::Leases => (self.revision, Content::Leases(self.leases.keys().copied().collect())),
            Query::Totals => (self.revision, Content::Totals(self.totals())),
            Query::HeldKeys => (self.revision, Content::HeldKeys(self.held_keys())),
            Query::KeysOf(session) => (self.revision, Content::Keys(self.keys_of(session))),
        };
        Ok(Answer { index: index.0, revision: self.revision, content, contact: Contact::default() })
    }

    fn read_key(&self, key: &Key) -> (Revision, Content) {
        match self.keys.get(key) {
            Some(entry) => {
                (entry.modified, Content::Entries(vec![KeyEntry { key: key.clone(), entry: entry.clone() }]))
            }
            None => (self.history.deleted(&KeyRange::Key(key.clone())), Content::Entries(vec![])),
        }
    }

    fn read_prefix(&self, prefix: &Bytes) -> (Revision, Content) {
        let range = KeyRange::prefix(prefix.clone());
        let entries = self.entries_of(&range);
        let modified = entries.iter().map(|entry| entry.entry.modified).max().unwrap_or_default();
        (modified.max(self.history.deleted(&range)), Content::Entries(entries))
    }

    fn read_keys(&self, prefix: &Bytes, separator: &[u8]) -> (Revision, Content) {
        let range = KeyRange::prefix(prefix.clone());
        let mut index = self.history.deleted(&range);
        let mut keys: Vec<Bytes> = vec![];
        for (key, entry) in self.entries_in(&range) {
            index = index.max(entry.modified);
            let octets = key.octets();
            let end = find(&octets[prefix.len()..], separator).map_or(octets.len(), |at| prefix.len() + at);
            // Keys with the same beginning follow each other.
            if keys.last().is_none_or(|last| **last != octets[..end]) {
                keys.push(Bytes::copy_from_slice(&octets[..end]));
            }
        }
        (index, Content::Keys(keys))
    }

    fn read_sessions(&self, node: Option<&str>) -> (Revision, Content) {
        let wanted = |session: &&Session| node.is_none_or(|node| session.node == node);
        let sessions = self.sessions().filter(wanted).cloned().collect();
        let index = match node {
            Some(node) => self.node_sessions_changed.get(node).copied().unwrap_or(super::FIRST_REVISION),
            None => self.sessions_changed,
        };
        (index, Content::Sessions(sessions))
    }

    fn read_lease(&self, id: LeaseId) -> Option<LeaseAnswer> {
        let lease = self.leases.get(&id)?;
        let recorded = self.lifetime(super::LifetimeId::Lease(id)).and_then(|lifetime| lifetime.remaining);
        let remaining = recorded.map_or(lease.ttl, |remaining| remaining.as_secs());
        Some(LeaseAnswer { ttl: lease.ttl, remaining, keys: lease.keys.iter().cloned().collect() })
    }

    fn held_keys(&self) -> Vec<HeldKeys> {
        let held = |(session, state): (&SessionId, &SessionState)| HeldKeys {
            session: *session,
            keys: state.keys.len() as u64,
        };
        self.sessions.iter().map(held).collect()
    }

    fn keys_of(&self, session: &SessionId) -> Vec<Bytes> {
        let held = self.sessions.get(session).into_iter().flat_map(|state| &state.keys);
        held.map(Key::to_bytes).collect()
    }

    /// Reads a range as etcd does.
    pub(super) fn range(&self, query: &Range) -> Result<RangeAnswer, Refusal> {
        let past = match query.revision {
            Some(revision) => self.keys_at(revision, &query.range)?,
            None => None,
        };
        let keys = past.as_ref().unwrap_or(&self.keys);
        let count = count(keys, &query.range);
        if query.count_only {
            return Ok(RangeAnswer { entries: vec![], more: false, count });
        }
        let limit = usize::try_from(query.limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
        // Without an order of its own, the answer needs no entries behind the limit but one.
        let needed = if query.sort.is_none() { limit.saturating_add(1) } else { usize::MAX };
        let mut entries: Vec<_> = within(keys, &query.range)
            .filter(|(_, entry)| query.bounds.contain(entry))
            .take(needed)
            .map(|(key, entry)| KeyEntry { key: key.clone(), entry: entry.clone() })
            .collect();
        if let Some(sort) = query.sort {
            entries.sort_by(|a, b| sort.compare(a, b));
        }
        let more = entries.len() > limit;
        entries.truncate(limit);
        if query.keys_only {
            for KeyEntry { entry, .. } in &mut entries {
                *entry = Arc::new(entry.without_value());
            }
        }
        Ok(RangeAnswer { entries, more, count })
    }

    /// The keys at a past revision, correct within a range; `None` if the revision is the current one.
    fn keys_at(&self, revision: Revision, range: &KeyRange) -> Result<Option<OrdMap<Key, Arc<Entry>>>, Refusal> {
        self.check_revision(revision)?;
        if revision == self.revision {
            return Ok(None);
        }
        let mut keys = self.keys.clone();
        for change in self.history.changes(revision).rev().filter(|change| range.contains(&change.key)) {
            match &change.previous {
                Some(previous) => keys.insert(change.key.clone(), previous.clone()),
                None => keys.remove(&change.key),
            };
        }
        Ok(Some(keys))
    }

    /// Checks that the state at a revision can be read.
    pub(super) fn check_revision(&self, revision: Revision) -> Result<(), Refusal> {
        if revision > self.revision {
            return Err(Refusal::Future(self.revision));
        }
        if revision < self.compacted() {
            return Err(Refusal::Compacted(self.compacted()));
        }
        Ok(())
    }

    /// Keys of a range with their entries, in order.
    pub(super) fn entries_in(&self, range: &KeyRange) -> impl Iterator<Item = (&Key, &Arc<Entry>)> {
        within(&self.keys, range)
    }

    /// Keys of a range with their entries, as a list.
    pub(super) fn entries_of(&self, range: &KeyRange) -> Vec<KeyEntry> {
        self.entries_in(range).map(|(key, entry)| KeyEntry { key: key.clone(), entry: entry.clone() }).collect()
    }
}

fn within<'a>(
    keys: &'a OrdMap<Key, Arc<Entry>>,
    range: &KeyRange,
) -> impl Iterator<Item = (&'a Key, &'a Arc<Entry>)> + use<'a> {
    // An ordered map refuses bounds in the wrong order, and clients send them.
    let is_empty = matches!(range, KeyRange::Span { start, end: Some(end) } if start >= end);
    (!is_empty).then(|| keys.range(range.bounds())).into_iter().flatten()
}

fn count(keys: &OrdMap<Key, Arc<Entry>>, range: &KeyRange) -> u64 {
    let count = if *range == KeyRange::ALL { keys.len() } else { within(keys, range).count() };
    count as u64
}

/// Returns the position behind the first occurrence of a separator; `None` if there is none, or if the separator is empty.
fn find(octets: &[u8], separator: &[u8]) -> Option<usize> {
    if separator.is_empty() {
        return None;
    }
    let at = octets.windows(separator.len()).position(|window| window == separator)?;
    Some(at + separator.len())
}

impl RevisionBounds {
    fn contain(&self, entry: &Entry) -> bool {
        let within = |revision: Revision, min: u64, max: u64| revision.0 >= min && (max == 0 || revision.0 <= max);
        within(entry.modified, self.min_modified, self.max_modified)
            && within(entry.created, self.min_created, self.max_created)
    }
}

impl Sort {
    fn compare(self, a: &KeyEntry, b: &KeyEntry) -> Ordering {
        let order = match self.by {
            SortBy::Key => a.key.cmp(&b.key),
            SortBy::Version => a.entry.version.cmp(&b.entry.version),
            SortBy::Created => a.entry.created.cmp(&b.entry.created),
            SortBy::Modified => a.entry.modified.cmp(&b.entry.modified),
            SortBy::Value => a.entry.value.cmp(&b.entry.value),
        };
        if self.descending { order.reverse() } else { order }
    }
}
