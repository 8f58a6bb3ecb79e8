//! Consul's operations on keys.

use bytes::Bytes;

use super::{State, batch::Batch, budget::Budget};
use crate::store::{
    command::{Done, Operation, OperationFailure, OperationFailureReason as Reason, Refusal},
    entry::{Attributes, Entry, KeyEntry},
    key::{Key, KeyRange},
    session::SessionId,
};

impl State {
    /// Carries out operations, each with the effects of those before it. Lists all failures.
    ///
    /// # Errors
    /// The results are too large.
    pub(super) fn operate(&mut self, batch: &mut Batch, operations: Vec<Operation>) -> Result<Done, Refusal> {
        let mut budget = Budget::new();
        let mut entries = vec![];
        let mut failures = vec![];
        for (index, operation) in operations.into_iter().enumerate() {
            // Results of writes are not larger than the request.
            let reads = operation.is_read();
            match self.carry_out(batch, operation) {
                Ok(results) => {
                    budget.take(results.len() as u64, if reads { &results } else { &[] })?;
                    entries.extend(results);
                }
                Err(reason) => failures.push(OperationFailure { index, reason }),
            }
        }
        Ok(if failures.is_empty() { Done::Operated(entries) } else { Done::Failed(failures) })
    }

    fn carry_out(&mut self, batch: &mut Batch, operation: Operation) -> Result<Vec<KeyEntry>, Reason> {
        match operation {
            Operation::Set { key, value, flags } => Ok(vec![self.set(batch, &key, value, flags)]),
            Operation::CompareAndSet { key, value, flags, index } => {
                self.expect_index(&key, index)?;
                Ok(vec![self.set(batch, &key, value, flags)])
            }
            Operation::Lock { key, value, flags, session } => self.lock(batch, &key, value, flags, session),
            Operation::Unlock { key, value, flags, session } => {
                self.expect_holder(&key, session)?;
                let attributes = Attributes { flags, session: None, ..self.attributes(&key) };
                Ok(vec![self.store(batch, &key, Entry::new(value, attributes))])
            }
            Operation::Delete(key) => {
                self.replace(batch, &key, None);
                Ok(vec![])
            }
            Operation::CompareAndDelete { key, index } => {
                if self.keys.contains_key(&key) {
                    self.expect_index(&key, index)?;
                    self.replace(batch, &key, None);
                }
                Ok(vec![])
            }
            Operation::DeletePrefix(prefix) => {
                for KeyEntry { key, .. } in self.entries_of(&KeyRange::prefix(prefix)) {
                    self.replace(batch, &key, None);
                }
                Ok(vec![])
            }
            Operation::Get(key) => match self.keys.get(&key) {
                Some(entry) => Ok(vec![KeyEntry { entry: entry.clone(), key }]),
                None => Err(Reason::Missing(key)),
            },
            Operation::GetOrEmpty(key) => {
                let entry = self.keys.get(&key).cloned().unwrap_or_default();
                Ok(vec![KeyEntry { entry, key }])
            }
            Operation::GetPrefix(prefix) => Ok(self.entries_of(&KeyRange::prefix(prefix))),
            Operation::CheckIndex { key, index } => match self.keys.get(&key) {
                Some(_) => self.expect_index(&key, index).map(|()| vec![]),
                None => Err(Reason::Missing(key)),
            },
            Operation::CheckSession { key, session } => match self.keys.get(&key) {
                Some(_) => self.expect_holder(&key, session).map(|()| vec![]),
                None => Err(Reason::Missing(key)),
            },
            Operation::CheckNotExists(key) => {
                if self.keys.contains_key(&key) {
                    return Err(Reason::Exists(key));
                }
                Ok(vec![])
            }
            Operation::DestroySession(id) => {
                self.end_session(batch, id);
                Ok(vec![])
            }
        }
    }

    fn set(&mut self, batch: &mut Batch, key: &Key, value: Bytes, flags: u64) -> KeyEntry {
        let attributes = Attributes { flags, ..self.attributes(key) };
        self.store_if_changed(batch, key, Entry::new(value, attributes))
    }

    fn lock(
        &mut self,
        batch: &mut Batch,
        key: &Key,
        value: Bytes,
        flags: u64,
        session: SessionId,
    ) -> Result<Vec<KeyEntry>, Reason> {
        if !self.sessions.contains_key(&session) {
            return Err(Reason::InvalidSession(session));
        }
        let attributes = self.attributes(key);
        let lock_index = match attributes.session {
            Some(holder) if holder == session => attributes.lock_index,
            Some(holder) => return Err(Reason::Held(holder)),
            None if self.lock_delays.contains_key(key) => return Err(Reason::LockDelay),
            None => attributes.lock_index + 1,
        };
        let attributes = Attributes { flags, session: Some(session), lock_index, ..attributes };
        Ok(vec![self.store_if_changed(batch, key, Entry::new(value, attributes))])
    }

    /// Stores an entry unless it equals the stored one: as in Consul, a write of the same content is no change.
    fn store_if_changed(&mut self, batch: &mut Batch, key: &Key, entry: Entry) -> KeyEntry {
        match self.keys.get(key) {
            Some(stored) if stored.value == entry.value && stored.attributes() == entry.attributes() => {
                KeyEntry { key: key.clone(), entry: stored.clone() }
            }
            _ => self.store(batch, key, entry),
        }
    }

    /// Fails unless the key was last modified at this index; 0: unless there is no such key.
    fn expect_index(&self, key: &Key, index: u64) -> Result<(), Reason> {
        let found = self.keys.get(key).map_or(0, |entry| entry.modified.0);
        if found == index { Ok(()) } else { Err(Reason::Index(found)) }
    }

    fn expect_holder(&self, key: &Key, session: SessionId) -> Result<(), Reason> {
        let held = self.keys.get(key).is_some_and(|entry| entry.attributes().session == Some(session));
        if held { Ok(()) } else { Err(Reason::NotHeld) }
    }
}
