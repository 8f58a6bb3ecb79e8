//! The Raft log on disk: votes, entries, truncations and purges in one stream of checksummed records.
//!
//! Invariant: a vote, a truncation and a purge are on disk before their method returns, and an entry before its callback is
//! called. A vote that is lost can elect two leaders, and an entry that is lost can undo an acknowledged write.

use std::{
    fmt::Debug,
    fs::{self, File},
    io,
    ops::{Bound, RangeBounds},
    os::unix::fs::{FileExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use openraft::{
    Entry, EntryPayload, ErrorSubject, ErrorVerb, LogId, LogState, RaftLogReader, StorageError, StorageIOError, Vote,
    storage::{LogFlushed, RaftLogStorage},
};
use raft_log::{
    Callback, Config, RaftLog,
    api::raft_log_writer::RaftLogWriter,
    codeq::{Decode, Encode},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::{Notify, oneshot};

use super::{MemberId, Types, batch};
use crate::metrics;

/// Largest size of a file of the log in octets: purged entries are removed with whole files, and the library keeps the entries of
/// the last file in memory, whatever the limits of its cache.
const MAX_FILE: usize = CACHED_OCTETS;
/// Buffer for reading a file of the log at the start, in octets.
const READ_BUFFER: usize = 1 << 20;
/// Files at the end of the log that may have octets that are not on disk. The library syncs a file before it writes to the next
/// one; at the start it may cut the last one and create another.
const UNSYNCED_FILES: usize = 2;
/// Entries that are kept in memory until they are applied and sent to followers. Those that a slow follower lacks are read from
/// disk, where the system has recent ones in its cache.
const CACHED_ENTRIES: usize = 4096;
/// Octets of these entries: the batches that are on their way at once.
const CACHED_OCTETS: usize = batch::IN_FLIGHT * batch::MAX_OCTETS;
/// Longest encoded entry in octets: a batch of commands, each within the limit of a request.
const MAX_ENTRY: usize = 64 << 20;
/// Largest number of octets that are sent to a follower at once. One entry may be longer.
const MAX_SENT: usize = 1 << 20;

/// A part of the log in its encoding: postcard behind the length and its complement.
///
/// A record that ends behind the end of the file was not written completely and is removed. The complement tells a damaged
/// length from it: the acknowledged records behind it must not be removed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Encoded<T>(T);

impl<T: Serialize> Encode for Encoded<T> {
    fn encode<W: io::Write>(&self, mut writer: W) -> io::Result<usize> {
        let octets = postcard::to_stdvec(&self.0).map_err(io::Error::other)?;
        let len = u32::try_from(octets.len()).map_err(io::Error::other)?;
        writer.write_all(&len.to_be_bytes())?;
        writer.write_all(&(!len).to_be_bytes())?;
        writer.write_all(&octets)?;
        Ok(2 * size_of_val(&len) + octets.len())
    }
}

impl<T: DeserializeOwned> Decode for Encoded<T> {
    fn decode<R: io::Read>(mut reader: R) -> io::Result<Self> {
        let invalid = |reason| io::Error::new(io::ErrorKind::InvalidData, reason);
        let (mut len, mut complement) = ([0; 4], [0; 4]);
        reader.read_exact(&mut len)?;
        reader.read_exact(&mut complement)?;
        let len = u32::from_be_bytes(len);
        if len != !u32::from_be_bytes(complement) {
            return Err(invalid("the length of a record is damaged".to_owned()));
        }
        if len as usize > MAX_ENTRY {
            return Err(invalid(format!("an entry of {len} octets is too long")));
        }
        let mut octets = vec![0; len as usize];
        reader.read_exact(&mut octets)?;
        let value = postcard::from_bytes(&octets);
        value.map(Self).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

/// Parameters of the log library.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct LogTypes;

impl raft_log::Types for LogTypes {
    type LogId = Encoded<LogId<MemberId>>;
    type LogPayload = Encoded<EntryPayload<Types>>;
    type Vote = Encoded<Vote<MemberId>>;
    type Callback = Flushed;
    type UserData = Encoded<()>;

    fn log_index(id: &Self::LogId) -> u64 {
        id.0.index
    }

    fn payload_size(payload: &Self::LogPayload) -> u64 {
        size(&payload.0)
    }
}

/// Octets of an entry in memory, roughly.
fn size(payload: &EntryPayload<Types>) -> u64 {
    match payload {
        EntryPayload::Blank | EntryPayload::Membership(_) => 64,
        EntryPayload::Normal(batch) => batch.octets() as u64,
    }
}

/// What became of the writes in this run.
#[derive(Debug, Default)]
struct Outcomes {
    /// True once entries were written.
    has_written: AtomicBool,
    /// The first error. The library fails all later writes with an error that says only that a channel is closed.
    failure: OnceLock<String>,
}

impl Outcomes {
    fn note(&self, result: &io::Result<()>) {
        if let Err(error) = result {
            self.failure.get_or_init(|| error.to_string());
        }
    }
}

/// Takes the outcome of a write to disk.
enum Flushed {
    /// For openraft.
    Append(LogFlushed<Types>, Written),
    /// For a method of the log that waits.
    Wait(oneshot::Sender<io::Result<()>>, Arc<Outcomes>),
    /// For a write without fsync.
    Unawaited(Arc<Outcomes>),
}

impl Callback for Flushed {
    fn send(self, result: io::Result<()>) {
        match self {
            Self::Append(callback, written) => {
                written.metrics.written(written.began.elapsed());
                written.outcomes.note(&result);
                written.outcomes.has_written.fetch_or(result.is_ok(), Ordering::Relaxed);
                callback.log_io_completed(result);
            }
            // The method that waited may have been dropped with Raft itself.
            Self::Wait(done, outcomes) => {
                outcomes.note(&result);
                drop(done.send(result));
            }
            Self::Unawaited(outcomes) => outcomes.note(&result),
        }
    }
}

/// A write to disk that is measured.
struct Written {
    began: Instant,
    metrics: metrics::Store,
    outcomes: Arc<Outcomes>,
}

/// The log on disk.
#[derive(Clone)]
pub(super) struct Log {
    log: Arc<Mutex<RaftLog<LogTypes>>>,
    metrics: metrics::Store,
    /// Notified when the log has grown by a file.
    grown: Arc<Notify>,
    outcomes: Arc<Outcomes>,
    /// True if the library holds a record that no write took along.
    has_unwritten: Arc<AtomicBool>,
}

type IoError = StorageError<MemberId>;

/// Lets only the owner into a folder of the store: its files have the values of all keys, and the library of the log gives them the
/// default permissions. Corrects folders of earlier versions.
pub(in crate::store) fn restrict(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
}

impl Log {
    /// Opens the log in a folder, which it locks. An entry at the end that was not written completely, and so never
    /// acknowledged, is removed.
    pub(super) fn open(folder: &Path, metrics: metrics::Store) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        restrict(folder)?;
        // A folder that is not in its parent after a loss of power takes the log with it.
        for parent in folder.ancestors().skip(1).take(2).filter(|parent| parent.is_dir()) {
            File::open(parent)?.sync_all()?;
        }
        let mut config = Config::new(folder.display());
        config.wal.chunk_max_size = Some(MAX_FILE);
        config.wal.read_buffer_size = Some(READ_BUFFER);
        config.wal.truncate_incomplete_record = Some(true);
        // Commands are collected before they become an entry.
        config.wal.flush_batch_wait = Some(Duration::ZERO);
        config.log_cache_max_items = Some(CACHED_ENTRIES);
        config.log_cache_capacity = Some(CACHED_OCTETS);
        let log = RaftLog::open(Arc::new(config))?;
        // Behind the library, which has locked the folder.
        write_again(folder)?;
        let log = Arc::new(Mutex::new(log));
        Ok(Self { log, metrics, grown: Arc::default(), outcomes: Arc::default(), has_unwritten: Arc::default() })
    }

    /// Reports whether the log has neither a vote nor an entry.
    pub(super) fn is_empty(&self) -> bool {
        let log = self.lock();
        let state = log.log_state();
        state.vote().is_none() && state.last().is_none()
    }

    /// Index of the last entry that was removed after a snapshot; 0: none.
    pub(super) fn purged(&self) -> u64 {
        self.lock().log_state().purged().map_or(0, |purged| purged.0.index)
    }

    /// The first error of a write in this run; `None`: all succeeded so far.
    pub(super) fn failure(&self) -> Option<&str> {
        self.outcomes.failure.get().map(String::as_str)
    }

    /// Reports whether entries were written in this run.
    pub(super) fn has_written(&self) -> bool {
        self.outcomes.has_written.load(Ordering::Relaxed)
    }

    /// Octets of the log's files.
    pub(super) fn octets(&self) -> u64 {
        self.lock().on_disk_size()
    }

    /// Octets that were ever written to the log, those of removed files included.
    pub(super) fn written(&self) -> u64 {
        self.lock().stat().open_chunk.global_end
    }

    /// Waits until the log has grown by a file.
    pub(super) async fn grows(&self) {
        self.grown.notified().await;
    }

    /// Index of the last entry of the newest file that has at least this many octets behind it; 0: there is none.
    pub(super) fn last_before(&self, octets: u64) -> u64 {
        let stat = self.lock().stat();
        let end = stat.open_chunk.global_end;
        let file = stat.closed_chunks.iter().rev().find(|file| end - file.global_end >= octets);
        file.and_then(|file| file.log_state.last()).map_or(0, |last| last.0.index)
    }

    /// Writes which entries are committed, if no later entry took that along, without fsync. A member that starts without a leader
    /// then knows the newest state.
    pub(super) fn write_committed(&self) {
        if self.has_unwritten.swap(false, Ordering::Relaxed) {
            let written = self.lock().flush(false, Some(Flushed::Unawaited(self.outcomes.clone())));
            self.outcomes.note(&written);
        }
    }

    /// Writes, and waits until the write is on disk.
    async fn write(
        &self,
        verb: ErrorVerb,
        write: impl FnOnce(&mut RaftLog<LogTypes>) -> io::Result<()>,
    ) -> Result<(), IoError> {
        let (done, flushed) = oneshot::channel();
        let written = {
            let mut log = self.lock();
            write(&mut log).and_then(|()| log.flush(true, Some(Flushed::Wait(done, self.outcomes.clone()))))
        };
        let flushed = match written {
            Ok(()) => flushed.await.unwrap_or_else(|_| Err(io::Error::other("the log was closed"))),
            Err(error) => Err(error),
        };
        flushed.map_err(|error| failed(verb, &error))
    }

    /// Reads entries up to a number of octets, at least one.
    // The error is that of openraft's traits.
    #[allow(clippy::result_large_err)]
    fn read(&self, range: impl RangeBounds<u64>, octets: usize) -> Result<Vec<Entry<Types>>, IoError> {
        let from = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(index) => index.saturating_add(1),
            Bound::Excluded(index) => *index,
            Bound::Unbounded => u64::MAX,
        };
        let (log, mut entries, mut read) = (self.lock(), Vec::new(), 0);
        for entry in log.read(from, to) {
            let (Encoded(log_id), Encoded(payload)) = entry.map_err(|error| failed(ErrorVerb::Read, &error))?;
            read += size(&payload) as usize;
            if read > octets && !entries.is_empty() {
                break;
            }
            entries.push(Entry { log_id, payload });
        }
        Ok(entries)
    }

    fn lock(&self) -> MutexGuard<'_, RaftLog<LogTypes>> {
        // A panic of the library while it held the lock ends Raft by the error of the next write.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes the end of the log once more, as it was read at the start, and syncs it.
///
/// An entry that can be read may not be on disk: the former run was killed before its fsync, or the fsync failed. Linux keeps pages
/// that could not be written and takes them for written, so that the next fsync succeeds without them.
fn write_again(folder: &Path) -> io::Result<()> {
    let files = fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path()));
    let mut files = files.collect::<io::Result<Vec<PathBuf>>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "wal"));
    // Names of files order as the files do.
    files.sort();
    let mut piece = vec![0; READ_BUFFER];
    for path in files.iter().rev().take(UNSYNCED_FILES).rev() {
        let file = File::options().read(true).write(true).open(path)?;
        let mut at = 0;
        loop {
            let len = file.read_at(&mut piece, at)?;
            if len == 0 {
                break;
            }
            file.write_all_at(&piece[..len], at)?;
            at += len as u64;
        }
        file.sync_all()?;
    }
    File::open(folder)?.sync_all()
}

