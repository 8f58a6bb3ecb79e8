//! `GET /v1/muster/store/export/{prefix}`: all keys that begin with a prefix, in the format of `consul kv export`.
//!
//! The keys are read page by page, all at one revision, so that neither an agent nor a connection between nodes holds all of
//! them. A failure in between ends the connection before the closing bracket, and the client sees an incomplete response.

use std::io;

use axum::{
    body::{Body, Bytes},
    extract::{Extension, State},
    http::{HeaderName, HeaderValue, Uri, header},
    response::{IntoResponse, Response},
};
use data_encoding::BASE64;
use futures_util::stream;
use percent_encoding::percent_decode_str;

use crate::{
    api::kv::{Exported, KEY_COUNT},
    http::{
        Api,
        consul::store::{store, store_error, unexpected},
        granted::Granted,
        query::{Query, bad},
        response::ApiError,
    },
    model::token::KeyAccess,
    store::{
        entry::KeyEntry,
        key::KeyRange,
        pages::Pages,
        query::{self, Consistency, Content, Range},
        request::{Store, StoreError},
    },
};

/// Path of the endpoint.
const PATH: &str = "/v1/muster/store/export/";
/// Entries in a page of values of any size: both nodes hold a whole page in memory.
const SMALL_PAGE: u64 = 5;
/// Largest number of entries in a page. A smaller one takes more reads, each of which counts the entries of the range.
const LARGE_PAGE: u64 = 1024;
/// Octets of a page below which the next page has twice as many entries.
const PAGE_OCTETS: usize = 256 << 10;

/// Position of an export.
struct Export {
    store: Store,
    pages: Pages,
    /// Entries of the next page.
    limit: u64,
    /// Text before the next page.
    before: &'static str,
    /// Entries of the whole range, as the first page counts them.
    count: Option<u64>,
}

pub(crate) async fn export(
    State(api): State<Api>,
    Extension(granted): Extension<Granted>,
    uri: Uri,
    query: Query,
) -> Result<Response, ApiError> {
    query.check()?;
    let encoded = uri.path().strip_prefix(PATH).unwrap_or_default();
    let prefix = percent_decode_str(encoded).decode_utf8().map_err(|_| bad("Invalid prefix: expected UTF-8."))?;
    let range = KeyRange::prefix(prefix.as_bytes().to_vec());
    granted.require_keys(KeyAccess::Read, &range)?;
    let store = store(&api)?.clone();
    let mut export = Export { store, pages: Pages::new(range, None), limit: SMALL_PAGE, before: "[", count: None };
    // Errors of the first page have a status.
    let first = export.page().await.map_err(|error| store_error(&error))?.ok_or_else(unexpected)?;
    let count = [(HeaderName::from_static(KEY_COUNT), HeaderValue::from(export.count.unwrap_or_default()))];
    let rest = stream::try_unfold(export, |mut export| async move {
        let page = export.page().await.map_err(io::Error::other)?;
        Ok::<_, io::Error>(page.map(|page| (page, export)))
    });
    let whole = futures_util::StreamExt::chain(stream::iter([Ok(first)]), rest);
    let content_type = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    Ok((content_type, count, Body::from_stream(whole)).into_response())
}

impl Export {
    /// Returns the next part of the response; `None` at the end.
    async fn page(&mut self) -> Result<Option<Bytes>, StoreError> {
        let Some(page) = self.pages.next(self.limit) else { return Ok(None) };
        let entries = self.read(page).await?;
        let octets: usize = entries.iter().map(|entry| entry.key.octets().len() + entry.entry.value.len()).sum();
        self.limit = match octets {
            ..PAGE_OCTETS => (self.limit * 2).min(LARGE_PAGE),
            _ => (self.limit / 2).max(SMALL_PAGE),
        };
        let mut text = String::new();
        for entry in entries.iter().filter_map(exported) {
            text.push_str(self.before);
            text.push_str(&serde_json::to_string(&entry).map_err(|_| StoreError::Stopping)?);
            self.before = ",\n";
        }
        if self.pages.is_over() {
            text.push_str(if self.before == "[" { "[]\n" } else { "]\n" });
        }
        Ok(Some(text.into()))
    }

    /// Reads a page.
    async fn read(&mut self, page: Range) -> Result<Vec<KeyEntry>, StoreError> {
        let answer = self.store.read(query::Query::Range(page), Consistency::Linearizable, None).await?;
        let Content::Range(page) = answer.content else { return Err(StoreError::Unreachable) };
        self.pages.advance(answer.revision, &page);
        self.count.get_or_insert(page.count);
        Ok(page.entries)
    }
}

/// Returns an entry as Consul exports it; `None` if the key is not UTF-8, which Consul's format cannot hold.
fn exported(KeyEntry { key, entry }: &KeyEntry) -> Option<Exported> {
    Some(Exported {
        key: key.as_str()?.to_owned(),
        flags: entry.attributes().flags,
        value: BASE64.encode(&entry.value),
    })
}
