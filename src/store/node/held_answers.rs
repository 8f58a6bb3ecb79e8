//! Large answers of other nodes, which this node holds as a whole until its clients have taken them.
//!
//! Answers of this node's own member refer to its state and take no memory, and small ones are bounded by the number of requests.

use std::{mem, sync::Arc};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::store::{
    query::{Answer, Content, RangeAnswer},
    request::StoreError,
};

/// Octets from which an answer is large.
const LARGE: usize = 1 << 20;
/// Octets of keys and values of all large answers at a time. An answer that exceeds them is held alone.
const MAX_HELD: usize = 256 << 20;
/// Octets that one permit stands for.
const UNIT: usize = 64 << 10;

/// Room for large answers.
#[derive(Clone, Debug)]
pub(super) struct HeldAnswers(Arc<Semaphore>);

impl HeldAnswers {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(MAX_HELD / UNIT)))
    }

    /// Counts an answer until all its values are dropped. The values carry the count, so that no API has to.
    ///
    /// # Errors
    /// Fails if clients of this node have not taken other answers yet.
    pub(super) fn count(&self, mut answer: Answer) -> Result<Answer, StoreError> {
        let octets = answer.content.octets();
        if octets < LARGE {
            return Ok(answer);
        }
        let permits = (octets.min(MAX_HELD) / UNIT) as u32;
        let permit = self.0.clone().try_acquire_many_owned(permits).map_err(|_| StoreError::TooManyAnswers)?;
        let permit = Arc::new(permit);
        let count = |octets: &mut Bytes| {
            *octets = Bytes::from_owner(Counted { octets: mem::take(octets), _permit: permit.clone() });
        };
        match &mut answer.content {
            Content::Range(RangeAnswer { entries, .. }) | Content::Entries(entries) => {
                entries.iter_mut().for_each(|entry| count(&mut Arc::make_mut(&mut entry.entry).value));
            }
            Content::Keys(keys) => keys.iter_mut().for_each(count),
            _ => {}
        }
        Ok(answer)
    }
}

/// Octets of an answer that is counted.
struct Counted {
    octets: Bytes,
    _permit: Arc<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.octets
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{
        entry::{Attributes, Entry, KeyEntry},
        key::{Key, Revision},
        query::Contact,
    };

    /// Returns an answer with this number of values, which share their memory.
    fn answer(values: usize, octets: usize) -> Answer {
        let value = Bytes::from(vec![b'x'; octets]);
        let entry = |number: usize| KeyEntry {
            key: Key::new(format!("key/{number}")).unwrap(),
            entry: Arc::new(Entry::new(value.clone(), Attributes::default())),
        };
        Answer {
            index: 1,
            revision: Revision(1),
            content: Content::Entries((0..values).map(entry).collect()),
            contact: Contact::default(),
        }
    }

    /// Returns a value of an answer.
    fn value(answer: &Answer) -> Bytes {
        let Content::Entries(entries) = &answer.content else { panic!("{answer:?}") };
        entries[0].entry.value.clone()
    }

    #[test]
    fn large_answers_count_until_their_last_value_is_dropped() {
        let held = HeldAnswers::new();
        let most = || answer(MAX_HELD / LARGE - 1, LARGE);
        let first = held.count(most()).unwrap();
        assert_eq!(first, most(), "an answer is not changed");
        assert_eq!(held.count(answer(2, LARGE)), Err(StoreError::TooManyAnswers));
        held.count(answer(100, LARGE / 200)).unwrap();
        let of_client = value(&first);
        drop(first);
        assert_eq!(held.count(answer(2, LARGE)), Err(StoreError::TooManyAnswers));
        drop(of_client);
        held.count(answer(2, LARGE)).unwrap();
    }

    #[test]
    fn answer_above_the_limit_is_held_alone() {
        let held = HeldAnswers::new();
        let whole = held.count(answer(2 * MAX_HELD / LARGE, LARGE)).unwrap();
        assert_eq!(held.count(answer(1, LARGE)), Err(StoreError::TooManyAnswers));
        drop(whole);
        let keys = Content::Keys(vec![Bytes::from(vec![b'k'; LARGE]); 2]);
        let names =
            held.count(Answer { index: 1, revision: Revision(1), content: keys, contact: Contact::default() }).unwrap();
        assert_eq!(held.count(answer(2 * MAX_HELD / LARGE, LARGE)), Err(StoreError::TooManyAnswers));
        drop(names);
        held.count(answer(2 * MAX_HELD / LARGE, LARGE)).unwrap();
    }
}
