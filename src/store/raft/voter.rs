//! A member of the store's cluster on this node: Raft, its log, and its applied state.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use openraft::{
    ChangeMembers, Config, Raft, ServerState, SnapshotPolicy,
    error::{ClientWriteError, InitializeError, RaftError},
};
use tokio::{
    sync::{Mutex, mpsc, oneshot, watch},
    task::spawn_blocking,
    time::{Instant, timeout},
};

use super::{
    Applied, Member, MemberId, Types,
    batch::{Proposal, propose},
    contacts::{Contacts, LeaderContact},
    leadership::{Confirmed, confirm},
    log::Log,
    machine::Machine,
    network::{Network, answer},
    snapshot_file::{SnapshotFileError, Snapshots},
};
use crate::{
    metrics,
    store::{
        command::{Command, Outcome},
        message::KnownMember,
        peers::Peers,
        request::StoreError,
        state::State,
    },
};

/// Time limit of a message to a follower: its write to disk included.
const REPLICATION_TIMEOUT: Duration = Duration::from_millis(500);
/// Time since the last heartbeat for which a follower trusts the leader, and votes for no other member: four heartbeats may be lost.
pub(in crate::store) const MAX_TRUST: Duration = Duration::from_millis(900);
/// Time after [`MAX_TRUST`] from which a follower may start an election: at random up to `MAX_TRUST`, which openraft takes for both.
const MIN_ELECTION_TIMEOUT: Duration = Duration::from_millis(600);
/// Time limit of a part of a snapshot; the last part includes its installation.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(30);
/// Octets of a part of a snapshot.
const SNAPSHOT_PART: u64 = 1 << 20;
/// Entries after which a snapshot is taken; fewer in tests, so that followers and restarts need snapshots.
const ENTRIES_PER_SNAPSHOT: u64 = if cfg!(test) { 1_000 } else { 50_000 };
/// Entries before the snapshot that are kept for followers that are a little behind; fewer if they are large, see `log_size`.
const KEPT_ENTRIES: u64 = if cfg!(test) { 100 } else { 5_000 };
/// Entries that a follower may lack before it gets a snapshot instead.
const MAX_LAG: u64 = 100_000;
/// Time limit for a learner to receive the store: less than that of the request for it.
const CATCH_UP: Duration = Duration::from_secs(if cfg!(test) { 20 } else { 285 });
/// Entries in one message to a follower.
const MAX_ENTRIES_SENT: u64 = 256;
/// Commands that wait to be proposed.
const PROPOSALS: usize = 8192;
/// Reads that wait for a confirmation.
const READERS: usize = 8192;
/// Name of the log's folder.
pub(super) const LOG: &str = "log";

mod error;
mod log_size;
mod role;

pub(in crate::store) use self::{error::VoterError, role::Role};

/// State of Raft.
type RaftMetrics = openraft::RaftMetrics<MemberId, Member>;

/// A member of the store's cluster on this node.
#[derive(Clone)]
pub(in crate::store) struct Voter {
    id: MemberId,
    raft: Raft<Types>,
    log: Log,
    had_log: bool,
    proposals: mpsc::Sender<Proposal>,
    readers: mpsc::Sender<Confirmed>,
    confirmed: watch::Receiver<Option<Instant>>,
    applied: watch::Receiver<Applied>,
    metrics: watch::Receiver<RaftMetrics>,
    contacts: Contacts,
    leader_contact: LeaderContact,
    /// Held during a change of the members. openraft makes it in two steps, and panics if another change between them removes
    /// this member.
    changing: Arc<Mutex<()>>,
}

impl Voter {
    /// Starts a member from its folder: with its log and state, or empty.
    pub(in crate::store) async fn open(
        folder: &Path,
        id: MemberId,
        peers: Peers,
        max_octets: u64,
        metrics: metrics::Store,
    ) -> Result<Self, VoterError> {
        let folder = folder.to_owned();
        let read = spawn_blocking(move || read(&folder, max_octets, metrics)).await;
        let (log, machine) = read.map_err(|error| VoterError::Log(error.into()))??;
        let (had_log, applied) = (!log.is_empty(), machine.applied());
        let (snapshot, purged) = (applied.borrow().index, log.purged());
        if snapshot < purged {
            return Err(VoterError::Gap { snapshot, purged });
        }
        let contacts = Contacts::default();
        let network = Network { peers, contacts: contacts.clone() };
        let started = Raft::new(id, Arc::new(config()), network, log.clone(), machine).await;
        let raft = started.map_err(|error| VoterError::Raft(error.to_string()))?;
        let (proposals, proposed) = mpsc::channel(PROPOSALS);
        let (readers, waiting) = mpsc::channel(READERS);
        let (confirmations, confirmed) = watch::channel(None);
        tokio::spawn(propose(raft.clone(), proposed));
        tokio::spawn(confirm(raft.clone(), waiting, applied.clone(), confirmations, contacts.clone()));
        Ok(Self {
            id,
            metrics: raft.metrics(),
            raft,
            log,
            had_log,
            proposals,
            readers,
            confirmed,
            applied,
            contacts,
            leader_contact: LeaderContact::default(),
            changing: Arc::default(),
        })
    }

