//! The state machine of Raft: applies committed entries to the state in memory, and keeps snapshots of it on disk.

use std::{io, mem};

use openraft::{
    Entry, EntryPayload, ErrorSubject, ErrorVerb, LogId, RaftSnapshotBuilder, Snapshot, StorageError, StorageIOError,
    StoredMembership, storage::RaftStateMachine,
};
use tokio::{fs::File, sync::watch, task::spawn_blocking};

use super::{
    Member, MemberId, Types,
    snapshot_file::{Meta, SnapshotFileError, Snapshots},
};
use crate::store::{command::Outcome, expiry::TermStart, state::State};

type IoError = StorageError<MemberId>;
type Membership = StoredMembership<MemberId, Member>;

/// The applied state, as readers see it.
#[derive(Clone, Debug)]
pub(in crate::store) struct Applied {
    /// The state.
    pub(in crate::store) state: State,
    /// Index of the last entry that was applied; 0: none.
    pub(in crate::store) index: u64,
    /// The beginning of the term of that entry.
    pub(in crate::store) term: TermStart,
}

/// The state machine.
pub(super) struct Machine {
    state: State,
    last: Option<LogId<MemberId>>,
    term: TermStart,
    membership: Membership,
    snapshots: Snapshots,
    max_octets: u64,
    applied: watch::Sender<Applied>,
}

impl Machine {
    /// Reads the last snapshot; the log has the rest.
    pub(super) fn open(snapshots: Snapshots, max_octets: u64) -> Result<Self, SnapshotFileError> {
        let (last, membership, state) = match snapshots.read(max_octets)? {
            Some((meta, state)) => (meta.last_log_id, meta.last_membership, state),
            None => (None, Membership::default(), State::new(max_octets)),
        };
        let applied = watch::Sender::new(applied(&state, last, TermStart::default()));
        Ok(Self { state, last, term: TermStart::default(), membership, snapshots, max_octets, applied })
    }

    /// Follows the applied state.
    pub(super) fn applied(&self) -> watch::Receiver<Applied> {
        self.applied.subscribe()
    }

    fn publish(&self) {
        self.applied.send_replace(applied(&self.state, self.last, self.term));
    }
}

fn applied(state: &State, last: Option<LogId<MemberId>>, term: TermStart) -> Applied {
    Applied { state: state.clone(), index: last.map_or(0, |last| last.index), term }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId<MemberId>>, Membership), IoError> {
        Ok((self.last, self.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Vec<Outcome>>, IoError>
    where
        I: IntoIterator<Item = Entry<Types>> + Send,
        I::IntoIter: Send,
    {
        let mut outcomes = Vec::new();
        for Entry { log_id, payload } in entries {
            outcomes.push(match payload {
                // A leader begins its term with it.
                EntryPayload::Blank => {
                    self.term = TermStart { index: log_id.index, grants: self.state.grants() };
                    Vec::new()
                }
                EntryPayload::Normal(batch) => {
                    let commands = batch.commands().map_err(|error| undecodable(log_id, &error))?;
                    commands.into_iter().map(|command| self.state.apply(command)).collect()
                }
                EntryPayload::Membership(membership) => {
                    self.membership = Membership::new(Some(log_id), membership);
                    Vec::new()
                }
            });
            self.last = Some(log_id);
        }
        self.publish();
        Ok(outcomes)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            state: self.state.clone(),
            last: self.last,
            membership: self.membership.clone(),
            snapshots: self.snapshots.clone(),
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<File>, IoError> {
        let file = self.snapshots.receive().map_err(|error| failed(ErrorVerb::Write, &error))?;
        Ok(Box::new(File::from_std(file)))
    }

    async fn install_snapshot(&mut self, meta: &Meta, mut received: Box<File>) -> Result<(), IoError> {
        use tokio::io::AsyncWriteExt;
        let io = |error: io::Error| failed(ErrorVerb::Write, &error);
        received.flush().await.map_err(io)?;
        drop(received);
        let (snapshots, max_octets) = (self.snapshots.clone(), self.max_octets);
        let installed =
            spawn_blocking(move || snapshots.install(max_octets)).await.map_err(|error| io(error.into()))?;
        self.state = installed.map_err(|error| failed(ErrorVerb::Read, &io::Error::other(error)))?;
        self.last = meta.last_log_id;
        // Terms may have begun within the snapshot.
        self.term = TermStart { index: meta.last_log_id.map_or(0, |last| last.index), grants: 0 };
        self.membership = meta.last_membership.clone();
        self.publish();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, IoError> {
        let snapshots = self.snapshots.clone();
        let opened = spawn_blocking(move || snapshots.open()).await;
        let opened = opened.map_err(|error| failed(ErrorVerb::Read, &error.into()))?;
        let opened = opened.map_err(|error| failed(ErrorVerb::Read, &io::Error::other(error)))?;
        Ok(opened.map(|(meta, file)| snapshot(meta, file)))
    }
}

/// Writes a snapshot of the state at one moment.
pub(super) struct Builder {
    state: State,
    last: Option<LogId<MemberId>>,
    membership: Membership,
    snapshots: Snapshots,
}

impl RaftSnapshotBuilder<Types> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, IoError> {
        let (term, index) = self.last.map_or((0, 0), |last| (last.leader_id.term, last.index));
        let meta = Meta {
            last_log_id: self.last,
            last_membership: self.membership.clone(),
            snapshot_id: format!("{term}-{index}"),
        };
        // The state is dropped with the builder: a snapshot of long ago would keep memory.
        let state = mem::replace(&mut self.state, State::new(0));
        let (snapshots, written) = (self.snapshots.clone(), meta.clone());
        let written = spawn_blocking(move || snapshots.write(&written, &state)).await;
        let file = written
            .map_err(io::Error::from)
            .and_then(|written| written)
            .map_err(|error| failed(ErrorVerb::Write, &error))?;
        Ok(snapshot(meta, file))
    }
}

fn snapshot(meta: Meta, file: std::fs::File) -> Snapshot<Types> {
    Snapshot { meta, snapshot: Box::new(File::from_std(file)) }
}

fn undecodable(entry: LogId<MemberId>, error: &postcard::Error) -> IoError {
    StorageIOError::new(ErrorSubject::Apply(entry), ErrorVerb::Read, error).into()
}

fn failed(verb: ErrorVerb, error: &io::Error) -> IoError {
    StorageIOError::new(ErrorSubject::Snapshot(None), verb, error).into()
}
