//! Reads all keys page by page, at one revision.

use bytes::Bytes;
use tonic::Status;

use super::backend::Backend;
use crate::store::{
    entry::KeyEntry,
    key::{KeyRange, Revision},
    query::{Consistency, Range},
};

/// Entries of a page: with the largest values, a page has some 100 MB.
const PAGE: u64 = 64;

/// A reader of all keys at one revision.
pub(super) struct Scan {
    backend: Backend,
    revision: Option<Revision>,
    /// Beginning of the next page; `None` behind the last one.
    next: Option<Bytes>,
}

impl Scan {
    /// Returns a reader at a revision; `None`: the one that is current at the first page.
    pub(super) fn new(backend: Backend, revision: Option<Revision>) -> Self {
        Self { backend, revision, next: Some(Bytes::new()) }
    }

    /// Revision that is read; `None` before the first page.
    pub(super) fn revision(&self) -> Option<Revision> {
        self.revision
    }

    /// Returns the next page; `None` behind the last one.
    pub(super) async fn page(&mut self) -> Result<Option<Vec<KeyEntry>>, Status> {
        let Some(start) = self.next.take() else { return Ok(None) };
        let range = Range { revision: self.revision, limit: PAGE, ..Range::all(KeyRange::Span { start, end: None }) };
        let (revision, answer) = self.backend.range(range, Consistency::Linearizable).await?;
        self.revision.get_or_insert(revision);
        if let Some(last) = answer.entries.last().filter(|_| answer.more) {
            // The first octets behind a key are the key and a zero.
            self.next = Some([last.key.octets(), &[0][..]].concat().into());
        }
        Ok(Some(answer.entries))
    }
}