    pub(in crate::store) fn id(&self) -> MemberId {
        self.id
    }

    /// Reports whether the member had votes or entries when it started.
    pub(in crate::store) fn had_log(&self) -> bool {
        self.had_log
    }

    /// Founds a cluster of these voters. Succeeds if the cluster exists.
    pub(in crate::store) async fn found(&self, members: BTreeMap<MemberId, Member>) -> Result<(), StoreError> {
        match self.raft.initialize(members).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(error) => Err(StoreError::Membership(error.to_string())),
        }
    }

    /// Proposes a command. An error means that it may be applied or not.
    pub(in crate::store) async fn propose(&self, command: Command) -> Result<Outcome, StoreError> {
        self.queue(command).await.await
    }

    /// Queues a command to be proposed behind those that were queued before. The outcome is that of [`propose`](Self::propose).
    pub(in crate::store) async fn queue(
        &self,
        command: Command,
    ) -> impl Future<Output = Result<Outcome, StoreError>> + use<> {
        let (done, outcome) = oneshot::channel();
        if let Ok(proposal) = Proposal::new(&command, done) {
            let _ = self.proposals.send(proposal).await;
        }
        // Without an outcome, Raft has ended.
        async { outcome.await.unwrap_or(Err(StoreError::NoLeader)) }
    }

    /// Confirms that this member is the leader, and that the applied state reflects every write that was acknowledged
    /// before the call.
    pub(in crate::store) async fn confirm(&self) -> Result<(), StoreError> {
        let (done, confirmed) = oneshot::channel();
        self.readers.send(done).await.map_err(|_| StoreError::NoLeader)?;
        confirmed.await.map_err(|_| StoreError::NoLeader)
    }

    /// The time at which a majority last confirmed the leadership of this member; `None` if it is not the leader.
    pub(in crate::store) fn confirmed_at(&self) -> Option<Instant> {
        *self.confirmed.borrow()
    }

    /// Time since another member last replied to this one, the leader; `None` if it is unknown.
    pub(in crate::store) fn unreached(&self, id: MemberId) -> Option<Duration> {
        if id == self.id { Some(Duration::ZERO) } else { self.contacts.unreached(id) }
    }

    /// Reports whether another member has replied to this one since it became the leader.
    pub(in crate::store) fn has_reply_of(&self, id: MemberId) -> bool {
        id == self.id || self.contacts.has_replied(id)
    }

    /// Time since the last heartbeat of a leader, or since the start of this member.
    pub(in crate::store) fn leader_silence(&self) -> Duration {
        self.leader_contact.silence()
    }

    /// The applied state now.
    pub(in crate::store) fn state(&self) -> State {
        self.applied.borrow().state.clone()
    }

    /// Follows the applied state.
    pub(in crate::store) fn applied(&self) -> watch::Receiver<Applied> {
        self.applied.clone()
    }

    /// Begins an election, in which this member is a candidate, unless it is the leader.
    pub(in crate::store) async fn elect(&self) {
        // Fails only if Raft has ended.
        let _ = self.raft.trigger().elect().await;
    }

    /// Reports whether this member is the leader, as far as it knows, and belongs to the cluster.
    pub(in crate::store) fn leads(&self) -> bool {
        leads(&self.metrics.borrow())
    }

    /// Reports whether this member votes in its cluster, as of its log.
    pub(in crate::store) fn is_voter(&self) -> bool {
        self.metrics.borrow().membership_config.membership().voter_ids().any(|id| id == self.id)
    }

    /// Reports whether a member does not belong to the cluster, as of a committed change of the members. Reliable on a confirmed
    /// leader only.
    pub(in crate::store) fn has_removed(&self, id: MemberId) -> bool {
        let metrics = self.metrics.borrow();
        let members = &metrics.membership_config;
        let changed_at = members.log_id().map_or(0, |changed| changed.index);
        members.membership().get_node(&id).is_none() && changed_at <= self.applied.borrow().index
    }

    /// Reports whether Raft has ended, since it could not write or has panicked.
    pub(in crate::store) fn has_failed(&self) -> bool {
        // Without a word, if it panicked.
        self.metrics.borrow().running_state.is_err() || self.metrics.has_changed().is_err()
    }

    /// The error that has ended Raft, if it left one. That of a write to the log comes first: later ones say only that the log is closed.
    pub(in crate::store) fn failure(&self) -> Option<String> {
        let of_log = self.log.failure().map(|error| format!("cannot write the log of the store: {error}"));
        of_log.or_else(|| self.failure_of_raft())
    }

    /// Reports whether entries were written since the start.
    pub(in crate::store) fn has_written(&self) -> bool {
        self.log.has_written()
    }

    /// Writes which entries are committed, unless later entries took that along.
    pub(in crate::store) fn write_committed(&self) {
        self.log.write_committed();
    }

    fn failure_of_raft(&self) -> Option<String> {
        self.metrics.borrow().running_state.as_ref().err().map(ToString::to_string)
    }

    /// The part of the member in its cluster now.
    pub(in crate::store) fn role(&self) -> Role {
        role(&self.metrics.borrow())
    }

    /// Waits for a change of [`role`](Self::role).
    pub(in crate::store) fn role_changes(&self) -> RoleChanges {
        RoleChanges(self.metrics.clone())
    }

    /// Passes a message of another member to Raft. Returns the reply; `None` if the message is invalid.
    pub(in crate::store) async fn answer(&self, octets: &[u8]) -> Option<Bytes> {
        answer(&self.raft, &self.leader_contact, octets).await
    }

    /// Adds a learner, which becomes a voter once it has the log. `replaced` are removed at the same time. A learner that does not
    /// receive the log stays a learner.
    pub(in crate::store) async fn add(
        &self,
        id: MemberId,
        node: &str,
        replaced: &BTreeSet<MemberId>,
    ) -> Result<(), StoreError> {
        {
            let _changing = self.changing.lock().await;
            self.still_leads()?;
            let member = Member { node: node.to_owned() };
            self.raft.add_learner(id, member, false).await.map_err(|error| changed(&error))?;
        }
        // Other changes may go on in the meantime: a learner that cannot be reached may have to be removed.
        timeout(CATCH_UP, self.catch_up(id, node)).await.unwrap_or_else(|_| Err(not_caught_up(node)))?;
        let _changing = self.changing.lock().await;
        self.still_leads()?;
        if self.has_removed(id) {
            return Err(was_removed(node));
        }
        let former = self.role().members.into_iter().filter(|member| !member.is_voter && replaced.contains(&member.id));
        let former: BTreeSet<_> = former.map(|member| member.id).collect();
        if !former.is_empty() {
            let change = ChangeMembers::RemoveNodes(former);
            self.raft.change_membership(change, false).await.map_err(|error| changed(&error))?;
        }
        let voters = self.role().members.into_iter().filter(|member| member.is_voter).map(|member| member.id);
        let voters = voters.chain([id]).filter(|voter| !replaced.contains(voter)).collect();
        self.set_voters(voters).await
    }

    /// Waits until a learner has the log: a voter that lacks much of it delays writes, and counts for a majority that cannot
    /// do without it. The entries that arrive meanwhile are waited for as well, until they take less than an election (§4.2.1 of
    /// the Raft thesis).
    async fn catch_up(&self, id: MemberId, node: &str) -> Result<(), StoreError> {
        let mut roles = self.role_changes();
        loop {
            let (began, target) = (Instant::now(), self.role().last_log);
            while self.role().replicated.get(&id).is_none_or(|index| *index < target) {
                self.still_leads()?;
                if self.has_removed(id) {
                    return Err(was_removed(node));
                }
                if !roles.changed().await {
                    return Err(StoreError::NoLeader);
                }
            }
            if began.elapsed() < MAX_TRUST {
                return Ok(());
            }
        }
    }

    /// Removes members.
    pub(in crate::store) async fn remove(&self, removed: &BTreeSet<MemberId>) -> Result<(), StoreError> {
        let _changing = self.changing.lock().await;
        self.still_leads()?;
        let members = self.role().members;
        let (voters, learners): (Vec<_>, Vec<_>) = members.into_iter().partition(|member| member.is_voter);
        let voters: BTreeSet<_> = voters.into_iter().map(|member| member.id).collect();
        let learners: BTreeSet<_> =
            learners.into_iter().map(|member| member.id).filter(|id| removed.contains(id)).collect();
        if !learners.is_empty() {
            let change = ChangeMembers::RemoveNodes(learners);
            self.raft.change_membership(change, false).await.map_err(|error| changed(&error))?;
        }
        match &voters - removed {
            left if left == voters => Ok(()),
            left if left.is_empty() => {
                Err(StoreError::Membership("the last voter cannot be removed: add another one first".to_owned()))
            }
            left => self.set_voters(left).await,
        }
    }

    /// Fails if an earlier change has removed this member.
    fn still_leads(&self) -> Result<(), StoreError> {
        if self.leads() { Ok(()) } else { Err(StoreError::NoLeader) }
    }

    async fn set_voters(&self, voters: BTreeSet<MemberId>) -> Result<(), StoreError> {
        let change = ChangeMembers::ReplaceAllVoters(voters);
        self.raft.change_membership(change, false).await.map(drop).map_err(|error| changed(&error))
    }

    /// Ends the member.
    pub(in crate::store) async fn end(&self) {
        // The error tells that Raft panicked, which it has logged.
        let _ = self.raft.shutdown().await;
        self.log.write_committed();
    }
}

