//! Reads a range page by page, at one revision.

use super::{
    key::{KeyRange, Revision},
    query::{Range, RangeAnswer},
};

/// Position of a reader of pages.
#[derive(Clone, Debug)]
pub struct Pages {
    /// What is left of the range; `None` behind the last page.
    rest: Option<KeyRange>,
    revision: Option<Revision>,
}

impl Pages {
    /// Returns the position before the first page of a range, at a revision; `None`: at the one that is current then.
    pub fn new(range: KeyRange, revision: Option<Revision>) -> Self {
        Self { rest: Some(range), revision }
    }

    /// Revision of all pages; `None` before the first one, if none was asked for.
    pub fn revision(&self) -> Option<Revision> {
        self.revision
    }

    /// Reports whether the last page was read.
    pub fn is_over(&self) -> bool {
        self.rest.is_none()
    }

    /// The query of the next page with at most so many entries; `None` behind the last one.
    pub fn next(&self, limit: u64) -> Option<Range> {
        let rest = self.rest.clone()?;
        Some(Range { revision: self.revision, limit, ..Range::all(rest) })
    }

    /// Goes on behind a page, which was read at a revision.
    pub fn advance(&mut self, revision: Revision, page: &RangeAnswer) {
        self.revision.get_or_insert(revision);
        let last = page.entries.last().filter(|_| page.more);
        self.rest = match (&self.rest, last) {
            // The first octets behind a key are the key and a zero.
            (Some(KeyRange::Span { end, .. }), Some(last)) => {
                Some(KeyRange::Span { start: [last.key.octets(), b"\0"].concat().into(), end: end.clone() })
            }
            _ => None,
        };
    }
}
