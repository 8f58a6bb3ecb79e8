//! Bounds on the work and the results of one transaction. They are the same on all voters: a transaction above them is refused as a
//! whole, before it has changed anything.

use crate::store::{command::Refusal, entry::KeyEntry};

/// Largest results in octets: they fit one message to a forwarding node, and the default limit of gRPC clients.
const MAX_OCTETS: usize = 4 << 20;
/// Largest number of keys that all ranges visit: some 0.3 s in which a voter does nothing else.
const MAX_KEYS: u64 = 100_000;
/// Octets of an entry besides key and value.
const ENTRY: usize = 64;

/// What the rest of a transaction may cost.
pub(super) struct Budget {
    octets: usize,
    keys: u64,
}

impl Budget {
    /// Returns the budget of a transaction.
    pub(super) fn new() -> Self {
        Self { octets: MAX_OCTETS, keys: MAX_KEYS }
    }

    /// Takes the cost of a request that visited this many keys and has these results.
    ///
    /// # Errors
    /// The budget is spent.
    pub(super) fn take(&mut self, keys: u64, results: &[KeyEntry]) -> Result<(), Refusal> {
        let of = |KeyEntry { key, entry }: &KeyEntry| key.octets().len() + entry.value.len() + ENTRY;
        let octets = results.iter().map(of).sum();
        match (self.keys.checked_sub(keys), self.octets.checked_sub(octets)) {
            (Some(keys), Some(octets)) => {
                *self = Self { octets, keys };
                Ok(())
            }
            _ => Err(Refusal::TooLarge),
        }
    }
}