/// Reads the log and the snapshot in a folder.
fn read(folder: &Path, max_octets: u64, metrics: metrics::Store) -> Result<(Log, Machine), VoterError> {
    let log = Log::open(&folder.join(LOG), metrics).map_err(VoterError::Log)?;
    let snapshots = Snapshots::new(folder);
    // Behind the log, which has locked the folder.
    snapshots.remove_incomplete().map_err(SnapshotFileError::Io)?;
    Ok((log, Machine::open(snapshots, max_octets)?))
}

/// Changes of a member's role.
pub(in crate::store) struct RoleChanges(watch::Receiver<RaftMetrics>);

impl RoleChanges {
    /// Waits for the next change. Returns false if Raft has ended.
    pub(in crate::store) async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}

fn config() -> Config {
    let millis = |duration: Duration| duration.as_millis() as u64;
    Config {
        cluster_name: "muster".to_owned(),
        heartbeat_interval: millis(REPLICATION_TIMEOUT),
        // `leadership` sends heartbeats.
        enable_heartbeat: false,
        election_timeout_min: millis(MIN_ELECTION_TIMEOUT),
        election_timeout_max: millis(MAX_TRUST),
        install_snapshot_timeout: millis(SNAPSHOT_TIMEOUT),
        snapshot_max_chunk_size: SNAPSHOT_PART,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(ENTRIES_PER_SNAPSHOT),
        max_in_snapshot_log_to_keep: KEPT_ENTRIES,
        replication_lag_threshold: MAX_LAG,
        max_payload_entries: MAX_ENTRIES_SENT,
        ..Config::default()
    }
}

