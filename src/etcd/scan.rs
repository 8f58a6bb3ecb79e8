//! Reads all keys page by page, at one revision.

use tonic::Status;

use super::backend::Backend;
use crate::store::{
    entry::KeyEntry,
    key::{KeyRange, Revision},
    pages::Pages,
    query::Consistency,
};

/// Entries of a page: with the largest values, a page has some 100 MB.
const PAGE: u64 = 64;

/// A reader of all keys at one revision.
pub(super) struct Scan {
    backend: Backend,
    pages: Pages,
}

impl Scan {
    /// Returns a reader at a revision; `None`: the one that is current at the first page.
    pub(super) fn new(backend: Backend, revision: Option<Revision>) -> Self {
        Self { backend, pages: Pages::new(KeyRange::ALL, revision) }
    }

    /// Revision that is read; `None` before the first page.
    pub(super) fn revision(&self) -> Option<Revision> {
        self.pages.revision()
    }

    /// Returns the next page; `None` behind the last one.
    pub(super) async fn page(&mut self) -> Result<Option<Vec<KeyEntry>>, Status> {
        let Some(page) = self.pages.next(PAGE) else { return Ok(None) };
        let (revision, answer) = self.backend.range(page, Consistency::Linearizable).await?;
        self.pages.advance(revision, &answer);
        Ok(Some(answer.entries))
    }
}
