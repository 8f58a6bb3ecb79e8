//! Requests that this node's own member carries out: as the leader, or on its applied state.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{RwLock, mpsc, oneshot},
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    interest::{Interest, Interests},
    renewal::Renewal,
    space_log::SpaceLog,
};
use crate::store::{
    command::{Command, Outcome},
    key::{KeyRange, Revision},
    lease::LifetimeId,
    message::PeerRefusal,
    query::{Answer, Consistency, Contact, Content, Query, Wait},
    raft::{Role, Voter},
    request::StoreError,
    state::State,
    watch::{Change, Watch, WatchMessage},
};

/// Time without a confirmation by a majority after which a leader no longer counts as one.
const UNCONFIRMED: Duration = Duration::from_secs(2);
/// Changes in one message of a watch. A revision is never split over messages.
const CHANGES: usize = 256;
/// Octets of keys and values in one message of a watch, roughly.
const CHANGE_OCTETS: usize = 1 << 20;
/// Time after which a watch without changes reports its progress.
const PROGRESS: Duration = Duration::from_secs(2);

/// This node's member, and those that wait for its changes.
#[derive(Clone)]
pub(super) struct Local {
    pub(super) voter: Voter,
    pub(super) interests: Interests,
    pub(super) renewals: mpsc::Sender<Renewal>,
    /// Cancelled when this node stops: its member no longer counts as the leader.
    pub(super) resigning: CancellationToken,
    /// Held by each write until it is queued.
    pub(super) accepting: Arc<RwLock<()>>,
    pub(super) space_log: SpaceLog,
    /// Cancelled when the member ends: a task that goes on with it keeps the log from being opened again.
    pub(super) ended: CancellationToken,
}

impl Local {
    /// Reports whether this member is the leader, as far as it knows, and belongs to the cluster.
    pub(super) fn is_leader(&self) -> bool {
        self.voter.leads()
            && !self.resigning.is_cancelled()
            && !self.voter.has_failed()
            && self.voter.confirmed_at().is_none_or(|confirmed| confirmed.elapsed() < UNCONFIRMED)
    }

    /// Reports whether the state of this member is that of the cluster, perhaps an earlier one. A member that was removed, or does
    /// not have the store yet, answers nothing.
    pub(super) fn holds_store(&self) -> bool {
        !self.voter.has_failed() && self.voter.is_voter() && self.voter.applied().borrow().state.cluster_id() != 0
    }

    /// Reports whether a member was removed from this cluster. Only the leader knows.
    pub(super) async fn has_removed(&self, cluster: u64, id: u64) -> Result<bool, PeerRefusal> {
        if !self.is_leader() {
            return Err(self.other_leader());
        }
        self.voter.confirm().await.map_err(|_| self.other_leader())?;
        Ok(self.voter.state().cluster_id() == cluster && self.voter.has_removed(id))
    }

    /// The leader that this member knows; `None` for this member itself, if no majority confirms it.
    pub(super) fn leader(&self, role: &Role) -> Option<String> {
        role.leader.clone().filter(|_| !role.is_leader || self.is_leader())
    }

    /// Refuses a request to the leader; with the name of the leader that this member knows, if that is another node.
    pub(super) fn other_leader(&self) -> PeerRefusal {
        if self.resigning.is_cancelled() {
            return PeerRefusal::Stopping;
        }
        let role = self.voter.role();
        PeerRefusal::NotLeader(role.leader.filter(|_| !role.is_leader))
    }

    /// Begins an election, since the leader of this term stops.
    pub(super) async fn take_over(&self, term: u64) -> Result<(), PeerRefusal> {
        let role = self.voter.role();
        if role.is_leader {
            return Ok(());
        }
        let has_other_leader = role.term > term && role.leader.is_some();
        if has_other_leader || self.resigning.is_cancelled() || self.voter.has_failed() {
            return Err(self.other_leader());
        }
        self.voter.elect().await;
        Ok(())
    }

    /// Applies a command.
    pub(super) async fn write(&self, command: Command) -> Result<Outcome, PeerRefusal> {
        let outcome = {
            let _accepting = self.accepting.read().await;
            if !self.is_leader() {
                return Err(self.other_leader());
            }
            self.voter.queue(command).await
        };
        let outcome = outcome.await.map_err(PeerRefusal::Failed)?;
        self.space_log.written(&outcome, || self.voter.state());
        Ok(outcome)
    }

