//! Applies etcd's transactions.
//!
//! As in etcd, all conditions, those of nested transactions included, are decided on the state before the transaction, and
//! the requests of the branches taken are checked before the first is carried out.

use std::cmp::Ordering;

use super::{State, batch::Batch, budget::Budget};
use crate::store::{
    command::{
        Comparison, Condition, Put, PutLease, Refusal, Target, Transaction, TransactionOutcome, TransactionRequest,
        TransactionResponse,
    },
    entry::{Entry, KeyEntry},
    key::KeyRange,
};

impl State {
    /// Carries out a transaction on this state, a clone of the state `before`.
    pub(super) fn transact(
        &mut self,
        before: &Self,
        batch: &mut Batch,
        transaction: Transaction,
    ) -> Result<TransactionOutcome, Refusal> {
        transaction.check_writes()?;
        before.check_transaction(&transaction)?;
        self.take_branch(before, batch, &mut Budget::new(), transaction)
    }

    fn take_branch(
        &mut self,
        before: &Self,
        batch: &mut Batch,
        budget: &mut Budget,
        transaction: Transaction,
    ) -> Result<TransactionOutcome, Refusal> {
        let succeeded = before.holds_all(&transaction.conditions);
        let requests = if succeeded { transaction.success } else { transaction.failure };
        let mut responses = Vec::with_capacity(requests.len());
        for request in requests {
            responses.push(match request {
                TransactionRequest::Range(range) => {
                    // A past revision is read from the state before: the changes of this one are not in the history yet.
                    let state = if range.revision.is_some() { before } else { &*self };
                    let answer = state.range(&range)?;
                    budget.take(if range.count_only { 0 } else { answer.count }, &answer.entries)?;
                    TransactionResponse::Range(answer)
                }
                TransactionRequest::Put(put) => {
                    let previous = self.put(batch, put);
                    budget.take(1, previous.as_slice())?;
                    TransactionResponse::Put(previous)
                }
                TransactionRequest::Delete { range, with_previous } => {
                    let (deleted, previous) = self.delete(batch, &range, with_previous);
                    // Keys without results are visited once in all transactions.
                    budget.take(0, &previous)?;
                    TransactionResponse::Delete { deleted, previous }
                }
                TransactionRequest::Transact(nested) => {
                    TransactionResponse::Transact(self.take_branch(before, batch, budget, *nested)?)
                }
            });
        }
        Ok(TransactionOutcome { succeeded, responses })
    }

    fn put(&mut self, batch: &mut Batch, put: Put) -> Option<KeyEntry> {
        let Put { key, value, lease, with_previous } = put;
        let previous = self.keys.get(&key).cloned();
        let mut attributes = self.attributes(&key);
        match lease {
            PutLease::Detach => attributes.lease = None,
            PutLease::Attach(id) => attributes.lease = Some(id),
            PutLease::Keep => {}
        }
        let value = value.or_else(|| previous.as_ref().map(|previous| previous.value.clone())).unwrap_or_default();
        self.store(batch, &key, Entry::new(value, attributes));
        previous.filter(|_| with_previous).map(|entry| KeyEntry { key, entry })
    }

    /// Deletes the keys of a range. Returns their number and, on request, their entries.
    fn delete(&mut self, batch: &mut Batch, range: &KeyRange, with_previous: bool) -> (u64, Vec<KeyEntry>) {
        let mut previous = self.entries_of(range);
        for KeyEntry { key, .. } in &previous {
            self.replace(batch, key, None);
        }
        let deleted = previous.len() as u64;
        if !with_previous {
            previous.clear();
        }
        (deleted, previous)
    }

    /// Checks the requests of the branches that will be taken.
    fn check_transaction(&self, transaction: &Transaction) -> Result<(), Refusal> {
        let succeeds = self.holds_all(&transaction.conditions);
        let requests = if succeeds { &transaction.success } else { &transaction.failure };
        for request in requests {
            match request {
                TransactionRequest::Range(range) => range.revision.map_or(Ok(()), |at| self.check_revision(at))?,
                TransactionRequest::Put(put) => self.check_put(put)?,
                TransactionRequest::Delete { .. } => {}
                TransactionRequest::Transact(nested) => self.check_transaction(nested)?,
            }
        }
        Ok(())
    }

    fn check_put(&self, put: &Put) -> Result<(), Refusal> {
        if let PutLease::Attach(id) = put.lease
            && !self.leases.contains_key(&id)
        {
            return Err(Refusal::NoLease(id));
        }
        let keeps = put.value.is_none() || put.lease == PutLease::Keep;
        if keeps && !self.keys.contains_key(&put.key) {
            return Err(Refusal::NoKey(put.key.clone()));
        }
        Ok(())
    }

    fn holds_all(&self, conditions: &[Condition]) -> bool {
        conditions.iter().all(|condition| self.holds(condition))
    }

    fn holds(&self, condition: &Condition) -> bool {
        let mut entries = self.entries_in(&condition.range).peekable();
        if entries.peek().is_none() {
            return condition.holds_for(None);
        }
        entries.all(|(_, entry)| condition.holds_for(Some(entry)))
    }
}

impl Condition {
    /// Reports whether the condition holds for an entry, or for an absent key.
    fn holds_for(&self, entry: Option<&Entry>) -> bool {
        let number = |field: fn(&Entry) -> u64| entry.map_or(0, field);
        let order = match (&self.target, entry) {
            (Target::Value(_), None) => return false,
            (Target::Value(value), Some(entry)) => entry.value.cmp(value),
            (Target::Version(version), _) => compare(number(|entry| entry.version), *version),
            (Target::Created(revision), _) => compare(number(|entry| entry.created.0), *revision),
            (Target::Modified(revision), _) => compare(number(|entry| entry.modified.0), *revision),
            (Target::Lease(lease), _) => {
                entry.and_then(|entry| entry.attributes().lease).map_or(0, |id| id.0).cmp(lease)
            }
        };
        match self.comparison {
            Comparison::Equal => order == Ordering::Equal,
            Comparison::NotEqual => order != Ordering::Equal,
            Comparison::Greater => order == Ordering::Greater,
            Comparison::Less => order == Ordering::Less,
        }
    }
}

/// Compares a counter with a number of a client, which may be negative.
fn compare(counter: u64, number: i64) -> Ordering {
    u64::try_from(number).map_or(Ordering::Greater, |number| counter.cmp(&number))
}
