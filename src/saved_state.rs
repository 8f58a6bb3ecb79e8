//! State that an agent hands to its next start: in `data_dir/state` across a restart, in memory across an upgrade.
//!
//! The encoding is lines of text, in which newer versions may add kinds of lines and JSON fields:
//!
//! ```text
//! muster-state 1 SHA-256                   of all octets that follow
//! at {"unix": …, "uptime": …}              the moment, in nanoseconds
//! own SERVICE/ID {"state": "p", …}         results of an instance's checks
//! host NAME ["10.0.0.7", …]                addresses of a host name that instances are registered with
//! file {"path": …, "len": …}               last valid content of a file, followed by so many octets
//! peer {"name": …}                         a peer, followed by its records
//! i/SERVICE/ID {"addr": …}                 a record, as in gossip
//! ```

mod text;

use std::{sync::Arc, time::Duration};

use data_encoding::HEXLOWER;
use ring::digest;
use thiserror::Error;

use self::text::Reader;
use crate::{
    files::last_good::LastValidFile,
    gossip::known_peer::KnownPeer,
    model::{
        announcement::bounded,
        check_results::{CheckResults, Former, Moment},
        followed_host::KnownHosts,
    },
    parallel,
};

/// Size above which peers and files are left out, in octets: some 200,000 instances. The results of a node's own checks are
/// always part of the state; they take at most as much again.
pub const MAX_LEN: usize = 64 << 20;
/// Records for each thread that reads them: some milliseconds of work.
const RECORDS_PER_THREAD: usize = 5_000;
/// First word of the encoding.
const MAGIC: &str = "muster-state";
/// Version of the encoding. A version that others cannot read raises it.
const VERSION: &str = "1";

/// State of an agent at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SavedState {
    /// Time at which the state was collected.
    pub saved_at: Moment,
    /// Peers of the node.
    pub peers: Vec<KnownPeer>,
    /// Results of the node's checks.
    pub checks: CheckResults,
    /// Addresses of host names that instances of the node are registered with.
    pub hosts: KnownHosts,
    /// Last valid texts of files that are invalid now.
    pub files: Vec<LastValidFile>,
    /// Texts of files that are valid now, which another configuration may refuse. Handed over in memory only; decoded as
    /// `files`.
    pub valid_files: Vec<LastValidFile>,
}

/// Reason why an encoded state is not used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SavedStateError {
    /// The first line is not that of a state.
    #[error("not a saved state")]
    NotAState,
    /// The encoding of another version.
    #[error("saved state of format {0}; this version reads format {VERSION}")]
    Version(String),
    /// The content differs from the one that was written.
    #[error("the checksum does not match the content")]
    Checksum,
    /// A line is invalid; holds the line, cut.
    #[error("invalid line: {0}")]
    Line(String),
}

impl SavedState {
    /// Encodes the state. Files and peers that exceed [`MAX_LEN`] are left out.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        text::write_moment(&self.saved_at, &mut body);
        for (scope, results) in &self.checks {
            text::write_results(scope, results, &mut body);
        }
        for (name, addresses) in &self.hosts {
            text::write_host(name, addresses, &mut body);
        }
        let mut part = Vec::new();
        let mut add = |part: &mut Vec<u8>| {
            if body.len() + part.len() <= MAX_LEN {
                body.extend_from_slice(part);
            }
            part.clear();
        };
        for file in &self.files {
            text::write_file(file, &mut part);
            add(&mut part);
        }
        for peer in &self.peers {
            text::write_peer(peer, &mut part);
            add(&mut part);
        }
        for file in &self.valid_files {
            text::write_file(file, &mut part);
            add(&mut part);
        }
        let mut all = format!("{MAGIC} {VERSION} {}\n", checksum(&body)).into_bytes();
        all.append(&mut body);
        all
    }

    /// Decodes the output of [`encode`](Self::encode). Records that are out of the bounds of this version are left out.
    ///
    /// # Errors
    /// The reason why the state is unusable. Every truncation and every changed octet is an error.
    pub fn decode(octets: &[u8]) -> Result<Self, SavedStateError> {
        let (header, mut reader) = Reader::new(octets).ok_or(SavedStateError::NotAState)?;
        match header.split(' ').collect::<Vec<_>>()[..] {
            [MAGIC, VERSION, sum] if sum == checksum(reader.rest()) => {}
            [MAGIC, VERSION, ..] => return Err(SavedStateError::Checksum),
            [MAGIC, version, ..] => return Err(SavedStateError::Version(bounded(version))),
            _ => return Err(SavedStateError::NotAState),
        }
        let mut state = Self::default();
        let (mut own, mut peers) = (Vec::new(), Vec::new());
        let invalid = |line: &str| SavedStateError::Line(bounded(line));
        while !reader.rest().is_empty() {
            let item = reader.item().map_err(invalid)?;
            match item {
                text::Item::At(moment) => state.saved_at = moment,
                text::Item::Own(line) => own.push(line),
                text::Item::Host(name, addresses) => drop(state.hosts.insert(name, addresses)),
                text::Item::File(file) => state.files.push(file),
                text::Item::Peer(lines) => peers.push(lines),
                text::Item::Unknown => {}
            }
        }
        for read in parallel::map(&own, own.len() / RECORDS_PER_THREAD, text::OwnLine::read) {
            let (scope, results) = read.map_err(invalid)?;
            state.checks.insert(scope, Arc::new(results));
        }
        let records: usize = peers.iter().map(text::PeerLines::len).sum();
        let read = parallel::map(&peers, records / RECORDS_PER_THREAD, text::PeerLines::read);
        state.peers = read.into_iter().collect::<Result<_, _>>().map_err(invalid)?;
        Ok(state)
    }

    /// Returns the state without the texts of valid files.
    #[must_use]
    pub fn without_valid_files(self) -> Self {
        Self { valid_files: Vec::new(), ..self }
    }

    /// Returns the results that a start at `now` continues from. The state was the current one until the Unix time
    /// `valid_until`.
    pub fn former(&self, valid_until: Duration, now: &Moment) -> Former {
        Former::stored(self.checks.clone(), &self.saved_at, valid_until, now)
    }
}

fn checksum(body: &[u8]) -> String {
    HEXLOWER.encode(digest::digest(&digest::SHA256, body).as_ref())
}

#[cfg(test)]
mod tests;