    /// Refuses further requests to the leader. Returns once all writes that were accepted are queued.
    pub(super) async fn refuse(&self) {
        self.resigning.cancel();
        drop(self.accepting.write().await);
    }

    /// Answers a query, after a change if asked for.
    pub(super) async fn read(
        &self,
        query: &Query,
        consistency: Consistency,
        wait: Option<Wait>,
    ) -> Result<Answer, PeerRefusal> {
        let Some(wait) = wait else { return self.answer(query, consistency).await };
        let until = Instant::now() + wait.limit;
        let waiter = self.interests.register(interest(query));
        loop {
            let answer = self.answer(query, consistency).await?;
            if answer.index != wait.index {
                return Ok(answer);
            }
            tokio::select! {
                changed = timeout_at(until, waiter.changed()) => if changed.is_err() { return Ok(answer) },
                () = self.ended.cancelled() => return Err(PeerRefusal::NotLeader(None)),
            }
        }
    }

    async fn answer(&self, query: &Query, consistency: Consistency) -> Result<Answer, PeerRefusal> {
        if consistency == Consistency::Linearizable {
            if !self.is_leader() {
                return Err(self.other_leader());
            }
            self.voter.confirm().await.map_err(|_| self.other_leader())?;
        } else if !self.holds_store() {
            return Err(self.other_leader());
        }
        let state = self.voter.state();
        let mut answer = state.read(query).map_err(|refusal| PeerRefusal::Failed(StoreError::Refused(refusal)))?;
        if consistency == Consistency::Stale {
            answer.contact = self.contact();
        }
        if let (Query::Lease(id), Content::Lease(Some(lease))) = (query, &mut answer.content) {
            let remaining = self.remaining(LifetimeId::Lease(*id)).await;
            lease.remaining = remaining.map_or(lease.ttl, |remaining| remaining.as_secs());
        }
        Ok(answer)
    }

    /// Contact of this member with the leader.
    fn contact(&self) -> Contact {
        let role = self.voter.role();
        let silence = match (self.is_leader(), self.voter.confirmed_at()) {
            (true, _) => Duration::ZERO,
            (false, Some(confirmed)) => confirmed.elapsed(),
            (false, None) => self.voter.leader_silence(),
        };
        Contact { has_leader: self.leader(&role).is_some(), silence }
    }

    /// Time that a lease or a session has left; `None` if only another member knows.
    async fn remaining(&self, id: LifetimeId) -> Option<Duration> {
        let (done, remaining) = oneshot::channel();
        self.renewals.send(Renewal::Remaining { id, done }).await.ok()?;
        remaining.await.ok()?
    }

    /// Renews a lease or a session.
    pub(super) async fn renew(&self, id: LifetimeId) -> Result<Option<Duration>, PeerRefusal> {
        if !self.is_leader() {
            return Err(self.other_leader());
        }
        // The lifetime may have been created by a write that is not applied yet, or the leader may be deposed.
        self.voter.confirm().await.map_err(|_| self.other_leader())?;
        let (done, renewed) = oneshot::channel();
        let gone = |_| self.other_leader();
        self.renewals.send(Renewal::Renew { id, done }).await.map_err(|_| self.other_leader())?;
        renewed.await.map_err(gone)?.map_err(PeerRefusal::Failed)
    }

    /// Sends the changes of a range, until the receiver is dropped or the history ends. Sends nothing if this member does not hold
    /// the store.
    pub(super) async fn watch(&self, watch: Watch, messages: &mpsc::Sender<WatchMessage>) {
        if !self.holds_store() {
            return;
        }
        let waiter = self.interests.register(Interest::Keys(watch.range.clone()));
        let applied = self.voter.applied();
        let state = applied.borrow().state.clone();
        let mut next = watch.from.unwrap_or_else(|| state.revision().next());
        let mut seen_from = next;
        if messages.send(WatchMessage::Began(state.revision())).await.is_err() {
            return;
        }
        loop {
            let state = applied.borrow().state.clone();
            if seen_from < state.compacted() {
                let _ = messages.send(WatchMessage::Compacted(state.compacted())).await;
                return;
            }
            for message in changes(&state, &watch.range, seen_from) {
                if messages.send(message).await.is_err() {
                    return;
                }
            }
            next = next.max(state.revision().next());
            tokio::select! {
                first = waiter.changed() => seen_from = first.max(next),
                () = messages.closed() => return,
                () = self.ended.cancelled() => return,
                () = sleep(PROGRESS) => {
                    if let Some(revision) = waiter.unchanged_up_to().filter(|revision| revision.next() >= next) {
                        next = revision.next();
                        if messages.send(WatchMessage::Progress(revision)).await.is_err() {
                            return;
                        }
                    }
                    seen_from = next;
                }
            }
        }
    }
}