fn leads(metrics: &RaftMetrics) -> bool {
    // openraft keeps a leader that was removed, and panics if it changes the members again.
    let is_member = || metrics.membership_config.membership().get_node(&metrics.id).is_some();
    metrics.state == ServerState::Leader && is_member()
}

fn role(metrics: &RaftMetrics) -> Role {
    let membership = metrics.membership_config.membership();
    let voters: BTreeSet<_> = membership.voter_ids().collect();
    let members = membership.nodes().map(|(id, member)| KnownMember {
        id: *id,
        node: member.node.clone(),
        is_voter: voters.contains(id),
    });
    let leader = metrics.current_leader.and_then(|leader| membership.get_node(&leader));
    let replicated = metrics.replication.iter().flatten();
    Role {
        is_leader: leads(metrics),
        leader: leader.map(|leader| leader.node.clone()),
        term: metrics.current_term,
        members: members.collect(),
        last_log: metrics.last_log_index.unwrap_or_default(),
        replicated: replicated.map(|(id, log_id)| (*id, log_id.map_or(0, |log_id| log_id.index))).collect(),
    }
}

fn not_caught_up(node: &str) -> StoreError {
    StoreError::Membership(format!(
        "{node} did not receive the whole store within {} s and is a learner without a vote: see the log of its agent, then \
         repeat `muster store add {node}`, or give up with `muster store remove {node}`",
        CATCH_UP.as_secs()
    ))
}

fn was_removed(node: &str) -> StoreError {
    StoreError::Membership(format!("{node} was removed while it received the store"))
}

fn changed(error: &RaftError<MemberId, ClientWriteError<MemberId, Member>>) -> StoreError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) | RaftError::Fatal(_) => StoreError::NoLeader,
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => {
            StoreError::Membership(error.to_string())
        }
    }
}
