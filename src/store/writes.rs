//! The check that a transaction writes no key twice, which voters make, and etcd's API before it sends a transaction.

use std::collections::BTreeSet;

use super::{
    command::{Refusal, Transaction, TransactionRequest},
    key::{Key, KeyRange},
};

impl Transaction {
    /// Checks the writes of both branches.
    ///
    /// # Errors
    /// Fails if one outcome of a branch puts a key twice, or puts a key and deletes it.
    pub fn check_writes(&self) -> Result<(), Refusal> {
        Writes::of(&self.success)?;
        Writes::of(&self.failure).map(drop)
    }
}

/// Keys and ranges that a branch of a transaction writes.
#[derive(Debug, Default)]
struct Writes<'a> {
    puts: BTreeSet<&'a Key>,
    deletions: Vec<&'a KeyRange>,
}

impl<'a> Writes<'a> {
    /// Collects the writes of a branch.
    ///
    /// # Errors
    /// Fails if one outcome of the branch puts a key twice, or puts a key and deletes it.
    fn of(requests: &'a [TransactionRequest]) -> Result<Self, Refusal> {
        let mut writes = Self::default();
        for request in requests {
            if let TransactionRequest::Delete { range, .. } = request {
                writes.deletions.push(range);
            }
        }
        for request in requests {
            if let TransactionRequest::Transact(nested) = request {
                let success = Self::of(&nested.success)?;
                let failure = Self::of(&nested.failure)?;
                // A nested transaction takes one of its branches: both may put the same key.
                let puts: BTreeSet<_> = success.puts.union(&failure.puts).copied().collect();
                for key in puts {
                    writes.add_put(key)?;
                }
                writes.deletions.extend(success.deletions);
                writes.deletions.extend(failure.deletions);
            }
        }
        for request in requests {
            if let TransactionRequest::Put(put) = request {
                writes.add_put(&put.key)?;
            }
        }
        Ok(writes)
    }

    fn add_put(&mut self, key: &'a Key) -> Result<(), Refusal> {
        let deleted = self.deletions.iter().any(|range| range.contains(key));
        if deleted || !self.puts.insert(key) { Err(Refusal::DuplicateKey(key.clone())) } else { Ok(()) }
    }
}