fn failed(verb: ErrorVerb, error: &io::Error) -> IoError {
    StorageIOError::new(ErrorSubject::Logs, verb, error).into()
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry<Types>>, IoError> {
        self.read(range, usize::MAX)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry<Types>>, IoError> {
        self.read(start..end, MAX_SENT)
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, IoError> {
        let log = self.lock();
        let state = log.log_state();
        let purged = state.purged().map(|id| id.0);
        Ok(LogState { last_purged_log_id: purged, last_log_id: state.last().map(|id| id.0).or(purged) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<MemberId>) -> Result<(), IoError> {
        let vote = Encoded(*vote);
        self.write(ErrorVerb::Write, |log| log.save_vote(vote).map(drop)).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<MemberId>>, IoError> {
        // openraft would resume a leadership without an election, and without an entry of its own: it would not know which of its
        // entries were acknowledged, and reads would miss them. Without the mark of the majority, the vote needs an election.
        Ok(self.lock().log_state().vote().map(|vote| Vote { committed: false, ..vote.0 }))
    }

    async fn save_committed(&mut self, committed: Option<LogId<MemberId>>) -> Result<(), IoError> {
        let Some(committed) = committed else { return Ok(()) };
        // Written with the next entries, or by `write_committed`: they would have to wait for a write of its own. A lost record costs
        // a start some entries, which are committed again.
        self.lock().commit(Encoded(committed)).map_err(|error| failed(ErrorVerb::Write, &error))?;
        self.has_unwritten.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId<MemberId>>, IoError> {
        Ok(self.lock().log_state().committed().map(|id| id.0))
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Result<(), IoError>
    where
        I: IntoIterator<Item = Entry<Types>> + Send,
        I::IntoIter: Send,
    {
        let entries = entries.into_iter().map(|entry| (Encoded(entry.log_id), Encoded(entry.payload)));
        let mut log = self.lock();
        let files = log.on_disk_size() / MAX_FILE as u64;
        let written = Written { began: Instant::now(), metrics: self.metrics.clone(), outcomes: self.outcomes.clone() };
        self.has_unwritten.store(false, Ordering::Relaxed);
        let written = log.append(entries).and_then(|_| log.flush(true, Some(Flushed::Append(callback, written))));
        if log.on_disk_size() / MAX_FILE as u64 > files {
            self.grown.notify_one();
        }
        written.map_err(|error| failed(ErrorVerb::Write, &error))
    }

    async fn truncate(&mut self, from: LogId<MemberId>) -> Result<(), IoError> {
        self.write(ErrorVerb::Delete, |log| log.truncate(from.index).map(drop)).await
    }

    async fn purge(&mut self, up_to: LogId<MemberId>) -> Result<(), IoError> {
        self.write(ErrorVerb::Delete, |log| log.purge(Encoded(up_to)).map(drop)).await
    }
}

#[cfg(test)]
mod tests;