/// The changes of a range from a revision on, in messages of whole revisions.
fn changes(state: &State, range: &KeyRange, from: Revision) -> Vec<WatchMessage> {
    let (mut messages, mut pending, mut octets) = (Vec::new(), Vec::<Change>::new(), 0);
    for change in state.changes(Revision(from.0.saturating_sub(1))).filter(|change| range.contains(&change.key)) {
        if let Some(last) = pending.last().map(|last| last.revision)
            && last != change.revision
            && (pending.len() >= CHANGES || octets >= CHANGE_OCTETS)
        {
            // Not the revision of the state: a client that goes on behind it would miss the changes of the next messages.
            messages.push(WatchMessage::Changes { revision: last, changes: std::mem::take(&mut pending) });
            octets = 0;
        }
        octets += change.octets();
        pending.push(change.clone());
    }
    if !pending.is_empty() {
        messages.push(WatchMessage::Changes { revision: state.revision(), changes: pending });
    }
    messages
}

/// The part of the state that a query covers.
fn interest(query: &Query) -> Interest {
    match query {
        Query::Range(range) => Interest::Keys(range.range.clone()),
        Query::Key(key) => Interest::Keys(KeyRange::Key(key.clone())),
        Query::Prefix(prefix) | Query::Keys { prefix, .. } => Interest::Keys(KeyRange::prefix(prefix.clone())),
        Query::Session(_)
        | Query::Sessions { .. }
        | Query::Lease(_)
        | Query::Leases
        | Query::Totals
        | Query::HeldKeys
        | Query::KeysOf(_) => Interest::Sessions,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{command::Operation, key::Key};

    fn write(state: &mut State, operations: Vec<Operation>) {
        assert!(state.apply(Command::Operate(operations)).result.is_ok());
    }

    fn set(key: &str, octets: usize, round: u64) -> Operation {
        Operation::Set { key: Key::new(key).unwrap(), value: vec![b'v'; octets].into(), flags: round }
    }

    /// The number of changes in each message, which are all that a client receives that goes on behind each of them.
    fn lengths(state: &State) -> Vec<usize> {
        let (mut next, mut lengths) = (Revision(2), Vec::new());
        for message in changes(state, &KeyRange::prefix("key/"), next) {
            let WatchMessage::Changes { revision, changes } = message else { panic!("{message:?}") };
            assert!(changes.iter().all(|change| (next..=revision).contains(&change.revision)), "{next} to {revision}");
            next = revision.next();
            lengths.push(changes.len());
        }
        assert_eq!(next, state.revision().next());
        lengths
    }

    #[test]
    fn message_of_a_watch_has_the_revision_of_its_last_change() {
        let mut state = State::new(1 << 30);
        for number in 0..600 {
            write(&mut state, vec![set(&format!("key/{number}"), 1, 0)]);
        }
        write(&mut state, vec![set("other", 1, 0)]);
        assert_eq!(lengths(&state), [256, 256, 88]);
    }

    #[test]
    fn revision_is_not_split_over_messages() {
        let mut state = State::new(1 << 30);
        for round in 0..8 {
            write(&mut state, (0..60).map(|number| set(&format!("key/{number}"), 1, round)).collect());
        }
        assert_eq!(lengths(&state), [300, 180]);
    }

    #[test]
    fn previous_values_count_for_the_length_of_a_message() {
        let mut state = State::new(1 << 30);
        for round in 0..4 {
            write(&mut state, vec![set("key/a", 400 << 10, round)]);
        }
        assert_eq!(lengths(&state), [2, 2]);
    }
}
